"""The record of a run: `run.json` for whoever asks later, and the table of scans."""

import logging
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xctpipe.inputs import fingerprint
from xctpipe.prepare import Prepared
from xctpipe.recipe import Recipe, what_matters
from xctpipe.runfolder import RUN_RECORD, read_json, write_json, write_table
from xctpipe.scan import Scan

log = logging.getLogger(__name__)

LIBRARIES = ("xctpipe", "numpy", "scipy", "numba", "h5py", "zarr", "dask", "algotom")

SCAN_COLUMNS = (
    "scan",
    "start_time",
    "time_s",
    "center_px",
    "center_uncertainty_px",
    "center_confidence",
    "center_from_first_px",
    "tilt_deg",
    "n_frames",
    "n_bad_frames",
    "noise_cm1",
    "resolution_um",
    "pixel_um",
    "bin_px",
    "energy_kev",
    "charge_mah_cm2",
    "current_ma_cm2",
    "voltage_v",
    "n_warnings",
)
"""Charge, current and voltage stay empty without a cycler file."""
MOVED_PX = 1.0
MOVED_SIGMAS = 4.0


def now() -> str:
    """The time, with its zone."""
    return datetime.now(tz=UTC).isoformat(timespec="seconds")


@dataclass
class RunRecord:
    """What ran, with which versions and settings, on which input, for how long, and how it ended."""

    root: Path
    content: dict[str, Any]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def begin(cls, recipe: Recipe, *, names: Sequence[str], fresh: bool) -> "RunRecord":
        """A record of these scans; what an earlier run knew of them stays, unless `fresh`."""
        old = {} if fresh else (read_json(recipe.run_folder / RUN_RECORD) or {}).get("scans", {})
        content = {
            "name": recipe.name,
            "started": now(),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            "host": platform.node(),
            "settings": what_matters(recipe),
            "scans": {
                name: {"stage": "reconstruct", "status": "waiting", **old.get(name, {})} for name in names
            },
        }
        record = cls(recipe.run_folder, content)
        record.rows = {name: old[name]["row"] for name in names if "row" in old.get(name, {})}
        record._save()
        return record

    def started(self, scan: Scan) -> None:
        """The scan has been opened."""
        self.content["scans"][scan.name].pop("error", None)
        self._update(scan.name, status="running", started=now(), input=fingerprint(scan))
        self._update(scan.name, layout=scan.layout, warnings=list(scan.warnings))

    def prepared(self, prepared: Prepared) -> None:
        """The scan has been surveyed and planned."""
        name, survey = prepared.job.scan.name, prepared.job.survey
        row = _row(prepared)
        known = self.rows | {name: row}
        first = next(known[each] for each in self.content["scans"] if each in known)
        moved = axis_moved(row, first)
        if moved:
            log.warning("%s: %s", name, moved)
        warnings = [*prepared.job.scan.warnings, *survey.warnings, *([moved] if moved else [])]
        self.rows[name] = row | {
            "center_from_first_px": round(row["center_px"] - first["center_px"], 4),
            "n_warnings": len(warnings),
        }
        self._update(
            name,
            warnings=warnings,
            axis=asdict(survey.detector_axis),
            assessment=asdict(prepared.assessment),
            plan={"slab_rows": prepared.plan.slab_rows, "peak_gb": prepared.plan.peak_bytes / 1e9},
            slabs=len(prepared.plan.slabs),
            row=self.rows[name],
        )

    def finished(self, prepared: Prepared, *, wall_s: float) -> None:
        """Every slab of the scan is on disk."""
        folder, name = prepared.job.folder, prepared.job.scan.name
        records = [folder.record_of(slab) or {} for slab in prepared.plan.slabs]
        clipped = sum(int(record.get("clipped_voxels", 0)) for record in records)
        warnings = list(self.content["scans"][name]["warnings"])
        if clipped:
            text = f"{clipped} voxels lie outside the stored range and are clipped; widen volume.range_cm1"
            log.warning("%s: %s", name, text)
            warnings.append(text)
        self._update(
            name,
            status="done",
            finished=now(),
            wall_s=round(wall_s, 3),
            seconds={**prepared.seconds, **total_seconds(records)},
            peak_memory_gb=max((record.get("peak_bytes", 0) for record in records), default=0) / 1e9,
            volume=str(folder.volume.relative_to(self.root)),
            warnings=warnings,
        )
        self.write_scans_table()

    def failed(self, name: str, message: str) -> None:
        """The scan was given up."""
        self._update(name, status="failed", finished=now(), error=message)

    def write_scans_table(self) -> None:
        """Write `tables/scans.csv`: one row per scan, time counted from the first."""
        starts = [datetime.fromisoformat(t) for row in self.rows.values() if (t := row["start_time"])]
        for row in self.rows.values():
            if row["start_time"]:
                since = datetime.fromisoformat(row["start_time"]) - min(starts)
                row["time_s"] = since.total_seconds()
        rows = [self.rows[name] for name in self.content["scans"] if name in self.rows]
        write_table(self.root / "tables" / "scans.csv", rows, columns=SCAN_COLUMNS)

    def _update(self, name: str, **values: Any) -> None:
        self.content["scans"][name].update(values)
        self._save()

    def _save(self) -> None:
        write_json(self.root / RUN_RECORD, self.content)


def total_seconds(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds per stage over all slabs."""
    total: dict[str, float] = {}
    for record in records:
        for stage, seconds in record.get("seconds", {}).items():
            total[stage] = round(total.get(stage, 0.0) + seconds, 4)
    return total


def axis_moved(row: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """What to say of the axis of a scan that is not where it was in the first of the series; else nothing.

    It is said from `MOVED_PX` on, or from `MOVED_SIGMAS` times the uncertainty of both, if that is more.
    Stage and camera stay in a series: an axis elsewhere is a bad search more often than a move.
    """
    moved_px = row["center_px"] - first["center_px"]
    errors = [each["center_uncertainty_px"] or 0.0 for each in (row, first)]
    if abs(moved_px) <= max(MOVED_PX, MOVED_SIGMAS * math.hypot(*errors)):
        return ""
    return (
        f"the axis is {moved_px:+.2f} px from that of {first['scan']} ({first['center_px']:.2f} px): look "
        "with `xctpipe try`, and give center.center_px if one of them is wrong"
    )


def _row(prepared: Prepared) -> dict[str, Any]:
    scan, survey, found = prepared.job.scan, prepared.job.survey, prepared.assessment
    axis = survey.detector_axis
    return {
        "scan": scan.name,
        "start_time": scan.start_time.isoformat() if scan.start_time else None,
        "center_px": round(axis.center_px, 4),
        "center_uncertainty_px": axis.uncertainty_px,
        "center_confidence": axis.confidence,
        "tilt_deg": axis.tilt_deg,
        "n_frames": scan.shape[0],
        "n_bad_frames": int((~survey.good).sum()),
        "noise_cm1": found.noise_cm1,
        "resolution_um": found.resolution_um,
        "pixel_um": scan.pixel_um,
        "bin_px": survey.bin_px,
        "energy_kev": scan.energy_kev,
    }
