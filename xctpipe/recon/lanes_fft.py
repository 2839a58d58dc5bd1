"""Fast Fourier transforms of complex numbers in lanes: the slices of a batch transformed together.

Stockham's form of the mixed-radix algorithm [1]_: one pass over the numbers for each factor of the length,
to and fro between two arrays, in natural order throughout. Every factor of a length must be 2, 3 or 5.

References
----------
.. [1] Van Loan, Computational Frameworks for the Fast Fourier Transform (SIAM, 1992), section 1.7,
   doi:10.1137/1.9781611970999
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.recon.lanes import load, store, times_i
from xctpipe.scan import FloatArray

ComplexArray = NDArray[np.complex64]

COST = {9: 1.7, 8: 1.5, 6: 1.25, 5: 1.25, 4: 1.1, 3: 1.0, 2: 0.9}
"""Relative time of a pass, by its factor; about that of reading and writing the numbers."""
F32, C64 = np.float32, np.complex64
HALF_ROOT = F32(np.sqrt(0.5))
SIN_60 = F32(np.sqrt(0.75))
COS_72, SIN_72 = F32(np.cos(0.4 * np.pi)), F32(np.sin(0.4 * np.pi))
COS_144, SIN_144 = F32(np.cos(0.8 * np.pi)), F32(np.sin(0.8 * np.pi))
SIXTH, THIRD = C64(np.exp(-1j * np.pi / 3)), C64(np.exp(-2j * np.pi / 3))
NINTH, NINTH_2, NINTH_4 = (C64(np.exp(-2j * np.pi * k / 9)) for k in (1, 2, 4))


class Transform(NamedTuple):
    """Factors of a length, and for each pass what its numbers are multiplied by."""

    factors: NDArray[np.int64]
    twiddles: ComplexArray


def good_length(n: int) -> int:
    """The length of at least n that is transformed quickest."""
    known = [m for m in range(n, n + n // 8 + 5) if factors_of(m) is not None]
    return min(known, key=lambda m: m * sum(COST[r] for r in factors_of(m) or ()))


@lru_cache(maxsize=4096)
def factors_of(n: int) -> tuple[int, ...] | None:
    """The cheapest factors in `COST` whose product is n; None where n has a prime factor above 5."""
    if n == 1:
        return ()
    best = None
    for r in COST:
        rest = factors_of(n // r) if n % r == 0 else None
        if rest is not None and (best is None or cost_of((r, *rest)) < cost_of(best)):
            best = (r, *rest)
    return best and tuple(sorted(best, reverse=True))


def cost_of(factors: tuple[int, ...]) -> float:
    """Relative time for each number."""
    return sum(COST[r] for r in factors)


@lru_cache(maxsize=16)
def transform_of(n: int) -> Transform:
    """Tables for the transform of n numbers."""
    factors = factors_of(n)
    if factors is None:
        raise ValueError(f"no transform of length {n}: a prime factor is above 5")
    twiddles = np.concatenate([*_twiddles(n, factors), np.ones(1)])
    return Transform(np.array(factors, np.int64), twiddles.astype(np.complex64))


def _twiddles(n: int, factors: tuple[int, ...]) -> Iterator[NDArray[np.complex128]]:
    for r in factors:
        n //= r
        yield np.exp(-2j * np.pi / (n * r) * np.outer(np.arange(n), np.arange(1, r))).ravel()


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def transform(x: FloatArray, y: FloatArray, plan: Transform) -> tuple[FloatArray, FloatArray]:
    """Forward transform of the first numbers of x: the array that holds it, and the other one.

    Both are overwritten. `x` and `y` are contiguous arrays (..., 2, lane).
    """
    m = 1
    for r in plan.factors:
        m *= r
    s = 1
    first = 0
    for r in plan.factors:
        m //= r
        one_pass(x, y, (r, m, s), plan.twiddles[first : first + m * (r - 1)])
        first += m * (r - 1)
        s *= r
        x, y = y, x
    return x, y


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def one_pass(x: FloatArray, y: FloatArray, shape: tuple[int, int, int], w: ComplexArray) -> None:
    """A pass: transforms over the first axis of (factor, m, s), multiplied and put between the others."""
    r, m, s = shape
    if r == 9:
        pass_9(x, y, m, s, w)
    elif r == 8:
        pass_8(x, y, m, s, w)
    elif r == 6:
        pass_6(x, y, m, s, w)
    elif r == 5:
        pass_5(x, y, m, s, w)
    elif r == 4:
        pass_4(x, y, m, s, w)
    elif r == 3:
        pass_3(x, y, m, s, w)
    else:
        pass_2(x, y, m, s, w)


@numba.njit(forceinline=True)  # type: ignore[untyped-decorator]
def three(a: Any, b: Any, c: Any) -> tuple[Any, Any, Any]:
    """Transform of three numbers."""
    total, turned = b + c, times_i(b - c) * SIN_60
    middle = a - total * F32(0.5)
    return a + total, middle - turned, middle + turned


@numba.njit(forceinline=True)  # type: ignore[untyped-decorator]
def four(a: Any, b: Any, c: Any, d: Any) -> tuple[Any, Any, Any, Any]:
    """Transform of four numbers."""
    even, odd = a + c, b + d
    other, turned = a - c, times_i(b - d)
    return even + odd, other - turned, even - odd, other + turned


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pass_2(x: FloatArray, y: FloatArray, m: int, s: int, w: ComplexArray) -> None:
    """A pass for the factor 2."""
    for p in range(m):
        w1 = w[p]
        for q in range(s):
            i, o = q + s * p, q + s * 2 * p
            a, b = load(x, i), load(x, i + s * m)
            store(y, o, a + b)
            store(y, o + s, (a - b) * w1)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pass_3(x: FloatArray, y: FloatArray, m: int, s: int, w: ComplexArray) -> None:
    """A pass for the factor 3."""
    step = s * m
    for p in range(m):
        w1, w2 = w[2 * p], w[2 * p + 1]
        for q in range(s):
            i, o = q + s * p, q + s * 3 * p
            a, b, c = three(load(x, i), load(x, i + step), load(x, i + 2 * step))
            store(y, o, a)
            store(y, o + s, b * w1)
            store(y, o + 2 * s, c * w2)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pass_4(x: FloatArray, y: FloatArray, m: int, s: int, w: ComplexArray) -> None:
    """A pass for the factor 4."""
    step = s * m
    for p in range(m):
        w1, w2, w3 = w[3 * p], w[3 * p + 1], w[3 * p + 2]
        for q in range(s):
            i, o = q + s * p, q + s * 4 * p
            a, b, c, d = four(load(x, i), load(x, i + step), load(x, i + 2 * step), load(x, i + 3 * step))
            store(y, o, a)
            store(y, o + s, b * w1)
            store(y, o + 2 * s, c * w2)
            store(y, o + 3 * s, d * w3)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pass_5(x: FloatArray, y: FloatArray, m: int, s: int, w: ComplexArray) -> None:
    """A pass for the factor 5."""
    step = s * m
    for p in range(m):
        w1, w2, w3, w4 = w[4 * p], w[4 * p + 1], w[4 * p + 2], w[4 * p + 3]
        for q in range(s):
            i, o = q + s * p, q + s * 5 * p
            a, b, c = load(x, i), load(x, i + step), load(x, i + 2 * step)
            d, e = load(x, i + 3 * step), load(x, i + 4 * step)
            near, far = b + e, c + d
            turned, other = times_i(b - e), times_i(c - d)
            first, second = a + near * COS_72 + far * COS_144, a + near * COS_144 + far * COS_72
            third, fourth = turned * SIN_72 + other * SIN_144, turned * SIN_144 - other * SIN_72
            store(y, o, a + near + far)
            store(y, o + s, (first - third) * w1)
            store(y, o + 2 * s, (second - fourth) * w2)
            store(y, o + 3 * s, (second + fourth) * w3)
            store(y, o + 4 * s, (first + third) * w4)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pass_6(x: FloatArray, y: FloatArray, m: int, s: int, w: ComplexArray) -> None:
    """A pass for the factor 6."""
    step = s * m
    for p in range(m):
        w1, w2, w3, w4, w5 = w[5 * p], w[5 * p + 1], w[5 * p + 2], w[5 * p + 3], w[5 * p + 4]
        for q in range(s):
            i, o = q + s * p, q + s * 6 * p
            a, c, e = three(load(x, i), load(x, i + 2 * step), load(x, i + 4 * step))
            b, d, f = three(load(x, i + step), load(x, i + 3 * step), load(x, i + 5 * step))
            d, f = d * SIXTH, f * THIRD
            store(y, o, a + b)
            store(y, o + s, (c + d) * w1)
            store(y, o + 2 * s, (e + f) * w2)
            store(y, o + 3 * s, (a - b) * w3)
            store(y, o + 4 * s, (c - d) * w4)
            store(y, o + 5 * s, (e - f) * w5)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pass_8(x: FloatArray, y: FloatArray, m: int, s: int, w: ComplexArray) -> None:
    """A pass for the factor 8."""
    step = s * m
    for p in range(m):
        w1, w2, w3, w4 = w[7 * p], w[7 * p + 1], w[7 * p + 2], w[7 * p + 3]
        w5, w6, w7 = w[7 * p + 4], w[7 * p + 5], w[7 * p + 6]
        for q in range(s):
            i, o = q + s * p, q + s * 8 * p
            a, c, e, g = four(load(x, i), load(x, i + 2 * step), load(x, i + 4 * step), load(x, i + 6 * step))
            i += step
            b, d, f, h = four(load(x, i), load(x, i + 2 * step), load(x, i + 4 * step), load(x, i + 6 * step))
            # times exp(-i pi / 4), times -i (further down), times exp(-3 i pi / 4)
            d, f, h = (d - times_i(d)) * HALF_ROOT, times_i(f), (h + times_i(h)) * HALF_ROOT
            store(y, o, a + b)
            store(y, o + s, (c + d) * w1)
            store(y, o + 2 * s, (e - f) * w2)
            store(y, o + 3 * s, (g - h) * w3)
            store(y, o + 4 * s, (a - b) * w4)
            store(y, o + 5 * s, (c - d) * w5)
            store(y, o + 6 * s, (e + f) * w6)
            store(y, o + 7 * s, (g + h) * w7)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pass_9(x: FloatArray, y: FloatArray, m: int, s: int, w: ComplexArray) -> None:
    """A pass for the factor 9."""
    step = s * m
    for p in range(m):
        w1, w2, w3, w4 = w[8 * p], w[8 * p + 1], w[8 * p + 2], w[8 * p + 3]
        w5, w6, w7, w8 = w[8 * p + 4], w[8 * p + 5], w[8 * p + 6], w[8 * p + 7]
        for q in range(s):
            i, o = q + s * p, q + s * 9 * p
            a, b, c = three(load(x, i), load(x, i + 3 * step), load(x, i + 6 * step))
            i += step
            d, e, f = three(load(x, i), load(x, i + 3 * step), load(x, i + 6 * step))
            i += step
            g, h, k = three(load(x, i), load(x, i + 3 * step), load(x, i + 6 * step))
            a, d, g = three(a, d, g)
            b, e, h = three(b, e * NINTH, h * NINTH_2)
            c, f, k = three(c, f * NINTH_2, k * NINTH_4)
            store(y, o, a)
            store(y, o + s, b * w1)
            store(y, o + 2 * s, c * w2)
            store(y, o + 3 * s, d * w3)
            store(y, o + 4 * s, e * w4)
            store(y, o + 5 * s, f * w5)
            store(y, o + 6 * s, g * w6)
            store(y, o + 7 * s, h * w7)
            store(y, o + 8 * s, k * w8)
