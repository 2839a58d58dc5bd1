"""How far each frame lies from where it should, found from sums over the columns of each row.

Vertically: such sums change slowly while the sample turns, whatever their weights, and half a turn later
they are the same again, or the same with the other sign where the weights are odd about the axis; a sample
inside the view keeps its plain sum. Horizontally: the centre of mass of a sample inside the view goes as a
sine of the angle. What no frame can tell is a shift that all have in common, nor horizontally one that goes
as the sine or cosine of the angle: that is a sample that sits elsewhere. Faults of the detector and bands
of the beam that the flats leave stand still, and so speak against any shift.
"""

from dataclasses import dataclass

import numba
import numpy as np

from xctpipe.correct.row_shifts import Found, moved_back, row_shifts
from xctpipe.correct.threads import in_threads
from xctpipe.scan import DoubleArray, FloatArray

N_WAVES = 8
"""Weights that are waves across the row, under a taper: they tell eight times as much as the plain sum."""
N_SUMS = N_WAVES + 4
"""Numbers that are kept of each row of each frame."""

FEWEST_FRAMES = 16
FEWEST_ROWS = 48
MARGIN_PART = 32
"""The outermost 1/32 of the columns on each side tell whether the sample is inside the view."""
EMPTY_FRAC = 0.03
LEAST_SURE = 3.0
"""Drift and jitter are each believed where their rms is so many times their uncertainty."""
LEAST_PX = 0.05
"""Less is not worth the detail that interpolation costs."""
MOST_UNSURE_PX = 0.25

_MEAN, _MOMENT, _LEFT, _RIGHT = range(N_WAVES, N_SUMS)
_CENTER_FITS = 3
_SLOW_TERMS = 8
_DIGITS = 4


@dataclass(frozen=True, eq=False)
class FrameShifts:
    """Shifts of the frames of one scan, and what was found, in words.

    `shifts_px` is (angle, 2), rows and columns, of mean zero: what the step `frame_shifts` takes back.
    `uncertainty_px` is one standard deviation of what was found along rows and along columns, NaN where
    nothing can be measured. Drift and jitter that are not sure are left out: zero, for every frame.
    """

    shifts_px: DoubleArray
    uncertainty_px: tuple[float, float]
    notes: tuple[str, ...]


def frame_sums(lines: FloatArray) -> FloatArray:
    """Sums over the columns of each row, all that `find_shifts` needs of a block of frames.

    Parameters
    ----------
    lines : (frame, row, col), attenuation -log(transmission), finite.

    Returns
    -------
    (frame, row, 12) float32: means under a raised cosine times 0 to 7 half waves across the row, the plain
    mean, the mean of value times place (-1 to 1 across the row), and the means of both margins.
    """
    n_frames, n_rows, n_cols = lines.shape
    weights = _weights(n_cols)
    out = np.empty((n_frames, n_rows, N_SUMS), np.float32)

    def frames(first: int, last: int) -> None:
        _add_up(lines[first:last], weights, out[first:last])

    in_threads(frames, n_frames, block=4)
    return out


def find_shifts(sums: FloatArray, *, angles_rad: DoubleArray, n_cols: int, most_px: float = 8) -> FrameShifts:
    """Shifts of all frames of a scan.

    Rows: see `row_shifts`. Columns: see `column_shifts`, only of a sample inside the view. The upper and the
    lower half of the rows are also asked apart; drift (what 8 cosines over the scan follow) and jitter (the
    rest) are each believed only where they exceed three times what the halves doubt, and 0.05 px. The error
    along rows is photon noise, and of an interior scan also that detail comes and goes as the sample turns,
    which looks like drift: more rows help with both.

    Parameters
    ----------
    sums : (angle, row, 12) of `frame_sums`, frames in order of time, rows without a gap; 128 rows and more
        are wanted.
    angles_rad : (angle,), any order. The axis should be in the middle of the frames within some percent,
        or the scan cover a whole turn.
    n_cols : columns of the frames.
    most_px : largest distance along rows from the mean place of the frames that is looked for.

    Returns
    -------
    Shifts, their uncertainty and what was found.
    """
    n_frames, n_rows, _ = sums.shape
    shifts = np.zeros((n_frames, 2))
    if n_frames < FEWEST_FRAMES or n_rows < max(FEWEST_ROWS, 6 * most_px):
        few = f"{n_frames} frames of {n_rows} rows: too few to measure how frames are shifted"
        return FrameShifts(shifts, (np.nan, np.nan), (few,))
    inside = sample_is_inside(sums)
    # the plain sum of a sample inside the view does not change at all
    profiles = [sums[..., _MEAN if inside and wave == 0 else wave] for wave in range(N_WAVES)]
    down = row_shifts(profiles, angles_rad=angles_rad, most_px=most_px)
    shifts[:, 0], about_rows = _believed(down, "rows")
    if not inside:
        wide = "columns: the sample is wider than the view, so shifts along rows cannot be measured"
        return FrameShifts(shifts, (_rms(down.doubt_px), np.nan), (about_rows, wide))
    right = column_shifts(sums, angles_rad=angles_rad, n_cols=n_cols, rows_px=shifts[:, 0])
    shifts[:, 1], about_columns = _believed(right, "columns")
    return FrameShifts(shifts, (_rms(down.doubt_px), _rms(right.doubt_px)), (about_rows, about_columns))


