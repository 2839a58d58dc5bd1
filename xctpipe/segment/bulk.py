"""Bulk phases by grey value: pyramid level, histogram mixture with known means, Markov random field.

The stage segment takes the level alone: a flat cell is told better by the heights of its faces (Dice of
NASICON and NaK in a simulated scan 0.9993 and 0.9996, against 0.9991 and 0.9974). The mixture is for what is
no stack of flat layers, as a rolled cell. What is thinner than a few voxels is erased by the field unless it
is frozen; thin cracks are found by their shape instead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from xctpipe.correct.threads import in_threads
from xctpipe.errors import BadRecipe
from xctpipe.scan import DoubleArray, FloatArray

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

ERROR_FRAC = 0.05
"""Share of wrong voxels between two phases that a pyramid level may have."""

_ROUNDS, _SETTLED = 300, 1e-6
_ROWS_AT_ONCE = 4
_LEAST_SHARE = 1e-12
# while labels change: what is frozen has its phase and 128 more; beyond the view is 255
_FROZEN, _BEYOND = 128, 255


def needed_contrast_to_noise(error_frac: float = ERROR_FRAC) -> float:
    """Contrast over noise at which a threshold midway puts a share of `error_frac` on the wrong side.

    2 q of the normal distribution: 3.3 for 5 %, 4.7 for 1 %.
    """
    if not 0 < error_frac < 0.5:
        raise BadRecipe(f"segment: a share of {error_frac} wrong voxels; give more than 0, less than 0.5")
    return float(-2 * ndtri(error_frac))


def choose_level(
    noise_cm1: Sequence[float],
    *,
    contrast_cm1: float,
    n_levels: int,
    error_frac: float = ERROR_FRAC,
) -> int:
    """Finest level of a pyramid on which two phases can be told apart voxel by voxel.

    A voxel of level n is the mean over 2^n per axis. The noise of a reconstructed volume falls with the
    square of its voxels [1]_: with the power 3/2 in a slice, whose noise is blue, and 1/2 along the axis.

    Parameters
    ----------
    noise_cm1 : standard deviation of single voxels of level 0, of each of the two phases.
    contrast_cm1 : difference of their grey values.
    n_levels : how many levels there are, 1 or more.
    error_frac : share of wrong voxels that may be, above 0, below 0.5.

    Returns
    -------
    The level, 0 is full resolution; the coarsest where none is good enough.

    References
    ----------
    .. [1] Chesler et al., J. Comput. Assist. Tomogr. 1, 64 (1977), doi:10.1097/00004728-197701000-00009
    """
    if n_levels < 1 or not contrast_cm1 > 0 or min(noise_cm1) < 0:
        raise BadRecipe(
            f"segment: {n_levels} levels, contrast {contrast_cm1}, noise {tuple(noise_cm1)}; give one level "
            "or more, a contrast above 0 and noise of 0 or more"
        )
    # of unequal noises the mean counts: the best threshold lies nearer the quiet phase
    noise, needed = float(np.mean(noise_cm1)), needed_contrast_to_noise(error_frac)
    good = (level for level in range(n_levels) if contrast_cm1 * 4.0**level >= needed * noise)
    return next(good, n_levels - 1)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Phases of a volume: their codes, grey values, widths and shares, each (phase,).

    `mixed_frac` is the share of voxels that lie across a face between two phases.
    """

    codes: NDArray[np.uint8]
    means_cm1: DoubleArray
    sigmas_cm1: DoubleArray
    shares: DoubleArray
    mixed_frac: float


