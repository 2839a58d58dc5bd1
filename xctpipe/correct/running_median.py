"""Running median across the columns of a sorted sinogram, many ranks side by side.

Columns are put in order by a list of rows, so that a mirrored border or a ring of columns needs no copy.

The columns are cut into blocks as long as the window, as [1]_ does for a running maximum: a window is the
end of one block and the start of the next. Both grow column by column, as sorted lists of which only what
can still be the median is kept; the median of two sorted lists is a minimum of maxima.

References
----------
.. [1] van Herk, Pattern Recognit. Lett. 13, 517 (1992), doi:10.1016/0167-8655(92)90069-C
"""

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import DoubleArray

IntArray = NDArray[np.int32]
RowArray = NDArray[np.int64]

# enough for the loops over lanes to pay off, few enough that the lists of a window of 51 stay in cache
_LANES = 128
_SUMS = 8
_LEAST = np.int32(-(2**31))
_GREATEST = np.int32(2**31 - 1)


def median_across(values: IntArray, order: RowArray, *, size: int) -> IntArray:
    """Medians of every `size` successive columns at each rank: (column, rank).

    Parameters
    ----------
    values : (row, rank), integers of the order of the numbers they stand for.
    order : (column,), rows of the columns.
    size : columns in a window; of an even number the upper of the two in the middle is the median.
    """
    out = np.empty((order.size - size + 1, values.shape[1]), np.int32)
    _medians(values, order, size, out)
    return out


def mean_of_median(values: IntArray, order: RowArray, *, size: int, drop: int) -> DoubleArray:
    """Means of `median_across` without the `drop` ranks at both ends: (column,)."""
    sums = np.zeros((order.size - size + 1, _SUMS))
    _sum_medians(values, order, size, drop, sums)
    return np.asarray(sums.sum(axis=1) / (values.shape[1] - 2 * drop))


def mean_over_ranks(values: IntArray, *, drop: int) -> DoubleArray:
    """Means of columns (row, rank) without the `drop` ranks at both ends: (row,)."""
    sums = np.zeros((values.shape[0], _SUMS))
    _sum_ranks(values, drop, sums)
    return np.asarray(sums.sum(axis=1) / (values.shape[1] - 2 * drop))


@numba.njit(cache=True, nogil=True)
def _medians(values, order, size, out):  # type: ignore[no-untyped-def]
    n_out, n_ranks = out.shape
    # a list starts below any value and ends above any, at 0 and behind what was written
    ends = np.full((size, size // 2 + 3, _LANES), _GREATEST, np.int32)
    ends[:, 0] = _LEAST
    start = np.empty((size // 2 + 3, _LANES), np.int32)
    new, median = np.zeros((2, _LANES), np.int32)
    for rank in range(0, n_ranks, _LANES):
        n = min(_LANES, n_ranks - rank)
        for first in range(0, n_out, size):
            _sort_ends(values, order, first, rank, n, ends, new)
            start[:] = _GREATEST
            start[0] = _LEAST
            for j in range(min(size, n_out - first)):
                if j > 0:
                    new[:n] = values[order[first + size - 1 + j], rank : rank + n]
                    _grow(start, j, size, new)
                _median(ends, start, j, median)
                out[first + j, rank : rank + n] = median[:n]


@numba.njit(cache=True, nogil=True)
def _sum_medians(values, order, size, drop, sums):  # type: ignore[no-untyped-def]
    n_out, stop = sums.shape[0], values.shape[1] - drop
    ends = np.full((size, size // 2 + 3, _LANES), _GREATEST, np.int32)
    ends[:, 0] = _LEAST
    start = np.empty((size // 2 + 3, _LANES), np.int32)
    new, median = np.zeros((2, _LANES), np.int32)
    for rank in range(drop, stop, _LANES):
        n = min(_LANES, stop - rank)
        for first in range(0, n_out, size):
            _sort_ends(values, order, first, rank, n, ends, new)
            start[:] = _GREATEST
            start[0] = _LEAST
            for j in range(min(size, n_out - first)):
                if j > 0:
                    new[:n] = values[order[first + size - 1 + j], rank : rank + n]
                    _grow(start, j, size, new)
                _median(ends, start, j, median)
                _add(median[:n], new, sums[first + j])


# The following are written out where they are used: only there is it known that no arrays overlap.


@numba.njit(inline="always")
def _sort_ends(values, order, first, rank, n, ends, new):  # type: ignore[no-untyped-def]
    """Sorted lists of the last 1, 2, ... columns of a block."""
    size = ends.shape[0]
    middle = size // 2
    ends[0, 1, :n] = values[order[first + size - 1], rank : rank + n]
    for count in range(1, size):
        new[:n] = values[order[first + size - 1 - count], rank : rank + n]
        shorter, longer = ends[count - 1], ends[count]
        # with so few columns still to come, what is further from the middle is not the median
        for k in range(max(0, middle - (size - count - 1)), min(count, middle) + 1):
            _insert(shorter[k], shorter[k + 1], new, longer[k + 1])


@numba.njit(inline="always")
def _grow(start, count, size, new):  # type: ignore[no-untyped-def]
    """Make the sorted list of the first `count` columns of a block from that of one less."""
    middle = size // 2
    for k in range(min(count - 1, middle), max(0, middle - (size - count)) - 1, -1):
        _insert(start[k], start[k + 1], new, start[k + 1])


@numba.njit(inline="always")
def _insert(below, here, new, out):  # type: ignore[no-untyped-def]
    for i in range(_LANES):
        out[i] = max(below[i], min(here[i], new[i]))


@numba.njit(inline="always")
def _median(ends, start, count, out):  # type: ignore[no-untyped-def]
    """Median of `count` columns in `start` and the rest in `ends`: least maximum of any share of both."""
    size = ends.shape[0]
    middle = size // 2
    end = ends[size - count - 1]
    out[:] = _GREATEST
    for k in range(max(0, middle + 1 - (size - count)), min(count, middle + 1) + 1):
        one, other = end[middle - k + 1], start[k]
        for i in range(_LANES):
            out[i] = min(out[i], max(one[i], other[i]))


@numba.njit(cache=True, nogil=True)
def _sum_ranks(values, drop, sums):  # type: ignore[no-untyped-def]
    numbers = np.empty(_LANES, np.int32)
    stop = values.shape[1] - drop
    for j in range(values.shape[0]):
        for start in range(drop, stop, _LANES):
            _add(values[j, start : min(start + _LANES, stop)], numbers, sums[j])


@numba.njit(cache=True, nogil=True)
def _add(values, numbers, sums):  # type: ignore[no-untyped-def]
    """Add numbers to some sums in turn, so that no addition waits for the one before."""
    n = values.size
    for i in range(n):
        numbers[i] = values[i] ^ ((values[i] >> np.int32(31)) & np.int32(0x7FFFFFFF))
    floats = numbers.view(np.float32)
    for start in range(0, n - n % _SUMS, _SUMS):
        some = floats[start : start + _SUMS]
        for i in range(_SUMS):
            sums[i] += some[i]
    for i in range(n % _SUMS):
        sums[i] += floats[n - n % _SUMS + i]
