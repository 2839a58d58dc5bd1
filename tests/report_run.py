"""Run folders made by hand, as the stages before the report leave them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe import volume
from xctpipe.label_volume import LabelSource, write_labels
from xctpipe.segment.codes import PHASES

SHAPE = (24, 40, 40)
PIXEL = 10.0
FIRST_ROW = 5
EVIL = "<script>alert(1)"
NAMES = ("scan_1", "scan_2", EVIL, "scan_4")
SHIFTS = ((0, 0, 0), (1, 0, 2), (0, 0, 0), (-1, 3, 0))
"""Of the stack since the first scan, voxels."""
INTERFACE_ROW = 8
CRACK_X = 22


def _phases(n: int, shift: tuple[int, int, int]) -> np.ndarray:
    """Two layers, and a crack across y that reaches 3 n rows down."""
    phases = np.full(SHAPE, PHASES["nak"], np.uint8)
    phases[INTERFACE_ROW:20] = PHASES["nasicon"]
    phases[20:] = PHASES["counter_electrode"]
    phases[INTERFACE_ROW : INTERFACE_ROW + 3 * n, 15:25, CRACK_X] = PHASES["crack"]
    return np.roll(phases, shift, axis=(0, 1, 2))


def _scan(folder: Path, name: str, n: int, shift: tuple[int, int, int]) -> None:
    path = folder / "scans" / name / "edge.ome.zarr"
    spec = volume.VolumeSpec(SHAPE, PIXEL, first_row=FIRST_ROW, slab_rows=SHAPE[0])
    volume.create(path, spec, name="scan", attributes={})
    phases = _phases(n, shift)
    grey = np.where(phases == PHASES["nasicon"], np.float32(2.0), np.float32(0.2))
    volume.write_slab(path, spec, 0, slab=grey)
    objects = (phases == PHASES["crack"]).astype(np.int32)
    write_labels(path, LabelSource(lambda at: (phases[at], objects[at]), 0, (PHASES["crack"],)))
    np.save(path.parent / "contact.npy", np.full(SHAPE[1:], 1 + (n == 3), np.uint8))


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    path = folder / "tables" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows(rows)


def make_run(folder: Path, *, failed: str = "", names: tuple[str, ...] = NAMES) -> Path:
    """A run folder with what the stages up to measure leave."""
    there = [(i, name) for i, name in enumerate(names) if name != failed]
    rows: dict[str, list[dict[str, Any]]] = {key: [] for key in ("scans", "phases", "objects", "interface")}
    record: dict[str, Any] = {
        "name": "a <b> & c",
        "started": "2026-01-01",
        "host": "here",
        "versions": {},
        "scans": {},
    }
    for name in names:
        entry: dict[str, Any] = {"status": "done", "warnings": [f"{EVIL}</script>"]}
        record["scans"][name] = (
            {"status": "failed", "error": "frames <i>lost</i>"} if name == failed else entry
        )
    for i, name in there:
        _scan(folder, name, i, SHIFTS[i])
        low, here = 1e4 * i * 0.9, 1e4 * i
        rows["scans"].append({"scan": name, "time_s": 600.0 * i, "center_px": 20.0, "noise_cm1": 0.1})
        rows["phases"] += [
            {"scan": name, "phase": kind, "volume_um3": v, "volume_low_um3": lo, "volume_high_um3": hi}
            for kind, v, lo, hi in (("nak", 1e6, 1e6, 1e6), ("crack", here, low, 1.1 * here))
        ]
        z, y, x = (np.array([INTERFACE_ROW + 1 + FIRST_ROW, 0.5, CRACK_X - 19.5]) + SHIFTS[i]) * PIXEL
        own = {"kind": "crack", "volume_um3": here, "z_um": z, "y_um": y, "x_um": x}
        rows["objects"] += [{"scan": name, "object": 1, **own}] if i else []
        height = (INTERFACE_ROW - 0.5 + FIRST_ROW + SHIFTS[i][0]) * PIXEL
        share = {"contact_frac": 1 - 0.1 * i, "contact_low_frac": 0.95 - 0.1 * i, "contact_high_frac": 1.0}
        rows["interface"].append({"scan": name, **share, "z_um": height})
    for key, each in rows.items():
        write(folder, key, each)
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "recipe.toml").write_text(
        'name = "a <b> & c"\n[[correct]]\ndo = "stripes_all_hex"\nsize_px = 5\n[raw]\nenergy_kev = 80.0\n'
    )
    return folder


def register(folder: Path) -> None:
    write(
        folder,
        "registration",
        [
            {
                "scan": name,
                "part": "pellet",
                "dz_um": dz * PIXEL,
                "dy_um": dy * PIXEL,
                "dx_um": dx * PIXEL,
                "rotation_deg": 0,
                "tilt_y_deg": 0,
                "tilt_x_deg": 0,
                "error_px": 0.04,
                "status": "ok" if i else "reference",
            }
            for i, (name, (dz, dy, dx)) in enumerate(zip(NAMES, SHIFTS, strict=True))
        ],
    )


def join(folder: Path) -> None:
    """What the later stages write."""
    register(folder)
    path = folder / "tables" / "scans.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    write(
        folder, "scans", [{**row, "charge_mah_cm2": 0.1 * i, "voltage_v": 0.2} for i, row in enumerate(rows)]
    )
    line = (
        {"time_s": 18.0 * i, "charge_mah_cm2": 0.003 * i, "voltage_v": 0.2, "current_ma_cm2": 0.7}
        for i in range(101)
    )
    write(folder, "cycler", list(line))
    steps_ = {"step": "short", "start_time_s": 1700.0, "start_charge_mah_cm2": 0.28}
    write(folder, "steps", [steps_])
    write(folder, "percolation", [{"scan": name, "percolates": name == "scan_4"} for name in NAMES])
    rate = {"dvolume_dcharge_um3_per_mah_cm2": 7.4e7, "low": 7.2e7, "high": 7.6e7, "onset_mah_cm2": 0.1}
    between = {"scan_from": "scan_2", "scan_to": "scan_4", "n_scans": 3}
    write(folder, "growth", [{"track": 7, "kind": "crack", **rate, **between, "growing": True}])
    write(folder, "tracks", [{"track": 7, "scan": name, "object": 1} for name in NAMES[1:]])
    (folder / "series").mkdir(exist_ok=True)
    (folder / "series" / "track.json").write_text(json.dumps({"with": {}, "warnings": ["drift"]}))
    event = {"kind": "chip", "scan_from": "scan_2", "scan_to": EVIL, "tracks": "7"}
    write(folder, "events", [event])
