"""Every stripe step: what it removes, what it costs, and where it agrees with algotom or is truer.

Tests over `STEPS` run for each registered step whose name begins with stripes_.
"""

import re
from functools import cache

import numpy as np
import pytest
import pywt
from algotom.prep import removal
from scipy import ndimage, signal
from test_stripes import bound, bubble_contrast, cell, faulty, transmission

from xctpipe import steps
from xctpipe.correct.stripes_fourier import stripes_fft, stripes_wavelet_fft
from xctpipe.correct.stripes_mean import least_offsets, stripes_normalization, stripes_regularization
from xctpipe.correct.stripes_slow import stripes_filtering, stripes_filtering_2d, stripes_fitting
from xctpipe.correct.stripes_vo import stripes_all_hex, stripes_interpolation
from xctpipe.errors import BadRecipe

STEPS = sorted(name for name in steps.registered() if name.startswith("stripes_"))
WIDTH, FRAMES, PHOTONS = 256, 361, 10_000

NOT_FOR_FULL_STRIPES = {
    "stripes_dead": "finds columns by how they fluctuate, and a gain leaves that as it is",
    "stripes_partial": "levels what changes during the scan, and leaves what lasts",
}
PARAMETERS_AT_256_COLUMNS = {
    # smooth over 1 / sqrt(0.02) = 7 columns; the 45 of the default are for rows ten times as long
    "stripes_regularization": {"alpha": 0.02},
}


@cache
def scene(*, interior, width, frames, bubble_at=None, seed=3):
    """Sinogram of the cell, noise-free where the seed is None, optionally with a bubble 32 across."""
    discs = cell(interior=interior, width=width)
    if bubble_at is not None:
        discs.append((bubble_at, 0, 16, -0.004))
    slab = transmission(discs, seed=seed, photons=PHOTONS, width=width, frames=frames)
    slab.flags.writeable = False
    return slab


@cache
def contrast_before(*, interior, width, frames, bubble_at):
    return bubble_contrast(
        scene(interior=interior, width=width, frames=frames, bubble_at=bubble_at), bubble_at, 16
    )


def cost_of(step, *, width, frames):
    """What a step does to a scan without stripes, in percent.

    Change of the sinogram, rms(difference of log) / rms(log), of an interior scan and of one with the
    sample's edges in view; and the greater loss of either in the contrast of a bubble 32 pixels across on
    the axis and 10 pixels off it, mean over the bubble against a ring around it (Ram-Lak filter).
    """
    change, loss = [], np.zeros((2, 2))
    for i, interior in enumerate((True, False)):
        clean = scene(interior=interior, width=width, frames=frames)
        difference = np.log(step(clean) / clean)
        change.append(100 * np.sqrt((difference**2).mean() / (np.log(clean) ** 2).mean()))
        for j, x in enumerate((0, 10)):
            where = {"interior": interior, "width": width, "frames": frames, "bubble_at": x}
            loss[i, j] = 100 * (1 - bubble_contrast(step(scene(**where)), x, 16) / contrast_before(**where))
    return *change, *loss.max(axis=0)


