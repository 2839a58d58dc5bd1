"""What every table of a simulated series and every line of its cycler holds, for its reader."""

from collections.abc import Iterator, Mapping

_SCAN = "name of the scan, as the raw data have it"
_NUMBER = "number of the object, the same in all scans"
_KIND = "bubble, interfacial_void, crack, crack_filled, chip, pore or inclusion"

TABLES: Mapping[str, Mapping[str, str]] = {
    "scans": {
        "scan": _SCAN,
        "time_s": "start of the scan, POSIX time",
        "charge_mah_cm2": "charge passed from the start of the series to that of the scan, per area of the "
        "electrode: the integral of the current's absolute value, never negative",
        "current_ma_cm2": "current that flowed until the scan began, 0 before the first; positive while "
        "sodium "
        "is plated into the liquid, negative while it is stripped",
        "voltage_v": "of the cell just before the scan, with that current flowing",
        "center_px": "column of the axis of rotation",
        "n_frames": "projections written",
        "photons": "per pixel and frame in the open beam; empty: no noise",
        "distance_mm": "from the sample to the detector",
    },
    "phases": {
        "scan": _SCAN,
        "phase": "name of the phase; numbers of phases are in truth.json",
        "volume_um3": "of its part in view",
    },
    "objects": {
        "scan": _SCAN,
        "object": _NUMBER,
        "kind": _KIND,
        "volume_um3": "of the part in view",
        "volume_low_um3": "equal to volume_um3, which is exact",
        "volume_high_um3": "equal to volume_um3, which is exact",
        "whole_volume_um3": "in view or not",
        "area_um2": "of one face of a crack, of the footprint of an interfacial void, else of the whole "
        "surface; empty where there is no closed form",
        "opening_median_um": "of a crack, by area; empty for anything else",
        "opening_max_um": "of a crack, the largest; empty for anything else",
        "depth_um": "reach below the NaK/NASICON interface, 0 for what lies above it",
        "z_um": "centre of mass of the part in view, from the centre of detector row 0 down",
        "y_um": "the same, from the axis of rotation",
        "x_um": "the same, from the axis of rotation",
        "truncated": "whether some of it is out of view",
        "percolates": "whether it joins the liquid and the sodium",
    },
    "interface": {
        "scan": _SCAN,
        "contact_frac": "part of the interface in view that no void covers; the mouth of a crack is contact",
        "area_um2": "of the NaK/NASICON interface in view",
        "blocked_um2": "of it under voids",
        "n_voids": "voids on the interface in view",
        "void_volume_um3": "of these voids",
        "nak_height_um": "of the chamber's content",
        "sodium_height_um": "of the counter electrode",
        "z_um": "of the interface, from the centre of detector row 0 down",
    },
    "tracks": {"track": "equal to object", "scan": _SCAN, "object": _NUMBER},
    "events": {
        "kind": "birth, death, merge (the merged object last), split (the one that splits first), fill (a "
        "crack "
        "takes up metal), chip (a detached piece lifts), shrink or percolate",
        "scan_from": "the scan before it",
        "scan_to": "the scan after it",
        "tracks": "objects that it happens to, separated by blanks",
    },
    "growth": {
        "track": _NUMBER,
        "kind": "a row is for the scans in which the object is of this kind: a crack that fills up has two",
        "dvolume_dcharge_um3_per_mah_cm2": "slope of whole_volume_um3 by least squares over these scans, per "
        "mAh/cm^2 of charge passed (charge_mah_cm2 of scans) whatever the sign of the current; exactly 0 "
        "where "
        "the volume stays the same, empty where there is one scan or no charge passes",
        "low": "empty: the slope is no estimate",
        "high": "empty: the slope is no estimate",
        "onset_mah_cm2": "charge passed at the first of these scans from which on it grows, that is after "
        "which its volume is larger; empty where it never grows",
        "scan_from": "first of these scans",
        "scan_to": "last of these scans",
        "n_scans": "how many these are",
    },
    "registration": {
        "scan": _SCAN,
        "dz_px": "shift of the stack since the first scan of the whole series, along the rows; the stack has "
        "turned first",
        "dy_px": "the same, along y",
        "dx_px": "the same, along x",
        "dz_um": "dz_px in micrometers",
        "dy_um": "dy_px in micrometers",
        "dx_um": "dx_px in micrometers",
        "rotation_deg": "turn of the stack about the axis of rotation since then, from x to y",
    },
    "percolation": {
        "scan": _SCAN,
        "percolates": "whether metal joins the liquid and the sodium: the cell is shorted",
        "objects": "those that do so, separated by blanks",
        "bottleneck_um": "smallest opening on the way; empty where nothing percolates",
    },
    "balance": {
        "scan": _SCAN,
        "nak_um3": "in the chamber and in view, cracks not counted; changes when the stack drifts",
        "void_um3": "bubbles and interfacial voids in view; changes when the stack drifts",
        "chamber_um3": "sum of both",
        "whole_nak_um3": "in the chamber, in view or not, cracks not counted",
        "whole_nak_in_cracks_um3": "metal in cracks, in view or not; with whole_nak_um3 it changes by 0.908 "
        "mm^3 for each mAh",
        "whole_void_um3": "bubbles and interfacial voids, in view or not",
    },
}
"""Columns of each table of the truth, in their order, and what they hold."""

