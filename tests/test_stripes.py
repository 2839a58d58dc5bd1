"""Stripe removal: against algotom on data without ties, and against simulated truth."""

import numpy as np
import pytest

from xctpipe.correct.chain import default_chain
from xctpipe.correct.stripes import stripes_sorting
from xctpipe.correct.stripes_vo import find_stripes, stripes_all, stripes_dead, stripes_large
from xctpipe.steps import bind

WIDTH, FRAMES = 256, 361
ANGLES = np.linspace(0, np.pi, FRAMES)


def transmission(discs, *, seed=None, photons=20_000):
    """Projections of discs (x, y, radius, value per pixel), averaged over each pixel: (angle, 1, col)."""
    col = (np.arange(4 * WIDTH) + 0.5) / 4 - 0.5 - (WIDTH - 1) / 2
    total = np.zeros((FRAMES, 4 * WIDTH))
    for x, y, radius, value in discs:
        d = col - (x * np.cos(ANGLES) - y * np.sin(ANGLES))[:, None]
        total += 2 * value * np.sqrt(np.clip(radius**2 - d**2, 0, None))
    seen = np.exp(-total).reshape(FRAMES, WIDTH, 4).mean(axis=2)
    if seed is not None:
        seen = np.random.default_rng(seed).poisson(seen * photons).clip(1) / photons
    return seen[:, None].astype(np.float32)


def cell(*, interior=False):
    """A disc with small holes away from the axis; wider than the view where `interior`."""
    rng = np.random.default_rng(1)
    place, turn = rng.uniform(55, 100, 12), rng.uniform(0, 2 * np.pi, 12)
    holes = zip(place * np.cos(turn), place * np.sin(turn), rng.uniform(2, 8, 12), [-0.003] * 12, strict=True)
    return [(2, -3, 230 if interior else 112, 0.004), *holes]


def corrected(slab, chain):
    for name, params in chain:
        slab = bind(name, **params)(slab)
    return slab


def axis_patch(slab, half=50):
    """Ram-Lak back-projection of a square around the axis, one frame at a time: (y, x)."""
    rows = -np.log(slab[:, 0].astype(float))
    n = 4 * WIDTH
    lag = np.minimum(np.arange(n), n - np.arange(n))
    kernel = np.where(lag % 2 == 1, -1 / np.maximum(np.pi * lag, 1) ** 2, 0)
    kernel[0] = 0.25
    padded = np.pad(rows, ((0, 0), (0, n - WIDTH)))
    padded[:, WIDTH : WIDTH + WIDTH], padded[:, -WIDTH:] = rows[:, -1:], rows[:, :1]
    filtered = np.fft.irfft(np.fft.rfft(padded) * np.fft.rfft(kernel).real, n)[:, :WIDTH]
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    image = np.zeros(x.shape)
    for angle, row in zip(ANGLES, filtered, strict=True):
        place = x * np.cos(angle) - y * np.sin(angle) + (WIDTH - 1) / 2
        image += np.interp(place, np.arange(WIDTH), row)
    return image * np.pi / FRAMES


def bubble_contrast(slab, x, radius):
    image = axis_patch(slab)
    half = image.shape[0] // 2
    j, i = np.mgrid[-half : half + 1, -half : half + 1]
    distance = np.hypot(i - x, j)
    return (
        image[(distance > 1.2 * radius) & (distance < 1.5 * radius)].mean()
        - image[distance < radius - 1.5].mean()
    )


def without_ties(shape, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.prod(shape)).reshape(shape)
    return (0.4 + 0.2 * order / order.size).astype(np.float32)


def faulty(shape=(181, 3, 300)):
    """Rows with a dead, a wide, a flickering and two weak stripes, in data without ties."""
    slab = without_ties(shape, 2)
    slab[:, 0, 100] = 0.5 + 0.001 * slab[:, 0, 101]
    slab[:, 1, 150:160] *= 1.3
    slab[::2, 2, 30] *= 1.5
    slab[:, :, 200] *= 1.08
    slab[:, 2, 220:223] *= 0.97
    return slab


@pytest.mark.parametrize("size", [1, 2, 5, 20, 21, 51])
@pytest.mark.parametrize("width", [13, 300])
def test_sorting_equals_algotom(size, width):
    from algotom.prep import removal

    slab = without_ties((61, 2, width), 3)
    got = stripes_sorting(slab, size_px=size)
    for row in range(2):
        np.testing.assert_array_equal(
            got[:, row], removal.remove_stripe_based_sorting(slab[:, row].copy(), size)
        )


@pytest.mark.parametrize(
    ("step", "name", "options"),
    [
        (stripes_dead, "remove_dead_stripe", {"residual": False}),
        (stripes_large, "remove_large_stripe", {}),
        (stripes_all, "remove_all_stripe", {}),
    ],
)
def test_strong_methods_equal_algotom_to_float32(step, name, options):
    from algotom.prep import removal

    slab = faulty()
    got = step(slab)
    for row in range(slab.shape[1]):
        expected = getattr(removal, name)(slab[:, row].copy(), **options)
        np.testing.assert_allclose(got[:, row], expected, rtol=0, atol=3e-7)
        if row != 1 or step is not stripes_dead:
            assert np.abs(got[:, row] - slab[:, row]).max() > 0.01


@pytest.mark.parametrize("step", [stripes_sorting, stripes_dead, stripes_large, stripes_all])
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 5), (40, 2, 60)])
def test_data_without_noise_have_no_stripes(step, value, shape):
    slab = np.full(shape, value, np.float32)
    np.testing.assert_array_equal(step(slab), slab)


@pytest.mark.parametrize("step", [stripes_dead, stripes_large, stripes_all])
def test_a_column_without_light_stays_finite(step):
    slab = faulty()
    slab[:, :, 77] = 0
    assert np.isfinite(step(slab)).all()


