"""What a simulated cell really holds, as labels on the grid of a run and as tables, for a comparison.

The folder that `xctpipe simulate cell` wrote says how its series was made; the series is built again, and its
labels are rendered a few rows at a time. That it is the same series is checked against the tables of the
folder.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.csvtables import Row, read_table
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.phantom.labels import Grid, label_slabs
from xctpipe.phantom.series import Series, build_series
from xctpipe.phantom.tables import tables_of
from xctpipe.phantom.timeline import TimeStep
from xctpipe.runfolder import read_json
from xctpipe.scan import Span

TRUTH, TABLES = "truth.json", "truth"
_CLOSE = 1e-6
_LENGTHS = ("crack_opening_um", "bubble_radius_um")
# what an acquisition says of where things are
_PLACES = ("rows", "cols", "n_angles", "center_px", "tilt_deg")


def is_cell(path: Path) -> bool:
    """Whether a folder is one that `xctpipe simulate cell` wrote."""
    return (path / TRUTH).is_file() and (path / TABLES).is_dir()


@dataclass(frozen=True)
class Cell:
    """A simulated series: its time steps by name of the scan, and the tables of its truth."""

    path: Path
    steps: Mapping[str, TimeStep]
    tables: Mapping[str, list[Row]]


def open_cell(path: Path) -> Cell:
    """The series of a folder that `xctpipe simulate cell` wrote.

    Raises
    ------
    BadRecipe
        If there is none.
    BadScan
        If this version makes another series from its settings.
    """
    truth = read_json(path / TRUTH)
    if truth is None or "series" not in truth or "steps" not in truth:
        raise BadRecipe(
            f"{path}: no {TRUTH} of a simulated series; give a folder that `xctpipe simulate cell` wrote"
        )
    tables = {file.stem: read_table(file) for file in sorted((path / TABLES).glob("*.csv"))}
    if "objects" not in tables:
        raise BadRecipe(f"{path / TABLES}: no objects.csv; simulate the cell again")
    series = _again(path, truth, tables["objects"])
    by_name = {step.name: step for step in series.steps}
    steps = {scan: by_name[name] for scan, name in truth["steps"].items() if name in by_name}
    return Cell(path, steps, tables)


def _again(path: Path, truth: Mapping[str, Any], objects: Sequence[Row]) -> Series:
    """The series as it was made; lengths that were asked for are not told from those that were not."""
    given = [name for name in _LENGTHS if truth.get(name) is not None]
    places = truth["scans"][0]["acquisition"]
    options = {name: places[name] for name in _PLACES if name in places}
    options |= {name: truth[name] for name in ("energy_kev", "eta_frac") if name in truth}
    for chosen in product((False, True), repeat=len(given)):
        lengths = {name: truth[name] for name, taken in zip(given, chosen, strict=True) if taken}
        try:
            series = build_series(
                truth["series"],
                size=truth["size"],
                seed=truth["seed"],
                scale_um=truth["pixel_um"],
                **options,
                **lengths,
            )
        except BadRecipe:
            continue
        if _same(series, objects, names=truth["steps"]):
            return series
    raise BadScan(
        f"{path}: this version of xctpipe makes another cell from the same settings, so that its labels are "
        "not known; simulate the cell again"
    )


def _same(series: Series, objects: Sequence[Row], *, names: Mapping[str, str]) -> bool:
    scans = {name: scan for scan, name in names.items()}
    made = {
        (scans.get(row["scan"]), row["object"]): row
        for row in tables_of(series)["objects"]
        if row["scan"] in scans
    }
    written = [row for row in objects if row["scan"] in names]
    columns = ("volume_um3", "z_um", "y_um", "x_um")
    return len(written) == sum(key[0] in {r["scan"] for r in written} for key in made) and all(
        (row["scan"], row["object"]) in made
        and all(
            math.isclose(made[row["scan"], row["object"]][c], row[c], rel_tol=_CLOSE, abs_tol=_CLOSE)
            for c in columns
        )
        for row in written
    )


def true_slabs(
    step: TimeStep,
    *,
    shape: tuple[int, int, int],
    voxel_um: float,
    first_row: float,
    origin_px: tuple[float, float] | None = None,
    spans: Sequence[Span],
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32]]]:
    """True phases and objects of spans of rows of a volume, one span at a time.

    Parameters
    ----------
    shape, voxel_um : of the volume, (z, y, x).
    first_row : of the volume, in its voxels, below the upper edge of detector row 0.
    origin_px : (y, x) of the axis of rotation; absent: the middle.
    """
    grid = Grid(shape, voxel_um, first_row, origin_px)
    for first, last in spans:
        (slab,) = label_slabs(step, grid=grid, rows=(first, last), slab_rows=last - first)
        yield slab.phases, slab.objects
