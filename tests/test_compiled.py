import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xctpipe import compiled

WHERE = "import xctpipe, os; print(os.environ.get('NUMBA_CACHE_DIR'))"


def folder_of(**environment: str) -> str:
    """The folder that a fresh process keeps its kernels in."""
    plain = {
        key: value for key, value in os.environ.items() if key not in {"NUMBA_CACHE_DIR", "XDG_CACHE_HOME"}
    }
    command = [sys.executable, "-c", WHERE]
    return subprocess.run(
        command, env=plain | environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_kernels_are_kept_by_the_state_of_the_sources(tmp_path: Path) -> None:
    folder = Path(folder_of(XDG_CACHE_HOME=str(tmp_path)))
    assert folder.parent == tmp_path / "xctpipe" / "kernels"
    assert folder.name == compiled.state_of_sources()
    assert folder.is_dir()


def test_a_changed_kernel_is_another_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("import numba\nX = 1\n")
    (tmp_path / "b.py").write_text("Y = 1\n")
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    first = compiled.state_of_sources()
    (tmp_path / "b.py").write_text("Y = 2\n")
    assert compiled.state_of_sources() == first
    (tmp_path / "a.py").write_text("import numba\nX = 2\n")
    assert compiled.state_of_sources() != first


def test_what_the_user_says_counts(tmp_path: Path) -> None:
    assert folder_of(NUMBA_CACHE_DIR=str(tmp_path / "mine")) == str(tmp_path / "mine")


def test_where_the_home_cannot_be_written_the_temporary_folder_serves(tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("no folder")
    folder = folder_of(XDG_CACHE_HOME=str(nowhere), TMPDIR=str(tmp_path))
    assert folder.startswith(str(tmp_path / "xctpipe-"))


def test_folders_of_long_ago_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "xctpipe" / "kernels"
    for name, days in (("old", 31), ("new", 1)):
        (root / name).mkdir(parents=True)
        then = time.time() - days * 86400
        os.utime(root / name, (then, then))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    compiled.keep_by_source()
    assert {path.name for path in root.iterdir()} == {"new", compiled.state_of_sources()}
