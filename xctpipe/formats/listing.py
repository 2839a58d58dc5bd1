"""What a folder of raw data holds, scan by scan."""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from xctpipe.errors import BadScan
from xctpipe.formats.base import Found, Layout
from xctpipe.formats.hdf5 import SUFFIXES, check_file, open_hdf
from xctpipe.formats.registry import layout_of, layouts, why_not_understood
from xctpipe.formats.units import nearest_around
from xctpipe.scan import Scan


def find_scans(folder: Path) -> list[Found]:
    """Scans in a folder of scans, a scan's folder, or one file; by name, numbers counted as numbers.

    A file that should be readable but is not is listed with its problem and holds nothing.

    Raises
    ------
    BadScan
        When nothing readable is found; says what was looked for, and what is wrong with what is there.
    """
    try:
        is_folder = folder.is_dir()
    except OSError as err:
        raise BadScan(f"{folder}: cannot be read: {err.strerror}") from err
    if not is_folder:
        return [_found(folder, layout_of(folder))]
    for layout in layouts().values():
        if layout.understands(folder):
            return [_found(folder, layout)]
    found = _in_folder(folder)
    if any(item.holds for item in found):
        return found
    for layout in layouts().values():
        deeper = _deeper(folder, layout)
        if deeper:
            return deeper
    raise BadScan(_nothing_found(folder, found))


def only_scan(path: Path) -> Path:
    """The scan that a folder holds, or the path itself where it is a scan; BadScan when there are several."""
    try:
        if not path.is_dir():
            return path
    except OSError as err:
        raise BadScan(f"{path}: cannot be read: {err.strerror}") from err
    held = [item for item in find_scans(path) if item.holds == "projections"]
    if len(held) == 1:
        return held[0].path
    if not held or path in {item.path for item in held}:
        return path
    listed = ", ".join(item.name for item in held[:8]) + (", ..." if len(held) > 8 else "")
    raise BadScan(f"{path}: holds {len(held)} scans, give one of them: {listed}")


def _in_folder(folder: Path) -> list[Found]:
    known = layouts().values()
    found: list[Found] = []
    for child in _children(folder):
        layout = next((layout for layout in known if layout.understands(child)), None)
        if layout is not None:
            found.append(_found(child, layout))
        elif child.suffix.lower() in SUFFIXES and child.is_file():
            problem = _problem(child)
            if problem:
                found.append(Found(child.stem, child, "", None, problem=problem))
    return found


def _deeper(folder: Path, layout: Layout) -> list[Found]:
    """Scans of a layout that spreads them over a tree, where it knows how to look through one."""
    scans_in = getattr(layout, "scans_in", None)
    paths: list[Path] = scans_in(folder) if scans_in else []
    return [_found(path, layout) for path in sorted(paths, key=lambda path: _natural(path.name))]


def _children(folder: Path) -> list[Path]:
    try:
        children = [child for child in folder.iterdir() if not child.name.startswith(".")]
    except OSError as err:
        raise BadScan(f"{folder}: the folder cannot be listed: {err.strerror}") from err
    return sorted(children, key=lambda child: _natural(child.name))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _found(path: Path, layout: Layout) -> Found:
    # a single file of a scan's folder stands for the scan
    name = path.stem if path.is_file() else path.name
    try:
        return Found(name, path, layout.NAME, layout.holds(path), layout.start_time(path))
    except BadScan as err:
        return Found(name, path, layout.NAME, layout.holds(path), problem=str(err))


def _problem(path: Path) -> str:
    try:
        check_file(path)
        with open_hdf(path):
            return ""
    except BadScan as err:
        return str(err)


def _nothing_found(folder: Path, found: Sequence[Found]) -> str:
    text = why_not_understood(folder)
    deeper = [
        child for child in _children(folder) if child.is_dir() and any(i.holds for i in _in_folder(child))
    ]
    if deeper:
        return f"{text}; scans are in {', '.join(str(child) for child in deeper[:4])}: give that folder"
    if found:  # said first: what is wrong with the files counts more than the list of layouts
        return f"{folder}: no scan can be read: " + " | ".join(item.problem for item in found[:8])
    return text


def nearest_dark_flats(found: Sequence[Found], scan: Scan | datetime | None) -> list[Found]:
    """Darks and flats among `found` nearest in time to a scan: one before and one after where both exist."""
    when = scan.start_time if isinstance(scan, Scan) else scan
    held = [item for item in found if item.holds == "dark_flat"]
    return [held[i] for i in nearest_around([item.start_time for item in held], when)]
