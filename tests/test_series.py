import dataclasses
import itertools
import json
import math
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from xctpipe.errors import BadRecipe
from xctpipe.phantom.columns import TABLES
from xctpipe.phantom.labels import PHASES, Grid, grid_of, label_slabs, labels_of
from xctpipe.phantom.series import build_series, scan_of
from xctpipe.phantom.tables import tables_of, truth_of
from xctpipe.phantom.truth import occupancy
from xctpipe.scan import Frames

SODIUM_MM3_PER_MAH = 0.908
KINDS = ("plating", "stripping", "control")
BARE = {"n_pores": 0, "n_specks": 0, "drift": False}


@cache
def bare(kind, size="tiny"):
    """A series without what is strewn in it and without drift, made once."""
    return build_series(kind, size=size, **BARE)


@pytest.fixture(scope="module")
def tiny():
    return {kind: build_series(kind, seed=3) for kind in KINDS}


@pytest.fixture(scope="module")
def release():
    return {kind: bare(kind, "release") for kind in KINDS}


def thing(step, number):
    return next(o for o in step.objects if o.object == number)


def grown(series):
    return [thing(step, 4) for step in series.steps]


def radius_um(bubble):
    return (3 * bubble.whole_volume_um3 / (4 * math.pi)) ** (1 / 3)


# ---- against published figures and closed forms


@pytest.mark.parametrize(
    ("frame", "volume_mm3", "opening_um", "area_mm2"),
    [
        (1, 5.03e-6, 2, math.pi * 0.06 * 0.04 / 2),
        (2, 6.79e-4, 3, 0.226),
        (3, 2.26e-3, 5, 0.452),
        (4, 4.07e-3, 6, 0.679),
        (5, 4.53e-3, 8, 0.679),
    ],
)
def test_the_plating_cell_at_release_scale_is_the_specified_one(
    release, frame, volume_mm3, opening_um, area_mm2
):
    crack = thing(release["plating"].steps[frame], 1)
    assert crack.volume_um3 == pytest.approx(volume_mm3 * 1e9, rel=3e-3)
    assert crack.opening_max_um == pytest.approx(opening_um)
    assert crack.area_um2 == pytest.approx(area_mm2 * 1e6, rel=2e-3)


def test_the_last_crack_is_the_relaxed_gap_and_a_sneddon_crack_to_the_sodium(release):
    before, last = release["plating"].steps[5:]
    parts = {p.name: p.shape.volume_mm3 for p in last.sample.parts}
    crack, chip = thing(last, 1), thing(last, 2)
    gap_mm3 = crack.volume_um3 * 1e-9 - parts["crack-through"]
    assert gap_mm3 == pytest.approx(1.72e-3, rel=3e-3)
    assert chip.volume_um3 == pytest.approx(5.50e-2 * 1e9, rel=2e-3)
    length, width = 1.5 - 0.18, 3e-3
    b, a = 0.7 * length, 0.25 * length
    t = np.linspace(-length / 2, length / 2, 20001)
    # across the crack the opening is half an ellipse: mean pi/4 of its largest
    line = np.sqrt(1 - (t / b) ** 2)
    expected = np.trapezoid(math.pi / 4 * width * line * 2 * a * line, t)
    assert parts["crack-through"] == pytest.approx(expected, rel=1e-6)
    assert crack.volume_um3 < thing(before, 1).volume_um3
    assert crack.depth_um == pytest.approx(1500)
    assert crack.percolates
    assert last.percolates
    assert not before.percolates


def test_bubble_and_charges_of_the_plating_cell(release):
    steps = release["plating"].steps
    assert [s.charge_mah_cm2 for s in steps] == pytest.approx([0, 0.12, 0.24, 0.36, 0.44, 0.48, 0.5])
    assert thing(steps[0], 3).volume_um3 == pytest.approx(0.01414e9, rel=1e-3)
    assert release["plating"].electrode_area_cm2 == pytest.approx(0.1257, rel=1e-3)
    assert [k for o in steps[0].objects if (k := o.kind) == "crack"] == []


@pytest.mark.parametrize(
    ("eta", "radii"), [(1.0, (150, 207, 257, 313, 354)), (0.3, (150, 171, 195, 226, 250))]
)
def test_the_stripping_staircase_grows_the_specified_bubble(eta, radii):
    series = build_series("stripping", size="release", eta_frac=eta, **BARE)
    assert [s.charge_mah_cm2 for s in series.steps] == pytest.approx([0, 0.2, 0.5, 1.0, 1.5])
    assert [radius_um(b) for b in grown(series)] == pytest.approx(radii, abs=0.51)


