"""Numerics of a stored volume: coarser levels, shorter mantissas, integers with a scale.

A voxel of level n is the mean of the level-0 voxels in a block of 2**n per axis; at the far end of an
odd axis the block is cut and the mean is of what exists. A block never crosses a cut of the volume at a
multiple of `align_rows`, so every slab makes its own part of every level.
"""

import math
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.compiled import INNER
from xctpipe.scan import FloatArray

Shape = tuple[int, int, int]
Box = tuple[tuple[int, int], ...]
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


def pair_sums(block: FloatArray, *, box: Box, out: FloatArray) -> None:
    """Sums over 2 x 2 x 2 neighbours of part of a (z, y, x) array, written to the same part of `out`.

    `box` begins at even indices; at the far end of an odd axis the sums are over what exists.
    """
    _pair_sums(np.ascontiguousarray(block), box, out)


@numba.njit(cache=True, nogil=True)
def _pair_sums(block, box, out):  # type: ignore[no-untyped-def]
    (z0, z1), (y0, y1), (x0, x1) = box
    line = np.empty(x1 - x0, np.float32)
    for z in range(z0, z1, 2):
        for y in range(y0, y1, 2):
            _add_pair(block, z, z1, y, x0, x1, line)
            if y + 1 < y1:
                below = np.empty(x1 - x0, np.float32)
                _add_pair(block, z, z1, y + 1, x0, x1, below)
                for x in range(line.size):
                    line[x] += below[x]
            row = out[z // 2, y // 2, x0 // 2 : (x1 + 1) // 2]
            for x in range(line.size // 2):
                row[x] = line[2 * x] + line[2 * x + 1]
            if line.size % 2:
                row[row.size - 1] = line[line.size - 1]


@numba.njit(**INNER)
def _add_pair(block, z, z1, y, x0, x1, line):  # type: ignore[no-untyped-def]
    """Sum of a row and the one below it in z, where there is one."""
    upper = block[z, y, x0:x1]
    if z + 1 < z1:
        lower = block[z + 1, y, x0:x1]
        for x in range(line.size):
            line[x] = upper[x] + lower[x]
    else:
        for x in range(line.size):
            line[x] = upper[x]


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
    keep_bits : 1 to 23 of the 23 stored bits; None or 23: nothing to round.

    Returns
    -------
    Values that differ from `a` by at most 2**-(keep_bits + 1) of the power of two below them.

    References
    ----------
    Kloewer et al., Nat. Comput. Sci. 1, 713 (2021), doi:10.1038/s43588-021-00156-2
    """
    whole = np.ascontiguousarray(a, np.float32).reshape(1, 1, -1)
    rounded = np.empty(whole.shape, np.float32)
    round_part(whole, box=((0, 1), (0, 1), (0, whole.size)), keep_bits=keep_bits, out=rounded)
    return rounded.reshape(a.shape)


def round_part(whole: FloatArray, *, box: Box, keep_bits: int | None, out: FloatArray) -> None:
    """Part of a contiguous (z, y, x) array, rounded as by `round_mantissa`, to the first corner of `out`."""
    drop = FULL_MANTISSA_BITS - (FULL_MANTISSA_BITS if keep_bits is None else keep_bits)
    _round_bits(whole.view(np.uint32), box, max(drop, 0), out.view(np.uint32))


@numba.njit(cache=True, nogil=True)
def _round_bits(whole, box, drop, out):  # type: ignore[no-untyped-def]
    """Round the bit patterns as integers: adjacent floats of one sign are adjacent integers."""
    (z0, z1), (y0, y1), (x0, x1) = box
    shift, one, special = np.uint32(drop), np.uint32(1), np.uint32(0x7F800000)
    half = np.uint32((1 << (drop - 1)) - 1 if drop > 0 else 0)
    mask = np.uint32(~np.uint32((1 << drop) - 1))
    if drop == 0:
        one = np.uint32(0)
    for z in range(z0, z1):
        for y in range(y0, y1):
            source, target = whole[z, y, x0:x1], out[z - z0, y - y0]
            for i in range(source.size):
                bits = source[i]
                # sums of 32-bit integers have 64 bits here, which would halve the lanes of the vectors
                odd = np.uint32(np.uint32(bits >> shift) & one)
                rounded = np.uint32(np.uint32(np.uint32(bits + half) + odd) & mask)
                target[i] = bits if np.uint32(bits & special) == special else rounded


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
