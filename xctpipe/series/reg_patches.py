"""A rigid move from grey values: small patches about fiducials, all of them compared at once.

Between the fiducials there is nothing but noise and rings, which stand still while the sample moves: only
voxels that show texture are compared, each patch less its own mean.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.series.rigid import Rigid

SMOOTH_PX = 0.6
"""Standard deviation of the Gaussian before comparison: noise of filtered back-projection is blue.

On simulated cells 0.5 to 0.7 leave the least error; 1.0 a quarter more, without any a tenth more."""
BESIDE_PX = 1.0
"""Patches go this far beyond the surface of their fiducial at full weight ..."""
TAPER_PX = 1.5
"""... and fall to none within this: beyond there are only noise and rings."""
ROOM_PX = 3
"""More of the later scan is read around each patch: how wrong the start may be, and for the spline."""
MARGIN_PX = 2
"""What is nearer to a crack, a face or the rim is not compared."""
_LEAST_SEEN = 0.5
_ROUNDS = 30
_DONE_PX = 5e-4
_SETTLED_PX = 0.02
_FAR_PX = 2.0
_TUKEY = 4.685
_MEDIAN_CHI3 = 1.538
_CONTRADICTS = 12.0
LEAST = 6
"""Patches for six parameters and an estimate of their error."""


@dataclass(frozen=True, eq=False)
class Cut:
    """The same number of voxels around each fiducial of one scan."""

    grey: FloatArray
    """(n, k, k, k) attenuation as measured."""
    good: NDArray[np.bool_]
    """(n, k, k, k) voxels of the pellet's texture: no crack, no other layer, within the view."""
    origin_um: DoubleArray
    """(n, 3) positions of the first voxels."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A move as found, and how well it is known."""

    move: Rigid
    covariance: DoubleArray
    """(6, 6) of the turn (rad) about the pivot and the shift (um) there, order (z, y, x) in both."""
    pivot_um: DoubleArray
    """(3,) in the later scan."""
    shares: DoubleArray
    """(n,) how much each patch counted, 0 to 1."""
    voxels: int
    """That it rests on."""

    def error_um(self, points_um: DoubleArray) -> float:
        """Root mean square over points (n, 3) of the later scan of the error's length, 1 sigma.

        From the scatter of the patches: what all of them share is not in it.
        """
        a = _motions(np.asarray(points_um) - self.pivot_um)
        return float(np.sqrt(np.mean(np.einsum("nip,pq,niq->n", a, self.covariance, a))))


def leveled(fit: Fit, *, tilts_rad: tuple[float, float], sigma_rad: float) -> Fit:
    """A fit with what a face of the pellet tells of its tilts, each weighed by how well it is known.

    A face that contradicts the texture (it was eaten away on one side) is left out.

    Parameters
    ----------
    tilts_rad : turns about y and x from the first scan to the later one.
    sigma_rad : standard error of each, > 0.

    References
    ----------
    Kalman, J. Basic Eng. 82 (1960) 35, doi 10.1115/1.3662552.
    """
    seen = np.eye(6)[1:3]
    off = np.array(tilts_rad) - fit.move.turn_rad[1:]
    spread = seen @ fit.covariance @ seen.T + sigma_rad**2 * np.eye(2)
    if off @ np.linalg.solve(spread, off) > _CONTRADICTS:
        return fit
    gain = fit.covariance @ seen.T @ np.linalg.inv(spread)
    step, covariance = gain @ off, (np.eye(6) - gain @ seen) @ fit.covariance
    return replace(fit, move=_turned(step, fit.pivot_um).after(fit.move), covariance=covariance)


def half_px(radius_px: ArrayLike) -> int:
    """Voxels on each side of a fiducial's centre that its patch needs; of several the most."""
    return int(np.ceil(float(np.max(radius_px)) + BESIDE_PX + TAPER_PX))


