"""HEX (27-ID, NSLS-II) generation 1: a folder per scan, darks and flats in a folder of their own.

`scan_00010/{proj_00000.hdf, panda.hdf, scan_00010.nxs}` holds the projections, the angles in float64
(panda `/Angle`, degrees) and again in float32 (`entry/data/rotation_angle`), and
`scan_00015/{dark,flat}_00000.hdf` the darks and flats. Energy, pixel size and exposure are not in the files.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np

from xctpipe.errors import BadScan
from xctpipe.formats.angles import match_angles, to_radians
from xctpipe.formats.base import NO_OPTIONS, Holds, RawOptions, warn
from xctpipe.formats.frames import HdfFrames, files_of, open_frames, write_frames
from xctpipe.formats.hdf5 import open_hdf, read_array, read_text
from xctpipe.formats.registry import open_dark_flats
from xctpipe.formats.units import EPICS_EPOCH_S, epics_time_s, file_time, nearest_around, parse_time
from xctpipe.scan import DarkFlat, DoubleArray, Frames, Scan

NAME = "hex1"
TITLE = "HEX generation 1 (folders with proj_*.hdf, panda*.hdf, *.nxs and with dark_*.hdf, flat_*.hdf)"
DATA = "entry/data/data"
STAMPS = "entry/instrument/NDAttributes/NDArrayTimeStamp"
UNIQUE_IDS = "entry/instrument/NDAttributes/NDArrayUniqueId"

Notes = tuple[str, ...]


@dataclass(frozen=True)
class _Files:
    folder: Path
    projections: tuple[Path, ...]
    darks: tuple[Path, ...]
    flats: tuple[Path, ...]
    panda: tuple[Path, ...]
    nexus: tuple[Path, ...]


def _files(path: Path) -> _Files:
    """Files of a scan folder by role; given one of its files, that file alone fills its role."""
    folder = path if path.is_dir() else path.parent
    children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    frames = [child for child in children if child.suffix.lower() in {".hdf", ".h5", ".hdf5"}]
    roles = {child: _role(child.name.lower()) for child in frames}
    chosen = {path: roles[path]} if path in roles else {}

    def of(role: str) -> tuple[Path, ...]:
        return tuple(
            child
            for child in frames
            if roles[child] == role and (role not in chosen.values() or child == path)
        )

    nexus = tuple(child for child in children if child.suffix.lower() == ".nxs")
    return _Files(folder, of("proj"), of("dark"), of("flat"), of("panda"), nexus)


def _role(name: str) -> str:
    if name.startswith("panda"):
        return "panda"
    words = set(re.findall("proj|dark|flat", name))
    if len(words) != 1:
        return ""
    word = words.pop()
    # darks and flats: dark_00000, pco2_flats_00000, flat_scan_00015_<uuid>, but not flat_field_test
    strict = re.fullmatch(r"(?:.*_)?(?:dark|flat)s?(?:_(?:scan_)?\d.*)?", name.rsplit(".", 1)[0])
    return word if word == "proj" or strict else ""


def understands(path: Path) -> bool:
    """Whether the folder (or that of the file) holds files named as projections, or as darks and flats."""
    return holds(path) is not None


def holds(path: Path) -> Holds | None:
    """Projections, or darks and flats, judged by file names; files that hold something else do not count."""
    try:
        files = _files(path)
    except OSError:
        return None
    known = (*files.projections, *files.darks, *files.flats, *files.panda, *files.nexus)
    first = (files.projections or files.flats)[:1]
    if (path.is_file() and path not in known) or not first or _is_other(first[0]):
        return None
    return "projections" if files.projections else "dark_flat"


def _is_other(path: Path) -> bool:
    """Whether the file opens and is not what an area detector writes; a broken file is judged on opening."""
    try:
        with open_hdf(path) as file:
            return "entry" not in file
    except BadScan:
        return False


def start_time(path: Path) -> datetime | None:
    """Start of the scan: the NeXus file, else the first frame's time stamp, else the file's time."""
    return _start(_files(path), options=NO_OPTIONS)[0]


def _start(files: _Files, *, options: RawOptions) -> tuple[datetime, Notes]:
    if options.start_time is not None:
        return options.start_time, ()
    notes: Notes = ()
    for path in files.nexus:
        try:
            text = read_text(path, "entry/start_time", options=options)
        except BadScan as err:
            notes += (f"start time not readable: {err}",)
            continue
        if text:
            time, notes = parse_time(text, what=f"{path.name}: start_time")
            if time is not None:
                return time, notes
    source = (files.projections or files.flats)[0]
    stamps = _stamps_s(source, options=options)
    if stamps is not None:
        return datetime.fromtimestamp(float(stamps[0]), tz=UTC), notes
    time, more = file_time(source)
    return time, notes + more


def _stamps_s(path: Path, *, options: RawOptions) -> DoubleArray | None:
    found = read_array(path, STAMPS, options=options)
    if found is None or found[0].size == 0 or found[0].dtype.kind not in "iuf":
        return None
    stamps = found[0].astype(np.float64).ravel()
    first = epics_time_s(float(stamps[0]))
    return None if first is None else first + (stamps - stamps[0])


def open_scan(path: Path, *, dark_flat: Sequence[Path] = (), options: RawOptions) -> Scan:
    """Describe a scan folder; BadScan when frames or angles cannot be read.

    Parameters
    ----------
    path : the scan's folder, or its file of projections.
    dark_flat : folders of darks and flats; absent: in the scan's folder, else the nearest in time beside it.
    """
    files = _files(path)
    frames, notes = _frames(files.projections, folder=files.folder, role="projection", options=options)
    angles, more = _angles(files, frames.shape[0], options=options)
    start, time_notes = _start(files, options=options)
    notes += more + time_notes + _lost_frames(frames.path, options=options)
    if dark_flat:
        dark_flats = open_dark_flats(dark_flat, options=options)
    else:
        dark_flats, more = _own_dark_flats(files, start, options=options)
        notes += more
    return Scan(
        name=path.stem if path.is_file() else path.name,
        layout=NAME,
        path=path,
        frames=frames,
        angles_rad=angles,
        dark_flats=dark_flats,
        start_time=start,
        log_absorption=options.log_absorption,
        files=files_of(frames.path, *files.panda, *files.nexus, dark_flats=dark_flats),
        problems=warn(notes),
    )


def _frames(
    paths: Sequence[Path], *, folder: Path, role: str, options: RawOptions
) -> tuple[HdfFrames, Notes]:
    if len(paths) != 1:
        listed = ", ".join(path.name for path in paths) if paths else "none"
        raise BadScan(
            f"{folder}: {len(paths)} {role} files ({listed}), one was expected; for several cameras or "
            "batches give the path of the one file to use"
        )
    return open_frames(paths[0], DATA, options=options)


def _lost_frames(path: Path, *, options: RawOptions) -> Notes:
    found = read_array(path, UNIQUE_IDS, options=options)
    if found is None or found[0].size < 2 or found[0].dtype.kind not in "iu":
        return ()
    lost = np.diff(found[0].astype(np.int64).ravel()) - 1
    if not np.any(lost):
        return ()
    where = int(np.flatnonzero(lost)[0])
    total = int(lost.sum())
    return (f"{path.name}: frames were lost: the numbers jump after frame {where} (by {total} in all)",)


def _angles(files: _Files, n_frames: int, *, options: RawOptions) -> tuple[DoubleArray, Notes]:
    found: list[tuple[Path, DoubleArray]] = []
    notes: Notes = ()
    for path, keys in [
        *((path, ("Angle", "angle")) for path in files.panda),
        *((path, ("entry/data/rotation_angle",)) for path in files.nexus),
    ]:
        try:
            read = _read_angles(path, keys, options=options)
        except BadScan as err:
            notes += (f"angles not readable: {err}",)
            continue
        if read is not None:
            found.append((path, read[0]))
            notes += read[1]
    if not found:
        why = "; ".join(notes) or "looked for panda*.hdf with /Angle and *.nxs with entry/data/rotation_angle"
        raise BadScan(f"{files.folder}: no angles: {why}")
    source, chosen = found[0]
    if not files.panda:
        notes += (f"no panda*.hdf: angles are the float32 ones of {source.name}",)
    for path, other in found[1:]:
        notes += _difference(source, chosen, path, other)
    try:
        matched, more = match_angles(n_frames, chosen)
    except BadScan as err:
        raise BadScan(f"{source}: {err}") from err
    return matched, tuple(dict.fromkeys(notes + more))


def _read_angles(path: Path, keys: Sequence[str], *, options: RawOptions) -> tuple[DoubleArray, Notes] | None:
    for key in keys:
        found = read_array(path, key, options=options)
        if found is None:
            continue
        unit = options.angle_unit or found[1]
        try:
            angles, notes = to_radians(found[0], unit=unit, layout_unit="deg")
        except BadScan as err:
            raise BadScan(f"{path}: {key}: {err}") from err
        return angles, tuple(f"{path.name}: {note}" for note in notes)
    return None


def _difference(path: Path, angles: DoubleArray, other_path: Path, other: DoubleArray) -> Notes:
    if angles.size != other.size:
        return (f"{path.name} has {angles.size} angles, {other_path.name} {other.size}: {path.name} is used",)
    largest = math.degrees(float(np.abs(angles - other).max(initial=0.0)))
    if largest <= 0.01:
        return ()
    pair = f"{path.name} and {other_path.name}"
    return (f"angles of {pair} differ by up to {largest:.3g} deg: {path.name} is used",)


def open_dark_flat(path: Path, *, options: RawOptions) -> tuple[DarkFlat, ...]:
    """Darks and flats of a folder; BadScan when there are no flats or they cannot be read."""
    return (_dark_flat(_files(path), options=options)[0],)


def _dark_flat(files: _Files, *, options: RawOptions) -> tuple[DarkFlat, Notes]:
    flats, notes = _frames(files.flats, folder=files.folder, role="flat", options=options)
    darks = None
    if files.darks:
        darks, more = _frames(files.darks, folder=files.folder, role="dark", options=options)
        notes += more
    stamps = _stamps_s(flats.path, options=options)
    if stamps is None:
        time, more = _start(files, options=RawOptions(folder=options.folder))
        time_s = time.timestamp()
        notes += more
    else:
        time_s = float(stamps.mean())
    return DarkFlat(darks, flats, time_s, files.folder.name), notes


def _own_dark_flats(
    files: _Files, start: datetime, *, options: RawOptions
) -> tuple[tuple[DarkFlat, ...], Notes]:
    if files.flats:
        item, notes = _dark_flat(files, options=options)
        return (item,), notes
    beside = [child for child in _siblings(files.folder) if holds(child) == "dark_flat"]
    opened: list[tuple[DarkFlat, Notes]] = []
    notes = ()
    for folder in beside:
        try:
            opened.append(_dark_flat(_files(folder), options=options))
        except BadScan as err:
            notes += (f"darks and flats beside the scan left out: {err}",)
    times = [
        None if item.time_s is None else datetime.fromtimestamp(item.time_s, tz=UTC) for item, _ in opened
    ]
    chosen = [opened[i] for i in nearest_around(times, start)]
    for _, more in chosen:
        notes += more
    return tuple(item for item, _ in chosen), notes


def _siblings(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.parent.iterdir() if child.is_dir() and child != folder)
    except OSError:
        return []


def write_scan(path: Path, scan: Scan) -> Path:
    """Write the folder of a scan, and one folder beside it for each set of darks and flats; returns `path`.

    Energy, pixel size and exposure have no place in this layout. BadScan when a folder exists already.
    """
    _new_folder(path)
    start_s = None if scan.start_time is None else scan.start_time.timestamp()
    with h5py.File(path / "proj_00000.hdf", "w") as file:
        write_frames(file, DATA, scan.frames)
        if start_s is not None:
            elapsed_s = np.arange(scan.shape[0], dtype=np.float64) * (scan.exposure_s or 0.0)
            _write_stamps(file, start_s + elapsed_s)
    degrees = np.degrees(scan.angles_rad)
    with h5py.File(path / "panda.hdf", "w") as file:
        file["Angle"] = degrees
        file["Angle"].attrs["units"] = "deg"
    with h5py.File(path / f"{path.name}.nxs", "w") as file:
        file["entry/data/rotation_angle"] = degrees.astype(np.float32)
        file["entry/data/rotation_angle"].attrs["units"] = "deg"
        file["entry/data/data"] = h5py.ExternalLink("proj_00000.hdf", "/entry/data/data")
        if scan.start_time is not None:
            file["entry/start_time"] = scan.start_time.isoformat()
    for item in scan.dark_flats:
        write_dark_flat(_free_name(path), item, time_s=start_s if item.time_s is None else item.time_s)
    return path


def write_dark_flat(path: Path, dark_flat: DarkFlat, *, time_s: float | None = None) -> Path:
    """Write a folder of darks and flats taken at `time_s` (absent: that of `dark_flat`); returns `path`."""
    _new_folder(path)
    when = dark_flat.time_s if time_s is None else time_s
    parts: list[tuple[str, Frames | None]] = [("dark", dark_flat.darks), ("flat", dark_flat.flats)]
    for role, frames in parts:
        if frames is None:
            continue
        with h5py.File(path / f"{role}_00000.hdf", "w") as file:
            write_frames(file, DATA, frames)
            if when is not None:
                _write_stamps(file, np.full(frames.shape[0], when))
    return path


def _write_stamps(file: h5py.File, times_s: DoubleArray) -> None:
    file[STAMPS] = times_s - EPICS_EPOCH_S
    file[UNIQUE_IDS] = np.arange(times_s.size, dtype=np.int32)


def _new_folder(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BadScan(f"{path}: exists already; give another folder to write to")
    path.mkdir(parents=True, exist_ok=True)


def _free_name(path: Path) -> Path:
    """The next free folder name after the scan's: scan_00011 after scan_00010."""
    found = re.fullmatch(r"(.*?)(\d+)", path.name)
    stem, digits = found.groups() if found else (f"{path.name}_", "00000")
    for number in range(int(digits) + 1, int(digits) + 1000):
        candidate = path.with_name(f"{stem}{number:0{len(digits)}d}")
        if not candidate.exists():
            return candidate
    raise BadScan(f"{path.parent}: no free folder name after {path.name}")
