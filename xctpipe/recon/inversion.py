"""The inverse transform of the grid: columns along v, then lines along u, then pixels of every slice.

Only what the slices hold is kept on the way. The forward transform is also taken for the inverse one: what
it gives for n is then at -n.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.compiled import INNER
from xctpipe.recon.geometry import inside_circle
from xctpipe.recon.gridding import MARGIN, Kernel, kernel_transform
from xctpipe.recon.lanes import LANES, conj, load, store, unpack, weighed
from xctpipe.recon.lanes_fft import ComplexArray, Transform, transform, transform_of
from xctpipe.scan import FloatArray

LINE_BLOCK = 4
"""Lines whose spectra are read together: they are neighbours in memory, the numbers of one line are not."""


class Image(NamedTuple):
    """How the inverse transform becomes a slice.

    Attributes
    ----------
    found_at : (pixel,), where a pixel lies in what a forward transform makes of a column.
    along_y, along_x : (pixel,), corrections for the kernel.
    blank : (line,), pixels at either end of a line that are outside the circle.
    roots : (half,), what tangles the spectrum of a line.
    column, line : transforms of a column, and of a line as pairs.
    """

    found_at: NDArray[np.int64]
    along_y: FloatArray
    along_x: FloatArray
    blank: NDArray[np.int64]
    roots: ComplexArray
    column: Transform
    line: Transform


def image_for(n_cols: int, kernel: Kernel) -> Image:
    """Tables of the inverse transform."""
    size = kernel.size
    pixels = np.arange(n_cols) - n_cols // 2
    correction = 1 / kernel_transform(pixels.astype(np.float64), kernel)
    return Image(
        -pixels % size,
        # the grid starts at v = -size / 2, which turns the sign of every other pixel along y
        (correction * np.where(pixels % 2, -1, 1)).astype(np.float32),
        correction.astype(np.float32),
        (n_cols - inside_circle(n_cols).sum(axis=0)) // 2,
        (1j * np.exp(2j * np.pi / size * np.arange(size // 4 + 1))).astype(np.complex64),
        transform_of(size),
        transform_of(size // 2),
    )


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def columns(
    grid: FloatArray, free: FloatArray, band: tuple[int, int], image: Image, lines: FloatArray
) -> None:
    """Inverse transform of the columns of a band, the rows of the image only."""
    n_u = lines.shape[0]
    n_cols = image.found_at.size
    size = free.shape[0]
    for u in range(band[0], band[1]):
        column = grid[u - band[0] + MARGIN, MARGIN : MARGIN + size]
        result = transform(column, free, image.column)[0]
        own_mirror = np.float32(2 if u in (0, n_u - 1) else 1)
        for y in range(n_cols):
            value = load(result, image.found_at[y]) * (image.along_y[y] * own_mirror)
            store(lines, u * n_cols + y, value)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def write_lines(
    lines: FloatArray,
    first: int,
    last: int,
    image: Image,
    volume: FloatArray,
    scratch: tuple[FloatArray, FloatArray, FloatArray],
) -> None:
    """Lines of every slice from their spectra."""
    block, free, third = scratch
    half = free.shape[0] - 1
    pixels = third.reshape(LANES, 2 * half)
    for y in range(first, last, LINE_BLOCK):
        n = min(LINE_BLOCK, last - y)
        tangle(lines, y, n, image.roots, block)
        for i in range(n):
            result = transform(block[i], free, image.line)[0]
            # number j is at -j, and number 0 at the end as well
            store(result, half, load(result, 0))
            for j in range(0, half, LANES // 2):
                start = min(j, half - LANES // 2)
                unpack(result, half - start, pixels, 2 * start)
            for row in range(volume.shape[0]):
                write_line(pixels[row], image.along_x, image.blank[y + i], volume[row, y + i])


@numba.njit(**INNER)  # type: ignore[untyped-decorator]
def write_line(line: FloatArray, correction: FloatArray, blank: int, out: FloatArray) -> None:
    """One line of a slice, corrected for the kernel, but for its ends; the line begins at its middle."""
    middle = out.size // 2
    before = line[line.size - middle :]
    for x in range(blank, middle):
        out[x] = before[x] * correction[x]
    for x in range(max(middle, blank), out.size - blank):
        out[x] = line[x - middle] * correction[x]


@numba.njit(**INNER, fastmath={"contract"})  # type: ignore[untyped-decorator]
def tangle(lines: FloatArray, y: int, n: int, roots: ComplexArray, block: FloatArray) -> None:
    """Spectra of n real lines as spectra of pairs of their pixels."""
    n_u, n_cols = lines.shape[:2]
    half = n_u - 1
    for k in range(half // 2 + 1):
        for i in range(n):
            one, other = load(lines, k * n_cols + y + i), conj(load(lines, (half - k) * n_cols + y + i))
            if k == 0:
                one, other = weighed(one, np.complex64(1.0)), weighed(other, np.complex64(1.0))
            total, change = one + other, (one - other) * roots[k]
            store(block, i * n_u + k, total + change)
            if k:
                store(block, i * n_u + half - k, conj(total - change))
