"""Contact of an interface with caps of balls on it, whose sections are known in closed form."""

import math
from itertools import pairwise

import numpy as np
import pytest

from xctpipe.measure import contact
from xctpipe.measure.caps import cap_section, fit_caps
from xctpipe.measure.faces import nak_height, real_area_um2

SIDE = 160
MU = 0.224
HEIGHT = 30.37
AXIS = (79.5, 79.5)


def caps_block(caps, *, noise, side=1, seed=1):
    """Block (z, y, x) of NaK with caps (y, x, base, height) on an interface, and the NaK alone."""
    z, y, x = np.indices((34, SIDE, SIDE))
    d = (HEIGHT - z)[..., None] + (np.arange(4) - 1.5) / 4
    void = np.zeros(z.shape)
    for cy, cx, base, height in caps:
        at = np.s_[:, int(cy - 20) : int(cy + 21), int(cx - 20) : int(cx + 21)]
        ball = (base**2 + height**2) / (2 * height)
        square = base**2 - 2 * d[at] * (ball - height) - d[at] ** 2
        away = np.hypot(y[at] - cy, x[at] - cx)[..., None]
        share = np.clip(np.sqrt(np.maximum(square, 0)) - away + 0.5, 0, 1) * (d[at] > 0) * (square > 0)
        void[at] += share.mean(axis=-1)
    expected = np.full(z.shape, MU + 0.06, np.float32)
    grey = expected - MU * void + np.random.default_rng(seed).normal(0, noise, z.shape)
    if side < 0:
        grey, expected = grey[::-1], expected[::-1]
    return grey.astype(np.float32), expected


def band_of(grey, expected, *, cuts=(0, 34), side=1, blind_px=2.0):
    band = contact.new_band((SIDE, SIDE))
    height = np.full((SIDE, SIDE), HEIGHT if side > 0 else 33 - HEIGHT, np.float32)
    for first, end in pairwise(cuts):
        contact.add_to_band(
            band,
            grey[first:end],
            expected=expected[first:end],
            height_px=height,
            first_row=first,
            side=side,
            mu_cm1=MU,
            blind_px=blind_px,
        )
    return band


def measured(band, **changes):
    inside = contact.chamber_columns((SIDE, SIDE), axis_px=AXIS, view_px=78.0)
    return contact.measure_contact(band, inside=inside, axis_px=AXIS, voxel_um=10.0, **changes), inside


CAPS = [(40.3, 60.1, 9.0, 7.2), (100.7, 50.2, 12.0, 9.0), (90.0, 110.4, 7.0, 6.3), (60.2, 105.5, 10.0, 5.0)]
BLOCKED = sum(math.pi * cap[2] ** 2 for cap in CAPS)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("blind_px", [1.0, 2.0])
def test_blocked_area_is_that_at_the_interface_not_at_the_blind_zone(side, blind_px):
    grey, nak = caps_block(CAPS, noise=0.05, side=side)
    found, inside = measured(band_of(grey, nak, side=side, blind_px=blind_px), blind_px=blind_px)
    true = 1 - BLOCKED / inside.sum()
    assert found.n_voids == len(CAPS)
    assert found.contact_frac == pytest.approx(true, abs=0.005)
    assert found.contact_frac_low < true < found.contact_frac_high
    assert found.footprint_um2 < 0.97 * BLOCKED * 100
    assert found.area_um2 == inside.sum() * 100


def test_classes_are_contact_void_or_undetermined_inside_and_unknown_beyond():
    grey, nak = caps_block(CAPS, noise=0.05)
    found, inside = measured(band_of(grey, nak))
    for y, x, *_ in CAPS:
        assert found.classes[round(y), round(x)] == contact.VOID
    assert (found.classes[~inside] == contact.UNKNOWN).all()
    assert (found.classes[inside] == contact.CONTACT).mean() > 0.85


def test_a_little_more_noise_does_not_change_what_the_map_shows_of_voids():
    shown = []
    for noise in (0.5, 0.6, 0.7, 0.8):
        grey, nak = caps_block(CAPS, noise=noise)
        found, _ = measured(band_of(grey, nak))
        shown.append((found.classes == contact.VOID).sum())
    assert all(late > 0.75 * early for early, late in pairwise(shown))


def test_nothing_is_found_where_there_is_nothing():
    for seed in range(5):
        grey, nak = caps_block([], noise=0.3, seed=seed)
        found, _ = measured(band_of(grey, nak))
        assert (found.n_voids, found.contact_frac) == (0, 1.0)


