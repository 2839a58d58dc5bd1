"""What phase retrieval leaves of faces between layers: tails as long as it averages.

Retrieval with one ratio of refraction and absorption is exact for materials that differ by that ratio. Of a
face whose own ratio is r, retrieved with R, the share c = 1 - r / R stays blurred by the retrieval's kernel,
exp(-|d| / L) / 2 L across the face [1]_: the layers read c / 2 of their difference too much and too little
where they meet. For NASICON beside NaK retrieved as NASICON in void c is 0.2, for aluminium beside NaK -3:
near faces levels would be off by more than a thin crack misses. L and c follow from the materials.

References
----------
.. [1] Beltran et al., Opt. Express 18, 6423 (2010), doi:10.1364/OE.18.006423
"""

import math

import numpy as np
from scipy import constants
from scipy.special import erfcx

from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.segment.edge import PER_PX

REACH = 6.0
"""Lengths after which a tail is forgotten: 0.2 % of its height."""


def tail_at(d_px: DoubleArray, *, length_px: float, blur_px: float) -> DoubleArray:
    """Step blurred by exp(-|d| / L) / 2 L less the step, at distances (n,); both blurred by a Gaussian.

    Without that blur -sgn(d) exp(-|d| / L) / 2; odd in d.
    """
    sigma = max(blur_px, 1e-3)
    near, far = sigma / length_px, d_px / sigma
    # exp(s^2 / 2 + d / L) erfc((s + d / sigma) / sqrt 2), without overflow
    sides = [
        np.where(
            x > -near,
            np.exp(-0.5 * x**2) * erfcx((near + np.maximum(x, -near)) / math.sqrt(2)),
            2 * np.exp(0.5 * near**2 + near * np.minimum(x, 0))
            - np.exp(-0.5 * x**2) * erfcx(-(near + np.minimum(x, -near)) / math.sqrt(2)),
        )
        for x in (far, -far)
    ]
    return np.asarray((sides[0] - sides[1]) / 4, np.float64)


def tail_table(length_px: float, *, blur_px: float) -> FloatArray:
    """Tail at distances from -reach to reach, `PER_PX` a voxel; 0 at the ends."""
    reach = math.ceil(REACH * length_px + 3 * blur_px) + 1
    d = np.arange(-reach * PER_PX, reach * PER_PX + 1) / PER_PX
    table = tail_at(d, length_px=length_px, blur_px=blur_px)
    table[[0, -1]] = 0.0
    return table.astype(np.float32)


def left_frac(
    delta: tuple[float, float], *, mu_cm1: tuple[float, float], energy_kev: float, delta_beta: float
) -> float:
    """Share of the step at a face that retrieval leaves blurred, 1 - r / R.

    Parameters
    ----------
    delta, mu_cm1 : decrement of the refractive index and attenuation of both materials.
    delta_beta : ratio that was retrieved with.
    """
    wavelength_cm = constants.h * constants.c / (energy_kev * 1e3 * constants.e) * 100
    beta = (mu_cm1[1] - mu_cm1[0]) * wavelength_cm / (4 * math.pi)
    return float(1 - (delta[1] - delta[0]) / beta / delta_beta)
