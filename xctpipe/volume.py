"""Volumes on disk: OME-Zarr 0.5 on zarr v3, sharded, written slab by slab with all its levels.

No two slabs share a file, so slabs may be written in any order, by any number of threads and processes,
and again. Each file appears whole or not at all. A slab that was never written reads as zeros: whoever
writes keeps the record of what is done.
"""

import copy
import errno
import json
import math
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

from xctpipe import __version__, pyramid, shards
from xctpipe.errors import BadRecipe
from xctpipe.layout import VolumeSpec, estimate_bytes, grid, level_shapes
from xctpipe.scan import FloatArray
from xctpipe.slabs import SlabWriter, batch_rows, write_slab
from xctpipe.storage import storing

__all__ = [
    "SlabWriter",
    "VolumeSpec",
    "batch_rows",
    "create",
    "estimate_bytes",
    "level_shapes",
    "read",
    "read_attributes",
    "read_spec",
    "set_contrast",
    "update_attributes",
    "write_slab",
]


VALUE_UNIT = "cm^-1"
AXES = ("z", "y", "x")

_OWN = "xctpipe"
_RESERVED = frozenset(
    {"value_scale", "value_offset", "value_unit", "pixel_um", "first_row", "bin_px", "slab_rows", "keep_bits"}
)


