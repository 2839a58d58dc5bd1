"""Text that EC-Lab or BT-Lab exports, .mpt: a head of any length, then columns between tabs.

Latin-1 with DOS or Unix line ends; decimals after a point or a comma, as the exporting computer had it.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from xctpipe.cycler.base import CyclerFile, ReadOptions, Table, assemble, check_columns, clock_of, dated
from xctpipe.cycler.names import choose
from xctpipe.cycler.text import moment, numbers, read_text
from xctpipe.errors import BadScan

NAME = "mpt"

_HEAD = re.compile(rb"^(\xef\xbb\xbf)?(EC|BT)-Lab ASCII FILE", re.IGNORECASE)
_N_LINES = re.compile(r"^Nb header lines\s*:\s*(\d+)", re.IGNORECASE)
_STARTED = re.compile(r"^Acquisition started on\s*:\s*(.*\S)")
_REST = "Open Circuit Voltage"


@dataclass(frozen=True)
class Export:
    """An exported file in memory: its head, the names of its columns, and its lines of data."""

    head: tuple[str, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    comma: bool
    n_cut: int
    """Lines with fewer cells than columns."""

    @property
    def technique(self) -> str:
        """As EC-Lab calls it."""
        return next((line for line in self.head[2:] if line and ":" not in line), "unknown technique")

    @property
    def start(self) -> datetime | None:
        """When it was started, by the clock of the computer."""
        found = next(filter(None, map(_STARTED.match, self.head)), None)
        return moment(found[1]) if found else None


def understands(head: bytes) -> bool:
    """Whether a file that begins like this is one."""
    return _HEAD.match(head) is not None


def read(path: Path, *, options: ReadOptions) -> CyclerFile:
    """Read time, voltage and current; BadScan says what is wrong."""
    export = parse(read_text(path), path=path)
    chosen = choose(
        export.names, path=path, columns=options.columns, units=options.units, area_cm2=options.area_cm2
    )
    check_columns(chosen, export.names, path=path, rests=export.technique.startswith(_REST))
    table = columns_of(export, wanted={choice.name for choice in chosen.values()})
    place = export.names.index(chosen["time"].name)
    if moment(export.rows[0][place]) is None:
        clock = clock_of(export.start, path=path, options=options)
    else:
        times = [row[place] for row in export.rows]
        clock, table[chosen["time"].name] = dated(times, path=path, options=options)
    lost = f"{path.name}: {export.n_cut} lines with too few columns are left out"
    return assemble(
        table,
        chosen,
        path=path,
        technique=export.technique,
        clock=clock,
        problems=(lost,) if export.n_cut else (),
    )


def parse(text: str, *, path: Path) -> Export:
    """Head, columns and lines of an exported file; BadScan where it has no data."""
    lines = text.splitlines()
    counted = next(filter(None, map(_N_LINES.match, lines[:10])), None)
    n_head = int(counted[1]) if counted else 0
    if not 0 < n_head <= len(lines) or "\t" not in lines[n_head - 1]:
        # a head that was edited: columns stand where the first one with a time is
        n_head = next((i + 1 for i, line in enumerate(lines) if "time/s" in line.split("\t")), 0)
    if not n_head:
        raise BadScan(
            f"{path}: no line with the names of columns is found, so it holds no data; export it again"
        )
    names = tuple(name.strip() for name in lines[n_head - 1].rstrip("\t").split("\t"))
    cut = [line.rstrip("\r\n\t").split("\t") for line in lines[n_head:] if line.strip()]
    # empty cells at the end of a line are cells all the same
    whole = [line.split("\t")[: len(names)] for line in lines[n_head:] if line.count("\t") >= len(names) - 1]
    rows = tuple(tuple(cell.strip() for cell in row) for row in whole if any(cell.strip() for cell in row))
    if not rows:
        raise BadScan(
            f"{path}: holds no line of data after its head of {n_head} lines; was anything measured?"
        )
    comma = any("," in cell for cell in rows[0])
    return Export(tuple(line.strip() for line in lines[:n_head]), names, rows, comma, len(cut) - len(rows))


def columns_of(export: Export, *, wanted: set[str] | None = None) -> Table:
    """Columns as numbers, all or those `wanted`; NaN for what is none."""
    places = {name: i for i, name in reversed(list(enumerate(export.names)))}
    return {
        name: numbers([row[i] for row in export.rows], comma=export.comma)
        for name, i in places.items()
        if wanted is None or name in wanted
    }
