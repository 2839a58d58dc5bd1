"""The view and its voxels: distances from the axis, offsets of levels, boxes."""

import numba
import numpy as np

from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.segment.scene import Level, Scene

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First and last + 1 voxel along z, y and x."""


def from_axis(
    axis_px: tuple[float, float], *, rows: tuple[int, int], cols: tuple[int, int]
) -> tuple[DoubleArray, DoubleArray]:
    """Distances along y (y, 1) and along x (1, x) from the axis of rotation, in voxels."""
    dy = np.arange(*rows, dtype=np.float64)[:, None] - axis_px[0]
    dx = np.arange(*cols, dtype=np.float64)[None, :] - axis_px[1]
    return dy, dx


def offset_at(level: Level, dy: DoubleArray, dx: DoubleArray) -> DoubleArray:
    """Offset of a level, in cm^-1, at distances from the axis of rotation that broadcast to one shape."""
    r = np.hypot(dy, dx)
    out = np.interp(r, level.radii_px, level.offset_cm1)
    if level.lean_cm1 is not None:
        far = np.maximum(r, 1e-9)
        out = out + np.interp(r, level.radii_px, level.lean_cm1[0]) * dy / far
        out = out + np.interp(r, level.radii_px, level.lean_cm1[1]) * dx / far
    return np.asarray(out, np.float64)


def grey_map(
    level: Level, *, axis_px: tuple[float, float], rows: tuple[int, int], cols: tuple[int, int]
) -> FloatArray:
    """What a level reads in each column (y, x), in cm^-1: its material plus its offset there."""
    dy, dx = from_axis(axis_px, rows=rows, cols=cols)
    return (level.mu_cm1 + offset_at(level, dy, dx)).astype(np.float32)


def plane(
    reference: DoubleArray, *, axis_px: tuple[float, float], rows: tuple[int, int], cols: tuple[int, int]
) -> DoubleArray:
    """Heights of a reference plane (y, x)."""
    dy, dx = from_axis(axis_px, rows=rows, cols=cols)
    out: DoubleArray = reference[0] + reference[1] * dy + reference[2] * dx
    return out


def whole_box(scene: Scene) -> Box:
    """Box of the whole volume."""
    nz, ny, nx = scene.shape
    return (0, nz), (0, ny), (0, nx)


@numba.njit(cache=True, nogil=True)
def tile_means(volume, y0, x0, edge, out):  # type: ignore[no-untyped-def]
    """Means (z, tile, tile) of what is finite in square tiles from (y0, x0) on, NaN where nothing is."""
    for z in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                total, n = 0.0, 0
                for y in range(y0 + i * edge, y0 + (i + 1) * edge):
                    for x in range(x0 + j * edge, x0 + (j + 1) * edge):
                        value = volume[z, y, x]
                        if np.isfinite(value):
                            total += value
                            n += 1
                out[z, i, j] = total / n if n > 0 else np.nan
