"""Things in the cell as shapes with a name, and what of them lies in the view: volumes, positions, openings.

A volume between two horizontal planes is exact for every shape made of solids: the area of a cross-section is
a parabola in z. Only where the rim of the round view cuts a body is its volume the sum of a fine grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from xctpipe.phantom.acquisition import Acquisition
from xctpipe.phantom.cell import Part
from xctpipe.phantom.shapes import Cylinder, Ellipsoid, Point, Shape, Solids
from xctpipe.phantom.timeline import TrueObject
from xctpipe.scan import DoubleArray

_NODES, _WEIGHTS = (part.copy() for part in np.polynomial.legendre.leggauss(3))
_GRID = 160
_ANGLES = 360
_PROFILE = 512
_MM3, _MM2, _MM = 1e9, 1e6, 1e3

Faces = tuple[tuple[float, float], ...]
"""Pieces of one face of a crack: area in mm^2 and opening in mm."""


@dataclass(frozen=True)
class View:
    """What is seen from all angles: a cylinder around the axis of rotation, between two planes."""

    radius_mm: float
    z0_mm: float
    z1_mm: float


def view_of(acquisition: Acquisition) -> View:
    """The view of a detector whose axis of rotation is where the acquisition has it."""
    a = acquisition
    pixel_mm, center = a.pixel_um * 1e-3, a.axis_px[1]
    half = a.rows * pixel_mm / 2
    return View(max(min(center + 0.5, a.cols - 0.5 - center), 0.5) * pixel_mm, -half, half)


@dataclass(frozen=True)
class Body:
    """One shape of the stack; of contrast 1, since it is the geometry that counts here.

    Bodies are nested: each lies wholly in its host, and what later bodies take of it is in `without`.
    Bodies with the same `object` are one thing; object 0 is a layer of the stack. `area_mm2` is that of
    one face of a crack, of the footprint of an interfacial void, or of the whole surface.
    """

    object: int
    kind: str
    name: str
    material: str
    host: str
    shape: Shape
    without: tuple[Shape, ...] = ()
    faces: Faces = ()
    area_mm2: float = math.nan

    @property
    def volume_mm3(self) -> float:
        """Volume of the whole body, in closed form."""
        return self.shape.volume_mm3 - sum(shape.volume_mm3 for shape in self.without)

    def moved(self, shift_mm: Point, *, turn_rad: float) -> "Body":
        """The body after a motion of the stack."""
        if not turn_rad and not any(shift_mm):
            return self
        shape = self.shape.moved(shift_mm, turn_rad=turn_rad)
        cuts = tuple(cut.moved(shift_mm, turn_rad=turn_rad) for cut in self.without)
        return replace(self, shape=shape, without=cuts)

    def part(self, mu_cm1: dict[str, float]) -> Part:
        """The body as a part of a sample, with the contrast of its material against its host."""
        contrast = mu_cm1[self.material] - mu_cm1[self.host]
        return Part(self.name, self.material, replace(self.shape, delta_mu_cm1=contrast), self.host)  # type: ignore[type-var]


def moments(shape: Shape, *, z_mm: tuple[float, float] = (-math.inf, math.inf)) -> DoubleArray:
    """Volume of a shape of contrast 1 between two planes, and the integrals of x, y and z over it."""
    if not isinstance(shape, Solids):
        raise TypeError(f"{type(shape).__name__} is not made of solids")
    total = np.zeros(4)
    for z0, z1, x, y, z, s_xx, _, _, s_xz, s_yz, s_zz, strength in shape.solids():
        low, high = max(z0, z_mm[0]), min(z1, z_mm[1])
        if high <= low:
            continue
        at = 0.5 * (low + high) + 0.5 * (high - low) * _NODES
        if math.isinf(s_zz):
            area, lean = np.full_like(at, math.pi * s_xx * strength), np.zeros((2, len(at)))
        else:
            h = at - z
            area = math.pi * strength / s_zz * (1 - h**2 / s_zz)
            lean = np.array([s_xz, s_yz])[:, None] / s_zz * h
        mass = 0.5 * (high - low) * _WEIGHTS * area
        total += [mass.sum(), (mass * (x + lean[0])).sum(), (mass * (y + lean[1])).sum(), (mass * at).sum()]
    return total


def reach_mm(shape: Shape) -> float:
    """Largest distance of a shape from the axis of rotation, to about 1e-5 of it."""
    angles = np.linspace(0, math.pi, _ANGLES, endpoint=False)
    z0, z1, zc, uc, shear, width2, curvature, _ = np.moveaxis(shape.shadows(angles), -1, 0)[..., None]
    h = z0 + (z1 - z0) * np.linspace(0, 1, 129) - zc
    half = np.sqrt(np.maximum(width2 * (1 - curvature * h**2), 0))
    return float(np.max(np.abs(uc + shear * h) + half))


def is_cut(shape: Shape, *, view: View) -> tuple[bool, bool]:
    """Whether a shape reaches beyond the rim of the view, and whether beyond its upper or lower edge."""
    (x0, x1), (y0, y1), (z0, z1) = shape.bounds_mm
    corner = math.hypot(max(-x0, x1), max(-y0, y1))
    by_rim = corner > view.radius_mm and reach_mm(shape) > view.radius_mm
    return by_rim, z0 < view.z0_mm or z1 > view.z1_mm


def seen_moments(body: Body, *, view: View) -> tuple[DoubleArray, bool]:
    """Moments of the part of a body that lies in the view, and whether some of it does not."""
    by_rim, by_rows = is_cut(body.shape, view=view)
    if not (by_rim or by_rows or body.without) and isinstance(body.shape, Ellipsoid):
        return np.array([1.0, *body.shape.center_mm]) * body.shape.volume_mm3, False
    if by_rim:
        return _sampled(body, view=view), True
    rows = (view.z0_mm, view.z1_mm)
    total = moments(body.shape, z_mm=rows)
    for cut in body.without:
        total = total - moments(cut, z_mm=rows)
    return total, by_rows


def _sampled(body: Body, *, view: View) -> DoubleArray:
    (x0, x1), (y0, y1), (z0, z1) = body.shape.bounds_mm
    z0, z1, r = max(z0, view.z0_mm), min(z1, view.z1_mm), view.radius_mm
    x0, x1, y0, y1 = max(x0, -r), min(x1, r), max(y0, -r), min(y1, r)
    if x0 >= x1 or y0 >= y1 or z0 >= z1:
        return np.zeros(4)
    place = (np.arange(_GRID) + 0.5) / _GRID
    x, y = x0 + (x1 - x0) * place[None], y0 + (y1 - y0) * place[:, None]
    seen = x**2 + y**2 <= view.radius_mm**2
    total = np.zeros(4)
    for z in z0 + (z1 - z0) * place:
        inside = seen & body.shape.contains(x, y, np.array(z))
        for cut in body.without:
            inside &= ~cut.contains(x, y, np.array(z))
        n = np.count_nonzero(inside)
        total += [n, (inside * x).sum(), (inside * y).sum(), n * z]
    return np.asarray(total * (x1 - x0) * (y1 - y0) * (z1 - z0) / _GRID**3)


@dataclass(frozen=True)
class Seen:
    """What of a body lies in the view: volume and the integrals of x, y, z; whether some of it does not."""

    body: Body
    moments: DoubleArray
    truncated: bool


def seen_in(view: View, bodies: Sequence[Body]) -> list[Seen]:
    """What of each body lies in the view."""
    return [Seen(body, *seen_moments(body, view=view)) for body in bodies]


def true_object(
    seen: Sequence[Seen], *, interface_mm: float, row0_mm: float, percolates: bool = False
) -> TrueObject | None:
    """What is true of the thing made of some bodies in one scan; None where nothing of it is in view."""
    bodies = [part.body for part in seen]
    volume, *weighted = sum(part.moments for part in seen)  # type: ignore[misc]
    if not volume > 0:
        return None
    x, y, z = (float(moment / volume) for moment in weighted)
    median, largest = opening_mm([face for body in bodies for face in body.faces])
    bottom = max(body.shape.bounds_mm[2][1] for body in bodies)
    return TrueObject(
        object=bodies[0].object,
        kind=bodies[0].kind,
        volume_um3=float(volume) * _MM3,
        whole_volume_um3=sum(body.volume_mm3 for body in bodies) * _MM3,
        area_um2=sum(body.area_mm2 for body in bodies) * _MM2,
        opening_median_um=median * _MM,
        opening_max_um=largest * _MM,
        depth_um=max(bottom - interface_mm, 0.0) * _MM,
        z_um=(z - row0_mm) * _MM,
        y_um=y * _MM,
        x_um=x * _MM,
        truncated=any(part.truncated for part in seen),
        percolates=percolates,
        parts=tuple(body.name for body in bodies),
    )


def opening_mm(faces: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Median by area, and maximum, of the openings of a crack; NaN without faces."""
    if not faces:
        return math.nan, math.nan
    area, opening = np.array(faces).T
    order = np.argsort(opening, kind="stable")
    share = np.cumsum(area[order]) - 0.5 * area[order]
    return float(np.interp(0.5 * area.sum(), share, opening[order])), float(opening.max())


