"""Run a recipe: every scan through its stages, slabs placed on workers by dask.

This is the only file that knows dask. A task is a lane, a run of neighbouring slabs, in which reading and
writing overlap the computing; a lane that is lost is done again elsewhere and skips what is finished.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from distributed import Client, Future, KilledWorker, LocalCluster, get_worker
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError

from xctpipe import inputs
from xctpipe.conveyor import Job, run_lane
from xctpipe.errors import BadRecipe, BadScan, UserError, nearest
from xctpipe.formats import Found
from xctpipe.machine import set_threads, usable_cpus
from xctpipe.plan import Slab
from xctpipe.prepare import Prepared, describe, discard_staged, prepare
from xctpipe.progress import Bar, progress
from xctpipe.recipe import Recipe, to_toml
from xctpipe.record import RunRecord
from xctpipe.runfolder import locked, write_text
from xctpipe.scan import Scan

log = logging.getLogger(__name__)

STAGES = ("reconstruct",)

_LANES_PER_WORKER = 3
_SLABS_PER_LANE = 6
_POLL_S = 0.2
CONNECT_S = 15


@dataclass
class Outcome:
    """What a run ended with."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def check_stages(stages: Sequence[str]) -> None:
    """BadRecipe when a stage is not known."""
    for stage in stages:
        if stage not in STAGES:
            raise BadRecipe(f"--stages: no stage {stage!r}; {nearest(stage, STAGES)}")


def run(
    recipe: Recipe, *, stages: Sequence[str] = STAGES, scheduler: str | None = None, fresh: bool = False
) -> Outcome:
    """Run the stages of a recipe for all its scans; safe to repeat, finished slabs are kept.

    Raises BadRecipe when nothing can be run; a scan that fails is in the outcome, the others go on.
    """
    check_stages(stages)
    set_threads()
    with locked(recipe.run_folder):
        write_text(recipe.run_folder / "recipe.toml", to_toml(recipe))
        found = inputs.find(recipe.raw)
        record = RunRecord.begin(recipe, names=[each.name for each in found], fresh=fresh)
        with workers(scheduler) as client:
            return _run_all(recipe, found, client=client, record=record, fresh=fresh)


def _run_all(
    recipe: Recipe, found: Sequence[Found], *, client: Client, record: RunRecord, fresh: bool
) -> Outcome:
    outcome = Outcome()
    for index, each in enumerate(found):
        try:
            scan = inputs.open_one(recipe.raw, each, index=index)
            _reconstruct(recipe, scan, client=client, record=record, fresh=fresh)
        except UserError as err:
            # a recipe that fits other scans is not wrong: it is this scan that is odd
            if isinstance(err, BadRecipe) and not outcome.done:
                record.failed(each.name, str(err))
                raise
            log.error("%s failed: %s", each.name, err)  # noqa: TRY400 - a user's message, not a traceback
            outcome.failed[each.name] = str(err)
            record.failed(each.name, str(err))
        else:
            outcome.done.append(each.name)
    return outcome


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
    try:
        for future in futures:
            message = future.result()
            if message:
                raise BadScan(message)
    except (FutureCancelledError, CommClosedError) as err:
        raise BadScan(
            f"{job.scan.name}: the dask scheduler is lost; start it and repeat: finished slabs are kept"
        ) from err
    except KilledWorker as err:
        raise BadScan(
            f"{job.scan.name}: workers died on it several times (out of memory?); lower compute.memory_gb "
            "and repeat the run: finished slabs are kept"
        ) from err


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
    n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
    return max(n_workers * _LANES_PER_WORKER, n_slabs // _SLABS_PER_LANE)


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
