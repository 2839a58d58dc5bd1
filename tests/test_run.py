import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from reconstructing import run

from xctpipe import conveyor, inputs, phantom, shards, simulated_scan, volume
from xctpipe import run as running
from xctpipe.conveyor import run_lane
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.plan import cut
from xctpipe.prepare import prepare, volume_path
from xctpipe.recipe import Recipe, make_recipe, to_toml
from xctpipe.record import axis_moved
from xctpipe.run import split
from xctpipe.runfolder import scan_folder
from xctpipe.status import status

pytestmark = pytest.mark.usefixtures("assessed_once")
Make = Callable[..., Recipe]


@pytest.fixture
def low_slabs(monkeypatch: pytest.MonkeyPatch) -> int:
    """Slabs of 16 rows, so that a small scan has several."""
    monkeypatch.setattr("xctpipe.plan.MAX_SLAB_ROWS", 16)
    return 16


def _only_scan(recipe: Recipe) -> str:
    (found,) = inputs.find(recipe.raw)
    return found.name


def _levels(recipe: Recipe) -> list[np.ndarray[Any, Any]]:
    path = volume_path(recipe.run_folder, _only_scan(recipe))
    return [volume.read(path, level=level) for level in range(volume.read_spec(path).n_levels)]


def _same(a: list[np.ndarray[Any, Any]], b: list[np.ndarray[Any, Any]]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def _record(recipe: Recipe) -> dict[str, Any]:
    return json.loads((recipe.run_folder / "run.json").read_text())["scans"][_only_scan(recipe)]


def _marked(recipe: Recipe) -> dict[str, int]:
    folder = scan_folder(recipe.run_folder, _only_scan(recipe)).root / "work" / "slabs"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}


def test_a_run_gives_the_documented_folder(make: Make, simulated: tuple[Path, dict[str, Any]]) -> None:
    recipe = make()
    outcome = run(recipe)
    name = _only_scan(recipe)
    assert outcome.done == [name]
    assert outcome.failed == {}
    for path in ("recipe.toml", "run.json", "tables/scans.csv", f"scans/{name}/edge.ome.zarr/zarr.json"):
        assert (recipe.run_folder / path).is_file(), path
    record = _record(recipe)
    assert record["status"] == "done"
    assert {"read", "flat+zingers", "log", "reconstruct", "write"} <= set(record["seconds"])
    assert record["input"]["files"]
    truth = simulated[1]
    assert record["row"]["center_px"] == pytest.approx(truth["center_px"], abs=0.25)
    assert record["row"]["center_confidence"] > 0.5
    assert record["row"]["noise_cm1"] > 0
    assert record["row"]["resolution_um"] >= 2 * truth["pixel_um"]


def test_slab_height_changes_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = []
    for rows in (64, 16, 8):
        monkeypatch.setattr("xctpipe.plan.MAX_SLAB_ROWS", rows)
        recipe = make(run_folder=f"run{rows}")
        run(recipe)
        volumes.append(_levels(recipe))
    assert _same(volumes[0], volumes[1])
    assert _same(volumes[0], volumes[2])


def test_a_repeated_run_does_nothing_again(make: Make, low_slabs: int) -> None:
    recipe = make()
    run(recipe)
    before = _marked(recipe)
    assert len(before) == 64 // low_slabs
    run(recipe)
    assert _marked(recipe) == before


def test_only_unfinished_slabs_are_redone(make: Make, low_slabs: int) -> None:
    recipe = make()
    run(recipe)
    whole, before = _levels(recipe), _marked(recipe)
    folder = scan_folder(recipe.run_folder, _only_scan(recipe))
    lost = sorted(before)[1]
    (folder.root / "work" / "slabs" / lost).unlink()
    spec = volume.read_spec(folder.volume)
    volume.write_slab(folder.volume, spec, low_slabs, slab=np.ones((low_slabs, 96, 96), np.float32))
    run(recipe)
    after = _marked(recipe)
    assert {name for name in after if after[name] != before[name]} == {lost}
    assert _same(_levels(recipe), whole)


