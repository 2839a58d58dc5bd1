"""Which layers a volume shows, and from which row to which: by the order of the stack and known attenuation.

The stack is collector, NaK, NASICON, counter electrode and what is behind it; a scan shows some of these in
a row, in either order. Layers are found together, by dynamic programming on the profile along z, because an
interior scan adds an unknown offset: what one layer reads alone does not say what it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.errors import BadScan, NoCell
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.segment.scene import COLLECTOR, COUNTER, LIQUID, SOLID, Up
from xctpipe.segment.view import tile_means

IntArray = NDArray[np.int64]

BEHIND = 5
"""What lies behind the counter electrode; for everyone else it is COUNTER too."""

STACK = (COLLECTOR, LIQUID, SOLID, COUNTER, BEHIND)

_TILE = 8
_LIGHT_TOLERANCE = 0.13
"""Of the attenuation of NaK: how far a light layer is from its own level once all have the same offset."""
_SOLID_TOLERANCE = 0.3
"""Of the attenuation of NASICON, whose offset is its own."""
_OFFSETS = np.linspace(-0.35, 1.1, 59)
_OFFSET_WEIGHT = 4.0
_WORST = 16.0
_CHANGE = 12.0
_THICKER = 16.0
"""Cost of NaK that is thinner than the counter electrode."""
_FOIL_UM = 600.0
_TOO_THICK = 0.3
"""Cost of each row of a counter electrode that is thicker than a foil."""
_FEWEST_ROWS = 2
_USABLE = 5.0
_SURE, _LIKELY = 1.0, 0.25


@dataclass(frozen=True)
class Layers:
    """Rows [first, end) of each layer in view, the order of the stack, and how sure that is."""

    rows: Mapping[int, tuple[int, int]]
    up: Up | None
    grey_cm1: Mapping[int, float]
    notes: tuple[str, ...]


def profile(volume: FloatArray, *, axis_px: tuple[float, float], view_px: float) -> DoubleArray:
    """Grey level of each row: median over tiles in the middle of the view, NaN where a row holds none."""
    half = 0.6 * view_px
    y0, x0 = (max(0, int(np.ceil(c - half))) for c in axis_px)
    y1, x1 = (min(n, int(c + half) + 1) for n, c in zip(volume.shape[1:], axis_px, strict=True))
    edge = max(1, min(_TILE, (min(y1 - y0, x1 - x0)) // 4))
    tiles = np.empty((len(volume), max(0, (y1 - y0) // edge), max(0, (x1 - x0) // edge)), np.float32)
    if not tiles.size:
        raise BadScan(
            f"view of radius {view_px:.4g} voxels about {axis_px} holds no part of a volume of shape "
            f"{volume.shape}; check the axis"
        )
    tile_means(volume, y0, x0, edge, tiles)
    flat = tiles.reshape(len(volume), -1)
    out = np.full(len(volume), np.nan)
    seen = np.isfinite(flat).any(axis=1)
    out[seen] = np.nanmedian(flat[seen], axis=1)
    return out


def find_layers(
    profile_cm1: DoubleArray,
    *,
    mu_cm1: Mapping[int, float],
    voxel_um: float,
    up: Up | None,
    noise_cm1: float = 0.0,
) -> Layers:
    """Find the layers of a profile along z.

    Parameters
    ----------
    profile_cm1 : (z,) grey level of each row; NaN where nothing is known.
    mu_cm1 : attenuation of each of `STACK`.
    voxel_um : height of a row.
    up : electrode at low z; None: found.
    noise_cm1 : standard error of a row's level, where it is more than materials may differ from tables.

    Raises
    ------
    NoCell
        If neither NASICON nor NaK is there.
    """
    ways: tuple[Up, ...] = ("nak", "na") if up is None else (up,)
    how: dict[str, float] = {"voxel_um": voxel_um, "noise_cm1": noise_cm1}
    found = {way: _best(profile_cm1, mu_cm1, way=way, **how) for way in ways}
    cost, states = min(found.values(), key=lambda pair: pair[0])
    n_known = int(np.isfinite(profile_cm1).sum())
    rows = _runs(states)
    if not {SOLID, LIQUID} & set(rows) or n_known == 0 or cost > _USABLE * n_known:
        low, high = (np.nanmin(profile_cm1), np.nanmax(profile_cm1)) if n_known else (np.nan, np.nan)
        raise NoCell(
            f"neither NASICON ({mu_cm1[SOLID]:.3g} cm^-1) nor NaK ({mu_cm1[LIQUID]:.3g} cm^-1) is found: "
            f"rows read {low:.3g} to {high:.3g} cm^-1; check the energy, [cell] and the volume"
        )
    best, note = _order(found, rows, fixed=up)
    grey = {layer: float(np.nanmedian(profile_cm1[first:end])) for layer, (first, end) in rows.items()}
    return Layers(rows, best, grey, (note, *_missing(rows)))


def _best(
    profile_cm1: DoubleArray, mu_cm1: Mapping[int, float], *, way: Up, voxel_um: float, noise_cm1: float
) -> tuple[float, IntArray]:
    """Cheapest rows of all layers in one order, over all offsets that light layers may share."""
    order = np.array(STACK if way == "nak" else STACK[::-1], dtype=np.int64)
    mu, liquid = np.array([mu_cm1[k] for k in order]), mu_cm1[LIQUID]
    light = order != SOLID
    tolerance = np.where(light, _LIGHT_TOLERANCE * liquid, _SOLID_TOLERANCE * mu_cm1[SOLID])
    if noise_cm1:
        tolerance = np.hypot(tolerance, noise_cm1)
    best_cost, best = np.inf, order
    for offset in _OFFSETS:
        away = (profile_cm1[:, None] - mu - np.where(light, offset * liquid, 0.0)) / tolerance
        costs = np.where(np.isfinite(away), np.minimum(away**2, _WORST), 0.0)
        path, cost = _cheapest(costs, _CHANGE)
        states = order[path]
        cost += _OFFSET_WEIGHT * offset**2 + _unlikely(states, voxel_um)
        if cost < best_cost:
            best_cost, best = float(cost), states
    return best_cost, best


@numba.njit(cache=True, nogil=True)
def _cheapest(costs, change):  # type: ignore[no-untyped-def]
    """Path through costs (row, state) that starts and ends anywhere and only stays or goes one state on."""
    n, m = costs.shape
    moved = np.zeros((n, m), np.bool_)
    total = costs[0].copy()
    for z in range(1, n):
        for k in range(m - 1, -1, -1):
            if k > 0 and total[k - 1] + change < total[k]:
                total[k] = total[k - 1] + change
                moved[z, k] = True
            total[k] += costs[z, k]
    path = np.empty(n, np.int64)
    k = int(np.argmin(total))
    least = total[k]
    for z in range(n - 1, -1, -1):
        path[z] = k
        if moved[z, k]:
            k -= 1
    return path, least


def _runs(states: IntArray) -> dict[int, tuple[int, int]]:
    rows = {}
    for layer in STACK:
        where = np.flatnonzero(states == layer)
        if len(where) >= _FEWEST_ROWS:
            rows[layer] = (int(where[0]), int(where[-1]) + 1)
    return rows


def _unlikely(states: IntArray, voxel_um: float) -> float:
    """Cost of heights: NaK is thicker than the counter electrode, and that is a foil."""
    rows = _runs(states)
    height = {layer: end - first for layer, (first, end) in rows.items()}
    cost = 0.0
    if {COLLECTOR, LIQUID, COUNTER, BEHIND} <= set(rows) and height[LIQUID] < height[COUNTER]:
        cost += _THICKER
    if height.get(COUNTER, 0) * voxel_um > _FOIL_UM:
        cost += _TOO_THICK * height[COUNTER]
    return cost


def _order(
    found: Mapping[Up, tuple[float, IntArray]], rows: Mapping[int, tuple[int, int]], *, fixed: Up | None
) -> tuple[Up | None, str]:
    """Electrode at low z, and a note of how that is known."""
    if len(rows) < _FEWEST_ROWS:
        return fixed, "one layer fills the view: which electrode lies at low z is not to be seen"
    ways: list[Up] = sorted(found, key=lambda way: found[way][0])
    name = {"nak": "NaK", "na": "the counter electrode"}[ways[0]]
    if fixed is not None:
        return fixed, f"{name} lies at low z, as the recipe says"
    light = sum(end - first for layer, (first, end) in rows.items() if layer != SOLID)
    margin = (found[ways[1]][0] - found[ways[0]][0]) / max(light, 1)
    sure = "clear" if margin > _SURE else "likely" if margin > _LIKELY else "a guess; fix it with cell.up"
    return ways[0], (
        f"{name} lies at low z, by levels and heights of the light layers: {sure} (the other order costs "
        f"{margin:.2g} more per row)"
    )


def _missing(rows: Mapping[int, tuple[int, int]]) -> tuple[str, ...]:
    names = {COLLECTOR: "collector", LIQUID: "NaK", SOLID: "NASICON", COUNTER: "counter electrode"}
    gone = [name for layer, name in names.items() if layer not in rows]
    return (f"not in view: {', '.join(gone)}",) if gone else ()
