"""The stage that tracks: tables and the map of first appearance from labels and tables on disk."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image_label import ImageLabel

from xctpipe import tracking, volume
from xctpipe.appearance_volume import early_to_late, write_appearance
from xctpipe.blocks import blocks_of, in_this_process
from xctpipe.csvtables import read_table
from xctpipe.errors import BadScan
from xctpipe.label_volume import LabelSource, has_labels, read_labels, read_legend, write_labels
from xctpipe.recipe import make_recipe
from xctpipe.runfolder import write_table
from xctpipe.series.rigid import Rigid
from xctpipe.stages import ScanWork, SeriesWork

SHAPE, VOXEL_UM = (40, 80, 80), 2.0
FIRST_ROW = 7
MIDDLE = (SHAPE[1] - 1) / 2
CRACK, BUBBLE = 9, 7


class Run:
    """A run folder whose scans have labels drawn here, and the rows of tables that belong to them."""

    def __init__(self, folder: Path) -> None:
        table = {
            "raw": {"folder": str(folder), "energy_kev": 80.0, "pixel_um": VOXEL_UM},
            "run_folder": "run",
        }
        self.recipe = make_recipe({"name": "series", **table}, base=folder)
        self.rows: list[dict[str, object]] = []
        self.works: list[ScanWork] = []
        self.placed: dict[str, Rigid] = {}

    def scan(self, name: str, objects: dict[int, tuple[str, tuple[slice, ...]]], moved: Rigid) -> None:
        """Add a scan: boxes in the first scan's frame, which are drawn where the stack has moved to."""
        folder = self.recipe.run_folder / "scans" / name
        path = folder / "edge.ome.zarr"
        volume.create(path, volume.VolumeSpec(SHAPE, VOXEL_UM, first_row=FIRST_ROW), name=name, attributes={})
        ids, phases = np.zeros(SHAPE, np.int32), np.full(SHAPE, 5, np.uint8)
        for number, (kind, box) in objects.items():
            where = drawn(box, moved)
            ids[where], phases[where] = number, CRACK if kind.startswith("crack") else BUBBLE
            self.rows.append(row_of(name, number, kind, where))
        write_labels(path, LabelSource(lambda at: (phases[at], ids[at]), 0, (CRACK,)))
        work = ScanWork(name, folder, path, None, self.recipe, in_this_process(1), 2, 4_000_000_000)
        self.works.append(work)
        self.placed[name] = moved

    def work(self, **more: object) -> SeriesWork:
        columns = list(dict.fromkeys(key for row in self.rows for key in row)) or ["scan", "object", "kind"]
        write_table(self.recipe.run_folder / "tables" / "objects.csv", self.rows, columns=columns)
        values = {"place": in_this_process(2), "threads": 2, "memory_bytes": 4_000_000_000, **more}
        return SeriesWork(tuple(self.works), self.recipe, **values)

    def table(self, name: str) -> list[dict[str, object]]:
        return read_table(self.recipe.run_folder / "tables" / f"{name}.csv")


def drawn(box, moved):
    """The nearest voxels of a box that has moved by whole voxels."""
    steps = [round(s / VOXEL_UM) for s in moved.shift_um]
    return tuple(slice(part.start + n, part.stop + n) for part, n in zip(box, steps, strict=True))


def row_of(scan, number, kind, where):
    z, y, x = ((part.start + part.stop - 1) / 2 for part in where)
    edges = [(part.stop - part.start) * VOXEL_UM for part in where]
    volume_um3 = math.prod(edges)
    crack = kind.startswith("crack")
    return {
        "scan": scan,
        "object": number,
        "kind": kind,
        "volume_um3": volume_um3,
        "volume_low_um3": 0.95 * volume_um3,
        "volume_high_um3": 1.05 * volume_um3,
        "count_volume_um3": volume_um3,
        "z_um": (z + FIRST_ROW) * VOXEL_UM,
        "y_um": (y - MIDDLE) * VOXEL_UM,
        "x_um": (x - MIDDLE) * VOXEL_UM,
        "truncated": False,
        "area_um2": edges[1] * edges[2],
        "opening_median_um": edges[0] if crack else None,
        "sphericity": None if crack else 0.9,
        "percolates": False if crack else None,
    }


def box(z, y, x):
    return slice(*z), slice(*y), slice(*x)


