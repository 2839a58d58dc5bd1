"""Labels and measures of a box of a reconstructed scan, with one number of the recipe swept."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.errors import BadRecipe
from xctpipe.ground import Ground
from xctpipe.interface import contact_of
from xctpipe.label_picture import Section, legend_of, scale_bar, tinted
from xctpipe.measure.fill import settled
from xctpipe.measure.regions import Patch, Region, inventory_of
from xctpipe.measure.registry import gather_block, merge, table_of
from xctpipe.measuring import context_of
from xctpipe.passes import Passes, thresholds_of
from xctpipe.recipe import Recipe, with_parameter
from xctpipe.reconstructed import ground_of, work_on
from xctpipe.runfolder import write_table
from xctpipe.segment.codes import KINDS
from xctpipe.segment.scene import INTERFACE
from xctpipe.segment.view import Box
from xctpipe.segmentation import find_labels
from xctpipe.stages import ScanWork
from xctpipe.storage import storing
from xctpipe.try_box import Part, check_box, part_of, usual_box, whole_of

log = logging.getLogger(__name__)

SECTIONS = ("segment", "measure")
"""Tables of the recipe whose numbers are swept here."""
MOST_VALUES = 24


@dataclass(frozen=True, eq=False)
class Tried:
    """What each value finds in the box."""

    key: str
    values: tuple[float, ...]
    scan: str
    box: Box
    chosen_by: str
    """How the box was chosen; empty where it was given."""
    rows: tuple[dict[str, Any], ...]
    """One for each value and kind of object, and one of kind `contact` where the interface is in the box."""
    sections: tuple[Section, ...]
    """The same section, labelled with each value."""
    place: str
    """Where that section is."""
    top_cm1: float
    notes: tuple[str, ...] = ()

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Head and rows to print."""
        head = ("value", "what", "number", "volume (um3)", "low", "high")
        return head, [_printed(row) for row in self.rows]

    def lines(self) -> list[str]:
        """What to say beside the table."""
        where = ",".join(f"{a}:{b}" for a, b in self.box)
        how = f", {self.chosen_by}" if self.chosen_by else ""
        return [
            f"{self.scan}: box --box {where} (z, y, x in voxels of the level worked on{how})",
            "volumes are sums over objects; low and high are sums of theirs; contact is a share",
            *self.notes,
        ]


