"""Grey levels of layers: material plus the offset an interior scan leaves, and the noise of voxels and cubes.

The offset is smooth: even powers of the distance from the axis, and a first harmonic because the cell stands
beside the axis. It is fitted to means over cubes, not to voxels: single voxels are noisier than the contrast
of NaK to a void, and of those no robust fit would tell which is which. Where a void fills a layer from face
to face, the layer is taken to read what the void does, and the layer's attenuation more.
"""

import math
from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.segment.scene import Level
from xctpipe.segment.surface import Place
from xctpipe.segment.view import grey_map

N_RADII = 33
EDGES_PX = (1, 2, 3, 4, 6, 8, 12, 16)
CELLS = 18
"""Across a radius of the view."""
MOST_CUBES = 3000
_TUKEY = 3.5
_STRANGE = 4.0
_ROUNDS = 10
_COMMON = 0.45
"""Of the attenuation of a layer: less than a void takes away."""
_FEWEST = 40
_QUIET = 0.1
"""Of the attenuation of a layer: noise of cells among which a robust fit tells the layer from voids."""
_DARK = 0.3
"""Of the attenuation of a layer: cells that miss more are dark."""
_FEWEST_CELLS = 8
"""Across a radius of the view, in noise."""
_ABOVE = 0.05
"""Share of cells a void's contrast above the densest third from which these are the layer."""
_STIFF = [0, 1, 2, 5, 6, 9, 10]
"""Terms of the basis: even powers up to the fourth, odd ones up to the third."""
_SUPPLE = list(range(13))


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a layer in each column: first and end (y, x), first = end where there is none."""

    first: NDArray[np.int32]
    end: NDArray[np.int32]


def rows_between(
    place: Place, *, low: DoubleArray | float, high: DoubleArray | float, margin_px: float, n_rows: int
) -> Rows:
    """Rows whose centres are between two faces, at least `margin_px` from each, in the view."""
    shape = place.radius().shape
    inside = place.radius() <= place.view_px
    first = np.clip(np.ceil(np.broadcast_to(low, shape) + margin_px), 0, n_rows)
    end = np.clip(np.floor(np.broadcast_to(high, shape) - margin_px) + 1, 0, n_rows)
    first, end = np.where(inside, first, 0), np.where(inside, np.maximum(end, first), 0)
    return Rows(first.astype(np.int32), end.astype(np.int32))


def fit_level(volume: FloatArray, *, rows: Rows, place: Place, mu_cm1: float) -> Level | None:
    """Level of the layer that fills `rows`; None where it holds too few voxels."""
    if not (rows.end > rows.first).any():
        return None
    cells = _quiet_cells(volume, rows, place, mu_cm1)
    if len(cells.values) < _FEWEST:
        return None
    dy, dx = cells.y - place.axis_px[0], cells.x - place.axis_px[1]
    basis = _basis(dy, dx, place.view_px)
    keep, usual = _common(cells.values, mu_cm1)
    # a stiff fit first: a supple one would follow a bubble that fills most of its place
    for terms in (_STIFF, _SUPPLE, _SUPPLE):
        lifted = _lifted(cells, keep, mu_cm1, expected=usual)
        use = keep | lifted
        values = cells.values + mu_cm1 * lifted
        found = np.zeros(basis.shape[1])
        found[terms], spread = _tukey(basis[use][:, terms], values[use])
        strange = np.zeros(cells.enough.shape, np.bool_)
        usual = basis @ found
        strange[cells.enough] = np.abs(cells.values - usual) > _STRANGE * spread
        # what is strange reaches a little way into the cells beside it
        near = ndimage.binary_dilation(strange)[cells.enough]
        keep = ~near if (~near).sum() > 0.5 * len(near) else ~strange[cells.enough]
    level = _as_level(found, mu_cm1, place.view_px)
    missing = usual - cells.values
    dark = missing[missing > max(_STRANGE * spread, _DARK * mu_cm1)]
    level = replace(
        level,
        seen_frac=1 - float(_hidden(cells, cells.values > usual - _COMMON * mu_cm1).mean()),
        dark_frac=float(dark.sum()) / mu_cm1 / len(missing),
    )
    return _with_noise(volume, level, rows=rows, place=place)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Means over cubes of a layer: which cubes of a grid hold enough of it, their values and middles."""

    enough: NDArray[np.bool_]
    values: DoubleArray
    y: DoubleArray
    x: DoubleArray


