"""Flat field, zingers and logarithm in one pass: against the separate steps, numpy and algotom."""

import tracemalloc

import numba
import numpy as np
import pytest

from xctpipe.correct.flat import FlatField, flat_field, minus_log
from xctpipe.correct.fused import Specks
from xctpipe.correct.zingers import NOISE_SIGMAS, zingers
from xctpipe.steps import bind

SPECKS = Specks(0.08, 2, NOISE_SIGMAS)


def rows_seen(seed, shape=(60, 2, 70), *, n_flats=1, photons=3000, dtype="u2"):
    """A smooth sample with noise, zingers and dead pixels: raw frames, flat field, gain."""
    rng = np.random.default_rng(seed)
    n_angles, _, n_cols = shape
    full = 200 if dtype == "u1" else 9000
    dark = rng.uniform(0.02, 0.03, shape[1:]).astype(np.float32) * full
    flats = [dark + (full * rng.uniform(0.5, 0.9, shape[1:])).astype(np.float32) for _ in range(n_flats)]
    flats[0][rng.random(shape[1:]) < 0.1] = 0
    flats[-1][:, n_cols // 2 : n_cols // 2 + 5] = dark[:, n_cols // 2 : n_cols // 2 + 5]
    seen = np.exp(
        -0.4 - 0.4 * np.sin(np.arange(n_cols) / 9) - 0.2 * np.cos(np.arange(n_angles) / 20)[:, None]
    )
    seen = seen[:, None] + np.sqrt(seen[:, None] / photons) * rng.standard_normal(shape)
    seen[rng.random(shape) < 0.004] *= 4
    raw = np.clip(dark + seen * (full * 0.7), 0, 255 if dtype == "u1" else 65535)
    weight = [None, None, rng.random(n_angles), rng.random((n_angles, n_flats - 1))][min(n_flats, 3)]
    weight = None if weight is None else weight.astype(np.float32)
    return raw.astype(dtype), FlatField(dark, tuple(flats), weight), rng.uniform(0.9, 1.1, n_angles)


@pytest.mark.parametrize("size_px", [1, 2, 3, 5])
@pytest.mark.parametrize("n_flats", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i4", "f4"])
def test_one_pass_gives_the_bits_of_the_steps(dtype, n_flats, size_px):
    raw, field, gain = rows_seen(n_flats, n_flats=n_flats, dtype=dtype)
    rng = np.random.default_rng(0)
    if dtype == "f4":
        raw[rng.random(raw.shape) < 0.02] = np.nan
        raw[rng.random(raw.shape) < 0.01] = np.inf
    used = np.flatnonzero(rng.random(len(raw)) < 0.9)
    transmission = field.correct(raw, gain=gain)[used]
    expected = zingers(transmission, size_px=size_px)
    assert (expected != transmission).any()
    assert np.isfinite(expected).all()
    specks = SPECKS._replace(size_px=size_px)
    np.testing.assert_array_equal(field.correct(raw, gain=gain, frames=used), transmission)
    np.testing.assert_array_equal(field.correct(raw, gain=gain, frames=used, specks=specks), expected)
    lines, below = field.lines(raw, gain=gain, frames=used, specks=specks, floor=0.3)
    expected_lines, expected_below = minus_log(expected, floor=0.3)
    np.testing.assert_array_equal(lines, expected_lines)
    assert below == expected_below == (expected < np.float32(0.3)).sum() > 0


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 2, 9), (2, 1, 30), (3, 3, 2), (3, 1, 3), (5, 2, 1), (40, 1, 4)]
)
@pytest.mark.parametrize("size_px", [1, 2, 7])
def test_few_frames_and_narrow_rows(shape, size_px):
    raw, field, gain = rows_seen(3, shape)
    expected = by_definition(field.correct(raw, gain=gain), size_px=size_px)
    specks = SPECKS._replace(size_px=size_px)
    np.testing.assert_array_equal(field.correct(raw, gain=gain, specks=specks), expected)


def by_definition(slab, *, size_px, threshold_frac=0.08):
    """What the docstring of `zingers` says, all pixels at once."""
    return np.stack([row_by_definition(row, size_px, threshold_frac) for row in slab.swapaxes(0, 1)], axis=1)


