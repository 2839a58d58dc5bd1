"""Tables of a run to which every scan adds its rows."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe.csvtables import read_cells
from xctpipe.errors import BadScan
from xctpipe.runfolder import write_text

DIGITS = 7
"""Significant digits of numbers: more than any of them is known to."""


def update_table(
    path: Path,
    scan: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: Sequence[str],
    scans: Sequence[str],
) -> None:
    """Replace the rows of one scan in a CSV table of a run; the file is made where there is none.

    Parameters
    ----------
    rows : of the scan, in order; a key beside `columns` is an error, one that lacks or is NaN is left empty.
    columns : of the table after `scan`, which comes first.
    scans : all scans of the run, in the order of the table; rows of others are dropped.
    """
    head = ("scan", *columns)
    new = [{"scan": scan, **{key: _text(value) for key, value in row.items()}} for row in rows]
    by_scan: dict[str, list[Mapping[str, str]]] = {name: [] for name in [*scans, scan]}
    for old in _read(path):
        by_scan.get(old["scan"], []).append(old)
    by_scan[scan] = list(new)
    text = io.StringIO()
    table = csv.DictWriter(text, head, restval="", lineterminator="\n")
    table.writeheader()
    for row in (row for rows_of_one in by_scan.values() for row in rows_of_one):
        table.writerow(row if row["scan"] == scan else {key: row.get(key, "") for key in head})
    write_text(path, text.getvalue())


def _read(path: Path) -> list[dict[str, str]]:
    """Rows as text; none where the file is absent or no table of ours."""
    try:
        return [row for row in read_cells(path) if row.get("scan")]
    except BadScan:
        return []


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, float | np.floating):
        return f"{value + 0.0:.{DIGITS}g}" if math.isfinite(value) else ""
    return str(value)
