"""The stages after the reconstruction: what is kept, what is done again and why, and who fails alone."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xctpipe import inputs, materials, phantom, simulated_scan, volume
from xctpipe import run as running
from xctpipe.blocks import Scratch, blocks_of, in_this_process, run_blocks, scratch
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.label_volume import LabelSource, write_labels
from xctpipe.labelling import Work, label
from xctpipe.recipe import Recipe, make_recipe, measure_matters, segment_matters, to_toml, what_matters
from xctpipe.run import run
from xctpipe.runfolder import scan_folder
from xctpipe.stages import ScanWork
from xctpipe.status import status
from xctpipe.tables import update_table

pytestmark = pytest.mark.usefixtures("assessed_once")
Make = Callable[..., Recipe]
LATER = ("segment", "measure")


class Stages:
    """Stand-ins for the two stages, which record the work they get and may fail."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.works: list[ScanWork] = []
        self.fail: dict[tuple[str, str], Exception] = {}

    def segment(self, work: ScanWork) -> dict[str, Any]:
        self._begin("segment", work)
        shape = volume.read_spec(work.volume).shape
        voids = LabelSource(
            lambda at: (np.zeros(shape, np.uint8)[at], np.zeros(shape, np.int32)[at]), 0, (9,)
        )
        write_labels(work.volume, voids, place=work.place)
        return {"level": 0, "warnings": ["nothing but NASICON is in view"]}

    def measure(self, work: ScanWork) -> dict[str, Any]:
        self._begin("measure", work)
        rows = [{"object": i, "volume_um3": i / 3} for i in (1, 2)]
        columns = ("object", "volume_um3")
        update_table(work.tables / "objects.csv", work.name, rows, columns=columns, scans=work.scans)
        return {}

    def _begin(self, stage: str, work: ScanWork) -> None:
        self.done.append((stage, work.name))
        self.works.append(work)
        work.scratch(stage).mkdir(parents=True, exist_ok=True)
        if (stage, work.name) in self.fail:
            raise self.fail[stage, work.name]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The smallest simulated scan: what is done when and why does not depend on its size."""
    folder = tmp_path_factory.mktemp("simulated")
    scan, truth = phantom.simulated_scan(size="mini", seed=1)
    simulated_scan.write_raw(scan, truth, folder / "hex", layout="hex1")
    return folder / "hex" / "raw_data", truth


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> Stages:
    acting = Stages()
    monkeypatch.setattr(running, "segment", acting.segment)
    monkeypatch.setattr(running, "measure", acting.measure)
    # tables of stand-ins cannot be followed
    monkeypatch.setattr(running, "finish", lambda *_, **__: {})
    return acting


@pytest.fixture
def two(make: Make, simulated: tuple[Path, dict[str, Any]], tmp_path: Path) -> Make:
    """Maker of recipes for two scans."""
    folder = tmp_path / "raw"
    shutil.copytree(simulated[0], folder)
    (first,) = (path for path in folder.iterdir() if (path / "panda.hdf").exists())
    second = folder / "scan_00009"
    second.mkdir()
    for file in first.iterdir():
        shutil.copy(file, second / file.name.replace(first.name, second.name))
    return lambda **tables: make(**tables | {"raw": {"folder": str(folder)} | tables.get("raw", {})})


def test_a_run_does_all_stages_and_a_repeated_one_none(make: Make, acted: Stages) -> None:
    recipe = make()
    assert run(recipe).failed == {}
    (name,) = {name for _, name in acted.done}
    assert acted.done == [("segment", name), ("measure", name)]
    work = acted.works[0]
    assert work.volume == scan_folder(recipe.run_folder, name).volume
    assert work.mass is None
    assert work.scans == (name,)
    assert not work.scratch("segment").exists()
    record = json.loads((recipe.run_folder / "run.json").read_text())["scans"][name]
    assert {stage: entry["status"] for stage, entry in record["stages"].items()} == dict.fromkeys(
        LATER, "done"
    )
    assert json.loads((work.folder / "segment.json").read_text())["result"]["level"] == 0
    run(recipe)
    assert len(acted.done) == 2
    assert status(recipe.run_folder)[0].detail.endswith("edge.ome.zarr; segment done; measure done")


def test_later_stages_need_no_raw_data(
    two: Make, acted: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = two()
    assert run(recipe, stages=["reconstruct"]).failed == {}
    assert not acted.done
    shutil.rmtree(tmp_path / "raw")
    monkeypatch.setattr(inputs, "find", None)
    outcome = run(recipe, stages=["measure", "segment"])
    assert outcome.done == ["scan_00001", "scan_00009"]
    assert acted.done == [(stage, name) for name in outcome.done for stage in LATER]
    assert [scan.state for scan in status(recipe.run_folder)] == ["done", "done"]
    assert (recipe.run_folder / "tables" / "scans.csv").is_file()
    only = two(raw={"scans": ["*9"]}, segment={"min_voxels": 7})
    assert run(only, stages=["segment"]).done == ["scan_00009"]


@pytest.mark.parametrize(
    ("tables", "again", "said"),
    [
        ({"segment": {"min_voxels": 99}}, list(LATER), "segment.min_voxels: 8 -> 99"),
        ({"cell": {"nak_k_wtpct": 78.0}}, list(LATER), "cell.nak_k_wtpct: 50.0 -> 78.0"),
        ({"measure": {"mask_px": 5.0}}, ["measure"], "measure.mask_px: 3.0 -> 5.0"),
        ({"cell": {"electrode_area_cm2": 0.5}}, ["measure"], "cell.electrode_area_cm2: null -> 0.5"),
        ({"reconstruct": {"filter": "hann"}}, list(LATER), 'reconstruct.filter: "ramp" -> "hann"'),
        ({"name": "other", "compute": {"memory_gb": 3.0}, "cell": {"bore_mm": 6.0}}, [], ""),
    ],
)
def test_what_a_changed_setting_reaches_is_done_again_and_said(
    make: Make,
    acted: Stages,
    caplog: pytest.LogCaptureFixture,
    tables: dict[str, Any],
    again: list[str],
    said: str,
) -> None:
    run(make())
    acted.done.clear()
    slabs = scan_folder(make().run_folder, "scan_00001").root / "work" / "slabs"
    before = {path: path.stat().st_mtime_ns for path in slabs.iterdir()}
    with caplog.at_level("WARNING"):
        assert run(make(**tables)).failed == {}
    assert [stage for stage, _ in acted.done] == again
    assert said in caplog.text
    if again and "reconstruct" not in tables:
        assert f"to be done again: {' and '.join(again)}" in caplog.text
    assert ("reconstruct" in tables) == (
        before != {path: path.stat().st_mtime_ns for path in slabs.iterdir()}
    )


def test_labels_of_other_settings_are_measured_but_it_is_said(
    make: Make, acted: Stages, caplog: pytest.LogCaptureFixture
) -> None:
    run(make())
    with caplog.at_level("WARNING"):
        run(make(segment={"min_voxels": 99}, measure={"mask_px": 4.0}), stages=["measure"])
    assert "labels were made with other settings: segment.min_voxels: 8 -> 99" in caplog.text
    assert acted.done[2:] == [("measure", "scan_00001")]


def test_fresh_does_only_the_stages_asked_for_anew(make: Make, acted: Stages) -> None:
    recipe = make()
    run(recipe)
    state = scan_folder(recipe.run_folder, "scan_00001").state.read_text()
    run(recipe, stages=["measure"], fresh=True)
    assert [stage for stage, _ in acted.done] == ["segment", "measure", "measure"]
    assert scan_folder(recipe.run_folder, "scan_00001").state.read_text() == state
    assert status(recipe.run_folder)[0].state == "done"


def test_labels_that_were_deleted_are_made_again(make: Make, acted: Stages) -> None:
    recipe = make()
    run(recipe)
    shutil.rmtree(scan_folder(recipe.run_folder, "scan_00001").volume / "labels")
    assert "segment to be done again" in status(recipe.run_folder)[0].detail
    run(recipe)
    assert [stage for stage, _ in acted.done] == [*LATER, *LATER]


def test_a_scan_that_fails_leaves_the_others_and_its_volume(two: Make, acted: Stages) -> None:
    recipe = two()
    acted.fail["segment", "scan_00001"] = BadScan("scan_00001: no cell in view")
    outcome = run(recipe)
    assert outcome.done == ["scan_00009"]
    assert outcome.failed == {"scan_00001": "scan_00001: no cell in view"}
    assert acted.done == [("segment", "scan_00001"), ("segment", "scan_00009"), ("measure", "scan_00009")]
    first, second = status(recipe.run_folder)
    assert first.state == "done"
    assert "segment failed: scan_00001: no cell in view" in first.detail
    assert second.detail.endswith("segment done; measure done")
    acted.fail.clear()
    assert run(recipe).failed == {}
    assert acted.done[3:] == [("segment", "scan_00001"), ("measure", "scan_00001")]
    assert status(recipe.run_folder)[0].detail.endswith("segment done; measure done")


def test_a_recipe_that_cannot_be_run_stops_at_once(two: Make, acted: Stages) -> None:
    acted.fail["segment", "scan_00001"] = BadRecipe("compute.memory_gb = 0.1: too little")
    with pytest.raises(BadRecipe, match="memory_gb"):
        run(two())
    assert acted.done == [("segment", "scan_00001")]


def test_a_bug_in_a_stage_is_no_message(make: Make, acted: Stages) -> None:
    acted.fail["segment", "scan_00001"] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        run(make())
    assert "segment interrupted" in status(make().run_folder)[0].detail


def test_a_stage_without_its_input_says_what_to_run(make: Make, two: Make, acted: Stages) -> None:
    with pytest.raises(BadRecipe, match="no scan is reconstructed there; run the stage reconstruct first"):
        run(make(), stages=["segment"])
    run(two(raw={"scans": ["scan_00009"]}), stages=["reconstruct"])
    outcome = run(two(raw={"scans": ["scan_00009", "scan_00001"]}), stages=["segment"])
    assert outcome.done == ["scan_00009"]
    text = "scan_00001: no volume to segment; run the stage reconstruct first"
    assert outcome.failed == {"scan_00001": text}
    run(two(), stages=["reconstruct"])
    outcome = run(two(), stages=["measure"])
    assert outcome.failed["scan_00001"] == "scan_00001: no labels to measure; run the stage segment first"


def test_a_classifier_is_known_by_its_content(make: Make, acted: Stages, tmp_path: Path) -> None:
    recipe = make(segment={"classifier": "trees.npz"})
    assert recipe.segment.classifier == tmp_path / "trees.npz"
    with pytest.raises(BadRecipe, match=r"segment.classifier.*cannot be read.*leave it out"):
        run(recipe)
    for content in (b"one", b"one", b"two"):
        (tmp_path / "trees.npz").write_bytes(content)
        run(recipe)
    assert [stage for stage, _ in acted.done] == [*LATER, *LATER]


def test_two_workers_of_a_real_scheduler_label_as_this_process_does(scheduler: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    codes = (rng.random((48, 40, 36)) < 0.1).astype(np.uint8)
    source = scratch(tmp_path / "codes.zarr", shape=codes.shape, dtype=np.uint8, edge=64)
    (whole,) = blocks_of(codes.shape, edge=64)
    source.write(whole, codes)
    found = {}
    with running.workers(scheduler) as client:
        for where, place in (("there", running._on_workers(client)), ("here", in_this_process(1))):
            work = Work(codes.shape, blocks_of(codes.shape, edge=16), tmp_path / where, "pores", place)
            labels, components, _ = label(source.read, work)
            found[where] = labels.read(whole.where)
            assert components.n == found[where].max() > 100
        stale, place = replace(source, token="another"), running._on_workers(client)
        with pytest.raises(BadScan, match="a later run works there"):
            run_blocks(partial(Scratch.write, stale, values=codes), [whole], name="stale", place=place)
    np.testing.assert_array_equal(found["here"], found["there"])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_tables_keep_the_order_of_scans_however_they_are_filled(tmp_path: Path) -> None:
    path, scans, columns = tmp_path / "tables" / "objects.csv", ("b", "a", "c"), ("object", "volume_um3")
    for scan, n in (("c", 1), ("a", 2), ("b", 3), ("a", 1)):
        rows = [{"object": i, "volume_um3": 1 / 3} for i in range(1, n + 1)]
        update_table(path, scan, rows, columns=columns, scans=scans)
    assert [(row["scan"], row["object"]) for row in rows_of(path)] == [
        *(("b", str(i)) for i in (1, 2, 3)), ("a", "1"), ("c", "1")
    ]  # fmt: skip
    update_table(path, "b", [], columns=columns, scans=scans)
    assert [row["scan"] for row in rows_of(path)] == ["a", "c"]
    update_table(path, "a", [{"object": 5}], columns=("object", "kind"), scans=("a",))
    assert rows_of(path) == [{"scan": "a", "object": "5", "kind": ""}]


def test_how_values_are_written_in_tables(tmp_path: Path) -> None:
    row = {
        "third": 1 / 3, "small": np.float32(0.1), "none": None, "nan": np.nan, "inf": float("inf"),
        "yes": np.True_, "n": np.int64(12345678), "minus": -0.0, "text": "a,b", "large": 123456789.0,
    }  # fmt: skip
    update_table(tmp_path / "t.csv", "s", [row], columns=tuple(row), scans=("s",))
    (read,) = rows_of(tmp_path / "t.csv")
    assert read == {
        "scan": "s", "third": "0.3333333", "small": "0.1", "none": "", "nan": "", "inf": "", "yes": "True",
        "n": "12345678", "minus": "0", "text": "a,b", "large": "1.234568e+08",
    }  # fmt: skip


def test_a_column_that_the_table_has_not_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="depht_um"):
        update_table(tmp_path / "t.csv", "s", [{"depht_um": 1}], columns=("depth_um",), scans=("s",))


PLAIN: dict[str, Any] = {
    "name": "test",
    "run_folder": "run",
    "raw": {"folder": "raw", "energy_kev": 80.0, "pixel_um": 1.3},
}


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"segment": {"threshold": 3.0}}, ["segment.threshold", "threshold_sigma"]),
        ({"segment": {"crack_sigmas_px": []}}, ["segment.crack_sigmas_px", "at least 1"]),
        ({"segment": {"crack_sigmas_px": [1.0, -2.0]}}, ["segment.crack_sigmas_px.1", "greater than 0"]),
        ({"segment": {"level": "fine"}}, ["segment.level", "fine", "auto"]),
        ({"segment": {"level": -1}}, ["segment.level", "-1"]),
        ({"segment": {"seed_sigma": 2.0}}, ["seed_sigma = 2", "threshold_sigma = 6"]),
        ({"segment": {"min_voxels": 0}}, ["segment.min_voxels", "0"]),
        ({"segment": {"blind_px": -1.0}}, ["segment.blind_px", "-1"]),
        ({"measure": {"mask_px": 0}}, ["measure.mask_px", "0"]),
        ({"measure": {"rings_px": 4.0}}, ["measure.rings_px", "did you mean 'ring_px'"]),
        ({"cell": {"up": "top"}}, ["cell.up", "top", "nak"]),
        ({"cell": {"nak_k_wtpct": 101.0}}, ["cell.nak_k_wtpct", "101"]),
        ({"cell": {"nasicon_density_g_cm3": 0.0}}, ["cell.nasicon_density_g_cm3"]),
        ({"reconstruct": {"padding": "cylinder"}}, ["bore_mm and wall_mm"]),
        ({"reconstruct": {"padding": "cylinder"}, "cell": {"wall_mm": 2.0}}, ["bore_mm and wall_mm"]),
        ({"reconstruct": {"padding": "cylinder"}, "cell": {"up": "nak"}}, ["bore_mm and wall_mm"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(tables: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(BadRecipe) as info:
        make_recipe({**PLAIN, **tables}, base=Path())
    for word in words:
        assert word in str(info.value)


def test_which_settings_matter_to_which_stage() -> None:
    """Each change is seen by the stages that it reaches, and by no other."""
    plain = make_recipe(PLAIN, base=Path())
    tube = {"bore_mm": 6.0, "wall_mm": 2.0}
    changes: list[tuple[dict[str, Any], tuple[bool, bool, bool]]] = [
        ({"cell": {"up": "na"}}, (False, True, True)),
        ({"cell": {"nasicon_density_g_cm3": 3.0}}, (False, True, True)),
        ({"cell": {"electrode_area_cm2": 0.1257}}, (False, False, True)),
        ({"cell": tube}, (True, False, False)),
        ({"cell": {"bore_mm": 6.0}}, (False, False, False)),
        ({"segment": {"min_voxels": 20}}, (False, True, False)),
        ({"measure": {"ring_px": 5.0}}, (False, False, True)),
        ({"reconstruct": {"filter": "hann"}}, (True, False, False)),
        ({"raw": {**PLAIN["raw"], "energy_kev": 60.0}}, (True, True, True)),
    ]
    for tables, reached in changes:
        other = make_recipe({**PLAIN, **tables}, base=Path())
        of = (what_matters, segment_matters, measure_matters)
        assert tuple(matters(other) != matters(plain) for matters in of) == reached, tables
    hidden = make_recipe({**PLAIN, "cell": {**tube, "up": "na", "nak_k_wtpct": 78.0}}, base=Path())
    assert what_matters(hidden) == what_matters(make_recipe({**PLAIN, "cell": tube}, base=Path()))


def test_all_sections_are_read_back(tmp_path: Path) -> None:
    import tomllib

    table = {
        "segment": {"level": 2, "classifier": "a.npz"},
        "cell": {"up": "na"},
        "measure": {"mask_px": 2.5},
    }
    recipe = make_recipe({**PLAIN, **table}, base=tmp_path)
    again = make_recipe(tomllib.loads(to_toml(recipe)), base=Path("/elsewhere"))
    assert (again.segment, again.measure, again.cell) == (recipe.segment, recipe.measure, recipe.cell)


@pytest.mark.parametrize(
    ("found_cm1", "published_cm1"),
    [
        (materials.nasicon_cm1(80), 2.332),
        (materials.nasicon_cm1(80, density_g_cm3=3.041), 2.169),
        (materials.nak_cm1(80, k_wtpct=50), 0.2239),
        (materials.nak_cm1(80, k_wtpct=65), 0.2389),
        (materials.nak_cm1(80, k_wtpct=80), 0.2533),
        (materials.sodium_cm1(80), 0.1739),
        (materials.aluminium_cm1(80), 0.545),
        (materials.nak_density_g_cm3(50), 0.887),
        (materials.nak_density_g_cm3(80), 0.856),
    ],
)
def test_attenuation_of_the_materials_of_the_cell(found_cm1: float, published_cm1: float) -> None:
    """Against the tables of xraylib 4.3.0, which are other ones than those of xraydb."""
    assert found_cm1 == pytest.approx(published_cm1, rel=0.01)
