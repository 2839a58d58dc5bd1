import dataclasses
import json
import math
import pickle

import numba
import numpy as np
import pytest

from xctpipe.errors import BadRecipe
from xctpipe.phantom import (
    Acquisition,
    Cylinder,
    Ellipsoid,
    Part,
    Sample,
    Stripe,
    delta,
    exact_line_integrals,
    expected_noise_cm1,
    line_integral,
    measured_angles,
    mu,
    occupancy,
    register,
    render,
    rotation,
    simulate,
    simulated_scan,
    sphere,
    with_changes,
)
from xctpipe.phantom.scanner import partial_frames
from xctpipe.phantom.shapes import SHAPES, from_dict, to_dict
from xctpipe.scan import Frames, mean_frame


def sample_of(*shapes):
    return Sample(tuple(Part(f"part-{i}", "test", s) for i, s in enumerate(shapes)), energy_kev=80.0)


def random_shape(kind, rng, *, size_mm=0.3):
    center = tuple(rng.uniform(-0.4, 0.4, 3))
    if kind == "cylinder":
        height = rng.uniform(0.1, 0.5)
        return Cylinder(
            *center[:2], rng.uniform(0.3, 1) * size_mm, center[2] - height, center[2] + height, 1.7
        )
    axes = tuple(rng.uniform(0.1, 1, 3) * size_mm)
    return Ellipsoid(center, axes, -0.9, rotation(*rng.uniform(0, 2 * math.pi, 3)))


CLEAN = Acquisition(
    n_angles=31, rows=24, cols=40, pixel_um=50.0, photons=None, pixel_type="float32", dark_adu=0.0
)
NOISY = with_changes(CLEAN, photons=1000.0, pixel_type="uint16", dark_adu=100.0)
EMPTY = sample_of()


# ---- materials


@pytest.mark.parametrize(
    ("name", "mu_cm1", "delta_e8"),
    [
        ("nasicon", 2.332, 10.08),
        ("zirconia", 7.485, 16.8),
        ("nak50", 0.2239, 2.772),
        ("nak65", 0.2389, 2.729),
        ("nak80", 0.2533, 2.688),
        ("sodium", 0.1739, 3.002),
        ("potassium", 0.2803, 2.716),
        ("peek", 0.2206, 4.42),
        ("epdm-unfilled", 0.159, 3.22),
        ("epdm", 0.216, 3.97),
        ("aluminium", 0.545, 8.44),
    ],
)
def test_materials_agree_with_xraylib_at_80_kev(name, mu_cm1, delta_e8):
    assert mu(name, energy_kev=80) == pytest.approx(mu_cm1, rel=5e-3)
    assert delta(name, energy_kev=80) == pytest.approx(delta_e8 * 1e-8, rel=5e-3)


def test_void_is_nothing_and_attenuation_falls_with_energy():
    assert mu("void", energy_kev=80) == 0 == delta("void", energy_kev=80)
    assert mu("nasicon", energy_kev=60) > mu("nasicon", energy_kev=80) > mu("nasicon", energy_kev=100)


@pytest.mark.parametrize(
    ("name", "energy_kev", "says"),
    [("nasikon", 80, "nasicon"), ("nak150", 80, "wt%"), ("peek", 2, "5 to 300"), ("peek", math.nan, "keV")],
)
def test_unknown_material_or_energy_is_refused(name, energy_kev, says):
    with pytest.raises(BadRecipe, match=says):
        mu(name, energy_kev=energy_kev)


# ---- shapes and projections


