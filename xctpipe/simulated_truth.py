"""What lies beside the raw scans of a simulated series: truth, tables, the cycler's file, a recipe.

The tables in `truth/` are those of `phantom.tables`, are about the scans that were written, and name them as
the raw data do. `cycler.csv`, and `cycler.mpt` in the form of BioLogic's EC-Lab, cover the whole series. What
each column holds stands in `phantom.columns` and, for the user, in `truth/columns.md`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from xctpipe import __version__
from xctpipe.phantom import columns
from xctpipe.phantom.materials import delta, mu
from xctpipe.phantom.series import Series
from xctpipe.phantom.tables import tables_of, truth_of
from xctpipe.runfolder import write_bytes, write_json, write_table, write_text
from xctpipe.scan import Scan
from xctpipe.simulation import RAW, acquisition_of, flat_times_s, flats_are_beside, scan_name


def as_written(series: Series, *, scans: Collection[int]) -> Series:
    """The time steps that were written, named and acquired as their raw scans, and the events among them."""
    names = {step.name: scan_name(i) for i, step in enumerate(series.steps) if i in scans}
    steps = tuple(
        replace(step, name=names[step.name], acquisition=acquisition_of(series, i))
        for i, step in enumerate(series.steps)
        if i in scans
    )
    events = tuple(
        replace(event, scan_from=names[event.scan_from], scan_to=names[event.scan_to])
        for event in series.events
        if {event.scan_from, event.scan_to} <= names.keys()
    )
    return replace(series, steps=steps, events=events)


def truth_with_times(series: Series, *, scans: Mapping[int, Scan]) -> dict[str, Any]:
    """Everything put into the scans of a series that were written, as plain values; what is not is null.

    Parameters
    ----------
    scans : the scans that were written, by time step, for their angles.
    """
    before_s, after_s = flat_times_s(series)
    named = {scan_name(i): series.steps[i] for i in scans}
    truth = {
        "made_by": f"xctpipe {__version__}",
        **truth_of(as_written(series, scans=scans)),
        "n_scans": len(series.steps),
        "written": list(named),
        "steps": {name: step.name for name, step in named.items()},
        "start_times": {name: _iso(step.time_s) for name, step in named.items()},
        "flats_before": _iso(before_s),
        "flats_after": _iso(after_s),
        "angles_rad": {scan.name: scan.angles_rad.tolist() for scan in scans.values()},
    }
    plain: dict[str, Any] = _plain(truth)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_truth(folder: Path, series: Series, *, scans: Mapping[int, Scan]) -> None:
    """Write truth.json, and the tables with what their columns hold into the folder `truth`."""
    write_json(folder / "truth.json", truth_with_times(series, scans=scans))
    for name, rows in tables_of(as_written(series, scans=scans)).items():
        written = [{key: _text(value) for key, value in row.items()} for row in rows]
        write_table(folder / "truth" / f"{name}.csv", written, columns=list(columns.TABLES[name]))
    write_text(folder / "truth" / "columns.md", columns.as_text())


def _text(value: Any) -> Any:
    """A whole number without its `.0`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def write_cycler(folder: Path, series: Series) -> None:
    """Write cycler.csv and cycler.mpt, where the series has a cycler."""
    if not series.cycler:
        return
    start_s = series.cycler[0].time_s
    rows = [
        {
            "time": _iso(each.time_s),
            "time_s": f"{round(each.time_s - start_s, 3):.12g}",
            "voltage_v": f"{each.voltage_v:.9g}",
            "current_ma": f"{each.current_ma:.9g}",
            "charge_mah_cm2": f"{each.charge_mah_cm2:.9g}",
        }
        for each in series.cycler
    ]
    write_table(folder / "cycler.csv", rows, columns=list(columns.CYCLER))
    # EC-Lab writes Latin-1 with DOS line ends
    write_bytes(folder / "cycler.mpt", _mpt(series).replace("\n", "\r\n").encode("latin-1"))


def _mpt(series: Series) -> str:
    start = datetime.fromtimestamp(series.cycler[0].time_s, tz=UTC)
    head = [
        "",
        "Chrono Potentiometry",
        "",
        "Run on channel : 1 (simulated)",
        f"Acquisition started on : {start:%m/%d/%Y %H:%M:%S}.{start.microsecond // 1000:03d}",
        f"Electrode surface area : {series.electrode_area_cm2:.4f} cm²",
        f"Comments : simulated by xctpipe {__version__}, times in UTC",
        "",
        "\t".join((*columns.MPT, "")),
    ]
    lines = ["EC-Lab ASCII FILE", f"Nb header lines : {len(head) + 2}", *head]
    for each in series.cycler:
        values = (
            each.time_s - series.cycler[0].time_s,
            each.current_ma,
            each.voltage_v,
            each.current_ma,
            each.charge_mah_cm2 * series.electrode_area_cm2,
        )
        flags = ["1", "1" if each.current_ma > 0 else "0", "0", "0", "0", "0", "0"]
        lines.append("\t".join([*flags, *(f"{v:.9E}" for v in values), ""]))
    return "\n".join([*lines, ""])


def write_recipe(folder: Path, series: Series, *, scans: Sequence[str], layout: str) -> Path:
    """Write recipe.toml, which reconstructs the scans that were written."""
    first = series.steps[0]
    a = first.acquisition
    raw: dict[str, Any] = {
        "folder": RAW,
        "scans": list(scans),
        "energy_kev": first.sample.energy_kev,
        "pixel_um": a.pixel_um,
        "exposure_s": a.exposure_s,
    }
    table: dict[str, Any] = {"name": f"simulated {series.kind}", "run_folder": "run", "raw": raw}
    if a.distance_mm:
        raw["distance_mm"] = a.distance_mm
        # cracks are looked for: NASICON against a void
        table["phase"] = {"delta_beta": round(_delta_beta("nasicon", first.sample.energy_kev), 1)}
        # retrieval makes much of what flats that do not fit leave over many rows
        table["flat_field"] = {"dynamic": True}
    if series.cycler:
        table["cell"] = {"electrode_area_cm2": round(series.electrode_area_cm2, 9)}
        table["cycler"] = {"file": "cycler.mpt", "time_zone": "UTC"}
    path = folder / "recipe.toml"
    where = "in folders of their own" if flats_are_beside(layout) else "the same ones in every scan"
    comment = f"# darks and flats were taken before and after the whole series: {where}\n"
    write_text(path, comment + tomli_w.dumps(table))
    return path


def _delta_beta(material: str, energy_kev: float) -> float:
    """Ratio of refraction and absorption of a material, beta = mu lambda / (4 pi)."""
    wavelength_cm = 12.39842e-8 / energy_kev
    beta = mu(material, energy_kev=energy_kev) * wavelength_cm / (4 * math.pi)
    return delta(material, energy_kev=energy_kev) / beta


def _iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, tz=UTC).isoformat()
