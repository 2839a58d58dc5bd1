"""Filtered back-projection by algotom: slow and long established, the one to compare with."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
import scipy.fft

from xctpipe.errors import BadRecipe
from xctpipe.recon.filtering import TAPER_FRAC, WINDOWS, continuation, edge_weights, window
from xctpipe.recon.geometry import Geometry, inside_circle
from xctpipe.scan import DoubleArray, FloatArray

FILTERS = WINDOWS


def available() -> str | None:
    """None where algotom is installed."""
    if importlib.util.find_spec("algotom") is None:
        return "algotom is not installed; pip install algotom, or take another backend"
    return None


def reconstruct(sinograms: FloatArray, *, geometry: Geometry, filter_name: str, padding: str) -> FloatArray:
    """Slices (row, y, x) in cm^-1 of sinograms (angle, row, col), one at a time on one thread [1]_.

    Filter and back-projection are algotom's. The continuation beyond the detector, the window, the weights
    of the angles and the circle are those of the other backends, so that results can be compared.

    References
    ----------
    .. [1] Vo et al., Proc. SPIE 11840, 118400T (2021), doi:10.1117/12.2596324
    """
    from algotom.rec.reconstruction import fbp_reconstruction, make_2d_ramp_window

    n_angles, n_rows, n_cols = sinograms.shape
    check_centers(geometry.centers_px, n_cols=n_cols)
    profile = continuation(n_cols, padding=padding)
    pad = padded_columns(n_cols, reach=profile.size)
    width = n_cols + 2 * pad
    frequency = (np.arange(width) - width // 2) / (width / 2)
    ramp_win = make_2d_ramp_window(1, width) * window(frequency, filter_name=filter_name)
    ramp_win = np.broadcast_to(ramp_win, (n_angles, width))
    # algotom multiplies its sum by pi / (n - 1): undone here, in favour of the weights of the angles.
    scale = geometry.weights_rad * ((n_angles - 1) / np.pi / geometry.pixel_cm)
    volume = np.empty((n_rows, n_cols, n_cols), np.float32)
    outside = ~inside_circle(n_cols)
    with one_thread():
        for row in range(n_rows):
            volume[row] = fbp_reconstruction(
                (sinograms[:, row] * scale[:, None]).astype(np.float32),
                geometry.centers_px[row],
                angles=geometry.angles_rad,
                ratio=None,
                ramp_win=ramp_win,
                pad=pad,
                pad_mode=continue_row(profile, n_cols=n_cols),
                apply_log=False,
                gpu=False,
                ncore=1,
            )
    volume[:, outside] = 0
    return volume


def working_bytes(*, n_angles: int, n_rows: int, n_cols: int, n_threads: int) -> int:
    """Bytes that `reconstruct` needs beyond its argument, its result included; threads are not used."""
    width = n_cols + 2 * padded_columns(n_cols, reach=round(TAPER_FRAC * n_cols))
    # the padded row as float32, and its transforms as double complex: four at a time at most
    return 4 * (n_rows + 2) * n_cols**2 + 64 * n_angles * width + 2**18


def check_centers(centers_px: DoubleArray, *, n_cols: int) -> None:
    """BadRecipe when an axis is not on the detector: algotom does not reconstruct that."""
    if np.any((centers_px < 0) | (centers_px >= n_cols)):
        raise BadRecipe(
            f"reconstruct: center_px from {centers_px.min():g} to {centers_px.max():g} is off the detector "
            f"(columns 0 to {n_cols - 1}), which backend 'algotom' cannot do; take backend 'fourier'"
        )


def padded_columns(n_cols: int, *, reach: int) -> int:
    """Columns to add on either side so that a circular filter of that length is the linear one."""
    pad = reach + n_cols // 2 + 1
    while scipy.fft.next_fast_len(n_cols + 2 * pad, real=False) != n_cols + 2 * pad:
        pad += 1
    return pad


def continue_row(profile: DoubleArray, *, n_cols: int) -> Any:
    """Mode for numpy.pad that continues rows as every backend does."""
    weights = edge_weights(n_cols)

    def fill(row: FloatArray, pads: tuple[int, int], axis: int, _: dict[str, Any]) -> None:
        if axis == 0 or profile.size == 0:
            return
        first, last = pads[0], row.size - pads[1]
        row[first - profile.size : first] = profile[::-1] * (row[first : first + weights.size] @ weights)
        row[last : last + profile.size] = profile * (row[last - weights.size : last][::-1] @ weights)

    return fill


@contextmanager
def one_thread() -> Iterator[None]:
    """One numba thread: algotom's threads share their sums over angles and would lose some of them."""
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(threads)
