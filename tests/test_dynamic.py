"""Dynamic flat fields against a beam that is known in every frame."""

import numpy as np
import pytest

from xctpipe.correct.dynamic import Weigher, flat_modes
from xctpipe.correct.flat import FlatField
from xctpipe.scan import ArrayFrames

ROWS, COLS = 72, 80
DARK = np.full((ROWS, COLS), 100.0, np.float32)


def beam(shift_px):
    """A smooth beam with sharp horizontal bands that move down by `shift_px`."""
    row = np.arange(ROWS)[:, None] - shift_px
    bands = 0.04 * np.sin(row * 0.7) + 0.03 * np.cos(row * 1.9 + 1) + 0.02 * np.sin(row * 0.31)
    smooth = 1 - 0.1 * ((np.arange(COLS) - 40) / 40) ** 2
    return 8000 * (1 + bands) * smooth


def sample(n, *, layers):
    """Transmission of a disc that turns about an axis, with layers that stay where they are."""
    col = np.arange(COLS)
    height = np.where(np.abs(np.arange(ROWS) - 40) < 12, 1.0, 0.4 if layers else 1.0)
    seen = []
    for angle in np.linspace(0, np.pi, n):
        d = col - 40 - 14 * np.cos(angle)
        seen.append(np.exp(-height[:, None] * 0.06 * np.sqrt(np.clip(15**2 - d**2, 0, None))))
    return np.stack(seen)


@pytest.fixture(scope="module")
def taken():
    """Flats at shifts of the beam that differ, projections at others, with counting noise."""
    rng = np.random.default_rng(3)
    flats = np.stack([beam(s) for s in rng.uniform(-1, 1, 40)]) + DARK
    shifts = 0.9 * np.sin(np.linspace(0, 9, 30))
    return rng.poisson(flats).astype(np.uint16), shifts, rng


@pytest.mark.parametrize("layers", [False, True])
def test_bands_that_move_leave_no_trace(taken, layers) -> None:
    flats, shifts, rng = taken
    truth = sample(shifts.size, layers=layers)
    light = np.stack([beam(s) for s in shifts])
    raw = (rng.poisson(light * truth) + DARK).astype(np.uint16)
    modes = flat_modes([ArrayFrames(flats[:20]), ArrayFrames(flats[20:])], dark=DARK)
    assert 1 <= modes.count <= 4
    weigher = Weigher.of(modes, dark=DARK)
    weight = np.stack([weigher.weights(frame) for frame in raw]).astype(np.float32)
    dynamic = FlatField(DARK, (modes.mean + DARK, *(modes.mean + DARK + p for p in modes.patterns)), weight)
    plain = FlatField(DARK, (flats.mean(axis=0, dtype=np.float32),))

    def bands_left(field):
        error = np.log(field.correct(raw) / truth)
        # the mean along rows is what bands leave; noise hardly matters there
        rows = error.mean(axis=2)
        return float((rows - rows.mean(axis=1, keepdims=True)).std())

    assert bands_left(dynamic) < 0.25 * bands_left(plain)


def test_flats_that_differ_by_noise_have_no_modes(taken) -> None:
    rng = taken[2]
    flats = (rng.poisson(np.broadcast_to(beam(0), (30, ROWS, COLS))) + 100).astype(np.uint16)
    assert flat_modes([ArrayFrames(flats)], dark=DARK).count == 0


def test_intensity_is_no_mode(taken) -> None:
    rng = taken[2]
    bright = beam(0) * rng.uniform(0.9, 1.1, 30)[:, None, None]
    assert flat_modes([ArrayFrames((rng.poisson(bright) + 100).astype(np.uint16))], dark=DARK).count == 0


def test_few_flats_have_no_modes(taken) -> None:
    assert flat_modes([ArrayFrames(taken[0][:3])], dark=DARK).count == 0
