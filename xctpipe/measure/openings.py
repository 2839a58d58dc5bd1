"""Opening, area, orientation and depth of cracks."""

import numpy as np

from xctpipe.measure.balls import ball_sums
from xctpipe.measure.position import distance_px, gaps, touches
from xctpipe.measure.regions import CRACKS, Context, Region
from xctpipe.measure.registry import FIXED, Gathered, Whole, gather, measurement
from xctpipe.measure.sheets import sheets_of
from xctpipe.measure.shells import shell_sums
from xctpipe.measure.surfaces import chords, crofton_area_px
from xctpipe.measure.volumes import background_frac, counts, deficits, fill_factor, volume_um3
from xctpipe.scan import DoubleArray
from xctpipe.segment.scene import COUNTER_FACE

_BINS, _PER_PX, _LOWEST_PX = 480, 16, -2.0
_DEPTH_BINS, _DEPTH_PER_PX = 2048, 2
_OPENINGS = tuple(f"opening_{i}" for i in range(_BINS))
_DEPTHS = tuple(f"depth_{i}" for i in range(_DEPTH_BINS))
_ANGLE_FLOOR = 1e-9


@gather(columns=("sheet_area", "sheet_column", "sheet_angle", *_OPENINGS))
def profile_openings(region: Region) -> Whole:
    """Area, length of profiles, angle of the normal to z (both times area), and areas by opening."""
    out = np.zeros((len(region.ids), 3 + _BINS), np.int64)
    sheets = sheets_of(region)
    if sheets is None or not len(sheets.owner):
        return out
    slot = np.searchsorted(region.ids, sheets.owner)
    area = np.rint(sheets.area_px * FIXED).astype(np.int64)
    angle = np.arccos(np.clip(sheets.normal_z, 0, 1))
    for i, share in enumerate((np.ones_like(angle), sheets.column_px, angle)):
        np.add.at(out[:, i], slot, np.rint(sheets.area_px * share * FIXED).astype(np.int64))
    bins = np.clip((sheets.opening_px - _LOWEST_PX) * _PER_PX, 0, _BINS - 1).astype(np.int64)
    np.add.at(out, (slot, 3 + bins), area)
    return out


@gather(columns=_DEPTHS)
def sheet_depths(region: Region) -> Whole:
    """Areas of cracks by depth below the reference interface."""
    out = np.zeros((len(region.ids), _DEPTH_BINS), np.int64)
    sheets = sheets_of(region)
    depth = None if sheets is None else region.depth_of(sheets.place)
    if sheets is None or depth is None or not len(sheets.owner):
        return out
    slot = np.searchsorted(region.ids, sheets.owner)
    bins = np.clip(np.nan_to_num(depth) * _DEPTH_PER_PX, 0, _DEPTH_BINS - 1).astype(np.int64)
    np.add.at(out, (slot, bins), np.rint(sheets.area_px * FIXED).astype(np.int64))
    return out


@gather(columns=("sheet_deepest",), combine="max")
def sheet_deepest(region: Region) -> Whole:
    """Greatest depth of a crack's lower face."""
    out = np.full((len(region.ids), 1), -(2**62), np.int64)
    sheets = sheets_of(region)
    depth = None if sheets is None else region.depth_of(sheets.place)
    if sheets is None or depth is None or not len(sheets.owner):
        return out
    slot = np.searchsorted(region.ids, sheets.owner)
    lower = depth + np.clip(sheets.opening_px, 0, None) / 2 * np.minimum(1, sheets.normal_z + 0.0)
    good = np.isfinite(lower)
    np.maximum.at(out[:, 0], slot[good], np.rint(lower[good] * FIXED).astype(np.int64))
    return out


def _quantile(histogram: Whole, share: float, *, low: float, per_px: float) -> DoubleArray:
    """Value below which a share of the area lies, linear within bins; NaN where there is none."""
    total = histogram.sum(axis=1)
    running = np.cumsum(histogram, axis=1)
    wanted = share * total
    at = (running < wanted[:, None]).sum(axis=1).clip(0, histogram.shape[1] - 1)
    rows = np.arange(len(total))
    before = np.where(at > 0, running[rows, at - 1], 0)
    within = (wanted - before) / np.maximum(histogram[rows, at], 1)
    value: DoubleArray = low + (at + within) / per_px
    return np.where(total > 0, value, np.nan)


def _opening_um(got: Gathered, context: Context, share: float) -> DoubleArray:
    raw = _quantile(got.block(_OPENINGS), share, low=_LOWEST_PX, per_px=_PER_PX)
    area = np.maximum(got.fraction("sheet_area"), 1e-9)
    void = raw - background_frac(got) * got.fraction("sheet_column") / area
    return np.asarray(void * fill_factor(context)[0] * context.scene.voxel_um)


