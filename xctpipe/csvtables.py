"""Tables on disk: CSV files with numbers, truths and empty cells as what they are."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xctpipe.errors import BadScan

Row = dict[str, Any]

# names may look like numbers
_TEXTS = frozenset(
    {"scan", "scan_from", "scan_to", "scan_onset", "kind", "phase", "objects", "tracks", "step"}
)


def read_table(path: Path, *, needed: Sequence[str] = ()) -> list[Row]:
    """Rows of a CSV table: numbers, True and False as such, None for an empty cell or what is not finite.

    Parameters
    ----------
    needed : columns without which the table is of no use.

    Raises
    ------
    BadScan
        If the file cannot be read, a row is longer than its head, or a column that is needed is not there.
    """
    rows = read_cells(path)
    if any(None in row or None in row.values() for row in rows):
        raise BadScan(f"{path}: a row has more or fewer cells than the head of the table; make it again")
    if rows and not set(needed) <= rows[0].keys():
        raise BadScan(f"{path}: lacks columns ({', '.join(needed)} are needed); make it again")
    return [{key: text if key in _TEXTS else _value(text) for key, text in row.items()} for row in rows]


def read_cells(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV table as text; cells that a row lacks are None, those too many under None.

    Raises
    ------
    BadScan
        If the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise BadScan(f"{path}: cannot be read as a table ({err}); make it again") from err


def _value(text: str) -> Any:
    if not text:
        return None
    if text in {"True", "False"}:
        return text == "True"
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else None
    return text