def row_by_definition(row, size, threshold):
    (n_angles, n_cols), padded = row.shape, np.pad(row, size, mode="reflect")

    def moved(dt, dc):
        return padded[size + dt : size + dt + n_angles, size + dc : size + dc + n_cols]

    offsets = [(dt, dc) for dt in (-size, 0, size) for dc in (-size, 0, size) if dt or dc]
    ranked = np.sort([moved(*offset) for offset in offsets], axis=0)
    middle = np.float32(0.5) * (ranked[3] + ranked[4])
    bound = np.maximum(moved(-1, 0), moved(1, 0))
    brightest = np.max([moved(dt, dc) for dt in (-1, 1) for dc in range(-size, size + 1)], axis=0)
    n = min(row.size, 20_000)
    pixels = np.arange(n) * row.size // n
    lit = np.maximum(middle.flat[pixels], 1e-30)
    deviation = np.where(
        middle.flat[pixels] > 0, np.abs(row.flat[pixels] - middle.flat[pixels]) / np.sqrt(lit), 0
    )
    noise = NOISE_SIGMAS * (1.4826 * np.median(deviation.astype(np.float32)).astype(float))
    wide = middle.astype(float)
    excess = np.maximum(threshold * wide, noise * np.sqrt(np.maximum(wide, 0) + noise**2))
    zinger = (
        (row - bound > threshold * bound.astype(float)) & (row - middle > excess) & (row - brightest > excess)
    )
    return np.where(zinger, middle, row)


@pytest.mark.parametrize("photons", [300, 3000, 10**8])
@pytest.mark.parametrize(("size_px", "threshold_frac"), [(1, 0.02), (2, 0.08), (4, 0.3)])
def test_zingers_are_what_they_are_said_to_be(photons, size_px, threshold_frac):
    raw, field, _ = rows_seen(5, (240, 2, 131), photons=photons)  # more pixels than are sampled for the noise
    transmission = field.correct(raw)
    expected = by_definition(transmission, size_px=size_px, threshold_frac=threshold_frac)
    got = zingers(transmission, size_px=size_px, threshold_frac=threshold_frac)
    assert (expected != transmission).any()
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["u2", "i4"])
def test_neither_threads_nor_the_cut_change_a_bit(dtype):
    raw, field, gain = rows_seen(6, (50, 7, 90), n_flats=2, dtype=dtype)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = field.correct(raw, gain=gain, specks=SPECKS)
        numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
        np.testing.assert_array_equal(field.correct(raw, gain=gain, specks=SPECKS), alone)
    finally:
        numba.set_num_threads(before)
    for rows in ((0, 1), (1, 4), (4, 7)):
        part = field.rows(rows).correct(raw[:, slice(*rows)], gain=gain, specks=SPECKS)
        np.testing.assert_array_equal(part, alone[:, slice(*rows)])


