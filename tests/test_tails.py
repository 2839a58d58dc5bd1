"""What phase retrieval leaves of faces, against the retrieval itself, and how it is made up for."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import fft, ndimage
from test_measures import MU, SEEN_BLUR, VOXEL_UM, Sample, crack_mask, rendered

from xctpipe.measure.registry import gather_block, merge, table_of
from xctpipe.recipe import make_recipe
from xctpipe.segment.expected import expected
from xctpipe.segment.scene import COLLECTOR, COUNTER, LIQUID, SOLID, Level, Scene, Surface
from xctpipe.segment.tails import tail_at
from xctpipe.segment.view import whole_box
from xctpipe.sight import left_of_faces, without_fringes

LENGTH_PX = 3.6
RETRIEVED = 350.0
LAYERS = (
    ("collector", 0.545, 1256.0),
    ("interface", 0.224, 1004.0),
    ("counter", 2.332, 350.0),
    ("", 0.174, 1400.0),
)
"""Attenuation (cm^-1) and ratio of refraction and absorption at 80 keV, and the face behind each layer."""
HEIGHTS = {"collector": 38.4, "interface": 80.7, "counter": 130.2}
N = 170


def retrieved_rows(*, blur_px):
    """Rows of a stack of layers with fringes of propagation, retrieved with one ratio for all of them.

    In the linear regime: mu - L^2 (r / R) mu'' with each layer's own r, divided by 1 + L^2 k^2. Values beyond
    the ends are mirrored.
    """
    fine = 8
    z = (np.arange(N * fine) + 0.5) / fine - 0.5
    edges = [-np.inf, *HEIGHTS.values(), np.inf]
    mu, refraction = np.zeros(len(z)), np.zeros(len(z))
    for (_, level, ratio), low, high in zip(LAYERS, edges[:-1], edges[1:], strict=True):
        mu[(z > low) & (z <= high)], refraction[(z > low) & (z <= high)] = level, level * ratio / RETRIEVED
    k2 = (math.pi * np.arange(len(z)) / N) ** 2
    mixed = fft.dct(mu) + LENGTH_PX**2 * k2 * fft.dct(refraction)
    out = fft.idct(mixed / (1 + LENGTH_PX**2 * k2) * np.exp(-0.5 * k2 * blur_px**2))
    return out.reshape(N, fine).mean(axis=1)


def shares():
    """Share of the step at each face that is left blurred."""
    out = {}
    for (name, low, below), (_, high, above) in pairwise(LAYERS):
        out[name] = 1 - (high * above - low * below) / (high - low) / RETRIEVED
    return out


def scene_of_rows(tails):
    flat = {
        name: Surface(np.full((4, 4), z, np.float32), np.array([z, 0, 0]), 0.1, 0.1)
        for name, z in HEIGHTS.items()
    }
    levels = {
        host: Level(mu, np.zeros(1), np.zeros(1), 0.1)
        for host, (_, mu, _) in zip((COLLECTOR, LIQUID, SOLID, COUNTER), LAYERS, strict=True)
    }
    seen = math.hypot(0.7, math.sqrt(1 / 12))
    return Scene(
        (N, 4, 4), 1.0, (1.5, 1.5), 9.0, "nak", flat, levels[SOLID], levels[LIQUID], seen,
        other_levels={host: levels[host] for host in (COLLECTOR, COUNTER)},
        tail_fracs=tails, tail_px=LENGTH_PX,
    )  # fmt: skip


def test_expected_rows_are_those_that_retrieval_makes_of_layers():
    rows = retrieved_rows(blur_px=0.7)
    plain, tailed = (expected(scene_of_rows(t), whole_box(scene_of_rows(t)))[:, 1, 1] for t in ({}, shares()))
    away = abs(np.arange(N)[:, None] - np.array(list(HEIGHTS.values()))).min(axis=1)
    inner = (away > 2.5) & (np.arange(N) > 3) & (np.arange(N) < N - 4)
    assert abs(plain - rows)[inner].max() > 0.1
    np.testing.assert_allclose(tailed[inner], rows[inner], atol=0.005)


def test_shares_follow_from_the_materials():
    recipe = make_recipe(
        {
            "name": "x",
            "run_folder": "x",
            "raw": {"folder": ".", "energy_kev": 80.0, "pixel_um": 2.6, "distance_mm": 100.0},
            "phase": {"delta_beta": RETRIEVED},
        },
        base=Path(),
    )
    length_um, fracs = left_of_faces(recipe)
    assert length_um == pytest.approx(math.sqrt(0.15498e-4 * 1e5 * RETRIEVED / (4 * math.pi)), rel=1e-3)
    for name, frac in shares().items():
        assert fracs[name] == pytest.approx(frac, abs=0.02 * (1 + abs(frac))), name


def test_a_tail_is_the_step_blurred_less_the_step():
    d = np.arange(-4000, 4001) / 100
    sharp = -np.sign(d) * np.exp(-abs(d) / LENGTH_PX) / 2
    direct = ndimage.gaussian_filter1d(sharp, 80.0, truncate=6.0)
    np.testing.assert_allclose(
        tail_at(d, length_px=LENGTH_PX, blur_px=0.8)[600:-600], direct[600:-600], atol=1e-4
    )


def test_rows_of_fringes_read_what_their_layer_does():
    edge = np.array([0.23, 0.22, 0.21, -4.0, 7.8, 5.0, 2.4, 2.4, 2.3, 2.2, 9.0, -5.0, 0.17])
    mass = np.array([0.2, 0.3, 0.4, 0.7, 1.9, 2.1, 2.2, 2.2, 2.2, 2.1, 1.9, 0.6, 0.3])
    got = without_fringes(edge, retrieved_cm1=mass, mu_cm1=(2.33, 0.224))
    np.testing.assert_allclose(got, [0.23, 0.22, 0.22, 0.22, 2.4, 2.4, 2.4, 2.4, 2.3, 2.3, 2.3, 0.6, 0.3])


def blurred_crack(opening, *, frac):
    """A sheet of metal in NASICON, of which retrieval left a share blurred; and its volume in voxels."""
    shape = (72, 96, 96)

    def inside(z, y, x):
        return (abs(z - 35.3) < opening / 2) & ((y - 47.6) ** 2 + (x - 47.2) ** 2 < 24**2)

    gone = rendered(shape, inside)
    k2 = sum((2 * math.pi * f) ** 2 for f in np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij"))
    left = np.fft.ifftn(np.fft.fftn(gone) / (1 + LENGTH_PX**2 * k2)).real
    metal = 1 - MU[LIQUID] / MU[SOLID]
    return gone, metal * ((1 - frac) * gone + frac * left), float(gone.sum())


@pytest.mark.parametrize("opening", [2.0, 4.0])
def test_metal_that_retrieval_left_blurred_is_weighed_whole(opening):
    frac = 0.2
    gone, seen, volume = blurred_crack(opening, frac=frac)
    sample = Sample(seen, crack_mask(gone), {1: "crack"})
    errors = []
    for tails, length in (({}, 0.0), ({"interface": frac}, LENGTH_PX)):
        scene = replace(sample.context.scene, tail_fracs=tails, tail_px=length, blur_px=SEEN_BLUR)
        sample.context = replace(sample.context, scene=scene)
        part = merge(gather_block(region) for region in sample.regions(gone.shape))
        # what a crack holds is found from what was gathered
        found = replace(sample.context.objects, kinds=np.array(["crack_filled"]))
        table = table_of(part, replace(sample.context, objects=found))
        errors.append(table["volume_um3"][0] / VOXEL_UM**3 / volume - 1)
    assert errors[0] < -0.04
    assert abs(errors[1]) < 0.03


def test_tables_of_what_is_left_blurred_do_not_depend_on_how_the_volume_is_cut():
    gone, seen, _ = blurred_crack(3.0, frac=0.2)
    sample = Sample(seen, crack_mask(gone), {1: "crack_filled"}, sigma=0.1)
    scene = replace(sample.context.scene, tail_fracs={"interface": 0.2}, tail_px=LENGTH_PX)
    sample.context = replace(sample.context, scene=scene)
    whole, parts = sample.table(), sample.table((37, 40, 50))
    for name, column in whole.items():
        np.testing.assert_array_equal(column, parts[name], err_msg=name)
