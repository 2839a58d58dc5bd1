"""One volume as TIFF slices or as HDF5 that the scripts of HEX read: what is written, and how."""

import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

from xctpipe import __version__, pyramid, volume
from xctpipe.drafts import drafted, replace_whole
from xctpipe.exported import DATA_KEY, RECORD_FILE, RECORD_KEY
from xctpipe.machine import usable_memory_bytes
from xctpipe.progress import Bar
from xctpipe.pyramid import Shape
from xctpipe.scan import FloatArray, Span
from xctpipe.stacks import VolumeStack, chunk_rows

_MEMORY_FRAC = 0.2
_OVERHEAD_BYTES = 2000
"""Of a TIFF file, and of HDF5's own."""


@dataclass(frozen=True)
class Export:
    """One volume to be exported: to where, what part, and which numbers."""

    stack: VolumeStack
    path: Path
    to: str
    level: int
    z: Span
    """Slices of the level."""
    shape: Shape
    dtype: str
    scale: float
    offset: float
    """Value in cm^-1 = number * scale + offset."""

    @property
    def needed_bytes(self) -> int:
        """Bytes on disk, a little more than less."""
        files = self.shape[0] if self.to == "tiff" else 5
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize + files * _OVERHEAD_BYTES

    @property
    def factors(self) -> Shape:
        """Voxels of the volume per voxel of this export."""
        return pyramid.level_factors(self.stack.spec.shape, level=self.level)

    @property
    def voxel_um(self) -> tuple[float, float, float]:
        """Edges of a voxel along (z, y, x)."""
        z, y, x = (factor * self.stack.spec.pixel_um for factor in self.factors)
        return z, y, x

    def row(self, index: int) -> int:
        """Detector row of a slice, or the first of those it is the mean of."""
        return self.stack.spec.first_row + (self.z[0] + index) * self.factors[0]

    def record(self) -> dict[str, Any]:
        """What the export says of itself, and what tells that a finished one is the one wished for."""
        content = {
            "scan": self.stack.scan,
            "volume": self.stack.kind,
            "level": self.level,
            "shape": self.shape,
            "dtype": self.dtype,
            "scale": self.scale,
            "offset": self.offset,
            "unit": volume.VALUE_UNIT,
            "voxel_um": self.voxel_um,
            "first_row": self.row(0),
            "row_step": self.factors[0],
            "token": self.stack.token,
            "known": asdict(self.stack.known),
        }
        return json.loads(json.dumps(content, default=str))  # type: ignore[no-any-return]


def write(export: Export, bar: Bar) -> int:
    """Write an export whole or not at all, the bar one step a slice; how many voxels were clipped."""
    with drafted(export.path, needed_bytes=export.needed_bytes) as draft:
        made = draft / export.path.name
        clipped = (_write_tiffs if export.to == "tiff" else _write_hdf)(export, made, bar)
        replace_whole(made, export.path, draft=draft)
    return clipped


def _write_tiffs(export: Export, folder: Path, bar: Bar) -> int:
    folder.mkdir()
    clipped = index = 0
    for numbers, lost in _blocks(export):
        for image in numbers:
            (folder / f"rec_{export.row(index):05d}.tif").write_bytes(_tiff(export, image))
            index += 1
        clipped += lost
        bar.advance(len(numbers))
    (folder / RECORD_FILE).write_text(_record_text(export, clipped), encoding="utf-8")
    return clipped


def _tiff(export: Export, image: NDArray[Any]) -> bytes:
    """One slice as ImageJ writes it: voxel size in um, integers calibrated to cm^-1."""
    z_um, y_um, x_um = export.voxel_um
    text: dict[str, Any] = {"axes": "YX", "unit": "um", "spacing": z_um}
    if export.dtype != "float32":
        text |= {"cf": 0, "c0": export.offset, "c1": export.scale, "vunit": volume.VALUE_UNIT}
    # made in memory: a full disk then shows as a plain error of the system
    buffer = io.BytesIO()
    options: dict[str, Any] = {"resolution": (1 / x_um, 1 / y_um), "metadata": text}
    tifffile.imwrite(buffer, image, imagej=True, byteorder="<", **options)
    return buffer.getvalue()


