"""The stage segment: labels of a reconstructed volume, block by block.

Geometry first, on the whole volume as coarse as memory asks; thresholds next, from some places of it; then
candidates of voids, their components, what each is, chips, and at last the labels. Every pass leaves arrays
on disk, and goes on where it was stopped.
"""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.blocks import Scratch, Slices, widened
from xctpipe.components import Components
from xctpipe.ground import Ground, layers_of
from xctpipe.label_volume import LabelSource, Legend, ReadLabels, write_labels
from xctpipe.passes import Found, Passes, thresholds_of
from xctpipe.scene_file import write_values
from xctpipe.segment import chips
from xctpipe.segment.candidates import LIQUID_VOID, SOLID_VOID
from xctpipe.segment.classes import kept, kinds_of, touching
from xctpipe.segment.codes import COLOURS, KINDS, PHASES, PRIORITY
from xctpipe.segment.doubts import doubts
from xctpipe.segment.features import Features, grown
from xctpipe.segment.paint import RIDGE_PX, drawn, paint, phases_of
from xctpipe.segment.scene import SOLID
from xctpipe.sight import see
from xctpipe.stages import ScanWork

log = logging.getLogger(__name__)

SCENE = "scene.npz"
_LEAST_OUTLINE = 0.3


def segment(work: ScanWork) -> dict[str, Any]:
    """Write `labels/phases` and `labels/objects` of the volume.

    Returns
    -------
    What is found on the way, as JSON can hold it, for the record and for the measures; `warnings` among it
    are told the user.
    """
    source = work.mass or work.volume
    ground = see(source, recipe=work.recipe, memory_bytes=work.memory_bytes)
    for note in ground.scene.notes:
        log.info("%s: %s", work.name, note)
    write_values(work.folder / SCENE, ground.scene)
    passes = Passes(work, ground, thresholds_of(ground, work))
    read, found = find_labels(passes)
    _write(work, read, level=ground.level)
    return found


def find_labels(passes: Passes) -> tuple[ReadLabels, dict[str, Any]]:
    """A reader of the labels of what is passed over, and what `segment` returns about them."""
    ground, work = passes.ground, passes.work
    candidates = passes.candidates()
    objects, components = passes.components(candidates)
    found = Found(objects, candidates)
    features, near = passes.extent(found, n=components.n)
    outlines = _outlines(features, components.code)
    features = passes.shape_features(found, near, outlines)
    blind = work.recipe.segment.blind_px
    kinds = kinds_of(features, components.code, blind_px=blind)
    large = kept(features, components.code, blind_px=blind, axis_px=ground.scene.axis_px)
    pieces, cut_off = passes.chips(objects, kinds)
    order = _Order.of(components, cut_off, keep=large)
    codes = np.concatenate([[0], kinds]).astype(np.uint8)
    final = _Final(ground, objects, near.score, pieces, order, codes, outlines)
    return final, _summary(ground, features, order, components.code, kinds)


@dataclass(frozen=True, eq=False)
class _Order:
    """Final numbers of objects and chips, in raster order of their first voxels."""

    objects: NDArray[np.int32]
    """Of each component, and 0 of none."""
    chips: NDArray[np.int32]

    @classmethod
    def of(cls, objects: Components, pieces: Components, *, keep: NDArray[np.bool_]) -> "_Order":
        """Numbers of the objects to keep (objects,), and of all chips."""
        first = np.concatenate([objects.first, pieces.first])
        wanted = np.concatenate([keep, np.ones(pieces.n, np.bool_)])
        rank = np.zeros(len(first), np.int32)
        chosen = np.flatnonzero(wanted)
        rank[chosen[np.argsort(first[chosen], kind="stable")]] = np.arange(1, len(chosen) + 1)
        zero = np.zeros(1, np.int32)
        return cls(np.concatenate([zero, rank[: objects.n]]), np.concatenate([zero, rank[objects.n :]]))


