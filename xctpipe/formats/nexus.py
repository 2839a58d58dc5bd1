"""Entries of NeXus files and the numbers in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import h5py

from xctpipe.formats.base import RawOptions
from xctpipe.formats.hdf5 import open_hdf, read_number, read_text, text_of
from xctpipe.formats.units import duration_s, energy_kev, length_um, parse_time

ENERGY_KEYS = (
    "instrument/beam/incident_energy",
    "instrument/beam/energy",
    "beam/incident_energy",
    "beam/energy",
    "instrument/monochromator/energy",
)
"""Where the photon energy may be; the energy of `instrument/source` is that of the storage ring."""

Notes = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """An entry with projections; `detector` is empty for those without image keys, as CIL writes them."""

    group: str
    detector: str


def entries_of(path: Path) -> list[Entry]:
    """Entries with projections, at the top of a file or one level down; BadScan when it cannot be opened."""
    found: list[Entry] = []
    with open_hdf(path) as file:
        for name in file:
            group = _group(file, name)
            if group is None:
                continue
            children = [f"{name}/{child}" for child in group if _group(group, child) is not None]
            entries = [_entry(file, candidate) for candidate in (name, *children)]
            found.extend(entry for entry in entries if entry is not None)
    return found


def _group(parent: h5py.Group, name: str) -> h5py.Group | None:
    if isinstance(parent.get(name, getlink=True), h5py.ExternalLink):
        return None
    item = parent.get(name)
    return item if isinstance(item, h5py.Group) else None


def _entry(file: h5py.File, name: str) -> Entry | None:
    group = file[name]
    if _group(group, "sample") is not None or "definition" in group:
        instrument = _group(group, "instrument")
        for child in instrument or ():
            detector = _group(instrument, child)
            keys = set() if detector is None else set(detector)
            if "data" in keys and keys & {"image_key", "image_key_control"}:
                return Entry(name, f"{name}/instrument/{child}")
    data = _group(group, "data")
    if data is None or "rotation_angle" not in data:
        return None
    inside = isinstance(data.get("data", getlink=True), h5py.HardLink)
    return Entry(name, "") if inside and "geom_type" in data["data"].attrs else None


def why_not_raw(path: Path, entry: Entry) -> str:
    """Say why projections as CIL writes them cannot be taken for a raw scan."""
    with open_hdf(path) as file:
        data = file[f"{entry.group}/data/data"]
        shape, attributes = data.shape, dict(data.attrs)
    axes = [text_of(attributes.get(f"dim{i}", "")) or "?" for i in range(len(shape))]
    causes = []
    if axes[0] != "angle":
        causes.append(f"its axes are ({', '.join(axes)}) of shape {shape}, (angle, row, column) is needed")
    geometry = text_of(attributes.get("geom_type", ""))
    if geometry != "parallel":
        causes.append(f"its geometry is {geometry} beam, only parallel beam can be reconstructed")
    causes.append("it has no image_key, so it holds no flats and darks (is it absorption already?)")
    return f"{path}: {entry.group}/data/data is not a raw parallel-beam scan: {'; '.join(causes)}"


def time_of(path: Path, entry: Entry, name: str, *, options: RawOptions) -> tuple[datetime | None, Notes]:
    """A time of an entry or of the entry that holds it, and what there is to say about it."""
    for group in dict.fromkeys((entry.group, entry.group.split("/")[0])):
        text = read_text(path, f"{group}/{name}", options=options)
        if text:
            return parse_time(text, what=f"{path.name}: {group}/{name}")
    return None, ()


def numbers_of(path: Path, entry: Entry, *, options: RawOptions) -> tuple[dict[str, float | None], Notes]:
    """Energy, pixel size at the sample and exposure of an entry as fields of `Scan`, and notes on units."""
    notes: Notes = ()

    def first(keys: Sequence[str], convert: Callable[..., tuple[float | None, Notes]]) -> float | None:
        nonlocal notes
        for key in keys:
            found = read_number(path, key, options=options)
            if found is not None:
                value, more = convert(*found, what=f"{path.name}: {key}")
                notes += more
                if value is not None:
                    return value
        return None

    pixel_um = first([f"{entry.group}/sample/x_pixel_size"], length_um)
    if pixel_um is None:
        pixel_um = first([f"{entry.detector}/x_pixel_size"], length_um)
        magnification = read_number(path, f"{entry.detector}/magnification", options=options)
        if pixel_um is not None and magnification is not None and magnification[0] > 0:
            pixel_um /= magnification[0]
    return {
        "pixel_um": pixel_um,
        "energy_kev": first([f"{entry.group}/{key}" for key in ENERGY_KEYS], energy_kev),
        "exposure_s": first([f"{entry.detector}/count_time"], duration_s),
    }, notes
