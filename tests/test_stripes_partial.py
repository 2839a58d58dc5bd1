"""Stripes that come and go: what is left of them in slices, and what the step leaves alone."""

import numpy as np
import pytest
from scipy import io, ndimage
from test_stripes import TestRealData as _Dendrite
from test_stripes import bound, cell, corrected, transmission

from xctpipe import recon
from xctpipe.correct.chain import default_chain

WIDTH, FRAMES, COLUMN = 256, 361, 60
RADIUS_PX = (WIDTH - 1) / 2 - COLUMN


def levelled(slab):
    return bound("stripes_partial")(slab)


def gains(kind, size):
    """Gain of a column frame by frame, `size` at its most."""
    frame = np.arange(FRAMES)
    third = FRAMES // 3
    return 1 + size * {
        "middle third": (frame >= third) & (frame < 2 * third),
        "last quarter": frame >= FRAMES - FRAMES // 4,
        "drift": frame / (FRAMES - 1),
    }[kind].astype(np.float32)


def scene(*, interior=True, seed=5, photons=10_000, specks=()):
    return transmission([*cell(interior=interior), *specks], seed=seed, photons=photons)


SPECKS = ((40, 0, 1.2, 0.03), (-70, 20, 1.5, 0.03), (8, 3, 1.2, 0.03), (0, -95, 2.5, 0.02))
"""Easily taken for stripes: small and dense, far from the axis and near it."""


def slices(slab):
    options = {"angles_rad": np.linspace(0, np.pi, FRAMES), "center_px": (WIDTH - 1) / 2, "pixel_um": 1.0}
    return recon.reconstruct(-np.log(slab), **options)[0]


def ring(slab, clean):
    """Largest mean over 30 degrees of a circle at the column's radius, of what the stripe adds to a slice."""
    turn, middle = np.radians(np.arange(360)), (WIDTH - 1) / 2
    difference = slices(slab) - slices(clean)
    along = [
        ndimage.map_coordinates(difference, [middle + r * np.sin(turn), middle + r * np.cos(turn)], order=1)
        for r in RADIUS_PX + np.arange(-1, 1.1, 0.5)
    ]
    return np.abs(ndimage.uniform_filter1d(along, 30, axis=1, mode="wrap")).max()


def rings(dirty, clean):
    """Of the stripe as it is, after the chain without this step, and after the whole chain."""
    plain = [each for each in default_chain() if each[0] != "stripes_partial"]
    return [ring(corrected(dirty, chain), corrected(clean, chain)) for chain in ([], plain, default_chain())]


@pytest.mark.parametrize("kind", ["middle third", "last quarter"])
@pytest.mark.parametrize("size", [0.06, -0.06])
def test_default_chain_leaves_a_quarter_of_the_ring(kind, size):
    clean = scene()
    dirty = clean.copy()
    dirty[:, 0, COLUMN] *= gains(kind, size)
    before, sorted_only, after = rings(dirty, clean)
    assert after < 0.25 * before
    assert after < 0.5 * sorted_only


@pytest.mark.parametrize(
    ("kind", "width"), [("middle third", 3), ("last quarter", 3), ("drift", 3), ("drift", 1)]
)
def test_wide_and_drifting_stripes_leave_half_of_what_sorting_leaves(kind, width):
    clean = scene()
    dirty = clean.copy()
    dirty[:, 0, COLUMN : COLUMN + width] *= gains(kind, 0.06)[:, None]
    _, sorted_only, after = rings(dirty, clean)
    assert after < 0.5 * sorted_only


@pytest.mark.parametrize("interior", [False, True])
@pytest.mark.parametrize("specks", [(), SPECKS])
@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_nothing_of_a_scan_without_stripes_is_changed(interior, specks, seed):
    slab = scene(interior=interior, seed=seed, specks=specks)
    np.testing.assert_array_equal(levelled(slab), slab)


def test_what_lasts_stays():
    slab = scene()
    slab[:, 0, 60] *= 1.1
    slab[:, 0, 200] = 0
    np.testing.assert_array_equal(levelled(slab), slab)


def test_what_is_short_stays():
    """A tenth of the frames: a detail of the sample may stay as long where its path turns back."""
    slab = scene()
    slab[100 : 100 + FRAMES // 10, 0, COLUMN] *= 1.06
    np.testing.assert_array_equal(levelled(slab), slab)


def test_near_the_axis_what_a_detail_may_do_stays():
    """A third of the frames is less than a detail four columns wide stays 10 columns from the axis."""
    slab = scene()
    slab[:, 0, 117] *= gains("middle third", 0.06)
    slab[:, 0, COLUMN] *= gains("middle third", 0.06)
    changed = (levelled(slab) != slab).any(axis=(0, 1))
    assert changed[COLUMN]
    assert not changed[117]


def test_only_the_column_is_changed():
    clean = scene()
    dirty = clean.copy()
    dirty[:, 0, COLUMN] *= gains("middle third", 0.06)
    got = levelled(dirty)
    np.testing.assert_array_equal(np.delete(got, COLUMN, 2), np.delete(clean, COLUMN, 2))
    third, left = FRAMES // 3, np.log(got / clean)[:, 0, COLUMN]
    assert abs(left[third + 10 : -third - 10].mean() - left[: third - 10].mean()) < 0.02


@pytest.mark.parametrize("snr", [2.0, 50.0])
def test_a_greater_snr_finds_fewer(snr):
    slab = scene()
    slab[:, 0, COLUMN] *= gains("middle third", 0.06)
    assert (bound("stripes_partial", snr=snr)(slab) != slab).any() == (snr < 10)


def test_the_ends_of_the_row_stay():
    """There a column has neighbours on one side only, and the slope of the sample would pass for an error."""
    slab = scene()
    slab[: FRAMES // 2, 0, :4] *= 1.1
    slab[: FRAMES // 2, 0, -4:] *= 1.1
    np.testing.assert_array_equal(levelled(slab), slab)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (14, 2, 9), (61, 2, 8)])
def test_short_and_narrow_scans_pass(shape):
    slab = np.random.default_rng(1).normal(0.5, 0.01, shape).astype(np.float32)
    assert levelled(slab).shape == shape


class TestRealScans:
    def test_few_columns_of_real_scans_are_changed(self, shared_data):
        sinogram = np.load(shared_data / "stripes" / "sino_stripe_i12.npy")[:, None].astype(np.float32)
        changed = (levelled(sinogram) != sinogram).any(axis=(0, 1))
        assert np.count_nonzero(changed) < 0.05 * changed.size

    def test_rings_of_the_dendrite_are_no_stronger(self, shared_data):
        found = io.loadmat(shared_data / "dendrite" / "RealDataDend.mat")
        slab = np.exp(-found["sinoRD"].T[:, None] / 1000).astype(np.float32)
        plain = [each for each in default_chain() if each[0] != "stripes_partial"]
        rings = _Dendrite()
        without, with_it = (
            rings._rings(rings._slice(corrected(slab, chain), found["anglesRad"].ravel()))
            for chain in (plain, default_chain())
        )
        assert with_it < 1.02 * without
