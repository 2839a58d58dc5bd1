"""Frames in TIFF files, read a band of rows at a time where they are stored plainly."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from xctpipe.errors import BadScan
from xctpipe.scan import Frames, RawArray, Span

TIFF_SUFFIXES = (".tif", ".tiff")

_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True)
class TiffFrames:
    """Frames in TIFF files of one folder, equally many in each, in the order of `names`.

    Rows of uncompressed frames are read alone. `whole_frames` tells that the first file is stored otherwise:
    a few rows of a frame cost the decoding of all of it.
    """

    folder: str
    names: tuple[str, ...]
    per_file: int
    rows: int
    cols: int
    kind: str
    whole_frames: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns."""
        return len(self.names) * self.per_file, self.rows, self.cols

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers, in this machine's byte order."""
        return np.dtype(self.kind)

    @property
    def frame(self) -> tuple[int, int, str]:
        """Rows, columns and type of a frame."""
        return self.rows, self.cols, self.kind

    @property
    def paths(self) -> Iterator[Path]:
        """The files, in order."""
        return (Path(self.folder, name) for name in self.names)

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows [r0, r1) of frames [f0, f1) (all when absent); BadScan if a file is unreadable or unlike."""
        n, height, cols = self.shape
        r0, r1, _ = slice(*(rows or (None,))).indices(height)
        f0, f1, _ = slice(*(frames or (None,))).indices(n)
        out = np.empty((max(f1 - f0, 0), max(r1 - r0, 0), cols), self.dtype)
        if out.size == 0:
            return out
        for number, run in groupby(range(f0, f1), key=lambda frame: frame // self.per_file):
            pages = [frame % self.per_file for frame in run]
            at = number * self.per_file + pages[0] - f0
            _read_pages(self, self.names[number], pages, into=out[at : at + len(pages)], first_row=r0)
        return out


@dataclass(frozen=True)
class Stored:
    """How one TIFF file stores its pages; `offsets` is None where they must be decoded."""

    pages: int
    rows: int
    cols: int
    dtype: str
    offsets: tuple[int, ...] | None
    time: str

    @property
    def frame(self) -> tuple[int, int, str]:
        """Rows, columns and type of a frame, in this machine's byte order."""
        return self.rows, self.cols, np.dtype(self.dtype).newbyteorder("=").str


def stored(path: Path) -> Stored:
    """How a TIFF file stores its pages; BadScan when it holds no frames or is not whole."""
    try:
        stat = path.stat()
    except OSError as err:
        raise BadScan(f"{path}: cannot be read: {err.strerror}") from err
    return _stored(str(path), stat.st_size, stat.st_mtime_ns)


# the slabs of a scan come to each file again and again; size and time tell when it has changed
@lru_cache(maxsize=2**15)
def _stored(path: str, size: int, _mtime_ns: int) -> Stored:
    with _opened(path) as tif:
        series = [each for each in tif.series if not each.keyframe.is_reduced]
        if len(series) != 1:
            raise BadScan(f"{path}: {len(series)} series of images, one stack of frames is needed")
        page = series[0].keyframe
        if page.samplesperpixel != 1 or page.dtype is None or page.dtype.kind not in "iuf":
            raise BadScan(
                f"{path}: {page.samplesperpixel} value(s) of {page.dtype} a pixel, one real number is "
                "needed; convert the images to grey"
            )
        rows, cols = int(page.imagelength), int(page.imagewidth)
        pages = int(series[0].size) // (rows * cols)
        offsets, end = _offsets(series[0], pages, frame_bytes=rows * cols * page.dtype.itemsize)
        if end > size:
            raise BadScan(_truncated(path, size, end))
        dtype = page.dtype.newbyteorder(tif.byteorder).str
        time = page.tags.get(306)
        return Stored(pages, rows, cols, dtype, offsets, "" if time is None else str(time.value))


