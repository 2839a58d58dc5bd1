"""Where voxels are, and where the same place is in each scan."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xctpipe import pyramid, volume
from xctpipe.report.source import Entry, Run
from xctpipe.scan import DoubleArray
from xctpipe.series.rigid import Rigid

Read = Callable[[tuple[slice, slice, slice]], NDArray[Any]]


@dataclass(frozen=True)
class Grid:
    """Voxels of a level of a volume: positions are (z, y, x) in um, as in tables."""

    path: Path
    level: int
    shape: tuple[int, int, int]
    first_um: tuple[float, float, float]
    step_um: tuple[float, float, float]

    @property
    def voxel_um(self) -> float:
        """Edge along a row."""
        return self.step_um[2]

    def places(self, voxels: NDArray[Any]) -> DoubleArray:
        """Positions of voxels (..., 3)."""
        return np.asarray(voxels * np.asarray(self.step_um) + np.asarray(self.first_um))

    def voxels(self, points_um: NDArray[Any]) -> DoubleArray:
        """Voxels, in parts of one, of positions (..., 3)."""
        return np.asarray((points_um - np.asarray(self.first_um)) / np.asarray(self.step_um))


def grid_of(path: Path, *, most_px: int, most_voxels: float = math.inf) -> Grid:
    """The finest level that is no wider than `most_px`, and has no more voxels than that."""
    spec = volume.read_spec(path)
    shapes = volume.level_shapes(spec)
    fitting = [i for i, s in enumerate(shapes) if max(s) <= most_px and math.prod(s) <= most_voxels]
    return grid_at(path, level=fitting[0] if fitting else len(shapes) - 1)


def grid_at(path: Path, *, level: int) -> Grid:
    """A level of a volume."""
    spec = volume.read_spec(path)
    factors = pyramid.level_factors(spec.shape, level=level)
    edge = spec.pixel_um
    row = spec.first_row + (spec.bin_px - 1) / (2 * spec.bin_px)
    starts = (row, -(spec.shape[1] - 1) / 2, -(spec.shape[2] - 1) / 2)
    first = [(start + (f - 1) / 2) * edge for start, f in zip(starts, factors, strict=True)]
    steps = [f * edge for f in factors]
    shape = volume.level_shapes(spec)[level]
    return Grid(path, level, shape, (first[0], first[1], first[2]), (steps[0], steps[1], steps[2]))


def sample(read: Read, grid: Grid, points_um: DoubleArray, *, order: int, beyond: float) -> NDArray[Any]:
    """Values at positions (..., 3): nearest for order 0, linear for 1; only the box around them is read."""
    at = grid.voxels(points_um)
    low = np.floor(at.reshape(-1, 3).min(axis=0)).astype(int)
    high = np.ceil(at.reshape(-1, 3).max(axis=0)).astype(int) + 1
    first, last = np.clip(low, 0, None), np.minimum(high, grid.shape)
    shape = points_um.shape[:-1]
    if np.any(last <= first):
        return np.full(shape, beyond)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    values = read((z, y, x))
    moved = np.moveaxis(at - first, -1, 0)
    found: NDArray[Any] = ndimage.map_coordinates(values, moved, order=order, mode="nearest", prefilter=False)
    inside = np.all((at >= -0.5) & (at <= np.asarray(grid.shape) - 0.5), axis=-1)
    return np.where(inside, found, beyond)


@dataclass(frozen=True)
class Placed:
    """Where a scan lies as against the first."""

    rigid: Rigid
    how: str
    """registration, interface, or nothing where neither is known."""


def placed(run: Run) -> dict[str, Placed]:
    """From the first scan that is shown to each: by registration, else by the height of the interface."""
    heights = {entry.name: _height_um(run, entry) for entry in run.shown}
    return {entry.name: _one(run, entry, heights, first=run.shown[0].name) for entry in run.shown}


def _height_um(run: Run, entry: Entry) -> float | None:
    rows = run.rows("interface", entry.name)
    value = rows[0].get("z_um") if rows else None
    return None if value is None else float(value)


def _one(run: Run, entry: Entry, heights: dict[str, float | None], *, first: str) -> Placed:
    for row in run.rows("registration", entry.name):
        if row.get("part") != "pellet" or row.get("status") == "failed":
            continue
        if row.get("status") == "reference":
            return Placed(Rigid(), "registration")
        shift = [float(value) for axis in "zyx" if (value := row.get(f"d{axis}_um")) is not None]
        if len(shift) == 3:
            turns = [math.radians(row.get(k) or 0.0) for k in ("rotation_deg", "tilt_y_deg", "tilt_x_deg")]
            rigid = Rigid((turns[0], turns[1], turns[2]), (shift[0], shift[1], shift[2]))
            return Placed(rigid, "registration")
    here, there = heights.get(entry.name), heights.get(first)
    if here is None or there is None:
        return Placed(Rigid(), "")
    return Placed(Rigid(shift_um=(here - there, 0.0, 0.0)), "interface")


def interface_um(run: Run) -> float | None:
    """Height of the interface in the first scan that has one."""
    return next((h for entry in run.shown if (h := _height_um(run, entry)) is not None), None)
