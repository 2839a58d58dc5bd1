"""Zingers against truth, and what every registered correction promises."""

import numba
import numpy as np
import pytest

from xctpipe.correct.chain import default_chain
from xctpipe.correct.zingers import zingers
from xctpipe.errors import BadRecipe
from xctpipe.steps import bind, registered

STEPS = sorted(name for name, step in registered().items() if not step.asks)


def smooth_rows(shape=(90, 5, 120), *, seed=None, photons=3000):
    """A disc that swings with angle, seen with or without photon noise: (angle, row, col)."""
    angle = np.linspace(0, np.pi, shape[0])[:, None, None]
    row = np.arange(shape[1])[None, :, None]
    col = np.arange(shape[2]) - shape[2] / 2
    d = col - 8 * np.cos(angle) - row
    seen = np.exp(-0.02 * np.sqrt(np.clip(45**2 - d**2, 0, None)))
    if seed is not None:
        seen = np.random.default_rng(seed).poisson(seen * photons) / photons
    return seen.astype(np.float32)


def struck(clean, seed, n=60):
    """`clean` with n zingers of 1 to 3 columns, 1.5 to 20 times as bright, and where they are."""
    rng = np.random.default_rng(seed)
    dirty, hit = clean.copy(), np.zeros(clean.shape, bool)
    for _ in range(n):
        t, row, col = (rng.integers(0, size) for size in clean.shape)
        hit[t, row, col : col + rng.integers(1, 4)] = True
    dirty[hit] *= rng.uniform(1.5, 20, hit.sum()).astype(np.float32)
    return dirty, hit


@pytest.mark.parametrize("seed", [None, 1])
def test_zingers_become_what_was_there(seed):
    clean = smooth_rows(seed=seed)
    dirty, hit = struck(clean, 2)
    got = zingers(dirty)
    # no worse than a median of 8 pixels two away can be, at the edge of a disc and in noise
    error = np.abs(got / smooth_rows() - 1)[hit]
    assert np.quantile(error, 0.95) < 0.08
    assert (got[~hit] != dirty[~hit]).mean() < 1e-4


def test_zingers_are_mended_better_than_by_a_mean():
    from algotom.prep import removal

    clean = smooth_rows(seed=3)
    dirty, _ = struck(clean, 4)
    usual = np.stack([removal.remove_zinger(dirty[:, r], 0.08) for r in range(clean.shape[1])], axis=1)

    def error(some):
        return np.sqrt(np.mean((some - clean) ** 2))

    assert error(zingers(dirty)) < 0.5 * error(usual)


@pytest.mark.parametrize("photons", [100, 300, 1000, 10_000])
def test_photon_noise_is_not_clipped(photons):
    """At 300 photons 8 % is 1.4 standard deviations: cutting there would darken the mean by percents."""
    noisy = smooth_rows((200, 2, 200), seed=5, photons=photons)
    got = zingers(noisy)
    assert abs(got.mean() / noisy.mean() - 1) < 1e-5
    assert abs(got.std() / noisy.std() - 1) < 1e-4


def test_clean_edges_and_slanted_bright_lines_stay():
    slab = np.full((80, 1, 100), 0.4, np.float32)
    slab[:, :, :30] = 1
    for t in range(80):
        slab[t, 0, 40 + t // 2] = 0.6
    np.testing.assert_array_equal(zingers(slab), slab)


def test_zingers_at_the_borders_are_found():
    slab = np.full((20, 1, 20), 0.5, np.float32)
    for t, c in ((0, 0), (19, 19), (0, 10), (10, 0)):
        slab[t, 0, c] = 3
    np.testing.assert_array_equal(zingers(slab), np.full_like(slab, 0.5))


@pytest.mark.parametrize("name", STEPS)
def test_argument_is_kept_and_shape_and_type_hold(name):
    slab = smooth_rows(seed=6)
    slab[:, 2, 60] *= 1.3
    before = slab.copy()
    slab.flags.writeable = False
    got = bind(name)(slab)
    assert (got.dtype, got.shape) == (np.float32, slab.shape)
    assert not np.shares_memory(got, slab)
    np.testing.assert_array_equal(slab, before)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("cut", [(0, 1), (2, 4), (4, 5)])
def test_a_row_does_not_know_how_high_its_slab_is(name, cut):
    slab, _ = struck(smooth_rows(seed=7), 8)
    slab[:, :, 40] *= 1.2
    step = bind(name)
    first, last = cut
    low, high = max(first - step.halo_rows(), 0), min(last + step.halo_rows(), slab.shape[1])
    part = step(slab[:, low:high])[:, first - low : last - low]
    np.testing.assert_array_equal(part, step(slab)[:, first:last])


@pytest.mark.parametrize("name", STEPS)
def test_threads_do_not_change_a_bit(name):
    slab, _ = struck(smooth_rows(seed=9), 10)
    before = numba.get_num_threads()
    results = []
    try:
        for n in {1, numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(n)
            results.append(bind(name)(slab))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(results[0], results[-1])


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("value", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 40), (30, 3, 7)])
def test_a_constant_slab_stays(name, value, shape):
    slab = np.full(shape, value, np.float32)
    if name == "stripes_fitting" and shape[0] < 4:  # a parabola through three frames fits anything
        with pytest.raises(BadRecipe, match="needs 4"):
            bind(name)(slab)
        return
    np.testing.assert_array_equal(bind(name)(slab), slab)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("zingers", {"threshold_frac": 0}),
        ("zingers", {"size_px": 0}),
        ("stripes_sorting", {"size_px": -1}),
        ("stripes_all", {"snr": 0}),
        ("stripes_large", {"drop_ratio_frac": 0.9}),
        ("stripes_dead", {"size": 51}),
    ],
)
def test_parameters_out_of_range_are_refused(name, params):
    with pytest.raises(BadRecipe, match=next(iter(params))):
        bind(name, **params)


def test_the_default_chain_binds():
    assert all(bind(name, **params).name == name for name, params in default_chain())
