"""A rigid move from points that two scans have in common: pores and inclusions as fiducials.

Which point of one scan is which of the other is not known, and some are in one of them only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from xctpipe.scan import DoubleArray
from xctpipe.series.rigid import Rigid

LEAST = 4
"""Points that must agree before a move is believed."""
_MOST = 1500
_CLEAR = 1.3
_SHARE = 0.15
_ROUNDS = 12
_TUKEY = 4.685
_FOR_TURNS = 6
_ALIKE = 2.0


@dataclass(frozen=True, eq=False)
class Points:
    """Fiducials of one scan."""

    at_um: DoubleArray
    """(n, 3) positions (z, y, x)."""
    kinds: tuple[str, ...]
    """Only points of the same kind can be the same."""
    size_um: DoubleArray
    """(n,) diameters; those of the same point are alike."""

    def part(self, chosen: NDArray[np.intp]) -> "Points":
        """Some of them, by number."""
        return Points(self.at_um[chosen], tuple(self.kinds[i] for i in chosen), self.size_um[chosen])


@dataclass(frozen=True, eq=False)
class Matched:
    """A move, and the points that agree with it."""

    move: Rigid
    pairs: NDArray[np.intp]
    """(n, 2) numbers of points in the first scan and in the later one."""
    scatter_um: float
    """Robust standard deviation of one coordinate of the later points about where the move puts them."""

    @property
    def error_um(self) -> float:
        """Root mean square error of the move where the points are, 1 sigma: six numbers from 3 n."""
        return float(np.sqrt(6 / len(self.pairs)) * self.scatter_um)


def match_points(first: Points, later: Points, *, reach_um: float, tolerance_um: float) -> Matched | None:
    """Find the rigid move that brings most points of one scan onto points of another.

    The shift with most votes among all pairs of alike points, then a fit to mutual nearest neighbours that
    few wrong pairs cannot pull away.

    Parameters
    ----------
    reach_um : largest shift along each axis that is looked for, > 0.
    tolerance_um : how far the right shift may differ from point to point before turns are known, > 0.

    Returns
    -------
    None where no shift gets clearly more votes than others.
    """
    ours, theirs = (each.part(np.argsort(-each.size_um, kind="stable")[:_MOST]) for each in (first, later))
    shift = _voted(ours, theirs, reach_um=reach_um, tolerance_um=tolerance_um)
    if shift is None:
        return None
    start = Rigid(shift_um=(float(shift[0]), float(shift[1]), float(shift[2])))
    return _settled(first, later, start, tolerance_um=tolerance_um)


def _voted(first: Points, later: Points, *, reach_um: float, tolerance_um: float) -> DoubleArray | None:
    """The shift that most pairs of alike points agree on."""
    same = np.array(first.kinds)[:, None] == np.array(later.kinds)[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = first.size_um[:, None] / later.size_um[None]
    # diameters: within a factor of _ALIKE in volume, thereabouts
    same &= np.abs(np.log(np.maximum(ratio, 1e-9))) < np.log(_ALIKE) / 2
    i, j = np.nonzero(same)
    shifts = later.at_um[j] - first.at_um[i]
    shifts = shifts[(np.abs(shifts) <= reach_um).all(axis=1)]
    if len(shifts) < LEAST:
        return None
    tree = KDTree(shifts)
    votes = tree.query_ball_point(shifts, tolerance_um, return_length=True)
    best = int(np.argmax(votes))
    far = np.linalg.norm(shifts - shifts[best], axis=1) > 3 * tolerance_um
    other = int(votes[far].max()) if far.any() else 0
    if votes[best] < max(LEAST, _CLEAR * other, _SHARE * min(len(first.at_um), len(later.at_um))):
        return None
    return np.asarray(np.median(shifts[tree.query_ball_point(shifts[best], tolerance_um)], axis=0))


def _settled(first: Points, later: Points, move: Rigid, *, tolerance_um: float) -> Matched | None:
    tree, kinds, theirs = KDTree(later.at_um), np.array(first.kinds), np.array(later.kinds)
    near, scatter = 1.5 * tolerance_um, tolerance_um
    pairs = np.empty((0, 2), np.intp)
    for _ in range(_ROUNDS):
        away, j = tree.query(move(first.at_um), distance_upper_bound=near)
        found = np.flatnonzero(np.isfinite(away))
        found = found[kinds[found] == theirs[j[found]]]
        # of several that fall on one point the nearest
        found = found[np.argsort(away[found], kind="stable")]
        _, unique = np.unique(j[found], return_index=True)
        found = np.sort(found[unique])
        if len(found) < LEAST:
            return None
        pairs = np.stack([found, j[found]], axis=1)
        move = fit_rigid(first.at_um[pairs[:, 0]], later.at_um[pairs[:, 1]])
        off = later.at_um[pairs[:, 1]] - move(first.at_um[pairs[:, 0]])
        scatter = float(1.4826 * np.median(np.abs(off)))
        near = max(min(near, 5 * scatter), 0.3 * tolerance_um)
    return Matched(move, pairs, scatter)


def fit_rigid(first_um: DoubleArray, later_um: DoubleArray) -> Rigid:
    """The rigid move of paired points, by Tukey's biweight; a shift alone where they are few.

    Parameters
    ----------
    first_um, later_um : (n, 3), n > 0.

    References
    ----------
    Kabsch, Acta Cryst. A 32 (1976) 922, doi 10.1107/S0567739476001873; Beaton and Tukey, Technometrics 16
    (1974) 147, doi 10.1080/00401706.1974.10489171 (biweight).
    """
    first, later = np.asarray(first_um, np.float64), np.asarray(later_um, np.float64)
    weight = np.ones(len(first))
    move = Rigid()
    for _ in range(_ROUNDS):
        move = _weighted(first, later, weight)
        away = np.linalg.norm(later - move(first), axis=1)
        spread = max(float(np.median(away)) / 1.538, 1e-6)
        weight = np.clip(1 - (away / (_TUKEY * spread)) ** 2, 1e-9, None) ** 2
    return move


def _weighted(first: DoubleArray, later: DoubleArray, weight: DoubleArray) -> Rigid:
    a, b = (np.average(each, axis=0, weights=weight) for each in (first, later))
    if len(first) < _FOR_TURNS:
        turn = np.zeros(3)
    else:
        # as (x, y, z), in which the turn has the usual sense
        found = Rotation.align_vectors((later - b)[:, ::-1], (first - a)[:, ::-1], weights=weight)[0]
        turn = found.as_rotvec()[::-1]
    still = Rigid((float(turn[0]), float(turn[1]), float(turn[2])))
    s = b - still(a)
    return Rigid(still.turn_rad, (float(s[0]), float(s[1]), float(s[2])))
