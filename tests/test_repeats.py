"""Two scans of one state: volumes differ by what they say, and a bracket that is too small is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xctpipe.blocks import in_this_process
from xctpipe.csvtables import read_table
from xctpipe.recipe import Recipe, make_recipe
from xctpipe.repeats import check_repeats, compare
from xctpipe.stages import ScanWork
from xctpipe.tables import update_table

OBJECTS = ("object", "kind", "volume_um3", "volume_error_um3", "volume_low_um3", "volume_high_um3")
PLACES = ("z_um", "y_um", "x_um", "truncated")


def _scan(seed: int, *, noise: float = 1.0, n: int = 400, drop: int = 0) -> list[dict[str, Any]]:
    """Pores at the same places, whose volumes scatter by `noise` times what they state."""
    rng, places = np.random.default_rng(seed), 2000.0 * np.random.default_rng(0).random((n, 3))
    rows = []
    for i in range(drop, n):
        volume = 1000.0 + noise * 50.0 * rng.standard_normal()
        z, y, x = places[i] + 2 * rng.random(3)
        place = {"z_um": z, "y_um": y, "x_um": x, "truncated": False}
        bounds = {"volume_low_um3": volume - 98.0, "volume_high_um3": volume + 98.0}
        rows.append(
            {"object": i, "kind": "pore", "volume_um3": volume, "volume_error_um3": 50.0} | bounds | place
        )
    return rows


def test_errors_as_stated_come_out_as_stated() -> None:
    pore, whole = compare(_scan(1), _scan(2))
    assert pore["matched"] == whole["matched"] == 400
    # of 400: standard errors 0.011 of the share and 0.03 of the median
    assert pore["within_frac"] == pytest.approx(0.95, abs=0.035)
    assert pore["median_errors"] == pytest.approx(0.674, abs=0.1)


def test_errors_that_are_too_small_are_seen() -> None:
    pore, _ = compare(_scan(1, noise=3.0), _scan(2, noise=3.0))
    assert pore["within_frac"] == pytest.approx(0.487, abs=0.08)
    assert pore["median_errors"] == pytest.approx(3 * 0.674, abs=0.3)


def test_a_sample_that_moved_aside_is_followed() -> None:
    before, after = _scan(1, n=60), _scan(2, n=60)
    after = [{**row, "y_um": row["y_um"] + 31.0, "x_um": row["x_um"] - 44.0} for row in after]
    assert compare(before, after)[-1]["matched"] >= 58


def test_what_has_no_counterpart_or_is_cut_by_the_view_is_left_out() -> None:
    before, after = _scan(1), _scan(2, drop=10)
    after[0]["truncated"] = True
    pore, _ = compare(before, after)
    assert (pore["number"], pore["number_before"], pore["matched"]) == (389, 400, 389)


def test_nothing_is_said_of_nothing() -> None:
    (whole,) = compare([], [])
    assert (whole["matched"], whole["median_errors"], whole["within_frac"]) == (0, None, None)


def _work(tmp_path: Path, name: str, *, repeats: list[list[str]]) -> ScanWork:
    recipe: Recipe = make_recipe(
        {
            "name": "test",
            "run_folder": "run",
            "raw": {"folder": "raw", "energy_kev": 80.0, "pixel_um": 1.3},
            "measure": {"repeats": repeats},
        },
        base=tmp_path,
    )
    folder = tmp_path / "run" / "scans" / name
    return ScanWork(
        name, folder, folder / "edge.ome.zarr", None, recipe, in_this_process(1), 1, 10**9, ("a", "b", "c")
    )


@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_a_run_writes_the_table_and_warns_of_small_bounds(tmp_path: Path, noise: float) -> None:
    work = _work(tmp_path, "b", repeats=[["a", "b"]])
    for seed, scan in enumerate(work.scans[:2]):
        # the stack moved up by more than a pore's radius, its interface too
        rows = [{**row, "z_um": row["z_um"] + 40.0 * seed} for row in _scan(seed, noise=noise)]
        update_table(work.tables / "objects.csv", scan, rows, columns=(*OBJECTS, *PLACES), scans=work.scans)
        face = [{"z_um": 5.0 + 40.0 * seed}]
        update_table(work.tables / "interface.csv", scan, face, columns=("z_um",), scans=work.scans)
    said = check_repeats(work)
    assert [bool(text) for text in said] == ([True] if noise > 1 else [])
    row = read_table(work.tables / "repeat.csv")[-1]
    assert (row["scan"], row["repeat_of"], row["kind"], row["matched"]) == ("b", "a", "all", 400)


def test_a_pair_half_of_which_is_measured_waits_and_unknown_scans_are_said(tmp_path: Path) -> None:
    work = _work(tmp_path, "a", repeats=[["a", "b"], ["a", "d"]])
    for name, columns in (("objects", (*OBJECTS, *PLACES)), ("interface", ("z_um",))):
        rows = _scan(1) if name == "objects" else [{"z_um": 5.0}]
        update_table(work.tables / f"{name}.csv", "a", rows, columns=columns, scans=work.scans)
    assert ["'d'" in text for text in check_repeats(work)] == [True]
    assert read_table(work.tables / "repeat.csv") == []
