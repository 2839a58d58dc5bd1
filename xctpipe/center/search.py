"""The search for the axis of rotation."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from xctpipe.center.angles import half_turns
from xctpipe.center.clean import cleaned
from xctpipe.center.combine import DISAGREEMENT_PX, FALSE_SHARPNESS, combine, signal, stands_out
from xctpipe.center.lines import Line
from xctpipe.center.peaks import find_line
from xctpipe.center.phase_correlation import phase_curves
from xctpipe.center.registration import (
    MOST_PAIRS,
    Differences,
    Opposites,
    opposites_differences,
    registration_curves,
    slab_differences,
)
from xctpipe.center.result import CenterResult
from xctpipe.center.sharpness import STRUCTURE, sharpest_line
from xctpipe.center.turn import full_search_px, is_full_turn, turn_line
from xctpipe.center.wedge import wedge_curves
from xctpipe.errors import BadRecipe
from xctpipe.scan import DoubleArray, FloatArray

OPPOSITE_PAIRS = 4
OWN_STARTS = 4
NEAR_PX = 2.0
CLOSE_PX = 1.0
BLIND_TURN = 0.4
PHASE_SIGNIFICANCE = 10.0
FEWEST_COLS = 16
FEWEST_ANGLES = 3


@dataclass(frozen=True, eq=False)
class Data:
    """What is searched: clean line integrals (angle, row, col), and the differences of opposite frames."""

    slab: FloatArray
    angles_rad: DoubleArray
    rows: DoubleArray
    differences: Differences
    difference_rows: DoubleArray
    candidates_px: DoubleArray
    search_px: tuple[float, float]

    @property
    def row_mid(self) -> float:
        """Middle of the rows."""
        return float(self.rows.min() + self.rows.max()) / 2


def find_center(
    slab_log: FloatArray,
    *,
    angles_rad: ArrayLike,
    rows: ArrayLike,
    opposites: Opposites | None = None,
    search_px: tuple[float, float] | None = None,
    first_col: int = 0,
) -> CenterResult:
    """Axis of rotation from a few detector rows of all frames, by three methods, of a full turn by four.

    `registration` compares projections half a turn apart, `wedge` the harmonics of the whole sinogram that
    no sample can have. Each searches the whole range by itself. Both look only at what changes from one end
    of a half turn to the other, so a static detector pattern (stripes, a flat field that is off) can neither
    fake an axis nor has to be removed, and a sample wider than the view does no harm. Each pools its rows
    along a line that may tilt by up to 1.5 degrees, and refines row by row. `sharpness` then asks all frames
    which axis gives the sharpest slices: near the axis of the others where they are sure, else anywhere.
    Angles over 350 degrees or more are a full turn: `turn` compares all frames with their opposites and finds
    an axis near the edge of the view too, where the others count only if they agree with it. Over half a turn
    the phases of the opposite projections are a second opinion, which is not averaged in.

    The axis is the mean of the methods that stand out of noise and agree with the one on which most rows
    agree. The confidence is a product: signal (a method's is 0 where its pooled score stands out of noise by
    5.5 standard deviations, 1 from 12; together 1 - product(1 - signal)), agreement
    product(1 - signal (1 - exp(-(d/2)^2))) over methods d px off the one on which most rows agree, so that
    an unsure one cannot veto (0.7 if one alone stands out), precision 1/(1 + (uncertainty/0.5 px)^2), rows
    min(1, (1 + a)/4) where a rows find the axis by themselves, and edge: 0.2 if the best axis of a method
    lies at or beyond the edge of the search. Phases that are sure of another axis halve it; where `turn` sees
    no axis in a full turn, 0.4 of it is left.

    Parameters
    ----------
    slab_log : (angle, row, col) line integrals; single rows or means of adjacent ones, about 8 to 16
    angles_rad : measured angles in any order; over 180 degrees less a step, or more
    rows : detector row of each of the slab's rows
    opposites : more rows of the few frames that registration compares; it uses these instead of the slab
    search_px : first and last column allowed; absent: a quarter of the width on both sides of the middle;
        of a full turn every column about which 16 columns, and 5 % of the width, overlap
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
    search = _search(n_cols, asked_px=search_px, first_col=first_col, angles=angles)
    slab, angles = cleaned(slab_log, angles_rad=angles)
    data = _data(slab, angles=angles, rows=row_numbers, opposites=opposites, search_px=search)
    lines = _lines(data)
    if not lines:
        return _nothing((n_cols - 1) / 2 + first_col, angles=angles, rows=row_numbers)
    found = combine(
        [line.moved(first_col) for line in lines],
        seams=half_turns(angles, most=MOST_PAIRS).theta_rad.size,
        rows=row_numbers,
        search_px=(search[0] + first_col, search[1] + first_col),
    )
    if is_full_turn(angles):
        return _of_turn(found, lines=lines, first_col=first_col, n_cols=n_cols)
    return _second_opinion(found, data=data, first_col=first_col)


