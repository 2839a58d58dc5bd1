"""The numbers that correct every slab of a scan, and how they are kept."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from xctpipe.correct.flat import FlatField, minus_log
from xctpipe.recon.cylinder import CellFit
from xctpipe.runfolder import write_bytes
from xctpipe.scan import DoubleArray, FloatArray, RawArray, Span, unbinned_px
from xctpipe.steps import BoundStep, Facts, View

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class CenterChoice:
    """What is wished of the axis, in columns of the uncropped detector: given, searched, or found freely."""

    center_px: float | None = None
    search_px: tuple[float, float] | None = None


@dataclass(frozen=True)
class Axis:
    """The rotation axis: its column at row `row`, both counted in the uncropped detector, and its slope."""

    center_px: float
    row: float = 0.0
    slope: float = 0.0
    uncertainty_px: float | None = None
    confidence: float | None = None
    tilt_deg: float | None = None
    warnings: tuple[str, ...] = ()
    methods_px: dict[str, float] = field(default_factory=dict)
    """Where each method by itself sees it."""


@dataclass(frozen=True, eq=False)
class Survey:
    """Numbers that correct every slab of one scan; arrays cover the cropped detector."""

    angles_rad: DoubleArray
    """Of the good frames."""
    good: Mask
    """Which frames are used."""
    axis: Axis
    flat: FlatField
    first_pixel: tuple[int, int] = (0, 0)
    """Row and column of the cropped detector's first pixel."""
    bin_px: int = 1
    """Detector pixels along the side of a pixel as it is used."""
    takes_log: bool = True
    """False when the data are line integrals already."""
    gain: FloatArray | None = None
    """Per frame, beam intensity relative to the flat."""
    shifts_px: DoubleArray | None = None
    """(frame, 2), how far each frame lies from where it should, rows and columns; where a step asks."""
    cell: CellFit | None = None
    """Where the cell is, where rows are completed from it."""
    warnings: tuple[str, ...] = ()

    def transmission(self, raw: RawArray, *, rows: Span, first: BoundStep | None = None) -> FloatArray:
        """Transmission of raw rows [r0, r1), good frames only: (angle, row, col).

        `first` is a step to do in the same pass; it must have a form that knows the flat field.
        """
        if not self.takes_log:
            raw = raw.astype(np.float32)
            np.negative(raw, out=raw)
            np.exp(raw, out=raw)
        field, frames = self.flat.rows(rows), None if self.good.all() else np.flatnonzero(self.good)
        fused = None if first is None else first.after_flat
        if fused is not None:
            return fused(raw, field, gain=self.gain, frames=frames)
        return field.correct(raw, gain=self.gain, frames=frames)

    def lines(self, raw: RawArray, *, rows: Span) -> FloatArray:
        """Line integrals of raw rows [r0, r1), good frames only: (angle, row, col)."""
        if not self.takes_log:
            return minus_log(self.transmission(raw, rows=rows), floor=self.floor)[0]
        field, frames = self.flat.rows(rows), None if self.good.all() else np.flatnonzero(self.good)
        return field.lines(raw, floor=self.floor, gain=self.gain, frames=frames)[0]

    def facts(self, known: Facts, *, rows: Rows) -> Facts:
        """What is known of a scan, with what steps may ask about a slab of these rows."""
        return replace(
            known,
            first_row=int(rows[0]),
            beam=self.flat.beam(rows) if self.takes_log else None,
            shifts_px=None if self.shifts_px is None else self.shifts_px[self.good],
            view=self.view(rows),
        )

    def view(self, rows: Rows) -> View:
        """Projections, columns and axis of a slab of these rows, as it is read."""
        middle = self.center_at(np.array([(self.flat.dark.shape[0] - 1) // 2]))
        return View(self.angles_rad, self.flat.dark.shape[1], float(middle[0]), self.center_at(rows))

    def view_after(self, chain: Sequence[BoundStep], rows: Rows) -> View:
        """The same behind a chain of steps."""
        view = self.view(rows)
        for step in chain:
            view = step.view(view)
        return view

    @property
    def floor(self) -> float:
        """Least transmission: a photon of a bright beam, or nothing worth the name for line integrals."""
        return 1e-4 if self.takes_log else 1e-37

    @property
    def detector_axis(self) -> Axis:
        """The axis in the detector's own pixels."""
        axis, by = self.axis, self.bin_px
        return replace(
            axis,
            center_px=unbinned_px(axis.center_px, bin_px=by),
            row=unbinned_px(axis.row, bin_px=by),
            uncertainty_px=None if axis.uncertainty_px is None else axis.uncertainty_px * by,
            methods_px={name: unbinned_px(px, bin_px=by) for name, px in axis.methods_px.items()},
        )

    def center_at(self, rows: Rows) -> DoubleArray:
        """Column of the axis in the cropped detector at the given rows of it."""
        first_row, first_col = self.first_pixel
        offset = np.asarray(rows, dtype=np.float64) + first_row - self.axis.row
        return self.axis.center_px - first_col + self.axis.slope * offset


def save(survey: Survey, path: Path) -> None:
    """Keep the survey as one .npz archive, written whole."""
    meta = {
        "axis": asdict(survey.axis),
        "first_pixel": survey.first_pixel,
        "bin_px": survey.bin_px,
        "takes_log": survey.takes_log,
        "warnings": survey.warnings,
        "cell": survey.cell and asdict(survey.cell),
    }
    arrays: dict[str, Any] = {f"flat{i}": flat for i, flat in enumerate(survey.flat.flats)}
    optional = {"gain": survey.gain, "weight": survey.flat.weight, "shifts_px": survey.shifts_px}
    arrays |= {name: array for name, array in optional.items() if array is not None}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        meta=np.array(json.dumps(meta)),
        angles_rad=survey.angles_rad,
        good=survey.good,
        dark=survey.flat.dark,
        **arrays,
    )
    write_bytes(path, buffer.getvalue())


def load(path: Path) -> Survey | None:
    """The survey kept at `path`; None where there is none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(str(arrays["meta"]))
    except (OSError, ValueError, EOFError, KeyError, BadZipFile):
        return None
    axis = meta["axis"] | {"warnings": tuple(meta["axis"]["warnings"])}
    names = [f"flat{i}" for i in range(len(arrays)) if f"flat{i}" in arrays]
    flats = tuple(arrays[name] for name in names)
    return Survey(
        angles_rad=arrays["angles_rad"],
        good=arrays["good"],
        axis=Axis(**axis),
        flat=FlatField(arrays["dark"], flats, arrays.get("weight")),
        first_pixel=tuple(meta["first_pixel"]),
        bin_px=meta["bin_px"],
        takes_log=meta["takes_log"],
        gain=arrays.get("gain"),
        shifts_px=arrays.get("shifts_px"),
        cell=CellFit(**meta["cell"]) if meta["cell"] else None,
        warnings=tuple(meta["warnings"]),
    )
