"""The series at a glance: voltage and current, cracks, bubbles and contact, on one axis."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xctpipe.csvtables import Row
from xctpipe.report.drawing import NARROW_IN, plain, unit_colour
from xctpipe.report.points import Along
from xctpipe.report.source import Entry, Run
from xctpipe.report.wording import MM3
from xctpipe.segment.codes import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS: tuple[tuple[str, str, str, str, float], ...] = (
    ("crack_volume_um3", "crack_low_um3", "crack_high_um3", "crack volume (mm³)", MM3),
    ("bubble_volume_um3", "bubble_low_um3", "bubble_high_um3", "bubble volume (mm³)", MM3),
    ("contact_frac", "contact_low_frac", "contact_high_frac", "contact (%)", 100.0),
)
"""Value, ends of its interval, what it is called, and the factor to its unit."""
_COLOURS = (COLOURS["crack"], COLOURS["bubble"], (51, 102, 136))
_SHORT = "#a50026"
_GAP = "0.45"


def draw(run: Run, rows: Mapping[str, Row], along: Along, *, width_in: float) -> "Figure":
    """The figure; without a cycler its upper panels are left out."""
    from matplotlib.figure import Figure

    cycler = cycler_of(run, along)
    heads = [
        name for name in ("voltage_v", "current_ma_cm2") if any(row.get(name) is not None for row in cycler)
    ]
    narrow = width_in <= NARROW_IN
    height = (1.15 if narrow else 1.35) * (len(heads) + len(PANELS)) + 1.0
    figure = Figure(figsize=(width_in, height), layout="constrained")
    every = figure.subplots(len(heads) + len(PANELS), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(every, heads, strict=False):
        _cycler(axes, cycler, rows, along, name)
    for axes, panel, colour in zip(every[len(heads) :], PANELS, _COLOURS, strict=True):
        _points(axes, run.scans, rows, along, panel, unit_colour(colour))
    for axes in every:
        plain(axes)
        _marks(axes, run, rows, along)
    _numbers(every[0], run, along)
    every[-1].set_xlabel(along.label, fontsize=9)
    if not along.key:
        every[-1].set_xticks([entry.number for entry in run.scans])
    figure.align_ylabels(every)
    return figure


def cycler_of(run: Run, along: Along) -> list[Row]:
    """Lines of the cycler that can be drawn along the axis."""
    if not along.key:
        return []
    return [row for row in run.tables.get("cycler", []) if row.get(along.key) is not None]


_HEADS = {"voltage_v": ("voltage (V)", "0.15"), "current_ma_cm2": ("current\n(mA/cm²)", "#5d4a8a")}


def _cycler(axes: "Axes", cycler: Sequence[Row], rows: Mapping[str, Row], along: Along, name: str) -> None:
    label, colour = _HEADS[name]
    there = [row for row in cycler if row.get(name) is not None]
    x = [row[along.key] / along.per for row in there]
    style: dict[str, Any] = {"drawstyle": "steps-post"} if name == "current_ma_cm2" else {}
    axes.plot(x, [row[name] for row in there], color=colour, linewidth=1.2, **style)
    if name == "voltage_v":
        known = [(along.at[scan], row[name]) for scan, row in rows.items() if row.get(name) is not None]
        if known:
            axes.plot(*zip(*known, strict=True), "o", markersize=4, color=colour)
    axes.set_ylabel(label, fontsize=8)


def _points(
    axes: "Axes",
    scans: Sequence[Entry],
    rows: Mapping[str, Row],
    along: Along,
    panel: tuple[str, str, str, str, float],
    colour: tuple[float, float, float],
) -> None:
    key, low, high, label, factor = panel
    axes.set_ylabel(label, fontsize=8)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(7)
    # a scan without a value breaks the line
    value = [rows.get(entry.name, {}).get(key) for entry in scans]
    y = np.array([np.nan if v is None else factor * v for v in value])
    if not np.isfinite(y).any():
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=8, transform=axes.transAxes)
        axes.set_yticks([])
        return
    x = np.array([along.at[entry.name] for entry in scans])
    ends = [[rows.get(entry.name, {}).get(end) for entry in scans] for end in (low, high)]
    reach = np.abs([[np.nan if e is None else factor * e for e in end] for end in ends] - y)
    axes.plot(x, y, "-", color=colour, linewidth=1.0, alpha=0.6)
    axes.errorbar(
        x, y, yerr=np.nan_to_num(reach), fmt="o", color=colour, markersize=4.5, capsize=2.5, elinewidth=1
    )
    if not np.nan_to_num([y, *reach]).any():
        axes.set_ylim(-0.1, 1)
        axes.set_yticks([0])
    elif np.nanmin(y) >= 0 and key != "contact_frac":
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))


def _marks(axes: "Axes", run: Run, rows: Mapping[str, Row], along: Along) -> None:
    """Scans, gaps, the short of the cell, and the first scan in which a crack goes through."""
    for entry in run.scans:
        colour = "0.8" if entry.measured else _GAP
        style = "-" if entry.measured else (0, (2, 2))
        axes.axvline(along.at[entry.name], color=colour, linewidth=0.8, linestyle=style, zorder=0)
    at = short_at(run, along)
    if at is not None:
        axes.axvline(at, color=_SHORT, linewidth=1.2, linestyle=(0, (5, 2)), zorder=1)
    name = first_through(run, rows)
    if name:
        axes.plot(
            [along.at[name]],
            [0.04],
            marker="v",
            color=_SHORT,
            markersize=6,
            transform=axes.get_xaxis_transform(),
        )


def short_at(run: Run, along: Along) -> float | None:
    """Where the voltage dropped for good."""
    for row in run.tables.get("steps", []):
        value = row.get(
            {"charge_mah_cm2": "start_charge_mah_cm2", "time_s": "start_time_s"}.get(along.key, "")
        )
        if row.get("step") == "short" and value is not None:
            return float(value) / along.per
    return None


def first_through(run: Run, rows: Mapping[str, Row]) -> str:
    """The first scan in which a crack joins both sides; empty where none does."""
    names = (entry.name for entry in run.measured if rows[entry.name].get("percolates") is True)
    return next(names, "")


def _numbers(axes: "Axes", run: Run, along: Along) -> None:
    """Numbers of the scans above the figure, those that would overlap left out."""
    places = [along.at[entry.name] for entry in run.scans]
    apart = 0.035 * ((max(places) - min(places)) or 1.0)
    last = -np.inf
    for entry, place in zip(run.scans, places, strict=True):
        if place - last < apart:
            continue
        last = place
        text = str(entry.number) if entry.measured else f"{entry.number}×"
        axes.annotate(
            text,
            (place, 1.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=7,
            color="0.25" if entry.measured else _GAP,
        )


def said(run: Run, rows: Mapping[str, Row], along: Along) -> str:
    """What the marks of the figure are."""
    parts = ["Grey lines and the numbers above them are scans"]
    if any(not entry.measured for entry in run.scans):
        parts.append("dashed ones, with a ×, scans that are missing: the curves are broken there")
    if short_at(run, along) is not None:
        parts.append("the dashed red line is where the voltage dropped")
    if first_through(run, rows):
        parts.append("red triangles mark the first scan in which a crack joins both electrodes")
    return f"{'; '.join(parts)}. Error bars are 95 % intervals."


def described(rows: Mapping[str, Row]) -> str:
    """The figure for who cannot see it."""
    return (
        f"Curves over {len(rows)} scans; the numbers are in tables/series.csv or in the tables of the scans."
    )
