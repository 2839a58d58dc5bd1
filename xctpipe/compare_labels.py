"""Labels and tables of a run against those of another run, or against the truth of a simulated cell.

Labels are read, and true ones rendered, a few rows at a time: memory holds those only, at any volume size.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xctpipe import label_volume, true_labels
from xctpipe.agreement import Finding, Labels, LabelSums, Objects, Overlap, finding, label_sums, overlap
from xctpipe.csvtables import Row, read_table
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.object_errors import by_kind, object_rows
from xctpipe.pairs import match, open_pairs
from xctpipe.progress import progress
from xctpipe.pyramid import level_factors, level_shape
from xctpipe.scan import Span
from xctpipe.segment.codes import PHASES
from xctpipe.stacks import VolumeStack, find

CLASSES: dict[str, tuple[str, ...]] = {
    "nasicon": ("nasicon", "chip"),
    "nak": ("nak", "o_ring", "peek"),
    "electrode": ("collector", "counter_electrode"),
    "void": ("bubble", "interfacial_void"),
    "crack": ("crack", "crack_filled"),
    "bubble": ("bubble",),
    "interfacial_void": ("interfacial_void",),
    "crack_filled": ("crack_filled",),
    "pore": ("pore",),
    "chip": ("chip",),
    "inclusion": ("inclusion",),
}
"""Phases that are compared as one, by the name of the class.

Absorption does not tell the ring and the wall from NaK (0.003 and 0.009 cm^-1 apart), so that a run labels
them as NaK; a chip is NASICON; what lies behind the counter electrode is counted to it by a run, while the
truth knows its foil and the metal under it. What a void is, and what fills a crack, is told apart by place
and by the mean of an object: a voxel that is right but for that is right for `void` and `crack`.
"""

CRACKS = tuple(PHASES[name] for name in CLASSES["crack"])

_SLAB_ROWS, _SLAB_VOXELS = 16, 2**25

Slab = tuple[Labels, Objects]


class _Side(Protocol):
    """Where labels and tables of a scan come from."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def tables(self) -> Mapping[str, list[Row]]:
        """Rows of this scan, by name of the table; a table that is not there is absent."""

    def slabs(self, spans: Sequence[Span]) -> Iterator[Slab]:
        """Phases and objects of rows that are compared, counted from the first of them."""


@dataclass(frozen=True)
class _Stored:
    """Labels of a run; `first` is the slice that the comparison begins with."""

    stack: VolumeStack
    level: int
    first: int = 0

    @property
    def name(self) -> str:
        return str(self.stack.path)

    @property
    def tables(self) -> Mapping[str, list[Row]]:
        files = sorted((self.stack.home / "tables").glob("*.csv"))
        return _of_scan({file.stem: read_table(file) for file in files}, self.stack.scan)

    def slabs(self, spans: Sequence[Span]) -> Iterator[Slab]:
        for first, last in spans:
            rows = slice(self.first + first, self.first + last)
            read = (
                label_volume.read_labels(self.stack.path, name, level=self.level, z=rows)
                for name in ("phases", "objects")
            )
            yield next(read), next(read)


@dataclass(frozen=True)
class _True:
    """Labels of a simulated cell on the grid of a volume."""

    cell: true_labels.Cell
    stack: VolumeStack
    level: int

    @property
    def name(self) -> str:
        return str(self.cell.path)

    @property
    def tables(self) -> Mapping[str, list[Row]]:
        return _of_scan(self.cell.tables, self.stack.scan)

    def slabs(self, spans: Sequence[Span]) -> Iterator[Slab]:
        spec = self.stack.spec
        factor = level_factors(spec.shape, level=self.level)[0]
        middle = [((n - 1) / 2 + 0.5) / factor - 0.5 for n in spec.shape[1:]]
        return true_labels.true_slabs(
            self.cell.steps[self.stack.scan],
            shape=level_shape(spec.shape, level=self.level),
            voxel_um=spec.pixel_um * factor,
            first_row=spec.first_row / factor,
            origin_px=(middle[0], middle[1]),
            spans=spans,
        )


def _of_scan(tables: Mapping[str, list[Row]], scan: str) -> dict[str, list[Row]]:
    return {name: [row for row in rows if row.get("scan") == scan] for name, rows in tables.items()}


