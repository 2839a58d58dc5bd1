"""Frames and angles that a recipe names one by one: files, folders, globs, datasets in HDF5 files."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe.errors import BadScan
from xctpipe.formats.angles import match_angles, to_radians
from xctpipe.formats.base import RawOptions
from xctpipe.formats.frames import HdfFrames, open_frames
from xctpipe.formats.hdf5 import SUFFIXES, datasets, read_array
from xctpipe.formats.tiff_frames import TIFF_SUFFIXES, TiffFrames, natural, open_tiffs, tiffs_in
from xctpipe.scan import DoubleArray, Frames, RawArray, Span

Notes = tuple[str, ...]

_GLOB = re.compile(r"[*?\[]")
_TEXT = (".txt", ".csv", ".dat", ".tsv", ".tlt", ".rawtlt", "")


@dataclass(frozen=True)
class JoinedFrames:
    """Stacks of frames of one shape and type, one after the other."""

    parts: tuple[Frames, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns."""
        return sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers."""
        return self.parts[0].dtype

    @property
    def whole_frames(self) -> bool:
        """Whether reading a few rows costs decoding whole frames."""
        return any(getattr(part, "whole_frames", False) for part in self.parts)

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows [r0, r1) of frames [f0, f1) (all when absent)."""
        n, height, cols = self.shape
        r0, r1, _ = slice(*(rows or (None,))).indices(height)
        f0, f1, _ = slice(*(frames or (None,))).indices(n)
        out = np.empty((max(f1 - f0, 0), max(r1 - r0, 0), cols), self.dtype)
        at = 0
        for part in self.parts:
            a, b = max(f0 - at, 0), min(f1 - at, part.shape[0])
            if a < b:
                out[at + a - f0 : at + b - f0] = part.read((r0, r1), frames=(a, b))
            at += part.shape[0]
        return out


@dataclass(frozen=True)
class Source:
    """Frames that were named, the first file of each stack, and what is odd about them."""

    frames: Frames
    files: tuple[Path, ...]
    notes: Notes = field(default=())


def open_source(names: Sequence[str], *, role: str, folder: Path, options: RawOptions) -> Source:
    """Frames of the named files, folders, globs and datasets, in the order given.

    Parameters
    ----------
    names : relative to `folder`; within a name, files are ordered by name, numbers counted as numbers.
    role : the recipe's key, for messages: data, flats or darks.

    Raises
    ------
    BadScan
        When nothing has that name, or frames cannot be read or are not of one shape and type.
    """
    parts: list[Frames] = []
    notes: list[str] = []
    for name in names:
        text, key = split_key(name)
        paths = expand(text, role=role, folder=folder)
        for is_tiff, run in groupby(paths, key=lambda path: path.suffix.lower() in TIFF_SUFFIXES):
            if is_tiff:
                if key:
                    raise BadScan(f"raw.{role} = {name!r}: a key, but {text} is TIFF; leave out ':{key}'")
                stacks, more = open_tiffs(list(run))
                parts.extend(stacks)
                notes += more
                continue
            for path in run:
                frames, more = open_frames(path, key or _only_stack(path, role=role), options=options)
                parts.append(frames)
                notes += more
    first = parts[0]
    for part in parts[1:]:
        if (part.shape[1:], part.dtype) != (first.shape[1:], first.dtype):
            raise BadScan(
                f"raw.{role}: {_files(part)[0]} has frames of {_shape(part)}, {_files(first)[0]} of "
                f"{_shape(first)}; name frames of one camera only"
            )
    joined = first if len(parts) == 1 else JoinedFrames(tuple(parts))
    return Source(joined, _files(joined), tuple(notes))


def _shape(frames: Frames) -> str:
    return f"{frames.shape[1]} x {frames.shape[2]} {frames.dtype}"


def leaves(frames: Frames) -> Iterator[Frames]:
    """The stacks on disk behind frames that are joined, cropped or otherwise seen through something."""
    parts = getattr(frames, "parts", None) or [getattr(frames, "source", None)]
    if parts[0] is None:
        yield frames
        return
    for part in parts:
        yield from leaves(part)


def _files(frames: Frames) -> tuple[Path, ...]:
    """The HDF5 files, and the first TIFF file of each stack: a scan may have thousands."""
    found = [
        leaf.path if isinstance(leaf, HdfFrames) else next(leaf.paths)
        for leaf in leaves(frames)
        if isinstance(leaf, (HdfFrames, TiffFrames))
    ]
    return tuple(dict.fromkeys(found))


def split_key(name: str) -> tuple[str, str]:
    """File and key of "file.h5:/key"; the key is empty where there is none."""
    file, colon, key = name.rpartition(":/")
    if colon and file.lower().endswith(SUFFIXES):
        return file, f"/{key}"
    return name, ""


def expand(name: str, *, role: str, folder: Path) -> list[Path]:
    """The files that a file, a folder or a glob means; BadScan with the nearest names when there is none."""
    path = folder / Path(name).expanduser()
    try:
        if path.is_file():
            found = [path]
        elif path.is_dir():
            found = tiffs_in(path)
        else:
            found = [file for match in matching(path) for file in _files_at(match)]
    except (OSError, ValueError) as err:
        raise BadScan(f"raw.{role} = {name!r}: cannot be read: {err}") from err
    if not found:
        hint = "; of a folder TIFF files are taken, name HDF5 files by a glob" if path.is_dir() else ""
        raise BadScan(f"raw.{role} = {name!r}: {nothing_like(path)}{hint}")
    for file in found:
        if not file.name.lower().endswith((*TIFF_SUFFIXES, *SUFFIXES)):
            raise BadScan(
                f"raw.{role} = {name!r}: {file} is neither TIFF ({', '.join(TIFF_SUFFIXES)}) nor HDF5 "
                f"({', '.join(SUFFIXES)}); convert it, or narrow the glob"
            )
    return found