def _outlines(features: Features, codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Score below which a voxel is left out of its object; of no object first."""
    drawn = np.where(codes == SOLID_VOID, features.outline(least_frac=_LEAST_OUTLINE), -np.inf)
    return np.concatenate([[-np.inf], drawn]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Final:
    """Reads the labels of a part of the volume."""

    ground: Ground
    objects: Scratch
    score: Scratch
    pieces: Scratch
    order: _Order
    kinds: NDArray[np.uint8]
    """Phase of each component, of none first."""
    outlines: NDArray[np.float32]

    def __call__(self, where: Slices) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        layer, below = layers_of(self.ground, where)
        phases, ids = phases_of(layer), np.zeros(layer.shape, np.int32)
        self._add_chips(where, phases, ids, near=(layer == SOLID) & (below < chips.FROM_PX))
        wide, inner = widened(where, RIDGE_PX, shape=self.ground.scene.shape)
        objects = self.objects.read(wide)
        if objects[inner].any():
            within = drawn(objects, self.score.read(wide), outlines=self.outlines)[inner]
            paint(within, kinds=self.kinds, numbers=self.order.objects, phases=phases, ids=ids)
        return phases, ids

    def _add_chips(
        self, where: Slices, phases: NDArray[np.uint8], ids: NDArray[np.int32], *, near: NDArray[np.bool_]
    ) -> None:
        """Chips with their skin beside voids, and the NASICON above them, too near the surface to be told.

        Parameters
        ----------
        near : NASICON so near to the surface.
        """
        reach = int(np.ceil(chips.FROM_PX)) + 1
        wide, (inner, y, x) = widened(where, (reach + 1, 1, 1), shape=self.ground.scene.shape)
        pieces = self.pieces.read(wide)
        if not pieces.any():
            return
        pieces = grown(pieces)[:, y, x]
        found = pieces[inner].copy()
        solid = phases == PHASES["nasicon"]
        for step in range(1, reach + 1):
            start = inner.start + step * self.ground.scene.side
            rows = np.clip(np.arange(start, start + len(found)), 0, len(pieces) - 1)
            found = np.where((found == 0) & solid & near, pieces[rows], found)
        chip = (found > 0) & solid
        phases[chip], ids[chip] = PHASES["chip"], self.order.chips[found[chip]]


def _write(work: ScanWork, final: ReadLabels, *, level: int) -> None:
    names = {code: name for name, code in PHASES.items()}
    colours = {PHASES[name]: rgb for name, rgb in COLOURS.items()}
    legends = {"phases": Legend(names=names, colours=colours)}
    source = LabelSource(final, level, PRIORITY, legends, {"scan": work.name})
    write_labels(work.volume, source, place=work.place)


def _void_px(features: Features, order: _Order, codes: NDArray[np.int64]) -> dict[str, float]:
    """Voxels of the voids that are kept, by layer."""
    voxels = np.where(order.objects[1:] > 0, features.column("voxels"), 0)
    return {
        name: float(voxels[codes == code].sum())
        for name, code in (("NaK", LIQUID_VOID), ("NASICON", SOLID_VOID))
    }


def _summary(
    ground: Ground,
    features: Features,
    order: _Order,
    codes: NDArray[np.int64],
    kinds: NDArray[np.uint8],
) -> dict[str, Any]:
    names = {code: name for name, code in PHASES.items()}
    touched = touching(features)
    objects = [
        {
            "object": int(i),
            "kind": names[int(kind)],
            **{f"touches_{k}": bool(v[j]) for k, v in touched.items()},
        }
        for j, (i, kind) in enumerate(zip(order.objects[1:], kinds, strict=True))
        if i > 0
    ]
    objects += [{"object": int(i), "kind": "chip"} for i in order.chips[1:]]
    counts = {kind: sum(each["kind"] == kind for each in objects) for kind in KINDS}
    return {
        "level": ground.level,
        "voxel_um": ground.scene.voxel_um,
        "up": ground.scene.up,
        "blur_px": ground.scene.blur_px,
        "notes": list(ground.scene.notes),
        "counts": {kind: n for kind, n in counts.items() if n},
        "objects": sorted(objects, key=lambda each: each["object"]),
        "warnings": doubts(ground.scene, void_px=_void_px(features, order, codes)),
    }
