import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

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
