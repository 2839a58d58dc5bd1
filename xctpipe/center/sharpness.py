"""Axis that makes the reconstructed detail sharpest.

Registration and the wedge see one moment of a 180 degree scan, its two ends: what moved in between, or an
angle that is off there, goes into their axis. Every frame takes part in a reconstruction. Blur keeps the
energy of detail of a given scale but spreads it, so the ratio of mean modulus to root mean square of the
band-passed slice is smallest where the frames meet. A few thousand points stand for the slice.
"""

import numba
import numpy as np
from scipy import fft

from xctpipe.center.lines import Line, RowPeak, fit_line, row_estimates
from xctpipe.scan import DoubleArray, FloatArray

SCALES_PX = (1.5, 3.0)
POINTS = 5000
FEWEST_ANGLES = 24
MOST_ROWS = 8
LEAST_ROWS_FRAC = 0.25
MOST_COLS = 1600
MOST_ANGLES = 1800
STEP_PX = 0.5
REACH_STEPS = 8
MOVES = 3
LEAST_RADIUS_PX = 16.0
MARGIN_PX = 2.0
NOISE_DEPTH = 0.0025
LEAST_DEPTH = 0.02
SIGMA_DEPTH_PX = 0.008


def sharpest_line(
    slab: FloatArray, *, angles_rad: DoubleArray, rows: DoubleArray, near_px: DoubleArray
) -> Line | None:
    """Sharpest axis within a few px of `near_px`, or None when no row has detail enough to tell.

    The depth of the minimum, as a logarithm, is its worth: in simulated rows of all contrasts the error of a
    row was about 0.008 px / depth from a depth of 0.02 on, and meaningless below.

    Parameters
    ----------
    slab : (angle, row, col) line integrals, finite
    angles_rad : ascending
    rows : detector row of each of the slab's rows
    near_px : axis to start from, per row
    """
    if angles_rad.size < FEWEST_ANGLES:
        return None
    chosen = np.unique(np.linspace(0, rows.size - 1, min(MOST_ROWS, rows.size)).round().astype(np.intp))
    found = [_sharpest(slab[:, i], angles_rad=angles_rad, near_px=float(near_px[i])) for i in chosen]
    peaks = [peak for peak, _ in found]
    fit = fit_line(peaks, rows=rows[chosen])
    if fit.used.sum() < chosen.size * LEAST_ROWS_FRAC:
        return None
    depths = np.array([depth for _, depth in found])
    return Line(
        "sharpness",
        fit,
        significance=float(np.median(depths[fit.used])) / NOISE_DEPTH,
        agreeing=int(fit.used.sum()),
        at_edge=False,
        rows=row_estimates("sharpness", rows=rows[chosen], peaks=peaks, used=fit.used),
    )


def _sharpest(sino: FloatArray, *, angles_rad: DoubleArray, near_px: float) -> tuple[RowPeak, float]:
    """Sharpest axis of one row at the scale that shows it best, and the depth of the minimum."""
    by_px = max(1, round(sino.shape[1] / MOST_COLS))
    by_angle = max(1, round(sino.shape[0] / MOST_ANGLES))
    small, angles = _binned(sino, angles_rad=angles_rad, by_px=by_px, by_angle=by_angle)
    offset_px = (by_px - 1) / 2
    best = RowPeak(near_px, by_px * STEP_PX * REACH_STEPS, at_edge=True), 0.0
    for scale in SCALES_PX:
        filtered = _filtered(small, angles_rad=angles, scale_px=scale)
        center, depth = _minimum(filtered, angles_rad=angles, near_px=(near_px - offset_px) / by_px)
        if depth > max(best[1], LEAST_DEPTH):
            best = RowPeak(center * by_px + offset_px, by_px * SIGMA_DEPTH_PX / depth, at_edge=False), depth
    return best


