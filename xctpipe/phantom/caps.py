"""Shapes of cracks, voids at the interface and chips: balls and ellipsoids cut by horizontal planes.

All are solids of `shapes.py`, so projections and volumes are exact. `side` is 1 where a cap bulges towards
larger z and -1 where it bulges towards smaller z. Rims are sharp.

The opening of a penny or surface crack is Sneddon's, which makes it an ellipsoid (`closed_forms.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from xctpipe.errors import BadRecipe
from xctpipe.phantom.closed_forms import cap_shell_volume, lifted_volume
from xctpipe.phantom.shapes import (
    UNROTATED,
    Bounds,
    Cylinder,
    Ellipsoid,
    Point,
    Rotation,
    Solids,
    register,
    turned,
)
from xctpipe.scan import DoubleArray


@register
@dataclass(frozen=True)
class ClippedEllipsoid(Solids):
    """Part of an ellipsoid above z0, below z1, or between; None leaves that side whole."""

    center_mm: Point
    semi_axes_mm: Point
    delta_mu_cm1: float
    rotation: Rotation = UNROTATED
    z0_mm: float | None = None
    z1_mm: float | None = None

    def __post_init__(self) -> None:
        low, high = self.z_mm
        if not low < high:
            reach = "from z {:.6g} to {:.6g} mm".format(*self._whole.bounds_mm[2])
            raise BadRecipe(
                f"simulate: planes z0 = {self.z0_mm} and z1 = {self.z1_mm} mm leave nothing of an ellipsoid "
                f"{reach}; move the planes or leave it out"
            )

    @property
    def _whole(self) -> Ellipsoid:
        return Ellipsoid(self.center_mm, self.semi_axes_mm, self.delta_mu_cm1, self.rotation)

    @property
    def z_mm(self) -> tuple[float, float]:
        """Lowest and highest z."""
        low, high = self._whole.bounds_mm[2]
        return (
            low if self.z0_mm is None else max(low, self.z0_mm),
            high if self.z1_mm is None else min(high, self.z1_mm),
        )

    @property
    def volume_mm3(self) -> float:
        """Volume between the planes."""
        low, high = self._whole.bounds_mm[2]
        half = (high - low) / 2
        t0, t1 = ((z - self.center_mm[2]) / half for z in self.z_mm)
        return math.pi * math.prod(self.semi_axes_mm) * ((t1 - t0) - (t1**3 - t0**3) / 3)

    @property
    def bounds_mm(self) -> Bounds:
        """Box around what the planes leave."""
        axes = np.asarray(self.rotation) * np.asarray(self.semi_axes_mm)
        spread = axes @ axes.T
        height = math.sqrt(spread[2, 2])
        h0, h1 = (z - self.center_mm[2] for z in self.z_mm)

        def reach(axis: int, sign: int) -> float:
            # the outermost point of a leaning ellipsoid has a height; the nearest one left takes its place
            lean = spread[axis, 2] / height
            h = min(max(sign * lean * height / math.sqrt(spread[axis, axis]), h0), h1)
            across = math.sqrt(max((spread[axis, axis] - lean**2) * (1 - (h / height) ** 2), 0.0))
            return float(self.center_mm[axis] + lean * h / height + sign * across)

        return (reach(0, -1), reach(0, 1)), (reach(1, -1), reach(1, 1)), self.z_mm

    def solids(self) -> DoubleArray:
        """The ellipsoid's, with its planes."""
        solids = self._whole.solids()
        solids[0, :2] = self.z_mm
        return solids

    def contains(self, x_mm: DoubleArray, y_mm: DoubleArray, z_mm: DoubleArray) -> NDArray[np.bool_]:
        """Whether each point is inside."""
        low, high = self.z_mm
        inside: NDArray[np.bool_] = self._whole.contains(x_mm, y_mm, z_mm) & (z_mm >= low) & (z_mm < high)
        return inside

    def moved(self, shift_mm: Point, *, turn_rad: float = 0.0) -> "ClippedEllipsoid":
        """The part turned about the axis of rotation, then shifted with its planes."""
        whole = self._whole.moved(shift_mm, turn_rad=turn_rad)
        return replace(
            self,
            center_mm=whole.center_mm,
            rotation=whole.rotation,
            z0_mm=None if self.z0_mm is None else self.z0_mm + shift_mm[2],
            z1_mm=None if self.z1_mm is None else self.z1_mm + shift_mm[2],
        )


def clipped_ball(
    center_mm: Point, *, radius_mm: float, delta_mu_cm1: float, z_mm: float, side: int
) -> ClippedEllipsoid:
    """Part of a ball on one side of the plane `z_mm`."""
    z0, z1 = (z_mm, None) if side > 0 else (None, z_mm)
    return ClippedEllipsoid(center_mm, (radius_mm, radius_mm, radius_mm), delta_mu_cm1, z0_mm=z0, z1_mm=z1)


