"""Sodium stripped from the liquid: bubbles grow, appear and merge, and voids spread over the interface.

Frames S0 to S4. One bubble takes up a stated part of the volume of the stripped sodium; a second appears in
S2; two that nearly touched are one in S3; one lies across the rim of the view; voids cover more and more of
the interface.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xctpipe.errors import BadRecipe
from xctpipe.phantom.bodies import Body, ball
from xctpipe.phantom.caps import cap_void
from xctpipe.phantom.scenes import Scene
from xctpipe.phantom.shapes import Point
from xctpipe.phantom.sizes import down_to_digits
from xctpipe.phantom.stack import SODIUM_MM3_PER_MAH, Stack
from xctpipe.scan import DoubleArray

CHARGES_MAH_CM2 = (0.0, 0.2, 0.5, 1.0, 1.5)
CONTACT = (0.97, 0.85)
FIRST_VOID = 100

_GROWN, _NEW, _CUT, _PAIR, _MERGED = 4, 5, 6, (7, 8), 9
_STEPS = (0.5, 0.625, 0.75, 0.875, 1.0)
_GROWN_MM, _NEW_MM, _PAIR_MM = (-0.45, 0.25), (0.35, -1.2), (0.95, 0.60)
_GAP_MM, _HIGH_MM = 0.15, 0.25
_SLIM = 0.8
_TRIES = 4000


@dataclass(frozen=True)
class Bubbles:
    """Radii in mm: of the growing bubble in each frame, the new one from S2 on, the pair, and the cut one."""

    grown_mm: tuple[float, ...]
    new_mm: tuple[float, float, float]
    pair_mm: float
    cut_mm: float


def grown_by_charge(
    first_mm: float, *, eta_frac: float, charges_mah_cm2: Sequence[float], area_cm2: float
) -> tuple[float, ...]:
    """Radii of a bubble that takes up `eta_frac` of the volume of the sodium stripped by each charge."""
    gain = 3 / (4 * math.pi) * eta_frac * SODIUM_MM3_PER_MAH * area_cm2
    return tuple((first_mm**3 + gain * q) ** (1 / 3) for q in charges_mah_cm2)


def charge_of_growth(radii_mm: Sequence[float], *, eta_frac: float, area_cm2: float) -> tuple[float, ...]:
    """Charges passed, in mAh/cm^2, at which the bubble of `grown_by_charge` has these radii."""
    per_charge = eta_frac * SODIUM_MM3_PER_MAH * area_cm2
    return tuple(4 / 3 * math.pi * (r**3 - radii_mm[0] ** 3) / per_charge for r in radii_mm)


def steps_up_to(largest_mm: float) -> tuple[float, ...]:
    """Radii of the growing bubble where its last one is given."""
    return tuple(step * largest_mm for step in _STEPS)


def stripping_scenes(
    stack: Stack, *, bubbles: Bubbles, eta_frac: float, fixed: tuple[Body, ...], n_voids: int, seed: int
) -> tuple[Scene, ...]:
    """The five frames.

    Parameters
    ----------
    eta_frac : volume that the growing bubble gains per volume of sodium stripped, above 0, up to 1.
    fixed : bodies that are the same in every frame.
    n_voids : number of voids on the interface.

    Raises
    ------
    BadRecipe : the largest bubble does not fit into the liquid, or the efficiency is not possible.
    """
    if not 0 < eta_frac <= 1:
        raise BadRecipe(
            f"simulate: eta_frac = {eta_frac}; give more than 0 (none of the sodium), up to 1 (all)"
        )
    _check_fits(stack, bubbles.grown_mm[-1])
    charges = charge_of_growth(bubbles.grown_mm, eta_frac=eta_frac, area_cm2=stack.electrode_area_cm2)
    frames = [_bubbles(stack, bubbles, i) for i in range(len(charges))]
    voids = interfacial_voids(
        stack,
        n=n_voids,
        contact_frac=[CONTACT[0] + (CONTACT[1] - CONTACT[0]) * q / charges[-1] for q in charges],
        avoid=[body for frame in frames for body in frame],
        seed=seed,
    )
    return tuple(
        Scene(f"S{i}", q, (*frame, *caps, *fixed), merged=((*_PAIR, _MERGED),) if i == 3 else ())
        for i, (q, frame, caps) in enumerate(zip(charges, frames, voids, strict=True))
    )


def _check_fits(stack: Stack, radius_mm: float) -> None:
    largest = min(0.5 * (stack.liquid_mm - 0.2 * stack.scale), 0.95 * stack.scale)
    if not 0 < radius_mm <= largest:
        raise BadRecipe(
            f"simulate: bubble_radius_um = {radius_mm * 1e3:.10g}; in a cell of this size give more than 0, "
            f"up to {down_to_digits(largest * 1e3):.10g}"
        )


def _bubbles(stack: Stack, bubbles: Bubbles, i: int) -> tuple[Body, ...]:
    s, z, pair = stack.scale, stack.interface_z_mm, bubbles.pair_mm
    radius = bubbles.grown_mm[-1]
    place = _GROWN_MM[0] * s, _GROWN_MM[1] * s, z - radius - _GAP_MM * s
    found = [bubble(stack, _GROWN, place, radius_mm=bubbles.grown_mm[i])]
    found.append(bubble(stack, _CUT, _on_the_rim(stack, bubbles.cut_mm), radius_mm=bubbles.cut_mm))
    if i >= 2:
        high = z - bubbles.new_mm[-1] - _HIGH_MM * s
        found.append(
            bubble(stack, _NEW, (_NEW_MM[0] * s, _NEW_MM[1] * s, high), radius_mm=bubbles.new_mm[i - 2])
        )
    x, y, high = _PAIR_MM[0] * s, _PAIR_MM[1] * s, z - 1.3 * pair - _HIGH_MM * s
    if i >= 3:
        # the volume of both, half way between them
        found.append(bubble(stack, _MERGED, (x, y, high), radius_mm=2 ** (1 / 3) * pair))
        return tuple(found)
    beside = pair + 0.75 * stack.pixel_mm
    for number, side in zip(_PAIR, (-1, 1), strict=True):
        found.append(
            bubble(stack, number, (x - 0.6 * side * beside, y + 0.8 * side * beside, high), radius_mm=pair)
        )
    return tuple(found)


def _on_the_rim(stack: Stack, radius_mm: float) -> Point:
    """Place on the rim of the view, on the side on which the view cuts the chamber."""
    x, y = stack.axis_mm
    out = stack.view.radius_mm / math.hypot(x, y)
    return x * out, y * out, stack.interface_z_mm - radius_mm - _HIGH_MM * stack.scale


def bubble(stack: Stack, number: int, center_mm: Point, *, radius_mm: float) -> Body:
    """Ball of nothing in the liquid."""
    area = 4 * math.pi * radius_mm**2
    return Body(
        number, "bubble", f"bubble-{number}", "void", stack.liquid, ball(center_mm, radius_mm), area_mm2=area
    )


def interfacial_voids(
    stack: Stack, *, n: int, contact_frac: Sequence[float], avoid: Sequence[Body], seed: int
) -> list[tuple[Body, ...]]:
    """Voids on the interface, caps of balls in the liquid, that leave the stated part of it in contact.

    Parameters
    ----------
    contact_frac : for each frame, of the area of the interface in view before the stack drifts.
    avoid : bodies to keep clear of.

    Returns
    -------
    The voids of each frame: the same ones, larger as contact falls.

    Raises
    ------
    BadRecipe : they find no room.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0xCA95)))
    weights = np.sort(rng.uniform(0.5, 1.5, n))[::-1]
    weights /= math.sqrt((weights**2).sum())
    blocked = [(1 - contact) * stack.interface_in_view_mm2 for contact in contact_frac]
    largest = math.sqrt(max(blocked) / math.pi)
    places = _places(stack, (largest * weights).tolist(), avoid=avoid, rng=rng)
    return [
        tuple(
            _void(stack, i, place, base_mm=math.sqrt(area / math.pi) * w)
            for i, (place, w) in enumerate(zip(places, weights.tolist(), strict=True))
        )
        for area in blocked
    ]


