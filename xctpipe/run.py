"""Run a recipe: every scan through its stages, slabs placed on workers by dask.

This is the only file that knows dask. A task of the reconstruction is a lane, a run of neighbouring slabs, in
which reading and writing overlap the computing; a lane that is lost is done again elsewhere and skips what is
finished. A task of the stages after it is a block of the volume.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import numba
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed, get_worker
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError

from xctpipe import inputs
from xctpipe.blocks import Place, in_this_process
from xctpipe.conveyor import Job, run_lane
from xctpipe.errors import BadRecipe, BadScan, NoCell, UserError, nearest
from xctpipe.following import finish, in_time
from xctpipe.formats import Found
from xctpipe.machine import set_threads, usable_cpus
from xctpipe.measuring import measure
from xctpipe.plan import Slab
from xctpipe.prepare import Prepared, describe, discard_staged, memory_bytes, prepare
from xctpipe.progress import Bar, progress
from xctpipe.recipe import Recipe, to_toml
from xctpipe.record import RunRecord, known_scans
from xctpipe.runfolder import ScanFolder, locked, scan_folder, write_text
from xctpipe.scan import Scan
from xctpipe.segmentation import segment
from xctpipe.stages import (
    MEASURE,
    RECONSTRUCT,
    REPORT,
    SEGMENT,
    STAGES,
    TRACK,
    ScanWork,
    SeriesWork,
    check_labels_fit,
    done_record,
    is_done,
    set_done,
)

log = logging.getLogger(__name__)

_LANES_PER_WORKER = 3
_SLABS_PER_LANE = 6
_POLL_S = 0.2
CONNECT_S = 15


@dataclass
class Outcome:
    """What a run ended with."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Scans, and stages of the series, with the reason."""
    unlabelled: dict[str, str] = field(default_factory=dict)
    """Scans that show nothing of the cell."""


def check_stages(wanted: Sequence[str]) -> None:
    """BadRecipe when a stage is not known."""
    for stage in wanted:
        if stage not in STAGES:
            raise BadRecipe(f"--stages: no stage {stage!r}; {nearest(stage, STAGES)}")


def run(
    recipe: Recipe,
    *,
    stages: Sequence[str] | None = None,
    scheduler: str | None = None,
    fresh: bool = False,
) -> Outcome:
    """Run the stages of a recipe for all its scans, in their own order; what is finished is kept.

    Raw data are touched by the stage reconstruct only. Without `stages` all are run, and a scan that shows
    nothing of the cell is reconstructed and not labelled.

    Raises BadRecipe when nothing can be run; a scan that fails is in the outcome, the others go on.
    """
    wanted = STAGES if stages is None else tuple(stages)
    check_stages(wanted)
    set_threads()
    with locked(recipe.run_folder):
        write_text(recipe.run_folder / "recipe.toml", to_toml(recipe))
        raw = RECONSTRUCT in wanted
        found = {each.name: each for each in inputs.find(recipe.raw)} if raw else {}
        names = tuple(found) if raw else known_scans(recipe)
        record = RunRecord.begin(recipe, names=names, fresh=fresh and raw)
        with workers(scheduler) as client:
            asked = stages is not None
            return _Series(recipe, wanted, found, names, client, record, fresh, asked).run()


