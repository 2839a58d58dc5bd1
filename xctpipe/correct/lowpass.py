"""Slow parts of a sinogram, along angle and across columns, that keep a constant as it is."""

import math

import numpy as np
from scipy import fft

from xctpipe.scan import DoubleArray, FloatArray

_KERNEL_SIGMAS = 4


def padded_length(n: int) -> int:
    """Length that periods are counted over: n and what algotom adds for its transforms."""
    return n + 2 * min(150, n // 10)


def along_angles(sinogram: FloatArray, response: DoubleArray) -> FloatArray:
    """Filter (angle, col) along angle: `response` (angle,) is the gain at k / (2 (angle - 1)) cycles a frame.

    Beyond the first and the last frame a column is its mirror image, so that no end sees the other.
    """
    if sinogram.shape[0] < 2:
        return sinogram.copy()
    spectrum = fft.dct(sinogram, type=1, axis=0)
    spectrum *= response[:, None].astype(np.float32)
    return np.asarray(fft.idct(spectrum, type=1, axis=0, overwrite_x=True), np.float32)


def gaussian_along_angles(n_frames: int, *, sigma_periods: float) -> DoubleArray:
    """Response for `along_angles` of a Gaussian window `sigma_periods` wide, 1 at zero: (angle,)."""
    periods = np.arange(n_frames) * padded_length(n_frames) / max(2 * (n_frames - 1), 1)
    return np.asarray(np.exp(-0.5 * (periods / sigma_periods) ** 2))


def gaussian_across_columns(sinogram: FloatArray, *, sigma_periods: float) -> FloatArray:
    """Smooth (angle, col) across columns by a Gaussian window in frequency; edges go on as they end."""
    width = sinogram.shape[1]
    pad = math.ceil(_KERNEL_SIGMAS * padded_length(width) / (2 * math.pi * sigma_periods))
    n = fft.next_fast_len(width + 2 * pad, real=True)
    spectrum = fft.rfft(np.pad(sinogram, ((0, 0), (pad, n - width - pad)), mode="edge"), axis=1)
    periods = np.arange(spectrum.shape[1]) * padded_length(width) / n
    spectrum *= np.exp(-0.5 * (periods / sigma_periods) ** 2).astype(np.float32)
    return np.asarray(fft.irfft(spectrum, n, axis=1)[:, pad : pad + width], np.float32)
