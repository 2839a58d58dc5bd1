"""A few slices before the whole volume, with one setting swept: a labelled stack and its metric curve."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from xctpipe import inputs, try_box, try_labels
from xctpipe.assess import corrected_rows, rows_across
from xctpipe.conveyor import reconstruct_lines
from xctpipe.errors import BadRecipe
from xctpipe.prepare import center_choice, extent_of, method_of, survey_scan
from xctpipe.progress import progress
from xctpipe.recipe import Recipe, with_parameter
from xctpipe.recon.cylinder import Seen, fit_cell
from xctpipe.runfolder import write_table
from xctpipe.scan import DoubleArray, FloatArray, Scan
from xctpipe.storage import storage_error
from xctpipe.survey import Rows, Survey

log = logging.getLogger(__name__)

MAX_VALUES = 200
MOST_GB = 3.9
MOST_PANELS = 5


@dataclass(frozen=True)
class Wish:
    """What to try, as it was asked for on the command line; None where nothing was said."""

    sweeps: tuple[str, ...] = ()
    rows: str | None = None
    scan: str | None = None
    box: str | None = None


@dataclass(frozen=True)
class Answer:
    """What to print of a try: a table (head, rows) or none, then lines."""

    lines: tuple[str, ...]
    table: tuple[tuple[str, ...], list[tuple[str, ...]]] | None = None


@dataclass(frozen=True)
class Sweep:
    """A setting and the values to try."""

    key: str
    values: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Tried:
    """Slices (value, row, y, x) in cm^-1 with what they were made with, and their sharpness."""

    sweep: Sweep | None
    rows: tuple[int, ...]
    slices: FloatArray
    sharpness: DoubleArray
    """(value, row)"""

    def label(self, value: int, row: int) -> str:
        """What a slice shows, from the value that was used."""
        place = f"row {self.rows[row]}"
        return f"{self.sweep.key} = {self.sweep.values[value]:.10g}, {place}" if self.sweep else place

    @property
    def best(self) -> float | None:
        """The axis with the sharpest slices over all rows; of other settings sharpness says nothing."""
        if self.sweep is None or self.sweep.key != "center.center_px":
            return None
        return self.sweep.values[self.sharpest]

    @property
    def sharpest(self) -> int:
        """Index of the value with the sharpest slices, each row counted alike."""
        return int((self.sharpness / self.sharpness.max(axis=0)).mean(axis=1).argmax())

    @property
    def best_at_edge(self) -> bool:
        """Whether the best value may lie outside the sweep."""
        return self.sharpest in {0, len(self.sharpness) - 1}


def answer(recipe: Recipe, wish: Wish) -> Answer:
    """Try what is wished, save its pictures and tables, and say where they are."""
    if len(wish.sweeps) > 1:
        raise BadRecipe(f"--sweep: {len(wish.sweeps)} given; one setting is swept at a time")
    sweep = parse_sweep(wish.sweeps[0]) if wish.sweeps else None
    if sweep and sweep.key.partition(".")[0] in try_labels.SECTIONS:
        return _answer_of_labels(recipe, wish, sweep)
    if wish.box is not None:
        raise BadRecipe("--box: is for sweeps of [segment] and [measure]; slices take --rows")
    return _answer_of_slices(recipe, wish, sweep)


def _answer_of_labels(recipe: Recipe, wish: Wish, sweep: Sweep) -> Answer:
    if wish.rows is not None:
        raise BadRecipe(f"--rows: is for slices; a sweep of {sweep.key} takes --box z0:z1,y0:y1,x0:x1")
    box = None if wish.box is None else try_box.parse_box(wish.box)
    tried = try_labels.try_labels(recipe, key=sweep.key, values=sweep.values, scan=wish.scan, box=box)
    paths = try_labels.save(tried, recipe.run_folder / "try" / tried.scan / sweep.key)
    return Answer((*tried.lines(), *map(str, paths)), tried.table())


def _answer_of_slices(recipe: Recipe, wish: Wish, sweep: Sweep | None) -> Answer:
    found = inputs.find(recipe.raw)
    chosen = next((each for each in found if wish.scan in {None, each.name}), None)
    if chosen is None:
        raise BadRecipe(f"--scan {wish.scan}: the recipe has {', '.join(each.name for each in found)}")
    opened = inputs.open_one(recipe.raw, chosen, index=found.index(chosen))
    picked = choose_rows(opened, _numbers(wish.rows) if wish.rows else None)
    tried = try_slices(opened, recipe, rows=picked, sweep=sweep)
    folder = recipe.run_folder / "try" / opened.name / (sweep.key if sweep else "slices")
    lines = [str(path) for path in save(tried, folder)]
    if tried.best is not None:
        edge = "; at the edge of the sweep: widen it" if tried.best_at_edge else ""
        lines.append(f"sharpest: {tried.best:.10g}{edge}")
    return Answer(tuple(lines))


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as err:
        raise BadRecipe(f"--rows {text!r}: write row numbers separated by commas, e.g. 100,200") from err


def parse_sweep(text: str) -> Sweep:
    """`key=START:STOP:STEP`, the stop included."""
    key, _, span = text.partition("=")
    try:
        start, stop, step = (float(part) for part in span.split(":"))
    except ValueError as err:
        raise BadRecipe(
            f"--sweep {text!r}: write KEY=START:STOP:STEP, e.g. center.center_px=1600:1620:0.5"
        ) from err
    count = int(np.floor((stop - start) / step + 1e-6)) + 1 if step else 0
    if not 1 <= count <= MAX_VALUES:
        raise BadRecipe(f"--sweep {text!r}: makes {max(count, 0)} values; 1 to {MAX_VALUES} are allowed")
    return Sweep(key.strip(), tuple(float(np.round(start + i * step, 9)) for i in range(count)))


def choose_rows(scan: Scan, rows: Sequence[int] | None) -> tuple[int, ...]:
    """The rows asked for, checked; absent: three, spread over the height."""
    height = scan.shape[1]
    if rows is None:
        return tuple(int(row) for row in rows_across(height, 3))
    for row in rows:
        if not 0 <= row < height:
            raise BadRecipe(f"--rows: row {row} is outside the scan's (cropped) rows 0 to {height - 1}")
    return tuple(rows)


def try_slices(scan: Scan, recipe: Recipe, *, rows: Sequence[int], sweep: Sweep | None) -> Tried:
    """Reconstruct rows for every value of the sweep, or once without one.

    They are of the volume `mass` where the sweep is of phase retrieval.
    """
    recipes = [with_parameter(recipe, sweep.key, value) for value in sweep.values] if sweep else [recipe]
    width = max(extent_of(scan, recipes[i]).volume_cols or 0 for i in (0, -1))
    _check_size(width, n_slices=len(rows) * len(recipes))
    survey = survey_scan(scan, recipes[0] if sweep and sweep.key == "center.center_px" else recipe)
    for text in survey.warnings:
        log.warning("%s: %s", scan.name, text)
    kind = "mass" if sweep and sweep.key.startswith("phase.") else "edge"
    bench = _Bench(scan, survey, np.asarray(rows), kind)
    slices = []
    with progress("try", total=len(recipes), unit="values") as bar:
        for chosen in recipes:
            slices.append(bench.slices(chosen))
            bar.advance(1)
    stack = np.stack([_of_width(block, slices[0].shape[2]) for block in slices])
    curve = np.array([[sharpness(image) for image in group] for group in stack])
    return Tried(sweep, tuple(rows), stack, curve)


def _check_size(width: int, *, n_slices: int) -> None:
    """A labelled TIFF holds 4 GB, which is also as much as anyone looks at."""
    size_gb = 4e-9 * n_slices * width**2
    if size_gb > MOST_GB:
        raise BadRecipe(
            f"try: {n_slices} slices of {width} x {width} are {size_gb:.1f} GB, {MOST_GB} at "
            "most; take fewer values or rows, or crop with raw.columns"
        )


@dataclass(eq=False)
class _Bench:
    """Slices by one recipe after the other; corrects again only when that would make a difference."""

    scan: Scan
    survey: Survey
    rows: Rows
    kind: str
    _made_with: str = ""
    _lines: FloatArray | None = None

    def slices(self, recipe: Recipe) -> FloatArray:
        """Slices (row, y, x) in cm^-1."""
        method, survey = method_of(self.scan, recipe), _with_axis(self.survey, recipe)
        chain = method.chain_of(self.kind)
        reshapes = any(step.reshapes for step in chain)
        key = repr((chain, survey.axis if reshapes else None))
        if self._lines is None or key != self._made_with:
            self._lines = None
            self._lines, _ = corrected_rows(self.scan, survey, method, rows=self.rows, kind=self.kind)
            self._made_with = key
        view = survey.view_after(chain, self.rows)
        cell = survey.cell
        if method.tube is not None and survey.axis != self.survey.axis:
            seen = Seen(view.angles_rad, view.centers_px, 1e-3 * method.pixel_um)
            cell = fit_cell(self._lines, tube=method.tube, seen=seen)
        return reconstruct_lines(self._lines, view=view, method=method, cell=cell)


def _with_axis(survey: Survey, recipe: Recipe) -> Survey:
    """The survey with the axis that the recipe gives, if it gives one."""
    wished = center_choice(recipe).center_px
    return (
        survey if wished is None else replace(survey, axis=replace(survey.axis, center_px=wished, slope=0.0))
    )


def _of_width(block: FloatArray, width: int) -> FloatArray:
    """Slices cut or filled up about their middle: stitching makes their width depend on the axis."""
    grow = max(0, width - block.shape[2])
    block = np.pad(block, ((0, 0), (grow // 2, grow - grow // 2), (grow // 2, grow - grow // 2)))
    cut = (block.shape[2] - width) // 2
    return block[:, cut : cut + width, cut : cut + width]


def sharpness(image: FloatArray) -> float:
    """How concentrated the gradient of a slightly smoothed slice is: mean square over squared mean, >= 1.

    About a wrong axis the energy of edges stays what it is, but spreads over streaks and arcs.
    """
    smooth = ndimage.gaussian_filter(image, 1.0)
    gy, gx = np.gradient(smooth)
    axis = np.arange(image.shape[0]) - (image.shape[0] - 1) / 2
    inside = axis[:, None] ** 2 + axis**2 < (0.45 * image.shape[0]) ** 2
    square = (gx**2 + gy**2)[inside]
    return float(square.mean() / max(np.sqrt(square).mean() ** 2, np.finfo(np.float32).tiny))


def save(tried: Tried, folder: Path) -> list[Path]:
    """Write the stack as TIFF, a labelled picture, and the metric as table and curve."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [_save_stack(tried, folder / "slices.tif"), _save_picture(tried, folder / "slices.png")]
        if tried.sweep:
            paths += [_save_table(tried, folder / "metric.csv"), _save_curve(tried, folder / "metric.png")]
    except OSError as err:  # tifffile gives no error number
        raise storage_error(err, folder, needed_bytes=tried.slices.nbytes) from err
    return paths


