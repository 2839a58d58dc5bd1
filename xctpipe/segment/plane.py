"""Planes through heights, of which a third may be anything: chips, mouths of cracks, voids."""

import numpy as np

from xctpipe.scan import DoubleArray

_TRIES = 200
_TUKEY = 4.685
_ROUNDS = 12
_LEAST_SPREAD_PX = 0.01


def robust_plane(
    y: DoubleArray, x: DoubleArray, height: DoubleArray, *, start: DoubleArray | None = None
) -> tuple[DoubleArray, float]:
    """Plane c[0] + c[1] y + c[2] x by Tukey's biweight, from the least median of squares.

    Parameters
    ----------
    y, x, height : (n,) at least three points; heights that are not finite are left out.
    start : plane to begin with; None: the best of many through three points each.

    Returns
    -------
    Plane, and the standard deviation of the heights about it, from their median absolute deviation.

    References
    ----------
    Rousseeuw, J. Am. Stat. Assoc. 79 (1984) 871, doi 10.1080/01621459.1984.10477105.
    Beaton and Tukey, Technometrics 16 (1974) 147, doi 10.1080/00401706.1974.10489171.
    """
    known = np.isfinite(height)
    points = np.stack([np.ones(known.sum()), y[known], x[known]], axis=1)
    h = height[known].astype(np.float64)
    if len(h) < 3:
        return np.array([float(np.median(h)) if len(h) else np.nan, 0.0, 0.0]), np.nan
    coefficients = _least_median(points, h) if start is None else start.copy()
    reach = np.array([1.0, *np.maximum(np.abs(points[:, 1:]).max(axis=0), 1.0)])
    for _ in range(_ROUNDS):
        away = h - points @ coefficients
        spread = max(_deviation(away), _LEAST_SPREAD_PX)
        weight = np.clip(1 - (away / (_TUKEY * spread)) ** 2, 0, None) ** 2
        scaled = points / reach
        normal = (scaled * weight[:, None]).T
        found = np.linalg.lstsq(normal @ scaled, normal @ h, rcond=None)[0] / reach
        settled = np.abs((found - coefficients) * reach).max() < 1e-4
        coefficients = found
        if settled:
            break
    return coefficients, _deviation(h - points @ coefficients)


def _deviation(away: DoubleArray) -> float:
    return float(1.4826 * np.median(np.abs(away)))


def _least_median(points: DoubleArray, h: DoubleArray) -> DoubleArray:
    rng = np.random.default_rng(0)
    flat = np.array([float(np.median(h)), 0.0, 0.0])
    best, least = flat, float(np.median(np.abs(h - flat[0])))
    for _ in range(_TRIES):
        three = rng.choice(len(h), 3, replace=False)
        if abs(np.linalg.det(points[three])) < 1e-9:
            continue
        plane = np.linalg.solve(points[three], h[three])
        median = float(np.median(np.abs(h - points @ plane)))
        if median < least:
            best, least = plane, median
    return best
