"""From raw frames to transmission and its logarithm: dark, flat, beam intensity of each frame."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.correct.fused import NONE, Specks, one_pass
from xctpipe.correct.light import Light, Times
from xctpipe.correct.logarithm import LEAST, minus_log_row
from xctpipe.correct.threads import in_threads
from xctpipe.scan import FloatArray, RawArray, Span

DEAD_FRAC = 0.01
"""A pixel whose flat minus dark is below this part of its row's median sees no beam."""

FLOOR = 1e-4
"""Transmission of one photon of a beam of 10^4."""

FrameIndex = NDArray[np.integer[Any]]

_SATURATED_FRAC = 0.5
_BLIND_FRAC = 0.95
_WORTH_SAYING_FRAC = 0.001


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

    def correct(
        self,
        raw: RawArray,
        *,
        gain: FloatArray | None = None,
        frames: FrameIndex | None = None,
        specks: Specks = NONE,
    ) -> FloatArray:
        """Transmission of raw frames (frame, row, col), see `flat_field`: (angle, row, col).

        Parameters
        ----------
        raw : (frame, row, col), any integer or float type.
        gain : (frame,), intensity of the beam in each frame relative to the flats; absent: 1.
        frames : (angle,), which frames to use, ascending; absent: all.
        specks : zingers to take out in the same pass, as the step does it by itself.
        """
        return self._one_pass(raw, gain=gain, frames=frames, specks=specks)[0]

    def lines(
        self,
        raw: RawArray,
        *,
        floor: float = FLOOR,
        gain: FloatArray | None = None,
        frames: FrameIndex | None = None,
        specks: Specks = NONE,
    ) -> tuple[FloatArray, int]:
        """What `minus_log` makes of `correct`, in the same pass: line integrals, and how many were raised."""
        return self._one_pass(raw, gain=gain, frames=frames, specks=specks, floor=floor)

    def _one_pass(
        self,
        raw: RawArray,
        *,
        gain: FloatArray | None,
        frames: FrameIndex | None,
        specks: Specks,
        floor: float | None = None,
    ) -> tuple[FloatArray, int]:
        _check_shapes(raw, self, gain)
        used = _checked_frames(frames, raw.shape[0])
        return one_pass(
            raw, light=self._light(), times=self._times(used, raw.shape[0], gain), specks=specks, floor=floor
        )

    def _light(self) -> Light:
        dark = np.ascontiguousarray(self.dark, np.float32)
        beams = [_beam(np.asarray(flat, np.float32), dark) for flat in self.flats]
        slopes = np.empty((beams[0].shape[0], len(beams) - 1, beams[0].shape[1]), np.float32)
        for k, beam in enumerate(beams[1:]):
            np.subtract(beam, beams[0], out=slopes[:, k])
        return Light(dark, np.ascontiguousarray(beams[0]), slopes)

    def _times(self, used: FrameIndex, n_frames: int, gain: FloatArray | None) -> Times:
        mix = np.zeros((n_frames, 1), np.float32)
        if self.weight is not None:
            mix = np.asarray(self.weight, np.float32).reshape(n_frames, -1)
        scale = np.ones(n_frames, np.float32)
        if gain is not None:
            scale = (1.0 / np.asarray(gain)).astype(np.float32)
        return Times(used, mix[used], scale[used])


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
    return FlatField(dark, flats, weight).correct(raw, gain=gain)


def minus_log(
    transmission: FloatArray, *, floor: float = FLOOR, out: FloatArray | None = None
) -> tuple[FloatArray, int]:
    """Attenuation -log(transmission), and how many pixels were below `floor` and raised to it.

    The default floor is one photon of a beam of 10^4; it gives zero and negative transmission (less
    light than the dark frame) and NaN the largest attenuation that can be measured, 9.2. A floor below the
    least normal number of float32 is raised to that. `out`, which may be `transmission` itself, is used where
    its frames are float32 in one piece each, and else left alone.
    """
    lines = out if out is not None and _takes_frames(out) else np.empty(transmission.shape, np.float32)
    below = np.zeros(transmission.shape[0], np.int64)
    lowest = np.float32(max(floor, LEAST))

    def frames(first: int, last: int) -> None:
        for t in range(first, last):
            if lines is not transmission:
                np.copyto(lines[t], transmission[t], casting="same_kind")
            below[t] = minus_log_row(lines[t].reshape(-1), lowest)

    in_threads(frames, transmission.shape[0], block=16)
    return lines, int(below.sum())


def _takes_frames(out: FloatArray) -> bool:
    return out.dtype == np.float32 and out[:1].flags.c_contiguous and out.flags.writeable


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


def _check_shapes(raw: RawArray, field: FlatField, gain: FloatArray | None) -> None:
    flats, weight = field.flats, field.weight
    if not flats or (len(flats) > 1 and weight is None):
        raise ValueError(f"{len(flats)} flats: give one, or more with their weight in each frame")
    if weight is not None and weight.size != raw.shape[0] * max(1, len(flats) - 1):
        raise ValueError(f"weight of shape {weight.shape} for {raw.shape[0]} frames and {len(flats)} flats")
    for name, frame in [("dark", field.dark), *(("flat", flat) for flat in flats)]:
        if frame.shape != raw.shape[1:]:
            raise ValueError(f"{name} of shape {frame.shape} for frames of {raw.shape[1:]}")
    if gain is not None and gain.shape != raw.shape[:1]:
        raise ValueError(f"gain of shape {gain.shape} for {raw.shape[0]} frames")


def _checked_frames(frames: FrameIndex | None, n: int) -> FrameIndex:
    used = np.arange(n) if frames is None else np.asarray(frames)
    if used.ndim != 1 or not np.issubdtype(used.dtype, np.integer):
        raise ValueError(f"frames of shape {used.shape} and type {used.dtype}: give ascending whole numbers")
    if used.size and (used[0] < 0 or used[-1] >= n or (np.diff(used) <= 0).any()):
        raise ValueError(f"frames {used.min()} to {used.max()} of {n}: give each once, ascending")
    return used.astype(np.int64)


def _beam(flat: FloatArray, dark: FloatArray) -> FloatArray:
    """Flat minus dark, NaN where a pixel sees no beam."""
    beam: FloatArray = flat - dark
    # per row, so that the rule is the same whatever rows a slab holds
    lowest = np.maximum(DEAD_FRAC * np.nanmedian(beam, axis=1, keepdims=True), 0)
    beam[~(beam > lowest)] = np.nan
    return beam
