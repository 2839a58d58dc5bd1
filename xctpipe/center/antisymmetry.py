"""How antisymmetric the difference of opposite projections is about each candidate axis.

Projections half a turn apart hold the same line integrals mirrored about the axis, p(a + pi, u) =
p(a, 2c - u), whatever lies outside the view. Were one registered with the mirror image of the other, a static
detector pattern s(u) on both would be registered with its own mirror image. The difference D(u) =
p(a + pi, u) - p(a, u) is free of s, and D(2c - u) = -D(u): so D is compared with its negated mirror image,
band by band, over the columns where both were measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import get_num_threads
from scipy import fft
from scipy import ndimage as ndi

from xctpipe.scan import DoubleArray

LEAST_OVERLAP_FRAC = 0.02
COLS_PER_SAMPLE = 2.7  # of white noise in a band of scale 1: its correlation spreads by 1 / sqrt(samples)
RIM_SCALES = (2.0, 6.0)


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


def antisymmetry_curves(
    difference: Callable[[float], DoubleArray],
    *,
    method: str,
    scales_px: Sequence[float],
    candidates_px: DoubleArray,
) -> Curves:
    """Curves from D at each octave scale.

    Parameters
    ----------
    difference : D (pair, row, col) fit for detail of the given scale in px; pairs are pooled
    scales_px : standard deviations of the Gaussians whose differences are the bands
    candidates_px : ascending multiples of half a column
    """
    rho, samples = [], []
    for scale in scales_px:
        band = _band_pass(difference(scale), scale_px=scale)
        taper = rim_taper(band.shape[-1], scale_px=scale)
        one_rho, overlap_cols = _mirror_correlation(band, taper=taper, at_px=candidates_px)
        rho.append(one_rho)
        samples.append(band.shape[0] * overlap_cols / (2 * COLS_PER_SAMPLE * scale))
    return Curves(method, candidates_px, np.stack(rho, axis=1), np.stack(samples))


def octaves(n_cols: int, *, finest_px: float) -> list[float]:
    """Octave scales from `finest_px` up to what leaves half of the view between the tapered rims."""
    return [s for s in (2.0**k for k in range(16)) if finest_px <= s <= max(n_cols / 24, 1.0)]


def _band_pass(data: DoubleArray, *, scale_px: float) -> DoubleArray:
    fine = ndi.gaussian_filter1d(data, scale_px, axis=-1, mode="nearest")
    band: DoubleArray = fine - ndi.gaussian_filter1d(data, 2 * scale_px, axis=-1, mode="nearest")
    return band


def rim_taper(n_cols: int, *, scale_px: float) -> DoubleArray:
    """Weights of columns: 0 at both rims of the view, 1 from six scales on."""
    # the band-pass lacks neighbours at both rims of the view alike: that would look like an axis
    rim = np.minimum(np.arange(n_cols), np.arange(n_cols)[::-1]) / scale_px
    first, last = RIM_SCALES
    return np.asarray(np.sin(np.pi / 2 * np.clip((rim - first) / (last - first), 0, 1)) ** 2)


def _mirror_correlation(
    band: DoubleArray, *, taper: DoubleArray, at_px: DoubleArray
) -> tuple[DoubleArray, DoubleArray]:
    """(row, candidate) correlation over the overlap, and (candidate,) columns that overlap.

    To correlate with the own mirror image is to convolve with oneself: one transform gives every candidate.
    """
    length = int(fft.next_fast_len(2 * band.shape[-1], real=True))
    index = np.round(2 * at_px).astype(np.intp)
    workers = get_num_threads()
    weight = fft.rfft(taper, length)
    product = (fft.rfft(band * taper, length, axis=-1, workers=workers) ** 2).sum(axis=0)
    energy = (fft.rfft(band**2 * taper, length, axis=-1, workers=workers) * weight).sum(axis=0)
    numerator = -fft.irfft(product, length, axis=-1)[:, index]
    denominator = fft.irfft(energy, length, axis=-1)[:, index]
    overlap = fft.irfft(weight**2, length)[index].clip(min=0)
    floor = np.maximum(1e-3 * denominator.max(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    enough = overlap > LEAST_OVERLAP_FRAC * np.sum(taper**2)
    rho = np.where(enough, numerator / np.maximum(denominator, floor), 0.0)
    return rho, overlap
