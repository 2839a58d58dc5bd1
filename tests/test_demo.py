from pathlib import Path

import pytest

from xctpipe import demo
from xctpipe.cli import main


@pytest.mark.slow
def test_the_demo_measures_what_it_simulated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path / "demo"), "--size", "tiny"]) == 0
    out = capsys.readouterr().out
    assert "edge.ome.zarr" in out
    result = demo.run_demo(tmp_path / "demo", size="tiny")
    assert result.picture.stat().st_size > 10_000
    assert (result.volume / "zarr.json").is_file()
    lines = {line.what: line for line in result.lines}
    axis = lines["rotation axis"]
    assert float(axis.measured.split()[0]) == pytest.approx(float(axis.true), abs=0.25)
    nasicon = lines["attenuation of nasicon"]
    assert float(nasicon.measured) == pytest.approx(float(nasicon.true), rel=0.05)
    for name in ("nak50", "aluminium"):
        line = lines[f"attenuation of {name}"]
        assert float(line.measured) == pytest.approx(float(line.true), abs=0.12)
