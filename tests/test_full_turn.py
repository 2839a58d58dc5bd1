"""Full turns with the axis near the edge of the view, against discs wider than the view."""

import numpy as np
import pytest

from xctpipe import recon, steps
from xctpipe.correct.order import check_order
from xctpipe.errors import BadRecipe
from xctpipe.recon.geometry import angular_weights

PIXEL_UM = 1e4  # one centimetre: attenuation per pixel is attenuation per centimetre
DISCS = [
    (4.0, -3.0, 70.0, 0.01),
    (-31.5, 22.0, 12.0, -0.006),
    (40.0, 25.0, 11.0, 0.02),
    (3.0, 2.0, 10.0, 0.03),
]
WIDTH = 96


def box_mean_of_chord(distance, radius):
    def primitive(d):
        t = np.clip(d / radius, -1, 1)
        return radius**2 * (t * np.sqrt(1 - t * t) + np.arcsin(t))

    return primitive(distance + 0.5) - primitive(distance - 0.5)


def transmission(angles, *, centers, width=WIDTH):
    rows = []
    for center in centers:
        total = np.zeros((angles.size, width))
        for x, y, radius, mu in DISCS:
            seen_at = x * np.cos(angles) - y * np.sin(angles) + center
            total += mu * box_mean_of_chord(np.arange(width) - seen_at[:, None], radius)
        rows.append(np.exp(-total))
    return np.stack(rows, axis=1).astype(np.float32)


def turn(n, *, start=0.1, inclusive=False):
    return start + np.arange(n) * 2 * np.pi / (n - inclusive)


def joined(name, slab, *, angles, centers):
    view = steps.View(angles, slab.shape[2], float(np.mean(centers)), np.asarray(centers))
    facts = steps.Facts(frame_shape=slab.shape[1:], view=view)
    return steps.run_step(steps.bind(name), slab, facts)


def volume(name, slab, *, angles, centers):
    out, facts = joined(name, slab, angles=angles, centers=centers)
    view = facts.view
    assert out.shape == (view.angles_rad.size, slab.shape[1], view.n_cols)
    weights = angular_weights(view.angles_rad, period_rad=view.period_rad) / angular_weights(view.angles_rad)
    return recon.reconstruct(
        -np.log(out) * weights[:, None, None],
        angles_rad=view.angles_rad,
        center_px=view.centers_px,
        pixel_um=PIXEL_UM,
        padding="none",
    ), view


def mean_within(image, *, x, y, radius):
    at = np.arange(image.shape[0]) - (image.shape[0] - 1) / 2
    return float(image[(at - x) ** 2 + (at[:, None] - y) ** 2 < radius**2].mean())


@pytest.mark.parametrize("name", ["stitch_360", "extend_360"])
@pytest.mark.parametrize(
    ("center", "angles"),
    [
        (83.0, turn(720)),
        (83.37, turn(721)),
        (10.8, turn(720)),
        (11.25, turn(721)),
        (84.5, turn(721, inclusive=True)),
        (80.0, turn(720)[::-1]),
        (80.2, turn(720) + 0.003 * np.sin(5 * turn(720))),
    ],
)
def test_a_sample_wider_than_the_view_has_its_values(name, center, angles) -> None:
    slab = transmission(angles, centers=[center, center + 0.3])
    slices, view = volume(name, slab, angles=angles, centers=[center, center + 0.3])
    assert view.n_cols > 150
    for image in slices:
        for (x, y, _, mu), inside in zip(DISCS[1:], (6.0, 6.0, 5.0), strict=True):
            # the middle of a small disc, where edges do not reach
            assert mean_within(image, x=x, y=y, radius=inside) == pytest.approx(mu + 0.01, rel=0.01)
        assert mean_within(image, x=-10, y=-45, radius=8) == pytest.approx(0.01, rel=0.01)


def test_what_both_halves_see_leaves_no_seam() -> None:
    angles = turn(720)
    slab = transmission(angles, centers=[80.0])
    out, facts = joined("stitch_360", slab, angles=angles, centers=[80.0])
    whole = transmission(facts.view.angles_rad, centers=[facts.view.center_px], width=facts.view.n_cols)
    np.testing.assert_allclose(out, whole, atol=2e-6)


def test_weights_of_a_column_and_its_mirror_image_add_to_one() -> None:
    slab = np.full((360, 1, WIDTH), np.exp(-1), np.float32)
    out, facts = joined("extend_360", slab, angles=turn(360), centers=[82.5])
    weight = -np.log(out[0, 0])
    mirrored = np.interp(2 * facts.view.center_px - np.arange(weight.size), np.arange(weight.size), weight)
    np.testing.assert_allclose(weight + mirrored, 1, atol=1e-5)
    assert facts.view.period_rad == 2 * np.pi


@pytest.mark.parametrize(
    ("angles", "center", "words"),
    [
        (np.linspace(0, np.pi, 181), 80.0, "needs 360"),
        (turn(360), 95.0, "columns"),
        (turn(360), -20.0, "columns"),
    ],
)
def test_what_cannot_be_joined_is_refused(angles, center, words) -> None:
    with pytest.raises(BadRecipe, match=words):
        joined("stitch_360", np.ones((angles.size, 1, WIDTH), np.float32), angles=angles, centers=[center])


@pytest.mark.parametrize(
    "names",
    [
        ("stripes_sorting", "stitch_360"),
        ("stitch_360", "blobs"),
        ("stitch_360", "distortion"),
        ("stitch_360", "extend_360"),
        ("paganin", "zingers"),
        ("paganin", "paganin"),
    ],
)
def test_bad_orders_are_refused(names) -> None:
    params = {
        "paganin": {"delta_beta": 350.0},
        "distortion": {"center_row_px": 1, "center_col_px": 1, "factors": [1.0]},
    }
    chain = [steps.bind(name, **params.get(name, {})) for name in names]
    with pytest.raises(BadRecipe, match="correct:"):
        check_order(chain)
    check_order(chain[:1])


def test_phase_retrieval_after_the_logarithm_is_refused() -> None:
    with pytest.raises(BadRecipe, match="before the logarithm"):
        check_order([steps.bind("paganin", delta_beta=350.0)], log_absorption=True)
