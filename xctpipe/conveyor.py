"""Slabs through the machine: rows are read and slices written while others are computed.

A slab is what is recorded as done. It is read in pieces and made in batches of slices (`plan.pieces`), so
that little of it is in memory at any time and reading, computing and writing overlap within it too.
"""

import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np

from xctpipe import survey as surveys
from xctpipe import volume
from xctpipe.correct.flat import minus_log
from xctpipe.errors import BadScan
from xctpipe.flow import flow
from xctpipe.machine import set_threads
from xctpipe.plan import BATCH_ROWS, Piece, Slab, pieces
from xctpipe.recon import reconstruct
from xctpipe.recon.cylinder import CellFit, Seen, Tube, add_cell, without_cell
from xctpipe.recon.geometry import angular_weights
from xctpipe.runfolder import ScanFolder
from xctpipe.scan import FloatArray, RawArray, Scan, Span
from xctpipe.steps import BoundStep, Facts, View, halo_rows, run_step
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

    def pieces(self, slab: Slab) -> tuple[Piece, ...]:
        """How a slab is read and made."""
        halo = halo_rows(self.method.chain_of(self.method.kinds[-1]), self.method.facts)
        batches = [volume.batch_rows(spec) for spec in self.specs.values()]
        return pieces(slab, halo_rows=halo, batch_rows=min(batches, default=BATCH_ROWS))


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
    first = method.chain[0] if method.chain and method.chain[0].after_flat is not None else None
    stage = "flat" if first is None else f"flat+{first.name}"
    slab: FloatArray = clock.time(stage, survey.transmission, box.pop(), rows=read, first=first)
    facts = survey.facts(method.facts, rows=np.arange(*read))
    for step in method.chain[0 if first is None else 1 :]:
        slab, facts = clock.time(step.name, run_step, step, slab, facts)
    return slab, facts


@dataclass(frozen=True, eq=False)
class Block:
    """Slices of one of the volumes, (z, y, x) in cm^-1."""

    kind: str
    values: FloatArray


def compute(box: list[RawArray], piece: Piece, *, job: Job, clock: Clock) -> Iterator[Block]:
    """Slices of each volume made of the raw rows in `box`, first slices first."""
    method, survey = job.method, job.survey
    for i, (read, batches) in enumerate(piece.parts):
        raw = box[0][:, read[0] - piece.read[0] : read[1] - piece.read[0]]
        if i + 1 == len(piece.parts):
            box.clear()
        own = [raw]
        del raw
        transmission, facts = correct(own, read=read, survey=survey, method=method, clock=clock)
        for kind in method.kinds:
            if kind == "mass" and method.phase is not None:
                transmission = clock.time(method.phase.name, method.phase, transmission, facts)
            for rows in batches:
                part = transmission[:, rows[0] - read[0] : rows[1] - read[0]]
                view = survey.view_after(method.chain, np.arange(*rows))
                # what nobody needs any more is turned into line integrals where it is
                spent = kind == method.kinds[-1]
                lines = clock.time("log", log_of, part, survey=survey, view=view, spent=spent)
                del part
                if spent and rows == batches[-1]:
                    del transmission
                own = [lines]
                del lines
                yield Block(kind, slices(own, view=view, survey=survey, method=method, clock=clock))


def slices(box: list[FloatArray], *, view: View, survey: Survey, method: Method, clock: Clock) -> FloatArray:
    """Slices (z, y, x) in cm^-1 of the line integrals in `box`, out of which they are taken."""
    lines = box.pop()
    made: FloatArray = clock.time(
        "reconstruct", reconstruct_lines, lines, view=view, method=method, cell=survey.cell
    )
    return made


def log_of(transmission: FloatArray, *, survey: Survey, view: View, spent: bool = False) -> FloatArray:
    """Line integrals of a slab of transmission, which takes their place where it is `spent`."""
    lines, _ = minus_log(transmission, floor=survey.floor, out=transmission if spent else None)
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


class Sink(Protocol):
    """Where slices go."""

    def write(self, slab: Slab, block: Block, clock: Clock) -> None:
        """Take the next slices of a slab."""

    def finish(self, slab: Slab, clock: Clock) -> None:
        """All slices of the slab are there."""


class VolumeSink:
    """The volumes of a job, and the record of its slabs."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._open: dict[str, volume.SlabWriter] = {}

    def write(self, slab: Slab, block: Block, clock: Clock) -> None:
        """Store the next slices; BadScan when a later run has begun in the folder."""
        job, kind = self._job, block.kind
        if not job.folder.is_ours():
            raise BadScan(
                f"{job.scan.name}: a later run has begun anew in {job.folder.root}; this one gives up"
            )
        if kind not in self._open:
            self._open[kind] = volume.SlabWriter(job.folder.volume_of(kind), job.specs[kind], slab.rows[0])
        clock.time("write", self._open[kind].add, block.values)

    def finish(self, slab: Slab, clock: Clock) -> None:
        """Store the coarser levels, and that the slab is done."""
        clipped = sum(clock.time("write", writer.finish) for writer in self._open.values())
        self._open.clear()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        record = {"seconds": clock.seconds, "clipped_voxels": int(clipped), "peak_bytes": peak}
        self._job.folder.mark_done(slab, record)


@dataclass(eq=False)
class Line:
    """The places that the pieces of a lane go through, and how many of its slabs are done."""

    job: Job
    sink: Sink
    clocks: dict[Slab, Clock]
    done: int = 0

    def read(self, item: Piece) -> RawArray:
        """Raw rows of a piece."""
        raw: RawArray = self.clocks[item.slab].time("read", self.job.scan.frames.read, item.read)
        return raw

    def compute(self, box: list[RawArray], item: Piece) -> Iterator[Block]:
        """Slices of a piece."""
        return compute(box, item, job=self.job, clock=self.clocks[item.slab])

    def write(self, item: Piece, block: Block) -> None:
        """Hand slices on."""
        self.sink.write(item.slab, block, self.clocks[item.slab])

    def finish(self, item: Piece) -> None:
        """Count a slab with its last piece."""
        if item.is_last:
            self.sink.finish(item.slab, self.clocks[item.slab])
            self.done += 1

    def goes_on(self, item: Piece) -> bool:
        """Whether to begin with a piece: a slab that is begun is ended."""
        folder = self.job.folder
        return item.rows[0] != item.slab.rows[0] or (not folder.stop.exists() and folder.is_ours())


def run_lane(job: Job, slabs: Sequence[Slab], *, threads: int, sink: Sink | None = None) -> int:
    """Process slabs in order, skipping finished ones; returns how many were done here.

    The result does not depend on `threads`. Between slabs it looks for a request to stop.
    """
    with _ONE_LANE:
        set_threads(threads)
        todo = [slab for slab in slabs if job.folder.record_of(slab) is None]
        line = Line(job, sink or VolumeSink(job), {slab: Clock() for slab in todo})
        items = [piece for slab in todo for piece in job.pieces(slab)]
        # the number of threads is a setting of each thread
        flow(items, line, go_on=line.goes_on, begin=partial(set_threads, threads))
        return line.done
