"""Volumes of small round voids by fitting a blurred ball to their radial profile.

A void is known to miss all of its host's attenuation, so that only its size is unknown: a sum over the
mask does not use that, and carries half as much noise again for balls of 4 voxels radius. All that an
optimal radial weight can see is in the profile, which adds up over blocks.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from xctpipe.measure.regions import Context, Region
from xctpipe.measure.registry import FIXED, Gathered, Whole, gather
from xctpipe.measure.uncertainty import noise_of_sum
from xctpipe.scan import DoubleArray, FloatArray

_STEP_PX = 0.5
_BINS = 36
_RADII = (np.arange(_BINS) + 0.5) * _STEP_PX
LARGEST_PX = 6.5
"""Radius up to which balls are fitted."""
# the fit sees this far beyond the ball
_BEYOND_PX = 5.0
# inverse of the noise: it grows with frequency, so that low ones count more
_WHITEN_PX = 0.7
_STEPS = 10
_BATCH = 500
# of the table of profiles: radii up to this, in steps of 1 / _PER_PX
_LARGEST, _PER_PX = 20, 32
# of the blur that faces show: what is tried, and how much balls are expected to differ
_BLURS = np.linspace(0.4, 1.4, 11)
_BLUR_ERROR = 0.25
_SAMPLE = 200
_MOST_MISFIT = 100.0
# flatter than this they are sheets, whose mask says little about their thickness
_FLATTEST = 0.25
_SUMS = tuple(f"ball_sum_{i}" for i in range(_BINS))
_COUNTS = tuple(f"ball_voxels_{i}" for i in range(_BINS))
_SPREAD = tuple(f"ball_{i}{j}" for i, j in ("zz", "yy", "xx", "zy", "zx", "yx"))


@gather(columns=_SUMS + _COUNTS + _SPREAD)
def ball_sums(region: Region) -> Whole:
    """Missing attenuation and voxels by distance from the centre of each small round object; its spread."""
    known = region.context.objects
    fit = candidates(region.context)[region.known][region.slot]
    centre = known.centres_px[region.known][region.slot]
    delta = [axis - centre[:, i] for i, axis in enumerate(region.coordinates)]
    r2 = delta[0] ** 2 + delta[1] ** 2 + delta[2] ** 2
    bins = np.minimum(np.sqrt(r2) / _STEP_PX, _BINS).astype(np.int64)
    use = fit & region.in_host & (bins < _BINS)
    at = (region.slot * _BINS + bins)[use]
    shape, size = (len(region.ids), _BINS), len(region.ids) * _BINS
    sums = np.bincount(at, np.rint(region.missing[use] * FIXED), minlength=size).reshape(shape)
    numbers = np.bincount(at, minlength=size).reshape(shape)
    inside = fit & (region.d2 == 0)
    spread = [region.fixed(delta["zyx".index(i)] * delta["zyx".index(j)], inside) for i, j in _pairs()]
    return np.concatenate([sums.astype(np.int64), numbers, np.stack(spread, axis=1)], axis=1)


def _pairs() -> list[tuple[str, str]]:
    return [(name[-2], name[-1]) for name in _SPREAD]


def candidates(context: Context) -> NDArray[np.bool_]:
    """Objects small enough to be fitted, of kinds that are round."""
    known = context.objects
    radius = np.cbrt(known.counts * 3 / (4 * np.pi))
    return np.asarray(np.isin(known.kinds, ("bubble", "pore")) & (radius <= LARGEST_PX))


def ball_volumes(got: Gathered, context: Context) -> tuple[DoubleArray, DoubleArray, NDArray[np.bool_]]:
    """Volume of each object by a fit of an ellipsoid, its standard error, and whether there is one.

    The mean over all directions of the profile of a blurred ball, whose radius goes with the direction as
    that of an ellipsoid with the axis ratios of the mask, is fitted to the measured radial profile: unknown
    are volume and a constant background, of each, and the blur, which all share. Faces say how sharp a scan
    is along its axis; what balls show of it holds for slices too, and for centres that are not known better
    than their masks. Low frequencies weigh most, where noise is least. Voxels of void.
    """
    n = len(context.objects.ids)
    volume, error = np.full(n, np.nan), np.full(n, np.nan)
    axes = axis_ratios(got, context)
    rows = np.flatnonzero(candidates(context) & (axes.min(axis=1) > _FLATTEST * axes.max(axis=1)))
    if len(rows):
        blur = _common_blur(got, context, rows[:: -(-len(rows) // _SAMPLE)], axes)
        model = _table(blur)
        for first in range(0, len(rows), _BATCH):
            i = rows[first : first + _BATCH]
            fit = _fitted(got, context, i, directions=_directions(axes[i]), model=model)
            volume[i], error[i] = 4 / 3 * np.pi * fit.radius**3, _fit_error(fit, context, i)
    return volume, error, np.isfinite(volume)


def _common_blur(got: Gathered, context: Context, rows: Whole, axes: DoubleArray) -> float:
    """The blur at which these balls fit best, with that of the faces as a first guess of some error."""
    usual = context.scene.blur_px
    tried = usual * _BLURS
    noise = _noise_per_voxel(context)[rows]
    costs = []
    for blur in tried:
        fit = _fitted(got, context, rows, directions=_directions(axes[rows]), model=_table(blur))
        misfit = np.where(np.isfinite(noise), fit.misfit / noise**2, 0.0)
        # one that no ball fits must not outvote the others
        costs.append(float(np.minimum(misfit, _MOST_MISFIT).sum()) + ((blur / usual - 1) / _BLUR_ERROR) ** 2)
    at = int(np.clip(np.argmin(costs), 1, len(costs) - 2))
    low, middle, high = costs[at - 1 : at + 2]
    bend = low - 2 * middle + high
    step = 0.0 if bend <= 0 else float(np.clip((low - high) / (2 * bend), -1, 1))
    return float(tried[at] + step * (tried[1] - tried[0]))


def axis_ratios(got: Gathered, context: Context) -> DoubleArray:
    """(n, 3) semi-axes of the ellipsoid of the mask's moments, ascending, geometric mean 1."""
    number = np.maximum(context.objects.counts, 1)
    tensor = np.zeros((len(number), 3, 3))
    for name, (i, j) in zip(_SPREAD, _pairs(), strict=True):
        a, b = "zyx".index(i), "zyx".index(j)
        tensor[:, a, b] = tensor[:, b, a] = got.fraction(name) / number
    # a voxel has a spread of its own
    axes = np.sqrt(np.linalg.eigvalsh(tensor + np.eye(3) / 12))
    return np.asarray(axes / np.cbrt(axes.prod(axis=1))[:, None])


