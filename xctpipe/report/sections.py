"""The same two sections through every scan, greys and labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xctpipe import volume
from xctpipe.csvtables import Row
from xctpipe.label_picture import Section, legend_of, scale_bar, subject_of, tinted
from xctpipe.label_volume import read_labels
from xctpipe.report.place import Grid, Placed, Read, grid_of, interface_um, sample
from xctpipe.report.source import Entry, Run
from xctpipe.scan import DoubleArray
from xctpipe.segment.codes import COLOURS, KINDS, PHASES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PX = 800
_MANY = 12
"""With more scans than that pictures are half as wide, so that the page stays small."""
_GAMMA = 0.6
_LAYER_TINT, _OBJECT_TINT = 0.3, 0.85


@dataclass(frozen=True, eq=False)
class Cuts:
    """Sections of all scans through one place."""

    along: str
    """Axis along the columns of the vertical ones: x or y."""
    vertical: Mapping[str, Section]
    horizontal: Mapping[str, Section]
    top_cm1: float
    """Grey value drawn white, in all of them."""
    said: str
    """Where they lie, in words."""


def cuts_of(run: Run, places: Mapping[str, Placed]) -> Cuts | None:
    """Cut every scan that has a volume; None where none has."""
    if not run.shown:
        return None
    first = run.shown[0]
    most_px = MOST_PX if len(run.shown) <= _MANY else MOST_PX // 2
    grid = grid_of(_path(first), most_px=most_px)
    subject, middle = _middle(run, places, grid)
    made = {
        axis: {
            e.name: _cut(e, places[e.name], _plane(grid, middle, axis), grid.voxel_um, most_px=most_px)
            for e in run.shown
        }
        for axis in "xyz"
    }
    shown = {axis: sum(_found(cut) for cut in made[axis].values()) for axis in "xy"}
    along = "x" if shown["x"] >= shown["y"] else "y"
    return Cuts(along, made[along], made["z"], _top_cm1(made[along]), _said(run, subject, middle, along))


def _path(entry: Entry) -> Any:
    if entry.volume is None:
        raise ValueError(f"{entry.name} has no volume")
    return entry.volume


def _middle(run: Run, places: Mapping[str, Placed], grid: Grid) -> tuple[Row | None, DoubleArray]:
    """The largest crack of the series, or void, and where it lies in the first scan; else the axis."""
    there = [
        row for row in run.tables.get("objects", []) if row["scan"] in places and row.get("z_um") is not None
    ]
    subject = subject_of(there)
    if subject is not None:
        here = [float(subject[key]) for key in ("z_um", "y_um", "x_um")]
        return subject, places[subject["scan"]].rigid.inverse(here)
    height = interface_um(run)
    middle_um = float(grid.places(np.asarray(grid.shape) / 2)[0])
    return None, np.array([middle_um if height is None else height, 0.0, 0.0])


def _plane(grid: Grid, middle: DoubleArray, axis: str) -> DoubleArray:
    """Positions (row, column, 3) in the first scan: vertical along x or y, or horizontal."""
    z, y, x = (grid.places(np.arange(n)[:, None] * np.ones(3))[:, i] for i, n in enumerate(grid.shape))
    lines = {"x": (z, middle[1:2], x), "y": (z, y, middle[2:3]), "z": (middle[:1], y, x)}[axis]
    points = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1)
    return np.asarray(np.squeeze(points, axis={"x": 1, "y": 2, "z": 0}[axis]))


def _cut(entry: Entry, where: Placed, plane_um: DoubleArray, pixel_um: float, *, most_px: int) -> Section:
    path = _path(entry)
    own = grid_of(path, most_px=most_px)
    points = where.rigid(plane_um)

    def greys(box: tuple[slice, slice, slice]) -> NDArray[np.float32]:
        return volume.read(path, level=own.level, z=box[0], y=box[1], x=box[2])

    grey = sample(greys, own, points, order=1, beyond=0.0).astype(np.float32)
    phases = np.zeros(grey.shape, np.uint8)
    if entry.labelled:
        phases = sample(label_reader(path, own), own, points, order=0, beyond=0.0).astype(np.uint8)
    return Section(grey, phases, pixel_um)


def label_reader(path: Any, grid: Grid) -> Read:
    """Reads phases of a box of a level."""

    def read(box: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = read_labels(path, "phases", level=grid.level, z=box[0], y=box[1], x=box[2])
        return found

    return read


def _found(cut: Section) -> int:
    return int(
        np.isin(
            cut.phases, [PHASES[k] for k in ("crack", "crack_filled", "bubble", "interfacial_void")]
        ).sum()
    )


def _top_cm1(cuts: Mapping[str, Section]) -> float:
    """A third above the ceramic; where there is none, what few pixels are above."""
    solid = [cut.grey[cut.phases == PHASES["nasicon"]] for cut in cuts.values()]
    values = np.concatenate([part.ravel() for part in solid])
    if values.size:
        return 1.3 * float(np.median(values))
    every = np.concatenate([cut.grey.ravel() for cut in cuts.values()])
    return max(float(np.nanpercentile(every, 99.5)), 1e-6)


def _said(run: Run, subject: Row | None, middle: DoubleArray, along: str) -> str:
    height = interface_um(run)
    depth = "" if height is None else f", {abs(middle[0] - height):.0f} µm from the interface"
    what = "the axis of rotation"
    if subject is not None:
        what = f"the middle of the largest {_KINDS.get(str(subject['kind']), subject['kind'])} of the series"
    place = f"y = {middle[1]:.0f} µm, x = {middle[2]:.0f} µm".replace("-", "−")
    return f"The sections go through {what} ({place}{depth}); vertical ones run along {along}."


_KINDS = {"crack_filled": "filled crack", "interfacial_void": "void at the interface"}


def grey_pixels(cut: Section, *, top_cm1: float) -> NDArray[np.uint8]:
    """Greys as pictures have them, brightened at the dark end where bubbles are."""
    bright = np.clip(np.nan_to_num(cut.grey) / top_cm1, 0, 1) ** _GAMMA
    return np.asarray(np.rint(255 * bright), np.uint8)


def label_pixels(cut: Section) -> NDArray[np.uint8]:
    """Labels as a layer to lay over the greys: (row, column, 4), layers pale and objects strong."""
    table = np.zeros((256, 4), np.uint8)
    for name, rgb in COLOURS.items():
        share = _OBJECT_TINT if name in KINDS else _LAYER_TINT
        table[PHASES[name]] = (*rgb, round(255 * share))
    table[0] = 255  # white beyond the view
    return table[cut.phases]


def present(cuts: Cuts) -> list[str]:
    """Phases that are to be seen, in the order of their numbers."""
    every = [*cuts.vertical.values(), *cuts.horizontal.values()]
    codes = set().union(*(np.unique(cut.phases).tolist() for cut in every))
    return [name for name, code in PHASES.items() if code in codes and name in COLOURS]


def draw(run: Run, cuts: Cuts) -> "Figure":
    """The vertical sections with their labels, for papers."""
    from matplotlib.figure import Figure

    columns = min(len(run.shown), 4)
    lines = -(-len(run.shown) // columns)
    tall, wide = next(iter(cuts.vertical.values())).grey.shape
    cell = 7.4 / columns
    figure = Figure(figsize=(7.4, lines * (cell * tall / wide + 0.25) + 0.4), layout="constrained")
    every = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in every:
        axes.set_axis_off()
    for axes, entry in zip(every, run.shown, strict=False):
        axes.imshow(tinted(cuts.vertical[entry.name], top_cm1=cuts.top_cm1))
        axes.set_title(f"{entry.number}: {entry.name}", fontsize=7, pad=2, parse_math=False)
    scale_bar(every[0], next(iter(cuts.vertical.values())).pixel_um)
    legend_of(figure, list(cuts.vertical.values()))
    return figure
