"""Distortion, blobs, double flat field and median: against truth, algotom and tomopy's own arrays."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from xctpipe.correct.blobs import blob_mask, blobs, bridge_blobs
from xctpipe.correct.distortion import distortion
from xctpipe.correct.double_flat import double_flat_field
from xctpipe.correct.median import median
from xctpipe.errors import BadRecipe
from xctpipe.steps import Facts, bind

SHAPE = (150, 200)
LENS = {"center_row_px": 81.3, "center_col_px": 92.6, "factors": (1.004, 1e-4, 1e-6, 5e-9)}
BARREL = {**LENS, "factors": (0.99, -1e-4, -5e-7)}


def place(shape=SHAPE, *, seen=(0, 0), first_row=0):
    return Facts(frame_shape=shape, first_pixel=seen, first_row=first_row)


def source(rows, cols, lens):
    """Where the model finds the value of pixels."""
    up, across = rows - lens["center_row_px"], cols - lens["center_col_px"]
    scale = np.polynomial.polynomial.polyval(np.hypot(up, across), lens["factors"])
    return lens["center_row_px"] + up * scale, lens["center_col_px"] + across * scale


def image(rows, cols):
    """Smooth detail of 12 to 40 pixels everywhere."""
    return 0.6 + 0.1 * (
        np.sin(0.5 * rows + 0.1) + np.sin(0.45 * cols) + np.cos(0.2 * rows - 0.3 * cols) + np.sin(0.16 * cols)
    )


def as_the_lens_shows(lens, shape=SHAPE):
    """The image through the lens: each pixel of the camera shows the undistorted place that maps to it."""
    rows, cols = np.indices(shape, dtype=float)
    up, across = rows - lens["center_row_px"], cols - lens["center_col_px"]
    radius = np.linspace(0, 400, 400_001)
    seen_at = radius * np.polynomial.polynomial.polyval(radius, lens["factors"])
    stop = int(np.argmax(np.diff(seen_at) <= 0)) or radius.size
    distance = np.hypot(up, across)
    scale = np.interp(distance, seen_at[:stop], radius[:stop]) / np.maximum(distance, 1e-12)
    frame = image(lens["center_row_px"] + up * scale, lens["center_col_px"] + across * scale)
    return frame.astype(np.float32)[None]


def inside(lens, shape=SHAPE, margin=2):
    """Pixels whose value comes from inside the frame, away from its border."""
    rows, cols = source(*np.indices(shape, dtype=float), lens)
    good = (rows >= margin) & (rows <= shape[0] - 1 - margin)
    return good & (cols >= margin) & (cols <= shape[1] - 1 - margin)


@pytest.mark.parametrize("lens", [LENS, BARREL])
def test_distortion_is_undone(lens):
    """Bilinear interpolation errs by k^2 a / 8 for a wave of amplitude a in each direction: 0.006 here."""
    from algotom.prep.correction import unwarp_projection

    shown, good, truth = as_the_lens_shows(lens), inside(lens), image(*np.indices(SHAPE, dtype=float))
    got = bind("distortion", **lens)(shown, place())[0]
    usual = unwarp_projection(shown[0], lens["center_col_px"], lens["center_row_px"], lens["factors"])
    before, after, bilinear = (np.abs(some - truth)[good] for some in (shown[0], got, usual))
    assert before.max() > 0.1
    assert after.max() < 0.002
    assert after.mean() < 0.2 * bilinear.mean()


@pytest.mark.parametrize("lens", [LENS, BARREL])
@pytest.mark.parametrize("axis", [0, 1])
def test_distortion_looks_where_algotom_looks(lens, axis):
    """Both interpolations are exact on a plane, so the value is the place."""
    from algotom.prep.correction import unwarp_projection

    plane = np.indices(SHAPE)[axis].astype(np.float32)
    expected = unwarp_projection(plane, lens["center_col_px"], lens["center_row_px"], lens["factors"])
    got = bind("distortion", **lens)(plane[None], place())[0]
    np.testing.assert_allclose(got[inside(lens)], expected[inside(lens)], atol=1e-4)
    outside = ~inside(lens, margin=0)
    assert outside.any() == (lens is LENS)
    # at the border one neighbour is repeated: a sixteenth of a pixel of a plane of slope 1
    np.testing.assert_allclose(got, expected, atol=1 / 13)


def test_distortion_without_distortion_changes_no_bit():
    slab = as_the_lens_shows(LENS)
    np.testing.assert_array_equal(bind("distortion")(slab, place()), slab)


@pytest.mark.parametrize("lens", [LENS, BARREL])
@pytest.mark.parametrize(("first", "last"), [(0, 7), (40, 41), (60, 100), (149, 150)])
def test_rows_of_undistorted_frames_do_not_know_their_slab(lens, first, last):
    slab = np.random.default_rng(1).uniform(0.2, 1, (17, *SHAPE)).astype(np.float32)
    step = bind("distortion", **lens)
    halo = step.halo_rows(place())
    assert 3 <= halo < 12
    low, high = max(0, first - halo), min(SHAPE[0], last + halo)
    part = step(slab[:, low:high], place(first_row=low))[:, first - low : last - low]
    np.testing.assert_array_equal(part, step(slab, place())[:, first:last])


def test_the_halo_is_no_larger_than_what_moves():
    rows, _ = source(*np.indices(SHAPE, dtype=float), LENS)
    most = np.abs(np.clip(rows, 0, SHAPE[0] - 1) - np.arange(SHAPE[0])[:, None]).max()
    assert most < bind("distortion", **LENS).halo_rows(place()) <= most + 3


def test_the_centre_is_counted_on_the_uncropped_detector():
    slab = np.random.default_rng(2).uniform(0.2, 1, (2, *SHAPE)).astype(np.float32)
    step = bind("distortion", **LENS)
    cropped = step(slab[:, 30:120, 50:190], place((90, 140), seen=(30, 50)))
    rows, cols = (found[30:120, 50:190] for found in source(*np.indices(SHAPE, dtype=float), LENS))
    good = (rows > 31) & (rows < 117) & (cols > 51) & (cols < 187)
    assert good.mean() > 0.8
    np.testing.assert_allclose(cropped[:, good], step(slab, place())[:, 30:120, 50:190][:, good], atol=1e-6)


def test_binned_pixels_are_moved_like_those_of_the_detector():
    """Seen in where a plane's values come from."""
    by, shape = 2, (75, 100)
    rows, cols = np.indices(shape) * by + 0.5
    found = source(rows, cols, LENS)
    got = bind("distortion", **LENS)(np.float32(rows)[None], replace(place(shape), bin_px=by))[0]
    good = np.all([(at >= 4) & (at <= by * n - 6) for at, n in zip(found, shape, strict=True)], axis=0)
    assert good.mean() > 0.6
    np.testing.assert_allclose(got[good], found[0][good], atol=1e-4)


