import json
import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import fresnel

from xctpipe.errors import BadRecipe
from xctpipe.phantom import (
    Acquisition,
    Cylinder,
    Ellipsoid,
    Part,
    Sample,
    delta,
    exact_line_integrals,
    occupancy,
    rotation,
    simulate,
    sphere,
    with_changes,
)
from xctpipe.phantom.caps import (
    Annulus,
    CapShell,
    ClippedEllipsoid,
    LiftedGap,
    cap_void,
    lens,
    penny,
    surface_crack,
)
from xctpipe.phantom.cell import Cell, build_cell
from xctpipe.phantom.closed_forms import (
    cap_area,
    cap_base_radius,
    cap_shell_volume,
    cap_void_volume,
    cap_volume,
    lifted_opening_median,
    lifted_volume,
    penny_area,
    penny_volume,
    sneddon_opening_median,
    surface_crack_area,
    surface_crack_volume,
)
from xctpipe.phantom.counting import SMALL_MEAN, poisson
from xctpipe.phantom.light import LightPath
from xctpipe.phantom.optics import phase_shapes, propagated, wave_behind, wavelength_um
from xctpipe.phantom.projector import pixel_shadows, project
from xctpipe.phantom.shapes import from_dict, to_dict

PX = 0.0013
TILTED = rotation(0.4, 0.5, 0.6)
SHAPES = {
    "crack-shell": CapShell(0.011, 0.007, 0.25 * PX, 60 * PX, 12 * PX, PX, 1, 1.3),
    "thick-shell": CapShell(0.011, -0.007, 0.0, 20 * PX, 4 * PX, 10 * PX, -1, 1.3),
    "lifted-gap": LiftedGap(0.011, 0.007, 0.25 * PX, 60 * PX, 12 * PX, 3 * PX, 1, -0.7),
    "lens": lens(0.01, -0.02, z_mm=0.25 * PX, radius_mm=60 * PX, depth_mm=12 * PX, side=-1, delta_mu_cm1=2.0),
    "cap-void": cap_void(
        0.01, 0.0, z_mm=0.25 * PX, base_mm=9 * PX, height_mm=5 * PX, side=-1, delta_mu_cm1=-0.2
    ),
    "surface-crack": surface_crack(
        (0.011, 0.007, 0.25 * PX),
        half_length_mm=30 * PX,
        depth_mm=20 * PX,
        opening_mm=1.5 * PX,
        side=1,
        azimuth_rad=0.3,
        delta_mu_cm1=-2.0,
    ),
    "slab-of-ellipsoid": ClippedEllipsoid(
        (0.01, 0.02, 0.0), (30 * PX, 9 * PX, 20 * PX), 1.1, TILTED, z0_mm=-5.75 * PX, z1_mm=8.25 * PX
    ),
    "penny": penny(
        (0.011, 0.007, 0.0004),
        radius_mm=40 * PX,
        opening_mm=0.5 * PX,
        normal=(0.1, 0.05, 1),
        delta_mu_cm1=1.0,
    ),
    "ring": Annulus(0.01, 0.02, 20 * PX, 30 * PX, -3.25 * PX, 9.25 * PX, 0.6),
}
PLAIN = (
    Cylinder(0.01, 0.02, 0.02, -0.01, 0.013, 1.0),
    Ellipsoid((0.01, 0.02, 0), (0.01, 0.02, 0.03), 1.0, TILTED),
)
VIEW = Acquisition(
    n_angles=7, rows=150, cols=190, pixel_um=1.3, photons=None, pixel_type="float32", sampling="fast"
)


def sample_of(*shapes):
    return Sample(tuple(Part(f"part-{i}", "void", s, "nasicon") for i, s in enumerate(shapes)), 80.0)


@pytest.fixture(params=sorted(SHAPES))
def shape(request):
    return SHAPES[request.param]


# ---- closed forms


