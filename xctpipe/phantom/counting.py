"""Poisson counts from normal numbers, in a third of the time of numpy's."""

import math
from typing import Any

import numba
import numpy as np

from xctpipe.scan import DoubleArray

SMALL_MEAN = 200.0
"""Below this mean, counts are made by numpy's exact method."""


def poisson(mean: DoubleArray, *, rng: np.random.Generator) -> DoubleArray:
    """Poisson counts of the given means (0 where a mean is not positive), as float64 of the same shape.

    The inverse of the distribution is expanded about the normal one in powers of 1 / sqrt(mean) [1]_. From a
    mean of 200 on, where it is used, fewer than one count in 100,000 differs by 1 from the exact inverse.

    References
    ----------
    .. [1] Giles, ACM Trans. Math. Softw. 42, 7 (2016), doi:10.1145/2699466
    """
    means = np.ascontiguousarray(mean, dtype=np.float64)
    counts = rng.standard_normal(means.shape)
    _count(means.reshape(-1), counts.reshape(-1))
    if means.size and means.min() < SMALL_MEAN:
        small = means < SMALL_MEAN
        counts[small] = rng.poisson(np.maximum(means[small], 0))
    return counts


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _count(means: DoubleArray, counts: Any) -> None:
    """Turn normal numbers into counts where the means are not small."""
    for i in range(len(means)):
        w, mean = counts[i], max(means[i], SMALL_MEAN)
        root, w2 = math.sqrt(mean), w * w
        second = w * (1.0 / 36 + w2 / 72) / root
        third = (-8.0 / 405 + w2 * (7.0 / 810 + w2 / 270)) / mean
        counts[i] = np.floor(mean + root * w + (1.0 / 3 + w2 / 6) - second + third)
