"""The truth about a series as tables, with the columns of the measured ones, and as plain values for JSON.

What each column means stands in `columns.py`.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, fields
from itertools import pairwise
from typing import Any

import numpy as np

from xctpipe.phantom.labels import PHASES
from xctpipe.phantom.shapes import to_dict
from xctpipe.phantom.timeline import Series, TimeStep, TrueObject

Row = dict[str, Any]

_STILL = ("pore", "inclusion")
_CRACKS = ("crack", "crack_filled")
# digits of a table, and the relative change of a volume that is rounding and no growth
_DIGITS, _ROUNDING = 12, 1e-9


def tables_of(series: Series) -> dict[str, list[Row]]:
    """All tables of a series by name; a value that does not exist is None.

    Volumes of objects are known exactly: their low and high values equal them. Tables: `scans`, `phases`,
    `objects`, `interface`, `tracks`, `events`, `growth`, `registration`, `percolation`, `balance`.
    """
    made = {
        "scans": [_scan(step) for step in series.steps],
        "phases": [row for step in series.steps for row in _phases(step)],
        "objects": [_object(step, thing) for step in series.steps for thing in step.objects],
        "interface": [_interface(step) for step in series.steps],
        "tracks": list(_tracks(series)),
        "events": list(_events(series)),
        "growth": list(_growth(series)),
        "registration": [_registration(step) for step in series.steps],
        "percolation": [_percolation(step) for step in series.steps],
        "balance": [_balance(step) for step in series.steps],
    }
    return {name: [_plain(row) for row in rows] for name, rows in made.items()}


def truth_of(series: Series) -> dict[str, Any]:
    """Everything that was put into a series, as plain values for JSON.

    Lengths of shapes are mm from the point where the axis of rotation meets the middle row. Pores and specks
    are given for the first scan only: they move with the stack, by the shift and turn of each scan.
    """
    first = series.steps[0]
    return {
        "series": series.kind,
        "size": series.size,
        "seed": series.seed,
        "electrode_area_cm2": series.electrode_area_cm2,
        **dict(series.settings),
        "crack_openings": [
            _plain(_opening(step, thing))
            for step in series.steps
            for thing in step.objects
            if thing.kind in _CRACKS
        ],
        "mu_cm1": {name: value for step in series.steps for name, value in step.sample.mu_cm1.items()},
        "phases": dict(PHASES),
        "scans": [_truth_of_step(step, whole=step is first) for step in series.steps],
        "tables": {name: rows for name, rows in tables_of(series).items() if name != "objects"},
        "objects": [
            _plain(_object(step, thing)) | {"parts": list(thing.parts)}
            for step in series.steps
            for thing in step.objects
            if step is first or thing.kind not in _STILL
        ],
    }


def _truth_of_step(step: TimeStep, *, whole: bool) -> Row:
    still = {name for thing in step.objects if thing.kind in _STILL for name in thing.parts}
    a = step.acquisition
    return {
        **_plain(_scan(step)),
        "shape": [a.n_angles, a.rows, a.cols],
        "percolates": step.percolates,
        "shift_px": list(step.shift_px),
        "rotation_deg": step.rotation_deg,
        "acquisition": asdict(a),
        "parts": [
            {"name": part.name, "material": part.material, "host": part.host, **to_dict(part.shape)}
            for part in step.sample.parts
            if whole or part.name not in still
        ],
    }


def _opening(step: TimeStep, thing: TrueObject) -> Row:
    names = ("object", "kind", "opening_median_um", "opening_max_um")
    return {"scan": step.name, **{name: getattr(thing, name) for name in names}}


def _plain(row: Row) -> Row:
    return {key: _rounded(key, value) for key, value in row.items()}


def _rounded(key: str, value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    # a POSIX time has ten digits before the point
    return round(value, 3) if key == "time_s" else float(f"{value:.{_DIGITS}g}") + 0.0


def _scan(step: TimeStep) -> Row:
    a = step.acquisition
    return {
        "scan": step.name,
        "time_s": step.time_s,
        "charge_mah_cm2": step.charge_mah_cm2,
        "current_ma_cm2": step.current_ma_cm2,
        "voltage_v": step.voltage_v,
        "center_px": a.axis_px[1],
        "n_frames": a.n_angles - len(a.lost_frames),
        "photons": a.photons,
        "distance_mm": a.distance_mm,
    }


def _phases(step: TimeStep) -> Iterator[Row]:
    for phase, volume in step.phases_um3.items():
        yield {"scan": step.name, "phase": phase, "volume_um3": volume}


def _object(step: TimeStep, thing: TrueObject) -> Row:
    values = {f.name: getattr(thing, f.name) for f in fields(thing) if f.name != "parts"}
    volume = thing.volume_um3
    known = {"scan": step.name, "object": thing.object, "kind": thing.kind, "volume_um3": volume}
    return {**known, "volume_low_um3": volume, "volume_high_um3": volume, **values}


def _interface(step: TimeStep) -> Row:
    values = {name: value for name, value in step.interface.items() if name != "bottleneck_um"}
    if "n_voids" in values:
        values["n_voids"] = int(values["n_voids"])
    return {"scan": step.name, **values}


def _tracks(series: Series) -> Iterator[Row]:
    for step in series.steps:
        for thing in step.objects:
            yield {"track": thing.object, "scan": step.name, "object": thing.object}


def _events(series: Series) -> Iterator[Row]:
    for event in series.events:
        yield {
            "kind": event.kind,
            "scan_from": event.scan_from,
            "scan_to": event.scan_to,
            "tracks": " ".join(str(number) for number in event.objects),
        }


def _growth(series: Series) -> Iterator[Row]:
    """One row for each object and kind: a crack that fills up has two."""
    seen: dict[tuple[int, str], list[tuple[TimeStep, float]]] = {}
    for step in series.steps:
        for thing in step.objects:
            if thing.kind not in _STILL:
                found = seen.setdefault((thing.object, thing.kind), [])
                found.append((step, thing.whole_volume_um3))
    for (number, kind), found in sorted(seen.items()):
        charges = [step.charge_mah_cm2 for step, _ in found]
        volumes = [volume for _, volume in found]
        yield {
            "track": number,
            "kind": kind,
            "dvolume_dcharge_um3_per_mah_cm2": _slope(charges, volumes),
            # the slope is no estimate: it has no interval
            "low": math.nan,
            "high": math.nan,
            "onset_mah_cm2": _onset(charges, volumes),
            "scan_from": found[0][0].name,
            "scan_to": found[-1][0].name,
            "n_scans": len(found),
        }


def _slope(charges: list[float], volumes: list[float]) -> float:
    """Least-squares slope; NaN where no charge passes, 0 where the volume stays the same."""
    spread = np.array(charges) - np.mean(charges)
    if not np.any(spread):
        return math.nan
    if max(volumes) - min(volumes) <= _ROUNDING * max(volumes):
        return 0.0
    return float(spread @ np.array(volumes) / (spread @ spread))


def _onset(charges: list[float], volumes: list[float]) -> float:
    """Charge of the first scan after which the volume is larger; NaN where it never is."""
    steps = zip(charges, pairwise(volumes), strict=False)
    return next((q for q, (now, later) in steps if later > now * (1 + _ROUNDING)), math.nan)


def _registration(step: TimeStep) -> Row:
    names = ("dz", "dy", "dx")
    pixel = step.acquisition.pixel_um
    return {
        "scan": step.name,
        **{f"{name}_px": value for name, value in zip(names, step.shift_px, strict=True)},
        **{f"{name}_um": value * pixel for name, value in zip(names, step.shift_px, strict=True)},
        "rotation_deg": step.rotation_deg,
    }


def _percolation(step: TimeStep) -> Row:
    width = step.interface["bottleneck_um"]
    return {
        "scan": step.name,
        "percolates": step.percolates,
        "objects": " ".join(str(thing.object) for thing in step.objects if thing.percolates),
        "bottleneck_um": width if step.percolates else math.nan,
    }


def _balance(step: TimeStep) -> Row:
    """What the chamber holds in view, which drift of the stack changes, and what it holds in all."""
    liquid, void = (
        step.phases_um3["nak"],
        sum(step.phases_um3.get(k, 0.0) for k in ("bubble", "interfacial_void")),
    )
    whole = {
        f"whole_{name}_um3": step.whole_um3.get(name, math.nan) for name in ("nak", "nak_in_cracks", "void")
    }
    return {"scan": step.name, "nak_um3": liquid, "void_um3": void, "chamber_um3": liquid + void, **whole}
