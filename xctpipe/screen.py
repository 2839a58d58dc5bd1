"""What several commands print: tables, and agreements of labels."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from xctpipe.compare_labels import LabelResult


def print_table(
    columns: Iterable[str], rows: Iterable[Iterable[str]], *, plain_width: int, title: str | None = None
) -> None:
    """Print a table; brackets in names and messages are brackets, not styles."""
    table = Table(*columns, title=title, title_justify="left", box=None)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else plain_width, markup=False, highlight=False).print(table)


def print_labels(a: Path, b: Path, result: "LabelResult", *, as_json: bool) -> None:
    """Print how labels and tables agree, and save them as tables beside the first run."""
    from xctpipe import label_report, side_by_side

    if as_json:
        print(json.dumps(result.as_json(), indent=1))
    else:
        for found in result.done:
            print_table(
                label_report.CLASS_HEAD, label_report.class_table(found), plain_width=100, title=found.scan
            )
            print("\n".join([*label_report.lines(found), ""]))
        kinds = label_report.kind_table(result.kinds)
        print_table(label_report.KIND_HEAD, kinds, plain_width=100, title="objects of all scans")
        for path in label_report.save(result, side_by_side.default_folder(a, b)):
            print(f"table: {path}")
        print("\n".join(result.notes), end="\n" if result.notes else "")
    if result.failed:
        print("\n".join(f"error: {text}" for text in result.failed), file=sys.stderr)
