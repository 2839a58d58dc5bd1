"""What the volume of a scan will be like, from a few slices: noise, resolution, range of values."""

from dataclasses import dataclass, replace

import numpy as np

from xctpipe.conveyor import Method, log_of, reconstruct_lines
from xctpipe.quality import fourier_shell_correlation, halves, resolution_um, slice_noise
from xctpipe.rings import ring_strength
from xctpipe.scan import FloatArray, Scan
from xctpipe.staging import read_spans
from xctpipe.steps import View, halo_rows, run_chain
from xctpipe.survey import SURVEY_ROWS, Rows, Survey

RING_ROWS = 3
"""Slices that rings are told from: they are reconstructed with and without the stripe filters."""
SAMPLES = 2_000_003
"""Voxels from which percentiles are taken; about so many of any larger number."""


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
    rings_before_cm1: float | None = None
    """Rings of a few slices without the stripe filters of the chain; None where it has none."""
    rings_after_cm1: float | None = None


def rows_across(height: int, n_rows: int) -> Rows:
    """Up to `n_rows` different rows, spread over the height and away from its ends where it allows."""
    if height <= n_rows:
        return np.arange(height, dtype=np.int64)
    return np.unique(np.linspace(0, height - 1, n_rows + 2)[1:-1].astype(np.int64))


def slices_of_halves(
    scan: Scan, survey: Survey, method: Method, *, n_rows: int, kind: str = "edge"
) -> tuple[FloatArray, FloatArray]:
    """The same slices, spread over the height, from the even and from the odd angles."""
    rows = rows_across(scan.shape[1], n_rows)
    lines, view = corrected_rows(scan, survey, method, rows=rows, kind=kind)
    even, odd = (
        reconstruct_lines(
            lines[part],
            view=replace(view, angles_rad=view.angles_rad[part]),
            method=method,
            cell=survey.cell,
        )
        for part in halves(len(lines))
    )
    return even, odd


def corrected_rows(
    scan: Scan, survey: Survey, method: Method, *, rows: Rows, kind: str = "edge"
) -> tuple[FloatArray, View]:
    """Line integrals of single detector rows after the whole chain, (angle, row, col), and their view."""
    chain = method.chain_of(kind)
    view = survey.view_after(chain, rows)
    halo = halo_rows(chain, method.facts)
    spans = [(max(0, int(row) - halo), min(scan.shape[1], int(row) + halo + 1)) for row in rows]
    raw = read_spans(scan.frames, spans)
    bands = (survey.transmission(band, rows=span) for band, span in zip(raw, spans, strict=True))
    if halo == 0:  # rows that do not see each other are corrected together, on all threads
        slab = np.concatenate(list(bands), axis=1)
        slab, _ = run_chain(chain, slab, survey.facts(method.facts, rows=rows))
        return log_of(slab, survey=survey, view=view), view
    kept = []
    for band, row, span in zip(bands, rows, spans, strict=True):
        done, _ = run_chain(chain, band, survey.facts(method.facts, rows=np.arange(*span)))
        kept.append(done[:, row - span[0] : row - span[0] + 1])
    return log_of(np.concatenate(kept, axis=1), survey=survey, view=view), view


def _rings(
    scan: Scan, survey: Survey, method: Method, after: tuple[FloatArray, FloatArray]
) -> dict[str, float | None]:
    """Strength of the rings without the stripe filters, and with them."""
    plain = tuple(step for step in method.chain if not step.name.startswith("stripes"))
    if len(plain) == len(method.chain):
        return {"rings_after_cm1": ring_strength(*after)}
    before = slices_of_halves(scan, survey, replace(method, chain=plain), n_rows=len(after[0]))
    return {"rings_before_cm1": ring_strength(*before), "rings_after_cm1": ring_strength(*after)}


def assess(scan: Scan, survey: Survey, method: Method, *, most_rows: int, kind: str = "edge") -> Assessment:
    """Reconstruct a few slices, no more than fit a slab, from even and odd angles and measure them."""
    wanted = SURVEY_ROWS if method.backend == "fourier" else 2
    n_rows = min(wanted, most_rows, scan.shape[1])
    even, odd = slices_of_halves(scan, survey, method, n_rows=n_rows, kind=kind)
    frequency, correlation = fourier_shell_correlation(even, odd, pixel_um=method.pixel_um)
    noise = slice_noise(even, odd)
    rings = {}
    if kind == "edge":
        few = slices_of_halves(scan, survey, method, n_rows=min(RING_ROWS, n_rows))
        rings = _rings(scan, survey, method, few)
    values = even
    values += odd
    values *= 0.5
    low, high = np.percentile(values.ravel()[:: max(1, values.size // SAMPLES)], [0.5, 99.5])
    return Assessment(
        noise_cm1=float(np.median(noise)),
        resolution_um=float(resolution_um(frequency, correlation, pixel_um=method.pixel_um)),
        low_cm1=float(low),
        high_cm1=float(high),
        min_cm1=float(values.min()),
        max_cm1=float(values.max()),
        **rings,
    )
