"""Projections as the Core Imaging Library (CIL) writes them: one NeXus file, the axes labelled by attributes.

`entry1/tomo_entry/data/data` has `dim0`, `dim1`, `dim2` (vertical, angle, horizontal in any order), the
geometry, pixel size and distances as attributes; later versions keep angles and positions under `config`.
Jørgensen et al., Phil. Trans. R. Soc. A 379, 20200192 (2021), doi:10.1098/rsta.2020.0192. The layout has no
place for darks and flats: `write_scan` puts them beside the data as `flat_fields/0/{flats, darks}`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np

from xctpipe.errors import BadScan
from xctpipe.formats.angles import match_angles, to_radians
from xctpipe.formats.base import GIVE_ANGLES, NO_OPTIONS, Holds, RawOptions, unknown_angles, warn
from xctpipe.formats.frames import files_of, open_frames, write_frames
from xctpipe.formats.hdf5 import (
    SUFFIXES,
    locate,
    open_hdf,
    read_array,
    read_attribute,
    read_number,
    read_text,
    text_of,
)
from xctpipe.formats.registry import open_dark_flats
from xctpipe.formats.stored import Axes
from xctpipe.formats.units import duration_s, energy_kev, file_time, parse_time
from xctpipe.scan import DarkFlat, DoubleArray, Scan

NAME = "cil"
TITLE = "CIL (a file with labelled axes and geometry)"

ENTRY = "entry1/tomo_entry"
DATA = f"{ENTRY}/data/data"
FLATS = f"{ENTRY}/flat_fields"
ENERGY = f"{ENTRY}/instrument/beam/incident_energy"
EXPOSURE = f"{ENTRY}/instrument/detector/count_time"
UM_PER_UNIT = 1000.0
"""CIL has lengths in any unit; its readers of scanner files and its examples use mm."""

Notes = tuple[str, ...]


@dataclass(frozen=True)
class _Said:
    """What the file says of its data: labels of the axes, geometry, lengths in the unit of the file."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    geometry: str
    pixel: float | None
    magnification: float
    scaled: bool


def understands(path: Path) -> bool:
    """Whether the file holds projections with labelled axes, and no image keys."""
    return holds(path) is not None


def holds(path: Path) -> Holds | None:
    """Projections, if the file is in this layout."""
    try:
        if not path.is_file() or path.suffix.lower() not in SUFFIXES:
            return None
        with open_hdf(path) as file:
            data = file.get(DATA)
            detector = file.get(f"{ENTRY}/instrument/detector")
            if not isinstance(data, h5py.Dataset) or (detector is not None and "image_key" in detector):
                return None
            attributes = dict(data.attrs)
    except (BadScan, OSError):
        return None
    geometry = {"geom_type", "geometry"} & set(attributes)
    return "projections" if geometry and "dim0" in attributes else None


def start_time(path: Path) -> datetime | None:
    """Start of the scan, else the file's time."""
    return _start(path, options=NO_OPTIONS)[0]


def _start(path: Path, *, options: RawOptions) -> tuple[datetime, Notes]:
    if options.start_time is not None:
        return options.start_time, ()
    notes: Notes = ()
    text = read_text(path, f"{ENTRY}/start_time", options=options)
    if text:
        time, notes = parse_time(text, what=f"{path.name}: {ENTRY}/start_time")
        if time is not None:
            return time, notes
    time, more = file_time(path)
    return time, notes + more


def open_scan(path: Path, *, dark_flat: Sequence[Path] = (), options: RawOptions) -> Scan:
    """Describe a file; a cone beam is taken for a parallel one, with a warning.

    Raises
    ------
    BadScan
        When the axes are not three of angle, vertical and horizontal, or frames or angles cannot be read.
    """
    said = _said(path)
    frames, notes = open_frames(path, DATA, options=options, axes=_axes(path, said))
    angles, more = _angles(path, frames.shape[0], options=options)
    start, time_notes = _start(path, options=options)
    pixel_um, pixel_notes = _pixel_um(path, said)
    numbers, number_notes = _numbers(path, options=options)
    notes += _remarks(path, said, options=options) + more + time_notes + pixel_notes + number_notes
    dark_flats = (
        open_dark_flats(dark_flat, options=options) if dark_flat else _dark_flats(path, options=options)
    )
    return Scan(
        name=path.stem,
        layout=NAME,
        path=path,
        frames=frames,
        angles_rad=angles,
        dark_flats=dark_flats,
        start_time=start,
        pixel_um=pixel_um,
        log_absorption=options.log_absorption,
        files=files_of(path, frames.path, dark_flats=dark_flats),
        problems=warn(notes),
        **numbers,
    )


