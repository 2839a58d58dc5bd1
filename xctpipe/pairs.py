"""What is compared with what: scans of the same name in two runs, or two stacks, over their common rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xctpipe.errors import BadRecipe, BadScan
from xctpipe.exported import looks_exported, open_exported
from xctpipe.runfolder import RUN_RECORD
from xctpipe.scan import FloatArray, Span
from xctpipe.stacks import Stack, find


@dataclass(frozen=True)
class Pair:
    """Two stacks with the slices of each, [z0, z1), that show the same rows."""

    scan: str
    a: Stack
    b: Stack
    z_a: Span
    z_b: Span

    @property
    def rows(self) -> Span:
        """Detector rows compared; slices of A where its first row is not known."""
        first = self.a.first_row or 0
        return first + self.z_a[0], first + self.z_a[1]

    @property
    def middle(self) -> int:
        """The middle one of the rows compared, counted in them."""
        return (self.z_a[1] - self.z_a[0]) // 2

    def read(self, z: Span) -> tuple[FloatArray, FloatArray]:
        """Slices [z0, z1) of the rows compared, of A and of B."""
        a0, b0 = self.z_a[0], self.z_b[0]
        return self.a.read((a0 + z[0], a0 + z[1])), self.b.read((b0 + z[0], b0 + z[1]))


def open_pairs(
    a: Path, b: Path, *, kind: str | None = None, scans: Sequence[str] = ()
) -> tuple[list[tuple[Stack, Stack]], list[str]]:
    """Stacks to be compared with one another, and what has no partner or is not finished.

    Parameters
    ----------
    a, b : run folders, volumes, folders of TIFF slices or HDF5 files. Of two run folders the scans of
        the same name are compared, of a run folder and a volume the scan of the volume's name.
    kind : `edge` (when absent) or `mass`, in run folders.
    scans : names or globs of the scans to compare, in run folders.

    Raises
    ------
    BadRecipe
        If a path is none of these.
    BadScan
        If there is nothing to compare.
    """
    runs = [(path / RUN_RECORD).is_file() for path in (a, b)]
    if scans and not any(runs):
        raise BadRecipe(f"--scan {', '.join(scans)}: is for run folders; two volumes are given")
    sides, notes = [], []
    for path, is_run in zip((a, b), runs, strict=True):
        stacks, unfinished = _open(path, kind=kind if is_run else None, scans=scans if is_run else ())
        sides.append({stack.scan: stack for stack in stacks})
        notes += [f"{path}: not finished: {line}" for line in unfinished]
    names_a, names_b = list(sides[0]), list(sides[1])
    if not all(runs) and len(names_a) == len(names_b) == 1:
        return [(sides[0][names_a[0]], sides[1][names_b[0]])], notes
    common = [name for name in names_a if name in sides[1]]
    if not common:
        raise BadScan(
            f"nothing to compare: {a} has {', '.join(names_a)}, {b} has {', '.join(names_b)}; give two "
            "volumes (RUN/scans/SCAN/edge.ome.zarr) to compare scans of different names"
        )
    for path, side in zip((a, b), sides, strict=True):
        alone = [name for name in side if name not in common]
        if alone and all(runs):
            notes.append(f"only in {path}: {', '.join(alone)}")
    return [(sides[0][name], sides[1][name]) for name in common], notes


def _open(path: Path, *, kind: str | None, scans: Sequence[str]) -> tuple[Sequence[Stack], list[str]]:
    if path.suffix != ".zarr" and not (path / RUN_RECORD).is_file() and looks_exported(path):
        return [open_exported(path)], []
    return find(path, kind=kind, scans=scans)


def match(a: Stack, b: Stack, *, rows: Span | None = None) -> Pair:
    """The rows that both stacks have, by their detector rows where both know them.

    Raises
    ------
    BadRecipe
        If `rows` (detector rows) are not among them.
    BadScan
        If the slices differ in size, or no row is common.
    """
    scan = a.scan if a.scan == b.scan else f"{a.scan} and {b.scan}"
    if a.shape[1:] != b.shape[1:]:
        raise BadScan(
            f"{scan}: slices of {_size(a)} and {_size(b)} voxels cannot be compared; reconstruct both "
            "with the same raw.columns, or export both at the same level"
        )
    known = a.first_row is not None and b.first_row is not None
    if not known and a.shape[0] != b.shape[0]:
        raise BadScan(
            f"{scan}: {a.shape[0]} and {b.shape[0]} slices, and not known which detector row they begin "
            "with; compare stacks of the same rows"
        )
    first_a = a.first_row or 0
    first_b = (b.first_row or 0) if known else first_a
    common = max(first_a, first_b), min(first_a + a.shape[0], first_b + b.shape[0])
    if common[0] >= common[1]:
        raise BadScan(
            f"{scan}: no common row: detector rows {first_a}:{first_a + a.shape[0]} and "
            f"{first_b}:{first_b + b.shape[0]}"
        )
    r0, r1 = rows or common
    if r0 < common[0] or r1 > common[1]:
        raise BadRecipe(f"--rows {r0}:{r1}: {scan} has {common[0]}:{common[1]} in common; give a part of it")
    return Pair(scan, a, b, (r0 - first_a, r1 - first_a), (r0 - first_b, r1 - first_b))


def _size(stack: Stack) -> str:
    return f"{stack.shape[1]} x {stack.shape[2]}"