def _search(
    n_cols: int, *, asked_px: tuple[float, float] | None, first_col: int, angles: DoubleArray
) -> tuple[float, float]:
    """Columns of the slab to search: those asked for, else what the angles allow."""
    if asked_px is None:
        return full_search_px(n_cols) if is_full_turn(np.sort(angles)) else _middle_half(n_cols)
    search = asked_px[0] - first_col, asked_px[1] - first_col
    if not 0 <= search[0] < search[1] <= n_cols - 1:
        raise BadRecipe(
            f"center.search_px = {asked_px}: give two columns, first < last, within {first_col} to "
            f"{first_col + n_cols - 1}"
        )
    return search


def _middle_half(n_cols: int) -> tuple[float, float]:
    return (n_cols - 1) / 2 - n_cols / 4, (n_cols - 1) / 2 + n_cols / 4


def _data(
    slab: FloatArray,
    *,
    angles: DoubleArray,
    rows: DoubleArray,
    opposites: Opposites | None,
    search_px: tuple[float, float],
) -> Data:
    candidates = _candidates(slab.shape[2], search_px=search_px)
    if opposites is None:
        differences, at_rows = slab_differences(slab, angles_rad=angles), rows
    else:
        differences = opposites_differences(opposites, pairs=OPPOSITE_PAIRS)
        at_rows = opposites.rows.reshape(opposites.groups, -1).mean(axis=1)
    return Data(slab, angles, rows, differences, at_rows, candidates, search_px)


def _lines(data: Data) -> list[Line]:
    """What each method finds, at the middle row."""
    n_cols = data.slab.shape[2]
    curves = [
        (registration_curves(data.differences, candidates_px=data.candidates_px), data.difference_rows),
        (wedge_curves(data.slab, angles_rad=data.angles_rad, candidates_px=data.candidates_px), data.rows),
    ]
    lines = [
        find_line(one, rows=rows, search_px=data.search_px).at_row(data.row_mid)
        for one, rows in curves
        if one is not None
    ]
    turn = _turn(data) if is_full_turn(data.angles_rad) else None
    if turn is not None:
        lines = [turn, *_beside(turn, lines, n_cols=n_cols)]
    sharpest = _sharpest(data, seam_lines=lines) if lines else None
    if sharpest is None:
        return lines
    return [*lines, *([sharpest] if turn is None else _beside(turn, [sharpest], n_cols=n_cols))]


def _turn(data: Data) -> Line | None:
    line = turn_line(
        data.slab,
        angles_rad=data.angles_rad,
        rows=data.rows,
        candidates_px=data.candidates_px,
        search_px=data.search_px,
    )
    return None if line is None else line.at_row(data.row_mid)


def _beside(turn: Line, others: list[Line], *, n_cols: int) -> list[Line]:
    """The other methods of a full turn: where all pairs of frames are sure, those that see something.

    The wedge knows two of its seams only, so it counts where it agrees. Beyond the middle half of the view
    all of them may mistake the rim of the sample for an axis, and count where they agree.
    """
    if signal(turn) < 1:
        return others
    first, last = _middle_half(n_cols)
    near = first <= turn.center_px <= last
    return [
        _as_unsure_as(turn, line)
        for line in others
        if stands_out(line)
        and (
            (near and line.method != "wedge")
            or abs(line.center_px - turn.center_px) <= DISAGREEMENT_PX / (2 if line.method == "wedge" else 1)
        )
    ]


