"""Faults of a scan as functions of arrays: tilt, haze, counting, uneven response, dust, lost frames.

Their order in a frame: the lean of the axis in the projected shapes; haze after the blur; counting; then, on
the counted signal, `response`. All leave what they do not concern as it is, bit for bit.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from xctpipe.phantom.acquisition import Acquisition, Stripe
from xctpipe.scan import DoubleArray, Span

_TAIL_LENGTHS = 5.0


def recorded_frames(acquisition: Acquisition) -> NDArray[np.int64]:
    """Numbers of the projections that were stored, in order: all but the lost ones."""
    lost = set(acquisition.lost_frames)
    return np.array([i for i in range(acquisition.n_angles) if i not in lost], dtype=np.int64)


def beam_clock(acquisition: Acquisition, frac: float) -> float:
    """Where the beam is between the flats before (0) and after (1), at a fraction of the projections."""
    a = acquisition
    return a.beam_from_frac + (a.beam_to_frac - a.beam_from_frac) * frac


def leaning(shadows: DoubleArray, *, acquisition: Acquisition) -> DoubleArray:
    """Shadows in pixels, as `projector.pixel_shadows` makes them, seen with the axis leaning by `tilt_deg`.

    The column of each cross-section moves with its row, which is exact for every shape and every row; that
    the detector's rows turn too (dz = u sin tilt) is left out.
    """
    if not acquisition.tilt_deg:
        return shadows
    slope = math.tan(math.radians(acquisition.tilt_deg))
    out = shadows.copy()
    # the centre is given at the height of field 2, and its shear counts from there
    out[..., 3] += slope * (shadows[..., 2] - acquisition.axis_px[0])
    out[..., 4] += slope
    return out


def tail_halo_px(acquisition: Acquisition) -> int:
    """Pixels beyond the detector from which haze reaches it: e^-5 of a point's light goes further."""
    return math.ceil(_TAIL_LENGTHS * acquisition.tail_length_px) if acquisition.tail_frac else 0


def with_tail(light: DoubleArray, *, acquisition: Acquisition) -> DoubleArray:
    """Light with `tail_frac` of it spread as exp(-r / tail_length_px) in the plane.

    Convolution by its transform (1 + (2 pi f L)^2)^(-3/2), so that a flat field stays as it is to rounding.
    The frame is continued by its edges; its bits depend on the size of the frame, so that a block of rows
    must be cut from a whole frame.

    Parameters
    ----------
    light : (row, col), already blurred by the optics, with `tail_halo_px` around what is wanted.
    """
    a = acquisition
    if not a.tail_frac:
        return light
    size = [fft.next_fast_len(n + 2 * tail_halo_px(a), real=True) for n in light.shape]
    before = [(wide - n) // 2 for wide, n in zip(size, light.shape, strict=True)]
    pad = [(b, wide - n - b) for b, wide, n in zip(before, size, light.shape, strict=True)]
    wave = fft.rfft2(np.pad(light, pad, mode="edge"))
    f2 = fft.fftfreq(size[0])[:, None] ** 2 + fft.rfftfreq(size[1]) ** 2
    wave *= (1 - a.tail_frac) + a.tail_frac * (1 + (2 * math.pi * a.tail_length_px) ** 2 * f2) ** -1.5
    out: DoubleArray = fft.irfft2(wave, s=size)
    return out[before[0] : before[0] + light.shape[0], before[1] : before[1] + light.shape[1]]


def counted(light: DoubleArray, *, acquisition: Acquisition, rng: np.random.Generator) -> DoubleArray:
    """Light as counted, in fractions of the open beam: photons, then the electrons that they make.

    The mean is the light itself. The relative variance of the open beam is 1 / photons, and more by the
    factor 1 + 1 / `electrons_per_photon` where that is given.
    """
    a = acquisition
    if a.photons is None:
        return light
    photons = rng.poisson(a.photons * np.maximum(light, 0))
    if not a.electrons_per_photon:
        return photons / a.photons
    return rng.poisson(a.electrons_per_photon * photons) / (a.electrons_per_photon * a.photons)


def response(signal: DoubleArray, *, acquisition: Acquisition, rows: Span, projection: bool) -> DoubleArray:
    """Signal above dark in rows [r0, r1) with stripes of kind `large`, and in projections with blobs."""
    a = acquisition
    for stripe in a.stripes:
        if stripe.kind == "large":
            signal = with_large_stripe(signal, stripe=stripe, rows=rows, open_beam_adu=a.open_beam_adu)
        if stripe.kind == "blob" and projection:
            signal = with_blob(signal, stripe=stripe, rows=rows)
    return signal


def with_large_stripe(
    signal: DoubleArray, *, stripe: Stripe, rows: Span, open_beam_adu: float
) -> DoubleArray:
    """Response bent to open_beam (signal / open_beam)^(1 + amplitude w), w a cosine window over the columns.

    Being bent in flats too, the line integral after division by them is 1 + amplitude w times what it should
    be: a stripe whose strength follows the sample.
    """
    window = _window(stripe, rows=rows, n_rows=rows[0] + len(signal))
    out = signal.copy()
    part = np.maximum(signal[window], 0) / open_beam_adu
    place = 2 * math.pi * (np.arange(stripe.width) + 0.5) / stripe.width
    power = 1 + stripe.amplitude * 0.5 * (1 - np.cos(place))
    out[window] = open_beam_adu * part**power
    return out


def with_blob(signal: DoubleArray, *, stripe: Stripe, rows: Span) -> DoubleArray:
    """Signal changed by the fraction `amplitude` (1 - d^2), d from 0 in a blob's middle to 1 at its rim."""
    window = _window(stripe, rows=rows, n_rows=rows[0] + len(signal))
    first, last = stripe.rows or rows
    row = np.arange(rows[0], rows[1], dtype=np.float64)[window[0], None]
    down = (2 * row - first - last + 1) / (last - first)
    across = (2 * np.arange(stripe.width) - stripe.width + 1) / stripe.width
    out = signal.copy()
    out[window] *= 1 + stripe.amplitude * np.maximum(1 - down**2 - across**2, 0)
    return out


def _window(stripe: Stripe, *, rows: Span, n_rows: int) -> tuple[slice, slice]:
    first, last = stripe.rows or (0, n_rows)
    return (
        slice(max(first - rows[0], 0), max(last - rows[0], 0)),
        slice(stripe.col, stripe.col + stripe.width),
    )
