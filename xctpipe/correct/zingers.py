"""Bright specks of single frames: gamma rays and direct hits on the sensor."""

from typing import Annotated

import numba
import numpy as np
from annotated_types import Ge, Gt

from xctpipe.correct.threads import in_threads
from xctpipe.scan import FloatArray
from xctpipe.steps import step

NOISE_SIGMAS = 5.0
"""A zinger stands above the noise by this many standard deviations, whatever the threshold."""

_SAMPLES_PER_ROW = 20_000


@step(halo=0)
def zingers(
    slab: FloatArray,
    *,
    threshold_frac: Annotated[float, Gt(0)] = 0.08,
    size_px: Annotated[int, Ge(1)] = 2,
) -> FloatArray:
    """Replace pixels that are bright in one frame only, after [1]_ but safe at low counts and at edges.

    In the plane (angle, col) of each row, m is the median of the 8 pixels at offsets of `size_px`, and b
    the brightest of the previous and the next frame within `size_px` columns. A pixel is a zinger where it
    exceeds both m and b by more than `threshold_frac` m and by more than `NOISE_SIGMAS` standard deviations
    of the noise, and becomes m. The noise grows as the square root of transmission; its size is found for
    each row from the median absolute difference to m. Borders are mirrored. A crack flat to a pixel over as
    many pixels as a half turn has frames divided by pi, seen edge-on, is as brief as a zinger and no fainter.

    Parameters
    ----------
    slab : (angle, row, col), transmission.
    threshold_frac : excess over the neighbours that makes a zinger; 0.05 to 0.1 is usual.
    size_px : distance of the neighbours; zingers up to 2 `size_px` - 1 columns wide are replaced.

    Returns
    -------
    (angle, row, col) transmission.

    References
    ----------
    .. [1] Vo, Atwood, Drakopoulos, Connolley, Opt. Express 29, 17849 (2021), doi:10.1364/OE.418448
    """
    slab = np.ascontiguousarray(slab)
    out = slab.copy()

    def rows(first: int, last: int) -> None:
        for row in range(first, last):
            noise = _noise(slab, row, size_px, _SAMPLES_PER_ROW)
            _replace(slab, row, threshold_frac, size_px, NOISE_SIGMAS * noise, out)

    in_threads(rows, slab.shape[1])
    return out


@numba.njit(cache=True, nogil=True)
def _mirror(i, n):  # type: ignore[no-untyped-def]
    """Index in range(n) of position i when the border pixel is the mirror."""
    if n == 1:
        return 0
    i = abs(i) % (2 * n - 2)
    return i if i < n else 2 * n - 2 - i


@numba.njit(cache=True, nogil=True)
def _around(slab, t, row, c, size, near):  # type: ignore[no-untyped-def]
    """Median of the 8 pixels at offsets of `size` frames and columns."""
    n_angles, _, n_cols = slab.shape
    n = 0
    for dt in (-size, 0, size):
        for dc in (-size, 0, size):
            if dt != 0 or dc != 0:
                near[n] = slab[_mirror(t + dt, n_angles), row, _mirror(c + dc, n_cols)]
                n += 1
    near.sort()
    return np.float32(0.5) * (near[3] + near[4])


@numba.njit(cache=True, nogil=True)
def _noise(slab, row, size, n_samples):  # type: ignore[no-untyped-def]
    """Robust s of a noise whose standard deviation is s times the square root of transmission."""
    n_angles, _, n_cols = slab.shape
    n_pixels = n_angles * n_cols
    n = min(n_pixels, n_samples)
    near = np.empty(8, np.float32)
    deviation = np.zeros(n, np.float32)
    for i in range(n):
        pixel = i * n_pixels // n
        t, c = pixel // n_cols, pixel % n_cols
        middle = _around(slab, t, row, c, size, near)
        if middle > 0:
            deviation[i] = abs(slab[t, row, c] - middle) / np.sqrt(middle)
    return 1.4826 * np.median(deviation)


@numba.njit(cache=True, nogil=True)
def _brightest_beside(slab, t, row, c, size):  # type: ignore[no-untyped-def]
    n_angles, _, n_cols = slab.shape
    brightest = slab[_mirror(t + 1, n_angles), row, c]
    for dt in (-1, 1):
        for dc in range(-size, size + 1):
            brightest = max(brightest, slab[_mirror(t + dt, n_angles), row, _mirror(c + dc, n_cols)])
    return brightest


@numba.njit(cache=True, nogil=True)
def _replace(slab, row, threshold, size, noise, out):  # type: ignore[no-untyped-def]
    n_angles, _, n_cols = slab.shape
    near = np.empty(8, np.float32)
    for t in range(n_angles):
        before, after = _mirror(t - 1, n_angles), _mirror(t + 1, n_angles)
        for c in range(n_cols):
            value = slab[t, row, c]
            # two comparisons decide nearly every pixel
            if value <= slab[before, row, c] or value <= slab[after, row, c]:
                continue
            bound = max(slab[before, row, c], slab[after, row, c])
            if value - bound <= threshold * bound:
                continue
            middle = _around(slab, t, row, c, size, near)
            # one photon more, so that the noise does not vanish with the light
            excess = max(threshold * middle, noise * np.sqrt(max(middle, 0.0) + noise * noise))
            if value - middle > excess and value - _brightest_beside(slab, t, row, c, size) > excess:
                out[t, row, c] = middle
