"""Passes of the stage segment over the blocks of a volume; each leaves arrays on disk and small results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe import volume
from xctpipe.blocks import Block, Scratch, Slices, block_shape, blocks_of, run_blocks, scratch, widened
from xctpipe.components import Components, Labels
from xctpipe.forest_file import load_forest
from xctpipe.ground import Ground, Looked, box_of, layers_of
from xctpipe.labelling import Work, label
from xctpipe.segment import chips
from xctpipe.segment.candidates import (
    KIND_BITS,
    LIQUID_VOID,
    SEED,
    SOLID_VOID,
    Sample,
    Thresholds,
    find_candidates,
    find_thresholds,
    without_slack,
)
from xctpipe.segment.codes import PHASES
from xctpipe.segment.features import HALO_PX, Features, Patch, gather_features
from xctpipe.segment.forest import Forest, relative
from xctpipe.segment.paint import drawn
from xctpipe.segment.scene import LIQUID, SOLID, Scene
from xctpipe.segment.smooth import reach_px, smooth
from xctpipe.sight import materials_of
from xctpipe.stages import ScanWork

_BYTES_PER_VOXEL = 56
_MORE_BYTES = 160
"""For the features of a classifier, twice at the worst moment."""
LEAST_CERTAINTY = 0.8
"""Share of votes from which a classifier's void is a candidate by itself."""
_SAMPLE_PX, _SAMPLES = 64, 3
SCORE_PX = 1.0
_MARGIN_PX = HALO_PX + reach_px(SCORE_PX)
_VOIDS = tuple(PHASES[kind] for kind in ("bubble", "interfacial_void", "crack", "crack_filled", "pore"))
IN_SOLID = (PHASES["crack"], PHASES["crack_filled"], PHASES["pore"])
_ZIRCONIA_OVER_NASICON = 2.2
"""ZrO2 attenuates 3.2 times as much as NASICON at 80 keV: the usual bright speck."""


def thresholds_of(ground: Ground, work: ScanWork) -> Thresholds:
    """Thresholds of candidates, from blocks at places that depend on the volume alone."""
    chosen, shape = work.recipe.segment, ground.scene.shape
    samples = []
    for where in _sample_places(shape):
        looked = ground.look(where)
        if ((looked.hosts == SOLID) | (looked.hosts == LIQUID)).mean() > 0.2:
            samples.append(Sample(looked.residual, looked.hosts))
    solid, liquid = materials_of(work.recipe)
    return find_thresholds(
        samples,
        sigmas_px=chosen.crack_sigmas_px,
        low_sigma=chosen.threshold_sigma,
        high_sigma=chosen.seed_sigma,
        solid_cm1=solid,
        liquid_cm1=liquid,
        bright_cm1=_ZIRCONIA_OVER_NASICON * solid,
    )