def _directions(axes: DoubleArray) -> DoubleArray:
    """(n, directions) radius of each ellipsoid over that of the ball of its volume, equal weights."""
    steps = (np.arange(5) + 0.5) / 5
    height, turn = (v.ravel() for v in np.meshgrid(steps, steps * np.pi / 2))
    flat = np.sqrt(1 - height**2)
    unit = np.stack([height, flat * np.cos(turn), flat * np.sin(turn)])
    return np.asarray(1 / np.sqrt(((unit[None] / axes[:, :, None]) ** 2).sum(axis=1)))


@dataclass(frozen=True, eq=False)
class _Fit:
    radius: DoubleArray
    left: DoubleArray
    misfit: DoubleArray


def _fitted(
    got: Gathered, context: Context, rows: Whole, *, directions: DoubleArray, model: FloatArray
) -> _Fit:
    sums, voxels = got.block(_SUMS)[rows] / FIXED, got.block(_COUNTS)[rows].astype(float)
    start = np.cbrt(context.objects.counts[rows] * 3 / (4 * np.pi))
    seen = voxels * ((start * directions.max(axis=1))[:, None] + _BEYOND_PX >= _RADII)
    profile = np.divide(sums, voxels, out=np.zeros_like(sums), where=voxels > 0)
    weight = seen[:, :, None] * _smoothing() * seen[:, None, :]
    radius, background = np.maximum(start, 0.8), np.zeros(len(rows))
    left, rest = np.zeros((len(rows), 2, 2)), profile
    for _ in range(_STEPS):
        shape = np.zeros((2, *profile.shape))
        _mean_profile(radius, directions, model, shape)
        jacobian = np.stack([shape[1], np.ones_like(profile)], axis=2)
        rest = profile - shape[0] - background[:, None]
        # weights are symmetric
        to_both = (weight @ jacobian).transpose(0, 2, 1)
        left = to_both @ jacobian + np.eye(2) * 1e-9
        change = np.linalg.solve(left, to_both @ rest[:, :, None])[:, :, 0]
        radius = np.clip(radius + np.clip(change[:, 0], -0.5, 0.5), 0.3, start + 3)
        background += change[:, 1]
    return _Fit(radius, left, np.einsum("nk,nkl,nl->n", rest, weight, rest))


