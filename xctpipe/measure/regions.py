"""One block as measures see it: objects, the voxels about them, and how much attenuation each one misses."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.measure import recovery
from xctpipe.measure.registry import FIXED, Whole
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.segment.expected import face_height
from xctpipe.segment.features import numbers_in
from xctpipe.segment.scene import INTERFACE, LIQUID, SOLID, Level, Scene

CRACKS = ("crack", "crack_filled")
IN_SOLID = (*CRACKS, "pore")
IN_LIQUID = ("bubble", "interfacial_void")
VOIDS = (*IN_LIQUID, *IN_SOLID, "unresolved")
CHIPS = ("chip",)
ALL = (*VOIDS, *CHIPS, "inclusion")
HALO_PX = 24
"""Margin that a block needs so that no measure depends on how the volume was cut."""

Box = tuple[slice, slice, slice]
_FAR = 65535
CLEAR_PX = 3
"""A face of the layer that is nearer than this blurs into a voxel."""


@dataclass(frozen=True, eq=False)
class Inventory:
    """What is known of objects before they are measured; row i is object `ids[i]`, ascending.

    All of it adds up over blocks, so that labelling can hand it on.
    """

    ids: Whole
    kinds: NDArray[np.str_]
    counts: Whole
    centres_px: DoubleArray
    """(n, 3) mean z, y, x of the voxels."""
    lows_px: Whole
    highs_px: Whole
    """(n, 3) first and last z, y, x."""


@dataclass(frozen=True, eq=False)
class Context:
    """What measures must know beside the voxels."""

    scene: Scene
    objects: Inventory
    mask_px: float = 3.0
    """Missing attenuation is summed up to this distance from an object: blur reaches no further."""
    wide_px: float = 4.5
    """A wider mask, to see what the choice of the mask does."""
    gap_px: float = 5.0
    ring_px: float = 3.0
    """The local background is taken between gap_px and gap_px + ring_px from an object."""
    calibration_frac: float = 0.01
    """Standard error of contrasts: composition and density of the materials are known to about this."""
    first_row: float = 0.0
    """Detector row of slice 0, in voxels."""
    fills: NDArray[np.str_] | None = None
    """What each crack holds, "void", "metal" or "unknown", once it is measured (`fill.settled`)."""

    @property
    def reach_px(self) -> float:
        """Distance from an object beyond which no voxel matters to it."""
        return self.gap_px + self.ring_px

    @property
    def voxel_um3(self) -> float:
        """Volume of a voxel."""
        return float(self.scene.voxel_um) ** 3

    def level(self, host: int) -> Level | None:
        """Level of NASICON or NaK, None where the scan does not show it."""
        return self.scene.solid if host == SOLID else self.scene.liquid

    @cached_property
    def hosts(self) -> NDArray[np.uint8]:
        """Host of each object by its kind: NaK of bubbles and interfacial voids, else NASICON."""
        return np.where(np.isin(self.objects.kinds, IN_LIQUID), LIQUID, SOLID).astype(np.uint8)

    @cached_property
    def contrasts(self) -> DoubleArray:
        """Attenuation that a void in the host of each object misses (cm^-1); NaN where unknown."""
        mu = {h: level.mu_cm1 if (level := self.level(h)) else np.nan for h in (SOLID, LIQUID)}
        return np.where(self.hosts == SOLID, mu[SOLID], mu[LIQUID])

    @cached_property
    def near_faces(self) -> dict[int, dict[str, tuple[int, DoubleArray]]]:
        """For each layer, what must be made up for near its faces (`recovery`)."""
        return {host: recovery.tables(self.scene, host) for host in (SOLID, LIQUID)}

    @cached_property
    def metal_frac(self) -> float:
        """What a metal-filled opening misses, as a share of a void; 1 where NaK is unknown."""
        solid, liquid = self.scene.solid, self.scene.liquid
        return 1.0 if solid is None or liquid is None else 1 - liquid.mu_cm1 / solid.mu_cm1

    @property
    def left_frac(self) -> float:
        """Share of metal in NASICON that phase retrieval left blurred: that of the interface; 0 without."""
        return max(self.scene.tail_fracs.get(INTERFACE, 0.0), 0.0)

    @property
    def metal_seen_frac(self) -> float:
        """`metal_frac` of what is seen in a thin opening: half of what is left blurred lies beside it."""
        return self.metal_frac * (1 - self.left_frac / 2)


@dataclass(frozen=True, eq=False)
class Patch:
    """A block with its margin: (z, y, x) arrays of one shape.

    `core` is the block itself within them, `origin` the place of voxel (0, 0, 0) in the volume. The margin is
    HALO_PX on each side, less only where the volume ends. `objects` are final labels.
    """

    grey: FloatArray
    expected: FloatArray
    objects: NDArray[np.int32]
    hosts: NDArray[np.uint8]
    origin: tuple[int, int, int]
    core: Box


class Region:
    """Voxels of the block that lie within reach of an object, as lists, and what they miss.

    Each belongs to the nearest object, the one of lower number where two are equally near.
    """

    def __init__(self, patch: Patch, context: Context) -> None:
        self.patch, self.context = patch, context
        self.kept: dict[str, Any] = {}
        """What several gathers share."""

    @cached_property
    def lacking(self) -> NDArray[np.int32]:
        """Labels of the patch without chips: these are whole, and the crack beneath blurs into them."""
        return without(self.patch.objects, self.context, CHIPS)

    @cached_property
    def _lists(self) -> tuple[Whole, NDArray[np.int32], NDArray[np.int64]]:
        """Flat place in the core, object and squared distance of each voxel; those of chips come last."""
        margin = int(np.ceil(self.context.reach_px)) + 1
        box, inner = [], []
        for part, n in zip(self.patch.core, self.patch.objects.shape, strict=True):
            low, high = max(part.start - margin, 0), min(part.stop + margin, n)
            box.append(slice(low, high))
            inner.append(slice(part.start - low, part.stop - low))
        owner, d2 = nearest(self.lacking[tuple(box)], self.context.reach_px)
        owner, d2 = owner[tuple(inner)].reshape(-1), d2[tuple(inner)].reshape(-1)
        near = np.flatnonzero(owner)
        whole = self.patch.objects[self.patch.core].reshape(-1)
        chips = np.flatnonzero(whole != self.lacking[self.patch.core].reshape(-1))
        return (
            np.concatenate([near, chips]),
            np.concatenate([owner[near], whole[chips]]),
            np.concatenate([d2[near].astype(np.int64), np.zeros(len(chips), np.int64)]),
        )

    @cached_property
    def place(self) -> tuple[Whole, Whole, Whole]:
        """(z, y, x) of each voxel in the patch."""
        core = self.patch.core
        z, y, x = np.unravel_index(self._lists[0], tuple(part.stop - part.start for part in core))
        return z + core[0].start, y + core[1].start, x + core[2].start

    @property
    def owner(self) -> NDArray[np.int32]:
        """Object of each voxel."""
        return self._lists[1]

    @property
    def d2(self) -> NDArray[np.int64]:
        """Squared distance (voxels) to the object of each voxel, 0 within."""
        return self._lists[2]

    @cached_property
    def ids(self) -> Whole:
        """Objects that own a voxel of the block, ascending."""
        return np.unique(self.owner).astype(np.int64)

    @cached_property
    def slot(self) -> Whole:
        """Row of each voxel's object in `ids`."""
        return np.searchsorted(self.ids, self.owner)

    @cached_property
    def known(self) -> Whole:
        """Row of each of `ids` in the inventory."""
        return np.searchsorted(self.context.objects.ids, self.ids)

    @cached_property
    def coordinates(self) -> tuple[Whole, Whole, Whole]:
        """(z, y, x) of each voxel in the volume."""
        z, y, x = self.place
        a, b, c = self.patch.origin
        return z + a, y + b, x + c

    @cached_property
    def missing(self) -> DoubleArray:
        """(expected - grey) / contrast of each voxel: 1 in a void."""
        gone = self.patch.expected[self.place].astype(np.float64) - self.patch.grey[self.place]
        lost: DoubleArray = np.clip(gone / self.context.contrasts[self.known][self.slot], -1e4, 1e4)
        return np.nan_to_num(lost)

    @cached_property
    def whole_missing(self) -> DoubleArray:
        """`missing`, with what the blur at a face of its layer hides made up for: for sums (`recovery`)."""
        out = self.missing.copy()
        hosts = self.context.hosts[self.known][self.slot]
        for host in (SOLID, LIQUID):
            own = hosts == host
            if own.any():
                z, y, x = (axis[own] for axis in self.place)
                out[own] *= self.gain(host, z, y, x)
        return out

    def gain(self, host: int, z: Whole, y: Whole, x: Whole) -> DoubleArray:
        """Weight of voxels of the patch that lie in this layer."""
        out = np.ones(z.shape)
        for name, (way, weights) in self.context.near_faces[host].items():
            d = way * (z + self.patch.origin[0] - self.height(name)[y, x].astype(np.float64))
            at = np.floor(np.nan_to_num(d, nan=-1.0) * recovery.PER_PX).astype(np.int64)
            near = (at >= 0) & (at < len(weights))
            out[near] *= weights[at[near]]
        return out

    def height(self, name: str) -> FloatArray:
        """Height of a face in each column of the patch, as it is used: as imaged where a chip stands out."""
        kept = self.kept.setdefault("heights", {})
        if name not in kept:
            _, y, x = ((a, a + n) for a, n in zip(self.patch.origin, self.patch.objects.shape, strict=True))
            kept[name] = face_height(self.context.scene, name, rows=y, cols=x)
        height: FloatArray = kept[name]
        return height

    @cached_property
    def in_host(self) -> NDArray[np.bool_]:
        """Voxel lies in the layer of its object, and in the view."""
        return np.asarray(self.patch.hosts[self.place] == self.context.hosts[self.known][self.slot])

    @cached_property
    def clear(self) -> NDArray[np.bool_]:
        """Voxel lies in the layer of its object, and no face of it blurs into the voxel."""
        host, out = self.patch.hosts, self.in_host.copy()
        own = host[self.place]
        for axis in range(3):
            for step in (-CLEAR_PX, CLEAR_PX):
                at = list(self.place)
                at[axis] = np.clip(at[axis] + step, 0, host.shape[axis] - 1)
                out &= host[tuple(at)] == own
        return out

    def box_of(self, kept: NDArray[np.bool_], *, margin: int) -> Box | None:
        """Box in the patch about objects of the inventory; None where the patch holds none of them."""
        known, shape = self.context.objects, self.patch.objects.shape
        start = np.array(self.patch.origin)
        low = known.lows_px[kept] - start - margin
        high = known.highs_px[kept] - start + margin + 1
        meets = ((high > 0) & (low < np.array(shape))).all(axis=1)
        if not meets.any():
            return None
        first = np.maximum(low[meets].min(axis=0), 0).tolist()
        last = np.minimum(high[meets].max(axis=0), shape).tolist()
        return slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2])

    def depth_of(self, place: tuple[Whole, Whole, Whole]) -> DoubleArray | None:
        """Depth (voxels) of places of the patch below the undeformed interface; None without one."""
        face = self.context.scene.surfaces.get(INTERFACE)
        if face is None:
            return None
        z, y, x = (axis + start for axis, start in zip(place, self.patch.origin, strict=True))
        cy, cx = self.context.scene.axis_px
        flat = face.reference[0] + face.reference[1] * (y - cy) + face.reference[2] * (x - cx)
        return np.asarray(self.context.scene.side * (z - flat))

    def sums(self, values: NDArray[Any], where: NDArray[np.bool_] | None = None) -> Whole:
        """Sum over each object, exact: whole numbers below 2^53 in total."""
        slot = self.slot if where is None else self.slot[where]
        chosen = values if where is None else values[where]
        weights = np.rint(np.asarray(chosen, np.float64))
        return np.bincount(slot, weights, minlength=len(self.ids)).astype(np.int64)

    def counts(self, where: NDArray[np.bool_]) -> Whole:
        """Number of voxels of each object."""
        return np.bincount(self.slot[where], minlength=len(self.ids)).astype(np.int64)

    def fixed(self, values: DoubleArray, where: NDArray[np.bool_] | None = None) -> Whole:
        """Sum of fractions over each object, in multiples of 1 / FIXED."""
        return self.sums(values * FIXED, where)


