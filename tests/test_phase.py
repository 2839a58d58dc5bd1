"""Phase retrieval against wave optics, a direct solution, the textbook formula and its own laws."""

import numpy as np
import pytest
from scipy import constants, sparse
from scipy.sparse.linalg import spsolve

from xctpipe import steps
from xctpipe.correct.phase import paganin, retrieval_halo_px, retrieval_length_um
from xctpipe.errors import BadRecipe

NATIVE = {"energy_kev": 80.0, "distance_mm": 300.0, "pixel_um": 1.3}
WAVELENGTH_M = constants.h * constants.c / (80e3 * constants.e)


def propagated(thickness_m, *, mu_cm1, delta, distance_m, step_m):
    """Intensity behind an object of one material and a free path, by scalar wave optics (Fresnel)."""
    wave_number = 2 * np.pi / WAVELENGTH_M
    behind = np.exp(-(50 * mu_cm1 + 1j * wave_number * delta) * thickness_m)
    frequency = np.fft.fftfreq(thickness_m.size, step_m)
    path = np.exp(-1j * np.pi * WAVELENGTH_M * distance_m * frequency**2)
    return np.abs(np.fft.ifft(np.fft.fft(behind) * path)) ** 2


def seen(thickness_of, *, mu_cm1, delta, distance_m, n_cols=1536, fine=8):
    """What pixels of 1.3 um see of it, the true line integrals, and where the pixels are (um)."""
    step_m = 1.3e-6 / fine
    x_m = (np.arange(n_cols * fine) - n_cols * fine / 2 + 3.1) * step_m
    thickness_m = thickness_of(x_m)
    light = propagated(thickness_m, mu_cm1=mu_cm1, delta=delta, distance_m=distance_m, step_m=step_m)
    pixels = [part.reshape(n_cols, fine).mean(axis=1) for part in (light, 100 * mu_cm1 * thickness_m, x_m)]
    return pixels[0].astype(np.float32)[None, None], pixels[1], 1e6 * pixels[2]


def disc(x_m):
    return 2 * np.sqrt(np.clip(100e-6**2 - x_m**2, 0, None))


def edge_on_crack(x_m):
    return np.where(np.abs(x_m) < 1e-6, 200e-6, 0.0)


@pytest.mark.parametrize("distance_m", [0.1, 0.3])
@pytest.mark.parametrize(
    ("mu_cm1", "delta", "delta_beta"), [(2.332, 10.08e-8, 350.0), (-0.2239, -2.772e-8, 1004.0)]
)
def test_fringes_of_a_disc_become_its_mass(distance_m, mu_cm1, delta, delta_beta):
    """NASICON in void, and a void in NaK, 200 um across."""
    light, true, x_um = seen(disc, mu_cm1=mu_cm1, delta=delta, distance_m=distance_m)
    optics = {"energy_kev": 80.0, "distance_mm": 1e3 * distance_m, "pixel_um": 1.3}
    got = -np.log(paganin(light, delta_beta=delta_beta, **optics)[0, 0].astype(float))
    middle = np.abs(x_um) < 20
    assert got[middle].mean() == pytest.approx(true[middle].mean(), rel=0.01)
    assert got.sum() == pytest.approx(true.sum(), rel=0.01)
    fringes = np.abs(-np.log(light[0, 0]) - true).max()
    assert np.abs(got - true).max() < 0.05 * fringes


@pytest.mark.parametrize("distance_m", [0.1, 0.3])
def test_a_crack_seen_edge_on_keeps_its_mass_that_the_fringes_hide(distance_m):
    """2 um wide, 200 um deep: 8 rad of phase, far from a weak object."""
    light, true, _ = seen(edge_on_crack, mu_cm1=-2.332, delta=-10.08e-8, distance_m=distance_m)
    got = -np.log(paganin(light, delta_beta=350.0, **{**NATIVE, "distance_mm": 1e3 * distance_m})[0, 0])
    assert got.sum() == pytest.approx(true.sum(), rel=0.05)
    assert -np.log(light).sum() / true.sum() < 0.5


