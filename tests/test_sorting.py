"""Sorted columns and their running median: against numpy and scipy, in every awkward case of numbers."""

import numba
import numpy as np
import pytest
from scipy import ndimage
from test_stripes import faulty

from xctpipe import steps
from xctpipe.correct.running_median import mean_of_median, mean_over_ranks, median_across
from xctpipe.correct.sorting import RankedColumns, integers, numbers, put_back
from xctpipe.correct.stripes import stripes_sorting
from xctpipe.correct.stripes_vo import stripes_all, stripes_dead, stripes_large

INF = np.float32(np.inf)


def column_kinds(n_frames, seed=0):
    """Columns that are hard to sort by a part of their range: (angle, column)."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0.2, 0.9, n_frames)
    hot = noise.copy()
    hot[:1] = 1e9
    kinds = [
        noise,
        -noise,
        noise - 0.5,
        hot,
        np.where(np.arange(n_frames) % 3 == 0, INF, noise),
        np.where(np.arange(n_frames) % 3 == 0, -INF, noise),
        np.where(np.arange(n_frames) % 5 == 0, np.nan, noise),
        rng.integers(0, 5, n_frames),
        np.zeros(n_frames),
        np.where(noise > 0.5, 0.0, -0.0),
        noise * 1e-44,
        noise * 3e38 * np.sign(noise - 0.5),
        np.sort(noise)[::-1],
        1 + 1e-7 * rng.integers(0, 9, n_frames),
    ]
    return np.stack(kinds, axis=1).astype(np.float32)


def ranked(sinogram, *, capacity=None, first=0, last=None):
    columns = RankedColumns(*sinogram.shape, capacity=capacity)
    columns.fill(np.ascontiguousarray(sinogram[:, None]), 0, first=first, last=last or sinogram.shape[1])
    return columns


@pytest.mark.parametrize("n_frames", [1, 2, 16, 17, 361, 4097])
def test_columns_are_sorted_by_value_and_then_by_frame(n_frames):
    sinogram = column_kinds(n_frames)
    columns = ranked(sinogram)
    bits = sinogram.view(np.int32).T
    # the order of floats from that of their bits: what is below zero counts backwards
    whole = np.where(bits < 0, -(2.0**31) - bits.astype(np.int64) - 1, bits).astype(np.int64)
    order = np.argsort(whole, axis=1, kind="stable")
    np.testing.assert_array_equal(columns.frames, order)
    np.testing.assert_array_equal(
        numbers(columns.values).view(np.int32), np.take_along_axis(bits, order, axis=1)
    )


def test_more_frames_than_16_bits_count():
    sinogram = np.random.default_rng(1).uniform(0.2, 0.9, (70_001, 3)).astype(np.float32)
    columns = ranked(sinogram)
    np.testing.assert_array_equal(columns.frames.T, np.argsort(sinogram, axis=0, kind="stable"))


def test_integers_have_the_order_of_the_numbers():
    some = np.array([-INF, -3.5, -1e-40, -0.0, 0.0, 1e-40, 2.0, INF], np.float32)
    assert (np.diff(integers(some).astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(numbers(integers(some)).view(np.int32), some.view(np.int32))


def test_a_column_goes_back_to_its_frames():
    sinogram = column_kinds(181)
    columns = ranked(sinogram, capacity=4, first=3, last=7)
    out = np.empty((181, 1, 14), np.float32)
    places = columns.places(3, 7)
    put_back(columns.values[places], columns.frames, places, out, row=0, first=3)
    np.testing.assert_array_equal(out[:, 0, 3:7], sinogram[:, 3:7])


def test_columns_outside_are_mirrored():
    np.testing.assert_array_equal(
        ranked(column_kinds(3)[:, :3]).places(-4, 8), [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]
    )


@pytest.mark.parametrize("ratio", [1.0, 0.7, 3.0, 1e-30])
def test_divided_columns_are_those_of_divided_numbers(ratio):
    """Rounding makes numbers equal that were not, and these then keep the order of their frames."""
    rng = np.random.default_rng(2)
    sinogram = (1 + 2.0**-23 * rng.integers(0, 2000, (361, 5))).astype(np.float32)
    divisors = np.full(5, ratio, np.float32)
    columns = ranked(sinogram)
    columns.divide(divisors)
    expected = ranked(sinogram / divisors)
    np.testing.assert_array_equal(columns.values, expected.values)
    np.testing.assert_array_equal(columns.frames, expected.frames)


def test_divided_columns_are_in_order_where_nearly_all_become_equal():
    levels = np.random.default_rng(6).integers(0, 2000, (1501, 2))
    sinogram = (levels * 2.0**-149).astype(np.float32)
    divisors = np.array([1500, 3], np.float32)
    columns = ranked(sinogram)
    columns.divide(divisors)
    expected = ranked(sinogram / divisors)
    np.testing.assert_array_equal(columns.values, expected.values)
    np.testing.assert_array_equal(columns.frames, expected.frames)


@pytest.mark.parametrize("levels", [1, 3, 100])
def test_changed_columns_are_in_order_however_many_are_equal(levels):
    rng = np.random.default_rng(3)
    sinogram = rng.uniform(0.2, 0.9, (1501, 1)).astype(np.float32)
    columns = ranked(sinogram)
    new = np.sort(rng.integers(0, levels, (1, 1501)).astype(np.int32))
    before = columns.frames[0].copy()
    columns.change(0, new)
    np.testing.assert_array_equal(columns.values, new)
    np.testing.assert_array_equal(columns.frames[0], before[np.lexsort((before, new[0]))])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 20, 21, 51])
@pytest.mark.parametrize("n_ranks", [1, 127, 300])
def test_running_median_is_that_of_scipy(size, n_ranks):
    rng = np.random.default_rng(size)
    values = rng.integers(-(2**31), 2**31 - 1, (110, n_ranks)).astype(np.int32)
    values[:20] //= 2**29
    got = median_across(values, np.arange(110), size=size)
    whole = ndimage.median_filter(values, (size, 1))
    np.testing.assert_array_equal(got, whole[size // 2 : size // 2 + 111 - size])


def test_means_of_the_median_are_those_of_its_numbers():
    values = np.random.default_rng(4).uniform(-1, 1, (40, 331)).astype(np.float32)
    order = np.arange(40)[::-1].copy()
    kept = numbers(median_across(integers(values), order, size=7))[:, 20:-20]
    got = mean_of_median(integers(values), order, size=7, drop=20)
    np.testing.assert_allclose(got, kept.mean(axis=1, dtype=float), rtol=1e-12)
    got = mean_over_ranks(integers(values), drop=3)
    np.testing.assert_allclose(got, values[:, 3:-3].mean(axis=1, dtype=float), rtol=1e-12)


def counts(shape=(301, 5, 190), seed=5):
    """Photon counts from 0 to 200, where most numbers are there many times."""
    rng = np.random.default_rng(seed)
    slab = rng.poisson(40 + 60 * rng.uniform(0.9, 1.1, shape[1:]), shape).clip(0, 200)
    slab[:, 1, 100:106] = slab[:, 1, 100:106] * 13 // 10
    slab[:, 2, 50] = slab[:, 2, 51].mean().astype(int)
    slab[::2, 3, 60] = 0
    return slab.astype(np.float32)


STEPS = [stripes_sorting, stripes_dead, stripes_large, stripes_all]


@pytest.mark.parametrize("step", STEPS)
def test_ties_depend_neither_on_threads_nor_on_the_cut(step):
    slab = counts()
    whole = step(slab)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(step(slab), whole)
    finally:
        numba.set_num_threads(before)
    for row in range(slab.shape[1]):
        np.testing.assert_array_equal(step(slab[:, row : row + 1])[:, 0], whole[:, row])


@pytest.mark.parametrize("size", [9, 21])
def test_against_algotom_ties_only_change_places(size):
    """Algotom breaks ties as numpy's sort happens to: frames with one number may swap their results.

    The results for all frames of one number are the same, so that no frame differs by more than the
    median across columns varies over the ranks of that number.
    """
    from algotom.prep import removal

    slab = counts()
    got = stripes_sorting(slab, size_px=size)
    for row in range(slab.shape[1]):
        expected = removal.remove_stripe_based_sorting(slab[:, row].copy(), size)
        for some, theirs, number in zip(got[:, row].T, expected.T, slab[:, row].T, strict=True):
            np.testing.assert_array_equal(
                some[np.lexsort((some, number))], theirs[np.lexsort((theirs, number))]
            )


@pytest.mark.parametrize("make", [faulty, counts])
def test_all_is_the_chain_of_its_three_steps_bit_for_bit(make):
    slab = make()
    chain = stripes_sorting(stripes_large(stripes_dead(slab)), size_px=21)
    np.testing.assert_array_equal(stripes_all(slab), chain)
    assert np.abs(chain / np.where(slab == 0, 1, slab) - 1).max() > 0.05


@pytest.mark.parametrize("step", STEPS)
def test_a_slab_may_lie_in_memory_as_it_likes(step):
    slab = faulty((61, 3, 250))
    turned = np.asfortranarray(slab)
    np.testing.assert_array_equal(step(turned), step(slab))
    np.testing.assert_array_equal(step(slab[:, ::-1])[:, ::-1], step(slab))


@pytest.mark.parametrize("size", [1, 9, 64, 65, 150])
def test_tiles_leave_no_trace(size):
    """Rows wider and narrower than tiles and windows: the same as from all columns at once."""
    for width in (5, 63, 64, 65, 200):
        slab = np.random.default_rng(width).uniform(0.2, 0.9, (40, 1, width)).astype(np.float32)
        order = np.argsort(slab[:, 0], axis=0)
        smooth = ndimage.median_filter(np.take_along_axis(slab[:, 0], order, axis=0), (1, size))
        expected = np.empty_like(smooth)
        np.put_along_axis(expected, order, smooth, axis=0)
        np.testing.assert_array_equal(stripes_sorting(slab, size_px=size)[:, 0], expected)


@pytest.mark.parametrize("name", ["sorting", "dead", "large", "all", "all_hex", "interpolation"])
@pytest.mark.parametrize("kind", ["float64", ">f4"])
def test_other_kinds_of_numbers_give_what_single_precision_gives(name: str, kind: str) -> None:
    slab = np.random.default_rng(4).uniform(0.2, 1, (40, 2, 30)).astype(np.float32)
    step = steps.bind(f"stripes_{name}")
    np.testing.assert_array_equal(step(slab.astype(kind)), step(slab))
