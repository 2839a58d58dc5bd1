"""How strong the rings of a volume are, from two reconstructions that share no projection."""

import numba
import numpy as np
from scipy import ndimage

from xctpipe.scan import DoubleArray, FloatArray

WIDEST_PX = 9
"""A ring is narrower than this; what is wider belongs to the sample."""
RADII_FRAC = (0.05, 0.9)
"""Between these radii, relative to half the width: rings near the axis are averages of few voxels."""


def ring_strength(even: FloatArray, odd: FloatArray) -> float:
    """Root mean square of the rings of some slices, cm^-1.

    Means over half circles about the middle of the slices, less what changes slowly with the radius: rings
    are in both halves of the projections alike and noise is not, so that the mean product of both is the
    variance of the rings. Narrow features of the sample that lie along half circles count as well: compare
    it before and after a correction. Of rings that vary along the half circle the mean counts.

    Parameters
    ----------
    even, odd : (z, y, x), cm^-1, reconstructions of the even and of the odd projections.
    """
    first, second = (_narrow(_half_circles(np.ascontiguousarray(each))) for each in (even, odd))
    return float(np.sqrt(max(float(np.mean(first * second)), 0.0)))


def _narrow(profiles: DoubleArray) -> DoubleArray:
    """Profiles less their running median, where there are rings: (z, side, radius)."""
    slow = ndimage.median_filter(profiles, size=(1, 1, 2 * WIDEST_PX + 1), mode="nearest")
    low, high = (round(part * profiles.shape[2]) for part in RADII_FRAC)
    return np.asarray((profiles - slow)[:, :, low:high])


@numba.njit(cache=True, nogil=True)
def _half_circles(slices):  # type: ignore[no-untyped-def]
    """Means over the upper and the lower half circles of one voxel's width: (z, 2, radius)."""
    n, width = slices.shape[0], slices.shape[2]
    middle, most = (width - 1) / 2.0, width // 2
    total, count = np.zeros((n, 2, most)), np.zeros((n, 2, most))
    for i in range(n):
        for y in range(slices.shape[1]):
            side = 0 if y < middle else 1
            for x in range(width):
                radius = int(np.sqrt((y - middle) ** 2 + (x - middle) ** 2))
                if radius < most:
                    total[i, side, radius] += slices[i, y, x]
                    count[i, side, radius] += 1
    return total / np.maximum(count, 1.0)
