"""Numbers and times in text files, with decimal commas or points."""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from xctpipe.scan import DoubleArray

_EPOCH_S = 1e8
"""Seconds from here on are those since 1970: a test that long would take three years."""
_CLOCK = re.compile(
    r"^(\d{1,2})[./-](\d{1,2})[./-](\d{2,4})[ T]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?$"
)


def read_text(path: Path) -> str:
    """A text file in UTF-8 or, as EC-Lab writes, Latin-1."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def numbers(cells: Sequence[str], *, comma: bool) -> DoubleArray:
    """Numbers; NaN for what is none.

    Parameters
    ----------
    comma : decimals come after a comma.
    """
    texts = [cell.replace(",", ".") for cell in cells] if comma else list(cells)
    try:
        return np.array(texts, dtype=np.float64)
    except ValueError:
        return np.array([_number(text) for text in texts], dtype=np.float64)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def moment(text: str) -> datetime | None:
    """A date with time, ISO 8601 or as EC-Lab writes it; month first, unless it can only be the day.

    None for what is no date. A zone is kept where there is one.
    """
    text = text.strip()
    found = _CLOCK.match(text)
    try:
        if not found:
            # a bare number of eight digits is a date to ISO, and seconds to everyone else
            return datetime.fromisoformat(text.replace(",", ".")) if "-" in text[1:] else None
        first, second, year = int(found[1]), int(found[2]), int(found[3])
        month, day = (second, first) if first > 12 else (first, second)
        micro = int((found[7] or "").ljust(6, "0")[:6])
        year += 2000 if year < 100 else 0
        return datetime(  # noqa: DTZ001 - the clock on the wall; its zone comes from the recipe
            year, month, day, int(found[4]), int(found[5]), int(found[6] or 0), micro
        )
    except ValueError:
        return None


def is_epoch(time_s: DoubleArray) -> bool:
    """Whether seconds count from 1970."""
    finite = time_s[np.isfinite(time_s)]
    return bool(finite.size and finite[0] > _EPOCH_S)
