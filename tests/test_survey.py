from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xctpipe import phantom, survey
from xctpipe.correct.flat import minus_log
from xctpipe.errors import BadScan
from xctpipe.inputs import crop
from xctpipe.scan import ArrayFrames, DarkFlat, Scan
from xctpipe.steps import Facts, bind
from xctpipe.survey import CenterChoice, before_and_after, frame_weights, make_survey


@cache
def simulated(**options: Any) -> tuple[Scan, dict[str, Any]]:
    """A scan that is simulated once, not again for each row that is looked at, and its truth."""
    scan, truth = phantom.simulated_scan(**{"size": "tiny", "seed": 2, **options})
    raw = scan.frames.read()
    raw.flags.writeable = False
    return replace(scan, frames=ArrayFrames(raw)), truth


@pytest.mark.parametrize(("offset_px", "seed"), [(0.0, 1), (0.5, 2), (-7.25, 3), (12.75, 4)])
def test_the_axis_of_a_faulty_noisy_interior_scan(offset_px: float, seed: int) -> None:
    center = (256 - 1) / 2 + offset_px
    scan, _ = simulated(size="small", seed=seed, n_angles=451, rows=64, cols=256, center_px=center)
    found = make_survey(scan, center=CenterChoice()).axis
    assert found.center_px == pytest.approx(center, abs=0.25)
    assert found.confidence is not None
    assert found.confidence > 0.2


def test_an_axis_of_noise_is_not_trusted() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1000, (181, 48, 96)).astype(np.uint16)
    flats = ArrayFrames(rng.poisson(2000, (20, 48, 96)).astype(np.uint16))
    scan = Scan("noise", "memory", Path("noise"), ArrayFrames(counts), np.linspace(0, np.pi, 181))
    axis = make_survey(
        Scan(**{**vars(scan), "dark_flats": (DarkFlat(None, flats),)}), center=CenterChoice()
    ).axis
    assert axis.confidence is not None
    assert axis.confidence < 0.2
    assert axis.warnings


def test_what_is_kept_is_what_was_found(tmp_path: Path) -> None:
    scan, _ = simulated()
    first = make_survey(
        scan, facts=Facts(scan.shape[1:], (2, 3)), center=CenterChoice(search_px=(40.0, 60.0))
    )
    survey.save(first, tmp_path / "survey.npz")
    again = survey.load(tmp_path / "survey.npz")
    assert again is not None
    assert again.axis == first.axis
    assert again.first_pixel == (2, 3)
    raw = scan.frames.read((5, 9))
    np.testing.assert_array_equal(again.transmission(raw, rows=(5, 9)), first.transmission(raw, rows=(5, 9)))
    (tmp_path / "survey.npz").write_bytes(b"damaged")
    assert survey.load(tmp_path / "survey.npz") is None


def test_frames_are_weighted_by_their_time_between_the_flats() -> None:
    scan, _ = simulated()
    before, after = (pair.time_s for pair in scan.dark_flats)
    assert scan.start_time is not None
    assert before is not None
    assert after is not None
    weights = frame_weights(scan, scan.dark_flats)
    start = (scan.start_time.timestamp() - before) / (after - before)
    assert weights[0] == pytest.approx(start, abs=1e-6)
    assert (np.diff(weights) > 0).all()
    assert weights[-1] <= 1


def test_a_scan_without_flats_or_signal_is_refused() -> None:
    scan, _ = simulated()
    with pytest.raises(BadScan, match="no flats"):
        make_survey(Scan(**{**vars(scan), "dark_flats": ()}), center=CenterChoice())
    dark = ArrayFrames(np.full(scan.shape, 100, np.uint16))
    with pytest.raises(BadScan, match="hold a signal"):
        make_survey(Scan(**{**vars(scan), "frames": dark}), center=CenterChoice())


def test_line_integrals_need_no_flats() -> None:
    scan, truth = simulated(perfect=True)
    flats = scan.dark_flats[0].flats.read()[0].astype(np.float64)
    lines = -np.log(scan.frames.read() / flats)
    taken = {"frames": ArrayFrames(lines.astype(np.float32)), "dark_flats": (), "log_absorption": True}
    found = make_survey(Scan(**{**vars(scan), **taken}), center=CenterChoice())
    assert found.axis.center_px == pytest.approx(truth["center_px"], abs=0.25)
    np.testing.assert_allclose(
        found.transmission(lines[:, 3:5], rows=(3, 5)), np.exp(-lines[:, 3:5]), rtol=1e-5
    )


def test_of_many_flats_those_around_the_scan_are_used() -> None:
    scan, _ = simulated()
    first = scan.dark_flats[0]
    assert scan.start_time is not None
    start = scan.start_time.timestamp()
    sets = tuple(replace(first, time_s=start + t) for t in (-500, -20, 90, 900))
    chosen = before_and_after(replace(scan, dark_flats=sets))
    assert [each.time_s - start for each in chosen if each.time_s] == [-20, 90]
    untimed = tuple(replace(each, time_s=None) for each in sets)
    assert before_and_after(replace(scan, dark_flats=untimed)) == (untimed[0], untimed[-1])
    assert make_survey(replace(scan, dark_flats=sets), center=CenterChoice(50.0)).warnings


def test_warnings_count_columns_as_the_recipe_does() -> None:
    scan, _ = simulated()
    cropped = crop(scan, rows=None, columns=(20, 96))
    wish = CenterChoice(search_px=(70.0, 80.0))
    survey_of_crop = make_survey(cropped, facts=Facts(cropped.shape[1:], (0, 20)), center=wish)
    assert any("70.0 to 80.0" in text for text in survey_of_crop.warnings)


def test_angles_that_stand_still_are_refused() -> None:
    scan, _ = simulated()
    with pytest.raises(BadScan, match="the angles span 0 deg"):
        make_survey(replace(scan, angles_rad=np.zeros(scan.shape[0])), center=CenterChoice())


def test_large_line_integrals_are_kept_and_holes_bridged() -> None:
    scan, _ = simulated(perfect=True)
    lines = np.full(scan.shape, 12.0, np.float32)
    lines[:, :, 40] = np.nan
    taken = replace(scan, frames=ArrayFrames(lines), dark_flats=(), log_absorption=True)
    found = make_survey(taken, center=CenterChoice(47.0))
    log_again, _ = minus_log(found.transmission(lines[:, 3:5], rows=(3, 5)), floor=found.floor)
    np.testing.assert_allclose(log_again, 12.0, rtol=1e-4)


def test_frames_that_jump_are_found_and_moved_back() -> None:
    scan, truth = simulated(seed=6, rows=128, full_view=True, zingers_per_frame=0.0)
    raw = scan.frames.read()
    jumps = np.random.default_rng(0).integers(-2, 3, len(raw))
    moved = np.stack([np.roll(frame, jump, axis=0) for frame, jump in zip(raw, jumps, strict=True)])
    chain = [bind("frame_shifts")]
    wish = CenterChoice(truth["center_px"])
    found = make_survey(replace(scan, frames=ArrayFrames(moved)), center=wish, chain=chain)
    assert found.shifts_px is not None
    left = found.shifts_px[:, 0] - (jumps - jumps.mean())
    assert left.std() < 0.15
    assert make_survey(replace(scan, frames=ArrayFrames(raw)), center=wish).shifts_px is None


def test_an_axis_beside_the_view_is_said() -> None:
    scan, _ = simulated(size="mini")
    texts = make_survey(scan, center=CenterChoice(-20.0)).warnings
    assert any("-20 px lies outside the view, columns 0 to 95" in text for text in texts)
