"""Which frames of a stack are projections, darks and flats, and which angles are theirs.

Some HEX plans append the flats to the projections, put darks and flats into one stack, or several batches
into one file; no file says where one ends. Angles and brightness together do, and where they do not,
nothing is guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xctpipe.errors import BadScan
from xctpipe.formats.angles import match_angles, repeats, still_at_end
from xctpipe.formats.frames import HdfFrames
from xctpipe.scan import DoubleArray

USUAL_DARKS = 20
"""Darks that the plans of HEX take before the flats."""

Notes = tuple[str, ...]

_CELLS = 16
# by so much the beam may change in a scan, and by so much a flat must be brighter
_SAME, _BRIGHTER = 0.03, 1.05
_REMEDY = (
    "if all are projections, give raw.angles with an angle for each; if not, copy the projections into "
    "a file of their own"
)


@dataclass(frozen=True)
class Taken:
    """Projections with an angle for each, and the flats that were found after them."""

    frames: HdfFrames
    angles_rad: DoubleArray
    flats: HdfFrames | None = None
    notes: Notes = ()


def take(frames: HdfFrames, angles_rad: DoubleArray, *, batch: int | None = None) -> Taken:
    """Give every projection its angle.

    Beyond what `match_angles` does with too many angles: flats at the end of the stack, recognised by
    angles that stand still or are missing there and by their brightness, are set apart; of several batches
    (the same angles again and again) one is taken.

    Parameters
    ----------
    frames : the whole stack.
    angles_rad : (angle,) in the order of acquisition.
    batch : which batch to take, the first is 1; absent: the first, with a note.

    Raises
    ------
    BadScan
        When which angle belongs to which frame is not sure.
    """
    n, m = frames.shape[0], angles_rad.size
    if m > n:
        angles_rad, notes = match_angles(n, angles_rad)
        m = n
    else:
        notes = ()
    n_flats = _flats_at_end(frames, angles_rad)
    if n_flats:
        kept = n - n_flats
        note = f"{frames.path.name}: the last {n_flats} of {n} frames are as bright as flats and used as such"
        return Taken(_part(frames, 0, kept), angles_rad[:kept], _part(frames, kept, n), (*notes, note))
    count = repeats(angles_rad) if m == n else _batches(frames, m)
    if not count:
        raise BadScan(_unsure(frames, angles_rad))
    taken = _batch(frames, angles_rad, count=count, batch=batch)
    return Taken(taken.frames, taken.angles_rad, None, notes + taken.notes)


def _part(frames: HdfFrames, first: int, last: int) -> HdfFrames:
    wanted = np.zeros(frames.shape[0], dtype=bool)
    wanted[first:last] = True
    return frames.select(wanted)


def _unsure(frames: HdfFrames, angles_rad: DoubleArray) -> str:
    n, m = frames.shape[0], angles_rad.size
    return (
        f"{m} angles for {n} frames: neither equal, one more nor a multiple, and the last {n - m} frames are "
        f"not clearly flats (all of them brighter than the frames before); frames or angles were lost, so "
        f"which belongs to which is unknown; {_REMEDY}"
    )


def _batch(frames: HdfFrames, angles_rad: DoubleArray, *, count: int, batch: int | None) -> Taken:
    length = frames.shape[0] // count
    if not 1 <= (batch or 1) <= count:
        raise BadScan(f"raw.batch = {batch}: {frames.path.name} holds {count} batch(es), the first is 1")
    if count == 1:
        return Taken(frames, angles_rad)
    first = ((batch or 1) - 1) * length
    # one list of angles for all batches, or one list after the other
    own = angles_rad if angles_rad.size == length else angles_rad[first : first + length]
    note = (
        f"{frames.path.name} holds {count} batches of {length} frames (the angles start again): only the "
        f"first is used; set raw.batch = 2 for the second, and so on up to {count}"
    )
    return Taken(_part(frames, first, first + length), own, None, (note,) if batch is None else ())


def _batches(frames: HdfFrames, n_angles: int) -> int:
    """Batches in a stack with fewer angles than frames; 0 when its frames do not clearly repeat."""
    n, near = frames.shape[0], max(1, n_angles // 36)
    if n_angles < 3 or n % n_angles:
        return 0
    last = n // n_angles - 2
    for first in {0, last // 2 * n_angles, last * n_angles}:
        for i in {0, n_angles // 3, 2 * n_angles // 3}:
            here = _normal(frames, first + i)
            again = _distance(here, _normal(frames, first + i + n_angles))
            turned = _distance(here, _normal(frames, first + i + near))
            far = _distance(here, _normal(frames, first + (i + n_angles // 3) % n_angles))
            if again > turned or again > 0.5 * far:
                return 0
    return n // n_angles


def _flats_at_end(frames: HdfFrames, angles_rad: DoubleArray) -> int:
    """How many of the last frames are flats; BadScan where that is not clear."""
    n, m = frames.shape[0], angles_rad.size
    if m < n:
        if m < 3:
            return 0
        found = _are_flats(frames, (m, (m + n - 1) // 2, n - 1), n_views=m)
        return n - m if all(one is True for one in found) else 0
    still = still_at_end(angles_rad)
    if still < 2 or still > n - 3:
        return 0
    first = n - still
    found = _are_flats(frames, (first, first + 1, (first + n) // 2, n - 1), n_views=first)
    if not any(one is not False for one in found):
        return 0
    if all(one is True for one in found[1:]) and found[0] is not None:
        # the last projection may share the angle of the flats
        return still if found[0] else still - 1
    raise BadScan(
        f"{frames.path.name}: the last {still} frames have one angle, but are not clearly flats or "
        f"projections by their brightness; {_REMEDY}"
    )


def _are_flats(frames: HdfFrames, indices: Sequence[int], *, n_views: int) -> list[bool | None]:
    """Whether frames are flats, judged by six of the projections before them; None where that is not clear.

    A flat is nowhere darker than any projection, and somewhere clearly brighter than most. A projection is
    like the last one, or nowhere brighter than all.
    """
    views = [_cells(frames, int(i)) for i in np.linspace(0, n_views - 1, 6).astype(int)]
    brightest, mean = np.max(views, axis=0), np.mean(views, axis=0)
    found: list[bool | None] = []
    for index in indices:
        cells = _cells(frames, index)
        with np.errstate(all="ignore"):
            low, high = np.quantile(cells / brightest, [0.05, 0.95])
            share = np.quantile(cells / mean, 0.95)
            alike = np.abs(np.quantile(cells / views[-1], [0.05, 0.95]) - 1).max()
        if alike < _SAME or high < 1 + _SAME:
            found.append(False)
        else:
            found.append(True if low > 1 - _SAME and share > _BRIGHTER else None)
    return found


def _cells(frames: HdfFrames, index: int) -> DoubleArray:
    """Means of a frame over at most 16 x 16 cells: (row, col)."""
    image = frames.read(frames=(index, index + 1))[0]
    rows, cols = (np.unique(np.arange(_CELLS) * size // _CELLS) for size in image.shape)
    # sums over the blocks that begin there
    sums = np.add.reduceat(np.add.reduceat(image, rows, axis=0, dtype=np.float64), cols, axis=1)
    areas = np.outer(np.diff(rows, append=image.shape[0]), np.diff(cols, append=image.shape[1]))
    means: DoubleArray = sums / areas
    return means


def _normal(frames: HdfFrames, index: int) -> DoubleArray:
    """Cells of a frame over their mean, so that the beam's intensity does not count."""
    cells = _cells(frames, index)
    with np.errstate(all="ignore"):
        scaled: DoubleArray = cells / cells.mean()
    return scaled


