"""A second process finds every kernel compiled: what the first call costs is paid once per machine."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xctpipe.recipe import Recipe, to_toml

COUNTED = """
import sys
from numba.core import event
recorder = event.RecordingListener()
event.register("numba:compile", recorder)
from xctpipe.cli import main
code = main(sys.argv[1:])
names = sorted({str(found.data["dispatcher"]) for _, found in recorder.buffer})
print("compiled", len(recorder.buffer), names)
sys.exit(code)
"""


def compiled_in(arguments: list[str], folder: Path) -> str:
    """What a fresh process says of the kernels that it compiled."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("correct", ["default", "all"])
def test_a_second_run_compiles_nothing(make: Callable[..., Recipe], tmp_path: Path, correct: str) -> None:
    chain = {"default": {}, "all": {"correct": [{"do": "zingers"}, {"do": "stripes_all"}]}}[correct]
    (tmp_path / "recipe.toml").write_text(to_toml(make(**chain)))
    call = ["run", "recipe.toml", "--fresh", *([] if correct == "default" else ["--stages", "reconstruct"])]
    # the first may find all in the cache of other tests, or nothing
    assert compiled_in(call, tmp_path).startswith("compiled ")
    assert compiled_in(call, tmp_path) == "compiled 0 []"