def _noise_per_voxel(context: Context) -> DoubleArray:
    """As if white, at the scale of a blurred surface, of each object."""
    n = len(context.objects.ids)
    thick = np.full(n, 3.5 * np.hypot(context.scene.blur_px, _WHITEN_PX))
    return noise_of_sum(np.ones(n), context, thickness_px=thick)


def _fit_error(fit: _Fit, context: Context, rows: Whole) -> DoubleArray:
    """Standard error of the volume: noise as if white at the scale of the blurred surface."""
    variance = np.linalg.inv(fit.left)[:, 0, 0] * _noise_per_voxel(context)[rows] ** 2
    return np.asarray(4 * np.pi * fit.radius**2 * np.sqrt(np.maximum(variance, 0)))


def _table(blur_px: float) -> FloatArray:
    """(radius, bin) profile of a ball blurred by a Gaussian, closed form; radii in steps of 1 / _PER_PX."""
    # a bin averages over its width
    sigma = float(np.hypot(blur_px, _STEP_PX / np.sqrt(12)))
    r, big = _RADII[None], (np.arange(_LARGEST * _PER_PX + 2) / _PER_PX)[:, None]
    far, near = (big + r) / (np.sqrt(2) * sigma), (big - r) / (np.sqrt(2) * sigma)
    rim = sigma / (np.sqrt(2 * np.pi) * r) * (np.exp(-(near**2)) - np.exp(-(far**2)))
    return np.asarray((erf(near) + erf(far)) / 2 - rim, np.float32)


@numba.njit(cache=True, nogil=True)
def _mean_profile(radius, directions, table, out):  # type: ignore[no-untyped-def]
    """Mean over directions of the profile of each ball, and its slope by the radius."""
    n, bins = len(radius), table.shape[1]
    for i in range(n):
        for j in range(directions.shape[1]):
            at = min(radius[i] * directions[i, j] * _PER_PX, float(len(table) - 2))
            low = int(at)
            part = at - low
            for k in range(bins):
                step = table[low + 1, k] - table[low, k]
                out[0, i, k] += table[low, k] + part * step
                out[1, i, k] += step * _PER_PX * directions[i, j]
        for k in range(bins):
            out[0, i, k] /= directions.shape[1]
            out[1, i, k] /= directions.shape[1]


def _smoothing() -> DoubleArray:
    """Mean of a three-dimensional Gaussian over two shells of these radii, for each pair of bins."""
    r, s = _RADII[:, None], _RADII[None, :]
    w2 = _WHITEN_PX**2
    near = np.exp(-((r - s) ** 2) / (2 * w2)) - np.exp(-((r + s) ** 2) / (2 * w2))
    return np.asarray((2 * np.pi * w2) ** -1.5 * w2 / (2 * r * s) * near)
