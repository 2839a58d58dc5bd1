"""Accuracy of registration, tracking and growth on the simulated cell of size `small`, gate by gate.

Takes minutes; left out unless asked for: pytest -n 0 -s -m gates tests/test_series_gates.py
"""

import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from series_truth import GRAINS, f1, found_edges, matched, true_edges, true_moves

from xctpipe.cli import main
from xctpipe.csvtables import Row, read_table
from xctpipe.series.registration import pellet_points

pytestmark = [pytest.mark.gates, pytest.mark.timeout(1800)]

RATE = "dvolume_dcharge_um3_per_mah_cm2"
_RADIUS_PX, _DEPTH_PX = 150, (10, 110)


class Made:
    """A series that was simulated, run and matched with its truth."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found, self.true = (
            {path.stem: read_table(path) for path in (folder / where).glob("*.csv")}
            for where in ("run/tables", "truth")
        )
        self.names = tuple(row["scan"] for row in self.found["scans"])
        self.voxel_um = self.found["scans"][0]["pixel_um"]
        self.pairs = matched(self.found["objects"], self.true["objects"], voxel_um=self.voxel_um)

    def registration_errors_px(self) -> list[float]:
        """Of every scan but the first, root mean square over the pellet."""
        z_um = self.found["interface"][0]["z_um"]
        rows = tuple(z_um + part * self.voxel_um for part in _DEPTH_PX)
        points = pellet_points(_RADIUS_PX * self.voxel_um, rows)
        placed = {row["scan"]: row for row in self.found["registration"] if row["part"] == "pellet"}
        errors = []
        for name, true in true_moves(self.folder, self.names).items():
            row = placed[name]
            turn = [np.radians(row[key]) for key in ("rotation_deg", "tilt_y_deg", "tilt_x_deg")]
            found = type(true)(tuple(turn), tuple(row[f"d{axis}_um"] for axis in "zyx"))  # type: ignore[arg-type]
            away = np.linalg.norm(found(points) - true(points), axis=1) / self.voxel_um
            errors.append(float(np.sqrt(np.mean(away**2))))
        return errors[1:]

    def edges_f1(self) -> float:
        """Of tracks of what is no pore or inclusion; of true objects those that were detected."""
        kinds = {(row["scan"], row["object"]): row["kind"] for row in self.found["objects"]}
        true = true_edges(self.pairs, self.true["events"], self.names)
        found = found_edges(self.found["tracks"], self.found["events"], self.names)
        wanted = [{edge for edge in edges if kinds[edge[0]] not in GRAINS} for edges in (true, found)]
        return f1(*wanted)

    def events(self) -> tuple[list[str], list[str]]:
        """Scripted events that were not found, and those that were not scripted.

        A birth may be seen one scan late, when what is born has come above the limit of detection.
        """
        left = [(row["kind"], row["scan_to"]) for row in self.found["events"]]
        missed = []
        for row in self.true["events"]:
            at = self.names.index(row["scan_to"])
            late = self.names[at : at + 2] if row["kind"] == "birth" else self.names[at : at + 1]
            seen = next(((row["kind"], scan) for scan in late if (row["kind"], scan) in left), None)
            if seen is None:
                missed.append(f"{row['kind']} to {row['scan_to']}")
            else:
                left.remove(seen)
        return missed, [f"{kind} to {scan}" for kind, scan in left]

    def rates(self) -> list[tuple[Row, float, float | None]]:
        """Growth of tracks that are one true object all along, its slope over the same scans, and onset."""
        whole = {(row["scan"], row["object"]): row for row in self.true["objects"]}
        charge = {row["scan"]: row["charge_mah_cm2"] for row in self.true["scans"]}
        of_track: dict[int, set[int | None]] = {}
        for row in self.found["tracks"]:
            of_track.setdefault(row["track"], set()).add(self.pairs.get((row["scan"], row["object"])))
        onsets = {(row["track"], row["kind"]): row["onset_mah_cm2"] for row in self.true["growth"]}
        out = []
        for row in self.found["growth"]:
            true = of_track.get(row["track"], {None})
            if len(true) != 1 or None in true or row["low"] is None or row["kind"] in GRAINS:
                continue
            (number,) = true
            span = slice(self.names.index(row["scan_from"]), self.names.index(row["scan_to"]) + 1)
            seen = [whole.get((name, number)) for name in self.names[span]]
            if any(each is not None and each["truncated"] for each in seen):
                continue
            volumes = [0.0 if each is None else each["whole_volume_um3"] for each in seen]
            charges = np.array([charge[name] for name in self.names[span]])
            if np.ptp(charges) > 0:
                slope = float(np.polyfit(charges, volumes, 1)[0])
                out.append((row, slope, onsets.get((number, row["kind"]))))
        return out


@pytest.fixture(scope="module", params=["plating", "stripping", "control"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("gates") / request.param
    call = ["simulate", "cell", str(folder), "--series", request.param, "--size", "small", "--seed", "1"]
    assert main(call) == 0
    assert main(["run", str(folder / "recipe.toml")]) == 0
    return Made(folder)


def say(what: str, value: Any) -> None:
    sys.stdout.write(f"\n  {what}: {value}")


def test_registration(made: Made) -> None:
    errors = made.registration_errors_px()
    say("registration error (voxel)", [round(error, 3) for error in errors])
    assert max(errors) <= 0.1


def test_tracking(made: Made) -> None:
    score, (missed, invented) = made.edges_f1(), made.events()
    say("F1 of edges", round(score, 3))
    say("events missed, invented", (missed, invented))
    assert score >= 0.95
    assert not missed
    assert not invented


def test_growth(made: Made) -> None:
    rates = made.rates()
    held = [row["low"] <= true <= row["high"] for row, true, _ in rates]
    say("growth rates whose interval holds the truth", f"{sum(held)} of {len(held)}")
    grown = [(row, true) for row, true, _ in rates if row["growing"] and row["kind"] in ("crack", "bubble")]
    errors = [row[RATE] / true - 1 for row, true in grown]
    say("errors of growth rates of cracks and bubbles", [round(error, 4) for error in errors])
    # without charge there are no rates; else there must be some to judge
    assert bool(held) == bool(errors) == (made.folder.name != "control")
    if errors:
        assert statistics.median(map(abs, errors)) <= 0.05
    if held:
        assert sum(held) / len(held) >= 0.85
    scans = [row["charge_mah_cm2"] for row in made.true["scans"]]
    for row, _, onset in rates:
        if row["growing"] and row["kind"] in ("crack", "bubble") and onset is not None:
            near = [abs(np.array(scans) - value).argmin() for value in (row["onset_mah_cm2"], onset)]
            say(f"onset of {row['kind']} {row['track']}", (row["onset_mah_cm2"], onset))
            assert abs(int(near[0]) - int(near[1])) <= 1


def test_nothing_grows_in_control(made: Made) -> None:
    if made.folder.name != "control":
        pytest.skip("things grow")
    rows = [row for row in made.found["growth"] if row["kind"] not in GRAINS and row["time_low"] is not None]
    assert len(rows) > 5
    assert not [row for row in rows if row["growing"]]
    assert all(row["time_low"] <= 0 <= row["time_high"] for row in rows)
