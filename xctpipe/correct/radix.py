"""Columns of a sinogram sorted along angle: two passes over digits of the value, then the exact order.

A column is sorted by its values rounded to a part in a million of its range, first by their lower digit,
then by the upper one. What that leaves in the wrong order is next to its place and is moved there, so that
the result is that of a stable sort of the full values, on any processor.
"""

import numba
import numpy as np

from xctpipe.compiled import INNER

LINE = 16
"""Columns that are read and written together: a cache line of a frame."""

_DIGIT_BITS = 10
_MOVES_PER_FRAME = 8
"""Beyond this a sort of the whole column is cheaper."""


@numba.njit(cache=True, nogil=True)
def sort_columns(slab, row, first, places, values, frames, failed):  # type: ignore[no-untyped-def]
    """Sort columns by a value rounded to two digits in two passes, then mend what rounding made equal."""
    n_frames = slab.shape[0]
    frame_bits = 0
    while (n_frames - 1) >> frame_bits:
        frame_bits += 1
    digit_bits = min(_DIGIT_BITS, (32 - frame_bits) // 2)
    columns = np.empty((LINE, n_frames), np.int32)
    keys = np.empty(n_frames, np.uint32)
    halfway = np.empty(n_frames, np.uint32)
    starts = np.empty((2, 1 << digit_bits), np.uint32)
    for start in range(0, places.size, LINE):
        n = min(LINE, places.size - start)
        _pack(slab, row, first + start, columns[:n])
        for j in range(n):
            column, place = columns[j], places[start + j]
            _make_keys(column, frame_bits, 2 * digit_bits, keys)
            _count(keys, frame_bits, digit_bits, starts)
            _distribute(keys, frame_bits, digit_bits, starts, halfway)
            _gather(halfway, frame_bits, digit_bits, starts, column, values[place], frames[place])
            failed[start + j] = not put_in_order(values[place], frames[place])


@numba.njit(**INNER)
def _pack(slab, row, first, out):  # type: ignore[no-untyped-def]
    """Columns (col, frame) as integers of the same order."""
    n_cols, n_frames = out.shape
    if n_cols == LINE:
        # a cache line of a frame at a time, because neighbours in a column are far apart
        for t in range(n_frames):
            line = slab[t, row, first : first + LINE]
            for j in range(LINE):
                bits = line[j]
                out[j, t] = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
    else:
        for t in range(n_frames):
            for j in range(n_cols):
                bits = slab[t, row, first + j]
                out[j, t] = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@numba.njit(**INNER)
def _make_keys(column, frame_bits, value_bits, keys):  # type: ignore[no-untyped-def]
    """Keys of the value, rounded down to a part of the column's range, and the frame."""
    n_frames = keys.size
    low, high = column[0], column[0]
    bits = np.empty(n_frames, np.int32)
    for t in range(n_frames):
        low, high = min(low, column[t]), max(high, column[t])
        bits[t] = column[t] ^ ((column[t] >> np.int32(31)) & np.int32(0x7FFFFFFF))
    values = bits.view(np.float32)
    ends = np.array([low, high], np.int32)
    ends ^= (ends >> np.int32(31)) & np.int32(0x7FFFFFFF)
    lowest, highest = ends.view(np.float32)
    scale = np.float32((1 << value_bits) - 2) / (highest - lowest) if highest > lowest else np.float32(0)
    shift = np.uint32(frame_bits)
    if scale > 0 and np.isfinite(scale):
        for t in range(n_frames):
            keys[t] = (np.uint32(np.int32((values[t] - lowest) * scale)) << shift) | np.uint32(t)
    else:
        # numbers beyond all bounds, or all alike: the order of frames, which is mended where it is wrong
        for t in range(n_frames):
            keys[t] = np.uint32(t)


@numba.njit(cache=True, nogil=True)
def _count(keys, frame_bits, digit_bits, starts):  # type: ignore[no-untyped-def]
    """Where the keys of each lower and each upper digit start when sorted by it."""
    mask = np.uint32((1 << digit_bits) - 1)
    low, high = np.uint32(frame_bits), np.uint32(frame_bits + digit_bits)
    starts[:] = 0
    lower, upper = starts
    for key in keys:
        lower[np.uint64((key >> low) & mask)] += np.uint32(1)
        upper[np.uint64(key >> high)] += np.uint32(1)
    before = np.zeros(2, np.uint32)
    for digit in range(starts.shape[1]):
        for i in range(2):
            n = starts[i, digit]
            starts[i, digit] = before[i]
            before[i] += n


@numba.njit(**INNER)
def _distribute(keys, frame_bits, digit_bits, starts, out):  # type: ignore[no-untyped-def]
    """Sort by the lower digit; keys of one digit keep their order."""
    mask, low = np.uint32((1 << digit_bits) - 1), np.uint32(frame_bits)
    at = starts[0]
    for key in keys:
        digit = np.uint64((key >> low) & mask)
        out[np.uint64(at[digit])] = key
        at[digit] += np.uint32(1)


@numba.njit(cache=True, nogil=True)
def _gather(keys, frame_bits, digit_bits, starts, column, values, frames):  # type: ignore[no-untyped-def]
    """Sort by the upper digit, and look up the full values."""
    mask, high = np.uint32((1 << frame_bits) - 1), np.uint32(frame_bits + digit_bits)
    at = starts[1]
    for key in keys:
        digit = np.uint64(key >> high)
        k = np.uint64(at[digit])
        at[digit] += np.uint32(1)
        frame = key & mask
        frames[k] = frame
        values[k] = column[np.uint64(frame)]


@numba.njit(cache=True, nogil=True)
def put_in_order(values, frames):  # type: ignore[no-untyped-def]
    """Sort what is nearly sorted by value, then frame; false where that is too much work."""
    left = _MOVES_PER_FRAME * values.size
    before = values[0]
    for k in range(1, values.size):
        value = values[k]
        if value > before:
            before = value
            continue
        frame, i = frames[k], k
        while i > 0 and (values[i - 1] > value or (values[i - 1] == value and frames[i - 1] > frame)):
            values[i], frames[i] = values[i - 1], frames[i - 1]
            i -= 1
        values[i], frames[i] = value, frame
        before = values[k]
        left -= k - i
        if left < 0:
            return False
    return True
