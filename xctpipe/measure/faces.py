"""Areas and distances of faces from their height maps."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import FloatArray

BoolArray = NDArray[np.bool_]


def real_area_um2(height_px: FloatArray, *, inside: BoolArray, voxel_um: float) -> float:
    """Area of a face that is not flat: sum of a^2 sqrt(1 + |grad h|^2) over its columns.

    Bias: noise of the heights adds area, by half the mean square of its gradient; smooth heights, or give
    the used surface rather than the face as imaged.
    """
    dy, dx = (np.gradient(height_px.astype(np.float64), axis=axis) for axis in (0, 1))
    known = inside & np.isfinite(dy) & np.isfinite(dx)
    slope = np.sqrt(1 + dy[known] ** 2 + dx[known] ** 2)
    # columns at the rim have no gradient: they count as the others do on average
    return float(slope.mean() * inside.sum() * voxel_um**2) if slope.size else float("nan")


@dataclass(frozen=True)
class Height:
    """Height of the NaK between collector and interface in um, and the standard error of its mean."""

    mean_um: float
    mean_sigma_um: float
    median_um: float
    p05_um: float
    p95_um: float


def nak_height(
    interface_px: FloatArray,
    *,
    collector_px: FloatArray,
    inside: BoolArray,
    voxel_um: float,
    sigma_px: tuple[float, float] = (0.0, 0.0),
) -> Height:
    """Statistics of the height map |interface - collector| over the columns `inside`.

    Parameters
    ----------
    sigma_px : standard errors of both faces' references, which all columns share.
    """
    height = np.abs(interface_px - collector_px)[inside].astype(np.float64)
    height = height[np.isfinite(height)] * voxel_um
    if not height.size:
        return Height(*(math.nan,) * 5)
    p05, median, p95 = (float(p) for p in np.percentile(height, [5, 50, 95]))
    return Height(float(height.mean()), math.hypot(*sigma_px) * voxel_um, median, p05, p95)
