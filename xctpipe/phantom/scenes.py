"""One moment of a series before it is scanned: charge, bodies, and what happened since the one before."""

from dataclasses import dataclass

from xctpipe.phantom.bodies import Body


@dataclass(frozen=True)
class Scene:
    """Bodies of the inclusions of one time step, in the order in which they are nested.

    `declared` are events that objects alone do not tell: kind and objects. `merged` are objects that became
    one, the last. `percolates` are the cracks that join both electrodes, through openings of at least
    `bottleneck_mm`.
    """

    name: str
    charge_mah_cm2: float
    bodies: tuple[Body, ...]
    percolates: tuple[int, ...] = ()
    bottleneck_mm: float = 0.0
    declared: tuple[tuple[str, tuple[int, ...]], ...] = ()
    merged: tuple[tuple[int, ...], ...] = ()
