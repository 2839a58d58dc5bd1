"""Single dark and flat frames that stand out: saturated, empty, or with the shutter in the wrong place."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xctpipe.formats.frames import HdfFrames
from xctpipe.scan import DarkFlat, Frames, Problem, RawArray

FULL_SCALES = tuple(float(2**bits - 1) for bits in (8, 10, 11, 12, 13, 14, 15, 16, 32))
BAND_ROWS = 16
"""Rows in the middle of every frame that are looked at."""
MOST_FRAMES = 512
MOST_DEVIATION = 0.3
"""Of the beam's brightness; between top-ups and in drift the beam of a ring stays well within it."""

_BLOCK_FRAMES = 32


def without_odd_frames(item: DarkFlat, *, of: str) -> tuple[DarkFlat, tuple[Problem, ...]]:
    """Darks and flats without the frames that stand out among them, where few do, and which those are.

    A band of `BAND_ROWS` rows of every frame is read. A frame is odd when it is not finite, zero or saturated
    in most of the band, or when its median is off that of the others by `MOST_DEVIATION` of the beam.
    """
    flats = _bands(item.flats)
    flat_level = float(np.median([band.level for band in flats]))
    darks = [] if item.darks is None else _bands(item.darks)
    dark_level = float(np.median([band.level for band in darks])) if darks else 0.0
    beam = flat_level - dark_level
    problems: list[Problem] = []
    new_flats, found = _cleaned(item.flats, list(_odd(flats, flat_level, beam)), what=f"flats{of}")
    problems.extend(found)
    if item.darks is None:
        return replace(item, flats=new_flats), tuple(problems)
    new_darks, found = _cleaned(item.darks, list(_odd(darks, dark_level, beam)), what=f"darks{of}")
    return replace(item, flats=new_flats, darks=new_darks), (*problems, *found)


class _Band:
    """Median of a band of a frame, and what is wrong with the band by itself."""

    def __init__(self, data: RawArray) -> None:
        finite = data[np.isfinite(data)]
        self.level = float(np.median(finite)) if finite.size else 0.0
        self.wrong = ""
        if 2 * finite.size < data.size:
            self.wrong = "not finite"
        elif not np.any(finite):
            self.wrong = "zero everywhere"
        elif self.level in FULL_SCALES and float(np.max(finite)) == self.level:
            self.wrong = "saturated"


def _bands(frames: Frames) -> list[_Band]:
    n, rows, _ = frames.shape
    first = max(0, (rows - BAND_ROWS) // 2)
    span = (first, min(rows, first + BAND_ROWS))
    bands: list[_Band] = []
    for start in range(0, min(n, MOST_FRAMES), _BLOCK_FRAMES):
        block = frames.read(span, frames=(start, min(start + _BLOCK_FRAMES, n, MOST_FRAMES)))
        bands.extend(_Band(frame) for frame in block)
    return bands


def _odd(bands: list[_Band], level: float, beam: float) -> Iterator[tuple[int, str]]:
    for i, band in enumerate(bands):
        off = abs(band.level - level) > MOST_DEVIATION * beam > 0
        if band.wrong or off:
            yield i, band.wrong or f"{band.level:.4g} where the others are {level:.4g}"


def _cleaned(frames: Frames, odd: list[tuple[int, str]], *, what: str) -> tuple[Frames, tuple[Problem, ...]]:
    n = frames.shape[0]
    # where most are alike bad, the checks of a few frames say so
    if not odd or 2 * len(odd) >= n:
        return frames, ()
    listed = "; ".join(f"frame {i} is {why}" for i, why in odd[:8]) + ("; ..." if len(odd) > 8 else "")
    text = f"{what}: {len(odd)} of {n} frames stand out: {listed}"
    if not isinstance(frames, HdfFrames):
        return frames, (Problem("warning", f"{text}; they spoil the mean: take them away"),)
    keep: NDArray[np.bool_] = np.ones(n, dtype=bool)
    keep[[i for i, _ in odd]] = False
    return frames.select(keep), (Problem("warning", f"{text}; left out"),)
