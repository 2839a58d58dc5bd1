"""A straight line through the axis found in each row, rows that disagree left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xctpipe.center.result import RowEstimate
from xctpipe.scan import DoubleArray

MAD_TO_SIGMA = 1.4826
SMALLEST_SIGMA_PX = 0.02
MOST_TILT = 0.026
OUTLIER_ROUNDS = 3
OUTLIER_DEVIATIONS = 3.5
OUTLIER_FLOOR_PX = 0.1


class RowPeak(NamedTuple):
    """Axis in one row, its standard deviation, and whether there was an optimum within what was searched."""

    center_px: float
    sigma_px: float
    at_edge: bool


@dataclass(frozen=True)
class Fit:
    """Line `center_px + slope * (row - middle row)`; `spread_px` is the scatter of the rows used."""

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
        sure = abs(self.fit.slope) > 2 * self.fit.slope_sigma
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
    """Weighted straight line, without rows at an edge or beyond 3.5 robust standard deviations."""
    offset = middle_offsets(rows)
    center = np.array([p.center_px for p in peaks])
    sigma = np.array([max(p.sigma_px, SMALLEST_SIGMA_PX) for p in peaks])
    used = ~np.array([p.at_edge for p in peaks])
    if not used.any():
        scatter = float(np.std(center))
        return Fit(float(np.median(center)), scatter + float(sigma.max()), scatter, 0.0, np.nan, used)
    coef = _median_line(center[used], offset=offset[used])
    for _ in range(OUTLIER_ROUNDS):
        residual = center - coef[0] - coef[1] * offset
        robust = MAD_TO_SIGMA * float(np.median(np.abs(residual[used])))
        kept = used & (np.abs(residual) <= max(OUTLIER_DEVIATIONS * robust, OUTLIER_FLOOR_PX))
        if kept.sum() >= 2:
            used = kept
        # rows scatter by more than their noise: what else moves them is added to each, so that no row that
        # is sure of itself outvotes the others
        common = max(robust**2 - float(np.median(sigma[used])) ** 2, 0.0)
        wide = np.sqrt(sigma[used] ** 2 + common)
        coef, cov = _weighted_line(center[used], sigma=wide, offset=offset[used])
        if abs(coef[1]) > MOST_TILT:  # no stage is tilted so far: the rows are too few or too noisy to tell
            flat = np.zeros_like(offset[used])
            coef, cov = _weighted_line(center[used], sigma=wide, offset=flat)
    residual = center - coef[0] - coef[1] * offset
    middle_sigma, slope_sigma = np.sqrt(np.diag(cov))
    spread = float(np.std(residual[used]))
    return Fit(float(coef[0]), float(middle_sigma), spread, float(coef[1]), float(slope_sigma), used)


def _median_line(center: DoubleArray, *, offset: DoubleArray) -> DoubleArray:
    """Line through the median of the slopes of all pairs, which outliers at the ends cannot turn."""
    first, second = np.triu_indices(center.size, k=1)
    apart = offset[second] - offset[first] != 0
    slope = 0.0
    if center.size >= 3 and apart.any():
        first, second = first[apart], second[apart]
        slope = float(np.median((center[second] - center[first]) / (offset[second] - offset[first])))
    return np.array([np.median(center - slope * offset), slope])


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
