"""Axis that makes the reconstructed detail sharpest.

Registration and the wedge see one moment of a 180 degree scan, its two ends: what moved in between, or an
angle that is off there, goes into their axis. Every frame takes part in a reconstruction. About a wrong axis
the energy of detail of a given scale stays what it is but spreads over arcs, so the band-passed slice is most
peaked where the frames meet. Two measures of that are taken, and the one that tells more is used: the
kurtosis, which grows with the fourth power of what stands out and so finds small pores in much noise, and
the root mean square over the mean modulus, which is the better one where detail fills the slice.

The search goes from coarse to fine: the whole range at a scale of an eightieth of the width, then the
neighbourhood of what was found, and of what another method suggests, at half the scale, and so on.
"""

from dataclasses import dataclass

import numba
import numpy as np

from xctpipe.center.levels import LANES, Level, make_levels
from xctpipe.center.lines import MAD_TO_SIGMA, Line, RowPeak, fit_line, row_estimates
from xctpipe.correct.threads import in_threads
from xctpipe.scan import DoubleArray, FloatArray

FEWEST_ANGLES = 24
MOST_ROWS = 12
MOST_POINTS = 24_000
POINT_BLOCK = 256
UINT = np.uint64
REACH_SCALES = 6.0
MARGIN_SCALES = 4.0
INDEPENDENT_SCALES = 2.5
ROW_SIGNIFICANCE = 4.0
# standard deviations of the logarithms for one Gaussian sample: the moments of x^4 and |x| give them
KURTOSIS_NOISE = float(np.sqrt(24)) / 3
MODULUS_NOISE = float(np.sqrt(np.pi / 2 - 1.5))
TINY = 1e-300
STRUCTURE = 6.0
"""Curves of slices full of structure vary by about so many times what noise makes them."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Logarithm of a measure of peakedness, (row, candidate), and its noise in a featureless slice."""

    candidates_px: DoubleArray
    peakedness: DoubleArray
    noise: float

    @property
    def step_px(self) -> float:
        """Distance of candidates, about half the scale."""
        return float(self.candidates_px[1] - self.candidates_px[0])

    @property
    def pooled(self) -> DoubleArray:
        """Sum over rows, each counted from its median."""
        part: DoubleArray = (self.peakedness - np.median(self.peakedness, axis=1, keepdims=True)).sum(axis=0)
        return part

    @property
    def best_px(self) -> float:
        """Candidate at which the rows together are sharpest."""
        return float(self.candidates_px[self.pooled.argmax()])

    @property
    def significance(self) -> float:
        """Prominence of the pooled peak over its noise: that of a featureless slice, or the curve's jitter.

        Where few angles alias, the curve jumps from candidate to candidate by far more than noise makes it.
        """
        pooled = self.pooled
        top = int(pooled.argmax())
        if top in {0, pooled.size - 1}:
            return 0.0
        prominence = float(pooled[top] - max(pooled[:top].min(), pooled[top + 1 :].min()))
        jumps = np.abs(np.diff(pooled, n=2)) / np.sqrt(6)
        jitter = MAD_TO_SIGMA * float(np.median(jumps))
        least = self.noise * float(np.sqrt(len(self.peakedness)))
        return prominence / (STRUCTURE * max(jitter, least))


def sharpest_line(
    slab: FloatArray,
    *,
    angles_rad: DoubleArray,
    rows: DoubleArray,
    search_px: tuple[float, float],
    hints_px: list[float],
    own_starts: int,
) -> Line | None:
    """Sharpest axis in the search, or None when no row has detail enough to tell.

    Parameters
    ----------
    slab : (angle, row, col) line integrals, finite
    angles_rad : ascending
    rows : detector row of each of the slab's rows
    search_px : first and last column allowed
    hints_px : where other methods see the axis; their neighbourhoods are looked at
    own_starts : how many places of the whole search are looked at as well
    """
    if angles_rad.size < FEWEST_ANGLES:
        return None
    chosen = np.unique(np.linspace(0, rows.size - 1, min(MOST_ROWS, rows.size)).round().astype(np.intp))
    some = slab if chosen.size == rows.size else np.ascontiguousarray(slab[:, chosen])
    levels = make_levels(some, angles_rad=angles_rad)
    reach_px = (search_px[1] - search_px[0]) / 2
    whole = _scores(levels[0], around_px=search_px[0] + reach_px, reach_px=reach_px) if own_starts else None
    apart_px = 4 * levels[0].scale_px
    starts = [*hints_px, *([] if whole is None else _highest(whole, count=own_starts, apart_px=apart_px))]
    best = _descend(levels, starts_px=starts)
    if not best:
        return None
    return _line(best, rows=rows[chosen], levels=levels, search_px=search_px)


