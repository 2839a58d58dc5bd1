"""From line integrals to slices: one file per backend, found by name.

A backend is a module of this package that defines what `Backend` lists; its module name is its name. What
else its `reconstruct` takes by keyword are its options: settings of the recipe, checked by that signature.
"""

import importlib
import pkgutil
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, cast

from numpy.typing import ArrayLike
from pydantic import BaseModel

from xctpipe.errors import BadRecipe, nearest
from xctpipe.recon.filtering import PADDINGS
from xctpipe.recon.geometry import Geometry, geometry_of
from xctpipe.scan import FloatArray
from xctpipe.schema import checked, schema_of

STANDARD = ("geometry", "filter_name", "padding")
"""Keywords of `reconstruct` that every backend has, which are no options."""


class Backend(Protocol):
    """What a module must define to be a backend; what it needs beyond xctpipe it imports when called."""

    FILTERS: tuple[str, ...]
    """Windows of the ramp filter that it knows."""

    def available(self) -> str | None:
        """None where the backend can be used, else why not and what to do."""

    def reconstruct(
        self, sinograms: FloatArray, *, geometry: Geometry, filter_name: str, padding: str, **options: Any
    ) -> FloatArray:
        """Slices (row, y, x) in cm^-1 of sinograms (angle, row, col)."""

    def working_bytes(
        self, *, n_angles: int, n_rows: int, n_cols: int, n_threads: int, **options: Any
    ) -> int:
        """Bytes that `reconstruct` needs beyond its argument, its result included."""


class Choosy(Backend, Protocol):
    """A backend whose settings do not go together in every way, or not on every machine."""

    def objection(self, filter_name: str, options: Mapping[str, Any]) -> str | None:
        """None where these can be used together here, else why not and what to do."""


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
    options: Mapping[str, Any] | None = None,
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
    options : settings of the backend, as in `options_of(backend)`.

    Returns
    -------
    (z, y, x) linear attenuation in cm^-1, one slice of W x W for each row; zero outside the circle
    (x - (W-1)/2)^2 + (y - (W-1)/2)^2 <= (W/2)^2.

    Raises
    ------
    BadRecipe
        An unknown or unusable backend, an unknown filter, padding or option, or a geometry that does not fit.
    """
    module = usable(backend)
    values = check_options(backend, filter_name=filter_name, options=options or {})
    check_name("padding", padding, known=PADDINGS)
    geometry = geometry_of(slab_log.shape, angles_rad=angles_rad, center_px=center_px, pixel_um=pixel_um)
    return module.reconstruct(slab_log, geometry=geometry, filter_name=filter_name, padding=padding, **values)


def usable(backend: str) -> Backend:
    """The backend of this name; BadRecipe when there is none, or it cannot be used here."""
    known = backends()
    check_name("backend", backend, known=known)
    reason = known[backend].available()
    if reason:
        raise BadRecipe(f"reconstruct: backend {backend!r} cannot be used: {reason}")
    return known[backend]


def options_of(backend: str) -> type[BaseModel]:
    """Schema of a backend's options."""
    return schema_of(backends()[backend].reconstruct, leave_out=STANDARD)


def check_options(
    backend: str, *, filter_name: str, options: Mapping[str, Any], other_keys: Collection[str] = ()
) -> dict[str, Any]:
    """All options of a usable backend, given or by default; BadRecipe where one is wrong or unknown.

    `other_keys` stand beside the options where the user wrote them, and are offered for a misspelt one.
    """
    module = usable(backend)
    check_name("filter", filter_name, known=module.FILTERS)
    schema = options_of(backend)
    for key in options:
        if key not in schema.model_fields:
            raise BadRecipe(_unknown(key, backend, known=[*other_keys, *schema.model_fields]))
    values = checked(schema, options, where="reconstruct")
    if hasattr(module, "objection"):
        reason = cast(Choosy, module).objection(filter_name, values)
        if reason:
            raise BadRecipe(f"reconstruct: {reason}")
    return values


def _unknown(key: str, backend: str, *, known: Iterable[str]) -> str:
    owners = [name for name in backends() if key in options_of(name).model_fields]
    if owners:
        names = " and ".join(repr(name) for name in owners)
        return f"reconstruct.{key} belongs to backend {names}, not to {backend!r}; leave it out"
    return f"unknown key 'reconstruct.{key}' with backend {backend!r}; {nearest(key, known)}"


def check_name(what: str, name: str, *, known: Iterable[str]) -> None:
    """BadRecipe with the nearest known name when `name` is not one."""
    if name not in known:
        raise BadRecipe(f"reconstruct: no {what} {name!r}; {nearest(name, known)}")