def test_volumes_are_those_of_the_plating_series():
    # micrometers: the numbers of the cell at 0.7 mA/cm2
    assert surface_crack_volume(60, 40, opening=2) == pytest.approx(5.03e3, rel=2e-3)
    assert surface_crack_area(60, 40) == pytest.approx(math.pi * 60 * 40 / 2)
    shells = ((60, 3, 6.79e5, 0.226, 262), (120, 5, 2.26e6, 0.452, 360), (180, 6, 4.07e6, 0.679, 428))
    for depth, opening, volume, area_mm2, base in shells:
        assert cap_shell_volume(600, depth, opening=opening) == pytest.approx(volume, rel=2e-3)
        assert cap_area(600, depth) == pytest.approx(area_mm2 * 1e6, rel=2e-3)
        assert cap_base_radius(600, depth) == pytest.approx(base, rel=2e-3)
    assert cap_volume(600, 180) == pytest.approx(5.50e7, rel=2e-3)
    assert lifted_volume(600, 180, lift=8) == pytest.approx(4.53e6 * 0.9797, rel=3e-2)
    assert lifted_volume(600, 180, lift=180) == cap_volume(600, 180)
    assert cap_void_volume(3, 3) == pytest.approx(2 / 3 * math.pi * 27)
    assert penny_volume(5, opening=0.3) == pytest.approx(4 / 3 * math.pi * 25 * 0.15)
    # the mean opening is the volume over the area
    assert penny_volume(5, opening=0.3) / penny_area(5) == pytest.approx(0.2)


def test_median_openings_are_those_of_the_surface():
    rng = np.random.default_rng(0)
    r = 5 * np.sqrt(rng.uniform(0, 1, 100001))
    assert np.median(2 * np.sqrt(1 - (r / 5) ** 2)) == pytest.approx(sneddon_opening_median(2), rel=5e-3)
    # points spread evenly over a cap of depth 3 on radius 10, and their distance to the cap lifted by 0.1
    z = rng.uniform(7, 10, 100001)
    normal = np.column_stack([np.sqrt(100 - z**2), z]) / 10
    start = np.column_stack([np.sqrt(100 - z**2), z - -0.1])
    along = (start * normal).sum(1)
    gap = along - np.sqrt(along**2 - (start**2).sum(1) + 100)
    assert np.median(gap) == pytest.approx(lifted_opening_median(10, 3, lift=0.1), rel=1e-2)


def test_volume_counts_points_inside_the_bounds(shape):
    (x0, x1), (y0, y1), (z0, z1) = shape.bounds_mm
    n = 120
    x, y, z = (low + (np.arange(n) + 0.5) / n * (high - low) for low, high in ((x0, x1), (y0, y1), (z0, z1)))
    inside = shape.contains(x, y[:, None], z[:, None, None])
    box = (x1 - x0) * (y1 - y0) * (z1 - z0)
    assert inside.mean() * box == pytest.approx(shape.volume_mm3, rel=2e-2)
    # the box is tight: something lies within two steps of each of its faces, and nothing beyond
    for axis in range(3):
        occupied = inside.any(axis=tuple({0, 1, 2} - {axis}))
        assert occupied[:4].any()
        assert occupied[-4:].any()
    wide = [
        low - 0.2 * (high - low) + np.arange(60) / 59 * 1.4 * (high - low) for low, high in shape.bounds_mm
    ]
    x, y, z = wide
    hit = np.argwhere(shape.contains(x, y[:, None], z[:, None, None]))
    for (low, high), axis, places in zip(shape.bounds_mm, (2, 1, 0), wide, strict=True):
        assert low - 1e-9 <= places[hit[:, axis]].min()
        assert places[hit[:, axis]].max() <= high + 1e-9


@pytest.mark.parametrize("opening_px", [2.0, 3.0, 4.0])
def test_rendered_shells_hold_their_volume(opening_px):
    view = with_changes(VIEW, rows=40, cols=100)
    shell = CapShell(0.4 * PX, 0.0, -5.3 * PX, 60 * PX, 12 * PX, opening_px * PX, 1, 1.0)
    _, inside = occupancy(shell, acquisition=view, rows=(0, 40))
    assert inside.sum() * PX**3 == pytest.approx(shell.volume_mm3, rel=5e-3)


def test_shapes_survive_the_way_through_json(shape):
    assert from_dict(json.loads(json.dumps(to_dict(shape)))) == shape


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CapShell(0, 0, 0, 1, 2, 0.1, 1, 1), "depth"),
        (lambda: CapShell(0, 0, 0, 1, 0.5, 0.1, 0, 1), "side"),
        (lambda: LiftedGap(0, 0, 0, 1, 0.5, -0.1, 1, 1), "opening_mm"),
        (lambda: ClippedEllipsoid((0, 0, 0), (1, 1, 1), 1, z0_mm=1.5), "leave nothing"),
        (lambda: penny((0, 0, 0), radius_mm=1, opening_mm=0.1, normal=(0, 0, 0), delta_mu_cm1=1), "normal"),
        (lambda: Annulus(0, 0, 2, 1, 0, 1, 1), "inner < outer"),
        (lambda: cap_void(0, 0, z_mm=0, base_mm=0, height_mm=1, side=1, delta_mu_cm1=1), "base_mm"),
    ],
)
def test_impossible_shapes_are_refused(make, says):
    with pytest.raises(BadRecipe, match=says):
        make()


