"""The cell of an in situ series: its layers, its view, and the pores and specks of its ceramic.

Lengths of the real cell in mm, times `scale`. From row 0 down: aluminium collector, NaK inside a rubber
ring, NASICON, sodium, aluminium, all in a PEEK tube that is wider than the view.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from xctpipe.phantom.bodies import Body, View, ball, disc_overlap_mm2
from xctpipe.phantom.cell import VIEW_MM
from xctpipe.phantom.shapes import Bounds, Cylinder, Ellipsoid, rotation
from xctpipe.scan import DoubleArray

PEEK_MM, BORE_MM, CHAMBER_MM = 5.0, 3.0, 2.0
NASICON_MM, SODIUM_MM = 1.5, 0.3
MOUNT_MM = (0.34, -0.21)
"""Where the axis of the cell stands beside the axis of rotation, so that the view cuts the chamber."""

AXIS_FRAC = 0.0237
"""Distance of the axis of rotation from the middle of the detector, in widths of the view."""

MAX_DRIFT_PX = 5.0
_CLEAR_PX = 1.0

SODIUM_MM3_PER_MAH = 24.34 / 96485.33 * 3600
"""Liquid sodium by charge: molar volume 24.34 cm^3/mol; 9.08 um per mAh/cm^2."""


@dataclass(frozen=True)
class Stack:
    """Dimensions of a cell in the view of `rows` x `cols` pixels; the NaK is `liquid_mm` high at first.

    `interface_frac` places the NaK/NASICON interface: its distance below the middle of the view, in heights
    of the view or, where the view is higher than the stack, `interface_mm`.
    """

    rows: int
    cols: int
    pixel_um: float
    liquid_mm: float
    interface_mm: float
    interface_frac: float
    liquid: str = "nak50"

    @property
    def pixel_mm(self) -> float:
        """Edge of a voxel."""
        return self.pixel_um * 1e-3

    @property
    def scale(self) -> float:
        """Size of this cell relative to the real one."""
        return self.cols * self.pixel_mm / VIEW_MM

    @property
    def height_mm(self) -> float:
        """Height of the view."""
        return self.rows * self.pixel_mm

    @property
    def view(self) -> View:
        """What the detector sees from all angles where the axis has its usual place."""
        half = self.height_mm / 2
        return View((0.5 - AXIS_FRAC) * self.cols * self.pixel_mm, -half, half)

    @property
    def row0_mm(self) -> float:
        """Where the centre of detector row 0 is."""
        return -(self.rows - 1) / 2 * self.pixel_mm

    @property
    def interface_z_mm(self) -> float:
        """Plane between NaK and NASICON."""
        near, far = self.interface_mm * self.scale, self.interface_frac * self.height_mm
        return math.copysign(min(abs(near), abs(far)), near)

    @property
    def sodium_z_mm(self) -> float:
        """Plane between NASICON and sodium."""
        return self.interface_z_mm + NASICON_MM * self.scale

    @property
    def axis_mm(self) -> tuple[float, float]:
        """Axis of the cell."""
        return MOUNT_MM[0] * self.scale, MOUNT_MM[1] * self.scale

    @property
    def chamber_mm(self) -> float:
        """Inner radius of the rubber ring."""
        return CHAMBER_MM * self.scale

    @property
    def electrode_area_cm2(self) -> float:
        """Area of the NaK/NASICON interface, seen or not."""
        return math.pi * self.chamber_mm**2 / 100

    @property
    def interface_in_view_mm2(self) -> float:
        """Area of the NaK/NASICON interface in view before the stack drifts."""
        return disc_overlap_mm2(self.chamber_mm, self.view.radius_mm, distance_mm=math.hypot(*self.axis_mm))

    @property
    def drift_px(self) -> tuple[float, float]:
        """Largest drift along columns and along rows; less along rows where there are few."""
        return MAX_DRIFT_PX, min(MAX_DRIFT_PX, self.rows / 40)

    @property
    def clear_mm(self) -> float:
        """Distance from the rim of the view at which no drift cuts a thing."""
        return (math.sqrt(2) * MAX_DRIFT_PX + _CLEAR_PX) * self.pixel_mm

    def metal_height_mm(self, metal_mm3: float, *, voids_mm3: float) -> float:
        """Height of the chamber that holds metal and voids."""
        return (metal_mm3 + voids_mm3) / (math.pi * self.chamber_mm**2)


def layers(stack: Stack, *, liquid_mm: float, sodium_mm: float) -> Iterator[Body]:
    """Layers of the stack, outermost first, with the heights that NaK and sodium have now."""
    x, y = stack.axis_mm
    s, z, sodium_z = stack.scale, stack.interface_z_mm, stack.sodium_z_mm
    beyond = 2 * (stack.height_mm + abs(sodium_z) + liquid_mm + sodium_mm)
    top, bottom = z - liquid_mm, sodium_z + sodium_mm

    def disc(kind: str, material: str, host: str, radius_mm: float, z_mm: tuple[float, float]) -> Body:
        return Body(0, kind, kind, material, host, Cylinder(x, y, radius_mm * s, *z_mm, 1.0))

    yield disc("peek", "peek", "void", PEEK_MM, (-beyond, beyond))
    yield disc("collector", "aluminium", "peek", BORE_MM, (-beyond, top))
    yield disc("o_ring", "epdm", "peek", BORE_MM, (top, z))
    yield disc("nak", stack.liquid, "epdm", CHAMBER_MM, (top, z))
    yield disc("nasicon", "nasicon", "peek", BORE_MM, (z, sodium_z))
    yield disc("counter_electrode", "sodium", "peek", BORE_MM, (sodium_z, bottom))
    yield disc("lower_collector", "aluminium", "peek", BORE_MM, (bottom, beyond))


def pores_and_specks(
    stack: Stack,
    *,
    counts: tuple[int, int],
    radii_mm: tuple[tuple[float, float], tuple[float, float]],
    keep_out: list[Bounds],
    seed: int,
) -> list[Body]:
    """Closed pores (ellipsoids) and specks of zirconia (balls) in the NASICON, whole in view at any drift.

    Parameters
    ----------
    counts : of pores and of specks to try; what lies in a box of `keep_out` or meets another is left out.
    radii_mm : smallest and largest half axis of pores, and radius of specks.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0x9022E5)))
    n = sum(counts)
    axes = np.concatenate(
        [rng.uniform(*radii_mm[0], (counts[0], 3)), rng.uniform(*radii_mm[1], (counts[1], 1)) * np.ones(3)]
    )
    turns = rng.uniform(0, 2 * math.pi, (n, 3))
    balls = _scattered(stack, axes.max(axis=1), rng=rng)
    # larger first would favour them: keep the order drawn
    kept = _apart(balls, gap_mm=_CLEAR_PX * stack.pixel_mm, keep_out=keep_out)
    return [_inclusion(i, balls[i], axes[i], turns[i], counts[0]) for i in np.flatnonzero(kept).tolist()]


