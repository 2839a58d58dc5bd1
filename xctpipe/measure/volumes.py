"""Volumes from missing attenuation, which thin and small things do not lose as they lose voxels."""

import numpy as np
from numpy.typing import NDArray

from xctpipe.measure.balls import ball_sums, ball_volumes
from xctpipe.measure.regions import ALL, CHIPS, CRACKS, VOIDS, Context, Region
from xctpipe.measure.registry import FIXED, Gathered, Whole, gather, measurement
from xctpipe.measure.shells import shell_sums, shell_volumes
from xctpipe.measure.surfaces import chords, crofton_area_px
from xctpipe.measure.tails import left_blurred
from xctpipe.measure.uncertainty import noise_of_sum, offset_noise
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.segment.scene import OUTSIDE
from xctpipe.segment.smooth import reach_px, smooth

MEASURED = (*VOIDS, *CHIPS)
_CLIP_SIGMA = 4.0
# of sums: how far a fit may be from them
_FAR_SIGMAS, _FAR_FRAC = 4.0, 0.1
# blurs narrower than the mask by this lose nothing
_WHOLE_SIGMAS = 3.0
_Z95 = 1.96
# of the shapes and the blur that fits assume
_FIT_FRAC = 0.02
# cracks thinner than this need not be found
_UNSEEN_PX = 0.6
# the mask of a crack is wider than the crack, and begins within the chip beside it
_CHIP_LESS_PX, _CHIP_MORE_PX = 0.5, 1.5


@gather(columns=("voxels", "view_voxels"))
def counts(region: Region) -> Whole:
    """Voxels of each object, and those of them in their layer."""
    inside = region.d2 == 0
    return np.stack([region.counts(inside), region.counts(inside & region.in_host)], axis=1)


_SUMS = ("mask_sum", "mask_voxels", "mask_caught", "wide_sum", "wide_voxels", "wide_caught", "caught")
_TAILS = ("mask_tail", "wide_tail", "ring_tail")


@gather(columns=(*_SUMS, "ring_sum", "ring_voxels", *_TAILS))
def deficits(region: Region) -> Whole:
    """Missing attenuation within the mask, a wider one and the ring; what the masks catch of it."""
    context, d = region.context, np.sqrt(region.d2)
    mask, wide = (region.in_host & (d <= reach) for reach in (context.mask_px, context.wide_px))
    ring = region.clear & (d > context.gap_px)
    smooth = (d == 0).astype(np.float64)
    if context.mask_px < _WHOLE_SIGMAS * context.scene.blur_px:
        smooth = _blurred_objects(region)[region.place].astype(np.float64)
    everywhere = d <= context.wide_px
    # near a face of the layer `whole_missing` makes up for what lies beyond it
    seen = region.patch.hosts[region.place] != OUTSIDE
    limits = _CLIP_SIGMA * _single_noise(region)
    calm = np.clip(region.missing, -limits, limits)
    sums = [
        *(
            part
            for where, reach in ((mask, context.mask_px), (wide, context.wide_px))
            for part in (
                region.fixed(region.whole_missing, where),
                region.counts(where),
                region.fixed(smooth, seen & (d <= reach)),
            )
        ),
        region.fixed(smooth, everywhere),
        region.fixed(calm, ring),
        region.counts(ring),
        *(region.fixed(left_blurred(region), where) for where in (mask, wide, ring)),
    ]
    return np.stack(sums, axis=1)


def _single_noise(region: Region) -> DoubleArray:
    """Noise of a voxel in parts of a void, for each voxel of the region."""
    context = region.context
    noise = np.array([lev.noise_cm1 if (lev := context.level(int(h))) else 1e4 for h in context.hosts])
    share: DoubleArray = noise / context.contrasts
    return np.nan_to_num(share, nan=1e4)[region.known][region.slot]


