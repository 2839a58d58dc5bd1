"""A straight line through the axis found in each row, rows that disagree left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xctpipe.center.result import RowEstimate, is_sure_slope
from xctpipe.scan import DoubleArray

MAD_TO_SIGMA = 1.4826
SMALLEST_SIGMA_PX = 0.02
MOST_TILT = 0.026
OUTLIER_ROUNDS = 3
OUTLIER_DEVIATIONS = 3.5
OUTLIER_FLOOR_PX = 0.1
TILTED_MISFIT = 0.5
"""A tilted line is tried first where it leaves less than so much of what a level one does."""
BISECTIONS = 30
LEAST_SPAN_FRAC = 0.5
"""Rows that span less of the rows looked at tell no slope."""


class RowPeak(NamedTuple):
    """Axis in one row, its standard deviation, and whether there was an optimum within what was searched."""

    center_px: float
    sigma_px: float
    at_edge: bool


@dataclass(frozen=True)
class Fit:
    """Line `center_px + slope * (row - middle row)`; `spread_px` is the scatter of the rows used.

    A slope that is not sure is for information: `center_px` is then the axis at any row.
    """

    center_px: float
    sigma_px: float
    spread_px: float
    slope: float
    slope_sigma: float
    used: NDArray[np.bool_]


@dataclass(frozen=True)
class Line:
    """What one method found.

    `significance` is the height of its optimum in standard deviations of what noise alone makes; `agreeing`
    the number of rows that find the line by themselves. `at_edge`: the best candidate lies on the edge of the
    search, or a better one outside.
    """

    method: str
    fit: Fit
    significance: float
    agreeing: int
    at_edge: bool
    rows: tuple[RowEstimate, ...]

    @property
    def center_px(self) -> float:
        """Axis at the middle row."""
        return self.fit.center_px

    @property
    def row_mid(self) -> float:
        """Middle of the rows looked at."""
        numbers = [estimate.row for estimate in self.rows]
        return (min(numbers) + max(numbers)) / 2

    def moved(self, by_px: float) -> "Line":
        """The same line in columns counted from `by_px` further left."""
        rows = tuple(replace(row, center_px=row.center_px + by_px) for row in self.rows)
        return replace(self, fit=replace(self.fit, center_px=self.fit.center_px + by_px), rows=rows)

    def at_row(self, row: float) -> "Line":
        """The same line with its axis given at another row; a slope that may be noise does not move it."""
        sure = is_sure_slope(self.fit.slope, sigma=self.fit.slope_sigma)
        moved = self.fit.slope * (row - self.row_mid) if sure else 0.0
        return replace(self, fit=replace(self.fit, center_px=self.fit.center_px + moved))


def middle_offsets(rows: DoubleArray) -> DoubleArray:
    """Rows counted from the middle of their range."""
    offsets: DoubleArray = rows - (rows.min() + rows.max()) / 2
    return offsets


def row_estimates(
    method: str, *, rows: DoubleArray, peaks: Sequence[RowPeak], used: NDArray[np.bool_]
) -> tuple[RowEstimate, ...]:
    """The peaks as results."""
    return tuple(
        RowEstimate(method, float(row), *peak, bool(flag))
        for row, peak, flag in zip(rows, peaks, used, strict=True)
    )


def fit_line(peaks: Sequence[RowPeak], *, rows: DoubleArray) -> Fit:
    """Weighted straight line, without rows at an edge or beyond 3.5 standard deviations.

    A slope that may be noise is told but not used: the line is then the rows' weighted mean, level. One from
    few rows close together is none: it would carry their errors, enlarged, to where nothing was seen.
    """
    offset = middle_offsets(rows)
    center = np.array([p.center_px for p in peaks])
    sigma = np.array([max(p.sigma_px, SMALLEST_SIGMA_PX) for p in peaks])
    used = ~np.array([p.at_edge for p in peaks])
    if not used.any():
        scatter = float(np.std(center))
        return Fit(float(np.median(center)), scatter + float(sigma.max()), scatter, 0.0, np.nan, used)
    coef = _median_line(center[used], sigma=sigma[used], offset=offset[used])
    for _ in range(OUTLIER_ROUNDS):
        residual = center - coef[0] - coef[1] * offset
        # rows scatter by more than their noise: what else moves them is added to each, so that no row that
        # is sure of itself outvotes the others
        wide = np.hypot(sigma, _common_sigma(residual[used], sigma=sigma[used]))
        kept = used & (np.abs(residual) <= np.maximum(OUTLIER_DEVIATIONS * wide, OUTLIER_FLOOR_PX))
        if kept.sum() >= 2:
            used = kept
        level, level_cov = _weighted_line(center[used], sigma=wide[used], offset=np.zeros(used.sum()))
        coef, cov = _weighted_line(center[used], sigma=wide[used], offset=offset[used])
        if abs(coef[1]) > MOST_TILT or np.ptp(offset[used]) < LEAST_SPAN_FRAC * np.ptp(offset):
            coef, cov = level, level_cov
        slope, slope_sigma = float(coef[1]), float(np.sqrt(cov[1, 1]))
        if not is_sure_slope(slope, sigma=slope_sigma):
            coef, cov = level, level_cov
    spread = float(np.std((center - coef[0] - coef[1] * offset)[used]))
    return Fit(float(coef[0]), float(np.sqrt(cov[0, 0])), spread, slope, slope_sigma, used)


def _common_sigma(residual: DoubleArray, *, sigma: DoubleArray) -> float:
    """What, added to the errors of all rows, makes the median residual that of a normal distribution.

    Rows that tell more count for more: those with large errors know nothing of a small one in common.
    """
    weight = 1 / np.hypot(sigma, OUTLIER_FLOOR_PX)

    def misfit(common_px: float) -> float:
        away = np.abs(residual) / np.hypot(sigma, common_px)
        return MAD_TO_SIGMA * _weighted_median(away, weight=weight)

    if misfit(0.0) <= 1:
        return 0.0
    low, high = 0.0, MAD_TO_SIGMA * float(np.abs(residual).max())
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if misfit(middle) > 1 else (low, middle)
    return high


def _median_line(center: DoubleArray, *, sigma: DoubleArray, offset: DoubleArray) -> DoubleArray:
    """Weighted median of the rows; tilted by that of the slopes of all pairs where it then is clearly nearer.

    Outliers at the ends turn neither.
    """
    error = np.hypot(sigma, OUTLIER_FLOOR_PX)
    first, second = np.triu_indices(center.size, k=1)
    run = offset[second] - offset[first]
    apart = run != 0
    slopes = [0.0]
    if center.size >= 3 and apart.any():
        rise, weight = center[second] - center[first], np.abs(run) / np.hypot(error[first], error[second])
        slopes.append(_weighted_median(rise[apart] / run[apart], weight=weight[apart]))
    found, misfit = [], []
    for slope in slopes:
        middle = _weighted_median(center - slope * offset, weight=1 / error)
        found.append(np.array([middle, slope]))
        away = np.abs(center - middle - slope * offset) / error
        misfit.append(np.minimum(away, OUTLIER_DEVIATIONS).sum())
    return found[-1] if misfit[-1] < TILTED_MISFIT * misfit[0] else found[0]


def _weighted_median(values: DoubleArray, *, weight: DoubleArray) -> float:
    """Middle of the values that have no more than half of the weight on either side."""
    order = np.argsort(values, kind="stable")
    part = np.cumsum(weight[order]) / weight.sum()
    low, high = np.searchsorted(part, [0.5 - 1e-9, 0.5 + 1e-9])
    return float(values[order][low] + values[order][min(high, values.size - 1)]) / 2


def _weighted_line(
    center: DoubleArray, *, sigma: DoubleArray, offset: DoubleArray
) -> tuple[DoubleArray, DoubleArray]:
    """Coefficients (middle, slope) and covariance, scaled up by the scatter where that exceeds sigma."""
    terms = 2 if center.size >= 3 and np.ptp(offset) > 0 else 1
    design = np.stack([np.ones_like(offset), offset], axis=1)[:, :terms]
    weighted = design / sigma[:, None]
    cov = np.linalg.pinv(weighted.T @ weighted)
    coef = cov @ weighted.T @ (center / sigma)
    spare = center.size - terms
    chi2 = float(np.sum(((center - design @ coef) / sigma) ** 2) / spare) if spare > 0 else 1.0
    full_coef, full_cov = np.zeros(2), np.full((2, 2), np.nan)
    full_coef[:terms] = coef
    full_cov[:terms, :terms] = cov * max(chi2, 1.0)
    return full_coef, full_cov
