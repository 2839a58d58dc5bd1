"""The rotation axis against sinograms whose axis is known in closed form, and real scans of known axis."""

import h5py
import numpy as np
import pytest
from scipy import io

from xctpipe.center import CenterResult, choose_rows, find_center, row_detail
from xctpipe.center.lines import RowPeak, fit_line
from xctpipe.errors import BadRecipe

NASICON_PER_CM, LIGHT_PER_CM = 2.33, 0.224
VIEW_CM, CELL_CM, WALL_CM = 0.416, 0.3, 0.5
HALF_TURN_RAD = np.arange(360) * np.pi / 360


def chord_mean(t, radius):
    """Chord length of a circle, averaged over a pixel of width 1 at distance t from its centre."""

    def area(x):
        x = np.clip(x, -radius, radius)
        return x * np.sqrt((radius**2 - x**2).clip(min=0)) + radius**2 * np.arcsin(x / radius)

    return area(t + 0.5) - area(t - 0.5)


def sinogram(discs, *, angles_rad, width, center_px):
    """Line integrals (angle, col) of discs (x, y, radius, mu per px), coordinates in px from the axis.

    `center_px` is one column or one of each angle. Each disc is computed where its shadow may lie alone.
    """
    # a column more for what of a shadow lies beside the view
    out = np.zeros((angles_rad.size, width + 1))
    frames = np.arange(angles_rad.size)[:, None]
    for x, y, radius, mu in discs:
        at = (center_px + x * np.cos(angles_rad) - y * np.sin(angles_rad))[:, None]
        first, n = np.floor(at - radius - 1).astype(int), int(2 * radius) + 4
        near = first + np.arange(n) if n < width else np.arange(width)[None]
        out[frames, np.where((near >= 0) & (near < width), near, width)] += mu * chord_mean(near - at, radius)
    return out[:, :width]


def interior_row(kind, *, width, rng):
    """Discs of a cell wider than the view: pores in the solid electrolyte, or bubbles in the light metal."""
    per_px = VIEW_CM / width
    solid = kind == "nasicon"
    discs = [(5.0, -3.0, WALL_CM / per_px, LIGHT_PER_CM * per_px)]
    if solid:
        discs.append((4.0, 2.0, CELL_CM / per_px, (NASICON_PER_CM - LIGHT_PER_CM) * per_px))
    count, smallest, largest = (40, 0.004, 0.02) if solid else (12, 0.02, 0.08)
    mu = NASICON_PER_CM if solid else LIGHT_PER_CM
    for _ in range(count):
        r, turn = rng.uniform(0, 0.6 if solid else 0.45) * width, rng.uniform(0, 2 * np.pi)
        radius = rng.uniform(smallest, largest) * width
        discs.append((r * np.cos(turn), r * np.sin(turn), radius, -mu * per_px))
    return discs


def measured(line_integrals, *, rng, photons=1e4, stripe_frac=0.02, zinger_frac=1e-4):
    """-log of what a detector with a wrong gain per column, photon noise and zingers records."""
    width = line_integrals.shape[-1]
    counts = rng.poisson(photons * np.exp(-line_integrals)).clip(1) / photons
    counts *= 1 + stripe_frac * rng.standard_normal(width)
    hit = rng.random(counts.shape) < zinger_frac
    counts[hit] *= rng.uniform(1.5, 4, hit.sum())
    return -np.log(counts).astype(np.float32)


def interior_slab(
    center_px, *, kinds, width=256, angles_rad=HALF_TURN_RAD, seed=0, slope=0.0, rows=None, **faults
):
    rng = np.random.default_rng(seed)
    rows = np.arange(len(kinds)) * 12.0 if rows is None else rows
    middle = (rows.min() + rows.max()) / 2
    sinos = []
    for kind, row in zip(kinds, rows, strict=True):
        exact = sinogram(
            interior_row(kind, width=width, rng=rng),
            angles_rad=angles_rad,
            width=width,
            center_px=center_px + slope * (row - middle),
        )
        sinos.append(measured(exact, rng=rng, **faults))
    return np.stack(sinos, axis=1), rows


MIXED = ("nasicon", "nak") * 3


def check(result: CenterResult, truth: float, *, within_px=0.25, confidence=0.7):
    assert result.center_px == pytest.approx(truth, abs=within_px)
    assert abs(result.center_px - truth) < 4 * result.uncertainty_px
    assert result.confidence > confidence


@pytest.mark.parametrize(
    ("width", "offset_px"),
    [
        *((256, offset) for offset in (0.0, 0.25, 0.5, -0.75, -11.5, 18.3, 37.25, -50.0)),
        *((241, offset) for offset in (0.0, 0.5, 18.3, -50.0)),
    ],
)
def test_interior_scan_with_noise_stripes_and_zingers(width, offset_px):
    truth = (width - 1) / 2 + offset_px
    slab, rows = interior_slab(truth, kinds=MIXED, width=width, seed=int(4 * offset_px) + 999)
    check(find_center(slab, angles_rad=HALF_TURN_RAD, rows=rows), truth)