def _said(path: Path) -> _Said:
    with open_hdf(path) as file:
        data = file[DATA]
        shape: tuple[int, ...] = data.shape or ()
        attributes = dict(data.attrs)
        places = [
            file.get(f"{ENTRY}/config/{what}/position") for what in ("source", "rotation_axis", "detector")
        ]
        positions = [
            np.asarray(item[()], dtype=np.float64) for item in places if isinstance(item, h5py.Dataset)
        ]
    number = {name: _number(attributes.get(name)) for name in _NUMBERS}
    near, far = number["dist_source_center"], number["dist_center_detector"]
    if len(positions) == 3:
        near, far = (float(np.linalg.norm(positions[i + 1] - positions[i])) for i in range(2))
    geometry = text_of(attributes.get("geom_type", attributes.get("geometry", "")))
    cone = geometry == "cone" and near is not None and far is not None and near > 0
    return _Said(
        shape=shape,
        axes=tuple(text_of(attributes.get(f"dim{i}", "")) or "?" for i in range(len(shape))),
        geometry=geometry,
        pixel=number["pixel_size_h"],
        magnification=(near + far) / near if cone and near and far is not None else 1.0,
        scaled=(number["scale"] or 1.0, number["offset"] or 0.0) != (1.0, 0.0),
    )


_NUMBERS = ("dist_source_center", "dist_center_detector", "pixel_size_h", "scale", "offset")


def _number(value: object) -> float | None:
    array = np.asarray(value) if value is not None else np.empty(0)
    return float(array.flat[0]) if array.size == 1 and array.dtype.kind in "iuf" else None


def _axes(path: Path, said: _Said) -> Axes:
    wanted = ("angle", "vertical", "horizontal")
    if sorted(said.axes) != sorted(wanted):
        raise BadScan(
            f"{path}: {DATA} has the axes ({', '.join(said.axes)}) of shape {said.shape}; angle, vertical "
            "and horizontal are needed, in any order, and no others"
        )
    if said.scaled:
        raise BadScan(f"{path}: {DATA} was compressed to integers by CIL; write it again with compression=0")
    frame, row, col = (said.axes.index(name) for name in wanted)
    return frame, row, col


def _remarks(path: Path, said: _Said, *, options: RawOptions) -> Notes:
    notes: list[str] = []
    if said.axes[0] != "angle":
        notes.append(
            f"{path.name}: the data are stored as ({', '.join(said.axes)}) and read as (angle, vertical, "
            "horizontal)"
        )
    if said.geometry != "parallel":
        what = f"{said.geometry} beam" if said.geometry else "unknown geometry"
        notes.append(
            f"{path.name}: {what.upper()}: it is reconstructed as a parallel beam; only slices near the "
            "plane of the source (usually the middle row) are right"
        )
    if options.log_absorption:
        notes.append(f"{path.name}: the values are taken as absorption (raw.log_absorption = true)")
    return tuple(notes)


def _angles(path: Path, n_frames: int, *, options: RawOptions) -> tuple[DoubleArray, Notes]:
    if options.angles is not None:
        return unknown_angles(n_frames), ()
    for key in (f"{ENTRY}/config/angles", f"{ENTRY}/data/rotation_angle"):
        found = read_array(path, key, options=options)
        if found is None:
            continue
        unit = found[1] or read_attribute(path, key, "angle_unit", options=options)
        try:
            angles, notes = to_radians(found[0], unit=options.angle_unit or unit)
            matched, more = match_angles(n_frames, angles)
        except BadScan as err:
            raise BadScan(f"{path}: {key}: {err}") from err
        return matched, notes + more
    raise BadScan(
        f"{path}: no angles: {ENTRY}/config/angles and {ENTRY}/data/rotation_angle are missing; {GIVE_ANGLES}"
    )


def _pixel_um(path: Path, said: _Said) -> tuple[float | None, Notes]:
    """Pixel size at the sample; 1 is what CIL writes where nobody has said it."""
    if said.pixel is None or not 0 < said.pixel < np.inf or said.pixel == 1:
        return None, ()
    pixel_um = UM_PER_UNIT * said.pixel / said.magnification
    if said.magnification == 1:
        return pixel_um, ()
    text = f"{path.name}: pixels of {said.pixel:g} mm magnified {said.magnification:.4g} times"
    return pixel_um, (f"{text} are {pixel_um:.4g} um at the sample",)


