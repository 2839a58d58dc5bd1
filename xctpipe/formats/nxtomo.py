"""NXtomo: one NeXus file with projections, flats and darks in one stack told apart by image_key.

Definition: https://manual.nexusformat.org/classes/applications/NXtomo.html. Keys: 0 projection, 1 flat,
2 dark, 3 invalid; `image_key_control`, where there is one, wins and marks alignment frames with -1.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from xctpipe.errors import BadScan
from xctpipe.formats.angles import match_angles, to_radians
from xctpipe.formats.base import GIVE_ANGLES, NO_OPTIONS, Holds, RawOptions, unknown_angles, warn
from xctpipe.formats.frames import HdfFrames, files_of, open_frames, runs_of, write_frames
from xctpipe.formats.hdf5 import SUFFIXES, read_array, read_attribute
from xctpipe.formats.nexus import (
    ENERGY_KEYS,
    IMAGE_KEYS,
    Entry,
    Unclear,
    angle_keys,
    choose,
    entries_of,
    exposure_of_frames,
    numbers_of,
    time_of,
)
from xctpipe.formats.registry import open_dark_flats
from xctpipe.formats.units import file_time, parse_time
from xctpipe.formats.writing import growing
from xctpipe.scan import DarkFlat, DoubleArray, Frames, Scan

NAME = "nxtomo"
TITLE = "NXtomo (a file with frames and image_key)"
TAKES = ("camera",)

Notes = tuple[str, ...]
Keys = NDArray[np.int64]


def understands(path: Path) -> bool:
    """Whether the file has frames and image keys."""
    return holds(path) is not None


def holds(path: Path) -> Holds | None:
    """Projections, or flats and darks alone."""
    try:
        if not path.is_file() or path.suffix.lower() not in SUFFIXES:
            return None
        entries = entries_of(path)
    except Unclear:
        return "projections"
    except (BadScan, OSError):
        return None
    try:
        keys = [_image_keys(path, entry, options=NO_OPTIONS) for entry in entries]
    except BadScan:  # opening it says what is wrong with them
        return "projections"
    if not keys:
        return None
    return "projections" if any(np.any(each == 0) for each in keys) else "dark_flat"


def start_time(path: Path) -> datetime | None:
    """Start of the entry, else the file's time."""
    return _start(path, entries_of(path)[0], options=NO_OPTIONS)[0]


def exposure_of(path: Path, frames: HdfFrames) -> float | None:
    """Exposure of frames that this file holds or links to, in s; None where it does not say."""
    entries = entries_of(path)
    entry = next((each for each in entries if each.data == frames.key.lstrip("/")), entries[0])
    keys = _image_keys(path, entry, options=NO_OPTIONS)
    used = np.zeros(keys.size, dtype=bool)
    for first, last in frames.runs:
        used[first:last] = True
    return exposure_of_frames(path, entry, used, options=NO_OPTIONS)[0]


def _start(path: Path, entry: Entry, *, options: RawOptions) -> tuple[datetime, Notes]:
    if options.start_time is not None:
        return options.start_time, ()
    time, notes = time_of(path, entry, "start_time", options=options)
    if time is not None:
        return time, notes
    time, more = file_time(path)
    return time, notes + more


def open_scan(path: Path, *, dark_flat: Sequence[Path] = (), options: RawOptions) -> Scan:
    """Describe the first entry of a file, or that of the camera asked for.

    Raises
    ------
    BadScan
        When frames, image keys or angles cannot be read or paired, or the camera is not known.
    """
    entry, notes = choose(path, entries_of(path, options=options), options=options)
    frames, keys, more = _stack(path, entry, options=options)
    angles, angle_notes = _angles(path, entry, keys, options=options)
    start, time_notes = _start(path, entry, options=options)
    notes += more + angle_notes + time_notes
    if dark_flat:
        dark_flats = open_dark_flats(dark_flat, options=options)
    else:
        dark_flats, more = _dark_flats(path, entry, frames, keys, options=options)
        notes += more
    numbers, number_notes = numbers_of(path, entry, options=options)
    exposure_s, more = exposure_of_frames(path, entry, keys == 0, options=options)
    return Scan(
        name=path.stem,
        layout=NAME,
        path=path,
        frames=frames.select(keys == 0),
        angles_rad=angles,
        dark_flats=dark_flats,
        start_time=start,
        log_absorption=options.log_absorption,
        files=files_of(path, frames.path, dark_flats=dark_flats),
        exposure_s=exposure_s,
        problems=warn(notes + number_notes + more),
        **numbers,
    )