# ---- projections


def chord(ellipsoid, angle, u, z):
    """Length inside an ellipsoid of the ray (u, z), from the quadratic equation along it."""
    c, s = math.cos(angle), math.sin(angle)
    x0, y0, z0 = ellipsoid.center_mm
    scale = np.asarray(ellipsoid.rotation) / np.asarray(ellipsoid.semi_axes_mm)
    start = np.stack(np.broadcast_arrays(u * c - x0, -u * s - y0, z - z0), -1) @ scale
    along = np.array([s, c, 0]) @ scale
    a, b, d = along @ along, start @ along, (start**2).sum(-1) - 1
    return 2 * np.sqrt(np.maximum(b * b - a * d, 0)) / a


def pixel_means(ray, *, rows, cols, fine_u=16, fine_z=192):
    u = ((np.arange(cols[0] * fine_u, cols[1] * fine_u) + 0.5) / fine_u - 0.5) * PX
    out = np.empty((rows[1] - rows[0], cols[1] - cols[0]))
    for row in range(*rows):
        z = ((np.arange(fine_z) + 0.5) / fine_z - 0.5 + row) * PX
        out[row - rows[0]] = ray(u[None], z[:, None]).reshape(fine_z, -1, fine_u).mean(axis=(0, 2))
    return out


def whole_and_rays():
    ball = sphere((0.0101, 0.0072, 0.00357), radius_mm=20.3 * PX, delta_mu_cm1=1.0)
    yield pytest.param(ball, lambda a, u, z: chord(ball, a, u, z), id="sphere")
    speck = sphere((0.0101, 0.0072, 0.00357), radius_mm=1.3 * PX, delta_mu_cm1=1.0)
    yield pytest.param(speck, lambda a, u, z: chord(speck, a, u, z), id="speck")
    for opening in (0.5, 3.0):
        w, r, d, z0 = opening * PX, 80 * PX, 15 * PX, 0.25 * PX
        outer, inner = (
            sphere((0.011, 0.007, z0 + d - r), radius_mm=r + h, delta_mu_cm1=1.0) for h in (w / 2, -w / 2)
        )
        yield pytest.param(
            CapShell(0.011, 0.007, z0, r, d, w, 1, 1.0),
            lambda a, u, z, o=outer, i=inner, z0=z0: np.where(
                z > z0, chord(o, a, u, z) - chord(i, a, u, z), 0
            ),
            id=f"shell-{opening}",
        )
        for normal in ((0, 0, 1), (0.1, 0.05, 1), (1, 0.4, 0.3)):
            crack = penny(
                (0.011, 0.007, 0.0), radius_mm=40 * PX, opening_mm=w, normal=normal, delta_mu_cm1=1.0
            )
            yield pytest.param(
                crack, lambda a, u, z, p=crack: chord(p, a, u, z), id=f"penny-{opening}-{normal[0]}"
            )


@pytest.mark.parametrize(("shape", "ray"), list(whole_and_rays()))
def test_pixels_are_within_a_thousandth_of_numerical_integration(shape, ray):
    angle = 0.7
    shadows = pixel_shadows([shape], angles_rad=np.array([angle]), pixel_um=1.3, axis_px=(0.0, 0.0))[0]
    (x0, x1), (y0, y1), (z0, z1) = shape.bounds_mm
    seen = [(x * math.cos(angle) - y * math.sin(angle)) / PX for x in (x0, x1) for y in (y0, y1)]
    rows = (math.floor(z0 / PX) - 1, math.ceil(z1 / PX) + 2)
    cols = (math.floor(min(seen)) - 1, math.ceil(max(seen)) + 2)
    expected = 0.1 * pixel_means(lambda u, z: ray(angle, u, z), rows=rows, cols=cols)
    pixels = project(shadows, rows=rows, cols=cols, fine=True)
    np.testing.assert_allclose(pixels, expected, atol=1e-3 * expected.max())


def test_every_projection_holds_the_whole_mass(shape):
    angles = np.linspace(0, 2 * math.pi, 7)
    for view in (VIEW, with_changes(VIEW, sampling="numpy")):
        p = exact_line_integrals(sample_of(shape), acquisition=view, angles_rad=angles)
        mass_cm2 = shape.delta_mu_cm1 * shape.volume_mm3 * 1e-3
        np.testing.assert_allclose(
            p.sum(axis=(1, 2), dtype=np.float64) * (PX * 0.1) ** 2, mass_cm2, rtol=1e-6
        )


