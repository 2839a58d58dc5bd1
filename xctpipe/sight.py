"""What a volume shows, before any of it is labelled: the level to work on, and its scene."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe import volume
from xctpipe.correct.phase import retrieval_length_um
from xctpipe.errors import BadRecipe
from xctpipe.ground import Ground, view_of
from xctpipe.materials import (
    aluminium_cm1,
    aluminium_refraction,
    nak_cm1,
    nak_refraction,
    nasicon_cm1,
    nasicon_refraction,
    sodium_cm1,
    sodium_refraction,
)
from xctpipe.plan import BASE_BYTES
from xctpipe.recipe import Recipe
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.segment.bulk import choose_level
from xctpipe.segment.expected import expected
from xctpipe.segment.geometry import find_scene
from xctpipe.segment.layers import profile
from xctpipe.segment.scene import COLLECTOR_FACE, COUNTER_FACE, INTERFACE, Level, Scene, Surface
from xctpipe.segment.tails import left_frac
from xctpipe.segment.view import whole_box
from xctpipe.settings import Cell

log = logging.getLogger(__name__)

MOST_VOXELS = 64_000_000
"""Of the array that geometry is found on: what is larger is taken coarser."""
BYTES_PER_VOXEL = 16
"""That finding a scene takes: 10.6 were measured, and 4 of the second volume where there is one."""
_LEAST_VOXELS = 4_000_000
"""Of that array: a cell is still seen on it, and it is never in the way."""
EDGE = "edge.ome.zarr"
"""Name of the volume without phase retrieval, beside that with it."""
_NOISE_PX = 96
_ERROR_FRAC = 0.05
_WILD_FRAC = 0.15
"""Of the attenuation of NASICON: by how much a fringe differs at least from what is retrieved from it."""
_NEAR_ROWS = 4
"""Rows of fringes read what their layer does, if that is no further away than this."""
_ROUNDS = 2
"""Of tails and scenes, each found with the other known."""


def materials_of(recipe: Recipe) -> tuple[float, float]:
    """Attenuation of NASICON and NaK at the recipe's energy."""
    cell, energy = recipe.cell or Cell(), recipe.raw.energy_kev
    return (
        nasicon_cm1(energy, density_g_cm3=cell.nasicon_density_g_cm3),
        nak_cm1(energy, k_wtpct=cell.nak_k_wtpct),
    )


def see(path: Path, *, recipe: Recipe, memory_bytes: int = 8 * 10**9) -> Ground:
    """Find the scene of a volume, on the level that suits its noise.

    Parameters
    ----------
    memory_bytes : what the process may take; the array that the scene is sought on is coarser where it must.

    Raises
    ------
    BadScan
        If neither NASICON nor NaK is found.
    """
    solid, liquid = materials_of(recipe)
    shapes = volume.level_shapes(volume.read_spec(path))
    level = level_of(path, recipe=recipe, contrast_cm1=solid - liquid)
    most = _most_voxels(memory_bytes)
    coarse, factor = _in_memory(path, level, most=most)
    axis, radius = view_of(path, level=level)
    energy = recipe.raw.energy_kev
    voxel_um = volume.read_spec(path).pixel_um * 2**level * factor
    sharp = _sharp_profile(path, level, coarse=(coarse.shape, most), axis_px=axis, view_px=radius)
    noise = 0.0
    if sharp is not None:
        noise = _row_noise(sharp)
        retrieved = profile(coarse, axis_px=_coarser(axis, factor), view_px=radius / factor)
        sharp = without_fringes(sharp, retrieved_cm1=retrieved, mu_cm1=(solid, liquid))

    def scene_of(array: FloatArray) -> Scene:
        return find_scene(
            array,
            voxel_um=voxel_um,
            mu_solid_cm1=solid,
            mu_liquid_cm1=liquid,
            mu_collector_cm1=aluminium_cm1(energy),
            mu_counter_cm1=sodium_cm1(energy),
            axis_px=_coarser(axis, factor),
            view_px=radius / factor,
            up=(recipe.cell or Cell()).up,
            profile_cm1=sharp,
            profile_noise_cm1=noise,
        )

    length, fracs = left_of_faces(recipe)
    scene = with_tails(coarse, scene_of=scene_of, fracs=fracs, length_px=length / voxel_um)
    if factor > 1:
        scene = finer(scene, factor=factor, shape=shapes[level], axis_px=axis, view_px=radius)
    return Ground(path, level, scene)


