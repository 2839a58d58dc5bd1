"""The kinds of cyclers' files, found by scanning this package."""

import importlib
import pkgutil
from pathlib import Path
from typing import cast

from xctpipe.cycler.base import CyclerFile, Kind, ReadOptions
from xctpipe.errors import BadScan

_HEAD_BYTES = 4096

_OTHERS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x0e\x03\x13\x01", "an HDF4 file"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook; export the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook; export the sheet as CSV"),
    (b"<?xml", "XML text"),
    (b"<!doctype html", "a web page"),
    (b"<!doctype", "XML text"),
    (b"<html", "a web page"),
    (b"EC-LAB SETTING FILE", "EC-Lab's settings (.mps), without data; give the .mpr or .mpt files"),
)


def kinds() -> dict[str, Kind]:
    """Every kind of file by name."""
    package = importlib.import_module("xctpipe.cycler")
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    found = [cast("Kind", module) for module in modules if hasattr(module, "NAME")]
    return {kind.NAME: kind for kind in found}


def read(path: Path, *, options: ReadOptions | None = None) -> CyclerFile:
    """Read a cycler's file of any kind.

    Raises
    ------
    BadScan
        If it cannot be read, is no cycler's file, or lacks what is needed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if not head:
            raise BadScan(f"{path}: the file is empty; export or copy it again")
        other = what_else(head)
        kind = next((each for each in kinds().values() if not other and each.understands(head)), None)
        if kind is None:
            raise BadScan(
                f"{path}: {other or f'begins with {head[:16]!r}'}; a cycler's file is {', '.join(kinds())}"
            )
        return kind.read(path, options=options or ReadOptions())
    except OSError as err:
        raise BadScan(f"{path}: cannot be read ({err.strerror}); check the name in cycler.file") from err


def what_else(head: bytes) -> str:
    """What a file is that is surely no cycler's; empty where that is not known."""
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((what for mark, what in _OTHERS if begin.startswith(mark.lower())), "")
