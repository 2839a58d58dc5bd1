"""The tables `growth` and `series` where others lack rows, columns or cells, or are in another order."""

import itertools
from pathlib import Path

import pytest
from test_growing import AREA_CM2, NAMES, made_up, put, results, work_of

from xctpipe.growing import SERIES_COLUMNS
from xctpipe.series.closure import ceiling_um3
from xctpipe.series.growth_rows import COLUMNS


def test_empty_cells_and_no_objects_at_all(tmp_path: Path) -> None:
    work = work_of(tmp_path, NAMES)
    tables = made_up([1e6, 2e6, 3e6, 4e6])
    for key in ("volume_error_um3", "volume_low_um3", "volume_high_um3", "area_um2", "depth_um"):
        tables["objects"][1][key] = None
    put(work, **tables)
    assert results(work)[0][0]["dvolume_dcharge_um3_per_mah_cm2"] == pytest.approx(1e7)
    (work.tables / "objects.csv").write_text("scan,object,kind,volume_um3\n")
    growth, series, _ = results(work)
    assert growth == []
    assert len(series) == 4


def test_without_any_table_both_are_written_and_what_is_missing_is_said(tmp_path: Path) -> None:
    work = work_of(tmp_path, NAMES)
    work.tables.mkdir(parents=True)
    growth, series, said = results(work)
    assert growth == []
    assert [row["scan"] for row in series] == NAMES
    assert series[0]["crack_volume_um3"] is None
    assert sum("no table objects.csv" in text or "no table tracks.csv" in text for text in said) == 2
    assert (work.tables / "growth.csv").read_text().splitlines() == [",".join(COLUMNS)]
    assert (work.tables / "series.csv").read_text().splitlines()[0] == ",".join(SERIES_COLUMNS)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("objects", "scan,object\ns1,1,2,3\n", "more or fewer cells"),
        ("objects", "scan,thing\ns1,1\n", "lacks columns"),
        ("tracks", "scan,object\ns1,1\n", "lacks columns"),
        ("events", "kind\nbirth,s1\n", "more or fewer cells"),
        ("steps", "step,start_charge_mah_cm2\nplating,\n", ""),
        ("scans", "scan,time_s\ns1,x\n", ""),
    ],
)
def test_a_bad_table_is_named_and_the_rest_is_done(tmp_path: Path, name: str, text: str, said: str) -> None:
    work = work_of(tmp_path, NAMES)
    put(work, **made_up([1e6, 2e6, 3e6, 4e6]))
    (work.tables / f"{name}.csv").write_text(text)
    _, series, found = results(work)
    assert len(series) == 4
    assert not said or any(said in each and f"{name}.csv" in each for each in found)


def test_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    tables = made_up([1e6, 2e6, 5e6, 4e6])
    made = []
    for i, turned in enumerate((False, True)):
        work = work_of(tmp_path / str(i), NAMES)
        put(work, **{key: rows[::-1] if turned else rows for key, rows in tables.items()})
        made.append(results(work))
    assert made[0] == made[1]


def test_equal_charges_and_times(tmp_path: Path) -> None:
    tables = made_up([1e6, 2e6, 3e6, 4e6])
    for row in tables["scans"]:
        row.update(charge_mah_cm2=0.2, time_s=60.0)
    work = work_of(tmp_path, NAMES)
    put(work, **tables)
    growth, _, said = results(work)
    assert growth[0]["dvolume_dtime_um3_per_h"] is None
    assert growth[0]["dvolume_dscan_um3"] == 1e6
    assert any("no charge passed" in text for text in said)


def test_metal_below_a_risen_chip_widens_the_balance(tmp_path: Path) -> None:
    tables = made_up([1e6, 2e6, 3e6, 4e6], kind="crack_filled")
    for row in tables["tracks"]:
        row["kind"] = "crack_filled"
    face = [{"scan": name, "nak_height_um": 800 + 0.908 * i} for i, name in enumerate(NAMES)]
    balance = [
        {"scan": name, "chamber_um3": 1e10, "chamber_low_um3": 1e10, "chamber_high_um3": 1e10}
        for name in NAMES
    ]
    work = work_of(tmp_path, NAMES)
    put(work, **tables, interface=face, balance=balance)
    _, plain, _ = results(work)
    put(work, events=[{"kind": "chip", "scan_from": "s2", "scan_to": "s3", "tracks": "9"}])
    _, risen, _ = results(work)
    for before, after in itertools.islice(zip(plain, risen, strict=True), 2):
        assert before == after
    last, ceiling = risen[3], ceiling_um3(AREA_CM2)
    assert plain[3]["nak_um3"] - last["nak_um3"] == pytest.approx(2e6, rel=1e-2)
    assert last["residual_high_mah_cm2"] - last["residual_mah_cm2"] == pytest.approx(2e6 / ceiling, rel=1e-3)


def test_an_empty_depth_hides_no_other_of_the_same_crack(tmp_path: Path) -> None:
    tables = made_up([1e6, 2e6, 3e6, 4e6])
    for row in list(tables["objects"]):
        tables["objects"].insert(0, row | {"object": row["object"] + 100, "depth_um": None})
        row["depth_um"] = 30.0
        tables["tracks"].append({**tables["tracks"][0], "scan": row["scan"], "object": row["object"] + 100})
    work = work_of(tmp_path, NAMES)
    put(work, **tables)
    assert [row["crack_depth_um"] for row in results(work)[1]] == [30.0] * 4


def test_the_balance_counts_a_void_once_that_the_view_cuts_while_it_is_a_bubble(tmp_path: Path) -> None:
    tables = made_up([1e6, 2e6, 3e6, 4e6], kind="bubble")
    for row in tables["tracks"]:
        row["kind"] = "bubble"
    for row in (tables["objects"][3], tables["tracks"][3]):
        row["kind"] = "interfacial_void"
    tables["objects"][1]["truncated"] = True
    work = work_of(tmp_path, NAMES)
    put(work, **tables, interface=[{"scan": name, "nak_height_um": 800.0} for name in NAMES])
    chamber_um3 = 800 * AREA_CM2 * 1e8
    metal = [row["nak_um3"] for row in results(work)[1]]
    assert metal == pytest.approx(
        [chamber_um3 - volume for volume in (1e6, 2e6, 3e6, 4e6)], rel=1e-6, abs=1e4
    )