@pytest.mark.parametrize("kind", sorted(SHAPES))
@pytest.mark.parametrize("seed", range(4))
def test_line_integral_is_the_length_inside_along_the_ray(kind, seed):
    rng = np.random.default_rng(seed)
    shape = random_shape(kind, rng)
    angle = rng.uniform(0, 2 * math.pi)
    (x0, x1), (y0, y1), (z0, z1) = shape.bounds_mm
    u_middle = (x0 + x1) / 2 * math.cos(angle) - (y0 + y1) / 2 * math.sin(angle)
    u, z = u_middle + rng.uniform(-0.3, 0.3, 60), rng.uniform(z0 - 0.02, z1 + 0.02, 60)
    depth = np.linspace(-1.5, 1.5, 12001)
    x = u[:, None] * math.cos(angle) + depth * math.sin(angle)
    y = -u[:, None] * math.sin(angle) + depth * math.cos(angle)
    step = depth[1] - depth[0]
    measured = shape.contains(x, y, z[:, None]).sum(axis=1) * step * shape.delta_mu_cm1
    exact = line_integral(shape, angle_rad=angle, u_mm=u, z_mm=z)
    assert np.count_nonzero(exact) > 5
    np.testing.assert_allclose(exact, measured, atol=1.01 * step * abs(shape.delta_mu_cm1))


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_pixels_hold_the_mean_line_integral(kind):
    rng = np.random.default_rng(5)
    shape, angle = random_shape(kind, rng, size_mm=0.5), np.array([0.7])
    pixels = exact_line_integrals(sample_of(shape), acquisition=CLEAN, angles_rad=angle)[0]
    axis_row, axis_col = CLEAN.axis_px
    fine_u, fine_z = 20, 160
    u = ((np.arange(CLEAN.cols * fine_u) + 0.5) / fine_u - 0.5 - axis_col) * CLEAN.pixel_um * 1e-3
    z = ((np.arange(CLEAN.rows * fine_z) + 0.5) / fine_z - 0.5 - axis_row) * CLEAN.pixel_um * 1e-3
    rays = 0.1 * line_integral(shape, angle_rad=0.7, u_mm=u[None, :], z_mm=z[:, None])
    mean = rays.reshape(CLEAN.rows, fine_z, CLEAN.cols, fine_u).mean(axis=(1, 3))
    np.testing.assert_allclose(pixels, mean, atol=4e-3 * abs(mean).max())
    assert abs(mean).max() > 0


@pytest.mark.parametrize("kind", sorted(SHAPES))
@pytest.mark.parametrize("seed", range(3))
def test_every_projection_holds_the_whole_mass(kind, seed):
    shape = random_shape(kind, np.random.default_rng(seed))
    view = with_changes(CLEAN, rows=48, cols=44)
    angles = np.linspace(0, 2 * math.pi, 9)
    p = exact_line_integrals(sample_of(shape), acquisition=view, angles_rad=angles)
    pixel_cm = view.pixel_um * 1e-4
    mass_cm2 = shape.delta_mu_cm1 * shape.volume_mm3 * 1e-3
    np.testing.assert_allclose(p.sum(axis=(1, 2), dtype=np.float64) * pixel_cm**2, mass_cm2, rtol=1e-6)


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_opposite_views_mirror_about_the_axis(kind):
    sample = sample_of(random_shape(kind, np.random.default_rng(1)))
    angles = np.array([0.3, 0.3 + math.pi])
    here, there = exact_line_integrals(sample, acquisition=CLEAN, angles_rad=angles)
    assert here.max() != here.min()
    np.testing.assert_allclose(there, here[:, ::-1], atol=1e-7)


@pytest.mark.parametrize("center_px", [None, 17.25, 23.8])
def test_a_point_is_seen_at_x_cos_minus_y_sin_plus_center(center_px):
    x, y, z = 0.31, 0.17, -0.21
    view = with_changes(CLEAN, center_px=center_px)
    angles = np.linspace(0, math.pi, 7)
    ball = sphere((x, y, z), radius_mm=0.1, delta_mu_cm1=1.0)
    p = exact_line_integrals(sample_of(ball), acquisition=view, angles_rad=angles).astype(np.float64)
    mass = p.sum(axis=(1, 2))
    cols = (p.sum(axis=1) * np.arange(view.cols)).sum(axis=1) / mass
    rows = (p.sum(axis=2) * np.arange(view.rows)).sum(axis=1) / mass
    expected = (x * np.cos(angles) - y * np.sin(angles)) / 0.05 + view.axis_px[1]
    np.testing.assert_allclose(cols, expected, atol=0.01)
    np.testing.assert_allclose(rows, z / 0.05 + (view.rows - 1) / 2, atol=0.01)


