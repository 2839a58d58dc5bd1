"""What this machine does with each stage, beside algotom and what else is installed, in one run.

A group of cases is a module of this package that defines `TITLE` and `cases`, and perhaps `figures`; groups
are found by scanning this folder, backends and corrections by their registries.
"""

from xctpipe.bench.case import Case, CaseResult, Figure, Part, Peer, Report
from xctpipe.bench.groups import groups
from xctpipe.bench.missing import missing
from xctpipe.bench.run import check_target, run_bench, write
from xctpipe.bench.scene import Size, parse_size
from xctpipe.bench.setting import Options, make_options
from xctpipe.bench.tables import TextTable, remarks, tables

__all__ = [
    "Case",
    "CaseResult",
    "Figure",
    "Options",
    "Part",
    "Peer",
    "Report",
    "Size",
    "TextTable",
    "check_target",
    "groups",
    "make_options",
    "missing",
    "parse_size",
    "remarks",
    "run_bench",
    "tables",
    "write",
]
