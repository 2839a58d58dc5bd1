"""Gaussian means over part of a volume, so that what lies beyond it does not count."""

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import FloatArray
from xctpipe.segment.smooth import smooth

_LEAST_WEIGHT = 0.15


def mean_within(
    residual: FloatArray, inside: NDArray[np.bool_], sigma_px: float, *, even_noise: bool = False
) -> FloatArray:
    """Gaussian mean over the voxels inside only; 0 where there are hardly any near.

    With `even_noise` a mean over fewer voxels counts less, so that its noise is the same everywhere.
    """
    own, spare = np.where(inside, residual, np.float32(0)), np.empty(residual.shape, np.float32)
    total = smooth(own, sigma_px=sigma_px, room=(np.empty_like(own), spare))
    own[...] = inside
    weight = smooth(own, sigma_px=sigma_px, room=(np.empty_like(own), spare))
    _divide(total, weight, even_noise)
    return total


@numba.njit(cache=True, nogil=True)
def _divide(total, weight, even_noise):  # type: ignore[no-untyped-def]
    """Divide by the weight or its root, in place; 0 where there is hardly any."""
    values, weights = total.ravel(), weight.ravel()
    for i in range(len(values)):
        if weights[i] > np.float32(_LEAST_WEIGHT):
            values[i] /= np.sqrt(weights[i]) if even_noise else weights[i]
        else:
            values[i] = 0
