"""What a report is made from: the records, tables and volumes of a run folder, as far as they are there."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xctpipe.csvtables import Row, read_table
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.label_volume import has_labels
from xctpipe.runfolder import RUN_RECORD, read_json, scan_folder

TABLES = {
    "scans": "reconstruct",
    "phases": "measure",
    "objects": "measure",
    "interface": "measure",
    "percolation": "measure",
    "balance": "measure",
    "steps": "track (it needs [cycler] in the recipe)",
    "cycler": "track (it needs [cycler] in the recipe)",
    "registration": "track",
    "tracks": "track",
    "events": "track",
    "growth": "track",
    "series": "track",
}
"""Tables of a run, and the stage that writes each."""
_FOLLOWED = ("registration", "tracks", "events", "growth", "series")
"""Those that the stage track alone writes."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A scan of the run, measured or not."""

    name: str
    number: int
    """From 1, in order of time."""
    record: Mapping[str, Any]
    """What `run.json` holds of it."""
    row: Row
    """Of the table of scans; empty where there is none."""
    volume: Path | None
    labelled: bool
    measured: bool
    missing: str
    """Why it is not measured, else nothing."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder, read once."""

    folder: Path
    record: Mapping[str, Any]
    recipe: Mapping[str, Any]
    tables: Mapping[str, list[Row]]
    notes: tuple[str, ...]
    """What could not be read."""

    @property
    def name(self) -> str:
        """Of the recipe."""
        return str(self.recipe.get("name") or self.record.get("name") or self.folder.name)

    def rows(self, table: str, scan: str) -> list[Row]:
        """Rows of one scan in a table."""
        return [row for row in self.tables.get(table, []) if row.get("scan") == scan]

    def has(self, table: str) -> bool:
        """Whether a table is there and has rows."""
        return bool(self.tables.get(table))

    def lacking(self, *names: str) -> list[str]:
        """A sentence for each of these tables that is not there, or is empty."""
        found = []
        for name in names:
            if name not in self.tables:
                found.append(f"tables/{name}.csv is not there: the stage {TABLES[name]} writes it.")
            elif not self.tables[name]:
                found.append(f"tables/{name}.csv has no rows.")
        return found

    @cached_property
    def scans(self) -> tuple[Entry, ...]:
        """All scans in order of time; one without a time follows the one before it in the recipe."""
        known: dict[str, Mapping[str, Any]] = dict(self.record.get("scans", {}))
        for name in self.recipe.get("raw", {}).get("scans", []) or []:
            if not set(name) & set("*?["):
                known.setdefault(name, {})
        rows = {str(row["scan"]): row for row in self.tables.get("scans", [])}
        order, last = [], float("-inf")
        for place, name in enumerate(known):
            seconds = rows.get(name, {}).get("time_s")
            last = last if seconds is None else float(seconds)
            order.append((last, place, name))
        names = [name for *_, name in sorted(order)]
        return tuple(
            self._entry(i + 1, name, known[name], rows.get(name, {})) for i, name in enumerate(names)
        )

    @property
    def warnings(self) -> list[str]:
        """What was said of the series as a whole."""
        told = self._followed
        failed = [f"the stage track failed: {told['error']}"] if "error" in told else []
        return failed + [str(text) for text in told.get("warnings", [])]

    @property
    def outdated(self) -> list[str]:
        """A sentence where tables of the series are of an earlier run, since the last one made none."""
        there = [f"{name}.csv" for name in _FOLLOWED if name in self.tables]
        if not there or ("error" not in self._followed and self._followed):
            return []
        why = self._followed.get("error")
        how = f"failed ({why})" if why else "was not finished"
        return [f"The stage track {how}: what comes from {', '.join(there)} is of an earlier run."]

    @property
    def _followed(self) -> dict[str, Any]:
        """What the stage track left."""
        return read_json(self.folder / "series" / "track.json") or {}

    @property
    def measured(self) -> tuple[Entry, ...]:
        """Scans that there are numbers of."""
        return tuple(entry for entry in self.scans if entry.measured)

    @property
    def shown(self) -> tuple[Entry, ...]:
        """Scans that there is a volume of."""
        return tuple(entry for entry in self.scans if entry.volume)

    def _entry(self, number: int, name: str, record: Mapping[str, Any], row: Row) -> Entry:
        volume = scan_folder(self.folder, name).volume
        there = (volume / "zarr.json").exists() and record.get("status", "done") == "done"
        measured = record.get("status") != "failed" and any(
            self.rows(table, name) for table in ("phases", "interface", "series")
        )
        return Entry(
            name=name,
            number=number,
            record=record,
            row=row,
            volume=volume if there else None,
            labelled=there and has_labels(volume),
            measured=measured,
            missing="" if measured else _why(record, there=there),
        )


def _why(record: Mapping[str, Any], *, there: bool) -> str:
    """Why a scan has no numbers."""
    if record.get("error"):
        return str(record["error"])
    if not record:
        return "the run folder knows nothing of it"
    if not there:
        return f"no volume; its reconstruction is {record.get('status', 'not done')}"
    for stage, told in record.get("stages", {}).items():
        if told.get("error"):
            return f"{stage}: {told['error']}"
    return "reconstructed, but not measured"


def read_run(folder: Path) -> Run:
    """Read what a run folder holds beside its volumes.

    Raises
    ------
    BadRecipe
        If it is no run folder.
    """
    record = read_json(folder / RUN_RECORD)
    if record is None or not isinstance(record.get("scans"), dict):
        raise BadRecipe(f"{folder}: not a run folder (no {RUN_RECORD}); give the recipe's run_folder")
    notes = []
    try:
        recipe = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        recipe = {}
        notes.append(f"recipe.toml cannot be read ({err}).")
    tables = {}
    for name in TABLES:
        path = folder / "tables" / f"{name}.csv"
        if not path.exists():
            continue
        try:
            tables[name] = read_table(path)
        except BadScan as err:
            notes.append(str(err))
    return Run(folder, record, recipe, tables, tuple(notes))
