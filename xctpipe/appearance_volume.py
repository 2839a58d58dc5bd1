"""The label image `appearance` of a volume: in which scan of the series a voxel was first part of a crack."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from xctpipe import volume
from xctpipe.blocks import Box, Place, Slices, in_this_process, slices_of
from xctpipe.drafts import drafted, replace_whole
from xctpipe.label_volume import Legend, create_label, listed_labels, repeated, tiles_of
from xctpipe.progress import progress
from xctpipe.series.appearance import MOST, coarser
from xctpipe.storage import storing

NAME = "appearance"

ReadNumbers = Callable[[Slices], NDArray[np.uint8]]
"""Makes part of the image on the level that was worked on; can be pickled for other processes."""


def write_appearance(
    path: Path,
    read: ReadNumbers,
    *,
    level: int,
    scans: Sequence[str],
    place: Place | None = None,
) -> None:
    """Write the image with all levels of the volume; an old one is replaced when all is written.

    Parameters
    ----------
    path : of the volume of the first scan.
    level : on which `read` works; finer ones repeat its voxels, coarser ones take the earliest.
    scans : names, in order of time: number n is the n-th of them.
    place : how work is placed; absent: threads of this process.
    """
    shapes = volume.level_shapes(volume.read_spec(path))
    order = [level, *range(level), *range(level + 1, len(shapes))]
    with drafted(path.with_name(f"{path.name}.{NAME}")) as draft:
        own = draft / NAME
        known = scans[:MOST]
        names = {0: "never", **dict(enumerate(known, start=1))}
        legend = Legend(names, early_to_late(len(known)))
        create_label(own, image=path, legend=legend, level=level, dtype="uint8", how="earliest")
        with progress(NAME, total=sum(len(tiles_of(shape)) for shape in shapes), unit="files") as bar:
            for each in order:
                make = _Made(own, each, level, read if each == level else None)
                for _ in (place or in_this_process())(make, tiles_of(shapes[each])):
                    bar.advance(1)
        _move_in(own, path / "labels", draft=draft)


def early_to_late(n: int) -> dict[int, tuple[int, int, int]]:
    """Colours of numbers 1 to n, dark blue over green to yellow: in order also for the colour-blind."""
    # five points of viridis
    known = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], float)
    at = np.linspace(0, len(known) - 1, max(n, 2))
    mixed = np.stack([np.interp(at, range(len(known)), known[:, k]) for k in range(3)], axis=1)
    return {k + 1: (round(r), round(g), round(b)) for k, (r, g, b) in enumerate(mixed[:n].tolist())}


@dataclass(frozen=True)
class _Made:
    """Task that writes one file of a level."""

    folder: Path
    level: int
    source: int
    """Level that was worked on."""
    read: ReadNumbers | None

    def __call__(self, tile: Box) -> None:
        array = zarr.open_array(str(self.folder / str(self.level)), mode="r+")
        with storing(self.folder):
            # one file is one tile: no two tasks write the same
            array[slices_of(tile)] = self._numbers(tile)

    def _numbers(self, tile: Box) -> NDArray[np.uint8]:
        if self.read is not None:
            return self.read(slices_of(tile))
        if self.level > self.source:
            finer = zarr.open_array(str(self.folder / str(self.level - 1)), mode="r")
            z, y, x = (slice(2 * a, min(2 * b, n)) for (a, b), n in zip(tile, finer.shape, strict=True))
            return coarser(np.asarray(finer[z, y, x], dtype=np.uint8))
        n = 2 ** (self.source - self.level)
        own = zarr.open_array(str(self.folder / str(self.source)), mode="r")
        numbers = np.asarray(own[tuple(slice(a // n, -(-b // n)) for a, b in tile)], dtype=np.uint8)
        return repeated(numbers, n)[tuple(slice(a % n, a % n + b - a) for a, b in tile)]


def _move_in(finished: Path, labels: Path, *, draft: Path) -> None:
    """Put the image beside the other labels; between the two moves they do not name it."""
    others = [name for name in listed_labels(labels.parent) if name != NAME]
    group = zarr.open_group(str(labels), mode="a", zarr_format=3)
    group.update_attributes({"ome": {"version": "0.5", "labels": others}})
    replaced = draft / "old"
    replaced.mkdir()
    replace_whole(finished, labels / NAME, draft=replaced)
    group.update_attributes({"ome": {"version": "0.5", "labels": [*others, NAME]}})
