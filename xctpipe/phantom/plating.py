"""Sodium plated into the liquid: a crack spreads under the interface, chips the ceramic, and shorts the cell.

The seven frames P0 to P6: pristine; a surface crack opens; it spreads into a shallow bowl, a shell of even
opening; it grows; it is largest; the chip inside lifts and NaK fills the gap; the chip sinks back, the crack
is smaller, and an upright crack runs from it through the ceramic: the cell is shorted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from xctpipe.errors import BadRecipe
from xctpipe.phantom.bodies import Body, ball, ellipse_faces
from xctpipe.phantom.caps import ClippedEllipsoid, lens, surface_crack
from xctpipe.phantom.scenes import Scene
from xctpipe.phantom.shapes import rotation
from xctpipe.phantom.sizes import down_to_digits
from xctpipe.phantom.stack import Stack

CHARGES_MAH_CM2 = (0.0, 0.12, 0.24, 0.36, 0.44, 0.48, 0.50)

_CRACK, _CHIP = 1, 2
_PLACE_MM = (-0.30, 0.20)
_AZIMUTH_RAD = 0.7
_RADIUS_MM, _DEPTHS_MM = 0.6, (0.06, 0.12, 0.18)
_START_MM = (0.06, 0.04)
# openings relative to the largest of the void crack: start, three shells, lift, lift after relaxation, penny
_START, _SHELLS, _LIFTS, _PENNY = 1 / 3, (1 / 2, 5 / 6, 1.0), (4 / 3, 1 / 2), 1 / 2
_EVEN_SHELLS = (1 / 3, 2 / 3, 1.0)
_EVEN_START = 1 / 6
_SLENDER = 3.3
_REACH_MM = 1.15
_PENNY_FRAC = (0.25, 0.7)


@dataclass(frozen=True)
class Crack:
    """Shape of the crack of one cell, lengths in mm.

    `opening_mm` is the largest opening while the crack is empty (P4). Where the chip lifts out of it and
    liquid fills it (P5), the gap is `lift_mm` wide: 4/3 of that.
    """

    x_mm: float
    y_mm: float
    z_mm: float
    radius_mm: float
    depths_mm: tuple[float, float, float]
    start_mm: tuple[float, float]
    opening_mm: float
    shells: tuple[float, float, float]
    start: float

    @property
    def reach_mm(self) -> float:
        """Largest radius of the crack in the plane of the interface."""
        outer = self.radius_mm + self.opening_mm / 2
        return math.sqrt(outer**2 - (self.radius_mm - self.depths_mm[2]) ** 2)

    @property
    def lift_mm(self) -> float:
        """Height by which the chip rises out of the interface."""
        return _LIFTS[0] * self.opening_mm


def crack_of(stack: Stack, *, opening_mm: float, in_voxels: bool) -> Crack:
    """The crack of a stack: that of the real cell, and as much wider as a wide opening needs.

    Parameters
    ----------
    opening_mm : largest opening while the crack is empty (P4).
    in_voxels : openings of 0.5, 1, 2, 3 and, lifted, 4 when that is 3; else in the ratios of measured ones.

    Raises
    ------
    BadRecipe : the opening is not positive, or the crack would not fit into the view.
    """
    s = stack.scale
    if not (math.isfinite(opening_mm) and opening_mm > 0):
        raise BadRecipe(f"simulate: crack_opening_um = {opening_mm * 1e3:.10g}; give a positive opening")
    wider = max(1.0, _SLENDER * opening_mm / (_DEPTHS_MM[2] * s))
    crack = Crack(
        _PLACE_MM[0] * s,
        _PLACE_MM[1] * s,
        stack.interface_z_mm,
        _RADIUS_MM * s * wider,
        tuple(d * s * wider for d in _DEPTHS_MM),  # type: ignore[arg-type]
        (_START_MM[0] * s * wider, _START_MM[1] * s * wider),
        opening_mm,
        _EVEN_SHELLS if in_voxels else _SHELLS,
        _EVEN_START if in_voxels else _START,
    )
    if crack.reach_mm > _REACH_MM * s:
        largest = opening_mm * _REACH_MM * s / crack.reach_mm
        raise BadRecipe(
            f"simulate: crack_opening_um = {opening_mm * 1e3:.10g}; a crack in proportion to it would not "
            f"fit into the view of this cell; give at most {down_to_digits(largest * 1e3):.10g}"
        )
    return crack


def plating_scenes(
    stack: Stack, *, crack: Crack, bubble_mm: float, fixed: tuple[Body, ...]
) -> tuple[Scene, ...]:
    """The seven frames.

    Parameters
    ----------
    crack : from `crack_of`.
    bubble_mm : radius of the bubble that rests in the liquid.
    fixed : bodies that are the same in every frame, pores and voids among them.
    """
    charges = [q * stack.scale for q in CHARGES_MAH_CM2]
    still = (resting_bubble(stack, radius_mm=bubble_mm), *fixed)
    moments = [(), (_start(crack),)]
    moments += [tuple(_shell(crack, i)) for i in range(3)]
    moments += [tuple(_lifted(crack, lift * crack.opening_mm, stack=stack)) for lift in _LIFTS]
    scenes = [
        Scene(f"P{i}", q, (*bodies, *still))
        for i, (q, bodies) in enumerate(zip(charges, moments, strict=True))
    ]
    scenes[5] = replace(scenes[5], declared=(("chip", (_CHIP,)),))
    short = _penny(crack, stack=stack)
    scenes[6] = replace(
        scenes[6],
        bodies=(short, *scenes[6].bodies),
        percolates=(_CRACK,),
        bottleneck_mm=min(s for s in (_LIFTS[1] * crack.opening_mm, _end_opening_mm(crack, stack=stack))),
        declared=(("shrink", (_CRACK,)), ("percolate", (_CRACK,))),
    )
    return tuple(scenes)


def spalled(crack: Crack) -> tuple[Body, ...]:
    """The crack of frame P3 and its chip, for a cell in which nothing happens."""
    return tuple(_shell(crack, 1))


def resting_bubble(stack: Stack, *, radius_mm: float) -> Body:
    """Bubble in the middle of the liquid, beside the crack."""
    s = stack.scale
    center = 1.05 * s, -0.55 * s, stack.interface_z_mm - 0.4 * s
    return Body(
        3,
        "bubble",
        "bubble-3",
        "void",
        stack.liquid,
        ball(center, radius_mm),
        area_mm2=4 * math.pi * radius_mm**2,
    )


def _start(crack: Crack) -> Body:
    """Surface crack where the rim of the first shell will be, upright and along that rim."""
    half_length, depth = crack.start_mm
    rim = math.sqrt(crack.radius_mm**2 - (crack.radius_mm - crack.depths_mm[0]) ** 2)
    mouth = (
        crack.x_mm + rim * math.cos(_AZIMUTH_RAD),
        crack.y_mm + rim * math.sin(_AZIMUTH_RAD),
        crack.z_mm,
    )
    opening = crack.start * crack.opening_mm
    shape = surface_crack(
        mouth,
        half_length_mm=half_length,
        depth_mm=depth,
        opening_mm=opening,
        side=1,
        delta_mu_cm1=1.0,
        azimuth_rad=_AZIMUTH_RAD + math.pi / 2,
    )
    faces = tuple((area / 2, width) for area, width in ellipse_faces(opening, half_mm=(half_length, depth)))
    area = math.pi * half_length * depth / 2
    return Body(_CRACK, "crack", "crack", "void", "nasicon", shape, faces=faces, area_mm2=area)


def _cap(crack: Crack, *, radius_mm: float, depth_mm: float) -> ClippedEllipsoid:
    return lens(
        crack.x_mm,
        crack.y_mm,
        z_mm=crack.z_mm,
        radius_mm=radius_mm,
        depth_mm=depth_mm,
        side=1,
        delta_mu_cm1=1.0,
    )


def _shell(crack: Crack, i: int) -> Iterator[Body]:
    """Bowl of even opening, and the ceramic inside it, which it cuts off."""
    radius, depth, half = crack.radius_mm, crack.depths_mm[i], crack.shells[i] * crack.opening_mm / 2
    outer = _cap(crack, radius_mm=radius + half, depth_mm=depth + half)
    inner = _cap(crack, radius_mm=radius - half, depth_mm=depth - half)
    area = 2 * math.pi * radius * depth
    faces = ((area, 2 * half),)
    yield Body(_CRACK, "crack", "crack", "void", "nasicon", outer, (inner,), faces, area)
    yield Body(_CHIP, "chip", "chip", "nasicon", "void", inner)


def _lifted(crack: Crack, lift_mm: float, *, stack: Stack) -> Iterator[Body]:
    """Bowl filled with liquid, and the chip lifted out of it."""
    radius, depth = crack.radius_mm, crack.depths_mm[2]
    bowl = _cap(crack, radius_mm=radius, depth_mm=depth)
    chip = bowl.moved((0.0, 0.0, -lift_mm))
    left = _cap(crack, radius_mm=radius, depth_mm=depth - lift_mm)
    left = left.moved((0.0, 0.0, 0.0))
    yield Body(
        _CRACK,
        "crack_filled",
        "crack",
        stack.liquid,
        "nasicon",
        bowl,
        (left,),
        _lifted_faces(crack, lift_mm),
        2 * math.pi * radius * depth,
    )
    yield Body(_CHIP, "chip", "chip", "nasicon", stack.liquid, chip)


def _lifted_faces(crack: Crack, lift_mm: float, *, n: int = 512) -> tuple[tuple[float, float], ...]:
    """Normal distance from the bowl to the chip; equal steps of the cosine cut a sphere into equal areas."""
    radius, depth, u = crack.radius_mm, crack.depths_mm[2], lift_mm
    lowest = 1 - depth / radius
    cosines = [lowest + (1 - lowest) * (i + 0.5) / n for i in range(n)] + [1.0]
    areas = [2 * math.pi * radius * depth / n] * n + [0.0]
    openings = [radius + u * c - math.sqrt(radius**2 - u**2 * (1 - c**2)) for c in cosines]
    return tuple(zip(areas, openings, strict=True))


def _penny_mm(crack: Crack, *, stack: Stack) -> tuple[tuple[float, float, float], tuple[float, float], float]:
    """Half axes of the upright crack, the planes that it ends at, and the height of its middle."""
    top, bottom = crack.z_mm + crack.depths_mm[2], stack.sodium_z_mm
    if bottom - top < 0.2 * (stack.sodium_z_mm - crack.z_mm):
        raise BadRecipe("simulate: the crack leaves no ceramic below it; give a smaller crack_opening_um")
    length = bottom - top
    axes = _PENNY * crack.opening_mm / 2, _PENNY_FRAC[0] * length, _PENNY_FRAC[1] * length
    return axes, (top, bottom), (top + bottom) / 2


def _penny(crack: Crack, *, stack: Stack) -> Body:
    """Upright crack from the bottom of the bowl to the sodium, filled with metal."""
    axes, (top, bottom), middle = _penny_mm(crack, stack=stack)
    shape = ClippedEllipsoid(
        (crack.x_mm, crack.y_mm, middle), axes, 1.0, rotation(_AZIMUTH_RAD), z0_mm=top, z1_mm=bottom
    )
    faces = ellipse_faces(2 * axes[0], half_mm=axes[1:], cut_mm=(top - middle, bottom - middle))
    area = sum(piece for piece, _ in faces)
    return Body(
        _CRACK, "crack_filled", "crack-through", stack.liquid, "nasicon", shape, faces=faces, area_mm2=area
    )


def _end_opening_mm(crack: Crack, *, stack: Stack) -> float:
    axes, (top, bottom), _ = _penny_mm(crack, stack=stack)
    return 2 * axes[0] * math.sqrt(1 - ((bottom - top) / 2 / axes[2]) ** 2)
