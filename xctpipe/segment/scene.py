"""What a volume shows: its view, its layers, their grey levels and their noise, as frozen values.

Lengths are in voxels of the volume that is worked on, heights z are indices along its first axis, grey
values are in cm^-1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from xctpipe.scan import DoubleArray, FloatArray

OUTSIDE, SOLID, LIQUID, COLLECTOR, COUNTER = 0, 1, 2, 3, 4
"""Hosts of voxels: beyond the view, NASICON, NaK, current collector, counter electrode and what is behind."""

INTERFACE, COUNTER_FACE, COLLECTOR_FACE = "interface", "counter", "collector"
"""Names of surfaces: NaK/NASICON, NASICON/counter electrode, NaK/collector."""

Up = Literal["nak", "na"]


@dataclass(frozen=True, eq=False)
class Surface:
    """A face between two layers.

    `height_px` (y, x) is the face as imaged, NaN beyond the view; it follows chips. The undeformed
    `reference` is z = c[0] + c[1] (y - y_axis) + c[2] (x - x_axis).
    """

    height_px: FloatArray
    reference: DoubleArray
    sigma_px: float
    """Standard error of the height of one column."""
    reference_sigma_px: float
    """Standard error of the reference where it is known worst."""
    used_px: FloatArray | None = None
    """(y, x) height at which the step is drawn: the reference, or as imaged where a chip stands out."""


@dataclass(frozen=True, eq=False)
class Level:
    """Grey level of a layer: that of its material plus an offset that an interior scan leaves.

    The offset is that at `radii_px` from the axis, in between by interpolation, constant beyond the ends.
    """

    mu_cm1: float
    """Of the material, from tables: what a void misses."""
    radii_px: DoubleArray
    offset_cm1: DoubleArray
    noise_cm1: float
    """Standard deviation of single voxels."""
    noise_edges_px: DoubleArray = field(default_factory=lambda: np.array([1.0]))
    noise_of_means_cm1: DoubleArray = field(default_factory=lambda: np.array([np.nan]))
    """Standard deviation of means over cubes of these edges, measured: noise is not white."""
    lean_cm1: DoubleArray | None = None
    """(2, radius) first harmonic of the offset: amplitudes along y and x, for a cell beside the axis."""
    seen_frac: float = 1.0
    """Share of the view in which the layer itself shows between its voids."""
    dark_frac: float = 0.0
    """Share of the layer's attenuation that is missing in dark places of it."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that detection and measures must know of a volume."""

    shape: tuple[int, int, int]
    voxel_um: float
    axis_px: tuple[float, float]
    """(y, x) of the axis of rotation."""
    view_px: float
    """Radius of the view that all angles see."""
    up: Up | None
    """Which electrode lies at low z; None where neither is in view."""
    surfaces: Mapping[str, Surface]
    """By name; a face that is not in view is absent."""
    solid: Level | None
    liquid: Level | None
    blur_px: float
    """Standard deviation of the Gaussian that edges are blurred by."""
    other_cm1: Mapping[int, float] = field(default_factory=dict)
    """Measured grey level of the hosts that are neither NASICON nor NaK."""
    notes: tuple[str, ...] = ()
    """What was found, what was not, and what was assumed, for the record."""
    path_cm: float = 0.0
    """Mean way of the rays through the layers: rows average brightness, not attenuation (`edge.py`)."""
    edge_parts: int = 1
    """Parts of a row within each of which attenuation is averaged (`edge.py`)."""
    other_levels: Mapping[int, Level] = field(default_factory=dict)
    """Levels of the hosts that are neither NASICON nor NaK; their `mu_cm1` are from tables too."""
    tail_fracs: Mapping[str, float] = field(default_factory=dict)
    """By face, the share of its step that phase retrieval left blurred (`tails.py`)."""
    tail_px: float = 0.0
    """Length over which it did, 0 without retrieval."""

    @property
    def side(self) -> int:
        """1 where NASICON lies at higher z than NaK, -1 where it is the other way round."""
        return -1 if self.up == "na" else 1
