"""What every backend is told about a scan: angles with their weights, axis, pixel size."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xctpipe.errors import BadRecipe, BadScan
from xctpipe.scan import DoubleArray

GAP_FACTOR = 5.0
"""A gap wider than this many typical steps is a missing wedge, not a step."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Parallel-beam geometry of a slab.

    Attributes
    ----------
    angles_rad : (angle,), as measured.
    weights_rad : (angle,), the share of each projection in the integral over half a turn.
    centers_px : (row,), detector column of the axis.
    pixel_um : pixel size at the sample.
    """

    angles_rad: DoubleArray
    weights_rad: DoubleArray
    centers_px: DoubleArray
    pixel_um: float

    @property
    def pixel_cm(self) -> float:
        """Pixel size in centimetres."""
        return self.pixel_um * 1e-4


def geometry_of(
    shape: tuple[int, ...], *, angles_rad: ArrayLike, center_px: ArrayLike, pixel_um: float
) -> Geometry:
    """Check the geometry against a slab of this shape (angle, row, col); BadRecipe when they disagree."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"a slab is (angle, row, col) with no empty axis, not of shape {shape}")
    if shape[0] < 2:
        raise BadScan("reconstruct: 1 projection is no tomogram; at least 2 angles are needed")
    angles = np.array(angles_rad, np.float64)
    if angles.shape != shape[:1]:
        raise BadRecipe(
            f"reconstruct: {angles.size} angles for {shape[0]} projections; give one angle per projection"
        )
    centers = np.array(np.broadcast_to(np.asarray(center_px, np.float64), shape[1:2]))
    for name, values in (("angles", angles), ("center_px", centers), ("pixel_um", np.asarray(pixel_um))):
        if not np.all(np.isfinite(values)):
            raise BadRecipe(f"reconstruct: {name} must be finite numbers")
    if pixel_um <= 0:
        raise BadRecipe(f"reconstruct: pixel_um = {pixel_um} must be above zero")
    if not np.all((centers > -shape[2]) & (centers < 2 * shape[2])):
        raise BadRecipe(
            f"reconstruct: center_px from {centers.min():g} to {centers.max():g} is far outside the detector "
            f"(columns 0 to {shape[2] - 1}); check [center]"
        )
    return Geometry(angles, angular_weights(angles), centers, float(pixel_um))


def angular_weights(angles_rad: ArrayLike, *, period_rad: float = np.pi) -> DoubleArray:
    """Trapezoidal weights of projections over half a turn: (angle,), in radians.

    A projection and its opposite hold the same integrals, so angles count modulo pi: each gets half of the
    gap to either neighbour on that circle, and the weights sum to pi. Projections that coincide share.
    A gap wider than `GAP_FACTOR` typical steps is a missing wedge and is not bridged: its two neighbours
    get half a typical step for it. The typical step is the ninth decile of the gaps rather than their
    median, because where a full turn sees every direction twice each second gap is nearly zero.
    With a period of 2 pi, for projections that share their view with the opposite, they sum to that.
    """
    angles = np.mod(np.asarray(angles_rad, np.float64), period_rad)
    order = np.argsort(angles, kind="stable")
    ordered = angles[order]
    gaps = np.diff(ordered, append=ordered[:1] + period_rad)
    step = float(np.quantile(gaps, 0.9, method="lower"))
    if gaps.size > 2 and step > 0:
        gaps = np.where(gaps > GAP_FACTOR * step, step, gaps)
    weights = np.empty_like(angles)
    weights[order] = 0.5 * (gaps + np.roll(gaps, 1))
    return weights


def inside_circle(n_cols: int) -> NDArray[np.bool_]:
    """Pixels that are reconstructed: (x - (W-1)/2)^2 + (y - (W-1)/2)^2 <= (W/2)^2, as (y, x)."""
    offset_px = np.arange(n_cols) - (n_cols - 1) / 2
    return np.asarray(offset_px[:, None] ** 2 + offset_px**2 <= (n_cols / 2) ** 2)
