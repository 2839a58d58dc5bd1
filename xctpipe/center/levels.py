"""Sinograms made ready for the scales at which slices are compared: binned, ramp-filtered, band-passed."""

from dataclasses import dataclass

import numba
import numpy as np
from scipy import fft

from xctpipe.correct.threads import in_threads
from xctpipe.scan import DoubleArray, FloatArray

COARSEST_PER_WIDTH = 80
FINEST_PX = 1.5
FINEST_PER_WIDTH = 640
LANES = 8
"""Candidates are added up in groups of so many: what a vector register holds."""
FRAMES_AT_ONCE = 128
ENOUGH = 0.98
"""So much of the angles that a scale needs is enough of them."""
SCALE_IN_BINS = 2.0
MARGIN_SIGMAS = 8.0


@dataclass(frozen=True, eq=False)
class Level:
    """Rows made ready for one scale: ramp-filtered band of the projections, (row, angle, col), in bins.

    Beyond the `n_cols` bins of the view lie `LANES` of zeros.
    """

    scale_px: float
    by_px: int
    n_cols: int
    band: FloatArray
    cos: DoubleArray
    sin: DoubleArray

    def to_bins(self, column_px: float) -> float:
        """Column counted in bins."""
        return (column_px - (self.by_px - 1) / 2) / self.by_px


def make_levels(slab: FloatArray, *, angles_rad: DoubleArray) -> list[Level]:
    """Levels from coarse to fine; each is binned from the next finer one, by powers of two."""
    n_angles, _, n_cols = slab.shape
    out: list[Level] = []
    small, angles, by_px, by_angle = slab, angles_rad, 1, 1
    for scale in reversed(scales(n_cols)):
        needed = np.ptp(angles_rad) * n_cols / 2 / scale
        more_px = _times(scale / SCALE_IN_BINS, by=by_px, first=not out)
        more_angles = _times(n_angles / (ENOUGH * needed), by=by_angle, first=not out)
        by_px, by_angle = by_px * more_px, by_angle * more_angles
        whole = len(small) // more_angles * more_angles
        small = _binned(small, more_angles, more_px)
        angles = angles[:whole].reshape(-1, more_angles).mean(axis=1)
        step_rad = np.gradient(angles).astype(np.float32)
        band = _band(small, step_rad=step_rad, scale=scale / by_px)
        out.append(Level(scale, by_px, small.shape[2], band, np.cos(angles), np.sin(angles)))
    return out[::-1]


def scales(n_cols: int) -> list[float]:
    """Scales from coarse to fine, px."""
    finest = max(FINEST_PX, n_cols / FINEST_PER_WIDTH)
    coarsest = max(finest, n_cols / COARSEST_PER_WIDTH)
    count = 1 + int(np.ceil(np.log2(coarsest / finest) - 0.01))
    return [max(finest, coarsest / 2**k) for k in range(count)]


def _times(allowed: float, *, by: int, first: bool) -> int:
    """How many of the bins, `by` wide, go into one: any number at first, then powers of two."""
    most = max(1, int(allowed / by))
    return most if first else 2 ** (most.bit_length() - 1)


def _binned(slab: FloatArray, by_angle: int, by_px: int) -> FloatArray:
    """Means over neighbouring angles and columns of (angle, row, col); what is left over is cut."""
    if by_angle == by_px == 1:
        return slab
    out = np.empty((slab.shape[0] // by_angle, slab.shape[1], slab.shape[2] // by_px), np.float32)

    def frames(first: int, last: int) -> None:
        _bin(slab[first * by_angle : last * by_angle], by_angle, by_px, out[first:last])

    in_threads(frames, len(out), block=max(1, FRAMES_AT_ONCE // by_angle))
    return out


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _bin(slab: FloatArray, by_angle: int, by_px: int, out: FloatArray) -> None:
    total = np.empty(out.shape[2] * by_px, np.float32)
    scale = np.float32(1.0) / np.float32(by_angle * by_px)
    for i in range(out.shape[0]):
        for r in range(out.shape[1]):
            total[:] = slab[i * by_angle, r, : total.size]
            for k in range(1, by_angle):
                line = slab[i * by_angle + k, r]
                for j in range(total.size):
                    total[j] += line[j]
            binned = out[i, r]
            for j in range(binned.size):
                value = total[j * by_px]
                for k in range(1, by_px):
                    value += total[j * by_px + k]
                binned[j] = scale * value


def _band(small: FloatArray, *, step_rad: FloatArray, scale: float) -> FloatArray:
    """Ramp-filtered band between two Gaussians of `scale` and twice that, in bins: (row, angle, col)."""
    n_angles, n_rows, n_cols = small.shape
    margin = int(MARGIN_SIGMAS * scale) + 1
    length = int(fft.next_fast_len(n_cols + 2 * margin, real=True))
    cycles = fft.rfftfreq(length)
    fine = np.exp(-2 * (np.pi * cycles * scale) ** 2)
    response = (cycles * (fine - fine**4)).astype(np.float32)
    band = np.zeros((n_rows, n_angles, n_cols + LANES), np.float32)

    def rows(first: int, last: int) -> None:
        for row in range(first, last):
            mean = small[:, row].mean(axis=0, dtype=np.float64).astype(np.float32)
            for start in range(0, n_angles, FRAMES_AT_ONCE):
                some = slice(start, start + FRAMES_AT_ONCE)
                changing = (small[some, row] - mean) * step_rad[some, None]
                spectrum = fft.rfft(_padded(changing, margin=margin, length=length), axis=-1)
                spectrum *= response
                filtered = fft.irfft(spectrum, length, axis=-1, overwrite_x=True)
                band[row, some, :n_cols] = filtered[:, margin : margin + n_cols]

    in_threads(rows, n_rows)
    return band


def _padded(lines: FloatArray, *, margin: int, length: int) -> FloatArray:
    """Lines continued by their ends, `margin` before them."""
    out = np.empty((len(lines), length), np.float32)
    out[:, :margin] = lines[:, :1]
    out[:, margin : margin + lines.shape[1]] = lines
    out[:, margin + lines.shape[1] :] = lines[:, -1:]
    return out
