"""Tracks and events from scripted tables, with known answers."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xctpipe.series.assignment import assign
from xctpipe.series.events import events_of
from xctpipe.series.things import Thing
from xctpipe.series.tracks import link, networks

ALL = frozenset(range(9))
BALL = 4 / 3 * math.pi


def ball(scan, number, place=(0.0, 0.0, 0.0), *, radius=10.0, error=0.02, **more):
    volume = BALL * radius**3
    values = {
        "kind": "bubble",
        "low_um3": volume * (1 - 1.96 * error),
        "high_um3": volume * (1 + 1.96 * error),
        "voxels": round(volume),
        "sphericity": 1.0,
        "elongation": 1.0,
        "in_view": ALL,
    }
    return Thing(scan, number, place_um=place, volume_um3=volume, **{**values, **more})


def crack(scan, number, place=(0.0, 0.0, 0.0), *, area=1e4, opening=2.0, error=0.05, **more):
    volume = area * opening
    values = {
        "kind": "crack",
        "low_um3": volume * (1 - error),
        "high_um3": volume * (1 + 2 * error),
        "voxels": round(volume),
        "area_um2": area,
        "opening_um": opening,
        "in_view": ALL,
    }
    return Thing(scan, number, place_um=place, volume_um3=volume, **{**values, **more})


def followed(scans, pairs=None, **more):
    """Tracks and events; objects of the same number overlap fully unless pairs say otherwise."""
    if pairs is None:
        pairs = []
        for before, after in pairwise(scans):
            numbers = {each.object: each.voxels for each in after}
            shared = [each for each in before if each.object in numbers]
            pairs.append({(e.object, e.object): min(e.voxels, numbers[e.object]) for e in shared})
    tracks = link(scans, pairs, **more)
    return tracks, events_of(tracks, n_scans=len(scans))


def told(events):
    return [(e.kind, e.scan_from, e.scan_to, e.tracks) for e in events]


def members(tracks):
    return {frozenset((thing.scan, thing.object) for thing in track.things) for track in tracks}


def test_a_series_without_scans_or_objects_has_neither_tracks_nor_events():
    for scans in ([], [[]], [[], [], []]):
        tracks, events = followed(scans)
        assert tracks == []
        assert events == []


def test_of_one_scan_every_object_is_a_track_and_nothing_happened():
    tracks, events = followed([[ball(0, 1), crack(0, 2), ball(0, 3, kind="pore")]])
    assert members(tracks) == {frozenset({(0, n)}) for n in (1, 2, 3)}
    assert events == []
    assert tracks[-1].things[0].kind == "pore"


def test_a_bubble_that_grows_keeps_its_track():
    radii = (10, 14, 20, 30)
    tracks, events = followed([[ball(t, 7, radius=r)] for t, r in enumerate(radii)])
    assert members(tracks) == {frozenset((t, 7) for t in range(4))}
    assert events == []


def test_two_that_become_one_merge_and_the_merged_one_is_last():
    parts = [ball(0, 1), ball(0, 2, (0, 30, 0))]
    whole = ball(1, 1, (0, 15, 0), radius=10 * 2 ** (1 / 3))
    n = parts[0].voxels
    tracks, events = followed(
        [parts, [whole], [replace(whole, scan=2)]], [{(1, 1): n, (2, 1): n}, {(1, 1): 2 * n}]
    )
    assert told(events) == [("merge", 0, 1, (1, 2, 3))]
    assert events[0].adds_up
    assert events[0].parts_um3 == pytest.approx(events[0].volume_um3)
    assert [len(track.things) for track in tracks] == [1, 1, 2]


def test_volumes_of_a_merge_that_do_not_add_up_are_called_so():
    parts = [ball(0, 1), ball(0, 2, (0, 30, 0))]
    whole = ball(1, 1, (0, 15, 0), radius=15)
    _, events = followed([parts, [whole]], [{(1, 1): parts[0].voxels, (2, 1): parts[1].voxels}])
    assert told(events) == [("merge", 0, 1, (1, 2, 3))]
    assert events[0].adds_up is False


def test_two_that_only_touch_are_no_merge_and_part_again_without_an_event():
    def apart(t):
        return [ball(t, 1, radius=11), ball(t, 2, (0, 30, 0))]

    # two equal balls side by side have 2^(-1/3) of the sphericity of one
    both = ball(1, 5, (0, 15, 0), radius=10 * 2 ** (1 / 3), sphericity=0.79, elongation=0.4)
    n, m = (each.voxels for each in apart(0))
    to, back = {(1, 5): n, (2, 5): m}, {(5, 1): n, (5, 2): m}
    tracks, events = followed([apart(0), [both], apart(2), apart(3)], [to, back, {(1, 1): n, (2, 2): m}])
    assert events == []
    assert members(tracks) == {
        frozenset({(0, 1), (1, 5), (2, 1), (3, 1)}),
        frozenset({(0, 2), (2, 2), (3, 2)}),
    }
    assert tracks[0].joined == {(1, 5)}


def test_what_stays_joined_is_said_to_be_so_in_every_scan():
    apart = [ball(0, 1, radius=11), ball(0, 2, (0, 30, 0))]
    both = [ball(t, 5, (0, 15, 0), radius=12.6, sphericity=0.79, elongation=0.4) for t in (1, 2)]
    n, m = (each.voxels for each in apart)
    tracks, events = followed([apart, [both[0]], [both[1]]], [{(1, 5): n, (2, 5): m}, {(5, 5): n}])
    assert events == []
    assert tracks[0].joined == {(1, 5), (2, 5)}


def test_balls_that_touched_from_the_start_merge_when_they_become_round():
    radius = 10 * 2 ** (1 / 3)
    pair = [ball(t, 1, radius=radius, sphericity=0.78, elongation=0.38) for t in (0, 1)]
    one = [ball(t, 1, radius=radius) for t in (2, 3)]
    _, events = followed([[each] for each in (*pair, *one)])
    assert told(events) == [("merge", 1, 2, (1, 2))]
    _, events = followed([[each] for each in (*pair, replace(one[0], volume_um3=2 * one[0].volume_um3))])
    assert events == []


def test_one_that_becomes_two_splits():
    whole, parts = ball(0, 1, radius=10 * 2 ** (1 / 3)), [ball(1, 1), ball(1, 2, (0, 30, 0))]
    n = parts[0].voxels
    tracks, events = followed([[whole], parts], [{(1, 1): n, (1, 2): n}])
    assert told(events) == [("split", 0, 1, (1, 2, 3))]
    assert events[0].adds_up
    assert len(tracks) == 3


def test_what_is_missed_once_is_the_same_and_neither_died_nor_was_born():
    here = (5.0, 40.0, -3.0)
    scans = [[ball(0, 1, here)], [], [ball(2, 4, (6.0, 40.5, -3.0))], [ball(3, 4, here)]]
    tracks, events = followed(scans)
    assert members(tracks) == {frozenset({(0, 1), (2, 4), (3, 4)})}
    assert events == []


def test_a_bubble_that_jumps_is_found_again_and_one_of_another_volume_is_not():
    far = (0.0, 0.0, 35.0)
    tracks, events = followed([[ball(0, 1)], [ball(1, 2, far)], [ball(2, 2, far)]])
    assert len(tracks) == 1
    assert events == []
    tracks, _ = followed([[ball(0, 1)], [ball(1, 2, far, radius=16)], [ball(2, 2, far, radius=16)]])
    assert len(tracks) == 2


def test_birth_and_death_are_told_of_what_is_beyond_doubt():
    stays = [ball(t, 1, (0, 300, 0)) for t in range(4)]
    comes = [[], [ball(1, 2)], [ball(2, 2)], [ball(3, 2)]]
    _, events = followed([[a, *b] for a, b in zip(stays, comes, strict=True)])
    assert told(events) == [("birth", 0, 1, (2,))]
    goes = [[ball(0, 2)], [ball(1, 2)], [], []]
    _, events = followed([[a, *b] for a, b in zip(stays, goes, strict=True)])
    assert told(events) == [("death", 1, 2, (1,))]


@pytest.mark.parametrize(
    "more",
    [
        {"error": 0.3},
        {"truncated": True},
        {"in_view": frozenset({1, 2})},
        {"kind": "interfacial_void", "limit_um3": 1e4},
        {"kind": "pore"},
        {"kind": "inclusion"},
        {"kind": "unresolved"},
        {"sphericity": 0.3},
    ],
)
def test_nothing_is_invented_of(more):
    _, events = followed([[], [ball(1, 1, **more)], [ball(2, 1, **more)], []])
    assert events == []


def test_what_is_seen_in_one_scan_of_several_is_no_event():
    assert followed([[], [ball(1, 1)], [], []])[1] == []
    assert told(followed([[], [], [ball(2, 1, error=0.02)]])[1]) == [("birth", 1, 2, (1,))]
    assert followed([[], [], [ball(2, 1, error=0.15)]])[1] == []


def test_a_crack_that_starts_too_thin_to_be_sure_of_is_born_when_first_seen():
    openings = (0.4, 2.0, 3.0)
    scans = [[], *([crack(t, 1, opening=w)] for t, w in enumerate(openings, start=1))]
    assert told(followed(scans)[1]) == [("birth", 0, 1, (1,))]
    thin = [[], *([crack(t, 1, opening=0.4)] for t in (1, 2, 3))]
    assert followed(thin)[1] == []


def test_a_crack_that_fills_is_the_same_and_fills_once():
    kinds = ("crack", "crack_filled", "crack", "crack_filled")
    tracks, events = followed([[crack(t, 1, kind=kind)] for t, kind in enumerate(kinds)])
    assert len(tracks) == 1
    assert told(events) == [("fill", 0, 1, (1,))]
    assert events[0].filling_um3 == pytest.approx(2e4)
    fills = ("", "metal", "void", "metal")
    scans = [[crack(t, 1, kind=k, fill=f)] for t, (k, f) in enumerate(zip(kinds, fills, strict=True))]
    assert [e.kind for e in followed(scans)[1]] == ["fill", "fill"]


@pytest.mark.parametrize(
    ("after", "closing", "filling", "contrast"),
    [
        ({"opening": 1.0}, 1e4, 0.0, 0.0),
        ({"area": 5e3}, 0.0, 0.0, 1e4),
        ({"area": 5e3, "opening": 1.0}, 5e3, 0.0, 1e4),
        ({"area": 5e3, "kind": "crack_filled"}, 0.0, 1e4, 0.0),
    ],
)
def test_what_a_crack_lost_is_split(after, closing, filling, contrast):
    _, events = followed([[crack(0, 1)], [crack(1, 1, **after)]])
    shrink = next(e for e in events if e.kind == "shrink")
    assert (shrink.closing_um3, shrink.filling_um3, shrink.contrast_um3) == pytest.approx(
        (closing, filling, contrast)
    )
    assert shrink.volume_um3 == pytest.approx(closing + filling + contrast)


def test_a_crack_smaller_within_its_bounds_or_cut_by_the_view_did_not_shrink():
    assert followed([[crack(0, 1)], [crack(1, 1, opening=1.9)]])[1] == []
    events = followed([[crack(0, 1)], [crack(1, 1, opening=1.0, truncated=True)]])[1]
    assert told(events) == [("truncation", 0, 1, (1,))]


def test_pieces_of_a_crack_are_one_network_and_joining_and_parting_is_no_news():
    whole = [crack(0, 1, area=2e4)]
    pieces = [crack(1, 1), crack(1, 2, (0, 90, 0))]
    again = [crack(2, 3, area=2e4)]
    n = pieces[0].voxels
    scans, pairs = [whole, pieces, again], [{(1, 1): n, (1, 2): n}, {(1, 3): n, (2, 3): n}]
    tracks, events = followed(scans, pairs)
    assert events == []
    assert len(tracks) == 1
    assert networks(tracks) == {1: 1}


def test_a_piece_that_touches_a_crack_belongs_to_it():
    scans = [[crack(0, 1)], [crack(1, 1), crack(1, 2, (0, 500, 0))], [crack(2, 1), crack(2, 2, (0, 500, 0))]]
    tracks, events = followed(scans, touching=[{}, {(1, 2): 3, (2, 1): 3}, {(1, 2): 3, (2, 1): 3}])
    assert len(tracks) == 1
    assert events == []
    tracks, events = followed(scans)
    assert len(tracks) == 2
    assert told(events) == [("birth", 0, 1, (2,))]


def test_two_cracks_that_meet_merge_and_are_one_network():
    apart = [crack(0, 1), crack(0, 2, (0, 300, 0))]
    n = apart[0].voxels
    scans = [apart, [crack(1, 1, area=2e4)]]
    tracks, events = followed(scans, [{(1, 1): n, (2, 1): n}])
    assert told(events) == [("merge", 0, 1, (1, 2, 3))]
    assert networks(tracks) == {1: 1, 2: 1, 3: 1}


def test_a_crack_percolates_once_and_a_chip_lifts_towards_the_nak():
    scans = [[crack(t, 1, percolates=t > 0)] for t in range(3)]
    assert told(followed(scans)[1]) == [("percolate", 0, 1, (1,))]
    heights = (0.0, 3.0, -4.0, -4.5, 1.0)
    scans = [[ball(t, 1, (z, 0, 0), kind="chip")] for t, z in enumerate(heights)]
    assert told(followed(scans)[1]) == [("chip", 1, 2, (1,))]
    tracks = link(scans, [{(1, 1): 4000}] * 4)
    ups = [(e.kind, e.scan_from) for e in events_of(tracks, n_scans=5, up=1)]
    assert ups == [("chip", 0), ("chip", 3)]


def test_a_bubble_that_crosses_the_rim_of_the_view():
    scans = [[ball(t, 1, truncated=t == 1)] for t in range(3)]
    assert told(followed(scans)[1]) == [("truncation", 0, 1, (1,)), ("truncation", 1, 2, (1,))]


def test_the_least_sum_of_costs_is_chosen_and_pairs_without_cost_are_none():
    assert assign({}) == {}
    assert assign({(1, 1): 0.1, (1, 2): 0.2, (2, 1): 0.15}) == {1: 2, 2: 1}
    assert assign({(5, 9): 3.0, (7, 9): 1.0}) == {7: 9}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_numbers_of_objects_have_no_say(seed):
    rng = np.random.default_rng(seed)
    scans, pairs = crowd(rng)
    renamed = [dict(zip(range(40), rng.permutation(400)[:40].tolist(), strict=True)) for _ in scans]
    others = [
        [replace(each, object=renamed[t][each.object]) for each in rng.permutation(np.array(some, object))]
        for t, some in enumerate(scans)
    ]
    mapped = [
        {(renamed[t][i], renamed[t + 1][j]): n for (i, j), n in some.items()} for t, some in enumerate(pairs)
    ]
    tracks, events = followed(scans, pairs)
    tracks_b, events_b = followed(others, mapped)
    expected = {frozenset((t, renamed[t][n]) for t, n in each) for each in members(tracks)}
    assert members(tracks_b) == expected
    assert events_b == events


def crowd(rng):
    """Balls and cracks that come, go and drift, and what overlaps."""
    places = rng.uniform(-200, 200, (30, 3))
    scans, pairs = [], []
    for t in range(4):
        there = np.flatnonzero(rng.random(30) < 0.85)
        scans.append(
            [
                (crack if n % 5 == 0 else ball)(t, int(n), tuple(places[n] + rng.normal(0, 1, 3)))
                for n in there
            ]
        )
    for before, after in pairwise(scans):
        near = [
            (a, b, math.dist(a.place_um, b.place_um)) for a in before for b in after if a.family == b.family
        ]
        pairs.append({(a.object, b.object): a.voxels * (1 - d / 40) for a, b, d in near if d < 30})
    return scans, pairs
