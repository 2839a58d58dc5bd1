import csv
import json
import math
import re
import shutil
from datetime import datetime
from functools import cache

import numpy as np
import pictures
import pytest

from xctpipe import contact_sheet, formats, simulated_truth, simulation
from xctpipe.cli import main
from xctpipe.errors import BadRecipe
from xctpipe.phantom import (
    Acquisition,
    Cell,
    Cylinder,
    Part,
    Sample,
    Stripe,
    build_cell,
    simulate,
    sphere,
    with_changes,
)
from xctpipe.phantom.faults import (
    beam_clock,
    counted,
    leaning,
    recorded_frames,
    response,
    tail_halo_px,
    with_blob,
    with_large_stripe,
    with_tail,
)
from xctpipe.phantom.projector import pixel_shadows, project
from xctpipe.phantom.series import build_series
from xctpipe.phantom.timeline import FIRST_SCAN, CyclerRow, Series, TimeStep, TrueEvent, TrueObject

VIEW = Acquisition(n_angles=31, rows=24, cols=40, pixel_um=50.0, photons=1000.0)


# ---- faults, one by one


@pytest.mark.parametrize("electrons_per_photon", [0.0, 2.3])
def test_counting_is_unbiased_and_its_spread_is_that_of_photons_and_electrons(electrons_per_photon):
    view = with_changes(VIEW, photons=40.0, electrons_per_photon=electrons_per_photon)
    light = np.full((200, 500), 0.7)
    got = counted(light, acquisition=view, rng=np.random.default_rng(1))
    excess = 1 + (1 / electrons_per_photon if electrons_per_photon else 0)
    variance = excess * 0.7 / 40
    assert got.mean() == pytest.approx(0.7, abs=3 * math.sqrt(variance / got.size))
    # the spread of a variance over n values is sqrt(2 / n), a little more for few counts
    assert got.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / got.size))


def test_counting_without_photons_is_the_light_itself():
    light = np.linspace(0, 1, 12).reshape(3, 4)
    view = with_changes(VIEW, photons=None)
    np.testing.assert_array_equal(counted(light, acquisition=view, rng=np.random.default_rng(0)), light)


def test_haze_spreads_a_point_as_an_exponential_and_keeps_its_light():
    view = with_changes(VIEW, tail_frac=0.07, tail_length_px=6.0)
    light = np.zeros((201, 241))
    light[100, 120] = 1.0
    got = with_tail(light, acquisition=view)
    assert got.sum() == pytest.approx(1.0, abs=0.07 * 6 * math.exp(-5))
    assert got[100, 120] == pytest.approx(0.93 + 0.07 / (2 * math.pi * 36), rel=2e-3)
    for away in (6, 12, 24):
        expected = 0.07 * math.exp(-away / 6) / (2 * math.pi * 36)
        assert got[100, 120 + away] == pytest.approx(expected, rel=0.02)
        assert got[100 - away, 120] == pytest.approx(expected, rel=0.02)


def test_haze_leaves_a_flat_field_and_is_off_by_default():
    flat = np.full((30, 50), 0.8)
    assert with_tail(flat, acquisition=VIEW) is flat
    assert tail_halo_px(VIEW) == 0
    view = with_changes(VIEW, tail_frac=0.1, tail_length_px=20.0)
    assert tail_halo_px(view) == 100
    np.testing.assert_allclose(with_tail(flat, acquisition=view), 0.8, rtol=1e-12)


@pytest.mark.parametrize("rows", [None, (5, 15)])
def test_a_large_stripe_scales_the_line_integral_between_flats_and_projections(rows):
    stripe = Stripe("large", col=8, width=20, amplitude=0.1, rows=rows)
    flat, through = np.full((24, 40), 9000.0), np.full((24, 40), 9000.0 * math.exp(-0.7))
    bent = [with_large_stripe(s, stripe=stripe, rows=(0, 24), open_beam_adu=1e4) for s in (flat, through)]
    ratio = -np.log(bent[1] / bent[0]) / 0.7 - 1
    first, last = rows or (0, 24)
    window = 0.5 * (1 - np.cos(2 * math.pi * (np.arange(20) + 0.5) / 20))
    np.testing.assert_allclose(ratio[first:last, 8:28], np.tile(0.1 * window, (last - first, 1)), atol=1e-12)
    outside = np.ones((24, 40), bool)
    outside[first:last, 8:28] = False
    np.testing.assert_array_equal(bent[1][outside], through[outside])


