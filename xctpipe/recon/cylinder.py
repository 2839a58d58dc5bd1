"""Interior scans completed from the known cell: a tube and its filling, wider than the view [1]_.

Its part of the line integrals is known wherever it is, in the view or not, once the place of its axis and
the attenuation of the filling are fitted. It is taken off the rows, which leaves what is different inside
the view and next to nothing at its edges; that is reconstructed like any scan, and the cell's own slice is
added.

References
----------
.. [1] Kyrieleis, Titarenko, Ibison, Connolley, Withers, J. Microsc. 241, 69 (2011),
   doi:10.1111/j.1365-2818.2010.03408.x, on what rows that are cut off do to attenuation.
"""

from dataclasses import dataclass

import numba
import numpy as np
from scipy.optimize import least_squares

from xctpipe.recon.fourier import threads
from xctpipe.recon.geometry import inside_circle
from xctpipe.scan import DoubleArray, FloatArray

OUTER_FRAC = 0.3
"""Part of the width, half on either side, next to what is not seen, from which the filling is fitted."""
MOST_ANGLES = 180
MOST_COLUMNS = 128
USUAL_MISFIT = 0.03
"""Line integrals that differ by more from the fitted cell count less: they cross something else."""
BAD_FIT_FRAC = 0.1


@dataclass(frozen=True)
class Tube:
    """A tube of known size and material, its attenuation at the energy of the beam."""

    bore_mm: float
    wall_mm: float
    wall_cm1: float


@dataclass(frozen=True)
class CellFit:
    """Where the axis of the tube lies in a slice, from the axis of rotation, x right and y down."""

    x_mm: float
    y_mm: float
    misfit_frac: float
    """Root mean square of what the fitted cell does not explain, relative to the line integrals."""


@dataclass(frozen=True, eq=False)
class Seen:
    """How rows see the cell: angles (angle,), axis of rotation (row,) in columns, size of a pixel."""

    angles_rad: DoubleArray
    centers_px: DoubleArray
    pixel_mm: float


def fit_cell(lines: FloatArray, *, tube: Tube, seen: Seen) -> CellFit:
    """Axis of the tube from line integrals (angle, row, col) of some rows, each with a filling of its own.

    Least squares with soft weights over a coarse grid of angles and columns. A few inclusions do not matter.
    """
    n_angles, _, n_cols = lines.shape
    every, by = -(-n_angles // MOST_ANGLES), -(-n_cols // MOST_COLUMNS)
    used = n_cols // by * by
    coarse = lines[::every, :, :used].reshape(-1, lines.shape[1], used // by, by).mean(axis=3)
    angles = seen.angles_rad[::every]
    cols = np.arange(used // by) * by + (by - 1) / 2
    at_mm = (cols - seen.centers_px[:, None]) * seen.pixel_mm

    def rest(place: DoubleArray) -> DoubleArray:
        offset = (place[0] * np.cos(angles) - place[1] * np.sin(angles))[:, None, None]
        bore = _chord(at_mm - offset, tube.bore_mm / 2)
        wall = _chord(at_mm - offset, tube.bore_mm / 2 + tube.wall_mm) - bore
        filled = coarse - 0.1 * tube.wall_cm1 * wall
        filling = (filled * bore).sum(axis=(0, 2)) / np.maximum((bore**2).sum(axis=(0, 2)), 1e-9)
        return np.asarray((filled - filling[:, None] * bore).ravel(), np.float64)

    reach = 0.45 * tube.bore_mm
    found = least_squares(rest, np.zeros(2), bounds=(-reach, reach), loss="soft_l1", f_scale=USUAL_MISFIT)
    misfit = float(np.sqrt(np.mean(rest(found.x) ** 2)) / max(float(np.abs(coarse).mean()), 1e-9))
    return CellFit(float(found.x[0]), float(found.x[1]), misfit)


def _chord(distance_mm: DoubleArray, radius_mm: float) -> DoubleArray:
    return np.asarray(2 * np.sqrt(np.maximum(radius_mm**2 - distance_mm**2, 0)))


def without_cell(
    lines: FloatArray, *, tube: Tube, fit: CellFit, seen: Seen
) -> tuple[FloatArray, DoubleArray]:
    """Line integrals without the cell's, (angle, row, col), and the filling's attenuation in cm^-1, (row,).

    The filling of each row is fitted in its outer columns at all angles, so a slab is its rows.
    """
    offset_px = (fit.x_mm * np.cos(seen.angles_rad) - fit.y_mm * np.sin(seen.angles_rad)) / seen.pixel_mm
    bore_px = 0.5 * tube.bore_mm / seen.pixel_mm
    outer_px = bore_px + tube.wall_mm / seen.pixel_mm
    wall = 0.1 * tube.wall_cm1 * seen.pixel_mm
    out = np.empty_like(lines)
    filling = np.empty(lines.shape[1])

    def row(i: int) -> None:
        filling[i] = _take_off(lines[:, i], offset_px, seen.centers_px[i], bore_px, outer_px, wall, out[:, i])

    with threads() as run:
        run(row, range(lines.shape[1]))
    return out, filling * 10 / seen.pixel_mm


@numba.njit(cache=True, nogil=True)
def _take_off(lines, offset, center, bore, outer, wall, out):  # type: ignore[no-untyped-def]
    """Write a row without the cell to `out`, (angle, col); returns the filling's attenuation per pixel."""
    n_angles, n_cols = lines.shape
    edge = int(0.5 * OUTER_FRAC * n_cols)
    top, bottom, top_all, bottom_all = 0.0, 0.0, 0.0, 0.0
    for t in range(n_angles):
        for col in range(n_cols):
            d = col - center - offset[t]
            inner = 2 * np.sqrt(max(bore * bore - d * d, 0.0))
            rest = lines[t, col] - wall * (2 * np.sqrt(max(outer * outer - d * d, 0.0)) - inner)
            out[t, col] = rest
            top_all += rest * inner
            bottom_all += inner * inner
            if col < edge or col >= n_cols - edge:
                top += rest * inner
                bottom += inner * inner
    # a cell that ends inside the view is fitted in all of it
    if bottom < 0.05 * bottom_all:
        top, bottom = top_all, bottom_all
    filling = top / bottom if bottom > 0 else 0.0
    for t in range(n_angles):
        for col in range(n_cols):
            d = col - center - offset[t]
            out[t, col] -= filling * 2 * np.sqrt(max(bore * bore - d * d, 0.0))
    return filling


def add_cell(
    volume: FloatArray, *, filling_cm1: DoubleArray, tube: Tube, fit: CellFit, pixel_mm: float
) -> None:
    """Add the cell's own slices to (z, y, x) in cm^-1, in place, where slices are not blank.

    Pixels that the border of bore or wall crosses get the share that lies inside, to first order.
    """
    n_cols = volume.shape[2]
    at_mm = (np.arange(n_cols) - (n_cols - 1) / 2) * pixel_mm
    distance = np.hypot(at_mm - fit.x_mm, at_mm[:, None] - fit.y_mm)

    def within(radius_mm: float) -> FloatArray:
        share = np.clip((radius_mm - distance) / pixel_mm + 0.5, 0, 1)
        return np.asarray(share, np.float32)

    circle = inside_circle(n_cols)
    bore = within(tube.bore_mm / 2) * circle
    wall = (within(tube.bore_mm / 2 + tube.wall_mm) * circle - bore) * np.float32(tube.wall_cm1)
    for image, filling in zip(volume, filling_cm1, strict=True):
        image += np.float32(filling) * bore + wall