def test_projections_add_and_truncation_only_crops():
    shapes = [random_shape(kind, np.random.default_rng(3)) for kind in sorted(SHAPES)]
    angles = np.linspace(0, math.pi, 5)
    wide = with_changes(CLEAN, cols=60)
    together = exact_line_integrals(sample_of(*shapes), acquisition=wide, angles_rad=angles)
    apart = [exact_line_integrals(sample_of(s), acquisition=wide, angles_rad=angles) for s in shapes]
    np.testing.assert_allclose(together, sum(apart), atol=1e-6)
    narrow = with_changes(wide, cols=20, center_px=wide.axis_px[1] - 17)
    cut = exact_line_integrals(sample_of(*shapes), acquisition=narrow, angles_rad=angles)
    np.testing.assert_allclose(cut, together[:, :, 17:37], atol=1e-6)


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_rendered_voxels_count_the_volume(kind):
    shape = random_shape(kind, np.random.default_rng(2), size_mm=0.4)
    view = with_changes(CLEAN, rows=96, cols=96, pixel_um=20.0)
    box, inside = occupancy(shape, acquisition=view, rows=(0, 96))
    assert inside.shape == tuple(s.stop - s.start for s in box)
    assert inside.sum() * 0.02**3 == pytest.approx(shape.volume_mm3, rel=5e-3)


def test_large_shapes_are_rendered_as_small_ones_are():
    view = with_changes(CLEAN, rows=40, cols=40)
    shape = Ellipsoid((0.1, -0.05, 0.02), (0.93, 0.6, 0.5), 1.0, rotation(0.3, 0.4, 0.5))
    volume = render(sample_of(shape), acquisition=view, oversampling=3)
    sub = (np.arange(120) - 59.5) / 3 * 0.05
    points = shape.contains(sub, sub[:, None], sub[:, None, None])
    np.testing.assert_allclose(volume, points.reshape(40, 3, 40, 3, 40, 3).mean(axis=(1, 3, 5)), atol=1e-6)


def test_rendered_rows_are_those_of_the_whole_volume():
    sample = sample_of(*(random_shape(kind, np.random.default_rng(4)) for kind in sorted(SHAPES)))
    whole = render(sample, acquisition=CLEAN)
    np.testing.assert_array_equal(render(sample, acquisition=CLEAN, rows=(7, 15)), whole[7:15])


def test_the_volume_seen_from_two_sides_is_the_projections():
    view = with_changes(CLEAN, rows=32, cols=40)
    sample = sample_of(
        sphere((0.3, 0.0, 0.1), radius_mm=0.25, delta_mu_cm1=1.0),
        sphere((-0.1, 0.4, -0.2), radius_mm=0.3, delta_mu_cm1=0.5),
    )
    volume = render(sample, acquisition=view, oversampling=6)
    front, side = exact_line_integrals(sample, acquisition=view, angles_rad=np.array([0, math.pi / 2]))
    pixel_cm = view.pixel_um * 1e-4
    np.testing.assert_allclose(volume.sum(axis=1) * pixel_cm, front, atol=0.02 * front.max())
    # at 90 degrees a point is seen at column -y
    np.testing.assert_allclose(volume.sum(axis=2)[:, ::-1] * pixel_cm, side, atol=0.02 * front.max())


def test_shapes_survive_the_way_through_json():
    for kind in SHAPES:
        shape = random_shape(kind, np.random.default_rng(6))
        assert from_dict(json.loads(json.dumps(to_dict(shape)))) == shape


