"""The simulated cell on disk: raw scans of a series with truth, cycler's file, recipe and contact sheet."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xctpipe import contact_sheet, formats, simulated_truth, simulation, spans
from xctpipe.phantom.series import build_series


@dataclass(frozen=True)
class Shape:
    """How much of a size is wanted: detector rows, projections, and time steps `A:B`."""

    rows: int | None = None
    angles: int | None = None
    scans: str | None = None


@dataclass(frozen=True)
class Wish:
    """What is to differ from the series as its size has it; None: as it is. 0 photons: no noise."""

    photons: float | None = None
    distance_mm: float | None = None
    crack_opening_um: float | None = None
    bubble_radius_um: float | None = None
    scale_um: float | None = None
    shape: Shape = Shape()

    def changes(self) -> dict[str, Any]:
        """What to tell `build_series`."""
        found: dict[str, Any] = {
            "distance_mm": self.distance_mm,
            "crack_opening_um": self.crack_opening_um,
            "bubble_radius_um": self.bubble_radius_um,
            "scale_um": self.scale_um,
            "rows": self.shape.rows,
            "n_angles": self.shape.angles,
        }
        found = {key: value for key, value in found.items() if value is not None}
        return found if self.photons is None else {**found, "photons": self.photons or None}


def write(folder: Path, wish: Wish, *, series: str, size: str, seed: int, layout: str) -> Iterator[str]:
    """Write a series and all that belongs to it; gives lines that say what is where.

    Raises
    ------
    BadRecipe : a wish is not allowed, or the folder or the disk cannot take it.
    """
    span = spans.parse_span(wish.shape.scans, option="--scans") if wish.shape.scans else None
    made = build_series(series, size=size, seed=seed, **wish.changes())
    raw = simulation.write_series(folder, made, layout=layout, scans=span)
    written = simulation.scans_of(made, layout=layout, scans=span)
    yield f"{raw}: {len(written)} scan(s) of the series {made.kind}, darks and flats before and after all"
    simulated_truth.write_truth(folder, made, scans=written)
    simulated_truth.write_cycler(folder, made)
    yield f"{folder / 'truth.json'}: what was put in; as tables in {folder / 'truth'}"
    found = [each for each in formats.find_scans(raw) if each.holds == "projections"]
    scans = [formats.open_scan(each.path, look_at_frames=False) for each in found]
    picture = folder / "contact_sheet.png"
    contact_sheet.save(picture, made, indices=list(written), scans=scans)
    yield f"{picture}: truth and raw data side by side"
    recipe = simulated_truth.write_recipe(folder, made, scans=[each.name for each in found])
    yield f"next: xctpipe run {shlex.quote(str(recipe))}"