def _printed(row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (row["volume_um3"], row["low"], row["high"])
    return (
        f"{row['value']:.10g}",
        str(row["kind"]).replace("_", " "),
        str(row["number"]),
        *("" if each is None else f"{each:.4g}" for each in numbers),
    )


COLUMNS = ("value", "kind", "number", "volume_um3", "low", "high")


def try_labels(
    recipe: Recipe, *, key: str, values: Sequence[float], scan: str | None, box: Box | None
) -> Tried:
    """Label and measure a box of a reconstructed scan for each value of one number of the recipe.

    Raises
    ------
    BadScan
        If the scan has no volume yet.
    BadRecipe
        If the key or a value is none, or the box does not fit.
    """
    if len(values) > MOST_VALUES:
        raise BadRecipe(f"--sweep {key}: {len(values)} values; {MOST_VALUES} at most where each is a run")
    recipes = [with_parameter(recipe, key, value) for value in values]
    with tempfile.TemporaryDirectory(prefix="xctpipe-try-") as folder:
        work = work_on(recipe, scan, folder=Path(folder))
        ground = ground_of(work)
        if box is None:
            with _quiet():
                box, chosen_by = usual_box(work, ground)
        else:
            check_box(box, ground.scene.shape)
            chosen_by = ""
        bench = _Bench(work, ground, part_of(ground, box))
        found = [bench.found(each) for each in recipes]
    notes = _notes(key, recipe, values)
    rows = [{"value": value, **row} for value, one in zip(values, found, strict=True) for row in one.rows]
    sections, place = _sections(bench.part, box, found)
    scene = ground.scene
    top = 1.3 * max((each.mu_cm1 for each in (scene.solid, scene.liquid) if each), default=1.0)
    return Tried(key, tuple(values), work.name, box, chosen_by, tuple(rows), sections, place, top, notes)


def _notes(key: str, recipe: Recipe, values: Sequence[float]) -> tuple[str, ...]:
    notes = ["objects that the box cuts are measured as far as they lie in it; chips want the whole volume"]
    seed = recipe.segment.seed_sigma
    if key == "segment.threshold_sigma" and max(values) > seed:
        notes.append(f"seed_sigma = {seed:g} is raised to the threshold where that is higher")
    return tuple(notes)


def _quiet() -> contextlib.redirect_stderr[io.StringIO]:
    """Bars of passes of a second or two are of no use."""
    return contextlib.redirect_stderr(io.StringIO())


@dataclass(frozen=True, eq=False)
class _Found:
    rows: tuple[dict[str, Any], ...]
    phases: NDArray[np.uint8]
    objects: NDArray[np.int32]


class _Bench:
    """A box under one recipe after the other; labels only what other settings would label otherwise."""

    def __init__(self, work: ScanWork, ground: Ground, part: Part) -> None:
        self.work, self.ground, self.part = work, ground, part
        self._labels: dict[str, tuple[NDArray[np.uint8], NDArray[np.int32], dict[int, str]]] = {}

    def found(self, recipe: Recipe) -> _Found:
        work = replace(self.work, recipe=recipe)
        key = recipe.segment.model_dump_json()
        if key not in self._labels:
            with _quiet():
                self._labels = {key: self._labelled(work)}
        phases, objects, kinds = self._labels[key]
        rows = [*_by_kind(self._measured(work, objects, kinds)), *self._contact(work)]
        return _Found(tuple(rows), phases, objects)

    def _labelled(self, work: ScanWork) -> tuple[NDArray[np.uint8], NDArray[np.int32], dict[int, str]]:
        thresholds = thresholds_of(self.ground, work)
        read, found = find_labels(Passes(work, self.part, thresholds))
        phases, objects = read(whole_of(self.part))
        return phases, objects, {int(each["object"]): str(each["kind"]) for each in found["objects"]}

    def _measured(
        self, work: ScanWork, objects: NDArray[np.int32], kinds: dict[int, str]
    ) -> Mapping[str, NDArray[Any]]:
        context = context_of(self.part, inventory_of(objects, kinds), work.recipe)
        if not len(context.objects.ids):
            return {"kind": np.empty(0, str)}
        looked = self.part.look(whole_of(self.part))
        patch = Patch(looked.grey, looked.expected, objects, looked.hosts, (0, 0, 0), whole_of(self.part))
        part = merge([gather_block(Region(patch, context))])
        return table_of(part, settled(part, context))

    def _contact(self, work: ScanWork) -> list[dict[str, Any]]:
        face = self.part.scene.surfaces.get(INTERFACE)
        if face is None or not ((face.height_px > 0) & (face.height_px < self.part.scene.shape[0] - 1)).any():
            return []
        contact = contact_of(work, self.part)
        if contact is None:
            return []
        shares = (contact.contact_frac, contact.contact_frac_low, contact.contact_frac_high)
        return [
            {"kind": "contact", "number": contact.n_voids}
            | dict(zip(("volume_um3", "low", "high"), map(float, shares), strict=True))
        ]


def _by_kind(table: Mapping[str, NDArray[Any]]) -> list[dict[str, Any]]:
    """Number of objects of each kind, and the sum of their volumes with those of their bounds."""
    kinds = np.asarray(table["kind"]).astype("U20")
    if "fill" in table:
        filled = np.isin(kinds, ("crack", "crack_filled")) & (table["fill"] == "metal")
        kinds[filled] = "crack_filled"
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        those = kinds == kind
        if those.any():
            sums = [
                float(np.nansum(values)) if np.isfinite(values).any() else None
                for values in (table[f"volume_{end}um3"][those] for end in ("", "low_", "high_"))
            ]
            rows.append(
                {"kind": kind, "number": int(those.sum())}
                | dict(zip(("volume_um3", "low", "high"), sums, strict=True))
            )
    return rows or [{"kind": "no objects", "number": 0, "volume_um3": None, "low": None, "high": None}]


def _sections(part: Part, box: Box, found: Sequence[_Found]) -> tuple[tuple[Section, ...], str]:
    """A vertical section of the box where all values together see most, labelled with each."""
    seen = np.sum([each.objects > 0 for each in found], axis=0)
    across = [seen.sum(axis=(0, 2)), seen.sum(axis=(0, 1))]
    axis = 1 if across[0].max() >= across[1].max() else 2
    at = int(across[axis - 1].argmax()) if seen.any() else part.scene.shape[axis] // 2
    cut = tuple(at if i == axis else slice(None) for i in range(3))
    grey = part.grey(whole_of(part))[cut]
    sections = tuple(Section(grey, each.phases[cut], part.scene.voxel_um) for each in found)
    return sections, f"{'zyx'[axis]} = {at + box[axis][0]}"


def save(tried: Tried, folder: Path) -> list[Path]:
    """Write the table, and a picture with one labelled section for each value."""
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        table, picture = folder / "objects.csv", folder / "labels.png"
        write_table(table, tried.rows, columns=COLUMNS)
        _draw(tried, picture)
    return [table, picture]


def _draw(tried: Tried, path: Path) -> None:
    from matplotlib.figure import Figure

    n = len(tried.sections) + 1
    across = min(n, 4 if n > 6 else 3)
    down = -(-n // across)
    tall, wide = tried.sections[0].grey.shape
    figure = Figure(figsize=(3.2 * across, (3.1 * tall / wide + 0.25) * down + 0.4), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    bare = replace(tried.sections[0], phases=np.full((tall, wide), 255, np.uint8))
    titles = [tried.place, *(f"{tried.key} = {value:.10g}" for value in tried.values)]
    for axis, section, title in zip(axes, (bare, *tried.sections), titles, strict=False):
        axis.imshow(tinted(section, top_cm1=tried.top_cm1), interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        scale_bar(axis, section.pixel_um)
    for axis in axes[n:]:
        axis.set_axis_off()
    legend_of(figure, tried.sections)
    figure.savefig(path, dpi=130)
