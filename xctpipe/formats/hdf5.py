"""HDF5 files opened with errors that say what is wrong, and the links between them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the compression filters that detectors write
import numpy as np

from xctpipe.errors import BadScan
from xctpipe.formats.base import RawOptions
from xctpipe.formats.links import link_target
from xctpipe.formats.writing import SWMR, WRITE, open_flags
from xctpipe.scan import RawArray

SUFFIXES = (".h5", ".hdf", ".hdf5", ".nxs", ".nx")
# what the HDF5 library's errors become in h5py; TypeError is a number type that numpy has no name for
HDF_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError)
_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer instead of the data; fetch it with: git lfs pull"),
    (b"\x0e\x03\x13\x01", "an HDF4 file; convert it with h4toh5"),
    (b"<", "XML or HTML text"),
    (b"II*\x00", "a TIFF image; name it in raw.data of a recipe"),
    (b"MM\x00*", "a TIFF image; name it in raw.data of a recipe"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"MATLAB 5.0", "a MATLAB file of version 5; save it in MATLAB with -v7.3 or as TIFF"),
    (b"BIO-LOGIC", "a BioLogic cycler file"),
)


@contextmanager
def open_hdf(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; whatever HDF5 finds wrong inside becomes BadScan with the cause.

    No lock is taken: network storage may have none, and other programs may go on reading.
    """
    check_file(path)
    try:
        # a file that is being written can be read only as such
        live = bool(open_flags(path) & SWMR)
        # without a chunk cache a band of rows is read alone, not with the whole chunk around it
        file = h5py.File(path, "r", locking=False, rdcc_nbytes=0, swmr=live)
    except HDF_ERRORS as err:
        raise BadScan(f"{path}: {_open_cause(path, str(err))}") from err
    try:
        with file:
            yield file
    except HDF_ERRORS as err:
        raise BadScan(f"{path}: damaged, HDF5 says: {_plain(err)}; copy the file again") from err


def check_file(path: Path) -> None:
    """BadScan with the cause when the path cannot be an HDF5 file, judged by its first bytes."""
    try:
        if path.is_dir():
            raise BadScan(f"{path}: is a folder, an HDF5 file was expected")
        with path.open("rb") as file:
            head = file.read(32)
    except FileNotFoundError as err:
        raise BadScan(f"{path}: no such file") from err
    except PermissionError as err:
        raise BadScan(f"{path}: no permission to read it; ask its owner, or run: chmod +r") from err
    except OSError as err:
        raise BadScan(f"{path}: cannot be read: {err.strerror}") from err
    if not head:
        raise BadScan(f"{path}: the file is empty (0 bytes); copy it again")
    try:
        if h5py.is_hdf5(path):
            return
    except HDF_ERRORS as err:
        raise BadScan(f"{path}: cannot be read: {_plain(err)}") from err
    raise BadScan(f"{path}: not an HDF5 file: {_first_bytes(head)}")


def _first_bytes(head: bytes) -> str:
    for signature, what in _SIGNATURES:
        if head.lstrip().startswith(signature):
            return f"it is {what}"
    if not any(head):
        return "it begins with zeros; copy it again"
    return f"it begins with {head[:8]!r}"


def _open_cause(path: Path, message: str) -> str:
    found = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", message)
    if found:
        have, want = (int(number) for number in found.groups())
        return (
            f"truncated HDF5 file: {have} of {want} bytes are there; the copy or the writing was not "
            "finished, copy it again"
        )
    if "already open for" in message or "temporarily unavailable" in message:
        text = "another program has it open for writing; wait until it is closed, then try again"
        crashed = f"; if that program has crashed, run: h5clear -s {path.name}"
        return text + (crashed if open_flags(path) & WRITE else "")
    return f"damaged, HDF5 says: {message}; copy the file again"


def _plain(err: BaseException) -> str:
    return str(err.args[0]) if err.args else str(err)


@dataclass(frozen=True)
class Place:
    """Where an HDF5 object really is, once every external link has been followed."""

    path: Path
    key: str
    note: str = ""


