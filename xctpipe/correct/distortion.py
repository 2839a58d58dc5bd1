"""Radial distortion of the lens between scintillator and camera."""

from typing import Annotated

import numba
import numpy as np
from annotated_types import Len

from xctpipe.compiled import INNER
from xctpipe.correct.threads import in_threads
from xctpipe.errors import BadRecipe
from xctpipe.scan import DoubleArray, FloatArray, binned_px
from xctpipe.steps import step

MOST_FRAC = 0.25
"""No lens moves a pixel by more of the frame's height or width: the factors are wrong."""

_BLOCK_FRAMES = 16


def _halo(
    *,
    frame_shape: tuple[int, int],
    first_pixel: tuple[int, int],
    bin_px: int,
    center_row_px: float | None,
    center_col_px: float | None,
    factors: tuple[float, ...],
) -> int:
    center = _center((center_row_px, center_col_px), frame_shape, first_pixel, bin_px=bin_px)
    reach, by_rows, by_cols = _farthest(*frame_shape, *center, _polynomial(factors, bin_px=bin_px))
    height, width = frame_shape
    if not (by_rows <= MOST_FRAC * height and by_cols <= MOST_FRAC * width):
        raise BadRecipe(
            f"correct: distortion.factors = {list(factors)} move pixels by up to {by_rows:.3g} rows and "
            f"{by_cols:.3g} columns in frames of {height} x {width}; {MOST_FRAC:.0%} of either is the most; "
            "give the factors of the backward model for pixels of the uncropped detector, lowest power "
            "first, and the centre likewise"
        )
    return int(reach)


@step(halo=_halo, moves=True)
def distortion(
    slab: FloatArray,
    *,
    frame_shape: tuple[int, int],
    first_pixel: tuple[int, int],
    bin_px: int,
    first_row: int,
    center_row_px: float | None = None,
    center_col_px: float | None = None,
    factors: Annotated[tuple[float, ...], Len(1)] = (1.0,),
) -> FloatArray:
    """Undo radial distortion by the backward polynomial model of [1]_, as Discorpy calibrates it.

    A pixel at distance r from the centre takes the value at its own distance times the sum of
    `factors[i]` r**i, found by cubic convolution [2]_ of 4 x 4 pixels: bilinear interpolation blurs by an
    amount that changes from pixel to pixel, which shows in the noise. Beyond the frame, which ends where
    the recipe crops it, the last row and column go on. Distances count in the detector's own pixels.

    Parameters
    ----------
    slab : (angle, row, col), transmission.
    frame_shape, first_pixel, bin_px, first_row : facts of the scan and the slab.
    center_row_px, center_col_px : centre of distortion on the uncropped detector, in its own pixels;
        absent: the middle of the frame.
    factors : polynomial of the backward model, lowest power first; the default moves nothing.

    Returns
    -------
    (angle, row, col) transmission.

    Raises
    ------
    BadRecipe
        Factors that move a pixel by more than `MOST_FRAC` of the frame.

    References
    ----------
    .. [1] Vo, Atwood, Drakopoulos, Opt. Express 23, 32859 (2015), doi:10.1364/OE.23.032859
    .. [2] Keys, IEEE Trans. ASSP 29, 1153 (1981), doi:10.1109/TASSP.1981.1163711
    """
    slab = np.ascontiguousarray(slab)
    center = _center((center_row_px, center_col_px), frame_shape, first_pixel, bin_px=bin_px)
    polynomial = _polynomial(factors, bin_px=bin_px)
    out = np.empty(slab.shape, np.float32)

    def frames(first: int, last: int) -> None:
        _unwarp(slab[first:last], first_row, frame_shape[0], *center, polynomial, out[first:last])

    in_threads(frames, slab.shape[0], block=_BLOCK_FRAMES)
    return out


def _center(
    given_px: tuple[float | None, float | None],
    frame_shape: tuple[int, int],
    first_pixel: tuple[int, int],
    *,
    bin_px: int,
) -> tuple[float, float]:
    """Centre of distortion in the frame, row and column."""
    at_row, at_col = (
        (size - 1) / 2 if px is None else binned_px(px, bin_px=bin_px) - first
        for px, size, first in zip(given_px, frame_shape, first_pixel, strict=True)
    )
    return at_row, at_col


def _polynomial(factors: tuple[float, ...], *, bin_px: int) -> DoubleArray:
    """Factors for distances in pixels as they are used."""
    return np.array([factor * bin_px**power for power, factor in enumerate(factors)], np.float64)


@numba.njit(**INNER)
def _source(row, col, center_row, center_col, factors):  # type: ignore[no-untyped-def]
    """Where the value of a pixel of the frame comes from: row and column, not held inside the frame."""
    up, across = row - center_row, col - center_col
    radius = np.sqrt(up * up + across * across)
    scale = 0.0
    for i in range(factors.size - 1, -1, -1):
        scale = scale * radius + factors[i]
    return center_row + up * scale, center_col + across * scale


@numba.njit(cache=True, nogil=True)
def _farthest(height, width, center_row, center_col, factors):  # type: ignore[no-untyped-def]
    """Rows between a pixel and the farthest that its value needs; largest shift in rows and in columns."""
    reach, by_rows, by_cols = 0, 0.0, 0.0
    for row in range(height):
        for col in range(width):
            from_row, from_col = _source(row, col, center_row, center_col, factors)
            by_rows = max(by_rows, abs(from_row - row))
            by_cols = max(by_cols, abs(from_col - col))
            place = int(np.floor(min(max(from_row, 0.0), height - 1.0)))
            reach = max(reach, row - max(place - 1, 0), min(place + 2, height - 1) - row)
    return reach, by_rows, by_cols


@numba.njit(**INNER)
def _taps(position, n, first, n_here, places, weights):  # type: ignore[no-untyped-def]
    """Pixels and weights of cubic convolution at a position on an axis of n pixels.

    Of the axis the pixels from `first` on are here; what is beyond them belongs to no row of the result.
    """
    position = min(max(position, 0.0), n - 1.0)
    place = int(np.floor(position))
    t = position - place
    weights[0] = t * (t * (1.0 - 0.5 * t) - 0.5)
    weights[1] = 1.0 + t * t * (1.5 * t - 2.5)
    weights[2] = t * (t * (2.0 - 1.5 * t) + 0.5)
    weights[3] = t * t * (0.5 * t - 0.5)
    for i in range(4):
        places[i] = min(max(place - 1 + i - first, 0), n_here - 1)


@numba.njit(cache=True, nogil=True)
def _unwarp(block, first_row, height, center_row, center_col, factors, out):  # type: ignore[no-untyped-def]
    n_frames, n_rows, n_cols = block.shape
    # of one row of the result, so that they stay in cache for all frames of the block
    rows, cols = np.empty((n_cols, 4), np.uint32), np.empty((n_cols, 4), np.uint32)
    by_row, by_col = np.empty((n_cols, 4), np.float32), np.empty((n_cols, 4), np.float32)
    for r in range(n_rows):
        for c in range(n_cols):
            from_row, from_col = _source(first_row + r, c, center_row, center_col, factors)
            _taps(from_row, height, first_row, n_rows, rows[c], by_row[c])
            _taps(from_col, n_cols, 0, n_cols, cols[c], by_col[c])
        for t in range(n_frames):
            for c in range(n_cols):
                value = np.float32(0)
                for i in range(4):
                    line = np.float32(0)
                    for j in range(4):
                        line += by_col[c, j] * block[t, rows[c, i], cols[c, j]]
                    value += by_row[c, i] * line
                out[t, r, c] = value
