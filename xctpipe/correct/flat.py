"""From raw frames to transmission and its logarithm: dark, flat, beam intensity of each frame."""

from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe.correct.threads import in_threads
from xctpipe.scan import FloatArray, RawArray, Span

DEAD_FRAC = 0.01
"""A pixel whose flat minus dark is below this part of its row's median sees no beam."""

_SATURATED_FRAC = 0.5
_BLIND_FRAC = 0.95
_WORTH_SAYING_FRAC = 0.001
_COMPILED_TYPES = ("uint8", "uint16", "float32")


@dataclass(frozen=True, eq=False)
class FlatField:
    """What turns raw rows into transmission.

    `dark` is the mean dark frame (row, col) and `flats` mean flat frames (row, col), float32. With more than
    one, frame t sees `flats[0]` plus, for each other, `weight[t]` times what it differs from `flats[0]`:
    weight is (angle,) in [0, 1] between flats before and after, (angle, flat) for patterns on the first.
    """

    dark: FloatArray
    flats: tuple[FloatArray, ...]
    weight: FloatArray | None = None

    def rows(self, rows: Span) -> "FlatField":
        """The same for the rows [r0, r1) only."""
        part = slice(*rows)
        return replace(self, dark=self.dark[part], flats=tuple(flat[part] for flat in self.flats))

    def beam(self, rows: NDArray[np.int64]) -> FloatArray:
        """Mean flat minus dark of these rows, NaN where a pixel sees no beam: (row, col)."""
        # where each frame has its own weights, all flats but the first are patterns on it
        patterns = self.weight is not None and self.weight.ndim == 2
        flats = [flat[rows] for flat in (self.flats[:1] if patterns else self.flats)]
        return _beam(np.mean(flats, axis=0, dtype=np.float32), self.dark[rows])

    def correct(self, raw: RawArray, *, gain: FloatArray | None = None) -> FloatArray:
        """Transmission of the raw frames (angle, row, col); see `flat_field`."""
        return flat_field(raw, dark=self.dark, flats=self.flats, weight=self.weight, gain=gain)


def flat_field(
    raw: RawArray,
    *,
    dark: FloatArray,
    flats: tuple[FloatArray, ...],
    weight: FloatArray | None = None,
    gain: FloatArray | None = None,
) -> FloatArray:
    """Transmission of raw frames, (P - D) / (F - D) / gain, without infinities or NaN.

    Where the beam is missing (flat minus dark not above `DEAD_FRAC` of its median along the row, in any
    flat) or the raw number is not finite, transmission is interpolated linearly along the row between the
    nearest good pixels; beyond the last good pixel it is repeated, and it is 1 in a row without any.

    Parameters
    ----------
    raw : (angle, row, col), any integer or float type.
    dark : (row, col), mean dark frame.
    flats : mean flat frames (row, col).
    weight : (angle,), 0 where the first flat holds and 1 where the second does; needed with two flats. With
        more, (angle, flat): how far each frame has gone from the first flat to each of the others.
    gain : (angle,), intensity of the beam in each frame relative to the flats; absent: 1.

    Returns
    -------
    (angle, row, col) float32 transmission.

    Raises
    ------
    ValueError
        Shapes that do not belong together.
    """
    _check_shapes(raw, dark, flats, weight, gain)
    n_angles = raw.shape[0]
    beams = [_beam(np.asarray(flat, np.float32), np.asarray(dark, np.float32)) for flat in flats]
    others = range(1, len(beams)) if len(beams) > 1 else range(1)
    slopes = np.stack([beams[i] - beams[0] for i in others])
    mix = np.zeros((n_angles, 1), np.float32) if weight is None else np.asarray(weight, np.float32)
    mix = mix.reshape(n_angles, -1)
    scale = np.ones(n_angles, np.float32) if gain is None else (1.0 / np.asarray(gain)).astype(np.float32)
    offset = np.ascontiguousarray(dark, np.float32)
    compiled = raw.dtype.newbyteorder("=") if raw.dtype.name in _COMPILED_TYPES else np.dtype(np.float32)
    out = np.empty(raw.shape, np.float32)

    def frames(first: int, last: int) -> None:
        part = slice(first, last)
        counts = np.ascontiguousarray(raw[part], compiled)
        _correct_frames(counts, offset, beams[0], slopes, mix[part], scale[part], out[part])

    in_threads(frames, n_angles, block=16)
    return out


def minus_log(transmission: FloatArray, *, floor: float = 1e-4) -> tuple[FloatArray, int]:
    """Attenuation -log(transmission), and how many pixels were below `floor` and raised to it.

    The default floor is one photon of a beam of 10^4; it gives zero and negative transmission (less
    light than the dark frame) and NaN the largest attenuation that can be measured, 9.2.
    """
    out = np.empty(transmission.shape, np.float32)
    below = np.zeros(transmission.shape[0], np.int64)
    lowest = np.float32(floor)

    def frames(first: int, last: int) -> None:
        part = slice(first, last)
        below[part] = [np.count_nonzero(~(frame >= lowest)) for frame in transmission[part]]
        np.fmax(transmission[part], lowest, out=out[part])
        np.log(out[part], out=out[part])
        np.negative(out[part], out=out[part])

    in_threads(frames, transmission.shape[0], block=16)
    return out, int(below.sum())


