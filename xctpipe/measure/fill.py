"""What fills a crack: nothing, or metal (NaK and Na are not told apart)."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import erf

from xctpipe.measure.regions import CRACKS, Context, Region
from xctpipe.measure.registry import FIXED, Gathered, Part, Whole, gather, measurement
from xctpipe.measure.sheets import sheets_of
from xctpipe.measure.uncertainty import noise_of_sum, offset_noise
from xctpipe.measure.volumes import background_frac, deficits
from xctpipe.scan import DoubleArray

_CORE_PX = 2
_SURE = 2.0
_BINS, _PER_PX, _NARROWEST_PX = 40, 4, 2.25
# of the middle of a mask from that of its crack, along the normal: masks end at whole voxels
_JITTER_PX2 = 0.06
_BLUR_ERROR_PX = 0.05
_LEAST_APART = 1e-3
# of a crack's area: where less of it is wide, those places are junctions
_LEAST_WIDE = 0.1
# standard errors out of what is between void and metal: no sheet
_STRANGE = 3.0
# mean opening from which a mask has a core that no blur reaches
_WIDE_PX = 5.0
_AREAS = tuple(f"middle_area_{i}" for i in range(_BINS))
_MIDDLES = tuple(f"middle_sum_{i}" for i in range(_BINS))
_LENGTHS = tuple(f"middle_opening_{i}" for i in range(_BINS))


@gather(columns=("core_sum", "core_voxels"))
def cores(region: Region) -> Whole:
    """Missing attenuation of voxels of cracks at least 2 voxels within: the blur does not reach them."""
    known = region.context.objects
    cracks = np.isin(known.kinds, CRACKS)
    box = region.box_of(cracks, margin=_CORE_PX + 1)
    deep = np.zeros(len(region.owner), bool)
    if box is not None:
        inside = np.isin(region.patch.objects[box], known.ids[cracks])
        core = np.zeros(region.patch.objects.shape, bool)
        core[box] = ndimage.binary_erosion(inside, np.ones((3, 3, 3)), iterations=_CORE_PX, border_value=1)
        deep = (region.d2 == 0) & core[region.place] & cracks[region.known][region.slot]
    return np.stack([region.fixed(region.missing, deep), region.counts(deep)], axis=1)


@gather(columns=(*_AREAS, *_MIDDLES, *_LENGTHS, "middle_area"))
def middles(region: Region) -> Whole:
    """Area of cracks by opening; what their middle misses, and their opening, times area; area of all."""
    out = np.zeros((len(region.ids), 3 * _BINS + 1), np.int64)
    sheets = sheets_of(region)
    if sheets is None:
        return out
    good = np.isfinite(sheets.central) & (sheets.opening_px >= _NARROWEST_PX * region.context.metal_seen_frac)
    slot = np.searchsorted(region.ids, sheets.owner[good])
    opening, area = sheets.opening_px[good], sheets.area_px[good]
    bins = np.minimum(opening * _PER_PX, _BINS - 1).astype(np.int64)
    for i, share in enumerate((np.ones_like(area), sheets.central[good], opening)):
        np.add.at(out, (slot, i * _BINS + bins), np.rint(area * share * FIXED).astype(np.int64))
    slot = np.searchsorted(region.ids, sheets.owner)
    np.add.at(out[:, -1], slot, np.rint(sheets.area_px * FIXED).astype(np.int64))
    return out


def core_frac(got: Gathered, context: Context) -> tuple[DoubleArray, DoubleArray]:
    """Missing attenuation of the core, 1 in a void and `metal_frac` in metal, and its standard error."""
    n = got["core_voxels"].astype(float)
    mean = got.fraction("core_sum") / np.maximum(n, 1) - background_frac(got)
    thin = np.minimum(np.cbrt(np.maximum(n, 1.0)), 3.0)
    noise = noise_of_sum(np.maximum(n, 1.0), context, thickness_px=thin) / np.maximum(n, 1)
    error = _with_background(noise, got, context)
    return np.where(n > 0, mean, np.nan), np.where(n > 0, error, np.nan)


def _with_background(noise: DoubleArray, got: Gathered, context: Context) -> DoubleArray:
    others = np.hypot(offset_noise(got["ring_voxels"].astype(float), context), context.calibration_frac)
    return np.asarray(np.hypot(noise, others))


def middle_frac(got: Gathered, context: Context) -> tuple[DoubleArray, DoubleArray]:
    """As `core_frac`, from the middle of sheets too thin to have a core.

    A sheet that misses the share a over its opening w misses a erf(w / (2 sqrt 2 sigma)) in its middle, and
    a w along its normal. Both are measured: what is missing along the normal says the opening for each of
    the two fillings, and the middle which of them it is.
    """
    area = got.block(_AREAS) / FIXED
    total, background = area.sum(axis=1), background_frac(got)
    middle = got.block(_MIDDLES) / FIXED - background[:, None] * area
    # the profile that a background adds to is as long as the mask and both margins
    column = np.minimum(got.block(_LENGTHS) / FIXED + (2 * context.mask_px + 1) * area, 20 * area)
    with np.errstate(divide="ignore", invalid="ignore"):
        along = np.nan_to_num((got.block(_LENGTHS) / FIXED - background[:, None] * column) / area)
    blur = float(np.sqrt(context.scene.blur_px**2 + _JITTER_PX2))
    mean, apart = _between(middle, area, along, blur, context)
    others = [_between(middle, area, along, blur + step, context)[0] for step in (-1e-2, 1e-2)]
    slope = np.abs(others[1] - others[0]) / 2e-2
    n = np.maximum(total, 1.0)
    noise = noise_of_sum(n, context, thickness_px=np.minimum(np.cbrt(n), 2.0)) / n
    # all of it counts as much more as the two are nearer to each other than in a wide crack
    error = np.hypot(_with_background(noise, got, context) / apart, slope * _BLUR_ERROR_PX)
    known = (total > _LEAST_WIDE * got.fraction("middle_area")) & np.isfinite(mean)
    with np.errstate(invalid="ignore"):
        known &= (mean > context.metal_seen_frac - _STRANGE * error) & (mean < 1 + _STRANGE * error)
    return np.where(known, mean, np.nan), np.where(known, error, np.nan)


def _between(
    middle: DoubleArray, area: DoubleArray, along: DoubleArray, blur: float, context: Context
) -> tuple[DoubleArray, DoubleArray]:
    """Share that is missing, on a scale where void is 1 and metal `metal_frac`; and its scale, at most 1."""
    metal = context.metal_seen_frac
    void, filled = (a * erf(along / a / (2 * np.sqrt(2) * blur)) for a in (1.0, metal))
    apart = void - filled
    weight = (apart**2 * area).sum(axis=1)
    good = weight > _LEAST_APART**2
    share = (apart * (middle - filled * area)).sum(axis=1) / np.where(good, weight, np.nan)
    scale = np.sqrt(weight / np.maximum(area.sum(axis=1), 1e-9)) / max(1 - metal, 1e-9)
    return np.asarray(metal + (1 - metal) * share), np.asarray(np.clip(scale, 0.05, 1.0))


@measurement(kinds=CRACKS, gathers=(cores, middles, deficits))
def fill_significance(got: Gathered, context: Context) -> DoubleArray:
    """How surely a crack is void (positive) or metal (negative): standard deviations from halfway between.

    (f - (1 + f_metal) / 2) / sigma with f_metal = 1 - mu_NaK / mu_NASICON (less what phase retrieval left
    beside the crack, `Context.metal_seen_frac`), f from the middle of the sheet and
    the known blur (`middle_frac`), or, of cracks too wide for that, the mean of (expected - grey) /
    mu_NASICON over voxels 2 voxels and more within the mask, less the ring's background. NaN where less than
    a tenth of the crack's area is 2.25 voxels wide. sigma holds noise, the background, the calibration and
    the blur. Bias: a core of a mask that is wider than the crack reads low, towards metal.
    Source: likelihood ratio of two normal hypotheses.
    """
    (core, core_error), (middle, middle_error) = core_frac(got, context), middle_frac(got, context)
    sheet = got.fraction("middle_area")
    wide = got.fraction("mask_sum") >= _WIDE_PX * sheet
    known = np.isfinite(middle)
    mean = np.where(known, middle, np.where(wide, core, np.nan))
    error = np.where(known, middle_error, core_error)
    return np.asarray((mean - (1 + context.metal_seen_frac) / 2) / error)


@measurement(kinds=CRACKS, gathers=(cores, middles, deficits))
def fill(got: Gathered, context: Context) -> NDArray[np.str_]:
    """What fills a crack: "void", "metal", or "unknown" within 2 standard deviations of halfway; no unit.

    See `fill_significance`; `metal` is NaK or Na. Bias: as there. Source: as there.
    """
    sure = np.nan_to_num(fill_significance(got, context))
    return np.where(sure > _SURE, "void", np.where(sure < -_SURE, "metal", "unknown"))


def settled(part: Part, context: Context) -> Context:
    """The context with what cracks hold: those that hold metal are `crack_filled`."""
    fills = fill(Gathered(part, context.objects.ids), context)
    kinds = context.objects.kinds.astype("<U16")
    kinds[(kinds == "crack") & (fills == "metal")] = "crack_filled"
    return replace(context, objects=replace(context.objects, kinds=kinds), fills=fills)
