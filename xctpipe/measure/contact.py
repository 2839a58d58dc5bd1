"""Contact of NaK and NASICON: what lies on the interface, how much is blocked, how small a void shows.

Everything works on a band of layers above the interface, which is summed up block by block: layer i holds the
missing share of NaK, f = (expected - grey) / mu, at the distance `blind_px` + i from the interface as it is
used. Nearer to it the blur of the NASICON's edge hides a void: the blind zone.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from xctpipe.measure.caps import Caps, cap_section, fit_caps
from xctpipe.scan import DoubleArray, FloatArray

UNKNOWN, CONTACT, VOID, UNDETERMINED = 0, 1, 2, 3
"""Classes of the contact map; unknown beyond the view and the chamber."""

BLIND_PX = 2.0
"""Safe on rough faces; where the face is known to 0.05 voxel, 1 shows smaller voids and is as safe."""
N_LAYERS = 10
DETECT_LAYERS = 3
SCALES_PX = (1.5, 2.5, 4.0, 6.0)
THRESHOLD = 5.5
"""Standard errors. Places number a million, and the level that is taken off each is measured too."""
POWER = 1.645
"""Standard errors more, with which 95 % of voids are found."""
GROW_PX = 4
_CORE = 0.5
_CALM = 2.0
_RING_PX = 4.0
_FEW = 100.0
_MODEL = 0.25
"""Standard error of the area that a cap's shape adds to what is seen above the blind zone, of that area."""
_MAP_SCALE = 1
BoolArray = NDArray[np.bool_]


def new_band(shape: tuple[int, int], *, n_layers: int = N_LAYERS) -> FloatArray:
    """Empty band (2 n_layers, y, x): sums of weighted shares, then of weights."""
    return np.zeros((2 * n_layers, *shape), np.float32)


def add_to_band(
    band: FloatArray,
    grey: FloatArray,
    *,
    expected: FloatArray,
    height_px: FloatArray,
    first_row: int,
    side: int,
    mu_cm1: float,
    blind_px: float = BLIND_PX,
) -> None:
    """Add the rows of a block to the band of its columns, in place; blocks may come in any order.

    Parameters
    ----------
    band : (2 n_layers, y, x) of the block's columns.
    grey, expected : (z, y, x) the block, without halo, and what an undisturbed cell would show there.
    height_px : (y, x) interface; NaN beyond the view.
    first_row : z of the block's first row.
    side : 1 where NASICON lies at higher z than NaK, -1 where it is the other way round.
    mu_cm1 : attenuation of NaK.
    """
    _add(band, grey, expected, height_px, first_row, side, mu_cm1, blind_px)


@numba.njit(cache=True, nogil=True)
def _add(band, grey, expected, height, first_row, side, mu, blind):  # type: ignore[no-untyped-def]
    nz, ny, nx = grey.shape
    n = band.shape[0] // 2
    for k in range(nz):
        for y in range(ny):
            for x in range(nx):
                # a row between two layers counts for both, by its distance from each
                at = side * (height[y, x] - (first_row + k)) - blind
                if not -1.0 < at < n:
                    continue
                f = (expected[k, y, x] - grey[k, y, x]) / mu
                if not np.isfinite(f):
                    continue
                low = math.floor(at)
                for i in range(low, low + 2):
                    weight = 1.0 - abs(at - i)
                    if 0 <= i < n and weight > 0:
                        band[i, y, x] += weight * f
                        band[n + i, y, x] += weight


@dataclass(frozen=True, eq=False)
class Contact:
    """The contact of an interface; areas in um^2, a cap's limits in um.

    `classes` (y, x) is the map. `contact_frac` is 1 less the area under voids that were found by the area of
    the interface in view; smaller voids than the limits count as contact.
    """

    classes: NDArray[np.uint8]
    contact_frac: float
    contact_frac_sigma: float
    contact_frac_low: float
    contact_frac_high: float
    area_um2: float
    blocked_um2: float
    blocked_sigma_um2: float
    footprint_um2: float
    """Area that voids cover at the height of the blind zone, without any model of their shape."""
    n_voids: int
    caps: Caps
    limit_radius_um: float
    """Base of the smallest half ball that is found in 95 of 100 cases."""
    limit_height_um: float
    """Height of the flattest wide void that is found so."""
    blind_um: float