def _blurred_objects(region: Region) -> FloatArray:
    """Objects of the patch, blurred as the image is; right in the core."""
    patch, sigma = region.patch, region.context.scene.blur_px
    margin = reach_px(sigma) + 1
    box = tuple(
        slice(max(part.start - margin, 0), min(part.stop + margin, n))
        for part, n in zip(patch.core, patch.objects.shape, strict=True)
    )
    out = np.zeros(patch.objects.shape, np.float32)
    solid = (region.lacking[box] > 0).astype(np.float32)
    out[box] = smooth(solid, sigma_px=sigma)
    return out


def missing_px(got: Gathered, context: Context, *, which: str = "mask") -> DoubleArray:
    """Void-equivalent volume of each object in voxels, by the plain sum over its mask.

    The ring's mean is taken off each voxel of the mask. Where the blur is wide for the mask, what this misses
    of the blurred object is made up for by the share that an object of the same shape would lose.
    """
    background = got.fraction("ring_sum") / np.maximum(got["ring_voxels"], 1)
    plain = got.fraction(f"{which}_sum") - got[f"{which}_voxels"] * background
    # objects cut by the view or the ends of the volume keep what is within
    kept = got.fraction(f"{which}_caught") / np.maximum(got.fraction("caught"), 1 / FIXED)
    return np.asarray(plain / np.clip(_with_tails(kept, got, context, which=which), 0.5, 1.0))


def _with_tails(kept: DoubleArray, got: Gathered, context: Context, *, which: str = "mask") -> DoubleArray:
    """Share that a mask keeps of an object, of which phase retrieval left a part blurred.

    That part reaches into the ring as well, whose mean is taken off.
    """
    frac = context.left_frac
    if not frac:
        return kept
    ring = got.fraction("ring_tail") / np.maximum(got["ring_voxels"], 1)
    far = (got.fraction(f"{which}_tail") - got[f"{which}_voxels"] * ring) / np.maximum(got["voxels"], 1)
    metal = context.objects.kinds == "crack_filled"
    return np.where(metal, (1 - frac) * kept + frac * far, kept)


def void_px(got: Gathered, context: Context) -> tuple[DoubleArray, DoubleArray]:
    """Void-equivalent volume in voxels and its standard error: by fits where there is one, else by sums."""
    value, error, _ = _estimates(got, context)
    return value, error


def _estimates(got: Gathered, context: Context) -> tuple[DoubleArray, DoubleArray, NDArray[np.bool_]]:
    made: tuple[DoubleArray, DoubleArray, NDArray[np.bool_]] = got.once("volumes", _estimated, context)
    return made


def _estimated(got: Gathered, context: Context) -> tuple[DoubleArray, DoubleArray, NDArray[np.bool_]]:
    """Volume in voxels, its standard error, and whether it was fitted."""
    plain = total = missing_px(got, context)
    error = noise = plain_error_px(got, context)
    fit = np.zeros(len(plain), np.bool_)
    for fits in (shell_volumes, ball_volumes):
        fitted, fit_error, good = fits(got, context)
        # a fit that the sum contradicts has the wrong shape or blur
        good = good & (np.abs(fitted - total) < _FAR_SIGMAS * noise + _FAR_FRAC * np.abs(total))
        plain, error = np.where(good, fitted, plain), np.where(good, fit_error, error)
        fit |= good
    # chips miss nothing
    chip = np.isin(context.objects.kinds, CHIPS)
    return np.where(chip, got["voxels"], plain), np.where(chip, 0.0, error), fit


def plain_error_px(got: Gathered, context: Context) -> DoubleArray:
    """Standard error of the plain sum: noise of the mask, and of the ring's mean times the mask."""
    n, ring = got["mask_voxels"].astype(float), got["ring_voxels"].astype(float)
    thickness = np.cbrt(np.maximum(n, 1.0))
    sheets = np.isin(context.objects.kinds, CRACKS)
    thickness = np.where(sheets, np.minimum(thickness, 2 * context.mask_px + 1), thickness)
    noise = noise_of_sum(n, context, thickness_px=thickness)
    return np.hypot(noise, n * offset_noise(ring, context))


