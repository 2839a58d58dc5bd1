"""How good every scan is, drawn over the series: what drifts or stands out is seen here first."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xctpipe.report.drawing import NARROW_IN, plain
from xctpipe.report.source import Entry, Run
from xctpipe.scan import DoubleArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOUR, _PALE = "#336688", "0.55"


@dataclass(frozen=True)
class _Curve:
    """Values of the scans under one label."""

    values: DoubleArray
    errors: DoubleArray | None = None
    name: str = ""


def draw(run: Run, *, width_in: float) -> "Figure | None":
    """A panel for each measure of quality that is known of any scan; None where none is."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = _panels(run)
    if not panels:
        return None
    columns = 1 if width_in <= NARROW_IN else min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(width_in, 1.45 * lines + 0.4), layout="constrained")
    every = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
    numbers = np.array([entry.number for entry in run.scans], np.float64)
    for axes, (label, curves) in zip(every, panels, strict=False):
        _panel(axes, numbers, label, curves)
        axes.tick_params(labelbottom=True)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    every[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("scan", fontsize=9)
    return figure


def _panels(run: Run) -> list[tuple[str, list[_Curve]]]:
    """Label and curves of each panel that has a value."""
    rings = [_of(run, f"rings_{when}_cm1", name=f"{when} correction") for when in ("before", "after")]
    every = [
        ("axis (px)", [_of(run, "center_px", error="center_uncertainty_px")]),
        ("noise (cm⁻¹)", [_of(run, "noise_cm1")]),
        ("resolution (µm)", [_of(run, "resolution_um")]),
        ("rings (cm⁻¹)", rings),
        ("registration\nerror (px)", [_Curve(_values(run, lambda entry: _error(run, entry)))]),
    ]
    known = [(label, [each for each in curves if np.isfinite(each.values).any()]) for label, curves in every]
    return [(label, curves) for label, curves in known if curves]


def _of(run: Run, key: str, *, error: str = "", name: str = "") -> _Curve:
    values = _values(run, lambda entry: entry.row.get(key))
    return _Curve(values, _values(run, lambda entry: entry.row.get(error)) if error else None, name)


def _values(run: Run, value: Callable[[Entry], Any]) -> DoubleArray:
    found = [value(entry) for entry in run.scans]
    return np.array([np.nan if each is None else float(each) for each in found])


def _error(run: Run, entry: Entry) -> Any:
    """Of the pellet; that of the reference is none."""
    rows = [row for row in run.rows("registration", entry.name) if row.get("part", "pellet") == "pellet"]
    return None if not rows or rows[0].get("status") == "reference" else rows[0].get("error_px")


def _panel(axes: "Axes", numbers: DoubleArray, label: str, curves: list[_Curve]) -> None:
    plain(axes)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_ylabel(label, fontsize=8)
    for curve in curves:
        colour = _PALE if curve.name.startswith("before") else _COLOUR
        reach = None if curve.errors is None else np.nan_to_num(curve.errors)
        axes.errorbar(numbers, curve.values, yerr=reach, fmt="o-", color=colour, label=curve.name, **_STYLE)
    if len(curves) > 1:
        axes.legend(fontsize=7, frameon=False)
    if label.startswith("axis"):
        return
    # all others are best when they are nothing
    axes.set_ylim(0, 1.15 * max(float(np.nanmax(curve.values)) for curve in curves) or 1.0)


_STYLE: dict[str, Any] = {"markersize": 4, "linewidth": 1, "capsize": 2, "elinewidth": 1}