def _highest(found: Scores, *, count: int, apart_px: float) -> list[float]:
    """The highest candidates that lie apart."""
    chosen: list[float] = []
    for k in np.argsort(-found.pooled):
        here = float(found.candidates_px[k])
        if all(abs(here - other) > apart_px for other in chosen):
            chosen.append(here)
        if len(chosen) == count:
            break
    return chosen


def _descend(levels: list[Level], *, starts_px: list[float]) -> list[Scores]:
    """Scores around the starts, level by level, of the way that ends most significant; few ways go on."""
    ways: list[tuple[float, list[Scores]]] = [(start, []) for start in starts_px]
    for k, level in enumerate(levels):
        longer: list[tuple[float, list[Scores]]] = []
        for start, steps in ways:
            if any(abs(start - other) < level.scale_px / 2 for other, _ in longer):
                continue
            found = _scores(level, around_px=start, reach_px=REACH_SCALES * level.scale_px)
            if found is not None:
                longer.append((found.best_px, [*steps, found]))
        longer.sort(key=lambda way: -_worth(way[1]))
        ways = longer[: max(1, len(starts_px) - 2 * k - 1)]
    return ways[0][1] if ways else []


def _worth(steps: list[Scores]) -> float:
    """Highest significance among the levels that see the axis where the last one does."""
    last = steps[-1].best_px
    return max(step.significance for step in steps if abs(step.best_px - last) <= 2 * step.step_px)


def _line(
    steps: list[Scores], *, rows: DoubleArray, levels: list[Level], search_px: tuple[float, float]
) -> Line | None:
    """Line through the peaks of the rows, each at the scale that places it best."""
    final_px = steps[-1].best_px
    peaks = [
        min(
            (
                _row_peak(step, row=i, near_px=final_px, scale_px=level.scale_px)
                for step, level in zip(steps, levels, strict=False)
            ),
            key=lambda peak: peak.sigma_px,
        )
        for i in range(rows.size)
    ]
    if all(peak.at_edge for peak in peaks):
        return None
    fit = fit_line(peaks, rows=rows)
    return Line(
        "sharpness",
        fit,
        significance=_worth(steps),
        agreeing=int(fit.used.sum()),
        at_edge=not search_px[0] + 1 < fit.center_px < search_px[1] - 1,
        rows=row_estimates("sharpness", rows=rows, peaks=peaks, used=fit.used),
    )


def _row_peak(step: Scores, *, row: int, near_px: float, scale_px: float) -> RowPeak:
    """Peak of one row within two scales of the common axis; its height over noise tells its error."""
    at, curve = step.candidates_px, step.peakedness[row]
    near = np.flatnonzero(np.abs(at - near_px) <= 2 * scale_px + 1e-9)
    lost = RowPeak(near_px, 10 * REACH_SCALES * scale_px, at_edge=True)
    if near.size < 3:
        return lost
    top = int(near[np.argmax(curve[near])])
    height = float(curve[top] - np.median(curve)) / step.noise
    if top in {0, at.size - 1, int(near[0]), int(near[-1])} or height < ROW_SIGNIFICANCE:
        return lost
    left, centre, right = curve[top - 1 : top + 2]
    bend = 2 * centre - left - right
    if bend <= 0:
        return lost
    offset = 0.5 * (right - left) / bend * float(at[1] - at[0])
    return RowPeak(float(at[top]) + offset, scale_px / height, at_edge=False)