def stripe_left(step, *, interior, columns, gain, width=WIDTH, frames=FRAMES):
    """Part of the offset in log of a stripe that remains, against the noise-free truth, rms over columns."""
    truth = scene(interior=interior, width=width, frames=frames, seed=None)
    slab = scene(interior=interior, width=width, frames=frames).copy()
    where = slice(90 * width // 256, 90 * width // 256 + columns)
    slab[:, :, where] *= gain
    before, after = (np.log(some / truth)[:, 0, where].mean(axis=0) for some in (slab, step(slab)))
    return np.sqrt((after**2).mean() / (before**2).mean())


def noisy(frames, width, seed=1):
    """A smooth sinogram with two stripes and noise, which has no ties: (angle, col)."""
    turn, col = np.linspace(0, np.pi, frames)[:, None], np.linspace(-1, 1, width)
    out = np.exp(-0.6 * np.sqrt(1.5 - (col - 0.2 * np.cos(turn)) ** 2))
    out *= 1 + 0.01 * np.random.default_rng(seed).standard_normal((frames, width))
    out[:, width // 3] *= 1.05
    out[:, width // 2 : width // 2 + 4] *= 0.97
    return out.astype(np.float32)


def assert_same_but_for_near_ties(got, expected):
    """To 1e-5, except where rounding swapped two ranks: they differ by little more than one rank."""
    difference = np.abs(got / expected - 1)
    assert difference.max() < 2e-3
    assert np.quantile(difference, 0.995) < 1e-5


def documented_cost(name):
    text = " ".join((steps.get(name).function.__doc__ or "").split())
    found = re.search(
        r"1024 columns wide at 10000 photons it changes (\S+) % rms "
        r"\((\S+) % where the sample's edges are in view\) and takes (\S+) % off "
        r"a bubble 32 pixels across on the axis, (\S+) % off one 10 pixels away",
        text,
    )
    assert found, f"the docstring of {name} does not say what it costs"
    return [float(number) for number in found.groups()]


class TestEveryStep:
    @pytest.mark.parametrize("name", [name for name in STEPS if name not in NOT_FOR_FULL_STRIPES])
    @pytest.mark.parametrize("interior", [False, True])
    @pytest.mark.parametrize(("columns", "gain"), [(1, 1.05), (1, 0.95), (3, 1.05), (3, 0.96)])
    def test_removes_half_of_a_full_stripe(self, name, interior, columns, gain):
        step = bound(name, **PARAMETERS_AT_256_COLUMNS.get(name, {}))
        assert stripe_left(step, interior=interior, columns=columns, gain=gain) < 0.5

    @pytest.mark.parametrize("name", STEPS)
    def test_says_what_it_costs(self, name):
        documented_cost(name)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", STEPS)
    def test_costs_what_it_says(self, name):
        said, measured = documented_cost(name), cost_of(bound(name), width=1024, frames=1501)
        np.testing.assert_allclose(measured[:2], said[:2], rtol=0.1, atol=0.01)
        np.testing.assert_allclose(measured[2:], said[2:], rtol=0, atol=2)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", [name for name in STEPS if name not in NOT_FOR_FULL_STRIPES])
    def test_defaults_remove_half_of_a_full_stripe_from_1024_columns(self, name):
        for interior in (False, True):
            left = stripe_left(bound(name), interior=interior, columns=3, gain=1.05, width=1024, frames=1501)
            assert left < 0.5

    @pytest.mark.parametrize("name", STEPS)
    def test_knows_no_unit_of_light(self, name):
        slab, step = noisy(61, 90)[:, None], bound(name)
        np.testing.assert_allclose(step(8 * slab), 8 * step(slab), rtol=2e-6)

    @pytest.mark.parametrize("name", STEPS)
    @pytest.mark.parametrize("shape", [(5, 1, 1), (5, 1, 5), (41, 2, 60)])
    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_changes_nothing_where_nothing_varies(self, name, shape, value):
        slab = np.full(shape, value, np.float32)
        np.testing.assert_allclose(bound(name)(slab), slab, rtol=1e-6)

    @pytest.mark.parametrize("name", STEPS)
    def test_darkness_and_negative_numbers_stay_finite(self, name):
        slab = np.repeat(noisy(61, 90)[:, None], 3, axis=1)
        slab[:, :, 40] = 0
        slab[::3, :, 50] = -0.01
        slab[:, 1] = 0
        assert np.isfinite(bound(name)(slab)).all()


class TestAgainstAlgotom:
    @pytest.mark.parametrize("options", [{}, {"chunks": 3}, {"chunks": 3, "sort": False}])
    def test_normalization(self, options):
        slab = noisy(180, 200)
        theirs = {"num_chunk": options.get("chunks", 1), "sort": options.get("sort", True)}
        expected = removal.remove_stripe_based_normalization(slab, **theirs)
        got = stripes_normalization(slab[:, None], **options)[:, 0]
        np.testing.assert_allclose(got, expected, rtol=1e-5)
        assert np.abs(got - slab).max() > 0.02

    @pytest.mark.parametrize("norm", [False, True])
    def test_interpolation(self, norm):
        slab = noisy(181, 200)
        slab[:, 70:76] *= 1.4
        expected = removal.remove_stripe_based_interpolation(slab, norm=norm)
        got = stripes_interpolation(slab[:, None], norm=norm)[:, 0]
        np.testing.assert_allclose(got, expected, rtol=1e-5)
        assert np.abs(got - slab)[:, 70:76].min() > 0.05

    @pytest.mark.parametrize(
        "options",
        [{}, {"cutoff_periods": 5, "order": 2, "harmonics": 3}, {"harmonics": 0, "sort": True}],
    )
    def test_fft_where_sizes_are_odd(self, options):
        slab = noisy(181, 201)
        theirs = {"cutoff_periods": "u", "order": "n", "harmonics": "v", "sort": "sort"}
        expected = removal.remove_stripe_based_fft(slab, **{theirs[key]: options[key] for key in options})
        got = stripes_fft(slab[:, None], **options)[:, 0]
        np.testing.assert_allclose(got, expected, rtol=1e-4)
        assert np.abs(got - slab).max() > 0.01

    @pytest.mark.parametrize(
        "options", [{}, {"level": 1, "sigma_periods": 3.0}, {"window": "butter"}, {"wavelet": "db5"}]
    )
    def test_wavelet_fft_where_details_are_odd(self, options):
        options = {"level": 2, **options}
        slab = noisy(181, 201) if "wavelet" not in options else noisy(176, 201)
        theirs = {
            "level": "level", "sigma_periods": "size", "window": "window_name", "wavelet": "wavelet_name",
        }  # fmt: skip
        expected = removal.remove_stripe_based_wavelet_fft(slab, **{theirs[k]: options[k] for k in options})
        got = stripes_wavelet_fft(slab[:, None], **options)[:, 0]
        np.testing.assert_allclose(got, expected[:, : slab.shape[1]], rtol=1e-5)
        assert np.abs(got - slab).max() > 0.005

    def test_regularization_to_the_part_that_algotom_leaves(self):
        slab, alpha = noisy(180, 300), 0.0005
        got = stripes_regularization(slab[:, None], alpha=alpha)[:, 0]
        expected = removal.remove_stripe_based_regularization(slab, alpha=alpha)
        change, difference = np.log(got / slab), np.log(got / expected)
        # about sqrt(alpha), more in the first few columns
        assert np.sqrt((difference**2).mean() / (change**2).mean()) < 0.03

    def test_hex_preset(self):
        slab = faulty()
        for row in range(slab.shape[1]):
            expected = removal.remove_all_stripe(slab[:, row], 2.5, 71, 31)
            np.testing.assert_allclose(stripes_all_hex(slab)[:, row], expected, rtol=0, atol=3e-7)


class TestFiltering:
    @pytest.mark.parametrize("frames", [180, 181])
    def test_is_sorting_of_the_slow_part(self, frames):
        slab = noisy(frames, 120)
        padded = frames + 2 * (frames // 10)
        slow = ndimage.gaussian_filter1d(
            slab.astype(float), padded / (2 * np.pi * 6), axis=0, mode="mirror", truncate=6
        )
        expected = removal.remove_stripe_based_sorting(slow, 21) + slab - slow
        assert_same_but_for_near_ties(stripes_filtering(slab[:, None], sigma_periods=6)[:, 0], expected)

    @pytest.mark.parametrize("frames", [180, 181])
    def test_in_two_dimensions_is_sorting_of_the_fast_part(self, frames):
        slab = noisy(frames, 120)
        slow = slab.astype(float)
        for axis, mode in ((0, "mirror"), (1, "nearest")):
            padded = slab.shape[axis] + 2 * (slab.shape[axis] // 10)
            slow = ndimage.gaussian_filter1d(slow, padded / (2 * np.pi * 6), axis, mode=mode, truncate=6)
        expected = removal.remove_stripe_based_sorting(slab - slow, 21) + slow
        assert_same_but_for_near_ties(stripes_filtering_2d(slab[:, None], sigma_periods=6)[:, 0], expected)

    def test_leaves_nothing_of_a_stripe_where_algotom_does(self):
        """The figures of the docstring: 1.4 % in the middle, 39 % in the first and last of 3001 frames."""
        slab = np.full((3001, 45), 0.6, np.float32)
        slab[:, 20] *= 1.05
        ours = stripes_filtering(slab[:, None])[:, 0]
        theirs = removal.remove_stripe_based_filtering(slab)
        left, left_by_algotom = ((some / 0.6 - 1)[:, 20] / 0.05 for some in (ours, theirs))
        assert np.abs(left).max() < 1e-4
        assert left_by_algotom[1500] == pytest.approx(0.014, abs=0.002)
        assert left_by_algotom[0] == pytest.approx(0.39, abs=0.04)


class TestFitting:
    @pytest.mark.parametrize("chunks", [1, 3])
    def test_is_a_ratio_of_savitzky_golay_fits(self, chunks):
        slab = noisy(180, 120)
        length = 180 // chunks - 1
        fitted = signal.savgol_filter(slab.astype(float), length, 2, axis=0, mode="mirror")
        smooth = ndimage.gaussian_filter1d(fitted, 144 / (2 * np.pi * 6), 1, mode="nearest", truncate=6)
        got = stripes_fitting(slab[:, None], sigma_periods=6, chunks=chunks)[:, 0]
        np.testing.assert_allclose(got, slab / fitted * smooth, rtol=1e-4)

    def test_agrees_with_algotom_away_from_the_ends(self):
        slab = noisy(360, 300)
        middle = slice(90, -90), slice(60, -60)
        got, expected = stripes_fitting(slab[:, None])[:, 0], removal.remove_stripe_based_fitting(slab)
        np.testing.assert_allclose(got[middle], expected[middle], rtol=2e-3)

    def test_does_not_bend_the_ends_as_algotom_does(self):
        slow = np.exp(-0.3 * (1 + np.linspace(-1, 1, 301)))[:, None] * np.ones(80)
        slab = slow.astype(np.float32)
        change = np.abs(stripes_fitting(slab[:, None])[:, 0] / slab - 1)
        change_by_algotom = np.abs(removal.remove_stripe_based_fitting(slab) / slab - 1)
        assert change.max() < 1e-5
        assert change_by_algotom[0].max() > 0.05

    def test_powers_of_long_scans_keep_their_digits(self):
        """A polynomial of the window's order is its own fit, however many frames there are."""
        from xctpipe.correct.lowpass import along_angles
        from xctpipe.correct.stripes_slow import _fit_along_angles

        column = (np.linspace(-1, 1, 3001) ** 5)[:, None].astype(np.float32)
        fitted = along_angles(column, _fit_along_angles(3001, 6, 5))
        np.testing.assert_allclose(fitted[301:-301], column[301:-301], atol=3e-6)

    def test_too_few_frames_are_refused(self):
        with pytest.raises(BadRecipe, match="order 2 in 9 chunks of 30 frames fits 3 frames; it needs 4"):
            stripes_fitting(np.ones((30, 1, 8), np.float32), chunks=9)


class TestRegularization:
    @pytest.mark.parametrize("alpha", [0.0005, 0.05, 2.0])
    def test_offsets_cost_the_least(self, alpha):
        means = np.random.default_rng(2).normal(1, 0.02, 60)
        difference = np.diff(np.eye(60), axis=0)
        normal = difference.T @ difference
        expected = np.linalg.solve(normal + alpha * np.eye(60), -normal @ means)
        np.testing.assert_allclose(least_offsets(means, alpha=alpha), expected, atol=1e-12)

    def test_costs_less_than_algotoms_offsets(self):
        means, alpha = np.random.default_rng(3).normal(1, 0.02, 200), 0.0005
        slab = np.repeat(np.exp(-means)[None], 5, axis=0)
        theirs = -np.log(removal.remove_stripe_based_regularization(slab, alpha))[0] - means

        def price(offsets):
            return (np.diff(means + offsets) ** 2).sum() + alpha * (offsets**2).sum()

        assert price(least_offsets(means, alpha=alpha)) < 0.8 * price(theirs)

    def test_takes_a_column_without_light_for_one_like_its_neighbours(self):
        slab = noisy(60, 90)[:, None]
        dark = slab.copy()
        dark[:, 0, 45] = 0
        # what is put there is not what was there, so that its surroundings feel a little of it
        np.testing.assert_allclose(
            np.delete(stripes_regularization(dark), 45, 2),
            np.delete(stripes_regularization(slab), 45, 2),
            rtol=1e-3,
        )
        assert not stripes_regularization(dark)[:, 0, 45].any()


class TestFourier:
    def test_fft_does_not_know_which_way_a_scan_ran(self):
        slab = noisy(180, 200)
        ours = stripes_fft(slab[:, None])[:, 0]
        np.testing.assert_allclose(stripes_fft(slab[::-1, None])[::-1, 0], ours, rtol=1e-6)
        theirs = removal.remove_stripe_based_fft(slab)
        turned = removal.remove_stripe_based_fft(slab[::-1])[::-1]
        assert np.abs(turned / theirs - 1).max() > 1e-3

    def test_wavelets_leave_no_upright_detail_where_algotom_does(self):
        """Details of 116 rows: the window that keeps 1 - exp(-1/2) of a stripe is one off its centre."""
        slab = np.full((180, 200), 0.5, np.float32)
        slab[:, 100] *= 1.05
        before, ours, theirs = (
            np.abs(pywt.dwt2(some, "db9", mode="symmetric")[1][1][20:-20]).max()
            for some in (
                slab,
                stripes_wavelet_fft(slab[:, None], level=1)[:, 0],
                removal.remove_stripe_based_wavelet_fft(slab, level=1),
            )
        )
        assert ours < 1e-4 * before
        assert theirs == pytest.approx(0.39 * before, rel=0.05)


def test_interpolation_fills_columns_without_light():
    clean = scene(interior=True, width=WIDTH, frames=FRAMES)
    slab = clean.copy()
    slab[:, 0, 60:64] = 0
    for norm in (False, True):
        got = stripes_interpolation(slab, norm=norm)
        np.testing.assert_allclose(got[:, 0, 60:64].mean(axis=0), clean[:, 0, 60:64].mean(axis=0), rtol=0.01)


def test_interpolation_without_norm_touches_only_what_it_finds():
    slab = np.random.default_rng(6).normal(0.5, 0.01, (361, 1, 256)).astype(np.float32)
    slab[:, 0, 60] *= 1.5
    changed = np.flatnonzero((stripes_interpolation(slab, norm=False) != slab).any(axis=(0, 1)))
    np.testing.assert_array_equal(changed, [59, 60, 61])
