"""A report as tables of text."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from xctpipe.bench.case import CaseResult, Figure, PeerResult, Report

COLUMNS = ("case", "s", "per", "Mvoxel\n/s/core", "error", "ratio\n[least, most]", "pairs")
WIDTH = 100
"""Columns of a terminal that are enough for every table."""
NAME_WIDTH = 34
"""Longer names take more lines."""
NOTE_WIDTH = 40
BESIDE = "  beside "

Row = tuple[str, ...]


@dataclass(frozen=True)
class TextTable:
    """Title, names of columns, rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]


def tables(report: Report) -> Iterator[TextTable]:
    """One table of cases and one of figures for each group, in order."""
    titles = dict.fromkeys([case.group for case in report.cases] + [group for group, _ in report.figures])
    for title in titles:
        rows = [row for case in report.cases if case.group == title for row in _case_rows(case)]
        if rows:
            yield TextTable(title, COLUMNS, rows)
        figures = [figure for group, figure in report.figures if group == title]
        if figures:
            yield TextTable(
                f"{title}, figures", ("figure", "value", "unit", ""), [*map(_figure_row, figures)]
            )


def _wrapped(text: str, width: int, *, indent: str = "") -> str:
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=" " * len(indent))


def remarks(report: Report) -> list[str]:
    """What must be known to read the tables."""
    lines = [
        "beside: what uses one core is counted as if it ran on all of them; ratio: theirs to ours, median of "
        "pairs",
        "error: rms, relative to the largest disc or to the log transmission; of the axis in pixels",
    ]
    lines += [f"{case.name}: {case.unavailable}" for case in report.cases if case.unavailable]
    for case in report.cases:
        lines += [f"{case.name}: {p.name} failed: {p.failed}" for p in case.peers if p.failed]
        lines += [f"{case.name}: {p.name} is {p.quoted}" for p in case.peers if p.quoted]
    return [_wrapped(line, WIDTH) for line in lines]


def _case_rows(case: CaseResult) -> Iterator[Row]:
    """A row for ours, and one for each that stands beside it."""
    if case.unavailable:
        yield (_wrapped(case.name, NAME_WIDTH), "cannot be used here", *[""] * (len(COLUMNS) - 2))
        return
    name = f"{case.name} ({case.rows} rows)" if case.unit == "slice" else case.name
    rate = "" if case.rate is None else _short(case.rate)
    seconds = _short(median(case.ours_s))
    yield _wrapped(name, NAME_WIDTH), seconds, case.unit, rate, _number(case.error), "", ""
    for peer in case.peers:
        yield _peer_row(peer)


def _peer_row(peer: PeerResult) -> Row:
    name = _wrapped(peer.name, NAME_WIDTH, indent=BESIDE)
    if not peer.theirs_s:
        return name, "failed", *[""] * (len(COLUMNS) - 2)
    ratios = peer.ratios
    spread = _short(median(ratios))
    if len(ratios) > 1:
        spread += f" [{_short(min(ratios))}, {_short(max(ratios))}]"
    pairs = "quoted" if peer.quoted else str(len(ratios))
    return name, _short(median(peer.theirs_s)), "", "", _number(peer.error), spread, pairs


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _figure_row(figure: Figure) -> Row:
    name, note = _wrapped(figure.name, NAME_WIDTH), _wrapped(figure.note, NOTE_WIDTH)
    return name, f"{figure.value:.4g}", figure.unit, note


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
