"""Raw layouts: one module each, found by scanning this folder; all give the same frozen `Scan`.

To add a layout, add a module that defines what `xctpipe.formats.base.Layout` lists. Units are converted
here and nowhere else: angles in radians, lengths in um, energies in keV, times timezone-aware.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from xctpipe.errors import BadScan
from xctpipe.formats.base import (
    NO_OPTIONS,
    AngleUnit,
    Found,
    Holds,
    Layout,
    RawOptions,
    unknown_angles,
    warn,
)
from xctpipe.formats.checks import checked
from xctpipe.formats.describe import describe
from xctpipe.formats.listing import find_scans, nearest_dark_flats, only_scan
from xctpipe.formats.loose import (
    NO_ANGLES,
    check_names,
    completed,
    find_loose,
    for_scan,
    has_angles,
    open_loose,
)
from xctpipe.formats.registry import layout_named, layout_of, layouts
from xctpipe.formats.sources import leaves
from xctpipe.formats.tiff_frames import TiffFrames
from xctpipe.scan import Frames, Problem, Scan

__all__ = [
    "AngleUnit",
    "Found",
    "Holds",
    "Layout",
    "RawOptions",
    "check_names",
    "describe",
    "find_loose",
    "find_scans",
    "for_scan",
    "layouts",
    "nearest_dark_flats",
    "open_scan",
    "tiff_stacks",
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
    options : with `data`, it names the frames and no layout is looked for; `flats`, `darks` and `angles`
        replace those of any layout.
    look_at_frames : read a few frames of each kind to find saturated, empty or swapped ones.

    Returns
    -------
    Scan, with `problems` of level error where it cannot be reconstructed as it is.

    Raises
    ------
    BadScan
        When no layout fits, or frames or angles cannot be read; the message names the cause.
    """
    if options.data:
        scan = open_loose(path, dark_flat=dark_flat, options=options)
    else:
        path = only_scan(path)
        layout = layout_of(path)
        if layout.holds(path) == "dark_flat":
            raise BadScan(
                f"{path}: holds darks and flats only, no projections; name it in raw.dark_flat instead"
            )
        scan = layout.open_scan(path, dark_flat=dark_flat, options=options)
    scan = replace(scan, problems=(*scan.problems, *_unheeded(scan.layout, options)))
    scan = completed(scan, options=options)
    if has_angles(scan):
        return checked(scan, look_at_frames=look_at_frames)
    # everything but the angles can be looked at
    even = np.linspace(0, np.pi, scan.shape[0])
    scan = checked(replace(scan, angles_rad=even), look_at_frames=look_at_frames)
    return replace(scan, angles_rad=unknown_angles(scan.shape[0]), problems=(*scan.problems, NO_ANGLES))


def _unheeded(layout: str, options: RawOptions) -> tuple[Problem, ...]:
    """What the user says and this layout has no use for."""
    takes = getattr(layouts().get(layout), "TAKES", ())
    said = {"batch": options.batch, "camera": options.camera}
    return warn(
        f"raw.{key} = {value!r} is not used: a scan in the layout {layout} has one {key}; leave it out"
        for key, value in said.items()
        if value is not None and key not in takes
    )


def write_scan(path: Path, scan: Scan, *, layout: str) -> Path:
    """Write a scan in the named layout, a block of frames at a time; returns what `open_scan` takes.

    What the layout has no place for (energy and pixel size in HEX generation 1) is left out. BadScan
    when the target exists or the layout is not known.
    """
    return layout_named(layout).write_scan(path, scan)


def tiff_stacks(frames: Frames) -> list[TiffFrames]:
    """The stacks of TIFF files behind frames, however they are joined or cropped."""
    return [leaf for leaf in leaves(frames) if isinstance(leaf, TiffFrames)]
