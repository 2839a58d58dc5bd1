"""Charge, current and voltage of every scan, from the cycler's files, joined by absolute time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from xctpipe import cycler
from xctpipe.cycler.base import CyclerFile, ReadOptions
from xctpipe.cycler.history import History, put_together
from xctpipe.cycler.scans import (
    Row,
    ScanTime,
    about_short,
    blurred,
    first_start,
    not_covered,
    scan_times,
    start_of,
)
from xctpipe.cycler.steps import Short, Step, find_short, signs, steps_of, thinned
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.recipe import Recipe
from xctpipe.runfolder import RUN_RECORD, read_json, write_table

SCAN_COLUMNS = (
    "scan",
    "start_time",
    "time_s",
    "center_px",
    "center_uncertainty_px",
    "center_confidence",
    "center_from_first_px",
    "tilt_deg",
    "n_frames",
    "n_bad_frames",
    "noise_cm1",
    "resolution_um",
    "rings_before_cm1",
    "rings_after_cm1",
    "pixel_um",
    "bin_px",
    "energy_kev",
    "charge_mah_cm2",
    "current_ma_cm2",
    "voltage_v",
    "n_warnings",
    "charge_middle_mah_cm2",
    "charge_end_mah_cm2",
    "step",
    "cycler_time_s",
    "end_time_s",
    "end_from",
)
"""Charge, current, voltage and step stay empty without a cycler file."""
STEP_COLUMNS = (
    "step",
    "start_time_s",
    "end_time_s",
    "start_charge_mah_cm2",
    "end_charge_mah_cm2",
    "current_ma_cm2",
    "voltage_v",
)
CURVE_COLUMNS = ("time_s", "voltage_v", "current_ma_cm2", "charge_mah_cm2")


@dataclass(frozen=True)
class Joined:
    """What the cycler says of the scans: cells by scan, tables of the run, and what is wrong."""

    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Cells of scans.csv, by scan; those that cannot be told are absent."""
    steps: tuple[dict[str, Any], ...] = ()
    """Rows of steps.csv."""
    curve: tuple[dict[str, Any], ...] = ()
    """Rows of cycler.csv."""
    warnings: tuple[str, ...] = ()


def files_of(recipe: Recipe) -> list[Path]:
    """The cycler's files, in the recipe's order; BadRecipe where a name or a glob fits none."""
    found: list[Path] = []
    for name in recipe.cycler.file if recipe.cycler else ():
        path = Path(name)
        fitting = (
            [path] if path.exists() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        )
        if not fitting:
            raise BadRecipe(
                f"cycler.file = {name!r}: no such file; give a .mpr, .mpt or CSV file, relative to the "
                "recipe, or leave out [cycler]"
            )
        found += fitting
    return list(dict.fromkeys(found))


def check_cycler(recipe: Recipe) -> list[str]:
    """Open every file of the cycler before hours are spent; says which cannot be read, and why.

    Raises
    ------
    BadRecipe
        If there is no such file.
    """
    return _opened(files_of(recipe), _options(recipe, zone=UTC))[1]


