"""What of a dataset is really on disk: chunks, sources of virtual datasets, external raw files."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xctpipe.errors import BadScan
from xctpipe.formats.base import RawOptions
from xctpipe.formats.hdf5 import open_hdf
from xctpipe.formats.links import check_inside, there

MOST_LEVELS = 8
MOST_SOURCES = 256
"""Sources opened to see whether the dataset they should hold is there; every source file is looked for."""

Axes = tuple[int, int, int]


@dataclass(frozen=True)
class _Source:
    path: Path
    key: str


def dataset_of(file: h5py.File, key: str) -> h5py.Dataset:
    """A dataset opened so that files it names by a relative path are looked for beside its own file."""
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    # HDF5 itself looks in the folder the program was started from
    holder = Path(file.filename)
    access.set_efile_prefix(os.fsencode(_prefix("HDF5_EXTFILE_PREFIX", holder) or holder.parent))
    prefix = _prefix("HDF5_VDS_PREFIX", holder)
    if prefix is not None:
        access.set_virtual_prefix(os.fsencode(prefix))
    return h5py.Dataset(h5py.h5d.open(file.id, key.encode(), access))


def check_stored(dataset: h5py.Dataset, holder: Path, *, options: RawOptions, level: int = 0) -> None:
    """BadScan when files that a virtual or external dataset needs are missing, which HDF5 reads as zeros."""
    if dataset.external:
        _check_external(dataset, holder, options=options)
    if not dataset.is_virtual:
        return
    where = f"{holder}: {dataset.name}"
    if level >= MOST_LEVELS:
        raise BadScan(f"{where}: more than {MOST_LEVELS} virtual datasets in a row; do they form a circle?")
    sources, missing, needed = _sources(dataset, holder)
    if missing:
        raise BadScan(f"{where} is virtual and needs {_listed(missing, needed)}; {_remedy(missing, holder)}")
    for path in dict.fromkeys(source.path for source in sources):
        check_inside(path, holder=holder, at=str(dataset.name), options=options)
    picked = np.unique(np.linspace(0, len(sources) - 1, min(len(sources), MOST_SOURCES)).astype(int))
    for source in [sources[i] for i in picked]:
        with open_hdf(source.path) as file:
            item = file.get(source.key)
            if not isinstance(item, h5py.Dataset):
                raise BadScan(f"{where} is virtual and needs {source.key}, which is not in {source.path}")
            check_stored(item, source.path, options=options, level=level + 1)


def _listed(missing: Sequence[str], needed: int) -> str:
    if len(missing) == 1:
        return f"{missing[0]}, which does not exist"
    shown = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
    return f"{needed} files, of which {len(missing)} do not exist: {shown}"


def _remedy(missing: Sequence[str], holder: Path) -> str:
    what = Path(missing[0]).name if len(missing) == 1 else "them"
    return f"put {what} where it says or beside {holder.name}, or set HDF5_VDS_PREFIX to the folder"


def _sources(dataset: h5py.Dataset, holder: Path) -> tuple[list[_Source], list[str], int]:
    """Sources found, names of files that are missing, and how many files are needed."""
    pairs = dict.fromkeys((source.file_name, source.dset_name) for source in dataset.virtual_sources())
    found: list[_Source] = []
    missing: list[str] = []
    names: set[str] = set()
    for name, key in pairs:
        for number, each in _block_names(name, holder):
            path = holder if each == "." else _source_file(each, holder)
            names.add(each)
            if path is None:
                missing.append(each)
            elif "%b" not in key or number == 0:
                found.append(_Source(path, key.replace("%b", "0").replace("%%", "%")))
    return found, list(dict.fromkeys(missing)), len(names)


def _block_names(name: str, holder: Path) -> list[tuple[int, str]]:
    """Names of the files that a printf-style name stands for: blocks from 0 to the last that exists."""
    if "%b" not in name:
        return [(0, name.replace("%%", "%"))]
    parts = [part.replace("%%", "%") for part in name.split("%b")]
    first = holder.parent / "0".join(parts)
    base = [part.replace("%%", "%") for part in Path(name).name.split("%b")]
    pattern = re.compile(r"(\d+)".join(re.escape(part) for part in base))
    try:
        beside = [child.name for child in first.parent.iterdir()]
    except OSError:
        beside = []
    numbers = [int(match[1]) for child in beside if (match := pattern.fullmatch(child)) and match.lastindex]
    return [(i, str(i).join(parts)) for i in range(max(numbers, default=0) + 1)]


def _source_file(name: str, holder: Path) -> Path | None:
    """Where HDF5 finds the source of a virtual dataset; the folder the program runs in does not count."""
    stated = Path(name)
    if stated.is_absolute():
        if there(stated):
            return stated
        stated = Path(stated.name)
    folders = [folder for folder in (_prefix("HDF5_VDS_PREFIX", holder), holder.parent) if folder is not None]
    return next((place / stated for place in folders if there(place / stated)), None)


def _prefix(variable: str, holder: Path) -> Path | None:
    """The folder that an environment variable of HDF5 names; one folder, lists are not understood."""
    text = os.environ.get(variable, "").replace("${ORIGIN}", str(holder.parent))
    return Path(text) if text else None


def _check_external(dataset: h5py.Dataset, holder: Path, *, options: RawOptions) -> None:
    folder = _prefix("HDF5_EXTFILE_PREFIX", holder) or holder.parent
    left = int(dataset.size) * int(dataset.dtype.itemsize)
    for name, offset, size in dataset.external:
        path = folder / name
        if not there(path):
            raise BadScan(
                f"{holder}: the numbers of {dataset.name} are in {name}, which does not exist; "
                f"put {Path(name).name} beside {holder.name}"
            )
        check_inside(path, holder=holder, at=str(dataset.name), options=options)
        wanted = min(int(size), left)
        have = path.stat().st_size - int(offset)
        if have < wanted:
            raise BadScan(
                f"{holder}: the numbers of {dataset.name} are in {name}, which is too short: "
                f"{max(have, 0)} of {wanted} bytes are there; copy it again"
            )
        left -= wanted


def unwritten(dataset: h5py.Dataset, *, axis: int = 0) -> NDArray[np.bool_]:
    """Which frames, counted along `axis`, were not written in whole and read as zeros: (frame,)."""
    n = int(dataset.shape[axis])
    if dataset.external:
        return np.zeros(n, dtype=bool)
    if dataset.is_virtual:
        return _unmapped(dataset, axis=axis)
    if dataset.chunks is None:
        return np.full(n, dataset.id.get_storage_size() == 0)
    grid = [-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    if dataset.id.get_num_chunks() == np.prod(grid):
        return np.zeros(n, dtype=bool)
    written = np.zeros(grid, dtype=bool)

    def mark(chunk: Any) -> None:
        written[tuple(at // size for at, size in zip(chunk.chunk_offset, dataset.chunks, strict=True))] = True

    dataset.id.chunk_iter(mark)
    whole = written.all(axis=tuple(i for i in range(len(grid)) if i != axis))
    return ~np.repeat(whole, dataset.chunks[axis])[:n]


def _unmapped(dataset: h5py.Dataset, *, axis: int) -> NDArray[np.bool_]:
    n = int(dataset.shape[axis])
    empty = np.ones(n, dtype=bool)
    for source in dataset.virtual_sources():
        if "%b" in source.file_name or "%b" in source.dset_name:
            return np.zeros(n, dtype=bool)
        first, last = source.vspace.get_select_bounds()
        empty[first[axis] : last[axis] + 1] = False
    return empty


def reads_whole_frames(dataset: h5py.Dataset, holder: Path, *, axis: int = 1, level: int = 0) -> bool:
    """Whether a few rows, along `axis`, cost the decompression of much more than those rows."""
    if dataset.is_virtual:
        sources, _, _ = _sources(dataset, holder)
        if not sources or level >= MOST_LEVELS:
            return False
        with open_hdf(sources[0].path) as file:
            item = file.get(sources[0].key)
            stack = isinstance(item, h5py.Dataset) and len(item.shape or ()) > axis
            return stack and reads_whole_frames(item, sources[0].path, axis=axis, level=level + 1)
    if dataset.chunks is None or dataset.id.get_create_plist().get_nfilters() == 0:
        return False
    return bool(dataset.chunks[axis] > max(1, dataset.shape[axis] // 8))
