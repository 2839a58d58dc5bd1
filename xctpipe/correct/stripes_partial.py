"""Stripes that come, go or drift during a scan, made into stripes that last or into none."""

from typing import Annotated

import numba
import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from scipy import ndimage

from xctpipe.correct.running_median import median_across
from xctpipe.correct.sorting import integers, mirrored, numbers
from xctpipe.correct.threads import in_threads
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.steps import View, step

_BLOCKS = 60
"""Parts of a scan that are averaged: few enough for little noise, and a quarter turn is many."""
_BLOCKS_OF_LEVEL = 8
"""What lasts less than these stays."""
_STEP_PRICE = 16.0
"""Variances of noise by which a step must lower the squares: 4 log(60)."""
_CLIP_SIGMAS = 3.0
_USUAL_COLUMNS = 51


@step(halo=0)
def stripes_partial(
    slab: FloatArray,
    *,
    view: View,
    snr: Annotated[float, Gt(0)] = 3.0,
    size_px: Annotated[int, Ge(1)] = 9,
) -> FloatArray:
    """Level columns whose gain changes while the sample turns; what lasts is left to `stripes_sorting`.

    Sorting [1]_ takes off a stripe of a part of the scan its mean only: within a column it cannot tell
    the frames with the stripe from those that the sample makes as bright. Here a column is compared, in
    means over a sixtieth of the scan, with the median of the columns around it at the same time. The
    difference to its own median in time, added up from the first frame on, runs away where the gain
    changes and not where details of the sample pass; such sums were introduced in [2]_. A column where
    their range stands out from that of the columns around, and with it the columns beside it that do so
    half as much, are divided by the steps that describe their difference best [3]_. All other columns
    stay as they are, bit for bit.

    What lasts less than an eighth of the scan stays, and what lasts no longer than a detail half as wide as
    `size_px` stays in a column where its path about the axis turns back: half of a turn by 180 degrees for
    size 9 at 14 columns from the axis, a quarter at 53.

    Of a scan without stripes 1024 columns wide at 10000 photons it changes 0 % rms (0 % where the
    sample's edges are in view) and takes 0 % off a bubble 32 pixels across on the axis, 0 % off one 10
    pixels away.

    Parameters
    ----------
    slab : (angle, row, col), transmission.
    view : angles, and where the axis is.
    snr : how many times the usual range of the sums a column must exceed; greater finds fewer.
    size_px : width of the median; levels stripes narrower than half of it, but not within half of it of
        either end of the row.

    Returns
    -------
    (angle, row, col) transmission.

    References
    ----------
    .. [1] Vo, Atwood, Drakopoulos, Opt. Express 26, 28396 (2018), doi:10.1364/OE.26.028396
    .. [2] Page, Biometrika 41, 100 (1954), doi:10.1093/biomet/41.1-2.100
    .. [3] Jackson et al., IEEE Signal Process. Lett. 12, 105 (2005), doi:10.1109/LSP.2001.838216
    """
    slab = np.asarray(slab, np.float32)
    out = np.empty(slab.shape, np.float32)
    ends = np.arange(min(_BLOCKS, slab.shape[0]) + 1) * slab.shape[0] // min(_BLOCKS, slab.shape[0])
    long = np.diff(ends)
    stays = _stays(view, slab.shape[1:], narrow_px=size_px // 2)

    def rows(first: int, last: int) -> None:
        out[:, first:last] = slab[:, first:last]
        for row in range(first, last):
            sums = np.zeros((long.size, slab.shape[2]))
            _add_up(slab, row, ends, sums)
            means = (sums.T / long).astype(np.float32)
            columns, levels = _steps(means, stays[row], snr=snr, size=size_px)
            gain = 1 + np.repeat(levels, long, axis=1).T
            out[:, row, columns] /= np.where(gain > 0, gain, 1)

    in_threads(rows, slab.shape[1])
    return out


def _stays(view: View, shape: tuple[int, ...], *, narrow_px: int) -> DoubleArray:
    """Part of the scan that a narrow detail stays in a column where its path turns back: (row, col)."""
    away = np.abs(np.arange(shape[1]) - view.centers_px[:, None])
    turn = 2 * np.arccos(np.maximum(1 - narrow_px / np.maximum(away, 1e-9), -1))
    return np.asarray(turn / max(np.ptp(view.angles_rad), 1e-9))


def _steps(
    means: FloatArray, stays: DoubleArray, *, snr: float, size: int
) -> tuple[NDArray[np.intp], DoubleArray]:
    """Columns to be levelled, and how much brighter they are than they should be: (n,) and (n, block)."""
    excess = _excess(means, size)
    noise = _noise(excess)
    columns = _unsteady(excess, noise, snr=snr, size=size)
    levels = np.array([_levels(excess[each], noise[each]) for each in columns]).reshape(-1, means.shape[1])
    if not columns.size:
        return columns, levels
    beside = means[columns - size // 2], means[columns + size // 2]
    # at the edge of the sample the columns on both sides tell little of the one between
    tilt = np.abs(beside[0] - beside[1]) / np.maximum(np.abs(beside[0] + beside[1]), 1e-9)
    told = np.abs(levels) > np.maximum(noise[columns][:, None], tilt)
    lasting = told.mean(axis=1) > stays[columns]
    return columns[lasting], levels[lasting]


def _excess(means: FloatArray, size: int) -> FloatArray:
    """How much brighter than the columns around, less what is so at half of all times: (col, block)."""
    width = len(means)
    left = size // 2
    order = mirrored(-left, width + size - 1 - left, width)
    around = numbers(median_across(integers(np.ascontiguousarray(means)), order, size=size))
    excess = np.divide(means, around, out=np.ones_like(means), where=around > 0) - 1
    return np.asarray(excess - _middle(excess)[:, None])


def _noise(excess: FloatArray) -> FloatArray:
    """Standard deviation of the blocks that is usual around a column: (col,)."""
    return np.asarray(1.4826 * ndimage.median_filter(_middle(np.abs(excess)), _USUAL_COLUMNS))


def _unsteady(excess: FloatArray, noise: FloatArray, *, snr: float, size: int) -> NDArray[np.intp]:
    """Columns whose sums range further than is usual around them."""
    most = _CLIP_SIGMAS * noise[:, None]
    # cut off, so that a strong detail in a few frames counts little, and nothing does where there is no noise
    sums = np.clip(excess, -most, most)
    sums = np.cumsum(sums - sums.mean(axis=1, keepdims=True), axis=1, dtype=np.float64)
    ranges = np.ptp(sums, axis=1)
    usual = np.maximum(ndimage.median_filter(ranges, _USUAL_COLUMNS), 1e-6)
    found = ranges > snr * usual
    # columns without others on both sides
    inside = np.ones(found.size, np.bool_)
    inside[: size // 2] = inside[found.size - size // 2 :] = False
    found &= inside
    if found.any():
        found = ndimage.binary_propagation(found, mask=inside & (ranges > 0.5 * snr * usual))
    return np.flatnonzero(found)


def _levels(excess: FloatArray, noise: float) -> DoubleArray:
    """Steps that describe the difference of a column with the least sum of squares and price: (block,)."""
    n, shortest = excess.size, min(_BLOCKS_OF_LEVEL, excess.size)
    sums = np.concatenate(([0.0], np.cumsum(excess, dtype=np.float64)))
    cost, start = np.full(n + 1, np.inf), np.zeros(n + 1, np.int64)
    cost[0] = 0
    for end in range(shortest, n + 1):
        first = np.arange(end - shortest + 1)
        # the sum of all squares is the same whatever the steps
        costs = cost[first] + _STEP_PRICE * noise**2 - (sums[end] - sums[first]) ** 2 / (end - first)
        start[end] = costs.argmin()
        cost[end] = costs[start[end]]
    levels = np.empty(n)
    end = n
    while end:
        levels[start[end] : end] = (sums[end] - sums[start[end]]) / (end - start[end])
        end = int(start[end])
    return levels


def _middle(values: FloatArray) -> FloatArray:
    """Upper median of each column (col, block)."""
    half = values.shape[1] // 2
    return np.asarray(np.partition(values, half, axis=1)[:, half])


@numba.njit(cache=True, nogil=True)
def _add_up(slab, row, ends, sums):  # type: ignore[no-untyped-def]
    for b in range(sums.shape[0]):
        total = sums[b]
        for t in range(ends[b], ends[b + 1]):
            line = slab[t, row]
            for c in range(total.size):
                total[c] += line[c]
