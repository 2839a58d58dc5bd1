"""Percolation of cracks whose ways and openings are known."""

import numpy as np
import pytest

from xctpipe.measure.percolation import CrackVoxels, percolation_of
from xctpipe.measure.regions import Context, inventory_of
from xctpipe.segment.scene import Level, Scene, Surface

VOXEL_UM = 2.0
SHAPE = (40, 60, 40)


def context(labels, kinds):
    flat = np.ones(SHAPE[1:], np.float32)
    faces = {
        "interface": Surface(flat * 4.5, np.array([4.5, 0, 0]), 0.1, 0.1),
        "counter": Surface(flat * 34.5, np.array([34.5, 0, 0]), 0.1, 0.1),
    }
    levels = [Level(mu, np.zeros(1), np.zeros(1), 0.1) for mu in (2.332, 0.224)]
    scene = Scene(SHAPE, VOXEL_UM, (20.0, 20.0), 1e3, "nak", faces, *levels, 0.8)
    return Context(scene, inventory_of(labels, kinds))


def result(labels, opening, kind="crack"):
    places = np.argwhere(labels)
    order = np.random.default_rng(0).permutation(len(places))
    at = tuple(places.T)
    voxels = CrackVoxels(places[order], labels[at][order], opening[at][order])
    return percolation_of(voxels, context(labels, dict.fromkeys(range(1, 9), kind)))


def plate():
    labels = np.zeros(SHAPE, np.int32)
    labels[5:35, 20, 5:35] = 1
    return labels, np.full(SHAPE, 2.0)


def test_a_straight_crack():
    (one,) = result(*plate())
    assert one.percolates
    assert one.bottleneck_um == pytest.approx(4)
    assert one.path_um == pytest.approx(29 * VOXEL_UM, rel=0.1)
    assert one.tortuosity == pytest.approx(1, abs=0.02)


def test_the_widest_way_decides_and_its_narrowest_place():
    labels, opening = plate()
    opening[18:20] = 0.5
    opening[18:20, :, 30:33] = 1.5
    opening[25, :, 5:20] = 0.1
    assert result(labels, opening)[0].bottleneck_um == pytest.approx(3)


def test_metal_openings_are_larger():
    (one,) = result(*plate(), kind="crack_filled")
    assert one.bottleneck_um == pytest.approx(4 / (1 - 0.224 / 2.332))


def test_a_gap_of_one_voxel_closes_it():
    labels, opening = plate()
    labels[20] = 0
    (one,) = result(labels, opening)
    assert not one.percolates
    assert np.isnan(one.bottleneck_um)


def test_voxels_that_meet_at_a_corner_are_linked():
    labels = np.zeros(SHAPE, np.int32)
    for i in range(30):
        labels[5 + i, 5 + i, 5 + i] = 3
    (one,) = result(labels, np.ones(SHAPE))
    assert one.percolates
    assert one.path_um == pytest.approx(29 * np.sqrt(3) * VOXEL_UM, rel=0.05)
    assert one.tortuosity == pytest.approx(1, abs=0.01)


def test_the_first_row_of_voxels_is_no_neighbour_of_the_last():
    """A crack at both ends of neighbouring rows, whose flat indices are next to each other."""
    labels = np.zeros(SHAPE, np.int32)
    labels[5:20, 10, 39] = 1
    labels[19:35, 11, 0] = 1
    assert not result(labels, np.ones(SHAPE))[0].percolates


def test_a_detour_is_longer():
    labels = np.zeros(SHAPE, np.int32)
    labels[5:20, 10, 20], labels[19:35, 40, 20], labels[19, 10:41, 20] = 1, 1, 1
    (one,) = result(labels, np.ones(SHAPE))
    length, straight = (14 + 30 + 15), np.hypot(29, 30)
    assert one.tortuosity == pytest.approx(length / straight, rel=0.08)


def test_slanted_ways_are_not_read_as_staircases():
    """Grid paths are up to 13 % too long, 8 % where the way lies in a plane."""
    labels = np.zeros(SHAPE, np.int32)
    z = np.arange(5, 35)
    labels[z, np.rint(5 + 1.6 * (z - 5)).astype(int), 20] = 1
    labels[z, np.rint(5 + 1.6 * (z - 5)).astype(int) - 1, 20] = 1
    (one,) = result(labels, np.ones(SHAPE))
    assert one.tortuosity == pytest.approx(1, abs=0.06)


def test_two_objects_are_told_apart():
    labels, opening = plate()
    labels[5:20, 45, 5:35] = 2
    one, two = result(labels, opening)
    assert (one.percolates, two.percolates) == (True, False)
