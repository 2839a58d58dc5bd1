"""A commented recipe for raw data as it was found."""

from collections.abc import Sequence
from pathlib import Path

from xctpipe.correct.chain import default_chain
from xctpipe.formats import Found
from xctpipe.scan import Scan


def recipe_text(
    folder: Path,
    *,
    scans: Sequence[Found],
    first: Scan,
    energy_kev: float | None = None,
    pixel_um: float | None = None,
    run_folder: Path,
) -> str:
    """Text of a recipe for the scans found in `folder`, with what the first one says of itself filled in."""
    name = run_folder.name
    names = ", ".join(_quoted(each.name) for each in scans)
    n_angles, height, width = first.shape
    lines = [
        f"# {first.layout}: {len(scans)} scan(s); the first has {n_angles} frames of {height} x {width}.",
        "# A key in a comment shows its default, or an example where it says so.",
        f"name = {_quoted(name)}",
        f"run_folder = {_quoted(str(run_folder))}",
        "",
        "[raw]",
        f"folder = {_quoted(str(folder))}",
        f"scans = [{names}]",
        _number("energy_kev", energy_kev or first.energy_kev, 80.0, "photon energy"),
        _number("pixel_um", pixel_um or first.pixel_um, 1.3, "pixel size in the sample"),
        _number("exposure_s", first.exposure_s, 0.2, ""),
        '# start_times = ["2025-03-01T10:00:00-05:00"]   # example, one per scan; absent: from the files',
        '# dark_flat = ["scan_00015"]     # example; absent: beside or inside the data, nearest in time',
        f"# rows = [0, {height}]",
        f"# columns = [0, {width}]",
        '# angle_unit = "deg"             # or "rad"; absent: as the file says, else judged by the range',
        "# log_absorption = false         # true: the data are line integrals already",
        "# follow_links_outside = false   # true: follow HDF5 links that leave the folder",
        "",
        "# Corrections in order. Absent: this default chain; `correct = []` above [raw]: none.",
        *_chain_lines(),
        "# [center]",
        f"# center_px = {(width - 1) / 2}          # example; absent: found by itself",
        f"# search_px = [{width // 4}, {3 * width // 4}]          # where it is looked for",
        "",
        "[reconstruct]",
        'backend = "fourier"              # or "algotom"',
        'filter = "ramp"                  # ramp, shepp, cosine, hamming, hann',
        'padding = "taper"                # how rows go on beyond the detector: taper, edge, none',
        "",
        "[volume]",
        'dtype = "float32"                # or uint16, uint8 with a stored scale',
        "# range_cm1 = [-1.0, 5.0]        # example; of integers; absent: from slices made beforehand",
        '# keep_bits = "auto"             # mantissa bits; auto: a tenth of the noise; 23: exact',
        "",
        "[compute]",
        "# memory_gb = 16                 # example; absent: 70 % of what the process may use",
    ]
    return "\n".join(lines) + "\n"


def _chain_lines() -> list[str]:
    lines: list[str] = []
    for name, params in default_chain():
        lines += ["# [[correct]]", f"# do = {_quoted(name)}"]
        lines += [f"# {key} = {value}" for key, value in params.items()]
    return [*lines, ""]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _number(key: str, value: float | None, example: float, what: str) -> str:
    if value is not None:
        return f"{key} = {value:.10g}"
    needed = f"  # REQUIRED: {what}, not in the file; example" if what else "  # example; not in the file"
    return f"# {key} = {example}{needed}"
