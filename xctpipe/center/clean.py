"""Line integrals made fit for the search: angles ascending, every value finite, zingers out."""

import numba
import numpy as np

from xctpipe.scan import DoubleArray, FloatArray

ZINGER_FACTOR = 3.0
ZINGER_PERCENTILE = 99.0
SAMPLES = 64


def cleaned(slab_log: FloatArray, *, angles_rad: DoubleArray) -> tuple[FloatArray, DoubleArray]:
    """Change since the first angle, in ascending order of angle: exact zeros where nothing changes.

    What stays the same in a column says nothing about the axis. A sample that stands out of its neighbours in
    angle and of those two columns away becomes the median over angle; standing out is three times what 99 in
    100 samples of the row stay below. An edge that moves through does not stand out of both.
    """
    order = np.argsort(angles_rad, kind="stable")
    out = np.empty(slab_log.shape, np.float32)
    for row in range(slab_log.shape[1]):
        sino = slab_log[:, row].astype(np.float32)[order]
        np.nan_to_num(sino, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        sino = _despiked(sino, _limit(sino))
        out[:, row] = sino - sino[0]
    return out, np.asarray(angles_rad, np.float64)[order]


def _limit(sino: FloatArray) -> float:
    middle = np.unique(np.linspace(1, sino.shape[0] - 2, SAMPLES).astype(np.intp))
    triple = np.stack([sino[middle - 1], sino[middle], sino[middle + 1]])
    distance = np.abs(triple[1] - np.median(triple, axis=0))
    return ZINGER_FACTOR * float(np.percentile(distance, ZINGER_PERCENTILE))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _median3(a: float, b: float, c: float) -> float:
    return max(min(a, b), min(max(a, b), c))


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _despiked(sino: FloatArray, limit: float) -> FloatArray:
    n_angles, n_cols = sino.shape
    out = sino.copy()
    for i in range(n_angles):
        before = i - 1 if i > 0 else 2
        after = i + 1 if i < n_angles - 1 else n_angles - 3
        for j in range(n_cols):
            here = sino[i, j]
            over_angle = _median3(sino[before, j], here, sino[after, j])
            if abs(here - over_angle) > limit:
                left, right = sino[i, max(j - 2, 0)], sino[i, min(j + 2, n_cols - 1)]
                if abs(here - _median3(left, here, right)) > limit:
                    out[i, j] = over_angle
    return out