@pytest.mark.parametrize("offset_px", [0.25, -13.5])
def test_light_metal_rows_alone(offset_px):
    # groups of ten adjacent rows: ten times the photons
    truth = 127.5 + offset_px
    slab, rows = interior_slab(truth, kinds=("nak",) * 8, photons=1e5, seed=3)
    # bubbles are too faint for the sharpness of slices: the two ends of the scan alone tell, to 0.3 px
    check(find_center(slab, angles_rad=HALF_TURN_RAD, rows=rows), truth, confidence=0.65)


def irregular_angles():
    steps = np.random.default_rng(5).uniform(0.5, 1.5, 360)
    return np.pi * (np.cumsum(steps) - steps[0]) / steps.sum()


ANGLES = {
    "inclusive": np.linspace(0, np.pi, 361),
    "backwards": np.linspace(np.pi, 0, 361),
    "irregular": irregular_angles(),
    "inset": np.radians(np.arange(0.035, 179.966, 0.5)),
    "turns later": np.radians(16740 + np.arange(360) * 0.5),
    "200 degrees": np.radians(np.arange(401) * 0.5),
    "360 degrees": np.radians(np.arange(600) * 0.6),
    "shuffled": np.random.default_rng(1).permutation(HALF_TURN_RAD),
}


@pytest.mark.parametrize("name", ANGLES)
def test_any_measured_angles(name):
    truth = 140.75
    slab, rows = interior_slab(truth, kinds=MIXED, angles_rad=ANGLES[name], seed=7)
    result = find_center(slab, angles_rad=ANGLES[name], rows=rows)
    check(result, truth)
    assert set(result.methods) >= {"registration", "wedge"}
    for center_px, _ in result.methods.values():
        assert center_px == pytest.approx(truth, abs=0.6)


def test_each_method_is_unbiased_without_noise():
    rng = np.random.default_rng(2)
    truth = 133.3
    exact = [
        sinogram(
            interior_row("nak", width=256, rng=rng), angles_rad=HALF_TURN_RAD, width=256, center_px=truth
        )
        for _ in range(6)
    ]
    slab = np.stack(exact, axis=1).astype(np.float32)
    result = find_center(slab, angles_rad=HALF_TURN_RAD, rows=np.arange(6))
    for method in ("registration", "wedge"):
        assert result.methods[method][0] == pytest.approx(truth, abs=0.08)


def test_static_stripes_change_nothing():
    truth = 139.25
    clean, rows = interior_slab(truth, kinds=("nak",) * 6, photons=1e6, stripe_frac=0, zinger_frac=0)
    stripes = 0.05 * np.random.default_rng(8).standard_normal(256)
    with_stripes = (clean + stripes).astype(np.float32)
    first = find_center(clean, angles_rad=HALF_TURN_RAD, rows=rows)
    second = find_center(with_stripes, angles_rad=HALF_TURN_RAD, rows=rows)
    check(first, truth)
    assert second.center_px == pytest.approx(first.center_px, abs=0.01)


def test_slab_is_left_alone_and_dead_pixels_are_survived():
    truth = 120.5
    slab, rows = interior_slab(truth, kinds=MIXED)
    slab[:, :, 60] = np.inf
    slab[100, 2, 30:40] = np.nan
    before = slab.copy()
    check(find_center(slab, angles_rad=HALF_TURN_RAD, rows=rows), truth)
    np.testing.assert_array_equal(slab, before)


def test_tilt_is_recovered_and_reported():
    truth, slope = 131.0, 0.012
    rows = np.linspace(0, 600, 8)
    slab, _ = interior_slab(truth, kinds=("nasicon",) * 8, slope=slope, rows=rows)
    result = find_center(slab, angles_rad=HALF_TURN_RAD, rows=rows)
    check(result, truth)
    assert result.row_mid == 300
    assert result.tilt_deg == pytest.approx(np.degrees(np.arctan(slope)), abs=0.05)
    assert abs(result.tilt_deg - np.degrees(np.arctan(slope))) < 4 * result.tilt_uncertainty_deg
    np.testing.assert_allclose(
        result.at_rows(np.array([0, 600])), truth + slope * np.array([-300, 300]), atol=0.4
    )
    assert any("tilted" in text for text in result.warnings)


