"""The simulated sample: a layered NaK/NASICON cell with bubbles, closed pores and bright specks."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from xctpipe.errors import BadRecipe
from xctpipe.phantom.materials import delta, mu
from xctpipe.phantom.projector import ShapeTable, shape_table
from xctpipe.phantom.shapes import Cylinder, Ellipsoid, Point, Shape, rotation, sphere
from xctpipe.scan import DoubleArray

VIEW_MM = 4.16
"""Width of the interior view of the full-size cell: 3200 pixels of 1.3 um."""

_PEEK_MM, _BORE_MM, _CHAMBER_MM = 5.0, 3.0, 2.0
_FULL_VIEW_FRAC = 0.9
# the cell goes on above and below the view by this fraction of its height
_BEYOND_FRAC = 1.0


@dataclass(frozen=True)
class Part:
    """One shape of a sample, its name, the material it is made of, and the one that it replaces (`host`)."""

    name: str
    material: str
    shape: Shape
    host: str | None = None


@dataclass(frozen=True)
class Sample:
    """Nested parts, with the attenuation of their materials at the beam energy."""

    parts: tuple[Part, ...]
    energy_kev: float
    mu_cm1: Mapping[str, float] = field(default_factory=dict)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shapes of all parts, in order."""
        return tuple(part.shape for part in self.parts)

    @cached_property
    def table(self) -> ShapeTable:
        """Shapes as tables, made once."""
        return shape_table(self.shapes)

    @cached_property
    def delta(self) -> dict[str, float]:
        """Decrements of the refractive index of the parts' materials and of what they replace."""
        names = {name for part in self.parts for name in (part.material, part.host) if name}
        return {name: delta(name, energy_kev=self.energy_kev) for name in sorted(names)}


@dataclass(frozen=True)
class Cell:
    """What to put into the view of a detector of `rows` x `cols` pixels.

    The cell has its real size (NASICON disc of 6 mm in a PEEK tube of 10 mm, liquid chamber of 4 mm) when
    `pixel_um` is `default_pixel_um(cols)`, and is scaled with the view otherwise. From row 0 down:
    aluminium, NaK inside a rubber ring, NASICON. Bubbles (in NaK, radius 4 to 20 pixels), closed pores (in
    NASICON) and specks of zirconia (in every layer) are sized in pixels; what finds no room is left out.
    """

    rows: int
    cols: int
    pixel_um: float
    energy_kev: float = 80.0
    full_view: bool = False
    n_bubbles: int = 6
    n_pores: int = 24
    specks_per_row: float = 0.75
    potassium_wt_percent: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rows < 32 or self.cols < 48:
            raise BadRecipe(
                f"simulate: a view of {self.rows} x {self.cols} pixels; "
                "the cell needs at least 32 rows x 48 columns"
            )
        for name in ("n_bubbles", "n_pores", "specks_per_row", "seed"):
            if getattr(self, name) < 0:
                raise BadRecipe(f"simulate: {name} = {getattr(self, name)}; give 0 or more")

    @property
    def scale(self) -> float:
        """Size of this cell relative to the real one."""
        return self.pixel_um / default_pixel_um(self.cols, full_view=self.full_view)

    @property
    def liquid(self) -> str:
        """Material of the liquid metal."""
        return f"nak{self.potassium_wt_percent}"

    def plane_mm(self, height_frac: float) -> float:
        """Plane z at a fraction of the height of the view, 0 at the upper edge of row 0."""
        return (height_frac - 0.5) * self.rows * self.pixel_um * 1e-3


def default_pixel_um(cols: int, *, full_view: bool = False) -> float:
    """Pixel size at which the real cell fills a view of `cols` columns."""
    width_mm = 2 * _PEEK_MM / _FULL_VIEW_FRAC if full_view else VIEW_MM
    return width_mm * 1e3 / cols


_ALUMINIUM, _LIQUID, _CERAMIC = (-0.1, 0.113), (0.113, 0.557), (0.557, 1.1)


def build_cell(cell: Cell) -> Sample:
    """Parts of the cell; the same seed gives the same parts, at positions that scale with the view."""
    names = ("peek", "aluminium", "epdm", cell.liquid, "nasicon", "zirconia", "void")
    values = {name: mu(name, energy_kev=cell.energy_kev) for name in names}
    parts = [*_layers(cell, mu_cm1=values), *_inclusions(cell, mu_cm1=values)]
    return Sample(tuple(parts), cell.energy_kev, values)


def _layers(cell: Cell, *, mu_cm1: Mapping[str, float]) -> Iterator[Part]:
    # off the axis of rotation, so that nothing is symmetric by chance
    x, y = 0.031 * cell.scale, -0.022 * cell.scale

    def disc(name: str, inside: str, radius_mm: float, z_mm: tuple[float, float]) -> Part:
        contrast = mu_cm1[name] - mu_cm1[inside]
        return Part(name, name, Cylinder(x, y, radius_mm * cell.scale, *z_mm, contrast), inside)

    def planes(layer: tuple[float, float]) -> tuple[float, float]:
        return cell.plane_mm(layer[0]), cell.plane_mm(layer[1])

    beyond = planes((-_BEYOND_FRAC, 1 + _BEYOND_FRAC))
    yield disc("peek", "void", _PEEK_MM, beyond)
    yield disc("aluminium", "peek", _BORE_MM, (beyond[0], planes(_ALUMINIUM)[1]))
    yield disc("epdm", "peek", _BORE_MM, planes(_LIQUID))
    yield disc(cell.liquid, "epdm", _CHAMBER_MM, planes(_LIQUID))
    yield disc("nasicon", "peek", _BORE_MM, (planes(_CERAMIC)[0], beyond[1]))


