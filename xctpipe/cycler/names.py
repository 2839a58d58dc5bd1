"""Columns of cyclers' files: what their names mean, and in which unit they are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from xctpipe.errors import BadScan, nearest

QUANTITIES: Mapping[str, Mapping[str, float]] = {
    "time": {"s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0},
    "voltage": {"V": 1.0, "mV": 1e-3},
    "current": {"mA": 1.0, "A": 1e3, "uA": 1e-3, "nA": 1e-6},
    "charge": {"mAh": 1.0, "Ah": 1e3, "uAh": 1e-3, "C": 1 / 3.6, "mC": 1 / 3600},
}
"""Units by quantity, and how many s, V, mA or mAh each is; current and charge also per cm2."""

_WORDS: Mapping[str, Sequence[str]] = {
    "time": (
        "datetime", "date time", "timestamp", "absolute time", "date", "time", "t", "elapsed time",
        "test time", "total time",
    ),
    "voltage": ("ecell", "ewe", "cell voltage", "voltage", "potential", "u", "e", "v"),
    "current": ("i", "current"),
    "charge": ("q qo", "charge"),
}  # fmt: skip
"""Names without unit, the best first."""

_SUFFIX = re.compile(
    r"^(.+?)[ _]((?:ms|s|min|h|mv|v|ma|ua|na|a|mah|uah|ah|mc|c)(?:[_/]?cm2)?)$", re.IGNORECASE
)
_BRACKETS = re.compile(r"^(.*?)\s*[\[(]([^\[\]()]+)[\])]$")


@dataclass(frozen=True)
class Choice:
    """A column, and the factor that makes it s, V, mA or mAh."""

    name: str
    factor: float = 1.0
    averaged: bool = False
    """An average since the line before, not the value at the time of the line."""


def split_unit(name: str) -> tuple[str, str]:
    """A column's name without its unit, and the unit: `I/mA`, `Current (A)`, `voltage_mv`."""
    for_area = re.sub(r"/(?=cm)", "_", name)
    if "/" in for_area:
        base, _, unit = for_area.rpartition("/")
        return base, unit
    found = _BRACKETS.match(for_area) or _SUFFIX.match(for_area)
    return (found[1], found[2]) if found else (name, "")


def factor_of(unit: str, what: str, *, area_cm2: float) -> float | None:
    """How many s, V, mA or mAh a unit is; None for one that is not known."""
    plain = unit.strip().replace("µ", "u").replace("μ", "u").replace("²", "2").replace("A.h", "Ah")
    plain, per_area = re.subn(r"[ _/]*cm-?\^?2$", "", plain)
    if per_area and what not in {"current", "charge"}:
        return None
    known = {name.lower(): value for name, value in QUANTITIES[what].items()}
    aliases = {"sec": "s", "seconds": "s", "hours": "h", "hr": "h", "as": "c", "mas": "mc"}
    value = known.get(aliases.get(plain.lower(), plain.lower()))
    return None if value is None else value * (area_cm2 if per_area else 1.0)


def choose(
    names: Sequence[str],
    *,
    path: Path,
    columns: Mapping[str, str],
    units: Mapping[str, str],
    area_cm2: float,
) -> dict[str, Choice]:
    """The columns of a file for time, voltage, current and charge, as far as there are such.

    Raises
    ------
    BadScan
        If the recipe names a column that the file has not, or a unit is not known.
    """
    chosen = {}
    for what in QUANTITIES:
        name = columns.get(what) or _usual(names, what)
        if name is None:
            continue
        if name not in names:
            raise BadScan(f"{path}: no column {name!r} for cycler.columns.{what}; {nearest(name, names)}")
        choice = _with_unit(name, what, unit=units.get(what), area_cm2=area_cm2)
        if choice is None and what in columns:
            raise BadScan(
                f"{path}: the unit of the column {name!r} is not known; give cycler.units.{what}, one of "
                f"{', '.join(QUANTITIES[what])}"
            )
        if choice is not None:
            chosen[what] = choice
    return chosen


def _with_unit(name: str, what: str, *, unit: str | None, area_cm2: float) -> Choice | None:
    base, own = split_unit(name)
    # a clock's time has no unit, and is found out by its looks
    factor = factor_of(unit or own or ("s" if what == "time" else ""), what, area_cm2=area_cm2)
    if factor is None and what == "time":
        factor = 1.0
    return None if factor is None else Choice(name, factor, averaged=base.strip().startswith("<"))


def _usual(names: Sequence[str], what: str) -> str | None:
    """The column that is usual for a quantity: of several the best word, of these the instantaneous one."""
    ranked = []
    for place, name in enumerate(names):
        base = split_unit(name)[0]
        # bars stay: `|I|` is an amplitude
        word = " ".join(re.sub(r"[^a-z0-9|]+", " ", base.lower()).split())
        if word in _WORDS[what] and (what == "time" or _with_unit(name, what, unit=None, area_cm2=1.0)):
            ranked.append((_WORDS[what].index(word), base.strip().startswith("<"), place, name))
    return min(ranked)[3] if ranked else None