def _numbers(path: Path, *, options: RawOptions) -> tuple[dict[str, float | None], Notes]:
    numbers: dict[str, float | None] = {"energy_kev": None, "exposure_s": None}
    notes: Notes = ()
    for name, key, convert in (("energy_kev", ENERGY, energy_kev), ("exposure_s", EXPOSURE, duration_s)):
        found = read_number(path, key, options=options)
        if found is not None:
            numbers[name], more = convert(*found, what=f"{path.name}: {key}")
            notes += more
    return numbers, notes


def open_dark_flat(path: Path, *, options: RawOptions) -> tuple[DarkFlat, ...]:
    """Darks and flats in the file; BadScan when there are none, as in files that CIL itself has written."""
    found = _dark_flats(path, options=options)
    if not found:
        raise BadScan(f"{path}: no flats: CIL files hold projections only")
    return found


def _dark_flats(path: Path, *, options: RawOptions) -> tuple[DarkFlat, ...]:
    found: list[DarkFlat] = []
    while locate(path, f"{FLATS}/{len(found)}/flats", options=options) is not None:
        group = f"{FLATS}/{len(found)}"
        flats, _ = open_frames(path, f"{group}/flats", options=options)
        darks = None
        if locate(path, f"{group}/darks", options=options) is not None:
            darks, _ = open_frames(path, f"{group}/darks", options=options)
        text = read_text(path, f"{group}/start_time", options=options)
        time, _ = parse_time(text, what=f"{path.name}: {group}/start_time") if text else (None, ())
        found.append(
            DarkFlat(darks, flats, None if time is None else time.timestamp(), f"{path.name}:/{group}")
        )
    return tuple(found)


def write_scan(path: Path, scan: Scan) -> Path:
    """Write one file that CIL reads too, its suffix .nxs if it has none of HDF5's; returns its path.

    Raises
    ------
    BadScan
        When the file exists.
    """
    path = path if path.suffix.lower() in SUFFIXES else path.with_name(f"{path.name}.nxs")
    if path.exists():
        raise BadScan(f"{path}: exists already; give another file to write to")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["creator"] = "xctpipe"
        file.require_group(ENTRY).attrs["NX_class"] = "NXentry"
        write_frames(file, DATA, scan.frames)
        _write_geometry(file, scan)
        if scan.start_time is not None:
            file[f"{ENTRY}/start_time"] = scan.start_time.isoformat()
        for key, value, unit in ((ENERGY, scan.energy_kev, "keV"), (EXPOSURE, scan.exposure_s, "s")):
            if value is not None:
                file[key] = value
                file[key].attrs["units"] = unit
        for i, item in enumerate(scan.dark_flats):
            write_frames(file, f"{FLATS}/{i}/flats", item.flats)
            if item.darks is not None:
                write_frames(file, f"{FLATS}/{i}/darks", item.darks)
            if item.time_s is not None:
                time = datetime.fromtimestamp(item.time_s, tz=UTC)
                file[f"{FLATS}/{i}/start_time"] = time.isoformat()
    return path


def _write_geometry(file: h5py.File, scan: Scan) -> None:
    _, rows, cols = scan.shape
    pixel = 1.0 if scan.pixel_um is None else scan.pixel_um / UM_PER_UNIT
    labels = {f"dim{i}": name for i, name in enumerate(("angle", "vertical", "horizontal"))}
    file[DATA].attrs.update(
        {
            **labels,
            "data_type": "AcquisitionData",
            "geometry": "parallel",
            "dimension": "3D",
            "num_channels": 1,
            "num_pixels_h": cols,
            "num_pixels_v": rows,
            "pixel_size_h": pixel,
            "pixel_size_v": pixel,
            "panel_origin": "top-left",
        }
    )
    config = file.create_group(f"{ENTRY}/config")
    config["angles"] = np.degrees(scan.angles_rad)
    config["angles"].attrs.update({"angle_unit": "degree", "initial_angle": 0.0})
    for key, vector in (
        ("ray/direction", (0, 1, 0)),
        ("detector/position", (0, 0, 0)),
        ("detector/direction_x", (1, 0, 0)),
        ("detector/direction_y", (0, 0, 1)),
        ("rotation_axis/position", (0, 0, 0)),
        ("rotation_axis/direction", (0, 0, 1)),
    ):
        config[key] = np.array(vector, dtype=np.float32)
