"""The sections of a recipe, each with its keys and their defaults, which are here and nowhere else."""

import re
from datetime import datetime
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from annotated_types import Ge, Gt, Le, Len
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationInfo,
    field_validator,
    model_validator,
)

from xctpipe.scan import Span

Positive = Annotated[float, Gt(0)]


class Section(BaseModel):
    """A table of a recipe: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _only_scan_in_braces(name: str) -> None:
    for word in re.findall(r"\{[^{}]*\}", name):
        if word != "{scan}":
            raise ValueError(f"{word} is not known; only {{scan}}, the scan's name, is replaced")


def _increasing(name: str, span: Span | None) -> Span | None:
    if span is not None and not 0 <= span[0] < span[1]:
        raise ValueError(f"{name} must be [first, one past the last] with 0 <= first < last")
    return span


class Raw(Section):
    """Where the raw frames are, and what no file says of them."""

    folder: Path
    """A folder of scans, one scan's folder, or one file."""
    energy_kev: Annotated[float, Ge(1), Le(1000)]
    """Photon energy."""
    pixel_um: Annotated[float, Ge(1e-3), Le(1e4)]
    """Size of a detector pixel in the sample."""
    scans: Annotated[tuple[str, ...], Len(1)] | None = None
    """Names or globs, one per time step; absent: all that hold projections."""
    dark_flat: Annotated[tuple[str, ...], Len(1)] | None = None
    """Scans that hold darks and flats; absent: found beside or inside the data, nearest in time."""
    distance_mm: Positive | None = None
    """From the sample to the detector; steps that need it say so."""
    exposure_s: Positive | None = None
    """Exposure of a frame."""
    start_times: tuple[datetime, ...] | None = None
    """Start of each scan, with time zone; absent: from the files."""
    rows: Span | None = None
    """Detector rows to use: first, one past the last."""
    columns: Span | None = None
    """Detector columns to use: first, one past the last."""
    data: Annotated[tuple[str, ...], Len(1)] | None = None
    """Frames no layout finds: TIFF file, folder or glob, or "file.h5:/key"; {scan} is the scan's name."""
    flats: Annotated[tuple[str, ...], Len(1)] | None = None
    """Flats of any layout, named as `data`; several names are sets in order of time."""
    darks: Annotated[tuple[str, ...], Len(1)] | None = None
    """Darks of any layout, named as `data`; as many names as flats pair with them, else all are averaged."""
    angles: str | tuple[float, float] | None = None
    """A text, .csv or .npy file, "file.h5:/key", or the angles of the first and of the last frame."""
    angle_unit: Literal["deg", "rad"] | None = None
    """Unit of angles that carry none; absent: judged by their range, degrees for [first, last]."""
    camera: str | None = None
    """Which camera, where a file or folder holds several."""
    batch: Annotated[int, Ge(1)] | None = None
    """Which of several batches in one file, the first is 1; absent: the first, with a warning."""
    bin_px: Annotated[int, Ge(1), Le(16)] = 1
    """Detector pixels averaged along rows and columns."""
    log_absorption: bool = False
    """The data are line integrals already: no flat field, no logarithm."""
    follow_links_outside: bool = False
    """Follow HDF5 links that leave the folder of the file."""

    @field_validator("scans", "dark_flat", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @field_validator("data", "flats", "darks", mode="before")
    @classmethod
    def _names_are_a_list(cls, given: Any) -> Any:
        if given is None:
            return None
        names = [given] if isinstance(given, str) else given
        listed = isinstance(names, (list, tuple)) and len(names) > 0
        if not listed or not all(isinstance(name, str) and name for name in names):
            raise ValueError("give a file, a folder, a glob or file.h5:/key, or a list of them")
        for name in names:
            _only_scan_in_braces(name)
        return names

    @field_validator("angles", mode="before")
    @classmethod
    def _angles_are_a_file_or_two(cls, given: Any) -> Any:
        if given is None or isinstance(given, str):
            _only_scan_in_braces(given or "")
            return given
        numbers = list(given) if isinstance(given, (list, tuple)) else []
        usable = [isinstance(n, (int, float)) and not isinstance(n, bool) and isfinite(n) for n in numbers]
        if usable != [True, True]:
            raise ValueError("give a file, file.h5:/key, or [angle of the first frame, angle of the last]")
        if numbers[0] == numbers[1]:
            raise ValueError("the angles of the first and of the last frame are equal")
        return tuple(numbers)

    @field_validator("flats")
    @classmethod
    def _flats_come_from_one_place(
        cls, flats: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        if flats is not None and info.data.get("dark_flat") is not None:
            raise ValueError("dark_flat names flats too; leave one of them out")
        return flats

    @field_validator("rows", "columns")
    @classmethod
    def _spans_increase(cls, span: Span | None) -> Span | None:
        return _increasing("a crop", span)

    @field_validator("start_times")
    @classmethod
    def _times_are_aware(cls, times: tuple[datetime, ...] | None) -> tuple[datetime, ...] | None:
        if any(t.tzinfo is None for t in times or ()):
            raise ValueError("each start time needs its time zone, as in 2025-03-01T10:00:00-05:00")
        return times


class FlatFieldChoice(Section):
    """The flat field; it cannot be switched off."""

    dynamic: bool = False
    """Find how much each frame saw of the patterns by which the flats differ; reads all frames once."""


class Center(Section):
    """The rotation axis; an empty table finds it."""

    center_px: float | None = None
    """Column of the axis in the uncropped detector, at its middle row."""
    search_px: tuple[float, float] | None = None
    """Columns between which to search; absent: a quarter of the width on both sides of the middle."""

    @model_validator(mode="after")
    def _search_is_a_range(self) -> "Center":
        if self.search_px and not self.search_px[0] < self.search_px[1]:
            raise ValueError("search_px must be [lowest, highest]")
        return self


class Reconstruct(Section):
    """How slices are made; further keys are options of the backend."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    backend: str = "fourier"
    """A registered backend."""
    filter: str = "ramp"
    """Window on the ramp filter."""
    padding: str = "taper"
    """How rows are continued beyond the detector."""

    @property
    def options(self) -> dict[str, Any]:
        """Settings of the backend; in a checked recipe all that it has."""
        return dict(self.model_extra or {})


class Phase(Section):
    """Phase retrieval of a second volume, `mass`, from the same frames."""

    delta_beta: Positive
    """Refraction over absorption of the material of interest at the energy: 350 for NASICON at 80 keV."""


class Volume(Section):
    """How the volume is stored."""

    dtype: Literal["float32", "uint16", "uint8"] = "float32"
    """Integers are stored with a scale and an offset in the metadata."""
    range_cm1: tuple[float, float] | None = None
    """Values of the lowest and highest integer; absent: from slices reconstructed beforehand."""
    keep_bits: Literal["auto"] | Annotated[int, Ge(1), Le(23)] = "auto"
    """Mantissa bits kept of float32; auto: the rounding stays below a tenth of the voxel noise."""

    @field_validator("range_cm1")
    @classmethod
    def _range_increases(cls, span: tuple[float, float] | None) -> tuple[float, float] | None:
        if span and not span[0] < span[1]:
            raise ValueError("range_cm1 must be [lowest, highest]")
        return span


class Cell(Section):
    """What is known of the cell: a tube, and in it NaK on NASICON. What is absent is found or left out."""

    up: Literal["nak", "na"] | None = None
    """Which electrode has the lower row numbers; absent: found."""
    nak_k_wtpct: Annotated[float, Ge(0), Le(100)] = 50.0
    """Potassium in the NaK."""
    nasicon_density_g_cm3: Positive = 3.27
    electrode_area_cm2: Positive | None = None
    """That the charge is counted per."""
    bore_mm: Positive | None = None
    """Inner diameter of the tube, and outer of the filling; needed for `padding = "cylinder"`."""
    wall_mm: Annotated[float, Ge(0)] | None = None
    """Thickness of the tube's wall; needed for `padding = "cylinder"`."""
    wall_formula: str = "C19H12O3"
    """Chemical formula of the tube: PEEK."""
    wall_density_g_cm3: Positive = 1.31


class CyclerColumns(Section):
    """A word for each quantity of a cycler's file."""

    time: str | None = None
    voltage: str | None = None
    current: str | None = None
    charge: str | None = None

    def given(self) -> dict[str, str]:
        """Those that are there."""
        return self.model_dump(exclude_none=True)


class Cycler(Section):
    """The cycler's files, which are joined to the scans by absolute time."""

    file: Annotated[tuple[str, ...], Len(1)]
    """A BioLogic .mpr or .mpt file or a CSV table, or several, or globs."""
    time_zone: str | None = None
    """Of clocks that name none, as "America/New_York"; absent: that of the scans' start times."""
    clock_offset_s: float = 0.0
    """Added to the cycler's clock, where it and that of the scans differ."""
    start: datetime | None = None
    """Start of a file that counts time from its start and does not say when that was."""
    columns: CyclerColumns = CyclerColumns()
    """Names of columns; absent: the usual ones."""
    units: CyclerColumns = CyclerColumns()
    """Units of columns whose names do not tell: s min h, V mV, mA A uA, mAh Ah C, mA/cm2 mAh/cm2."""
    plating_positive: bool = True
    """Whether current is positive in the file while sodium is plated into the liquid."""
    rests_outside: bool = False
    """No current flowed before and after what the files cover."""

    @field_validator("file", mode="before")
    @classmethod
    def _one_file_is_a_list(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @field_validator("time_zone")
    @classmethod
    def _zone_is_known(cls, name: str | None) -> str | None:
        if name is not None and name not in (known := available_timezones()):
            close = get_close_matches(name, known, n=3, cutoff=0.5)
            raise ValueError(
                "no such time zone; give an IANA name as America/New_York"
                + (f"; near ones: {', '.join(close)}" if close else "")
            )
        return name


class Segment(Section):
    """How a volume is labelled."""

    level: Literal["auto"] | Annotated[int, Ge(0)] = "auto"
    """Level of the volume that is worked on; auto: the finest on which NaK and voids differ enough."""
    threshold_sigma: Positive = 6.0
    """How much a void must miss, in standard deviations of the smoothed noise."""
    seed_sigma: Positive = 9.0
    """How much some voxel of a void must miss, else it is noise."""
    crack_sigmas_px: Annotated[tuple[Positive, ...], Len(1)] = (1.0, 1.5, 2.5, 4.0)
    """Scales of the filter for plates: it answers most to cracks twice as wide."""
    min_voxels: Annotated[int, Ge(1)] = 8
    """Objects of fewer voxels are left out."""
    blind_px: Annotated[float, Ge(0)] = 1.0
    """Next to the interface nothing is called a void within this distance."""
    classifier: Path | None = None
    """A trained classifier of voxels; absent: none."""

    @model_validator(mode="after")
    def _seeds_are_above_the_threshold(self) -> "Segment":
        if self.seed_sigma < self.threshold_sigma:
            seed, low = self.seed_sigma, self.threshold_sigma
            raise ValueError(f"seed_sigma = {seed:g} must not be below threshold_sigma = {low:g}")
        return self


class Measure(Section):
    """How objects are measured."""

    mask_px: Positive = 3.0
    """How far beyond its voxels the missing attenuation of an object is added up."""
    ring_px: Positive = 4.0
    """Width of the ring around it that tells the local background."""
    repeats: tuple[tuple[str, str], ...] = ()
    """Pairs of scans that show the same state: their volumes are held against each other."""


class Compute(Section):
    """What a run may use of the machine."""

    memory_gb: Positive | None = None
    """Memory of a worker; absent: 70 % of what this process may use."""
