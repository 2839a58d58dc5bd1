"""What ties a napari viewer to a run: which scan is looked at, and going to an object of another."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe.viewer.layers import ATTENUATION, MASS, ROLE_KEY, WHAT, WHICH, run_of
from xctpipe.viewer.objects import Entry
from xctpipe.viewer.series import Run, ShownScan, read_run

_SMALLEST_PX = 60
"""An object that one goes to is shown at least so large on the screen."""
_LARGEST_ZOOM = 8
"""Pixels of the screen per voxel."""


SECTIONS = {"x - z": (0, 2, 1, 3), "y - z": (0, 3, 1, 2), "x - y": (0, 1, 2, 3)}
"""Planes to look at, across and down, and the order of axes (t, z, y, x) that shows each."""
UPRIGHT = "x - z"


def run_in(viewer: Any) -> Path | None:
    """The run folder that layers of a viewer are of; the last opened of several."""
    found = [run_of(layer.metadata) for layer in viewer.layers]
    return next((each for each in reversed(found) if each is not None), None)


class Link:
    """A viewer that shows a run.

    Parameters
    ----------
    moved : called with the scan when another one is looked at.
    picked : called with a label when one of the objects is clicked or chosen.
    """

    def __init__(
        self,
        viewer: Any,
        run: Run,
        *,
        moved: Callable[[int], None] | None = None,
        picked: Callable[[int], None] | None = None,
    ) -> None:
        self.viewer = viewer
        self.run = run
        self._moved, self._picked = moved, picked
        self._scan = self.scan
        self._watched: Any = None
        viewer.dims.events.current_step.connect(self._on_step)
        viewer.layers.events.inserted.connect(self._watch)
        viewer.mouse_drag_callbacks.append(self._on_mouse)
        self._watch()
        self._tell_place()

    def cut(self) -> None:
        """Forget the viewer: nothing is called any more."""
        viewer = self.viewer
        viewer.dims.events.current_step.disconnect(self._on_step)
        viewer.layers.events.inserted.disconnect(self._watch)
        if self._on_mouse in viewer.mouse_drag_callbacks:
            viewer.mouse_drag_callbacks.remove(self._on_mouse)
        if self._watched is not None:
            self._watched.events.selected_label.disconnect(self._on_label)

    @property
    def _axes(self) -> range:
        """Axes (t, z, y, x) among those of the viewer, which has more when other layers do."""
        return range(self.viewer.dims.ndim - 4, self.viewer.dims.ndim)

    @property
    def scan(self) -> int:
        """Place on the time axis of the scan that is looked at."""
        if self.viewer.dims.ndim < 4:
            return 0
        return int(np.clip(round(self.viewer.dims.point[self._axes[0]]), 0, len(self.run.scans) - 1))

    @property
    def layer(self) -> Any:
        """The layer of objects, None where there is none."""
        for layer in self.viewer.layers:
            if layer.metadata.get(ROLE_KEY) == WHICH and run_of(layer.metadata) == self.run.folder:
                return layer
        return None

    def go_to_scan(self, scan: int) -> None:
        """Move the time slider."""
        if self.viewer.dims.ndim >= 4:
            self.viewer.dims.set_point(self._axes[0], scan)

    def look_along(self, section: str) -> None:
        """Show one of `SECTIONS` through the place that is looked at."""
        dims, first = self.viewer.dims, self._axes[0]
        if dims.ndim < 4:
            return
        dims.order = (*range(first), *(first + axis for axis in SECTIONS[section]))
        self.viewer.reset_view()

    def go_to(self, entry: Entry) -> None:
        """Show an object: move to its scan and its centre, come nearer if it is small, and light it up."""
        self.light(entry.label)
        place = entry.place_um
        if place is None or self.viewer.dims.ndim < 4:
            self.go_to_scan(entry.scan)
            return
        self.viewer.dims.set_point(list(self._axes), (entry.scan, *place))
        camera, dims = self.viewer.scene.camera, self.viewer.dims
        seen = [place[axis - self._axes[1]] for axis in dims.displayed if axis in self._axes[1:]]
        camera.center = (0.0, *seen)[-3:]
        smallest_um = max(entry.size_um, 4 * self.run.pixel_um)
        camera.zoom = max(camera.zoom, min(_SMALLEST_PX / smallest_um, _LARGEST_ZOOM / self.run.pixel_um))

    def light(self, label: int) -> None:
        """Show one label of the objects alone, above the phases; 0 shows none."""
        layer = self.layer
        if layer is None:
            return
        layer.visible = label > 0
        layer.show_selected_label = label > 0
        layer.selected_label = label

    def label_at(self, position: Any) -> int:
        """Label of the objects at a position of the viewer, read from the finest level; 0 beyond them."""
        layer = self.layer
        if layer is None:
            return 0
        # own arithmetic: a hidden layer tells nothing of its values
        place = np.round(layer.world_to_data(position)).astype(int)[-4:]
        finest = layer.data[0] if layer.multiscale else layer.data
        if (place < 0).any() or (place >= finest.shape).any():
            return 0
        return int(np.asarray(finest[tuple(int(each) for each in place)]))

    def _on_step(self, event: Any = None) -> None:
        scan = self.scan
        if scan != self._scan:
            self._scan = scan
            self._tell_place()
            if self._moved is not None:
                self._moved(scan)

    def _on_label(self, event: Any = None) -> None:
        if self._picked is not None and self._watched is not None:
            self._picked(int(self._watched.selected_label))

    def _on_mouse(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        """A click that is no drag picks the object under it."""
        yield
        dragged = False
        while event.type == "mouse_move":
            dragged = True
            yield
        if dragged or self._picked is None or viewer.dims.ndisplay != 2:
            return
        label = self.label_at(event.position)
        if label:
            self._picked(label)

    def _watch(self, event: Any = None) -> None:
        """Hear of labels that are chosen in the layer, once it is there."""
        layer = self.layer
        if layer is not None and layer is not self._watched:
            layer.events.selected_label.connect(self._on_label)
            self._watched = layer

    def _tell_place(self) -> None:
        text = self.viewer.canvas.overlays.text
        text.text = place_text(self.run, self._scan)
        text.position = "top_left"
        text.visible = True


class InDepth:
    """Shows objects alone in three dimensions: layers and greys would hide what is in them."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._before: dict[str, bool] = {}
        link.viewer.dims.events.ndisplay.connect(self._on_depth)

    def cut(self) -> None:
        """Forget the viewer."""
        self._link.viewer.dims.events.ndisplay.disconnect(self._on_depth)

    def _on_depth(self, event: Any = None) -> None:
        link = self._link
        if link.layer is None:
            return
        layers = {layer.metadata.get(ROLE_KEY): layer for layer in link.viewer.layers}
        if link.viewer.dims.ndisplay == 3:
            self._before = {role: layer.visible for role, layer in layers.items()}
            for role in (ATTENUATION, MASS, WHAT):
                if role in layers:
                    layers[role].visible = False
            layers[WHICH].visible = True
        else:
            for role, visible in self._before.items():
                if role in layers:
                    layers[role].visible = visible


