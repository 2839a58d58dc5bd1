"""Slabs through the machine: the next is read and the last is written while one is computed.

At any time at most one slab is in each of the three places, which is what the plan counts.
"""

import resource
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from xctpipe import survey as surveys
from xctpipe import volume
from xctpipe.correct.flat import minus_log
from xctpipe.errors import BadScan
from xctpipe.machine import set_threads
from xctpipe.plan import Slab
from xctpipe.recon import reconstruct
from xctpipe.recon.cylinder import CellFit, Seen, Tube, add_cell, without_cell
from xctpipe.recon.geometry import angular_weights
from xctpipe.runfolder import ScanFolder
from xctpipe.scan import FloatArray, RawArray, Scan, Span
from xctpipe.steps import BoundStep, Facts, View, run_step
from xctpipe.survey import Survey

# A worker with several task slots must still hold one lane at a time: memory is planned for one.
_ONE_LANE = threading.Lock()


@dataclass(frozen=True)
class Method:
    """How slabs are corrected and reconstructed."""

    chain: tuple[BoundStep, ...]
    backend: str
    filter_name: str
    padding: str
    pixel_um: float
    facts: Facts
    """What is known of the scan before it is read."""
    phase: BoundStep | None = None
    """Phase retrieval, which makes the volume `mass` beside `edge`."""
    tube: Tube | None = None
    """The cell that rows are completed from."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the backend."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the volumes that are made."""
        return ("edge",) if self.phase is None else ("edge", "mass")

    def chain_of(self, kind: str) -> tuple[BoundStep, ...]:
        """The corrections before the logarithm for a volume."""
        return (*self.chain, self.phase) if kind == "mass" and self.phase else self.chain


@dataclass(frozen=True, eq=False)
class Job:
    """All that a worker needs for any slab of one scan."""

    scan: Scan
    method: Method
    specs: dict[str, volume.VolumeSpec]
    """Layout of each volume that is made."""
    folder: ScanFolder

    @cached_property
    def survey(self) -> Survey:
        """Read where it is needed: it is larger than a task should be."""
        survey = surveys.load(self.folder.survey)
        if survey is None:
            raise BadScan(f"{self.folder.survey}: missing or damaged; repeat the run with --fresh")
        return survey

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "survey"}


