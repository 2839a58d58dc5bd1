"""Pieces of NASICON that voids have cut off from the pellet: components of what is left without the voids."""

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import FloatArray
from xctpipe.segment.candidates import SOLID_VOID
from xctpipe.segment.scene import SOLID

FROM_PX = 2.0
"""Pieces are told apart this far below the surface: nearer to it the mouth of a crack would leak."""
HALO_PX = 1
FEWEST_VOXELS = 64
NEAR_PX = 4.0
"""A chip comes up to the surface, to less than this."""


def solid_left(hosts: NDArray[np.uint8], voids: NDArray[np.uint8], below_px: FloatArray) -> NDArray[np.uint8]:
    """1 where NASICON is left: no void, nor beside one, and not at the very surface.

    Parameters
    ----------
    voids : codes of candidates, (z, y, x); voxels nearer than `HALO_PX` to a cut face depend on the cut.
    """
    out = np.zeros(hosts.shape, np.uint8)
    _leave(hosts, voids, below_px, out)
    return out


@numba.njit(cache=True, nogil=True)
def _leave(hosts, voids, below, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = hosts.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if hosts[z, y, x] == SOLID and below[z, y, x] >= FROM_PX:
                    out[z, y, x] = 1
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if voids[z, y, x] == SOLID_VOID:
                    out[max(z - 1, 0) : z + 2, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = 0


def reach_of(
    labels: NDArray[np.uint32], n: int, *, below_px: FloatArray, rim: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Of each component 1 ... n: least distance below the surface in 1/64 voxel, and voxels at the rim."""
    out = np.zeros((n, 2), np.int64)
    out[:, 0] = np.iinfo(np.int64).max
    _reach(labels, below_px, rim, out)
    return out


@numba.njit(cache=True, nogil=True)
def _reach(labels, below, rim, out):  # type: ignore[no-untyped-def]
    flat, depth, edge = labels.ravel(), below.ravel(), rim.ravel()
    for i in range(len(flat)):
        label = flat[i]
        if label:
            out[label - 1, 0] = min(out[label - 1, 0], np.int64(np.rint(depth[i] * 64)))
            out[label - 1, 1] += edge[i]


def chips_among(
    n_voxels: NDArray[np.int64], least: NDArray[np.int64], rim: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which components are chips: neither the pellet, nor dust, and at the surface."""
    chips = (n_voxels >= FEWEST_VOXELS) & (least / 64 <= NEAR_PX) & (rim == 0)
    if len(n_voxels):
        chips[np.argmax(n_voxels)] = False
    return np.asarray(chips)
