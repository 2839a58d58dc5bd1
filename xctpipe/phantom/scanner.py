"""Simulated scans: frames made on demand, each pixel from its own place in seeded random streams.

Limits of the model: one energy and a parallel beam; nothing scatters; the size of the source is part of the
blur; the blur is the same all over the detector; the axis leans in the plane of the detector only; the
sample neither moves nor changes during a scan.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import numba
import numpy as np

from xctpipe.errors import BadRecipe
from xctpipe.phantom.acquisition import Acquisition, Stripe, measured_angles
from xctpipe.phantom.cell import Sample
from xctpipe.phantom.counting import poisson
from xctpipe.phantom.faults import beam_clock, counted, recorded_frames, response
from xctpipe.phantom.light import BAND_ROWS, LightPath
from xctpipe.phantom.optics import fine_grid
from xctpipe.phantom.projector import project
from xctpipe.scan import DarkFlat, DoubleArray, FloatArray, RawArray, Scan, Span

_Made = TypeVar("_Made")
FrameKind = Literal["projection", "dark_before", "flat_before", "dark_after", "flat_after"]

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)

_GAP_S = 20.0
_KINDS: dict[str, int] = {
    "projection": 1,
    "dark_before": 2,
    "flat_before": 3,
    "dark_after": 4,
    "flat_after": 5,
}
_RESPONSE, _BANDS, _READING, _COUNTING, _ZINGERS, _FLICKER, _FLUCTUATION = range(7)


def _stream(
    seed: int, purpose: int, *, kind: int = 0, frame: int = 0, row: int = 0, fast: bool = False
) -> np.random.Generator:
    # always five words: SeedSequence takes a missing one for a zero
    words = np.random.SeedSequence((seed, purpose, kind, frame, row))
    return np.random.Generator(np.random.SFC64(words) if fast else np.random.Philox(words))


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
        if self.kind == "projection":
            return a.n_angles - len(set(a.lost_frames)), a.rows, a.cols
        return a.n_darks if "dark" in self.kind else a.n_flats, a.rows, a.cols

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers."""
        return self.acquisition.dtype

    @property
    def numbers(self) -> list[int]:
        """Which frame of the scan each is; those between are lost."""
        if self.kind == "projection":
            return [int(number) for number in recorded_frames(self.acquisition)]
        return list(range(self.shape[0]))

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows [r0, r1) of frames [f0, f1), computed with `numba.get_num_threads()` threads."""
        n, height, cols = self.shape
        r0, r1, _ = slice(*(rows or (None,))).indices(height)
        f0, f1, _ = slice(*(frames or (None,))).indices(n)
        out = np.empty((max(f1 - f0, 0), max(r1 - r0, 0), cols), self.dtype)
        if not out.size:
            return out
        path = LightPath(self.sample if self.kind == "projection" else None, acquisition=self.acquisition)
        numbers = self.numbers[f0:f1]
        blocks = path.blocks((r0, r1))
        exposures = _for_each(lambda i: _Exposure(self, path=path, block=blocks[i]), len(blocks))

        def fill(task: int) -> None:
            i, j = divmod(task, len(out))
            top, bottom = max(r0, blocks[i][0]), min(r1, blocks[i][1])
            signal = exposures[i](numbers[j])
            out[j, top - r0 : bottom - r0] = signal[top - blocks[i][0] : bottom - blocks[i][0]]

        _for_each(fill, len(blocks) * len(out))
        return out


def _for_each(work: Callable[[int], _Made], n: int) -> list[_Made]:
    threads = min(n, numba.get_num_threads())
    if threads == 1:
        return [work(i) for i in range(n)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, range(n)))


class _Exposure:
    """What the frames of one read share, for the rows of the detector in one block."""

    def __init__(self, source: SimulatedFrames, *, path: LightPath, block: Span) -> None:
        a = source.acquisition
        self.source, self.path, self.block = source, path, block
        self.rows = (block[0], min(block[1], a.rows))
        self.instrument = source.seed if a.instrument_seed is None else a.instrument_seed
        self.response = 1 + a.response_frac * self._normal(_RESPONSE, seed=self.instrument)
        bands = _stream(self.instrument, _BANDS)
        self.band_waves = bands.uniform(8, 40, 4), bands.uniform(0, 2 * math.pi, 4), bands.uniform(0.5, 1, 4)
        self.falloff: DoubleArray | None = None
        self.angles_rad = measured_angles(a, seed=source.seed)

    def __call__(self, frame: int) -> RawArray:
        source, a = self.source, self.source.acquisition
        signal = np.zeros((self.rows[1] - self.rows[0], a.cols))
        is_projection = source.kind == "projection"
        if "dark" not in source.kind:
            light = self._light(frame) * self.response
            signal = a.open_beam_adu * self._counted(light, frame)
            signal = response(signal, acquisition=a, rows=self.rows, projection=is_projection)
        if is_projection:
            signal *= self._gain_errors(frame)
        signal = self._with_dead(signal) + a.dark_adu
        if a.photons is not None and a.read_noise_adu:
            noise = self._normal(_READING, seed=source.seed, kind=_KINDS[source.kind], frame=frame)
            signal += a.read_noise_adu * noise
        self._add_zingers(signal, frame)
        return _digitised(signal, a.dtype)

    def _light(self, frame: int) -> DoubleArray:
        """Light on the detector, in fractions of the open beam, blurred with what lies beyond its edges."""
        a = self.source.acquisition
        angles = np.empty(0)
        if self.source.kind == "projection":
            n = a.n_sub_angles
            step = math.radians(a.last_deg - a.first_deg) / (a.n_angles - 1)
            angles = self.angles_rad[frame] + step * ((np.arange(n) + 0.5) / n - 0.5)
        # where rows are cut by Fourier blocks, the last one reaches beyond the detector
        rows = self.rows if self.path.is_local else self.block
        light = self.path.light(lambda r, c: self._beam(frame, rows=r, cols=c), angles_rad=angles, rows=rows)
        return light[: self.rows[1] - self.rows[0]]

    def _beam(self, frame: int, *, rows: Span, cols: Span) -> DoubleArray:
        a, source = self.source.acquisition, self.source
        clock = {"flat_before": 0.0, "flat_after": 1.0}.get(source.kind)
        if clock is None:
            clock = beam_clock(a, frame / max(a.n_angles - 1, 1))
        row = np.arange(*rows, dtype=np.float64)[:, None]
        periods, phases, sizes = self.band_waves
        moved = row[..., None] - a.bands_drift_px * clock
        bands = (sizes * np.sin(2 * math.pi * moved / periods + phases)).sum(-1) / sizes.sum()
        flicker = _stream(source.seed, _FLICKER, kind=_KINDS[source.kind], frame=frame).standard_normal()
        strength = (1 - a.beam_decay_frac * clock) * (1 + a.flicker_frac * flicker)
        beam: DoubleArray = strength * self._falloff(rows, cols) * (1 + a.bands_frac * bands)
        return beam

    def _falloff(self, rows: Span, cols: Span) -> DoubleArray:
        if self.falloff is None:
            # the same for all frames; two threads that make it at once make the same
            a = self.source.acquisition
            row = np.arange(*rows, dtype=np.float64)[:, None] / max(a.rows - 1, 1) - 0.5
            col = np.arange(*cols, dtype=np.float64)[None, :] / (a.cols - 1) - 0.5
            self.falloff = 1 - a.beam_falloff_frac * ((row**2 + col**2) / 0.5)
        return self.falloff

    def _counted(self, light: DoubleArray, frame: int) -> DoubleArray:
        a, source = self.source.acquisition, self.source
        if a.photons is None:
            return light
        counts = np.empty_like(light)
        for first in range(0, len(light), BAND_ROWS):
            band = slice(first, first + BAND_ROWS)
            rng = self._rng(_COUNTING, seed=source.seed, kind=_KINDS[source.kind], frame=frame, first=first)
            counts[band] = (
                _fast_counted(light[band], a, rng)
                if self._fast
                else counted(light[band], acquisition=a, rng=rng)
            )
        return counts

    def _normal(self, purpose: int, *, seed: int, kind: int = 0, frame: int = 0) -> DoubleArray:
        out = np.empty((self.rows[1] - self.rows[0], self.source.acquisition.cols))
        for first in range(0, len(out), BAND_ROWS):
            band = out[first : first + BAND_ROWS]
            self._rng(purpose, seed=seed, kind=kind, frame=frame, first=first).standard_normal(out=band)
        return out

    @property
    def _fast(self) -> bool:
        return self.source.acquisition.sampling == "fast"

    def _rng(self, purpose: int, *, seed: int, kind: int, frame: int, first: int) -> np.random.Generator:
        return _stream(seed, purpose, kind=kind, frame=frame, row=self.rows[0] + first, fast=self._fast)

    def _gain_errors(self, frame: int) -> DoubleArray:
        a, source = self.source.acquisition, self.source
        gain = np.ones((self.rows[1] - self.rows[0], a.cols))
        for i, stripe in enumerate(a.stripes):
            error = stripe.amplitude
            if stripe.kind in {"dead", "large", "blob"}:
                continue
            if stripe.kind == "partial" and frame not in partial_frames(a):
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


def _fast_counted(light: DoubleArray, a: Acquisition, rng: np.random.Generator) -> DoubleArray:
    photons = poisson((a.photons or 0) * light, rng=rng)
    if a.electrons_per_photon:
        photons = poisson(a.electrons_per_photon * photons, rng=rng) / a.electrons_per_photon
    return photons / (a.photons or 1)


def partial_frames(acquisition: Acquisition) -> range:
    """Projections in which a `partial` stripe shows: the middle third."""
    return range(acquisition.n_angles // 3, 2 * acquisition.n_angles // 3)


def _digitised(signal: DoubleArray, dtype: np.dtype[Any]) -> RawArray:
    if dtype.kind == "f":
        return signal.astype(dtype)
    return np.clip(np.rint(signal), 0, np.iinfo(dtype).max).astype(dtype)


def simulate(sample: Sample, *, acquisition: Acquisition, seed: int = 0, name: str = "simulated") -> Scan:
    """Scan of a sample; the frames are computed when read, the same for the same seed.

    Without propagation it is the line integral, not the intensity, that is averaged over a pixel, so that -ln
    of noise-free unblurred transmission is linear in the sample. Propagation comes first, then the mean over
    the angles of a frame, the beam, the blur, the haze, the pixel gains, counting, uneven response and dust,
    stripe faults, dead pixels, read noise, zingers, rounding and saturation, in this order.
    """
    if seed < 0:
        raise BadRecipe(f"simulate: seed = {seed}; give 0 or more")
    if acquisition.distance_mm:
        # refused here rather than at the first frame
        fine_grid(sample, acquisition=acquisition)

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
    a, rows, cols = acquisition, (0, acquisition.rows), (0, acquisition.cols)
    out = np.empty((len(angles_rad), a.rows, a.cols), np.float32)

    def fill(i: int) -> None:
        shadows = sample.table.shadows_px(angles_rad[i : i + 1], pixel_um=a.pixel_um, axis_px=a.axis_px)[0]
        out[i] = project(shadows, rows=rows, cols=cols, fine=a.sampling == "fast")

    _for_each(fill, len(out))
    return out
