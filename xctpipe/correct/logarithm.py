"""A natural logarithm in float32 that the compiler can do for many pixels at once."""

import numba
import numpy as np

from xctpipe.compiled import INNER

LEAST = float(np.finfo(np.float32).tiny)
"""Smallest number whose logarithm is taken."""

_SQRT_HALF = 0x3F3504F3
"""Its bits: a mantissa counted from there lies between 1 / sqrt 2 and sqrt 2."""

_MANTISSA = 0x7FFFFF
_ONE, _HALF, _MINUS_LN2 = np.float32(1), np.float32(0.5), np.float32(-0.6931472)

# log(1 + f) = f - f^2 / 2 + f^3 Q(f): least largest relative error of the logarithm on that interval, 3e-8,
# by reweighted least squares
_Q0, _Q1 = np.float32(0.3333391), np.float32(-0.25001335)
_Q2, _Q3 = np.float32(0.19963083), np.float32(-0.16577667)
_Q4, _Q5 = np.float32(0.14914633), np.float32(-0.14266737)
_Q6 = np.float32(0.08699862)


@numba.njit(cache=True, nogil=True)
def minus_log_row(row, floor):  # type: ignore[no-untyped-def]
    """-log of a contiguous float32 row, in place; returns how many were below `floor`, or NaN, and raised.

    `floor` is float32 and at least `LEAST`; infinity is taken for 2^128. The error is below 2e-7 of the
    result. No operation is contracted or reordered, so that a number gives the same bits wherever it stands.
    """
    below = _count_below(row, floor)
    for c in range(row.size):
        bits = np.int32(np.float32(_raised(row[c], floor)).view(np.int32) - _SQRT_HALF)
        power = np.float32(np.int32(bits >> 23))
        f = np.int32((bits & _MANTISSA) + _SQRT_HALF).view(np.float32) - _ONE
        q = (((((_Q6 * f + _Q5) * f + _Q4) * f + _Q3) * f + _Q2) * f + _Q1) * f + _Q0
        row[c] = _MINUS_LN2 * power - (f + (q * f - _HALF) * (f * f))
    return below


@numba.njit(**INNER)
def _raised(value, floor):  # type: ignore[no-untyped-def]
    return value if value >= floor else floor


@numba.njit(**INNER)
def _count_below(row, floor):  # type: ignore[no-untyped-def]
    some = False
    for c in range(row.size):
        # without a way out, so that many are compared at once
        some |= not row[c] >= floor
    below = 0
    if some:
        for c in range(row.size):
            below += not row[c] >= floor
    return below
