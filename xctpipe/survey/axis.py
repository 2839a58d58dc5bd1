"""The rotation axis of a scan from its rows and its opposite frames."""

import numpy as np
from numpy.typing import NDArray

from xctpipe.center import OPPOSITE_PAIRS, CenterResult, Opposites, find_center, opposite_frames
from xctpipe.center.motion import motion_note
from xctpipe.center.result import is_sure_slope
from xctpipe.correct.threads import in_threads
from xctpipe.scan import FloatArray
from xctpipe.survey.look import Look
from xctpipe.survey.model import Axis, CenterChoice, Rows

FRAMES_PER_END = 8
FRAMES_AT_ONCE = 8
ROWS_AT_ONCE = 64
OPPOSITE_GROUPS = 16
OFFSET_OVERLAP_FRAC = 0.75
"""Opposite frames that share less: the axis is an eighth of the width and more off the middle."""
OFFSET = "an offset scan"
MOST_OPPOSITE_ROWS = 1024
"""Opposite frames are compared over the whole height, in groups of rows, binned to at most so many."""


def find_axis(look: Look, lines: FloatArray, *, rows: Rows, center: CenterChoice) -> Axis:
    """The axis as wished, or found from line integrals (angle, row, col) of some rows and from frames."""
    if center.center_px is not None:
        return Axis(center.center_px)
    survey = look.survey
    first_row, first_col = survey.first_pixel
    opposites = _opposites(look)
    found = find_center(
        lines,
        angles_rad=survey.angles_rad,
        rows=rows + first_row,
        opposites=opposites,
        search_px=center.search_px,
        first_col=first_col,
    )
    binned = f"in pixels of {survey.bin_px} x {survey.bin_px}: " if survey.bin_px > 1 else ""
    moved = motion_note(opposites, center_px=found.center_px - first_col)
    notes = (*found.warnings, *offset_note(found, lines.shape[2]), *moved)
    return Axis(
        center_px=found.center_px,
        row=float(found.row_mid),
        slope=found.slope_px_per_row if _tilt_is_sure(found, lines.shape[1]) else 0.0,
        uncertainty_px=found.uncertainty_px if np.isfinite(found.uncertainty_px) else None,
        confidence=found.confidence,
        tilt_deg=found.tilt_deg,
        warnings=tuple(f"{binned}{note}" for note in notes),
        methods_px={name: px for name, (px, _) in found.methods.items()},
    )


def offset_note(found: CenterResult, n_cols: int) -> tuple[str, ...]:
    """A full turn with the axis far from the middle: only joined halves show the whole sample."""
    if found.overlap_px is None or found.overlap_px > OFFSET_OVERLAP_FRAC * n_cols:
        return ()
    return (
        f"{OFFSET}: opposite frames share {found.overlap_px:.0f} of {n_cols} columns; put stitch_360 or "
        "extend_360 into [[correct]] to see the whole width",
    )


def _tilt_is_sure(found: CenterResult, n_rows: int) -> bool:
    """A slope is used only where it is well measured; noise in it would smear the ends of the volume."""
    sure = is_sure_slope(found.tilt_deg, sigma=found.tilt_uncertainty_deg)
    return n_rows >= 5 and sure and found.confidence > 0.5


def _opposites(look: Look) -> Opposites:
    """Line integrals over the whole height of the frames that registration compares."""
    scan, survey = look.scan, look.survey
    chosen = opposite_frames(survey.angles_rad, pairs=OPPOSITE_PAIRS, per_end=FRAMES_PER_END)
    frames = np.flatnonzero(survey.good)[chosen]
    height = scan.shape[1]
    bin_rows = -(-height // MOST_OPPOSITE_ROWS)
    n_rows = height // bin_rows
    groups = min(OPPOSITE_GROUPS, max(4, n_rows // 32), n_rows)
    used = n_rows // groups * groups
    lines = np.empty((frames.size, used, scan.shape[2]), np.float32)
    look, first = look.by_first_flat, 0
    for run in _runs(frames):
        read = look.whole_frames((int(run[0]), int(run[-1]) + 1))
        lines[first : first + run.size] = _binned(read, by=bin_rows)[:, :used]
        first += run.size
    rows = survey.first_pixel[0] + np.arange(used, dtype=np.float64) * bin_rows + (bin_rows - 1) / 2
    return Opposites(lines, chosen, rows, survey.angles_rad, groups)


def _runs(frames: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Neighbouring frames, a few at a time, that are read together."""
    breaks = np.flatnonzero(np.diff(frames) != 1) + 1
    return [
        run[first : first + FRAMES_AT_ONCE]
        for run in np.split(frames, breaks)
        for first in range(0, run.size, FRAMES_AT_ONCE)
    ]


def _binned(frames: FloatArray, *, by: int) -> FloatArray:
    """Means of `by` neighbouring rows: (frame, row, col)."""
    if by == 1:
        return frames
    n_frames, height, n_cols = frames.shape
    out = np.empty((n_frames, height // by, n_cols), np.float32)

    def rows(first: int, last: int) -> None:
        part = frames[:, first * by : last * by].reshape(n_frames, -1, by, n_cols)
        part.mean(axis=2, dtype=np.float32, out=out[:, first:last])

    in_threads(rows, out.shape[1], block=ROWS_AT_ONCE)
    return out