CYCLER: Mapping[str, str] = {
    "time": "ISO 8601 with offset, of the same clock as the scans' start times",
    "time_s": "seconds from the first line, which is the start of the first scan of the whole series",
    "voltage_v": "of the cell, less than at rest while sodium is stripped",
    "current_ma": "positive while sodium is plated into the liquid, negative while it is stripped; flows "
    "from "
    "this line to the next",
    "charge_mah_cm2": "integral of current_ma from the first line on, per area of the electrode: "
    "negative while "
    "stripping, where scans.csv has its absolute value",
}
"""Columns of cycler.csv."""

MPT: Mapping[str, str] = {
    "mode": "1: galvanostatic",
    "ox/red": "1 where the current is positive, else 0",
    "error": "0",
    "control changes": "0",
    "Ns changes": "0",
    "counter inc.": "0",
    "Ns": "0",
    "time/s": "seconds after `Acquisition started on`, which is in UTC",
    "control/mA": "the current",
    "Ewe/V": "voltage_v of cycler.csv",
    "I/mA": "current_ma of cycler.csv, signed as there",
    "(Q-Qo)/mA.h": "integral of I/mA from the first line on: the charge of cycler.csv, signed as there, "
    "times "
    "the area of the electrode",
}
"""Columns of cycler.mpt."""

TRUTH: Mapping[str, str] = {
    "made_by": "the program and its version",
    "series": "plating, stripping or control",
    "size": "tiny, small or release",
    "seed": "of cell, drift and noise",
    "n_scans": "of the whole series",
    "written": "scans that were written, and that truth.json and the tables are about; the cycler's "
    "files are "
    "about the whole series",
    "electrode_area_cm2": "of the NaK/NASICON interface, in view or not",
    "pixel_um": "edge of a pixel",
    "energy_kev": "of the beam",
    "eta_frac": "volume that the growing bubble gains per volume of sodium stripped",
    "crack_opening_um": "largest opening of the crack while it is empty (P4); the gap under the lifted chip "
    "(P5), which NaK fills, is 4/3 of it, and the crack of control is that of P3",
    "bubble_radius_um": "of the bubble; of the growing one in its last scan",
    "crack_openings": "openings of the crack in every scan, columns as in objects",
    "mu_cm1": "attenuation of the materials",
    "phases": "numbers of the phases in label images",
    "scans": "columns as in scans; drift, acquisition, and every shape that was put in: mm from the "
    "point where "
    "the axis of rotation meets the middle row (pores and specks in the first scan written only)",
    "tables": "all tables but objects",
    "objects": "columns as in objects, and names of their shapes (pores and specks in the first scan only)",
    "steps": "what the series calls its scans: P0 to P6, S0 to S4, C0 to C3",
    "start_times": "of the scans",
    "flats_before": "when darks and flats were taken before the first scan of the whole series",
    "flats_after": "when they were taken after the last one",
    "angles_rad": "true angle of every projection, and of the one angle more that is recorded",
}
"""Entries of truth.json."""

_HEAD = """# What the truth of a simulated series holds

Lengths in um, volumes in um^3 unless the name says otherwise. An empty cell is a value that does not exist.
All tables are about the scans that were written (`written` in truth.json).

Signs: current, signed charge and over-voltage are positive while sodium is plated into the liquid and
negative while it is stripped. `charge_mah_cm2` of the tables is charge passed, the integral of the current's
absolute value; that of `cycler.csv` and `cycler.mpt` is the integral of the current itself. The cycler's
files cover the whole series, also when only some of its scans were written.

The raw data have one recorded angle more than projections, as those of some beamlines do; the warning about
it is intended.
"""


def as_text() -> str:
    """All columns as a text for the folder of the truth."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _HEAD
    parts = {f"{name}.csv": columns for name, columns in TABLES.items()}
    for name, columns in {
        **parts,
        "../cycler.csv": CYCLER,
        "../cycler.mpt": MPT,
        "../truth.json": TRUTH,
    }.items():
        yield f"## {name}\n"
        yield from (f"- `{column}`: {text}" for column, text in columns.items())
        yield ""
