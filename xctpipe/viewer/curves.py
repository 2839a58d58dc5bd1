"""How cracks, bubbles and contact went through the series, for a small plot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xctpipe.csvtables import Row
from xctpipe.viewer.series import Run, table_of

Values = tuple[float, ...]
"""One for each scan; NaN where it is not known."""

_SHOWN = (
    ("crack volume (mm³)", "crack_volume_um3", "crack_low_um3", "crack_high_um3", 1e-9),
    ("bubble volume (mm³)", "bubble_volume_um3", "bubble_low_um3", "bubble_high_um3", 1e-9),
    ("contact (%)", "contact_frac", "contact_low_frac", "contact_high_frac", 100.0),
)
_ACROSS = (("charge (mAh/cm²)", "charge_mah_cm2", 1.0), ("time (h)", "time_s", 1 / 3600))


@dataclass(frozen=True)
class Curve:
    """One quantity, with the interval that holds it."""

    title: str
    value: Values
    low: Values
    high: Values


@dataclass(frozen=True)
class Curves:
    """Quantities of all scans over what passed meanwhile."""

    title: str
    """Of what they are drawn over."""
    x: Values
    curves: tuple[Curve, ...]

    def nearest(self, x: float) -> int | None:
        """The scan nearest to a place on the axis."""
        known = [i for i, each in enumerate(self.x) if math.isfinite(each)]
        return min(known, key=lambda i: abs(self.x[i] - x), default=None)


def read_curves(run: Run, notes: list[str]) -> Curves | None:
    """What is to be drawn of a run; None where it has no table of the series.

    Over the charge passed; without any over time, without times over the number of the scan.
    """
    by_scan = {row["scan"]: row for row in table_of(run.folder, "series", notes)}
    rows: list[Row] = [by_scan.get(scan.name, {}) for scan in run.scans]
    curves = []
    for title, *keys, factor in _SHOWN:
        value, low, high = (_column(rows, str(key), float(factor)) for key in keys)
        if any(map(math.isfinite, value)):
            curves.append(Curve(str(title), value, low, high))
    if not curves:
        return None
    for title, key, factor in _ACROSS:
        x = _column(rows, key, factor)
        if len({each for each in x if math.isfinite(each)}) > 1:
            return Curves(title, x, tuple(curves))
    return Curves("scan", tuple(float(i + 1) for i in range(len(rows))), tuple(curves))


def _column(rows: Sequence[Row], key: str, factor: float) -> Values:
    values = [row.get(key) for row in rows]
    return tuple(math.nan if v is None or isinstance(v, str) else factor * float(v) for v in values)
