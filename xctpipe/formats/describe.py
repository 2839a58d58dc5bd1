"""A raw scan in words."""

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from xctpipe.formats.angles import range_text
from xctpipe.formats.registry import layouts
from xctpipe.scan import DarkFlat, Frames, Scan


def describe(scan: Scan) -> str:
    """What was found in a scan, a line each: layout, frames, angles, flats, darks, times, every problem."""
    return "\n".join(_lines(scan))


def _lines(scan: Scan) -> Iterator[str]:
    known = layouts()
    yield f"scan      {scan.name}: {known[scan.layout].TITLE if scan.layout in known else scan.layout}"
    yield f"path      {scan.path}"
    yield f"frames    {_frames_text(scan.frames)}"
    known_angles = bool(np.any(np.isfinite(scan.angles_rad)))
    yield f"angles    {range_text(scan.angles_rad) if known_angles else 'unknown'}"
    yield from (f"flats     {_dark_flat_text(item, scan)}" for item in scan.dark_flats)
    if not scan.dark_flats:
        yield "flats     none"
    start = "unknown" if scan.start_time is None else scan.start_time.isoformat(timespec="seconds")
    yield f"start     {start}"
    yield f"energy    {_value(scan.energy_kev, 'keV')}"
    yield f"pixel     {_value(scan.pixel_um, 'um')}"
    yield f"exposure  {_value(scan.exposure_s, 's')}"
    if scan.log_absorption:
        yield "values    absorption: the logarithm has been taken"
    yield f"files     {', '.join(str(path) for path in scan.files)}"
    yield from (f"{problem.level.upper():9} {problem.text}" for problem in scan.problems)


def _frames_text(frames: Frames) -> str:
    n, rows, cols = frames.shape
    size_gb = n * rows * cols * np.dtype(frames.dtype).itemsize / 1e9
    text = f"{n} of {rows} rows x {cols} columns, {frames.dtype}, {size_gb:.3g} GB"
    packed = ", compressed: a few rows cost whole frames" if getattr(frames, "whole_frames", False) else ""
    return text + packed


def _dark_flat_text(item: DarkFlat, scan: Scan) -> str:
    darks = "no darks" if item.darks is None else f"{item.darks.shape[0]} darks"
    text = f"{item.flats.shape[0]} flats, {darks}"
    if item.origin:
        text += f" from {item.origin}"
    if item.time_s is None:
        return text
    text += f", at {datetime.fromtimestamp(item.time_s, tz=UTC).isoformat(timespec='seconds')}"
    if scan.start_time is None:
        return text
    after_s = item.time_s - scan.start_time.timestamp()
    return f"{text} ({abs(after_s):.0f} s {'after' if after_s > 0 else 'before'} the start)"


def _value(value: float | None, unit: str) -> str:
    return "not in the file" if value is None else f"{value:g} {unit}"
