"""Voids that lie on the interface: sought in columns, since they are flat and wide.

Over a column the mean residual of the lowest NaK is taken, then smoothed sideways: noise of a reconstruction
is blue within a slice and white across slices, so that this sees a flat void where a ball-shaped mean does
not.
"""

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator

from xctpipe.scan import FloatArray
from xctpipe.segment.scene import LIQUID, SOLID
from xctpipe.segment.smooth import kernel, reach_px

BAND_PX = (0.0, 3.0)
"""Heights above the interface that are looked at; a row counts as far as its voxels lie between them, so that
little changes where the interface lies between two rows."""
UNDER_PX = (-2.5, -0.5)
"""Depths of the NASICON under a void that are looked at."""
UPPER_PX, UPPER_FRAC = (0.9, 3.9), 0.4
"""Higher up, where a face that is drawn a little wrong does not show, a void misses this share at least."""
STEP_PX = 0.5
"""Where the interface rises more than this near by, at the edge of a chip, its height is hardly known."""
LOWEST_PX = 0.12
"""Voxels whose middle lies lower are as much NASICON as NaK, and so near the interface is not known."""
FLAGGED_PX = 2.5
"""Seeds of voids lie in the columns up to this height."""
HIGHEST_PX = 5.5
TOPS = (0.0, 0.124, 0.207, 0.308, 0.419, 0.531, 0.633, 0.787, 0.873, 0.929)
ROW_HEIGHTS_PX = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
ROW_FRACS = (
    (0.00, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01),
    (0.093, 0.101, 0.137, 0.137, 0.137, 0.137, 0.137),
    (0.139, 0.152, 0.199, 0.234, 0.234, 0.234, 0.234),
    (0.181, 0.201, 0.258, 0.349, 0.349, 0.349, 0.349),
    (0.208, 0.231, 0.294, 0.386, 0.453, 0.453, 0.453),
    (0.224, 0.247, 0.310, 0.436, 0.558, 0.558, 0.558),
    (0.241, 0.265, 0.329, 0.460, 0.568, 0.665, 0.665),
    (0.272, 0.297, 0.360, 0.482, 0.636, 0.800, 0.826),
    (0.292, 0.318, 0.377, 0.490, 0.619, 0.782, 0.917),
    (0.318, 0.343, 0.397, 0.496, 0.598, 0.717, 0.837),
)
"""Share of the contrast that a column misses on the outline of a void, by the most that one near by does (a
line each) and by height. Of caps of balls 0.8 times as high as the radius that they cover, blurred by 0.7
voxels: the small ones are smoothed to less than they are, and all are widest at the bottom. Low down 5 %
less, which the slack of the interface takes; of small ones, whose top noise has raised, up to 8 % more."""
NEAR_PX = 5
"""Columns as near as this belong to the same void."""
SIDEWAYS_PX = 2.5
_ROWS = 3
_VALLEY_FRAC = 0.25
"""Depth of a valley, of what the smaller of two voids misses. In simulated noise plateaus have valleys of up
to 0.16, gaps of 2 voxels from 0.43 on."""
_FEWEST = 1.5
_LEAST_SEEN = 0.1


def columns_of(residual: FloatArray, above_px: FloatArray, hosts: NDArray[np.uint8]) -> FloatArray:
    """Mean residual of the lowest NaK of each column, smoothed sideways: (y, x), cm^-1; 0 without NaK.

    Where fewer rows count, the mean is scaled down so far that its noise stays the same.

    Parameters
    ----------
    residual, hosts : (z, y, x).
    above_px : height above the interface.
    """
    return _mean_of_rows(residual, above_px, hosts == LIQUID, BAND_PX)


