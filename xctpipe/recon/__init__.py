"""From line integrals to slices: one file per backend, found by name.

A backend is a module of this package that defines what `Backend` lists; its module name is its name.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Protocol, cast

from numpy.typing import ArrayLike

from xctpipe.errors import BadRecipe, nearest
from xctpipe.recon.filtering import PADDINGS
from xctpipe.recon.geometry import Geometry, geometry_of
from xctpipe.scan import FloatArray


class Backend(Protocol):
    """What a module must define to be a backend; what it needs beyond xctpipe it imports when called."""

    FILTERS: tuple[str, ...]
    """Windows of the ramp filter that it knows."""

    def available(self) -> str | None:
        """None where the backend can be used, else why not and what to do."""

    def reconstruct(
        self, sinograms: FloatArray, *, geometry: Geometry, filter_name: str, padding: str
    ) -> FloatArray:
        """Slices (row, y, x) in cm^-1 of sinograms (angle, row, col)."""

    def working_bytes(self, *, n_angles: int, n_rows: int, n_cols: int, n_threads: int) -> int:
        """Bytes that `reconstruct` needs beyond its argument, its result included."""


def backends() -> dict[str, Backend]:
    """Every backend by name, usable here or not."""
    found: dict[str, Backend] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "available") and hasattr(module, "reconstruct"):
            found[info.name] = cast(Backend, module)
    return found


def reconstruct(
    slab_log: FloatArray,
    *,
    angles_rad: ArrayLike,
    center_px: ArrayLike,
    pixel_um: float,
    backend: str = "fourier",
    filter_name: str = "ramp",
    padding: str = "taper",
) -> FloatArray:
    """Reconstruct the slices of a slab.

    Parameters
    ----------
    slab_log : (angle, row, col), line integrals: minus the logarithm of the transmission.
    angles_rad : (angle,), as measured; equal steps are not needed, half or full turns, either sense.
    center_px : detector column of the axis, one for all rows or one per row.
    pixel_um : pixel size at the sample.
    backend : a name in `backends()`.
    filter_name : a window of the ramp filter in the backend's `FILTERS`.
    padding : how rows go on beyond the detector: `taper`, `edge` or `none`.

    Returns
    -------
    (z, y, x) linear attenuation in cm^-1, one slice of W x W for each row; zero outside the circle
    (x - (W-1)/2)^2 + (y - (W-1)/2)^2 <= (W/2)^2.

    Raises
    ------
    BadRecipe
        An unknown or unusable backend, an unknown filter or padding, or a geometry that does not fit.
    """
    module = usable(backend)
    check_name("filter", filter_name, known=module.FILTERS)
    check_name("padding", padding, known=PADDINGS)
    geometry = geometry_of(slab_log.shape, angles_rad=angles_rad, center_px=center_px, pixel_um=pixel_um)
    return module.reconstruct(slab_log, geometry=geometry, filter_name=filter_name, padding=padding)


def usable(backend: str) -> Backend:
    """The backend of this name; BadRecipe when there is none, or it cannot be used here."""
    known = backends()
    check_name("backend", backend, known=known)
    reason = known[backend].available()
    if reason:
        raise BadRecipe(f"reconstruct: backend {backend!r} cannot be used: {reason}")
    return known[backend]


def check_name(what: str, name: str, *, known: Iterable[str]) -> None:
    """BadRecipe with the nearest known name when `name` is not one."""
    if name not in known:
        raise BadRecipe(f"reconstruct: no {what} {name!r}; {nearest(name, known)}")