def inventory_of(objects: NDArray[np.int32], kinds: dict[int, str]) -> Inventory:
    """Inventory of labels that fit into memory.

    Parameters
    ----------
    objects : (z, y, x), 0 where none.
    kinds : kind of each label; "unresolved" where it says nothing.
    """
    places = np.nonzero(objects)
    ids, slot = np.unique(objects[places], return_inverse=True)
    counts = np.bincount(slot, minlength=len(ids))
    centres = np.stack([np.bincount(slot, axis, len(ids)) for axis in places], axis=1)
    lows, highs = np.full((len(ids), 3), 2**62), np.full((len(ids), 3), -1)
    for i, axis in enumerate(places):
        np.minimum.at(lows[:, i], slot, axis)
        np.maximum.at(highs[:, i], slot, axis)
    names = np.array([kinds.get(int(i), "unresolved") for i in ids] or [""])[: len(ids)]
    middle = centres / np.maximum(counts, 1)[:, None]
    return Inventory(ids.astype(np.int64), names, counts, middle, lows, highs)


def without(labels: NDArray[np.int32], context: Context, kinds: tuple[str, ...]) -> NDArray[np.int32]:
    """Labels with objects of these kinds taken out."""
    known = context.objects
    gone = known.ids[np.isin(known.kinds, kinds)]
    here = numbers_in(labels)
    if not np.isin(gone, here).any():
        return labels
    keep = np.ones(int(max(gone[-1], here[-1])) + 1, bool)
    keep[gone] = False
    return np.where(keep[labels], labels, 0).astype(np.int32)


