"""A copy of raw frames in order of rows, for sources that cannot give a few rows without whole frames.

Compressed frames have to be decoded whole. Each slab would decode them all again; instead they are copied
once, in their own number type, into one file of rows of all frames, from which a slab is one piece.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe.progress import progress
from xctpipe.scan import Frames, RawArray, Scan, Span
from xctpipe.storage import storing

BLOCK_BYTES = 2**28
"""Frames that are copied together: long enough pieces to write, and little memory."""
MOST_BAND_BYTES = 2**31
"""Rows of packed frames that are held together: more are read in another pass over all frames."""


@dataclass(frozen=True)
class StagedFrames:
    """Frames in a file of rows: (row, frame, col), nothing before or between."""

    path: Path
    shape: tuple[int, int, int]
    kind: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers."""
        return np.dtype(self.kind)

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows [r0, r1) of frames [f0, f1) (all when absent)."""
        n, height, width = self.shape
        r0, r1 = rows or (0, height)
        f0, f1 = frames or (0, n)
        if (f0, f1) == (0, n):
            count = (r1 - r0) * n * width
            offset = r0 * n * width * self.dtype.itemsize
            flat = np.fromfile(self.path, self.dtype, count=count, offset=offset)
            return flat.reshape(r1 - r0, n, width).transpose(1, 0, 2)
        mapped = np.memmap(self.path, self.dtype, "r", shape=(height, n, width))
        return np.array(mapped[r0:r1, f0:f1].transpose(1, 0, 2))


def is_needed(frames: Frames) -> bool:
    """Whether a few rows of these frames cost as much as all."""
    return bool(getattr(frames, "whole_frames", False))


def staged_bytes(frames: Frames) -> int:
    """Size of the copy."""
    n, rows, cols = frames.shape
    return n * rows * cols * np.dtype(frames.dtype).itemsize


def staged(scan: Scan, path: Path) -> Scan:
    """The scan with its projections copied to `path`, if that is needed; a finished copy is used again."""
    source = scan.frames
    if not is_needed(source):
        return scan
    copy = StagedFrames(path, source.shape, np.dtype(source.dtype).newbyteorder("=").str)
    if not (path.exists() and path.stat().st_size == staged_bytes(source)):
        _copy(source, copy, name=scan.name)
    return replace(scan, frames=copy)


def discard(folder: Path, *, name: str, keep: Path | None = None) -> None:
    """Remove copies of a scan's frames, also those of runs that were killed or of files that changed.

    Of `keep` the finished copy stays.
    """
    mark = "[0-9a-f]" * 8
    for path in folder.glob(f"{glob.escape(name)}-{mark}.raw*"):
        if path != keep:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # others may still be in it
        folder.rmdir()


def _copy(source: Frames, copy: StagedFrames, *, name: str) -> None:
    n, rows, cols = source.shape
    frame_bytes = rows * cols * copy.dtype.itemsize
    block = max(1, BLOCK_BYTES // frame_bytes)
    partial = copy.path.with_name(f"{copy.path.name}.partial")
    with storing(copy.path), progress(f"{name}: unpacking", total=n, unit="frames") as bar:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.truncate(n * frame_bytes)
            for first in range(0, n, block):
                last = min(first + block, n)
                _write_rows(file.fileno(), source.read(frames=(first, last)), first=first, copy=copy)
                bar.advance(last - first)
        partial.replace(copy.path)


def _write_rows(handle: int, frames: RawArray, *, first: int, copy: StagedFrames) -> None:
    n, _, width = copy.shape
    by_row = np.ascontiguousarray(frames.transpose(1, 0, 2), copy.dtype)
    for row, lines in enumerate(by_row):
        os.pwrite(handle, lines.data, (row * n + first) * width * copy.dtype.itemsize)


def read_spans(frames: Frames, spans: Sequence[Span]) -> Iterator[RawArray]:
    """Rows [r0, r1) of all frames for several spans; where whole frames must be read, as seldom as can be."""
    if not is_needed(frames):
        for span in spans:
            yield frames.read(span)
        return
    n, _, cols = frames.shape
    rows = max(1, MOST_BAND_BYTES // (n * cols * np.dtype(frames.dtype).itemsize))
    left = list(spans)
    while left:
        heights = np.cumsum([last - first for first, last in left])
        now = max(1, int(np.searchsorted(heights, rows, side="right")))
        yield from _in_one_pass(frames, left[:now])
        left = left[now:]


def _in_one_pass(frames: Frames, spans: Sequence[Span]) -> list[RawArray]:
    n, rows, cols = frames.shape
    bands = [np.empty((n, last - first, cols), frames.dtype) for first, last in spans]
    block = max(1, BLOCK_BYTES // (rows * cols * np.dtype(frames.dtype).itemsize))
    for first in range(0, n, block):
        part = frames.read(frames=(first, min(first + block, n)))
        for band, span in zip(bands, spans, strict=True):
            band[first : first + len(part)] = part[:, slice(*span)]
    return bands
