"""Line integrals of shapes averaged over detector pixels: exact across columns, by quadrature along rows.

Under a horizontal parallel beam each plane z is a problem of ellipses in two dimensions, so the mean over a
pixel's width is a difference of closed-form areas. Along z, Gauss-Legendre nodes are put on the part of the
row that the shape occupies; the area of an ellipsoid's cross-section is a parabola in z, so the sum of a
projection is the shape's mass to rounding.
"""

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from xctpipe.phantom.shapes import SHADOW_FIELDS, Shape
from xctpipe.scan import DoubleArray, Span

_NODES, _WEIGHTS = (part.copy() for part in np.polynomial.legendre.leggauss(4))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _area(t: float, width2: float) -> float:
    """Integral of 2 sqrt(width2 - s^2) for s from 0 to t, |t| <= sqrt(width2)."""
    half = math.sqrt(width2)
    if abs(t) >= half:
        return math.copysign(0.5 * math.pi * width2, t)
    return t * math.sqrt(width2 - t * t) + width2 * math.asin(t / half)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
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


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_shadow(out: DoubleArray, shadow: DoubleArray, first_row: int, nodes: Any, weights: Any) -> None:
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
        for node, weight in zip(nodes, weights):  # noqa: B905 - numba knows no strict=
            h = below + 0.5 * height * (1.0 + node) - zc
            room = width2 * (1.0 - curvature * h * h)
            if room > 0.0:
                _add_strip(out[row], uc + shear * h, room, 0.5 * height * weight * depth)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_shadows(out: DoubleArray, shadows: DoubleArray, first_row: int, nodes: Any, weights: Any) -> None:
    for j in range(shadows.shape[0]):
        _add_shadow(out, shadows[j], first_row, nodes, weights)


def pixel_shadows(
    shapes: Sequence[Shape], *, angles_rad: DoubleArray, pixel_um: float, axis_px: tuple[float, float]
) -> DoubleArray:
    """Shadows of all shapes with lengths in pixels, z counted in rows and u in columns.

    `axis_px` is the (row, column) of z = 0 and of the axis of rotation. Depths are made such that line
    integrals come out dimensionless: (angle, shadow, field).
    """
    pixel_mm = pixel_um * 1e-3
    parts = [shape.shadows(angles_rad) for shape in shapes]
    out = np.concatenate([np.empty((len(angles_rad), 0, len(SHADOW_FIELDS))), *parts], axis=1)
    out[..., [0, 1, 2, 3]] /= pixel_mm
    out[..., [0, 1, 2]] += axis_px[0]
    out[..., 3] += axis_px[1]
    out[..., 5] /= pixel_mm**2
    out[..., 6] *= pixel_mm**2
    out[..., 7] *= pixel_mm * 0.1
    return out


def project(shadows: DoubleArray, *, rows: Span, cols: Span) -> DoubleArray:
    """Pixel means of the line integrals of one angle's shadows: (row, col), dimensionless, float64.

    `shadows` (shadow, field) are in pixels; rows and columns may reach beyond the detector. The value of
    a row does not depend on which others are asked for.
    """
    out = np.zeros((rows[1] - rows[0], cols[1] - cols[0]))
    moved = shadows.copy()
    moved[:, 3] -= cols[0]
    _add_shadows(out, moved, rows[0], _NODES, _WEIGHTS)
    return out
