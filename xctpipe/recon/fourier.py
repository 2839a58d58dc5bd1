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
from functools import lru_cache
from typing import Annotated

import numba
import numpy as np
from annotated_types import Ge, Le

from xctpipe.recon.filtering import WINDOWS
from xctpipe.recon.geometry import Geometry
from xctpipe.recon.gridding import (
    BAND,
    TILE,
    Plan,
    band_shape,
    bands_of,
    fold,
    kernel_for,
    make_plan,
    spreader,
)
from xctpipe.recon.inversion import LINE_BLOCK, Image, columns, image_for, write_lines
from xctpipe.recon.lanes import LANES, empty
from xctpipe.recon.polar import Rows, Turns, padded_length, period_of, rows_for, sample, turns_for
from xctpipe.scan import DoubleArray, FloatArray

FILTERS = WINDOWS
ANGLE_BLOCK = 8
LINES_AT_ONCE = 8
"""Projections and image lines in one task."""

Pool = Callable[[Callable[[int], None], Iterable[int]], None]


def available() -> str | None:
    """None: it needs nothing beyond what xctpipe needs."""
    return None


def reconstruct(
    sinograms: FloatArray,
    *,
    geometry: Geometry,
    filter_name: str,
    padding: str,
    tolerance: Annotated[float, Ge(2e-5), Le(1e-2)] = 2e-4,
) -> FloatArray:
    """Slices (row, y, x) in cm^-1 of sinograms (angle, row, col), a batch at a time.

    `tolerance` is the error of gridding: rms, relative to the slice of white noise.
    """
    n_angles, n_rows, n_cols = sinograms.shape
    plan = plan_of(geometry.angles_rad.tobytes(), n_cols, tolerance)
    image = image_for(n_cols, plan.kernel)
    turns = turns_for(geometry, n_cols=n_cols)
    volume = np.zeros((n_rows, n_cols, n_cols), np.float32)
    samples = empty(n_angles, plan.rays.n_k)
    lines = empty(plan.kernel.size // 2 + 1, n_cols)
    if sinograms.strides[2] != sinograms.itemsize:
        sinograms = np.ascontiguousarray(sinograms)
    # a view with strides whatever the slab is, so that kernels are compiled for one kind of array
    backwards = np.asarray(sinograms, np.float32)[::-1]
    with threads() as run:
        for part in batches(geometry.centers_px, n_cols=n_cols):
            rows = rows_for(
                geometry.centers_px[part], n_cols=n_cols, filter_name=filter_name, padding=padding
            )
            sample_rows(backwards[:, part], samples, rows=rows, turns=turns, run=run)
            grid_samples(samples, lines, plan=plan, image=image, run=run)
            invert(lines, volume[part], image=image, run=run)
    return volume


def working_bytes(*, n_angles: int, n_rows: int, n_cols: int, n_threads: int, tolerance: float = 2e-4) -> int:
    """Bytes that `reconstruct` needs beyond its argument, its result included."""
    size, period = kernel_for(n_cols, tolerance=tolerance).size, period_of(n_cols)
    padded = padded_length(n_cols, n_cols / 2)
    number = 8 * LANES
    samples = n_angles * (period // 2 + 1)
    lines = n_cols * (size // 2 + 1)
    grids = min(n_threads, len(bands_of(size))) * (math.prod(band_shape(size)) + size)
    scratch = max(grids, n_threads * padded, n_threads * (LINE_BLOCK + 2) * (size // 2 + 1))
    tables = 4 * number * period + 24 * padded + 12 * size
    runs = 12 * n_angles * (size // (2 * BAND) + size // TILE + 2) + 120 * n_angles
    return 4 * n_rows * n_cols**2 + number * (samples + lines + scratch) + tables + runs + 2**18


class Scratch:
    """Arrays that tasks borrow, as many as run at a time, so that each finds them in a cache."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        self._shapes = shapes
        self._free: list[tuple[FloatArray, ...]] = []

    @contextmanager
    def borrowed(self) -> Iterator[tuple[FloatArray, ...]]:
        """Arrays for one task, not initialised."""
        try:
            arrays = self._free.pop()
        except IndexError:
            arrays = tuple(empty(*shape) for shape in self._shapes)
        yield arrays
        self._free.append(arrays)


def batches(centers_px: DoubleArray, *, n_cols: int) -> Iterator[slice]:
    """Rows that are done together: neighbours that are padded alike, as many as there are lanes."""
    lengths = [padded_length(n_cols, center) for center in centers_px]
    first = 0
    for row in range(1, len(lengths) + 1):
        if row == len(lengths) or row - first == LANES or lengths[row] != lengths[first]:
            yield slice(first, row)
            first = row


@lru_cache(maxsize=2)
def plan_of(angles: bytes, n_cols: int, tolerance: float) -> Plan:
    """Plan of a scan, kept for the slabs that follow."""
    return make_plan(np.frombuffer(angles), n_cols=n_cols, period_px=period_of(n_cols), tolerance=tolerance)


@contextmanager
def threads() -> Iterator[Pool]:
    """A function that runs a task for every item on as many threads as numba would use."""
    with ThreadPoolExecutor(numba.get_num_threads()) as pool:

        def run(task: Callable[[int], None], items: Iterable[int]) -> None:
            for _ in pool.map(task, items):
                pass

        yield run


def sample_rows(backwards: FloatArray, samples: FloatArray, *, rows: Rows, turns: Turns, run: Pool) -> None:
    """Samples (angle, frequency) of the rows of a batch, given with the last angle first."""
    n_angles = samples.shape[0]
    scratch = Scratch(rows.own.shape, rows.own.shape, (2,))

    def block(first: int) -> None:
        with scratch.borrowed() as arrays:
            sample(backwards, first, min(first + ANGLE_BLOCK, n_angles), rows, turns, samples, arrays)

    run(block, range(0, n_angles, ANGLE_BLOCK))


def grid_samples(samples: FloatArray, lines: FloatArray, *, plan: Plan, image: Image, run: Pool) -> None:
    """Grid the samples and transform along v: spectra of the image's lines, (u, y)."""
    size = plan.kernel.size
    bands = bands_of(size)
    scratch = Scratch(band_shape(size), (size,))
    spread = spreader(plan.kernel.width)

    def band(b: int) -> None:
        with scratch.borrowed() as (grid, free):
            grid[:] = 0
            spread(grid, samples, plan.rays, b)
            fold(grid, *bands[b], size)
            columns(grid, free, bands[b], image, lines)

    run(band, range(len(bands)))


def invert(lines: FloatArray, volume: FloatArray, *, image: Image, run: Pool) -> None:
    """Slices from the spectra of their lines."""
    n_u, n_cols = lines.shape[:2]
    scratch = Scratch((LINE_BLOCK, n_u), (n_u,), (n_u - 1,))

    def block(first: int) -> None:
        with scratch.borrowed() as arrays:
            write_lines(lines, first, min(first + LINES_AT_ONCE, n_cols), image, volume, arrays)

    run(block, range(0, n_cols, LINES_AT_ONCE))
