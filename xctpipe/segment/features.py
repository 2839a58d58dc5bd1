"""What a block tells of the objects in it, in whole numbers: they add up the same for any cut into blocks."""

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.compiled import INNER
from xctpipe.scan import FloatArray
from xctpipe.segment.scene import LIQUID, SOLID

HALO_PX = 5
"""Voxels around a block that its features depend on: 3, and what outlines are drawn by (`paint.RIDGE_PX`)."""
SCORE_BINS = 128
"""Of the histograms of scores, over 0 to `SCORE_TOP` times the attenuation of the host."""
SCORE_TOP = 1.28
_SUMS = (
    "voxels",
    "seeds",
    "faces",
    "solid",
    "rim",
    "ends",
    "z",
    "y",
    "x",
    "zz",
    "yy",
    "xx",
    "zy",
    "zx",
    "yx",
    "missing",
    "away",
)
_COLUMN = {name: i for i, name in enumerate(_SUMS)}
_DEPTHS = 3
_PER_VOXEL = ("objects", "seeds", "residual", "score", "hosts", "below_px", "counter_px", "rim")
SCALE = 1 << 20
"""Of what is no whole number by itself: missing attenuation in voxels, heights."""
_N_SUMS = len(_SUMS)


@dataclass(frozen=True, eq=False)
class Patch:
    """A block with its margin (z, y, x): what its objects are measured on."""

    objects: NDArray[np.int32]
    seeds: NDArray[np.bool_]
    residual: FloatArray
    """Expected minus measured grey, cm^-1."""
    score: FloatArray
    """What the outline is drawn by: smoothed residual over the level of the host."""
    hosts: NDArray[np.uint8]
    below_px: FloatArray
    """Distance below the interface, into the NASICON; above it negative."""
    counter_px: FloatArray
    """Distance to the counter electrode; large where it is not in view."""
    rim: NDArray[np.bool_]
    """Voxels beside the end of the view."""
    first: tuple[int, int, int]
    """Voxel of the volume at which the patch begins."""
    core: tuple[slice, slice, slice]
    """The block within the patch."""
    mu_cm1: tuple[float, float]
    """Attenuation of NASICON and NaK."""
    axis_px: tuple[float, float]
    """Voxel (y, x) of the volume that the axis of rotation goes through."""

    @cached_property
    def owner(self) -> NDArray[np.int32]:
        """Of the voxels of the core: the object within two steps, that of the lower number where two meet."""
        return np.ascontiguousarray(grown(grown(self.objects))[self.core])


def gather_features(patch: Patch) -> dict[str, NDArray[np.int64]]:
    """Sums over the objects of a block.

    Returns
    -------
    `ids` (n,) of objects in the block or within two voxels of it; `sums` (n, 17); `least` (n, 3): below_px,
    -below_px and counter_px in 1 / SCALE; `scores` (n, SCORE_BINS): histogram of the score.
    """
    ids = numbers_in(patch.owner)
    out: dict[str, NDArray[np.int64]] = {
        "ids": ids,
        "sums": np.zeros((len(ids), _N_SUMS), np.int64),
        "least": np.full((len(ids), _DEPTHS), np.iinfo(np.int64).max),
        "scores": np.zeros((len(ids), SCORE_BINS), np.int64),
    }
    if len(ids):
        _gather_all(patch, out)
    return out


def _gather_all(patch: Patch, out: dict[str, NDArray[np.int64]]) -> None:
    start = np.array([part.start for part in patch.core])
    slots = np.zeros(int(out["ids"][-1]) + 1, np.int64)
    slots[out["ids"]] = np.arange(len(out["ids"]))
    arrays = tuple(getattr(patch, name) for name in _PER_VOXEL)
    places = start, np.array(patch.first), np.array(patch.axis_px)
    known = _ends(patch), patch.mu_cm1
    _gather(patch.owner, arrays, places, known, (slots, out["sums"], out["least"], out["scores"]))


def _ends(patch: Patch) -> NDArray[np.bool_]:
    """Rows of the core at an end of the patch: of the volume, since elsewhere there is a margin."""
    rows = np.arange(patch.core[0].start, patch.core[0].stop)
    return np.asarray((rows == 0) | (rows == len(patch.objects) - 1))


