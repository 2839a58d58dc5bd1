"""Back-projection by algotom: slow and long established, the one to compare with."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numba
import numpy as np
import scipy.fft

from xctpipe.errors import BadRecipe
from xctpipe.recon import gridrec
from xctpipe.recon.filtering import TAPER_FRAC, WINDOWS, continuation, edge_weights, ramp, window
from xctpipe.recon.geometry import Geometry, inside_circle
from xctpipe.recon.rows import continued
from xctpipe.scan import DoubleArray, FloatArray

FILTERS = WINDOWS


def available() -> str | None:
    """None where algotom is installed."""
    if importlib.util.find_spec("algotom") is None:
        return "algotom is not installed; pip install algotom, or take another backend"
    return None


def objection(filter_name: str, options: Mapping[str, Any]) -> str | None:
    """Why an algorithm cannot be used here."""
    reason = gridrec.available() if options["algorithm"] == "gridrec" else None
    return f"algorithm 'gridrec' of backend 'algotom': {reason}" if reason else None


def reconstruct(
    sinograms: FloatArray,
    *,
    geometry: Geometry,
    filter_name: str,
    padding: str,
    algorithm: Literal["fbp", "bpf", "gridrec"] = "fbp",
) -> FloatArray:
    """Slices (row, y, x) in cm^-1 of sinograms (angle, row, col), one at a time on one thread [1]_.

    `fbp` filters and back-projects, `bpf` back-projects, in four times the time, and filters the slice,
    `gridrec` is tomopy's by way of algotom. The continuation beyond the detector, the window, the weights of
    the angles and the circle are those of the other backends, so that results can be compared.

    References
    ----------
    .. [1] Vo et al., Proc. SPIE 11840, 118400T (2021), doi:10.1117/12.2596324
    """
    check_centers(geometry.centers_px, n_cols=sinograms.shape[2])
    method: Callable[..., FloatArray] = fbp if algorithm == "fbp" else bpf
    if algorithm == "gridrec":
        method = partial(gridrec.reconstruct_by, algotom_gridrec)
    with one_thread():
        return method(sinograms, geometry=geometry, filter_name=filter_name, padding=padding)


def fbp(sinograms: FloatArray, *, geometry: Geometry, filter_name: str, padding: str) -> FloatArray:
    """Slices by algotom's filtered back-projection."""
    from algotom.rec.reconstruction import fbp_reconstruction, make_2d_ramp_window

    n_angles, n_rows, n_cols = sinograms.shape
    profile = continuation(n_cols, padding=padding)
    pad = padded_columns(n_cols, reach=profile.size)
    width = n_cols + 2 * pad
    frequency = (np.arange(width) - width // 2) / (width / 2)
    ramp_win = make_2d_ramp_window(1, width) * window(frequency, filter_name=filter_name)
    ramp_win = np.broadcast_to(ramp_win, (n_angles, width))
    scale = row_scale(geometry)
    volume = np.empty((n_rows, n_cols, n_cols), np.float32)
    for row in range(n_rows):
        volume[row] = fbp_reconstruction(
            (sinograms[:, row] * scale).astype(np.float32),
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
    volume[:, ~inside_circle(n_cols)] = 0
    return volume


def bpf(sinograms: FloatArray, *, geometry: Geometry, filter_name: str, padding: str) -> FloatArray:
    """Slices by algotom's filtering of what rows back-project to.

    That falls off slowly beyond the sample, so it is made twice as wide as the slice, and goes on from there
    down to zero in the filter.
    """
    from algotom.rec.reconstruction import bpf_reconstruction

    n_rows, n_cols = sinograms.shape[1:]
    width, pad = bpf_size(n_cols)
    filter_2d = radial_filter(width + 2 * pad, filter_name=filter_name)
    inner = slice((width - n_cols) // 2, (width + n_cols) // 2)
    volume = np.zeros((n_rows, n_cols, n_cols), np.float32)
    circle = inside_circle(n_cols)
    for row in range(n_rows):
        lines = continued(sinograms[:, row], padding=padding) * row_scale(geometry)
        beside = (width - lines.shape[1]) // 2
        image = bpf_reconstruction(
            np.pad(lines, ((0, 0), (beside, beside))).astype(np.float32),
            geometry.centers_px[row] + inner.start,
            angles=geometry.angles_rad,
            ratio=None,
            ramp_win=filter_2d,
            pad=pad,
            pad_mode="linear_ramp",
            apply_log=False,
            gpu=False,
            ncore=1,
        )
        volume[row, circle] = image[inner, inner][circle]
    return volume


def algotom_gridrec(rows: FloatArray, angles_rad: DoubleArray, centers_px: DoubleArray) -> FloatArray:
    """Unfiltered gridrec by way of algotom, which is given the angles as measured."""
    from algotom.rec.reconstruction import gridrec_reconstruction

    options = {"ratio": None, "filter_name": "none", "apply_log": False, "pad": False, "ncore": 1}
    slices = [
        gridrec_reconstruction(lines, center, angles=angles_rad, **options)
        for lines, center in zip(rows, centers_px, strict=True)
    ]
    return np.stack(slices).astype(np.float32)


def row_scale(geometry: Geometry) -> DoubleArray:
    """Weights (angle, 1) of the rows; algotom multiplies its sums by pi / (n - 1), which is undone here."""
    scale = geometry.weights_rad * ((geometry.angles_rad.size - 1) / np.pi / geometry.pixel_cm)
    return np.asarray(scale[:, None])


def working_bytes(*, n_angles: int, n_rows: int, n_cols: int, n_threads: int, algorithm: str = "fbp") -> int:
    """Bytes that `reconstruct` needs beyond its argument, its result included; threads are not used."""
    if algorithm == "gridrec":
        return gridrec.working_bytes(n_angles=n_angles, n_rows=n_rows, n_cols=n_cols, n_threads=1)
    if algorithm == "bpf":
        width, pad = bpf_size(n_cols)
        # the filter, the image and its transforms as double complex
        return 4 * n_rows * n_cols**2 + 64 * (width + 2 * pad) ** 2 + 32 * n_angles * width + 2**18
    width = n_cols + 2 * padded_columns(n_cols, reach=round(TAPER_FRAC * n_cols))
    # the padded row as float32, and its transforms as double complex: four at a time at most
    return 4 * (n_rows + 2) * n_cols**2 + 64 * n_angles * width + 2**18


def bpf_size(n_cols: int) -> tuple[int, int]:
    """Width of what is back-projected, and columns beside it, so that the sum is quick to transform."""
    width = n_cols + 2 * (n_cols // 2 + 1)
    pad = max(4, width // 7)
    while scipy.fft.next_fast_len(width + 2 * pad, real=False) != width + 2 * pad:
        pad += 1
    return width, pad


def radial_filter(size: int, *, filter_name: str) -> DoubleArray:
    """Ramp filter with its window by distance from the middle of a centred transform, (size, size)."""
    n = 2 * size
    lags = np.arange(-n // 2, n // 2)
    response = scipy.fft.rfft(scipy.fft.ifftshift(ramp(lags))).real
    response *= window(np.linspace(0, 1, response.size), filter_name=filter_name)
    at = (np.arange(size) - size // 2) / size
    radius = np.hypot(at, at[:, None])
    return np.asarray(np.interp(radius, np.linspace(0, 0.5, response.size), response))


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
