"""The stages segment and measure on simulated cells: gates, laws, bad input and interruption."""

import csv
import logging
import math
import shutil
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from shared_cells import with_scans

from xctpipe import blocks, interface, label_volume, measuring, passes, segmentation, simulated_scan, volume
from xctpipe import run as running
from xctpipe.blocks import Block
from xctpipe.cli import main
from xctpipe.compare_labels import LabelComparison, compare_labels
from xctpipe.csvtables import read_table
from xctpipe.ground import FAR_PX, Ground
from xctpipe.phantom.scanner import simulate
from xctpipe.phantom.series import build_series
from xctpipe.recipe import read_recipe
from xctpipe.runfolder import read_json
from xctpipe.scene_file import read_values
from xctpipe.segment.codes import KINDS, PHASES
from xctpipe.stages import ScanWork

P4, P5, P6, S2 = "scan_00005", "scan_00006", "scan_00007", "scan_00003"
LAYERS = ("peek", "collector", "o_ring", "nak", "nasicon", "counter_electrode", "lower_collector")
TABLES = ("objects", "phases", "interface", "percolation")
Labels = tuple[NDArray[np.uint8], NDArray[np.int32]]


@dataclass(frozen=True)
class Cell:
    """Folder of a simulated series, with a run of it."""

    folder: Path

    @property
    def run_folder(self) -> Path:
        return self.folder / "run"

    def scan(self, name: str) -> Path:
        return self.run_folder / "scans" / name

    def volume(self, name: str) -> Path:
        return self.scan(name) / "edge.ome.zarr"

    def labels(self, name: str) -> Labels:
        path = self.volume(name)
        return label_volume.read_labels(path, "phases"), label_volume.read_labels(path, "objects")

    def table(self, name: str) -> bytes:
        return (self.run_folder / "tables" / f"{name}.csv").read_bytes()

    def only(self, name: str, folder: Path) -> "Cell":
        """A copy of one scan as it is now."""
        own = Cell(folder)
        shutil.copytree(self.scan(name), own.scan(name))
        shutil.copy(self.run_folder / "run.json", own.run_folder / "run.json")
        for file in self.folder.glob("cycler.*"):
            shutil.copy(file, folder)
        shutil.copy(self.folder / "recipe.toml", folder)
        with_scans(folder, [name])
        return own

    def label(self, *more: str, stages: str = "segment,measure") -> int:
        return main(["run", str(self.folder / "recipe.toml"), "--stages", stages, *more])


def simulated_cell(folder: Path, series: str, scans: str) -> Cell:
    call = ["simulate", "cell", str(folder), "--series", series, "--size", "tiny", "--seed", "1"]
    assert main([*call, "--scans", scans]) == 0
    cell = Cell(folder)
    assert cell.label(stages="reconstruct") == 0
    return cell


@pytest.fixture(scope="module")
def plating(plating_cells: Path) -> Cell:
    """P3 to P6, reconstructed and not labelled."""
    return Cell(plating_cells / "reconstructed")