def test_median_openings_are_those_of_the_closed_forms(release):
    steps = release["plating"].steps
    # Sneddon's opening: half of the face is wider than w0 / sqrt(2)
    assert thing(steps[1], 1).opening_median_um == pytest.approx(2 / math.sqrt(2), rel=1e-3)
    assert thing(steps[3], 1).opening_median_um == pytest.approx(5)
    cosine = 1 - 0.5 * 0.18 / 0.6
    # the normal from one sphere to an equal one 8 um higher, half way down the bowl's area
    normal = 600 + 8 * cosine - math.sqrt(600**2 - 8**2 * (1 - cosine**2))
    assert thing(steps[5], 1).opening_median_um == pytest.approx(normal, rel=1e-5)


def test_bubble_growth_is_the_stated_share_of_the_charge(tiny):
    for eta, series in (
        (0.9, tiny["stripping"]),
        (0.5, build_series("stripping", size="small", eta_frac=0.5, **BARE)),
    ):
        gained = np.diff([b.whole_volume_um3 for b in grown(series)]) * 1e-9
        passed = np.diff([s.charge_mah_cm2 for s in series.steps]) * series.electrode_area_cm2
        np.testing.assert_allclose(gained, eta * SODIUM_MM3_PER_MAH * passed, rtol=1e-3)
        rows = {r["track"]: r for r in tables_of(series)["growth"]}
        assert rows[4]["onset_mah_cm2"] == 0
        assert rows[5]["onset_mah_cm2"] == pytest.approx(series.steps[2].charge_mah_cm2)
        slope = eta * SODIUM_MM3_PER_MAH * series.electrode_area_cm2 * 1e9
        assert rows[4]["dvolume_dcharge_um3_per_mah_cm2"] == pytest.approx(slope, rel=1e-3)


