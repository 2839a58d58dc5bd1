"""How antisymmetric the difference of opposite projections is about each candidate axis.

Projections half a turn apart hold the same line integrals mirrored about the axis, p(a + pi, u) =
p(a, 2c - u), whatever lies outside the view. Were one registered with the mirror image of the other, a static
detector pattern s(u) on both would be registered with its own mirror image. The difference D(u) =
p(a + pi, u) - p(a, u) is free of s, and D(2c - u) = -D(u): so D is compared with its negated mirror image,
band by band, over the columns where both were measured.

Detail of a scale is compared on columns binned to a quarter of it, which is all it needs; one transform
gives every candidate, between the bins too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from xctpipe.correct.threads import in_threads
from xctpipe.scan import DoubleArray, FloatArray

LEAST_OVERLAP_FRAC = 0.02
COLS_PER_SAMPLE = 2.7  # of white noise in a band of scale 1: its correlation spreads by 1 / sqrt(samples)
RIM_SCALES = (2.0, 6.0)
SCALE_IN_BINS = 4.0
KERNEL_SCALES = 4.0


@dataclass(frozen=True)
class Curves:
    """Agreement of the data with each candidate axis.

    `rho` in [-1, 1] is the correlation of D with its negated mirror image, (row, band, candidate);
    `samples` the number of independent pairs of columns that it rests on, (band, candidate).
    """

    method: str
    candidates_px: DoubleArray
    rho: DoubleArray
    samples: DoubleArray


class Difference(Protocol):
    """D of opposite projections, row by row."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of pairs, rows and columns."""

    @property
    def least_bin_px(self) -> int:
        """Columns that are binned already."""

    def of_row(self, row: int, *, scale_px: float, by_px: int) -> FloatArray:
        """D (pair, column binned by `by_px`) of a row, fit for detail of a scale."""


def antisymmetry_curves(
    difference: Difference, *, method: str, scales_px: Sequence[float], candidates_px: DoubleArray
) -> Curves:
    """Curves from D at each octave scale.

    Parameters
    ----------
    difference : D of the rows; pairs are pooled
    scales_px : standard deviations of the Gaussians whose differences are the bands, powers of two
    candidates_px : ascending multiples of half a column
    """
    n_pairs, n_rows, n_cols = difference.shape
    rho = np.empty((n_rows, len(scales_px), candidates_px.size))
    samples = np.empty((len(scales_px), candidates_px.size))
    for k, scale in enumerate(scales_px):
        by = max(difference.least_bin_px, int(scale / SCALE_IN_BINS), 1)
        mirror = Mirror.of(n_cols, scale_px=scale, by_px=by, at_px=candidates_px)
        kernel = band_kernel(scale / by)

        def rows(
            first: int, last: int, *, k: int = k, mirror: Mirror = mirror, kernel: FloatArray = kernel
        ) -> None:
            for row in range(first, last):
                data = difference.of_row(row, scale_px=mirror.scale_px, by_px=mirror.by_px)
                rho[row, k] = mirror.correlation(band_pass(data, kernel))

        in_threads(rows, n_rows)
        samples[k] = n_pairs * mirror.overlap_px / (2 * COLS_PER_SAMPLE * scale)
    return Curves(method, candidates_px, rho, samples)


def octaves(n_cols: int, *, finest_px: float) -> list[float]:
    """Octave scales from `finest_px` up to what leaves half of the view between the tapered rims."""
    return [s for s in (2.0**k for k in range(16)) if finest_px <= s <= max(n_cols / 24, 1.0)]


def rim_taper(n_cols: int, *, scale_px: float) -> DoubleArray:
    """Weights of columns: 0 at both rims of the view, 1 from six scales on."""
    # the band-pass lacks neighbours at both rims of the view alike: that would look like an axis
    rim = np.minimum(np.arange(n_cols), np.arange(n_cols)[::-1]) / scale_px
    first, last = RIM_SCALES
    return np.asarray(np.sin(np.pi / 2 * np.clip((rim - first) / (last - first), 0, 1)) ** 2)