def join_cycler(recipe: Recipe, rows: Sequence[Row]) -> Joined:
    """Charge, current and voltage of scans by absolute time.

    Charge is counted from the first line of the cycler's files on. What the files do not cover stays empty; a
    file that cannot be read costs itself, and is named in the warnings.

    Parameters
    ----------
    rows : of scans, in the recipe's order, each with scan, start_time (ISO 8601 with zone) and, where known,
        n_frames, duration_s, end_from, pixel_um.
    """
    scans, told = scan_times(rows, exposure_s=recipe.raw.exposure_s)
    columns: dict[str, dict[str, Any]] = {
        each.name: {"end_time_s": each.end_s, "end_from": each.end_from}
        for each in scans
        if each.end_s is not None
    }
    if recipe.cycler is None:
        return Joined(columns)
    files, warnings = _read_all(recipe, rows)
    warnings = told + warnings
    if not files:
        return Joined(columns, warnings=tuple(warnings))
    choice, zero = recipe.cycler, first_start(rows) or min(file.start for file in files)
    history, told = put_together(
        files,
        zero=zero,
        offset_s=choice.clock_offset_s,
        area_cm2=_area_cm2(recipe),
        sign=1 if choice.plating_positive else -1,
    )
    warnings += told
    steps, short = steps_of(history), find_short(history)
    for scan in scans:
        since_s = max((s.start_s for s in scans if s.start_s < scan.start_s), default=history.first_s)
        cells = _cells(scan, history, since_s=since_s, outside=choice.rests_outside)
        columns[scan.name] = columns.get(scan.name, {}) | cells
    warnings += not_covered(scans, history, files, outside=choice.rests_outside)
    warnings += [*blurred(scans, columns), *about_short(short, history)]
    step_rows = tuple(_step_rows(steps, short, history))
    return Joined(columns, step_rows, tuple(_curve(history)), tuple(warnings))


def renew_tables(recipe: Recipe) -> tuple[str, ...]:
    """Write scans.csv, steps.csv and cycler.csv anew from what run folder and cycler's files hold now.

    Returns what is wrong with these files, or with how they fit the scans.
    """
    scans = (read_json(recipe.run_folder / RUN_RECORD) or {}).get("scans", {})
    rows = [scan["row"] for scan in scans.values() if "row" in scan]
    return write_scans(recipe.run_folder, rows, recipe=recipe)


def write_scans(root: Path, rows: Sequence[dict[str, Any]], *, recipe: Recipe | None) -> tuple[str, ...]:
    """Write scans.csv, time counted from the first, and the cycler's tables; returns warnings about these."""
    joined = join_cycler(recipe, rows) if recipe else Joined()
    zero = first_start(rows)
    whole = []
    for row in rows:
        known = {key: value for key, value in row.items() if key in SCAN_COLUMNS}
        start = start_of(row)
        if start is not None and zero is not None:
            known["time_s"] = (start - zero).total_seconds()
        whole.append(known | joined.columns.get(row["scan"], {}))
    write_table(root / "tables" / "scans.csv", whole, columns=SCAN_COLUMNS)
    write_tables(root / "tables", joined)
    return joined.warnings


def write_tables(tables: Path, joined: Joined) -> None:
    """Write steps.csv and cycler.csv, where a cycler was read; else remove what an earlier run left."""
    for name, rows, columns in (
        ("steps", joined.steps, STEP_COLUMNS),
        ("cycler", joined.curve, CURVE_COLUMNS),
    ):
        if rows:
            write_table(tables / f"{name}.csv", rows, columns=columns)
        else:
            (tables / f"{name}.csv").unlink(missing_ok=True)


def _area_cm2(recipe: Recipe) -> float:
    area = recipe.cell.electrode_area_cm2 if recipe.cell else None
    if area is None:
        raise BadRecipe(
            "cell.electrode_area_cm2 is missing: [cycler] counts charge per area of the electrode"
        )
    return area


def _options(recipe: Recipe, *, zone: tzinfo) -> ReadOptions:
    choice = recipe.cycler
    if choice is None:
        return ReadOptions(zone)
    return ReadOptions(
        ZoneInfo(choice.time_zone) if choice.time_zone else zone,
        choice.start,
        choice.columns.given(),
        choice.units.given(),
        _area_cm2(recipe),
    )


def _opened(paths: Sequence[Path], options: ReadOptions) -> tuple[list[CyclerFile], list[str]]:
    """The files that can be read, and what is wrong with the others."""
    files, told = [], []
    for path in paths:
        try:
            files.append(cycler.read(path, options=options))
        except BadScan as err:
            told.append(f"cycler.file: {err}; charge and voltage are without it")
    return files, told


