"""Scans joined to the cycler: a history in closed form, simulated series, and what users get wrong."""

import csv
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xctpipe import simulated_truth
from xctpipe.charging import CURVE_COLUMNS, STEP_COLUMNS, check_cycler, join_cycler, renew_tables
from xctpipe.csvtables import read_table
from xctpipe.errors import BadRecipe
from xctpipe.phantom.series import build_series
from xctpipe.recipe import Recipe, make_recipe, read_recipe, to_toml, what_matters
from xctpipe.record import RunRecord

ZERO = datetime(2025, 3, 1, 10, tzinfo=UTC)
AREA = 0.5

Line = tuple[float, float, float]


def write_csv(path: Path, lines: Sequence[Line], *, start: datetime = ZERO) -> Path:
    """Lines of time (s), voltage (V) and current (mA)."""
    rows = [f"{(start + timedelta(seconds=t)).isoformat()},{u!r},{i!r}" for t, u, i in lines]
    path.write_text("\n".join(["time,voltage_v,current_ma", *rows, ""]), encoding="utf-8")
    return path


def write_mpt(path: Path, lines: Sequence[Line], *, clock: str = "03/01/2025 10:00:00.000") -> Path:
    """The same as EC-Lab's export, whose clock names no zone."""
    head = (
        f"EC-Lab ASCII FILE\nNb header lines : 4\nAcquisition started on : {clock}\ntime/s\tEwe/V\tI/mA\t\n"
    )
    path.write_text(head + "\n".join(f"{t!r}\t{u!r}\t{i!r}\t" for t, u, i in lines), encoding="latin-1")
    return path


def recipe_of(
    folder: Path, *, area: float | None = AREA, raw: Mapping[str, Any] | None = None, **cycler: Any
) -> Recipe:
    table: dict[str, Any] = {
        "name": "t",
        "run_folder": "run",
        "raw": {"folder": "raw", "energy_kev": 80.0, "pixel_um": 10.0, **(raw or {})},
        "cycler": cycler,
    }
    if area is not None:
        table["cell"] = {"electrode_area_cm2": area}
    return make_recipe(table, base=folder)


def scans_at(*starts_s: float | None, length_s: float = 60.0, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "scan": f"s{i}",
            "start_time": None if t is None else (ZERO + timedelta(seconds=t)).isoformat(),
            "duration_s": length_s,
            "end_from": "frames",
            "pixel_um": 10.0,
            **more,
        }
        for i, t in enumerate(starts_s)
    ]


def plating_and_stripping(step_s: float = 10.0) -> list[Line]:
    """Rest to 600 s, 1 mA to 1800 s, rest to 2400 s, -2 mA to 3000 s, rest to 3600 s; ends are 1 ms sharp."""
    lines: list[Line] = []
    for first, last, amps, volts in (
        (0, 600, 0.0, 0.01),
        (600, 1800, 1.0, 0.2),
        (1800, 2400, 0.0, 0.01),
        (2400, 3000, -2.0, -0.4),
        (3000, 3600, 0.0, 0.01),
    ):
        times = np.concatenate([[first], np.arange(first + step_s, last, step_s), [last - 0.001]])
        lines += [(float(t), volts, amps) for t in times]
    return lines


