"""Accuracy of segment and measure on simulated cells of size `small`, gate by gate.

Takes a quarter of an hour; left out unless asked for: pytest -n 0 -s -m gates tests/test_small_gates.py
"""

import math
import shutil
import statistics
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from xctpipe.cli import main
from xctpipe.compare_labels import LabelComparison, compare_labels

pytestmark = [pytest.mark.gates, pytest.mark.timeout(3600)]

FEW = 20
"""Medians of fewer values say so."""
SCANS = {"plating": "2:7", "stripping": "2:5"}
"""P2 to P6 and S2 to S4; in earlier ones there is hardly anything."""
CELLS: dict[str, dict[int, list[str]]] = {
    "plating": {1: [], 2: [], 3: ["--crack-opening-um", "46"], 4: ["--crack-opening-um", "32"]},
    "stripping": {1: [], 2: [], 3: [], 4: []},
}
"""By seed, what is simulated otherwise: the largest opening is 39 um, 3 voxels."""

MISSED: dict[str, frozenset[str]] = {
    # a median of 0.07 for two cracks: the one 1.5 voxels wide does not show that metal fills it (10 % low)
    "plating": frozenset({"volume of cracks that hold metal"}),
    "stripping": frozenset(),
}
"""Gates that do not hold yet, by series: the test says so, and fails when one of them does."""


@dataclass(frozen=True)
class Gate:
    """A measured value, and what it must reach."""

    value: float | None
    bound: float
    least: bool
    """Whether the value must not be below the bound; else not above."""
    n: int
    """Values that it is the median of, or the worst of."""
    worst: float | None = None
    """Of the values, where it is their median."""
    most: float = math.inf
    """What a value that must not be below the bound must not exceed either."""

    @property
    def holds(self) -> bool:
        if self.value is None:
            return True
        return self.bound <= self.value <= self.most if self.least else self.value <= self.bound

    def __str__(self) -> str:
        value = "nothing to measure" if self.value is None else f"{self.value:.4g}"
        bound = f"{'>=' if self.least else '<='} {self.bound:g}"
        bound += f", <= {self.most:g}" if self.most < math.inf else ""
        worst = "" if self.worst is None else f", worst {self.worst:.4g}"
        few = " few" if self.worst is not None and self.n < FEW else ""
        return f"{value} {bound} (n = {self.n}{few}{worst}){'' if self.holds else '  MISSED'}"


@pytest.mark.parametrize("series", SCANS)
def test_gates_at_small(series: str, tmp_path: Path) -> None:
    found = [
        each
        for seed, how in CELLS[series].items()
        for each in compared(tmp_path / str(seed), ["--series", series, "--seed", str(seed), *how])
    ]
    gates = gates_of(found)
    lines = [f"  {name}: {gate}" for name, gate in gates.items()]
    sys.stdout.write("\n".join(["", series, *lines, ""]))
    missed = {name: str(gate) for name, gate in gates.items() if not gate.holds}
    assert not set(missed) - MISSED[series], missed
    assert not MISSED[series] - set(missed), "holds now: take it from the list"
    if missed:
        pytest.xfail(f"known to be missed: {missed}")


def compared(cell: Path, how: list[str]) -> list[LabelComparison]:
    """Scans of one simulated cell against their truth."""
    scans = SCANS[how[how.index("--series") + 1]]
    assert main(["simulate", "cell", str(cell), "--size", "small", "--scans", scans, *how]) == 0
    assert main(["run", str(cell / "recipe.toml"), "--stages", "reconstruct,segment,measure"]) == 0
    found = compare_labels(cell / "run", cell).done
    shutil.rmtree(cell)
    return found


Row = Mapping[str, Any]


