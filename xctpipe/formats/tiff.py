"""A folder of TIFF files whose names or sub-folders tell projections, flats and darks; angles beside them.

`scan_1/{proj/*.tif, flat/*.tif, dark/*.tif, angles.txt}` or `scan_1/{proj_*.tif, flat_*.tif, dark_*.tif}`;
flats and darks taken before and after are told by such words in their names. `scan.toml` may hold
start_time, exposure_s, energy_kev, pixel_um and, in the table `times`, when each folder of flats was taken.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from xctpipe.errors import BadScan
from xctpipe.formats.base import NO_OPTIONS, Holds, RawOptions, unknown_angles, warn
from xctpipe.formats.registry import layouts, open_dark_flats
from xctpipe.formats.sources import JoinedFrames, open_angles
from xctpipe.formats.tiff_frames import TiffFrames, natural, open_tiffs, tiff_time, write_tiffs
from xctpipe.formats.tiff_roles import Group, groups_below, groups_in, others_in, when_of
from xctpipe.formats.units import file_time, parse_time
from xctpipe.scan import DarkFlat, DoubleArray, Frames, Problem, Scan

NAME = "tiff"
TITLE = "TIFF folder (files or sub-folders named proj, flat and dark, and angles.txt)"

SIDECAR = "scan.toml"
_ANGLE_STEMS = {"angles", "angle", "theta", "thetas", "rotation_angle", "rotation_angles"}
_ANGLE_SUFFIXES = {".txt", ".csv", ".dat", ".npy"}
_FEWEST = 3
_OTHER_DATA = (".h5", ".hdf", ".hdf5", ".nxs", ".nx")

Notes = tuple[str, ...]


def understands(path: Path) -> bool:
    """Whether the folder holds TIFF files of one scan, or of flats and darks, and no other scan below it."""
    return holds(path) is not None


def holds(path: Path) -> Holds | None:
    """Projections, or flats; files without a telling name count as projections."""
    try:
        if not path.is_dir():
            return None
        groups = groups_in(path)
        if not groups or _has_scans(path, groups):
            return None
    except (OSError, ValueError):
        return None
    roles = {group.role for group in groups}
    if roles & {"proj", ""} and sum(len(g.names) for g in groups if g.role in {"proj", ""}) >= _FEWEST:
        return "projections"
    return "dark_flat" if "flat" in roles else None


def _has_scans(path: Path, groups: Sequence[Group]) -> bool:
    """Whether the folder is one of several scans, or of data in another layout, with TIFF files beside."""
    roles = [group.role for group in groups]
    if roles.count("proj") > 1 and all(group.folder != path for group in groups if group.role == "proj"):
        return True
    folders, files = others_in(path)
    if "proj" not in roles and any(name.lower().endswith(_OTHER_DATA) for name in files):
        return True
    inside = {group.folder for group in groups}
    known = [layout for layout in layouts().values() if layout.NAME != NAME]
    return any(
        bool(groups_in(child)) or any(layout.understands(child) for layout in known)
        for child in folders
        if child not in inside
    )


def start_time(path: Path) -> datetime | None:
    """Start of the scan: that in scan.toml, else that in the first file, else the file's time."""
    side = _sidecar(path)
    return _start(path, _projections(groups_in(path))[0], side, options=NO_OPTIONS)[0]


