"""The plain median of a square of pixels, in any plane of the data."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import numba
import numpy as np

from xctpipe.compiled import INNER
from xctpipe.correct.threads import in_threads
from xctpipe.scan import FloatArray
from xctpipe.steps import step

_SPANS: Mapping[str, tuple[bool, bool, bool]] = MappingProxyType(
    {"frame": (False, True, True), "sinogram": (True, False, True), "row_angle": (True, True, False)}
)
"""Whether the square of a plane spans angles, rows and columns."""

_LANES = 128
"""Columns side by side; few would be unrolled by the compiler, and then done one by one."""

_BLOCK_FRAMES = 16


def _halo(*, plane: str, size_px: int, **_: Any) -> int:
    return size_px // 2 if _SPANS[plane][1] else 0


@step(halo=_halo)
def median(
    slab: FloatArray,
    *,
    plane: Literal["frame", "sinogram", "row_angle"] = "frame",
    size_px: Literal[3, 5, 7] = 3,
) -> FloatArray:
    """Replace each pixel by the median of the square around it, in one plane of the data.

    Borders are mirrored between pixels. It takes hot pixels away wherever they are, and with them all that
    is narrower than half of the square: lines of one pixel with 3 x 3, as thin cracks seen edge-on are.

    Parameters
    ----------
    slab : (angle, row, col), transmission.
    plane : what the square spans: rows and columns of a frame, angles and columns of a sinogram, or the
        rows and angles that one column of pixels saw; `median_filter` of tomopy has them as axis 0, 1, 2.
    size_px : side of the square.

    Returns
    -------
    (angle, row, col) transmission.
    """
    slab = np.ascontiguousarray(slab)
    out = np.empty(slab.shape, np.float32)
    reach = tuple(size_px // 2 if spanned else 0 for spanned in _SPANS[plane])

    def frames(first: int, last: int) -> None:
        _median_of_frames(slab, first, last, reach, out)

    in_threads(frames, slab.shape[0], block=_BLOCK_FRAMES)
    return out


@numba.njit(**INNER)
def _mirror(i, n):  # type: ignore[no-untyped-def]
    """Index in range(n) of position i when the mirror is half a pixel beyond the border."""
    i %= 2 * n
    return i if i < n else 2 * n - 1 - i


@numba.njit(cache=True, nogil=True)
def _median_of_frames(slab, first, last, reach, out):  # type: ignore[no-untyped-def]
    _, n_rows, n_cols = slab.shape
    angles, rows, cols = reach
    # room for whole lanes, whose surplus is never looked at
    width = -(-n_cols // _LANES) * _LANES
    lines = np.zeros(((2 * angles + 1) * (2 * rows + 1), width + 2 * cols), np.float32)
    for t in range(first, last):
        for r in range(n_rows):
            _gather(slab, t, r, reach, lines)
            _median_of_lines(lines, 2 * cols + 1, out[t, r])


@numba.njit(cache=True, nogil=True)
def _gather(slab, t, r, reach, lines):  # type: ignore[no-untyped-def]
    """Copy the rows that the squares around one row span, mirrored at both ends."""
    n_angles, n_rows, n_cols = slab.shape
    angles, rows, cols = reach
    i = 0
    for at in range(t - angles, t + angles + 1):
        for ar in range(r - rows, r + rows + 1):
            source, line = slab[_mirror(at, n_angles), _mirror(ar, n_rows)], lines[i]
            for c in range(n_cols):
                line[cols + c] = source[c]
            for c in range(cols):
                line[c] = source[_mirror(c - cols, n_cols)]
                line[cols + n_cols + c] = source[_mirror(n_cols + c, n_cols)]
            i += 1


@numba.njit(**INNER)
def _median_of_lines(lines, n_shifts, out):  # type: ignore[no-untyped-def]
    """Keep the lower half of the values sorted, for many columns side by side."""
    n_lines = lines.shape[0]
    n_kept = n_lines * n_shifts // 2 + 1
    kept, new = np.empty((n_kept, _LANES), np.float32), np.empty(_LANES, np.float32)
    for start in range(0, out.size, _LANES):
        kept[:] = np.inf
        for i in range(n_lines):
            for shift in range(start, start + n_shifts):
                new[:] = lines[i, shift : shift + _LANES]
                for k in range(n_kept):
                    for j in range(_LANES):
                        # min and max look for NaN, which there is not
                        a, b = kept[k, j], new[j]
                        kept[k, j] = a if a < b else b
                        new[j] = b if a < b else a
        for j in range(min(_LANES, out.size - start)):
            out[start + j] = kept[n_kept - 1, j]
