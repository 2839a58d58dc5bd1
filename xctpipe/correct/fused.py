"""Kernels of one pass: a detector row, frame after frame, from raw numbers to transmission or its logarithm.

A frame of a row stays in cache while it is divided by its flat, bridged, looked through for zingers among its
neighbours in time, and replaced by its logarithm; it is written to memory once. The same kernels, one at a
time, are the separate steps, so that both give the same bits.
"""

from typing import NamedTuple

import numba
import numpy as np

from xctpipe.compiled import INNER
from xctpipe.correct.light import Light, Times, gather, load, row_of
from xctpipe.correct.logarithm import LEAST, minus_log_row
from xctpipe.correct.threads import in_threads
from xctpipe.scan import FloatArray, RawArray


class Specks(NamedTuple):
    """What is taken for a zinger; a size of 0 leaves all."""

    threshold_frac: float = 0.0
    size_px: int = 0
    noise_sigmas: float = 0.0


NONE = Specks()

_SAMPLES_PER_ROW = 20_000
_MARGIN = 1e-6
"""More than float32 rounds: what may be a zinger is flagged in float32 and judged in float64."""

_FRAME_ROWS = 256
"""Rows of single frames that are worth a call."""

_COMPILED_TYPES = ("uint8", "uint16", "float32")


@numba.njit(**INNER)
def _mirror(i, n):  # type: ignore[no-untyped-def]
    """Index in range(n) of position i when the border pixel is the mirror."""
    if n == 1:
        return 0
    i = abs(i) % (2 * n - 2)
    return i if i < n else 2 * n - 2 - i


@numba.njit(**INNER)
def _order(near, i, j):  # type: ignore[no-untyped-def]
    a, b = near[i], near[j]
    near[i], near[j] = min(a, b), max(a, b)


@numba.njit(**INNER)
def _median(near):  # type: ignore[no-untyped-def]
    """Median of 8 numbers, which it moves about."""
    for k in range(0, 8, 4):  # each half by itself
        _order(near, k, k + 1)
        _order(near, k + 2, k + 3)
        _order(near, k, k + 2)
        _order(near, k + 1, k + 3)
        _order(near, k + 1, k + 2)
    # one half against the other backwards: the four smallest, and the four largest
    for k in range(4):
        _order(near, k, 7 - k)
    below = max(max(near[0], near[1]), max(near[2], near[3]))
    above = min(min(near[4], near[5]), min(near[6], near[7]))
    return np.float32(0.5) * (below + above)


