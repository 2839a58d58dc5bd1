"""Simulated scans on disk, and the demonstration: measured beside true."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from xctpipe import formats, phantom, volume
from xctpipe.assess import rows_across
from xctpipe.errors import BadRecipe, BadScan, nearest
from xctpipe.prepare import volume_path
from xctpipe.progress import progress
from xctpipe.recipe import make_recipe
from xctpipe.run import run
from xctpipe.runfolder import read_json, write_json
from xctpipe.scan import FloatArray, Scan
from xctpipe.simulation import count_frames, photons_of, streamed
from xctpipe.storage import storing
from xctpipe.survey import SURVEY_ROWS

MATERIALS = ("nasicon", "nak50", "aluminium")


@dataclass(frozen=True)
class Line:
    """One row of what the demonstration prints."""

    what: str
    true: str
    measured: str
    unit: str


@dataclass(frozen=True)
class Result:
    """Where the demonstration's results are, and its table."""

    lines: tuple[Line, ...]
    volume: Path
    picture: Path


def write_simulated(
    folder: Path,
    *,
    layout: str,
    size: str,
    seed: int = 0,
    photons: float | None = None,
    full_view: bool = False,
) -> Path:
    """Simulate a scan and write it in a raw layout, truth.json beside it; returns the folder of raw data."""
    known = formats.layouts()
    if layout not in known:
        raise BadRecipe(f"no raw layout {layout!r}; {nearest(layout, known)}")
    changes: dict[str, Any] = {} if photons is None else {"photons": photons_of(photons)}
    scan, truth = phantom.simulated_scan(size=size, seed=seed, full_view=full_view, **changes)
    return write_raw(scan, truth, folder, layout=layout)


def write_raw(scan: Scan, truth: dict[str, Any], folder: Path, *, layout: str) -> Path:
    """Write a scan and its truth into a new or empty folder; returns the folder of raw data."""
    unfinished = folder / "unfinished"
    ours = {unfinished, folder / "truth.json"}
    if folder.exists() and not folder.is_dir():
        raise BadRecipe(f"{folder}: is not a folder; choose another place")
    if folder.exists() and any(child not in ours for child in folder.iterdir()):
        raise BadRecipe(f"{folder} is not empty; choose another folder")
    with storing(folder):
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir(parents=True)
        except (FileNotFoundError, NotADirectoryError) as err:
            raise BadRecipe(f"{folder}: no folder can be made there; choose another place") from err
        with (
            progress("simulating", total=count_frames(scan), unit="frames") as bar,
            streamed(scan, bar=bar) as stream,
        ):
            formats.write_scan(unfinished / "scan_00001", stream, layout=layout)
        write_json(folder / "truth.json", truth)
        return unfinished.rename(folder / "raw_data")


def run_demo(folder: Path, *, size: str) -> Result:
    """Simulate a scan in the HEX layout, run it, and compare with the truth.

    The raw data and finished slabs of an earlier, interrupted demonstration are used again.
    """
    scan, truth = phantom.simulated_scan(size=size)
    simulated = folder / "simulated"
    if not (simulated / "raw_data").exists():
        write_raw(scan, truth, simulated, layout="hex1")
    elif (read_json(simulated / "truth.json") or {}).get("shape") != truth["shape"]:
        raise BadRecipe(f"{folder} holds a demonstration of another size; choose another folder")
    recipe = make_recipe(
        {
            "name": "demo",
            "run_folder": "run",
            "raw": {
                "folder": "simulated/raw_data",
                "energy_kev": truth["energy_kev"],
                "pixel_um": truth["pixel_um"],
            },
        },
        base=folder,
    )
    outcome = run(recipe)
    if outcome.failed:
        raise BadScan("; ".join(outcome.failed.values()))
    name = outcome.done[0]
    row = (read_json(recipe.run_folder / "run.json") or {})["scans"][name]["row"]
    path = volume_path(recipe.run_folder, name)
    found = volume.read(path)
    true = true_volume(scan)
    lines = (
        *_axis_lines(row, truth),
        *_material_lines(found, true, truth),
        *_image_lines(found, row, scan, truth),
    )
    picture = folder / "slices.png"
    save_picture(found, true, picture)
    return Result(lines, path, picture)


