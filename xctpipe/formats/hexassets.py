"""Files of HEX generation 2 found by their names: `{role}_{run}_<uuid>.h5`, a folder for each device."""

import glob
import re
from dataclasses import dataclass
from pathlib import Path

from xctpipe.errors import BadScan, nearest
from xctpipe.formats.base import RawOptions
from xctpipe.formats.hdf5 import Place
from xctpipe.formats.hexfiles import (
    DATA,
    HDF_SUFFIXES,
    PANDA_KEYS,
    AngleFile,
    DarkFlatFiles,
    ScanFiles,
    children,
    siblings,
)

YEAR = re.compile(r"(?:19|20)\d\d")
_NAME = re.compile(
    r"(?P<role>proj|dark|flat|panda)\d*_(?P<run>.+)_[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Asset:
    """A file of one device: what it holds and the run it belongs to."""

    path: Path
    role: str
    run: str

    @property
    def device(self) -> str:
        """Name of the device's folder; empty where the file lies elsewhere."""
        above = self.path.absolute().parents
        return above[2].name if len(above) > 3 and YEAR.fullmatch(above[1].name) else ""


def asset(path: Path) -> Asset | None:
    """The asset that a file is by its name; None for other names."""
    found = _NAME.fullmatch(path.stem) if path.suffix.lower() in HDF_SUFFIXES else None
    return None if found is None else Asset(path, found["role"].lower(), found["run"])


def assets_in(folder: Path) -> list[Asset]:
    """Assets in one folder."""
    found = [asset(child) for child in children(folder)]
    return [each for each in found if each is not None]


def root_of(path: Path) -> Path | None:
    """The folder of all devices' folders, for a file or the folder of a run in it; None elsewhere."""
    above = path.absolute().parents
    start = 0 if path.is_dir() else 1
    found = len(above) > start + 2 and YEAR.fullmatch(above[start].name)
    return above[start + 2] if found else None


def assets_of(run: str, *, root: Path) -> list[Asset]:
    """Assets of a run in the folders of all devices."""
    try:
        folders = sorted(root.glob(f"*/*/{glob.escape(run)}"))
    except (OSError, ValueError):
        return []
    return [each for folder in folders for each in assets_in(folder) if each.run == run]


def run_at(path: Path, *, role: str) -> list[Asset]:
    """Assets of the run that a file, or the only run of this role in a folder, stands for; first the role's.

    Other devices' folders are looked into for the run of a folder; a file stands for itself and its PandA.
    """
    path = path.absolute()  # as the other devices' folders are: a file named in two ways would count twice
    if path.is_dir():
        here = assets_in(path)
        runs = {each.run for each in here if each.role == role}
        if len(runs) != 1:
            return []
        run = runs.pop()
    else:
        this = asset(path)
        if this is None or this.role != role:
            return []
        run, here = this.run, assets_in(path.parent)
    root = root_of(path)
    found = {each.path: each for each in here if each.run == run}
    for each in () if root is None else assets_of(run, root=root):
        found.setdefault(each.path, each)
    return [each for each in found.values() if path.is_dir() or each.role != role or each.path == path]


def pick(assets: list[Asset], *, role: str, camera: str, where: Path) -> Asset:
    """The one asset of this role, of this camera (empty: the only one); BadScan when it is not sure."""
    held = [each for each in assets if each.role == role]
    cameras = sorted({each.device for each in held if each.device})
    if camera and cameras:
        held = [each for each in held if each.device == camera]
        if not held:
            raise BadScan(f"{where}: raw.camera = {camera!r}: {nearest(camera, cameras)}")
    elif len(cameras) > 1:
        raise BadScan(
            f"{where}: {len(cameras)} cameras have files of this run ({', '.join(cameras)}); set raw.camera "
            f"to one of them, e.g. raw.camera = {cameras[0]!r}"
        )
    if len(held) != 1:
        listed = ", ".join(each.path.name for each in held) or "none"
        raise BadScan(f"{where}: {len(held)} {role} files ({listed}); give the path of the one file to use")
    return held[0]


def bare_scan(assets: list[Asset], *, where: Path, options: RawOptions) -> ScanFiles:
    """Files of a scan without its NeXus file."""
    frames = pick(assets, role="proj", camera=options.camera or "", where=where)
    folder = frames.path.parent
    root = root_of(frames.path)
    places = f"{folder}" if root is None else f"{folder} and {root}/*/*/{frames.run}"
    return ScanFiles(
        folder,
        Place(frames.path, DATA),
        tuple(AngleFile(each.path, PANDA_KEYS) for each in assets if each.role == "panda"),
        wanted=f"panda*_{frames.run}_<uuid>.h5 in {places}; copy it there, or give raw.angles",
        beside=(*(each.path for each in assets_in(folder) if each.role == "flat"), *siblings(folder)),
        camera=frames.device,
    )


def bare_dark_flat(path: Path, *, options: RawOptions) -> DarkFlatFiles:
    """Files of darks and flats without their NeXus file."""
    assets = run_at(path, role="flat")
    flats = pick(assets, role="flat", camera=options.camera or "", where=path)
    same = [each for each in assets if each.role == "dark" and each.device == flats.device]
    darks = pick(same, role="dark", camera="", where=path) if same else None
    return DarkFlatFiles(
        Place(flats.path, DATA), None if darks is None else Place(darks.path, DATA), origin=flats.run
    )


def runs_in(folder: Path) -> list[Path]:
    """Folders of runs below the folder of all devices or of one, each run once."""
    found: dict[tuple[str, str], Path] = {}
    for device in [folder, *children(folder)]:
        for year in children(device):
            if YEAR.fullmatch(year.name):
                for run in children(year):
                    if run.is_dir():
                        found.setdefault((year.name, run.name), run)
    return list(found.values())
