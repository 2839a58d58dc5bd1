"""Where each frame lies, found from all frames before rows are looked at."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xctpipe.correct.jitter import N_SUMS, find_shifts, frame_sums
from xctpipe.progress import progress
from xctpipe.steps import BoundStep
from xctpipe.survey.look import Look
from xctpipe.survey.model import Survey

BLOCK_BYTES = 2**28
"""Frames that are looked at together, as floats; moving them and the logarithm need some times as much."""
MOST_ROWS = 1024
"""Rows in the middle of the frames that are compared: enough for any precision, and little memory."""
BLANK_LOG = 3.0
"""Mean line integral by which a frame without light, or without sample, stands out."""


def with_shifts(look: Look, chain: Sequence[BoundStep]) -> Survey:
    """The survey with the shift of every frame, where a step of the chain takes it back.

    All frames are read once, moved as by the steps that come before.
    """
    places = [i for i, step in enumerate(chain) if "shifts_px" in step.asks]
    if not places:
        return look.survey
    step = chain[places[0]]
    look = replace(look, moving=[each for each in chain[: places[0]] if each.moves])
    scan, n = look.scan, look.scan.shape[0]
    used = min(scan.shape[1], MOST_ROWS)
    top = (scan.shape[1] - used) // 2
    sums = np.empty((n, used, N_SUMS), np.float32)
    at_once = min(16, max(1, BLOCK_BYTES // (4 * scan.shape[1] * scan.shape[2])))
    with progress(f"{scan.name}: shifts of the frames", total=n, unit="frames") as bar:
        for first in range(0, n, at_once):
            last = min(first + at_once, n)
            sums[first:last] = frame_sums(look.whole_frames((first, last))[:, top : top + used])
            bar.advance(last - first)
    most_px = float(step.params.get("most_px", 8))
    level = sums[:, :, 0].mean(axis=1)
    lit = np.abs(level - np.median(level)) < BLANK_LOG
    found = find_shifts(sums[lit], angles_rad=scan.angles_rad[lit], n_cols=scan.shape[2], most_px=most_px)
    shifts_px = np.zeros((n, 2))
    shifts_px[lit] = found.shifts_px
    notes = tuple(f"{step.name}: {note}" for note in found.notes)
    return replace(look.survey, shifts_px=shifts_px, warnings=(*look.survey.warnings, *notes))
