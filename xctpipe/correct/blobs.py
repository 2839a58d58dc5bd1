"""Blobs: dust and scratches on the scintillator, whose halo of light no flat can divide out."""

from typing import Annotated

import numba
import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from scipy import ndimage

from xctpipe.correct.stripes_vo import find_stripes
from xctpipe.correct.threads import in_threads
from xctpipe.scan import FloatArray
from xctpipe.steps import step

Mask = NDArray[np.bool_]

_BORDER = 2
_BLOCK_FRAMES = 16


# the median of 2 x 2 pixels looks at the row before
@step(halo=1)
def blobs(
    slab: FloatArray,
    *,
    beam: FloatArray,
    size_px: Annotated[int, Ge(1)] = 71,
    snr: Annotated[float, Gt(0)] = 3.0,
) -> FloatArray:
    """Interpolate each row of every frame across the blobs that the flat shows [1]_.

    See `blob_mask` for what is a blob. It belongs before steps that move the picture on the detector.

    Parameters
    ----------
    slab : (angle, row, col), transmission.
    beam : fact of the slab.
    size_px : columns of the largest blob.
    snr : how far a pixel of the flat must stand out of its row; greater finds fewer.

    Returns
    -------
    (angle, row, col) transmission.

    References
    ----------
    .. [1] Vo, Atwood, Drakopoulos, Connolley, Opt. Express 29, 17849 (2021), doi:10.1364/OE.418448
    """
    return bridge_blobs(slab, mask=blob_mask(beam, size_px=size_px, snr=snr))


def blob_mask(beam: FloatArray, *, size_px: int, snr: float) -> Mask:
    """Pixels whose light stands out of their row, and their neighbours in it: (row, col).

    The flat is smoothed by a median of 2 x 2 pixels, the row before and the column before included, and
    each row divided by its median over `size_px` columns; `find_stripes` says what stands out. The two
    first and last columns of a row are never part of it. Pixels without beam are seen as a line between
    those beside them, as the flat field leaves them.

    Parameters
    ----------
    beam : (row, col), mean flat minus dark, NaN where a pixel sees no beam.
    size_px : columns of the largest blob.
    snr : how far a pixel must stand out; greater finds fewer.
    """
    smooth = ndimage.median_filter(_bridged(beam), size=(2, 2))
    mask = np.zeros(beam.shape, np.bool_)
    for row, light in enumerate(smooth):
        usual = ndimage.median_filter(light, size=size_px)
        found = find_stripes((light / usual).astype(np.float64), snr=snr)
        found[:_BORDER] = found[-_BORDER:] = False
        mask[row] = found
    wider: Mask = ndimage.binary_dilation(mask, np.ones((1, 3), np.bool_))
    return wider


def bridge_blobs(slab: FloatArray, *, mask: Mask) -> FloatArray:
    """Interpolate the rows of every frame linearly across masked columns.

    Parameters
    ----------
    slab : (angle, row, col), transmission.
    mask : (row, col), true where it is to be replaced; its two first and last columns are not looked at.

    Returns
    -------
    (angle, row, col) transmission.
    """
    inner = mask.copy()
    inner[:, :_BORDER] = inner[:, -_BORDER:] = False
    out = slab.copy(order="C")

    def frames(first: int, last: int) -> None:
        _bridge(out[first:last], inner)

    in_threads(frames, slab.shape[0], block=_BLOCK_FRAMES)
    return out


def _bridged(beam: FloatArray) -> FloatArray:
    """The beam with a line, along the row, where there is none; 1 in a row without any."""
    out = np.ones(beam.shape, np.float32)
    columns = np.arange(beam.shape[1])
    for row, light in enumerate(beam):
        good = np.isfinite(light)
        if good.any():
            out[row] = np.interp(columns, columns[good], light[good])
    return out


@numba.njit(cache=True, nogil=True)
def _bridge(frames, mask):  # type: ignore[no-untyped-def]
    n_frames, n_rows, n_cols = frames.shape
    for r in range(n_rows):
        for c in range(1, n_cols):
            if not mask[r, c] or mask[r, c - 1]:
                continue
            end = c
            while mask[r, end]:
                end += 1
            for t in range(n_frames):
                before = frames[t, r, c - 1]
                step = (frames[t, r, end] - before) / np.float32(end - c + 1)
                for k in range(c, end):
                    frames[t, r, k] = before + step * np.float32(k - c + 1)