@dataclass
class Clock:
    """Seconds spent per stage of one slab."""

    seconds: dict[str, float] = field(default_factory=dict)

    def time(self, stage: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call, and add the time it took to the stage's."""
        start = time.perf_counter()
        result = function(*args, **kwargs)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
        return result


def correct(
    box: list[RawArray], *, read: Span, survey: Survey, method: Method, clock: Clock
) -> tuple[FloatArray, Facts]:
    """Transmission of raw rows `read`, flat-fielded and through the chain, and what is known of it.

    The raw rows are taken out of `box`, so that they are freed as soon as they are used.
    """
    slab: FloatArray = clock.time("flat", survey.transmission, box.pop(), rows=read)
    facts = survey.facts(method.facts, rows=np.arange(*read))
    for step in method.chain:
        slab, facts = clock.time(step.name, run_step, step, slab, facts)
    return slab, facts


def compute(box: list[RawArray], slab: Slab, *, job: Job, clock: Clock) -> dict[str, FloatArray]:
    """Rows of each volume of a slab in cm^-1, (z, y, x), from the raw rows in `box`."""
    method, survey = job.method, job.survey
    transmission, facts = correct(box, read=slab.read, survey=survey, method=method, clock=clock)
    view = survey.view_after(method.chain, np.arange(*slab.rows))
    blocks = {}
    for kind in method.kinds:
        if kind == "mass" and method.phase is not None:
            transmission = clock.time(method.phase.name, method.phase, transmission, facts)
        lines = clock.time("log", log_of, transmission[:, slab.inner], survey=survey, view=view)
        if kind == method.kinds[-1]:
            del transmission  # as large as the lines, and no longer needed
        blocks[kind] = clock.time(
            "reconstruct", reconstruct_lines, lines, view=view, method=method, cell=survey.cell
        )
        del lines
    return blocks


def log_of(transmission: FloatArray, *, survey: Survey, view: View) -> FloatArray:
    """Line integrals of a slab of transmission."""
    lines, _ = minus_log(transmission, floor=survey.floor)
    if view.period_rad != np.pi:
        # backends weight angles over half a turn
        whole = angular_weights(view.angles_rad, period_rad=view.period_rad)
        lines *= (whole / angular_weights(view.angles_rad)).astype(np.float32)[:, None, None]
    return lines


def reconstruct_lines(
    lines: FloatArray, *, view: View, method: Method, cell: CellFit | None = None
) -> FloatArray:
    """Line integrals (angle, row, col) to (z, y, x) in cm^-1 by the chosen method."""
    if method.tube is None or cell is None:
        return _by_backend(lines, view=view, method=method)
    pixel_mm = 1e-3 * method.pixel_um
    seen = Seen(view.angles_rad, view.centers_px, pixel_mm)
    rest, filling = without_cell(lines, tube=method.tube, fit=cell, seen=seen)
    volume_rows = _by_backend(rest, view=view, method=method)
    add_cell(volume_rows, filling_cm1=filling, tube=method.tube, fit=cell, pixel_mm=pixel_mm)
    return volume_rows


def _by_backend(lines: FloatArray, *, view: View, method: Method) -> FloatArray:
    return reconstruct(
        lines,
        backend=method.backend,
        angles_rad=view.angles_rad,
        center_px=view.centers_px,
        pixel_um=method.pixel_um,
        filter_name=method.filter_name,
        padding=method.padding,
        options=method.options,
    )


def _write(slab: Slab, blocks: dict[str, FloatArray], *, job: Job, clock: Clock) -> None:
    if not job.folder.is_ours():
        raise BadScan(f"{job.scan.name}: a later run has begun anew in {job.folder.root}; this one gives up")
    clipped = 0
    for kind, block in blocks.items():
        path, spec = job.folder.volume_of(kind), job.specs[kind]
        clipped += clock.time("write", volume.write_slab, path, spec, slab.rows[0], slab=block)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    job.folder.mark_done(slab, {"seconds": clock.seconds, "clipped_voxels": int(clipped), "peak_bytes": peak})


def _read(slab: Slab, *, job: Job, clock: Clock) -> RawArray:
    return clock.time("read", job.scan.frames.read, slab.read)  # type: ignore[no-any-return]


def run_lane(job: Job, slabs: Sequence[Slab], *, threads: int) -> int:
    """Process slabs in order, skipping finished ones; returns how many were done here.

    The result does not depend on `threads`. Between slabs it looks for a request to stop.
    """
    with _ONE_LANE:
        set_threads(threads)
        todo = [slab for slab in slabs if job.folder.record_of(slab) is None]
        return _convey(job, todo, threads=threads)


def _convey(job: Job, slabs: Sequence[Slab], *, threads: int) -> int:
    done = 0
    writing: Future[None] | None = None
    # the number of threads is a setting of each thread
    with (
        ThreadPoolExecutor(1, "read", set_threads, (threads,)) as reader,
        ThreadPoolExecutor(1, "write", set_threads, (threads,)) as writer,
    ):
        clocks = [Clock() for _ in slabs]
        reading = reader.submit(_read, slabs[0], job=job, clock=clocks[0]) if slabs else None
        for i, slab in enumerate(slabs):
            if reading is None or job.folder.stop.exists() or not job.folder.is_ours():
                break
            box = [reading.result()]
            reading = None
            if i + 1 < len(slabs):
                reading = reader.submit(_read, slabs[i + 1], job=job, clock=clocks[i + 1])
            blocks = compute(box, slab, job=job, clock=clocks[i])
            if writing is not None:
                writing.result()
            writing = writer.submit(_write, slab, blocks, job=job, clock=clocks[i])
            del blocks
            done += 1
        if writing is not None:
            writing.result()
    return done
