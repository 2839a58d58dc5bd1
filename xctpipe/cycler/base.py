"""What a cycler's file holds once it is read, and what its reader must be told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Protocol

import numpy as np

from xctpipe.cycler.names import QUANTITIES, Choice
from xctpipe.cycler.text import moment
from xctpipe.errors import BadScan
from xctpipe.scan import DoubleArray

Table = dict[str, DoubleArray]
"""Columns of a file by the names that it gives them."""

HOUR_S = 3600.0


@dataclass(frozen=True)
class ReadOptions:
    """What the recipe says of files that do not say it themselves."""

    zone: tzinfo = UTC
    """Of clocks that name none."""
    start: datetime | None = None
    """Of a file that counts time from its start and does not say when that was."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Names of the columns for time, voltage, current and charge; absent: the usual ones."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Units of these, where their names do not tell."""
    area_cm2: float = 1.0
    """Of the electrode, for columns per area."""


@dataclass(frozen=True, eq=False)
class CyclerFile:
    """Time, voltage and current as a cycler recorded them; arrays hold one entry per line of the file."""

    path: Path
    technique: str
    start: datetime
    """When the clock of `elapsed_s` showed 0, with its zone."""
    says_zone: bool
    """Whether the file names the zone, so that none was assumed."""
    elapsed_s: DoubleArray
    """Ascending."""
    voltage_v: DoubleArray
    """NaN where the file has none."""
    current_ma: DoubleArray
    """Signed as in the file."""
    signed_mah: DoubleArray
    """Charge since the line before, signed as in the file; the first is 0."""
    passed_mah: DoubleArray
    """The same of the current's absolute value."""
    averaged: bool = False
    """Whether the current of a line is the average since the line before."""
    problems: tuple[str, ...] = ()
    """What is worth knowing."""


class Kind(Protocol):
    """A kind of file: a module of this package."""

    NAME: str

    def understands(self, head: bytes) -> bool:
        """Whether a file that begins like this is of this kind."""

    def read(self, path: Path, *, options: ReadOptions) -> CyclerFile:
        """Read a file; BadScan says what is wrong with it."""


@dataclass(frozen=True)
class Clock:
    """When a file began."""

    start: datetime
    says_zone: bool


def clock_of(start: datetime | None, *, path: Path, options: ReadOptions) -> Clock:
    """The start of a file, from itself or from the recipe, with its zone; BadScan where neither knows it."""
    known = start or options.start
    if known is None:
        raise BadScan(
            f"{path}: does not say when it was started, so it cannot be joined to the scans; give "
            "cycler.start, e.g. start = 2025-03-01T10:00:00"
        )
    says_zone = known.tzinfo is not None
    return Clock(known if says_zone else known.replace(tzinfo=options.zone), says_zone)


def dated(cells: Sequence[str], *, path: Path, options: ReadOptions) -> tuple[Clock, DoubleArray]:
    """Start of a file and seconds since then, of dates with time; NaN for what is none.

    Parameters
    ----------
    cells : the first of them is a date with time.
    """
    times = [moment(cell) for cell in cells]
    try:
        # differences of dates in one zone would be those of clocks on the wall
        utc = [t and t.replace(tzinfo=t.tzinfo or options.zone).astimezone(UTC) for t in times]
        first = next(t for t in times if t)
        clock = clock_of(first, path=path, options=options)
        start = clock.start.astimezone(UTC)
    except OverflowError as err:
        raise BadScan(f"{path}: a time is before the year 1 or after 9999; export it again") from err
    return clock, np.array([(t - start).total_seconds() if t else np.nan for t in utc])