def fit_patches(
    first: Cut, later: Cut, radius_px: DoubleArray, *, voxel_um: float, start: Rigid
) -> Fit | None:
    """Refine a move by comparing grey values around fiducials (Gauss-Newton with both gradients).

    Parameters
    ----------
    first, later : patches of the same fiducials; those of the later scan about where `start` puts them,
        with `ROOM_PX` more voxels on each side.
    radius_px : (n,) radii of the fiducials.
    start : wrong by less than about two voxels anywhere.

    Returns
    -------
    None where fewer than `LEAST` patches can be compared, or they do not agree.

    References
    ----------
    Lucas and Kanade, IJCAI (1981) 674, as in Baker and Matthews, Int. J. Comput. Vis. 56 (2004) 221, doi
    10.1023/B:VISI.0000011205.11775.fd; Benhimane and Malis, IROS (2004) 943, doi 10.1109/IROS.2004.1389474
    (mean of both gradients); Beaton and Tukey, Technometrics 16 (1974) 147, doi
    10.1080/00401706.1974.10489171 (weights of patches); MacKinnon and White, J. Econometrics 29 (1985) 305,
    doi 10.1016/0304-4076(85)90158-7 (covariance from the scatter of the patches).
    """
    patches = [_Patch.of(first, later, i, radius_px[i], voxel_um) for i in range(len(radius_px))]
    seen = np.array([each is not None for each in patches], dtype=np.bool_)
    used = [each for each in patches if each is not None]
    if len(used) < LEAST:
        return None
    pivot = np.mean([start(each.middle_um) for each in used], axis=0)
    found = _iterated(used, start, pivot, voxel_um)
    if found is None:
        return None
    move, scores, shares = found
    covariance = _covariance(scores, shares)
    counted = np.zeros(len(patches))
    counted[seen] = shares
    voxels = sum(each.voxels for each, share in zip(used, shares, strict=True) if share > 0)
    return Fit(move, covariance, pivot, counted, voxels)


_Scores = tuple[DoubleArray, DoubleArray]
"""Normal matrices (n, 6, 6) and right-hand sides (n, 6) of the patches."""


def _iterated(
    patches: "list[_Patch]", start: Rigid, pivot: DoubleArray, voxel_um: float
) -> tuple[Rigid, _Scores, DoubleArray] | None:
    move = start
    for number in range(_ROUNDS):
        each = [patch.scores(move, pivot) for patch in patches]
        normal, right = np.stack([h for h, _ in each]), np.stack([g for _, g in each])
        shares = _shares(normal, right)
        total = np.einsum("n,nij->ij", shares, normal)
        if np.count_nonzero(shares) < LEAST or np.linalg.matrix_rank(_balanced(total)) < 6:
            return None
        step = np.linalg.solve(total, shares @ right)
        move = _turned(step, pivot).after(move)
        moved = max(np.abs(_turned(step, pivot)(p.middle_um) - p.middle_um).max() for p in patches) / voxel_um
        # weights of few patches may go to and fro: the last round decides
        if moved < (_DONE_PX if number < _ROUNDS - 1 else _SETTLED_PX):
            return move, (normal, right), shares
        if np.abs(move(pivot) - start(pivot)).max() > _FAR_PX * voxel_um:
            return None
    return None


def _balanced(matrix: DoubleArray) -> DoubleArray:
    size = np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    return np.asarray(matrix / size[:, None] / size)


def _turned(step: DoubleArray, pivot: DoubleArray) -> Rigid:
    """A small turn about the pivot, and a shift."""
    turn = (float(step[0]), float(step[1]), float(step[2]))
    s = pivot - Rigid(turn)(pivot) + step[3:]
    return Rigid(turn, (float(s[0]), float(s[1]), float(s[2])))


def _motions(arm: DoubleArray) -> DoubleArray:
    """(n, 3, 6) how points at `arm` from the pivot move with turns about z, y, x and shifts."""
    z, y, x = arm[:, 0], arm[:, 1], arm[:, 2]
    zero, one = np.zeros_like(z), np.ones_like(z)
    rows = (
        (zero, -x, y, one, zero, zero),
        (x, zero, -z, zero, one, zero),
        (-y, z, zero, zero, zero, one),
    )
    return np.moveaxis(np.array(rows), 2, 0)


def _shares(normal: DoubleArray, right: DoubleArray) -> DoubleArray:
    """Tukey's weight of each patch from the shift that it alone would still want."""
    own = normal[:, 3:, 3:]
    own = own + (1e-9 * np.trace(own, axis1=1, axis2=2) + 1e-12)[:, None, None] * np.eye(3)
    wanted = np.linalg.solve(own, right[:, 3:, None])[..., 0]
    away = np.sqrt(np.maximum(np.einsum("ni,ni->n", wanted, right[:, 3:]), 0))
    spread = max(float(np.median(away)) / _MEDIAN_CHI3, 1e-12)
    return np.asarray(np.clip(1 - (away / (_TUKEY * spread)) ** 2, 0, None) ** 2)


