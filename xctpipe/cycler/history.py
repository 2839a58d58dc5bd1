"""What the cell went through, from all files of its cycler: one row of arrays, in order of time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from xctpipe.cycler.base import CyclerFile
from xctpipe.scan import DoubleArray

_BEFORE_S = 1e-3
"""What is recorded this close before a moment may be of what came after it: clocks are rounded."""
_OVERLAP_S = 1.0
_GAP_S = 60.0


@dataclass(frozen=True)
class Span:
    """The part of the history that one file covers, in s."""

    name: str
    first_s: float
    last_s: float
    zero_s: float
    """When its own clock showed 0."""
    step_s: float
    """From one line to the next, the longest usual one: its last line holds as long."""


@dataclass(frozen=True, eq=False)
class History:
    """Voltage, current and charge over time; all arrays have one entry per line of the files."""

    time_s: DoubleArray
    """From the moment asked for, ascending."""
    since_s: DoubleArray
    """From when the current of a line flowed: since the line before where it is an average."""
    voltage_v: DoubleArray
    current_ma_cm2: DoubleArray
    """Positive while metal is plated."""
    passed_mah_cm2: DoubleArray
    """Integral of the current's absolute value from the first line on."""
    spans: tuple[Span, ...]

    @property
    def first_s(self) -> float:
        """Begin of what is covered."""
        return self.spans[0].first_s

    @property
    def last_s(self) -> float:
        """End of what is covered."""
        return self.spans[-1].last_s + self.spans[-1].step_s

    def covers(self, time_s: float) -> bool:
        """Whether a moment lies between the first and the last line, gaps between files included."""
        return self.first_s - _BEFORE_S <= time_s <= self.last_s

    def passed_at(self, time_s: float) -> float:
        """Charge passed until a moment."""
        return float(np.interp(time_s, self.time_s, self.passed_mah_cm2))

    def before(self, time_s: float) -> int | None:
        """The last line before a moment; None where there is none."""
        place = int(np.searchsorted(self.time_s, time_s - _BEFORE_S, side="right")) - 1
        return place if place >= 0 else None

    def span_at(self, time_s: float) -> Span:
        """The file that covers a moment, or the last one before it."""
        begun = [span for span in self.spans if span.first_s - _BEFORE_S <= time_s]
        return begun[-1] if begun else self.spans[0]


def put_together(
    files: Sequence[CyclerFile], *, zero: datetime, offset_s: float, area_cm2: float, sign: int
) -> tuple[History, list[str]]:
    """One history from several files, and what is wrong between them.

    Where two overlap, that which begins first counts. Between two no current is taken to flow.

    Parameters
    ----------
    zero : moment from which time is counted.
    offset_s : added to the clock of all files.
    sign : -1 where the files count plating negative.
    """
    # differences of times in one zone would be those of clocks on the wall
    begun = [(file.start.astimezone(UTC) - zero.astimezone(UTC)).total_seconds() for file in files]
    moved = [(file, start_s + offset_s) for file, start_s in zip(files, begun, strict=True)]
    moved.sort(key=lambda each: float(each[1] + each[0].elapsed_s[0]))
    parts: list[DoubleArray] = []
    spans: list[Span] = []
    told: list[str] = []
    for file, start_s in moved:
        time_s = file.elapsed_s + start_s
        rows = np.stack(
            [
                time_s,
                _since(file, time_s),
                file.voltage_v,
                file.current_ma * (sign / area_cm2),
                file.passed_mah / area_cm2,
            ]
        )
        if spans:
            rows = _after(rows, end_s=spans[-1].last_s)
            told += _between(spans[-1], file.path.name, first_s=float(time_s[0]), last_s=float(time_s[-1]))
        if not rows.shape[1]:
            continue
        steps = np.diff(time_s)
        step_s = float(np.quantile(steps, 0.99)) if steps.size else 0.0
        spans.append(Span(file.path.name, float(rows[0, 0]), float(rows[0, -1]), start_s, step_s))
        parts.append(rows)
    time_s, since_s, voltage, current, passed = np.concatenate(parts, axis=1)
    return History(time_s, since_s, voltage, current, np.cumsum(passed), tuple(spans)), told


def _since(file: CyclerFile, time_s: DoubleArray) -> DoubleArray:
    return np.concatenate([time_s[:1], time_s[:-1]]) if file.averaged else time_s


def _after(rows: DoubleArray, *, end_s: float) -> DoubleArray:
    """Lines after the end of the file before; of the first one the part after it."""
    kept = rows[:, rows[0] > end_s].copy()
    before = rows[0][rows[0] <= end_s]
    if kept.shape[1] and before.size:
        kept[-1, 0] *= (kept[0, 0] - end_s) / (kept[0, 0] - before[-1])
    return kept


def _between(earlier: Span, name: str, *, first_s: float, last_s: float) -> list[str]:
    if earlier.last_s - first_s > _OVERLAP_S:
        common_s = min(earlier.last_s, last_s) - first_s
        return [
            f"{earlier.name} and {name} overlap in time by {duration(common_s)}: there {earlier.name}, which "
            "begins first, counts; leave one out if they are of different channels or the same data"
        ]
    gap_s = first_s - earlier.last_s
    if gap_s > max(_GAP_S, 2 * earlier.step_s):
        return [
            f"nothing is recorded for {duration(gap_s)} between {earlier.name} and {name}: no charge is "
            "counted there; add the file of what ran then, if anything did"
        ]
    return []


def duration(seconds: float) -> str:
    """A time for people: `35 s`, `12 min`, `2.1 h`."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
