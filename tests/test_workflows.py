import json
import runpy
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from xctpipe.cli import main
from xctpipe.csvtables import read_table
from xctpipe.recipe import read_recipe
from xctpipe.settings import Cell

FOLDER = Path(__file__).parents[1] / "workflows"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.name)
def test_every_recipe_is_valid(path: Path) -> None:
    assert read_recipe(path).chain()


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
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = tmp_path / "cell"
    assert main(["simulate", "cell", str(cell), "--size", "tiny", "--seed", "1", "--scans", "4:5"]) == 0
    raw = tomllib.loads((cell / "recipe.toml").read_text())["raw"]
    text = (FOLDER / "segment_and_measure.toml").read_text()
    text = text.replace('folder = "raw_data"', f'folder = "{cell / "raw_data"}"')
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


def test_recipes_that_show_defaults_show_those_of_the_program() -> None:
    shown = read_recipe(FOLDER / "segment_and_measure.toml")
    plain = read_recipe(FOLDER / "hex_one_scan.toml")
    assert (shown.segment, shown.measure, shown.cell) == (plain.segment, plain.measure, Cell())


def test_the_sample_data_hold_what_their_truth_says(tmp_path: Path) -> None:
    folder = FOLDER.parent / "sample_data"
    truth = json.loads((folder / "truth.json").read_text())
    assert main(["init", str(folder / "cell.h5"), "--out", str(tmp_path / "recipe.toml")]) == 0
    assert main(["run", str(tmp_path / "recipe.toml")]) == 0
    record = json.loads((tmp_path / "runs" / "cell" / "run.json").read_text())
    row = record["scans"]["cell"]["row"]
    assert row["center_px"] == pytest.approx(truth["center_px"], abs=0.25)
    assert row["pixel_um"] == pytest.approx(truth["pixel_um"])
