"""What is written after an option of the command line, as numbers: A:B."""

import math

from xctpipe.errors import BadRecipe
from xctpipe.scan import Span


def parse_span(text: str, *, option: str) -> Span:
    """Whole numbers `A:B`, the end not included; BadRecipe unless 0 <= A < B."""
    try:
        first, last = (int(part) for part in text.split(":"))
    except ValueError as err:
        raise BadRecipe(
            f"{option} {text!r}: write A:B with whole numbers, e.g. 100:164 for 100 to 163"
        ) from err
    if not 0 <= first < last:
        raise BadRecipe(f"{option} {text!r}: is empty; A:B needs 0 <= A < B, and B itself is left out")
    return first, last


def parse_range(text: str, *, option: str) -> tuple[float, float]:
    """Finite numbers `LOW:HIGH`; BadRecipe unless LOW < HIGH."""
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError as err:
        raise BadRecipe(f"{option} {text!r}: write LOW:HIGH in cm^-1, e.g. -0.5:3.5") from err
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise BadRecipe(f"{option} {text!r}: LOW must be below HIGH, both finite, in cm^-1")
    return low, high