def test_a_blob_is_an_ellipse_whose_rim_is_untouched():
    stripe = Stripe("blob", col=10, width=11, amplitude=-0.2, rows=(3, 18))
    got = with_blob(np.ones((24, 40)), stripe=stripe, rows=(0, 24))
    assert got[10, 15] == pytest.approx(0.8)
    outside = np.ones((24, 40), bool)
    outside[3:18, 10:21] = False
    assert np.all(got[outside] == 1)
    assert got[3, 10] == 1
    # the mean of 1 - d^2 over an ellipse is a half
    assert (1 - got).sum() == pytest.approx(0.2 * 0.5 * math.pi * 11 * 15 / 4, rel=0.03)


def test_uneven_response_does_not_depend_on_the_block_of_rows():
    stripes = (
        Stripe("large", col=2, width=15, amplitude=0.05, rows=(4, 20)),
        Stripe("blob", col=20, width=9, amplitude=-0.1, rows=(6, 15)),
    )
    view = with_changes(VIEW, stripes=stripes)
    signal = np.random.default_rng(2).uniform(100, 20000, (24, 40))
    whole = response(signal, acquisition=view, rows=(0, 24), projection=True)
    parts = [
        response(signal[a:b], acquisition=view, rows=(a, b), projection=True)
        for a, b in ((0, 3), (3, 8), (8, 19), (19, 24))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    flat = response(signal, acquisition=view, rows=(0, 24), projection=False)
    np.testing.assert_array_equal(flat[6:15, 20:29], signal[6:15, 20:29])


def test_a_leaning_axis_moves_each_row_by_its_height():
    view = with_changes(VIEW, rows=41, cols=200, tilt_deg=2.0, center_px=90.0)
    shapes = (
        Cylinder(0.1, 0.2, 1.5, -2.0, 2.0, 1.0),
        sphere((0.3, -0.1, 0.2), radius_mm=0.7, delta_mu_cm1=2.0),
    )
    angles = np.array([0.4])
    shadows = pixel_shadows(shapes, angles_rad=angles, pixel_um=view.pixel_um, axis_px=view.axis_px)
    span = {"rows": (0, view.rows), "cols": (0, view.cols)}
    upright = project(shadows[0], **span)
    tilted = project(leaning(shadows, acquisition=view)[0], **span)
    cols = np.arange(view.cols)
    moved = (tilted @ cols) / tilted.sum(axis=1) - (upright @ cols) / upright.sum(axis=1)
    expected = math.tan(math.radians(2.0)) * (np.arange(view.rows) - 20)
    np.testing.assert_allclose(moved, expected, atol=2e-3)
    np.testing.assert_allclose(tilted.sum(axis=1), upright.sum(axis=1), rtol=1e-4)
    assert leaning(shadows, acquisition=VIEW) is shadows


def test_lost_frames_are_skipped_and_the_beam_has_its_clock():
    view = with_changes(VIEW, lost_frames=(3, 30), beam_from_frac=0.25, beam_to_frac=0.5)
    assert recorded_frames(view).tolist() == [i for i in range(31) if i not in {3, 30}]
    assert [beam_clock(view, f) for f in (0.0, 0.5, 1.0)] == [0.25, 0.375, 0.5]
    assert [beam_clock(VIEW, f) for f in (0.0, 0.3, 1.0)] == [0.0, 0.3, 1.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"tail_frac": 1.0},
        {"tail_length_px": 0.0},
        {"electrons_per_photon": -1.0},
        {"lost_frames": (31,)},
        {"lost_frames": tuple(range(30))},
        {"tilt_deg": 11.0},
        {"n_sub_angles": 0},
        {"n_sub_angles": 1.5},
        {"distance_mm": -1.0},
        {"beam_to_frac": 1.5},
        {"instrument_seed": -1},
    ],
)
def test_an_acquisition_that_is_not_possible(changes):
    with pytest.raises(BadRecipe, match=next(iter(changes))):
        with_changes(VIEW, **changes)


def test_a_blob_needs_rows():
    with pytest.raises(BadRecipe, match="rows"):
        Stripe("blob", col=3, amplitude=0.1)


# ---- faults in frames

EMPTY = Sample((), energy_kev=80.0)