def test_outlier_rows_are_left_out():
    truth = 122.25
    rng = np.random.default_rng(4)
    slab, rows = interior_slab(truth, kinds=("nasicon",) * 8)
    slab[:, 1] = rng.normal(0, 0.02, slab[:, 1].shape)
    slab[:, 6] = np.roll(slab[:, 6], 9, axis=1)
    slab[:, 4] = 0.5
    result = find_center(slab, angles_rad=HALF_TURN_RAD, rows=rows)
    check(result, truth, confidence=0.6)
    away = {e.row for e in result.estimates if e.method == "registration" and not e.used}
    assert {rows[4], rows[6]} <= away


def fitted(centers, *, sigmas, rows):
    return fit_line(
        [RowPeak(*pair, False) for pair in zip(centers, sigmas, strict=True)], rows=np.array(rows)
    )


def test_few_rows_close_together_tell_no_tilt():
    # a tenth of a px between three rows at the end, carried to the middle, would be half a px there
    lost = [RowPeak(40.0, 90.0, True)] * 9
    sure = [RowPeak(center, 0.01, False) for center in (50.05, 50.0, 49.95)]
    fit = fit_line([*lost, *sure], rows=np.array([*range(0, 198, 22), 213.0, 225.0, 238.0]))
    assert fit.center_px == pytest.approx(50, abs=0.03)
    assert np.isnan(fit.slope_sigma)


def test_slope_that_may_be_noise_moves_no_line():
    # the rows with small errors lie at one end: a free slope would put the middle 0.3 px and more off
    rows = np.linspace(0, 250, 8)
    centers = 50 + np.array([2.0, -1.5, 1.8, 0.9, -0.7, 0.3, 0.05, -0.05])
    fit = fitted(centers, sigmas=[1.5, 1.5, 1.5, 1.0, 0.8, 0.5, 0.05, 0.05], rows=rows)
    assert fit.center_px == pytest.approx(50, abs=0.1)
    assert abs(fit.slope) < 4 * fit.slope_sigma


def test_rows_with_large_errors_spoil_none_with_small_ones():
    rng = np.random.default_rng(3)
    sigmas = np.array([2.0, 0.1] * 4)
    errors = []
    for _ in range(60):
        fit = fitted(50 + rng.normal(0, sigmas), sigmas=sigmas, rows=np.arange(8) * 30.0)
        errors.append(fit.center_px - 50)
    # the best there is: 0.1 px / sqrt(4)
    assert np.sqrt(np.mean(np.square(errors))) < 0.1


@pytest.mark.parametrize("slope", [0.012, -0.004])
def test_sure_slope_is_kept(slope):
    rows = np.linspace(0, 300, 10)
    noise = np.random.default_rng(1).normal(0, 0.05, 10)
    fit = fitted(50 + slope * (rows - 150) + noise, sigmas=[0.05] * 10, rows=rows)
    assert fit.slope == pytest.approx(slope, abs=4 * fit.slope_sigma)
    assert fit.center_px == pytest.approx(50, abs=0.06)
    assert abs(fit.slope) > 4 * fit.slope_sigma


@pytest.mark.parametrize("seed", range(3))
def test_pellet_at_the_lower_end_alone_tells(seed):
    # nothing but light metal above: what its rows hold must not move the axis that the others see
    rows = np.array([*range(0, 189, 21), 213, 225, 238], dtype=float)
    truth = 139.6
    slab, _ = interior_slab(truth, kinds=("nak",) * 9 + ("nasicon",) * 3, rows=rows, seed=50 + seed)
    check(find_center(slab, angles_rad=HALF_TURN_RAD, rows=rows), truth, within_px=0.15, confidence=0.5)


def test_axis_near_the_rim_is_found_when_asked_for():
    angles = np.arange(600) * 2 * np.pi / 600
    truth = 40.25
    slab, rows = interior_slab(truth, kinds=("nasicon",) * 6, angles_rad=angles)
    check(find_center(slab, angles_rad=angles, rows=rows, search_px=(20, 90)), truth)


def test_axis_outside_the_search_is_said():
    truth = 150.0
    slab, rows = interior_slab(truth, kinds=("nasicon",) * 6)
    result = find_center(slab, angles_rad=HALF_TURN_RAD, rows=rows, search_px=(110, 140))
    assert result.confidence < 0.2
    assert any("edge of the search" in text and "110.0 to 140.0" in text for text in result.warnings)


