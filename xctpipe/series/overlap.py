"""How much objects of one scan overlap those of another, whose stack has moved; nothing is resampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import DoubleArray
from xctpipe.series.rigid import Rigid

Ids = NDArray[np.int32]
Slices = tuple[slice, slice, slice]
ReadIds = Callable[[Slices], Ids]
Step = tuple[int, int, int]

_SIDES = (-1, 0, 1)
NEAR: tuple[Step, ...] = tuple((z, y, x) for z in _SIDES for y in _SIDES for x in _SIDES if z or y or x)
"""Steps to the neighbours of a voxel."""
BESIDE: tuple[Step, ...] = (*NEAR, *((2 * z, 2 * y, 2 * x) for z, y, x in NEAR))
"""Steps by which two pieces of the same crack may lie apart."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a level of a volume are."""

    shape: tuple[int, int, int]
    voxel_um: float
    first_um: float
    """z_um of the middle of its first row, from the centre of detector row 0."""
    axis_px: tuple[float, float]
    """Voxel (y, x) of the axis of rotation."""

    @property
    def origin_um(self) -> DoubleArray:
        """Position (z, y, x) of voxel 0, 0, 0."""
        y, x = self.axis_px
        return np.array([self.first_um, -y * self.voxel_um, -x * self.voxel_um])


@dataclass(frozen=True, eq=False)
class Way:
    """From voxels of one grid to those of another: q = M p + c."""

    matrix: DoubleArray
    shift_px: DoubleArray

    def __call__(self, places: NDArray[Any]) -> DoubleArray:
        """Map voxels (n, 3), which need not be whole."""
        return np.asarray(places @ self.matrix.T + self.shift_px)


def way_between(a: Grid, b: Grid, *, moved: Rigid) -> Way:
    """From voxels of scan A to those of scan B.

    Parameters
    ----------
    moved : from positions in A to positions in B.
    """
    matrix = moved.matrix * (a.voxel_um / b.voxel_um)
    return Way(matrix, (moved(a.origin_um) - b.origin_um) / b.voxel_um)


def nearest(way: Way, places: NDArray[Any]) -> NDArray[np.int64]:
    """The voxel nearest to each that is mapped, in the grid or not."""
    # to a whole multiple of 2^-20 first: a voxel on the edge of two must not depend on the last bit
    exact = np.rint(way(places) * 2.0**20) / 2.0**20
    return np.floor(exact + 0.5).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Counts:
    """Voxels of pairs of objects, sorted by the pair."""

    pairs: NDArray[np.int64]
    """(n, 2): object of A, object of B."""
    voxels: NDArray[np.int64]
    """(n,): voxels of A."""

    def items(self) -> list[tuple[int, int, int]]:
        """Object of A, object of B, voxels."""
        return [
            (int(i), int(j), int(n))
            for (i, j), n in zip(self.pairs.tolist(), self.voxels.tolist(), strict=True)
        ]


def add_up(parts: Sequence[Counts]) -> Counts:
    """The sums of what was counted in parts of a volume."""
    pairs = np.concatenate([np.empty((0, 2), np.int64), *(part.pairs for part in parts)])
    voxels = np.concatenate([np.empty(0, np.int64), *(part.voxels for part in parts)])
    found, place = np.unique(pairs, axis=0, return_inverse=True)
    sums = np.zeros(len(found), np.int64)
    np.add.at(sums, place.ravel(), voxels)
    return Counts(found, sums)


def sizes(labels: Ids) -> Counts:
    """Voxels of each object, as pairs of an object with itself."""
    ids, n = np.unique(labels[labels > 0], return_counts=True)
    return Counts(np.repeat(ids[:, None], 2, axis=1).astype(np.int64), n.astype(np.int64))


def overlaps(labels: Ids, start: tuple[int, int, int], *, read: ReadIds, grid: Grid, way: Way) -> Counts:
    """Count the voxels of objects of A that lie in objects of B.

    A voxel of A that meets nothing in B counts for all objects of B that are neighbours of the voxel it
    meets: thin things that lie a part of a voxel elsewhere still overlap.

    Parameters
    ----------
    labels : (z, y, x), a part of A.
    start : its first voxel.
    read : part of the labels of B, which has this `grid`.
    way : from voxels of A to those of B.

    References
    ----------
    Fukai & Kawaguchi (2023), LapTrack, doi:10.1093/bioinformatics/btac799: linking by overlap.
    """
    places = np.argwhere(labels > 0)
    met = nearest(way, places + np.asarray(start))
    window = _window(met, grid.shape)
    if window is None:
        return Counts(np.empty((0, 2), np.int64), np.empty(0, np.int64))
    first = np.array([part.start for part in window])
    others = read(window)
    ids = labels[tuple(places.T)]
    here = _values(others, met - first)
    hit, rest = here > 0, here == 0
    straight = Counts(*_counted(np.stack([ids[hit], here[hit]], axis=1)))
    return add_up([straight, _around(ids[rest], met[rest] - first, others, NEAR)])


def neighbours(labels: Ids, start: tuple[int, int, int], *, read: ReadIds, grid: Grid) -> Counts:
    """Pairs of objects of one scan, both greater than 0, of which voxels lie at most 2 apart."""
    places = np.argwhere(labels > 0)
    met = places + np.asarray(start)
    window = _window(met, grid.shape, margin=2)
    if window is None:
        return Counts(np.empty((0, 2), np.int64), np.empty(0, np.int64))
    first = np.array([part.start for part in window])
    return _around(labels[tuple(places.T)], met - first, read(window), BESIDE, itself=False)


def _window(
    met: NDArray[np.int64], shape: tuple[int, int, int], margin: int = 1
) -> tuple[slice, slice, slice] | None:
    if not len(met):
        return None
    low = np.clip(met.min(axis=0) - margin, 0, shape)
    high = np.clip(met.max(axis=0) + margin + 1, 0, shape)
    if (low >= high).any():
        return None
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def _values(labels: Ids, places: NDArray[np.int64]) -> Ids:
    """Labels at places; 0 where these lie beyond."""
    inside = ((places >= 0) & (places < np.array(labels.shape))).all(axis=1)
    out = np.zeros(len(places), np.int32)
    out[inside] = labels[tuple(places[inside].T)]
    return out


def _around(
    ids: Ids, places: NDArray[np.int64], others: Ids, steps: Sequence[Step], *, itself: bool = True
) -> Counts:
    """Pairs of objects by steps; a voxel counts once for each object that it meets in any.

    Parameters
    ----------
    itself : pairs of an object with that of the same number count too.
    """
    found = [np.empty((0, 3), np.int64)]
    for step in steps:
        value = _values(others, places + np.array(step))
        there = np.flatnonzero((value > 0) & (itself | (value != ids)))
        found.append(np.stack([there, ids[there], value[there]], axis=1).astype(np.int64))
    once = np.unique(np.concatenate(found), axis=0)
    return Counts(*_counted(once[:, 1:]))


def _counted(pairs: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    found, n = np.unique(pairs.astype(np.int64).reshape(-1, 2), axis=0, return_counts=True)
    return found, n.astype(np.int64)
