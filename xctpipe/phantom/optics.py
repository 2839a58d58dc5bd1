"""Fresnel propagation of projections from the sample to the detector.

The wave behind the sample is exp(-L / 2 + i phi), L and phi being line integrals of the attenuation and of
the phase shift, averaged over the pixels of a grid finer than the detector's; the intensity at the detector
is blurred as the detector does, and then averaged over its pixels.

Limits: one energy, parallel beam, the sample thin enough for straight rays. The fine grid resolves the first
fringe sqrt(wavelength distance) by three pixels, and by six across rows, where flat layers make sharp edges;
the phase must change by less than half a turn from one of its pixels to the next at the rims of round bodies
in view. Where that takes more than 16 fine pixels along the side of a pixel, the scan is refused.

At a surface that is flat and along the beam at every angle the phase would jump however fine the grid; the
wave is averaged over a fine pixel there, and the pixel next to it may be wrong by a tenth of the beam. No
retrieval could undo that: of a jump the wave tells only what is left of it after whole turns. Surfaces of
layers are not so flat. A ray along one that is rough meets its heights one after another, so that over many
of its bumps the length within the layer is the mean over the distribution of heights: line integrals are
smoothed along z by `roughness_um`, a normal distribution's standard deviation, before the wave is made.
Curved surfaces are smoothed with the flat ones; volumes stay.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from xctpipe.errors import BadRecipe
from xctpipe.phantom.acquisition import Acquisition
from xctpipe.phantom.cell import Sample
from xctpipe.phantom.projector import ShapeTable, shape_table
from xctpipe.phantom.shapes import Shape
from xctpipe.scan import DoubleArray, FloatArray

ComplexArray = NDArray[np.complex64]

MOST_FINE_PIXELS = 16
"""Largest number of fine pixels along the side of a detector pixel."""

SUB_ROWS = 2
"""Rows within a fine pixel over which the wave is averaged: flat layers make it jump from row to row."""

ROWS_PER_COL = 2
"""Fine pixels are so many times as fine along z as along the rows."""

_HC_KEV_UM = 1.2398419843e-3
_FRINGE_PX = 3.0
# fine pixels beyond the reach of the finest fringe, where the sharp end of the band of frequencies rings
_GUARD_PX = 12
_FARTHEST_PX = 512
_BLUR_SIGMAS = 4.0
FWHM_PER_SIGMA = math.sqrt(8 * math.log(2))


def wavelength_um(energy_kev: float) -> float:
    """Wavelength of photons in micrometers."""
    return _HC_KEV_UM / energy_kev


def phase_shapes(sample: Sample) -> tuple[Shape, ...]:
    """Shapes of a sample whose contrast is the retardation of the wave, in radians per cm instead of cm^-1.

    Raises
    ------
    BadRecipe : a part does not say what it replaces.
    """
    per_cm = 2 * math.pi / (wavelength_um(sample.energy_kev) * 1e-4)
    shapes = []
    for part in sample.parts:
        if part.host is None:
            raise BadRecipe(
                f"simulate: part {part.name!r} of {part.material} does not say what it replaces, so its "
                "phase shift is not known; give host= to Part, or distance_mm = 0"
            )
        contrast = per_cm * (sample.delta[part.material] - sample.delta[part.host])
        shapes.append(replace(part.shape, delta_mu_cm1=contrast))  # type: ignore[type-var]
    return tuple(shapes)


def wave_behind(attenuation: DoubleArray, *, retardation_rad: DoubleArray, sub_rows: int = 1) -> ComplexArray:
    """Wave exp(-attenuation / 2 - i retardation), averaged over each `sub_rows` rows: complex64 (row, col).

    It is the wave that is averaged: across a jump of many radians the mean of the phase would mean nothing.
    """
    turns = retardation_rad * (0.5 / math.pi)
    phase = (-2 * math.pi * (turns - np.rint(turns))).astype(np.float32)
    amplitude = np.exp(-0.5 * attenuation.astype(np.float32))
    wave: ComplexArray = np.empty(phase.shape, np.complex64)
    wave.real, wave.imag = amplitude * np.cos(phase), amplitude * np.sin(phase)
    means: ComplexArray = wave.reshape(-1, sub_rows, phase.shape[1]).mean(axis=1)
    return means


def propagated(
    wave: ComplexArray,
    *,
    pixel_um: tuple[float, float],
    fresnel_um2: float,
    taper_px: tuple[int, int] = (0, 0),
) -> FloatArray:
    """Intensity after propagation, by the Fresnel transfer function exp(-i pi lambda z (u^2 + v^2)) [1]_.

    Parameters
    ----------
    wave : (row, col); its phase is negative where matter advances it, as it does to X-rays.
    pixel_um : height and width of the pixels of its grid.
    fresnel_um2 : wavelength times distance.
    taper_px : the wave falls to nothing over so many rows and columns at the edges; with 0 it goes on
        periodically.

    References
    ----------
    .. [1] Goodman, Introduction to Fourier Optics, section 4.2 (2005), ISBN 978-0-9747077-2-3
    """
    rows, cols = wave.shape
    size = (rows, cols)
    if any(taper_px):
        wave = wave * _window(rows, taper_px[0])[:, None] * _window(cols, taper_px[1])
        size = (int(fft.next_fast_len(rows)), int(fft.next_fast_len(cols)))
    spectrum = fft.fft2(wave, s=size)
    for axis, n in enumerate(size):
        angle = math.pi * fresnel_um2 * fft.fftfreq(n, pixel_um[axis]) ** 2
        factor = np.exp(-1j * angle).astype(np.complex64)
        spectrum *= factor[:, None] if axis == 0 else factor
    there = fft.ifft2(spectrum, overwrite_x=True)[:rows, :cols]
    intensity: FloatArray = there.real**2 + there.imag**2
    return intensity


def _window(n: int, taper_px: int) -> FloatArray:
    fall = np.sin(0.5 * math.pi * (np.arange(taper_px) + 0.5) / max(taper_px, 1)) ** 2
    return np.concatenate([fall, np.ones(n - 2 * taper_px), fall[::-1]]).astype(np.float32)


@dataclass(frozen=True)
class FineGrid:
    """How a scan is sampled for propagation: fine columns per pixel, margins, and the product lambda z.

    `margin_px` is in pixels of the detector, `taper_px` in fine columns, `rough_px` in fine rows;
    `blur_px` is the standard deviation of the detector's blur in its pixels.
    """

    factor: int
    margin_px: int
    taper_px: int
    pixel_um: float
    fresnel_um2: float
    rough_px: float = 0.0
    blur_px: float = 0.0

    def intensity(self, attenuation: DoubleArray, *, retardation_rad: DoubleArray) -> DoubleArray:
        """Intensity in detector pixels without the margins; the arguments are on the fine grid with them.

        They have `factor` columns and `factor * ROWS_PER_COL * SUB_ROWS` rows for each pixel.
        """
        cols, rows, sub_rows = self.factor, self.factor * ROWS_PER_COL, SUB_ROWS
        if self.rough_px:
            sub_rows = 1
            attenuation, retardation_rad = (self._roughened(each) for each in (attenuation, retardation_rad))
        fine = propagated(
            wave_behind(attenuation, retardation_rad=retardation_rad, sub_rows=sub_rows),
            pixel_um=(self.pixel_um / rows, self.pixel_um / cols),
            fresnel_um2=self.fresnel_um2,
            taper_px=(self.taper_px * ROWS_PER_COL, self.taper_px),
        )
        if self.blur_px:
            # before pixels take their means: fringes are finer than they are, and would be aliased
            fine, rows = fine.reshape(-1, ROWS_PER_COL, fine.shape[1]).mean(axis=1), cols
            fine = ndimage.gaussian_filter(fine, self.blur_px * cols, mode="nearest", truncate=_BLUR_SIGMAS)
        m = self.margin_px
        height, width = fine.shape[0] // rows - 2 * m, fine.shape[1] // cols - 2 * m
        inner = fine[m * rows : (m + height) * rows, m * cols : (m + width) * cols]
        means: DoubleArray = inner.reshape(height, rows, width, cols).mean(axis=(1, 3), dtype=np.float64)
        return means

    def _roughened(self, integrals: DoubleArray) -> DoubleArray:
        """Line integrals on fine rows, which are finer than the roughness, smoothed along z by it."""
        means = integrals.reshape(-1, SUB_ROWS, integrals.shape[1]).mean(axis=1)
        smooth: DoubleArray = ndimage.gaussian_filter1d(means, self.rough_px, axis=0, mode="nearest")
        return smooth


def fine_grid(sample: Sample, *, acquisition: Acquisition) -> FineGrid:
    """Sampling that a scan at `distance_mm` > 0 needs.

    Raises
    ------
    BadRecipe : fringes or phase would need more than 16 fine pixels per pixel, or reach beyond 512 pixels.
    """
    a = acquisition
    fresnel_um2 = wavelength_um(sample.energy_kev) * a.distance_mm * 1e3
    fringe_um = math.sqrt(fresnel_um2)
    for_fringes = math.ceil(_FRINGE_PX * a.pixel_um / fringe_um)
    factor = max(for_fringes, _for_phase(shape_table(phase_shapes(sample)), acquisition=a))
    if factor > MOST_FINE_PIXELS:
        raise BadRecipe(
            f"simulate: pixels of {a.pixel_um:g} um at distance_mm = {a.distance_mm:g}: fringes of "
            f"{fringe_um:.3g} um and the phase need {factor} points along a pixel, and {MOST_FINE_PIXELS} is "
            "the limit; give a smaller pixel (a smaller cell), a longer distance, or distance_mm = 0"
        )
    fine_um = a.pixel_um / factor
    # the finest fringes run along z, where the grid is finest
    reach = ROWS_PER_COL * fresnel_um2 / (2 * fine_um**2)
    if reach > _FARTHEST_PX * factor:
        raise BadRecipe(
            f"simulate: at distance_mm = {a.distance_mm:g} fringes reach over {reach / factor:.0f} pixels; "
            f"the limit is {_FARTHEST_PX}; give a shorter distance"
        )
    taper = max(16, math.ceil(8 * fringe_um / fine_um))
    rough, blur = a.roughness_um / fine_um, a.blur_fwhm_px / FWHM_PER_SIGMA
    margin = math.ceil((reach + _GUARD_PX + taper + 4 * rough) / factor + _BLUR_SIGMAS * blur)
    return FineGrid(factor, margin, taper, a.pixel_um, fresnel_um2, rough * ROWS_PER_COL, blur)


def _for_phase(table: ShapeTable, *, acquisition: Acquisition) -> int:
    """Fine pixels per pixel for which the phase changes by less than half a turn between them.

    At a distance s from its rim, a body of half width w and depth d per width has d sqrt(8 w s) of phase.
    """
    a = acquisition
    angles = np.deg2rad(np.linspace(a.first_deg, a.last_deg, 8))
    shadows = table.shadows_px(angles, pixel_um=a.pixel_um, axis_px=a.axis_px)
    middle, width = shadows[..., 3], np.sqrt(shadows[..., 5])
    rims = np.stack([middle - width, middle + width])
    in_view = ((rims > -0.5) & (rims < a.cols - 0.5)).any(axis=0)
    in_view &= (shadows[..., 1] > -0.5) & (shadows[..., 0] < a.rows - 0.5)
    depth = np.abs(shadows[..., 7])
    at_rim = np.where(in_view & (2 * depth * width > math.pi), 8 * width * depth**2 / math.pi**2, 0)
    return math.ceil(float(at_rim.max(initial=0)))


def finer(shadows: DoubleArray, *, rows: int, cols: int) -> DoubleArray:
    """Shadows in pixels, as seen by `rows` x `cols` finer pixels in each pixel of the detector."""
    out = shadows.copy()
    out[..., :3] = (shadows[..., :3] + 0.5) * rows - 0.5
    out[..., 3] = (shadows[..., 3] + 0.5) * cols - 0.5
    out[..., 4] *= cols / rows
    out[..., 5] *= cols**2
    out[..., 6] /= rows**2
    out[..., 7] /= cols
    return out
