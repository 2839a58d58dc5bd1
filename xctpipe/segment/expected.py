"""What an undisturbed cell would look like: its layers with their offsets, and faces as sharp as the scan's.

Every value depends on its own place only: a box is what the whole volume would hold there, bit by bit.
"""

from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.correct.threads import in_threads
from xctpipe.scan import FloatArray
from xctpipe.segment.edge import PER_PX, Edge, edge_table, look_up
from xctpipe.segment.scene import (
    COLLECTOR,
    COLLECTOR_FACE,
    COUNTER,
    COUNTER_FACE,
    INTERFACE,
    LIQUID,
    OUTSIDE,
    SOLID,
    Level,
    Scene,
)
from xctpipe.segment.tails import tail_table
from xctpipe.segment.view import Box, from_axis, grey_map, plane

_FACES = ((COLLECTOR_FACE, COLLECTOR, LIQUID), (INTERFACE, LIQUID, SOLID), (COUNTER_FACE, SOLID, COUNTER))
"""Faces in the order of the stack, and the hosts before and behind."""
_ROWS_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class _Stack:
    """Hosts of a box from low z to high z, and the heights (face, y, x) between them."""

    hosts: NDArray[np.uint8]
    heights: FloatArray
    names: tuple[str, ...]


def expected(scene: Scene, box: Box) -> FloatArray:
    """Grey values of an undisturbed cell in a box.

    Host levels with their offsets; at each face a step of the profile that the scan has (`edge.py`), with
    what phase retrieval left of it (`tails.py`), at the height that `Surface.used_px` says. 0 beyond the
    view.

    Parameters
    ----------
    box : first and end voxel along z, y and x.

    Returns
    -------
    (z, y, x) in cm^-1; equal to what a larger box holds there.
    """
    return undisturbed(scene, box)[0]


