"""What is wrong with the raw numbers of a scan, judged by a few frames of each kind."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from xctpipe.formats.angles import angle_notes
from xctpipe.formats.base import warn
from xctpipe.formats.frames import HdfFrames, unwritten_at_end
from xctpipe.formats.odd import FULL_SCALES, without_odd_frames
from xctpipe.formats.registry import exposure_of
from xctpipe.formats.sources import leaves
from xctpipe.formats.writing import open_flags, still_written
from xctpipe.scan import DarkFlat, FloatArray, Frames, Problem, RawArray, Scan

_MOST_ABSORPTION = 20.0
"""Line integral that no detector sees: 2e-9 of the beam."""
_SAME_EXPOSURE = 0.02
"""Relative difference of exposures that are the same: what cameras measure jitters."""


def checked(scan: Scan, *, look_at_frames: bool = True) -> Scan:
    """The scan with the problems found in it; without `look_at_frames` no frame is read.

    At most five projections and three frames of each dark and flat are read, and a few rows of all darks and
    flats; single ones among them that are bad are left out.
    """
    problems = [*scan.problems, *warn(angle_notes(scan.angles_rad, columns=scan.shape[2]))]
    problems.extend(_missing(scan))
    problems.extend(_being_written(scan))
    usable: list[DarkFlat] = []
    dark_flats = list(scan.dark_flats)
    for i, item in enumerate(scan.dark_flats):
        wrong = [*_wrong_shapes(scan, item), *_other_exposure(scan, item)]
        problems.extend(wrong)
        if wrong:
            continue
        if look_at_frames:
            dark_flats[i], found = without_odd_frames(item, of=_of(item))
            problems.extend(found)
        usable.append(dark_flats[i])
    if look_at_frames:
        with np.errstate(all="ignore"):  # what is not finite is reported, not warned about
            problems.extend(_look(scan, usable))
    return replace(scan, dark_flats=tuple(dark_flats), problems=tuple(dict.fromkeys(problems)))


def _being_written(scan: Scan) -> Iterator[Problem]:
    for frames in leaves(scan.frames):
        if not isinstance(frames, HdfFrames):
            continue
        name, why = frames.path.name, still_written(frames.path)
        lost = unwritten_at_end(frames) if why else 0
        if lost:
            yield Problem(
                "error",
                f"{name}: the last {lost} of {frames.shape[0]} frames are not there yet; {why}: if the "
                "scan goes on, wait until it is finished",
            )
        elif open_flags(frames.path):
            yield Problem(
                "warning",
                f"{name} is open for writing in another program, or that has crashed (then run: h5clear -s "
                f"{name}); frames may still change",
            )


def _other_exposure(scan: Scan, item: DarkFlat) -> Iterator[Problem]:
    own = {frames.path for frames in leaves(scan.frames) if isinstance(frames, HdfFrames)}
    for frames in leaves(item.flats):
        if scan.exposure_s is None or not isinstance(frames, HdfFrames):
            continue
        exposure_s = exposure_of(scan.path if frames.path in own else frames.path, frames)
        if exposure_s is not None and abs(exposure_s / scan.exposure_s - 1) > _SAME_EXPOSURE:
            yield Problem(
                "error",
                f"flats{_of(item)} were exposed for {exposure_s:g} s, the projections for "
                f"{scan.exposure_s:g} s; name flats of the same exposure in raw.dark_flat",
            )


def _missing(scan: Scan) -> Iterator[Problem]:
    if scan.angles_rad.size < 3:
        yield Problem("error", f"{scan.angles_rad.size} projections cannot be reconstructed")
    elif np.ptp(scan.angles_rad) == 0:
        first = np.degrees(scan.angles_rad[0])
        yield Problem("error", f"all {scan.angles_rad.size} angles are {first:.4g} deg; give raw.angles")
    if scan.log_absorption:
        return
    if not scan.dark_flats:
        yield Problem(
            "error",
            "no flats: none in the scan and none found beside it; give raw.dark_flat or raw.flats, or set "
            "raw.log_absorption = true if the logarithm has been taken",
        )
    elif all(item.darks is None for item in scan.dark_flats):
        yield Problem("warning", "no darks: a dark of zero is used")


def _wrong_shapes(scan: Scan, item: DarkFlat) -> Iterator[Problem]:
    want = scan.shape[1:]
    kinds = (("flats", item.flats), ("darks", item.darks))
    for kind, frames in kinds:
        if frames is None:
            continue
        have = frames.shape[1:]
        if frames.shape[0] == 0:
            yield Problem("error", f"{kind}{_of(item)}: there are none")
        elif have != want:
            yield Problem(
                "error",
                f"{kind}{_of(item)} have {have[0]} x {have[1]} (rows x columns), the projections "
                f"{want[0]} x {want[1]}: another camera or region; give the dark_flat of this scan",
            )


def _of(item: DarkFlat) -> str:
    return f" of {item.origin}" if item.origin else ""


def _sample(frames: Frames, *, count: int) -> tuple[list[int], RawArray]:
    n = frames.shape[0]
    indices = sorted({round(i) for i in np.linspace(0, n - 1, count)})
    return indices, np.concatenate([frames.read(frames=(i, i + 1)) for i in indices])


def _look(scan: Scan, dark_flats: list[DarkFlat]) -> Iterator[Problem]:
    indices, projections = _sample(scan.frames, count=5)
    yield from _not_finite(projections, what="projections")
    finite = bool(np.any(np.isfinite(projections)))
    if finite:
        yield from _look_at_projections(indices, projections, log_absorption=scan.log_absorption)
    for item in dark_flats:
        flats = _sample(item.flats, count=3)[1]
        yield from _not_finite(flats, what=f"flats{_of(item)}")
        dark: FloatArray | None = None
        if item.darks is not None:
            darks = _sample(item.darks, count=3)[1]
            yield from _not_finite(darks, what=f"darks{_of(item)}")
            dark = darks.mean(axis=0, dtype=np.float64).astype(np.float32)
        if np.any(np.isfinite(flats)):
            yield from _look_at_flats(flats, dark, of=_of(item))
            if finite:
                yield from _too_bright(projections, flats, of=_of(item))


def _not_finite(data: RawArray, *, what: str) -> Iterator[Problem]:
    if data.dtype.kind != "f":
        return
    bad = int(np.count_nonzero(~np.isfinite(data)))
    if bad == data.size:
        yield Problem("error", f"{what}: no value is finite")
    elif bad:
        yield Problem("warning", f"{what}: {bad} of {data.size} values looked at are not finite")


def _look_at_projections(indices: list[int], data: RawArray, *, log_absorption: bool) -> Iterator[Problem]:
    empty = [i for i, frame in zip(indices, data, strict=True) if not np.any(frame)]
    if len(empty) == len(indices):
        yield Problem("error", f"projections: all {len(indices)} frames looked at are zero everywhere")
    elif empty:
        named = ", ".join(str(i) for i in empty)
        yield Problem(
            "warning",
            f"projections zero everywhere, of the {len(indices)} looked at: {named}",
        )
    if log_absorption and float(np.nanmedian(data)) > _MOST_ABSORPTION:
        yield Problem(
            "warning",
            f"projections have a median of {np.nanmedian(data):.4g}: if these are counts, not absorption, "
            "leave out raw.log_absorption",
        )
    if not log_absorption:
        yield from _saturation(data, what="projections")
        if data.dtype.kind == "f" and np.nanmax(data) < 20 and np.nanmin(data) < 0:
            yield Problem(
                "warning",
                f"projections run from {np.nanmin(data):.3g} to {np.nanmax(data):.3g}: if this is absorption "
                "(logarithm taken), set raw.log_absorption = true",
            )


def _saturation(data: RawArray, *, what: str) -> Iterator[Problem]:
    top = float(np.nanmax(data))
    share = float(np.mean(data == top))
    if top in FULL_SCALES and share > 0.01:
        level = "error" if share > 0.5 else "warning"
        yield Problem(level, f"{what}: saturated, {100 * share:.3g} % of the values looked at are {top:g}")  # type: ignore[arg-type]


def _look_at_flats(flats: RawArray, dark: FloatArray | None, *, of: str) -> Iterator[Problem]:
    what = f"flats{of}"
    if not np.any(flats):
        yield Problem("error", f"{what}: zero everywhere (beam or shutter closed?)")
        return
    yield from _saturation(flats, what=what)
    beam = flats.mean(axis=0, dtype=np.float64) - (0.0 if dark is None else dark)
    share = float(np.mean(beam <= 0))
    if share > 0.5:
        yield Problem(
            "error",
            f"{what}: not brighter than the darks in {100 * share:.3g} % of the pixels (swapped? no beam?)",
        )
    elif share > 0.01:
        yield Problem("warning", f"{what}: not brighter than the darks in {100 * share:.3g} % of the pixels")


def _too_bright(projections: RawArray, flats: RawArray, *, of: str) -> Iterator[Problem]:
    bright, beam = float(np.nanmedian(projections)), float(np.nanmedian(flats))
    if beam > 0 and bright > 1.3 * beam:
        yield Problem(
            "warning",
            f"projections are {bright / beam:.3g} times as bright as the flats{of}: another exposure?",
        )
