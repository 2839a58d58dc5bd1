"""Running a case: ours and theirs in turn, so that a machine that drifts favours neither."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np

from xctpipe.bench.case import Call, Case, CaseResult, Peer, PeerResult
from xctpipe.bench.scene import Scene
from xctpipe.bench.setting import SLOW_S, Setting

PAIRS = 5
QUICK_PAIRS = 3
SLOW_ROW_S = 2.0
"""Where one row takes longer, we are given one row at a time."""
VERY_SLOW_ROW_S = 20.0
"""Where even the loading of kernels is no excuse, it is not tried again."""
PAGE_BYTES = 4096
ENOUGH_S = 15.0
"""Pairs are not repeated beyond this, unless a number of them is asked for."""


def run_case(case: Case, setting: Setting, *, group: str) -> CaseResult:
    """Time a case and its peers."""
    result = CaseResult(group, case.name, case.unit, unavailable=case.unavailable)
    if case.unavailable:
        return result
    scene = _scene_of(case, setting)
    result.rows = scene.rows
    units = case.units or scene.rows

    def ours() -> float:
        value = case.before(scene, None)
        return _seconds(case.ours, scene, value) / units

    for peer in case.peers if setting.options.peers else ():
        found = _against(peer, ours, setting=setting)
        result.peers.append(found)
        result.ours_s += found.ours_s
    if not result.ours_s:
        result.ours_s = _alone(ours, setting=setting)
    result.error = None if case.error is None else case.error()
    result.rate = 1e-6 * case.voxels / median(result.ours_s) / setting.cpus
    for quoted in case.quoted:
        seconds = median(result.ours_s)
        note = PeerResult(quoted.name, [seconds], [quoted.seconds], quoted=quoted.where)
        result.peers.append(note)
    return result


def _scene_of(case: Case, setting: Setting) -> Scene:
    """The rows that we are given; the first call with them loads the kernels."""
    if case.rows is not None:
        _once(case, setting.small)
        return setting.scene.top(case.rows)
    one = setting.scene.top(1)
    if _once(case, one) > VERY_SLOW_ROW_S or _once(case, one) > SLOW_ROW_S:
        return one
    _once(case, setting.scene)
    return setting.scene


def _once(case: Case, scene: Scene) -> float:
    return _seconds(case.ours, scene, case.before(scene, None))


def _most_pairs(setting: Setting) -> int:
    return setting.options.pairs or (QUICK_PAIRS if setting.options.quick else PAIRS)


def _alone(ours: Callable[[], float], *, setting: Setting) -> list[float]:
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < _most_pairs(setting):
        if times and not setting.options.pairs and time.perf_counter() - start > ENOUGH_S:
            break
        times.append(ours())
    return times


def _against(peer: Peer, ours: Callable[[], float], *, setting: Setting) -> PeerResult:
    """Calls in turn, so that a machine that drifts favours neither."""
    result = PeerResult(peer.name)
    scene = setting.scene.top(peer.rows)
    start = time.perf_counter()
    try:
        _theirs(peer, setting.tiny.top(peer.rows), cpus=setting.cpus)
        for pair in range(_most_pairs(setting)):
            spent = time.perf_counter() - start
            if pair and not setting.options.pairs and (spent > ENOUGH_S or spent / pair > SLOW_S):
                break
            _pair(peer, ours, scene, result=result, cpus=setting.cpus)
        with _named():
            result.error = None if peer.error is None else peer.error()
    except _Failed as err:
        result.failed = str(err)
    return result


def _pair(peer: Peer, ours: Callable[[], float], scene: Scene, *, result: PeerResult, cpus: int) -> None:
    if not result.ours_s:
        result.ours_s.append(ours())
    seconds, result.cores_used = _theirs(peer, scene, cpus=cpus)
    result.theirs_s.append(seconds)
    result.ours_s.append(ours())


def _theirs(peer: Peer, scene: Scene, *, cpus: int) -> tuple[float, float]:
    """Seconds a row, parts that use one core counted as if they ran on all; and cores that were used."""
    counted = wall = 0.0
    with _named():
        value = peer.before(scene, None)
        _touch_memory(scene)
        used = time.process_time()
        for part in peer.parts:
            start = time.perf_counter()
            value = part.call(scene, value)
            seconds = time.perf_counter() - start
            wall += seconds
            counted += seconds / (cpus if part.one_core else 1)
        used = time.process_time() - used
    return counted / scene.rows, used / max(wall, 1e-9)


class _Failed(Exception):  # noqa: N818 - what it says
    """Another program failed."""


@contextmanager
def _named() -> Iterator[None]:
    """Another program may fail in any way: it is said, and the others go on."""
    try:
        yield
    except Exception as err:
        raise _Failed(f"{type(err).__name__}: {err}") from err


def _touch_memory(scene: Scene) -> None:
    """Have the memory that a call may need at hand.

    What a process gave back may be slow to get again, on a virtual machine by seconds a gigabyte: that
    is no time of the program's.
    """
    n_angles, n_rows, n_cols = scene.raw.shape
    n_bytes = 4 * n_rows * n_cols * (3 * n_angles + n_cols)
    np.empty(n_bytes, np.uint8)[::PAGE_BYTES] = 1


def _seconds(call: Call, scene: Scene, value: Any) -> float:
    _touch_memory(scene)
    start = time.perf_counter()
    call(scene, value)
    return time.perf_counter() - start