@pytest.mark.parametrize("shape", [*SHAPES.values(), *PLAIN])
def test_a_moved_shape_is_seen_turned_and_shifted(shape):
    turn, angles = math.radians(3.0), np.array([0.2, 1.4])
    moved = shape.moved((3 * PX, -2 * PX, 5 * PX), turn_rad=turn)
    assert moved.volume_mm3 == pytest.approx(shape.volume_mm3, rel=1e-12)
    seen = pixel_shadows([moved], angles_rad=angles, pixel_um=1.3, axis_px=(70.0, 95.0))
    shift = 3 * np.cos(angles) + 2 * np.sin(angles)
    for one, angle, u in zip(seen, angles, shift, strict=True):
        still = pixel_shadows(
            [shape], angles_rad=np.array([angle + turn]), pixel_um=1.3, axis_px=(75.0, 95.0 + u)
        )
        pair = [project(s, rows=(0, 150), cols=(0, 190)) for s in (one, still[0])]
        np.testing.assert_allclose(*pair, atol=1e-9 * abs(pair[1]).max())
    x, y, z = np.random.default_rng(0).uniform(-0.06, 0.06, (3, 20000))
    xm, ym = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    np.testing.assert_array_equal(
        moved.contains(xm + 3 * PX, ym - 2 * PX, z + 5 * PX), shape.contains(x, y, z)
    )


def test_rows_cost_the_shapes_that_touch_them_and_add_up_the_same():
    rng = np.random.default_rng(1)
    balls = [
        sphere(tuple(rng.uniform(-0.08, 0.08, 3)), radius_mm=4 * PX, delta_mu_cm1=1.0) for _ in range(300)
    ]
    table = sample_of(*balls, *SHAPES.values()).table
    near = table.within(-0.0014, 0.0014)
    assert 0 < len(near.solids) < 60
    rows = (74, 76)
    some, every = (
        project(
            t.shadows_px(np.array([0.3]), pixel_um=1.3, axis_px=(74.5, 94.5))[0], rows=rows, cols=(0, 190)
        )
        for t in (near, table)
    )
    np.testing.assert_array_equal(some, every)


# ---- counting


@pytest.mark.parametrize("mean", [0.3, 12.0, 199.0, 200.0, 1000.0, 1e4, 1e6])
def test_fast_counts_are_poisson_in_mean_and_variance(mean):
    n = 400_000
    counts = poisson(np.full(n, mean), rng=np.random.default_rng(3))
    assert abs(counts.mean() - mean) < 3 * math.sqrt(mean / n)
    assert counts.var() == pytest.approx(mean, rel=3 * math.sqrt(2 / n + 1 / (mean * n)))


def test_fast_counts_take_means_large_small_and_none_in_one():
    means = np.array([[1e4, 5.0], [0.0, -1.0]])
    counts = np.array([poisson(means, rng=np.random.default_rng(i)) for i in range(2000)])
    assert np.all(counts[:, 1] == 0)
    assert np.all(counts == np.rint(counts))
    np.testing.assert_allclose(counts.mean(axis=0)[0], means[0], rtol=0.05)
    assert means[0, 1] < SMALL_MEAN < means[0, 0]


@pytest.mark.parametrize("sampling", ["numpy", "fast"])
def test_noise_is_unbiased_in_intensity(sampling):
    view = Acquisition(300, 32, 60, pixel_um=50.0, photons=500.0, pixel_type="float32", sampling=sampling)
    view = with_changes(view, first_deg=0.0, last_deg=1e-9)
    sample = Sample((Part("disc", "nasicon", Cylinder(0, 0, 1.0, -9, 9, 8.0), "void"),), 80.0)
    light = np.exp(-exact_line_integrals(sample, acquisition=view, angles_rad=np.zeros(1))[0].astype(float))
    raw = simulate(sample, acquisition=view, seed=1).frames.read().astype(float)
    photons = (raw - view.dark_adu) / view.open_beam_adu * 500
    z = (photons.mean(axis=0) - 500 * light) / np.sqrt(500 * light / 300)
    assert abs(z.mean()) < 3 / math.sqrt(z.size)
    assert z.std() == pytest.approx(1, abs=3 / math.sqrt(2 * z.size))


