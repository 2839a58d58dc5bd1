"""What there is to be looked at in a run folder: its scans in order of time, and their tables."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xctpipe import volume
from xctpipe.csvtables import Row, read_table
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.label_volume import has_labels
from xctpipe.layout import VolumeSpec
from xctpipe.runfolder import RUN_RECORD, read_json, scan_folder

SAME_PIXEL = 1e-3
"""Relative difference of pixels from which on scans do not lie on one grid."""


@dataclass(frozen=True)
class ShownScan:
    """One scan of the series: one place on the time axis."""

    name: str
    spec: VolumeSpec | None
    """Of its volume; None where there is none to be shown."""
    path: Path
    """Of the volume."""
    problem: str = ""
    """Why nothing is shown, or why no labels are."""
    labelled: bool = False
    row: Mapping[str, Any] | None = None
    """Of the table of scans."""

    def number(self, column: str) -> float | None:
        """A number of the table of scans, None where it is not known."""
        value = (self.row or {}).get(column)
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


@dataclass(frozen=True)
class Run:
    """A run folder as it is shown."""

    folder: Path
    name: str
    scans: tuple[ShownScan, ...]
    """In order of time; every scan of the run has its place, also one that failed."""
    notes: tuple[str, ...] = ()
    """What the user should know: what is not shown, and why."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the grid that holds every scan."""
        specs = self.specs
        last = max(each.first_row + each.shape[0] for each in specs)
        return (
            last - min(each.first_row for each in specs),
            max(each.shape[1] for each in specs),
            max(each.shape[2] for each in specs),
        )

    @property
    def specs(self) -> list[VolumeSpec]:
        """Of the volumes that are shown."""
        return [each.spec for each in self.scans if each.spec is not None]

    @property
    def pixel_um(self) -> float:
        """Edge of a voxel of the finest level."""
        return self.specs[0].pixel_um

    @property
    def origin_um(self) -> tuple[float, float, float]:
        """Position (z, y, x) of the first voxel of the grid, as tables have it.

        z counts from the centre of detector row 0, y and x from the axis of rotation.
        """
        spec, (_, height, width) = self.specs[0], self.shape
        row = min(each.first_row for each in self.specs) + (spec.bin_px - 1) / (2 * spec.bin_px)
        return (row * self.pixel_um, -(height - 1) / 2 * self.pixel_um, -(width - 1) / 2 * self.pixel_um)

    def first_voxel(self, scan: ShownScan) -> tuple[int, int, int]:
        """Where the volume of a scan begins in the grid: by its rows, and with its axis in the middle."""
        spec = scan.spec
        if spec is None:
            raise ValueError(f"{scan.name} has no volume")
        _, height, width = self.shape
        row = spec.first_row - min(each.first_row for each in self.specs)
        return row, (height - spec.shape[1]) // 2, (width - spec.shape[2]) // 2


def is_run(path: Path) -> bool:
    """Whether a path looks like a run folder, or is the record in one; reads nothing and never raises."""
    try:
        folder = path.parent if path.name == RUN_RECORD else path
        return (folder / RUN_RECORD).is_file() and (folder / "scans").is_dir()
    except OSError:
        return False


def read_run(folder: Path) -> Run:
    """What a run folder holds; reads metadata and small tables only.

    Raises
    ------
    BadRecipe
        If it is no run folder, or none of its scans has a finished volume.
    """
    folder = Path(folder)
    folder = folder.parent if folder.name == RUN_RECORD else folder
    record = read_json(folder / RUN_RECORD)
    if record is None or not isinstance(record.get("scans"), dict) or not record["scans"]:
        raise BadRecipe(f"{folder}: not a run folder (no {RUN_RECORD} with scans in it); give the run_folder")
    notes: list[str] = []
    rows = {row["scan"]: row for row in table_of(folder, "scans", notes)}
    found = [_scan(folder, name, entry, rows.get(name)) for name, entry in record["scans"].items()]
    scans = _on_one_grid(_in_time(found))
    notes += [f"{each.name}: {each.problem}" for each in scans if each.problem]
    if all(each.spec is None for each in scans):
        raise BadRecipe(
            f"{folder}: no scan has a finished volume to look at ({'; '.join(notes)}); run the stage "
            "reconstruct first"
        )
    shapes = {each.spec.shape for each in scans if each.spec}
    if len(shapes) > 1:
        notes.append(f"scans have {len(shapes)} different shapes: they are filled up with zeros to one")
    return Run(folder, str(record.get("name", folder.name)), scans, tuple(notes))


def table_of(folder: Path, name: str, notes: list[str]) -> list[Row]:
    """Rows of a table of the run, none where it is absent; what cannot be read is noted."""
    path = folder / "tables" / f"{name}.csv"
    if not path.is_file():
        return []
    try:
        return read_table(path)
    except BadScan as err:
        notes.append(str(err))
        return []


def _scan(folder: Path, name: str, entry: Any, row: Row | None) -> ShownScan:
    entry = entry if isinstance(entry, dict) else {}
    path = scan_folder(folder, name).volume
    row = row or entry.get("row")
    if entry.get("status") != "done":
        why = entry.get("error") or f"not reconstructed ({entry.get('status', 'unknown')})"
        return ShownScan(name, None, path, f"shown empty: {why}", row=row)
    try:
        spec = volume.read_spec(path)
    except (BadRecipe, KeyError, ValueError) as err:
        return ShownScan(name, None, path, f"shown empty: {err}", row=row)
    labelled = has_labels(path)
    problem = "" if labelled else "has no labels; run the stage segment"
    return ShownScan(name, spec, path, problem, labelled, row)


def _in_time(scans: Sequence[ShownScan]) -> list[ShownScan]:
    """By time; one without a time stays behind the one before it in the recipe."""
    times, last = [], -math.inf
    for each in scans:
        last = last if (time_s := each.number("time_s")) is None else time_s
        times.append(last)
    order = sorted(range(len(scans)), key=lambda i: times[i])
    return [scans[i] for i in order]


def _on_one_grid(scans: Sequence[ShownScan]) -> tuple[ShownScan, ...]:
    """The scans; those with other pixels than the first that has a volume lose it."""
    pixel_um = next((each.spec.pixel_um for each in scans if each.spec), 0.0)
    kept = []
    for each in scans:
        other = each.spec and abs(each.spec.pixel_um - pixel_um) > SAME_PIXEL * pixel_um
        if each.spec and other:
            why = f"shown empty: voxels of {each.spec.pixel_um:g} um, those of the first are {pixel_um:g} um"
            kept.append(ShownScan(each.name, None, each.path, why, row=each.row))
        else:
            kept.append(each)
    return tuple(kept)