def fill_factor(context: Context) -> tuple[DoubleArray, DoubleArray]:
    """(smallest, largest) true volume per void-equivalent one: metal misses less."""
    low = np.ones(len(context.objects.ids))
    metal, kinds, fills = 1 / context.metal_frac, context.objects.kinds, context.fills
    void = np.zeros(len(low), np.bool_) if fills is None else fills == "void"
    # what retrieval left blurred of metal is made up for where it is known to be metal
    high = np.where(np.isin(kinds, CRACKS) & ~void, 1 / context.metal_seen_frac, low)
    filled = kinds == "crack_filled"
    return np.where(filled, metal, low), np.where(filled, metal, high)


def _volumes_um3(got: Gathered, context: Context) -> tuple[DoubleArray, DoubleArray]:
    """Volume and statistical standard error of each object (um^3)."""
    value, error = void_px(got, context)
    factor = fill_factor(context)[0] * context.voxel_um3
    return value * factor, error * factor


@measurement(kinds=MEASURED, gathers=(counts, deficits, ball_sums, shell_sums))
def volume_um3(got: Gathered, context: Context) -> DoubleArray:
    """Volume by missing attenuation, um^3.

    V = voxel^3 * sum over the object's mask (its voxels and those within mask_px, of its own layer, nearer to
    no other object) of u (expected - grey) / mu_host - background, where the background is the mean over a
    ring about it and u makes up for what the blur at a face of the layer hides (`recovery`). `crack_filled`
    is divided by 1 - mu_NaK / mu_NASICON; a crack of unknown fill is read as void, the lower end of its
    bracket, since nothing seen speaks for metal. Bubbles and pores are fitted instead, small ones by a
    blurred ellipsoid (`ball_volumes`), others by their surface (`shell_volumes`). Chips miss nothing: theirs
    is the count. Within the view only.
    Bias: 1 to 3 % by the fits; sums: none by blur or partial volume; that of the expected grey value times
    the mask; what lies beyond the mask of a crack that ends too thin to be found. A crack said to be void
    but filled reads 10 % low; a chip 20 to 50 % low, by the mask of the crack beside it.
    Source: Ketcham 2010, 10.1130/GES00569.1 (missing attenuation).
    """
    return _volumes_um3(got, context)[0]


@measurement(kinds=MEASURED, gathers=(counts, deficits, ball_sums, shell_sums))
def volume_error_um3(got: Gathered, context: Context) -> DoubleArray:
    """Standard error of `volume_um3` by noise alone, um^3.

    From the measured standard deviation of means over cubes, since noise of a reconstruction is not white
    (`noise_of_sum`), and that of the ring's mean times the mask. Bias: sheets are taken as independent cubes
    of their thickness, which overrates noise that falls faster than white.
    Source: error propagation.
    """
    return _volumes_um3(got, context)[1]


def systematic_px(got: Gathered, context: Context) -> DoubleArray:
    """Standard errors beside noise: mask width, the face that it lies on, calibration, shape."""
    width = missing_px(got, context) - missing_px(got, context, which="wide")
    scale = np.abs(width) / 2
    value, error, fit = _estimates(got, context)
    # fits know no mask
    mask = np.where(fit, 0.0, np.minimum(scale, 2 * error + 0.05 * np.abs(value)))
    share = np.hypot(context.calibration_frac, _FIT_FRAC)
    others = np.hypot(_face_error_px(got, context), share * value)
    return np.asarray(np.hypot(mask, others))


def _face_error_px(got: Gathered, context: Context) -> DoubleArray:
    """Uncertain height of the interface times the area that an object covers of it, in void-equivalents."""
    face = context.scene.surfaces.get("interface")
    if face is None:
        return np.zeros(len(context.objects.ids))
    solid, liquid = context.scene.solid, context.scene.liquid
    jump = abs(solid.mu_cm1 - liquid.mu_cm1) if solid and liquid else np.nan
    columns = got["face_columns"].astype(float)
    # columns near each other err together: over about 3 x 3 of them
    height = face.sigma_px * np.minimum(1.0, 3 / np.sqrt(np.maximum(columns, 1)))
    return np.asarray(np.nan_to_num(columns * height * jump / context.contrasts))


