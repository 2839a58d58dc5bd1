"""What labels and measures are made from: grey values, the undisturbed cell, and their difference."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe import volume
from xctpipe.blocks import Slices
from xctpipe.errors import NoCell
from xctpipe.scan import FloatArray
from xctpipe.segment.expected import above_interface_px, distance_px, face_height, hosts, undisturbed
from xctpipe.segment.scene import COLLECTOR_FACE, COUNTER_FACE, INTERFACE, SOLID, Scene
from xctpipe.segment.view import Box, from_axis

FAR_PX = 1e4
"""Distance to what is not in view."""
RIM_PX = 2.0
"""What is nearer than this to the end of the view is cut by it."""
BESIDE_PX = 0.5
"""NaK nearer than this to a face is blurred with what lies behind."""


@dataclass(frozen=True, eq=False)
class Looked:
    """A part of the volume (z, y, x): what is there, and what would be if nothing had happened."""

    grey: FloatArray
    expected: FloatArray
    residual: FloatArray
    """Expected minus measured, cm^-1; 0 beyond the view."""
    hosts: NDArray[np.uint8]
    below_px: FloatArray
    """Distance below the interface, into the NASICON; negative in the NaK."""


@dataclass(frozen=True, eq=False)
class Ground:
    """A level of a volume, and its scene; can be pickled."""

    path: Path
    level: int
    scene: Scene

    def look(self, where: Slices) -> Looked:
        """A part of the volume."""
        grey, usual, layer = self.compared(where)
        box = box_of(where)
        residual = np.empty_like(usual)
        _subtract(usual, grey, layer, residual)
        return Looked(grey, usual, residual, layer, self.below(box, layer))

    def compared(self, where: Slices) -> tuple[FloatArray, FloatArray, NDArray[np.uint8]]:
        """Grey values of a part, those expected, and hosts."""
        usual, layer = undisturbed(self.scene, box_of(where))
        return self.grey(where), usual, layer

    def grey(self, where: Slices) -> FloatArray:
        """Grey values of a part, cm^-1."""
        z, y, x = where
        return volume.read(self.path, level=self.level, z=z, y=y, x=x)

    def below(self, box: Box, layer: NDArray[np.uint8]) -> FloatArray:
        """Distance below the interface; without one, far within what is NASICON."""
        if INTERFACE in self.scene.surfaces:
            return above_interface_px(self.scene, box)
        return np.where(layer == SOLID, np.float32(FAR_PX), np.float32(-FAR_PX))

    def to_counter(self, box: Box) -> FloatArray:
        """Distance to the counter electrode, positive in the NASICON."""
        (z0, z1), rows, cols = box
        if COUNTER_FACE not in self.scene.surfaces:
            shape = (z1 - z0, rows[1] - rows[0], cols[1] - cols[0])
            return np.full(shape, FAR_PX, np.float32)
        height = face_height(self.scene, COUNTER_FACE, rows=rows, cols=cols)
        return distance_px(height, rows=box[0], side=-self.scene.side)

    def beside_face(self, box: Box) -> NDArray[np.bool_]:
        """NaK whose grey is blurred with what lies behind a face."""
        (z0, z1), rows, cols = box
        out = np.zeros((z1 - z0, rows[1] - rows[0], cols[1] - cols[0]), np.bool_)
        for name, towards in ((INTERFACE, 1), (COLLECTOR_FACE, -1)):
            if name in self.scene.surfaces:
                height = face_height(self.scene, name, rows=rows, cols=cols)
                _mark_beside(out, z0, height, np.float32(towards * self.scene.side))
        return out

    def rim(self, box: Box) -> NDArray[np.bool_]:
        """Voxels at the end of the view, or in its first or last row: what lies there is cut."""
        (z0, z1), rows, cols = box
        dy, dx = from_axis(self.scene.axis_px, rows=rows, cols=cols)
        column = np.hypot(dy, dx) > self.scene.view_px - RIM_PX
        z = np.arange(z0, z1)
        ends = (z == 0) | (z == self.scene.shape[0] - 1)
        return np.asarray(column[None] | ends[:, None, None])


@numba.njit(cache=True, nogil=True)
def _subtract(expected, grey, hosts, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = out.shape
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                value = grey[z, y, x]
                known = hosts[z, y, x] > 0 and np.isfinite(value)
                out[z, y, x] = expected[z, y, x] - value if known else np.float32(0)


@numba.njit(cache=True, nogil=True)
def _mark_beside(out, z0, height, way):  # type: ignore[no-untyped-def]
    nz, ny, nx = out.shape
    for k in range(nz):
        z = np.float32(z0 + k)
        for y in range(ny):
            for x in range(nx):
                if way * (z - height[y, x]) > -BESIDE_PX:
                    out[k, y, x] = True


def first_row_of(ground: Ground) -> float:
    """Detector row of slice 0 in voxels of the level that is worked on."""
    return first_row(ground.path, level=ground.level)


def first_row(path: Path, *, level: int) -> float:
    """Detector row of slice 0 of a level of a volume, in its voxels; 0 is the middle of the first one."""
    spec = volume.read_spec(path)
    edge = 2**level
    return float((spec.first_row + (spec.bin_px - 1) / (2 * spec.bin_px) + (edge - 1) / 2) / edge)


def layers_of(ground: Ground, where: Slices) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Hosts and distance below the interface of a part; no grey value is read."""
    box = box_of(where)
    layer = hosts(ground.scene, box)
    return layer, ground.below(box, layer)


def box_of(where: Slices) -> Box:
    """An index with given ends as a box."""
    z, y, x = ((int(part.start), int(part.stop)) for part in where)
    return z, y, x


def view_of(path: Path, *, level: int) -> tuple[tuple[float, float], float]:
    """Voxel (y, x) of the axis of rotation in a level of a volume, and radius of the view of all angles.

    Raises
    ------
    NoCell
        If nothing is in view.
    """
    own = volume.read_attributes(path)
    n_y, n_x = volume.level_shapes(volume.read_spec(path))[level][1:]
    edge = 2.0**level
    axis = ((volume.read_spec(path).shape[1] - 1) / 2, (volume.read_spec(path).shape[2] - 1) / 2)
    radius = _radius(own, volume.read_spec(path).shape[2])
    axis_px = tuple((a + 0.5) / edge - 0.5 for a in axis)
    if radius / edge < 8:
        raise NoCell(
            f"{path}: {n_y} x {n_x} voxels with a view of {radius / edge:.3g} voxels: too few to segment"
        )
    return (axis_px[0], axis_px[1]), radius / edge


def _radius(own: dict[str, Any], width: int) -> float:
    """Distance from the axis to the nearer side of the detector: what all angles see, less a pixel."""
    raw = own.get("recipe", {}).get("raw", {})
    first = (raw.get("columns") or (0,))[0]
    center = (float(own.get("center_px", 0.0)) - first) / float(own.get("bin_px", 1))
    # rows that were stitched or extended: the axis is in the middle of what became of them
    inside = 0.25 * width < center < 0.75 * width
    return (min(center, width - 1 - center) if inside else (width - 1) / 2) - 1.0