def test_sample_that_moves_within_the_scan_makes_the_methods_disagree():
    # a jump by 8 px in the last frames puts the axis seen from the ends 4 px off; most frames know better
    width, truth = 256, 127.5
    rng = np.random.default_rng(0)
    jump_px = np.where(np.arange(360) < 355, 0.0, 8.0)
    slab = np.stack(
        [
            measured(
                sinogram(
                    interior_row("nasicon", width=width, rng=rng),
                    angles_rad=HALF_TURN_RAD,
                    width=width,
                    center_px=truth + jump_px,
                ),
                rng=rng,
            )
            for _ in range(6)
        ],
        axis=1,
    )
    result = find_center(slab, angles_rad=HALF_TURN_RAD, rows=np.arange(6))
    assert any("disagree by" in text for text in result.warnings)
    assert result.confidence < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_noise_has_no_axis(seed):
    noise = np.random.default_rng(seed).normal(0, 0.01, (180, 8, 200)).astype(np.float32)
    result = find_center(noise, angles_rad=np.arange(180) * np.pi / 180, rows=np.arange(8))
    assert result.confidence < 0.05
    assert any("center.center_px" in text for text in result.warnings)


@pytest.mark.parametrize("value", [0.0, 0.7, np.nan])
def test_constant_slab_has_no_axis(value):
    slab = np.full((90, 3, 64), value, np.float32)
    result = find_center(slab, angles_rad=np.arange(90) * np.pi / 90, rows=np.arange(3))
    assert result.confidence == 0
    assert np.isfinite(result.center_px)
    assert result.warnings


def test_too_short_an_arc_is_said():
    angles = HALF_TURN_RAD[:200]
    slab, rows = interior_slab(130.0, kinds=("nasicon",) * 2, angles_rad=angles)
    result = find_center(slab, angles_rad=angles, rows=rows)
    assert result.confidence < 0.2
    assert any("half turn" in text for text in result.warnings)


@pytest.mark.parametrize(
    ("angles", "rows", "search", "word"),
    [
        (19, 2, None, "19 angles"),
        (20, 3, None, "3 rows"),
        (20, 2, (5, 99), "search_px"),
        (20, 2, (9, 9), "search_px"),
    ],
)
def test_call_that_does_not_fit_is_refused(angles, rows, search, word):
    with pytest.raises(BadRecipe, match=word):
        find_center(
            np.zeros((20, 2, 32), np.float32),
            angles_rad=np.arange(angles),
            rows=np.arange(rows),
            search_px=search,
        )


def test_rows_are_chosen_for_detail_and_spread():
    detail = np.ones(100)
    detail[[7, 33, 90]] = 5
    detail[40:60] = 0.01
    detail[70] = np.nan
    chosen = choose_rows(detail, n=5)
    assert {7, 33, 90} <= set(chosen)
    assert not np.any((chosen >= 40) & (chosen < 60))
    assert np.all(np.diff(chosen) > 0)


def test_more_rows_are_chosen_where_detail_stands_out():
    rng = np.random.default_rng(0)
    detail = rng.uniform(1, 1.2, 256)
    detail[192:] += 1
    chosen = choose_rows(detail, n=12)
    assert 6 <= np.sum(chosen >= 192) <= 8
    assert chosen[0] < 50
    # of few rows bands cannot be narrower: they stay equal
    few = choose_rows(detail[::4], n=12)
    assert np.sum(few >= 48) <= 4


def test_no_usable_row_is_an_empty_choice():
    assert choose_rows(np.zeros(10), n=4).size == 0
    with pytest.raises(BadRecipe, match="n = 0"):
        choose_rows(np.ones(10), n=0)


def test_row_detail_sees_detail_not_stripes():
    u = np.arange(200)
    stripes = np.random.default_rng(0).normal(0, 1, 200)
    first = np.zeros((3, 200)) + stripes
    opposite = first.copy()
    first[1] += np.exp(-(((u - 60) / 6) ** 2))
    opposite[1] += np.exp(-(((u - 150) / 6) ** 2))
    detail = row_detail(first.astype(np.float32), opposite.astype(np.float32))
    assert detail[1] > 0.01
    assert detail[0] == detail[2] == 0


def test_tooth_of_a_real_scan(shared_data):
    with h5py.File(shared_data / "tooth" / "tooth.h5") as file:
        frames, flats = file["exchange/data"][()], file["exchange/data_white"][()].mean(axis=0)
        darks, angles = file["exchange/data_dark"][()].mean(axis=0), np.radians(file["exchange/theta"][()])
    slab = -np.log(((frames - darks) / (flats - darks)).clip(1e-3)).astype(np.float32)
    result = find_center(slab, angles_rad=angles, rows=[0, 1])
    assert 295.5 <= result.center_px <= 296.5
    assert result.confidence > 0.5
    assert not result.warnings


def test_dendrite_of_a_real_scan_with_strong_rings(shared_data):
    content = io.loadmat(shared_data / "dendrite" / "RealDataDend.mat")
    sino = np.asarray(content["sinoRD"], np.float32).T
    result = find_center(sino[:, None], angles_rad=content["anglesRad"].ravel(), rows=[0])
    assert result.center_px == pytest.approx(629.5, abs=1.0)
    assert abs(result.center_px - 629.5) < 3 * result.uncertainty_px
