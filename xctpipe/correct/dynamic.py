"""Flat fields that change while the sample is in the beam: their modes, and how much of each a frame saw.

The flats that were taken differ by a few patterns: a monochromator that warms up moves bands of the beam,
a vibration shakes them. Those patterns are the principal components of the flats [1]_; how much of each
is in a projection shows where the projection, divided by the mean flat, still has their edges.

References
----------
.. [1] Van Nieuwenhove et al., Opt. Express 23, 27975 (2015), doi:10.1364/OE.23.027975
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xctpipe.scan import DoubleArray, FloatArray, Frames, RawArray

MOST_MODES = 4
MOST_PIXELS = 512
"""Rows and columns to which frames are averaged before they are compared."""
STANDS_OUT = 2.0
"""A component is the beam's, not noise, when its variance is so many times that of the middle one."""
_REWEIGHTINGS = 8
_FRAMES_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Modes:
    """A mean flat without dark (row, col), and the patterns (mode, row, col) by which flats differ from it.

    A mode is as large as its root mean square weight in the flats that were taken: weights are about 1.
    """

    mean: FloatArray
    patterns: FloatArray

    @property
    def count(self) -> int:
        """Number of modes."""
        return int(self.patterns.shape[0])


def flat_modes(stacks: Sequence[Frames], *, dark: FloatArray, most: int = MOST_MODES) -> Modes:
    """Modes of the beam from all flat frames that were taken, read a few at a time, twice.

    Each flat is divided by its own mean first: intensity is no pattern. Components are kept while their
    variance stands `STANDS_OUT` times out of the middle one, which is that of noise.

    Parameters
    ----------
    stacks : sets of flat frames (frame, row, col).
    dark : (row, col), mean dark frame.
    most : number of modes that are never exceeded.
    """
    n = sum(stack.shape[0] for stack in stacks)
    total = np.zeros(dark.shape, np.float64)
    small = []
    for flat in _even_flats(stacks, dark=dark):
        total += flat
        small.append(_small(flat))
    mean = (total / n).astype(np.float32)
    around = np.stack(small) - np.mean(small, axis=0)
    gram = np.einsum("irc,jrc->ij", around, around, optimize=True)
    variance, vectors = np.linalg.eigh(gram)
    order = np.argsort(variance)[::-1][: min(most, max(0, n // 4))]
    kept = [k for k in order if variance[k] > STANDS_OUT * np.median(variance[1:])] if n > 4 else []
    patterns = np.zeros((len(kept), *dark.shape), np.float32)
    for i, flat in enumerate(_even_flats(stacks, dark=dark)):
        for pattern, k in zip(patterns, kept, strict=True):
            pattern += np.float32(vectors[i, k] / np.sqrt(n)) * (flat - mean)
    return Modes(mean, patterns)


def _even_flats(stacks: Sequence[Frames], *, dark: FloatArray) -> Iterator[FloatArray]:
    """Flats without dark, each with a mean of that of the first."""
    level = 0.0
    for stack in stacks:
        for first in range(0, stack.shape[0], _FRAMES_AT_ONCE):
            last = min(first + _FRAMES_AT_ONCE, stack.shape[0])
            for frame in stack.read(frames=(first, last)):
                flat = frame.astype(np.float32) - dark
                level = level or float(flat.mean(dtype=np.float64))
                yield flat * np.float32(level / max(float(flat.mean(dtype=np.float64)), 1e-9))


def _small(frame: FloatArray) -> FloatArray:
    """A frame averaged to at most `MOST_PIXELS` rows and columns."""
    by_row, by_col = (-(-size // MOST_PIXELS) for size in frame.shape)
    rows, cols = frame.shape[0] // by_row, frame.shape[1] // by_col
    blocks = frame[: rows * by_row, : cols * by_col].reshape(rows, by_row, cols, by_col)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


@dataclass(frozen=True, eq=False)
class Weigher:
    """Finds how much of each mode is in a frame; made once for a scan."""

    log_mean: FloatArray
    slopes: FloatArray
    """(mode, gradient), edges that each mode leaves in the logarithm of a frame divided by the mean flat."""
    dark: FloatArray

    @classmethod
    def of(cls, modes: Modes, *, dark: FloatArray) -> "Weigher":
        """For frames with this dark, (row, col)."""
        small = np.maximum(_small(modes.mean), np.float32(1e-6))
        relative = [np.asarray(_small(pattern) / small, np.float32) for pattern in modes.patterns]
        return cls(np.log(small), np.stack([_gradient(each) for each in relative]), _small(dark))

    def weights(self, frame: RawArray) -> DoubleArray:
        """Weight of each mode in one raw frame (row, col), by least absolute gradient.

        Least squares again and again with weights that make them least absolute deviations: edges of the
        sample are few and large, and do not draw the answer as they draw least squares.
        """
        beam = np.maximum(_small(frame.astype(np.float32)) - self.dark, np.float32(1e-6))
        edges = _gradient(_whole(np.log(beam) - self.log_mean))
        a, b = self.slopes.astype(np.float64), edges.astype(np.float64)
        found = np.asarray(np.linalg.lstsq(a @ a.T, a @ b, rcond=None)[0], np.float64)
        smallest = max(float(np.median(np.abs(b))), 1e-9) * 0.1
        for _ in range(_REWEIGHTINGS):
            weighted = a / np.maximum(np.abs(b - found @ a), smallest)
            found = np.asarray(np.linalg.lstsq(weighted @ a.T, weighted @ b, rcond=None)[0], np.float64)
        return found


def _whole(image: FloatArray) -> FloatArray:
    """The image, its median where it is not finite."""
    good = np.isfinite(image)
    if good.all():
        return image
    return np.where(good, image, np.median(image[good]) if good.any() else np.float32(0))


def _gradient(image: FloatArray) -> FloatArray:
    """Steps along rows and columns of a slightly smoothed image, without its border."""
    smooth = ndimage.gaussian_filter(image, 1.0)
    down, right = np.diff(smooth, axis=0)[1:-1, 1:-1], np.diff(smooth, axis=1)[1:-1, 1:-1]
    return np.concatenate([down.ravel(), right.ravel()])
