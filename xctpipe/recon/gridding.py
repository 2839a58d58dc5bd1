"""Polar samples onto a Cartesian grid: the adjoint non-uniform FFT of a parallel-beam scan, in parts.

The grid is half a plane of frequencies, laid out (u, v) with the slices of a batch in lanes. A ray with
cos a < 0 is taken at its opposite, conjugated, so that u >= 0; its slice is the real part of the sum.
The grid is made in bands of columns u, each by one thread in a fixed order and transformed along v before
it leaves the cache; samples whose kernel reaches into two bands are taken by both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.recon.lanes import LANES, conj, load, scaled, store, straight
from xctpipe.recon.lanes_fft import good_length
from xctpipe.scan import DoubleArray, FloatArray

IndexArray = NDArray[np.int32]

BAND = 32
"""Columns of a band."""
TILE = 32
"""Cells along v whose samples are taken together: their part of a band stays in the cache of one core."""
MARGIN = 8
"""Cells around a band for what the kernel spills over its border; no kernel is wider."""
TABLE_STEPS = 256
OVERSAMPLING = 1.28
ACCURACY = ((1e-2, 4), (1e-3, 5), (2e-4, 6), (5e-5, 7), (2e-5, 8))
"""Width of the kernel by the error that it keeps to: rms, relative to that of white noise."""


class Kernel(NamedTuple):
    """What spreads a sample over the cells about it.

    Attributes
    ----------
    width : cells it reaches along either axis.
    size : cells along v of the grid; even.
    beta : its shape.
    """

    width: int
    size: int
    beta: float


class Rays(NamedTuple):
    """Where the samples of a scan go on the grid; the same for all slices.

    Sample k of ray a is at cell k * (step_u[a], step_v[a]), k = 0..n_k - 1, the origin being
    the cell (0, size / 2). The samples of bucket t = band * n_tiles + tile are the runs
    [starts[t], starts[t + 1]) of `runs`: (ray, first k, one past the last k).
    """

    step_u: DoubleArray
    step_v: DoubleArray
    starts: IndexArray
    runs: IndexArray
    table: FloatArray
    n_k: int
    size: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Kernel and rays of a scan."""

    kernel: Kernel
    rays: Rays


def kernel_for(n_cols: int, *, tolerance: float) -> Kernel:
    """Kernel and grid for slices of this width and a relative rms error of gridding."""
    width = next(width for bound, width in ACCURACY if bound <= tolerance)
    size = 2 * good_length(int(np.ceil(OVERSAMPLING * max(n_cols, 2 * width) / 2)))
    ratio = size / max(n_cols, 2 * width)
    return Kernel(width, size, 0.98 * np.pi * width * (1 - 1 / (2 * ratio)))