def fit_mixture(
    counts: DoubleArray, edges_cm1: DoubleArray, *, means_cm1: Sequence[float], codes: Sequence[int]
) -> Mixture:
    """Widths and shares of phases with known grey values, by EM on a histogram [1]_.

    Besides a normal distribution for each phase there is one, even from the lowest mean to the highest, for
    voxels that lie across a face [2]_: a rare phase would grow wide enough to hold them all without it.

    Parameters
    ----------
    counts : (bin,); histograms of blocks add up.
    edges_cm1 : (bin + 1,), increasing.
    means_cm1 : of two phases or more, on the scale of the values that were counted; they stay as they are.
    codes : what the phases are called in labels; not 0.

    Returns
    -------
    The mixture. No width is more than half the distance to the nearest mean, beyond which voxels say nothing
    of their phase, or less than half a bin.

    Raises
    ------
    BadRecipe
        If there are no values, less than two means, equal ones, or not as many codes.

    References
    ----------
    .. [1] Dempster, Laird and Rubin, J. R. Stat. Soc. B 39, 1 (1977), doi:10.1111/j.2517-6161.1977.tb01600.x
    .. [2] Clausnitzer and Hopmans, Adv. Water Resour. 22, 577 (1999), doi:10.1016/S0309-1708(98)00040-2
    """
    means = np.asarray(means_cm1, np.float64)
    if len(means) < 2 or len(set(means_cm1)) < len(means) or len(codes) != len(means) or 0 in codes:
        raise BadRecipe(
            f"segment: phases {tuple(codes)} of {tuple(means_cm1)} cm^-1; give two or more, each with a code "
            "above 0 and a mean of its own"
        )
    used = counts > 0
    if not used.any():
        raise BadRecipe("segment: a histogram without values; give a part of the volume that is in view")
    values, weights = ((edges_cm1[1:] + edges_cm1[:-1]) / 2)[used], counts[used] / counts.sum()
    gaps = np.abs(means[:, None] - means) + np.where(np.eye(len(means)), np.inf, 0)
    limits = np.diff(edges_cm1).max() / 2, gaps.min(axis=1) / 2
    mixed = ((values >= means.min()) & (values <= means.max())) / np.ptp(means)
    squares = (values[:, None] - means) ** 2
    sigmas, shares = _expectation_maximisation(squares, weights, mixed, limits)
    return Mixture(np.asarray(codes, np.uint8), means, sigmas, shares[:-1], float(shares[-1]))


def _expectation_maximisation(
    squares: DoubleArray, weights: DoubleArray, mixed: DoubleArray, limits: tuple[float, DoubleArray]
) -> tuple[DoubleArray, DoubleArray]:
    """Widths of the phases, and shares of them and of what is mixed.

    Parameters
    ----------
    squares : (value, phase), of the distance to the mean.
    weights, mixed : (value,), share of the voxels, and density of mixed ones.
    limits : of widths.
    """
    n = squares.shape[1]
    sigmas = np.clip(np.full(n, math.sqrt(float(weights @ squares.min(axis=1)))), *limits)
    shares = np.full(n + 1, 1 / (n + 1))
    for _ in range(_ROUNDS):
        before = sigmas
        pure = np.exp(-0.5 * squares / sigmas**2) / (math.sqrt(2 * math.pi) * sigmas)
        chances = np.column_stack([pure, mixed]) * shares
        chances *= (weights / np.maximum(chances.sum(axis=1), np.finfo(float).tiny))[:, None]
        shares = chances.sum(axis=0)
        spread = (chances[:, :n] * squares).sum(axis=0) / np.maximum(shares[:n], _LEAST_SHARE)
        sigmas = np.clip(np.sqrt(spread), *limits)
        if np.allclose(sigmas, before, rtol=_SETTLED):
            break
    return sigmas, shares


def halo_px(n_iterations: int) -> int:
    """Voxels beyond a block that its labels depend on, besides those of smoothing."""
    return 2 * n_iterations


