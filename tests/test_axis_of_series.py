"""What is said of the axis of one scan against those of its series."""

from typing import Any

import pytest

from xctpipe.record import axis_moved, compared_with


def scan(name: str, center_px: float, *, confidence: float | None, sigma_px: float = 0.1) -> dict[str, Any]:
    return {
        "scan": name,
        "center_px": center_px,
        "center_uncertainty_px": sigma_px,
        "center_confidence": confidence,
        "pixel_um": 43.3,
        "bin_px": 1,
    }


@pytest.mark.parametrize("sigma_px", [0.1, 5.0])
def test_an_unsure_axis_elsewhere_is_said_however_uncertain(sigma_px: float) -> None:
    lost = scan("c", 43.5, confidence=0.01, sigma_px=sigma_px)
    text = axis_moved(lost, scan("a", 49.78, confidence=0.8), methods_px={"wedge": 43.5, "sharpness": 49.7})
    for part in ("-6.28 px", "from that of a", "give c center.center_px = 49.78", "sharpness 49.70 px here"):
        assert part in text
    assert "wedge" not in text


@pytest.mark.parametrize(("center_px", "said"), [(50.2, False), (50.4, True)])
def test_half_a_pixel_is_said_where_one_is_unsure(center_px: float, said: bool) -> None:
    unsure, sure = scan("b", center_px, confidence=0.1), scan("a", 49.8, confidence=0.8)
    assert bool(axis_moved(unsure, sure)) == said


def test_no_value_is_named_where_none_is_sure_or_both_are() -> None:
    low, middle = scan("a", 43.5, confidence=0.1), scan("b", 49.8, confidence=0.4)
    assert "neither is sure" in axis_moved(middle, low)
    sure = axis_moved(scan("c", 52.0, confidence=0.9), scan("d", 49.8, confidence=0.9))
    assert "+2.20 px" in sure
    assert "center.center_px =" not in sure
    # half a pixel between two that are not sure is no news
    assert not axis_moved(scan("c", 50.4, confidence=0.1), middle)


def test_a_sure_scan_tells_of_the_unsure_ones_before_it_once() -> None:
    series = [scan(name, px, confidence=c) for name, px, c in (("a", 43.5, 0.0), ("b", 49.0, 0.2))]
    assert [each["scan"] for each in compared_with(series[1], series)] == ["a"]
    series.append(scan("c", 49.8, confidence=0.8))
    told = [axis_moved(series[2], each) for each in compared_with(series[2], series)]
    assert ["give a center.center_px = 49.80" in told[0], "give b center.center_px" in told[1]] == [True] * 2
    series.append(scan("d", 49.8, confidence=0.9))
    assert [each["scan"] for each in compared_with(series[3], series)] == ["c"]


def test_a_given_axis_is_sure_and_other_pixels_are_another_series() -> None:
    given = scan("a", 49.8, confidence=None)
    unsure = scan("b", 43.5, confidence=0.0)
    assert compared_with(unsure, [given, unsure]) == [given]
    binned = unsure | {"bin_px": 2}
    assert compared_with(binned, [given, binned]) == [binned]
    assert axis_moved(binned, binned) == ""
