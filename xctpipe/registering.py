"""Registration of the scans of a series to the first one: reads fiducials, writes the table `registration`.

Volumes are never resampled: what is measured in a scan is mapped afterwards. Only patches about fiducials
are kept in memory, cut out of blocks.
"""

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xctpipe import volume
from xctpipe.csvtables import Row, read_table
from xctpipe.errors import BadScan, UserError
from xctpipe.fiducials import cut_patches
from xctpipe.ground import Ground, first_row_of
from xctpipe.runfolder import ScanFolder, write_table
from xctpipe.scan import DoubleArray
from xctpipe.scene_file import read_values
from xctpipe.segment.scene import COLLECTOR_FACE, COUNTER_FACE, INTERFACE, Scene
from xctpipe.segmentation import SCENE
from xctpipe.series import registration as reg
from xctpipe.series.reg_patches import LEAST, ROOM_PX, Cut, Fit, fit_patches, half_px, leveled
from xctpipe.series.reg_points import Matched, Points, match_points
from xctpipe.series.registration import COLLECTOR, PELLET, Part, Plane
from xctpipe.series.rigid import Rigid
from xctpipe.stages import SEGMENT, ScanWork, SeriesWork, done_record

_KINDS = ("pore", "inclusion")
_PLACE_AND_SIZE = ("z_um", "y_um", "x_um", "equivalent_diameter_um")
_MOST = 800
"""Fiducials that are compared: more would not help."""
_SMALL_PX = 5.0
"""Radius above which a fiducial loses nothing on a coarser level."""
_REACH_FRAC = 0.2
_LEAST_REACH_PX = 15.0
_TOLERANCE_PX = 1.5
_TOLERANCE_RAD = 0.006
_GATE_PX = 0.1
_FACE_PX = 0.5
"""The interface cannot lie farther than this from where its pellet does."""
_FLAT_PX = 0.03
"""Error of a face's tilt at the rim beyond what its heights scatter; measured on simulated cells."""
_TROUBLE = (UserError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
"""What a scan without labels, or with files that were damaged, ends in."""
_SHARED_PX = 0.01
"""Error that all fiducials share and their scatter does not show; measured on simulated cells."""


@dataclass(frozen=True)
class Registration:
    """Where the pellet lies in each scan, from where it lies in the first one."""

    pellet: Mapping[str, Rigid]
    """By scan; identity for one whose registration failed."""
    warnings: list[str]


def register(work: SeriesWork) -> Registration:
    """Register every scan of a series to its first one, and write the table `registration`.

    A scan for which this fails is taken to lie as the first one, with a warning; the series goes on.
    """
    rows: list[dict[str, object]] = []
    moves: dict[str, Rigid] = {}
    warnings: list[str] = []
    base = _Base.of(work)
    for scan in work.scans:
        parts, said = base.parts_of(scan)
        warnings += said
        moves[scan.name] = parts[PELLET].move
        rows += [
            reg.row_of(scan.name, name, part, pixel_um=base.pixel_um, middle_um=base.middle_um)
            for name, part in parts.items()
        ]
    work.tables.mkdir(parents=True, exist_ok=True)
    write_table(work.tables / "registration.csv", rows, columns=reg.COLUMNS)
    return Registration(moves, warnings)


@dataclass(frozen=True, eq=False)
class _Base:
    """What all scans are registered to."""

    work: SeriesWork
    points: Mapping[str, Points]
    """Fiducials by scan."""
    first: "_Seen | None"
    chosen: "_Chosen | None"
    why: str = ""
    """Why nothing can be registered, if so."""

    @classmethod
    def of(cls, work: SeriesWork) -> "_Base":
        if len(work.scans) < 2:
            return cls(work, {}, None, None)
        points = _fiducials(work)
        try:
            first = _Seen.of(work.scans[0], points)
            return cls(work, points, first, _Chosen.of(first, work))
        except _TROUBLE as err:
            return cls(work, points, None, None, f"{work.names[0]}, the first scan, cannot be used: {err}")

    @property
    def pixel_um(self) -> float:
        return self.first.pixel_um if self.first else 1.0

    @property
    def middle_um(self) -> tuple[float, float, float]:
        return self.first.middle_um if self.first else (0.0, 0.0, 0.0)

    def parts_of(self, scan: ScanWork) -> tuple[dict[str, Part], list[str]]:
        """The parts of the stack in a scan, and what the user must know of that."""
        if scan == self.work.scans[0]:
            return {PELLET: Part(Rigid(), reg.REFERENCE, 0.0)}, []
        why = self.why
        if self.first is not None and self.chosen is not None:
            try:
                return _registered(self.first, self.chosen, _Seen.of(scan, self.points), self.work)
            except _TROUBLE as err:
                why = str(err)
        failed = Part(Rigid(), reg.FAILED)
        return {PELLET: failed}, [f"{scan.name}: not registered ({why}); taken to lie as the first scan"]


@dataclass(frozen=True, eq=False)
class _Seen:
    """A scan as registration sees it."""

    work: ScanWork
    ground: Ground
    points: Points
    pixel_um: float
    """Edge of a voxel as reconstructed."""

    @classmethod
    def of(cls, work: ScanWork, points: Mapping[str, Points]) -> "_Seen":
        record = done_record(ScanFolder(work.folder), SEGMENT) or {"result": {"level": 0}}
        scene: Scene = read_values(work.folder / SCENE)
        ground = Ground(work.volume, int(record["result"]["level"]), scene)
        return cls(work, ground, points[work.name], volume.read_spec(work.volume).pixel_um)

    @property
    def scene(self) -> Scene:
        return self.ground.scene

    def plane(self, name: str) -> Plane | None:
        """A face in micrometers; None where it is not in view."""
        surface, voxel = self.scene.surfaces.get(name), self.scene.voxel_um
        if surface is None or not np.isfinite(surface.reference).all():
            return None
        c = surface.reference
        z = (float(c[0]) + first_row_of(self.ground)) * voxel
        return Plane(z, float(c[1]), float(c[2]), surface.reference_sigma_px * voxel)

    @property
    def heights_um(self) -> tuple[float, float]:
        """Of the pellet's faces on the axis, as far as they are in view."""
        start = first_row_of(self.ground) * self.scene.voxel_um
        ends = [start, start + (self.scene.shape[0] - 1) * self.scene.voxel_um]
        for i, name in ((0, INTERFACE), (1, COUNTER_FACE)):
            plane = self.plane(name)
            if plane is not None:
                ends[i if self.scene.side > 0 else 1 - i] = plane.z_um
        return min(ends), max(ends)

    @property
    def radius_um(self) -> float:
        return self.scene.view_px * self.scene.voxel_um

    @property
    def middle_um(self) -> tuple[float, float, float]:
        low, high = self.heights_um
        return (low + high) / 2, 0.0, 0.0


def _fiducials(work: SeriesWork) -> dict[str, Points]:
    """Pores and inclusions of each scan that are whole in view; none where the table cannot be read.

    The table is large, and read once.
    """
    found: dict[str, list[Row]] = {name: [] for name in work.names}
    try:
        rows = read_table(work.tables / "objects.csv", needed=("scan", "kind", "truncated", *_PLACE_AND_SIZE))
    except BadScan:
        # tracking, which can do nothing without it, says so
        rows = []
    for row in rows:
        known = all(row[key] is not None for key in _PLACE_AND_SIZE)
        if row["scan"] in found and row["kind"] in _KINDS and not row["truncated"] and known:
            found[row["scan"]].append(row)
    return {name: _points(rows) for name, rows in found.items()}


def _points(rows: Sequence[Row]) -> Points:
    at = np.array([[row["z_um"], row["y_um"], row["x_um"]] for row in rows], np.float64).reshape(-1, 3)
    size = np.array([row["equivalent_diameter_um"] for row in rows], np.float64)
    return Points(at, tuple(str(row["kind"]) for row in rows), size)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Fiducials of the first scan that grey values are compared around."""

    at_um: DoubleArray
    radius_px: DoubleArray
    level: int
    cut: Cut | None

    @classmethod
    def of(cls, first: _Seen, work: SeriesWork) -> "_Chosen":
        size = first.points.size_um
        level = _level(first, size)
        voxel = first.pixel_um * 2**level
        best = np.flatnonzero(size / 2 <= 2 * _SMALL_PX * voxel)
        best = np.sort(best[np.argsort(-size[best], kind="stable")[:_MOST]])
        at, radius = first.points.at_um[best], size[best] / 2 / voxel
        cut = None
        if len(best) >= LEAST:
            ground = replace(first.ground, level=level)
            cut = cut_patches(ground, at, half=half_px(radius), work=work, name=first.work.name)
        return cls(at, radius, level, cut)


def _level(first: _Seen, size_um: DoubleArray) -> int:
    """The coarsest level on which most fiducials still are several voxels wide."""
    n_levels = volume.read_spec(first.work.volume).n_levels
    usual = float(np.median(size_um)) / 2 / first.pixel_um if len(size_um) else 1.0
    steps = max(0, math.floor(math.log2(max(usual / (_SMALL_PX / 2), 1.0))))
    return min(max(first.ground.level, steps), n_levels - 1)


def _registered(
    first: _Seen, chosen: _Chosen, later: _Seen, work: SeriesWork
) -> tuple[dict[str, Part], list[str]]:
    if not math.isclose(later.pixel_um, first.pixel_um, rel_tol=1e-6):
        raise BadScan(f"voxels of {later.pixel_um:g} um, those of the first scan are {first.pixel_um:g} um")
    parts = {}
    matched = _matched(first, later)
    fit = _refined(chosen, later, matched, work)
    parts[PELLET], said = _pellet(first, later, matched, fit)
    collector = reg.face_part(first.plane(COLLECTOR_FACE), later.plane(COLLECTOR_FACE), status=reg.OK)
    if collector is not None:
        parts[COLLECTOR] = collector
    return parts, said


def _matched(first: _Seen, later: _Seen) -> Matched | None:
    voxel, radius = first.scene.voxel_um, first.radius_um
    return match_points(
        first.points,
        later.points,
        reach_um=max(_LEAST_REACH_PX * voxel, _REACH_FRAC * radius),
        tolerance_um=_TOLERANCE_PX * voxel + _TOLERANCE_RAD * radius,
    )


def _refined(chosen: _Chosen, later: _Seen, matched: Matched | None, work: SeriesWork) -> Fit | None:
    if matched is None or chosen.cut is None:
        return None
    half = half_px(chosen.radius_px) + ROOM_PX
    ground, at = replace(later.ground, level=chosen.level), matched.move(chosen.at_um)
    cut = cut_patches(ground, at, half=half, work=work, name=later.work.name)
    voxel = later.pixel_um * 2**chosen.level
    return fit_patches(chosen.cut, cut, chosen.radius_px, voxel_um=voxel, start=matched.move)


def _pellet(first: _Seen, later: _Seen, matched: Matched | None, fit: Fit | None) -> tuple[Part, list[str]]:
    """The best that is known of the pellet, and what the user must know of that."""
    name, pixel = later.work.name, first.pixel_um
    points = reg.pellet_points(first.radius_um, first.heights_um)
    if fit is not None:
        fit = _leveled(fit, first, later)
        error = math.hypot(fit.error_um(fit.move(points)), _SHARED_PX * pixel)
        counted = int(np.count_nonzero(fit.shares > 0))
        said = _doubts(first, later, fit.move)
        if error > _GATE_PX * pixel:
            said.append(
                f"{name}: registered to {error / pixel:.2g} voxels only, by {counted} pores and inclusions"
            )
        return Part(fit.move, reg.UNSURE if said else reg.OK, error, fit.voxels, counted), said
    if matched is not None:
        part = Part(matched.move, reg.UNSURE, matched.error_um, fiducials=len(matched.pairs))
        return part, [
            f"{name}: registered by the centres of {len(matched.pairs)} pores and inclusions only: "
            "grey values around them could not be compared"
        ]
    face = reg.face_part(first.plane(INTERFACE), later.plane(INTERFACE), status=reg.UNSURE)
    why = f"{len(first.points.kinds)} and {len(later.points.kinds)} pores and inclusions that do not match"
    if face is None:
        return Part(Rigid(), reg.FAILED), [f"{name}: not registered ({why}); taken to lie as the first scan"]
    return face, [f"{name}: registered by the height and tilt of the interface only ({why})"]


def _leveled(fit: Fit, first: _Seen, later: _Seen) -> Fit:
    """The fit with the tilts of the pellet's faces: they matter where there is little texture."""
    for name in (INTERFACE, COUNTER_FACE):
        before, after = first.plane(name), later.plane(name)
        if before is not None and after is not None:
            sigma_um = math.hypot(before.sigma_um, after.sigma_um, _FLAT_PX * first.scene.voxel_um)
            turn = reg.moved_plane(before, after).turn_rad
            fit = leveled(fit, tilts_rad=turn[1:], sigma_rad=sigma_um / first.radius_um)
    return fit


def _doubts(first: _Seen, later: _Seen, move: Rigid) -> list[str]:
    """Whether the interface lies where the move of its pellet puts it."""
    before, after = first.plane(INTERFACE), later.plane(INTERFACE)
    if before is None or after is None:
        return []
    off = after.z_um - float(move((before.z_um, 0.0, 0.0))[0])
    if abs(off) <= _FACE_PX * first.scene.voxel_um + 5 * math.hypot(before.sigma_um, after.sigma_um):
        return []
    return [
        f"{later.work.name}: the interface lies {off:.3g} um from where pores and inclusions put it: "
        "the pellet was eaten away or broke, or the registration is wrong; look at both scans"
    ]
