"""Labels of a block, painted layer by layer: hosts first, objects over them."""

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.compiled import INNER
from xctpipe.scan import FloatArray
from xctpipe.segment.codes import PHASES
from xctpipe.segment.scene import COLLECTOR, COUNTER, LIQUID, SOLID

Phases = NDArray[np.uint8]
Ids = NDArray[np.int32]

RIDGE_PX, _RIDGE_FRAC, _RIDGE_LEAST = 2, 0.7, 0.15
"""Where a crack gets thinner than the outline of the whole allows, those voxels are kept that reach this
share of its highest score near by: the sheet goes on there, and measures add up what is missing about it.
At least the score of a sheet of half a voxel, as blurred as scores are: what is less may be noise."""

_HOST_PHASE = {
    SOLID: PHASES["nasicon"],
    LIQUID: PHASES["nak"],
    COLLECTOR: PHASES["collector"],
    COUNTER: PHASES["counter_electrode"],
}


def phases_of(hosts: NDArray[np.uint8]) -> Phases:
    """Phase of each voxel by its host; 0 beyond the view."""
    table = np.zeros(256, np.uint8)
    for host, phase in _HOST_PHASE.items():
        table[host] = phase
    return table[hosts]


def drawn(objects: Ids, score: FloatArray, *, outlines: FloatArray) -> Ids:
    """Objects within their outlines: labels (z, y, x), 0 where the score is below the object's outline.

    A voxel is kept too where its score is at least `_RIDGE_FRAC` of the highest of its object within
    RIDGE_PX, and `_RIDGE_LEAST`. Voxels nearer than RIDGE_PX to a cut face depend on the cut.

    Parameters
    ----------
    outlines : (object + 1,), of no object first.
    """
    out = np.zeros_like(objects)
    _draw(objects, score, outlines, out)
    return out


@numba.njit(cache=True, nogil=True)
def _draw(objects, score, outlines, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = objects.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                who = objects[z, y, x]
                if who == 0:
                    continue
                value = score[z, y, x]
                if value >= outlines[who] or (value >= _RIDGE_LEAST and _on_ridge(objects, score, z, y, x)):
                    out[z, y, x] = who


@numba.njit(**INNER)
def _on_ridge(objects, score, z, y, x):  # type: ignore[no-untyped-def]
    """Whether no voxel of the same object near by has a much higher score."""
    nz, ny, nx = objects.shape
    most = score[z, y, x] / np.float32(_RIDGE_FRAC)
    for c in range(max(z - RIDGE_PX, 0), min(z + RIDGE_PX + 1, nz)):
        for b in range(max(y - RIDGE_PX, 0), min(y + RIDGE_PX + 1, ny)):
            for a in range(max(x - RIDGE_PX, 0), min(x + RIDGE_PX + 1, nx)):
                if objects[c, b, a] == objects[z, y, x] and score[c, b, a] > most:
                    return False
    return True


def paint(objects: Ids, *, kinds: NDArray[np.uint8], numbers: Ids, phases: Phases, ids: Ids) -> None:
    """Paint objects over phases and ids (z, y, x), in place; those whose number is 0 are left out.

    Parameters
    ----------
    kinds, numbers : (object + 1,) phase and final number of each object, of no object first.
    """
    _paint(objects, kinds, numbers, phases, ids)


@numba.njit(cache=True, nogil=True)
def _paint(objects, kinds, numbers, phases, ids):  # type: ignore[no-untyped-def]
    nz, ny, nx = objects.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                who = objects[z, y, x]
                if who and numbers[who] > 0:
                    phases[z, y, x] = kinds[who]
                    ids[z, y, x] = numbers[who]