def _offsets(series: Any, pages: int, *, frame_bytes: int) -> tuple[tuple[int, ...] | None, int]:
    """Where each frame begins, and where the last one ends; None where frames are not stored plainly."""
    if series.dataoffset is not None:
        first = int(series.dataoffset)
        offsets = tuple(first + i * frame_bytes for i in range(pages))
        return offsets, offsets[-1] + frame_bytes
    stored_pages = list(series.pages)
    ends = [
        start + count
        for page in stored_pages
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    ]
    plain = series.keyframe.is_final and all(
        sum(page.databytecounts) == frame_bytes and _in_one_piece(page) for page in stored_pages
    )
    if not plain or len(stored_pages) != pages:
        return None, max(ends)
    return tuple(int(page.dataoffsets[0]) for page in stored_pages), max(ends)


def _in_one_piece(page: Any) -> bool:
    ends = np.add(page.dataoffsets, page.databytecounts)
    return bool(np.all(ends[:-1] == page.dataoffsets[1:]))


@contextmanager
def _opened(path: str) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF file; whatever is wrong inside becomes BadScan."""
    # what it has to say is in the errors below
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        with tifffile.TiffFile(path) as tif:
            yield tif
    except BadScan:
        raise
    except OSError as err:
        raise BadScan(f"{path}: cannot be read: {err.strerror or err}") from err
    except Exception as err:  # a damaged header ends in any kind of error
        if "imagecodecs" in str(err):
            raise BadScan(f"{path}: {err}; run: pip install imagecodecs, or save uncompressed") from err
        text = str(err).split("\n")[0]
        raise BadScan(f"{path}: not a whole TIFF file: {text}; copy or write it again") from err


def _truncated(path: str | Path, have: int, want: int) -> str:
    return (
        f"{path}: truncated TIFF file: {have} of {want} bytes are there; the copy or the writing was not "
        "finished, copy it again"
    )


def _read_pages(
    frames: TiffFrames, name: str, pages: Sequence[int], *, into: RawArray, first_row: int
) -> None:
    path = Path(frames.folder, name)
    file = stored(path)
    if (file.pages, *file.frame) != (frames.per_file, *frames.frame):
        raise BadScan(_unlike(frames, path, file))
    if file.offsets is None:
        last_row = first_row + into.shape[1]
        with _opened(str(path)) as tif:
            stored_pages: Any = next(each.pages for each in tif.series if not each.keyframe.is_reduced)
            for block, page in zip(into, pages, strict=True):
                block[:] = stored_pages[page].asarray()[first_row:last_row]
        return
    dtype = np.dtype(file.dtype)
    try:
        with path.open("rb", buffering=0) as raw:
            for block, page in zip(into, pages, strict=True):
                raw.seek(file.offsets[page] + first_row * file.cols * dtype.itemsize)
                have = raw.readinto(memoryview(block).cast("B"))
                if have != block.nbytes:
                    raise BadScan(_truncated(path, have or 0, block.nbytes))
    except OSError as err:
        raise BadScan(f"{path}: cannot be read: {err.strerror}") from err
    if not dtype.isnative:
        into.byteswap(inplace=True)


def _unlike(frames: TiffFrames, path: Path, file: Stored) -> str:
    return (
        f"{path}: {_text(file.pages, file.frame)}, the first of these files has "
        f"{_text(frames.per_file, frames.frame)}; all must be alike: name the files of one stack only, "
        "e.g. with a narrower glob"
    )


def _text(pages: int, frame: tuple[int, int, str]) -> str:
    return f"{pages} frame(s) of {frame[0]} x {frame[1]} {np.dtype(frame[2]).name}"


def open_tiffs(paths: Sequence[Path]) -> tuple[tuple[TiffFrames, ...], tuple[str, ...]]:
    """Frames of TIFF files in the order given, one stack per folder, and what is odd about them.

    Headers of the first and last file are read and the sizes of all; the others are checked when read.

    Raises
    ------
    BadScan
        When a file is no whole TIFF of grey values, or the files are not alike.
    """
    stacks: list[TiffFrames] = []
    notes: list[str] = []
    for folder, run in groupby(paths, key=lambda path: str(path.parent)):
        names = tuple(path.name for path in run)
        first = stored(Path(folder, names[0]))
        # many frames a file: few files, which need not hold equally many
        parts = [names] if first.pages == 1 else [(name,) for name in names]
        for part in parts:
            stacks.append(_stack(folder, part))
            _check(stacks[-1], like=stacks[0])
        notes += _jumps(folder, names)
    return tuple(stacks), tuple(notes)


def _stack(folder: str, names: tuple[str, ...]) -> TiffFrames:
    first = stored(Path(folder, names[0]))
    return TiffFrames(folder, names, first.pages, *first.frame, first.offsets is None)


def _check(stack: TiffFrames, *, like: TiffFrames) -> None:
    last = stored(Path(stack.folder, stack.names[-1]))
    if (last.pages, *last.frame) != (stack.per_file, *like.frame):
        raise BadScan(_unlike(like, Path(stack.folder, stack.names[-1]), last))
    if last.offsets is None:
        return
    end = last.offsets[-1] + stack.rows * stack.cols * stack.dtype.itemsize
    for each in stack.paths:
        try:
            size = each.stat().st_size
        except OSError as err:
            raise BadScan(f"{each}: cannot be read: {err.strerror}") from err
        # cut short, unlike, or with a shorter header: what it says of itself tells
        if size < end and (stored(each).pages, *stored(each).frame) != (stack.per_file, *stack.frame):
            raise BadScan(_unlike(like, each, stored(each)))


def _jumps(folder: str, names: Sequence[str]) -> Iterator[str]:
    """Whether the last number in the names, the frame's, goes on evenly."""
    numbers = [int(found[-1]) for name in names if (found := re.findall(r"\d+", Path(name).stem))]
    if len(numbers) != len(names) or len(names) < 3:
        return
    steps = np.diff(numbers)
    usual = int(np.median(steps))
    odd = np.flatnonzero(steps != usual)
    if usual > 0 and 0 < odd.size <= len(names) // 10 + 1:
        at = int(odd[0])
        yield (
            f"{folder}: the numbers of the files jump from {names[at]} to {names[at + 1]} "
            f"(in {odd.size} places): were frames lost?"
        )


