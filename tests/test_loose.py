"""Frames, flats, darks and angles that the recipe names one by one, and folders of TIFF files."""

import os
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from reconstructing import run

from xctpipe import formats, inputs, phantom, volume
from xctpipe.cli import main
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.formats import RawOptions
from xctpipe.formats.hex1 import write_dark_flat
from xctpipe.formats.sources import numbers_in
from xctpipe.formats.tiff_frames import open_tiffs, stored
from xctpipe.formats.tiff_roles import role_of
from xctpipe.prepare import volume_path
from xctpipe.recipe import Recipe, make_recipe, read_recipe, to_toml
from xctpipe.scan import ArrayFrames, DarkFlat, Frames, RawArray, Scan

START = datetime(2025, 3, 1, 15, tzinfo=UTC)
LAYOUTS = sorted(formats.layouts())


def numbers(n: int, low: int, high: int, *, dtype: Any = np.uint16, seed: int = 0) -> RawArray:
    rng = np.random.default_rng(seed + low)
    return rng.integers(low, high, (n, 6, 16)).astype(dtype)


PROJ, FLAT, DARK = numbers(20, 1000, 2000), numbers(4, 3000, 3100), numbers(3, 90, 110)


def put(folder: Path, stem: str, data: RawArray, **how: Any) -> Path:
    """Write a file a frame, numbers without leading zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, frame in enumerate(data):
        tifffile.imwrite(folder / f"{stem}{i}.tif", frame, photometric="minisblack", **how)
    return folder


def h5(path: Path, key: str, value: Any, **attributes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        file[key] = value
        file[key].attrs.update(attributes)
    return path


def loose_folder(root: Path) -> Path:
    put(root, "raw_", PROJ)
    put(root, "flat_", FLAT)
    put(root, "dark_", DARK)
    (root / "angles.txt").write_text("".join(f"{9 * i}\n" for i in range(20)))
    return root


GIVEN = {"data": "raw_*.tif", "flats": "flat_*.tif", "darks": "dark_*.tif", "angles": "angles.txt"}


def recipe_of(folder: Path, **raw: Any) -> Recipe:
    table = {"folder": str(folder), "energy_kev": 80.0, "pixel_um": 1.3, **raw}
    return make_recipe({"name": "t", "run_folder": "run", "raw": table}, base=folder.parent)


def opened(folder: Path, **raw: Any) -> list[Scan]:
    recipe = recipe_of(folder, **raw)
    found = inputs.find(recipe.raw)
    return [inputs.open_one(recipe.raw, each, index=i) for i, each in enumerate(found)]


def one(folder: Path, **raw: Any) -> Scan:
    (scan,) = opened(folder, **raw)
    return scan


def dark_flat(*, seconds: float = -60) -> DarkFlat:
    return DarkFlat(ArrayFrames(DARK), ArrayFrames(FLAT), START.timestamp() + seconds)


def a_scan(**changes: Any) -> Scan:
    values: dict[str, Any] = {
        "name": "scan_00010",
        "layout": "memory",
        "path": Path("none"),
        "frames": ArrayFrames(PROJ),
        "angles_rad": np.radians(9.0 * np.arange(20)),
        "dark_flats": (dark_flat(),),
        "start_time": START,
    }
    return Scan(**{**values, **changes})


# --- how frames are stored


def _files(folder: Path, data: RawArray, **how: Any) -> str:
    put(folder / "frames", "f_", data, **how)
    return "frames"


def _pages(folder: Path, data: RawArray, **how: Any) -> str:
    with tifffile.TiffWriter(folder / "pages.tif") as file:
        for frame in data:
            file.write(frame, photometric="minisblack", contiguous=False, metadata=None, **how)
    return "pages.tif"


def _stack(folder: Path, data: RawArray, **how: Any) -> str:
    tifffile.imwrite(folder / "stack.tif", data, photometric="minisblack", **how)
    return "stack.tif"


def _two_stacks(folder: Path, data: RawArray, **how: Any) -> str:
    for i, part in enumerate((data[:13], data[13:])):
        tifffile.imwrite(folder / f"part{i}.tif", part, photometric="minisblack", **how)
    return "part*.tif"


def _hdf5(folder: Path, data: RawArray, **how: Any) -> str:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x/frames", data=data, chunks=(1, *data.shape[1:]), **how)
    return "a.h5:/x/frames"


@pytest.mark.parametrize(
    ("write", "how"),
    [
        (_files, {}),
        (_files, {"compression": "zlib"}),
        (_files, {"rowsperstrip": 4}),
        (_files, {"byteorder": ">"}),
        (_files, {"bigtiff": True}),
        (_files, {"tile": (16, 16)}),
        (_pages, {}),
        (_pages, {"compression": "zlib"}),
        (_stack, {"byteorder": ">"}),
        (_stack, {"compression": "zlib", "predictor": None}),
        (_two_stacks, {}),
        (_hdf5, {}),
        (_hdf5, {"compression": "gzip"}),
    ],
)
@pytest.mark.parametrize("dtype", ["u1", ">u2", "f4"])
def test_frames_come_back_however_they_are_stored(
    tmp_path: Path, write: Callable[..., str], how: dict[str, Any], dtype: str
) -> None:
    data = numbers(20, 10, 250, dtype=dtype)
    name = write(tmp_path, data, **how)
    scan = one(tmp_path, data=name, angles=[0, 171], log_absorption=True)
    assert scan.frames.dtype == np.dtype(dtype).newbyteorder("=")
    assert isinstance(scan.frames, Frames)
    np.testing.assert_array_equal(scan.frames.read(), data)
    for rows, frames in (((2, 5), (11, 16)), ((0, 0), None), ((5, 6), (19, 20)), (None, (3, 3))):
        want = data[slice(*(frames or (None,))), slice(*(rows or (None,)))]
        np.testing.assert_array_equal(scan.frames.read(rows, frames=frames), want)
    again = pickle.loads(pickle.dumps(scan))
    np.testing.assert_array_equal(again.frames.read((1, 2)), data[:, 1:2])
    assert scan.frames.whole_frames == bool({"compression", "tile"} & how.keys())  # type: ignore[attr-defined]


def test_rows_of_plain_tiff_are_read_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plain,), _ = open_tiffs(sorted(put(tmp_path / "a", "f_", PROJ).iterdir()))
    (packed,), _ = open_tiffs(sorted(put(tmp_path / "b", "f_", PROJ, compression="zlib").iterdir()))

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("decoded")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
    assert plain.read((2, 3)).shape == (20, 1, 16)
    with pytest.raises(BadScan, match="decoded"):
        packed.read((2, 3))


def test_files_are_in_order_of_their_numbers(tmp_path: Path) -> None:
    scan = one(loose_folder(tmp_path), **GIVEN)
    assert scan.frames.names[9:12] == ("raw_9.tif", "raw_10.tif", "raw_11.tif")  # type: ignore[attr-defined]
    np.testing.assert_array_equal(scan.frames.read(), PROJ)
    np.testing.assert_allclose(scan.angles_rad, np.radians(9.0 * np.arange(20)))
    (pair,) = scan.dark_flats
    np.testing.assert_array_equal(pair.flats.read(), FLAT)
    assert pair.darks is not None
    np.testing.assert_array_equal(pair.darks.read(), DARK)


def test_a_frame_that_is_missing_is_said(tmp_path: Path) -> None:
    (loose_folder(tmp_path) / "raw_7.tif").unlink()
    scan = one(tmp_path, **{**GIVEN, "angles": [0, 171]})
    assert any("jump from raw_6.tif to raw_8.tif" in text for text in scan.warnings)


def test_the_time_in_the_file_is_the_start(tmp_path: Path) -> None:
    put(tmp_path, "raw_", PROJ, datetime="2025:03:01 10:00:00")
    scan = one(tmp_path, data="raw_*.tif", angles=[0, 171], log_absorption=True)
    assert scan.start_time is not None
    assert scan.start_time.replace(tzinfo=None) == datetime(2025, 3, 1, 10)  # noqa: DTZ001
    assert not any("start time" in text for text in scan.warnings)


# --- angles


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\n".join(f"{9 * i}" for i in range(20))),
        ("a.txt", " ".join(f"{9 * i}" for i in range(20))),
        ("a.csv", "angle (deg)\n" + "".join(f"{9 * i},\r\n" for i in range(20))),
        ("a.dat", "# made by hand\n\n" + "".join(f"{9 * i}.0  # {i}\n" for i in range(20))),
        ("a.txt", "\ufeff" + "\n".join(f"{9 * i}" for i in range(21))),
    ],
)
def test_angles_in_text(tmp_path: Path, name: str, content: str) -> None:
    loose_folder(tmp_path)
    (tmp_path / name).write_text(content, encoding="utf-8")
    scan = one(tmp_path, **{**GIVEN, "angles": name})
    np.testing.assert_allclose(np.degrees(scan.angles_rad), 9.0 * np.arange(20))
    assert tmp_path / name in scan.files


def test_angles_in_other_files(tmp_path: Path) -> None:
    loose_folder(tmp_path)
    turn = np.radians(9.0 * np.arange(20))
    np.save(tmp_path / "a.npy", turn)
    h5(tmp_path / "a.h5", "scan/theta", turn, units="rad")
    for raw in (
        {"angles": "a.npy", "angle_unit": "rad"},
        {"angles": "a.h5:/scan/theta"},
        {"angles": str(tmp_path / "a.npy"), "angle_unit": "rad"},
        {"angles": [0, turn[-1]], "angle_unit": "rad"},
        {"angles": [0, 171]},
    ):
        np.testing.assert_allclose(one(tmp_path, **{**GIVEN, **raw}).angles_rad, turn, atol=1e-12)


def test_first_and_last_angle_are_those_of_the_first_and_last_frame(tmp_path: Path) -> None:
    angles = one(loose_folder(tmp_path), **{**GIVEN, "angles": [180, 9]}).angles_rad
    np.testing.assert_allclose(np.degrees(angles), np.arange(180.0, 0, -9))


# --- what the recipe names replaces what a layout finds


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flats_darks_and_angles_of_the_recipe_win(tmp_path: Path, layout: str) -> None:
    scan = a_scan(dark_flats=(dark_flat(), dark_flat(seconds=900)))
    made = formats.write_scan(tmp_path / "raw" / "scan_00010", scan, layout=layout)
    other = tmp_path / "other"
    put(other, "flat_", FLAT + 500)
    h5(other / "darks.h5", "d", DARK[:2] + 5)
    (other / "angles.txt").write_text("\n".join(str(100 + 9 * i) for i in range(20)))
    raw = {
        key: str(other / name)
        for key, name in (("flats", "flat_*.tif"), ("darks", "darks.h5"), ("angles", "angles.txt"))
    }
    got = one(made.parent, scans=["scan_00010"], **raw)
    assert got.layout == layout
    (pair,) = got.dark_flats
    np.testing.assert_array_equal(pair.flats.read(), FLAT + 500)
    assert pair.darks is not None
    np.testing.assert_array_equal(pair.darks.read(), DARK[:2] + 5)
    np.testing.assert_allclose(np.degrees(got.angles_rad), 100 + 9.0 * np.arange(20))
    np.testing.assert_array_equal(got.frames.read(), PROJ)
    for name in ("flat_0.tif", "darks.h5", "angles.txt"):
        assert name in {path.name for path in got.files}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_the_recipe_does_not_name_stays(tmp_path: Path, layout: str) -> None:
    made = formats.write_scan(tmp_path / "raw" / "scan_00010", a_scan(), layout=layout)
    more = str(put(tmp_path / "more", "x_", DARK + 7))
    plain = one(made.parent, scans=["scan_00010"])
    got = one(made.parent, scans=["scan_00010"], darks=more)
    np.testing.assert_array_equal(got.angles_rad, plain.angles_rad)
    (pair,) = got.dark_flats
    np.testing.assert_array_equal(pair.flats.read(), FLAT)
    assert pair.darks is not None
    np.testing.assert_array_equal(pair.darks.read(), DARK + 7)
    flats_only = one(made.parent, scans=["scan_00010"], flats=more).dark_flats[0]
    assert flats_only.darks is not None
    np.testing.assert_array_equal(flats_only.darks.read(), DARK)


@pytest.mark.parametrize(
    ("layout", "files", "key"),
    [
        ("hex1", ("panda.hdf", "scan_00010.nxs"), ""),
        ("tiff", ("angles.txt",), ""),
        ("nxtomo", (), "entry/sample/rotation_angle"),
        ("dxchange", (), "exchange/theta"),
    ],
)
def test_angles_that_a_layout_lacks_are_completed(
    tmp_path: Path, layout: str, files: tuple[str, ...], key: str
) -> None:
    made = formats.write_scan(tmp_path / "raw" / "scan_00010", a_scan(), layout=layout)
    for name in files:
        (made / name).unlink()
    if key:
        with h5py.File(made, "a") as file:
            del file[key]
    (tmp_path / "angles.txt").write_text("\n".join(str(9 * i) for i in range(20)))
    scan = one(made.parent, scans=["scan_00010"], angles="../angles.txt")
    assert scan.layout == layout
    np.testing.assert_allclose(np.degrees(scan.angles_rad), 9.0 * np.arange(20))
    with pytest.raises(BadScan, match="no angles"):
        one(made.parent, scans=["scan_00010"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_absorption_needs_no_flats_in_any_layout(tmp_path: Path, layout: str) -> None:
    lines = ArrayFrames((PROJ / 1000).astype(np.float32))
    scan = a_scan(frames=lines, dark_flats=())
    made = formats.write_scan(tmp_path / "raw" / "scan_00010", scan, layout=layout)
    got = one(made.parent, log_absorption=True)
    assert got.log_absorption
    np.testing.assert_array_equal(got.frames.read(), lines.data)
    with pytest.raises(BadScan, match="no flats"):
        one(made.parent)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dark_flat_of_another_layout(tmp_path: Path, layout: str) -> None:
    made = formats.write_scan(tmp_path / "raw" / "scan_00010", a_scan(dark_flats=()), layout=layout)
    raw = made.parent
    write_dark_flat(raw / "hex_flats", dark_flat(seconds=900))
    put(raw / "tiff_flats", "f_", FLAT + 9)
    formats.write_scan(tmp_path / "elsewhere" / "one.h5", a_scan(), layout="dxchange")
    for named, low in (("hex_flats", 0), ("tiff_flats", 9), (str(tmp_path / "elsewhere" / "one.h5"), 0)):
        scan = one(raw, scans=["scan_00010"], dark_flat=[named])
        np.testing.assert_array_equal(scan.dark_flats[0].flats.read(), FLAT + low)
        assert scan.path == made


def test_loose_frames_with_dark_flat_of_a_layout(tmp_path: Path) -> None:
    put(tmp_path / "t", "x_", PROJ)
    write_dark_flat(tmp_path / "scan_00015", dark_flat(seconds=9))
    scan = one(tmp_path, data="t", angles=[0, 171], dark_flat=["scan_00015"])
    np.testing.assert_array_equal(scan.dark_flats[0].flats.read(), FLAT)


def test_names_of_flats_are_sets_in_order(tmp_path: Path) -> None:
    loose_folder(tmp_path)
    put(tmp_path / "after", "flat_", FLAT + 50)
    put(tmp_path / "dark_after", "dark_", DARK + 3)
    flats = ["flat_*.tif", "after"]
    scan = one(tmp_path, **{**GIVEN, "flats": flats, "darks": ["dark_*.tif", "dark_after"]})
    assert [pair.flats.read()[0, 0, 0] for pair in scan.dark_flats] == [FLAT[0, 0, 0], FLAT[0, 0, 0] + 50]
    darks = [pair.darks.read()[0, 0, 0] for pair in scan.dark_flats if pair.darks is not None]
    assert darks == [DARK[0, 0, 0], DARK[0, 0, 0] + 3]
    shared = one(tmp_path, **{**GIVEN, "darks": ["dark_*.tif", "dark_after"]})
    assert shared.dark_flats[0].darks is not None
    np.testing.assert_array_equal(shared.dark_flats[0].darks.read(), np.concatenate([DARK, DARK + 3]))


# --- series


def series(root: Path) -> Path:
    for i, name in enumerate(("cell_2", "cell_10", "cell_9 [b]")):
        loose_folder(root / name)
        put(root / name, "raw_", PROJ + i)
    (root / "logs").mkdir()
    (root / "notes.txt").write_text("")
    put(root / "flats", "x_", FLAT)
    return root


def test_a_series_is_one_recipe(tmp_path: Path) -> None:
    raw = {key: f"{{scan}}/{name}" for key, name in GIVEN.items()}
    scans = opened(series(tmp_path), **raw)
    assert [scan.name for scan in scans] == ["cell_2", "cell_9 [b]", "cell_10"]
    firsts = [int(scan.frames.read((0, 1), frames=(0, 1))[0, 0, 0]) for scan in scans]
    assert np.subtract(firsts, PROJ[0, 0, 0]).tolist() == [0, 2, 1]
    chosen = opened(tmp_path, **raw, scans=["cell_10", "cell_2"])
    assert [scan.name for scan in chosen] == ["cell_10", "cell_2"]
    with pytest.raises(BadRecipe, match=r"raw\.scans: nothing is named 'cell_3'.*cell_10"):
        opened(tmp_path, **raw, scans=["cell_3"])


def test_scans_may_be_told_by_parts_of_names(tmp_path: Path) -> None:
    for name in ("a_1", "b_2"):
        put(tmp_path / "all", f"{name}_tomo_", PROJ)
        tifffile.imwrite(tmp_path / f"stack-{name}.tif", PROJ)
        h5(tmp_path / f"{name}.h5", "entry/d", PROJ)
    for data in ("all/{scan}_tomo_*.tif", "stack-{scan}.tif", "{scan}.h5:/entry/d", "all/{scan}_*.tif"):
        scans = opened(tmp_path, data=data, angles=[0, 171], log_absorption=True)
        want = ["a_1_tomo", "b_2_tomo"] if data.endswith("{scan}_*.tif") else ["a_1", "b_2"]
        assert [(scan.name, scan.shape[0]) for scan in scans] == [(name, 20) for name in want]


def test_a_scan_without_flats_fails_alone(tmp_path: Path) -> None:
    raw = {key: f"{{scan}}/{name}" for key, name in GIVEN.items()}
    for path in (series(tmp_path) / "cell_2").glob("flat_*.tif"):
        path.unlink()
    recipe = recipe_of(tmp_path, **raw)
    first, second, _ = inputs.find(recipe.raw)
    with pytest.raises(BadScan, match=r"raw\.flats = 'cell_2/flat_\*\.tif': nothing in .*cell_2 fits"):
        inputs.open_one(recipe.raw, first)
    assert inputs.open_one(recipe.raw, second).errors == ()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("x/proj/raw_*.tif", "x"),
        ("x/proj", "x"),
        ("x/proj/raw_0.tif", "raw_0"),
        ("*/proj/raw_*.tif", "folder"),
    ],
)
def test_the_only_scan_is_named_after_its_folder(tmp_path: Path, data: str, name: str) -> None:
    put(tmp_path / "folder" / "x" / "proj", "raw_", PROJ)
    (found,) = inputs.find(recipe_of(tmp_path / "folder", data=data).raw)
    assert found.name == name


def test_dark_flats_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (10, 20):
        scan = a_scan(dark_flats=(), start_time=START + timedelta(minutes=number))
        formats.write_scan(tmp_path / f"scan_{number:05d}", scan, layout="hex1")
    for number in (5, 15):
        write_dark_flat(tmp_path / f"scan_{number:05d}", dark_flat(seconds=60 * number))
    recipe = recipe_of(tmp_path, dark_flat=["scan_*"])
    found = inputs.find(recipe.raw)
    monkeypatch.setattr(formats, "find_scans", lambda _: pytest.fail("listed again"))
    origins = [[p.origin for p in inputs.open_one(recipe.raw, each).dark_flats] for each in found]
    assert origins == [["scan_00005", "scan_00015"], ["scan_00015"]]


# --- what is wrong is said


@pytest.mark.parametrize(
    ("raw", "error", "said"),
    [
        ({"data": "rew_*.tif"}, BadRecipe, r"raw\.data = 'rew_\*\.tif': nothing in .* did you mean raw_"),
        ({"flats": "flats/x_*.tif"}, BadRecipe, r"raw\.flats .* fits 'flats'; did you mean flat_"),
        ({"flats": "empty"}, BadRecipe, r"raw\.flats = 'empty': .*empty is a folder, and none"),
        ({"darks": "angles.txt"}, BadRecipe, "neither TIFF .* nor HDF5"),
        (
            {"data": "{scan}/raw_*.tif"},
            BadRecipe,
            r"no scan fits; nothing in .* holds .*dark_0\.tif",
        ),
        ({"data": "{name}/raw_*.tif"}, BadRecipe, r"\{name\} is not known; only \{scan\}"),
        ({"data": "a.h5"}, BadScan, r"a\.h5 holds 2 stacks: /one, /two; name one as a\.h5:/key"),
        ({"data": "a.h5:/three"}, BadScan, r"no dataset '/three'; .*known: /one, /two"),
        ({"data": "raw_*.tif", "angles": "angle.txt"}, BadRecipe, r"did you mean angles\.txt"),
        ({"angles": "a.h5:/theta"}, BadScan, r"no dataset '/theta' .*known: /few, /one, /two"),
        ({"angles": "a.h5:/few"}, BadScan, r"raw\.angles = 'a\.h5:/few': 7 angles for 20 frames"),
        ({"angles": "a.h5"}, BadScan, r"write it as a\.h5:/key"),
        ({"angles": "words.txt"}, BadScan, r"raw\.angles = 'words\.txt': line 3 is 'nine', not a number"),
        ({"angles": "comma.txt"}, BadScan, "line 1 has 2 values .* with a decimal point"),
        ({"angles": "nothing.txt"}, BadScan, "holds no number"),
        ({"angles": "text.npy"}, BadScan, r"not a \.npy file"),
        ({"angles": "raw_0.tif"}, BadScan, "neither text"),
        ({"angles": [5, 5]}, BadRecipe, r"raw\.angles = \[5, 5\]: .* are equal"),
        ({"angles": [0, 90, 180]}, BadRecipe, r"raw\.angles = .*angle of the first frame"),
        ({"angles": ["0", "180"]}, BadRecipe, r"raw\.angles = .*angle of the first frame"),
        ({"flats": "wide"}, BadScan, r"flats of wide have 6 x 20 .* the projections 6 x 16"),
        ({"data": ["raw_*.tif", "wide"]}, BadScan, r"6 x 20 uint16.* 6 x 16 uint16"),
        ({"data": ["raw_*.tif", "a.h5:/one"]}, BadScan, r"a\.h5 has frames of 6 x 20 uint16"),
        ({"flats": 3}, BadRecipe, r"raw\.flats = 3"),
        ({"flats": []}, BadRecipe, r"raw\.flats = "),
        ({"bin_px": 0}, BadRecipe, r"raw\.bin_px = 0"),
        ({"bin_px": 17}, BadRecipe, r"raw\.bin_px = 17"),
        ({"dark_flat": ["x"]}, BadRecipe, r"raw\.flats = .*dark_flat names flats too"),
        ({"data": "raw_0.tif:/key"}, BadRecipe, r"raw\.data = 'raw_0\.tif:/key': nothing"),
        ({"data": "colour.tif"}, BadScan, "convert the images to grey"),
        ({"data": "cut.tif"}, BadScan, r"cut\.tif: truncated TIFF file: 1\d\d of \d+ bytes"),
        ({"data": "text.tif"}, BadScan, r"text\.tif: not a whole TIFF file"),
        ({"data": "void.tif"}, BadScan, r"void\.tif: not a whole TIFF file"),
    ],
)
def test_what_cannot_be_used_is_said(
    tmp_path: Path, raw: dict[str, Any], error: type[Exception], said: str
) -> None:
    loose_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    wide = np.ones((20, 6, 20), np.uint16)
    put(tmp_path / "wide", "w_", wide)
    h5(tmp_path / "a.h5", "one", wide)
    h5(tmp_path / "a.h5", "two", wide)
    h5(tmp_path / "a.h5", "few", np.arange(7.0))
    (tmp_path / "words.txt").write_text("0\n\nnine\n18\n")
    (tmp_path / "comma.txt").write_text("".join(f"{i},5\n" for i in range(20)))
    (tmp_path / "nothing.txt").write_text("# 1\n")
    (tmp_path / "text.npy").write_text("0\n9\n")
    (tmp_path / "text.tif").write_text("II* or so")
    (tmp_path / "void.tif").write_bytes(b"")
    tifffile.imwrite(tmp_path / "colour.tif", np.ones((6, 16, 3), np.uint8), photometric="rgb")
    whole = (tmp_path / "raw_3.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) - 250])
    with pytest.raises(error, match=said):
        one(tmp_path, **{**GIVEN, **raw})


def test_a_file_cut_short_in_the_middle_is_found_on_opening(tmp_path: Path) -> None:
    path = loose_folder(tmp_path) / "raw_7.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 100])
    with pytest.raises(BadScan, match=rf"raw_7\.tif: truncated TIFF file: {len(whole) - 100} of"):
        one(tmp_path, **GIVEN)


def test_a_frame_unlike_the_others_is_found_on_reading(tmp_path: Path) -> None:
    loose_folder(tmp_path)
    tifffile.imwrite(tmp_path / "raw_7.tif", np.ones((6, 16), np.float32))
    scan = one(tmp_path, **GIVEN)
    with pytest.raises(BadScan, match=r"raw_7\.tif: 1 frame\(s\) of 6 x 16 float32, .* 6 x 16 uint16"):
        scan.frames.read((0, 1))


def test_a_codec_that_is_not_there_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (packed,), _ = open_tiffs(sorted(put(tmp_path / "b", "f_", PROJ, compression="zlib").iterdir()))

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
    with pytest.raises(BadScan, match=r"LZW.*pip install imagecodecs, or save uncompressed"):
        packed.read()


def test_angles_that_are_not_given_are_asked_for(tmp_path: Path) -> None:
    raw = {key: value for key, value in GIVEN.items() if key != "angles"}
    with pytest.raises(BadScan, match=r"no angles: give raw\.angles = "):
        one(loose_folder(tmp_path), **raw)


@pytest.mark.parametrize("text", ["", "a\nb", "1\n2 3\n", "1,2\n3,4\n", "1\nx", "x"])
def test_texts_that_are_no_list_of_numbers(text: str) -> None:
    with pytest.raises(BadScan, match=r"line|no number"):
        numbers_in(text)


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PROJ[0])
    assert stored(path).rows == 6
    tifffile.imwrite(path, PROJ[0, :4])
    assert stored(path).rows == 4


# --- recipes


def test_names_read_back_from_the_resolved_recipe(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, **{**GIVEN, "angles": [0, 180], "flats": ["a", "b"]})
    (tmp_path / "again.toml").write_text(to_toml(recipe))
    assert read_recipe(tmp_path / "again.toml").raw == recipe.raw


def test_the_fingerprint_covers_every_file_in_few_words(tmp_path: Path) -> None:
    scan = one(loose_folder(tmp_path), **GIVEN, rows=[1, 5])
    before = inputs.fingerprint(scan)
    assert inputs.fingerprint(one(tmp_path, **GIVEN, rows=[1, 5])) == before
    assert len(str(before)) < 1200
    for name in ("raw_7.tif", "flat_2.tif", "dark_1.tif", "angles.txt"):
        os.utime(tmp_path / name, ns=(0, 4_000_000_000_000_000_000))
        changed = inputs.fingerprint(scan)
        assert changed != before, name
        before = changed


# --- folders of TIFF


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("proj_0001", "proj"),
        ("Projections", "proj"),
        ("tomo-12", "proj"),
        ("raw_data", "proj"),
        ("FlatField_before", "flat"),
        ("tomo_flat_0001", "flat"),
        ("ff", "flat"),
        ("ref_03", "flat"),
        ("open beam", "flat"),
        ("darks", "dark"),
        ("DF0001", "dark"),
        ("di", "dark"),
        ("dark_flat", ""),
        ("scan_00010", ""),
        ("effort", ""),
    ],
)
def test_roles_told_by_names(name: str, role: str) -> None:
    assert role_of(name) == role


def _in_folders(root: Path) -> None:
    for name, data in (("Projections", PROJ), ("flat", FLAT), ("DF", DARK)):
        put(root / name, "img_", data)


def _by_names(root: Path) -> None:
    for name, data in (("tomo_x_", PROJ), ("ff_x_", FLAT), ("di_x_", DARK)):
        put(root, name, data)


def _in_data(root: Path) -> None:
    for name, data in (("proj", PROJ), ("flat", FLAT), ("dark", DARK)):
        put(root / "data", name, data)


def _dark_chocolate(root: Path) -> None:
    for name, data in (("tomo", PROJ), ("refs", FLAT), ("darks", DARK)):
        put(root / name, "dark_chocolate_", data)


def _beside(root: Path) -> None:
    put(root / "tomo", "tomo_", PROJ)
    put(root.parent / "flats", "tomo_", FLAT)
    put(root.parent / "darks", "tomo_", DARK)


@pytest.mark.parametrize("write", [_in_folders, _by_names, _in_data, _dark_chocolate, _beside])
def test_a_folder_of_tiff_is_recognised(tmp_path: Path, write: Callable[[Path], None]) -> None:
    folder = tmp_path / "all" / "cell_7"
    write(folder)
    (folder / "angles.txt").write_text("".join(f"{9 * i}\n" for i in range(20)))
    scan = one(folder)
    assert (scan.name, scan.layout, scan.shape) == ("cell_7", "tiff", (20, 6, 16))
    np.testing.assert_array_equal(scan.frames.read(), PROJ)
    (pair,) = scan.dark_flats
    np.testing.assert_array_equal(pair.flats.read(), FLAT)
    assert pair.darks is not None
    np.testing.assert_array_equal(pair.darks.read(), DARK)
    held = {each.name: each.holds for each in formats.find_scans(tmp_path / "all")}
    assert held.pop("cell_7") == "projections"
    assert held == ({"flats": "dark_flat"} if write is _beside else {})


def test_a_folder_of_scans_is_not_one_scan(tmp_path: Path) -> None:
    formats.write_scan(tmp_path / "scan_00010", a_scan(), layout="hex1")
    put(tmp_path, "proj_preview_", PROJ[:4])
    for name in ("tomo_1", "tomo_2"):
        put(tmp_path / name, "x_", PROJ)
    names = [each.name for each in formats.find_scans(tmp_path)]
    assert names == ["scan_00010", "scan_00011", "tomo_1", "tomo_2"]


def test_pictures_beside_other_data_are_no_scan(tmp_path: Path) -> None:
    h5(tmp_path / "a.h5", "x", 1)
    put(tmp_path, "picture", PROJ)
    with pytest.raises(BadScan, match="no raw scan"):
        formats.find_scans(tmp_path)
    put(tmp_path / "two", "picture", PROJ[:2])
    assert not formats.layouts()["tiff"].understands(tmp_path / "two")


def test_flats_before_and_after_are_in_order(tmp_path: Path) -> None:
    put(tmp_path, "proj_", PROJ)
    for i, when in enumerate(("before", "after")):
        put(tmp_path / f"flat_{when}", "x", FLAT + i, datetime=f"2025:03:01 1{i}:00:00")
        put(tmp_path / f"dark_{when}", "x", DARK + i)
    scan = one(tmp_path, angles=[0, 171])
    lows = [(int(p.flats.read()[0, 0, 0]), int(p.darks.read()[0, 0, 0])) for p in scan.dark_flats if p.darks]
    assert lows == [(FLAT[0, 0, 0] + i, DARK[0, 0, 0] + i) for i in range(2)]
    times = [pair.time_s for pair in scan.dark_flats]
    assert times[0] is not None
    assert times[1] is not None
    assert times[1] - times[0] == pytest.approx(3600)


def test_a_broken_note_beside_the_frames_is_said(tmp_path: Path) -> None:
    path = formats.write_scan(tmp_path / "s", a_scan(), layout="tiff")
    (path / "scan.toml").write_text("start_time = ")
    assert any("scan.toml: not used" in text for text in formats.open_scan(path).warnings)
    (path / "scan.toml").write_text('start_time = 3\ntimes = 4\nenergy_kev = "x"\npixel_um = -1')
    scan = formats.open_scan(path)
    assert (scan.energy_kev, scan.pixel_um) == (None, None)
    assert [pair.time_s for pair in scan.dark_flats] == [None]


def test_what_a_folder_of_tiff_lacks_is_said_and_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "x", "a_", PROJ)
    put(tmp_path / "x", "b_", FLAT)
    assert main(["inspect", str(tmp_path / "x")]) == 3
    said = capsys.readouterr().out
    for part in (
        "which TIFF files are projections is not clear",
        "a_*.tif: 20 file(s)",
        "give raw.data, raw.flats and raw.darks",
        "no flats",
        "no angles: give raw.angles",
    ):
        assert part in said
    recipe = tmp_path / "r.toml"
    call = ["init", str(tmp_path / "x"), "--out", str(recipe), "--energy-kev", "80", "--pixel-um", "1"]
    assert main(call) == 0
    text = recipe.read_text()
    assert "REQUIRED" in capsys.readouterr().out
    assert main(["run", str(recipe)]) == 3
    for line, given in (
        ('data = "tomo_*.tif"', 'data = "a_*.tif"'),
        ('flats = "flat_*.tif"', 'flats = "b_*.tif"'),
        ('angles = "angles.txt"', "angles = [0, 171]"),
    ):
        assert f"# {line}" in text
        text = text.replace(f"# {line}", given)
    recipe.write_text(text)
    (found,) = inputs.find(read_recipe(recipe).raw)
    scan = inputs.open_one(read_recipe(recipe).raw, found)
    assert (scan.name, scan.shape[0], scan.dark_flats[0].flats.shape[0]) == ("x", 20, 4)


def test_options_work_without_a_recipe(tmp_path: Path) -> None:
    loose_folder(tmp_path)
    options = RawOptions(data=("raw_*.tif",), flats=("flat_*.tif",), angles=(0.0, 171.0))
    scan = formats.open_scan(tmp_path, options=options)
    assert scan.errors == ()
    assert scan.warnings[-1] == "no darks: a dark of zero is used"
    with pytest.raises(BadScan, match="equal"):
        formats.open_scan(tmp_path, options=RawOptions(data=("raw_*.tif",), angles=(0.0, 0.0)))


# --- whole way


@pytest.mark.parametrize("named", [False, True])
def test_tiff_gives_the_same_volume_as_hex(make: Callable[..., Recipe], tmp_path: Path, named: bool) -> None:
    scan, _ = phantom.simulated_scan(size="tiny", seed=1)
    formats.write_scan(tmp_path / "raw" / "scan_00001", scan, layout="tiff")
    # files that are named carry no time, so one set of flats is used in both
    flats = {"flats": f"{tmp_path}/raw/{{scan}}/flat_after", "darks": f"{tmp_path}/raw/{{scan}}/dark_after"}
    data = {"data": "{scan}/proj/*.tif", "angles": "{scan}/angles.txt"}
    # HEX files have no place for the exposure, which says how far apart the flats are
    both = {"rows": [20, 40], "exposure_s": scan.exposure_s, **(flats if named else {})}
    tiff = {"folder": str(tmp_path / "raw"), **both, **(data if named else {})}
    volumes = []
    for run_folder, raw in (("a", both), ("b", tiff)):
        recipe = make(run_folder=run_folder, raw=raw, center={"center_px": 49.8}, correct=[])
        outcome = run(recipe)
        assert not outcome.failed
        volumes.append(volume.read(volume_path(recipe.run_folder, outcome.done[0])))
    np.testing.assert_array_equal(*volumes)


def test_projections_flats_and_darks_in_files_of_their_own(shared_data: Path) -> None:
    folder = shared_data / "i12_split_camera"
    for camera, pco in (("pc2", "pco2"), ("pc3", "pco3")):
        scan = one(
            folder,
            data=f"tomo_data/{camera}_projections.hdf:/entry/data/data",
            flats=f"dark_flat/{pco}_flats_*.hdf",
            darks=f"dark_flat/{pco}_darks_*.hdf",
            angles=[0, 180],
        )
        assert (scan.name, scan.shape) == (f"{camera}_projections", (19, 32, 64))
        np.testing.assert_allclose(np.degrees(scan.angles_rad), 10.0 * np.arange(19))
        (pair,) = scan.dark_flats
        for frames, kind in ((pair.flats, "flats"), (pair.darks, "darks")):
            assert frames is not None
            with h5py.File(folder / "dark_flat" / f"{pco}_{kind}_00000.hdf") as file:
                truth = file["entry/data/data"][()]
            np.testing.assert_array_equal(frames.read(), truth)