def _binned(
    sino: FloatArray, *, angles_rad: DoubleArray, by_px: int, by_angle: int
) -> tuple[FloatArray, DoubleArray]:
    n_angles, n_cols = sino.shape[0] // by_angle, sino.shape[1] // by_px
    blocks = sino[: n_angles * by_angle, : n_cols * by_px].reshape(n_angles, by_angle, n_cols, by_px)
    angles = angles_rad[: n_angles * by_angle].reshape(n_angles, by_angle)
    return blocks.mean(axis=(1, 3), dtype=np.float32), angles.mean(axis=1)


def _filtered(sino: FloatArray, *, angles_rad: DoubleArray, scale_px: float) -> FloatArray:
    """Ramp-filtered band of what changes in the projections, weighted by their share of the angle."""
    n_cols = sino.shape[1]
    length = int(fft.next_fast_len(2 * n_cols, real=True))
    before = (length - n_cols) // 2
    cycles_px = fft.rfftfreq(length)
    fine = np.exp(-2 * (np.pi * cycles_px * scale_px) ** 2)
    response = (cycles_px * (fine - fine**4)).astype(np.float32)
    changing = (sino - sino.mean(axis=0)) * np.gradient(angles_rad)[:, None].astype(np.float32)
    padded = np.pad(changing, ((0, 0), (before, length - n_cols - before)), mode="edge")
    band = fft.irfft(fft.rfft(padded, axis=1) * response, length, axis=1)
    return np.ascontiguousarray(band[:, before : before + n_cols], dtype=np.float32)


def _minimum(filtered: FloatArray, *, angles_rad: DoubleArray, near_px: float) -> tuple[float, float]:
    """Axis (px) where the band is sharpest and how far below its median (as a logarithm), 0 if not found."""
    n_cols = filtered.shape[1]
    reach = STEP_PX * REACH_STEPS
    for _ in range(MOVES):
        at = near_px + np.arange(-REACH_STEPS, REACH_STEPS + 1) * STEP_PX
        radius = min(near_px, n_cols - 1 - near_px) - reach - MARGIN_PX
        if radius < LEAST_RADIUS_PX:
            return near_px, 0.0
        x, y = _sunflower(POINTS, radius_px=radius)
        values = _values(filtered, np.cos(angles_rad), np.sin(angles_rad), x, y, at)
        square = np.mean(values**2, axis=1, dtype=np.float64)
        if square.min() <= 0:
            return near_px, 0.0
        spread = np.log(np.mean(np.abs(values), axis=1, dtype=np.float64) / np.sqrt(square))
        lowest = int(np.argmin(spread))
        if 2 <= lowest <= at.size - 3:
            bend, tilt, _ = np.polyfit(
                at[lowest - 2 : lowest + 3] - at[lowest], spread[lowest - 2 : lowest + 3], 2
            )
            depth = float(np.median(spread) - spread[lowest])
            return float(at[lowest] - tilt / (2 * bend)), depth if bend > 0 else 0.0
        near_px = float(at[lowest])
    return near_px, 0.0


def _sunflower(n: int, *, radius_px: float) -> tuple[DoubleArray, DoubleArray]:
    """Points spread evenly over a disc, on no grid that a fraction of a pixel could favour."""
    k = np.arange(n) + 0.5
    r, turn = radius_px * np.sqrt(k / n), np.pi * (1 + np.sqrt(5)) * k
    return r * np.cos(turn), r * np.sin(turn)


@numba.njit(parallel=True, cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _values(
    filtered: FloatArray, cos: DoubleArray, sin: DoubleArray, x: DoubleArray, y: DoubleArray, at: DoubleArray
) -> FloatArray:
    """Back-projection at the points (x, y) from the axis, for each candidate axis: (candidate, point)."""
    out = np.zeros((at.size, x.size), np.float32)
    x32, y32 = x.astype(np.float32), y.astype(np.float32)
    for k in numba.prange(at.size):
        for i in range(filtered.shape[0]):
            c, s, center = np.float32(cos[i]), np.float32(sin[i]), np.float32(at[k])
            for p in range(x32.size):
                col = x32[p] * c - y32[p] * s + center
                j = int(col)
                part = col - np.float32(j)
                out[k, p] += filtered[i, j] * (np.float32(1) - part) + filtered[i, j + 1] * part
    return out
