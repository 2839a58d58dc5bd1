"""Axis from the phases of opposite projections, after phase correlation.

Phase correlation finds the shift between a projection and the mirror image of its opposite from the phases
of their cross-power spectrum alone [1]_: every frequency counts the same, no strong edge outweighs the rest.
A static detector pattern is white and would win, the shift found would be its own. The difference of the
opposites, D(u) = p(a + pi, u) - p(a, u), is free of it and its own negated mirror image about the axis: it is
the gradient of D whose phases are compared with those of its mirror image.

Noise counts as much as signal does, so this is no estimate to average in. It is a second opinion: something
broad that moved in the scan and that the other methods mistake for the sample has few frequencies.

References
----------
.. [1] Kuglin, Hines, Proc. IEEE Int. Conf. Cybernetics and Society, 163 (1975); Reddy, Chatterji, IEEE Trans.
   Image Process. 5, 1266 (1996), doi:10.1109/83.506761
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from xctpipe.center.antisymmetry import Curves, rim_taper
from xctpipe.center.registration import Differences
from xctpipe.correct.threads import in_threads
from xctpipe.scan import DoubleArray

FINEST_PX = 1.5
COARSEST_PER_WIDTH = 24.0


def phase_curves(differences: Differences, *, candidates_px: DoubleArray) -> Curves | None:
    """Agreement of the phases of D with those of its negated mirror image about each candidate.

    None where the view is too narrow, or the seam too wide, to leave frequencies.

    Parameters
    ----------
    candidates_px : ascending multiples of half a column
    """
    scale = max(FINEST_PX, differences.finest_px)
    n_cols = differences.lines.shape[2]
    coarsest = n_cols / COARSEST_PER_WIDTH
    if coarsest < 2 * scale:
        return None
    length = int(fft.next_fast_len(2 * n_cols, real=True))
    cycles = fft.rfftfreq(length)
    weight = np.exp(-2 * (np.pi * cycles * scale) ** 2) - np.exp(-2 * (np.pi * cycles * coarsest) ** 2)
    index = np.round(2 * candidates_px).astype(np.intp)
    taper = rim_taper(n_cols, scale_px=scale).astype(np.float32)
    rho = np.empty((differences.groups, 1, candidates_px.size))

    def rows(first: int, last: int) -> None:
        for row in range(first, last):
            data = differences.of_row(row, scale_px=scale, by_px=1)
            spectrum = fft.rfft(np.gradient(data, axis=-1) * taper, length, axis=-1)
            phases = (_phases(spectrum) ** 2).mean(axis=0, dtype=np.complex128)
            rho[row, 0] = fft.irfft(phases * weight, length)[index] * length / (2 * weight.sum())

    in_threads(rows, differences.groups)
    # twice as many frequencies as columns: half of them tell something of their own
    free = differences.shape[0] * weight.sum() ** 2 / np.sum(weight**2)
    return Curves("phase correlation", candidates_px, rho, np.full((1, candidates_px.size), free))


def _phases(spectrum: NDArray[np.complex64]) -> NDArray[np.complex64]:
    return np.asarray(spectrum / np.maximum(np.abs(spectrum), np.finfo(np.float32).tiny))
