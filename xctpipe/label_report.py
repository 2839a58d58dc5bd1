"""A comparison of labels and tables for people: tables for the screen, and CSV files."""

from collections.abc import Iterator
from pathlib import Path

from xctpipe.compare_labels import CLASSES, LabelComparison, LabelResult
from xctpipe.csvtables import Row
from xctpipe.object_errors import COLUMNS
from xctpipe.runfolder import write_table

Line = tuple[str, ...]

CLASS_HEAD = ("class", "Dice", "IoU", "voxels", "of the reference")
KIND_HEAD = (
    "kind",
    "there",
    "found",
    "only here",
    "volume error %",
    "bias %",
    "counted %",
    "in interval %",
    "opening error px",
    "depth error px",
)
_SCAN_COLUMNS = (
    "scan",
    *(f"{name}_{what}" for name in CLASSES for what in ("dice", "iou")),
    "crack_precision",
    "crack_recall",
    "crack_f1",
    "contact_frac",
    "reference_contact_frac",
    "percolates",
    "reference_percolates",
)


def class_table(found: LabelComparison) -> list[Line]:
    """Agreement of the classes that either side has; columns are `CLASS_HEAD`."""
    return [
        (name, _number(each.dice), _number(each.iou), str(each.voxels), str(each.reference_voxels))
        for name, each in found.classes.items()
        if each.dice is not None
    ]


def kind_table(kinds: dict[str, Row]) -> list[Line]:
    """Typical errors of objects, medians of absolute values; columns are `KIND_HEAD`."""
    return [
        (
            kind,
            str(row["n_reference"]),
            str(row["n_found"]),
            str(row["n_only_here"]),
            _percent(row["volume_error_frac"]),
            _percent(row["volume_bias_frac"]),
            _percent(row["count_volume_error_frac"]),
            _percent(row["covered_frac"]),
            _number(row["opening_error_px"]),
            _number(row["depth_error_px"]),
        )
        for kind, row in kinds.items()
    ]


def lines(found: LabelComparison) -> Iterator[str]:
    """What else there is to say, a line each."""
    r0, r1 = found.rows
    yield f"rows {r0}:{r1}, {found.voxels} voxels that both sides see"
    if found.crack.f1 is not None:
        scores = (found.crack.precision, found.crack.recall, found.crack.f1)
        p, r, f1 = (_number(each) for each in scores)
        yield f"cracks, to one voxel: precision {p}, recall {r}, F1 {f1}"
    for what, values in (("contact fraction", found.contact_frac), ("percolates", found.percolates)):
        if None not in values:
            yield f"{what}: {_said(values[0])}, reference {_said(values[1])}"
    yield from (f"note: {note}" for note in found.notes)


def save(result: LabelResult, folder: Path) -> list[Path]:
    """Write `labels.csv`, a row for each scan, and `objects.csv`, a row for each object."""
    scans, objects = folder / "labels.csv", folder / "objects.csv"
    write_table(scans, [_scan_row(each) for each in result.done], columns=_SCAN_COLUMNS)
    write_table(objects, [row for each in result.done for row in each.objects], columns=COLUMNS)
    return [scans, objects]


def _scan_row(found: LabelComparison) -> Row:
    row: Row = {"scan": found.scan}
    for name, each in found.classes.items():
        row |= {f"{name}_dice": each.dice, f"{name}_iou": each.iou}
    for name in ("precision", "recall", "f1"):
        row[f"crack_{name}"] = getattr(found.crack, name)
    for name, values in (("contact_frac", found.contact_frac), ("percolates", found.percolates)):
        row |= {name: values[0], f"reference_{name}": values[1]}
    return row


def _said(value: float | bool | None) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else _number(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
