"""What is known about a simulated scan: positions, volumes, faults, the volume itself, its noise."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.phantom.acquisition import Acquisition, measured_angles
from xctpipe.phantom.cell import Part, Sample
from xctpipe.phantom.projector import pixel_shadows, project
from xctpipe.phantom.scanner import partial_frames
from xctpipe.phantom.shapes import Shape, to_dict
from xctpipe.scan import DoubleArray, FloatArray, Span


def truth(sample: Sample, *, acquisition: Acquisition, seed: int) -> dict[str, Any]:
    """Everything put into a scan, as plain values for JSON.

    Voxel positions are (z, y, x) on the grid of `render`: one voxel per pixel, the axis of rotation at
    (cols - 1) / 2 in x and y.
    """
    a = acquisition
    angles = measured_angles(a, seed=seed)
    return {
        "seed": seed,
        "center_px": a.axis_px[1],
        "pixel_um": a.pixel_um,
        "energy_kev": sample.energy_kev,
        "shape": [a.n_angles, a.rows, a.cols],
        "angles_deg": np.rad2deg(angles).tolist(),
        "mu_cm1": dict(sample.mu_cm1),
        "parts": [_part(part, acquisition=a) for part in sample.parts],
        "stripes": [asdict(stripe) for stripe in a.stripes],
        "partial_stripe_frames": [partial_frames(a).start, partial_frames(a).stop],
        "blur_fwhm_px": a.blur_fwhm_px,
        "acquisition": asdict(a),
    }


def _part(part: Part, *, acquisition: Acquisition) -> dict[str, Any]:
    pixel_mm = acquisition.pixel_um * 1e-3
    middle = [(low + high) / 2 / pixel_mm for low, high in part.shape.bounds_mm]
    in_plane = (acquisition.cols - 1) / 2
    return {
        "name": part.name,
        "material": part.material,
        "volume_um3": part.shape.volume_mm3 * 1e9,
        "center_zyx_px": [middle[2] + acquisition.axis_px[0], middle[1] + in_plane, middle[0] + in_plane],
        **to_dict(part.shape),
    }


def render(
    sample: Sample, *, acquisition: Acquisition, rows: Span | None = None, oversampling: int = 4
) -> FloatArray:
    """True attenuation in cm^-1 of the voxels of some rows, (z, y, x), cols x cols in plane.

    Voxels on a surface get the mean over `oversampling`^3 points; the axis of rotation is at (cols - 1) / 2.
    """
    first, last = rows or (0, acquisition.rows)
    out = np.zeros((last - first, acquisition.cols, acquisition.cols))
    for shape in sample.shapes:
        box, inside = occupancy(shape, acquisition=acquisition, rows=(first, last), oversampling=oversampling)
        out[box] += shape.delta_mu_cm1 * inside
    return out.astype(np.float32)


def occupancy(
    shape: Shape, *, acquisition: Acquisition, rows: Span, oversampling: int = 4
) -> tuple[tuple[slice, slice, slice], FloatArray]:
    """Fraction of each voxel that lies inside a shape, and the box of voxels that holds it.

    The box counts from `rows[0]`; its parts outside the grid are cut off.
    """
    box = _voxel_box(shape, acquisition=acquisition, rows=rows)
    origin = (acquisition.axis_px[0] - rows[0], (acquisition.cols - 1) / 2, (acquisition.cols - 1) / 2)
    pixel_mm = acquisition.pixel_um * 1e-3

    def contains(z_px: DoubleArray, y_px: DoubleArray, x_px: DoubleArray) -> NDArray[np.bool_]:
        z, y, x = ((v - o) * pixel_mm for v, o in zip((z_px, y_px, x_px), origin, strict=True))
        return shape.contains(x, y, z)

    # one voxel more on each side, so that every voxel has neighbours to differ from
    axes: list[DoubleArray] = [np.arange(s.start - 1, s.stop + 1, dtype=np.float64) for s in box]
    inside = contains(axes[0][:, None, None], axes[1][:, None], axes[2])
    small = max(s.stop - s.start for s in box) <= 32
    mixed = np.ones([n - 2 for n in inside.shape], bool) if small else _on_surface(inside)
    out = inside[1:-1, 1:-1, 1:-1].astype(np.float32)
    corner = np.array([s.start for s in box], dtype=np.float64)
    points: DoubleArray = np.argwhere(mixed) + corner
    hits = np.zeros(len(points))
    for step in _offsets(oversampling):
        z, y, x = (points + step).T
        hits += contains(z, y, x)
    out[mixed] = hits / oversampling**3
    return box, out


def _voxel_box(shape: Shape, *, acquisition: Acquisition, rows: Span) -> tuple[slice, slice, slice]:
    (x0, x1), (y0, y1), (z0, z1) = shape.bounds_mm
    pixel_mm = acquisition.pixel_um * 1e-3
    middle = (acquisition.cols - 1) / 2

    def voxels(low_mm: float, high_mm: float, origin: float, size: int) -> slice:
        low = math.floor(low_mm / pixel_mm + origin + 0.5)
        high = math.floor(high_mm / pixel_mm + origin + 0.5) + 1
        return slice(min(max(low, 0), size), min(max(high, 0), size))

    return (
        voxels(z0, z1, acquisition.axis_px[0] - rows[0], rows[1] - rows[0]),
        voxels(y0, y1, middle, acquisition.cols),
        voxels(x0, x1, middle, acquisition.cols),
    )


def _on_surface(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of the inner grid whose 26 neighbours are not all like them."""
    some, every = inside, inside
    for axis in range(3):
        low, mid, high = (
            [slice(None)] * axis + [slice(start, stop)] for start, stop in ((0, -2), (1, -1), (2, None))
        )
        some = some[tuple(low)] | some[tuple(mid)] | some[tuple(high)]
        every = every[tuple(low)] & every[tuple(mid)] & every[tuple(high)]
    mixed: NDArray[np.bool_] = some & ~every
    return mixed


