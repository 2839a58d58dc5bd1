"""True labels on a grid of voxels: phases and objects, a few rows at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xctpipe.errors import BadRecipe
from xctpipe.phantom.bodies import view_of
from xctpipe.phantom.caps import ClippedEllipsoid
from xctpipe.phantom.shapes import Ellipsoid, Shape
from xctpipe.phantom.timeline import TimeStep
from xctpipe.scan import DoubleArray, Span

PHASES: dict[str, int] = {
    "outside": 0,
    "peek": 1,
    "o_ring": 2,
    "collector": 3,
    "counter_electrode": 4,
    "nasicon": 5,
    "nak": 6,
    "bubble": 7,
    "interfacial_void": 8,
    "crack": 9,
    "crack_filled": 10,
    "pore": 11,
    "chip": 12,
    "inclusion": 13,
    "unresolved": 14,
}
"""Numbers of phases in label volumes."""

_CRACKS = (PHASES["crack"], PHASES["crack_filled"])
# thinner than this a part may miss all middles of voxels; then all within the margin are looked at closely
_THIN, _THIN_MARGIN = 3.0, 4.0
_VOTERS = 100_000
_LAYERS = {"lower_collector": "collector"}


@dataclass(frozen=True)
class Grid:
    """Voxels (z, y, x) of edge `pixel_um`.

    `first_row` is where row 0 of the grid lies, in voxels of the grid below the upper edge of detector row 0;
    the axis of rotation is at `origin_px` (y, x), the middle of the grid when absent.
    """

    shape: tuple[int, int, int]
    pixel_um: float
    first_row: float = 0.0
    origin_px: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or not self.pixel_um > 0:
            raise BadRecipe(
                f"labels: a grid of {self.shape} voxels of {self.pixel_um} um; give positive sizes"
            )

    @property
    def middle_px(self) -> tuple[float, float]:
        """Voxel (y, x) of the axis of rotation."""
        return self.origin_px or ((self.shape[1] - 1) / 2, (self.shape[2] - 1) / 2)


def grid_of(step: TimeStep) -> Grid:
    """The grid of the reconstructed volume: one voxel per pixel of the detector."""
    a = step.acquisition
    return Grid((a.rows, a.cols, a.cols), a.pixel_um)


@dataclass(frozen=True)
class LabelSlab:
    """Labels of the rows [first, first + n) of a grid: phase (uint8) and object (int32; 0 where none)."""

    first: int
    phases: NDArray[np.uint8]
    objects: NDArray[np.int32]


def label_slabs(
    step: TimeStep,
    *,
    grid: Grid,
    rows: Span | None = None,
    slab_rows: int = 16,
    oversampling: int = 4,
    crack_frac: float = 0.5,
) -> Iterator[LabelSlab]:
    """True labels of a time step, a slab of rows at a time.

    A voxel belongs to the part that most of its `oversampling`^3 points lie in, the earlier one of the stack
    where two are equal; but to a crack from a share of `crack_frac` on (to the crack of most).
    Voxels whose centre is outside the view of all angles, or above or below the detector, are 0.

    Parameters
    ----------
    rows : of the grid, [first, last); all when absent. Labels do not depend on how rows are cut.
    crack_frac : above 0, up to 1; 0.5 is about the majority.
    """
    if not 0 < crack_frac <= 1:
        raise BadRecipe(f"labels: crack_frac = {crack_frac}; give a share above 0, up to 1")
    if oversampling < 1 or slab_rows < 1:
        raise BadRecipe(f"labels: oversampling {oversampling}, slab_rows {slab_rows}; give 1 or more")
    first, last = rows or (0, grid.shape[0])
    painter = _Painter(step, grid, oversampling=oversampling, crack_frac=crack_frac)
    for row in range(first, last, slab_rows):
        yield painter.slab(row, min(row + slab_rows, last))


def labels_of(
    step: TimeStep, *, grid: Grid | None = None, **how: float
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Phases and objects of a whole grid, as `label_slabs` makes them: for volumes that fit into memory."""
    slabs = list(label_slabs(step, grid=grid or grid_of(step), **how))  # type: ignore[arg-type]
    return np.concatenate([s.phases for s in slabs]), np.concatenate([s.objects for s in slabs])


