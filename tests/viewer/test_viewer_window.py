"""A real window with a run in it, on a screen of its own: what it shows, and what follows what."""

import atexit
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from viewed_runs import data_bytes, most_bytes, write_appearance, write_series, write_tracks
from zarr.storage import LocalStore

from xctpipe import viewer as viewers

# napari and its libraries warn of their own
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A screen that nobody sees; skips where it, napari or Qt is absent."""
    server = shutil.which("Xvfb")
    if server is None:
        pytest.skip("no Xvfb: install it to test the window (apt-get install xvfb)")
    pytest.importorskip("napari", reason='no napari: pip install "xctpipe[view]"', exc_type=ImportError)
    pytest.importorskip("PyQt6", reason='no Qt: pip install "xctpipe[view]"', exc_type=ImportError)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", _display(server))
        patch.delenv("WAYLAND_DISPLAY", raising=False)
        patch.delenv("QT_QPA_PLATFORM", raising=False)
        patch.setenv("NAPARI_CONFIG", str(tmp_path_factory.mktemp("napari") / "settings.yaml"))
        yield


def _display(server: str) -> str:
    """Start a screen, which ends with this process and not before: Qt ends a process whose screen is gone."""
    read, write = os.pipe()
    # ends itself with its last client, so that nothing is left when the tests are killed
    command = [
        server,
        "-displayfd",
        str(write),
        "-screen",
        "0",
        "1600x1200x24",
        "-nolisten",
        "tcp",
        "-terminate",
    ]
    running = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    atexit.register(running.wait, 5)
    atexit.register(running.terminate)
    os.close(write)
    with os.fdopen(read) as answer:
        number = answer.readline().strip()
    if not number:
        pytest.skip("Xvfb does not start here")
    return f":{number}"


@pytest.fixture(scope="module")
def opened(screen: None, pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A run with all tables in a window, what was read until it was there, and the widgets beside it."""
    folder = tmp_path_factory.mktemp("window") / "run"
    shutil.copytree(pristine, folder)
    write_tracks(folder)
    write_series(folder)
    write_appearance(folder)
    log: list[tuple[str, int]] = []
    get = LocalStore.get

    async def counted(self: LocalStore, key: str, *args: Any, **more: Any) -> Any:
        got = await get(self, key, *args, **more)
        log.append((f"{self.root}/{key}", 0 if got is None else len(got)))
        return got

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "get", counted)
        viewer = viewers.open_run(folder)
        viewer.window.resize(1300, 900)
        settle()
        docks = viewer.window.dock_widgets
        yield SimpleNamespace(
            viewer=viewer,
            folder=folder,
            log=log,
            first=list(log),
            table=docks["Objects"],
            plot=docks["Growth"],
            layer={layer.name: layer for layer in viewer.layers},
        )
        viewer.close()
        settle()


@pytest.fixture
def view(opened: Any) -> Any:
    """The window as it is when it was just opened."""
    opened.table._all.setChecked(False)
    opened.table.filter(None)
    opened.table.clear()
    opened.table._section.setCurrentText("x - z")
    opened.viewer.dims.set_point(range(4), (0, 260.0, 0.0, 0.0))
    opened.viewer.reset_view()
    settle()
    return opened