def test_fast_scans_are_the_same_bytes_whatever_is_read():
    sample = sample_of(*SHAPES.values())
    view = with_changes(
        VIEW, photons=3e3, pixel_type="uint16", read_noise_adu=3.0, blur_fwhm_px=1.5, electrons_per_photon=2.3
    )
    whole = simulate(sample, acquisition=view, seed=4).frames.read()
    frames = simulate(sample, acquisition=view, seed=4).frames
    parts = [frames.read(span, frames=(2, 5)) for span in pairwise((0, 7, 64, 65, 101, 150))]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole[2:5])
    assert np.any(simulate(sample, acquisition=view, seed=5).frames.read(frames=(0, 1)) != whole[:1])


# ---- propagation


def test_phase_follows_from_what_a_part_is_and_what_it_replaces():
    pore = Part("pore", "void", sphere((0, 0, 0), radius_mm=0.1, delta_mu_cm1=-2.3), "nasicon")
    (shape,) = phase_shapes(Sample((pore,), 80.0))
    per_cm = 2 * math.pi / 0.15498e-8
    assert shape.delta_mu_cm1 == pytest.approx(-per_cm * delta("nasicon", energy_kev=80), rel=1e-4)
    assert shape.volume_mm3 == pore.shape.volume_mm3
    with pytest.raises(BadRecipe, match="host="):
        phase_shapes(Sample((Part("pore", "void", pore.shape),), 80.0))


def test_parts_of_the_cell_say_what_they_replace():
    sample = build_cell(Cell(rows=64, cols=96, pixel_um=40.0))
    for part in sample.parts:
        contrast = sample.mu_cm1[part.material] - sample.mu_cm1[part.host]
        assert part.shape.delta_mu_cm1 == pytest.approx(contrast)
    assert sample.delta["void"] == 0


def test_no_distance_leaves_the_intensity_and_all_distances_the_light():
    rng = np.random.default_rng(0)
    depth, retardation = rng.uniform(0, 1, (48, 60)), rng.normal(0, 2, (48, 60))
    wave = wave_behind(depth, retardation_rad=retardation)
    here = propagated(wave, pixel_um=(1.0, 1.0), fresnel_um2=0.0)
    np.testing.assert_allclose(here, np.exp(-depth), rtol=1e-5)
    there = propagated(wave, pixel_um=(1.0, 1.3), fresnel_um2=7.0)
    assert abs(there - here).max() > 0.1
    assert there.mean(dtype=float) == pytest.approx(np.exp(-depth).mean(), rel=1e-6)


def test_a_smooth_object_follows_the_transport_of_intensity():
    y, x = np.mgrid[:128, :128] - 63.5
    depth = 0.5 * np.exp(-(x**2 + y**2) / 450)
    retardation = 0.3 * np.exp(-(x**2 + y**2) / 288)
    through, fresnel_um2 = np.exp(-depth), 0.5
    down, across = np.gradient(retardation)
    change = np.gradient(through * down, axis=0) + np.gradient(through * across, axis=1)
    expected = through + fresnel_um2 / (2 * math.pi) * change
    wave = wave_behind(depth, retardation_rad=retardation)
    intensity = propagated(wave, pixel_um=(1.0, 1.0), fresnel_um2=fresnel_um2)
    assert abs(expected - through).max() > 1e-4
    np.testing.assert_allclose(intensity, expected, atol=0.02 * abs(expected - through).max())


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("step_rad", [1.0, -2.0, 3.0])
def test_a_phase_edge_makes_the_fringes_of_fresnels_integrals(axis, step_rad):
    fresnel_um2 = wavelength_um(80.0) * 0.3e6
    pixel_um, n, binned = 0.25, 1024, 8
    x = (np.arange(n) - n / 2 + 0.5) * pixel_um
    # matter on the side of negative x: the phase there is -retardation
    wave = np.tile(wave_behind(0 * x[None], retardation_rad=np.where(x < 0, step_rad, 0.0)[None]), (64, 1))
    wave = wave if axis else wave.T
    tapers = (0, 80) if axis else (80, 0)
    seen = propagated(wave, pixel_um=(pixel_um, pixel_um), fresnel_um2=fresnel_um2, taper_px=tapers)
    line = (seen[20] if axis else seen[:, 20]).reshape(-1, binned).mean(axis=1)
    fine = (np.arange(n * 16) + 0.5) / 16 * pixel_um - n / 2 * pixel_um
    s, c = fresnel(fine * math.sqrt(2 / fresnel_um2))
    share = ((0.5 + c) + 1j * (0.5 + s)) / (1 + 1j)
    truth = abs(share + np.exp(-1j * step_rad) * (1 - share)) ** 2
    truth = truth.reshape(-1, 16 * binned).mean(axis=1)
    middle = slice(40, -40)
    assert np.ptp(truth[middle]) > 0.2
    np.testing.assert_allclose(line[middle], truth[middle], atol=0.01)


