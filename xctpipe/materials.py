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