def lens(
    x_mm: float,
    y_mm: float,
    *,
    z_mm: float,
    radius_mm: float,
    depth_mm: float,
    side: int,
    delta_mu_cm1: float,
) -> ClippedEllipsoid:
    """Cap of a ball of `radius_mm` that reaches `depth_mm` beyond the plane `z_mm`: a chip in its place."""
    _check_cap(radius_mm, depth_mm, side=side)
    center = (x_mm, y_mm, z_mm + side * (depth_mm - radius_mm))
    return clipped_ball(center, radius_mm=radius_mm, delta_mu_cm1=delta_mu_cm1, z_mm=z_mm, side=side)


def cap_void(
    x_mm: float, y_mm: float, *, z_mm: float, base_mm: float, height_mm: float, side: int, delta_mu_cm1: float
) -> ClippedEllipsoid:
    """Void on the plane `z_mm` by the radius of the circle that it covers and its height above the plane."""
    _check_positive("base_mm", base_mm)
    _check_positive("height_mm", height_mm)
    radius = (base_mm**2 + height_mm**2) / (2 * height_mm)
    center = (x_mm, y_mm, z_mm + side * (height_mm - radius))
    return clipped_ball(center, radius_mm=radius, delta_mu_cm1=delta_mu_cm1, z_mm=z_mm, side=side)


def surface_crack(
    mouth_mm: Point,
    *,
    half_length_mm: float,
    depth_mm: float,
    opening_mm: float,
    side: int,
    delta_mu_cm1: float,
    azimuth_rad: float = 0.0,
) -> ClippedEllipsoid:
    """Upright crack that opens at a plane: half an ellipse of `half_length_mm` x `depth_mm`, widest there.

    `mouth_mm` is the middle of its mouth in the plane, which runs along `azimuth_rad` (from x towards y).
    """
    cos, sin = math.cos(azimuth_rad), math.sin(azimuth_rad)
    turn: Rotation = ((cos, -sin, 0.0), (sin, cos, 0.0), (0.0, 0.0, 1.0))
    planes = {"z0_mm": mouth_mm[2]} if side > 0 else {"z1_mm": mouth_mm[2]}
    axes = (half_length_mm, opening_mm / 2, depth_mm)
    return ClippedEllipsoid(mouth_mm, axes, delta_mu_cm1, turn, **planes)


def penny(
    center_mm: Point,
    *,
    radius_mm: float,
    opening_mm: float,
    delta_mu_cm1: float,
    normal: Sequence[float] = (0.0, 0.0, 1.0),
) -> Ellipsoid:
    """Penny-shaped crack: a flat ellipsoid of largest opening `opening_mm` along `normal`."""
    n = np.asarray(normal, dtype=np.float64)
    if n.shape != (3,) or not (np.isfinite(n).all() and np.linalg.norm(n) > 0):
        raise BadRecipe(f"simulate: normal = {normal}; give a direction (x, y, z) that is not zero")
    n /= np.linalg.norm(n)
    # the axis that the normal leans on least gives the two others a well defined direction
    first = np.cross(n, np.eye(3)[np.argmin(np.abs(n))])
    first /= np.linalg.norm(first)
    x, y, z = np.column_stack([first, np.cross(n, first), n]).tolist()
    turn = (x[0], x[1], x[2]), (y[0], y[1], y[2]), (z[0], z[1], z[2])
    return Ellipsoid(center_mm, (radius_mm, radius_mm, opening_mm / 2), delta_mu_cm1, turn)


class _Difference(Solids):
    """What is inside one shape and not inside a second one, which lies inside the first."""

    @property
    def _pair(self) -> tuple[ClippedEllipsoid, ClippedEllipsoid | None]:
        raise NotImplementedError

    @property
    def bounds_mm(self) -> Bounds:
        """Box around the shape."""
        return self._pair[0].bounds_mm

    def solids(self) -> DoubleArray:
        """The outer solid, and the inner one taken away."""
        outer, inner = self._pair
        tables = [outer.solids()]
        if inner is not None:
            tables.append(inner.solids())
            tables[1][:, -1] *= -1
        return np.concatenate(tables)

    def contains(self, x_mm: DoubleArray, y_mm: DoubleArray, z_mm: DoubleArray) -> NDArray[np.bool_]:
        """Whether each point is inside."""
        outer, inner = self._pair
        inside = outer.contains(x_mm, y_mm, z_mm)
        return inside if inner is None else inside & ~inner.contains(x_mm, y_mm, z_mm)


