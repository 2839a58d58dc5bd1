"""Direct Fourier reconstruction by tomopy's gridrec, with what it leaves undone.

tomopy comes with conda only; `environment.yml` makes an environment that has it. Of gridrec only the gridding
is used: it leaves the edge of a slice unwritten where its width is a power of two, drops the mean of every
row, takes the axis of every other slice for the next one too, puts it half a pixel or more beside the middle,
and returns values that are 12 % too high there and more so towards the edge, which `response` measures.
"""

import importlib
from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np

from xctpipe.recon.filtering import WINDOWS
from xctpipe.recon.geometry import Geometry, inside_circle
from xctpipe.recon.rows import filtered, filtering_bytes
from xctpipe.scan import DoubleArray, FloatArray

FILTERS = WINDOWS
OVERSIZE = 1.25
"""Least width of the grid relative to the detector: what lies near its edge is folded over."""
SLOPE = 0.1
"""Tangent of the angle at which the response is measured: small, and its samples fall between grid points."""
NEAR_PX = 3.0
"""Distance from the line in the measured slice up to which pixels are used."""

Gridder = Callable[[FloatArray, DoubleArray, DoubleArray], FloatArray]
"""Sinograms (row, angle, col), angles, axes (row,) to unfiltered slices (row, y, x), in tomopy's terms."""


def available() -> str | None:
    """None where tomopy can be imported."""
    try:
        importlib.import_module("tomopy")
    except Exception as err:  # where its libraries do not fit together it fails in many ways
        return (
            f"tomopy cannot be imported ({err}); it is on conda-forge only: "
            "conda env create -f environment.yml, or take backend 'fourier'"
        )
    return None


def reconstruct(sinograms: FloatArray, *, geometry: Geometry, filter_name: str, padding: str) -> FloatArray:
    """Slices (row, y, x) in cm^-1 of sinograms (angle, row, col), each gridded by itself [1]_ [2]_.

    Continuation, filter, the weights of the angles and the circle are those of the other backends.

    References
    ----------
    .. [1] Dowd et al., Proc. SPIE 3772, 224 (1999), doi:10.1117/12.363725
    .. [2] Gürsoy et al., J. Synchrotron Rad. 21, 1188 (2014), doi:10.1107/S1600577514013939
    """
    return reconstruct_by(
        tomopy_gridrec, sinograms, geometry=geometry, filter_name=filter_name, padding=padding
    )


def working_bytes(*, n_angles: int, n_rows: int, n_cols: int, n_threads: int) -> int:
    """Bytes that `reconstruct` needs beyond its argument, its result included."""
    size = grid_size(n_cols)
    # for every thread tomopy's grid, slice and two tables of (angle, grid), and the rows
    gridding = 12 * size**2 + 24 * n_angles * size + 8 * n_cols**2
    filtering = filtering_bytes(n_cols) + 8 * n_angles * n_cols
    return 4 * n_rows * n_cols**2 + min(n_rows, n_threads) * gridding + filtering + 5 * n_cols**2 + 2**18


def tomopy_gridrec(rows: FloatArray, angles_rad: DoubleArray, centers_px: DoubleArray) -> FloatArray:
    """Unfiltered gridrec of tomopy, every slice by itself."""
    slices = importlib.import_module("tomopy").recon(
        rows,
        angles_rad,
        center=centers_px,
        sinogram_order=True,
        algorithm="gridrec",
        filter_name="none",
        ncore=min(len(rows), int(numba.get_num_threads())),
        nchunk=1,
    )
    return np.asarray(slices, np.float32)


def reconstruct_by(
    gridder: Gridder, sinograms: FloatArray, *, geometry: Geometry, filter_name: str, padding: str
) -> FloatArray:
    """Slices (row, y, x) in cm^-1 of sinograms (angle, row, col) by some way to call gridrec."""
    n_angles, n_rows, n_cols = sinograms.shape
    size = grid_size(n_cols)
    low = size // 2 - n_cols // 2
    # the axis is at y = size / 2 - 1, x = size / 2: a whole pixel from the middle, or half of one
    y, x = slice(low - 1, low - 1 + n_cols), slice(low, low + n_cols)
    half_px = 0.0 if n_cols % 2 else 0.5
    shift_px = half_px * (np.sin(geometry.angles_rad) - np.cos(geometry.angles_rad))
    of_y, of_x = response(gridder, size)
    gain = np.outer(2 * n_angles / np.pi / of_y[y], 1 / of_x[x]).astype(np.float32)
    scale = (geometry.weights_rad / geometry.pixel_cm)[:, None]
    circle = inside_circle(n_cols)
    volume = np.zeros((n_rows, n_cols, n_cols), np.float32)
    batch = int(numba.get_num_threads())
    for start in range(0, n_rows, batch):
        centers = geometry.centers_px[start : start + batch].copy()
        lines = np.zeros((centers.size, n_angles, size), np.float32)
        sums = np.empty((centers.size, 1, 1), np.float32)
        for i, center in enumerate(centers):
            row, first = filtered(
                sinograms[:, start + i],
                center_px=center,
                filter_name=filter_name,
                padding=padding,
                shift_px=shift_px,
            )
            lines[i, :, : row.shape[1]] = scale * row
            means = lines[i].mean(axis=1, dtype=np.float64, keepdims=True)
            lines[i] -= means.astype(np.float32)
            sums[i] = means.sum()
            centers[i] = center - first
        slices = gridder(lines, geometry.angles_rad, centers)[:, y, x] * gain + sums
        volume[start : start + batch, circle] = slices[:, circle]
    return volume


def grid_size(n_cols: int) -> int:
    """Columns that rows are filled up to: a power of two, which gridrec would take anyway."""
    size = 16
    while size < max(OVERSIZE * n_cols, n_cols + 8):
        size *= 2
    return size


@lru_cache(maxsize=4)
def response(gridder: Gridder, size: int) -> tuple[DoubleArray, DoubleArray]:
    """What gridrec makes of a one, as factors by y and by x: its correction for its kernel is not quite that.

    Measured on one projection of a point. Its slice is a straight line through the axis, along which all
    values should be one.
    """
    point = np.zeros((1, 1, size), np.float32)
    point[0, 0, size // 2] = 1
    angle = np.arctan(SLOPE)
    band = int(SLOPE * size / 2 + NEAR_PX) + 1
    x_px, y_px = np.arange(-band, band + 1), np.arange(size) - (size // 2 - 1)
    if 2 * band + 1 > size:
        raise ValueError(f"a grid of {size} columns is too small")
    slices = gridder(point, np.array([angle]), np.array([size / 2])) * (2 / np.pi)
    line = slices[0, 1:, size // 2 - band : size // 2 + band + 1]
    seen_at = x_px * np.cos(angle) - y_px[1:, None] * np.sin(angle)
    # gridrec keeps the frequencies 1 to size / 2 - 1 of the point
    phase = np.pi / size * np.where(seen_at == 0, 1e-9, seen_at)
    exact = (np.sin((size - 1) * phase) / np.sin(phase) - 1) / size
    exact[np.abs(seen_at) > NEAR_PX] = 0
    product = (line * exact).sum(axis=1) / (exact**2).sum(axis=1)
    # the line crosses x = SLOPE y, and the factor of x is that of -y: they have the same origin on the grid
    factor = product / np.sqrt(np.interp(0, y_px[1:], product))
    for _ in range(3):
        factor = product / np.interp(-SLOPE * y_px[1:], y_px[1:], factor)
    return np.interp(y_px, y_px[1:], factor), np.interp(size // 2 - np.arange(size), y_px[1:], factor)