def _distance(one: DoubleArray, other: DoubleArray) -> float:
    return float(np.sqrt(np.mean((one - other) ** 2)))


def split_dark_flat(frames: HdfFrames) -> tuple[HdfFrames, HdfFrames, Notes]:
    """Darks and flats of one stack, the darks first, told apart by the jump of the brightness.

    Where there is no clear jump the first 20 frames, as many as HEX takes, are darks, and that is said.

    Raises
    ------
    BadScan
        When there is no clear jump and not more than 20 frames.
    """
    n, rows, _ = frames.shape
    middle = (max(rows // 2 - 8, 0), min(rows // 2 + 8, rows))
    levels = np.array([np.median(frames.read(middle, frames=(i, i + 1))) for i in range(n)], np.float64)
    jumps = np.diff(levels)
    at = int(np.argmax(np.abs(jumps))) + 1 if n > 1 else 0
    if at and _clear(levels[:at], levels[at:]):
        before, after = _part(frames, 0, at), _part(frames, at, n)
        if jumps[at - 1] > 0:
            return before, after, ()
        note = f"{frames.path.name}: the first {at} frames are brighter than the rest: flats before darks"
        return after, before, (note,)
    if n <= USUAL_DARKS:
        raise BadScan(
            f"{frames.path}: {n} frames without a clear jump from dark to bright, so which are flats is "
            "unknown; give another raw.dark_flat, or raw.darks and raw.flats"
        )
    note = (
        f"{frames.path.name}: no clear jump from dark to bright: the first {USUAL_DARKS} frames are taken as "
        f"darks, the other {n - USUAL_DARKS} as flats"
    )
    return _part(frames, 0, USUAL_DARKS), _part(frames, USUAL_DARKS, n), (note,)


def _clear(one: DoubleArray, other: DoubleArray) -> bool:
    """Whether two groups of levels are much further apart than each is wide."""
    gap = max(other.min() - one.max(), one.min() - other.max())
    return bool(gap > 2 * max(np.ptp(one), np.ptp(other), 0.01 * max(one.max(), other.max())))