def voids(
    residual: FloatArray,
    above_px: FloatArray,
    hosts: NDArray[np.uint8],
    *,
    contrast_cm1: float,
    low_cm1: float,
    high_cm1: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Voxels of voids that lie on the interface, and those of them that are sure to be one: (z, y, x).

    Parameters
    ----------
    residual, above_px, hosts : (z, y, x), all rows from `UNDER_PX` to `HIGHEST_PX`.
    contrast_cm1 : what a void misses.
    low_cm1, high_cm1 : what a column of a void misses at least, and one that is sure to be one.
    """
    columns = columns_of(residual, above_px, hosts)
    # what misses more below is the mouth of a crack; what misses little higher up is an interface that lies
    # a little deeper than it is drawn
    columns[_mean_of_rows(residual, above_px, hosts == SOLID, UNDER_PX) > columns] = 0
    tall = _mean_of_rows(residual, above_px, hosts == LIQUID, UPPER_PX) > UPPER_FRAC * columns
    heights = above_px[len(above_px) // 2]
    size = 2 * NEAR_PX + 1
    steps = ndimage.maximum_filter(heights, size=size) - ndimage.minimum_filter(heights, size=size)
    tops = ndimage.maximum_filter(columns, size=size)
    void = (hosts == LIQUID) & (above_px >= LOWEST_PX) & (above_px < HIGHEST_PX)
    void &= (columns > low_cm1) & (tops > high_cm1) & ~valleys(columns, least_cm1=low_cm1)
    near = np.broadcast_to(tops, void.shape)[void]
    least = least_of_rows(above_px[void], near, contrast_cm1=contrast_cm1, lowest_cm1=low_cm1)
    void[void] = np.broadcast_to(columns, void.shape)[void] > least
    return void, void & (above_px < FLAGGED_PX) & (columns > high_cm1) & tall & (steps < STEP_PX)


def valleys(columns: FloatArray, *, least_cm1: float) -> NDArray[np.bool_]:
    """Columns between two voids that lie side by side, which are not to be one: (y, x).

    Along a row, a column of the image or a diagonal they miss least, and less than columns near by on both
    sides by more than noise, which is below `least_cm1`, and than a share of that.
    """
    found = np.zeros(columns.shape, np.bool_)
    near = np.pad(columns, NEAR_PX)

    def at(dy: int, dx: int) -> FloatArray:
        y, x = NEAR_PX + dy, NEAR_PX + dx
        return near[y : y + columns.shape[0], x : x + columns.shape[1]]

    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        sides = [
            np.max([at(side * k * dy, side * k * dx) for k in range(1, NEAR_PX + 1)], axis=0)
            for side in (1, -1)
        ]
        lower = np.minimum(*sides)
        least = (columns <= at(dy, dx)) & (columns <= at(-dy, -dx))
        found |= least & (lower - columns > np.maximum(least_cm1, _VALLEY_FRAC * lower))
    # as wide as it takes to part voxels that touch at a corner, and outlines that are drawn later
    return np.asarray(ndimage.binary_dilation(found))


def _mean_of_rows(
    residual: FloatArray, above_px: FloatArray, inside: NDArray[np.bool_], band_px: tuple[float, float]
) -> FloatArray:
    total, square = (np.zeros(residual.shape[1:], np.float32) for _ in range(2))
    _add_columns(residual, above_px, inside, np.array(band_px, np.float32), total, square)
    seen = square >= _FEWEST
    mean = total / np.sqrt(np.maximum(square, _FEWEST) * (band_px[1] - band_px[0])) * seen
    weight = _sideways(seen.astype(np.float32))
    spread = _sideways(mean.astype(np.float32)) / np.sqrt(np.maximum(weight, _LEAST_SEEN))
    return np.asarray(spread, np.float32)


@numba.njit(cache=True, nogil=True)
def _add_columns(residual, above_px, inside, band, total, square):  # type: ignore[no-untyped-def]
    nz, ny, nx = residual.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                above = above_px[z, y, x]
                part = min(above + np.float32(0.5), band[1]) - max(above - np.float32(0.5), band[0])
                if part > 0 and inside[z, y, x]:
                    part = min(part, np.float32(1.0))
                    total[y, x] += part * residual[z, y, x]
                    square[y, x] += part * part


def least_of_rows(
    above_px: FloatArray, tops_cm1: FloatArray, *, contrast_cm1: float, lowest_cm1: float
) -> FloatArray:
    """What a column must miss for a voxel at this height to be void.

    Parameters
    ----------
    above_px : height above the interface, of any shape.
    tops_cm1 : the most that a column near by misses, of the same shape.
    contrast_cm1 : what a void misses.
    lowest_cm1 : what noise may be; no voxel is void below it.
    """
    table = RegularGridInterpolator((TOPS, ROW_HEIGHTS_PX), np.array(ROW_FRACS))
    top = np.clip(tops_cm1.astype(np.float64) / max(contrast_cm1, 1e-9), TOPS[0], TOPS[-1])
    height = np.clip(above_px.astype(np.float64), ROW_HEIGHTS_PX[0], ROW_HEIGHTS_PX[-1])
    share = table((top, height))
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
    return max(reach_px(SIDEWAYS_PX) + NEAR_PX, int(np.ceil(HIGHEST_PX)) + 1)
