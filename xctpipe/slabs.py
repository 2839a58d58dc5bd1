"""The writing of a slab of a volume, batch by batch, with all its levels."""

import itertools
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe import pyramid, shards
from xctpipe.layout import VolumeSpec, estimate_bytes, grid
from xctpipe.plan import BATCH_ROWS
from xctpipe.scan import FloatArray, Span
from xctpipe.storage import storing

_Box = tuple[Span, ...]
_Row = tuple[list[shards.Chunk], int]


def write_slab(path: Path | str, spec: VolumeSpec, z0: int, *, slab: FloatArray) -> int:
    """Write one slab of slices to every level; any order, also from several threads or processes at once.

    A slab that is written again replaces the first. Needs up to half as much memory again as the slab.

    Parameters
    ----------
    z0 : first slice, a multiple of `spec.slab_rows`.
    slab : (slab_rows or what is left of the volume, y, x), float32, cm^-1; not modified.

    Returns
    -------
    Number of level-0 voxels outside the range of an integer type, which were clipped (0 for float32).

    Raises
    ------
    UserError
        If the disk is full or may not be written; what was written before is kept.
    ValueError
        If the slab is not one of the volume's.
    """
    writer = SlabWriter(path, spec, z0)
    writer.add(slab)
    return writer.finish()


