"""The stages of a whole series: how the stack moved, which object is which and how it grew; and the report.

They come after the last scan. What a scan or a piece of it lacks is said and left out; the rest goes on.
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from xctpipe import __version__, charging, growing, registering, report, tracking
from xctpipe.blocks import discard
from xctpipe.errors import BadScan, UserError
from xctpipe.recipe import Recipe
from xctpipe.runfolder import ScanFolder, read_json, write_json
from xctpipe.stages import INTERRUPTED, MEASURE, REPORT, TRACK, SeriesWork, done_record

log = logging.getLogger(__name__)

_TABLES = ("registration", "tracks", "events", "growth", "series")


def follow(work: SeriesWork) -> list[str]:
    """Stage track: cycler, registration, tracks and events, growth; returns what the user must be told.

    Raises
    ------
    BadScan
        If no scan of the run is measured.
    """
    if not work.scans:
        raise BadScan(f"no scan is measured, so that nothing can be followed; run the stage {MEASURE} first")
    warnings = [f"{name}: not in the series: {why}" for name, why in work.missing.items()]
    warnings += charging.renew_tables(work.recipe)
    placed = registering.register(work)
    warnings += placed.warnings
    warnings += tracking.track(work, placed.pellet)
    warnings += growing.grow(work)
    return warnings


def tell(work: SeriesWork) -> list[str]:
    """Stage report: one page that says what the run found."""
    path = report.write_report(work.recipe.run_folder)
    log.info("report: %s", path)
    return []


def is_current(stage: str, work: SeriesWork, *, fresh: bool = False) -> bool:
    """Whether a stage of the series is done with these scans, settings and files."""
    record = None if fresh else read_json(_file(work, stage))
    here = {
        TRACK: lambda: all((work.tables / f"{name}.csv").exists() for name in _TABLES),
        REPORT: lambda: report_path(work.recipe).exists(),
    }
    if record is not None and record.get("with") == _settings(stage, work) and here[stage]():
        return True
    _file(work, stage).unlink(missing_ok=True)
    return False


def set_current(stage: str, work: SeriesWork, *, warnings: Sequence[str]) -> None:
    """Record that a stage of the series is done, and remove its scratch files."""
    write_json(_file(work, stage), {"with": _settings(stage, work), "warnings": list(warnings)})
    discard(work.scratch(stage))


def set_failed(stage: str, work: SeriesWork, *, why: str) -> None:
    """Record that a stage of the series failed: tables that an earlier run left are not of these scans."""
    write_json(_file(work, stage), {"error": why})


def report_path(recipe: Recipe) -> Path:
    """Where the report of a run is."""
    return recipe.run_folder / "report.html"


def _file(work: SeriesWork, stage: str) -> Path:
    return work.folder / f"{stage}.json"


def _settings(stage: str, work: SeriesWork) -> dict[str, Any]:
    """Everything the results of a stage depend on."""
    cell, cycler = work.recipe.cell, work.recipe.cycler
    table: dict[str, Any] = {
        "xctpipe": __version__,
        "scans": {each.name: _token(each.folder) for each in work.scans},
        "missing": dict(work.missing),
        "exposure_s": work.recipe.raw.exposure_s,
        "cycler": cycler and cycler.model_dump(mode="json"),
        "electrode_area_cm2": cell and cell.electrode_area_cm2,
        "cycler_files": [_mark(path) for path in charging.files_of(work.recipe)],
    }
    if stage == REPORT:
        table[TRACK] = read_json(_file(work, TRACK))
        table["tables"] = {path.name: _mark(path) for path in sorted(work.tables.glob("*.csv"))}
    return json.loads(json.dumps(table))  # type: ignore[no-any-return]


def _token(folder: Path) -> Any:
    """Mark of the measures of a scan, which are made anew when anything before them is."""
    return (done_record(ScanFolder(folder), MEASURE) or {}).get("token")


def _mark(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def in_time(names: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Scans in order of their start; in that of the recipe where one has none."""
    starts = {name: rows.get(name, {}).get("start_time") for name in names}
    if not all(starts.values()):
        return list(names)
    return sorted(names, key=lambda name: datetime.fromisoformat(str(starts[name])))


def finish(
    work: SeriesWork, stages: Sequence[str], *, asked: bool = True, fresh: bool = False
) -> dict[str, str]:
    """Do what is wanted of the stages of a series; returns what failed, by stage, and why.

    Without `asked`, as in a run of all stages, a series in which nothing is measured is not followed.
    """
    failed: dict[str, str] = {}
    if TRACK not in stages:
        # tables of other scans or settings are no longer called finished, so that the report says so
        is_current(TRACK, work)
    for stage, do in ((TRACK, follow), (REPORT, tell)):
        if stage not in stages or (stage == TRACK and not work.scans and not asked):
            continue
        try:
            if is_current(stage, work, fresh=fresh):
                log.info("%s is done already", stage)
                continue
            start = time.monotonic()
            set_failed(stage, work, why=INTERRUPTED)
            warnings = do(work)
        except UserError as err:
            log.error("%s failed: %s", stage, err)  # noqa: TRY400 - a user's message, not a traceback
            failed[stage] = str(err)
            set_failed(stage, work, why=str(err))
            continue
        for text in warnings:
            log.warning("%s", text)
        set_current(stage, work, warnings=warnings)
        log.info("%s is done, %.1f s", stage, time.monotonic() - start)
    return failed