@dataclass(frozen=True)
class LabelComparison:
    """How the labels and tables of one scan agree with the reference's.

    `contact_frac` and `percolates` are the run's and the reference's, None where it does not say.
    """

    scan: str
    path: str
    reference: str
    voxel_um: float
    rows: Span
    """Detector rows, or rows of the level, that were compared."""
    voxels: int
    classes: Mapping[str, Overlap]
    crack: Finding
    objects: tuple[Row, ...]
    contact_frac: tuple[float | None, float | None]
    percolates: tuple[bool | None, bool | None]
    confusion: Mapping[str, Mapping[str, int]]
    """Voxels by phase and phase of the reference."""
    notes: tuple[str, ...] = ()

    @property
    def kinds(self) -> dict[str, Row]:
        """Typical errors of objects by kind."""
        return by_kind(self.objects)

    def as_json(self) -> dict[str, Any]:
        """Plain values, with None for what is not finite."""
        plain: dict[str, Any] = _plain({**asdict(self), "kinds": self.kinds})
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass
class LabelResult:
    """Comparisons of scans, what could not be compared, and what else is to be said."""

    done: list[LabelComparison] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> dict[str, Row]:
        """Typical errors of the objects of all scans, by kind."""
        return by_kind([row for each in self.done for row in each.objects])

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "scans": [each.as_json() for each in self.done],
            "kinds": _plain(self.kinds),
            "failed": self.failed,
            "notes": self.notes,
        }


def holds_labels(path: Path) -> bool:
    """Whether a scan of a run, or a volume, has labels."""
    volumes = [path] if path.suffix == ".zarr" else path.glob("scans/*/edge.ome.zarr")
    return any(label_volume.has_labels(each) for each in volumes)


def applies(a: Path, b: Path) -> bool:
    """Whether there are labels to compare: of two runs or volumes, or of one and of a simulated cell."""
    return true_labels.is_cell(b) or true_labels.is_cell(a) or (holds_labels(a) and holds_labels(b))


def compare_labels(a: Path, b: Path, *, scans: Sequence[str] = (), level: int | None = None) -> LabelResult:
    """Compare the labels and tables of a run with a reference: another run, or a simulated cell.

    Parameters
    ----------
    a : run folder, or one of its volumes.
    b : the same, or the folder that `xctpipe simulate cell` wrote.
    scans : names or globs, in run folders; absent: all that both have.
    level : of the pyramid, 0 is full resolution; absent: that on which the labels of `a` were made.

    Raises
    ------
    BadRecipe
        If a path is none of these.
    BadScan
        If nothing can be compared; of several scans those that can are.
    """
    if true_labels.is_cell(a) and not (a / "run.json").is_file():
        raise BadRecipe(f"{a} is a simulated cell: give the run first, then the cell it is compared with")
    result = LabelResult()
    sides = _with_truth if true_labels.is_cell(b) else _with_run
    for mine, other, rows in sides(a, b, scans, level, result):
        try:
            result.done.append(_compare(mine, other, rows))
        except BadScan as err:
            result.failed.append(str(err))
    if not result.done:
        raise BadScan("; ".join(result.failed) or f"nothing to compare between {a} and {b}")
    return result


_Pairs = Iterator[tuple[_Stored, _Side, Span]]


def _with_truth(a: Path, b: Path, scans: Sequence[str], level: int | None, result: LabelResult) -> _Pairs:
    stacks, unfinished = find(a, scans=scans)
    result.notes += [f"{a}: not finished: {line}" for line in unfinished]
    cell = true_labels.open_cell(b)
    for stack in stacks:
        if stack.scan not in cell.steps:
            result.failed.append(f"{stack.scan}: not among the scans of {b}: {', '.join(cell.steps)}")
            continue
        made_on = _level(stack, level, result)
        if made_on is None:
            continue
        shape = level_shape(stack.spec.shape, level=made_on)
        yield _Stored(stack, made_on), _True(cell, stack, made_on), (0, shape[0])


