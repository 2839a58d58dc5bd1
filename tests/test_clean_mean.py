"""Means of darks and flats, which zingers must not reach."""

import numpy as np
import pytest

from xctpipe import phantom
from xctpipe.scan import ArrayFrames, mean_frame
from xctpipe.survey import before_and_after
from xctpipe.survey.clean_mean import mean_without_zingers

N = 20


def flats(rng: np.random.Generator, *, n: int = N, level: float = 9000.0) -> np.ndarray:
    return rng.poisson(level, (n, 24, 40)).astype(np.uint16)


def test_a_zinger_leaves_the_mean_of_the_other_frames() -> None:
    frames = flats(np.random.default_rng(1))
    hit, wanted = frames.copy(), mean_frame(ArrayFrames(frames))
    for frame, row, col in ((0, 3, 7), (11, 3, 8), (19, 20, 0)):
        hit[frame, row, col] *= 4
        wanted[row, col] = np.delete(frames[:, row, col], frame).mean()
    np.testing.assert_allclose(mean_without_zingers(ArrayFrames(hit)), wanted, rtol=1e-6)
    # what the plain mean would make of it
    assert mean_frame(ArrayFrames(hit))[3, 7] > 1.1 * wanted[3, 7]


@pytest.mark.parametrize("n", [1, 4, 5, 33])
def test_without_zingers_it_is_the_mean_bit_for_bit(n: int) -> None:
    rng = np.random.default_rng(2)
    # the beam flickers, and so does a pixel of its own
    frames = (flats(rng, n=n) * rng.normal(1, 0.02, (n, 1, 1))).astype(np.uint16)
    frames[:, 5, 5] = rng.integers(0, 60_000, n)
    np.testing.assert_array_equal(mean_without_zingers(ArrayFrames(frames)), mean_frame(ArrayFrames(frames)))


def test_columns_without_light_and_floats() -> None:
    frames = flats(np.random.default_rng(3)).astype(np.float32)
    frames[:, :, 12:15] = 0
    frames[4, 6, 13] = 20_000
    mean = mean_without_zingers(ArrayFrames(frames))
    assert not mean[:, 12:15].any()
    np.testing.assert_allclose(mean, np.delete(frames, 4, axis=0).mean(axis=0), rtol=0.02)


def test_no_flat_of_a_simulated_scan_keeps_a_zinger() -> None:
    shown = {"size": "tiny", "seed": 6, "n_angles": 3}
    with_them, without = (
        before_and_after(phantom.simulated_scan(**shown, zingers_per_frame=rate)[0]) for rate in (0.5, 0.0)
    )
    for mine, clean in zip(with_them, without, strict=True):
        truth = mean_frame(clean.flats)
        assert np.abs(mean_frame(mine.flats) / truth - 1).max() > 0.04
        assert np.abs(mean_without_zingers(mine.flats) / truth - 1).max() < 0.01
