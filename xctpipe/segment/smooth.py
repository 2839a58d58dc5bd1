"""Gaussian smoothing of blocks, float32, by separable kernels; each call runs on the thread that makes it."""

import math
from collections.abc import Sequence

import numba
import numpy as np

from xctpipe.scan import FloatArray

REACH_SIGMAS = 3.0
"""Kernels end here: 0.3 % of a Gaussian lies beyond, and the rest is scaled to a sum of 1."""


def reach_px(sigma_px: float) -> int:
    """Voxels on each side that a kernel sees."""
    return max(1, math.ceil(REACH_SIGMAS * sigma_px))


def kernel(sigma_px: float) -> FloatArray:
    """Half of a symmetric kernel, its middle first."""
    x = np.arange(reach_px(sigma_px) + 1)
    half = np.exp(-0.5 * (x / sigma_px) ** 2)
    return np.asarray(half / (half[0] + 2 * half[1:].sum()), np.float32)


def smooth(block: FloatArray, *, sigma_px: float, room: Sequence[FloatArray] = ()) -> FloatArray:
    """Gaussian mean of a block (z, y, x); beyond its faces the block is continued by its mirror image.

    Voxels nearer than `reach_px` to a cut face depend on the cut. At an end of the volume a mirror leaves
    less noise than its outermost voxels would, repeated.

    Parameters
    ----------
    sigma_px : standard deviation, above 0.
    room : two arrays like the block that may be written over; the first is returned. Memory that was touched
        before is much cheaper than new one.
    """
    half = kernel(sigma_px)
    first, second = room or (np.empty_like(block), np.empty_like(block))
    _along_x(block, half, first)
    _along_y(first, half, second)
    _along_z(second, half, first)
    return first


def further(sigma_px: float, *, done_px: float) -> float:
    """Width of the kernel that takes a block smoothed by `done_px` to `sigma_px`."""
    return math.sqrt(max(sigma_px**2 - done_px**2, 0.0))


@numba.njit(cache=True, nogil=True, inline="always")
def _mirrored(i, n):  # type: ignore[no-untyped-def]
    """Index of the voxel that stands for one beyond the ends; of a short axis its last."""
    if i < 0:
        i = -1 - i
    elif i >= n:
        i = 2 * n - 1 - i
    return min(max(i, 0), n - 1)


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def _along_x(block, half, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = block.shape
    reach = len(half) - 1
    row = np.empty(nx + 2 * reach, np.float32)
    for z in range(nz):
        for y in range(ny):
            source, target = block[z, y], out[z, y]
            row[reach : reach + nx] = source
            for k in range(reach):
                row[k], row[reach + nx + k] = source[_mirrored(k - reach, nx)], source[_mirrored(nx + k, nx)]
            middle = row[reach : reach + nx]
            for x in range(nx):
                target[x] = half[0] * middle[x]
            for k in range(1, reach + 1):
                left, right, weight = (
                    row[reach - k : reach - k + nx],
                    row[reach + k : reach + k + nx],
                    half[k],
                )
                for x in range(nx):
                    target[x] += weight * (left[x] + right[x])


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def _along_y(block, half, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = block.shape
    for z in range(nz):
        for y in range(ny):
            target, middle = out[z, y], block[z, y]
            for x in range(nx):
                target[x] = half[0] * middle[x]
            for k in range(1, len(half)):
                low, high, weight = block[z, _mirrored(y - k, ny)], block[z, _mirrored(y + k, ny)], half[k]
                for x in range(nx):
                    target[x] += weight * (low[x] + high[x])


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def _along_z(block, half, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = block.shape
    for z in range(nz):
        for y in range(ny):
            target, middle = out[z, y], block[z, y]
            for x in range(nx):
                target[x] = half[0] * middle[x]
            for k in range(1, len(half)):
                low, high, weight = block[_mirrored(z - k, nz), y], block[_mirrored(z + k, nz), y], half[k]
                for x in range(nx):
                    target[x] += weight * (low[x] + high[x])