def propagating_scan(**changes):
    view = Acquisition(
        4, 150, 80, pixel_um=1.3, photons=None, pixel_type="float32", distance_mm=300.0, sampling="fast"
    )
    view = with_changes(view, **changes)
    return simulate(build_cell(Cell(150, 80, 1.3, n_pores=12)), acquisition=view, seed=2)


def test_propagated_rows_are_those_of_the_whole_frame():
    frames = propagating_scan(blur_fwhm_px=1.9, photons=1e4).frames
    whole = frames.read(frames=(1, 2))
    parts = [frames.read(rows, frames=(1, 2)) for rows in ((0, 10), (10, 129), (129, 150))]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_blocks_of_propagation_meet_without_a_seam():
    frames = propagating_scan().frames
    path = LightPath(frames.sample, acquisition=frames.acquisition)
    angle = np.array([0.4])
    one, other, narrow = (
        path.transmission(angle, rows=rows, cols=cols)
        for rows, cols in (((30, 78), (0, 80)), ((60, 108), (0, 80)), ((30, 78), (20, 60)))
    )
    assert np.ptp(one) > 0.1
    np.testing.assert_allclose(one[30:], other[:18], atol=2e-4)
    np.testing.assert_allclose(narrow, one[:, 20:60], atol=2e-4)


def test_propagation_keeps_light_and_draws_fringes_around_a_bubble():
    flat, fringed = (propagating_scan(distance_mm=z).frames.read(frames=(0, 1))[0] for z in (0.0, 300.0))
    assert np.ptp(fringed) > 1.5 * np.ptp(flat)
    smooth = [a.reshape(5, 30, 80).mean(axis=(1, 2)) for a in (flat, fringed)]
    np.testing.assert_allclose(*smooth, rtol=5e-3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"pixel_um": 40.0}, "points along a pixel"), ({"distance_mm": 1e5}, "shorter distance")],
)
def test_distances_beyond_the_sampling_are_refused_with_the_scan(changes, says):
    with pytest.raises(BadRecipe, match=says):
        propagating_scan(**changes)


# ---- turning while the frame is exposed


def test_a_frame_of_three_angles_is_the_mean_of_three_frames():
    ball = sphere((0.08, 0.0, 0.0), radius_mm=0.02, delta_mu_cm1=40.0)
    view = with_changes(VIEW, n_angles=4, last_deg=30.0, open_beam_adu=1.0, dark_adu=0.0)
    blurred = simulate(sample_of(ball), acquisition=with_changes(view, n_sub_angles=3)).frames.read()
    angles = np.deg2rad(np.array([0, 10, 20, 30])[:, None] + np.array([-10 / 3, 0, 10 / 3]))
    each = np.exp(-exact_line_integrals(sample_of(ball), acquisition=view, angles_rad=angles.ravel()))
    np.testing.assert_allclose(blurred, each.reshape(4, 3, 150, 190).mean(axis=1), atol=1e-6)
    sharp = simulate(sample_of(ball), acquisition=view).frames.read()
    assert abs(sharp - blurred).max() > 0.01


def test_haze_lost_frames_and_lean_are_the_same_bytes_whatever_is_read():
    faults = {"tail_frac": 0.07, "tail_length_px": 4.0, "lost_frames": (1, 3), "tilt_deg": 0.5}
    view = with_changes(VIEW, photons=3e3, pixel_type="uint16", blur_fwhm_px=1.5)
    frames = simulate(sample_of(*SHAPES.values()), acquisition=with_changes(view, **faults), seed=4).frames
    whole = frames.read()
    assert whole.shape == (5, 150, 190)
    parts = [frames.read(span, frames=(2, 4)) for span in pairwise((0, 7, 40, 65, 150))]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole[2:4])
    # what is lost leaves the others as they were
    kept = simulate(
        sample_of(*SHAPES.values()), acquisition=with_changes(view, **faults | {"lost_frames": ()}), seed=4
    )
    np.testing.assert_array_equal(kept.frames.read()[[0, 2, 4, 5, 6]], whole)
