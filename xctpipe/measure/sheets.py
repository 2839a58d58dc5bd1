"""Cracks as sheets: their middle, their normal, and the opening that is seen along it."""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xctpipe.measure.regions import CLEAR_PX, CRACKS, Box, Region, nearest
from xctpipe.measure.registry import Whole
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.segment.scene import SOLID

_GRADIENT_PX, _WINDOW_PX, _SMOOTH_PX, _TRUNCATE = 1.2, 2.5, 1.7, 3.0
LONGEST_PX = 20
"""Runs of a mask longer than this along its normal's main axis are no sheet."""


@dataclass(frozen=True, eq=False)
class Sheets:
    """Middle voxels of the cracks of a block's core, and the opening at each voxel of their masks."""

    place: tuple[Whole, Whole, Whole]
    """(z, y, x) in the patch of each middle voxel."""
    owner: NDArray[np.int32]
    area_px: DoubleArray
    """Area of the sheet that the voxel stands for."""
    normal_z: DoubleArray
    """Share of the normal along z, absolute."""
    opening_px: DoubleArray
    """In voids: a metal-filled opening reads less. Background not taken off."""
    column_px: DoubleArray
    """Length of the profile along the normal, on which a background adds."""
    central: DoubleArray
    """What the middle voxel misses; NaN where the middle lies between two, or near a face of the layer."""
    voxels: tuple[Whole, Whole, Whole]
    voxel_owner: NDArray[np.int32]
    voxel_opening_px: DoubleArray


def sheets_of(region: Region) -> Sheets | None:
    """Sheets of the core, made once for each block; None where it holds no crack (`_sheets`)."""
    if "sheets" not in region.kept:
        region.kept["sheets"] = _sheets(region)
    kept: Sheets | None = region.kept["sheets"]
    return kept


def _sheets(region: Region) -> Sheets | None:
    """Sheets of the core; None where it holds no crack.

    The normal of a sheet is the direction in which its mask changes most: main axis of the structure tensor
    of the mask (gradient of a Gaussian of 1.2 voxels, averaged over 2.5). Along the axis nearest to the
    normal every run of voxels has a middle, which stands for an area of 1 / |n_axis|. The opening there is
    the sum of what is missing along the whole profile, out to mask_px beyond the mask, times |n_axis|; it is
    averaged over neighbours of the sheet (Gaussian of 1.7 voxels) before it enters any histogram, since a
    single profile carries the noise of a whole row of voxels.
    """
    known = region.context.objects
    cracks = np.isin(known.kinds, CRACKS)
    box = region.box_of(cracks, margin=int(region.context.mask_px) + 2)
    if box is None or not cracks[region.known].any():
        return None
    own = np.where(np.isin(region.patch.objects[box], known.ids[cracks]), region.patch.objects[box], 0)
    own = own.astype(np.int32)
    missing = _missing(region, box)
    normal = _normals(own > 0)
    owner, _ = nearest(region.lacking[box], region.context.mask_px)
    reach = int(np.ceil(region.context.mask_px * np.sqrt(3)))
    opening, area, column, central = _profiles(own, owner, missing, normal, reach)
    smooth = _along_sheet(opening, area > 0)
    central[~_far_from_faces(region, box)] = np.nan
    return _in_core(region, box, own, (area, np.abs(normal[0]), smooth, column, central))


def _far_from_faces(region: Region, box: Box) -> NDArray[np.bool_]:
    """Voxels of NASICON that no face of it blurs into."""
    out = np.ones(tuple(part.stop - part.start for part in box), bool)
    hosts = region.patch.hosts
    for step in (-CLEAR_PX, 0, CLEAR_PX):
        z = np.clip(np.arange(box[0].start, box[0].stop) + step, 0, len(hosts) - 1)
        out &= hosts[z, box[1], box[2]] == SOLID
    return out


def _missing(region: Region, box: Box) -> FloatArray:
    """What each voxel of NASICON misses, in voids; 0 elsewhere."""
    patch, level = region.patch, region.context.level(SOLID)
    mu = level.mu_cm1 if level else np.nan
    gone = (patch.expected[box] - patch.grey[box]) / np.float32(mu)
    out = np.where(patch.hosts[box] == SOLID, np.nan_to_num(gone), 0).astype(np.float32)
    z, y, x = np.nonzero(out)
    out[z, y, x] *= region.gain(SOLID, z + box[0].start, y + box[1].start, x + box[2].start)
    return out


