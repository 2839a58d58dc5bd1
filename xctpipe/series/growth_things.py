"""What grows: the objects of each track and kind, scan by scan."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xctpipe.series.growth import Amounts
from xctpipe.series.growth_errors import Row, number, volumes_of

CRACKS = ("crack", "crack_filled")
VOIDS = ("bubble", "interfacial_void")
GROWING = (*CRACKS, "chip", *VOIDS)
"""Kinds of objects that may grow."""


@dataclass(frozen=True)
class Thing:
    """A track as long as it is of one kind."""

    track: int | str | None
    """None for an object that no track holds."""
    kind: str
    scans: tuple[int, ...]
    """Numbers of the scans in which it is seen, from 0."""
    rows: tuple[tuple[Row, ...], ...]
    """Its objects in each of these."""
    before: int | None = None
    """The scan before its birth, if it was born: not one in which it was missed, joined or cut."""

    @property
    def cut(self) -> bool:
        """Whether the view cuts it in some scan."""
        return any(_is_cut(row) for rows in self.rows for row in rows)

    def whole(self) -> "Thing":
        """What is left of it without the scans in which the view cuts it."""
        kept = [i for i, rows in enumerate(self.rows) if not any(_is_cut(row) for row in rows)]
        before = self.before if 0 in kept else None
        picked = tuple(self.scans[i] for i in kept)
        return Thing(self.track, self.kind, picked, tuple(self.rows[i] for i in kept), before)

    def volumes(self, metal_frac: float = 1.0) -> Amounts:
        """Its volumes (um^3) in `scans`."""
        return volumes_of(self.rows, metal_frac=metal_frac)


def _is_cut(row: Row) -> bool:
    return row.get("truncated") is True


def things_of(
    objects: Iterable[Row], *, tracks: Iterable[Row], events: Iterable[Row], scans: Sequence[str]
) -> list[Thing]:
    """Things that may grow, by track and then by kind in order of appearance; those without a track last.

    A crack that was filled stays so until it is void: where it is a crack of unknown fill later, its volume
    is read anew as that of metal (`as_metal`). An object that holds several tracks (`joined`) tells about
    none of them, and counts in sums.

    Parameters
    ----------
    objects, tracks, events : rows of these tables; those of other scans and without a volume are left out.
    scans : names of all scans in order of time.
    """
    place = {name: i for i, name in enumerate(scans)}
    known = {(row["scan"], row["object"]): row for row in objects if _counts(row, place)}
    born = dict(_births(events, place))
    members: dict[Any, list[tuple[int, Row]]] = {}
    for row in tracks:
        if row.get("joined") is True:
            continue
        # one object, one thing: a second track that names it is left out
        found = known.pop((row.get("scan"), row.get("object")), None)
        if found is not None:
            kind = row.get("kind") or found["kind"]
            members.setdefault(row["track"], []).append((place[found["scan"]], {**found, "kind": kind}))
    tracked = [thing for track, own in members.items() for thing in _by_kind(track, own, born)]
    # numbers before names
    tracked.sort(key=lambda thing: (isinstance(thing.track, str), thing.track))
    loose = [Thing(None, row["kind"], (place[row["scan"]],), ((row,),)) for row in known.values()]
    return [thing for thing in (*tracked, *loose) if thing.kind in GROWING]


def _counts(row: Row, place: Mapping[str, int]) -> bool:
    value = number(row.get("volume_um3"))
    return row.get("scan") in place and row.get("kind") in GROWING and value == value


def _births(events: Iterable[Row], place: Mapping[str, int]) -> Iterator[tuple[tuple[str, int], int]]:
    """((track, scan it is born in), scan before it)."""
    for row in events:
        first, second = place.get(row.get("scan_from", "")), place.get(row.get("scan_to", ""))
        if row.get("kind") == "birth" and first is not None and second is not None:
            yield from (((track, second), first) for track in str(row.get("tracks") or "").split())


def _by_kind(
    track: Any, members: list[tuple[int, Row]], born: Mapping[tuple[str, int], int]
) -> Iterator[Thing]:
    """One thing for each kind that a track is of."""
    members = sorted(members, key=lambda member: member[0])
    found: dict[str, dict[int, list[Row]]] = {}
    since: int | None = None
    for i, row in members:
        if since is not None and i > since and row["kind"] == "crack":
            if row.get("fill") == "void":
                since = None
            else:
                row = {**row, "kind": "crack_filled", "as_metal": True}
        elif row["kind"] == "crack_filled" and since is None:
            since = i
        found.setdefault(row["kind"], {}).setdefault(i, []).append(row)
    start = members[0][0]
    for kind, scans in found.items():
        before = born.get((str(track), start)) if start in scans else None
        yield Thing(track, kind, tuple(scans), tuple(tuple(rows) for rows in scans.values()), before)
