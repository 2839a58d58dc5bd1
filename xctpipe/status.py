"""What is done, what runs, what failed and why: read from the run folder, without touching it."""

import fcntl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from xctpipe.errors import BadRecipe
from xctpipe.runfolder import RUN_RECORD, ScanFolder, read_json, scan_folder
from xctpipe.stages import INTERRUPTED, LATER, OF_SERIES, done_record


@dataclass(frozen=True)
class ScanStatus:
    """State of one scan; `state` is waiting, running, interrupted, done or failed."""

    name: str
    state: str
    slabs_done: int
    slabs: int | None
    detail: str = ""
    of_scan: bool = True
    """Whether this is a scan; else the stages of the whole series."""

    @property
    def slabs_of(self) -> str:
        """Slabs done, of how many."""
        return f"{self.slabs_done}/{'?' if self.slabs is None else self.slabs}" if self.of_scan else ""


def is_running(run_folder: Path) -> bool:
    """Whether a process holds the run folder now."""
    try:
        with (run_folder / ".lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def status(run_folder: Path) -> list[ScanStatus]:
    """State of every scan of a run; BadRecipe when the folder holds none."""
    record = read_json(run_folder / RUN_RECORD)
    if record is None or not isinstance(record.get("scans"), dict):
        raise BadRecipe(f"{run_folder}: not a run folder (no {RUN_RECORD}); give the recipe's run_folder")
    alive = is_running(run_folder)
    scans = [_scan_status(run_folder, name, entry, alive) for name, entry in record["scans"].items()]
    return [*scans, *_series_status(run_folder, alive)]


def _series_status(run_folder: Path, alive: bool) -> Iterator[ScanStatus]:
    """How the stages of the whole series stand, where any was begun."""
    told = {stage: read_json(run_folder / "series" / f"{stage}.json") for stage in OF_SERIES}
    if not any(told.values()):
        return
    errors = {stage: str(record["error"]) for stage, record in told.items() if record and "error" in record}
    running = alive and INTERRUPTED in errors.values()
    texts = {stage: f"{stage} failed: {why}" for stage, why in errors.items()}
    for stage, why in errors.items():
        if why == INTERRUPTED:
            texts[stage] = f"{stage} running" if alive else f"{stage} {INTERRUPTED}"
    detail = "; ".join(texts.get(stage, f"{stage} done") for stage, record in told.items() if record)
    state = "running" if running else "failed" if errors else "done" if all(told.values()) else "not finished"
    yield ScanStatus("(series)", state, 0, None, detail, of_scan=False)


def _scan_status(run_folder: Path, name: str, entry: dict[str, object], alive: bool) -> ScanStatus:
    state = str(entry.get("status", "unknown"))
    if state in {"running", "waiting"} and not alive:
        state = "interrupted" if state == "running" else "not started"
    folder = scan_folder(run_folder, name)
    done = len(list((folder.root / "work" / "slabs").glob("[0-9]*.json")))
    slabs = entry.get("slabs")
    again = "repeat the run to go on" if state in {"interrupted", "not started"} else ""
    detail = str(entry.get("error") or again or entry.get("volume") or "")
    detail = "; ".join([part for part in (detail, *_later(folder, entry, alive)) if part])
    return ScanStatus(name, state, done, slabs if isinstance(slabs, int) else None, detail)


def _later(folder: ScanFolder, entry: Mapping[str, object], alive: bool) -> Iterator[str]:
    """How the stages after the reconstruction stand, those that were begun; what is done, the disk says."""
    known = entry.get("stages")
    for stage in LATER:
        told = known.get(stage, {}) if isinstance(known, dict) else {}
        if told.get("status") == "running":
            yield f"{stage} {'running' if alive else 'interrupted'}"
        elif done_record(folder, stage) is not None:
            yield f"{stage} done"
        elif told.get("status") == "failed":
            yield f"{stage} failed: {told.get('error')}"
        elif told:
            yield f"{stage} to be done again"