def _image_keys(path: Path, entry: Entry, *, options: RawOptions) -> Keys:
    for name in IMAGE_KEYS:
        found = read_array(path, f"{entry.keys}/{name}", options=options)
        if found is not None and found[0].dtype.kind in "iuf":
            keys = np.nan_to_num(found[0].astype(np.float64).ravel(), nan=3.0)
            return np.rint(keys).astype(np.int64)
    raise BadScan(f"{path}: {entry.keys}/image_key is not a list of numbers")


def _stack(path: Path, entry: Entry, *, options: RawOptions) -> tuple[HdfFrames, Keys, Notes]:
    frames, notes = open_frames(path, entry.data, options=options)
    keys = _image_keys(path, entry, options=options)
    if keys.size != frames.shape[0]:
        why = growing(frames.path) if keys.size > frames.shape[0] else ""
        raise BadScan(f"{path}: {keys.size} image keys for {frames.shape[0]} frames in {entry.detector}{why}")
    ignored = int(np.count_nonzero((keys < 0) | (keys > 2)))
    if ignored:
        notes += (f"{ignored} of {keys.size} frames are marked as invalid or alignment frames and left out",)
    return frames, keys, notes


def _angles(path: Path, entry: Entry, keys: Keys, *, options: RawOptions) -> tuple[DoubleArray, Notes]:
    wanted = int(np.count_nonzero(keys == 0))
    if not wanted:
        raise BadScan(f"{path}: {entry.keys}/image_key marks no frame as a projection (0)")
    if options.angles is not None:
        return unknown_angles(wanted), ()
    candidates, notes = angle_keys(path, entry, counts={wanted, keys.size})
    for key in candidates:
        try:
            found = read_array(path, key, options=options)
        except BadScan as err:
            if key == candidates[-1]:
                raise
            notes += (f"angles not readable: {err}",)
            continue
        if found is None:
            continue
        try:
            angles, more = to_radians(found[0], unit=options.angle_unit or found[1])
            if angles.size == wanted:
                return angles, notes + more
            matched, counted = match_angles(keys.size, angles)
        except BadScan as err:
            raise BadScan(f"{path}: {key}: {err}") from err
        return matched[keys == 0], notes + more + counted
    raise BadScan(f"{path}: no angles: {entry.group}/sample/rotation_angle is missing; {GIVE_ANGLES}")


def open_dark_flat(path: Path, *, options: RawOptions) -> tuple[DarkFlat, ...]:
    """Darks and flats in the file; BadScan when there are no flats."""
    entry, _ = choose(path, entries_of(path, options=options), options=options)
    frames, keys, _ = _stack(path, entry, options=options)
    found = _dark_flats(path, entry, frames, keys, options=options)[0]
    if not found:
        raise BadScan(f"{path}: no flats: no frame has the image key 1")
    return found


def _dark_flats(
    path: Path, entry: Entry, frames: HdfFrames, keys: Keys, *, options: RawOptions
) -> tuple[tuple[DarkFlat, ...], Notes]:
    """One set for each stretch of frames between projections that holds flats."""
    times_s, notes = _frame_times_s(path, entry, keys, options=options)
    found: list[DarkFlat] = []
    for first, last in runs_of(keys != 0):
        here = np.zeros(keys.size, dtype=bool)
        here[first:last] = True
        flats = here & (keys == 1)
        if not flats.any():
            continue
        own = here & (keys == 2)
        darks = own if own.any() else keys == 2
        known = times_s[flats]
        found.append(
            DarkFlat(
                frames.select(darks) if darks.any() else None,
                frames.select(flats),
                float(known.mean()) if np.all(np.isfinite(known)) else None,
                f"{path.name}: frames {np.flatnonzero(flats)[0]} to {np.flatnonzero(flats)[-1]}",
            )
        )
    return tuple(found), notes


