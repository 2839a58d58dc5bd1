"""Numbers as people read them."""

import math
from typing import Any

MM3 = 1e-9
"""Of a volume in um^3 as tables have it: pages give mm^3."""
MM2 = 1e-6
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NONE = "–"


def number(value: Any, *, digits: int = 3) -> str:
    """A number with so many significant digits, as a power of ten where that is shorter."""
    if value is None or isinstance(value, str):
        return value or NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) < 100_000:
        return str(value)
    if not math.isfinite(value):
        return NONE
    power = _power(value)
    if power == 0:
        return _plain(value, digits=digits)
    return f"{_plain(value / 10**power, digits=digits)} × 10{str(power).translate(_RAISED)}"


def ranged(value: Any, low: Any, high: Any, *, digits: int = 3) -> str:
    """A number and its interval, all with one power of ten: `7.40 (7.21 to 7.59) × 10⁷`."""
    if value is None or low is None or high is None:
        return number(value, digits=digits)
    power = _power(max(abs(value), abs(low), abs(high)))
    first, least, most = (_plain(each / 10**power, digits=digits) for each in (value, low, high))
    tail = f" × 10{str(power).translate(_RAISED)}" if power else ""
    return f"{first} ({least} to {most}){tail}"


def scaled(factor: float, *values: Any) -> list[Any]:
    """Values in another unit; what is not known stays so."""
    return [None if each is None else factor * each for each in values]


def _power(value: float) -> int:
    """The power of ten to write it with; 0 where plain digits do."""
    if not value or not math.isfinite(value):
        return 0
    power = math.floor(math.log10(abs(value)))
    return 0 if -3 <= power <= 4 else power


def _plain(value: float, *, digits: int) -> str:
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(places, 6)}f}".replace("-", "−")


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
