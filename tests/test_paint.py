"""Outlines of objects: one level for the whole, and the ridge where it gets thinner."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import erf

from xctpipe.scan import FloatArray
from xctpipe.segment.paint import RIDGE_PX, drawn

BLUR_PX = np.hypot(0.7, 1.0)
"""Of the image, and of the mean that scores are."""
SHAPE = (64, 56, 24)
CENTRE, AXES = (31.5, 27.5, 11.4), (28.0, 24.0)


def thickness(opening: float) -> NDArray[np.float64]:
    """(z, y) opening of an upright elliptic crack, which is thickest in its middle."""
    z, y = np.mgrid[: SHAPE[0], : SHAPE[1]]
    inside = 1 - ((z - CENTRE[0]) / AXES[0]) ** 2 - ((y - CENTRE[1]) / AXES[1]) ** 2
    return opening * np.sqrt(np.clip(inside, 0, None))


def score_of(opening: float) -> FloatArray:
    """Its score in closed form, as if it went on in its plane."""
    half, away = thickness(opening)[:, :, None] / 2, np.arange(SHAPE[2]) - CENTRE[2]
    width = np.sqrt(2) * BLUR_PX
    return np.asarray((erf((away + half) / width) - erf((away - half) / width)) / 2, np.float32)


def level_of(score: FloatArray, voxels: float) -> float:
    return float(np.sort(score.ravel())[-round(voxels)])


def outlined(score: FloatArray, level: float) -> NDArray[np.bool_]:
    objects = np.ones(SHAPE, np.int32)
    return drawn(objects, score, outlines=np.array([-np.inf, level], np.float32)) == 1


def test_a_crack_that_gets_thinner_is_drawn_to_where_it_is_half_a_voxel_thick() -> None:
    opening = 1.5
    score, thick = score_of(opening), thickness(opening)
    # as many voxels as it misses: 2/3 of the middle opening times the area
    level = level_of(score, 2 / 3 * opening * np.pi * AXES[0] * AXES[1])
    found = outlined(score, level)
    columns = found.any(axis=2)
    # an ellipse has a third of its area where it is thinner than 0.58 of its opening
    assert (score >= level).any(axis=2).sum() < 0.85 * columns.sum()
    seen = ndimage.binary_dilation(columns, np.ones((3, 3), bool))
    assert seen[thick >= 0.6].all()
    assert not columns[thick < 0.4].any()
    # not wider for it than the mean blurs
    away = np.abs(np.arange(SHAPE[2]) - CENTRE[2])
    assert away[found.any(axis=(0, 1))].max() < 1.5


def test_what_is_thinner_than_half_a_voxel_is_not_drawn_beyond_its_outline() -> None:
    score = score_of(0.4)
    level = level_of(score, 300)
    np.testing.assert_array_equal(outlined(score, level), score >= level)


def test_the_outline_of_a_thick_body_stays() -> None:
    width = np.sqrt(2) * BLUR_PX
    z, y, x = (np.arange(n) - c for n, c in zip(SHAPE, CENTRE, strict=True))
    away = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    score = np.asarray((1 - erf((away - 7.0) / width)) / 2, np.float32)
    found = outlined(score, 0.5)
    np.testing.assert_array_equal(found, away <= 7.0)


def test_objects_do_not_hide_each_other() -> None:
    score, objects = np.full((9, 9, 9), 0.2, np.float32), np.zeros((9, 9, 9), np.int32)
    objects[4, 4, 3], objects[4, 4, 4], objects[4, 4, 5] = 1, 2, 1
    score[4, 4, 4], score[4, 4, 5] = 0.9, 0.3
    out = drawn(objects, score, outlines=np.array([-np.inf, 0.5, 0.5], np.float32))
    # 0.2 is less than 0.7 of 0.3, of the same object; that another one has 0.9 does not matter
    assert [out[4, 4, x] for x in (3, 4, 5)] == [0, 2, 1]


def test_a_part_with_its_margin_is_drawn_like_the_whole() -> None:
    rng = np.random.default_rng(4)
    shape = (20, 17, 13)
    objects = rng.integers(0, 3, shape).astype(np.int32)
    score = rng.uniform(0, 0.6, shape).astype(np.float32)
    levels = np.array([-np.inf, 0.4, np.inf], np.float32)
    whole = drawn(objects, score, outlines=levels)
    assert (whole[(score < levels[objects])] > 0).any()
    for first in range(0, shape[0], 4):
        low = max(first - RIDGE_PX, 0)
        around = slice(low, first + 4 + RIDGE_PX)
        part = drawn(objects[around], score[around], outlines=levels)
        np.testing.assert_array_equal(part[first - low :][:4], whole[first : first + 4])
