"""Corrected frames and rows of a scan while its survey is being made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numba
import numpy as np

from xctpipe.correct.flat import minus_log
from xctpipe.correct.threads import in_threads
from xctpipe.scan import FloatArray, RawArray, Scan, Span
from xctpipe.staging import read_spans
from xctpipe.steps import BoundStep, Facts, halo_rows
from xctpipe.survey.model import Rows, Survey

BAND_MARGIN_ROWS = 1
"""Each row is the mean with so many neighbours on both sides."""
FRAMES_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Look:
    """A scan seen through what its survey knows so far, and through the steps that move the picture.

    `facts` is what is known of the scan before it is read; `moving` are those steps.
    """

    scan: Scan
    survey: Survey
    facts: Facts
    moving: Sequence[BoundStep] = ()

    def bands(self, rows: Rows) -> Iterator[FloatArray]:
        """Mean transmission of each row and its neighbours: (angle, 1, col), all frames."""
        wanted = [self._within(row - BAND_MARGIN_ROWS, row + BAND_MARGIN_ROWS + 1) for row in rows.tolist()]
        halo = halo_rows(self.moving, self.facts)
        spans = [self._within(first - halo, last + halo) for first, last in wanted]
        for (first, last), span, raw in zip(wanted, spans, read_spans(self.scan.frames, spans), strict=True):
            slab = self.survey.transmission(raw, rows=span)
            slab = self._moved(slab, self.survey, rows=span)
            yield _mean_row(slab[:, first - span[0] : last - span[0]])

    @property
    def by_first_flat(self) -> "Look":
        """The scan seen by the first flat alone.

        Frames of either end of the scan are compared: what one flat has wrong is the same in all of them and
        drops out, what two flats have wrong does not.
        """
        flat = replace(self.survey.flat, flats=self.survey.flat.flats[:1], weight=None)
        return replace(self, survey=replace(self.survey, flat=flat))

    def whole_frames(self, frames: Span) -> FloatArray:
        """Line integrals of frames [f0, f1): (frame, row, col)."""
        rows = (0, self.scan.shape[1])
        some = _some_frames(self.survey, frames)
        if not self.moving:
            return some.lines(self._raw(frames), rows=rows)
        transmission = some.transmission(self._raw(frames), rows=rows)
        lines, _ = minus_log(self._moved(transmission, some, rows=rows), floor=self.survey.floor)
        return lines

    def _raw(self, frames: Span) -> RawArray:
        return self.scan.frames.read(frames=frames)

    def _within(self, first: int, last: int) -> Span:
        return max(0, first), min(self.scan.shape[1], last)

    def _moved(self, slab: FloatArray, survey: Survey, *, rows: Span) -> FloatArray:
        if not self.moving:
            return slab
        facts = survey.facts(self.facts, rows=np.arange(*rows))
        for step in self.moving:
            slab = step(slab, facts)
        return slab


def _some_frames(survey: Survey, frames: Span) -> Survey:
    """The survey of these frames alone, good or not."""
    part = slice(*frames)
    weight, gain, shifts = survey.flat.weight, survey.gain, survey.shifts_px
    return replace(
        survey,
        good=np.ones(frames[1] - frames[0], bool),
        flat=replace(survey.flat, weight=None if weight is None else weight[part]),
        gain=None if gain is None else gain[part],
        shifts_px=None if shifts is None else shifts[part],
    )


def _mean_row(slab: FloatArray) -> FloatArray:
    """Mean over the rows: (angle, 1, col)."""
    out = np.empty((slab.shape[0], 1, slab.shape[2]), np.float32)

    def frames(first: int, last: int) -> None:
        _add_rows(slab[first:last], out[first:last, 0])

    in_threads(frames, len(slab), block=FRAMES_AT_ONCE)
    return out


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_rows(slab: FloatArray, out: FloatArray) -> None:
    n_rows = slab.shape[1]
    scale = np.float32(1.0) / np.float32(n_rows)
    for i in range(slab.shape[0]):
        total = out[i]
        total[:] = slab[i, 0]
        for r in range(1, n_rows):
            line = slab[i, r]
            for j in range(total.size):
                total[j] += line[j]
        for j in range(total.size):
            total[j] *= scale
