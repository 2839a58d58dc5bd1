"""The scans a recipe means, opened and cropped, in the order the recipe gives, else by name."""

import fnmatch
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from xctpipe import formats
from xctpipe.errors import BadRecipe, BadScan, nearest
from xctpipe.formats import Found, RawOptions
from xctpipe.recipe import Raw
from xctpipe.scan import CroppedFrames, DarkFlat, Frames, Scan, Span


def find(raw: Raw) -> list[Found]:
    """The scans with projections that `raw.scans` names, all of them when it is absent."""
    found = formats.find_scans(raw.folder)
    scans = [each for each in found if each.holds == "projections"]
    if not scans:
        raise BadRecipe(_nothing(raw.folder, found))
    if raw.scans is not None:
        scans = [each for pattern in raw.scans for each in _matching(pattern, scans, key="raw.scans")]
    scans = list({each.path: each for each in scans}.values())
    twice = sorted({each.name for each in scans if sum(other.name == each.name for other in scans) > 1})
    if twice:
        raise BadRecipe(f"raw: several scans are named {', '.join(twice)}; move one to another folder")
    if raw.start_times is not None and len(raw.start_times) != len(scans):
        raise BadRecipe(
            f"raw.start_times has {len(raw.start_times)} times for {len(scans)} scans; give one for each"
        )
    return scans


def _nothing(folder: Path, found: Sequence[Found]) -> str:
    reasons = "; ".join(f"{each.name}: {each.problem}" for each in found if each.problem)
    return f"raw.folder = {folder}: no scan in it holds projections" + (f" ({reasons})" if reasons else "")


def _matching(pattern: str, scans: Sequence[Found], *, key: str) -> list[Found]:
    chosen = [each for each in scans if each.name == pattern or fnmatch.fnmatchcase(each.name, pattern)]
    if not chosen:
        raise BadRecipe(f"{key}: nothing is named {pattern!r}; {nearest(pattern, [s.name for s in scans])}")
    return chosen


def open_one(raw: Raw, each: Found, *, index: int = 0, look_at_frames: bool = True) -> Scan:
    """Open and crop a scan; BadScan when it cannot be reconstructed. It may be told to read no frame."""
    options = RawOptions(
        log_absorption=raw.log_absorption,
        angle_unit=raw.angle_unit,
        follow_links_outside=raw.follow_links_outside,
        folder=raw.folder if raw.folder.is_dir() else raw.folder.parent,
        start_time=raw.start_times[index] if raw.start_times else None,
    )
    dark_flat = _dark_flat_paths(raw, each, start_time=options.start_time)
    scan = formats.open_scan(each.path, dark_flat=dark_flat, options=options, look_at_frames=look_at_frames)
    if scan.errors:
        raise BadScan(f"{each.path}: {'; '.join(scan.errors)}")
    scan = replace(
        scan, pixel_um=raw.pixel_um, energy_kev=raw.energy_kev, exposure_s=raw.exposure_s or scan.exposure_s
    )
    return crop(scan, rows=raw.rows, columns=raw.columns)


def _dark_flat_paths(raw: Raw, each: Found, *, start_time: datetime | None) -> tuple[Path, ...]:
    """The darks and flats named in the recipe that are nearest in time to this scan."""
    if raw.dark_flat is None:
        return ()
    around = raw.folder.parent if each.path == raw.folder else raw.folder
    candidates = [other for other in formats.find_scans(around) if other.holds == "dark_flat"]
    named = [other for pattern in raw.dark_flat for other in _named(pattern, candidates, folder=around)]
    when = start_time or each.start_time
    nearest_ones = formats.nearest_dark_flats(named, when) if when and len(named) > 1 else named
    return tuple(dict.fromkeys(other.path for other in nearest_ones))


def _named(pattern: str, candidates: Sequence[Found], *, folder: Path) -> list[Found]:
    beside = folder / pattern
    if beside.exists() and not any(other.path == beside for other in candidates):
        return formats.find_scans(beside)
    return _matching(pattern, candidates, key="raw.dark_flat")


def crop(scan: Scan, *, rows: Span | None, columns: Span | None) -> Scan:
    """The scan seen through a window of the detector; BadRecipe when it does not lie inside."""
    _, height, width = scan.shape
    rows, columns = rows or (0, height), columns or (0, width)
    for key, span, size in (("raw.rows", rows, height), ("raw.columns", columns, width)):
        if span[1] > size:
            raise BadRecipe(f"{key} = {list(span)}: {scan.name} has {size}; the end must not exceed that")
    if columns[1] - columns[0] < 3:
        raise BadRecipe(f"raw.columns = {list(columns)}: at least 3 columns are needed")
    if (rows, columns) == ((0, height), (0, width)):
        return scan

    def window(frames: Frames) -> Frames:
        return CroppedFrames(frames, rows, columns)

    def both(pair: DarkFlat) -> DarkFlat:
        return replace(pair, darks=pair.darks and window(pair.darks), flats=window(pair.flats))

    return replace(scan, frames=window(scan.frames), dark_flats=tuple(both(p) for p in scan.dark_flats))


def fingerprint(scan: Scan) -> dict[str, Any]:
    """What tells that the input is the same: its files with size and time of change, its darks and flats."""
    return {
        "files": [
            ["/".join(path.parts[-2:]), (stat := path.stat()).st_size, stat.st_mtime_ns]
            for path in scan.files
        ],
        "shape": list(scan.shape),
        "times": [str(scan.start_time), scan.exposure_s],
        "dark_flats": [[pair.origin, pair.time_s] for pair in scan.dark_flats],
    }
