"""Transforms in lanes against numpy, in the lengths that are used and others."""

import numpy as np
import pytest

from xctpipe.recon import lanes_fft
from xctpipe.recon.gridding import kernel_for
from xctpipe.recon.lanes import ALIGNMENT, LANES, empty
from xctpipe.recon.polar import padded_length, period_of

USED = {
    length
    for width in (1, 3, 64, 129, 640, 1024, 1301, 2048, 2560, 3200, 4096)
    for length in (
        period_of(width) // 2,
        padded_length(width, width / 2) // 2,
        kernel_for(width, tolerance=1e-3).size // 2,
        kernel_for(width, tolerance=1e-3).size,
    )
}
LENGTHS = sorted(USED | {1, 2, 3, 4, 5, 6, 8, 9, 10, 25, 27, 48, 81, 125, 128, 162, 243, 1000})


def numbers(n, *, seed=0):
    array = empty(n)
    array[:] = np.random.default_rng(seed).normal(size=array.shape)
    return array


def copy(array):
    other = empty(*array.shape[:-2])
    other[:] = array
    return other


def as_complex(array):
    return array[:, 0].astype(np.float64) + 1j * array[:, 1]


@pytest.mark.parametrize("n", LENGTHS)
def test_transform_is_that_of_numpy(n):
    plan = lanes_fft.transform_of(n)
    assert np.prod(plan.factors) == n
    given, free = numbers(n), numbers(n, seed=1)
    expected = np.fft.fft(as_complex(given), axis=0)
    found, other = lanes_fft.transform(copy(given), free, plan)
    assert not np.may_share_memory(found, other)
    assert np.linalg.norm(as_complex(found) - expected) < 1e-6 * np.linalg.norm(expected)


def test_a_transform_read_backwards_is_the_inverse():
    given = numbers(360)
    plan = lanes_fft.transform_of(360)
    there, free = lanes_fft.transform(copy(given), empty(360), plan)
    back = lanes_fft.transform(there, free, plan)[0]
    assert np.abs(back[-np.arange(360)] / 360 - given).max() < 1e-6 * np.abs(given).max()


def test_lanes_know_nothing_of_each_other():
    given, alone = numbers(150), numbers(150, seed=2)
    alone[:, :, 3] = given[:, :, 3]
    alone[:, :, 4] = np.nan
    plan = lanes_fft.transform_of(150)
    one, other = (lanes_fft.transform(copy(x), empty(150), plan)[0] for x in (given, alone))
    assert np.array_equal(one[:, :, 3], other[:, :, 3])


@pytest.mark.parametrize("n", [1, 2, 7, 11, 97, 331, 1616, 3241, 4096, 5003])
def test_good_lengths_are_long_enough_and_not_much_longer(n):
    length = lanes_fft.good_length(n)
    assert n <= length <= 1.13 * n + 4
    assert lanes_fft.factors_of(length) is not None


def test_a_length_with_another_factor_is_refused():
    assert lanes_fft.factors_of(14) is None
    with pytest.raises(ValueError, match="length 14"):
        lanes_fft.transform_of(14)


def test_numbers_do_not_straddle_cache_lines():
    for shape in ((1,), (7,), (3, 5)):
        array = empty(*shape)
        assert array.shape == (*shape, 2, LANES)
        assert array.ctypes.data % ALIGNMENT == 0
