"""A case: what we do, what others do for the same result, and what came out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from xctpipe.bench.scene import Scene

Call = Callable[[Scene, Any], Any]
"""Work on the rows of a scene; the second argument is what the part before, or the preparation, returned."""


def nothing(scene: Scene, value: Any) -> Any:
    """No preparation."""
    return value


@dataclass(frozen=True)
class Part:
    """A call of another program's; `one_core` where it uses one however many there are."""

    call: Call
    one_core: bool = True


@dataclass(frozen=True)
class Peer:
    """Another program that does the same: its parts in order, and how many rows it is given at once.

    `before` is not timed.
    """

    name: str
    parts: tuple[Part, ...]
    rows: int = 1
    before: Call = nothing
    error: Callable[[], float] | None = None


@dataclass(frozen=True)
class Quoted:
    """Seconds a unit that were measured elsewhere, where the program is not installed here."""

    name: str
    seconds: float
    where: str


@dataclass(frozen=True)
class Case:
    """Something that is timed.

    `voxels` are those of one unit, for the rate. `rows` fixes how many rows of the scene we are given;
    otherwise it is one where that is slow, else all. A call does `units`, as many as rows where that is not
    said. `before` is not timed.
    """

    name: str
    ours: Call
    voxels: int
    peers: Sequence[Peer] = ()
    quoted: Sequence[Quoted] = ()
    unit: str = "slice"
    rows: int | None = None
    units: int | None = None
    before: Call = nothing
    error: Callable[[], float] | None = None
    unavailable: str | None = None
    """Why it cannot be done here."""


@dataclass(frozen=True)
class Figure:
    """A number that is no comparison of times."""

    name: str
    value: float
    unit: str
    note: str = ""


@dataclass
class PeerResult:
    """Seconds a unit of calls in turn: ours, theirs, ours, theirs, ..., ours.

    Parts of theirs that use one core are counted as if they ran on all.
    """

    name: str
    ours_s: list[float] = field(default_factory=list)
    theirs_s: list[float] = field(default_factory=list)
    cores_used: float | None = None
    error: float | None = None
    failed: str | None = None
    quoted: str | None = None

    @property
    def ratios(self) -> list[float]:
        """How many times as long they take as we do, on the mean of before and after."""
        return [theirs / fmean(self.ours_s[i : i + 2]) for i, theirs in enumerate(self.theirs_s)]

    def as_json(self) -> dict[str, Any]:
        """All pairs, and their ratio."""
        found = self.ratios
        spread = {"median": median(found), "low": min(found), "high": max(found)} if found else None
        return {**vars(self), "ratio": spread}


@dataclass
class CaseResult:
    """What came out of a case."""

    group: str
    name: str
    unit: str
    rows: int = 0
    ours_s: list[float] = field(default_factory=list)
    """Seconds a unit, of every call."""
    rate: float | None = None
    """Million voxels a second and core."""
    error: float | None = None
    peers: list[PeerResult] = field(default_factory=list)
    unavailable: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For the record."""
        return {**vars(self), "peers": [peer.as_json() for peer in self.peers]}


@dataclass
class Report:
    """A whole run: where, with what, and all that was found."""

    about: Mapping[str, Any]
    cases: list[CaseResult] = field(default_factory=list)
    figures: list[tuple[str, Figure]] = field(default_factory=list)
    """Each with the title of its group."""

    def as_json(self) -> dict[str, Any]:
        """For the record."""
        return {
            **self.about,
            "cases": [case.as_json() for case in self.cases],
            "figures": [{"group": group, **vars(figure)} for group, figure in self.figures],
        }
