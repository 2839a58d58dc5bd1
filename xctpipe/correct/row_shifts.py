"""How far frames lie off along rows: sums over their columns are slow functions of angle, seen moved."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import linalg, ndimage

from xctpipe.correct.shifts import cubic_weights
from xctpipe.correct.threads import in_threads
from xctpipe.scan import DoubleArray, FloatArray

_MOST_STEPS = 30
_STILL = 0.003
_EM_STEPS = 4
_WORTH_A_THREAD = 2_000_000


@dataclass(frozen=True, eq=False)
class Found:
    """Shifts of all frames along one axis (angle,), and half of what two halves of the rows differ by."""

    shift_px: DoubleArray
    doubt_px: DoubleArray


def row_shifts(profiles: Sequence[FloatArray], *, angles_rad: DoubleArray, most_px: float) -> Found:
    """Shift of each frame along its columns, in rows.

    Each row of each weighted sum is modelled as a sum of harmonics of the angle whose strengths are learnt
    from the data by expectation-maximisation, and all weights and rows of a frame share its shift. Both are
    solved for together by Gauss-Newton, from coarse to fine detail, so that drift and jitter, neighbours and
    opposite frames all count by what they tell. Takes 24 bytes times the square of the number of frames.

    Parameters
    ----------
    profiles : sums over the columns of each row, each (angle, row), with weights that are in turn even and
        odd about the axis: half a turn later they are the same, or the same with the other sign. That is
        not made use of where the scan covers a whole turn.
    angles_rad : (angle,), any order.
    most_px : largest distance from the mean place of the frames that is looked for.

    Returns
    -------
    Shifts of mean zero, and half the difference of those that the upper and the lower rows ask for.
    """
    n_frames, n_rows = profiles[0].shape
    shift, margin = np.zeros(n_frames), 0
    for blur in [blur for blur in (8.0, 4.0, 2.0) if blur <= min(most_px / 2, n_rows / 24)] + [1.0]:
        channels = list(_channels(profiles, angles_rad, blur))
        margin = int(np.ceil(most_px + 2 * blur))
        shift = _settled(channels, shift, slice(margin, n_rows - margin), blur=blur, most_px=most_px)
    upper, lower = (
        _settled(channels, shift, half, blur=1.0, most_px=most_px)
        for half in (slice(margin, n_rows // 2), slice(n_rows // 2, n_rows - margin))
    )
    return Found(shift, (upper - lower) / 2)


def moved_back(profiles: FloatArray, shift: DoubleArray) -> FloatArray:
    """Each profile (angle, row) moved back by its shift."""
    out = np.empty(profiles.shape, np.float32)
    in_threads(partial(_move_profiles, profiles, shift, out), len(profiles), block=512)
    return out


@dataclass(eq=False)
class _Channel:
    """Profiles of one weight (angle, row), and what of them may change with angle.

    `basis` holds slow functions of angle (angle, function), `harmonic` the multiple of the angle in each,
    `power` the variance over rows of each multiple, as learnt so far.
    """

    profiles: FloatArray
    basis: DoubleArray
    harmonic: NDArray[np.intp]
    power: DoubleArray


def _channels(profiles: Sequence[FloatArray], angles_rad: DoubleArray, blur: float) -> Iterator[_Channel]:
    """Detail of a size in the profiles of every weight.

    Smoothed over `blur` rows, without what varies over more than eight times as many, in two parts: fine
    detail drowns in noise sooner, so each has strengths of its own.
    """
    whole_turn = bool(np.ptp(angles_rad) > 1.5 * np.pi)
    for wave, lines in enumerate(profiles):
        # a point 1 width off the axis crosses the waves under the taper this often in a turn, and a margin
        most = min(6 * (wave + 3), angles_rad.size // (6 if whole_turn else 3))
        multiples = np.arange(0, most + 1) if whole_turn else np.arange(wave % 2, most + 1, 2)
        turns = np.outer(angles_rad, multiples)
        sines = np.sin(turns[:, multiples > 0])
        basis = np.concatenate([np.cos(turns), sines], axis=1)
        harmonic = np.concatenate([multiples, multiples[multiples > 0]])
        fine = ndimage.gaussian_filter1d(lines.astype(np.float64), blur, axis=1, mode="nearest")
        for wider in (2, 8):
            coarse = ndimage.gaussian_filter1d(lines.astype(np.float64), wider * blur, axis=1, mode="nearest")
            band = (fine - coarse).astype(np.float32)
            yield _Channel(band, basis, harmonic, np.full(most + 1, 0.1 * band.var(dtype=np.float64)))
            fine = coarse


def _settled(
    channels: list[_Channel], shift: DoubleArray, kept: slice, *, blur: float, most_px: float
) -> DoubleArray:
    """Shifts, of mean zero, that detail of a size in some rows asks for, from those known so far on."""
    for _ in range(_MOST_STEPS):
        before = shift
        step = _gauss_newton(channels, shift, kept)
        shift = before + np.clip(step, -2 * blur, 2 * blur)
        shift = np.clip(shift - shift.mean(), -most_px, most_px)
        if np.sqrt(np.mean((shift - before) ** 2)) < _STILL * blur:
            break
    return shift


def _gauss_newton(channels: list[_Channel], shift: DoubleArray, kept: slice) -> DoubleArray:
    """Shifts that are still in some rows of the profiles once these are moved back by `shift`.

    With y = profiles of all frames at one row, B the functions of angle, S their prior variance and H the
    smoother B (B'B + noise / S)^-1 B', the shifts d minimise the sum over rows and channels of
    (y + d a')' (1 - H) (y + d a') / noise, where a' = derivative of H y along rows.
    """
    n_frames = shift.size
    normal, score = np.zeros((n_frames, n_frames)), np.zeros(n_frames)
    for channel in channels:
        aligned = moved_back(channel.profiles, shift)[:, kept].astype(np.float64)
        smoother = _learn(channel, aligned)
        found = _product(smoother, aligned)
        slopes = np.gradient(found, axis=1)
        rest, slope = aligned - _product(channel.basis, found), _product(channel.basis, slopes)
        # functions that follow the data take part of the noise with them
        freedom = 1 - float((channel.basis * smoother.T).sum()) / n_frames
        noise = _noise(rest, slope) / freedom
        if noise <= 0:
            continue
        part = _product(_product(channel.basis, _product(slopes, slopes.T)), channel.basis.T)
        part *= _product(channel.basis, smoother)
        normal -= part / noise
        normal[np.diag_indices(n_frames)] += (slope**2).sum(axis=1) / noise
        score -= (slope * rest).sum(axis=1) / noise
    size = float(np.trace(normal)) / n_frames
    if size <= 0:
        return np.zeros(n_frames)
    # a shift in common is free; the second term keeps a frame without detail where it is
    normal += size / n_frames
    normal[np.diag_indices(n_frames)] += 1e-6 * size
    factor = linalg.cho_factor(normal, overwrite_a=True, check_finite=False)
    step: DoubleArray = linalg.cho_solve(factor, score)
    return step


def _learn(channel: _Channel, aligned: DoubleArray) -> DoubleArray:
    """Learn the variance of each harmonic over rows; returns what makes coefficients of profiles."""
    basis, harmonic = channel.basis, channel.harmonic
    gram, seen = _product(basis.T, basis), _product(basis.T, aligned)
    seen_gram = _product(seen, seen.T)
    total = float((aligned**2).sum())
    noise = total / aligned.size
    solver = np.zeros_like(gram)
    for _ in range(_EM_STEPS):
        prior = noise / np.maximum(channel.power[harmonic], 1e-12 * channel.power.max() + 1e-300)
        # what never changes is not known beforehand at all
        prior[harmonic == 0] = 0.0
        solver = _inverse(gram + np.diag(prior))
        found = _product(_product(solver, seen_gram), solver)
        variance = np.diag(found) / aligned.shape[1] + noise * np.diag(solver)
        each = np.bincount(harmonic)
        channel.power = np.bincount(harmonic, variance) / np.maximum(each, 1)
        unexplained = total - 2 * float((solver * seen_gram).sum()) + float((gram * found).sum())
        noise = unexplained / aligned.size + noise * float((gram * solver).sum()) / len(aligned)
        noise = max(noise, 1e-12 * total / aligned.size)
    return _product(solver, basis.T)


def _noise(rest: DoubleArray, slope: DoubleArray) -> float:
    """Variance of what is left, as it counts against the slope: neighbouring rows are not independent."""
    left, counts = ((np.abs(np.fft.fft(part, axis=1)) ** 2).mean(axis=0) for part in (rest, slope))
    total = float(counts.sum()) * rest.shape[1]
    return float((left * counts).sum()) / total if total > 0 else 0.0


def _product(a: DoubleArray, b: DoubleArray) -> DoubleArray:
    """Matrix product, the same to the last bit in however many threads.

    The many small products of a library's own threads also stall where other work keeps the cores busy.
    """
    out = np.zeros((a.shape[0], b.shape[1]))
    left, right = np.ascontiguousarray(a), np.ascontiguousarray(b)
    block = 1 + _WORTH_A_THREAD // right.size
    in_threads(partial(_add_products, left, right, out), len(out), block=block)
    return out


@numba.njit(cache=True, nogil=True)
def _inverse(matrix):  # type: ignore[no-untyped-def]
    """Inverse of a small positive definite matrix, by Gauss-Jordan elimination; overwrites its argument."""
    n = len(matrix)
    for k in range(n):
        pivot = 1.0 / matrix[k, k]
        matrix[k, k] = 1.0
        for j in range(n):
            matrix[k, j] *= pivot
        for i in range(n):
            if i != k:
                factor = matrix[i, k]
                matrix[i, k] = 0.0
                for j in range(n):
                    matrix[i, j] -= factor * matrix[k, j]
    return matrix


@numba.njit(cache=True, nogil=True)
def _add_products(a, b, out, first, last):  # type: ignore[no-untyped-def]
    for i in range(first, last):
        for k in range(a.shape[1]):
            factor = a[i, k]
            for j in range(b.shape[1]):
                out[i, j] += factor * b[k, j]


@numba.njit(cache=True, nogil=True)
def _move_profiles(profiles, shift, out, first, last):  # type: ignore[no-untyped-def]
    n_rows = profiles.shape[1]
    for t in range(first, last):
        whole = int(np.floor(shift[t]))
        w0, w1, w2, w3 = cubic_weights(shift[t] - whole)
        for r in range(n_rows):
            r0 = min(max(r + whole - 1, 0), n_rows - 1)
            r1 = min(max(r + whole, 0), n_rows - 1)
            r2 = min(max(r + whole + 1, 0), n_rows - 1)
            r3 = min(max(r + whole + 2, 0), n_rows - 1)
            out[t, r] = (
                w0 * profiles[t, r0] + w1 * profiles[t, r1] + w2 * profiles[t, r2] + w3 * profiles[t, r3]
            )
