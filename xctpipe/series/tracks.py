"""Which object of a scan is which of the next: tracks, from overlaps of labels and from tables.

Objects that overlap are linked at the least cost; what overlaps nothing is looked for nearby, also in scans
before the last: a small thing may be missed once. Cracks are networks: all pieces that touch, or overlap the
same pieces of another scan, are one track. Numbers of objects have no say.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from xctpipe.series.assignment import assign
from xctpipe.series.things import Thing, adds_up, agree, coalesced, distance_um, places_of

MOST_MISSED = 2
"""Scans in a row in which an object may be missed and still be the same."""
_LEAST_SHARE, _LEAST_CRACK_SHARE = 0.3, 0.1
_MOSTLY = 0.5
_NEAR, _JUMP = 0.5, 2.0
_SAME_RATIO, _LIKE_RATIO = 2.0, 4.0
# what two balls that touch are not, and what one is
_TWO, _ONE = (0.88, 0.7), (0.93, 0.85)

Pairs = Mapping[tuple[int, int], float]
"""Overlap of an object of one scan and one of the next: voxels of the first."""


@dataclass(eq=False)
class Track:
    """What is taken for one thing."""

    things: list[Thing]
    parents: list["Track"] = field(default_factory=list)
    """Those it is made of: after a merge or a split."""
    came: str = "seen"
    """seen, merge, split, or part (of what another object held before)."""
    went: str = ""
    """merge, split or part, where it goes on as something else."""
    number: int = 0
    joined: set[tuple[int, int]] = field(default_factory=set)
    """Scans and objects in which it is one with others, whose volume cannot be told from its own."""
    holds: list["Track"] = field(default_factory=list)
    """Tracks that are one with it now, as far as labels tell."""

    @property
    def last_scan(self) -> int:
        """Number of the scan in which it was last seen."""
        return self.things[-1].scan

    @property
    def last(self) -> Thing:
        """Its largest object in that scan."""
        return max(self.at(self.last_scan), key=lambda each: each.volume_um3)

    def at(self, scan: int) -> list[Thing]:
        """Its objects in a scan."""
        return [each for each in self.things if each.scan == scan]

    @property
    def scans(self) -> list[int]:
        """In which it was seen."""
        return sorted({each.scan for each in self.things})

    @property
    def told(self) -> bool:
        """Whether it is more than a thing that was seen once, with little certainty."""
        return any(each.sure for each in self.things)


def link(
    scans: Sequence[Sequence[Thing]], overlaps: Sequence[Pairs], touching: Sequence[Pairs] = ()
) -> list[Track]:
    """Tracks of a series.

    Parameters
    ----------
    scans : the objects of each scan, in order of time.
    overlaps : of the objects of each scan with those of the next.
    touching : pairs of cracks of each scan that touch; absent: none.

    References
    ----------
    Jaqaman et al. (2008), Robust single-particle tracking, doi:10.1038/nmeth.1237: assignment with gaps,
    merges and splits. Fukai & Kawaguchi (2023), LapTrack, doi:10.1093/bioinformatics/btac799.
    """
    tracks: list[Track] = []
    for t, things in enumerate(scans):
        pairs = overlaps[t - 1] if t else {}
        beside = touching[t] if t < len(touching) else {}
        _step_cracks(tracks, [each for each in things if each.family == "crack"], pairs, beside)
        for family in sorted({each.family for each in things} - {"crack"}):
            _step(tracks, [each for each in things if each.family == family], pairs)
    return _numbered(tracks)


def _numbered(tracks: list[Track]) -> list[Track]:
    """Numbers from 1: what is told first, then by time, the largest first."""

    def order(track: Track) -> tuple[bool, int, float, tuple[float, float, float]]:
        first = track.things[0]
        grain = first.kind in {"pore", "inclusion", "unresolved"}
        return grain, first.scan, -max(each.volume_um3 for each in track.things), first.place_um

    tracks = sorted(tracks, key=order)
    for number, track in enumerate(tracks, start=1):
        track.number = number
    return tracks


def _step(tracks: list[Track], things: list[Thing], pairs: Pairs) -> None:
    """Link compact objects of one family in one scan to tracks."""
    t, family = things[0].scan, things[0].family
    old = {
        track.things[-1].object: track
        for track in tracks
        if track.things[-1].family == family and track.last_scan == t - 1 and not track.went
    }
    new = {each.object: each for each in things}
    shared = {(i, j): n for (i, j), n in pairs.items() if i in old and j in new}
    costs = {
        key: _cost(old[key[0]].things[-1], new[key[1]], n)
        for key, n in shared.items()
        if _share(old[key[0]].things[-1], new[key[1]], n) >= _LEAST_SHARE
    }
    chosen = assign(costs)
    taken = {j: old[i] for i, j in chosen.items()}
    parts = _parts(old, new, shared, set(chosen.values()))
    _after_merges(tracks, taken, _into(old, new, shared, set(chosen)), new)
    _after_splits(tracks, taken, parts, new)
    rest = [each for j, each in new.items() if j not in taken]
    for j, track in _found_near(tracks, rest, family).items():
        track.things.append(new[j])
        taken[j] = track
    for j, each in new.items():
        if j in taken:
            continue
        if j in parts and parts[j].holds:
            parts[j].holds.pop()
        tracks.append(Track([each], came="part" if j in parts else "seen"))
    for j, track in taken.items():
        _mark_joined(track, new[j])


def _mark_joined(track: Track, thing: Thing) -> None:
    track.holds = [each for each in track.holds if each.went == "part"]
    hidden = sum(each.things[-1].volume_um3 for each in track.holds)
    # less than half a standard error does not change a rate
    if hidden > (thing.high_um3 - thing.volume_um3) / 4:
        track.joined.add((thing.scan, thing.object))


def _share(a: Thing, b: Thing, voxels: float) -> float:
    """Part of the smaller of two objects that lies in the other."""
    scale = (b.voxel_um / a.voxel_um) ** 3
    return voxels / max(min(a.voxels, b.voxels * scale), 1.0)


def _cost(a: Thing, b: Thing, voxels: float) -> float:
    """1 - share; of two that lie in the same one the larger is it."""
    scale = (b.voxel_um / a.voxel_um) ** 3
    alike = voxels / max(a.voxels, b.voxels * scale, 1.0)
    return 1 - min(_share(a, b, voxels), 1.0) + 0.5 * (1 - min(alike, 1.0))


def _into(
    old: Mapping[int, Track], new: Mapping[int, Thing], shared: Pairs, linked: set[int]
) -> dict[int, list[Track]]:
    """Tracks without a partner that lie mostly in one object, by that object."""
    met: dict[int, list[tuple[float, tuple[float, float, float], int]]] = {}
    for (i, j), n in shared.items():
        met.setdefault(i, []).append((n, new[j].place_um, j))
    found: dict[int, list[Track]] = {}
    for i in sorted(met.keys() - linked):
        n, _, j = max(met[i])
        if n >= _MOSTLY * max(old[i].things[-1].voxels, 1):
            found.setdefault(j, []).append(old[i])
    return found


def _parts(
    old: Mapping[int, Track], new: Mapping[int, Thing], shared: Pairs, linked: set[int]
) -> dict[int, Track]:
    """Objects without a partner that lie mostly in what was one object."""
    met: dict[int, list[tuple[float, tuple[float, float, float], int]]] = {}
    for (i, j), n in shared.items():
        met.setdefault(j, []).append((n, old[i].things[-1].place_um, i))
    found: dict[int, Track] = {}
    for j in sorted(met.keys() - linked):
        n, _, i = max(met[j])
        if n * (old[i].things[-1].voxel_um / new[j].voxel_um) ** 3 >= _MOSTLY * max(new[j].voxels, 1):
            found[j] = old[i]
    return found


def _after_merges(
    tracks: list[Track], taken: dict[int, Track], into: Mapping[int, list[Track]], new: Mapping[int, Thing]
) -> None:
    """Objects that hold several tracks: one body made of them, or several that touch."""
    for j, track in list(taken.items()):
        whole, before = new[j], [track, *into.get(j, [])]
        parts = [each.things[-1] for each in before]
        if len(before) > 1 and _merged(parts, whole):
            taken[j] = _made(tracks, before, [whole], "merge")[0]
            continue
        if len(before) == 1 and _rounded(parts[0], whole):
            taken[j] = _made(tracks, before, [whole], "merge")[0]
            continue
        track.things.append(whole)
        for each in before[1:]:
            each.went = "part"
            track.holds.append(each)


def _merged(parts: list[Thing], whole: Thing) -> bool:
    """Whether a whole is surely one body, of parts that surely were, or are."""
    return whole.sure and all(each.sure for each in parts) and coalesced(parts, whole)


def _rounded(part: Thing, whole: Thing) -> bool:
    """Whether two balls that touched, one object even then, are one ball of the same volume now."""
    shapes = (part.sphericity, part.elongation, whole.sphericity, whole.elongation)
    if {part.kind, whole.kind} != {"bubble"} or None in shapes or part.truncated or whole.truncated:
        return False
    before = all((a or 0.0) < most for a, most in zip(shapes[:2], _TWO, strict=True))
    after = all((a or 0.0) > least for a, least in zip(shapes[2:], _ONE, strict=True))
    return before and after and part.sure and whole.sure and adds_up([part], whole)


def _made(tracks: list[Track], before: list[Track], things: list[Thing], how: str) -> list[Track]:
    """New tracks for what others became."""
    made = [Track([each], parents=list(before), came=how) for each in things]
    for each in before:
        each.went = how
    tracks += made
    return made


def _after_splits(
    tracks: list[Track], taken: dict[int, Track], parts: Mapping[int, Track], new: Mapping[int, Thing]
) -> None:
    """Tracks that were one body and are several; pieces of what only touched stay open."""
    by_track: dict[int, list[int]] = {}
    for j, track in parts.items():
        by_track.setdefault(id(track), []).append(j)
    for j, track in list(taken.items()):
        pieces = [new[j], *(new[k] for k in by_track.get(id(track), []))]
        if len(pieces) == 1 or track.things[-1] is not new[j] or len(track.things) < 2:
            continue
        before = track.things[-2]
        if _merged(pieces, before) and adds_up(pieces, before):
            track.things.pop()
            made = _made(tracks, [track], pieces, "split")
            taken.update({each.object: one for each, one in zip(pieces, made, strict=True)})


def _found_near(tracks: list[Track], rest: list[Thing], family: str) -> dict[int, Track]:
    """Tracks that ended before, or jumped, and go on in objects that overlap none."""
    if not rest:
        return {}
    t = rest[0].scan
    open_ones = [
        track
        for track in tracks
        if track.things[-1].family == family
        and track.went not in {"merge", "split"}
        and 0 < t - track.last_scan <= MOST_MISSED + 1
    ]
    if not open_ones:
        return {}
    lasts = [track.last for track in open_ones]
    reach = _JUMP * 2 * max(each.radius_um for each in (*lasts, *rest)) + rest[0].voxel_um
    tree = cKDTree(places_of(lasts))
    costs: dict[tuple[int, int], float] = {}
    for k, each in enumerate(rest):
        for i in tree.query_ball_point(each.place_um, reach):
            cost = _jump_cost(lasts[i], each)
            if cost is not None:
                costs[i, k] = cost
    found = assign(costs)
    for i in found:
        open_ones[i].went = ""
    return {rest[k].object: open_ones[i] for i, k in found.items()}


def _jump_cost(a: Thing, b: Thing) -> float | None:
    """What it costs to take two that do not overlap for the same; None where they are not."""
    free = {a.kind, b.kind} == {"bubble"}
    reach = (_JUMP if free else _NEAR) * (a.radius_um + b.radius_um) + max(a.voxel_um, b.voxel_um)
    far = distance_um(a, b) / reach
    near = distance_um(a, b) <= _NEAR * (a.radius_um + b.radius_um) + max(a.voxel_um, b.voxel_um)
    # a crack may be many times what it was
    ratio = math.inf if near and a.family == "crack" else _LIKE_RATIO if near else _SAME_RATIO
    if far > 1 or not agree(a, b, ratio=ratio):
        return None
    volumes = [max(each.volume_um3, 1e-9) for each in (a, b)]
    return far + abs(math.log(volumes[0] / volumes[1])) + 0.5 * (b.scan - a.scan - 1)


def _step_cracks(tracks: list[Track], things: list[Thing], pairs: Pairs, beside: Pairs) -> None:
    """Link the pieces of cracks of one scan to networks."""
    if not things:
        return
    t = things[0].scan
    owners = {
        each.object: k
        for k, track in enumerate(tracks)
        if track.things[-1].family == "crack" and not track.went and track.last_scan == t - 1
        for each in track.at(t - 1)
    }
    pieces = {each.object: each for each in things}
    before = {each.object: each for k in set(owners.values()) for each in tracks[k].at(t - 1)}
    edges = [
        (("old", owners[i]), ("new", j))
        for (i, j), n in pairs.items()
        if i in owners and j in pieces and _share(before[i], pieces[j], n) >= _LEAST_CRACK_SHARE
    ]
    edges += [(("new", i), ("new", j)) for i, j in beside if i in pieces and j in pieces]
    found = []
    for group in _groups([("new", each.object) for each in things], edges):
        own = sorted((pieces[j] for side, j in group if side == "new"), key=_largest_first)
        if own:
            found.append((own, [tracks[k] for side, k in group if side == "old"]))
    # those that overlap something first: the others may take what is left nearby
    for own, olds in sorted(found, key=lambda each: (not each[1], _largest_first(each[0][0]))):
        _grow_network(tracks, olds, own)


def _largest_first(thing: Thing) -> tuple[float, tuple[float, float, float]]:
    return -thing.volume_um3, thing.place_um


def _grow_network(tracks: list[Track], olds: list[Track], own: list[Thing]) -> None:
    t = own[0].scan
    sure = [track for track in olds if any(each.sure for each in track.at(t - 1))]
    if len(sure) > 1:
        made = _made(tracks, olds, own[:1], "merge")[0]
        made.things += own[1:]
        return
    if not olds:
        near = _found_near(tracks, own[:1], "crack")
        olds = list(near.values())
    if not olds:
        tracks.append(Track(own))
        return
    main = min(sure or olds, key=lambda track: _largest_first(track.last))
    for other in olds:
        if other is not main:
            other.went = "part"
    main.things += own


def _groups(
    nodes: Sequence[tuple[str, int]], edges: Sequence[tuple[tuple[str, int], tuple[str, int]]]
) -> list[list[tuple[str, int]]]:
    """Nodes that edges join."""
    known = sorted({*nodes, *(node for edge in edges for node in edge)})
    number = {node: k for k, node in enumerate(known)}
    rows, columns = ([number[edge[side]] for edge in edges] for side in (0, 1))
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(known), len(known)))
    n, group = connected_components(graph, directed=False)
    found: list[list[tuple[str, int]]] = [[] for _ in range(n)]
    for node, k in zip(known, group.tolist(), strict=True):
        found[k].append(node)
    return found


def networks(tracks: Sequence[Track]) -> dict[int, int]:
    """Number of the crack network of each track of cracks: the lowest of those that became one."""
    cracks = [track for track in tracks if track.things[0].family == "crack"]
    edges = [(("t", a.number), ("t", b.number)) for b in cracks for a in b.parents]
    groups = _groups([("t", track.number) for track in cracks], edges) if cracks else []
    return {number: min(n for _, n in group) for group in groups for _, number in group}
