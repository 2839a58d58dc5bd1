"""What objects there are, from sums over blocks: the rows that all measures refer to."""

from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.measure.regions import Inventory
from xctpipe.segment.features import numbers_in

_FAR = 2**62


def count_codes(codes: NDArray[np.uint8], *, n: int) -> NDArray[np.int64]:
    """Number of voxels of each code 0 ... n - 1; there are no others."""
    out = np.zeros(n, np.int64)
    _count(codes, out)
    return out


@numba.njit(cache=True, nogil=True)
def _count(codes, out):  # type: ignore[no-untyped-def]
    flat = codes.ravel()
    for i in range(len(flat)):
        out[flat[i]] += 1


def inventory_sums(objects: NDArray[np.int32], first: tuple[int, int, int]) -> dict[str, NDArray[np.int64]]:
    """Numbers, voxels, sums of places, and ends of the objects of a block.

    Parameters
    ----------
    objects : (z, y, x), 0 where none.
    first : voxel of the volume at which the block begins.
    """
    ids = numbers_in(objects)
    sums = np.zeros((len(ids), 4), np.int64)
    lows, highs = np.full((len(ids), 3), _FAR, np.int64), np.full((len(ids), 3), -1, np.int64)
    if len(ids):
        _add(objects, ids, np.array(first, np.int64), sums, lows, highs)
    return {"ids": ids, "sums": sums, "lows": lows, "highs": highs}


@numba.njit(cache=True, nogil=True)
def _add(objects, ids, first, sums, lows, highs):  # type: ignore[no-untyped-def]
    nz, ny, nx = objects.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                who = objects[z, y, x]
                if who == 0:
                    continue
                i = np.searchsorted(ids, who)
                sums[i, 0] += 1
                for axis, place in enumerate((z + first[0], y + first[1], x + first[2])):
                    sums[i, axis + 1] += place
                    lows[i, axis] = min(lows[i, axis], place)
                    highs[i, axis] = max(highs[i, axis], place)


def add_up(blocks: Sequence[Mapping[str, NDArray[Any]]], kinds: Mapping[int, str]) -> Inventory:
    """Inventory of a volume from the sums of its blocks.

    Parameters
    ----------
    kinds : kind of each object; "unresolved" where it says nothing.
    """
    ids = np.unique(np.concatenate([each["ids"] for each in blocks]))
    sums = np.zeros((len(ids), 4), np.int64)
    lows, highs = np.full((len(ids), 3), _FAR, np.int64), np.full((len(ids), 3), -1, np.int64)
    for each in blocks:
        at = np.searchsorted(ids, each["ids"])
        sums[at] += each["sums"]
        lows[at] = np.minimum(lows[at], each["lows"])
        highs[at] = np.maximum(highs[at], each["highs"])
    names = np.array([kinds.get(int(i), "unresolved") for i in ids] or [""])[: len(ids)]
    middle = sums[:, 1:] / np.maximum(sums[:, :1], 1)
    return Inventory(ids.astype(np.int64), names, sums[:, 0], middle, lows, highs)
