"""What is looked at: volumes, labels and tables of a series as one; only what is on the screen is read."""

import math
import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from viewed_runs import (
    FIRST_ROW,
    NAMES,
    PIXEL_UM,
    SHAPE,
    data_bytes,
    grey,
    labels,
    most_bytes,
    write_appearance,
    write_run,
    write_series,
    write_tracks,
    write_volume,
)

from xctpipe import viewer, volume
from xctpipe.csvtables import read_table
from xctpipe.errors import BadRecipe
from xctpipe.runfolder import write_table
from xctpipe.segment.codes import COLOURS, PHASES
from xctpipe.viewer import window
from xctpipe.viewer.arrays import Placed, lazy_levels
from xctpipe.viewer.curves import read_curves
from xctpipe.viewer.layers import layer_data
from xctpipe.viewer.link import place_text
from xctpipe.viewer.objects import read_objects, text_of
from xctpipe.viewer.reader import get_reader, read_layers
from xctpipe.viewer.series import read_run


def layers_of(folder: Path) -> dict[str, tuple[list[Any], dict[str, Any]]]:
    run = read_run(folder)
    made = layer_data(run, read_objects(run, []), [])
    return {
        settings["name"]: (data if settings["multiscale"] else [data], settings) for data, settings, _ in made
    }


class TestSeries:
    def test_scans_are_in_order_of_time_and_one_that_failed_keeps_its_place(self, pristine: Path) -> None:
        run = read_run(pristine)
        # without a time c stays behind b, which is before it in the recipe
        assert [scan.name for scan in run.scans] == ["a", "b", "c", "d"]
        assert run.notes == ("c: shown empty: no light",)
        assert run.shape == SHAPE
        assert read_run(pristine / "run.json").folder == pristine

    def test_every_scan_is_where_it_belongs_at_every_level(self, pristine: Path) -> None:
        layers = layers_of(pristine)
        assert list(layers) == ["attenuation", "phases", "objects"]
        for name, (levels, _) in layers.items():
            assert len(levels) == 2, name
            assert [level.shape for level in levels] == [(4, *SHAPE), (4, 16, 20, 260)]
        levels = layers["attenuation"][0]
        for level, array in enumerate(levels):
            for t in (0, 1, 3):
                path = pristine / "scans" / NAMES[t] / "edge.ome.zarr"
                np.testing.assert_array_equal(array[t], volume.read(path, level=level))
            assert not array[2].compute().any()
        np.testing.assert_array_equal(layers["phases"][0][0][3], labels(3)[0])
        np.testing.assert_array_equal(layers["objects"][0][0][3], labels(3)[1])
        assert layers["objects"][0][0].dtype == np.int32
        assert not layers["phases"][0][0][2].compute().any()

    def test_positions_are_those_of_the_tables(self, pristine: Path) -> None:
        levels, settings = layers_of(pristine)["objects"]
        assert settings["units"] == ("pixel", "micrometer", "micrometer", "micrometer")
        assert settings["axis_labels"] == ("t", "z", "y", "x")
        for entries in read_objects(read_run(pristine), []).entries:
            for entry in entries:
                world = np.array([entry.scan, *entry.place_um])
                at = np.round((world - settings["translate"]) / settings["scale"]).astype(int)
                assert int(levels[0][tuple(at)]) == entry.label

    def test_greys_are_the_same_for_all_scans(self, pristine: Path) -> None:
        assert layers_of(pristine)["attenuation"][1]["contrast_limits"] == (0.0, 7.0)

    def test_classes_have_names_and_colours(self, pristine: Path) -> None:
        settings = layers_of(pristine)["phases"][1]
        names = dict(zip(settings["features"]["index"], settings["features"]["name"], strict=True))
        assert names[9] == "crack"
        assert names[6] == "nak"
        for name, rgb in COLOURS.items():
            shown = settings["colormap"][PHASES[name]]
            np.testing.assert_allclose(shown[:3], np.array(rgb) / 255)
        assert settings["colormap"][0][3] == settings["colormap"][None][3] == 0
        assert settings["colormap"][9][3] > settings["colormap"][5][3] > 0

    def test_stored_integers_are_shown_in_inverse_centimeters(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path / "run", dtype="uint8", scale=0.05, offset=-4.0)
        (array, _), settings = layers_of(folder)["attenuation"]
        np.testing.assert_array_equal(array[1], volume.read(folder / "scans" / "b" / "edge.ome.zarr"))
        assert array.dtype == np.float32
        np.testing.assert_allclose(settings["contrast_limits"], (0.0, 7.0), atol=1e-6)

    def test_unequal_scans_meet_at_the_axis_and_at_their_rows(self, run_folder: Path) -> None:
        path = run_folder / "scans" / "b" / "edge.ome.zarr"
        shutil.rmtree(path)
        write_volume(path, 1, shape=(36, 44, 514), first_row=FIRST_ROW - 3)
        run = read_run(run_folder)
        assert run.shape == (36, 44, 520)
        assert any("filled up with zeros" in note for note in run.notes)
        layers = layers_of(run_folder)
        array = layers["attenuation"][0][0]
        expected = np.zeros((4, *run.shape), np.float32)
        expected[0, 3:35, 2:42] = grey(0)
        expected[1, :, :, 3:517] = grey(1, (36, 44, 514))
        expected[3, 3:35, 2:42] = grey(3)
        # stored with fewer bits than made
        np.testing.assert_allclose(array.compute(), expected, atol=0.05)
        settings = layers["objects"][1]
        crack = read_objects(run, []).entries[3][1]
        at = np.round((np.array(crack.place_um) - settings["translate"][1:]) / PIXEL_UM).astype(int)
        assert int(layers["objects"][0][0][(3, *at)]) == crack.label
        part = (slice(0, 4), slice(20, 30), slice(30, 44), slice(500, 520))
        np.testing.assert_array_equal(array[part], array.compute()[part])

    def test_other_voxels_are_left_out_and_missing_labels_are_shown_empty(self, run_folder: Path) -> None:
        path = run_folder / "scans" / "b" / "edge.ome.zarr"
        shutil.rmtree(path)
        write_volume(path, 1, pixel_um=2 * PIXEL_UM)
        shutil.rmtree(run_folder / "scans" / "d" / "edge.ome.zarr" / "labels")
        run = read_run(run_folder)
        notes = "\n".join(run.notes)
        assert "b: shown empty: voxels of 20 um, those of the first are 10 um" in notes
        assert "d: has no labels; run the stage segment" in notes
        layers = layers_of(run_folder)
        assert not layers["attenuation"][0][0][1].compute().any()
        assert layers["attenuation"][0][0][3].compute().any()
        assert not layers["phases"][0][0][3].compute().any()
        assert layers["phases"][0][0][0].compute().any()

    def test_a_run_without_labels_or_tables_shows_its_volumes(self, run_folder: Path) -> None:
        for path in run_folder.glob("scans/*/edge.ome.zarr/labels"):
            shutil.rmtree(path)
        shutil.rmtree(run_folder / "tables")
        assert list(layers_of(run_folder)) == ["attenuation"]
        notes: list[str] = []
        objects = read_objects(read_run(run_folder), notes)
        assert objects.subject() is None
        assert "no table of objects; run the stage measure" in notes

    def test_broken_tables_are_told_and_the_rest_is_shown(self, run_folder: Path) -> None:
        (run_folder / "tables" / "objects.csv").write_bytes(b"\xff\xfe,\n")
        notes: list[str] = []
        run = read_run(run_folder)
        assert not any(read_objects(run, notes).entries)
        assert any("cannot be read as a table" in note for note in notes)
        assert "objects" in layers_of(run_folder)


