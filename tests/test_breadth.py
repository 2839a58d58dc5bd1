"""Whole runs with what goes beyond one line: two volumes, full turns, binning, known cells, packed frames."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from reconstructing import run

from xctpipe import phantom, simulated_scan, volume
from xctpipe.errors import BadRecipe
from xctpipe.prepare import volume_path
from xctpipe.recipe import Recipe, make_recipe
from xctpipe.runfolder import scan_folder
from xctpipe.tryout import parse_sweep, try_slices

MakeRun = Callable[..., tuple[Recipe, str]]


@pytest.fixture
def run_of(tmp_path: Path) -> MakeRun:
    """Run a recipe on a simulated scan of size mini; gives the recipe and the scan's name."""

    def made(*, scan: dict[str, Any], raw: dict[str, Any] | None = None, **tables: Any) -> tuple[Recipe, str]:
        folder = tmp_path / "hex" / "raw_data"
        if not folder.exists():
            simulated, truth = phantom.simulated_scan(**{"size": "mini", "seed": 7} | scan)
            simulated_scan.write_raw(simulated, truth, tmp_path / "hex", layout="hex1")
            tables.setdefault("center", {"center_px": truth["center_px"]})
            pixel_um = truth["pixel_um"]
        recipe = make_recipe(
            {
                "name": "t",
                "run_folder": "run",
                "raw": {"folder": str(folder), "energy_kev": 80.0, "pixel_um": pixel_um} | (raw or {}),
                **tables,
            },
            base=tmp_path,
        )
        outcome = run(recipe)
        assert not outcome.failed
        (name,) = outcome.done
        return recipe, name

    return made


def volumes(recipe: Recipe, name: str, kind: str = "edge") -> np.ndarray:
    return volume.read(scan_folder(recipe.run_folder, name).volume_of(kind))


def test_phase_retrieval_makes_a_second_volume(run_of: MakeRun) -> None:
    recipe, name = run_of(
        scan={"photons": 2e3}, raw={"distance_mm": 5.0, "pixel_um": 1.3}, phase={"delta_beta": 350.0}
    )
    edge, mass = volumes(recipe, name), volumes(recipe, name, "mass")
    assert edge.shape == mass.shape
    inner = np.s_[24:30, 36:60, 36:60]
    # retrieval takes away noise and leaves the mean
    assert mass[inner].std() < 0.8 * edge[inner].std()
    assert mass[inner].mean() == pytest.approx(edge[inner].mean(), rel=0.05)
    assert run(recipe).done == [name]
    np.testing.assert_array_equal(volumes(recipe, name, "mass"), mass)


def test_phase_retrieval_needs_the_distance(tmp_path: Path) -> None:
    table = {"name": "t", "run_folder": "r", "phase": {"delta_beta": 350.0}}
    raw = {"folder": "raw", "energy_kev": 80.0, "pixel_um": 1.3}
    with pytest.raises(BadRecipe, match="distance_mm"):
        make_recipe(table | {"raw": raw}, base=tmp_path)


def test_half_the_cell_in_view_makes_the_whole_by_a_full_turn(run_of: MakeRun) -> None:
    scan = {
        "n_angles": 401,
        "last_deg": 360 * 400 / 401,
        "center_px": 85.4,
        "photons": None,
        "stripes": (),
    }
    corrections = [{"do": "zingers"}, {"do": "stitch_360"}, {"do": "stripes_sorting", "size_px": 9}]
    recipe, name = run_of(scan=scan, correct=corrections)
    whole = volumes(recipe, name)
    assert whole.shape[2] == 171
    at = np.arange(171) - 85
    radius_mm = np.hypot(at, at[:, None]) * recipe.raw.pixel_um * 1e-3
    # the disc of 6 mm is now inside the view; the wall of the tube, which absorbs little, is not quite
    assert np.median(whole[20:32, radius_mm < 2.7]) == pytest.approx(2.332, rel=0.01)
    assert np.median(whole[20:32, (radius_mm > 3.2) & (radius_mm < 3.6)]) == pytest.approx(0.22, abs=0.05)


def test_the_axis_of_an_offset_scan_is_found_and_said(run_of: MakeRun) -> None:
    scan = {"size": "tiny", "n_angles": 361, "last_deg": 360.0, "center_px": 74.3}
    recipe, name = run_of(scan=scan, center={})
    record = json.loads((recipe.run_folder / "run.json").read_text())["scans"][name]
    assert record["row"]["center_px"] == pytest.approx(74.3, abs=0.25)
    assert any("stitch_360" in text for text in record["warnings"])


