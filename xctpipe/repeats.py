"""Two scans of one state: whether their measures differ by no more than they say.

What differs between repeats is noise, so that this checks stated errors without any truth. It does not see
what both scans have in common: a wrong contrast, a wrong face, a void that neither shows.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import spatial

from xctpipe.csvtables import Row, read_table
from xctpipe.scan import DoubleArray
from xctpipe.stages import ScanWork
from xctpipe.tables import update_table

COLUMNS = ("repeat_of", "kind", "number", "number_before", "matched", "median_errors", "within_frac")
_PLACE = ("z_um", "y_um", "x_um")
_FEWEST = 20
_TRIED = 40
_LEAST_WITHIN = 0.85
_OFTEN = 1.96


def check_repeats(work: ScanWork) -> list[str]:
    """Write the rows of pairs of this scan into the table `repeat`; returns what the user must be told."""
    named = {name for pair in work.recipe.measure.repeats for name in pair}
    unknown = sorted(named - {*work.scans, work.name})
    warnings = [f"measure.repeats: no scan {name!r} in this run" for name in unknown]
    objects = read_table(work.tables / "objects.csv")
    for second in dict.fromkeys(b for a, b in work.recipe.measure.repeats if work.name in {a, b}):
        rows: list[dict[str, Any]] = []
        for first in (a for a, b in work.recipe.measure.repeats if b == second):
            before, after = (_placed(work, objects, name) for name in (first, second))
            if before and after:
                found = compare(before, after)
                rows += [{"repeat_of": first, **row} for row in found]
                warnings += [text for row in found if (text := _too_small(row, first, second))]
        update_table(work.tables / "repeat.csv", second, rows, columns=COLUMNS, scans=work.scans)
    return warnings


def _placed(work: ScanWork, objects: Sequence[Row], scan: str) -> list[Row]:
    """Rows of a scan, with heights from its interface where that is known: stacks drift along the axis."""
    faces = [row for row in read_table(work.tables / "interface.csv") if row["scan"] == scan]
    zero = (faces[0]["z_um"] or 0.0) if faces else 0.0
    return [{**row, "z_um": row["z_um"] - zero} for row in objects if row["scan"] == scan]


def compare(before: Sequence[Row], after: Sequence[Row]) -> list[dict[str, Any]]:
    """How the volumes of one state differ between two scans, for each kind of object and for all.

    The sample may have moved between them, not turned: the shift by which most objects match is taken off.
    Objects of a kind match that are nearest to each other, and nearer than the larger one's radius. What the
    view cuts, and what has no volume with bounds, is left out.

    Returns
    -------
    Rows with the number of objects in both scans and of matches; `median_errors`, median of |difference| over
    the combined standard error, 0.67 where errors are as stated; and `within_frac`, the share of differences
    within the combined 95 % bounds, half their widths added in quadrature: 0.95 where bounds are as stated.
    """
    shift = _shift_um(before, after)
    after = [{**row, **{key: row[key] - d for key, d in zip(_PLACE, shift, strict=True)}} for row in after]
    kinds = sorted({row["kind"] for row in (*before, *after) if _counts(row)})
    rows, all_pairs = [], []
    for kind in kinds:
        ours = [[row for row in scan if row["kind"] == kind and _counts(row)] for scan in (before, after)]
        pairs = _pairs(*ours)
        all_pairs += pairs
        rows.append(_row(kind, pairs, len(ours[0]), len(ours[1])))
    counted = [sum(_counts(row) for row in scan) for scan in (before, after)]
    return [*rows, _row("all", all_pairs, *counted)]


def _shift_um(before: Sequence[Row], after: Sequence[Row]) -> DoubleArray:
    """The shift (z, y, x) by which most of the largest objects of a scan lie on one of the other."""
    large = [
        sorted(filter(_counts, rows), key=lambda row: -row["volume_um3"])[:_TRIED] for rows in (before, after)
    ]
    best, most = np.zeros(3), 0
    if not all(large):
        return best
    there, here = (_centres(rows) for rows in large)
    tree = spatial.KDTree(there)
    reach = np.array([_reach_um(row, row) for row in large[1]])
    alike = [(i, j) for i, a in enumerate(large[0]) for j, b in enumerate(large[1]) if a["kind"] == b["kind"]]
    # the smallest shift first, which a tie leaves
    for shift in sorted(
        (here[j] - there[i] for i, j in alike), key=lambda each: float(np.hypot.reduce(each))
    ):
        gaps, nearest = tree.query(here - shift)
        found = gaps <= reach
        if found.sum() > most:
            most, best = int(found.sum()), np.median((here - there[nearest])[found], axis=0)
    return best


def _counts(row: Row) -> bool:
    known = all(row.get(f"volume_{end}um3") is not None for end in ("", "error_", "low_", "high_"))
    return known and not row.get("truncated")


def _pairs(before: Sequence[Row], after: Sequence[Row]) -> list[tuple[Row, Row]]:
    if not before or not after:
        return []
    one, two = (spatial.KDTree(_centres(rows)) for rows in (before, after))
    there, back = two.query(one.data)[1], one.query(two.data)[1]
    pairs = [(before[i], after[j]) for i, j in enumerate(there) if back[j] == i]
    return [(a, b) for a, b in pairs if math.dist(_centres([a])[0], _centres([b])[0]) <= _reach_um(a, b)]


def _centres(rows: Sequence[Row]) -> DoubleArray:
    return np.array([[row[key] for key in _PLACE] for row in rows], np.float64)


def _reach_um(a: Row, b: Row) -> float:
    volume = max(a["volume_um3"], b["volume_um3"], 0.0)
    return float(np.cbrt(0.75 * volume / np.pi))


def _row(kind: str, pairs: Sequence[tuple[Row, Row]], n_before: int, n_after: int) -> dict[str, Any]:
    gone = [abs(b["volume_um3"] - a["volume_um3"]) for a, b in pairs]
    error = [math.hypot(a["volume_error_um3"], b["volume_error_um3"]) for a, b in pairs]
    bounds = [math.hypot(_half_um3(a), _half_um3(b)) for a, b in pairs]
    shares = [g / e for g, e in zip(gone, error, strict=True) if e > 0]
    within = [g <= most for g, most in zip(gone, bounds, strict=True)]
    return {
        "kind": kind,
        "number": n_after,
        "number_before": n_before,
        "matched": len(pairs),
        "median_errors": float(np.median(shares)) if shares else None,
        "within_frac": float(np.mean(within)) if within else None,
    }


def _half_um3(row: Row) -> float:
    return float(row["volume_high_um3"] - row["volume_low_um3"]) / 2


def _too_small(row: dict[str, Any], first: str, second: str) -> str:
    """What to say where too few differences lie within the bounds to be chance."""
    n, share = row["matched"], row["within_frac"]
    if row["kind"] != "all" or n < _FEWEST:
        return ""
    # the least share that chance alone leaves
    least = min(_LEAST_WITHIN, 0.95 - _OFTEN * math.sqrt(0.95 * 0.05 / n))
    if share >= least:
        return ""
    return (
        f"volumes of {first} and its repeat {second} differ more than they say: {100 * share:.0f} % of {n} "
        "differences lie within the 95 % bounds; take these as too small, or look for what moved (repeat.csv)"
    )
