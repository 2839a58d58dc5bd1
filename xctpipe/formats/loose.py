"""Scans put together by the recipe: raw.data, and the raw.flats, raw.darks and raw.angles of any layout.

A scan of loose files is a TIFF folder, glob or multi-page file, or a dataset of an HDF5 file. `{scan}` in the
names stands for the scan's name, so that one recipe holds for a series.
"""

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from xctpipe.errors import BadRecipe, BadScan
from xctpipe.formats.base import GIVE_ANGLES, Found, RawOptions, unknown_angles, warn
from xctpipe.formats.registry import open_dark_flats
from xctpipe.formats.sources import (
    Source,
    expand,
    matching,
    nothing_like,
    open_angles,
    open_source,
    split_key,
)
from xctpipe.formats.tiff_frames import tiff_time
from xctpipe.formats.units import file_time
from xctpipe.scan import DarkFlat, Problem, Scan

LOOSE = "loose"
"""What `Scan.layout` is called here; no folder is recognised as it by itself."""

SCAN = "{scan}"
_ROLE_FOLDERS = {"proj", "projs", "projections", "tomo", "data", "raw", "images", "tif", "tiff", "tiffs"}

Notes = tuple[str, ...]


def for_scan(options: RawOptions, name: str) -> RawOptions:
    """The options with `{scan}` replaced by the scan's name."""

    def names(given: Sequence[str]) -> tuple[str, ...]:
        return tuple(_filled(each, name) for each in given)

    angles = options.angles.replace(SCAN, name) if isinstance(options.angles, str) else options.angles
    return replace(
        options,
        data=names(options.data),
        flats=names(options.flats),
        darks=names(options.darks),
        angles=angles,
    )


def _filled(given: str, name: str) -> str:
    text, key = split_key(given)
    # a scan's name may hold what means something in a glob
    text = text.replace(SCAN, glob.escape(name))
    return f"{text}:{key.replace(SCAN, name)}" if key else text


def find_loose(folder: Path, *, options: RawOptions) -> list[Found]:
    """Scans that `options.data` names, by name, numbers counted as numbers; one where it has no `{scan}`.

    Raises
    ------
    BadRecipe
        When nothing fits; says what there is instead.
    """
    if not folder.exists():
        raise BadScan(f"{folder}: no such file or folder")
    check_names(folder, options=options)
    of_scans = [name for name in options.data if SCAN in split_key(name)[0]]
    if not of_scans:
        return [_found(_name_of(options.data[0], folder=folder), folder, options=options)]
    found = dict.fromkeys(_scans_named(of_scans[0], folder=folder))
    if not found:
        head = _head(split_key(of_scans[0])[0])
        where = nothing_like(folder / head.replace(SCAN, "*"))
        raise BadRecipe(f"raw.data = {of_scans[0]!r}: no scan fits; {where}")
    return [_found(name, folder, options=for_scan(options, name)) for name in found]


def _found(name: str, folder: Path, *, options: RawOptions) -> Found:
    try:
        first = expand(split_key(options.data[0])[0], role="data", folder=folder)[0]
        return Found(name, first, LOOSE, "projections", _start(first, options=options)[0])
    except BadScan as err:  # said again when the scan is opened, and the others go on
        return Found(name, folder, LOOSE, "projections", problem=str(err))


def check_names(folder: Path, *, options: RawOptions) -> None:
    """BadRecipe when a name that holds for every scan fits nothing."""
    named = [(role, name) for role in ("data", "flats", "darks") for name in getattr(options, role)]
    for role, name in named:
        if SCAN not in name:
            try:
                expand(split_key(name)[0], role=role, folder=folder)
            except BadScan as err:
                raise BadRecipe(str(err)) from err
    if isinstance(options.angles, str) and SCAN not in options.angles:
        path = folder / Path(split_key(options.angles)[0]).expanduser()
        if not path.is_file():
            raise BadRecipe(f"raw.angles = {options.angles!r}: {nothing_like(path)}")


def _head(text: str) -> str:
    """The part of a path up to the last one that holds the scan's name."""
    parts = Path(text).parts
    last = max(i for i, part in enumerate(parts) if SCAN in part)
    return str(Path(*parts[: last + 1]))


def _scans_named(given: str, *, folder: Path) -> Iterator[str]:
    text = str(Path(split_key(given)[0]).expanduser())
    head = str(folder / _head(text))
    pattern = re.compile(_as_regex(head))
    seen: set[str] = set()
    for path in matching(Path(head.replace(SCAN, "*"))):
        fit = pattern.fullmatch(path.as_posix())
        if fit is None or fit["scan"] in seen:
            continue
        seen.add(fit["scan"])
        try:
            expand(_filled(text, fit["scan"]), role="data", folder=folder)
        except BadScan:  # another folder or file beside the scans
            continue
        yield fit["scan"]


