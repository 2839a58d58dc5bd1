"""Where objects are, how far they reach, how they lie, and what cuts them."""

import numpy as np
from numpy.typing import NDArray

from xctpipe.measure.balls import ball_sums
from xctpipe.measure.regions import ALL, Context, Region
from xctpipe.measure.registry import FIXED, Gathered, Whole, gather, measurement
from xctpipe.measure.shells import shell_sums
from xctpipe.measure.volumes import counts, deficits, volume_um3
from xctpipe.scan import DoubleArray
from xctpipe.segment.scene import COUNTER_FACE, INTERFACE

_ANGLES = np.arange(36) * np.pi / 36
_FERETS = tuple(f"reach_{i}" for i in range(72))
_FACES = (INTERFACE, COUNTER_FACE)
_GAPS = tuple(f"gap_{face}_{side}" for face in _FACES for side in ("below", "above"))
_SECOND = tuple(f"second_{i}" for i in ("zz", "yy", "xx", "zy", "zx", "yx"))
_NONE = 2**61
TOUCH_PX = 2.5
"""What is nearer than this to a face touches it: about its blur, which hides the mouth of a crack."""


@gather(columns=("sum_z", "sum_y", "sum_x", *_SECOND))
def moments(region: Region) -> Whole:
    """First and second moments about the (whole) voxel nearest to the centre of each object."""
    inside = region.d2 == 0
    centre = np.rint(region.context.objects.centres_px[region.known])[region.slot]
    z, y, x = (axis - centre[:, i] for i, axis in enumerate(region.coordinates))
    products = (z, y, x, z * z, y * y, x * x, z * y, z * x, y * x)
    return np.stack([region.sums(p, inside) for p in products], axis=1)


@gather(columns=(*_FERETS, "rim", "first_row", "last_row"), combine="max")
def reaches(region: Region) -> Whole:
    """Farthest voxel in 72 directions of the interface plane, and from the axis; first and last rows."""
    out = np.full((len(region.ids), 75), -(2**62), np.int64)
    inside = region.d2 == 0
    slot, scene = region.slot[inside], region.context.scene
    z, y, x = (axis[inside] for axis in region.coordinates)
    dy, dx = y - scene.axis_px[0], x - scene.axis_px[1]
    for i, angle in enumerate(_ANGLES):
        along = np.rint((dy * np.sin(angle) + dx * np.cos(angle)) * FIXED).astype(np.int64)
        np.maximum.at(out[:, i], slot, along)
        np.maximum.at(out[:, i + 36], slot, -along)
    # voxels of a part that the view cuts touch its rim
    np.maximum.at(out[:, 72], slot, np.rint(np.hypot(dy, dx) * FIXED).astype(np.int64))
    np.maximum.at(out[:, 73], slot, (z == 0).astype(np.int64))
    np.maximum.at(out[:, 74], slot, (z == scene.shape[0] - 1).astype(np.int64))
    return out


@gather(columns=_GAPS, combine="min")
def gaps(region: Region) -> Whole:
    """Smallest distance along z of each object's voxels to each face, on both sides of it."""
    out = np.full((len(region.ids), 4), 2**62, np.int64)
    inside = region.d2 == 0
    slot, scene = region.slot[inside], region.context.scene
    z, y, x = (axis[inside] for axis in region.coordinates)
    for i, name in enumerate(_FACES):
        if name not in scene.surfaces:
            continue
        _, y0, x0 = region.patch.origin
        beyond = (z - region.height(name)[y - y0, x - x0].astype(np.float64)) * scene.side
        for j, gap in enumerate((beyond, -beyond)):
            good = np.isfinite(gap)
            # 0 where a voxel's own face lies on or across it
            steps = np.rint(np.maximum(gap[good] - 0.5, -0.5) * FIXED).astype(np.int64)
            use = gap[good] >= -0.5
            np.minimum.at(out[:, 2 * i + j], slot[good][use], steps[use])
    return out


def _centre_px(got: Gathered, context: Context) -> DoubleArray:
    number = np.maximum(got["voxels"], 1)[:, None]
    first = np.stack([got["sum_z"], got["sum_y"], got["sum_x"]], axis=1)
    return np.asarray(np.rint(context.objects.centres_px) + first / number)


@measurement(kinds=ALL, gathers=(counts, moments))
def z_um(got: Gathered, context: Context) -> DoubleArray:
    """Height of the middle of the voxels below detector row 0, um: (mean z + first row) * voxel.

    Bias: centre of the mask, not of mass. Source: definition.
    """
    return (_centre_px(got, context)[:, 0] + context.first_row) * context.scene.voxel_um


@measurement(kinds=ALL, gathers=(counts, moments))
def y_um(got: Gathered, context: Context) -> DoubleArray:
    """Mean y of the voxels from the axis of rotation, um. Bias: centre of the mask. Source: definition."""
    return (_centre_px(got, context)[:, 1] - context.scene.axis_px[0]) * context.scene.voxel_um


@measurement(kinds=ALL, gathers=(counts, moments))
def x_um(got: Gathered, context: Context) -> DoubleArray:
    """Mean x of the voxels from the axis of rotation, um. Bias: centre of the mask. Source: definition."""
    return (_centre_px(got, context)[:, 2] - context.scene.axis_px[1]) * context.scene.voxel_um


