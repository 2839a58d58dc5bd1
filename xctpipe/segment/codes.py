"""Numbers, names and colours of what voxels are: of the volumes `labels/phases`."""

PHASES: dict[str, int] = {
    "outside": 0,
    "peek": 1,
    "o_ring": 2,
    "collector": 3,
    "counter_electrode": 4,
    "nasicon": 5,
    "nak": 6,
    "bubble": 7,
    "interfacial_void": 8,
    "crack": 9,
    "crack_filled": 10,
    "pore": 11,
    "chip": 12,
    "inclusion": 13,
    "unresolved": 14,
}
"""Number of each phase in a label volume; 0 is beyond the view."""

KINDS: tuple[str, ...] = (
    "bubble",
    "interfacial_void",
    "crack",
    "crack_filled",
    "pore",
    "chip",
    "inclusion",
    "unresolved",
)
"""Phases that are objects: each has a number of its own in `labels/objects` and a row in `objects.csv`."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "peek": (191, 191, 191),
    "o_ring": (64, 64, 64),
    "collector": (119, 119, 119),
    "counter_electrode": (153, 136, 85),
    "nasicon": (238, 221, 187),
    "nak": (170, 204, 221),
    "bubble": (0, 114, 178),
    "interfacial_void": (86, 180, 233),
    "crack": (213, 94, 0),
    "crack_filled": (230, 159, 0),
    "pore": (0, 158, 115),
    "chip": (240, 228, 66),
    "inclusion": (204, 121, 167),
    "unresolved": (255, 255, 255),
}
"""Red, green and blue, 0 to 255. Objects have the colours of Okabe and Ito, which people who do not tell red
from green tell apart; layers have pale ones, so that objects stand out."""

PRIORITY: tuple[int, ...] = tuple(
    PHASES[name]
    for name in (
        "crack",
        "crack_filled",
        "interfacial_void",
        "bubble",
        "pore",
        "inclusion",
        "chip",
        "unresolved",
    )
)
"""Which label a voxel of a coarser level takes when several lie in it, first wins: thin things before thick
ones, which would vanish from the pyramid otherwise. Layers follow, by majority."""
