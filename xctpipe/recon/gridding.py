"""Polar samples onto a Cartesian grid: the adjoint non-uniform FFT of a parallel-beam scan, in parts.

The grid is half a plane of frequencies, laid out (u, v, lane): a batch of slices shares the geometry, and
lies innermost so that one point is six contiguous runs of multiply-adds. A ray with cos a < 0 is
taken at its opposite, conjugated, so that u >= 0; its slice is the real part of the sum.
"""

from dataclasses import dataclass

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from xctpipe.scan import DoubleArray

ComplexArray = NDArray[np.complex64]
IndexArray = NDArray[np.int32]

LANES = (4, 16)
"""Slices gridded together: the few of a trial, or a batch. Each lane is computed alike in both."""
WIDTH = 6
"""Kernel width in grid cells."""
OVERSAMPLING = 1.4
TILE = 32
"""Side in cells of the tiles: their work stays in the cache of one core."""
MARGIN = 4
"""Cells around the grid for what the kernel spills over its border."""
TABLE_STEPS = 512
UINT = np.uint64


@dataclass(frozen=True, eq=False)
class Plan:
    """Where the samples of a scan go on the grid; the same for all slices.

    Sample k of ray a is at cell k * (step_u[a], step_v[a]), k = 0..n_k - 1, the origin being
    the cell (0, size / 2). `tiles` lists by colour the tiles that hold samples; a tile's samples are the
    runs [starts[t], starts[t + 1]) of `runs`: (ray, first k, one past the last k).
    """

    size: int
    n_k: int
    step_u: DoubleArray
    step_v: DoubleArray
    tiles: tuple[IndexArray, ...]
    costs: tuple[DoubleArray, ...]
    starts: IndexArray
    runs: IndexArray
    table: NDArray[np.float32]


def grid_shape(size: int, *, lanes: int) -> tuple[int, int, int]:
    """Shape (u, v, lane) of a grid with its margins."""
    return size // 2 + 1 + 2 * MARGIN, size + 2 * MARGIN, lanes


def grid_size(n_cols: int) -> int:
    """Cells along v of the grid for slices of this width; even."""
    return 2 * int(scipy.fft.next_fast_len(int(np.ceil(OVERSAMPLING * max(n_cols, 2 * WIDTH) / 2))))


