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
from numpy.typing import NDArray
from scipy import fft

from xctpipe.center.antisymmetry import (
    COLS_PER_SAMPLE,
    SCALE_IN_BINS,
    Curves,
    Mirror,
    band_kernel,
    band_pass,
    binned,
    octaves,
)
from xctpipe.center.combine import NOISE_SIGNIFICANCE
from xctpipe.center.lines import SMALLEST_SIGMA_PX, Line
from xctpipe.center.peaks import find_line
from xctpipe.correct.threads import in_threads
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
    bands = _band_sums(slab, pairs=pairs, scales_px=scales, step_px=step_px, at=candidates_px)
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


def _angle_binned(frames: FloatArray, *, by: int) -> FloatArray:
    by = min(by, len(frames))
    if by == 1:
        return frames
    whole = len(frames) // by * by
    mean: FloatArray = frames[:whole].reshape(-1, by, frames.shape[1]).mean(axis=1)
    return mean


def _band_sums(
    slab: FloatArray, *, pairs: Pairs, scales_px: list[float], step_px: float, at: DoubleArray
) -> list[Sums]:
    """Correlation of each band: neighbouring pairs, over which its detail hardly moves, are averaged."""
    n_rows, n_cols = slab.shape[1:]
    chosen = _group_slices(pairs.start.size)
    mirrors = [
        Mirror.of(n_cols, scale_px=scale, by_px=max(1, int(scale / SCALE_IN_BINS)), at_px=at)
        for scale in scales_px
    ]
    by_angle = [max(1, int(scale / step_px)) for scale in scales_px]
    product, energy = np.empty((2, len(scales_px), len(chosen), n_rows, at.size))

    def some(first: int, last: int) -> None:
        for item in range(first, last):
            row, g = divmod(item, len(chosen))
            both = _both(slab[:, row], pairs=pairs, chosen=chosen[g])
            for k, (mirror, by) in enumerate(zip(mirrors, by_angle, strict=True)):
                if k > 0:
                    both = [binned(one, by=mirror.by_px // mirrors[k - 1].by_px) for one in both]
                one, other = (_band(each, mirror=mirror, by=by) for each in both)
                product[k, g, row] = mirror.at_candidates(_convolved(one, other, mirror=mirror))
                energy[k, g, row] = mirror.energy((_power(one) + _power(other)) / 2)

    in_threads(some, n_rows * len(chosen))
    sizes = np.array([part.stop - part.start for part in chosen])
    return [
        Sums(
            product[k],
            energy[k],
            (sizes // np.minimum(by, sizes))[:, None]
            * np.where(mirror.enough, mirror.overlap_px, 0.0)
            / (COLS_PER_SAMPLE * mirror.scale_px),
        )
        for k, (mirror, by) in enumerate(zip(mirrors, by_angle, strict=True))
    ]


def _both(row: FloatArray, *, pairs: Pairs, chosen: slice) -> list[FloatArray]:
    """Frames (pair, col) of a group of pairs and their opposites, without what is slow in them."""
    return [
        _without_trend(row[pairs.start[chosen]]),
        _without_trend(_opposites(row, pairs=pairs, chosen=chosen)),
    ]


def _band(frames: FloatArray, *, mirror: Mirror, by: int) -> FloatArray:
    return np.asarray(band_pass(_angle_binned(frames, by=by), band_kernel(mirror.scale_px / mirror.by_px)))


def _power(lines: FloatArray) -> DoubleArray:
    return np.asarray(np.einsum("ij,ij->j", lines, lines, dtype=np.float64))


def _convolved(first: FloatArray, second: FloatArray, *, mirror: Mirror) -> NDArray[np.complex128]:
    """Spectrum of the sum over the pairs of the convolution of one with the other."""
    spectrum = fft.rfft(first * mirror.taper, mirror.length, axis=-1)
    other = fft.rfft(second * mirror.taper, mirror.length, axis=-1)
    return np.asarray(np.einsum("ij,ij->j", spectrum, other, dtype=np.complex128))


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
