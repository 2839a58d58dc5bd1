"""Small run folders to be looked at, without any reconstruction, and what may be read of them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from xctpipe import volume
from xctpipe.label_volume import LabelSource, Legend, write_labels
from xctpipe.runfolder import write_json, write_table
from xctpipe.segment.codes import COLOURS, PHASES, PRIORITY

SHAPE = (32, 40, 520)
PIXEL_UM = 10.0
FIRST_ROW = 7
NAMES = ("a", "b", "c", "d")
FAILED = "c"
CRACK_ROWS = (16, 23)


def grey(t: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Noise, so that chunks do not shrink to nothing on disk; the number of the scan on top."""
    noise = np.random.default_rng(t).normal(size=shape).astype(np.float32)
    return noise + np.float32(t + 1)


def labels(t: int, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """NaK above NASICON, a bubble that stays, and a crack that comes with the second scan and grows."""
    phases, objects = np.full(shape, PHASES["nasicon"], np.uint8), np.zeros(shape, np.int32)
    phases[: shape[0] // 2] = PHASES["nak"]
    phases[4:10, 5:12, 50:70], objects[4:10, 5:12, 50:70] = PHASES["bubble"], 1 + t
    if t:
        crack = (slice(*CRACK_ROWS), slice(15, 19 + 2 * t), slice(240, 280))
        phases[crack], objects[crack] = PHASES["crack"], 9 - t
    return phases, objects


def place_um(z: float, y: float, x: float) -> dict[str, float]:
    """Position as tables have it: from row 0, and from the axis in the middle."""
    return {
        "z_um": (z + FIRST_ROW) * PIXEL_UM,
        "y_um": (y - (SHAPE[1] - 1) / 2) * PIXEL_UM,
        "x_um": (x - (SHAPE[2] - 1) / 2) * PIXEL_UM,
    }


def write_volume(path: Path, t: int, **changes: Any) -> None:
    shape = changes.pop("shape", SHAPE)
    spec = volume.VolumeSpec(**{"shape": shape, "pixel_um": PIXEL_UM, "first_row": FIRST_ROW} | changes)
    volume.create(path, spec, name=path.parent.name, attributes={})
    volume.write_slab(path, spec, 0, slab=grey(t, shape))
    volume.set_contrast(path, -1.0 - t, 4.0 + t)
    phases, objects = labels(t, shape)
    legends = {
        "phases": Legend({c: n for n, c in PHASES.items()}, {PHASES[n]: c for n, c in COLOURS.items()})
    }
    write_labels(path, LabelSource(lambda at: (phases[at], objects[at]), 0, PRIORITY, legends=legends))


def object_rows() -> list[dict[str, Any]]:
    rows = []
    for t, name in enumerate(NAMES):
        if name == FAILED:
            continue
        bubble = {"scan": name, "object": 1 + t, "kind": "bubble", "volume_um3": 8.4e5}
        rows.append({**bubble, **place_um(6.5, 8, 59.5), "equivalent_diameter_um": 117.0})
        if t:
            crack = {"scan": name, "object": 9 - t, "kind": "crack", "volume_um3": 1e5 * t}
            rows.append({**crack, **place_um(19, 16.5 + t, 259.5), "depth_um": 50.0, "percolates": t == 3})
    return rows


def write_run(folder: Path, **changes: Any) -> Path:
    """A run of four scans, the third of which failed, listed out of order."""
    entries: dict[str, Any] = {}
    for t, name in enumerate(NAMES):
        entries[name] = {"status": "failed", "error": "no light"}
        if name != FAILED:
            write_volume(folder / "scans" / name / "edge.ome.zarr", t, **changes)
            entries[name] = {"status": "done"}
    write_json(folder / "run.json", {"name": "test", "scans": {n: entries[n] for n in ("b", "c", "d", "a")}})
    scans = [
        {"scan": n, "time_s": 3600.0 * t, "charge_mah_cm2": 0.25 * t, "voltage_v": 3.0 - 0.5 * t}
        for t, n in enumerate(NAMES)
        if n != FAILED
    ]
    write_table(folder / "tables" / "scans.csv", scans, columns=list(scans[0]))
    rows = object_rows()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_table(folder / "tables" / "objects.csv", rows, columns=columns)
    return folder


def write_tracks(folder: Path) -> None:
    track = {"bubble": 1, "crack": 2}
    rows = [
        {"track": track[r["kind"]], **{k: r[k] for k in ("scan", "object", "kind")}} for r in object_rows()
    ]
    write_table(folder / "tables" / "tracks.csv", rows, columns=("track", "scan", "object", "kind"))


def write_series(folder: Path) -> None:
    rows = [
        {
            "scan": name,
            "time_s": 3600.0 * t,
            "charge_mah_cm2": 0.25 * t,
            "crack_volume_um3": 1e5 * t,
            "crack_low_um3": 0.9e5 * t,
            "crack_high_um3": 1.2e5 * t,
            "contact_frac": 1 - 0.1 * t,
        }
        for t, name in enumerate(NAMES)
        if name != FAILED
    ]
    write_table(folder / "tables" / "series.csv", rows, columns=list(rows[0]))


def write_appearance(folder: Path) -> None:
    """Numbers of the scans that are measured: a, b, d."""
    home = folder / "scans" / "a" / "edge.ome.zarr"
    like = json.loads((home / "labels" / "phases" / "zarr.json").read_text())["attributes"]["ome"]
    names = [{"label-value": n, "name": name} for n, name in enumerate(("never", "a", "b", "d"))]
    colours = [{"label-value": n, "rgba": [50 * n, 0, 255, 255]} for n in (1, 2, 3)]
    ome = {**like, "image-label": {"properties": names, "colors": colours}}
    group = zarr.create_group(str(home / "labels" / "appearance"), attributes={"ome": ome})
    for level, shape in enumerate(volume.level_shapes(volume.read_spec(home))):
        array = group.create_array(str(level), shape=shape, dtype="uint8", chunks=(16, 64, 64))
        n = 2**level
        array[20 // n : 24 // n, 16 // n : 20 // n, 240 // n : 280 // n] = 2
        array[20 // n : 24 // n, 20 // n : 24 // n, 240 // n : 280 // n] = 3


def most_bytes(folder: Path, scan: str, *, level: int, plane: int) -> int:
    """Of a plane of one scan in all layers: the chunks that it crosses, and their places in their files.

    Stored chunks may be larger than their voxels by some bytes of head.
    """
    home = folder / "scans" / scan / "edge.ome.zarr"
    total = 0
    for path in (home, home / "labels" / "phases", home / "labels" / "objects"):
        array = zarr.open_array(path / str(level), mode="r")
        crossed = [
            -(-n // c) if axis != plane else 1
            for axis, (n, c) in enumerate(zip(array.shape, array.chunks, strict=True))
        ]
        in_file = math.prod(s // c for s, c in zip(array.shards, array.chunks, strict=True))
        index = 16 * in_file + 4
        total += math.prod(crossed) * (math.prod(array.chunks) * array.dtype.itemsize + 64 + index)
    return total


def data_bytes(log: list[tuple[str, int]]) -> int:
    return sum(n for key, n in log if not key.endswith("zarr.json"))
