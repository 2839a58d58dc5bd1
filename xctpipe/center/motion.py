"""Whether the sample moved along the axis, or grew, between the ends of a half turn.

Seen from the back a parallel projection is its own mirror image. A sample that has moved sideways looks like
one with another axis; one that has moved along the axis does not, and neither does one that has changed.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xctpipe.center.registration import Opposites
from xctpipe.scan import DoubleArray, FloatArray

OPPOSITE_RAD = 0.02
"""Frames further from half a turn apart are no pair."""
SMOOTH_PX = 1.5
LEAST_ROWS, LEAST_COLUMNS = 24, 24
MOST_PIXELS = 2**18
# neighbouring pixels share what is left over, and more of it is sample than noise
_ALIKE_PIXELS = 30.0
MOVED_PX, MOVED_SIGMAS = 0.5, 5.0


@dataclass(frozen=True)
class Rise:
    """How far the later frame of a pair lies below the earlier one, in rows of the detector."""

    rise_px: float
    uncertainty_px: float

    @property
    def is_sure(self) -> bool:
        """Whether it is worth a warning."""
        return abs(self.rise_px) > max(MOVED_PX, MOVED_SIGMAS * self.uncertainty_px)


def rise_of(opposites: Opposites, *, center_px: float) -> Rise | None:
    """The shift along the axis between two opposite frames; None where there is no such pair to compare.

    The difference of a frame and the mirror image of its opposite is fitted by what a small shift, a wrong
    axis, its tilt and a beam of other brightness would make of it.

    Parameters
    ----------
    opposites : line integrals of frames around both ends of half turns.
    center_px : column of the axis in these frames.
    """
    early, late = _pair(opposites, center_px=center_px)
    if early is None or late is None:
        return None
    mean: DoubleArray = (early + late) / 2
    down, across = (np.asarray(np.gradient(mean, axis=axis)) for axis in (0, 1))
    z, x = (
        axis.astype(np.float64)
        for axis in np.meshgrid(*(np.linspace(-1, 1, n) for n in mean.shape), indexing="ij")
    )
    causes = (down, across, across * z, np.ones_like(mean), z, x, mean)
    margin = (slice(3, -3),) * 2
    thin = max(1, mean.size // MOST_PIXELS)
    basis = np.stack([cause[margin].ravel()[::thin] for cause in causes], axis=-1)
    change = (early - late)[margin].ravel()[::thin]
    solved = np.linalg.lstsq(basis, change, rcond=None)
    found, rank = np.asarray(solved[0]), solved[2]
    if rank < len(causes):
        return None
    left = change - basis @ found
    inverse = np.linalg.inv(basis.T @ basis)
    bin_rows = float(opposites.rows[1] - opposites.rows[0])
    sigma = float(np.sqrt(inverse[0, 0] * left.var() * _ALIKE_PIXELS))
    return Rise(float(found[0]) * bin_rows, sigma * bin_rows)


def motion_note(opposites: Opposites, *, center_px: float) -> tuple[str, ...]:
    """What to say of a sample that moved while it was scanned; nothing where it did not."""
    rise = rise_of(opposites, center_px=center_px)
    if rise is None or not rise.is_sure:
        return ()
    return (
        f"opposite frames differ by {rise.rise_px:+.2f} rows ({rise.uncertainty_px:.2f} uncertain): the "
        "sample moved along the axis, or changed, while it was scanned; slices are blurred by as much",
    )


def _pair(opposites: Opposites, *, center_px: float) -> tuple[DoubleArray | None, DoubleArray | None]:
    """The two frames best half a turn apart, in the columns that both show; the later one mirrored."""
    angles = np.asarray(opposites.angles_rad)[opposites.frames]
    off_rad = np.abs(np.abs(angles[None, :] - angles[:, None]) - np.pi)
    first, last = sorted(int(i) for i in np.unravel_index(int(np.argmin(off_rad)), off_rad.shape))
    _, n_rows, n_cols = opposites.lines.shape
    reach = int(min(center_px, n_cols - 1 - center_px)) - 1
    if off_rad[first, last] > OPPOSITE_RAD or n_rows < LEAST_ROWS or 2 * reach < LEAST_COLUMNS:
        return None, None
    columns = np.arange(int(np.ceil(center_px)) - reach, int(center_px) + reach + 1)
    mirrored = np.minimum(2 * center_px - columns, n_cols - 1.001)
    return (
        _smooth(opposites.lines[first], columns.astype(np.float64)),
        _smooth(opposites.lines[last], mirrored),
    )


def _smooth(frame: FloatArray, columns: DoubleArray) -> DoubleArray:
    """A frame at these columns, between them linearly, smoothed."""
    low = np.floor(columns).astype(np.intp)
    part = columns - low
    high = np.minimum(low + 1, frame.shape[1] - 1)
    lines = frame.astype(np.float64)
    at: DoubleArray = ndimage.gaussian_filter(lines[:, low] * (1 - part) + lines[:, high] * part, SMOOTH_PX)
    return at
