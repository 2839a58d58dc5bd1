"""Filter for plates: how much a block looks like a thin bright sheet at each voxel.

The response at scale s is s^2 (|l3| - |l2|) where l3 is the eigenvalue of the Hessian of the Gaussian mean
that is most negative, and l2 the middle one: on the sheet l3 is negative and the two others are nearly 0, in
a ball all three are alike, in a tube two are [1]_ [2]_. It is linear in the height of the sheet, so that its
threshold follows from the noise and means the same in every scan. A sheet of width w answers most at
s = w / 2, or at the width of the blur where that is more.

References
----------
.. [1] Sato et al., Med. Image Anal. 2, 143 (1998), doi:10.1016/S1361-8415(98)80009-1
.. [2] Descoteaux et al., Comput. Methods Biomech. Biomed. Eng. 9, 13 (2006), for planes
   doi:10.1080/10255840600709787
"""

import math

import numba
import numpy as np

from xctpipe.scan import FloatArray


def plate_response(
    mean: FloatArray, *, sigma_px: float, least: float, out: FloatArray | None = None
) -> FloatArray:
    """Response of a Gaussian mean (z, y, x) of width `sigma_px`, 0 where the mean itself is below `least`.

    Its outermost layer of voxels is 0. Closed-form eigenvalues [1]_.

    Parameters
    ----------
    least : cheap statistic that decides where eigenvalues are computed at all: a bright sheet is bright.
    out : like `mean`, may be written over and is returned.

    References
    ----------
    .. [1] Smith, Commun. ACM 4, 168 (1961), doi:10.1145/355578.366316
    """
    if out is None:
        out = np.zeros_like(mean)
    else:
        out[...] = 0
    _respond(mean, np.float32(sigma_px * sigma_px), np.float32(least), out)
    return out


@numba.njit(cache=True, nogil=True)
def _respond(mean, scale, least, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = mean.shape
    for z in range(1, nz - 1):
        for y in range(1, ny - 1):
            for x in range(1, nx - 1):
                if mean[z, y, x] < least:
                    continue
                c = 2.0 * mean[z, y, x]
                zz = mean[z + 1, y, x] - c + mean[z - 1, y, x]
                yy = mean[z, y + 1, x] - c + mean[z, y - 1, x]
                xx = mean[z, y, x + 1] - c + mean[z, y, x - 1]
                if min(zz, yy, xx) >= 0.0:
                    continue
                zy = _mixed(
                    mean[z + 1, y + 1, x], mean[z - 1, y - 1, x], mean[z + 1, y - 1, x], mean[z - 1, y + 1, x]
                )
                zx = _mixed(
                    mean[z + 1, y, x + 1], mean[z - 1, y, x - 1], mean[z + 1, y, x - 1], mean[z - 1, y, x + 1]
                )
                yx = _mixed(
                    mean[z, y + 1, x + 1], mean[z, y - 1, x - 1], mean[z, y + 1, x - 1], mean[z, y - 1, x + 1]
                )
                low, middle = eigenvalues(zz, yy, xx, zy, zx, yx)
                if low < 0.0:
                    out[z, y, x] = max(0.0, scale * (-low - abs(middle)))


@numba.njit(cache=True, nogil=True, inline="always")
def _mixed(a, b, c, d):  # type: ignore[no-untyped-def]
    return 0.25 * (a + b - c - d)


@numba.njit(cache=True, nogil=True)
def eigenvalues(zz, yy, xx, zy, zx, yx):  # type: ignore[no-untyped-def]
    """The lowest and the middle eigenvalue of a symmetric matrix."""
    mean = (zz + yy + xx) / 3.0
    off = zy * zy + zx * zx + yx * yx
    a, b, c = zz - mean, yy - mean, xx - mean
    spread = math.sqrt((a * a + b * b + c * c + 2.0 * off) / 6.0)
    if spread < 1e-20:
        return mean, mean
    det = (a * (b * c - yx * yx) - zy * (zy * c - yx * zx) + zx * (zy * yx - b * zx)) / (2.0 * spread**3)
    angle = math.acos(min(1.0, max(-1.0, det))) / 3.0
    high = mean + 2.0 * spread * math.cos(angle)
    low = mean + 2.0 * spread * math.cos(angle + 2.0 * math.pi / 3.0)
    return low, 3.0 * mean - high - low
