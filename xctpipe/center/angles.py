"""Half turns among measured angles: which frames see the same line integrals from both ends."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import DoubleArray


@dataclass(frozen=True)
class HalfTurns:
    """Angles whose opposite was measured, or nearly was.

    `theta_rad` are the starts of half turns; `outside_rad` is how far each end has to be extrapolated
    beyond the measured range (0 where frames lie on both sides); `step_rad` is the median angular step.
    """

    theta_rad: DoubleArray
    outside_rad: float
    step_rad: float


def half_turns(angles_rad: DoubleArray, *, most: int) -> HalfTurns:
    """Starts of half turns in ascending angles: one at the seam of a 180 degree scan, else up to `most`."""
    first, last = float(angles_rad[0]), float(angles_rad[-1])
    step = float(np.median(np.diff(angles_rad)))
    spare = last - first - np.pi
    if spare < 0:
        return HalfTurns(np.array([first + spare / 2]), -spare / 2, step)
    spare = min(spare, np.pi)
    count = int(np.clip(round(spare / step) + 1 if step > 0 else 1, 1, most))
    wanted = np.linspace(first, first + spare, count)
    nearest = angles_rad[np.searchsorted(angles_rad, wanted - step / 2).clip(0, angles_rad.size - 1)]
    return HalfTurns(np.minimum(nearest, first + spare), 0.0, step)


def local_weights(
    angles_rad: DoubleArray, at_rad: float, *, count: int, exact_rad: float
) -> tuple[NDArray[np.intp], DoubleArray]:
    """Frames near an angle and the weights that make a local straight-line fit over angle there.

    One frame suffices when it is within `exact_rad` and `count` is 1; otherwise at least two are used.
    Beyond the measured range the fit extrapolates.
    """
    distance = np.abs(angles_rad - at_rad)
    if count <= 1 and distance.min() <= exact_rad:
        return np.array([np.argmin(distance)]), np.ones(1)
    near = np.sort(np.argsort(distance, kind="stable")[: min(max(count, 2), angles_rad.size)])
    x = angles_rad[near] - at_rad
    scale = np.abs(x).max() or 1.0
    design = np.stack([np.ones_like(x), x / scale], axis=1)
    weights: DoubleArray = np.linalg.pinv(design)[0]
    return near, weights


def uniform_grid(angles_rad: DoubleArray) -> DoubleArray:
    """Angles (rad) that divide a half turn evenly and close on themselves, all within the measured range.

    The grid is no finer than the data, nor than the gap that the scan leaves open, so that the seam is a
    step like every other. Ascending `angles_rad` may span more than pi: the first half turn is taken.
    """
    span = min(float(angles_rad[-1] - angles_rad[0]), np.pi)
    step = float(np.median(np.diff(angles_rad)))
    gap = np.pi - span
    limit = angles_rad.size if gap <= 0 else int(np.pi / gap + 1e-3)
    count = max(1, min(limit, round(np.pi / step) if step > 0 else 1))
    middle = angles_rad[0] + span / 2
    grid: DoubleArray = middle + (np.arange(count) - (count - 1) / 2) * (np.pi / count)
    return np.clip(grid, angles_rad[0], angles_rad[-1])
