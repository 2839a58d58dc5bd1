"""Passes of the stage segment over the blocks of a volume; each leaves arrays on disk and small results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe import volume
from xctpipe.blocks import Block, Scratch, Slices, block_shape, blocks_of, run_blocks, scratch
from xctpipe.components import Components, Labels
from xctpipe.forest_file import load_forest
from xctpipe.ground import Ground, Looked, box_of
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
from xctpipe.segment.expected import hosts
from xctpipe.segment.features import HALO_PX, Features, Patch, gather_features
from xctpipe.segment.forest import Forest, relative
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

    def features(
        self, objects: Scratch, candidates: Scratch, *, n: int, outlines: NDArray[np.float32] | None = None
    ) -> Features:
        """Features of all components; within their outlines, where these are known."""
        task = _Features(self.ground, objects, candidates, outlines)
        name = "extent of objects" if outlines is None else "shape of objects"
        results = run_blocks(task, self.blocks(_MARGIN_PX), name=name, **self._kept(objects))
        return Features.merged(results, n=n)

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

    def _kept(self, array: Scratch) -> dict[str, Any]:
        return {
            "place": self.work.place,
            "done": self.folder / "done",
            "fingerprint": [self.mark, array.token],
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


@dataclass(frozen=True, eq=False)
class _Features:
    ground: Ground
    objects: Scratch
    candidates: Scratch
    outlines: NDArray[np.float32] | None

    def __call__(self, block: Block) -> dict[str, Any]:
        objects = self.objects.read(block.around)
        if not objects.any():
            return {"ids": np.zeros(0, np.int64)}
        looked = self.ground.look(block.around)
        box = box_of(block.around)
        score = score_of(self.ground, looked)
        if self.outlines is not None:
            objects = np.where(score >= self.outlines[objects], objects, 0)
        patch = Patch(
            objects=objects,
            seeds=np.asarray(self.candidates.read(block.around) & SEED > 0),
            residual=looked.residual,
            score=score,
            hosts=looked.hosts,
            below_px=looked.below_px,
            counter_px=self.ground.to_counter(box),
            rim=self.ground.rim(box),
            first=(box[0][0], box[1][0], box[2][0]),
            core=block.trim,
            mu_cm1=mu_of(self.ground),
        )
        return gather_features(patch)


def score_of(ground: Ground, looked: Looked) -> NDArray[np.float32]:
    """What outlines are drawn by: the smoothed residual over the level of the host."""
    mu = mu_of(ground)
    level = np.where(looked.hosts == SOLID, np.float32(mu[0]), np.float32(mu[1]))
    return np.asarray(smooth(looked.residual, sigma_px=SCORE_PX) / level, np.float32)


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
        wide = tuple(
            slice(max(part.start - chips.HALO_PX, 0), min(part.stop + chips.HALO_PX, n))
            for part, n in zip(where, self.ground.scene.shape, strict=True)
        )
        around: Slices = (wide[0], wide[1], wide[2])
        kinds = self.kinds[self.objects.read(around)]
        layer = np.zeros(kinds.shape, np.uint8)
        inner = tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(where, wide, strict=True))
        hosts, below = layers_of(self.ground, where)
        layer[inner] = hosts
        depth = np.zeros(kinds.shape, np.float32)
        depth[inner] = below
        voids = np.isin(kinds, IN_SOLID).astype(np.uint8)
        return chips.solid_left(layer, voids, depth)[inner]


def layers_of(ground: Ground, where: Slices) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Hosts and distance below the interface of a part; no grey value is read."""
    box = box_of(where)
    layer = hosts(ground.scene, box)
    return layer, ground.below(box, layer)


@dataclass(frozen=True, eq=False)
class _Reach:
    ground: Ground

    def __call__(self, block: Block, labels: Labels, n: int) -> dict[str, Any]:
        _, below = layers_of(self.ground, block.where)
        rim = np.ascontiguousarray(self.ground.rim(box_of(block.where)))
        return {"reach": chips.reach_of(labels, n, below_px=below, rim=rim)}