def test_rings_are_no_voids():
    grey, nak = caps_block(CAPS[:1], noise=0.05)
    r = np.hypot(*(np.indices((SIDE, SIDE)) - np.reshape(AXIS, (2, 1, 1))))
    grey = grey - (0.1 * np.exp(-0.5 * ((r - 55) / 4) ** 2)).astype(np.float32)
    assert measured(band_of(grey, nak))[0].n_voids == 1


def test_half_balls_of_the_limit_are_found_and_smaller_ones_are_not():
    grey, nak = caps_block([], noise=0.3)
    limit = measured(band_of(grey, nak))[0].limit_radius_um / 10.0
    # few, and not on one ring: many voids raise the noise that the limit was made from
    places = [(40, 62), (70, 118), (108, 44), (126, 90), (84, 76)]
    hits = dict.fromkeys((0.6, 1.0, 1.2), 0)
    for share in hits:
        for seed in range(4):
            caps = [(y, x, share * limit, share * limit) for y, x in places]
            grey, nak = caps_block(caps, noise=0.3, seed=seed)
            hits[share] += measured(band_of(grey, nak))[0].n_voids
    assert hits[1.2] == 20
    assert hits[1.0] >= 16
    assert hits[0.6] < 4


def test_a_band_is_the_same_from_any_blocks():
    grey, nak = caps_block(CAPS, noise=0.1)
    grey[25, 40, 40] = np.nan
    whole = band_of(grey, nak)
    assert np.array_equal(whole, band_of(grey, nak, cuts=(0, 7, 19, 27, 28, 34)))
    assert np.isfinite(whole).all()


def test_the_chamber_bounds_the_area():
    chamber = contact.chamber_columns((SIDE, SIDE), axis_px=AXIS, view_px=78.0, chamber=(90.0, 70.0, 50.0))
    assert chamber.sum() == pytest.approx(math.pi * 50**2, rel=0.01)
    assert not chamber[10, 70]


def test_sections_of_half_a_ball_and_of_a_flat_cap():
    d = np.array([-0.5, 0.0, 3.0, 9.9, 10.1])
    half = cap_section(d, base_px=np.array(10.0), cosine=np.array(0.0))
    assert half == pytest.approx([0, 100 * math.pi, 91 * math.pi, 1.99 * math.pi, 0])
    # R = 13, base 12, height 8
    flat = cap_section(np.array([0.0, 4.0, 8.01]), base_px=np.array(12.0), cosine=np.array(5 / 13))
    assert flat == pytest.approx([144 * math.pi, 88 * math.pi, 0])


def test_voids_that_are_seen_well_say_what_the_others_are():
    d = np.arange(2.0, 12.0)
    cosine, bases = 0.35, np.array([14.0, 12.0, 10.0, 9.0, 5.0])
    true = np.stack([cap_section(d, base_px=np.array(a), cosine=np.array(cosine)) for a in bases])
    sigma = np.full_like(true, 8.0)
    caps = fit_caps(true, sigma_px2=sigma, distance_px=d, blur_px=0.01)
    assert caps.cosine == pytest.approx(cosine, abs=0.1)
    assert caps.area_px2[:4] == pytest.approx(math.pi * bases[:4] ** 2, rel=0.03)
    assert np.abs(caps.area_px2 - math.pi * bases**2)[4] < 2 * caps.area_sigma_px2[4]
    assert fit_caps(true[:0], sigma_px2=sigma[:0], distance_px=d, blur_px=0.7).total_sigma_px2 == 0


def test_area_of_a_tilted_face_is_that_of_the_plane():
    y, x = np.indices((50, 60))
    inside = np.ones(y.shape, np.bool_)
    area = real_area_um2((0.3 * y - 0.4 * x).astype(np.float32), inside=inside, voxel_um=2.0)
    assert area == pytest.approx(3000 * 4 * math.sqrt(1.25), rel=1e-5)


def test_height_of_nak_between_two_tilted_faces():
    y, x = np.indices((50, 60))
    top = (10 + 0.1 * y).astype(np.float32)
    bottom = (60 + 0.1 * y + 0.01 * (x - 29.5)).astype(np.float32)
    inside = np.ones(y.shape, np.bool_)
    inside[0] = False
    bottom[1, 1] = np.nan
    found = nak_height(bottom, collector_px=top, inside=inside, voxel_um=2.0, sigma_px=(0.03, 0.04))
    assert found.mean_um == pytest.approx(100.0, abs=0.01)
    assert found.mean_sigma_um == pytest.approx(0.1)
    assert found.p05_um < found.median_um < found.p95_um
