"""Opens a run in a window of napari."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from xctpipe.errors import BadRecipe
from xctpipe.viewer.curves import read_curves
from xctpipe.viewer.layers import ROLE_KEY, WHAT, WHEN, WHICH, layer_data
from xctpipe.viewer.link import SECTIONS, UPRIGHT
from xctpipe.viewer.objects import Objects, read_objects
from xctpipe.viewer.series import Run, read_run

log = logging.getLogger(__name__)


def show(run_folder: Path) -> None:
    """Open a run and wait until its window is closed; errors as `open_run`."""
    napari = _napari()
    open_run(run_folder)
    napari.run()


def open_run(run_folder: Path) -> Any:
    """Open a run: its layers, the table of its objects, and its curves where there are any.

    Returns
    -------
    The `napari.Viewer`.

    Raises
    ------
    BadRecipe
        If the folder is no run, none of its scans has a volume, napari is not installed, or there is no
        screen.
    """
    run = read_run(Path(run_folder))
    notes = list(run.notes)
    objects = read_objects(run, notes)
    layers = layer_data(run, objects, notes)
    napari = _napari()
    _check_screen()
    viewer = napari.Viewer(title=f"{run.name} - xctpipe")
    for data, settings, kind in layers:
        # napari looks at the middle of everything first, which would be read for nothing
        viewer.add_layer(napari.layers.Layer.create(data, {**settings, "visible": False}, kind))
    _dock(viewer, curves=read_curves(run, notes) is not None)
    _look(viewer, run, objects)
    for layer, (_, settings, _) in zip(viewer.layers, layers, strict=True):
        layer.visible = settings.get("visible", True)
    _fit(viewer)
    for note in notes:
        log.warning("%s", note)
    return viewer


def _napari() -> Any:
    try:
        import napari
        import qtpy.QtWidgets  # noqa: F401 - napari alone opens no window
    except ImportError as err:
        raise BadRecipe(
            f'napari is not installed ({err}); install it with: pip install "xctpipe[view]"'
        ) from err
    return napari


def _check_screen() -> None:
    """Without a screen Qt ends the whole process; that is better said in words."""
    known = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))
    if sys.platform.startswith("linux") and not known:
        raise BadRecipe(
            "there is no screen here (DISPLAY is not set); open the run on a machine with one, or over a "
            "remote desktop; report.html in the run folder needs none"
        )


def _fit(viewer: Any) -> None:
    """Show the whole plane, as soon as the window has found its size."""
    from qtpy.QtCore import QTimer

    QTimer.singleShot(0, viewer.reset_view)


def _dock(viewer: Any, *, curves: bool) -> None:
    from xctpipe.viewer.plot import CurvesWidget
    from xctpipe.viewer.table import ObjectsWidget

    viewer.window.add_dock_widget(ObjectsWidget(viewer), name="Objects", area="right")
    if curves:
        viewer.window.add_dock_widget(CurvesWidget(viewer), name="Growth", area="right")


def _look(viewer: Any, run: Run, objects: Objects) -> None:
    """Begin with the first scan, upright through the largest crack of the series, or through the middle."""
    subject = objects.subject()
    middle = [first + (n - 1) / 2 * run.pixel_um for first, n in zip(run.origin_um, run.shape, strict=True)]
    place = subject.place_um if subject and subject.place_um else middle
    viewer.dims.order = SECTIONS[UPRIGHT]
    viewer.dims.set_point(range(4), (0, *place))
    viewer.reset_view()
    viewer.canvas.overlays.scale_bar.visible = True
    for layer in viewer.layers:
        # of what is stored nothing can be painted over
        if layer.metadata.get(ROLE_KEY) in {WHAT, WHICH, WHEN}:
            layer.editable = False
        if layer.metadata.get(ROLE_KEY) == WHAT:
            viewer.layers.selection.active = layer