class TestTracks:
    def test_an_object_has_one_label_through_the_series(self, run_folder: Path) -> None:
        write_tracks(run_folder)
        objects = read_objects(read_run(run_folder), [])
        assert objects.tracked
        levels = layers_of(run_folder)["objects"][0]
        for level in levels:
            got = level.compute()
            for t in (0, 1, 3):
                assert set(np.unique(got[t])) == ({0, 1} if t == 0 else {0, 1, 2})
        np.testing.assert_array_equal(levels[0][3] == 2, labels(3)[0] == PHASES["crack"])
        assert [entry.row["object"] for entry in objects.of(None, kind="crack")] == [8, 6]
        assert {entry.row["track"] for entry in objects.of(None, kind="crack")} == {2}

    def test_objects_without_a_track_keep_labels_of_their_own(self, run_folder: Path) -> None:
        write_tracks(run_folder)
        path = run_folder / "tables" / "tracks.csv"
        rows = [row for row in read_table(path) if row["kind"] == "crack"]
        write_table(path, rows, columns=list(rows[0]))
        got = layers_of(run_folder)["objects"][0][0][3].compute()
        assert set(np.unique(got)) == {0, 2, 2 + 4}

    def test_appearance_grows_with_the_slider_and_moves_with_the_pellet(self, run_folder: Path) -> None:
        write_appearance(run_folder)
        shift = {"part": "pellet", "status": "ok", "dz_px": 1.2, "dy_px": -2.4, "dx_px": 3.0}
        rows = [{"scan": "d", **shift}, {"scan": "b", **shift, "status": "failed"}]
        write_table(run_folder / "tables" / "registration.csv", rows, columns=list(rows[0]))
        (array, _), settings = layers_of(run_folder)["appearance"]
        got = array.compute()
        assert [set(np.unique(each)) for each in got] == [{0}, {0, 2}, {0}, {0, 2, 3}]
        assert tuple(each.min() for each in np.nonzero(got[1])) == (20, 16, 240)
        assert tuple(each.min() for each in np.nonzero(got[3])) == (21, 14, 243)
        features = settings["features"]
        assert dict(zip(features["index"], features["first crack in"], strict=True))[3] == "d"


