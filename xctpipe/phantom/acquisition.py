"""How a simulated scan is taken: geometry, beam, detector and their faults."""

import math
import numbers
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from xctpipe.errors import BadRecipe, nearest
from xctpipe.scan import DoubleArray, Span

StripeKind = Literal["full", "partial", "fluctuating", "dead", "large", "blob"]
PixelType = Literal["uint8", "uint16", "float32"]
Sampling = Literal["numpy", "fast"]

_STRIPES = ("full", "partial", "fluctuating", "dead", "large", "blob")
_PIXEL_TYPES = ("uint8", "uint16", "float32")
_SAMPLINGS = ("numpy", "fast")


@dataclass(frozen=True)
class Stripe:
    """A detector fault in columns [col, col + width), on `rows` (all when absent) [1]_.

    `full`: the response is wrong by `amplitude` (a fraction of it) throughout the scan but not in the
    flats; `partial`: the same, only in the middle third of the scan; `fluctuating`: the error of each
    frame is drawn with standard deviation `amplitude`; `dead`: the pixel always reads `amplitude` of the
    open beam, in flats and darks too; `large`: where the light is below the open beam's the response is not
    linear but its power `1 + amplitude`, most in the middle of the columns, in flats too (give 10 to 30
    pixels); `blob`: dust that settled on the scintillator after the flats, an ellipse of `width` x `rows`
    pixels that changes the light by `amplitude` in its middle and by nothing at its rim.

    References
    ----------
    .. [1] Vo, Atwood, Drakopoulos, Opt. Express 26, 28396 (2018), doi:10.1364/OE.26.028396
    """

    kind: StripeKind
    col: int
    amplitude: float
    width: int = 1
    rows: Span | None = None

    def __post_init__(self) -> None:
        if self.kind not in _STRIPES:
            raise BadRecipe(f"simulate: no stripe {self.kind!r}; {nearest(str(self.kind), _STRIPES)}")
        if self.width < 1:
            raise BadRecipe(f"simulate: stripe width = {self.width}; give 1 pixel or more")
        if self.kind == "blob" and self.rows is None:
            raise BadRecipe("simulate: a blob is as high as its rows; give rows = (first, one past the last)")
        if not -1 < self.amplitude <= 10:
            raise BadRecipe(
                f"simulate: stripe amplitude = {self.amplitude}; give a fraction above -1, up to 10"
            )


_LIMITS: dict[str, tuple[float, float]] = {
    "n_angles": (2, 1e6),
    "rows": (1, 1e5),
    "cols": (2, 1e5),
    "pixel_um": (1e-3, 1e4),
    "first_deg": (-720, 720),
    "last_deg": (-720, 720),
    "speed_modulation_frac": (0, 0.5),
    "jitter_deg": (0, 1),
    "n_extra_angles": (0, 1e6),
    "exposure_s": (1e-6, 1e4),
    "open_beam_adu": (1e-6, 1e9),
    "dark_adu": (0, 1e6),
    "read_noise_adu": (0, 1e5),
    "n_flats": (1, 1e5),
    "n_darks": (0, 1e5),
    "beam_falloff_frac": (0, 0.9),
    "bands_frac": (0, 0.5),
    "bands_drift_px": (-1e3, 1e3),
    "beam_decay_frac": (0, 0.9),
    "flicker_frac": (0, 0.2),
    "response_frac": (0, 0.2),
    "blur_fwhm_px": (0, 50),
    "zingers_per_frame": (0, 1e5),
    "distance_mm": (0, 1e5),
    "roughness_um": (0, 1e3),
    "n_sub_angles": (1, 1000),
    "tail_frac": (0, 0.9),
    "tail_length_px": (0.1, 1e3),
    "electrons_per_photon": (0, 1e4),
    "tilt_deg": (-10, 10),
    "beam_from_frac": (0, 1),
    "beam_to_frac": (0, 1),
}


