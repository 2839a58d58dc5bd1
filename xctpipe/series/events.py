"""What happened to objects between scans, told only where it is beyond doubt.

An object that is first seen, or seen no more, has been born or has died only if it is too large to have been
there unseen, lies within the view of both scans, and is no thing of one scan. What gets smaller is told of
cracks whose bounds of 95 % do not meet.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from xctpipe.series.growth_things import CRACKS
from xctpipe.series.things import Thing, adds_up
from xctpipe.series.tracks import Track

KINDS = (
    "birth",
    "death",
    "merge",
    "split",
    "fill",
    "chip",
    "truncation",
    "shrink",
    "percolate",
)
_ALONE_SURE = 10.0
_LIFT_PX = 1.0


@dataclass(frozen=True)
class Event:
    """What happened between two scans, to tracks."""

    kind: str
    scan_from: int
    scan_to: int
    tracks: tuple[int, ...]
    volume_um3: float | None = None
    """Of what was born, died, merged, split, filled or chipped; what a crack lost."""
    closing_um3: float | None = None
    filling_um3: float | None = None
    contrast_um3: float | None = None
    parts_um3: float | None = None
    """Sum of the parts of a merge or split."""
    adds_up: bool | None = None
    """Whether that is the volume of the whole within the errors."""


def events_of(tracks: Sequence[Track], *, n_scans: int, up: int = -1) -> list[Event]:
    """All events, in order of time and kind.

    Parameters
    ----------
    tracks : from `link`.
    n_scans : of the series.
    up : 1 or -1: in which direction of z the NaK lies.
    """
    found = [event for track in tracks for event in _of_track(track, n_scans=n_scans, up=up)]
    found += list(_joins(tracks))
    return sorted(found, key=lambda e: (e.scan_to, KINDS.index(e.kind), e.tracks))


def _of_track(track: Track, *, n_scans: int, up: int) -> Iterator[Event]:
    if not track.told:
        return
    yield from _ends(track, n_scans=n_scans)
    filled = False
    for before, after in pairwise(Whole.of(track, scan) for scan in track.scans):
        filled = filled or before.metal
        yield from _changes(track, before, after, filled=filled)
        if before.kind == "chip" and up * (after.z_um - before.z_um) > _LIFT_PX * after.voxel_um:
            yield Event("chip", before.scan, after.scan, (track.number,), after.volume_um3)
        filled = (filled or after.metal) and not after.void


@dataclass(frozen=True)
class Whole:
    """All of a track in one scan."""

    scan: int
    kind: str
    volume_um3: float
    low_um3: float
    high_um3: float
    area_um2: float
    opening_um: float
    z_um: float
    voxel_um: float
    sure: bool
    truncated: bool
    percolates: bool
    metal_um3: float
    """Of it filled with metal."""
    void: bool
    """Whether it is known to be empty."""

    @property
    def metal(self) -> bool:
        """Whether most of it holds metal."""
        return self.metal_um3 > 0.5 * self.volume_um3

    @classmethod
    def of(cls, track: Track, scan: int) -> "Whole":
        """Sums over the pieces of a network; of others the object itself."""
        things = track.at(scan)
        volume = sum(each.volume_um3 for each in things)
        areas = [each.area_um2 or 0.0 for each in things]
        weights = [max(each.volume_um3, 1e-9) for each in things]
        return cls(
            scan=scan,
            kind=things[0].kind,
            volume_um3=volume,
            low_um3=volume - math.hypot(*(each.volume_um3 - each.low_um3 for each in things)),
            high_um3=volume + math.hypot(*(each.high_um3 - each.volume_um3 for each in things)),
            area_um2=sum(areas),
            opening_um=volume / sum(areas) if sum(areas) else 0.0,
            z_um=sum(each.place_um[0] * w for each, w in zip(things, weights, strict=True)) / sum(weights),
            voxel_um=things[0].voxel_um,
            sure=any(each.sure for each in things),
            truncated=any(each.truncated for each in things),
            percolates=any(each.percolates for each in things),
            metal_um3=sum(each.volume_um3 for each in things if each.kind == "crack_filled"),
            void=all(each.fill == "void" for each in things),
        )


def _ends(track: Track, *, n_scans: int) -> Iterator[Event]:
    """Birth and death."""
    first, last = track.scans[0], track.scans[-1]
    alone = first == last and not any(each.volume_um3 > _ALONE_SURE * each.error_um3 for each in track.things)
    one_scan_only = first == last and 0 < first < n_scans - 1
    if one_scan_only or alone:
        return
    if track.came == "seen" and first > 0 and _appears(track.at(first), first - 1):
        yield Event("birth", first - 1, first, (track.number,), _volume(track.at(first)))
    if not track.went and first < last < n_scans - 1 and _appears(track.at(last), last + 1):
        yield Event("death", last, last + 1, (track.number,), _volume(track.at(last)))


def _appears(things: Sequence[Thing], other: int) -> bool:
    """Whether things of one scan would have been seen in another, had they been there."""
    whole_and_seen = all(not each.truncated and other in each.in_view for each in things)
    return whole_and_seen and any(each.beyond_limit for each in things)


def _volume(things: Sequence[Thing]) -> float:
    return sum(each.volume_um3 for each in things)


def _changes(track: Track, before: Whole, after: Whole, *, filled: bool) -> Iterator[Event]:
    ends = (before.scan, after.scan, (track.number,))
    if before.truncated != after.truncated and before.sure and after.sure:
        yield Event("truncation", *ends)
    if before.kind not in CRACKS:
        return
    if after.metal and not filled and after.sure:
        yield Event("fill", *ends, after.volume_um3, filling_um3=after.metal_um3)
    if after.percolates and not before.percolates:
        yield Event("percolate", *ends)
    whole = not (before.truncated or after.truncated)
    if whole and before.sure and after.high_um3 < before.low_um3:
        yield Event("shrink", *ends, before.volume_um3 - after.volume_um3, *split_loss(before, after))


def split_loss(before: Whole, after: Whole) -> tuple[float, float, float]:
    """Split what a crack lost into closing, filling and loss of contrast; they add up to the loss.

    Closing is the fall of the mean opening, volume by area, over the area that both scans have. Of the rest,
    metal that came in takes all, where it did; what is left is crack that is not seen any more: pieces that
    became too thin, or a contrast that nothing explains.
    """
    lost = before.volume_um3 - after.volume_um3
    common = min(before.area_um2, after.area_um2)
    closing = min(max(before.opening_um - after.opening_um, 0.0) * common, lost)
    came = max(after.metal_um3 - before.metal_um3, 0.0)
    filling = min(came, lost - closing)
    return closing, filling, lost - closing - filling


def _joins(tracks: Sequence[Track]) -> Iterator[Event]:
    """Merges, the merged one last, and splits, the one that splits first."""
    split: dict[int, list[Track]] = {}
    for track in tracks:
        if track.came == "merge" and track.told:
            parts = [each for one in track.parents for each in one.at(one.last_scan)]
            whole = track.at(track.scans[0])
            numbers = (*sorted(one.number for one in track.parents), track.number)
            yield _join("merge", numbers, parts=parts, whole=whole, scans=(parts[0].scan, whole[0].scan))
        elif track.came == "split":
            split.setdefault(track.parents[0].number, []).append(track)
    for number, made in split.items():
        parts = [each for one in made for each in one.at(one.scans[0])]
        whole = made[0].parents[0].at(made[0].parents[0].last_scan)
        numbers = (number, *sorted(one.number for one in made))
        yield _join("split", numbers, parts=parts, whole=whole, scans=(whole[0].scan, parts[0].scan))


def _join(
    kind: str,
    numbers: tuple[int, ...],
    *,
    parts: list[Thing],
    whole: list[Thing],
    scans: tuple[int, int],
) -> Event:
    fits = adds_up(parts, whole[0]) if len(whole) == 1 else None
    return Event(kind, *scans, numbers, _volume(whole), parts_um3=_volume(parts), adds_up=fits)