FIRST = box((20, 21), (30, 50), (30, 40))
GROWN = box((20, 21), (30, 50), (30, 48))
BALL = box((6, 12), (20, 26), (40, 46))
NEW = box((6, 13), (50, 57), (40, 47))
MOVES = (Rigid(), Rigid(shift_um=(4.0, -6.0, 2.0)), Rigid(shift_um=(-2.0, 4.0, 8.0)))


@pytest.fixture
def grown(tmp_path: Path) -> Run:
    """A crack that grows and fills, a bubble, and one that is new, in a stack that moves."""
    run = Run(tmp_path)
    run.scan("a", {1: ("crack", FIRST), 2: ("bubble", BALL)}, MOVES[0])
    run.scan("b", {1: ("bubble", BALL), 2: ("crack", GROWN), 3: ("bubble", NEW)}, MOVES[1])
    run.scan("c", {4: ("bubble", NEW), 5: ("bubble", BALL), 6: ("crack_filled", GROWN)}, MOVES[2])
    return run


def tracked(run: Run) -> set[frozenset[tuple[str, int]]]:
    found: dict[int, set[tuple[str, int]]] = {}
    for row in run.table("tracks"):
        found.setdefault(row["track"], set()).add((row["scan"], row["object"]))
    return {frozenset(each) for each in found.values()}


def happened(run: Run) -> list[tuple[object, ...]]:
    return [(row["kind"], row["scan_from"], row["scan_to"]) for row in run.table("events")]


def test_tracks_events_and_the_map_of_a_stack_that_moves(grown: Run) -> None:
    assert tracking.track(grown.work(), grown.placed) == []
    assert tracked(grown) == {
        frozenset({("a", 1), ("b", 2), ("c", 6)}),
        frozenset({("a", 2), ("b", 1), ("c", 5)}),
        frozenset({("b", 3), ("c", 4)}),
    }
    assert happened(grown) == [("birth", "a", "b"), ("fill", "b", "c")]
    networks = {row["object"]: row["network"] for row in grown.table("tracks") if row["scan"] == "b"}
    assert networks[1] is None
    assert networks[2] is not None
    expected = np.zeros(SHAPE, np.uint8)
    expected[GROWN], expected[FIRST] = 2, 1
    path = grown.works[0].volume
    np.testing.assert_array_equal(read_labels(path, "appearance"), expected)
    assert read_legend(path, "appearance").names == {0: "never", 1: "a", 2: "b", 3: "c"}
    assert read_labels(path, "phases").max() == CRACK


def test_the_map_is_a_valid_label_image_on_every_level(grown: Run) -> None:
    tracking.track(grown.work(), grown.placed)
    path = grown.works[0].volume
    group = zarr.open_group(path / "labels" / "appearance", mode="r", use_consolidated=False)
    label = ImageLabel.from_zarr(group)
    others = ImageLabel.from_zarr(
        zarr.open_group(path / "labels" / "phases", mode="r", use_consolidated=False)
    )
    assert label.ome_attributes.multiscales[0].datasets == others.ome_attributes.multiscales[0].datasets
    for level, shape in enumerate(volume.level_shapes(volume.read_spec(path))):
        numbers = read_labels(path, "appearance", level=level)
        assert numbers.shape == shape
        assert set(np.unique(numbers)) == {0, 1, 2}
    assert has_labels(path)
    tracking.track(grown.work(), grown.placed)
    assert list(zarr.open_group(path / "labels", mode="r").attrs["ome"]["labels"]) == [
        "phases",
        "objects",
        "appearance",
    ]


@pytest.mark.parametrize("error_px", [0.3, -0.3])
def test_an_error_of_the_registration_of_a_third_of_a_voxel_changes_no_track(
    grown: Run, error_px: float
) -> None:
    wrong = Rigid(shift_um=(error_px * VOXEL_UM, -error_px * VOXEL_UM, error_px * VOXEL_UM))
    placed = {name: move if name == "a" else wrong.after(move) for name, move in grown.placed.items()}
    tracking.track(grown.work(), placed)
    assert len(tracked(grown)) == 3
    assert happened(grown) == [("birth", "a", "b"), ("fill", "b", "c")]


