"""What the search for the rotation axis returns."""

from dataclasses import dataclass

import numpy as np

from xctpipe.scan import DoubleArray

TILT_SIGMAS = 4.0
"""A slope counts from so many of its standard deviations on."""


def is_sure_slope(slope: float, *, sigma: float) -> bool:
    """Whether a slope is more than noise."""
    return abs(slope) > TILT_SIGMAS * sigma


@dataclass(frozen=True)
class RowEstimate:
    """Axis found in one detector row by one method, near the line on which the rows agree.

    `sigma_px` comes from the curvature of the score at its maximum; `at_edge` says that the maximum lies
    on the rim of what was searched; `used` that the row took part in the fitted line.
    """

    method: str
    row: float
    center_px: float
    sigma_px: float
    at_edge: bool
    used: bool


@dataclass(frozen=True)
class CenterResult:
    """Axis of rotation as a line over the detector rows.

    Attributes
    ----------
    center_px : column of the axis at row `row_mid`, pixel centres at integers
    row_mid : middle of the rows examined
    uncertainty_px : one standard deviation of `center_px`, the methods' disagreement included
    confidence : 0 (do not trust) to 1, see `find_center`
    tilt_deg, tilt_uncertainty_deg : atan(slope_px_per_row); NaN uncertainty when rows cannot tell
    methods : per method its axis at `row_mid` and the standard deviation of it over rows
    estimates : every row of every method, outliers included
    warnings : sentences for the user, empty when all is well
    overlap_px : of a full turn, the columns that opposite frames share; None where there is no such turn
    """

    center_px: float
    row_mid: float
    uncertainty_px: float
    confidence: float
    tilt_deg: float
    tilt_uncertainty_deg: float
    slope_px_per_row: float
    methods: dict[str, tuple[float, float]]
    estimates: tuple[RowEstimate, ...]
    warnings: tuple[str, ...]
    overlap_px: float | None = None

    def at_rows(self, rows: DoubleArray) -> DoubleArray:
        """Column of the axis at these detector rows; a tilt that may be noise counts as none."""
        sure = is_sure_slope(self.tilt_deg, sigma=self.tilt_uncertainty_deg)
        slope = self.slope_px_per_row if sure else 0.0
        return self.center_px + slope * (np.asarray(rows, np.float64) - self.row_mid)