class Follower:
    """Links a widget to the run that a viewer shows, as soon as it shows one, and to the next one.

    Parameters
    ----------
    opened : called with the link to a run when its layers are there.
    moved, picked : as `Link`.
    """

    def __init__(
        self,
        viewer: Any,
        *,
        opened: Callable[[Link], None],
        moved: Callable[[int], None],
        picked: Callable[[int], None] | None = None,
    ) -> None:
        self.viewer = viewer
        self.link: Link | None = None
        self._opened, self._moved, self._picked = opened, moved, picked
        viewer.layers.events.inserted.connect(self.look)

    def look(self, event: Any = None) -> None:
        """Whether there is another run than so far."""
        folder = run_in(self.viewer)
        if folder is None or (self.link is not None and self.link.run.folder == folder):
            return
        if self.link is not None:
            self.link.cut()
        self.link = Link(self.viewer, read_run(folder), moved=self._moved, picked=self._picked)
        self._opened(self.link)

    def cut(self) -> None:
        """Forget the viewer."""
        self.viewer.layers.events.inserted.disconnect(self.look)
        if self.link is not None:
            self.link.cut()
            self.link = None


def place_text(run: Run, scan: int) -> str:
    """What is written over the picture: scan, charge, voltage."""
    shown = run.scans[scan]
    lines = [f"{shown.name}   {scan + 1} of {len(run.scans)}"]
    known = [text for text in (_value(shown, *each) for each in _TOLD) if text]
    if known:
        lines.append("   ".join(known))
    if shown.problem:
        problem = shown.problem.splitlines()[0]
        lines.append(problem if len(problem) <= 90 else f"{problem[:87]}...")
    return "\n".join(lines)


_TOLD = (
    ("charge_mah_cm2", 1.0, "{:.3g} mAh/cm²"),
    ("voltage_v", 1.0, "{:.3f} V"),
    ("time_s", 1 / 3600, "{:.2f} h"),
)


def _value(scan: ShownScan, column: str, factor: float, form: str) -> str:
    value = scan.number(column)
    return "" if value is None else form.format(value * factor)
