"""The three kinds of failure: a wrong recipe, a bad scan, and (everything else) a bug.

A message for the user says what is wrong, the value found, what is allowed, and the next move.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend; shown as one message, never as a traceback."""


class BadRecipe(UserError):  # noqa: N818 - reads as what it is: `raise BadRecipe(...)`
    """The recipe or the call is wrong: nothing is run (exit code 2)."""


class BadScan(UserError):  # noqa: N818
    """One scan cannot be used: it is reported and the others go on (exit code 3)."""


class NoCell(BadScan):
    """A volume shows nothing of the cell that labels are for: an error only to those who ask for labels."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Sentence that offers the known word closest to `word`, and lists them all."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names)}"
