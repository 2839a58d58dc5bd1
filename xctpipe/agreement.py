"""How two label volumes and two lists of objects agree: sums over slabs that add up, and scores from them.

One side is the reference, the truth if there is one. Voxels that are 0 on either side are beyond a view and
are left out of everything.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import Span

Labels = NDArray[np.uint8]
Objects = NDArray[np.integer]
Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]

N_CODES = 256


@dataclass(frozen=True, eq=False)
class LabelSums:
    """Counts of voxels over one or more slabs; those of slabs that do not overlap may be added.

    `confusion[p, q]` are voxels of phase p that the reference has as q. `near` are the numbers of crack
    voxels, of those with a crack of the reference within one voxel, of crack voxels of the reference, and of
    those with a crack within one voxel.
    """

    confusion: Counts
    near: Counts
    overlaps: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Voxels by object and object of the reference, 0 where only one side has any."""
    hits: Counter[int] = field(default_factory=Counter)
    """Crack voxels of an object that are near a crack of the reference."""
    reference_hits: Counter[int] = field(default_factory=Counter)
    """Crack voxels of an object of the reference that are near a crack."""
    unseen: Counter[int] = field(default_factory=Counter)
    """Voxels of an object of the reference where the other side sees nothing."""
    at_end: frozenset[int] = frozenset()
    """Objects of the reference that reach the first or the last row compared."""

    def __add__(self, other: "LabelSums") -> "LabelSums":
        return LabelSums(
            self.confusion + other.confusion,
            self.near + other.near,
            self.overlaps + other.overlaps,
            self.hits + other.hits,
            self.reference_hits + other.reference_hits,
            self.unseen + other.unseen,
            self.at_end | other.at_end,
        )

    @property
    def sizes(self) -> Counter[int]:
        """Voxels of each object, as far as both sides see them."""
        return _sizes(self.overlaps, side=0)

    @property
    def reference_sizes(self) -> Counter[int]:
        """The same of the reference."""
        return _sizes(self.overlaps, side=1)


def _sizes(overlaps: Mapping[tuple[int, int], int], *, side: int) -> Counter[int]:
    sizes: Counter[int] = Counter()
    for pair, count in overlaps.items():
        if pair[side]:
            sizes[pair[side]] += count
    return sizes


def label_sums(
    labels: tuple[Labels, Objects],
    reference: tuple[Labels, Objects],
    *,
    cracks: Collection[int],
    inner: Span | None = None,
    ends: tuple[bool, bool] = (True, True),
) -> LabelSums:
    """Counts of one slab.

    Parameters
    ----------
    labels, reference : phases (uint8) and objects, (z, y, x); one row more on each side than `inner`, except
        where the volume ends, so that the tolerance of cracks sees across the cut.
    cracks : codes of phases that count as cracks.
    inner : rows to count, [first, last); absent: all.
    ends : whether the first and the last of these rows are those of the whole comparison.
    """
    first, last = inner or (0, labels[0].shape[0])
    wanted = np.isin(np.arange(N_CODES), list(cracks))
    rows = slice(first, last)
    phases, objects = labels[0][rows], labels[1][rows]
    other, other_objects = reference[0][rows], reference[1][rows]
    seen = (phases != 0) & (other != 0)
    mine, theirs = wanted[phases] & seen, wanted[other] & seen
    hit = mine & beside(wanted[reference[0]], inner=(first, last), where=mine)
    other_hit = theirs & beside(wanted[labels[0]], inner=(first, last), where=theirs)
    edges = [row for row, is_end in ((0, ends[0]), (last - first - 1, ends[1])) if is_end]
    return LabelSums(
        confusion=_confusion(np.ascontiguousarray(phases), np.ascontiguousarray(other)),
        near=np.array([np.count_nonzero(each) for each in (mine, hit, theirs, other_hit)], np.int64),
        overlaps=_pairs(objects, other_objects, seen),
        hits=_tally(objects[hit]),
        reference_hits=_tally(other_objects[other_hit]),
        unseen=_tally(other_objects[~seen]),
        at_end=frozenset(int(i) for row in edges for i in np.unique(other_objects[row]) if i),
    )


def beside(mask: Mask, *, inner: Span, where: Mask) -> Mask:
    """Whether any of the 27 voxels around one is set, of rows [first, last) of a mask (z, y, x).

    Parameters
    ----------
    where : voxels (z, y, x) of these rows to look at; the others are False.
    """
    out = np.zeros(where.shape, np.bool_)
    _beside(mask, inner[0], where, out)
    return out


@numba.njit(cache=True, nogil=True)
def _beside(mask, first, where, out):  # type: ignore[no-untyped-def]
    n_z, n_y, n_x = mask.shape
    for z in range(where.shape[0]):
        for y in range(n_y):
            for x in range(n_x):
                if where[z, y, x]:
                    found = False
                    for k in range(max(first + z - 1, 0), min(first + z + 2, n_z)):
                        for j in range(max(y - 1, 0), min(y + 2, n_y)):
                            for i in range(max(x - 1, 0), min(x + 2, n_x)):
                                found |= mask[k, j, i]
                    out[z, y, x] = found


