"""Measures and the sums they are made of: a new measure touches one file.

A `gather` reads one block and returns whole numbers for each object that it sees: sums, smallest or largest
values. A `measurement` is a column of the table, made from gathers that were added over all blocks. Since
whole numbers add up the same in any order, tables are identical for every chunking and number of workers.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from xctpipe.measure.regions import Context, Region

Whole = NDArray[np.int64]
Column = NDArray[Any]
Combine = Literal["sum", "min", "max"]

FIXED = 2.0**20
"""Fractions are gathered as whole multiples of 1 / FIXED: fine enough for any volume, exact to add."""

_EXTREME = 2**62
_NEUTRAL: dict[Combine, int] = {"sum": 0, "min": _EXTREME, "max": -_EXTREME}
_UFUNC: dict[Combine, np.ufunc] = {"sum": np.add, "min": np.minimum, "max": np.maximum}


@dataclass(frozen=True)
class Gather:
    """A function of a block: (objects of the block, columns) of whole numbers, combined between blocks."""

    name: str
    function: "Callable[[Region], Whole]"
    columns: tuple[str, ...]
    combine: Combine

    def __call__(self, region: "Region") -> Whole:
        """What one block adds."""
        return self.function(region)


@dataclass(frozen=True)
class Measurement:
    """A column of the table `objects`."""

    name: str
    function: "Callable[[Gathered, Context], Column]"
    kinds: tuple[str, ...]
    gathers: tuple[Gather, ...]
    doc: str


@dataclass(frozen=True, eq=False)
class Part:
    """What one or more blocks gathered: for each gather its objects in ascending order and their numbers."""

    values: Mapping[str, tuple[Whole, Whole]]


class Gathered:
    """Gathered columns over all objects of an inventory, by name; 0 (or the neutral value) where none."""

    def __init__(self, part: Part, ids: Whole) -> None:
        self._columns: dict[str, Whole] = {}
        self._kept: dict[str, tuple[Any, Any]] = {}
        for gather in gathers_of(registered().values()):
            dense = np.full((len(ids), len(gather.columns)), _NEUTRAL[gather.combine], np.int64)
            if gather.name in part.values:
                found, numbers = part.values[gather.name]
                dense[np.searchsorted(ids, found)] = numbers
            for i, name in enumerate(gather.columns):
                self._columns[name] = dense[:, i]

    def __getitem__(self, name: str) -> Whole:
        return self._columns[name]

    def fraction(self, name: str) -> NDArray[np.float64]:
        """A column that was gathered in multiples of 1 / FIXED."""
        return self._columns[name] / FIXED

    def once(self, name: str, make: Callable[["Gathered", "Context"], Any], context: "Context") -> Any:
        """What several measures share, made once for a context."""
        if name not in self._kept or self._kept[name][0] is not context:
            self._kept[name] = context, make(self, context)
        return self._kept[name][1]

    def block(self, names: Sequence[str]) -> Whole:
        """Several columns side by side."""
        return np.stack([self._columns[name] for name in names], axis=1)


_MEASUREMENTS: dict[str, Measurement] = {}


def gather(
    *, columns: Sequence[str], combine: Combine = "sum"
) -> "Callable[[Callable[[Region], Whole]], Gather]":
    """Declare what a function of a block returns and how blocks combine."""

    def declare(function: "Callable[[Region], Whole]") -> Gather:
        return Gather(function.__name__, function, tuple(columns), combine)

    return declare


def measurement(
    *, kinds: Sequence[str], gathers: Sequence[Gather]
) -> "Callable[[Callable[[Gathered, Context], Column]], Callable[[Gathered, Context], Column]]":
    """Register a column of the table `objects` under the function's name, for objects of these kinds."""

    def register(function: "Callable[[Gathered, Context], Column]") -> "Callable[..., Column]":
        name = function.__name__
        _MEASUREMENTS[name] = Measurement(
            name, function, tuple(kinds), tuple(gathers), function.__doc__ or ""
        )
        return function

    return register


def registered() -> dict[str, Measurement]:
    """Every measurement by name; importing the modules of `xctpipe.measure` registers them."""
    package = importlib.import_module("xctpipe.measure")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(_MEASUREMENTS)


def gathers_of(measurements: Iterable[Measurement]) -> list[Gather]:
    """Gathers that these need, each once, in order of their names."""
    found = {one.name: one for each in measurements for one in each.gathers}
    return [found[name] for name in sorted(found)]


def gather_block(region: "Region") -> Part:
    """All gathers of one block; empty where it holds no object."""
    if not len(region.ids):
        return Part({})
    return Part({g.name: (region.ids, g(region)) for g in gathers_of(registered().values())})


def merge(parts: Iterable[Part]) -> Part:
    """Parts of disjoint blocks as one; in any order, in any grouping."""
    lists: dict[str, list[tuple[Whole, Whole]]] = {}
    for part in parts:
        for name, value in part.values.items():
            lists.setdefault(name, []).append(value)
    rules = {g.name: g.combine for g in gathers_of(registered().values())}
    return Part({name: _combined(values, rules[name]) for name, values in lists.items()})


def _combined(values: list[tuple[Whole, Whole]], combine: Combine) -> tuple[Whole, Whole]:
    ids = np.unique(np.concatenate([found for found, _ in values]))
    out = np.full((len(ids), values[0][1].shape[1]), _NEUTRAL[combine], np.int64)
    for found, numbers in values:
        rows = np.searchsorted(ids, found)
        out[rows] = _UFUNC[combine](out[rows], numbers)
    return ids, out


def table_of(part: Part, context: "Context") -> dict[str, Column]:
    """The table `objects`: object, kind and every measurement; NaN, "" or False where it has no meaning.

    Parameters
    ----------
    part : of all blocks, merged.
    """
    known = context.objects
    got = Gathered(part, known.ids)
    table: dict[str, Column] = {"object": known.ids, "kind": known.kinds}
    for name, one in registered().items():
        values = np.asarray(one.function(got, context))
        blank: Any = {"f": np.nan, "U": "", "b": False, "i": 0}[values.dtype.kind]
        table[name] = np.where(np.isin(known.kinds, one.kinds), values, blank)
    return table
