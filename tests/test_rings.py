"""Strength of rings, against rings that were put in."""

import numpy as np
import pytest

from xctpipe.rings import ring_strength

WIDTH, N_SLICES, NOISE = 200, 4, 0.5


def rings_of(strength: float, seed: int) -> np.ndarray:
    """Slices with rings one voxel wide, of normal strength, different above and below."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:WIDTH, :WIDTH] - (WIDTH - 1) / 2
    radius, side = np.hypot(y, x).astype(int), (y > 0).astype(int)
    profiles = rng.normal(0, strength, (N_SLICES, 2, radius.max() + 1))
    return np.stack([each[side, radius] for each in profiles]).astype(np.float32)


def halves(rings: np.ndarray, *, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    body = 2.0 + 0.2 * np.cos(np.mgrid[:WIDTH, :WIDTH][1] / 40)
    first, second = (rng.normal(body, NOISE, rings.shape) + rings for _ in range(2))
    return first.astype(np.float32), second.astype(np.float32)


@pytest.mark.parametrize("strength", [0.05, 0.2, 1.0])
def test_the_strength_of_rings_is_found_in_noise(strength: float) -> None:
    assert ring_strength(*halves(rings_of(strength, 1))) == pytest.approx(strength, rel=0.1, abs=0.01)


def test_without_rings_there_is_nothing() -> None:
    assert ring_strength(*halves(np.zeros((N_SLICES, WIDTH, WIDTH), np.float32))) < 0.02


def test_the_strength_scales_with_the_unit() -> None:
    first, second = halves(rings_of(0.2, 2))
    assert ring_strength(3 * first, 3 * second) == pytest.approx(3 * ring_strength(first, second))