def _read_all(recipe: Recipe, rows: Sequence[Row]) -> tuple[list[CyclerFile], list[str]]:
    """The files that can be read, and what is wrong with these and the others."""
    assumed = next((start.tzinfo for row in rows if (start := start_of(row)) and start.tzinfo), None) or UTC
    try:
        paths = files_of(recipe)
    except BadRecipe as err:
        return [], [str(err)]
    files, told = _opened(paths, _options(recipe, zone=assumed))
    told += [problem for file in files for problem in file.problems]
    silent = [file.path.name for file in files if not file.says_zone]
    if silent and recipe.cycler and not recipe.cycler.time_zone:
        told.append(
            f"{', '.join(silent)}: no time zone is named; that of the scans ({assumed}) is assumed; give "
            'cycler.time_zone, e.g. "America/New_York"'
        )
    return files, told


def _cells(scan: ScanTime, history: History, *, since_s: float, outside: bool) -> dict[str, Any]:
    """What the cycler says of one scan."""
    cells: dict[str, Any] = {}
    middle_s = None if scan.end_s is None else (scan.start_s + scan.end_s) / 2
    for name, time_s in (
        ("charge_mah_cm2", scan.start_s),
        ("charge_middle_mah_cm2", middle_s),
        ("charge_end_mah_cm2", scan.end_s),
    ):
        if time_s is not None and (outside or history.covers(time_s)):
            cells[name] = history.passed_at(time_s)
    if not (outside or history.covers(scan.start_s)):
        return cells
    row, last_s = history.before(scan.start_s), history.last_s
    flows = row is not None and scan.start_s <= last_s
    cells["current_ma_cm2"] = float(history.current_ma_cm2[row]) if flows and row is not None else 0.0
    if history.covers(scan.start_s):
        volts = float(history.voltage_v[row or 0])
        cells["voltage_v"] = volts if np.isfinite(volts) else None
        cells["cycler_time_s"] = round(scan.start_s - history.span_at(scan.start_s).zero_s, 6)
    cells["step"] = _kind_between(history, since_s, scan.start_s)
    return cells


def _kind_between(history: History, first_s: float, last_s: float) -> str:
    """What the cell did last before a scan and since the one before it; rest where no current flowed."""
    a, b = history.before(first_s), history.before(last_s)
    if b is None:
        return "rest"
    flowing = signs(history)[0 if a is None else a + 1 : b + 1]
    flowing = flowing[flowing != 0]
    return "rest" if not flowing.size else "plating" if flowing[-1] > 0 else "stripping"


def _step_rows(steps: Sequence[Step], short: Short | None, history: History) -> list[dict[str, Any]]:
    rows = [_step_row(step.kind, step.start_s, step.end_s, history) | _cells_of(step) for step in steps]
    if short is not None:
        shorted = _step_row("short", float(history.time_s[short.row]), float(history.time_s[-1]), history) | {
            "current_ma_cm2": float(history.current_ma_cm2[short.row]),
            "voltage_v": short.after_v,
        }
        place = sum(row["start_time_s"] <= shorted["start_time_s"] for row in rows)
        rows.insert(place, shorted)
    return rows


def _step_row(kind: str, start_s: float, end_s: float, history: History) -> dict[str, Any]:
    return {
        "step": kind,
        "start_time_s": round(start_s, 6),
        "end_time_s": round(end_s, 6),
        "start_charge_mah_cm2": history.passed_at(start_s),
        "end_charge_mah_cm2": history.passed_at(end_s),
    }


def _cells_of(step: Step) -> dict[str, Any]:
    volts = step.voltage_v if np.isfinite(step.voltage_v) else None
    return {"current_ma_cm2": step.current_ma_cm2, "voltage_v": volts}


def _curve(history: History) -> list[dict[str, Any]]:
    kept = thinned(history)
    columns = (history.time_s, history.voltage_v, history.current_ma_cm2, history.passed_mah_cm2)
    return [
        {
            name: f"{value:.9g}" if np.isfinite(value) else None
            for name, value in zip(CURVE_COLUMNS, line, strict=True)
        }
        for line in zip(*(column[kept].tolist() for column in columns), strict=True)
    ]