def rough(shape, *, seed=1):
    """Transmission with sharp steps of 3.5 times and noise: (angle, row, col)."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.random((shape[0], -(-shape[1] // 7), -(-shape[2] // 9))) > 0.5, np.ones((1, 7, 9)))
    light = np.where(blocks[:, : shape[1], : shape[2]], 0.226, 0.8)
    return (light * (1 + 0.1 * rng.standard_normal(shape))).astype(np.float32)


def pixel_of(length_px, **optics):
    return retrieval_length_um(**optics) / length_px


OPTICS = {"delta_beta": 350.0, "energy_kev": 80.0, "distance_mm": 300.0}


@pytest.mark.parametrize("length_px", [0.3, 1.0, 3.0])
def test_equals_the_direct_solution_of_the_differential_equation(length_px):
    """(1 - L^2 Laplacian) of the result is the frame, on a frame whose edges go on and then close."""
    frame = rough((1, 30, 41))[0]
    margin = 60
    wide = np.pad(frame.astype(float), margin, mode="edge")
    second = [
        sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n, n)).tolil() for n in wide.shape
    ]
    for each in second:
        each[0, 0] = each[-1, -1] = -1.0
    laplacian = sparse.kron(second[0], sparse.eye_array(wide.shape[1])) + sparse.kron(
        sparse.eye_array(wide.shape[0]), second[1]
    )
    matrix = sparse.eye_array(wide.size) - length_px**2 * laplacian
    direct = spsolve(matrix.tocsc(), wide.ravel()).reshape(wide.shape)
    direct = direct[margin:-margin, margin:-margin]
    got = paganin(frame[None], **OPTICS, pixel_um=pixel_of(length_px, **OPTICS))[0]
    np.testing.assert_allclose(got, direct, rtol=1e-4)


@pytest.mark.parametrize("length_px", [5.0, 9.0, 15.0])
def test_equals_the_formula_of_the_paper_where_it_is_resolved(length_px):
    """F(T) / (1 + pi lambda z (delta / beta) f^2) with f in cycles a metre, far from the edges."""
    frame = rough((1, 480, 500))[0]
    pixel_m = 1e-6 * pixel_of(length_px, **OPTICS)
    f2 = np.add.outer(*(np.fft.fftfreq(n, pixel_m) ** 2 for n in frame.shape))
    damping = 1 / (1 + np.pi * WAVELENGTH_M * 0.3 * 350 * f2)
    formula = np.fft.ifft2(np.fft.fft2(frame.astype(float)) * damping).real
    got = paganin(frame[None], **OPTICS, pixel_um=1e6 * pixel_m)[0]
    far = slice(200, -200)
    # the two differ by 3 / (2 pi L)^2 at most, at the finest detail
    assert np.abs(got - formula)[far, far].max() < 3.3 / (2 * np.pi * length_px) ** 2 * np.ptp(frame)


@pytest.mark.parametrize("length_px", [0.06, 0.3, 1.0, 2.3, 4.4, 8.8])
def test_rows_beyond_the_halo_do_not_matter(length_px):
    optics = {**OPTICS, "pixel_um": pixel_of(length_px, **OPTICS)}
    halo = retrieval_halo_px(**optics)
    cut = halo + 9
    frames = rough((3, cut + halo + 12, 40))
    # the worst that can be beyond the cut: all bright or all dark, or a zinger on the row of the cut
    frames[0, :cut], frames[0, cut:] = 0.8, 0.226
    frames[2, cut, 20] *= 50
    whole, part = paganin(frames, **optics), paganin(frames[:, cut:], **optics)
    np.testing.assert_allclose(part[:, halo:], whole[:, cut + halo :], rtol=1e-4)


def test_the_halo_is_not_larger_than_it_must_be():
    optics = {**OPTICS, "pixel_um": 1.3}
    half = retrieval_halo_px(**optics) // 2
    frames = np.full((1, 200, 8), 0.8, np.float32)
    frames[:, 90:] = 0.226
    whole, part = paganin(frames, **optics), paganin(frames[:, 90:], **optics)
    assert np.abs(part[:, half:] / whole[:, 90 + half :] - 1).max() > 1e-4


def test_a_pixel_twice_as_wide_at_twice_the_length_is_the_same_picture():
    frames = rough((2, 40, 60))
    far = paganin(frames, delta_beta=350.0, energy_kev=80.0, distance_mm=400.0, pixel_um=2.6)
    near = paganin(frames, delta_beta=350.0, energy_kev=80.0, distance_mm=100.0, pixel_um=1.3)
    np.testing.assert_allclose(far, near, rtol=1e-6)


def test_length_scales_as_the_root_of_distance_ratio_and_wavelength():
    # battery physics at 80 keV and 0.1 m: sqrt(1.5498e-11 m * 0.1 m * 350 / 4 pi) = 6.57 um
    assert retrieval_length_um(delta_beta=350, energy_kev=80, distance_mm=100) == pytest.approx(
        6.57, abs=0.005
    )
    twice = retrieval_length_um(delta_beta=700, energy_kev=40, distance_mm=100)
    assert twice == pytest.approx(2 * 6.57, abs=0.01)


def test_mean_and_order_of_brightness_stay():
    frames = np.zeros((1, 300, 300), np.float32)
    frames[0, 150, 150] = 1.0
    got = paganin(frames, **{**OPTICS, "pixel_um": pixel_of(4.0, **OPTICS)})
    assert got.sum(dtype=float) == pytest.approx(1, rel=1e-5)
    assert got.min() > -1e-7
    assert np.unravel_index(got.argmax(), got.shape) == (0, 150, 150)


def test_edges_do_not_depend_on_the_width_that_a_fast_transform_likes():
    optics = {**OPTICS, "pixel_um": 1.3}
    ramp = np.linspace(0.3, 0.9, 260, dtype=np.float32)
    ramp[:30] = 0.3
    frames = np.broadcast_to(ramp, (1, 12, 260))
    whole = paganin(frames, **optics)
    for first in range(1, 21):
        part = paganin(frames[:, :, first:], **optics)
        np.testing.assert_allclose(part, whole[:, :, first:], rtol=1e-4)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"delta_beta": 1 / 350}, "delta over beta"),
        ({"distance_mm": 1e-4}, "distance in mm"),
        ({"distance_mm": 300_000.0}, "1024 are the most"),
        ({"delta_beta": 1e6}, "lower delta_beta"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_frame_is_read(wrong, says):
    known = {**NATIVE, **{key: value for key, value in wrong.items() if key != "delta_beta"}}
    facts = steps.Facts(frame_shape=(8, 8), **known)
    bound = steps.bind("paganin", delta_beta=wrong.get("delta_beta", 350.0))
    with pytest.raises(BadRecipe, match=says):
        bound.halo_rows(facts)
    with pytest.raises(BadRecipe, match=says):
        bound(np.ones((1, 8, 8), np.float32), facts)


@pytest.mark.parametrize("delta_beta", [0, -3, "much"])
def test_ratio_must_be_a_number_above_zero(delta_beta):
    with pytest.raises(BadRecipe, match=r"paganin\.delta_beta"):
        steps.bind("paganin", delta_beta=delta_beta)


def test_distance_is_asked_for():
    with pytest.raises(BadRecipe, match=r"raw\.distance_mm"):
        steps.bind("paganin").halo_rows(steps.Facts(frame_shape=(8, 8), pixel_um=1.3, energy_kev=80.0))
