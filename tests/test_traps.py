"""What a tired user runs into: each trap has its message and its exit code, and nothing goes wrong unsaid."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from xctpipe import inputs, phantom
from xctpipe.cli import main
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.formats import RawOptions, open_scan, write_scan
from xctpipe.interrupts import heard_interrupts
from xctpipe.recipe import make_recipe, read_recipe
from xctpipe.scan import ArrayFrames, Frames, Scan

Write = Callable[[str], Path]
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def mini() -> Scan:
    scan = phantom.simulated_scan(size="mini", seed=3, n_angles=37)[0]

    def kept(frames: Frames) -> Frames:
        return ArrayFrames(frames.read())

    sets = [
        replace(item, darks=item.darks and kept(item.darks), flats=kept(item.flats))
        for item in scan.dark_flats
    ]
    return replace(scan, frames=kept(scan.frames), dark_flats=tuple(sets))


@pytest.fixture
def write(tmp_path: Path, mini: Scan, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writer of a scan in a layout below the folder that the test works in, as a user does; gives RAW."""
    monkeypatch.chdir(tmp_path)

    def writer(layout: str) -> Path:
        write_scan(tmp_path / "raw" / "scan_00010", mini, layout=layout)
        return Path("raw")

    return writer


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; gives its exit code and what it printed."""

    def call(*words: Any) -> tuple[int, str]:
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out + printed.err

    return call


def edit(path: Path, key: str, value: Any, **attributes: str) -> None:
    with h5py.File(path, "r+") as file:
        if key in file:
            del file[key]
        if value is not None:
            file[key] = value
            file[key].attrs.update(attributes)


def test_bare_assets_are_found_by_a_relative_path(write: Write, run: Run) -> None:
    raw = write("hex2")
    shutil.rmtree(raw / "tomography")
    code, printed = run("inspect", raw)
    assert code == 0, printed
    assert "frames    37 of" in printed


def test_flats_of_one_generation_0_scan_given_alone(write: Write, run: Run) -> None:
    code, printed = run("inspect", write("hex0") / "scan_00010")
    assert code == 0, printed
    assert "from scan_0001" in printed


def test_links_that_leave_their_own_folder_and_the_raw_folder_stay_refused(write: Write) -> None:
    raw = write("dxchange")
    path = raw / "scan_00010.h5"
    with h5py.File(path, "r+") as file, h5py.File("elsewhere.h5", "w") as other:
        file.copy("exchange/data", other, "d")
        del file["exchange/data"]
        file["exchange/data"] = h5py.ExternalLink("../elsewhere.h5", "/d")
    with pytest.raises(BadScan, match="follow_links_outside"):
        open_scan(path, options=RawOptions(folder=raw))
    assert open_scan(path, options=RawOptions(folder=raw, follow_links_outside=True)).shape[0] == 37


@pytest.mark.parametrize(
    ("layout", "name", "key"),
    [
        ("dxchange", "scan_00010.h5", "exchange/theta"),
        ("nxtomo", "scan_00010.nxs", "entry/sample/rotation_angle"),
        ("cil", "scan_00010.nxs", "entry1/tomo_entry/config/angles"),
        ("hex3", "scan_00010/panda.h5", "Angle"),
    ],
)
def test_missing_angles_say_what_to_give(write: Write, run: Run, layout: str, name: str, key: str) -> None:
    path = write(layout) / name
    if layout == "hex3":
        path.unlink()
    else:
        edit(path, key, None)
    code, printed = run("inspect", "raw")
    assert code == 3
    assert "raw.angles" in printed
    assert "raw.data" not in printed
    options = RawOptions(angles=(0.0, 180.0), folder=Path("raw"))
    scan = path.parent if layout == "hex3" else path
    assert open_scan(scan, options=options).errors == ()


def test_a_recipe_is_written_for_a_scan_that_needs_one_to_be_read(write: Write, run: Run) -> None:
    edit(write("dxchange") / "scan_00010.h5", "exchange/theta", None)
    code, printed = run("init", "raw", "--energy-kev", 80, "--pixel-um", 40)
    assert code == 3
    assert "raw.angles" in printed
    recipe = Path("recipe.toml")
    text = recipe.read_text()
    assert "theta is missing" in text.split("[raw]")[0]
    recipe.write_text(text.replace('# angles = "angles.txt" ', "angles = [0, 180] "))
    raw = read_recipe(recipe).raw
    assert inputs.open_one(raw, inputs.find(raw)[0]).shape[0] == 37


def test_a_recipe_is_written_for_files_of_no_layout(
    tmp_path: Path, run: Run, mini: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    with h5py.File("raw/own.h5", "w") as file:
        file["p"], file["f"] = mini.frames.read(), mini.dark_flats[0].flats.read()
    code, printed = run("init", "raw", "--energy-kev", 80, "--pixel-um", 40)
    assert code == 3
    assert "raw.data" in printed
    recipe = Path("recipe.toml")
    text = recipe.read_text()
    for key, value in (("data", '"own.h5:/p"'), ("flats", '"own.h5:/f"'), ("angles", "[0, 180]")):
        (line,) = [each for each in text.splitlines() if each.startswith(f"# {key} = ")]
        assert "REQUIRED" in line
        text = text.replace(line, f"{key} = {value}")
    recipe.write_text(text)
    raw = read_recipe(recipe).raw
    assert inputs.open_one(raw, inputs.find(raw)[0]).shape == mini.shape


@pytest.mark.parametrize("target", ["empty", "absent"])
def test_no_recipe_is_written_for_nothing(tmp_path: Path, run: Run, target: str) -> None:
    (tmp_path / "empty").mkdir()
    code, _ = run("init", tmp_path / target, "--out", tmp_path / "r.toml")
    assert code == 3
    assert not (tmp_path / "r.toml").exists()


def test_the_next_command_can_be_pasted(write: Write, run: Run) -> None:
    code, printed = run("init", write("tiff"), "--out", "my recipe.toml")
    assert code == 0
    assert "next: xctpipe plan 'my recipe.toml'" in printed


def test_one_angle_for_all_frames_is_refused(write: Write, run: Run) -> None:
    edit(write("dxchange") / "scan_00010.h5", "exchange/theta", np.full(37, 12.0), units="deg")
    code, printed = run("inspect", "raw")
    assert code == 3
    assert "all 37 angles are 12 deg" in printed


@pytest.mark.parametrize("turn", [np.pi, 2 * np.pi])
def test_radians_that_are_called_degrees_are_recognised(write: Write, run: Run, turn: float) -> None:
    angles = np.linspace(0, turn, 37, endpoint=False)
    edit(write("dxchange") / "scan_00010.h5", "exchange/theta", angles, units="deg")
    assert "set raw.angle_unit = 'rad'" in run("inspect", "raw")[1]


def test_angles_that_stand_still_are_counted(write: Write, run: Run) -> None:
    angles = np.repeat(np.arange(13) * 15.0, 3)[:37]
    edit(write("dxchange") / "scan_00010.h5", "exchange/theta", angles, units="deg")
    assert "24 of 36 steps stand still or go back" in run("inspect", "raw")[1]


def test_counts_that_are_called_absorption_are_doubted(write: Write) -> None:
    scan = open_scan(write("dxchange") / "scan_00010.h5", options=RawOptions(log_absorption=True))
    assert any("leave out raw.log_absorption" in text for text in scan.warnings)


@pytest.mark.parametrize(
    ("layout", "name", "unheeded"),
    [
        ("dxchange", "scan_00010.h5", ("raw.batch", "raw.camera")),
        ("tiff", "scan_00010", ("raw.batch", "raw.camera")),
        ("hex3", "scan_00010", ("raw.camera",)),
    ],
)
def test_what_a_layout_does_not_heed_is_said(
    write: Write, layout: str, name: str, unheeded: tuple[str, ...]
) -> None:
    options = RawOptions(batch=1, camera="kinetix-det1", folder=Path("raw"))
    texts = open_scan(write(layout) / name, options=options).warnings
    said = {key for key in ("raw.batch", "raw.camera") if any(f"{key} = " in text for text in texts)}
    assert said == set(unheeded)


def test_a_batch_is_not_dropped_in_silence_where_angles_are_given(write: Write) -> None:
    options = RawOptions(batch=2, angles=(0.0, 180.0), folder=Path("raw"))
    texts = open_scan(write("hex3") / "scan_00010", options=options).warnings
    assert any("raw.batch = 2 is not used" in text for text in texts)


def test_projections_named_as_dark_flat(write: Write) -> None:
    raw = write("hex1") / "scan_00010"
    with pytest.raises(BadScan, match="holds projections, no flats"):
        open_scan(raw, dark_flat=[raw])


def test_a_raw_folder_that_is_not_there_names_the_key(tmp_path: Path) -> None:
    table = {"folder": "nowhere", "energy_kev": 80, "pixel_um": 1}
    recipe = make_recipe({"name": "t", "run_folder": "out", "raw": table}, base=tmp_path)
    with pytest.raises(BadRecipe, match=r"raw\.folder = .*nowhere: no such file or folder"):
        inputs.find(recipe.raw)


def test_a_broken_file_is_named_before_anything_else(write: Write, run: Run) -> None:
    path = write("dxchange") / "scan_00010.h5"
    os.truncate(path, path.stat().st_size // 2)
    code, printed = run("inspect", "raw")
    assert code == 3
    assert printed.startswith("error: raw: no scan can be read: raw/scan_00010.h5: truncated HDF5 file")


def test_a_folder_of_hdf5_flats_says_how_to_name_them(write: Write, run: Run) -> None:
    write("dxchange")
    Path("raw/flats").mkdir()
    shutil.copy("raw/scan_00010.h5", "raw/flats/f.h5")
    raw = 'folder = "raw"\nenergy_kev = 80\npixel_um = 40\nflats = "flats"'
    Path("r.toml").write_text(f'name = "t"\nrun_folder = "out"\n[raw]\n{raw}\n')
    code, printed = run("plan", "r.toml")
    assert code == 2
    assert "name HDF5 files by a glob" in printed


def test_a_matlab_file_is_recognised(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "scan.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(90))
    code, printed = run("inspect", path)
    assert code == 3
    assert "a MATLAB file" in printed


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_simulation_that_has_no_place(tmp_path: Path, run: Run, place: str) -> None:
    (tmp_path / "file").touch()
    code, printed = run("simulate", "scan", tmp_path / place, "--size", "mini")
    assert code == 2
    assert "choose another place" in printed


def test_a_folder_of_exports_is_told_from_an_export(tmp_path: Path, run: Run) -> None:
    (tmp_path / "exports" / "scan_00010").mkdir(parents=True)
    code, printed = run("export", tmp_path / "exports", "--to", "tiff")
    assert code == 2
    assert "it holds scan_00010: give one of them" in printed


class _Deaf:
    """Where an interrupt is lost: Python prints exceptions of such methods and goes on."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises here too where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_python_drops_comes_again() -> None:
    with heard_interrupts(), pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it comes a moment later
        _Deaf()
        time.sleep(5)
