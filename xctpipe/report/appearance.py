"""When each place of the pellet was first crack: by the tracking, else from the labels of all scans."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xctpipe.label_volume import label_attributes, listed_labels, read_labels
from xctpipe.report.place import Grid, Placed, grid_of
from xctpipe.report.sections import label_reader
from xctpipe.report.source import Entry, Run
from xctpipe.segment.codes import PHASES

NAME = "appearance"
_CRACKS = [PHASES["crack"], PHASES["crack_filled"]]
_MOST_VOXELS = 3e7
_MOST_VOXELS_OWN = 8e6
_MOST_PX = 1000


@dataclass(frozen=True, eq=False)
class Appearance:
    """The part of the first scan in which there ever was a crack."""

    numbers: NDArray[np.uint8]
    """(z, y, x): n where the n-th of `scans` is the first with a crack, 0 for never."""
    scans: tuple[Entry, ...]
    first_um: tuple[float, float, float]
    """Position of the first voxel: z, y, x."""
    voxel_um: float
    tracked: bool
    """Found by the tracking; else from labels, where a crack of one scan that is noise counts as well."""


def appearance_of(run: Run, places: Mapping[str, Placed]) -> Appearance | None:
    """What was found of the first appearance of cracks; None where no scan has labels."""
    labelled = tuple(entry for entry in run.shown if entry.labelled)
    if not labelled:
        return None
    for entry in run.shown:
        if entry.volume is not None and NAME in listed_labels(entry.volume):
            return _stored(run, entry.volume)
    return _from_labels(labelled, places)


def _stored(run: Run, path: Path) -> Appearance:
    grid = grid_of(path, most_px=_MOST_PX, most_voxels=_MOST_VOXELS)
    numbers = np.asarray(read_labels(path, NAME, level=grid.level), np.uint8)
    known = {entry.name: entry for entry in run.scans}
    names = {int(code): text for code, text in label_attributes(path, NAME).get("names", {}).items()}
    count = max([0, *names, int(numbers.max(initial=0))])
    counted = [known.get(names.get(number, "")) for number in range(1, count + 1)]
    # without names, numbers count the scans that were measured
    scans = tuple(each for each in counted if each) if None not in counted else run.measured[:count]
    return _cropped(np.where(numbers > len(scans), 0, numbers).astype(np.uint8), grid, scans, tracked=True)


def _from_labels(labelled: tuple[Entry, ...], places: Mapping[str, Placed]) -> Appearance:
    found: NDArray[np.uint8] | None = None
    own: Grid | None = None
    for number, entry in enumerate(labelled, start=1):
        if entry.volume is None:
            continue
        grid = grid_of(entry.volume, most_px=_MOST_PX, most_voxels=_MOST_VOXELS_OWN)
        own = own or grid
        found = np.zeros(own.shape, np.uint8) if found is None else found
        crack = np.isin(label_reader(entry.volume, grid)((slice(None),) * 3), _CRACKS)
        _add(found, own, crack, grid, places[entry.name], number)
    if found is None or own is None:
        raise ValueError("no scan has labels")
    return _cropped(found, own, labelled, tracked=False)


def _add(
    found: NDArray[np.uint8], own: Grid, crack: NDArray[np.bool_], grid: Grid, where: Placed, number: int
) -> None:
    """Write the number of a scan where there is a crack in it and none was before."""
    voxels = np.argwhere(crack)
    if not len(voxels):
        return
    here = own.voxels(where.rigid.inverse(grid.places(voxels)))
    low = np.clip(np.floor(here.min(axis=0)).astype(int) - 1, 0, None)
    high = np.minimum(np.ceil(here.max(axis=0)).astype(int) + 2, own.shape)
    y, x = (np.arange(a, b) for a, b in zip(low[1:], high[1:], strict=True))
    for z in range(low[0], high[0]):
        at = np.stack(np.meshgrid([z], y, x, indexing="ij"), axis=-1)[0]
        there = np.rint(grid.voxels(where.rigid(own.places(at)))).astype(int)
        inside = np.all((there >= 0) & (there < grid.shape), axis=-1)
        clipped = np.clip(there, 0, np.asarray(grid.shape) - 1)
        new = inside & crack[clipped[..., 0], clipped[..., 1], clipped[..., 2]]
        part = found[z, low[1] : high[1], low[2] : high[2]]
        part[new & (part == 0)] = number


def _cropped(
    numbers: NDArray[np.uint8], grid: Grid, scans: tuple[Entry, ...], *, tracked: bool
) -> Appearance:
    """Without the rows above and below all cracks."""
    there = np.flatnonzero(numbers.any(axis=(1, 2)))
    z0, z1 = (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 0)
    numbers = np.ascontiguousarray(numbers[z0:z1])
    at = grid.places(np.array([z0, 0, 0]))
    return Appearance(numbers, scans, (float(at[0]), float(at[1]), float(at[2])), grid.voxel_um, tracked)


def seen(found: Appearance) -> list[int]:
    """Numbers that occur."""
    return [int(n) for n in np.unique(found.numbers) if 0 < n <= len(found.scans)]


def colours(found: Appearance) -> dict[int, tuple[int, int, int]]:
    """A colour for each number that occurs, dark for the first, bright for the last."""
    from matplotlib import colormaps

    numbers = seen(found)
    places = np.linspace(0.0, 1.0, len(numbers)) if len(numbers) > 1 else np.array([0.3])
    table = np.rint(255 * colormaps["viridis"](places)).astype(int).tolist()
    return {number: (r, g, b) for number, (r, g, b, _) in zip(numbers, table, strict=False)}
