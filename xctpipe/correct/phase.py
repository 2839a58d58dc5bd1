"""Phase retrieval from one distance, before the log: fringes of propagation turned back into mass."""

import math
from typing import Annotated

import numpy as np
from annotated_types import Gt
from scipy import constants, fft

from xctpipe.correct.threads import in_threads
from xctpipe.errors import BadRecipe
from xctpipe.scan import FloatArray
from xctpipe.steps import step

MOST_HALO_ROWS = 1024
LEAST_LENGTH_PX = 0.05
"""A shorter retrieval length changes no detail by more than 2 %: something it is made of must be wrong."""

_DECAYS = 10.0
"""Decay lengths after which the kernel is forgotten: exp(-10) / 2 of whatever was cut off is 2e-5 of it."""


def retrieval_length_um(*, delta_beta: float, energy_kev: float, distance_mm: float) -> float:
    """Length over which single-distance phase retrieval averages, sqrt(λ z (δ/β) / 4π).

    Parameters
    ----------
    delta_beta : ratio of refraction to absorption, above 0.
    energy_kev : photon energy, above 0.
    distance_mm : from the sample to the detector, above 0.
    """
    joule = energy_kev * 1e3 * constants.e
    wavelength_um = 1e6 * constants.h * constants.c / joule
    return math.sqrt(wavelength_um * distance_mm * 1e3 * delta_beta / (4 * math.pi))


def retrieval_halo_px(*, delta_beta: float, energy_kev: float, distance_mm: float, pixel_um: float) -> int:
    """Pixels beyond which what lies there changes the retrieved transmission by less than 1e-4 of it.

    It holds while what lies there is no more than 5 times as bright. About ten retrieval lengths: a change
    of brightness along a row dies out as exp(-κ n) after n rows, sinh(κ / 2) = 1 / (2 L) for L in pixels.

    Raises
    ------
    BadRecipe
        The length is too short to do anything, or needs more than 1024 rows on each side.
    """
    length_um = retrieval_length_um(delta_beta=delta_beta, energy_kev=energy_kev, distance_mm=distance_mm)
    length_px = length_um / pixel_um
    made_of = (
        f"delta_beta {delta_beta:g}, {energy_kev:g} keV, {distance_mm:g} mm and pixels of {pixel_um:g} um "
        f"make a retrieval length of {length_px:.3g} pixels"
    )
    if not length_px >= LEAST_LENGTH_PX:
        raise BadRecipe(
            f"correct: paganin would change nothing: {made_of}, {LEAST_LENGTH_PX} is the least; "
            "is delta_beta delta over beta (hundreds), and the distance in mm?"
        )
    halo = math.ceil(_DECAYS / (2 * math.asinh(1 / (2 * length_px))))
    if halo > MOST_HALO_ROWS:
        raise BadRecipe(
            f"correct: paganin would blur everything: {made_of}, and {halo} rows on each side of a slab; "
            f"{MOST_HALO_ROWS} are the most; lower delta_beta, or is the distance not in mm?"
        )
    return halo


@step(halo=retrieval_halo_px, exact=False)
def paganin(
    slab: FloatArray,
    *,
    delta_beta: Annotated[float, Gt(0)] = 350.0,
    energy_kev: float,
    distance_mm: float,
    pixel_um: float,
) -> FloatArray:
    """Single-distance phase retrieval of an object of one material [1]_, on transmission before the log.

    Each frame is divided by 1 + (2πL)² f² in the Fourier domain, L = `retrieval_length_um`, so that minus
    the log of the result is the projected attenuation without fringes, blurred over L; the mean of a frame
    stays. The square of the spatial frequency f is that of the discrete Laplacian [2]_, (2 - 2 cos 2πf) /
    (2π)² in pixels: the same to 1e-3 where L is 9 pixels or more, but free of ringing at every L, so that
    rows far away never matter. Beyond the detector the edge value goes on for ten retrieval lengths.

    A pixel that is not finite would spread over its frame; `flat_field` leaves none. Take zingers out before.

    Parameters
    ----------
    slab : (angle, row, col), transmission, finite; zeros are taken as they are.
    delta_beta : ratio of refraction to absorption; for the face between two materials the ratio of their
        differences. At 80 keV NASICON against void has 350, NaK against void 1000.
    energy_kev, distance_mm, pixel_um : of the scan, above 0.

    Returns
    -------
    (angle, row, col) transmission; its log is still to be taken.

    Raises
    ------
    BadRecipe
        A retrieval length that does nothing, or one that reaches beyond 1024 rows.

    References
    ----------
    .. [1] Paganin et al., J. Microsc. 206, 33 (2002), doi:10.1046/j.1365-2818.2002.01010.x
    .. [2] Paganin et al., J. Opt. 22, 115607 (2020), doi:10.1088/2040-8986/abbab9
    """
    optics = {"delta_beta": delta_beta, "energy_kev": energy_kev, "distance_mm": distance_mm}
    margin = retrieval_halo_px(**optics, pixel_um=pixel_um)
    length_px = retrieval_length_um(**optics) / pixel_um
    n_rows, n_cols = (int(fft.next_fast_len(n + 2 * margin, real=True)) for n in slab.shape[1:])
    damping = _damping(n_rows, n_cols, length_px)
    out = np.empty(slab.shape, np.float32)

    def frames(first: int, last: int) -> None:
        for i in range(first, last):
            wide = _continued(slab[i], (n_rows, n_cols), margin)
            spectrum = fft.rfft2(wide, overwrite_x=True)
            spectrum *= damping
            smooth = fft.irfft2(spectrum, s=(n_rows, n_cols), overwrite_x=True)
            out[i] = smooth[margin : margin + slab.shape[1], margin : margin + slab.shape[2]]

    in_threads(frames, slab.shape[0])
    return out


def _damping(n_rows: int, n_cols: int, length_px: float) -> FloatArray:
    """What each frequency of a real transform is multiplied by: (n_rows, n_cols // 2 + 1)."""
    rows, cols = (4 * np.sin(np.pi * f) ** 2 for f in (fft.fftfreq(n_rows), fft.rfftfreq(n_cols)))
    damping: FloatArray = (1 / (1 + length_px**2 * (rows[:, None] + cols))).astype(np.float32)
    return damping


def _continued(frame: FloatArray, shape: tuple[int, int], margin: int) -> FloatArray:
    """The frame from (margin, margin) on, its edges going on around it and meeting half-way behind."""
    # more than the margin is only what fills up to a fast length: too far away to matter
    width = [(margin, whole - inner - margin) for whole, inner in zip(shape, frame.shape, strict=True)]
    return np.pad(frame, width, mode="edge")
