"""Geometry first: layers, faces and levels of a volume, from which everything else is told apart."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xctpipe.errors import NoCell
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.segment.edge import Edge, Profile, fit_edge, place_edge
from xctpipe.segment.layers import BEHIND, Layers, find_layers, profile
from xctpipe.segment.levels import Rows, fit_level, rows_between
from xctpipe.segment.scene import (
    COLLECTOR,
    COLLECTOR_FACE,
    COUNTER,
    COUNTER_FACE,
    INTERFACE,
    LIQUID,
    SOLID,
    Level,
    Scene,
    Surface,
    Up,
)
from xctpipe.segment.surface import (
    Band,
    Place,
    cheapest_surface,
    clean_columns,
    cut_band,
    mean_profile,
    refine,
    rough_plane,
    smooth_band,
)
from xctpipe.segment.view import grey_map

MARGIN_PX = 4.0
"""Voxels nearer to a face say nothing of a layer's level."""
END_PX = 3.0
"""And as many at the ends of the volume."""
START = Edge(0.75, 0.5)
USUAL_BLUR_PX = 0.7
_RIM = 0.97
_CHIP_SIGMAS, _CHIP_PX, _CHIP_AREA = 5.0, 0.75, 40
"""A chip stands out of the reference by so many standard errors and voxels, over so many columns."""
_FACES = {INTERFACE: (LIQUID, SOLID), COUNTER_FACE: (SOLID, COUNTER), COLLECTOR_FACE: (COLLECTOR, LIQUID)}
_NAMES = {SOLID: "NASICON", LIQUID: "NaK", COLLECTOR: "collector", COUNTER: "counter electrode"}


def find_scene(  # noqa: PLR0913 - what is known of a cell and of a scan
    volume: FloatArray,
    *,
    voxel_um: float,
    mu_solid_cm1: float,
    mu_liquid_cm1: float,
    mu_collector_cm1: float,
    mu_counter_cm1: float,
    axis_px: tuple[float, float],
    view_px: float,
    up: Up | None = None,
    profile_cm1: DoubleArray | None = None,
    profile_noise_cm1: float = 0.0,
) -> Scene:
    """Find layers, faces, levels and noise of a volume.

    Parameters
    ----------
    volume : (z, y, x) grey values in cm^-1, in memory; what is not finite is left out.
    voxel_um : edge of a voxel.
    mu_solid_cm1, mu_liquid_cm1, mu_collector_cm1, mu_counter_cm1 : attenuation of NASICON, NaK, current
        collector and counter electrode, from tables.
    axis_px : (y, x) of the axis of rotation.
    view_px : radius of the view that all angles see.
    up : electrode at low z; None: found, as `Scene.notes` says how surely.
    profile_cm1 : (z,) grey level of each row, by which layers are told apart; absent: that of the volume.
    profile_noise_cm1 : its standard error, where it may matter.

    Raises
    ------
    NoCell
        If neither NASICON nor NaK is found, or too little of them.
    """
    place = Place(axis_px, view_px, (0, volume.shape[1]), (0, volume.shape[2]))
    mu = {SOLID: mu_solid_cm1, LIQUID: mu_liquid_cm1, COLLECTOR: mu_collector_cm1, COUNTER: mu_counter_cm1}
    mu[BEHIND] = mu_collector_cm1
    if profile_cm1 is None:
        profile_cm1 = profile(volume, axis_px=axis_px, view_px=view_px)
    layers = find_layers(profile_cm1, mu_cm1=mu, voxel_um=voxel_um, up=up, noise_cm1=profile_noise_cm1)
    work = _Work(volume, place, layers, mu)
    rough = {name: work.rough(name) for name in _FACES if work.shows(name)}
    levels = work.levels(rough)
    if not {SOLID, LIQUID} & set(levels):
        names = " and ".join(_NAMES[k] for k in (SOLID, LIQUID) if k in layers.rows)
        raise NoCell(f"{names} fill too few voxels of a volume of shape {volume.shape} to tell their level")
    faces, edge, notes = work.faces(rough, levels)
    return Scene(
        shape=(volume.shape[0], volume.shape[1], volume.shape[2]),
        voxel_um=voxel_um,
        axis_px=axis_px,
        view_px=view_px,
        up=layers.up,
        surfaces=faces,
        solid=levels.get(SOLID),
        liquid=levels.get(LIQUID),
        blur_px=edge.blur_px,
        other_cm1={k: v for k, v in layers.grey_cm1.items() if k in {COLLECTOR, COUNTER}},
        notes=(*layers.notes, *notes, *_unknown(layers, levels)),
        path_cm=edge.path_cm,
        edge_parts=edge.parts,
        other_levels={k: v for k, v in levels.items() if k in {COLLECTOR, COUNTER}},
    )


