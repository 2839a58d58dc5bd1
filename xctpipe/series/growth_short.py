"""Whether metal that joins both sides of the pellet and a voltage that drops say the same."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


_SAME = 1e-6
"""Relative difference of charges by which a drop still belongs to a scan: that of their rounding."""


def short_and_percolation(
    percolation: Sequence[Row], *, steps: Sequence[Row], scans: Sequence[tuple[str, float, float]]
) -> tuple[bool, str]:
    """Compare the first scan in which metal percolates with the short that the voltage shows.

    Parameters
    ----------
    percolation : rows of this table.
    steps : rows of the table of the cycler's steps; empty without a cycler.
    scans : name of each scan, in order of time, and the charge passed until its start and its end (mAh/cm^2),
        NaN where it is not known.

    Returns
    -------
    Whether they agree, and a sentence; empty where there is nothing to compare, or the charge is known at
    no scan.
    """
    through = {row.get("scan"): row.get("percolates") for row in percolation}
    seen = [i for i, (name, _, _) in enumerate(scans) if through.get(name) is True]
    shorts = [row.get("start_charge_mah_cm2") for row in steps if row.get("step") == "short"]
    drops = [float(at) for at in shorts if isinstance(at, int | float)]
    charges = [end for _, _, end in scans if math.isfinite(end)]
    if not steps or not charges or not any(isinstance(value, bool) for value in through.values()):
        return True, ""
    if not drops:
        return _without_drop(seen, scans)
    dropped = f"the voltage drops at {min(drops):.4g} mAh/cm2"
    if not seen:
        # a short after the last scan is not to be seen
        late = min(drops) > max(charges)
        tail = "after the last scan" if late else "but metal joins both electrodes in no scan"
        return late, f"{dropped}, {tail}"
    first = seen[0]
    name, _, after = scans[first]
    before = max((start for _, start, _ in scans[:first] if math.isfinite(start)), default=-math.inf)
    met = f"metal joins both electrodes from {name} on"
    if not math.isfinite(after):
        return True, f"{met}; {dropped}; the charge at this scan is not known"
    margin = _SAME * after
    agree = before - margin <= min(drops) <= after + margin
    where = f"{_place(before)}{after:.4g} mAh/cm2"
    return agree, f"{met}, {where}; {dropped}: they {'agree' if agree else 'do not agree'}"


def _place(before: float) -> str:
    return f"that is between {before:.4g} and " if math.isfinite(before) else "that is until "


def _without_drop(seen: Sequence[int], scans: Sequence[tuple[str, float, float]]) -> tuple[bool, str]:
    if not seen:
        return True, "metal joins the electrodes in no scan, and the voltage does not drop: they agree"
    return False, f"metal joins both electrodes from {scans[seen[0]][0]} on, but the voltage does not drop"
