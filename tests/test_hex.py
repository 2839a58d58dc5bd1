"""Raw data of HEX, generation by generation: what is there is found, what is not sure is refused."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reconstructing import run

from xctpipe import phantom, volume
from xctpipe.errors import BadScan
from xctpipe.formats import RawOptions, find_scans, open_scan, write_scan
from xctpipe.formats.angles import counts_to_degrees, repeats, still_at_end, to_radians
from xctpipe.formats.frames import HdfFrames, open_frames
from xctpipe.formats.hexframes import split_dark_flat, take
from xctpipe.formats.registry import layout_of
from xctpipe.prepare import volume_path
from xctpipe.recipe import Recipe, make_recipe
from xctpipe.scan import ArrayFrames, Frames, Scan
from xctpipe.survey import frame_weights

HEX = ["hex0", "hex1", "hex2", "hex3"]
DATA = "entry/data/data"
IDS = "entry/instrument/NDAttributes/NDArrayUniqueId"
ANGLE = "entry/data/rotation_angle"
UUID = "0f9b6a52-1f0e-4d83-9e0a-0b1f5c7d2e11"


@pytest.fixture(scope="module")
def mini() -> Scan:
    scan = phantom.simulated_scan(size="mini", seed=2, n_angles=37)[0]

    def kept(frames: Frames) -> Frames:
        return ArrayFrames(frames.read())

    sets = [
        replace(item, darks=item.darks and kept(item.darks), flats=kept(item.flats))
        for item in scan.dark_flats
    ]
    return replace(scan, frames=kept(scan.frames), dark_flats=tuple(sets))


@pytest.fixture
def gen(tmp_path: Path, mini: Scan) -> Callable[[str], Path]:
    """Writer of the simulated scan_00010 in a generation; gives the folder around it."""

    def write(layout: str) -> Path:
        write_scan(tmp_path / "raw" / "scan_00010", mini, layout=layout)
        return tmp_path / "raw"

    return write


def edit(path: Path, key: str, value: Any) -> None:
    with h5py.File(path, "r+") as file:
        if key in file:
            del file[key]
        if value is not None:
            file[key] = value


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.rglob(pattern)
    return path


def same(scan: Scan, other: Scan) -> None:
    np.testing.assert_array_equal(scan.frames.read(), other.frames.read())
    np.testing.assert_allclose(scan.angles_rad, other.angles_rad, rtol=1e-15, atol=1e-15)
    assert len(scan.dark_flats) == len(other.dark_flats)
    for one, two in zip(scan.dark_flats, other.dark_flats, strict=True):
        assert one.darks is not None
        assert two.darks is not None
        np.testing.assert_array_equal(one.darks.read(), two.darks.read())
        np.testing.assert_array_equal(one.flats.read(), two.flats.read())


def warnings(scan: Scan) -> str:
    return "\n".join(scan.warnings)


# --- all generations


def test_one_scan_in_four_generations_is_one_scan(tmp_path: Path, mini: Scan) -> None:
    found: list[Scan] = []
    for layout in HEX:
        write_scan(tmp_path / layout / "scan_00010", mini, layout=layout)
        found.append(open_scan(tmp_path / layout))
        assert found[-1].layout == layout
        assert found[-1].name == "scan_00010"
        assert found[-1].problems == ()
        assert found[-1].start_time == mini.start_time
        assert [item.time_s for item in found[-1].dark_flats] == pytest.approx(
            [item.time_s for item in mini.dark_flats], abs=1e-5
        )
        same(found[-1], mini)
    for other in found[1:]:
        np.testing.assert_array_equal(other.angles_rad, found[0].angles_rad)


def test_one_scan_in_three_generations_is_one_volume(tmp_path: Path) -> None:
    scan, truth = phantom.simulated_scan(size="mini", seed=2)
    volumes = []
    for layout in ("hex1", "hex2", "hex3"):
        write_scan(tmp_path / layout / "scan_00010", scan, layout=layout)
        recipe = _recipe(tmp_path, layout, pixel_um=truth["pixel_um"])
        assert run(recipe).done == ["scan_00010"]
        volumes.append(volume.read(volume_path(recipe.run_folder, "scan_00010")))
    np.testing.assert_array_equal(volumes[0], volumes[1])
    np.testing.assert_array_equal(volumes[0], volumes[2])


def _recipe(folder: Path, layout: str, *, pixel_um: float) -> Recipe:
    raw = {"folder": layout, "energy_kev": 80.0, "pixel_um": pixel_um}
    table = {"name": "test", "run_folder": f"run_{layout}", "raw": raw, "center": {"center_px": 48.3}}
    return make_recipe(table, base=folder)


@pytest.mark.parametrize("layout", HEX)
def test_lost_frames_are_said_in_every_generation(gen: Callable[[str], Path], layout: str) -> None:
    frames = open_scan(gen(layout)).frames
    assert isinstance(frames, HdfFrames)
    numbers = np.arange(37)
    numbers[12:] += 3
    edit(frames.path, IDS, numbers)
    assert "the numbers jump after frame 11 (by 3 in all)" in warnings(open_scan(frames.path.parents[0]))


@pytest.mark.parametrize("layout", HEX)
def test_a_scan_from_180_to_0_keeps_its_direction(tmp_path: Path, mini: Scan, layout: str) -> None:
    backwards = replace(mini, angles_rad=mini.angles_rad[::-1].copy())
    write_scan(tmp_path / "scan_00010", backwards, layout=layout)
    scan = open_scan(tmp_path)
    assert scan.problems == ()
    np.testing.assert_allclose(scan.angles_rad, backwards.angles_rad, rtol=1e-15)


@pytest.mark.parametrize("layout", HEX)
def test_angles_of_the_user_stand_in_for_missing_ones(gen: Callable[[str], Path], layout: str) -> None:
    folder = gen(layout)
    for path in [*folder.rglob("*.nxs"), *folder.rglob("*.h5"), *folder.rglob("panda*.hdf")]:
        with h5py.File(path, "r+") as file:
            for key in {ANGLE, "Angle", "CALC2.OUT.Value"} & {ANGLE, *file}:
                if key in file or layout != "hex0":
                    file.pop(key, None)
    scans = [each.path for each in find_scans(folder) if each.holds == "projections"]
    if layout == "hex0":  # the link stays, for it tells the generation
        scans = [only(folder, "tomo_flyscan*.nxs")]
    with pytest.raises(BadScan, match="no angles"):
        open_scan(scans[0])
    scan = open_scan(scans[0], options=RawOptions(angles=(0.0, 180.0)))
    assert scan.errors == ()
    assert np.degrees(scan.angles_rad[[0, -1]]) == pytest.approx([0, 180])


# --- generation 0


def test_counts_are_degrees_when_the_scale_was_not_set(gen: Callable[[str], Path], mini: Scan) -> None:
    folder = gen("hex0")
    panda = _with_key(folder / "scan_00010", "CALC2.OUT.Value")
    counts = 200 * np.degrees(mini.angles_rad) - 39660
    edit(panda, "CALC2.OUT.Value", counts)
    scan = open_scan(folder)
    np.testing.assert_allclose(scan.angles_rad, mini.angles_rad, atol=1e-12)
    assert "encoder counts: taken as 0.005 deg a count + 198.3 deg" in warnings(scan)
    edit(panda, "CALC2.OUT.Value", counts[::-1])
    scan = open_scan(folder)
    np.testing.assert_allclose(scan.angles_rad, mini.angles_rad[::-1], atol=1e-12)
    assert "running backwards" in warnings(scan)
    with pytest.raises(BadScan, match="100 turns"):
        open_scan(folder, options=RawOptions(angle_unit="deg"))


def _with_key(folder: Path, key: str) -> Path:
    for path in folder.glob("*.h5"):
        with h5py.File(path) as file:
            if key in file:
                return path
    raise AssertionError(key)


def test_a_short_scan_in_counts_is_told_by_its_numbers() -> None:
    counts = 200 * np.linspace(0, 3, 61) - 39660
    degrees, notes = counts_to_degrees(counts)
    np.testing.assert_allclose(degrees, np.linspace(0, 3, 61), atol=1e-9)
    assert notes
    plain = np.linspace(-180, 360, 61)
    assert counts_to_degrees(plain) == (pytest.approx(plain), ())
    assert to_radians(degrees, unit="deg")[1] == ()


def test_generation_0_is_found_by_any_of_its_files(gen: Callable[[str], Path], mini: Scan) -> None:
    folder = gen("hex0") / "scan_00010"
    for path in (only(folder, "*.nxs"), _with_key(folder, "entry"), folder):
        assert layout_of(path).NAME == "hex0"
        same(open_scan(path), mini)
    panda = _with_key(folder, "CALC2.OUT.Value")
    panda.rename(folder.parent / "lost")
    with pytest.raises(BadScan, match=rf"no angles.*{panda.name}.*does not exist"):
        open_scan(folder)


def test_several_runs_in_one_folder_are_listed_by_their_nexus_files(
    gen: Callable[[str], Path], mini: Scan, tmp_path: Path
) -> None:
    for child in list(gen("hex0").rglob("*.*")):
        (tmp_path / "flat").mkdir(exist_ok=True)
        shutil.move(child, tmp_path / "flat" / child.name)
    same(open_scan(tmp_path / "flat"), mini)
    nexus = only(tmp_path / "flat", "tomo_flyscan*.nxs")
    shutil.copy(nexus, nexus.with_name("tomo_flyscan_12.nxs"))
    found = find_scans(tmp_path / "flat")
    assert [str(item.holds) for item in found] == ["dark_flat", "dark_flat", "projections", "projections"]
    assert all(item.path.suffix == ".nxs" for item in found)
    same(open_scan(found[2].path), mini)


# --- generation 1


def test_generation_1_stays_generation_1(gen: Callable[[str], Path], mini: Scan) -> None:
    folder = gen("hex1")
    for path in (folder / "scan_00010", folder / "scan_00010" / "scan_00010.nxs"):
        assert layout_of(path).NAME == "hex1"
    assert layout_of(folder / "scan_00011").NAME == "hex1"
    (folder / "scan_00010" / "proj_00000.hdf").rename(folder / "gone")
    with pytest.raises(BadScan, match=r"link to proj_00000\.hdf .*does not exist"):
        open_scan(folder / "scan_00010")


def test_generation_1_never_takes_the_frames_of_another_scan(gen: Callable[[str], Path]) -> None:
    folder = gen("hex1")
    shutil.copytree(folder / "scan_00010", folder / "other")
    (folder / "scan_00010" / "proj_00000.hdf").unlink()
    with pytest.raises(BadScan, match="does not exist"):
        open_scan(folder / "scan_00010")


# --- generation 2


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tomography",
        "tomography/metadata",
        "tomography/metadata/scan_00010",
        "tomography/metadata/scan_00010/scan_00010.nxs",
        "assets",
        "assets/kinetix-det1",
        "assets/kinetix-det1/2026",
        "assets/kinetix-det1/2026/scan_00010",
        "assets/kinetix-det1/2026/scan_00010/*.h5",
    ],
)
def test_generation_2_is_read_from_wherever_one_points(
    gen: Callable[[str], Path], mini: Scan, path: str
) -> None:
    folder = gen("hex2")
    place = next(folder.glob(path)) if path else folder
    for options in (RawOptions(), RawOptions(folder=place if place.is_dir() else place.parent)):
        scan = open_scan(place, options=options)
        assert scan.layout == "hex2"
        assert scan.problems == ()
        same(scan, mini)


def test_assets_alone_are_enough(gen: Callable[[str], Path], mini: Scan) -> None:
    folder = gen("hex2")
    shutil.rmtree(folder / "tomography")
    found = find_scans(folder / "assets")
    assert [(item.name, item.holds) for item in found] == [
        ("scan_00010", "projections"),
        ("scan_00011", "dark_flat"),
        ("scan_00012", "dark_flat"),
    ]
    same(open_scan(folder / "assets"), mini)
    given = open_scan(found[0].path, dark_flat=[found[2].path])
    assert [item.origin for item in given.dark_flats] == ["scan_00012"]
    shutil.rmtree(folder / "assets" / "panda1")
    with pytest.raises(
        BadScan, match=r"no angles: looked for panda\*_scan_00010_<uuid>\.h5 in .*raw\.angles"
    ):
        open_scan(folder / "assets")


def test_files_thrown_together_are_one_scan(gen: Callable[[str], Path], mini: Scan, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for child in list(gen("hex2").rglob("*.h5")):
        shutil.move(child, flat / child.name)
    same(open_scan(flat), mini)


@pytest.mark.parametrize("moved_to", ["beside", "sibling", "raw folder"])
def test_links_are_mended_and_that_is_said(
    gen: Callable[[str], Path], mini: Scan, tmp_path: Path, moved_to: str
) -> None:
    folder = gen("hex2")
    home = tmp_path / "home" / "nexus"
    shutil.copytree(folder / "tomography" / "metadata" / "scan_00010", home)
    nexus = home / "scan_00010.nxs"
    files = [*folder.rglob("proj*.h5"), *folder.rglob("panda1*.h5")]
    target = {
        "beside": home,
        "sibling": home.parent / "frames",
        "raw folder": tmp_path / "home" / "a" / "b" / "c",
    }
    target[moved_to].mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, target[moved_to] / file.name)
    scan = open_scan(nexus, options=RawOptions(folder=tmp_path / "home"))
    np.testing.assert_array_equal(scan.frames.read(), mini.frames.read())
    np.testing.assert_allclose(scan.angles_rad, mini.angles_rad, rtol=1e-15)
    said = [text for text in scan.warnings if "is missing" in text]
    assert [name.name in text for name, text in zip(files, said, strict=True)] == [True, True]


def test_a_nexus_file_alone_names_what_it_lacks(gen: Callable[[str], Path], tmp_path: Path) -> None:
    folder = gen("hex2")
    alone = tmp_path / "alone" / "scan_00010.nxs"
    alone.parent.mkdir()
    shutil.copy(only(folder, "scan_00010.nxs"), alone)
    with pytest.raises(BadScan, match=r"proj_scan_00010_.*does not exist; put proj_scan_00010_.* beside"):
        open_scan(alone)
    projections = only(folder, "proj*.h5")
    shutil.copy(projections, alone.parent / projections.name)
    with pytest.raises(BadScan, match=r"no angles.*panda1_scan_00010_.*does not exist"):
        open_scan(alone)


def test_angles_that_no_link_leads_to_are_found_by_name(gen: Callable[[str], Path], mini: Scan) -> None:
    folder = gen("hex2")
    nexus, panda = only(folder, "scan_00010.nxs"), only(folder, "panda1*.h5")
    renamed = panda.rename(panda.with_name(f"panda1_scan_00010_{UUID}.h5"))
    scan = open_scan(nexus)
    assert f"{renamed.name}, found by the name of the scan, is used" in warnings(scan)
    same(scan, mini)
    edit(nexus, ANGLE, None)
    scan = open_scan(nexus)
    assert f"has no {ANGLE}: the angles are those of {renamed.name}" in warnings(scan)
    edit(nexus, ANGLE, np.degrees(mini.angles_rad).astype("f4") + 0.02)
    scan = open_scan(nexus)
    assert "differ by up to 0.02 deg" in warnings(scan)
    same(scan, mini)
    renamed.unlink()
    edit(nexus, ANGLE, None)
    with pytest.raises(BadScan, match=r"no angles: it has no .*panda\*_scan_00010_\*\.h5.*raw\.angles"):
        open_scan(nexus)


def test_a_broken_nexus_file_does_not_hide_the_assets(gen: Callable[[str], Path], mini: Scan) -> None:
    folder = gen("hex2")
    nexus = only(folder, "scan_00010.nxs")
    nexus.write_text("<xml/>")
    scan = open_scan(folder / "tomography" / "metadata")
    same(scan, mini)
    assert "scan_00010.nxs cannot be read: frames and angles are found by the name of the run" in warnings(
        scan
    )


def test_links_leave_the_proposal_only_when_allowed(gen: Callable[[str], Path], tmp_path: Path) -> None:
    folder = gen("hex2")
    outside = tmp_path / "elsewhere" / f"proj_scan_00010_{UUID}.h5"
    outside.parent.mkdir()
    shutil.move(only(folder, "proj*.h5"), outside)
    nexus = only(folder, "scan_00010.nxs")
    edit(nexus, DATA, h5py.ExternalLink(str(outside), f"/{DATA}"))
    with pytest.raises(BadScan, match=r"outside .*raw\.follow_links_outside = true"):
        open_scan(nexus)
    assert open_scan(nexus, options=RawOptions(follow_links_outside=True)).errors == ()


def two_cameras(folder: Path) -> None:
    """Give the scan and its flats a second camera whose frames are 5 brighter."""
    for path in [*folder.glob("assets/kinetix-det1/*/*/*.h5")]:
        other = Path(
            str(path).replace("kinetix-det1", "kinetix-det3").replace(path.name[-15:-3], "ba9876543210")
        )
        other.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, other)
        with h5py.File(other, "r+") as file:
            file[DATA][...] += 5
        nexus = only(folder, f"{path.parent.name}.nxs")
        role = path.name.split("_", maxsplit=1)[0]
        key = DATA if role == "proj" else f"entry/data/{role}"
        edit(nexus, key, None)
        for camera, file in (("kinetix-det1", path), ("kinetix-det3", other)):
            name = camera if role == "proj" else f"{role}-{camera}"
            link = h5py.ExternalLink(f"../../../{file.relative_to(folder)}", f"/{DATA}")
            edit(nexus, f"entry/data/{name}", link)


@pytest.mark.parametrize("bare", [False, True])
def test_one_of_two_cameras_is_asked_for(gen: Callable[[str], Path], mini: Scan, bare: bool) -> None:
    folder = gen("hex2")
    two_cameras(folder)
    if bare:
        shutil.rmtree(folder / "tomography")
    with pytest.raises(BadScan, match=r"2 cameras .*\(kinetix-det1, kinetix-det3\); set raw\.camera"):
        open_scan(folder)
    with pytest.raises(BadScan, match=r"raw\.camera = 'kinetix-det2': did you mean 'kinetix-det\d'"):
        open_scan(folder, options=RawOptions(camera="kinetix-det2"))
    same(open_scan(folder, options=RawOptions(camera="kinetix-det1")), mini)
    other = open_scan(folder, options=RawOptions(camera="kinetix-det3"))
    np.testing.assert_array_equal(other.frames.read(), mini.frames.read() + 5)
    np.testing.assert_array_equal(other.dark_flats[1].flats.read(), mini.dark_flats[1].flats.read() + 5)


def test_a_file_of_one_camera_needs_no_choice(gen: Callable[[str], Path], mini: Scan) -> None:
    folder = gen("hex2")
    two_cameras(folder)
    same(open_scan(next(folder.glob("assets/kinetix-det1/*/scan_00010/*.h5"))), mini)


def test_a_scan_of_one_camera_takes_flats_of_that_camera(gen: Callable[[str], Path], mini: Scan) -> None:
    folder = gen("hex2")
    whole = only(folder, "scan_00010.nxs").read_bytes()
    two_cameras(folder)
    shutil.rmtree(folder / "assets" / "kinetix-det3" / "2026" / "scan_00010")
    only(folder, "scan_00010.nxs").write_bytes(whole)
    same(open_scan(only(folder, "scan_00010.nxs")), mini)
    with pytest.raises(BadScan, match="known: kinetix-det1"):
        open_scan(only(folder, "scan_00010.nxs"), options=RawOptions(camera="kinetix-det3"))


# --- generation 3


def stacked(path: Path, *parts: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[DATA] = np.concatenate(parts)
    os.utime(path, (1.7e9, 1.7e9))
    return path


def levels(*values: float, noise: float = 3.0) -> Any:
    rng = np.random.default_rng(1)
    return np.stack([rng.normal(value, noise, (20, 24)) for value in values]).astype("u2")


def frames_of(path: Path) -> HdfFrames:
    return open_frames(path, DATA, options=RawOptions())[0]


@pytest.mark.parametrize("n_darks", [1, 7, 20, 33])
def test_darks_and_flats_are_told_apart_by_the_jump(tmp_path: Path, n_darks: int) -> None:
    path = stacked(tmp_path / "dark_flat.h5", levels(*[100] * n_darks), levels(*np.linspace(3000, 2900, 50)))
    darks, flats, notes = split_dark_flat(frames_of(path))
    assert (darks.shape[0], flats.shape[0], notes) == (n_darks, 50, ())


def test_a_jump_that_is_not_clear_is_said(tmp_path: Path) -> None:
    half_open = levels(*[100] * 20, 1500, *[3000] * 50)
    darks, flats, notes = split_dark_flat(frames_of(stacked(tmp_path / "a.h5", half_open)))
    assert (darks.shape[0], flats.shape[0]) == (20, 51)
    assert (
        "no clear jump from dark to bright: the first 20 frames are taken as darks, the other 51" in notes[0]
    )
    with pytest.raises(BadScan, match=r"12 frames without a clear jump.*raw\.darks and raw\.flats"):
        split_dark_flat(frames_of(stacked(tmp_path / "b.h5", levels(*[3000] * 12))))
    reverse = stacked(tmp_path / "c.h5", levels(*[3000] * 5, *[100] * 4))
    darks, flats, notes = split_dark_flat(frames_of(reverse))
    assert (darks.shape[0], flats.shape[0]) == (4, 5)
    assert "flats before darks" in notes[0]


@pytest.mark.parametrize("place", ["scan_00010", "."])
def test_dark_flat_may_lie_in_the_scan_or_beside_it(
    gen: Callable[[str], Path], mini: Scan, place: str
) -> None:
    folder = gen("hex3")
    shutil.rmtree(folder / "dark_flat_00002")
    shutil.move(folder / "dark_flat_00001" / "dark_flat.h5", folder / place / "dark_flat.h5")
    (folder / "dark_flat_00001").rmdir()
    found = {item.name: item.holds for item in find_scans(folder)}
    assert found["scan_00010"] == "projections"
    assert found.get("dark_flat") == (None if place == "scan_00010" else "dark_flat")
    scan = open_scan(folder)
    assert scan.errors == ()
    np.testing.assert_array_equal(scan.dark_flats[0].flats.read(), mini.dark_flats[0].flats.read())


@pytest.fixture
def aligned(gen: Callable[[str], Path], mini: Scan, tmp_path: Path) -> Callable[..., Path]:
    """Scan of generation 3 with flats (or what is given) after its projections, and its angles replaced."""

    def write(tail: Any, angles_deg: Any, *, darks: bool = True) -> Path:
        folder = tmp_path / "raw" if (tmp_path / "raw").exists() else gen("hex3")
        stacked(folder / "scan_00010" / "proj.h5", mini.frames.read(), tail)
        edit(folder / "scan_00010" / "panda.h5", "Angle", angles_deg)
        if not darks:
            shutil.rmtree(folder / "dark_flat_00001")
            shutil.rmtree(folder / "dark_flat_00002")
        return folder / "scan_00010"

    return write


@pytest.mark.parametrize("extra", [0, 10])
@pytest.mark.parametrize("home_deg", [None, 0.0])
def test_flats_after_the_projections_are_set_apart(
    aligned: Callable[..., Path], mini: Scan, extra: int, home_deg: float | None
) -> None:
    flats = mini.dark_flats[0].flats.read()[:10]
    degrees = np.degrees(mini.angles_rad)
    still = np.full(extra, degrees[-1] if home_deg is None else home_deg)
    scan = open_scan(aligned(flats, np.append(degrees, still)))
    assert scan.errors == ()
    assert "the last 10 of 47 frames are as bright as flats" in warnings(scan)
    assert "the darks are those of dark_flat_00001" in warnings(scan)
    np.testing.assert_array_equal(scan.frames.read(), mini.frames.read())
    np.testing.assert_allclose(scan.angles_rad, mini.angles_rad, rtol=1e-15)
    (pair,) = scan.dark_flats
    np.testing.assert_array_equal(pair.flats.read(), flats)
    assert pair.darks is not None
    assert pair.origin == "proj.h5: frames 37 to 46"


def test_flats_after_the_projections_need_no_other_file(aligned: Callable[..., Path], mini: Scan) -> None:
    path = aligned(mini.dark_flats[0].flats.read()[:4], np.degrees(mini.angles_rad), darks=False)
    scan = open_scan(path)
    assert scan.errors == ()
    assert scan.dark_flats[0].darks is None


def test_more_frames_than_angles_are_refused_where_they_are_no_flats(
    aligned: Callable[..., Path], mini: Scan
) -> None:
    degrees = np.degrees(mini.angles_rad)
    flats, views = mini.dark_flats[0].flats.read(), mini.frames.read()
    for tail in (views[:5], np.concatenate([flats[:3], views[-2:]]), (views[-5:] * 1.035).astype("u2")):
        with pytest.raises(
            BadScan, match=r"panda\.h5: 37 angles for 42 frames.*not clearly flats.*raw\.angles"
        ):
            open_scan(aligned(tail, degrees))


def test_a_stage_that_stands_still_makes_no_flats(aligned: Callable[..., Path], mini: Scan) -> None:
    degrees = np.degrees(mini.angles_rad)
    views = mini.frames.read()
    again = np.concatenate([views[-1:], views[-1:], views[-1:]])
    scan = open_scan(aligned(again, np.append(degrees, [degrees[-1]] * 3)))
    assert scan.shape[0] == 40
    assert "stand still" in warnings(scan)
    with pytest.raises(BadScan, match=r"the last 4 frames have one angle, but are not clearly flats"):
        open_scan(aligned((again * 1.04).astype("u2"), np.append(degrees, [degrees[-1]] * 3)))


@pytest.mark.parametrize("angles_of", ["each", "one"])
def test_the_first_of_several_batches_is_used_and_the_others_are_named(
    aligned: Callable[..., Path], mini: Scan, angles_of: str
) -> None:
    degrees, views = np.degrees(mini.angles_rad), mini.frames.read()
    later = [(views * share).astype("u2") for share in (0.99, 0.98)]
    path = aligned(np.concatenate(later), np.tile(degrees, 3) if angles_of == "each" else degrees)
    scan = open_scan(path)
    assert "holds 3 batches of 37 frames" in warnings(scan)
    assert "raw.batch = 2" in warnings(scan)
    np.testing.assert_array_equal(scan.frames.read(), views)
    np.testing.assert_allclose(scan.angles_rad, mini.angles_rad, rtol=1e-15)
    frames, rad = frames_of(path / "proj.h5"), np.tile(mini.angles_rad, 3)
    third = take(frames, rad if angles_of == "each" else mini.angles_rad, batch=3)
    np.testing.assert_array_equal(third.frames.read(), later[1])
    np.testing.assert_array_equal(third.angles_rad, mini.angles_rad)
    assert third.notes == ()
    with pytest.raises(BadScan, match=r"raw\.batch = 4: .* holds 3 batch"):
        take(frames, rad, batch=4)


def test_batches_to_and_fro_are_batches(aligned: Callable[..., Path], mini: Scan) -> None:
    degrees = np.degrees(mini.angles_rad)
    path = aligned(mini.frames.read()[::-1], np.append(degrees, degrees[::-1] + 0.01))
    assert "2 batches of 37" in warnings(open_scan(path))
    back = take(frames_of(path / "proj.h5"), np.radians(np.append(degrees, degrees[::-1])), batch=2)
    np.testing.assert_array_equal(back.frames.read(), mini.frames.read()[::-1])
    np.testing.assert_allclose(back.angles_rad, mini.angles_rad[::-1])


def test_twice_as_many_frames_that_do_not_repeat_are_no_batches(tmp_path: Path) -> None:
    scan = phantom.simulated_scan(size="mini", seed=2, n_angles=74)[0]
    write_scan(tmp_path / "scan_00010", scan, layout="hex3")
    edit(tmp_path / "scan_00010" / "panda.h5", "Angle", np.degrees(scan.angles_rad[::2]))
    with pytest.raises(BadScan, match="37 angles for 74 frames"):
        open_scan(tmp_path)


def test_several_angles_of_one_frame_are_averaged(gen: Callable[[str], Path], mini: Scan) -> None:
    path = gen("hex3") / "scan_00010"
    fine = np.degrees(mini.angles_rad)[:, None] + np.linspace(-0.5, 0.5, 4)
    edit(path / "panda.h5", "Angle", fine.ravel())
    with pytest.raises(BadScan, match=r"148 angles for 37 frames; .*wait until it is finished"):
        open_scan(path)
    os.utime(path / "proj.h5", (1.7e9, 1.7e9))
    scan = open_scan(path)
    np.testing.assert_allclose(scan.angles_rad, mini.angles_rad, atol=1e-12)
    assert "averaged in groups of 4" in warnings(scan)


def test_one_angle_too_many_is_dropped_and_other_counts_are_refused(
    gen: Callable[[str], Path], mini: Scan
) -> None:
    path = gen("hex3") / "scan_00010"
    degrees = np.degrees(mini.angles_rad)
    edit(path / "panda.h5", "Angle", np.append(degrees, 185.0))
    assert "the last angle was dropped" in warnings(open_scan(path))
    for wrong in (degrees[:-3], np.append(degrees, [185, 190, 195])):
        edit(path / "panda.h5", "Angle", wrong)
        with pytest.raises(BadScan, match=rf"{wrong.size} angles for 37 frames"):
            open_scan(path)


def test_lower_case_angles_are_angles(gen: Callable[[str], Path], mini: Scan) -> None:
    path = gen("hex3") / "scan_00010"
    edit(path / "panda.h5", "Angle", None)
    edit(path / "panda.h5", "angle", np.degrees(mini.angles_rad))
    same(open_scan(path), mini)
    (path / "panda.h5").unlink()
    with pytest.raises(BadScan, match=r"no angles: looked for panda\.h5 .*raw\.angles"):
        open_scan(path)


def test_files_named_by_an_identifier_alone_need_the_recipe(tmp_path: Path) -> None:
    path = stacked(tmp_path / f"{UUID}.h5", levels(1, 2, 3))
    for place in (path, tmp_path):
        with pytest.raises(BadScan, match=r"identifier alone need raw\.data and raw\.angles"):
            open_scan(place)


# --- angles


@given(
    st.integers(3, 40),
    st.integers(2, 5),
    st.floats(-400, 400),
    st.floats(0.1, 5) | st.floats(-5, -0.1),
    st.randoms(use_true_random=False),
)
def test_runs_are_counted(length: int, count: int, start: float, step: float, random: Any) -> None:
    run_of_angles = start + step * np.arange(length)
    jitter = np.array([random.uniform(-0.02, 0.02) * step for _ in range(length * count)])
    assert repeats(np.tile(run_of_angles, count) + jitter) == count
    assert repeats(start + step * np.arange(length * count) + jitter) == 1
    # passes in between each other are one scan
    between = run_of_angles + step * np.arange(count)[:, None] / count
    assert repeats(between.ravel()) == 1


def test_angles_at_the_end_are_counted() -> None:
    turning = np.linspace(0, 3, 30)
    assert still_at_end(turning) == 1
    assert still_at_end(np.append(turning, [3.001, 2.999])) == 3
    assert still_at_end(np.append(turning, [0.0, 0.0])) == 2
    assert still_at_end(turning[:0]) == 0


def test_flats_are_judged_by_all_of_their_frame(tmp_path: Path) -> None:
    def stack(*tail: float) -> HdfFrames:
        views = np.full((12 + len(tail), 20, 24), 3000.0)
        views[:12, :, 8:16] = 1500
        views[12:] = np.array(tail)[:, None, None]
        views += np.random.default_rng(3).normal(0, 10, views.shape)
        return frames_of(stacked(tmp_path / "p.h5", views.astype("u2")))

    angles = np.linspace(0, 3, 12)
    taken = take(stack(3000, 3010, 2990), angles)
    assert taken.flats is not None
    assert taken.flats.runs == ((12, 15),)
    # a shutter that was closed, and one that opened in between
    for tail in ((100, 100, 100), (3000, 100, 3000)):
        with pytest.raises(BadScan, match="12 angles for 15 frames"):
            take(stack(*tail), angles)


def test_take_leaves_what_fits_alone() -> None:
    data = np.random.default_rng(0).integers(1000, 1100, (9, 4, 5), dtype=np.uint16)
    frames: Any = ArrayFrames(data)
    taken = take(frames, np.linspace(0, 3, 9))
    assert taken.frames is frames
    assert taken.notes == ()


def test_frames_that_carry_time_stamps_tell_how_long_the_scan_took(tmp_path: Path) -> None:
    scan, _ = phantom.simulated_scan(size="mini", n_angles=12, exposure_s=0.4)
    again = open_scan(write_scan(tmp_path / "scan_00001", scan, layout="hex1"))
    assert again.exposure_s is None
    assert again.interval_s == pytest.approx(0.4)
    known, found = (frame_weights(each, each.dark_flats) for each in (scan, again))
    np.testing.assert_allclose(found, known, atol=1e-3)