def ellipse_faces(
    width_mm: float, *, half_mm: tuple[float, float], cut_mm: tuple[float, float] | None = None
) -> Faces:
    """Pieces of a crack whose opening is that of Sneddon's penny, `width sqrt(1 - (s/a)^2 - (t/b)^2)`.

    Its face is the ellipse of half axes a and b, between the lines t of `cut_mm` (all of it when absent).
    """
    a, b = half_mm
    if cut_mm is None:
        share = (np.arange(_PROFILE) + 0.5) / _PROFILE
        piece = math.pi * a * b / _PROFILE
        return (*((piece, width_mm * math.sqrt(1 - s)) for s in share.tolist()), (0.0, width_mm))
    low, high = max(cut_mm[0], -b), min(cut_mm[1], b)
    t, weight = (0.5 * part for part in np.polynomial.legendre.leggauss(64))
    t = 0.5 * (low + high) + (high - low) * t
    line = np.sqrt(1 - (t / b) ** 2)
    s, share = (0.5 * part for part in np.polynomial.legendre.leggauss(64))
    across = np.sqrt(1 - (2 * s) ** 2)
    area = (high - low) * weight[:, None] * 2 * a * line[:, None] * share
    width = width_mm * line[:, None] * across
    return (*zip(area.ravel().tolist(), width.ravel().tolist(), strict=True), (0.0, width_mm))


def disc_overlap_mm2(radius_a_mm: float, radius_b_mm: float, *, distance_mm: float) -> float:
    """Area that two discs share."""
    a, b, d = radius_a_mm, radius_b_mm, distance_mm
    if d >= a + b:
        return 0.0
    if d <= abs(a - b):
        return math.pi * min(a, b) ** 2
    at = (d * d + a * a - b * b) / (2 * d)
    half = math.sqrt(max(a * a - at * at, 0.0))
    return a * a * math.acos(at / a) + b * b * math.acos((d - at) / b) - d * half


def seen_layer_mm3(disc: Cylinder, *, view: View) -> float:
    """Volume of an upright disc within the view, in closed form."""
    height = min(disc.z1_mm, view.z1_mm) - max(disc.z0_mm, view.z0_mm)
    area = disc_overlap_mm2(disc.radius_mm, view.radius_mm, distance_mm=math.hypot(disc.x_mm, disc.y_mm))
    return max(height, 0.0) * area


def ball(center_mm: Point, radius_mm: float) -> Ellipsoid:
    """Ball of contrast 1."""
    return Ellipsoid(center_mm, (radius_mm, radius_mm, radius_mm), 1.0)
