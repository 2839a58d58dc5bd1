"""The series as numbers along charge, time or scan: a row per scan, with intervals."""

from dataclasses import dataclass

import numpy as np

from xctpipe.csvtables import Row
from xctpipe.report.source import Entry, Run

GROUPS = {"crack": ("crack", "crack_filled"), "bubble": ("bubble",), "void": ("interfacial_void",)}
_VALUES = (
    "charge_mah_cm2",
    "current_ma_cm2",
    "voltage_v",
    "time_s",
)


@dataclass(frozen=True)
class Along:
    """What a series is drawn against."""

    key: str
    """Column: charge_mah_cm2, time_s, or empty for the number of the scan."""
    label: str
    unit: str
    per: float
    """Of the column, for one of the unit."""
    at: dict[str, float]
    """Where each scan is; those of which it is not known lie between their neighbours."""

    def said(self, scan: str) -> str:
        """Where a scan is, in words."""
        if not self.key:
            return f"scan {self.at[scan]:.0f}"
        return f"{self.at[scan]:.3g} {self.unit}"


def rows_of(run: Run) -> dict[str, Row]:
    """What is known of each measured scan: from the table of the series, else from those of the scans."""
    series = {str(row["scan"]): row for row in run.tables.get("series", [])}
    found = {}
    for entry in run.measured:
        told = {key: value for key, value in series.get(entry.name, {}).items() if value is not None}
        found[entry.name] = {**_built(run, entry), **told}
    return found


def _built(run: Run, entry: Entry) -> Row:
    row: Row = {key: entry.row.get(key) for key in _VALUES}
    phases = run.rows("phases", entry.name)
    for name, kinds in GROUPS.items():
        own = [each for each in phases if each["phase"] in kinds]
        for end, column in (("volume", "volume"), ("low", "volume_low"), ("high", "volume_high")):
            values = [each.get(f"{column}_um3") for each in own]
            known = [float(value) for value in values if value is not None]
            row[f"{name}_{end}_um3"] = sum(known) if phases and len(known) == len(values) else None
    for each in run.rows("interface", entry.name):
        row |= {key: each.get(key) for key in ("contact_frac", "contact_low_frac", "contact_high_frac")}
    for each in run.rows("percolation", entry.name):
        row["percolates"] = each.get("percolates")
    return row


def along(run: Run) -> Along:
    """Charge where a cycler was joined, else time, else the number of the scan."""
    for key, label, unit, per in _choices(run):
        known = {entry.name: entry.row.get(key) for entry in run.scans}
        values = [value for value in known.values() if value is not None]
        enough = len(values) >= len(run.measured) and len(values) > 0
        if enough and (len(set(values)) == len(values) or len(values) == 1):
            return Along(key, label, unit, per, _filled(run, known, per))
    return Along("", "scan", "", 1.0, {entry.name: float(entry.number) for entry in run.scans})


def _choices(run: Run) -> list[tuple[str, str, str, float]]:
    longest = max((entry.row.get("time_s") or 0.0 for entry in run.scans), default=0.0)
    hours = longest > 7200
    return [
        ("charge_mah_cm2", "charge passed (mAh/cm²)", "mAh/cm²", 1.0),
        ("time_s", f"time ({'h' if hours else 'min'})", "h" if hours else "min", 3600.0 if hours else 60.0),
    ]


def _filled(run: Run, known: dict[str, float | None], per: float) -> dict[str, float]:
    there = [(entry.number, known[entry.name]) for entry in run.scans if known[entry.name] is not None]
    numbers, values = np.array(there, np.float64).T
    every = np.interp([entry.number for entry in run.scans], numbers, values / per)
    return {entry.name: float(place) for entry, place in zip(run.scans, every, strict=True)}