def create(path: Path | str, spec: VolumeSpec, *, name: str, attributes: Mapping[str, Any]) -> None:
    """Write the metadata of an empty volume, whole or not at all; its slabs follow with `write_slab`.

    Parameters
    ----------
    path : folder to make, usually `*.ome.zarr`; its parents are made too.
    name : shown by viewers.
    attributes : provenance, anything JSON can hold; stored beside the volume's own under "xctpipe".

    Raises
    ------
    BadRecipe
        If something is there already.
    UserError
        If the disk is full or the folder may not be written.
    """
    path = Path(path)
    _check_attributes(attributes)
    if path.exists():
        raise _occupied(path)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with storing(path, needed_bytes=estimate_bytes(spec)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_metadata(draft, spec, name, attributes)
            _move_new(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _move_new(draft: Path, path: Path) -> None:
    try:
        draft.rename(path)
    except OSError as err:
        if err.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise _occupied(path) from err
        raise


def _occupied(path: Path) -> BadRecipe:
    return BadRecipe(f"{path} exists already and is not replaced; remove it or choose another folder")


def _write_metadata(folder: Path, spec: VolumeSpec, name: str, attributes: Mapping[str, Any]) -> None:
    own = {
        **attributes,
        "value_scale": spec.scale,
        "value_offset": spec.offset,
        "value_unit": VALUE_UNIT,
        "pixel_um": spec.pixel_um,
        "first_row": spec.first_row,
        "bin_px": spec.bin_px,
        "slab_rows": spec.slab_rows,
        "keep_bits": spec.keep_bits,
    }
    group = zarr.create_group(str(folder), attributes={"ome": _ome(spec, name), _OWN: own})
    for level, shape in enumerate(level_shapes(spec)):
        chunk, shard = grid(spec, level)
        group.create_array(
            str(level),
            shape=shape,
            dtype=spec.dtype,
            chunks=chunk,
            shards=shard,
            compressors=shards.compressor(),
            fill_value=0,
            dimension_names=AXES,
        )


def _ome(spec: VolumeSpec, name: str) -> dict[str, Any]:
    low, high = (0.0, 1.0) if spec.dtype == "float32" else (0.0, float(np.iinfo(spec.dtype).max))
    channel = {"label": f"attenuation ({VALUE_UNIT})", "color": "FFFFFF", "active": True}
    return {
        "version": "0.5",
        "_creator": {"name": "xctpipe", "version": __version__},
        "multiscales": [
            {
                "name": name,
                "axes": [{"name": axis, "type": "space", "unit": "micrometer"} for axis in AXES],
                "datasets": [
                    {"path": str(level), "coordinateTransformations": _transformations(spec, level)}
                    for level in range(spec.n_levels)
                ],
                "type": "mean",
            }
        ],
        "omero": {
            "name": name,
            "channels": [{**channel, "window": {"min": low, "max": high, "start": low, "end": high}}],
            "rdefs": {"model": "greyscale", "defaultZ": spec.shape[0] // 2},
        },
    }


def _transformations(spec: VolumeSpec, level: int) -> list[dict[str, Any]]:
    """Scale and translation of a level: voxel centres, so a block's centre is half a block from its edge.

    z counts from the centre of detector row 0, which binned rows begin before.
    """
    factors = pyramid.level_factors(spec.shape, level=level)
    first = (spec.first_row + (spec.bin_px - 1) / (2 * spec.bin_px), 0, 0)
    return [
        {"type": "scale", "scale": [f * spec.pixel_um for f in factors]},
        {
            "type": "translation",
            "translation": [
                (start + (f - 1) / 2) * spec.pixel_um for start, f in zip(first, factors, strict=True)
            ],
        },
    ]


def set_contrast(path: Path | str, low: float, high: float) -> None:
    """Set the grey values from black to white that viewers start with, in cm^-1.

    An empty range is widened to 1 cm^-1. ValueError if a limit is not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"contrast limits {low}, {high} are not finite")
    if not high > low:
        high = low + 1
    spec = read_spec(path)
    start, end = ((value - spec.offset) / spec.scale for value in (low, high))
    reach = (start, end)
    if spec.dtype != "float32":
        reach = (0.0, float(np.iinfo(spec.dtype).max))
    with storing(path):
        group = _open(path, mode="r+")
        ome = copy.deepcopy(group.attrs["ome"])
        ome["omero"]["channels"][0]["window"] = {
            "min": min(reach[0], start),
            "max": max(reach[1], end),
            "start": start,
            "end": end,
        }
        group.update_attributes({"ome": ome})


def update_attributes(path: Path | str, attributes: Mapping[str, Any]) -> None:
    """Add to the provenance of a volume, or replace parts of it; by one process at a time."""
    _check_attributes(attributes)
    with storing(path):
        group = _open(path, mode="r+")
        group.update_attributes({_OWN: {**group.attrs[_OWN], **attributes}})


def read_attributes(path: Path | str) -> dict[str, Any]:
    """Provenance of a volume, with the volume's own entries (`value_scale`, `value_unit`, ...)."""
    return dict(_open(path, mode="r").attrs[_OWN])


def _check_attributes(attributes: Mapping[str, Any]) -> None:
    reserved = sorted(_RESERVED.intersection(attributes))
    if reserved:
        raise ValueError(f"attributes {reserved} belong to the volume itself")
    json.dumps(dict(attributes), allow_nan=False)


def read_spec(path: Path | str) -> VolumeSpec:
    """How the volume at `path` is laid out; BadRecipe if there is none, or not one of ours."""
    group = _open(path, mode="r")
    own = group.attrs[_OWN]
    array = group["0"]
    return VolumeSpec(
        shape=array.shape,
        pixel_um=own["pixel_um"],
        first_row=own["first_row"],
        bin_px=own.get("bin_px", 1),
        dtype=array.dtype.name,
        scale=own["value_scale"],
        offset=own["value_offset"],
        slab_rows=own["slab_rows"],
        keep_bits=own["keep_bits"],
    )


_ALL = slice(None)


def read(
    path: Path | str, *, level: int = 0, z: slice = _ALL, y: slice = _ALL, x: slice = _ALL
) -> FloatArray:
    """Part of a level in cm^-1, (z, y, x) float32; slabs never written read as zeros.

    Raises
    ------
    BadRecipe
        If there is no volume at `path`, or it has no such level.
    """
    group = _open(path, mode="r")
    own = group.attrs[_OWN]
    if str(level) not in group:
        raise BadRecipe(f"{path} has no level {level}; it has {', '.join(sorted(group.array_keys()))}")
    stored = shards.read(Path(path) / str(level), (z, y, x))
    value = stored.astype(np.float32, copy=False)
    if stored.dtype == np.float32:
        return value
    value *= np.float32(own["value_scale"])
    value += np.float32(own["value_offset"])
    return value


def _open(path: Path | str, *, mode: Literal["r", "r+"]) -> Any:
    try:
        group = zarr.open_group(str(path), mode=mode, use_consolidated=False)
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError) as err:
        raise BadRecipe(f"{path}: no volume there ({err}); run the reconstruction first") from err
    if _OWN not in group.attrs:
        raise BadRecipe(f"{path} was not written by xctpipe: its attributes have no {_OWN!r}")
    return group
