"""What the generations of HEX raw data share once the files of a scan are known: how they are read.

Angles may be stored twice, frames carry time stamps and numbers, and darks and flats are a run of their own,
before and after the scan. Energy, pixel size and exposure are in none of the files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from xctpipe.errors import BadScan
from xctpipe.formats.angles import COUNTS_KEY, counts_to_degrees, to_radians
from xctpipe.formats.base import RawOptions, unknown_angles, warn
from xctpipe.formats.frames import HdfFrames, files_of, open_frames
from xctpipe.formats.hdf5 import Place, locate, read_array, read_text
from xctpipe.formats.hexframes import Taken, split_dark_flat, take
from xctpipe.formats.registry import layouts, open_dark_flats
from xctpipe.formats.units import epics_time_s, file_time, nearest_around, parse_time
from xctpipe.formats.writing import growing
from xctpipe.scan import DarkFlat, DoubleArray, Scan, Span

DATA = "entry/data/data"
STAMPS = "entry/instrument/NDAttributes/NDArrayTimeStamp"
UNIQUE_IDS = "entry/instrument/NDAttributes/NDArrayUniqueId"
PANDA_KEYS = ("Angle", "angle", COUNTS_KEY)
NEXUS_KEYS = ("entry/data/rotation_angle",)
HDF_SUFFIXES = frozenset({".hdf", ".h5", ".hdf5"})

Notes = tuple[str, ...]


@dataclass(frozen=True)
class AngleFile:
    """A file with angles and the keys they may have in it, the first that is there counts."""

    path: Path
    keys: tuple[str, ...]


@dataclass(frozen=True)
class DarkFlatFiles:
    """Where darks and flats taken together are; `mixed` when both are in the stack of `flats`."""

    flats: Place
    darks: Place | None = None
    mixed: bool = False
    origin: str = ""
    nexus: tuple[Path, ...] = ()
    notes: Notes = ()


@dataclass(frozen=True)
class ScanFiles:
    """The files of a scan by role, as a generation finds them.

    `angles` are in order of precedence; `wanted` says where angles were looked for. `beside` are folders
    and files that may hold darks and flats, used when the scan has none of its own (`own`); those of `camera`
    are chosen from several.
    """

    folder: Path
    projections: Place
    angles: tuple[AngleFile, ...]
    wanted: str
    nexus: tuple[Path, ...] = ()
    own: tuple[DarkFlatFiles, ...] = ()
    beside: tuple[Path, ...] = ()
    camera: str = ""
    notes: Notes = ()


def read_scan(
    files: ScanFiles, *, layout: str, path: Path, dark_flat: Sequence[Path], options: RawOptions
) -> Scan:
    """Describe a scan from its files.

    Parameters
    ----------
    layout, path : name of the layout, and what the user gave.
    dark_flat : scans that hold darks and flats; absent: the scan's own, else the nearest in time beside it.

    Raises
    ------
    BadScan
        When frames or angles cannot be read or do not belong together.
    """
    frames, notes = open_frames(files.projections.path, files.projections.key, options=options)
    taken, more = _taken(files, frames, options=options)
    frames = taken.frames
    start, time_notes = start_of(files.nexus, frames.path, options=options, frame=frames.runs[0][0])
    lost = _lost(frames, options=options)
    notes = (*files.notes, *notes, *more, *time_notes, *lost)
    if dark_flat:
        dark_flats = open_dark_flats(dark_flat, options=options)
    else:
        dark_flats, more = _dark_flats(files, taken, start, options=options)
        notes += more
    return Scan(
        name=path.stem if path.is_file() else path.name,
        layout=layout,
        path=path,
        frames=frames,
        angles_rad=taken.angles_rad,
        dark_flats=dark_flats,
        start_time=start,
        interval_s=_interval_s(frames, options=options),
        log_absorption=options.log_absorption,
        files=files_of(
            frames.path, *(each.path for each in files.angles), *files.nexus, dark_flats=dark_flats
        ),
        problems=warn(dict.fromkeys(notes)),
    )


def _taken(files: ScanFiles, frames: HdfFrames, *, options: RawOptions) -> tuple[Taken, Notes]:
    """Projections with their angles, as the files have them; angles that the user gives come later."""
    n = frames.shape[0]
    if options.angles is not None:
        ignored = (
            f"raw.batch = {options.batch} is not used: raw.angles has an angle for each frame of the file"
        )
        return Taken(frames, unknown_angles(n)), () if options.batch is None else (ignored,)
    source, angles, notes = _angles(files, options=options)
    why = growing(frames.path) if angles.size > n else ""
    if why and angles.size >= 2 * n:  # not several angles a frame, but frames to come
        raise BadScan(f"{source}: {angles.size} angles for {n} frames{why}")
    try:
        taken = take(frames, angles, batch=options.batch)
    except BadScan as err:
        raise BadScan(f"{source}: {err}{why}") from err
    return taken, notes + taken.notes


def start_of(
    nexus: Sequence[Path], frames: Path, *, options: RawOptions, frame: int = 0
) -> tuple[datetime, Notes]:
    """Start of a scan: as the user says, else as a NeXus file, a frame's time stamp, or the file's time."""
    if options.start_time is not None:
        return options.start_time, ()
    notes: Notes = ()
    for path in nexus:
        try:
            text = read_text(path, "entry/start_time", options=options)
        except BadScan as err:
            notes += (f"start time not readable: {err}",)
            continue
        # a scan in the middle of a file did not start when the file did
        if text and frame == 0:
            time, notes = parse_time(text, what=f"{path.name}: start_time")
            if time is not None:
                return time, notes
    stamps = _stamps_s(frames, options=options)
    if stamps is not None and frame < stamps.size:
        return datetime.fromtimestamp(float(stamps[frame]), tz=UTC), notes
    time, more = file_time(frames)
    return time, notes + more


def _interval_s(frames: HdfFrames, *, options: RawOptions) -> float | None:
    """Median time from one frame to the next, where frames carry time stamps that tell it."""
    stamps = _stamps_s(frames.path, options=options)
    if stamps is None or stamps.size < 2:
        return None
    median = float(np.median(np.diff(stamps)))
    # seconds since 1990 in float64 are good to 1e-7
    return round(median, 5) if 0 < median < 3600 else None


def _stamps_s(path: Path, *, options: RawOptions) -> DoubleArray | None:
    found = read_array(path, STAMPS, options=options)
    if found is None or found[0].size == 0 or found[0].dtype.kind not in "iuf":
        return None
    stamps = found[0].astype(np.float64).ravel()
    first = epics_time_s(float(stamps[0]))
    return None if first is None else first + (stamps - stamps[0])


def _lost(frames: HdfFrames, *, options: RawOptions) -> Notes:
    """Whether the numbers that the camera gave the frames in use jump."""
    found = read_array(frames.path, UNIQUE_IDS, options=options)
    if found is None or found[0].dtype.kind not in "iu":
        return ()
    numbers = found[0].astype(np.int64).ravel()
    first, last = frames.runs[0][0], frames.runs[-1][1]
    lost = np.diff(numbers[first:last]) - 1
    if not np.any(lost):
        return ()
    where = first + int(np.flatnonzero(lost)[0])
    total = int(lost.sum())
    name = frames.path.name
    return (f"{name}: frames were lost: the numbers jump after frame {where} (by {total} in all)",)


def _angles(files: ScanFiles, *, options: RawOptions) -> tuple[Path, DoubleArray, Notes]:
    found: list[tuple[Path, DoubleArray]] = []
    notes: Notes = ()
    for each in files.angles:
        try:
            read = _read_angles(each, options=options)
        except BadScan as err:
            notes += (f"angles not readable: {err}",)
            continue
        if read is not None:
            found.append((each.path, read[0]))
            notes += read[1]
    if not found:
        raise BadScan(f"{files.folder}: no angles: {'; '.join(notes) or f'looked for {files.wanted}'}")
    source, chosen = found[0]
    for path, other in found[1:]:
        notes += _difference(source, chosen, path, other)
    return source, chosen, notes


def _read_angles(file: AngleFile, *, options: RawOptions) -> tuple[DoubleArray, Notes] | None:
    for key in file.keys:
        place = locate(file.path, key, options=options)
        if place is None:
            continue
        found = read_array(place.path, place.key, options=options)
        if found is None:
            continue
        values, unit = found[0], options.angle_unit or found[1]
        notes: Notes = (place.note,) if place.note else ()
        try:
            if place.key.rsplit("/", 1)[-1] == COUNTS_KEY and options.angle_unit is None:
                values, more = counts_to_degrees(values)
                unit = "deg" if more else unit
                notes += tuple(f"{place.path.name}: {note}" for note in more)
            angles, more = to_radians(values, unit=unit, layout_unit="deg")
        except BadScan as err:
            raise BadScan(f"{place.path}: {key}: {err}") from err
        return angles, notes + tuple(f"{file.path.name}: {note}" for note in more)
    return None


def _difference(path: Path, angles: DoubleArray, other_path: Path, other: DoubleArray) -> Notes:
    if angles.size != other.size:
        return (f"{path.name} has {angles.size} angles, {other_path.name} {other.size}: {path.name} is used",)
    largest = math.degrees(float(np.abs(angles - other).max(initial=0.0)))
    if largest <= 0.01:
        return ()
    pair = f"{path.name} and {other_path.name}"
    return (f"angles of {pair} differ by up to {largest:.3g} deg: {path.name} is used",)


def read_dark_flat(files: DarkFlatFiles, *, options: RawOptions) -> tuple[DarkFlat, Notes]:
    """Darks and flats of a run, and what is odd about them; BadScan when they cannot be read."""
    flats, notes = open_frames(files.flats.path, files.flats.key, options=options)
    darks = None
    if files.mixed:
        darks, flats, more = split_dark_flat(flats)
        notes += more
    elif files.darks is not None:
        darks, more = open_frames(files.darks.path, files.darks.key, options=options)
        notes += more
    time_s, more = _set_time_s(files, options=options, used=flats.runs)
    return DarkFlat(darks, flats, time_s, files.origin), files.notes + notes + more


def _set_time_s(
    files: DarkFlatFiles, *, options: RawOptions, used: Sequence[Span] = ()
) -> tuple[float, Notes]:
    stamps = _stamps_s(files.flats.path, options=options)
    if stamps is not None:
        parts = [stamps[first:last] for first, last in used] or [stamps]
        wanted = np.concatenate(parts)
        return float((wanted if wanted.size else stamps).mean()), ()
    # a start time that the user gives is that of the scan, not that of the flats
    plain = RawOptions(folder=options.folder, follow_links_outside=options.follow_links_outside)
    time, notes = start_of(files.nexus, files.flats.path, options=plain)
    return time.timestamp(), notes


def _dark_flats(
    files: ScanFiles, taken: Taken, start: datetime, *, options: RawOptions
) -> tuple[tuple[DarkFlat, ...], Notes]:
    sets: tuple[DarkFlat, ...] = ()
    notes: Notes = ()
    if options.flats and options.darks:
        return sets, notes
    if files.own:
        read = [read_dark_flat(each, options=options) for each in files.own]
        sets = tuple(item for item, _ in read)
        notes = tuple(note for _, more in read for note in more)
    else:
        sets, notes = _nearest_sets(files, start, options=options)
    if taken.flats is None:
        return sets, notes
    flats = taken.flats
    like = [item for item in sets if item.darks is not None and item.darks.shape[1:] == flats.shape[1:]]
    if like:
        notes += (f"the darks are those of {like[0].origin}",)
    stamps = _stamps_s(flats.path, options=options)
    first, last = flats.runs[0][0], flats.runs[-1][1]
    inside = None if stamps is None or stamps.size < last else float(stamps[first:last].mean())
    origin = f"{flats.path.name}: frames {first} to {last - 1}"
    return (DarkFlat(like[0].darks if like else None, flats, inside, origin),), notes


def _nearest_sets(
    scan: ScanFiles, start: datetime, *, options: RawOptions
) -> tuple[tuple[DarkFlat, ...], Notes]:
    """The set of darks and flats before the start and the one after it; unreadable ones are left out."""
    notes: Notes = ()
    known: list[tuple[DarkFlatFiles, datetime]] = []

    def left_out(err: BadScan) -> Notes:
        return (f"darks and flats beside the scan left out: {err}",)

    options = replace(options, camera=options.camera or scan.camera or None)
    for path in scan.beside:
        try:
            files = _find_dark_flat(path, options=options)
            if files is not None:
                time_s, _ = _set_time_s(files, options=options)
                known.append((files, datetime.fromtimestamp(time_s, tz=UTC)))
        except BadScan as err:
            notes += left_out(err)
    while known:
        chosen = [known[i] for i in nearest_around([time for _, time in known], start)]
        read: list[tuple[DarkFlat, Notes]] = []
        for entry in chosen:
            try:
                read.append(read_dark_flat(entry[0], options=options))
            except BadScan as err:
                notes += left_out(err)
                known.remove(entry)
        if len(read) == len(chosen):
            return tuple(item for item, _ in read), notes + tuple(n for _, more in read for n in more)
    return (), notes


def _find_dark_flat(path: Path, *, options: RawOptions) -> DarkFlatFiles | None:
    """Darks and flats in whatever generation they are; None when the folder or file holds none."""
    for layout in layouts().values():
        find = getattr(layout, "find_dark_flat", None)
        if find is not None and layout.holds(path) == "dark_flat":
            found: DarkFlatFiles = find(path, options=options)
            return found
    return None


def siblings(path: Path) -> tuple[Path, ...]:
    """Folders beside a folder, or beside the folder of a file."""
    folder = path if path.is_dir() else path.parent
    try:
        return tuple(sorted(child for child in folder.parent.iterdir() if child.is_dir() and child != folder))
    except OSError:
        return ()


def children(folder: Path) -> list[Path]:
    """What a folder holds, hidden things left out, by name; nothing where it cannot be listed."""
    try:
        return sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    except (OSError, ValueError):
        return []
