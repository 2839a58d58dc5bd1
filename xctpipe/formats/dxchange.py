"""DataExchange (APS and others): one HDF5 file with /exchange/{data, data_white, data_dark, theta}.

De Carlo et al., J. Synchrotron Rad. 21, 1224 (2014), doi:10.1107/S160057751401604X.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np

from xctpipe.errors import BadScan
from xctpipe.formats.angles import match_angles, to_radians
from xctpipe.formats.base import GIVE_ANGLES, NO_OPTIONS, Holds, RawOptions, unknown_angles, warn
from xctpipe.formats.frames import HdfFrames, files_of, open_frames, write_frames
from xctpipe.formats.hdf5 import (
    SUFFIXES,
    locate,
    open_hdf,
    read_array,
    read_attribute,
    read_number,
    read_text,
)
from xctpipe.formats.registry import open_dark_flats
from xctpipe.formats.units import duration_s, energy_kev, file_time, length_um, parse_time
from xctpipe.formats.writing import growing
from xctpipe.scan import DarkFlat, DoubleArray, Problem, Scan

NAME = "dxchange"
TITLE = "DataExchange (a file with /exchange/data)"

_WHITE = ("exchange/data_white", "exchange/data_white_pre", "exchange/data_white_post")
_DARK = ("exchange/data_dark", "exchange/data_dark_pre", "exchange/data_dark_post")
_START = ("process/acquisition/start_date", "file_creation_datetime")
_ENERGY = ("measurement/instrument/monochromator/energy",)
_PIXEL = (
    "measurement/instrument/detection_system/objective/resolution",
    "measurement/instrument/detector/actual_pixel_size_x",
)
_EXPOSURE = ("measurement/instrument/detector/exposure_time",)
_FLAT_EXPOSURE = (
    "measurement/instrument/detector/exposure_time_flat",
    "process/acquisition/flat_fields/flat_exposure_time",
    "measurement/instrument/detector/brightfield_exposure_time",
)

Notes = tuple[str, ...]


def understands(path: Path) -> bool:
    """Whether the file has /exchange/data or /exchange/data_white."""
    return holds(path) is not None


def holds(path: Path) -> Holds | None:
    """Projections, or flats alone."""
    try:
        if not path.is_file() or path.suffix.lower() not in SUFFIXES:
            return None
        with open_hdf(path) as file:
            exchange = file.get("exchange")
            keys = set(exchange) if isinstance(exchange, h5py.Group) else set()
    except (BadScan, OSError):
        return None
    if "data" in keys:
        return "projections"
    return "dark_flat" if "data_white" in keys else None


def start_time(path: Path) -> datetime | None:
    """Start of the acquisition, else the file's time."""
    return _start(path, options=NO_OPTIONS)[0]


def _start(path: Path, *, options: RawOptions) -> tuple[datetime, Notes]:
    if options.start_time is not None:
        return options.start_time, ()
    notes: Notes = ()
    for key in _START:
        text = read_text(path, key, options=options)
        if text:
            time, notes = parse_time(text, what=f"{path.name}: {key}")
            if time is not None:
                return time, notes
    time, more = file_time(path)
    return time, notes + more


def open_scan(path: Path, *, dark_flat: Sequence[Path] = (), options: RawOptions) -> Scan:
    """Describe a DataExchange file; BadScan when frames or angles cannot be read."""
    frames, notes = open_frames(path, "exchange/data", options=options)
    angles, more = _angles(path, frames.shape[0], options=options)
    start, time_notes = _start(path, options=options)
    notes += more + time_notes
    missing: Notes = ()
    if dark_flat:
        dark_flats = open_dark_flats(dark_flat, options=options)
    else:
        dark_flats, more, missing = _dark_flats(path, options=options)
        notes += more
    numbers: dict[str, float | None] = {}
    for name, keys, convert in (
        ("energy_kev", _ENERGY, energy_kev),
        ("pixel_um", _PIXEL, length_um),
        ("exposure_s", _EXPOSURE, duration_s),
    ):
        numbers[name], more = _number(path, keys, convert, options=options)
        notes += more
    return Scan(
        name=path.stem,
        layout=NAME,
        path=path,
        frames=frames,
        angles_rad=angles,
        dark_flats=dark_flats,
        start_time=start,
        log_absorption=options.log_absorption,
        files=files_of(path, frames.path, dark_flats=dark_flats),
        problems=(*warn(notes), *(Problem("error", text) for text in missing)),
        **numbers,
    )


def _number(
    path: Path,
    keys: Sequence[str],
    convert: Callable[..., tuple[float | None, Notes]],
    *,
    options: RawOptions,
) -> tuple[float | None, Notes]:
    notes: Notes = ()
    for key in keys:
        found = read_number(path, key, options=options)
        if found is not None:
            value, more = convert(*found, what=f"{path.name}: {key}")
            notes += more
            if value is not None:
                return value, notes
    return None, notes