def test_a_changed_recipe_is_noticed_and_said(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    recipe = make(reconstruct={"filter": "ramp"})
    run(recipe)
    first = _levels(recipe)
    changed = make(reconstruct={"filter": "hann"})
    with caplog.at_level("WARNING"):
        run(changed)
    assert 'reconstruct.filter: "ramp" -> "hann"' in caplog.text
    assert "done again" in caplog.text
    assert not _same(first, _levels(changed))


def test_memory_and_name_may_change_without_a_redo(make: Make, low_slabs: int) -> None:
    run(make(compute={"memory_gb": 4}))
    before = _marked(make())
    run(make(name="other", compute={"memory_gb": 3}))
    assert _marked(make()) == before


def test_fresh_discards(make: Make) -> None:
    recipe = make()
    run(recipe)
    before = _marked(recipe)
    run(recipe, fresh=True)
    after = _marked(recipe)
    assert before.keys() == after.keys()
    assert all(after[name] != before[name] for name in after)


@pytest.mark.parametrize("fresh", [False, True])
def test_what_is_done_is_kept_when_a_new_beginning_fails(
    make: Make, simulated: tuple[Path, dict[str, Any]], tmp_path: Path, fresh: bool
) -> None:
    folder = tmp_path / "raw"
    shutil.copytree(simulated[0], folder)
    recipe = make(raw={"folder": str(folder)})
    run(recipe)
    whole = _levels(recipe)
    with pytest.raises(BadRecipe, match="outside the detector"):
        run(make(raw={"folder": str(folder)}, center={"center_px": 1600.0}), fresh=fresh)
    assert _same(_levels(recipe), whole)
    frames = next(folder.glob("*/proj*"))
    frames.write_bytes(frames.read_bytes()[:100_000])
    assert run(recipe, fresh=fresh).failed
    path = volume_path(recipe.run_folder, "scan_00001")
    assert np.array_equal(volume.read(path), whole[0])


def test_other_data_of_the_same_name_do_not_replace_results(
    make: Make, simulated: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    recipe = make()
    run(recipe)
    whole = _levels(recipe)
    scan, _ = phantom.simulated_scan(size="mini", seed=9)
    other = make(raw={"folder": str(simulated_scan.write_raw(scan, {}, tmp_path / "other", layout="hex1"))})
    with pytest.raises(BadRecipe, match="--fresh"):
        run(other)
    assert _same(_levels(recipe), whole)
    run(other, fresh=True)
    assert len(_levels(other)[0]) == scan.shape[1]


def test_what_an_interrupted_removal_left_is_not_taken_for_finished(make: Make) -> None:
    recipe = make()
    run(recipe)
    whole = _levels(recipe)
    folder = scan_folder(recipe.run_folder, _only_scan(recipe))
    folder.state.unlink()
    next(folder.volume.glob("0/c/**/*")).parent.rename(folder.root / "gone")
    run(recipe)
    assert _same(_levels(recipe), whole)


def _start(recipe: Recipe, tmp_path: Path) -> BaseProcess:
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe))
    process = processes.context().Process(target=processes.run_in_low_slabs, args=(path,), kwargs={"rows": 8})
    process.start()
    return process


