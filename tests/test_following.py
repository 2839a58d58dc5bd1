"""The stages of a series from the command line: what is done again, what is missing, what goes wrong."""

import shutil
from pathlib import Path

import pictures
import pytest
from shared_cells import NAMES

from xctpipe.cli import main
from xctpipe.csvtables import read_table
from xctpipe.following import in_time


def test_scans_are_put_in_order_of_time_across_zones() -> None:
    rows = {
        "a": {"start_time": "2025-03-01T10:00:00-05:00"},
        "b": {"start_time": "2025-03-01T14:00:00+00:00"},
        "c": {"start_time": "2025-03-01T09:30:00-05:00"},
    }
    assert in_time("abc", rows) == ["b", "c", "a"]
    assert in_time("abc", {**rows, "a": {"start_time": None}}) == ["a", "b", "c"]


@pytest.fixture(scope="module")
def cell(plating_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scans of the tiny plating cell, through all stages."""
    folder = shutil.copytree(plating_cells / "measured", tmp_path_factory.mktemp("series") / "cell")
    with pytest.MonkeyPatch.context() as patch:
        pictures.leave_out(patch)
        # the file of the cycler lies elsewhere than it did
        assert main(["run", str(folder / "recipe.toml"), "--stages", "track,report"]) == 0
    return folder


def test_a_run_ends_in_tables_of_growth_and_a_report(cell: Path) -> None:
    tables = cell / "run" / "tables"
    assert [row["scan"] for row in read_table(tables / "series.csv")] == list(NAMES)
    charges = [row["charge_mah_cm2"] for row in read_table(tables / "scans.csv")]
    assert charges == sorted(charges)
    assert charges[-1] > 0
    assert (cell / "run" / "report.html").stat().st_size > 10_000
    # what passes leave to each other is gone; records of finished slabs stay
    left = [path for path in (cell / "run" / "series" / "work").rglob("*") if path.is_file()]
    assert not [
        *left,
        *(cell / "run").glob("scans/*/work/segment"),
        *(cell / "run").glob("scans/*/work/measure"),
    ]


def test_a_second_run_does_nothing_again(cell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (cell / "run" / "report.html").stat().st_mtime_ns
    assert main(["run", str(cell / "recipe.toml")]) == 0
    assert (cell / "run" / "report.html").stat().st_mtime_ns == before
    assert {"track is done already", "report is done already"} <= set(capsys.readouterr().err.splitlines())


def test_status_tells_of_the_series(cell: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(cell / "run")]) == 0
    assert "track done; report done" in capsys.readouterr().out


@pytest.mark.usefixtures("no_pictures")
def test_a_scan_that_is_lost_leaves_a_gap(
    cell: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "cell"
    shutil.copytree(cell, copy)
    shutil.rmtree(copy / "run" / "scans" / "scan_00005")
    assert main(["run", str(copy / "recipe.toml"), "--stages", "report"]) == 0
    assert "The stage track was not finished" in (copy / "run" / "report.html").read_text()
    assert main(["run", str(copy / "recipe.toml"), "--stages", "track,report"]) == 0
    assert "scan_00005: not in the series: not measured" in caplog.text
    assert [row["scan"] for row in read_table(copy / "run" / "tables" / "series.csv")] == [
        "scan_00004",
        "scan_00006",
        "scan_00007",
    ]
    page = (copy / "run" / "report.html").read_text()
    assert "scan_00005" in page
    assert "The stage track was not finished" not in page


@pytest.mark.usefixtures("no_pictures")
def test_nothing_measured_is_said_and_tables_that_are_left_are_old(
    cell: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "cell"
    shutil.copytree(cell, copy)
    for record in (copy / "run" / "scans").glob("*/measure.json"):
        record.unlink()
    assert main(["run", str(copy / "recipe.toml"), "--stages", "track"]) == 3
    assert "no scan is measured" in caplog.text
    capsys.readouterr()
    assert main(["status", str(copy / "run")]) == 0
    assert "track failed: no scan is measured" in " ".join(capsys.readouterr().out.split())
    # a report of it says that the tables are old, and is written anew as soon as they are not
    assert main(["run", str(copy / "recipe.toml"), "--stages", "track,report"]) == 3
    assert "is of an earlier run" in (copy / "run" / "report.html").read_text()
    shutil.copytree(cell / "run" / "scans", copy / "run" / "scans", dirs_exist_ok=True)
    assert main(["run", str(copy / "recipe.toml"), "--stages", "track,report"]) == 0
    assert "is of an earlier run" not in (copy / "run" / "report.html").read_text()
