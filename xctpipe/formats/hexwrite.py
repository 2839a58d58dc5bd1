"""What the generations of HEX raw data share in writing: frames with their times, names that are free."""

import re
import uuid
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from xctpipe.errors import BadScan
from xctpipe.formats.frames import write_frames
from xctpipe.formats.hexfiles import DATA, STAMPS, UNIQUE_IDS
from xctpipe.formats.units import EPICS_EPOCH_S
from xctpipe.scan import DarkFlat, DoubleArray, Frames, Scan


def write_projections(path: Path, scan: Scan) -> None:
    """Write the projections of a scan with their time stamps into a new file."""
    with h5py.File(path, "w") as file:
        write_frames(file, DATA, scan.frames)
        if scan.start_time is not None:
            # frames that know their numbers may have lost some in between
            numbers = np.asarray(getattr(scan.frames, "numbers", range(scan.shape[0])), np.int32)
            elapsed_s = numbers.astype(np.float64) * (scan.exposure_s or 0.0)
            _write_stamps(file, scan.start_time.timestamp() + elapsed_s, numbers=numbers)


def write_stack(path: Path, *parts: Frames, time_s: float | None) -> None:
    """Write frames taken at one time, one part after the other, into a new file."""
    with h5py.File(path, "w") as file:
        write_frames(file, DATA, parts)
        if time_s is not None:
            n = sum(part.shape[0] for part in parts)
            _write_stamps(file, np.full(n, time_s), numbers=np.arange(n, dtype=np.int32))


def write_angles(path: Path, scan: Scan, *, key: str) -> None:
    """Write the angles as the PandA does: degrees in float64."""
    with h5py.File(path, "w") as file:
        file[key] = np.degrees(scan.angles_rad)
        file[key].attrs["units"] = "deg"


def time_of(item: DarkFlat, scan: Scan) -> float | None:
    """When darks and flats were taken, as far as they or the scan say."""
    start_s = None if scan.start_time is None else scan.start_time.timestamp()
    return start_s if item.time_s is None else item.time_s


def _write_stamps(file: h5py.File, times_s: DoubleArray, *, numbers: NDArray[np.int32]) -> None:
    file[STAMPS] = times_s - EPICS_EPOCH_S
    file[UNIQUE_IDS] = numbers


def new_folder(path: Path) -> Path:
    """Make a folder; BadScan when it holds something already."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BadScan(f"{path}: exists already; give another folder to write to")
    path.mkdir(parents=True, exist_ok=True)
    return path


def free_name(path: Path, *, taken: Callable[[Path], bool] = Path.exists) -> Path:
    """The next name after the scan's that is not taken: scan_00011 after scan_00010."""
    found = re.fullmatch(r"(.*?)(\d+)", path.name)
    stem, digits = found.groups() if found else (f"{path.name}_", "00000")
    for number in range(int(digits) + 1, int(digits) + 1000):
        candidate = path.with_name(f"{stem}{number:0{len(digits)}d}")
        if not taken(candidate):
            return candidate
    raise BadScan(f"{path.parent}: no free folder name after {path.name}")


def made_up_uuid(*words: str) -> uuid.UUID:
    """The same identifier for the same words, so that a simulated scan is the same every time."""
    return uuid.uuid5(uuid.NAMESPACE_URL, "/".join(words))
