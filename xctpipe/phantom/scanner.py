"""Simulated scans: frames made on demand, each pixel from its own place in seeded random streams."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numba
import numpy as np
from scipy import ndimage

from xctpipe.errors import BadRecipe
from xctpipe.phantom.acquisition import Acquisition, Stripe, measured_angles
from xctpipe.phantom.cell import Sample
from xctpipe.phantom.projector import pixel_shadows, project
from xctpipe.scan import DarkFlat, DoubleArray, FloatArray, RawArray, Scan, Span

FrameKind = Literal["projection", "dark_before", "flat_before", "dark_after", "flat_after"]

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)

_GAP_S = 20.0
_FWHM_PER_SIGMA = math.sqrt(8 * math.log(2))
_KINDS: dict[str, int] = {
    "projection": 1,
    "dark_before": 2,
    "flat_before": 3,
    "dark_after": 4,
    "flat_after": 5,
}
_RESPONSE, _BANDS, _READING, _COUNTING, _ZINGERS, _FLICKER, _FLUCTUATION = range(7)

# Rows share a random stream in bands of this many, so that a block of rows needs no more than its bands.
_BAND_ROWS = 16


def _stream(seed: int, purpose: int, *, kind: int = 0, frame: int = 0, row: int = 0) -> np.random.Generator:
    # always five words: SeedSequence takes a missing one for a zero
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, purpose, kind, frame, row))))


@dataclass(frozen=True)
class SimulatedFrames:
    """Frames of one kind; any block of rows and frames reads the same bytes in any order, by any thread."""

    sample: Sample
    acquisition: Acquisition
    kind: FrameKind
    seed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns."""
        a = self.acquisition
        n = a.n_angles if self.kind == "projection" else a.n_darks if "dark" in self.kind else a.n_flats
        return n, a.rows, a.cols

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers."""
        return self.acquisition.dtype

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows [r0, r1) of frames [f0, f1), computed with `numba.get_num_threads()` threads."""
        n, height, cols = self.shape
        r0, r1, _ = slice(*(rows or (None,))).indices(height)
        f0, f1, _ = slice(*(frames or (None,))).indices(n)
        out = np.empty((max(f1 - f0, 0), max(r1 - r0, 0), cols), self.dtype)
        if not out.size:
            return out
        bands = (r0 // _BAND_ROWS * _BAND_ROWS, min(-(-r1 // _BAND_ROWS) * _BAND_ROWS, height))
        expose = _Exposure(self, rows=bands, frames=(f0, f1))

        def fill(i: int) -> None:
            out[i] = expose(f0 + i)[r0 - bands[0] : r1 - bands[0]]

        _for_each(fill, len(out))
        return out


def _for_each(work: Callable[[int], None], n: int) -> None:
    threads = min(n, numba.get_num_threads())
    if threads == 1:
        for i in range(n):
            work(i)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(n)))


