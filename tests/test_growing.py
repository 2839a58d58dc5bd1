"""The tables `growth` and `series` of a run, from its other tables: against the truth of simulated cells."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xctpipe.blocks import in_this_process
from xctpipe.csvtables import read_table
from xctpipe.growing import grow
from xctpipe.phantom.series import build_series
from xctpipe.phantom.tables import tables_of
from xctpipe.recipe import make_recipe
from xctpipe.runfolder import write_table
from xctpipe.series.closure import ceiling_um3
from xctpipe.series.growth_rows import COLUMNS
from xctpipe.stages import ScanWork, SeriesWork

AREA_CM2 = 0.12566370614359174
Rows = list[dict[str, Any]]


def work_of(folder: Path, scans: Sequence[str], *, area_cm2: float | None = AREA_CM2) -> SeriesWork:
    cell = {} if area_cm2 is None else {"electrode_area_cm2": area_cm2}
    recipe = make_recipe(
        {
            "name": "test",
            "run_folder": "run",
            "raw": {"folder": "raw", "energy_kev": 80.0, "pixel_um": 13.0},
            "cell": cell,
        },
        base=folder,
    )
    place = in_this_process(1)
    works = [ScanWork(n, folder / n, folder / n, None, recipe, place, 1, 10**9, tuple(scans)) for n in scans]
    return SeriesWork(tuple(works), recipe, place, 1, 10**9)


def put(work: SeriesWork, **tables: Rows) -> None:
    work.tables.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        columns = list(dict.fromkeys(key for row in rows for key in row))
        write_table(work.tables / f"{name}.csv", rows, columns=columns)


def results(work: SeriesWork) -> tuple[Rows, Rows, list[str]]:
    said = grow(work)
    return read_table(work.tables / "growth.csv"), read_table(work.tables / "series.csv"), said


@pytest.fixture(scope="module")
def truth() -> dict[str, dict[str, Rows]]:
    return {kind: tables_of(build_series(kind, seed=1)) for kind in ("plating", "stripping", "control")}


def put_truth(work: SeriesWork, tables: dict[str, Rows], *names: str) -> None:
    names = names or ("scans", "objects", "tracks", "interface", "percolation")
    put(work, **{name: [dict(row) for row in tables[name]] for name in names})


def scans_of(tables: dict[str, Rows]) -> list[str]:
    return [row["scan"] for row in tables["scans"]]


@pytest.mark.parametrize("kind", ["plating", "stripping"])
def test_rates_and_onsets_of_exact_tables_are_the_true_ones(tmp_path: Path, truth, kind: str) -> None:
    tables = truth[kind]
    work = work_of(tmp_path, scans_of(tables))
    put_truth(work, tables)
    growth, _, _ = results(work)
    found = {(row["track"], row["kind"]): row for row in growth if row["track"] is not None}
    cut = {row["object"] for row in tables["objects"] if row["truncated"]}
    assert {key for key in found if key[0] not in cut} == {
        (row["track"], row["kind"]) for row in tables["growth"] if row["track"] not in cut
    }
    for row in tables["growth"]:
        own = found[row["track"], row["kind"]]
        if row["track"] in cut:
            assert own["truncated"] is True
            continue
        slope = row["dvolume_dcharge_um3_per_mah_cm2"]
        values = [own[key] for key in ("dvolume_dcharge_um3_per_mah_cm2", "low", "high")]
        # things that stay the same are known to twelve digits; tables have seven
        wanted = [slope] * 3 if slope is not None else [None] * 3
        assert values == pytest.approx(wanted, rel=2e-6, abs=1e-3)
        if slope is not None and slope > 0:
            assert own["onset_mah_cm2"] == pytest.approx(row["onset_mah_cm2"], rel=1e-6)
        assert [own[key] for key in ("scan_from", "scan_to", "n_scans")] == [
            row[key] for key in ("scan_from", "scan_to", "n_scans")
        ]


def test_a_cell_in_which_nothing_happens(tmp_path: Path, truth) -> None:
    """With noise of the stated size: rates by time hold 0, nothing is said to grow."""
    tables = truth["control"]
    rng = np.random.default_rng(11)
    objects = []
    for row in tables["objects"]:
        error = 0.05 * row["whole_volume_um3"]
        volume = row["whole_volume_um3"] + error * rng.standard_normal()
        ends = {"volume_low_um3": volume - 1.96 * error, "volume_high_um3": volume + 1.96 * error}
        objects.append({**row, "volume_um3": volume, "volume_error_um3": error, **ends})
    work = work_of(tmp_path, scans_of(tables))
    put_truth(work, tables)
    put(work, objects=objects)
    growth, series, said = results(work)
    rated = [row for row in growth if row["dvolume_dtime_um3_per_h"] is not None]
    held = [row["time_low"] <= 0 <= row["time_high"] for row in rated]
    assert len(held) > 5
    assert np.mean(held) > 0.85
    assert not any(row["growing"] for row in growth)
    assert all(row["dvolume_dcharge_um3_per_mah_cm2"] is None for row in growth)
    assert [text for text in said if "no charge passed" in text]
    assert len(series) == len(tables["scans"])


def test_stripped_sodium_is_what_voids_gain(tmp_path: Path, truth) -> None:
    tables = truth["stripping"]
    work = work_of(tmp_path, scans_of(tables))
    put_truth(work, tables)
    growth, _, _ = results(work)
    fastest = max(growth, key=lambda row: row["efficiency_frac"] or 0 if row["track"] is not None else 0)
    # the share that the simulated bubble is given
    assert fastest["efficiency_frac"] == pytest.approx(0.9, abs=0.002)
    assert fastest["kind"] == "bubble"
    slope = fastest["dvolume_dcharge_um3_per_mah_cm2"]
    assert fastest["efficiency_frac"] == pytest.approx(slope / ceiling_um3(AREA_CM2), rel=1e-5)


def test_plated_sodium_makes_no_voids(tmp_path: Path, truth) -> None:
    work = work_of(tmp_path, scans_of(truth["plating"]))
    put_truth(work, truth["plating"])
    assert all(row["efficiency_frac"] is None for row in results(work)[0])


def test_the_true_balance_of_a_stripped_cell_closes(tmp_path: Path, truth) -> None:
    tables = truth["stripping"]
    work = work_of(tmp_path, scans_of(tables))
    # whole voids, none of them cut: as a view without rim would have them
    objects = [
        {**row, "volume_um3": row["whole_volume_um3"], "truncated": False} for row in tables["objects"]
    ]
    put_truth(work, tables)
    put(work, objects=objects)
    _, series, _ = results(work)
    gone = [row["residual_mah_cm2"] for row in series]
    assert max(map(abs, gone)) < 2e-3
    true = {row["scan"]: row["whole_nak_um3"] for row in tables["balance"]}
    for row in series:
        assert row["nak_um3"] == pytest.approx(true[row["scan"]], rel=1e-5)


# --- small made-up runs

NAMES = ["s1", "s2", "s3", "s4"]


def made_up(volumes: Sequence[float], **others: Any) -> dict[str, Rows]:
    scans = [
        {
            "scan": name,
            "time_s": 3600.0 * i,
            "pixel_um": 13.0,
            "charge_mah_cm2": 0.1 * i,
            "current_ma_cm2": 0.5 if i else 0.0,
            "voltage_v": 0.1,
        }
        for i, name in enumerate(NAMES)
    ]
    objects = [
        {
            "scan": name,
            "object": 1,
            "kind": "crack",
            "volume_um3": volume,
            "volume_error_um3": 0.01 * volume,
            "volume_low_um3": 0.95 * volume,
            "volume_high_um3": 1.1 * volume,
            "area_um2": volume / 10,
            "depth_um": volume / 1e4,
            "truncated": False,
            **others,
        }
        for name, volume in zip(NAMES, volumes, strict=True)
        if volume
    ]
    tracks = [{"track": 5, "scan": row["scan"], "object": 1, "kind": "crack"} for row in objects]
    return {"scans": scans, "objects": objects, "tracks": tracks}


def test_a_crack_that_is_born_begins_at_zero_in_the_scan_before(tmp_path: Path) -> None:
    work = work_of(tmp_path, NAMES)
    events = [{"kind": "birth", "scan_from": "s2", "scan_to": "s3", "tracks": "5"}]
    put(work, **made_up([0, 0, 1e6, 4e6]), events=events)
    growth, series, _ = results(work)
    (crack,) = [row for row in growth if row["track"] == 5]
    assert crack["dvolume_dcharge_um3_per_mah_cm2"] == pytest.approx(
        np.polyfit([1, 2, 3], [0, 1, 4], 1)[0] * 1e7
    )
    assert crack["front_um_per_mah_cm2"] == pytest.approx(2000)
    assert (crack["onset_mah_cm2"], crack["onset_high"], crack["scan_onset"]) == (0.1, 0.2, "s2")
    assert (crack["scan_from"], crack["n_scans"], crack["from_zero"]) == ("s2", 3, True)
    assert crack["growing"] is True
    (whole,) = [row for row in growth if row["kind"] == "all_cracks"]
    assert whole["track"] is None
    assert whole["n_scans"] == 4
    assert [row["crack_volume_um3"] for row in series] == [0, 0, 1e6, 4e6]
    assert [row["crack_depth_um"] for row in series] == [None, None, 100, 400]
    # without the event nothing is known of the scan before
    (work.tables / "events.csv").unlink()
    (crack,) = [row for row in results(work)[0] if row["track"] == 5]
    assert crack["dvolume_dcharge_um3_per_mah_cm2"] == pytest.approx(3e7)


@pytest.mark.parametrize(("per_charge", "per_volume"), [(2.0, 1.0), (1.0, 7.0), (1e-3, 1e3)])
def test_units_scale_rates(tmp_path: Path, per_charge: float, per_volume: float) -> None:
    rows = []
    for i, (charge, volume) in enumerate([(1.0, 1.0), (per_charge, per_volume)]):
        work = work_of(tmp_path / str(i), NAMES)
        tables = made_up([volume * v for v in (1e6, 2e6, 3e6, 5e6)])
        for row in tables["scans"]:
            row["charge_mah_cm2"] *= charge
        put(work, **tables)
        rows.append(results(work)[0][0])
    for key in ("dvolume_dcharge_um3_per_mah_cm2", "low", "high"):
        assert rows[1][key] == pytest.approx(rows[0][key] * per_volume / per_charge, rel=1e-5)
    for key in ("dvolume_dtime_um3_per_h", "time_low", "time_high", "dvolume_dscan_um3"):
        assert rows[1][key] == pytest.approx(rows[0][key] * per_volume, rel=1e-5)


def test_without_a_cycler_growth_is_per_time_and_scan(tmp_path: Path) -> None:
    work = work_of(tmp_path, NAMES, area_cm2=None)
    tables = made_up([1e6, 2e6, 3e6, 4e6])
    for row in tables["scans"]:
        row.update(charge_mah_cm2=None, current_ma_cm2=None, voltage_v=None)
    put(work, **tables)
    growth, series, said = results(work)
    row = growth[0]
    assert row["dvolume_dtime_um3_per_h"] == row["dvolume_dscan_um3"] == pytest.approx(1e6)
    for key in ("dvolume_dcharge_um3_per_mah_cm2", "low", "high", "onset_mah_cm2", "front_um_per_mah_cm2"):
        assert row[key] is None
    assert row["growing"] is True
    assert row["scan_onset"] == "s1"
    assert {row["nak_um3"] for row in series} == {row["charge_mah_cm2"] for row in series} == {None}
    assert said == ["no charge is known: growth is given per time and per scan only"]


def test_one_scan_is_said_once_and_its_rates_are_empty(tmp_path: Path) -> None:
    work = work_of(tmp_path, NAMES[:1])
    put(work, **made_up([1e6, 0, 0, 0]))
    growth, series, said = results(work)
    assert [text for text in said if "1 scan in the series" in text] == said
    assert growth[0]["n_scans"] == 1
    assert series[0]["crack_volume_um3"] == 1e6
    rates = [key for key in COLUMNS if "dvolume" in key or key.endswith(("low", "high"))]
    assert all(row[key] is None for row in growth for key in (*rates, "growing"))


def test_two_scans_have_the_interval_of_their_errors(tmp_path: Path) -> None:
    work = work_of(tmp_path, NAMES[:2])
    put(work, **made_up([1e6, 3e6, 0, 0]))
    row = results(work)[0][0]
    assert row["dvolume_dcharge_um3_per_mah_cm2"] == pytest.approx(2e7)
    assert row["low"] < 2e7 < row["high"] < 3e7


def test_a_scan_that_failed_is_left_out_and_one_without_charge_is_said(tmp_path: Path) -> None:
    work = work_of(tmp_path, ["s1", "s3", "s4"])
    tables = made_up([1e6, 9e9, 3e6, 4e6])
    put(work, **tables)
    growth, series, _ = results(work)
    assert growth[0]["dvolume_dcharge_um3_per_mah_cm2"] == pytest.approx(1e7)
    assert [row["scan"] for row in series] == ["s1", "s3", "s4"]
    tables["scans"][2]["charge_mah_cm2"] = None
    put(work, scans=tables["scans"])
    growth, _, said = results(work)
    assert any("no charge is known at s3" in text for text in said)
    assert growth[0]["dvolume_dcharge_um3_per_mah_cm2"] == pytest.approx(1e7)


def test_a_thing_that_the_view_cuts_in_one_scan_is_said(tmp_path: Path) -> None:
    tables = made_up([1e6, 2e6, 3e6, 4e6])
    tables["objects"][3].update(truncated=True, volume_um3=1e3)
    work = work_of(tmp_path, NAMES)
    put(work, **tables)
    growth, series, said = results(work)
    assert any("track 5" in text and "cut by the view" in text for text in said)
    assert (growth[0]["truncated"], growth[0]["n_scans"]) == (True, 3)
    assert growth[0]["dvolume_dcharge_um3_per_mah_cm2"] == pytest.approx(1e7)
    assert [row["cut_um3"] for row in series] == [1e6, 2e6, 3e6, 1e3]


def test_the_short_is_compared(tmp_path: Path) -> None:
    work = work_of(tmp_path, NAMES)
    through = [{"scan": name, "percolates": name == "s4"} for name in NAMES]
    steps = [
        {"step": "plating", "start_charge_mah_cm2": 0.0, "end_charge_mah_cm2": 0.3},
        {"step": "short", "start_charge_mah_cm2": 0.05, "end_charge_mah_cm2": 0.3},
    ]
    put(work, **made_up([1e6] * 4), percolation=through, steps=steps)
    *_, said = results(work)
    assert any("from s4 on" in text and "do not agree" in text for text in said)
    steps[1]["start_charge_mah_cm2"] = 0.25
    put(work, steps=steps)
    assert not any("agree" in text for text in results(work)[2])
