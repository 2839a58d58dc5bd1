"""The flat field of a scan: which darks and flats, and how far each frame lies between them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xctpipe.correct.dynamic import Weigher, flat_modes
from xctpipe.correct.flat import FlatField, check_dark_flat
from xctpipe.correct.threads import in_threads
from xctpipe.errors import BadScan
from xctpipe.progress import progress
from xctpipe.scan import (
    BinnedFrames,
    CroppedFrames,
    DarkFlat,
    FloatArray,
    Frames,
    RawArray,
    Scan,
)
from xctpipe.survey.clean_mean import mean_without_zingers
from xctpipe.survey.model import Axis, Survey

FRAMES_AT_ONCE = 16
AROUND = "around the scan"


def with_flats(scan: Scan, *, first_pixel: tuple[int, int]) -> Survey:
    """A survey that knows the flat field only; BadScan when the darks and flats cannot correct the scan."""
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
        raise BadScan(f"{scan.path}: no flats; give raw.dark_flat or raw.flats")
    sets = before_and_after(scan)
    darks = [mean_without_zingers(each.darks) for each in sets if each.darks is not None]
    flats = tuple(mean_without_zingers(each.flats) for each in sets)
    flat = FlatField(
        dark=np.mean(darks, axis=0, dtype=np.float32) if darks else np.zeros_like(flats[0]),
        flats=flats,
        weight=frame_weights(scan, sets) if len(sets) == 2 else None,
    )
    notes = list(_check_flat(scan, flat))
    if len(sets) < len(scan.dark_flats):
        notes.append(f"{len(sets)} of {len(scan.dark_flats)} sets of flats are used, {AROUND}")
    return replace(blank, flat=flat, warnings=tuple(notes))


def with_dynamic_flats(scan: Scan, survey: Survey) -> Survey:
    """The survey with the modes of all flats and how much of each every frame saw: reads all frames once."""
    stacks = [each.flats for each in scan.dark_flats]
    modes = flat_modes(stacks, dark=survey.flat.dark)
    n_flats = sum(stack.shape[0] for stack in stacks)
    if not modes.count:
        note = f"the {n_flats} flats differ by no more than noise: their mean is used, dynamic or not"
        return replace(survey, warnings=(*survey.warnings, note))
    flats = [
        modes.mean + survey.flat.dark,
        *(modes.mean + survey.flat.dark + each for each in modes.patterns),
    ]
    weigher = Weigher.of(modes, dark=survey.flat.dark)
    n = scan.shape[0]
    weight = np.empty((n, modes.count), np.float32)
    with progress(f"{scan.name}: dynamic flats", total=n, unit="frames") as bar:
        for first in range(0, n, FRAMES_AT_ONCE):
            block = scan.frames.read(frames=(first, min(first + FRAMES_AT_ONCE, n)))

            def weigh(begin: int, end: int, first: int = first, block: RawArray = block) -> None:
                for i in range(begin, end):
                    weight[first + i] = weigher.weights(block[i])

            in_threads(weigh, len(block))
            bar.advance(len(block))
    # all sets were looked at, whatever was said of those around the scan
    notes = tuple(text for text in survey.warnings if not text.endswith(AROUND))
    return replace(survey, flat=FlatField(survey.flat.dark, tuple(flats), weight), warnings=notes)


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
    # a copy of binned frames does not tell what was counted in, the flats still do
    stored = [_stored_dtype(each) for each in (scan.frames, *(pair.flats for pair in scan.dark_flats))]
    full = next((float(np.iinfo(dtype).max) for dtype in stored if dtype.kind in "ui"), None)
    found = [check_dark_flat(flat.dark, each, saturation=full) for each in flat.flats]
    errors = [text for wrong, _ in found for text in wrong]
    if errors:
        raise BadScan(f"{scan.path}: {'; '.join(dict.fromkeys(errors))}")
    return tuple(dict.fromkeys(text for _, odd in found for text in odd))


def _stored_dtype(frames: Frames) -> np.dtype[Any]:
    while isinstance(frames, (BinnedFrames, CroppedFrames)):
        frames = frames.source
    return frames.dtype


def frame_weights(scan: Scan, sets: Sequence[DarkFlat]) -> FloatArray:
    """How far each frame lies between the two flats in time, in [0, 1]."""
    n = scan.shape[0]
    fraction = np.linspace(0.0, 1.0, n)
    before, after = (each.time_s for each in sets)
    if before is None or after is None or scan.start_time is None or after <= before:
        return fraction.astype(np.float32)
    start = scan.start_time.timestamp()
    each_s = scan.interval_s or scan.exposure_s
    seconds = n * each_s if each_s else max(after - start, 0.0)
    return np.clip((start + fraction * seconds - before) / (after - before), 0.0, 1.0).astype(np.float32)