def test_frames_with_gain_and_haze_have_the_light_of_frames_without_noise():
    view = with_changes(
        VIEW, photons=50.0, electrons_per_photon=2.3, tail_frac=0.1, tail_length_px=5.0, beam_falloff_frac=0.3
    )
    noisy = simulate(EMPTY, acquisition=with_changes(view, n_angles=400), seed=1).frames.read()
    exact = simulate(
        EMPTY, acquisition=with_changes(view, photons=None, pixel_type="float32"), seed=1
    ).frames.read(frames=(0, 1))[0]
    light = (exact - view.dark_adu) / view.open_beam_adu
    spread = np.sqrt(light * (1 + 1 / 2.3) / 50) * view.open_beam_adu
    deviation = (noisy.mean(axis=0) - exact) / (spread / math.sqrt(400))
    assert abs(deviation.mean()) < 3 / math.sqrt(deviation.size)
    assert deviation.std() == pytest.approx(1, abs=0.1)


def test_haze_dims_what_is_bright_beside_a_dark_body_and_rows_read_alone_are_the_same():
    disc = Part("disc", "test", Cylinder(0.0, 0.0, 0.5, -0.4, 0.4, 30.0))
    view = with_changes(VIEW, photons=None, pixel_type="float32", tail_frac=0.2, tail_length_px=4.0)
    frames = simulate(Sample((disc,), 80.0), acquisition=view).frames
    clear = simulate(Sample((disc,), 80.0), acquisition=with_changes(view, tail_frac=0.0)).frames
    gain = frames.read(frames=(0, 1))[0] - clear.read(frames=(0, 1))[0]
    assert gain[12, 20] > 0.02 * view.open_beam_adu
    assert gain[12, 4] < -0.001 * view.open_beam_adu
    np.testing.assert_array_equal(frames.read((3, 9), frames=(2, 4)), frames.read()[2:4, 3:9])


def test_lost_frames_leave_more_angles_than_frames():
    scan = simulate(EMPTY, acquisition=with_changes(VIEW, lost_frames=(4, 9), n_extra_angles=1), seed=2)
    whole = simulate(EMPTY, acquisition=VIEW, seed=2)
    assert scan.shape[0] == 29
    assert len(scan.angles_rad) == 32
    kept = [i for i in range(31) if i not in {4, 9}]
    np.testing.assert_array_equal(scan.frames.read(), whole.frames.read()[kept])


# ---- a series on disk


def test_the_beam_drifts_through_a_series_from_the_flats_before_to_those_after():
    series = small_series(
        photons=None,
        pixel_type="float32",
        dark_adu=0.0,
        beam_decay_frac=0.1,
        bands_frac=0.05,
        bands_drift_px=2.0,
    )
    before, after = (item.flats.read()[0] for item in simulation.dark_flats(series))
    means = [before.mean()]
    for i in range(3):
        a = simulation.acquisition_of(series, i)
        lit = simulate(EMPTY, acquisition=a, seed=i).frames.read()
        means += [lit[0].mean(), lit[-1].mean()]
        assert 0 < a.beam_from_frac < a.beam_to_frac < 1
        if i == 1:  # in the middle of the series: half of the decay, and one row of two
            np.testing.assert_allclose(lit[10][1:], 0.95 * before[:-1], rtol=1e-5)
    means.append(after.mean())
    assert np.all(np.diff(means) < 0)
    assert after.mean() / before.mean() == pytest.approx(0.9, rel=0.02)


@cache
def small_cell(seed):
    return build_cell(Cell(rows=32, cols=48, pixel_um=86.0, seed=seed))


def small_series(*, n_steps=3, seed=4, **changes):
    """Equal steps an hour apart: what is written, not what happens in the cell."""
    plain = {"n_angles": 21, "rows": 32, "cols": 48, "pixel_um": 86.0, "n_flats": 4, "n_darks": 3}
    view = Acquisition(**(plain | changes))
    start_s = FIRST_SCAN.timestamp()
    sample = small_cell(seed)
    thing = TrueObject(3, "bubble", 1e6, 1e6, math.nan, math.nan, math.nan, 0.0, 1.0, 2.0, 3.0)
    steps = tuple(
        TimeStep(
            f"P{i}",
            i,
            start_s + 3600 * i,
            0.1 * i,
            0.7,
            0.1,
            sample,
            view,
            (thing,),
            {"contact_frac": 1.0, "bottleneck_um": 0.0},
            {"nak": 1.0},
            False,
        )
        for i in range(n_steps)
    )
    events = (TrueEvent("birth", "P0", "P1", (3,)),)
    cycler = tuple(CyclerRow(start_s - 60 + 600 * i, 0.1 + 0.01 * i, 0.088, 0.01 * i) for i in range(20))
    return Series("plating", "tiny", seed, steps, events, 0.1257, cycler)


