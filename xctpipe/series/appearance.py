"""When a voxel of the pellet was first part of a crack."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xctpipe.series.overlap import Grid, ReadIds, Slices, Way, nearest

MOST = 255
"""Scans that have a number of their own: later ones share the last."""


def first_appearance(
    where: Slices,
    *,
    reads: Sequence[ReadIds],
    grids: Sequence[Grid],
    ways: Sequence[Way],
    cracks: Sequence[frozenset[int]],
) -> NDArray[np.uint8]:
    """Number of the scan, from 1, in which each voxel of a part of the first scan's grid was first crack.

    Parameters
    ----------
    where : the part.
    reads : parts of the labels of each scan, in order of time.
    grids : of these labels.
    ways : from voxels of the first scan to those of each, the first one's own among them.
    cracks : numbers of the objects of each scan that are cracks.

    Returns
    -------
    0 where no crack was seen. A voxel keeps its number when the crack closes.
    """
    origin = np.array([part.start for part in where])
    shape = tuple(part.stop - part.start for part in where)
    out = np.zeros(shape, np.uint8)
    for number, (read, grid, way, ids) in enumerate(zip(reads, grids, ways, cracks, strict=True), start=1):
        if not ids:
            continue
        window = _seen_from(origin, np.array(shape), way, grid.shape)
        if window is None:
            continue
        found = np.isin(read(window), sorted(ids))
        if found.any():
            _mark(out, found, number=min(number, MOST), origin=origin, first=window, way=way)
    return out


def _corners(low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array(
        [[z, y, x] for z in (low[0], high[0]) for y in (low[1], high[1]) for x in (low[2], high[2])]
    )


def _seen_from(
    origin: NDArray[np.int64], shape: NDArray[np.int64], way: Way, limits: tuple[int, int, int]
) -> Slices | None:
    """The part of another grid in which a box of the first one lies."""
    met = way(_corners(origin, origin + shape - 1))
    low = np.clip(np.floor(met.min(axis=0)).astype(np.int64) - 1, 0, limits)
    high = np.clip(np.ceil(met.max(axis=0)).astype(np.int64) + 2, 0, limits)
    if (low >= high).any():
        return None
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def _mark(
    out: NDArray[np.uint8],
    found: NDArray[np.bool_],
    *,
    number: int,
    origin: NDArray[np.int64],
    first: Slices,
    way: Way,
) -> None:
    """Set what is crack and has no number yet, only looking where the crack may be."""
    places = np.argwhere(found)
    start = np.array([part.start for part in first])
    back = np.linalg.inv(way.matrix)
    ends = _corners(places.min(axis=0) + start, places.max(axis=0) + start)
    reached = (ends - way.shift_px) @ back.T - origin
    low = np.clip(np.floor(reached.min(axis=0)).astype(np.int64) - 1, 0, out.shape)
    high = np.clip(np.ceil(reached.max(axis=0)).astype(np.int64) + 2, 0, out.shape)
    if (low >= high).any():
        return
    (_, y0, x0), (_, y1, x1) = low, high
    rows, columns = np.meshgrid(np.arange(y0, y1), np.arange(x0, x1), indexing="ij")
    for z in range(int(low[0]), int(high[0])):
        here = np.stack([np.full(rows.size, z), rows.ravel(), columns.ravel()], axis=1)
        met = nearest(way, here + origin) - start
        inside = ((met >= 0) & (met < np.array(found.shape))).all(axis=1)
        hit = np.zeros(len(here), np.bool_)
        hit[inside] = found[tuple(met[inside].T)]
        plane = out[z, y0:y1, x0:x1]
        plane[hit.reshape(plane.shape) & (plane == 0)] = number


def coarser(numbers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Voxels of twice the edge: the earliest of those in them that is not 0."""
    z, y, x = (-(-n // 2) for n in numbers.shape)
    padded = np.zeros((2 * z, 2 * y, 2 * x), np.uint8)
    padded[tuple(slice(n) for n in numbers.shape)] = numbers
    # 0 becomes 255, the last
    last = (padded - np.uint8(1)).reshape(z, 2, y, 2, x, 2).min(axis=(1, 3, 5))
    return np.asarray(last + np.uint8(1), dtype=np.uint8)