def gates_of(found: list[LabelComparison]) -> dict[str, Gate]:
    """Values of all gates."""
    rows = [row for each in found for row in each.objects]
    cracks, bubbles = of_kind(rows, {"crack", "crack_filled"}), of_kind(rows, {"bubble"})
    voids = [row for row in cracks if row["reference_kind"] == "crack"]
    filled = [row for row in cracks if row["reference_kind"] == "crack_filled"]
    gates = {f"Dice {name}": dice(found, name, bound) for name, bound in DICE}
    gates |= {
        "crack F1 at an opening of 2 voxels and more": f1(found, cracks, (2.0, 99.0), 0.85),
        "crack F1 at an opening of 1 voxel": f1(found, cracks, (0.5, 2.0), 0.75),
        "crack volume": typical(cracks, "volume_error_frac", 0.05),
        "volume of empty cracks": typical(voids, "volume_error_frac", 0.05),
        "volume of cracks that hold metal": typical(filled, "volume_error_frac", 0.05),
        "bubble volume at a radius of 10 voxels and more": typical(
            [row for row in bubbles if row["radius_px"] >= 10], "volume_error_frac", 0.03
        ),
        "bubble volume at a radius of 4 to 10 voxels": typical(
            [row for row in bubbles if 4 <= row["radius_px"] < 10], "volume_error_frac", 0.10
        ),
        "opening": typical(cracks, "opening_error_px", 0.3),
        "depth": typical(cracks, "depth_error_px", 2.0),
        "wrong answers on percolation": wrong(found),
        "contact fraction": contact(found),
        "volumes in their interval": covered(rows),
        "cracks that are not there": Gate(only_here(rows, {"crack", "crack_filled"}), 0, False, len(found)),
        "bubbles that are not there": Gate(
            only_here(rows, {"bubble", "interfacial_void"}), 0, False, len(found)
        ),
    }
    return gates


DICE = (("nasicon", 0.98), ("nak", 0.97), ("void", 0.90))


def of_kind(rows: Iterable[Row], kinds: set[str]) -> list[Row]:
    """Objects of these kinds in the reference that are whole and were found."""
    return [
        row
        for row in rows
        if row["reference_kind"] in kinds
        and row["object"] is not None
        and not (row["truncated"] or row["cut"])
    ]


def only_here(rows: Iterable[Row], kinds: set[str]) -> int:
    return sum(row["reference_object"] is None and row["kind"] in kinds for row in rows)


def dice(found: list[LabelComparison], name: str, bound: float) -> Gate:
    """Median of all scans in which the class is, and the lowest."""
    values = [each.classes[name].dice for each in found if each.classes[name].reference_voxels]
    known = [value for value in values if value is not None]
    middle = statistics.median(known) if known else None
    return Gate(middle, bound, True, len(known), worst=min(known, default=None))


def f1(found: list[LabelComparison], cracks: list[Row], openings: tuple[float, float], bound: float) -> Gate:
    """The lowest of all scans whose crack is as wide as this."""
    wide = {
        row["scan"]
        for row in cracks
        for each in found
        if each.scan == row["scan"]
        if openings[0] <= row["reference_opening_median_um"] / each.voxel_um < openings[1]
    }
    values = [each.crack.f1 for each in found if each.scan in wide and each.crack.f1 is not None]
    return Gate(min(values, default=None), bound, True, len(values))


def typical(rows: list[Row], column: str, bound: float) -> Gate:
    """Median of absolute values, and the largest; gates ask for `FEW`, but there is one crack a scan."""
    values = [abs(row[column]) for row in rows if row[column] is not None]
    middle = statistics.median(values) if values else None
    return Gate(middle, bound, False, len(values), worst=max(values, default=None))


def wrong(found: list[LabelComparison]) -> Gate:
    return Gate(sum(each.percolates[0] != each.percolates[1] for each in found), 0, False, len(found))


def contact(found: list[LabelComparison]) -> Gate:
    """The largest difference of all scans."""
    pairs = [each.contact_frac for each in found]
    values = [abs(mine - true) for mine, true in pairs if mine is not None and true is not None]
    return Gate(max(values, default=None), 0.03, False, len(values))


def covered(rows: list[Row]) -> Gate:
    """Of cracks, bubbles, interfacial voids and pores."""
    whole = of_kind(rows, {"bubble", "interfacial_void", "crack", "crack_filled", "pore"})
    known = [row["covered"] for row in whole if row["covered"] is not None]
    return Gate(sum(known) / len(known) if known else None, 0.85, True, len(known), most=0.99)
