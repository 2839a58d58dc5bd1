"""A whole run of the benchmark."""

import fnmatch
import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from xctpipe import __version__
from xctpipe.bench.case import Case, Report
from xctpipe.bench.groups import Finder, Group, figures_of, groups
from xctpipe.bench.peers import version_of
from xctpipe.bench.runner import run_case
from xctpipe.bench.setting import Options, Setting
from xctpipe.errors import BadRecipe
from xctpipe.machine import set_threads, usable_cpus
from xctpipe.runfolder import write_json
from xctpipe.storage import storing

log = logging.getLogger(__name__)

PACKAGES = ("numpy", "scipy", "numba", "algotom", "tomopy", "astra-toolbox", "zarr", "h5py")

_GB = 1e9


def run_bench(options: Options) -> Report:
    """Time what was asked for.

    Raises
    ------
    BadRecipe
        When nothing is called as `options.only` wants, or there is no such folder as `options.scratch`.
    """
    if options.scratch is not None and not options.scratch.is_dir():
        raise BadRecipe(f"--scratch {options.scratch}: is no folder; give one with room for large files")
    set_threads()
    report = Report(about(options))
    with (
        storing(options.scratch or Path(tempfile.gettempdir())),
        tempfile.TemporaryDirectory(prefix="xctpipe-bench-", dir=options.scratch) as folder,
    ):
        setting = Setting(options, Path(folder))
        todo = [*_chosen(setting)]
        if not todo:
            raise BadRecipe(f"--only {options.only}: no case or figure is called so; {_known(setting)}")
        _run_all(todo, setting, report=report)
    return report


def _run_all(todo: list[tuple[Group, str, Case | Finder]], setting: Setting, *, report: Report) -> None:
    for i, (group, name, each) in enumerate(todo):
        # no bar: the thread that draws it takes its time from what is timed
        log.info("bench %d/%d: %s, %s", i + 1, len(todo), group.TITLE, name)
        with _without_bars():
            if isinstance(each, Case):
                report.cases.append(run_case(each, setting, group=group.TITLE))
            else:
                report.figures += [(group.TITLE, figure) for figure in each()]


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep what whole runs tell of themselves off the screen: it would stand between the lines of cases."""
    with redirect_stderr(io.StringIO()):
        yield


def _all(setting: Setting) -> Iterator[tuple[Group, str, Case | Finder]]:
    for group in groups():
        for case in group.cases(setting):
            yield group, case.name, case
        for name, finder in figures_of(group, setting):
            yield group, name, finder


def _chosen(setting: Setting) -> Iterator[tuple[Group, str, Case | Finder]]:
    """Cases and figures whose name, or group, fits the pattern."""
    for group, name, each in _all(setting):
        if fits(setting.options.only, group=group.TITLE, name=name):
            yield group, name, each


def fits(only: str | None, *, group: str, name: str) -> bool:
    """Whether a case is asked for: its name or its group fits the pattern, or begins with it."""
    return only is None or any(fnmatch.fnmatch(word, f"{only}*") for word in (name, group))


def _known(setting: Setting) -> str:
    # a line for each: there are commas in names
    names = [f"  {group.TITLE}: {name}" for group, name, _ in _all(setting)]
    return "\n".join(
        [f"groups: {', '.join(group.TITLE for group in groups())}; cases and figures by group:", *names]
    )


def check_target(path: Path) -> None:
    """BadRecipe where a report cannot be written: said before minutes of timing, not after."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise BadRecipe(f"--json {path}: is no file in a folder that exists; choose another")


def write(report: Report, path: Path) -> None:
    """Write all that was found as JSON, whole."""
    write_json(path, report.as_json())


def about(options: Options) -> dict[str, Any]:
    """Where and with what it ran."""
    return {
        "xctpipe": __version__,
        "when": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "size": str(options.size),
        "quick": options.quick,
        "machine": {
            "processor": _processor(),
            "cores": usable_cpus(),
            "memory_gb": psutil.virtual_memory().total / _GB,
        },
        "versions": {name: version_of(name) for name in PACKAGES},
    }


def _processor() -> str:
    """The processor's name, as far as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
