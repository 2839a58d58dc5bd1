"""Flat field, logarithm, checks of dark and flat, flicker of the beam: against closed form and tomopy."""

import numpy as np
import pytest

from xctpipe.correct.drift import beam_drift
from xctpipe.correct.flat import FlatField, check_dark_flat, flat_field, minus_log


def rows_of_light(rng, shape=(40, 3, 50)):
    dark = rng.uniform(90, 110, shape[1:]).astype(np.float32)
    flat = dark + rng.uniform(3000, 5000, shape[1:]).astype(np.float32)
    return dark, flat, rng.uniform(0.1, 1, shape).astype(np.float32)


def test_equals_the_normalisation_of_tomopy(shared_data):
    folder = shared_data / "tomopy_expected"
    tomo, flat, dark, expected = (np.load(folder / f"{n}.npy") for n in ("tomo", "flat", "dark", "normalize"))
    got = flat_field(
        tomo, dark=dark.mean(axis=0, dtype=np.float32), flats=(flat.mean(axis=0, dtype=np.float32),)
    )
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=3e-8)


def test_real_tooth_has_transmission_one_in_air(shared_data):
    import h5py

    with h5py.File(shared_data / "tooth" / "tooth.h5") as file:
        raw, flat, dark = (file["exchange"][k][()] for k in ("data", "data_white", "data_dark"))
    got = flat_field(raw, dark=dark.mean(0), flats=(flat.mean(0),))
    assert np.isfinite(got).all()
    assert np.median(got[:, :, :20]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i4", "i8", "f4", "f8"])
def test_every_raw_type_gives_the_transmission(dtype):
    rng = np.random.default_rng(1)
    raw = rng.integers(30, 200, (5, 2, 7)).astype(dtype)
    dark, flat = np.full((2, 7), 20, np.float32), np.full((2, 7), 220, np.float32)
    np.testing.assert_allclose(
        flat_field(raw, dark=dark, flats=(flat,)), (raw.astype(float) - 20) / 200, rtol=1e-6
    )


def test_flats_are_interpolated_in_time_and_gain_is_divided():
    rng = np.random.default_rng(2)
    dark, flat, truth = rows_of_light(rng)
    later = dark + (flat - dark) * rng.uniform(0.8, 1.2, flat.shape).astype(np.float32)
    weight = np.linspace(0, 1, len(truth)).astype(np.float32)
    gain = rng.uniform(0.9, 1.1, len(truth)).astype(np.float32)
    now = (1 - weight)[:, None, None] * flat + weight[:, None, None] * later
    raw = dark + gain[:, None, None] * truth * (now - dark)
    field = FlatField(dark, (flat, later), weight)
    np.testing.assert_allclose(field.correct(raw, gain=gain), truth, rtol=2e-5)
    np.testing.assert_array_equal(
        field.rows((1, 2)).correct(raw[:, 1:2], gain=gain), field.correct(raw, gain=gain)[:, 1:2]
    )


def test_dead_pixels_and_bad_numbers_are_bridged_along_the_row():
    rng = np.random.default_rng(3)
    dark, flat, _ = rows_of_light(rng)
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, 50, dtype=np.float32), (40, 3, 50))
    raw = dark + ramp * (flat - dark)
    flat[0, 7], flat[1, 20:23], flat[2, :2] = dark[0, 7], 0, -5
    raw[4, 0, 30], raw[5, 1, 40] = np.nan, np.inf
    got = flat_field(raw, dark=dark, flats=(flat,))
    np.testing.assert_allclose(got[:, :2], ramp[:, :2], rtol=1e-4)
    np.testing.assert_allclose(got[:, 2, :2], ramp[:, 2, 2:3].repeat(2, axis=1), rtol=1e-4)


def test_a_row_without_beam_is_transparent():
    raw = np.ones((3, 2, 8), np.uint16)
    beam = np.full((2, 8), 5, np.float32)
    beam[1] = 0
    got = flat_field(raw, dark=np.zeros_like(beam), flats=(beam,))
    assert (got[:, 1] == 1).all()
    np.testing.assert_allclose(got[:, 0], 0.2)