def test_a_new_shape_is_one_class(monkeypatch):
    monkeypatch.setitem(SHAPES, "shell", None)

    @register
    @dataclasses.dataclass(frozen=True)
    class Shell:
        inner: Ellipsoid
        outer: Ellipsoid
        delta_mu_cm1: float

        @property
        def volume_mm3(self):
            return self.outer.volume_mm3 - self.inner.volume_mm3

        @property
        def bounds_mm(self):
            return self.outer.bounds_mm

        def shadows(self, angles_rad):
            return np.concatenate([self.outer.shadows(angles_rad), self.inner.shadows(angles_rad)], axis=1)

        def contains(self, x_mm, y_mm, z_mm):
            return self.outer.contains(x_mm, y_mm, z_mm) & ~self.inner.contains(x_mm, y_mm, z_mm)

    outer = sphere((0.1, 0, 0), radius_mm=0.5, delta_mu_cm1=2.0)
    shell = Shell(sphere((0.1, 0, 0), radius_mm=0.4, delta_mu_cm1=-2.0), outer, 2.0)
    assert SHAPES["shell"] is Shell
    p = exact_line_integrals(sample_of(shell), acquisition=CLEAN, angles_rad=np.array([0.4]))
    assert p.sum() * (50e-4) ** 2 == pytest.approx(2.0 * shell.volume_mm3 * 1e-3, rel=1e-5)
    assert render(sample_of(shell), acquisition=CLEAN)[12, 20, 21] == 0


# ---- the instrument


def test_a_perfect_scan_gives_the_line_integrals_back():
    scan, truth = simulated_scan(perfect=True, n_angles=9)
    flat = mean_frame(scan.dark_flats[0].flats)
    dark = mean_frame(scan.dark_flats[0].darks)
    measured = -np.log((scan.frames.read() - dark) / (flat - dark))
    frames = scan.frames
    exact = exact_line_integrals(frames.sample, acquisition=frames.acquisition, angles_rad=scan.angles_rad)
    np.testing.assert_allclose(measured, exact, atol=2e-6)
    assert truth["center_px"] == (scan.shape[2] - 1) / 2
    np.testing.assert_allclose(np.deg2rad(truth["angles_deg"]), scan.angles_rad)


def test_counts_are_poisson_with_the_stated_mean():
    view = with_changes(NOISY, n_angles=400, open_beam_adu=3000.0)
    raw = simulate(EMPTY, acquisition=view, seed=1).frames.read().astype(np.float64) - view.dark_adu
    n = raw.size
    assert raw.mean() == pytest.approx(3000, abs=5 * 3000 / math.sqrt(1000 * n))
    photons = raw / 3.0
    assert photons.var() == pytest.approx(1000, rel=5 * math.sqrt(2 / n))
    neighbours = np.mean((photons[:, :, 1:] - 1000) * (photons[:, :, :-1] - 1000)) / 1000
    assert abs(neighbours) < 5 / math.sqrt(n)


def test_darks_hold_the_offset_and_the_read_noise():
    view = with_changes(NOISY, read_noise_adu=4.0, n_darks=50)
    darks = simulate(EMPTY, acquisition=view, seed=2).dark_flats[0].darks.read()
    assert darks.shape == (50, view.rows, view.cols)
    assert darks.mean() == pytest.approx(100, abs=0.1)
    assert darks.std() == pytest.approx(math.sqrt(16 + 1 / 12), rel=0.02)


def test_streams_of_frames_rows_and_kinds_are_independent():
    scan = simulate(EMPTY, acquisition=with_changes(NOISY, rows=40), seed=3)
    before, after = scan.dark_flats
    stacks = [f.read((0, 16), frames=(0, 2)) for f in (scan.frames, before.flats, after.flats)]
    stacks += [scan.frames.read((16, 32), frames=(0, 2)), scan.frames.read((0, 16), frames=(2, 4))]
    noise = np.array([s.ravel() - s.mean() for s in stacks])
    correlation = np.corrcoef(noise) - np.eye(len(noise))
    assert abs(correlation).max() < 5 / math.sqrt(noise.shape[1])


