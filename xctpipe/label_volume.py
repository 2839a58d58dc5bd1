"""Labels inside a volume: OME-Zarr 0.5 label images on the grid of the image, with all its levels.

`phases` says what each voxel is, `objects` which object it belongs to. They are written file by file, each
by one writer, beside the volume, and moved to their place when they are whole.
"""

import colorsys
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from xctpipe import __version__, shards, volume
from xctpipe.blocks import Box, Place, Shape, Slices, in_this_process, slices_of
from xctpipe.drafts import drafted, replace_whole
from xctpipe.errors import BadRecipe
from xctpipe.progress import progress
from xctpipe.segment.coarser import coarser
from xctpipe.storage import storing

Phases = NDArray[np.uint8]
Ids = NDArray[np.int32]
ReadLabels = Callable[[Slices], tuple[Phases, Ids]]
"""Reads phases and objects of part of the grid that was worked on; can be pickled for other processes."""

NAMES = ("phases", "objects")
_DTYPES = {"phases": "uint8", "objects": "int32"}

_CHUNK_EDGE = 64
_SHARD_EDGE = 512


@dataclass(frozen=True)
class Legend:
    """What the numbers of a label image mean."""

    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    """Red, green and blue, 0 to 255; numbers without one get one of some hue, 0 none."""
    properties: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """More about each number, as JSON can hold it; viewers show it in a table."""


@dataclass(frozen=True)
class LabelSource:
    """Labels that were made on some level of a volume."""

    read: ReadLabels
    level: int
    """Finer levels repeat its voxels."""
    priority: tuple[int, ...]
    """Phases that win a voxel of a coarser level if they touch it, the first most; the rest by majority."""
    legends: Mapping[str, Legend] = field(default_factory=dict)
    """Of `phases` and `objects`."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Provenance, anything JSON can hold."""


def write_labels(path: Path | str, source: LabelSource, *, place: Place | None = None) -> None:
    """Write `labels/phases` and `labels/objects` of a volume; old ones are replaced when all is written.

    Parameters
    ----------
    path : of the volume.
    place : how work is placed; absent: threads of this process.

    Raises
    ------
    BadRecipe
        If there is no volume, or no such level.
    UserError
        If the disk is full or may not be written; old labels are kept then.
    """
    path = Path(path)
    shapes = volume.level_shapes(volume.read_spec(path))
    if not 0 <= source.level < len(shapes):
        raise BadRecipe(f"{path} has no level {source.level}; it has 0 to {len(shapes) - 1}")
    with drafted(path.with_name(f"{path.name}.labels")) as draft:
        for name in NAMES:
            legend, own = source.legends.get(name, Legend()), source.attributes
            spec = {"dtype": _DTYPES[name], "how": "priority maximum"}
            create_label(draft / name, image=path, legend=legend, level=source.level, attributes=own, **spec)
        with progress("labels", total=sum(len(tiles_of(shape)) for shape in shapes), unit="files") as bar:
            for level, shape in enumerate(shapes):
                task = _task(draft, source, shapes, level)
                for _ in (place or in_this_process())(task, tiles_of(shape)):
                    bar.advance(1)
        _move_in(draft, path / "labels")


def _task(draft: Path, source: LabelSource, shapes: Sequence[Shape], level: int) -> "_Level":
    make: _Repeated | _Coarsened = _Repeated(source.read, 2 ** max(0, source.level - level))
    if level > source.level:
        make = _Coarsened(draft, level - 1, shapes[level - 1], source.priority)
    return _Level(draft, level, shapes[level], make)


def _move_in(draft: Path, labels: Path) -> None:
    """Replace the labels; between the two moves the group names neither of them."""
    old = zarr.open_group(str(labels), mode="a", zarr_format=3).attrs.asdict().get("ome", {})
    others = [name for name in old.get("labels", []) if name not in NAMES]
    _list(labels, others)
    for name in NAMES:
        replaced = draft / f"old {name}"
        replaced.mkdir()
        replace_whole(draft / name, labels / name, draft=replaced)
    _list(labels, [*NAMES, *others])