@numba.njit(cache=True, nogil=True)
def _confusion(phases, other):  # type: ignore[no-untyped-def]
    counts = np.zeros((N_CODES, N_CODES), np.int64)
    for z in range(phases.shape[0]):
        for y in range(phases.shape[1]):
            for x in range(phases.shape[2]):
                p, q = phases[z, y, x], other[z, y, x]
                if p != 0 and q != 0:
                    counts[p, q] += 1
    return counts


def _pairs(objects: Objects, other: Objects, seen: Mask) -> Counter[tuple[int, int]]:
    some = seen & ((objects != 0) | (other != 0))
    both = np.stack([objects[some].astype(np.int64), other[some].astype(np.int64)])
    # one number for two is sorted faster than rows
    width = int(both[1].max(initial=0)) + 1
    keys, counts = np.unique(both[0] * width + both[1], return_counts=True)
    return Counter(
        {divmod(key, width): count for key, count in zip(keys.tolist(), counts.tolist(), strict=True)}
    )


def _tally(numbers: Objects) -> Counter[int]:
    found, counts = np.unique(numbers[numbers != 0], return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


@dataclass(frozen=True)
class Overlap:
    """Agreement of one class: 2 |A B| / (|A| + |B|) and |A B| / |A or B|; None where neither side has any."""

    dice: float | None
    iou: float | None
    voxels: int
    reference_voxels: int


def overlap(confusion: Counts, codes: Collection[int]) -> Overlap:
    """Dice and IoU of a class that is made of these codes."""
    chosen = sorted(codes)
    mine, theirs = int(confusion[chosen].sum()), int(confusion[:, chosen].sum())
    both = int(confusion[np.ix_(chosen, chosen)].sum())
    if not mine + theirs:
        return Overlap(None, None, 0, 0)
    return Overlap(2 * both / (mine + theirs), both / (mine + theirs - both), mine, theirs)


@dataclass(frozen=True)
class Finding:
    """Precision, recall and their harmonic mean; None where there is nothing that they could be about."""

    precision: float | None
    recall: float | None
    f1: float | None


def finding(near: Counts | Sequence[int]) -> Finding:
    """Scores from crack voxels, those near the reference's, the reference's, and those near these."""
    mine, hit, theirs, found = (int(n) for n in near)
    precision = hit / mine if mine else None
    recall = found / theirs if theirs else None
    if precision is None and recall is None:
        return Finding(None, None, None)
    p, r = precision or 0.0, recall or 0.0
    return Finding(precision, recall, 2 * p * r / (p + r) if p + r else 0.0)


@dataclass(frozen=True)
class Thing:
    """An object as tables have it; `family` are the kinds that may be taken for one another."""

    number: int
    family: str
    center_um: tuple[float, float, float]
    radius_um: float
    """Half its size: of the ball of its volume, or of the disc of a crack's area."""


def matched(
    things: Sequence[Thing], reference: Sequence[Thing], *, overlaps: Mapping[tuple[int, int], int]
) -> dict[int, int]:
    """Which object of the reference each object is, by number, one for one.

    First those that overlap, the largest share of common voxels (IoU) first; then, of what is left, those of
    one family whose centres are nearest, where the centre of one lies within the radius of the other.
    """
    known, others = {t.number for t in things}, {t.number for t in reference}
    sizes, other_sizes = _sizes(overlaps, side=0), _sizes(overlaps, side=1)
    shares = [
        (count / (sizes[i] + other_sizes[j] - count), i, j)
        for (i, j), count in overlaps.items()
        if i in known and j in others
    ]
    found = _one_for_one([(-share, i, j) for share, i, j in shares], {})
    return _one_for_one(list(_neighbours(things, reference, found)), found)


def _one_for_one(candidates: list[tuple[float, int, int]], found: Mapping[int, int]) -> dict[int, int]:
    """The cheapest first; of equal ones those of lower numbers."""
    pairs, taken = dict(found), set(found.values())
    for _, i, j in sorted(candidates):
        if i not in pairs and j not in taken:
            pairs[i] = j
            taken.add(j)
    return pairs


def _neighbours(
    things: Sequence[Thing], reference: Sequence[Thing], found: Mapping[int, int]
) -> Iterator[tuple[float, int, int]]:
    taken = set(found.values())
    left = [other for other in reference if other.number not in taken]
    centers = np.array([other.center_um for other in left]).reshape(-1, 3)
    radii = np.array([other.radius_um for other in left])
    for thing in things:
        if thing.number in found or not left:
            continue
        distances = np.linalg.norm(centers - thing.center_um, axis=1)
        for k in np.flatnonzero(distances <= np.maximum(radii, thing.radius_um)).tolist():
            if left[k].family == thing.family:
                yield float(distances[k]), thing.number, left[k].number


def pieces(overlaps: Mapping[tuple[int, int], int]) -> dict[int, list[int]]:
    """Objects by the object of the reference that each overlaps most; more than one: it is in pieces."""
    best: dict[int, tuple[int, int]] = {}
    for (i, j), count in sorted(overlaps.items()):
        if i and j and count > best.get(i, (0, 0))[0]:
            best[i] = (count, j)
    found: dict[int, list[int]] = {}
    for i, (_, j) in best.items():
        found.setdefault(j, []).append(i)
    return found


def ball_radius(volume: float) -> float:
    """Radius of the ball of a volume."""
    return math.cbrt(3 * max(volume, 0.0) / (4 * math.pi))