def _void(stack: Stack, i: int, place_mm: tuple[float, float], *, base_mm: float) -> Body:
    shape = cap_void(
        *place_mm,
        z_mm=stack.interface_z_mm,
        base_mm=base_mm,
        height_mm=_SLIM * base_mm,
        side=-1,
        delta_mu_cm1=1.0,
    )
    name = f"interfacial_void-{i}"
    area = math.pi * base_mm**2
    return Body(FIRST_VOID + i, "interfacial_void", name, "void", stack.liquid, shape, area_mm2=area)


def _places(
    stack: Stack, radii_mm: list[float], *, avoid: Sequence[Body], rng: np.random.Generator
) -> list[tuple[float, float]]:
    taken: list[tuple[float, float, float]] = []
    boxes = np.array([body.shape.bounds_mm for body in avoid]).reshape(-1, 3, 2)
    clear, z = 1.5 * stack.pixel_mm, stack.interface_z_mm
    for radius in radii_mm:
        near = boxes[boxes[:, 2, 1] > z - _SLIM * radius - clear]
        for _ in range(_TRIES):
            far = (stack.view.radius_mm - stack.clear_mm - radius) * math.sqrt(rng.random())
            phi = rng.uniform(0, 2 * math.pi)
            x, y = far * math.cos(phi), far * math.sin(phi)
            in_chamber = (
                math.hypot(x - stack.axis_mm[0], y - stack.axis_mm[1]) < stack.chamber_mm - radius - clear
            )
            free = all(math.hypot(x - a, y - b) > radius + r + clear for a, b, r in taken)
            if in_chamber and free and _clear_of(near, (x, y), radius + clear):
                taken.append((x, y, radius))
                break
        else:
            raise BadRecipe(
                f"simulate: no room on the interface for {len(radii_mm)} voids beside the crack; "
                "give a smaller crack_opening_um"
            )
    return [(x, y) for x, y, _ in taken]


def _clear_of(boxes: DoubleArray, place: tuple[float, float], distance_mm: float) -> bool:
    """Whether a circle clears the ellipses inscribed in the boxes' footprints, by their larger radius."""
    middle = boxes[:, :2].mean(axis=2)
    radius = 0.5 * np.ptp(boxes[:, :2], axis=2).max(axis=1, initial=0.0)
    return bool(np.all(np.hypot(*(middle - place).T) > radius + distance_mm))
