"""Faces along the beam: what light that went a distance shows of them, against the laws of waves."""

import math

import numpy as np
import pytest
from scipy import ndimage

from xctpipe.phantom import Acquisition, Cylinder, Part, Sample, delta, simulate, with_changes
from xctpipe.phantom.cell import Cell, build_cell
from xctpipe.phantom.light import LightPath
from xctpipe.phantom.optics import wavelength_um
from xctpipe.phantom.series import build_series

PIXEL_UM, DISTANCE_MM, RADIUS_UM, MU_CM1 = 2.6, 100.0, 90.0, 2.332
ROWS = np.arange(48)
VIEW = Acquisition(
    2, 48, 8, pixel_um=PIXEL_UM, distance_mm=DISTANCE_MM, blur_fwhm_px=1.5, photons=None, sampling="fast"
)


def refracted(z0_px, *, roughness_um):
    """First moment (rows) of the light that a face of a disc moves, and that which its phase says.

    The mean place of a wave moves with the distance as the mean slope of its phase (Ehrenfest's theorem):
    whatever fringes it makes, the sum of z (I - I_0) is lambda d / 2 pi times that of I_0 d(phase)/dz.
    """
    view = with_changes(VIEW, roughness_um=roughness_um)
    z0_mm = (z0_px - view.axis_px[0]) * PIXEL_UM * 1e-3
    disc = Cylinder(0.0, 0.0, RADIUS_UM * 1e-3, z0_mm, 1.0, MU_CM1)
    sample = Sample((Part("disc", "nasicon", disc, "void"),), 80.0, {"nasicon": MU_CM1})
    light = LightPath(sample, acquisition=view).transmission(np.array([0.3]), rows=(0, 48), cols=(3, 5))
    seen = light.mean(axis=1)
    through = math.exp(-MU_CM1 * 2 * RADIUS_UM * 1e-4)
    still = 1 + (through - 1) * ndimage.gaussian_filter1d(
        np.clip(ROWS - z0_px + 0.5, 0, 1), 1.5 / math.sqrt(8 * math.log(2)), mode="nearest"
    )
    # further away there is but the disc as a weak lens
    near = np.abs(ROWS - z0_px) < 6.5
    moved = ((seen - still) * (ROWS - z0_px))[near].sum()
    turn = 2 * math.pi / wavelength_um(80.0) * delta("nasicon", energy_kev=80.0) * 2 * RADIUS_UM
    fresnel_px2 = wavelength_um(80.0) * DISTANCE_MM * 1e3 / PIXEL_UM**2
    return moved, -fresnel_px2 / (2 * math.pi) * turn * (1 + through) / 2


@pytest.mark.parametrize("z0_px", [20.0, 20.3, 20.5, 20.8])
def test_a_rough_face_along_the_beam_refracts_as_its_phase_says_wherever_it_lies(z0_px):
    moved, expected = refracted(z0_px, roughness_um=1.0)
    assert moved == pytest.approx(expected, rel=0.1)


def test_a_flat_face_along_the_beam_hides_whole_turns_of_its_phase():
    moved, expected = refracted(20.0, roughness_um=0.0)
    assert abs(moved) < 0.5 * abs(expected)


def test_roughness_counts_where_light_goes_a_distance_only():
    plain, rough = (
        simulate(
            build_cell(Cell(48, 64, PIXEL_UM)),
            acquisition=Acquisition(4, 48, 64, pixel_um=PIXEL_UM, roughness_um=r),
            seed=1,
        ).frames.read(frames=(0, 1))
        for r in (0.0, 1.0)
    )
    np.testing.assert_array_equal(plain, rough)


def test_the_cell_of_a_series_is_rough_where_it_shows():
    near, far, asked = (
        build_series(scale_um=PIXEL_UM, **changes).steps[0].acquisition.roughness_um
        for changes in ({}, {"distance_mm": 100.0}, {"distance_mm": 100.0, "roughness_um": 0.3})
    )
    assert (near, far, asked) == (0.0, 1.0, 0.3)
