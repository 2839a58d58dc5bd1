"""Where the parts of the stack lie in each scan of a series, from where they lie in the first one.

The pellet is a rigid body that its pores and inclusions mark. The collector has no texture: its face gives
its height and tilts, and nothing else.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xctpipe.scan import DoubleArray
from xctpipe.series.rigid import Rigid

COLUMNS = (
    "scan",
    "part",
    "dz_px",
    "dy_px",
    "dx_px",
    "dz_um",
    "dy_um",
    "dx_um",
    "rotation_deg",
    "tilt_y_deg",
    "tilt_x_deg",
    "error_px",
    "voxels",
    "status",
    "fiducials",
    "middle_dz_px",
    "middle_dy_px",
    "middle_dx_px",
)
"""Of the table `registration`."""
PELLET, COLLECTOR = "pellet", "collector"
REFERENCE, OK, UNSURE, FAILED = "reference", "ok", "unsure", "failed"


@dataclass(frozen=True)
class Plane:
    """A face between layers, undeformed: z = z_um + slope_y y + slope_x x."""

    z_um: float
    """On the axis."""
    slope_y: float
    slope_x: float
    sigma_um: float
    """Standard error of its height, where it is known worst."""


@dataclass(frozen=True)
class Part:
    """A part of the stack in one scan."""

    move: Rigid
    status: str
    error_um: float | None = None
    """Root mean square error over the part, 1 sigma; None: not known."""
    voxels: int = 0
    fiducials: int = 0
    in_plane: bool = True
    """Whether shifts along y and x and the turn about the axis are known."""


def moved_plane(first: Plane, later: Plane) -> Rigid:
    """The move of least turn that brings one face onto the other: nothing within the face.

    The point of the face on the axis stays on the axis.
    """
    turn = (
        0.0,
        math.atan(first.slope_x) - math.atan(later.slope_x),
        math.atan(later.slope_y) - math.atan(first.slope_y),
    )
    there = Rigid(turn)((first.z_um, 0.0, 0.0))
    return Rigid(turn, (later.z_um - float(there[0]), -float(there[1]), -float(there[2])))


def face_part(first: Plane | None, later: Plane | None, *, status: str) -> Part | None:
    """What a face alone tells of a part; None where it is not in view in both scans."""
    if first is None or later is None:
        return None
    error = math.hypot(first.sigma_um, later.sigma_um)
    return Part(moved_plane(first, later), status, error, in_plane=False)


def pellet_points(radius_um: float, heights_um: tuple[float, float]) -> DoubleArray:
    """(n, 3) points spread evenly over a cylinder about the axis: where errors matter."""
    z = np.linspace(heights_um[0], heights_um[1], 5)
    # rings of equal area
    r = radius_um * np.sqrt((np.arange(6) + 0.5) / 6)
    angle = np.arange(12) * math.pi / 6
    grid: tuple[NDArray[np.float64], ...] = np.meshgrid(z, r, angle, indexing="ij")
    return np.stack([grid[0], grid[1] * np.sin(grid[2]), grid[1] * np.cos(grid[2])], axis=-1).reshape(-1, 3)


def row_of(
    scan: str, part: str, found: Part, *, pixel_um: float, middle_um: tuple[float, float, float]
) -> dict[str, object]:
    """A row of the table `registration`: the move as `Rigid` has it, and the shift of the part's middle.

    Parameters
    ----------
    pixel_um : edge of a voxel as reconstructed.
    middle_um : of the part in the first scan.
    """
    row: dict[str, object] = {"scan": scan, "part": part, "status": found.status}
    away = found.move(middle_um) - np.asarray(middle_um)
    for i, axis in enumerate("zyx"):
        if i and not found.in_plane:
            continue
        row[f"d{axis}_um"] = found.move.shift_um[i]
        row[f"d{axis}_px"] = found.move.shift_um[i] / pixel_um
        row[f"middle_d{axis}_px"] = float(away[i]) / pixel_um
    names = ("rotation_deg", "tilt_y_deg", "tilt_x_deg")
    for name, turn in list(zip(names, found.move.turn_rad, strict=True))[0 if found.in_plane else 1 :]:
        row[name] = math.degrees(turn)
    if found.error_um is not None:
        row["error_px"] = found.error_um / pixel_um
    return row | {"voxels": found.voxels, "fiducials": found.fiducials}
