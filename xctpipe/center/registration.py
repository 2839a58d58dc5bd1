"""Axis from opposite projections, each taken from the few frames around its angle."""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.center.angles import HalfTurns, half_turns, local_weights
from xctpipe.center.antisymmetry import Curves, antisymmetry_curves, binned, octaves
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
    """p(a + pi) - p(a) of half turns, from frames at ascending `angles_rad`.

    `lines` (frame, row, col) are the frames; `order` says which of them is the next in angle. Rows of a group
    count as pairs of their own. They are not averaged: what the beam did between the ends of the scan is
    alike in neighbouring rows.
    """

    lines: FloatArray
    order: NDArray[np.intp]
    angles_rad: DoubleArray
    turns: HalfTurns
    groups: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of pairs, groups and columns."""
        return self.turns.theta_rad.size * self.rows_in_group, self.groups, self.lines.shape[2]

    @property
    def rows_in_group(self) -> int:
        """Rows that count as pairs of one."""
        return int(self.lines.shape[1]) // self.groups

    @property
    def least_bin_px(self) -> int:
        """Columns are as they were measured."""
        return 1

    @property
    def finest_px(self) -> float:
        """Finest detail fit to compare: at the rim it moves no further than that in the extrapolation."""
        moved_px = self.turns.outside_rad * self.lines.shape[2] / 2
        return float(max(1.0, moved_px / 0.75))

    def of_row(self, row: int, *, scale_px: float, by_px: int) -> FloatArray:
        """Of one group, fit for detail of a scale: (pair, column binned by `by_px`)."""
        first, n_rows = row * self.rows_in_group, self.rows_in_group
        out = [
            _weighted(self.lines, *self._weights(theta, scale_px=scale_px), first, first + n_rows)
            for theta in self.turns.theta_rad
        ]
        return binned(np.concatenate(out), by=by_px)

    def _weights(self, theta_rad: float, *, scale_px: float) -> tuple[NDArray[np.intp], FloatArray]:
        """Frames and weights that make the difference of the projections at an angle and half a turn on."""
        n_cols = self.lines.shape[2]
        per_frame_px = max(self.turns.step_rad * n_cols / 2, 1e-6)
        count = int(min(MOST_FRAMES, 1 + 1.5 * scale_px // per_frame_px))
        ends = [
            local_weights(self.angles_rad, at, count=count, exact_rad=0.2 / n_cols)
            for at in (theta_rad, theta_rad + np.pi)
        ]
        near = np.concatenate([frames for frames, _ in ends])
        weights = np.concatenate([-ends[0][1], ends[1][1]]).astype(np.float32)
        return self.order[near], weights


def slab_differences(slab: FloatArray, *, angles_rad: DoubleArray) -> Differences:
    """Of the few rows of which every frame is there; ascending `angles_rad`.

    A scan over 180 degrees has one pair, at its seam; of one over 360 up to 24 are used. A projection is a
    straight line fitted over the frames around its angle, as many as detail of the band moves little in;
    where the seam leaves a gap it is extrapolated half-way from both ends, which keeps the error even.
    """
    turns = half_turns(angles_rad, most=MOST_PAIRS)
    return Differences(slab, np.arange(len(slab)), angles_rad, turns, slab.shape[1])


def opposites_differences(opposites: Opposites, *, pairs: int) -> Differences:
    """Of groups of many rows."""
    turns = half_turns(np.sort(opposites.angles_rad), most=pairs)
    angles = opposites.angles_rad[opposites.frames]
    order = np.argsort(angles, kind="stable")
    lines = np.ascontiguousarray(opposites.lines, np.float32)
    return Differences(lines, order, angles[order], turns, opposites.groups)


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
        differences, method="registration", scales_px=scales, candidates_px=candidates_px
    )


@numba.njit(cache=True, nogil=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def _weighted(
    lines: FloatArray, frames: NDArray[np.intp], weights: FloatArray, first_row: int, last_row: int
) -> FloatArray:
    """Weighted sum of frames: (row, col)."""
    out = np.zeros((last_row - first_row, lines.shape[2]), np.float32)
    for r in range(out.shape[0]):
        total = out[r]
        for f in range(frames.size):
            line, weight = lines[frames[f], first_row + r], weights[f]
            for j in range(total.size):
                total[j] += weight * line[j]
    return out
