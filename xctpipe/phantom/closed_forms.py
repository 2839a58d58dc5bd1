"""Volumes, areas and openings of cracks, voids and chips, in the units of the arguments.

Openings follow Sneddon [1]_ for a crack under even pressure: w0 sqrt(1 - r^2 / a^2), which is an ellipsoid.

References
----------
.. [1] Sneddon, Proc. R. Soc. Lond. A 187, 229 (1946), doi:10.1098/rspa.1946.0077
"""

import math


def cap_volume(radius: float, depth: float) -> float:
    """Volume of the cap of height `depth` of a ball: a lens, a chip."""
    return math.pi * depth**2 * (3 * radius - depth) / 3


def cap_area(radius: float, depth: float) -> float:
    """Area of the curved surface of a cap: one face of a spallation crack."""
    return 2 * math.pi * radius * depth


def cap_base_radius(radius: float, depth: float) -> float:
    """Radius of the circle in which a cap meets its plane."""
    return math.sqrt(depth * (2 * radius - depth))


def cap_shell_volume(radius: float, depth: float, *, opening: float) -> float:
    """Volume between the spheres radius -+ opening / 2, on the cap's side of the plane."""
    half = opening / 2
    inner = cap_volume(radius - half, depth - half) if half < depth else 0.0
    return cap_volume(radius + half, depth + half) - inner


def lifted_volume(radius: float, depth: float, *, lift: float) -> float:
    """Volume that a cap leaves behind when it is lifted along the normal of its plane."""
    return cap_volume(radius, depth) - (cap_volume(radius, depth - lift) if lift < depth else 0.0)


def lifted_opening_median(radius: float, depth: float, *, lift: float) -> float:
    """Median over the area of the distance, along the normal, between a cap and itself lifted.

    To first order in lift / radius: lift times the cosine of the slope, which is spread evenly over the area.
    """
    return lift * (1 - depth / (2 * radius))


def penny_volume(radius: float, *, opening: float) -> float:
    """Volume of a penny-shaped crack of largest opening `opening`."""
    return 2 / 3 * math.pi * radius**2 * opening


def penny_area(radius: float) -> float:
    """Area of one face of a penny-shaped crack, as if flat."""
    return math.pi * radius**2


def surface_crack_volume(half_length: float, depth: float, *, opening: float) -> float:
    """Volume of half an elliptic crack that opens at a surface, widest there."""
    return math.pi * half_length * depth * opening / 3


def surface_crack_area(half_length: float, depth: float) -> float:
    """Area of one face of a surface crack, as if flat."""
    return math.pi * half_length * depth / 2


def sneddon_opening_median(opening: float) -> float:
    """Median over the area of the opening of a penny or surface crack whose largest is `opening`."""
    return opening / math.sqrt(2)


def cap_void_volume(base_radius: float, height: float) -> float:
    """Volume of a ball's cap by its base circle and height."""
    return math.pi * height * (3 * base_radius**2 + height**2) / 6
