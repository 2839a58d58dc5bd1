"""Tables of the page: objects, events, quality, timings and inputs, ready to be shown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from xctpipe.csvtables import Row
from xctpipe.report.source import Run
from xctpipe.report.wording import MM2, MM3, NONE, listed, number, ranged, scaled

MOST_OBJECTS = 300


@dataclass(frozen=True)
class Cell:
    """What is shown, and what it is sorted by."""

    text: str
    key: str


@dataclass(frozen=True)
class Listing:
    """A table of the page."""

    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    of: int = 0
    """Rows in the file, where not all are shown."""


_OBJECT_COLUMNS = (
    ("scan", "scan"),
    ("object", "object"),
    ("track", "track"),
    ("kind", "kind"),
    ("volume_um3", "volume (mm³)"),
    ("area_um2", "area (mm²)"),
    ("depth_um", "depth (µm)"),
    ("opening_median_um", "opening (µm)"),
    ("equivalent_diameter_um", "diameter (µm)"),
    ("z_um", "z (µm)"),
    ("y_um", "y (µm)"),
    ("x_um", "x (µm)"),
    ("truncated", "cut by the view"),
    ("percolates", "joins both sides"),
)


def objects(run: Run) -> Listing:
    """The largest objects of the series, cracks, bubbles and voids before pores and inclusions."""
    tracks = {(row["scan"], row["object"]): row["track"] for row in run.tables.get("tracks", [])}
    every = run.tables.get("objects", [])
    chosen = sorted(every, key=lambda row: (row.get("kind") in _LESS, -_size(row)))[:MOST_OBJECTS]
    rows = [{**row, "track": tracks.get((row["scan"], row["object"]))} for row in chosen]
    return _listing(rows, _OBJECT_COLUMNS, of=len(every))


_LESS = {"pore", "inclusion", "unresolved"}


def _size(row: Row) -> float:
    return float(row.get("volume_um3") or row.get("count_volume_um3") or 0.0)


_EVENT_COLUMNS = (
    ("kind", "event"),
    ("scan_from", "after scan"),
    ("scan_to", "in scan"),
    ("tracks", "tracks"),
    ("volume_um3", "volume (mm³)"),
    ("closing_um3", "of it closing (mm³)"),
    ("filling_um3", "of it filling (mm³)"),
    ("contrast_um3", "of it loss of contrast (mm³)"),
)


def events(run: Run) -> Listing:
    """All events, births of what is small last."""
    every = run.tables.get("events", [])
    chosen = sorted(every, key=lambda row: row["kind"] in {"birth", "death"})[:MOST_OBJECTS]
    return _listing(chosen, _EVENT_COLUMNS, of=len(every))


_GROWTH_COLUMNS = (
    ("track", "track"),
    ("kind", "kind"),
    ("dvolume_dcharge_um3_per_mah_cm2", "dV/dQ (mm³ per mAh/cm²)"),
    ("dvolume_dtime_um3_per_h", "dV/dt (mm³/h)"),
    ("onset_mah_cm2", "onset (mAh/cm²)"),
    ("front_um_per_mah_cm2", "front (µm per mAh/cm²)"),
    ("efficiency_frac", "share of the charge's volume"),
    ("growing", "grows"),
    ("scan_from", "from scan"),
    ("scan_to", "to scan"),
    ("n_scans", "scans"),
)
_INTERVALS = {
    "volume_um3": ("volume_low_um3", "volume_high_um3"),
    "dvolume_dcharge_um3_per_mah_cm2": ("low", "high"),
    "dvolume_dtime_um3_per_h": ("time_low", "time_high"),
    "onset_mah_cm2": ("onset_low", "onset_high"),
    "front_um_per_mah_cm2": ("front_low", "front_high"),
    "efficiency_frac": ("efficiency_low", "efficiency_high"),
}
_UNITS = {
    "area_um2": MM2,
    "dvolume_dcharge_um3_per_mah_cm2": MM3,
    "dvolume_dtime_um3_per_h": MM3,
    **dict.fromkeys(("volume_um3", "closing_um3", "filling_um3", "contrast_um3"), MM3),
}
"""Factors of columns that are shown in a larger unit than the tables have."""
_FIRST = ("crack", "crack_filled", "chip", "bubble", "interfacial_void")


def growth(run: Run) -> Listing:
    """Rates: what grows, what shrinks, the rest; in each all together, then cracks, the largest first."""
    every = run.tables.get("growth", [])
    largest: dict[Any, float] = {}
    sizes = {(row["scan"], row["object"]): _size(row) for row in run.tables.get("objects", [])}
    for row in run.tables.get("tracks", []):
        here = sizes.get((row["scan"], row["object"]), 0.0)
        largest[row["track"]] = max(here, largest.get(row["track"], 0.0))

    def place(row: Row) -> tuple[Any, ...]:
        kind = str(row.get("kind"))
        rank = _FIRST.index(kind) if kind in _FIRST else len(_FIRST)
        changes = 0 if row.get("growing") is True else 1 if (row.get("high") or 0.0) < 0 else 2
        unknown = all(row.get(key) is None for key, _ in _GROWTH_COLUMNS if key.startswith("dvolume"))
        return changes + unknown, not kind.startswith("all_"), rank, -largest.get(row.get("track"), 0.0)

    chosen = sorted(every, key=place)
    return _listing(chosen[:MOST_OBJECTS], _GROWTH_COLUMNS, of=len(every))


def _listing(rows: Iterable[Mapping[str, Any]], columns: tuple[tuple[str, str], ...], *, of: int) -> Listing:
    rows = list(rows)
    used = [(key, head) for key, head in columns if any(row.get(key) is not None for row in rows)]
    cells = tuple(tuple(_cell(row, key) for key, _ in used) for row in rows)
    return Listing(tuple(head for _, head in used), cells, of)


def _cell(row: Mapping[str, Any], key: str) -> Cell:
    value = row.get(key)
    unit = _UNITS.get(key)
    if key in _INTERVALS and not isinstance(value, str):
        shown = [value, *(row.get(end) for end in _INTERVALS[key])]
        return Cell(ranged(*scaled(unit or 1.0, *shown)), _key(value))
    if unit and not isinstance(value, str):
        return Cell(number(*scaled(unit, value)), _key(value))
    text = str(value).replace("_", " ") if key == "kind" else number(value)
    return Cell(text, _key(value))


def _key(value: Any) -> str:
    return "" if value is None else str(value)


_QUALITY_COLUMNS = (
    ("scan", "scan"),
    ("n_frames", "frames"),
    ("n_bad_frames", "bad frames"),
    ("center", "axis (px)"),
    ("center_confidence", "confidence"),
    ("tilt_deg", "tilt (°)"),
    ("noise_cm1", "noise (cm⁻¹)"),
    ("resolution_um", "resolution (µm)"),
    ("rings", "rings before → after (cm⁻¹)"),
    ("registration", "registration error (px)"),
    ("n_warnings", "warnings"),
    ("state", "state"),
)


def quality(run: Run) -> Listing:
    """Quality of every scan, missing ones too."""
    rows = []
    for entry in run.scans:
        row: Row = {**entry.row, "scan": entry.name, "state": entry.missing or "measured"}
        if row.get("center_px") is not None:
            error = row.get("center_uncertainty_px")
            row["center"] = f"{row['center_px']:.2f}" + ("" if error is None else f" ± {error:.2g}")
        row["registration"] = _registration(run, entry.name)
        before, after = (row.get(f"rings_{when}_cm1") for when in ("before", "after"))
        row["rings"] = None if after is None else f"{number(before)} → {number(after)}"
        rows.append(row)
    return _listing(rows, _QUALITY_COLUMNS, of=len(rows))


def _registration(run: Run, scan: str) -> str | None:
    rows = [row for row in run.rows("registration", scan) if row.get("part", "pellet") == "pellet"]
    if not rows:
        return None
    row = rows[0]
    status = "" if row.get("status") == "ok" else f" ({row.get('status')})"
    if row.get("status") == "reference":
        return "reference"
    return NONE + status if row.get("error_px") is None else f"{number(row['error_px'], digits=2)}{status}"


def warnings(run: Run) -> list[tuple[str, str]]:
    """What was warned of, and for which scans; the same text for several scans once."""
    found: dict[str, list[str]] = {text: ["the series"] for text in run.warnings}
    for entry in run.scans:
        told = [str(text) for text in entry.record.get("warnings", [])]
        for stage in entry.record.get("stages", {}).values():
            told += [str(text) for text in stage.get("warnings", [])]
        for text in dict.fromkeys([*told, *([entry.missing] if entry.missing else [])]):
            found.setdefault(text, []).append(entry.name)
    everywhere = [entry.name for entry in run.scans]
    return [("all scans" if names == everywhere else listed(names), text) for text, names in found.items()]


def timings(run: Run) -> Listing:
    """Seconds of every stage of every scan."""
    rows = []
    for entry in run.scans:
        stages = entry.record.get("stages", {})
        row: Row = {"scan": entry.name, "reconstruct": entry.record.get("wall_s")}
        row |= {name: told.get("wall_s") for name, told in stages.items()}
        row["memory"] = entry.record.get("peak_memory_gb")
        rows.append(row)
    names = list(dict.fromkeys(key for row in rows for key in row if key not in {"scan", "memory"}))
    heads = (("scan", "scan"), *((n, f"{n} (s)") for n in names), ("memory", "memory (GB)"))
    return _listing(rows, heads, of=len(rows))


def inputs(run: Run) -> Listing:
    """Files that were read, with size and time: what tells whether an input is still the same."""
    rows = [
        {"scan": entry.name, "file": str(file[0]), "bytes": str(file[1]), "ns": str(file[2])}
        for entry in run.scans
        for file in entry.record.get("input", {}).get("files", [])
        if len(file) >= 3
    ]
    heads = (("scan", "scan"), ("file", "file"), ("bytes", "bytes"), ("ns", "changed (ns since 1970)"))
    return _listing(rows[:MOST_OBJECTS], heads, of=len(rows))
