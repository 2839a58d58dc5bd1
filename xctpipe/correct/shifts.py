"""Frames moved back to where they should be: jitter and drift of the sample against the detector."""

from typing import Annotated

import numba
import numpy as np
from annotated_types import Ge, Le

from xctpipe.compiled import INNER
from xctpipe.correct.threads import in_threads
from xctpipe.errors import BadScan
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.steps import step

_SUPPORT_ROWS = 2
"""Neighbours on each side that cubic convolution reads."""


def _halo(*, most_px: int) -> int:
    return most_px + _SUPPORT_ROWS


@step(halo=_halo, moves=True)
def frame_shifts(
    slab: FloatArray,
    *,
    most_px: Annotated[int, Ge(1), Le(64)] = 8,
    shifts_px: DoubleArray,
) -> FloatArray:
    """Move each frame back by how far it lies from where it should, by cubic convolution [1]_.

    The pixel (r, c) of the result is the frame at (r + row shift, c + column shift), interpolated from 4 x 4
    pixels; the error goes with the cube of the pixel size. A frame that is not shifted keeps its bits, and so
    does one shifted by whole pixels but for its place. By half a pixel, detail of 4 pixels' period keeps
    0.88 of its contrast, and white noise 0.64 of its variance in each direction. Beyond its borders a
    frame goes on with its edge value: of a frame that lies 3 rows too low, the last 3 rows are not known.

    Parameters
    ----------
    slab : (angle, row, col), transmission.
    most_px : the largest shift along rows that is allowed; rows are read so far beyond each slab.
    shifts_px : (angle, 2), rows and columns, how far each frame lies from where it should; finite.

    Returns
    -------
    (angle, row, col) transmission.

    Raises
    ------
    BadScan
        A frame lies more than `most_px` rows, or a whole width, from where it should.
    ValueError
        Not one shift for each frame.

    References
    ----------
    .. [1] Keys, IEEE Trans. Acoust. Speech Signal Process. 29, 1153 (1981), doi:10.1109/TASSP.1981.1163711
    """
    _check(shifts_px, slab.shape, most_px)
    slab = np.ascontiguousarray(slab)
    out = np.empty(slab.shape, np.float32)
    moved = np.asarray(shifts_px, np.float64)

    def frames(first: int, last: int) -> None:
        for t in range(first, last):
            if moved[t].any():
                _move(slab[t], moved[t, 0], moved[t, 1], out[t])
            else:
                out[t] = slab[t]

    in_threads(frames, slab.shape[0], block=4)
    return out


def _check(shifts_px: DoubleArray, shape: tuple[int, ...], most_px: int) -> None:
    if np.shape(shifts_px) != (shape[0], 2):
        raise ValueError(f"shifts of shape {np.shape(shifts_px)} for {shape[0]} frames: one (row, col) each")
    for axis, name, most in ((0, "rows", most_px), (1, "columns", shape[2])):
        far = np.abs(shifts_px[:, axis])
        if (far <= most).all():
            continue
        # of what is not a number, the first
        worst = int(np.argmax(np.where(np.isfinite(far), far, np.inf)))
        raise BadScan(
            f"frame {worst} (of those used) lies {shifts_px[worst, axis]:.3g} {name} from where it should; "
            f"{most} are the most (correct.frame_shifts.most_px = {most_px}, at most 64, bounds rows): "
            "raise it, or look at that frame: it may be blank or show another sample"
        )


@numba.njit(**INNER)
def cubic_weights(part):  # type: ignore[no-untyped-def]
    """Weights of the pixels at -1, 0, 1, 2 for a place `part` of a pixel beyond 0: Keys with a = -1/2."""
    a, b = part, 1.0 - part
    return (
        np.float32(-0.5 * a * b * b),
        np.float32(1.0 - 2.5 * a * a + 1.5 * a * a * a),
        np.float32(1.0 - 2.5 * b * b + 1.5 * b * b * b),
        np.float32(-0.5 * b * a * a),
    )


@numba.njit(cache=True, nogil=True)
def _move(frame, down, right, out):  # type: ignore[no-untyped-def]
    n_rows, n_cols = frame.shape
    whole_rows, whole_cols = int(np.floor(down)), int(np.floor(right))
    w0, w1, w2, w3 = cubic_weights(down - whole_rows)
    v0, v1, v2, v3 = cubic_weights(right - whole_cols)
    line = np.empty(n_cols + 3, np.float32)
    for r in range(n_rows):
        r0 = min(max(r + whole_rows - 1, 0), n_rows - 1)
        r1 = min(max(r + whole_rows, 0), n_rows - 1)
        r2 = min(max(r + whole_rows + 1, 0), n_rows - 1)
        r3 = min(max(r + whole_rows + 2, 0), n_rows - 1)
        for k in range(n_cols + 3):
            c = min(max(k + whole_cols - 1, 0), n_cols - 1)
            line[k] = w0 * frame[r0, c] + w1 * frame[r1, c] + w2 * frame[r2, c] + w3 * frame[r3, c]
        for c in range(n_cols):
            out[r, c] = v0 * line[c] + v1 * line[c + 1] + v2 * line[c + 2] + v3 * line[c + 3]
