"""The search for the axis of rotation."""

import numpy as np
from numpy.typing import ArrayLike

from xctpipe.center.angles import half_turns
from xctpipe.center.clean import cleaned
from xctpipe.center.combine import combine
from xctpipe.center.lines import middle_offsets
from xctpipe.center.peaks import find_line
from xctpipe.center.registration import MOST_PAIRS, registration_curves
from xctpipe.center.result import CenterResult
from xctpipe.center.sharpness import sharpest_line
from xctpipe.center.wedge import wedge_curves
from xctpipe.errors import BadRecipe
from xctpipe.scan import DoubleArray, FloatArray

SEAM_METHODS = (registration_curves, wedge_curves)
FEWEST_COLS = 16
FEWEST_ANGLES = 3


def find_center(
    slab_log: FloatArray,
    *,
    angles_rad: ArrayLike,
    rows: ArrayLike,
    search_px: tuple[float, float] | None = None,
) -> CenterResult:
    """Axis of rotation from a few detector rows, by three methods.

    `registration` compares projections half a turn apart, `wedge` the harmonics of the whole sinogram that
    no sample can have. Each searches the whole range by itself. Both look only at what changes from one end
    of a half turn to the other, so a static detector pattern (stripes, a flat field that is off) can neither
    fake an axis nor has to be removed, and a sample wider than the view does no harm. Each pools its rows
    along a line that may tilt by up to 1.5 degrees, and refines row by row. `sharpness` then asks all frames,
    within a few px of the better of the two, which axis gives the sharpest slices; it is absent where
    contrast is too low for it.

    The confidence is a product: signal (0 where the pooled score stands out of its noise by 5.5 standard
    deviations, 1 from 12, mean of the methods), agreement exp(-(d/2)^2) for methods d px apart (0.7 if one
    alone stands out), precision 1/(1 + (uncertainty/0.5 px)^2), rows min(1, (1 + a)/4) where a rows find the
    axis by themselves, and edge: 0.2 if the best axis lies at or beyond the edge of the search.

    Parameters
    ----------
    slab_log : (angle, row, col) line integrals; single rows or means of adjacent ones, about 8 to 16
    angles_rad : measured angles in any order; over 180 degrees less a step, or more
    rows : detector row of each of the slab's rows
    search_px : first and last column allowed; a quarter of the width on both sides of the middle when absent

    Returns
    -------
    The axis and what is known of it. Hopeless data give warnings and a confidence near 0, not an error.

    Raises
    ------
    BadRecipe : shapes that do not fit, or a search outside the detector
    """
    angles, row_numbers = np.asarray(angles_rad, np.float64), np.asarray(rows, np.float64)
    _check_shapes(slab_log, angles=angles, rows=row_numbers)
    n_cols = slab_log.shape[2]
    middle = (n_cols - 1) / 2
    search = search_px or (middle - n_cols / 4, middle + n_cols / 4)
    if not 0 <= search[0] < search[1] <= n_cols - 1:
        raise BadRecipe(f"search_px = {search}: give two columns, first < last, within 0 to {n_cols - 1}")
    slab, angles = cleaned(slab_log, angles_rad=angles)
    candidates = _candidates(n_cols, search_px=search)
    curves = [method(slab, angles_rad=angles, candidates_px=candidates) for method in SEAM_METHODS]
    lines = [find_line(c, rows=row_numbers, search_px=search) for c in curves if c is not None]
    if not lines:
        return _nothing(middle, angles=angles, rows=row_numbers)
    start = max(lines, key=lambda line: line.significance).fit
    near = start.center_px + start.slope * middle_offsets(row_numbers)
    sharpest = sharpest_line(slab, angles_rad=angles, rows=row_numbers, near_px=near)
    if sharpest is not None:
        lines.append(sharpest)
    seams = half_turns(angles, most=MOST_PAIRS).theta_rad.size
    return combine(lines, seams=seams, rows=row_numbers, search_px=search)


def _check_shapes(slab_log: FloatArray, *, angles: DoubleArray, rows: DoubleArray) -> None:
    if slab_log.ndim != 3 or slab_log.shape[:2] != (angles.size, rows.size) or rows.size == 0:
        raise BadRecipe(
            f"find_center: slab of shape {slab_log.shape} with {angles.size} angles and {rows.size} rows; "
            "give (angle, row, col) with one angle and one row number each"
        )
    if slab_log.shape[0] < FEWEST_ANGLES or slab_log.shape[2] < FEWEST_COLS:
        raise BadRecipe(
            f"find_center: {slab_log.shape[0]} angles and {slab_log.shape[2]} columns; at least "
            f"{FEWEST_ANGLES} and {FEWEST_COLS} are needed, give center.center_px"
        )


def _candidates(n_cols: int, *, search_px: tuple[float, float]) -> DoubleArray:
    """Every half column of the search, and beyond it for the background against which a peak is judged."""
    middle, reach = (n_cols - 1) / 2, 3 * n_cols / 8
    first = max(0.0, min(search_px[0] - 2, middle - reach))
    last = min(n_cols - 1.0, max(search_px[1] + 2, middle + reach))
    return np.arange(np.floor(2 * first), np.ceil(2 * last) + 1) / 2


def _nothing(middle_px: float, *, angles: DoubleArray, rows: DoubleArray) -> CenterResult:
    span = np.degrees(np.ptp(angles))
    return CenterResult(
        center_px=middle_px,
        row_mid=float(rows.min() + rows.max()) / 2,
        uncertainty_px=float("inf"),
        confidence=0.0,
        tilt_deg=0.0,
        tilt_uncertainty_deg=float("nan"),
        slope_px_per_row=0.0,
        methods={},
        estimates=(),
        warnings=(
            f"{angles.size} angles over {span:.1f} deg hold no half turn to find the axis from; the middle "
            f"of the detector, {middle_px:.1f} px, is assumed: give center.center_px",
        ),
    )
