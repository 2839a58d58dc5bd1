"""How everything in a series grew, from the tables of its scans: the tables `growth` and `series`."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.csvtables import read_table
from xctpipe.errors import BadScan
from xctpipe.materials import nak_cm1, nasicon_cm1
from xctpipe.recipe import Recipe
from xctpipe.runfolder import write_table
from xctpipe.scan import DoubleArray
from xctpipe.series.closure import (
    UM2_PER_CM2,
    ceiling_um3,
    charge_by_kind,
    charge_by_sign,
    metal_um3,
    residual,
)
from xctpipe.series.growth_errors import number
from xctpipe.series.growth_rows import COLUMNS, Axes, growth_rows
from xctpipe.series.growth_short import short_and_percolation
from xctpipe.series.growth_things import CRACKS, VOIDS, Thing, things_of
from xctpipe.series.totals import bounds, total_of
from xctpipe.settings import Cell
from xctpipe.stages import SeriesWork
from xctpipe.tables import DIGITS

log = logging.getLogger(__name__)

SERIES_COLUMNS = (
    "scan", "time_s", "charge_mah_cm2", "crack_volume_um3", "crack_low_um3", "crack_high_um3",
    "crack_area_um2", "crack_depth_um", "bubble_volume_um3", "bubble_low_um3", "bubble_high_um3",
    "void_volume_um3", "void_low_um3", "void_high_um3", "n_cracks", "n_bubbles", "n_voids", "contact_frac",
    "contact_low_frac", "contact_high_frac", "percolates", "voltage_v", "nak_um3", "expected_nak_um3",
    "residual_um3", "residual_mah_cm2", "residual_low_mah_cm2", "residual_high_mah_cm2", "cut_um3",
)  # fmt: skip
"""Of the table `series`."""

_KEYS = {"objects": ("scan", "object", "kind", "volume_um3"), "tracks": ("scan", "track", "object")}
"""Columns without which nothing is known of single objects."""
_READ = ("scans", "objects", "tracks", "events", "interface", "balance", "percolation", "steps")
_VOLUMES = {"crack": CRACKS, "bubble": ("bubble",), "void": ("interfacial_void",)}

Rows = list[dict[str, Any]]
Tables = Mapping[str, Rows]


def grow(work: SeriesWork) -> list[str]:
    """Write the tables `growth` and `series` of a run from its other tables.

    Returns
    -------
    Warnings: what is missing and what therefore is not in the tables, things that the view cuts, and a short
    that labels and voltage do not agree about.
    """
    tables, said = _read_all(work.tables)
    names = work.names
    axes = _axes(tables, names, _area(work.recipe))
    frac = _metal_frac(work.recipe)
    things = things_of(tables["objects"], tracks=tables["tracks"], events=tables["events"], scans=names)
    rows = growth_rows(things, axes, metal_frac=frac)
    _write(work.tables / "growth.csv", rows, COLUMNS)
    _write(work.tables / "series.csv", _series(tables, axes, things, work.recipe), SERIES_COLUMNS)
    said.extend(_about_axes(axes, work.recipe))
    said.extend(_about_cuts(things, names))
    agreed, text = short_and_percolation(
        tables["percolation"], steps=tables["steps"], scans=_spans(tables, names)
    )
    if text and not agreed:
        said.append(text)
    elif text:
        log.info("%s", text)
    return said


def _read_all(folder: Path) -> tuple[Tables, list[str]]:
    """All tables that are there, and what to say about others; a table that is absent has no rows."""
    found: dict[str, Rows] = {}
    said = []
    for name in _READ:
        path = folder / f"{name}.csv"
        found[name] = []
        try:
            if path.exists():
                found[name] = read_table(path, needed=_KEYS.get(name, ()))
            elif name in _KEYS:
                said.append(
                    f"no table {name}.csv: growth of single objects is not known; run the stage before"
                )
        except BadScan as err:
            said.append(f"{err}; left out of growth")
    return found, said


def _write(path: Path, rows: Rows, columns: Sequence[str]) -> None:
    write_table(path, [{key: _cell(row.get(key)) for key in columns} for row in rows], columns=columns)


def _cell(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return f"{value + 0.0:.{DIGITS}g}" if math.isfinite(value) else None
    return value


def _area(recipe: Recipe) -> float:
    area = recipe.cell.electrode_area_cm2 if recipe.cell is not None else None
    return math.nan if area is None else float(area)


def _metal_frac(recipe: Recipe) -> float:
    """Attenuation that metal in a crack misses, over what a void misses."""
    cell, energy = recipe.cell or Cell(), recipe.raw.energy_kev
    solid = nasicon_cm1(energy, density_g_cm3=cell.nasicon_density_g_cm3)
    return 1 - nak_cm1(energy, k_wtpct=cell.nak_k_wtpct) / solid


def _axes(tables: Tables, names: tuple[str, ...], area_cm2: float) -> Axes:
    rows = {row.get("scan"): row for row in tables["scans"]}
    middle = _column(rows, names, "charge_middle_mah_cm2")
    charge = middle if np.isfinite(middle).all() else _column(rows, names, "charge_mah_cm2")
    pixels = _column(rows, names, "pixel_um")
    known = pixels[np.isfinite(pixels)]
    moved = _moved(tables, rows, names, charge)
    return Axes(
        names=names,
        charge=charge,
        hours=_column(rows, names, "time_s") / 3600,
        stripped=moved["stripping"],
        pixel_um=float(known[0]) if len(known) else math.nan,
        ceiling_um3=ceiling_um3(area_cm2),
    )


def _column(rows: Mapping[Any, Mapping[str, Any]], names: Sequence[str], column: str) -> DoubleArray:
    return np.array([number(rows.get(name, {}).get(column)) for name in names], dtype=np.float64)


def _moved(
    tables: Tables, rows: Mapping[Any, Mapping[str, Any]], names: Sequence[str], charge: DoubleArray
) -> dict[str, DoubleArray]:
    """Charge plated and stripped at each scan: from the steps, or from the current before each scan."""
    steps = [
        row
        for row in tables["steps"]
        if all(math.isfinite(number(row.get(f"{end}_charge_mah_cm2"))) for end in ("start", "end"))
    ]
    if not steps:
        return charge_by_sign(charge, _column(rows, names, "current_ma_cm2"))
    starts, ends = ([number(row[f"{end}_charge_mah_cm2"]) for row in steps] for end in ("start", "end"))
    return charge_by_kind(charge, starts=starts, ends=ends, kinds=[str(row.get("step")) for row in steps])


def _series(tables: Tables, axes: Axes, things: Sequence[Thing], recipe: Recipe) -> Rows:
    """One row for each scan."""
    scans = {row.get("scan"): row for row in tables["scans"]}
    faces = {row.get("scan"): row for row in tables["interface"]}
    through = {row.get("scan"): row.get("percolates") for row in tables["percolation"]}
    columns: dict[str, Any] = {
        "scan": axes.names,
        "time_s": axes.hours * 3600,
        "charge_mah_cm2": axes.charge,
        "percolates": [through.get(name) for name in axes.names],
        "voltage_v": _column(scans, axes.names, "voltage_v"),
        **{key: _column(faces, axes.names, key) for key in SERIES_COLUMNS if key.startswith("contact_")},
    }
    measured = {row.get("scan") for row in tables["objects"]}
    columns |= _sizes(things, len(axes.names), _metal_frac(recipe))
    columns |= _metal(tables, axes, things, recipe)
    unknown = [name not in measured and not tables["objects"] for name in axes.names]
    return [
        {key: None if unknown[i] and _is_size(key) else own[i] for key, own in columns.items()}
        for i in range(len(axes.names))
    ]


def _is_size(column: str) -> bool:
    return column.startswith(("crack_", "bubble_", "void_", "n_", "cut_"))


def _sizes(things: Sequence[Thing], n: int, metal_frac: float) -> dict[str, Any]:
    """Volumes with intervals, numbers, area and depth of cracks."""
    columns: dict[str, Any] = {"cut_um3": np.zeros(n)}
    for name, kinds in _VOLUMES.items():
        total = total_of(things, kinds=kinds, n=n, metal_frac=metal_frac)
        low, high = bounds(total.volumes)
        volumes = {f"{name}_volume_um3": total.volumes.values, f"{name}_low_um3": low}
        columns |= {**volumes, f"{name}_high_um3": high, f"n_{name}s": total.counts}
        columns["cut_um3"] = columns["cut_um3"] + total.cut_um3
    area, depth = np.zeros(n), np.full(n, math.nan)
    for thing in things:
        for i, rows in zip(thing.scans, thing.rows, strict=True):
            if thing.kind in CRACKS:
                area[i] += sum(number(row.get("area_um2"), instead=0.0) for row in rows)
                depth[i] = np.fmax.reduce([depth[i], *(number(row.get("depth_um")) for row in rows)])
    return {**columns, "crack_area_um2": area, "crack_depth_um": depth}


def _metal(tables: Tables, axes: Axes, things: Sequence[Thing], recipe: Recipe) -> dict[str, DoubleArray]:
    """The balance of metal: columns of `series`."""
    area, names = _area(recipe), axes.names
    if not math.isfinite(area):
        return {}
    rows = {row.get("scan"): row for row in tables["scans"]}
    heights = _column({row.get("scan"): row for row in tables["interface"]}, names, "nak_height_um")
    filled = total_of(things, kinds=("crack_filled",), n=len(names), metal_frac=_metal_frac(recipe))
    voids = total_of(things, kinds=VOIDS, n=len(names))
    metal_in_cracks, displaced = filled.volumes.values + filled.cut_um3, _displaced(tables, names)
    metal = metal_um3(
        heights,
        area_um2=area * UM2_PER_CM2,
        void_um3=voids.volumes.values + voids.cut_um3,
        # between all of it and none displaces liquid of the chamber
        filled_um3=np.where(displaced, 0.5, 1.0) * metal_in_cracks,
    )
    moved = _moved(tables, rows, names, axes.charge)
    expected, beyond = residual(metal, plated=moved["plating"] - moved["stripping"], area_cm2=area)
    charge = beyond / ceiling_um3(area)
    error = _height_errors(tables, names) * metal + np.where(displaced, 0.5, 0.0) * metal_in_cracks
    error = error / ceiling_um3(area)
    return {
        "nak_um3": metal,
        "expected_nak_um3": expected,
        "residual_um3": beyond,
        "residual_mah_cm2": charge,
        "residual_low_mah_cm2": charge - error,
        "residual_high_mah_cm2": charge + error,
    }


def _displaced(tables: Tables, names: Sequence[str]) -> NDArray[np.bool_]:
    """Whether a chip has risen into the chamber: metal below it stands for metal that it drives out."""
    risen = [names.index(row["scan_to"]) for row in _chips(tables) if row.get("scan_to") in names]
    return np.arange(len(names)) >= min(risen, default=len(names))


def _chips(tables: Tables) -> Rows:
    return [row for row in tables["events"] if row.get("kind") == "chip"]


def _height_errors(tables: Tables, names: Sequence[str]) -> DoubleArray:
    """Relative half width of the interval of the difference of a height to the first one."""
    rows = {row.get("scan"): row for row in tables["balance"]}
    low, high, value = (_column(rows, names, f"chamber_{end}um3") for end in ("low_", "high_", ""))
    half = (high - low) / 2 / value
    known = half[np.isfinite(half)]
    first = float(known[0]) if len(known) else math.nan
    return np.asarray(np.hypot(half, first))


def _spans(tables: Tables, names: Sequence[str]) -> list[tuple[str, float, float]]:
    """Name of each scan, and the charge passed until its start and its end, as far as known."""
    rows = {row.get("scan"): row for row in tables["scans"]}
    start, end = (_column(rows, names, f"charge_{part}mah_cm2") for part in ("", "end_"))
    return list(zip(names, start.tolist(), np.where(np.isfinite(end), end, start).tolist(), strict=True))


def _about_axes(axes: Axes, recipe: Recipe) -> Iterator[str]:
    """What cannot be said about the rates, once."""
    known = axes.charge[np.isfinite(axes.charge)]
    if len(axes.names) < 2:
        yield f"{len(axes.names)} scan in the series: nothing can be said about growth, rates are empty"
    elif not len(known):
        yield "no charge is known: growth is given per time and per scan only"
    elif len(known) < len(axes.charge):
        lost = [name for name, at in zip(axes.names, axes.charge, strict=True) if not np.isfinite(at)]
        yield f"no charge is known at {', '.join(lost)}: growth per charge leaves them out"
    elif not np.ptp(known) > 0:
        yield "no charge passed between the scans: growth is given per time and per scan only"
    if len(known) > 1 and np.ptp(known) > 0 and not math.isfinite(_area(recipe)):
        yield "cell.electrode_area_cm2 is not given: no efficiency of voids, no balance of metal"


def _about_cuts(things: Sequence[Thing], names: Sequence[str]) -> Iterator[str]:
    for kind, of in {"crack": CRACKS, "void or bubble": VOIDS}.items():
        cut = {thing.track for thing in things if thing.cut and thing.kind in of and thing.track}
        if cut:
            tracks = ", ".join(map(str, sorted(cut, key=_numbers_first)))
            yield (
                f"{kind} of track {tracks}: cut by the view in some scan; "
                "its rate rests on the other scans, and sums leave it out"
            )


def _numbers_first(track: int | str) -> tuple[bool, int | str]:
    return isinstance(track, str), track
