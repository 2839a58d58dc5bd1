"""One picture of a simulated series: true sections, and slices and frames made from the raw data alone.

The slices are plain ones: flats and darks averaged, no correction of rings, zingers or drift, so that what
the corrections are for can be seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from xctpipe import recon
from xctpipe.phantom.acquisition import Acquisition
from xctpipe.phantom.cell import Sample
from xctpipe.phantom.series import Series, TimeStep, TrueObject
from xctpipe.phantom.shapes import Point
from xctpipe.scan import DarkFlat, DoubleArray, FloatArray, Scan, Span, mean_frame
from xctpipe.storage import storing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CRACKS = ("crack", "crack_filled")
_WIDEST_PX = 640
_MOST_SLICES = 96
_BLOCK_ROWS = 16
_FINEST_PX = 1 / 16
_HIGHEST = 1.5
"""Pictures are at most so many times as high as wide, and leave room for their labels."""
_LOWEST_PLACE = 0.36
_GAMMA = 0.6
_GREYS = (-0.05, 1.5)
"""Range of greys in units of the ceramic's attenuation: from gas to ceramic with its noise."""
_ROWS = (
    "truth,\nwhole view",
    "truth,\nclose",
    "uncorrected,\nclose",
    "truth,\nhorizontal",
    "uncorrected,\nhorizontal",
    "one\nprojection",
)
_PROJECTION = 5


@dataclass(frozen=True)
class Window:
    """A vertical cut: its middle, its direction in the horizontal plane, and the pixels that it shows.

    Positions (x, y, z) are mm from the axis of rotation and the middle row, of the stack as it lay in the
    first scan.
    """

    middle_mm: tuple[float, float, float]
    along: tuple[float, float]
    width_px: int
    height_px: int


