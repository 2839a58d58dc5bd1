"""A second process finds every kernel compiled: what the first call costs is paid once per machine."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from xctpipe.recipe import Recipe, to_toml

COUNTED = """
import sys
from matplotlib.figure import Figure
from numba.core import event
Figure.savefig = lambda *_, **__: None  # figures are made and not drawn
recorder = event.RecordingListener()
event.register("numba:compile", recorder)
from xctpipe.cli import main
codes = [main(call.split()) for call in sys.argv[1:]]
names = sorted({str(found.data["dispatcher"]) for _, found in recorder.buffer})
print("compiled", len(recorder.buffer), names)
sys.exit(max(codes))
"""


def compiled_in(calls: list[str], folder: Path) -> str:
    """What a fresh process says of the kernels that it compiled."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *calls], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_second_run_compiles_nothing(make: Callable[..., Recipe], tmp_path: Path) -> None:
    slow = [{"do": "zingers"}, {"do": "stripes_all"}]
    (tmp_path / "default.toml").write_text(to_toml(make()))
    (tmp_path / "all.toml").write_text(to_toml(make(run_folder="all", correct=slow)))
    calls = ["run default.toml --fresh", "run all.toml --fresh --stages reconstruct"]
    # the first finds what other tests have left in the cache: all, some or nothing
    first = compiled_in(calls, tmp_path)
    assert first.startswith("compiled ")
    if first != "compiled 0 []":
        assert compiled_in(calls, tmp_path) == "compiled 0 []"
