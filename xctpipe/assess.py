"""What the volume of a scan will be like, from a few slices: noise, resolution, range of values."""

from dataclasses import dataclass

import numpy as np

from xctpipe.conveyor import Method, reconstruct_lines
from xctpipe.correct.flat import minus_log
from xctpipe.quality import fourier_shell_correlation, halves, resolution_um, voxel_noise
from xctpipe.scan import FloatArray, Scan
from xctpipe.steps import halo_rows
from xctpipe.survey import SURVEY_ROWS, Rows, Survey


@dataclass(frozen=True)
class Assessment:
    """Measured on slices spread over the height; values in cm^-1."""

    noise_cm1: float
    """Standard deviation of a voxel, from slices of even and of odd angles: median over the slices."""
    resolution_um: float
    """Where the Fourier shell correlation of the two halves falls below 1/7."""
    low_cm1: float
    high_cm1: float
    """Percentiles 0.5 and 99.5, for display."""
    min_cm1: float
    max_cm1: float


def rows_across(height: int, n_rows: int) -> Rows:
    """Up to `n_rows` different rows, spread over the height and away from its ends where it allows."""
    if height <= n_rows:
        return np.arange(height, dtype=np.int64)
    return np.unique(np.linspace(0, height - 1, n_rows + 2)[1:-1].astype(np.int64))


def slices_of_halves(
    scan: Scan, survey: Survey, method: Method, *, n_rows: int
) -> tuple[FloatArray, FloatArray]:
    """The same slices, spread over the height, from the even and from the odd angles."""
    rows = rows_across(scan.shape[1], n_rows)
    lines = corrected_rows(scan, survey, method, rows=rows)
    even, odd = (
        reconstruct_lines(
            lines[part],
            angles_rad=survey.angles_rad[part],
            center_px=survey.center_at(rows),
            method=method,
        )
        for part in halves(len(lines))
    )
    return even, odd


def corrected_rows(scan: Scan, survey: Survey, method: Method, *, rows: Rows) -> FloatArray:
    """Line integrals of single detector rows after the whole chain: (angle, row, col)."""
    halo = halo_rows(method.chain, method.facts)
    spans = [(max(0, int(row) - halo), min(scan.shape[1], int(row) + halo + 1)) for row in rows]
    bands = (survey.transmission(scan.frames.read(span), rows=span) for span in spans)
    if halo == 0:  # rows that do not see each other are corrected together, on all threads
        slab = np.concatenate(list(bands), axis=1)
        return minus_log(_through(method, slab, survey, rows=rows), floor=survey.floor)[0]
    kept = [
        _through(method, band, survey, rows=np.arange(*span))[:, row - span[0] : row - span[0] + 1]
        for band, row, span in zip(bands, rows, spans, strict=True)
    ]
    return minus_log(np.concatenate(kept, axis=1), floor=survey.floor)[0]


def _through(method: Method, slab: FloatArray, survey: Survey, *, rows: Rows) -> FloatArray:
    facts = survey.facts(method.facts, rows=rows)
    for step in method.chain:
        slab = step(slab, facts)
    return slab


def assess(scan: Scan, survey: Survey, method: Method, *, most_rows: int) -> Assessment:
    """Reconstruct a few slices, no more than fit a slab, from even and odd angles and measure them."""
    wanted = SURVEY_ROWS if method.backend == "fourier" else 2
    n_rows = min(wanted, most_rows, scan.shape[1])
    even, odd = slices_of_halves(scan, survey, method, n_rows=n_rows)
    frequency, correlation = fourier_shell_correlation(even, odd, pixel_um=method.pixel_um)
    values = 0.5 * (even + odd)
    low, high = np.percentile(values, [0.5, 99.5])
    noise = [voxel_noise(even[i : i + 1], odd[i : i + 1]) for i in range(len(even))]
    return Assessment(
        noise_cm1=float(np.median(noise)),
        resolution_um=float(resolution_um(frequency, correlation, pixel_um=method.pixel_um)),
        low_cm1=float(low),
        high_cm1=float(high),
        min_cm1=float(values.min()),
        max_cm1=float(values.max()),
    )