def test_same_seed_same_bytes_whatever_is_read_when_and_by_whom():
    scan, truth = simulated_scan(seed=5, n_angles=12, rows=40, cols=56)
    whole = scan.frames.read()
    again, same_truth = simulated_scan(seed=5, n_angles=12, rows=40, cols=56)
    blocks = [pickle.loads(pickle.dumps(again)).frames.read((r, min(r + 7, 40))) for r in range(0, 40, 7)][
        ::-1
    ]
    np.testing.assert_array_equal(np.concatenate(blocks[::-1], axis=1), whole)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(again.frames.read((13, 30), frames=(4, 9)), whole[4:9, 13:30])
    finally:
        numba.set_num_threads(threads)
    assert same_truth == truth
    other, _ = simulated_scan(seed=6, n_angles=12, rows=40, cols=56)
    assert np.mean(other.frames.read() == whole) < 0.1


@pytest.mark.parametrize("pixel_type", ["uint8", "uint16", "float32"])
def test_pixels_round_and_saturate_by_their_type(pixel_type):
    view = with_changes(CLEAN, pixel_type=pixel_type, open_beam_adu=70000.4)
    raw = simulate(EMPTY, acquisition=view).frames.read(frames=(0, 1))
    top = {"uint8": 255, "uint16": 65535, "float32": np.float32(70000.4)}[pixel_type]
    assert raw.dtype == np.dtype(pixel_type)
    assert np.all(raw == top)


def test_blur_keeps_uniform_light_and_widens_an_edge_by_its_width():
    view = with_changes(CLEAN, blur_fwhm_px=3.0, open_beam_adu=1.0)
    np.testing.assert_allclose(simulate(EMPTY, acquisition=view).frames.read(frames=(0, 1)), 1, rtol=1e-6)
    edge = Cylinder(40.0, 0.0, 40.0, -1e3, 1e3, 80.0)  # its rim passes the axis upright at angle 0
    sharp = simulate(sample_of(edge), acquisition=with_changes(view, blur_fwhm_px=0.0)).frames.read((5, 6))
    soft = simulate(sample_of(edge), acquisition=view).frames.read((5, 6))

    def slope_px2(line):
        drop = -np.diff(line[0, 0].astype(np.float64))[10:29]
        at = np.arange(drop.size)
        middle = (drop * at).sum() / drop.sum()
        return (drop * (at - middle) ** 2).sum() / drop.sum()

    sigma2 = (3.0 / math.sqrt(8 * math.log(2))) ** 2
    assert slope_px2(soft) - slope_px2(sharp) == pytest.approx(sigma2, rel=0.1)


def test_the_beam_decays_and_its_bands_move_from_flats_to_flats():
    view = with_changes(CLEAN, rows=64, beam_decay_frac=0.1, bands_frac=0.1, bands_drift_px=3.0)
    scan = simulate(EMPTY, acquisition=view, seed=7)
    before, after = (d.flats.read()[0] for d in scan.dark_flats)
    assert before.std(axis=0).min() > 0
    np.testing.assert_allclose(after[3:], 0.9 * before[:-3], rtol=1e-5)
    np.testing.assert_allclose(scan.frames.read(frames=(0, 1))[0], before, rtol=1e-6)
    np.testing.assert_allclose(scan.frames.read(frames=(30, 31))[0], after, rtol=1e-6)
    times = [d.time_s for d in scan.dark_flats]
    assert times[0] < scan.start_time.timestamp() < times[1]


def test_flicker_scales_whole_frames():
    frames = simulate(EMPTY, acquisition=with_changes(CLEAN, n_angles=300, flicker_frac=0.01)).frames.read()
    level = frames.mean(axis=(1, 2))
    assert level.std() / level.mean() == pytest.approx(0.01, rel=0.2)
    np.testing.assert_allclose(frames / level[:, None, None], 1, rtol=1e-5)


def test_pixel_response_is_in_flats_and_projections_alike():
    scan = simulate(EMPTY, acquisition=with_changes(CLEAN, response_frac=0.05))
    flat = scan.dark_flats[1].flats.read()[0]
    assert flat.std() / flat.mean() == pytest.approx(0.05, rel=0.1)
    np.testing.assert_array_equal(scan.frames.read(frames=(3, 4))[0], flat)