def test_raw_of_another_type_is_converted_in_small_parts():
    raw, field, _ = rows_seen(7, (300, 40, 120), dtype="i4")
    field.correct(raw, specks=SPECKS)  # loads the kernels
    tracemalloc.start()
    try:
        out = field.correct(raw, specks=SPECKS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * out.nbytes


@pytest.mark.parametrize("frames", [[2, 1], [1, 1], [-1, 2], [0, 60], [0.5], [[1, 2]]])
def test_frames_that_are_not_an_ascending_choice_are_refused(frames):
    raw, field, _ = rows_seen(8)
    with pytest.raises(ValueError, match="frames"):
        field.correct(raw, frames=np.array(frames))


def test_no_frames_give_none():
    raw, field, _ = rows_seen(8)
    assert field.correct(raw, frames=np.array([], int), specks=SPECKS).shape == (0, *raw.shape[1:])


def test_a_step_tells_what_it_is_after_the_flat_field():
    raw, field, gain = rows_seen(9)
    step, used = bind("zingers", threshold_frac=0.05, size_px=1), np.arange(3, 50)
    assert bind("stripes_sorting").after_flat is None
    got = step.after_flat(raw, field, gain=gain, frames=used)
    np.testing.assert_array_equal(got, step(field.correct(raw, gain=gain)[used]))
    np.testing.assert_array_equal(
        step.after_flat(raw, field, gain=None, frames=None), step(field.correct(raw))
    )


def test_flat_field_equals_algotoms():
    from algotom.prep import correction

    rng = np.random.default_rng(10)
    dark = rng.uniform(90, 110, (3, 64)).astype(np.float32)
    flat = dark + rng.uniform(3000, 5000, (3, 64)).astype(np.float32)
    raw = rng.integers(150, 5000, (30, 3, 64)).astype(np.uint16)
    expected = correction.flat_field_correction(raw.astype(float), flat.astype(float), dark.astype(float))
    # float32 keeps a difference of the raw number and the dark to 6e-8 of the raw number
    np.testing.assert_allclose(flat_field(raw, dark=dark, flats=(flat,)), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("photons", [1000, 10_000])
def test_planted_zingers_go_and_leave_less_error_than_algotoms(photons):
    """Of one and two pixels, 0.3 to 5 of the full beam, in a disc with a sharp edge."""
    from algotom.prep import removal

    rng = np.random.default_rng(11)
    angle, col = np.linspace(0, np.pi, 181)[:, None], np.arange(160)
    clean = np.exp(-0.025 * np.sqrt(np.clip(50**2 - (col - 80 - 12 * np.cos(angle)) ** 2, 0, None)))
    clean = (rng.poisson(clean * photons) / photons).astype(np.float32)
    struck, hit = clean.copy(), np.zeros(clean.shape, bool)
    for width in (1, 2):
        for t, c in zip(rng.integers(0, 181, 40), rng.integers(0, 159, 40), strict=True):
            hit[t, c : c + width] = True
    struck[hit] += rng.uniform(0.3, 5, hit.sum()).astype(np.float32)
    got = zingers(struck[:, None])[:, 0]
    assert (got[hit] != struck[hit]).mean() > 0.97
    assert (got[~hit] != struck[~hit]).mean() < 1e-4
    usual = removal.remove_zinger(struck, 0.08)
    assert np.sqrt(np.mean((got - clean) ** 2)) < 0.5 * np.sqrt(np.mean((usual - clean) ** 2))


def test_the_logarithm_is_right_over_its_whole_range():
    least = float(np.finfo(np.float32).tiny)
    some = [
        np.geomspace(least, 3e38, 400_000),
        np.linspace(0.5, 2, 400_000),
        1 + np.linspace(-1e-4, 1e-4, 4001),
    ]
    some = np.concatenate([*some, [least, 1e-37, 1e-4, 1, 2]]).astype(np.float32)
    got, below = minus_log(some[None, None], floor=least)
    exact = -np.log(some.astype(float))
    np.testing.assert_allclose(got[0, 0], exact, rtol=3e-7, atol=0)
    assert below == 0
    assert not got[0, 0, some == 1].any()


def test_a_floor_of_nothing_still_gives_numbers():
    got, below = minus_log(np.array([[[0, -1, np.nan, 1]]], np.float32), floor=0.0)
    np.testing.assert_allclose(got[0, 0], [*[87.3365] * 3, 0], rtol=1e-6)
    assert below == 3


def test_a_logarithm_does_not_know_where_its_number_stands():
    some = np.random.default_rng(12).uniform(-0.1, 1.2, 300).astype(np.float32)
    whole, _ = minus_log(some[None, None])
    for first in range(40):
        for last in (first + 1, first + 7, first + 33, 300):
            part, _ = minus_log(some[None, None, first:last])
            np.testing.assert_array_equal(part[0, 0].view(np.int32), whole[0, 0, first:last].view(np.int32))


@pytest.mark.parametrize("view", ["flipped", "fortran", "rows", "read only"])
def test_the_logarithm_is_taken_whatever_memory_it_may_use(view: str) -> None:
    whole = np.random.default_rng(3).uniform(0.1, 1, (5, 6, 7)).astype(np.float32)
    slab = {
        "flipped": whole[:, :, ::-1],
        "fortran": np.asfortranarray(whole),
        "rows": whole[:, 1:4],
        "read only": whole.copy(),
    }[view]
    slab.flags.writeable = view != "read only"
    expected = -np.log(slab.astype(np.float64))
    found, _ = minus_log(slab, out=slab)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
