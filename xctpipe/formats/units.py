"""Units of raw files, converted once: lengths to um, energies to keV, times to aware datetimes."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

EPICS_EPOCH_S = 631152000
"""Seconds from 1970-01-01 to 1990-01-01 UTC, where the clock of EPICS starts."""

_LENGTH_UM = {
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1e6),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre"), 1e3),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre"), 1e-3),
}
_ENERGY_KEV = {"ev": 1e-3, "kev": 1.0, "mev": 1e3, "gev": 1e6, "j": 1 / 1.602176634e-16}
_TIME_S = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs", "μs", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
}


def length_um(value: float, unit: str, *, what: str) -> tuple[float | None, tuple[str, ...]]:
    """Length in um, and what there is to say about its unit.

    Without a unit, below 1e-3 is taken as metres and anything larger as um: no detector has pixels of a
    millimetre. Values that are not positive and units that are not known give None.
    """
    guess = "m" if value < 1e-3 else "um"
    return _convert(value, unit, known=_LENGTH_UM, guess=guess, what=what)


def energy_kev(value: float, unit: str, *, what: str) -> tuple[float | None, tuple[str, ...]]:
    """Photon energy in keV, and what there is to say about its unit.

    Without a unit, below 1e-9 is taken as J, above 1000 as eV, and anything else as keV.
    """
    guess = "j" if value < 1e-9 else "ev" if value > 1000 else "kev"
    return _convert(value, unit, known=_ENERGY_KEV, guess=guess, what=what)


def duration_s(value: float, unit: str, *, what: str) -> tuple[float | None, tuple[str, ...]]:
    """Duration in s; without a unit it is in s, as all layouts have it."""
    return _convert(value, unit or "s", known=_TIME_S, guess="s", what=what)


def _convert(
    value: float, unit: str, *, known: Mapping[str, float], guess: str, what: str
) -> tuple[float | None, tuple[str, ...]]:
    if not 0 < value < float("inf"):
        return None, (f"{what} is {value:g}: not used, it must be positive",)
    if not unit:
        return value * known[guess], (f"{what} is {value:g} without a unit: taken as {guess}",)
    factor = known.get(unit.strip().lower())
    if factor is None:
        return None, (f"{what} has the unit {unit!r}: not used; known: {', '.join(known)}",)
    return value * factor, ()


def parse_time(text: str, *, what: str) -> tuple[datetime | None, tuple[str, ...]]:
    """Timezone-aware time from ISO 8601 text; without an offset it is in this computer's time zone."""
    # fractions of a second beyond microseconds are valid ISO 8601 but refused by datetime
    cleaned = re.sub(r"([.,]\d{6})\d+", r"\1", text.strip())
    try:
        time = datetime.fromisoformat(cleaned)
    except ValueError:
        return None, (f"{what} is {text!r}: not used, it is not ISO 8601 (2025-03-01T10:00:00-05:00)",)
    if time.tzinfo is not None:
        return time, ()
    try:
        local = time.astimezone()
    except (ValueError, OverflowError, OSError):  # year 1, as some programs write for "not set"
        return None, (f"{what} is {text!r}: not used, it lies outside the calendar",)
    zone = local.strftime("%z")
    return local, (f"{what} is {text!r} without a time zone: taken in this computer's, UTC{zone}",)


def epics_time_s(stamp_s: float, *, now_s: float | None = None) -> float | None:
    """Seconds since 1970 of a frame's time stamp, or None where it is not a time of day.

    Area detectors count from 1990, some cameras from 1970 and some from when they were switched on. A
    stamp that would lie in the future when counted from 1990 is counted from 1970; one below three years
    is not a date.
    """
    now_s = datetime.now(tz=UTC).timestamp() if now_s is None else now_s
    if not 1e8 <= stamp_s < float("inf"):
        return None
    since_1990 = stamp_s + EPICS_EPOCH_S
    if since_1990 <= now_s + 86400:
        return since_1990
    return stamp_s if stamp_s <= now_s + 86400 else None


def file_time(path: Path) -> tuple[datetime, tuple[str, ...]]:
    """When a file was last written, with a warning that this is all that is known."""
    time = datetime.fromtimestamp(path.stat().st_mtime, tz=UTC)
    note = (
        f"{path.name}: no start time inside, the time the file was last written is used "
        f"({time.isoformat(timespec='seconds')}), wrong if it was copied; set raw.start_times"
    )
    return time, (note,)


def nearest_around(times: Sequence[datetime | None], when: datetime | None) -> list[int]:
    """Indices of the last time not after `when` and of the first after it, as far as both exist.

    Without any times it is the first entry; entries without a time are used only where no other has one.
    """
    known = [(time, i) for i, time in enumerate(times) if time is not None]
    if not known or when is None:
        return [0] if times else []
    before = [entry for entry in known if entry[0] <= when]
    after = [entry for entry in known if entry[0] > when]
    chosen = [max(before, key=lambda e: (e[0], -e[1]))] if before else []
    if after:
        chosen.append(min(after))
    return [i for _, i in chosen]
