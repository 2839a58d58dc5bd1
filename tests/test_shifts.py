"""Frames moved back, and how far they lie off found from them: against exact projections that were moved."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from xctpipe import steps
from xctpipe.correct import jitter
from xctpipe.correct.shifts import frame_shifts
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.phantom.projector import pixel_shadows, project
from xctpipe.phantom.shapes import Cylinder, sphere


def smooth_frames(shifts_px, shape=(40, 50)):
    """Waves of 9 to 14 pixels' period, at places moved by (row, col): (frame, row, col)."""
    row, col = np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij")
    moved = [(row - down, col - right) for down, right in shifts_px]
    waves = [0.6 + 0.2 * np.sin(2 * np.pi * r / 9) * np.cos(2 * np.pi * c / 14) for r, c in moved]
    return np.array(waves, np.float32)


SHIFTS = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, -0.5], [2.3, -4.7], [-6.9, 0.31], [8.0, 8.0]])


def test_frames_come_back_to_where_they_should_be():
    got = frame_shifts(smooth_frames(SHIFTS), shifts_px=SHIFTS)
    still = smooth_frames(np.zeros_like(SHIFTS))
    inside = (slice(None), slice(10, -10), slice(10, -10))
    # cubic convolution of a wave of 9 pixels by half a pixel errs by 0.6 % of its height
    np.testing.assert_allclose(got[inside], still[inside], atol=0.2 * 0.012)


def test_a_frame_where_it_should_be_keeps_its_bits_and_whole_pixels_only_move():
    frames = np.random.default_rng(1).random((3, 20, 30)).astype(np.float32)
    got = frame_shifts(frames, shifts_px=np.array([[0.0, 0.0], [3.0, 0.0], [-2.0, 5.0]]))
    np.testing.assert_array_equal(got[0], frames[0])
    np.testing.assert_array_equal(got[1, :-3], frames[1, 3:])
    np.testing.assert_array_equal(got[2, 2:, :-5], frames[2, :-2, 5:])


def test_beyond_the_border_the_edge_goes_on():
    frames = np.random.default_rng(2).random((1, 12, 9)).astype(np.float32)
    got = frame_shifts(frames, shifts_px=np.array([[4.0, 0.0]]))
    np.testing.assert_array_equal(got[0, -4:], np.broadcast_to(frames[0, -1], (4, 9)))


def test_a_quadratic_surface_is_moved_exactly():
    """Of all cubic kernels only that with a = -1/2 does this, as Keys proves."""
    row, col = np.meshgrid(np.arange(20.0), np.arange(24.0), indexing="ij")

    def surface(r, c):
        return 0.3 + 0.02 * r - 0.001 * r**2 + 0.0015 * r * c + 0.0007 * c**2

    got = frame_shifts(surface(row, col)[None].astype(np.float32), shifts_px=np.array([[0.37, -0.81]]))
    inside = (slice(3, -3), slice(3, -3))
    np.testing.assert_allclose(got[0][inside], surface(row + 0.37, col - 0.81)[inside], rtol=3e-6)


def test_a_slab_is_its_rows_and_needs_no_more_than_its_halo():
    rng = np.random.default_rng(3)
    frames = rng.random((6, 60, 11)).astype(np.float32)
    shifts = rng.uniform(-5, 5, (6, 2))
    step = steps.bind("frame_shifts", most_px=5)
    facts = steps.Facts(frame_shape=(60, 11), shifts_px=shifts)
    whole, halo = step(frames, facts), step.halo_rows(facts)
    assert halo == 7
    for first, last in ((0, 1), (20, 27), (58, 60)):
        low, high = max(0, first - halo), min(60, last + halo)
        part = step(frames[:, low:high], facts)[:, first - low : last - low]
        np.testing.assert_array_equal(part, whole[:, first:last])


def test_it_moves_the_picture_so_the_axis_is_found_after_it():
    assert steps.get("frame_shifts").moves


@pytest.mark.parametrize(
    ("shift", "says"),
    [((8.5, 0.0), "frame 1 .* lies 8.5 rows"), ((0.0, -31.0), "-31 columns"), ((np.nan, 0.0), "nan rows")],
)
def test_a_frame_too_far_off_is_refused(shift, says):
    with pytest.raises(BadScan, match=says):
        frame_shifts(np.ones((2, 20, 30), np.float32), shifts_px=np.array([(0.0, 0.0), shift]))


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match="2 frames"):
        frame_shifts(np.ones((2, 20, 30), np.float32), shifts_px=np.zeros((3, 2)))
    with pytest.raises(BadRecipe, match="most_px"):
        steps.bind("frame_shifts", most_px=65)
    with pytest.raises(BadRecipe, match="needs shifts of the frames"):
        steps.bind("frame_shifts")(np.ones((2, 20, 30), np.float32))