def test_a_run_killed_at_any_moment_and_repeated_gives_the_identical_array(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xctpipe.plan.MAX_SLAB_ROWS", 8)
    whole = make(run_folder="whole")
    run(whole)
    recipe = make()
    kills = 0
    for wanted in (0, 2, 5):
        process = _start(recipe, tmp_path)
        while process.is_alive() and len(_marked(recipe)) <= wanted:
            time.sleep(0.001)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        assert status(recipe.run_folder)[0].state in {"interrupted", "done"}
    assert kills
    kept = _marked(recipe)
    run(recipe)
    assert kept.items() <= _marked(recipe).items()
    assert _same(_levels(recipe), _levels(whole))


def test_two_worker_processes_of_a_real_scheduler_give_the_same_array(
    make: Make, scheduler: str, low_slabs: int
) -> None:
    here, there = make(run_folder="here"), make(run_folder="there")
    run(here)
    run(there, scheduler=scheduler)
    assert _same(_levels(here), _levels(there))


def test_no_scheduler_at_the_address(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "CONNECT_S", 1)
    with pytest.raises(BadRecipe, match="no dask scheduler answers"):
        run(make(), scheduler="tcp://127.0.0.1:9")


def test_an_unknown_stage(make: Make) -> None:
    with pytest.raises(BadRecipe, match="did you mean 'reconstruct'"):
        run(make(), stages=["reconstuct"])


def test_lanes_keep_neighbours_together() -> None:
    slabs = cut(100, slab_rows=8, halo_rows=0)
    lanes = split(slabs, n_lanes=4)
    assert [slab for lane in lanes for slab in lane] == list(slabs)
    assert len(lanes) == 4
    assert max(map(len, lanes)) - min(map(len, lanes)) <= 1
    assert len(split(slabs, n_lanes=50)) == len(slabs)


def test_a_crop_keeps_its_place_in_the_detector(make: Make, simulated: tuple[Path, dict[str, Any]]) -> None:
    whole, part = make(run_folder="whole"), make(run_folder="part", raw={"rows": [8, 40], "columns": [4, 92]})
    run(whole)
    run(part)
    spec = volume.read_spec(volume_path(part.run_folder, _only_scan(part)))
    assert spec.first_row == 8
    assert spec.shape == (32, 88, 88)
    assert _record(part)["row"]["center_px"] == pytest.approx(simulated[1]["center_px"], abs=0.25)


def test_a_crop_outside_the_detector(make: Make) -> None:
    with pytest.raises(BadRecipe, match=r"raw\.rows.*64"):
        run(make(raw={"rows": [0, 65]}))


def test_a_given_axis_is_used(make: Make) -> None:
    recipe = make(center={"center_px": 50.25})
    run(recipe)
    assert _record(recipe)["row"]["center_px"] == 50.25


@pytest.mark.parametrize("dtype", ["uint16", "uint8"])
def test_integers_with_a_stored_scale(make: Make, dtype: str) -> None:
    plain = make(run_folder="plain", volume={"keep_bits": 23})
    small = make(run_folder="small", volume={"dtype": dtype})
    run(plain)
    run(small)
    spec = volume.read_spec(volume_path(small.run_folder, _only_scan(small)))
    whole, stored = _levels(plain)[0], _levels(small)[0]
    clipped = np.clip(whole, spec.offset, spec.offset + spec.scale * np.iinfo(dtype).max)
    assert np.abs(clipped - stored).max() < 0.51 * spec.scale
    assert np.abs(stored[:, 0, 0]).max() < 1e-6, "nothing outside the view must stay nothing"


def test_a_damaged_scan_fails_and_the_others_are_finished(
    make: Make, simulated: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for child in simulated[0].iterdir():
        (folder / child.name).symlink_to(child)
    broken = folder / "scan_00099"
    broken.mkdir()
    good = next(path for path in folder.iterdir() if (path / "panda.hdf").exists())
    for file in good.iterdir():
        content = file.read_bytes()
        if "proj" in file.name:
            content = content[: len(content) // 2]
        (broken / file.name.replace(good.name, broken.name)).write_bytes(content)
    recipe = make(raw={"folder": str(folder)})
    outcome = run(recipe)
    assert outcome.done == [good.name]
    assert list(outcome.failed) == [broken.name]
    assert "truncated" in outcome.failed[broken.name]
    states = {scan.name: scan.state for scan in status(recipe.run_folder) if scan.of_scan}
    assert states == {good.name: "done", broken.name: "failed"}


def test_a_full_disk_keeps_what_is_done(make: Make, monkeypatch: pytest.MonkeyPatch, low_slabs: int) -> None:
    recipe = make()
    write = shards.write_shard
    fail_from = 2 * low_slabs

    def full(path: Path, **content: Any) -> None:
        # shards are .../level/c/z/y/x and one chunk of a slab high
        if path.parts[-5] == "0" and int(path.parts[-3]) * low_slabs >= fail_from:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, **content)

    monkeypatch.setattr(shards, "write_shard", full)
    outcome = run(recipe)
    (message,) = outcome.failed.values()
    assert "No space left" in message
    assert "what was written before is kept" in message
    kept = _marked(recipe)
    assert len(kept) == 2
    monkeypatch.setattr(shards, "write_shard", write)
    assert run(recipe).failed == {}
    assert kept.items() <= _marked(recipe).items()


def test_a_worker_left_from_an_earlier_run_writes_nothing_into_a_later_one(
    make: Make, low_slabs: int
) -> None:
    recipe = make()
    (found,) = inputs.find(recipe.raw)
    scan = inputs.open_one(recipe.raw, found)
    old = prepare(scan, recipe)
    run(make(reconstruct={"filter": "hann"}))
    kept = _levels(recipe)
    assert run_lane(old.job, old.plan.slabs, threads=1) == 0
    sink = conveyor.VolumeSink(old.job)
    with pytest.raises(BadScan, match="a later run"):
        sink.write(old.plan.slabs[0], conveyor.Block("edge", kept[0][:low_slabs] + 1), conveyor.Clock())
    assert _same(_levels(recipe), kept)


def test_the_memory_of_a_run_stays_below_what_the_recipe_allows(tmp_path: Path) -> None:
    scan, truth = phantom.simulated_scan(size="small", seed=1, n_angles=301, rows=96, cols=512)
    raw = simulated_scan.write_raw(scan, truth, tmp_path / "sim", layout="dxchange")
    table = {"folder": str(raw), "energy_kev": 80.0, "pixel_um": truth["pixel_um"]}
    tables = {"raw": table, "center": {"center_px": truth["center_px"]}, "compute": {"memory_gb": 0.9}}
    recipe = make_recipe({"name": "t", "run_folder": "run", **tables}, base=tmp_path)
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe))
    # not ru_maxrss, which counts what this process held when it started that one
    code = (
        "import re; from xctpipe.cli import main; code = main();"
        "print(code, re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    )
    command = [sys.executable, "-c", code, "run", str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    exit_code, peak_kib = out.split()[-2:]
    record = json.loads((recipe.run_folder / "run.json").read_text())["scans"]["scan_00001"]
    assert exit_code == "0"
    assert record["slabs"] > 1
    assert int(peak_kib) * 1024 < 0.9e9


def test_a_second_run_in_the_same_folder_is_refused(make: Make) -> None:
    from xctpipe.runfolder import locked

    recipe = make()
    with locked(recipe.run_folder), pytest.raises(BadRecipe, match="another xctpipe is working in it"):
        run(recipe)


def test_a_run_folder_that_is_a_file(make: Make, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(BadRecipe, match="cannot be written"):
        run(make())


def test_blank_frames_are_left_out_and_said(
    make: Make, simulated: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    import h5py

    folder = tmp_path / "raw"
    shutil.copytree(simulated[0], folder)
    with h5py.File(next(folder.glob("*/proj*")), "r+") as file:
        for frame in (40, 41, 100):
            file["entry/data/data"][frame] = 0
    recipe = make(raw={"folder": str(folder)})
    run(recipe)
    record = _record(recipe)
    assert record["row"]["n_bad_frames"] == 3
    assert any("40, 41, 100" in text for text in record["warnings"])


def test_continuing_needs_the_survey_it_began_with(make: Make, low_slabs: int) -> None:
    recipe = make()
    (found,) = inputs.find(recipe.raw)
    scan = inputs.open_one(recipe.raw, found)
    first = prepare(scan, recipe)
    again = prepare(scan, recipe)
    assert first.plan == again.plan
    assert np.array_equal(first.job.survey.angles_rad, again.job.survey.angles_rad)
    assert first.job.survey.axis == again.job.survey.axis


@pytest.mark.parametrize(
    ("center_px", "uncertainty_px", "said"),
    [(100.9, 0.05, False), (101.2, 0.05, True), (101.2, 0.4, False), (97.0, None, True)],
)
def test_an_axis_that_moved_from_the_first_scan_is_said(center_px, uncertainty_px, said) -> None:
    first = {"scan": "a", "center_px": 100.0, "center_uncertainty_px": 0.05}
    later = {"scan": "b", "center_px": center_px, "center_uncertainty_px": uncertainty_px}
    assert bool(axis_moved(later, first)) == said
    assert axis_moved(first, first) == ""