def make_plan(angles_rad: DoubleArray, *, n_cols: int, period_px: int) -> Plan:
    """Plan for samples at the frequencies k / period_px, k = 0..period_px / 2, of every ray."""
    size = grid_size(n_cols)
    cells = size / period_px
    mirror = np.where(np.cos(angles_rad) < 0, -1.0, 1.0)
    step_u = mirror * np.cos(angles_rad) * cells
    step_v = -mirror * np.sin(angles_rad) * cells
    n_k = period_px // 2 + 1
    side = size // TILE + 1
    counts, lengths = count_runs(step_u, step_v, n_k, size // 2, side)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    runs = list_runs(step_u, step_v, n_k, size // 2, side, starts)
    tile = np.flatnonzero(counts).astype(np.int32)
    colour = 2 * (tile // side % 2) + tile % side % 2
    tiles = tuple(tile[colour == c] for c in range(4))
    costs = tuple(lengths[t] + float(TILE * TILE) / WIDTH for t in tiles)
    return Plan(size, n_k, step_u, step_v, tiles, costs, starts, runs, kernel_table())


def kernel(distance_cells: DoubleArray) -> DoubleArray:
    """Exponential of semicircle [1]_ at distances up to WIDTH / 2, zero beyond.

    References
    ----------
    .. [1] Barnett, Magland & af Klinteberg, SIAM J. Sci. Comput. 41, C479 (2019), doi:10.1137/18M120885X
    """
    beta = 0.97 * np.pi * WIDTH * (1 - 1 / (2 * OVERSAMPLING))
    inside = 1 - (2 * distance_cells / WIDTH) ** 2
    return np.where(inside >= 0, np.exp(beta * (np.sqrt(np.maximum(inside, 0)) - 1)), 0.0)


def kernel_table() -> NDArray[np.float32]:
    """Kernel at the WIDTH cells around a point, by the point's position between cells: (step, cell)."""
    position = np.arange(TABLE_STEPS + 1)[:, None] / TABLE_STEPS
    cell = np.arange(WIDTH) - (WIDTH // 2 - 1)
    return kernel(cell - position).astype(np.float32)


def kernel_transform(pixels: DoubleArray, *, size: int) -> DoubleArray:
    """Fourier transform of the kernel at image positions in pixels from the centre, by quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(64)
    distance = nodes * WIDTH / 2
    values = kernel(distance) * weights * WIDTH / 2
    return np.asarray(np.cos(2 * np.pi / size * np.outer(pixels, distance)) @ values)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def count_runs(
    step_u: DoubleArray, step_v: DoubleArray, n_k: int, half: int, side: int
) -> tuple[IndexArray, DoubleArray]:
    """Runs and samples in each tile."""
    counts = np.zeros(side * side, np.int32)
    lengths = np.zeros(side * side, np.float64)
    for a in range(step_u.size):
        last = -1
        for k in range(n_k):
            t = (int(k * step_u[a]) // TILE) * side + int(k * step_v[a] + half) // TILE
            lengths[t] += 1
            if t != last:
                counts[t] += 1
                last = t
    return counts, lengths


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def list_runs(
    step_u: DoubleArray, step_v: DoubleArray, n_k: int, half: int, side: int, starts: IndexArray
) -> IndexArray:
    """Runs of every tile in the order of their rays: (run, (ray, first, one past the last))."""
    runs = np.empty((starts[-1], 3), np.int32)
    free = starts.copy()
    for a in range(step_u.size):
        last = -1
        for k in range(n_k):
            t = (int(k * step_u[a]) // TILE) * side + int(k * step_v[a] + half) // TILE
            if t != last:
                runs[free[t], 0] = a
                runs[free[t], 1] = k
                free[t] += 1
                last = t
            runs[free[t] - 1, 2] = k + 1
    return runs


@numba.njit(cache=True, nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def spread(
    grid: NDArray[np.float32],
    samples: NDArray[np.float32],
    tiles: IndexArray,
    starts: IndexArray,
    runs: IndexArray,
    step_u: DoubleArray,
    step_v: DoubleArray,
    table: NDArray[np.float32],
) -> None:
    """Add the samples of these tiles to the grid.

    `grid` is (u, v, lane and part), `samples` (ray, k, lane and part), both float32. Tiles of one colour
    are a tile apart, further than the kernel reaches, so they may be done at the same time.
    """
    # Unsigned indices and flat arrays: without wrap-around checks the inner loops become vector code.
    floats = UINT(samples.shape[2])
    stride = UINT(grid.shape[1]) * floats
    half = (grid.shape[1] - 2 * MARGIN) // 2
    corner = UINT(MARGIN - WIDTH // 2 + 1)
    flat_grid, flat_samples, flat_table = grid.reshape(-1), samples.reshape(-1), table.reshape(-1)
    weights_u = np.empty(WIDTH, np.float32)
    weights_v = np.empty(WIDTH, np.float32)
    strip = np.empty(WIDTH * samples.shape[2], np.float32)
    for t in tiles:
        for r in range(starts[t], starts[t + 1]):
            a = runs[r, 0]
            for k in range(runs[r, 1], runs[r, 2]):
                cell_u = look_up(k * step_u[a], flat_table, weights_u)
                cell_v = look_up(k * step_v[a] + half, flat_table, weights_v)
                source = UINT(a * samples.shape[1] + k) * floats
                for j in range(UINT(WIDTH)):
                    w = weights_v[j]
                    for i in range(floats):
                        strip[j * floats + i] = w * flat_samples[source + i]
                target = (cell_u + corner) * stride + (cell_v + corner) * floats
                for j in range(UINT(WIDTH)):
                    w = weights_u[j]
                    for i in range(UINT(WIDTH) * floats):
                        flat_grid[target + i] += w * strip[i]
                    target += stride


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def look_up(position: float, flat_table: NDArray[np.float32], weights: NDArray[np.float32]) -> np.uint64:
    """Cell of a position, and the kernel's weights at the cells about it."""
    cell = UINT(position)
    step = (position - cell) * TABLE_STEPS
    row = UINT(step)
    fraction = np.float32(step - row)
    for j in range(UINT(WIDTH)):
        i = row * UINT(WIDTH) + j
        weights[j] = flat_table[i] + fraction * (flat_table[i + UINT(WIDTH)] - flat_table[i])
    return cell


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fold_columns(grid: ComplexArray) -> None:
    """Return what spilled over the border to where the half plane of a real image holds it.

    Cells beyond either end of v are periodic; cells at -u, and beyond Nyquist, are the conjugates of cells
    inside at -v. The two columns that are their own mirror are doubled, the others holding half of
    a pair.
    """
    size = grid.shape[1] - 2 * MARGIN
    last = MARGIN + size // 2
    for u in range(grid.shape[0]):
        for m in range(MARGIN):
            grid[u, MARGIN + m] += grid[u, MARGIN + size + m]
            grid[u, size + m] += grid[u, m]
    for m in range(1, MARGIN):
        for v in range(size):
            # size even: the origin is at size / 2, so -v is at (size - v) modulo size
            mirrored = MARGIN + (size - v) % size
            grid[MARGIN + m, MARGIN + v] += np.conj(grid[MARGIN - m, mirrored])
            grid[last - m, MARGIN + v] += np.conj(grid[last + m, mirrored])
    grid[MARGIN] *= 2
    grid[last] *= 2
