"""Full turns about an axis near the edge of the view: two projections make one that is twice as wide.

The axis off the middle, a projection and its opposite show different parts of the sample and overlap
about the axis [1]_. Where both see it, their weights fall smoothly to zero at the edge of the detector
and add to one, so that no seam is left.

References
----------
.. [1] Vo, Atwood, Drakopoulos, Connolley, Opt. Express 29, 17849 (2021), doi:10.1364/OE.418448
"""

import math
from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.compiled import INNER
from xctpipe.correct.threads import in_threads
from xctpipe.errors import BadRecipe
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.steps import View, step

LEAST_TURN_RAD = 0.98 * 2 * np.pi
LEAST_OVERLAP_PX = 4.0


def _check(view: View) -> None:
    n, angles = view.angles_rad.size, view.angles_rad
    step_rad = np.ptp(angles) / max(n - 1, 1)
    if np.ptp(angles) + step_rad < LEAST_TURN_RAD:
        raise BadRecipe(
            f"correct: the angles span {np.degrees(np.ptp(angles)):.4g} deg; joining halves needs "
            "360, leave out 'stitch_360' and 'extend_360'"
        )
    nearest = min(view.center_px, view.n_cols - 1 - view.center_px)
    if 2 * nearest + 1 < LEAST_OVERLAP_PX:
        raise BadRecipe(
            f"correct: the axis at {view.center_px:.1f} px leaves {max(0.0, 2 * nearest + 1):.1f} columns of "
            f"{view.n_cols} that both halves see, {LEAST_OVERLAP_PX:g} are needed; is center.center_px right?"
        )


def _reach(view: View) -> tuple[int, int]:
    """First and last column of the joined projection, counted in columns of the detector."""
    mirrored_first = 2 * view.center_px - (view.n_cols - 1)
    return min(0, math.ceil(mirrored_first)), max(view.n_cols - 1, math.floor(2 * view.center_px))


def _joined(view: View) -> View:
    first, last = _reach(view)
    return replace(
        view, n_cols=last - first + 1, center_px=view.center_px - first, centers_px=view.centers_px - first
    )


def _stitched(view: View) -> View:
    _check(view)
    pairs = _pairs(view.angles_rad)
    return replace(_joined(view), angles_rad=view.angles_rad[pairs.direct])


def _extended(view: View) -> View:
    _check(view)
    return replace(_joined(view), period_rad=2 * np.pi)


@step(view=_stitched)
def stitch_360(slab: FloatArray, *, view: View) -> FloatArray:
    """Join each projection of the first half turn with its opposite into one twice as wide, after [1]_.

    The opposite is interpolated linearly between its two neighbours in angle, so that an odd number of frames
    and uneven steps are no matter, and along the row with four points where the axis lies between columns.
    Ring filters belong behind it: before, what they take away would be mirrored about the axis.

    Parameters
    ----------
    slab : (angle, row, col), transmission, over a full turn.

    Returns
    -------
    (angle, row, col) transmission, half the angles, up to twice the columns.

    Raises
    ------
    BadRecipe
        For less than a full turn, or an axis that leaves no overlap.

    References
    ----------
    .. [1] Vo, Atwood, Drakopoulos, Connolley, Opt. Express 29, 17849 (2021), doi:10.1364/OE.418448
    """
    _check(view)
    pairs = _pairs(view.angles_rad)
    first, last = _reach(view)
    out = np.empty((pairs.direct.size, slab.shape[1], last - first + 1), np.float32)
    slab = np.ascontiguousarray(slab)

    def angles(begin: int, end: int) -> None:
        part = slice(begin, end)
        mixed = pairs.before[part], pairs.after[part], pairs.part[part]
        _join(slab, pairs.direct[part], *mixed, view.centers_px, first, out[part])

    in_threads(angles, pairs.direct.size, block=16)
    return out