@dataclass(frozen=True)
class _Series:
    """All scans of a run, and what is to be done with each."""

    recipe: Recipe
    stages: Sequence[str]
    found: Mapping[str, Found]
    """Where the raw data are; empty where they are not needed."""
    names: tuple[str, ...]
    client: Client
    record: RunRecord
    fresh: bool
    asked: bool
    """Whether the stages were asked for, or are those of every run."""

    def run(self) -> Outcome:
        outcome = Outcome()
        for index, name in enumerate(self.names):
            try:
                self._one(name, index)
            except NoCell as err:
                outcome.unlabelled[name] = str(err)
                outcome.done.append(name)
                log.warning("%s: not labelled: %s", name, err)
            except UserError as err:
                # a recipe that fits other scans is not wrong: it is this scan that is odd
                if isinstance(err, BadRecipe) and not outcome.done:
                    raise
                log.error("%s failed: %s", name, err)  # noqa: TRY400 - a user's message, not a traceback
                outcome.failed[name] = str(err)
            else:
                outcome.done.append(name)
        outcome.failed |= self._finish(outcome)
        return outcome

    def _finish(self, outcome: Outcome) -> dict[str, str]:
        """The stages of the whole series; what failed."""
        wanted = [stage for stage in (TRACK, REPORT) if stage in self.stages]
        if not wanted:
            return {}
        names = in_time(self.names, self.record.rows)
        works = [_work(self.recipe, name, client=self.client, names=self.names) for name in names]
        scans = [work for work in works if done_record(ScanFolder(work.folder), MEASURE) is not None]
        why = {**outcome.unlabelled, **outcome.failed}
        missing = {name: why.get(name, "not measured") for name in names}
        for work in scans:
            missing.pop(work.name)
        return finish(
            SeriesWork(
                tuple(scans), self.recipe, works[0].place, works[0].threads, works[0].memory_bytes, missing
            ),
            wanted,
            asked=self.asked,
            fresh=self.fresh,
        )

    def _one(self, name: str, index: int) -> None:
        if RECONSTRUCT in self.stages:
            try:
                scan = inputs.open_one(self.recipe.raw, self.found[name], index=index)
                _reconstruct(self.recipe, scan, client=self.client, record=self.record, fresh=self.fresh)
            except UserError as err:
                self.record.failed(name, str(err))
                raise
        try:
            if SEGMENT in self.stages:
                self._later(SEGMENT, segment, name)
            if MEASURE in self.stages:
                self._later(MEASURE, measure, name)
        except NoCell as err:
            if self.asked:
                raise BadScan(str(err)) from err
            raise

    def _later(self, stage: str, do: Callable[[ScanWork], Mapping[str, Any]], name: str) -> None:
        start = time.monotonic()
        try:
            if not self.record.has_volume(name):
                raise BadScan(f"{name}: no volume to {stage}; run the stage {RECONSTRUCT} first")
            work = _work(self.recipe, name, client=self.client, names=self.names)
            if is_done(stage, work, fresh=self.fresh):
                log.info("%s: %s is done already", name, stage)
                return
            if stage == MEASURE:
                check_labels_fit(work)
            self.record.stage(name, stage, status="running")
            with _workers_may_fail(name):
                result = do(work)
        except UserError as err:
            self.record.stage(name, stage, status="failed", error=str(err))
            raise
        for text in result.get("warnings", ()):
            log.warning("%s: %s", name, text)
        set_done(stage, work, result=result)
        self.record.stage(name, stage, status="done", wall_s=round(time.monotonic() - start, 3))
        log.info("%s: %s is done", name, stage)


def _work(recipe: Recipe, name: str, *, client: Client, names: tuple[str, ...]) -> ScanWork:
    folder = scan_folder(recipe.run_folder, name)
    here = isinstance(client.cluster, LocalCluster)
    mass = folder.volume_of("mass")
    return ScanWork(
        name,
        folder.root,
        folder.volume,
        mass if mass.exists() else None,
        recipe,
        in_this_process() if here else _on_workers(client),
        usable_cpus() if here else max((w["nthreads"] for w in _workers_of(client)), default=1),
        memory_bytes(recipe),
        names,
    )


def _reconstruct(recipe: Recipe, scan: Scan, *, client: Client, record: RunRecord, fresh: bool) -> None:
    start = time.monotonic()
    record.started(scan)
    for text in scan.warnings:
        log.warning("%s: %s", scan.name, text)
    prepared = prepare(scan, recipe, fresh=fresh)
    for text in prepared.job.survey.warnings:
        log.warning("%s: %s", scan.name, text)
    record.prepared(prepared)
    log.info("%s: %s", scan.name, describe(prepared))
    _convey_all(prepared, client=client)
    record.finished(prepared, wall_s=time.monotonic() - start)
    discard_staged(recipe, scan.name)
    log.info("%s: %s", scan.name, prepared.job.folder.volume)


def _convey_all(prepared: Prepared, *, client: Client) -> None:
    job, slabs = prepared.job, prepared.plan.slabs
    rest = [slab for slab in slabs if job.folder.record_of(slab) is None]
    if len(rest) < len(slabs):
        log.info("%s: %d of %d slabs are done already", job.scan.name, len(slabs) - len(rest), len(slabs))
    if not rest:
        return
    job.folder.stop.unlink(missing_ok=True)
    n_rows = sum(slab.rows[1] - slab.rows[0] for slab in rest)
    lanes = split(rest, n_lanes=_n_lanes(client, len(rest)))
    futures = [client.submit(_lane, job, lane, pure=False, retries=2) for lane in lanes]
    try:
        with progress(job.scan.name, total=n_rows) as bar:
            _watch(futures, rest, job=job, bar=bar)
    except BaseException:
        # workers end the slab in hand and start no other; what is finished stays
        job.folder.request_stop()
        client.cancel(futures)
        raise
    _collect(futures, job)
    lost = [slab for slab in slabs if job.folder.record_of(slab) is None]
    if lost:
        raise BadScan(f"{job.scan.name}: {len(lost)} of {len(slabs)} slabs are not finished; repeat the run")


