"""Rows to samples of their spectra: filtered, cut to a window about the axis, transformed, weighted.

All rows of a batch go through together, in lanes. The forward transform is also taken for the inverse one:
what it gives for n is then at -n.
"""

from typing import NamedTuple

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from xctpipe.compiled import INNER
from xctpipe.recon.filtering import continuation, edge_weights, ramp, window
from xctpipe.recon.geometry import Geometry
from xctpipe.recon.lanes import LANES, conj, empty, load, pack, store, times_i, weighed
from xctpipe.recon.lanes_fft import ComplexArray, Transform, good_length, transform, transform_of
from xctpipe.scan import DoubleArray, FloatArray

ROLL_OFF_PX = 16
"""Columns on either side of the circle over which the window about the axis falls to zero."""


class Rows(NamedTuple):
    """What is done to the rows of a batch; two columns make one complex number.

    Attributes
    ----------
    place : (lane,), where column 0 lies in the padded row.
    edge : weights of the columns that make an edge value.
    own, mirrored : (half the padded row,), the filter: factors of a number and of its opposite's conjugate.
    base : pair of columns at which the window begins in the padded row.
    left, right : (half the window, 2, lane), filtered continuation of an edge value of one.
    roll_off : (half the window,), falls to zero outside the circle; pairs of real factors.
    roots : (half the window + 1,), what untangles the transform of pairs.
    gain : (frequency, 2, lane), filter window, and phase that puts the axis at the origin.
    padded, windowed : transforms of half the padded row and half the window.
    """

    place: NDArray[np.int64]
    edge: FloatArray
    own: FloatArray
    mirrored: FloatArray
    base: int
    left: FloatArray
    right: FloatArray
    roll_off: ComplexArray
    roots: ComplexArray
    gain: FloatArray
    padded: Transform
    windowed: Transform


class Turns(NamedTuple):
    """What differs between projections: weight, phase per frequency, -1 where to conjugate."""

    scale: DoubleArray
    step: NDArray[np.complex128]
    mirror: DoubleArray


