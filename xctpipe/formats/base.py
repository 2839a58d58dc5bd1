"""What the layouts share: what the user may say about raw data, and what a folder was found to hold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from xctpipe.scan import DarkFlat, DoubleArray, Problem, Scan

AngleUnit = Literal["deg", "rad"]
Holds = Literal["projections", "dark_flat"]


@dataclass(frozen=True)
class RawOptions:
    """What the user says about raw files that the files do not say themselves, or say wrongly.

    `folder` bounds the HDF5 external links that are followed (absent: the folder of the file that holds
    the link); `follow_links_outside` lifts the bound. `start_time` must be timezone-aware. `camera` tells
    which camera is meant where a file holds several, `batch` which of several batches in one file, from 1.

    `data`, `flats` and `darks` are files, folders, globs or "file.h5:/key", relative to `folder` (absent:
    that of the scan); `angles` is a text, .csv or .npy file, "file.h5:/key", or the angles of the first and
    the last frame in `angle_unit` (absent: degrees). What they say replaces what the scan says itself.
    """

    log_absorption: bool = False
    angle_unit: AngleUnit | None = None
    follow_links_outside: bool = False
    folder: Path | None = None
    start_time: datetime | None = None
    data: tuple[str, ...] = ()
    flats: tuple[str, ...] = ()
    darks: tuple[str, ...] = ()
    angles: str | tuple[float, float] | None = None
    camera: str | None = None
    batch: int | None = None


NO_OPTIONS = RawOptions()
"""The files say everything."""


@dataclass(frozen=True)
class Found:
    """A scan found in a folder; `holds` is None and `problem` says why when it cannot be read.

    `dark_flat` are the scans of darks and flats that a recipe names for it.
    """

    name: str
    path: Path
    layout: str
    holds: Holds | None
    start_time: datetime | None = None
    problem: str = ""
    dark_flat: tuple[Path, ...] = ()


class Layout(Protocol):
    """What a module of this package defines to add a raw layout.

    It may define `scans_in(folder) -> list[Path]` too, where scans lie deeper in a tree, and in TAKES which
    of `batch` and `camera` it heeds.
    """

    NAME: str
    TITLE: str

    def understands(self, path: Path) -> bool:
        """Whether the scan folder or file is in this layout; cheap, never raises."""

    def holds(self, path: Path) -> Holds | None:
        """Whether it is a scan of the sample or one of darks and flats alone."""

    def start_time(self, path: Path) -> datetime | None:
        """When it was taken, as far as the files say."""

    def open_scan(self, path: Path, *, dark_flat: Sequence[Path] = (), options: RawOptions) -> Scan:
        """Describe the scan; BadScan when it cannot be read."""

    def open_dark_flat(self, path: Path, *, options: RawOptions) -> tuple[DarkFlat, ...]:
        """Darks and flats that the scan folder or file holds."""

    def write_scan(self, path: Path, scan: Scan) -> Path:
        """Write the scan in this layout; returns what `open_scan` takes."""


GIVE_ANGLES = (
    'give raw.angles = "angles.txt" (one a line), "file.h5:/key", or [angle of the first frame, angle of the '
    "last], e.g. [0, 180]"
)
"""What to do where no angles are found."""


def warn(texts: Iterable[str]) -> tuple[Problem, ...]:
    """Warnings from their texts."""
    return tuple(Problem("warning", text) for text in texts)


def unknown_angles(n_frames: int) -> DoubleArray:
    """What a layout gives for the angles of frames where it finds none: the user may know them."""
    return np.full(n_frames, np.nan)
