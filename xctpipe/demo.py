"""The demonstration: a simulated series in the HEX layout, everything run on it, measured beside true."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xctpipe import simulated_cell
from xctpipe.csvtables import Row, read_table
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.following import report_path
from xctpipe.recipe import read_recipe
from xctpipe.run import run
from xctpipe.runfolder import read_json

SERIES, LAYOUT, SEED = "plating", "hex1", 1

_CRACKS = frozenset({"crack", "crack_filled"})
_GROWN = "dvolume_dcharge_um3_per_mah_cm2"
_UM3_PER_MM3 = 1e9


@dataclass(frozen=True)
class Line:
    """One row of what the demonstration prints."""

    what: str
    scan: str
    true: str
    measured: str
    unit: str


@dataclass(frozen=True)
class Result:
    """The demonstration's table, and where its results are."""

    lines: tuple[Line, ...]
    folder: Path
    report: Path


def run_demo(folder: Path, *, size: str, scans: str | None = None) -> Result:
    """Simulate a plating series, run its recipe, and compare tables with the truth.

    What an earlier, interrupted demonstration left in the folder is used again.

    Raises
    ------
    BadRecipe
        If the folder holds something else, or a demonstration of another size.
    BadScan
        If a scan or a stage fails.
    """
    _check_size(folder, size)
    wish = simulated_cell.Wish(shape=simulated_cell.Shape(scans=scans))
    for _ in simulated_cell.write(folder, wish, series=SERIES, size=size, seed=SEED, layout=LAYOUT):
        pass
    recipe = read_recipe(folder / "recipe.toml")
    outcome = run(recipe)
    if outcome.failed:
        raise BadScan("; ".join(outcome.failed.values()))
    true, found = _tables(folder / "truth"), _tables(recipe.run_folder / "tables")
    return Result(tuple(compared(true, found)), recipe.run_folder, report_path(recipe))


def _check_size(folder: Path, size: str) -> None:
    known = (read_json(folder / "truth.json") or {}).get("size", size)
    if known != size:
        raise BadRecipe(f"{folder} holds a demonstration of size {known}; choose another folder")


Tables = dict[str, list[Row]]


def _tables(folder: Path) -> Tables:
    return {path.stem: read_table(path) for path in sorted(folder.glob("*.csv"))}


def compared(true: Tables, found: Tables) -> Iterator[Line]:
    """Lines of the demonstration's table, from the tables of the truth and of the run."""
    scans = [row["scan"] for row in true["scans"]]
    yield from _axes(true, found)
    yield from _volumes("crack", _CRACKS, scans, true, found)
    yield from _volumes("bubble", {"bubble"}, scans, true, found)
    yield from _contacts(scans, true, found)
    yield from _growths(true, found)
    yield from _events(true, found)


def _axes(true: Tables, found: Tables) -> Iterator[Line]:
    row, truth = found["scans"][0], true["scans"][0]
    measured = _with(row["center_px"], row["center_uncertainty_px"], digits=2)
    yield Line("rotation axis", row["scan"], f"{truth['center_px']:.2f}", measured, "px")


def _volumes(
    column: str, kinds: frozenset[str] | set[str], scans: Sequence[str], true: Tables, found: Tables
) -> Iterator[Line]:
    what = f"{column} volume"
    for scan in scans:
        truth = sum(row["volume_um3"] for row in _of(true["objects"], scan, kinds))
        rows = _of(found["objects"], scan, kinds)
        if truth or rows:
            measured = _sum_of(column, scan, found) if rows else "none found"
            yield Line(what, scan, f"{truth / _UM3_PER_MM3:.4g}", measured, "mm³")


def _sum_of(column: str, scan: str, found: Tables) -> str:
    sums = next(row for row in found["series"] if row["scan"] == scan)
    return _between(
        *[(sums[f"{column}_{part}um3"] or 0.0) / _UM3_PER_MM3 for part in ("volume_", "low_", "high_")]
    )


def _contacts(scans: Sequence[str], true: Tables, found: Tables) -> Iterator[Line]:
    truth = {row["scan"]: row["contact_frac"] for row in true["interface"]}
    for row in found["interface"]:
        if row["scan"] in (scans[0], scans[-1]):
            values = row["contact_frac"], row["contact_low_frac"], row["contact_high_frac"]
            yield Line(
                "contact fraction", row["scan"], f"{truth[row['scan']]:.3f}", _between(*values, digits=3), ""
            )


def _growths(true: Tables, found: Tables) -> Iterator[Line]:
    for kind in ("crack", "bubble"):
        truth = [row for row in true["growth"] if row["kind"] == kind]
        rows = [row for row in found["growth"] if row["kind"] == kind and row["track"] is not None]
        if not truth or not rows:
            continue
        row = max(rows, key=lambda each: (each["n_scans"], abs(each[_GROWN] or 0.0)))
        values = [None if (v := row[key]) is None else v / _UM3_PER_MM3 for key in (_GROWN, "low", "high")]
        unit = "mm³ per mAh/cm²"
        yield Line(
            f"growth of the {kind}", "", f"{truth[0][_GROWN] / _UM3_PER_MM3:.3g}", _between(*values), unit
        )
        if truth[0]["onset_mah_cm2"] is not None:
            onset = row["onset_mah_cm2"]
            text = "none" if onset is None else _between(onset, row.get("onset_low"), row.get("onset_high"))
            yield Line(f"onset of the {kind}", "", f"{truth[0]['onset_mah_cm2']:.2f}", text, "mAh/cm²")


def _events(true: Tables, found: Tables) -> Iterator[Line]:
    left = [_event(row) for row in found["events"]]
    scans = [row["scan"] for row in true["scans"]]
    for row in true["events"]:
        kind, _, scan_to = _event(row)
        # what is born is seen when it has come above the limit of detection
        late = scans[scans.index(scan_to) + 1 :][:1] if kind == "birth" else []
        seen = next((each for each in left if each[0] == kind and each[2] in [scan_to, *late]), None)
        if seen is not None:
            left.remove(seen)
        text = "no" if seen is None else "yes" if seen[2] == scan_to else "one scan later"
        yield Line(f"event: {kind}", f"to {scan_to}", "yes", text, "")
    for kind, _, scan_to in left:
        yield Line(f"event: {kind}", f"to {scan_to}", "no", "yes", "")


def _event(row: Row) -> tuple[str, str, str]:
    return row["kind"], row["scan_from"], row["scan_to"]


def _of(rows: Sequence[Row], scan: str, kinds: frozenset[str] | set[str]) -> list[Row]:
    return [row for row in rows if row["scan"] == scan and row["kind"] in kinds]


def _between(value: Any, low: Any, high: Any, *, digits: int = 4) -> str:
    if value is None:
        return "none"
    interval = "" if low is None or high is None else f" ({low:.{digits}g} to {high:.{digits}g})"
    return f"{value:.{digits}g}{interval}"


def _with(value: float, error: float | None, *, digits: int) -> str:
    return f"{value:.{digits}f}" if error is None else f"{value:.{digits}f} ± {error:.{digits}f}"