def locate(path: Path, key: str, *, options: RawOptions) -> Place | None:
    """Find an object, following external links one by one; None when the key is not there.

    A link whose target has moved is looked for around the file that holds the link.

    Raises
    ------
    BadScan
        When a target is missing, or lies outside the folder and links may not leave it.
    """
    place, note = Place(path, key), ""
    for _ in range(16):
        with open_hdf(place.path) as file:
            step = follow(file, place.key)
        if step is None:
            return None
        if step.path == "":
            return Place(place.path, step.key, note)
        target, moved = link_target(place.path, step.path, at=step.at, key=step.key, options=options)
        note = moved or note
        place = Place(target, step.key)
    raise BadScan(f"{path}: {key}: more than 16 external links in a row; do they form a circle?")


@dataclass(frozen=True)
class Step:
    """The end of a key inside one file, or the external link on the way (`path` is not empty)."""

    path: str
    key: str
    at: str = ""


def follow(file: h5py.File, key: str, *, depth: int = 0) -> Step | None:
    """Follow a key through the soft links of one file, up to an external link; None when it leads nowhere."""
    group, done = file["/"], ""
    parts = [part for part in key.split("/") if part]
    for i, part in enumerate(parts):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        rest = "/".join(parts[i + 1 :])
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            return Step(link.filename, f"{link.path.rstrip('/')}/{rest}".rstrip("/"), f"{done}/{part}")
        if isinstance(link, h5py.SoftLink):
            if depth > 16:
                raise BadScan(f"{file.filename}: {key}: soft links form a circle")
            base = link.path if link.path.startswith("/") else f"{done}/{link.path}"
            return follow(file, f"{base}/{rest}", depth=depth + 1)
        group, done = group[part], f"{done}/{part}"
    return Step("", done)


def read_array(path: Path, key: str, *, options: RawOptions) -> tuple[RawArray, str] | None:
    """A whole small dataset and its `units` attribute; None when the key is not there."""
    place = locate(path, key, options=options)
    if place is None:
        return None
    with open_hdf(place.path) as file:
        item = file[place.key]
        if not isinstance(item, h5py.Dataset) or item.size is None:
            return None
        return np.asarray(item[()]), text_of(item.attrs.get("units", item.attrs.get("unit", "")))


def read_attribute(path: Path, key: str, name: str, *, options: RawOptions) -> str:
    """A text attribute of an object; empty when the object or the attribute is absent or not text."""
    place = locate(path, key, options=options)
    if place is None:
        return ""
    with open_hdf(place.path) as file:
        return text_of(file[place.key].attrs.get(name, ""))


def read_number(path: Path, key: str, *, options: RawOptions) -> tuple[float, str] | None:
    """The first value of a numeric dataset and its unit; None when it is absent or not a number."""
    found = read_array(path, key, options=options)
    if found is None or found[0].size == 0 or found[0].dtype.kind not in "iuf":
        return None
    return float(found[0].flat[0]), found[1]


def read_text(path: Path, key: str, *, options: RawOptions) -> str:
    """The first value of a text dataset; empty when it is absent or not text."""
    found = read_array(path, key, options=options)
    if found is None or found[0].size == 0 or found[0].dtype.kind not in "OSU":
        return ""
    return text_of(found[0].flat[0])


def text_of(value: object) -> str:
    """Text of an attribute or a scalar, however HDF5 stored it; empty when it is not text."""
    if isinstance(value, np.ndarray):
        value = value.flat[0] if value.size else ""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value if isinstance(value, str) else ""


def datasets(path: Path, *, min_dimensions: int = 0, limit: int = 200) -> list[str]:
    """Keys of the datasets in a file itself (no external links) with at least so many dimensions."""
    found: list[str] = []

    def visit(name: str, item: object) -> bool | None:
        if isinstance(item, h5py.Dataset) and len(item.shape or ()) >= min_dimensions:
            found.append(f"/{name}")
        return True if len(found) >= limit else None

    with open_hdf(path) as file:
        file.visititems(visit)
    return found
