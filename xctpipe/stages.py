"""The stages of a scan after its reconstruction: what they work on, whether they are done, and with what.

What a stage was done with is written beside the volume when it is finished. A later stage holds as long as
the one before it does; a volume or labels made anew end that.
"""

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xctpipe import __version__
from xctpipe.blocks import Place, discard
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.label_volume import has_labels
from xctpipe.recipe import Recipe, measure_matters, segment_matters
from xctpipe.runfolder import ScanFolder, differences, read_json, write_json

log = logging.getLogger(__name__)

RECONSTRUCT, SEGMENT, MEASURE, TRACK, REPORT = "reconstruct", "segment", "measure", "track", "report"
STAGES = (RECONSTRUCT, SEGMENT, MEASURE, TRACK, REPORT)
LATER = (SEGMENT, MEASURE)
"""Stages that work on the volume of a scan."""
OF_SERIES = (TRACK, REPORT)
"""Stages that work on all scans at once."""
INTERRUPTED = "interrupted; repeat the run to go on"
"""What the record of such a stage says until it has ended."""

_INPUTS = {"volume": "the volume was made anew", "labels": "the labels were made anew"}
"""What a stage reads, by its key in the fingerprint, and what to say when it is another one."""


@dataclass(frozen=True)
class ScanWork:
    """What a stage works on, and with."""

    name: str
    """Of the scan."""
    folder: Path
    """RUN/scans/NAME."""
    volume: Path
    """Attenuation as reconstructed: `edge`."""
    mass: Path | None
    """Attenuation after phase retrieval, where there is one."""
    recipe: Recipe
    place: Place
    """How blocks are placed."""
    threads: int
    """Blocks that one process works on at once."""
    memory_bytes: int
    """That such a process may use."""
    scans: tuple[str, ...] = ()
    """All scans of the run, in the recipe's order: that of rows in tables."""

    def scratch(self, stage: str) -> Path:
        """Folder for what one pass of a stage leaves to the next; removed when the stage is done."""
        return self.folder / "work" / stage

    @property
    def tables(self) -> Path:
        """Folder of the run's tables."""
        return self.recipe.run_folder / "tables"


@dataclass(frozen=True)
class SeriesWork:
    """What the stages after the last scan work on: all scans of a run."""

    scans: tuple[ScanWork, ...]
    """Those that are measured, in order of time."""
    recipe: Recipe
    place: Place
    """How blocks are placed."""
    threads: int
    """Blocks that one process works on at once."""
    memory_bytes: int
    """That such a process may use."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Scans of the recipe that are not measured, and why."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the scans, in order of time."""
        return tuple(each.name for each in self.scans)

    @property
    def folder(self) -> Path:
        """RUN/series: what belongs to all scans and is no table."""
        return self.recipe.run_folder / "series"

    @property
    def tables(self) -> Path:
        """Folder of the run's tables."""
        return self.recipe.run_folder / "tables"

    def scratch(self, stage: str) -> Path:
        """Folder for what one pass of a stage leaves to the next; removed when the stage is done."""
        return self.folder / "work" / stage


def done_record(folder: ScanFolder, stage: str) -> dict[str, Any] | None:
    """What a finished stage left, `result`, and what it was done `with`; None when that holds no more."""
    record = read_json(_file(folder.root, stage))
    if record is None or not {"with", "token", "result"} <= record.keys():
        return None
    if stage == SEGMENT:
        volume = (read_json(folder.state) or {}).get("token")
        return record if record["with"].get("volume") == volume and has_labels(folder.volume) else None
    labels = done_record(folder, SEGMENT)
    return record if labels and record["with"].get("labels") == labels["token"] else None


def _file(folder: Path, stage: str) -> Path:
    return folder / f"{stage}.json"


def is_done(stage: str, work: ScanWork, *, fresh: bool = False) -> bool:
    """Whether a stage is done with the settings of the recipe; if not, it and what follows are discarded.

    Raises
    ------
    BadScan
        If there is nothing for it to work on.
    BadRecipe
        If the recipe names a classifier that cannot be read.
    """
    folder = ScanFolder(work.folder)
    if stage == MEASURE and done_record(folder, SEGMENT) is None:
        raise BadScan(f"{work.name}: no labels to measure; run the stage {SEGMENT} first")
    settings, old = _settings_of(stage, work), read_json(_file(work.folder, stage))
    kept = None if fresh else done_record(folder, stage)
    if kept is not None and kept["with"] == settings:
        return True
    if old is not None and not fresh:
        _say_changes(work.name, stage, old.get("with", {}), settings)
    for later in LATER[LATER.index(stage) :]:
        _file(work.folder, later).unlink(missing_ok=True)
    if fresh:
        discard(work.scratch(stage))
    return False


def set_done(stage: str, work: ScanWork, *, result: Mapping[str, Any]) -> None:
    """Record that a stage is done, and remove its scratch files."""
    settings = _settings_of(stage, work)
    record = {"with": settings, "token": uuid.uuid4().hex, "result": dict(result)}
    write_json(_file(work.folder, stage), record)
    discard(work.scratch(stage))


def _settings_of(stage: str, work: ScanWork) -> dict[str, Any]:
    """Everything the results of a stage depend on."""
    folder = ScanFolder(work.folder)
    if stage == SEGMENT:
        table = segment_matters(work.recipe)
        table["volume"] = (read_json(folder.state) or {}).get("token")
        table["classifier"] = _classifier_mark(work.recipe)
    else:
        table = measure_matters(work.recipe)
        table["labels"] = (done_record(folder, SEGMENT) or {}).get("token")
    table["xctpipe"] = __version__
    return json.loads(json.dumps(table))  # type: ignore[no-any-return]


def _classifier_mark(recipe: Recipe) -> str | None:
    path = recipe.segment.classifier
    if path is None:
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as err:
        raise BadRecipe(
            f"segment.classifier = {path}: cannot be read ({err.strerror}); train one, or leave it out"
        ) from err


def _say_changes(name: str, stage: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for key, text in _INPUTS.items():
        if old.get(key) != new.get(key):
            log.warning("%s: changed since the last run: %s", name, text)
    ours = [{key: value for key, value in each.items() if key not in _INPUTS} for each in (old, new)]
    for line in differences(*ours):
        log.warning("%s: changed since the last run: %s", name, line)
    log.warning("%s: to be done again: %s", name, " and ".join(LATER[LATER.index(stage) :]))


def check_labels_fit(work: ScanWork) -> None:
    """Warn when labels that are only measured were made with other settings than the recipe has now."""
    record = done_record(ScanFolder(work.folder), SEGMENT)
    if record is not None and record["with"] != (new := _settings_of(SEGMENT, work)):
        for line in differences(record["with"], new):
            log.warning("%s: labels were made with other settings: %s", work.name, line)
        log.warning("%s: they are measured as they are; run the stage %s to renew them", work.name, SEGMENT)
