import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xctpipe import __version__, formats, run
from xctpipe.cli import main
from xctpipe.errors import BadRecipe, BadScan, nearest
from xctpipe.recipe import Recipe, to_toml

Simulated = tuple[Path, dict[str, Any]]


def _write(path: Path, folder: Path, *, extra: str = "") -> Path:
    raw = f'folder = "{folder}"\nenergy_kev = 80.0\npixel_um = 43.3'
    path.write_text(f'name = "t"\nrun_folder = "run"\n[raw]\n{raw}\n{extra}')
    return path


def test_the_story_of_a_first_scan(
    simulated: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    calls = [
        ["inspect", str(simulated[0])],
        ["init", str(simulated[0]), "--out", str(recipe), "--energy-kev", "80", "--pixel-um", "43.3"],
        ["plan", str(recipe)],
        ["try", str(recipe), "--sweep", "center.center_px=49:50.5:0.5", "--rows", "20"],
        ["run", str(recipe), "--stages", "reconstruct"],
    ]
    printed = []
    for call in calls:
        assert main(call) == 0, call
        printed.append(capsys.readouterr().out)
    inspected, begun, planned, tried, ran = printed
    assert "181" in inspected
    assert "scan_" in inspected
    assert "next: xctpipe plan" in begun
    assert "slab" in planned
    assert "GB free" in planned
    assert "metric.png" in tried
    assert "1 scan(s) done" in ran
    run_folder = Path(ran.split("results in ")[1].splitlines()[0].strip())
    assert main(["status", str(run_folder)]) == 0
    assert "done" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        "flat_saturated_65535.h5",
        "hdf4_not_hdf5.hdf",
        "link_target_missing.nxs",
        "savu_stxm_is_xml.nxs",
        "v1150_GEIS.mpr",
    ],
)
@pytest.mark.parametrize("command", ["inspect", "init", "run"])
def test_broken_files_give_one_message(
    name: str, command: str, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shared_data / "broken_files" / name
    target = _write(tmp_path / "r.toml", path) if command == "run" else path
    call = [command, str(target), *(["--out", str(tmp_path / "x.toml")] if command == "init" else [])]
    assert main(call) in {2, 3}
    out, err = capsys.readouterr()
    assert name in out + err
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ("rows = [0, 9999]", "raw.rows"),
        ('dark_flat = ["scan_77777"]', "scan_77777"),
        ('scans = ["nothing*"]', "nothing*"),
        ('start_times = ["2025-03-01T10:00:00Z", "2025-03-01T11:00:00Z"]', "start_times"),
        ("[compute]\nmemory_gb = 0.1", "memory_gb"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_recipe_that_does_not_fit_the_data(
    command: str,
    extra: str,
    word: str,
    simulated: Simulated,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = _write(tmp_path / "r.toml", simulated[0], extra=extra)
    calls = [[command, str(path)]]
    if word != "memory_gb":  # a few slices are not planned
        calls.append(["try", str(path)])
    for call in calls:
        assert main(call) == 2
        assert word in capsys.readouterr().err


def test_a_directory_without_scans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["inspect", str(tmp_path / "empty")]) in {2, 3}
    assert main(["run", str(_write(tmp_path / "r.toml", tmp_path / "empty"))]) in {2, 3}
    assert main(["inspect", str(tmp_path / "absent")]) in {2, 3}
    assert capsys.readouterr().err.count("error:") == 3


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (["frobnicate"], "frobnicate"),
        (["run"], "RECIPE"),
        (["run", "absent.toml"], "absent.toml"),
        (["status", "."], "not a run folder"),
        (["simulate", "scan", "out", "--layout", "hex9"], "hex1"),
        (["simulate", "scan", "out", "--size", "huge"], "tiny"),
    ],
)
def test_a_wrong_call_exits_with_2(
    call: list[str],
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(call) == 2
    assert word in capsys.readouterr().err


@pytest.mark.parametrize(
    "sweep", ["center.center_px", "center.center_px=1:2", "center.center_px=5:1:1", "x=1:2:0"]
)
def test_a_sweep_that_cannot_be_read(
    sweep: str, simulated: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _write(tmp_path / "r.toml", simulated[0])
    assert main(["try", str(path), "--sweep", sweep]) == 2
    assert "--sweep" in capsys.readouterr().err


def test_an_existing_recipe_is_not_replaced(
    simulated: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("precious")
    assert main(["init", str(simulated[0]), "--out", str(path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert path.read_text() == "precious"


def test_a_bug_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., Recipe],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(run, "run", broken)
    path = tmp_path / "r.toml"
    path.write_text(to_toml(make()))
    assert main(["run", str(path)]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "this is a bug" in err


@pytest.mark.parametrize(
    ("error", "code"), [(BadRecipe("r"), 2), (BadScan("s"), 3), (KeyboardInterrupt(), 130)]
)
def test_exit_codes(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[..., Recipe],
    tmp_path: Path,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(run, "run", fail)
    path = tmp_path / "r.toml"
    path.write_text(to_toml(make()))
    assert main(["run", str(path)]) == code


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_to_write(
    simulated: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    path = _write(tmp_path / "r.toml", simulated[0])
    path.write_text(path.read_text().replace('"run"', f'"{closed}/run"'))
    assert main(["run", str(path)]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("layout", sorted(formats.layouts()))
def test_a_simulated_scan_of_every_layout_can_be_started_from(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "scan", str(tmp_path / "sim"), "--layout", layout]) == 0
    assert (tmp_path / "sim" / "truth.json").is_file()
    out = capsys.readouterr().out
    raw = out.split("next: xctpipe init ")[1].strip()
    assert main(["inspect", raw]) == 0
    call = ["init", raw, "--out", str(tmp_path / "r.toml"), "--energy-kev", "80", "--pixel-um", "43.3"]
    assert main(call) == 0
    assert main(["plan", str(tmp_path / "r.toml")]) == 0
    assert main(["simulate", "scan", str(tmp_path / "sim"), "--layout", layout]) == 2


def test_the_console_script_answers_quickly_without_heavy_imports() -> None:
    code = (
        "import sys; from xctpipe.cli import main; main(['--version']);"
        "print(sorted({'numba', 'distributed', 'zarr', 'algotom', 'matplotlib'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert __version__ in out
    assert "[]" in out


def test_the_nearest_word_is_offered() -> None:
    assert nearest("recnstruct", ["reconstruct", "report"]).startswith("did you mean 'reconstruct'")
    assert nearest("zzz", ["a", "b"]) == "known: a, b"
