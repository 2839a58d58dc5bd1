"""Rates, their intervals and onsets: closed forms, laws, and how often intervals hold the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xctpipe.series.closure import (
    FARADAY_UM3_PER_MAH,
    ceiling_um3,
    charge_by_kind,
    charge_by_sign,
    metal_um3,
    residual,
)
from xctpipe.series.growth import Amounts, Rate, growth_rate, joined, onset
from xctpipe.series.growth_errors import Row, always_seen, volumes_of
from xctpipe.series.growth_short import short_and_percolation
from xctpipe.series.growth_things import Thing, things_of
from xctpipe.series.totals import bounds, total_of

CHARGE = np.array([0.0, 0.12, 0.24, 0.36, 0.44, 0.48, 0.5])
# a crack that spalls (empty from the second scan on), a bubble that grows by charge, one that rests, one
# that goes
COURSES = {
    "crack": np.array([0.0, 1.6e4, 2.9e6, 1.18e7, 2.65e7, 3.1e7, 3.3e7]),
    "bubble": 9.2e6 + 1.03e8 * CHARGE,
    "still": np.full(7, 1.6e7),
    "shrinking": 2e7 - 3e7 * CHARGE,
}


def amounts(values, errors=0.0, **others) -> Amounts:
    values = np.asarray(values, dtype=float)
    return Amounts(values, np.broadcast_to(np.asarray(errors, dtype=float), values.shape).copy(), **others)


# --- slopes


def test_a_line_is_found_and_its_error_is_that_of_the_textbook() -> None:
    rate = growth_rate(CHARGE, amounts(5.0 + 3.0 * CHARGE, 0.1))
    spread = math.sqrt(((CHARGE - CHARGE.mean()) ** 2).sum())
    assert rate.value == pytest.approx(3.0, rel=1e-12)
    assert rate.high - rate.value == pytest.approx(1.959964 * 0.1 / spread, rel=1e-6)
    assert rate.value - rate.low == pytest.approx(rate.high - rate.value)
    assert rate.sure


def test_a_curve_has_the_slope_of_plain_least_squares_whatever_the_errors() -> None:
    course, errors = COURSES["crack"], 1e4 + 0.1 * COURSES["crack"]
    expected = np.polyfit(CHARGE, course, 1)[0]
    assert growth_rate(CHARGE, amounts(course, errors)).value == pytest.approx(expected, rel=1e-9)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(-100.0, 100.0))
def test_units_and_the_zero_of_charge_only_scale(per_charge: float, per_volume: float, start: float) -> None:
    course = COURSES["crack"][1:] / 1e6
    made = amounts(course, 0.3, low_frac=0.03, high_frac=0.1, unseen=np.array([0.2, 0, 0, 0, 0, 0]))
    other = amounts(
        per_volume * course,
        0.3 * per_volume,
        low_frac=0.03,
        high_frac=0.1,
        unseen=np.array([0.2, 0, 0, 0, 0, 0]) * per_volume,
    )
    a, b = growth_rate(CHARGE[1:], made), growth_rate(per_charge * (CHARGE[1:] + start), other)
    factor = per_volume / per_charge
    assert (b.value, b.low, b.high) == pytest.approx(
        (a.value * factor, a.low * factor, a.high * factor), rel=1e-6
    )
    assert a.sure == b.sure


def test_a_scale_moves_a_slope_by_as_much_and_makes_nothing_grow() -> None:
    grown = growth_rate(CHARGE, amounts(COURSES["bubble"], low_frac=0.02, high_frac=0.1))
    assert (grown.low, grown.high) == pytest.approx((0.98 * grown.value, 1.1 * grown.value))
    gone = growth_rate(CHARGE, amounts(COURSES["shrinking"], low_frac=0.02, high_frac=0.1))
    assert (gone.low, gone.high) == pytest.approx((1.1 * gone.value, 0.98 * gone.value))
    still = growth_rate(CHARGE, amounts(COURSES["still"], low_frac=0.3, high_frac=0.3))
    assert (still.value, still.low, still.high, still.sure) == (0.0, 0.0, 0.0, False)


def test_what_may_be_unseen_widens_one_side_by_its_weight() -> None:
    first = np.zeros(7)
    first[0] = 0.5
    rate = growth_rate(CHARGE, amounts(CHARGE, unseen=first))
    moved = growth_rate(CHARGE, amounts(CHARGE + first))
    assert (rate.low, rate.high) == pytest.approx((moved.value, rate.value))


@pytest.mark.parametrize(
    ("at", "values"),
    [
        ([], []),
        ([1.0], [2.0]),
        ([1.0, 1.0], [2.0, 3.0]),
        ([0.0, math.nan], [1.0, 2.0]),
        ([0.0, 1.0], [1.0, math.nan]),
    ],
)
def test_without_two_places_there_is_no_slope(at: list[float], values: list[float]) -> None:
    rate = growth_rate(at, amounts(values))
    assert np.isnan([rate.value, rate.low, rate.high]).all()
    assert not rate.sure


def test_two_scans_have_the_interval_of_their_errors() -> None:
    rate = growth_rate([0.0, 2.0], amounts([1.0, 5.0], [0.3, 0.4]))
    assert (rate.value, rate.high - rate.value) == pytest.approx((2.0, 1.959964 * 0.5 / 2))


def test_scans_without_charge_are_left_out_and_order_does_not_matter() -> None:
    at = CHARGE.copy()
    at[3] = math.nan
    kept = np.delete(np.arange(7), 3)
    course = amounts(COURSES["crack"], 1e5)
    less = amounts(COURSES["crack"][kept][::-1], 1e5)
    a, b = growth_rate(at, course), growth_rate(CHARGE[kept][::-1], less)
    assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))


def test_a_rate_in_another_unit_keeps_its_order() -> None:
    assert Rate(2.0, 1.0, 4.0, True).times(-0.5) == Rate(-1.0, -2.0, -0.5, False)


# --- how often intervals hold the truth


def noisy_rows(rng: np.random.Generator, course, *, noise_um3: float, rest_frac: float) -> list[list[Row]]:
    """Rows with the stated errors of measured objects, and values that are off by as much."""
    low = 1.959964 * np.hypot(noise_um3, rest_frac * course)
    differs = rest_frac / 2
    common = math.sqrt(rest_frac**2 - differs**2) * rng.standard_normal()
    own = course * (1 + common + differs * rng.standard_normal(len(course)))
    values = own + noise_um3 * rng.standard_normal(len(course))
    return [
        [
            {
                "kind": "bubble",
                "volume_um3": float(v),
                "volume_error_um3": noise_um3,
                "volume_low_um3": float(v - half),
                "volume_high_um3": float(v + half),
            }
        ]
        for v, half in zip(values, low, strict=True)
    ]


@pytest.mark.parametrize("name", sorted(COURSES))
def test_intervals_hold_the_truth_as_often_as_they_say(name: str) -> None:
    rng = np.random.default_rng(5)
    course, n = COURSES[name], 800
    truth = growth_rate(CHARGE, amounts(course)).value
    held, sure = 0, 0
    for _ in range(n):
        rate = growth_rate(CHARGE, volumes_of(noisy_rows(rng, course, noise_um3=3e5, rest_frac=0.022)))
        held += rate.low <= truth <= rate.high
        sure += rate.sure
    # four standard errors of a share of 0.95 of 800; the gate is 0.85 to 0.99
    assert abs(held / n - 0.95) < 0.031
    if name == "still":
        assert sure / n < 0.01


# --- onset


@pytest.mark.parametrize(("first", "until"), [(1, 1), (3, 3), (6, 6)])
def test_onset_is_after_the_last_scan_without(first: int, until: int) -> None:
    course = np.r_[np.full(first, 10.0), 10.0 + 5.0 * np.arange(1, 8 - first)]
    assert onset(amounts(course, 0.5)) == (first, until)


def test_growth_that_begins_slowly_begins_before_it_is_sure() -> None:
    # two standard errors, then many
    assert onset(amounts([10, 10, 11.5, 20, 30], 0.5)) == (2, 3)


def test_nothing_grows_has_no_onset_and_noise_seldom_has() -> None:
    assert onset(amounts([5.0, 5.0, 5.0])) is None
    assert onset(amounts([])) is None
    assert onset(amounts([3.0])) is None
    assert onset(amounts([9.0, 7.0, 4.0], 0.1)) is None
    rng = np.random.default_rng(3)
    found = [onset(amounts(rng.normal(50, 1, 7), 1.0)) for _ in range(1000)]
    # six comparisons of one in 740 each
    assert sum(each is not None for each in found) < 25


def test_onset_of_slow_growth_that_only_the_slope_shows() -> None:
    course = amounts([0.0, 1.5, 1.0, 2.0, 2.5, 2.4, 3.0], 1.0)
    assert onset(course) is None
    assert onset(course, grows=True) is not None


def test_a_crack_that_grows_shrinks_and_grows() -> None:
    course = amounts([0.0, 10.0, 20.0, 5.0, 4.0, 15.0, 30.0], 0.5)
    assert onset(course) == (1, 1)
    expected = np.polyfit(CHARGE, course.values, 1)[0]
    assert growth_rate(CHARGE, course).value == pytest.approx(expected)


# --- things and their sums


def row(scan: str, number: int, volume: float | None, kind: str = "bubble", **others) -> Row:
    known = {"scan": scan, "object": number, "kind": kind, "volume_um3": volume, "volume_error_um3": 1.0}
    return {**known, "volume_low_um3": volume, "volume_high_um3": volume, **others}


def tracked(*numbers: int, scans: str = "abc") -> list[Row]:
    return [{"track": n, "scan": s, "object": n} for n in numbers for s in scans]


def test_objects_of_a_network_are_added() -> None:
    made = volumes_of([[row("a", 1, 3.0), row("a", 2, 4.0)], [row("b", 1, 5.0)]])
    assert made.values == pytest.approx([7.0, 5.0])
    assert made.errors == pytest.approx([math.sqrt(2), 1.0])


def test_a_filled_crack_stays_filled_until_it_is_void() -> None:
    kinds = ["crack", "crack_filled", "crack", "crack", "crack"]
    fills = ["unknown", "metal", "unknown", "void", "unknown"]
    objects = [row(s, 1, 9.0, kind, fill=f) for s, kind, f in zip("abcde", kinds, fills, strict=True)]
    things = things_of(objects, tracks=tracked(1, scans="abcde"), events=[], scans="abcde")
    assert {thing.kind: thing.scans for thing in things} == {"crack": (0, 3, 4), "crack_filled": (1, 2)}
    filled = next(thing for thing in things if thing.kind == "crack_filled").volumes(0.9)
    assert filled.values == pytest.approx([9.0, 10.0])


def test_only_a_birth_begins_at_zero() -> None:
    objects = [row(s, n, 9.0) for n in (1, 2) for s in "bc"]
    events = [
        {"kind": "birth", "scan_from": "a", "scan_to": "b", "tracks": "1"},
        {"kind": "merge", "scan_from": "a", "scan_to": "b", "tracks": "7 8 2"},
    ]
    things = things_of(objects, tracks=tracked(1, 2, scans="bc"), events=events, scans="abc")
    assert [(thing.track, thing.before) for thing in things] == [(1, 0), (2, None)]


def test_what_is_no_growing_thing_is_left_out() -> None:
    objects = [
        row("a", 1, 1.0, "pore"),
        row("a", 2, None),
        row("z", 3, 1.0),
        row("a", 4, 2.0),
        row("a", 5, 3.0),
    ]
    tracks = [*tracked(1, 2, 4, scans="a"), {"track": 9, "scan": "a", "object": 5, "joined": True}]
    things = things_of(objects, tracks=tracks, events=[], scans="ab")
    assert [(thing.track, thing.kind) for thing in things] == [(4, "bubble"), (None, "bubble")]


def test_sums_leave_out_what_the_view_cuts_and_tell_it_apart() -> None:
    things = [
        Thing(1, "bubble", (0, 1), ((row("a", 1, 5.0),), (row("b", 1, 6.0),))),
        Thing(2, "bubble", (0, 1), ((row("a", 2, 70.0),), (row("b", 2, 50.0, truncated=True),))),
        Thing(3, "crack", (0,), ((row("a", 3, 900.0, "crack"),),)),
    ]
    total = total_of(things, kinds=("bubble",), n=3)
    assert total.volumes.values == pytest.approx([5.0, 6.0, 0.0])
    assert total.cut_um3 == pytest.approx([70.0, 50.0, 0.0])
    assert (total.counts, total.n_whole) == ((2, 2, 0), 1)


def test_faint_things_that_come_and_go_are_an_error_of_sums() -> None:
    rng = np.random.default_rng(2)
    held, n = 0, 300
    for _ in range(n):
        things = []
        for number in range(12):
            seen = np.flatnonzero(rng.random(5) < 0.6)
            rows = tuple((row(str(i), number, 3.0 + rng.standard_normal()),) for i in seen)
            if len(seen):
                things.append(Thing(number, "interfacial_void", tuple(int(i) for i in seen), rows))
        total = total_of(things, kinds=("interfacial_void",), n=5)
        rate = growth_rate(np.arange(5), total.volumes)
        held += rate.low <= 0 <= rate.high
    assert held / n > 0.9


def test_what_is_born_into_a_sum_may_have_been_there_unseen() -> None:
    born = Thing(1, "bubble", (2, 3), ((row("c", 1, 50.0),), (row("d", 1, 60.0),)), before=1)
    total = total_of([born], kinds=("bubble",), n=4)
    assert total.volumes.hidden() == pytest.approx([5.0, 5.0, 0.0, 0.0])
    assert always_seen(born.volumes()) == pytest.approx(5.0)


def test_bounds_of_sums_hold_errors_and_scale_and_stay_positive() -> None:
    low, high = bounds(amounts([100.0, 1.0], [10.0, 10.0], low_frac=0.1, high_frac=0.2))
    assert low == pytest.approx([100 - math.hypot(19.59964, 10), 0.0])
    assert high[0] == pytest.approx(100 + math.hypot(19.59964, 20))


# --- charge and metal


def test_sodium_per_charge_is_that_of_its_density() -> None:
    # 22.990 g/mol, 0.927 g/cm^3 as a liquid at its melting point; in NaK at 25 C 0.908 mm^3/mAh
    assert pytest.approx(0.908e9, rel=1e-3) == FARADAY_UM3_PER_MAH
    assert pytest.approx(FARADAY_UM3_PER_MAH, rel=0.03) == 22.990 / 0.927e-12 * 3.6 / 96485
    assert ceiling_um3(0.1257) == pytest.approx(0.1257 * FARADAY_UM3_PER_MAH)


def test_charge_is_told_apart_by_steps() -> None:
    moved = charge_by_kind(
        [0.0, 0.5, 1.5, 3.0, math.nan],
        starts=[0.0, 1.0, 1.0],
        ends=[1.0, 1.0, 2.0],
        kinds=["plating", "rest", "stripping"],
    )
    assert moved["plating"][:4] == pytest.approx([0, 0.5, 1, 1])
    assert moved["stripping"][:4] == pytest.approx([0, 0, 0.5, 1])
    assert np.isnan([moved["plating"][4], moved["stripping"][4]]).all()


def test_charge_is_told_apart_by_the_sign_of_the_current() -> None:
    moved = charge_by_sign([0.0, 0.5, 1.5], [0.0, 0.7, -0.7])
    assert moved["plating"] == pytest.approx([0, 0.5, 0.5])
    assert moved["stripping"] == pytest.approx([0, 0, 1.0])
    assert np.isnan(charge_by_sign([0.0, 0.5], [math.nan, math.nan])["plating"][1])


def test_a_balance_that_closes_and_one_that_lacks_a_tenth() -> None:
    area, plated = 0.1257, np.array([0.0, 0.2, 0.5])
    heights = 800 + plated * ceiling_um3(area) / (area * 1e8)
    metal = metal_um3(heights, area_um2=area * 1e8, void_um3=np.full(3, 1e7), filled_um3=np.zeros(3))
    expected, beyond = residual(metal, plated=plated, area_cm2=area)
    assert np.abs(beyond).max() < 1e-6 * ceiling_um3(area)
    assert np.diff(expected) == pytest.approx(ceiling_um3(area) * np.diff(plated))
    lost = metal_um3(heights, area_um2=area * 1e8, void_um3=np.full(3, 1e7), filled_um3=np.array([0, 0, 1e7]))
    assert residual(lost, plated=plated, area_cm2=area)[1][2] == pytest.approx(1e7)


def test_the_first_scan_that_is_known_is_the_reference() -> None:
    expected, beyond = residual([math.nan, 5.0, 6.0], plated=[0.0, 1e-9, math.nan], area_cm2=1.0)
    assert np.isnan([expected[2], beyond[0], beyond[2]]).all()
    assert beyond[1] == 0
    assert np.isnan(residual([1.0], plated=[math.nan], area_cm2=1.0)[1]).all()


# --- the short

SCANS = [("a", 0.0, 0.0), ("b", 0.4, 0.4), ("c", 0.5, 0.55)]


@pytest.mark.parametrize(
    ("through", "drop", "agree", "said"),
    [
        ("FFT", 0.45, True, "from c on, that is between 0.4 and 0.55"),
        ("FFT", 0.53, True, "they agree"),
        ("FFT", 0.4, True, "they agree"),
        ("FFT", 0.56, False, "do not agree"),
        ("FTT", 0.45, False, "do not agree"),
        ("FFF", 0.45, False, "in no scan"),
        ("FFF", 0.7, True, "after the last scan"),
        ("FFT", None, False, "does not drop"),
        ("FFF", None, True, "they agree"),
        ("TTT", 0.0, True, "until 0"),
    ],
)
def test_short_and_percolation(through: str, drop: float | None, agree: bool, said: str) -> None:
    percolation = [{"scan": s, "percolates": t == "T"} for s, t in zip("abc", through, strict=True)]
    steps: list[Row] = [{"step": "plating", "start_charge_mah_cm2": 0.0}]
    if drop is not None:
        steps.append({"step": "short", "start_charge_mah_cm2": drop})
    found, text = short_and_percolation(percolation, steps=steps, scans=SCANS)
    assert found is agree
    assert said in text


def test_nothing_is_compared_without_a_cycler_or_labels() -> None:
    assert short_and_percolation([{"scan": "a", "percolates": True}], steps=[], scans=SCANS) == (True, "")
    drop = [{"step": "short", "start_charge_mah_cm2": 1}]
    assert short_and_percolation([], steps=drop, scans=SCANS)[0]
    # a file that covers no scan
    unknown = [(name, np.nan, np.nan) for name, _, _ in SCANS]
    through = [{"scan": "a", "percolates": False}]
    assert short_and_percolation(through, steps=drop, scans=unknown) == (True, "")


def test_a_zero_is_joined_before_the_first_scan() -> None:
    made = joined(amounts([5.0, 7.0], 0.1), first=np.zeros(2), unseen=2.0)
    assert (made.values.tolist(), made.hidden().tolist()) == ([0.0, 5.0, 7.0], [2.0, 0.0, 0.0])
