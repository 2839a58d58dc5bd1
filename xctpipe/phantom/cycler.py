"""The synthetic cycler: when each scan starts, and time, voltage and current in between.

Current, charge and over-voltage are positive while sodium is plated into the liquid and negative while it is
stripped; the charge of a row is the integral of the current up to it. The over-voltage is a resistance times
the current; the resistance rises with charge while plating, and as contact is lost while stripping. A short
takes the voltage to almost nothing at once. It is for joining tables by time; no electrochemistry is in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xctpipe.phantom.timeline import FIRST_SCAN, CyclerRow
from xctpipe.scan import DoubleArray

CURRENT_MA_CM2 = 0.7
_OHM_CM2, _REST_V, _SHORT_V = 180.0, 0.004, 0.002
_RISE = 0.5
_SPACE = 1.25
_ROWS = 1500
# a row so long before the current changes: lines between rows are then the current, to 1e-5 of its charge
_BEFORE_S = 0.01


@dataclass(frozen=True)
class Schedule:
    """When scans start and what the cycler does meanwhile.

    `starts_s` are POSIX times; `currents_ma_cm2` flowed until each scan began, 0 before the first;
    `voltages_v` are the cell's just before each scan. Signs as in `rows`.
    """

    starts_s: tuple[float, ...]
    currents_ma_cm2: tuple[float, ...]
    voltages_v: tuple[float, ...]
    rows: tuple[CyclerRow, ...]


def schedule(
    charges_mah_cm2: Sequence[float],
    *,
    sign: int,
    scan_s: float,
    pauses: bool,
    area_cm2: float,
    contact_frac: Sequence[float],
    shorted: Sequence[bool],
) -> Schedule:
    """Times, currents and voltages that pass the charges between the scans.

    Parameters
    ----------
    charges_mah_cm2 : passed until each scan starts in whatever direction, the first 0, none falling.
    sign : 1 plates into the liquid, -1 strips it, 0 rests between scans.
    scan_s : length of a scan.
    pauses : current off while a scan is taken; else it flows on, at less than 0.7 mA/cm^2 where two scans
        would overlap.
    contact_frac, shorted : of the cell at each scan.
    """
    gains = np.diff(np.asarray(charges_mah_cm2, dtype=np.float64))
    spans, currents = _spans(gains, scan_s=scan_s, pauses=pauses, sign=sign)
    starts = FIRST_SCAN.timestamp() + np.concatenate([[0.0], np.cumsum(spans)])
    volts = [_REST_V]
    for i, current in enumerate(currents):
        done = charges_mah_cm2[i + 1] / max(charges_mah_cm2[-1], 1e-12)
        volts.append(_voltage(current, done=done, contact=contact_frac[i + 1], shorted=shorted[i + 1]))
    rows = _rows(
        starts.tolist(),
        currents,
        volts,
        pause_s=scan_s if pauses else 0.0,
        area_cm2=area_cm2,
        shorted=shorted,
    )
    return Schedule(tuple(starts.tolist()), (0.0, *currents), tuple(volts), tuple(rows))


def _spans(gains: DoubleArray, *, scan_s: float, pauses: bool, sign: int) -> tuple[list[float], list[float]]:
    spans, currents = [], []
    for gain in gains.tolist():
        flowing = gain / CURRENT_MA_CM2 * 3600
        if pauses:
            spans.append(scan_s + max(flowing, (_SPACE - 1) * scan_s))
        else:
            spans.append(max(flowing, _SPACE * scan_s))
        passing = spans[-1] - (scan_s if pauses else 0.0)
        currents.append(sign * gain * 3600 / passing)
    return spans, currents


def _voltage(current_ma_cm2: float, *, done: float, contact: float, shorted: bool) -> float:
    if shorted:
        return _SHORT_V
    rise = 1 + _RISE * done if current_ma_cm2 > 0 else (0.97 / contact) ** 4
    return _REST_V + current_ma_cm2 * 1e-3 * _OHM_CM2 * rise


def _rows(
    starts: list[float],
    currents: list[float],
    volts: list[float],
    *,
    pause_s: float,
    area_cm2: float,
    shorted: Sequence[bool],
) -> list[CyclerRow]:
    charge, rows = 0.0, []
    step = max((starts[-1] - starts[0]) / _ROWS, 1.0)
    rest = [_SHORT_V if short else _REST_V for short in shorted]
    for i, current in enumerate(currents):
        on, off = starts[i] + pause_s, starts[i + 1]
        if pause_s:
            at_rest = [*_times(starts[i], on, step), on - _BEFORE_S]
            rows += [CyclerRow(t, rest[i], 0.0, charge) for t in at_rest]
        # the last row shows the short, which comes just before the scan
        times = [*_times(on, off, step), off - _BEFORE_S]
        before = volts[i] if i else volts[1]
        after = before if shorted[i + 1] else volts[i + 1]
        for t in times:
            part = (t - on) / (off - on)
            value = volts[i + 1] if t == times[-1] else before + (after - before) * part
            passed = charge + part * current * (off - on) / 3600
            rows.append(CyclerRow(t, value, current * area_cm2, passed))
        charge += current * (off - on) / 3600
    end = starts[-1] + max(pause_s, 1.0)
    rows += [CyclerRow(t, rest[-1], 0.0, charge) for t in _times(starts[-1], end, step)]
    return rows


def _times(first: float, last: float, step: float) -> list[float]:
    n = max(math.ceil((last - first) / step), 1)
    return [first + (last - first) * i / n for i in range(n)]
