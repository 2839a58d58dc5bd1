"""The truth about a series as tables, with the columns of the measured ones, and as plain values for JSON."""

import math
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from xctpipe.phantom.labels import PHASES
from xctpipe.phantom.shapes import to_dict
from xctpipe.phantom.timeline import Series, TimeStep, TrueObject

Row = dict[str, Any]

_STILL = ("pore", "inclusion")


def tables_of(series: Series) -> dict[str, list[Row]]:
    """All tables of a series by name; a value that does not exist is None.

    What is known exactly has its low and high values equal to it. Tables: `scans`, `phases`, `objects`,
    `interface`, `tracks`, `events`, `growth`, `registration`, `percolation`, `balance`.
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


def _plain(row: Row) -> Row:
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}


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
    """Slope of whole volume with charge, by least squares over the scans that show an object."""
    seen: dict[int, list[tuple[TimeStep, TrueObject]]] = {}
    for step in series.steps:
        for thing in step.objects:
            if thing.kind not in _STILL:
                seen.setdefault(thing.object, []).append((step, thing))
    for number, found in sorted(seen.items()):
        charge = np.array([step.charge_mah_cm2 for step, _ in found])
        volume = np.array([thing.whole_volume_um3 for _, thing in found])
        spread = charge - charge.mean()
        slope = float(spread @ volume / (spread @ spread)) if np.any(spread) else math.nan
        yield {
            "track": number,
            "kind": found[-1][1].kind,
            "dvolume_dcharge_um3_per_mah_cm2": slope,
            "low": slope,
            "high": slope,
            "onset_mah_cm2": float(charge[0]),
        }


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
    """What the chamber holds, seen or not."""
    liquid, void = (
        step.phases_um3["nak"],
        sum(step.phases_um3.get(k, 0.0) for k in ("bubble", "interfacial_void")),
    )
    return {"scan": step.name, "nak_um3": liquid, "void_um3": void, "chamber_um3": liquid + void}