class _Exposure:
    """What the frames of one read share, for whole bands of rows."""

    def __init__(self, source: SimulatedFrames, *, rows: Span, frames: Span) -> None:
        a = source.acquisition
        self.source, self.rows, self.first = source, rows, frames[0]
        self.sigma_px = a.blur_fwhm_px / _FWHM_PER_SIGMA
        self.halo = math.ceil(4 * self.sigma_px)
        self.response = 1 + a.response_frac * self._normal(_RESPONSE, kind=0, frame=0)
        bands = _stream(source.seed, _BANDS)
        self.band_waves = bands.uniform(8, 40, 4), bands.uniform(0, 2 * math.pi, 4), bands.uniform(0.5, 1, 4)
        self.shadows: DoubleArray | None = None
        if source.kind == "projection":
            angles = measured_angles(a, seed=source.seed)[slice(*frames)]
            self.shadows = pixel_shadows(
                source.sample.shapes, angles_rad=angles, pixel_um=a.pixel_um, axis_px=a.axis_px
            )

    def __call__(self, frame: int) -> RawArray:
        source, a = self.source, self.source.acquisition
        signal = np.zeros((self.rows[1] - self.rows[0], a.cols))
        if "dark" not in source.kind:
            light = self._light(frame) * self.response
            signal = a.open_beam_adu * self._counted(light, frame)
        if source.kind == "projection":
            signal *= self._gain_errors(frame)
        signal = self._with_dead(signal) + a.dark_adu
        if a.photons is not None and a.read_noise_adu:
            signal += a.read_noise_adu * self._normal(_READING, kind=_KINDS[source.kind], frame=frame)
        self._add_zingers(signal, frame)
        return _digitised(signal, a.dtype)

    def _light(self, frame: int) -> DoubleArray:
        """Light on the detector, in fractions of the open beam, blurred with what lies beyond its edges."""
        a, h = self.source.acquisition, self.halo
        rows, cols = (self.rows[0] - h, self.rows[1] + h), (-h, a.cols + h)
        light = self._beam(frame, rows=rows, cols=cols)
        if self.shadows is not None:
            light = light * np.exp(-project(self.shadows[frame - self.first], rows=rows, cols=cols))
        if h:
            light = ndimage.gaussian_filter(light, self.sigma_px, radius=h)[h:-h, h:-h]
        return light

    def _beam(self, frame: int, *, rows: Span, cols: Span) -> DoubleArray:
        a, source = self.source.acquisition, self.source
        clock = {"flat_before": 0.0, "flat_after": 1.0}.get(source.kind, frame / max(source.shape[0] - 1, 1))
        row = np.arange(*rows, dtype=np.float64)[:, None]
        col = np.arange(*cols, dtype=np.float64)[None, :]
        corner = ((row / max(a.rows - 1, 1) - 0.5) ** 2 + (col / (a.cols - 1) - 0.5) ** 2) / 0.5
        periods, phases, sizes = self.band_waves
        moved = row[..., None] - a.bands_drift_px * clock
        bands = (sizes * np.sin(2 * math.pi * moved / periods + phases)).sum(-1) / sizes.sum()
        flicker = _stream(source.seed, _FLICKER, kind=_KINDS[source.kind], frame=frame).standard_normal()
        strength = (1 - a.beam_decay_frac * clock) * (1 + a.flicker_frac * flicker)
        beam: DoubleArray = strength * (1 - a.beam_falloff_frac * corner) * (1 + a.bands_frac * bands)
        return beam

    def _counted(self, light: DoubleArray, frame: int) -> DoubleArray:
        a, source = self.source.acquisition, self.source
        if a.photons is None:
            return light
        counts = np.empty_like(light)
        for first in range(0, len(light), _BAND_ROWS):
            band = slice(first, first + _BAND_ROWS)
            rng = _stream(
                source.seed, _COUNTING, kind=_KINDS[source.kind], frame=frame, row=self.rows[0] + first
            )
            counts[band] = rng.poisson(a.photons * np.maximum(light[band], 0))
        return counts / a.photons

    def _normal(self, purpose: int, *, kind: int, frame: int) -> DoubleArray:
        out = np.empty((self.rows[1] - self.rows[0], self.source.acquisition.cols))
        for first in range(0, len(out), _BAND_ROWS):
            band = slice(first, first + _BAND_ROWS)
            rng = _stream(self.source.seed, purpose, kind=kind, frame=frame, row=self.rows[0] + first)
            out[band] = rng.standard_normal(out[band].shape)
        return out

    def _gain_errors(self, frame: int) -> DoubleArray:
        a, source = self.source.acquisition, self.source
        gain = np.ones((self.rows[1] - self.rows[0], a.cols))
        for i, stripe in enumerate(a.stripes):
            error = stripe.amplitude
            if stripe.kind == "dead" or (stripe.kind == "partial" and frame not in partial_frames(a)):
                continue
            if stripe.kind == "fluctuating":
                error *= _stream(source.seed, _FLUCTUATION, kind=i, frame=frame).standard_normal()
            gain[self._window(stripe)] *= 1 + error
        return gain

    def _with_dead(self, signal: DoubleArray) -> DoubleArray:
        a = self.source.acquisition
        for stripe in a.stripes:
            if stripe.kind == "dead":
                signal[self._window(stripe)] = stripe.amplitude * a.open_beam_adu
        return signal

    def _window(self, stripe: Stripe) -> tuple[slice, slice]:
        r0, r1 = stripe.rows or (0, self.source.acquisition.rows)
        rows = slice(max(r0 - self.rows[0], 0), max(r1 - self.rows[0], 0))
        return rows, slice(stripe.col, stripe.col + stripe.width)

    def _add_zingers(self, signal: DoubleArray, frame: int) -> None:
        a, source = self.source.acquisition, self.source
        if not a.zingers_per_frame:
            return
        rng = _stream(source.seed, _ZINGERS, kind=_KINDS[source.kind], frame=frame)
        for _ in range(rng.poisson(a.zingers_per_frame)):
            row, col, size = rng.integers(0, (a.rows, a.cols, 3))
            top = max(row - self.rows[0], 0)
            bottom = max(row + size + 1 - self.rows[0], 0)
            signal[top:bottom, col : col + size + 1] += a.open_beam_adu * rng.uniform(0.5, 5.0)


