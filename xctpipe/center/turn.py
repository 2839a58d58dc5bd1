"""Axis from all pairs of opposite frames of a full turn, wherever in the view it is.

Every frame of a full turn has an opposite that sees the same line integrals mirrored, p(a + pi, u) =
p(a, 2c - u), over the columns that the axis leaves to both [1]_. So does every sum of frames and the same sum
of their opposites. What a straight line or a parabola over the angle tells of a column within some 20 degrees
is taken off both and leaves that relation as it was: a static detector pattern goes with it, and the rim of a
round sample, which wobbles slowly and is almost its own mirror image, stronger than all that the columns
about an axis near the edge of the view hold. What is left, detail that passes by, is correlated. The
difference of opposites, free of the pattern in a single pair, has twice the noise; and here all frames count.

References
----------
.. [1] Vo, Atwood, Drakopoulos, Connolley, Opt. Express 29, 17849 (2021), doi:10.1364/OE.418448
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray
from scipy import fft

from xctpipe.center.antisymmetry import COLS_PER_SAMPLE, LEAST_OVERLAP_FRAC, Curves, octaves, rim_taper
from xctpipe.center.combine import NOISE_SIGNIFICANCE
from xctpipe.center.lines import SMALLEST_SIGMA_PX, Line
from xctpipe.center.peaks import find_line
from xctpipe.scan import DoubleArray, FloatArray

FULL_TURN_RAD = float(np.radians(350.0))
LEAST_OVERLAP_PX = 16.0
LEAST_OVERLAP_WIDTH_FRAC = 0.05
GROUPS = 8
FEWEST_IN_GROUP = 16
TREND_TERMS = 3
GROUP_REACH_PX = 8.0
RIVAL_WIDTH_FRAC = 0.05


@dataclass(frozen=True)
class Pairs:
    """Frames of the first half turn and, for each, the two between which its opposite lies.

    The opposite is `(1 - part) * frame[after - 1] + part * frame[after]`.
    """

    start: NDArray[np.intp]
    after: NDArray[np.intp]
    part: FloatArray


@dataclass(frozen=True, eq=False)
class Sums:
    """Products and energies (group, row, candidate) of one band, and columns that overlap (candidate,)."""

    product: DoubleArray
    energy: DoubleArray
    samples: DoubleArray


def is_full_turn(angles_rad: DoubleArray) -> bool:
    """Whether ascending angles (rad) close, all but 10 degrees, to a whole turn."""
    step = float(np.median(np.diff(angles_rad)))
    return float(angles_rad[-1] - angles_rad[0]) + step >= FULL_TURN_RAD


def full_search_px(n_cols: int) -> tuple[float, float]:
    """First and last column about which enough columns overlap: 5 % of the width and 16."""
    overlap = max(LEAST_OVERLAP_PX, LEAST_OVERLAP_WIDTH_FRAC * n_cols)
    margin = min(overlap / 2, n_cols / 4)
    return margin, n_cols - 1 - margin


def turn_line(
    slab: FloatArray,
    *,
    angles_rad: DoubleArray,
    rows: DoubleArray,
    candidates_px: DoubleArray,
    search_px: tuple[float, float],
) -> Line | None:
    """Axis about which frames agree best with their opposites, or None without pairs or columns for it.

    Its uncertainty is what the scatter over rows tells, or that over groups of angles where it is larger.
    What the next best axis elsewhere stands out of noise is taken off its significance.

    Parameters
    ----------
    slab : (angle, row, col) line integrals, finite
    angles_rad : ascending, over a full turn
    rows : detector row of each of the slab's rows
    candidates_px : ascending multiples of half a column
    search_px : first and last column allowed
    """
    pairs = opposite_pairs(angles_rad)
    scales = octaves(slab.shape[2], finest_px=1.0)
    if not pairs.start.size or not scales:
        return None
    step_px = max(float(np.median(np.diff(angles_rad))) * slab.shape[2] / 2, 1e-6)
    bands = [
        _band_sums(slab, pairs=pairs, scale_px=scale, by=max(1, int(scale / step_px)), at=candidates_px)
        for scale in scales
    ]
    curves = _curves(bands, groups=np.arange(len(bands[0].product)), at=candidates_px)
    line = find_line(curves, rows=rows, search_px=search_px, by_majority=True)
    sigma_px = _scatter_px(bands, at=candidates_px, rows=rows, near_px=line.center_px)
    rival = _rival_significance(curves, rows=rows, search_px=search_px, away_px=line.center_px)
    return replace(
        line,
        fit=replace(line.fit, sigma_px=max(line.fit.sigma_px, sigma_px)),
        significance=max(0.0, line.significance - max(0.0, rival - NOISE_SIGNIFICANCE)),
    )


def opposite_pairs(angles_rad: DoubleArray) -> Pairs:
    """Each frame of the first half turn that has an opposite within the measured range."""
    last = min(angles_rad[-1] - np.pi + 1e-6, angles_rad[0] + np.pi - 1e-6)
    start = np.flatnonzero(angles_rad <= last)
    wanted = angles_rad[start] + np.pi
    after = np.searchsorted(angles_rad, wanted).clip(1, angles_rad.size - 1)
    gap = angles_rad[after] - angles_rad[after - 1]
    part = ((wanted - angles_rad[after - 1]) / np.where(gap > 0, gap, 1.0)).clip(0, 1)
    return Pairs(start, after, part.astype(np.float32))


def _opposites(row: FloatArray, *, pairs: Pairs, chosen: slice) -> FloatArray:
    part = pairs.part[chosen, None]
    after = pairs.after[chosen]
    out: FloatArray = row[after - 1] * (1 - part)
    out += row[after] * part
    return out


def _group_slices(n_pairs: int) -> list[slice]:
    """Groups of neighbouring pairs."""
    count = int(np.clip(n_pairs // FEWEST_IN_GROUP, 1, GROUPS))
    bounds = np.linspace(0, n_pairs, count + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds)]


def _without_trend(frames: FloatArray) -> FloatArray:
    """Frames less the parabola over their number that fits each column best."""
    number = np.linspace(-1, 1, len(frames))
    trend = np.linalg.qr(np.stack([number**k for k in range(TREND_TERMS)], axis=1))[0].astype(np.float32)
    left: FloatArray = frames - trend @ (trend.T @ frames)
    return left


def _binned(frames: FloatArray, *, by: int) -> FloatArray:
    by = min(by, len(frames))
    whole = len(frames) // by * by
    binned: FloatArray = frames[:whole].reshape(-1, by, frames.shape[1]).mean(axis=1)
    return binned


def _band_sums(slab: FloatArray, *, pairs: Pairs, scale_px: float, by: int, at: DoubleArray) -> Sums:
    """Correlation of one band: `by` neighbouring pairs, over which its detail hardly moves, are averaged."""
    n_rows, n_cols = slab.shape[1:]
    chosen = _group_slices(pairs.start.size)
    taper = rim_taper(n_cols, scale_px=scale_px).astype(np.float32)
    length = int(fft.next_fast_len(2 * n_cols, real=True))
    index = np.round(2 * at).astype(np.intp)
    weight = fft.rfft(taper.astype(np.float64), length)
    product, energy = np.empty((2, len(chosen), n_rows, at.size))
    binned_pairs = np.zeros(len(chosen))
    for i in range(n_rows):
        row = slab[:, i]
        for g, part in enumerate(chosen):
            both = row[pairs.start[part]], _opposites(row, pairs=pairs, chosen=part)
            first, second = (_band(_binned(_without_trend(one), by=by), scale_px=scale_px) for one in both)
            binned_pairs[g] = len(first)
            product[g, i] = _convolved(first * taper, second * taper, length=length)[index]
            power = np.sum(first**2 + second**2, axis=0, dtype=np.float64) / 2
            energy[g, i] = fft.irfft(fft.rfft(power * taper, length) * weight, length)[index]
    overlap = fft.irfft(weight**2, length)[index].clip(min=0)
    overlap[overlap <= LEAST_OVERLAP_FRAC * np.sum(taper**2)] = 0.0
    return Sums(product, energy, binned_pairs[:, None] * overlap / (COLS_PER_SAMPLE * scale_px))


def _convolved(first: FloatArray, second: FloatArray, *, length: int) -> DoubleArray:
    """Sum over the pairs of the convolution of one with the other: at 2c, the product mirrored about c."""
    workers = get_num_threads()
    spectrum = fft.rfft(first, length, axis=-1, workers=workers)
    spectrum *= fft.rfft(second, length, axis=-1, workers=workers)
    return np.asarray(fft.irfft(spectrum.sum(axis=0, dtype=np.complex128), length))


def _band(frames: FloatArray, *, scale_px: float) -> FloatArray:
    """Band between two Gaussians of `scale_px` and twice that, the frames continued by their edges."""
    n_cols, workers = frames.shape[-1], get_num_threads()
    margin = int(8 * scale_px) + 1
    length = int(fft.next_fast_len(n_cols + 2 * margin, real=True))
    padded = np.pad(frames, ((0, 0), (margin, length - n_cols - margin)), mode="edge")
    fine = np.exp(-2 * (np.pi * fft.rfftfreq(length) * scale_px) ** 2)
    spectrum = fft.rfft(padded, axis=-1, workers=workers) * (fine - fine**4).astype(np.float32)
    band: FloatArray = fft.irfft(spectrum, length, axis=-1, workers=workers)[:, margin : margin + n_cols]
    return band


def _curves(bands: list[Sums], *, groups: NDArray[np.intp], at: DoubleArray) -> Curves:
    rho, samples = [], []
    for band in bands:
        product, energy = band.product[groups].sum(axis=0), band.energy[groups].sum(axis=0)
        floor = np.maximum(1e-3 * energy.max(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
        number = band.samples[groups].sum(axis=0)
        rho.append(np.where(number > 0, product / np.maximum(energy, floor), 0.0))
        samples.append(number)
    return Curves("turn", at, np.stack(rho, axis=1), np.stack(samples))


def _rival_significance(
    curves: Curves, *, rows: DoubleArray, search_px: tuple[float, float], away_px: float
) -> float:
    """Significance of the best axis that is another one."""
    apart_px = max(GROUP_REACH_PX, RIVAL_WIDTH_FRAC * curves.candidates_px.size / 2)
    near = np.abs(curves.candidates_px - away_px) <= apart_px
    rest = replace(curves, rho=np.where(near, 0.0, curves.rho))
    return find_line(rest, rows=rows, search_px=search_px, by_majority=True).significance


def _scatter_px(bands: list[Sums], *, at: DoubleArray, rows: DoubleArray, near_px: float) -> float:
    """Standard deviation of the mean axis of the groups of angles, each near the axis; 0 with one group.

    None is left out: what moves in a turn shows in few of them.
    """
    near = np.abs(at - near_px) <= GROUP_REACH_PX
    if len(bands[0].product) < 2 or near.sum() < 2:
        return 0.0
    window = float(at[near][0]), float(at[near][-1])
    center, weight = np.empty((2, len(bands[0].product)))
    for g in range(center.size):
        curves = _curves(bands, groups=np.array([g]), at=at)
        here = replace(
            curves,
            candidates_px=at[near],
            rho=curves.rho[:, :, near],
            samples=curves.samples[:, near],
        )
        fit = find_line(here, rows=rows, search_px=window, by_majority=True).fit
        center[g], weight[g] = fit.center_px, 1 / max(fit.sigma_px, SMALLEST_SIGMA_PX) ** 2
    weight /= weight.sum()
    scatter = np.sum((weight * (center - weight @ center)) ** 2)
    return float(np.sqrt(scatter * center.size / (center.size - 1)))
