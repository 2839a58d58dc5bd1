"""A picture of what was found in a scan: sections through its largest crack or void, and the contact map."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xctpipe import volume
from xctpipe.blocks import Slices
from xctpipe.csvtables import Row, read_table
from xctpipe.ground import Ground
from xctpipe.interface import MAP, first_row_of
from xctpipe.label_volume import read_labels
from xctpipe.runfolder import write_bytes
from xctpipe.scan import FloatArray
from xctpipe.segment.codes import COLOURS, KINDS, PHASES
from xctpipe.segment.scene import INTERFACE
from xctpipe.stages import ScanWork

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE = "labels.png"
_SUBJECTS = (("crack", "crack_filled"), ("bubble", "interfacial_void"), ("pore",), ("chip", "inclusion"))
"""What the sections are laid through: the largest of the first of these groups that there is any of."""
_WIDEST_PX = 1400
_GAMMA = 0.6
"""NaK is a tenth of NASICON: equal steps of grey would hide a bubble in it."""
_TICKS = (0, 0.1, 0.3, 0.5, 1, 2, 3, 5, 10)
_SLAB = 1
"""Sections on each side that the greys are averaged over."""
_LAYER_TINT, _OBJECT_TINT = 0.35, 0.8
_WIDTH_IN = 7.1
_CONTACT = {
    "contact": COLOURS["nak"],
    "void": (0, 114, 178),
    "cannot be told": (204, 187, 68),
}
"""Names and colours of the numbers 1, 2, 3 of a contact map."""


@dataclass(frozen=True, eq=False)
class Section:
    """A cut through a volume: greys (row, column) in cm^-1, and the kind of each pixel; 0 beyond the view."""

    grey: FloatArray
    phases: NDArray[np.uint8]
    pixel_um: float


@dataclass(frozen=True, eq=False)
class Sections:
    """What a picture is made of."""

    title: str
    vertical: Section
    horizontal: Section
    along: str
    """Axis of the volume that the columns of the vertical section run along: "x" or "y"."""
    row: int
    """Row of the vertical section that the horizontal one is."""
    column: int
    """Row (along "x") or column of the horizontal section that the vertical one is."""
    top_cm1: float
    """Grey value drawn white."""
    contact: NDArray[np.uint8] | None
    contact_title: str
    contact_um: float


def save_picture(work: ScanWork, ground: Ground) -> Path:
    """Draw `labels.png` of a scan whose labels and tables are there."""
    path = work.folder / PICTURE
    content = io.BytesIO()
    draw(sections_of(work, ground)).savefig(content, format="png", dpi=200)
    write_bytes(path, content.getvalue())
    return path


def places(run_folder: Path, scans: Sequence[str]) -> list[str]:
    """Where report, tables and pictures of a run are, a line each; nothing for what is not there."""
    page = run_folder / "report.html"
    lines = [f"report: {page}"] if page.exists() else []
    tables = sorted(path.name for path in (run_folder / "tables").glob("*.csv"))
    if tables:
        lines.append(f"tables: {run_folder / 'tables'}: {', '.join(tables)}")
    pictures = [run_folder / "scans" / name / PICTURE for name in scans]
    there = [path for path in pictures if path.exists()]
    if len(there) == 1:
        lines.append(f"picture: {there[0]}")
    elif there:
        lines.append(f"pictures: {run_folder / 'scans'}/*/{PICTURE}: {len(there)}")
    return lines


def sections_of(work: ScanWork, ground: Ground) -> Sections:
    """Sections through the largest object of the most telling kind; without any, through the axis."""
    objects = [row for row in read_table(work.tables / "objects.csv") if row["scan"] == work.name]
    level = _level(ground)
    reader = _Reader(work.volume, ground, level, {int(row["object"]): str(row["kind"]) for row in objects})
    subject = subject_of(objects)
    z, y, x = reader.middle(subject)
    number = int(subject["object"]) if subject else 0
    cuts = [reader.section((None, y, None)), reader.section((None, None, x))]
    shown = [int((ids == number).sum()) for _, ids in cuts]
    along_x = not subject or shown[0] >= shown[1]
    scene = ground.scene
    contact, contact_title = _contact(work)
    return Sections(
        title=f"{work.name}: {_named(subject)}",
        vertical=cuts[0 if along_x else 1][0],
        horizontal=reader.section((z, None, None))[0],
        along="x" if along_x else "y",
        row=z,
        column=y if along_x else x,
        top_cm1=1.3 * max((each.mu_cm1 for each in (scene.solid, scene.liquid) if each), default=1.0),
        contact=contact,
        contact_title=contact_title,
        contact_um=scene.voxel_um,
    )


def subject_of(objects: Sequence[Row]) -> Row | None:
    """The object to show: the largest crack, else the largest void in NaK, else the largest of the rest."""
    for kinds in _SUBJECTS:
        found = [row for row in objects if row["kind"] in kinds]
        if found:
            return max(found, key=lambda row: (_size(row), -int(row["object"])))
    return None


def _size(row: Row) -> float:
    return float(row.get("volume_um3") or row.get("count_volume_um3") or 0.0)


def _named(subject: Row | None) -> str:
    if subject is None:
        return "no objects"
    kind, number = str(subject["kind"]).replace("_", " "), int(subject["object"])
    return f"{kind} {number}, {1e-9 * _size(subject):.3g} mm³"


def _level(ground: Ground) -> int:
    """The level that was worked on, or a coarser one that is no wider than a picture."""
    shapes = volume.level_shapes(volume.read_spec(ground.path))
    level = ground.level
    while max(shapes[level]) > _WIDEST_PX and level + 1 < len(shapes):
        level += 1
    return level


@dataclass(frozen=True, eq=False)
class _Reader:
    labels: Path
    ground: Ground
    level: int
    kinds: Mapping[int, str]

    @property
    def shape(self) -> tuple[int, int, int]:
        shapes = volume.level_shapes(volume.read_spec(self.ground.path))
        return shapes[self.level]

    @property
    def factor(self) -> int:
        return 1 << (self.level - self.ground.level)

    def middle(self, subject: Row | None) -> tuple[int, int, int]:
        """Voxel (z, y, x) that sections are laid through."""
        scene = self.ground.scene
        if subject is None:
            face = scene.surfaces.get(INTERFACE)
            height = scene.shape[0] / 2 if face is None else float(face.reference[0])
            place: list[float] = [height, *scene.axis_px]
        else:
            first = (first_row_of(self.ground), -scene.axis_px[0], -scene.axis_px[1])
            place = [
                float(subject[key]) / scene.voxel_um - start
                for key, start in zip(("z_um", "y_um", "x_um"), first, strict=True)
            ]
        z, y, x = (
            min(max(round((at + 0.5) / self.factor - 0.5), 0), n - 1)
            for at, n in zip(place, self.shape, strict=True)
        )
        return z, y, x

    def section(self, at: tuple[int | None, int | None, int | None]) -> tuple[Section, NDArray[np.int32]]:
        """The cut at one coordinate, and the numbers of the objects in it."""
        axis = next(i for i, place in enumerate(at) if place is not None)
        place = at[axis] or 0
        thin = self._slices(axis, place, place + 1)
        z, y, x = self._slices(axis, max(place - _SLAB, 0), min(place + _SLAB + 1, self.shape[axis]))
        grey = volume.read(self.ground.path, level=self.level, z=z, y=y, x=x).mean(axis=axis)
        phases, ids = (
            read_labels(self.labels, name, level=self.level, z=thin[0], y=thin[1], x=thin[2]).take(0, axis)
            for name in ("phases", "objects")
        )
        kinds = np.zeros(int(max([*self.kinds, int(ids.max())], default=0)) + 1, np.uint8)
        for number, kind in self.kinds.items():
            kinds[number] = PHASES[kind]
        # tables know more of an object than labels do: whether a crack is filled
        named = np.where(kinds[ids] > 0, kinds[ids], phases).astype(np.uint8)
        return Section(grey, named, self.ground.scene.voxel_um * self.factor), ids

    def _slices(self, axis: int, first: int, last: int) -> Slices:
        z, y, x = (slice(first, last) if i == axis else slice(0, n) for i, n in enumerate(self.shape))
        return z, y, x


def _contact(work: ScanWork) -> tuple[NDArray[np.uint8] | None, str]:
    path = work.folder / MAP
    rows = [row for row in read_table(work.tables / "interface.csv") if row["scan"] == work.name]
    if not rows or not path.exists():
        return None, ""
    share, low, high = (rows[0][f"contact_{key}frac"] for key in ("", "low_", "high_"))
    text = "" if share is None else f" {100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    return np.load(path), f"contact{text}"


def draw(shown: Sections) -> "Figure":
    """The picture: a section as imaged and with labels, a horizontal one, and the contact map."""
    from matplotlib.figure import Figure

    tall, wide = shown.vertical.grey.shape
    cell = 0.44 * _WIDTH_IN
    height = cell * (min(tall / wide, 1.6) + 1.0) + 1.6
    figure = Figure(figsize=(_WIDTH_IN, height), layout="constrained")
    axes = figure.subplots(2, 2, height_ratios=(min(tall / wide, 1.6), 1.0))
    figure.suptitle(shown.title, fontsize=9)
    _vertical_pair(axes[0, 0], axes[0, 1], shown)
    horizontal = shown.horizontal
    axes[1, 0].imshow(tinted(horizontal, top_cm1=shown.top_cm1))
    cut_line = axes[1, 0].axhline if shown.along == "x" else axes[1, 0].axvline
    cut_line(shown.column, **_CUT)
    _dress(axes[1, 0], "c", "horizontal section", ("x", "y"), horizontal.pixel_um)
    _contact_map(axes[1, 1], shown)
    legend_of(figure, (shown.vertical, horizontal))
    return figure


_CUT: dict[str, Any] = {"color": "black", "linewidth": 0.6, "linestyle": (0, (6, 4))}


def _vertical_pair(plain: "Axes", labelled: "Axes", shown: Sections) -> None:
    from matplotlib.colors import PowerNorm

    section = shown.vertical
    norm = PowerNorm(_GAMMA, vmin=0, vmax=shown.top_cm1, clip=True)
    image = plain.imshow(section.grey, cmap="gray", norm=norm)
    bar = plain.figure.colorbar(image, ax=plain, location="left", shrink=0.8, pad=0.02, aspect=30)
    bar.set_label("attenuation (cm$^{-1}$)", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    ticks = [tick for tick in _TICKS if tick < shown.top_cm1]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    _dress(plain, "a", "vertical section", (shown.along, "z"), section.pixel_um)
    labelled.imshow(tinted(section, top_cm1=shown.top_cm1))
    labelled.axhline(shown.row, **_CUT)
    _dress(labelled, "b", "the same, labelled", (shown.along, "z"), section.pixel_um)


def tinted(section: Section, *, top_cm1: float) -> FloatArray:
    """Greys under the colours of what they are: (row, column, 3), 0 to 1; white beyond the view."""
    grey = np.clip(np.nan_to_num(section.grey) / top_cm1, 0, 1) ** _GAMMA
    colours, share = np.ones((256, 3), np.float32), np.zeros(256, np.float32)
    for name, rgb in COLOURS.items():
        colours[PHASES[name]] = np.array(rgb) / 255
        share[PHASES[name]] = _OBJECT_TINT if name in KINDS else _LAYER_TINT
    share[0] = 1
    part = share[section.phases][..., None]
    out: FloatArray = (1 - part) * grey[..., None] + part * colours[section.phases]
    return out.astype(np.float32)


def _unit(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """A colour from 0 to 1."""
    return rgb[0] / 255, rgb[1] / 255, rgb[2] / 255


def _contact_map(axes: "Axes", shown: Sections) -> None:
    from matplotlib.patches import Patch

    if shown.contact is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "the interface is not in view", ha="center", fontsize=8, transform=axes.transAxes)
        return
    every = max(1, math.ceil(shown.contact.shape[1] / _WIDEST_PX))
    classes = shown.contact[::every, ::every]
    table = np.array([(255, 255, 255), *_CONTACT.values()], np.uint8)
    axes.imshow(table[np.minimum(classes, len(table) - 1)], interpolation="nearest")
    _dress(axes, "d", shown.contact_title, ("x", "y"), shown.contact_um * every)
    present = [Patch(facecolor=_unit(rgb), label=name) for name, rgb in _CONTACT.items()]
    axes.legend(handles=present, **_KEYS, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=3)


_KEYS: dict[str, Any] = {"fontsize": 7, "frameon": False, "handlelength": 1.1, "columnspacing": 1.0}


def legend_of(figure: "Figure", sections: Sequence[Section]) -> None:
    """Colours of what the sections show, in the order of the codes."""
    from matplotlib.patches import Patch

    present = set().union(*(np.unique(section.phases).tolist() for section in sections))
    names = [name for name, code in PHASES.items() if code in present and name in COLOURS]
    handles = [
        Patch(facecolor=_unit(COLOURS[name]), label=_SAID.get(name, name.replace("_", " "))) for name in names
    ]
    if handles:
        for handle in handles:
            handle.set_edgecolor("0.5")
            handle.set_linewidth(0.4)
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8), **_KEYS)


_SAID = {"nasicon": "NASICON", "nak": "NaK", "peek": "PEEK", "o_ring": "O-ring"}


def _dress(axes: "Axes", letter: str, title: str, names: tuple[str, str], pixel_um: float) -> None:
    """Letter, title, names of the axes and a scale bar, without ticks."""
    axes.set_title(letter, loc="left", fontsize=9, fontweight="bold", pad=3)
    axes.set_title(title, fontsize=8, pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(f"{names[0]} →", fontsize=7, loc="left", labelpad=2)
    axes.set_ylabel(f"← {names[1]}", fontsize=7, loc="top", labelpad=2)
    for side in axes.spines.values():
        side.set_linewidth(0.5)
    scale_bar(axes, pixel_um)


def scale_bar(axes: "Axes", pixel_um: float) -> None:
    """Draw a bar of a round length, in um, at the lower left of an image."""
    from matplotlib.patheffects import withStroke

    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    target = 0.3 * (right - left) * pixel_um
    power = 10.0 ** math.floor(math.log10(target))
    length = max(step * power for step in (1, 2, 5) if step * power <= target)
    x0, y0 = left + 0.05 * (right - left), bottom + 0.05 * (top - bottom)
    # outlined, to be seen on bright ceramic and on dark liquid
    axes.plot([x0, x0 + length / pixel_um], [y0, y0], color="white", linewidth=3.6, solid_capstyle="butt")
    axes.plot([x0, x0 + length / pixel_um], [y0, y0], color="black", linewidth=2.0, solid_capstyle="butt")
    edge = [withStroke(linewidth=1.8, foreground="white")]
    where = (x0, y0 + 0.02 * (top - bottom))
    axes.text(*where, f"{length:g} µm", color="black", fontsize=7, path_effects=edge, va="bottom")
