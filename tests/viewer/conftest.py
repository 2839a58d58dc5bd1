"""Runs for the tests of the viewer, and a count of what is read of them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from viewed_runs import write_run
from zarr.storage import LocalStore


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("viewer") / "run")


@pytest.fixture
def run_folder(pristine: Path, tmp_path: Path) -> Path:
    """A run of its own."""
    return Path(shutil.copytree(pristine, tmp_path / "run"))


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is read from the stores from now on: names of files and bytes."""
    log: list[tuple[str, int]] = []
    get = LocalStore.get

    async def counted(self: LocalStore, key: str, *args: Any, **more: Any) -> Any:
        got = await get(self, key, *args, **more)
        log.append((f"{self.root}/{key}", 0 if got is None else len(got)))
        return got

    monkeypatch.setattr(LocalStore, "get", counted)
    return log