def _scores(level: Level, *, around_px: float, reach_px: float) -> Scores | None:
    """Sharpness of every row at candidates a bin apart; None where the view leaves no circle."""
    step = level.by_px
    count = int(np.ceil(reach_px / step))
    at = np.linspace(around_px - count * step, around_px + count * step, 2 * count + 1, dtype=np.float64)
    bins = level.to_bins(at[0]), level.to_bins(at[-1])
    scale = level.scale_px / level.by_px
    radius = min(bins[0], level.n_cols - 1 - bins[-1]) - 1
    if radius < MARGIN_SCALES * scale:
        return None
    points = min(MOST_POINTS, int(np.pi * (radius / scale) ** 2) + 1)
    x, y = _sunflower(points, radius=radius)
    moments = _moments(level, x, y, first=bins[0], n_at=at.size)
    first, second, fourth = np.moveaxis(np.maximum(moments / points, TINY), -1, 0)
    independent = max(1.0, min(points, np.pi * (radius / (INDEPENDENT_SCALES * scale)) ** 2))
    measures = (
        Scores(at, np.log(fourth) - 2 * np.log(second), KURTOSIS_NOISE / np.sqrt(independent)),
        Scores(at, 0.5 * np.log(second) - np.log(first), MODULUS_NOISE / np.sqrt(independent)),
    )
    return max(measures, key=lambda scores: scores.significance)


def _sunflower(n: int, *, radius: float) -> tuple[FloatArray, FloatArray]:
    """Points spread evenly over a disc, on no grid that a fraction of a pixel could favour."""
    k = np.arange(n) + 0.5
    r, turn = radius * np.sqrt(k / n), np.pi * (1 + np.sqrt(5)) * k
    return (r * np.cos(turn)).astype(np.float32), (r * np.sin(turn)).astype(np.float32)


def _moments(level: Level, x: FloatArray, y: FloatArray, *, first: float, n_at: int) -> DoubleArray:
    """Sums over the points of the modulus, second and fourth power: (row, candidate, 3).

    Blocks of points are summed one after the other: sums do not depend on the number of threads.
    """
    n_blocks = -(-x.size // POINT_BLOCK)
    parts = np.empty((n_blocks, len(level.band), n_at, 3))

    def some(begin: int, end: int) -> None:
        for block in range(begin, end):
            here = slice(block * POINT_BLOCK, (block + 1) * POINT_BLOCK)
            for row, part in zip(level.band, parts[block], strict=True):
                part[:] = _block_moments(row, level.cos, level.sin, x[here], y[here], first, n_at)

    in_threads(some, n_blocks)
    return np.asarray(parts.sum(axis=0))


@numba.njit(cache=True, nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def _block_moments(
    band: FloatArray,
    cos: DoubleArray,
    sin: DoubleArray,
    x: FloatArray,
    y: FloatArray,
    first: float,
    n_at: int,
) -> DoubleArray:
    """Modulus, second and fourth power of the back-projection about each axis, summed over a few points.

    The axes are one bin apart from `first` on, so that those of one point read neighbouring bins.
    """
    n = x.size
    width = UINT((n_at + LANES - 1) // LANES * LANES)
    flat, n_cols = band.reshape(-1), UINT(band.shape[1])
    values = np.zeros(n * int(width), np.float32)
    whole, part = np.empty(n, np.int32), np.empty(n, np.float32)
    for i in range(band.shape[0]):
        c, s, row = np.float32(cos[i]), np.float32(sin[i]), UINT(i) * n_cols
        for p in range(n):
            col = x[p] * c - y[p] * s + np.float32(first)
            whole[p] = np.int32(col)
            part[p] = col - np.float32(whole[p])
        for p in range(n):
            right = part[p]
            left = np.float32(1.0) - right
            source, target = row + UINT(whole[p]), UINT(p) * width
            for k in range(width):
                values[target + k] += left * flat[source + k] + right * flat[source + k + UINT(1)]
    out = np.zeros((n_at, 3))
    for p in range(n):
        for k in range(n_at):
            modulus = abs(np.float64(values[UINT(p) * width + UINT(k)]))
            square = modulus * modulus
            out[k, 0] += modulus
            out[k, 1] += square
            out[k, 2] += square * square
    return out
