"""Axis from opposite projections, each taken from the few frames around its angle."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xctpipe.center.angles import HalfTurns, half_turns, local_weights
from xctpipe.center.antisymmetry import Curves, antisymmetry_curves, octaves
from xctpipe.scan import DoubleArray, FloatArray

MOST_PAIRS = 24
MOST_FRAMES = 64


@dataclass(frozen=True, eq=False)
class Opposites:
    """Frames around the ends of a few half turns, of many more rows than fit where every frame is needed.

    `lines` are line integrals (frame, row, col) of the frames that `opposite_frames` names, `rows` their
    detector rows, `angles_rad` the angles of all frames. Neighbouring rows form `groups` of equal size.
    """

    lines: FloatArray
    frames: NDArray[np.intp]
    rows: DoubleArray
    angles_rad: DoubleArray
    groups: int


def opposite_frames(angles_rad: DoubleArray, *, pairs: int, per_end: int) -> NDArray[np.intp]:
    """Frames nearest to the ends of up to `pairs` half turns, `per_end` of them each; ascending."""
    order = np.argsort(angles_rad, kind="stable")
    turns = half_turns(angles_rad[order], most=pairs)
    ends = np.concatenate([turns.theta_rad, turns.theta_rad + np.pi])
    near = [np.argsort(np.abs(angles_rad - end), kind="stable")[:per_end] for end in ends]
    return np.unique(np.concatenate(near))


@dataclass(frozen=True, eq=False)
class Differences:
    """p(a + pi) - p(a) of half turns, whose `lines` (frame, row, col) are ascending in `angles_rad`."""

    lines: FloatArray
    angles_rad: DoubleArray
    turns: HalfTurns
    groups: int

    @property
    def finest_px(self) -> float:
        """Finest detail fit to compare: at the rim it moves no further than that in the extrapolation."""
        moved_px = self.turns.outside_rad * self.lines.shape[2] / 2
        return float(max(1.0, moved_px / 0.75))

    def at(self, scale_px: float) -> DoubleArray:
        """Fit for detail of a scale: (pair, group, col)."""
        out = _differences(self.lines, angles_rad=self.angles_rad, turns=self.turns, scale_px=scale_px)
        return _pooled(out, groups=self.groups)


def slab_differences(slab: FloatArray, *, angles_rad: DoubleArray) -> Differences:
    """Of the few rows of which every frame is there; ascending `angles_rad`.

    A scan over 180 degrees has one pair, at its seam; of one over 360 up to 24 are used. A projection is a
    straight line fitted over the frames around its angle, as many as detail of the band moves little in;
    where the seam leaves a gap it is extrapolated half-way from both ends, which keeps the error even.
    """
    return Differences(slab, angles_rad, half_turns(angles_rad, most=MOST_PAIRS), slab.shape[1])


def opposites_differences(opposites: Opposites, *, pairs: int) -> Differences:
    """Of groups of many rows."""
    order = np.argsort(opposites.angles_rad, kind="stable")
    turns = half_turns(opposites.angles_rad[order], most=pairs)
    angles = opposites.angles_rad[opposites.frames]
    sorted_frames = np.argsort(angles, kind="stable")
    return Differences(opposites.lines[sorted_frames], angles[sorted_frames], turns, opposites.groups)


def registration_curves(differences: Differences, *, candidates_px: DoubleArray) -> Curves | None:
    """Antisymmetry of opposite projections, or None when the view or the seam leaves no band to compare.

    Parameters
    ----------
    candidates_px : ascending multiples of half a column
    """
    scales = octaves(differences.lines.shape[2], finest_px=differences.finest_px)
    if not scales:
        return None
    return antisymmetry_curves(
        differences.at, method="registration", scales_px=scales, candidates_px=candidates_px
    )


def _pooled(difference: DoubleArray, *, groups: int) -> DoubleArray:
    """Rows of a group as pairs: (pair, group, col).

    They are not averaged: what the beam did between the ends of the scan is alike in neighbouring rows.
    """
    n_pairs, n_rows, n_cols = difference.shape
    split = difference.reshape(n_pairs, groups, n_rows // groups, n_cols)
    return np.asarray(np.moveaxis(split, 2, 1).reshape(-1, groups, n_cols))


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