def measure_contact(
    band: FloatArray,
    *,
    inside: BoolArray,
    axis_px: tuple[float, float],
    voxel_um: float,
    blind_px: float = BLIND_PX,
    blur_px: float = 0.7,
    electrode_um2: float | None = None,
) -> Contact:
    """Contact map and contact fraction of an interface.

    Voids are found where the mean of the lowest layers, smoothed at several scales, falls below the level of
    its surroundings by `THRESHOLD` times its measured noise. Each void's missing share is summed over its
    surroundings, layer by layer (no voxel is classified for that), less the level far from voids at the same
    distance from the axis; a cap of a ball is fitted to these sections (`caps.fit_caps`), and its base is
    the area it blocks.

    Bias: voids below the limits count as contact; a void that is no cap is extrapolated through the blind
    zone as if it were one. `footprint_um2` holds the area without that.

    Parameters
    ----------
    band : (2 n_layers, y, x) from `add_to_band`, of the whole view.
    inside : (y, x) columns that count: in view and, where it is known, in the chamber (`chamber_columns`).
    axis_px : (y, x) of the axis of rotation, about which rings lie.
    blur_px : standard deviation of the scan's blur.
    electrode_um2 : area of the electrode; the interface in view is at most that, since absorption does not
        show where the chamber ends.
    """
    n = len(band) // 2
    seen = inside & (band[n:] > 0.5).any(axis=0)
    shares = np.where(seen & (band[n:] > 0), band[:n] / np.maximum(band[n:], 1e-6), 0.0).astype(np.float32)
    rings = np.hypot(*(np.indices(seen.shape) - np.reshape(axis_px, (2, 1, 1)))) / _RING_PX
    for _ in range(2):
        found = _find(shares[:DETECT_LAYERS].mean(axis=0), seen)
        clean = _clean(found, seen)
        shares -= _levels(shares, rings=rings, clean=clean, seen=seen)
    labels, n_voids = _grown(found, seen)
    low = shares[:DETECT_LAYERS].mean(axis=0)
    sections, sigmas = _sections(shares, labels, n_voids, clean=clean)
    caps = fit_caps(
        sections, sigma_px2=sigmas, distance_px=blind_px + np.arange(n, dtype=np.float64), blur_px=blur_px
    )
    area = min(float(seen.sum()), (electrode_um2 or math.inf) / voxel_um**2)
    level_sigma = _level_sigma(low, clean)
    regions = float((labels > 0).sum())
    blocked = float(caps.area_px2.sum())
    model = _MODEL * abs(blocked - float(sections[:, 0].sum()))
    sigma = math.hypot(caps.total_sigma_px2, regions * level_sigma, model)
    frac, frac_sigma = 1 - blocked / area, sigma / area
    radius, height = _limits(found, blind_px, blur_px)
    return Contact(
        classes=_classes(low, seen, found.mask),
        contact_frac=frac,
        contact_frac_sigma=frac_sigma,
        contact_frac_low=max(frac - 1.96 * frac_sigma, 0.0),
        contact_frac_high=min(frac + 1.96 * frac_sigma, 1.0),
        area_um2=area * voxel_um**2,
        blocked_um2=blocked * voxel_um**2,
        blocked_sigma_um2=sigma * voxel_um**2,
        footprint_um2=float(sections[:, 0].sum()) * voxel_um**2,
        n_voids=n_voids,
        caps=caps,
        limit_radius_um=radius * voxel_um,
        limit_height_um=height * voxel_um,
        blind_um=blind_px * voxel_um,
    )


def chamber_columns(
    shape: tuple[int, int],
    *,
    axis_px: tuple[float, float],
    view_px: float,
    chamber: tuple[float, float, float] | None = None,
) -> BoolArray:
    """Columns (y, x) in view and in the chamber.

    Parameters
    ----------
    chamber : (y, x, radius) of the NaK chamber in voxels, which absorption does not show; None: the view.
    """
    y, x = np.indices(shape)
    inside = np.hypot(y - axis_px[0], x - axis_px[1]) <= view_px
    if chamber is not None:
        inside &= np.hypot(y - chamber[0], x - chamber[1]) <= chamber[2]
    return np.asarray(inside, np.bool_)


