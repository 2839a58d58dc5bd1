"""HEX (27-ID, NSLS-II) generation 0 (early 2024): a NeXus file beside the files of detector and PandA.

`{plan}_{number}_{date}.nxs` links `entry/data/data` to the detector's file and `entry/data/rotation_angle` to
`CALC2.OUT.Value` of the PandA's: degrees where a scale was set, else encoder counts. Darks and flats are a
run of their own, whose NeXus file links `entry/data/dark` and `entry/data/flat`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import h5py

from xctpipe.errors import BadScan
from xctpipe.formats.angles import COUNTS_KEY
from xctpipe.formats.base import NO_OPTIONS, Holds, RawOptions
from xctpipe.formats.hexfiles import (
    DATA,
    HDF_SUFFIXES,
    DarkFlatFiles,
    children,
    read_dark_flat,
    read_scan,
    siblings,
    start_of,
)
from xctpipe.formats.hexlinks import (
    Links,
    bounded,
    follow_link,
    linked_dark_flat,
    linked_scan,
    links_of,
    nexus_in,
)
from xctpipe.formats.hexwrite import (
    free_name,
    made_up_uuid,
    new_folder,
    time_of,
    write_angles,
    write_projections,
    write_stack,
)
from xctpipe.scan import DarkFlat, Scan

NAME = "hex0"
TITLE = f"HEX generation 0 (*.nxs with links to frames and to {COUNTS_KEY})"
TAKES = ("batch", "camera")
_MOST_NEXUS = 5


def understands(path: Path) -> bool:
    """Whether it is a NeXus file with such links, or a folder (or a detector's file) with one of them."""
    return holds(path) is not None


def holds(path: Path) -> Holds | None:
    """Projections, judged by the links; darks and flats look like those of generation 2."""
    return None if _links(path) is None else "projections"


def _links(path: Path) -> Links | None:
    """The NeXus file that a path stands for."""
    try:
        if path.suffix.lower() == ".nxs":
            links = links_of(path)
            return links if links is not None and _is_ours(links) else None
        if not path.is_dir() and path.suffix.lower() not in HDF_SUFFIXES:
            return None
        folder = path if path.is_dir() else path.parent
        # not all of a folder of many files is opened for each of them
        if path != folder and len(list(islice(folder.glob("*.nxs"), _MOST_NEXUS + 1))) > _MOST_NEXUS:
            return None
        found = [links for links in nexus_in(folder) if _is_ours(links)]
        if len(found) != 1:
            return None
        return found[0] if path == folder or path in _linked_files(found[0]) else None
    except (OSError, ValueError):
        return None


def _is_ours(links: Links) -> bool:
    return bool(links.projections) and (links.angle or "").rsplit("/", 1)[-1] == COUNTS_KEY


def _linked_files(links: Links) -> list[Path]:
    try:
        places = [follow_link(links.path, key, options=NO_OPTIONS) for key in links.projections.values()]
    except BadScan:
        return []
    return [place.path for place in places]


def _known(path: Path) -> Links:
    links = _links(path)
    if links is None:
        raise BadScan(f"{path}: no {TITLE}")
    return links


def start_time(path: Path) -> datetime | None:
    """Start of the scan: the NeXus file, else the first frame's time stamp, else the file's time."""
    links = _known(path)
    data = follow_link(links.path, next(iter(links.projections.values())), options=NO_OPTIONS)
    return start_of((links.path,), data.path, options=bounded(links.path, options=NO_OPTIONS))[0]


def open_scan(path: Path, *, dark_flat: Sequence[Path] = (), options: RawOptions) -> Scan:
    """Describe a scan; BadScan when frames or angles cannot be read.

    Parameters
    ----------
    path : the NeXus file, or a folder with only this one and its files.
    dark_flat : runs of darks and flats; absent: the nearest in time in its folder or those beside it.
    """
    links = _known(path)
    folder = links.path.parent
    beside = [child for child in children(folder) if child.suffix.lower() == ".nxs" and child != links.path]
    files = linked_scan(links, options=options, beside=(*beside, *siblings(folder)))
    bound = bounded(links.path, options=options)
    return read_scan(files, layout=NAME, path=path, dark_flat=dark_flat, options=bound)


def open_dark_flat(path: Path, *, options: RawOptions) -> tuple[DarkFlat, ...]:
    """Darks and flats that the NeXus file links to beside projections; BadScan when there are none."""
    return (read_dark_flat(find_dark_flat(path, options=options), options=options)[0],)


def find_dark_flat(path: Path, *, options: RawOptions) -> DarkFlatFiles:
    """Files of the darks and flats that the NeXus file links to."""
    return linked_dark_flat(_known(path), options=options)


def write_scan(path: Path, scan: Scan) -> Path:
    """Write the folder of a scan, and one folder beside it for each set of darks and flats; returns `path`.

    Energy, pixel size and exposure have no place in this layout. BadScan when a folder exists already.
    """
    new_folder(path)
    frames, panda = (path / f"{made_up_uuid(path.name, role)}.h5" for role in ("projections", "angles"))
    write_projections(frames, scan)
    write_angles(panda, scan, key=COUNTS_KEY)
    time_s = None if scan.start_time is None else scan.start_time.timestamp()
    with h5py.File(path / _name("tomo_flyscan", path, time_s=time_s), "w") as file:
        file[DATA] = h5py.ExternalLink(frames.name, f"/{DATA}")
        file["entry/data/rotation_angle"] = h5py.ExternalLink(panda.name, f"/{COUNTS_KEY}")
        if scan.start_time is not None:
            file["entry/start_time"] = scan.start_time.isoformat()
    for item in scan.dark_flats:
        _write_dark_flat(free_name(path), item, time_s=time_of(item, scan))
    return path


def _write_dark_flat(path: Path, item: DarkFlat, *, time_s: float | None) -> None:
    new_folder(path)
    with h5py.File(path / _name("tomo_dark_flat", path, time_s=time_s), "w") as file:
        for role, frames in (("dark", item.darks), ("flat", item.flats)):
            if frames is not None:
                stack = path / f"{made_up_uuid(path.name, role)}.h5"
                write_stack(stack, frames, time_s=time_s)
                file[f"entry/data/{role}"] = h5py.ExternalLink(stack.name, f"/{DATA}")


def _name(plan: str, path: Path, *, time_s: float | None) -> str:
    """Name of the NeXus file: plan, number of the run, date."""
    number = path.name.rsplit("_", 1)[-1].lstrip("0") or "0"
    date = "" if time_s is None else f"_{datetime.fromtimestamp(time_s, tz=UTC):%Y-%m-%d}"
    return f"{plan}_{number}{date}.nxs"
