"""Maps seen along the axis: contact of each scan, and where cracks appeared when."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.interface import MAP
from xctpipe.label_picture import scale_bar
from xctpipe.label_volume import label_attributes
from xctpipe.report.appearance import Appearance, colours
from xctpipe.report.place import Grid, Placed, grid_at, grid_of, interface_um
from xctpipe.report.source import Entry, Run
from xctpipe.runfolder import scan_folder
from xctpipe.segment.codes import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTACT: dict[str, tuple[int, int, int]] = {
    "contact": COLOURS["nak"],
    "void": COLOURS["bubble"],
    "cannot be told": (204, 187, 68),
}
"""Names and colours of the numbers 1, 2, 3 of a contact map."""
MOST_PX = 400


@dataclass(frozen=True, eq=False)
class Map:
    """A picture along the axis: (row, column, 3), white beyond the view."""

    pixels: NDArray[np.uint8]
    pixel_um: float


def contact_maps(run: Run, places: Mapping[str, Placed]) -> dict[str, Map]:
    """Contact map of each scan that has one, all at the same place of the pellet."""
    if not run.shown or run.shown[0].volume is None:
        return {}
    grid = grid_of(run.shown[0].volume, most_px=MOST_PX)
    height = interface_um(run) or 0.0
    table = np.array([(255, 255, 255), *CONTACT.values()], np.uint8)
    found = {}
    for entry in run.shown:
        classes = _contact(run, entry, places[entry.name], grid, height)
        if classes is not None:
            found[entry.name] = Map(table[np.minimum(classes, len(table) - 1)], grid.voxel_um)
    return found


def _contact(run: Run, entry: Entry, where: Placed, grid: Grid, height_um: float) -> NDArray[np.uint8] | None:
    """Classes at the places of the first scan's columns."""
    path = scan_folder(run.folder, entry.name).root / MAP
    if entry.volume is None or not entry.labelled or not path.exists():
        return None
    classes = np.load(path)
    own = grid_at(entry.volume, level=int(label_attributes(entry.volume, "phases")["level"]))
    if classes.shape != own.shape[1:]:
        return None
    y, x = (grid.places(np.arange(n)[:, None] * np.ones(3))[:, i] for i, n in enumerate(grid.shape) if i)
    points = np.stack(np.meshgrid([height_um], y, x, indexing="ij"), axis=-1)[0]
    at = np.rint(own.voxels(where.rigid(points))).astype(int)[..., 1:]
    inside = np.all((at >= 0) & (at < own.shape[1:]), axis=-1)
    clipped = np.clip(at, 0, np.asarray(own.shape[1:]) - 1)
    return np.where(inside, classes[clipped[..., 0], clipped[..., 1]], 0).astype(np.uint8)


def propagation(found: Appearance) -> tuple[Map, Map] | None:
    """First appearance seen along the axis, and from the side (along y); None where there is no crack."""
    if not found.numbers.any():
        return None
    table = np.full((256, 3), 240, np.uint8)
    for number, rgb in colours(found).items():
        table[number] = rgb
    # 0 is later than all
    late = found.numbers - np.uint8(1)
    views = (late.min(axis=axis) + np.uint8(1) for axis in (0, 1))
    top, side = (Map(table[view], found.voxel_um) for view in views)
    return top, side


def draw_contact(run: Run, maps: Mapping[str, Map]) -> "Figure":
    """Contact maps of all scans, for papers."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown = [entry for entry in run.shown if entry.name in maps]
    columns = min(len(shown), 4)
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(7.4, lines * (7.4 / columns + 0.25) + 0.4), layout="constrained")
    every = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in every:
        axes.set_axis_off()
    for axes, entry in zip(every, shown, strict=False):
        axes.imshow(maps[entry.name].pixels, interpolation="nearest")
        axes.set_title(f"{entry.number}: {entry.name}", fontsize=7, pad=2, parse_math=False)
    scale_bar(every[0], maps[shown[0].name].pixel_um)
    handles = [
        Patch(facecolor=_unit(rgb), edgecolor="0.5", linewidth=0.4, label=n) for n, rgb in CONTACT.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, **_KEYS)
    return figure


def draw_propagation(found: Appearance, views: tuple[Map, Map]) -> "Figure":
    """The propagation map from above and from the side, for papers."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    wide = views[0].pixels.shape[1]
    ratios = [max(view.pixels.shape[0], 0.15 * wide) / wide for view in views]
    figure = Figure(figsize=(4.2, 4.2 * sum(ratios) + 1.0), layout="constrained")
    for axes, view, name in zip(
        figure.subplots(2, 1, height_ratios=ratios), views, ("along the axis", "from the side"), strict=True
    ):
        axes.imshow(view.pixels, interpolation="nearest")
        axes.set_title(name, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    scale_bar(figure.axes[0], views[0].pixel_um)
    handles = [
        Patch(facecolor=_unit(rgb), label=str(found.scans[n - 1].number)) for n, rgb in colours(found).items()
    ]
    figure.legend(
        handles=handles, title="first in scan", title_fontsize=7, loc="outside right upper", **_KEYS
    )
    return figure


_KEYS: dict[str, Any] = {"fontsize": 7, "frameon": False, "handlelength": 1.1, "columnspacing": 1.0}


def _unit(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    return rgb[0] / 255, rgb[1] / 255, rgb[2] / 255