def _inclusions(cell: Cell, *, mu_cm1: Mapping[str, float]) -> Iterator[Part]:
    place = _Placer(cell)
    yield from _bubbles(cell, place, contrast=-mu_cm1[cell.liquid])
    yield from _pores(cell, place, contrast=-mu_cm1["nasicon"])
    layers = ((_ALUMINIUM, "aluminium"), (_LIQUID, cell.liquid), (_CERAMIC, "nasicon"))
    n_specks = round(cell.specks_per_row * cell.rows)
    for i in range(n_specks):
        # stratified along z, so that every row holds detail
        height = (i + 0.5) / n_specks
        layer, host = next((z, name) for z, name in layers if height < z[1])
        radius_px = float(place.rng.uniform(0.8, 1.6))
        found = place.inside(layer, radius_px=radius_px, within_mm=_CHAMBER_MM, near=height)
        if found:
            gain = mu_cm1["zirconia"] - mu_cm1[host]
            speck = sphere(found[0], radius_mm=found[1], delta_mu_cm1=gain)
            yield Part(f"speck-{i}", "zirconia", speck, host)


def _bubbles(cell: Cell, place: "_Placer", *, contrast: float) -> Iterator[Part]:
    depth_px = cell.rows * (_LIQUID[1] - _LIQUID[0])
    largest_px = min(20.0, 0.4 * depth_px, 0.2 * place.reach_px(_CHAMBER_MM))
    for i, radius_px in enumerate(np.linspace(max(largest_px, 4.0), 4.0, cell.n_bubbles)):
        found = place.inside(_LIQUID, radius_px=float(radius_px), within_mm=_CHAMBER_MM)
        if found:
            shape = sphere(found[0], radius_mm=found[1], delta_mu_cm1=contrast)
            yield Part(f"bubble-{i}", "void", shape, cell.liquid)


def _pores(cell: Cell, place: "_Placer", *, contrast: float) -> Iterator[Part]:
    for i in range(cell.n_pores):
        axes_px = place.rng.uniform(1.2, 4.0, 3)
        turn = rotation(*place.rng.uniform(0, 2 * math.pi, 3))
        found = place.inside(_CERAMIC, radius_px=float(axes_px.max()), within_mm=_BORE_MM)
        if found:
            a, b, c = (float(v) for v in found[1] * axes_px / axes_px.max())
            yield Part(f"pore-{i}", "void", Ellipsoid(found[0], (a, b, c), contrast, turn), "nasicon")


class _Placer:
    """Finds room for spheres that lie in a layer, within the view, and clear of one another."""

    _TRIES = 500

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.rng = np.random.default_rng(np.random.SeedSequence((cell.seed, 0xCE11)))
        self._taken: list[DoubleArray] = []

    def reach_px(self, within_mm: float) -> float:
        """Radius around the axis, in pixels, that is in view and inside a bore of `within_mm`."""
        bore_px = within_mm * self.cell.scale / (self.cell.pixel_um * 1e-3)
        return min(0.93 * bore_px, 0.45 * self.cell.cols)

    def inside(
        self,
        layer: tuple[float, float],
        *,
        radius_px: float,
        within_mm: float,
        near: float | None = None,
    ) -> tuple[Point, float] | None:
        """Centre and radius in mm of a sphere in a layer, at the height `near` if given; None without room.

        Only a sphere with a height to be near to may reach over the upper or lower edge of the view.
        """
        rows, clear = self.cell.rows, radius_px + 0.5
        low, high = layer[0] * rows + clear, layer[1] * rows - clear
        if near is None:
            low, high = max(low, clear), min(high, rows - clear)
        else:
            low = high = min(max(near * rows, low), high)
        reach = self.reach_px(within_mm) - radius_px
        for _ in range(self._TRIES):
            r, phi = reach * math.sqrt(self.rng.random()), self.rng.uniform(0, 2 * math.pi)
            z = self.rng.uniform(low, high) - rows / 2
            ball = np.array([r * math.cos(phi), r * math.sin(phi), z, radius_px])
            if self._is_free(ball):
                self._taken.append(ball)
                x_mm, y_mm, z_mm, radius_mm = (float(v) for v in ball * self.cell.pixel_um * 1e-3)
                return (x_mm, y_mm, z_mm), radius_mm
        return None

    def _is_free(self, ball: DoubleArray) -> bool:
        return all(np.linalg.norm(ball[:3] - other[:3]) > ball[3] + other[3] + 1.0 for other in self._taken)
