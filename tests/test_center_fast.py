"""The search for the axis against another program, and its fast pieces against plain ones."""

import numba
import numpy as np
import pytest
from algotom.prep.calculation import find_center_vo
from scipy import ndimage as ndi
from test_center import HALF_TURN_RAD, MIXED, interior_slab

from xctpipe.center import find_center
from xctpipe.center.antisymmetry import Mirror, band_kernel, band_pass, binned
from xctpipe.center.clean import cleaned
from xctpipe.center.levels import LANES
from xctpipe.center.registration import slab_differences
from xctpipe.center.sharpness import _block_moments
from xctpipe.center.wedge import wedge_curves

ANGLES = np.linspace(0, np.pi, 361)
FAULTLESS = {"photons": 1e9, "stripe_frac": 0.0, "zinger_frac": 0.0}


EDGE = "ignore:Global minimum is out of the searching range:UserWarning"
"""What find_center_vo says where noise misleads it."""


def both(truth, *, seed, **faults):
    """Errors of our axis of six rows, and of that which Vo's metric finds in a middle row."""
    slab, rows = interior_slab(truth, kinds=MIXED, angles_rad=ANGLES, seed=seed, **faults)
    row = np.ascontiguousarray(slab[:, len(rows) // 2 - 1])
    ours = find_center(slab, angles_rad=ANGLES, rows=rows).center_px
    return ours - truth, find_center_vo(row, ncore=1) - truth


@pytest.mark.filterwarnings(EDGE)
def test_truer_than_vo_on_scans_with_noise_and_stripes():
    truths = 127.5 + np.array([0.3, -6.4, 11.65, -13.85, 16.1])
    errors = np.array([both(truth, seed=i) for i, truth in enumerate(truths)])
    ours, vo = np.sqrt(np.mean(errors**2, axis=0))
    assert ours < vo
    assert ours < 0.15
    assert np.abs(errors[:, 0]).max() < max(0.25, np.abs(errors[:, 1]).max())


@pytest.mark.parametrize("offset_px", [0.25, -9.5])
def test_agrees_with_vo_where_nothing_disturbs(offset_px):
    ours, vo = both(127.5 + offset_px, seed=21, **FAULTLESS)
    assert abs(ours - vo) <= 0.25
    assert abs(ours) <= 0.1


@pytest.mark.parametrize("angles", [HALF_TURN_RAD, 2 * HALF_TURN_RAD], ids=["half turn", "full turn"])
def test_axis_does_not_depend_on_the_number_of_threads(angles):
    slab, rows = interior_slab(133.4, kinds=MIXED, angles_rad=angles, seed=5)
    most = numba.get_num_threads()
    found = []
    try:
        for threads in (1, most):
            numba.set_num_threads(threads)
            found.append(find_center(slab, angles_rad=angles, rows=rows))
    finally:
        numba.set_num_threads(most)
    assert found[0] == found[1]


@pytest.mark.parametrize("scale", [1.0, 2.5, 4.0])
def test_band_is_the_difference_of_two_gaussians(scale):
    lines = np.random.default_rng(0).normal(size=(3, 90)).astype(np.float32)
    fine, coarse = (
        ndi.gaussian_filter1d(lines.astype(float), s, axis=-1, mode="nearest") for s in (scale, 2 * scale)
    )
    np.testing.assert_allclose(band_pass(lines, band_kernel(scale)), fine - coarse, atol=2e-4)


@pytest.mark.parametrize("center_px", [120.0, 131.5, 140.5])
@pytest.mark.parametrize("by_px", [1, 2, 3, 4])
def test_mirror_image_is_found_in_bins_of_any_width(center_px, by_px):
    u = np.arange(262)
    # antisymmetric about the axis, and wide enough for every bin
    line = ((u - center_px) * np.exp(-(((u - center_px) / 40) ** 2))).astype(np.float32)[None]
    at = np.arange(100, 160, 0.5)
    mirror = Mirror.of(u.size, scale_px=8.0, by_px=by_px, at_px=at)
    rho = mirror.correlation(binned(line, by=by_px))
    assert at[rho.argmax()] == center_px
    assert rho.max() == pytest.approx(1, abs=0.01)
    overlap = np.minimum(at, u.size - 1 - at)[[0, 60]]
    assert np.all(np.diff(mirror.overlap_px[[0, 60]]) * np.diff(overlap) > 0)


def test_back_projections_are_those_of_plain_interpolation():
    rng = np.random.default_rng(3)
    n_angles, n_cols, n_at, first = 20, 60, 13, 24.5
    band = np.zeros((n_angles, n_cols + LANES), np.float32)
    band[:, :n_cols] = rng.normal(size=(n_angles, n_cols))
    angles = rng.uniform(0, np.pi, n_angles)
    x, y = rng.uniform(-12, 12, (2, 50)).astype(np.float32)
    at = x[:, None] * np.cos(angles) - y[:, None] * np.sin(angles) + first
    values = np.array(
        [
            [sum(np.interp(at[p, i] + k, np.arange(n_cols), band[i, :n_cols]) for i in range(n_angles))]
            for p in range(50)
            for k in range(n_at)
        ]
    ).reshape(50, n_at)
    expected = np.stack([np.abs(values), values**2, values**4], axis=-1).sum(axis=0)
    got = _block_moments(band, np.cos(angles), np.sin(angles), x, y, first, n_at)
    np.testing.assert_allclose(got, expected, rtol=1e-3)


@pytest.mark.parametrize(("width", "n_angles"), [(256, 257), (1100, 551)])
def test_jump_at_the_seam_is_antisymmetric_about_the_axis(width, n_angles):
    # the wider view is binned before its transform; without noise the jump is its own negated mirror image
    truth = width * 0.52 + 0.3
    angles = np.arange(n_angles) * np.pi / n_angles
    slab, rows = interior_slab(
        truth, kinds=("nasicon",) * 2, width=width, angles_rad=angles, seed=2, **FAULTLESS
    )
    slab, angles = cleaned(slab, angles_rad=angles)
    at = np.arange(0.4 * width // 1, 0.6 * width // 1, 0.5)
    curves = wedge_curves(slab, angles_rad=angles, candidates_px=at)
    assert rows.size == len(curves.rho)
    best = at[curves.rho.sum(axis=(0, 1)).argmax()]
    assert best == pytest.approx(truth, abs=0.5)


def test_differences_of_what_grows_with_angle():
    start, slope = np.random.default_rng(1).normal(size=(2, 4, 30))
    angles = np.linspace(0.02, np.pi - 0.01, 181)  # the gap at the seam is bridged by straight lines
    slab = (start + angles[:, None, None] * slope).astype(np.float32)
    differences = slab_differences(slab, angles_rad=angles)
    assert differences.shape == (1, 4, 30)
    expected = np.pi * slope
    for row in range(4):
        np.testing.assert_allclose(
            differences.of_row(row, scale_px=1.0, by_px=1)[0], expected[row], atol=1e-5
        )
        np.testing.assert_allclose(
            differences.of_row(row, scale_px=1.0, by_px=4)[0],
            expected[row, :28].reshape(7, 4).mean(axis=1),
            atol=1e-6,
        )


def test_zingers_and_what_is_not_finite_are_out_and_the_first_frame_is_taken_off():
    rng = np.random.default_rng(2)
    angles = rng.permutation(np.linspace(0, np.pi, 60))
    smooth = np.sin(angles)[:, None, None] * np.ones((1, 2, 40), np.float32)
    slab = (smooth + rng.normal(0, 1e-3, smooth.shape)).astype(np.float32)
    hurt = slab.copy()
    hurt[20, 1, 10] += 5
    hurt[30, 0, 5] = np.nan
    out, ascending = cleaned(hurt, angles_rad=angles)
    order = np.argsort(angles)
    np.testing.assert_array_equal(ascending, angles[order])
    expected = (slab - slab[order[0]])[order]
    assert np.abs(out - expected).max() < 0.3
    assert (out != expected).sum() <= 2
    assert np.all(out[0] == 0)
