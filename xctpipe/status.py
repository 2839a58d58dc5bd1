"""What is done, what runs, what failed and why: read from the run folder, without touching it."""

import fcntl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from xctpipe.errors import BadRecipe
from xctpipe.runfolder import RUN_RECORD, ScanFolder, read_json, scan_folder
from xctpipe.stages import LATER, done_record


@dataclass(frozen=True)
class ScanStatus:
    """State of one scan; `state` is waiting, running, interrupted, done or failed."""

    name: str
    state: str
    slabs_done: int
    slabs: int | None
    detail: str = ""


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
    return [_scan_status(run_folder, name, entry, alive) for name, entry in record["scans"].items()]


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
