"""What must be known of a whole scan before its slabs: averaged flats, bad frames, beam drift, axis, noise.

It reads a few detector rows of every frame, once; the result is kept, so that a run that is continued
corrects every slab with the same numbers.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from xctpipe.center import (
    OPPOSITE_PAIRS,
    CenterResult,
    Opposites,
    choose_rows,
    find_center,
    opposite_frames,
    row_detail,
)
from xctpipe.correct.drift import beam_drift
from xctpipe.correct.flat import FlatField, check_dark_flat, minus_log
from xctpipe.errors import BadScan
from xctpipe.progress import progress
from xctpipe.runfolder import write_bytes
from xctpipe.scan import DarkFlat, DoubleArray, FloatArray, RawArray, Scan, Span, mean_frame
from xctpipe.steps import Facts

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]

BAND_MARGIN_ROWS = 1
"""Each is the mean with so many neighbours on both sides."""
FRAMES_PER_END = 8
OPPOSITE_GROUPS = 16
MOST_OPPOSITE_ROWS = 1024
"""Opposite frames are compared over the whole height, in groups of rows, binned to at most so many."""
LEAST_SPAN_RAD = np.pi / 6
SURVEY_ROWS = 12
"""Rows read for the axis, the drift and the noise: enough for a spread, few enough to be quick."""


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
    takes_log: bool = True
    """False when the data are line integrals already."""
    gain: FloatArray | None = None
    """Per frame, beam intensity relative to the flat."""
    warnings: tuple[str, ...] = ()

    def transmission(self, raw: RawArray, *, rows: Span) -> FloatArray:
        """Transmission of raw rows [r0, r1), good frames only: (angle, row, col)."""
        if not self.takes_log:
            raw = np.exp(-raw.astype(np.float32))
        slab = self.flat.rows(rows).correct(raw, gain=self.gain)
        return slab if self.good.all() else slab[self.good]

    def facts(self, known: Facts, *, rows: Rows) -> Facts:
        """What is known of a scan, with what steps may ask about a slab of these rows."""
        beam = self.flat.beam(rows) if self.takes_log else None
        return replace(known, first_row=int(rows[0]), beam=beam)

    @property
    def floor(self) -> float:
        """Least transmission: a photon of a bright beam, or nothing worth the name for line integrals."""
        return 1e-4 if self.takes_log else 1e-37

    def center_of_rows(self, rows: Span) -> DoubleArray:
        """Column of the axis in the cropped detector for each row of [r0, r1)."""
        return self.center_at(np.arange(*rows))

    def center_at(self, rows: Rows) -> DoubleArray:
        """Column of the axis in the cropped detector at the given rows of it."""
        first_row, first_col = self.first_pixel
        offset = np.asarray(rows, dtype=np.float64) + first_row - self.axis.row
        return self.axis.center_px - first_col + self.axis.slope * offset


def make_survey(scan: Scan, *, first_pixel: tuple[int, int] = (0, 0), center: CenterChoice) -> Survey:
    """Survey a scan: reads its darks and flats whole, and `SURVEY_ROWS` detector rows of every frame.

    Raises BadScan when the darks and flats cannot correct it.
    """
    if np.ptp(scan.angles_rad) < LEAST_SPAN_RAD:
        span = np.degrees(np.ptp(scan.angles_rad))
        raise BadScan(f"{scan.path}: the angles span {span:.3g} deg; 30 are the least, 180 are wanted")
    survey = _with_flats(scan, first_pixel=first_pixel)
    rows = pick_rows(scan, survey)
    bands = []
    with progress(f"{scan.name}: survey", total=len(rows), unit="rows") as bar:
        for row in rows:
            bands.append(_band_of(scan, survey, int(row)))
            bar.advance(1)
    slab = np.concatenate(bands, axis=1)
    good = _good_frames(slab)
    lines, _ = minus_log(slab[good], floor=survey.floor)
    gain = None if scan.log_absorption else beam_drift(lines)
    if gain is not None:
        lines += np.log(gain)[:, None, None]
        gain = _spread(gain, good)
    survey = replace(survey, angles_rad=scan.angles_rad[good], good=good, gain=gain)
    axis = _find_axis(scan, survey, lines, rows=rows, center=center)
    notes = (*survey.warnings, *_frame_notes(good), *axis.warnings)
    return replace(survey, axis=axis, warnings=notes)


def pick_rows(scan: Scan, survey: Survey) -> Rows:
    """Detector rows that hold detail in two opposite projections, spread over the height."""
    turned = np.abs(np.mod(scan.angles_rad - scan.angles_rad[0], 2 * np.pi) - np.pi)
    first, opposite = (_whole_frame(scan, survey, frame) for frame in (0, int(turned.argmin())))
    detail = row_detail(first, opposite[:, ::-1])
    rows = choose_rows(detail, n=min(SURVEY_ROWS, scan.shape[1]))
    if not rows.size:  # nothing to see anywhere: the search for the axis will say so
        rows = np.linspace(0, scan.shape[1] - 1, min(SURVEY_ROWS, scan.shape[1])).astype(np.intp)
    return np.asarray(rows, dtype=np.int64)


def _whole_frame(scan: Scan, survey: Survey, frame: int) -> FloatArray:
    """Line integrals of one frame: (row, col)."""
    raw = scan.frames.read(frames=(frame, frame + 1))
    transmission = _one_frame(survey).transmission(raw, rows=(0, scan.shape[1]))
    lines, _ = minus_log(transmission, floor=survey.floor)
    return np.asarray(lines[0])


def _one_frame(survey: Survey) -> Survey:
    flat = replace(survey.flat, flats=survey.flat.flats[:1], weight=None)
    return replace(survey, flat=flat, gain=None, good=np.ones(1, bool))


def _band_of(scan: Scan, survey: Survey, row: int) -> FloatArray:
    """Mean transmission of a row and its neighbours: (angle, 1, col)."""
    span = (max(0, row - BAND_MARGIN_ROWS), min(scan.shape[1], row + BAND_MARGIN_ROWS + 1))
    band: FloatArray = survey.transmission(scan.frames.read(span), rows=span).mean(axis=1, keepdims=True)
    return band


def _opposites(scan: Scan, survey: Survey) -> Opposites:
    """Line integrals over the whole height of the frames that registration compares."""
    chosen = opposite_frames(survey.angles_rad, pairs=OPPOSITE_PAIRS, per_end=FRAMES_PER_END)
    frames = np.flatnonzero(survey.good)[chosen]
    height = scan.shape[1]
    bin_rows = -(-height // MOST_OPPOSITE_ROWS)
    n_rows = height // bin_rows
    groups = min(OPPOSITE_GROUPS, max(4, n_rows // 32), n_rows)
    used = n_rows // groups * groups
    lines = [_binned(_whole_frame(scan, survey, int(frame)), by=bin_rows)[:used] for frame in frames]
    rows = survey.first_pixel[0] + np.arange(used, dtype=np.float64) * bin_rows + (bin_rows - 1) / 2
    return Opposites(np.stack(lines), chosen, rows, survey.angles_rad, groups)


def _binned(frame: FloatArray, *, by: int) -> FloatArray:
    height = frame.shape[0] // by * by
    binned: FloatArray = frame[:height].reshape(-1, by, frame.shape[1]).mean(axis=1, dtype=np.float32)
    return binned


def _with_flats(scan: Scan, *, first_pixel: tuple[int, int]) -> Survey:
    n, *shape = scan.shape
    blank = Survey(
        scan.angles_rad,
        np.ones(n, bool),
        Axis(0.0),
        FlatField(np.zeros(shape, np.float32), (np.ones(shape, np.float32),)),
        first_pixel=first_pixel,
        takes_log=not scan.log_absorption,
    )
    if scan.log_absorption:
        return blank
    if not scan.dark_flats:
        raise BadScan(f"{scan.path}: no flats; name the scan that holds them in raw.dark_flat")
    sets = before_and_after(scan)
    darks = [mean_frame(each.darks) for each in sets if each.darks is not None]
    flats = tuple(mean_frame(each.flats) for each in sets)
    flat = FlatField(
        dark=np.mean(darks, axis=0, dtype=np.float32) if darks else np.zeros_like(flats[0]),
        flats=flats,
        weight=frame_weights(scan, sets) if len(sets) == 2 else None,
    )
    notes = list(_check_flat(scan, flat))
    if len(sets) < len(scan.dark_flats):
        notes.append(f"{len(sets)} of {len(scan.dark_flats)} sets of flats are used, around the scan")
    return replace(blank, flat=flat, warnings=tuple(notes))


def before_and_after(scan: Scan) -> tuple[DarkFlat, ...]:
    """The last darks and flats before the scan and the first after; both ends where no time is known."""
    sets = scan.dark_flats
    times = [each.time_s for each in sets]
    if len(sets) <= 2:
        return sets
    if scan.start_time is None or None in times:
        return sets[0], sets[-1]
    in_order = sorted(sets, key=lambda each: each.time_s or 0.0)
    later = sum((each.time_s or 0.0) <= scan.start_time.timestamp() for each in in_order)
    return tuple(in_order[max(0, later - 1) : later + 1]) or sets[:1]


def _check_flat(scan: Scan, flat: FlatField) -> tuple[str, ...]:
    dtype = scan.frames.dtype
    full = float(np.iinfo(dtype).max) if dtype.kind in "ui" else None
    found = [check_dark_flat(flat.dark, each, saturation=full) for each in flat.flats]
    errors = [text for wrong, _ in found for text in wrong]
    if errors:
        raise BadScan(f"{scan.path}: {'; '.join(dict.fromkeys(errors))}")
    return tuple(dict.fromkeys(text for _, odd in found for text in odd))


def frame_weights(scan: Scan, sets: Sequence[DarkFlat]) -> FloatArray:
    """How far each frame lies between the two flats in time, in [0, 1]."""
    n = scan.shape[0]
    fraction = np.linspace(0.0, 1.0, n)
    before, after = (each.time_s for each in sets)
    if before is None or after is None or scan.start_time is None or after <= before:
        return fraction.astype(np.float32)
    start = scan.start_time.timestamp()
    seconds = n * scan.exposure_s if scan.exposure_s else max(after - start, 0.0)
    return np.clip((start + fraction * seconds - before) / (after - before), 0.0, 1.0).astype(np.float32)


def _good_frames(slab: FloatArray) -> Mask:
    level = np.median(slab, axis=(1, 2))
    middle = float(np.median(level[np.isfinite(level)])) if np.isfinite(level).any() else 0.0
    good = np.isfinite(level) & (level > 0.05 * middle) & (level < 20.0 * middle)
    if good.sum() < 3:
        raise BadScan(
            f"only {int(good.sum())} of {good.size} frames hold a signal (median transmission {middle:.3g}); "
            "check the projections, darks and flats"
        )
    return good


def _frame_notes(good: Mask) -> list[str]:
    bad = np.flatnonzero(~good)
    if not bad.size:
        return []
    listed = ", ".join(str(i) for i in bad[:10]) + (", ..." if bad.size > 10 else "")
    return [f"{bad.size} of {good.size} frames are blank or overexposed and left out: {listed}"]


def _spread(gain: FloatArray, good: Mask) -> FloatArray:
    """The gain of all frames, 1 where a frame is not used."""
    full = np.ones(good.size, np.float32)
    full[good] = gain
    return full


def _find_axis(scan: Scan, survey: Survey, lines: FloatArray, *, rows: Rows, center: CenterChoice) -> Axis:
    if center.center_px is not None:
        return Axis(center.center_px)
    first_row, first_col = survey.first_pixel
    found = find_center(
        lines,
        angles_rad=survey.angles_rad,
        rows=rows + first_row,
        opposites=_opposites(scan, survey),
        search_px=center.search_px,
        first_col=first_col,
    )
    return Axis(
        center_px=found.center_px,
        row=float(found.row_mid),
        slope=found.slope_px_per_row if _tilt_is_sure(found, lines.shape[1]) else 0.0,
        uncertainty_px=found.uncertainty_px if np.isfinite(found.uncertainty_px) else None,
        confidence=found.confidence,
        tilt_deg=found.tilt_deg,
        warnings=found.warnings,
    )


def _tilt_is_sure(found: CenterResult, n_rows: int) -> bool:
    """A slope is used only where it is well measured; noise in it would smear the ends of the volume."""
    return n_rows >= 5 and abs(found.tilt_deg) > 4 * found.tilt_uncertainty_deg and found.confidence > 0.5


def save(survey: Survey, path: Path) -> None:
    """Keep the survey as one .npz archive, written whole."""
    meta = {
        "axis": asdict(survey.axis),
        "first_pixel": survey.first_pixel,
        "takes_log": survey.takes_log,
        "warnings": survey.warnings,
    }
    arrays: dict[str, Any] = {f"flat{i}": flat for i, flat in enumerate(survey.flat.flats)}
    arrays |= {} if survey.gain is None else {"gain": survey.gain}
    arrays |= {} if survey.flat.weight is None else {"weight": survey.flat.weight}
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
    flats = tuple(arrays[name] for name in ("flat0", "flat1") if name in arrays)
    return Survey(
        angles_rad=arrays["angles_rad"],
        good=arrays["good"],
        axis=Axis(**axis),
        flat=FlatField(arrays["dark"], flats, arrays.get("weight")),
        first_pixel=tuple(meta["first_pixel"]),
        takes_log=meta["takes_log"],
        gain=arrays.get("gain"),
        warnings=tuple(meta["warnings"]),
    )
