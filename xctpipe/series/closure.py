"""Sodium that the current moved, and what the chamber of NaK and the voids in it make of it."""

import numpy as np
from numpy.typing import ArrayLike

from xctpipe.scan import DoubleArray

FARADAY_UM3_PER_MAH = 24.34e12 * 3.6 / 96485.33
"""Volume that sodium takes up in NaK per charge, 0.908 mm^3/mAh: 24.34 cm^3/mol over the Faraday constant."""
UM2_PER_CM2 = 1e8
_MOVING = ("plating", "stripping")


def ceiling_um3(area_cm2: float) -> float:
    """Volume of sodium per mAh/cm^2: the most that voids can gain while it is stripped.

    Parameters
    ----------
    area_cm2 : of the electrode, > 0.

    References
    ----------
    Partial molar volume of sodium in NaK by ideal mixing: O. J. Foust (ed.), Sodium-NaK Engineering Handbook,
    vol. 1 (1972), chapter 2.
    """
    return FARADAY_UM3_PER_MAH * area_cm2


def charge_by_kind(
    charge: ArrayLike, *, starts: ArrayLike, ends: ArrayLike, kinds: list[str]
) -> dict[str, DoubleArray]:
    """Charge that had been plated and stripped when so much had passed: `plating` and `stripping`, (n,).

    Parameters
    ----------
    charge : (n,), mAh/cm^2; charge passed at each scan, NaN where it is not known.
    starts, ends : (m,), mAh/cm^2; charge passed at the start and end of each step.
    kinds : of these steps; what is neither plating nor stripping moves nothing.
    """
    at = np.asarray(charge, dtype=np.float64)[:, None]
    first, last = (np.asarray(side, dtype=np.float64)[None, :] for side in (starts, ends))
    # NaN stays NaN
    within = np.clip(at, first, last) - first
    return {kind: within[:, [own == kind for own in kinds]].sum(axis=1) + 0 * at[:, 0] for kind in _MOVING}


def charge_by_sign(charge: ArrayLike, current: ArrayLike) -> dict[str, DoubleArray]:
    """The same from the current (mA/cm^2, positive while plating) that flowed before each scan alone."""
    at, sign = np.asarray(charge, dtype=np.float64), np.sign(np.asarray(current, dtype=np.float64))
    passed = np.diff(at, prepend=at[:1])
    parts = {"plating": sign > 0, "stripping": sign < 0}
    unknown = np.where(np.isfinite(at) & (np.isfinite(sign) | (passed == 0)), 0.0, np.nan)
    return {kind: np.cumsum(np.where(own, passed, 0.0) + unknown) for kind, own in parts.items()}


def metal_um3(
    height_um: ArrayLike, *, area_um2: float, void_um3: ArrayLike, filled_um3: ArrayLike
) -> DoubleArray:
    """Metal in the chamber and in cracks, by the height of the chamber, um^3.

    The height does not change when the stack drifts, as the volume in view does.

    Parameters
    ----------
    height_um : (n,); of the chamber's content, NaN where it was not found.
    area_um2 : of the chamber, > 0.
    void_um3 : (n,); bubbles and interfacial voids.
    filled_um3 : (n,); metal in cracks.
    """
    chamber = np.asarray(height_um, dtype=np.float64) * area_um2
    metal: DoubleArray = chamber - np.asarray(void_um3) + np.asarray(filled_um3)
    return metal


def residual(metal: ArrayLike, *, plated: ArrayLike, area_cm2: float) -> tuple[DoubleArray, DoubleArray]:
    """Metal that the charge lets expect, and what is there beyond it, both um^3.

    Parameters
    ----------
    metal : (n,), um^3; the first scan with a charge and a volume is the reference.
    plated : (n,), mAh/cm^2; charge plated less charge stripped.
    area_cm2 : of the electrode.
    """
    there, net = np.asarray(metal, dtype=np.float64), np.asarray(plated, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(there) & np.isfinite(net))
    if not len(known):
        return np.full(len(there), np.nan), np.full(len(there), np.nan)
    first = known[0]
    expected: DoubleArray = there[first] + ceiling_um3(area_cm2) * (net - net[first])
    return expected, there - expected
