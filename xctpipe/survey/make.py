"""The making of a survey."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xctpipe.center import choose_rows, row_detail
from xctpipe.correct.drift import beam_drift
from xctpipe.correct.flat import minus_log
from xctpipe.correct.threads import in_threads
from xctpipe.errors import BadScan
from xctpipe.progress import progress
from xctpipe.recon.cylinder import BAD_FIT_FRAC, Seen, Tube, fit_cell
from xctpipe.scan import FloatArray, Scan, unbinned_px
from xctpipe.steps import BoundStep, Facts
from xctpipe.survey.axis import OFFSET, find_axis
from xctpipe.survey.flats import with_dynamic_flats, with_flats
from xctpipe.survey.look import Look
from xctpipe.survey.model import CenterChoice, Mask, Rows, Survey
from xctpipe.survey.shifts import with_shifts

LEAST_SPAN_RAD = np.pi / 6
SURVEY_ROWS = 12
"""Rows read for the axis, the drift and the noise: enough for a spread, few enough to be quick."""
LEVEL_COLUMNS = 256
"""Columns that tell whether a frame is blank: an even choice of so many, or up to twice that."""
FRAMES_AT_ONCE = 64


def make_survey(
    scan: Scan,
    *,
    center: CenterChoice,
    facts: Facts | None = None,
    chain: Sequence[BoundStep] = (),
    dynamic_flats: bool = False,
    tube: Tube | None = None,
) -> Survey:
    """Survey a scan: reads its darks and flats whole, and `SURVEY_ROWS` detector rows of every frame.

    Parameters
    ----------
    facts : what is known of the scan before it is read; absent: its size.
    chain : the corrections to come; those that move the picture are done before the axis is looked for.
    dynamic_flats : find in every frame how much it saw of the patterns by which the flats differ.
    tube : find where in the slices this cell is.

    Raises
    ------
    BadScan
        When the darks and flats cannot correct the scan.
    """
    if np.ptp(scan.angles_rad) < LEAST_SPAN_RAD:
        span = np.degrees(np.ptp(scan.angles_rad))
        raise BadScan(f"{scan.path}: the angles span {span:.3g} deg; 30 are the least, 180 are wanted")
    facts = facts or Facts(frame_shape=(scan.shape[1], scan.shape[2]))
    survey = replace(with_flats(scan, first_pixel=facts.first_pixel), bin_px=facts.bin_px)
    if dynamic_flats and survey.takes_log:
        survey = with_dynamic_flats(scan, survey)
    survey = with_shifts(Look(scan, survey, facts), chain)
    look = Look(scan, survey, facts, [step for step in chain if step.moves])
    rows = pick_rows(look)
    slab = _bands(look, rows)
    good = _good_frames(slab)
    lines, _ = minus_log(slab if good.all() else slab[good], floor=survey.floor)
    del slab
    gain = None if scan.log_absorption else beam_drift(lines)
    if gain is not None:
        _add_to_frames(lines, np.log(gain))
        gain = _spread(gain, good)
    survey = replace(survey, angles_rad=scan.angles_rad[good], good=good, gain=gain)
    axis = find_axis(replace(look, survey=survey), lines, rows=rows, center=center)
    about_axis = (*axis.warnings, *_outside_note(survey, axis.center_px, n_cols=scan.shape[2]))
    if any(step.reshapes for step in chain):
        about_axis = tuple(text for text in about_axis if OFFSET not in text)
    notes = (*survey.warnings, *_frame_notes(good), *about_axis)
    survey = replace(survey, axis=axis, warnings=notes)
    return survey if tube is None else _with_cell(survey, lines, rows=rows, tube=tube, facts=facts)


def _outside_note(survey: Survey, center_px: float, *, n_cols: int) -> tuple[str, ...]:
    """An axis beside the view is allowed, and seldom meant."""
    first = survey.first_pixel[1]
    if first <= center_px <= first + n_cols - 1:
        return ()
    low, at, high = (unbinned_px(px, bin_px=survey.bin_px) for px in (first, center_px, first + n_cols - 1))
    return (f"the axis at {at:.6g} px lies outside the view, columns {low:g} to {high:g}",)


def _with_cell(survey: Survey, lines: FloatArray, *, rows: Rows, tube: Tube, facts: Facts) -> Survey:
    """The survey with the place of the cell."""
    pixel_mm = 1e-3 * (facts.pixel_um or 1.0)
    seen = Seen(survey.angles_rad, survey.center_at(rows), pixel_mm)
    cell = fit_cell(lines, tube=tube, seen=seen)
    if cell.misfit_frac < BAD_FIT_FRAC:
        return replace(survey, cell=cell)
    note = (
        f"the recipe's cell explains the line integrals only to {cell.misfit_frac:.0%}: are cell.bore_mm = "
        f"{tube.bore_mm:g} and cell.wall_mm = {tube.wall_mm:g} right? Rows are completed from it all the same"
    )
    return replace(survey, cell=cell, warnings=(*survey.warnings, note))


def _bands(look: Look, rows: Rows) -> FloatArray:
    slab = np.empty((look.scan.shape[0], len(rows), look.scan.shape[2]), np.float32)
    with progress(f"{look.scan.name}: survey", total=len(rows), unit="rows") as bar:
        for i, band in enumerate(look.bands(rows)):
            slab[:, i] = band[:, 0]
            bar.advance(1)
    return slab


def _add_to_frames(lines: FloatArray, values: FloatArray) -> None:
    """Add one number to each frame."""

    def frames(first: int, last: int) -> None:
        lines[first:last] += values[first:last, None, None]

    if values.any():
        in_threads(frames, len(lines), block=FRAMES_AT_ONCE)


def pick_rows(look: Look) -> Rows:
    """Detector rows that hold detail in two opposite projections, spread over the height."""
    angles, height = look.scan.angles_rad, look.scan.shape[1]
    turned = np.abs(np.mod(angles - angles[0], 2 * np.pi) - np.pi)
    look = look.by_first_flat
    first, opposite = (look.whole_frames((i, i + 1))[0] for i in (0, int(turned.argmin())))
    detail = row_detail(first, opposite[:, ::-1])
    rows = choose_rows(detail, n=min(SURVEY_ROWS, height))
    if not rows.size:  # nothing to see anywhere: the search for the axis will say so
        rows = np.linspace(0, height - 1, min(SURVEY_ROWS, height)).astype(np.intp)
    return np.asarray(rows, dtype=np.int64)


def _good_frames(slab: FloatArray) -> Mask:
    n_angles, _, n_cols = slab.shape
    level = np.empty(n_angles, np.float32)
    every = max(1, n_cols // LEVEL_COLUMNS)

    def frames(first: int, last: int) -> None:
        level[first:last] = np.median(slab[first:last, :, ::every], axis=(1, 2))

    in_threads(frames, n_angles, block=FRAMES_AT_ONCE)
    middle = float(np.median(level[np.isfinite(level)])) if np.isfinite(level).any() else 0.0
    good = np.isfinite(level) & (level > 0.05 * middle) & (level < 20.0 * middle)
    if good.sum() < 3:
        raise BadScan(
            f"only {int(good.sum())} of {good.size} frames hold a signal (median transmission {middle:.3g}); "
            "check the projections, darks and flats"
        )
    return good


def _frame_notes(good: Mask) -> list[str]:
    bad = np.flatnonzero(~good)
    if not bad.size:
        return []
    listed = ", ".join(str(i) for i in bad[:10]) + (", ..." if bad.size > 10 else "")
    return [f"{bad.size} of {good.size} frames are blank or overexposed and left out: {listed}"]


def _spread(gain: FloatArray, good: Mask) -> FloatArray:
    """The gain of all frames, 1 where a frame is not used."""
    full = np.ones(good.size, np.float32)
    full[good] = gain
    return full
