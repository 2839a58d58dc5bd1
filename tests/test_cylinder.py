"""Interior scans completed from the known cell, against the simulated one."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from xctpipe import phantom, recon
from xctpipe.correct.flat import minus_log
from xctpipe.materials import attenuation_cm1
from xctpipe.phantom.materials import mu
from xctpipe.recon.cylinder import Seen, Tube, add_cell, fit_cell, without_cell
from xctpipe.scan import ArrayFrames
from xctpipe.survey import CenterChoice, make_survey

TUBE = Tube(6.0, 2.0, attenuation_cm1("C19H12O3", density_g_cm3=1.31, energy_kev=80.0))
LAYERS = {"aluminium": (0, 6), "nak50": (10, 34), "nasicon": (40, 64)}


def cracked(scan):
    """The scan with a bubble and three cracks in the ceramic: one flat, one upright, one out of the view."""
    nasicon, (_, nak) = mu("nasicon", energy_kev=80), (0, mu("nak50", energy_kev=80))
    sample, pixel_mm = scan.frames.sample, 1e-3 * scan.pixel_um
    z_mm = 18 * pixel_mm
    shapes = [
        phantom.sphere((0.5, -0.4, -9 * pixel_mm), radius_mm=0.3, delta_mu_cm1=-nak),
        phantom.Ellipsoid((0.2, 0.3, z_mm), (1.0, 0.8, 0.03), -nasicon),
        phantom.Ellipsoid((-0.6, -0.2, z_mm), (0.9, 0.03, 0.3), -nasicon, phantom.rotation(0.6)),
        phantom.Ellipsoid((2.2, 0.1, z_mm), (0.6, 0.04, 0.4), -nasicon, phantom.rotation(-0.3)),
    ]
    parts = (*sample.parts, *(phantom.Part(f"crack-{i}", "void", each) for i, each in enumerate(shapes)))
    again = phantom.simulate(
        replace(sample, parts=parts), acquisition=scan.frames.acquisition, seed=scan.frames.seed
    )
    return replace(again, name=scan.name)


@cache
def lines_of(*, cracks=False, **changes):
    scan, truth = phantom.simulated_scan(size="tiny", seed=5, **changes)
    scan = cracked(scan) if cracks else scan
    # simulated once, not again for each row that is looked at
    raw = scan.frames.read()
    survey = make_survey(replace(scan, frames=ArrayFrames(raw)), center=CenterChoice(truth["center_px"]))
    lines, _ = minus_log(survey.transmission(raw, rows=(0, 64)))
    lines.flags.writeable = False
    return scan, lines, Seen(survey.angles_rad, survey.center_at(np.arange(64)), 1e-3 * scan.pixel_um)


def completed(lines, seen):
    part = replace(seen, centers_px=seen.centers_px[::6])
    fit = fit_cell(lines[:, ::6], tube=TUBE, seen=part)
    rest, filling = without_cell(lines, tube=TUBE, fit=fit, seen=seen)
    volume = recon.reconstruct(
        rest, angles_rad=seen.angles_rad, center_px=seen.centers_px, pixel_um=1e3 * seen.pixel_mm
    )
    add_cell(volume, filling_cm1=filling, tube=TUBE, fit=fit, pixel_mm=seen.pixel_mm)
    return volume, fit


def rings(volume, layer, *, pure=None, edges=(0.0, 0.3, 0.5, 0.7, 0.8, 0.9)):
    """Median over the rows of a layer in rings about the middle of the view, as parts of its radius."""
    at = np.arange(volume.shape[2]) - (volume.shape[2] - 1) / 2
    radius = np.hypot(at, at[:, None]) / (volume.shape[2] / 2)
    rows = slice(*LAYERS[layer])
    here = np.ones(volume.shape, bool)[rows] if pure is None else pure[rows]
    part = volume[rows]
    inside = [here & (radius >= a) & (radius < b) for a, b in pairwise(edges)]
    return np.array([np.median(part[ring]) for ring in inside])


def pure_voxels(scan, material):
    """Voxels of one material, with nothing else within two of them."""
    truth = phantom.render(scan.frames.sample, acquisition=scan.frames.acquisition, oversampling=2)
    return ndimage.binary_erosion(np.abs(truth - mu(material, energy_kev=80)) < 1e-3, iterations=2)


@pytest.mark.parametrize("cracks", [False, True])
def test_an_interior_scan_has_true_values_up_to_nine_tenths_of_the_view(cracks) -> None:
    scan, lines, seen = lines_of(cracks=cracks)
    volume, fit = completed(lines, seen)
    assert np.hypot(fit.x_mm - 0.031, fit.y_mm + 0.022) < 0.03
    assert fit.misfit_frac < 0.1
    inner = rings(volume, "nasicon", pure=pure_voxels(scan, "nasicon"))
    np.testing.assert_allclose(inner, mu("nasicon", energy_kev=80), rtol=0.03)
    np.testing.assert_allclose(rings(volume, "nak50"), mu("nak50", energy_kev=80), atol=0.03)
    np.testing.assert_allclose(rings(volume, "aluminium"), mu("aluminium", energy_kev=80), atol=0.03)


def test_a_cell_in_full_view_stays_as_it_is() -> None:
    _, lines, seen = lines_of(full_view=True, photons=None)
    plain = recon.reconstruct(
        lines, angles_rad=seen.angles_rad, center_px=seen.centers_px, pixel_um=1e3 * seen.pixel_mm
    )
    volume, _ = completed(lines, seen)
    for layer in LAYERS:
        np.testing.assert_allclose(rings(volume, layer), rings(plain, layer), atol=0.02)


def test_a_slab_is_its_rows() -> None:
    _, lines, seen = lines_of()
    fit = fit_cell(lines[:, ::8], tube=TUBE, seen=replace(seen, centers_px=seen.centers_px[::8]))
    rest, filling = without_cell(lines, tube=TUBE, fit=fit, seen=seen)
    part = slice(13, 21)
    again, some = without_cell(
        lines[:, part], tube=TUBE, fit=fit, seen=replace(seen, centers_px=seen.centers_px[part])
    )
    np.testing.assert_array_equal(again, rest[:, part])
    np.testing.assert_array_equal(some, filling[part])


def test_a_cell_of_another_size_is_noticed() -> None:
    _, lines, seen = lines_of()
    some = replace(seen, centers_px=seen.centers_px[::6])
    right = fit_cell(lines[:, ::6], tube=TUBE, seen=some)
    wrong = fit_cell(lines[:, ::6], tube=replace(TUBE, bore_mm=4.4), seen=some)
    assert wrong.misfit_frac > 2 * right.misfit_frac
