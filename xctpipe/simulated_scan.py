"""A simulated scan on disk, with its truth."""

import shutil
from pathlib import Path
from typing import Any

from xctpipe import formats, phantom
from xctpipe.errors import BadRecipe, nearest
from xctpipe.progress import progress
from xctpipe.runfolder import write_json
from xctpipe.scan import Scan
from xctpipe.simulation import count_frames, photons_of, streamed
from xctpipe.storage import storing


def write_simulated(
    folder: Path,
    *,
    layout: str,
    size: str,
    seed: int = 0,
    photons: float | None = None,
    full_view: bool = False,
) -> Path:
    """Simulate a scan and write it in a raw layout, truth.json beside it; returns the folder of raw data."""
    known = formats.layouts()
    if layout not in known:
        raise BadRecipe(f"no raw layout {layout!r}; {nearest(layout, known)}")
    changes: dict[str, Any] = {} if photons is None else {"photons": photons_of(photons)}
    scan, truth = phantom.simulated_scan(size=size, seed=seed, full_view=full_view, **changes)
    return write_raw(scan, truth, folder, layout=layout)


def write_raw(scan: Scan, truth: dict[str, Any], folder: Path, *, layout: str) -> Path:
    """Write a scan and its truth into a new or empty folder; returns the folder of raw data."""
    unfinished = folder / "unfinished"
    ours = {unfinished, folder / "truth.json"}
    if folder.exists() and not folder.is_dir():
        raise BadRecipe(f"{folder}: is not a folder; choose another place")
    if folder.exists() and any(child not in ours for child in folder.iterdir()):
        raise BadRecipe(f"{folder} is not empty; choose another folder")
    with storing(folder):
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir(parents=True)
        except (FileNotFoundError, NotADirectoryError) as err:
            raise BadRecipe(f"{folder}: no folder can be made there; choose another place") from err
        with (
            progress("simulating", total=count_frames(scan), unit="frames") as bar,
            streamed(scan, bar=bar) as stream,
        ):
            formats.write_scan(unfinished / "scan_00001", stream, layout=layout)
        write_json(folder / "truth.json", truth)
        return unfinished.rename(folder / "raw_data")
