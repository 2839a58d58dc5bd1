"""One new file is all that a raw layout, a correction or a backend needs."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from reconstructing import run

from xctpipe import formats, phantom, recon, steps, volume
from xctpipe.cli import main
from xctpipe.prepare import volume_path
from xctpipe.recipe import make_recipe

LAYOUT = '''
"""An imaginary layout: everything in one .npz."""

from pathlib import Path

import numpy as np

from xctpipe.scan import ArrayFrames, DarkFlat, Scan

NAME = "imaginary"
TITLE = "an imaginary layout (.npz)"


def understands(path):
    return path.suffix == ".npz"


def holds(path):
    return "projections" if understands(path) else None


def start_time(path):
    return None


def open_scan(path, *, dark_flat=(), options):
    with np.load(path) as file:
        frames, darks, flats = (ArrayFrames(file[name]) for name in ("frames", "darks", "flats"))
        pair = DarkFlat(darks, flats)
        return Scan(path.stem, NAME, path, frames, file["angles_rad"], dark_flats=(pair,), files=(path,))


def open_dark_flat(path, *, options):
    return open_scan(path, options=options).dark_flats


def write_scan(path, scan):
    pair = scan.dark_flats[0]
    path = path.with_suffix(".npz")
    np.savez(
        path,
        frames=scan.frames.read(),
        darks=pair.darks.read(),
        flats=pair.flats.read(),
        angles_rad=scan.angles_rad,
    )
    return path
'''

STEP = '''
"""An imaginary filter."""

from typing import Annotated

from annotated_types import Gt

from xctpipe.scan import FloatArray
from xctpipe.steps import step


@step(halo=0)
def imaginary(slab: FloatArray, *, gain_frac: Annotated[float, Gt(0)] = 1.0) -> FloatArray:
    """Brighten."""
    return (slab * gain_frac).astype("float32")
'''

BACKEND = '''
"""An imaginary backend: the mean over angles."""

import numpy as np

FILTERS = ("ramp",)


def available():
    return None


def reconstruct(sinograms, *, geometry, filter_name, padding, level: float = 1.0):
    n_cols = sinograms.shape[2]
    return np.full((sinograms.shape[1], n_cols, n_cols), level, np.float32)


def working_bytes(*, n_angles, n_rows, n_cols, n_threads, **options):
    return 4 * n_rows * n_cols**2
'''


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[ModuleType, str, str], None]]:
    """Put one file into a package, for the time of a test."""
    added: list[str] = []

    def put(package: ModuleType, name: str, text: str) -> None:
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        importlib.invalidate_caches()
        added.append(f"{package.__name__}.{name}")

    yield put
    for name in added:
        sys.modules.pop(name, None)
    steps._REGISTRY.pop("imaginary", None)


def test_a_layout_a_filter_and_a_backend_are_one_file_each(
    add: Callable[[ModuleType, str, str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(formats, "imaginary_layout", LAYOUT)
    add(importlib.import_module("xctpipe.correct"), "imaginary_filter", STEP)
    add(recon, "imaginary_backend", BACKEND)
    scan, truth = phantom.simulated_scan(size="mini", seed=1)
    (tmp_path / "raw").mkdir()
    path = formats.write_scan(tmp_path / "raw" / "scan_1", scan, layout="imaginary")
    assert main(["inspect", str(path)]) == 0
    assert "an imaginary layout" in capsys.readouterr().out
    recipe = make_recipe(
        {
            "name": "t",
            "run_folder": "run",
            "raw": {"folder": "raw", "energy_kev": 80.0, "pixel_um": truth["pixel_um"]},
            "correct": [{"do": "imaginary", "gain_frac": 0.5}],
            "reconstruct": {"backend": "imaginary_backend", "level": 0.25},
            "center": {"center_px": truth["center_px"]},
        },
        base=tmp_path,
    )
    assert run(recipe).done == ["scan_1"]
    np.testing.assert_array_equal(volume.read(volume_path(recipe.run_folder, "scan_1")), np.float32(0.25))
