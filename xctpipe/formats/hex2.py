"""HEX (27-ID, NSLS-II) generation 2 (2024, 2025): assets of each device, NeXus files that link to them.

In the proposal's folder, `assets/kinetix-det1/2025/scan_00010/proj_scan_00010_<uuid>.h5` holds the frames,
`assets/panda1/2025/scan_00010/panda1_scan_00010_<uuid>.h5` the angles (`/Angle`, degrees, float64), and
`tomography/metadata/scan_00010/scan_00010.nxs` links to both. Darks and flats are a run of their own:
`{dark,flat}_scan_00011_<uuid>.h5`. Either part can be read without the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import h5py

from xctpipe.errors import BadScan
from xctpipe.formats.angles import COUNTS_KEY
from xctpipe.formats.base import NO_OPTIONS, Holds, RawOptions
from xctpipe.formats.hexassets import (
    Asset,
    asset,
    assets_in,
    assets_of,
    bare_dark_flat,
    bare_scan,
    root_of,
    run_at,
    runs_in,
)
from xctpipe.formats.hexfiles import (
    DATA,
    DarkFlatFiles,
    ScanFiles,
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
    proposal_of,
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

NAME = "hex2"
TITLE = (
    "HEX generation 2 (tomography/metadata/*/*.nxs with links, or "
    "assets/<camera>/<year>/*/{proj,dark,flat}_*_<uuid>.h5)"
)
TAKES = ("batch", "camera")
METADATA = Path("tomography", "metadata")
CAMERA, PANDA = "kinetix-det1", "panda1"
_FIRST_YEAR = 2024


def understands(path: Path) -> bool:
    """Whether it is a NeXus file of links or an asset, or a folder with those of one scan."""
    return holds(path) is not None


def holds(path: Path) -> Holds | None:
    """Projections, or darks and flats, judged by links and names alone."""
    try:
        links = _links(path)
        if links is not None:
            return "projections" if links.projections else "dark_flat"
        if _projections(path):
            return "projections"
        # the darks are found with the flats
        return "dark_flat" if run_at(path, role="flat") and not _has_nexus(path) else None
    except (OSError, ValueError):
        return None


def _links(path: Path) -> Links | None:
    """The NeXus file that a path stands for: itself, or the only one with projections in a folder."""
    if not path.is_dir():
        links = links_of(path)
        return links if links is not None and _is_ours(links) else None
    found = [links for links in nexus_in(path) if _is_ours(links)]
    scans = [links for links in found if links.projections]
    chosen = scans or found
    return chosen[0] if len(chosen) == 1 else None


def _is_ours(links: Links) -> bool:
    return (links.angle or "").rsplit("/", 1)[-1] != COUNTS_KEY


def _projections(path: Path) -> list[Asset]:
    """Assets of the scan that a folder or file without a readable NeXus file stands for."""
    if _broken_nexus(path) is not None:
        return assets_of(path.name, root=_assets(path))
    return [] if _has_nexus(path) else run_at(path, role="proj")


def _has_nexus(path: Path) -> bool:
    """Whether the run of a file is listed by a NeXus file beside it."""
    this = None if path.is_dir() else asset(path)
    return this is not None and links_of(path.with_name(f"{this.run}.nxs")) is not None


def _broken_nexus(path: Path) -> Path | None:
    """The NeXus file of a folder of metadata that cannot be opened."""
    nexus = path / f"{path.name}.nxs"
    if path.parent.name != METADATA.name or not nexus.is_file() or links_of(nexus) is not None:
        return None
    return nexus


def _assets(path: Path) -> Path:
    proposal = proposal_of(path)
    return (proposal or path) / "assets"


def scans_in(folder: Path) -> list[Path]:
    """Scans in a proposal, in its `tomography` or `assets` folder, or in the folder of one device."""
    metadata = next((m for m in (folder / METADATA, folder / METADATA.name) if m.is_dir()), None)
    found = [] if metadata is None else [child for child in children(metadata) if understands(child)]
    names = {path.name for path in found}
    inner = folder / "assets"
    runs = runs_in(inner if inner.is_dir() else folder)
    return [*found, *(path for path in runs if path.name not in names and understands(path))]


def start_time(path: Path) -> datetime | None:
    """Start of the scan: the NeXus file, else the first frame's time stamp, else the file's time."""
    links = _links(path)
    if links is None:
        role = "proj" if _projections(path) else "flat"
        assets = _projections(path) or run_at(path, role=role)
        frames = next(each.path for each in assets if each.role == role)
        return start_of((), frames, options=NO_OPTIONS)[0]
    options = bounded(links.path, options=NO_OPTIONS)
    keys = links.projections or links.flats
    frames = follow_link(links.path, next(iter(keys.values())), options=options).path
    return start_of((links.path,), frames, options=options)[0]


def open_scan(path: Path, *, dark_flat: Sequence[Path] = (), options: RawOptions) -> Scan:
    """Describe a scan; BadScan when frames or angles are nowhere, or of which camera is not said.

    Parameters
    ----------
    path : the NeXus file or its folder, the run's folder in a camera's assets, or its file of projections.
    dark_flat : runs of darks and flats; absent: the nearest in time beside the NeXus file, else the file.
    """
    links = _links(path)
    if links is None:
        files = _without_nexus(path, options=options)
    else:
        folder = links.path.parent
        listed = [each.path for each in nexus_in(folder) if each.path != links.path]
        files = linked_scan(
            links, find_pandas=_pandas_of(links), beside=(*listed, *siblings(folder)), options=options
        )
        files = replace(files, beside=(*files.beside, *_unlisted(files.projections.path, links.path)))
    bound = bounded(files.projections.path if links is None else links.path, options=options)
    return read_scan(files, layout=NAME, path=path, dark_flat=dark_flat, options=bound)


def _without_nexus(path: Path, *, options: RawOptions) -> ScanFiles:
    nexus, assets = _broken_nexus(path), _projections(path)
    files = bare_scan(assets, where=path, options=options)
    if nexus is None:
        return files
    return replace(
        files, notes=(f"{nexus} cannot be read: frames and angles are found by the name of the run",)
    )


def _pandas_of(links: Links) -> Callable[[Path], list[Path]]:
    """Finder of the PandA files of a run: beside its NeXus file or its frames, or in the assets."""
    run = links.path.stem

    def find(frames: Path) -> list[Path]:
        roots = [root for root in (root_of(frames), _assets(links.path)) if root is not None]
        folders = (links.path.parent, frames.parent)
        found = [each for folder in folders for each in assets_in(folder)]
        found += [each for root in roots for each in assets_of(run, root=root)]
        return list(dict.fromkeys(each.path for each in found if each.role == "panda" and each.run == run))

    return find


def _unlisted(frames: Path, nexus: Path) -> list[Path]:
    """Runs of the same camera that no NeXus file lists."""
    if root_of(frames) is None:
        return []
    listed = {folder.name for folder in (nexus.parent, *siblings(nexus))}
    return [run for run in (frames.parent, *siblings(frames)) if run.name not in listed]


def open_dark_flat(path: Path, *, options: RawOptions) -> tuple[DarkFlat, ...]:
    """Darks and flats of a run; BadScan when there are no flats or of which camera is not said."""
    files = find_dark_flat(path, options=options)
    return (read_dark_flat(files, options=bounded(path, options=options))[0],)


def find_dark_flat(path: Path, *, options: RawOptions) -> DarkFlatFiles:
    """Files of the darks and flats of a run, for the wanted camera where it has several."""
    links = _links(path)
    if links is None:
        return bare_dark_flat(path, options=options)
    return linked_dark_flat(links, options=options)


def write_scan(path: Path, scan: Scan) -> Path:
    """Write a scan and its darks and flats as runs of a proposal, the folder that `path` is in.

    `assets` and `tomography` are made beside `path`, whose name becomes that of the run; returns the folder
    of its NeXus file. Energy, pixel size and exposure have no place in this layout. BadScan when the run is
    there.
    """
    proposal, run = path.parent, path.name
    folder = proposal / METADATA / run
    if _exists(folder):
        raise BadScan(f"{path}: the run {run} exists already in {proposal}; give another name")
    new_folder(folder)
    year = str(_FIRST_YEAR if scan.start_time is None else scan.start_time.year)
    frames = _new_asset(proposal, CAMERA, year, run=run, role="proj")
    write_projections(frames, scan)
    panda = _new_asset(proposal, PANDA, year, run=run, role=PANDA)
    write_angles(panda, scan, key="Angle")
    with h5py.File(folder / f"{run}.nxs", "w") as file:
        file[DATA] = _link(frames, proposal, DATA)
        file["entry/data/rotation_angle"] = _link(panda, proposal, "Angle")
        if scan.start_time is not None:
            file["entry/start_time"] = scan.start_time.isoformat()
    for item in scan.dark_flats:
        _write_dark_flat(free_name(folder, taken=_exists), item, time_s=time_of(item, scan), year=year)
    return folder


def _exists(folder: Path) -> bool:
    return folder.exists() or bool(assets_of(folder.name, root=folder.parents[2] / "assets"))


def _write_dark_flat(folder: Path, item: DarkFlat, *, time_s: float | None, year: str) -> None:
    new_folder(folder)
    proposal, run = folder.parents[2], folder.name
    with h5py.File(folder / f"{run}.nxs", "w") as file:
        for role, frames in (("dark", item.darks), ("flat", item.flats)):
            if frames is not None:
                stack = _new_asset(proposal, CAMERA, year, run=run, role=role)
                write_stack(stack, frames, time_s=time_s)
                file[f"entry/data/{role}"] = _link(stack, proposal, DATA)


def _new_asset(proposal: Path, device: str, year: str, *, run: str, role: str) -> Path:
    folder = proposal / "assets" / device / year / run
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{role}_{run}_{made_up_uuid(run, role)}.h5"


def _link(target: Path, proposal: Path, key: str) -> h5py.ExternalLink:
    return h5py.ExternalLink(f"../../../{target.relative_to(proposal).as_posix()}", f"/{key}")