def _normals(mask: NDArray[np.bool_]) -> FloatArray:
    """(3, z, y, x) unit normals at voxels of the mask, 0 elsewhere."""
    solid = mask.astype(np.float32)
    slopes = [
        ndimage.gaussian_filter(solid, _GRADIENT_PX, order=order, truncate=_TRUNCATE, mode="constant")
        for order in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    tensor = np.empty((int(mask.sum()), 3, 3))
    for i in range(3):
        for j in range(i, 3):
            product = ndimage.gaussian_filter(
                slopes[i] * slopes[j], _WINDOW_PX, truncate=_TRUNCATE, mode="constant"
            )
            tensor[:, i, j] = tensor[:, j, i] = product[mask]
    normal = np.zeros((3, *mask.shape), np.float32)
    normal[:, mask] = np.linalg.eigh(tensor)[1][:, :, 2].T
    return normal


def _profiles(
    own: NDArray[np.int32], owner: NDArray[np.int32], missing: FloatArray, normal: FloatArray, reach: int
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Opening, area, length of profile and what is missing in the middle, at middle voxels; 0 elsewhere.

    A profile goes on for `reach` voxels at most beyond the mask: along a sheet, where an edge or a branch of
    it runs beside the profile, it would have no end.
    """
    out = np.zeros((4, *own.shape), np.float32)
    main = np.abs(normal).argmax(axis=0)
    for axis in range(3):
        views = [np.moveaxis(a, axis, 2) for a in (own, owner, missing, np.abs(normal[axis]), main == axis)]
        _profiles_along(*views, reach, np.moveaxis(out, axis + 1, 3))
    return out[0], out[1], out[2], out[3]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _profiles_along(
    own: NDArray[np.int32],
    owner: NDArray[np.int32],
    missing: FloatArray,
    along: FloatArray,
    chosen: NDArray[np.bool_],
    reach: int,
    out: FloatArray,
) -> None:
    ni, nj, nk = own.shape
    for i in range(ni):
        for j in range(nj):
            k = 0
            while k < nk:
                label = own[i, j, k]
                first = k
                k += 1
                if label == 0:
                    continue
                while k < nk and own[i, j, k] == label:
                    k += 1
                middle = (first + k - 1) // 2
                if k - first > LONGEST_PX or not chosen[i, j, middle]:
                    continue
                low, high = first, k
                least, most = max(first - reach, 0), min(k + reach, nk)
                while low > least and owner[i, j, low - 1] == label and own[i, j, low - 1] == 0:
                    low -= 1
                while high < most and owner[i, j, high] == label and own[i, j, high] == 0:
                    high += 1
                total = 0.0
                for m in range(low, high):
                    total += missing[i, j, m]
                share = along[i, j, middle]
                out[0, i, j, middle] = total * share
                out[1, i, j, middle] = 1 / share
                out[2, i, j, middle] = (high - low) * share
                out[3, i, j, middle] = missing[i, j, middle] if (k - first) % 2 == 1 else np.nan


def _along_sheet(opening: FloatArray, middle: NDArray[np.bool_]) -> FloatArray:
    """Mean over neighbouring middle voxels; NaN where there is none."""
    top, bottom = (
        ndimage.gaussian_filter(a.astype(np.float32), _SMOOTH_PX, truncate=_TRUNCATE, mode="constant")
        for a in (np.where(middle, opening, 0), middle)
    )
    return np.where(bottom > 1e-4, top / np.maximum(bottom, np.float32(1e-4)), np.nan).astype(np.float32)


def _in_core(
    region: Region,
    box: Box,
    own: NDArray[np.int32],
    maps: tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray],
) -> Sheets:
    area, normal_z, opening, column, central = maps
    inside = np.zeros(own.shape, bool)
    inside[
        tuple(
            slice(max(c.start - b.start, 0), max(c.stop - b.start, 0))
            for c, b in zip(region.patch.core, box, strict=True)
        )
    ] = True
    middle = np.nonzero((area > 0) & inside)
    voxels = np.nonzero((own > 0) & inside & np.isfinite(opening))
    a, b, c = (part.start for part in box)
    return Sheets(
        place=(middle[0] + a, middle[1] + b, middle[2] + c),
        owner=own[middle],
        area_px=area[middle].astype(np.float64),
        normal_z=normal_z[middle].astype(np.float64),
        opening_px=opening[middle].astype(np.float64),
        column_px=column[middle].astype(np.float64),
        central=central[middle].astype(np.float64),
        voxels=(voxels[0] + a, voxels[1] + b, voxels[2] + c),
        voxel_owner=own[voxels],
        voxel_opening_px=opening[voxels].astype(np.float64),
    )