@dataclass(frozen=True)
class Porous:
    """A ceramic cylinder full of pores, of 4 per cm and seen by pixels of 10 um; what else is in it."""

    radius_frac: float
    n_pores: int = 600
    rows: int = 128
    cols: int = 192
    seed: int = 0
    more: tuple[Any, ...] = field(default=())

    def shapes(self):
        rng = np.random.default_rng(self.seed)
        px = 0.01
        radius, half = self.radius_frac * self.cols * px, (self.rows / 2 + 20) * px
        yield Cylinder(0.02, -0.01, radius, -half, half, 4.0)
        for _ in range(self.n_pores):
            size = rng.uniform(1.5, 4) * px
            r, turn = (radius - size - px) * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
            place = (0.02 + r * np.cos(turn), -0.01 + r * np.sin(turn), rng.uniform(size - half, half - size))
            yield sphere(place, radius_mm=size, delta_mu_cm1=-4.0)
        yield from self.more


def seen(sample, shifts_px, angles_rad, *, photons=1e4):
    """Line integrals of a scan whose frames lie off by shifts (angle, 2): exact, then photon noise."""
    axis = ((sample.rows - 1) / 2, (sample.cols - 1) / 2 + 3)
    shadows = pixel_shadows(list(sample.shapes()), angles_rad=angles_rad, pixel_um=10.0, axis_px=axis)
    shadows[..., 0:3] += shifts_px[:, None, :1]
    shadows[..., 3] += shifts_px[:, None, 1]
    frames = np.stack([project(each, rows=(0, sample.rows), cols=(0, sample.cols)) for each in shadows])
    counts = np.random.default_rng(sample.seed + 100).poisson(photons * np.exp(-frames))
    return (-np.log(np.maximum(counts, 0.5) / photons)).astype(np.float32)


def jumping(n, *, rms_px, drift_px, seed=11):
    shifts = rms_px * np.random.default_rng(seed).standard_normal((n, 2))
    shifts[:, 0] += drift_px * np.linspace(-0.5, 0.5, n)
    return shifts


def found_in(frames, angles_rad, **more):
    blocks = [jitter.frame_sums(frames[i : i + 50]) for i in range(0, len(frames), 50)]
    return jitter.find_shifts(np.concatenate(blocks), angles_rad=angles_rad, n_cols=frames.shape[2], **more)


def off_sine(series, angles_rad):
    sine = np.stack([np.ones_like(angles_rad), np.cos(angles_rad), np.sin(angles_rad)], axis=1)
    return series - sine @ np.linalg.lstsq(sine, series, rcond=None)[0]


FULL, INTERIOR = Porous(0.42), Porous(0.75, n_pores=2000, rows=160)
ANGLES = np.linspace(0, np.pi, 180)


@dataclass(frozen=True)
class Case:
    frames: Any
    shifts_px: Any
    found: jitter.FrameShifts


@pytest.fixture(scope="module", params=[(FULL, 1.0, 3.0), (INTERIOR, 0.5, -3.0)], ids=["full", "interior"])
def case(request):
    sample, rms_px, drift_px = request.param
    shifts = jumping(ANGLES.size, rms_px=rms_px, drift_px=drift_px)
    frames = seen(sample, shifts, ANGLES)
    return Case(frames, shifts, found_in(frames, ANGLES))


def test_jitter_and_drift_along_rows_are_found(case):
    found = case.found
    assert np.std(found.shifts_px[:, 0] - case.shifts_px[:, 0]) < 0.1
    assert abs(found.shifts_px[:, 0].mean()) < 1e-4
    assert 0.02 < found.uncertainty_px[0] < 0.12
    assert "drift of" in found.notes[0]
    assert "jitter of" in found.notes[0]


def test_shifts_along_columns_are_found_where_the_whole_sample_is_seen_and_else_not_invented(case):
    found = case.found
    if case.frames.shape[1] == INTERIOR.rows:
        np.testing.assert_array_equal(found.shifts_px[:, 1], 0)
        assert np.isnan(found.uncertainty_px[1])
        assert "cannot be measured" in found.notes[1]
    else:
        assert np.std(found.shifts_px[:, 1] - off_sine(case.shifts_px[:, 1], ANGLES)) < 0.05
        assert found.uncertainty_px[1] < 0.05