def choose_windows(series: Series) -> tuple[Window, Window]:
    """The whole view cut through the largest crack and the largest bubble, and a part of it at the crack.

    That part is cut along the line to the crack that is farthest off, which is the first of all, and thin.
    """
    crack = _largest(series, _CRACKS) or _largest(series, ("interfacial_void", "pore"))
    bubble = _largest(series, ("bubble",))
    places = [_place_mm(*each) for each in (crack, bubble) if each is not None] or [(0.0, 0.0, 0.0)]
    (xa, ya, za), (xb, yb, _) = places[0], places[-1]
    length = math.hypot(xb - xa, yb - ya)
    along = ((xb - xa) / length, (yb - ya) / length) if length > 1e-6 else (1.0, 0.0)
    a = series.steps[0].acquisition
    # the whole view has its middle where the axis is nearest to the line
    u = xa * along[0] + ya * along[1]
    whole = Window((xa - u * along[0], ya - u * along[1], 0.0), along, a.cols, a.rows)
    if a.rows > _HIGHEST * a.cols:
        whole = replace(whole, middle_mm=(*whole.middle_mm[:2], za), height_px=int(_HIGHEST * a.cols))
    if crack is None:
        return whole, replace(whole, height_px=min(a.rows, a.cols // 2))
    along, off_mm = _to_farthest_crack(series, (xa, ya), otherwise=along)
    reach = max(_reach_mm(*crack), off_mm, 12e-3 * a.pixel_um)
    width = min(math.ceil(2.6 * reach / (a.pixel_um * 1e-3)), a.cols)
    return whole, Window((xa, ya, za), along, width, min(a.rows, max(width * 2 // 3, 24)))


def _to_farthest_crack(
    series: Series, place_mm: tuple[float, float], *, otherwise: tuple[float, float]
) -> tuple[tuple[float, float], float]:
    """Direction and distance from a place to the middle of the crack that is farthest off in the plane."""
    found = [_place_mm(step, each) for step in series.steps for each in step.objects if each.kind in _CRACKS]
    off = [(x - place_mm[0], y - place_mm[1]) for x, y, _ in found]
    dx, dy = max(off, key=lambda each: math.hypot(*each), default=(0.0, 0.0))
    length = math.hypot(dx, dy)
    far = length > series.steps[0].acquisition.pixel_um * 1e-3
    return ((dx / length, dy / length), length) if far else (otherwise, 0.0)


def horizontal_z_mm(series: Series, *, near_mm: float) -> float:
    """Height of a horizontal slice through the largest crack, near one that is wished.

    It is on rows without dead pixels in as many scans as can be: their streaks leave little to be seen.
    """
    a = series.steps[0].acquisition
    pixel_mm = a.pixel_um * 1e-3
    low, high = _heights_mm(series)
    heights = near_mm + pixel_mm * np.arange(-a.rows, a.rows)
    inside = [float(z) for z in heights if low <= z <= high and abs(z) < pixel_mm * a.rows / 2]
    return min([near_mm, *inside], key=lambda z: (scans_with_dead_pixels(series, z_mm=z), abs(z - near_mm)))


def scans_with_dead_pixels(series: Series, *, z_mm: float) -> int:
    """In how many scans a height of the stack lies on rows with dead pixels."""
    a = series.steps[0].acquisition
    dead = [stripe.rows or (0, a.rows) for stripe in a.stripes if stripe.kind == "dead"]
    rows = [_row_at(step, z_mm + _shift_mm(step)[0]) for step in series.steps]
    return sum(any(first <= row < last for first, last in dead) for row in rows)


def _heights_mm(series: Series) -> tuple[float, float]:
    """Heights at which the largest crack is cut well, as the stack lay in the first scan; else all."""
    crack = _largest(series, _CRACKS)
    if crack is None:
        return -math.inf, math.inf
    step, thing = crack
    boxes = [part.shape.bounds_mm[2] for part in step.sample.parts if part.name in thing.parts]
    low, high = min(box[0] for box in boxes), max(box[1] for box in boxes)
    rim = 0.15 * (high - low)
    return low + rim - _shift_mm(step)[0], high - rim - _shift_mm(step)[0]


def _row_at(step: TimeStep, z_mm: float) -> int:
    return round(step.acquisition.axis_px[0] + z_mm / (step.acquisition.pixel_um * 1e-3))


def _largest(series: Series, kinds: Sequence[str]) -> tuple[TimeStep, TrueObject] | None:
    found = [(step, each) for step in series.steps for each in step.objects if each.kind in kinds]
    return max(found, key=lambda pair: pair[1].volume_um3, default=None)


def _place_mm(step: TimeStep, thing: TrueObject) -> Point:
    """Position (x, y, z) of an object in the stack as it lay in the first scan."""
    dz, dy, dx = _shift_mm(step)
    rows_mm = step.acquisition.axis_px[0] * step.acquisition.pixel_um * 1e-3
    x, y = _turned((thing.x_um * 1e-3 - dx, thing.y_um * 1e-3 - dy), -step.rotation_deg)
    return x, y, thing.z_um * 1e-3 - rows_mm - dz


def moved_with(window: Window, step: TimeStep) -> Window:
    """The window where the stack has taken it by the time of a scan."""
    x, y, z = window.middle_mm
    dz, dy, dx = _shift_mm(step)
    x, y = _turned((x, y), step.rotation_deg)
    return replace(window, middle_mm=(x + dx, y + dy, z + dz), along=_turned(window.along, step.rotation_deg))


def _shift_mm(step: TimeStep) -> Point:
    dz, dy, dx = (shift * step.acquisition.pixel_um * 1e-3 for shift in step.shift_px)
    return dz, dy, dx


def _turned(place: tuple[float, float], degrees: float) -> tuple[float, float]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return place[0] * cos - place[1] * sin, place[0] * sin + place[1] * cos


def _reach_mm(step: TimeStep, thing: TrueObject) -> float:
    """Half the width of an object in the horizontal plane."""
    boxes = [part.shape.bounds_mm for part in step.sample.parts if part.name in thing.parts]
    return max((box[i][1] - box[i][0] for box in boxes for i in (0, 1)), default=0.0) / 2


def true_section(sample: Sample, *, z_mm: DoubleArray, x_mm: DoubleArray, y_mm: DoubleArray) -> FloatArray:
    """Attenuation in cm^-1, (n, m): at the heights `z_mm` (n,) over the places `x_mm`, `y_mm` (m,)."""
    out = np.zeros((z_mm.size, x_mm.size))
    for shape in sample.shapes:
        (x0, x1), (y0, y1), (z0, z1) = shape.bounds_mm
        rows = np.flatnonzero((z_mm >= z0) & (z_mm <= z1))
        if not rows.size:  # of many thousand pores, nearly all
            continue
        cols = np.flatnonzero((x_mm >= x0) & (x_mm <= x1) & (y_mm >= y0) & (y_mm <= y1))
        inside = shape.contains(x_mm[cols], y_mm[cols], z_mm[rows, None])
        out[np.ix_(rows, cols)] += shape.delta_mu_cm1 * inside
    return out.astype(np.float32)


def _lines_px(*sizes: int) -> list[DoubleArray]:
    """Offsets from the middle of so many pixels: where they are few, close enough to show thin cracks."""
    step = max(_FINEST_PX, max(sizes) / _WIDEST_PX)
    return [np.arange(-n / 2 + step / 2, n / 2, step) for n in sizes]


def vertical_truth(step: TimeStep, window: Window) -> FloatArray:
    """True section (z, u) of a window."""
    pixel_mm = step.acquisition.pixel_um * 1e-3
    x, y, z = window.middle_mm
    u, down = (line * pixel_mm for line in _lines_px(window.width_px, window.height_px))
    return true_section(
        step.sample, z_mm=z + down, x_mm=x + u * window.along[0], y_mm=y + u * window.along[1]
    )


def horizontal_truth(step: TimeStep, *, z_mm: float) -> FloatArray:
    """True section (y, x) of the whole view at a height."""
    a = step.acquisition
    axis = _lines_px(a.cols)[0] * a.pixel_um * 1e-3
    y, x = np.meshgrid(axis, axis, indexing="ij")
    flat = true_section(step.sample, z_mm=np.array([z_mm]), x_mm=x.ravel(), y_mm=y.ravel())
    return flat.reshape(x.shape)


def line_integrals(scan: Scan, *, rows: Span | None = None, frames: Span | None = None) -> FloatArray:
    """Raw frames (frame, row, col) as -ln of the transmission by the mean of all darks and flats."""
    raw = scan.frames.read(rows, frames=frames).astype(np.float32)
    dark = _mean(scan.dark_flats, "darks", rows=rows)
    flat = _mean(scan.dark_flats, "flats", rows=rows)
    out: FloatArray = -np.log(np.maximum((raw - dark) / np.maximum(flat - dark, 1), np.float32(1e-3)))
    return out


def _mean(sets: Sequence[DarkFlat], what: str, *, rows: Span | None) -> FloatArray:
    stacks = [getattr(item, what) for item in sets]
    means = [mean_frame(stack, rows=rows) for stack in stacks if stack is not None]
    return np.mean(means, axis=0, dtype=np.float32) if means else np.zeros(1, np.float32)


def plain_slices(scan: Scan, acquisition: Acquisition, *, rows: Span) -> FloatArray:
    """Slices (row, y, x) in cm^-1 of rows of raw data, with no correction but darks and flats."""
    lines = line_integrals(scan, rows=rows)
    return recon.reconstruct(
        lines,
        angles_rad=scan.angles_rad[: len(lines)],
        center_px=acquisition.axis_px[1],
        pixel_um=acquisition.pixel_um,
    )


def vertical_slice(scan: Scan, acquisition: Acquisition, window: Window) -> FloatArray:
    """Section (z, u) of a window, from raw data alone, a block of rows at a time."""
    a = acquisition
    pixel_mm = a.pixel_um * 1e-3
    x, y, z = (value / pixel_mm for value in window.middle_mm)
    u = np.arange(window.width_px) - (window.width_px - 1) / 2
    places = np.stack([y + u * window.along[1], x + u * window.along[0]]) + (a.cols - 1) / 2
    first = min(max(round(a.axis_px[0] + z - window.height_px / 2), 0), a.rows - window.height_px)
    # of a high window some rows only, each as often as it is to be high
    every = math.ceil(window.height_px / _MOST_SLICES)
    block = _BLOCK_ROWS if every == 1 else 1
    lines: list[FloatArray] = []
    for row in range(first, first + window.height_px, max(every, block)):
        slices = plain_slices(scan, a, rows=(row, min(row + block, first + window.height_px)))
        lines += [ndimage.map_coordinates(each, places, order=1) for each in slices]
    return np.repeat(np.array(lines, dtype=np.float32), every, axis=0)[: window.height_px]


def save(path: Path, series: Series, *, indices: Sequence[int], scans: Sequence[Scan]) -> None:
    """Draw the contact sheet of some time steps, from their raw scans as they were read from disk."""
    from matplotlib.figure import Figure

    windows = choose_windows(series)
    z_mm = horizontal_z_mm(series, near_mm=windows[1].middle_mm[2])
    columns = [
        _pictures(series.steps[i], scan, windows, z_mm=z_mm) for i, scan in zip(indices, scans, strict=True)
    ]
    heights = [max(image.shape[0] / image.shape[1], _LOWEST_PLACE) for image in columns[0]]
    size = (2.4 * len(columns) + 0.5, 2.4 * sum(heights) + 0.25 * len(heights))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(heights), len(columns), squeeze=False, height_ratios=heights)
    for column, (i, pictures) in enumerate(zip(indices, columns, strict=True)):
        for line, image in enumerate(pictures):
            greys = _greys_of_projections([each[line] for each in columns])
            if line != _PROJECTION:
                greys = _greys_of_sections(series.steps[i].sample)
            _draw(axes[line, column], image, greys=greys)
        step = series.steps[i]
        axes[0, column].set_title(f"{step.name}: {step.charge_mah_cm2:.3g} mAh/cm²", fontsize=9)
    a = series.steps[0].acquisition
    close = windows[1].width_px
    for line, width_px in enumerate((a.cols, close, close, a.cols, a.cols, a.cols)):
        axes[line, 0].set_ylabel(_ROWS[line], fontsize=8)
        _scale_bar(axes[line, 0], width_px * a.pixel_um)
    with storing(path):
        figure.savefig(path, dpi=130)


def _pictures(step: TimeStep, scan: Scan, windows: tuple[Window, Window], *, z_mm: float) -> list[FloatArray]:
    a, (whole, close) = step.acquisition, (moved_with(window, step) for window in windows)
    z_mm += _shift_mm(step)[0]
    row = min(max(_row_at(step, z_mm), 0), a.rows - 1)
    first = min(max(_row_at(step, whole.middle_mm[2]) - whole.height_px // 2, 0), a.rows - whole.height_px)
    return [
        vertical_truth(step, whole),
        vertical_truth(step, close),
        vertical_slice(scan, a, close),
        horizontal_truth(step, z_mm=z_mm),
        plain_slices(scan, a, rows=(row, row + 1))[0],
        line_integrals(scan, rows=(first, first + whole.height_px), frames=(0, 1))[0],
    ]


def _greys_of_sections(sample: Sample) -> tuple[float, float]:
    """Attenuation shown black and white, cm^-1: the same for truth and for what is made of raw data."""
    ceramic_cm1 = sample.mu_cm1["nasicon"]
    return _GREYS[0] * ceramic_cm1, _GREYS[1] * ceramic_cm1


def _greys_of_projections(images: Sequence[FloatArray]) -> tuple[float, float]:
    """Line integrals shown black and white; dead pixels must not grey out the rest."""
    low, high = (float(np.median([np.percentile(each, q) for each in images])) for q in (2, 98))
    return low - 0.1 * (high - low), high + 0.1 * (high - low) + 1e-6


def _draw(axes: "Axes", image: FloatArray, *, greys: tuple[float, float]) -> None:
    """Draw an image between two greys."""
    from matplotlib.colors import PowerNorm

    # NaK is a tenth of NASICON: equal steps of grey would hide a bubble in it
    norm = PowerNorm(_GAMMA, vmin=greys[0], vmax=greys[1], clip=True)
    extent = (0, 1, 0, image.shape[0] / image.shape[1])
    axes.imshow(image, cmap="gray", norm=norm, extent=extent)
    axes.set_xticks([])
    axes.set_yticks([])


def _scale_bar(axes: "Axes", width_um: float) -> None:
    from matplotlib.patheffects import withStroke

    target = 0.3 * width_um
    power = 10.0 ** math.floor(math.log10(target))
    length = max(step * power for step in (1, 2, 5) if step * power <= target)
    # outlined, to be seen on bright ceramic and on dark liquid
    edge = [withStroke(linewidth=1.5, foreground="black")]
    axes.plot([0.05, 0.05 + length / width_um], [0.05, 0.05], color="black", linewidth=3.5)
    axes.plot([0.05, 0.05 + length / width_um], [0.05, 0.05], color="gold", linewidth=2)
    axes.text(0.05, 0.08, f"{length:g} µm", color="gold", fontsize=8, path_effects=edge)
