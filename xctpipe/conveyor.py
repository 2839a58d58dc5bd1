"""Slabs through the machine: the next is read and the last is written while one is computed.

At any time at most one slab is in each of the three places, which is what the plan counts.
"""

import resource
import threading
import time
from collections.abc import Callable, Sequence
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
from xctpipe.runfolder import ScanFolder
from xctpipe.scan import DoubleArray, FloatArray, RawArray, Scan, Span
from xctpipe.steps import BoundStep, Facts
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


@dataclass(frozen=True, eq=False)
class Job:
    """All that a worker needs for any slab of one scan."""

    scan: Scan
    method: Method
    spec: volume.VolumeSpec
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


def correct(box: list[RawArray], *, read: Span, survey: Survey, method: Method, clock: Clock) -> FloatArray:
    """Transmission of raw rows `read`, flat-fielded and through the chain, without the bad frames.

    The raw rows are taken out of `box`, so that they are freed as soon as they are used.
    """
    slab: FloatArray = clock.time("flat", survey.transmission, box.pop(), rows=read)
    facts = survey.facts(method.facts, rows=np.arange(*read))
    for step in method.chain:
        slab = clock.time(step.name, step, slab, facts)
    return slab


def compute(box: list[RawArray], slab: Slab, *, job: Job, clock: Clock) -> FloatArray:
    """Volume rows of a slab in cm^-1, (z, y, x), from the raw rows in `box`."""
    transmission = correct(box, read=slab.read, survey=job.survey, method=job.method, clock=clock)
    lines, _ = clock.time("log", minus_log, transmission[:, slab.inner], floor=job.survey.floor)
    del transmission
    return clock.time(  # type: ignore[no-any-return]
        "reconstruct",
        reconstruct_lines,
        lines,
        angles_rad=job.survey.angles_rad,
        center_px=job.survey.center_of_rows(slab.rows),
        method=job.method,
    )


def reconstruct_lines(
    lines: FloatArray, *, angles_rad: DoubleArray, center_px: DoubleArray, method: Method
) -> FloatArray:
    """Line integrals (angle, row, col) to (z, y, x) in cm^-1 by the chosen method."""
    return reconstruct(
        lines,
        backend=method.backend,
        angles_rad=angles_rad,
        center_px=center_px,
        pixel_um=method.pixel_um,
        filter_name=method.filter_name,
        padding=method.padding,
    )


def _write(slab: Slab, block: FloatArray, *, job: Job, clock: Clock) -> None:
    if not job.folder.is_ours():
        raise BadScan(f"{job.scan.name}: a later run has begun anew in {job.folder.root}; this one gives up")
    clipped = clock.time("write", volume.write_slab, job.folder.volume, job.spec, slab.rows[0], slab=block)
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
            block = compute(box, slab, job=job, clock=clocks[i])
            if writing is not None:
                writing.result()
            writing = writer.submit(_write, slab, block, job=job, clock=clocks[i])
            del block
            done += 1
        if writing is not None:
            writing.result()
    return done
