"""HEX (27-ID, NSLS-II) generation 1: a folder per scan, darks and flats in a folder of their own.

`scan_00010/{proj_00000.hdf, panda.hdf, scan_00010.nxs}` holds the projections, the angles in float64
(panda `/Angle`, degrees) and again in float32 (`entry/data/rotation_angle`), and
`scan_00015/{dark,flat}_00000.hdf` the darks and flats. Energy, pixel size and exposure are not in the files.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np

from xctpipe.errors import BadScan
from xctpipe.formats.base import NO_OPTIONS, Holds, RawOptions
from xctpipe.formats.hdf5 import Place, open_hdf
from xctpipe.formats.hexfiles import (
    DATA,
    HDF_SUFFIXES,
    NEXUS_KEYS,
    PANDA_KEYS,
    AngleFile,
    DarkFlatFiles,
    ScanFiles,
    read_dark_flat,
    read_scan,
    siblings,
    start_of,
)
from xctpipe.formats.hexwrite import (
    free_name,
    new_folder,
    time_of,
    write_angles,
    write_projections,
    write_stack,
)
from xctpipe.scan import DarkFlat, Frames, Scan

NAME = "hex1"
TITLE = "HEX generation 1 (folders with proj_*.hdf, panda*.hdf, *.nxs and with dark_*.hdf, flat_*.hdf)"
TAKES = ("batch",)
# generation 3, and the runs of generation 2, whose names end with an identifier
_OF_OTHERS = re.compile(r"proj\.h5|.*_[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\.h5")


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
    frames = [child for child in children if child.suffix.lower() in HDF_SUFFIXES]
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
    if _OF_OTHERS.fullmatch(name):
        return ""
    if name.startswith("panda"):
        return "panda"
    words = set(re.findall("proj|dark|flat", name))
    if len(words) != 1:
        return ""
    word = words.pop()
    # darks and flats: dark_00000, pco2_flats_00000, flat_scan_00015, but not flat_field_test
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
    files = _files(path)
    return start_of(files.nexus, (files.projections or files.flats)[0], options=NO_OPTIONS)[0]


def open_scan(path: Path, *, dark_flat: Sequence[Path] = (), options: RawOptions) -> Scan:
    """Describe a scan folder; BadScan when frames or angles cannot be read.

    Parameters
    ----------
    path : the scan's folder, or its file of projections.
    dark_flat : folders of darks and flats; absent: in the scan's folder, else the nearest in time beside it.
    """
    files = _files(path)
    scan = ScanFiles(
        files.folder,
        _only(files.projections, folder=files.folder, role="projection"),
        (
            *(AngleFile(each, PANDA_KEYS) for each in files.panda),
            *(AngleFile(each, NEXUS_KEYS) for each in files.nexus),
        ),
        wanted="panda*.hdf with /Angle and *.nxs with entry/data/rotation_angle; copy one there, or give "
        "raw.angles",
        nexus=files.nexus,
        own=(_dark_flat(files),) if files.flats else (),
        beside=siblings(files.folder),
        notes=_missing_panda(files),
    )
    return read_scan(scan, layout=NAME, path=path, dark_flat=dark_flat, options=options)


def _only(paths: Sequence[Path], *, folder: Path, role: str) -> Place:
    if len(paths) != 1:
        listed = ", ".join(path.name for path in paths) if paths else "none"
        raise BadScan(
            f"{folder}: {len(paths)} {role} files ({listed}), one was expected; for several cameras or "
            "batches give the path of the one file to use"
        )
    return Place(paths[0], DATA)


def _missing_panda(files: _Files) -> tuple[str, ...]:
    if files.panda or not files.nexus:
        return ()
    return (f"no panda*.hdf: angles are the float32 ones of {files.nexus[0].name}",)


def open_dark_flat(path: Path, *, options: RawOptions) -> tuple[DarkFlat, ...]:
    """Darks and flats of a folder; BadScan when there are no flats or they cannot be read."""
    return (read_dark_flat(_dark_flat(_files(path)), options=options)[0],)


def find_dark_flat(path: Path, *, options: RawOptions) -> DarkFlatFiles:
    """Files of darks and flats in a folder; BadScan when it is not sure which."""
    return _dark_flat(_files(path))


def _dark_flat(files: _Files) -> DarkFlatFiles:
    if files.projections and not files.flats:
        raise BadScan(f"{files.folder}: holds projections, no flats; name another scan in raw.dark_flat")
    flats = _only(files.flats, folder=files.folder, role="flat")
    darks = _only(files.darks, folder=files.folder, role="dark") if files.darks else None
    return DarkFlatFiles(flats, darks, origin=files.folder.name, nexus=files.nexus)


def write_scan(path: Path, scan: Scan) -> Path:
    """Write the folder of a scan, and one folder beside it for each set of darks and flats; returns `path`.

    Energy, pixel size and exposure have no place in this layout. BadScan when a folder exists already.
    """
    new_folder(path)
    write_projections(path / "proj_00000.hdf", scan)
    write_angles(path / "panda.hdf", scan, key="Angle")
    with h5py.File(path / f"{path.name}.nxs", "w") as file:
        file["entry/data/rotation_angle"] = np.degrees(scan.angles_rad).astype(np.float32)
        file["entry/data/rotation_angle"].attrs["units"] = "deg"
        file["entry/data/data"] = h5py.ExternalLink("proj_00000.hdf", "/entry/data/data")
        if scan.start_time is not None:
            file["entry/start_time"] = scan.start_time.isoformat()
    for item in scan.dark_flats:
        write_dark_flat(free_name(path), item, time_s=time_of(item, scan))
    return path


def write_dark_flat(path: Path, dark_flat: DarkFlat, *, time_s: float | None = None) -> Path:
    """Write a folder of darks and flats taken at `time_s` (absent: that of `dark_flat`); returns `path`."""
    new_folder(path)
    when = dark_flat.time_s if time_s is None else time_s
    parts: list[tuple[str, Frames | None]] = [("dark", dark_flat.darks), ("flat", dark_flat.flats)]
    for role, frames in parts:
        if frames is not None:
            write_stack(path / f"{role}_00000.hdf", frames, time_s=when)
    return path
