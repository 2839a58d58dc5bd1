"""A comparison for people: lines of text, and a picture of the middle slice."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe.compare import NOISE_SIGMAS, Comparison, compare, inside_circle
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.pairs import Pair, match, open_pairs
from xctpipe.runfolder import RUN_RECORD
from xctpipe.scan import Span
from xctpipe.storage import storing

Row = tuple[str, str, str]


@dataclass
class Result:
    """Comparisons with their pictures, what could not be compared, and what else is to be said."""

    done: list[tuple[Comparison, Path]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        scans = [{**found.as_json(), "picture": str(picture)} for found, picture in self.done]
        return {"scans": scans, "failed": self.failed, "notes": self.notes}


def compare_all(
    a: Path,
    b: Path,
    *,
    kind: str | None = None,
    scans: Sequence[str] = (),
    rows: Span | None = None,
    png: Path | None = None,
) -> Result:
    """Compare all scans that two runs have in common, or two volumes, and save a picture of each.

    Parameters
    ----------
    a, b, kind, scans : as in `pairs.open_pairs`.
    rows : detector rows; absent: those in common.
    png : a picture, or a folder for pictures; absent: `default_folder`.

    Raises
    ------
    BadRecipe
        If the call is wrong.
    BadScan
        If there is nothing to compare.
    """
    found, notes = open_pairs(a, b, kind=kind, scans=scans)
    result = Result(notes=notes)
    folder = png or default_folder(a, b)
    for one, other in found:
        try:
            pair = match(one, other, rows=rows)
            compared = compare(pair)
        except BadScan as err:
            result.failed.append(str(err))
            continue
        result.done.append((compared, save_picture(pair, _picture(folder, one.scan, len(found)))))
    if not result.done:
        raise BadScan("; ".join(result.failed))
    return result


def _picture(place: Path, scan: str, n_scans: int) -> Path:
    if place.suffix.lower() != ".png":
        return place / f"{scan}.png"
    return place if n_scans == 1 else place.with_name(f"{place.stem}_{scan}{place.suffix}")


def table(found: Comparison) -> list[Row]:
    """What was compared: name, A, B."""
    a, b = found.a, found.b
    return [
        ("path", a.path, b.path),
        ("voxels (z, y, x)", _by(a.shape), _by(b.shape)),
        ("stored as", a.dtype, b.dtype),
        ("voxel size (um)", _number(a.pixel_um), _number(b.pixel_um)),
        ("first detector row", _number(a.first_row), _number(b.first_row)),
        ("rotation axis (px)", _number(a.center_px, 7), _number(b.center_px, 7)),
        ("noise (cm^-1)", _number(a.noise_cm1, 3), _number(b.noise_cm1, 3)),
        ("resolution (um)", _number(a.resolution_um, 3), _number(b.resolution_um, 3)),
        ("mean (cm^-1)", _number(a.mean_cm1), _number(b.mean_cm1)),
        ("standard deviation (cm^-1)", _number(a.std_cm1), _number(b.std_cm1)),
        ("0.5, 50, 99.5 % (cm^-1)", _list(a.percentiles_cm1), _list(b.percentiles_cm1)),
    ]


def _by(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)


def _number(value: float | None, digits: int = 5) -> str:
    return "not known" if value is None else f"{value:.{digits}g}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def lines(found: Comparison) -> Iterator[str]:
    """What differs, a line each."""
    r0, r1 = found.rows
    yield f"rows {r0}:{r1}, {found.voxels} voxels inside the circle"
    if found.identical:
        yield "identical bit for bit"
    else:
        yield f"B - A: rms {found.rms_cm1:.4g}, largest {found.max_cm1:.4g}, bias {found.bias_cm1:.4g} cm^-1"
        yield f"B - A: 0.5, 50, 99.5 % at {_list(found.difference_percentiles_cm1)} cm^-1"
        ratio = _number(found.mean_ratio, 6)
        yield f"mean of B over mean of A {ratio}, correlation {_number(found.correlation, 6)}"
        if found.changed_frac is None:
            yield "voxels beyond the noise: not known, neither side says its noise"
        else:
            share = f"{100 * found.changed_frac:.3g} % of the voxels"
            yield f"beyond {NOISE_SIGMAS:g} sigma of the noise: {share}"
    yield from (f"setting {line}" for line in found.settings)
    if not found.settings and not any("settings" in note for note in found.notes):
        yield "the same settings"
    yield from (f"note: {note}" for note in found.notes)


def default_folder(a: Path, b: Path) -> Path:
    """Where pictures go when nothing is said: beside A's run folder, or beside A."""
    root_a, root_b = (_root(path.resolve()) for path in (a, b))
    return root_a.parent / f"compare_{root_a.stem}_{root_b.stem}"


def _root(path: Path) -> Path:
    return next((p for p in (path, *path.parents) if (p / RUN_RECORD).is_file()), path)


def save_picture(pair: Pair, path: Path) -> Path:
    """The middle slice of A, of B in the same grey range, and B - A in a symmetric one."""
    from matplotlib.figure import Figure

    middle = pair.middle
    (a,), (b,) = pair.read((middle, middle + 1))
    inside = inside_circle(*a.shape) & np.isfinite(a) & np.isfinite(b)
    difference = b - a
    low, high = _span(np.concatenate([a[inside], b[inside]]))
    most = _largest(difference[inside])
    pixel = pair.a.pixel_um
    unit, step = ("px", 1.0) if pixel is None else ("mm", pixel / 1000)
    extent = (0, a.shape[1] * step, a.shape[0] * step, 0)
    figure = Figure(figsize=(15, 5.4), layout="constrained")
    panels = (
        ("A", a, "gray", low, high, "attenuation (cm$^{-1}$)"),
        ("B", b, "gray", low, high, "attenuation (cm$^{-1}$)"),
        ("B - A", difference, "RdBu_r", -most, most, "difference (cm$^{-1}$)"),
    )
    for axis, (title, image, colours, start, end, label) in zip(figure.subplots(1, 3), panels, strict=True):
        shown = axis.imshow(image, cmap=colours, vmin=start, vmax=end, extent=extent, interpolation="none")
        axis.set_title(title)
        axis.set_xlabel(f"x ({unit})")
        axis.set_ylabel(f"y ({unit})")
        figure.colorbar(shown, ax=axis, label=label, location="bottom", shrink=0.9)
    figure.suptitle(
        f"{pair.scan}, row {pair.rows[0] + middle}\nA: {pair.a.path}\nB: {pair.b.path}", fontsize=9
    )
    with storing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=130)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as err:
            raise BadRecipe(f"--png {path}: cannot be written ({err.strerror}); choose another") from err
    return path


def _span(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> tuple[float, float]:
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, [0.5, 99.5]))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _largest(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """What the colours of the difference reach to; anything above 0 where there is none."""
    found = float(np.percentile(np.abs(values), 99.8)) if values.size else 0.0
    return found if found > 0 and math.isfinite(found) else max(float(np.abs(values).max(initial=0)), 1e-6)