def _inclusion(i: int, place: DoubleArray, axes: DoubleArray, turn: DoubleArray, n_pores: int) -> Body:
    x, y, z, radius = place.tolist()
    if i >= n_pores:
        shape = ball((x, y, z), radius)
        return Body(
            0,
            "inclusion",
            f"speck-{i - n_pores}",
            "zirconia",
            "nasicon",
            shape,
            area_mm2=4 * math.pi * radius**2,
        )
    a, b, c = axes.tolist()
    return Body(
        0,
        "pore",
        f"pore-{i}",
        "void",
        "nasicon",
        Ellipsoid((x, y, z), (a, b, c), 1.0, rotation(*turn.tolist())),
    )


def _scattered(stack: Stack, radius_mm: DoubleArray, *, rng: np.random.Generator) -> DoubleArray:
    """Centres and radii of balls in the NASICON that stay in view: (ball, x y z radius); NaN without room."""
    view, n = stack.view, len(radius_mm)
    clear = radius_mm + _CLEAR_PX * stack.pixel_mm
    high = stack.drift_px[1] * stack.pixel_mm
    z0 = np.maximum(stack.interface_z_mm, view.z0_mm + high) + clear
    z1 = np.minimum(stack.sodium_z_mm, view.z1_mm - high) - clear
    far = (view.radius_mm - stack.clear_mm - radius_mm) * np.sqrt(rng.random(n))
    phi = rng.uniform(0, 2 * math.pi, n)
    z = np.where(z1 > z0, z0 + (z1 - z0) * rng.random(n), np.nan)
    return np.stack([far * np.cos(phi), far * np.sin(phi), z, radius_mm], axis=1)


def _apart(
    balls: DoubleArray, *, gap_mm: float, keep_out: list[Bounds]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    kept = np.isfinite(balls[:, 2])
    for box in keep_out:
        outside = np.zeros(len(balls), bool)
        for axis, (low, high) in enumerate(box):
            reach = balls[:, 3] + gap_mm
            outside |= (balls[:, axis] + reach < low) | (balls[:, axis] - reach > high)
        kept &= outside
    where = np.flatnonzero(kept)
    if len(where) > 1:
        tree = cKDTree(balls[where, :3])
        pairs = where[tree.query_pairs(2 * balls[where, 3].max() + gap_mm, output_type="ndarray")]
        distance = np.linalg.norm(balls[pairs[:, 0], :3] - balls[pairs[:, 1], :3], axis=1)
        meet = pairs[distance < balls[pairs[:, 0], 3] + balls[pairs[:, 1], 3] + gap_mm]
        kept[meet.max(axis=1)] = False
    return kept