def _as_unsure_as(turn: Line, line: Line) -> Line:
    """What differs between the pairs of the turn, no other method knows better."""
    return replace(line, fit=replace(line.fit, sigma_px=max(line.fit.sigma_px, turn.fit.sigma_px)))


def _of_turn(found: CenterResult, *, lines: list[Line], first_col: int, n_cols: int) -> CenterResult:
    """What a full turn adds: columns that opposite frames share, or that they share none."""
    center = found.center_px - first_col
    overlap = float(np.clip(2 * min(center, n_cols - 1 - center) + 1, 0, n_cols))
    turn = [line for line in lines if line.method == "turn"]
    confidence = found.confidence * (1.0 if any(map(stands_out, turn)) else BLIND_TURN)
    if any(signal(line) == 1 for line in turn) or (any(map(stands_out, turn)) and confidence >= 0.5):
        return replace(found, overlap_px=overlap)
    return replace(
        found,
        confidence=confidence,
        warnings=(
            *found.warnings,
            "the opposite frames of this full turn do not tell the axis: it may lie outside the view, which "
            "leaves no overlap to find it from, or next to the edge; give center.center_px",
        ),
    )


def _second_opinion(found: CenterResult, *, data: Data, first_col: int) -> CenterResult:
    """A warning, and half the confidence, where the phases of opposite frames are sure of another axis."""
    curves = phase_curves(data.differences, candidates_px=data.candidates_px)
    if curves is None:
        return found
    other = find_line(curves, rows=data.difference_rows, search_px=data.search_px)
    other = other.at_row(data.row_mid).moved(first_col)
    apart_px = abs(other.center_px - found.center_px)
    doubt_px = DISAGREEMENT_PX + 3 * float(np.hypot(other.fit.sigma_px, found.uncertainty_px))
    if other.significance < PHASE_SIGNIFICANCE or not stands_out(other) or apart_px <= doubt_px:
        return found
    text = (
        f"phase correlation of the opposite frames sees the axis at {other.center_px:.2f} px, not at "
        f"{found.center_px:.2f} px: something other than the sample may have moved; compare slices on both "
        "or give center.center_px"
    )
    return replace(found, confidence=found.confidence / 2, warnings=(*found.warnings, text))


def _sharpest(data: Data, *, seam_lines: list[Line]) -> Line | None:
    """Sharpest axis near those that the seam shows; over the whole search too where none of them is sure."""
    sure = [line for line in seam_lines if signal(line) == 1 and line.agreeing >= len(line.rows) / 2]
    search = data.search_px if sure else _circles_px(data)
    found = sharpest_line(
        data.slab,
        angles_rad=data.angles_rad,
        rows=data.rows,
        search_px=search,
        hints_px=[line.center_px for line in sure or seam_lines],
        own_starts=0 if sure else OWN_STARTS,
    )
    if found is None or (found.at_edge and search != data.search_px):
        return None
    found = found.at_row(data.row_mid)
    if not _is_confirmed(found, sure=sure, seam_lines=seam_lines):
        return found
    # where others see the axis, a peak need not stand out of all that structure makes, only out of noise
    return replace(found, significance=found.significance * STRUCTURE)


def _is_confirmed(found: Line, *, sure: list[Line], seam_lines: list[Line]) -> bool:
    """Whether the seam shows the sharpest axis too: two that look at different things seldom err alike.

    A seam that is not sure must lie closer: the more so where it does not even stand out of noise, or where
    the slices are no sharper than about some wrong axes.
    """
    if any(abs(found.center_px - line.center_px) <= NEAR_PX for line in sure):
        return True
    sharp = int(found.significance >= FALSE_SHARPNESS)
    return any(
        abs(found.center_px - line.center_px) <= CLOSE_PX * (sharp + int(stands_out(line)))
        for line in seam_lines
    )


def _circles_px(data: Data) -> tuple[float, float]:
    """Search for the sharpest slice: in a full turn, where the view holds wide enough a circle."""
    if not is_full_turn(data.angles_rad):
        return data.search_px
    first, last = _middle_half(data.slab.shape[2])
    within = max(first, data.search_px[0]), min(last, data.search_px[1])
    return within if within[0] < within[1] else data.search_px


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