class _Painter:
    """Parts in the order in which they are nested: the last one that holds a point owns it."""

    def __init__(self, step: TimeStep, grid: Grid, *, oversampling: int, crack_frac: float) -> None:
        a = step.acquisition
        self.grid, self.crack_frac, self.mm = grid, crack_frac, grid.pixel_um * 1e-3
        self.view = view_of(a)
        self.corner = (
            grid.first_row + 0.5 + self.view.z0_mm / self.mm,
            *(-middle for middle in grid.middle_px),
        )
        self.shapes = [part.shape for part in step.sample.parts]
        self.bounds = np.array([shape.bounds_mm[::-1] for shape in self.shapes])
        self.owners = _owners(step)
        steps = ((np.arange(oversampling) + 0.5) / oversampling - 0.5).tolist()
        self.offsets = [(dz, dy, dx) for dz in steps for dy in steps for dx in steps]

    def slab(self, first: int, last: int) -> LabelSlab:
        axes: list[DoubleArray] = [
            (np.arange(n, dtype=np.float64) + start) * self.mm for n, start in self._extent(first, last)
        ]
        owner = np.zeros([len(axis) for axis in axes], np.int32)
        mixed = np.zeros(owner.shape, bool)
        for i, box in self._boxes(axes):
            # one voxel more on each side, so that every voxel has neighbours to differ from
            z, y, x = (_wider(axis[part], self.mm) for axis, part in zip(axes, box, strict=True))
            inside = self.shapes[i].contains(x, y[:, None], z[:, None, None])
            mixed[box] |= self._crossed(i, inside, (z, y, x))
            owner[box][inside[1:-1, 1:-1, 1:-1]] = self.owners.first[i + 1]
        seen = self._in_view(axes)
        self._vote(owner, np.argwhere(mixed & seen), axes)
        owner[~seen] = 0
        return LabelSlab(first, self.owners.phase[owner], self.owners.number[owner])

    def _extent(self, first: int, last: int) -> Iterator[tuple[int, float]]:
        return zip(
            (last - first, *self.grid.shape[1:]), (first + self.corner[0], *self.corner[1:]), strict=True
        )

    def _in_view(self, axes: Sequence[DoubleArray]) -> NDArray[np.bool_]:
        z, y, x = axes
        rows = (z >= self.view.z0_mm) & (z <= self.view.z1_mm)
        return np.asarray(rows[:, None, None] & (y[:, None] ** 2 + x**2 <= self.view.radius_mm**2))

    def _boxes(self, axes: Sequence[DoubleArray]) -> Iterator[tuple[int, tuple[slice, slice, slice]]]:
        """Parts that a slab may meet, and their boxes of voxels with a margin for thin ones."""
        z, margin = axes[0], (_THIN_MARGIN + 1) * self.mm
        near = (self.bounds[:, 0, 1] >= z[0] - margin) & (self.bounds[:, 0, 0] <= z[-1] + margin)
        for i in np.flatnonzero(near).tolist():
            ends = [
                np.searchsorted(axis, (low - margin, high + margin)).tolist()
                for axis, (low, high) in zip(axes, self.bounds[i], strict=True)
            ]
            if all(last > first for first, last in ends):
                a, b, c = (slice(*span) for span in ends)
                yield i, (a, b, c)

    def _crossed(
        self, i: int, inside: NDArray[np.bool_], axes: tuple[DoubleArray, DoubleArray, DoubleArray]
    ) -> NDArray[np.bool_]:
        """Voxels of the inner box that the surface of a part may cross."""
        shape = self.shapes[i]
        if not isinstance(shape, Ellipsoid | ClippedEllipsoid) or min(shape.semi_axes_mm) > _THIN * self.mm:
            return _unequal(inside)
        more = _THIN_MARGIN * self.mm
        a, b, c = (axis + more for axis in shape.semi_axes_mm)
        wider: Shape = replace(shape, semi_axes_mm=(a, b, c))
        if isinstance(wider, ClippedEllipsoid):
            z0, z1 = (
                None if z is None else z + side * self.mm for z, side in ((wider.z0_mm, -1), (wider.z1_mm, 1))
            )
            wider = replace(wider, z0_mm=z0, z1_mm=z1)
        z, y, x = (axis[1:-1] for axis in axes)
        return wider.contains(x, y[:, None], z[:, None, None])

    def _vote(self, owner: NDArray[np.int32], voxels: NDArray[np.int64], axes: Sequence[DoubleArray]) -> None:
        for start in range(0, len(voxels), _VOTERS):
            where = tuple(voxels[start : start + _VOTERS].T)
            places = np.stack([axis[at] for axis, at in zip(axes, where, strict=True)])
            owner[where] = self._elected(places)

    def _elected(self, places_mm: DoubleArray) -> NDArray[np.int32]:
        """Owner of each voxel by the votes of its points."""
        votes = np.zeros((len(self.offsets), places_mm.shape[1]), np.int32)
        low, high = places_mm.min(axis=1) - self.mm, places_mm.max(axis=1) + self.mm
        near = np.all((self.bounds[:, :, 1] >= low) & (self.bounds[:, :, 0] <= high), axis=1)
        for i in np.flatnonzero(near).tolist():
            close = np.all(
                np.abs(places_mm - self.bounds[i].mean(axis=1)[:, None])
                <= (np.ptp(self.bounds[i], axis=1) / 2 + self.mm)[:, None],
                axis=0,
            )
            chosen = np.flatnonzero(close)
            points = places_mm[:, chosen]
            for vote, offset in zip(votes, self.offsets, strict=True):
                z, y, x = points + self.mm * np.array(offset)[:, None]
                vote[chosen[self.shapes[i].contains(x, y, z)]] = self.owners.first[i + 1]
        return self.owners.winner(votes, crack_frac=self.crack_frac)