def _frame_times_s(path: Path, entry: Entry, keys: Keys, *, options: RawOptions) -> tuple[DoubleArray, Notes]:
    """Seconds since the epoch of every frame, NaN where unknown.

    From the detector's start_time list; else frames before the first projection are at the start of the
    entry and those after the last one at its end.
    """
    key = f"{entry.detector}/start_time"
    offsets = read_array(path, key, options=options)
    origin = read_attribute(path, key, "start", options=options)
    if offsets is not None and origin and offsets[0].size == keys.size and offsets[0].dtype.kind in "iuf":
        zero, notes = parse_time(origin, what=f"{path.name}: {key} start")
        if zero is not None:
            return zero.timestamp() + offsets[0].astype(np.float64).ravel(), notes
    times_s = np.full(keys.size, np.nan)
    projections = np.flatnonzero(keys == 0)
    if projections.size:
        before, after = slice(0, projections[0]), slice(projections[-1] + 1, None)
        for name, part in (("start_time", before), ("end_time", after)):
            time, _ = time_of(path, entry, name, options=options)
            if time is not None:
                times_s[part] = time.timestamp()
    return times_s, ()


def write_scan(path: Path, scan: Scan) -> Path:
    """Write one NXtomo file, its suffix .nxs if it has none of HDF5's; returns its path.

    At most two sets of darks and flats (before and after) fit. BadScan when the file exists.
    """
    path = path if path.suffix.lower() in SUFFIXES else path.with_name(f"{path.name}.nxs")
    if len(scan.dark_flats) > 2:
        raise BadScan(f"{path}: {len(scan.dark_flats)} sets of darks and flats, NXtomo has room for two here")
    if path.exists():
        raise BadScan(f"{path}: exists already; give another file to write to")
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = _parts(scan)
    with h5py.File(path, "w") as file:
        detector = file.create_group("entry/instrument/detector")
        detector.attrs["NX_class"] = "NXdetector"
        file["entry"].attrs["NX_class"] = "NXentry"
        file["entry/definition"] = "NXtomo"
        write_frames(detector, "data", [frames for frames, _, _ in parts])
        counts = [frames.shape[0] for frames, _, _ in parts]
        detector["image_key"] = np.repeat(np.array([key for _, key, _ in parts], np.int32), counts)
        file["entry/sample/rotation_angle"] = _all_angles_deg(scan, parts)
        file["entry/sample/rotation_angle"].attrs["units"] = "degree"
        _write_times(file, scan, parts)
        for key, value, unit in (
            (f"entry/{ENERGY_KEYS[0]}", scan.energy_kev, "keV"),
            ("entry/instrument/detector/x_pixel_size", scan.pixel_um, "um"),
            ("entry/instrument/detector/y_pixel_size", scan.pixel_um, "um"),
            ("entry/instrument/detector/count_time", scan.exposure_s, "s"),
        ):
            if value is not None:
                file[key] = value
                file[key].attrs["units"] = unit
    return path


_Part = tuple[Frames, int, float | None]


def _parts(scan: Scan) -> list[_Part]:
    """Frames with their image key and time in order of acquisition."""
    sets: list[list[_Part]] = []
    for item in scan.dark_flats:
        one: list[_Part] = [(item.flats, 1, item.time_s)]
        sets.append(one if item.darks is None else [(item.darks, 2, item.time_s), *one])
    start_s = None if scan.start_time is None else scan.start_time.timestamp()
    before = sets[0] if sets else []
    after = sets[1] if len(sets) > 1 else []
    return [*before, (scan.frames, 0, start_s), *after]


def _all_angles_deg(scan: Scan, parts: Sequence[_Part]) -> DoubleArray:
    degrees: DoubleArray = np.degrees(scan.angles_rad).astype(np.float64)
    pieces: list[DoubleArray] = []
    for frames, key, _ in parts:
        # darks and flats are taken at a standstill, before the first angle and after the last
        still = degrees[-1] if pieces and any(k == 0 for _, k, _ in parts[: len(pieces)]) else degrees[0]
        pieces.append(degrees if key == 0 else np.full(frames.shape[0], still, dtype=np.float64))
    return np.concatenate(pieces)


def _write_times(file: h5py.File, scan: Scan, parts: Sequence[_Part]) -> None:
    if scan.start_time is None:
        return
    file["entry/start_time"] = scan.start_time.isoformat()
    start_s = scan.start_time.timestamp()
    offsets: list[DoubleArray] = []
    for frames, key, time_s in parts:
        if time_s is None:
            return
        step = (scan.exposure_s or 0.0) if key == 0 else 0.0
        offsets.append(time_s - start_s + step * np.arange(frames.shape[0], dtype=np.float64))
    detector = file["entry/instrument/detector"]
    detector["start_time"] = np.concatenate(offsets)
    detector["start_time"].attrs["units"] = "s"
    detector["start_time"].attrs["start"] = scan.start_time.isoformat()
