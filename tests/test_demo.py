"""The demonstration: its table holds what was simulated beside what was measured."""

import shutil
from pathlib import Path

import pytest
from shared_cells import SCANS

from xctpipe import demo
from xctpipe.cli import main


@pytest.mark.usefixtures("no_pictures")
def test_the_demo_measures_what_it_simulated(
    plating_cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the shared cell is what this command made from nothing; called again, it goes on with what is there
    folder, results, run_demo = tmp_path / "demo", [], demo.run_demo
    shutil.copytree(plating_cells / "measured", folder)
    monkeypatch.setattr(demo, "run_demo", lambda *a, **k: results.append(run_demo(*a, **k)) or results[-1])
    assert main(["demo", str(folder), "--size", "tiny", "--scans", SCANS]) == 0
    out = capsys.readouterr().out
    assert f"report: {folder / 'run' / 'report.html'}" in out
    (result,) = results
    assert result.report.stat().st_size > 100_000
    assert (plating_cells / "measured" / "run" / "figures" / "glance.svg").stat().st_size > 20_000
    lines = {(line.what, line.scan): line for line in result.lines}
    for scan in ("scan_00004", "scan_00005"):
        crack = lines["crack volume", scan]
        assert float(crack.measured.split()[0]) == pytest.approx(float(crack.true), rel=0.12)
        bubble = lines["bubble volume", scan]
        assert float(bubble.measured.split()[0]) == pytest.approx(float(bubble.true), rel=0.12)
        assert crack.measured.split()[0] in out
    # at this size most voids at the interface are below the limit, which is said
    assert ("contact fraction", "scan_00004") in lines
    assert "limit" in out
    assert lines["event: fill", "to scan_00006"].measured == "yes"
    assert lines["event: chip", "to scan_00006"].measured == "yes"


def test_a_folder_of_another_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    call = ["simulate", "cell", str(folder), "--size", "tiny", "--scans", "1:2", "--rows", "32"]
    assert main([*call, "--series", "plating"]) == 0
    assert main(["demo", str(folder), "--size", "small"]) == 2
    assert "holds a demonstration of size tiny" in capsys.readouterr().err