def _quiet_cells(volume: FloatArray, rows: Rows, place: Place, mu_cm1: float) -> _Cells:
    """Cubes as small as the view asks, and as large as it takes to tell the layer from a void."""
    edge = int(np.clip(round(place.view_px / CELLS), 2, 16))
    cells = _cells(volume, rows, edge)
    noise = _noise_along_z(cells)
    if noise > _QUIET * mu_cm1:
        # noise of such means falls with about the square of the edge
        larger = math.ceil(edge * math.sqrt(noise / (_QUIET * mu_cm1)))
        larger = min(larger, max(edge, int(place.view_px / _FEWEST_CELLS)))
        quieter = _cells(volume, rows, larger) if larger > edge else cells
        cells = quieter if len(quieter.values) >= _FEWEST else cells
    return cells


def _cells(volume: FloatArray, rows: Rows, edge: int) -> _Cells:
    filled = rows.end > rows.first
    first, end = int(rows.first[filled].min()), int(rows.end.max())
    grid = tuple(-(-n // edge) for n in (end - first, *volume.shape[1:]))
    sums = np.zeros((4, *grid))
    _add_cells(volume, rows.first, rows.end, first, edge, sums)
    enough = sums[0] > 0.4 * min(edge, np.median((rows.end - rows.first)[filled])) * edge**2
    value, y, x = (sums[1:] / np.maximum(sums[0], 1))[:, enough]
    return _Cells(enough, value, y, x)


def _noise_along_z(cells: _Cells) -> float:
    """Standard deviation of values from cubes that lie upon each other: levels do not change along z."""
    grid = np.full(cells.enough.shape, np.nan)
    grid[cells.enough] = cells.values
    steps = np.diff(grid, axis=0)
    steps = steps[np.isfinite(steps)]
    return 1.4826 * float(np.median(np.abs(steps))) / math.sqrt(2) if steps.size else 0.0


def _lifted(
    cells: _Cells, keep: NDArray[np.bool_], mu_cm1: float, *, expected: DoubleArray
) -> NDArray[np.bool_]:
    """Cells of voids that say what their layer would read: where it shows in no other cell of a column.

    Parameters
    ----------
    keep : cells of the layer.
    expected : what the layer reads in each cell, as far as known.
    """
    lifted: NDArray[np.bool_] = _hidden(cells, keep) & (
        np.abs(cells.values + mu_cm1 - expected) < _COMMON * mu_cm1
    )
    return lifted


def _hidden(cells: _Cells, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells in whose column there is none of the layer."""
    shown = np.zeros(cells.enough.shape, np.bool_)
    shown[cells.enough] = keep
    hidden: NDArray[np.bool_] = np.broadcast_to(~shown.any(axis=0), shown.shape)[cells.enough]
    return hidden


@numba.njit(cache=True, nogil=True)
def _add_cells(volume, first, end, z0, edge, sums):  # type: ignore[no-untyped-def]
    for k in range(sums.shape[1]):
        for z in range(z0 + k * edge, min(z0 + (k + 1) * edge, volume.shape[0])):
            for y in range(volume.shape[1]):
                j = y // edge
                for x in range(volume.shape[2]):
                    if first[y, x] <= z < end[y, x]:
                        value = volume[z, y, x]
                        if np.isfinite(value):
                            i = x // edge
                            sums[0, k, j, i] += 1
                            sums[1, k, j, i] += value
                            sums[2, k, j, i] += y
                            sums[3, k, j, i] += x


def _common(values: DoubleArray, mu_cm1: float) -> tuple[NDArray[np.bool_], DoubleArray]:
    """Cells that read about as the densest third does, or those a void's contrast above; and that value.

    Bubbles may fill more of a layer than its liquid; of two levels so far apart the upper one is the layer.
    """
    ordered = np.sort(values)
    third = max(len(ordered) // 3, 1)
    first = int(np.argmin(ordered[third:] - ordered[:-third])) if len(ordered) > third else 0
    middle = np.median(ordered[first : first + third])
    above = ordered[np.abs(ordered - middle - mu_cm1) < 0.5 * _COMMON * mu_cm1]
    if len(above) > max(_ABOVE * len(ordered), _FEWEST):
        middle = np.median(above)
    common: NDArray[np.bool_] = np.abs(values - middle) < _COMMON * mu_cm1
    return common, np.full(len(values), middle)


def _basis(dy: DoubleArray, dx: DoubleArray, view_px: float) -> DoubleArray:
    """Even powers of the distance, and odd ones times the direction: (n, 13)."""
    y, x = dy / view_px, dx / view_px
    square = y**2 + x**2
    even = [square**k for k in range(5)]
    odd = [d * square**k for d in (y, x) for k in range(4)]
    return np.stack(even + odd, axis=-1)


def _tukey(basis: DoubleArray, values: DoubleArray) -> tuple[DoubleArray, float]:
    """Robust fit by the biweight, and the standard deviation about it from the median absolute deviation."""
    found = np.asarray(np.linalg.lstsq(basis, values, rcond=None)[0], np.float64)
    for _ in range(_ROUNDS):
        away = values - basis @ found
        spread = max(1.4826 * float(np.median(np.abs(away))), 1e-9)
        weight = np.clip(1 - (away / (_TUKEY * spread)) ** 2, 0, None)
        found = np.asarray(
            np.linalg.lstsq(basis * weight[:, None], values * weight, rcond=None)[0], np.float64
        )
    return found, max(1.4826 * float(np.median(np.abs(values - basis @ found))), 1e-9)


def _as_level(found: DoubleArray, mu_cm1: float, view_px: float) -> Level:
    radii = np.linspace(0, view_px, N_RADII)
    t = radii / view_px
    even = np.stack([t ** (2 * k) for k in range(5)])
    odd = np.stack([t ** (2 * k + 1) for k in range(4)])
    lean = found[5:].reshape(2, 4) @ odd
    return Level(mu_cm1, radii, found[:5] @ even - mu_cm1, np.nan, lean_cm1=lean)


def _with_noise(volume: FloatArray, level: Level, *, rows: Rows, place: Place) -> Level:
    grey = grey_map(level, axis_px=place.axis_px, rows=place.rows, cols=place.cols)
    noise = np.full(len(EDGES_PX), np.nan)
    for i, edge in enumerate(EDGES_PX):
        means = _cube_means(volume, grey, rows, edge)
        if len(means) >= _FEWEST:
            noise[i] = 1.4826 * np.median(np.abs(means - np.median(means)))
    known = np.isfinite(noise)
    if not known.any():
        noise[:] = 0.0
    edges = np.array(EDGES_PX, np.float64)
    last = int(np.flatnonzero(known)[-1]) if known.any() else 0
    # cubes that do not fit the layer: noise falls no faster than with the edge, as it does beside rings
    noise[last + 1 :] = noise[last] * edges[last] / edges[last + 1 :]
    return replace(level, noise_cm1=float(noise[0]), noise_edges_px=edges, noise_of_means_cm1=noise)


def _cube_means(volume: FloatArray, grey: FloatArray, rows: Rows, edge: int) -> DoubleArray:
    """Means over cubes of voxels less their level, at most about `MOST_CUBES`, spread over the layer."""
    filled = rows.end > rows.first
    if not filled.any():
        return np.empty(0)
    first, end = int(rows.first[filled].min()), int(rows.end.max())
    voxels = float((rows.end - rows.first)[filled].sum())
    spacing = max(1, round((voxels / MOST_CUBES) ** (1 / 3)))
    pitch = (max(edge, min(spacing, (end - first) // 3)), max(edge, spacing))
    out = np.empty(8 * MOST_CUBES)
    n = _add_cubes(volume, grey, rows.first, rows.end, (first, end), (edge, *pitch), out)
    return out[:n]


@numba.njit(cache=True, nogil=True)
def _add_cubes(volume, grey, first, end, span, size, out):  # type: ignore[no-untyped-def]
    edge, dz, dyx = size
    ny, nx = grey.shape
    n = 0
    for z in range(span[0], span[1] - edge + 1, dz):
        for y in range(0, ny - edge + 1, dyx):
            for x in range(0, nx - edge + 1, dyx):
                total, fits = 0.0, n < len(out)
                for j in range(y, y + edge):
                    for i in range(x, x + edge):
                        if not fits or first[j, i] > z or end[j, i] < z + edge:
                            fits = False
                            break
                        for k in range(z, z + edge):
                            total += volume[k, j, i] - grey[j, i]
                if fits and np.isfinite(total):
                    out[n] = total / edge**3
                    n += 1
    return n
