"""Columns of a sinogram sorted along angle, their median across columns, and the way back.

The one costly thing of stripe removal by sorting [1]_: everything else needs the result of a few columns.

References
----------
.. [1] Vo, Atwood, Drakopoulos, Opt. Express 26, 28396 (2018), doi:10.1364/OE.26.028396
"""

from collections import deque
from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.correct.radix import LINE, put_in_order, sort_columns
from xctpipe.correct.running_median import IntArray, RowArray, median_across
from xctpipe.correct.threads import in_threads
from xctpipe.scan import FloatArray

_TILE_COLUMNS = 64


class RankedColumns:
    """Columns of one sinogram, each sorted; equal values keep the order of their frames on any processor.

    `values` (row, rank) are integers of the same order as the numbers, `frames` (row, rank) says where
    they were. Column c is in row c modulo `capacity`. Columns outside the detector are those inside,
    mirrored between pixels.
    """

    values: IntArray
    frames: NDArray[np.unsignedinteger]

    def __init__(self, n_frames: int, width: int, *, capacity: int | None = None) -> None:
        self.width = width
        self.capacity = width if capacity is None else min(capacity, width)
        self.values = np.empty((self.capacity, n_frames), np.int32)
        self.frames = np.empty((self.capacity, n_frames), np.uint16 if n_frames <= 1 << 16 else np.uint32)

    def fill(self, slab: FloatArray, row: int, *, first: int, last: int) -> None:
        """Sort the columns [first, last) of one row of a contiguous slab (angle, row, col)."""
        self._sort(slab, row, first, np.arange(first, last) % self.capacity)

    def replace(self, sinogram: FloatArray, columns: RowArray) -> None:
        """Sort other numbers (angle, 1, column) into the places of some columns."""
        self._sort(sinogram, 0, 0, columns % self.capacity)

    def places(self, first: int, last: int) -> RowArray:
        """Rows of the columns [first, last), which may lie outside the detector."""
        return mirrored(first, last, self.width) % self.capacity

    def medians(self, first: int, last: int, *, size: int) -> IntArray:
        """Medians over `size` columns around each of [first, last): (col, rank)."""
        left = size // 2
        return median_across(self.values, self.places(first - left, last + size - 1 - left), size=size)

    def divide(self, ratio: FloatArray) -> None:
        """Divide every column (col,) by a positive number; what rounding makes equal is put in order."""
        failed = np.zeros(self.width, np.bool_)
        _divide(self.values, self.frames, ratio, failed)
        self._put_in_order(np.flatnonzero(failed))

    def change(self, first: int, values: IntArray) -> None:
        """Other values (col, rank) from a column on, which do not fall from rank to rank."""
        places = np.arange(first, first + values.shape[0]) % self.capacity
        self.values[places] = values
        self._put_in_order(places)

    def _put_in_order(self, places: RowArray) -> None:
        for place in places:
            value, frame = self.values[place], self.frames[place]
            if not put_in_order(value, frame):
                order = np.lexsort((frame, value))
                value[:], frame[:] = value[order], frame[order]

    def _sort(self, slab: FloatArray, row: int, first: int, places: RowArray) -> None:
        failed = np.zeros(places.size, np.bool_)
        bits = slab.view(np.int32)
        sort_columns(bits, row, first, places, self.values, self.frames, failed)
        for j in np.flatnonzero(failed):
            column = _flipped(bits[:, row, first + j])
            order = np.argsort(column, kind="stable")
            self.values[places[j]] = column[order]
            self.frames[places[j]] = order


