"""How fast something grows, how well that is known, and from which scan on it grows."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xctpipe.scan import DoubleArray

Z95 = 1.959964
"""Standard errors on each side of a 95 % interval."""
_SURE = 3.0
"""Standard errors from which on something is said to grow: one still thing in a thousand seems to."""


@dataclass(frozen=True)
class Amounts:
    """Something measured scan by scan, and how wrong it may be."""

    values: DoubleArray
    """(n,); any unit."""
    errors: DoubleArray
    """(n,); standard errors that differ from scan to scan, in that unit."""
    low_frac: float = 0.0
    """How much smaller all of them may be at once (95 %), as a share of each."""
    high_frac: float = 0.0
    """How much larger, as a share of each."""
    unseen: DoubleArray | None = None
    """(n,); how much more there may be where nothing was seen (95 %); 0 elsewhere."""

    def hidden(self) -> DoubleArray:
        """`unseen` as an array."""
        return np.zeros(len(self.values)) if self.unseen is None else self.unseen


@dataclass(frozen=True)
class Rate:
    """A slope and its 95 % interval; NaN where there is none."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    sure: bool = False
    """Whether it is above 0 by three standard errors, and more than what may have been unseen."""

    def times(self, factor: float) -> "Rate":
        """In another unit; a negative factor turns the interval round."""
        ends = sorted((self.low * factor, self.high * factor))
        return Rate(self.value * factor, ends[0], ends[1], self.sure and factor > 0)


def growth_rate(at: ArrayLike, amounts: Amounts) -> Rate:
    """Slope of amounts by least squares, each scan with the same weight.

    Weights from errors would make it another quantity wherever growth is not uniform: the slope of early
    scans, in which things are small and their errors too. Errors are propagated instead: sum(c^2 sigma^2),
    with c the weight of a scan in the slope. What all amounts share, a scale, changes the slope by as much
    and makes nothing grow that does not. What may be unseen changes it by sum(c u). The three are added in
    quadrature, each end by itself. Curvature is no error: the slope is that of these scans.

    Parameters
    ----------
    at : (n,); charge, time or number of each scan, in any unit and order; scans where it is NaN are left out.
    amounts : of n scans; those that are NaN are left out.

    Returns
    -------
    Amount per unit of `at`. NaN with fewer than two scans, or where all are at the same place. With two, the
    line runs through both, and the interval is that of the errors alone.

    References
    ----------
    J. R. Taylor, An Introduction to Error Analysis, 2nd ed. (1997), chapter 8 and section 3.11.
    """
    where = np.asarray(at, dtype=np.float64)
    good = np.isfinite(where) & np.isfinite(amounts.values)
    x, y, sigma = where[good], amounts.values[good], amounts.errors[good]
    if len(x) < 2 or not np.ptp(x) > 0:
        return Rate()
    apart = x - x.mean()
    # scaled first: squares of tiny or huge numbers leave the range
    unit = np.abs(apart).max()
    weights = apart / unit / ((apart / unit) @ (apart / unit)) / unit
    # a constant leaves exactly 0
    slope = float(weights @ (y - y[0]))
    noise = Z95 * float(np.linalg.norm(weights * sigma))
    below, above = amounts.low_frac, amounts.high_frac
    if slope < 0:
        below, above = above, below
    moved = weights * amounts.hidden()[good]
    less, more = float(moved[moved < 0].sum()), float(moved[moved > 0].sum())
    low = slope - math.hypot(noise, below * slope, less)
    high = slope + math.hypot(noise, above * slope, more)
    sure = slope > math.hypot(_SURE / Z95 * noise, _SURE / Z95 * less)
    return Rate(slope, low, high, sure)


def onset(amounts: Amounts, *, grows: bool = False) -> tuple[int, int] | None:
    """Scans between which growth begins: the first that may show it, and the first that does for sure.

    A scan shows growth if it holds more than the mean of all before it, by three standard errors of the
    difference; where none does although the slope shows it, the scan that exceeds those before it most. The
    scans right before it belong to the growth as long as they exceed theirs by more than one.

    Parameters
    ----------
    amounts : in order of time.
    grows : whether the slope is known to be above 0.

    Returns
    -------
    Numbers of both scans, from 1 on: the scan before the first one is the last without growth. None where
    nothing grows.
    """
    rise = _rises(amounts)
    shown = np.flatnonzero(rise > _SURE)
    if not len(shown) and not (grows and len(rise)):
        return None
    sure = first = int(shown[0]) if len(shown) else int(np.argmax(rise))
    while first > 0 and rise[first - 1] > 1:
        first -= 1
    return first + 1, sure + 1


def _rises(amounts: Amounts) -> DoubleArray:
    """What each scan but the first holds more than the mean of those before it, in standard errors."""
    values = amounts.values
    variances = amounts.errors**2 + (amounts.hidden() / Z95) ** 2
    before = np.arange(1, len(values))
    means = np.cumsum(values)[:-1] / before
    noise = np.sqrt(variances[1:] + np.cumsum(variances)[:-1] / before**2)
    more = values[1:] - means
    sure: DoubleArray = np.where(
        noise > 0, more / np.where(noise > 0, noise, 1), np.where(more > 0, np.inf, 0)
    )
    return sure


def joined(amounts: Amounts, *, first: DoubleArray, unseen: float) -> Amounts:
    """The same with a scan before them: `first` is its value and error, `unseen` how much more it may be."""
    hidden = np.concatenate([[unseen], amounts.hidden()])
    values = np.concatenate([first[:1], amounts.values])
    errors = np.concatenate([first[1:], amounts.errors])
    return Amounts(values, errors, amounts.low_frac, amounts.high_frac, hidden)


def summed(parts: list[Amounts], *, n: int, scans: list[NDArray[np.intp]]) -> Amounts:
    """Sum over things of each scan: errors in quadrature, what is common by its sum.

    Parameters
    ----------
    parts : amounts of each thing in the scans it was seen in.
    n : scans in all.
    scans : numbers of the scans of each part, from 0.
    """
    values, variances, ends = np.zeros(n), np.zeros(n), np.zeros(2)
    total = 0.0
    for part, where in zip(parts, scans, strict=True):
        np.add.at(values, where, part.values)
        np.add.at(variances, where, part.errors**2)
        size = float(np.abs(part.values).sum())
        ends += size * np.array([part.low_frac, part.high_frac])
        total += size
    low, high = ends / total if total > 0 else ends
    return Amounts(values, np.sqrt(variances), float(low), float(high))
