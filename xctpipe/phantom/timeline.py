"""What a simulated series is made of: objects, events and time steps, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from xctpipe.phantom.acquisition import Acquisition
from xctpipe.phantom.cell import Sample

FIRST_SCAN = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
"""Start of the first scan of every series."""


@dataclass(frozen=True)
class TrueObject:
    """One thing of one scan, as it lies in the view; columns as those of the measured table `objects`.

    Where it is `truncated`, volume and position are those of the part inside the view; `area_um2` is that
    of one face of a crack, of the footprint of an interfacial void, and of the whole surface of any other
    whole object (NaN where there is no closed form). Openings are NaN for what is no crack. `z_um` is
    counted from the centre of detector row 0, `y_um` and `x_um` from the axis of rotation; `depth_um` is
    the reach below the undeformed NaK/NASICON interface, 0 for what lies above it.
    """

    object: int
    kind: str
    volume_um3: float
    whole_volume_um3: float
    area_um2: float
    opening_median_um: float
    opening_max_um: float
    depth_um: float
    z_um: float
    y_um: float
    x_um: float
    truncated: bool = False
    percolates: bool = False
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrueEvent:
    """What happens to objects between two scans.

    Kinds: `birth`, `death`, `merge` (the merged object last), `split` (the one that splits first), `fill`
    (a crack takes up metal), `chip` (a detached piece lifts), `shrink`, `percolate`.
    """

    kind: str
    scan_from: str
    scan_to: str
    objects: tuple[int, ...]


@dataclass(frozen=True)
class TimeStep:
    """One scan of a series.

    `time_s` is the start of the scan as a POSIX time; `charge_mah_cm2` what has passed until then, the
    integral of the current's absolute value; `current_ma_cm2` flowed until the scan began, positive while
    sodium is plated into the liquid, and `voltage_v` was the cell's then. `whole_um3` holds the volumes of
    what the chamber holds in view or not, which no drift of the stack changes. The stack has turned by
    `rotation_deg` about the axis of rotation and then moved by `shift_px` (z, y, x) since the first scan of
    the series: x' = x cos t - y sin t + dx, y' = x sin t + y cos t + dy.
    """

    name: str
    index: int
    time_s: float
    charge_mah_cm2: float
    current_ma_cm2: float
    voltage_v: float
    sample: Sample
    acquisition: Acquisition
    objects: tuple[TrueObject, ...]
    interface: Mapping[str, float]
    phases_um3: Mapping[str, float]
    percolates: bool
    shift_px: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation_deg: float = 0.0
    whole_um3: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CyclerRow:
    """One line of the synthetic cycler's file.

    `time_s` is a POSIX time, `charge_mah_cm2` the integral of the current from the first line on; both, and
    the voltage over that at rest, are positive while sodium is plated into the liquid, negative while it is
    stripped.
    """

    time_s: float
    voltage_v: float
    current_ma: float
    charge_mah_cm2: float


@dataclass(frozen=True)
class Series:
    """A cell scanned again and again: `plating`, `stripping` or `control`."""

    kind: str
    size: str
    seed: int
    steps: tuple[TimeStep, ...]
    events: tuple[TrueEvent, ...]
    electrode_area_cm2: float
    cycler: tuple[CyclerRow, ...] = ()
    settings: Mapping[str, float] = field(default_factory=dict)