def test_binned_pixels_keep_place_and_value(run_of: MakeRun, tmp_path: Path) -> None:
    recipe, name = run_of(scan={"photons": None}, raw={"bin_px": 2, "rows": [4, 32], "columns": [0, 96]})
    small = volumes(recipe, name)
    assert small.shape == (14, 48, 48)
    spec = volume.read_spec(volume_path(recipe.run_folder, name))
    assert spec.pixel_um == pytest.approx(2 * recipe.raw.pixel_um)
    plain = make_recipe(
        recipe.model_dump(exclude_none=True)
        | {"run_folder": str(tmp_path / "plain")}
        | {"raw": recipe.raw.model_dump(exclude_none=True) | {"bin_px": 1}},
        base=tmp_path,
    )
    assert run(plain).done == [name]
    full = volumes(plain, name).reshape(14, 2, 48, 2, 48, 2).mean(axis=(1, 3, 5))
    at = np.arange(48) - 23.5
    inside = np.hypot(at, at[:, None]) < 18
    left = (small - full)[:, inside]
    assert abs(left.mean()) < 0.02
    assert np.corrcoef(small[:, inside].ravel(), full[:, inside].ravel())[0, 1] > 0.99
    lines = (recipe.run_folder / "tables" / "scans.csv").read_text().splitlines()
    row = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert float(row["center_px"]) == pytest.approx(recipe.center.center_px or 0)


def test_rows_completed_from_the_cell_have_true_values(make: Callable[..., Recipe]) -> None:
    recipe = make(reconstruct={"padding": "cylinder"}, cell={"bore_mm": 6.0, "wall_mm": 2.0})
    (name,) = run(recipe).done
    at = np.arange(96) - 47.5
    radius = np.hypot(at, at[:, None]) / 48
    nasicon = volumes(recipe, name)[40:64]
    for a, b in ((0, 0.5), (0.5, 0.8), (0.8, 0.9)):
        assert np.median(nasicon[:, (radius >= a) & (radius < b)]) == pytest.approx(2.332, rel=0.03)


def test_a_known_cell_must_be_given(tmp_path: Path) -> None:
    raw = {"folder": "raw", "energy_kev": 80.0, "pixel_um": 1.3}
    table = {"name": "t", "run_folder": "r", "raw": raw, "reconstruct": {"padding": "cylinder"}}
    with pytest.raises(BadRecipe, match="bore_mm"):
        make_recipe(table, base=tmp_path)


def test_packed_frames_are_unpacked_once_and_give_the_same_volume(run_of: MakeRun, tmp_path: Path) -> None:
    recipe, name = run_of(scan={})
    plain = volumes(recipe, name)
    (data,) = (tmp_path / "hex" / "raw_data").glob("*/proj_00000.hdf")
    with h5py.File(data, "r+") as file:
        frames = file["entry/data/data"][()]
        del file["entry/data/data"]
        chunks = (1, *frames.shape[1:])
        file.create_dataset("entry/data/data", data=frames, chunks=chunks, **hdf5plugin.Bitshuffle())
    assert run(recipe).done == [name]
    np.testing.assert_array_equal(volumes(recipe, name), plain)
    assert not (recipe.run_folder / "staged").exists()
    assert "unpack" in (recipe.run_folder / "run.json").read_text()


def test_dynamic_flats_run(run_of: MakeRun) -> None:
    recipe, name = run_of(scan={"bands_drift_px": 2.0}, flat_field={"dynamic": True})
    assert np.isfinite(volumes(recipe, name)).all()


def test_refraction_over_absorption_can_be_swept(run_of: MakeRun) -> None:
    recipe, name = run_of(scan={}, raw={"distance_mm": 50.0, "pixel_um": 1.3})
    from xctpipe import inputs

    (found,) = inputs.find(recipe.raw)
    scan = inputs.open_one(recipe.raw, found)
    tried = try_slices(scan, recipe, rows=[25], sweep=parse_sweep("phase.delta_beta=100:900:400"))
    noise = [float(block[0, 36:60, 36:60].std()) for block in tried.slices]
    assert noise[0] > noise[1] > noise[2]
    assert name == scan.name