@dataclass(frozen=True, eq=False)
class _Found:
    mask: BoolArray
    map: FloatArray
    """Smoothed at the finest scale, less its level."""
    noise: DoubleArray
    """Of the map at each scale."""


def _smooth(values: FloatArray, seen: BoolArray, sigma_px: float) -> FloatArray:
    total = ndimage.gaussian_filter(np.where(seen, values, 0).astype(np.float32), sigma_px, mode="constant")
    weight = ndimage.gaussian_filter(seen.astype(np.float32), sigma_px, mode="constant")
    out: FloatArray = np.where(seen, total / np.maximum(weight, 1e-3), 0)
    return out


def _find(low: FloatArray, seen: BoolArray) -> _Found:
    mask, noise = np.zeros(low.shape, np.bool_), np.zeros(len(SCALES_PX))
    finest = low
    for i, sigma in enumerate(SCALES_PX):
        smooth = _smooth(low, seen, sigma)
        values = smooth[seen]
        if not values.size:
            continue
        # voids make one tail only: the other one is noise alone
        middle = float(np.median(values))
        below = values[values <= middle]
        noise[i] = max(1.4826 * float(np.median(middle - below)), 1e-6)
        if i == _MAP_SCALE:
            finest = smooth - np.float32(middle)
        mask |= seen & (smooth - middle > THRESHOLD * noise[i])
    return _Found(mask, finest, noise)


def _clean(found: _Found, seen: BoolArray) -> BoolArray:
    """Columns far from voids; what stands out either way is left out: it may be a void that was missed."""
    far = seen & ~ndimage.binary_dilation(found.mask, iterations=GROW_PX + 2)
    calm: BoolArray = far & (np.abs(found.map) < _CALM * found.noise[_MAP_SCALE])
    for clean in (calm, far):
        if clean.sum() > 0.05 * seen.sum():
            return clean
    return seen & ~found.mask


def _levels(shares: FloatArray, *, rings: DoubleArray, clean: BoolArray, seen: BoolArray) -> FloatArray:
    """Level of each layer far from voids by distance from the axis, which takes rings out; 0 if unknown."""
    out = np.zeros_like(shares)
    ring = np.round(rings).astype(np.int64)
    n = np.bincount(ring[clean], minlength=int(ring.max()) + 1)
    middle = np.arange(len(n))
    for i, layer in enumerate(shares):
        if not clean.any():
            break
        total = np.bincount(ring[clean], weights=layer[clean], minlength=len(n))
        # rings of few columns lean on the mean of all
        level = (total + _FEW * layer[clean].mean()) / (n + _FEW)
        out[i][seen] = np.interp(rings[seen], middle, level)
    return out


def _grown(found: _Found, seen: BoolArray) -> tuple[NDArray[np.int32], int]:
    """Voids with their surroundings, each place with the nearest void, numbered from 1.

    Voids whose surroundings touch are told apart by their cores, where more than half of the NaK is missing.
    """
    eight = np.ones((3, 3))
    patches, n_patches = ndimage.label(found.mask, eight)
    cores = found.mask & (found.map > _CORE)
    cored = np.zeros(n_patches + 1, np.bool_)
    cored[np.unique(patches[cores])] = True
    # a patch without a core is a void too
    labels, n = ndimage.label(cores | (found.mask & ~cored[patches]), eight)
    away, at = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    reach = ndimage.distance_transform_edt(~found.mask)
    grown = np.where((reach <= GROW_PX) & seen & (away < np.inf), labels[tuple(at)], 0)
    return grown.astype(np.int32), int(n)


