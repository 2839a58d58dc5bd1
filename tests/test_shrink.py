import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from xctpipe import formats, phantom, shrink
from xctpipe.cli import main
from xctpipe.errors import BadScan
from xctpipe.scan import ArrayFrames, Frames, Scan

LAYOUTS = sorted(formats.layouts())


@pytest.fixture(scope="module")
def scan() -> Scan:
    """A tiny simulated scan, its frames in memory, with darks and flats before and after."""
    found, _ = phantom.simulated_scan(size="mini", seed=2, n_angles=25)

    def held(frames: Frames | None) -> Frames | None:
        return frames and ArrayFrames(frames.read())

    sets = [replace(item, darks=held(item.darks), flats=held(item.flats)) for item in found.dark_flats]
    return replace(found, frames=ArrayFrames(found.frames.read()), dark_flats=tuple(sets))


def written(scan: Scan, folder: Path, layout: str = "hex1") -> Path:
    return formats.write_scan(folder / "scan_00007", scan, layout=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_small_copy_of_every_layout_is_the_cut_of_the_original(
    layout: str, scan: Scan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = written(scan, tmp_path / "raw", layout)
    original = formats.open_scan(raw)
    cut = ["--rows", "4:15", "--every", "3", "--columns", "10:70"]
    assert main(["shrink", str(raw), str(tmp_path / "small"), *cut]) == 0
    out = capsys.readouterr().out
    copy = formats.open_scan(Path(out.split("\npath ")[1].split("\n")[0].strip()))
    assert copy.path.is_relative_to(tmp_path / "small")
    assert (copy.layout, copy.name, copy.errors) == (layout, "scan_00007", ())
    np.testing.assert_array_equal(copy.frames.read(), scan.frames.read()[::3, 4:15, 10:70])
    np.testing.assert_allclose(copy.angles_rad, scan.angles_rad[::3], atol=1e-6)
    assert copy.start_time == original.start_time
    assert len(copy.dark_flats) == len(original.dark_flats) == 2
    for ours, theirs in zip(copy.dark_flats, scan.dark_flats, strict=True):
        np.testing.assert_array_equal(ours.flats.read(), theirs.flats.read()[:, 4:15, 10:70])
        assert ours.darks is not None
        assert theirs.darks is not None
        np.testing.assert_array_equal(ours.darks.read(), theirs.darks.read()[:, 4:15, 10:70])
    times = [item.time_s for item in original.dark_flats]
    assert [item.time_s for item in copy.dark_flats] == pytest.approx(times, abs=1e-3)
    for key in ("energy_kev", "pixel_um", "exposure_s"):
        assert getattr(copy, key) == getattr(original, key)
    assert "9 of 11 rows x 60 columns" in out
    assert "size " in out
    # the call it prints makes the same copy again
    call = out.split("made by   xctpipe ")[1].split()
    call[2] = str(tmp_path / "again")
    assert main(call) == 0


@pytest.mark.parametrize("every", [1, 2, 7, 12])
def test_every_nth_frame_reads_like_the_array(every: int) -> None:
    data = np.arange(25 * 4 * 3, dtype=np.uint16).reshape(25, 4, 3)
    frames, truth = shrink.EveryFrame(ArrayFrames(data), every), data[::every]
    assert isinstance(frames, Frames)
    assert frames.shape == truth.shape
    assert frames.dtype == np.uint16
    np.testing.assert_array_equal(frames.read(), truth)
    np.testing.assert_array_equal(frames.read((1, 3), frames=(1, 3)), truth[1:3, 1:3])


def test_a_single_file_may_be_named(scan: Scan, tmp_path: Path) -> None:
    raw = written(scan, tmp_path / "raw", "dxchange")
    assert main(["shrink", str(raw), str(tmp_path / "bug.h5"), "--rows", "0:8", "--every", "5"]) == 0
    assert (tmp_path / "bug.h5").is_file()
    assert formats.open_scan(tmp_path / "bug.h5").shape == (5, 8, 96)


def test_what_the_copy_mends_or_loses_is_said(
    scan: Scan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = written(scan, tmp_path / "raw")
    for name, key in (("panda.hdf", "Angle"), ("scan_00007.nxs", "entry/data/rotation_angle")):
        with h5py.File(raw / name, "r+") as file:
            values = file[key][:]
            del file[key]
            file[key] = np.append(values, values[-1] + 1)
            file[key].attrs["units"] = "deg"
    (warning,) = formats.open_scan(raw).warnings
    assert main(["shrink", str(raw), str(tmp_path / "small"), "--rows", "0:8", "--every", "2"]) == 0
    assert f"of the original, but not of the copy: {warning}" in capsys.readouterr().out


def test_angles_are_not_invented(scan: Scan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = written(scan, tmp_path / "raw", "dxchange")
    with h5py.File(raw, "r+") as file:
        del file["exchange/theta"]
    assert main(["shrink", str(raw), str(tmp_path / "small"), "--rows", "0:8", "--every", "2"]) == 3
    assert "angles" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_what_is_wrong_with_the_flats_stays_wrong(scan: Scan, tmp_path: Path) -> None:
    item = scan.dark_flats[0]
    wrong = replace(item, flats=ArrayFrames(item.flats.read()[:, :-3]))
    raw = written(replace(scan, dark_flats=(wrong,)), tmp_path / "raw")
    assert main(["shrink", str(raw), str(tmp_path / "small"), "--rows", "0:8", "--every", "2"]) == 0
    (error,) = formats.open_scan(tmp_path / "small").errors
    assert "flats" in error


def test_of_many_sets_of_flats_the_first_and_last_are_kept(scan: Scan) -> None:
    sets = tuple(replace(scan.dark_flats[0], time_s=float(i)) for i in range(4))
    cut = shrink.Cut(rows=(0, 8), every=2)
    small, (note,) = shrink.cut_scan(replace(scan, dark_flats=sets), cut)
    assert [item.time_s for item in small.dark_flats] == [0.0, 3.0]
    assert "4 sets" in note


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--rows", "0:99", "--every", "2"], "part of 0:32"),
        (["--rows", "8", "--every", "2"], "A:B"),
        (["--rows", "8:8", "--every", "2"], "empty"),
        (["--rows", "0:8", "--every", "0"], "--every 0"),
        (["--rows", "0:8", "--every", "13"], "1 to 12"),
        (["--rows", "0:8", "--every", "2", "--columns", "0:2"], "at least 3"),
        (["--rows", "0:8", "--every", "2", "--columns", "50:97"], "part of 0:96"),
        (["--rows", "0:8"], "--every"),
    ],
)
def test_a_wrong_cut_says_what_is_allowed(
    options: list[str], word: str, scan: Scan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = written(scan, tmp_path / "raw")
    assert main(["shrink", str(raw), str(tmp_path / "small"), *options]) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_the_largest_step_that_is_offered_works(scan: Scan) -> None:
    small, _ = shrink.cut_scan(scan, shrink.Cut(rows=(0, 8), every=12))
    assert small.shape[0] == 3


def test_wrong_places_are_refused(scan: Scan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = written(scan, tmp_path / "raw")
    shutil.copytree(raw, tmp_path / "raw" / "scan_00001")
    cut = ["--rows", "0:8", "--every", "2"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    for code, word, call in (
        (2, "exists already", [str(raw), str(tmp_path / "full")]),
        (2, "exists already", [str(raw), str(raw)]),
        (3, "holds 2 scans", [str(tmp_path / "raw"), str(tmp_path / "small")]),
        (3, "give that folder", [str(tmp_path), str(tmp_path / "small")]),
        (3, "no such file", [str(tmp_path / "absent"), str(tmp_path / "small")]),
        (2, "is not a folder", [str(raw), str(raw / "panda.hdf" / "small")]),
    ):
        assert main(["shrink", *call, *cut]) == code, call
        assert word in capsys.readouterr().err, call
    assert (tmp_path / "full" / "precious").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "raw"]


@pytest.mark.parametrize("what", ["frames", "angles", "flats"])
def test_a_copy_that_reads_back_otherwise_is_not_left(
    what: str, scan: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = written(scan, tmp_path / "raw")
    true_write = formats.write_scan

    def careless(path: Path, small: Scan, *, layout: str) -> Path:
        data = small.frames.read()
        if what == "frames":
            data[-1, -1, -1] += 1
        angles = small.angles_rad + (1e-3 if what == "angles" else 0)
        sets = small.dark_flats[: 1 if what == "flats" else 2]
        return true_write(
            path,
            replace(small, frames=ArrayFrames(data), angles_rad=angles, dark_flats=sets),
            layout=layout,
        )

    monkeypatch.setattr(formats, "write_scan", careless)
    with pytest.raises(BadScan, match="so none is left"):
        shrink.shrink(raw, tmp_path / "small", cut=shrink.Cut((0, 8), 2))
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
