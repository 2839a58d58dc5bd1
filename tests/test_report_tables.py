"""Tables of the report and its picture of quality."""

from pathlib import Path

import numpy as np
from report_run import NAMES, join, make_run, write

from xctpipe.report import drawing, listing, quality
from xctpipe.report.source import read_run


class TestTables:
    def test_growth_has_what_changes_first_then_cracks_and_the_largest(self, tmp_path: Path) -> None:
        make_run(tmp_path)
        sizes = {1: 5.0, 2: 9.0, 3: 1.0, 4: 2.0, 5: 3.0}
        write(
            tmp_path, "objects", [{"scan": "scan_1", "object": n, "volume_um3": v} for n, v in sizes.items()]
        )
        write(tmp_path, "tracks", [{"track": 10 * n, "scan": "scan_1", "object": n} for n in sizes])
        rows = [
            ("interfacial_void", 10, -90e6, -200e6, 20e6, False),
            ("interfacial_void", 20, 1e6, -2e6, 5e6, False),
            ("bubble", 30, -3e6, -4e6, -2e6, False),
            ("bubble", 40, 7e6, 6e6, 8e6, True),
            ("crack", 50, 3e6, 2e6, 4e6, True),
            ("bubble", 60, "", "", "", ""),
            ("all_voids", "", 2e6, -1e6, 5e6, False),
        ]
        heads = ("kind", "track", "dvolume_dcharge_um3_per_mah_cm2", "low", "high", "growing")
        write(tmp_path, "growth", [dict(zip(heads, row, strict=True)) for row in rows])
        found = listing.growth(read_run(tmp_path))
        assert [row[0].text for row in found.rows] == ["50", "40", "30", "–", "20", "10", "60"]
        assert found.rows[0][2] == listing.Cell("0.00300 (0.00200 to 0.00400)", "3000000.0")


class TestQuality:
    def test_a_panel_for_what_is_known(self, tmp_path: Path) -> None:
        gapped, whole = make_run(tmp_path / "gapped"), make_run(tmp_path / "whole")
        join(whole)
        drawn = quality.draw(read_run(whole), width_in=drawing.WIDE_IN)
        assert drawn is not None
        assert [axes.get_ylabel() for axes in drawn.axes] == [
            "axis (px)",
            "noise (cm⁻¹)",
            "registration\nerror (px)",
        ]
        # that of the reference is none
        at, error = drawn.axes[2].lines[0].get_data()
        assert np.asarray(at).tolist() == [1, 2, 3, 4]
        assert np.isnan(error).tolist() == [True, False, False, False]
        without = quality.draw(read_run(gapped), width_in=drawing.NARROW_IN)
        assert without is not None
        assert len(without.axes) == 2
        write(tmp_path, "scans", [{"scan": "a", "time_s": 0}])
        (tmp_path / "run.json").write_text('{"scans": {"a": {}}}')
        assert quality.draw(read_run(tmp_path), width_in=drawing.WIDE_IN) is None

    def test_rings_before_and_after(self, tmp_path: Path) -> None:
        make_run(tmp_path, names=NAMES[:2])
        rings = {"rings_before_cm1": 0.05, "rings_after_cm1": 0.004}
        write(tmp_path, "scans", [{"scan": name, "time_s": i, **rings} for i, name in enumerate(NAMES[:2])])
        drawn = quality.draw(read_run(tmp_path), width_in=drawing.WIDE_IN)
        assert drawn is not None
        told = drawn.axes[0].get_legend()
        assert told is not None
        assert [text.get_text() for text in told.get_texts()] == ["before correction", "after correction"]
        table = listing.quality(read_run(tmp_path))
        assert "0.0500 → 0.00400" in [cell.text for cell in table.rows[0]]