def test_arguments_stay_as_they_are():
    rng = np.random.default_rng(4)
    dark, flat, raw = rows_of_light(rng)
    flat[0, 3] = 0
    copies = [a.copy() for a in (dark, flat, raw)]
    minus_log(flat_field(raw, dark=dark, flats=(flat,)))
    for now, before in zip((dark, flat, raw), copies, strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize("wrong", ["dark", "flats", "weight", "gain", "two"])
def test_shapes_that_do_not_fit_are_refused(wrong):
    frame, frames = np.ones((2, 4), np.float32), np.ones(3, np.float32)
    good = {"dark": frame, "flats": (frame,), "weight": frames, "gain": frames}
    bad = {"dark": frame[:1], "flats": (frame[:1],), "weight": frames[:2], "gain": frames[:2]}
    change = {"flats": (frame, frame), "weight": None} if wrong == "two" else {wrong: bad[wrong]}
    with pytest.raises(ValueError, match=r"flat|dark|weight|gain"):
        flat_field(np.ones((3, 2, 4), np.uint16), **{**good, **change})


def test_logarithm_inverts_the_exponential_and_counts_what_it_raises():
    attenuation = np.linspace(-0.1, 9, 2000, dtype=np.float32).reshape(20, 4, 25)
    got, raised = minus_log(np.exp(-attenuation))
    np.testing.assert_allclose(got, attenuation, atol=2e-6)
    assert raised == 0
    got, raised = minus_log(np.array([[[0, -1, np.nan, 0.5]]], np.float32), floor=1e-3)
    assert raised == 3
    np.testing.assert_allclose(got[0, 0], [*[-np.log(1e-3)] * 3, np.log(2)], rtol=1e-6)


def test_good_dark_and_flat_pass():
    dark, flat, _ = rows_of_light(np.random.default_rng(5), (2, 60, 60))
    assert check_dark_flat(dark, flat, saturation=65535) == ([], [])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda dark, flat: (dark, np.full_like(flat, 65535)), "saturated"),
        (lambda dark, flat: (flat, dark), "exchanged"),
        (lambda dark, flat: (dark, np.zeros_like(flat)), "shutter"),
        (lambda dark, flat: (dark, np.where(flat > 4000, np.nan, flat)), "finite"),
    ],
)
def test_useless_flats_are_errors(change, word):
    dark, flat, _ = rows_of_light(np.random.default_rng(6), (2, 60, 60))
    errors, _ = check_dark_flat(*change(dark, flat), saturation=65535)
    assert len(errors) == 1
    assert word in errors[0]


def test_some_bad_pixels_are_a_warning():
    dark, flat, _ = rows_of_light(np.random.default_rng(7), (2, 60, 60))
    flat[:2], flat[5:7] = 65535, 0
    errors, warnings = check_dark_flat(dark, flat, saturation=65535)
    assert not errors
    assert ["saturated" in warnings[0], "brighter" in warnings[1], len(warnings)] == [True, True, 2]


def test_the_saturated_flat_of_a_real_file_is_refused(shared_data):
    import h5py

    with h5py.File(shared_data / "broken_files" / "flat_saturated_65535.h5") as file:
        flat = file["1-NoProcessPlugin-tomo/data"][()].mean(axis=0)
    assert check_dark_flat(np.zeros_like(flat), flat, saturation=65535)[0]


def chords(n_angles, width, discs):
    """Line integrals of discs (x, y, radius, value), in pixels from the axis: (angle, 1, col)."""
    angle = np.linspace(0, np.pi, n_angles)[:, None]
    col = np.arange(width) - (width - 1) / 2
    total = np.zeros((n_angles, width))
    for x, y, radius, value in discs:
        d = col - x * np.cos(angle) + y * np.sin(angle)
        total += 2 * value * np.sqrt(np.clip(radius**2 - d**2, 0, None))
    return total[:, None]


def sample(*, interior, width=256):
    rng = np.random.default_rng(8)
    reach = 0.9 * width if interior else 0.44 * width
    holes = [(*(rng.uniform(-0.6, 0.6, 2) * reach), rng.uniform(3, 12), -0.003) for _ in range(15)]
    return [(3, -5, reach, 0.004), *holes]


@pytest.mark.parametrize("interior", [False, True])
@pytest.mark.parametrize("photons", [None, 5000])
def test_flicker_of_two_percent_is_found_to_three_per_mille(interior, photons):
    rng = np.random.default_rng(9)
    clean = np.exp(-chords(1201, 256, sample(interior=interior))).repeat(2, axis=1)
    flicker = np.exp(0.02 * rng.standard_normal(1201))
    seen = clean * flicker[:, None, None]
    if photons:
        seen = rng.poisson(seen * photons).clip(1) / photons
    left = np.log(flicker / beam_drift(-np.log(seen).astype(np.float32)))
    assert np.log(flicker).std() > 0.019
    assert left.std() < 0.003


@pytest.mark.parametrize("interior", [False, True])
@pytest.mark.parametrize("photons", [None, 5000])
def test_a_steady_beam_is_left_alone(interior, photons):
    rng = np.random.default_rng(10)
    seen = np.exp(-chords(361, 256, sample(interior=interior))).repeat(2, axis=1)
    if photons:
        seen = rng.poisson(seen * photons).clip(1) / photons
    rows = -np.log(seen).astype(np.float32)
    change = np.log(beam_drift(rows))[:, None, None]
    assert np.sqrt((change**2).mean() / (rows**2).mean()) < 0.001


def test_slow_change_of_the_sample_is_kept_and_a_lost_frame_found():
    angle = np.linspace(0, np.pi, 400)
    rows = np.broadcast_to((1 + 0.3 * np.sin(2 * angle) + 0.1 * angle)[:, None, None], (400, 1, 64)).copy()
    rows += 1e-3 * np.random.default_rng(11).standard_normal(rows.shape)
    rows[200] += 0.7
    gain = beam_drift(rows.astype(np.float32))
    assert gain[200] == pytest.approx(np.exp(-0.7), rel=0.01)
    np.testing.assert_allclose(np.delete(gain, 200), 1, atol=0.002)


@pytest.mark.parametrize("value", [0.0, 1.3])
@pytest.mark.parametrize("shape", [(3, 1, 100), (100, 1, 5), (100, 2, 100)])
def test_nothing_to_see_gives_one(value, shape):
    np.testing.assert_array_equal(
        beam_drift(np.full(shape, value, np.float32)), np.ones(shape[0], np.float32)
    )
