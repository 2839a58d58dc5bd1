"""Attenuation and refraction of the cell's materials from tabulated cross-sections at the beam energy."""

import math
from dataclasses import dataclass

import xraydb

from xctpipe.errors import BadRecipe, nearest

_SODIUM_G_MOL, _POTASSIUM_G_MOL = 22.98977, 39.0983
# Liquid at 25 C, extrapolated: Foust, Sodium-NaK Engineering Handbook, vol. 1 (1972).
_LIQUID_SODIUM_G_CM3, _LIQUID_POTASSIUM_G_CM3 = 0.9444, 0.8361


@dataclass(frozen=True)
class Material:
    """Composition by chemical formula, and density."""

    formula: str
    density_g_cm3: float


MATERIALS: dict[str, Material] = {
    "nasicon": Material("Na3Zr2Si2PO12", 3.27),
    "zirconia": Material("ZrO2", 5.68),
    "sodium": Material("Na", 0.968),
    "potassium": Material("K", 0.862),
    "peek": Material("C19H12O3", 1.31),
    # 100 parts EPDM (as CH2), 60 carbon black, 5 ZnO by weight
    "epdm": Material("C12.124H14.258Zn0.0614O0.0614", 1.13),
    "epdm-unfilled": Material("CH2", 0.87),
    "aluminium": Material("Al", 2.70),
}


def nak(potassium_wt_percent: float) -> Material:
    """Liquid sodium-potassium alloy at 25 C; its density follows the volume-additive rule (to about 1 %)."""
    if not 0 <= potassium_wt_percent <= 100:
        raise BadRecipe(f"simulate: NaK with {potassium_wt_percent} wt% potassium; give 0 to 100")
    k = potassium_wt_percent / 100
    parts = (("Na", (1 - k) / _SODIUM_G_MOL), ("K", k / _POTASSIUM_G_MOL))
    formula = "".join(f"{element}{amount:.9f}" for element, amount in parts if amount)
    return Material(formula, 1 / (k / _LIQUID_POTASSIUM_G_CM3 + (1 - k) / _LIQUID_SODIUM_G_CM3))


def material(name: str) -> Material:
    """Material by name: one of MATERIALS, or `nak50` for NaK with 50 wt% potassium."""
    if name in MATERIALS:
        return MATERIALS[name]
    if name.startswith("nak") and name[3:].isdecimal():
        return nak(float(name[3:]))
    raise BadRecipe(f"simulate: no material {name!r}; {nearest(name, [*MATERIALS, 'nak50'])}")


def mu(name: str, *, energy_kev: float) -> float:
    """Linear attenuation, all interactions, in cm^-1; `void` is 0.

    Parameters
    ----------
    name : `void`, a name of MATERIALS, or `nak` and its weight per cent of potassium.
    energy_kev : 5 to 300.

    References
    ----------
    .. [1] Elam, Ravel, Sieber, Radiat. Phys. Chem. 63, 121 (2002), doi:10.1016/S0969-806X(01)00227-4
    """
    _check_energy(energy_kev)
    if name == "void":
        return 0.0
    m = material(name)
    return float(xraydb.material_mu(m.formula, energy_kev * 1e3, density=m.density_g_cm3))


def delta(name: str, *, energy_kev: float) -> float:
    """Decrement of the refractive index, n = 1 - delta + i beta; names and energies as for `mu`."""
    _check_energy(energy_kev)
    if name == "void":
        return 0.0
    m = material(name)
    return float(xraydb.xray_delta_beta(m.formula, m.density_g_cm3, energy_kev * 1e3)[0])


def _check_energy(energy_kev: float) -> None:
    if not (math.isfinite(energy_kev) and 5 <= energy_kev <= 300):
        raise BadRecipe(f"simulate: energy_kev = {energy_kev}; the beam has 5 to 300 keV")
