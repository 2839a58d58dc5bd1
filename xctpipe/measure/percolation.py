"""Whether a crack connects NaK and counter electrode, how narrow it is, and how long the way is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from xctpipe.measure.position import TOUCH_PX, touches
from xctpipe.measure.regions import CRACKS, Context, Region
from xctpipe.measure.registry import Gathered, Whole
from xctpipe.measure.sheets import sheets_of
from xctpipe.scan import DoubleArray
from xctpipe.segment.expected import face_height
from xctpipe.segment.scene import COUNTER_FACE, INTERFACE, Scene


@dataclass(frozen=True, eq=False)
class CrackVoxels:
    """Voxels of cracks, in any order: place in the volume, object, local opening (voxels of void)."""

    places: Whole
    objects: NDArray[np.int32]
    openings_px: DoubleArray


@dataclass(frozen=True)
class Percolation:
    """One connecting crack, or none: then only `percolates` has a meaning."""

    object: int
    percolates: bool
    bottleneck_um: float
    path_um: float
    tortuosity: float


def crack_voxels(region: Region) -> CrackVoxels:
    """Voxels of the cracks of a block's core with their openings, for `percolation_of`."""
    sheets = sheets_of(region)
    if sheets is None:
        return CrackVoxels(np.empty((0, 3), np.int64), np.empty(0, np.int32), np.empty(0))
    places = np.stack([a + s for a, s in zip(sheets.voxels, region.patch.origin, strict=True)], axis=1)
    return CrackVoxels(places.astype(np.int64), sheets.voxel_owner, sheets.voxel_opening_px)


def connecting(got: Gathered, context: Context) -> Whole:
    """Cracks that touch both the interface and the counter face: only their voxels are wanted."""
    both = touches(got, INTERFACE) & touches(got, COUNTER_FACE)
    return context.objects.ids[both & np.isin(context.objects.kinds, CRACKS)]


def percolation_of(voxels: CrackVoxels, context: Context) -> list[Percolation]:
    """For each object among the voxels: does it connect both faces, and how.

    Voxels are linked to their 26 neighbours. `bottleneck_um` is the largest opening that a way through can
    keep everywhere (a way in the maximum spanning tree); openings of `crack_filled` are divided by
    1 - mu_NaK / mu_NASICON. A way begins and ends within `TOUCH_PX` of the faces, in whose blur nothing is
    seen: metal in the mouth of a crack looks like metal above it. `path_um` is the length of the shortest
    way, smoothed over 7 voxels since a way on a grid is up to 13 % too long, which rounds sharp bends off;
    `tortuosity` is that over the distance of its ends. Bias: a crack thinner than what is detected counts as
    closed.

    References
    ----------
    Hu, T. C. (1961), The maximum capacity route problem, 10.1287/opre.9.6.898
    """
    found = []
    for name in np.unique(voxels.objects).tolist():
        own = voxels.objects == name
        order = np.lexsort(voxels.places[own].T[::-1])
        places, openings = voxels.places[own][order], voxels.openings_px[own][order]
        at = np.searchsorted(context.objects.ids, name)
        scale = 1 / context.metal_frac if context.objects.kinds[at] == "crack_filled" else 1.0
        found.append(_percolation(name, places, openings * scale, context))
    return found


def _percolation(name: int, places: Whole, openings: DoubleArray, context: Context) -> Percolation:
    first, last = (_touching(places, context, face) for face in (INTERFACE, COUNTER_FACE))
    nothing = Percolation(name, False, np.nan, np.nan, np.nan)
    if not len(first) or not len(last):
        return nothing
    a, b = _links(places)
    n = len(places)
    narrow = np.minimum(openings[a], openings[b])
    capacity = _bottleneck((a, b, narrow), (first, last), openings)
    if capacity is None:
        return nothing
    steps = np.sqrt(((places[a] - places[b]) ** 2).sum(axis=1))
    graph = sparse.csr_array((steps, (a, b)), shape=(n, n))
    # a way goes on to the nearest that its crack comes to a face
    tips = (_tips(places, (a, b), context.scene, face) for face in (INTERFACE, COUNTER_FACE))
    way = _shortest(
        graph, *(np.intersect1d(near, tip) for near, tip in zip((first, last), tips, strict=True))
    )
    points = places[way].astype(float)
    # a way ends where it first comes near a face
    ends = ((way[0], INTERFACE), (way[-1], COUNTER_FACE))
    rest = sum(float(_gaps(places[i : i + 1], context.scene, face)[0]) for i, face in ends)
    length, straight = _length(points) + rest, float(np.linalg.norm(points[-1] - points[0])) + rest
    um = context.scene.voxel_um
    return Percolation(name, True, capacity * um, length * um, max(length / max(straight, 1.0), 1.0))


