"""Kernels of the flat field: transmission of one frame of one detector row, or of a few of its pixels."""

from typing import Any, NamedTuple

import numba
import numpy as np

from xctpipe.compiled import INNER

_LARGEST = np.finfo(np.float32).max


class Light(NamedTuple):
    """Dark and beams of rows: arrays of float32 that begin with the row."""

    dark: Any
    """(row, col)"""
    beam: Any
    """(row, col), first flat minus dark, NaN where a pixel sees no beam."""
    slopes: Any
    """(row, flat, col), what each other flat has more than the first."""


class Times(NamedTuple):
    """The frames that are used."""

    frames: Any
    """(angle,) int64, which of the raw frames."""
    mix: Any
    """(angle, flat), part of each slope that is added to the beam."""
    scale: Any
    """(angle,), what transmission is multiplied by."""


class Row(NamedTuple):
    """The light of one row, and where it is missing."""

    dark: Any
    beam: Any
    slopes: Any
    near: Any
    """(2, col), the nearest columns with a beam on either side, the column itself where it has one."""
    dead: Any
    """Columns without a beam."""


@numba.njit(**INNER)
def row_of(light, r):  # type: ignore[no-untyped-def]
    """The light of row `r`; None where there is no light, and frames hold transmission already."""
    if light is None:
        return None
    beam, slopes = light.beam[r], light.slopes[r]
    n = beam.size
    lit = ~np.isnan(beam)
    for k in range(slopes.shape[0]):
        lit &= ~np.isnan(slopes[k])
    near = np.empty((2, n), np.int64)
    last = -1
    for c in range(n):
        last = c if lit[c] else last
        near[0, c] = last
    last = n
    for c in range(n - 1, -1, -1):
        last = c if lit[c] else last
        near[1, c] = last
    return Row(light.dark[r], beam, slopes, near, np.flatnonzero(~lit))


@numba.njit(**INNER, error_model="numpy")
def _quotient(count, dark, light, scale):  # type: ignore[no-untyped-def]
    return (np.float32(count) - dark) / light * scale


@numba.njit(**INNER, error_model="numpy")
def _divide(counts, dark, light, scale, out):  # type: ignore[no-untyped-def]
    for c in range(out.size):
        out[c] = _quotient(counts[c], dark[c], light[c], scale)


@numba.njit(**INNER)
def _add(part, slope, light):  # type: ignore[no-untyped-def]
    for c in range(light.size):
        light[c] += part * slope[c]


@numba.njit(**INNER, error_model="numpy")
def _between(left, right, c, ends):  # type: ignore[no-untyped-def]
    """The value at column c on the line through its neighbours, at the columns `ends` of n."""
    first, last, n = ends
    if first < 0:
        return right if last < n else np.float32(1)
    if last >= n:
        return left
    return left + (right - left) / np.float32(last - first) * np.float32(c - first)


@numba.njit(**INNER)
def _all_finite(row):  # type: ignore[no-untyped-def]
    odd = False
    for c in range(row.size):
        # without a way out, so that many are compared at once
        odd |= not abs(row[c]) <= _LARGEST
    return not odd


@numba.njit(**INNER)
def _bridge(row):  # type: ignore[no-untyped-def]
    """Interpolate a row linearly, in place, across what is not finite."""
    n = row.size
    last = -1
    for c in range(n + 1):
        if c < n and not np.isfinite(row[c]):
            continue
        for k in range(last + 1, c):
            row[k] = _between(row[max(last, 0)], row[min(c, n - 1)], k, (last, c, n))
        last = c


@numba.njit(**INNER)
def load(raw, at, row, times, t, out):  # type: ignore[no-untyped-def]
    """Transmission of used frame `t` of row `at` of `raw` into `out`."""
    if row is None:
        counts = raw[t, at]
        for c in range(out.size):
            out[c] = counts[c]
    else:
        counts, n_more = raw[times.frames[t], at], row.slopes.shape[0]
        if n_more:
            light = row.beam.copy()
            for k in range(n_more):
                _add(times.mix[t, k], row.slopes[k], light)
            _divide(counts, row.dark, light, times.scale[t], out)
        else:
            _divide(counts, row.dark, row.beam, times.scale[t], out)
        for c in row.dead:
            left, right = row.near[0, c], row.near[1, c]
            ends = left, right, out.size
            out[c] = _between(out[max(left, 0)], out[min(right, out.size - 1)], c, ends)
        if not _all_finite(out):
            _bridge(out)


@numba.njit(**INNER)
def _unbridged(raw, at, row, times, t, c):  # type: ignore[no-untyped-def]
    light = row.beam[c]
    for k in range(row.slopes.shape[0]):
        light += times.mix[t, k] * row.slopes[k, c]
    return _quotient(raw[times.frames[t], at, c], row.dark[c], light, times.scale[t])


@numba.njit(**INNER)
def _bridged(raw, at, row, times, t, c):  # type: ignore[no-untyped-def]
    """What `load` gives a pixel whose quotient is not finite."""
    n = row.beam.size
    first, last = row.near[0, c], row.near[1, c]
    left = right = np.float32(0)
    while first >= 0:
        left = _unbridged(raw, at, row, times, t, first)
        if np.isfinite(left):
            break
        first = row.near[0, first - 1] if first > 0 else -1
    while last < n:
        right = _unbridged(raw, at, row, times, t, last)
        if np.isfinite(right):
            break
        last = row.near[1, last + 1] if last < n - 1 else n
    return _between(left, right, c, (first, last, n))


@numba.njit(**INNER)
def gather(raw, at, row, times, t, cols, out):  # type: ignore[no-untyped-def]
    """What `load` gives at some columns of a frame."""
    if row is None:
        for i in range(cols.size):
            out[i] = raw[t, at, cols[i]]
    else:
        frame, scale, n_more = times.frames[t], times.scale[t], row.slopes.shape[0]
        for i in range(cols.size):
            c = cols[i]
            light = row.beam[c]
            for k in range(n_more):
                light += times.mix[t, k] * row.slopes[k, c]
            out[i] = _quotient(raw[frame, at, c], row.dark[c], light, scale)
            if not abs(out[i]) <= _LARGEST:
                out[i] = _bridged(raw, at, row, times, t, c)
