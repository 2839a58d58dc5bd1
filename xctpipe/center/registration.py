"""Axis from opposite projections, each taken from the few frames around its angle."""

import numpy as np

from xctpipe.center.angles import HalfTurns, half_turns, local_weights
from xctpipe.center.antisymmetry import Curves, antisymmetry_curves, octaves
from xctpipe.scan import DoubleArray, FloatArray

MOST_PAIRS = 24
MOST_FRAMES = 64


def registration_curves(
    slab: FloatArray, *, angles_rad: DoubleArray, candidates_px: DoubleArray
) -> Curves | None:
    """Antisymmetry of opposite projections, or None when no half turn can be made of the angles.

    A scan over 180 degrees has one pair, at its seam; of one over 360 up to 24 are used. A projection is a
    straight line fitted over the frames around its angle, as many as detail of the band moves little in;
    where the seam leaves a gap it is extrapolated half-way from both ends, which keeps the error even.

    Parameters
    ----------
    slab : (angle, row, col) line integrals, finite
    angles_rad : ascending
    candidates_px : ascending multiples of half a column
    """
    turns = half_turns(angles_rad, most=MOST_PAIRS)
    # detail at the rim moves this far in the extrapolation; anything finer is compared out of place
    moved_px = turns.outside_rad * slab.shape[2] / 2
    scales = octaves(slab.shape[2], finest_px=max(1.0, moved_px / 0.75))
    if not scales:
        return None

    def difference(scale_px: float) -> DoubleArray:
        return _differences(slab, angles_rad=angles_rad, turns=turns, scale_px=scale_px)

    return antisymmetry_curves(
        difference, method="registration", scales_px=scales, candidates_px=candidates_px
    )


def _differences(
    slab: FloatArray, *, angles_rad: DoubleArray, turns: HalfTurns, scale_px: float
) -> DoubleArray:
    """p(a + pi) - p(a) for every half turn: (pair, row, col)."""
    half_width = slab.shape[2] / 2
    per_frame_px = max(turns.step_rad * half_width, 1e-6)
    count = int(min(MOST_FRAMES, 1 + 1.5 * scale_px // per_frame_px))
    out = np.empty((turns.theta_rad.size, *slab.shape[1:]))
    for i, theta in enumerate(turns.theta_rad):
        start, end = (
            _projection(slab, angles_rad=angles_rad, at_rad=at, count=count) for at in (theta, theta + np.pi)
        )
        out[i] = end - start
    return out


def _projection(slab: FloatArray, *, angles_rad: DoubleArray, at_rad: float, count: int) -> DoubleArray:
    near, weights = local_weights(angles_rad, at_rad, count=count, exact_rad=0.2 / slab.shape[2])
    projection: DoubleArray = np.tensordot(weights, slab[near].astype(np.float64), axes=1)
    return projection
