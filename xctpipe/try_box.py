"""Boxes of a reconstructed volume: what is given on the command line, or where most is to be seen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xctpipe import volume
from xctpipe.blocks import Slices
from xctpipe.errors import BadRecipe
from xctpipe.ground import Ground
from xctpipe.label_volume import has_labels, read_labels
from xctpipe.passes import Passes, thresholds_of
from xctpipe.scan import FloatArray
from xctpipe.segment.candidates import SEED
from xctpipe.segment.codes import KINDS, PHASES
from xctpipe.segment.scene import INTERFACE, Scene, Surface
from xctpipe.segment.view import Box
from xctpipe.stages import ScanWork

_MOST_VOXELS = 20_000_000
_USUAL_PX = (96, 192, 192)
_ABOVE_PX = 32
"""Rows of NaK in the box that is chosen by itself."""
_MOST_PLACES = 9
_COARSE_VOXELS = 16_000_000
_LABELS_OF_OBJECTS = tuple(PHASES[kind] for kind in KINDS)


def parse_box(text: str) -> Box:
    """`z0:z1,y0:y1,x0:x1` in voxels, ends not included."""
    try:
        z, y, x = ((int(a), int(b)) for a, b in (part.split(":") for part in text.split(",")))
    except ValueError as err:
        raise BadRecipe(f"--box {text!r}: write z0:z1,y0:y1,x0:x1, e.g. 60:156,64:256,64:256") from err
    return z, y, x


def check_box(box: Box, shape: tuple[int, int, int]) -> None:
    """BadRecipe where a box is no part of a volume, or is too large or too small to try things on."""
    said = ",".join(f"{a}:{b}" for a, b in box)
    for name, (first, last), n in zip("zyx", box, shape, strict=True):
        if not 0 <= first < last <= n:
            raise BadRecipe(f"--box {said}: {name} must be within 0:{n}, first below last")
        if last - first < 16:
            raise BadRecipe(f"--box {said}: {name} has {last - first} voxels; 16 at least")
    voxels = int(np.prod([b - a for a, b in box]))
    if voxels > _MOST_VOXELS:
        raise BadRecipe(f"--box {said}: {voxels / 1e6:.3g} million voxels; {_MOST_VOXELS / 1e6:g} at most")


@dataclass(frozen=True, eq=False)
class Part(Ground):
    """A box of a volume as if it were one of its own."""

    first: tuple[int, int, int] = (0, 0, 0)

    def grey(self, where: Slices) -> FloatArray:
        """Grey values of a part of the box, cm^-1."""
        z, y, x = (slice(s.start + a, s.stop + a) for s, a in zip(where, self.first, strict=True))
        return super().grey((z, y, x))

    def rim(self, box: Box) -> NDArray[np.bool_]:
        """Voxels at the end of the view or of the box: what lies there is cut."""
        out = super().rim(box)
        for axis, ((first, _), n) in enumerate(zip(box, self.scene.shape, strict=True)):
            at = first + np.arange(out.shape[axis])
            ends = (at == 0) | (at == n - 1)
            out = out | ends.reshape([-1 if i == axis else 1 for i in range(3)])
        return out


def part_of(ground: Ground, box: Box) -> Part:
    """A box of a volume, with its scene."""
    scene, (z, y, x) = ground.scene, box

    def surface(each: Surface) -> Surface:
        def cut(heights: FloatArray) -> FloatArray:
            return np.ascontiguousarray(heights[slice(*y), slice(*x)] - np.float32(z[0]))

        plane = each.reference - np.array([z[0], 0.0, 0.0])
        used = None if each.used_px is None else cut(each.used_px)
        return replace(each, height_px=cut(each.height_px), reference=plane, used_px=used)

    inner = replace(
        scene,
        shape=(z[1] - z[0], y[1] - y[0], x[1] - x[0]),
        axis_px=(scene.axis_px[0] - y[0], scene.axis_px[1] - x[0]),
        surfaces={name: surface(each) for name, each in scene.surfaces.items()},
    )
    return Part(ground.path, ground.level, inner, (z[0], y[0], x[0]))


def usual_box(work: ScanWork, ground: Ground) -> tuple[Box, str]:
    """A box about the interface where most is to be seen, and how that was judged."""
    scene = ground.scene
    places = _places(scene)
    if has_labels(work.volume):
        scores = _by_labels(work.volume, ground, places)
        how = "where most voxels of objects are"
    else:
        chosen = np.linspace(0, len(places) - 1, min(_MOST_PLACES, len(places))).round().astype(int)
        of_all = "" if len(chosen) == len(places) else f" of {len(chosen)} of {len(places)} boxes looked at"
        places = [places[i] for i in chosen]
        scores = _seeds(work, ground, places)
        how = f"the most candidates{of_all}"
    best = int(np.argmax(scores))
    if not scores[best]:
        # nothing is seen anywhere: the middle is as good as any
        best, how = len(places) // 2, "in the middle: no candidates anywhere"
    return places[best], f"chosen: {how}"


def _places(scene: Scene) -> list[Box]:
    """Boxes of the usual size side by side, about the interface, within the view."""
    depth, wide, _ = (min(a, n) for a, n in zip(_USUAL_PX, scene.shape, strict=True))
    face = scene.surfaces.get(INTERFACE)
    top = (scene.shape[0] - depth) / 2
    if face is not None:
        height = float(face.reference[0])
        top = height - _ABOVE_PX if scene.side > 0 else height + _ABOVE_PX - depth
    z = int(np.clip(round(top), 0, scene.shape[0] - depth))
    axes = []
    for axis, n in zip(scene.axis_px, scene.shape[1:], strict=True):
        low, high = max(int(axis - scene.view_px), 0), min(int(axis + scene.view_px) + 1, n)
        edge = min(wide, high - low)
        count = max(1, -(-(high - low) // edge))
        starts = np.linspace(low, high - edge, count).round().astype(int).tolist()
        axes.append([(a, a + edge) for a in dict.fromkeys(starts)])
    return [((z, z + depth), y, x) for y in axes[0] for x in axes[1]]


def _by_labels(path: Path, ground: Ground, places: Sequence[Box]) -> list[int]:
    """Voxels of objects in each box, by labels that are there, on a coarse level."""
    shapes = volume.level_shapes(volume.read_spec(path))
    level = ground.level
    while np.prod(shapes[level]) > _COARSE_VOXELS and level + 1 < len(shapes):
        level += 1
    factor = 2 ** (level - ground.level)
    scores = []
    for box in places:
        z, y, x = (slice(a // factor, -(-b // factor)) for a, b in box)
        phases = read_labels(path, "phases", level=level, z=z, y=y, x=x)
        scores.append(int(np.isin(phases, _LABELS_OF_OBJECTS).sum()))
    return scores


def _seeds(work: ScanWork, ground: Ground, places: Sequence[Box]) -> list[int]:
    """Voxels in each box that are sure to belong to something."""
    thresholds = thresholds_of(ground, work)
    scores = []
    for i, place in enumerate(places):
        part = part_of(ground, place)
        # a folder each: passes keep what they find for going on with
        own = replace(work, folder=work.folder / f"place {i}")
        codes = Passes(own, part, thresholds).candidates().read(whole_of(part))
        scores.append(int((codes & SEED > 0).sum()))
    return scores


def whole_of(part: Ground) -> Slices:
    """All of what is worked on."""
    z, y, x = (slice(0, n) for n in part.scene.shape)
    return z, y, x
