"""Line integrals made fit for the search: angles ascending, every value finite, zingers out."""

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.compiled import INNER
from xctpipe.correct.threads import in_threads
from xctpipe.scan import DoubleArray, FloatArray

ZINGER_FACTOR = 3.0
ZINGER_PERCENTILE = 99.0
SAMPLES = 64
FRAMES_AT_ONCE = 32
NOTHING = np.float32(0.0)
LARGEST = np.float32(np.finfo(np.float32).max)


def cleaned(slab_log: FloatArray, *, angles_rad: DoubleArray) -> tuple[FloatArray, DoubleArray]:
    """Change since the first angle, in ascending order of angle: exact zeros where nothing changes.

    What stays the same in a column says nothing about the axis. A sample that stands out of its neighbours in
    angle and of those two columns away becomes the median over angle; standing out is three times what 99 in
    100 samples of the row stay below. An edge that moves through does not stand out of both.
    """
    order = np.argsort(angles_rad, kind="stable")
    slab = np.ascontiguousarray(slab_log, np.float32)
    limit = _limits(slab, order=order)
    out = np.empty(slab.shape, np.float32)
    first = np.zeros(slab.shape[1:], np.float32)
    _despike(slab, order, limit, first, 0, out[:1])
    first[:] = out[0]

    def frames(begin: int, end: int) -> None:
        _despike(slab, order, limit, first, begin, out[begin:end])

    in_threads(frames, len(slab), block=FRAMES_AT_ONCE)
    return out, np.asarray(angles_rad, np.float64)[order]


def _limits(slab: FloatArray, *, order: NDArray[np.intp]) -> FloatArray:
    """How far a sample of each row may stand out."""
    middle = np.unique(np.linspace(1, len(order) - 2, SAMPLES).astype(np.intp))
    triple = np.stack([order[middle - 1], order[middle], order[middle + 1]])
    limit = np.empty(slab.shape[1], np.float32)

    def rows(begin: int, end: int) -> None:
        for row in range(begin, end):
            limit[row] = ZINGER_FACTOR * np.percentile(_distances(slab, triple, row), ZINGER_PERCENTILE)

    in_threads(rows, limit.size)
    return limit


@numba.njit(**INNER)  # type: ignore[untyped-decorator]
def _median3(a: float, b: float, c: float) -> float:
    return max(min(a, b), min(max(a, b), c))


@numba.njit(**INNER)  # type: ignore[untyped-decorator]
def _finite(value: np.float32) -> np.float32:
    return value if abs(value) <= LARGEST else NOTHING


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _distances(slab: FloatArray, triple: NDArray[np.intp], row: int) -> FloatArray:
    """Distance of samples of a row from the median of them and their neighbours in angle."""
    out = np.empty((triple.shape[1], slab.shape[2]), np.float32)
    for k in range(triple.shape[1]):
        a, b, c = slab[triple[0, k], row], slab[triple[1, k], row], slab[triple[2, k], row]
        line = out[k]
        for j in range(line.size):
            here = _finite(b[j])
            line[j] = abs(here - _median3(_finite(a[j]), here, _finite(c[j])))
    return out


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _despike(
    slab: FloatArray,
    order: NDArray[np.intp],
    limit: FloatArray,
    first: FloatArray,
    begin: int,
    out: FloatArray,
) -> None:
    """Frames from number `begin` on, in order, zingers out, less `first`."""
    n_angles, n_cols = order.size, slab.shape[2]
    for i in range(begin, begin + out.shape[0]):
        before = order[i - 1 if i > 0 else 2]
        after = order[i + 1 if i < n_angles - 1 else n_angles - 3]
        for r in range(slab.shape[1]):
            past, now, next_one = slab[before, r], slab[order[i], r], slab[after, r]
            line, base, most = out[i - begin, r], first[r], limit[r]
            found = 0
            for j in range(n_cols):
                here = _finite(now[j])
                over_angle = _median3(_finite(past[j]), here, _finite(next_one[j]))
                found += abs(here - over_angle) > most
                line[j] = here - base[j]
            # few lines hold any: looking at all lines twice is cheaper than a branch in every sample
            if found > 0:
                for j in range(n_cols):
                    here = _finite(now[j])
                    over_angle = _median3(_finite(past[j]), here, _finite(next_one[j]))
                    if abs(here - over_angle) > most:
                        left, right = _finite(now[max(j - 2, 0)]), _finite(now[min(j + 2, n_cols - 1)])
                        if abs(here - _median3(left, here, right)) > most:
                            line[j] = over_angle - base[j]
