"""A report as tables of text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from xctpipe.bench.case import CaseResult, Figure, PeerResult, Report

COLUMNS = (
    "case",
    "ours s",
    "per",
    "Mvoxel/s/core",
    "beside",
    "theirs s",
    "ratio [least, most]",
    "pairs",
    "error",
    "theirs",
)

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


def remarks(report: Report) -> list[str]:
    """What must be known to read the tables."""
    lines = [
        "theirs: what uses one core is counted as if it ran on all of them; ratio: median of pairs",
        "error: rms, relative to the largest disc or to the log transmission; of the axis in pixels",
    ]
    lines += [f"{case.name}: {case.unavailable}" for case in report.cases if case.unavailable]
    for case in report.cases:
        lines += [f"{case.name}: {p.name} failed: {p.failed}" for p in case.peers if p.failed]
        lines += [f"{case.name}: {p.name} is {p.quoted}" for p in case.peers if p.quoted]
    return lines


def _case_rows(case: CaseResult) -> Iterator[Row]:
    if case.unavailable:
        yield (case.name, "cannot be used here", *[""] * (len(COLUMNS) - 2))
        return
    name = f"{case.name} ({case.rows} rows)" if case.unit == "slice" else case.name
    rate = "" if case.rate is None else f"{case.rate:.3g}"
    first = (name, f"{median(case.ours_s):.4g}", case.unit, rate)
    beside = [_peer_cells(peer) for peer in case.peers] or [("",) * 4]
    errors = [_number(peer.error) for peer in case.peers] or [""]
    for i, (cells, error) in enumerate(zip(beside, errors, strict=True)):
        yield (*(first if i == 0 else ("",) * 4), *cells, _number(case.error) if i == 0 else "", error)


def _peer_cells(peer: PeerResult) -> Row:
    if not peer.theirs_s:
        return peer.name, "failed", "", ""
    ratios = peer.ratios
    spread = f"{median(ratios):.3g}"
    if len(ratios) > 1:
        spread += f" [{min(ratios):.3g}, {max(ratios):.3g}]"
    pairs = "quoted" if peer.quoted else str(len(ratios))
    return peer.name, f"{median(peer.theirs_s):.4g}", spread, pairs


def _figure_row(figure: Figure) -> Row:
    return figure.name, f"{figure.value:.4g}", figure.unit, figure.note


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