def _sections(
    shares: FloatArray, labels: NDArray[np.int32], n_voids: int, *, clean: BoolArray
) -> tuple[DoubleArray, DoubleArray]:
    """Area of each void in each layer (void, layer) in square voxels, and its standard error."""
    numbers = np.arange(1, n_voids + 1)
    sections = np.empty((n_voids, len(shares)))
    sigmas = np.empty_like(sections)
    sizes = np.bincount(labels.ravel(), minlength=n_voids + 1)[1:].astype(np.float64)
    for i, layer in enumerate(shares):
        sections[:, i] = ndimage.sum_labels(layer, labels, numbers) if n_voids else 0
        sigmas[:, i] = _noise_of_sums(layer, clean, sizes)
    return sections, sigmas


def _noise_of_sums(layer: FloatArray, clean: BoolArray, sizes: DoubleArray) -> DoubleArray:
    """Standard deviation of sums over squares as large as `sizes` (square voxels), where it is clean."""
    edges, noise = [], []
    for edge in (3, 5, 7, 11, 15, 21):
        means = ndimage.uniform_filter(np.where(clean, layer, 0), edge, mode="constant")
        whole = ndimage.minimum_filter(clean, edge, mode="constant")
        values = means[whole]
        if values.size >= 40 * min(edge**2, 50):
            edges.append(edge)
            noise.append(1.4826 * float(np.median(np.abs(values - np.median(values)))) * edge**2)
    if not edges:
        spread = float(layer[clean].std()) if clean.any() else 1.0
        return np.asarray(spread * np.sqrt(sizes), np.float64)
    log = np.interp(0.5 * np.log(np.maximum(sizes, 1)), np.log(edges), np.log(np.maximum(noise, 1e-9)))
    beyond = np.maximum(np.sqrt(np.maximum(sizes, 1)) / edges[-1], 1)
    return np.asarray(np.exp(log) * beyond, np.float64)


def _level_sigma(low: FloatArray, clean: BoolArray) -> float:
    """Standard error of the level far from voids, from tiles: it errs over all voids alike."""
    edge = 16
    means = ndimage.uniform_filter(np.where(clean, low, 0), edge, mode="constant")[::edge, ::edge]
    share = ndimage.uniform_filter(clean.astype(np.float32), edge, mode="constant")[::edge, ::edge]
    tiles = means[share > 0.5] / share[share > 0.5]
    return float(tiles.std() / math.sqrt(len(tiles))) if len(tiles) > 3 else 0.1


def _classes(low: FloatArray, seen: BoolArray, voids: BoolArray) -> NDArray[np.uint8]:
    """Void or contact where half of the NaK is missing, or is there, by two standard errors of the map.

    What a fine map cannot tell a smoother one decides, so that maps of scans with a little more noise look
    alike; but not where a void was found, which a smoother map would call contact.
    """
    out = np.where(seen, UNDETERMINED, UNKNOWN)
    unsure = seen
    for sigma in SCALES_PX:
        smooth = _smooth(low, seen, sigma)
        values = smooth[seen]
        noise = 1.4826 * float(np.median(np.abs(values - np.median(values)))) if values.size else 1.0
        out[unsure & (smooth - 2 * noise > 0.5)] = VOID
        out[unsure & (smooth + 2 * noise < 0.5)] = CONTACT
        unsure = (out == UNDETERMINED) & ~voids
    return out.astype(np.uint8)


def _limits(found: _Found, blind_px: float, blur_px: float) -> tuple[float, float]:
    """Radius of the smallest half ball and height of the flattest wide void that are found, in voxels."""
    distance = blind_px + np.arange(DETECT_LAYERS, dtype=np.float64)
    needed = (THRESHOLD + POWER) * found.noise
    radii = np.linspace(0.5, 60, 1191)
    sections = cap_section(distance, base_px=radii[:, None], cosine=np.array(0.0))
    scales = np.array(SCALES_PX) ** 2 + blur_px**2
    # the middle of a disc smoothed by a Gaussian
    shown = 1 - np.exp(-sections / (2 * math.pi * scales[:, None, None]))
    seen = (shown.mean(axis=2) >= needed[:, None]).any(axis=0)
    heights = np.linspace(0, 20, 801)
    covered = special.ndtr((heights[:, None] - distance) / blur_px).mean(axis=1)
    tall = covered >= needed.min()
    radius = float(radii[np.argmax(seen)]) if seen.any() else math.inf
    return radius, float(heights[np.argmax(tall)]) if tall.any() else math.inf