def period_of(n_cols: int) -> int:
    """Columns of the window about the axis: even, and wide enough to fall to zero outside the circle."""
    return 2 * good_length(-(-n_cols // 2) + ROLL_OFF_PX)


def padded_length(n_cols: int, center_px: float) -> int:
    """Columns in which filtering a row onto its window does not wrap around; even.

    It follows from the row's own axis alone, so that a row is the same bits in any batch.
    """
    offset = abs(round(center_px) - n_cols // 2) + 1
    spare = max(n_cols // 64, 16)
    allowed = spare << max(0, int(np.ceil(np.log2(offset / spare))))
    return 2 * good_length(-(-(n_cols + period_of(n_cols)) // 2) + allowed)


def rows_for(centers_px: DoubleArray, *, n_cols: int, filter_name: str, padding: str) -> Rows:
    """What is done to rows of a batch with their axes at these columns."""
    period, n_pad = period_of(n_cols), padded_length(n_cols, centers_px[0])
    centers = np.resize(centers_px, LANES)
    firsts = np.rint(centers).astype(np.int64) - period // 2
    base = (n_pad - period) // 4
    profile = continuation(n_cols, padding=padding)
    left, right, gain = empty(period // 2), empty(period // 2), empty(period // 2 + 1)
    for first in np.unique(firsts):
        columns = first + np.arange(period)
        for side, positions in ((left, -1 - columns), (right, columns - n_cols)):
            pairs = filtered_profile(profile, positions).reshape(-1, 2, 1)
            side[..., firsts == first] = pairs
    k = np.arange(period // 2 + 1)
    height = window(k / (period // 2), filter_name=filter_name) / period
    height[[0, -1]] /= 2
    phase = np.exp(2j * np.pi / period * np.outer(k, centers - firsts))
    gain[:, 0], gain[:, 1] = height[:, None] * phase.real, height[:, None] * phase.imag
    own, mirrored = ramp_of_pairs(n_pad)
    return Rows(
        2 * base - firsts,
        edge_weights(n_cols).astype(np.float32),
        own,
        mirrored,
        base,
        left,
        right,
        roll_off(n_cols, period=period).astype(np.float32).view(np.complex64),
        (-0.5j * np.exp(-2j * np.pi / period * k)).astype(np.complex64),
        gain,
        transform_of(n_pad // 2),
        transform_of(period // 2),
    )


def roll_off(n_cols: int, *, period: int) -> DoubleArray:
    """Weights of the columns of the window: one on the circle, zero at the ends."""
    beyond = np.abs(np.arange(period) - period // 2) - (n_cols / 2 + 1)
    return np.asarray(np.cos(0.5 * np.pi * np.clip(beyond / (period / 2 - n_cols / 2 - 1), 0, 1)) ** 2)


def ramp_of_pairs(n_pad: int) -> tuple[FloatArray, FloatArray]:
    """Ramp filter on the transform Z of a row whose pairs of columns are complex numbers.

    Filtered, it is own[k] Z[k] + i mirrored[k] conj(Z[-k]): what untangling the transforms of even and
    odd columns, filtering and tangling again come to for an even filter.
    """
    half = n_pad // 2
    response = scipy.fft.rfft(ramp(np.concatenate([np.arange(half + 1), np.arange(half - 1, 0, -1)]))).real
    mean = (response[:-1] + response[:0:-1]) / (2 * half)
    difference = (response[:-1] - response[:0:-1]) / (2 * half)
    angle = 2 * np.pi / n_pad * np.arange(half)
    own = mean - difference * np.sin(angle)
    return own.astype(np.float32), (difference * np.cos(angle)).astype(np.float32)


def filtered_profile(profile: DoubleArray, positions: NDArray[np.int64]) -> DoubleArray:
    """Ramp-filtered profile 0, 1, ... at consecutive integer positions, in either sense."""
    if profile.size == 0:
        return np.zeros(positions.size)
    low = int(positions.min())
    lags = np.arange(low - profile.size + 1, low + positions.size)
    n_fft = int(scipy.fft.next_fast_len(lags.size, real=True))
    product = scipy.fft.rfft(ramp(lags), n_fft) * scipy.fft.rfft(profile, n_fft)
    filtered = scipy.fft.irfft(product, n_fft)[profile.size - 1 : profile.size - 1 + positions.size]
    return np.asarray(filtered[positions - low])


def turns_for(geometry: Geometry, *, n_cols: int) -> Turns:
    """Weights and phases of the projections of a scan."""
    angles = geometry.angles_rad
    half_px = 0.0 if n_cols % 2 else 0.5
    shift = half_px * (np.cos(angles) - np.sin(angles))
    return Turns(
        geometry.weights_rad / geometry.pixel_cm,
        np.exp(2j * np.pi / period_of(n_cols) * shift),
        np.where(np.cos(angles) < 0, -1.0, 1.0),
    )


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sample(
    sinograms: FloatArray,
    first: int,
    last: int,
    rows: Rows,
    turns: Turns,
    samples: FloatArray,
    scratch: tuple[FloatArray, FloatArray, FloatArray],
) -> None:
    """Samples (angle, frequency) of projections first to last - 1, given with the last angle first."""
    x, y, edges = scratch
    for a in range(first, last):
        interleave(sinograms[sinograms.shape[0] - 1 - a], rows, x, edges)
        spectrum, free = transform(x, y, rows.padded)
        apply_ramp(spectrum, rows)
        filtered, free = transform(spectrum, free, rows.padded)
        cut_window(filtered, rows, edges, free)
        spectrum, free = transform(free, filtered, rows.windowed)
        untangle(spectrum, rows, turns, a, samples)


@numba.njit(**INNER, fastmath={"contract"})  # type: ignore[untyped-decorator]
def interleave(lines: FloatArray, rows: Rows, x: FloatArray, edges: FloatArray) -> None:
    """Lines (row, col) side by side in lanes at their places among zeros, and their edge values."""
    n_rows, n_cols = lines.shape
    flat = x.reshape(-1)
    # whole squares where every lane has columns, the rest one by one
    low = (rows.place.max() + 1) // 2 * 2
    high = low
    if n_rows == LANES:
        high = max(low, low + (rows.place.min() + n_cols - low) // LANES * LANES)
    flat[: low * LANES] = 0
    flat[high * LANES :] = 0
    edges[:] = 0
    starts = -rows.place
    for position in range(low, high, LANES):
        pack(lines, starts, position, x)
    for lane in range(n_rows):
        place = rows.place[lane]
        for position in range(place, min(low, place + n_cols)):
            flat[position * LANES + lane] = lines[lane, position - place]
        for position in range(high, place + n_cols):
            flat[position * LANES + lane] = lines[lane, position - place]
        left = np.float32(0)
        right = np.float32(0)
        for i in range(rows.edge.size):
            left += rows.edge[i] * lines[lane, i]
            right += rows.edge[i] * lines[lane, n_cols - 1 - i]
        edges[0, :, lane] = left
        edges[1, :, lane] = right


@numba.njit(**INNER, fastmath={"contract"})  # type: ignore[untyped-decorator]
def apply_ramp(z: FloatArray, rows: Rows) -> None:
    """Ramp filter on the transform of a row of pairs."""
    half = rows.own.size
    for k in range(half // 2 + 1):
        j = half - k if k else 0
        a, b = load(z, k), load(z, j)
        store(z, k, a * rows.own[k] + times_i(conj(b)) * rows.mirrored[k])
        store(z, j, b * rows.own[j] + times_i(conj(a)) * rows.mirrored[j])


@numba.njit(**INNER, fastmath={"contract"})  # type: ignore[untyped-decorator]
def cut_window(z: FloatArray, rows: Rows, edges: FloatArray, out: FloatArray) -> None:
    """Window about the axis of the filtered rows, plus what their continuation adds."""
    half = rows.own.size
    first, last = load(edges, 0), load(edges, 1)
    for m in range(rows.roll_off.size):
        at = half - rows.base - m
        value = load(z, at if at < half else 0)
        beyond = weighed(load(rows.left, m), first) + weighed(load(rows.right, m), last)
        store(out, m, weighed(value + beyond, rows.roll_off[m]))


@numba.njit(**INNER, fastmath={"contract"})  # type: ignore[untyped-decorator]
def untangle(z: FloatArray, rows: Rows, turns: Turns, a: int, samples: FloatArray) -> None:
    """Spectrum of a row from the transform of its pairs, turned and weighted, as the samples of a ray."""
    half = rows.roll_off.size
    sense = np.complex64(complex(1.0, turns.mirror[a]))
    step = turns.step[a]
    low = complex(turns.scale[a], 0.0)
    high = low * step**half
    start = a * (half + 1)
    for k in range(half // 2 + 1):
        j = half - k
        one, other = load(z, k), conj(load(z, j if k else 0))
        even, odd = (one + other) * np.float32(0.5), (one - other) * rows.roots[k]
        value = (even + odd) * load(rows.gain, k) * np.complex64(low)
        store(samples, start + k, weighed(value, sense))
        value = conj(even - odd) * load(rows.gain, j) * np.complex64(high)
        store(samples, start + j, weighed(value, sense))
        low *= step
        high *= step.conjugate()