def _watch(futures: Sequence[Future], slabs: Sequence[Slab], *, job: Job, bar: Bar) -> None:
    """Count finished slabs by their records, which tell the truth wherever the workers are."""
    left = list(slabs)
    while True:
        ended = all(future.done() for future in futures)
        failed = any(future.status == "error" for future in futures)
        for slab in [slab for slab in left if job.folder.record_of(slab) is not None]:
            left.remove(slab)
            bar.advance(slab.rows[1] - slab.rows[0])
        if ended or failed:
            return
        time.sleep(_POLL_S)


def _collect(futures: Sequence[Future], job: Job) -> None:
    with _workers_may_fail(job.scan.name):
        for future in futures:
            message = future.result()
            if message:
                raise BadScan(message)


@contextmanager
def _workers_may_fail(name: str) -> Iterator[None]:
    """Say so where the scheduler or its workers are lost."""
    try:
        yield
    except (FutureCancelledError, CommClosedError) as err:
        raise BadScan(
            f"{name}: the dask scheduler is lost; start it and repeat: what is finished is kept"
        ) from err
    except KilledWorker as err:
        raise BadScan(
            f"{name}: workers died on it several times (out of memory?); lower compute.memory_gb "
            "and repeat the run: what is finished is kept"
        ) from err


def _on_workers(client: Client) -> Place:
    """Place work on the workers of a scheduler, twice as much at once as they have threads."""

    def place(task: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        ahead = 2 * sum(worker["nthreads"] for worker in _workers_of(client))
        (shared,) = client.scatter([task], broadcast=True)
        waiting = iter(range(len(items)))
        flying: dict[Future, int] = {}
        ended = as_completed()
        try:
            while True:
                for i in islice(waiting, max(1, ahead) - len(flying)):
                    future = client.submit(_on_one_thread, shared, items[i], pure=False)
                    flying[future] = i
                    ended.add(future)
                if not flying:
                    return
                future = next(ended)
                yield flying.pop(future), future.result()
        finally:
            client.cancel(list(flying))

    return place


def _on_one_thread(task: Callable[[Any], Any], item: Any) -> Any:
    """Task on a worker: kernels get one thread, as the worker's other threads have tasks of their own."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        return task(item)
    finally:
        numba.set_num_threads(before)


def _workers_of(client: Client) -> list[dict[str, Any]]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())


def _lane(job: Job, slabs: Sequence[Slab]) -> str:
    """Task on a worker: process a lane; returns what the user must be told, nothing when all is well."""
    try:
        run_lane(job, slabs, threads=get_worker().state.nthreads)
    except UserError as err:
        job.folder.request_stop()
        return str(err)
    return ""


def split(slabs: Sequence[Slab], *, n_lanes: int) -> list[list[Slab]]:
    """Cut slabs into at most `n_lanes` runs of neighbours, as equal as can be."""
    n_lanes = min(n_lanes, len(slabs))
    edges = [round(i * len(slabs) / n_lanes) for i in range(n_lanes + 1)]
    return [list(slabs[a:b]) for a, b in pairwise(edges)]


def _n_lanes(client: Client, n_slabs: int) -> int:
    """One lane for the worker of this process; elsewhere short ones, so that late workers find some too."""
    if isinstance(client.cluster, LocalCluster):
        return 1
    return max(len(_workers_of(client)) * _LANES_PER_WORKER, n_slabs // _SLABS_PER_LANE)


@contextmanager
def workers(scheduler: str | None) -> Iterator[Client]:
    """A client of the scheduler at this address, or of this process with all the CPUs it may use."""
    if scheduler is None:
        options: dict[str, Any] = {
            "processes": False,
            "memory_limit": 0,  # the plan bounds memory; dask would pause the worker
            "dashboard_address": ":0",
            "scheduler_kwargs": {"dashboard": False},
        }
        with (
            LocalCluster(n_workers=1, threads_per_worker=usable_cpus(), **options) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(scheduler, timeout=CONNECT_S)
    except (OSError, TimeoutError, ValueError) as err:
        raise BadRecipe(
            f"--scheduler {scheduler}: no dask scheduler answers ({err}); start one with `dask scheduler`"
        ) from err
    with client:
        try:
            client.wait_for_workers(1, timeout=60)
        except TimeoutError as err:
            raise BadRecipe(
                f"--scheduler {scheduler}: it has no workers; start some with `dask worker`"
            ) from err
        yield client
