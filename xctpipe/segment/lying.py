"""Voids that lie on the interface: sought in columns, since they are flat and wide.

Over a column the mean residual of the lowest NaK is taken, then smoothed sideways: noise of a reconstruction
is blue within a slice and white across slices, so that this sees a flat void where a ball-shaped mean does
not.
"""

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import FloatArray
from xctpipe.segment.scene import LIQUID
from xctpipe.segment.smooth import kernel, reach_px

BAND_PX = (0.5, 3.5)
"""Heights above the interface that are looked at: below, its blur is all there is."""
FLAGGED_PX = 2.5
"""Seeds of voids lie in the columns up to this height."""
HIGHEST_PX = 5.5
ROW_HEIGHTS_PX, ROW_FRACS = (1.0, 2.0, 3.0, 4.0, 5.0), (0.25, 0.30, 0.40, 0.56, 0.76)
"""A voxel at this height is void where its column misses more than this share of the contrast: half of the
columns that do are filled as high. Caps are widest at the bottom. Higher voxels must show it themselves."""
SIDEWAYS_PX = 2.5
_ROWS = 3
_FEWEST = 2.0
_LEAST_SEEN = 0.1


def columns_of(residual: FloatArray, above_px: FloatArray, hosts: NDArray[np.uint8]) -> FloatArray:
    """Mean residual of the lowest NaK of each column, smoothed sideways: (y, x), cm^-1; 0 without NaK.

    Parameters
    ----------
    residual, hosts : (z, y, x).
    above_px : height above the interface.
    """
    band = (hosts == LIQUID) & (above_px >= BAND_PX[0]) & (above_px < BAND_PX[1])
    count = band.sum(axis=0).astype(np.float32)
    total = np.where(band, residual, 0).sum(axis=0, dtype=np.float32)
    seen = count >= _FEWEST
    mean = total / np.maximum(count, 1) * seen
    weight = _sideways(seen.astype(np.float32))
    spread = _sideways(mean.astype(np.float32)) / np.sqrt(np.maximum(weight, _LEAST_SEEN))
    return np.asarray(spread, np.float32)


def least_of_rows(above_px: FloatArray, *, contrast_cm1: float, lowest_cm1: float) -> FloatArray:
    """What a column must miss for a voxel at this height to be void, by its height above the interface.

    Parameters
    ----------
    contrast_cm1 : what a void misses.
    lowest_cm1 : what noise may be; no voxel is void below it.
    """
    share = np.interp(above_px, ROW_HEIGHTS_PX, ROW_FRACS)
    return np.asarray(np.maximum(share * contrast_cm1, lowest_cm1), np.float32)


def noise_of_columns(residuals: Sequence[FloatArray], hosts: Sequence[NDArray[np.uint8]]) -> float:
    """Standard deviation of such means where nothing lies, from the lower half; infinite without NaK."""
    found = []
    for residual, layer in zip(residuals, hosts, strict=True):
        rows = np.flatnonzero((layer == LIQUID).mean(axis=(1, 2)) > 0.5)
        for row in rows[: len(rows) // _ROWS * _ROWS : 2 * _ROWS].tolist():
            part = slice(row, row + _ROWS)
            inside = (layer[part] == LIQUID).all(axis=0)
            mean = _sideways(np.where(inside, residual[part].mean(axis=0), 0).astype(np.float32))
            found.append(mean[inside])
    values = np.concatenate(found) if found else np.empty(0)
    if not values.size:
        return float("inf")
    below = np.median(values) - values
    return float(np.median(below[below > 0]) / 0.6745) if (below > 0).any() else 0.0


def _sideways(image: FloatArray) -> FloatArray:
    out, half = np.empty_like(image), kernel(SIDEWAYS_PX)
    turned = np.empty_like(image.T)
    _along_rows(np.ascontiguousarray(image), half, out)
    _along_rows(np.ascontiguousarray(out.T), half, turned)
    return np.ascontiguousarray(turned.T)


@numba.njit(cache=True, nogil=True)
def _along_rows(image, half, out):  # type: ignore[no-untyped-def]
    ny, nx = image.shape
    for y in range(ny):
        for x in range(nx):
            total = half[0] * image[y, x]
            for k in range(1, len(half)):
                total += half[k] * (image[y, max(x - k, 0)] + image[y, min(x + k, nx - 1)])
            out[y, x] = total


def halo_px() -> int:
    """Voxels on each side that columns depend on."""
    return max(reach_px(SIDEWAYS_PX), int(np.ceil(HIGHEST_PX)) + 1)
