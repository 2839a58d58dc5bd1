"""The profile of a face between two layers: how sharp it is and where in it the face lies.

A detector averages brightness, not attenuation, so that a row which sees part of both layers reads too
little: with the way L of the rays through the layers and their contrast c, the profile of rows is
-ln(sum_j w_j exp(-k s_j)) / k with k = c L, w_j the Gaussian weights of the parts of rows that blur into one
and s_j the share of the bright layer in part j. Half height lies inside the bright layer: by 0.13 voxel where
parts are whole rows, by twice that where they are points (k = 1.3, blur 0.7). Which of the two holds is
seen from the profile; a fit of half height finds faces that much too deep.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from scipy import optimize

from xctpipe.scan import DoubleArray, FloatArray

PER_PX = 64
"""Entries of a table of a profile per voxel."""
BOX = 1 / 12
"""Variance of a row's own height."""
POINTS = 8
"""Parts of a row that stand for points."""
LEAST_BLUR_PX, MOST_BLUR_PX = 0.35, 6.0
MOST_K = 4.0
BETTER = 0.5
"""Points are taken for rows only where their misfit is smaller than this share of that of whole rows."""
_SIGMAS = 4.5


@dataclass(frozen=True)
class Edge:
    """Shape of a face's profile.

    `blur_px` is the standard deviation of the whole blur, a row's own height included; `path_cm` the mean way
    of the rays through the layers; a row is of `parts` parts, within each of which attenuation is averaged.
    """

    blur_px: float
    path_cm: float
    parts: int = 1


def edge_at(d_px: DoubleArray, edge: Edge, *, contrast_cm1: float) -> DoubleArray:
    """Share of the contrast at signed distances `d_px` (n,) of rows from the face, positive if bright."""
    sigma = math.sqrt(max(edge.blur_px**2 - BOX, 1e-4))
    n, parts = math.ceil(_SIGMAS * sigma * edge.parts), edge.parts
    j = np.arange(-n, n + 1) / parts
    weight = np.exp(-0.5 * (j / sigma) ** 2)
    own = (np.arange(parts) - (parts - 1) / 2) / parts
    away = (j[:, None] + own).ravel()
    weight = np.repeat(weight / (weight.sum() * parts), parts)
    share = np.clip((d_px[:, None] - away) * parts + 0.5, 0, 1)
    k = max(contrast_cm1 * edge.path_cm, 1e-4)
    return np.asarray(-np.log1p(np.expm1(-k * share) @ weight) / k, np.float64)


def edge_table(edge: Edge, *, contrast_cm1: float) -> FloatArray:
    """Profile at distances from -reach to reach, `PER_PX` a voxel; 0 before and 1 beyond."""
    reach = math.ceil(_SIGMAS * edge.blur_px) + 2
    d = np.arange(-reach * PER_PX, reach * PER_PX + 1) / PER_PX
    table = edge_at(d, edge, contrast_cm1=contrast_cm1)
    table[0], table[-1] = 0.0, 1.0
    return table.astype(np.float32)


@numba.njit(cache=True, nogil=True, inline="always")
def look_up(table, d_px):  # type: ignore[no-untyped-def]
    """Profile at a signed distance, by linear interpolation."""
    at = d_px * PER_PX + (len(table) - 1) // 2
    if at <= 0:
        return 0.0
    if at >= len(table) - 1:
        return 1.0
    i = int(at)
    part = at - i
    return table[i] * (1 - part) + table[i + 1] * part


@dataclass(frozen=True, eq=False)
class Profile:
    """Profile averaged over a face, from the dark to the bright layer.

    Distances (n,) of rows from the face as it is thought, shares of the contrast, numbers of voxels.
    """

    d_px: DoubleArray
    share: DoubleArray
    weight: DoubleArray
    contrast_cm1: float


@dataclass(frozen=True)
class EdgeFit:
    """Shape of the profiles, how much deeper in the bright layer each face lies, and standard errors."""

    edge: Edge
    shift_px: tuple[float, ...]
    shift_sigma_px: tuple[float, ...]
    blur_sigma_px: float
    misfit: float


def fit_edge(profiles: Sequence[Profile], *, start: Edge) -> EdgeFit:
    """Fit the shape that profiles share, the place of each, and its levels.

    Whether rows average brightness within themselves is taken from the better fit; where both fit alike they
    are taken not to, which moves faces half as far.
    """
    rows = _fit(profiles, start=Edge(start.blur_px, start.path_cm, 1), shape=True)
    points = _fit(profiles, start=Edge(start.blur_px, start.path_cm, POINTS), shape=True)
    return points if points.misfit < BETTER * rows.misfit else rows


def place_edge(profile: Profile, *, edge: Edge) -> EdgeFit:
    """Fit place and levels of one profile of known shape."""
    return _fit([profile], start=edge, shape=False)


def _fit(profiles: Sequence[Profile], *, start: Edge, shape: bool) -> EdgeFit:
    most_path = MOST_K / max(p.contrast_cm1 for p in profiles)
    low = [LEAST_BLUR_PX, 0.0] * shape + [-2.0, -0.5, 0.5] * len(profiles)
    high = [MOST_BLUR_PX, most_path] * shape + [2.0, 0.5, 1.5] * len(profiles)
    first = [start.blur_px, min(start.path_cm, most_path)] * shape + [0.0, 0.0, 1.0] * len(profiles)
    roots = [np.sqrt(p.weight / p.weight.sum()) for p in profiles]
    skip = 2 * shape

    def shaped(values: DoubleArray) -> Edge:
        return Edge(float(values[0]), float(values[1]), start.parts) if shape else start

    def misfit(values: DoubleArray) -> DoubleArray:
        away = []
        for i, profile in enumerate(profiles):
            shift, dark, bright = values[skip + 3 * i : skip + 3 * i + 3]
            model = edge_at(profile.d_px - shift, shaped(values), contrast_cm1=profile.contrast_cm1)
            away.append(roots[i] * (dark + (bright - dark) * model - profile.share))
        return np.concatenate(away)

    found = optimize.least_squares(misfit, np.clip(first, low, high), bounds=(low, high))
    freedom = max(len(found.fun) - len(found.x), 1)
    errors = _errors(found.jac, 2 * found.cost / freedom)
    return EdgeFit(
        shaped(found.x),
        tuple(float(shift) for shift in found.x[skip::3]),
        tuple(float(error) for error in errors[skip::3]),
        float(errors[0]) if shape else 0.0,
        float(2 * found.cost),
    )


def _errors(jacobian: DoubleArray, variance: float) -> DoubleArray:
    # a bound that is reached leaves a zero column, whose parameter then has no error
    spread = np.diag(np.linalg.pinv(jacobian.T @ jacobian)) * variance
    return np.asarray(np.sqrt(np.clip(spread, 0, None)), np.float64)