def _list(labels: Path, names: Sequence[str]) -> None:
    group = zarr.open_group(str(labels), mode="r+", use_consolidated=False)
    group.update_attributes({"ome": {"version": "0.5", "labels": list(names)}})


def create_label(
    folder: Path,
    *,
    image: Path,
    legend: Legend,
    level: int,
    dtype: str,
    how: str,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Metadata of the label image of a folder's name, worked on at this level, and its empty arrays.

    `how` tells readers of the image how its coarser levels are made of finer ones.
    """
    spec = volume.read_spec(image)
    ome = zarr.open_group(str(image), mode="r", use_consolidated=False).attrs["ome"]
    whole = {
        "ome": {
            "version": "0.5",
            "_creator": {"name": "xctpipe", "version": __version__},
            "multiscales": [{**ome["multiscales"][0], "name": folder.name, "type": how}],
            "image-label": image_label(legend),
        },
        "xctpipe": {
            **(attributes or {}),
            "level": level,
            "pixel_um": spec.pixel_um,
            "names": {str(code): text for code, text in legend.names.items()},
        },
    }
    json.dumps(whole, allow_nan=False)
    group = zarr.create_group(str(folder), attributes=whole)
    for number, shape in enumerate(volume.level_shapes(spec)):
        group.create_array(
            str(number),
            shape=shape,
            dtype=dtype,
            chunks=(_CHUNK_EDGE,) * 3,
            shards=_shard(shape),
            compressors=shards.compressor(),
            fill_value=0,
            dimension_names=volume.AXES,
        )


def image_label(legend: Legend) -> dict[str, Any]:
    """Colours and properties as metadata, both for the same numbers, without which readers refuse them."""
    codes = sorted({*legend.names, *legend.properties, *legend.colours})
    names = {code: {"name": name} for code, name in legend.names.items()}
    return {
        "source": {"image": "../../"},
        "colors": [{"label-value": code, "rgba": _rgba(code, legend.colours)} for code in codes],
        "properties": [
            {"label-value": code, **names.get(code, {}), **legend.properties.get(code, {})} for code in codes
        ],
    }


def _rgba(code: int, given: Mapping[int, tuple[int, int, int]]) -> list[int]:
    """The given colour; else 0 is clear, and hues of neighbouring numbers are the golden ratio apart."""
    if code == 0 and code not in given:
        return [0, 0, 0, 0]
    hue = code * 0.618033988749895 % 1
    rgb = given.get(code) or [round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.7, 0.95)]
    return [*rgb, 255]


def _shard(shape: Shape) -> Shape:
    """One chunk high, and along y and x the fewest equal parts of whole chunks below the limit."""
    y, x = (-(-n // (-(-n // _SHARD_EDGE) * _CHUNK_EDGE)) * _CHUNK_EDGE for n in shape[1:])
    return _CHUNK_EDGE, y, x


def tiles_of(shape: Shape) -> list[Box]:
    """The part of a level in each of its files."""
    spans = [
        [(a, min(a + edge, n)) for a in range(0, n, edge)]
        for edge, n in zip(_shard(shape), shape, strict=True)
    ]
    return [(z, y, x) for z, y, x in itertools.product(*spans)]


@dataclass(frozen=True)
class _Level:
    """Task that writes one file of a level of both label images."""

    draft: Path
    level: int
    shape: Shape
    make: "_Repeated | _Coarsened"

    def __call__(self, tile: Box) -> None:
        z, (y0, y1), (x0, x1) = tile
        shard = _shard(self.shape)
        rows: dict[str, list[list[shards.Chunk]]] = {name: [] for name in NAMES}
        for y in range(y0, y1, _CHUNK_EDGE):
            phases, objects = self.make((z, (y, min(y + _CHUNK_EDGE, y1)), (x0, x1)))
            rows["phases"].append(_encoded(phases.astype(np.uint8, copy=False)))
            rows["objects"].append(_encoded(objects.astype(np.int32, copy=False)))
        place = [str(a // n) for (a, _), n in zip(tile, shard, strict=True)]
        grid = (shard[1] // _CHUNK_EDGE, shard[2] // _CHUNK_EDGE)
        for name in NAMES:
            file = (self.draft / name / str(self.level) / "c").joinpath(*place)
            with storing(file):
                shards.write_shard(file, rows=rows[name], grid=grid)


def _encoded(row: NDArray[Any]) -> list[shards.Chunk]:
    """A row of chunks, filled with 0 beyond the volume."""
    room = np.zeros((_CHUNK_EDGE,) * 3, row.dtype)
    starts = range(0, row.shape[2], _CHUNK_EDGE)
    return [shards.encode_part(row[:, :, x : x + _CHUNK_EDGE], room) for x in starts]


@dataclass(frozen=True)
class _Repeated:
    """Labels of the level that was worked on, each voxel as many times as fits."""

    read: ReadLabels
    times: int

    def __call__(self, box: Box) -> tuple[Phases, Ids]:
        n = self.times
        phases, objects = self.read(slices_of(tuple((a // n, -(-b // n)) for a, b in box)))  # type: ignore[arg-type]
        part = tuple(slice(a % n, a % n + b - a) for a, b in box)
        return repeated(phases, n)[part], repeated(objects, n)[part]


def repeated(labels: NDArray[Any], times: int) -> NDArray[Any]:
    """Each voxel so many times along each axis."""
    if times == 1:
        return labels
    for axis in range(3):
        labels = np.repeat(labels, times, axis=axis)
    return labels


@dataclass(frozen=True)
class _Coarsened:
    """Labels of the next finer level, two voxels along each axis made one."""

    draft: Path
    level: int
    shape: Shape
    priority: tuple[int, ...]

    def __call__(self, box: Box) -> tuple[Phases, Ids]:
        where = slices_of(tuple((2 * a, min(2 * b, n)) for (a, b), n in zip(box, self.shape, strict=True)))  # type: ignore[arg-type]
        phases, objects = (shards.read(self.draft / name / str(self.level), where) for name in NAMES)
        return coarser(phases, objects, priority=self.priority)


_ALL = slice(None)


def read_labels(
    path: Path | str, name: str, *, level: int = 0, z: slice = _ALL, y: slice = _ALL, x: slice = _ALL
) -> NDArray[Any]:
    """Part of a level of a label image of a volume, (z, y, x): `phases` uint8, `objects` int32.

    Raises
    ------
    BadRecipe
        If the volume has no such labels, or they have no such level.
    """
    group = _open(path, name)
    if str(level) not in group:
        raise BadRecipe(
            f"{path}: labels {name} have no level {level}; {', '.join(sorted(group.array_keys()))}"
        )
    return shards.read(Path(path) / "labels" / name / str(level), (z, y, x))


def read_legend(path: Path | str, name: str) -> Legend:
    """What the numbers of a label image mean."""
    known = _open(path, name).attrs["ome"]["image-label"]
    names, properties = {}, {}
    for entry in known.get("properties", []):
        code = entry["label-value"]
        if "name" in entry:
            names[code] = entry["name"]
        rest = {key: value for key, value in entry.items() if key not in {"label-value", "name"}}
        if rest:
            properties[code] = rest
    shown = [entry for entry in known.get("colors", []) if entry["rgba"][3]]
    return Legend(names, {entry["label-value"]: tuple(entry["rgba"][:3]) for entry in shown}, properties)


def label_attributes(path: Path | str, name: str) -> dict[str, Any]:
    """Provenance of a label image, with the `level` it was made on."""
    return dict(_open(path, name).attrs["xctpipe"])


def has_labels(path: Path | str) -> bool:
    """Whether the volume has whole labels of ours."""
    return set(NAMES) <= set(listed_labels(path))


def listed_labels(path: Path | str) -> tuple[str, ...]:
    """Names of the label images of a volume, those that others put there among them."""
    try:
        group = zarr.open_group(str(Path(path) / "labels"), mode="r", use_consolidated=False)
        return tuple(group.attrs["ome"]["labels"])
    except (FileNotFoundError, KeyError, ValueError):
        return ()


def _open(path: Path | str, name: str) -> Any:
    if name not in listed_labels(path):
        raise BadRecipe(f"{path}: no labels {name!r} there; run the stage segment first")
    return zarr.open_group(str(Path(path) / "labels" / name), mode="r", use_consolidated=False)