@dataclass(frozen=True, eq=False)
class Mirror:
    """Correlation of lines with their mirror images about every candidate.

    To correlate with the own mirror image is to convolve with oneself: one transform gives every candidate.
    `length` is that of the transform in bins, `index` where the candidates lie in it, in columns.
    """

    scale_px: float
    by_px: int
    taper: FloatArray
    length: int
    index: NDArray[np.intp]
    weight: NDArray[np.complex128]

    @classmethod
    def of(cls, n_cols: int, *, scale_px: float, by_px: int, at_px: DoubleArray) -> "Mirror":
        """For lines of `n_cols` columns, binned by `by_px`."""
        taper = rim_taper(n_cols // by_px, scale_px=scale_px / by_px)
        length = int(fft.next_fast_len(2 * taper.size, real=True))
        # bins i and j mirror each other about c where their middles add up to 2c: by (i + j) + by - 1
        index = (np.round(2 * at_px).astype(np.intp) - (by_px - 1)) % (length * by_px)
        return cls(scale_px, by_px, taper.astype(np.float32), length, index, fft.rfft(taper, length))

    @cached_property
    def overlap_px(self) -> DoubleArray:
        """Columns that overlap at each candidate."""
        return np.asarray(self.at_candidates(self.weight**2).clip(min=0) * self.by_px)

    @cached_property
    def enough(self) -> NDArray[np.bool_]:
        """At which candidates more than next to nothing overlaps."""
        least = LEAST_OVERLAP_FRAC * float(np.sum(self.taper**2)) * self.by_px
        return np.asarray(self.overlap_px > least)

    def at_candidates(self, spectrum: NDArray[np.complex128]) -> DoubleArray:
        """Inverse transform where the candidates lie, between the bins too."""
        fine = fft.irfft(spectrum, self.length * self.by_px)
        return np.asarray(fine[self.index] * self.by_px)

    def correlation(self, band: FloatArray) -> DoubleArray:
        """Of lines (pair, bin) with their negated mirror images, over the overlap: (candidate,)."""
        spectrum = fft.rfft(band * self.taper, self.length, axis=-1)
        product = np.einsum("ij,ij->j", spectrum, spectrum, dtype=np.complex128)
        power = np.einsum("ij,ij->j", band, band, dtype=np.float64)
        energy = self.energy(power)
        floor = max(1e-3 * float(energy.max()), float(np.finfo(np.float64).tiny))
        return np.where(self.enough, -self.at_candidates(product) / np.maximum(energy, floor), 0.0)

    def energy(self, power: DoubleArray) -> DoubleArray:
        """Sum of the power (bin,) of lines over the overlap at each candidate."""
        return self.at_candidates(fft.rfft(power * self.taper, self.length) * self.weight)


def band_kernel(scale: float) -> FloatArray:
    """Difference of the Gaussians of `scale` and twice that: odd length, symmetric, of zero sum."""
    reach = int(2 * KERNEL_SCALES * scale + 0.5)
    at = np.arange(-reach, reach + 1)
    fine, coarse = (np.exp(-0.5 * (at / width) ** 2) for width in (scale, 2 * scale))
    return np.asarray(fine / fine.sum() - coarse / coarse.sum(), np.float32)


@numba.njit(cache=True, nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def band_pass(lines: FloatArray, kernel: FloatArray) -> FloatArray:
    """Each of the lines filtered by a symmetric kernel, continued by its ends."""
    n_lines, n_cols = lines.shape
    reach = kernel.size // 2
    out = np.zeros((n_lines, n_cols), np.float32)
    padded = np.empty(n_cols + 2 * reach, np.float32)
    for i in range(n_lines):
        line = out[i]
        padded[:reach] = lines[i, 0]
        padded[reach : reach + n_cols] = lines[i]
        padded[reach + n_cols :] = lines[i, n_cols - 1]
        middle = padded[reach : reach + n_cols]
        for j in range(n_cols):
            line[j] = kernel[reach] * middle[j]
        for k in range(reach):
            left, right, weight = padded[k : k + n_cols], padded[2 * reach - k :], kernel[k]
            for j in range(n_cols):
                line[j] += weight * (left[j] + right[j])
    return out


def binned(lines: FloatArray, *, by: int) -> FloatArray:
    """Means of `by` neighbouring columns; what is left over at the end is cut."""
    if by == 1:
        return lines
    used = lines.shape[-1] // by * by
    return np.asarray(lines[..., :used].reshape(*lines.shape[:-1], -1, by).mean(axis=-1, dtype=np.float32))