class Smoother:
    """Median across `size` ranked columns, put back frame by frame as the columns become known."""

    def __init__(self, ranked: RankedColumns, *, size: int) -> None:
        self._ranked, self._size = ranked, size
        left = size // 2
        columns = mirrored(-left, ranked.width + size - 1 - left, ranked.width)
        self._places = columns % ranked.capacity
        self._known_to = np.maximum.accumulate(columns)[size - 1 :] + 1
        self._done = 0

    def put(self, out: FloatArray, row: int, *, known: int) -> None:
        """Write what the columns before `known` decide to a row of `out`, beyond what was written."""
        ready = int(np.searchsorted(self._known_to, known, side="right"))
        # the running median works in blocks of its window
        tile = max(_TILE_COLUMNS // self._size, 1) * self._size
        while self._done < ready:
            last = min(self._done + tile, ready)
            if known < self._ranked.width:
                last -= (last - self._done) % self._size
            if last == self._done:
                return
            self._put_tile(out, row, last)

    def _put_tile(self, out: FloatArray, row: int, last: int) -> None:
        first, self._done = self._done, last
        order = self._places[first : last + self._size - 1]
        smooth = median_across(self._ranked.values, order, size=self._size)
        places = np.arange(first, last) % self._ranked.capacity
        put_back(smooth, self._ranked.frames, places, out, row=row, first=first)


def put_back(
    values: IntArray,
    frames: NDArray[np.unsignedinteger],
    places: RowArray,
    out: FloatArray,
    *,
    row: int,
    first: int,
) -> None:
    """Write values (col, rank) to the frames of the same ranks, in columns `first` on of one row of `out`.

    The frames of each column are in a row of `frames`, which `places` names.
    """
    _unpack(values, frames, places, out.view(np.int32), row, first)


def sort_row(slab: FloatArray, out: FloatArray, *, row: int, to_row: int, size: int) -> None:
    """Sort one row of `slab`, take the median across `size` columns, put it back in a row of `out`."""
    _sort_in(_ring(slab, size), slab, out, row, to_row, size)


def sort_rows(slab: FloatArray, out: FloatArray, *, size: int) -> None:
    """Sort every row of a contiguous slab as `sort_row` does, in threads."""

    def correct(ranked: RankedColumns, row: int) -> None:
        _sort_in(ranked, slab, out, row, row, size)

    each_ranked(correct, slab.shape[1], lambda: _ring(slab, size))


def each_ranked(
    correct: Callable[[RankedColumns, int], None], n_rows: int, new: Callable[[], RankedColumns]
) -> None:
    """Call `correct(ranked, row)` for every row, in threads, each with `new` columns it uses again."""
    spare: deque[RankedColumns] = deque()

    def rows(first: int, last: int) -> None:
        try:
            ranked = spare.pop()
        except IndexError:
            ranked = new()
        for row in range(first, last):
            correct(ranked, row)
        spare.append(ranked)

    in_threads(rows, n_rows)


def by_rank(sinogram: FloatArray, correct: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Result of `correct` on a sinogram (angle, col) with sorted columns, back in the order of frames.

    A stripe is straight among the sorted columns, where what is not a stripe hardly varies across them.
    """
    n_frames, width = sinogram.shape
    ranked = RankedColumns(n_frames, width)
    ranked.fill(sinogram[:, None], 0, first=0, last=width)
    changed = np.ascontiguousarray(correct(np.ascontiguousarray(numbers(ranked.values).T)).T)
    out = np.empty((n_frames, 1, width), np.float32)
    put_back(integers(changed), ranked.frames, np.arange(width), out, row=0, first=0)
    return out[:, 0]


def integers(values: FloatArray) -> IntArray:
    """Integers of the same order as float32 numbers."""
    return _flipped(values.view(np.int32))


def numbers(values: IntArray) -> FloatArray:
    """The float32 numbers behind `integers`."""
    return _flipped(values).view(np.float32)


def mirrored(first: int, last: int, width: int) -> RowArray:
    """Columns [first, last) of a row mirrored, between pixels, at both of its ends."""
    columns = np.arange(first, last) % (2 * width)
    return np.where(columns < width, columns, 2 * width - 1 - columns)


def _ring(slab: FloatArray, size: int) -> RankedColumns:
    """As few columns as are needed to rank and smooth tile by tile."""
    return RankedColumns(slab.shape[0], slab.shape[2], capacity=_TILE_COLUMNS + 2 * size)


def _sort_in(
    ranked: RankedColumns, slab: FloatArray, out: FloatArray, row: int, to_row: int, size: int
) -> None:
    smoother = Smoother(ranked, size=size)
    for first in range(0, ranked.width, _TILE_COLUMNS):
        last = min(first + _TILE_COLUMNS, ranked.width)
        ranked.fill(slab, row, first=first, last=last)
        smoother.put(out, to_row, known=last)


def _flipped(bits: IntArray) -> IntArray:
    # of negative numbers all bits but the sign count downwards
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


@numba.njit(cache=True, nogil=True)
def _divide(values, frames, ratio, failed):  # type: ignore[no-untyped-def]
    n_frames = values.shape[1]
    bits = np.empty(n_frames, np.int32)
    for j in range(values.shape[0]):
        value = values[j]
        for k in range(n_frames):
            bits[k] = value[k] ^ ((value[k] >> np.int32(31)) & np.int32(0x7FFFFFFF))
        numbers = bits.view(np.float32)
        for k in range(n_frames):
            numbers[k] /= ratio[j]
        for k in range(n_frames):
            value[k] = bits[k] ^ ((bits[k] >> np.int32(31)) & np.int32(0x7FFFFFFF))
        failed[j] = not put_in_order(value, frames[j])


@numba.njit(cache=True, nogil=True)
def _unpack(values, frames, places, out, row, first):  # type: ignore[no-untyped-def]
    n_cols, n_frames = values.shape
    columns = np.empty((LINE, n_frames), np.int32)
    for start in range(0, n_cols, LINE):
        n = min(LINE, n_cols - start)
        for j in range(n):
            column, value, frame = columns[j], values[start + j], frames[places[start + j]]
            for k in range(n_frames):
                bits = value[k]
                column[np.uint64(frame[k])] = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
        for t in range(n_frames):
            line = out[t, row, first + start : first + start + n]
            for j in range(n):
                line[j] = columns[j, t]
