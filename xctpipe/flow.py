"""Reading, computing and writing at the same time.

The next piece is read and the last block is written while one is computed. At any time there is at most one
item in each of the three places, which is what a plan of memory counts.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol, TypeVar

Item = TypeVar("Item", contravariant=True)
Raw = TypeVar("Raw")
Block = TypeVar("Block")


class Stations(Protocol[Item, Raw, Block]):
    """What is done to an item at each of the three places."""

    def read(self, item: Item) -> Raw:
        """Fetch what an item is made of; in a thread of its own."""

    def compute(self, box: list[Raw], item: Item) -> Iterable[Block]:
        """Blocks made of what `box` holds, which may be taken out of it to be freed early."""

    def write(self, item: Item, block: Block) -> None:
        """Store a block; in a thread of its own, in order."""

    def finish(self, item: Item) -> None:
        """All blocks of the item are stored; in the thread that stores."""


def flow(
    items: Sequence[Item],
    stations: Stations[Item, Raw, Block],
    *,
    go_on: Callable[[Item], bool],
    begin: Callable[[], object],
) -> None:
    """Move items in order through the stations until one is not to be gone on with.

    `begin` is called in each of the two threads first. What fails at one place ends it all: what is under
    way at the others is waited for. Where writing has failed too, that is raised.
    """
    with _one_thread("read", begin) as reader, _one_thread("write", begin) as writer:
        under_way = _Writing(writer)
        reading = reader.submit(stations.read, items[0]) if items else None
        try:
            for i, item in enumerate(items):
                if reading is None or not go_on(item):
                    break
                box = [reading.result()]
                reading = reader.submit(stations.read, items[i + 1]) if i + 1 < len(items) else None
                for block in stations.compute(box, item):
                    under_way.follow(partial(stations.write, item, block))
                    del block
                under_way.follow(partial(stations.finish, item), at_once=True)
        finally:
            under_way.end()


class _Writing:
    """What the one thread that writes has in hand."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._last: Future[None] | None = None

    def follow(self, work: Callable[[], None], *, at_once: bool = False) -> None:
        """Do more when the last is done, which is waited for unless `at_once`; not when it failed."""
        last = self._last
        if not at_once:
            self.end()
            last = None
        self._last = self._pool.submit(_after, last, work)

    def end(self) -> None:
        """Wait for the last, and raise what it raised."""
        if self._last is not None:
            self._last.result()


def _after(last: "Future[None] | None", work: Callable[[], None]) -> None:
    if last is not None:
        last.result()
    work()


def _one_thread(name: str, begin: Callable[[], object]) -> AbstractContextManager[ThreadPoolExecutor]:
    return ThreadPoolExecutor(1, name, begin)