@pytest.fixture(scope="module")
def plated(plating_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Cell:
    """The same, labelled and measured; the recipe asks for P4 to P6."""
    folder = tmp_path_factory.mktemp("plated") / "cell"
    return Cell(with_scans(shutil.copytree(plating_cells / "measured", folder), (P4, P5, P6)))


@pytest.fixture(scope="module")
def stripped(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    """S2, labelled and measured."""
    cell = simulated_cell(tmp_path_factory.mktemp("stripped") / "cell", "stripping", "2:3")
    assert cell.label() == 0
    return cell


@pytest.fixture(scope="module")
def compared(plated: Cell, stripped: Cell) -> list[LabelComparison]:
    """The scans beside the truth."""
    found = compare_labels(plated.run_folder, plated.folder, scans=(P4, P5, P6)).done
    return [*found, *compare_labels(stripped.run_folder, stripped.folder).done]


@pytest.fixture(autouse=True)
def _fresh_log(no_pictures: None) -> Iterator[None]:
    yield
    # files of finished runs stay open otherwise
    for handler in [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]:
        logging.getLogger().removeHandler(handler)
        handler.close()


# gates


def test_the_layers_are_where_they_are(compared: list[LabelComparison]) -> None:
    assert {each.scan for each in compared} == {P4, P5, P6, S2}
    for each in compared:
        nasicon, nak = each.classes["nasicon"].dice, each.classes["nak"].dice
        assert nasicon is not None
        assert nak is not None
        assert nasicon >= 0.95
        assert nak >= 0.93


def test_the_voids_in_nak_are_where_they_are(compared: list[LabelComparison]) -> None:
    pairs = [
        (overlap.dice, overlap.voxels, overlap.reference_voxels)
        for overlap in (each.classes["void"] for each in compared)
    ]
    both = sum(dice * (mine + true) / 2 for dice, mine, true in pairs)
    assert 2 * both / sum(mine + true for _, mine, true in pairs) >= 0.80


def cracks(found: list[LabelComparison]) -> list[dict[str, Any]]:
    rows = [row for each in found for row in each.objects]
    return [row for row in rows if (row["reference_kind"] or row["kind"]) in {"crack", "crack_filled"}]


def test_cracks_are_found_and_nothing_else_is_one(compared: list[LabelComparison]) -> None:
    scores = {each.scan: each.crack.f1 for each in compared}
    assert scores.pop(S2) is None
    # the crack opens to 4, 5.3 and 3 voxels
    for scan, f1 in scores.items():
        assert f1 is not None, scan
        assert f1 >= 0.75, scan
    assert all(row["reference_object"] is not None for row in cracks(compared))


def test_what_the_crack_misses_is_its_volume(compared: list[LabelComparison]) -> None:
    (row,) = [row for row in cracks(compared) if row["scan"] == P4]
    assert abs(row["volume_error_frac"]) <= 0.12
    assert row["volume_low_um3"] <= row["reference_volume_um3"] <= row["volume_high_um3"]


def test_bubbles_have_their_volume(compared: list[LabelComparison]) -> None:
    errors = [
        abs(row["volume_error_frac"])
        for each in compared
        for row in each.objects
        if row["reference_kind"] == "bubble" and row["radius_px"] >= 6
        if row["object"] is not None and not (row["truncated"] or row["cut"])
    ]
    assert errors
    assert np.median(errors) <= 0.10


def test_every_large_bubble_is_found_and_called_one(compared: list[LabelComparison]) -> None:
    large = [
        row
        for each in compared
        for row in each.objects
        if row["reference_kind"] == "bubble" and row["radius_px"] >= 5
    ]
    assert large
    assert [row["kind"] for row in large] == ["bubble"] * len(large)


def test_tables_and_labels_tell_the_same(plated: Cell) -> None:
    rows = read_table(plated.run_folder / "tables" / "objects.csv")
    for scan in (P4, P5, P6):
        phases, objects = plated.labels(scan)
        own = {row["object"]: row["kind"] for row in rows if row["scan"] == scan}
        assert sorted(own) == sorted(np.unique(objects[objects > 0]).tolist())
        for number, kind in own.items():
            (phase,) = np.unique(phases[objects == number])
            # metal in a crack is told by measuring
            alike = {PHASES["crack"], PHASES["crack_filled"]}
            assert phase == PHASES[kind] or {phase, PHASES[kind]} == alike
        inside = np.isin(phases, [PHASES[kind] for kind in KINDS])
        np.testing.assert_array_equal(inside, objects > 0)


def test_a_bubble_that_fills_most_of_the_nak_is_found(tmp_path: Path) -> None:
    cell = simulated_cell(tmp_path / "cell", "stripping", "4:5")
    assert cell.label() == 0
    (found,) = compare_labels(cell.run_folder, cell.folder).done
    dice = found.classes["void"].dice
    assert dice is not None
    assert dice >= 0.80


# laws


def use(monkeypatch: pytest.MonkeyPatch, *, threads: int, edge: tuple[int, int, int] | None) -> None:
    for module in (running, blocks):
        monkeypatch.setattr(module, "usable_cpus", lambda: threads)
    if edge is not None:
        for module in (passes, measuring):
            monkeypatch.setattr(module, "block_shape", lambda *_, **__: edge)
        if hasattr(interface, "block_shape"):
            monkeypatch.setattr(interface, "block_shape", lambda *_, **__: edge)


@pytest.mark.parametrize(("edge", "threads"), [((32, 64, 64), 2), ((64, 32, 64), 1), (None, 1)])
def test_nothing_depends_on_blocks_or_threads(
    edge: tuple[int, int, int] | None,
    threads: int,
    plating: Cell,
    plated: Cell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, threads=threads, edge=edge)
    cell = plating.only(P6, tmp_path)
    assert cell.label() == 0
    for mine, theirs in zip(cell.labels(P6), plated.labels(P6), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for name in TABLES:
        lines = plated.table(name).decode().splitlines()
        own = [lines[0], *(line for line in lines if line.startswith(f"{P6},"))]
        assert cell.table(name).decode().splitlines() == own, name


def rewritten(
    cell: Cell, name: str, values: Callable[[NDArray[np.float32]], Any], **changes: Any
) -> NDArray[np.float32]:
    """Put another volume in the place of the reconstructed one."""
    path = cell.volume(name)
    spec, own, grey = volume.read_spec(path), volume.read_attributes(path), volume.read(path)
    shutil.rmtree(path)
    new = np.ascontiguousarray(values(grey), np.float32)
    spec = replace(spec, shape=new.shape, slab_rows=max(spec.slab_rows, len(new)), **changes)
    reserved = ("value_", "pixel_um", "first_row", "bin_px", "slab_rows", "keep_bits")
    kept = {key: value for key, value in own.items() if not key.startswith(reserved)}
    volume.create(path, spec, name=name, attributes=kept)
    volume.write_slab(path, spec, 0, slab=new)
    return new


def test_a_cell_that_stands_on_its_head_has_the_same_in_it(
    plating: Cell, plated: Cell, tmp_path: Path
) -> None:
    cell = plating.only(P4, tmp_path)
    rewritten(cell, P4, lambda grey: grey[::-1])
    assert cell.label() == 0
    found = {path: read_json(path / "segment.json")["result"] for path in (cell.scan(P4), plated.scan(P4))}
    assert [each["up"] for each in found.values()] == ["na", "nak"]
    mine, theirs = cell.labels(P4)[0][::-1], plated.labels(P4)[0]
    for kind in ("nasicon", "nak", "bubble", "crack", "chip"):
        a, b = mine == PHASES[kind], theirs == PHASES[kind]
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.98, kind
    sizes, kinds = [], []
    for each in (cell, plated):
        rows = read_table(each.run_folder / "tables" / "objects.csv")
        rows = [row for row in rows if row["scan"] == P4]
        sizes.append(sorted(row["volume_um3"] for row in rows if row["volume_um3"]))
        # pieces of rings miss a tenth of what they cover: rounding may decide of them
        sure = [row for row in rows if (row["volume_um3"] or math.inf) > 0.2 * row["count_volume_um3"]]
        kinds.append(Counter(row["kind"] for row in sure))
    assert kinds[0] == kinds[1]
    np.testing.assert_allclose(sizes[0][-5:], sizes[1][-5:], rtol=0.02)


def test_volumes_follow_the_size_of_a_voxel(plating: Cell, plated: Cell, tmp_path: Path) -> None:
    cell = plating.only(P4, tmp_path)
    spec = volume.read_spec(cell.volume(P4))
    rewritten(cell, P4, lambda grey: grey, pixel_um=2 * spec.pixel_um)
    assert cell.label() == 0
    for mine, theirs in zip(cell.labels(P4), plated.labels(P4), strict=True):
        assert (mine != theirs).mean() < 1e-3
    before = [row for row in read_table(plated.run_folder / "tables" / "objects.csv") if row["scan"] == P4]
    after = read_table(cell.run_folder / "tables" / "objects.csv")
    large = {row["kind"]: row for row in sorted(before, key=lambda row: row["volume_um3"] or 0)}
    same = {row["kind"]: row for row in sorted(after, key=lambda row: row["volume_um3"] or 0)}
    for kind in ("crack", "bubble"):
        assert same[kind]["volume_um3"] == pytest.approx(8 * large[kind]["volume_um3"], rel=0.02)


# what is not in view


def test_nasicon_alone_is_labelled_without_an_interface(plating: Cell, tmp_path: Path) -> None:
    cell = plating.only(P4, tmp_path)
    rewritten(cell, P4, lambda grey: grey[26:50])
    assert cell.label() == 0
    phases, _ = cell.labels(P4)
    assert set(np.unique(phases)) <= {0, *(PHASES[k] for k in ("nasicon", "crack", "pore", "inclusion"))} | {
        PHASES["chip"], PHASES["unresolved"],
    }  # fmt: skip
    assert (phases == PHASES["nasicon"]).sum() > 0.7 * (phases > 0).sum()
    # the lower part of the crack
    assert (phases == PHASES["crack"]).any()
    lines = cell.table("interface").decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("scan,")
    rows = read_table(cell.run_folder / "tables" / "objects.csv")
    assert rows
    depths = [row["depth_um"] for row in rows if row.get("depth_um") is not None]
    assert not [depth for depth in depths if abs(depth) > 0.1 * FAR_PX]
    notes = " ".join(read_json(cell.scan(P4) / "segment.json")["result"]["notes"])
    assert "not in view" in notes


def noise(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.5, grey.shape).astype(np.float32)


@pytest.mark.parametrize(
    "values",
    [
        noise,
        np.zeros_like,
        lambda grey: np.full_like(grey, np.nan),
        # air
        lambda grey: np.random.default_rng(1).normal(0, 0.01, grey.shape),
    ],
    ids=["noise", "zeros", "nan", "air"],
)
def test_what_holds_no_cell_fails_with_a_message(
    values: Callable[[Any], Any], plating: Cell, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cell = plating.only(P4, tmp_path)
    rewritten(cell, P4, values)
    assert cell.label() == 3
    text = "".join(capfd.readouterr())
    assert P4 in text
    assert "Traceback" not in text
    assert "failed" in text
    assert not (cell.scan(P4) / "segment.json").exists()
    assert not label_volume.has_labels(cell.volume(P4))


def test_a_volume_of_few_voxels_fails_with_a_message(
    plating: Cell, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cell = plating.only(P4, tmp_path)
    rewritten(cell, P4, lambda grey: grey[:, 40:52, 40:52])
    assert cell.label() == 3
    assert "Traceback" not in "".join(capfd.readouterr())


# interruption


class Killed(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize(
    ("module", "task"),
    [(passes, "_Candidates"), (passes, "_Extent"), (passes, "_Shape"), (measuring, "_Gather")],
)
def test_a_run_that_was_stopped_goes_on(
    module: Any, task: str, plating: Cell, plated: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, threads=1, edge=(64, 32, 96))
    cell = plating.only(P6, tmp_path)
    original = getattr(module, task).__call__
    calls: list[Block] = []

    def second_fails(self: Any, block: Block) -> Any:
        calls.append(block)
        if len(calls) == 2:
            raise Killed
        return original(self, block)

    monkeypatch.setattr(getattr(module, task), "__call__", second_fails)
    assert cell.label() == 1
    begun = len(calls)
    assert begun >= 2
    assert cell.label() == 0
    n_blocks = len({block.core for block in calls})
    # what was done is not done again
    assert len(calls) == n_blocks + 1
    for mine, theirs in zip(cell.labels(P6), plated.labels(P6), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert cell.table("phases").splitlines()[1:] == [
        line for line in plated.table("phases").splitlines() if line.startswith(P6.encode())
    ]
    assert not (cell.scan(P6) / "work" / "segment").exists()


def test_a_block_needs_no_more_memory_than_is_planned_for_it(plated: Cell, tmp_path: Path) -> None:
    recipe = read_recipe(plated.folder / "recipe.toml")
    place = blocks.in_this_process(1)
    work = ScanWork(P6, tmp_path, plated.volume(P6), None, recipe, place, 1, 10**10)
    ground = Ground(work.volume, 0, read_values(plated.scan(P6) / segmentation.SCENE))
    whole = passes.Passes(work, ground, passes.thresholds_of(ground, work))
    # the volume is one block, without a margin
    assert len(whole.blocks(0)) == 1
    tracemalloc.start()
    try:
        segmentation.find_labels(whole)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    small_things = 4_000_000
    assert peak < passes._BYTES_PER_VOXEL * np.prod(ground.scene.shape) + small_things
    # the arrays of one look, at least, were seen
    assert peak > 20 * np.prod(ground.scene.shape)


def test_a_second_run_does_nothing(plated: Cell, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in plated.run_folder.glob("scans/*/*")}
    capfd.readouterr()
    assert plated.label() == 0
    text = capfd.readouterr().err
    for stage in ("segment", "measure"):
        assert text.count(f"{stage} is done already") == 3
    assert {path: path.stat().st_mtime_ns for path in plated.run_folder.glob("scans/*/*")} == before


def test_measuring_needs_labels(plating: Cell, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cell = plating.only(P4, tmp_path)
    assert cell.label(stages="measure") == 3
    assert "no labels to measure; run the stage segment first" in "".join(capfd.readouterr())


# nothing there


def empty_scan(folder: Path, *, size: str, seed: int) -> Cell:
    """A scan of layers alone, reconstructed."""
    step = build_series("control", size=size, seed=seed).steps[0]
    layers = tuple(part for part in step.sample.parts if part.name in LAYERS)
    assert len(layers) == len(LAYERS) < len(step.sample.parts)
    scan = simulate(
        replace(step.sample, parts=layers), acquisition=step.acquisition, seed=seed, name=step.name
    )
    truth = {"pixel_um": step.acquisition.pixel_um, "energy_kev": 80.0}
    raw = simulated_scan.write_raw(scan, truth, folder / "hex", layout="hex1")
    (folder / "recipe.toml").write_text(
        f'name = "empty"\nrun_folder = "run"\n[raw]\nfolder = "{raw}"\nenergy_kev = 80.0\n'
        # level layers show no axis
        f"pixel_um = {step.acquisition.pixel_um}\n[center]\ncenter_px = {step.acquisition.center_px}\n"
    )
    return Cell(folder)


def found_in(cell: Cell) -> dict[str, int]:
    """Objects by kind."""
    assert cell.label(stages="reconstruct,segment,measure") == 0
    (record,) = cell.run_folder.glob("scans/*/segment.json")
    counts: dict[str, int] = read_json(record)["result"]["counts"]
    with (cell.run_folder / "tables" / "objects.csv").open() as file:
        assert len(list(csv.DictReader(file))) == sum(counts.values())
    return counts


@pytest.mark.parametrize("seed", [1, 2])
def test_layers_alone_hold_nothing(seed: int, tmp_path: Path) -> None:
    assert found_in(empty_scan(tmp_path, size="tiny", seed=seed)) == {}


@pytest.mark.gates
@pytest.mark.parametrize("seed", [1, 2])
def test_layers_alone_hold_nothing_at_small(seed: int, tmp_path: Path) -> None:
    assert found_in(empty_scan(tmp_path, size="small", seed=seed)) == {}
