"""HEX (27-ID, NSLS-II) generation 3 (2026): short names in a folder per scan, darks and flats in one file.

`scan_00001/{proj.h5, panda.h5}` holds the projections and the angles in degrees, `dark_flat.h5`, in the
scan's folder, beside it or in a folder of its own, first the darks and then the flats. Plans that align
the sample append the flats to the projections instead. Scans of the same year in files named by an identifier
alone cannot be told apart: for them the recipe says raw.data and raw.angles.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from xctpipe.errors import BadScan
from xctpipe.formats.base import NO_OPTIONS, Holds, RawOptions
from xctpipe.formats.hdf5 import Place
from xctpipe.formats.hexfiles import (
    DATA,
    PANDA_KEYS,
    AngleFile,
    DarkFlatFiles,
    ScanFiles,
    children,
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
from xctpipe.scan import DarkFlat, Scan

NAME = "hex3"
TITLE = (
    "HEX generation 3 (folders with proj.h5, panda.h5 and with dark_flat.h5; files named by an identifier "
    "alone need raw.data and raw.angles in the recipe)"
)
TAKES = ("batch",)
PROJECTIONS, PANDA = "proj.h5", "panda.h5"
_DARK_FLAT = re.compile(r"dark_flat(?:_\d+)?\.h5")


def understands(path: Path) -> bool:
    """Whether it is a folder with proj.h5 or with dark_flat.h5, or one of these files."""
    return holds(path) is not None


def holds(path: Path) -> Holds | None:
    """Projections, or darks and flats, judged by names alone."""
    try:
        if path.is_file():
            return _role(path)
        if not path.is_dir():
            return None
    except (OSError, ValueError):
        return None
    if (path / PROJECTIONS).is_file():
        return "projections"
    # the file may lie beside the scans that it serves
    found = children(path)
    single = len([child for child in found if _role(child) == "dark_flat"]) == 1
    return "dark_flat" if single and not any((child / PROJECTIONS).exists() for child in found) else None


def _role(path: Path) -> Holds | None:
    if path.name == PROJECTIONS:
        return "projections"
    return "dark_flat" if _DARK_FLAT.fullmatch(path.name) else None


def start_time(path: Path) -> datetime | None:
    """Start of the scan: the first frame's time stamp, else the file's time."""
    projections = holds(path) == "projections"
    frames = _projections(path) if projections else _dark_flat(path).flats.path
    return start_of((), frames, options=NO_OPTIONS)[0]


def _projections(path: Path) -> Path:
    return path / PROJECTIONS if path.is_dir() else path


def open_scan(path: Path, *, dark_flat: Sequence[Path] = (), options: RawOptions) -> Scan:
    """Describe a scan folder; BadScan when frames or angles cannot be read, or which are flats is not sure.

    Parameters
    ----------
    path : the scan's folder, or its file of projections.
    dark_flat : dark_flat.h5 or their folders; absent: flats after the projections, else dark_flat.h5 in the
        folder, else the nearest in time beside it.
    """
    frames = _projections(path)
    folder = frames.parent
    own = [child for child in children(folder) if _role(child) == "dark_flat"]
    around = [child for child in children(folder.parent) if _role(child) == "dark_flat" and child.is_file()]
    panda = folder / PANDA
    files = ScanFiles(
        folder,
        Place(frames, DATA),
        (AngleFile(panda, PANDA_KEYS),) if panda.exists() else (),
        wanted=f"{PANDA} with /Angle; put it beside {PROJECTIONS}, or give raw.angles",
        own=tuple(_files(each) for each in own),
        beside=(*around, *siblings(folder)),
    )
    return read_scan(files, layout=NAME, path=path, dark_flat=dark_flat, options=options)


def open_dark_flat(path: Path, *, options: RawOptions) -> tuple[DarkFlat, ...]:
    """Darks and flats of one file; BadScan when which are which is not sure."""
    return (read_dark_flat(_dark_flat(path), options=options)[0],)


def find_dark_flat(path: Path, *, options: RawOptions) -> DarkFlatFiles:
    """The one file of darks and flats."""
    return _dark_flat(path)


def _dark_flat(path: Path) -> DarkFlatFiles:
    found = [path] if path.is_file() else [each for each in children(path) if _role(each) == "dark_flat"]
    if len(found) != 1:
        listed = ", ".join(each.name for each in found) or "none"
        raise BadScan(f"{path}: {len(found)} files dark_flat.h5 ({listed}); give the path of the one to use")
    return _files(found[0])


def _files(path: Path) -> DarkFlatFiles:
    folder = path.parent.name
    origin = folder if folder.startswith("dark_flat") else f"{folder}/{path.name}"
    return DarkFlatFiles(Place(path, DATA), mixed=True, origin=origin)


def write_scan(path: Path, scan: Scan) -> Path:
    """Write the folder of a scan, and a folder dark_flat_NNNNN beside it for each set; returns `path`.

    Energy, pixel size and exposure have no place in this layout. Flats without darks get a file of their own,
    as in generation 1. BadScan when a folder exists already.
    """
    new_folder(path)
    write_projections(path / PROJECTIONS, scan)
    write_angles(path / PANDA, scan, key="Angle")
    for item in scan.dark_flats:
        folder = new_folder(free_name(path.with_name("dark_flat_00000")))
        time_s = time_of(item, scan)
        if item.darks is None:
            write_stack(folder / "flat_00000.hdf", item.flats, time_s=time_s)
        else:
            write_stack(folder / "dark_flat.h5", item.darks, item.flats, time_s=time_s)
    return path