def test_zingers_come_at_the_stated_rate():
    view = with_changes(CLEAN, n_angles=400, zingers_per_frame=0.5)
    hit = simulate(EMPTY, acquisition=view).frames.read() > 1.4 * view.open_beam_adu
    rate = -math.log(1 - hit.any(axis=(1, 2)).mean())
    assert rate == pytest.approx(0.5, abs=0.2)


def stripe_ratio(stripe):
    view = with_changes(CLEAN, n_angles=90)
    struck = simulate(EMPTY, acquisition=with_changes(view, stripes=(stripe,)))
    clean = simulate(EMPTY, acquisition=view)
    untouched = np.ones(view.cols, bool)
    untouched[stripe.col : stripe.col + stripe.width] = False
    ratio = struck.frames.read() / clean.frames.read()
    assert np.all(ratio[:, :, untouched] == 1)
    flats = struck.dark_flats[0].flats.read()
    return ratio[:, :, ~untouched], flats[:, :, ~untouched] / view.open_beam_adu


def test_full_stripes_are_a_constant_error_that_flats_do_not_know():
    ratio, flats = stripe_ratio(Stripe("full", col=11, width=2, amplitude=0.03, rows=(5, 9)))
    np.testing.assert_allclose(ratio[:, 5:9], 1.03, rtol=1e-6)
    assert np.all(np.delete(ratio, slice(5, 9), axis=1) == 1)
    np.testing.assert_allclose(flats, 1, rtol=1e-6)


def test_partial_stripes_last_for_the_stated_frames():
    ratio, _ = stripe_ratio(Stripe("partial", col=0, amplitude=-0.1))
    frames = partial_frames(with_changes(CLEAN, n_angles=90))
    assert list(frames) == list(range(30, 60))
    np.testing.assert_allclose(ratio[30:60], 0.9, rtol=1e-6)
    assert np.all(np.delete(ratio, slice(30, 60), axis=0) == 1)


def test_fluctuating_stripes_have_the_stated_spread():
    ratio, flats = stripe_ratio(Stripe("fluctuating", col=39, amplitude=0.02))
    assert ratio[:, 0].std() == pytest.approx(0.02, rel=0.3)
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-6)
    np.testing.assert_allclose(flats, 1, rtol=1e-6)


def test_dead_columns_read_the_same_in_every_frame():
    ratio, flats = stripe_ratio(Stripe("dead", col=20, amplitude=0.4))
    np.testing.assert_allclose(ratio, 0.4, rtol=1e-6)
    np.testing.assert_allclose(flats, 0.4, rtol=1e-6)


def test_measured_angles_vary_with_the_motor_and_keep_their_ends():
    view = with_changes(CLEAN, n_angles=601, first_deg=0.035, last_deg=179.965)
    even = np.rad2deg(measured_angles(view, seed=1))
    np.testing.assert_allclose(even, np.linspace(0.035, 179.965, 601))
    moving = with_changes(view, speed_modulation_frac=0.2, jitter_deg=0.002)
    uneven = np.rad2deg(measured_angles(moving, seed=1))
    np.testing.assert_allclose(uneven[[0, -1]], [0.035, 179.965], atol=1e-9)
    steps = np.diff(uneven) / np.diff(even)
    assert np.all(steps > 0)
    assert np.percentile(steps, 99) == pytest.approx(1.2, abs=0.03)
    smooth = np.rad2deg(measured_angles(with_changes(moving, jitter_deg=0.0), seed=1))
    assert (uneven - smooth).std() == pytest.approx(0.002, rel=0.15)
    backwards = measured_angles(with_changes(view, first_deg=180.0, last_deg=0.0), seed=1)
    assert np.all(np.diff(backwards) < 0)
    assert len(measured_angles(with_changes(view, n_extra_angles=1), seed=1)) == 602


# ---- noise to expect


