"""NeXus files of every kind, links between HDF5 files, and what raw numbers tell about a scan."""

import itertools
import os
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d, shift

from xctpipe import cli
from xctpipe.errors import BadScan
from xctpipe.formats import RawOptions, describe, find_scans, layouts, open_scan, write_scan
from xctpipe.formats.frames import HdfFrames, open_frames
from xctpipe.formats.hdf5 import locate
from xctpipe.scan import ArrayFrames, DarkFlat, Scan
from xctpipe.survey import CenterChoice, make_survey

START = datetime(2025, 3, 1, 10, tzinfo=timezone(timedelta(hours=-5)))
KEYS = [2, 1, 1, *[0] * 20, 1]
BROKEN = {
    "flat_saturated_65535.h5": "65535 (saturated)",
    "hdf4_not_hdf5.hdf": "HDF4",
    "link_target_missing.nxs": "pco1-24888.hdf",
    "savu_stxm_is_xml.nxs": "XML",
    "v1150_GEIS.mpr": "Git LFS pointer",
}


def numbers(n: int, *, low: int = 1000, high: int = 2000, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(low, high, (n, 6, 8), dtype=np.uint16)


def a_scan(n: int = 20, **changes: Any) -> Scan:
    flats = DarkFlat(
        ArrayFrames(numbers(5, low=90, high=110, seed=1)),
        ArrayFrames(numbers(10, low=3000, high=3100, seed=2)),
        START.timestamp() - 60,
    )
    values: dict[str, Any] = {
        "name": "scan",
        "layout": "memory",
        "path": Path("none"),
        "frames": ArrayFrames(numbers(n)),
        "angles_rad": np.linspace(0, np.pi, n),
        "dark_flats": (flats,),
        "start_time": START,
        "exposure_s": 0.2,
    }
    return Scan(**{**values, **changes})


def make(path: Path, items: dict[str, Any]) -> Path:
    """An HDF5 file with these datasets and links; text attributes after an @ in the key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        for key, value in items.items():
            if key in file:
                del file[key]
            file[key] = value
    return path


def stack_of(keys: list[int]) -> Any:
    """Frames as bright as their image keys want them; the first pixel counts the frames."""
    level = np.array([{0: 1500, 1: 3000, 2: 100}[key] for key in keys], np.uint16)
    data = np.broadcast_to(level[:, None, None], (len(keys), 6, 8)).copy()
    data[:, 0, 0] += np.arange(len(keys), dtype=np.uint16)
    return data


def degrees(keys: list[int]) -> Any:
    moving = iter(np.linspace(0, 180, keys.count(0)))
    return np.array([next(moving) if key == 0 else 0.0 for key in keys])


def texts(scan: Scan, level: str) -> str:
    return " | ".join(problem.text for problem in scan.problems if problem.level == level)


# --- image keys and angles, wherever they are


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ("entry1/instrument/pco/data", "entry1/instrument/tomoScanDevice/image_key"),
        ("entry/data/data", "entry/image_key"),
        ("entry/images", "entry/keys/image_key_control"),
        ("scan/detector/frames", "scan/sample/image_key"),
        ("raw/stack", "image_key"),
        ("frames", "image_key"),
    ],
)
def test_image_keys_are_found_near_the_frames(tmp_path: Path, data: str, key: str) -> None:
    path = make(
        tmp_path / "a.nxs",
        {data: stack_of(KEYS), key: KEYS, f"{Path(key).parent}/rotation_angle": degrees(KEYS)},
    )
    scan = open_scan(path)
    assert scan.errors == ()
    assert scan.layout == "nxtomo"
    np.testing.assert_array_equal(scan.frames.read()[:, 0, 0], 1500 + np.arange(3, 23))
    np.testing.assert_allclose(scan.angles_rad, np.linspace(0, np.pi, 20))
    assert [item.flats.shape[0] for item in scan.dark_flats] == [2, 1]
    moved = Path(data).parent != Path(key).parent
    assert (f"the image keys {key} are taken for the frames {data}" in texts(scan, "warning")) == moved
    assert [each.holds for each in find_scans(path)] == ["projections"]


def test_the_nearest_image_keys_of_the_right_number_win(tmp_path: Path) -> None:
    other = [2, *KEYS[1:-1], 2]
    path = make(
        tmp_path / "a.nxs",
        {
            "entry/instrument/cam/data": stack_of(KEYS),
            "entry/instrument/other/image_key": KEYS,
            "entry/sample/image_key": other,
            "entry/instrument/short/image_key": KEYS[:5],
            "entry/sample/rotation_angle": degrees(KEYS),
        },
    )
    assert open_scan(path).dark_flats[-1].flats.shape[0] == 1
    make(path, {"entry/instrument/third/image_key": other})
    with pytest.raises(BadScan, match=r"other/image_key and .*third/image_key differ and are equally near"):
        open_scan(path)
    assert find_scans(path)[0].problem
    make(path, {"entry/instrument/third/image_key": KEYS})
    assert open_scan(path).shape[0] == 20


def test_frames_and_keys_of_other_numbers_are_named(tmp_path: Path) -> None:
    path = make(tmp_path / "a.nxs", {"entry/a/data": stack_of(KEYS), "entry/b/image_key": KEYS[:7]})
    with pytest.raises(BadScan, match=r"entry/b/image_key \(7\); entry/a/data \(24\)"):
        open_scan(path)


@pytest.mark.parametrize("shared", [True, False])
def test_of_two_cameras_one_is_named(tmp_path: Path, shared: bool) -> None:
    other = stack_of(KEYS)
    other[:, :, -1] = 7
    items = {
        "entry/definition": "NXtomo",
        "entry/instrument/left/data": stack_of(KEYS),
        "entry/instrument/right/data": other,
        "entry/instrument/left/image_key": KEYS,
        "entry/sample/rotation_angle": degrees(KEYS),
        "entry/instrument/fluo/data": np.zeros((24, 3)),
        "entry/processed/data": np.zeros((24, 2, 2)),
    }
    path = make(tmp_path / "a.nxs", items if shared else {**items, "entry/instrument/right/image_key": KEYS})
    said = r"2 cameras: left \(entry/instrument/left/data\), right .*raw\.camera = \"left\""
    with pytest.raises(BadScan, match=said):
        open_scan(path)
    for camera, value in (("left", 1500), ("right", 7)):
        scan = open_scan(path, options=RawOptions(camera=camera))
        assert int(scan.frames.read()[5, 5, -1]) == value
    with pytest.raises(BadScan, match="no camera 'rihgt'; did you mean 'right'"):
        open_scan(path, options=RawOptions(camera="rihgt"))
    assert find_scans(path)[0].holds == "projections"


def test_one_detector_under_two_names_is_one_camera(tmp_path: Path) -> None:
    path = make(
        tmp_path / "a.nxs",
        {
            "entry/instrument/pco/data": stack_of(KEYS),
            "entry/instrument/pco/image_key": KEYS,
            "entry/sample/rotation_angle": degrees(KEYS),
        },
    )
    with h5py.File(path, "r+") as file:
        file["entry/instrument/detector"] = h5py.SoftLink("/entry/instrument/pco")
        file["entry/data/data"] = file["entry/instrument/pco/data"]
        file["entry/data/up"] = h5py.SoftLink("/entry")
    scan = open_scan(path)
    assert "image keys" not in texts(scan, "warning")
    assert "other stacks" not in texts(scan, "warning")
    assert scan.shape == (20, 6, 8)


def test_angles_are_found_near_and_differing_ones_are_refused(tmp_path: Path) -> None:
    items = {"e/instrument/d/data": stack_of(KEYS), "e/instrument/d/image_key": KEYS}
    path = make(tmp_path / "a.nxs", {**items, "e/instrument/stage/rotation_angle": degrees(KEYS)})
    make(path, {"e/instrument/motor/rotation_angle": np.arange(5.0)})
    scan = open_scan(path)
    assert "the angles e/instrument/stage/rotation_angle are taken" in texts(scan, "warning")
    make(path, {"e/instrument/other/rotation_angle": degrees(KEYS) + 1})
    with pytest.raises(BadScan, match=r"other/rotation_angle and .*stage/rotation_angle differ"):
        open_scan(path)
    make(path, {"e/sample/rotation_angle": degrees(KEYS)})
    assert open_scan(path).angles_rad[-1] == pytest.approx(np.pi)


def test_angles_of_the_recipe_need_none_in_the_file(tmp_path: Path) -> None:
    items = {"e/instrument/d/data": stack_of(KEYS), "e/instrument/d/image_key": KEYS}
    path = make(tmp_path / "a.nxs", items)
    with pytest.raises(BadScan, match="no angles"):
        open_scan(path)
    scan = open_scan(path, options=RawOptions(angles=(0.0, 90.0)))
    assert scan.angles_rad[-1] == pytest.approx(np.pi / 2)


# --- files of CIL


def cil(path: Path, axes: tuple[str, ...], *, data: Any = None, **attributes: Any) -> tuple[Path, Any]:
    """A file as old versions of CIL write it, and its frames as (angle, row, col)."""
    size = {"angle": 20, "vertical": 4, "horizontal": 9, "channel": 2}
    shape = [size[axis] for axis in axes]
    if data is None:
        data = np.random.default_rng(0).uniform(0, 2, shape).astype(np.float32)
    angles = np.linspace(0, np.pi, 20, dtype=np.float32)
    key = "entry1/tomo_entry/data/data"
    make(path, {key: data, "entry1/tomo_entry/data/rotation_angle": angles})
    labels = {f"dim{i}": axis for i, axis in enumerate(axes)}
    with h5py.File(path, "r+") as file:
        file[key].attrs.update({"geom_type": "parallel", "pixel_size_h": 0.25, **labels, **attributes})
    return path, data.transpose([axes.index(axis) for axis in ("angle", "vertical", "horizontal")])


@pytest.mark.parametrize("axes", list(itertools.permutations(("angle", "vertical", "horizontal"))))
def test_cil_axes_in_any_order_are_read_as_frames(tmp_path: Path, axes: tuple[str, ...]) -> None:
    path, frames = cil(tmp_path / "a.nxs", axes)
    scan = open_scan(path, options=RawOptions(log_absorption=True))
    assert scan.errors == ()
    assert scan.pixel_um == pytest.approx(250)
    np.testing.assert_array_equal(scan.frames.read(), frames)
    np.testing.assert_array_equal(scan.frames.read((1, 3), frames=(2, 11)), frames[2:11, 1:3])
    said = f"stored as ({', '.join(axes)})" in texts(scan, "warning")
    assert said == (axes[0] != "angle")
    assert "taken as radians" in texts(scan, "warning")


def test_a_row_of_cil_data_is_read_without_the_others(tmp_path: Path) -> None:
    data = np.zeros((64, 20, 1000), np.float32)
    data[5] = 1
    path, _ = cil(tmp_path / "a.nxs", ("vertical", "angle", "horizontal"), data=data)
    frames = open_scan(path, options=RawOptions(log_absorption=True), look_at_frames=False).frames
    tracemalloc.start()
    band = frames.read((5, 7))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [float(v) for v in band[3, :, 17]] == [1, 0]
    assert peak < 3 * band.nbytes + 100_000 < data.nbytes


def test_cil_data_without_flats_says_what_to_set(tmp_path: Path) -> None:
    path, _ = cil(tmp_path / "a.nxs", ("angle", "vertical", "horizontal"))
    assert "raw.log_absorption = true" in texts(open_scan(path), "error")
    scan = open_scan(path, options=RawOptions(log_absorption=True))
    assert "taken as absorption" in texts(scan, "warning")
    assert "CONE" not in texts(scan, "warning")


def test_a_cone_beam_is_warned_of_and_its_pixels_are_those_at_the_sample(tmp_path: Path) -> None:
    axes = ("angle", "vertical", "horizontal")
    far = {"dist_source_center": 50.0, "dist_center_detector": 150.0}
    path, _ = cil(tmp_path / "a.nxs", axes, geom_type="cone", **far)
    scan = open_scan(path, options=RawOptions(log_absorption=True))
    assert scan.pixel_um == pytest.approx(62.5)
    assert "CONE BEAM" in texts(scan, "warning")
    place = "entry1/tomo_entry/config"
    for what, y in (("source", -50.0), ("rotation_axis", 0.0), ("detector", 450.0)):
        make(path, {f"{place}/{what}/position": [0.0, y, 0.0]})
    assert open_scan(path, options=RawOptions(log_absorption=True)).pixel_um == pytest.approx(25)


def test_later_cil_files_say_the_unit_of_their_angles(tmp_path: Path) -> None:
    path, _ = cil(tmp_path / "a.nxs", ("angle", "vertical", "horizontal"))
    make(path, {"entry1/tomo_entry/config/angles": np.linspace(0, 5, 20)})
    with h5py.File(path, "r+") as file:
        file["entry1/tomo_entry/config/angles"].attrs["angle_unit"] = "degree"
        file["entry1/tomo_entry/data/data"].attrs["pixel_size_h"] = 1.0
    scan = open_scan(path, options=RawOptions(log_absorption=True))
    assert scan.angles_rad[-1] == pytest.approx(np.radians(5))
    assert scan.pixel_um is None


@pytest.mark.parametrize(
    ("axes", "attributes", "said"),
    [
        (
            ("channel", "angle", "vertical", "horizontal"),
            {},
            r"axes \(channel, angle, vertical, horizontal\)",
        ),
        (("angle", "horizontal"), {}, "angle, vertical and horizontal are needed"),
        (("angle", "vertical", "horizontal"), {"scale": 100.0}, "compression=0"),
    ],
)
def test_cil_data_of_other_kinds_are_refused(
    tmp_path: Path, axes: tuple[str, ...], attributes: dict[str, float], said: str
) -> None:
    size = {"angle": 20, "vertical": 4, "horizontal": 9, "channel": 2}
    path = tmp_path / "a.nxs"
    make(path, {"entry1/tomo_entry/data/data": np.ones([size[axis] for axis in axes], np.float32)})
    labels = {f"dim{i}": axis for i, axis in enumerate(axes)}
    with h5py.File(path, "r+") as file:
        file["entry1/tomo_entry/data/data"].attrs.update({"geom_type": "parallel", **labels, **attributes})
    with pytest.raises(BadScan, match=said):
        open_scan(path)


def test_the_rock_opens_with_a_warning_of_each(shared_data: Path) -> None:
    path = shared_data / "rock_radians_360" / "Sinogram_Rock_sample_3D.nxs"
    assert "set raw.log_absorption = true" in texts(open_scan(path), "error")
    scan = open_scan(path, options=RawOptions(log_absorption=True))
    assert scan.errors == ()
    assert scan.shape == (120, 5, 400)
    said = texts(scan, "warning")
    for part in ("(vertical, angle, horizontal)", "taken as radians", "CONE BEAM", "taken as absorption"):
        assert part in said
    with h5py.File(path) as file:
        row = file["entry1/tomo_entry/data/data"][2]
    np.testing.assert_array_equal(scan.frames.read((2, 3))[:, 0], row)
    # 250 um pixels, 4.31 m and 12.26 m from the axis
    assert scan.pixel_um == pytest.approx(250 * 4307.692 / (4307.692 + 12260.355), rel=1e-5)


def best_mirror_px(sinogram: np.ndarray, candidates: np.ndarray) -> float:
    """Axis about which frames half a turn apart are mirror images, without what stands still: correlation."""
    fine = sinogram - gaussian_filter1d(sinogram, 8, axis=1)
    fine -= fine.mean(axis=0)
    half, n_cols = len(fine) // 2, fine.shape[1]
    inside = slice(30, n_cols - 30)
    first, scores = fine[:half, inside], []
    for center in candidates:
        mirrored = shift(fine[half:, ::-1], (0, 2 * center - (n_cols - 1)), order=3)[:, inside]
        scores.append((first * mirrored).sum() / np.linalg.norm(mirrored))
    return float(candidates[np.argmax(scores)])


def test_the_axis_of_the_rock_is_where_opposite_frames_mirror(shared_data: Path) -> None:
    """The symmetry of the mean over angles points to 198, but that is stripes: static, and no axis."""
    path = shared_data / "rock_radians_360" / "Sinogram_Rock_sample_3D.nxs"
    scan = open_scan(path, options=RawOptions(log_absorption=True))
    # read once, not again for each row that is looked at
    scan = replace(scan, frames=ArrayFrames(scan.frames.read()))
    survey = make_survey(scan, center=CenterChoice())
    expected = best_mirror_px(scan.frames.read((2, 3))[:, 0], np.arange(190, 210, 0.25))
    assert float(survey.center_at(np.array([2]))[0]) == pytest.approx(expected, abs=0.5)


# --- links of which some lead nowhere


def exchange(path: Path, **changes: Any) -> Path:
    return write_scan(path, a_scan(**changes), layout="dxchange")


@pytest.mark.parametrize(("key", "role"), [("exchange/data_white", "flats"), ("exchange/data_dark", "darks")])
def test_missing_darks_and_flats_are_named_and_the_scan_opens(tmp_path: Path, key: str, role: str) -> None:
    path = make(exchange(tmp_path / "a.h5"), {key: h5py.ExternalLink("/old/place/ff.h5", "/x")})
    scan = open_scan(path)
    said = (
        f"{role} cannot be read: {path}: /{key} is an external link to /old/place/ff.h5 (/x), which does not"
    )
    assert said in texts(scan, "error")
    assert cli.main(["inspect", str(path)]) == 3
    with pytest.raises(BadScan, match=r"ff\.h5"):
        layouts()["dxchange"].open_dark_flat(path, options=RawOptions())
    other = exchange(tmp_path / "other.h5")
    assert open_scan(path, dark_flat=[other]).errors == ()


def test_missing_angles_and_frames_are_named(tmp_path: Path) -> None:
    for i, key in enumerate(("exchange/theta", "exchange/data")):
        path = make(exchange(tmp_path / f"{i}.h5"), {key: h5py.ExternalLink("gone.h5", "/x")})
        with pytest.raises(BadScan, match=rf"/{key} is an external link to gone\.h5 \(/x\), which does not"):
            open_scan(path)


def test_missing_image_keys_or_frames_of_nxtomo_are_named(tmp_path: Path) -> None:
    group = "entry/instrument/detector"
    for name in ("data", "image_key"):
        path = write_scan(tmp_path / f"{name}.nxs", a_scan(), layout="nxtomo")
        make(path, {f"{group}/{name}": h5py.ExternalLink("gone.h5", "/x")})
        with pytest.raises(BadScan, match=rf"/{group}/{name} is an external link to gone\.h5"):
            open_scan(path)


def linked(tmp_path: Path, stated: str) -> Path:
    """A NeXus file in raw/scan_00010 whose frames are in another file."""
    path = tmp_path / "raw" / "scan_00010" / "scan_00010.nxs"
    return make(path, {"entry/data/data": h5py.ExternalLink(stated, "/frames")})


@pytest.mark.parametrize(
    ("stated", "now"),
    [
        ("/gone/data.h5", "scan_00010/data.h5"),
        ("/gone/assets/cam/data.h5", "assets/cam/data.h5"),
        ("../../assets/cam/data.h5", "cam/data.h5"),
        ("/gone/data.h5", "scan_00010/frames/data.h5"),
        ("/gone/proj_00010.h5", "scan_00011/proj_00010.h5"),
        ("/gone/3f2504e0-4f89-11d3-9a0c-0305e82c3301.h5", "x/3f2504e0-4f89-11d3-9a0c-0305e82c3301.h5"),
        ("/gone/data.h5", "detector/data.h5"),
    ],
)
def test_moved_files_are_found_around_the_link(tmp_path: Path, stated: str, now: str) -> None:
    path = linked(tmp_path, stated)
    target = make(tmp_path / "raw" / now, {"frames": numbers(3)})
    place = locate(path, "entry/data/data", options=RawOptions(folder=tmp_path / "raw"))
    assert place is not None
    assert place.path.samefile(target)
    assert f"{stated}, the target of /entry/data/data, is missing" in place.note


@pytest.mark.parametrize("others", [["scan_00011/proj.h5"], ["a/proj.h5", "b/proj.h5"]])
def test_a_file_of_another_scan_is_not_taken(tmp_path: Path, others: list[str]) -> None:
    path = linked(tmp_path, "/gone/proj.h5")
    for other in others:
        make(tmp_path / "raw" / other, {"frames": numbers(3)})
    with pytest.raises(
        BadScan, match=r"does not exist; put proj\.h5 beside .*files of that name: .*proj\.h5"
    ):
        locate(path, "entry/data/data", options=RawOptions(folder=tmp_path / "raw"))


def test_moved_files_outside_the_folder_are_used_only_when_allowed(tmp_path: Path) -> None:
    path = linked(tmp_path, "/gone/cam/data.h5")
    target = make(tmp_path / "cam" / "data.h5", {"frames": numbers(3)})
    with pytest.raises(BadScan, match="does not exist"):
        locate(path, "entry/data/data", options=RawOptions(folder=tmp_path / "raw"))
    place = locate(path, "entry/data/data", options=RawOptions(follow_links_outside=True))
    assert place is not None
    assert place.path.samefile(target)


def virtual(path: Path, sources: list[tuple[str, str]], *, each: int = 5, n: int | None = None) -> Path:
    layout = h5py.VirtualLayout((n or each * len(sources), 6, 8), "u2")
    for i, (file, key) in enumerate(sources):
        layout[i * each : (i + 1) * each] = h5py.VirtualSource(file, key, (each, 6, 8))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("entry/data/data", layout)
    return path


def frames_of(path: Path, key: str = "entry/data/data") -> tuple[HdfFrames, tuple[str, ...]]:
    return open_frames(path, key, options=RawOptions())


def test_some_missing_sources_of_a_virtual_dataset_are_named(tmp_path: Path) -> None:
    names = [f"part{i}.h5" for i in range(6)]
    for i, name in enumerate(names):
        make(tmp_path / name, {"x": numbers(5, seed=i)})
    path = virtual(tmp_path / "all.h5", [(name, "x") for name in names])
    np.testing.assert_array_equal(frames_of(path)[0].read(frames=(25, 30)), numbers(5, seed=5))
    for name in names[2:4]:
        (tmp_path / name).unlink()
    with pytest.raises(BadScan, match=r"needs 6 files, of which 2 do not exist: part2\.h5, part3\.h5"):
        frames_of(path)
    make(tmp_path / "part2.h5", {"y": numbers(5)})
    (tmp_path / "part3.h5").write_bytes((tmp_path / "part0.h5").read_bytes())
    with pytest.raises(BadScan, match=r"needs x, which is not in .*part2\.h5"):
        frames_of(path)


def test_virtual_datasets_of_virtual_datasets_are_followed(tmp_path: Path) -> None:
    make(tmp_path / "leaf.h5", {"x": numbers(5)})
    virtual(tmp_path / "middle.h5", [("leaf.h5", "x")])
    path = virtual(tmp_path / "top.h5", [("middle.h5", "entry/data/data")])
    np.testing.assert_array_equal(frames_of(path)[0].read(), numbers(5))
    (tmp_path / "leaf.h5").unlink()
    with pytest.raises(BadScan, match=r"middle\.h5: .* is virtual and needs leaf\.h5, which does not exist"):
        frames_of(path)
    circle = virtual(tmp_path / "circle.h5", [("circle.h5", "entry/data/data")])
    with pytest.raises(BadScan, match="circle"):
        frames_of(circle)


def test_sources_are_looked_for_where_hdf5_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "leaf.h5", {"x": numbers(5)})
    path = virtual(tmp_path / "moved.h5", [("/gone/leaf.h5", "x")])
    np.testing.assert_array_equal(frames_of(path)[0].read(), numbers(5))
    (tmp_path / "sub").mkdir()
    (tmp_path / "leaf.h5").rename(tmp_path / "sub" / "leaf.h5")
    with pytest.raises(BadScan, match="HDF5_VDS_PREFIX"):
        frames_of(path)
    monkeypatch.setenv("HDF5_VDS_PREFIX", "${ORIGIN}/sub")
    np.testing.assert_array_equal(frames_of(path)[0].read(), numbers(5))


def test_numbered_sources_must_have_no_gap(tmp_path: Path) -> None:
    for i in range(4):
        make(tmp_path / f"f-{i}.h5", {"x": numbers(5, seed=i)})
    path = tmp_path / "all.h5"
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((0, 6, 8), (h5py.h5s.UNLIMITED, 6, 8))
        space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), (5, 6, 8), (5, 6, 8))
        source = h5py.h5s.create_simple((5, 6, 8))
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_virtual(space, b"f-%b.h5", b"x", source)
        whole = h5py.h5s.create_simple((0, 6, 8), (h5py.h5s.UNLIMITED, 6, 8))
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT16, whole, plist)
    frames, notes = frames_of(path, "x")
    assert notes == ()
    np.testing.assert_array_equal(frames.read(frames=(15, 20)), numbers(5, seed=3))
    (tmp_path / "f-2.h5").unlink()
    with pytest.raises(BadScan, match=r"f-2\.h5, which does not exist"):
        frames_of(path, "x")


def test_frames_that_no_source_fills_are_counted(tmp_path: Path) -> None:
    make(tmp_path / "part.h5", {"x": numbers(5)})
    path = virtual(tmp_path / "all.h5", [("part.h5", "x")], n=12)
    assert "7 of 12 frames were never written" in frames_of(path)[1][0]


def test_raw_numbers_outside_the_file_must_be_there_in_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = numbers(4)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data.shape, data.dtype, external=[("a.raw", 16, data.nbytes)])
    with pytest.raises(BadScan, match=r"numbers of /x are in a\.raw, which does not exist"):
        frames_of(path, "x")
    (tmp_path / "a.raw").write_bytes(bytes(16) + data.tobytes())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(frames_of(path, "x")[0].read((1, 3)), data[:, 1:3])
    (tmp_path / "a.raw").write_bytes(bytes(16) + data.tobytes()[:-10])
    with pytest.raises(BadScan, match=rf"too short: {data.nbytes - 10} of {data.nbytes} bytes are there"):
        frames_of(path, "x")


# --- storage


@pytest.mark.parametrize("kind", ["u1", ">u2", "<u2", ">f4", "<f4"])
@pytest.mark.parametrize(
    "packed",
    [
        {},
        {"compression": "gzip", "shuffle": True},
        hdf5plugin.LZ4(),
        hdf5plugin.Bitshuffle(),
        hdf5plugin.Blosc(),
        hdf5plugin.Zstd(),
    ],
)
def test_every_compression_and_type_gives_native_numbers(tmp_path: Path, kind: str, packed: Any) -> None:
    data = np.random.default_rng(0).integers(0, 255, (7, 6, 8)).astype(kind)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=data, chunks=(1, 6, 8), **packed)
    frames, notes = frames_of(path, "x")
    assert notes == ()
    assert frames.dtype == np.dtype(kind).newbyteorder("=")
    assert frames.dtype.isnative
    np.testing.assert_array_equal(frames.read((2, 5), frames=(1, 6)), data[1:6, 2:5])
    assert frames.whole_frames == bool(packed)


@pytest.mark.parametrize(
    ("chunks", "packed", "whole"),
    [((1, 64, 8), True, True), ((1, 4, 8), True, False), ((1, 64, 8), False, False), (None, False, False)],
)
def test_frames_tell_when_a_few_rows_cost_them_whole(
    tmp_path: Path, chunks: Any, packed: bool, whole: bool
) -> None:
    path = tmp_path / "a.h5"
    options = {"compression": "gzip"} if packed else {}
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.ones((5, 64, 8), np.uint16), chunks=chunks, **options)
        layout = h5py.VirtualLayout((5, 64, 8), "u2")
        layout[:] = h5py.VirtualSource(".", "x", (5, 64, 8))
        file.create_virtual_dataset("v", layout)
    for key in ("x", "v"):
        frames = frames_of(path, key)[0]
        assert frames.whole_frames == whole
        assert frames.select(np.array([True, False, True, True, False])).whole_frames == whole


def test_the_description_says_that_frames_are_compressed(tmp_path: Path) -> None:
    path = exchange(tmp_path / "a.h5")
    assert "compressed" not in describe(open_scan(path))
    with h5py.File(path, "r+") as file:
        data = file["exchange/data"][()]
        del file["exchange/data"]
        file.create_dataset("exchange/data", data=data, chunks=(1, 6, 8), compression="gzip")
    assert "compressed: a few rows cost whole frames" in describe(open_scan(path))


# --- scans that are still being written


def growing_scan(tmp_path: Path, *, written: int) -> Path:
    path = exchange(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        data = file["exchange/data"][()]
        del file["exchange/data"]
        file.create_dataset("exchange/data", data.shape, "u2", chunks=(1, 6, 8))[:written] = data[:written]
    return path


def test_frames_missing_at_the_end_of_a_fresh_file_stop_it(tmp_path: Path) -> None:
    path = growing_scan(tmp_path, written=13)
    scan = open_scan(path)
    said = "a.h5: the last 7 of 20 frames are not there yet; a.h5 was changed"
    assert said in texts(scan, "error")
    os.utime(path, (1.7e9, 1.7e9))
    scan = open_scan(path)
    assert scan.errors == ()
    assert "7 of 20 frames were never written" in texts(scan, "warning")
    whole = open_scan(exchange(tmp_path / "whole.h5"))
    assert whole.problems == ()


@pytest.mark.parametrize("frames", [10, 13])
def test_fewer_frames_than_angles_in_a_fresh_file_stop_it(tmp_path: Path, frames: int) -> None:
    path = exchange(tmp_path / "a.h5")
    make(path, {"exchange/data": numbers(frames)})
    with pytest.raises(BadScan, match=rf"20 angles for {frames} frames.*a\.h5 was changed .*wait until"):
        open_scan(path)
    os.utime(path, (1.7e9, 1.7e9))
    if frames == 10:
        assert "averaged in groups of 2" in texts(open_scan(path), "warning")


def test_fewer_frames_than_image_keys_in_a_fresh_file_stop_it(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.nxs", a_scan(), layout="nxtomo")
    make(path, {"entry/instrument/detector/data": numbers(20)})
    with pytest.raises(BadScan, match=r"35 image keys for 20 frames.*wait until it is finished"):
        open_scan(path)


def test_a_file_open_for_writing_is_said(tmp_path: Path) -> None:
    path = exchange(tmp_path / "a.h5")
    program = (
        "import h5py, os, sys\n"
        "for name, swmr in (('live.h5', True), ('dead.h5', False)):\n"
        "    with h5py.File('a.h5') as old:\n"
        "        new = h5py.File(name, 'w', libver='latest')\n"
        "        for key in ('exchange', 'process', 'measurement'):\n"
        "            old.copy(key, new)\n"
        "    if swmr:\n        new.swmr_mode = True\n"
        "    new.flush()\n"
        "    globals()[name] = new\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    scan = open_scan(tmp_path / "live.h5")
    assert scan.errors == ()
    assert "live.h5 is open for writing" in texts(scan, "warning")
    np.testing.assert_array_equal(scan.frames.read(), open_scan(path).frames.read())
    with pytest.raises(BadScan, match=r"open for writing.*if that program has crashed, run: h5clear -s dead"):
        frames_of(tmp_path / "dead.h5", "exchange/data")


# --- flats of another exposure, single bad frames


def test_flats_of_another_exposure_are_an_error_with_both(tmp_path: Path) -> None:
    path = exchange(tmp_path / "a.h5")
    other = exchange(tmp_path / "b.h5", exposure_s=0.1)
    said = "were exposed for 0.1 s, the projections for 0.2 s; name flats of the same exposure"
    assert said in texts(open_scan(path, dark_flat=[other]), "error")
    same = write_scan(tmp_path / "c.nxs", a_scan(exposure_s=0.201), layout="nxtomo")
    assert open_scan(path, dark_flat=[same]).problems == ()
    make(path, {"process/acquisition/flat_fields/flat_exposure_time": 0.1})
    assert said in texts(open_scan(path), "error")


def test_exposures_of_frames_in_one_nxtomo_stack_are_told_apart(tmp_path: Path) -> None:
    path = write_scan(tmp_path / "a.nxs", a_scan(), layout="nxtomo")
    each = np.array([0.2] * 5 + [0.1] * 10 + [0.2] * 20)
    make(path, {"entry/instrument/detector/count_time": each})
    scan = open_scan(path)
    assert scan.exposure_s == 0.2
    assert "were exposed for 0.1 s, the projections for 0.2 s" in texts(scan, "error")
    make(path, {"entry/instrument/detector/count_time": np.full(35, 0.2)})
    assert open_scan(path).problems == ()


@pytest.mark.parametrize(
    ("value", "said"),
    [(65535, "saturated"), (0, "zero everywhere"), (1200, "1200 where the others are 30")],
)
def test_a_single_bad_flat_is_named_and_left_out(tmp_path: Path, value: int, said: str) -> None:
    flats = numbers(10, low=3000, high=3100)
    flats[7] = value
    item = replace(a_scan().dark_flats[0], flats=ArrayFrames(flats))
    scan = open_scan(exchange(tmp_path / "a.h5", dark_flats=(item,)))
    assert scan.errors == ()
    text = texts(scan, "warning")
    assert f"1 of 10 frames stand out: frame 7 is {said}" in text
    assert "left out" in text
    np.testing.assert_array_equal(scan.dark_flats[0].flats.read(), np.delete(flats, 7, axis=0))
    assert "9 flats" in describe(scan)


def test_darks_with_the_shutter_open_are_left_out(tmp_path: Path) -> None:
    darks = numbers(6, low=90, high=110)
    darks[[0, 5]] = 2900
    item = replace(a_scan().dark_flats[0], darks=ArrayFrames(darks))
    scan = open_scan(exchange(tmp_path / "a.h5", dark_flats=(item,)))
    assert "2 of 6 frames stand out: frame 0 is 2900 where the others are" in texts(scan, "warning")
    assert scan.dark_flats[0].darks is not None
    assert scan.dark_flats[0].darks.shape[0] == 4


def test_flats_that_drift_with_the_beam_are_kept(tmp_path: Path) -> None:
    flats = (numbers(10, low=3000, high=3100) * np.linspace(0.85, 1.15, 10)[:, None, None]).astype(np.uint16)
    item = replace(a_scan().dark_flats[0], flats=ArrayFrames(flats))
    assert open_scan(exchange(tmp_path / "a.h5", dark_flats=(item,))).problems == ()


def test_of_two_different_flats_none_is_called_the_bad_one(tmp_path: Path) -> None:
    flats = numbers(2, low=3000, high=3100)
    flats[1] //= 2
    item = replace(a_scan().dark_flats[0], flats=ArrayFrames(flats))
    assert open_scan(exchange(tmp_path / "a.h5", dark_flats=(item,))).dark_flats[0].flats.shape[0] == 2


# --- files that cannot be used


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_end_with_their_cause_and_exit_code_three(
    shared_data: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = shared_data / "broken_files" / name
    assert cli.main(["inspect", str(path)]) == 3
    said = "".join(capsys.readouterr())
    assert BROKEN[name] in said
    assert "Traceback" not in said
    with pytest.raises(BadScan, match=re.escape(BROKEN[name])):
        open_scan(path)


def test_no_broken_file_is_forgotten(shared_data: Path) -> None:
    names = {path.name for path in (shared_data / "broken_files").iterdir() if path.suffix != ".md"}
    assert names == set(BROKEN)