def numbers_in(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Numbers above 0 that labels hold, ascending."""
    seen = np.zeros(int(labels.max(initial=0)) + 1, np.bool_)
    _mark(labels, seen)
    seen[0] = False
    return np.asarray(np.flatnonzero(seen), np.int64)


@numba.njit(cache=True, nogil=True)
def _mark(labels, seen):  # type: ignore[no-untyped-def]
    flat = labels.ravel()
    for i in range(len(flat)):
        seen[flat[i]] = True


def grown(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Labels that have taken the free voxels beside them; of two the lower number does."""
    out = labels.copy()
    _grow(labels, out)
    return out


@numba.njit(cache=True, nogil=True)
def _grow(labels, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = labels.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                label = labels[z, y, x]
                if label == 0:
                    continue
                for c in range(max(z - 1, 0), min(z + 2, nz)):
                    for b in range(max(y - 1, 0), min(y + 2, ny)):
                        for a in range(max(x - 1, 0), min(x + 2, nx)):
                            if labels[c, b, a] == 0 and (out[c, b, a] == 0 or out[c, b, a] > label):
                                out[c, b, a] = label


@numba.njit(cache=True, nogil=True)
def _gather(owner, arrays, places, known, out):  # type: ignore[no-untyped-def]
    """Add up what the voxels near objects tell, in one walk through the core."""
    objects, seeds, residual, score, hosts, below, counter, rim = arrays
    start, first, axis = places
    ends, mu = known
    slots, sums, least, scores = out
    nz, ny, nx = owner.shape
    for k in range(nz):
        z = k + start[0]
        for j in range(ny):
            y = j + start[1]
            for i in range(nx):
                who = owner[k, j, i]
                if who == 0:
                    continue
                x = i + start[2]
                slot = slots[who]
                row, host = sums[slot], hosts[z, y, x]
                if host in (SOLID, LIQUID):
                    level = mu[0] if host == SOLID else mu[1]
                    row[15] += np.int64(np.rint(np.float64(residual[z, y, x]) / level * SCALE))
                if objects[z, y, x] != who:
                    continue
                row[0] += 1
                row[1] += seeds[z, y, x]
                row[2] += _faces(objects, z, y, x)
                row[3] += host == SOLID
                row[4] += rim[z, y, x]
                row[5] += ends[k]
                _add_place(row, z + first[0], y + first[1], x + first[2])
                away = np.hypot(y + first[1] - axis[0], x + first[2] - axis[1])
                row[16] += np.int64(np.rint(away * SCALE))
                height = np.int64(np.rint(below[z, y, x] * SCALE))
                least[slot, 0] = min(least[slot, 0], height)
                least[slot, 1] = min(least[slot, 1], -height)
                least[slot, 2] = min(least[slot, 2], np.int64(np.rint(counter[z, y, x] * SCALE)))
                place = int(score[z, y, x] / SCORE_TOP * SCORE_BINS)
                scores[slot, min(max(place, 0), SCORE_BINS - 1)] += 1


@numba.njit(**INNER)
def _add_place(row, z, y, x):  # type: ignore[no-untyped-def]
    row[6] += z
    row[7] += y
    row[8] += x
    row[9] += z * z
    row[10] += y * y
    row[11] += x * x
    row[12] += z * y
    row[13] += z * x
    row[14] += y * x


@numba.njit(**INNER)
def _faces(objects, z, y, x):  # type: ignore[no-untyped-def]
    """Faces of a voxel that are none of its object's own, those at the end of the patch among them."""
    nz, ny, nx = objects.shape
    who = objects[z, y, x]
    like = 0
    like += z > 0 and objects[z - 1, y, x] == who
    like += z < nz - 1 and objects[z + 1, y, x] == who
    like += y > 0 and objects[z, y - 1, x] == who
    like += y < ny - 1 and objects[z, y + 1, x] == who
    like += x > 0 and objects[z, y, x - 1] == who
    like += x < nx - 1 and objects[z, y, x + 1] == who
    return 6 - like


@dataclass(frozen=True, eq=False)
class Features:
    """Of the objects 1 ... n of a volume, one row each."""

    sums: NDArray[np.int64]
    least: NDArray[np.int64]
    scores: NDArray[np.int64]

    @classmethod
    def merged(cls, results: list[dict[str, NDArray[np.int64]]], *, n: int) -> "Features":
        """Features of a volume from those of its blocks."""
        sums = np.zeros((n, _N_SUMS), np.int64)
        least = np.full((n, _DEPTHS), np.iinfo(np.int64).max)
        scores = np.zeros((n, SCORE_BINS), np.int64)
        for each in results:
            at = each["ids"] - 1
            if not len(at):
                continue
            # an object is in a block once
            sums[at] += each["sums"]
            least[at] = np.minimum(least[at], each["least"])
            scores[at] += each["scores"]
        return cls(sums, least, scores)

    def __len__(self) -> int:
        return len(self.sums)

    def column(self, name: str) -> NDArray[np.int64]:
        """One of the sums, by name."""
        return self.sums[:, _COLUMN[name]]

    @property
    def missing(self) -> NDArray[np.float64]:
        """Missing attenuation within two voxels, as a number of empty voxels."""
        return self.column("missing") / SCALE

    @property
    def shallowest_px(self) -> NDArray[np.float64]:
        """Least distance below the interface."""
        return self.least[:, 0] / SCALE

    @property
    def deepest_px(self) -> NDArray[np.float64]:
        """Largest distance below the interface."""
        return -self.least[:, 1] / SCALE

    @property
    def counter_px(self) -> NDArray[np.float64]:
        """Least distance to the counter electrode."""
        return self.least[:, 2] / SCALE

    @property
    def length_px(self) -> NDArray[np.float64]:
        """Longest extent: that of a disc or ball with the same largest second moment."""
        return 4.2 * np.sqrt(np.maximum(self.moments()[:, 2], 0.0))

    @property
    def thickness_px(self) -> NDArray[np.float64]:
        """Twice the volume over the surface, the surface as two thirds of its voxel faces."""
        return 3.0 * self.column("voxels") / np.maximum(self.column("faces"), 1)

    @property
    def height_px(self) -> NDArray[np.float64]:
        """Extent along z: that of a slab with the same second moment."""
        return np.asarray(np.sqrt(12.0 * np.maximum(self._second()[:, 0, 0], 0.0)))

    def moments(self) -> NDArray[np.float64]:
        """Eigenvalues of the second central moments, smallest first: (n, 3), in voxels squared."""
        return self._axes()[0]

    def normals(self) -> NDArray[np.float64]:
        """Directions (z, y, x) along which objects are thinnest: (n, 3)."""
        return self._axes()[1][:, :, 0]

    def sideways(self) -> NDArray[np.float64]:
        """Second central moments within the slice: (n, 2, 2), y and x, in voxels squared."""
        return self._second()[:, 1:, 1:]

    def _axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values, vectors = np.linalg.eigh(self._second())
        return np.asarray(values, np.float64), np.asarray(vectors, np.float64)

    def centres_px(self) -> NDArray[np.float64]:
        """Mean z, y, x of the voxels: (n, 3)."""
        n = np.maximum(self.column("voxels"), 1).astype(np.float64)
        return np.stack([self.column(k) / n for k in "zyx"], axis=1)

    @property
    def away_px(self) -> NDArray[np.float64]:
        """Mean distance of the voxels from the axis of rotation."""
        return self.column("away") / SCALE / np.maximum(self.column("voxels"), 1)

    def _second(self) -> NDArray[np.float64]:
        n, mean = np.maximum(self.column("voxels"), 1).astype(np.float64), self.centres_px()
        second = np.empty((len(self), 3, 3))
        for i, a in enumerate("zyx"):
            for j, b in enumerate("zyx"):
                key = a + b if a + b in _COLUMN else b + a
                second[:, i, j] = self.column(key) / n - mean[:, i] * mean[:, j]
        return second

    def outline(self, *, least_frac: float) -> NDArray[np.float64]:
        """Score above which an object holds as many voxels as its attenuation misses, over its host's level.

        At least `least_frac` of its voxels are kept, and never more than all.
        """
        above = np.cumsum(self.scores[:, ::-1], axis=1)[:, ::-1]
        wanted = np.clip(self.missing, least_frac * above[:, 0], above[:, 0])
        # the first bin from which on no more than wanted are left
        place = (above > wanted[:, None]).sum(axis=1)
        drawn: NDArray[np.float64] = np.where(place >= SCORE_BINS, np.inf, place * SCORE_TOP / SCORE_BINS)
        return drawn