@numba.njit(**INNER)
def _sampled(t, n_angles, n_cols, n):  # type: ignore[no-untyped-def]
    """Which of n samples, spread evenly over the pixels of a row, lie in a frame, and their columns."""
    n_pixels = n_angles * n_cols
    first, last = -(-t * n_cols * n // n_pixels), -(-(t + 1) * n_cols * n // n_pixels)
    cols = np.empty(last - first, np.int64)
    for i in range(cols.size):
        cols[i] = (first + i) * n_pixels // n - t * n_cols
    return first, cols


@numba.njit(inline="always")
def _noise(raw, at, row, times, size, n_angles):  # type: ignore[no-untyped-def]
    """Robust s of a noise whose standard deviation is s times the square root of transmission."""
    n_cols = raw.shape[2]
    n = min(n_angles * n_cols, _SAMPLES_PER_ROW)
    deviation = np.zeros(n, np.float32)
    near = np.empty(8, np.float32)
    for t in range(n_angles):
        first, cols = _sampled(t, n_angles, n_cols, n)
        if not cols.size:
            continue
        beside = np.empty(3 * cols.size, np.int64)
        for i in range(cols.size):
            for k in range(3):
                beside[3 * i + k] = _mirror(cols[i] + (k - 1) * size, n_cols)
        seen = np.empty((3, beside.size), np.float32)
        for k in range(3):
            gather(raw, at, row, times, _mirror(t + (k - 1) * size, n_angles), beside, seen[k])
        for i in range(cols.size):
            for k in range(3):
                near[k], near[3 + k] = seen[0, 3 * i + k], seen[2, 3 * i + k]
            near[6], near[7] = seen[1, 3 * i], seen[1, 3 * i + 2]
            middle = _median(near)
            if middle > 0:
                deviation[first + i] = abs(seen[1, 3 * i + 1] - middle) / np.sqrt(middle)
    return 1.4826 * np.median(deviation)


@numba.njit(**INNER)
def _pad(row, size):  # type: ignore[no-untyped-def]
    """Mirror a row in its ring beyond its borders."""
    n = row.size - 2 * size
    for k in range(size):
        row[size - 1 - k] = row[size + _mirror(-1 - k, n)]
        row[size + n + k] = row[size + _mirror(n + k, n)]


@numba.njit(**INNER)
def _flag(before, here, after, threshold, least, flags):  # type: ignore[no-untyped-def]
    """Mark what exceeds both neighbours in time by the threshold, and a few that nearly do."""
    part, margin = np.float32(threshold), np.float32(_MARGIN * threshold)
    for c in range(here.size):
        bound = max(before[c], after[c])
        flags[c] = here[c] - bound > max(part * bound - margin * abs(bound), least)


@numba.njit(**INNER)
def _stands_out(value, before, after, c, size, least):  # type: ignore[no-untyped-def]
    d = c - size
    while d <= c + size and value - max(before[d], after[d]) > least:
        d += 1
    return d > c + size


@numba.njit(**INNER)
def _mended(around, c, specks, noise, near):  # type: ignore[no-untyped-def]
    """What a flagged pixel becomes: itself, or the median where it is a zinger; `near` has room for 8."""
    far_before, before, here, after, far_after = around
    size, value = specks.size_px, here[c]
    bound = max(before[c], after[c])
    if value - bound <= specks.threshold_frac * bound:
        return value
    brightest = bound
    for d in range(c - size, c + size + 1):
        brightest = max(brightest, max(before[d], after[d]))
    for k in range(3):
        d = c + (k - 1) * size
        near[k], near[3 + k] = far_before[d], far_after[d]
    near[6], near[7] = here[c - size], here[c + size]
    middle = _median(near)
    # one photon more, so that the noise does not vanish with the light
    excess = max(specks.threshold_frac * middle, noise * np.sqrt(max(middle, 0.0) + noise * noise))
    return middle if value - middle > excess and value - brightest > excess else value


@numba.njit(**INNER)
def _mend(around, specks, noise, flags, near, out):  # type: ignore[no-untyped-def]
    """A frame of a row without its zingers; `flags` has room for a multiple of 8 columns."""
    size, n = specks.size_px, out.size
    _, before, here, after, _ = around
    inner = here[size : size + n]
    for c in range(n):
        out[c] = inner[c]
    # no excess is asked that is less, rounding apart
    least = np.float32((1 - _MARGIN) * noise * noise)
    _flag(before[size : size + n], inner, after[size : size + n], specks.threshold_frac, least, flags[:n])
    eights = flags.view(np.uint64)
    for i in range(eights.size):
        if eights[i]:
            for c in range(8 * i, 8 * i + 8):
                if flags[c] and _stands_out(inner[c], before, after, c + size, size, least):
                    out[c] = _mended(around, c + size, specks, noise, near)


@numba.njit(cache=True, nogil=True)
def _noise_of_rows(raw, rows, light, times, size, n_angles, noise):  # type: ignore[no-untyped-def]
    first, last, start = rows
    for r in range(first, last):
        noise[r] = _noise(raw, start + r - first, row_of(light, r), times, size, n_angles)


@numba.njit(**INNER)
def _around(ring, t, size, n_angles):  # type: ignore[no-untyped-def]
    """Frame `t` between two before and two after it: `size` and one away."""
    n = len(ring)
    return (
        ring[_mirror(t - size, n_angles) % n],
        ring[_mirror(t - 1, n_angles) % n],
        ring[t % n],
        ring[_mirror(t + 1, n_angles) % n],
        ring[_mirror(t + size, n_angles) % n],
    )


@numba.njit(cache=True, nogil=True)
def _mend_rows(raw, rows, light, times, limits, floor, out, below):  # type: ignore[no-untyped-def]
    """Rows without their zingers, a ring holding the frames around; limits: specks, and noise of rows."""
    first, last, start = rows
    specks, noise = limits
    n_angles, _, n_cols = out.shape
    size = specks.size_px
    ring = np.empty((min(2 * size + 1, n_angles), n_cols + 2 * size), np.float32)
    flags, near = np.zeros((n_cols + 7) // 8 * 8, np.uint8), np.empty(8, np.float32)
    for r in range(first, last):
        row = row_of(light, r)
        done = 0
        for t in range(n_angles):
            while done < min(t + size + 1, n_angles):
                new = ring[done % len(ring)]
                load(raw, start + r - first, row, times, done, new[size : size + n_cols])
                _pad(new, size)
                done += 1
            around = _around(ring, t, size, n_angles)
            _mend(around, specks, specks.noise_sigmas * noise[r], flags, near, out[t, r])
            if floor > 0:
                below[r] += minus_log_row(out[t, r], floor)


@numba.njit(cache=True, nogil=True)
def _load_rows(raw, rows, light, times, floor, out, below):  # type: ignore[no-untyped-def]
    """Rows with all their zingers."""
    first, last, start = rows
    for r in range(first, last):
        row = row_of(light, r)
        for t in range(out.shape[0]):
            load(raw, start + r - first, row, times, t, out[t, r])
            if floor > 0:
                below[r] += minus_log_row(out[t, r], floor)


def one_pass(
    raw: RawArray,
    *,
    light: Light | None = None,
    times: Times | None = None,
    specks: Specks = NONE,
    floor: float | None = None,
) -> tuple[FloatArray, int]:
    """Transmission of raw frames, or its -log, in one pass over memory with threads over rows.

    Parameters
    ----------
    raw : (frame, row, col), any integer or float type.
    light, times : of its rows, and of the frames that are used; absent: `raw` is transmission, all used.
    specks : the zingers to take out.
    floor : where given, -log of the transmission, raised to it, is returned.

    Returns
    -------
    (angle, row, col) float32, and how many pixels were below the floor.
    """
    n_angles, n_rows, n_cols = raw.shape if times is None else (times.frames.size, *raw.shape[1:])
    out = np.empty((n_angles, n_rows, n_cols), np.float32)
    below, noise = np.zeros(n_rows, np.int64), np.empty(n_rows)
    compiled = raw.dtype.newbyteorder("=") if raw.dtype.name in _COMPILED_TYPES else np.dtype(np.float32)
    ready = raw.dtype == compiled and raw.flags.c_contiguous
    least = np.float32(0.0 if floor is None else max(floor, LEAST))
    specks = Specks(float(specks.threshold_frac), int(specks.size_px), float(specks.noise_sigmas))

    def rows(first: int, last: int) -> None:
        counts = raw if ready else np.ascontiguousarray(raw[:, first:last], compiled)
        span = (first, last, first if ready else 0)
        if specks.size_px:
            _noise_of_rows(counts, span, light, times, specks.size_px, n_angles, noise)
            _mend_rows(counts, span, light, times, (specks, noise), least, out, below)
        else:
            _load_rows(counts, span, light, times, least, out, below)

    if out.size:
        in_threads(rows, n_rows, block=-(-_FRAME_ROWS // raw.shape[0]))
    return out, int(below.sum())