def _unknown(layers: Layers, levels: Mapping[int, Level]) -> tuple[str, ...]:
    few = [_NAMES[k] for k in (SOLID, LIQUID) if k in layers.rows and k not in levels]
    return tuple(f"{name} is too thin to tell its level" for name in few)


@dataclass(frozen=True, eq=False)
class _Face:
    """A face on its way: its band, smoothed, and where it is so far, in rows of the band."""

    band: Band
    smooth: FloatArray
    sigma_px: float
    surface: FloatArray
    contrast_cm1: float
    """Level at high z less that at low z."""
    height: FloatArray
    reference: DoubleArray
    spread_px: float

    def refined(self, edge: Edge, place: Place) -> "_Face":
        """The face with its heights by this profile, and a plane through them."""
        height = refine(self.smooth, self.surface, edge=edge, contrast_cm1=self.contrast_cm1)
        use = np.where(place.radius() <= _RIM * place.view_px, height, np.nan)
        reference, spread = place.fit(use, start=self.reference)
        return replace(self, height=height, reference=reference, spread_px=spread)

    @property
    def toward(self) -> int:
        """1 where the bright layer lies at higher z."""
        return 1 if self.contrast_cm1 > 0 else -1

    def profile(self, place: Place) -> Profile:
        """Profile averaged over clean columns."""
        flat = place.plane(self.reference)
        near = np.abs(self.height - flat) < max(4 * self.spread_px, 0.5)
        inside = near & (place.radius() <= _RIM * place.view_px)
        columns = clean_columns(self.smooth, flat.astype(np.float32), inside=inside)
        d, share, weight = mean_profile(self.band.share, height=flat, columns=columns, known=self.band.known)
        bright = share if self.toward > 0 else 1 - share
        return Profile(self.toward * d, bright, weight, abs(self.contrast_cm1))