def _write_hdf(export: Export, path: Path, bar: Bar) -> int:
    """Values go into the place that HDF5 reserved for them, past the library, which dies of a full disk."""
    with path.open("wb") as file:
        file.truncate(export.needed_bytes)  # says now what the system would not allow later
    place = _hdf_frame(export, path)
    clipped = 0
    with path.open("r+b", buffering=0) as file:
        file.seek(place)
        for numbers, lost in _blocks(export):
            rest = numbers.data.cast("B")
            while rest:
                rest = rest[file.write(rest) :]
            clipped += lost
            bar.advance(len(numbers))
    with h5py.File(path, "r+") as file:
        file[RECORD_KEY] = _record_text(export, clipped)
    return clipped


def _hdf_frame(export: Export, path: Path) -> int:
    """Write the file without its values; where in it they belong, in bytes."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        group = file.create_group(DATA_KEY.rpartition("/")[0])
        kind = h5py.h5t.py_create(np.dtype(export.dtype).newbyteorder("<"))
        space = h5py.h5s.create_simple(export.shape)
        dataset = h5py.Dataset(h5py.h5d.create(group.id, b"data", kind, space, creation))
        file["entry"].attrs["NX_class"] = "NXentry"
        group.attrs["NX_class"] = "NXdata"
        group.attrs["signal"] = "data"
        dataset.attrs.update(_hdf_attributes(export))
        return int(dataset.id.get_offset())


def _hdf_attributes(export: Export) -> dict[str, Any]:
    units = volume.VALUE_UNIT
    return {
        "long_name": f"linear attenuation ({units} = number * scale_factor + add_offset)",
        "units": units if export.dtype == "float32" else "1",
        "value_units": units,
        "scale_factor": export.scale,
        "add_offset": export.offset,
        "axes": "z,y,x",
        "element_size_um": np.array(export.voxel_um),  # the name that ilastik and Fiji read
        "voxel_size_units": "um",
        "first_row": export.row(0),
        "row_step": export.factors[0],
    }


def _record_text(export: Export, clipped: int) -> str:
    content = {**export.record(), "clipped_voxels": clipped, "xctpipe": __version__}
    return json.dumps(content, indent=1) + "\n"


def _blocks(export: Export) -> Iterator[tuple[NDArray[Any], int]]:
    """Slices as they are to be written and the voxels clipped, as many at once as memory allows."""
    stack = export.stack
    step = _rows_at_once(chunk_rows(stack.spec, level=export.level), export.shape)
    edges = [export.z[0], *range((export.z[0] // step + 1) * step, export.z[1], step), export.z[1]]
    for z0, z1 in pairwise(edges):
        values = volume.read(stack.path, level=export.level, z=slice(z0, z1))
        numbers, clipped = _numbers(export, values)
        yield np.ascontiguousarray(numbers, np.dtype(export.dtype).newbyteorder("<")), clipped


def _rows_at_once(chunk: int, shape: Shape) -> int:
    """Whole chunks where they fit, else equal parts of them: a chunk cut in two is decoded twice."""
    most = max(1, int(_MEMORY_FRAC * usable_memory_bytes()) // (8 * shape[1] * shape[2]))
    return -(-chunk // -(-chunk // most))


def _numbers(export: Export, values: FloatArray) -> tuple[NDArray[Any], int]:
    if export.dtype == "float32":
        return values, 0
    scale, offset = export.scale, export.offset
    dtype: Any = export.dtype
    numbers, clipped = pyramid.quantise(values, dtype=dtype, scale=scale, offset=offset)
    zero = np.zeros((1, 1, 1), np.float32)
    if pyramid.quantise(zero, dtype=dtype, scale=scale, offset=offset)[1]:
        # exact zeros are what lies outside the circle, which is no loss
        clipped -= values.size - int(np.count_nonzero(values))
    return numbers, clipped
