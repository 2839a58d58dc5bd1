"""What a complete result must have and does not."""

from math import isfinite

from xctpipe import recon
from xctpipe.bench.case import CaseResult, Report
from xctpipe.bench.reconstruction import TITLE as BACKENDS
from xctpipe.bench.run import fits
from xctpipe.bench.setting import Options


def missing(report: Report, options: Options) -> list[str]:
    """Usable backends without a ratio or an error, in words; of those that were asked for."""
    found = {case.name: case for case in report.cases if case.group == BACKENDS}
    lines = []
    for name, backend in recon.backends().items():
        if backend.available() is None and fits(options.only, group=BACKENDS, name=name):
            lines += [f"backend {name}: {what}" for what in _lacks(found.get(name), options)]
    return lines


def _lacks(case: CaseResult | None, options: Options) -> list[str]:
    if case is None:
        return ["was not timed"]
    lacks = [] if _is_number(case.error) else ["has no error"]
    if options.peers and not any(peer.ratios and peer.quoted is None for peer in case.peers):
        lacks.append("has no ratio to another program")
    lacks += [f"{peer.name} failed: {peer.failed}" for peer in case.peers if peer.failed]
    if options.peers and not any(_is_number(peer.error) for peer in case.peers):
        lacks.append("has no error of another program beside its own")
    return lacks


def _is_number(value: float | None) -> bool:
    return value is not None and isfinite(value)
