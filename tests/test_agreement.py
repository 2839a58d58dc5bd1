from collections import Counter
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from xctpipe import agreement
from xctpipe.agreement import LabelSums, Thing, finding, label_sums, matched, overlap, pieces
from xctpipe.segment.codes import PHASES

CRACK, FILLED, NAK, NASICON, BUBBLE = (
    PHASES[n] for n in ("crack", "crack_filled", "nak", "nasicon", "bubble")
)
CRACKS = (CRACK, FILLED)
SHAPE = (14, 17, 15)


def random_labels(seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    phases = rng.choice([0, NASICON, NAK, CRACK, FILLED, BUBBLE], SHAPE, p=[0.1, 0.4, 0.3, 0.05, 0.05, 0.1])
    objects = np.where(phases > NAK, rng.integers(1, 40, SHAPE), 0)
    return phases.astype(np.uint8), objects.astype(np.uint32)


def a_plate(*, at: int = 7, thick: int = 1) -> tuple[Any, Any]:
    """A crack across NASICON, away from the ends."""
    phases = np.full(SHAPE, NASICON, np.uint8)
    phases[at : at + thick] = CRACK
    return phases, (phases == CRACK).astype(np.int32)


def test_a_volume_agrees_with_itself() -> None:
    labels = random_labels(0)
    sums = label_sums(labels, labels, cracks=CRACKS)
    for code in (NASICON, NAK, BUBBLE):
        assert overlap(sums.confusion, [code]).dice == overlap(sums.confusion, [code]).iou == 1
    assert finding(sums.near) == agreement.Finding(1.0, 1.0, 1.0)
    assert all(i == j for i, j in sums.overlaps)


def test_counts_are_those_of_the_definitions() -> None:
    mine, theirs = random_labels(1), random_labels(2)
    sums = label_sums(mine, theirs, cracks=CRACKS)
    seen = (mine[0] > 0) & (theirs[0] > 0)
    a, b = np.isin(mine[0], CRACKS), np.isin(theirs[0], CRACKS)
    whole = np.ones((3, 3, 3))
    near_b, near_a = ndimage.binary_dilation(b, whole), ndimage.binary_dilation(a, whole)
    expected = [(a & seen).sum(), (a & seen & near_b).sum(), (b & seen).sum(), (b & seen & near_a).sum()]
    assert sums.near.tolist() == expected
    both = ((mine[0] == BUBBLE) & (theirs[0] == BUBBLE)).sum()
    either = (((mine[0] == BUBBLE) | (theirs[0] == BUBBLE)) & seen).sum()
    assert overlap(sums.confusion, [BUBBLE]).iou == pytest.approx(both / either)
    assert sums.confusion.sum() == seen.sum()
    i, j = 5, 9
    assert sums.overlaps[i, j] == ((mine[1] == i) & (theirs[1] == j) & seen).sum()
    assert sums.sizes[i] == ((mine[1] == i) & seen).sum()
    assert sums.reference_sizes[j] == ((theirs[1] == j) & seen).sum()
    assert sums.unseen[j] == ((theirs[1] == j) & ~seen).sum()
    assert sums.hits[i] == ((mine[1] == i) & seen & a & near_b).sum()
    assert sums.reference_hits[j] == ((theirs[1] == j) & seen & b & near_a).sum()


@given(st.sets(st.integers(1, SHAPE[0] - 1)))
def test_cuts_change_no_count(cuts: set[int]) -> None:
    mine, theirs = random_labels(1), random_labels(2)
    edges = [0, *sorted(cuts), SHAPE[0]]
    parts = []
    for first, last in pairwise(edges):
        low, high = max(first - 1, 0), min(last + 1, SHAPE[0])
        slab = [(labels[0][low:high], labels[1][low:high]) for labels in (mine, theirs)]
        inner, ends = (first - low, last - low), (first == 0, last == SHAPE[0])
        parts.append(label_sums(slab[0], slab[1], cracks=CRACKS, inner=inner, ends=ends))
    whole, sums = label_sums(mine, theirs, cracks=CRACKS), reduce(LabelSums.__add__, parts)
    assert np.array_equal(whole.confusion, sums.confusion)
    assert whole.near.tolist() == sums.near.tolist()
    assert (whole.overlaps, whole.hits, whole.unseen) == (sums.overlaps, sums.hits, sums.unseen)
    assert (whole.reference_hits, whole.at_end) == (sums.reference_hits, sums.at_end)


@pytest.mark.parametrize(
    ("shift", "thick", "dice", "f1"),
    [
        (0, 1, 1.0, 1.0),
        # beside one another: no common voxel, all within the tolerance
        (1, 1, 0.0, 1.0),
        (2, 1, 0.0, 0.0),
        # of four layers two are common, and one more on each side is near
        (2, 4, 0.5, 0.75),
        (3, 4, 0.25, 0.5),
    ],
)
def test_a_shifted_plate(shift: int, thick: int, dice: float, f1: float) -> None:
    sums = label_sums(a_plate(at=5 + shift, thick=thick), a_plate(at=5, thick=thick), cracks=CRACKS)
    assert overlap(sums.confusion, CRACKS).dice == pytest.approx(dice)
    assert finding(sums.near).f1 == pytest.approx(f1)


def test_a_thicker_plate_keeps_its_recall_and_loses_precision_beyond_one_voxel() -> None:
    true = a_plate(at=6, thick=1)
    # 1 of 3 layers is true, the others are near; of 5 layers 2 are not
    for grown, precision, dice in ((1, 1.0, 2 / 4), (2, 3 / 5, 2 / 6)):
        sums = label_sums(a_plate(at=6 - grown, thick=1 + 2 * grown), true, cracks=CRACKS)
        found = finding(sums.near)
        assert (found.precision, found.recall) == (pytest.approx(precision), 1.0)
        assert found.f1 == pytest.approx(2 * precision / (1 + precision))
        assert overlap(sums.confusion, CRACKS).dice == pytest.approx(dice)


def test_what_one_side_does_not_see_is_left_out() -> None:
    mine, theirs = a_plate(at=3), a_plate(at=9)
    mine[0][9], theirs[0][3] = 0, 0
    sums = label_sums(mine, theirs, cracks=CRACKS)
    assert finding(sums.near) == agreement.Finding(None, None, None)
    assert overlap(sums.confusion, CRACKS) == agreement.Overlap(None, None, 0, 0)
    assert sums.unseen == Counter({1: SHAPE[1] * SHAPE[2]})
    assert overlap(sums.confusion, [NASICON]).dice == 1


def test_a_crack_that_is_missed_or_made_up_scores_nothing() -> None:
    nothing = a_plate(thick=0)
    assert finding(label_sums(nothing, a_plate(), cracks=CRACKS).near) == agreement.Finding(None, 0.0, 0.0)
    assert finding(label_sums(a_plate(), nothing, cracks=CRACKS).near) == agreement.Finding(0.0, None, 0.0)


def thing(number: int, x: float, *, radius: float = 5.0, family: str = "bubble") -> Thing:
    return Thing(number, family, (0.0, 0.0, x), radius)


def test_objects_are_matched_by_their_largest_share() -> None:
    mine, theirs = [thing(1, 0), thing(2, 0)], [thing(7, 0), thing(8, 0)]
    # 2 and 7 have less in common than 1 and 7 in voxels, but more of what they are
    overlaps = {(1, 7): 60, (1, 8): 140, (2, 7): 50, (1, 0): 300, (0, 8): 10}
    assert matched(mine, theirs, overlaps=overlaps) == {1: 8, 2: 7}
    assert pieces({(1, 7): 60, (2, 7): 50, (3, 7): 10, (3, 8): 20, (0, 7): 9}) == {7: [1, 2], 8: [3]}


def test_objects_without_common_voxels_are_matched_by_place_within_their_size() -> None:
    assert matched([thing(1, 4)], [thing(2, 0), thing(3, 9.5), thing(4, 5)], overlaps={}) == {1: 4}
    assert matched([thing(1, 6)], [thing(2, 0)], overlaps={}) == {}
    assert matched([thing(1, 6)], [thing(2, 0, radius=7)], overlaps={}) == {1: 2}
    assert matched([thing(1, 0)], [thing(2, 0, family="crack")], overlaps={}) == {}
    # an unknown place matches nothing
    assert matched([thing(1, float("nan"))], [thing(2, 0)], overlaps={}) == {}
    assert matched([], [thing(2, 0)], overlaps={}) == {}


@given(st.integers(0, 1000))
def test_the_order_of_lists_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mine = [thing(i, x) for i, x in enumerate(rng.integers(0, 30, 6).tolist(), start=1)]
    theirs = [thing(i, x) for i, x in enumerate(rng.integers(0, 30, 6).tolist(), start=1)]
    overlaps = {(i, j): int(n) for i, j, n in rng.integers(1, 7, (5, 3)).tolist()}
    found = matched(mine, theirs, overlaps=overlaps)
    turned = matched(mine[::-1], theirs[::-1], overlaps=dict(reversed(overlaps.items())))
    assert found == turned
    assert len(set(found.values())) == len(found)