def _axes(got: Gathered, context: Context) -> DoubleArray:
    """(n, 3) standard deviations of the mask along its main axes, ascending (voxels)."""
    number = np.maximum(got["voxels"], 1).astype(float)
    mean = [got[f"sum_{i}"] / number for i in "zyx"]
    tensor = np.zeros((len(number), 3, 3))
    for name in _SECOND:
        i, j = "zyx".index(name[-2]), "zyx".index(name[-1])
        tensor[:, i, j] = tensor[:, j, i] = got[name] / number - mean[i] * mean[j]
    # the spread of a voxel itself
    values = np.linalg.eigvalsh(tensor + np.eye(3) / 12)
    return np.asarray(np.sqrt(np.maximum(values, 1 / 12)))


@measurement(kinds=ALL, gathers=(counts, moments))
def flatness(got: Gathered, context: Context) -> DoubleArray:
    """Shortest over middle main axis of the mask, from second moments; 1 for a ball, 0 for a plate; no unit.

    Bias: a voxel's own spread, 1/12, keeps it above 0. Source: inertia tensor.
    """
    axes = _axes(got, context)
    return np.asarray(axes[:, 0] / axes[:, 1])


@measurement(kinds=ALL, gathers=(counts, moments))
def elongation(got: Gathered, context: Context) -> DoubleArray:
    """Middle over longest main axis of the mask, from second moments; 1 for a ball, 0 for a rod; no unit.

    Bias: as `flatness`. Source: inertia tensor.
    """
    axes = _axes(got, context)
    return np.asarray(axes[:, 1] / axes[:, 2])


@measurement(kinds=ALL, gathers=(counts, deficits, ball_sums, shell_sums))
def equivalent_diameter_um(got: Gathered, context: Context) -> DoubleArray:
    """Diameter of the ball of the object's volume, (6 V / pi)^(1/3), um.

    V is `volume_um3`; of chips and inclusions, which miss nothing, the count. Bias: a third of the volume's.
    Source: definition.
    """
    volume = volume_um3(got, context)
    solid = np.isin(context.objects.kinds, ("chip", "inclusion"))
    used = np.where(solid, got["voxels"] * context.voxel_um3, volume)
    return np.asarray(np.cbrt(6 * np.maximum(used, 0) / np.pi))


@measurement(kinds=ALL, gathers=(reaches,))
def feret_um(got: Gathered, context: Context) -> DoubleArray:
    """Largest width of the object's shadow on the interface plane, um.

    Largest over 36 directions of farthest minus nearest voxel, plus one voxel. Bias: up to -0.4 % by the
    directions, and the width that the mask has too much or too little at the rim. Source: Feret.
    """
    width = np.stack([got[a] + got[b] for a, b in zip(_FERETS[:36], _FERETS[36:], strict=True)], axis=1)
    return np.asarray((width.max(axis=1) / FIXED + 1) * context.scene.voxel_um)


@gather(columns=("shadow",))
def shadow(region: Region) -> Whole:
    """Voxels whose upper neighbour is no part of the object: its area as seen along z."""
    z, y, x = region.place
    labels = region.patch.objects
    above = np.where(z > 0, labels[np.maximum(z - 1, 0), y, x], 0)
    return region.counts((region.d2 == 0) & (above != region.owner))[:, None]


@measurement(kinds=ALL, gathers=(shadow,))
def equivalent_radius_um(got: Gathered, context: Context) -> DoubleArray:
    """Radius of the disc of the object's area as seen along the axis, sqrt(A / pi), um.

    A counts upper faces of the mask. Bias: parts of an object above each other count twice.
    Source: definition.
    """
    return np.asarray(np.sqrt(got["shadow"] / np.pi) * context.scene.voxel_um)


@measurement(kinds=ALL, gathers=(reaches,))
def truncated(got: Gathered, context: Context) -> NDArray[np.bool_]:
    """Object touches the rim of the view, or the first or last row: what is measured is the part within.

    Within 1.5 voxels of the rim. Bias: none. Source: definition.
    """
    rim = got["rim"] / FIXED >= context.scene.view_px - 1.5
    return np.asarray(rim | (got["first_row"] > 0) | (got["last_row"] > 0))


def distance_px(got: Gathered, face: str) -> DoubleArray:
    """Distance along z from a face to the nearest side of each object, 0 where they touch; inf without."""
    below, above = got[f"gap_{face}_below"], got[f"gap_{face}_above"]
    near = np.minimum(below, above)
    return np.where(near < _NONE, np.maximum(near / FIXED, 0), np.inf)


def touches(got: Gathered, face: str) -> NDArray[np.bool_]:
    """Objects that come within `TOUCH_PX` of a face."""
    return np.asarray(distance_px(got, face) <= TOUCH_PX)


@measurement(kinds=ALL, gathers=(gaps,))
def touches_interface(got: Gathered, context: Context) -> NDArray[np.bool_]:
    """Object reaches the NaK/NASICON interface, within 2.5 voxels: that of a chip where one stands out.

    Bias: a gap thinner than that, about the blur, is not seen. Source: definition.
    """
    return touches(got, INTERFACE)


@measurement(kinds=ALL, gathers=(gaps,))
def touches_counter(got: Gathered, context: Context) -> NDArray[np.bool_]:
    """Object reaches the face between NASICON and counter electrode, within 2.5 voxels.

    Bias: as `touches_interface`. Source: definition.
    """
    return touches(got, COUNTER_FACE)


@measurement(kinds=ALL, gathers=(gaps,))
def interface_distance_um(got: Gathered, context: Context) -> DoubleArray:
    """Distance along z from the interface, or a chip that stands out of it, to the nearest side, um.

    Bias: that of the mask's surface, half a voxel. Source: definition.
    """
    gap = distance_px(got, INTERFACE) * context.scene.voxel_um
    return np.where(np.isfinite(gap), gap, np.nan)