def settle(seconds: float = 0.2) -> None:
    """Let Qt do what it has to."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()


def picture(view: Any) -> np.ndarray:
    settle()
    return np.asarray(view.viewer.screenshot(canvas_only=True, flash=False))[..., :3].astype(int)


def like(image: np.ndarray, colour: tuple[int, int, int], tolerance: int = 30) -> int:
    return int((np.abs(image - colour).max(axis=2) < tolerance).sum())


def test_opening_reads_one_plane_of_one_scan(opened: Any) -> None:
    plane = {level: most_bytes(opened.folder, "a", level=level, plane=1) for level in (0, 1)}
    # what is on the screen, of the level that fits, and of the coarsest the small pictures of the layers
    assert 0 < data_bytes(opened.first) <= plane[0] + plane[1]
    assert all("/a/" in key for key, n in opened.first if n and not key.endswith("zarr.json"))


def test_the_picture_shows_greys_and_labels(view: Any) -> None:
    assert view.viewer.dims.axis_labels == ("t", "z", "y", "x")
    assert {str(unit) for unit in view.layer["attenuation"].units[1:]} == {"micrometer"}
    view.viewer.dims.set_point((0, 2), (3, 0.0))
    with_labels = picture(view)
    view.layer["phases"].visible = False
    without = picture(view)
    view.layer["phases"].visible = True
    assert len(np.unique(without.reshape(-1, 3), axis=0)) > 50
    assert like(with_labels, (213, 94, 0), 60) > 50
    assert like(without, (213, 94, 0), 60) == 0
    # another scan is another picture
    view.viewer.dims.set_point(0, 0)
    assert like(picture(view), (213, 94, 0), 60) == 0
    view.viewer.dims.set_point(0, 2)
    settle()
    assert view.viewer.canvas.overlays.text.text.startswith("c   3 of 4\nshown empty: no light")


def test_the_slider_shows_the_rows_of_the_scan(view: Any) -> None:
    assert [(e.scan, e.kind) for e in view.table.entries] == [(0, "bubble")]
    view.viewer.dims.set_point(0, 3)
    assert [(e.scan, e.kind) for e in view.table.entries] == [(3, "crack"), (3, "bubble")]
    assert view.viewer.canvas.overlays.text.text.startswith("d   4 of 4\n0.75 mAh/cm²   1.500 V")
    view.table.filter("bubble")
    assert [e.kind for e in view.table.entries] == ["bubble"]
    view.viewer.dims.set_point(0, 2)
    assert view.table.entries == []


def test_a_row_moves_to_its_object_and_scan(view: Any) -> None:
    view.table._all.setChecked(True)
    view.table.filter("crack")
    entries = view.table.entries
    assert [(e.scan, e.row["track"]) for e in entries] == [(1, 2), (3, 2)]
    view.table.table.selectRow(1)
    settle()
    expected = (3, *entries[1].place_um)
    pixel = np.array([1, 10, 10, 10])
    assert (np.abs(np.array(view.viewer.dims.point) - expected) <= pixel / 2).all()
    np.testing.assert_allclose(view.viewer.scene.camera.center[-2:], (expected[1], expected[3]))
    layer = view.layer["objects"]
    assert layer.visible
    assert (layer.selected_label, layer.show_selected_label) == (2, True)
    assert view.table.chosen.scan == 3
    # the track goes on in the table when the slider moves
    view.viewer.dims.set_point(0, 1)
    assert (view.table.chosen.scan, view.table.chosen.label) == (1, 2)
    view.viewer.dims.set_point(0, 0)
    assert view.table.chosen is None
    view.table.clear()
    assert not layer.visible


def test_a_label_chosen_in_the_layer_chooses_its_row(view: Any) -> None:
    view.viewer.dims.set_point(0, 3)
    before = view.viewer.dims.point
    view.layer["objects"].selected_label = 1
    assert view.table.chosen.kind == "bubble"
    assert view.viewer.dims.point == before


def test_a_click_on_an_object_chooses_its_row_and_a_drag_does_not(view: Any) -> None:
    crack = next(e for e in view.table.objects.of(3, kind="crack"))
    (react,) = [
        each
        for each in view.viewer.mouse_drag_callbacks
        if getattr(each, "__self__", None) is view.table.link
    ]
    view.viewer.dims.set_point(0, 3)
    event = SimpleNamespace(position=(3.0, *crack.place_um), type="mouse_press")

    def click(*moves: str) -> None:
        going = react(view.viewer, event)
        next(going)
        for kind in (*moves, "mouse_release"):
            event.type = kind
            next(going, None)

    click("mouse_move")
    assert view.table.chosen is None
    click()
    assert view.table.chosen.kind == "crack"
    event.position = (3.0, 1e6, 0.0, 0.0)
    click()
    assert view.table.chosen.kind == "crack"


def test_in_three_dimensions_objects_are_alone(view: Any) -> None:
    def shown() -> set[str]:
        return {name for name, layer in view.layer.items() if layer.visible}

    assert shown() == {"attenuation", "phases"}
    view.viewer.dims.ndisplay = 3
    assert shown() == {"objects"}
    view.viewer.dims.ndisplay = 2
    assert shown() == {"attenuation", "phases"}


def test_the_plot_marks_the_scan_and_a_click_goes_to_one(view: Any) -> None:
    view.viewer.dims.set_point(0, 3)
    assert all(line.get_xdata()[0] == pytest.approx(0.75) for line in view.plot._marks)
    assert len(view.plot._marks) == 2
    view.plot._on_click(SimpleNamespace(xdata=0.3))
    assert view.table.link.scan == 1
    assert view.plot.canvas.grab().toImage().width() > 100


def test_going_back_reads_nothing_again(view: Any) -> None:
    view.viewer.dims.set_point(0, 1)
    settle()
    view.viewer.dims.set_point(0, 0)
    settle()
    count = len(view.log)
    view.viewer.dims.set_point(0, 1)
    settle()
    assert data_bytes(view.log[count:]) == 0


def test_a_dropped_run_opens_and_the_widget_finds_it(screen: None, pristine: Path) -> None:
    import npe2
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QApplication

    from xctpipe.viewer.table import ObjectsWidget

    manager = npe2.PluginManager.instance()
    if "xctpipe" not in manager:
        manager.register(npe2.PluginManifest.from_file(Path(viewers.__file__).with_name("napari.yaml")))
    model = ViewerModel()
    app = QApplication.instance() or QApplication([])
    widget = ObjectsWidget(model)
    assert "drop its folder" in widget._said.text()
    model.open(str(pristine), plugin="xctpipe")
    assert [layer.name for layer in model.layers] == ["attenuation", "phases", "objects"]
    model.dims.set_point(0, 0)
    assert [e.kind for e in widget.entries] == ["bubble"]
    model.dims.set_point(0, 1)
    assert [e.kind for e in widget.entries] == ["crack", "bubble"]
    widget.deleteLater()
    settle()
    model.dims.set_point(0, 3)
    assert app is not None