def test_found_and_taken_back_gives_the_still_scan():
    """The step and the estimate mean the same by a shift."""
    some, sample = ANGLES[::3], Porous(0.42, rows=96)
    shifts = jumping(some.size, rms_px=1.0, drift_px=3.0)
    shifts[:, 1] = off_sine(shifts[:, 1], some)
    moved, still = (seen(sample, each, some, photons=1e9) for each in (shifts, 0 * shifts))
    back = -np.log(frame_shifts(np.exp(-moved), shifts_px=found_in(moved, some).shifts_px))

    def error(frames):
        smooth = [ndimage.gaussian_filter(each, (0, 1, 1))[:, 8:-8, 8:-8] for each in (frames, still)]
        return np.sqrt(np.mean((smooth[0] - smooth[1]) ** 2))

    assert error(back) < 0.1 * error(moved)


def test_flicker_and_a_beam_that_tips_do_not_move_the_centre_of_mass():
    angles = ANGLES[::3]
    shifts = jumping(angles.size, rms_px=0.7, drift_px=0.0)
    frames = seen(FULL, shifts, angles)
    rng = np.random.default_rng(4)
    place = np.linspace(-1, 1, FULL.cols)
    frames += (0.02 * rng.standard_normal((len(frames), 1, 1)) * (1 + place)).astype(np.float32)
    got = found_in(frames, angles)
    assert np.std(got.shifts_px[:, 1] - off_sine(shifts[:, 1], angles)) < 0.15


def test_a_whole_turn_with_the_axis_far_off_the_middle_is_no_different():
    angles = np.linspace(0, 2 * np.pi, 240)
    plate = Cylinder(0.0, 0.0, 0.7, -0.2, 0.15, 2.0)
    shifts = jumping(angles.size, rms_px=0.7, drift_px=3.0)
    shifts[:, 1] = 40
    got = found_in(seen(Porous(0.75, n_pores=300, more=(plate,)), shifts, angles), angles)
    assert np.std(got.shifts_px[:, 0] - shifts[:, 0]) < 0.1


@pytest.mark.parametrize("sample", [FULL, INTERIOR], ids=["full", "interior"])
def test_frames_that_stand_still_stay(sample):
    angles = ANGLES[::2]
    got = found_in(seen(sample, np.zeros((angles.size, 2)), angles), angles)
    np.testing.assert_array_equal(got.shifts_px, 0)
    assert "no drift" in got.notes[0]
    assert "no jitter" in got.notes[0]


def test_a_sample_without_detail_is_said_to_have_none():
    angles = ANGLES[::3]
    shifts = jumping(angles.size, rms_px=0.7, drift_px=3.0)
    got = found_in(seen(Porous(0.75, n_pores=0, rows=64), shifts, angles), angles)
    np.testing.assert_array_equal(got.shifts_px, 0)
    assert "too little detail" in got.notes[0]


@pytest.mark.parametrize("shape", [(8, 64, 40), (40, 30, 40)])
def test_too_few_frames_or_rows_are_said_to_be_too_few(shape):
    frames = np.random.default_rng(5).random(shape).astype(np.float32)
    got = found_in(frames, np.linspace(0, np.pi, shape[0]))
    np.testing.assert_array_equal(got.shifts_px, np.zeros((shape[0], 2)))
    assert "too few" in got.notes[0]


def test_sums_are_those_of_the_frames_whatever_the_blocks():
    frames = np.random.default_rng(6).random((9, 5, 64)).astype(np.float32)
    whole = jitter.frame_sums(frames)
    parts = np.concatenate([jitter.frame_sums(frames[:4]), jitter.frame_sums(frames[4:])])
    np.testing.assert_array_equal(parts, whole)
    place = (2 * np.arange(64) + 1) / 64 - 1
    np.testing.assert_allclose(whole[..., -4], frames.mean(axis=2), rtol=1e-5)
    np.testing.assert_allclose(whole[..., -3], (frames * place).mean(axis=2), atol=1e-6)
    np.testing.assert_allclose(
        whole[..., -2:],
        np.stack([frames[..., :2], frames[..., -2:]]).mean(axis=3).transpose(1, 2, 0),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        whole[..., 1] - jitter.frame_sums(frames[..., ::-1])[..., 1], 2 * whole[..., 1]
    )
