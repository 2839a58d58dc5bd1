"""Voxels that may belong to a void or an inclusion, from how far the grey differs from the undisturbed cell.

The residual is expected minus measured grey: 0 in the undisturbed cell, the attenuation of the host in a
void. In NASICON a voxel is a candidate where the Gaussian mean of the residual is high, or where the filter
for plates answers; what is below the lower threshold is not, and a component counts when it holds a voxel
above the upper one (hysteresis). In NaK, whose contrast to a void is weak, the mean alone decides, taken
over NaK only. Thresholds come from the noise, never from percentiles of what is looked for: those of the
plate filter from its answers to the negated residual, in which there are no plates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xctpipe.scan import FloatArray
from xctpipe.segment import lying
from xctpipe.segment.mean_within import mean_within
from xctpipe.segment.scene import LIQUID, SOLID
from xctpipe.segment.sheet import plate_response
from xctpipe.segment.smooth import further, reach_px, smooth

Codes = NDArray[np.uint8]

SOLID_VOID, LIQUID_VOID, BRIGHT = 1, 2, 3
KIND_BITS, SEED = 3, 4
"""A candidate is its kind, plus SEED above the upper threshold."""

BROAD_PX = 1.5
"""Width of the mean that finds bodies of any shape."""
EDGE_PX = 0.7
"""Width of the mean whose half height is the outline of a thick body: more would shrink small ones."""
RIDGE_FRAC, _RIDGE_PX = 0.55, 2
"""Of a thin body those voxels are kept that reach this share of the highest mean near by; its outline is
drawn within them, once it is known how much the whole body misses."""
_BASE_PX = 1.0
_LEAST_SIGMAS = 2.0
_PLATE_LOW, _PLATE_HIGH = 1.7, 2.5
_NULL_FRAC = 0.9999
_LEAST_NULL_SIGMAS = 1.0
"""Noise alone answers 1.1 to 2.7 standard deviations of the mean; none at all where a wide crack fills what
thresholds are taken from."""
_LIQUID_WIDTHS_PX = (1.0, 1.5, 2.0, 3.0, 4.0)
_LIQUID_SIGMAS, _LIQUID_LOW_FRAC, _LIQUID_SEED_FRAC, _LIQUID_SEED_SIGMAS = 4.5, 0.45, 0.55, 6.0
_LYING_FRACS, _LYING_SIGMAS = (0.12, 0.25), (2.5, 4.8)
_EDGE_FRAC = 0.4
ROUND_PX, _ROUND_REACH_PX = 2.5, 5
"""Wide bodies in NaK, of a radius from about 5 voxels, are drawn by a mean this wide."""
_CORE_FRAC, _ROUND_CORE_FRAC = 0.75, 0.6
"""They hold a core that misses more than this share of the contrast, by the mean that seeks and by the wider
one. Both ways to draw them agree where the core ends, so that noise of one voxel moves no outline."""
_ROUND_TOPS, _ROUND_FRACS = (0.6, 0.75, 0.876, 0.91, 0.95), (0.27, 0.30, 0.334, 0.40, 0.41)
"""What the mean of a ball is on its surface, by what it is near its middle: less than half, since it is
round, and less the smaller it is. In closed form up to a radius of 2.4 widths; of larger ones the middle is
not in reach, and the last share is right for 5 widths."""
_CAPS_PX = 8.0
"""Voids that lie on the interface are flat, and reach no higher; a broad mean would draw them too wide."""
SLACK_PX = 0.08
"""How far a face may lie from where it is drawn: what that explains is no void."""
_BRIGHT_FRAC = 0.1


@dataclass(frozen=True)
class Thresholds:
    """Frozen before any block is looked at, so that results do not depend on blocks; grey values in cm^-1."""

    sigmas_px: tuple[float, ...]
    broad_low: float
    broad_high: float
    plate_least: tuple[float, ...]
    plate_low: tuple[float, ...]
    plate_high: tuple[float, ...]
    solid_cm1: float
    bright_low: float
    liquid_px: float
    liquid_low: float
    liquid_high: float
    liquid_noise: float
    lying_low: float
    lying_high: float
    liquid_cm1: float = 0.0

    @property
    def halo_px(self) -> int:
        """Voxels that candidates depend on, on each side."""
        plates = [reach_px(further(s, done_px=_BASE_PX)) + 1 for s in self.sigmas_px if s > _BASE_PX]
        solid = reach_px(_BASE_PX) + max([*plates, reach_px(further(BROAD_PX, done_px=_BASE_PX))]) + _RIDGE_PX
        return max(solid, reach_px(self.liquid_px), reach_px(ROUND_PX) + _ROUND_REACH_PX, lying.halo_px())


@dataclass(frozen=True, eq=False)
class Sample:
    """A block that thresholds are taken from: residual (z, y, x) in cm^-1, and the hosts of its voxels."""

    residual: FloatArray
    hosts: Codes


def find_thresholds(
    samples: Sequence[Sample],
    *,
    sigmas_px: Sequence[float],
    low_sigma: float,
    high_sigma: float,
    solid_cm1: float,
    liquid_cm1: float,
    bright_cm1: float,
) -> Thresholds:
    """Thresholds from the noise of some blocks, which may hold voids.

    Parameters
    ----------
    samples : blocks spread over the volume; their outermost voxels are not used.
    sigmas_px : scales of the plate filter.
    low_sigma, high_sigma : thresholds of the mean in NASICON, in standard deviations of its noise.
    solid_cm1, liquid_cm1 : what a void in NASICON and in NaK misses.
    bright_cm1 : by how much inclusions exceed NASICON.
    """
    broad = _spread(samples, SOLID, sigma_px=BROAD_PX)
    noise = [_spread(samples, SOLID, sigma_px=s) for s in sigmas_px]
    least = [_LEAST_SIGMAS * n for n in noise]
    null = [
        max(_null_of_plates(samples, sigma_px=s, least=t), _LEAST_NULL_SIGMAS * n)
        for s, t, n in zip(sigmas_px, least, noise, strict=True)
    ]
    width, spread = _liquid_width(samples, liquid_cm1)
    lying_noise = lying.noise_of_columns([s.residual for s in samples], [s.hosts for s in samples])
    return Thresholds(
        sigmas_px=tuple(sigmas_px),
        broad_low=low_sigma * broad,
        broad_high=max(high_sigma * broad, low_sigma * broad),
        plate_least=tuple(least),
        plate_low=tuple(_PLATE_LOW * n for n in null),
        plate_high=tuple(_PLATE_HIGH * n for n in null),
        solid_cm1=solid_cm1,
        bright_low=max(high_sigma * _spread(samples, SOLID, sigma_px=_BASE_PX), _BRIGHT_FRAC * bright_cm1),
        liquid_px=width,
        liquid_low=max(_LIQUID_LOW_FRAC * liquid_cm1, _LIQUID_SIGMAS * spread),
        liquid_high=max(_LIQUID_SEED_FRAC * liquid_cm1, _LIQUID_SEED_SIGMAS * spread),
        liquid_noise=spread,
        lying_low=max(_LYING_FRACS[0] * liquid_cm1, _LYING_SIGMAS[0] * lying_noise),
        lying_high=max(_LYING_FRACS[1] * liquid_cm1, _LYING_SIGMAS[1] * lying_noise),
        liquid_cm1=liquid_cm1,
    )


def _inner(block: NDArray[np.generic], reach: int) -> NDArray[np.generic]:
    part = tuple(slice(min(reach, (n - 1) // 2), n - min(reach, (n - 1) // 2)) for n in block.shape)
    return block[part]


def _values(samples: Sequence[Sample], host: int, means: Sequence[FloatArray], reach: int) -> FloatArray:
    found = [
        _inner(mean, reach)[_inner(sample.hosts, reach) == host]
        for sample, mean in zip(samples, means, strict=True)
    ]
    return np.concatenate(found).astype(np.float32) if found else np.empty(0, np.float32)


def _spread(samples: Sequence[Sample], host: int, *, sigma_px: float) -> float:
    """Standard deviation of a mean over one host, from the lower half: voids lie in the upper one."""
    means = [_mean_of(sample, host, sigma_px) for sample in samples]
    values = _values(samples, host, means, reach_px(sigma_px))
    if not values.size:
        return float("inf")
    middle = np.median(values)
    below = middle - values[values < middle]
    # the median of the lower half of a normal distribution is 0.6745 standard deviations off
    return float(np.median(below) / 0.6745) if below.size else 0.0


def _mean_of(sample: Sample, host: int, sigma_px: float) -> FloatArray:
    if host == LIQUID:
        return mean_within(sample.residual, sample.hosts == LIQUID, sigma_px)
    return smooth(sample.residual, sigma_px=sigma_px)


def _null_of_plates(samples: Sequence[Sample], *, sigma_px: float, least: float) -> float:
    """What the plate filter answers to noise once in ten thousand voxels."""
    answers = []
    for sample in samples:
        mean = smooth(-sample.residual, sigma_px=sigma_px)
        answers.append(plate_response(mean, sigma_px=sigma_px, least=least))
    values = _values(samples, SOLID, answers, reach_px(sigma_px) + 1)
    return float(np.quantile(values, _NULL_FRAC)) if values.size else float("inf")


def _liquid_width(samples: Sequence[Sample], liquid_cm1: float) -> tuple[float, float]:
    """The narrowest mean in which half the contrast of a void stands out of the noise, and its noise."""
    width, spread = _LIQUID_WIDTHS_PX[0], float("inf")
    for width in _LIQUID_WIDTHS_PX:
        spread = _spread(samples, LIQUID, sigma_px=width)
        if _LIQUID_SIGMAS * spread <= 0.5 * liquid_cm1 or not np.isfinite(spread):
            break
    return width, spread


def without_slack(residual: FloatArray, expected: FloatArray) -> FloatArray:
    """Residual less what a shift of a face along z by `SLACK_PX` would explain, not beyond 0.

    Parameters
    ----------
    residual, expected : (z, y, x), cm^-1.
    """
    out = np.empty_like(residual)
    _take_slack(residual, expected, np.float32(SLACK_PX), out)
    return out


@numba.njit(cache=True, nogil=True)
def _take_slack(residual, expected, slack, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = residual.shape
    for z in range(nz):
        low, high = max(z - 1, 0), min(z + 1, nz - 1)
        for y in range(ny):
            for x in range(nx):
                steep = slack * abs(expected[high, y, x] - expected[low, y, x]) / max(high - low, 1)
                value = residual[z, y, x]
                out[z, y, x] = max(value - steep, 0.0) if value > 0.0 else min(value + steep, 0.0)


def find_candidates(
    residual: FloatArray,
    hosts: Codes,
    beside: NDArray[np.bool_],
    *,
    above_px: FloatArray,
    thresholds: Thresholds,
) -> Codes:
    """Kind of candidate of each voxel (z, y, x), with SEED above the upper threshold; 0 where none.

    Voxels nearer than `thresholds.halo_px` to a cut face depend on the cut.

    Parameters
    ----------
    residual : expected minus measured grey, cm^-1.
    hosts : of each voxel.
    beside : NaK so near to a face that the blur of the face reaches it: left out of means over NaK.
    above_px : height above the interface.
    """
    out = np.zeros(residual.shape, np.uint8)
    rows = _rows_of(hosts, SOLID, margin=thresholds.halo_px)
    if rows.stop > rows.start:
        _in_solid(np.ascontiguousarray(residual[rows]), hosts[rows], thresholds, out[rows])
    rows = _rows_of(hosts, LIQUID, margin=reach_px(thresholds.liquid_px))
    if rows.stop > rows.start:
        _in_liquid(
            residual[rows], hosts[rows], beside[rows], above_px=above_px[rows], t=thresholds, out=out[rows]
        )
    _lying(residual, hosts, above_px, thresholds, out)
    return out


def _rows_of(hosts: Codes, host: int, *, margin: int) -> slice:
    """Rows that hold a host, and those that its candidates depend on."""
    rows = np.flatnonzero((hosts == host).any(axis=(1, 2)))
    if not rows.size:
        return slice(0, 0)
    return slice(max(int(rows[0]) - margin, 0), min(int(rows[-1]) + margin + 1, len(hosts)))


def _in_solid(residual: FloatArray, hosts: Codes, t: Thresholds, out: Codes) -> None:
    room = np.empty_like(residual), np.empty_like(residual)
    base = smooth(residual, sigma_px=_BASE_PX, room=(np.empty_like(residual), room[1]))
    broad = smooth(base, sigma_px=further(BROAD_PX, done_px=_BASE_PX), room=(np.empty_like(base), room[1]))
    level = np.zeros(hosts.shape, np.uint8)
    _raise_level(broad, np.float32(t.broad_low), np.float32(t.broad_high), level)
    for i, sigma in enumerate(t.sigmas_px):
        mean = {_BASE_PX: base, BROAD_PX: broad}.get(sigma)
        if mean is None:
            mean = smooth(base, sigma_px=further(sigma, done_px=_BASE_PX), room=room)
        plate = plate_response(mean, sigma_px=sigma, least=t.plate_least[i], out=room[1])
        _raise_level(plate, np.float32(t.plate_low[i]), np.float32(t.plate_high[i]), level)
    edge = smooth(residual, sigma_px=EDGE_PX, room=room)
    _outline(level, broad, edge, np.float32(_EDGE_FRAC * t.solid_cm1), hosts, out)
    _mark_bright(edge, base, hosts, np.float32(t.bright_low), out)


@numba.njit(cache=True, nogil=True)
def _raise_level(plate, low, high, level):  # type: ignore[no-untyped-def]
    flat, kept = plate.ravel(), level.ravel()
    for i in range(len(flat)):
        if flat[i] > high:
            kept[i] = SEED
        elif flat[i] > low and kept[i] == 0:
            kept[i] = 1


@numba.njit(cache=True, nogil=True)
def _mark_bright(edge, base, hosts, low, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = out.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                high = -base[z, y, x]
                if hosts[z, y, x] == SOLID and edge[z, y, x] < -low and high > np.float32(0.5) * low:
                    out[z, y, x] = BRIGHT + (SEED if high > low else 0)


@numba.njit(cache=True, nogil=True)
def _outline(level, broad, edge, half, hosts, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = level.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if level[z, y, x] == 0 or hosts[z, y, x] != SOLID:
                    continue
                kept = edge[z, y, x] > half
                if not kept:
                    kept = broad[z, y, x] >= RIDGE_FRAC * _highest(broad, z, y, x)
                if kept:
                    out[z, y, x] = SOLID_VOID + (SEED if level[z, y, x] == SEED else 0)


@numba.njit(cache=True, nogil=True)
def _highest(mean, z, y, x):  # type: ignore[no-untyped-def]
    nz, ny, nx = mean.shape
    best = mean[z, y, x]
    for c in range(max(z - _RIDGE_PX, 0), min(z + _RIDGE_PX + 1, nz)):
        for b in range(max(y - _RIDGE_PX, 0), min(y + _RIDGE_PX + 1, ny)):
            for a in range(max(x - _RIDGE_PX, 0), min(x + _RIDGE_PX + 1, nx)):
                best = max(best, mean[c, b, a])
    return best


def _in_liquid(
    residual: FloatArray,
    hosts: Codes,
    beside: NDArray[np.bool_],
    *,
    above_px: FloatArray,
    t: Thresholds,
    out: Codes,
) -> None:
    inside = (hosts == LIQUID) & ~beside
    mean = mean_within(residual, inside, t.liquid_px, even_noise=True)
    _mark_liquid(mean, hosts, np.float32(t.liquid_low), np.float32(t.liquid_high), out)
    if t.liquid_px < ROUND_PX:
        core = inside & (mean > _CORE_FRAC * t.liquid_cm1) & (above_px > _CAPS_PX)
        _draw_round((residual, mean, core), hosts, inside, t, out)


def _draw_round(
    seen: tuple[FloatArray, FloatArray, NDArray[np.bool_]],
    hosts: Codes,
    inside: NDArray[np.bool_],
    t: Thresholds,
    out: Codes,
) -> None:
    """Draw bodies that are wide once more, by a broader mean: noise moves their outline less.

    `seen` are the residual, its mean, and where a core may be.
    """
    residual, mean, core = seen
    if t.liquid_cm1 == 0 or not core.any():
        return
    margin, box = reach_px(ROUND_PX) + _ROUND_REACH_PX, []
    for axis in range(3):
        at = np.flatnonzero(core.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(max(int(at[0]) - margin, 0), int(at[-1]) + margin + 1))
    part = (box[0], box[1], box[2])
    broad = mean_within(np.ascontiguousarray(residual[part]), inside[part], ROUND_PX)
    core = core[part] & (broad > _ROUND_CORE_FRAC * t.liquid_cm1)
    near = ndimage.maximum_filter(core, size=2 * _ROUND_REACH_PX + 1) & (hosts[part] == LIQUID)
    top = ndimage.maximum_filter(broad, size=2 * _ROUND_REACH_PX + 1)[near] / np.float32(t.liquid_cm1)
    drawn = np.zeros_like(near)
    drawn[near] = broad[near] > np.interp(top, _ROUND_TOPS, _ROUND_FRACS) * t.liquid_cm1
    out[part][near & ~drawn] = 0
    out[part][drawn] = np.where(mean[part][drawn] > t.liquid_high, LIQUID_VOID + SEED, LIQUID_VOID)


@numba.njit(cache=True, nogil=True)
def _mark_liquid(mean, hosts, low, high, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = out.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if hosts[z, y, x] == LIQUID and mean[z, y, x] > low:
                    out[z, y, x] = LIQUID_VOID + (SEED if mean[z, y, x] > high else 0)


def _lying(residual: FloatArray, hosts: Codes, above_px: FloatArray, t: Thresholds, out: Codes) -> None:
    """Voids that lie on the interface, by their columns."""
    # rows of the NaK that lie low, and of the NASICON under them; all else is no part of a column
    near = (above_px > lying.UNDER_PX[0] - 0.5) & (above_px < max(lying.HIGHEST_PX, lying.BAND_PX[1] + 0.5))
    rows = _rows_of((near & (hosts > 0)).view(np.uint8), 1, margin=0)
    if rows.stop == rows.start:
        return
    seen = residual[rows], above_px[rows], hosts[rows]
    void, sure = lying.voids(*seen, contrast_cm1=t.liquid_cm1, low_cm1=t.lying_low, high_cm1=t.lying_high)
    out[rows][void & (out[rows] == 0)] = LIQUID_VOID
    out[rows][sure] = LIQUID_VOID + SEED
