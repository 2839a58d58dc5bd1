"""A small valid copy of a raw scan in its own layout, for bug reports and tests."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe import formats
from xctpipe.drafts import check_room, drafted
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.formats.hdf5 import SUFFIXES
from xctpipe.progress import Bar, progress
from xctpipe.scan import CroppedFrames, DarkFlat, Frames, RawArray, Scan, Span

FEWEST_ANGLES = 3
FEWEST_COLUMNS = 3
ANGLE_TOLERANCE_RAD = 1e-5
"""Layouts may keep angles in float32."""

_BLOCK = 32


@dataclass(frozen=True)
class EveryFrame:
    """Every n-th frame of others, from the first; those between are never read."""

    source: Frames
    every: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns."""
        n, rows, cols = self.source.shape
        return -(-n // self.every), rows, cols

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers."""
        return self.source.dtype

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows [r0, r1) of the frames [f0, f1) that are kept (all when absent)."""
        n, height, cols = self.shape
        if self.every == 1:
            return self.source.read(rows, frames=frames)
        first, last, _ = slice(*(frames or (None,))).indices(n)
        r0, r1, _ = slice(*(rows or (None,))).indices(height)
        out = np.empty((max(last - first, 0), max(r1 - r0, 0), cols), self.dtype)
        for image, index in zip(out, range(first, last), strict=True):
            at = index * self.every
            image[...] = self.source.read(rows, frames=(at, at + 1))[0]
        return out


@dataclass(frozen=True)
class _Counted:
    """Frames that advance a bar as they are read."""

    source: Frames
    bar: Bar

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        block = self.source.read(rows, frames=frames)
        self.bar.advance(len(block))
        return block


@dataclass(frozen=True)
class Cut:
    """What to keep of a scan: rows, every n-th projection, columns (all when absent)."""

    rows: Span
    every: int
    columns: Span | None = None


@dataclass(frozen=True, eq=False)
class Shrunk:
    """The copy as it opens, its size, and what it lacks of the original."""

    path: Path
    copy: Scan
    copy_bytes: int
    original_bytes: int
    notes: tuple[str, ...]


def shrink(raw: Path, out: Path, *, cut: Cut) -> Shrunk:
    """Write a part of a raw scan in its own layout, with its darks and flats, and read it back to be sure.

    Parameters
    ----------
    raw : a scan's folder or file, or a folder that holds one scan.
    out : what to make: a folder, or a file where the layout is one HDF5 file and `out` has its suffix.

    Raises
    ------
    BadRecipe
        If the cut does not fit the scan, or `out` exists.
    BadScan
        If the scan cannot be opened or has no angles, or its copy does not read back as what was copied.
    UserError
        If the disk is full or may not be written.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise BadRecipe(f"{out} exists already and is not replaced; give another place for the copy")
    scan = formats.open_scan(raw)
    small, notes = cut_scan(scan, cut)
    needed = _bytes_of(small)
    check_room(out, needed_bytes=needed)
    with drafted(out, needed_bytes=needed) as draft:
        as_file = out.suffix.lower() in SUFFIXES and not out.exists()
        home = draft / "copy"
        made = _write(small, home / (out.stem if as_file else scan.name))
        copy = _reopened(made)
        _check_same(small, copy)
        notes = (*notes, *_lost(small, copy), *_changed_problems(scan, copy))
        as_file = as_file and made.is_file() and list(home.iterdir()) == [made]
        (made if as_file else home).rename(out)
    final = formats.open_scan(out if as_file else out / made.relative_to(home), look_at_frames=False)
    final = replace(final, problems=copy.problems)
    return Shrunk(final.path, final, _bytes_below(out), _bytes_of(scan), tuple(notes))


def cut_scan(scan: Scan, cut: Cut) -> tuple[Scan, tuple[str, ...]]:
    """The part of a scan, and what is to be said of it; BadRecipe when the scan has no such part."""
    n, height, width = scan.shape
    if not np.all(np.isfinite(scan.angles_rad)):
        raise BadScan(
            f"{scan.path}: its files hold no angles, and a copy cannot be written without; put them where "
            "the layout looks for them (`xctpipe inspect` says more), then shrink again"
        )
    columns = cut.columns or (0, width)
    for option, span, size in (("--rows", cut.rows, height), ("--columns", columns, width)):
        if span[1] > size:
            raise BadRecipe(f"{option} {span[0]}:{span[1]}: {scan.name} has {size}; give a part of 0:{size}")
    if columns[1] - columns[0] < FEWEST_COLUMNS:
        raise BadRecipe(f"--columns {columns[0]}:{columns[1]}: at least {FEWEST_COLUMNS} columns are needed")
    if cut.every < 1 or -(-n // cut.every) < FEWEST_ANGLES:
        raise BadRecipe(
            f"--every {cut.every}: of {n} projections at least {FEWEST_ANGLES} must be left; "
            f"1 to {max(1, (n - 1) // (FEWEST_ANGLES - 1))} are allowed"
        )
    sets, notes = _few_sets(scan.dark_flats)
    window = (cut.rows, columns)
    small = replace(
        scan,
        frames=EveryFrame(CroppedFrames(scan.frames, *window), cut.every),
        angles_rad=scan.angles_rad[:: cut.every],
        dark_flats=tuple(_cut_dark_flat(item, scan, window) for item in sets),
        problems=(),
    )
    return small, notes


def _few_sets(sets: tuple[DarkFlat, ...]) -> tuple[tuple[DarkFlat, ...], tuple[str, ...]]:
    """The first and the last set: a layout of one file has room for those before and those after."""
    if len(sets) <= 2:
        return sets, ()
    return (sets[0], sets[-1]), (f"of {len(sets)} sets of darks and flats the first and the last are kept",)


def _cut_dark_flat(item: DarkFlat, scan: Scan, window: tuple[Span, Span]) -> DarkFlat:
    def cropped(frames: Frames) -> Frames:
        # those of another size stay as they are: that is what is wrong with them
        return CroppedFrames(frames, *window) if frames.shape[1:] == scan.shape[1:] else frames

    return replace(item, flats=cropped(item.flats), darks=item.darks and cropped(item.darks))


def _bytes_of(scan: Scan) -> int:
    parts = [scan.frames, *(p for item in scan.dark_flats for p in (item.darks, item.flats) if p)]
    return sum(int(np.prod(part.shape)) * part.dtype.itemsize for part in parts)


def _bytes_below(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _write(small: Scan, path: Path) -> Path:
    path.parent.mkdir()
    with progress("shrink", total=small.shape[0], unit="frames") as bar:
        counted = replace(small, name=path.name, frames=_Counted(small.frames, bar))
        return formats.write_scan(path, counted, layout=small.layout)


def _reopened(path: Path) -> Scan:
    try:
        return formats.open_scan(path)
    except BadScan as err:
        raise BadScan(f"the copy cannot be opened, so none is left: {err}") from err


def _check_same(small: Scan, copy: Scan) -> None:
    """BadScan unless the copy holds the same angles and, bit for bit, the same frames."""
    if copy.angles_rad.shape != small.angles_rad.shape or not np.allclose(
        copy.angles_rad, small.angles_rad, rtol=0, atol=ANGLE_TOLERANCE_RAD
    ):
        raise _not_the_same("angles", small.layout)
    if len(copy.dark_flats) != len(small.dark_flats):
        raise _not_the_same(
            f"sets of darks and flats ({len(small.dark_flats)}, {len(copy.dark_flats)})", small.layout
        )
    pairs: list[tuple[str, Frames | None, Frames | None]] = [("projections", small.frames, copy.frames)]
    for ours, theirs in zip(small.dark_flats, copy.dark_flats, strict=True):
        pairs += [("flats", ours.flats, theirs.flats), ("darks", ours.darks, theirs.darks)]
    for what, original, again in pairs:
        if not _same_frames(original, again):
            raise _not_the_same(what, small.layout)


def _not_the_same(what: str, layout: str) -> BadScan:
    return BadScan(
        f"the copy opens with other {what} than were written in the layout {layout}, so none is left; "
        "please report this with what `xctpipe inspect` says of the original"
    )


def _same_frames(a: Frames | None, b: Frames | None) -> bool:
    if a is None or b is None:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    blocks = ((first, min(first + _BLOCK, a.shape[0])) for first in range(0, a.shape[0], _BLOCK))
    # bytes, so that what is not a number is the same as itself
    return all(a.read(frames=block).tobytes() == b.read(frames=block).tobytes() for block in blocks)


def _lost(small: Scan, copy: Scan) -> Iterator[str]:
    """What the layout has no place for."""
    if copy.layout != small.layout:
        yield f"the copy opens as {copy.layout}, the original as {small.layout}"
    for key, unit in (("energy_kev", "keV"), ("pixel_um", "um"), ("exposure_s", "s")):
        had, has = getattr(small, key), getattr(copy, key)
        if had is not None and (has is None or not np.isclose(had, has, rtol=1e-5)):
            yield f"{key} = {had:g} {unit} is not in the copy: {small.layout} has no place for it"
    if small.start_time is not None and copy.start_time is not None:
        moved_s = abs((copy.start_time - small.start_time).total_seconds())
        if moved_s > 1:
            yield f"the start time {small.start_time.isoformat()} is not in the copy"
    for ours, theirs in zip(small.dark_flats, copy.dark_flats, strict=True):
        if ours.time_s is not None and (theirs.time_s is None or abs(ours.time_s - theirs.time_s) > 1):
            yield f"the time of the darks and flats {ours.origin} is not in the copy"


def _changed_problems(scan: Scan, copy: Scan) -> Iterator[str]:
    """What is said of one and not of the other; numbers and names may differ."""
    of_copy = {_gist(problem.text) for problem in copy.problems}
    of_scan = {_gist(problem.text) for problem in scan.problems}
    for problem in scan.problems:
        if _gist(problem.text) not in of_copy:
            yield f"of the original, but not of the copy: {problem.text}"
    for problem in copy.problems:
        if _gist(problem.text) not in of_scan:
            yield f"of the copy, but not of the original: {problem.text}"


def _gist(text: str) -> str:
    words = [word for word in text.split() if not re.search(r"[\d/._]", word)]
    return " ".join(words)


def command_line(raw: Path, out: Path, cut: Cut) -> str:
    """The call that makes the copy again."""
    call = f"xctpipe shrink {shlex.quote(str(raw))} {shlex.quote(str(out))}"
    call += f" --rows {cut.rows[0]}:{cut.rows[1]} --every {cut.every}"
    return call if cut.columns is None else f"{call} --columns {cut.columns[0]}:{cut.columns[1]}"
