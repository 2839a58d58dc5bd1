"""What tells a faulty column from its neighbours, and a line across it instead."""

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.compiled import INNER
from xctpipe.correct.running_median import mean_of_median, mean_over_ranks
from xctpipe.correct.sorting import RankedColumns
from xctpipe.scan import DoubleArray, FloatArray, Span

Mask = NDArray[np.bool_]

_SMOOTHED_FRAMES = 10
_TILE_COLUMNS = 512


def fluctuation(slab: FloatArray, *, row: int) -> DoubleArray:
    """Sum over frames of the distance of each column of a row to its running mean over 10 frames: (col,).

    The slab is contiguous; a column is mirrored at its ends, between frames.
    """
    out = np.zeros(slab.shape[2], np.float64)
    for first in range(0, out.size, _TILE_COLUMNS):
        _fluctuation(slab, row, first, _SMOOTHED_FRAMES, out[first : first + _TILE_COLUMNS])
    return out


def column_ratio(ranked: RankedColumns, *, size: int, drop_ratio: float) -> DoubleArray:
    """Mean of each column over the mean of the median across the sorted columns: (col,); 1 without light.

    `drop_ratio` is the part of the ranks, half at each end, that the means leave out.
    """
    drop = int(0.5 * drop_ratio * ranked.values.shape[1])
    left = size // 2
    order = ranked.places(-left, ranked.width + size - 1 - left)
    smooth = mean_of_median(ranked.values, order, size=size, drop=drop)
    mean = mean_over_ranks(ranked.values, drop=drop)
    return np.divide(mean, smooth, out=np.ones_like(mean), where=(mean > 0) & (smooth > 0))


def interpolated(slab: FloatArray, mask: Mask, *, row: int) -> FloatArray:
    """Lines in every frame across runs of masked columns inside a row: (angle, 1, masked column)."""
    out = np.empty((slab.shape[0], 1, np.count_nonzero(mask)), np.float32)
    at = 0
    for first, last in runs(mask):
        before, after = slab[:, row, first - 1], slab[:, row, last]
        for col in range(first, last):
            part = np.float32((col - first + 1) / (last - first + 1))
            out[:, 0, at] = before + part * (after - before)
            at += 1
    return out


def runs(mask: Mask) -> list[Span]:
    """Ranges of columns where the mask holds."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


@numba.njit(cache=True, nogil=True)
def _fluctuation(slab, row, first, n_smooth, out):  # type: ignore[no-untyped-def]
    n_frames, width = slab.shape[0], out.size
    left = n_smooth // 2
    total = np.zeros(width, np.float64)
    change = np.zeros(width, np.float64)
    for t in range(-left, n_frames + n_smooth - left - 1):
        new = slab[_reflect(t, n_frames), row, first : first + width]
        for c in range(width):
            total[c] += new[c]
        middle = t - (n_smooth - left - 1)
        if middle < 0:
            continue
        here = slab[middle, row, first : first + width]
        old = slab[_reflect(middle - left, n_frames), row, first : first + width]
        for c in range(width):
            change[c] += abs(here[c] - total[c] / n_smooth)
            total[c] -= old[c]
    out[:] = change


@numba.njit(**INNER)
def _reflect(i, n):  # type: ignore[no-untyped-def]
    """Index in range(n) of position i when the mirror is half a pixel beyond the border."""
    i %= 2 * n
    return i if i < n else 2 * n - 1 - i