class TestTables:
    def test_rows_by_scan_and_kind_the_largest_of_the_first_kind_leads(self, pristine: Path) -> None:
        objects = read_objects(read_run(pristine), [])
        assert objects.kinds == ["crack", "bubble"]
        assert [len(objects.of(t)) for t in range(4)] == [1, 2, 0, 2]
        assert [entry.kind for entry in objects.of(3)] == ["crack", "bubble"]
        subject = objects.subject()
        assert subject is not None
        assert (subject.scan, subject.kind) == (3, "crack")
        assert objects.find(3, 6) == subject
        assert objects.find(3, 99) is None
        assert objects.columns[:3] == ("scan", "kind", "object")

    def test_cells_as_text(self) -> None:
        values = (None, True, False, 123456, 1234.567, "crack")
        assert [text_of(value, "depth_um") for value in values] == [
            "",
            "yes",
            "",
            "1.235e+05",
            "1235",
            "crack",
        ]
        assert text_of(2.61e7, "volume_um3") == "0.0261"
        assert text_of(123456, "object") == "123456"

    def test_what_is_written_over_the_picture(self, pristine: Path) -> None:
        run = read_run(pristine)
        assert place_text(run, 1) == "b   2 of 4\n0.25 mAh/cm²   2.500 V   1.00 h"
        assert place_text(run, 2) == "c   3 of 4\nshown empty: no light"

    def test_curves_over_charge_else_time_else_number(self, run_folder: Path) -> None:
        run = read_run(run_folder)
        assert read_curves(run, []) is None
        write_series(run_folder)
        curves = read_curves(run, [])
        assert curves is not None
        assert curves.title == "charge (mAh/cm²)"
        assert [each.title for each in curves.curves] == ["crack volume (mm³)", "contact (%)"]
        assert math.isnan(curves.x[2])
        np.testing.assert_allclose(curves.curves[0].value, [0, 1e-4, math.nan, 3e-4])
        assert [curves.nearest(x) for x in (-1, 0.2, 0.55, 9)] == [0, 1, 3, 3]
        path = run_folder / "tables" / "series.csv"
        rows = [{**row, "charge_mah_cm2": None} for row in read_table(path)]
        write_table(path, rows, columns=list(rows[0]))
        assert read_curves(run, []).title == "time (h)"
        rows = [{**row, "time_s": 0.0} for row in rows]
        write_table(path, rows, columns=list(rows[0]))
        assert read_curves(run, []).x == (1, 2, 3, 4)


class TestLaziness:
    def test_making_layers_reads_no_voxel(self, pristine: Path, bytes_read: list[tuple[str, int]]) -> None:
        assert len(layers_of(pristine)) == 3
        assert data_bytes(bytes_read) == 0
        assert bytes_read

    @pytest.mark.parametrize("level", [0, 1])
    @pytest.mark.parametrize("plane", [0, 1])
    def test_a_plane_of_a_scan_reads_its_chunks_and_no_others(
        self, pristine: Path, bytes_read: list[tuple[str, int]], level: int, plane: int
    ) -> None:
        for levels, _ in layers_of(pristine).values():
            array = levels[level]
            where = [1, slice(None), slice(None), slice(None)]
            where[1 + plane] = array.shape[1 + plane] // 2
            assert array[tuple(where)].compute().any()
        read = data_bytes(bytes_read)
        assert 0 < read <= most_bytes(pristine, "b", level=level, plane=plane)
        assert all("/b/" in key for key, n in bytes_read if n and not key.endswith("zarr.json"))

    def test_one_voxel_is_one_chunk(self, pristine: Path, bytes_read: list[tuple[str, int]]) -> None:
        array = layers_of(pristine)["objects"][0][0]
        assert int(array[1, 21, 17, 260]) == 8
        assert data_bytes(bytes_read) <= 64**3 * 4 + 64 + 16 * 9 + 4

    def test_a_full_series_is_opened_in_no_time(self) -> None:
        class Huge:
            shape, chunks, dtype = (3001, 3200, 3200), (16, 64, 64), np.dtype("float32")

            def __getitem__(self, where: tuple[slice, ...]) -> np.ndarray:
                return np.ones([part.stop - part.start for part in where], np.float32)

        started = time.process_time()
        (array,) = lazy_levels([Placed([Huge()])] * 10, shape=Huge.shape, dtype=np.float32)
        assert array.npartitions > 4_000_000
        part = array[7, 1500, 100:700, 900:1500]
        assert time.process_time() - started < 0.5
        assert part.compute().all()


