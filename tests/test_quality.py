"""Noise and resolution against closed forms."""

import numpy as np
import pytest
import scipy.fft

from xctpipe.quality import fourier_shell_correlation, halves, resolution_um, slice_noise, voxel_noise

RNG_SEED = 11


def pair_of_noise(*, sigma, shape=(8, 128, 128)):
    rng = np.random.default_rng(RNG_SEED)
    return tuple(rng.normal(0, sigma * np.sqrt(2), shape).astype(np.float32) for _ in range(2))


def coloured(transfer, *, shape, rng):
    white = rng.normal(size=shape)
    return scipy.fft.ifft2(scipy.fft.fft2(white) * transfer).real


def frequencies(n):
    f = scipy.fft.fftfreq(n)
    return np.hypot(f[:, None], f)


def test_halves_share_nothing_and_miss_nothing():
    even, odd = halves(7)
    assert even.tolist() == [0, 2, 4, 6]
    assert odd.tolist() == [1, 3, 5]


def test_noise_of_the_whole_from_two_halves_whatever_they_show():
    even, odd = pair_of_noise(sigma=0.03)
    shared = np.random.default_rng(1).uniform(0, 5, even.shape).astype(np.float32)
    assert voxel_noise(even + shared, odd + shared) == pytest.approx(0.03, rel=0.02)


def test_noise_is_not_moved_by_a_few_bad_voxels():
    even, odd = pair_of_noise(sigma=0.03)
    even[:, 40:42, ::3] = 100
    assert voxel_noise(even, odd) == pytest.approx(0.03, rel=0.04)


def test_noise_outside_the_middle_does_not_count():
    even, odd = pair_of_noise(sigma=0.03)
    inside = voxel_noise(even, odd)
    even[:, :8] = odd[:, -8:] = 7
    assert voxel_noise(even, odd) == inside


def test_correlation_falls_through_one_seventh_where_the_signal_is_a_sixth_of_the_noise():
    n, pixel_um, width, snr = 128, 1.3, 0.1, 20.0
    rng = np.random.default_rng(RNG_SEED)
    transfer = np.exp(-0.5 * (frequencies(n) / width) ** 2)
    signal = np.sqrt(snr) * coloured(transfer, shape=(24, n, n), rng=rng)
    even, odd = ((signal + rng.normal(size=signal.shape)).astype(np.float32) for _ in range(2))
    f, correlation = fourier_shell_correlation(even, odd, pixel_um=pixel_um)
    power = snr * np.exp(-((f * pixel_um / width) ** 2))
    assert np.abs(correlation - power / (power + 1)).max() < 0.05
    expected_um = pixel_um / (width * np.sqrt(np.log(6 * snr)))
    assert resolution_um(f, correlation, pixel_um=pixel_um) == pytest.approx(expected_um, rel=0.03)


@pytest.mark.parametrize("n", [64, 65])
def test_equal_halves_are_resolved_to_two_pixels(n):
    even = np.random.default_rng(3).normal(size=(2, n, n)).astype(np.float32)
    f, correlation = fourier_shell_correlation(even, even, pixel_um=2.0)
    assert correlation == pytest.approx(np.ones(n // 2))
    assert f[0] == pytest.approx(1 / (2.0 * n))
    assert resolution_um(f, correlation, pixel_um=2.0) == 4.0


def test_pure_noise_correlates_nowhere():
    even, odd = pair_of_noise(sigma=1.0, shape=(16, 64, 64))
    _, correlation = fourier_shell_correlation(even, odd, pixel_um=1.0)
    assert np.abs(correlation[4:]).max() < 0.1


def test_correlation_does_not_depend_on_the_scale_of_either_half():
    even, odd = pair_of_noise(sigma=1.0)
    _, one = fourier_shell_correlation(even, even + odd, pixel_um=1.0)
    _, other = fourier_shell_correlation(3 * even + 1, 0.5 * (even + odd), pixel_um=1.0)
    assert other == pytest.approx(one, abs=1e-4)


def test_crossing_is_interpolated_and_the_first_one_counts():
    f = np.array([0.1, 0.2, 0.3, 0.4])
    assert resolution_um(f, np.array([1, 0.5, 0.1, 0.9]), pixel_um=1, criterion=0.3) == pytest.approx(4)
    assert resolution_um(f, np.array([0.1, 0.5, 0.1, 0.9]), pixel_um=1, criterion=0.3) == pytest.approx(10)


def test_empty_halves_correlate_nowhere():
    zeros = np.zeros((2, 16, 16), np.float32)
    assert not fourier_shell_correlation(zeros, zeros, pixel_um=1.0)[1].any()


@pytest.mark.parametrize("shapes", [((2, 8, 8), (3, 8, 8)), ((2, 8, 9), (2, 8, 9)), ((8,), (8,))])
def test_volumes_that_do_not_fit_are_refused(shapes):
    even, odd = (np.zeros(shape, np.float32) for shape in shapes)
    with pytest.raises(ValueError, match="square slices"):
        voxel_noise(even, odd)
    with pytest.raises(ValueError, match="square slices"):
        fourier_shell_correlation(even, odd, pixel_um=1.0)


def test_the_noise_of_each_slice_is_that_of_the_slice_alone() -> None:
    rng = np.random.default_rng(5)
    sigma = np.array([0.02, 0.05, 0.4], np.float32)[:, None, None]
    even, odd = (sigma * rng.standard_normal((3, 2100, 2100), dtype=np.float32) + 1 for _ in range(2))
    noise = slice_noise(even, odd)
    for i in range(3):
        assert noise[i] == pytest.approx(voxel_noise(even[i : i + 1], odd[i : i + 1]), rel=0.005)
