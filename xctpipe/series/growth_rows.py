"""Rows of the table `growth`: each track of a kind, and sums over all of some kinds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xctpipe.scan import DoubleArray
from xctpipe.series.growth import Amounts, Rate, growth_rate, joined, onset
from xctpipe.series.growth_errors import always_seen, number
from xctpipe.series.growth_things import CRACKS, VOIDS, Thing
from xctpipe.series.totals import SUMS, total_of

COLUMNS = (
    "track", "kind", "dvolume_dcharge_um3_per_mah_cm2", "low", "high", "onset_mah_cm2", "scan_from",
    "scan_to", "n_scans", "growing", "dvolume_dtime_um3_per_h", "time_low", "time_high",
    "front_um_per_mah_cm2", "front_low", "front_high", "efficiency_frac", "efficiency_low",
    "efficiency_high", "onset_low", "onset_high", "scan_onset", "dvolume_dscan_um3", "scan_low", "scan_high",
    "from_zero", "truncated",
)  # fmt: skip
"""Of the table `growth`."""

# depths are those of faces, which are found to a part of a voxel (standard error)
_DEPTH_PX = 0.5
_STRIPPED = 0.99
_LEAST_FRONT = 2
_NO_ZERO = np.zeros(2)


@dataclass(frozen=True)
class Axes:
    """Where each of n scans lies."""

    names: tuple[str, ...]
    charge: DoubleArray
    """(n,) mAh/cm^2 passed; NaN where it is not known."""
    hours: DoubleArray
    """(n,) since the first; NaN where it is not known."""
    stripped: DoubleArray
    """(n,) mAh/cm^2 of the charge passed that was stripped; NaN where it is not known."""
    pixel_um: float
    """NaN where it is not known."""
    ceiling_um3: float
    """Sodium per mAh/cm^2; NaN without an area."""


def growth_rows(things: Sequence[Thing], axes: Axes, *, metal_frac: float = 1.0) -> list[dict[str, Any]]:
    """All rows: one for each track and kind, then the sums.

    A thing that was born begins at zero in the scan before its birth (`from_zero`), up to what is always
    found: growth until it is first seen is growth. Scans in which the view cuts a thing are left out of its
    row; `scan_from`, `scan_to` and `n_scans` are about those that the rates rest on.
    """
    tracked = [_row_of(thing, axes, metal_frac) for thing in things if thing.track is not None]
    return [*tracked, *_sums(things, axes, metal_frac)]


def _row_of(thing: Thing, axes: Axes, metal_frac: float) -> dict[str, Any]:
    whole = thing.whole()
    volumes, scans = whole.volumes(metal_frac), whole.scans
    depths = _depths(whole, axes.pixel_um)
    zero = bool(scans) and whole.before is not None
    if zero and whole.before is not None:
        scans = (whole.before, *scans)
        most = min(always_seen(volumes), float(volumes.values[0]))
        volumes = joined(volumes, first=_NO_ZERO, unseen=max(most, 0.0))
        # before it is seen it is less deep than when it is
        depths = joined(depths, first=_NO_ZERO, unseen=max(float(depths.values[0]), 0.0))
    row = _rates(volumes, depths, scans, thing.kind, axes)
    return {"track": thing.track, "kind": thing.kind, **row, "from_zero": zero, "truncated": thing.cut}


def _sums(things: Sequence[Thing], axes: Axes, metal_frac: float) -> Iterator[dict[str, Any]]:
    n = len(axes.names)
    for name, kinds in SUMS.items():
        own = [thing for thing in things if thing.kind in kinds]
        total = total_of(own, kinds=kinds, n=n, metal_frac=metal_frac)
        if not total.n_whole:
            continue
        depths = _deepest([thing for thing in own if not thing.cut], n, axes.pixel_um)
        row = _rates(total.volumes, depths, tuple(range(n)), name, axes)
        cut = any(thing.cut for thing in own)
        zero = bool(total.volumes.hidden().any())
        yield {"track": None, "kind": name, **row, "from_zero": zero, "truncated": cut}


def _rates(
    volumes: Amounts, depths: Amounts, scans: tuple[int, ...], kind: str, axes: Axes
) -> dict[str, Any]:
    """Rates and onset of amounts in these scans, as cells."""
    at = np.array(scans, dtype=np.intp)
    charge = axes.charge[at]
    by_charge, by_time = growth_rate(charge, volumes), growth_rate(axes.hours[at], volumes)
    by_scan = growth_rate(at, volumes)
    known = (rate for rate in (by_charge, by_time, by_scan) if np.isfinite(rate.value))
    grows = next(known, Rate()).sure
    is_crack = kind in CRACKS or kind == "all_cracks"
    # between two scans the noise of the deepest voxel is all
    front = growth_rate(charge, depths) if is_crack and len(scans) > _LEAST_FRONT else Rate()
    gained = by_charge.times(1 / axes.ceiling_um3) if _is_gain(kind, charge, axes.stripped[at]) else Rate()
    names = [axes.names[i] for i in scans]
    return {
        "dvolume_dcharge_um3_per_mah_cm2": by_charge.value,
        "low": by_charge.low,
        "high": by_charge.high,
        "scan_from": names[0] if names else None,
        "scan_to": names[-1] if names else None,
        "n_scans": len(names),
        "growing": grows if len(names) > 1 else None,
        **_cells(by_time, "dvolume_dtime_um3_per_h", "time"),
        **_cells(front, "front_um_per_mah_cm2", "front"),
        **_cells(gained, "efficiency_frac", "efficiency"),
        **_cells(by_scan, "dvolume_dscan_um3", "scan"),
        **_onset(volumes, grows, scans, axes),
    }


def _cells(rate: Rate, column: str, ends: str) -> dict[str, float]:
    return {column: rate.value, f"{ends}_low": rate.low, f"{ends}_high": rate.high}


def _onset(volumes: Amounts, grows: bool, scans: tuple[int, ...], axes: Axes) -> dict[str, Any]:
    between = onset(volumes, grows=grows)
    if between is None:
        return {}
    last_without, first_with = scans[between[0] - 1], scans[between[1]]
    before, after = float(axes.charge[last_without]), float(axes.charge[first_with])
    name = axes.names[last_without]
    return {"onset_mah_cm2": before, "onset_low": before, "onset_high": after, "scan_onset": name}


def _is_gain(kind: str, charge: DoubleArray, stripped: DoubleArray) -> bool:
    """Whether voids grow while sodium is taken away, and nothing else happens."""
    if kind not in (*VOIDS, "all_bubbles", "all_voids", "all_bubbles_and_voids") or len(charge) < 2:
        return False
    return bool(np.ptp(stripped) >= _STRIPPED * np.ptp(charge) > 0)


def _depths(thing: Thing, pixel_um: float) -> Amounts:
    """Depth of the deepest of its objects in each scan, um."""
    deepest = [max((_depth(row) for row in rows), default=0.0) for rows in thing.rows]
    error = _DEPTH_PX * pixel_um if pixel_um == pixel_um else 0.0
    return Amounts(np.array(deepest, dtype=np.float64), np.full(len(deepest), error))


def _depth(row: Any) -> float:
    return max(number(row.get("depth_um"), instead=0.0), 0.0)


def _deepest(things: Sequence[Thing], n: int, pixel_um: float) -> Amounts:
    """Depth of the deepest thing in each scan; 0 where there is none, and up to that of the first one."""
    depths = np.zeros(n)
    for thing in things:
        own = _depths(thing, pixel_um)
        np.maximum.at(depths, np.array(thing.scans, dtype=np.intp), own.values)
    seen = depths > 0
    error = _DEPTH_PX * pixel_um if pixel_um == pixel_um else 0.0
    first = int(np.argmax(seen)) if seen.any() else 0
    hidden = np.where(np.arange(n) < first, depths[first], 0.0)
    return Amounts(depths, np.where(seen, error, 0.0), unseen=hidden)
