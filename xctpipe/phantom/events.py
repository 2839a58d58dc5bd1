"""Events of a series, from what its objects show and what its scenes declare."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from xctpipe.phantom.scenes import Scene
from xctpipe.phantom.timeline import TimeStep, TrueEvent


def events_of(scenes: Sequence[Scene], steps: Sequence[TimeStep]) -> tuple[TrueEvent, ...]:
    """Events between each two scans; what merges is neither born nor dead."""
    return tuple(
        TrueEvent(kind, before.name, after.name, objects)
        for scene, (before, after) in zip(scenes[1:], pairwise(steps), strict=True)
        for kind, objects in _between(scene, before, after)
    )


def _between(scene: Scene, before: TimeStep, after: TimeStep) -> Iterator[tuple[str, tuple[int, ...]]]:
    was, now = ({thing.object: thing.kind for thing in step.objects} for step in (before, after))
    joined = {number for group in scene.merged for number in group}
    for number in sorted(set(now) - set(was) - joined):
        yield "birth", (number,)
    for number in sorted(set(was) - set(now) - joined):
        yield "death", (number,)
    for group in scene.merged:
        yield "merge", group
    for number in sorted(set(was) & set(now)):
        if (was[number], now[number]) == ("crack", "crack_filled"):
            yield "fill", (number,)
    yield from scene.declared