def nearest(labels: NDArray[np.int32], reach_px: float) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """Nearest object of each voxel (0 beyond reach) and the squared distance to it, 0 within objects."""
    owner, d2 = _nearest(np.ascontiguousarray(labels), _spans(reach_px))
    return owner, d2


def _spans(reach: float) -> Whole:
    """Rows (dz, dy, half width) of the ball of this radius."""
    r = int(reach)
    rows = [
        (dz, dy, int(np.sqrt(reach**2 - dz**2 - dy**2)))
        for dz in range(-r, r + 1)
        for dy in range(-r, r + 1)
        if dz**2 + dy**2 <= reach**2
    ]
    return np.array(rows, np.int64)


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _nearest(  # noqa: C901 - one loop nest
    labels: NDArray[np.int32], spans: Whole
) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:  # pragma: no cover - compiled
    """Nearest object within the spans and its squared distance; each surface voxel marks its surroundings."""
    nz, ny, nx = labels.shape
    owner = labels.copy()
    d2 = np.full(labels.shape, _FAR, np.uint16)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                if labels[z, y, x] > 0:
                    d2[z, y, x] = 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                label = labels[z, y, x]
                if label > 0 and _on_surface(labels, z, y, x):
                    for m in range(len(spans)):
                        zz, yy, half = z + spans[m, 0], y + spans[m, 1], spans[m, 2]
                        if zz < 0 or yy < 0 or zz >= nz or yy >= ny:
                            continue
                        base = spans[m, 0] ** 2 + spans[m, 1] ** 2
                        for xx in range(max(0, x - half), min(nx, x + half + 1)):
                            d = base + (xx - x) ** 2
                            old = d2[zz, yy, xx]
                            if d < old or (d == old and label < owner[zz, yy, xx]):
                                d2[zz, yy, xx] = d
                                owner[zz, yy, xx] = label
    return owner, d2


@numba.njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _on_surface(labels: NDArray[np.int32], z: int, y: int, x: int) -> bool:  # pragma: no cover - compiled
    """A neighbour over a face is no part of the object, or lies beyond the block."""
    nz, ny, nx = labels.shape
    if z == 0 or y == 0 or x == 0 or z == nz - 1 or y == ny - 1 or x == nx - 1:
        return True
    label = labels[z, y, x]
    return bool(
        labels[z - 1, y, x] != label
        or labels[z + 1, y, x] != label
        or labels[z, y - 1, x] != label
        or labels[z, y + 1, x] != label
        or labels[z, y, x - 1] != label
        or labels[z, y, x + 1] != label
    )