@pytest.mark.parametrize("factors", [(1.6,), (1, 0.1), (0.0,), (1, 0, 1e300)])
def test_factors_that_no_lens_has_are_refused(factors):
    with pytest.raises(BadRecipe, match="uncropped detector"):
        bind("distortion", factors=factors).halo_rows(place())


@pytest.mark.parametrize("wrong", [{"factors": ()}, {"factors": "x"}, {"center_row_px": float("nan")}])
def test_a_lens_that_cannot_be_is_refused(wrong):
    with pytest.raises(BadRecipe, match="distortion"):
        bind("distortion", **wrong)


def spotted(seed=3, shape=(40, 300)):
    """A flat with noise, a dead pixel and two bright blobs, and where the blobs are."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(shape)
    flat = 5000 * (1 + 0.05 * np.sin(cols / 60)) + 30 * rng.standard_normal(shape)
    hit = np.zeros(shape, bool)
    for row, col, radius in ((12, 80, 6), (25, 210, 4)):
        hit |= np.hypot(rows - row, cols - col) <= radius
    flat[hit] *= 1.6
    return flat.astype(np.float32), hit


def test_blobs_are_found_as_algotom_finds_them():
    from algotom.prep.removal import generate_blob_mask

    flat, hit = spotted()
    got = blob_mask(flat, size_px=71, snr=3.0)
    expected = generate_blob_mask(flat, 71, 3.0) > 0
    np.testing.assert_array_equal(got, expected)
    assert got[hit].mean() > 0.9
    assert got[~ndimage.binary_dilation(hit, iterations=3)].mean() < 0.01


def test_pixels_without_beam_are_no_blobs():
    flat, _ = spotted()
    holed = flat.copy()
    holed[5, 100], holed[30] = np.nan, np.nan
    got, expected = blob_mask(holed, size_px=71, snr=3.0), blob_mask(flat, size_px=71, snr=3.0)
    far = np.r_[0:5, 7:30, 32:40]
    np.testing.assert_array_equal(got[far], expected[far])
    assert not got[5, 95:106].any()
    assert not got[30].any()


def test_blobs_are_bridged_as_algotom_bridges_them():
    from algotom.prep.removal import remove_blob

    rng = np.random.default_rng(4)
    slab, mask = rng.uniform(0.2, 1, (20, 6, 50)).astype(np.float32), rng.random((6, 50)) < 0.3
    mask[0], mask[1], mask[2, [0, 1, 48, 49]] = True, False, True
    slab.flags.writeable = False
    got = bridge_blobs(slab, mask=mask)
    for t in range(20):
        expected = remove_blob(slab[t], mask.astype(np.float32))
        np.testing.assert_allclose(got[t], expected, rtol=0, atol=3e-7)


def test_a_blob_in_the_projections_goes_and_the_rest_stays():
    flat, hit = spotted()
    clean = np.exp(-0.5 - 0.2 * np.sin(np.arange(300) / 25 + np.arange(30)[:, None, None]))
    clean = np.broadcast_to(clean, (30, *flat.shape)).astype(np.float32)
    dirty = clean * np.where(hit, 1.2, 1).astype(np.float32)
    got = blobs(dirty, beam=flat)
    before, after = (np.abs(some / clean - 1)[:, hit] for some in (dirty, got))
    assert after.mean() < 0.15 * before.mean()
    changed = (got != dirty).any(axis=0)
    np.testing.assert_array_equal(changed, changed & blob_mask(flat, size_px=71, snr=3.0))


@pytest.mark.parametrize(("first", "last"), [(0, 5), (12, 13), (20, 40)])
def test_rows_across_a_blob_do_not_know_their_slab(first, last):
    flat, _ = spotted()
    slab = np.random.default_rng(5).uniform(0.2, 1, (19, *flat.shape)).astype(np.float32)
    step = bind("blobs")
    whole = step(slab, Facts(flat.shape, beam=flat))
    assert (whole != slab).any(axis=(0, 2))[10:15].all()
    low, high = max(0, first - step.halo_rows()), min(40, last + step.halo_rows())
    part = step(slab[:, low:high], Facts(flat.shape, beam=flat[low:high]))[:, first - low : last - low]
    np.testing.assert_array_equal(part, whole[:, first:last])


@pytest.mark.parametrize("width", [1, 2, 5, 12])
def test_narrow_frames_have_no_blobs(width):
    slab = np.random.default_rng(6).uniform(0.2, 1, (3, 2, width)).astype(np.float32)
    np.testing.assert_array_equal(blobs(slab, beam=np.ones((2, width), np.float32)), slab)


N_COLS, N_FRAMES = 256, 181
ANGLES = np.linspace(0, np.pi, N_FRAMES)[:, None]


def chord(x, y, radius, cols):
    d = cols - (N_COLS - 1) / 2 - x * np.cos(ANGLES) + y * np.sin(ANGLES)
    return 2 * np.sqrt(np.clip(radius**2 - d**2, 0, None))


def layers(rows=6):
    """A stack of layers, each a disc of its own attenuation, in transmission: (angle, row, col)."""
    cols = np.arange(N_COLS * 4) / 4 - 0.375
    path = chord(2, -3, 112, cols) + 0.5 * chord(30, 40, 12, cols)
    level = 0.002 + 0.004 * (np.arange(rows) % 2)[:, None]
    return np.exp(-level * path[:, None]).reshape(N_FRAMES, rows, N_COLS, 4).mean(axis=3).astype(np.float32)


@pytest.fixture(scope="module")
def clean():
    return layers()


def log_rms(ratio):
    return np.sqrt((np.log(ratio) ** 2).mean())


@pytest.mark.parametrize("sigma", [1.5, 2.0])
def test_an_error_of_gain_falls_by_half(clean, sigma):
    gain = 1 + 0.02 * np.random.default_rng(7).standard_normal(clean.shape[1:]).astype(np.float32)
    got = double_flat_field(clean * gain, sigma_px=sigma)
    assert log_rms(got / clean) < 0.5 * log_rms(gain)


def test_layers_stay_and_a_clean_scan_changes_by_less_than_a_percent(clean):
    got = double_flat_field(clean)
    assert log_rms(got / clean) < 0.01 * log_rms(clean)
    step = np.diff(np.log(clean).mean(axis=(0, 2)))
    np.testing.assert_allclose(np.diff(np.log(got).mean(axis=(0, 2))), step, rtol=1e-4)


def test_what_turns_with_the_sample_stays(clean):
    """A wave that no two frames have alike leaves no mean, so nothing is taken from it."""
    wave = 1 + 0.1 * np.sin(0.8 * np.arange(N_COLS) + 2 * ANGLES * (N_FRAMES - 1) / N_FRAMES)[:, None]
    flat = np.full_like(clean, 0.5)
    np.testing.assert_allclose(double_flat_field(flat * wave.astype(np.float32)), flat * wave, rtol=1e-3)


def test_gain_error_and_brightness_are_divided_out_exactly():
    """Law: frames as bright as you like, times one error of gain, give what the error alone would."""
    rng = np.random.default_rng(8)
    gain = rng.uniform(0.9, 1.1, (1, 3, 60)).astype(np.float32)
    bright = rng.uniform(0.1, 1, (25, 1, 1)).astype(np.float32)
    np.testing.assert_allclose(double_flat_field(bright * gain), bright * double_flat_field(gain), rtol=2e-6)


@pytest.mark.parametrize("value", [0.0, -0.01, 1e-9])
def test_a_column_without_light_spoils_no_other(clean, value):
    dirty = clean.copy()
    dirty[:, 2, 90] = value
    dirty[3, 2, 50:60] = [0, -1e-3] * 5
    got, expected = double_flat_field(dirty), double_flat_field(clean)
    assert np.isfinite(got).all()
    others = np.r_[0:50, 60:90, 91:N_COLS]
    np.testing.assert_allclose(got[:, 2, others], expected[:, 2, others], rtol=5e-3)
    np.testing.assert_array_equal(np.delete(got, 2, axis=1), np.delete(expected, 2, axis=1))


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_no_light_at_all_stays_as_it_is(value):
    slab = np.full((5, 2, 9), value, np.float32)
    np.testing.assert_array_equal(double_flat_field(slab), slab)


PLANES = {"frame": 0, "sinogram": 1, "row_angle": 2}


@pytest.mark.parametrize("plane", PLANES)
def test_median_equals_that_of_tomopy(shared_data, plane):
    folder = shared_data / "tomopy_expected"
    cube = np.load(folder / "cube.npy").astype(np.float32)
    expected = np.load(folder / f"median_filter_{PLANES[plane]}.npy")
    np.testing.assert_array_equal(median(cube, plane=plane), expected)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("shape", [(20, 5, 33), (1, 1, 1), (2, 1, 17), (3, 2, 5), (18, 9, 2)])
def test_median_equals_that_of_scipy(plane, size, shape):
    slab = np.random.default_rng(9).integers(-40, 40, shape).astype(np.float32)
    window = [size] * 3
    window[PLANES[plane]] = 1
    expected = ndimage.median_filter(slab, size=window, mode="reflect")
    np.testing.assert_array_equal(median(slab, plane=plane, size_px=size), expected)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize(("first", "last"), [(0, 2), (5, 6), (9, 20)])
def test_rows_of_a_median_do_not_know_their_slab(plane, size, first, last):
    slab = np.random.default_rng(10).uniform(0, 1, (18, 20, 21)).astype(np.float32)
    step = bind("median", plane=plane, size_px=size)
    halo = step.halo_rows()
    assert halo == (0 if plane == "sinogram" else size // 2)
    low, high = max(0, first - halo), min(20, last + halo)
    np.testing.assert_array_equal(
        step(slab[:, low:high])[:, first - low : last - low], step(slab)[:, first:last]
    )


@pytest.mark.parametrize("wrong", [{"size_px": 4}, {"plane": "row"}, {"size": 3}])
def test_a_median_that_cannot_be_is_refused(wrong):
    with pytest.raises(BadRecipe, match="median"):
        bind("median", **wrong)


def test_a_distortion_is_called_with_what_it_asks_for():
    with pytest.raises(BadRecipe, match="frame_shape"):
        bind("distortion").halo_rows()
    slab = np.ones((2, 9, 9), np.float32)
    got = distortion(slab, frame_shape=(9, 9), first_pixel=(0, 0), bin_px=1, first_row=0, factors=(1.1,))
    np.testing.assert_allclose(got, slab, rtol=1e-6)