@gather(columns=("face_columns",))
def face_columns(region: Region) -> Whole:
    """Columns in which an object's mask meets the interface."""
    face = region.context.scene.surfaces.get("interface")
    if face is None:
        return np.zeros((len(region.ids), 1), np.int64)
    z, y, x = region.coordinates
    height = face.height_px[y, x].astype(np.float64)
    at = (np.floor(np.nan_to_num(height, nan=-1.0) + 0.5) == z) & (
        region.d2 <= min(region.context.mask_px, 1.5) ** 2
    )
    return region.counts(at)[:, None]


def _unseen_frac(got: Gathered, context: Context) -> DoubleArray:
    """Share of a crack's volume that may lie where it is too thin to be found, at its ends.

    An elliptic crack of the middle opening w holds (v / w)^3 of its volume where it is thinner than v.
    """
    # gathered by `openings`, which needs volumes itself
    area = got.fraction("sheet_area")
    opening = np.maximum(missing_px(got, context), 1e-9) / np.maximum(area, 1e-9)
    share = np.minimum(_UNSEEN_PX / np.maximum(opening, _UNSEEN_PX), 1.0) ** 3
    return np.where(np.isin(context.objects.kinds, CRACKS) & (area > 0), share, 0.0)


def interval_um3(got: Gathered, context: Context) -> tuple[DoubleArray, DoubleArray]:
    """(low, high) of the volume, um^3; see `volume_low_um3`."""
    value, error = void_px(got, context)
    half = _Z95 * np.hypot(error, systematic_px(got, context))
    low, high = fill_factor(context)
    below, above = value - half, (value + half) * (1 + _unseen_frac(got, context))
    chip, surface = np.isin(context.objects.kinds, CHIPS), crofton_area_px(got)
    below = np.where(chip, value - _CHIP_LESS_PX * surface, below)
    above = np.where(chip, value + _CHIP_MORE_PX * surface, above)
    first: DoubleArray = np.maximum(below, 0) * low * context.voxel_um3
    last: DoubleArray = np.maximum(above, 0) * high * context.voxel_um3
    return first, last


@measurement(kinds=MEASURED, gathers=(counts, deficits, ball_sums, shell_sums, face_columns, chords))
def volume_low_um3(got: Gathered, context: Context) -> DoubleArray:
    """Lower end of the 95 % interval of `volume_um3`, um^3.

    V - 1.96 sqrt(statistical^2 + systematic^2), at least 0; systematic is half of what a mask wider by 1.5
    voxels changes (of sums), the uncertain height of the interface times the area on it, the calibration and
    2 % for the shape. A crack counts as void here unless it was measured to hold metal. A chip's bracket is
    its count less half a voxel of its surface. Bias: an interval of a sum of few voxels is taken as normal.
    Source: error propagation.
    """
    return interval_um3(got, context)[0]


@measurement(kinds=MEASURED, gathers=(counts, deficits, ball_sums, shell_sums, face_columns, chords))
def volume_high_um3(got: Gathered, context: Context) -> DoubleArray:
    """Upper end of the 95 % interval of `volume_um3`, um^3; a crack of unknown fill counts as metal here.

    As `volume_low_um3`, with V / (1 - mu_NaK / mu_NASICON) for cracks, unless they were measured to be void:
    in thin ones both look alike; and what an elliptic crack has where it is thinner than 0.6 voxels is added,
    since masks end there. A chip's is its count and 1.5 voxels of its surface. Bias: as there. Source:
    error propagation.
    """
    return interval_um3(got, context)[1]


@measurement(kinds=ALL, gathers=(counts,))
def count_volume_um3(got: Gathered, context: Context) -> DoubleArray:
    """Voxels times their volume, um^3, to stand beside `volume_um3`.

    Bias: follows the mask, which is wider than a thin crack by one to three voxels (several times its volume)
    and loses the rim of blurred balls. Source: counting.
    """
    return np.asarray(got["voxels"] * context.voxel_um3, np.float64)


def background_frac(got: Gathered) -> NDArray[np.float64]:
    """Mean of the ring in parts of a void."""
    return np.asarray(got.fraction("ring_sum") / np.maximum(got["ring_voxels"], 1))
