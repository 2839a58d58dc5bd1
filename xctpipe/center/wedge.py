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
every candidate. That sum over harmonics is, by Parseval's theorem, one over angles with a weight for each
angle and frequency, the same for every row: no row is transformed over angle.

References
----------
.. [1] Vo et al., Opt. Express 22, 19078 (2014), doi:10.1364/OE.22.019078
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from xctpipe.center.angles import uniform_grid
from xctpipe.center.antisymmetry import Curves, antisymmetry_curves, binned, octaves
from xctpipe.correct.threads import in_threads
from xctpipe.scan import DoubleArray, FloatArray

FEWEST_ANGLES = 24
LOWEST_HARMONIC = 3
WEDGE_MARGIN = 1.5
BAND_MIDDLE = 0.2
FRAMES_AT_ONCE = 128
FEWEST_BINS = 512


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
    by_px = _by_px(slab.shape[2], scale_px=scales[0])
    seams = [_Seam.of(angles_rad, grid, n_cols=slab.shape[2], by_px=by_px) for grid in grids]
    jumps = np.empty((len(seams), slab.shape[1], slab.shape[2] // by_px), np.float32)

    def rows(first: int, last: int) -> None:
        for row in range(first, last):
            for seam, jump in zip(seams, jumps, strict=True):
                jump[row] = seam.jump(slab, row=row)

    in_threads(rows, slab.shape[1])
    return antisymmetry_curves(
        _Jumps(jumps, slab.shape[2], by_px),
        method="wedge",
        scales_px=scales,
        candidates_px=candidates_px,
    )


@dataclass(frozen=True, eq=False)
class _Jumps:
    """Jumps (seam, row, bin) at the seams, of columns binned by `least_bin_px`."""

    jumps: FloatArray
    n_cols: int
    least_bin_px: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of seams, rows and columns."""
        return self.jumps.shape[0], self.jumps.shape[1], self.n_cols

    def of_row(self, row: int, *, scale_px: float, by_px: int) -> FloatArray:
        """Jumps of a row, the same for every scale."""
        return binned(np.ascontiguousarray(self.jumps[:, row]), by=by_px // self.least_bin_px)


def _by_px(n_cols: int, *, scale_px: float) -> int:
    """Columns binned before the transform: bands keep little of what is lost; a narrow view loses nothing."""
    most = max(1, min(int(scale_px), n_cols // FEWEST_BINS))
    return int(2 ** (most.bit_length() - 1))


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


@dataclass(frozen=True, eq=False)
class _Seam:
    """What makes the jump at the end of one half turn out of frames: the same for every row.

    Frames are interpolated to an even grid of angles, `(1 - part) * frame[after - 1] + part * frame[after]`,
    and each frequency of the columns summed over it with its own `weight` (angle, frequency).
    """

    after: NDArray[np.intp]
    part: FloatArray
    weight: FloatArray
    length: int
    by_px: int

    @classmethod
    def of(cls, angles_rad: DoubleArray, grid_rad: DoubleArray, *, n_cols: int, by_px: int) -> "_Seam":
        """Least squares over the harmonics outside the wedge.

        The sawtooth is the periodic function that jumps by one; a step in slope is even in the harmonic and
        therefore orthogonal to it. The jump is weighted to be in units of its standard deviation at each
        frequency: fine detail has few harmonics to rest on, and what it lacks must not pass for signal.
        """
        after = np.searchsorted(angles_rad, grid_rad).clip(1, angles_rad.size - 1)
        gap = angles_rad[after] - angles_rad[after - 1]
        part = ((grid_rad - angles_rad[after - 1]) / np.where(gap > 0, gap, 1.0)).clip(0, 1)
        n_angles, n_bins = grid_rad.size, n_cols // by_px
        length = int(fft.next_fast_len(n_bins + n_bins // 8, real=True))
        n_freq = min(length // 2, int(_highest_cycles_px(n_angles, n_cols=n_cols) * by_px * length)) + 1
        harmonic = np.arange((n_angles - 1) // 2 + 1)
        sawtooth = fft.fft((np.arange(n_angles) + 0.5) / n_angles)[harmonic]
        first = np.maximum(
            LOWEST_HARMONIC, WEDGE_MARGIN * np.pi * _cycles_px(n_freq, length * by_px) * n_cols / 2
        )
        outside = (harmonic[:, None] >= first).astype(np.float32)
        norm = 2 * (np.abs(sawtooth) ** 2 @ outside)
        scale = np.where(norm > 0, n_angles / np.sqrt(np.where(norm > 0, norm, 1.0)), 0.0)
        kernel = sawtooth.astype(np.complex64)[:, None] * outside
        weight = fft.irfft(kernel, n_angles, axis=0, workers=numba.get_num_threads())
        weight *= scale.astype(np.float32)
        return cls(after, part.astype(np.float32), weight, length, by_px)

    def jump(self, slab: FloatArray, *, row: int) -> FloatArray:
        """Value at the end of the half turn minus value at its start: (bin,)."""
        n_bins = slab.shape[2] // self.by_px
        total = np.zeros(2 * self.weight.shape[1])
        for first in range(0, self.after.size, FRAMES_AT_ONCE):
            some = slice(first, first + FRAMES_AT_ONCE)
            even = _even(slab, row, self.after[some], self.part[some], self.by_px)
            spectrum = fft.rfft(even, self.length, axis=1)
            _add_weighted(spectrum.view(np.float32), self.weight[some], total)
        jump = fft.irfft(total.view(np.complex128), self.length)
        return np.asarray(jump[:n_bins], np.float32)


def _cycles_px(n_freq: int, length_px: int) -> DoubleArray:
    return np.arange(n_freq) / length_px


@numba.njit(cache=True, nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def _even(slab: FloatArray, row: int, after: NDArray[np.intp], part: FloatArray, by: int) -> FloatArray:
    """Frames between measured ones, their columns binned: (angle, bin)."""
    n_bins = slab.shape[2] // by
    out = np.empty((after.size, n_bins), np.float32)
    mixed = np.empty(slab.shape[2], np.float32)
    scale = np.float32(1.0) / np.float32(by)
    for i in range(after.size):
        before, behind, line = slab[after[i] - 1, row], slab[after[i], row], out[i]
        right = part[i]
        left = np.float32(1.0) - right
        for j in range(mixed.size):
            mixed[j] = left * before[j] + right * behind[j]
        for j in range(n_bins):
            total = np.float32(0.0)
            for k in range(by):
                total += mixed[j * by + k]
            line[j] = scale * total
    return out


@numba.njit(cache=True, nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def _add_weighted(parts: FloatArray, weight: FloatArray, total: DoubleArray) -> None:
    """Add spectra (angle, real and imaginary parts), each frequency by its weight in that angle."""
    for i in range(weight.shape[0]):
        line, factor = parts[i], weight[i]
        for f in range(factor.size):
            total[2 * f] += factor[f] * line[2 * f]
            total[2 * f + 1] += factor[f] * line[2 * f + 1]
