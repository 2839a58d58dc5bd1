"""Line integrals of shapes averaged over detector pixels: exact across columns, by quadrature along rows.

Under a horizontal parallel beam each plane z is a problem of ellipses in two dimensions, so the mean over a
pixel's width is a difference of closed-form areas. Along z, Gauss-Legendre nodes are put on the part of the
row that the shape occupies; the area of an ellipsoid's cross-section is a parabola in z, so the sum of a
projection is the shape's mass to rounding. How that mass falls to the columns is exact only in the limit of
many nodes: with 4 a pixel that an edge crosses slantwise is wrong by up to 1 % of the largest value; `fine`
takes more where the edge moves by more columns within a row, and is right to 0.1 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from xctpipe.compiled import INNER
from xctpipe.phantom.shapes import SHADOW_FIELDS, SOLID_FIELDS, Shape, Solids, solid_shadows
from xctpipe.scan import DoubleArray, Span

# rules of 4, 8, 16, 32 and 64 nodes one after the other: the rule of n nodes starts at n - 4
_FEWEST, _MOST = 4, 64
_RULES = [np.polynomial.legendre.leggauss(_FEWEST << i) for i in range(5)]
_NODES, _WEIGHTS = (np.concatenate(parts) for parts in zip(*_RULES, strict=True))
# columns that an edge may move within a row for the rule of 4 nodes; twice the nodes, four times the columns
_STEADY_PX = 0.25


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _area(t: float, width2: float) -> float:
    """Integral of 2 sqrt(width2 - s^2) for s from 0 to t, |t| <= sqrt(width2)."""
    half = math.sqrt(width2)
    if abs(t) >= half:
        return math.copysign(0.5 * math.pi * width2, t)
    return t * math.sqrt(width2 - t * t) + width2 * math.asin(t / half)


@numba.njit(**INNER)  # type: ignore[untyped-decorator]
def _add_strip(line: DoubleArray, u: float, width2: float, weight: float) -> None:
    """Add the chords of an ellipse centred at column u, averaged over each column."""
    half = math.sqrt(width2)
    first = max(0, math.floor(u - half + 0.5))
    last = min(len(line), math.floor(u + half + 0.5) + 1)
    if last <= first:
        return
    before = _area(first - 0.5 - u, width2)
    for col in range(first, last):
        after = _area(col + 0.5 - u, width2)
        line[col] += weight * (after - before)
        before = after


@numba.njit(**INNER)  # type: ignore[untyped-decorator]
def _n_nodes(shadow: DoubleArray, low: float, high: float) -> int:
    """Nodes by how many columns the edge of a shadow moves between two heights, counted from its centre."""
    at_low = math.sqrt(max(shadow[5] * (1.0 - shadow[6] * low * low), 0.0))
    at_high = math.sqrt(max(shadow[5] * (1.0 - shadow[6] * high * high), 0.0))
    if low < 0.0 < high:
        # past the widest place and back
        widest = math.sqrt(shadow[5])
        moves = max(widest - at_low, widest - at_high)
    else:
        moves = abs(at_high - at_low)
    moves += abs(shadow[4]) * (high - low)
    n, columns = _FEWEST, _STEADY_PX
    while n < _MOST and moves > columns:
        n *= 2
        columns *= 4
    return n


@numba.njit(**INNER)  # type: ignore[untyped-decorator]
def _add_shadow(
    out: DoubleArray, shadow: DoubleArray, first_row: int, nodes: Any, weights: Any, fine: bool
) -> None:
    """Add one shadow, in pixels and with z counted in rows, to the rows from `first_row` on."""
    z0, z1, zc, uc, shear, width2, curvature, depth = shadow
    upright = curvature == 0.0 and shear == 0.0
    profile = np.zeros(out.shape[1])
    if upright:
        _add_strip(profile, uc, width2, depth)
    first = max(0, math.floor(z0 + 0.5) - first_row)
    last = min(out.shape[0], math.floor(z1 + 0.5) + 1 - first_row)
    for row in range(first, last):
        below = max(z0, first_row + row - 0.5)
        height = min(z1, first_row + row + 0.5) - below
        if height <= 0.0:
            continue
        if upright:
            out[row] += height * profile
            continue
        n = _n_nodes(shadow, below - zc, below + height - zc) if fine else _FEWEST
        for i in range(n - _FEWEST, 2 * n - _FEWEST):
            h = below + 0.5 * height * (1.0 + nodes[i]) - zc
            room = width2 * (1.0 - curvature * h * h)
            if room > 0.0:
                _add_strip(out[row], uc + shear * h, room, 0.5 * height * weights[i] * depth)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_shadows(
    out: DoubleArray, shadows: DoubleArray, first_row: int, nodes: Any, weights: Any, fine: bool
) -> None:
    for j in range(shadows.shape[0]):
        _add_shadow(out, shadows[j], first_row, nodes, weights, fine)


@dataclass(frozen=True)
class ShapeTable:
    """Shapes as tables, so that a block of rows costs no more than the shapes that touch it.

    `solids` and `others` (shapes that are no `Solids`, with their first and last z in `spans_mm`) keep
    their places in the list of shapes in `order`, because sums depend on it.
    """

    solids: DoubleArray
    others: tuple[Shape, ...]
    spans_mm: DoubleArray
    order: DoubleArray

    def within(self, low_mm: float, high_mm: float) -> "ShapeTable":
        """The shapes that touch the planes from `low_mm` to `high_mm`."""
        spans = np.concatenate([self.solids[:, :2], self.spans_mm])
        keep = (spans[:, 0] <= high_mm) & (spans[:, 1] >= low_mm)
        n = len(self.solids)
        others = tuple(shape for shape, kept in zip(self.others, keep[n:], strict=True) if kept)
        return ShapeTable(self.solids[keep[:n]], others, self.spans_mm[keep[n:]], self.order[keep])

    def shadows_px(
        self, angles_rad: DoubleArray, *, pixel_um: float, axis_px: tuple[float, float]
    ) -> DoubleArray:
        """Shadows with lengths in pixels, as `pixel_shadows` gives them."""
        n = len(angles_rad)
        parts = [shape.shadows(angles_rad) for shape in self.others]
        places = [self.order[: len(self.solids)]]
        places += [
            np.full(part.shape[1], place)
            for part, place in zip(parts, self.order[len(self.solids) :], strict=True)
        ]
        out = np.concatenate([solid_shadows(self.solids, angles_rad=angles_rad), *parts], axis=1)
        if parts:
            out = out[:, np.argsort(np.concatenate(places), kind="stable")]
        return _in_pixels(out.reshape(n, -1, len(SHADOW_FIELDS)), pixel_um=pixel_um, axis_px=axis_px)


def shape_table(shapes: Sequence[Shape]) -> ShapeTable:
    """Tables of shapes."""
    tables = [np.empty((0, len(SOLID_FIELDS)))]
    places: list[DoubleArray] = [np.empty(0)]
    others: list[tuple[int, Shape]] = []
    for place, shape in enumerate(shapes):
        if isinstance(shape, Solids):
            tables.append(shape.solids())
            places.append(np.full(len(tables[-1]), float(place)))
        else:
            others.append((place, shape))
    spans = np.array([shape.bounds_mm[2] for _, shape in others]).reshape(-1, 2)
    order = np.concatenate([*places, np.array([place for place, _ in others], dtype=np.float64)])
    return ShapeTable(np.concatenate(tables), tuple(shape for _, shape in others), spans, order)


def pixel_shadows(
    shapes: Sequence[Shape], *, angles_rad: DoubleArray, pixel_um: float, axis_px: tuple[float, float]
) -> DoubleArray:
    """Shadows of all shapes with lengths in pixels, z counted in rows and u in columns.

    `axis_px` is the (row, column) of z = 0 and of the axis of rotation. Depths are made such that line
    integrals come out dimensionless: (angle, shadow, field).
    """
    return shape_table(shapes).shadows_px(angles_rad, pixel_um=pixel_um, axis_px=axis_px)


def _in_pixels(shadows: DoubleArray, *, pixel_um: float, axis_px: tuple[float, float]) -> DoubleArray:
    pixel_mm, out = pixel_um * 1e-3, shadows
    out[..., [0, 1, 2, 3]] /= pixel_mm
    out[..., [0, 1, 2]] += axis_px[0]
    out[..., 3] += axis_px[1]
    out[..., 5] /= pixel_mm**2
    out[..., 6] *= pixel_mm**2
    out[..., 7] *= pixel_mm * 0.1
    return out


def project(shadows: DoubleArray, *, rows: Span, cols: Span, fine: bool = False) -> DoubleArray:
    """Pixel means of the line integrals of one angle's shadows: (row, col), dimensionless, float64.

    `shadows` (shadow, field) are in pixels; rows and columns may reach beyond the detector. The value of
    a row does not depend on which others are asked for. `fine` takes as many nodes in a row as it needs for
    0.1 % of the largest value.
    """
    out = np.zeros((rows[1] - rows[0], cols[1] - cols[0]))
    moved = shadows.copy()
    moved[:, 3] -= cols[0]
    _add_shadows(out, moved, rows[0], _NODES, _WEIGHTS, fine)
    return out
