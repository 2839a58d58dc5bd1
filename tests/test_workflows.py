import json
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pictures
import pytest
import tomli_w
from shared_cells import NAMES

from xctpipe.cli import main
from xctpipe.csvtables import read_table
from xctpipe.recipe import read_recipe
from xctpipe.settings import Cell

FOLDER = Path(__file__).parents[1] / "workflows"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.name)
def test_every_recipe_is_valid(path: Path) -> None:
    assert read_recipe(path).chain()


@pytest.mark.usefixtures("no_pictures")
def test_the_example_script_makes_a_volume(
    simulated: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(simulated[0]), "80", str(simulated[1]["pixel_um"]), str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["one_scan.py", *arguments])
    runpy.run_path(str(FOLDER / "one_scan.py"), run_name="__main__")
    assert "middle slice" in capsys.readouterr().out


def test_a_series_is_labelled_and_measured_with_pictures(
    cell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures.leave_out_of_reports(monkeypatch)
    raw = tomllib.loads((cell / "recipe.toml").read_text())["raw"]
    text = (FOLDER / "segment_and_measure.toml").read_text()
    text = text.replace('folder = "raw_data"', f'folder = "{cell / "raw_data"}"\nscans = ["{NAMES[1]}"]')
    (tmp_path / "recipe.toml").write_text(text.replace("pixel_um = 1.3", f"pixel_um = {raw['pixel_um']}"))
    capsys.readouterr()
    assert main(["run", str(tmp_path / "recipe.toml")]) == 0
    run = tmp_path / "runs" / "nak50-labels"
    said = capsys.readouterr().out.splitlines()
    assert said[-3].startswith(f"tables: {run / 'tables'}: ")
    assert {"interface.csv", "objects.csv"} <= set(said[-3].replace(",", "").split())
    assert said[-2] == f"picture: {run / 'scans' / 'scan_00005' / 'labels.png'}"
    assert Path(said[-2].removeprefix("picture: ")).stat().st_size > 50_000
    kinds = [row["kind"] for row in read_table(run / "tables" / "objects.csv")]
    # of the true cell: a crack under a chip, and a bubble
    assert (kinds.count("crack"), kinds.count("chip"), kinds.count("bubble")) == (1, 1, 1)


SERIES = ("hex_plating", "hex_stripping", "series_without_cycler", "hex_one_scan", "hex_cluster")

ONE_SCAN = ("hex_one_scan", "hex_stripping", "hex_cluster")
"""Run with one scan here, to be quick."""


@pytest.fixture
def cell(plating_cells: Path) -> Path:
    """Raw data and truth of the tiny plating cell, P3 to P6; not to be changed."""
    return plating_cells / "reconstructed"


def on_this_cell(name: str, cell: Path, folder: Path) -> Path:
    """A recipe of the folder of workflows, for two scans of a simulated cell."""
    recipe = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    simulated = tomllib.loads((cell / "recipe.toml").read_text())
    raw = recipe["raw"]
    for key in ("dark_flat", "rows"):
        raw.pop(key, None)
    raw |= {"folder": str(cell / "raw_data"), "pixel_um": simulated["raw"]["pixel_um"]}
    raw["scans"] = list(NAMES[1:2] if name in ONE_SCAN else NAMES[:2])
    if "cycler" in recipe:
        recipe["cycler"] |= {"file": str(cell / "cycler.mpt"), "time_zone": "UTC"}
    recipe["compute"] = {"memory_gb": 2}
    path = folder / "recipe.toml"
    path.write_text(tomli_w.dumps(recipe))
    return path


@pytest.mark.parametrize("name", [name for name in SERIES if name != "hex_cluster"])
def test_recipes_run_from_raw_frames_to_the_report(
    name: str, cell: Path, tmp_path: Path, no_pictures: None
) -> None:
    # the pictures of a report are looked at where the demonstration makes one
    recipe = on_this_cell(name, cell, tmp_path)
    assert main(["run", str(recipe)]) == 0
    run = read_recipe(recipe).run_folder
    assert (run / "report.html").stat().st_size > 20_000
    rows = read_table(run / "tables" / "series.csv")
    assert len(rows) == (1 if name in ONE_SCAN else 2)
    known = [row["charge_mah_cm2"] is not None for row in rows]
    assert known == [name.endswith(("plating", "stripping"))] * len(rows)


WITHOUT_PICTURES = """
import sys
from matplotlib.figure import Figure
from xctpipe.cli import main
Figure.savefig = lambda *_, **__: None
sys.exit(main())
"""
"""The command `xctpipe`, whose figures are made and not drawn."""


@pytest.mark.slow
def test_the_script_for_a_cluster_runs_a_series(cell: Path, tmp_path: Path) -> None:
    recipe = on_this_cell("hex_cluster", cell, tmp_path)
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    # one node of a cluster: the command itself
    srun.write_text('#!/bin/sh\nexec "$@"\n')
    srun.chmod(0o755)
    command = srun.with_name("xctpipe")
    command.write_text(f"#!{sys.executable}\n{WITHOUT_PICTURES}")
    command.chmod(0o755)
    places = [str(srun.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    env = {**os.environ, "PATH": os.pathsep.join(places), "SLURM_CPUS_PER_TASK": "1"}
    call = [str(FOLDER / "hex_cluster.sh"), str(recipe)]
    done = subprocess.run(
        call, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "1 scan(s) done" in done.stdout
    assert (read_recipe(recipe).run_folder / "report.html").exists()
    assert not list(tmp_path.glob(".dask-*"))


def test_the_script_for_a_cluster_ends_when_no_scheduler_starts(tmp_path: Path) -> None:
    for name, code in (("dask", 3), ("srun", 0)):
        command = tmp_path / name
        command.write_text(f"#!/bin/sh\nexit {code}\n")
        command.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    call = [str(FOLDER / "hex_cluster.sh"), "recipe.toml"]
    done = subprocess.run(
        call, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "the dask scheduler did not start" in done.stderr
    assert not list(tmp_path.glob(".dask-*"))


def test_recipes_that_show_defaults_show_those_of_the_program() -> None:
    shown = read_recipe(FOLDER / "segment_and_measure.toml")
    plain = read_recipe(FOLDER / "hex_one_scan.toml")
    assert (shown.segment, shown.measure, shown.cell) == (plain.segment, plain.measure, Cell())


@pytest.mark.usefixtures("no_pictures")
def test_the_sample_data_hold_what_their_truth_says(tmp_path: Path) -> None:
    folder = FOLDER.parent / "sample_data"
    truth = json.loads((folder / "truth.json").read_text())
    assert main(["init", str(folder / "cell.h5"), "--out", str(tmp_path / "recipe.toml")]) == 0
    assert main(["run", str(tmp_path / "recipe.toml")]) == 0
    record = json.loads((tmp_path / "runs" / "cell" / "run.json").read_text())
    row = record["scans"]["cell"]["row"]
    assert row["center_px"] == pytest.approx(truth["center_px"], abs=0.25)
    assert row["pixel_um"] == pytest.approx(truth["pixel_um"])
