"""From the curves of one method to the line over rows on which their sum is largest."""

import numpy as np
from numpy.typing import NDArray

from xctpipe.center.antisymmetry import Curves
from xctpipe.center.lines import (
    MAD_TO_SIGMA,
    MOST_TILT,
    Fit,
    Line,
    RowPeak,
    fit_line,
    middle_offsets,
    row_estimates,
)
from xctpipe.scan import DoubleArray

LARGEST_RHO = 0.99
ROW_WINDOW_PX = 4.0
BAND_SIGMAS = 2.0
REFINEMENTS = 3
COMPRESSED_FROM = 4.0


def find_line(
    curves: Curves, *, rows: DoubleArray, search_px: tuple[float, float], by_majority: bool = False
) -> Line:
    """Line (tilted by up to 1.5 degrees) on which the score summed over rows is largest, refined by row.

    The score of a row and band is the log-likelihood ratio of related against unrelated mirror images,
    -n/2 log(1 - rho^2) with the sign of rho, so bands without signal count for next to nothing. `by_majority`
    takes the logarithm of what a row's score is above its own noise: no single row outvotes the others.
    """
    at, offset = curves.candidates_px, middle_offsets(rows)
    rho = curves.rho.clip(-LARGEST_RHO, LARGEST_RHO)
    score = np.sum(-0.5 * curves.samples * np.sign(rho) * np.log1p(-(rho**2)), axis=1)
    if by_majority:
        score = _compressed(score)
    inside = (at >= search_px[0]) & (at <= search_px[1])
    slope, pooled = _best_slope(score, offset=offset, inside=inside, step_px=at[1] - at[0])
    peak = int(np.argmax(np.where(inside, pooled, -np.inf)))
    first, last = np.flatnonzero(inside)[[0, -1]]
    fit, peaks = _refined(curves, rows=rows, start_px=at[peak], slope=slope)
    best = at[np.argmax(np.where(inside, score, -np.inf), axis=1)]
    near = np.abs(best - at[peak] - slope * offset) <= max(1.5, 0.002 * at.size)
    return Line(
        curves.method,
        fit,
        significance=_significance(pooled, peak=peak),
        agreeing=int(near.sum()),
        at_edge=bool(peak - first <= 1 or last - peak <= 1 or pooled.max() > pooled[peak]),
        rows=row_estimates(curves.method, rows=rows, peaks=peaks, used=fit.used),
    )


def _significance(pooled: DoubleArray, *, peak: int) -> float:
    background = float(np.median(pooled))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(pooled - background)))
    return (float(pooled[peak]) - background) / spread if spread > 0 else 0.0


def _compressed(score: DoubleArray) -> DoubleArray:
    above = score - np.median(score, axis=1, keepdims=True)
    noise = MAD_TO_SIGMA * np.median(np.abs(above), axis=1, keepdims=True)
    above = np.where(noise > 0, above / np.where(noise > 0, noise, 1.0), 0.0)
    compressed: DoubleArray = np.sign(above) * np.log1p(np.abs(above) / COMPRESSED_FROM)
    return compressed


def _best_slope(
    score: DoubleArray, *, offset: DoubleArray, inside: NDArray[np.bool_], step_px: float
) -> tuple[float, DoubleArray]:
    """Slope whose summed score peaks highest, and that sum per candidate of the middle row."""
    reach = float(np.ptp(offset)) / 2
    steps = int(np.ceil(MOST_TILT * reach / step_px)) if score.shape[0] >= 3 else 0
    slopes = np.array(sorted(range(-steps, steps + 1), key=abs)) * step_px / max(reach, step_px)
    shifts = np.round(slopes[:, None] * offset / step_px).astype(np.intp)
    margin, width = int(np.abs(shifts).max()), score.shape[1]
    padded = np.pad(score, ((0, 0), (margin, margin)))
    best_slope, best_pooled, best_top = 0.0, score.sum(axis=0), -np.inf
    for slope, shift in zip(slopes.tolist(), (shifts + margin).tolist(), strict=True):
        pooled = np.zeros(width)
        for curve, first in zip(padded, shift, strict=True):
            pooled += curve[first : first + width]
        top = float(pooled[inside].max())
        if top > best_top:
            best_slope, best_pooled, best_top = slope, pooled, top
    return best_slope, best_pooled


def _refined(
    curves: Curves, *, rows: DoubleArray, start_px: float, slope: float
) -> tuple[Fit, list[RowPeak]]:
    """Peak of every row near the line and the line through them, repeated."""
    at, offset = curves.candidates_px, middle_offsets(rows)
    line = start_px + slope * offset
    for _ in range(REFINEMENTS):
        middle = np.abs(at - line[:, None]).argmin(axis=1)
        weights = _weights(curves, middle=middle)
        peaks = [
            _row_peak(weight @ rho, at_px=at, middle=int(k))
            for weight, rho, k in zip(weights, curves.rho, middle, strict=True)
        ]
        fit = fit_line(peaks, rows=rows)
        line = fit.center_px + fit.slope * offset
    return fit, peaks


def _weights(curves: Curves, *, middle: NDArray[np.intp]) -> DoubleArray:
    """Weight of every band on the line, (row, band): the slope of the score with rho there.

    A band whose mean over rows does not exceed two standard deviations of noise is left out: finer bands bend
    more, and one without signal would decide where the peak is.
    """
    rho = curves.rho[np.arange(middle.size), :, middle].clip(-LARGEST_RHO, LARGEST_RHO)
    n = curves.samples[:, middle].T
    excess = rho.mean(axis=0).clip(min=1e-9) ** 2 * n.sum(axis=0)
    trust = np.clip(1 - BAND_SIGMAS**2 / excess.clip(min=1e-9), 0, 1)
    weights: DoubleArray = trust * n * rho.clip(min=0) / (1 - rho**2)
    return weights


def _row_peak(smooth: DoubleArray, *, at_px: DoubleArray, middle: int) -> RowPeak:
    """Largest of the bands' weighted sum near the line; it is smooth there, so a parabola finds it."""
    step = float(at_px[1] - at_px[0])
    half = max(2, round(ROW_WINDOW_PX / step))
    first, last = max(1, middle - half), min(at_px.size - 2, middle + half)
    top = first - 1 + int(np.argmax(smooth[first - 1 : last + 2]))
    if not first <= top <= last:
        return RowPeak(float(at_px[top]), ROW_WINDOW_PX, at_edge=True)
    left, centre, right = smooth[top - 1 : top + 2]
    bend = 2 * centre - left - right
    if bend <= 0:
        return RowPeak(float(at_px[top]), ROW_WINDOW_PX, at_edge=True)
    return RowPeak(float(at_px[top] + 0.5 * step * (right - left) / bend), step / float(np.sqrt(bend)), False)
