"""The simulated cell on disk: raw scans of a series with truth, cycler's file, recipe and contact sheet."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xctpipe import contact_sheet, formats, simulated_truth, simulation, spans
from xctpipe.errors import BadRecipe
from xctpipe.phantom.series import build_series

_NAMED_ALIKE = (
    "photons",
    "distance_mm",
    "crack_opening_um",
    "bubble_radius_um",
    "scale_um",
    "rows",
    "seed",
)
_OPTIONS = {name: f"--{name.replace('_', '-')}" for name in _NAMED_ALIKE} | {"n_angles": "--angles"}


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

    def options(self) -> dict[str, Any]:
        """What was asked for, by the names of the options."""
        return {_OPTIONS[name]: value for name, value in self._asked().items()}

    def changes(self) -> dict[str, Any]:
        """What to tell `build_series`; BadRecipe where a number of photons is not possible."""
        found = {name: value for name, value in self._asked().items() if value is not None}
        if self.photons is None:
            return found
        return {**found, "photons": simulation.photons_of(self.photons)}

    def _asked(self) -> dict[str, Any]:
        return {
            "photons": self.photons,
            "distance_mm": self.distance_mm,
            "crack_opening_um": self.crack_opening_um,
            "bubble_radius_um": self.bubble_radius_um,
            "scale_um": self.scale_um,
            "rows": self.shape.rows,
            "n_angles": self.shape.angles,
        }


@contextmanager
def _in_options() -> Iterator[None]:
    """Tell of a wrong wish by the name of its option."""
    try:
        yield
    except BadRecipe as err:
        text = str(err).removeprefix("simulate: ")
        # a name beside its value or alone, not a word of a sentence: 24 rows
        for name, option in _OPTIONS.items():
            text = re.sub(rf"\b{name} =" if name.isalpha() else rf"\b{name}\b(?: =)?", option, text)
        raise BadRecipe(text) from err


def write(folder: Path, wish: Wish, *, series: str, size: str, seed: int, layout: str) -> Iterator[str]:
    """Write a series and all that belongs to it; gives lines that say what is where.

    Raises
    ------
    BadRecipe : a wish is not allowed, or the folder or the disk cannot take it.
    """
    span = spans.parse_span(wish.shape.scans, option="--scans") if wish.shape.scans else None
    with _in_options():
        made = build_series(series, size=size, seed=seed, **wish.changes())
        written = simulation.scans_of(made, layout=layout, scans=span)
    raw = simulation.write_series(folder, made, layout=layout, scans=span, options=wish.options())
    yield f"{raw}: {len(written)} scan(s) of the series {made.kind}, darks and flats before and after all"
    simulated_truth.write_truth(folder, made, scans=written)
    simulated_truth.write_cycler(folder, made)
    yield f"{folder / 'truth.json'}: what was put in; tables, and what they hold, in {folder / 'truth'}"
    found = [each for each in formats.find_scans(raw) if each.holds == "projections"]
    scans = [formats.open_scan(each.path, look_at_frames=False) for each in found]
    picture = folder / "contact_sheet.png"
    contact_sheet.save(picture, made, indices=list(written), scans=scans)
    yield f"{picture}: truth and raw data side by side"
    recipe = simulated_truth.write_recipe(folder, made, scans=[each.name for each in found], layout=layout)
    yield f"next: xctpipe run {shlex.quote(str(recipe))}"