def bands_of(size: int) -> list[tuple[int, int]]:
    """First column of every band and one past its last; the last holds all that its mirror reaches."""
    n = max(1, (size // 2 + 1) // BAND)
    return [(b * BAND, (b + 1) * BAND if b < n - 1 else size // 2 + 1) for b in range(n)]


def band_shape(size: int) -> tuple[int, int]:
    """Shape (u, v) of a band with its margins."""
    first, last = bands_of(size)[-1]
    return last - first + 2 * MARGIN, size + 2 * MARGIN


def make_plan(angles_rad: DoubleArray, *, n_cols: int, period_px: int, tolerance: float) -> Plan:
    """Plan for samples at the frequencies k / period_px, k = 0..period_px / 2, of every ray."""
    kernel = kernel_for(n_cols, tolerance=tolerance)
    cells = kernel.size / period_px
    mirror = np.where(np.cos(angles_rad) < 0, -1.0, 1.0)
    step_u = mirror * np.cos(angles_rad) * cells
    step_v = -mirror * np.sin(angles_rad) * cells
    n_k = period_px // 2 + 1
    sizes = np.array([kernel.size, kernel.width, len(bands_of(kernel.size))])
    counts = np.zeros(sizes[2] * (kernel.size // TILE + 1), np.int32)
    list_runs(step_u, step_v, n_k, sizes, counts, np.empty((0, 3), np.int32))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    runs = np.empty((starts[-1], 3), np.int32)
    list_runs(step_u, step_v, n_k, sizes, starts[:-1].copy(), runs)
    return Plan(kernel, Rays(step_u, step_v, starts, runs, kernel_table(kernel), n_k, kernel.size))


def kernel_value(distance_cells: DoubleArray, kernel: Kernel) -> DoubleArray:
    """Kaiser-Bessel window [1]_ at distances up to half the width, zero beyond.

    References
    ----------
    .. [1] Jackson, Meyer, Nishimura & Macovski, IEEE Trans. Med. Imaging 10, 473 (1991),
       doi:10.1109/42.97598
    """
    inside = 1 - (2 * distance_cells / kernel.width) ** 2
    values = np.i0(kernel.beta * np.sqrt(np.maximum(inside, 0))) / np.i0(kernel.beta)
    return np.where(inside >= 0, values, 0.0)


def kernel_table(kernel: Kernel) -> FloatArray:
    """Kernel at the cells that a point reaches, and its change over a step: (step, 2, cell).

    The position is counted from the cell before a point for an even width, from half a cell before it
    for an odd one.
    """
    position = np.arange(TABLE_STEPS + 1)[:, None] / TABLE_STEPS - 0.5 * (kernel.width % 2)
    cell = np.arange(LANES) - (kernel.width - 1) // 2
    table = kernel_value(cell - position, kernel)
    table[:, kernel.width :] = 0
    return np.stack([table[:-1], np.diff(table, axis=0)], axis=1).astype(np.float32)


def kernel_transform(pixels: DoubleArray, kernel: Kernel) -> DoubleArray:
    """Fourier transform of the kernel at image positions in pixels from the centre, by quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    distance = nodes * kernel.width / 2
    values = kernel_value(distance, kernel) * weights * kernel.width / 2
    return np.asarray(np.cos(2 * np.pi / kernel.size * np.outer(pixels, distance)) @ values)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def list_runs(
    step_u: DoubleArray,
    step_v: DoubleArray,
    n_k: int,
    sizes: NDArray[np.int64],
    free: IndexArray,
    runs: IndexArray,
) -> None:
    """Count the runs of every bucket, or list them where `free` says, in the order of their rays."""
    size, width, n_bands = sizes
    n_tiles = size // TILE + 1
    shift = 0.5 * (width % 2)
    for a in range(step_u.size):
        old = -1
        first = 0
        for k in range(n_k + 1):
            t = -1
            if k < n_k:
                cell = int(k * step_u[a] + shift) - (width - 1) // 2
                band = min(max(cell, 0) // BAND, n_bands - 1)
                other = min((cell + width - 1) // BAND, n_bands - 1)
                tile = int(k * step_v[a] + size // 2) // TILE
                t = 2 * (band * n_tiles + tile) + other - band
            if t != old:
                if old >= 0:
                    for i in range(1 + old % 2):
                        bucket = old // 2 + i * n_tiles
                        if runs.size:
                            runs[free[bucket], 0] = a
                            runs[free[bucket], 1] = first
                            runs[free[bucket], 2] = k
                        free[bucket] += 1
                old = t
                first = k


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def look_up(table: FloatArray, step: float) -> Any:
    """The kernel's weights, one in each lane, at a position in steps of its table."""
    row = int(step)
    return straight(load(table, row), np.float32(step - row))


@lru_cache(maxsize=8)
def spreader(width: int) -> Callable[..., None]:
    """The function that adds the samples of a band to its grid, for kernels of this width."""

    @numba.njit(cache=True, nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
    def spread(grid: FloatArray, samples: FloatArray, rays: Rays, band: int) -> None:
        """Add samples (ray, k) to columns (u, v) that begin MARGIN before the band."""
        n_tiles = rays.size // TILE + 1
        stride = grid.shape[1]
        shift = 0.5 * (width % 2)
        corner = (MARGIN - band * BAND) * stride + MARGIN - (stride + 1) * ((width - 1) // 2)
        for r in range(rays.starts[band * n_tiles], rays.starts[(band + 1) * n_tiles]):
            a = rays.runs[r, 0]
            step_u, step_v = rays.step_u[a], rays.step_v[a]
            for k in range(rays.runs[r, 1], rays.runs[r, 2]):
                u = k * step_u + shift
                v = k * step_v + (rays.size // 2 + shift)
                cell_u, cell_v = int(u), int(v)
                weights_u = look_up(rays.table, (u - cell_u) * TABLE_STEPS)
                weights_v = look_up(rays.table, (v - cell_v) * TABLE_STEPS)
                value = load(samples, a * rays.n_k + k)
                target = cell_u * stride + cell_v + corner
                for i in range(width):
                    part = scaled(value, weights_u, i)
                    for j in range(width):
                        at = target + j
                        store(grid, at, load(grid, at) + scaled(part, weights_v, j))
                    target += stride

    return cast(Callable[..., None], spread)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fold(grid: FloatArray, first: int, last: int, size: int) -> None:
    """Return what spilled over the border to where the half plane of a real image holds it.

    Cells beyond either end of v are periodic; cells at -u, and beyond Nyquist, are the conjugates of cells
    inside at -v. The two columns that are their own mirror are doubled, the others holding half of
    a pair.
    """
    stride = size + 2 * MARGIN
    for u in range(grid.shape[0]):
        for m in range(MARGIN):
            low, high = u * stride + m, u * stride + size + m
            store(grid, low + MARGIN, load(grid, low + MARGIN) + load(grid, high + MARGIN))
            store(grid, high, load(grid, high) + load(grid, low))
    if first == 0:
        for m in range(1, MARGIN):
            mirror(grid, MARGIN - m, MARGIN + m, size)
    if last == size // 2 + 1:
        nyquist = MARGIN + size // 2 - first
        for m in range(1, MARGIN):
            mirror(grid, nyquist + m, nyquist - m, size)


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def mirror(grid: FloatArray, source: int, target: int, size: int) -> None:
    """Add the conjugates of a column at -v to another; the origin is at size / 2."""
    stride = size + 2 * MARGIN
    for v in range(size):
        at = target * stride + MARGIN + v
        other = source * stride + MARGIN + (size - v) % size
        store(grid, at, load(grid, at) + conj(load(grid, other)))
