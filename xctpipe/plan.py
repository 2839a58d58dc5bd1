"""How a scan is cut into slabs of rows, in pure integers: no file is read, nothing is allocated."""

from dataclasses import dataclass

from xctpipe.errors import BadRecipe
from xctpipe.scan import Span

MAX_SLAB_ROWS = 64
"""Reading 64 rows and more out of whole-frame chunks runs at disk speed; more only costs memory."""

BASE_BYTES = 600 * 2**20
"""The interpreter, its libraries and compiled kernels (measured at about 450 MiB)."""

_GB = 10**9


@dataclass(frozen=True)
class Slab:
    """Rows `rows` of the volume, and the rows `read` needed to make them (halo included)."""

    rows: Span
    read: Span

    @property
    def inner(self) -> slice:
        """Where `rows` lie inside what was read."""
        first = self.rows[0] - self.read[0]
        return slice(first, first + self.rows[1] - self.rows[0])


@dataclass(frozen=True)
class Extent:
    """Size of a scan as it will be reconstructed, and what one slab row costs."""

    n_angles: int
    n_rows: int
    n_cols: int
    raw_itemsize: int
    halo_rows: int
    align_rows: int
    recon_bytes: int
    """Working memory of the reconstruction of one slab, beside its input and output."""
    volume_cols: int | None = None
    """Width of a slice, where it is not that of the detector."""
    n_volumes: int = 1
    scratch_bytes: int = 0
    """Working memory of the corrections, beside a slab and its result."""
    spare_slabs: int = 0
    """Slabs of floats that are held beside the one that is reconstructed."""
    held_bytes: int = 0
    """Held all the time: dark and flats."""

    @property
    def raw_bytes(self) -> int:
        """Size of the projections."""
        return self.n_angles * self.n_rows * self.n_cols * self.raw_itemsize


@dataclass(frozen=True)
class Plan:
    """The slabs of a scan and the memory that the largest needs with its neighbours in flight."""

    slab_rows: int
    slabs: tuple[Slab, ...]
    peak_bytes: int


def cut(n_rows: int, *, slab_rows: int, halo_rows: int) -> tuple[Slab, ...]:
    """Tile rows [0, n_rows) exactly; each slab reads `halo_rows` more on both sides where they exist."""
    slabs = []
    for first in range(0, n_rows, slab_rows):
        last = min(first + slab_rows, n_rows)
        read = (max(0, first - halo_rows), min(n_rows, last + halo_rows))
        slabs.append(Slab((first, last), read))
    return tuple(slabs)


def peak_bytes(extent: Extent, *, slab_rows: int) -> int:
    """Most memory in use at once: this slab computed, the next one being read, the last being written.

    Writing needs a quarter of a slab beside it, and some shards.
    """
    rows = min(slab_rows + 2 * extent.halo_rows, extent.n_rows)
    lines = extent.n_angles * rows * extent.n_cols
    raw = lines * extent.raw_itemsize
    width = extent.volume_cols or extent.n_cols
    floats = 4 * lines * -(-width // extent.n_cols)
    volume = 4 * min(slab_rows, extent.n_rows) * width**2 * extent.n_volumes
    correcting = raw + 2 * floats + extent.scratch_bytes
    reconstructing = (1 + extent.spare_slabs) * floats + volume + extent.recon_bytes
    neighbours = raw + volume if slab_rows < extent.n_rows else 0
    held = BASE_BYTES + extent.held_bytes
    return held + neighbours + volume * 3 // 8 + max(correcting, reconstructing)


def make_plan(extent: Extent, *, memory_bytes: int, slab_rows: int | None = None) -> Plan:
    """Choose the tallest slab that fits `memory_bytes`; `slab_rows` fixes it (a run that is continued).

    Raises BadRecipe when not even the lowest slab fits, naming the numbers to change.
    """
    heights = [slab_rows] if slab_rows else _heights(extent)
    for height in heights:
        need = peak_bytes(extent, slab_rows=height)
        if need <= memory_bytes:
            slabs = cut(extent.n_rows, slab_rows=height, halo_rows=extent.halo_rows)
            return Plan(height, slabs, need)
    need = peak_bytes(extent, slab_rows=heights[-1])
    around = ""
    if extent.halo_rows > heights[-1]:
        around = f" with the {extent.halo_rows} rows on both sides that its corrections look at"
    raise BadRecipe(
        f"compute.memory_gb = {memory_bytes / _GB:.2g}: a slab of {heights[-1]} rows x {extent.n_cols} "
        f"columns x {extent.n_angles} angles{around} needs {need / _GB:.1f} GB; raise compute.memory_gb to "
        f"at least {need / _GB + 0.05:.1f}, average pixels with raw.bin_px, or crop with raw.columns"
    )


def _heights(extent: Extent) -> list[int]:
    """Slab heights to try, tallest first: the whole scan where it is low, else halves of the maximum."""
    align = extent.align_rows
    heights = [extent.n_rows] if extent.n_rows <= MAX_SLAB_ROWS else []
    height = max(MAX_SLAB_ROWS, align) // align * align
    while height >= align:
        if height < extent.n_rows:
            heights.append(height)
        height = height // 2 // align * align
    return heights or [align]
