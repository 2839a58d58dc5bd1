"""Voids that lie on the interface, in made-up residuals: found wherever it lies, nothing invented."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ndtr

from xctpipe.segment import lying
from xctpipe.segment.classes import FEWEST_AT_INTERFACE
from xctpipe.segment.scene import LIQUID, SOLID

MU_SOLID, MU = 2.33, 0.224
NOISE, BLUR = 0.30, 0.7
SHAPE, ROWS_BELOW = (24, 96, 96), 8
BASE_PX, HEIGHT_PX = 4.5, 3.6
MIDDLES = [(y, x) for y in (18, 48, 78) for x in (18, 48, 78)]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def layers(phase: float) -> tuple[Floats, NDArray[np.uint8]]:
    """Heights above an interface whose lowest row of NaK lies at `phase`, and hosts."""
    above = (np.arange(SHAPE[0]) - ROWS_BELOW + phase)[:, None, None] + np.zeros(SHAPE)
    return above.astype(np.float32), np.where(above > 0, LIQUID, SOLID).astype(np.uint8)


def caps(
    phase: float, middles: Sequence[tuple[float, float]] = MIDDLES, *, fine: int = 3
) -> tuple[Floats, Mask]:
    """What caps of balls on the interface miss, blurred, and their true voxels."""
    ball = (BASE_PX**2 + HEIGHT_PX**2) / (2 * HEIGHT_PX)
    z = (np.arange(SHAPE[0] * fine) + 0.5) / fine - 0.5 - ROWS_BELOW + phase
    y, x = ((np.arange(n * fine) + 0.5) / fine - 0.5 for n in SHAPE[1:])
    body = np.zeros([n * fine for n in SHAPE], np.float32)
    for b, a in middles:
        square = (z[:, None, None] - HEIGHT_PX + ball) ** 2 + (y[:, None] - b) ** 2 + (x - a) ** 2
        body[(square < ball**2) & (z[:, None, None] > 0)] = 1
    z0, y0, x0 = SHAPE
    share = body.reshape(z0, fine, y0, fine, x0, fine).mean(axis=(1, 3, 5))
    return MU * ndimage.gaussian_filter(share, BLUR).astype(np.float32), share > 0.5


def noise(seed: int) -> Floats:
    """Noise as filtered back projection makes it: blue within a slice."""
    spectrum = np.fft.rfft2(np.random.default_rng(seed).normal(size=SHAPE), axes=(1, 2))
    frequency = np.hypot(np.fft.fftfreq(SHAPE[1])[:, None], np.fft.rfftfreq(SHAPE[2])[None])
    out = np.fft.irfft2(spectrum * np.sqrt(frequency), s=SHAPE[1:], axes=(1, 2))
    return np.asarray(NOISE * out / out.std(), np.float32)


def voids(residual: Floats, above: Floats, hosts: NDArray[np.uint8]) -> tuple[Mask, int]:
    """Voids that hold a sure voxel, and how many they are."""
    spread = lying.noise_of_columns([noise(0)], [np.full(SHAPE, LIQUID, np.uint8)])
    low, high = max(0.12 * MU, 2.5 * spread), max(0.25 * MU, 4.8 * spread)
    void, sure = lying.voids(residual, above, hosts, contrast_cm1=MU, low_cm1=low, high_cm1=high)
    labels, n = ndimage.label(void, np.ones((3, 3, 3)))
    keep = np.bincount(labels.ravel(), weights=sure.ravel(), minlength=n + 1) > 0
    keep &= np.bincount(labels.ravel()) >= FEWEST_AT_INTERFACE
    keep[0] = False
    return np.asarray(keep[labels]), int(keep.sum())


@pytest.mark.parametrize("phase", [0.2, 0.36, 0.5, 0.7, 0.95])
def test_voids_are_found_wherever_the_interface_lies_between_two_rows(phase: float) -> None:
    above, hosts = layers(phase)
    missing, truth = caps(phase)
    found, n = voids(missing + noise(1), above, hosts)
    assert n == len(MIDDLES)
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) >= 0.75
    assert found.sum() == pytest.approx(truth.sum(), rel=0.25)


def test_without_noise_the_outline_is_that_of_the_void() -> None:
    for phase in (0.2, 0.4, 0.6, 0.8):
        above, hosts = layers(phase)
        missing, truth = caps(phase)
        found, _ = voids(missing, above, hosts)
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) >= 0.9


@pytest.mark.parametrize("turn_deg", [0, 30, 45, 90, 135])
@pytest.mark.parametrize("phase", [0.2, 0.6])
def test_voids_three_voxels_apart_are_two(phase: float, turn_deg: float) -> None:
    above, hosts = layers(phase)
    away, turn = BASE_PX + 1.5, math.radians(turn_deg)
    ends = [(47.5 + s * away * math.sin(turn), 47.5 + s * away * math.cos(turn)) for s in (-1, 1)]
    for seed in (1, 2):
        assert voids(caps(phase, ends)[0] + noise(seed), above, hosts)[1] == 2


@pytest.mark.parametrize("seed", range(4))
def test_a_long_void_is_one(seed: int) -> None:
    above, hosts = layers(0.4)
    row = [(47.5, x) for x in range(34, 62, 3)]
    of_noise = voids(noise(seed), above, hosts)[1]
    assert voids(caps(0.4, row)[0] + noise(seed), above, hosts)[1] == 1 + of_noise


@pytest.mark.parametrize("seed", range(3))
def test_noise_alone_holds_nothing(seed: int) -> None:
    above, hosts = layers(0.3)
    assert voids(noise(seed), above, hosts)[1] == 0


@pytest.mark.parametrize("phase", [0.2, 0.6])
def test_the_mouth_of_a_crack_is_no_void_in_nak(phase: float) -> None:
    above, hosts = layers(phase)
    x = np.arange(SHAPE[2])
    crack = (above < 0) & (np.abs(x - 47.5) < 2)
    missing = ndimage.gaussian_filter(MU_SOLID * crack.astype(np.float32), BLUR)
    # the blur of so much reaches the NaK
    assert missing[hosts == LIQUID].max() > 0.5 * MU
    assert voids(missing + noise(4), above, hosts)[1] == 0


def test_an_interface_that_is_drawn_too_high_is_no_void() -> None:
    above, hosts = layers(0.3)
    lower = 0.2 * np.exp(-((np.hypot(*(np.indices(SHAPE[1:]) - 47.5)) / 12) ** 2))
    missing = (MU_SOLID - MU) * (ndtr(-above / BLUR) - ndtr(-(above + lower) / BLUR))
    assert lying.columns_of(missing.astype(np.float32), above, hosts).max() > 0.25 * MU
    assert voids((missing + noise(5)).astype(np.float32), above, hosts)[1] == 0


def test_means_of_columns_are_those_of_what_lies_there_and_linear() -> None:
    above, hosts = layers(0.4)
    flat = np.where((above > 0) & (above < 6), np.float32(MU), np.float32(0))
    inner = lying.columns_of(flat, above, hosts)[20:-20, 20:-20]
    # rows at 0.4, 1.4, 2.4 and 3.4 count 0.9, 1, 1 and 0.1
    weights = np.array([0.9, 1, 1, 0.1])
    assert inner == pytest.approx(MU * weights.sum() / math.sqrt(3 * (weights**2).sum()), rel=1e-4)
    assert lying.columns_of(3 * flat, above, hosts)[20:-20, 20:-20] == pytest.approx(3 * inner, rel=1e-5)