def files_of(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("layout", sorted(formats.layouts()))
def test_a_series_reads_back_in_every_layout(layout, tmp_path):
    series = small_series()
    raw = simulation.write_series(tmp_path / "cell", series, layout=layout)
    found = [each for each in formats.find_scans(raw) if each.holds == "projections"]
    scans = [formats.open_scan(each.path) for each in found]
    assert [scan.name for scan in scans] == ["scan_00001", "scan_00002", "scan_00003"]
    assert [scan.start_time.timestamp() for scan in scans] == pytest.approx(
        [step.time_s for step in series.steps], abs=1e-3
    )
    before_s, after_s = simulation.flat_times_s(series)
    assert before_s < series.steps[0].time_s
    assert after_s > series.steps[-1].time_s + 21 * 0.2
    for i, scan in enumerate(scans):
        assert scan.shape == (21, 32, 48)
        assert not scan.errors
        assert [item.flats.shape[0] for item in scan.dark_flats] == [4, 4]
        assert [item.darks.shape[0] for item in scan.dark_flats] == [3, 3]
        assert [item.time_s for item in scan.dark_flats] == pytest.approx([before_s, after_s], abs=1e-3)
        expected = simulation.scan_in_series(series, i)
        np.testing.assert_array_equal(scan.frames.read(), expected.frames.read())
        np.testing.assert_allclose(scan.angles_rad, expected.angles_rad, atol=1e-6)
    assert not (tmp_path / "cell" / "unfinished").exists()


def test_the_same_series_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        simulation.write_series(tmp_path / name, small_series(seed=seed), layout="hex1")
    a, b, c = (files_of(tmp_path / name / "raw_data") for name in "abc")
    assert a == b
    assert a != c
    assert a.keys() == c.keys()


def test_scans_of_a_series_differ_in_noise_only(tmp_path):
    series = small_series(response_frac=0.05)
    first, second = (simulation.scan_in_series(series, i).frames.read().astype(float) for i in (0, 1))
    assert np.all((first != second).mean(axis=(1, 2)) > 0.5)
    assert first.mean() == pytest.approx(second.mean(), rel=1e-3)


def test_an_interrupted_series_goes_on_with_the_scan_that_was_not_finished(tmp_path, monkeypatch):
    series, folder = small_series(), tmp_path / "cell"
    write, calls = formats.write_scan, []

    def interrupted(path, scan, *, layout):
        calls.append(path.name)
        write(path, scan, layout=layout)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(formats, "write_scan", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulation.write_series(folder, series, layout="hex1")
    assert [child.name for child in (folder / "raw_data").iterdir()] == ["scan_00001"]
    kept = (folder / "raw_data" / "scan_00001" / "proj_00000.hdf").stat()
    simulation.write_series(folder, series, layout="hex1")
    assert calls == ["scan_00001", "scan_00002", "scan_00002", "scan_00003"]
    assert (folder / "raw_data" / "scan_00001" / "proj_00000.hdf").stat().st_mtime_ns == kept.st_mtime_ns
    simulation.write_series(folder, series, layout="hex1")
    assert len(calls) == 4
    simulation.write_series(tmp_path / "whole", series, layout="hex1")
    assert files_of(folder) == files_of(tmp_path / "whole")


def test_another_series_does_not_go_on_in_a_folder(tmp_path):
    simulation.write_series(tmp_path / "cell", small_series(), layout="hex1")
    with pytest.raises(BadRecipe, match=r"holds another series \(--seed 4 there, 5 here\)"):
        simulation.write_series(tmp_path / "cell", small_series(seed=5), layout="hex1")
    with pytest.raises(BadRecipe, match="--layout hex1 there, nxtomo here"):
        simulation.write_series(tmp_path / "cell", small_series(), layout="nxtomo")
    with pytest.raises(BadRecipe, match="--photons as its size says there, 500 here"):
        simulation.write_series(
            tmp_path / "cell", small_series(photons=500), layout="hex1", options={"--photons": 500}
        )
    with pytest.raises(BadRecipe, match="older program"):
        simulation.write_series(tmp_path / "cell", small_series(n_flats=5), layout="hex1")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(BadRecipe, match="not empty"):
        simulation.write_series(tmp_path / "mine", small_series(), layout="hex1")
    with pytest.raises(BadRecipe, match="not a folder"):
        simulation.write_series(tmp_path / "mine" / "thesis.tex", small_series(), layout="hex1")


@pytest.mark.parametrize("layout", sorted(formats.layouts()))
@pytest.mark.parametrize("lost", ["first", "last"])
def test_a_scan_that_has_lost_a_file_is_made_anew_and_no_other(layout, lost, tmp_path):
    series, folder = small_series(n_steps=2), tmp_path / "cell"
    simulation.write_series(folder, series, layout=layout)
    before = files_of(folder / "raw_data")
    written = {path: (folder / "raw_data" / path).stat().st_mtime_ns for path in before}
    paths = sorted(json.loads((folder / "simulation.json").read_text())["finished"]["scan_00001"])
    gone = folder / "raw_data" / paths[0 if lost == "first" else -1]
    if lost == "first":
        gone.unlink()
    else:  # or is cut off
        gone.write_bytes(gone.read_bytes()[:-1])
    simulation.write_series(folder, series, layout=layout)
    assert files_of(folder / "raw_data") == before
    anew = {p.as_posix() for p, t in written.items() if (folder / "raw_data" / p).stat().st_mtime_ns != t}
    assert anew == set(paths)


@pytest.mark.parametrize("layout", sorted(formats.layouts()))
def test_folders_of_darks_and_flats_have_the_name_of_no_scan_of_the_series(layout, tmp_path):
    """Parts of a series that are written apart are together what the series is when written at once."""
    whole = simulation.write_series(tmp_path / "whole", small_series(), layout=layout)
    together = {}
    for part in ((0, 1), (1, 3)):
        raw = simulation.write_series(tmp_path / f"part{part[0]}", small_series(), layout=layout, scans=part)
        files = files_of(raw)
        assert all(together[path] == files[path] for path in together.keys() & files.keys())
        together |= files
        names = [each.name for each in formats.find_scans(raw) if each.holds == "projections"]
        assert names == [simulation.scan_name(i) for i in range(*part)]
    assert together == files_of(whole)


def test_a_part_of_a_series_has_its_own_darks_and_flats(tmp_path):
    raw = simulation.write_series(tmp_path / "cell", small_series(), layout="hex1", scans=(1, 2))
    found = [each for each in formats.find_scans(raw) if each.holds == "projections"]
    assert [each.name for each in found] == ["scan_00002"]
    assert len(formats.open_scan(found[0].path).dark_flats) == 2
    with pytest.raises(BadRecipe, match="0:3"):
        simulation.write_series(tmp_path / "other", small_series(), layout="hex1", scans=(1, 4))


def test_a_disk_too_small_is_said_before_writing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(BadRecipe, match=r"3 scan\(s\) need 0\.0044.* GB .*, 0\.001 GB are free"):
        simulation.write_series(tmp_path / "cell", small_series(), layout="hex1")
    assert not (tmp_path / "cell").exists()


def test_truth_tables_and_the_cycler_name_what_was_written(tmp_path):
    series = small_series()
    written = simulation.scans_of(series, layout="hex1")
    simulated_truth.write_truth(tmp_path, series, scans=written)
    simulated_truth.write_cycler(tmp_path, series)
    truth = json.loads((tmp_path / "truth.json").read_text(), parse_constant=pytest.fail)
    names = ["scan_00001", "scan_00002", "scan_00003"]
    assert [row["scan"] for row in truth["scans"]] == names
    assert truth["steps"] == dict(zip(names, ("P0", "P1", "P2"), strict=True))
    assert [datetime.fromisoformat(text) for text in truth["start_times"].values()] == [
        scan.start_time for scan in written.values()
    ]
    assert truth["objects"][1]["area_um2"] is None
    (event,) = truth["tables"]["events"]
    assert (event["kind"], event["scan_from"], event["scan_to"]) == ("birth", *names[:2])
    np.testing.assert_array_equal(truth["angles_rad"]["scan_00002"], written[1].angles_rad)
    with (tmp_path / "truth" / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["volume_um3"] for row in rows] == ["1000000"] * 3
    with (tmp_path / "truth" / "scans.csv").open() as file:
        assert [row["charge_mah_cm2"] for row in csv.DictReader(file)] == ["0", "0.1", "0.2"]
    with (tmp_path / "cycler.csv").open() as file:
        lines = list(csv.DictReader(file))
    times = [datetime.fromisoformat(line["time"]).timestamp() for line in lines]
    assert times[0] <= written[0].start_time.timestamp() <= times[-1]
    assert [float(line["voltage_v"]) for line in lines] == pytest.approx([r.voltage_v for r in series.cycler])


def test_what_is_written_of_a_part_is_about_that_part(tmp_path):
    series = build_series("stripping", n_pores=0, n_specks=0, n_angles=5)
    simulated_truth.write_truth(
        tmp_path, series, scans=simulation.scans_of(series, layout="hex1", scans=(2, 4))
    )
    simulated_truth.write_cycler(tmp_path, series)
    names = {"scan_00003", "scan_00004"}
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert set(truth["written"]) == set(truth["steps"]) == set(truth["start_times"]) == names
    assert truth["n_scans"] == 5
    told = set()
    for path in sorted((tmp_path / "truth").glob("*.csv")):
        rows = csv_rows(path)
        told |= {v for row in rows for key, v in row.items() if key in {"scan", "scan_from", "scan_to"}}
    assert told == names
    # that two bubbles merge is seen in these; that one appears in the third is not
    events = [(e["kind"], e["scan_from"], e["scan_to"]) for e in truth["tables"]["events"]]
    assert events == [("merge", "scan_00003", "scan_00004")]
    lines = csv_rows(tmp_path / "cycler.csv")
    start, end = (datetime.fromisoformat(lines[i]["time"]).timestamp() for i in (0, -1))
    assert start <= series.steps[0].time_s < series.steps[-1].time_s <= end


@pytest.mark.parametrize("kind", ["plating", "stripping", "control"])
def test_every_column_and_entry_is_described_beside_the_truth(kind, tmp_path):
    series = build_series(kind, n_pores=0, n_specks=0, n_angles=5)
    simulated_truth.write_truth(tmp_path, series, scans=simulation.scans_of(series, layout="hex1"))
    simulated_truth.write_cycler(tmp_path, series)
    parts = (tmp_path / "truth" / "columns.md").read_text().split("\n## ")[1:]
    told = {
        text.split("\n")[0]: [line.split("`")[1] for line in text.split("\n") if line.startswith("- `")]
        for text in parts
    }
    paths = [*(tmp_path / "truth").glob("*.csv"), tmp_path / "cycler.csv"]
    for path in paths:
        name = path.name if path.parent.name == "truth" else f"../{path.name}"
        with path.open() as file:
            assert next(csv.reader(file)) == told.pop(name)
    names, _ = mpt_table(tmp_path / "cycler.mpt")
    assert names == told.pop("../cycler.mpt")
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert set(truth) - set(told["../truth.json"]) == set()
    assert set(told.pop("../truth.json")) - set(truth) <= {"crack_opening_um"}
    assert not told


@pytest.mark.parametrize("kind", ["plating", "stripping"])
def test_the_current_of_both_cycler_files_is_the_charge_of_the_scans(kind, tmp_path):
    series = build_series(kind, n_pores=0, n_specks=0, n_angles=5)
    simulated_truth.write_truth(tmp_path, series, scans=simulation.scans_of(series, layout="hex1"))
    simulated_truth.write_cycler(tmp_path, series)
    sign = {"plating": 1, "stripping": -1}[kind]
    area = json.loads((tmp_path / "truth.json").read_text())["electrode_area_cm2"]
    scans = [
        {k: float(row[k]) for k in ("time_s", "charge_mah_cm2", "current_ma_cm2")}
        for row in csv_rows(tmp_path / "truth" / "scans.csv")
    ]
    rows = csv_rows(tmp_path / "cycler.csv")
    start_s = datetime.fromisoformat(rows[0]["time"]).timestamp()
    names, table = mpt_table(tmp_path / "cycler.mpt")
    mpt = dict(zip(names, table.T, strict=True))
    of_csv = [np.array([float(r[k]) for r in rows]) for k in ("time_s", "current_ma", "charge_mah_cm2")]
    of_mpt = [mpt["time/s"], mpt["I/mA"], mpt["(Q-Qo)/mA.h"] / area]
    np.testing.assert_array_equal(mpt["ox/red"] == 1, mpt["I/mA"] > 0)
    for time, current, charge in (of_csv, of_mpt):
        signed, passed = (
            np.concatenate([[0], np.cumsum(np.diff(time) * flows[:-1])]) / 3600 / area
            for flows in (current, abs(current))
        )
        np.testing.assert_allclose(charge, signed, atol=1e-5 * passed[-1])
        for scan in scans:
            found = np.interp(scan["time_s"] - start_s, time, passed)
            assert found == pytest.approx(scan["charge_mah_cm2"], abs=1e-5 * passed[-1])
        assert sign * charge[-1] == pytest.approx(scans[-1]["charge_mah_cm2"], rel=1e-5)
    assert all(np.sign(scan["current_ma_cm2"]) == sign for scan in scans[1:])


def csv_rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def mpt_table(path):
    lines = path.read_bytes().decode("latin-1").split("\r\n")
    assert lines[0] == "EC-Lab ASCII FILE"
    n_head = int(lines[1].split(":")[1])
    names = lines[n_head - 1].rstrip("\t").split("\t")
    table = [line.rstrip("\t").split("\t") for line in lines[n_head:] if line]
    return names, np.array(table, dtype=float)


def test_the_mpt_file_is_what_ec_lab_writes(tmp_path):
    series = small_series()
    simulated_truth.write_cycler(tmp_path, series)
    names, table = mpt_table(tmp_path / "cycler.mpt")
    assert table.shape == (20, len(names))
    column = {name: table[:, i] for i, name in enumerate(names)}
    assert column["time/s"].tolist() == [600.0 * i for i in range(20)]
    np.testing.assert_allclose(column["Ewe/V"], [row.voltage_v for row in series.cycler])
    np.testing.assert_allclose(
        column["(Q-Qo)/mA.h"], [0.1257 * row.charge_mah_cm2 for row in series.cycler], rtol=1e-9
    )


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_frames_made_ahead_of_the_writer_are_the_frames(chunk, monkeypatch):
    monkeypatch.setattr(simulation, "_LEAST_CHUNK", chunk)
    monkeypatch.setattr(simulation, "_CHUNK_BYTES", 1)
    series = small_series(n_steps=1)
    frames = simulation.scan_in_series(series, 0).frames
    told = []

    class Counter:
        def advance(self, amount):
            told.append(amount)

    for block in (1, 6, 21):
        told.clear()
        with simulation.ahead(Counter()) as stream:
            streamed = stream(frames)
            spans = [(first, min(first + block, 21)) for first in range(0, 21, block)]
            got = np.concatenate([streamed.read(frames=span) for span in spans])
        np.testing.assert_array_equal(got, frames.read())
        assert sum(told) == 21


# ---- the command


def test_the_command_writes_a_series_that_its_recipe_can_plan(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "cell"
    call = ["simulate", "cell", str(folder), "--series", "plating", "--angles", "31", "--scans", "3:5"]
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert "2 scan(s) of the series plating" in printed
    here = {child.name for child in folder.iterdir()}
    files = {"truth.json", "recipe.toml", "cycler.csv", "cycler.mpt", "contact_sheet.png", "simulation.json"}
    assert here == files | {"raw_data", "truth"}
    assert (folder / "contact_sheet.png").stat().st_size > 50_000
    recipe = printed.split("next: xctpipe run ")[1].strip()
    assert main(["plan", recipe]) == 0
    assert "scan_00004" in capsys.readouterr().out
    pictures.leave_out(monkeypatch)
    assert main(call) == 0
    # all projections are a default, and asking for what is there is no other wish
    assert main([*call, "--rows", "64"]) == 0
    assert main([*call, "--seed", "1", "--photons", "0"]) == 2
    assert "--seed 0 there, 1 here; --photons as its size says there, 0.0 here" in capsys.readouterr().err


def test_a_folder_where_a_simulation_is_named_is_told_of_both(capsys):
    assert main(["simulate", "somewhere"]) == 2
    err = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "xctpipe simulate scan somewhere or xctpipe simulate cell somewhere" in err


@pytest.mark.parametrize(("layout", "where"), [("hex1", "folders of their own"), ("nxtomo", "every scan")])
def test_the_recipe_says_where_darks_and_flats_are(layout, where, tmp_path):
    path = simulated_truth.write_recipe(
        tmp_path, build_series("control", n_pores=0, n_specks=0), scans=["scan_00001"], layout=layout
    )
    assert where in path.read_text().split("\n")[0]


@pytest.mark.parametrize(
    ("wish", "word"),
    [
        (["--series", "platting"], "plating"),
        (["--size", "huge"], "tiny"),
        (["--layout", "hex9"], "hex1"),
        (["--seed", "-1"], "seed"),
        (["--photons", "-5"], "--photons -5: give 1 to 1e+12, or 0"),
        (["--photons", "nan"], "--photons nan"),
        (["--distance-mm", "-1"], "--distance-mm -1"),
        (["--distance-mm", "500"], "--distance-mm 500"),
        (["--crack-opening-um", "0"], "--crack-opening-um 0"),
        (["--crack-opening-um", "99999"], "--crack-opening-um 99999"),
        (["--bubble-radius-um", "99999"], "--bubble-radius-um 99999"),
        (["--scale-um", "0"], "--scale-um 0"),
        (["--scale-um", "1000"], "0.4337 to 130"),
        (["--rows", "8"], "16 rows"),
        (["--angles", "1"], "--angles 1"),
        (["--scans", "5:9"], "--scans"),
        (["--scans", "all"], "--scans"),
    ],
)
def test_a_wish_that_cannot_be_met_is_one_message(wish, word, tmp_path, capsys):
    assert main(["simulate", "cell", str(tmp_path / "cell"), *wish]) == 2
    err = capsys.readouterr().err
    assert word in err
    assert not any(name in err for name in ("Traceback", "n_angles", "_um", "_mm", "simulate: "))
    assert not (tmp_path / "cell").exists()


def test_a_disk_too_small_stops_the_command(tmp_path, monkeypatch, capsys):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**8))
    assert main(["simulate", "cell", str(tmp_path / "cell"), "--size", "small"]) == 2
    assert "7 scan(s) need 0.7" in capsys.readouterr().err


def test_the_need_of_a_disk_too_small_is_above_what_is_free(tmp_path, monkeypatch):
    """Just too little, so that frames alone would fit."""
    series, usage = small_series(), shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4 * 10**6))
    with pytest.raises(BadRecipe) as caught:
        simulation.write_series(tmp_path / "cell", series, layout="hex1")
    need, free = (float(found) for found in re.findall(r"([\d.]+) GB", str(caught.value)))
    assert need > free


