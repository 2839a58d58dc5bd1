"""The scans a recipe means, opened and cropped, in the order the recipe gives, else by name."""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from xctpipe import formats
from xctpipe.errors import BadRecipe, BadScan, nearest
from xctpipe.formats import Found, RawOptions
from xctpipe.formats.links import there
from xctpipe.scan import BinnedFrames, CroppedFrames, DarkFlat, Frames, Scan, Span
from xctpipe.settings import Raw


def find(raw: Raw) -> list[Found]:
    """The scans with projections that `raw.scans` names, all of them when it is absent."""
    options = _options(raw)
    if not there(raw.folder):
        raise BadRecipe(f"raw.folder = {raw.folder}: no such file or folder; is its disk mounted?")
    if raw.data is None:
        formats.check_names(_home(raw), options=options)
        found = formats.find_scans(raw.folder)
    else:
        found = formats.find_loose(_home(raw), options=options)
    scans = [each for each in found if each.holds == "projections"]
    if not scans:
        raise BadRecipe(_nothing(raw.folder, found))
    if raw.scans is not None:
        scans = [each for pattern in raw.scans for each in _matching(pattern, scans, key="raw.scans")]
    scans = list({(each.name, each.path): each for each in scans}.values())
    twice = sorted({each.name for each in scans if sum(other.name == each.name for other in scans) > 1})
    if twice:
        raise BadRecipe(f"raw: several scans are named {', '.join(twice)}; move one to another folder")
    if raw.start_times is not None and len(raw.start_times) != len(scans):
        raise BadRecipe(
            f"raw.start_times has {len(raw.start_times)} times for {len(scans)} scans; give one for each"
        )
    return _with_dark_flats(raw, scans, found)


def _home(raw: Raw) -> Path:
    """The folder that names in the recipe are relative to."""
    return raw.folder.parent if raw.folder.is_file() else raw.folder


def _nothing(folder: Path, found: Sequence[Found]) -> str:
    reasons = "; ".join(f"{each.name}: {each.problem}" for each in found if each.problem)
    return f"raw.folder = {folder}: no scan in it holds projections" + (f" ({reasons})" if reasons else "")


def _matching(pattern: str, scans: Sequence[Found], *, key: str) -> list[Found]:
    chosen = [each for each in scans if each.name == pattern or fnmatch.fnmatchcase(each.name, pattern)]
    if not chosen:
        raise BadRecipe(f"{key}: nothing is named {pattern!r}; {nearest(pattern, [s.name for s in scans])}")
    return chosen


def open_one(raw: Raw, each: Found, *, index: int = 0, look_at_frames: bool = True) -> Scan:
    """Open and crop a scan of `find`; BadScan when it cannot be reconstructed. It may read no frame."""
    options = replace(
        formats.for_scan(_options(raw), each.name),
        start_time=raw.start_times[index] if raw.start_times else None,
    )
    scan = formats.open_scan(
        each.path, dark_flat=each.dark_flat, options=options, look_at_frames=look_at_frames
    )
    if scan.errors:
        raise BadScan(f"{each.path}: {'; '.join(scan.errors)}")
    scan = replace(
        scan,
        name=each.name,
        pixel_um=raw.pixel_um,
        energy_kev=raw.energy_kev,
        exposure_s=raw.exposure_s or scan.exposure_s,
    )
    return binned(crop(scan, **_whole_squares(raw)), bin_px=raw.bin_px)


def _options(raw: Raw) -> RawOptions:
    return RawOptions(
        log_absorption=raw.log_absorption,
        angle_unit=raw.angle_unit,
        follow_links_outside=raw.follow_links_outside,
        folder=_home(raw),
        data=raw.data or (),
        flats=raw.flats or (),
        darks=raw.darks or (),
        angles=raw.angles,
        camera=raw.camera,
        batch=raw.batch,
    )


def _with_dark_flats(raw: Raw, scans: Sequence[Found], found: Sequence[Found]) -> list[Found]:
    """The scans, each with the darks and flats named in the recipe that are nearest in time to it."""
    if raw.dark_flat is None:
        return list(scans)
    around = raw.folder
    if raw.data is not None or [each.path for each in found] == [raw.folder]:
        around = raw.folder if raw.data is not None else raw.folder.parent
        found = _found_in(around)
    candidates = [other for other in found if other.holds == "dark_flat"]
    named = [other for pattern in raw.dark_flat for other in _named(pattern, candidates, folder=around)]
    times = raw.start_times or [each.start_time for each in scans]
    return [replace(each, dark_flat=_nearest(named, when)) for each, when in zip(scans, times, strict=True)]


def _found_in(folder: Path) -> list[Found]:
    """What a folder holds; nothing where no layout fits: the darks and flats may be elsewhere."""
    try:
        return formats.find_scans(folder)
    except BadScan:
        return []


def _nearest(named: Sequence[Found], when: datetime | None) -> tuple[Path, ...]:
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

    return _seen_through(lambda frames: CroppedFrames(frames, rows, columns), scan)


def _whole_squares(raw: Raw) -> dict[str, Span | None]:
    """The crops, beginning where a square of binned pixels begins."""

    def down(span: Span | None) -> Span | None:
        return span and (span[0] // raw.bin_px * raw.bin_px, span[1])

    return {"rows": down(raw.rows), "columns": down(raw.columns)}


def binned(scan: Scan, *, bin_px: int) -> Scan:
    """The scan with squares of pixels averaged; BadRecipe when too few are left."""
    if bin_px == 1:
        return scan
    _, height, width = scan.shape
    if height < bin_px or width < 3 * bin_px:
        raise BadRecipe(
            f"raw.bin_px = {bin_px}: {scan.name} has {height} x {width} pixels; "
            "a row and 3 columns must be left"
        )
    some = _seen_through(lambda frames: BinnedFrames(frames, bin_px), scan)
    return replace(some, pixel_um=scan.pixel_um and scan.pixel_um * bin_px)


def _seen_through(glass: Callable[[Frames], Frames], scan: Scan) -> Scan:
    def both(pair: DarkFlat) -> DarkFlat:
        return replace(pair, darks=pair.darks and glass(pair.darks), flats=glass(pair.flats))

    return replace(scan, frames=glass(scan.frames), dark_flats=tuple(both(p) for p in scan.dark_flats))


def fingerprint(scan: Scan) -> dict[str, Any]:
    """What tells that the input is the same: its files with size and time of change, its darks and flats."""
    parts = [part for pair in scan.dark_flats for part in (pair.darks, pair.flats) if part is not None]
    stacks = [stack for frames in (scan.frames, *parts) for stack in formats.tiff_stacks(frames)]
    return {
        "files": [
            ["/".join(path.parts[-2:]), (stat := path.stat()).st_size, stat.st_mtime_ns]
            for path in scan.files
        ],
        "shape": list(scan.shape),
        "times": [str(scan.start_time), scan.exposure_s],
        "dark_flats": [[pair.origin, pair.time_s] for pair in scan.dark_flats],
        # thousands of files are told by their number, names at the ends, size in all and latest change
        "stacks": [_fingerprint_of(list(stack.paths)) for stack in dict.fromkeys(stacks)],
    }


def _fingerprint_of(paths: Sequence[Path]) -> list[Any]:
    stats = [path.stat() for path in paths]
    ends = ["/".join(path.parts[-2:]) for path in (paths[0], paths[-1])]
    return [*ends, len(paths), sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)]