def _save_stack(tried: Tried, path: Path) -> Path:
    n_values, n_rows = tried.slices.shape[:2]
    labels = [tried.label(v, r) for v in range(n_values) for r in range(n_rows)]
    stack = tried.slices.reshape(-1, *tried.slices.shape[2:])
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "ZYX", "Labels": labels})
    return path


def _save_table(tried: Tried, path: Path) -> Path:
    values = tried.sweep.values if tried.sweep else ()
    rows = [
        {"value": value, "row": row, "sharpness": float(tried.sharpness[v, r])}
        for v, value in enumerate(values)
        for r, row in enumerate(tried.rows)
    ]
    write_table(path, rows, columns=("value", "row", "sharpness"))
    return path


def _save_picture(tried: Tried, path: Path) -> Path:
    """A line of panels for each row, each line in one grey range, with the same values in every line."""
    from matplotlib.figure import Figure

    values, rows = _shown(tried)
    figure = Figure(figsize=(3.4 * len(values) + 1, 3.6 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(values), squeeze=False)
    for line, r in zip(axes, rows, strict=True):
        low, high = np.percentile(tried.slices[:, r, ::4, ::4], [0.5, 99.5])
        for axis, v in zip(line, values, strict=True):
            image = axis.imshow(tried.slices[v, r], cmap="gray", vmin=low, vmax=high)
            mark = " (sharpest)" if tried.best is not None and v == tried.sharpest else ""
            axis.set_title(tried.label(v, r).replace(", ", "\n") + mark, fontsize=10)
            axis.set_axis_off()
        figure.colorbar(image, ax=list(line), label="attenuation (cm$^{-1}$)", shrink=0.8)
    left_out = len(tried.slices) - len(values)
    if left_out:
        text = f"{left_out} of {len(tried.slices)} values are not shown; slices.tif holds all"
        figure.supxlabel(text, fontsize=9)
    figure.savefig(path, dpi=110)
    return path


def _shown(tried: Tried) -> tuple[list[int], list[int]]:
    """Values and rows that fit a picture: spread over the sweep, with the sharpest and its neighbours."""
    n_values, n_rows = tried.slices.shape[:2]
    values = set(np.linspace(0, n_values - 1, min(MOST_PANELS, n_values)).astype(int).tolist())
    if tried.best is not None:
        values |= {v for v in range(tried.sharpest - 1, tried.sharpest + 2) if 0 <= v < n_values}
    rows = np.unique(np.linspace(0, n_rows - 1, min(4, n_rows)).astype(int))
    return sorted(values), rows.tolist()


def _save_curve(tried: Tried, path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    sweep = tried.sweep or Sweep("", ())
    for r, row in enumerate(tried.rows):
        curve = tried.sharpness[:, r]
        axis.plot(sweep.values, curve / curve.max(), marker=".", label=f"row {row}")
    if tried.best is not None:
        axis.axvline(tried.best, color="0.4", linestyle="--", label=f"sharpest: {tried.best:.10g}")
    axis.set_xlabel(sweep.key)
    axis.set_ylabel("sharpness (concentration of the gradient, relative)")
    axis.legend()
    figure.savefig(path, dpi=110)
    return path
