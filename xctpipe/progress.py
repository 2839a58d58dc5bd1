"""How long work tells of itself: a bar with rate and time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Bar(Protocol):
    """Something that counts finished units of work."""

    def advance(self, amount: float) -> None:
        """Add finished units."""


class _Lines:
    """One log line at most every `every_s` seconds, and one at the end."""

    def __init__(self, title: str, total: float, unit: str, every_s: float = 10.0) -> None:
        self._title, self._total, self._unit, self._every_s = title, total, unit, every_s
        self._done = 0.0
        self._start = self._last = time.monotonic()

    def advance(self, amount: float) -> None:
        """Add finished units, and print a line when the last is old enough."""
        self._done += amount
        now = time.monotonic()
        if now - self._last < self._every_s and self._done < self._total:
            return
        self._last = now
        rate = self._done / max(now - self._start, 1e-9)
        left_s = (self._total - self._done) / rate if rate else float("inf")
        sys.stderr.write(
            f"{self._title}: {self._done:.0f}/{self._total:.0f} {self._unit}, "
            f"{rate:.2f} {self._unit}/s, {left_s:.0f} s left\n"
        )
        sys.stderr.flush()


@contextmanager
def progress(title: str, *, total: float, unit: str = "slices") -> Iterator[Bar]:
    """Count work up to `total` units; the bar is drawn on a terminal only."""
    if not sys.stderr.isatty():
        yield _Lines(title, total, unit)
    else:
        with _terminal(title, total=total, unit=unit) as bar:
            yield bar


@contextmanager
def _terminal(title: str, *, total: float, unit: str) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    speed = TextColumn("{task.fields[rate]}")
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, rate="")
        start = time.monotonic()

        class _Rich:
            done = 0.0

            def advance(self, amount: float) -> None:
                self.done += amount
                rate = self.done / max(time.monotonic() - start, 1e-9)
                bar.update(task, advance=amount, rate=f"{rate:.2f} {unit}/s")

        yield _Rich()
