"""Flicker of the beam from frame to frame, found from the projections themselves."""

import numpy as np

from xctpipe.correct.threads import in_threads
from xctpipe.scan import DoubleArray, FloatArray

_BLOCKS = 8
_MOST_TERMS = 400
_SURE = 4.0
_OUTLIER_SIGMAS = 4.0
_FRAMES_AT_ONCE = 64


def beam_drift(log_rows: FloatArray) -> FloatArray:
    """Intensity of the beam in each frame relative to a smooth course of the scan: (angle,), about 1.

    The mean attenuation of a frame is a smooth function of angle, whatever the sample and however little of
    it is in view. That function is fitted to the means with as many cosines (and a cubic, so that the ends
    are free) as the Bayesian information criterion asks for; what is left is flicker. It is believed only
    if it is the same everywhere: its variance must exceed by a factor of 4 the one that a mean of 8 blocks of
    columns would have if what is left varied between them independently. Else every frame gets 1. Slow drift
    cannot be told from the sample and stays.

    Parameters
    ----------
    log_rows : (angle, row, col), attenuation -log(transmission) of some rows, frames in order of time.

    Returns
    -------
    (angle,) float32, to divide transmission by.
    """
    n_angles, _, width = log_rows.shape
    if n_angles < 2 * _BLOCKS or width < 2 * _BLOCKS:
        return np.ones(n_angles, np.float32)
    blocks = np.empty((_BLOCKS, n_angles))
    parts = np.array_split(log_rows, _BLOCKS, axis=2)

    def frames(first: int, last: int) -> None:
        for block, part in zip(blocks, parts, strict=True):
            block[first:last] = part[first:last].mean(axis=(1, 2), dtype=np.float64)

    in_threads(frames, n_angles, block=_FRAMES_AT_ONCE)
    basis = _smooth_basis(n_angles)
    mean = blocks.mean(axis=0)
    terms = _terms(mean, basis)
    # a frame without beam must not bend the smooth course of its neighbours
    rest = _rest(mean, basis[:, :terms])
    spread = 1.4826 * np.median(np.abs(rest - np.median(rest)))
    steady = mean - rest + np.clip(rest, -_OUTLIER_SIGMAS * spread, _OUTLIER_SIGMAS * spread)
    smooth = basis[:, : _terms(steady, basis)]
    flicker = mean - steady + _rest(steady, smooth)
    local = [_rest(part, basis[:, : _terms(part, basis)]).var() for part in blocks - mean]
    # the mean of n equal blocks, and a block minus that mean, have variances as 1 to n - 1
    if not flicker.var() > _SURE * np.mean(local) / (_BLOCKS - 1):
        return np.ones(n_angles, np.float32)
    gain: FloatArray = np.exp(-flicker).astype(np.float32)
    return gain


def _smooth_basis(n: int) -> DoubleArray:
    """Orthonormal functions of frame number, from smooth to fast: (frame, term)."""
    t = (np.arange(n) + 0.5) / n
    fast = np.cos(np.pi * np.outer(t, np.arange(1, min(n // 4, _MOST_TERMS))))
    slow = np.stack([np.ones(n), 2 * t - 1, (2 * t - 1) ** 3], axis=1)
    basis: DoubleArray = np.linalg.qr(np.concatenate([slow, fast], axis=1))[0]
    return basis


def _rest(series: DoubleArray, basis: DoubleArray) -> DoubleArray:
    return series - basis @ (basis.T @ series)


def _terms(series: DoubleArray, basis: DoubleArray) -> int:
    """Number of terms that the Bayesian information criterion asks for, at least the constant."""
    n, most = basis.shape
    unexplained = (series**2).sum() - np.cumsum((basis.T @ series) ** 2)
    smallest = n * np.finfo(np.float64).eps ** 2
    criterion = n * np.log(np.maximum(unexplained, smallest) / n) + np.log(n) * np.arange(1, most + 1)
    return int(np.argmin(criterion)) + 1
