"""How much there is of each phase, and in the NaK's chamber: rows of the tables `phases` and `balance`."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.measure.regions import IN_LIQUID, IN_SOLID, VOIDS
from xctpipe.segment.codes import KINDS, PHASES
from xctpipe.segment.scene import COLLECTOR_FACE, COUNTER_FACE, INTERFACE, Scene

PHASE_COLUMNS = ("phase", "volume_um3", "volume_low_um3", "volume_high_um3", "voxels")
BALANCE_COLUMNS = ("nak_um3", "void_um3", "chamber_um3", "chamber_low_um3", "chamber_high_um3", "view_um2")
_Z95 = 1.96
_LAYERS = {
    "collector": ((COLLECTOR_FACE,), ()),
    "nak": ((COLLECTOR_FACE, INTERFACE), IN_LIQUID),
    "nasicon": ((INTERFACE, COUNTER_FACE), IN_SOLID),
    "counter_electrode": ((COUNTER_FACE,), ()),
}
"""Faces of the layers, and the voids that lie in them."""


def phase_rows(
    scene: Scene, voxels: NDArray[np.int64], table: Mapping[str, NDArray[Any]]
) -> list[dict[str, Any]]:
    """Volume of each phase in view, with a 95 % interval.

    Objects: sum of their volumes, by missing attenuation where they have one; intervals add up in quadrature.
    Layers: voxels between their faces, with those of their voids, less the volumes of these; the interval is
    that of the mean heights of the faces, times the area in view, and of the voids. NaK includes what absorbs
    like it: an O-ring, a tube. Bias: the rim of the view, half a voxel wide.

    Parameters
    ----------
    voxels : of each phase, by number.
    table : of objects.
    """
    rows = []
    for name, code in PHASES.items():
        if code and voxels[code]:
            count = int(voxels[code])
            amount = (
                _objects(table, (name,), count, scene)
                if name in KINDS
                else _layer(name, scene, voxels, table)
            )
            low, high = np.maximum(amount[0] - amount[1], 0.0), amount[0] + amount[2]
            rows.append(dict(zip(PHASE_COLUMNS, (name, amount[0], low, high, count), strict=True)))
    return rows


def balance_row(
    scene: Scene, voxels: NDArray[np.int64], table: Mapping[str, NDArray[Any]]
) -> dict[str, Any] | None:
    """NaK and voids in it, and their sum, as far as it is in view; None where NaK is not.

    A closed chamber keeps the sum: compare chamber_um3 / view_um2 where the view changes from scan to scan.
    """
    if not voxels[PHASES["nak"]]:
        return None
    nak, less, more = _layer("nak", scene, voxels, table)
    count = sum(int(voxels[PHASES[name]]) for name in IN_LIQUID)
    void = _objects(table, IN_LIQUID, count, scene)[0]
    area = math.pi * scene.view_px**2 * scene.voxel_um**2
    values = (nak, void, nak + void, nak + void - less, nak + void + more, area)
    return dict(zip(BALANCE_COLUMNS, values, strict=True))


_Amount = tuple[float, float, float]
"""Volume, and how much less and more it may be, um^3."""


def _objects(table: Mapping[str, NDArray[Any]], kinds: tuple[str, ...], count: int, scene: Scene) -> _Amount:
    chosen = np.isin(table["kind"], kinds)
    value, low, high = (table[f"volume_{end}um3"][chosen] for end in ("", "low_", "high_"))
    if not np.isfinite(value).any():
        return count * scene.voxel_um**3, math.nan, math.nan
    less, more = (math.sqrt(float(np.nansum(d**2))) for d in (value - low, high - value))
    return max(float(np.nansum(value)), 0.0), less, more


def _layer(name: str, scene: Scene, voxels: NDArray[np.int64], table: Mapping[str, NDArray[Any]]) -> _Amount:
    um3 = scene.voxel_um**3
    faces, kinds = _LAYERS[name]
    chosen = np.isin(table["kind"], [kind for kind in kinds if kind in VOIDS])
    counted = sum(int(voxels[PHASES[kind]]) for kind in kinds)
    void = _objects(table, kinds, counted, scene) if chosen.any() else (0.0, 0.0, 0.0)
    area = math.pi * scene.view_px**2
    known = [scene.surfaces[face].reference_sigma_px for face in faces if face in scene.surfaces]
    heights = _Z95 * area * math.hypot(*known, 0.0) * um3
    value = (int(voxels[PHASES[name]]) + counted) * um3 - void[0]
    return value, math.hypot(heights, void[2]), math.hypot(heights, void[1])
