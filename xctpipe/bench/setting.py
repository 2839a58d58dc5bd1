"""What a run of the benchmark is asked to do, and the arrays that its cases share."""

import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from xctpipe.bench.scene import Scene, Size, make_scene, parse_size
from xctpipe.machine import usable_cpus

log = logging.getLogger(__name__)

HEX_SIZE = Size(3001, 64, 3200)
PLAIN_SIZE = Size(1001, 16, 1024)
QUICK_SIZE = Size(181, 16, 256)
MOST_ROWS = 16
"""Rows of the arrays that stages are timed on."""
ACCURATE_COLS = 1024
"""Width at which errors are measured."""
SMALL_ROWS = 4
MIDDLE_COLS = 512
"""Width of scans of many slabs."""
SLOW_S = 8.0
"""A pair that took longer is not repeated, unless a number of pairs is asked for."""

_TINY = Size(64, 2, 96)


@dataclass(frozen=True)
class Options:
    """What the user asks for; `pairs` None: as many as are quick, up to 5."""

    size: Size = PLAIN_SIZE
    only: str | None = None
    pairs: int | None = None
    peers: bool = True
    quick: bool = False
    scratch: Path | None = None


def make_options(size: str | None, *, quick: bool, **others: Any) -> Options:
    """Options with the size that belongs to them; BadRecipe where it is none that can be timed."""
    usual = QUICK_SIZE if quick else PLAIN_SIZE
    if quick and size is not None:
        log.warning("--quick: its size, %s, gives way to --size; there are fewer pairs still", QUICK_SIZE)
    return Options(size=usual if size is None else parse_size(size), quick=quick, **others)


@dataclass(frozen=True, eq=False)
class Setting:
    """The options with a folder for large files, and scenes that are made when first asked for."""

    options: Options
    folder: Path
    kept: dict[str, Any] = field(default_factory=dict)
    """What cases leave behind for the figures of their group."""

    @property
    def size(self) -> Size:
        """Size asked for."""
        return self.options.size

    @property
    def cpus(self) -> int:
        """Cores that may be used."""
        return usable_cpus()

    @cached_property
    def scene(self) -> Scene:
        """Rows at the size asked for, `MOST_ROWS` at most."""
        return make_scene(Size(self.size.angles, self.scene_rows, self.size.cols))

    @cached_property
    def small(self) -> Scene:
        """A few rows at most `ACCURATE_COLS` wide, for errors."""
        return make_scene(self.size.narrowed(ACCURATE_COLS, rows=SMALL_ROWS))

    @cached_property
    def narrow(self) -> Scene:
        """Rows at most `MIDDLE_COLS` wide, to make scans of many slabs of."""
        return make_scene(self.size.narrowed(MIDDLE_COLS, rows=self.scene_rows))

    @cached_property
    def tiny(self) -> Scene:
        """What other programs are called with before they are timed, so that they are compiled."""
        return make_scene(_TINY)

    @property
    def scene_rows(self) -> int:
        """Rows of `scene`, which need not be made to know it."""
        return min(self.size.rows, MOST_ROWS)