def nearest_neighbour_fbp(p, *, angles_rad, points_px, pixel_cm):
    """Values at points (y, x from the axis) of every row, with the ramp filter cut at Nyquist."""
    n, _, cols = p.shape
    size = 4 * cols
    lags = np.minimum(np.arange(size), size - np.arange(size))
    kernel = np.zeros(size)
    kernel[lags % 2 == 1] = -1 / (np.pi * lags[lags % 2 == 1]) ** 2
    kernel[0] = 0.25
    ramp = np.fft.rfft(kernel).real
    q = np.fft.irfft(np.fft.rfft(p, size) * ramp, size)[:, :, :cols]
    value = np.zeros((p.shape[1], len(points_px)))
    for line, angle in zip(q, angles_rad, strict=True):
        at = points_px[:, 1] * np.cos(angle) - points_px[:, 0] * np.sin(angle) + (cols - 1) / 2
        value += line[:, np.rint(at).astype(int)]
    return value * math.pi / n / pixel_cm


def test_expected_noise_is_that_of_a_plain_back_projection():
    view = Acquisition(
        n_angles=90, rows=240, cols=64, pixel_um=100.0, photons=2000.0, n_flats=200, flats_after=False
    )
    sample = sample_of(Cylinder(0.5, 0.0, 2.2, -50.0, 50.0, 2.0))
    scan = simulate(sample, acquisition=view, seed=11)
    raw, flats = scan.frames.read(), scan.dark_flats[0].flats
    dark = mean_frame(scan.dark_flats[0].darks)
    p = -np.log((raw - dark) / (mean_frame(flats) - dark))
    points = np.array([(0.0, 5.0), (6.0, 5.0), (-6.0, 5.0), (0.0, 11.0), (0.0, -1.0)])
    values = nearest_neighbour_fbp(p, angles_rad=scan.angles_rad, points_px=points, pixel_cm=0.01)
    expected = [
        expected_noise_cm1(sample, acquisition=view, z_px=10, y_px=y + 31.5, x_px=x + 31.5) for y, x in points
    ]
    assert values.mean() == pytest.approx(2.0, rel=0.02)
    # 1200 values: their spread is known to 2 %
    assert np.mean(values.std(axis=0) / expected) == pytest.approx(1, abs=0.06)


def test_expected_noise_follows_pixel_size_photons_and_angles():
    view = with_changes(NOISY, n_flats=10**4)
    place = {"z_px": 12, "y_px": 20, "x_px": 20}
    noise = expected_noise_cm1(EMPTY, acquisition=view, **place)
    assert noise == pytest.approx(math.pi / math.sqrt(12 * 31 * 1000) / 50e-4, rel=1e-3)
    finer = expected_noise_cm1(EMPTY, acquisition=with_changes(view, pixel_um=25.0), **place)
    assert finer == pytest.approx(2 * noise)
    assert expected_noise_cm1(EMPTY, acquisition=with_changes(view, photons=None), **place) == 0


# ---- the cell


def test_the_tiny_scan_is_what_its_truth_says():
    scan, truth = simulated_scan()
    assert isinstance(scan.frames, Frames)
    assert scan.shape == (181, 64, 96) == tuple(truth["shape"])
    assert scan.frames.dtype == np.uint16
    assert scan.angles_rad.shape == (181,)
    assert (scan.energy_kev, scan.pixel_um) == (80.0, truth["pixel_um"])
    assert scan.pixel_um * 96 == pytest.approx(4160)
    assert json.loads(json.dumps(truth))["mu_cm1"]["nasicon"] == pytest.approx(2.332, rel=5e-3)
    assert {s["kind"] for s in truth["stripes"]} == {"full", "partial", "fluctuating", "dead"}
    rebuilt = [from_dict({k: p[k] for k in ("kind", *fields_of(p))}) for p in truth["parts"]]
    assert tuple(rebuilt) == scan.frames.sample.shapes


def fields_of(part):
    return [f.name for f in dataclasses.fields(SHAPES[part["kind"]])]