def open_scan(path: Path, *, dark_flat: Sequence[Path] = (), options: RawOptions) -> Scan:
    """Describe a folder of TIFF files; BadScan when the frames cannot be read.

    Angles that are not found are unknown (NaN). Roles that are not clear are a problem of level error.

    Parameters
    ----------
    path : the scan's folder, or the sub-folder of its projections.
    dark_flat : scans that hold the darks and flats; absent: in the folder, else in folders beside it.
    """
    groups = groups_in(path)
    group, problems = _projections(groups)
    frames, notes = _frames(group)
    side = _sidecar(path)
    start, more = _start(path, group, side, options=options)
    angles, files, angle_notes = _angles(path, group, frames.shape[0], options=options)
    notes += more + angle_notes + side.notes
    if dark_flat:
        dark_flats = open_dark_flats(dark_flat, options=options)
    elif options.log_absorption or (options.flats and options.darks):
        dark_flats = ()
    else:
        dark_flats, more = _dark_flats(path, groups, side)
        notes += more
    return Scan(
        name=path.name,
        layout=NAME,
        path=path,
        frames=frames,
        angles_rad=angles,
        dark_flats=dark_flats,
        start_time=start,
        log_absorption=options.log_absorption,
        files=(group.first, *files, *side.files),
        problems=(*problems, *warn(notes)),
        exposure_s=side.number("exposure_s"),
        energy_kev=side.number("energy_kev"),
        pixel_um=side.number("pixel_um"),
    )


def _projections(groups: Sequence[Group]) -> tuple[Group, tuple[Problem, ...]]:
    """The group that holds the projections; the largest and an error when that is not clear."""
    for role in ("proj", ""):
        found = [group for group in groups if group.role == role]
        if len(found) == 1:
            return found[0], ()
        if found:
            break
    found = found or [group for group in groups if group.role == "flat"]
    largest = max(found, key=lambda group: len(group.names))
    listed = "; ".join(group.text for group in groups)
    return largest, (
        Problem(
            "error",
            f"which TIFF files are projections is not clear ({listed}): give raw.data, raw.flats and "
            'raw.darks, e.g. data = "tomo_*.tif"',
        ),
    )


def _frames(group: Group) -> tuple[Frames, Notes]:
    stacks, notes = open_tiffs(group.paths)
    return (stacks[0] if len(stacks) == 1 else JoinedFrames(stacks)), notes


def _angles(
    path: Path, group: Group, n_frames: int, *, options: RawOptions
) -> tuple[DoubleArray, tuple[Path, ...], Notes]:
    if options.angles is not None:
        return unknown_angles(n_frames), (), ()
    for folder in dict.fromkeys((path, group.folder, path.parent)):
        found = sorted(child for child in folder.iterdir() if _is_angle_file(child))
        if found:
            angles, files, notes = open_angles(
                found[0].name, n_frames=n_frames, folder=folder, options=options
            )
            others = ", ".join(child.name for child in found[1:])
            more = (f"{found[0].name} is used for the angles, {others} left out",) if others else ()
            return angles, files, (*notes, *more)
    return unknown_angles(n_frames), (), ()


def _is_angle_file(path: Path) -> bool:
    return path.stem.lower() in _ANGLE_STEMS and path.suffix.lower() in _ANGLE_SUFFIXES and path.is_file()


def open_dark_flat(path: Path, *, options: RawOptions) -> tuple[DarkFlat, ...]:
    """Darks and flats that the folder holds; BadScan when there are no flats or they cannot be read."""
    found = _sets(groups_in(path), _sidecar(path))[0]
    if not found:
        raise BadScan(f"{path}: no flats: no file or sub-folder is named flat")
    return found


def _dark_flats(path: Path, groups: Sequence[Group], side: "Sidecar") -> tuple[tuple[DarkFlat, ...], Notes]:
    """Those inside, else those in folders beside the scan."""
    inside, notes = _sets(groups, side)
    if inside:
        return inside, notes
    own = [group for group in groups if group.role == "dark"]
    return _sets([*own, *groups_below(path.parent, but=path)], side)