def test_charge_of_a_known_history(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", plating_and_stripping())
    rows = scans_at(0, 1200, 1900, 2999.0, 3500, length_s=120)

    joined = join_cycler(recipe_of(tmp_path, file="c.csv"), rows)

    # in mAh/cm2 by hand: 1 mA / 0.5 cm2 from 600 s on, then 4 mA/cm2 from 2400 s on
    at = [joined.columns[f"s{i}"] for i in range(5)]
    expected = [0, 600 * 2 / 3600, 1200 * 2 / 3600, (1200 * 2 + 599 * 4) / 3600, (1200 * 2 + 600 * 4) / 3600]
    assert [each["charge_mah_cm2"] for each in at] == pytest.approx(expected, rel=2e-6, abs=1e-12)
    assert at[1]["charge_middle_mah_cm2"] == pytest.approx(660 * 2 / 3600, rel=2e-6)
    assert at[1]["charge_end_mah_cm2"] == pytest.approx(720 * 2 / 3600, rel=2e-6)
    assert [each["current_ma_cm2"] for each in at] == [0, 2, 0, -4, 0]
    assert [each["voltage_v"] for each in at] == [0.01, 0.2, 0.01, -0.4, 0.01]
    assert [each["step"] for each in at] == ["rest", "plating", "plating", "stripping", "stripping"]
    assert [each["cycler_time_s"] for each in at] == [0, 1200, 1900, 2999, 3500]
    assert [each["end_time_s"] for each in at] == [120, 1320, 2020, 3119, 3620]
    # the last scan ends after the file
    assert "charge_end_mah_cm2" not in at[4]
    assert any("s4: the cycler's files end before it does" in text for text in joined.warnings)


def test_steps(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", plating_and_stripping())
    joined = join_cycler(recipe_of(tmp_path, file="c.csv"), scans_at(0))
    assert [step["step"] for step in joined.steps] == ["rest", "plating", "rest", "stripping", "rest"]
    assert [step["start_time_s"] for step in joined.steps] == [0, 600, 1800, 2400, 3000]
    assert [step["end_time_s"] for step in joined.steps] == [600, 1800, 2400, 3000, 3599.999]
    assert [step["current_ma_cm2"] for step in joined.steps] == [0, 2, 0, -4, 0]
    assert joined.steps[3]["end_charge_mah_cm2"] == pytest.approx(4800 / 3600, rel=2e-6)


def test_steps_of_one_direction_differ_by_their_current(tmp_path: Path) -> None:
    lines = [(t * 10.0, 0.1, 0.5 if t < 100 else 1.0) for t in range(200)]
    lines[50] = (500.0, 0.1, 0.0)
    write_csv(tmp_path / "c.csv", lines)
    joined = join_cycler(recipe_of(tmp_path, file="c.csv"), scans_at(0))
    # one line without current is a glitch
    assert [step["current_ma_cm2"] for step in joined.steps] == [1, 2]


def test_what_stripping_and_plating_are_called(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", plating_and_stripping())
    rows = scans_at(0, 1200)
    plus, minus = (
        join_cycler(recipe_of(tmp_path, file="c.csv", plating_positive=p), rows) for p in (True, False)
    )
    assert plus.columns["s1"]["current_ma_cm2"] == -minus.columns["s1"]["current_ma_cm2"] == 2
    assert minus.columns["s1"]["step"] == "stripping"
    assert minus.columns["s1"]["charge_mah_cm2"] == plus.columns["s1"]["charge_mah_cm2"]


@pytest.mark.parametrize("hours", [-5, 9])
def test_a_clock_in_another_zone(tmp_path: Path, hours: int) -> None:
    clock = (ZERO + timedelta(hours=hours)).strftime("%m/%d/%Y %H:%M:%S.000")
    write_mpt(tmp_path / "c.mpt", plating_and_stripping(), clock=clock)
    rows = scans_at(0, 1200, 3000)

    assumed = join_cycler(recipe_of(tmp_path, file="c.mpt"), rows)
    zone = {-5: "America/New_York", 9: "Asia/Tokyo"}[hours]
    given = join_cycler(recipe_of(tmp_path, file="c.mpt", time_zone=zone), rows)
    moved = join_cycler(recipe_of(tmp_path, file="c.mpt", clock_offset_s=-3600.0 * hours), rows)

    assert any("no time zone is named" in text for text in assumed.warnings)
    said = [text for text in assumed.warnings if "no scan lies within" in text]
    assert len(said) == 1
    assert f"is the time zone UTC{hours:+03d}:00?" in said[0]
    assert f"clock_offset_s = {-3600 * hours}" in said[0]
    assert "charge_mah_cm2" not in assumed.columns["s1"]
    for joined in (given, moved):
        assert joined.columns["s1"]["charge_mah_cm2"] == pytest.approx(1200 / 3600, rel=2e-6)
    assert given.warnings == ()


def test_scans_before_and_after_the_file(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", plating_and_stripping())
    rows = scans_at(-7200, 1200, 9000)
    joined = join_cycler(recipe_of(tmp_path, file="c.csv"), rows)
    assert "charge_mah_cm2" not in joined.columns["s0"]
    assert "voltage_v" not in joined.columns["s2"]
    # time counts from the first scan, wherever it lies
    assert joined.columns["s1"]["charge_mah_cm2"] == pytest.approx(1200 / 3600, rel=2e-6)
    assert any(text.startswith("s0: taken before the cycler's files begin") for text in joined.warnings)
    assert any(text.startswith("s2: taken after the cycler's files end") for text in joined.warnings)

    rests = join_cycler(recipe_of(tmp_path, file="c.csv", rests_outside=True), rows)
    assert rests.columns["s0"]["charge_mah_cm2"] == 0
    assert rests.columns["s2"]["charge_mah_cm2"] == pytest.approx(4800 / 3600, rel=2e-6)
    assert (rests.columns["s2"]["current_ma_cm2"], rests.columns["s2"]["step"]) == (0, "stripping")
    assert rests.warnings == ()


def test_several_files(tmp_path: Path) -> None:
    lines = plating_and_stripping()
    write_csv(tmp_path / "a1.csv", [line for line in lines if line[0] < 1500])
    write_csv(tmp_path / "a2.csv", [line for line in lines if line[0] >= 1500])
    rows = scans_at(0, 1200, 1900, 3500)
    whole = join_cycler(recipe_of(tmp_path, file=["a2.csv", "a1.csv"]), rows)
    globbed = join_cycler(recipe_of(tmp_path, file="a*.csv"), rows)
    assert whole.columns == globbed.columns
    # what flowed between the last line of one and the first of the other is not counted
    assert whole.columns["s2"]["charge_mah_cm2"] == pytest.approx(1190 * 2 / 3600, rel=1e-5)
    assert whole.warnings == ()


def test_files_that_overlap_or_leave_a_gap(tmp_path: Path) -> None:
    lines = plating_and_stripping()
    write_csv(tmp_path / "a.csv", [line for line in lines if line[0] < 1505])
    write_csv(tmp_path / "b.csv", [line for line in lines if line[0] >= 1000])
    write_csv(tmp_path / "c.csv", [line for line in lines if line[0] >= 2400])
    rows = scans_at(0, 1200, 1900, 3500)
    both = join_cycler(recipe_of(tmp_path, file=["a.csv", "b.csv"]), rows)
    assert any("a.csv and b.csv overlap in time by 8.33 min" in text for text in both.warnings)
    assert both.columns["s3"]["charge_mah_cm2"] == pytest.approx(4800 / 3600, rel=2e-6)
    twice = join_cycler(recipe_of(tmp_path, file=["a.csv", "b.csv", "b.csv"]), rows)
    assert twice.columns == both.columns
    apart = join_cycler(recipe_of(tmp_path, file=["a.csv", "c.csv"]), rows)
    assert any("nothing is recorded for 15 min between a.csv and c.csv" in text for text in apart.warnings)


def test_one_bad_file_costs_itself(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", plating_and_stripping())
    (tmp_path / "b.mpr").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    joined = join_cycler(recipe_of(tmp_path, file=["a.csv", "b.mpr"]), scans_at(0, 1200))
    assert joined.columns["s1"]["charge_mah_cm2"] == pytest.approx(1200 / 3600, rel=2e-6)
    assert any("git lfs pull" in text for text in joined.warnings)
    alone = join_cycler(recipe_of(tmp_path, file=["b.mpr", "none.mpt"]), scans_at(0, 1200))
    assert alone.columns["s1"] == {"end_time_s": 1260, "end_from": "frames"}
    assert not alone.steps
    assert any("none.mpt" in text and "no such file" in text for text in alone.warnings)


def test_a_wrong_file_is_named_before_anything_is_run(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, file="none.mpr")
    with pytest.raises(BadRecipe, match="no such file"):
        check_cycler(recipe)
    with pytest.raises(BadRecipe, match="no such file"):
        RunRecord.begin(recipe, names=["s0"], fresh=False)
    assert not (recipe.run_folder / "run.json").exists()


def test_a_file_that_cannot_be_read_is_named_first_and_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lfs.mpr").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    record = RunRecord.begin(recipe_of(tmp_path, file="lfs.mpr"), names=["s0"], fresh=False)
    assert len([line for line in caplog.messages if "git lfs pull" in line]) == 1
    record.write_scans_table()
    assert len([line for line in caplog.messages if "git lfs pull" in line]) == 1


# ------------------------------------------------------------------ scans


def test_scans_out_of_order_with_equal_times_and_without(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", plating_and_stripping())
    joined = join_cycler(recipe_of(tmp_path, file="c.csv"), scans_at(1900, 1200, 1200, None, 0))
    assert any(
        "s1 comes after s0 in the recipe but was taken 11.7 min before it" in t for t in joined.warnings
    )
    assert any("s1 and s2 start at the same time" in text for text in joined.warnings)
    assert any("s3: when it was taken is not known" in text for text in joined.warnings)
    assert "s3" not in joined.columns
    assert joined.columns["s0"]["charge_mah_cm2"] == pytest.approx(2400 / 3600, rel=2e-6)
    assert joined.columns["s1"] == joined.columns["s2"]
    assert joined.columns["s0"]["step"] == "plating"


def test_one_scan_and_none(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", plating_and_stripping())
    recipe = recipe_of(tmp_path, file="c.csv")
    assert join_cycler(recipe, scans_at(700)).columns["s0"]["charge_mah_cm2"] == pytest.approx(
        200 / 3600, rel=1e-5
    )
    assert join_cycler(recipe, []).columns == {}
    assert len(join_cycler(recipe, scans_at(None)).steps) == 5


def test_blur(tmp_path: Path) -> None:
    # 2 mA/cm2 over 600 s is 1/3 mAh/cm2, 3.03 um; half a voxel of 10 um is 5 um, of 5 um 2.5 um
    write_csv(tmp_path / "c.csv", plating_and_stripping())
    recipe = recipe_of(tmp_path, file="c.csv")
    assert join_cycler(recipe, scans_at(900, length_s=600)).warnings == ()
    fine = scans_at(900, length_s=600, pixel_um=5.0)
    (said,) = join_cycler(recipe, fine).warnings
    assert "s0: 0.333 mAh/cm2 passed while it was taken: 3.03 um of sodium, 0.61 voxels" in said
    # at rest nothing blurs
    assert join_cycler(recipe, scans_at(1900, length_s=300, pixel_um=1e-3)).warnings == ()


def test_ends_from_the_exposure_are_told(tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", plating_and_stripping())
    rows = [
        {"scan": "s0", "start_time": ZERO.isoformat(), "n_frames": 100},
        {"scan": "s1", "start_time": (ZERO + timedelta(seconds=900)).isoformat(), "n_frames": 100},
    ]
    joined = join_cycler(recipe_of(tmp_path, file="c.csv", raw={"exposure_s": 0.5}), rows)
    assert joined.columns["s1"]["end_time_s"] == 950
    assert joined.columns["s1"]["end_from"] == "exposure"
    (said,) = joined.warnings
    assert said.startswith("s1: current flows during the scan, and when it ends is estimated")
    unknown = join_cycler(recipe_of(tmp_path, file="c.csv"), rows)
    assert "charge_end_mah_cm2" not in unknown.columns["s1"]


# ------------------------------------------------------------------ simulated series, run folder, recipe


@pytest.mark.parametrize("kind", ["plating", "stripping", "control"])
def test_a_simulated_series(kind: str, tmp_path: Path) -> None:
    series = build_series(kind, n_pores=0, n_specks=0)
    simulated_truth.write_cycler(tmp_path, series)
    recipe = read_recipe(simulated_truth.write_recipe(tmp_path, series, scans=["scan_00001"], layout="hex1"))
    rows = [
        {
            "scan": step.name,
            "start_time": datetime.fromtimestamp(step.time_s, tz=UTC).isoformat(),
            "n_frames": 10,
        }
        for step in series.steps
    ]
    assert recipe.cycler is not None
    table = recipe.cycler.model_copy(update={"file": (str(tmp_path / "cycler.csv"),)})
    by_table = recipe.model_copy(update={"cycler": table})
    for joined in (join_cycler(recipe, rows), join_cycler(by_table, rows)):
        assert joined.warnings == ()
        for step in series.steps:
            cells = joined.columns[step.name]
            assert cells["charge_mah_cm2"] == pytest.approx(step.charge_mah_cm2, rel=2e-5, abs=1e-9)
            assert cells["current_ma_cm2"] == pytest.approx(step.current_ma_cm2, rel=1e-6, abs=1e-9)
            assert cells["voltage_v"] == pytest.approx(step.voltage_v, rel=1e-6)
        shorts = [step for step in joined.steps if step["step"] == "short"]
        assert len(shorts) == (kind == "plating")
        if shorts:
            assert shorts[0]["start_charge_mah_cm2"] == pytest.approx(0.5, rel=1e-4)


def test_tables_of_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_mpt(tmp_path / "c.mpt", plating_and_stripping())
    recipe = recipe_of(tmp_path, file="c.mpt")
    record = RunRecord.begin(recipe, names=["s0", "s1"], fresh=False)
    for row in scans_at(0, 1200):
        record.rows[row["scan"]] = row
        record._update(row["scan"], row=row)
        with caplog.at_level(logging.WARNING):
            record.write_scans_table()
    assert sum("no time zone is named" in text for text in caplog.messages) == 1

    tables = recipe.run_folder / "tables"
    scans = read_table(tables / "scans.csv")
    assert [row["time_s"] for row in scans] == [0, 1200]
    assert scans[1]["charge_mah_cm2"] == pytest.approx(1200 / 3600, rel=2e-6)
    assert (scans[1]["step"], scans[1]["end_from"]) == ("plating", "frames")
    with (tables / "steps.csv").open() as file:
        assert next(csv.reader(file)) == list(STEP_COLUMNS)
    with (tables / "cycler.csv").open() as file:
        assert next(csv.reader(file)) == list(CURVE_COLUMNS)

    # the file has grown, and then it is gone: what is known of the scans stays
    write_mpt(tmp_path / "c.mpt", [(t, u, 2 * i) for t, u, i in plating_and_stripping()])
    renew_tables(recipe)
    assert read_table(tables / "scans.csv")[1]["charge_mah_cm2"] == pytest.approx(2400 / 3600, rel=2e-6)
    (tmp_path / "c.mpt").unlink()
    assert "no such file" in renew_tables(recipe)[0]
    assert [row["time_s"] for row in read_table(tables / "scans.csv")] == [0, 1200]
    assert not (tables / "steps.csv").exists()


def test_a_recipe_with_a_cycler(tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path, file=["a.mpr", "b/*.mpt"], units={"current": "A"}, start="2025-03-01T10:00:00"
    )
    assert recipe.cycler is not None
    assert recipe.cycler.file == (str(tmp_path / "a.mpr"), str(tmp_path / "b" / "*.mpt"))
    path = tmp_path / "again.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    assert read_recipe(path).cycler == recipe.cycler
    # another file changes no volume
    assert what_matters(recipe) == what_matters(recipe_of(tmp_path, file="c.csv", area=0.1))


@pytest.mark.parametrize(
    ("area", "cycler", "said"),
    [
        (None, {"file": "c.csv"}, r"electrode_area_cm2 is missing.*0\.1257"),
        (0.0, {"file": "c.csv"}, r"electrode_area_cm2 = 0\.0: .*greater than 0"),
        (AREA, {"file": "c.csv", "time_zone": "America/NewYork"}, "no such time zone.*America/New_York"),
        (AREA, {"file": "c.csv", "colums": {}}, "unknown key 'cycler.colums'; did you mean 'columns'"),
        (
            AREA,
            {"file": "c.csv", "columns": {"tme": "t"}},
            "unknown key 'cycler.columns.tme'; did you mean 'time'",
        ),
        (AREA, {"file": []}, "cycler.file"),
        (AREA, {}, "cycler.file is missing: the cycler's file"),
    ],
)
def test_recipes_that_are_wrong(
    tmp_path: Path, area: float | None, cycler: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadRecipe, match=said):
        recipe_of(tmp_path, area=area, **cycler)


def test_the_record_of_a_run_is_plain(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, file="c.csv")
    write_csv(tmp_path / "c.csv", plating_and_stripping())
    RunRecord.begin(recipe, names=["s0"], fresh=False)
    assert json.loads((recipe.run_folder / "run.json").read_text())["scans"]["s0"]["status"] == "waiting"
