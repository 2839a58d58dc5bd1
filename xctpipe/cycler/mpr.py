"""BioLogic's binary files, .mpr, as EC-Lab and BT-Lab write them.

A file is a row of modules, each with a name, a length and a version. Of interest are `VMP Set` (the
technique), `VMP data` (a table of packed records, whose columns are numbered) and `VMP LOG` (when it was
started, as days since the end of 1899). All numbers are little-endian. Nothing of this is published by the
maker; what is here was held against tables that EC-Lab itself exported.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.cycler.base import CyclerFile, ReadOptions, Table, assemble, check_columns, clock_of
from xctpipe.cycler.mpr_columns import COLUMNS, FLAGS, TECHNIQUES
from xctpipe.cycler.names import choose
from xctpipe.errors import BadScan

NAME = "mpr"

_MAGIC = b"BIO-LOGIC MODULAR FILE"
_FIRST_MODULE = 52
_NAMES_BYTES = 41
_NO_LENGTH = 0xFFFFFFFF
_LAYOUTS = {
    0: (5, "u1", 100),
    2: (5, "<u2", 405),
    3: (5, "<u2", 406),
    10: (6, "<u2", 1007),
    11: (6, "<u2", 1007),
}
"""By version of the data: where the columns' numbers begin, their type, and where the records begin."""
_STARTS = (585, 473, 469, 465)
"""Where the log may say when it was started: the newer versions first."""
_DAY_0 = datetime(1899, 12, 30)  # noqa: DTZ001 - a clock without zone
_DAYS = (32874.0, 73050.0)
"""1990 to 2100."""


@dataclass(frozen=True)
class Module:
    """A part of the file; `whole` unless the file ends within it."""

    version: int
    date: str
    body: bytes
    whole: bool


def understands(head: bytes) -> bool:
    """Whether a file that begins like this is one."""
    return head.startswith(_MAGIC)


def read(path: Path, *, options: ReadOptions) -> CyclerFile:
    """Read time, voltage and current; BadScan says what is wrong."""
    modules = modules_of(path)
    table, problems = _table(modules, path=path)
    chosen = choose(
        list(table), path=path, columns=options.columns, units=options.units, area_cm2=options.area_cm2
    )
    technique = _technique(modules)
    check_columns(chosen, list(table), path=path, rests=technique == "OCV")
    clock = clock_of(_start(modules), path=path, options=options)
    return assemble(table, chosen, path=path, technique=technique, clock=clock, problems=problems)


def read_table(path: Path) -> Table:
    """Every column of the data, by EC-Lab's names."""
    return _table(modules_of(path), path=path)[0]


def modules_of(path: Path) -> dict[str, Module]:
    """The modules by short name; the last one may be cut off."""
    content = path.read_bytes()
    modules: dict[str, Module] = {}
    at = _FIRST_MODULE
    while content[at : at + 6] == b"MODULE":
        name = content[at + 6 : at + 16].decode("latin-1").strip()
        head = content[at + _NAMES_BYTES : at + _NAMES_BYTES + 24].ljust(24, b"\0")
        length, version = struct.unpack("<2I", head[:8])
        date, body = head[8:16], at + _NAMES_BYTES + 16
        if length == _NO_LENGTH:
            length, _, version = struct.unpack("<3I", head[4:16])
            date, body = head[16:24], body + 8
        piece = content[body : body + length]
        modules.setdefault(name, Module(version, date.decode("latin-1"), piece, len(piece) == length))
        at = body + length
    return modules


def _table(modules: dict[str, Module], *, path: Path) -> tuple[Table, tuple[str, ...]]:
    data = modules.get("VMP data")
    if data is None or len(data.body) < 6:
        raise BadScan(f"{path}: holds no data: the file is cut off, or nothing was measured; copy it again")
    if data.version not in _LAYOUTS:
        raise BadScan(
            f"{path}: version {data.version} of its data is not known (known: "
            f"{', '.join(map(str, _LAYOUTS))}); export it as .mpt in EC-Lab"
        )
    ids_at, kind, begin = _LAYOUTS[data.version]
    n_rows, n_columns = struct.unpack("<IB", data.body[:5])
    size = np.dtype(kind).itemsize
    if len(data.body) < ids_at + n_columns * size:
        raise BadScan(f"{path}: is cut off before the first line of its data; copy it again")
    ids = np.frombuffer(data.body, kind, n_columns, ids_at).tolist()
    records = data.body[begin:]
    if not n_rows or (not records and not data.whole):
        raise BadScan(f"{path}: holds no line of data: nothing was measured, or the file is cut off")
    if data.whole and len(records) % n_rows:
        raise BadScan(f"{path}: {len(records)} bytes are no {n_rows} lines; export it as .mpt in EC-Lab")
    record_bytes = len(records) // n_rows if data.whole else None
    fields = fields_of(ids, record_bytes=record_bytes, path=path)
    here = len(records) // fields.itemsize
    problems = () if here >= n_rows else (f"{path.name}: is cut off: {here} of {n_rows} lines are there",)
    rows = np.frombuffer(records, fields, min(here, n_rows))
    return _columns(rows, ids), problems


