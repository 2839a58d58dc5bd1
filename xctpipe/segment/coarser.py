"""Coarser levels of labels: by priority, so that what is thin does not vanish."""

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.compiled import INNER

Phases = NDArray[np.uint8]
Ids = NDArray[np.int32]


def coarser(phases: Phases, objects: Ids, *, priority: Sequence[int]) -> tuple[Phases, Ids]:
    """Phases and objects of voxels of twice the edge, by priority, so that thin things do not vanish.

    Parameters
    ----------
    phases, objects : (z, y, x); at the far end of an odd axis a voxel is made of what exists.
    priority : phases that win wherever they are, the first most. Of the others the most frequent wins, the
        higher number when two are. The object is the lowest number above 0 with the phase that won.
    """
    rank = np.zeros(256, np.uint8)
    rank[list(priority)] = np.arange(len(priority), 0, -1)
    shape = tuple(-(-n // 2) for n in phases.shape)
    out = np.empty(shape, np.uint8), np.empty(shape, np.int32)
    _coarsen(np.ascontiguousarray(phases), np.ascontiguousarray(objects), rank, *out)
    return out


@numba.njit(cache=True, nogil=True)
def _coarsen(phases, objects, rank, out_phases, out_objects):  # type: ignore[no-untyped-def]
    codes, ids = np.empty(8, np.uint8), np.empty(8, np.int32)
    for z in range(out_phases.shape[0]):
        for y in range(out_phases.shape[1]):
            for x in range(out_phases.shape[2]):
                if _alike(phases, 2 * z, 2 * y, 2 * x) and _alike(objects, 2 * z, 2 * y, 2 * x):
                    out_phases[z, y, x] = phases[2 * z, 2 * y, 2 * x]
                    out_objects[z, y, x] = objects[2 * z, 2 * y, 2 * x]
                    continue
                n = _gather(phases, objects, 2 * z, 2 * y, 2 * x, codes, ids)
                winner = _winner(codes, n, rank)
                out_phases[z, y, x] = winner
                lowest = 0
                for i in range(n):
                    if codes[i] == winner and ids[i] > 0 and (lowest == 0 or ids[i] < lowest):
                        lowest = ids[i]
                out_objects[z, y, x] = lowest


@numba.njit(cache=True, nogil=True, inline="always")
def _alike(values, z, y, x):  # type: ignore[no-untyped-def]
    """Whether eight voxels from here on exist and are the same."""
    nz, ny, nx = values.shape
    if z + 1 >= nz or y + 1 >= ny or x + 1 >= nx:
        return False
    one = values[z, y, x]
    same = (values[z, y, x + 1] == one) & (values[z, y + 1, x] == one) & (values[z, y + 1, x + 1] == one)
    same &= (values[z + 1, y, x] == one) & (values[z + 1, y, x + 1] == one)
    return same & (values[z + 1, y + 1, x] == one) & (values[z + 1, y + 1, x + 1] == one)


@numba.njit(cache=True, nogil=True)
def _gather(phases, objects, z0, y0, x0, codes, ids):  # type: ignore[no-untyped-def]
    """The up to eight voxels from here on; how many exist."""
    n = 0
    for z in range(z0, min(z0 + 2, phases.shape[0])):
        for y in range(y0, min(y0 + 2, phases.shape[1])):
            for x in range(x0, min(x0 + 2, phases.shape[2])):
                codes[n], ids[n] = phases[z, y, x], objects[z, y, x]
                n += 1
    return n


@numba.njit(**INNER)
def _winner(codes, n, rank):  # type: ignore[no-untyped-def]
    """The phase of highest rank; where none has one, the most frequent, the higher number of two."""
    winner, most = codes[0], 0
    for i in range(n):
        if rank[codes[i]] > rank[winner]:
            winner = codes[i]
    if rank[winner] > 0:
        return winner
    for i in range(n):
        count = 0
        for j in range(n):
            count += codes[j] == codes[i]
        if count > most or (count == most and codes[i] > winner):
            winner, most = codes[i], count
    return winner
