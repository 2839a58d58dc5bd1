"""Numbers of [segment] and [measure] tried on a box, and a classifier trained for it."""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from shared_cells import with_scans

from xctpipe import try_box
from xctpipe.cli import main
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.phantom.labels import labels_of
from xctpipe.phantom.series import build_series
from xctpipe.recipe import Recipe, read_recipe, sweepable, with_parameter
from xctpipe.reconstructed import ground_of, work_on
from xctpipe.segment.codes import PHASES
from xctpipe.segment.expected import expected, hosts
from xctpipe.tryout import Wish, answer

SCAN = "scan_00005"
BOX = "8:56,20:76,16:80"


@pytest.fixture(scope="module")
def cell(plating_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose scan with the chip (P4) is reconstructed."""
    folder = tmp_path_factory.mktemp("try") / "cell"
    shutil.copytree(plating_cells / "reconstructed", folder)
    return with_scans(folder, [SCAN]) / "recipe.toml"


@pytest.fixture
def recipe(cell: Path) -> Recipe:
    return read_recipe(cell)


@pytest.fixture(scope="module")
def trained(cell: Path) -> Path:
    """A classifier of a few rows of true labels, as someone would paint."""
    pytest.importorskip("sklearn")
    truth, _ = labels_of(build_series("plating", size="tiny", seed=1).steps[4])
    painted = np.zeros_like(truth)
    for row in range(18, 40, 3):
        painted[row] = truth[row]
    painted[painted > max(PHASES.values())] = 0
    np.save(cell.parent / "painted.npy", painted)
    out = cell.parent / "classifier.npz"
    labels = f"{SCAN}={cell.parent / 'painted.npy'}"
    assert main(["train", str(cell), "--labels", labels, "-o", str(out)]) == 0
    return out


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "objects.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class TestKeys:
    def test_every_number_of_both_tables_can_be_swept(self, recipe: Recipe) -> None:
        keys = {key for key in sweepable(recipe) if key.startswith(("segment.", "measure."))}
        assert keys >= {"segment.threshold_sigma", "segment.seed_sigma", "segment.min_voxels"}
        assert keys >= {"segment.blind_px", "measure.mask_px", "measure.ring_px"}
        assert not keys & {"segment.level", "segment.classifier", "segment.crack_sigmas_px"}

    def test_the_value_is_that_of_the_recipe_and_counts_stay_whole(self, recipe: Recipe) -> None:
        assert with_parameter(recipe, "measure.mask_px", 4.5).measure.mask_px == 4.5
        fewest = with_parameter(recipe, "segment.min_voxels", 20.0).segment.min_voxels
        assert isinstance(fewest, int)
        assert fewest == 20

    def test_a_threshold_above_that_of_seeds_takes_it_along(self, recipe: Recipe) -> None:
        assert with_parameter(recipe, "segment.threshold_sigma", 12.0).segment.seed_sigma == 12.0
        assert with_parameter(recipe, "segment.threshold_sigma", 4.0).segment.seed_sigma == 9.0

    @pytest.mark.parametrize(
        ("sweeps", "message"),
        [
            (("segment.treshold_sigma=4:8:2",), "did you mean 'segment.threshold_sigma'"),
            (("segment.min_voxels=8:9:0.5",), "min_voxels = 8.5"),
            (("segment.seed_sigma=2:4:1",), "must not be below"),
            (("measure.mask_px=-1:1:1",), "greater than 0"),
            (("measure.mask_px=1:100:1",), "100 values; 24 at most"),
            (("segment.blind_px=0:1:1", "measure.mask_px=2:3:1"), "one setting"),
        ],
    )
    def test_what_cannot_be_swept_is_refused(
        self, recipe: Recipe, sweeps: tuple[str, ...], message: str
    ) -> None:
        with pytest.raises(BadRecipe, match=message):
            answer(recipe, Wish(sweeps, scan=SCAN, box=BOX))

    @pytest.mark.parametrize(
        ("wish", "message"),
        [
            (Wish(("segment.blind_px=0:1:1",), rows="10"), "takes --box"),
            (Wish(("center.center_px=1:2:1",), box=BOX), "slices take --rows"),
            (Wish(("segment.blind_px=0:1:1",), box="1:2"), "write z0:z1,y0:y1,x0:x1"),
            (Wish(("segment.blind_px=0:1:1",), box="0:40,0:40,90:120"), "x must be within 0:96"),
            (Wish(("segment.blind_px=0:1:1",), box="0:40,0:8,0:40"), "16 at least"),
            (Wish(("segment.blind_px=0:1:1",), scan="scan_9"), "has scan_00005"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, recipe: Recipe, wish: Wish, message: str) -> None:
        with pytest.raises(BadRecipe, match=message):
            answer(recipe, wish)


def test_a_scan_without_a_volume_says_what_to_do(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(BadScan, match="no volume yet"):
        answer(recipe.model_copy(update={"run_folder": tmp_path}), Wish(("segment.blind_px=0:1:1",)))
    record = recipe.run_folder / "run.json"
    (tmp_path / "run.json").write_bytes(record.read_bytes())
    with pytest.raises(BadScan, match="no volume yet"):
        answer(recipe.model_copy(update={"run_folder": tmp_path}), Wish(("segment.blind_px=0:1:1",)))


class TestBox:
    def test_a_part_is_what_the_whole_holds_there(self, recipe: Recipe, tmp_path: Path) -> None:
        ground = ground_of(work_on(recipe, SCAN, folder=tmp_path))
        box = try_box.parse_box(BOX)
        part = try_box.part_of(ground, box)
        whole = try_box.whole_of(part)
        there = tuple(slice(*ends) for ends in box)
        own, same = part.look(whole), ground.look((there[0], there[1], there[2]))
        inner = tuple((0, n) for n in part.scene.shape)
        for name in ("grey", "hosts"):
            assert np.array_equal(getattr(own, name), getattr(same, name)), name
        for name in ("expected", "residual", "below_px"):
            np.testing.assert_allclose(getattr(own, name), getattr(same, name), atol=2e-4, err_msg=name)
        assert np.array_equal(hosts(part.scene, inner), hosts(ground.scene, box))  # type: ignore[arg-type]
        np.testing.assert_allclose(
            expected(part.scene, inner),  # type: ignore[arg-type]
            expected(ground.scene, box),
            atol=2e-4,
        )

    def test_its_sides_cut_what_they_meet(self, recipe: Recipe, tmp_path: Path) -> None:
        part = try_box.part_of(ground_of(work_on(recipe, SCAN, folder=tmp_path)), try_box.parse_box(BOX))
        rim = part.rim(((0, 48), (0, 56), (0, 64)))
        assert rim[0].all()
        assert rim[:, 0].all()
        assert rim[:, :, -1].all()
        assert not rim[1:-1, 1:-1, 1:-1].any()

    def test_absent_it_is_laid_where_most_is_seen_about_the_interface(
        self, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(try_box, "_USUAL_PX", (40, 40, 40))
        work = work_on(recipe, SCAN, folder=tmp_path)
        box, how = try_box.usual_box(work, ground_of(work))
        series = build_series("plating", size="tiny", seed=1)
        truth, _ = labels_of(series.steps[4])
        crack = np.argwhere(np.isin(truth, (PHASES["crack"], PHASES["crack_filled"])))
        middle = crack.mean(axis=0)
        assert "candidates" in how
        assert all(a <= m <= b for (a, b), m in zip(box, middle, strict=True))


class TestSweep:
    def test_values_that_find_less_find_less_and_the_files_say_so(self, recipe: Recipe) -> None:
        said = answer(recipe, Wish(("segment.min_voxels=8:408:400",), scan=SCAN, box=BOX))
        folder = recipe.run_folder / "try" / SCAN / "segment.min_voxels"
        rows = _rows(folder)
        number = {
            value: {row["kind"]: int(row["number"]) for row in rows if row["value"] == value}
            for value in ("8.0", "408.0")
        }
        assert number["8.0"]["crack"] == number["408.0"]["crack"] == 1
        assert number["8.0"]["pore"] > number["408.0"].get("pore", 0)
        assert (folder / "labels.png").stat().st_size > 10_000
        assert said.table is not None
        assert len(said.table[1]) == len(rows)
        assert f"--box {BOX}" in said.lines[0]

    def test_a_wider_mask_takes_in_more_and_bounds_hold_the_volume(self, recipe: Recipe) -> None:
        answer(recipe, Wish(("measure.mask_px=1:3:2",), scan=SCAN, box=BOX))
        rows = _rows(recipe.run_folder / "try" / SCAN / "measure.mask_px")
        crack = [row for row in rows if row["kind"] == "crack"]
        assert [row["number"] for row in crack] == ["1", "1"]
        assert float(crack[0]["volume_um3"]) != float(crack[1]["volume_um3"])
        for row in crack:
            assert float(row["low"]) <= float(row["volume_um3"]) <= float(row["high"])
        (contact, _) = [row for row in rows if row["kind"] == "contact"]
        assert 0 <= float(contact["low"]) <= float(contact["volume_um3"]) <= float(contact["high"]) <= 1

    def test_slices_are_still_swept(self, cell: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["try", str(cell), "--sweep", "center.center_px=47:49:1", "--rows", "30"]) == 0
        assert "sharpest" in capsys.readouterr().out


class TestTraining:
    def test_labels_of_a_classifier_hold_the_crack_it_was_shown(self, recipe: Recipe, trained: Path) -> None:
        taught = recipe.model_copy(
            update={"segment": recipe.segment.model_copy(update={"classifier": trained})}
        )
        answer(taught, Wish(("measure.mask_px=3:3:1",), scan=SCAN, box=BOX))
        rows = _rows(recipe.run_folder / "try" / SCAN / "measure.mask_px")
        assert [row["number"] for row in rows if row["kind"] == "crack"] == ["1"]

    def test_a_file_that_is_there_is_not_written_over(
        self, cell: Path, trained: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert (
            main(["train", str(cell), "--labels", str(cell.parent / "painted.npy"), "-o", str(trained)]) == 2
        )
        assert "exists already" in capsys.readouterr().err

    def test_without_scikit_learn_it_says_how_to_get_it(
        self, cell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
        assert main(["train", str(cell), "--labels", "any.npy", "-o", str(tmp_path / "new.npz")]) == 2
        assert "pip install" in capsys.readouterr().err
