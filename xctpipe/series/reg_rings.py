"""Rings of a volume, found where there is nothing but NASICON, to take them off before scans are compared.

Rings belong to the detector and stand still while the sample moves: what is left of them pulls every
registration towards no motion.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xctpipe.scan import FloatArray

_FIXED = 2.0**20
_LEAST = 24
_WIDE_PX = 11


def ring_sums(
    grey: FloatArray,
    solid: NDArray[np.bool_],
    *,
    start: tuple[int, int, int],
    axis_px: tuple[float, float],
    n_radii: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums of grey values over half rings, and the number of their voxels; they add up over blocks.

    Over half a turn a column of the detector draws half a ring: on the side of lower y, or of higher.

    Parameters
    ----------
    grey, solid : (z, y, x) part of a volume, and where it is plain NASICON.
    start : its first voxel in the volume.
    axis_px : (y, x) of the axis of rotation in the volume.
    n_radii : rings, of one voxel each.

    Returns
    -------
    Sums in units of 2^-20, which are exact in any order, and counts: (z, side, radius).
    """
    place = _places(grey.shape[1:], start=start, axis_px=axis_px)
    ring = np.minimum(np.rint(place[0]).astype(np.int64), n_radii - 1) + n_radii * place[1]
    sums, counts = (np.zeros((len(grey), 2, n_radii), np.int64) for _ in range(2))
    for i in range(len(grey)):
        at = ring[solid[i]]
        values = np.rint(grey[i][solid[i]].astype(np.float64) * _FIXED)
        # whole numbers, which float64 adds up exactly
        sums[i] = np.bincount(at, values, 2 * n_radii).astype(np.int64).reshape(2, n_radii)
        counts[i] = np.bincount(at, minlength=2 * n_radii).reshape(2, n_radii)
    return sums, counts


def rings_of(sums: NDArray[np.int64], counts: NDArray[np.int64]) -> FloatArray:
    """Rings (z, side, radius) in cm^-1: means less what changes slowly with the radius; 0 where unknown."""
    known = counts >= _LEAST
    mean = sums / np.maximum(counts, 1) / _FIXED
    # what is not known takes the level of the nearest known ring, so that the median runs on
    filled = np.zeros_like(mean)
    for i, j in np.ndindex(*mean.shape[:2]):
        r = np.flatnonzero(known[i, j])
        if len(r):
            filled[i, j] = np.interp(np.arange(mean.shape[2]), r, mean[i, j][r])
    smooth = ndimage.median_filter(filled, size=(1, 1, _WIDE_PX), mode="nearest")
    return np.where(known, mean - smooth, 0.0).astype(np.float32)


def without_rings(
    grey: FloatArray, rings: FloatArray, *, start: tuple[int, int, int], axis_px: tuple[float, float]
) -> FloatArray:
    """Part of a volume less its rings, whose rows are those of the part."""
    radius, side = _places(grey.shape[1:], start=start, axis_px=axis_px)
    low = np.minimum(radius.astype(np.int64), rings.shape[2] - 2)
    share = np.clip(radius - low, 0, 1).astype(np.float32)
    side = side.astype(np.int64)
    out = grey.copy()
    for i in range(len(grey)):
        out[i] -= (1 - share) * rings[i, side, low] + share * rings[i, side, low + 1]
    return out


def _places(
    shape: tuple[int, ...], *, start: tuple[int, int, int], axis_px: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance of columns of voxels from the axis, and on which side they are."""
    dy = np.arange(shape[0])[:, None] + (start[1] - axis_px[0])
    dx = np.arange(shape[1])[None] + (start[2] - axis_px[1])
    return np.hypot(dy, dx), np.broadcast_to(dy > 0, shape).astype(np.int64)
