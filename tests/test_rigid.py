"""Rigid moves: their laws, and the sense of the turn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xctpipe.series.rigid import Rigid

ANGLES = st.tuples(*[st.floats(-1.0, 1.0)] * 3)
SHIFTS = st.tuples(*[st.floats(-100.0, 100.0)] * 3)
POINTS = np.random.default_rng(1).uniform(-1000, 1000, (20, 3))


@given(ANGLES, SHIFTS)
def test_there_and_back(turn: tuple[float, ...], shift: tuple[float, ...]) -> None:
    move = Rigid(turn, shift)  # type: ignore[arg-type]
    assert move.inverse(move(POINTS)) == pytest.approx(POINTS, abs=1e-8)


@given(ANGLES, SHIFTS, ANGLES, SHIFTS)
def test_one_after_the_other(
    turn: tuple[float, ...], shift: tuple[float, ...], turn2: tuple[float, ...], shift2: tuple[float, ...]
) -> None:
    first, second = Rigid(turn, shift), Rigid(turn2, shift2)  # type: ignore[arg-type]
    assert second.after(first)(POINTS) == pytest.approx(second(first(POINTS)), abs=1e-8)


@given(ANGLES, SHIFTS)
def test_distances_stay(turn: tuple[float, ...], shift: tuple[float, ...]) -> None:
    moved = Rigid(turn, shift)(POINTS)  # type: ignore[arg-type]
    assert np.linalg.norm(np.diff(moved, axis=0), axis=1) == pytest.approx(
        np.linalg.norm(np.diff(POINTS, axis=0), axis=1)
    )


def test_a_turn_about_z_takes_x_to_y() -> None:
    assert Rigid((np.pi / 2, 0, 0), (7, 0, 0))([0, 0, 1]) == pytest.approx([7, 1, 0])


def test_a_turn_about_x_takes_y_to_z() -> None:
    assert Rigid((0, 0, np.pi / 2))([0, 1, 0]) == pytest.approx([1, 0, 0])
