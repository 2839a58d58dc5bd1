"""A small plot of the series beside the picture, with the scan that is looked at marked."""

import math
from typing import Any

from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from xctpipe.viewer.curves import Curve, Curves, read_curves
from xctpipe.viewer.link import Follower, Link

_COLOURS = ("#d55e00", "#56b4e9", "#009e73")
_DARK, _LIGHT = "#262930", "#d0d2d4"


class CurvesWidget(QWidget):
    """Crack volume, bubble volume and contact over charge; a click goes to the nearest scan.

    Parameters
    ----------
    napari_viewer : whose layers a run has; without one, or without a table of the series, nothing is drawn.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.curves: Curves | None = None
        self._said = QLabel("Nothing to draw: open a run that has a table of the series (stage track).")
        self._said.setWordWrap(True)
        self._figure = Figure(figsize=(4, 3.6), facecolor=_DARK, layout="constrained")
        self.canvas = FigureCanvasQTAgg(self._figure)
        self._marks: list[Any] = []
        whole = QVBoxLayout(self)
        whole.addWidget(self._said)
        whole.addWidget(self.canvas, 1)
        self.canvas.mpl_connect("button_press_event", self._on_click)
        self.canvas.setMinimumHeight(260)
        self.follower = follower = Follower(napari_viewer, opened=self._show_run, moved=self.mark)
        self.destroyed.connect(lambda *_: follower.cut())
        follower.look()

    def _show_run(self, link: Link) -> None:
        self.curves = read_curves(link.run, [])
        self._said.setVisible(self.curves is None)
        self._draw()
        self.mark(link.scan)

    def _draw(self) -> None:
        self._figure.clear()
        self._marks = []
        if self.curves is None:
            return
        several = self._figure.subplots(len(self.curves.curves), 1, sharex=True, squeeze=False)[:, 0]
        for axes, curve, colour in zip(several, self.curves.curves, _COLOURS, strict=False):
            self._draw_curve(axes, curve, colour)
        several[-1].set_xlabel(self.curves.title, color=_LIGHT, fontsize=8)

    def _draw_curve(self, axes: Any, curve: Curve, colour: str) -> None:
        x = self.curves.x if self.curves else ()
        axes.set_facecolor(_DARK)
        axes.plot(x, curve.value, "o-", color=colour, markersize=4, linewidth=1.2)
        bars = [
            each
            for each in zip(x, curve.low, curve.high, strict=True)
            if all(math.isfinite(value) for value in each)
        ]
        if bars:
            axes.vlines(*zip(*bars, strict=True), color=colour, linewidth=1, alpha=0.7)
        axes.set_title(curve.title, color=_LIGHT, fontsize=8, loc="left", pad=2)
        axes.tick_params(colors=_LIGHT, labelsize=7)
        for side in axes.spines.values():
            side.set_color("#5a5f66")
        self._marks.append(axes.axvline(math.nan, color="white", linewidth=1, linestyle="--"))

    def mark(self, scan: int) -> None:
        """Mark the scan that is looked at."""
        if self.curves is None:
            return
        for line in self._marks:
            line.set_xdata([self.curves.x[scan]] * 2)
        self.canvas.draw_idle()

    def _on_click(self, event: Any) -> None:
        link = self.follower.link
        if self.curves is None or link is None or event.xdata is None:
            return
        scan = self.curves.nearest(event.xdata)
        if scan is not None:
            link.go_to_scan(scan)
