"""The stage that says which object of a scan is which of the next, what happened to it, and when cracks came.

Overlaps of label images are counted block after block; what is decided is decided on tables.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe import volume
from xctpipe.appearance_volume import write_appearance
from xctpipe.blocks import Block, Slices, block_shape, blocks_of, run_blocks
from xctpipe.csvtables import Row, read_table
from xctpipe.errors import BadScan, UserError
from xctpipe.ground import first_row, view_of
from xctpipe.label_volume import label_attributes, read_labels
from xctpipe.runfolder import ScanFolder, write_table
from xctpipe.scan import DoubleArray
from xctpipe.scene_file import read_values
from xctpipe.segmentation import SCENE
from xctpipe.series import overlap
from xctpipe.series.appearance import first_appearance
from xctpipe.series.events import Event, events_of
from xctpipe.series.growth_things import CRACKS
from xctpipe.series.overlap import Counts, Grid, Ids, Way, way_between
from xctpipe.series.rigid import Rigid
from xctpipe.series.things import Thing
from xctpipe.series.tracks import Track, link, networks
from xctpipe.stages import SEGMENT, TRACK, ScanWork, SeriesWork, done_record

TRACK_COLUMNS = ("track", "scan", "object", "kind", "network", "joined")
"""Of tracks.csv. `joined`: the object holds other tracks too, which it touches: its volume is that of all."""
_AMOUNTS = ("volume_um3", "closing_um3", "filling_um3", "contrast_um3", "parts_um3")
EVENT_COLUMNS = ("kind", "scan_from", "scan_to", "tracks", *_AMOUNTS, "adds_up")
"""Of events.csv."""

_PLACE = ("z_um", "y_um", "x_um")
_MOST_MARGIN_UM = 1000.0
_BYTES_PER_VOXEL = 140
# a void of twice the radius that is found almost always cannot have been there unseen
_BEYOND_LIMIT = 2.0


@dataclass(frozen=True, eq=False)
class _Seen:
    """A scan as tracking sees it."""

    work: ScanWork
    grid: Grid
    level: int
    view_um: float
    moved: Rigid
    """From the first scan to this one."""

    def read(self) -> "_Read":
        return _Read(self.work.volume, self.level)

    def in_view(self, places_um: DoubleArray, *, margin_um: DoubleArray) -> NDArray[np.bool_]:
        """Whether positions (n, 3) in the first scan lie in this view, with a ball around each."""
        z, y, x = self.moved(places_um).T
        low = self.grid.first_um + margin_um
        high = self.grid.first_um + (self.grid.shape[0] - 1) * self.grid.voxel_um - margin_um
        return np.asarray((np.hypot(y, x) + margin_um < self.view_um) & (low < z) & (z < high))


@dataclass(frozen=True)
class _Read:
    path: Path
    level: int

    def __call__(self, where: Slices) -> Ids:
        z, y, x = where
        try:
            labels = read_labels(self.path, "objects", level=self.level, z=z, y=y, x=x)
        except (OSError, ValueError, RuntimeError) as err:
            raise BadScan(f"{self.path}: its labels are damaged ({err}); segment the scan again") from err
        return labels.astype(np.int32, copy=False)


def track(work: SeriesWork, placed: Mapping[str, Rigid]) -> list[str]:
    """Write tracks.csv, events.csv and the label image `appearance` of the first scan.

    Parameters
    ----------
    placed : where the pellet of the first scan lies in each scan. A scan that has none, or that has no
        labels, is left out.

    Returns
    -------
    Warnings, for the user.
    """
    scans, warnings = _all_seen(work, placed)
    things, unread = _things(work, scans)
    warnings += unread
    counted = [_count(work, scans, t, things) for t in range(len(scans))]
    things = [
        [_with_size(each, sizes) for each in some]
        for some, (sizes, _, _) in zip(things, counted, strict=True)
    ]
    tracks = link(things, [c[1] for c in counted[:-1]], [c[2] for c in counted])
    events = events_of(tracks, n_scans=len(scans), up=_up(scans))
    names = [each.work.name for each in scans]
    _write(work, tracks, events, names)
    if scans:
        _write_appearance(work, scans, tracks)
    if len(scans) == 1:
        warnings.append(f"{names[0]}: the only scan: nothing to track, no events")
    return warnings


def _all_seen(work: SeriesWork, placed: Mapping[str, Rigid]) -> tuple[list[_Seen], list[str]]:
    """Scans that can be tracked, and what is wrong with the others."""
    scans, warnings = [], []
    for each in work.scans:
        if each.name not in placed:
            warnings.append(f"{each.name}: not tracked: where its pellet lies is not known")
            continue
        try:
            scans.append(_seen(each, placed[each.name]))
        except (UserError, OSError, ValueError, KeyError) as err:
            warnings.append(f"{each.name}: not tracked: its labels cannot be read ({err}); segment it again")
    return scans, warnings


def _seen(work: ScanWork, moved: Rigid) -> _Seen:
    level = int(label_attributes(work.volume, "objects")["level"])
    spec = volume.read_spec(work.volume)
    axis, radius = view_of(work.volume, level=level)
    voxel = spec.pixel_um * 2**level
    grid = Grid(volume.level_shapes(spec)[level], voxel, first_row(work.volume, level=level) * voxel, axis)
    return _Seen(work, grid, level, radius * voxel, moved)


def _things(work: SeriesWork, scans: Sequence[_Seen]) -> tuple[list[list[Thing]], list[str]]:
    """Objects of each scan, and what could not be read."""
    rows: list[Row] = []
    unread = []
    try:
        rows = read_table(work.tables / "objects.csv", needed=("scan", "object", "kind", *_PLACE))
    except BadScan as err:
        unread = [f"nothing is tracked: {err}"]
    limit = _void_limit(work)
    number = {each.work.name: t for t, each in enumerate(scans)}
    by_scan: list[list[Row]] = [[] for _ in scans]
    for row in rows:
        t = number.get(row["scan"])
        if t is not None and None not in [row[name] for name in ("object", *_PLACE)]:
            by_scan[t].append(row)
    return [_things_of(some, t, scans, limit_um3=limit) for t, some in enumerate(by_scan)], unread


def _things_of(rows: Sequence[Row], t: int, scans: Sequence[_Seen], *, limit_um3: float) -> list[Thing]:
    """Objects of one scan, placed in the first one, all at once: there may be 100 000 of them."""
    at = np.array([[row[name] for name in _PLACE] for row in rows], np.float64).reshape(-1, 3)
    places = scans[t].moved.inverse(at)
    radii = np.cbrt(3 * np.array([max(_volume_um3(row), 0.0) for row in rows]) / (4 * math.pi))
    margins = np.minimum(radii, _MOST_MARGIN_UM)
    seen = np.array([each.in_view(places, margin_um=margins) for each in scans]).reshape(len(scans), -1)
    views: dict[bytes, frozenset[int]] = {}
    return [
        _thing(
            row,
            scans[t],
            scan=t,
            place_um=(place[0], place[1], place[2]),
            in_view=views.setdefault(view.tobytes(), frozenset(np.flatnonzero(view).tolist())),
            limit_um3=limit_um3,
        )
        for row, place, view in zip(rows, places.tolist(), seen.T, strict=True)
    ]


def _volume_um3(row: Row) -> float:
    """Volume of an object; of one that has no measured volume, an inclusion, that of its voxels."""
    return float(row.get("volume_um3") or row.get("count_volume_um3") or 0.0)


def _thing(
    row: Row,
    seen: _Seen,
    *,
    scan: int,
    place_um: tuple[float, float, float],
    in_view: frozenset[int],
    limit_um3: float,
) -> Thing:
    volume_um3 = _volume_um3(row)
    low, high = (row.get(f"volume_{end}_um3") for end in ("low", "high"))
    return Thing(
        scan=scan,
        object=int(row["object"]),
        kind=row["kind"],
        place_um=place_um,
        volume_um3=volume_um3,
        low_um3=float(low) if low is not None else 0.0,
        high_um3=float(high) if high is not None else 2 * volume_um3,
        voxel_um=seen.grid.voxel_um,
        truncated=bool(row.get("truncated")),
        percolates=row.get("percolates") is True,
        fill=str(row.get("fill") or ""),
        sphericity=row.get("sphericity"),
        elongation=row.get("elongation"),
        area_um2=row.get("area_um2"),
        opening_um=row.get("opening_median_um"),
        limit_um3=limit_um3 if row["kind"] == "interfacial_void" else 0.0,
        in_view=in_view,
    )


def _void_limit(work: SeriesWork) -> float:
    """Volume of a void on the interface that cannot have been there unseen in any scan."""
    try:
        rows = read_table(work.tables / "interface.csv")
    except BadScan:
        return math.inf
    radii = [row["limit_radius_um"] for row in rows if row.get("limit_radius_um") is not None]
    return 2 / 3 * math.pi * (_BEYOND_LIMIT * max(radii)) ** 3 if radii else math.inf


def _with_size(thing: Thing, sizes: Mapping[tuple[int, int], float]) -> Thing:
    return replace(thing, voxels=int(sizes.get((thing.object, thing.object), 0)))


def _up(scans: Sequence[_Seen]) -> int:
    """Direction of z in which the NaK lies."""
    for each in scans:
        path = each.work.folder / SCENE
        if path.is_file():
            return -int(read_values(path).side)
    return -1


_Pairs = dict[tuple[int, int], float]


def _count(
    work: SeriesWork, scans: Sequence[_Seen], t: int, things: Sequence[Sequence[Thing]]
) -> tuple[_Pairs, _Pairs, _Pairs]:
    """Voxels of the objects of a scan, of their overlaps with those of the next, and of cracks that touch."""
    here = scans[t]
    then = scans[t + 1] if t + 1 < len(scans) else None
    way = None
    if then is not None:
        way = way_between(here.grid, then.grid, moved=then.moved.after(here.moved.inverse))
    cracks = tuple(sorted(each.object for each in things[t] if each.kind in CRACKS))
    task = _Count(
        here.read(), here.grid, then.read() if then else None, then.grid if then else None, way, cracks
    )
    edge = block_shape(
        here.grid.shape,
        memory_bytes=work.memory_bytes,
        bytes_per_voxel=_BYTES_PER_VOXEL,
        threads=work.threads,
        halo=2,
    )
    results = run_blocks(
        task,
        blocks_of(here.grid.shape, edge=edge),
        name=f"overlaps {here.work.name}",
        place=work.place,
        done=work.scratch(TRACK) / "done",
        fingerprint=[_mark(here), _mark(then), cracks],
    )
    sizes, shared, touching = (_summed(results, name) for name in ("sizes", "shared", "touching"))
    return sizes, shared, touching


def _mark(seen: _Seen | None) -> Any:
    if seen is None:
        return None
    labels = done_record(ScanFolder(seen.work.folder), SEGMENT) or {}
    moved = [*seen.moved.turn_rad, *seen.moved.shift_um]
    return [seen.work.name, labels.get("token"), label_attributes(seen.work.volume, "objects"), moved]


def _summed(results: Sequence[Mapping[str, NDArray[Any]]], name: str) -> _Pairs:
    total = overlap.add_up([Counts(each[f"{name}_pairs"], each[f"{name}_voxels"]) for each in results])
    return {(i, j): float(n) for i, j, n in total.items()}


@dataclass(frozen=True, eq=False)
class _Count:
    """Task that counts what objects of one block overlap."""

    read: _Read
    grid: Grid
    read_next: _Read | None
    next_grid: Grid | None
    way: Way | None
    cracks: tuple[int, ...]

    def __call__(self, block: Block) -> dict[str, Any]:
        labels = self.read(block.where)
        start = (block.core[0][0], block.core[1][0], block.core[2][0])
        none = overlap.add_up([])
        shared = touching = none
        if (
            self.read_next is not None
            and self.next_grid is not None
            and self.way is not None
            and labels.any()
        ):
            shared = overlap.overlaps(labels, start, read=self.read_next, grid=self.next_grid, way=self.way)
        if self.cracks:
            own = np.where(np.isin(labels, self.cracks), labels, 0)
            touching = (
                overlap.neighbours(own, start, read=self._cracks, grid=self.grid) if own.any() else none
            )
        found = {"sizes": overlap.sizes(labels), "shared": shared, "touching": touching}
        return {
            f"{name}_{part}": getattr(each, part)
            for name, each in found.items()
            for part in ("pairs", "voxels")
        }

    def _cracks(self, where: Slices) -> Ids:
        labels = self.read(where)
        return np.where(np.isin(labels, self.cracks), labels, 0).astype(np.int32)


def _write(work: SeriesWork, tracks: Sequence[Track], events: Sequence[Event], names: Sequence[str]) -> None:
    network = networks(tracks)
    rows: list[Row] = [
        {
            "track": each.number,
            "scan": names[thing.scan],
            "object": thing.object,
            "kind": thing.kind,
            "network": network.get(each.number),
            "joined": (thing.scan, thing.object) in each.joined,
        }
        for each in tracks
        for thing in each.things
    ]
    write_table(work.tables / "tracks.csv", rows, columns=TRACK_COLUMNS)
    write_table(
        work.tables / "events.csv", [_event_row(each, names) for each in events], columns=EVENT_COLUMNS
    )


def _event_row(event: Event, names: Sequence[str]) -> Row:
    return {
        "kind": event.kind,
        "scan_from": names[event.scan_from],
        "scan_to": names[event.scan_to],
        "tracks": " ".join(map(str, event.tracks)),
        **{name: _number(getattr(event, name)) for name in _AMOUNTS},
        "adds_up": event.adds_up,
    }


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value + 0.0:.7g}"


@dataclass(frozen=True, eq=False)
class _Appearance:
    """Makes parts of the map of first appearance; can be pickled."""

    reads: tuple[_Read, ...]
    grids: tuple[Grid, ...]
    ways: tuple[Way, ...]
    cracks: tuple[frozenset[int], ...]

    def __call__(self, where: Slices) -> NDArray[np.uint8]:
        return first_appearance(where, reads=self.reads, grids=self.grids, ways=self.ways, cracks=self.cracks)


def _write_appearance(work: SeriesWork, scans: Sequence[_Seen], tracks: Sequence[Track]) -> None:
    cracks: list[set[int]] = [set() for _ in scans]
    for each in tracks:
        if each.things[0].family == "crack" and _is_there(each, len(scans)):
            for thing in each.things:
                cracks[thing.scan].add(thing.object)
    first = scans[0]
    make = _Appearance(
        reads=tuple(each.read() for each in scans),
        grids=tuple(each.grid for each in scans),
        ways=tuple(
            way_between(first.grid, each.grid, moved=each.moved.after(first.moved.inverse)) for each in scans
        ),
        cracks=tuple(frozenset(each) for each in cracks),
    )
    names = [each.work.name for each in scans]
    write_appearance(first.work.volume, make, level=first.level, scans=names, place=work.place)


def _is_there(track: Track, n_scans: int) -> bool:
    """Whether a crack was seen more than once, where it could be."""
    only = len(track.scans) == 1
    return track.told and not (only and n_scans > 1 and track.scans[0] < n_scans - 1 and track.came == "seen")