def test_contact_falls_as_the_caps_cover_the_interface():
    series = bare("stripping")
    found = []
    for step in series.steps:
        caps = [p.shape for p in step.sample.parts if p.name.startswith("interfacial_void")]
        heights = [c.center_mm[2] - c.z1_mm for c in caps]
        covered = sum(math.pi * (c.semi_axes_mm[0] ** 2 - h**2) for c, h in zip(caps, heights, strict=True))
        found.append(1 - covered * 1e6 / step.interface["area_um2"])
        assert step.interface["contact_frac"] == pytest.approx(found[-1], abs=1e-9)
        chamber = next(p.shape for p in step.sample.parts if p.name == "nak")
        points = np.random.default_rng(0).uniform(-2.3, 2.3, (400_000, 2))
        rim = step.acquisition.cols - 0.5 - step.acquisition.axis_px[1]
        both = (np.hypot(*points.T) < rim * step.acquisition.pixel_um * 1e-3) & (
            np.hypot(*(points - (chamber.x_mm, chamber.y_mm)).T) < chamber.radius_mm
        )
        assert step.interface["area_um2"] == pytest.approx(both.mean() * 4.6**2 * 1e6, rel=0.01)
    assert (found[0], found[-1]) == pytest.approx((0.97, 0.85), abs=1e-6)
    assert all(np.diff(found) < 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_metal_is_that_of_the_charge(tiny, kind):
    """All NaK, in the chamber and in cracks, and the sodium: from the shapes of the parts."""
    metal, sodium = [], []
    for step in tiny[kind].steps:
        shapes = {p.name: p for p in step.sample.parts}
        nak = shapes["nak"].shape
        volume = nak.volume_mm3
        z = nak.z1_mm
        for part in step.sample.parts:
            sign = (part.material == "nak50") - (part.host == "nak50")
            if part.name != "nak" and sign:
                volume += sign * part.shape.volume_mm3
            if part.name == "chip" and part.host == "nak50":
                # what the chip takes from the bowl was counted as liquid there
                assert part.shape.z0_mm < z
        metal.append(volume)
        sodium.append(shapes["counter_electrode"].shape)
    sign = {"plating": 1, "stripping": -1, "control": 0}[kind]
    charge = np.array([s.charge_mah_cm2 for s in tiny[kind].steps])
    gained = sign * charge * SODIUM_MM3_PER_MAH * tiny[kind].electrode_area_cm2
    np.testing.assert_allclose(np.array(metal) - metal[0], gained, atol=3e-4 * max(abs(gained).max(), 1e-3))
    heights = np.array([s.z1_mm - s.z0_mm for s in sodium])
    np.testing.assert_allclose(heights - heights[0], -sign * charge * 9.08e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_chamber_changes_by_the_charge_and_not_by_drift(tiny, kind):
    """Sodium from the shapes of the parts; the rest of the metal is what the balance has."""
    series, still = tiny[kind], build_series(kind, seed=3, drift=False)
    rows, unmoved = (tables_of(each)["balance"] for each in (series, still))
    sign = {"plating": 1, "stripping": -1, "control": 0}[kind]
    metal = np.array([r["whole_nak_um3"] + r["whole_nak_in_cracks_um3"] for r in rows])
    gained = [
        sign * s.charge_mah_cm2 * SODIUM_MM3_PER_MAH * series.electrode_area_cm2 * 1e9 for s in series.steps
    ]
    np.testing.assert_allclose(metal - metal[0], gained, atol=3e-4 * max(map(abs, (*gained, 1e6))))
    for row, other, step in zip(rows, unmoved, series.steps, strict=True):
        parts = {p.name: p for p in step.sample.parts}
        # all that lies in the liquid is whole above the interface, but the chip
        inside = [p for p in step.sample.parts if p.host == "nak50" and p.material == "void"]
        assert row["whole_void_um3"] == pytest.approx(sum(p.shape.volume_mm3 for p in inside) * 1e9, rel=1e-9)
        if parts.get("chip") is None or parts["chip"].host != "nak50":
            nak = parts["nak"].shape.volume_mm3 * 1e9
            assert row["whole_nak_um3"] + row["whole_void_um3"] == pytest.approx(nak, rel=1e-9)
        assert {k: v for k, v in row.items() if "whole" in k} == pytest.approx(
            {k: v for k, v in other.items() if "whole" in k}, rel=1e-9
        )
    assert any(abs(a["nak_um3"] / b["nak_um3"] - 1) > 1e-3 for a, b in zip(rows, unmoved, strict=True))


def test_growth_of_the_plating_cell_is_that_of_its_crack_while_empty_and_while_filled(tiny):
    series = tiny["plating"]
    rows = {(r["track"], r["kind"]): r for r in tables_of(series)["growth"]}
    charge = [step.charge_mah_cm2 for step in series.steps]
    empty, filled = rows[1, "crack"], rows[1, "crack_filled"]
    assert [empty[k] for k in ("scan_from", "scan_to", "n_scans")] == ["P1", "P4", 4]
    assert [filled[k] for k in ("scan_from", "scan_to", "n_scans")] == ["P5", "P6", 2]
    volume = [thing(step, 1).volume_um3 for step in series.steps[1:]]
    slope = np.polyfit(charge[1:5], volume[:4], 1)[0]
    assert empty["dvolume_dcharge_um3_per_mah_cm2"] == pytest.approx(slope, rel=1e-9)
    assert empty["onset_mah_cm2"] == pytest.approx(charge[1])
    shrinks = (volume[5] - volume[4]) / (charge[6] - charge[5])
    assert shrinks < 0
    assert filled["dvolume_dcharge_um3_per_mah_cm2"] == pytest.approx(shrinks, rel=1e-9)
    assert filled["onset_mah_cm2"] is None
    for (_, kind), row in rows.items():
        if kind in {"bubble", "interfacial_void"}:
            assert row["dvolume_dcharge_um3_per_mah_cm2"] == 0
            assert row["onset_mah_cm2"] is None
        assert row["low"] is row["high"] is None
    still = tables_of(tiny["control"])["growth"]
    assert {row["dvolume_dcharge_um3_per_mah_cm2"] for row in still} == {None}


# ---- what is rendered is what is written


@pytest.mark.parametrize("frame", [3, 4, 5])
def test_wide_cracks_fill_their_volume_when_rendered(tiny, frame):
    step = tiny["plating"].steps[frame]
    bowl, chip = (next(p.shape for p in step.sample.parts if p.name == name) for name in ("crack", "chip"))
    view, crack = step.acquisition, thing(step, 1)
    assert crack.opening_max_um >= 2 * view.pixel_um * 0.999
    grid = np.zeros((view.rows, view.cols, view.cols))
    if frame == 5:
        # of a lifted chip only what is left in the bowl
        chip = dataclasses.replace(chip, z0_mm=bowl.z0_mm)
    for shape, sign in ((bowl, 1), (chip, -1)):
        box, inside = occupancy(shape, acquisition=view, rows=(0, view.rows), oversampling=12)
        grid[box] += sign * inside
    assert grid.sum() * view.pixel_um**3 == pytest.approx(crack.volume_um3, rel=5e-3)
    z, y, x = ndimage.center_of_mass(grid)
    middle = (view.cols - 1) / 2
    found = np.array([z, y - middle, x - middle]) * view.pixel_um
    np.testing.assert_allclose(found, (crack.z_um, crack.y_um, crack.x_um), atol=0.03 * view.pixel_um)


def test_a_bubble_cut_by_the_rim_has_the_volume_that_is_seen(tiny):
    step = tiny["stripping"].steps[1]
    bubble, view = thing(step, 6), step.acquisition
    shape = next(p.shape for p in step.sample.parts if p.name == "bubble-6")
    rim = (view.cols - 0.5 - view.axis_px[1]) * view.pixel_um * 1e-3
    r, far = shape.semi_axes_mm[0], math.hypot(*shape.center_mm[:2])
    t = np.linspace(far - r, rim, 4001)[1:]
    # cut into concentric arcs about the axis: at radius t half an angle of 2 acos(...), a chord high
    z_half = np.sqrt(np.maximum(r**2 - (np.linspace(0, 1, 801)[:, None] * 0) - (t - far) ** 2, 0))
    total = 0.0
    for radius, top in zip(t, z_half[0], strict=True):
        z = (np.arange(200) + 0.5) / 200 * top
        reach = (far**2 + radius**2 - (r**2 - z**2)) / (2 * far * radius)
        total += (2 * np.arccos(np.clip(reach, -1, 1)) * radius).mean() * 2 * top
    total *= t[1] - t[0]
    assert bubble.truncated
    assert bubble.volume_um3 == pytest.approx(total * 1e9, rel=2e-3)
    assert bubble.volume_um3 < 0.8 * bubble.whole_volume_um3


def test_few_rows_show_the_part_of_the_crack_between_two_planes(release):
    whole = release["plating"].steps[4]
    cut = build_series("plating", size="release", rows=128, **BARE).steps[4]
    assert whole.acquisition.rows > 3000
    seen, crack = thing(cut, 1), thing(whole, 1)
    assert (seen.truncated, crack.truncated) == (True, False)
    assert seen.whole_volume_um3 == pytest.approx(crack.volume_um3)
    part = {p.name: p.shape for p in cut.sample.parts}
    bottom = cut.acquisition.rows / 2 * 1.3e-3
    top, volumes = part["crack"].z0_mm, []
    for name in ("crack", "chip"):
        c, r = part[name].center_mm[2], part[name].semi_axes_mm[0]
        volumes.append(math.pi * (r**2 * (bottom - top) - ((bottom - c) ** 3 - (top - c) ** 3) / 3))
    assert seen.volume_um3 == pytest.approx((volumes[0] - volumes[1]) * 1e9, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_inclusion_lies_in_its_host(tiny, kind):
    """Whatever the order says of a point just before a part is added must be the part's host."""
    rng = np.random.default_rng(1)
    for step in (tiny[kind].steps[i] for i in (0, 2, -2, -1)):
        for i, part in enumerate(step.sample.parts[1:], start=1):
            low, high = np.array(part.shape.bounds_mm).T
            points = rng.uniform(low - 1e-3, high + 1e-3, (600, 3)).T
            points = points[:, part.shape.contains(*points)]
            owner = np.full(points.shape[1], "void", object)
            for before in step.sample.parts[:i]:
                owner[before.shape.contains(*points)] = before.material
            assert set(owner) <= {part.host}, (step.name, part.name)
            assert points.shape[1] > 5 or "through" in part.name or part.name == "crack"


@pytest.mark.parametrize("kind", KINDS)
def test_contrasts_add_up_to_the_materials(tiny, kind):
    sample = tiny[kind].steps[-1].sample
    for part in sample.parts:
        contrast = sample.mu_cm1[part.material] - sample.mu_cm1[part.host]
        assert part.shape.delta_mu_cm1 == pytest.approx(contrast, abs=1e-12)


# ---- laws


def test_everything_scales_with_the_pixel(release):
    for kind in ("plating", "stripping"):
        one, two = release[kind], build_series(kind, size="release", scale_um=2.6, **BARE)
        assert one.settings["pixel_um"] == pytest.approx(1.3)
        assert two.electrode_area_cm2 == pytest.approx(4 * one.electrode_area_cm2)
        for a, b in zip(one.steps, two.steps, strict=True):
            assert b.charge_mah_cm2 == pytest.approx(2 * a.charge_mah_cm2)
            assert b.interface["contact_frac"] == pytest.approx(a.interface["contact_frac"])
            for x, y in zip(a.objects, b.objects, strict=True):
                assert y.volume_um3 == pytest.approx(8 * x.volume_um3, rel=1e-6)
                assert (y.z_um, y.x_um) == pytest.approx((2 * x.z_um, 2 * x.x_um), rel=1e-6, abs=1e-6)


def test_the_same_cell_and_view_at_every_size():
    made = [bare("plating", size).steps[0] for size in ("tiny", "small", "release")]
    for step in made:
        layers = {p.name: p.shape for p in step.sample.parts}
        assert step.acquisition.pixel_um * step.acquisition.cols == pytest.approx(4160)
        assert layers["nasicon"].z1_mm - layers["nasicon"].z0_mm == pytest.approx(1.5)
        assert layers["nak"].z1_mm - layers["nak"].z0_mm == pytest.approx(0.8)
        half = step.acquisition.rows * step.acquisition.pixel_um * 5e-4
        # collector, NaK, NASICON and sodium all have rows
        assert -half < layers["nak"].z0_mm < layers["counter_electrode"].z0_mm < half


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_openings_and_bubbles_of_all_sizes_in_voxels_occur(size):
    plating, stripping = (bare(kind, size) for kind in ("plating", "stripping"))
    pixel = plating.settings["pixel_um"]
    openings = {
        round(o.opening_max_um / pixel, 2) for s in plating.steps for o in s.objects if "crack" in o.kind
    }
    assert {0.5, 1.0, 2.0, 3.0, 4.0} <= openings
    radii = [radius_um(o) / pixel for s in stripping.steps for o in s.objects if o.kind == "bubble"]
    assert (min(radii), max(radii)) == pytest.approx((4, 20))
    assert len({round(r) for r in radii}) >= 7


def test_nothing_changes_in_the_control(tiny):
    series = tiny["control"]
    assert series.events == ()
    first = series.steps[0].objects
    assert {o.kind for o in first} == {
        "bubble",
        "interfacial_void",
        "crack",
        "chip",
        "pore",
        "inclusion",
    }
    for step in series.steps[1:]:
        assert any(step.shift_px)
        for a, b in zip(first, step.objects, strict=True):
            assert (a.object, a.kind, a.parts) == (b.object, b.kind, b.parts)
            for name in ("volume_um3", "area_um2", "opening_median_um", "opening_max_um", "depth_um"):
                assert getattr(b, name) == pytest.approx(getattr(a, name), rel=1e-9, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("kind", KINDS)
def test_events_are_those_that_the_objects_show(tiny, kind):
    series = tiny[kind]
    merged = {(e.scan_from, n) for e in series.events if e.kind == "merge" for n in e.objects}
    listed = {
        (e.kind, e.scan_from, n) for e in series.events for n in e.objects if e.kind in {"birth", "death"}
    }
    shown = set()
    for a, b in itertools.pairwise(series.steps):
        was, now = {o.object for o in a.objects}, {o.object for o in b.objects}
        shown |= {("birth", a.name, n) for n in now - was if (a.name, n) not in merged}
        shown |= {("death", a.name, n) for n in was - now if (a.name, n) not in merged}
        for event in (e for e in series.events if e.scan_from == a.name):
            assert event.scan_to == b.name
            if event.kind == "merge":
                *parents, child = (
                    next(o for s in (a, b) for o in s.objects if o.object == n) for n in event.objects
                )
                assert child.volume_um3 == pytest.approx(sum(p.volume_um3 for p in parents), rel=1e-6)
                assert {p.object for p in parents} <= was - now
                assert child.object in now - was
            if event.kind == "fill":
                kinds = thing(a, event.objects[0]).kind, thing(b, event.objects[0]).kind
                assert kinds == ("crack", "crack_filled")
            if event.kind == "shrink":
                assert thing(b, event.objects[0]).volume_um3 < thing(a, event.objects[0]).volume_um3
    assert shown == listed
    expected = {
        "plating": {"birth", "fill", "chip", "shrink", "percolate"},
        "stripping": {"birth", "merge"},
        "control": set(),
    }
    assert {e.kind for e in series.events} == expected[kind]


def test_the_stack_moves_rigidly_by_the_registration_that_is_written(tiny):
    series = tiny["plating"]
    first = {o.object: o for o in series.steps[0].objects if o.kind in {"pore", "inclusion"}}
    rows = {r["scan"]: r for r in tables_of(series)["registration"]}
    assert len(first) > 15
    assert not any(v for k, v in rows["P0"].items() if k != "scan")
    for step in series.steps[1:]:
        row = rows[step.name]
        t = math.radians(row["rotation_deg"])
        assert max(abs(row["dx_px"]), abs(row["dy_px"]), abs(row["dz_px"])) <= 5
        assert abs(row["rotation_deg"]) <= 0.3
        for number, a in first.items():
            b = thing(step, number)
            x = a.x_um * math.cos(t) - a.y_um * math.sin(t) + row["dx_um"]
            y = a.x_um * math.sin(t) + a.y_um * math.cos(t) + row["dy_um"]
            assert (b.x_um, b.y_um, b.z_um) == pytest.approx((x, y, a.z_um + row["dz_um"]), abs=1e-6)


def test_same_seed_same_series_and_other_seed_another(tiny):
    # by their texts: areas without a closed form are NaN, which no comparison finds equal
    assert repr(build_series("plating", seed=3)) == repr(tiny["plating"])
    other = build_series("plating", seed=4)
    assert [s.shift_px for s in other.steps] != [s.shift_px for s in tiny["plating"].steps]
    pores = [[o.x_um for o in s.steps[0].objects if o.kind == "pore"][:5] for s in (other, tiny["plating"])]
    assert pores[0] != pores[1]


def test_the_view_holds_what_its_phases_hold(tiny):
    for series in tiny.values():
        for step in series.steps:
            a = step.acquisition
            rim = (a.cols - 0.5 - a.axis_px[1]) * a.pixel_um
            total = math.pi * rim**2 * a.rows * a.pixel_um
            assert sum(step.phases_um3.values()) == pytest.approx(total, rel=1e-6)
            by_kind = {}
            for o in step.objects:
                by_kind[o.kind] = by_kind.get(o.kind, 0.0) + o.volume_um3
            for kind, volume in by_kind.items():
                assert step.phases_um3[kind] == pytest.approx(volume, rel=1e-9)


# ---- labels


def test_labels_are_the_same_however_they_are_cut(tiny):
    step = tiny["plating"].steps[5]
    grid = grid_of(step)
    whole = next(label_slabs(step, grid=grid, rows=(15, 36), slab_rows=64, oversampling=3))
    assert whole.first == 15
    for slab in label_slabs(step, grid=grid, rows=(15, 36), slab_rows=5, oversampling=3):
        at = slab.first - 15
        np.testing.assert_array_equal(slab.phases, whole.phases[at : at + len(slab.phases)])
        np.testing.assert_array_equal(slab.objects, whole.objects[at : at + len(slab.phases)])


def test_labels_hold_the_volumes_on_a_finer_grid(tiny):
    step = tiny["plating"].steps[4]
    pixel = step.acquisition.pixel_um / 3
    crack = thing(step, 1)
    shape, origin = (44, 160, 160), (80 - crack.y_um / pixel, 80 - crack.x_um / pixel)
    first = round(crack.z_um / pixel) - 26
    phases, objects = labels_of(step, grid=Grid(shape, pixel, first, origin), oversampling=2)
    for number in (1, 2):
        true = thing(step, number)
        assert (objects == number).sum() * pixel**3 == pytest.approx(true.volume_um3, rel=0.03)
        z, y, x = ndimage.center_of_mass(objects == number)
        found = np.array(
            [(z + first + 0.5) * pixel - 1.5 * pixel, (y - origin[0]) * pixel, (x - origin[1]) * pixel]
        )
        np.testing.assert_allclose(found, (true.z_um, true.y_um, true.x_um), atol=0.35 * pixel)
    assert set(np.unique(phases[objects == 1])) == {PHASES["crack"]}
    assert set(np.unique(phases[objects == 2])) == {PHASES["chip"]}


def test_a_lower_share_shows_thin_cracks(tiny):
    step = tiny["plating"].steps[1]
    grid = grid_of(step)
    rows = (15, 30)
    few, more = (
        np.concatenate([s.objects for s in label_slabs(step, grid=grid, rows=rows, crack_frac=share)]) == 1
        for share in (0.5, 0.05)
    )
    assert few.sum() < more.sum()
    assert more.sum() >= 8
    assert np.all(more[few])


@pytest.mark.parametrize("seed", [0, 3])
def test_the_short_is_one_piece_from_the_liquid_to_the_sodium(seed):
    step = build_series("plating", seed=seed, n_pores=0, n_specks=0).steps[6]
    phases, objects = labels_of(step, oversampling=3, crack_frac=0.3)
    pieces, _ = ndimage.label(objects == 1, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]
    largest = pieces == 1 + sizes.argmax()
    assert sizes.max() > 0.98 * sizes.sum()
    around = ndimage.binary_dilation(largest, structure=np.ones((3, 3, 3))) & ~largest
    assert {PHASES["nak"], PHASES["counter_electrode"], PHASES["chip"]} <= set(np.unique(phases[around]))


def test_labels_and_attenuation_agree_away_from_surfaces(tiny):
    from xctpipe.phantom.truth import render

    # a pore smaller than a voxel wins none
    step = build_series("stripping", n_pores=0, n_specks=0).steps[2]
    phases, _ = labels_of(step, oversampling=2)
    mu = render(step.sample, acquisition=step.acquisition, oversampling=2)
    value = {
        "nasicon": "nasicon",
        "nak": "nak50",
        "bubble": "void",
        "o_ring": "epdm",
        "collector": "aluminium",
    }
    for phase, material in value.items():
        inner = ndimage.binary_erosion(phases == PHASES[phase])
        assert inner.sum() > 50
        np.testing.assert_allclose(mu[inner], step.sample.mu_cm1[material], atol=1e-5)


# ---- tables, cycler, scans


def test_tables_have_the_columns_that_are_described(tiny):
    for series in tiny.values():
        tables = tables_of(series)
        assert set(tables) == set(TABLES)
        for name, rows in tables.items():
            for row in rows:
                assert set(row) == set(TABLES[name]), name


def test_numbers_of_tables_have_no_digits_of_rounding(tiny):
    numbers = [
        value
        for series in tiny.values()
        for rows in tables_of(series).values()
        for row in rows
        for key, value in row.items()
        if isinstance(value, float) and key != "time_s"
    ]
    assert len(numbers) > 1000
    assert all(float(f"{value:.12g}") == value for value in numbers)


def test_openings_are_listed_by_scan_and_the_largest_empty_one_is_what_was_asked_for():
    truth = truth_of(build_series("plating", crack_opening_um=100.0, **BARE))
    assert truth["crack_opening_um"] == pytest.approx(100)
    largest = {row["scan"]: (row["kind"], row["opening_max_um"]) for row in truth["crack_openings"]}
    assert list(largest) == ["P1", "P2", "P3", "P4", "P5", "P6"]
    assert max(w for kind, w in largest.values() if kind == "crack") == pytest.approx(100)
    assert largest["P4"] == ("crack", pytest.approx(100))
    assert largest["P5"] == ("crack_filled", pytest.approx(400 / 3))


def test_tables_have_the_columns_of_the_measured_ones(tiny):
    columns = {
        "scans": {"scan", "time_s", "center_px", "n_frames", "charge_mah_cm2", "current_ma_cm2", "voltage_v"},
        "phases": {"scan", "phase", "volume_um3"},
        "objects": {
            "scan",
            "object",
            "kind",
            "volume_um3",
            "volume_low_um3",
            "volume_high_um3",
            "z_um",
            "y_um",
            "x_um",
        },
        "interface": {"scan", "contact_frac"},
        "tracks": {"track", "scan", "object"},
        "events": {"kind", "scan_from", "scan_to", "tracks"},
        "growth": {"track", "kind", "dvolume_dcharge_um3_per_mah_cm2", "low", "high", "onset_mah_cm2"},
        "registration": {"scan", "dz_px", "dy_px", "dx_px"},
        "percolation": {"scan", "percolates"},
    }
    for kind, series in tiny.items():
        tables = tables_of(series)
        for name, wanted in columns.items():
            for row in tables[name]:
                assert wanted <= set(row), name
                assert set(row) == set(tables[name][0])
        assert len(tables["scans"]) == len(series.steps)
        truth = json.loads(json.dumps(truth_of(series), allow_nan=False))
        assert truth["series"] == kind
        assert truth["tables"]["events"] == tables["events"]
    assert [r["percolates"] for r in tables_of(tiny["plating"])["percolation"]] == [False] * 6 + [True]


@pytest.mark.parametrize("pauses", [True, False])
@pytest.mark.parametrize("kind", ["plating", "stripping"])
def test_the_cycler_passes_the_charge_between_the_scans(kind, pauses):
    """Signed by the direction of the current, and its absolute value is the charge of the scans."""
    sign = {"plating": 1, "stripping": -1}[kind]
    series = build_series(kind, pauses=pauses, **BARE)
    rows = series.cycler
    time, current, charge = (
        np.array([getattr(r, n) for r in rows]) for n in ("time_s", "current_ma", "charge_mah_cm2")
    )
    assert np.all(np.diff(time) > 0)
    volts = np.array([r.voltage_v for r in rows])
    # the last row of plating is that of the short
    driven = (current != 0) & (volts != rows[-1].voltage_v)
    assert np.all(np.sign(current[current != 0]) == sign)
    assert np.all(np.sign(volts[driven] - series.steps[0].voltage_v) == sign)
    assert all(np.sign(step.current_ma_cm2) == sign for step in series.steps[1:])
    assert abs(current).max() / series.electrode_area_cm2 <= 0.7 + 1e-9
    # whether a row's current is taken to flow until the next row, or to change evenly towards it
    for flows in (current[:-1], (current[:-1] + current[1:]) / 2):
        passed = np.concatenate([[0], np.cumsum(np.diff(time) * flows)]) / 3600 / series.electrode_area_cm2
        np.testing.assert_allclose(charge, passed, atol=1e-5 * abs(charge[-1]))
    length = 181 * 0.2
    for step in series.steps:
        assert np.interp(step.time_s, time, charge) == pytest.approx(sign * step.charge_mah_cm2, abs=1e-6)
        during = (time > step.time_s) & (time < step.time_s + length)
        if pauses:
            assert np.all(current[during] == 0)
    assert np.diff([s.time_s for s in series.steps]).min() > length


def test_the_short_is_a_drop_of_the_voltage():
    series = bare("plating")
    last = series.steps[-1]
    before = [r.voltage_v for r in series.cycler if r.current_ma and r.time_s < last.time_s - 30]
    after = [r.voltage_v for r in series.cycler if r.time_s >= last.time_s]
    assert min(before) > 0.1
    assert max(after) < 0.01
    assert last.voltage_v < 0.01


def test_a_step_is_a_scan_with_noise_of_its_own(tiny):
    series = tiny["plating"]
    scans = [scan_of(step, seed=series.seed) for step in series.steps[:2]]
    again = scan_of(build_series("plating", seed=3).steps[1], seed=3)
    block = [s.frames.read((20, 24), frames=(3, 5)) for s in (*scans, again)]
    assert isinstance(scans[0].frames, Frames)
    np.testing.assert_array_equal(block[1], block[2])
    assert np.mean(block[0] == block[1]) < 0.1
    assert [s.name for s in scans] == ["P0", "P1"]
    for step, scan in zip(series.steps, scans, strict=False):
        assert scan.start_time.timestamp() == pytest.approx(step.time_s, abs=1e-3)
        assert scan.dark_flats[0].time_s < step.time_s < scan.dark_flats[-1].time_s


def test_a_perfect_scan_is_the_projection_of_its_parts():
    series = build_series("plating", perfect=True, n_angles=3, rows=48, **BARE)
    step = series.steps[3]
    with_crack = scan_of(step).frames
    without = dataclasses.replace(
        step,
        sample=dataclasses.replace(
            step.sample, parts=tuple(p for p in step.sample.parts if p.name not in {"crack", "chip"})
        ),
    )
    drop = np.log(with_crack.read() / scan_of(without).frames.read()).sum(axis=(1, 2))
    # the sum of a projection is the attenuation of what was taken away, through the pixel's area
    crack = thing(step, 1)
    expected = crack.volume_um3 * step.sample.mu_cm1["nasicon"] * 1e-4 / step.acquisition.pixel_um**2
    np.testing.assert_allclose(drop, expected, rtol=1e-3)


# ---- what is refused


def test_limits_that_are_told_are_allowed():
    for option, value in (("crack_opening_um", 134.6), ("scale_um", 0.4337), ("scale_um", 130.0)):
        build_series("plating", **{option: value}, **BARE)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("platting", {}, "'plating'"),
        ("plating", {"size": "tinny"}, "'tiny'"),
        ("plating", {"seed": -1}, "seed"),
        ("plating", {"crack_opening_um": 99999.0}, "= 99999;.*at most 134.6"),
        ("plating", {"crack_opening_um": 0.0}, "positive"),
        ("plating", {"crack_opening_um": math.nan}, "positive"),
        ("plating", {"bubble_radius_um": 900.0}, "up to"),
        ("stripping", {"bubble_radius_um": 1200.0}, "up to"),
        ("stripping", {"bubble_radius_um": -3.0}, "more than 0"),
        ("stripping", {"eta_frac": 0.0}, "eta_frac"),
        ("stripping", {"eta_frac": 1.5}, "eta_frac"),
        ("plating", {"rows": 4}, "16 rows"),
        ("plating", {"n_pores": 30_000}, "n_pores"),
        ("plating", {"scale_um": -1.0}, "scale_um = -1;.*0.4337 to 130"),
        ("plating", {"scale_um": 1000.0}, "scale_um = 1000;.*0.4337 to 130"),
        ("plating", {"scale_um": math.nan}, "scale_um = nan"),
        ("plating", {"photonss": 3}, "'photons'"),
        ("plating", {"energy_kev": 2.0}, "5 to 300"),
    ],
)
def test_what_cannot_be_is_refused_by_name(kind, options, says):
    with pytest.raises(BadRecipe, match=says):
        build_series(kind, **options)


def test_given_sizes_are_taken():
    plating = build_series("plating", size="release", crack_opening_um=12.0, bubble_radius_um=80.0, **BARE)
    assert [thing(s, 1).opening_max_um for s in plating.steps[1:6]] == pytest.approx([4, 6, 10, 12, 16])
    assert radius_um(thing(plating.steps[0], 3)) == pytest.approx(80)
    stripping = build_series("stripping", size="release", bubble_radius_um=300.0, **BARE)
    assert radius_um(grown(stripping)[-1]) == pytest.approx(300)


def test_many_pores_keep_off_the_cracks_and_each_other():
    series = build_series("plating", size="release", n_pores=1200, n_specks=120, drift=False)
    step = series.steps[0]
    still = [o for o in step.objects if o.kind in {"pore", "inclusion"}]
    assert 800 < len(still) <= 1320
    shapes = {p.name: p.shape for p in step.sample.parts}
    balls = np.array([(*shapes[o.parts[0]].center_mm, max(shapes[o.parts[0]].semi_axes_mm)) for o in still])
    for last in series.steps[1:]:
        for part in (p for p in last.sample.parts if p.name.startswith("crack")):
            distance = np.linalg.norm(
                balls[:, :3] - np.clip(balls[:, :3], *np.array(part.shape.bounds_mm).T), axis=1
            )
            assert np.all(distance > balls[:, 3])
    gaps = np.linalg.norm(balls[:, None, :3] - balls[None, :, :3], axis=2) - balls[:, 3] - balls[:, None, 3]
    assert gaps[~np.eye(len(balls), dtype=bool)].min() > 0
