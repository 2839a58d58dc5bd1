"""Motion along the axis between the ends of a scan."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from xctpipe import phantom
from xctpipe.center import Opposites, opposite_frames
from xctpipe.center.motion import motion_note, rise_of
from xctpipe.scan import DoubleArray, FloatArray


@cache
def _scan_lines(seed: int) -> tuple[FloatArray, DoubleArray, float]:
    """Line integrals of a simulated scan, its angles and its axis."""
    scan, truth = phantom.simulated_scan(size="tiny", seed=seed)
    first = scan.dark_flats[0]
    assert first.darks is not None
    dark, flat = first.darks.read().mean(axis=0), first.flats.read().mean(axis=0)
    light = (scan.frames.read().astype(np.float32) - dark) / (flat - dark)
    lines = -np.log(np.clip(light, 1e-3, None)).astype(np.float32)
    return lines, scan.angles_rad, truth["center_px"]


def _opposites(
    move_px: float, *, seed: int = 1, rows: slice = slice(None), skip: int = 0
) -> tuple[Opposites, float]:
    """Opposite frames of a simulated scan whose last ten frames lie lower."""
    still, angles, center_px = _scan_lines(seed)
    lines = still.copy()
    lines[-10:] = ndimage.shift(lines[-10:], (0, move_px, 0), order=1, mode="nearest")
    lines = lines[: len(lines) - skip, rows]
    angles = angles[: len(lines)]
    chosen = opposite_frames(angles, pairs=1, per_end=8)
    found = Opposites(lines[chosen], chosen, np.arange(float(lines.shape[1])), angles, 4)
    return found, center_px


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("move_px", [-2.0, 0.0, 1.0])
def test_a_move_along_the_axis_is_measured(move_px: float, seed: int) -> None:
    opposites, center_px = _opposites(move_px, seed=seed)
    rise = rise_of(opposites, center_px=center_px)
    assert rise is not None
    assert rise.rise_px == pytest.approx(move_px, abs=0.25)
    assert abs(rise.rise_px - move_px) < 4 * rise.uncertainty_px
    said = motion_note(opposites, center_px=center_px)
    assert bool(said) == (move_px != 0)
    assert all("rows" in text for text in said)


def test_a_wrong_axis_is_no_move() -> None:
    opposites, center_px = _opposites(0.0)
    for off_px in (-1.0, 1.0):
        assert motion_note(opposites, center_px=center_px + off_px) == ()


def test_too_little_to_compare() -> None:
    opposites, center_px = _opposites(2.0, rows=slice(0, 8))
    assert rise_of(opposites, center_px=center_px) is None
    opposites, center_px = _opposites(2.0, skip=30)
    assert rise_of(opposites, center_px=center_px) is None
    opposites, _ = _opposites(2.0)
    assert rise_of(opposites, center_px=3.0) is None
    flat = Opposites(
        np.zeros_like(opposites.lines), opposites.frames, opposites.rows, opposites.angles_rad, 4
    )
    assert motion_note(flat, center_px=47.0) == ()
