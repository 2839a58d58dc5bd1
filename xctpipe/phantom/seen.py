"""What one scan shows of the stack: its objects, its phases and its interface, as true values."""

import math
from collections.abc import Sequence
from itertools import groupby

from xctpipe.phantom.bodies import (
    Body,
    Seen,
    View,
    disc_overlap_mm2,
    moments,
    seen_in,
    seen_layer_mm3,
    true_object,
)
from xctpipe.phantom.shapes import Cylinder
from xctpipe.phantom.stack import Stack
from xctpipe.phantom.timeline import TrueObject

_MM3, _MM2, _MM = 1e9, 1e6, 1e3
_INSIDE = {
    "peek": ("collector", "o_ring", "nasicon", "counter_electrode", "lower_collector"),
    "o_ring": ("nak",),
}


def metal_outside_mm3(bodies: Sequence[Body], *, stack: Stack) -> float:
    """Liquid that has left the chamber, less the room that voids and a lifted chip take up in it."""
    z = stack.interface_z_mm
    gone = sum(body.volume_mm3 for body in bodies if body.material == stack.liquid)
    return gone - sum(
        float(moments(b.shape, z_mm=(-math.inf, z))[0]) for b in bodies if b.host == stack.liquid
    )


def whole_chamber(bodies: Sequence[Body], *, stack: Stack, liquid_mm: float) -> dict[str, float]:
    """Volumes in um^3 of what the chamber holds, in view or not, and of the liquid that is in cracks.

    Parameters
    ----------
    bodies : before the stack drifts.
    liquid_mm : height of the chamber's content.
    """
    inside = [body for body in bodies if body.host == stack.liquid]
    above = (-math.inf, stack.interface_z_mm)
    taken = sum(float(moments(body.shape, z_mm=above)[0]) for body in inside)
    whole = {
        "nak": math.pi * stack.chamber_mm**2 * liquid_mm - taken,
        "nak_in_cracks": sum(body.volume_mm3 for body in bodies if body.material == stack.liquid),
        "void": sum(body.volume_mm3 for body in inside if body.material == "void"),
    }
    return {name: volume * _MM3 for name, volume in whole.items()}


def objects_seen(
    seen: Sequence[Seen], *, interface_mm: float, row0_mm: float, percolates: Sequence[int]
) -> tuple[TrueObject, ...]:
    """The objects of one scan in the order of their numbers; those out of view are left out."""
    ordered = sorted(seen, key=lambda part: part.body.object)
    found = (
        true_object(list(parts), interface_mm=interface_mm, row0_mm=row0_mm, percolates=number in percolates)
        for number, parts in groupby(ordered, key=lambda part: part.body.object)
    )
    return tuple(thing for thing in found if thing is not None)


def phases_seen(
    layers: Sequence[Body], seen: Sequence[Seen], *, view: View, interface_mm: float
) -> dict[str, float]:
    """Volume of each phase in view, in um^3: of layers without what lies in them, and of each kind."""
    whole = {
        body.name: seen_layer_mm3(body.shape, view=view)
        for body in layers
        if isinstance(body.shape, Cylinder)
    }
    left = {name: v - sum(whole[inner] for inner in _INSIDE.get(name, ())) for name, v in whole.items()}
    for part in seen:
        above = _above_mm3(part, view=view, interface_mm=interface_mm)
        left["nak"] -= above
        left["nasicon"] -= float(part.moments[0]) - above
        left[part.body.kind] = left.get(part.body.kind, 0.0) + float(part.moments[0])
    left["collector"] += left.pop("lower_collector")
    # the middle of a closed tube holds none of it: what is left is rounding
    return {name: max(volume, 0.0) * _MM3 for name, volume in left.items()}


def _above_mm3(part: Seen, *, view: View, interface_mm: float) -> float:
    low, high = part.body.shape.bounds_mm[2]
    if high <= interface_mm:
        return float(part.moments[0])
    if low >= interface_mm:
        return 0.0
    upper = View(view.radius_mm, view.z0_mm, min(view.z1_mm, interface_mm))
    return float(seen_in(upper, [part.body])[0].moments[0])


def interface_seen(
    chamber: Cylinder, objects: Sequence[TrueObject], *, view: View, heights_mm: tuple[float, float]
) -> dict[str, float]:
    """True values of the interface: the columns of the table `interface`.

    Contact is the part of the interface in view that no void covers; voids lie whole in the view. The mouth
    of a crack counts as contact: the liquid lies on it.
    """
    distance = math.hypot(chamber.x_mm, chamber.y_mm)
    area = disc_overlap_mm2(chamber.radius_mm, view.radius_mm, distance_mm=distance) * _MM2
    voids = [thing for thing in objects if thing.kind == "interfacial_void"]
    blocked = sum(thing.area_um2 for thing in voids)
    return {
        "contact_frac": 1 - blocked / area,
        "area_um2": area,
        "blocked_um2": blocked,
        "n_voids": float(len(voids)),
        "void_volume_um3": sum(thing.volume_um3 for thing in voids),
        "nak_height_um": heights_mm[0] * _MM,
        "sodium_height_um": heights_mm[1] * _MM,
    }