def batch_rows(spec: VolumeSpec) -> int:
    """Slices in which a slab is best handed to its writer: whole chunks, about `plan.BATCH_ROWS`."""
    rows = grid(spec, 0)[0][0]
    return max(1, BATCH_ROWS // rows) * rows


class SlabWriter:
    """Writes one slab batch by batch, first slices first: level 0 at once, coarser levels at the end.

    Not for several threads at once; what is not finished leaves the slab half written.

    Parameters
    ----------
    z0 : first slice of the slab, a multiple of `spec.slab_rows`.

    Raises
    ------
    ValueError
        If no slab of the volume begins there.
    """

    def __init__(self, path: Path | str, spec: VolumeSpec, z0: int) -> None:
        if z0 % spec.slab_rows or not 0 <= z0 < spec.shape[0]:
            raise ValueError(f"no slab begins at {z0}; expected a multiple of {spec.slab_rows}")
        self._path, self._spec, self._z0 = Path(path), spec, z0
        self._shape = (min(spec.slab_rows, spec.shape[0] - z0), *spec.shape[1:])
        # where there is one level only, nothing is ever put into it
        self._coarser = np.empty(pyramid.level_shape(self._shape, level=1), np.float32)
        self._done = 0
        self._clipped = 0

    def add(self, block: FloatArray) -> None:
        """Write the next slices, (z, y, x) float32 in cm^-1, not modified: whole chunks, but for the last.

        Raises
        ------
        UserError
            If the disk is full or may not be written; what was written before is kept.
        ValueError
            If they are not the next slices of the slab.
        """
        first, last = self._done, self._done + len(block)
        rows = self._shape[0]
        cut_well = last == rows or last % grid(self._spec, 0)[0][0] == 0
        if block.shape[1:] != self._shape[1:] or block.dtype != np.float32 or last > rows or not cut_well:
            raise ValueError(
                f"slices {block.shape} {block.dtype} from row {first} on of a slab {self._shape} float32"
            )
        # whole chunks end between pairs of slices
        coarser = self._coarser[first // 2 : -(-last // 2)]
        whole = np.ascontiguousarray(block)
        with storing(self._path, needed_bytes=self._share(len(block))):
            self._clipped += self._write(0, whole, first=self._z0 + first, coarser=coarser)
        self._done = last

    def finish(self) -> int:
        """Write the coarser levels; the number of voxels that were clipped at level 0."""
        if self._done != self._shape[0]:
            raise ValueError(f"{self._done} of {self._shape[0]} slices of the slab at {self._z0} were added")
        sums = self._coarser
        with storing(self._path, needed_bytes=self._share(self._shape[0]) // 8):
            for level in range(1, self._spec.n_levels):
                coarser = np.empty(pyramid.level_shape(sums.shape, level=1), np.float32)
                self._write(level, sums, first=self._z0 >> level, coarser=coarser)
                sums = coarser
        return self._clipped

    def _share(self, n_rows: int) -> int:
        return estimate_bytes(self._spec) * n_rows // self._spec.shape[0]

    def _write(self, level: int, block: FloatArray, *, first: int, coarser: FloatArray) -> int:
        counts = pyramid.block_counts(self._shape, level=level)
        job = _LevelJob(self._spec, level, block, counts, coarser)
        with ThreadPoolExecutor(numba.get_num_threads()) as pool:
            return job.write(self._path / str(level) / "c", first, pool)


@dataclass(frozen=True, eq=False)
class _LevelJob:
    """One slab at one level: sums over blocks of level 0 are stored as means and handed to the next level."""

    spec: VolumeSpec
    level: int
    sums: FloatArray
    counts: pyramid.AxisCounts
    coarser: FloatArray

    def write(self, folder: Path, first: int, pool: ThreadPoolExecutor) -> int:
        """Write the shards of the slab, the first of which is at slice `first`; the voxels clipped."""
        chunk, shard = grid(self.spec, self.level)
        # this thread stores a shard while the pool encodes the next ones, no further than keeps it busy
        ahead = 1 + 2 * numba.get_num_threads() * chunk[1] // shard[1]
        waiting: deque[tuple[Path, list[Future[_Row]]]] = deque()
        clipped = 0
        for tile in self._tiles():
            (z, _), (y, _), (x, _) = tile
            index = (str(a // n) for a, n in zip((z + first, y, x), shard, strict=True))
            rows = [pool.submit(self.encode, row) for row in _cut(tile, chunk[1])]
            waiting.append((folder.joinpath(*index), rows))
            if len(waiting) > ahead:
                clipped += self._store(*waiting.popleft())
        while waiting:
            clipped += self._store(*waiting.popleft())
        return clipped

    def _store(self, path: Path, futures: list[Future[_Row]]) -> int:
        chunk, shard = grid(self.spec, self.level)
        rows = [future.result() for future in futures]
        chunks_yx = (shard[1] // chunk[1], shard[2] // chunk[2])
        shards.write_shard(path, rows=[row for row, _ in rows], grid=chunks_yx)
        return sum(clipped for _, clipped in rows)

    def _tiles(self) -> list[_Box]:
        """The part of the slab in each shard."""
        _, shard = grid(self.spec, self.level)
        spans = [
            [(a, min(a + edge, length)) for a in range(0, length, edge)]
            for edge, length in zip(shard, self.sums.shape, strict=True)
        ]
        return list(itertools.product(*spans))

    def encode(self, box: _Box) -> _Row:
        """Encode a row of chunks and hand its sums on; the chunks, and the voxels clipped."""
        if self.level < self.spec.n_levels - 1:
            pyramid.pair_sums(self.sums, box=box, out=self.coarser)
        chunk, _ = grid(self.spec, self.level)
        z, y, (first, last) = box
        encoded, clipped = [], 0
        # a chunk at a time stays in cache
        buffer = np.empty(chunk, self.spec.dtype)
        for x in range(first, last, chunk[2]):
            clipped += self._fill(buffer, (z, y, (x, min(x + chunk[2], last))))
            encoded.append(shards.encode(buffer))
        return encoded, clipped

    def _fill(self, buffer: NDArray[Any], box: _Box) -> int:
        """Part of the level as it is stored, zeros beyond the volume; the voxels clipped."""
        spec, whole, shape = self.spec, self.sums, tuple(b - a for a, b in box)
        if shape != buffer.shape:
            buffer[:] = 0
        where = tuple(slice(*span) for span in box)
        if self.level > 0:
            z, y, x = (count[s] for count, s in zip(self.counts, where, strict=True))
            whole = pyramid.block_means(self.sums[where], counts=(z, y, x))
            box = tuple((0, n) for n in shape)
        if spec.dtype == "float32":
            bits = pyramid.level_keep_bits(spec.keep_bits, level=self.level)
            pyramid.round_part(whole, box=box, keep_bits=bits, out=buffer)
            return 0
        values = whole[tuple(slice(*span) for span in box)]
        stored, clipped = pyramid.quantise(values, dtype=spec.dtype, scale=spec.scale, offset=spec.offset)
        buffer[tuple(map(slice, shape))] = stored
        return clipped


def _cut(box: _Box, height: int) -> list[_Box]:
    """Cut a box along y into rows of this height."""
    z, (first, last), x = box
    return [(z, (y, min(y + height, last)), x) for y in range(first, last, height)]
