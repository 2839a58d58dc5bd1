"""The contact sheet of a simulated series: what it must show, and its proportions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from xctpipe import contact_sheet
from xctpipe.phantom.series import build_series, scan_of
from xctpipe.phantom.timeline import TimeStep


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_close_view_shows_the_crack_of_every_scan_that_has_one(size: str) -> None:
    series = build_series("plating", size=size, seed=1)
    _, close = contact_sheet.choose_windows(series)
    ceramic = series.steps[0].sample.mu_cm1["nasicon"]
    for step in series.steps:
        cracks = [each for each in step.objects if each.kind.startswith("crack")]
        section = contact_sheet.vertical_truth(step, contact_sheet.moved_with(close, step))
        # below the interface in the first row of ceramic that reaches from side to side there is crack only
        whole = np.flatnonzero(np.median(section, axis=1) > 0.9 * ceramic)
        dark = (section[whole] < 0.5 * ceramic).sum()
        assert bool(cracks) == bool(dark > 4), step.name


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_the_horizontal_slice_cuts_the_crack_and_avoids_dead_pixels(size: str) -> None:
    series = build_series("plating", size=size, seed=1)
    _, close = contact_sheet.choose_windows(series)
    wished = close.middle_mm[2]
    z_mm = contact_sheet.horizontal_z_mm(series, near_mm=wished)
    assert any(stripe.kind == "dead" for stripe in series.steps[0].acquisition.stripes)
    before, after = (contact_sheet.scans_with_dead_pixels(series, z_mm=z) for z in (wished, z_mm))
    assert after < before
    assert after <= 2
    step = series.steps[4]
    section = contact_sheet.horizontal_truth(
        step, z_mm=z_mm + step.shift_px[0] * step.acquisition.pixel_um * 1e-3
    )
    pixel = (section.shape[0] / step.acquisition.cols) ** 2
    x, y = (each / step.acquisition.pixel_um for each in _place(step))
    yy, xx = np.mgrid[: section.shape[0], : section.shape[1]] / np.sqrt(pixel) - step.acquisition.cols / 2
    near = np.hypot(yy - y, xx - x) < 0.15 * step.acquisition.cols
    # gas within the ceramic: more than the few pores
    assert (section[near] < 0.1 * step.sample.mu_cm1["nasicon"]).sum() > 40 * pixel


def _place(step: TimeStep) -> tuple[float, float]:
    return next((each.x_um, each.y_um) for each in step.objects if each.kind == "crack")


def test_truth_and_slices_have_the_same_greys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    drawn: list[tuple[float, float]] = []
    draw = contact_sheet._draw

    def spy(axes: Any, image: Any, *, greys: tuple[float, float]) -> None:
        drawn.append(greys)
        draw(axes, image, greys=greys)

    monkeypatch.setattr(contact_sheet, "_draw", spy)
    series = build_series("plating", size="tiny", seed=1, n_angles=31)
    contact_sheet.save(tmp_path / "sheet.png", series, indices=[0], scans=[scan_of(series.steps[0], seed=1)])
    assert len(drawn) == 6
    assert len(set(drawn[:5])) == 1


@pytest.mark.parametrize("rows", [24, 2000])
def test_the_picture_is_never_a_ribbon(rows: int, tmp_path: Path) -> None:
    # of two scans, so that labels and titles have neighbours
    series = build_series("control", size="tiny", seed=1, rows=rows, n_angles=31)
    scans = [scan_of(step, seed=1) for step in series.steps[:2]]
    contact_sheet.save(tmp_path / "sheet.png", series, indices=[0, 1], scans=scans)
    height, width = imread(tmp_path / "sheet.png").shape[:2]
    assert 0.5 < height / width < 4