def matching(path: Path) -> list[Path]:
    """What fits a glob, hidden files left out, numbers counted as numbers."""
    if not _GLOB.search(str(path)):
        return [path] if path.exists() else []
    parts = path.parts
    fixed = next(i for i, part in enumerate(parts) if _GLOB.search(part))
    found = Path(*parts[:fixed]).glob(str(Path(*parts[fixed:])))
    return sorted((p for p in found if not p.name.startswith(".")), key=lambda p: natural(str(p)))


def _files_at(path: Path) -> list[Path]:
    return tiffs_in(path) if path.is_dir() else [path]


def nothing_like(path: Path) -> str:
    """Say that a name fits nothing, and what there is of a similar name."""
    if path.is_dir():
        return f"{path} is a folder, and none of its files fits; it holds {_listed(path)[0]}"
    parts = path.parts
    depth = next(i for i in range(len(parts) - 1, -1, -1) if Path(*parts[:i]).is_dir())
    folder, word = Path(*parts[:depth]), parts[depth]
    shown, names = _listed(folder)
    close = get_close_matches(_GLOB.sub("", word), names[:2000], n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    return f"nothing in {folder} fits {word!r}; {hint}it holds {shown}"


def _listed(folder: Path) -> tuple[str, list[str]]:
    names = sorted((p.name for p in folder.iterdir() if not p.name.startswith(".")), key=natural)
    more = f", ... ({len(names)} in all)" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "nothing") + more, names


def _only_stack(path: Path, *, role: str) -> str:
    keys = datasets(path, min_dimensions=3, limit=8)
    if len(keys) == 1:
        return keys[0]
    held = f"{len(keys)} stacks: {', '.join(keys)}" if keys else "no stack of frames"
    raise BadScan(f"raw.{role}: {path} holds {held}; name one as {path.name}:/key")


def open_angles(
    given: str | tuple[float, float], *, n_frames: int, folder: Path, options: RawOptions
) -> tuple[DoubleArray, tuple[Path, ...], Notes]:
    """Angles in radians, one per frame, the files they come from, and what was done to get there.

    Parameters
    ----------
    given : a file (text, .csv, .npy, "file.h5:/key"), or the angles of the first and of the last frame;
        a full turn that does not repeat its first view is [0, 360 - 360 / n_frames].

    Raises
    ------
    BadScan
        When the file is not there, holds something else than one list of numbers, or too few or many.
    """
    if not isinstance(given, str):
        first, last = given
        if first == last:
            raise BadScan(f"raw.angles = {list(given)}: the first and the last angle are equal")
        angles, notes = to_radians(np.linspace(first, last, n_frames), unit=options.angle_unit or "deg")
        return angles, (), notes
    text, key = split_key(given)
    path = folder / Path(text).expanduser()
    try:
        values, unit = _read_angles(path, key, options=options)
        angles, notes = to_radians(values, unit=options.angle_unit or unit, layout_unit="deg")
        matched, more = match_angles(n_frames, angles)
    except BadScan as err:
        raise BadScan(f"raw.angles = {given!r}: {err}") from err
    return matched, (path,), (*notes, *more)


def _read_angles(path: Path, key: str, *, options: RawOptions) -> tuple[RawArray, str]:
    suffix = path.suffix.lower()
    if not path.is_file():
        raise BadScan(nothing_like(path))
    if suffix in SUFFIXES:
        found = read_array(path, key, options=options) if key else None
        if found is None:
            known = _some(datasets(path))
            raise BadScan(f"no dataset {key!r} in {path}; write it as {path.name}:/key; known: {known}")
        return found
    if suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False), ""
        except (OSError, ValueError, EOFError) as err:
            raise BadScan(f"{path} is not a .npy file of numbers: {err}") from err
    if suffix not in _TEXT:
        raise BadScan(f"{path} is neither text (.txt, .csv), nor .npy, nor HDF5")
    try:
        return np.array(numbers_in(path.read_text(encoding="utf-8-sig"))), ""
    except (OSError, UnicodeDecodeError) as err:
        raise BadScan(f"{path} is not a text file: {err}") from err


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def numbers_in(text: str) -> list[float]:
    """Numbers of a text: one on each line, or all on one; a title line and # comments are skipped.

    BadScan names the first line that is neither.
    """
    lines = [(i, re.sub(r"#.*", "", line).strip()) for i, line in enumerate(text.splitlines(), start=1)]
    rows = [(i, _fields(line)) for i, line in lines if line]
    if rows and _float(rows[0][1][0]) is None and len(rows) > 1:
        rows = rows[1:]
    if len(rows) > 1:
        for i, fields in rows:
            if len(fields) > 1:
                raise BadScan(
                    f"line {i} has {len(fields)} values ({' '.join(fields[:4])}); one angle a line is "
                    "needed, with a decimal point"
                )
    values: list[float] = []
    for i, fields in rows:
        for word in fields:
            value = _float(word)
            if value is None:
                raise BadScan(f"line {i} is {word!r}, not a number")
            values.append(value)
    if not values:
        raise BadScan("holds no number")
    return values


def _fields(line: str) -> list[str]:
    separator = next((mark for mark in ",;\t" if mark in line), None)
    words = next(csv.reader([line], delimiter=separator)) if separator else line.split()
    return [word.strip() for word in words if word.strip()] or [line]


def _float(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
