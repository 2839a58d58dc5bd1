"""One simulated cell for the whole session: the worker that first needs it makes it, the others wait."""

import fcntl
import os
import shutil
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tomli_w

from xctpipe import demo
from xctpipe.cli import main
from xctpipe.recipe import Recipe
from xctpipe.run import Outcome, run

SCANS = "3:7"
NAMES = ("scan_00004", "scan_00005", "scan_00006", "scan_00007")
"""P3 to P6 of the tiny plating cell of seed 1."""


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Folder that `make` fills, the same for all workers of this session."""
    base = factory.getbasetemp()
    # each worker has a folder of its own in that of the session
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(folder)
    return folder


def make_plating(folder: Path) -> None:
    """The demonstration from nothing; what it has when the volumes are there is kept beside the end."""
    whole = folder / "measured"

    def in_two(recipe: Recipe) -> Outcome:
        run(recipe, stages=["reconstruct"])
        shutil.copytree(whole, folder / "reconstructed")
        return run(recipe)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "run", in_two)
        assert main(["demo", str(whole), "--size", "tiny", "--scans", SCANS]) == 0


def with_scans(cell: Path, names: Sequence[str]) -> Path:
    """The same cell, whose recipe asks for these scans alone."""
    path = cell / "recipe.toml"
    recipe = tomllib.loads(path.read_text())
    recipe["raw"]["scans"] = list(names)
    path.write_text(tomli_w.dumps(recipe))
    return cell