def _offsets(oversampling: int) -> Iterator[tuple[float, float, float]]:
    steps = ((np.arange(oversampling) + 0.5) / oversampling - 0.5).tolist()
    return ((dz, dy, dx) for dz in steps for dy in steps for dx in steps)


def expected_noise_cm1(
    sample: Sample, *, acquisition: Acquisition, z_px: float, y_px: float, x_px: float
) -> float:
    """Standard deviation of a voxel after filtered back-projection with a plain ramp filter [1]_.

    The variance is pi^2 / (12 N a^2) times the mean, over the N angles of half a turn, of the variance of
    the line integral through the voxel: photons counted in the projection and in the flats, with what their
    electrons add, and read noise.
    A window or linear interpolation lowers it (linear interpolation to about 0.69 of it).
    The error of the flats is taken as independent in each projection; being the same in all, it makes
    rings that exceed this near the axis when flats are few. The shape of the beam, blur, flicker and
    stripes are left out.

    References
    ----------
    .. [1] Kak and Slaney, Principles of Computerized Tomographic Imaging, ch. 5 (1988),
       doi:10.1137/1.9780898719277
    """
    a = acquisition
    if a.photons is None:
        return 0.0
    row, middle = round(z_px), (a.cols - 1) / 2
    angles = np.deg2rad(np.linspace(a.first_deg, a.last_deg, a.n_angles))
    shadows = pixel_shadows(sample.shapes, angles_rad=angles, pixel_um=a.pixel_um, axis_px=a.axis_px)
    cols = np.rint((x_px - middle) * np.cos(angles) - (y_px - middle) * np.sin(angles) + a.axis_px[1])
    rays = [
        project(shadow, rows=(row, row + 1), cols=(int(col), int(col) + 1))[0, 0]
        for shadow, col in zip(shadows, cols, strict=True)
    ]
    transmission = np.exp(-np.array(rays))
    n_flats = a.n_flats * (2 if a.flats_after else 1)
    excess = 1 + 1 / a.electrons_per_photon if a.electrons_per_photon else 1.0
    counting = excess * (1 / transmission + 1 / n_flats) / a.photons
    reading = (a.read_noise_adu / a.open_beam_adu / transmission) ** 2
    pixel_cm = a.pixel_um * 1e-4
    return math.pi * math.sqrt(float(np.mean(counting + reading)) / (12 * a.n_angles)) / pixel_cm
