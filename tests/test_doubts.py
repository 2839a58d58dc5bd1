"""What the user is told to doubt of a scene."""

from dataclasses import replace

import numpy as np

from xctpipe.segment.doubts import doubts
from xctpipe.segment.scene import COLLECTOR_FACE, COUNTER_FACE, INTERFACE, Level, Scene, Surface

SHAPE, VIEW = (60, 80, 80), 30.0
HEIGHTS = {COLLECTOR_FACE: 8.0, INTERFACE: 28.0, COUNTER_FACE: 52.0}
NAK_PX = 20 * np.pi * VIEW**2
"""Voxels of the NaK in view."""


def surface(height: float, slope: float = 0.0) -> Surface:
    y, x = np.indices(SHAPE[1:]) - 39.5
    heights = np.where(np.hypot(y, x) <= VIEW, height + slope * x, np.nan)
    return Surface(heights.astype(np.float32), np.array([height, 0.0, slope]), 0.1, 0.02)


def level(mu: float) -> Level:
    return Level(mu, np.zeros(1), np.zeros(1), 0.1)


def scene() -> Scene:
    faces = {name: surface(height) for name, height in HEIGHTS.items()}
    return Scene(SHAPE, 13.0, (39.5, 39.5), VIEW, "nak", faces, level(2.33), level(0.224), 0.7)


def with_nak(**changes: float) -> Scene:
    return replace(scene(), liquid=replace(level(0.224), **changes))


def test_nothing_is_told_of_a_scan_that_is_well() -> None:
    assert doubts(scene(), void_px={}) == []
    assert doubts(with_nak(seen_frac=0.9, dark_frac=0.2), void_px={"NaK": 0.19 * NAK_PX}) == []


def test_a_level_that_little_is_known_of_is_told() -> None:
    (text,) = doubts(with_nak(seen_frac=0.42, dark_frac=0.5), void_px={"NaK": 0.5 * NAK_PX})
    assert "NaK shows in 42 % of the view" in text
    assert "compare with a scan" in text


def test_a_face_that_leaves_the_volume_is_told() -> None:
    faces = {**scene().surfaces, COUNTER_FACE: surface(57.0, slope=0.1)}
    (text,) = doubts(replace(scene(), surfaces=faces), void_px={})
    assert "NASICON/counter electrode" in text
    assert "reconstruct more rows" in text


def test_what_is_dark_and_has_no_label_is_told() -> None:
    (text,) = doubts(with_nak(dark_frac=0.2), void_px={"NaK": 0.1 * NAK_PX})
    assert "NaK misses 20.0 %" in text
    assert "are 10.0 % of it" in text
    flipped = replace(with_nak(dark_frac=0.2), up="na", surfaces={INTERFACE: surface(40.0)})
    assert doubts(flipped, void_px={"NaK": 0.1 * NAK_PX}) == [text]
