import math
from typing import Any

import numba
import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import norm

from xctpipe.errors import BadRecipe
from xctpipe.segment import bulk

NASICON, NAK, VOID = 2.332, 0.2239, 0.0
CODES = (5, 6, 7)
EDGES = np.linspace(-1, 4, 1501)


def histogram(values: Any) -> Any:
    return np.histogram(values, EDGES)[0].astype(float)


def mixture_of(values: Any) -> bulk.Mixture:
    return bulk.fit_mixture(histogram(values), EDGES, means_cm1=(NASICON, NAK, VOID), codes=CODES)


@pytest.mark.parametrize(("error_frac", "needed"), [(0.05, 3.3), (0.01, 4.7)])
def test_needed_contrast_to_noise(error_frac: float, needed: float) -> None:
    assert bulk.needed_contrast_to_noise(error_frac) == pytest.approx(needed, abs=0.06)
    # what it says: a threshold midway between two normal distributions
    assert norm.sf(bulk.needed_contrast_to_noise(error_frac) / 2) == pytest.approx(error_frac)


@pytest.mark.parametrize(
    ("photons", "noise", "contrast", "level"),
    [
        # standard deviations at full resolution by the formula of filtered back-projection, pixels of 1.3 um:
        # NASICON and the light phases apart at bin 2 from 1e4 photons on, NaK and voids at bin 5 to 6
        (1e4, (2.68, 1.43), 2.332 - 0.224, 1),
        (1e4, (2.68, 1.43), 2.332, 1),
        (1e4, (1.43, 1.43), 0.224, 3),
        (3e3, (4.90, 2.61), 2.332, 2),
        (3e3, (2.61, 2.61), 0.224, 3),
        (1e5, (0.848, 0.452), 2.332, 0),
        (1e5, (0.452, 0.452), 0.224, 2),
        # NaK and sodium never on a pyramid that ends at bin 8
        (1e4, (1.43, 1.43), 0.050, 3),
    ],
)
def test_levels_for_published_noise(
    photons: float, noise: tuple[float, float], contrast: float, level: int
) -> None:
    assert bulk.choose_level(noise, contrast_cm1=contrast, n_levels=4) == level, photons


def test_a_level_is_refused_or_the_coarsest() -> None:
    assert bulk.choose_level((1.0, 1.0), contrast_cm1=0.01, n_levels=2) == 1
    assert bulk.choose_level((0.0, 0.0), contrast_cm1=0.01, n_levels=2) == 0
    with pytest.raises(BadRecipe, match="give one level or more"):
        bulk.choose_level((1.0, 1.0), contrast_cm1=0.0, n_levels=2)
    with pytest.raises(BadRecipe, match="give more than 0"):
        bulk.choose_level((1.0, 1.0), contrast_cm1=1.0, n_levels=2, error_frac=0.5)


def a_cell(*, edge: int = 40, blur_px: float = 0.8) -> tuple[Any, Any]:
    """Grey values and labels: NaK over NASICON, a ball of void in the NaK, a thin crack in the NASICON."""
    z, y, x = np.mgrid[:edge, :edge, :edge] - (edge - 1) / 2
    truth = np.where(z > 0.5, 5, 6).astype(np.uint8)
    truth[(z + 9) ** 2 + y**2 + x**2 < 6**2] = 7
    truth[(z > 8.9) & (z < 10) & (abs(y) < 12)] = 7
    table = np.zeros(8)
    table[list(CODES)] = NASICON, NAK, VOID
    return ndimage.gaussian_filter(table[truth], blur_px).astype(np.float32), truth


def noisy(grey: Any, *, sigma: float, seed: int = 0) -> Any:
    noise = np.random.default_rng(seed).normal(0, sigma, grey.shape)
    return (grey + noise).astype(np.float32)


def dice(a: Any, b: Any) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_widths_and_shares_are_found_again() -> None:
    rng = np.random.default_rng(0)
    counts, sigmas = (60_000, 30_000, 1_000), (0.10, 0.03, 0.02)
    mixed = 3_000
    parts = [
        rng.normal(mean, sigma, n)
        for mean, sigma, n in zip((NASICON, NAK, VOID), sigmas, counts, strict=True)
    ]
    found = mixture_of(np.concatenate([*parts, rng.uniform(0, NASICON, mixed)]))
    total = sum(counts) + mixed
    for sigma, true, n in zip(found.sigmas_cm1, sigmas, counts, strict=True):
        # five standard errors of a width, and the bin's own
        assert sigma == pytest.approx(
            math.hypot(true, (EDGES[1] - EDGES[0]) / 3.46), rel=5 / math.sqrt(2 * n)
        )
    assert found.shares == pytest.approx(np.array(counts) / total, abs=5 * math.sqrt(0.25 / total))
    assert found.mixed_frac == pytest.approx(mixed / total, abs=0.002)


def test_a_rare_phase_does_not_swallow_the_faces() -> None:
    grey, _ = a_cell()
    found = mixture_of(noisy(grey, sigma=0.04))
    assert found.sigmas_cm1 == pytest.approx([0.04] * 3, rel=0.3)
    assert found.mixed_frac > 0.05


