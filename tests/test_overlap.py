"""Overlaps of label arrays of two scans, and when a voxel was first crack, with known answers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from xctpipe.series import overlap
from xctpipe.series.appearance import coarser, first_appearance
from xctpipe.series.overlap import Grid, add_up, nearest, neighbours, overlaps, sizes, way_between
from xctpipe.series.rigid import Rigid


def grid_of(labels, voxel_um=2.0):
    n_y, n_x = labels.shape[1:]
    return Grid(labels.shape, voxel_um, 11.0, ((n_y - 1) / 2, (n_x - 1) / 2))


def plane(z, shape=(20, 24, 26), number=1):
    labels = np.zeros(shape, np.int32)
    labels[z, 4:20, 5:21] = number
    return labels


def counted(a, b, moved=None):
    way = way_between(grid_of(a), grid_of(b), moved=moved or Rigid())
    return overlaps(a, (0, 0, 0), read=lambda at: b[at], grid=grid_of(b), way=way)


def test_the_way_between_grids_is_that_of_positions():
    a, b = Grid((5, 6, 7), 2.0, 11.0, (2.5, 3.0)), Grid((9, 9, 9), 4.0, -3.0, (4.0, 4.5))
    moved = Rigid((0.1, 0.02, -0.03), (5.0, -7.0, 2.0))
    places = np.random.default_rng(0).uniform(0, 9, (20, 3))
    positions = moved(a.origin_um + places * a.voxel_um)
    np.testing.assert_allclose(
        way_between(a, b, moved=moved)(places), (positions - b.origin_um) / b.voxel_um, atol=1e-9
    )
    turned = Rigid((math.radians(90), 0, 0))([0.0, 0.0, 1.0])
    np.testing.assert_allclose(
        turned, [0, *Rotation.from_euler("z", 90, degrees=True).apply([1, 0, 0])[1::-1]], atol=1e-12
    )


def test_overlaps_of_what_has_not_moved_are_its_voxels():
    labels = np.random.default_rng(1).integers(0, 4, (9, 10, 11)).astype(np.int32)
    found = {(i, j): n for i, j, n in counted(labels, labels).items()}
    assert {(i, i): np.count_nonzero(labels == i) for i in (1, 2, 3)} == found
    assert sizes(labels).items() == [(i, i, found[i, i]) for i in (1, 2, 3)]


@pytest.mark.parametrize("shift_px", [0.3, 0.7, 1.0])
def test_a_thin_crack_that_moves_by_up_to_a_voxel_still_overlaps_fully(shift_px):
    found = counted(plane(8), plane(9), Rigid(shift_um=(2.0 * (1 - shift_px), 0, 0)))
    assert found.items() == [(1, 1, 256)]


def test_a_crack_two_voxels_away_does_not_overlap():
    assert counted(plane(8), plane(10)).items() == []


def test_labels_are_found_where_the_stack_has_moved_to():
    a = np.zeros((30, 40, 40), np.int32)
    a[10:14, 8:12, 25:30], a[20:22, 30:33, 5:9] = 3, 8
    moved = Rigid((math.radians(90), 0, 0), (6.0, 0, 0))
    # x to y: the new y is the old x, the new x the old y from the other side; three voxels down
    b = np.zeros_like(a)
    b[3:] = np.flip(np.swapaxes(a, 1, 2), axis=2)[:-3]
    found = {(i, j): n for i, j, n in counted(a, b, moved).items()}
    assert found == {(3, 3): 80, (8, 8): 24}


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(2, 9)] * 3))
@settings(max_examples=25, deadline=None)
def test_counts_do_not_depend_on_how_the_volume_is_cut(seed, edges):
    rng = np.random.default_rng(seed)
    a, b = ((rng.random((11, 12, 13)) < 0.2) * rng.integers(1, 5, (11, 12, 13)) for _ in range(2))
    a, b = a.astype(np.int32), b.astype(np.int32)
    way = way_between(grid_of(a), grid_of(b), moved=Rigid((0.05, 0.01, 0), (0.7, -1.3, 2.1)))
    whole, parts, beside = (
        counted_by(a, b, way, a.shape),
        counted_by(a, b, way, edges),
        counted_near(a, edges),
    )
    assert whole == parts
    assert counted_near(a, a.shape) == beside


def cuts(shape, edges):
    ranges = [[slice(k, min(k + e, n)) for k in range(0, n, e)] for n, e in zip(shape, edges, strict=True)]
    return [(z, y, x) for z in ranges[0] for y in ranges[1] for x in ranges[2]]


def counted_by(a, b, way, edges):
    return add_up(
        [
            overlaps(a[at], tuple(s.start for s in at), read=lambda at: b[at], grid=grid_of(b), way=way)
            for at in cuts(a.shape, edges)
        ]
    ).items()


def counted_near(a, edges):
    return add_up(
        [
            neighbours(a[at], tuple(s.start for s in at), read=lambda at: a[at], grid=grid_of(a))
            for at in cuts(a.shape, edges)
        ]
    ).items()


def test_neighbours_are_at_most_two_voxels_apart():
    labels = plane(5) + plane(7, number=2) + plane(12, number=3)
    assert {
        (i, j)
        for i, j, _ in neighbours(labels, (0, 0, 0), read=lambda at: labels[at], grid=grid_of(labels)).items()
    } == {
        (1, 2),
        (2, 1),
    }


def test_a_voxel_between_two_is_mapped_the_same_whatever_the_last_bit():
    grid = grid_of(plane(3))
    for tiny in (-1e-12, 0.0, 1e-12):
        way = way_between(grid, grid, moved=Rigid(shift_um=(1.0 + tiny, 0, 0)))
        assert nearest(way, np.array([[4, 4, 4]])).tolist() == [[5, 4, 4]]


def test_the_first_scan_in_which_a_voxel_was_crack():
    a, b, c = (plane(8)[:, :, :], np.zeros((20, 24, 26), np.int32), plane(8, number=4))
    a[:, :, 12:] = 0
    b[10, 4:20, 5:21] = 2  # the stack has moved two voxels down; what opened is gone again in c
    b[10, 4:20, 18:] = 0
    c[:, :, :8], c[14] = 0, 9
    moves = [Rigid(), Rigid(shift_um=(4.0, 0, 0)), Rigid()]
    labels, grid = [a, b, c], grid_of(a)
    ways = [way_between(grid, grid, moved=each) for each in moves]
    expected = np.zeros(a.shape, np.uint8)
    expected[8, 4:20, 5:21] = 3
    expected[8, 4:20, 5:18] = 2
    expected[8, 4:20, 5:12] = 1

    def made(where):
        return first_appearance(
            where,
            reads=[lambda at, own=own: own[at] for own in labels],
            grids=[grid] * 3,
            ways=ways,
            cracks=[frozenset({1}), frozenset({2}), frozenset({4})],
        )

    np.testing.assert_array_equal(made(tuple(slice(0, n) for n in a.shape)), expected)
    for edges in ((3, 5, 7), (20, 8, 26)):
        for at in cuts(a.shape, edges):
            np.testing.assert_array_equal(made(at), expected[at])


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 6)] * 3))
@settings(max_examples=20, deadline=None)
def test_a_coarser_voxel_has_the_earliest_of_its_numbers(seed, shape):
    numbers = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    out = coarser(numbers)
    for place in np.ndindex(out.shape):
        part = numbers[tuple(slice(2 * k, 2 * k + 2) for k in place)]
        assert out[place] == min(part[part > 0], default=0)


def test_nothing_to_add_up_is_nothing():
    assert overlap.add_up([]).items() == []


def test_scans_beyond_those_that_have_a_number_share_the_last():
    labels = plane(8)
    grid = grid_of(labels)
    numbers = first_appearance(
        tuple(slice(0, n) for n in labels.shape),
        reads=[lambda at: labels[at]] * 300,
        grids=[grid] * 300,
        ways=[way_between(grid, grid, moved=Rigid())] * 300,
        cracks=[frozenset()] * 299 + [frozenset({1})],
    )
    np.testing.assert_array_equal(numbers, 255 * labels)
