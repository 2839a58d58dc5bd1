"""Attenuation of materials from tabulated cross-sections."""

import xraydb

from xctpipe.errors import BadRecipe


def attenuation_cm1(formula: str, *, density_g_cm3: float, energy_kev: float) -> float:
    """Linear attenuation of a material, all interactions, from the tables of Elam, Ravel and Sieber [1]_.

    Parameters
    ----------
    formula : chemical formula, e.g. `C19H12O3` for PEEK.
    density_g_cm3, energy_kev : above zero; 1 to 800 keV.

    Raises
    ------
    BadRecipe
        For a formula that is none.

    References
    ----------
    .. [1] Elam, Ravel, Sieber, Radiat. Phys. Chem. 63, 121 (2002), doi:10.1016/S0969-806X(01)00227-4
    """
    try:
        return float(xraydb.material_mu(formula, energy_kev * 1e3, density=density_g_cm3, kind="total"))
    except ValueError as err:
        raise BadRecipe(f"{formula!r} is no chemical formula; write it as in C19H12O3") from err


def refraction(formula: str, *, density_g_cm3: float, energy_kev: float) -> float:
    """Decrement of the refractive index of a material [1]_; parameters as for `attenuation_cm1`.

    References
    ----------
    .. [1] Chantler, J. Phys. Chem. Ref. Data 29, 597 (2000), doi:10.1063/1.1321055
    """
    return float(xraydb.xray_delta_beta(formula, density_g_cm3, energy_kev * 1e3)[0])


NASICON = "Na3Zr2Si2PO12"
ALUMINIUM_G_CM3 = 2.70
SODIUM_G_CM3 = 0.968
"""Solid, at room temperature."""
LIQUID_SODIUM_G_CM3, LIQUID_POTASSIUM_G_CM3 = 0.9444, 0.8361
"""Of the liquids brought down to 25 degrees Celsius, for alloys."""


def nasicon_cm1(energy_kev: float, *, density_g_cm3: float = 3.27) -> float:
    """Linear attenuation of Na3Zr2Si2PO12."""
    return attenuation_cm1(NASICON, density_g_cm3=density_g_cm3, energy_kev=energy_kev)


def nak_cm1(energy_kev: float, *, k_wtpct: float) -> float:
    """Linear attenuation of liquid NaK, whose volume is that of its parts [1]_.

    1 / density = w_K / density_K + w_Na / density_Na; for 78 wt% K it is 1 % below the measured density.

    Parameters
    ----------
    k_wtpct : weight percent of potassium, 0 to 100.

    References
    ----------
    .. [1] Foust (ed.), Sodium-NaK Engineering Handbook, vol. 1, Gordon and Breach, New York 1972
    """
    share = k_wtpct / 100
    density = nak_density_g_cm3(k_wtpct)
    parts = (("K", share), ("Na", 1 - share))
    return sum(w * attenuation_cm1(name, density_g_cm3=density, energy_kev=energy_kev) for name, w in parts)


def nak_density_g_cm3(k_wtpct: float) -> float:
    """Density of liquid NaK at 25 degrees Celsius by the additive rule of `nak_cm1`."""
    share = k_wtpct / 100
    return 1 / (share / LIQUID_POTASSIUM_G_CM3 + (1 - share) / LIQUID_SODIUM_G_CM3)


def aluminium_cm1(energy_kev: float) -> float:
    """Linear attenuation of aluminium."""
    return attenuation_cm1("Al", density_g_cm3=ALUMINIUM_G_CM3, energy_kev=energy_kev)


def sodium_cm1(energy_kev: float) -> float:
    """Linear attenuation of solid sodium."""
    return attenuation_cm1("Na", density_g_cm3=SODIUM_G_CM3, energy_kev=energy_kev)


def nasicon_refraction(energy_kev: float, *, density_g_cm3: float = 3.27) -> float:
    """Decrement of the refractive index of Na3Zr2Si2PO12."""
    return refraction(NASICON, density_g_cm3=density_g_cm3, energy_kev=energy_kev)


def nak_refraction(energy_kev: float, *, k_wtpct: float) -> float:
    """Decrement of the refractive index of liquid NaK, whose density is that of `nak_cm1`."""
    share, density = k_wtpct / 100, nak_density_g_cm3(k_wtpct)
    parts = (("K", share), ("Na", 1 - share))
    return sum(w * refraction(name, density_g_cm3=density, energy_kev=energy_kev) for name, w in parts)


def aluminium_refraction(energy_kev: float) -> float:
    """Decrement of the refractive index of aluminium."""
    return refraction("Al", density_g_cm3=ALUMINIUM_G_CM3, energy_kev=energy_kev)


def sodium_refraction(energy_kev: float) -> float:
    """Decrement of the refractive index of solid sodium."""
    return refraction("Na", density_g_cm3=SODIUM_G_CM3, energy_kev=energy_kev)