def sample_is_inside(sums: FloatArray) -> bool:
    """Whether the outermost columns see next to no sample in the mean of all frames, flicker or not."""
    margins = sums[..., [_LEFT, _RIGHT]].mean(axis=(0, 1), dtype=np.float64)
    return bool(np.abs(margins).max() < EMPTY_FRAC * float(np.median(sums[..., 0])))


def column_shifts(sums: FloatArray, *, angles_rad: DoubleArray, n_cols: int, rows_px: DoubleArray) -> Found:
    """Distance of each frame's centre of mass from the sine of the angle that fits it [1]_, in columns.

    A line through the empty columns at both sides is taken off each frame first.

    References
    ----------
    .. [1] Natterer, The Mathematics of Computerized Tomography, II.4, doi:10.1137/1.9780898719284
    """
    flat, slope = _base_line(sums, n_cols)
    margin = int(np.ceil(np.abs(rows_px).max())) + 1
    mass, moment = (
        moved_back(sums[..., which] - line[:, None], rows_px)[:, margin:-margin]
        for which, line in ((_MEAN, flat), (_MOMENT, slope))
    )
    sine = np.stack([np.ones_like(angles_rad), np.cos(angles_rad), np.sin(angles_rad)], axis=1)

    def off_sine(rows: slice) -> DoubleArray:
        sums_of = [part[:, rows].sum(axis=1, dtype=np.float64) for part in (moment, mass)]
        center = 0.5 * n_cols * sums_of[0] / sums_of[1]
        rest: DoubleArray = center - sine @ _robust_fit(sine, center)
        return rest

    middle = mass.shape[1] // 2
    doubt = (off_sine(slice(middle)) - off_sine(slice(middle, None))) / 2
    return Found(off_sine(slice(None)), doubt)


def _believed(found: Found, name: str) -> tuple[DoubleArray, str]:
    """What of the shifts is sure, else zeros, and a sentence about it."""
    n_frames = found.shift_px.size
    slow: DoubleArray = np.cos(
        np.pi * np.outer((np.arange(n_frames) + 0.5) / n_frames, np.arange(_SLOW_TERMS))
    )
    slow = np.linalg.qr(slow)[0]
    drift, drift_doubt = (slow @ (slow.T @ part) for part in (found.shift_px, found.doubt_px))
    kept, said = np.zeros(n_frames), []
    if not _rms(found.doubt_px) < MOST_UNSURE_PX:
        return (
            kept,
            f"{name}: too little detail to measure shifts (uncertainty {_rms(found.doubt_px):.2g} px)",
        )
    for what, part, doubt in (
        ("drift", drift, drift_doubt),
        ("jitter", found.shift_px - drift, found.doubt_px - drift_doubt),
    ):
        sigma, size = _rms(doubt), _rms(part)
        extent = f"{np.ptp(part):.2g} px over the scan" if what == "drift" else f"{size:.2g} px rms"
        if size < max(LEAST_SURE * sigma, LEAST_PX):
            said.append(f"no {what} ({size:.2g} px rms, uncertainty {sigma:.2g} px)")
        else:
            said.append(f"{what} of {extent}, uncertainty {sigma:.2g} px")
            kept += part
    # the last digits, far below any meaning, are those of a matrix solved by however many threads
    return np.round(kept, _DIGITS), f"{name}: {', '.join(said)}"


def _rms(series: DoubleArray) -> float:
    return float(np.sqrt(np.mean(series**2)))


def _robust_fit(functions: DoubleArray, values: DoubleArray) -> DoubleArray:
    """Coefficients of a least-squares fit, repeated without what lies five deviations off."""
    kept = np.ones(values.size, bool)
    found = np.zeros(functions.shape[1])
    for _ in range(_CENTER_FITS):
        found = np.asarray(np.linalg.lstsq(functions[kept], values[kept], rcond=None)[0], np.float64)
        rest = np.abs(values - functions @ found)
        kept = rest <= 5 * 1.4826 * np.median(rest) + 1e-9
    return found


def _weights(n_cols: int) -> DoubleArray:
    """What columns are multiplied by in each sum: (sum, col)."""
    place = (2 * np.arange(n_cols) + 1) / n_cols - 1
    waves = np.cos(0.5 * np.pi * np.outer(np.arange(N_WAVES), place + 1))
    waves *= np.cos(0.5 * np.pi * place) ** 2 * 2 / n_cols
    even = np.full(n_cols, 1 / n_cols)
    left = (np.arange(n_cols) < _margin(n_cols)) / _margin(n_cols)
    return np.concatenate([waves, [even, place * even, left, left[::-1]]])


def _margin(n_cols: int) -> int:
    return max(1, n_cols // MARGIN_PART)


def _base_line(sums: FloatArray, n_cols: int) -> tuple[FloatArray, FloatArray]:
    """Mean, and mean times place, of a line through the margins of each frame."""
    left, right = (sums[..., side].mean(axis=1) for side in (_LEFT, _RIGHT))
    apart = 2 - 2 * _margin(n_cols) / n_cols
    return (left + right) / 2, (right - left) / apart * (1 - 1 / n_cols**2) / 3


@numba.njit(cache=True, nogil=True)
def _add_up(lines, weights, out):  # type: ignore[no-untyped-def]
    n_frames, n_rows, n_cols = lines.shape
    for t in range(n_frames):
        for r in range(n_rows):
            for k in range(weights.shape[0]):
                total = 0.0
                for c in range(n_cols):
                    total += weights[k, c] * lines[t, r, c]
                out[t, r, k] = total
