"""The search for the axis of rotation."""

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from xctpipe.center.angles import half_turns
from xctpipe.center.antisymmetry import Curves
from xctpipe.center.clean import cleaned
from xctpipe.center.combine import combine, signal
from xctpipe.center.lines import Line
from xctpipe.center.peaks import find_line
from xctpipe.center.registration import MOST_PAIRS, Opposites, opposites_curves, registration_curves
from xctpipe.center.result import CenterResult
from xctpipe.center.sharpness import STRUCTURE, sharpest_line
from xctpipe.center.wedge import wedge_curves
from xctpipe.errors import BadRecipe
from xctpipe.scan import DoubleArray, FloatArray

OPPOSITE_PAIRS = 4
OWN_STARTS = 4
NEAR_PX = 2.0
FEWEST_COLS = 16
FEWEST_ANGLES = 3


def find_center(
    slab_log: FloatArray,
    *,
    angles_rad: ArrayLike,
    rows: ArrayLike,
    opposites: Opposites | None = None,
    search_px: tuple[float, float] | None = None,
    first_col: int = 0,
) -> CenterResult:
    """Axis of rotation from a few detector rows of all frames, by three methods.

    `registration` compares projections half a turn apart, `wedge` the harmonics of the whole sinogram that
    no sample can have. Each searches the whole range by itself. Both look only at what changes from one end
    of a half turn to the other, so a static detector pattern (stripes, a flat field that is off) can neither
    fake an axis nor has to be removed, and a sample wider than the view does no harm. Each pools its rows
    along a line that may tilt by up to 1.5 degrees, and refines row by row. `sharpness` then asks all frames
    which axis gives the sharpest slices: near the axis of the others where they are sure, else anywhere.

    The axis is the mean of the methods that stand out of noise and agree with the one on which most rows
    agree. The confidence is a product: signal (a method's is 0 where its pooled score stands out of noise by
    5.5 standard deviations, 1 from 12; together 1 - product(1 - signal)), agreement exp(-(d/2)^2) for methods
    d px apart (0.7 if one alone stands out), precision 1/(1 + (uncertainty/0.5 px)^2), rows
    min(1, (1 + a)/4) where a rows find the axis by themselves, and edge: 0.2 if the best axis of a method
    lies at or beyond the edge of the search.

    Parameters
    ----------
    slab_log : (angle, row, col) line integrals; single rows or means of adjacent ones, about 8 to 16
    angles_rad : measured angles in any order; over 180 degrees less a step, or more
    rows : detector row of each of the slab's rows
    opposites : more rows of the few frames that registration compares; it uses these instead of the slab
    search_px : first and last column allowed; a quarter of the width on both sides of the middle when absent
    first_col : detector column of the slab's first; what is asked and told of the axis counts from column 0

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
    search = (middle - n_cols / 4, middle + n_cols / 4)
    if search_px is not None:
        search = search_px[0] - first_col, search_px[1] - first_col
    if not 0 <= search[0] < search[1] <= n_cols - 1:
        raise BadRecipe(
            f"center.search_px = {search_px}: give two columns, first < last, within {first_col} to "
            f"{first_col + n_cols - 1}"
        )
    slab, angles = cleaned(slab_log, angles_rad=angles)
    candidates = _candidates(n_cols, search_px=search)
    lines = [
        find_line(curves, rows=at_rows, search_px=search)
        for curves, at_rows in _seam_curves(
            slab, angles=angles, rows=row_numbers, opposites=opposites, candidates=candidates
        )
        if curves is not None
    ]
    if not lines:
        return _nothing(middle + first_col, angles=angles, rows=row_numbers)
    row_mid = float(row_numbers.min() + row_numbers.max()) / 2
    lines = [line.at_row(row_mid) for line in lines]
    sharpest = _sharpest(slab, angles=angles, rows=row_numbers, search_px=search, seam_lines=lines)
    if sharpest is not None:
        lines.append(sharpest.at_row(row_mid))
    seams = half_turns(angles, most=MOST_PAIRS).theta_rad.size
    return combine(
        [line.moved(first_col) for line in lines],
        seams=seams,
        rows=row_numbers,
        search_px=(search[0] + first_col, search[1] + first_col),
    )


def _sharpest(
    slab: FloatArray,
    *,
    angles: DoubleArray,
    rows: DoubleArray,
    search_px: tuple[float, float],
    seam_lines: list[Line],
) -> Line | None:
    """Sharpest axis near those that the seam shows; over the whole search too where none of them is sure."""
    sure = [line for line in seam_lines if signal(line) == 1 and line.agreeing >= len(line.rows) / 2]
    found = sharpest_line(
        slab,
        angles_rad=angles,
        rows=rows,
        search_px=search_px,
        hints_px=[line.center_px for line in sure or seam_lines],
        own_starts=0 if sure else OWN_STARTS,
    )
    if found is None or not any(abs(found.center_px - line.center_px) <= NEAR_PX for line in sure):
        return found
    # where others see the axis, a peak need not stand out of all that structure makes, only out of noise
    return replace(found, significance=found.significance * STRUCTURE)


def _seam_curves(
    slab: FloatArray,
    *,
    angles: DoubleArray,
    rows: DoubleArray,
    opposites: Opposites | None,
    candidates: DoubleArray,
) -> list[tuple[Curves | None, DoubleArray]]:
    """Curves of the methods that look at the seam, and the rows they belong to."""
    wedge = wedge_curves(slab, angles_rad=angles, candidates_px=candidates), rows
    if opposites is None:
        return [(registration_curves(slab, angles_rad=angles, candidates_px=candidates), rows), wedge]
    registration = opposites_curves(opposites, pairs=OPPOSITE_PAIRS, candidates_px=candidates)
    return [(registration, opposites.rows.reshape(opposites.groups, -1).mean(axis=1)), wedge]


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