def exposure_of(path: Path, frames: HdfFrames) -> float | None:
    """Exposure of frames of this file, in s; that of its flats may have a place of its own."""
    keys = (*_FLAT_EXPOSURE, *_EXPOSURE) if frames.key.lstrip("/") in _WHITE else _EXPOSURE
    return _number(path, keys, duration_s, options=NO_OPTIONS)[0]


def _angles(path: Path, n_frames: int, *, options: RawOptions) -> tuple[DoubleArray, Notes]:
    if options.angles is not None:
        return unknown_angles(n_frames), ()
    found = read_array(path, "exchange/theta", options=options)
    if found is None:
        raise BadScan(f"{path}: no angles: /exchange/theta is missing; {GIVE_ANGLES}")
    values, unit = found
    why = growing(path) if values.size > n_frames else ""
    if why and values.size >= 2 * n_frames:  # not several angles a frame, but frames to come
        raise BadScan(f"{path}: {values.size} angles for {n_frames} frames{why}")
    try:
        angles, notes = to_radians(values, unit=options.angle_unit or unit, layout_unit="deg")
        matched, more = match_angles(n_frames, angles)
    except BadScan as err:
        raise BadScan(f"{path}: /exchange/theta: {err}{why}") from err
    return matched, notes + more


def open_dark_flat(path: Path, *, options: RawOptions) -> tuple[DarkFlat, ...]:
    """Darks and flats in the file; BadScan when there are no flats."""
    found, _, missing = _dark_flats(path, options=options)
    if missing:
        raise BadScan("; ".join(missing))
    if not found:
        raise BadScan(f"{path}: no flats: /exchange/data_white is missing")
    return found


def _dark_flats(path: Path, *, options: RawOptions) -> tuple[tuple[DarkFlat, ...], Notes, Notes]:
    """Sets of darks and flats, what there is to say about them, and what of them is missing."""
    found: list[DarkFlat] = []
    notes: Notes = ()
    missing: Notes = ()

    def frames_at(key: str) -> HdfFrames | None:
        nonlocal notes, missing
        try:
            if not _has_frames(path, key, options=options):
                return None
            frames, more = open_frames(path, key, options=options)
        except BadScan as err:
            if not (options.flats if key in _WHITE else options.darks):
                missing += (f"{'flats' if key in _WHITE else 'darks'} cannot be read: {err}",)
            return None
        notes += more
        return frames

    for i, key in enumerate(_WHITE):
        flats = frames_at(key)
        if flats is None:
            continue
        # darks of the same moment, else any: they hardly change in a scan
        darks = next((each for each in map(frames_at, (_DARK[i], *_DARK)) if each is not None), None)
        text = read_attribute(path, key, "start_time", options=options)
        time, more = parse_time(text, what=f"{path.name}: {key} start_time") if text else (None, ())
        notes += more
        origin = f"{path.name}:/{key}"
        found.append(DarkFlat(darks, flats, None if time is None else time.timestamp(), origin))
    return tuple(found), notes, tuple(dict.fromkeys(missing))


def _has_frames(path: Path, key: str, *, options: RawOptions) -> bool:
    # writers that make the datasets before the scan leave empty ones where none were taken
    place = locate(path, key, options=options)
    if place is None:
        return False
    with open_hdf(place.path) as file:
        item = file[place.key]
        return bool(isinstance(item, h5py.Dataset) and item.size)


def write_scan(path: Path, scan: Scan) -> Path:
    """Write one DataExchange file, its suffix .h5 if it has none of HDF5's; returns its path.

    At most two sets of darks and flats (before and after) fit. BadScan when the file exists.
    """
    path = path if path.suffix.lower() in SUFFIXES else path.with_name(f"{path.name}.h5")
    sets = len(scan.dark_flats)
    if sets > 2:
        raise BadScan(f"{path}: {sets} sets of darks and flats, DataExchange has room for two")
    if path.exists():
        raise BadScan(f"{path}: exists already; give another file to write to")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["implements"] = "exchange:measurement:process"
        write_frames(file, "exchange/data", scan.frames)
        file["exchange/theta"] = np.degrees(scan.angles_rad)
        file["exchange/theta"].attrs["units"] = "degrees"
        offset = 0 if sets == 1 else 1
        for item, white, dark in zip(scan.dark_flats, _WHITE[offset:], _DARK[offset:], strict=False):
            _write_dark_flat(file, item, white=white, dark=dark)
        if scan.start_time is not None:
            file[_START[0]] = scan.start_time.isoformat()
        for key, value, unit in (
            (_ENERGY[0], scan.energy_kev, "keV"),
            (_PIXEL[0], scan.pixel_um, "microns"),
            (_EXPOSURE[0], scan.exposure_s, "s"),
        ):
            if value is not None:
                file[key] = value
                file[key].attrs["units"] = unit
    return path


def _write_dark_flat(file: h5py.File, item: DarkFlat, *, white: str, dark: str) -> None:
    write_frames(file, white, item.flats)
    if item.time_s is not None:
        file[white].attrs["start_time"] = datetime.fromtimestamp(item.time_s, tz=UTC).isoformat()
    if item.darks is not None:
        write_frames(file, dark, item.darks)
