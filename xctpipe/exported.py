"""Volumes as TIFF slices or HDF5, as `export` leaves them and as other programs do: found and read back.

An export says what it holds in a record, `export.txt` beside the slices (a name that ImageJ skips when
it opens the folder) or `entry/xctpipe` in the HDF5 file. Without one, values are taken as they are.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile

from xctpipe.errors import BadRecipe, BadScan
from xctpipe.runfolder import read_json
from xctpipe.scan import FloatArray, Span
from xctpipe.stacks import Known, Stack

DATA_KEY = "entry/data/data"
"""Where the scripts of HEX look for a volume."""
RECORD_KEY = "entry/xctpipe"
RECORD_FILE = "export.txt"
HDF_SUFFIXES = frozenset({".hdf", ".h5", ".hdf5"})
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})


@dataclass(frozen=True)
class TiffStack(Stack):
    """Slices as TIFF files of one folder, in the order of their numbers."""

    files: tuple[Path, ...]
    scale: float
    offset: float

    def read(self, z: Span) -> FloatArray:
        """Slices [z0, z1) counted from the first: (z, y, x), float32."""
        out = np.empty((z[1] - z[0], *self.shape[1:]), np.float32)
        for image, path in zip(out, self.files[slice(*z)], strict=True):
            image[...] = _in_cm1(_image(path), self)
        return out


@dataclass(frozen=True)
class HdfStack(Stack):
    """Slices in one HDF5 dataset."""

    key: str
    scale: float
    offset: float

    def read(self, z: Span) -> FloatArray:
        """Slices [z0, z1) counted from the first: (z, y, x), float32."""
        with h5py.File(self.path, "r") as file:
            return _in_cm1(file[self.key][slice(*z)], self)


def _in_cm1(stored: Any, stack: TiffStack | HdfStack) -> FloatArray:
    value: FloatArray = np.asarray(stored).astype(np.float32)
    if (stack.scale, stack.offset) != (1.0, 0.0):
        # as volume.read does, so that an export of an integer volume reads back to the same bits
        value *= np.float32(stack.scale)
        value += np.float32(stack.offset)
    return value


def read_record(path: Path) -> dict[str, Any] | None:
    """What an export says of itself; None where there is no export of xctpipe."""
    if path.is_dir():
        return read_json(path / RECORD_FILE)
    try:
        with h5py.File(path, "r") as file:
            record = json.loads(file[RECORD_KEY][()])
    except (OSError, KeyError, ValueError, TypeError):
        return None
    return record if isinstance(record, dict) else None


def looks_exported(path: Path) -> bool:
    """Whether the path is an HDF5 file, or a folder with TIFF files."""
    if path.is_dir():
        return any(child.suffix.lower() in TIFF_SUFFIXES for child in path.iterdir())
    return path.is_file() and path.suffix.lower() in HDF_SUFFIXES


def open_exported(path: Path) -> Stack:
    """Slices of a TIFF folder or an HDF5 file; BadScan when they cannot be read as a volume."""
    return _tiff_stack(path) if path.is_dir() else _hdf_stack(path)


def _tiff_stack(folder: Path) -> TiffStack:
    files = [child for child in folder.iterdir() if child.suffix.lower() in TIFF_SUFFIXES]
    files.sort(key=lambda file: [int(digits) for digits in re.findall(r"\d+", file.name)] or [0])
    first = _image(files[0])
    if first.ndim != 2:
        raise BadScan(f"{files[0]}: {first.ndim} dimensions; one slice in a file was expected")
    shape = (len(files), first.shape[0], first.shape[1])
    common = _common(folder, shape=shape, dtype=first.dtype.name)
    return TiffStack(**common, files=tuple(files))


def _image(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        return np.asarray(tifffile.imread(path))
    except (OSError, ValueError, tifffile.TiffFileError) as err:
        raise BadScan(f"{path}: not a TIFF slice that can be read ({err})") from err


def _hdf_stack(path: Path) -> HdfStack:
    try:
        with h5py.File(path, "r") as file:
            found = file.get(DATA_KEY)
            if not isinstance(found, h5py.Dataset) or found.ndim != 3:
                raise BadRecipe(f"{path}: no volume at {DATA_KEY}, where an exported one is")
            shape = (int(found.shape[0]), int(found.shape[1]), int(found.shape[2]))
            dtype = str(found.dtype.name)
    except OSError as err:
        raise BadScan(f"{path}: cannot be read as HDF5 ({err})") from err
    return HdfStack(**_common(path, shape=shape, dtype=dtype), key=DATA_KEY)


def _common(path: Path, *, shape: tuple[int, int, int], dtype: str) -> dict[str, Any]:
    record = read_record(path) or {}
    if record.get("level"):
        raise BadRecipe(f"{path}: holds level {record['level']}; export level 0 to compare it")
    voxel_um = record.get("voxel_um")
    return {
        "scan": str(record.get("scan") or path.stem),
        "path": path,
        "shape": shape,
        "dtype": dtype,
        "pixel_um": voxel_um[0] if voxel_um else None,
        "first_row": record.get("first_row"),
        "known": known_of(record),
        "scale": record.get("scale", 1.0),
        "offset": record.get("offset", 0.0),
    }


def known_of(record: Mapping[str, Any]) -> Known:
    """What the record says of the volume that was exported."""
    known = record.get("known") or {}
    return Known(**{"settings": {}, **{name: known[name] for name in Known.__annotations__ if name in known}})
