"""A raw scan as frozen values without open handles, so that it can be sent to any worker."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numba
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
RawArray = NDArray[Any]

Span = tuple[int, int]
"""Half-open range of rows, columns or frames: first, one past the last."""

_COMPILED_TYPES = ("uint8", "uint16", "float32")
_BLOCK_BYTES = 2**25


@runtime_checkable
class Frames(Protocol):
    """A stack of detector frames that can be read a block at a time; picklable, opens files on read."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers."""

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows [r0, r1) of frames [f0, f1) (all when absent), every column, raw dtype: (frame, row, col)."""


@dataclass(frozen=True)
class ArrayFrames:
    """Frames that are in memory already."""

    data: RawArray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns."""
        n, rows, cols = self.data.shape
        return n, rows, cols

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers."""
        return self.data.dtype

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows [r0, r1) of frames [f0, f1) (all when absent)."""
        return self.data[slice(*(frames or (None,))), slice(*(rows or (None,)))]


@dataclass(frozen=True)
class CroppedFrames:
    """A window of rows and columns of other frames, optionally a subset of the frames in order."""

    source: Frames
    rows: Span
    cols: Span
    first: int = 0
    last: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns."""
        last = self.source.shape[0] if self.last is None else self.last
        return last - self.first, self.rows[1] - self.rows[0], self.cols[1] - self.cols[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers."""
        return self.source.dtype

    @property
    def whole_frames(self) -> bool:
        """Whether reading a few rows costs decoding whole frames."""
        return bool(getattr(self.source, "whole_frames", False))

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows [r0, r1) of frames [f0, f1) of the window."""
        n, height, _ = self.shape
        r0, r1 = rows or (0, height)
        f0, f1 = frames or (0, n)
        block = self.source.read(
            (self.rows[0] + r0, self.rows[0] + r1), frames=(self.first + f0, self.first + f1)
        )
        return block[:, :, slice(*self.cols)]


@dataclass(frozen=True)
class BinnedFrames:
    """Other frames with squares of `bin_px` x `bin_px` pixels averaged; what is left over at the end is cut.

    The mean, not the sum: it keeps the scale of darks, flats and their limits, and as float32 it is exact
    for 16-bit counts where `bin_px` is a power of two up to 16. A saturated pixel is hidden in it,
    so what looks for saturation must read `source`. A number that is not finite makes its square so.
    """

    source: Frames
    bin_px: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns."""
        n, rows, cols = self.source.shape
        return n, rows // self.bin_px, cols // self.bin_px

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the mean numbers."""
        return np.dtype(np.float32)

    @property
    def whole_frames(self) -> bool:
        """Whether reading a few rows costs decoding whole frames."""
        return bool(getattr(self.source, "whole_frames", False))

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        """Rows [r0, r1) of frames [f0, f1), from blocks of at most 32 MB or one frame."""
        n, height, width = self.shape
        r0, r1, _ = slice(*(rows or (None,))).indices(height)
        f0, f1, _ = slice(*(frames or (None,))).indices(n)
        out = np.empty((max(f1 - f0, 0), max(r1 - r0, 0), width), np.float32)
        used = (r0 * self.bin_px, r1 * self.bin_px)
        frame_bytes = (used[1] - used[0]) * self.source.shape[2] * self.source.dtype.itemsize
        block = max(1, _BLOCK_BYTES // max(1, frame_bytes))
        for first in range(f0, f1, block):
            last = min(first + block, f1)
            raw = self.source.read(used, frames=(first, last))
            kind = raw.dtype.newbyteorder("=") if raw.dtype.name in _COMPILED_TYPES else np.dtype(np.float64)
            _bin(np.ascontiguousarray(raw, kind), self.bin_px, out[first - f0 : last - f0])
        return out


def binned_px(position_px: float, *, bin_px: int) -> float:
    """Row or column in binned pixels of a position in the detector's own: centres are at integers in both."""
    return (position_px - (bin_px - 1) / 2) / bin_px


def unbinned_px(position_px: float, *, bin_px: int) -> float:
    """Row or column in the detector's own pixels of a position in binned ones; undoes `binned_px`."""
    return position_px * bin_px + (bin_px - 1) / 2


@numba.njit(cache=True, nogil=True)
def _bin(raw, bin_px, out):  # type: ignore[no-untyped-def]
    n_frames, n_rows, n_cols = out.shape
    total = np.empty(n_cols, np.float64)
    for t in range(n_frames):
        for r in range(n_rows):
            total[:] = 0
            for row in range(r * bin_px, (r + 1) * bin_px):
                for c in range(n_cols):
                    for col in range(c * bin_px, (c + 1) * bin_px):
                        total[c] += raw[t, row, col]
            out[t, r] = total / (bin_px * bin_px)


@dataclass(frozen=True)
class DarkFlat:
    """Dark and flat frames taken together, and when: seconds on the clock of `Scan.start_time`."""

    darks: Frames | None
    flats: Frames
    time_s: float | None = None
    origin: str = ""


@dataclass(frozen=True)
class Problem:
    """Something found in a raw scan: a `warning` is worth knowing, an `error` stops its reconstruction."""

    level: Literal["warning", "error"]
    text: str


@dataclass(frozen=True, eq=False)
class Scan:
    """One tomographic scan: projections, their measured angles, and what is needed to correct them.

    `angles_rad` has one entry per frame of `frames`; `time_s` of `dark_flats` counts
    seconds since the epoch. Energy, pixel size and exposure are None where the file does not say them.
    """

    name: str
    layout: str
    path: Path
    frames: Frames
    angles_rad: DoubleArray
    dark_flats: tuple[DarkFlat, ...] = ()
    start_time: datetime | None = None
    exposure_s: float | None = None
    interval_s: float | None = None
    """From one frame to the next, where frames carry time stamps."""
    energy_kev: float | None = None
    pixel_um: float | None = None
    log_absorption: bool = False
    files: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = field(default=())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns."""
        return self.frames.shape

    @property
    def errors(self) -> tuple[str, ...]:
        """The problems that forbid reconstruction."""
        return tuple(p.text for p in self.problems if p.level == "error")

    @property
    def warnings(self) -> tuple[str, ...]:
        """The problems worth knowing."""
        return tuple(p.text for p in self.problems if p.level == "warning")


def mean_frame(frames: Frames, *, rows: Span | None = None, block: int = 16) -> FloatArray:
    """Mean of all frames over `rows`, accumulated in float64 a few frames at a time: (row, col)."""
    n = frames.shape[0]
    total: DoubleArray | None = None
    for first in range(0, n, block):
        part = frames.read(rows, frames=(first, min(first + block, n))).sum(axis=0, dtype=np.float64)
        total = part if total is None else total + part
    if total is None:
        raise ValueError("no frames to average")
    return (total / n).astype(np.float32)