def test_nothing_depends_on_blocks_or_threads(grown: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking.track(grown.work(), grown.placed)
    tables = {name: grown.table(name) for name in ("tracks", "events")}
    monkeypatch.setattr(tracking, "block_shape", lambda *_, **__: (7, 32, 11))
    cut: list[int] = []

    def count(*args: object, **more: object) -> object:
        blocks = blocks_of(*args, **more)  # type: ignore[arg-type]
        cut.append(len(blocks))
        return blocks

    monkeypatch.setattr(tracking, "blocks_of", count)
    tracking.track(grown.work(place=in_this_process(1), threads=1), grown.placed)
    assert {name: grown.table(name) for name in tables} == tables
    assert min(cut) > 50


def test_a_scan_that_is_not_placed_is_left_out_and_the_rest_goes_on(grown: Run) -> None:
    del grown.placed["b"]
    (warning,) = tracking.track(grown.work(), grown.placed)
    assert warning.startswith("b: not tracked")
    assert {row["scan"] for row in grown.table("tracks")} == {"a", "c"}
    assert happened(grown) == [("birth", "a", "c"), ("fill", "a", "c")]
    assert read_legend(grown.works[0].volume, "appearance").names == {0: "never", 1: "a", 2: "c"}


@pytest.mark.parametrize("damage", ["no labels", "damaged"])
def test_labels_that_cannot_be_read_are_named(grown: Run, damage: str) -> None:
    objects = grown.works[1].volume / "labels" / "objects"
    if damage == "no labels":
        shutil.rmtree(objects)
        (warning,) = tracking.track(grown.work(), grown.placed)
        assert warning.startswith("b: not tracked: its labels cannot be read")
        assert happened(grown) == [("birth", "a", "c"), ("fill", "a", "c")]
        return
    for path in (objects / "0" / "c").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadScan, match=r"labels are damaged .*segment the scan again"):
        tracking.track(grown.work(), grown.placed)


def test_a_table_of_something_else_is_named(grown: Run) -> None:
    work = grown.work()
    (work.tables / "objects.csv").write_text("a,b\n1,2\n")
    warnings = tracking.track(work, grown.placed)
    assert any("objects.csv: lacks columns" in text for text in warnings)
    assert grown.table("tracks") == []


def test_one_scan_only(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.scan("a", {1: ("crack", FIRST), 2: ("bubble", BALL)}, Rigid())
    (warning,) = tracking.track(run.work(), run.placed)
    assert "only scan" in warning
    assert tracked(run) == {frozenset({("a", 1)}), frozenset({("a", 2)})}
    assert happened(run) == []
    assert np.count_nonzero(read_labels(run.works[0].volume, "appearance") == 1) == 200


def test_no_objects_no_tables_no_scans(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert tracking.track(run.work(), {}) == []
    run.scan("a", {}, Rigid())
    run.scan("b", {}, Rigid())
    assert tracking.track(run.work(), run.placed) == []
    assert run.table("tracks") == run.table("events") == []
    assert read_labels(run.works[0].volume, "appearance").max() == 0
    (run.recipe.run_folder / "tables" / "objects.csv").unlink()
    work = SeriesWork(tuple(run.works), run.recipe, in_this_process(1), 1, 4_000_000_000)
    (warning,) = tracking.track(work, run.placed)
    assert "objects.csv" in warning


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_map_made_on_any_level_fills_the_others(tmp_path: Path, level: int) -> None:
    path, shape = tmp_path / "edge.ome.zarr", (11, 1030, 67)
    volume.create(path, volume.VolumeSpec(shape, 1.3), name="scan", attributes={})
    shapes = volume.level_shapes(volume.read_spec(path))
    assert len(shapes) == 3
    made = np.random.default_rng(0).integers(0, 4, shapes[level]).astype(np.uint8)
    write_appearance(path, lambda at: made[at], level=level, scans=["a", "b", "c"])
    np.testing.assert_array_equal(read_labels(path, "appearance", level=level), made)
    finest = read_labels(path, "appearance")
    for place in ((0, 0, 0), (7, 1029, 66), (10, 513, 33)):
        assert finest[place] == made[tuple(k >> level for k in place)]
    coarsest = read_labels(path, "appearance", level=len(shapes) - 1)
    part = finest[tuple(slice(2 ** (len(shapes) - 1)) for _ in range(3))]
    assert coarsest[0, 0, 0] == min(part[part > 0], default=0)


def test_colours_run_from_dark_to_bright() -> None:
    for n in (1, 2, 7, 30):
        colours = early_to_late(n)
        assert list(colours) == list(range(1, n + 1))
        light = [0.3 * r + 0.6 * g + 0.1 * b for r, g, b in colours.values()]
        assert light == sorted(light)
        assert len(set(colours.values())) == n