def _touching(places: Whole, context: Context, name: str) -> Whole:
    if name not in context.scene.surfaces:
        return np.empty(0, np.int64)
    return np.flatnonzero(_gaps(places, context.scene, name) <= TOUCH_PX)


def _gaps(places: Whole, scene: Scene, name: str) -> DoubleArray:
    """Distance along z of voxels to a face, as it is used for `position.touches`."""
    (y0, x0), (y1, x1) = places[:, 1:].min(axis=0).tolist(), places[:, 1:].max(axis=0).tolist()
    height = face_height(scene, name, rows=(y0, y1 + 1), cols=(x0, x1 + 1))
    away = np.abs(places[:, 0] - height[places[:, 1] - y0, places[:, 2] - x0].astype(np.float64))
    return np.asarray(np.maximum(away - 0.5, 0))


def _tips(places: Whole, links: tuple[Whole, Whole], scene: Scene, name: str) -> Whole:
    """Voxels without a neighbour that is nearer to a face."""
    gap = _gaps(places, scene, name)
    least = gap.copy()
    for a, b in (links, links[::-1]):
        np.minimum.at(least, a, gap[b])
    return np.flatnonzero(least >= gap)


def _links(places: Whole) -> tuple[Whole, Whole]:
    """Pairs of neighbouring voxels (26), lower index first."""
    low = places.min(axis=0) - 1
    size = places.max(axis=0) - low + 2
    flat = np.ravel_multi_index(tuple((places - low).T), tuple(size.tolist()))
    firsts, seconds = [], []
    steps = [(i, j, k) for i in (0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if (i, j, k) > (0, 0, 0)]
    for step in steps:
        other = flat + int(step[0] * size[1] * size[2] + step[1] * size[2] + step[2])
        at = np.minimum(np.searchsorted(flat, other), len(flat) - 1)
        hit = np.flatnonzero(flat[at] == other)
        firsts.append(hit)
        seconds.append(at[hit])
    return np.concatenate(firsts), np.concatenate(seconds)


def _bottleneck(
    links: tuple[Whole, Whole, DoubleArray], ends: tuple[Whole, Whole], openings: DoubleArray
) -> float | None:
    """Largest opening at which both ends are linked, None where they never are; by bisection."""
    a, b, narrow = links
    values = np.unique(openings)

    def linked(i: int) -> bool:
        use, open_ = narrow >= values[i], openings >= values[i]
        n = len(openings)
        graph = sparse.csr_array((np.ones(int(use.sum()), np.int8), (a[use], b[use])), shape=(n, n))
        part = csgraph.connected_components(graph, directed=False)[1]
        first, last = (part[end[open_[end]]] for end in ends)
        return bool(np.isin(first, last).any())

    if not linked(0):
        return None
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if linked(middle) else (low, middle)
    return float(values[low])


def _shortest(graph: "sparse.csr_array", first: Whole, last: Whole) -> Whole:
    far, before, _ = csgraph.dijkstra(
        graph, directed=False, indices=first, min_only=True, return_predecessors=True
    )
    way = [int(last[np.argmin(far[last])])]
    while before[way[-1]] >= 0:
        way.append(int(before[way[-1]]))
    return np.array(way[::-1])


def _length(points: DoubleArray) -> float:
    """Length of a way over voxels, each point replaced by the mean of up to 7 about it; the ends stay."""
    n = len(points)
    running = np.concatenate([np.zeros((1, 3)), np.cumsum(points, axis=0)])
    half = np.minimum(np.minimum(np.arange(n), np.arange(n)[::-1]), 3)
    i = np.arange(n)
    smooth = (running[i + half + 1] - running[i - half]) / (2 * half + 1)[:, None]
    return float(np.sqrt((np.diff(smooth, axis=0) ** 2).sum(axis=1)).sum())
