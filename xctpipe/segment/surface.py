"""Faces between layers as surfaces: roughly by tiles, then by minimum cost, then to parts of a voxel.

All work on shares of the contrast in a band of rows about the face: 0 in the layer at low z, 1 beyond.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xctpipe.compiled import INNER
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.segment.edge import PER_PX, Edge, edge_table, look_up
from xctpipe.segment.plane import robust_plane
from xctpipe.segment.view import from_axis, plane, tile_means

BoolArray = NDArray[np.bool_]

TILES = 12
"""Across a radius of the view, to find a face roughly."""
STEP_COST, JUMP_COST = 0.6, 1.8
"""Of a surface that moves by one voxel, or by more, from a column to the next: voxels of full contrast."""
SIGMAS_PX = (1.0, 1.5, 2.0, 3.0, 4.0)
QUIET = 0.15
"""Smoothed noise that a surface is found in, in parts of the contrast."""
REACH_PX = 16
CLEAR_PX = 2.5
PROFILE_PX = 6.0
BIN_PX = 0.25
CLEAN_SIGMAS = 3.5
_ROUNDS = 5
_EVERY = 3


@dataclass(frozen=True)
class Place:
    """Where columns are: axis of rotation, radius of the view, and size of a slice."""

    axis_px: tuple[float, float]
    view_px: float
    rows: tuple[int, int]
    cols: tuple[int, int]

    def radius(self) -> DoubleArray:
        """Distance of each column from the axis."""
        return np.hypot(*from_axis(self.axis_px, rows=self.rows, cols=self.cols))

    def plane(self, reference: DoubleArray) -> DoubleArray:
        """Heights of a plane."""
        return plane(reference, axis_px=self.axis_px, rows=self.rows, cols=self.cols)

    def fit(self, height: FloatArray, *, start: DoubleArray) -> tuple[DoubleArray, float]:
        """Robust plane through heights (y, x)."""
        dy, dx = (np.broadcast_to(d, height.shape).ravel() for d in self._away())
        return robust_plane(dy, dx, height.astype(np.float64).ravel(), start=start)

    def _away(self) -> tuple[DoubleArray, DoubleArray]:
        return from_axis(self.axis_px, rows=self.rows, cols=self.cols)


@dataclass(frozen=True, eq=False)
class Band:
    """Rows about a face: shares of the contrast (y, x, z - first), 0 in the layer at low z, 1 beyond."""

    share: FloatArray
    first: int
    known: tuple[int, int]
    """First and end of its rows that the volume holds and that show no other face."""


def rough_plane(
    volume: FloatArray, *, place: Place, rows: tuple[int, int], levels_cm1: tuple[float, float]
) -> DoubleArray:
    """Plane of a face to about a voxel, from means over tiles.

    Parameters
    ----------
    rows : first and end of the rows that hold the face and no other one.
    levels_cm1 : of the layers at low and at high z.
    """
    edge = max(3, round(place.view_px / TILES))
    centres_y, centres_x = (_centres(n, c, place.view_px, edge) for n, c in _ends(volume, place))
    inside = np.hypot(*np.meshgrid(centres_y, centres_x, indexing="ij")) < place.view_px - 0.7 * edge
    tiles = np.empty((rows[1] - rows[0], len(centres_y), len(centres_x)), np.float32)
    corner = [
        round(c[0] + a - (edge - 1) / 2) for c, a in zip((centres_y, centres_x), place.axis_px, strict=True)
    ]
    tile_means(volume[rows[0] : rows[1]], corner[0], corner[1], edge, tiles)
    share = (tiles - levels_cm1[0]) / (levels_cm1[1] - levels_cm1[0]) - 0.5
    cost = np.concatenate([np.zeros((1, *tiles.shape[1:])), np.cumsum(np.nan_to_num(share), axis=0)])
    height = rows[0] + np.argmin(cost, axis=0) - 0.5
    y, x = np.meshgrid(centres_y, centres_x, indexing="ij")
    return robust_plane(y[inside], x[inside], height[inside])[0]


def _ends(volume: FloatArray, place: Place) -> list[tuple[int, float]]:
    return list(zip(volume.shape[1:], place.axis_px, strict=True))


def _centres(n: int, axis: float, view: float, edge: int) -> DoubleArray:
    """Centres of tiles in the view and in the volume, from the axis."""
    low, high = max(0, math.ceil(axis - view)), min(n - 1, math.floor(axis + view))
    count = max(1, (high - low + 1) // edge)
    first = low + (high - low + 1 - count * edge) // 2
    return np.asarray(first + edge * np.arange(count) + (edge - 1) / 2 - axis, np.float64)


def cut_band(
    volume: FloatArray,
    *,
    place: Place,
    rough: DoubleArray,
    rows: tuple[int, int],
    levels_cm1: tuple[FloatArray, FloatArray],
) -> Band:
    """Shares of the contrast in rows about a rough plane; what is unknown is taken to lie as the plane says.

    Parameters
    ----------
    rows : first and end of the rows that hold no other face, beyond the volume or not.
    levels_cm1 : (y, x) of the layers at low and at high z.
    """
    height = place.plane(rough)
    inside = place.radius() <= place.view_px
    reach = REACH_PX + 1
    first = max(rows[0], math.floor(height[inside].min()) - reach)
    end = min(rows[1], math.ceil(height[inside].max()) + reach + 1)
    # a face at the end of the volume still has rows on both sides of it, of which nothing is known
    first, end = (
        min(first, math.floor(height[inside].min()) - 4),
        max(end, math.ceil(height[inside].max()) + 5),
    )
    share = np.empty((*height.shape, end - first), np.float32)
    low, high = levels_cm1
    _fill_band(volume, height.astype(np.float32), inside, first, rows, low, high, share)
    known = max(first, rows[0], 0) - first, min(end, rows[1], len(volume)) - first
    return Band(share, first, known)


@numba.njit(cache=True, nogil=True)
def _fill_band(volume, height, inside, first, rows, low, high, out):  # type: ignore[no-untyped-def]
    nz = volume.shape[0]
    for k in range(out.shape[2]):
        z = first + k
        known = 0 <= z < nz and rows[0] <= z < rows[1]
        for y in range(out.shape[0]):
            for x in range(out.shape[1]):
                value = np.float32(1.0) if z > height[y, x] else np.float32(0.0)
                if known and inside[y, x] and np.isfinite(volume[z, y, x]):
                    value = (volume[z, y, x] - low[y, x]) / (high[y, x] - low[y, x])
                out[y, x, k] = value


def smooth_band(band: Band, *, place: Place, rough: DoubleArray) -> tuple[FloatArray, float, float]:
    """Smooth a band within its rows, as little as its noise allows; also the width, and the noise left."""
    inside = (place.radius() <= place.view_px).astype(np.float32)
    height = np.asarray(place.plane(rough) - band.first, np.float64)
    for sigma in SIGMAS_PX:
        smooth = _within(band.share, inside, sigma)
        noise = _noise(smooth, inside > 0, height, band.known)
        if noise < QUIET:
            break
    return smooth, sigma, noise


def _within(share: FloatArray, inside: FloatArray, sigma: float) -> FloatArray:
    total: FloatArray = share * inside[:, :, None]
    weight: FloatArray = inside
    for axis in (0, 1):
        total = ndimage.gaussian_filter1d(total, sigma, axis=axis, truncate=3.0, mode="constant")
        weight = ndimage.gaussian_filter1d(weight, sigma, axis=axis, truncate=3.0, mode="constant")
    return np.asarray(total / np.maximum(weight, 1e-6)[:, :, None], np.float32)


def _noise(smooth: FloatArray, inside: BoolArray, height: DoubleArray, known: tuple[int, int]) -> float:
    """Of shares away from the face, whichever side is noisier, from some of the columns."""
    some = slice(None, None, _EVERY)
    away = np.arange(*known) - height[some, some, None]
    values = smooth[some, some, known[0] : known[1]]
    seen = inside[some, some, None]
    sides = []
    for side in (away < -CLEAR_PX, away > CLEAR_PX):
        own = values[side & seen]
        if own.size:
            sides.append(1.4826 * float(np.median(np.abs(own - np.median(own)))))
    return max(sides, default=np.inf)


def cheapest_surface(smooth: FloatArray) -> FloatArray:
    """Surface of least cost (y, x): number of voxels before it in each column of shares (y, x, z).

    The cost of a column is that of two layers meeting there: voxels before it read 0 and those behind 1.
    Costs are added up along four directions, in which the surface pays for its steps.

    References
    ----------
    Hirschmueller, IEEE Trans. Pattern Anal. Mach. Intell. 30 (2008) 328, doi 10.1109/TPAMI.2007.1166.
    """
    ny, nx, nz = smooth.shape
    cost = np.zeros((ny, nx, nz + 1), np.float32)
    np.cumsum(np.clip(smooth, -0.5, 1.5) - 0.5, axis=2, out=cost[:, :, 1:])
    total = np.zeros_like(cost)
    for step in (1, -1):
        _along_rows(cost, step, total)
        _along_cols(cost, step, total)
    return np.asarray(np.argmin(total, axis=2), np.float32)


@numba.njit(**INNER)
def _pass_on(cost, before, now, total):  # type: ignore[no-untyped-def]
    n = len(cost)
    least = before.min()
    for d in range(n):
        best = min(before[d], least + np.float32(JUMP_COST))
        if d > 0:
            best = min(best, before[d - 1] + np.float32(STEP_COST))
        if d + 1 < n:
            best = min(best, before[d + 1] + np.float32(STEP_COST))
        now[d] = cost[d] + best - least
        total[d] += now[d]


@numba.njit(cache=True, nogil=True)
def _along_rows(cost, step, total):  # type: ignore[no-untyped-def]
    ny, nx, n = cost.shape
    for y in range(ny):
        before, now = np.zeros(n, np.float32), np.zeros(n, np.float32)
        for i in range(nx):
            x = i if step > 0 else nx - 1 - i
            _pass_on(cost[y, x], before, now, total[y, x])
            before, now = now, before


@numba.njit(cache=True, nogil=True)
def _along_cols(cost, step, total):  # type: ignore[no-untyped-def]
    ny, nx, n = cost.shape
    before, now = np.zeros((nx, n), np.float32), np.zeros((nx, n), np.float32)
    for i in range(ny):
        y = i if step > 0 else ny - 1 - i
        for x in range(nx):
            _pass_on(cost[y, x], before[x], now[x], total[y, x])
        before, now = now, before


def refine(smooth: FloatArray, surface: FloatArray, *, edge: Edge, contrast_cm1: float) -> FloatArray:
    """Heights in rows of the band: the edge's profile fitted to each column near the surface.

    Parameters
    ----------
    contrast_cm1 : level at high z less that at low z.
    """
    out = np.empty(surface.shape, np.float32)
    table = edge_table(edge, contrast_cm1=abs(contrast_cm1))
    if contrast_cm1 < 0:
        table = 1 - table[::-1]
    _fit_columns(smooth, surface, table, max(2.0, 2.5 * edge.blur_px), out)
    return out


@numba.njit(cache=True, nogil=True)
def _fit_columns(smooth, surface, table, reach, out):  # type: ignore[no-untyped-def]
    ny, nx, nz = smooth.shape
    half = 0.5 / PER_PX * 8
    for y in range(ny):
        for x in range(nx):
            start = surface[y, x] - 0.5
            h = start
            for _ in range(_ROUNDS):
                up, down = 0.0, 0.0
                for z in range(max(0, math.ceil(h - reach)), min(nz - 1, math.floor(h + reach)) + 1):
                    slope = (look_up(table, z - h + half) - look_up(table, z - h - half)) / (2 * half)
                    up += slope * (look_up(table, z - h) - smooth[y, x, z])
                    down += slope * slope
                if down < 1e-6:
                    break
                move = min(max(up / down, -0.7), 0.7)
                h = min(max(h + move, start - 1.5), start + 1.5)
                if abs(move) < 1e-3:
                    break
            out[y, x] = h


def clean_columns(smooth: FloatArray, height: FloatArray, *, inside: BoolArray) -> BoolArray:
    """Columns (y, x) that read on both sides of a face as most do: no void, pore or crack beside it."""
    means = np.empty((2, *height.shape), np.float32)
    _side_means(smooth, height, means)
    clean = inside.copy()
    for side in means:
        known = inside & np.isfinite(side)
        if known.any():
            middle = np.median(side[known])
            spread = 1.4826 * np.median(np.abs(side[known] - middle))
            clean &= ~(np.abs(side - middle) > CLEAN_SIGMAS * spread)
    return clean


@numba.njit(cache=True, nogil=True)
def _side_means(smooth, height, out):  # type: ignore[no-untyped-def]
    for y in range(height.shape[0]):
        for x in range(height.shape[1]):
            total, n = np.zeros(2), np.zeros(2)
            for z in range(smooth.shape[2]):
                d = z - height[y, x]
                if CLEAR_PX <= abs(d) <= PROFILE_PX:
                    side = 1 if d > 0 else 0
                    total[side] += smooth[y, x, z]
                    n[side] += 1
            for side in range(2):
                out[side, y, x] = total[side] / n[side] if n[side] > 0 else np.nan


def mean_profile(
    share: FloatArray, *, height: DoubleArray, columns: BoolArray, known: tuple[int, int]
) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Mean of shares over columns by distance from a face: distances, shares and numbers of voxels.

    Parameters
    ----------
    height : (y, x) in rows of the band.
    known : first and end row of the band that the volume holds.
    """
    sums = np.zeros((3, 2 * round(PROFILE_PX / BIN_PX) + 1))
    _add_profile(share, height, columns, known, sums)
    seen = sums[2] > 0
    return sums[0, seen] / sums[2, seen], sums[1, seen] / sums[2, seen], sums[2, seen]


@numba.njit(cache=True, nogil=True)
def _add_profile(share, height, columns, known, sums):  # type: ignore[no-untyped-def]
    middle = sums.shape[1] // 2
    for y in range(share.shape[0]):
        for x in range(share.shape[1]):
            if columns[y, x]:
                for z in range(known[0], known[1]):
                    d = z - height[y, x]
                    k = middle + round(d / BIN_PX)
                    if 0 <= k < sums.shape[1]:
                        sums[0, k] += d
                        sums[1, k] += share[y, x, z]
                        sums[2, k] += 1