@step(view=_extended)
def extend_360(slab: FloatArray, *, view: View) -> FloatArray:
    """Widen each projection of a full turn to the side that its opposite sees, keeping every angle [1]_.

    The line integrals are weighted, none is interpolated: sharper than `stitch_360`, at twice the time and
    memory. A ring filter may stand on either side, but see `stitch_360`.

    Parameters
    ----------
    slab : (angle, row, col), transmission, over a full turn.

    Returns
    -------
    (angle, row, col) transmission to the power of the weights; 1 in columns that are only the opposite's.

    Raises
    ------
    BadRecipe
        For less than a full turn, or an axis that leaves no overlap.

    References
    ----------
    .. [1] Vo, Atwood, Drakopoulos, Connolley, Opt. Express 29, 17849 (2021), doi:10.1364/OE.418448
    """
    _check(view)
    first, last = _reach(view)
    n_angles, n_rows, n_cols = slab.shape
    out = np.ones((n_angles, n_rows, last - first + 1), np.float32)
    weights = np.stack([_weights(center, n_cols=n_cols) for center in view.centers_px])

    def angles(begin: int, end: int) -> None:
        bright = np.maximum(slab[begin:end], np.float32(1e-30))
        out[begin:end, :, -first : n_cols - first] = bright**weights

    in_threads(angles, n_angles, block=16)
    return out


def _weights(center_px: float, *, n_cols: int) -> FloatArray:
    """Weight of a projection in each of its columns; with its mirror image about the axis it adds to one."""
    first, last = max(0.0, 2 * center_px - (n_cols - 1)), min(n_cols - 1.0, 2 * center_px)
    cols = np.arange(n_cols)
    ramp = np.clip((cols - first) / max(last - first, 1e-9), 0, 1)
    smooth = np.sin(0.5 * np.pi * ramp) ** 2
    # zero at the edge of the detector next to the axis
    return np.asarray(1 - smooth if center_px > (n_cols - 1) / 2 else smooth, np.float32)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Frames of the first half turn, and the two that each opposite lies between."""

    direct: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    part: FloatArray


def _pairs(angles_rad: DoubleArray) -> _Pairs:
    order = np.argsort(angles_rad, kind="stable")
    ordered = angles_rad[order]
    step_rad = np.ptp(ordered) / (ordered.size - 1)
    # half a step of slack: an opposite that is there but for rounding makes the pair, not one beyond it
    n_direct = int(np.searchsorted(ordered, ordered[0] + np.pi - 0.25 * step_rad))
    wanted = ordered[:n_direct] + np.pi
    circle = np.append(ordered, ordered[0] + 2 * np.pi)
    index = np.append(order, order[0])
    after = np.clip(np.searchsorted(circle, wanted), 1, circle.size - 1)
    gap = circle[after] - circle[after - 1]
    part = np.clip((wanted - circle[after - 1]) / np.where(gap > 0, gap, 1.0), 0, 1)
    return _Pairs(order[:n_direct], index[after - 1], index[after], part.astype(np.float32))


@numba.njit(cache=True, nogil=True)
def _join(slab, direct, before, after, part, centers, first, out):  # type: ignore[no-untyped-def]
    n_cols = slab.shape[2]
    for i in range(direct.size):
        for row in range(slab.shape[1]):
            center = centers[row]
            low = max(0.0, 2 * center - (n_cols - 1))
            high = min(n_cols - 1.0, 2 * center)
            right = center > 0.5 * (n_cols - 1)
            mine = slab[direct[i], row]
            for j in range(out.shape[2]):
                col = j + first
                ramp = min(max((col - low) / (high - low), 0.0), 1.0)
                weight = np.sin(0.5 * np.pi * ramp) ** 2
                weight = 1.0 - weight if right else weight
                value = 0.0
                if weight > 0:
                    value += weight * mine[min(max(col, 0), n_cols - 1)]
                if weight < 1:
                    at = 2 * center - col
                    opposite = (1 - part[i]) * _at(slab[before[i], row], at)
                    opposite += part[i] * _at(slab[after[i], row], at)
                    value += (1 - weight) * opposite
                out[i, row, j] = value


@numba.njit(**INNER)
def _at(line, position):  # type: ignore[no-untyped-def]
    """Value between columns by the cubic through the four nearest; the outermost go on beyond the ends."""
    n = line.size
    position = min(max(position, 0.0), n - 1.0)
    k = min(int(position), n - 2)
    t = position - k
    a, b, c, d = line[max(k - 1, 0)], line[k], line[k + 1], line[min(k + 2, n - 1)]
    return (
        -t * (t - 1) * (t - 2) / 6 * a
        + (t + 1) * (t - 1) * (t - 2) / 2 * b
        - (t + 1) * t * (t - 2) / 2 * c
        + (t + 1) * t * (t - 1) / 6 * d
    )