def _as_regex(head: str) -> str:
    """A glob as a regular expression; the scan's name is the longest that fits, and the same everywhere."""
    text, *others = re.split(r"(\{scan\}|\*\*|\*|\?|\[[^\]]+\])", head)
    regex = re.escape(text)
    for part in others:
        if part == SCAN:
            regex += "(?P=scan)" if "(?P<scan>" in regex else "(?P<scan>[^/]+)"
        elif part in {"*", "**", "?"}:
            regex += {"*": "[^/]*", "**": ".*", "?": "[^/]"}[part]
        else:
            regex += part.replace("[!", "[^") if part.startswith("[") else re.escape(part)
    return regex


def _name_of(given: str, *, folder: Path) -> str:
    """Name of the only scan: that of its file, or of its folder above a folder named by what it holds."""
    path = folder / split_key(given)[0]
    if path.is_file():
        return path.stem
    home = path if path.is_dir() else path.parent
    while re.search(r"[*?\[]", home.name) or (home.name.lower() in _ROLE_FOLDERS and home != folder):
        home = home.parent
    return home.name


def open_loose(path: Path, *, dark_flat: Sequence[Path] = (), options: RawOptions) -> Scan:
    """Describe the frames that `options.data` names; angles are not known yet.

    Parameters
    ----------
    path : the folder, or a file in the folder, that names are relative to unless `options.folder` is given.

    Raises
    ------
    BadScan
        When frames cannot be read.
    """
    source = open_source(options.data, role="data", folder=home_of(path, options=options), options=options)
    start, notes = _start(source.files[0], options=options)
    dark_flats = open_dark_flats(dark_flat, options=options)
    return Scan(
        name=path.stem if path.is_file() else path.name,
        layout=LOOSE,
        path=path,
        frames=source.frames,
        angles_rad=unknown_angles(source.frames.shape[0]),
        dark_flats=dark_flats,
        start_time=start,
        log_absorption=options.log_absorption,
        files=source.files,
        problems=warn(source.notes + notes),
    )


def home_of(path: Path, *, options: RawOptions) -> Path:
    """The folder that names are relative to."""
    return options.folder or (path if path.is_dir() else path.parent)


def _start(path: Path, *, options: RawOptions) -> tuple[datetime, Notes]:
    if options.start_time is not None:
        return options.start_time, ()
    time = tiff_time(path)
    return (time, ()) if time is not None else file_time(path)


def completed(scan: Scan, *, options: RawOptions) -> Scan:
    """The scan with the flats, darks and angles that the options name in place of its own.

    Raises
    ------
    BadScan
        When they cannot be read, or the angles do not fit the frames.
    """
    folder = home_of(scan.path, options=options)
    if options.flats or options.darks:
        scan = _with_dark_flats(scan, folder=folder, options=options)
    if options.angles is not None:
        n = scan.shape[0]
        angles, files, notes = open_angles(options.angles, n_frames=n, folder=folder, options=options)
        scan = _with(replace(scan, angles_rad=angles), files, notes)
    return scan


def has_angles(scan: Scan) -> bool:
    """Whether the angles of a scan are known."""
    return not bool(np.all(np.isnan(scan.angles_rad)))


NO_ANGLES = Problem("error", f"no angles: {GIVE_ANGLES}")


def _with(scan: Scan, files: Sequence[Path], notes: Sequence[str]) -> Scan:
    return replace(
        scan, files=tuple(dict.fromkeys((*scan.files, *files))), problems=(*scan.problems, *warn(notes))
    )


def _with_dark_flats(scan: Scan, *, folder: Path, options: RawOptions) -> Scan:
    flats = [open_source([n], role="flats", folder=folder, options=options) for n in options.flats]
    darks = [open_source([n], role="darks", folder=folder, options=options) for n in options.darks]
    for source in (*flats, *darks):
        scan = _with(scan, source.files, source.notes)
    sets = [_flat_set(source, name) for source, name in zip(flats, options.flats, strict=True)]
    if not sets:
        sets = list(scan.dark_flats)
    if not darks:
        own = next((pair.darks for pair in scan.dark_flats if pair.darks is not None), None)
        sets = [replace(pair, darks=pair.darks or own) for pair in sets]
    elif len(darks) == len(sets):
        sets = [replace(pair, darks=dark.frames) for pair, dark in zip(sets, darks, strict=True)]
    else:
        every = open_source(options.darks, role="darks", folder=folder, options=options).frames
        sets = [replace(pair, darks=every) for pair in sets]
    return replace(scan, dark_flats=tuple(sets))


def _flat_set(source: Source, name: str) -> DarkFlat:
    time = tiff_time(source.files[0])
    return DarkFlat(None, source.frames, None if time is None else time.timestamp(), name)
