"""What the tests share."""

import os

# several workers share the processors; must be set before numpy is loaded
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import shared_cells

from xctpipe import phantom, simulated_scan
from xctpipe.assess import Assessment, assess
from xctpipe.conveyor import Method
from xctpipe.recipe import Recipe, make_recipe
from xctpipe.scan import Scan
from xctpipe.survey import Survey

# a change of the thread count must not start more threads than the machine has
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))


COMPILE_LITTLE = frozenset(
    {
        "charging",
        "contact_sheet",
        "cycler",
        "formats",
        "growth",
        "phantom",
        "recipe",
        "report",
        "report_parts",
        "report_tables",
        "series",
        "simulate_cell",
        "tracks",
        "traps",
    }
)
"""Test files, without test_, that neither reconstruct nor label."""


def _kind(item: pytest.Item) -> str:
    names, file = getattr(item, "fixturenames", ()), item.path.stem.removeprefix("test_")
    if "plating_cells" in names:
        return "shared"
    if "scheduler" in names:
        return "scheduled"
    if file == "first_call":
        return "last"
    return "little" if file in COMPILE_LITTLE else "other"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put side by side what shares something costly, so that one worker makes it and keeps no other waiting.

    Of two workers one begins at the first test, the other at the middle one. Where no kernel is compiled yet,
    the first compiles almost all of them for the shared cell; the other meanwhile does what needs few, and
    does not compile them a second time. Last is the test that asks for a cache that holds all.
    """
    parts: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        parts[_kind(item)].append(item)
    first = [*parts["shared"], *parts["scheduled"]]
    n = max(len(items) // 2 - len(first), 0)
    items[:] = [*first, *parts["other"][:n], *parts["little"], *parts["other"][n:], *parts["last"]]


@pytest.fixture(scope="session", autouse=True)
def _look_often() -> Iterator[None]:
    """A run looks every 10 ms whether it has ended; small ones would mostly sleep between two looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xctpipe.run._POLL_S", 0.01)
        yield


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


@pytest.fixture(scope="session")
def plating_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny plating cell, P3 to P6: folders `reconstructed` and `measured`. Copy what you change."""
    return shared_cells.once(tmp_path_factory, "plating", shared_cells.make_plating)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and not drawn."""
    import pictures

    pictures.leave_out(monkeypatch)


_ASSESSMENTS: dict[tuple[object, ...], Assessment] = {}


@pytest.fixture
def assessed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of a scan are assessed at its first run; a repeated one finds the same and does not look."""

    def once(scan: Scan, survey: Survey, method: Method, **options: Any) -> Assessment:
        what = (str(scan.path), scan.shape, survey.first_pixel, survey.axis, method, *options.items())
        key = tuple(map(repr, what))
        if key not in _ASSESSMENTS:
            _ASSESSMENTS[key] = assess(scan, survey, method, **options)
        return _ASSESSMENTS[key]

    monkeypatch.setattr("xctpipe.prepare.assess", once)


@pytest.fixture(scope="session")
def scheduler() -> Iterator[str]:
    """Address of a real dask scheduler with two worker processes of its own."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen([*command, "--no-dashboard"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "Scheduler at:" in line)
        address = line.split()[-1]
        worker = [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            address,
            "--nthreads",
            "1",
            "--no-nanny",
        ]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        workers = [subprocess.Popen([*worker, "--no-dashboard"], **quiet) for _ in range(2)]  # type: ignore[call-overload]
        yield address
        for child in (*workers, process):
            child.kill()  # asked to end, a worker without its scheduler may wait for ever
        for child in workers:
            child.wait()


@pytest.fixture
def make(simulated: tuple[Path, dict[str, Any]], tmp_path: Path) -> Callable[..., Recipe]:
    """Maker of recipes for the simulated scan; keywords are tables that replace the plain ones."""
    folder, truth = simulated

    def recipe(**tables: Any) -> Recipe:
        raw = {"folder": str(folder), "energy_kev": 80.0, "pixel_um": truth["pixel_um"]}
        table = {"name": "test", "run_folder": "run", **tables, "raw": raw | tables.get("raw", {})}
        return make_recipe(table, base=tmp_path)

    return recipe