def true_volume(scan: Scan) -> FloatArray:
    """The simulated sample on the voxels of the volume, cm^-1."""
    frames = scan.frames
    if not isinstance(frames, phantom.SimulatedFrames):
        raise TypeError("only a simulated scan has a true volume")
    return phantom.render(frames.sample, acquisition=frames.acquisition, oversampling=2)


def _axis_lines(row: dict[str, Any], truth: dict[str, Any]) -> Iterator[Line]:
    measured = f"{row['center_px']:.3f} ± {row['center_uncertainty_px']:.3f}"
    yield Line("rotation axis", f"{truth['center_px']:.3f}", measured, "px")


def _material_lines(found: FloatArray, true: FloatArray, truth: dict[str, Any]) -> Iterator[Line]:
    """Median value of each bulk material, three voxels away from anything else."""
    for name in MATERIALS:
        mu = truth["mu_cm1"][name]
        bulk = ndimage.binary_erosion(np.abs(true - mu) < 1e-3, iterations=3) & in_view(true.shape)
        if bulk.any():
            yield Line(f"attenuation of {name}", f"{mu:.3f}", f"{np.median(found[bulk]):.3f}", "cm⁻¹")


def in_view(shape: tuple[int, ...], *, frac: float = 0.9) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Voxels within a fraction of the radius of the field of view: (1, y, x)."""
    width = shape[-1]
    axis = np.arange(width) - (width - 1) / 2
    return (axis[:, None] ** 2 + axis**2 <= (frac * width / 2) ** 2)[None]


def _image_lines(found: FloatArray, row: dict[str, Any], scan: Scan, truth: dict[str, Any]) -> Iterator[Line]:
    frames = scan.frames
    if isinstance(frames, phantom.SimulatedFrames):
        middle = (found.shape[2] - 1) / 2
        places = [
            phantom.expected_noise_cm1(
                frames.sample, acquisition=frames.acquisition, z_px=float(z), y_px=middle, x_px=middle
            )
            for z in rows_across(found.shape[0], SURVEY_ROWS)
        ]
        expected = f"{np.median(places):.3f} (white noise)"
        yield Line("voxel noise", expected, f"{row['noise_cm1']:.3f}", "cm⁻¹")
    blur = truth["blur_fwhm_px"] * truth["pixel_um"]
    yield Line("resolution", f"{blur:.1f} (blur alone)", f"{row['resolution_um']:.1f} (FSC 1/7)", "µm")


def save_picture(found: FloatArray, true: FloatArray, path: Path) -> None:
    """Horizontal and vertical sections, measured above, true below, each pair in one grey range."""
    from matplotlib.figure import Figure

    depth, height, _ = found.shape
    cuts: dict[str, tuple[Any, ...]] = {
        f"slice {int(f * depth)}": (int(f * depth),) for f in (0.06, 0.3, 0.8)
    }
    cuts["vertical"] = (slice(None), height // 2)
    figure = Figure(figsize=(4 * len(cuts), 9), layout="constrained")
    axes = figure.subplots(2, len(cuts))
    for column, (title, cut) in enumerate(cuts.items()):
        low, high = np.percentile(found[cut], [1, 99.7])
        for line, (what, image) in enumerate((("measured", found), ("true", true))):
            axis = axes[line, column]
            shown = axis.imshow(image[cut], cmap="gray", vmin=low, vmax=high)
            axis.set_title(f"{what}, {title}")
            axis.set_axis_off()
        label = "attenuation (cm$^{-1}$)"
        figure.colorbar(shown, ax=list(axes[:, column]), label=label, location="bottom", shrink=0.8)
    with storing(path):
        figure.savefig(path, dpi=110)