def partial_frames(acquisition: Acquisition) -> range:
    """Projections in which a `partial` stripe shows: the middle third."""
    return range(acquisition.n_angles // 3, 2 * acquisition.n_angles // 3)


def _digitised(signal: DoubleArray, dtype: np.dtype[Any]) -> RawArray:
    if dtype.kind == "f":
        return signal.astype(dtype)
    return np.clip(np.rint(signal), 0, np.iinfo(dtype).max).astype(dtype)


def simulate(sample: Sample, *, acquisition: Acquisition, seed: int = 0, name: str = "simulated") -> Scan:
    """Scan of a sample; the frames are computed when read, the same for the same seed.

    It is the line integral, not the intensity, that is averaged over a pixel, so that -ln of noise-free
    unblurred transmission is linear in the sample. Then come the beam, the blur, the pixel gains, counting,
    stripe faults, dead pixels, read noise, zingers, rounding and saturation, in this order.
    """
    if seed < 0:
        raise BadRecipe(f"simulate: seed = {seed}; give 0 or more")

    def frames(kind: FrameKind) -> SimulatedFrames:
        return SimulatedFrames(sample, acquisition, kind, seed)

    def dark_flat(when: Literal["before", "after"], time_s: float) -> DarkFlat:
        darks = frames("dark_before" if when == "before" else "dark_after") if acquisition.n_darks else None
        return DarkFlat(darks, frames("flat_before" if when == "before" else "flat_after"), time_s, when)

    start_s = START.timestamp()
    end_s = start_s + acquisition.n_angles * acquisition.exposure_s
    sets = [dark_flat("before", start_s - _GAP_S)]
    if acquisition.flats_after:
        sets.append(dark_flat("after", end_s + _GAP_S))
    return Scan(
        name=name,
        layout="simulated",
        path=Path(name),
        frames=frames("projection"),
        angles_rad=measured_angles(acquisition, seed=seed),
        dark_flats=tuple(sets),
        start_time=START,
        exposure_s=acquisition.exposure_s,
        energy_kev=sample.energy_kev,
        pixel_um=acquisition.pixel_um,
    )


def exact_line_integrals(sample: Sample, *, acquisition: Acquisition, angles_rad: DoubleArray) -> FloatArray:
    """Pixel means of the line integrals -ln T, free of noise, blur and faults: (angle, row, col)."""
    shadows = pixel_shadows(
        sample.shapes, angles_rad=angles_rad, pixel_um=acquisition.pixel_um, axis_px=acquisition.axis_px
    )
    rows, cols = (0, acquisition.rows), (0, acquisition.cols)
    out = np.empty((len(angles_rad), acquisition.rows, acquisition.cols), np.float32)

    def fill(i: int) -> None:
        out[i] = project(shadows[i], rows=rows, cols=cols)

    _for_each(fill, len(out))
    return out
