"""Direct Fourier reconstruction: the adjoint non-uniform FFT of ramp-filtered projections.

Each row is filtered, cut to a window about the axis and transformed; its samples lie on a ray through
the plane of frequencies (central slice theorem), the rays are gridded, and one inverse FFT gives the slice.
All work is cut into pieces that do not depend on the number of threads, and done by threads that share
no sums, so results are the same bits for any number of threads and any slab.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from xctpipe.recon.filtering import WINDOWS, continuation, edge_weights, ramp, window
from xctpipe.recon.geometry import Geometry, inside_circle
from xctpipe.recon.gridding import (
    LANES,
    MARGIN,
    ComplexArray,
    Plan,
    fold_columns,
    grid_shape,
    grid_size,
    kernel_transform,
    make_plan,
    spread,
)
from xctpipe.scan import DoubleArray, FloatArray

FILTERS = WINDOWS
ROLL_OFF_PX = 16
"""Columns on either side of the circle over which the window about the axis falls to zero."""
ANGLE_BLOCK = 2
COLUMN_BLOCK = 4
ROW_BLOCK = 4
"""Projections, grid columns and image lines in one task: scratch of about a megabyte, to fit a cache."""

Pool = Callable[[Callable[[int], None], Iterable[int]], None]


def available() -> str | None:
    """None: it needs nothing beyond what xctpipe needs."""
    return None


def reconstruct(sinograms: FloatArray, *, geometry: Geometry, filter_name: str, padding: str) -> FloatArray:
    """Slices (row, y, x) in cm^-1 of sinograms (angle, row, col), a batch at a time."""
    _, n_rows, n_cols = sinograms.shape
    plan = plan_of(geometry.angles_rad.tobytes(), n_cols)
    volume = np.zeros((n_rows, n_cols, n_cols), np.float32)
    with threads() as run:
        for rows in batches(n_rows):
            filters = row_filters(
                geometry.centers_px[rows], n_cols=n_cols, filter_name=filter_name, padding=padding
            )
            samples = polar_samples(sinograms[:, rows], geometry=geometry, filters=filters, run=run)
            grid = np.zeros(grid_shape(plan.size, lanes=samples.shape[2]), np.complex64)
            grid_samples(grid, samples, plan=plan, run=run)
            del samples
            invert(grid, volume[rows], run=run)
            del grid
    return volume


def working_bytes(*, n_angles: int, n_rows: int, n_cols: int, n_threads: int) -> int:
    """Bytes that `reconstruct` needs beyond its argument, its result included."""
    lanes = lanes_for(n_rows)
    size, period = grid_size(n_cols), period_of(n_cols)
    n_fft = fft_length(n_cols)
    samples = 8 * lanes * n_angles * (period // 2 + 1)
    grid = 8 * math.prod(grid_shape(size, lanes=lanes))
    filtering = n_threads * 4 * lanes * ANGLE_BLOCK * (3 * n_fft + 2 * period)
    inversion = n_threads * 4 * lanes * size * max(2 * ROW_BLOCK, 4 * COLUMN_BLOCK)
    tables = 16 * lanes * (n_fft + 2 * period) + n_cols**2 + 48 * n_angles + 2**18
    return 4 * n_rows * n_cols**2 + max(samples + max(grid, filtering), grid + inversion) + tables


def batches(n_rows: int) -> Iterator[slice]:
    """Rows that are done together."""
    for first in range(0, n_rows, LANES[-1]):
        yield slice(first, min(first + LANES[-1], n_rows))


def lanes_for(n_rows: int) -> int:
    """Lanes of a batch of so many rows."""
    return LANES[0] if n_rows <= LANES[0] else LANES[-1]


@lru_cache(maxsize=2)
def plan_of(angles: bytes, n_cols: int) -> Plan:
    """Plan of a scan, kept for the slabs that follow."""
    return make_plan(np.frombuffer(angles), n_cols=n_cols, period_px=period_of(n_cols))


@contextmanager
def threads() -> Iterator[Pool]:
    """A function that runs a task for every item on as many threads as numba would use."""
    with ThreadPoolExecutor(numba.get_num_threads()) as pool:

        def run(task: Callable[[int], None], items: Iterable[int]) -> None:
            for _ in pool.map(task, items):
                pass

        yield run


def period_of(n_cols: int) -> int:
    """Columns of the window about the axis: even, and wide enough to fall to zero outside the circle."""
    return 2 * int(scipy.fft.next_fast_len(-(-n_cols // 2) + ROLL_OFF_PX, real=True))


def fft_length(n_cols: int) -> int:
    """Length of the transform in which filtering a row onto its window does not wrap around."""
    return int(scipy.fft.next_fast_len(n_cols + period_of(n_cols) - 1, real=True))


@dataclass(frozen=True, eq=False)
class RowFilters:
    """What is done to the rows of a batch before gridding, the rows padded to its lanes.

    Attributes
    ----------
    spectrum : (lane, frequency), ramp filter that also moves the window to column 0.
    left, right : (lane, window), filtered continuation beyond either end for an edge value of one.
    edge : weights of the columns that make an edge value.
    roll_off : (window,), falls to zero outside the circle.
    shift_px : (lane,), position of the axis in the window.
    gain : (frequency,), filter window and the weights of the half spectrum.
    """

    n_fft: int
    spectrum: ComplexArray
    left: FloatArray
    right: FloatArray
    edge: FloatArray
    roll_off: FloatArray
    shift_px: DoubleArray
    gain: DoubleArray


def row_filters(centers_px: DoubleArray, *, n_cols: int, filter_name: str, padding: str) -> RowFilters:
    """Filters for rows with their axes at these columns."""
    period = period_of(n_cols)
    n_fft = fft_length(n_cols)
    lanes = lanes_for(centers_px.size)
    centers = np.resize(centers_px, lanes)
    firsts = np.rint(centers).astype(np.int64) - period // 2
    profile = continuation(n_cols, padding=padding)
    spectrum = np.empty((lanes, n_fft // 2 + 1), np.complex64)
    left = np.empty((lanes, period), np.float32)
    right = np.empty((lanes, period), np.float32)
    for first in np.unique(firsts):
        same = firsts == first
        # output column j needs the lags first + j - i of the inputs i: nothing wraps around
        lags = np.concatenate([np.arange(period + n_fft - (n_cols + period - 1)), np.arange(1 - n_cols, 0)])
        spectrum[same] = scipy.fft.rfft(ramp(first + lags))
        columns = first + np.arange(period)
        left[same] = filtered_profile(profile, -1 - columns)
        right[same] = filtered_profile(profile, columns - n_cols)
    k = np.arange(period // 2 + 1)
    gain = window(k / (period // 2), filter_name=filter_name) / period
    gain[[0, -1]] /= 2
    beyond = np.abs(np.arange(period) - period // 2) - (n_cols / 2 + 1)
    roll_off = np.cos(0.5 * np.pi * np.clip(beyond / (period / 2 - n_cols / 2 - 1), 0, 1)) ** 2
    return RowFilters(
        n_fft,
        spectrum,
        left,
        right,
        edge_weights(n_cols).astype(np.float32),
        roll_off.astype(np.float32),
        centers - firsts,
        gain,
    )


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


def polar_samples(
    sinograms: FloatArray, *, geometry: Geometry, filters: RowFilters, run: Pool
) -> ComplexArray:
    """Weighted samples of the rows' spectra with the axis at the origin: (angle, k, lane)."""
    n_angles, n_rows, n_cols = sinograms.shape
    period = filters.roll_off.size
    lanes = filters.shift_px.size
    samples = np.empty((n_angles, period // 2 + 1, lanes), np.complex64)
    angles = geometry.angles_rad
    mirror = np.where(np.cos(angles) < 0, -1.0, 1.0)
    half_px = 0.0 if n_cols % 2 else 0.5
    shifts = half_px * (np.cos(angles) - np.sin(angles))
    scale = geometry.weights_rad / geometry.pixel_cm
    lane_phase = np.exp(2j * np.pi / period * np.outer(np.arange(period // 2 + 1), filters.shift_px))
    lane_gain = (filters.gain[:, None] * lane_phase).astype(np.complex64)

    def block(first: int) -> None:
        part = slice(first, min(first + ANGLE_BLOCK, n_angles))
        rows = np.zeros((ANGLE_BLOCK, lanes, filters.n_fft), np.float32)
        rows[: part.stop - first, :n_rows, :n_cols] = sinograms[part]
        spectra = scipy.fft.rfft(rows, axis=-1)
        spectra *= filters.spectrum
        filtered = scipy.fft.irfft(spectra, filters.n_fft, axis=-1)
        windowed = np.empty((ANGLE_BLOCK, lanes, period), np.float32)
        cut_windows(
            filtered, rows, n_cols, filters.edge, filters.left, filters.right, filters.roll_off, windowed
        )
        turn(
            scipy.fft.rfft(windowed, axis=-1),
            lane_gain,
            2 * np.pi / period * shifts[part],
            scale[part],
            mirror[part],
            samples[part],
        )

    run(block, range(0, n_angles, ANGLE_BLOCK))
    return samples


@numba.njit(cache=True, nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def cut_windows(
    filtered: FloatArray,
    rows: FloatArray,
    n_cols: int,
    edge: FloatArray,
    left: FloatArray,
    right: FloatArray,
    roll_off: FloatArray,
    windowed: FloatArray,
) -> None:
    """Window about the axis of the filtered rows, plus what their continuation adds."""
    for a in range(windowed.shape[0]):
        for lane in range(windowed.shape[1]):
            first = np.float32(0)
            last = np.float32(0)
            for i in range(edge.size):
                first += edge[i] * rows[a, lane, i]
                last += edge[i] * rows[a, lane, n_cols - 1 - i]
            for j in range(windowed.shape[2]):
                windowed[a, lane, j] = roll_off[j] * (
                    filtered[a, lane, j] + first * left[lane, j] + last * right[lane, j]
                )


@numba.njit(cache=True, nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def turn(
    spectra: ComplexArray,
    lane_gain: ComplexArray,
    step_rad: DoubleArray,
    scale: DoubleArray,
    mirror: DoubleArray,
    samples: ComplexArray,
) -> None:
    """Phase, gain and weight of every sample; lanes become the last axis."""
    for a in range(samples.shape[0]):
        step = complex(np.cos(step_rad[a]), np.sin(step_rad[a]))
        phase = complex(scale[a], 0.0)
        sign = np.float32(mirror[a])
        for k in range(samples.shape[1]):
            factor = np.complex64(phase)
            for lane in range(samples.shape[2]):
                value = spectra[a, lane, k] * (lane_gain[k, lane] * factor)
                samples[a, k, lane] = complex(value.real, sign * value.imag)
            phase *= step


def grid_samples(grid: ComplexArray, samples: ComplexArray, *, plan: Plan, run: Pool) -> None:
    """Add the samples to the grid, one colour of tiles after the other."""
    floats, values = grid.view(np.float32), samples.view(np.float32)
    for tiles, cost in zip(plan.tiles, plan.costs, strict=True):
        parts = np.array_split(tiles, cuts(cost, parts=8 * numba.get_num_threads()))

        def part(i: int, parts: list[NDArray[np.int32]] = parts) -> None:
            spread(floats, values, parts[i], plan.starts, plan.runs, plan.step_u, plan.step_v, plan.table)

        run(part, range(len(parts)))


def cuts(cost: DoubleArray, *, parts: int) -> NDArray[np.intp]:
    """Where to cut a list so that its parts cost about the same."""
    total = np.cumsum(cost)
    return np.searchsorted(total, np.linspace(0, cost.sum(), parts + 1)[1:-1])


def invert(grid: ComplexArray, volume: FloatArray, *, run: Pool) -> None:
    """Slices from the gridded samples of their spectra; the grid is used up."""
    size = grid.shape[1] - 2 * MARGIN
    n_cols = volume.shape[2]
    fold_columns(grid)
    inner = grid[MARGIN : MARGIN + size // 2 + 1, MARGIN : MARGIN + size]
    pixels = np.arange(n_cols) - n_cols // 2
    correction = 1 / kernel_transform(pixels.astype(np.float64), size=size)
    index = pixels % size
    # the grid starts at v = -size / 2, which turns the sign of every other pixel along y
    correction_y = (correction * np.where(pixels % 2, -1, 1)).astype(np.float32)
    correction_x = correction.astype(np.float32)
    blank = n_cols - inside_circle(n_cols).sum(axis=0)

    def columns(first: int) -> None:
        part = inner[first : first + COLUMN_BLOCK]
        inverse = scipy.fft.ifft(part, axis=1, norm="forward", overwrite_x=True)
        if not np.may_share_memory(inverse, part):
            part[...] = inverse

    def lines(first: int) -> None:
        last = min(first + ROW_BLOCK, n_cols)
        part = scipy.fft.irfft(inner[:, index[first:last]], size, axis=0, norm="forward")
        for y in range(first, last):
            write_line(part[:, y - first], correction_x, correction_y[y], blank[y] // 2, volume[:, y])

    run(columns, range(0, inner.shape[0], COLUMN_BLOCK))
    run(lines, range(0, n_cols, ROW_BLOCK))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def write_line(
    line: FloatArray, correction_x: FloatArray, correction_y: np.float32, blank: int, out: FloatArray
) -> None:
    """One line of every slice, corrected for the kernel, but for its ends: (periodic x, lane) to (row, x)."""
    n_cols = out.shape[1]
    for x in range(blank, n_cols - blank):
        factor = correction_x[x] * correction_y
        source = (x - n_cols // 2) % line.shape[0]
        for row in range(out.shape[0]):
            out[row, x] = line[source, row] * factor
