"""What goes wrong between the parts: what must be redone, what is held in memory, what is said before."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from reconstructing import run

from xctpipe import (
    forecast,
    formats,
    inputs,
    phantom,
    prepare,
    simulated_scan,
    staging,
    steps,
    tryout,
    volume,
)
from xctpipe.conveyor import Clock, Job, compute
from xctpipe.correct.flat import FlatField
from xctpipe.correct.order import check_order
from xctpipe.errors import BadRecipe
from xctpipe.plan import BASE_BYTES, cut, peak_bytes
from xctpipe.recipe import Recipe, make_recipe, with_parameter
from xctpipe.runfolder import scan_folder
from xctpipe.scan import ArrayFrames, Scan
from xctpipe.staging import staged_bytes
from xctpipe.survey import CenterChoice, make_survey

Make = Callable[..., Recipe]
CELL = {"reconstruct": {"padding": "cylinder"}, "cell": {"bore_mm": 6.0, "wall_mm": 2.0}}
TURN = {"n_angles": 401, "last_deg": 360 * 400 / 401}
COARSE_TURN = {"n_angles": 121, "last_deg": 360 * 120 / 121}


@dataclass(frozen=True)
class Packed(ArrayFrames):
    """Frames of which a few rows cost as much as all."""

    whole_frames: bool = True


def in_memory(**options: Any) -> tuple[Scan, dict[str, Any]]:
    scan, truth = phantom.simulated_scan(**{"size": "mini", "seed": 7} | options)
    return replace(scan, frames=ArrayFrames(scan.frames.read())), truth


def recipe_of(tmp_path: Path, *, raw: dict[str, Any] | None = None, **tables: Any) -> Recipe:
    table = {"folder": "raw", "energy_kev": 80.0, "pixel_um": 43.3} | (raw or {})
    return make_recipe({"name": "t", "run_folder": "run", "raw": table, **tables}, base=tmp_path)


def opened(recipe: Recipe) -> Scan:
    (found,) = inputs.find(recipe.raw)
    return inputs.open_one(recipe.raw, found)


# what is done again, and what is not


def test_a_copy_of_other_rows_of_the_same_size_is_not_used(tmp_path: Path) -> None:
    scan, _ = in_memory()
    scan = replace(scan, frames=Packed(scan.frames.read()))
    for rows in ([0, 8], [8, 16]):
        recipe = recipe_of(tmp_path, raw={"rows": rows})
        cropped = inputs.crop(scan, rows=recipe.raw.rows, columns=None)
        copy = prepare._staged(cropped, recipe)
        np.testing.assert_array_equal(copy.frames.read(), scan.frames.read((rows[0], rows[1])))
        # the one that is not needed any more is no waste of space
        assert len(list((recipe.run_folder / "staged").iterdir())) == 1
    prepare.discard_staged(recipe, scan.name)
    assert not (recipe.run_folder / "staged").exists()


def test_many_rows_of_packed_frames_are_read_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 9, (7, 20, 5)).astype(np.uint16)
    passes = []
    whole = staging._in_one_pass
    monkeypatch.setattr(staging, "_in_one_pass", lambda f, s: passes.append(list(s)) or whole(f, s))
    monkeypatch.setattr(staging, "MOST_BAND_BYTES", 7 * 5 * 2 * 6)
    spans = [(0, 3), (2, 5), (6, 16), (17, 18)]
    for span, band in zip(spans, staging.read_spans(Packed(data), spans), strict=True):
        np.testing.assert_array_equal(band, data[:, slice(*span)])
    assert passes == [spans[:2], spans[2:3], spans[3:]]


def test_another_stack_in_the_same_file_is_another_input(tmp_path: Path) -> None:
    scan, _ = in_memory()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"] = scan.frames.read()
        file["two"] = scan.frames.read()[:, ::-1]
        file["flats"] = scan.dark_flats[0].flats.read()
    names = {"folder": str(tmp_path), "angles": [0.0, 180.0], "flats": "a.h5:/flats"}
    recipes = [recipe_of(tmp_path, raw={**names, "data": f"a.h5:/{name}"}) for name in ("one", "two")]
    first, second = (prepare.settings_of(opened(recipe), recipe) for recipe in recipes)
    assert first["input"] == second["input"]
    assert first != second


def test_what_no_step_asks_for_may_change(make: Make) -> None:
    plain, known = make(), make(raw={"distance_mm": 5.0}, cell=CELL["cell"])
    scan = opened(plain)
    assert prepare.settings_of(scan, plain) == prepare.settings_of(scan, known)
    phase = {"phase": {"delta_beta": 350.0}}
    near, far = (make(raw={"distance_mm": z}, **phase) for z in (5.0, 6.0))
    assert prepare.settings_of(scan, near) != prepare.settings_of(scan, far)
    wide, narrow = (make(reconstruct=CELL["reconstruct"], cell={"bore_mm": b, "wall_mm": 2}) for b in (6, 5))
    assert prepare.settings_of(scan, wide) != prepare.settings_of(scan, narrow)


def test_the_axis_of_a_scan_is_not_compared_with_its_own_of_an_earlier_run(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    for center in (49.0, 53.0):
        recipe = make(center={"center_px": center}, raw={"rows": [0, 8]})
        (name,) = run(recipe).done
    row = json.loads((recipe.run_folder / "run.json").read_text())["scans"][name]["row"]
    assert row["center_px"] == 53.0
    assert row["center_from_first_px"] == 0
    assert "px from that of" not in caplog.text


def test_a_scan_that_the_recipe_does_not_fit_stops_no_series(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, turn in (("a", COARSE_TURN), ("b", {}), ("c", COARSE_TURN)):
        scan, truth = phantom.simulated_scan(size="mini", seed=1, center_px=85.4, **turn)
        formats.write_scan(folder / name, scan, layout="dxchange")
    raw = {"folder": str(folder), "pixel_um": truth["pixel_um"], "rows": [8, 16]}
    chosen = {"center": {"center_px": 85.4}, "correct": [{"do": "stitch_360"}]}
    outcome = run(recipe_of(tmp_path, raw=raw, **chosen))
    assert len(outcome.done) == 2
    (message,) = outcome.failed.values()
    assert "needs 360" in message
    with pytest.raises(BadRecipe, match="needs 360"):
        run(recipe_of(tmp_path, raw={**raw, "scans": [*outcome.failed]}, **chosen))


# what is planned


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"phase": {"delta_beta": 350.0}},
        CELL,
        {"correct": [{"do": "stitch_360"}], "phase": {"delta_beta": 350.0}},
        {"correct": [{"do": "extend_360"}], **CELL},
    ],
)
def test_a_slab_needs_no_more_memory_than_planned(tables: dict[str, Any], tmp_path: Path) -> None:
    scan, truth = in_memory(size="small", rows=48, cols=192, center_px=160.0, **TURN)
    raw = {"pixel_um": truth["pixel_um"], "distance_mm": 50.0}
    recipe = recipe_of(tmp_path, raw=raw, center={"center_px": 160.0}, **{"correct": [], **tables})
    survey = prepare.survey_scan(scan, recipe)
    job = Job(scan, prepare.method_of(scan, recipe), {}, scan_folder(tmp_path, "x"))
    job.__dict__["survey"] = survey
    extent = prepare.extent_of(scan, recipe, survey)
    slab = cut(48, slab_rows=32, halo_rows=extent.halo_rows)[0]
    (piece,) = job.pieces(slab)

    def blocks() -> list[int]:
        raw = [scan.frames.read(piece.read).copy()]
        return [block.values.nbytes for block in compute(raw, piece, job=job, clock=Clock())]

    sizes = blocks()  # compiles
    assert len(sizes) == 2 * extent.n_volumes
    tracemalloc.start()
    blocks()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    coarser = sum(sizes) // 6
    raw_bytes = scan.frames.read(piece.read).nbytes if piece.read[1] - piece.read[0] < 48 else 0
    beside = BASE_BYTES + extent.held_bytes + raw_bytes + max(sizes) * 3 // 2 + coarser
    assert peak <= peak_bytes(extent, slab_rows=32) - beside


def test_the_disk_that_is_planned_holds_all_volumes_and_the_copy(tmp_path: Path) -> None:
    scan, _ = in_memory(**TURN, center_px=85.4)
    packed = replace(scan, frames=Packed(scan.frames.read()))
    plain = recipe_of(tmp_path, center={"center_px": 85.4})
    both = recipe_of(
        tmp_path, raw={"distance_mm": 50.0}, phase={"delta_beta": 350.0}, center={"center_px": 85.4}
    )
    wide = recipe_of(tmp_path, correct=[{"do": "stitch_360"}], center={"center_px": 85.4})
    one = forecast.volume_bytes(scan, plain)
    assert forecast.volume_bytes(scan, both) == 2 * one
    assert forecast.volume_bytes(scan, wide) == pytest.approx((171 / 96) ** 2 * one, rel=0.05)
    text = "\n".join(forecast._scan_lines(packed, wide))
    assert "171 columns" in text
    assert f"{staged_bytes(packed.frames) / 1e9:.2f} GB, until" in text
    assert "unpacked" not in "\n".join(forecast._scan_lines(scan, wide))


# what is refused before a frame is read


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"correct": [{"do": "frame_shifts"}, {"do": "frame_shifts"}]}, "only once"),
        ({"correct": [{"do": "extend_360"}], "phase": {"delta_beta": 350.0}}, "needs intensities"),
        ({"correct": [{"do": "extend_360"}, {"do": "paganin"}]}, "needs intensities"),
        ({"correct": [{"do": "blobs"}], "raw": {"log_absorption": True}}, "looks at the flats"),
        ({"flat_field": {"dynamic": True}, "raw": {"log_absorption": True}}, "have no flats"),
    ],
)
def test_what_cannot_work_is_refused(tables: dict[str, Any], words: str, tmp_path: Path) -> None:
    raw = {"distance_mm": 2.0} | tables.get("raw", {})
    with pytest.raises(BadRecipe, match=words):
        recipe_of(tmp_path, **{**tables, "raw": raw})


def test_phase_retrieval_may_follow_joined_projections() -> None:
    check_order([steps.bind("stitch_360")], phase=steps.bind("paganin", delta_beta=350.0))


def test_a_given_axis_that_leaves_no_overlap_is_said_before_the_survey(tmp_path: Path) -> None:
    scan, _ = in_memory(**TURN)
    recipe = recipe_of(tmp_path, correct=[{"do": "stitch_360"}], center={"center_px": 95.5})
    with pytest.raises(BadRecipe, match=r"center\.center_px"):
        prepare.plan_scan(scan, recipe)


# flats that change


def test_the_beam_of_a_single_pattern_is_the_mean_flat() -> None:
    dark, mean = np.full((3, 4), 10, np.float32), np.full((3, 4), 110, np.float32)
    flats, rows = (mean, mean + 60), np.arange(3)
    assert (FlatField(dark, flats, np.ones((5, 1), np.float32)).beam(rows) == 100).all()
    assert (FlatField(dark, flats, np.ones(5, np.float32)).beam(rows) == 130).all()


def test_dynamic_flats_bear_pixels_and_frames_without_a_number() -> None:
    scan, truth = in_memory(bands_drift_px=2.0)
    raw = scan.frames.read().astype(np.float32)
    clean = make_survey(scan, center=CenterChoice(truth["center_px"]), dynamic_flats=True).flat.weight
    raw[5, 10, 10] = raw[7] = np.nan
    survey = make_survey(
        replace(scan, frames=ArrayFrames(raw)), center=CenterChoice(truth["center_px"]), dynamic_flats=True
    )
    weight = survey.flat.weight
    assert clean is not None
    assert weight is not None
    assert np.isfinite(weight).all()
    np.testing.assert_array_equal(np.delete(weight, [5, 7], axis=0), np.delete(clean, [5, 7], axis=0))
    np.testing.assert_allclose(weight[5], clean[5], atol=0.2)


# tried slices


def test_a_swept_axis_has_its_own_place_of_the_cell(tmp_path: Path) -> None:
    scan, truth = in_memory(size="tiny", photons=None)
    center = truth["center_px"]
    recipe = recipe_of(tmp_path, raw={"pixel_um": truth["pixel_um"]}, center={"center_px": center}, **CELL)
    sweep = tryout.Sweep("center.center_px", (center - 8.0, center))
    tried = tryout.try_slices(scan, recipe, rows=(20, 40), sweep=sweep)
    alone = tryout.try_slices(scan, with_parameter(recipe, *_last(sweep)), rows=(20, 40), sweep=None)
    left = tried.slices[-1] - alone.slices[0]
    assert np.sqrt((left**2).mean()) < 0.01 * alone.slices[0].std()


def _last(sweep: tryout.Sweep) -> tuple[str, float]:
    return sweep.key, sweep.values[-1]


def test_the_size_of_tried_slices_counts_joined_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, _ = in_memory(**TURN, center_px=85.4)
    recipe = recipe_of(tmp_path, correct=[{"do": "stitch_360"}], center={"center_px": 85.4})
    monkeypatch.setattr(tryout, "MOST_GB", 4e-9 * 150**2)
    with pytest.raises(BadRecipe, match="171 x 171"):
        tryout.try_slices(scan, recipe, rows=(8,), sweep=None)


# how rows are cut


@pytest.mark.parametrize(
    "correct",
    [
        [{"do": "distortion", "center_row_px": 22, "center_col_px": 47, "factors": [1.0, 1e-4, 1e-6]}],
        [{"do": "stitch_360"}, {"do": "stripes_sorting", "size_px": 9}],
    ],
)
def test_all_at_once_does_not_depend_on_the_height_of_slabs(
    correct: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"bands_drift_px": 2.0, "center_px": 85.4, **COARSE_TURN}
    scan, truth = phantom.simulated_scan(size="mini", seed=7, **changes)
    folder = simulated_scan.write_raw(scan, truth, tmp_path / "hex", layout="hex1")
    raw = {"folder": str(folder), "pixel_um": truth["pixel_um"], "distance_mm": 50.0}
    tables = {"flat_field": {"dynamic": True}, "phase": {"delta_beta": 3500.0}, **CELL, "correct": correct}
    volumes = []
    for rows in (64, 8):
        monkeypatch.setattr("xctpipe.plan.MAX_SLAB_ROWS", rows)
        recipe = recipe_of(tmp_path, raw=raw, center={"center_px": 85.4}, volume={"keep_bits": 23}, **tables)
        (name,) = run(recipe, fresh=True).done
        place = scan_folder(recipe.run_folder, name)
        assert len(list(place.root.glob("work/slabs/*.json"))) == 32 // min(rows, 32)
        volumes.append([volume.read(place.volume_of(kind)) for kind in ("edge", "mass")])
    (edge, mass), (low_edge, low_mass) = volumes
    np.testing.assert_array_equal(low_edge, edge)
    np.testing.assert_allclose(low_mass, mass, atol=1e-4 * float(np.abs(mass).max()))
