"""Objects of a run beside those of a reference: which is which, and by how much their numbers differ.

A row is about an object of the reference and the one that was taken for it, about one that was missed
(`object` is empty), or about one that the reference does not have (`reference_object` is empty).
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from xctpipe.agreement import Finding, LabelSums, Thing, ball_radius, finding, matched, pieces
from xctpipe.csvtables import Row

FAMILIES: dict[str, str] = {"crack_filled": "crack", "interfacial_void": "bubble"}
"""Kinds that may be taken for another when objects are matched by their place; others are their own."""

COLUMNS = (
    "scan",
    "kind",
    "reference_kind",
    "object",
    "reference_object",
    "volume_um3",
    "volume_low_um3",
    "volume_high_um3",
    "count_volume_um3",
    "reference_volume_um3",
    "n_joined",
    "volume_error_frac",
    "count_volume_error_frac",
    "covered",
    "opening_median_um",
    "reference_opening_median_um",
    "opening_error_px",
    "depth_um",
    "reference_depth_um",
    "depth_error_px",
    "radius_px",
    "precision",
    "recall",
    "f1",
    "n_pieces",
    "pieces_volume_um3",
    "truncated",
    "cut",
)
"""Of the table of objects.

`n_joined`: objects of the reference that one object covers; they touch, and the one it was matched with
stands for all, with the sum of their volumes. `covered`: the reference's volume lies between low and high.
`radius_px`: of the ball of the reference's volume, of the object's where there is no reference. `precision`,
`recall` and `f1`: of a crack's voxels, with a tolerance of one. `n_pieces`, `pieces_volume_um3`: objects that
overlap this one of the reference more than any other. `truncated`: by the view, on either side. `cut`: part
of it is not compared."""

_CRACKS = ("crack", "crack_filled")
# of an object's voxels: more than this out of the other's view, and its volume is not that of the same thing
_MOST_UNSEEN_FRAC = 0.02
# of an object of the reference: more than this in another's, and it is part of that
_COVERED_FRAC = 0.5


def object_rows(
    scan: str,
    objects: Sequence[Row],
    reference: Sequence[Row],
    *,
    sums: LabelSums,
    voxel_um: float,
    rows_um: tuple[float, float],
    open_ends: bool,
) -> list[Row]:
    """All objects of a scan, matched.

    Parameters
    ----------
    objects, reference : rows of `objects.csv`, of this scan.
    rows_um : z_um of the first and of the last row compared: the others are left out.
    open_ends : whether the reference goes on beyond them.
    """
    low, high = rows_um[0] - voxel_um / 2, rows_um[1] + voxel_um / 2
    mine = {row["object"]: row for row in objects if _within(row, low, high)}
    sizes = sums.reference_sizes
    theirs = {
        row["object"]: row
        for row in reference
        if _within(row, low, high) and (sizes[row["object"]] or not sums.unseen[row["object"]])
    }
    pairs = matched(
        [_thing(row) for row in mine.values()],
        [_thing(row) for row in theirs.values()],
        overlaps=sums.overlaps,
    )
    joined = _join(theirs, pairs, sums)
    broken = pieces(sums.overlaps)
    made = [_row(scan, mine[i], theirs[j], voxel_um) for i, j in pairs.items()]
    made += [_row(scan, None, row, voxel_um) for j, row in theirs.items() if j not in pairs.values()]
    made += [_row(scan, row, None, voxel_um) for i, row in mine.items() if i not in pairs]
    for row in made:
        number = row["reference_object"]
        parts = [i for i in broken.get(number, []) if i in mine]
        row |= {
            "n_pieces": len(parts) if number is not None else None,
            "pieces_volume_um3": sum(mine[i].get("volume_um3") or 0.0 for i in parts) if parts else None,
            "cut": any(
                _is_cut(each, sums, sizes[each], open_ends=open_ends) for each in joined.get(number, [number])
            ),
            "n_joined": None if number is None else len(joined.get(number, [number])),
            **_crack_scores(row, sums),
        }
    return sorted(made, key=_order)


def _join(theirs: dict[int, Row], pairs: Mapping[int, int], sums: LabelSums) -> dict[int, list[int]]:
    """Make one of what one object covers, in place: numbers of the parts, by that which stands for them."""
    taken, found = set(pairs.values()), dict[int, list[int]]()
    for (i, k), count in sorted(sums.overlaps.items()):
        j = pairs.get(i)
        if j is None or k not in theirs or k in taken or count <= _COVERED_FRAC * sums.reference_sizes[k]:
            continue
        if theirs[k]["kind"] in _CRACKS or family(theirs[k]["kind"]) != family(theirs[j]["kind"]):
            continue
        found.setdefault(j, [j]).append(k)
    for j, numbers in found.items():
        parts = [theirs.pop(k) for k in numbers]
        theirs[j] = parts[0] | {
            "volume_um3": sum(part.get("volume_um3") or 0.0 for part in parts),
            "truncated": any(part.get("truncated") for part in parts),
        }
    return found


def _order(row: Row) -> tuple[Any, ...]:
    number, mine = row["reference_object"], row["object"]
    return (number is None, number or 0, mine or 0)


def _within(row: Row, low: float, high: float) -> bool:
    z = row.get("z_um")
    return z is None or low <= z <= high


def _is_cut(number: int | None, sums: LabelSums, seen: int, *, open_ends: bool) -> bool:
    if number is None:
        return False
    unseen = sums.unseen[number]
    return (open_ends and number in sums.at_end) or unseen > _MOST_UNSEEN_FRAC * (seen + unseen)


def family(kind: str) -> str:
    """What a kind may be taken for."""
    return FAMILIES.get(kind, kind)


def _thing(row: Row) -> Thing:
    places = [math.nan if row.get(name) is None else float(row[name]) for name in ("z_um", "y_um", "x_um")]
    radius = ball_radius(row.get("volume_um3") or 0.0)
    if row["kind"] in _CRACKS and row.get("area_um2"):
        radius = max(radius, math.sqrt(row["area_um2"] / math.pi))
    return Thing(row["object"], family(row["kind"]), (places[0], places[1], places[2]), radius)


def _row(scan: str, mine: Row | None, theirs: Row | None, voxel_um: float) -> Row:
    a, b = mine or {}, theirs or {}
    volume, true = a.get("volume_um3"), b.get("volume_um3")
    low, high = a.get("volume_low_um3"), a.get("volume_high_um3")
    covered = None if true is None or low is None or high is None else bool(low <= true <= high)
    size = true if true is not None else volume
    return {
        "scan": scan,
        "kind": a.get("kind"),
        "reference_kind": b.get("kind"),
        "object": a.get("object"),
        "reference_object": b.get("object"),
        "volume_um3": volume,
        "volume_low_um3": low,
        "volume_high_um3": high,
        "count_volume_um3": a.get("count_volume_um3"),
        "reference_volume_um3": true,
        "volume_error_frac": _relative(volume, true),
        "count_volume_error_frac": _relative(a.get("count_volume_um3"), true),
        "covered": covered,
        **_difference("opening_median_um", "opening_error_px", (a, b), voxel_um),
        **_difference("depth_um", "depth_error_px", (a, b), voxel_um),
        "radius_px": None if size is None else ball_radius(size) / voxel_um,
        "truncated": bool(a.get("truncated") or b.get("truncated")),
    }


def _relative(value: float | None, true: float | None) -> float | None:
    return None if value is None or not true else value / true - 1


def _difference(column: str, error: str, rows: tuple[Row, Row], voxel_um: float) -> Row:
    value, true = (row.get(column) for row in rows)
    difference = None if value is None or true is None else (value - true) / voxel_um
    return {column: value, f"reference_{column}": true, error: difference}


def _crack_scores(row: Row, sums: LabelSums) -> Row:
    i, j = row["object"], row["reference_object"]
    is_crack = row["kind"] in _CRACKS, row["reference_kind"] in _CRACKS
    scores = Finding(None, None, None)
    if any(is_crack):
        mine = (sums.sizes[i], sums.hits[i]) if is_crack[0] else (0, 0)
        theirs = (sums.reference_sizes[j], sums.reference_hits[j]) if is_crack[1] else (0, 0)
        scores = finding([*mine, *theirs])
    return {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1}


def summary(rows: Sequence[Row]) -> Row:
    """Counts and typical errors of objects; one that is cut counts, without its errors."""
    pairs = [row for row in rows if row["object"] is not None and row["reference_object"] is not None]
    whole = [row for row in pairs if not row["truncated"] and not row["cut"]]
    known = [row for row in whole if row["volume_error_frac"] is not None]
    true = sum(row["reference_volume_um3"] for row in known)
    covered = [row["covered"] for row in whole if row["covered"] is not None]
    return {
        "n_reference": sum(row["n_joined"] or 0 for row in rows),
        "n_found": sum(row["n_joined"] for row in pairs),
        "n_only_here": sum(row["reference_object"] is None for row in rows),
        "n_same_kind": sum(row["n_joined"] for row in pairs if row["kind"] == row["reference_kind"]),
        "volume_error_frac": _median(known, "volume_error_frac", abs),
        "volume_bias_frac": sum(row["volume_um3"] for row in known) / true - 1 if true else None,
        "count_volume_error_frac": _median(known, "count_volume_error_frac", abs),
        "covered_frac": sum(covered) / len(covered) if covered else None,
        "n_with_interval": len(covered),
        "opening_error_px": _median(whole, "opening_error_px", abs),
        "depth_error_px": _median(whole, "depth_error_px", abs),
    }


def _median(rows: Sequence[Row], column: str, of: Callable[[float], float]) -> float | None:
    values = [of(row[column]) for row in rows if row.get(column) is not None]
    return statistics.median(values) if values else None


def by_kind(rows: Sequence[Row]) -> dict[str, Row]:
    """Summaries by kind: that of the reference, or the object's own where the reference has none."""
    return {kind: summary(list(chosen)) for kind, chosen in _grouped(rows)}


def _grouped(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["reference_kind"] or row["kind"] or "unknown", []).append(row)
    yield from sorted(found.items())
