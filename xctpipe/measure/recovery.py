"""What a void misses near a face of its layer, and what must be made up for.

Blur carries a part over to rows of the other layer. And where rows that see both layers average brightness,
the bright side counts most: a void in NASICON beside NaK of a fourth of its absorption shows half of itself.
"""

from functools import lru_cache

import numpy as np

from xctpipe.scan import DoubleArray
from xctpipe.segment.edge import BOX, Edge
from xctpipe.segment.expected import contrast_cm1
from xctpipe.segment.scene import COLLECTOR_FACE, COUNTER_FACE, INTERFACE, SOLID, Scene

PER_PX = 16
ROWS = 8
"""From a face; farther rows are as they are."""
_BEYOND = 6
_SIGMAS = 4.5
_RIDGE = 0.05
_WHOLE = 3.0
_LEAST, _MOST = 0.3, 4.0

FACES_OF: dict[bool, tuple[tuple[str, int, int], ...]] = {
    True: ((INTERFACE, 1, 1), (COUNTER_FACE, -1, 1)),
    False: ((INTERFACE, -1, -1), (COLLECTOR_FACE, 1, -1)),
}
"""By whether the layer is NASICON: faces, in which direction of the stack it lies behind the face, and 1
where it is the one that absorbs more."""


def tables(scene: Scene, host: int) -> dict[str, tuple[int, DoubleArray]]:
    """For each face of a layer in view: sign of z into the layer, and weights by the distance of a row.

    Entry i holds for rows whose centre is (i + 1/2) / PER_PX within the layer.
    """
    out = {}
    for name, way, brightness in FACES_OF[host == SOLID]:
        if name in scene.surfaces:
            k = brightness * contrast_cm1(scene, name) * scene.path_cm
            out[name] = way * scene.side, _weights(scene.blur_px, scene.edge_parts, round(k, 6))
    return out


@lru_cache(maxsize=32)
def _weights(blur_px: float, parts: int, k: float) -> DoubleArray:
    """Weights u(d) with which a sum over the rows of a layer holds all of a void in it.

    A row r reads -ln(sum_q W_rq exp(-a_q)), so that a void in part q of a row shows the share
    R_rq = W_rq exp(-a_q) / sum_q W_rq exp(-a_q) of itself there. Sought are weights of rows with
    sum_r u_r R_rq = 1 for all parts q of the layer, by least squares, as near to 1 as that allows, and most
    of all for their sum.
    """
    edge = Edge(blur_px, 0.0, parts)
    out = np.ones((ROWS, PER_PX))
    for i in range(PER_PX):
        out[:, i] = _solved((i + 0.5) / PER_PX, edge, k)
    return np.clip(out, _LEAST, _MOST).ravel()


def _solved(first_px: float, edge: Edge, k: float) -> DoubleArray:
    """Weights of the rows whose centres are first_px, first_px + 1, ... within the layer."""
    p = edge.parts
    sigma = float(np.sqrt(max(edge.blur_px**2 - BOX, 1e-4)))
    own = (np.arange(p) - (p - 1) / 2) / p
    # parts of rows, by their distance from the face, and rows that see the layer
    at = first_px + (np.arange(-_BEYOND, ROWS + 2 * _BEYOND)[:, None] + own).ravel()
    rows = first_px + np.arange(ROWS + _BEYOND)
    share = np.clip(at * p + 0.5, 0, 1)
    steps = np.arange(-np.ceil(_SIGMAS * sigma * p), np.ceil(_SIGMAS * sigma * p) + 1) / p
    blur = np.exp(-0.5 * (steps / sigma) ** 2)
    weight = np.zeros((len(rows), len(at)))
    for step, part in zip(steps, blur / (blur.sum() * p), strict=True):
        for o in own:
            weight += part * (np.abs(rows[:, None] - step - o - at) < 0.25 / p)
    bright = weight * np.exp(-k * share)
    response = p * bright / np.maximum(bright.sum(axis=1, keepdims=True), 1e-12)
    known = np.sqrt(share * (at < ROWS) / p)
    free, fixed = response[:ROWS], response[ROWS:].sum(axis=0)
    system = free.T * known[:, None]
    missing = (1 - fixed - free.sum(axis=0)) * known
    # what spans all rows of the layer, as a crack that opens at the face does, matters most
    system = np.vstack([system, _WHOLE * (known @ system)])
    missing = np.append(missing, _WHOLE * (known @ missing))
    left = system.T @ system + _RIDGE * np.eye(ROWS)
    return np.asarray(1 + np.linalg.solve(left, system.T @ missing))
