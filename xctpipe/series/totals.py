"""Sums over all things of a kind."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import DoubleArray
from xctpipe.series.growth import Z95, Amounts, summed
from xctpipe.series.growth_errors import always_seen, flicker
from xctpipe.series.growth_things import CRACKS, VOIDS, Thing

SUMS = {
    "all_cracks": CRACKS,
    "all_bubbles": ("bubble",),
    "all_voids": ("interfacial_void",),
    "all_bubbles_and_voids": VOIDS,
}
"""Sums by name, and the kinds of objects that they are over."""


@dataclass(frozen=True)
class Total:
    """Things of some kinds together."""

    volumes: Amounts
    """(n,) um^3 in all scans, without what the view cuts in any scan."""
    counts: tuple[int, ...]
    """Things seen in each scan, cut or not."""
    cut_um3: DoubleArray
    """(n,) what is in view of the things that are left out."""
    n_whole: int
    """Things that are not left out."""


def total_of(things: Sequence[Thing], *, kinds: Sequence[str], n: int, metal_frac: float = 1.0) -> Total:
    """Sum of the volumes of all things of some kinds in each of n scans.

    A thing that the view cuts in some scan is left out of all of them: with the drift of the stack its part
    in view changes. One that is found in some scans only, near the limit of detection, adds an error by that
    (`flicker`); one that was born may have been there before, unseen, up to that limit.
    """
    own = [thing for thing in things if thing.kind in kinds]
    cut = _cut_tracks(own)
    whole = [thing for thing in own if _key(thing) not in cut]
    seen: Counter[object] = Counter()
    for thing in own:
        seen[_key(thing)] += len(thing.scans)
    parts = [thing.volumes(metal_frac) for thing in whole]
    added = summed(parts, n=n, scans=[_where(each) for each in whole])
    faint = [
        flicker(part, n=n, alone=seen[_key(thing)] == 1 and thing.before is None)
        for thing, part in zip(whole, parts, strict=True)
    ]
    hidden = np.zeros(n)
    for thing, part, error in zip(whole, parts, faint, strict=True):
        if thing.before is not None and not error:
            hidden[: thing.scans[0]] += min(always_seen(part), float(part.values[0]))
    counts = np.zeros(n, np.intp)
    for thing in own:
        counts[list(thing.scans)] += [len(rows) for rows in thing.rows]
    rest = [thing for thing in own if _key(thing) in cut]
    left = summed([thing.volumes(metal_frac) for thing in rest], n=n, scans=[_where(each) for each in rest])
    # what is found depends on where the interface was found: faint things come and go together
    errors = np.hypot(added.errors, sum(faint))
    return Total(
        replace(added, errors=errors, unseen=hidden), tuple(counts.tolist()), left.values, len(whole)
    )


def _where(thing: Thing) -> NDArray[np.intp]:
    return np.array(thing.scans, dtype=np.intp)


def _key(thing: Thing) -> object:
    """Of the whole track, or of an object that none holds."""
    return id(thing) if thing.track is None else thing.track


def _cut_tracks(things: Sequence[Thing]) -> set[object]:
    return {_key(thing) for thing in things if thing.cut}


def bounds(amounts: Amounts) -> tuple[DoubleArray, DoubleArray]:
    """95 % interval of the amount in each scan, at least 0: errors and common scale in quadrature."""
    noise = Z95 * amounts.errors
    low = amounts.values - np.hypot(noise, amounts.low_frac * np.abs(amounts.values))
    high = amounts.values + np.hypot(noise, amounts.high_frac * np.abs(amounts.values))
    return np.maximum(low, 0.0), high
