"""Bright specks of single frames: gamma rays and direct hits on the sensor."""

from typing import Annotated

from annotated_types import Ge, Gt

from xctpipe.correct.flat import FlatField, FrameIndex
from xctpipe.correct.fused import Specks, one_pass
from xctpipe.scan import FloatArray, RawArray
from xctpipe.steps import step

NOISE_SIGMAS = 5.0
"""A zinger stands above the noise by this many standard deviations, whatever the threshold."""


def zingers_after_flat(
    raw: RawArray,
    field: FlatField,
    *,
    gain: FloatArray | None,
    frames: FrameIndex | None,
    threshold_frac: float,
    size_px: int,
) -> FloatArray:
    """What `zingers` makes of the transmission of raw frames, to the bit, without writing that to memory."""
    specks = Specks(threshold_frac, size_px, NOISE_SIGMAS)
    return field.correct(raw, gain=gain, frames=frames, specks=specks)


@step(halo=0, after_flat=zingers_after_flat)
def zingers(
    slab: FloatArray,
    *,
    threshold_frac: Annotated[float, Gt(0)] = 0.08,
    size_px: Annotated[int, Ge(1)] = 2,
) -> FloatArray:
    """Replace pixels that are bright in one frame only, after [1]_ but safe at low counts and at edges.

    In the plane (angle, col) of each row, m is the median of the 8 pixels at offsets of `size_px`, and b
    the brightest of the previous and the next frame within `size_px` columns. A pixel is a zinger where it
    exceeds both m and b by more than `threshold_frac` m and by more than `NOISE_SIGMAS` standard deviations
    of the noise, and becomes m. The noise grows as the square root of transmission; its size is found for
    each row from the median absolute difference to m. Borders are mirrored. A crack flat to a pixel over as
    many pixels as a half turn has frames divided by pi, seen edge-on, is as brief as a zinger and no fainter.

    Parameters
    ----------
    slab : (angle, row, col), transmission.
    threshold_frac : excess over the neighbours that makes a zinger; 0.05 to 0.1 is usual.
    size_px : distance of the neighbours; zingers up to 2 `size_px` - 1 columns wide are replaced.

    Returns
    -------
    (angle, row, col) transmission.

    References
    ----------
    .. [1] Vo, Atwood, Drakopoulos, Connolley, Opt. Express 29, 17849 (2021), doi:10.1364/OE.418448
    """
    return one_pass(slab, specks=Specks(threshold_frac, size_px, NOISE_SIGMAS))[0]
