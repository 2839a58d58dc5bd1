"""How a scan is cut into slabs of rows, in pure integers: no file is read, nothing is allocated."""

from dataclasses import dataclass

from xctpipe.errors import BadRecipe
from xctpipe.scan import Span

MAX_SLAB_ROWS = 64
"""Slices that are recorded as done together, and whose coarser levels are made together."""

READ_ROWS = 32
"""Rows that are read together where no correction looks at neighbours: fewer make the disk seek, more
make the computing wait for the first and the writing for the last."""

BATCH_ROWS = 16
"""Slices that are corrected, reconstructed and written together."""

BASE_BYTES = 600 * 2**20
"""The interpreter, its libraries and compiled kernels (measured at about 450 MiB)."""

_GB = 10**9


@dataclass(frozen=True)
class Slab:
    """Rows `rows` of the volume, and the rows `read` needed to make them (halo included)."""

    rows: Span
    read: Span


@dataclass(frozen=True)
class Piece:
    """Rows `rows` of a slab's volume that come out of one reading of rows `read`.

    `parts` are rows of `read` that are corrected together, and with each the rows of the volume that come
    out of it batch by batch.
    """

    slab: Slab
    rows: Span
    read: Span
    parts: tuple[tuple[Span, tuple[Span, ...]], ...]

    @property
    def is_last(self) -> bool:
        """Whether the slab is done with it."""
        return self.rows[1] == self.slab.rows[1]


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


def pieces(slab: Slab, *, halo_rows: int, batch_rows: int = BATCH_ROWS) -> tuple[Piece, ...]:
    """A slab in the pieces in which it is read, each in the batches in which it is made.

    Corrections that look at neighbours get the whole slab at once, with its halo: it is read once.
    """
    if halo_rows:
        return (Piece(slab, slab.rows, slab.read, ((slab.read, _spans(slab.rows, batch_rows)),)),)
    height = max(1, READ_ROWS // batch_rows) * batch_rows
    found = []
    for rows in _spans(slab.rows, height):
        batches = _spans(rows, batch_rows)
        found.append(Piece(slab, rows, rows, tuple((batch, (batch,)) for batch in batches)))
    return tuple(found)


def _spans(rows: Span, height: int) -> tuple[Span, ...]:
    return tuple((a, min(a + height, rows[1])) for a in range(rows[0], rows[1], height))


def peak_bytes(extent: Extent, *, slab_rows: int) -> int:
    """Most memory in use at once: a batch is computed while the next piece is read and the last one written.

    The coarser levels of the slab are held until it is done; storing a batch needs some shards beside it.
    """
    slab_rows = min(slab_rows, extent.n_rows)
    batch = min(BATCH_ROWS, slab_rows)
    around = bool(extent.halo_rows)
    piece = min(slab_rows + 2 * extent.halo_rows, extent.n_rows) if around else min(READ_ROWS, slab_rows)
    row = extent.n_angles * extent.n_cols
    width = extent.volume_cols or extent.n_cols
    floats = 4 * row * -(-width // extent.n_cols)
    raw = row * piece * extent.raw_itemsize
    reading = raw if piece < extent.n_rows else 0
    slices = 4 * batch * width**2
    correcting = raw + 2 * floats * (piece if around else batch) + extent.scratch_bytes
    # what was corrected together is kept until the last batch of it, else the raw rows are
    kept = floats * piece * extent.n_volumes if around else raw * (piece > batch)
    reconstructing = kept + (1 + extent.spare_slabs) * floats * batch + slices + extent.recon_bytes
    coarser = extent.n_volumes * slab_rows * width**2 * 2 // 3
    held = BASE_BYTES + extent.held_bytes + coarser
    return held + reading + slices * 3 // 2 + max(correcting, reconstructing)


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
