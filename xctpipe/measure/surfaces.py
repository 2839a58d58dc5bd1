"""Surface of objects by Crofton's formula, and how much like a ball they are."""

import numpy as np
from numpy.typing import NDArray

from xctpipe.measure.regions import Context, Region
from xctpipe.measure.registry import Gathered, Whole, gather, measurement
from xctpipe.scan import DoubleArray

_DIRECTIONS = [
    (dz, dy, dx) for dz in (0, 1) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dz, dy, dx) > (0, 0, 0)
]
# shares of directions nearest to each of the 13 (and its opposite): axes, face and space diagonals
_SHARES = {1: 0.045778 * 2, 2: 0.036981 * 2, 3: 0.035196 * 2}
_CLASSES = tuple(f"crossings_{i}" for i in range(13))


@gather(columns=_CLASSES)
def chords(region: Region) -> Whole:
    """Steps from a voxel of an object to one outside it, along 13 directions, both ways."""
    inside = np.flatnonzero(region.d2 == 0)
    labels, own, slot = region.patch.objects, region.owner[inside], region.slot[inside]
    place = [axis[inside] for axis in region.place]
    out = []
    for direction in _DIRECTIONS:
        crossed = np.zeros(len(own), np.int64)
        for sign in (1, -1):
            there = [a + sign * d for a, d in zip(place, direction, strict=True)]
            crossed += _label_at(labels, there) != own
        out.append(np.bincount(slot, crossed, minlength=len(region.ids)).astype(np.int64))
    return np.stack(out, axis=1)


def _label_at(labels: NDArray[np.int32], place: list[Whole]) -> NDArray[np.int32]:
    """Label at a place, 0 beyond the patch: there the volume ends."""
    good = np.ones(len(place[0]), bool)
    for axis, n in zip(place, labels.shape, strict=True):
        good &= (axis >= 0) & (axis < n)
    found = labels[tuple(np.clip(a, 0, n - 1) for a, n in zip(place, labels.shape, strict=True))]
    return np.where(good, found, 0)


def crofton_area_px(got: Gathered) -> DoubleArray:
    """Surface, voxels^2: S = 2 sum over directions k of share_k * crossings_k / |k|.

    A line along k stands for an area of 1 / |k|; the mean over directions of crossings per area is half the
    surface (Cauchy, Crofton). Shares are those of the sphere nearest to each direction.
    """
    area = np.zeros(len(got[_CLASSES[0]]))
    for name, direction in zip(_CLASSES, _DIRECTIONS, strict=True):
        order = sum(abs(d) for d in direction)
        area += 2 * _SHARES[order] * got[name] / np.sqrt(order)
    return area


@measurement(
    kinds=("bubble", "interfacial_void", "pore", "chip", "inclusion", "unresolved"), gathers=(chords,)
)
def sphericity(got: Gathered, context: Context) -> DoubleArray:
    """Surface of the ball of the same volume over the object's, 1 for a ball; no unit.

    psi = pi^(1/3) (6 V)^(2/3) / S with V by counting and S by Crofton's formula on 13 directions (Voronoi
    weights), both of the mask. Bias: balls of radius 3 voxels and more give 1.00 +- 0.03 (voxel faces would
    give 0.66); below that the number says little. Source: Wadell 1935; Ohser and Muecklich 2000.
    """
    volume = context.objects.counts.astype(float)
    surface = np.maximum(crofton_area_px(got), 1e-9)
    return np.asarray(np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface)
