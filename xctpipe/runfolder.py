"""The run folder: what is done, with which settings; every record is written whole or not at all."""

import csv
import errno
import fcntl
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xctpipe.errors import BadRecipe
from xctpipe.plan import Slab
from xctpipe.storage import storing, write_whole

RUN_RECORD = "run.json"
STOP_FILE = ".stop"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, never sees half of it."""
    with storing(path, needed_bytes=len(content)):
        write_whole(path, [content])


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON record whole."""
    write_text(path, json.dumps(value, indent=1, default=str) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The record, or None where there is none or it is not one (an interrupted copy, say)."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str]) -> None:
    """Write a CSV table with these columns; a missing value is an empty cell."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    write_text(path, text.getvalue())


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the run folder for one writer; the lock falls with the process, however it ends."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / ".lock").open("w")
    except OSError as err:
        raise BadRecipe(f"run_folder = {root}: cannot be written ({err.strerror}); choose another") from err
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            if err.errno in {errno.EAGAIN, errno.EACCES}:
                raise BadRecipe(
                    f"run_folder = {root}: another xctpipe is working in it; wait for it"
                ) from err
        (root / STOP_FILE).unlink(missing_ok=True)
        yield


def differences(old: Any, new: Any, *, key: str = "") -> list[str]:
    """Settings that differ, one line each: `correct.0.size_px: 21 -> 31`."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(k, old.get(k), new.get(k)) for k in sorted({*old, *new})]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        return [f"{key}: {_brief(old)} -> {_brief(new)}"]
    lines: list[str] = []
    for name, a, b in pairs:
        lines += differences(a, b, key=f"{key}.{name}" if key else name)
    return lines


def _brief(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True)
class ScanFolder:
    """The part of a run folder that belongs to one scan."""

    root: Path
    token: str = ""
    """Of the attempt that may write here; records of another attempt count as absent."""

    @property
    def volume(self) -> Path:
        """The reconstructed volume."""
        return self.volume_of("edge")

    def volume_of(self, kind: str) -> Path:
        """A reconstructed volume: `edge`, or `mass` after phase retrieval."""
        return self.root / f"{kind}.ome.zarr"

    @property
    def survey(self) -> Path:
        """What was found out about the scan before its slabs."""
        return self.root / "work" / "survey.npz"

    @property
    def state(self) -> Path:
        """The settings that what is here was made with."""
        return self.root / "work" / "state.json"

    @property
    def stop(self) -> Path:
        """Exists when workers shall not start another slab."""
        return self.root.parent.parent / STOP_FILE

    def _marker(self, slab: Slab) -> Path:
        return self.root / "work" / "slabs" / f"{slab.rows[0]:05d}-{slab.rows[1]:05d}.json"

    def mark_done(self, slab: Slab, record: Mapping[str, Any]) -> None:
        """Record a slab whose every shard is on disk."""
        write_json(self._marker(slab), {"token": self.token, **record})

    def record_of(self, slab: Slab) -> dict[str, Any] | None:
        """The record of a finished slab."""
        record = read_json(self._marker(slab))
        return record if record and record.get("token") == self.token else None

    def is_ours(self) -> bool:
        """Whether no later attempt has begun, into which a worker whose client is gone must not write."""
        return (read_json(self.state) or {}).get("token") == self.token

    def request_stop(self) -> None:
        """Ask workers to start no other slab; a disk that refuses must not hide why."""
        with suppress(OSError):
            self.stop.touch()

    def discard(self) -> None:
        """Remove everything made for this scan."""
        with storing(self.root):
            # the state goes first: without it, what an interrupted removal left is never taken for finished
            self.state.unlink(missing_ok=True)
            if self.root.exists():
                shutil.rmtree(self.root)


def scan_folder(run_folder: Path, scan: str, *, token: str = "") -> ScanFolder:
    """Where the results of a scan belong."""
    return ScanFolder(run_folder / "scans" / scan, token)