@dataclass(frozen=True)
class _Owners:
    """By number of a part, 1 for the first and 0 for none: phase, object, first part of the same thing."""

    phase: NDArray[np.uint8]
    number: NDArray[np.int32]
    first: NDArray[np.int32]

    def winner(self, votes: NDArray[np.int32], *, crack_frac: float) -> NDArray[np.int32]:
        """The owner of most votes; a crack of at least a share of `crack_frac`."""
        best, most = np.zeros(votes.shape[1], np.int32), np.zeros(votes.shape[1], np.int64)
        for owner in np.unique(votes).tolist():
            count = np.count_nonzero(votes == owner, axis=0)
            if self.phase[owner] in _CRACKS:
                # above all that is no crack
                count = count + (count >= max(crack_frac * len(votes), 1)) * len(votes)
            ahead = count > most
            best[ahead], most[ahead] = owner, count[ahead]
        return best


def _owners(step: TimeStep) -> _Owners:
    things = {name: thing for thing in step.objects for name in thing.parts}
    names = [part.name for part in step.sample.parts]
    kinds = [things[n].kind if n in things else _LAYERS.get(n, n).split("-")[0] for n in names]
    # what is out of view is no object: it is hidden
    phases = [PHASES.get(kind, 0) for kind in kinds]
    numbers = [things[n].object if n in things else 0 for n in names]
    first: dict[tuple[int, int], int] = {}
    for i, key in enumerate(zip(phases, numbers, strict=True), start=1):
        first.setdefault(key, i)
    same = [first[key] for key in zip(phases, numbers, strict=True)]
    return _Owners(
        np.array([0, *phases], np.uint8), np.array([0, *numbers], np.int32), np.array([0, *same], np.int32)
    )


def _wider(axis: DoubleArray, step: float) -> DoubleArray:
    return np.concatenate([[axis[0] - step], axis, [axis[-1] + step]])


def _unequal(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of the inner grid whose 26 neighbours are not all like them."""
    some, every = inside, inside
    for axis in range(3):
        parts = [np.take(some, range(k, some.shape[axis] - 2 + k), axis=axis) for k in range(3)]
        wholes = [np.take(every, range(k, every.shape[axis] - 2 + k), axis=axis) for k in range(3)]
        some, every = parts[0] | parts[1] | parts[2], wholes[0] & wholes[1] & wholes[2]
    return some & ~every