@pytest.mark.parametrize(
    ("counts", "means", "codes", "text"),
    [
        (np.zeros(1500), (1.0, 0.0), (5, 6), "without values"),
        (np.ones(1500), (1.0, 1.0), (5, 6), "a mean of its own"),
        (np.ones(1500), (1.0,), (5,), "two or more"),
        (np.ones(1500), (1.0, 0.0), (5, 0), "above 0"),
    ],
)
def test_a_wrong_mixture_is_refused(counts: Any, means: Any, codes: Any, text: str) -> None:
    with pytest.raises(BadRecipe, match=text):
        bulk.fit_mixture(counts, EDGES, means_cm1=means, codes=codes)


def test_phases_of_a_noisy_cell() -> None:
    grey, truth = a_cell()
    values = noisy(grey, sigma=0.06)
    mixture = mixture_of(values)
    alone = bulk.bulk_phases(values, mixture=mixture, smoothness=0)
    field = bulk.bulk_phases(values, mixture=mixture)
    for code in (5, 6):
        assert dice(field == code, truth == code) > 0.98
    ball = truth == 7
    ball[26:] = False
    # contrast 0.22 at a noise of 0.06: 3 % of NaK reads as void, voxel by voxel
    assert dice((alone == 7)[:17], ball[:17]) < 0.8
    assert dice((field == 7)[:17], ball[:17]) > 0.9


def test_the_field_erases_a_thin_crack_unless_it_is_frozen() -> None:
    # noise on which a voxel of the blurred crack is doubtful
    grey, truth = a_cell()
    crack = truth == 7
    crack[:26] = False
    values = noisy(grey, sigma=0.05)
    mixture = bulk.Mixture(
        np.array([5, 7], np.uint8), np.array([NASICON, VOID]), np.array([0.6, 0.6]), np.ones(2) / 2, 0.0
    )
    plain = bulk.bulk_phases(values, mixture=mixture, smoothness=2)
    frozen = bulk.bulk_phases(values, mixture=mixture, smoothness=2, frozen=crack)
    alone = bulk.bulk_phases(values, mixture=mixture, smoothness=0)
    assert (plain[crack] == 7).mean() < 0.1
    assert np.array_equal(frozen[crack], alone[crack])
    assert (frozen[crack] == 7).mean() > 0.3


def test_a_field_that_is_not_smooth_takes_the_nearest_mean() -> None:
    values = np.random.default_rng(0).uniform(-0.5, 3, (5, 6, 7)).astype(np.float32)
    found = bulk.bulk_phases(values, mixture=mixture_of(a_cell()[0]), smoothness=0)
    distances = np.abs(values[..., None] - np.array([NASICON, NAK, VOID]))
    assert np.array_equal(found, np.array(CODES)[distances.argmin(axis=-1)])


def test_beyond_the_view_is_0_and_has_no_say() -> None:
    values, _ = a_cell(edge=20)
    inside = np.zeros(values.shape, bool)
    inside[:, 4:16, 4:16] = True
    mixture = mixture_of(values)
    found = bulk.bulk_phases(values, mixture=mixture, inside=inside)
    assert np.all((found > 0) == inside)
    other = np.where(inside, values, np.float32(9))
    assert np.array_equal(found, bulk.bulk_phases(other, mixture=mixture, inside=inside))


@pytest.mark.parametrize("n_iterations", [0, 1, 3])
def test_blocks_with_their_halo_give_what_the_whole_gives(n_iterations: int) -> None:
    grey, _ = a_cell(edge=30)
    values, mixture = noisy(grey, sigma=0.1), mixture_of(grey)
    frozen = np.random.default_rng(1).random(grey.shape) < 0.05
    how = {"mixture": mixture, "n_iterations": n_iterations}
    whole = bulk.bulk_phases(values, frozen=frozen, **how)  # type: ignore[arg-type]
    halo = bulk.halo_px(n_iterations)
    for core in (slice(0, 11), slice(11, 18), slice(18, 30)):
        start, stop = max(core.start - halo, 0), min(core.stop + halo, 30)
        part = np.s_[start:stop, :, start:stop]
        block = bulk.bulk_phases(values[part], frozen=frozen[part], corner=(start, 0, start), **how)  # type: ignore[arg-type]
        inner = slice(core.start - start, core.stop - start)
        assert np.array_equal(block[inner, :, inner], whole[core, :, core])


def test_threads_change_nothing_and_arguments_stay() -> None:
    grey, _ = a_cell(edge=24)
    values, mixture = noisy(grey, sigma=0.1), mixture_of(grey)
    before = values.copy()
    results = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        results.append(bulk.bulk_phases(values, mixture=mixture))
    assert np.array_equal(*results)
    assert np.array_equal(values, before)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(BadRecipe, match="give 0 or more"):
        bulk.bulk_phases(np.zeros((2, 2, 2), np.float32), mixture=mixture_of(a_cell()[0]), smoothness=-1)