class TestReader:
    def test_it_takes_runs_and_nothing_else_and_never_raises(self, pristine: Path, tmp_path: Path) -> None:
        for path in (str(pristine), pristine, [str(pristine)], str(pristine / "run.json")):
            assert get_reader(path) is not None
        (tmp_path / "run.json").write_text("{}")
        no_runs: list[Any] = [
            str(tmp_path),
            str(tmp_path / "absent"),
            "https://a.b/run.json",
            [],
            None,
            3,
            "\0",
        ]
        for path in (*no_runs, [str(pristine), str(tmp_path)]):
            assert get_reader(path) is None

    def test_layers_of_two_runs(self, pristine: Path) -> None:
        layers = read_layers([str(pristine), str(pristine)])
        assert [kind for _, _, kind in layers] == ["image", "labels", "labels"] * 2

    def test_the_manifest_names_what_exists(self, pristine: Path) -> None:
        npe2 = pytest.importorskip("npe2", reason="npe2 is not installed: the extra view")
        manifest = npe2.PluginManifest.from_file(Path(viewer.__file__).with_name("napari.yaml"))
        assert manifest.name == "xctpipe"
        commands = {each.id: each.python_name for each in manifest.contributions.commands}
        for python_name in commands.values():
            module, name = python_name.split(":")
            source = Path(find_spec(module).origin).read_text()
            assert f"def {name}(" in source or f"class {name}(" in source
        manager = npe2.PluginManager()
        manager.register(manifest)
        for path in (pristine, pristine / "run.json"):
            readers = list(manager.iter_compatible_readers(str(path)))
            assert [each.command for each in readers] == ["xctpipe.get_reader"]
        assert not list(manager.iter_compatible_readers(str(pristine / "tables" / "scans.csv")))


class TestBadInput:
    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(BadRecipe, match="not a run folder"):
            viewer.open_run(tmp_path)
        with pytest.raises(BadRecipe, match="not a run folder"):
            viewer.open_run(tmp_path / "absent")
        (tmp_path / "run.json").write_text('{"scans": {}}')
        with pytest.raises(BadRecipe, match="not a run folder"):
            viewer.open_run(tmp_path)

    def test_no_volume(self, run_folder: Path) -> None:
        for path in run_folder.glob("scans/*/edge.ome.zarr"):
            shutil.rmtree(path)
        with pytest.raises(BadRecipe, match=r"no scan has a finished volume.*no light.*stage reconstruct"):
            viewer.open_run(run_folder)

    def test_a_volume_that_is_not_ours_is_shown_empty(self, run_folder: Path) -> None:
        path = run_folder / "scans" / "b" / "edge.ome.zarr" / "zarr.json"
        path.write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
        assert any("b: shown empty" in note for note in read_run(run_folder).notes)
        path.write_text("{")
        assert any("b: shown empty" in note for note in read_run(run_folder).notes)

    @pytest.mark.parametrize("missing", ["napari", "qtpy.QtWidgets"])
    def test_no_napari(self, pristine: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        monkeypatch.setitem(sys.modules, "napari", type(sys)("napari"))
        monkeypatch.setitem(sys.modules, "qtpy", type(sys)("qtpy"))
        monkeypatch.setitem(sys.modules, missing, None)
        for call in (viewer.open_run, viewer.show):
            with pytest.raises(BadRecipe, match=r'pip install "xctpipe\[view\]"'):
                call(pristine)

    def test_no_screen(self, pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(window, "_napari", lambda: None)
        monkeypatch.setattr(sys, "platform", "linux")
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(BadRecipe, match="there is no screen here"):
            viewer.open_run(pristine)