def _sets(groups: Sequence[Group], side: "Sidecar") -> tuple[tuple[DarkFlat, ...], Notes]:
    """One set for each group of flats, with the darks of the same moment, else all darks there are."""
    flats = [group for group in groups if group.role == "flat"]
    darks = [group for group in groups if group.role == "dark"]
    found: list[DarkFlat] = []
    notes: Notes = ()
    for group in sorted(flats, key=lambda g: (when_of(g), natural(g.label))):
        frames, more = _frames(group)
        notes += more
        own = [dark for dark in darks if when_of(dark) == when_of(group)]
        opened = [open_tiffs(dark.paths) for dark in own or darks]
        notes += tuple(note for _, more in opened for note in more)
        stacks: list[TiffFrames] = [stack for parts, _ in opened for stack in parts]
        dark = None if not stacks else stacks[0] if len(stacks) == 1 else JoinedFrames(tuple(stacks))
        found.append(DarkFlat(dark, frames, _time_s(group, side), group.label))
    return tuple(found), tuple(dict.fromkeys(notes))


def _time_s(group: Group, side: "Sidecar") -> float | None:
    time = side.time(group.folder.name) or tiff_time(group.first)
    return None if time is None else time.timestamp()


def _start(path: Path, group: Group, side: "Sidecar", *, options: RawOptions) -> tuple[datetime, Notes]:
    time = options.start_time or side.time("") or tiff_time(group.first)
    return (time, ()) if time is not None else file_time(group.first)


@dataclass(frozen=True)
class Sidecar:
    """What scan.toml says; empty where there is none."""

    table: dict[str, Any]
    files: tuple[Path, ...] = ()
    notes: Notes = ()

    def number(self, key: str) -> float | None:
        """A positive number."""
        value = self.table.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < np.inf:
            return None
        return float(value)

    def time(self, folder: str) -> datetime | None:
        """When a folder of flats was taken; the start of the scan for an empty name."""
        times = self.table.get("times")
        value = self.table.get("start_time")
        if folder:
            value = times.get(folder) if isinstance(times, dict) else None
        return parse_time(value, what=SIDECAR)[0] if isinstance(value, str) else None


def _sidecar(path: Path) -> Sidecar:
    file = path / SIDECAR
    if not file.is_file():
        return Sidecar({})
    try:
        return Sidecar(tomllib.loads(file.read_text(encoding="utf-8")), (file,))
    except (OSError, ValueError) as err:
        return Sidecar({}, (), (f"{file}: not used, it cannot be read: {err}",))


def write_scan(path: Path, scan: Scan) -> Path:
    """Write a folder with proj, flats and darks in sub-folders, angles.txt and scan.toml; returns `path`.

    BadScan when the folder exists already.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BadScan(f"{path}: exists already; give another folder to write to")
    write_tiffs(path / "proj", scan.frames, stem="proj")
    times: dict[str, str] = {}
    for item, when in zip(scan.dark_flats, _whens(len(scan.dark_flats)), strict=True):
        write_tiffs(path / f"flat{when}", item.flats, stem="flat")
        if item.darks is not None:
            write_tiffs(path / f"dark{when}", item.darks, stem="dark")
        if item.time_s is not None:
            times[f"flat{when}"] = _iso(item.time_s, like=scan.start_time)
    degrees = np.degrees(scan.angles_rad)
    (path / "angles.txt").write_text("".join(f"{float(each)!r}\n" for each in degrees), encoding="utf-8")
    said: dict[str, Any] = {
        "start_time": None if scan.start_time is None else scan.start_time.isoformat(),
        "exposure_s": scan.exposure_s,
        "energy_kev": scan.energy_kev,
        "pixel_um": scan.pixel_um,
        "times": times or None,
    }
    table = {key: value for key, value in said.items() if value is not None}
    (path / SIDECAR).write_text(tomli_w.dumps(table), encoding="utf-8")
    return path


def _iso(time_s: float, *, like: datetime | None) -> str:
    zone = None if like is None else like.tzinfo
    return datetime.fromtimestamp(time_s, tz=zone).astimezone(zone).isoformat()


def _whens(count: int) -> list[str]:
    """Ends of folder names that keep the sets in order."""
    return {0: [], 1: [""], 2: ["_before", "_after"]}.get(count, [f"_{i}" for i in range(1, count + 1)])
