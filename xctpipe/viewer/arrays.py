"""Volumes of a series as one array (t, z, y, x) that reads from disk only what is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dask.array as da
import numpy as np
from numpy.typing import DTypeLike, NDArray

from xctpipe import pyramid

Shape = tuple[int, int, int]


class Convert(Protocol):
    """Makes of stored voxels those that are shown; of voxels that are not there it would be given zeros."""

    def __call__(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Voxels of the same shape."""


@dataclass(frozen=True)
class Scaled:
    """Integers to cm^-1: stored * scale + offset."""

    scale: float
    offset: float

    def __call__(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Voxels of the same shape, float32."""
        return stored.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)


@dataclass(frozen=True, eq=False)
class Numbered:
    """Numbers of objects to the labels under which they are shown."""

    table: NDArray[np.int32]
    """Label of each number, its first entry that of 0."""
    base: int
    """Added to numbers beyond the table, except 0."""

    def __call__(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Labels, int32."""
        known = stored < len(self.table)
        labels = self.table[np.where(known, stored, 0)]
        return np.where(known, labels, stored + self.base).astype(np.int32, copy=False)


@dataclass(frozen=True)
class UpTo:
    """Only values up to a largest one: cracks that have appeared by now."""

    largest: int

    def __call__(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The same with 0 for what is larger."""
        return np.where(stored <= self.largest, stored, 0).astype(stored.dtype, copy=False)


@dataclass(frozen=True)
class Placed:
    """A volume of one scan within the grid that all scans share."""

    levels: Sequence[Any]
    """Arrays (z, y, x), the finest first, as zarr opens them."""
    first: Shape = (0, 0, 0)
    """Where its first voxel lies in that grid, in voxels; beyond the grid it is cut."""
    convert: Convert | None = None


class Level:
    """One level of a series: an array (t, z, y, x) to be read by slices; zeros where there is no volume.

    Parameters
    ----------
    placed : volume of each scan, None for those that have none.
    shape : (z, y, x) of the level that all scans share.
    level : 0 is the finest. A shift is rounded to whole voxels of the level.
    """

    ndim = 4

    def __init__(
        self, placed: Sequence[Placed | None], *, shape: Shape, level: int, dtype: DTypeLike
    ) -> None:
        self.shape = (len(placed), *shape)
        self.dtype = np.dtype(dtype)
        self._placed = tuple(placed)
        self._level = level

    def __getitem__(self, where: tuple[slice | int, ...]) -> NDArray[Any]:
        spans = [_span(each, n) for each, n in zip(where, self.shape, strict=True)]
        (t0, t1), box = spans[0], spans[1:]
        out = np.zeros([max(0, b - a) for a, b in spans], self.dtype)
        for t in range(t0, t1):
            placed = self._placed[t]
            if placed is not None:
                self._fill(out[t - t0], placed, box)
        # a number drops its axis
        return out[tuple(slice(None) if isinstance(each, slice) else 0 for each in where)]

    def _fill(self, out: NDArray[Any], placed: Placed, box: Sequence[tuple[int, int]]) -> None:
        array = placed.levels[self._level]
        taken, given = [], []
        for (a, b), first, n in zip(box, placed.first, array.shape, strict=True):
            shift = round(first / 2**self._level)
            low, high = max(a, shift), min(b, shift + n)
            if low >= high:
                return
            taken.append(slice(low - shift, high - shift))
            given.append(slice(low - a, high - a))
        stored = np.asarray(array[tuple(taken)])
        out[tuple(given)] = stored if placed.convert is None else placed.convert(stored)


def _span(where: slice | int, length: int) -> tuple[int, int]:
    """From where to where; dask asks without steps."""
    if not isinstance(where, slice):
        return int(where), int(where) + 1
    start, stop, _ = where.indices(length)
    return start, stop


def lazy_levels(placed: Sequence[Placed | None], *, shape: Shape, dtype: DTypeLike) -> list[Any]:
    """The levels of a series as dask arrays (t, z, y, x), the finest first.

    Parameters
    ----------
    placed : volume of each scan in order of time, None for those that have none; not all of them.
    shape : (z, y, x) of the finest level of the grid that all share.

    Returns
    -------
    As many levels as every volume has. One dask block is one chunk on disk, so that what is not on the
    screen is not read, and what was read can be kept. The graph has no task before something is read: a
    series of ten full scans has millions of chunks.
    """
    there = [each for each in placed if each is not None]
    count = min(len(each.levels) for each in there)
    levels = []
    for level in range(count):
        source = Level(placed, shape=pyramid.level_shape(shape, level=level), level=level, dtype=dtype)
        array = da.from_array(
            source,
            chunks=(1, *there[0].levels[level].chunks),
            name=False,
            lock=False,
            asarray=False,
            inline_array=True,
            meta=np.empty((0, 0, 0, 0), dtype),
        )
        levels.append(array)
    return levels