def fields_of(ids: Sequence[int], *, record_bytes: int | None, path: Path) -> np.dtype[Any]:
    """Where each known column lies in a record.

    Columns before the first that is not known are counted from the front, those after the last such from the
    end: so one that is not known costs itself, and what lies between two such.

    Parameters
    ----------
    record_bytes : length of a record; None where the file is cut off.
    """
    parts = _parts(ids)
    odd = [i for i, (number, _) in enumerate(parts) if number not in COLUMNS and number != _FLAGS]
    known = sum(size for _, size in parts)
    if record_bytes is None and odd:
        raise BadScan(f"{path}: is cut off, and column {parts[odd[0]][0]} is not known; copy it again")
    length = known if record_bytes is None else record_bytes
    if (length <= known) if odd else (length != known):
        raise BadScan(
            f"{path}: a line has {length} bytes, its columns {list(ids)} have {known}; export it "
            "as .mpt in EC-Lab"
        )
    places = {}
    front, end = 0, length
    for number, size in parts[: odd[0] if odd else None]:
        places[number] = front
        front += size
    for number, size in reversed(parts[odd[-1] + 1 :] if odd else []):
        end -= size
        places[number] = end
    names = [_field(number) for number in places]
    formats = ["u1" if number == _FLAGS else COLUMNS[number][1] for number in places]
    layout = {"names": names, "formats": formats, "offsets": list(places.values()), "itemsize": length}
    return np.dtype(layout)  # type: ignore[call-overload, no-any-return]


_FLAGS = -1


def _parts(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Fields of a record and their sizes; columns of single bits share one byte, 0 where not known."""
    parts: list[tuple[int, int]] = []
    for number in ids:
        if number not in FLAGS:
            kind = COLUMNS.get(number)
            parts.append((number, np.dtype(kind[1]).itemsize if kind else 0))
        elif (_FLAGS, 1) not in parts:
            parts.append((_FLAGS, 1))
    return parts


def _field(number: int) -> str:
    return f"c{number}"


@np.errstate(invalid="ignore")  # damaged bytes may be a NaN that signals
def _columns(rows: NDArray[Any], ids: Sequence[int]) -> Table:
    table: Table = {}
    for number in ids:
        if number in FLAGS:
            name, mask = FLAGS[number]
            lowest = mask & -mask
            table[name] = ((rows[_field(_FLAGS)] & mask) // lowest).astype(np.float64)
        elif number in COLUMNS and _field(number) in (rows.dtype.names or ()):
            table.setdefault(COLUMNS[number][0], rows[_field(number)].astype(np.float64))
    return table


def _technique(modules: dict[str, Module]) -> str:
    settings = modules.get("VMP Set")
    number = settings.body[0] if settings and settings.body else -1
    return TECHNIQUES.get(number, f"technique {number}")


def _start(modules: dict[str, Module]) -> datetime | None:
    """When the file was started, by its log, to the millisecond that EC-Lab shows."""
    log, data = modules.get("VMP LOG"), modules.get("VMP data")
    for at in _STARTS:
        if log is None or len(log.body) < at + 8:
            continue
        (days,) = struct.unpack_from("<d", log.body, at)
        if _DAYS[0] < days < _DAYS[1]:
            start = _DAY_0 + timedelta(milliseconds=round(days * 86_400_000))
            if data is None or _is_near(start, data.date):
                return start
    return None


def _is_near(start: datetime, date: str) -> bool:
    """Whether a start fits the day that the module itself bears, where that can be read: 05/17/24."""
    digits = "".join(each if each.isdigit() else " " for each in date).split()
    if [len(each) for each in digits] != [2, 2, 2]:
        return True
    month, day, year = (int(each) for each in digits)
    days = []
    for m, d in {(month, day), (day, month)}:
        try:
            days.append(datetime(2000 + year, m, d))  # noqa: DTZ001 - a clock without zone
        except ValueError:
            continue
    return not days or any(abs(start - each) <= timedelta(days=2) for each in days)