def undisturbed(scene: Scene, box: Box) -> tuple[FloatArray, NDArray[np.uint8]]:
    """What `expected` and `hosts` return, made in one pass."""
    stack = _stack(scene, box)
    (z0, z1), rows, cols = box
    grey = np.stack([_grey(scene, int(host), rows, cols) for host in stack.hosts])
    tables = _tables(scene, stack)
    outside = _outside(scene, box)
    flat = np.where(outside, np.float32(0), _flat(grey))
    shape = z1 - z0, rows[1] - rows[0], cols[1] - cols[0]
    out, layers = np.empty(shape, np.float32), np.empty(shape, np.uint8)
    between = _between(stack, (z0, z1), reach_px=(tables.shape[1] - 1) // 2 / PER_PX + 1)

    def fill(first: int, end: int) -> None:
        for k in range(first, end):
            if between[k] < 0:
                _fill(out[k : k + 1], z0 + k, grey, stack.heights, tables, outside)
            else:
                out[k] = flat[between[k]]

    in_threads(fill, len(out), block=_ROWS_AT_ONCE)
    _all_hosts(layers, z0, stack, outside)
    return out, layers


def hosts(scene: Scene, box: Box) -> NDArray[np.uint8]:
    """Host of each voxel of a box (z, y, x): the layer that its centre lies in, by the heights in use."""
    (z0, z1), rows, cols = box
    out = np.empty((z1 - z0, rows[1] - rows[0], cols[1] - cols[0]), np.uint8)
    _all_hosts(out, z0, _stack(scene, box), _outside(scene, box))
    return out


def _all_hosts(out: NDArray[np.uint8], z0: int, stack: _Stack, outside: NDArray[np.bool_]) -> None:
    between = _between(stack, (z0, z0 + len(out)), reach_px=1.0)
    flat = np.where(outside, np.uint8(OUTSIDE), stack.hosts[:, None, None])
    for k, at in enumerate(between):
        if at < 0:
            _fill_hosts(out[k : k + 1], z0 + k, stack.hosts, stack.heights, outside)
        else:
            out[k] = flat[at]


def _flat(grey: FloatArray) -> FloatArray:
    """What `_fill` gives far from all faces, for each layer: it adds up the steps below."""
    steps = np.concatenate([grey[:1], grey[1:] - grey[:-1]])
    return np.cumsum(steps, axis=0, dtype=np.float64).astype(np.float32)


def _between(stack: _Stack, rows: tuple[int, int], *, reach_px: float) -> NDArray[np.int64]:
    """Layer in which each row lies as a whole, further than a reach from every face; -1 where in none."""
    z = np.arange(*rows)
    low, high = stack.heights.min(axis=(1, 2)), stack.heights.max(axis=(1, 2))
    below = z[:, None] > high + reach_px
    sure = (below | (z[:, None] < low - reach_px)).all(axis=1)
    # above one face and below one before it: heights cross
    sure &= (np.diff(below.astype(int), axis=1) <= 0).all(axis=1)
    return np.where(sure, below.sum(axis=1), -1)


def above_interface_px(scene: Scene, box: Box, *, reference: bool = False) -> FloatArray:
    """Signed distance along z to the interface, positive into the NASICON (z, y, x).

    Parameters
    ----------
    reference : of the undeformed plane instead of the interface as it is used (`Surface.used_px`).

    Raises
    ------
    KeyError
        If the interface is not in view.
    """
    rows, cols = box[1:]
    height = face_height(scene, INTERFACE, rows=rows, cols=cols, reference=reference)
    return distance_px(height, rows=box[0], side=scene.side)


def distance_px(height: FloatArray, *, rows: tuple[int, int], side: int) -> FloatArray:
    """Distance of voxels (z, y, x) from heights (y, x) along z, positive at higher z where `side` is 1."""
    out = np.empty((rows[1] - rows[0], *height.shape), np.float32)
    _fill_distance(out, rows[0], height, np.float32(side))
    return out


def face_height(
    scene: Scene, name: str, *, rows: tuple[int, int], cols: tuple[int, int], reference: bool = False
) -> FloatArray:
    """Height of a face in each column (y, x): as it is used, or of its undeformed plane."""
    face = scene.surfaces[name]
    flat = plane(face.reference, axis_px=scene.axis_px, rows=rows, cols=cols).astype(np.float32)
    if reference or face.used_px is None:
        return flat
    used = face.used_px[slice(*rows), slice(*cols)]
    return np.where(np.isfinite(used), used, flat)


def contrast_cm1(scene: Scene, name: str) -> float:
    """Difference of the levels on both sides of a face, on the axis."""
    sides = next((low, high) for face, low, high in _FACES if face == name)
    low, high = (_middle(scene, host) for host in sides)
    return abs(high - low)


def _middle(scene: Scene, host: int) -> float:
    level = _level(scene, host)
    if level is not None:
        return level.mu_cm1 + float(level.offset_cm1[0])
    return float(scene.other_cm1.get(host, 0.0))


def _level(scene: Scene, host: int) -> Level | None:
    if host == SOLID:
        return scene.solid
    return scene.liquid if host == LIQUID else scene.other_levels.get(host)


def _stack(scene: Scene, box: Box) -> _Stack:
    faces = [face for face in _FACES if face[0] in scene.surfaces]
    _, rows, cols = box
    if not faces:
        host = SOLID if scene.solid is not None else LIQUID
        empty = np.empty((0, rows[1] - rows[0], cols[1] - cols[0]), np.float32)
        return _Stack(np.array([host], np.uint8), empty, ())
    order = [faces[0][1], *(face[2] for face in faces)]
    names = [face[0] for face in faces]
    if scene.side < 0:
        order, names = order[::-1], names[::-1]
    heights = np.stack([face_height(scene, name, rows=rows, cols=cols) for name in names])
    return _Stack(np.array(order, np.uint8), heights, tuple(names))


def _grey(scene: Scene, host: int, rows: tuple[int, int], cols: tuple[int, int]) -> FloatArray:
    level = _level(scene, host)
    if level is None:
        shape = rows[1] - rows[0], cols[1] - cols[0]
        return np.full(shape, scene.other_cm1.get(host, 0.0), np.float32)
    return grey_map(level, axis_px=scene.axis_px, rows=rows, cols=cols)


def _tables(scene: Scene, stack: _Stack) -> FloatArray:
    """Profile of each face from low z to high z; a profile is made for the bright layer behind the face."""
    edge = Edge(scene.blur_px, scene.path_cm, scene.edge_parts)
    middles = [_middle(scene, int(host)) for host in stack.hosts]
    tables = []
    for low, high in pairwise(middles):
        table = edge_table(edge, contrast_cm1=abs(high - low))
        tables.append(table if high >= low else 1 - table[::-1])
    length = len(edge_table(edge, contrast_cm1=0.0))
    if not tables:
        return np.empty((0, length), np.float32)
    if not scene.tail_px:
        return np.stack(tables)
    tail = tail_table(scene.tail_px, blur_px=scene.blur_px)
    more = max(len(tail) - length, 0) // 2
    wide = [np.pad(table, more, mode="edge") for table in tables]
    longer = np.pad(tail, (len(wide[0]) - len(tail)) // 2)
    fracs = [scene.tail_fracs.get(name, 0.0) for name in stack.names]
    return np.stack([each + np.float32(frac) * longer for each, frac in zip(wide, fracs, strict=True)])


def _outside(scene: Scene, box: Box) -> NDArray[np.bool_]:
    dy, dx = from_axis(scene.axis_px, rows=box[1], cols=box[2])
    outside: NDArray[np.bool_] = np.hypot(dy, dx) > scene.view_px
    return outside


@numba.njit(cache=True, nogil=True)
def _fill(out, z0, grey, heights, tables, outside):  # type: ignore[no-untyped-def]
    nz, ny, nx = out.shape
    n = heights.shape[0]
    for k in range(nz):
        z = np.float32(z0 + k)
        for y in range(ny):
            for x in range(nx):
                value = grey[0, y, x]
                for f in range(n):
                    share = look_up(tables[f], z - heights[f, y, x])
                    if share != 0:
                        value += share * (grey[f + 1, y, x] - grey[f, y, x])
                out[k, y, x] = np.float32(0) if outside[y, x] else np.float32(value)


@numba.njit(cache=True, nogil=True)
def _fill_hosts(out, z0, order, heights, outside):  # type: ignore[no-untyped-def]
    nz, ny, nx = out.shape
    for k in range(nz):
        z = np.float32(z0 + k)
        for y in range(ny):
            for x in range(nx):
                at = 0
                for f in range(heights.shape[0]):
                    if z > heights[f, y, x]:
                        at = f + 1
                out[k, y, x] = np.uint8(OUTSIDE) if outside[y, x] else order[at]


@numba.njit(cache=True, nogil=True)
def _fill_distance(out, z0, height, side):  # type: ignore[no-untyped-def]
    for k in range(len(out)):
        z = np.float32(z0 + k)
        for y in range(height.shape[0]):
            for x in range(height.shape[1]):
                out[k, y, x] = side * (z - height[y, x])
