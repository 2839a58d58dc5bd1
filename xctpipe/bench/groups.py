"""Finding the groups of cases."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Protocol, cast

from xctpipe.bench.case import Case, Figure
from xctpipe.bench.setting import Setting


class Group(Protocol):
    """What a module must define to be a group; `ORDER` is its place among the others."""

    TITLE: str
    ORDER: int

    def cases(self, setting: Setting) -> Iterator[Case]:
        """What is timed."""


class WithFigures(Group, Protocol):
    """A group that finds numbers of other kinds too."""

    def figures(self, setting: Setting) -> Iterator[tuple[str, "Finder"]]:
        """Names of figures, each with what finds it."""


class Finder(Protocol):
    """What finds figures when it is called."""

    def __call__(self) -> Iterator[Figure]:
        """Find them."""


def groups() -> list[Group]:
    """Every group in order."""
    package = importlib.import_module("xctpipe.bench")
    modules = [
        importlib.import_module(f"{package.__name__}.{info.name}")
        for info in pkgutil.iter_modules(package.__path__)
    ]
    found = [cast(Group, module) for module in modules if hasattr(module, "ORDER")]
    return sorted(found, key=lambda group: group.ORDER)


def figures_of(group: Group, setting: Setting) -> list[tuple[str, Finder]]:
    """The figures of a group, by name; none where it has none."""
    return list(cast(WithFigures, group).figures(setting)) if hasattr(group, "figures") else []