# ---- the contact sheet


def test_sections_of_the_sheet_show_the_crack_where_the_stack_has_moved_it():
    series = build_series("plating", size="tiny", seed=2)
    whole, close = contact_sheet.choose_windows(series)
    mu = series.steps[0].sample.mu_cm1["nasicon"]
    for step in series.steps[:2]:
        assert contact_sheet.vertical_truth(step, contact_sheet.moved_with(close, step)).max() > 0.9 * mu
    largest = series.steps[4]
    moved = contact_sheet.moved_with(close, largest)
    section = contact_sheet.vertical_truth(largest, moved)
    # through the middle column: liquid, chip, crack, ceramic
    column = section[:, section.shape[1] // 2]
    kinds = [kind for i, kind in enumerate(column > 0.9 * mu) if i == 0 or kind != (column > 0.9 * mu)[i - 1]]
    assert kinds == [False, True, False, True]
    assert contact_sheet.moved_with(whole, series.steps[0]) == whole


def test_a_plain_slice_is_the_sample():
    body = Part("disc", "test", Cylinder(0.2, -0.1, 0.8, -9.0, 9.0, 5.0))
    view = with_changes(VIEW, n_angles=91, photons=None, pixel_type="float32", center_px=17.0, n_flats=1)
    got = contact_sheet.plain_slices(simulate(Sample((body,), 80.0), acquisition=view), view, rows=(10, 12))
    y, x = np.mgrid[:40, :40] - 19.5
    inside = (x * 0.05 - 0.2) ** 2 + (y * 0.05 + 0.1) ** 2 < 0.7**2
    assert np.median(got[:, inside]) == pytest.approx(5.0, rel=0.03)
    assert np.abs(np.median(got[:, np.hypot(x * 0.05 - 0.2, y * 0.05 + 0.1) > 1.0])) < 0.2
