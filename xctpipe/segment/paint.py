"""Labels of a block, painted layer by layer: hosts first, objects over them."""

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import FloatArray
from xctpipe.segment.codes import PHASES
from xctpipe.segment.scene import COLLECTOR, COUNTER, LIQUID, SOLID

Phases = NDArray[np.uint8]
Ids = NDArray[np.int32]

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
                if who and score[z, y, x] >= outlines[who]:
                    out[z, y, x] = who


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
