"""Volumes for other programs: TIFF slices, or HDF5 as the scripts of HEX write it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe import pyramid, slices, volume
from xctpipe.drafts import check_room
from xctpipe.errors import BadRecipe, nearest
from xctpipe.exported import read_record
from xctpipe.layout import level_shapes
from xctpipe.progress import progress
from xctpipe.runfolder import differences
from xctpipe.scan import Span
from xctpipe.slices import Export
from xctpipe.stacks import VolumeStack
from xctpipe.storage import storing

TARGETS = ("tiff", "hdf5")
DTYPES = ("uint8", "uint16", "float32")


@dataclass(frozen=True)
class Wish:
    """What to export.

    Parameters
    ----------
    to : `tiff` or `hdf5`.
    dtype : `uint8`, `uint16` or `float32`; absent: that of the volume.
    range_cm1 : values that become 0 and the largest integer; absent: that of an integer volume.
    level : of the volume, 0 is full resolution.
    rows : detector rows; absent: all.
    force : replace an export of other settings.

    Raises
    ------
    BadRecipe
        If a value is not allowed, or two contradict each other.
    """

    to: str
    dtype: str | None = None
    range_cm1: tuple[float, float] | None = None
    level: int = 0
    rows: Span | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.to not in TARGETS:
            raise BadRecipe(f"--to {self.to}: no such format; {nearest(self.to, TARGETS)}")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise BadRecipe(f"--dtype {self.dtype}: no such type; {nearest(self.dtype, DTYPES)}")


@dataclass(frozen=True)
class Exported:
    """What was written; `kept` when a finished export of the same was found."""

    export: Export
    clipped: int
    kept: bool = False


def plan(stacks: Sequence[VolumeStack], wish: Wish, *, out: Path | None = None) -> list[Export]:
    """What would be written where; nothing is touched.

    Parameters
    ----------
    out : folder for the exports; absent: `export/` in the run folder, or beside the volume.

    Raises
    ------
    BadRecipe
        If an integer type has no range, the level or rows are not in a volume, or something that is no
        such export is where one is to be written.
    """
    exports = [_plan_one(stack, wish, out) for stack in stacks]
    for each in exports:
        _check_target(each, force=wish.force)
    return exports


def _plan_one(stack: VolumeStack, wish: Wish, out: Path | None) -> Export:
    spec = stack.spec
    if not 0 <= wish.level < spec.n_levels:
        raise BadRecipe(f"--level {wish.level}: {stack.path} has levels 0 to {spec.n_levels - 1}")
    z = _slices(stack, wish)
    _, height, width = level_shapes(spec)[wish.level]
    dtype = wish.dtype or spec.dtype
    if wish.range_cm1 is not None and dtype == "float32":
        raise BadRecipe("--range is for integers: add --dtype uint8 or uint16, or leave the range out")
    scale, offset = _scale(stack, wish, dtype)
    level = f"_level{wish.level}" if wish.level else ""
    folder = out or stack.home / "export" / f"{wish.to}_{stack.kind}_{dtype}{level}"
    path = folder / (stack.scan if wish.to == "tiff" else f"{stack.scan}.hdf")
    shape = (z[1] - z[0], height, width)
    return Export(stack, path, wish.to, wish.level, z, shape, dtype, scale, offset)


def _slices(stack: VolumeStack, wish: Wish) -> Span:
    """Slices of the level that the rows wished for lie in."""
    spec = stack.spec
    first, last = spec.first_row, spec.first_row + spec.shape[0]
    a, b = wish.rows or (first, last)
    if a < first or b > last:
        raise BadRecipe(
            f"--rows {a}:{b}: {stack.scan} has the detector rows {first} to {last - 1}; "
            f"give a part of {first}:{last}"
        )
    factor = pyramid.level_factors(spec.shape, level=wish.level)[0]
    return (a - first) // factor, -(-(b - first) // factor)


def _scale(stack: VolumeStack, wish: Wish, dtype: str) -> tuple[float, float]:
    spec = stack.spec
    if dtype == "float32":
        return 1.0, 0.0
    largest = float(np.iinfo(dtype).max)
    if wish.range_cm1 is not None:
        low, high = wish.range_cm1
    elif spec.dtype == dtype:
        return spec.scale, spec.offset
    elif spec.dtype != "float32":
        low, high = spec.offset, spec.offset + spec.scale * float(np.iinfo(spec.dtype).max)
    else:
        low, high = suggested_range(stack)
        raise BadRecipe(
            f"--dtype {dtype} needs --range LOW:HIGH, the values in cm^-1 that become 0 and {largest:.0f}; "
            f"those of {stack.scan} lie about within --range {low:.4g}:{high:.4g}"
        )
    return (high - low) / largest, low


def suggested_range(stack: VolumeStack) -> tuple[float, float]:
    """A range in cm^-1 that holds nearly all values: what the run noted, else of a coarse slice."""
    if stack.known.suggested_cm1 is not None:
        return stack.known.suggested_cm1
    level = stack.spec.n_levels - 1
    middle = level_shapes(stack.spec)[level][0] // 2
    image = volume.read(stack.path, level=level, z=slice(middle, middle + 1))
    return float(np.nanmin(image)), float(np.nanmax(image))


def _check_target(export: Export, *, force: bool) -> None:
    path = export.path
    with storing(path):
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
    record = read_record(path)
    if record is None:  # may be anything, raw data too
        raise BadRecipe(f"{path} exists and is not an export of xctpipe; choose another place with --out")
    if force or _settings(record) == export.record():
        return
    lines = "; ".join(differences(_settings(record), export.record())[:6])
    raise BadRecipe(
        f"{path} holds another export ({lines}); replace it with --force, or choose another place with --out"
    )


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in {"clipped_voxels", "xctpipe"}}


def _is_there(export: Export) -> bool:
    """Whether a finished export of the same is there, with all its slices."""
    n_slices = len(list(export.path.glob("rec_*.tif"))) if export.to == "tiff" else export.shape[0]
    return n_slices == export.shape[0] and _settings(read_record(export.path) or {}) == export.record()


def write(exports: Sequence[Export], *, force: bool = False) -> Iterator[Exported]:
    """Write exports one after another, whole or not at all; those that are there already are kept.

    Parameters
    ----------
    force : write also those that are there already.

    Raises
    ------
    BadRecipe
        If the disk has no room for them.
    UserError
        If the disk is full or may not be written; finished exports are kept.
    """
    missing = [each for each in exports if force or not _is_there(each)]
    if missing:
        check_room(missing[0].path, needed_bytes=sum(each.needed_bytes for each in missing))
    with progress("export", total=sum(each.shape[0] for each in missing)) as bar:
        for each in exports:
            if each in missing:
                yield Exported(each, slices.write(each, bar))
            else:
                record = read_record(each.path) or {}
                yield Exported(each, int(record.get("clipped_voxels", 0)), kept=True)


def describe(done: Exported) -> Iterator[str]:
    """What was exported where, a line each."""
    export = done.export
    n, height, width = export.shape
    what = f"{n} slices of {height} x {width}, {export.dtype}"
    step = f", every {export.factors[0]}th" if export.factors[0] > 1 else ""
    kept = " (was there already)" if done.kept else ""
    yield f"{export.path}: {what}, detector rows {export.row(0)} to {export.row(n - 1)}{step}{kept}"
    if export.dtype == "float32":
        return
    low, high = export.offset, export.offset + export.scale * float(np.iinfo(export.dtype).max)
    yield f"  value in cm^-1 = {low:.9g} + number * {export.scale:.9g}, {low:.6g} to {high:.6g}"
    if done.clipped:
        share = 100 * done.clipped / math.prod(export.shape)
        yield f"  {done.clipped} voxels ({share:.3g} %) lie outside that range and are clipped; widen --range"