def _with_run(a: Path, b: Path, scans: Sequence[str], level: int | None, result: LabelResult) -> _Pairs:
    found, notes = open_pairs(a, b, scans=scans)
    result.notes += notes
    for one, other in found:
        try:
            pair = match(one, other)
        except BadScan as err:
            result.failed.append(str(err))
            continue
        if not (isinstance(one, VolumeStack) and isinstance(other, VolumeStack)):
            result.failed.append(f"{pair.scan}: labels belong to volumes of xctpipe; these are exports")
            continue
        made_on = _level(one, level, result)
        if made_on is None or _level(other, made_on, result) is None:
            continue
        factor = level_factors(one.spec.shape, level=made_on)[0]
        z_a, z_b, n = pair.z_a[0] // factor, pair.z_b[0] // factor, pair.z_a[1] - pair.z_a[0]
        if pair.z_a[0] % factor or pair.z_b[0] % factor:
            result.failed.append(f"{pair.scan}: at level {made_on} the rows of both do not coincide")
            continue
        yield _Stored(one, made_on, z_a), _Stored(other, made_on, z_b), (z_a, z_a + -(-n // factor))


def _level(stack: VolumeStack, wanted: int | None, result: LabelResult) -> int | None:
    """The level to compare; None, and why, where a scan has no labels."""
    if not label_volume.has_labels(stack.path):
        result.failed.append(f"{stack.path}: no labels; run its recipe with --stages segment,measure first")
        return None
    return int(label_volume.label_attributes(stack.path, "phases")["level"]) if wanted is None else wanted


def _compare(mine: _Stored, other: _Side, rows: Span) -> LabelComparison:
    spec = mine.stack.spec
    factor = level_factors(spec.shape, level=mine.level)[0]
    voxel_um = spec.pixel_um * factor
    sums = _sums(mine, other, rows)
    tables, reference = mine.tables, other.tables
    # of the middles of the first and the last row compared, from the centre of detector row 0
    first_um = (spec.first_row + rows[0] * factor + (factor - 1) / 2) * spec.pixel_um
    found: list[Row] = []
    if "objects" in tables and "objects" in reference:
        found = object_rows(
            mine.stack.scan,
            tables["objects"],
            reference["objects"],
            sums=sums,
            voxel_um=voxel_um,
            rows_um=(first_um, first_um + (rows[1] - rows[0] - 1) * voxel_um),
            open_ends=_goes_on(other, mine, rows),
        )
    names = {code: name for name, code in PHASES.items()}
    return LabelComparison(
        scan=mine.stack.scan,
        path=mine.name,
        reference=other.name,
        voxel_um=voxel_um,
        rows=(spec.first_row + rows[0], spec.first_row + rows[1]) if not mine.level else rows,
        voxels=int(sums.confusion.sum()),
        classes={
            name: overlap(sums.confusion, [PHASES[each] for each in members])
            for name, members in CLASSES.items()
        },
        crack=finding(sums.near),
        objects=tuple(found),
        contact_frac=(
            _value(tables, "interface", "contact_frac"),
            _value(reference, "interface", "contact_frac"),
        ),
        percolates=(
            _value(tables, "percolation", "percolates"),
            _value(reference, "percolation", "percolates"),
        ),
        confusion=_named(sums.confusion, names),
        notes=tuple(_notes(tables, reference)),
    )


def _goes_on(other: _Side, mine: _Stored, rows: Span) -> bool:
    """Whether the reference has more rows than are compared."""
    if isinstance(other, _True):
        step = other.cell.steps[mine.stack.scan]
        return mine.stack.spec.first_row > 0 or mine.stack.shape[0] < step.acquisition.rows
    if isinstance(other, _Stored):
        return level_shape(other.stack.spec.shape, level=other.level)[0] > rows[1] - rows[0]
    return False


def _value(tables: Mapping[str, list[Row]], table: str, column: str) -> Any:
    rows = tables.get(table) or [{}]
    return rows[0].get(column)


def _named(confusion: NDArray[np.int64], names: Mapping[int, str]) -> dict[str, dict[str, int]]:
    pairs = [(int(p), int(q)) for p, q in np.argwhere(confusion)]
    found: dict[str, dict[str, int]] = {}
    for p, q in pairs:
        found.setdefault(names.get(p, str(p)), {})[names.get(q, str(q))] = int(confusion[p, q])
    return found


def _notes(tables: Mapping[str, list[Row]], reference: Mapping[str, list[Row]]) -> Iterator[str]:
    for name in ("objects", "interface", "percolation"):
        missing = [side for side, has in (("run", tables), ("reference", reference)) if name not in has]
        if missing:
            yield f"no table {name} in the {' and the '.join(missing)}: not compared"


def _sums(mine: _Stored, other: _Side, rows: Span) -> LabelSums:
    n = rows[1] - rows[0]
    _, height, width = level_shape(mine.stack.spec.shape, level=mine.level)
    step = max(1, min(_SLAB_ROWS, _SLAB_VOXELS // (height * width)))
    spans = list(pairwise([*range(0, n, step), n]))
    sums: list[LabelSums] = []
    with progress(f"{mine.stack.scan} labels", total=n) as bar:
        pairs = zip(_padded(mine.slabs(spans)), _padded(other.slabs(spans)), strict=True)
        for (first, last), ((labels, inner), (reference, _)) in zip(spans, pairs, strict=True):
            ends = (first == 0, last == n)
            sums.append(label_sums(labels, reference, cracks=CRACKS, inner=inner, ends=ends))
            bar.advance(last - first)
    return reduce(LabelSums.__add__, sums)


def _padded(slabs: Iterator[Slab]) -> Iterator[tuple[Slab, Span]]:
    """Each slab with the rows beside it, where there are any, and the rows in it that are its own."""
    before: Slab | None = None
    here: Slab | None = None
    for after in chain(slabs, (None,)):
        if here is not None:
            first = 0 if before is None else 1
            parts = [
                *([] if before is None else [(before[0][-1:], before[1][-1:])]),
                here,
                *([] if after is None else [(after[0][:1], after[1][:1])]),
            ]
            phases, objects = (np.concatenate(each) for each in zip(*parts, strict=True))
            yield (phases, objects), (first, first + len(here[0]))
        before, here = here, after
