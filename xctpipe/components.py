"""Connected components of volumes that are labelled block by block: local labels, then union-find.

Components of a block are numbered on their own. What lies at its surface is kept, and neighbouring blocks
are joined over their faces, edges and corners. The final numbers follow the first voxel of each component
in raster order, so that they do not depend on how the volume was cut.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cc3d
import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from xctpipe.scan import Span

Connectivity = Literal[6, 26]
Labels = NDArray[np.uint32]
Ids = NDArray[np.int32]
Box = tuple[Span, Span, Span]
Record = Mapping[str, NDArray[Any]]
"""What `record_of` finds out about a block."""


def local_components(codes: NDArray[Any], *, connectivity: Connectivity = 26) -> tuple[Labels, int]:
    """Connected components of voxels of equal code [1]_.

    Parameters
    ----------
    codes : (z, y, x), integers or booleans; 0 is background.
    connectivity : 6: over faces; 26: over faces, edges and corners.

    Returns
    -------
    Labels 1 ... n and n; their order means nothing.

    References
    ----------
    .. [1] Silversmith, cc3d, doi:10.5281/zenodo.5719535
    """
    if codes.dtype == np.bool_:
        codes = codes.view(np.uint8)
    labels, n = cc3d.connected_components(
        np.ascontiguousarray(codes), connectivity=connectivity, return_N=True, out_dtype=np.uint32
    )
    return labels.astype(np.uint32, copy=False), int(n)


def record_of(
    labels: Labels, n: int, *, codes: NDArray[Any], core: Box, shape: tuple[int, int, int]
) -> dict[str, NDArray[Any]]:
    """What merging must know of the local components of a block.

    Parameters
    ----------
    labels, n : of `local_components`, of the core of the block.
    codes : as given to it.
    core : where the block lies in the volume.
    shape : of the volume.

    Returns
    -------
    `core`, and for each label from 1 on: `code`, `first`, the raster index of its first voxel in the volume,
    `n_voxels`; `shell_at` and `shell_label`: labelled voxels at the surface of the block.
    """
    first, count = _first_and_count(labels, n)
    z, y, x = np.unravel_index(first, labels.shape)
    starts = [a for a, _ in core]
    raster = ((z + starts[0]) * shape[1] + (y + starts[1])) * shape[2] + (x + starts[2])
    at = _shell(labels)
    return {
        "core": np.array(core, np.int64),
        "code": codes.reshape(-1)[first].astype(np.int64),
        "first": raster.astype(np.int64),
        "n_voxels": count,
        "shell_at": at,
        "shell_label": labels.reshape(-1)[at],
    }


@numba.njit(cache=True, nogil=True)
def _first_and_count(labels, n):  # type: ignore[no-untyped-def]
    """Flat index of the first voxel of each label, and its number of voxels."""
    first = np.full(n, -1, np.int64)
    count = np.zeros(n, np.int64)
    flat = labels.reshape(-1)
    for i in range(flat.size):
        label = flat[i]
        if label:
            if first[label - 1] < 0:
                first[label - 1] = i
            count[label - 1] += 1
    return first, count


def _shell(labels: Labels) -> NDArray[np.int64]:
    """Flat indices of the labelled voxels on the six faces."""
    at = []
    strides = (labels.shape[1] * labels.shape[2], labels.shape[2], 1)
    for axis, side in itertools.product(range(3), (0, -1)):
        places = np.nonzero(np.take(labels, side, axis=axis))
        others = [stride for i, stride in enumerate(strides) if i != axis]
        first = side % labels.shape[axis] * strides[axis]
        at.append(first + sum(place * stride for place, stride in zip(places, others, strict=True)))
    return np.unique(np.concatenate(at))


@dataclass(frozen=True, eq=False)
class Components:
    """Components of a whole volume, numbered 1 ... n in raster order of their first voxels."""

    luts: tuple[Ids, ...]
    """Per block, in the order of the records: id of each local label; 0 where it is left out, and of 0."""
    code: NDArray[np.int64]
    """Of each component: (n,)."""
    first: NDArray[np.int64]
    """Raster index of the first voxel of each component: (n,)."""

    @property
    def n(self) -> int:
        """Number of components."""
        return int(self.code.size)

    def total(self, per_block: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Sums over components of what was summed over local labels: per block (n_local, ...).

        Sums of integers are exact; of floats they depend in their last bits on how the volume was cut.
        """
        return self._gather(per_block, np.add, 0)

    def least(self, per_block: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The least over each component of values of local labels: per block (n_local, ...)."""
        return self._gather(per_block, np.minimum, "max")

    def greatest(self, per_block: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The greatest over each component of values of local labels: per block (n_local, ...)."""
        return self._gather(per_block, np.maximum, "min")

    def _gather(
        self, per_block: Sequence[NDArray[Any]], join: np.ufunc, start: Literal[0, "min", "max"]
    ) -> NDArray[Any]:
        some = per_block[0]
        dtype = some.dtype
        if start == 0:
            dtype = np.dtype(np.float64 if dtype.kind == "f" else np.int64)
            neutral: Any = 0
        elif dtype.kind == "f":
            neutral = np.inf if start == "max" else -np.inf
        elif dtype.kind == "b":
            neutral = start == "max"
        else:
            neutral = getattr(np.iinfo(dtype), start)
        out = np.full((self.n + 1, *some.shape[1:]), neutral, dtype)
        for lut, values in zip(self.luts, per_block, strict=True):
            join.at(out, lut[1:], values)
        return out[1:]

    def kept(self, keep: NDArray[np.bool_]) -> "Components":
        """Only the components for which `keep` (n,) is true, numbered anew in the same order."""
        new = np.zeros(self.n + 1, np.int32)
        new[1:][keep] = np.arange(1, 1 + np.count_nonzero(keep))
        return Components(tuple(new[lut] for lut in self.luts), self.code[keep], self.first[keep])


def merge(records: Sequence[Record], *, connectivity: Connectivity = 26) -> Components:
    """Join the local components of all blocks of a volume.

    Parameters
    ----------
    records : of `record_of`, one for each block, the blocks a regular grid without gaps.
    connectivity : as for the local components.

    References
    ----------
    Rosenfeld, Pfaltz, J. ACM 13, 471 (1966), doi:10.1145/321356.321357
    """
    counts = np.array([record["code"].size for record in records], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    n = int(offsets[-1])
    codes = _joined(records, "code")
    pairs = np.concatenate(
        [np.zeros((0, 2), np.int64), *_touching(records, offsets, codes=codes, connectivity=connectivity)]
    )
    links = coo_array((np.ones(len(pairs), np.uint8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    n_merged, merged = connected_components(links.tocsr(), directed=False) if n else (0, np.zeros(0, int))
    first = np.full(n_merged, np.iinfo(np.int64).max)
    np.minimum.at(first, merged, _joined(records, "first"))
    order = np.argsort(first)
    ids = np.empty(n_merged, np.int32)
    ids[order] = np.arange(1, n_merged + 1)
    code = np.zeros(n_merged, np.int64)
    code[ids[merged] - 1] = codes
    zero = np.zeros(1, np.int32)
    luts = tuple(
        np.concatenate([zero, ids[merged[a:b]]]).astype(np.int32) for a, b in itertools.pairwise(offsets)
    )
    return Components(luts, code, first[order])


def _joined(records: Sequence[Record], key: str) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(0, np.int64), *(record[key] for record in records)])


_TOWARDS = [d for d in itertools.product((-1, 0, 1), repeat=3) if d > (0, 0, 0)]
"""Directions to half of the 26 neighbours; the others are those of the neighbours."""


def _touching(
    records: Sequence[Record], offsets: NDArray[np.int64], *, codes: NDArray[Any], connectivity: Connectivity
) -> Iterator[NDArray[np.int64]]:
    """Pairs of components, numbered over all blocks, of equal code that touch across blocks."""
    firsts = [np.unique([record["core"][axis, 0] for record in records]) for axis in range(3)]
    grid = {}
    for i, record in enumerate(records):
        grid[tuple(int(np.searchsorted(firsts[a], record["core"][a, 0])) for a in range(3))] = i
    shells = [_Shell.of(record, offset) for record, offset in zip(records, offsets[:-1], strict=True)]
    towards = [d for d in _TOWARDS if connectivity == 26 or sum(map(abs, d)) == 1]
    for (k, j, i), here in grid.items():
        for d in towards:
            there = grid.get((k + d[0], j + d[1], i + d[2]))
            if there is None:
                continue
            a, b = shells[here].side(d), shells[there].side((-d[0], -d[1], -d[2]))
            yield from _pairs(a, b, d, codes=codes, connectivity=connectivity)


@dataclass(frozen=True, eq=False)
class _Shell:
    """Labelled voxels at the surface of a block: where, and the number of their component from 1 on."""

    shape: tuple[int, ...]
    where: tuple[NDArray[np.int64], ...]
    number: NDArray[np.int64]

    @classmethod
    def of(cls, record: Record, offset: int) -> "_Shell":
        shape = tuple(int(n) for n in np.diff(record["core"], axis=1)[:, 0])
        where = np.unravel_index(record["shell_at"], shape)
        return cls(shape, where, record["shell_label"].astype(np.int64) + offset)

    def side(self, d: tuple[int, ...]) -> NDArray[np.int64]:
        """The face, edge or corner in direction `d`: an array with axes of length 1 across it."""
        chosen = np.ones(self.number.size, bool)
        places = []
        for step, n, at in zip(d, self.shape, self.where, strict=True):
            if step:
                chosen &= at == (n - 1 if step > 0 else 0)
            places.append(np.zeros_like(at) if step else at)
        side = np.zeros([1 if step else n for step, n in zip(d, self.shape, strict=True)], np.int64)
        side[tuple(place[chosen] for place in places)] = self.number[chosen]
        return side


def _pairs(
    a: NDArray[np.int64], b: NDArray[np.int64], d: tuple[int, ...], *, codes: NDArray[Any], connectivity: int
) -> Iterator[NDArray[np.int64]]:
    """Pairs of components on two sides that face each other; along the sides, neighbours too."""
    if not (a.any() and b.any()):
        return
    shifts = [(0,) if step or connectivity == 6 else (-1, 0, 1) for step in d]
    for shift in itertools.product(*shifts):
        one, other = a[_overlap(a.shape, shift)], b[_overlap(b.shape, tuple(-s for s in shift))]
        both = (one > 0) & (other > 0)
        pairs = np.unique(np.stack([one[both], other[both]], axis=1), axis=0) - 1
        yield pairs[codes[pairs[:, 0]] == codes[pairs[:, 1]]]


def _overlap(shape: tuple[int, ...], shift: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of an array that an equal one, shifted, covers."""
    return tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(shift, shape, strict=True))
