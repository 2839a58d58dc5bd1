"""Stripe removal: against algotom on data without ties, and against simulated truth."""

import sys

import numpy as np
import pytest
from scipy import io

from xctpipe import recon, steps
from xctpipe.correct.chain import default_chain
from xctpipe.correct.stripes import stripes_sorting
from xctpipe.correct.stripes_vo import find_stripes, stripes_all, stripes_dead, stripes_large

WIDTH, FRAMES = 256, 361


def transmission(discs, *, seed=None, photons=20_000, width=WIDTH, frames=FRAMES):
    """Projections of discs (x, y, radius, value per pixel), averaged over each pixel: (angle, 1, col)."""
    angles = np.linspace(0, np.pi, frames)
    col = (np.arange(4 * width) + 0.5) / 4 - 0.5 - (width - 1) / 2
    total = np.zeros((frames, 4 * width))
    for x, y, radius, value in discs:
        d = col - (x * np.cos(angles) - y * np.sin(angles))[:, None]
        total += 2 * value * np.sqrt(np.clip(radius**2 - d**2, 0, None))
    seen = np.exp(-total).reshape(frames, width, 4).mean(axis=2)
    if seed is not None:
        seen = np.random.default_rng(seed).poisson(seen * photons).clip(1) / photons
    return seen[:, None].astype(np.float32)


def cell(*, interior=False, width=WIDTH):
    """A disc with small holes away from the axis; wider than the view where `interior`."""
    rng, scale = np.random.default_rng(1), width / WIDTH
    place, turn = scale * rng.uniform(55, 100, 12), rng.uniform(0, 2 * np.pi, 12)
    sizes = scale * rng.uniform(2, 8, 12)
    holes = zip(place * np.cos(turn), place * np.sin(turn), sizes, [-0.003 / scale] * 12, strict=True)
    return [(2 * scale, -3 * scale, (230 if interior else 112) * scale, 0.004 / scale), *holes]


def bound(name, **params):
    """A step that takes the axis to be in the middle, and half a turn."""
    step = steps.bind(name, **params)
    return lambda slab: step(slab, facts_of(slab))


def facts_of(slab):
    frames, rows, cols = slab.shape
    center = (cols - 1) / 2
    view = steps.View(np.linspace(0, np.pi, frames), cols, center, np.full(rows, center))
    return steps.Facts((rows, cols), view=view)


def corrected(slab, chain):
    for name, params in chain:
        slab = bound(name, **params)(slab)
    return slab


def axis_patch(slab, half=50):
    """Ram-Lak back-projection of a square around the axis, one frame at a time: (y, x)."""
    rows = -np.log(slab[:, 0].astype(float))
    frames, width = rows.shape
    n = 4 * width
    lag = np.minimum(np.arange(n), n - np.arange(n))
    kernel = np.where(lag % 2 == 1, -1 / np.maximum(np.pi * lag, 1) ** 2, 0)
    kernel[0] = 0.25
    padded = np.pad(rows, ((0, 0), (0, n - width)))
    padded[:, width : width + width], padded[:, -width:] = rows[:, -1:], rows[:, :1]
    filtered = np.fft.irfft(np.fft.rfft(padded) * np.fft.rfft(kernel).real, n)[:, :width]
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    image = np.zeros(x.shape)
    for angle, row in zip(np.linspace(0, np.pi, frames), filtered, strict=True):
        place = x * np.cos(angle) - y * np.sin(angle) + (width - 1) / 2
        image += np.interp(place, np.arange(width), row)
    return image * np.pi / frames


def bubble_contrast(slab, x, radius):
    """Mean of a ring around a bubble less that of the bubble: nothing further out is reconstructed."""
    half = int(1.5 * radius) + abs(x)
    image = axis_patch(slab, half=half)
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


class TestRealData:
    def _dead_columns(self, row):
        change = np.abs(np.diff(row, axis=0)).sum(axis=0)
        return np.flatnonzero(change < 0.5 * np.median(change)).size

    @pytest.mark.parametrize(
        "name", ["stripes_dead", "stripes_all", "stripes_all_hex", "stripes_interpolation"]
    )
    def test_wide_dead_stripe_of_i12(self, shared_data, name):
        slab = np.load(shared_data / "stripes" / "sino_stripe_i12.npy")[:, None].astype(np.float32)
        assert self._dead_columns(slab[:, 0]) == 7
        got = steps.bind(name)(slab)
        assert self._dead_columns(got[:, 0]) == 0
        # the stripe is more than twice as bright as what is beside it
        beside = [*range(180, 188), *range(218, 226)]
        ratio = [np.median(some[:, 0, 199:206]) / np.median(some[:, 0, beside]) for some in (slab, got)]
        assert ratio[0] > 2
        assert abs(ratio[1] - 1) < 0.35 if name == "stripes_dead" else abs(ratio[1] - 1) < 0.1

    @pytest.mark.parametrize("name", ["stripes_all", "stripes_all_hex", "stripes_interpolation"])
    def test_blob_of_up_to_16_dark_columns(self, shared_data, name):
        slab = np.load(shared_data / "stripes" / "sino_stripes_crop3D.npy").astype(np.float32)
        before, after = (
            np.abs(columns / np.median(columns, axis=1, keepdims=True) - 1).max(axis=1)
            for columns in (slab.mean(axis=0), steps.bind(name)(slab).mean(axis=0))
        )
        assert before[:7].min() > 0.9
        assert before[7:9].min() > 0.15
        assert after.max() < 0.03

    @pytest.mark.slow
    def test_rings_of_the_dendrite_go(self, shared_data, tmp_path):
        found = io.loadmat(shared_data / "dendrite" / "RealDataDend.mat")
        angles = found["anglesRad"].ravel()
        before = np.exp(-found["sinoRD"].T[:, None] / 1000).astype(np.float32)
        images = {"before": self._slice(before, angles)}
        images["default chain"] = self._slice(corrected(before, default_chain()), angles)
        for name in steps.registered():
            if name.startswith("stripes_") and name not in {"stripes_dead", "stripes_partial"}:
                images[name] = self._slice(bound(name)(before), angles)
        sys.stdout.write(f"before and after: {_picture(images, tmp_path / 'dendrite.png')}\n")
        strength = {name: self._rings(image) for name, image in images.items()}
        for name in images:
            assert name == "before" or strength[name] < 0.5 * strength["before"], name

    def _slice(self, slab, angles):
        options = {"backend": "fourier", "angles_rad": angles, "center_px": 629.5, "pixel_um": 1.0}
        return recon.reconstruct(-np.log(slab), **options)[0]

    def _rings(self, image):
        """Roughness of the mean over circles about the axis, from 20 to 600 pixels."""
        y, x = np.indices(image.shape) - (image.shape[0] - 1) / 2
        radius = np.rint(np.hypot(x, y)).astype(int).ravel()
        profile = np.bincount(radius, image.ravel())[20:600] / np.bincount(radius)[20:600]
        return np.sqrt((np.diff(profile, 2) ** 2).mean())


def _picture(images, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(20, 4 * -(-len(images) // 5)), layout="tight")
    low, high = np.percentile(images["before"][400:860, 400:860], [1, 99])
    for i, (name, image) in enumerate(images.items()):
        axes = figure.add_subplot(-(-len(images) // 5), 5, i + 1, title=name)
        axes.imshow(image[400:860, 400:860], cmap="gray", vmin=low, vmax=high)
        axes.axis("off")
    figure.savefig(path, dpi=60)
    return path
