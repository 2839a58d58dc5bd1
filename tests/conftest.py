"""What the tests share."""

import os

# several workers share the processors; must be set before numpy is loaded
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xctpipe import phantom, simulated_scan
from xctpipe.recipe import Recipe, make_recipe

# a change of the thread count must not start more threads than the machine has
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data with known truth; tests that need it are skipped where it is absent."""
    root = Path(os.environ.get("XCTPIPE_SHARED", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data: {root} is not a folder (set XCTPIPE_SHARED)")
    return root


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Raw folder of a tiny simulated scan in the HEX layout, and the truth about it."""
    folder = tmp_path_factory.mktemp("simulated")
    scan, truth = phantom.simulated_scan(size="tiny", seed=1)
    simulated_scan.write_raw(scan, truth, folder / "hex", layout="hex1")
    return folder / "hex" / "raw_data", truth


@pytest.fixture
def make(simulated: tuple[Path, dict[str, Any]], tmp_path: Path) -> Callable[..., Recipe]:
    """Maker of recipes for the simulated scan; keywords are tables that replace the plain ones."""
    folder, truth = simulated

    def recipe(**tables: Any) -> Recipe:
        raw = {"folder": str(folder), "energy_kev": 80.0, "pixel_um": truth["pixel_um"]}
        table = {"name": "test", "run_folder": "run", **tables, "raw": raw | tables.get("raw", {})}
        return make_recipe(table, base=tmp_path)

    return recipe