def left_of_faces(recipe: Recipe) -> tuple[float, dict[str, float]]:
    """Length (um) that phase retrieval of the volume averages over, 0 without, and what it leaves by face."""
    energy, cell = recipe.raw.energy_kev, recipe.cell or Cell()
    if recipe.phase is None or recipe.raw.distance_mm is None:
        return 0.0, {}
    ratio = recipe.phase.delta_beta
    length = retrieval_length_um(delta_beta=ratio, energy_kev=energy, distance_mm=recipe.raw.distance_mm)
    solid, liquid = materials_of(recipe)
    nak = nak_refraction(energy, k_wtpct=cell.nak_k_wtpct), liquid
    nasicon = nasicon_refraction(energy, density_g_cm3=cell.nasicon_density_g_cm3), solid
    aluminium = aluminium_refraction(energy), aluminium_cm1(energy)
    sodium = sodium_refraction(energy), sodium_cm1(energy)
    faces = {INTERFACE: (nak, nasicon), COUNTER_FACE: (sodium, nasicon), COLLECTOR_FACE: (nak, aluminium)}
    fracs = {
        name: left_frac((a[0], b[0]), mu_cm1=(a[1], b[1]), energy_kev=energy, delta_beta=ratio)
        for name, (a, b) in faces.items()
    }
    return length, fracs


def with_tails(
    array: FloatArray,
    *,
    scene_of: Callable[[FloatArray], Scene],
    fracs: Mapping[str, float],
    length_px: float,
) -> Scene:
    """Scene of an array, with what phase retrieval left of its faces, which is taken off to find it.

    Parameters
    ----------
    scene_of : finds the scene of an array.
    fracs : by face, the share of its step that is left blurred.
    length_px : that retrieval averaged over; 0 without it.
    """
    scene = scene_of(array)
    if not length_px:
        return scene
    for _ in range(_ROUNDS):
        plain = replace(scene, tail_fracs={}, tail_px=0.0)
        left = expected(replace(plain, tail_fracs=fracs, tail_px=length_px), whole_box(plain))
        left -= expected(plain, whole_box(plain))
        scene = replace(scene_of(array - left), tail_fracs=fracs, tail_px=length_px)
    said = ", ".join(f"{fracs[name]:.2f} ({name})" for name in sorted(scene.surfaces))
    note = f"phase retrieval left over {length_px:.1f} voxels these shares of the steps at faces: {said}"
    return replace(scene, notes=(*scene.notes, note))


def _row_noise(profile_cm1: DoubleArray) -> float:
    """Standard error of the level of a row, from how rows differ from those beside them."""
    bends = profile_cm1[:-2] - 2 * profile_cm1[1:-1] + profile_cm1[2:]
    bends = np.abs(bends[np.isfinite(bends)])
    return float(1.4826 * np.median(bends) / np.sqrt(6.0)) if bends.size else 0.0


def without_fringes(
    edge_cm1: DoubleArray, *, retrieved_cm1: DoubleArray, mu_cm1: tuple[float, float]
) -> DoubleArray:
    """Grey levels of rows, those of fringes beside a face replaced by what their layer reads next to them.

    Fringes are rows that read other than after phase retrieval, and their neighbours. Retrieval says which
    side of the face they are on, and roughly what they read where a layer is nothing but fringes.

    Parameters
    ----------
    edge_cm1, retrieved_cm1 : (z,) without and with phase retrieval.
    mu_cm1 : of NASICON and NaK.
    """
    wild = np.abs(edge_cm1 - retrieved_cm1) > _WILD_FRAC * mu_cm1[0]
    wild |= np.r_[wild[1:], False] | np.r_[False, wild[:-1]]
    solid, out = retrieved_cm1 > sum(mu_cm1) / 2, edge_cm1.copy()
    parts = np.cumsum(np.r_[False, solid[1:] != solid[:-1]])
    for part in np.unique(parts[wild]):
        rows = np.flatnonzero(parts == part)
        here, calm = rows[wild[rows]], rows[~wild[rows]]
        out[here] = retrieved_cm1[here]
        if len(calm):
            away = np.abs(here[:, None] - calm)
            near = away.min(axis=1) <= _NEAR_ROWS
            out[here[near]] = edge_cm1[calm[away.argmin(axis=1)[near]]]
    return out


def _sharp_profile(
    path: Path,
    level: int,
    *,
    coarse: tuple[tuple[int, ...], int],
    axis_px: tuple[float, float],
    view_px: float,
) -> NDArray[np.float64] | None:
    """Grey level of each row without phase retrieval; None where a volume is without it itself.

    `coarse` are the shape of the array that it belongs to, and the most voxels that may be read.
    Retrieval blurs rows near a face by a tenth of NASICON, which is what tells NaK from sodium.
    """
    edge = path.with_name(EDGE)
    if path.name == EDGE or not edge.exists():
        return None
    array, factor = _in_memory(edge, level, most=coarse[1])
    if array.shape != coarse[0]:
        return None
    return profile(array, axis_px=_coarser(axis_px, factor), view_px=view_px / factor)


