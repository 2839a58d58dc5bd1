"""Numerics of a stored volume: coarser levels, shorter mantissas, integers with a scale.

A voxel of level n is the mean of the level-0 voxels in a block of 2**n per axis; at the far end of an
odd axis the block is cut and the mean is of what exists. A block never crosses a cut of the volume at a
multiple of `align_rows`, so every slab makes its own part of every level.
"""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import FloatArray

Shape = tuple[int, int, int]
AxisCounts = tuple[FloatArray, FloatArray, FloatArray]

COARSEST_VOXELS = 512
"""Levels are added until every axis is shorter than this."""

FULL_MANTISSA_BITS = 23
BITS_PER_LEVEL = 2


def n_levels(shape: Shape) -> int:
    """Number of levels of a volume (z, y, x), the full one included."""
    level = 0
    while max(level_shape(shape, level=level)) >= COARSEST_VOXELS:
        level += 1
    return level + 1


def level_shape(shape: tuple[int, ...], *, level: int) -> Shape:
    """Shape (z, y, x) of a level: each axis halved, rounded up, `level` times."""
    z, y, x = (-(-n // 2**level) for n in shape)
    return z, y, x


def level_factors(shape: Shape, *, level: int) -> Shape:
    """Level-0 voxels per voxel along (z, y, x): 2**level, but an axis of length 1 is halved no further."""
    z, y, x = (min(2**level, 1 << (n - 1).bit_length()) for n in shape)
    return z, y, x


def align_rows(shape: Shape) -> int:
    """Rows that cuts between slabs must be a multiple of, for no block to cross one."""
    return int(2 ** (n_levels(shape) - 1))


def pair_sums(block: FloatArray) -> FloatArray:
    """Sums over 2 x 2 x 2 neighbours of (z, y, x); at the far end of an odd axis, of those that exist."""
    z, y, x = level_shape(block.shape, level=1)
    sums = np.empty((z, y, x), np.float32)
    # a plane at a time stays in cache
    for k in range(z):
        plane = block[2 * k] + block[2 * k + 1] if 2 * k + 1 < len(block) else block[2 * k]
        sums[k] = _pairs(_pairs(plane).T).T
    return sums


def _pairs(plane: FloatArray) -> FloatArray:
    sums = plane[0::2].copy()
    sums[: len(plane) // 2] += plane[1::2]
    return sums


def block_counts(shape: tuple[int, ...], *, level: int) -> AxisCounts:
    """Level-0 voxels that exist in each block, per axis (z, y, x): 2**level but for the last block."""
    z, y, x = (_axis_counts(length, 2**level) for length in shape)
    return z, y, x


def _axis_counts(length: int, step: int) -> FloatArray:
    edges = np.minimum(np.arange(0, length + step, step), length)
    return np.diff(edges).astype(np.float32)


def block_means(sums: FloatArray, *, counts: AxisCounts) -> FloatArray:
    """Means of blocks (z, y, x) from their sums and the counts per axis."""
    z, y, x = counts
    return np.divide(sums, z[:, None, None] * (y[:, None] * x), dtype=np.float32)


def round_mantissa(a: FloatArray, *, keep_bits: int | None) -> FloatArray:
    """Round to `keep_bits` stored mantissa bits, ties to even, so that a codec finds runs of zeros.

    Parameters
    ----------
    a : any shape, float32; not modified. Infinities and NaN are kept.
    keep_bits : 1 to 23 of the 23 stored bits; None or 23: nothing to round, `a` itself is returned.

    Returns
    -------
    Values that differ from `a` by at most 2**-(keep_bits + 1) of the power of two below them.

    References
    ----------
    Kloewer et al., Nat. Comput. Sci. 1, 713 (2021), doi:10.1038/s43588-021-00156-2
    """
    if keep_bits is None or keep_bits >= FULL_MANTISSA_BITS:
        return a
    drop = np.uint32(FULL_MANTISSA_BITS - keep_bits)
    rounded = np.empty(a.shape, np.float32)
    # a plane at a time stays in cache
    for source, target in zip(np.atleast_2d(a), np.atleast_2d(rounded), strict=True):
        _round_bits(source, target, drop)
    return rounded


def _round_bits(source: FloatArray, target: FloatArray, drop: np.uint32) -> None:
    """Round the bit patterns as integers: adjacent floats of one sign are adjacent integers."""
    one = np.uint32(1)
    bits, out = source.view(np.uint32), target.view(np.uint32)
    np.right_shift(bits, drop, out=out)
    out &= one
    out += np.uint32((1 << (int(drop) - 1)) - 1)
    out += bits
    out &= ~((one << drop) - one)
    finite = np.isfinite(source)
    if not finite.all():
        np.copyto(target, source, where=~finite)


def keep_bits_for_noise(noise: float, *, magnitude: float) -> int:
    """Fewest mantissa bits whose rounding error is at most a tenth of the noise.

    Parameters
    ----------
    noise : standard deviation of a voxel, > 0, in the unit of the volume.
    magnitude : largest absolute value for which the bound must hold, same unit.

    Returns
    -------
    1 to 23 bits, 23 also where no rounding is small enough.
    """
    if not noise > 0 or not math.isfinite(magnitude):
        return FULL_MANTISSA_BITS
    _, exponent = math.frexp(magnitude)
    for bits in range(1, FULL_MANTISSA_BITS):
        if math.ldexp(0.5, exponent - 1 - bits) <= noise / 10:
            return bits
    return FULL_MANTISSA_BITS


def level_keep_bits(keep_bits: int | None, *, level: int) -> int | None:
    """Mantissa bits of a coarser level: 2 more each time, as its noise is lower.

    The variance of a reconstructed slice falls with the cube of the pixel [1]_ and with the slice
    thickness, so a mean over 2 x 2 x 2 voxels has a quarter of the noise.

    References
    ----------
    .. [1] Chesler et al., J. Comput. Assist. Tomogr. 1, 64 (1977), doi:10.1097/00004728-197701000-00009
    """
    if keep_bits is None:
        return None
    return min(FULL_MANTISSA_BITS, keep_bits + BITS_PER_LEVEL * level)


def quantise(
    a: FloatArray, *, dtype: Literal["uint16", "uint8"], scale: float, offset: float
) -> tuple[NDArray[Any], int]:
    """Integers nearest to (a - offset) / scale, clipped to their type, and how many were clipped.

    `a` is (z, y, x) and not modified; NaN becomes 0 and counts as clipped.
    """
    limits = np.iinfo(dtype)
    stored = np.empty(a.shape, dtype)
    clipped = 0
    for source, target in zip(a, stored, strict=True):
        value = source.astype(np.float64)
        value -= offset
        value /= scale
        np.rint(value, out=value)
        inside = (value >= limits.min) & (value <= limits.max)
        if not inside.all():
            clipped += int(inside.size - np.count_nonzero(inside))
            value = np.clip(np.nan_to_num(value, nan=0), limits.min, limits.max)
        target[...] = value
    return stored, clipped
