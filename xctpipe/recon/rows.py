"""Rows as back-projection wants them: continued beyond the detector, filtered, cut about the axis."""

import numpy as np
import scipy.fft

from xctpipe.recon.filtering import continuation, edge_weights, ramp, window
from xctpipe.scan import DoubleArray, FloatArray

MARGIN_PX = 2
"""Columns beyond the circle that interpolation may look at."""
ANGLE_BLOCK = 64
"""Projections that are filtered together: scratch of some megabytes."""


def continued(rows: FloatArray, *, padding: str) -> FloatArray:
    """Rows (angle, col) with their continuation on both sides, without the zeros that follow it."""
    n_cols = rows.shape[1]
    profile = continuation(n_cols, padding=padding)
    if profile.size == 0:
        return rows.astype(np.float32)
    weights = edge_weights(n_cols)
    first = rows[:, : weights.size] @ weights
    last = rows[:, ::-1][:, : weights.size] @ weights
    parts = (first[:, None] * profile[::-1], rows, last[:, None] * profile)
    return np.concatenate(parts, axis=1, dtype=np.float32)


def window_about(center_px: float, *, n_cols: int) -> tuple[int, int]:
    """First column and number of the columns onto which the circle is projected, wherever the axis is."""
    half = -(-n_cols // 2) + MARGIN_PX
    return round(center_px) - half, 2 * half + 1


def filtered(
    rows: FloatArray,
    *,
    center_px: float,
    filter_name: str,
    padding: str,
    shift_px: DoubleArray | None = None,
) -> tuple[FloatArray, int]:
    """Ramp-filtered rows (angle, col) where the circle about the axis is projected, and their first column.

    The filter is exact: its transform is long enough for nothing to wrap around. `shift_px` (angle,) moves
    each row to higher columns.
    """
    first, width = window_about(center_px, n_cols=rows.shape[1])
    reach = continued(rows[:1], padding=padding).shape[1] - rows.shape[1]
    n_in = rows.shape[1] + reach
    n_fft = fft_length(n_in + width - 1)
    # output column q needs the lags first + reach / 2 + q - m of the inputs m
    lags = np.concatenate([np.arange(n_fft - n_in + 1), np.arange(1 - n_in, 0)])
    frequency = scipy.fft.rfftfreq(n_fft)
    response = scipy.fft.rfft(ramp(lags + first + reach // 2))
    response *= window(2 * frequency, filter_name=filter_name)
    out = np.empty((rows.shape[0], width), np.float32)
    for start in range(0, rows.shape[0], ANGLE_BLOCK):
        part = slice(start, start + ANGLE_BLOCK)
        spectra = scipy.fft.rfft(continued(rows[part], padding=padding), n_fft)
        spectra *= response.astype(np.complex64)
        if shift_px is not None:
            spectra *= np.exp(-2j * np.pi * shift_px[part, None] * frequency).astype(np.complex64)
        out[part] = scipy.fft.irfft(spectra, n_fft, overwrite_x=True)[:, :width]
    return out, first


def filtering_bytes(n_cols: int) -> int:
    """Scratch of `filtered`, its result left out, with the longest continuation."""
    n_fft = fft_length(3 * n_cols)
    return (4 * 2 * n_cols + 24 * n_fft) * ANGLE_BLOCK // 2 + 48 * n_fft


def fft_length(n: int) -> int:
    """Length of a fast real transform."""
    return int(scipy.fft.next_fast_len(n, real=True))
