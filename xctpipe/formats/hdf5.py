"""HDF5 files opened with errors that say what is wrong, and frames that are read a block at a time."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the compression filters that detectors write
import numpy as np
from numpy.typing import NDArray

from xctpipe.errors import BadScan, nearest
from xctpipe.formats.base import RawOptions
from xctpipe.scan import DarkFlat, Frames, RawArray, Span

SUFFIXES = (".h5", ".hdf", ".hdf5", ".nxs", ".nx")
# what the HDF5 library's errors become in h5py; TypeError is a number type that numpy has no name for
HDF_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError)
_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer instead of the data; fetch it with: git lfs pull"),
    (b"\x0e\x03\x13\x01", "an HDF4 file; convert it with h4toh5"),
    (b"<", "XML or HTML text"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"PK\x03\x04", "a zip archive; unpack it"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"BIO-LOGIC", "a BioLogic cycler file"),
)


@contextmanager
def open_hdf(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; whatever HDF5 finds wrong inside becomes BadScan with the cause.

    No lock is taken: network storage may have none, and other programs may go on reading.
    """
    check_file(path)
    try:
        # without a chunk cache a band of rows is read alone, not with the whole chunk around it
        file = h5py.File(path, "r", locking=False, rdcc_nbytes=0)
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
        return "another program has it open for writing; wait until it is closed, then try again"
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

    A link whose target has moved is looked for by its base name beside the file that holds the link.

    Raises
    ------
    BadScan
        When a target is missing, or lies outside the folder and links may not leave it.
    """
    place, note = Place(path, key), ""
    for _ in range(16):
        with open_hdf(place.path) as file:
            step = _follow(file, place.key)
        if step is None:
            return None
        if step.path == "":
            return Place(place.path, step.key, note)
        target, moved = _link_target(place.path, step, options=options)
        note = moved or note
        place = Place(target, step.key)
    raise BadScan(f"{path}: {key}: more than 16 external links in a row; do they form a circle?")


@dataclass(frozen=True)
class _Step:
    """The end of a key inside one file, or the external link on the way (`path` is not empty)."""

    path: str
    key: str
    at: str = ""


def _follow(file: h5py.File, key: str, *, depth: int = 0) -> _Step | None:
    group, done = file["/"], ""
    parts = [part for part in key.split("/") if part]
    for i, part in enumerate(parts):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        rest = "/".join(parts[i + 1 :])
        if link is None:
            return None
        if isinstance(link, h5py.ExternalLink):
            return _Step(link.filename, f"{link.path.rstrip('/')}/{rest}".rstrip("/"), f"{done}/{part}")
        if isinstance(link, h5py.SoftLink):
            if depth > 16:
                raise BadScan(f"{file.filename}: {key}: soft links form a circle")
            base = link.path if link.path.startswith("/") else f"{done}/{link.path}"
            return _follow(file, f"{base}/{rest}", depth=depth + 1)
        group, done = group[part], f"{done}/{part}"
    return _Step("", done)


def _link_target(holder: Path, step: _Step, *, options: RawOptions) -> tuple[Path, str]:
    stated = Path(step.path)
    target = stated if stated.is_absolute() else holder.parent / stated
    note = ""
    if not target.exists():
        beside = holder.parent / stated.name
        if not beside.exists():
            raise BadScan(
                f"{holder}: {step.at} is an external link to {step.path} ({step.key}), which does not exist; "
                f"put {stated.name} beside {holder.name}"
            )
        note = f"{holder.name}: {step.path}, the target of {step.at}, is missing: {stated.name} is used"
        target = beside
    _check_inside(target, holder=holder, at=step.at, options=options)
    return target, note


def _check_inside(target: Path, *, holder: Path, at: str, options: RawOptions) -> None:
    folder = (options.folder or holder.parent).resolve()
    if not options.follow_links_outside and not target.resolve().is_relative_to(folder):
        raise BadScan(
            f"{holder}: {at} links to {target}, outside {folder}; "
            "set raw.follow_links_outside = true to follow it"
        )


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


@dataclass(frozen=True)
class HdfFrames:
    """Frames stored in an HDF5 dataset (frame, row, col); `runs` are the stored frames used, in order."""

    path: Path
    key: str
    runs: tuple[Span, ...]
    rows: int
    cols: int
    kind: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns."""
        return sum(last - first for first, last in self.runs), self.rows, self.cols

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers, in this machine's byte order."""
        return np.dtype(self.kind)

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows [r0, r1) of frames [f0, f1) (all when absent), one hyperslab a run; BadScan if unreadable."""
        n, height, cols = self.shape
        r0, r1, _ = slice(*(rows or (None,))).indices(height)
        f0, f1, _ = slice(*(frames or (None,))).indices(n)
        out = np.empty((max(f1 - f0, 0), max(r1 - r0, 0), cols), self.dtype)
        if out.size == 0:
            return out
        with open_hdf(self.path) as file:
            dataset = file[self.key]
            at = 0
            for first, last in clip_runs(self.runs, (f0, f1)):
                dataset.read_direct(out, np.s_[first:last, r0:r1], np.s_[at : at + last - first])
                at += last - first
        return out

    def select(self, mask: NDArray[np.bool_]) -> "HdfFrames":
        """The frames where the mask, one value per frame, is true."""
        picked: list[Span] = []
        for run in runs_of(mask):
            picked.extend(clip_runs(self.runs, run))
        return HdfFrames(self.path, self.key, tuple(picked), self.rows, self.cols, self.kind)


def runs_of(mask: NDArray[np.bool_]) -> tuple[Span, ...]:
    """Runs of true values: first, one past the last."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return tuple((int(a), int(b)) for a, b in edges.reshape(-1, 2))