@dataclass(frozen=True)
class _Cap(_Difference):
    """Fields of a gap along the cap of a ball: its mid-sphere reaches `depth_mm` beyond the plane `z_mm`."""

    x_mm: float
    y_mm: float
    z_mm: float
    radius_mm: float
    depth_mm: float
    opening_mm: float
    side: int
    delta_mu_cm1: float

    def __post_init__(self) -> None:
        _check_cap(self.radius_mm, self.depth_mm, side=self.side)
        _check_positive("opening_mm", self.opening_mm)

    def moved(self, shift_mm: Point, *, turn_rad: float = 0.0) -> Self:
        """The shape turned about the axis of rotation, then shifted with its plane."""
        x, y = turned(self.x_mm, self.y_mm, turn_rad=turn_rad)
        return replace(self, x_mm=x + shift_mm[0], y_mm=y + shift_mm[1], z_mm=self.z_mm + shift_mm[2])

    def _ball(self, radius_mm: float, *, depth_mm: float) -> ClippedEllipsoid:
        return lens(
            self.x_mm,
            self.y_mm,
            z_mm=self.z_mm,
            radius_mm=radius_mm,
            depth_mm=depth_mm,
            side=self.side,
            delta_mu_cm1=self.delta_mu_cm1,
        )


@register
@dataclass(frozen=True)
class CapShell(_Cap):
    """Spallation crack: the part of the shell radius -+ opening / 2 on one side of the plane `z_mm`."""

    @property
    def volume_mm3(self) -> float:
        """Volume of the shell beyond the plane."""
        return cap_shell_volume(self.radius_mm, self.depth_mm, opening=self.opening_mm)

    @property
    def _pair(self) -> tuple[ClippedEllipsoid, ClippedEllipsoid | None]:
        half = self.opening_mm / 2
        r, d = self.radius_mm, self.depth_mm
        inner = self._ball(r - half, depth_mm=d - half) if half < d else None
        return self._ball(r + half, depth_mm=d + half), inner


@register
@dataclass(frozen=True)
class LiftedGap(_Cap):
    """What a chip leaves behind: a lens without the same lens lifted by `opening_mm` out of the plane.

    The chip is then the lens moved by -side * opening_mm along z, part of which stands out of the plane.
    """

    @property
    def volume_mm3(self) -> float:
        """Volume of the gap below the plane."""
        return lifted_volume(self.radius_mm, self.depth_mm, lift=self.opening_mm)

    @property
    def _pair(self) -> tuple[ClippedEllipsoid, ClippedEllipsoid | None]:
        left = self.depth_mm - self.opening_mm
        inner = self._ball(self.radius_mm, depth_mm=left) if left > 0 else None
        return self._ball(self.radius_mm, depth_mm=self.depth_mm), inner


@register
@dataclass(frozen=True)
class Annulus(Solids):
    """Upright ring between two radii and the planes z0 and z1."""

    x_mm: float
    y_mm: float
    inner_mm: float
    outer_mm: float
    z0_mm: float
    z1_mm: float
    delta_mu_cm1: float

    def __post_init__(self) -> None:
        if not 0 < self.inner_mm < self.outer_mm:
            raise BadRecipe(
                f"simulate: ring from radius {self.inner_mm} to {self.outer_mm} mm; give 0 < inner < outer"
            )
        self._disc(self.outer_mm)

    def _disc(self, radius_mm: float) -> Cylinder:
        return Cylinder(self.x_mm, self.y_mm, radius_mm, self.z0_mm, self.z1_mm, self.delta_mu_cm1)

    @property
    def volume_mm3(self) -> float:
        """Volume of the ring."""
        return math.pi * (self.outer_mm**2 - self.inner_mm**2) * (self.z1_mm - self.z0_mm)

    @property
    def bounds_mm(self) -> Bounds:
        """Box around the ring."""
        return self._disc(self.outer_mm).bounds_mm

    def solids(self) -> DoubleArray:
        """The outer cylinder, and the inner one taken away."""
        tables = [self._disc(self.outer_mm).solids(), self._disc(self.inner_mm).solids()]
        tables[1][:, -1] *= -1
        return np.concatenate(tables)

    def contains(self, x_mm: DoubleArray, y_mm: DoubleArray, z_mm: DoubleArray) -> NDArray[np.bool_]:
        """Whether each point is inside."""
        inner = self._disc(self.inner_mm).contains(x_mm, y_mm, z_mm)
        return self._disc(self.outer_mm).contains(x_mm, y_mm, z_mm) & ~inner

    def moved(self, shift_mm: Point, *, turn_rad: float = 0.0) -> "Annulus":
        """The ring turned about the axis of rotation, then shifted."""
        disc = self._disc(self.outer_mm).moved(shift_mm, turn_rad=turn_rad)
        return replace(self, x_mm=disc.x_mm, y_mm=disc.y_mm, z0_mm=disc.z0_mm, z1_mm=disc.z1_mm)


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise BadRecipe(f"simulate: {name} = {value}; it must be a positive length")


def _check_cap(radius_mm: float, depth_mm: float, *, side: int) -> None:
    if side not in {-1, 1}:
        raise BadRecipe(f"simulate: side = {side}; give 1 (towards larger z) or -1")
    if not 0 < depth_mm <= radius_mm:
        raise BadRecipe(
            f"simulate: cap of depth {depth_mm} mm of a ball of radius {radius_mm} mm; "
            "give a depth above 0, up to the radius"
        )