_GATHERS = (profile_openings, counts, deficits)


@measurement(kinds=CRACKS, gathers=_GATHERS)
def opening_median_um(got: Gathered, context: Context) -> DoubleArray:
    """Median opening over the area of a crack, um.

    w(x) = integral of (expected - grey) / mu_NASICON along the local normal through the crack's middle (see
    `sheets_of`), less the ring's background; `crack_filled` is divided by 1 - mu_NaK / mu_NASICON.
    Bias: openings are averaged over about 4 voxels along the sheet, which blunts tips and steps.
    Source: Ketcham 2010,
    10.1130/GES00569.1.
    """
    return _opening_um(got, context, 0.5)


@measurement(kinds=CRACKS, gathers=_GATHERS)
def opening_p95_um(got: Gathered, context: Context) -> DoubleArray:
    """Opening that 95 % of a crack's area does not exceed, um.

    As `opening_median_um`. Bias: noise of single places widens the distribution, by 0.1 to 0.2 voxel.
    Source: Ketcham 2010, 10.1130/GES00569.1.
    """
    return _opening_um(got, context, 0.95)


@measurement(kinds=CRACKS, gathers=(*_GATHERS, ball_sums, shell_sums))
def opening_mean_um(got: Gathered, context: Context) -> DoubleArray:
    """Volume over area of one face, um: w = V / A.

    Bias: that of the area, which a mask that ends early or late changes. Source: definition.
    """
    area = got.fraction("sheet_area") * context.scene.voxel_um**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(area > 0, volume_um3(got, context) / area, np.nan))


@measurement(
    kinds=("bubble", "interfacial_void", "pore", "chip", "inclusion", *CRACKS, "unresolved"),
    gathers=(profile_openings, chords, counts),
)
def area_um2(got: Gathered, context: Context) -> DoubleArray:
    """Surface of an object; of a crack that of one face, um2.

    Cracks: A = sum over middle voxels of voxel^2 / |n_axis| (see `sheets_of`), exact for planes. Bias: the
    mask is cut off within a voxel or two of a tip; T-junctions lose about the opening. Others: Crofton's on
    the mask (`crofton_area_px`), within 2 % for balls of 3 voxels and more.
    Source: Ohser and Muecklich 2000, Statistical Analysis of Microstructures in Materials Science.
    """
    sheet = np.isin(context.objects.kinds, CRACKS)
    area = np.where(sheet, got.fraction("sheet_area"), crofton_area_px(got))
    return np.asarray(area * context.scene.voxel_um**2)


@measurement(kinds=CRACKS, gathers=(profile_openings,))
def phi_deg(got: Gathered, context: Context) -> DoubleArray:
    """Mean angle between the normals of a crack and the axis of the cell, weighted by area, degrees.

    0 is a lateral crack, 90 a transverse one. Bias: pulled towards the main axes of voxels by some degrees
    where a mask is one voxel thick. Source: structure tensor, Bigun and Granlund 1987.
    """
    area = np.maximum(got.fraction("sheet_area"), _ANGLE_FLOOR)
    angle = np.degrees(got.fraction("sheet_angle") / area)
    return np.where(got["sheet_area"] > 0, angle, np.nan)


@measurement(kinds=CRACKS, gathers=(sheet_deepest, gaps))
def depth_um(got: Gathered, context: Context) -> DoubleArray:
    """Greatest depth of a crack below the undeformed interface, um.

    d = side (z - reference(y, x)) of the crack's middle plus half its opening where it lies flat; a crack
    that touches the counter electrode ends there. Bias: the mask ends where the opening falls below what is
    detected. Source: definition.
    """
    deep = got["sheet_deepest"]
    rest = np.where(touches(got, COUNTER_FACE), distance_px(got, COUNTER_FACE), 0.0)
    return np.where(deep > -(2**61), (deep / FIXED + rest) * context.scene.voxel_um, np.nan)


@measurement(kinds=CRACKS, gathers=(sheet_depths,))
def depth_p95_um(got: Gathered, context: Context) -> DoubleArray:
    """Depth below the undeformed interface that 95 % of a crack's area does not exceed, um.

    As `depth_um`, of the middle of the crack. Bias: in steps of half a voxel. Source: definition.
    """
    return _quantile(got.block(_DEPTHS), 0.95, low=0.0, per_px=_DEPTH_PER_PX) * context.scene.voxel_um