def _sample_places(shape: tuple[int, int, int]) -> list[Slices]:
    axes = []
    for n in shape:
        edge = min(_SAMPLE_PX, n)
        count = min(_SAMPLES, max(1, n // edge))
        starts = np.linspace(0, n - edge, count).round().astype(int).tolist()
        axes.append([slice(a, a + edge) for a in starts])
    return [(z, y, x) for z in axes[0] for y in axes[1] for x in axes[2]]


@dataclass(frozen=True, eq=False)
class Passes:
    """Passes over the blocks of a volume."""

    work: ScanWork
    ground: Ground
    thresholds: Thresholds

    @property
    def folder(self) -> Path:
        """Where passes keep what they find."""
        return self.work.scratch("segment")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the grid that is worked on."""
        return self.ground.scene.shape

    @property
    def mark(self) -> Any:
        """What all results depend on."""
        chosen = self.work.recipe.segment
        trained = chosen.classifier.stat().st_mtime_ns if chosen.classifier else None
        return [chosen.model_dump(mode="json"), trained, volume.read_attributes(self.ground.path)]

    def blocks(self, halo: int) -> tuple[Block, ...]:
        """Blocks of this margin; their cores are the same for every pass."""
        edge = block_shape(
            self.shape,
            memory_bytes=self.work.memory_bytes,
            bytes_per_voxel=_BYTES_PER_VOXEL + (_MORE_BYTES if self.work.recipe.segment.classifier else 0),
            threads=self.work.threads,
            halo=self.thresholds.halo_px,
        )
        return blocks_of(self.shape, edge=edge, halo=halo)

    def candidates(self) -> Scratch:
        """Candidates of every voxel, with marks of seeds."""
        chosen = self.work.recipe.segment.classifier
        forest = None if chosen is None else load_forest(chosen)
        blocks = self.blocks(max(self.thresholds.halo_px, forest.features.halo_px if forest else 0))
        array = self._scratch("candidates", np.uint8, blocks)
        task = _Candidates(self.ground, self.thresholds, array, forest)
        run_blocks(task, blocks, name="candidates", **self._kept(array))
        return array

    def components(self, candidates: Scratch) -> tuple[Scratch, Components]:
        """Connected candidates that hold a seed, and their labels."""
        least = self.work.recipe.segment.min_voxels

        def keep(found: Components, records: Any) -> NDArray[np.bool_]:
            seeds = found.total([record["seeds"] for record in records])
            voxels = found.total([record["n_voxels"] for record in records])
            return np.asarray((seeds > 0) & (voxels >= least))

        labels, found, _ = label(
            _Kinds(candidates),
            self._labelled("objects", candidates.token),
            sums=_Seeds(candidates),
            keep=keep,
        )
        return labels, found

    def extent(self, found: "Found", *, n: int) -> tuple[Features, "Near"]:
        """Features of all components, and what the passes that follow must know of their surroundings."""
        blocks = self.blocks(_MARGIN_PX)
        near = Near(*(self._scratch(name, np.float32, blocks) for name in ("score", "residual")))
        results = run_blocks(
            _Extent(self.ground, found, near),
            blocks,
            name="extent of objects",
            **self._kept(found.objects, near.score, near.residual),
        )
        return Features.merged(results, n=n), near

    def shape_features(self, found: "Found", near: "Near", outlines: NDArray[np.float32]) -> Features:
        """Features of all components within their outlines (component + 1,), of none first."""
        task = _Shape(self.ground, found, near, outlines)
        kept = self._kept(found.objects, near.score, near.residual)
        results = run_blocks(task, self.blocks(HALO_PX), name="shape of objects", **kept)
        return Features.merged(results, n=len(outlines) - 1)

    def chips(self, objects: Scratch, kinds: NDArray[np.uint8]) -> tuple[Scratch, Components]:
        """Pieces of NASICON that voids cut off."""

        def keep(found: Components, records: Any) -> NDArray[np.bool_]:
            reach = [record["reach"] for record in records]
            voxels = found.total([record["n_voxels"] for record in records])
            least = found.least([each[:, 0] for each in reach])
            return chips.chips_among(voxels, least, found.total([each[:, 1] for each in reach]))

        read = _Left(self.ground, objects, np.concatenate([[0], kinds]).astype(np.uint8))
        labels, found, _ = label(
            read, self._labelled("chips", objects.token, connectivity=6), sums=_Reach(self.ground), keep=keep
        )
        return labels, found

    def _labelled(self, name: str, token: str, **how: Any) -> Work:
        return Work(
            self.shape,
            self.blocks(0),
            self.folder,
            name,
            self.work.place,
            fingerprint=[self.mark, token],
            **how,
        )

    def _scratch(self, name: str, dtype: Any, blocks: tuple[Block, ...]) -> Scratch:
        path = self.folder / f"{name}.zarr"
        return scratch(path, shape=self.shape, dtype=dtype, edge=_edge_of(blocks), fingerprint=self.mark)

    def _kept(self, *arrays: Scratch) -> dict[str, Any]:
        return {
            "place": self.work.place,
            "done": self.folder / "done",
            "fingerprint": [self.mark, *(array.token for array in arrays)],
        }


def _edge_of(blocks: tuple[Block, ...]) -> tuple[int, int, int]:
    z, y, x = blocks[0].shape
    return z, y, x


@dataclass(frozen=True, eq=False)
class _Candidates:
    ground: Ground
    thresholds: Thresholds
    out: Scratch
    forest: Forest | None = None

    def __call__(self, block: Block) -> dict[str, Any]:
        looked = self.ground.look(block.around)
        residual = without_slack(looked.residual, looked.expected)
        beside = self.ground.beside_face(box_of(block.around))
        codes = find_candidates(
            residual, looked.hosts, beside, above_px=-looked.below_px, thresholds=self.thresholds
        )
        if self.forest is not None:
            _add_sure(codes, self.forest, looked, scene=self.ground.scene)
        self.out.write(block, codes[block.trim])
        return {}


def _add_sure(codes: NDArray[np.uint8], forest: Forest, looked: Looked, *, scene: Scene) -> None:
    """Make what a classifier is sure is void a candidate with a seed, in place; something must be missing."""
    values = relative(looked.residual, looked.hosts, scene=scene)
    phases, _ = forest.predict(values, looked.hosts, least_certainty=LEAST_CERTAINTY)
    sure = np.isin(phases, _VOIDS) & (looked.residual > 0)
    for host, kind in ((SOLID, SOLID_VOID), (LIQUID, LIQUID_VOID)):
        codes[sure & (looked.hosts == host)] = kind + SEED


@dataclass(frozen=True)
class _Kinds:
    """Kinds of candidates, without the marks of seeds."""

    codes: Scratch

    def __call__(self, where: Slices) -> NDArray[np.uint8]:
        return np.asarray(self.codes.read(where) & KIND_BITS)


@dataclass(frozen=True)
class _Seeds:
    codes: Scratch

    def __call__(self, block: Block, labels: Labels, n: int) -> dict[str, Any]:
        seeds = labels[self.codes.read(block.where) & SEED > 0]
        return {"seeds": np.bincount(seeds, minlength=n + 1)[1:]}


@dataclass(frozen=True)
class Found:
    """Components on disk, and the candidates that they are made of."""

    objects: Scratch
    candidates: Scratch


@dataclass(frozen=True)
class Near:
    """On disk: score of the voxels of objects, and residual of those within two voxels; 0 elsewhere.

    All that later passes must know of the grey values, which are read and smoothed once.
    """

    score: Scratch
    residual: Scratch

    def write(self, block: Block, cut: Block, patch: Patch) -> None:
        """Write the core of a block, of which `cut` is the part that holds objects, seen as a patch."""
        core = patch.core
        inner = tuple(slice(a - p, b - p) for (a, b), (p, _) in zip(cut.core, block.core, strict=True))
        for array, near, values in (
            (self.score, patch.objects[core], patch.score[core]),
            (self.residual, patch.owner, patch.residual[core]),
        ):
            out = np.zeros(block.shape, np.float32)
            np.copyto(out[inner], values, where=near > 0)
            array.write(block, out)


@dataclass(frozen=True, eq=False)
class _Extent:
    ground: Ground
    found: Found
    near: Near

    def __call__(self, block: Block) -> dict[str, Any]:
        objects = self.found.objects.read(block.around)
        near = block.near(objects, _MARGIN_PX)
        if near is None:
            return {"ids": np.zeros(0, np.int64)}
        cut, part = near
        looked = self.ground.look(cut.around)
        score = score_of(self.ground, looked)
        patch = _patch(
            self.ground,
            self.found,
            cut,
            objects=np.ascontiguousarray(objects[part]),
            values=(looked.residual, score),
            layers=(looked.hosts, looked.below_px),
        )
        out = gather_features(patch)
        self.near.write(block, cut, patch)
        return out


@dataclass(frozen=True, eq=False)
class _Shape:
    ground: Ground
    found: Found
    near: Near
    outlines: NDArray[np.float32]

    def __call__(self, block: Block) -> dict[str, Any]:
        objects = self.found.objects.read(block.around)
        near = block.near(objects, HALO_PX)
        if near is None:
            return {"ids": np.zeros(0, np.int64)}
        cut, part = near
        score = self.near.score.read(cut.around)
        objects = drawn(np.ascontiguousarray(objects[part]), score, outlines=self.outlines)
        values = self.near.residual.read(cut.around), score
        layers = layers_of(self.ground, cut.around)
        return gather_features(
            _patch(self.ground, self.found, cut, objects=objects, values=values, layers=layers)
        )


def _patch(
    ground: Ground,
    found: Found,
    block: Block,
    *,
    objects: NDArray[np.int32],
    values: tuple[NDArray[np.float32], NDArray[np.float32]],
    layers: tuple[NDArray[np.uint8], NDArray[np.float32]],
) -> Patch:
    """What features are gathered from: `values` are residual and score, `layers` hosts and depths."""
    box = box_of(block.around)
    return Patch(
        objects=objects,
        seeds=np.asarray(found.candidates.read(block.around) & SEED > 0),
        residual=values[0],
        score=values[1],
        hosts=layers[0],
        below_px=layers[1],
        counter_px=ground.to_counter(box),
        rim=ground.rim(box),
        first=(box[0][0], box[1][0], box[2][0]),
        core=block.trim,
        mu_cm1=mu_of(ground),
        axis_px=ground.scene.axis_px,
    )


def score_of(ground: Ground, looked: Looked) -> NDArray[np.float32]:
    """What outlines are drawn by: the smoothed residual over the level of the host."""
    mu = mu_of(ground)
    score = smooth(looked.residual, sigma_px=SCORE_PX)
    table = np.full(256, mu[1], np.float32)
    table[SOLID] = mu[0]
    score /= table[looked.hosts]
    return score


def mu_of(ground: Ground) -> tuple[float, float]:
    """Attenuation of NASICON and NaK; 1 for what is not in view."""
    solid, liquid = ground.scene.solid, ground.scene.liquid
    return (1.0 if solid is None else solid.mu_cm1, 1.0 if liquid is None else liquid.mu_cm1)


@dataclass(frozen=True, eq=False)
class _Left:
    """NASICON that is left without voids."""

    ground: Ground
    objects: Scratch
    kinds: NDArray[np.uint8]

    def __call__(self, where: Slices) -> NDArray[np.uint8]:
        around, inner = widened(where, chips.HALO_PX, shape=self.ground.scene.shape)
        voids = np.isin(self.kinds, IN_SOLID).astype(np.uint8)[self.objects.read(around)]
        layer, depth = np.zeros(voids.shape, np.uint8), np.zeros(voids.shape, np.float32)
        layer[inner], depth[inner] = layers_of(self.ground, where)
        return chips.solid_left(layer, voids, depth)[inner]


@dataclass(frozen=True, eq=False)
class _Reach:
    ground: Ground

    def __call__(self, block: Block, labels: Labels, n: int) -> dict[str, Any]:
        _, below = layers_of(self.ground, block.where)
        rim = np.ascontiguousarray(self.ground.rim(box_of(block.where)))
        return {"reach": chips.reach_of(labels, n, below_px=below, rim=rim)}
