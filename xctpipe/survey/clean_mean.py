"""Mean of darks or flats without zingers: one in twenty flats would leave a ring, or one that fades."""

import numba
import numpy as np

from xctpipe.correct.threads import in_threads
from xctpipe.scan import DoubleArray, FloatArray, Frames, RawArray, mean_frame

_SIGMAS = 6.0
_LEAST_FRAC = 0.01
"""Of the mean: what is less leaves no ring that is seen."""
_FEWEST = 5
_AT_ONCE, _ROWS = 16, 256


def mean_without_zingers(frames: Frames) -> FloatArray:
    """Mean of all frames, less the brightest value of a pixel where that is none of the beam's: (row, col).

    That is where it exceeds the mean of the others by 6 of their standard deviations, or of the usual one of
    its row if that is more, and by 1 % of that mean. With fewer than 5 frames the plain mean. A pixel hit
    in two frames keeps both. Each pixel is read once.
    """
    n = frames.shape[0]
    if n < _FEWEST:
        return mean_frame(frames)
    base = frames.read(frames=(0, 1))[0].astype(np.float32)
    total, squares = np.zeros(base.shape), np.zeros(base.shape)
    most = np.full(base.shape, -np.inf, np.float32)
    for first in range(0, n, _AT_ONCE):
        _add_up(frames.read(frames=(first, min(first + _AT_ONCE, n))), base, total, squares, most)
    mean: FloatArray = np.empty_like(base)
    for first in range(0, len(base), _ROWS):
        rows = slice(first, first + _ROWS)
        mean[rows] = base[rows] + _middle(total[rows], squares[rows], most[rows], n=n, base=base[rows])
    return mean


def _middle(
    total: DoubleArray, squares: DoubleArray, most: FloatArray, *, n: int, base: FloatArray
) -> DoubleArray:
    """Mean of what frames have more than `base`, with the most only where it is within the noise."""
    others = (total - most) / (n - 1)
    variance = np.maximum((squares - np.square(most, dtype=np.float64)) / (n - 1) - others**2, 0.0)
    usual = np.median(variance, axis=1, keepdims=True)
    noise = np.sqrt(np.maximum(variance, usual))
    limit = np.maximum(_SIGMAS * noise, _LEAST_FRAC * np.abs(base + others))
    return np.asarray(np.where(most - others > limit, others, total / n))


def _add_up(
    block: RawArray, base: FloatArray, total: DoubleArray, squares: DoubleArray, most: FloatArray
) -> None:
    def rows(first: int, last: int) -> None:
        part = np.ascontiguousarray(block[:, first:last], np.float32)
        _sums(part, base[first:last], total[first:last], squares[first:last], most[first:last])

    in_threads(rows, base.shape[0])


@numba.njit(cache=True, nogil=True)
def _sums(part, base, total, squares, most):  # type: ignore[no-untyped-def]
    for t in range(part.shape[0]):
        for r in range(part.shape[1]):
            for c in range(part.shape[2]):
                more = part[t, r, c] - base[r, c]
                total[r, c] += more
                squares[r, c] += np.float64(more) * more
                most[r, c] = max(most[r, c], more)