@dataclass(frozen=True, eq=False)
class _Work:
    volume: FloatArray
    place: Place
    layers: Layers
    mu: Mapping[int, float]

    def shows(self, name: str) -> bool:
        return all(layer in self.layers.rows for layer in _FACES[name])

    def sides(self, name: str) -> tuple[int, int]:
        """Layers at low and at high z of a face."""
        first, second = sorted(_FACES[name], key=lambda layer: self.layers.rows[layer][0])
        return first, second

    def span(self, name: str) -> tuple[int, int]:
        """Rows from the middle of one layer to that of the other, of thin layers up to their ends."""
        low, high = (self.layers.rows[k] for k in self.sides(name))
        return low[0] if low[1] - low[0] < 8 else sum(low) // 2, high[1] if high[1] - high[0] < 8 else sum(
            high
        ) // 2

    def rough(self, name: str) -> DoubleArray:
        low, high = (self.layers.grey_cm1[k] for k in self.sides(name))
        return rough_plane(self.volume, place=self.place, rows=self.span(name), levels_cm1=(low, high))

    def rows(self, layer: int, planes: Mapping[str, DoubleArray]) -> Rows:
        first, end = self.layers.rows[layer]
        thin = end - first < 4 * MARGIN_PX
        margin = MARGIN_PX / 2 if thin else MARGIN_PX
        # a layer of less than two rows at an end of the volume is not found, but blurs the next one
        clear = 0.0 if thin else END_PX
        low: DoubleArray | float = clear - margin if first == 0 else float(first)
        high: DoubleArray | float = len(self.volume) - 1 - clear + margin
        high = high if end == len(self.volume) else end - 1.0
        for name, reference in planes.items():
            if layer in _FACES[name]:
                height = self.place.plane(reference)
                if self.sides(name)[0] == layer:
                    high = height
                else:
                    low = height
        return rows_between(self.place, low=low, high=high, margin_px=margin, n_rows=len(self.volume))

    def levels(self, planes: Mapping[str, DoubleArray]) -> dict[int, Level]:
        found = {}
        for layer in (SOLID, LIQUID, COLLECTOR, COUNTER):
            if layer in self.layers.rows:
                level = fit_level(
                    self.volume, rows=self.rows(layer, planes), place=self.place, mu_cm1=self.mu[layer]
                )
                if level is not None:
                    found[layer] = level
        return found

    def grey(self, layer: int, levels: Mapping[int, Level]) -> FloatArray:
        if layer in levels:
            rows, cols = self.place.rows, self.place.cols
            return grey_map(levels[layer], axis_px=self.place.axis_px, rows=rows, cols=cols)
        return np.full(self.volume.shape[1:], self.layers.grey_cm1[layer], np.float32)

    def faces(
        self, rough: Mapping[str, DoubleArray], levels: Mapping[int, Level]
    ) -> tuple[dict[str, Surface], Edge, tuple[str, ...]]:
        """Surfaces of all faces, the profile that they share, and notes."""
        begun = {name: self._begin(name, rough[name], levels) for name in rough}
        edge, edge_sigma_px, notes = self._edge(list(begun.values()))
        made = {}
        for name, face in begun.items():
            better = face.refined(edge, self.place)
            placed = place_edge(better.profile(self.place), edge=edge)
            # how deep a face lies in its profile is known as well as the shape of the profile
            sigma_px = max(placed.shift_sigma_px[0], edge_sigma_px)
            made[name] = self._surface(name, better, better.toward * placed.shift_px[0], sigma_px)
        return made, edge, notes

    def _begin(self, name: str, rough: DoubleArray, levels: Mapping[int, Level]) -> _Face:
        low, high = (self.grey(k, levels) for k in self.sides(name))
        rows = self._free_rows(name)
        band = cut_band(self.volume, place=self.place, rough=rough, rows=rows, levels_cm1=(low, high))
        smooth, sigma, _ = smooth_band(band, place=self.place, rough=rough)
        surface = cheapest_surface(smooth)
        y, x = (round(a) for a in self.place.axis_px)
        in_band = rough - np.array([band.first, 0.0, 0.0])
        face = _Face(band, smooth, sigma, surface, float(high[y, x] - low[y, x]), surface, in_band, np.nan)
        return face.refined(START, self.place)

    def _free_rows(self, name: str) -> tuple[int, int]:
        """Rows of the two layers of a face, less what other faces blur."""
        low, high = (self.layers.rows[k] for k in self.sides(name))
        first = low[0] if low[0] == 0 else min(low[0] + 3, low[1] - 1)
        end = high[1] if high[1] == len(self.volume) else max(high[1] - 3, high[0] + 1)
        return first, end

    def _edge(self, faces: Sequence[_Face]) -> tuple[Edge, float, tuple[str, ...]]:
        """Profile that faces share, from those of NASICON, and the standard error of places by it."""
        strong = [face for face in faces if abs(face.contrast_cm1) > self.mu[SOLID] / 3]
        if not strong:
            note = f"no face of NASICON in view: blur taken as {USUAL_BLUR_PX} voxels"
            return Edge(USUAL_BLUR_PX, 0.0), 0.1, (note,)
        edge = START
        for _ in range(2):
            strong = [face.refined(edge, self.place) for face in strong]
            found = fit_edge([face.profile(self.place) for face in strong], start=edge)
            edge = found.edge
        averaged = "attenuation" if edge.parts == 1 else "brightness"
        return (
            edge,
            max(found.shift_sigma_px),
            (
                f"edges blur {edge.blur_px:.3f} +- {found.blur_sigma_px:.3f} voxels; rays take "
                f"{edge.path_cm:.2f} cm through the layers; rows average {averaged}",
            ),
        )

    def _surface(self, name: str, face: _Face, shift_px: float, shift_sigma_px: float) -> Surface:
        inside = self.place.radius() <= self.place.view_px
        height = np.where(inside, face.height + np.float32(face.band.first + shift_px), np.nan)
        reference = face.reference + np.array([face.band.first + shift_px, 0.0, 0.0])
        away = height - self.place.plane(reference)
        side = 0 if name == COLLECTOR_FACE else self._solid_side(name)
        chips = _chips(away, side=side, sigma_px=face.spread_px)
        used = np.where(chips, height, self.place.plane(reference))
        tilt_sigma = math.sqrt(5 * 4 * math.pi / inside.sum()) * face.sigma_px * face.spread_px
        return Surface(
            height_px=height.astype(np.float32),
            reference=reference,
            sigma_px=face.spread_px,
            reference_sigma_px=math.hypot(tilt_sigma, shift_sigma_px),
            used_px=np.where(inside, used, np.nan).astype(np.float32),
        )

    def _solid_side(self, name: str) -> int:
        """1 where NASICON lies at higher z than the face."""
        return 1 if self.sides(name)[1] == SOLID else -1


def _chips(away_px: DoubleArray, *, side: int, sigma_px: float) -> NDArray[np.bool_]:
    """Columns where a face stands out of its plane, away from the NASICON; to both sides where `side` is 0.

    Where it lies deeper there is a pit, a pore or the mouth of a crack: something that is missing is to be
    measured from the plane, not followed.
    """
    out = np.abs(away_px) if side == 0 else -side * away_px
    labels, n = ndimage.label(out > max(_CHIP_SIGMAS * sigma_px, _CHIP_PX))
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    large = sizes >= _CHIP_AREA
    large[0] = False
    chips: NDArray[np.bool_] = large[labels]
    return chips