def bulk_phases(
    grey: FloatArray,
    *,
    mixture: Mixture,
    smoothness: float = 1.0,
    n_iterations: int = 4,
    frozen: Mask | None = None,
    inside: Mask | None = None,
    corner: tuple[int, int, int] = (0, 0, 0),
) -> Labels:
    """Phases of a block: the most likely one of each voxel, given its value and its six neighbours.

    A Potts field, by iterated conditional modes [1]_: (value - mean)^2 / (2 sigma^2), and `smoothness` for
    each neighbour of another phase. Even and odd voxels take turns, so that no result depends on the order
    of voxels or on threads; with `halo_px` more on each side none depends on how blocks are cut either.

    For sigma the widest phase's is taken for all, and no phase is likelier than another: the border between
    two then lies midway, where a blurred face has it. Their own widths and shares would draw it to the
    quieter and to the larger phase.

    Parameters
    ----------
    grey : (z, y, x), cm^-1, smoothed first where voxels are noisier than contrasts.
    mixture : of values treated alike.
    smoothness : 0 (none: each voxel for itself) or more.
    n_iterations : 0 or more; each reaches 2 voxels further.
    frozen : (z, y, x), voxels (candidates of cracks) that keep what their own value says and that their
        neighbours do not see.
    inside : (z, y, x), the view; 0 beyond it, which no neighbour sees.
    corner : place of the block in the volume, for its even and odd voxels.

    Returns
    -------
    Codes of the mixture (z, y, x).

    References
    ----------
    .. [1] Besag, J. R. Stat. Soc. B 48, 259 (1986), doi:10.1111/j.2517-6161.1986.tb01412.x
    """
    if smoothness < 0 or n_iterations < 0:
        raise BadRecipe(f"segment: smoothness {smoothness}, {n_iterations} iterations; give 0 or more")
    seen = np.ones(grey.shape, np.bool_) if inside is None else inside
    fixed = np.zeros(grey.shape, np.bool_) if frozen is None else frozen
    values = np.ascontiguousarray(grey, np.float32)
    # (value - mean)^2 / (2 sigma^2) in units of sigma, so that kernels see one scale
    sigma = np.float32(mixture.sigmas_cm1.max())
    values, means = values / sigma, (mixture.means_cm1 / sigma).astype(np.float32)
    labels = np.empty(grey.shape, np.uint8)

    def begin(first: int, last: int) -> None:
        _begin(values[first:last], means, seen[first:last], fixed[first:last], labels[first:last])

    in_threads(begin, len(labels), block=_ROWS_AT_ONCE)
    for turn in range(2 * n_iterations):
        odd = (turn + sum(corner)) % 2

        def change(first: int, last: int, odd: int = odd) -> None:
            _change(values, means, np.float32(smoothness), odd, first, last, labels)

        in_threads(change, len(labels), block=_ROWS_AT_ONCE)
    table = np.zeros(256, np.uint8)
    for start in (0, _FROZEN):
        table[start : start + len(mixture.codes)] = mixture.codes
    return table[labels]


@numba.njit(cache=True, nogil=True)
def _begin(values, means, seen, fixed, labels):  # type: ignore[no-untyped-def]
    for z in range(values.shape[0]):
        for y in range(values.shape[1]):
            for x in range(values.shape[2]):
                best, least = 0, np.float32(np.inf)
                for k in range(means.size):
                    cost = (values[z, y, x] - means[k]) ** 2
                    if cost < least:
                        best, least = k, cost
                if not seen[z, y, x]:
                    labels[z, y, x] = _BEYOND
                else:
                    labels[z, y, x] = best + (_FROZEN if fixed[z, y, x] else 0)


@numba.njit(cache=True, nogil=True)
def _change(values, means, smoothness, odd, first, last, labels):  # type: ignore[no-untyped-def]
    """Let every second voxel of some rows take its best phase; its neighbours are the others, which stay."""
    n_z, n_y, n_x = labels.shape
    votes = np.zeros(means.size, np.float32)
    for z in range(first, last):
        for y in range(n_y):
            for x in range((odd + z + y) % 2, n_x, 2):
                if labels[z, y, x] >= _FROZEN:
                    continue
                votes[:] = 0
                for dz, dy, dx in ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)):
                    k, j, i = z + dz, y + dy, x + dx
                    if 0 <= k < n_z and 0 <= j < n_y and 0 <= i < n_x and labels[k, j, i] < _FROZEN:
                        votes[labels[k, j, i]] += 1
                best, least = 0, np.float32(np.inf)
                for p in range(means.size):
                    cost = np.float32(0.5) * (values[z, y, x] - means[p]) ** 2 - smoothness * votes[p]
                    if cost < least:
                        best, least = p, cost
                labels[z, y, x] = best
