"""Patches about the fiducials of a scan, cut out of its volume block by block, without its rings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe import volume
from xctpipe.blocks import Block, Shape, Slices, block_shape, blocks_of, run_blocks
from xctpipe.ground import Ground, first_row, view_of
from xctpipe.label_volume import read_labels
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.segment.codes import PHASES
from xctpipe.series.reg_patches import Cut
from xctpipe.series.reg_rings import ring_sums, rings_of, without_rings
from xctpipe.stages import SeriesWork

_TEXTURE = np.array([PHASES[name] for name in ("nasicon", "pore", "inclusion", "unresolved")], np.uint8)
_BYTES_PER_VOXEL = 16


def cut_patches(ground: Ground, at_um: DoubleArray, *, half: int, work: SeriesWork, name: str) -> Cut:
    """Voxels around positions, `half` on each side of the nearest, without rings.

    Parameters
    ----------
    ground : a level of a volume, which has labels.
    at_um : (n, 3) as in tables.
    name : of the scan, for the progress bars.
    """
    grid = _Grid.of(ground)
    start = np.rint(at_um / grid.voxel_um + grid.zero_px).astype(np.int64) - half
    size = 2 * half + 1
    edge = block_shape(
        grid.shape,
        memory_bytes=work.memory_bytes,
        bytes_per_voxel=_BYTES_PER_VOXEL,
        threads=work.threads,
        halo=half + 1,
    )
    rings = _rings(grid, blocks_of(grid.shape, edge=edge), work, name=f"{name}: rings")
    blocks = blocks_of(grid.shape, edge=edge, halo=half + 1)
    task = _Cutter(grid, start, size, rings)
    results = run_blocks(task, blocks, name=f"{name}: fiducials", place=work.place)
    order = np.concatenate([each["numbers"] for each in results])
    whole = (len(start), size, size, size)
    grey, good = np.zeros(whole, np.float32), np.zeros(whole, np.bool_)
    grey[order] = np.concatenate([each["grey"] for each in results])
    good[order] = np.concatenate([each["good"] for each in results])
    return Cut(grey, good, (start - grid.zero_px) * grid.voxel_um)


@dataclass(frozen=True, eq=False)
class _Grid:
    """A level of a volume; can be pickled."""

    path: Path
    level: int
    shape: Shape
    voxel_um: float
    zero_px: DoubleArray
    """(3,) voxel of detector row 0 on the axis of rotation."""
    view_px: float

    @classmethod
    def of(cls, ground: Ground) -> "_Grid":
        path, level = ground.path, ground.level
        (y, x), view = view_of(path, level=level)
        spec = volume.read_spec(path)
        zero = np.array([-first_row(path, level=level), y, x])
        return cls(path, level, volume.level_shapes(spec)[level], spec.pixel_um * 2**level, zero, view)

    @property
    def axis_px(self) -> tuple[float, float]:
        return float(self.zero_px[1]), float(self.zero_px[2])

    @property
    def n_radii(self) -> int:
        return math.ceil(self.view_px) + 2

    def grey(self, where: Slices) -> FloatArray:
        z, y, x = where
        return volume.read(self.path, level=self.level, z=z, y=y, x=x)

    def phases(self, where: Slices) -> NDArray[np.uint8]:
        z, y, x = where
        return read_labels(self.path, "phases", level=self.level, z=z, y=y, x=x)


def _rings(grid: _Grid, blocks: Sequence[Block], work: SeriesWork, *, name: str) -> FloatArray:
    """Rings of all rows (z, side, radius)."""
    sums, counts = (np.zeros((grid.shape[0], 2, grid.n_radii), np.int64) for _ in range(2))
    for block, each in zip(
        blocks, run_blocks(_Rings(grid), blocks, name=name, place=work.place), strict=True
    ):
        sums[block.where[0]] += each["sums"]
        counts[block.where[0]] += each["counts"]
    return rings_of(sums, counts)


@dataclass(frozen=True, eq=False)
class _Rings:
    """Sums over rings of a block."""

    grid: _Grid

    def __call__(self, block: Block) -> dict[str, Any]:
        grid = self.grid
        solid = grid.phases(block.where) == PHASES["nasicon"]
        if not solid.any():
            none = np.zeros((solid.shape[0], 2, grid.n_radii), np.int64)
            return {"sums": none, "counts": none}
        sums, counts = ring_sums(
            grid.grey(block.where),
            solid,
            start=_start(block.where),
            axis_px=grid.axis_px,
            n_radii=grid.n_radii,
        )
        return {"sums": sums, "counts": counts}


@dataclass(frozen=True, eq=False)
class _Cutter:
    """Cuts out those patches whose middle lies in the core of a block."""

    grid: _Grid
    start: NDArray[np.int64]
    size: int
    rings: FloatArray

    def __call__(self, block: Block) -> dict[str, Any]:
        middle = self.start + self.size // 2
        low, high = np.array(block.core).T
        numbers = np.flatnonzero(((middle >= low) & (middle < high)).all(axis=1))
        shape = (len(numbers), self.size, self.size, self.size)
        grey, good = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
        if len(numbers):
            origin = _start(block.around)
            values = without_rings(
                self.grid.grey(block.around),
                self.rings[block.around[0]],
                start=origin,
                axis_px=self.grid.axis_px,
            )
            texture = self._texture(block.around)
            for i, start in enumerate(self.start[numbers] - np.array(origin)):
                there, here = _overlap(start, self.size, values.shape)
                grey[i][here], good[i][here] = values[there], texture[there]
        return {"numbers": numbers, "grey": grey, "good": good}

    def _texture(self, where: Slices) -> NDArray[np.bool_]:
        dy = np.arange(where[1].start, where[1].stop)[:, None] - self.grid.axis_px[0]
        dx = np.arange(where[2].start, where[2].stop)[None] - self.grid.axis_px[1]
        wanted = np.zeros(256, np.bool_)
        wanted[_TEXTURE] = True
        return np.asarray(wanted[self.grid.phases(where)] & (np.hypot(dy, dx) < self.grid.view_px - 1))


def _start(where: Slices) -> tuple[int, int, int]:
    return int(where[0].start), int(where[1].start), int(where[2].start)


def _overlap(
    start: NDArray[np.int64], size: int, shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a patch within a block, as an index of the block and of the patch."""
    first = [max(0, int(a)) for a in start]
    last = [min(n, int(a) + size) for a, n in zip(start, shape, strict=True)]
    there = tuple(slice(a, max(a, b)) for a, b in zip(first, last, strict=True))
    here = tuple(slice(a - int(s), max(a, b) - int(s)) for a, b, s in zip(first, last, start, strict=True))
    return there, here
