"""How noisy and how sharp a volume is, from two reconstructions that share no projection."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from xctpipe.scan import DoubleArray, FloatArray

CRITERION = 1 / 7
"""Correlation of two halves at which the whole is called resolved [1]_.

.. [1] Rosenthal & Henderson, J. Mol. Biol. 333, 721 (2003), doi:10.1016/j.jmb.2003.07.013
"""
NOISE_RADIUS_FRAC = 0.8
NOISE_SAMPLES = 1024
"""Columns and rows of a slice that are looked at for noise: about so many of any wider one."""
MASK_FRAC = (0.75, 0.95)
"""Radii, relative to half the width, between which the mask of the correlation falls from 1 to 0."""


def halves(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the even and of the odd ones of n projections."""
    return np.arange(0, n, 2), np.arange(1, n, 2)


def voxel_noise(even: FloatArray, odd: FloatArray) -> float:
    """Standard deviation in cm^-1 of the noise of the volume made of all projections.

    Parameters
    ----------
    even, odd : (z, y, x), cm^-1, reconstructions of the even and of the odd projections, unfiltered.

    Returns
    -------
    Spread of half their difference, in the middle circle of the slices. It is taken from the median
    absolute deviation, so a few streaks or bad voxels do not count. Where half of the projections are too
    few for the object, what they miss counts as noise.
    """
    return _spread(even, odd, _radius(_checked(even, odd)) <= NOISE_RADIUS_FRAC)


def slice_noise(even: FloatArray, odd: FloatArray) -> DoubleArray:
    """The same for each slice of (z, y, x): (z,)."""
    n = _checked(even, odd)
    # a million voxels tell it to a thousandth
    some = (slice(None, None, max(1, n // NOISE_SAMPLES)),) * 2
    inside = (_radius(n) <= NOISE_RADIUS_FRAC)[some]
    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        return np.array(list(pool.map(lambda a, b: _spread(a[some], b[some], inside), even, odd)))


def _spread(even: FloatArray, odd: FloatArray, inside: NDArray[np.bool_]) -> float:
    difference = (even[..., inside] - odd[..., inside]) / 2
    deviation = np.abs(difference - np.median(difference))
    return float(1.482602 * np.median(deviation))


def fourier_shell_correlation(
    even: FloatArray, odd: FloatArray, *, pixel_um: float
) -> tuple[DoubleArray, DoubleArray]:
    """Correlation of two halves by spatial frequency within the slices.

    Rings of the transforms of single slices, summed over the slab: it says how sharp the slices are, for
    any number of rows, and nothing about the resolution across rows.

    Parameters
    ----------
    even, odd : (z, y, x), reconstructions of the even and of the odd projections of contiguous rows.
        They are compared in a soft-edged circle, about their means.
    pixel_um : pixel size.

    Returns
    -------
    frequency_per_um : (ring,), from one period in the width up to Nyquist.
    correlation : (ring,), -1 to 1; zero where either half holds nothing.
    """
    n = _checked(even, odd)
    inner, outer = MASK_FRAC
    fall = np.clip((_radius(n) - inner) / (outer - inner), 0, 1)
    mask = (np.cos(0.5 * np.pi * fall) ** 2).astype(np.float32)

    def one(slice_even: FloatArray, slice_odd: FloatArray) -> DoubleArray:
        rings: DoubleArray = _ring_sums(_spectrum(slice_even, mask), _spectrum(slice_odd, mask), n)
        return rings

    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        # summed in the order of the slices, whichever is done first
        sums = sum(pool.map(one, even.reshape(-1, n, n), odd.reshape(-1, n, n)), np.zeros((3, n)))
    kept = slice(1, n // 2 + 1)
    norm = np.sqrt(sums[1] * sums[2])[kept]
    correlation = np.divide(sums[0, kept], norm, out=np.zeros(n // 2), where=norm > 0)
    return np.arange(1, n // 2 + 1) / (n * pixel_um), correlation


def resolution_um(
    frequency_per_um: DoubleArray, correlation: DoubleArray, *, pixel_um: float, criterion: float = CRITERION
) -> float:
    """Period at which the correlation first falls below the criterion; two pixels where it never does.

    Interpolated between rings. Where the first ring is below already, its period, the width of the slices, is
    returned: nothing is resolved.
    """
    below = np.flatnonzero(correlation < criterion)
    if below.size == 0:
        return 2 * pixel_um
    i = int(below[0])
    if i == 0:
        return float(1 / frequency_per_um[0])
    high, low = correlation[i - 1], correlation[i]
    share = (high - criterion) / (high - low)
    return float(1 / (frequency_per_um[i - 1] + share * (frequency_per_um[i] - frequency_per_um[i - 1])))


def _checked(even: FloatArray, odd: FloatArray) -> int:
    if even.shape != odd.shape or even.ndim not in {2, 3} or even.shape[-1] != even.shape[-2]:
        raise ValueError(f"two volumes of one shape with square slices, not {even.shape} and {odd.shape}")
    return int(even.shape[-1])


def _radius(n: int) -> DoubleArray:
    offset = (np.arange(n) - (n - 1) / 2) / (n / 2)
    return np.asarray(np.hypot(offset[:, None], offset), np.float64)


def _spectrum(image: FloatArray, mask: FloatArray) -> NDArray[Any]:
    whole = np.sum(image * mask, dtype=np.float64) / np.sum(mask, dtype=np.float64)
    return np.asarray(scipy.fft.rfft2((image - np.float32(whole)) * mask))


@numba.njit(cache=True, nogil=True)
def _ring_sums(a, b, n):  # type: ignore[no-untyped-def]
    """Real part of a times conjugate b, power of a, power of b, summed over rings: (3, ring)."""
    sums = np.zeros((3, n))
    for i in range(n):
        v = i if 2 * i < n else i - n
        for u in range(n // 2 + 1):
            ring = int(np.rint(np.sqrt(float(u * u + v * v))))
            # the half spectrum of a real slice holds one of each pair but in its first (and last) column
            pair = 1.0 if u == 0 or 2 * u == n else 2.0
            re, im = np.float64(a[i, u].real), np.float64(a[i, u].imag)
            other_re, other_im = np.float64(b[i, u].real), np.float64(b[i, u].imag)
            sums[0, ring] += pair * (re * other_re + im * other_im)
            sums[1, ring] += pair * (re * re + im * im)
            sums[2, ring] += pair * (other_re * other_re + other_im * other_im)
    return sums
