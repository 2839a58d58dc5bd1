"""Scans made of one scene's rows, and places for slices to go: what separates computing from disks."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe import formats, inputs
from xctpipe.bench.scene import PIXEL_UM, Scene
from xctpipe.conveyor import Block, Clock, Sink, VolumeSink, run_lane
from xctpipe.machine import usable_cpus
from xctpipe.plan import Slab
from xctpipe.prepare import Prepared, prepare
from xctpipe.recipe import Recipe, make_recipe
from xctpipe.scan import ArrayFrames, DarkFlat, Frames, RawArray, Scan, Span

CHAIN = ("zingers", "stripes_all")
"""Corrections of the whole slab, those of the path it is compared with."""
NOT_KERNELS = ("read", "write")
"""Stages of a slab that are not computing."""

_ENERGY_KEV = 80.0
_DARK_FLATS = 3


@dataclass(frozen=True, eq=False)
class RepeatedFrames:
    """Any number of rows out of a few in memory, which follow one another again and again."""

    data: RawArray
    n_rows: int
    row_s: float = 0.0
    """Least time that reading a row of all frames takes."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns."""
        return self.data.shape[0], self.n_rows, self.data.shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers."""
        return self.data.dtype

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows [r0, r1) of frames [f0, f1) (all when absent)."""
        start = time.perf_counter()
        r0, r1, _ = slice(*(rows or (None,))).indices(self.n_rows)
        part = self.data[slice(*(frames or (None,)))]
        out = np.empty((len(part), r1 - r0, part.shape[2]), part.dtype)
        period = self.data.shape[1]
        for first in range(r0, r1, period):
            last = min(first + period, r1)
            out[:, first - r0 : last - r0] = part[:, np.arange(first, last) % period]
        least_s = self.row_s * (r1 - r0) * len(part) / len(self.data)
        time.sleep(max(0.0, least_s - (time.perf_counter() - start)))
        return out


@dataclass
class Lane:
    """How long a lane took, and the seconds of each stage summed over its slabs."""

    wall_s: float = 0.0
    rows: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def kernels_s(self) -> float:
        """Seconds spent on computing."""
        return sum(value for stage, value in self.seconds.items() if stage not in NOT_KERNELS)


class CountingSink:
    """Hands slices on, to nowhere where there is no other sink, and adds up what slabs took."""

    def __init__(self, then: Sink | None = None, *, row_s: float = 0.0) -> None:
        self.seconds: dict[str, float] = {}
        self._then, self._row_s = then, row_s

    def write(self, slab: Slab, block: Block, clock: Clock) -> None:
        """Take slices; at least `row_s` for each."""
        if self._then is not None:
            self._then.write(slab, block, clock)
        if self._row_s:
            clock.time("write", time.sleep, self._row_s * len(block.values))

    def finish(self, slab: Slab, clock: Clock) -> None:
        """A slab is done."""
        if self._then is not None:
            self._then.finish(slab, clock)
        for stage, value in clock.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + value


def scan_of(scene: Scene, *, n_rows: int, row_s: float = 0.0) -> Scan:
    """A scan of `n_rows` rows that repeats those of a scene."""

    def repeated(frame: RawArray) -> Frames:
        rows = np.rint(frame[np.arange(n_rows) % len(frame)]).astype(np.uint16)
        return ArrayFrames(np.broadcast_to(rows, (_DARK_FLATS, *rows.shape)))

    return Scan(
        name="scan_00001",
        layout="memory",
        path=Path("memory"),
        frames=RepeatedFrames(scene.raw, n_rows, row_s),
        angles_rad=scene.angles_rad,
        dark_flats=(DarkFlat(repeated(scene.dark), repeated(scene.flat)),),
        start_time=datetime(2025, 1, 1, tzinfo=UTC),
        exposure_s=0.1,
        energy_kev=_ENERGY_KEV,
        pixel_um=PIXEL_UM,
    )


def recipe_of(scene: Scene, raw: Path, run_folder: Path, *, correct: Sequence[str] = CHAIN) -> Recipe:
    """A recipe with the axis given, so that a lane does not wait for the search."""
    return make_recipe(
        {
            "name": "bench",
            "run_folder": str(run_folder),
            "raw": {"folder": str(raw), "energy_kev": _ENERGY_KEV, "pixel_um": PIXEL_UM},
            "correct": [{"do": name} for name in correct],
            "center": {"center_px": scene.center_px},
        },
        base=run_folder.parent,
    )


def raw_on_disk(scene: Scene, folder: Path, *, n_rows: int) -> Path:
    """Folder of raw data of `n_rows` rows in the layout of HEX; written when it is not there."""
    raw = folder / f"raw-{n_rows}-{scene.raw.shape[2]}"
    if not raw.exists():
        raw.mkdir(parents=True)
        formats.write_scan(raw / "scan_00001", scan_of(scene, n_rows=n_rows), layout="hex1")
    return raw


def prepared_from_disk(scene: Scene, folder: Path, *, n_rows: int) -> Prepared:
    """The scan on disk, surveyed anew; what an earlier lane wrote is gone."""
    run_folder = folder / "run"
    shutil.rmtree(run_folder, ignore_errors=True)
    recipe = recipe_of(scene, raw_on_disk(scene, folder, n_rows=n_rows), run_folder)
    found = inputs.find(recipe.raw)
    return prepare(inputs.open_one(recipe.raw, found[0]), recipe)


def prepared_from_memory(scene: Scene, folder: Path, *, n_rows: int, row_s: float = 0.0) -> Prepared:
    """The same without a file; `row_s` slows the reading down after the survey."""
    run_folder = folder / "run"
    shutil.rmtree(run_folder, ignore_errors=True)
    prepared = prepare(scan_of(scene, n_rows=n_rows), recipe_of(scene, folder, run_folder))
    slow = scan_of(scene, n_rows=n_rows, row_s=row_s)
    return replace(prepared, job=replace(prepared.job, scan=slow))


def timed_lane(prepared: Prepared, *, to_disk: bool, row_s: float = 0.0) -> Lane:
    """Run all slabs of a scan; `row_s` slows the writing down."""
    sink = CountingSink(VolumeSink(prepared.job) if to_disk else None, row_s=row_s)
    start = time.perf_counter()
    run_lane(prepared.job, prepared.plan.slabs, threads=usable_cpus(), sink=sink)
    wall = time.perf_counter() - start
    return Lane(wall, prepared.job.scan.shape[1], sink.seconds)
