"""NeXus files of HEX that hold links to the files of detector and PandA, and those files where they moved.

`entry/data/data` (one camera) or `entry/data/<camera>` (several) and `entry/data/rotation_angle` for a scan,
`dark`, `flat` or `dark-<camera>`, `flat-<camera>` for its darks and flats. In a proposal, the folder that
holds `assets` and `tomography`, links from the one to the other count as inside.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py

from xctpipe.errors import BadScan, nearest
from xctpipe.formats.base import RawOptions
from xctpipe.formats.hdf5 import Place, locate, open_hdf
from xctpipe.formats.hexfiles import (
    HDF_SUFFIXES,
    NEXUS_KEYS,
    PANDA_KEYS,
    AngleFile,
    DarkFlatFiles,
    ScanFiles,
    children,
)
from xctpipe.formats.links import there

GROUP = "entry/data"
_ANGLE = "rotation_angle"
_MOST_ENTRIES = 20000
_MOST_LEVELS = 5
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_DEVICE = re.compile(r"(?:kinetix|phantom)[\w-]*")


@dataclass(frozen=True)
class Links:
    """What a NeXus file links to: keys in `entry/data` by camera, which is empty for the only one."""

    path: Path
    projections: dict[str, str]
    flats: dict[str, str]
    darks: dict[str, str]
    angle: str | None
    """Key that the link to the angles leads to; empty where the angles are inside, None without angles."""


def links_of(path: Path) -> Links | None:
    """Links of a HEX NeXus file; None when it is something else or cannot be opened."""
    try:
        if path.suffix.lower() != ".nxs" or not path.is_file():
            return None
        with open_hdf(path) as file:
            return _links(file, path)
    except (BadScan, OSError, ValueError):
        return None


def _links(file: h5py.File, path: Path) -> Links | None:
    group = file.get(GROUP)
    if not isinstance(group, h5py.Group) or "definition" in file["entry"]:
        return None
    links = {name: group.get(name, getlink=True) for name in group}
    outside = [name for name, link in links.items() if isinstance(link, h5py.ExternalLink)]
    # flat, or flat-kinetix-det1 of several cameras
    flats, darks = (
        {name[5:]: f"{GROUP}/{name}" for name in outside if name == role or name.startswith(f"{role}-")}
        for role in ("flat", "dark")
    )
    cameras = [name for name in outside if _DEVICE.fullmatch(name)]
    projections = {name: f"{GROUP}/{name}" for name in cameras}
    if "data" in outside:
        projections[""] = f"{GROUP}/data"
    if not projections and not flats:
        return None
    angle = links.get(_ANGLE)
    stated = None if angle is None else angle.path if isinstance(angle, h5py.ExternalLink) else ""
    return Links(path, projections, flats, darks, stated)


def nexus_in(folder: Path) -> list[Links]:
    """NeXus files of links in a folder."""
    found = [links_of(child) for child in children(folder) if child.suffix.lower() == ".nxs"]
    return [links for links in found if links is not None]


def proposal_of(path: Path) -> Path | None:
    """The folder with `assets` (and `tomography`) that a path lies in; None outside of one."""
    for folder in path.absolute().parents:
        if folder.name in {"assets", "tomography"} and (folder.parent / "assets").is_dir():
            return folder.parent
    if path.name in {"assets", "tomography"} and (path.parent / "assets").is_dir():
        return path.absolute().parent
    return None


def bounded(path: Path, *, options: RawOptions) -> RawOptions:
    """Options under which links of a file may lead anywhere in its proposal."""
    proposal = proposal_of(path)
    if proposal is None:
        return options
    folder = options.folder
    if folder is not None and proposal.resolve().is_relative_to(folder.resolve()):
        return options
    return replace(options, folder=proposal)


def pick_camera(links: Links, keys: dict[str, str], *, camera: str | None, options: RawOptions) -> str:
    """The key of the wanted camera; BadScan when several are there and none is named, or it is not there."""
    named = sorted(name for name in keys if name)
    if len(keys) > 1 and camera is None and "" not in keys:
        raise BadScan(
            f"{links.path}: {len(keys)} cameras ({', '.join(named)}); set raw.camera to one of them, e.g. "
            f"raw.camera = {named[0]!r}"
        )
    if camera is None or camera in keys:
        return keys[camera or ""] if (camera or "") in keys else next(iter(keys.values()))
    only = camera_of(follow_link(links.path, keys[""], options=options).path) if "" in keys else ""
    if "" in keys and only in {"", camera}:
        return keys[""]
    raise BadScan(f"{links.path}: raw.camera = {camera!r}: {nearest(camera, named or [only])}")


def camera_of(path: Path) -> str:
    """The camera whose folder a file is in; empty when no folder has the name of one."""
    return next((part for part in reversed(path.parts[:-1]) if _DEVICE.fullmatch(part)), "")


def follow_link(nexus: Path, key: str, *, options: RawOptions) -> Place:
    """Where a key of a NeXus file leads, looked for by name where the file is not as stated.

    Looked in are, beyond where every link is looked for, the folders beside that of the NeXus file, its
    proposal and the raw folder, at most 5 levels deep and 20000 files and folders in each.

    Raises
    ------
    BadScan
        When the file is nowhere, or outside the folder and links may not leave it.
    """
    options = bounded(nexus, options=options)
    try:
        place = locate(nexus, key, options=options)
    except BadScan:
        with open_hdf(nexus) as file:
            link = file.get(key, getlink=True)
        if not isinstance(link, h5py.ExternalLink) or there(nexus.parent / link.filename):
            raise
        moved = _search(Path(link.filename), nexus, options=options)
        if moved is None:
            raise
        note = f"{nexus.name}: {link.filename}, the target of {key}, is missing: {moved} is used"
        place = locate(moved, link.path, options=replace(options, folder=options.folder or moved.parent))
        place = None if place is None else replace(place, note=note)
    if place is not None and ".." in place.path.parts:
        place = replace(place, path=place.path.resolve())
    if place is None:
        raise BadScan(f"{nexus}: {key} leads to nothing; give raw.data and raw.angles instead")
    return place


def _search(stated: Path, nexus: Path, *, options: RawOptions) -> Path | None:
    """The file of a link: beside the folder of the NeXus file, in its proposal, in the raw folder."""
    name, run = stated.name, nexus.stem
    # every scan has a proj_00000.hdf: only a name that no other scan can have is looked for
    if not (_UUID.search(name) or re.search(rf"(?<![^_]){re.escape(run)}(?![^_.])", name)):
        return None
    above = nexus.absolute().parent.parent
    roots = [(above, 1), (proposal_of(nexus), _MOST_LEVELS), (options.folder, _MOST_LEVELS)]
    for root, levels in roots:
        if root is None:
            continue
        for path in _walk(root, levels=levels):
            # a link in the tree must not lead out of it
            if path.name == name and path.resolve().is_relative_to(root.resolve()):
                return path
    return None


def _walk(root: Path, *, levels: int) -> Iterator[Path]:
    """Files of a tree, those near its root first, as far as a look at everything is bearable."""
    queue = deque([(root, 0)])
    seen = 0
    while queue:
        folder, level = queue.popleft()
        for child in children(folder):
            seen += 1
            if seen > _MOST_ENTRIES:
                return
            if child.suffix.lower() in HDF_SUFFIXES:
                yield child
            elif level < levels and child.is_dir():
                queue.append((child, level + 1))


def linked_scan(
    links: Links,
    *,
    options: RawOptions,
    find_pandas: Callable[[Path], list[Path]] | None = None,
    beside: tuple[Path, ...] = (),
) -> ScanFiles:
    """Files of the scan that a NeXus file links to.

    Parameters
    ----------
    find_pandas : finder of PandA files by name, given the frames' file, for angles that no link leads to.
    beside : where darks and flats may be.

    Raises
    ------
    BadScan
        When frames or angles are nowhere, or it is not said which camera.
    """
    nexus = links.path
    key = pick_camera(links, links.projections, camera=options.camera, options=options)
    data = follow_link(nexus, key, options=options)
    angles: tuple[AngleFile, ...] = ()
    notes: tuple[str, ...] = ()
    if options.angles is None:
        pandas = find_pandas(data.path) if find_pandas else []
        angles, notes = _linked_angles(links, pandas=pandas, options=options)
    camera = "" if key == f"{GROUP}/data" else key.removeprefix(f"{GROUP}/")
    return ScanFiles(
        nexus.parent,
        data,
        angles,
        wanted=f"{NEXUS_KEYS[0]} of {nexus.name}",
        nexus=(nexus,),
        own=(linked_dark_flat(links, options=options),) if links.flats else (),
        beside=beside,
        camera=camera or camera_of(data.path),
        notes=(*((data.note,) if data.note else ()), *notes),
    )


def _linked_angles(
    links: Links, *, pandas: Sequence[Path], options: RawOptions
) -> tuple[tuple[AngleFile, ...], tuple[str, ...]]:
    nexus, found = links.path, tuple(AngleFile(path, PANDA_KEYS) for path in pandas)
    shown = ", ".join(path.name for path in pandas)
    if links.angle is None:
        if not found:
            raise BadScan(
                f"{nexus}: no angles: it has no {NEXUS_KEYS[0]}, and no panda*_{nexus.stem}_*.h5 beside it "
                "or in the assets; put it beside, or give raw.angles"
            )
        return found, (f"{nexus.name} has no {NEXUS_KEYS[0]}: the angles are those of {shown}",)
    if links.angle == "":
        return (*found, AngleFile(nexus, NEXUS_KEYS)), ()
    try:
        place = follow_link(nexus, NEXUS_KEYS[0], options=options)
    except BadScan as err:
        if not found:
            raise BadScan(f"{nexus.parent}: no angles: {err}") from err
        return found, (f"{err}; {shown}, found by the name of the scan, is used",)
    return (AngleFile(place.path, (place.key,)),), ((place.note,) if place.note else ())


def linked_dark_flat(links: Links, *, options: RawOptions) -> DarkFlatFiles:
    """Files of the darks and flats that a NeXus file links to."""
    if not links.flats:
        raise BadScan(f"{links.path}: no flats: there is no {GROUP}/flat")
    key = pick_camera(links, links.flats, camera=options.camera, options=options)
    flats = follow_link(links.path, key, options=options)
    dark_key = key.replace(f"{GROUP}/flat", f"{GROUP}/dark")
    darks = follow_link(links.path, dark_key, options=options) if dark_key in links.darks.values() else None
    notes = tuple(place.note for place in (flats, darks) if place is not None and place.note)
    folder = links.path.parent.name
    origin = folder if len(nexus_in(links.path.parent)) == 1 else links.path.stem
    return DarkFlatFiles(flats, darks, origin=origin, nexus=(links.path,), notes=notes)