def test_stripes_stand_out_of_a_noisy_profile():
    profile = 1 + 0.01 * np.random.default_rng(4).standard_normal(500)
    assert not find_stripes(profile, snr=3).any()
    profile[[40, 300]] = 1.3, 0.7
    np.testing.assert_array_equal(np.flatnonzero(find_stripes(profile, snr=3)), [40, 300])


def test_ties_keep_the_order_of_frames():
    """A column of equal numbers takes the ranks of its neighbours in the order of its frames."""
    slab = np.zeros((5, 1, 3), np.float32)
    slab[:, 0, 0] = slab[:, 0, 2] = [5, 3, 4, 1, 2]
    np.testing.assert_array_equal(stripes_sorting(slab, size_px=3)[:, 0, 1], [1, 2, 3, 4, 5])


def with_stripe(clean, kind, width, gain):
    """`clean` with one stripe of a kind and width at column 90, and how the reading there is changed."""
    dirty, columns = clean.copy(), slice(90, 90 + width)
    if kind == "full":
        dirty[:, :, columns] *= gain
    elif kind == "partial":
        dirty[: FRAMES // 2, :, columns] *= gain
    elif kind == "unresponsive":
        dirty[:, :, columns] = clean[:, :, columns].mean() * gain
    return dirty, columns


def left_over(step, clean, kind, width, *, gain=1.05):
    """Rms error in the stripe's columns after correction over that before, both against the truth."""
    dirty, columns = with_stripe(clean, kind, width, gain)
    before = np.log(dirty / clean)[:, :, columns]
    after = np.log(step(dirty) / clean)[:, :, columns]
    return np.sqrt((after**2).mean() / (before**2).mean()), after.mean() / before.mean()


@pytest.mark.parametrize("interior", [False, True])
@pytest.mark.parametrize(
    ("kind", "width"), [("full", 1), ("full", 2), ("full", 4), ("partial", 1), ("partial", 3)]
)
def test_default_chain_removes_half_of_a_stripe(interior, kind, width):
    clean = transmission(cell(interior=interior), seed=5)
    _, offset = left_over(lambda slab: corrected(slab, default_chain()), clean, kind, width)
    assert abs(offset) < 0.5


@pytest.mark.parametrize("width", [1, 3])
def test_default_chain_removes_a_strong_stripe_of_half_the_frames_frame_by_frame(width):
    clean = transmission(cell(), seed=6)
    error, _ = left_over(lambda slab: corrected(slab, default_chain()), clean, "partial", width, gain=1.3)
    assert error < 0.5


@pytest.mark.parametrize(
    ("kind", "width", "gain"),
    [
        ("full", 1, 1.05),
        ("full", 6, 0.95),
        ("full", 12, 1.4),
        ("unresponsive", 1, 1.2),
        ("unresponsive", 3, 1.2),
    ],
)
def test_stripes_all_removes_half_of_every_stripe_that_lasts(kind, width, gain):
    clean = transmission(cell(), seed=6)
    error, offset = left_over(stripes_all, clean, kind, width, gain=gain)
    assert abs(offset) < 0.5
    if kind == "unresponsive":
        assert error < 0.5


def test_a_flickering_column_is_interpolated():
    clean = transmission(cell(), seed=7)
    dirty = clean.copy()
    dirty[:, 0, 120] *= np.random.default_rng(8).uniform(0.5, 1.5, FRAMES).astype(np.float32)
    after, before = (np.log(slab / clean)[:, 0, 120].std() for slab in (stripes_dead(dirty), dirty))
    assert after < 0.2 * before


@pytest.mark.parametrize("interior", [False, True])
@pytest.mark.parametrize("seed", [None, 9])
def test_default_chain_changes_a_clean_sinogram_by_less_than_a_percent(interior, seed):
    clean = transmission(cell(interior=interior), seed=seed)
    change = np.log(corrected(clean, default_chain()) / clean)
    assert np.sqrt((change**2).mean() / (np.log(clean) ** 2).mean()) < 0.01


@pytest.mark.parametrize("interior", [False, True])
@pytest.mark.parametrize(("x", "radius"), [(0, 16), (10, 16)])
def test_default_chain_keeps_a_bubble_near_the_axis(interior, x, radius):
    clean = transmission([*cell(interior=interior), (x, 0, radius, -0.004)])
    before = bubble_contrast(clean, x, radius)
    assert before == pytest.approx(0.004, rel=0.05)
    lost = 1 - bubble_contrast(corrected(clean, default_chain()), x, radius) / before
    assert abs(lost) < 0.02


def test_stronger_removal_costs_contrast_as_documented():
    clean = transmission([*cell(), (0, 0, 16, -0.004)])
    before = bubble_contrast(clean, 0, 16)
    gentle, usual, strong = (
        1 - bubble_contrast(slab, 0, 16) / before
        for slab in (corrected(clean, default_chain()), stripes_sorting(clean), stripes_all(clean))
    )
    assert gentle == pytest.approx(0.018, abs=0.002)
    assert usual == pytest.approx(0.15, abs=0.01)
    assert strong > 0.5


def test_real_stripes_become_weaker(shared_data):
    sinogram = np.load(shared_data / "stripes" / "sino_stripe_i12.npy")
    slab = np.ascontiguousarray(sinogram[:, None])

    def roughness(some):
        columns = -np.log(some.clip(1e-3)).mean(axis=(0, 1))
        return np.abs(np.diff(columns, 2)).mean()

    # the widest, 7 columns without response, is beyond the default chain
    assert roughness(corrected(slab, default_chain())) < 0.7 * roughness(slab)
    assert roughness(stripes_all(slab)) < 0.25 * roughness(slab)