def check_dark_flat(
    dark: FloatArray, flat: FloatArray, *, saturation: float | None = None
) -> tuple[list[str], list[str]]:
    """What is wrong with a mean dark and a mean flat frame, in words: errors, and warnings.

    Parameters
    ----------
    dark, flat : (row, col), same shape; a dark of zeros stands for none.
    saturation : largest number that the detector can give; None where it is not known.

    Returns
    -------
    Errors, with which nothing can be reconstructed: not finite, saturated in more than half of the pixels,
    or no brighter than the dark in more than 95 %. Warnings: either in more than 0.1 % of the pixels.
    """
    if not (np.isfinite(dark).all() and np.isfinite(flat).all()):
        return ["dark or flat holds numbers that are not finite: the file is damaged"], []
    errors, warnings = [], []
    if saturation is not None:
        # half a count, because the mean of saturated frames is rounded
        full = float(np.mean(flat >= saturation - 0.5))
        text = f"flat is saturated ({saturation:g}) in {full:.1%} of its pixels"
        if full > _SATURATED_FRAC:
            errors.append(f"{text}: use flats of a shorter exposure")
        elif full > _WORTH_SAYING_FRAC:
            warnings.append(f"{text}: they are wrong wherever the sample was lit")
    blind = float(np.mean(~(flat > dark)))
    text = f"flat (mean {flat.mean():g}) is no brighter than the dark (mean {dark.mean():g}) in {blind:.1%}"
    if blind > _BLIND_FRAC:
        errors.append(f"{text} of the pixels: was the shutter closed, or are the two exchanged?")
    elif blind > _WORTH_SAYING_FRAC:
        warnings.append(f"{text} of the pixels: they are interpolated along the row")
    return errors, warnings


def _check_shapes(
    raw: RawArray,
    dark: FloatArray,
    flats: tuple[FloatArray, ...],
    weight: FloatArray | None,
    gain: FloatArray | None,
) -> None:
    if not flats or (len(flats) > 1 and weight is None):
        raise ValueError(f"{len(flats)} flats: give one, or more with their weight in each frame")
    if weight is not None and weight.size != raw.shape[0] * max(1, len(flats) - 1):
        raise ValueError(f"weight of shape {weight.shape} for {raw.shape[0]} frames and {len(flats)} flats")
    for name, frame in [("dark", dark), *(("flat", flat) for flat in flats)]:
        if frame.shape != raw.shape[1:]:
            raise ValueError(f"{name} of shape {frame.shape} for frames of {raw.shape[1:]}")
    if gain is not None and gain.shape != raw.shape[:1]:
        raise ValueError(f"gain of shape {gain.shape} for {raw.shape[0]} frames")


def _beam(flat: FloatArray, dark: FloatArray) -> FloatArray:
    """Flat minus dark, NaN where a pixel sees no beam."""
    beam: FloatArray = flat - dark
    # per row, so that the rule is the same whatever rows a slab holds
    lowest = np.maximum(DEAD_FRAC * np.nanmedian(beam, axis=1, keepdims=True), 0)
    beam[~(beam > lowest)] = np.nan
    return beam


@numba.njit(cache=True, nogil=True)
def _correct_frames(raw, dark, beam, slopes, mix, scale, out):  # type: ignore[no-untyped-def]
    n_angles, n_rows, n_cols = raw.shape
    more = slopes.shape[0] > 1
    for t in range(n_angles):
        for r in range(n_rows):
            row = out[t, r]
            for c in range(n_cols):
                light = beam[r, c] + mix[t, 0] * slopes[0, r, c]
                if more:
                    for k in range(1, slopes.shape[0]):
                        light += mix[t, k] * slopes[k, r, c]
                row[c] = (np.float32(raw[t, r, c]) - dark[r, c]) / light
                row[c] *= scale[t]
            _bridge(row)


@numba.njit(cache=True, nogil=True)
def _bridge(row):  # type: ignore[no-untyped-def]
    """Interpolate a row linearly, in place, across what is not finite."""
    n = row.size
    last = -1
    for c in range(n):
        if not np.isfinite(row[c]):
            continue
        if last < 0:
            row[:c] = row[c]
        elif c - last > 1:
            step = (row[c] - row[last]) / np.float32(c - last)
            for k in range(last + 1, c):
                row[k] = row[last] + step * np.float32(k - last)
        last = c
    row[last + 1 :] = row[last] if last >= 0 else np.float32(1)
