import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from reconstructing import run

from xctpipe import compare, pairs, side_by_side, volume
from xctpipe.cli import main
from xctpipe.recipe import Recipe

SHAPE = (10, 24, 24)
NOISE = 0.1
FloatVolume = np.ndarray[Any, np.dtype[np.float32]]

RECIPE = {
    "correct": [{"do": "zingers", "size_px": 2}, {"do": "stripes_sorting", "size_px": 9}],
    "reconstruct": {"filter": "ramp"},
}


@pytest.fixture(autouse=True)
def _no_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time: only the tests that are about them make any."""
    if "picture" not in request.node.name:
        monkeypatch.setattr(side_by_side, "save_picture", lambda _, path: path)


def sample(*, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> FloatVolume:
    values = np.random.default_rng(seed).normal(1.0, 0.5, shape)
    return (values * compare.inside_circle(*shape[1:])).astype(np.float32)


def write_run(root: Path, data: Any, *, recipe: Any = RECIPE, **changes: Any) -> Path:
    """A run folder with finished scans: arrays by name, or one array for scan_1."""
    scans = {}
    for name, values in (data if isinstance(data, dict) else {"scan_1": data}).items():
        spec = volume.VolumeSpec(values.shape, **{"pixel_um": 2.0, "first_row": 5, "slab_rows": 0, **changes})
        path = root / "scans" / name / "edge.ome.zarr"
        attributes = {"scan": name, "recipe": recipe, "version": "1", "center_px": 11.25}
        volume.create(path, spec, name=name, attributes=attributes)
        for z0, z1 in spec.slabs:
            volume.write_slab(path, spec, z0, slab=values[z0:z1])
        found = {"noise_cm1": NOISE, "resolution_um": 7.0}
        scans[name] = {"status": "done", "assessment": found}
    (root / "run.json").write_text(json.dumps({"scans": scans}))
    return root


def compared(a: Path, b: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    capsys.readouterr()
    picture = a.parent / "picture.png"
    assert main(["compare", str(a), str(b), "--json", "--png", str(picture), *options]) == 0
    return dict(json.loads(capsys.readouterr().out))


def only(result: dict[str, Any]) -> dict[str, Any]:
    (found,) = result["scans"]
    return dict(found)


def test_the_numbers_are_those_of_the_definitions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = sample()
    b = (1.25 * a + sample(seed=1) / 8).astype(np.float32)
    inside = np.broadcast_to(compare.inside_circle(*SHAPE[1:]), SHAPE)
    x, y = a[inside].astype(np.float64), b[inside].astype(np.float64)
    d = y - x
    found = only(compared(write_run(tmp_path / "a", a), write_run(tmp_path / "b", b), capsys))
    assert found["voxels"] == inside.sum()
    assert not found["identical"]
    assert found["rms_cm1"] == pytest.approx(np.sqrt(np.mean(d**2)), rel=1e-9)
    assert found["max_cm1"] == pytest.approx(np.abs(d).max(), rel=1e-12)
    assert found["bias_cm1"] == pytest.approx(d.mean(), rel=1e-9)
    assert found["mean_ratio"] == pytest.approx(y.mean() / x.mean(), rel=1e-9)
    assert found["correlation"] == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-9)
    assert found["changed_frac"] == pytest.approx(np.mean(np.abs(d) > 3 * NOISE))
    assert found["difference_percentiles_cm1"] == pytest.approx(np.percentile(d, [0.5, 50, 99.5]))
    assert found["a"]["percentiles_cm1"] == pytest.approx(np.percentile(x, [0.5, 50, 99.5]))
    assert found["b"]["std_cm1"] == pytest.approx(y.std(), rel=1e-9)
    assert (found["a"]["noise_cm1"], found["a"]["resolution_um"]) == (NOISE, 7.0)
    assert (found["a"]["center_px"], found["a"]["pixel_um"], found["a"]["shape"]) == (11.25, 2.0, list(SHAPE))


def test_equal_volumes_are_said_to_be_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "a", sample())
    b = write_run(tmp_path / "b", sample(), slab_rows=5)
    found = only(compared(a, b, capsys))
    assert found["identical"]
    assert (found["rms_cm1"], found["max_cm1"], found["settings"]) == (0, 0, [])
    # a bit that no tolerance would see
    changed = sample()
    changed[3, 12, 12] = np.nextafter(changed[3, 12, 12], np.float32(9))
    assert not only(compared(a, write_run(tmp_path / "c", changed), capsys))["identical"]


def test_the_pieces_that_are_read_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = write_run(tmp_path / "a", sample(), slab_rows=5), write_run(tmp_path / "b", sample(seed=1))
    ((one, other),), _ = pairs.open_pairs(a, b)
    results = []
    for memory, cpus in ((1, 1), (10**6, 2), (10**12, 3)):
        monkeypatch.setattr(compare, "usable_memory_bytes", lambda memory=memory: memory)
        monkeypatch.setattr(compare, "usable_cpus", lambda cpus=cpus: cpus)
        results.append(compare.compare(pairs.match(one, other, rows=(7, 14))))
    assert results[0] == results[1] == results[2]


def test_a_sample_of_the_voxels_gives_the_percentiles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "_MOST_SAMPLES", 30_000)
    shape = (40, 96, 96)
    a, b = sample(shape=shape), sample(seed=1, shape=shape)
    found = only(compared(write_run(tmp_path / "a", a), write_run(tmp_path / "b", b), capsys))
    assert found["sample_step"] > 5
    inside = np.broadcast_to(compare.inside_circle(96, 96), shape)
    # standard error of the quantiles of 30 000 normal differences is 0.02 at most; five of them
    truth = np.percentile((b - a)[inside], [0.5, 50, 99.5])
    assert found["difference_percentiles_cm1"] == pytest.approx(truth, abs=0.1)


def test_values_that_are_not_finite_are_counted_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = sample()
    broken[2, 10:12, 10] = np.nan
    result = compared(write_run(tmp_path / "a", sample()), write_run(tmp_path / "b", broken), capsys)
    assert only(result)["not_finite"] == 2
    assert only(result)["rms_cm1"] == 0
    assert not only(result)["identical"]


def test_settings_that_differ_are_listed_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {
        "correct": [{"do": "stripes_sorting", "size_px": 31}],
        "reconstruct": {"filter": "hann"},
    }
    a = write_run(tmp_path / "a", sample())
    lines = only(compared(a, write_run(tmp_path / "b", sample(), recipe=other), capsys))["settings"]
    assert sorted(line.split(":")[0] for line in lines) == [
        "correct.stripes_sorting.size_px",
        "correct.zingers",
        "reconstruct.filter",
    ]
    turned = {**RECIPE, "correct": RECIPE["correct"][::-1]}  # type: ignore[index]
    (line,) = only(compared(a, write_run(tmp_path / "c", sample(), recipe=turned), capsys))["settings"]
    assert line == "order of correct: zingers, stripes_sorting -> stripes_sorting, zingers"


def test_two_real_runs_and_their_picture(
    make: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = [
        make(name=name, run_folder=name, raw={"rows": [16, 32]}, reconstruct={"filter": name})
        for name in ("ramp", "hann")
    ]
    folders = [str(recipe.run_folder) for recipe in recipes if run(recipe).done]
    assert main(["compare", *folders]) == 0
    text = capsys.readouterr().out
    assert 'setting reconstruct.filter: "ramp" -> "hann"' in text
    assert "rows 16:32" in text
    picture = Path(text.split("picture: ")[1].split("\n")[0])
    assert picture == recipes[0].run_folder.parent / "compare_ramp_hann" / "scan_00001.png"
    assert picture.stat().st_size > 10_000
    # the filter takes noise away and keeps the mean
    found = only(compared(Path(folders[0]), Path(folders[1]), capsys))
    assert Path(found["picture"]) == recipes[0].run_folder.parent / "picture.png"
    assert main(["compare", *folders, "--png", str(picture / "x.png")]) == 2  # below a file
    assert "--png" in capsys.readouterr().err
    assert found["b"]["std_cm1"] < found["a"]["std_cm1"]
    assert found["mean_ratio"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("to", ["tiff", "hdf5"])
@pytest.mark.parametrize("stored", ["float32", "uint16"])
def test_a_volume_and_its_export_are_equal(
    to: str, stored: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scale = {} if stored == "float32" else {"dtype": stored, "scale": 6 / 65535, "offset": -2.0}
    a = write_run(tmp_path / "a", sample(), **scale)
    assert main(["export", str(a), "--to", to, "--out", str(tmp_path / "out"), "--rows", "8:12"]) == 0
    path = tmp_path / "out" / ("scan_1" if to == "tiff" else "scan_1.hdf")
    result = compared(a, path, capsys)
    assert only(result)["identical"]
    assert only(result)["rows"] == [8, 12]
    assert any("different rows" in note for note in only(result)["notes"])


def test_slices_of_another_program_are_compared_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_run(tmp_path / "a", sample())
    (tmp_path / "tifs").mkdir()
    for i, image in enumerate(sample() * np.float32(0.5)):
        tifffile.imwrite(tmp_path / "tifs" / f"rec_{i}.tif", image)  # ten files whose names do not sort
    with h5py.File(tmp_path / "b.hdf", "w") as file:
        file["entry/data/data"] = sample() * np.float32(0.5)
    for path in (tmp_path / "tifs", tmp_path / "b.hdf"):
        found = only(compared(a, path, capsys))
        assert found["mean_ratio"] == pytest.approx(0.5)
        assert found["correlation"] == pytest.approx(1)
        assert any("neither voxel size" in note for note in found["notes"])
    (tmp_path / "tifs" / "rec_9.tif").unlink()
    assert main(["compare", str(a), str(tmp_path / "tifs")]) == 3
    assert "10 and 9 slices" in capsys.readouterr().err


def test_the_common_rows_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = sample()
    a = write_run(tmp_path / "a", whole)
    b = write_run(tmp_path / "b", whole[4:8].copy(), first_row=9)
    assert only(compared(a, b, capsys))["rows"] == [9, 13]
    assert only(compared(b, a, capsys, "--rows", "10:12"))["rows"] == [10, 12]
    assert only(compared(a, b, capsys))["identical"]
    assert main(["compare", str(a), str(b), "--rows", "5:8"]) == 2
    assert "9:13 in common" in capsys.readouterr().err
    far = write_run(tmp_path / "far", whole, first_row=500)
    assert main(["compare", str(a), str(far)]) == 3
    assert "no common row" in capsys.readouterr().err


def test_several_scans_and_those_without_partner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "a", {"s1": sample(), "s2": sample(), "s3": sample()})
    b = write_run(tmp_path / "b", {"s1": sample(), "s3": sample(seed=2), "s4": sample()})
    result = compared(a, b, capsys)
    assert [(found["scan"], found["identical"]) for found in result["scans"]] == [("s1", True), ("s3", False)]
    assert [Path(found["picture"]).name for found in result["scans"]] == ["picture_s1.png", "picture_s3.png"]
    assert {line.split(": ")[1] for line in result["notes"]} == {"s2", "s4"}
    assert [found["scan"] for found in compared(a, b, capsys, "--scan", "s3")["scans"]] == ["s3"]
    assert main(["compare", str(a), str(b / "scans" / "s4" / "edge.ome.zarr")]) == 3
    assert "nothing to compare" in capsys.readouterr().err
    small = {"s1": sample()[:, 2:-2, 2:-2].copy(), "s3": sample()}
    assert main(["compare", str(a), str(write_run(tmp_path / "c", small))]) == 3
    out, err = capsys.readouterr()
    assert "24 x 24 and 20 x 20" in err
    assert "identical bit for bit" in out  # of the other one


def test_voxels_of_other_size_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write_run(tmp_path / "a", sample()), write_run(tmp_path / "b", sample(), pixel_um=2.5)
    assert any("2 and 2.5 um" in note for note in only(compared(a, b, capsys))["notes"])


def test_mistakes_give_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_run(tmp_path / "a", sample())
    unfinished = write_run(tmp_path / "u", sample())
    record = unfinished / "run.json"
    record.write_text(record.read_text().replace("done", "failed"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "rec_00000.tif").write_text("no image")
    (tmp_path / "bad.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["exchange/data"] = sample()
    volumes = str(a / "scans/scan_1/edge.ome.zarr")
    for code, word, call in (
        (2, "neither a run folder", [str(a), str(tmp_path)]),
        (2, "no such file", [str(a), str(tmp_path / "absent")]),
        (3, "scan_1 (failed", [str(a), str(unfinished)]),
        (3, "not a TIFF slice", [str(a), str(tmp_path / "bad")]),
        (3, "cannot be read as HDF5", [str(a), str(tmp_path / "bad.h5")]),
        (2, "entry/data/data", [str(a), str(tmp_path / "raw.h5")]),
        (2, "A:B", [str(a), str(a), "--rows", "3"]),
        (2, "scan_1", [str(a), str(a), "--scan", "scan_7"]),
        (2, "run folders", [volumes, volumes, "--scan", "scan_1"]),
    ):
        assert main(["compare", *call]) == code, call
        err = capsys.readouterr().err
        assert word in err, call
        assert "Traceback" not in err