def clip_runs(runs: Sequence[Span], span: Span) -> list[Span]:
    """The part of the concatenated runs that lies in `span`, as runs of what they index."""
    clipped: list[Span] = []
    at = 0
    for first, last in runs:
        a, b = max(span[0] - at, 0), min(span[1] - at, last - first)
        if a < b:
            clipped.append((first + a, first + b))
        at += last - first
    return clipped


def open_frames(path: Path, key: str, *, options: RawOptions) -> tuple[HdfFrames, tuple[str, ...]]:
    """Frames of a three-dimensional dataset, and what is wrong with the way they are stored.

    Raises
    ------
    BadScan
        When the dataset is not there, is no stack of frames of real numbers, or its files are missing.
    """
    place = locate(path, key, options=options)
    if place is None:
        raise BadScan(f"{path}: no dataset {key!r}; {_candidates(path, key)}")
    with open_hdf(place.path) as file:
        item = file[place.key]
        if not isinstance(item, h5py.Dataset):
            raise BadScan(f"{place.path}: {place.key} is a group, not frames; {_candidates(path, key)}")
        where = f"{place.path}: {place.key}"
        shape: tuple[int, ...] = item.shape or ()
        dtype = item.dtype
        if len(shape) != 3 or 0 in shape or dtype.kind not in "iuf":
            raise BadScan(f"{where} has shape {shape} of {dtype}, not (frame, row, column) of real numbers")
        if item.is_virtual:
            _check_sources(item, place.path, options=options)
        lost = _unwritten_frames(item)
    notes = [place.note] if place.note else []
    if lost:
        notes.append(f"{where}: {lost} of {shape[0]} frames were never written: they read as zeros")
    n, rows, cols = shape
    kind = dtype.newbyteorder("=").str
    return HdfFrames(place.path, place.key, ((0, n),), rows, cols, kind), tuple(notes)


def files_of(*paths: Path, dark_flats: Sequence[DarkFlat]) -> tuple[Path, ...]:
    """Files that a scan consists of, each once: those given and those of its darks and flats."""
    parts = [part for item in dark_flats for part in (item.darks, item.flats)]
    own = [part.path for part in parts if isinstance(part, HdfFrames)]
    return tuple(dict.fromkeys([*paths, *own]))


def _candidates(path: Path, key: str) -> str:
    keys = datasets(path, min_dimensions=3, limit=20)
    return nearest(f"/{key.strip('/')}", keys) if keys else "the file holds no stack of frames"


def _check_sources(dataset: h5py.Dataset, holder: Path, *, options: RawOptions) -> None:
    # HDF5 reads missing sources of a virtual dataset as fill values without a word
    for name in sorted({source.file_name for source in dataset.virtual_sources()} - {"."}):
        target = holder.parent / name
        if not target.exists():
            raise BadScan(f"{holder}: {dataset.name} is virtual and needs {name}, which does not exist")
        _check_inside(target, holder=holder, at=str(dataset.name), options=options)


def _unwritten_frames(dataset: h5py.Dataset) -> int:
    n = int(dataset.shape[0])
    if dataset.is_virtual or dataset.external:
        return 0
    if dataset.chunks is None:
        return n if dataset.id.get_storage_size() == 0 else 0
    grid = [-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    if dataset.id.get_num_chunks() == np.prod(grid):
        return 0
    written = np.zeros(grid[0], dtype=np.int64)

    def count(chunk: Any) -> None:
        written[chunk.chunk_offset[0] // dataset.chunks[0]] += 1

    dataset.id.chunk_iter(count)
    incomplete = np.flatnonzero(written < grid[1] * grid[2])
    depth = int(dataset.chunks[0])
    return int(sum(min(depth, n - depth * int(i)) for i in incomplete))


def write_frames(group: h5py.Group, name: str, frames: Frames | Sequence[Frames]) -> None:
    """Write frames one chunk each, uncompressed, in blocks of at most 32 MB."""
    parts = [frames] if isinstance(frames, Frames) else list(frames)
    rows, cols = parts[0].shape[1:]
    total = sum(part.shape[0] for part in parts)
    dataset = group.create_dataset(name, (total, rows, cols), parts[0].dtype, chunks=(1, rows, cols))
    block = max(1, 2**25 // max(1, rows * cols * parts[0].dtype.itemsize))
    at = 0
    for part in parts:
        for first in range(0, part.shape[0], block):
            last = min(first + block, part.shape[0])
            dataset[at + first : at + last] = part.read(frames=(first, last))
        at += part.shape[0]
