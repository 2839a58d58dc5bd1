"""What the stated errors of volumes mean for differences between scans."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xctpipe.series.growth import Z95, Amounts

Row = Mapping[str, Any]

_DIFFERS = 0.5
"""Share of what is no noise that differs from scan to scan; the rest is common to all of them."""
_SEEN_SIGMAS = 5.0
"""Standard errors of a volume that is always found; a smaller one may be missed."""


def volumes_of(scans: Sequence[Sequence[Row]], *, metal_frac: float = 1.0) -> Amounts:
    """Volumes (um^3) of one thing from the rows of its objects, scan by scan.

    The 95 % interval of a volume holds its noise (`volume_error_um3`) and more: calibration, shape, the mask
    and what fills a crack. Half of the latter's smaller side is taken to differ from scan to scan, the rest
    to be a scale that all scans share: by so much do a crack and a bubble vary in a simulated cell in which
    nothing happens. Of chips, whose interval is that of their outline, all of it differs.

    Parameters
    ----------
    scans : rows of the table of objects: for each scan those that belong to the thing, none for a scan in
        which it is absent, which then holds 0 without error.
    metal_frac : missing attenuation of metal over that of a void, by which volumes of rows with `as_metal`
        are divided: they were read as void.
    """
    each = [np.array([_parts_of(row, metal_frac) for row in rows]).reshape(-1, 4) for rows in scans]
    sums = np.array([part.sum(axis=0) for part in each]).reshape(-1, 4)
    noise = np.array([float(np.linalg.norm(part[:, 1])) for part in each])
    values = sums[:, 0]
    some = values > 0
    low, high = (float(np.median(sums[some, i] / values[some])) if some.any() else 0.0 for i in (2, 3))
    return Amounts(values, noise, low, high)


def _parts_of(row: Row, metal_frac: float) -> tuple[float, float, float, float]:
    """Volume, standard error of its differences, and how far all volumes may be off: down, up."""
    value = number(row.get("volume_um3"))
    noise = number(row.get("volume_error_um3"), instead=0.0)
    ends = [number(row.get(key), instead=value) for key in ("volume_low_um3", "volume_high_um3")]
    below, above = (math.sqrt(max((end - value) ** 2 - (Z95 * noise) ** 2, 0.0)) for end in ends)
    if row.get("kind") == "chip":
        return value, math.hypot(noise, (below + above) / 2 / Z95), 0.0, 0.0
    differs = _DIFFERS * min(below, above)
    less, more = (math.sqrt(side**2 - differs**2) for side in (below, above))
    error = math.hypot(noise, differs / Z95)
    if row.get("as_metal"):
        # the upper end of a crack of unknown fill is that of metal
        return value / metal_frac, error / metal_frac, less / metal_frac, less / metal_frac
    return value, error, less, more


def number(value: object, *, instead: float = math.nan) -> float:
    """A cell of a table as a number, or what stands for an empty one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return instead
    return float(value)


def always_seen(amounts: Amounts) -> float:
    """Amount above which such a thing is found in every scan: five errors of the smallest one seen."""
    smallest: int = int(np.argmin(np.abs(amounts.values)))
    return _SEEN_SIGMAS * float(amounts.errors[smallest])


def flicker(amounts: Amounts, *, n: int, alone: bool = False) -> float:
    """Standard error that a thing adds to sums over all things by being found in some scans only.

    A thing near the limit of detection, below `always_seen`, is found in a share p of n scans: its volume
    times sqrt(p (1 - p)). So is one that is `alone`: seen once, with nothing that says where it came from.
    """
    share = len(amounts.values) / n
    faint = float(np.max(amounts.values, initial=0.0)) < always_seen(amounts)
    size = float(np.mean(amounts.values)) if faint or alone else 0.0
    return abs(size) * math.sqrt(max(share * (1 - share), 0.0))