def tiff_time(path: Path) -> datetime | None:
    """When a TIFF file says it was taken, in this computer's time zone; None when it does not say."""
    try:
        return datetime.strptime(stored(path).time.strip(), "%Y:%m:%d %H:%M:%S").astimezone()
    except (BadScan, ValueError, OverflowError, OSError):
        return None


def natural(name: str) -> list[tuple[int, str]]:
    """Sorting key with numbers counted as numbers: frame_9 before frame_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBER.split(name) if part]


def tiffs_in(folder: Path) -> list[Path]:
    """TIFF files of a folder, hidden ones left out, numbers counted as numbers; OSError if not readable."""
    return [folder / name for name in tiff_names(folder)]


def tiff_names(folder: Path) -> list[str]:
    """Names of the TIFF files of a folder, as `tiffs_in`."""
    # there may be thousands, and a folder is looked at several times: no Path for each
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.lower().endswith(TIFF_SUFFIXES)]
    return sorted((name for name in names if not name.startswith(".")), key=natural)


def write_tiffs(folder: Path, frames: Frames, *, stem: str) -> None:
    """Write frames as uncompressed files of one page, `stem`_00000.tif and so on, into a new folder."""
    folder.mkdir(parents=True)
    n, rows, cols = frames.shape
    block = max(1, 2**25 // max(1, rows * cols * frames.dtype.itemsize))
    for first in range(0, n, block):
        last = min(first + block, n)
        for i, frame in enumerate(frames.read(frames=(first, last)), start=first):
            tifffile.imwrite(folder / f"{stem}_{i:05d}.tif", frame, photometric="minisblack", metadata=None)
