"""Light that reaches the detector's pixels: through the sample, over the distance, spread on its way.

Rows are made in blocks. Where light crosses rows by a Fourier transform (propagation, haze), the blocks lie
on a grid fixed to the detector, so that a pixel is the same whatever rows are asked for.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from xctpipe.phantom.acquisition import Acquisition
from xctpipe.phantom.cell import Sample
from xctpipe.phantom.faults import leaning, tail_halo_px, with_tail
from xctpipe.phantom.optics import (
    FWHM_PER_SIGMA,
    ROWS_PER_COL,
    SUB_ROWS,
    FineGrid,
    fine_grid,
    finer,
    phase_shapes,
)
from xctpipe.phantom.projector import ShapeTable, project, shape_table
from xctpipe.scan import DoubleArray, Span

BAND_ROWS = 16
"""Blocks are multiples of these, which share a random stream."""

# rows of a block: of one that stays in a cache, and on the fine grid of one that is propagated
_PLAIN_ROWS, _FINE_ROWS = 64, 256


class LightPath:
    """What the light of all frames of one kind passes: the same for every block of rows."""

    def __init__(self, sample: Sample | None, *, acquisition: Acquisition) -> None:
        a = acquisition
        self.acquisition = a
        self.sigma_px = a.blur_fwhm_px / FWHM_PER_SIGMA
        # light that went a distance is blurred on the finer grid; a beam alone has no detail to blur
        self.blur_px = 0 if a.distance_mm else math.ceil(4 * self.sigma_px)
        self.halo_px = self.blur_px + tail_halo_px(a)
        self.table = None if sample is None else sample.table
        self.grid: FineGrid | None = None
        self.phase_table: ShapeTable | None = None
        if sample is not None and a.distance_mm:
            self.grid = fine_grid(sample, acquisition=a)
            self.phase_table = shape_table(phase_shapes(sample))

    @property
    def is_local(self) -> bool:
        """Whether a row depends on rows near it only, to the last bit."""
        return self.grid is None and not self.acquisition.tail_frac

    def blocks(self, rows: Span) -> list[Span]:
        """Blocks that hold the rows; where the path is not local, whole ones on the fixed grid."""
        first, last = rows
        if self.is_local:
            start, stop = first // BAND_ROWS * BAND_ROWS, -(-last // BAND_ROWS) * BAND_ROWS
            return [(row, min(row + _PLAIN_ROWS, stop)) for row in range(start, stop, _PLAIN_ROWS)]
        size = self._block_rows()
        return [(row, row + size) for row in range(first // size * size, last, size)]

    def _block_rows(self) -> int:
        wanted = 2 * self.halo_px
        if self.grid is not None:
            wanted = max(wanted, _FINE_ROWS // self.grid.factor, 2 * self.grid.margin_px)
        return BAND_ROWS * max(math.ceil(min(wanted, self.acquisition.rows) / BAND_ROWS), 1)

    def light(
        self, beam: Callable[[Span, Span], DoubleArray], *, angles_rad: DoubleArray, rows: Span
    ) -> DoubleArray:
        """Light on rows of the detector, (row, col), in units of `beam(rows, cols)`.

        `angles_rad` are those of one frame, whose mean it is; none for a frame without the sample.
        """
        a, h = self.acquisition, self.halo_px
        wide, cols = (rows[0] - h, rows[1] + h), (-h, a.cols + h)
        light = beam(wide, cols)
        if len(angles_rad):
            light = light * self.transmission(angles_rad, rows=wide, cols=cols)
        if self.blur_px:
            b = self.blur_px
            light = ndimage.gaussian_filter(light, self.sigma_px, radius=b)[b:-b, b:-b]
        if a.tail_frac:
            t = h - self.blur_px
            light = with_tail(light, acquisition=a)[t : light.shape[0] - t, t : light.shape[1] - t]
        return light

    def transmission(self, angles_rad: DoubleArray, *, rows: Span, cols: Span) -> DoubleArray:
        """Mean intensity behind the sample at the given angles, as a fraction of the beam."""
        views = [self._view(angles_rad[i : i + 1], rows=rows, cols=cols) for i in range(len(angles_rad))]
        return views[0] if len(views) == 1 else np.mean(views, axis=0)

    def _view(self, angle_rad: DoubleArray, *, rows: Span, cols: Span) -> DoubleArray:
        if self.table is None:
            return np.ones((rows[1] - rows[0], cols[1] - cols[0]))
        if self.grid is None or self.phase_table is None:
            shadows = self._shadows(self.table, angle_rad, rows=rows)
            fine = self.acquisition.sampling == "fast"
            return np.exp(-project(shadows, rows=rows, cols=cols, fine=fine))
        n, m = self.grid.factor, self.grid.margin_px
        wide = (rows[0] - m, rows[1] + m)
        down = n * ROWS_PER_COL * SUB_ROWS
        spans = {"rows": (wide[0] * down, wide[1] * down), "cols": ((cols[0] - m) * n, (cols[1] + m) * n)}
        depth, retardation = (
            project(finer(self._shadows(table, angle_rad, rows=wide), rows=down, cols=n), **spans, fine=True)
            for table in (self.table, self.phase_table)
        )
        return self.grid.intensity(depth, retardation_rad=retardation)

    def _shadows(self, table: ShapeTable, angle_rad: DoubleArray, *, rows: Span) -> DoubleArray:
        a = self.acquisition
        pixel_mm = a.pixel_um * 1e-3
        # half a pixel to the edges of the rows, and half a pixel against rounding
        low, high = ((row - a.axis_px[0]) * pixel_mm for row in (rows[0] - 1, rows[1]))
        near = table.within(low, high)
        shadows = near.shadows_px(angle_rad, pixel_um=a.pixel_um, axis_px=a.axis_px)
        seen: DoubleArray = leaning(shadows, acquisition=a)[0]
        return seen
