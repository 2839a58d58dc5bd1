"""Ramp filter, its windows, and how a row goes on beyond the detector; shared by the backends."""

import numpy as np
from numpy.typing import ArrayLike

from xctpipe.scan import DoubleArray

WINDOWS = ("ramp", "shepp", "cosine", "hamming", "hann")
PADDINGS = ("taper", "edge", "none")
TAPER_FRAC = 0.4
"""Length of the tapered continuation on either side, as a fraction of the detector width."""
EDGE_FRAC = 0.2
"""Length of the constant continuation on either side, as a fraction of the detector width."""
EDGE_COLUMNS = 8
"""Columns at either end of a row through which the line is fitted that gives its edge value."""


def window(frequency: ArrayLike, *, filter_name: str) -> DoubleArray:
    """Factor on the ramp at frequencies relative to Nyquist, 0 to 1, of a filter in `WINDOWS`."""
    f = np.abs(np.asarray(frequency, np.float64))
    if filter_name == "shepp":
        return np.asarray(np.sinc(f / 2))
    if filter_name == "cosine":
        return np.asarray(np.cos(np.pi * f / 2))
    if filter_name in {"hamming", "hann"}:
        floor = 0.54 if filter_name == "hamming" else 0.5
        return np.asarray(floor + (1 - floor) * np.cos(np.pi * f))
    return np.ones_like(f)


def ramp(lags_px: ArrayLike) -> DoubleArray:
    """Band-limited ramp filter at integer lags [1]_: 1/4 at zero, -1/(pi n)^2 at odd n, else zero.

    Sampled in space rather than in frequency, so that it leaves no offset.

    References
    ----------
    .. [1] Ramachandran & Lakshminarayanan, PNAS 68, 2236 (1971), doi:10.1073/pnas.68.9.2236
    """
    n = np.asarray(lags_px, np.int64)
    odd = n % 2 != 0
    return np.where(odd, -1 / (np.pi * np.where(odd, n, 1)) ** 2, np.where(n == 0, 0.25, 0.0))


def continuation(n_cols: int, *, padding: str) -> DoubleArray:
    """Profile by which a row goes on beyond the detector, from its edge outwards, then zeros.

    `taper` falls from 1 to 0 as cos^2 over `TAPER_FRAC` of the width, `edge` is 1 over `EDGE_FRAC` of it,
    `none` is empty. What lies outside decides the absolute value inside of an interior scan, so these
    are lengths on the sample and follow from the width alone, never from the length of a transform.
    """
    if padding == "none":
        return np.zeros(0)
    length = round({"taper": TAPER_FRAC, "edge": EDGE_FRAC}[padding] * n_cols)
    if padding == "edge":
        return np.ones(length)
    return np.asarray(np.cos(0.5 * np.pi * np.arange(1, length + 1) / (length + 1)) ** 2)


def edge_weights(n_cols: int) -> DoubleArray:
    """Weights of the outermost columns, edge first, in the edge value: a line fitted to them, at the edge.

    Exact where a row is straight, and with less noise than one column: variance 0.42 of its.
    """
    n = min(EDGE_COLUMNS, n_cols)
    if n == 1:
        return np.ones(1)
    i = np.arange(n)
    return np.asarray((4 * n - 2 - 6 * i) / (n * (n + 1)), np.float64)