def assemble(
    table: Table,
    chosen: Mapping[str, Choice],
    *,
    path: Path,
    technique: str,
    clock: Clock,
    problems: tuple[str, ...] = (),
) -> CyclerFile:
    """Put the columns that were chosen together, in s, V and mA; lines that cannot be used are left out.

    An instantaneous current is integrated by the trapezoidal rule. With an average since the line before,
    `<I>`, or none, the charge is what the cycler counted; where it did not, the average times the time since.
    """
    columns = {what: table[choice.name] * choice.factor for what, choice in chosen.items()}
    elapsed = columns["time"]
    main = columns["current" if "current" in columns else "charge" if "charge" in columns else "time"]
    usable = np.isfinite(elapsed) & np.isfinite(main)
    best = np.maximum.accumulate(np.where(usable, elapsed, -np.inf))
    usable &= elapsed >= best
    lost = int((~usable).sum())
    if not usable.any():
        raise BadScan(f"{path}: holds no line with time and current; was the measurement started?")
    if lost:
        problems += (f"{path.name}: {lost} lines without a number, or with time running back, are left out",)
    columns = {what: values[usable] for what, values in columns.items()}
    current, signed, passed = _charges(columns, averaged=chosen.get("current", _NONE).averaged)
    voltage = columns.get("voltage", np.full(current.shape, np.nan))
    return CyclerFile(
        path,
        technique,
        clock.start,
        clock.says_zone,
        columns["time"],
        voltage,
        current,
        signed,
        passed,
        "current" not in columns or chosen["current"].averaged,
        (*problems, *_disagreement(path, columns, signed)),
    )


_NONE = Choice("")


def _charges(columns: Mapping[str, DoubleArray], *, averaged: bool) -> tuple[DoubleArray, ...]:
    """Current, and signed and absolute charge since the line before."""
    dt_h = np.diff(columns["time"], prepend=columns["time"][0]) / HOUR_S
    counted = columns.get("charge", np.full(dt_h.shape, np.nan))
    counted = np.diff(counted, prepend=counted[0])
    if "current" in columns:
        current = columns["current"]
        before = current if averaged else np.concatenate([current[:1], current[:-1]])
        signed, passed = (current + before) / 2 * dt_h, (np.abs(current) + np.abs(before)) / 2 * dt_h
        # a charge that is set back to 0 on the way is none to count with
        if averaged and abs(np.abs(counted).sum() - passed.sum()) <= _AGREES_FRAC * passed.sum():
            return current, counted, np.abs(counted)
        return current, signed, passed
    if not np.isfinite(counted).all():
        rest = np.zeros_like(dt_h)
        return rest, rest, rest
    current = np.divide(counted, dt_h, out=np.zeros_like(counted), where=dt_h > 0)
    return current, counted, np.abs(counted)


_AGREES_FRAC = 0.01


def _disagreement(path: Path, columns: Mapping[str, DoubleArray], signed: DoubleArray) -> list[str]:
    """Lines too far apart show as a difference between current over time and the cycler's own charge."""
    if "current" not in columns or not np.isfinite(columns.get("charge", np.array([np.nan]))).all():
        return []
    counted = columns["charge"] - columns["charge"][0]
    summed = np.cumsum(signed)
    apart, most = float(np.abs(summed - counted).max()), float(np.abs(counted).max())
    if apart <= _AGREES_FRAC * most or most == 0:
        return []
    return [
        f"{path.name}: current over time and the charge that the cycler counted differ by {apart:.3g} of "
        f"{most:.3g} mAh; its lines may be too far apart, or a unit is wrong"
    ]


def check_columns(chosen: Mapping[str, Choice], names: Sequence[str], *, path: Path, rests: bool) -> None:
    """BadScan where an EC-Lab file lacks time, voltage or current.

    Parameters
    ----------
    rests : nothing flows in its technique, and no current is stored; others may store the charge alone.
    """
    for what in ("time", "voltage", "current"):
        if what not in chosen and (what != "current" or not ("charge" in chosen or rests)):
            raise missing_column(what, list(names), path=path)


def missing_column(what: str, names: list[str], *, path: Path) -> BadScan:
    """The error for a file without a column that is needed."""
    return BadScan(
        f"{path}: no column for the {what} is found; name it as cycler.columns.{what}, with its unit in "
        f"cycler.units.{what} ({', '.join(QUANTITIES[what])}); columns: {', '.join(names)}"
    )
