"""The record of a run: `run.json` for whoever asks later, and the table of scans."""

import fnmatch
import logging
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xctpipe.charging import check_cycler, write_scans
from xctpipe.errors import BadRecipe
from xctpipe.inputs import fingerprint
from xctpipe.prepare import Prepared
from xctpipe.recipe import Recipe, what_matters
from xctpipe.runfolder import RUN_RECORD, read_json, scan_folder, write_json
from xctpipe.scan import Scan

log = logging.getLogger(__name__)

LIBRARIES = ("xctpipe", "numpy", "scipy", "numba", "h5py", "zarr", "dask", "algotom", "scikit-image")

MOVED_PX = 1.0
MOVED_SIGMAS = 4.0
UNSURE_MOVED_PX = 0.5
"""From here on slices are blurred: told where one of two axes is unsure and the other is not."""
UNSURE_CONFIDENCE = 0.3
SURE_CONFIDENCE = 0.5


def now() -> str:
    """The time, with its zone."""
    return datetime.now(tz=UTC).isoformat(timespec="seconds")


@dataclass
class RunRecord:
    """What ran, with which versions and settings, on which input, for how long, and how it ended."""

    root: Path
    content: dict[str, Any]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    recipe: Recipe | None = None
    told: set[str] = field(default_factory=set)
    """What was said of the cycler already."""

    @classmethod
    def begin(cls, recipe: Recipe, *, names: Sequence[str], fresh: bool) -> "RunRecord":
        """A record of these scans; what an earlier run knew of them stays, unless `fresh`.

        What is wrong with the cycler's files is told now: hours later would be too late.

        Raises
        ------
        BadRecipe
            If there is no such file of the cycler.
        """
        wrong = check_cycler(recipe)
        for text in wrong:
            log.warning("%s", text)
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
        record = cls(recipe.run_folder, content, recipe=recipe, told=set(wrong))
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
        series = [known[each] for each in self.content["scans"] if each in known]
        methods_px = survey.detector_axis.methods_px
        told = [axis_moved(row, other, methods_px=methods_px) for other in compared_with(row, series)]
        for text in filter(None, told):
            log.warning("%s: %s", name, text)
        warnings = [*prepared.job.scan.warnings, *survey.warnings, *filter(None, told)]
        self.rows[name] = row | {
            "center_from_first_px": round(row["center_px"] - series[0]["center_px"], 4),
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

    def has_volume(self, name: str) -> bool:
        """Whether the scan is reconstructed."""
        return (
            self.content["scans"][name]["status"] == "done" and scan_folder(self.root, name).volume.exists()
        )

    def stage(self, name: str, stage: str, **values: Any) -> None:
        """How a stage after the reconstruction stands."""
        known = self.content["scans"][name].get("stages", {})
        self._update(name, stages={**known, stage: {"at": now(), **values}})

    def write_scans_table(self) -> None:
        """Write `tables/scans.csv`: one row per scan, time from the first; and those of the cycler."""
        rows = [self.rows[name] for name in self.content["scans"] if name in self.rows]
        for text in write_scans(self.root, rows, recipe=self.recipe):
            if text not in self.told:
                log.warning("%s", text)
            self.told.add(text)

    def _update(self, name: str, **values: Any) -> None:
        self.content["scans"][name].update(values)
        self._save()

    def _save(self) -> None:
        write_json(self.root / RUN_RECORD, self.content)


def known_scans(recipe: Recipe) -> tuple[str, ...]:
    """Scans of the recipe that the run folder knows; BadRecipe where it knows none.

    Those that the recipe names are among them in any case, so that it can be said that they are missing.
    """
    known = list((read_json(recipe.run_folder / RUN_RECORD) or {}).get("scans", {}))
    names: list[str] = []
    for wanted in ["*"] if recipe.raw.scans is None else recipe.raw.scans:
        fitting = [name for name in known if name == wanted or fnmatch.fnmatchcase(name, wanted)]
        names += fitting or ([] if set(wanted) & set("*?[") else [wanted])
    if not names:
        raise BadRecipe(
            f"run_folder = {recipe.run_folder}: no scan is reconstructed there; run the stage reconstruct "
            "first"
        )
    return tuple(dict.fromkeys(names))


def total_seconds(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds per stage over all slabs."""
    total: dict[str, float] = {}
    for record in records:
        for stage, seconds in record.get("seconds", {}).items():
            total[stage] = round(total.get(stage, 0.0) + seconds, 4)
    return total


def compared_with(row: Mapping[str, Any], series: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Scans of a series against which the axis of one is held.

    Of those taken with the same pixels the first that is sure of its axis, or where none is, the first. The
    first sure one itself is held against all that are less sure.
    """
    alike = [each for each in series if all(each.get(key) == row.get(key) for key in ("pixel_um", "bin_px"))]
    sure = next((each for each in alike if _confidence(each) >= SURE_CONFIDENCE), None)
    if sure is None:
        return alike[:1]
    if sure["scan"] != row["scan"]:
        return [sure]
    return [each for each in alike if _confidence(each) < SURE_CONFIDENCE]


def axis_moved(
    row: Mapping[str, Any], other: Mapping[str, Any], *, methods_px: Mapping[str, float] | None = None
) -> str:
    """What to say of the axis of a scan that is not where it is in another of the series; else nothing.

    Of two sure axes it is said from `MOVED_PX` on, or from `MOVED_SIGMAS` times the uncertainty of both, if
    that is more. An unsure axis is said whatever its uncertainty, and where the other is sure, its value is
    named. Stage and camera stay in a series: an axis elsewhere is a bad search more often than a move.

    Parameters
    ----------
    methods_px : axes of the row's scan by method; told where they agree with the other scan
    """
    moved_px = row["center_px"] - other["center_px"]
    low, high = sorted((row, other), key=_confidence)
    unsure = _confidence(low) < UNSURE_CONFIDENCE
    named = unsure and _confidence(high) >= SURE_CONFIDENCE
    errors = [0.0 if unsure else each["center_uncertainty_px"] or 0.0 for each in (row, other)]
    least_px = UNSURE_MOVED_PX if named else max(MOVED_PX, MOVED_SIGMAS * math.hypot(*errors))
    if abs(moved_px) <= least_px:
        return ""
    text = f"the axis is {moved_px:+.2f} px from that of {other['scan']} ({other['center_px']:.2f} px)"
    if named:
        return text + _better_axis(low, high, methods_px=methods_px if methods_px and low is row else {})
    doubt = ", and neither is sure" if unsure else ""
    return f"{text}{doubt}: look with `xctpipe try`, and give center.center_px if one of them is wrong"


def _better_axis(low: Mapping[str, Any], high: Mapping[str, Any], *, methods_px: Mapping[str, float]) -> str:
    """Which of two scans is to be believed, and the value to give for the other."""
    at_px = high["center_px"]
    seen = [f"{name} {px:.2f} px" for name, px in methods_px.items() if abs(px - at_px) <= MOVED_PX]
    also = f"; {', '.join(seen)} here agrees with it" if seen else ""
    return (
        f", and {low['scan']} is unsure of its own (confidence {_confidence(low):.2f}, {high['scan']} has "
        f"{_confidence(high):.2f}){also}: if stage and camera stayed, give {low['scan']} center.center_px = "
        f"{at_px:.2f}; look with `xctpipe try` first"
    )


def _confidence(row: Mapping[str, Any]) -> float:
    """Confidence in the axis; one that the recipe gives is not doubted."""
    confidence = row.get("center_confidence")
    return 1.0 if confidence is None else float(confidence)


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
        "rings_before_cm1": found.rings_before_cm1,
        "rings_after_cm1": found.rings_after_cm1,
        "pixel_um": scan.pixel_um,
        "bin_px": survey.bin_px,
        "energy_kev": scan.energy_kev,
        **_duration(scan),
    }


def _duration(scan: Scan) -> dict[str, Any]:
    """How long a scan takes: of its time stamps, or without pauses between frames."""
    each_s = scan.interval_s or scan.exposure_s
    if each_s is None:
        return {}
    return {"duration_s": each_s * scan.shape[0], "end_from": "frames" if scan.interval_s else "exposure"}
