"""Sizes of simulated series: of the detector, and of what happens in the cell."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xctpipe.errors import BadRecipe
from xctpipe.phantom.cell import default_pixel_um
from xctpipe.phantom.stack import Stack

SCALES = (0.01, 3.0)
"""Smallest and largest cell, in sizes of the real one, which would let almost no light through if larger."""


@dataclass(frozen=True)
class Lengths:
    """Sizes of events: largest opening of the crack while it is empty (P4), and radii of bubbles.

    `bubble` rests while sodium is plated, and is the growing one at first where that grows by charge;
    `grown` is the growing one in its last scan; `new` appears, a `pair` merges, `cut` crosses the rim.
    """

    opening: float
    bubble: float
    grown: float
    new: tuple[float, float, float]
    pair: float
    cut: float


@dataclass(frozen=True)
class Size:
    """One size: projections, rows and columns; events in voxels or, of the real cell, in micrometers."""

    shape: tuple[int, int, int]
    in_voxels: bool
    lengths: Lengths
    n_voids: int
    n_pores: int
    n_specks: int
    pores: tuple[float, float]
    specks: tuple[float, float]
    detector: Mapping[str, Any] = field(default_factory=dict)

    def _unit_mm(self, stack: Stack) -> float:
        return stack.pixel_mm if self.in_voxels else 1e-3 * stack.scale

    def lengths_mm(self, stack: Stack) -> Lengths:
        """Sizes of events in mm."""
        unit, known = self._unit_mm(stack), self.lengths
        return Lengths(
            known.opening * unit,
            known.bubble * unit,
            known.grown * unit,
            (known.new[0] * unit, known.new[1] * unit, known.new[2] * unit),
            known.pair * unit,
            known.cut * unit,
        )

    def inclusion_radii_mm(self, stack: Stack) -> tuple[tuple[float, float], tuple[float, float]]:
        """Smallest and largest half axis of pores, and radius of specks."""
        unit = self._unit_mm(stack)
        return (self.pores[0] * unit, self.pores[1] * unit), (self.specks[0] * unit, self.specks[1] * unit)


def check_scale(pixel_um: float, *, cols: int) -> None:
    """BadRecipe unless pixels of this size show a cell of a size that can be scanned."""
    real_um = default_pixel_um(cols)
    low, high = (scale * real_um for scale in SCALES)
    if not low <= pixel_um <= high:
        raise BadRecipe(
            f"simulate: scale_um = {pixel_um:.10g}; pixels of {real_um:.4g} um show the cell at its "
            f"real size; give {SCALES[0]:g} to {SCALES[1]:g} times that: "
            f"{down_to_digits(1.001 * low):.10g} to {down_to_digits(high):.10g}"
        )


def down_to_digits(value: float, *, digits: int = 4) -> float:
    """A positive limit with few digits that is still allowed: rounded down."""
    unit = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    return math.floor(value / unit) * unit


SIZES: dict[str, Size] = {
    "tiny": Size(
        (181, 64, 96),
        in_voxels=True,
        lengths=Lengths(3, 6, 20, (4, 5, 6), 6, 9),
        n_voids=12,
        n_pores=30,
        n_specks=20,
        pores=(1.2, 3.0),
        specks=(0.8, 1.6),
    ),
    "small": Size(
        (601, 256, 320),
        in_voxels=True,
        lengths=Lengths(3, 12, 20, (4, 6, 8), 8, 14),
        n_voids=60,
        n_pores=400,
        n_specks=150,
        pores=(1.2, 4.0),
        specks=(0.8, 1.6),
    ),
    "release": Size(
        (3001, 3200, 3200),
        in_voxels=False,
        lengths=Lengths(6, 150, 250, (20, 35, 50), 60, 200),
        n_voids=160,
        n_pores=20_000,
        n_specks=2_000,
        pores=(2.0, 6.0),
        specks=(1.0, 4.0),
        detector={"blur_fwhm_px": 1.9, "zingers_per_frame": 5.0},
    ),
}
