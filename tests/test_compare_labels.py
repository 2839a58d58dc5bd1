import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xctpipe import (
    compare_labels,
    label_report,
    label_volume,
    simulated_truth,
    simulation,
    true_labels,
    volume,
)
from xctpipe.compare_labels import CLASSES, LabelComparison, LabelResult
from xctpipe.csvtables import read_table
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.object_errors import COLUMNS
from xctpipe.phantom import labels as phantom_labels
from xctpipe.phantom.series import Series, build_series
from xctpipe.runfolder import write_table
from xctpipe.segment import codes

# the crack is widest in this scan
SCAN = "scan_00005"
INDEX = 4
CRACK, CHIP, BUBBLE = 1, 2, 3


@pytest.fixture(scope="module")
def series() -> Series:
    return build_series("plating", size="tiny", seed=1)


@pytest.fixture(scope="module")
def truth(series: Series) -> tuple[Any, Any]:
    return phantom_labels.labels_of(series.steps[INDEX], oversampling=2)


def write_cell(folder: Path, series: Series) -> Path:
    scan = simulation.scan_in_series(series, INDEX)
    simulated_truth.write_truth(folder, series, scans={INDEX: scan})
    return folder


@pytest.fixture(scope="module")
def cell(series: Series, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cell(tmp_path_factory.mktemp("cell"), series)


@pytest.fixture(autouse=True)
def _coarse_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two points along each edge of a voxel, which takes an eighth of the time."""

    def coarse(step: Any, **how: Any) -> Any:
        return phantom_labels.label_slabs(step, oversampling=2, **how)

    monkeypatch.setattr(true_labels, "label_slabs", coarse)


def write_run(
    root: Path, labels: tuple[Any, Any], *, tables: dict[str, Any] | None = None, first_row: int = 0
) -> Path:
    """A run folder with labels of one scan, and tables of it."""
    phases, objects = labels
    path = root / "scans" / SCAN / "edge.ome.zarr"
    spec = volume.VolumeSpec(phases.shape, pixel_um=4160 / 96, first_row=first_row)
    volume.create(path, spec, name=SCAN, attributes={"scan": SCAN})
    # what is written is read back by the same slices
    stored = (phases, objects.astype(np.int32))
    read = label_volume.LabelSource(lambda where: (stored[0][where], stored[1][where]), 0, codes.PRIORITY)
    label_volume.write_labels(path, read)
    (root / "run.json").write_text(json.dumps({"scans": {SCAN: {"status": "done"}}}))
    for name, rows in (tables or {}).items():
        write_table(root / "tables" / f"{name}.csv", rows, columns=list(rows[0]))
    return root


def true_tables(cell: Path) -> dict[str, Any]:
    return {
        name: read_table(cell / "truth" / f"{name}.csv") for name in ("objects", "interface", "percolation")
    }


def only(result: LabelResult) -> LabelComparison:
    (found,) = result.done
    return found


def row_of(found: LabelComparison, number: int) -> dict[str, Any]:
    (row,) = [row for row in found.objects if row["reference_object"] == number]
    return row


def test_codes_are_those_of_the_simulated_cell() -> None:
    assert codes.PHASES == phantom_labels.PHASES
    assert set(codes.KINDS) | set(codes.COLOURS) == set(codes.PHASES) - {"outside"}
    assert {codes.PHASES[kind] for kind in codes.KINDS} == set(codes.PRIORITY)
    assert codes.PRIORITY[0] == codes.PHASES["crack"]
    assert len(set(codes.COLOURS.values())) == len(codes.COLOURS)
    assert all(name in codes.PHASES for members in CLASSES.values() for name in members)


def test_the_truth_agrees_with_itself(cell: Path, truth: tuple[Any, Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", truth, tables=true_tables(cell))
    found = only(compare_labels.compare_labels(run, cell))
    for name in ("nasicon", "nak", "electrode", "void", "crack", "chip"):
        assert found.classes[name].dice == found.classes[name].iou == 1
    assert (found.crack.precision, found.crack.recall, found.crack.f1) == (1, 1, 1)
    assert found.voxels == np.count_nonzero(truth[0])
    assert all(row["object"] == row["reference_object"] for row in found.objects)
    assert all(row["volume_error_frac"] == 0 and row["covered"] for row in found.objects)
    assert row_of(found, CRACK)["opening_error_px"] == row_of(found, CRACK)["depth_error_px"] == 0
    assert found.contact_frac[0] == found.contact_frac[1]
    assert found.percolates == (False, False)
    assert found.notes == ()
    assert found.kinds["crack"]["covered_frac"] == 1


def test_a_shift_of_one_voxel(cell: Path, truth: tuple[Any, Any], tmp_path: Path) -> None:
    phases = np.roll(truth[0], 1, axis=0)
    found = only(compare_labels.compare_labels(write_run(tmp_path / "run", (phases, truth[1])), cell))
    # all is within the tolerance, but the share in common falls
    assert found.crack.f1 == 1
    mine, theirs = phases == codes.PHASES["crack"], truth[0] == codes.PHASES["crack"]
    dice = 2 * (mine & theirs).sum() / (mine.sum() + theirs.sum())
    assert found.classes["crack"].dice == pytest.approx(dice)
    assert dice < 0.9


def test_what_absorption_does_not_tell_apart_counts_as_one(
    cell: Path, truth: tuple[Any, Any], tmp_path: Path
) -> None:
    phases = truth[0].copy()
    pairs = [("o_ring", "nak"), ("crack", "crack_filled"), ("collector", "counter_electrode")]
    for true, said in [*pairs, ("chip", "nasicon")]:
        phases[truth[0] == codes.PHASES[true]] = codes.PHASES[said]
    found = only(compare_labels.compare_labels(write_run(tmp_path / "run", (phases, truth[1])), cell))
    for name in ("nasicon", "nak", "electrode", "crack"):
        assert found.classes[name].dice == 1
    assert found.classes["crack_filled"].dice == 0
    assert found.classes["chip"].dice == 0
    assert found.crack.f1 == 1
    assert found.confusion["nak"]["o_ring"] == np.count_nonzero(truth[0] == codes.PHASES["o_ring"]) > 0


def test_objects_that_are_missed_made_up_and_in_pieces(
    cell: Path, truth: tuple[Any, Any], tmp_path: Path
) -> None:
    phases, objects = truth[0].copy(), truth[1].copy()
    tables = true_tables(cell)
    phases[objects == BUBBLE] = codes.PHASES["nak"]
    objects[objects == BUBBLE] = 0
    # the crack falls into halves, whose volumes are known too small by a tenth
    middle = np.argwhere(objects == CRACK)[:, 2].mean()
    right = (objects == CRACK) & (np.arange(objects.shape[2]) > middle)
    objects[right] = 5001
    rows = [row for row in tables["objects"] if row["object"] != BUBBLE]
    crack = next(row for row in rows if row["object"] == CRACK)
    true = crack["volume_um3"]
    crack |= {
        "volume_um3": 0.45 * true,
        "volume_low_um3": 0.4 * true,
        "volume_high_um3": 0.5 * true,
        "count_volume_um3": 0.3 * true,
        "opening_median_um": crack["opening_median_um"] + 4160 / 96 / 4,
    }
    made_up = dict.fromkeys(crack) | {"scan": SCAN, "object": 6000, "kind": "bubble", "volume_um3": 1.0}
    rows += [crack | {"object": 5001}, made_up | {"z_um": 0.0, "y_um": 0.0, "x_um": 0.0}]
    run = write_run(tmp_path / "run", (phases, objects), tables={"objects": rows})
    found = only(compare_labels.compare_labels(run, cell))
    missed = row_of(found, BUBBLE)
    assert (missed["object"], missed["kind"], missed["volume_error_frac"]) == (None, None, None)
    broken = row_of(found, CRACK)
    assert broken["volume_error_frac"] == pytest.approx(-0.55)
    assert broken["count_volume_error_frac"] == pytest.approx(-0.7)
    assert broken["n_pieces"] == 2
    assert broken["pieces_volume_um3"] == pytest.approx(0.9 * true)
    assert broken["covered"] is False
    assert broken["opening_error_px"] == pytest.approx(0.25)
    # the tolerance reaches the half that was not matched by one layer
    assert (broken["recall"], broken["precision"]) == (1, 1)
    assert [row["object"] for row in found.objects if row["reference_object"] is None] == [5001, 6000]
    assert found.kinds["bubble"]["n_found"] == 0
    assert (found.kinds["bubble"]["n_reference"], found.kinds["bubble"]["n_only_here"]) == (1, 1)
    assert found.kinds["crack"]["volume_error_frac"] == pytest.approx(0.55)
    assert found.kinds["crack"]["covered_frac"] == 0
    assert any("interface" in note for note in found.notes)


def test_objects_that_touch_are_compared_with_what_was_found_as_one(
    cell: Path, truth: tuple[Any, Any], tmp_path: Path
) -> None:
    tables, objects = true_tables(cell), truth[1].copy()
    seen = objects[truth[0] == codes.PHASES["pore"]]
    pores = [row for row in tables["objects"] if row["kind"] == "pore" and (seen == row["object"]).any()]
    one, other = sorted(pores, key=lambda row: -row["volume_um3"])[:2]
    objects[objects == other["object"]] = one["object"]
    rows = [dict(row) for row in tables["objects"] if row["object"] != other["object"]]
    both = one["volume_um3"] + other["volume_um3"]
    for row in rows:
        row["volume_um3"] = both if row["object"] == one["object"] else row["volume_um3"]
    run = write_run(tmp_path / "run", (truth[0], objects), tables={"objects": rows})
    found = only(compare_labels.compare_labels(run, cell))
    joined = row_of(found, one["object"])
    assert (joined["n_joined"], joined["reference_volume_um3"]) == (2, pytest.approx(both))
    assert joined["volume_error_frac"] == pytest.approx(0)
    assert [row["reference_object"] for row in found.objects].count(other["object"]) == 0
    assert found.kinds["pore"]["n_found"] == found.kinds["pore"]["n_reference"] == len(pores)


def test_part_of_the_rows_is_compared_with_that_part(
    cell: Path, truth: tuple[Any, Any], tmp_path: Path
) -> None:
    first, last = 10, 30
    part = truth[0][first:last], truth[1][first:last]
    run = write_run(tmp_path / "run", part, tables=true_tables(cell), first_row=first)
    found = only(compare_labels.compare_labels(run, cell))
    assert found.rows == (first, last)
    assert found.classes["nasicon"].dice == 1
    assert found.crack.f1 == 1
    ends = set(np.unique(truth[1][[first, last - 1]])) - {0}
    assert {row["reference_object"] for row in found.objects if row["cut"]} == ends & {
        row["reference_object"] for row in found.objects
    }
    pixel = 4160 / 96
    inside = [(first - 0.5) * pixel <= row["z_um"] <= (last - 0.5) * pixel for row in read_objects(cell)]
    assert len(found.objects) == sum(inside) < len(inside)


def read_objects(cell: Path) -> list[dict[str, Any]]:
    return read_table(cell / "truth" / "objects.csv")


def test_slabs_of_any_height_give_the_same(
    cell: Path, truth: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", (np.roll(truth[0], 1, 1), truth[1]), tables=true_tables(cell))
    results = []
    for rows in (3, 64):
        monkeypatch.setattr(compare_labels, "_SLAB_ROWS", rows)
        results.append(only(compare_labels.compare_labels(run, cell)).as_json())
    assert results[0] == results[1]


def test_two_runs(cell: Path, truth: tuple[Any, Any], tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", truth, tables=true_tables(cell))
    part = tuple(each[4:] for each in truth)
    b = write_run(tmp_path / "b", (part[0], part[1]), tables=true_tables(cell), first_row=4)
    assert compare_labels.applies(a, b)
    found = only(compare_labels.compare_labels(a, b))
    assert found.rows == (4, 64)
    assert found.classes["nasicon"].dice == found.crack.f1 == 1
    assert found.percolates == (False, False)
    assert row_of(found, CRACK)["volume_error_frac"] == 0
    back = only(compare_labels.compare_labels(b, a))
    assert back.rows == (4, 64)
    assert back.classes["nasicon"].dice == 1


def test_tables_on_screen_and_on_disk(cell: Path, truth: tuple[Any, Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", truth, tables=true_tables(cell))
    result = compare_labels.compare_labels(run, cell)
    found = only(result)
    rows = label_report.class_table(found)
    assert ("crack", "1.000", "1.000") in {row[:3] for row in rows}
    assert {len(row) for row in rows} == {len(label_report.CLASS_HEAD)}
    kinds = label_report.kind_table(result.kinds)
    assert {len(row) for row in kinds} == {len(label_report.KIND_HEAD)}
    text = "\n".join(label_report.lines(found))
    assert "precision 1.000, recall 1.000, F1 1.000" in text
    assert "percolates: no, reference no" in text
    scans, objects = label_report.save(result, tmp_path / "out")
    (line,) = read_table(scans)
    assert (line["scan"], line["crack_f1"], line["nasicon_dice"]) == (SCAN, 1, 1)
    written = read_table(objects)
    assert tuple(written[0]) == COLUMNS
    assert len(written) == len(found.objects)
    assert json.loads(json.dumps(result.as_json(), allow_nan=False))["scans"][0]["crack"]["f1"] == 1


def test_a_coarser_grid_lies_where_the_blocks_of_the_finer_one_lie(
    cell: Path, truth: tuple[Any, Any]
) -> None:
    step = true_labels.open_cell(cell).steps[SCAN]
    shape, pixel = truth[0].shape, step.acquisition.pixel_um
    coarse = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    middle = ((shape[1] - 1) / 4 - 0.25, (shape[2] - 1) / 4 - 0.25)
    spans = [(0, 5), (5, coarse[0])]
    slabs = true_labels.true_slabs(
        step, shape=coarse, voxel_um=2 * pixel, first_row=0, origin_px=middle, spans=spans
    )
    phases = np.concatenate([slab[0] for slab in slabs])
    blocks = truth[0].reshape(coarse[0], 2, coarse[1], 2, coarse[2], 2)
    for name in ("nasicon", "nak", "collector"):
        # where all eight voxels are of one phase, the block is; where none is, it is not
        share = (blocks == codes.PHASES[name]).mean(axis=(1, 3, 5))
        assert np.all(phases[share == 1] == codes.PHASES[name])
        assert not np.any(phases[share == 0] == codes.PHASES[name])


@pytest.mark.parametrize(
    "wish", [{"crack_opening_um": 100.0}, {"bubble_radius_um": 200.0}, {"scale_um": 20.0}]
)
def test_wishes_of_a_simulation_are_found_again(wish: dict[str, float], tmp_path: Path) -> None:
    made = build_series("plating", size="tiny", seed=2, **wish)  # type: ignore[arg-type]
    again = true_labels.open_cell(write_cell(tmp_path, made)).steps[SCAN]
    assert [part.shape for part in again.sample.parts] == [
        part.shape for part in made.steps[INDEX].sample.parts
    ]


def test_a_cell_that_cannot_be_made_again_is_refused(cell: Path, tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    for name in ("truth.json", "truth/objects.csv"):
        (tmp_path / name).write_bytes((cell / name).read_bytes())
    assert true_labels.open_cell(tmp_path)
    truth = json.loads((tmp_path / "truth.json").read_text())
    (tmp_path / "truth.json").write_text(json.dumps(truth | {"seed": 7}))
    with pytest.raises(BadScan, match="simulate the cell again"):
        true_labels.open_cell(tmp_path)
    (tmp_path / "truth.json").write_text(json.dumps({"seed": 7}))
    with pytest.raises(BadRecipe, match=r"no truth\.json of a simulated series"):
        true_labels.open_cell(tmp_path)


def test_wrong_calls_are_said(cell: Path, truth: tuple[Any, Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", truth)
    with pytest.raises(BadRecipe, match="give the run first"):
        compare_labels.compare_labels(cell, run)
    (tmp_path / "run/scans" / SCAN / "edge.ome.zarr/labels").rename(tmp_path / "elsewhere")
    assert not compare_labels.holds_labels(run)
    with pytest.raises(BadScan, match="--stages segment,measure"):
        compare_labels.compare_labels(run, cell)
    other = tmp_path / "run/scans/scan_00001"
    (tmp_path / "run/scans" / SCAN).rename(other)
    (run / "run.json").write_text(json.dumps({"scans": {"scan_00001": {"status": "done"}}}))
    with pytest.raises(BadScan, match="scan_00001: not among the scans"):
        compare_labels.compare_labels(run, cell)
