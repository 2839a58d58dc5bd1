"""The layers of a run as data: arrays, settings and kinds of layer, for whatever viewer shows them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from xctpipe.segment.codes import COLOURS, PHASES
from xctpipe.viewer.arrays import Convert, Placed, Scaled, UpTo, lazy_levels
from xctpipe.viewer.objects import Objects, is_object
from xctpipe.viewer.series import Run, ShownScan, table_of

LayerData = tuple[Any, dict[str, Any], str]
"""Levels (a list of arrays; one array where there is one only), settings, kind of layer."""
AXES = ("t", "z", "y", "x")
UNITS = ("pixel", "micrometer", "micrometer", "micrometer")
RUN_KEY, ROLE_KEY = "xctpipe_run", "xctpipe_role"
"""In the metadata of a layer: the run folder, and what the layer is of it."""
ATTENUATION, MASS, WHAT, WHICH, WHEN = "attenuation", "mass", "phases", "objects", "appearance"

_GAMMA = 0.6
"""NaK is a tenth of NASICON: equal steps of grey would hide a bubble in it."""
_LAYER_ALPHA, _OBJECT_ALPHA = 0.25, 0.9
_HIDDEN = ("outside",)


def layer_data(run: Run, objects: Objects, notes: list[str]) -> list[LayerData]:
    """The layers of a run, those below first; nothing but metadata is read.

    Returns
    -------
    Attenuation; that after phase retrieval where there is one; labels of phases and of objects; and the
    scan in which each voxel was first crack. Positions are micrometers as in tables. Volumes are shown as
    they were measured: the drift of the stack between scans is not taken out.
    """
    found = [_image(run, ATTENUATION, "edge"), _image(run, MASS, "mass")]
    if any(scan.labelled for scan in run.scans):
        found += [_phases(run, notes), _objects(run, objects), _appearance(run, notes)]
    return [_unwrapped(*each) for each in found if each is not None]


def _unwrapped(levels: list[Any], settings: dict[str, Any], kind: str) -> LayerData:
    """A pyramid of one level is none to napari, which refuses it as labels."""
    several = len(levels) > 1
    return levels if several else levels[0], {**settings, "multiscale": several}, kind


def _settings(run: Run, role: str) -> dict[str, Any]:
    return {
        "name": role,
        "scale": (1.0, *(run.pixel_um,) * 3),
        "translate": (0.0, *run.origin_um),
        "units": UNITS,
        "axis_labels": AXES,
        "metadata": {RUN_KEY: str(run.folder), ROLE_KEY: role},
    }


def _image(run: Run, role: str, kind: str) -> LayerData | None:
    placed: list[Placed | None] = []
    windows: list[tuple[float, float]] = []
    for scan in run.scans:
        path = scan.path.with_name(f"{kind}.ome.zarr")
        if scan.spec is None or not path.is_dir():
            placed.append(None)
            continue
        group = zarr.open_group(str(path), mode="r", use_consolidated=False)
        own = group.attrs["xctpipe"]
        plain = group["0"].dtype == np.float32
        convert = None if plain else Scaled(own["value_scale"], own["value_offset"])
        placed.append(Placed(_levels(group), run.first_voxel(scan), convert))
        window = group.attrs["ome"]["omero"]["channels"][0]["window"]
        scale, offset = own["value_scale"], own["value_offset"]
        windows.append((window["start"] * scale + offset, window["end"] * scale + offset))
    if not windows:
        return None
    settings = _settings(run, role)
    settings |= {"contrast_limits": _contrast(windows), "colormap": "gray", "gamma": _GAMMA}
    settings["visible"] = role == ATTENUATION
    return lazy_levels(placed, shape=run.shape, dtype=np.float32), settings, "image"


def _contrast(windows: list[tuple[float, float]]) -> tuple[float, float]:
    """One range for all scans: what is as grey is as dense. Noise below 0 needs no greys."""
    low, high = min(each[0] for each in windows), max(each[1] for each in windows)
    low = min(max(low, 0.0), high)
    return (low, high) if high > low else (low, low + 1.0)


def _levels(group: Any) -> list[Any]:
    count = len(group.attrs["ome"]["multiscales"][0]["datasets"])
    return [group[str(level)] for level in range(count)]


def _labels(
    run: Run, role: str, *, dtype: str, convert: Callable[[int], Convert | None]
) -> tuple[list[Any], dict[str, Any]]:
    """Levels and settings of a label image that every scan with labels has."""
    placed = [
        Placed(_levels(_group(scan, role)), run.first_voxel(scan), convert(t)) if scan.labelled else None
        for t, scan in enumerate(run.scans)
    ]
    return lazy_levels(placed, shape=run.shape, dtype=dtype), _settings(run, role)


def _group(scan: ShownScan, name: str) -> Any:
    return zarr.open_group(str(scan.path / "labels" / name), mode="r", use_consolidated=False)


def _phases(run: Run, notes: list[str]) -> LayerData:
    levels, settings = _labels(run, WHAT, dtype="uint8", convert=lambda t: None)
    scan = next(each for each in run.scans if each.labelled)
    legend = Legend.of(_group(scan, WHAT), notes)
    names = legend.names or {code: name for name, code in PHASES.items()}
    known = {PHASES[name]: rgb for name, rgb in COLOURS.items()}
    shown = {code: rgb for code, rgb in {**known, **legend.colours}.items() if names.get(code) not in _HIDDEN}
    settings |= {
        "colormap": colours_of(
            {code: (*rgb, _alpha(names.get(code, ""))) for code, rgb in shown.items() if code}
        ),
        "features": {"index": list(names), "name": list(names.values())},
        "opacity": 0.8,
    }
    return levels, settings, "labels"


def _alpha(name: str) -> float:
    return _OBJECT_ALPHA if is_object(name) else _LAYER_ALPHA


def colours_of(colours: Mapping[int, tuple[float, float, float, float]]) -> dict[int | None, Any]:
    """Colours as label layers take them: 0 and what is not named are clear."""
    clear = (0.0, 0.0, 0.0, 0.0)
    return {
        None: clear,
        0: clear,
        **{code: (r / 255, g / 255, b / 255, a) for code, (r, g, b, a) in colours.items()},
    }


def _objects(run: Run, objects: Objects) -> LayerData:
    levels, settings = _labels(run, WHICH, dtype="int32", convert=objects.numbering)
    settings |= {"visible": False, "opacity": 0.9}
    if objects.tracked or len(run.scans) == 1:
        kinds = {entry.label: entry.kind for scan in objects.entries for entry in scan}
        settings["features"] = {"index": list(kinds), "kind": list(kinds.values())}
    return levels, settings, "labels"


def _appearance(run: Run, notes: list[str]) -> LayerData | None:
    """When each voxel was first crack, up to the scan that is looked at.

    It lies on the grid of the first scan; it is moved by whole voxels to where the pellet is in the others.
    """
    home = next(
        (scan for scan in run.scans if scan.labelled and (scan.path / "labels" / WHEN).is_dir()), None
    )
    if home is None:
        return None
    group = _group(home, WHEN)
    legend = Legend.of(group, notes)
    measured = [scan.name for scan in run.scans if scan.labelled]
    names = {**dict(enumerate(measured, start=1)), **legend.names}
    settings = _settings(run, WHEN)
    if legend.colours:
        colours = {code: (*rgb, 1.0) for code, rgb in legend.colours.items() if code}
        settings["colormap"] = colours_of(colours)
    settings |= {"visible": False, "opacity": 0.9}
    settings["features"] = {"index": list(names), "first crack in": list(names.values())}
    placed = _appeared(run, home, group, names, notes)
    return lazy_levels(placed, shape=run.shape, dtype=np.uint8), settings, "labels"


def _appeared(
    run: Run, home: ShownScan, group: Any, names: dict[int, str], notes: list[str]
) -> list[Placed | None]:
    """The one image for each scan: where the pellet is then, and what has appeared by then."""
    levels, first = _levels(group), run.first_voxel(home)
    shifts = pellet_shifts_px(run, notes)
    numbers = {name: number for number, name in names.items()}
    placed: list[Placed | None] = []
    latest = 0
    for scan in run.scans:
        latest = max(latest, numbers.get(scan.name, 0))
        dz, dy, dx = shifts.get(scan.name, (0, 0, 0))
        at = (first[0] + dz, first[1] + dy, first[2] + dx)
        placed.append(Placed(levels, at, UpTo(latest)) if scan.labelled else None)
    return placed


def pellet_shifts_px(run: Run, notes: list[str]) -> dict[str, tuple[int, int, int]]:
    """Whole voxels (z, y, x) by which the pellet of each scan lies off that of the first, where known."""
    shifts = {}
    for row in table_of(run.folder, "registration", notes):
        parts = [row.get(key) for key in ("dz_px", "dy_px", "dx_px")]
        if row.get("part") == "pellet" and row.get("status") != "failed" and None not in parts:
            z, y, x = (round(float(each)) for each in parts if each is not None)
            shifts[row["scan"]] = (z, y, x)
    return shifts


@dataclass(frozen=True)
class Legend:
    """Names and colours (0 to 255) of the numbers of a label image."""

    names: Mapping[int, str]
    colours: Mapping[int, tuple[float, float, float]]

    @classmethod
    def of(cls, group: Any, notes: list[str]) -> "Legend":
        """As the metadata have it; empty where they are not as they should be."""
        try:
            known = group.attrs["ome"]["image-label"]
            names = {
                int(e["label-value"]): str(e["name"]) for e in known.get("properties", []) if "name" in e
            }
            colours = {
                int(e["label-value"]): (e["rgba"][0], e["rgba"][1], e["rgba"][2])
                for e in known.get("colors", [])
                if e["rgba"][3]
            }
        except (KeyError, TypeError, IndexError, ValueError) as err:
            notes.append(f"{group.store_path}: names and colours of labels cannot be read ({err!r})")
            return cls({}, {})
        return cls(names, colours)


def run_of(metadata: Mapping[str, Any]) -> Path | None:
    """The run folder that a layer with these metadata is of."""
    return Path(metadata[RUN_KEY]) if RUN_KEY in metadata else None
