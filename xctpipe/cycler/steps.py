"""What the cell did when: plating, stripping, rest, and the short."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xctpipe.cycler.history import History
from xctpipe.scan import DoubleArray

StepKind = Literal["plating", "stripping", "rest", "short"]

_REST_FRAC = 0.005
"""Of the largest current: less is rest."""
_JUMP_FRAC = 0.1
"""A current that changes by more from one line to the next is that of another step."""
_FEW_ROWS, _FEW_S = 3, 10.0
"""A step of fewer lines that is shorter than this is no step of its own."""
_BACK_ROWS = 20
_FALLS_TO, _STAYS_BELOW = 0.2, 0.35
"""Of the voltage before: a short takes it below the first at once, and it stays below the second."""
_STAYS_FRAC = 0.95
_LEAST_V = 2e-3
_RESTS_BELOW = 0.7
_CANDIDATES = 50
_MOST_ROWS = 5000

_KINDS: dict[int, StepKind] = {1: "plating", -1: "stripping", 0: "rest"}


@dataclass(frozen=True)
class Step:
    """A part of the history with one kind of current: lines [first, last)."""

    kind: StepKind
    first: int
    last: int
    start_s: float
    end_s: float
    current_ma_cm2: float
    voltage_v: float
    """The median."""


@dataclass(frozen=True)
class Short:
    """The voltage falls to almost nothing while current flows, and stays there."""

    row: int
    """First line that shows it."""
    before_v: float
    after_v: float
    rows: int
    """Lines with current that show it."""
    confirmed: bool
    """Whether the voltage at rest is lower after it too."""


def signs(history: History) -> NDArray[np.int8]:
    """Of every line 1 while plating, -1 while stripping, 0 at rest."""
    size = np.abs(history.current_ma_cm2)
    least = _REST_FRAC * float(np.quantile(size, 0.999, method="higher")) if size.size else 0.0
    return (np.sign(history.current_ma_cm2) * (size > least)).astype(np.int8)


def steps_of(history: History) -> list[Step]:
    """Steps in order of time; each ends where the next begins."""
    sign, current = signs(history), history.current_ma_cm2
    before, after = np.abs(current[:-1]), np.abs(current[1:])
    jumps = np.abs(current[1:] - current[:-1]) > _JUMP_FRAC * np.maximum(before, after)
    new = (sign[1:] != sign[:-1]) | (jumps & (sign[1:] != 0))
    edges = [0, *(np.flatnonzero(new) + 1).tolist(), len(sign)]
    runs = [(int(sign[a]), a, b) for a, b in pairwise(edges)]
    runs = _joined(_without_short_runs(runs, history.time_s), current)
    starts = [float(history.since_s[first]) for _, first, _ in runs]
    ends = [*starts[1:], float(history.time_s[-1])]
    return [_step(history, run, start_s=a, end_s=b) for run, a, b in zip(runs, starts, ends, strict=True)]


Run = tuple[int, int, int]


def _without_short_runs(runs: Sequence[Run], time_s: DoubleArray) -> list[Run]:
    """Runs of lines, the shortest joined to a neighbour, rather to one of the same sign."""
    kept: list[Run] = []
    waiting: int | None = None
    for number, (sign, first, last) in enumerate(runs):
        begin = first if waiting is None else waiting
        waiting = None
        brief = last - first < _FEW_ROWS and time_s[last - 1] - time_s[first] < _FEW_S and len(runs) > 1
        follows = runs[number + 1][0] if number + 1 < len(runs) else None
        if brief and follows is not None and (not kept or (follows == sign and kept[-1][0] != sign)):
            waiting = begin
        elif brief and kept:
            kept[-1] = (kept[-1][0], kept[-1][1], last)
        else:
            kept.append((sign, begin, last))
    return kept


def _joined(runs: Sequence[Run], current: DoubleArray) -> list[Run]:
    """Runs that a glitch had parted are one again."""
    joined: list[Run] = []
    for sign, first, last in runs:
        if joined and joined[-1][0] == sign:
            a, b = (float(np.median(current[slice(*part)])) for part in (joined[-1][1:], (first, last)))
            if sign == 0 or abs(a - b) <= _JUMP_FRAC * max(abs(a), abs(b)):
                joined[-1] = (sign, joined[-1][1], last)
                continue
        joined.append((sign, first, last))
    return joined


def _step(history: History, run: Run, *, start_s: float, end_s: float) -> Step:
    sign, first, last = run
    volts = history.voltage_v[first:last]
    volts = volts[np.isfinite(volts)]
    return Step(
        _KINDS[sign],
        first,
        last,
        start_s,
        end_s,
        float(np.median(history.current_ma_cm2[first:last])),
        float(np.median(volts)) if volts.size else np.nan,
    )


def find_short(history: History) -> Short | None:
    """The first fall of the voltage to almost nothing under current that lasts to the end; None without."""
    sign = signs(history)
    rows = np.flatnonzero((sign != 0) & np.isfinite(history.voltage_v))
    if rows.size < 2:
        return None
    volts, amps = np.abs(history.voltage_v[rows]), np.abs(history.current_ma_cm2[rows])
    # a voltage a fifth of any of the last ones is looked at more closely
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(volts, (_BACK_ROWS, 0)), _BACK_ROWS)[:-1]
    suspect = np.flatnonzero(volts < _FALLS_TO * windows.max(axis=1))
    tried = 0
    for k in suspect:
        back = slice(max(int(k) - _BACK_ROWS, 0), int(k))
        ref_v, ref_ma = float(np.median(volts[back])), float(np.median(amps[back]))
        fell = volts[k] < _FALLS_TO * ref_v and volts[k] / amps[k] < _FALLS_TO * ref_v / ref_ma
        if ref_v < _LEAST_V or not fell:
            continue
        limit = _STAYS_BELOW * ref_v * np.maximum(amps[k:] / ref_ma, 1.0)
        if float(np.mean(volts[k:] < limit)) >= _STAYS_FRAC:
            row = int(rows[k])
            after_v, known = float(np.median(volts[k:])), _rests_lower(history, sign, row)
            return Short(row, ref_v, after_v, int(rows.size - k), known)
        tried += 1
        if tried == _CANDIDATES:
            break
    return None


def _rests_lower(history: History, sign: NDArray[np.int8], row: int) -> bool:
    rest = (sign == 0) & np.isfinite(history.voltage_v)
    before, after = (np.abs(history.voltage_v[part][rest[part]]) for part in (slice(row), slice(row, None)))
    return bool(before.size and after.size and np.median(after) < _RESTS_BELOW * np.median(before))


def thinned(history: History) -> NDArray[np.intp]:
    """Lines for a picture: at most 5000, with the extremes of voltage and current kept."""
    n = len(history.time_s)
    if n <= _MOST_ROWS:
        return np.arange(n)
    kept = {0, n - 1}
    parts = np.array_split(np.arange(n), _MOST_ROWS // 6)
    for part in parts:
        kept |= {int(part[0]), int(part[-1])}
        for values in (history.voltage_v[part], history.current_ma_cm2[part]):
            if np.isfinite(values).any():
                kept |= {int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])}
    return np.array(sorted(kept), dtype=np.intp)