@pytest.mark.parametrize("full_view", [False, True])
def test_inclusions_lie_in_their_layer_clear_of_each_other(full_view):
    scan, truth = simulated_scan(full_view=full_view, seed=3)
    volume = render(scan.frames.sample, acquisition=scan.frames.acquisition)
    assert volume.min() > -1e-5
    assert volume.max() < truth["mu_cm1"]["zirconia"] + 1e-5
    for part in truth["parts"]:
        z, y, x = (round(v) for v in part["center_zyx_px"])
        kind = part["name"].split("-")[0]
        if kind in {"bubble", "pore"}:
            assert part["material"] == "void"
        if kind == "bubble":
            assert abs(volume[z, y, x]) < 1e-5
            radius_px = part["semi_axes_mm"][0] * 1e3 / truth["pixel_um"]
            assert 4 <= radius_px <= 20
            assert part["volume_um3"] == pytest.approx(
                4.18879 * (radius_px * truth["pixel_um"]) ** 3, rel=1e-5
            )


def test_every_row_holds_detail():
    _, truth = simulated_scan()
    covered = np.zeros(64, bool)
    for part in truth["parts"]:
        if part["name"].startswith(("bubble", "pore", "speck")):
            z, half = part["center_zyx_px"][0], min(part["semi_axes_mm"]) * 1e3 / truth["pixel_um"]
            covered[max(round(z - half), 0) : round(z + half) + 1] = True
    assert covered.all()


def test_the_cell_fills_an_interior_view_and_fits_a_full_one():
    inside, _ = simulated_scan(perfect=True, n_angles=7)
    outside, _ = simulated_scan(perfect=True, n_angles=7, full_view=True)
    top = inside.frames.acquisition.open_beam_adu
    assert inside.frames.read()[:, :, [0, -1]].max() < 0.9 * top
    np.testing.assert_allclose(outside.frames.read()[:, :, [0, 1, -2, -1]], top, rtol=1e-6)


def test_the_cell_has_the_transmission_of_the_real_one():
    scan, _ = simulated_scan(perfect=True, n_angles=3)
    view = scan.frames.acquisition
    layers = Sample(tuple(p for p in scan.frames.sample.parts if "-" not in p.name), 80.0)
    t = np.exp(-exact_line_integrals(layers, acquisition=view, angles_rad=np.array([0.0])))[0, :, 47]
    # 6 mm of NASICON, and 4 mm of NaK in filled EPDM, both in 2 x 2 mm of PEEK
    assert t[55] == pytest.approx(0.226, abs=0.002)
    assert t[20] == pytest.approx(0.802, abs=0.004)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": "huge"}, "tiny"),
        ({"n_angels": 5}, "n_angles"),
        ({"n_angles": 1}, "from 2"),
        ({"n_angles": 20.5}, "whole"),
        ({"rows": "many"}, "rows = 'many'"),
        ({"cols": 20}, "48 columns"),
        ({"photons": -1}, "photons"),
        ({"pixel_um": math.nan}, "pixel_um = nan"),
        ({"center_px": 1e6}, "center_px"),
        ({"pixel_type": "int64"}, "uint16"),
        ({"last_deg": 0.0, "first_deg": 0.0}, "must turn"),
        ({"energy_kev": 1000.0}, "5 to 300"),
        ({"seed": -1}, "seed"),
        ({"stripes": (Stripe("full", col=200, amplitude=0.1),)}, "columns are 0 to 95"),
    ],
)
def test_bad_parameters_are_refused_by_name(changes, says):
    with pytest.raises(BadRecipe, match=says):
        simulated_scan(**changes)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cylinder(0, 0, -1, 0, 1, 1),
        lambda: Cylinder(0, 0, 1, 1, 1, 1),
        lambda: sphere((0, 0, 0), radius_mm=math.inf, delta_mu_cm1=1),
        lambda: Ellipsoid((0, 0, 0), (1, 1, 1), 1, ((1, 0, 0), (0, 2, 0), (0, 0, 1))),
        lambda: Stripe("ring", col=0, amplitude=0.1),
        lambda: Stripe("full", col=0, amplitude=0.1, width=0),
        lambda: Stripe("full", col=0, amplitude=-2),
        lambda: from_dict({"kind": "cube"}),
        lambda: simulate(EMPTY, acquisition=CLEAN, seed=-1),
    ],
)
def test_impossible_shapes_and_faults_are_refused(make):
    with pytest.raises(BadRecipe, match="simulate: "):
        make()
