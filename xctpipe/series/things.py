"""Objects of a series as tracking sees them."""

import math
from dataclasses import dataclass, field

import numpy as np

from xctpipe.scan import DoubleArray
from xctpipe.series.growth import Z95
from xctpipe.series.growth_things import GROWING

FAMILIES: dict[str, str] = {"crack_filled": "crack", "bubble": "void", "interfacial_void": "void"}
"""Kinds that may become one another; others stay what they are."""
TOLD = GROWING
"""Kinds whose events are told. Pores and inclusions are grains of the pellet that were there all along:
they have tracks, and what seems to happen to them is the limit of detection."""

SURE = 5.0
"""Standard errors of its volume that an object must have to take part in an event: Rose's criterion,
doi:10.1364/JOSA.38.000196."""
ROUND = 0.5
"""Sphericity below which a void is none: half a ring, a streak."""
THIN_PX = 0.6
"""Opening below which a crack may be there and not be found, or be found where none is."""


@dataclass(frozen=True)
class Thing:
    """One object of one scan."""

    scan: int
    """Number of the scan in the series, from 0."""
    object: int
    kind: str
    place_um: tuple[float, float, float]
    """Of its centre (z, y, x), in the first scan's frame."""
    volume_um3: float
    low_um3: float
    high_um3: float
    voxels: int = 0
    """In the label image."""
    voxel_um: float = 1.0
    truncated: bool = False
    percolates: bool = False
    fill: str = ""
    sphericity: float | None = None
    elongation: float | None = None
    area_um2: float | None = None
    opening_um: float | None = None
    """Median opening of a crack."""
    limit_um3: float = 0.0
    """What may be there unseen, of its kind and in its scan."""
    in_view: frozenset[int] = field(default_factory=frozenset)
    """Scans in whose view its place lies."""

    @property
    def family(self) -> str:
        """What it may be taken for in another scan."""
        return FAMILIES.get(self.kind, self.kind)

    @property
    def error_um3(self) -> float:
        """Standard error of the volume, from the lower bound: the upper one holds what is not known."""
        return (self.volume_um3 - self.low_um3) / Z95

    @property
    def radius_um(self) -> float:
        """Of the ball of its volume; of a crack the disc of its area."""
        ball = float(np.cbrt(3 * max(self.volume_um3, 0.0) / (4 * math.pi)))
        wide = math.sqrt((self.area_um2 or 0.0) / math.pi) if self.family == "crack" else 0.0
        return max(ball, wide)

    @property
    def sure(self) -> bool:
        """Whether it is there beyond doubt, and what it is said to be."""
        return (
            self.kind in TOLD
            and self.volume_um3 > 0
            and self.volume_um3 >= SURE * self.error_um3
            and self._has_shape
        )

    @property
    def _has_shape(self) -> bool:
        if self.family == "void":
            return self.truncated or self.sphericity is None or self.sphericity >= ROUND
        thin = self.opening_um is not None and self.opening_um < THIN_PX * self.voxel_um
        return not (self.family == "crack" and thin)

    @property
    def beyond_limit(self) -> bool:
        """Whether it is so large that it cannot have been there unseen."""
        return self.low_um3 > self.limit_um3


def distance_um(a: Thing, b: Thing) -> float:
    """Between centres."""
    return math.dist(a.place_um, b.place_um)


def places_of(things: list[Thing]) -> DoubleArray:
    """Positions, (n, 3)."""
    return np.array([each.place_um for each in things], dtype=np.float64).reshape(-1, 3)


def agree(a: Thing, b: Thing, *, ratio: float) -> bool:
    """Whether volumes are equal within their errors, or within a ratio."""
    small, large = sorted((a.volume_um3, b.volume_um3))
    return large <= ratio * max(small, 0.0) or large - small <= Z95 * math.hypot(a.error_um3, b.error_um3)


def adds_up(parts: list[Thing], whole: Thing) -> bool:
    """Whether volumes of parts sum up to that of the whole within the errors of all."""
    error = math.sqrt(sum(each.error_um3**2 for each in (*parts, whole)))
    return abs(sum(each.volume_um3 for each in parts) - whole.volume_um3) <= Z95 * error


def coalesced(parts: list[Thing], whole: Thing) -> bool:
    """Whether a whole is one body, rather than its parts side by side, which labels cannot tell apart.

    Bodies that only touch have the surface of all; their sphericity is known from theirs. Nearer to the
    parts' own than to that, it is one body. True where no sphericity is known.
    """
    known = [each for each in parts if each.sphericity]
    if whole.sphericity is None or len(known) < len(parts):
        return True
    powers = [math.pow(max(each.volume_um3, 1e-9), 2 / 3) for each in parts]
    own = sum(p * (each.sphericity or 1.0) for p, each in zip(powers, parts, strict=True)) / sum(powers)
    surface = sum(p / (each.sphericity or 1.0) for p, each in zip(powers, parts, strict=True))
    touching = math.pow(sum(max(each.volume_um3, 1e-9) for each in parts), 2 / 3) / surface
    return whole.sphericity > (own + touching) / 2
