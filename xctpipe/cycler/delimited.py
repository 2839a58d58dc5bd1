"""Tables as text: CSV with commas, semicolons or tabs, with a line that names the columns.

Lines before that one are skipped. With semicolons and tabs decimals may come after a comma. Time is a date
with time, seconds since 1970, or time since a start that the recipe gives.
"""

import csv
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from xctpipe.cycler.base import (
    Clock,
    CyclerFile,
    ReadOptions,
    Table,
    assemble,
    clock_of,
    dated,
    missing_column,
)
from xctpipe.cycler.names import Choice, choose
from xctpipe.cycler.text import is_epoch, moment, numbers, read_text
from xctpipe.errors import BadScan, nearest
from xctpipe.scan import DoubleArray

NAME = "csv"

_MOST_HEAD_LINES = 200
_DELIMITERS = ("\t", ";", ",")


def understands(head: bytes) -> bool:
    """Whether a file that begins like this is one: text, and some line of it has several cells."""
    if b"-Lab ASCII FILE" in head[:40] or b"\0" in head or sum(byte < 9 or 13 < byte < 27 for byte in head):
        return False
    return any(mark.encode() in head for mark in _DELIMITERS)


def read(path: Path, *, options: ReadOptions) -> CyclerFile:
    """Read time, voltage and current; BadScan says what is wrong."""
    try:
        names, rows, delimiter = _split(read_text(path), path=path, options=options)
    except csv.Error as err:
        raise BadScan(f"{path}: is no table ({err}); export it again") from err
    chosen = _choose(names, path=path, options=options)
    for what in ("time", "current"):
        if what not in chosen and not (what == "current" and "charge" in chosen):
            raise missing_column(what, list(names), path=path)
    comma = delimiter != "," and any("," in cell for row in rows[:100] for cell in row)
    cells = {choice.name: [row[names.index(choice.name)] for row in rows] for choice in chosen.values()}
    time = chosen["time"]
    if moment(cells[time.name][0]) is not None:
        clock, elapsed = dated(cells[time.name], path=path, options=options)
    else:
        counts = numbers(cells[time.name], comma=comma)
        clock, elapsed = _counted(counts, factor=time.factor, path=path, options=options)
    chosen["time"] = Choice(time.name)
    table: Table = {name: numbers(column, comma=comma) for name, column in cells.items() if name != time.name}
    table[time.name] = elapsed
    return assemble(table, chosen, path=path, technique="table", clock=clock)


def _choose(names: Sequence[str], *, path: Path, options: ReadOptions) -> dict[str, Choice]:
    return choose(names, path=path, columns=options.columns, units=options.units, area_cm2=options.area_cm2)


def _split(text: str, *, path: Path, options: ReadOptions) -> tuple[tuple[str, ...], list[list[str]], str]:
    """Names of the columns, lines of data with as many cells, and what stands between cells."""
    lines = [line for line in text.splitlines() if line.strip()]
    wanted = set(options.columns.values())
    seen: list[str] = []
    for at, line in enumerate(lines[:_MOST_HEAD_LINES]):
        for delimiter in _DELIMITERS:
            names = tuple(name.strip() for name in next(csv.reader([line.lstrip("#")], delimiter=delimiter)))
            if len(names) < 2 or (wanted and not wanted <= set(names)):
                seen = max(seen, list(names), key=len)
                continue
            if wanted or "time" in _choose(names, path=path, options=options):
                rows = list(csv.reader(lines[at + 1 :], delimiter=delimiter))
                whole = [[cell.strip() for cell in row] for row in rows if len(row) >= len(names)]
                if not whole:
                    raise BadScan(f"{path}: holds no line of data below the names of its columns")
                return names, whole, delimiter
    missing = next((name for name in options.columns.values() if name not in seen), "time")
    raise BadScan(
        f"{path}: no line names a column {missing!r}, so it is no cycler's table; name its columns in "
        f"[cycler.columns]; {nearest(missing, [name for name in seen if name])}"
    )


def _counted(
    time: DoubleArray, *, factor: float, path: Path, options: ReadOptions
) -> tuple[Clock, DoubleArray]:
    """Start and seconds since then, of numbers."""
    time_s = time * factor
    if not is_epoch(time_s):
        return clock_of(None, path=path, options=options), time_s
    first = float(time_s[np.isfinite(time_s)][0])
    try:
        return Clock(datetime.fromtimestamp(first, tz=UTC), says_zone=True), time_s - first
    except (ValueError, OverflowError, OSError) as err:
        raise BadScan(
            f"{path}: a time of {first:g} s since 1970 is no date; give its unit as cycler.units.time, e.g. "
            '"ms"'
        ) from err
