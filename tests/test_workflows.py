import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from xctpipe.cli import main
from xctpipe.recipe import read_recipe

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


def test_the_sample_data_hold_what_their_truth_says(tmp_path: Path) -> None:
    folder = FOLDER.parent / "sample_data"
    truth = json.loads((folder / "truth.json").read_text())
    assert main(["init", str(folder / "cell.h5"), "--out", str(tmp_path / "recipe.toml")]) == 0
    assert main(["run", str(tmp_path / "recipe.toml")]) == 0
    record = json.loads((tmp_path / "runs" / "cell" / "run.json").read_text())
    row = record["scans"]["cell"]["row"]
    assert row["center_px"] == pytest.approx(truth["center_px"], abs=0.25)
    assert row["pixel_um"] == pytest.approx(truth["pixel_um"])
