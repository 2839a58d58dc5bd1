"""The table of objects: its rows by scan, and the label under which each object is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xctpipe.csvtables import Row
from xctpipe.segment.codes import KINDS
from xctpipe.viewer.arrays import Numbered
from xctpipe.viewer.series import Run, table_of

COLUMNS: dict[str, str] = {
    "scan": "scan",
    "kind": "kind",
    "object": "object",
    "track": "track",
    "volume_um3": "volume (mm³)",
    "volume_low_um3": "low (mm³)",
    "volume_high_um3": "high (mm³)",
    "count_volume_um3": "voxels (mm³)",
    "equivalent_diameter_um": "diameter (µm)",
    "opening_median_um": "opening (µm)",
    "depth_um": "depth (µm)",
    "z_um": "z (µm)",
    "y_um": "y (µm)",
    "x_um": "x (µm)",
    "percolates": "percolates",
    "truncated": "truncated",
}
"""Columns that are shown, where the table of objects has them, and their heads."""
_MM3 = 1e-9
"""Of a volume in um^3, as tables have it: mm^3 are shown, as in the curves."""
_NUMBERED = frozenset({"object", "track"})
_SIZES = ("equivalent_diameter_um", "feret_um", "depth_um")
_FIRST = ("crack", "crack_filled", "chip", "bubble", "interfacial_void", "unresolved", "inclusion", "pore")
"""Kinds in the order in which a reader looks for them."""


@dataclass(frozen=True)
class Entry:
    """An object of one scan."""

    scan: int
    """Place of the scan on the time axis."""
    label: int
    """Under which it is shown: its track where it has one, so that its colour stays through the series."""
    row: Row

    @property
    def kind(self) -> str:
        """What it is."""
        return str(self.row.get("kind"))

    @property
    def place_um(self) -> tuple[float, float, float] | None:
        """Its centre (z, y, x), None where the table has none."""
        z, y, x = (self.row.get(key) for key in ("z_um", "y_um", "x_um"))
        return None if z is None or y is None or x is None else (float(z), float(y), float(x))

    @property
    def volume_um3(self) -> float:
        """As it was measured, else that of its voxels; 0 where neither is known."""
        return float(self.row.get("volume_um3") or self.row.get("count_volume_um3") or 0.0)

    @property
    def size_um(self) -> float:
        """About how far it reaches, 0 where that is not known."""
        return max([float(self.row[key]) for key in _SIZES if self.row.get(key)], default=0.0)


@dataclass(frozen=True)
class Objects:
    """All objects of a series."""

    entries: tuple[tuple[Entry, ...], ...]
    """Of each scan."""
    base: int
    """Labels up to here are tracks; an object without one is this plus its number."""
    columns: tuple[str, ...]

    @property
    def tracked(self) -> bool:
        """Whether labels are tracks."""
        return self.base > 0

    @property
    def kinds(self) -> list[str]:
        """Kinds that there are."""
        found = {entry.kind for scan in self.entries for entry in scan}
        return sorted(found, key=lambda kind: (_FIRST.index(kind) if kind in _FIRST else len(_FIRST), kind))

    def of(self, scan: int | None, *, kind: str | None = None) -> list[Entry]:
        """Objects of a scan, or of all, of one kind or all: scans and kinds in order, the largest first."""
        order = {each: i for i, each in enumerate(self.kinds)}
        scans = self.entries if scan is None else [self.entries[scan]]
        chosen = [entry for each in scans for entry in each if kind in {None, entry.kind}]
        return sorted(chosen, key=lambda entry: (entry.scan, order[entry.kind], -entry.volume_um3))

    def find(self, scan: int, label: int) -> Entry | None:
        """The object that a label is in a scan; the largest where pieces of one track share it."""
        found = [entry for entry in self.entries[scan] if entry.label == label]
        return max(found, key=lambda entry: entry.volume_um3, default=None)

    def numbering(self, scan: int) -> Numbered:
        """Numbers of the objects of a scan to labels."""
        numbers = [int(entry.row["object"]) for entry in self.entries[scan]]
        table = np.arange(max(numbers, default=0) + 1, dtype=np.int32) + np.int32(self.base)
        table[0] = 0
        table[numbers] = [entry.label for entry in self.entries[scan]]
        return Numbered(table, self.base)

    def subject(self) -> Entry | None:
        """What one looks at first: the largest object of the first kind, in the last scan that has one."""
        for kind in self.kinds:
            for scan in reversed(range(len(self.entries))):
                found = [entry for entry in self.of(scan, kind=kind) if entry.place_um]
                if found:
                    return found[0]
        return None


def read_objects(run: Run, notes: list[str]) -> Objects:
    """The objects of a run, joined with their tracks where these are known; what is missing is noted."""
    rows = table_of(run.folder, "objects", notes)
    tracks = {
        (row["scan"], row["object"]): int(row["track"])
        for row in table_of(run.folder, "tracks", notes)
        if isinstance(row.get("track"), int)
    }
    if not rows:
        notes.append("no table of objects; run the stage measure")
    base = max(tracks.values(), default=0)
    by_scan: dict[str, list[Entry]] = {}
    place = {scan.name: i for i, scan in enumerate(run.scans)}
    for row in rows:
        if row["scan"] in place and isinstance(row.get("object"), int):
            track = tracks.get((row["scan"], row["object"]))
            label = track or base + row["object"]
            entry = Entry(place[row["scan"]], label, {**row, "track": track})
            by_scan.setdefault(row["scan"], []).append(entry)
    entries = tuple(tuple(by_scan.get(scan.name, ())) for scan in run.scans)
    return Objects(entries, base, _columns(rows, tracked=base > 0))


def _columns(rows: Sequence[Row], *, tracked: bool) -> tuple[str, ...]:
    known = {key for row in rows[:1] for key in row} | ({"track"} if tracked else set())
    return tuple(key for key in COLUMNS if key in known)


def text_of(value: Any, column: str) -> str:
    """A cell as it is shown."""
    if value is None or value is False:
        return ""
    if value is True:
        return "yes"
    if not isinstance(value, int | float) or column in _NUMBERED:
        return str(value)
    return f"{_MM3 * value if column.endswith('_um3') else value:.4g}"


def is_object(kind: str) -> bool:
    """Whether a phase is one that objects are made of."""
    return kind in KINDS
