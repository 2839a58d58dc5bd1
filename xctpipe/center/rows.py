"""Which detector rows are worth searching for the axis."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xctpipe.center.antisymmetry import band_kernel, band_pass
from xctpipe.correct.threads import in_threads
from xctpipe.errors import BadRecipe
from xctpipe.scan import DoubleArray, FloatArray

ROWS_AT_ONCE = 32
PLAIN_AND_MOST = (10, 90)
"""Percentiles of detail over the rows, from which and up to which it draws bands."""
NARROWEST_ROWS = 4


def row_detail(first: FloatArray, opposite: FloatArray, *, scale_px: float = 4.0) -> DoubleArray:
    """Detail that tells the axis in every row: rms of the band-passed difference of two opposite projections.

    Parameters
    ----------
    first, opposite : line integrals (row, col) at some angle and half a turn later
    scale_px : the band is about 1 to 2 of these wide; wide enough to stand above photon noise

    Returns
    -------
    One value >= 0 per row. A static detector pattern cancels in the difference.
    """
    detail = np.empty(len(first), np.float64)
    kernel = band_kernel(scale_px)

    def rows(begin: int, end: int) -> None:
        # float64, so that a large number in both leaves no rounding behind
        change = opposite[begin:end].astype(np.float64) - first[begin:end]
        finite = np.nan_to_num(change, nan=0.0, posinf=0.0, neginf=0.0)
        band = band_pass(finite.astype(np.float32), kernel)
        detail[begin:end] = np.sqrt(np.einsum("ij,ij->i", band, band, dtype=np.float64) / band.shape[1])

    in_threads(rows, len(first), block=ROWS_AT_ONCE)
    return detail


def choose_rows(detail_by_row: ArrayLike, *, n: int, weakest_frac: float = 0.2) -> NDArray[np.intp]:
    """Up to `n` rows that hold detail: the best one of each of `n` bands over the whole height.

    Bands are narrower where detail stands out, so that a pellet low in the view gets about half of the rows.

    Parameters
    ----------
    detail_by_row : one value per row, larger is better; not finite or <= 0 means unusable
    n : how many rows are wanted, >= 1
    weakest_frac : a band's best row is left out below this fraction of the median band's best

    Returns
    -------
    Ascending row numbers; fewer than `n` where bands hold nothing, all of the bands' best if none stands out,
    empty only when no row is usable.

    Raises
    ------
    BadRecipe : n < 1, or `detail_by_row` is not one-dimensional
    """
    detail = np.asarray(detail_by_row, np.float64)
    if n < 1 or detail.ndim != 1:
        raise BadRecipe(f"choose_rows: n = {n}, shape {detail.shape}; give n >= 1 and one value per row")
    detail = np.where(np.isfinite(detail) & (detail > 0), detail, 0.0)
    bands = [band for band in _bands(detail, n=n) if band.size]
    best = np.array([band[np.argmax(detail[band])] for band in bands], dtype=np.intp)
    best = best[detail[best] > 0]
    if best.size == 0:
        return best
    kept: NDArray[np.intp] = best[detail[best] >= weakest_frac * np.median(detail[best])]
    return kept


def _bands(detail: DoubleArray, *, n: int) -> list[NDArray[np.intp]]:
    """Rows in `n` bands: half of each one's share is height, half is detail above that of the plainest rows.

    The few rows with most detail count as no more than the next best ones. Neighbouring rows see the same
    detail: no band is made narrower than that, and where equal ones hardly are wider, all are equal.
    """
    plain, most = np.percentile(detail, PLAIN_AND_MOST)
    excess = np.clip(detail, plain, most) - plain
    if detail.size < 2 * NARROWEST_ROWS * n or excess.sum() <= 0:
        return np.array_split(np.arange(detail.size), n)
    share = (1 / detail.size + excess / excess.sum()) / 2
    share = np.minimum(share, 1 / (NARROWEST_ROWS * n))
    share += (1 - share.sum()) / detail.size
    band = (n * (np.cumsum(share) - share / 2)).astype(np.intp)
    return [np.flatnonzero(band == k) for k in range(n)]
