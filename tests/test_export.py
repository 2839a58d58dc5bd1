import errno
import json
import math
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from algotom.io import loadersaver
from hypothesis import given
from hypothesis import strategies as st
from reconstructing import run

from xctpipe import drafts, export, slices, spans, volume
from xctpipe.cli import main
from xctpipe.compare import inside_circle
from xctpipe.errors import BadRecipe, UserError
from xctpipe.exported import read_record
from xctpipe.recipe import Recipe

FIRST_ROW = 100
PIXEL_UM = 1.3
Made = Callable[..., Path]


def slices_of(shape: tuple[int, int, int] = (12, 20, 20), *, seed: int = 0) -> np.ndarray[Any, Any]:
    """Noise about 1 cm^-1 inside the circle, zero outside."""
    values = np.random.default_rng(seed).normal(1.0, 0.5, shape)
    return (values * inside_circle(*shape[1:])).astype(np.float32)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Maker of a run folder; `states` names its scans with their states, keywords go to the volumes."""

    def run_folder(data: Any = None, *, states: Any = None, kind: str = "edge", **changes: Any) -> Path:
        root = tmp_path / "run"
        scans = {}
        for name, state in (states or {"scan_1": "done"}).items():
            values = slices_of() if data is None else data
            spec = volume.VolumeSpec(values.shape, PIXEL_UM, first_row=FIRST_ROW, **changes)
            path = root / "scans" / name / f"{kind}.ome.zarr"
            volume.create(path, spec, name=name, attributes={"scan": name, "recipe": {"a": 1}})
            for z0, z1 in spec.slabs:
                volume.write_slab(path, spec, z0, slab=values[z0:z1])
            scans[name] = {"status": state, "slabs": 2, "assessment": {"min_cm1": -1.25, "max_cm1": 3.5}}
        (root / "run.json").write_text(json.dumps({"scans": scans}))
        return root

    return run_folder


def exported(root: Path, *options: str) -> Path:
    assert main(["export", str(root), "--out", str(root.parent / "out"), *options]) == 0
    return root.parent / "out"


def says(capsys: pytest.CaptureFixture[str], code: int, *call: str) -> str:
    """What a call that ends with this exit code says, all of it."""
    capsys.readouterr()
    assert main(list(call)) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out + err


def test_a_reconstructed_scan_in_both_formats_is_what_the_volume_holds(make: Callable[..., Recipe]) -> None:
    recipe = make(raw={"rows": [8, 40]})
    (name,) = run(recipe).done
    truth = volume.read(recipe.run_folder / "scans" / name / "edge.ome.zarr")
    for to in ("tiff", "hdf5"):
        assert main(["export", str(recipe.run_folder), "--to", to]) == 0
    home = recipe.run_folder / "export"
    files = sorted((home / "tiff_edge_float32" / name).glob("*.tif"))
    assert [file.name for file in files] == [f"rec_{row:05d}.tif" for row in range(8, 40)]
    np.testing.assert_array_equal(np.stack([loadersaver.load_image(str(file)) for file in files]), truth)
    data = loadersaver.load_hdf(str(home / "hdf5_edge_float32" / f"{name}.hdf"), "entry/data/data")
    np.testing.assert_array_equal(data[:], truth)
    data.file.close()


def test_imagej_finds_voxel_size_and_calibration(made: Made) -> None:
    out = exported(made(), "--to", "tiff", "--dtype", "uint16", "--range", "-1:3")
    with tifffile.TiffFile(out / "scan_1" / "rec_00100.tif") as file:
        text, tags = file.imagej_metadata, file.pages[0].tags
        assert text is not None
        assert file.pages[0].dtype == np.uint16
        assert (text["unit"], text["spacing"]) == ("um", PIXEL_UM)
        assert (text["cf"], text["vunit"]) == (0, "cm^-1")
        assert (text["c0"], text["c1"]) == (-1.0, pytest.approx(4 / 65535))
        for key in ("XResolution", "YResolution"):
            pixels, um = tags[key].value
            assert um / pixels == pytest.approx(PIXEL_UM, rel=1e-6)


def test_hdf5_is_contiguous_and_says_its_units(made: Made) -> None:
    out = exported(made(), "--to", "hdf5", "--dtype", "uint8", "--range", "0:2.55")
    with h5py.File(out / "scan_1.hdf") as file:
        data = file["entry/data/data"]
        assert (data.shape, data.dtype, data.chunks, data.compression) == ((12, 20, 20), np.uint8, None, None)
        attributes = dict(data.attrs)
        assert attributes["scale_factor"] == pytest.approx(0.01)
        assert attributes["add_offset"] == 0
        assert attributes["value_units"] == "cm^-1"
        assert list(attributes["element_size_um"]) == [PIXEL_UM] * 3
        assert attributes["first_row"] == FIRST_ROW


@given(
    dtype=st.sampled_from(["uint8", "uint16"]),
    low=st.floats(-5, 5),
    width=st.floats(0.01, 10),
    seed=st.integers(0, 99),
)
def test_integers_follow_the_formula(dtype: str, low: float, width: float, seed: int) -> None:
    # value = LOW + i (HIGH - LOW) / (2^n - 1), to the nearest; what lies outside is clipped and counted
    values = slices_of((2, 8, 8), seed=seed) * np.float32(4)
    largest = np.iinfo(dtype).max
    wish = export.Export(None, Path(), "tiff", 0, (0, 2), (2, 8, 8), dtype, width / largest, low)  # type: ignore[arg-type]
    numbers, clipped = slices._numbers(wish, values)
    exact = (values.astype(np.float64) - low) / width * largest
    inside = (exact >= -0.5) & (exact <= largest + 0.5)
    assert np.abs(numbers - exact)[inside].max(initial=0) <= 0.5 + 1e-6
    assert set(numbers[exact < -0.5]) <= {0}
    assert set(numbers[exact > largest + 0.5]) <= {largest}
    assert clipped == np.count_nonzero(~inside & (values != 0))


def test_clipped_voxels_are_said_but_not_the_corners(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    root = made()
    values = slices_of()
    low, high = (float(v) for v in np.percentile(values[values != 0], [10, 90]))
    text = says(
        capsys, 0, "export", str(root), "--to", "tiff", "--dtype", "uint8", "--range", f"{low}:{high}"
    )
    half = (high - low) / 510
    outside = np.count_nonzero((values != 0) & ((values < low - half) | (values > high + half)))
    assert outside > 100
    assert f"{outside} voxels" in text
    corner = tifffile.imread(root / "export" / "tiff_edge_uint8" / "scan_1" / "rec_00100.tif")[0, 0]
    assert corner == 0


def test_an_integer_volume_keeps_its_numbers_and_its_scale(made: Made) -> None:
    scale, offset = 4 / 65535, -1.0
    root = made(dtype="uint16", scale=scale, offset=offset)
    out = exported(root, "--to", "hdf5")
    stored = zarr.open_group(root / "scans/scan_1/edge.ome.zarr", mode="r")["0"][:]
    with h5py.File(out / "scan_1.hdf") as file:
        assert file["entry/data/data"].dtype == np.uint16
        assert file["entry/data/data"].attrs["scale_factor"] == scale
        np.testing.assert_array_equal(file["entry/data/data"][:], stored)
    again = exported(root, "--to", "tiff", "--dtype", "float32")
    image = tifffile.imread(again / "scan_1" / "rec_00103.tif")
    np.testing.assert_array_equal(image, volume.read(root / "scans/scan_1/edge.ome.zarr")[3])
    assert np.abs(image - slices_of()[3]).max() <= 0.51 * scale
    # fewer bits: the same range in cm^-1
    coarse = exported(root, "--to", "hdf5", "--dtype", "uint8", "--force")
    with h5py.File(coarse / "scan_1.hdf") as file:
        data = file["entry/data/data"]
        value = data[:] * data.attrs["scale_factor"] + data.attrs["add_offset"]
    assert np.abs(value - slices_of()).max() <= 0.51 * 4 / 255


def test_rows_and_levels_are_named_by_detector_row(made: Made) -> None:
    root = made(slices_of((12, 520, 520)), slab_rows=4)
    out = exported(root, "--to", "tiff", "--rows", "103:106")
    assert sorted(path.name for path in (out / "scan_1").glob("*.tif")) == [
        "rec_00103.tif",
        "rec_00104.tif",
        "rec_00105.tif",
    ]
    np.testing.assert_array_equal(
        tifffile.imread(out / "scan_1" / "rec_00104.tif"), slices_of((12, 520, 520))[4]
    )
    shutil.rmtree(out)
    exported(root, "--to", "tiff", "--rows", "103:106", "--level", "1")
    files = sorted((out / "scan_1").glob("*.tif"))
    assert [path.name for path in files] == ["rec_00102.tif", "rec_00104.tif"]  # blocks that hold the rows
    truth = slices_of((12, 520, 520))[4:6].reshape(2, 260, 2, 260, 2).mean(axis=(0, 2, 4))
    np.testing.assert_allclose(tifffile.imread(files[1]), truth, atol=1e-5)
    with tifffile.TiffFile(files[1]) as file:
        assert file.imagej_metadata is not None
        assert file.imagej_metadata["spacing"] == 2 * PIXEL_UM


@pytest.mark.parametrize("memory", [1, 10_000, 10**12])
def test_memory_decides_nothing_but_the_pieces(
    memory: int, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "usable_memory_bytes", lambda: memory)
    out = exported(made(slab_rows=4), "--to", "hdf5", "--rows", "101:111")
    with h5py.File(out / "scan_1.hdf") as file:
        np.testing.assert_array_equal(file["entry/data/data"][:], slices_of()[1:11])


@pytest.mark.parametrize(
    ("rows_that_fit", "expected"), [(200, 64), (64, 64), (40, 32), (21, 16), (1, 1), (0, 1)]
)
def test_chunks_that_do_not_fit_are_cut_in_equal_parts(
    rows_that_fit: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a slice of 3200 x 3200 takes 8 bytes a voxel: as stored, and as it is written
    monkeypatch.setattr(slices, "usable_memory_bytes", lambda: (rows_that_fit + 0.5) * 8 * 3200**2 / 0.2)
    assert slices._rows_at_once(64, (3200, 3200, 3200)) == expected


def test_a_repeated_export_keeps_what_is_there(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    root = made(states={"scan_1": "done", "scan_2": "done"})
    out = exported(root, "--to", "tiff")
    before = (out / "scan_1").stat().st_mtime_ns
    shutil.rmtree(out / "scan_2")  # as after an interruption
    assert "was there already" in says(capsys, 0, "export", str(root), "--to", "tiff", "--out", str(out))
    assert (out / "scan_1").stat().st_mtime_ns == before
    assert len(list((out / "scan_2").glob("rec_*.tif"))) == 12
    (out / "scan_1" / "rec_00105.tif").unlink()
    exported(root, "--to", "tiff")
    assert len(list((out / "scan_1").glob("rec_*.tif"))) == 12


def test_another_export_is_replaced_only_when_asked(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    root = made()
    out = exported(root, "--to", "tiff")
    call = ["export", str(root), "--to", "tiff", "--out", str(out), "--rows", "100:104"]
    assert "--force" in says(capsys, 2, *call)
    assert len(list((out / "scan_1").glob("rec_*.tif"))) == 12
    says(capsys, 0, *call, "--force")
    assert len(list((out / "scan_1").glob("rec_*.tif"))) == 4
    assert [path.name for path in out.iterdir()] == ["scan_1"]  # nothing hidden is left


def test_what_is_not_an_export_is_never_replaced(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    root = made()
    raw = root.parent / "raw" / "scan_1"
    raw.mkdir(parents=True)
    (raw / "proj_00000.hdf").write_text("precious")
    text = says(capsys, 2, "export", str(root), "--to", "tiff", "--out", str(raw.parent), "--force")
    assert "not an export" in text
    assert (raw / "proj_00000.hdf").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "tif"], ["--to tif", "tiff"]),
        (["--to", "tiff", "--dtype", "int16"], ["uint16"]),
        (["--to", "tiff", "--dtype", "uint8"], ["--range", "-1.25:3.5"]),
        (["--to", "tiff", "--dtype", "uint8", "--range", "3:1"], ["--range '3:1'"]),
        (["--to", "tiff", "--dtype", "uint8", "--range", "1"], ["LOW:HIGH"]),
        (["--to", "tiff", "--range", "0:1"], ["--dtype"]),
        (["--to", "tiff", "--rows", "0:10"], ["100:112"]),
        (["--to", "tiff", "--rows", "105:105"], ["empty"]),
        (["--to", "tiff", "--rows", "105"], ["A:B"]),
        (["--to", "tiff", "--level", "1"], ["levels 0 to 0"]),
        (["--to", "tiff", "--volume", "mass"], ["phase"]),
        (["--to", "tiff", "--volume", "bulk"], ["edge, mass"]),
        (["--to", "tiff", "--scan", "scan_7"], ["scan_1"]),
        (["--to", "tiff", "--out", "{run}/run.json"], ["not a folder"]),
    ],
)
def test_a_wrong_call_says_what_is_allowed(
    options: list[str], words: list[str], made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made()
    text = says(capsys, 2, "export", str(root), *(option.format(run=root) for option in options))
    for word in words:
        assert word in text
    assert not (root / "export").exists()


@pytest.mark.parametrize(
    ("where", "word"),
    [
        ("", "no run.json"),
        ("run/scans", "the run folder is"),
        ("r.toml", "run_folder"),
        ("absent", "no such"),
    ],
)
def test_a_wrong_folder_names_the_right_one(
    where: str, word: str, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made()
    (tmp_path / "r.toml").write_text("")
    assert word in says(capsys, 2, "export", str(tmp_path / where), "--to", "tiff")


def test_unfinished_scans_are_refused_with_their_state(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made(states={"scan_1": "done", "scan_2": "failed", "scan_3": "running"})
    text = says(capsys, 3, "export", str(root), "--to", "tiff", "--scan", "scan_2")
    assert "scan_2 (failed, 0 of 2 slabs)" in text
    lone = root / "scans" / "scan_3" / "edge.ome.zarr"
    assert "interrupted" in says(capsys, 3, "export", str(lone), "--to", "tiff")
    text = says(capsys, 3, "export", str(root), "--to", "tiff")
    assert "left out: scan_2 (failed" in text
    assert [path.name for path in (root / "export" / "tiff_edge_float32").iterdir()] == ["scan_1"]


def test_one_volume_is_exported_by_its_path(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    root = made(kind="mass")
    path = root / "scans" / "scan_1" / "mass.ome.zarr"
    assert main(["export", str(path), "--to", "tiff"]) == 0
    assert (root / "export" / "tiff_mass_float32" / "scan_1" / "rec_00111.tif").is_file()
    state = {"token": "t", "assessment": {"mass": {"min_cm1": -7.0, "max_cm1": 8.0}}}
    (root / "scans" / "scan_1" / "work").mkdir()
    (root / "scans" / "scan_1" / "work" / "state.json").write_text(json.dumps(state))
    call = ["export", str(root), "--volume", "mass", "--to", "tiff", "--dtype", "uint8"]
    assert "-7:8" in says(capsys, 2, *call)
    assert "one volume already" in says(capsys, 2, "export", str(path), "--to", "tiff", "--scan", "scan_1")
    copy = root.parent / "elsewhere" / "copy.zarr"
    shutil.copytree(path, copy)
    text = says(capsys, 2, "export", str(copy), "--to", "tiff", "--dtype", "uint8")
    low, high = (float(part) for part in text.split("--range ")[-1].strip().split(":"))
    middle = slices_of()[6]
    assert (low, high) == (pytest.approx(middle.min(), rel=1e-3), pytest.approx(middle.max(), rel=1e-3))


@pytest.mark.parametrize("to", ["tiff", "hdf5"])
def test_a_disk_that_refuses_leaves_nothing_behind(
    to: str, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made(slices_of((12, 200, 200)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        text = says(capsys, 3, "export", str(root), "--to", to, "--out", str(tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in text
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_without_room_is_noticed_first(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made()
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=19_000))
    assert "GB are free" in says(capsys, 2, "export", str(root), "--to", "hdf5")
    assert not (root / "export").exists()


def test_what_a_killed_export_left_is_removed_but_not_what_another_one_makes(tmp_path: Path) -> None:
    left = tmp_path / ".scan_1.abc.draft"
    left.mkdir()
    other = tmp_path / ".scan_10.abc.draft"
    other.mkdir()
    with drafts.drafted(tmp_path / "scan_1") as first:
        assert not left.exists()
        with drafts.drafted(tmp_path / "scan_1") as second:
            assert first.is_dir()
            assert second != first
    assert list(tmp_path.iterdir()) == [other]
    with pytest.raises(UserError), drafts.drafted(tmp_path / "scan_1"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == [other]


def test_the_record_tells_where_the_numbers_come_from(made: Made) -> None:
    out = exported(made(), "--to", "hdf5", "--dtype", "uint8", "--range", "0:1")
    record = read_record(out / "scan_1.hdf")
    assert record is not None
    assert (record["scan"], record["unit"], record["first_row"]) == ("scan_1", "cm^-1", FIRST_ROW)
    assert record["known"]["settings"] == {"a": 1}
    values = slices_of()
    assert record["clipped_voxels"] == np.count_nonzero((values < -0.5 / 255) | (values > 1 + 0.5 / 255))


@pytest.mark.parametrize("text", ["", "1", "1:2:3", "a:b", "5:5", "7:3", "-1:3", "1.5:3"])
def test_spans_that_are_none(text: str) -> None:
    with pytest.raises(BadRecipe, match="--rows"):
        spans.parse_span(text, option="--rows")


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_ranges_are_read_as_they_are_written(low: float, high: float) -> None:
    if low < high:
        assert spans.parse_range(f"{low!r}:{high!r}", option="--range") == (low, high)
    else:
        with pytest.raises(BadRecipe):
            spans.parse_range(f"{low!r}:{high!r}", option="--range")


@pytest.mark.parametrize("text", ["nan:1", "0:inf", "0", "x:1"])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(BadRecipe, match="--range"):
        spans.parse_range(text, option="--range")
    assert math.isfinite(spans.parse_range("0:1", option="--range")[1])