def _coarser(axis_px: tuple[float, float], factor: int) -> tuple[float, float]:
    y, x = ((a + 0.5) / factor - 0.5 for a in axis_px)
    return y, x


def level_of(path: Path, *, recipe: Recipe, contrast_cm1: float) -> int:
    """Level of the pyramid to work on: the recipe's, or the finest on which NASICON stands out of NaK."""
    n_levels = volume.read_spec(path).n_levels
    chosen = recipe.segment.level
    if chosen != "auto":
        if not chosen < n_levels:
            raise BadRecipe(f"segment.level = {chosen}: {path.name} has levels 0 to {n_levels - 1}")
        return int(chosen)
    return choose_level([_noise(path)], contrast_cm1=contrast_cm1, n_levels=n_levels, error_frac=_ERROR_FRAC)


def _noise(path: Path) -> float:
    """Standard deviation of single voxels, from neighbours along z, whose noise is independent."""
    shape = volume.read_spec(path).shape
    where: dict[str, Any] = {}
    for axis, n in zip("zyx", shape, strict=True):
        edge = min(n, _NOISE_PX)
        where[axis] = slice((n - edge) // 2, (n - edge) // 2 + edge)
    part = volume.read(path, **where)
    if len(part) < 3:
        return 0.0
    bend = part[:-2] - 2 * part[1:-1] + part[2:]
    return float(1.4826 * np.median(np.abs(bend)) / np.sqrt(6.0))


def _most_voxels(memory_bytes: int) -> int:
    """Of the array that a scene is sought on."""
    room = max(memory_bytes - BASE_BYTES, 0) // BYTES_PER_VOXEL
    return min(MOST_VOXELS, max(room, _LEAST_VOXELS))


def _in_memory(path: Path, level: int, *, most: int) -> tuple[FloatArray, int]:
    """A level, coarser by the least power of two that holds no more voxels than `most`; and the factor."""
    shapes = volume.level_shapes(volume.read_spec(path))
    factor, at = 1, level
    while np.prod(shapes[at]) > most and at + 1 < len(shapes):
        factor, at = 2 * factor, at + 1
    array = volume.read(path, level=at)
    while array.size > most:
        array, factor = _halved(array), 2 * factor
    return array, factor


def _halved(array: FloatArray) -> FloatArray:
    z, y, x = (n // 2 * 2 for n in array.shape)
    even = array[:z, :y, :x].reshape(z // 2, 2, y // 2, 2, x // 2, 2)
    return np.asarray(even.mean(axis=(1, 3, 5), dtype=np.float32))


def finer(
    scene: Scene, *, factor: int, shape: tuple[int, int, int], axis_px: tuple[float, float], view_px: float
) -> Scene:
    """A scene in voxels `factor` times as fine."""

    def level(each: Level) -> Level:
        return replace(each, radii_px=each.radii_px * factor, noise_edges_px=each.noise_edges_px * factor)

    def surface(each: Surface) -> Surface:
        c = each.reference
        plane = np.array([(c[0] + 0.5) * factor - 0.5, c[1], c[2]])
        used = None if each.used_px is None else _stretched(each.used_px, factor, shape)
        return Surface(
            _stretched(each.height_px, factor, shape),
            plane,
            each.sigma_px * factor,
            each.reference_sigma_px * factor,
            used,
        )

    return replace(
        scene,
        shape=shape,
        voxel_um=scene.voxel_um / factor,
        axis_px=axis_px,
        view_px=view_px,
        surfaces={name: surface(each) for name, each in scene.surfaces.items()},
        solid=scene.solid and level(scene.solid),
        liquid=scene.liquid and level(scene.liquid),
        blur_px=scene.blur_px * factor,
        tail_px=scene.tail_px * factor,
        other_levels={host: level(each) for host, each in scene.other_levels.items()},
    )


def _stretched(heights: FloatArray, factor: int, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Heights of coarse columns for fine ones, linear in between."""
    axes = [
        np.clip((np.arange(n) + 0.5) / factor - 0.5, 0, m - 1)
        for n, m in zip(shape[1:], heights.shape, strict=True)
    ]
    (y, x), out = axes, heights
    for axis, at in enumerate((y, x)):
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, out.shape[axis] - 1)
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        out = np.take(out, low, axis=axis) * (1 - share) + np.take(out, high, axis=axis) * share
    return ((out + 0.5) * factor - 0.5).astype(np.float32)
