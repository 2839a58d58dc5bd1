"""Voids on an interface as caps of balls: their base from their sections above a blind zone."""

import math
from dataclasses import dataclass

import numpy as np

from xctpipe.scan import DoubleArray

WETTING = 0.5
"""Standard deviation of the mean cosine of the contact angle, about 90 degrees, before anything is seen."""
ALIKE = 0.15
"""Standard deviation of that cosine among the voids of one scan: one liquid on one solid."""
_RADII = np.geomspace(0.5, 80.0, 400)
_COSINES = np.linspace(-0.9, 0.9, 37)
_BLUR = np.linspace(-2.5, 2.5, 11)


@dataclass(frozen=True, eq=False)
class Caps:
    """Of each void: area of its base and height, in voxels, with standard errors.

    `total_sigma_px2` is the standard error of the sum of all areas: the angle is shared, and so is its error.
    """

    area_px2: DoubleArray
    area_sigma_px2: DoubleArray
    height_px: DoubleArray
    height_sigma_px: DoubleArray
    total_sigma_px2: float
    cosine: float
    """Mean cosine of the contact angle."""


def cap_section(distance_px: DoubleArray, *, base_px: DoubleArray, cosine: DoubleArray) -> DoubleArray:
    """Area of a cap's section at a distance from its base; 0 below it and beyond its top.

    A ball of radius R cut at the distance R cos t from its centre has a base of radius a = R sin t, and at
    distance d the section pi (a^2 - 2 d R cos t - d^2). cos t > 0: less than half a ball.
    """
    ball = base_px / np.sqrt(1 - cosine**2)
    square = base_px**2 - 2 * distance_px * ball * cosine - distance_px**2
    return np.asarray(math.pi * np.where(distance_px >= 0, np.maximum(square, 0), 0), np.float64)


def fit_caps(
    sections_px2: DoubleArray, *, sigma_px2: DoubleArray, distance_px: DoubleArray, blur_px: float
) -> Caps:
    """Base areas and heights of voids from their sections.

    Posterior means over all caps. All sizes are alike beforehand on a logarithmic scale; the contact angle is
    90 +- 30 degrees, and much the same for all voids of a scan, so that those which are seen well say what
    the base is of those of which only the top is seen. Sections are blurred as the scan is.

    Parameters
    ----------
    sections_px2, sigma_px2 : (void, layer) and standard errors.
    distance_px : (layer,) from the interface.
    """
    n = len(sections_px2)
    if n == 0:
        return Caps(*(np.zeros(0),) * 4, 0.0, 0.0)
    radius, cosine = np.meshgrid(_RADII, _COSINES, indexing="ij")
    model = _blurred(distance_px, radius.ravel(), cosine.ravel(), blur_px)
    area = math.pi * radius**2
    height = radius / np.sqrt(1 - cosine**2) * (1 - cosine)
    # of each void, for each mean angle: evidence, and means of area, area^2, height, height^2
    moments = np.empty((n, 5, len(_COSINES)))
    spread = np.exp(-0.5 * ((_COSINES[:, None] - _COSINES) / ALIKE) ** 2)
    spread /= spread.sum(axis=0)
    for i, (section, sigma) in enumerate(zip(sections_px2, sigma_px2, strict=True)):
        away = -0.5 * (((model - section) / np.maximum(sigma, 1e-6)) ** 2).sum(axis=1)
        chance = np.exp(away - away.max()).reshape(radius.shape)
        sums = [(chance * part).sum(axis=0) @ spread for part in (1, area, area**2, height, height**2)]
        moments[i] = sums
    moments[:, 1:] /= np.maximum(moments[:, :1], 1e-300)
    log = np.log(np.maximum(moments[:, 0], 1e-300)).sum(axis=0) - 0.5 * (_COSINES / WETTING) ** 2
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    return _summed(moments, weight)


def _summed(moments: DoubleArray, weight: DoubleArray) -> Caps:
    """Means over the mean angle, which has these weights."""
    means = moments[:, 1:] @ weight
    variance = np.maximum(means[:, 1::2] - means[:, ::2] ** 2, 0)
    totals = moments[:, 1].sum(axis=0)
    shared = max(float(totals**2 @ weight - (totals @ weight) ** 2), 0.0)
    own = float(np.maximum(moments[:, 2] - moments[:, 1] ** 2, 0).sum(axis=0) @ weight)
    return Caps(
        means[:, 0],
        np.sqrt(variance[:, 0]),
        means[:, 2],
        np.sqrt(variance[:, 1]),
        math.sqrt(own + shared),
        float(_COSINES @ weight),
    )


def _blurred(
    distance_px: DoubleArray, radius: DoubleArray, cosine: DoubleArray, blur_px: float
) -> DoubleArray:
    """Sections (cap, layer) blurred along z."""
    weight = np.exp(-0.5 * _BLUR**2)
    weight /= weight.sum()
    out = np.zeros((len(radius), len(distance_px)))
    for step, share in zip(_BLUR * blur_px, weight, strict=True):
        out += share * cap_section(distance_px + step, base_px=radius[:, None], cosine=cosine[:, None])
    return out
