"""Volumes of cracks with propagation in the phantom and phase retrieval in the correction, over seeds.

`small` is too coarse to carry fringes, so that a small cell is judged: `tiny` at 2.6 um and 100 mm. Takes
a quarter of an hour; left out unless asked for: pytest -n 0 -s -m gates tests/test_phase_gates.py
"""

import shutil
import sys
from pathlib import Path

import pytest
from test_small_gates import Gate, of_kind, typical

from xctpipe.cli import main
from xctpipe.compare_labels import LabelComparison, compare_labels

pytestmark = [pytest.mark.gates, pytest.mark.timeout(7200)]

SEEDS = range(5, 9)
"""Others than those with which the method was made."""
HOW = ["--size", "tiny", "--scale-um", "2.6", "--distance-mm", "100", "--scans", "2:7"]
MISSED = frozenset(
    {
        # metal in cracks of 1.5 voxels reads as void, and retrieval leaves a fifth of it blurred
        "volume of cracks that hold metal",
    }
)
"""Gates that do not hold yet."""


def test_crack_volumes_after_phase_retrieval(tmp_path: Path) -> None:
    found = [each for seed in SEEDS for each in compared(tmp_path / str(seed), seed)]
    gates = gates_of(found)
    sys.stdout.write("\n".join(["", *(f"  {name}: {gate}" for name, gate in gates.items()), ""]))
    missed = {name: str(gate) for name, gate in gates.items() if not gate.holds}
    assert not set(missed) - MISSED, missed
    if missed:
        pytest.xfail(f"known to be missed: {missed}")


def compared(cell: Path, seed: int) -> list[LabelComparison]:
    """Scans of one simulated cell against their truth."""
    assert main(["simulate", "cell", str(cell), "--seed", str(seed), *HOW]) == 0
    recipe = cell / "recipe.toml"
    # on so small a view fringes hide which electrode is which
    recipe.write_text(recipe.read_text().replace("[cell]", '[cell]\nup = "nak"'))
    assert main(["run", str(recipe), "--stages", "reconstruct,segment,measure"]) == 0
    found = compare_labels(cell / "run", cell).done
    shutil.rmtree(cell)
    return found


def gates_of(found: list[LabelComparison]) -> dict[str, Gate]:
    """Values of all gates; a crack that is not found counts as wholly wrong."""
    rows = [
        {**row, "volume_error_frac": 1.0 if row["object"] is None else row["volume_error_frac"]}
        for each in found
        for row in each.objects
        if row["reference_kind"] in {"crack", "crack_filled"}
    ]
    voids = [row for row in rows if row["reference_kind"] == "crack"]
    filled = [row for row in rows if row["reference_kind"] == "crack_filled"]
    return {
        "volume of empty cracks": typical(voids, "volume_error_frac", 0.10),
        "volume of cracks that hold metal": typical(filled, "volume_error_frac", 0.10),
        "volume of all cracks": typical(rows, "volume_error_frac", 0.10),
        "opening of empty cracks": typical(
            of_kind((row for each in found for row in each.objects), {"crack"}), "opening_error_px", 0.3
        ),
    }