def _covariance(scores: _Scores, shares: DoubleArray) -> DoubleArray:
    """Of the parameters, from what each patch pulls: whatever noise does within a patch.

    What a patch pulls is less than its error, since the fit follows it: by its leverage.
    """
    normal, right = scores
    back = np.linalg.inv(np.einsum("n,nij->ij", shares, normal))
    leverage = shares * np.einsum("nij,ji->n", normal, back) / 3
    pulls = (shares / np.maximum(1 - leverage, 0.2))[:, None] * right
    return np.asarray(back @ (pulls.T @ pulls) @ back)


@dataclass(frozen=True, eq=False)
class _Patch:
    template: DoubleArray
    weight: DoubleArray
    at_um: DoubleArray
    """(k^3, 3) positions in the first scan."""
    later: DoubleArray
    """Spline coefficients."""
    good: DoubleArray
    origin_um: DoubleArray
    voxel_um: float

    @property
    def middle_um(self) -> DoubleArray:
        """Its centre in the first scan."""
        return np.asarray(self.at_um.mean(axis=0))

    @property
    def voxels(self) -> int:
        """That are compared."""
        return int(np.count_nonzero(self.weight > 0))

    @classmethod
    def of(cls, first: Cut, later: Cut, i: int, radius_px: float, voxel_um: float) -> "_Patch | None":
        """None where too little of the fiducial is to be seen in either scan."""
        (template, known), (moved, there) = _smooth(first, i), _smooth(later, i)
        half, full = half_px(radius_px), first.grey.shape[1]
        less = (full - 1) // 2 - half
        own, k = (slice(less, full - less),) * 3, 2 * half + 1
        steps = np.indices((k, k, k)).reshape(3, -1).T
        distance = np.linalg.norm(steps - half, axis=1).reshape(k, k, k)
        window = np.clip((radius_px + BESIDE_PX + TAPER_PX - distance) / TAPER_PX, 0, 1)
        weight = window * known[own]
        seen = (weight * there[(slice(less + ROOM_PX, less + ROOM_PX + k),) * 3]).sum()
        if seen < _LEAST_SEEN * window.sum():
            return None
        at = first.origin_um[i] + voxel_um * (steps + less)
        coefficients = ndimage.spline_filter(moved, order=3, mode="mirror", output=np.float64)
        return cls(template[own], weight, at, coefficients, there, later.origin_um[i], voxel_um)

    def scores(self, move: Rigid, pivot_um: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
        """Normal matrix (6, 6) and right-hand side (6,) of this patch at a move."""
        at = move(self.at_um)
        where = ((at - self.origin_um) / self.voxel_um).T
        moved = ndimage.map_coordinates(self.later, where, order=3, mode="mirror", prefilter=False)
        good = ndimage.map_coordinates(self.good, where, order=1, mode="constant")
        moved = moved.reshape(self.template.shape)
        weight = (self.weight * good.reshape(self.template.shape)).ravel()
        total = weight.sum()
        if total <= 0:
            return np.zeros((6, 6)), np.zeros(6)
        slope = np.stack([g.ravel() for g in np.gradient((self.template + moved) / 2, self.voxel_um)], axis=1)
        left = (self.template - moved).ravel()
        along = np.einsum("ni,nip->np", slope, _motions(at - pivot_um))
        # interior scans are off by some level that changes from place to place: a patch's own is no evidence
        left = left - weight @ left / total
        along = along - weight @ along / total
        weighted = along * weight[:, None]
        return weighted.T @ along, weighted.T @ left


def _smooth(cut: Cut, i: int) -> tuple[DoubleArray, DoubleArray]:
    """Grey smoothed over good voxels alone, and how far each voxel is good: 0 or 1."""
    good = cut.good[i]
    share = ndimage.gaussian_filter(good.astype(np.float64), SMOOTH_PX, mode="nearest")
    value = np.where(good, cut.grey[i], 0.0).astype(np.float64)
    level = float(value.sum() / max(good.sum(), 1))
    value = ndimage.gaussian_filter(np.where(good, value - level, 0.0), SMOOTH_PX, mode="nearest")
    # nearer than the blur of a mask its edge shows
    inner = ndimage.binary_erosion(good, iterations=MARGIN_PX, border_value=1)
    return value / np.maximum(share, 0.3), inner.astype(np.float64)
