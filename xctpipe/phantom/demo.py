"""Ready-made simulated scans of the cell."""

from typing import Any

from xctpipe.errors import BadRecipe, nearest
from xctpipe.phantom.acquisition import Acquisition, Stripe, with_changes
from xctpipe.phantom.cell import Cell, build_cell, default_pixel_um
from xctpipe.phantom.scanner import simulate
from xctpipe.phantom.truth import truth
from xctpipe.scan import Scan

SIZES: dict[str, tuple[int, int, int]] = {
    "mini": (61, 32, 96),
    "tiny": (181, 64, 96),
    "small": (601, 256, 320),
}
"""Projections, rows and columns."""


def simulated_scan(
    *,
    size: str = "tiny",
    seed: int = 0,
    full_view: bool = False,
    perfect: bool = False,
    energy_kev: float = 80.0,
    **changes: Any,
) -> tuple[Scan, dict[str, Any]]:
    """Scan of the layered cell and the truth about it.

    Parameters
    ----------
    size : `mini` (61 projections of 32 x 96 pixels), `tiny` (181 of 64 x 96) or `small` (601 of 256 x 320).
    seed : of the cell and of all noise; the same seed gives the same bytes.
    full_view : the whole cell is inside the view; otherwise the view is 4.16 mm of the cell's 10 mm.
    perfect : floating point frames without noise or faults, equal angles, a centred axis, darks of zero.
    energy_kev : of the monochromatic beam, 5 to 300.
    **changes : fields of Acquisition to set, `rows`, `cols` and `n_angles` among them.

    Returns
    -------
    The scan, whose frames are computed when read, and its truth as plain values.

    Raises
    ------
    BadRecipe : a size, field or value is not allowed.
    """
    if size not in SIZES:
        raise BadRecipe(f"simulate: no size {size!r}; {nearest(str(size), SIZES)}")
    shape = {name: changes[name] for name in ("n_angles", "rows", "cols") if name in changes}
    plain = with_changes(Acquisition(*SIZES[size], pixel_um=1.0), **shape)
    plain = with_changes(plain, pixel_um=default_pixel_um(plain.cols, full_view=full_view))
    acquisition = with_changes(
        perfect_acquisition(plain) if perfect else realistic_acquisition(plain), **changes
    )
    cell = Cell(
        rows=acquisition.rows,
        cols=acquisition.cols,
        pixel_um=acquisition.pixel_um,
        energy_kev=energy_kev,
        full_view=full_view,
        seed=seed,
    )
    sample = build_cell(cell)
    scan = simulate(sample, acquisition=acquisition, seed=seed)
    return scan, truth(sample, acquisition=acquisition, seed=seed)


def perfect_acquisition(plain: Acquisition) -> Acquisition:
    """The acquisition without noise or faults: floating point frames, darks of zero."""
    return with_changes(plain, photons=None, pixel_type="float32", dark_adu=0.0, n_flats=1, n_darks=1)


def realistic_acquisition(plain: Acquisition) -> Acquisition:
    """The acquisition with a beamline's faults: an axis off the middle, stripes, zingers, drift, blur."""
    rows, cols = plain.rows, plain.cols
    stripes = (
        Stripe("full", col=cols * 23 // 100, amplitude=0.03),
        Stripe("full", col=cols * 71 // 100, amplitude=-0.02, width=2, rows=(rows // 4, 3 * rows // 4)),
        Stripe("partial", col=cols * 37 // 100, amplitude=0.03, rows=(rows // 2, rows)),
        Stripe("fluctuating", col=cols * 62 // 100, amplitude=0.02, rows=(0, rows // 2)),
        Stripe("dead", col=cols * 85 // 100, amplitude=0.4, rows=(rows // 3, rows // 3 + max(rows // 16, 1))),
    )
    return with_changes(
        plain,
        center_px=(cols - 1) / 2 + 0.0237 * cols,
        first_deg=0.035,
        last_deg=179.965,
        speed_modulation_frac=0.02,
        jitter_deg=0.002,
        read_noise_adu=3.0,
        beam_falloff_frac=0.2,
        bands_frac=0.05,
        bands_drift_px=1.0,
        beam_decay_frac=0.01,
        flicker_frac=0.002,
        response_frac=0.02,
        blur_fwhm_px=1.5,
        zingers_per_frame=0.5,
        stripes=stripes,
    )
