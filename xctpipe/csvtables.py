"""Tables on disk: CSV files with numbers, truths and empty cells as what they are."""

import csv
import math
from pathlib import Path
from typing import Any

from xctpipe.errors import BadScan

Row = dict[str, Any]

# names may look like numbers
_TEXTS = frozenset({"scan", "scan_from", "scan_to", "kind", "phase", "objects", "tracks"})


def read_table(path: Path) -> list[Row]:
    """Rows of a CSV table: numbers, True and False as such, None for an empty cell or what is not finite.

    Raises
    ------
    BadScan
        If the file cannot be read, or a row is longer than its head.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise BadScan(f"{path}: cannot be read as a table ({err}); make it again") from err
    if any(None in row or None in row.values() for row in rows):
        raise BadScan(f"{path}: a row has more or fewer cells than the head of the table; make it again")
    return [{key: text if key in _TEXTS else _value(text) for key, text in row.items()} for row in rows]


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
