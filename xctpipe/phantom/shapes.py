"""Shapes with closed-form parallel-beam projections, nested by difference contrast.

Lengths are mm from the point where the axis of rotation meets the middle detector row: x to the right,
y down, z along increasing rows. At angle a, a point is seen at `u = x cos a - y sin a`; attenuations are
cm^-1 and add where shapes overlap, so a bubble in a liquid is a sphere of minus the liquid.

A new shape is one class with the methods of `Shape`, registered by `@register`. Whatever has an ellipse
for every horizontal cross-section needs no new projection code: it describes its cross-sections as
shadows, the numbers of `SHADOW_FIELDS`, and several shadows of either sign may make up one shape. Where
these are upright cylinders and ellipsoids cut by horizontal planes, deriving from `Solids` makes the shadows
from a table that does not depend on the angle, which is quick for thousands of shapes.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from xctpipe.errors import BadRecipe, nearest
from xctpipe.scan import DoubleArray

Bounds = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
Point = tuple[float, float, float]
Rotation = tuple[Point, Point, Point]

UNROTATED: Rotation = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

SHADOW_FIELDS = (
    "z0_mm",
    "z1_mm",
    "z_centre_mm",
    "u_centre_mm",
    "u_shear",
    "half_width2_mm2",
    "z_curvature_mm2",
    "depth_cm1",
)
"""One shadow: in the plane z of [z0, z1], with h = z - z_centre, the ray at u has the line integral
`2 depth sqrt(half_width2 (1 - z_curvature h^2) - (u - u_centre - u_shear h)^2)` in cm^-1 mm."""

SOLID_FIELDS = (
    "z0_mm",
    "z1_mm",
    "x_mm",
    "y_mm",
    "z_mm",
    "s_xx_mm2",
    "s_xy_mm2",
    "s_yy_mm2",
    "s_xz_mm2",
    "s_yz_mm2",
    "s_zz_mm2",
    "strength",
)
"""One solid: the part in z of [z0, z1] of the ellipsoid (p - centre)^T S^-1 (p - centre) = 1, its strength
being the contrast times sqrt(det S s_zz); or, where s_zz is infinite, of an upright circular cylinder with
radius^2 = s_xx, its strength being the contrast."""


def solid_shadows(solids: DoubleArray, *, angles_rad: DoubleArray) -> DoubleArray:
    """Shadows of solids, (solid, field of SOLID_FIELDS): (angle, solid, field of SHADOW_FIELDS)."""
    cos, sin = np.cos(angles_rad)[:, None], np.sin(angles_rad)[:, None]
    z0, z1, x, y, z, s_xx, s_xy, s_yy, s_xz, s_yz, s_zz, strength = solids.T
    upright = np.isinf(s_zz)
    s_zz = np.where(upright, 1.0, s_zz)
    s_uu = s_xx * cos**2 - 2 * s_xy * cos * sin + s_yy * sin**2
    s_uz = s_xz * cos - s_yz * sin
    det = s_uu * s_zz - s_uz**2
    out = np.empty((len(angles_rad), len(solids), len(SHADOW_FIELDS)))
    out[..., 0], out[..., 1], out[..., 2] = z0, z1, z
    out[..., 3] = x * cos - y * sin
    out[..., 4] = s_uz / s_zz
    out[..., 5] = np.where(upright, s_xx, det / s_zz)
    out[..., 6] = np.where(upright, 0.0, 1 / s_zz)
    out[..., 7] = np.where(upright, strength, strength / det)
    return out


class Shape(Protocol):
    """A body of uniform contrast `delta_mu_cm1` against what it is nested in."""

    @property
    def delta_mu_cm1(self) -> float:
        """Attenuation added inside the shape."""

    @property
    def volume_mm3(self) -> float:
        """Volume, in closed form."""

    @property
    def bounds_mm(self) -> Bounds:
        """Smallest box around the shape: (x0, x1), (y0, y1), (z0, z1)."""

    def shadows(self, angles_rad: DoubleArray) -> DoubleArray:
        """Cross-sections seen at each angle: (angle, shadow, field of SHADOW_FIELDS)."""

    def contains(self, x_mm: DoubleArray, y_mm: DoubleArray, z_mm: DoubleArray) -> NDArray[np.bool_]:
        """Whether each point is inside; the coordinates broadcast."""

    def moved(self, shift_mm: Point, *, turn_rad: float = 0.0) -> Self:
        """The shape turned about the axis of rotation (x towards y), then shifted by (x, y, z)."""


class Solids:
    """What a shape has that is made of solids: its shadows from the table."""

    def solids(self) -> DoubleArray:
        """Solids of either sign of contrast: (solid, field of SOLID_FIELDS)."""
        raise NotImplementedError

    def shadows(self, angles_rad: DoubleArray) -> DoubleArray:
        """Cross-sections seen at each angle: (angle, shadow, field of SHADOW_FIELDS)."""
        return solid_shadows(self.solids(), angles_rad=angles_rad)


def turned(x_mm: float, y_mm: float, *, turn_rad: float) -> tuple[float, float]:
    """A point turned about the axis of rotation, x towards y."""
    cos, sin = math.cos(turn_rad), math.sin(turn_rad)
    return x_mm * cos - y_mm * sin, x_mm * sin + y_mm * cos


ShapeClass = TypeVar("ShapeClass", bound=type[Shape])
SHAPES: dict[str, type[Shape]] = {}


def register(shape: ShapeClass) -> ShapeClass:
    """Make a shape known by its class name in lower case."""
    SHAPES[shape.__name__.lower()] = shape
    return shape


def to_dict(shape: Shape) -> dict[str, Any]:
    """Kind and fields of a shape as plain values, as `from_dict` takes them."""
    return {"kind": type(shape).__name__.lower(), **asdict(shape)}  # type: ignore[call-overload]


def from_dict(fields: Mapping[str, Any]) -> Shape:
    """The shape that `to_dict` described; BadRecipe for an unknown kind."""
    values = {key: _frozen(value) for key, value in fields.items() if key != "kind"}
    kind = str(fields.get("kind"))
    if kind not in SHAPES:
        raise BadRecipe(f"simulate: no shape {kind!r}; {nearest(kind, SHAPES)}")
    return SHAPES[kind](**values)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, list | tuple) else value


@register
@dataclass(frozen=True)
class Cylinder(Solids):
    """Upright cylinder between the planes z0 and z1."""

    x_mm: float
    y_mm: float
    radius_mm: float
    z0_mm: float
    z1_mm: float
    delta_mu_cm1: float

    def __post_init__(self) -> None:
        _check_positive("radius_mm", self.radius_mm)
        if not self.z0_mm < self.z1_mm:
            raise BadRecipe(f"simulate: cylinder from z {self.z0_mm} to {self.z1_mm} mm; z0 must be below z1")

    @property
    def volume_mm3(self) -> float:
        """Volume of the whole cylinder."""
        return math.pi * self.radius_mm**2 * (self.z1_mm - self.z0_mm)

    @property
    def bounds_mm(self) -> Bounds:
        """Box around the cylinder."""
        x, y, r = self.x_mm, self.y_mm, self.radius_mm
        return (x - r, x + r), (y - r, y + r), (self.z0_mm, self.z1_mm)

    def solids(self) -> DoubleArray:
        """One cylinder: a strip of constant width from each side."""
        r2 = self.radius_mm**2
        place = (self.z0_mm, self.z1_mm, self.x_mm, self.y_mm, 0.0)
        return np.array([[*place, r2, 0, r2, 0, 0, math.inf, self.delta_mu_cm1]])

    def moved(self, shift_mm: Point, *, turn_rad: float = 0.0) -> "Cylinder":
        """The cylinder turned about the axis of rotation, then shifted."""
        x, y = turned(self.x_mm, self.y_mm, turn_rad=turn_rad)
        return replace(
            self,
            x_mm=x + shift_mm[0],
            y_mm=y + shift_mm[1],
            z0_mm=self.z0_mm + shift_mm[2],
            z1_mm=self.z1_mm + shift_mm[2],
        )

    def contains(self, x_mm: DoubleArray, y_mm: DoubleArray, z_mm: DoubleArray) -> NDArray[np.bool_]:
        """Whether each point is inside."""
        in_plane = (x_mm - self.x_mm) ** 2 + (y_mm - self.y_mm) ** 2 <= self.radius_mm**2
        inside: NDArray[np.bool_] = in_plane & (z_mm >= self.z0_mm) & (z_mm < self.z1_mm)
        return inside


@register
@dataclass(frozen=True)
class Ellipsoid(Solids):
    """Ellipsoid of any orientation: column k of `rotation` is the direction (x, y, z) of semi-axis k."""

    center_mm: Point
    semi_axes_mm: Point
    delta_mu_cm1: float
    rotation: Rotation = UNROTATED

    def __post_init__(self) -> None:
        for length in self.semi_axes_mm:
            _check_positive("semi_axes_mm", length)
        turn = np.asarray(self.rotation, dtype=np.float64)
        if turn.shape != (3, 3) or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-9):
            raise BadRecipe(
                f"simulate: rotation {self.rotation} is not a rotation; give three orthonormal rows, "
                "as xctpipe.phantom.rotation makes them"
            )

    @property
    def volume_mm3(self) -> float:
        """Volume of the whole ellipsoid."""
        return 4 / 3 * math.pi * math.prod(self.semi_axes_mm)

    @property
    def bounds_mm(self) -> Bounds:
        """Box around the ellipsoid."""
        half = np.sqrt(np.diag(self._spread()))
        x, y, z = ((float(c - h), float(c + h)) for c, h in zip(self.center_mm, half, strict=True))
        return x, y, z

    def _spread(self) -> DoubleArray:
        """Matrix S of the surface (p - centre)^T S^-1 (p - centre) = 1; a projection of it is P S P^T."""
        axes = np.asarray(self.rotation) * np.asarray(self.semi_axes_mm)
        spread: DoubleArray = axes @ axes.T
        return spread

    def solids(self) -> DoubleArray:
        """One ellipsoid: an elliptic shadow, sheared where the ellipsoid leans along u."""
        s, (x, y, z) = self._spread(), self.center_mm
        height = math.sqrt(s[2, 2])
        strength = self.delta_mu_cm1 * math.prod(self.semi_axes_mm) * height
        place = (z - height, z + height, x, y, z)
        return np.array([[*place, s[0, 0], s[0, 1], s[1, 1], s[0, 2], s[1, 2], s[2, 2], strength]])

    def moved(self, shift_mm: Point, *, turn_rad: float = 0.0) -> "Ellipsoid":
        """The ellipsoid turned about the axis of rotation, then shifted."""
        x, y = turned(self.center_mm[0], self.center_mm[1], turn_rad=turn_rad)
        center = (x + shift_mm[0], y + shift_mm[1], self.center_mm[2] + shift_mm[2])
        return replace(self, center_mm=center, rotation=product(rotation(turn_rad), self.rotation))

    def contains(self, x_mm: DoubleArray, y_mm: DoubleArray, z_mm: DoubleArray) -> NDArray[np.bool_]:
        """Whether each point is inside."""
        inverse = np.linalg.inv(self._spread())
        d = (x_mm - self.center_mm[0], y_mm - self.center_mm[1], z_mm - self.center_mm[2])
        value = sum(inverse[i, i] * d[i] ** 2 for i in range(3))
        for i, j in ((0, 1), (0, 2), (1, 2)):
            if inverse[i, j]:
                value = value + 2 * inverse[i, j] * d[i] * d[j]
        inside: NDArray[np.bool_] = np.asarray(value <= 1)
        return inside


def sphere(center_mm: Point, *, radius_mm: float, delta_mu_cm1: float) -> Ellipsoid:
    """Ellipsoid of three equal axes."""
    return Ellipsoid(center_mm, (radius_mm, radius_mm, radius_mm), delta_mu_cm1)


def rotation(alpha_rad: float, beta_rad: float = 0.0, gamma_rad: float = 0.0) -> Rotation:
    """Rotation about z by alpha, then about x by beta, then about z by gamma (proper Euler angles)."""

    def about_z(t: float) -> DoubleArray:
        return np.array([[math.cos(t), -math.sin(t), 0], [math.sin(t), math.cos(t), 0], [0, 0, 1]])

    b = beta_rad
    about_x = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    m = (about_z(gamma_rad) @ about_x @ about_z(alpha_rad)).tolist()
    return tuple(m[0]), tuple(m[1]), tuple(m[2])


def product(first: Rotation, second: Rotation) -> Rotation:
    """Rotation that does `second`, then `first`."""
    x, y, z = (np.asarray(first) @ np.asarray(second)).tolist()
    return (x[0], x[1], x[2]), (y[0], y[1], y[2]), (z[0], z[1], z[2])


def line_integral(shape: Shape, *, angle_rad: float, u_mm: DoubleArray, z_mm: DoubleArray) -> DoubleArray:
    """Line integral of the contrast along rays, in cm^-1 mm; `u_mm` and `z_mm` broadcast."""
    u, z = np.broadcast_arrays(u_mm, z_mm)
    total = np.zeros(u.shape)
    for z0, z1, zc, uc, shear, width2, curvature, depth in shape.shadows(np.array([angle_rad]))[0]:
        h = z - zc
        room = width2 * (1 - curvature * h**2) - (u - uc - shear * h) ** 2
        total += np.where((z >= z0) & (z < z1), 2 * depth * np.sqrt(np.maximum(room, 0)), 0)
    return total


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise BadRecipe(f"simulate: {name} = {value}; it must be a positive length")
