"""The short in a cycler's history, what is none, and the curve for a picture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_charging import Line, plating_and_stripping, recipe_of, scans_at, write_csv

from xctpipe.charging import join_cycler


def _noisy(volts: Callable[[float], float], *, seed: int = 1, n: int = 2000) -> list[Line]:
    """1 mA for n lines 10 s apart, with 3 % of noise on the voltage."""
    rng = np.random.default_rng(seed)
    return [(10.0 * k, volts(10.0 * k) * float(1 + 0.03 * rng.standard_normal()), 1.0) for k in range(n)]


@pytest.mark.parametrize("seed", range(5))
def test_the_short_is_where_the_voltage_falls_for_good(tmp_path: Path, seed: int) -> None:
    write_csv(tmp_path / "c.csv", _noisy(lambda t: 0.15 + 5e-6 * t if t < 15_000 else 0.003, seed=seed))
    joined = join_cycler(recipe_of(tmp_path, file="c.csv"), scans_at(0))
    (short,) = [step for step in joined.steps if step["step"] == "short"]
    assert short["start_time_s"] == 15_000
    assert short["start_charge_mah_cm2"] == pytest.approx(15_000 * 2 / 3600, rel=1e-6)
    assert short["voltage_v"] == pytest.approx(0.003, rel=0.05)


def _heals(t: float) -> float:
    return 0.003 if 8000 <= t < 9000 else 0.15


@pytest.mark.parametrize(
    "lines",
    [
        _noisy(_heals),
        _noisy(lambda t: 0.15 * float(np.exp(-t / 4000))),
        # less current, less voltage
        [(10.0 * k, 0.2 if k < 500 else 0.01, 1.0 if k < 500 else 0.05) for k in range(1000)],
        # each reversal passes zero
        [
            (10.0 * k, 0.001 if k % 100 == 0 else 0.2 * (-1) ** (k // 100), 1.0 * (-1) ** (k // 100))
            for k in range(1000)
        ],
        plating_and_stripping(),
    ],
    ids=["heals", "relaxes slowly", "less current", "reversals", "rests"],
)
def test_what_is_no_short(tmp_path: Path, lines: list[Line]) -> None:
    write_csv(tmp_path / "c.csv", lines)
    joined = join_cycler(recipe_of(tmp_path, file="c.csv"), scans_at(0))
    assert "short" not in [step["step"] for step in joined.steps]


def test_a_short_that_one_line_shows_is_doubted(tmp_path: Path) -> None:
    lines = [(10.0 * k, 0.2, 1.0) for k in range(100)] + [(1000.0, 0.002, 1.0)]
    write_csv(tmp_path / "c.csv", lines)
    joined = join_cycler(recipe_of(tmp_path, file="c.csv"), scans_at(0))
    assert [step["step"] for step in joined.steps] == ["plating", "short"]
    assert any("taken from 1 line(s)" in text for text in joined.warnings)


def test_the_curve_is_short_and_keeps_extremes(tmp_path: Path) -> None:
    lines = [(float(k), 0.2, 1.0) for k in range(40_000)]
    lines[12_345] = (12_345.0, 4.5, 1.0)
    lines[23_456] = (23_456.0, 0.2, -7.0)
    write_csv(tmp_path / "c.csv", lines)
    curve = join_cycler(recipe_of(tmp_path, file="c.csv"), scans_at(0)).curve
    assert 1000 < len(curve) <= 5000
    assert {float(row["voltage_v"]) for row in curve} == {0.2, 4.5}
    assert {float(row["current_ma_cm2"]) for row in curve} == {2.0, -14.0}
    times = [float(row["time_s"]) for row in curve]
    assert times == sorted(times)
    assert times[-1] == 39_999