@dataclass(frozen=True)
class Acquisition:
    """One scan: all defaults describe a perfect instrument except for counting noise.

    Geometry: `center_px` is the column of the axis of rotation, the middle of the detector when absent.
    Measured angles run from `first_deg` to `last_deg`; `speed_modulation_frac` makes the motor's speed
    vary by that fraction over ten periods, `jitter_deg` is the standard deviation of each angle about it.
    `n_extra_angles` are recorded beyond the last frame. `lost_frames` are numbers of projections whose angle
    was recorded and whose frame was not. The axis leans by `tilt_deg` in the plane of the detector: its
    column grows with the row number, while the turning of the rows themselves is left out (at 0.1 deg, 1.7
    rows at 1000 columns from the axis). While a frame is exposed the sample
    goes on turning: `n_sub_angles` are averaged. The detector is `distance_mm` behind the sample, whose
    surfaces are rough: their height has a standard deviation of `roughness_um`, which counts where the light
    goes a distance only (`optics`).

    Signal: `open_beam_adu` above `dark_adu` is the reading of the open beam, made of `photons` photons
    per pixel; `photons` None leaves out all noise. Each photon makes `electrons_per_photon` on average, their
    number Poisson distributed (excess noise); 0: always the same. Floating point pixels are neither rounded
    nor clipped.

    Beam: `beam_falloff_frac` lost at the corners, horizontal bands of `bands_frac` that move by
    `bands_drift_px` rows from the flats before to the flats after, `beam_decay_frac` of intensity lost in the
    same time, `flicker_frac` standard deviation from frame to frame. The projections are taken from
    `beam_from_frac` to `beam_to_frac` of that time: 0 to 1 for a scan between its own flats, a part of it for
    one scan of a series with flats only before and after all.

    Detector: `response_frac` standard deviation of fixed pixel gains, Gaussian blur of `blur_fwhm_px`,
    mean number of `zingers_per_frame`, and `stripes`. `tail_frac` of the light spreads in the scintillator as
    exp(-r / `tail_length_px`) (fluorescence haze). `instrument_seed` fixes gains and bands for scans of one
    instrument, whose own seeds differ; absent: the scan's seed.

    Numbers: `sampling` says how they are made. `numpy` keeps the bytes of the first scans; `fast` draws its
    random numbers in less time and takes the mean over a row where a surface leans to 0.1 %.
    """

    n_angles: int
    rows: int
    cols: int
    pixel_um: float
    center_px: float | None = None
    first_deg: float = 0.0
    last_deg: float = 180.0
    speed_modulation_frac: float = 0.0
    jitter_deg: float = 0.0
    n_extra_angles: int = 0
    exposure_s: float = 0.2
    photons: float | None = 1e4
    open_beam_adu: float = 20000.0
    dark_adu: float = 100.0
    read_noise_adu: float = 0.0
    pixel_type: PixelType = "uint16"
    n_flats: int = 20
    n_darks: int = 20
    flats_after: bool = True
    beam_falloff_frac: float = 0.0
    bands_frac: float = 0.0
    bands_drift_px: float = 0.0
    beam_decay_frac: float = 0.0
    flicker_frac: float = 0.0
    response_frac: float = 0.0
    blur_fwhm_px: float = 0.0
    zingers_per_frame: float = 0.0
    stripes: tuple[Stripe, ...] = ()
    distance_mm: float = 0.0
    roughness_um: float = 0.0
    n_sub_angles: int = 1
    tail_frac: float = 0.0
    tail_length_px: float = 30.0
    electrons_per_photon: float = 0.0
    lost_frames: tuple[int, ...] = ()
    tilt_deg: float = 0.0
    beam_from_frac: float = 0.0
    beam_to_frac: float = 1.0
    instrument_seed: int | None = None
    sampling: Sampling = "numpy"

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            _check_between(name, getattr(self, name), limits=(low, high))
        for whole in (f.name for f in fields(self) if f.type is int):
            if not isinstance(getattr(self, whole), numbers.Integral):
                raise BadRecipe(f"simulate: {whole} = {getattr(self, whole)!r}; give a whole number")
        if self.photons is not None:
            _check_between("photons", self.photons, limits=(1, 1e12))
        _check_between("center_px", self.axis_px[1], limits=(-self.cols, 2 * self.cols))
        if self.pixel_type not in _PIXEL_TYPES:
            raise BadRecipe(
                f"simulate: no pixel_type {self.pixel_type!r}; {nearest(str(self.pixel_type), _PIXEL_TYPES)}"
            )
        if self.first_deg == self.last_deg:
            raise BadRecipe(f"simulate: first_deg = last_deg = {self.first_deg}; the scan must turn")
        self._check_lists()

    def _check_lists(self) -> None:
        if self.instrument_seed is not None and self.instrument_seed < 0:
            raise BadRecipe(f"simulate: instrument_seed = {self.instrument_seed}; give 0 or more")
        if self.sampling not in _SAMPLINGS:
            raise BadRecipe(
                f"simulate: no sampling {self.sampling!r}; {nearest(str(self.sampling), _SAMPLINGS)}"
            )
        lost = set(self.lost_frames)
        if not lost <= set(range(self.n_angles)) or self.n_angles - len(lost) < 2:
            raise BadRecipe(
                f"simulate: lost_frames = {self.lost_frames}; projections are 0 to {self.n_angles - 1}, "
                "and two must be left"
            )
        for stripe in self.stripes:
            if not 0 <= stripe.col <= self.cols - stripe.width:
                raise BadRecipe(
                    f"simulate: stripe at column {stripe.col} of width {stripe.width}; "
                    f"columns are 0 to {self.cols - 1}"
                )

    @property
    def axis_px(self) -> tuple[float, float]:
        """Row of z = 0 and column of the axis of rotation."""
        center = (self.cols - 1) / 2 if self.center_px is None else self.center_px
        return (self.rows - 1) / 2, center

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw numbers."""
        return np.dtype(self.pixel_type)


def with_changes(acquisition: Acquisition, **changes: Any) -> Acquisition:
    """The acquisition with some fields changed; BadRecipe names the nearest field for an unknown one."""
    known = {f.name: getattr(acquisition, f.name) for f in fields(acquisition)}
    for name in changes:
        if name not in known:
            raise BadRecipe(f"simulate: no parameter {name!r}; {nearest(name, known)}")
    return Acquisition(**{**known, **changes})


def measured_angles(acquisition: Acquisition, *, seed: int) -> DoubleArray:
    """Angle of each projection, and of `n_extra_angles` more, in radians."""
    n = acquisition.n_angles
    step = (acquisition.last_deg - acquisition.first_deg) / (n - 1)
    frame = np.arange(n + acquisition.n_extra_angles)
    turns = 10 * 2 * math.pi * frame / (n - 1)
    # the derivative of this sine is the modulation of the speed; it vanishes at both ends of the scan
    wobble = acquisition.speed_modulation_frac * (n - 1) / (20 * math.pi) * np.sin(turns)
    noise = np.random.default_rng(np.random.SeedSequence((seed, 0xA4617E))).standard_normal(n)
    degrees = acquisition.first_deg + step * (frame + wobble)
    degrees[1 : n - 1] += acquisition.jitter_deg * noise[1 : n - 1]
    angles: DoubleArray = np.deg2rad(degrees)
    return angles


def _check_between(name: str, value: Any, *, limits: tuple[float, float]) -> None:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (is_number and limits[0] <= value <= limits[1]):
        raise BadRecipe(f"simulate: {name} = {value!r}; give a number from {limits[0]:g} to {limits[1]:g}")
