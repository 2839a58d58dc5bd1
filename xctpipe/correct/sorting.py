"""Columns of a sinogram sorted along angle, their median across columns, and the way back.

The one costly thing of stripe removal by sorting [1]_: everything else needs the result of a few columns.

References
----------
.. [1] Vo, Atwood, Drakopoulos, Opt. Express 26, 28396 (2018), doi:10.1364/OE.26.028396
"""

from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import DoubleArray, FloatArray, Span

KeyArray = NDArray[np.uint64]
BitsArray = NDArray[np.uint32]

_LANES = 16
_TILE_COLUMNS = 256
_SIGN = np.uint32(0x80000000)


def sorted_columns(slab: FloatArray, row: int, *, first: int, last: int) -> KeyArray:
    """Keys of the columns [first, last) of one row, each column sorted: (col, rank).

    A key holds the value in its upper half, as an unsigned integer of the same order, and the frame in
    its lower half: equal values keep the order of their frames on any processor. Columns outside the
    detector are those inside, mirrored between pixels.
    """
    keys = np.empty((last - first, slab.shape[0]), np.uint64)
    _pack(slab.view(np.uint32), row, first, keys)
    keys.sort(axis=1)
    return keys


def median_across(keys: KeyArray, *, size: int) -> BitsArray:
    """Running median over `size` columns at each rank: (col - size + 1, rank), upper halves of the keys."""
    n_cols, n_ranks = keys.shape
    out = np.empty((n_cols - size + 1, n_ranks), np.uint32)
    _running_median(keys, size, out)
    return out


def put_back(keys: KeyArray, bits: BitsArray, out: FloatArray, *, row: int, first: int) -> None:
    """Write the values at each rank of some columns to their frames, in columns `first` on of one row."""
    _unpack(keys, bits, out.view(np.uint32), row, first)


def mean_over_ranks(bits: BitsArray, *, drop: int) -> DoubleArray:
    """Mean of each column (col, rank) of upper halves of keys without the `drop` ranks at both ends."""
    out = np.empty(bits.shape[0], np.float64)
    _rank_means(bits, drop, out)
    return out


def upper_halves(keys: KeyArray) -> BitsArray:
    """Values of sorted keys, as unsigned integers of the same order."""
    return (keys >> np.uint64(32)).astype(np.uint32)


def sort_row(slab: FloatArray, out: FloatArray, *, row: int, to_row: int, size: int) -> None:
    """Sort one row of `slab`, take the median across `size` columns, put it back in a row of `out`."""
    width = slab.shape[2]
    left = size // 2
    for first, last in tiles(width):
        keys = sorted_columns(slab, row, first=first - left, last=last + size - 1 - left)
        smooth = median_across(keys, size=size)
        put_back(keys[left : left + last - first], smooth, out, row=to_row, first=first)


def by_rank(sinogram: FloatArray, correct: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Result of `correct` on a sinogram (angle, col) with sorted columns, back in the order of frames.

    A stripe is straight among the sorted columns, where what is not a stripe hardly varies across them.
    """
    n_frames, width = sinogram.shape
    keys = sorted_columns(sinogram[:, None], 0, first=0, last=width)
    ordered = upper_halves(keys)
    numbers = np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered).view(np.float32)
    bits = np.ascontiguousarray(correct(np.ascontiguousarray(numbers.T)).T).view(np.uint32)
    out = np.empty((n_frames, 1, width), np.float32)
    put_back(keys, np.where(bits & _SIGN, ~bits, bits | _SIGN), out, row=0, first=0)
    return out[:, 0]


def tiles(width: int) -> list[Span]:
    """Ranges of columns that stay in cache and bound the memory of a thread whatever the width."""
    return [(first, min(first + _TILE_COLUMNS, width)) for first in range(0, width, _TILE_COLUMNS)]


@numba.njit(cache=True, nogil=True)
def _pack(slab, row, first, keys):  # type: ignore[no-untyped-def]
    n_angles, _, width = slab.shape
    n_cols = keys.shape[0]
    sign = np.uint32(0x80000000)
    # a cache line of a frame at a time, because neighbours in a column are far apart
    for start in range(0, n_cols, _LANES):
        for t in range(n_angles):
            for j in range(start, min(start + _LANES, n_cols)):
                c = (first + j) % (2 * width)
                bits = slab[t, row, c if c < width else 2 * width - 1 - c]
                ordered = ~bits if bits & sign else bits | sign
                keys[j, t] = (np.uint64(ordered) << np.uint64(32)) | np.uint64(t)


@numba.njit(cache=True, nogil=True)
def _unpack(keys, bits, out, row, first):  # type: ignore[no-untyped-def]
    n_cols, n_angles = keys.shape
    sign = np.uint32(0x80000000)
    column = np.empty((_LANES, n_angles), np.uint32)
    for start in range(0, n_cols, _LANES):
        n = min(_LANES, n_cols - start)
        for j in range(n):
            for k in range(n_angles):
                ordered = bits[start + j, k]
                value = ordered ^ sign if ordered & sign else ~ordered
                column[j, keys[start + j, k] & np.uint64(0xFFFFFFFF)] = value
        for t in range(n_angles):
            for j in range(n):
                out[t, row, first + start + j] = column[j, t]


@numba.njit(cache=True, nogil=True)
def _running_median(keys, size, out):  # type: ignore[no-untyped-def]
    """Keep the window sorted, many ranks side by side: one pass drops a value and inserts another."""
    n_out, n_ranks = out.shape
    window = np.empty((size + 1, _LANES), np.uint32)
    old = np.empty(_LANES, np.uint32)
    new = np.empty(_LANES, np.uint32)
    for start in range(0, n_ranks, _LANES):
        n = min(_LANES, n_ranks - start)
        window[:] = np.uint32(0xFFFFFFFF)
        old[:] = np.uint32(0xFFFFFFFF)
        for j in range(n_out + size - 1):
            for i in range(n):
                new[i] = np.uint32(keys[j, start + i] >> np.uint64(32))
            if j >= size:
                for i in range(n):
                    old[i] = np.uint32(keys[j - size, start + i] >> np.uint64(32))
            for k in range(size):
                for i in range(_LANES):
                    kept = window[k, i] if window[k, i] < old[i] else window[k + 1, i]
                    window[k, i] = min(kept, new[i])
                    new[i] = max(kept, new[i])
            if j >= size - 1:
                for i in range(n):
                    out[j - size + 1, start + i] = window[size // 2, i]


@numba.njit(cache=True, nogil=True)
def _rank_means(bits, drop, out):  # type: ignore[no-untyped-def]
    n_cols, n_ranks = bits.shape
    sign = np.uint32(0x80000000)
    numbers = np.empty(n_ranks, np.uint32)
    for j in range(n_cols):
        for k in range(n_ranks):
            ordered = bits[j, k]
            numbers[k] = ordered ^ sign if ordered & sign else ~ordered
        total = 0.0
        for number in numbers.view(np.float32)[drop : n_ranks - drop]:
            total += number
        out[j] = total / (n_ranks - 2 * drop)
