"""Volumes of larger voids by fitting the blurred step of their surface.

Deep within a void everything is missing, so that noise and drift there say nothing of its size. What does is
where the surface lies with respect to the mask: the mean profile along the distance from the mask's surface.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import erfc

from xctpipe.measure.regions import Context, Region
from xctpipe.measure.registry import FIXED, Gathered, Whole, gather
from xctpipe.measure.uncertainty import noise_of_sum
from xctpipe.scan import DoubleArray, FloatArray

_REACH_PX = 6
_STEP_PX = 0.5
_BINS = int(2 * _REACH_PX / _STEP_PX)
_MIDDLES = (np.arange(_BINS) + 0.5) * _STEP_PX - _REACH_PX
_WHITEN_PX = 0.7
_STEPS = 15
# a mask is not farther off than this
_FARTHEST_PX = 3.0
_SUMS = tuple(f"shell_sum_{i}" for i in range(_BINS))
_COUNTS = tuple(f"shell_voxels_{i}" for i in range(_BINS))


@gather(columns=(*_SUMS, *_COUNTS, "shell_deep"))
def shell_sums(region: Region) -> Whole:
    """Missing attenuation and voxels by signed distance from the surface of round objects."""
    distance = np.where(region.d2 > 0, np.sqrt(region.d2) - 0.5, 0.5 - _depth(region)[region.place])
    fit = candidates(region.context)[region.known][region.slot] & region.in_host
    bins = np.floor((distance + _REACH_PX) / _STEP_PX).astype(np.int64)
    use = fit & (bins >= 0) & (bins < _BINS)
    at = (region.slot * _BINS + bins)[use]
    shape, size = (len(region.ids), _BINS), len(region.ids) * _BINS
    sums = np.bincount(at, np.rint(region.missing[use] * FIXED), minlength=size).reshape(shape)
    numbers = np.bincount(at, minlength=size).reshape(shape)
    deep = region.counts(fit & (bins < 0))[:, None]
    return np.concatenate([sums.astype(np.int64), numbers, deep], axis=1)


def _depth(region: Region) -> FloatArray:
    """Distance of voxels within large objects to the nearest one without, up to a little above the reach."""
    labels, known = region.patch.objects, region.context.objects
    out = np.zeros(labels.shape, np.float32)
    large = candidates(region.context)
    for row in region.known[large[region.known]].tolist():
        box = region.box_of(np.arange(len(large)) == row, margin=1)
        if box is not None:
            inside = labels[box] == known.ids[row]
            # where the volume ends the object may go on
            around = np.pad(inside, 1, mode="edge")
            depth = ndimage.distance_transform_edt(around)[1:-1, 1:-1, 1:-1]
            out[box][inside] = np.minimum(depth[inside], _REACH_PX + 1)
    return out


def candidates(context: Context) -> NDArray[np.bool_]:
    """Bubbles and pores large enough to have an inside."""
    known = context.objects
    return np.asarray(np.isin(known.kinds, ("bubble", "pore")) & (known.counts >= 1000))


def shell_volumes(got: Gathered, context: Context) -> tuple[DoubleArray, DoubleArray, NDArray[np.bool_]]:
    """Volume of each object by a fit of its surface, its standard error, and whether there is one.

    Fitted: m(s) = erfc((s - shift) / (sqrt 2 width)) / 2 + background, with the width from that of the blur
    upwards, since a mask is ragged. V = voxels deeper + sum over distances s of their voxels times m(s)
    without the background. Voxels of void.
    """
    n = len(context.objects.ids)
    volume, error = np.full(n, np.nan), np.full(n, np.nan)
    rows = np.flatnonzero(candidates(context))
    if len(rows):
        volume[rows], error[rows] = _fitted(got, context, rows)
    return volume, error, np.isfinite(volume)


def _fitted(got: Gathered, context: Context, rows: Whole) -> tuple[DoubleArray, DoubleArray]:
    sums, voxels = got.block(_SUMS)[rows] / FIXED, got.block(_COUNTS)[rows].astype(float)
    profile = np.divide(sums, voxels, out=np.zeros_like(sums), where=voxels > 0)
    area = voxels[:, np.abs(_MIDDLES) < 2].sum(axis=1) / 4
    weight = voxels[:, :, None] * _smoothing() * voxels[:, None, :] / np.maximum(area, 1)[:, None, None]
    blur = context.scene.blur_px
    at = _start(profile, weight, blur)
    left = np.zeros((len(rows), 3, 3))
    for _ in range(_STEPS):
        model = _step(at)
        slopes = [(_step(at + 0.01 * np.eye(3)[i]) - model) / 0.01 for i in range(3)]
        to_all = np.einsum("nki,nkl->nil", np.stack(slopes, axis=2), weight)
        left = to_all @ np.stack(slopes, axis=2) + np.eye(3) * 1e-6
        change = np.linalg.solve(left, to_all @ (profile - model)[:, :, None])[:, :, 0]
        at = at + np.clip(change, -0.3, 0.3)
        at[:, 1] = np.clip(at[:, 1], blur, blur + 2)
    # a fit that ran away is none
    at[np.abs(at[:, 0]) > _FARTHEST_PX] = np.nan
    alone = at * [1, 1, 0]
    volume = got["shell_deep"][rows] + (voxels * _step(alone)).sum(axis=1)
    return volume, _fit_error(left, area, context, rows)


def _start(profile: DoubleArray, weight: DoubleArray, blur: float) -> DoubleArray:
    """The best of some shifts, each with its best background: a fit that starts far off may run away."""
    shifts = np.linspace(-_FARTHEST_PX, _FARTHEST_PX, 13)
    ones = weight.sum(axis=2)
    total = np.maximum(ones.sum(axis=1), 1e-9)
    found, best = np.zeros((len(profile), 3)), np.full(len(profile), np.inf)
    for shift in shifts:
        rest = profile - _step(np.array([[shift, blur * 1.2, 0.0]]))
        background = (ones * rest).sum(axis=1) / total
        rest -= background[:, None]
        misfit = np.einsum("nk,nkl,nl->n", rest, weight, rest)
        better = misfit < best
        best[better] = misfit[better]
        here = np.stack([np.full_like(best, shift), np.full_like(best, blur * 1.2), background], axis=1)
        found[better] = here[better]
    return found


def _fit_error(left: DoubleArray, area: DoubleArray, context: Context, rows: Whole) -> DoubleArray:
    n = len(context.objects.ids)
    thick = np.full(n, 2.5 * np.hypot(context.scene.blur_px, _WHITEN_PX))
    per_voxel = noise_of_sum(np.ones(n), context, thickness_px=thick)[rows]
    return np.asarray(area * per_voxel * np.sqrt(np.maximum(np.linalg.inv(left)[:, 0, 0], 0)))


def _step(at: DoubleArray) -> DoubleArray:
    shift, width, background = (at[:, i : i + 1] for i in range(3))
    return np.asarray(erfc((_MIDDLES - shift) / (np.sqrt(2) * width)) / 2 + background)


def _smoothing() -> DoubleArray:
    d = _MIDDLES[:, None] - _MIDDLES
    return np.asarray(np.exp(-(d**2) / (2 * _WHITEN_PX**2)) / (np.sqrt(2 * np.pi) * _WHITEN_PX))
