"""Frames in HDF5 files, read and written a block at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xctpipe.errors import BadScan, nearest
from xctpipe.formats.base import RawOptions
from xctpipe.formats.hdf5 import datasets, locate, open_hdf
from xctpipe.formats.stored import Axes, check_stored, dataset_of, reads_whole_frames, unwritten
from xctpipe.scan import DarkFlat, Frames, RawArray, Span

FRAME_ROW_COL: Axes = (0, 1, 2)


@dataclass(frozen=True)
class HdfFrames:
    """Frames stored in an HDF5 dataset; `runs` are the stored frames used, in order.

    `axes` are the axes of the dataset that count frames, rows and columns. `whole_frames` tells that a few
    rows of a frame cost the reading of all of it, because its chunks are compressed.
    """

    path: Path
    key: str
    runs: tuple[Span, ...]
    rows: int
    cols: int
    kind: str
    axes: Axes = FRAME_ROW_COL
    whole_frames: bool = False

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
            dataset = dataset_of(file, self.key)
            at = 0
            for first, last in clip_runs(self.runs, (f0, f1)):
                part = out[at : at + last - first]
                wanted = (slice(first, last), slice(r0, r1), slice(None))
                if self.axes == FRAME_ROW_COL:
                    dataset.read_direct(part, wanted)
                else:
                    stored = [wanted[self.axes.index(axis)] for axis in range(3)]
                    part[...] = dataset[tuple(stored)].transpose(self.axes)
                at += last - first
        return out

    def select(self, mask: NDArray[np.bool_]) -> "HdfFrames":
        """The frames where the mask, one value per frame, is true."""
        picked: list[Span] = []
        for run in runs_of(mask):
            picked.extend(clip_runs(self.runs, run))
        return replace(self, runs=tuple(picked))


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


def open_frames(
    path: Path, key: str, *, options: RawOptions, axes: Axes = FRAME_ROW_COL
) -> tuple[HdfFrames, tuple[str, ...]]:
    """Frames of a three-dimensional dataset, and what is wrong with the way they are stored.

    Parameters
    ----------
    key : where the dataset is, through any links.
    axes : which of its axes count frames, rows and columns.

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
        check_stored(item, place.path, options=options)
        lost = int(np.count_nonzero(unwritten(item, axis=axes[0])))
        whole = reads_whole_frames(item, place.path, axis=axes[1])
    notes = [place.note] if place.note else []
    n, rows, cols = (shape[axis] for axis in axes)
    if lost:
        notes.append(f"{where}: {lost} of {n} frames were never written: they read as zeros")
    kind = dtype.newbyteorder("=").str
    return HdfFrames(place.path, place.key, ((0, n),), rows, cols, kind, axes, whole), tuple(notes)


def unwritten_at_end(frames: HdfFrames) -> int:
    """How many of the last frames were never written; those of a scan that goes on."""
    with open_hdf(frames.path) as file:
        empty = unwritten(file[frames.key], axis=frames.axes[0])
    used = np.concatenate([empty[first:last] for first, last in frames.runs])
    written = np.flatnonzero(~used)
    return int(used.size - (written[-1] + 1 if written.size else 0))


def files_of(*paths: Path, dark_flats: Sequence[DarkFlat]) -> tuple[Path, ...]:
    """Files that a scan consists of, each once: those given and those of its darks and flats."""
    parts = [part for item in dark_flats for part in (item.darks, item.flats)]
    own = [part.path for part in parts if isinstance(part, HdfFrames)]
    return tuple(dict.fromkeys([*paths, *own]))


def _candidates(path: Path, key: str) -> str:
    keys = datasets(path, min_dimensions=3, limit=20)
    return nearest(f"/{key.strip('/')}", keys) if keys else "the file holds no stack of frames"


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
