"""The rotation axis of full turns, also near the edge of the view, and the second opinion of half turns."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from test_center import HALF_TURN_RAD, MIXED, interior_slab, measured, sinogram

from xctpipe import phantom
from xctpipe.center import find_center
from xctpipe.center.phase_correlation import phase_curves
from xctpipe.center.registration import slab_differences
from xctpipe.center.turn import full_search_px, opposite_pairs
from xctpipe.scan import ArrayFrames
from xctpipe.survey import CenterChoice, make_survey

MU_PER_WIDTH = 0.42
ROWS = 5


def turn(n, *, start=0.1, inclusive=False):
    return start + np.arange(n) * 2 * np.pi / (n - inclusive)


def wide_row(*, width, rng, wobble_px):
    """Discs (x, y, radius, mu): a cell 1.5 views wide, off the axis by `wobble_px`, and pores all over it."""
    mu = MU_PER_WIDTH / width
    discs = [(wobble_px, -0.5 * wobble_px, 0.75 * width, 2 * mu)]
    for _ in range(50):
        r, phi = 0.65 * width * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        discs.append((r * np.cos(phi), r * np.sin(phi), rng.uniform(0.01, 0.04) * width, -2 * mu))
    return discs


def wide_slab(center_px, *, width, angles_rad, seed=0, wobble_px=2.0, **faults):
    rng = np.random.default_rng(seed)
    sinos = [
        measured(
            sinogram(
                wide_row(width=width, rng=rng, wobble_px=wobble_px),
                angles_rad=angles_rad,
                width=width,
                center_px=center_px,
            ),
            rng=rng,
            **faults,
        )
        for _ in range(ROWS)
    ]
    return np.stack(sinos, axis=1)


def find(slab, angles, **wishes):
    return find_center(slab, angles_rad=angles, rows=np.arange(slab.shape[1]) * 12.0, **wishes)


COUNTS = [(360, False), (361, False), (361, True)]


@pytest.mark.parametrize(
    ("width", "at_frac", "n", "inclusive"),
    [
        *((96, at_frac, *count) for at_frac in (0.75, 0.88, 0.12) for count in COUNTS),
        *((320, at_frac, *count) for at_frac, count in zip((0.75, 0.88, 0.12), COUNTS, strict=True)),
    ],
)
def test_offset_scan_with_noise_stripes_and_zingers(width, at_frac, n, inclusive):
    truth = at_frac * width + 0.37
    angles = turn(n, inclusive=inclusive)
    result = find(wide_slab(truth, width=width, angles_rad=angles, seed=n + width), angles)
    assert result.center_px == pytest.approx(truth, abs=0.25)
    assert abs(result.center_px - truth) < 4 * result.uncertainty_px
    assert result.confidence > 0.5
    assert result.warnings == ()
    nearest = min(truth, width - 1 - truth)
    assert result.overlap_px == pytest.approx(2 * nearest + 1, abs=0.5)


@pytest.mark.parametrize(
    "angles",
    [
        turn(400)[::-1],
        turn(400, start=300.0),
        np.sort(np.random.default_rng(2).uniform(0, 2 * np.pi, 500)),
        np.radians(np.arange(0, 352, 0.8)),
        turn(800, start=0.0) * 2,
    ],
    ids=["backwards", "turns later", "uneven", "350 degrees", "two turns"],
)
def test_offset_scan_with_any_angles(angles):
    truth = 84.1
    result = find(wide_slab(truth, width=96, angles_rad=angles, seed=4), angles)
    assert result.center_px == pytest.approx(truth, abs=0.25)
    assert result.confidence > 0.5


@pytest.mark.parametrize("offset_px", [0.0, 0.3, -7.25])
def test_centred_turn_by_all_methods(offset_px):
    truth, angles = 47.5 + offset_px, turn(361, inclusive=True)
    result = find(wide_slab(truth, width=96, angles_rad=angles, seed=9), angles)
    assert result.center_px == pytest.approx(truth, abs=0.1)
    assert result.confidence > 0.9
    assert {"turn", "registration", "sharpness"} <= set(result.methods)
    assert not result.warnings


def test_half_turn_has_no_overlap_and_no_turn():
    slab, rows = interior_slab(127.0, kinds=MIXED)
    result = find_center(slab, angles_rad=HALF_TURN_RAD, rows=rows)
    assert result.overlap_px is None
    assert "turn" not in result.methods


@pytest.mark.parametrize("wobble_px", [0.5, 15.0])
def test_rim_of_a_round_sample_is_no_axis(wobble_px):
    # the rim is as strong as all pores together, and nearly its own mirror image wherever it is seen
    truth, angles = 282.6, turn(361)
    slab = wide_slab(truth, width=320, angles_rad=angles, wobble_px=wobble_px, photons=1e3)
    result = find(slab, angles)
    assert result.center_px == pytest.approx(truth, abs=0.25)
    assert result.confidence > 0.5


def test_static_pattern_is_no_axis_and_changes_nothing():
    truth, angles, width = 84.3, turn(360), 96
    clean = wide_slab(truth, width=width, angles_rad=angles, stripe_frac=0, zinger_frac=0, photons=1e6)
    half = np.random.default_rng(1).normal(0, 0.2, width // 2)
    mirrored = np.concatenate([half, half[::-1]])  # about the middle of the detector
    first, second = find(clean, angles), find((clean + mirrored).astype(np.float32), angles)
    assert first.center_px == pytest.approx(truth, abs=0.1)
    assert second.center_px == pytest.approx(first.center_px, abs=0.02)


@pytest.mark.parametrize("truth", [-20.0, 103.0, 150.0])
def test_axis_outside_the_view_is_said(truth):
    angles = turn(360)
    result = find(wide_slab(truth, width=96, angles_rad=angles, seed=3), angles)
    assert result.confidence < 0.4
    assert result.overlap_px is None
    assert any("outside the view" in text for text in result.warnings)


@pytest.mark.parametrize("seed", range(2))
def test_noise_has_no_axis(seed):
    noise = np.random.default_rng(seed).normal(0, 0.01, (180, 4, 96)).astype(np.float32)
    result = find(noise, turn(180))
    assert result.confidence < 0.05
    assert any("center.center_px" in text for text in result.warnings)


def test_sample_that_moves_in_the_turn_makes_the_axis_uncertain():
    truth, angles, width = 66.3, turn(360, start=0.0), 96
    moved_px = np.where(angles > 1.5 * np.pi, 2.0, 0.0)  # half of the pairs see an axis 1 px further on
    still = find(wide_slab(truth, width=width, angles_rad=angles), angles)
    moved = find(wide_slab(truth + moved_px, width=width, angles_rad=angles), angles)
    assert abs(moved.center_px - (truth + 0.5)) < 4 * moved.uncertainty_px
    assert moved.uncertainty_px > 1.8 * still.uncertainty_px
    assert moved.confidence < still.confidence


def test_search_and_first_column_count_as_the_detector_does():
    truth, angles = 11.6, turn(360)
    slab = wide_slab(truth, width=96, angles_rad=angles)
    free = find(slab, angles, first_col=500)
    asked = find(slab, angles, first_col=500, search_px=(505, 530))
    assert free.center_px == pytest.approx(500 + truth, abs=0.1)
    assert asked.center_px == pytest.approx(free.center_px, abs=0.05)
    assert free.overlap_px == pytest.approx(2 * truth + 1, abs=0.2)


@pytest.mark.parametrize(("n_cols", "margin"), [(3200, 80.0), (320, 8.0), (96, 8.0), (16, 4.0)])
def test_whole_detector_less_a_margin_is_searched(n_cols, margin):
    assert full_search_px(n_cols) == (margin, n_cols - 1 - margin)


@pytest.mark.parametrize("angles", [turn(6), turn(7), turn(7, inclusive=True)])
def test_opposites_are_interpolated(angles):
    pairs = opposite_pairs(angles)
    between = (1 - pairs.part) * angles[pairs.after - 1] + pairs.part * angles[pairs.after]
    assert pairs.start.size == 3
    np.testing.assert_allclose(between - angles[pairs.start], np.pi, atol=1e-6)


def test_turn_of_the_simulated_cell():
    scan, truth = phantom.simulated_scan(size="tiny", seed=1, last_deg=360.0, n_angles=360, center_px=83.9)
    # simulated once, not again for each row that is looked at
    scan = replace(scan, frames=ArrayFrames(scan.frames.read()))
    axis = make_survey(scan, center=CenterChoice()).axis
    assert axis.center_px == pytest.approx(truth["center_px"], abs=0.25)
    assert axis.confidence > 0.5
    assert not any("edge of the search" in text for text in axis.warnings)


def opposite_correlation(sino, center_px):
    """Mean correlation of frames, free of their mean over the turn, with their mirrored opposites."""
    left = sino - sino.mean(axis=0)
    half = len(left) // 2
    u = np.arange(sino.shape[1], dtype=float)
    mirrored = np.stack([np.interp(2 * center_px - u, u, row, left=0, right=0) for row in left[half:]])
    return np.sum(left[:half] * mirrored) / np.sqrt(np.sum(left[:half] ** 2) * np.sum(mirrored**2))


@pytest.mark.parametrize("rows", [slice(2, 3), slice(0, 5)])
def test_rock_of_a_real_scan(shared_data, rows):
    # algotom's find_center_vo gives 199.5 to 200.25 on halves of it from which the stripes were taken, and
    # slices are sharp at 199.8 and doubled at 198
    with h5py.File(shared_data / "rock_radians_360" / "Sinogram_Rock_sample_3D.nxs") as file:
        group = file["entry1/tomo_entry/data"]
        slab, angles = np.moveaxis(group["data"][rows], 0, 1), group["rotation_angle"][()]
    at = np.arange(195, 205, 0.25)
    plain = at[
        np.argmax([sum(opposite_correlation(sino, c) for sino in np.moveaxis(slab, 1, 0)) for c in at])
    ]
    result = find_center(slab, angles_rad=angles, rows=np.arange(slab.shape[1]))
    assert result.center_px == pytest.approx(plain, abs=0.5)
    assert result.center_px == pytest.approx(199.8, abs=0.5)
    assert abs(result.center_px - 199.8) < 3 * result.uncertainty_px
    assert 0.2 < result.confidence < 0.8


def test_phases_see_the_axis_and_no_static_pattern():
    truth = 133.3
    slab, _ = interior_slab(truth, kinds=("nasicon",) * 4, photons=1e6, zinger_frac=0)
    slab += np.random.default_rng(6).normal(0, 0.3, 256).astype(np.float32)
    candidates = np.arange(64, 192, 0.5)
    curves = phase_curves(slab_differences(slab, angles_rad=HALF_TURN_RAD), candidates_px=candidates)
    best = curves.candidates_px[np.argmax(curves.rho.sum(axis=(0, 1)))]
    assert best == pytest.approx(truth, abs=0.5)


def test_phases_doubt_the_axis_of_something_broad_that_moved():
    truth, u = 137.3, np.arange(256)
    slab, rows = interior_slab(truth, kinds=("nasicon",) * 6, seed=5)

    def spot(at_px):
        return 0.3 * np.exp(-0.5 * ((u - at_px) / 10) ** 2)

    late = (np.arange(360) > 180)[:, None, None]
    moved = (slab + np.where(late, spot(100), spot(132))).astype(np.float32)
    result = find_center(moved, angles_rad=HALF_TURN_RAD, rows=rows)
    assert result.confidence < 0.5
    said = [text for text in result.warnings if "phase correlation" in text]
    assert len(said) == 1
    assert "137." in said[0]
    still = find_center(slab, angles_rad=HALF_TURN_RAD, rows=rows)
    assert not any("phase correlation" in text for text in still.warnings)
