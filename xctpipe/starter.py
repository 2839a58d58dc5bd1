"""A commented recipe for raw data as it was found."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xctpipe import formats
from xctpipe.correct.chain import default_chain
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.formats import Found
from xctpipe.recon import backends
from xctpipe.scan import Scan


def look(folder: Path) -> tuple[list[Found], Scan | None, str]:
    """Scans in a folder, the first of them, and why that one cannot be read where it cannot.

    Raises
    ------
    BadScan
        When there is nothing that a recipe could name.
    """
    try:
        found = formats.find_scans(folder)
    except BadScan as err:
        if not folder.is_dir() or not any(folder.iterdir()):
            raise
        return [], None, str(err)
    scans = [each for each in found if each.holds == "projections"]
    if not scans:
        raise BadScan(f"{folder}: nothing in it holds projections; `xctpipe inspect` says what was found")
    try:
        return scans, formats.open_scan(scans[0].path, options=formats.RawOptions(folder=_home(folder))), ""
    except BadScan as err:
        return scans, None, str(err)


def _home(folder: Path) -> Path:
    return folder if folder.is_dir() else folder.parent


def write(
    folder: Path, *, out: Path, energy_kev: float | None, pixel_um: float | None, force: bool = False
) -> tuple[list[str], str]:
    """Write a recipe for raw data; returns what to say, and what is wrong with the data, if anything.

    Raises
    ------
    BadRecipe
        If the file exists, unless `force`, or cannot be written.
    BadScan
        If there is nothing that a recipe could name.
    """
    if out.exists() and not force:
        raise BadRecipe(f"{out} exists already; choose another with --out, or replace it with --force")
    folder = folder.resolve()
    scans, first, problem = look(folder)
    name = folder.name if folder.is_dir() else folder.stem
    # what every experiment calls it would make them share a run folder
    if name in {"raw_data", "raw", "data"}:
        name = folder.parent.name
    text = recipe_text(
        folder,
        scans=scans,
        first=first,
        problem=problem,
        energy_kev=energy_kev,
        pixel_um=pixel_um,
        run_folder=Path("runs") / name,
    )
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as err:
        raise BadRecipe(f"--out {out}: cannot be written ({err.strerror}); choose another place") from err
    said = [f"{out}: recipe for {len(scans)} scan(s); next: xctpipe plan {shlex.quote(str(out))}"]
    if "REQUIRED" in text:
        said.append("fill in what is marked REQUIRED first")
    kept = "\nthe recipe is written all the same, to say what the files do not"
    return said, f"{problem}{kept}" if problem else ""


_LAST_RAW_LINES = (
    "# bin_px = 2                     # example: squares of 2 x 2 pixels averaged; 1: none",
    "# distance_mm = 300.0            # example; sample to detector, for [phase]",
    '# angle_unit = "deg"             # or "rad"; absent: as the file says, else judged by the range',
    "# log_absorption = false         # true: the data are line integrals already",
    "# follow_links_outside = false   # true: follow HDF5 links that leave the folder",
    "",
)

_LAST_LINES = (
    'filter = "ramp"                  # ramp, shepp, cosine, hamming, hann',
    'padding = "taper"                # beyond the detector: taper, edge, none, cylinder (from [cell])',
    "",
    "# [phase]                        # a second volume, `mass`, by phase retrieval; needs distance_mm",
    "# delta_beta = 350.0             # NASICON at 80 keV; 1004 for NaK",
    "",
    '# [cell]                         # for labels and measures, and for padding = "cylinder"',
    '# up = "nak"                     # example, or "na": the electrode at low rows; absent: found',
    "# nak_k_wtpct = 50.0             # potassium in the NaK",
    "# nasicon_density_g_cm3 = 3.27",
    "# electrode_area_cm2 = 0.2       # example; that the charge is counted per",
    "# bore_mm = 6.0                  # example; the tube, of PEEK: for padding alone, as is",
    "# wall_mm = 2.0                  # example; else wall_formula and wall_density_g_cm3",
    "",
    "# [cycler]                       # charge, current and voltage of scans; needs electrode_area_cm2 above",
    '# file = "plating.mpr"           # example; .mpr, .mpt or CSV, or several: ["a.mpr", "b.mpr"]',
    '# time_zone = "America/New_York" # example; of clocks that name none; absent: that of the scans',
    "# clock_offset_s = 0.0           # added to the cycler's clock",
    "# plating_positive = true        # current is positive in the file while sodium is plated into the NaK",
    '# columns = {time = "t", voltage = "U", current = "I"}   # example; of a CSV; absent: the usual names',
    '# units = {time = "s", voltage = "V", current = "mA"}    # example; where names do not tell',
    "# rests_outside = false          # true: no current flowed before and after what the files cover",
    "",
    "[volume]",
    'dtype = "float32"                # or uint16, uint8 with a stored scale',
    "# range_cm1 = [-1.0, 5.0]        # example; of integers; absent: from slices made beforehand",
    '# keep_bits = "auto"             # mantissa bits; auto: a tenth of the noise; 23: exact',
    "",
    "# [segment]                      # labels: bubbles, cracks, pores, chips",
    '# level = "auto"                 # of the volume; auto: the finest on which NaK and voids differ enough',
    "# threshold_sigma = 6.0          # how much a void must miss, in standard deviations of the noise",
    "# seed_sigma = 9.0               # and how much some voxel of it",
    "# crack_sigmas_px = [1.0, 1.5, 2.5, 4.0]   # half the widths of cracks that are looked for",
    "# min_voxels = 8",
    "# blind_px = 1.0                 # beside the interface nothing is called a void",
    '# classifier = "classifier.npz"  # example, of `xctpipe train`; absent: none',
    "",
    "# [measure]",
    "# mask_px = 3.0                  # how far beyond an object its missing attenuation is added up",
    "# ring_px = 4.0                  # width of the ring that tells the local background",
    '# repeats = [["scan_1", "scan_2"]]   # example; of one state: do volumes differ by what they say',
    "",
    "[compute]",
    "# memory_gb = 16                 # example; absent: 70 % of what the process may use",
)


def recipe_text(
    folder: Path,
    *,
    scans: Sequence[Found],
    first: Scan | None,
    problem: str = "",
    energy_kev: float | None = None,
    pixel_um: float | None = None,
    run_folder: Path,
) -> str:
    """Text of a recipe for the scans found in `folder`, with what the first one says of itself filled in.

    Without `first`, which cannot be read as it is because of `problem`, what it needs is marked.
    """
    name = run_folder.name
    lines = [
        *_title_lines(len(scans), first, problem),
        "# A key in a comment shows its default, or an example where it says so.",
        f"name = {_quoted(name)}",
        f"run_folder = {_quoted(str(run_folder))}",
        "",
        *_raw_lines(folder, scans, first, energy_kev=energy_kev, pixel_um=pixel_um),
        *_method_lines(first),
        *_LAST_LINES,
    ]
    return "\n".join(lines) + "\n"


def _size(first: Scan | None) -> tuple[int, int]:
    return (first.shape[1], first.shape[2]) if first else (2160, 2560)


def _raw_lines(
    folder: Path,
    scans: Sequence[Found],
    first: Scan | None,
    *,
    energy_kev: float | None,
    pixel_um: float | None,
) -> list[str]:
    names = ", ".join(_quoted(each.name) for each in scans)
    height, width = _size(first)
    said = (first.energy_kev, first.pixel_um, first.exposure_s) if first else (None, None, None)
    example = "" if first else "   # example"
    return [
        "[raw]",
        f"folder = {_quoted(str(folder))}",
        *([f"scans = [{names}]"] if scans else []),
        _number("energy_kev", energy_kev or said[0], 80.0, "photon energy"),
        _number("pixel_um", pixel_um or said[1], 1.3, "pixel size in the sample"),
        _number("exposure_s", said[2], 0.2, "") + ("" if said[2] else "; weighs the flats before and after"),
        '# start_times = ["2025-03-01T10:00:00-05:00"]   # example, one per scan; absent: from the files',
        '# dark_flat = ["scan_00015"]     # example; absent: beside or inside the data, nearest in time',
        *_loose_lines(first, found=bool(scans)),
        f"# rows = [0, {height}]{example}",
        f"# columns = [0, {width}]{example}",
        *_LAST_RAW_LINES,
    ]


def _method_lines(first: Scan | None) -> list[str]:
    width = _size(first)[1]
    others = [name for name in backends() if name != "fourier"]
    return [
        "# Corrections in order. Absent: this default chain; `correct = []` above [raw]: none.",
        *_chain_lines(),
        *(_turn_lines(first) if first else []),
        "# [flat_field]",
        "# dynamic = true                 # follow a beam that moves; absent: flats interpolated in time",
        "",
        "# [center]",
        f"# center_px = {(width - 1) / 2}          # example; absent: found by itself",
        f"# search_px = [{width // 4}, {3 * width // 4}]          # where it is looked for",
        "",
        "[reconstruct]",
        f'backend = "fourier"              # or {", ".join(others)}',
    ]


def _title_lines(n_scans: int, first: Scan | None, problem: str) -> list[str]:
    if first is None:
        why = " ".join(problem.split())
        return [f"# {n_scans} scan(s) found; none can be read as it is:", f"# {why}"]
    n_angles, height, width = first.shape
    return [f"# {first.layout}: {n_scans} scan(s); the first has {n_angles} frames of {height} x {width}."]


def _loose_lines(first: Scan | None, *, found: bool) -> list[str]:
    """What may be named file by file; what the first scan lacks is marked."""
    no_angles = bool(np.all(np.isnan(first.angles_rad))) if first else not found
    no_flats = not (first.dark_flats or first.log_absorption) if first else not found
    unclear = any("raw.data" in text for text in first.errors) if first else not found
    lines = []
    for needed, line, what in (
        (unclear, 'data = "tomo_*.tif"', 'frames no layout finds; of a series: "{scan}/tomo_*.tif"'),
        (no_flats, 'flats = "flat_*.tif"', "files, folder, glob or file.h5:/key, relative to folder"),
        (False, 'darks = "dark_*.tif"', ""),
        (no_angles, 'angles = "angles.txt"', "or file.h5:/key, or [first, last] in degrees, as [0, 180]"),
        (False, 'camera = "kinetix-det1"', "where a file or folder holds several"),
    ):
        words = "; ".join(each for each in ("REQUIRED, not found" if needed else "example", what) if each)
        lines.append(f"# {line:30} # {words}")
    return lines


def _chain_lines() -> list[str]:
    lines: list[str] = []
    for name, params in default_chain():
        lines += ["# [[correct]]", f"# do = {_quoted(name)}"]
        lines += [f"# {key} = {value}" for key, value in params.items()]
    return [*lines, ""]


def _turn_lines(first: Scan) -> list[str]:
    """How a full turn may be used: the axis near the edge of the view makes the view twice as wide."""
    if not np.ptp(first.angles_rad) > 1.9 * np.pi:
        return []
    return [
        "# A full turn: with the axis near the edge of the view, join its halves, before ring filters:",
        '# do = "stitch_360"',
        "",
    ]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _number(key: str, value: float | None, example: float, what: str) -> str:
    if value is not None:
        return f"{key} = {value:.10g}"
    needed = f"  # REQUIRED: {what}, not in the file; example" if what else "  # example; not in the file"
    return f"# {key} = {example}{needed}"
