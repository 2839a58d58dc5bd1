"""Raw layouts: one module each, found by scanning this folder; all give the same frozen `Scan`.

To add a layout, add a module that defines what `xctpipe.formats.base.Layout` lists. Units are converted
here and nowhere else: angles in radians, lengths in um, energies in keV, times timezone-aware.
"""

from collections.abc import Sequence
from pathlib import Path

from xctpipe.errors import BadScan
from xctpipe.formats.base import NO_OPTIONS, AngleUnit, Found, Holds, Layout, RawOptions
from xctpipe.formats.checks import checked
from xctpipe.formats.describe import describe
from xctpipe.formats.listing import find_scans, nearest_dark_flats, only_scan
from xctpipe.formats.registry import layout_named, layout_of, layouts
from xctpipe.scan import Scan

__all__ = [
    "AngleUnit",
    "Found",
    "Holds",
    "Layout",
    "RawOptions",
    "describe",
    "find_scans",
    "layouts",
    "nearest_dark_flats",
    "open_scan",
    "write_scan",
]


def open_scan(
    path: Path,
    *,
    dark_flat: Sequence[Path] = (),
    options: RawOptions = NO_OPTIONS,
    look_at_frames: bool = True,
) -> Scan:
    """Open a scan folder or file in whatever layout it is.

    Parameters
    ----------
    path : a scan's folder or file, or a folder that holds one scan with projections.
    dark_flat : scans that hold the darks and flats, in any layout; absent: those inside or beside the scan.
    look_at_frames : read a few frames of each kind to find saturated, empty or swapped ones.

    Returns
    -------
    Scan, with `problems` of level error where it cannot be reconstructed as it is.

    Raises
    ------
    BadScan
        When no layout fits, or frames or angles cannot be read; the message names the cause.
    """
    path = only_scan(path)
    layout = layout_of(path)
    if layout.holds(path) == "dark_flat":
        raise BadScan(f"{path}: holds darks and flats only, no projections; name it in raw.dark_flat instead")
    scan = layout.open_scan(path, dark_flat=dark_flat, options=options)
    return checked(scan, look_at_frames=look_at_frames)


def write_scan(path: Path, scan: Scan, *, layout: str) -> Path:
    """Write a scan in the named layout, a block of frames at a time; returns what `open_scan` takes.

    What the layout has no place for (energy and pixel size in HEX generation 1) is left out. BadScan
    when the target exists or the layout is not known.
    """
    return layout_named(layout).write_scan(path, scan)
