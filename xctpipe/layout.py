"""How a volume is divided: levels, slabs, shards and chunks, in integers.

No two slabs share a shard at any level.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from xctpipe import pyramid
from xctpipe.errors import BadRecipe, nearest
from xctpipe.plan import BATCH_ROWS
from xctpipe.pyramid import Shape
from xctpipe.scan import Span

StoredType = Literal["float32", "uint16", "uint8"]

LAYOUT = 2
"""Changes whenever `grid` gives other chunks or shards: a volume that was begun so cannot be gone on with."""

_CHUNK_EDGE = 64
_CHUNK_ROWS = BATCH_ROWS
"""Chunks are as high as the batches in which slices come, so that each batch is stored at once."""
_SHARD_EDGE = 1024


@dataclass(frozen=True)
class VolumeSpec:
    """Everything that decides how a volume is laid out on disk.

    Parameters
    ----------
    shape : (z, y, x), voxels.
    pixel_um : edge of a voxel, > 0.
    first_row : detector row of the first slice, in pixels as they are used.
    bin_px : detector pixels along the side of such a pixel.
    dtype : stored type.
    scale, offset : value in cm^-1 = stored * scale + offset; only integers may have other than 1 and 0.
    slab_rows : slices per slab; a multiple of `align_rows` unless one slab is the whole volume.
        0: the whole volume.
    keep_bits : mantissa bits kept at level 0 (float32 only); None: all 23.

    Raises
    ------
    BadRecipe
        If a value is outside its range.
    """

    shape: Shape
    pixel_um: float
    first_row: int = 0
    bin_px: int = 1
    dtype: StoredType = "float32"
    scale: float = 1.0
    offset: float = 0.0
    slab_rows: int = 0
    keep_bits: int | None = None

    def __post_init__(self) -> None:
        rows = self.shape[0]
        object.__setattr__(self, "slab_rows", min(self.slab_rows, rows) or rows)
        for problem in self._problems():
            raise BadRecipe(f"volume: {problem}")

    def _problems(self) -> Iterator[str]:
        if min(self.shape) < 1:
            yield f"shape {self.shape} has an empty axis; widen the crop (rows, columns)"
        if self.dtype not in get_args(StoredType):
            yield f"no dtype {self.dtype!r}; {nearest(self.dtype, get_args(StoredType))}"
        if not self.pixel_um > 0:
            yield f"pixel_um = {self.pixel_um}: must be above 0"
        if not self.scale > 0:
            yield f"scale = {self.scale}: must be above 0"
        if self.dtype == "float32" and (self.scale, self.offset) != (1.0, 0.0):
            yield "float32 is stored as it is; leave scale and offset out, or choose uint16 or uint8"
        if self.keep_bits is not None and self.dtype != "float32":
            yield f"keep_bits is for float32, not for {self.dtype}; leave it out"
        if self.keep_bits is not None and not 1 <= self.keep_bits <= pyramid.FULL_MANTISSA_BITS:
            yield f"keep_bits = {self.keep_bits}: must be 1 to {pyramid.FULL_MANTISSA_BITS}"
        if self.slab_rows < 0 or (self.slab_rows < self.shape[0] and self.slab_rows % self.align_rows):
            yield f"slabs of {self.slab_rows} rows: must be a multiple of {self.align_rows}, or all rows"

    @property
    def n_levels(self) -> int:
        """Number of levels, the full one included."""
        return pyramid.n_levels(self.shape)

    @property
    def align_rows(self) -> int:
        """Rows that `slab_rows` must be a multiple of."""
        return pyramid.align_rows(self.shape)

    @property
    def slabs(self) -> list[Span]:
        """Rows [z0, z1) of each slab."""
        rows = self.shape[0]
        return [(z, min(z + self.slab_rows, rows)) for z in range(0, rows, self.slab_rows)]


def level_shapes(spec: VolumeSpec) -> list[Shape]:
    """Shape (z, y, x) of each level."""
    return [pyramid.level_shape(spec.shape, level=level) for level in range(spec.n_levels)]


def estimate_bytes(spec: VolumeSpec) -> int:
    """Bytes of all levels, uncompressed."""
    item = np.dtype(spec.dtype).itemsize
    return sum(z * y * x for z, y, x in level_shapes(spec)) * item


def grid(spec: VolumeSpec, level: int) -> tuple[Shape, Shape]:
    """Chunk and shard (z, y, x) of a level: about 64 cubed voxels, and one chunk high so slabs share none."""
    _, height, width = pyramid.level_shape(spec.shape, level=level)
    if spec.slab_rows == spec.shape[0]:
        rows = min(_CHUNK_ROWS, -(-spec.slab_rows // 2**level))
    else:
        whole = spec.slab_rows // 2**level
        # even but at the last level: pairs of slices must not lie in two shards
        odd_allowed = level == spec.n_levels - 1
        divisors = (n for n in range(min(_CHUNK_ROWS, whole), 0, -1) if whole % n == 0)
        rows = next(n for n in divisors if odd_allowed or n % 2 == 0)
    edge = _CHUNK_EDGE
    while edge < 4 * _CHUNK_EDGE and 2 * rows * edge**2 < _CHUNK_EDGE**3:
        edge *= 2
    return (rows, edge, edge), (rows, _shard_edge(height, edge), _shard_edge(width, edge))


def _shard_edge(length: int, chunk: int) -> int:
    """Equal shards of whole chunks, the fewest that are no longer than the limit."""
    pieces = -(-length // _SHARD_EDGE)
    return -(-length // (pieces * chunk)) * chunk
