"""Axis from the double wedge that a whole turn of a sinogram occupies in Fourier space.

A sinogram over a whole turn has next to no energy at harmonics of the angle above 2 pi f r, for detail of
frequency f (cycles/px) within r of the axis [1]_. Half a turn joined to its own mirror image is that whole
turn only if mirrored about the right column; about another one the seam is a jump, whose harmonics fall off
as 1/v and leak outside the wedge. Vo et al. mirror about each candidate and take the mean modulus there.

Two things are done otherwise. Only harmonics of period pi are used: a static detector pattern s(u) makes a
jump s(u) - s(2c - u) between the halves, which has odd harmonics of the whole turn and no others, so stripes
need not be removed first. Left in, they draw the mean modulus tens of px away in rows of low contrast;
filters that remove them take the high-passed angular mean of the sample along, and leave a static negative of
it that is not symmetric about the axis and moves the minimum (by 0.5 px in simulated interior scans, by 1 px
after a chain of stripe filters). And the jump is solved for by least squares over the harmonics outside the
wedge instead of summing moduli: it keeps its sign, all frames add up coherently, and one transform serves
every candidate.

References
----------
.. [1] Vo et al., Opt. Express 22, 19078 (2014), doi:10.1364/OE.22.019078
"""

import numpy as np
from numba import get_num_threads
from scipy import fft

from xctpipe.center.angles import uniform_grid
from xctpipe.center.antisymmetry import Curves, antisymmetry_curves, octaves
from xctpipe.scan import DoubleArray, FloatArray

FEWEST_ANGLES = 24
LOWEST_HARMONIC = 3
WEDGE_MARGIN = 1.5
BAND_MIDDLE = 0.2


def wedge_curves(slab: FloatArray, *, angles_rad: DoubleArray, candidates_px: DoubleArray) -> Curves | None:
    """Antisymmetry of the jump at the seam of each half turn, or None when there are too few angles for it.

    Parameters
    ----------
    slab : (angle, row, col) line integrals, finite
    angles_rad : ascending; one half turn is used, or two if there are two
    candidates_px : ascending multiples of half a column
    """
    grids = _half_turn_grids(angles_rad)
    if not grids:
        return None
    finest = BAND_MIDDLE / _highest_cycles_px(grids[0].size, n_cols=slab.shape[2])
    scales = octaves(slab.shape[2], finest_px=max(1.0, finest))
    if not scales:
        return None
    jumps = np.stack(
        [[_jump(slab[:, i], angles_rad=angles_rad, grid_rad=g) for i in range(slab.shape[1])] for g in grids]
    )
    return antisymmetry_curves(lambda _: jumps, method="wedge", scales_px=scales, candidates_px=candidates_px)


def _half_turn_grids(angles_rad: DoubleArray) -> list[DoubleArray]:
    halves = [angles_rad[angles_rad <= angles_rad[0] + np.pi]]
    rest = angles_rad[angles_rad >= angles_rad[0] + np.pi]
    if rest.size >= 0.9 * halves[0].size:
        halves.append(rest)
    grids = [uniform_grid(half) for half in halves if half.size >= FEWEST_ANGLES]
    return [grid for grid in grids if grid.size >= FEWEST_ANGLES]


def _highest_cycles_px(n_angles: int, *, n_cols: int) -> float:
    """Frequency above which no measured harmonic lies outside the wedge of the view."""
    return (n_angles / 2 - 1) / (WEDGE_MARGIN * np.pi * n_cols / 2)


def _resampled(sino: FloatArray, *, angles_rad: DoubleArray, grid_rad: DoubleArray) -> FloatArray:
    after = np.searchsorted(angles_rad, grid_rad).clip(1, angles_rad.size - 1)
    gap = angles_rad[after] - angles_rad[after - 1]
    part = (grid_rad - angles_rad[after - 1]) / np.where(gap > 0, gap, 1.0)
    weight = part.clip(0, 1).astype(np.float32)[:, None]
    even: FloatArray = sino[after - 1] * (1 - weight)
    even += sino[after] * weight
    return even


def _jump(sino: FloatArray, *, angles_rad: DoubleArray, grid_rad: DoubleArray) -> DoubleArray:
    """Value at the end of the half turn minus value at its start, (col,): least squares outside the wedge.

    The sawtooth is the periodic function that jumps by one; a step in slope is even in the harmonic and
    therefore orthogonal to it. The jump is returned in units of its standard deviation at each frequency:
    fine detail has few harmonics to rest on, and what it lacks must not pass for signal.
    """
    even = _resampled(sino, angles_rad=angles_rad, grid_rad=grid_rad)
    even -= even.mean(axis=0)
    n_angles, n_cols = even.shape
    length = int(fft.next_fast_len(n_cols + n_cols // 8, real=True))
    workers = get_num_threads()
    n_freq = min(length // 2, int(_highest_cycles_px(n_angles, n_cols=n_cols) * length)) + 1
    spectrum = fft.rfft(even, length, axis=1, workers=workers)[:, :n_freq]
    spectrum = fft.fft(spectrum, axis=0, workers=workers)
    harmonic = np.arange(1, (n_angles - 1) // 2 + 1)
    sawtooth = fft.fft((np.arange(n_angles) + 0.5) / n_angles)[harmonic]
    cycles_px = np.arange(n_freq) / length
    first = np.maximum(LOWEST_HARMONIC, WEDGE_MARGIN * np.pi * cycles_px * n_cols / 2)
    outside = (harmonic[:, None] >= first).astype(np.float32)
    norm = 2 * (np.abs(sawtooth) ** 2 @ outside)
    kernel = (np.conj(sawtooth)[:, None] * outside).astype(np.complex64)
    found = (kernel * spectrum[harmonic] + np.conj(kernel) * spectrum[-harmonic]).sum(axis=0)
    jump = np.where(norm > 0, found / np.sqrt(np.where(norm > 0, norm, 1.0)), 0.0)
    column: DoubleArray = fft.irfft(jump, length)[:n_cols].astype(np.float64)
    return column
