"""What phase retrieval leaves blurred of cracks that metal fills (`segment/tails.py`): seen far from them.

Metal in NASICON is the same pair of materials as at the interface, so that the same share stays blurred. It
is 0 for voids where the retrieval was for NASICON in void.
"""

import math

import numpy as np
from scipy import ndimage
from scipy.special import erf

from xctpipe.measure.regions import CRACKS, HALO_PX, Region
from xctpipe.scan import DoubleArray

_MOST_PX = HALO_PX - 3
"""Reach of the Gaussians: a block has no larger margin."""
_SIGMAS = 3.0
_NODES = 4


def left_blurred(region: Region) -> DoubleArray:
    """Cracks blurred by the retrieval's kernel, at each voxel of the region; 0 without.

    1 / (1 + L^2 k^2) is the mean of exp(-t L^2 k^2) over t with density exp(-t): Gaussians of variance
    2 t L^2 at the nodes of Gauss and Laguerre.
    """
    if "left_blurred" not in region.kept:
        region.kept["left_blurred"] = _left_blurred(region)
    kept: DoubleArray = region.kept["left_blurred"]
    return kept


def _left_blurred(region: Region) -> DoubleArray:
    known, length = region.context.objects, region.context.scene.tail_px
    # which of them hold metal is found later
    cracks = known.ids[np.isin(known.kinds, CRACKS)]
    if not region.context.left_frac or not len(cracks):
        return np.zeros(region.owner.shape)
    solid = np.isin(region.lacking, cracks).astype(np.float32)
    out = np.zeros(region.owner.shape)
    for node, weight in zip(*np.polynomial.laguerre.laggauss(_NODES), strict=True):
        sigma = length * math.sqrt(2 * node)
        radius = min(math.ceil(_SIGMAS * sigma), _MOST_PX)
        # the filter makes up for what it cuts off, which is not within reach
        share = float(erf((radius + 0.5) / (math.sqrt(2) * sigma))) ** 3
        blurred = ndimage.gaussian_filter(solid, sigma, mode="constant", radius=radius)
        out += weight * share * blurred[region.place]
    return out
