"""Numerics of the segmentation: means, plates, candidates, features, classes and chips."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import erf

from xctpipe.segment import chips
from xctpipe.segment.candidates import (
    BRIGHT,
    KIND_BITS,
    LIQUID_VOID,
    SEED,
    SOLID_VOID,
    Sample,
    Thresholds,
    find_candidates,
    find_thresholds,
    without_slack,
)
from xctpipe.segment.classes import kept, kinds_of, touching
from xctpipe.segment.codes import PHASES
from xctpipe.segment.features import HALO_PX, SCORE_BINS, SCORE_TOP, Features, Patch, gather_features
from xctpipe.segment.scene import LIQUID, SOLID
from xctpipe.segment.sheet import eigenvalues, plate_response
from xctpipe.segment.smooth import further, reach_px, smooth

SOLID_CM1, LIQUID_CM1 = 2.33, 0.224
EVERYWHERE = np.ones((3, 3, 3), bool)
Floats = NDArray[np.float32]


# means


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.0, 1.5, 4.0])
def test_smooth_is_that_of_scipy(sigma: float) -> None:
    block = np.random.default_rng(1).normal(size=(13, 14, 21)).astype(np.float32)
    theirs = ndimage.gaussian_filter(block.astype(float), sigma, mode="reflect", radius=reach_px(sigma))
    np.testing.assert_allclose(smooth(block, sigma_px=sigma), theirs, atol=2e-6)


def test_smooth_does_not_depend_on_the_cut() -> None:
    block = np.random.default_rng(2).normal(size=(30, 41, 53)).astype(np.float32)
    for sigma in (0.7, 1.5, 2.5):
        whole, reach = smooth(block, sigma_px=sigma), reach_px(sigma)
        for first in (1, 3, 8):
            where = tuple(slice(first, n - first) for n in block.shape)
            inner = tuple(slice(first + reach, n - first - reach) for n in block.shape)
            part = np.ascontiguousarray(block[where])
            trimmed = smooth(part, sigma_px=sigma)[tuple(slice(reach, n - reach) for n in part.shape)]
            np.testing.assert_array_equal(trimmed, whole[inner])


def test_widths_of_means_add_up_in_squares() -> None:
    block = np.zeros((41, 41, 41), np.float32)
    block[20, 20, 20] = 1
    twice = smooth(smooth(block, sigma_px=1.5), sigma_px=further(2.5, done_px=1.5))
    np.testing.assert_allclose(twice, smooth(block, sigma_px=2.5), atol=0.02 * twice.max())


# plates


def test_eigenvalues_are_those_of_numpy() -> None:
    rng = np.random.default_rng(3)
    matrices = rng.normal(size=(300, 3, 3)) * 10.0 ** rng.integers(-4, 3, (300, 1, 1))
    matrices += np.swapaxes(matrices, 1, 2)
    matrices[0], matrices[1] = np.diag([2.0, 2.0, 2.0]), np.diag([-3.0, 1.0, 1.0])
    matrices[2] = np.diag([-3.0, -3.0, 1.0])
    for m in matrices:
        found = eigenvalues(m[0, 0], m[1, 1], m[2, 2], m[0, 1], m[0, 2], m[1, 2])
        np.testing.assert_allclose(found, np.linalg.eigvalsh(m)[:2], atol=1e-6 * np.abs(m).max())


def paraboloid(curvatures: tuple[float, float, float], seed: int) -> Floats:
    """10 at the middle, with these second derivatives along axes turned at random."""
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    places = np.stack(np.mgrid[-4:5, -4:5, -4:5], axis=-1) @ axes
    return np.asarray(10 + 0.5 * (places**2 @ np.array(curvatures)), np.float32)


@pytest.mark.parametrize(
    ("curvatures", "answer"),
    [
        ((-0.5, 0.0, 0.0), 0.5),
        ((-0.5, 0.2, 0.2), 0.3),
        ((-0.5, -0.5, 0.0), 0.0),
        ((-0.5, -0.5, -0.5), 0.0),
        ((0.5, 0.0, 0.0), 0.0),
        ((-0.5, -0.2, 0.1), 0.3),
    ],
)
def test_the_response_to_known_curvatures(curvatures: tuple[float, float, float], answer: float) -> None:
    for seed in range(5):
        response = plate_response(paraboloid(curvatures, seed), sigma_px=1.5, least=-np.inf)
        assert response[4, 4, 4] == pytest.approx(1.5**2 * answer, abs=2e-4)


def bodies() -> dict[str, Floats]:
    """A plate, a tube and a ball of diameter 2 voxels and height 1, blurred."""
    z, y, x = np.mgrid[-12:13, -12:13, -12:13].astype(float)
    away = {"plate": np.abs(z), "tube": np.hypot(z, y), "ball": np.sqrt(z**2 + y**2 + x**2)}
    return {name: smooth((r <= 1).astype(np.float32), sigma_px=0.8) for name, r in away.items()}


def test_plates_answer_far_more_than_tubes_and_balls() -> None:
    answers = {}
    for name, body in bodies().items():
        mean = smooth(body, sigma_px=1.5)
        # as bright as the plate: its shape alone is judged
        mean /= mean[12, 12, 12]
        answers[name] = float(plate_response(mean, sigma_px=1.5, least=0.0)[12, 12, 12])
    assert answers["plate"] > 0.3
    assert answers["plate"] > 20 * max(answers["tube"], answers["ball"])


def test_the_response_is_linear_and_only_where_the_mean_is_high() -> None:
    mean = np.random.default_rng(4).normal(size=(12, 13, 14)).astype(np.float32)
    whole = plate_response(mean, sigma_px=2.0, least=-np.inf)
    np.testing.assert_allclose(
        plate_response(3 * mean, sigma_px=2.0, least=-np.inf), 3 * whole, rtol=1e-4, atol=1e-4
    )
    some = plate_response(mean, sigma_px=2.0, least=0.4)
    assert 0 < np.count_nonzero(some) < np.count_nonzero(whole)
    np.testing.assert_array_equal(some, np.where(mean >= 0.4, whole, 0))
    for axis in range(3):
        np.testing.assert_array_equal(np.take(whole, (0, -1), axis=axis), 0)


# candidates


def blue_noise(shape: tuple[int, int, int], sigma: float, seed: int) -> Floats:
    """Noise as filtered back projection makes it: power proportional to the frequency across the axis."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.normal(size=shape), axes=(1, 2))
    frequency = np.hypot(np.fft.fftfreq(shape[1])[:, None], np.fft.rfftfreq(shape[2])[None])
    noise = np.fft.irfft2(spectrum * np.sqrt(frequency), s=shape[1:], axes=(1, 2))
    return np.asarray(sigma * noise / noise.std(), np.float32)


SHAPE = (48, 80, 80)
SOLID_NOISE, LIQUID_NOISE = 0.74, 0.38


def view(host: int) -> NDArray[np.uint8]:
    """Hosts of a volume of one layer that fills the view, from end to end."""
    _, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return np.where(np.hypot(y - 39.5, x - 39.5) <= 38.5, np.uint8(host), np.uint8(0))


def shell(opening: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Residual of a curved crack of even opening, blurred as a scan is, and its true voxels."""
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]].astype(float)
    away = np.sqrt((z + 20.3) ** 2 + (y - 41.2) ** 2 + (x - 38.7) ** 2) - 45.0
    within = np.hypot(y - 41.2, x - 38.7) < 26
    blur = math.sqrt(2 * (0.6**2 + 1 / 12))
    share = 0.5 * (erf((away + opening / 2) / blur) - erf((away - opening / 2) / blur))
    truth = (np.abs(away) <= opening / 2) & within
    return np.asarray(SOLID_CM1 * share * within, np.float32), truth


def candidates_in(residual: Floats, hosts: NDArray[np.uint8], t: Thresholds) -> NDArray[np.uint8]:
    """Candidates of a volume whose interface is far away."""
    far = np.full(hosts.shape, 1e4, np.float32)
    return find_candidates(residual, hosts, np.zeros(hosts.shape, bool), above_px=far, thresholds=t)


def thresholds_for(residual: Floats, hosts: NDArray[np.uint8], scale: float = 1.0) -> Thresholds:
    return find_thresholds(
        [Sample(residual, hosts)],
        sigmas_px=(1.0, 1.5, 2.5, 4.0),
        low_sigma=6.0,
        high_sigma=9.0,
        solid_cm1=scale * SOLID_CM1,
        liquid_cm1=scale * LIQUID_CM1,
        bright_cm1=scale * 5.1,
    )


def found_in(residual: Floats, hosts: NDArray[np.uint8], kind: int, least: int = 8) -> NDArray[np.bool_]:
    """Candidates of a kind in components that hold a seed and are not too small."""
    codes = candidates_in(residual, hosts, thresholds_for(residual, hosts))
    labels, _ = ndimage.label((codes & KIND_BITS) == kind, EVERYWHERE)
    sizes = np.bincount(labels.ravel())
    seeded = np.bincount(labels.ravel(), weights=(codes & SEED > 0).ravel(), minlength=len(sizes)) > 0
    keep = seeded & (sizes >= least)
    keep[0] = False
    return np.asarray(keep[labels])


def near(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_dilation(mask, EVERYWHERE))


@pytest.mark.parametrize(("opening", "least_f1"), [(1.0, 0.75), (2.0, 0.85)])
def test_thin_cracks_are_found_in_noise(opening: float, least_f1: float) -> None:
    crack, truth = shell(opening)
    hosts = np.full(SHAPE, SOLID, np.uint8)
    found = found_in(crack + blue_noise(SHAPE, SOLID_NOISE, 5), hosts, SOLID_VOID)
    precision = (found & near(truth)).sum() / max(found.sum(), 1)
    recall = (truth & near(found)).sum() / truth.sum()
    assert 2 * precision * recall / (precision + recall) >= least_f1


@pytest.mark.parametrize("seed", range(4))
def test_noise_alone_holds_nothing(seed: int) -> None:
    solid, liquid = view(SOLID), view(LIQUID)
    noise = np.where(solid > 0, blue_noise(SHAPE, 1.0, 10 + seed), np.float32(0))
    for kind in (SOLID_VOID, BRIGHT):
        assert not found_in(np.float32(SOLID_NOISE) * noise, solid, kind).any()
    # fewer voxels are told from noise by `classes.kept`
    assert not found_in(np.float32(LIQUID_NOISE) * noise, liquid, LIQUID_VOID, least=30).any()


def test_thresholds_are_linear_in_the_unit_of_grey() -> None:
    crack, _ = shell(2.0)
    residual = crack + blue_noise(SHAPE, SOLID_NOISE, 6)
    hosts = np.full(SHAPE, SOLID, np.uint8)
    hosts[:16] = LIQUID
    one, two = thresholds_for(residual, hosts), thresholds_for(2 * residual, hosts, scale=2.0)
    for name in (field.name for field in fields(Thresholds)):
        factor = 1 if name.endswith("_px") else 2
        np.testing.assert_allclose(getattr(two, name), factor * np.array(getattr(one, name)), rtol=1e-5)
    np.testing.assert_array_equal(
        candidates_in(2 * residual, hosts, two), candidates_in(residual, hosts, one)
    )


def test_thresholds_follow_the_noise_and_not_what_is_looked_for() -> None:
    hosts = np.full(SHAPE, SOLID, np.uint8)
    noise = blue_noise(SHAPE, SOLID_NOISE, 7)
    empty, cracked = thresholds_for(noise, hosts), thresholds_for(noise + shell(2.0)[0], hosts)
    louder = thresholds_for(1.5 * noise, hosts)
    for name in ("broad_low", "broad_high", "plate_low", "plate_high"):
        before = np.array(getattr(empty, name))
        # a wide mean sees the crack in most of this small volume
        some = slice(2) if name.startswith("plate") else ...
        np.testing.assert_allclose(np.array(getattr(cracked, name))[some], before[some], rtol=0.15)
        np.testing.assert_allclose(np.array(getattr(louder, name)), 1.5 * before, rtol=1e-4)
    assert (np.array(cracked.plate_low) > 0.5 * np.array(empty.plate_low)).all()


def test_candidates_do_not_depend_on_the_cut() -> None:
    residual = shell(1.0)[0] + blue_noise(SHAPE, SOLID_NOISE, 8)
    hosts = np.full(SHAPE, SOLID, np.uint8)
    hosts[:14], hosts[40:, :7] = LIQUID, 0
    beside = np.zeros(SHAPE, bool)
    beside[13] = True
    above = np.asarray(13.6 - np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]][0], np.float32)
    residual[8:14, 20:50, 20:50] += np.float32(LIQUID_CM1)
    t = thresholds_for(residual, hosts)
    whole, halo = find_candidates(residual, hosts, beside, above_px=above, thresholds=t), t.halo_px
    assert set(np.unique(whole & KIND_BITS)) >= {0, SOLID_VOID, LIQUID_VOID}
    for core, around in cuts(SHAPE, (19, 41, 33), halo):
        part = [np.ascontiguousarray(each[around]) for each in (residual, hosts, beside, above)]
        trim = tuple(slice(c.start - a.start, c.stop - a.start) for c, a in zip(core, around, strict=True))
        codes = find_candidates(*part[:3], above_px=part[3], thresholds=t)
        np.testing.assert_array_equal(codes[trim], whole[core])


def cuts(
    shape: tuple[int, ...], edge: tuple[int, ...], halo: int
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Blocks of a volume, and what they are read with."""
    axes = [[(a, min(a + e, n), n) for a in range(0, n, e)] for n, e in zip(shape, edge, strict=True)]
    for spans in itertools.product(*axes):
        core = tuple(slice(a, b) for a, b, _ in spans)
        yield core, tuple(slice(max(a - halo, 0), min(b + halo, n)) for a, b, n in spans)


def test_bright_specks_are_candidates_of_their_own() -> None:
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    speck = np.sqrt((z - 24) ** 2 + (y - 40) ** 2 + (x - 40) ** 2) <= 2
    residual = smooth(np.where(speck, np.float32(-5.1), np.float32(0)), sigma_px=0.6)
    hosts = np.full(SHAPE, SOLID, np.uint8)
    found = found_in(residual + blue_noise(SHAPE, SOLID_NOISE, 9), hosts, BRIGHT)
    assert (found & speck).sum() > 0.7 * speck.sum()
    assert not (found & ~near(speck)).any()


def test_a_shifted_face_is_no_void_but_a_void_at_it_is() -> None:
    z = np.arange(-20, 20, dtype=float)[:, None, None] * np.ones((1, 3, 3))
    face = np.asarray(1.0 + 0.5 * erf(z / 1.2), np.float32)
    shifted = np.asarray(1.0 + 0.5 * erf((z - 0.05) / 1.2), np.float32)
    assert np.abs(face - shifted).max() > 0.02
    assert np.abs(without_slack(face - shifted, face)).max() < 1e-6
    void = np.where(np.abs(z) < 1.5, np.float32(1.0), np.float32(0))
    left = without_slack(void, face)
    assert ((left >= 0) & (left <= void)).all()
    assert left.sum() > 0.9 * void.sum()
    # nor does it make anything of either sign
    np.testing.assert_array_equal(without_slack(-void, face), -left)


# features


def random_patch(shape: tuple[int, int, int], seed: int = 0) -> dict[str, Any]:
    """Arrays of a volume with objects of any form."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 9, (6, 6, 6)) * (rng.random((6, 6, 6)) < 0.3)
    zoomed = [np.minimum(np.arange(n) * 6 // n, 5) for n in shape]
    objects = coarse[np.ix_(*zoomed)] * (rng.random(shape) < 0.7)
    return {
        "objects": objects.astype(np.int32),
        "seeds": rng.random(shape) < 0.2,
        "residual": rng.normal(0.5, 1.0, shape).astype(np.float32),
        "score": rng.uniform(-0.2, 1.5, shape).astype(np.float32),
        "hosts": rng.integers(0, 5, shape).astype(np.uint8),
        "below_px": rng.uniform(-30, 30, shape).astype(np.float32),
        "counter_px": rng.uniform(0, 90, shape).astype(np.float32),
        "rim": rng.random(shape) < 0.1,
    }


AXIS = (45.0, 45.0)
KNOWN: dict[str, Any] = {"mu_cm1": (SOLID_CM1, LIQUID_CM1), "axis_px": AXIS}


def features_of(arrays: Mapping[str, Any], *, edge: tuple[int, ...] | None = None) -> Features:
    """Features of a volume by way of its blocks."""
    shape = arrays["objects"].shape
    results = []
    for core, around in cuts(shape, edge or shape, HALO_PX):
        trim = tuple(slice(c.start - a.start, c.stop - a.start) for c, a in zip(core, around, strict=True))
        part = {name: np.ascontiguousarray(each[around]) for name, each in arrays.items()}
        first = tuple(a.start for a in around)
        results.append(gather_features(Patch(**part, first=first, core=trim, **KNOWN)))
    return Features.merged(results, n=int(arrays["objects"].max()))


def test_sums_are_those_of_numpy() -> None:
    volume = random_patch((17, 19, 23))
    found, objects = features_of(volume), volume["objects"]
    z, y, x = np.mgrid[: objects.shape[0], : objects.shape[1], : objects.shape[2]]
    assert len(found) == 8
    for i in range(1, 9):
        own = objects == i
        expected = {
            "voxels": own.sum(),
            "seeds": volume["seeds"][own].sum(),
            "solid": (volume["hosts"][own] == SOLID).sum(),
            "rim": volume["rim"][own].sum(),
            "ends": ((z[own] == 0) | (z[own] == len(z) - 1)).sum(),
            "faces": sum(
                np.count_nonzero(np.diff(own.astype(np.int8), axis=axis, prepend=0, append=0))
                for axis in range(3)
            ),
            **{name: axis[own].sum() for name, axis in (("z", z), ("y", y), ("x", x))},
            **{
                a + b: (axes[a][own] * axes[b][own]).sum()
                for axes in ({"z": z, "y": y, "x": x},)
                for a, b in (*zip("zyx", "zyx", strict=True), ("z", "y"), ("z", "x"), ("y", "x"))
            },
        }
        for name, value in expected.items():
            assert found.column(name)[i - 1] == value, name
        assert found.shallowest_px[i - 1] == pytest.approx(volume["below_px"][own].min(), abs=1e-5)
        assert found.deepest_px[i - 1] == pytest.approx(volume["below_px"][own].max(), abs=1e-5)
        assert found.counter_px[i - 1] == pytest.approx(volume["counter_px"][own].min(), abs=1e-5)
        np.testing.assert_allclose(found.centres_px()[i - 1], [axis[own].mean() for axis in (z, y, x)])
        away = np.hypot(y[own] - AXIS[0], x[own] - AXIS[1])
        assert found.away_px[i - 1] == pytest.approx(away.mean(), rel=1e-6)
        covariance = np.cov(np.stack([axis[own] for axis in (z, y, x)]), bias=True)
        np.testing.assert_allclose(found.moments()[i - 1], np.linalg.eigvalsh(covariance), rtol=1e-6)


def test_what_is_missing_counts_within_two_voxels_and_once() -> None:
    volume = random_patch((17, 19, 23), seed=1)
    objects = np.zeros((17, 19, 23), np.int32)
    objects[5:8, 5:9, 5:9], objects[5:8, 5:9, 12:14], objects[14:, 2:4, 18] = 1, 2, 3
    volume["objects"] = objects
    found = features_of(volume)
    level = np.select([volume["hosts"] == SOLID, volume["hosts"] == LIQUID], [SOLID_CM1, LIQUID_CM1], np.inf)
    share = volume["residual"].astype(float) / level
    cubes = [ndimage.binary_dilation(objects == i, np.ones((5, 5, 5))) for i in (1, 2, 3)]
    both = cubes[0] & cubes[1]
    # where two meet the lower number takes what is as near to both
    assert both.any()
    cubes[1] &= ~cubes[0]
    wanted = [share[cube].sum() for cube in cubes]
    # 1 reaches two voxels at most: what is one voxel from 2 and two from 1 is that of 2
    nearer = ndimage.binary_dilation(objects == 2, EVERYWHERE) & ~ndimage.binary_dilation(
        objects == 1, EVERYWHERE
    )
    moved = share[both & nearer].sum()
    np.testing.assert_allclose(found.missing, [wanted[0] - moved, wanted[1] + moved, wanted[2]], atol=1e-3)


@pytest.mark.parametrize("edge", [(5, 7, 6), (17, 4, 23), (3, 19, 9), (1, 1, 12)])
def test_features_add_up_exactly_for_any_cut(edge: tuple[int, int, int]) -> None:
    volume = random_patch((17, 19, 23), seed=2)
    whole, cut = features_of(volume), features_of(volume, edge=edge)
    for name in ("sums", "least", "scores"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name))


def test_an_outline_holds_as_many_voxels_as_are_missing() -> None:
    volume = random_patch((30, 30, 30), seed=3)
    volume["score"] = np.random.default_rng(3).uniform(0, 1.2, (30, 30, 30)).astype(np.float32)
    volume["hosts"][:] = SOLID
    volume["residual"] = np.asarray(0.3 * SOLID_CM1 * (volume["objects"] > 0), np.float32)
    found = features_of(volume)
    outline = found.outline(least_frac=0.0)
    bin_width = SCORE_TOP / SCORE_BINS
    for i, drawn in enumerate(outline, start=1):
        own = volume["score"][volume["objects"] == i]
        assert found.missing[i - 1] == pytest.approx(0.3 * own.size, rel=1e-3)
        inside = np.count_nonzero(own >= np.float32(drawn))
        assert inside <= found.missing[i - 1] + 1e-6
        assert np.count_nonzero(own >= np.float32(drawn - bin_width)) > found.missing[i - 1] - 1e-6
    # never more than all, never fewer than asked for
    volume["residual"] *= 100
    assert (features_of(volume).outline(least_frac=0.0) <= bin_width).all()
    volume["residual"][:] = 0
    few = features_of(volume)
    for i, drawn in enumerate(few.outline(least_frac=0.3), start=1):
        own = volume["score"][volume["objects"] == i]
        assert 0.2 < np.count_nonzero(own >= np.float32(drawn)) / own.size <= 0.3
    assert (few.outline(least_frac=0.0) >= volume["score"].max()).all()


# classes

VOLUME = (70, 90, 90)
FACE, COUNTER = 20.0, 64.0


def places() -> tuple[NDArray[Any], ...]:
    z, y, x = np.mgrid[: VOLUME[0], : VOLUME[1], : VOLUME[2]].astype(float)
    return z, y, x


def ball(z0: float, y0: float, x0: float, radius: float) -> NDArray[np.bool_]:
    z, y, x = places()
    return np.asarray((z - z0) ** 2 + (y - y0) ** 2 + (x - x0) ** 2 <= radius**2)


def shell_at(
    z0: float, y0: float, x0: float, *, radius: float, half_width: float, reach: float
) -> NDArray[np.bool_]:
    """Part of a spherical shell that opens towards low z; `reach` across."""
    z, y, x = places()
    away = np.sqrt((z - z0 + radius) ** 2 + (y - y0) ** 2 + (x - x0) ** 2) - radius
    return np.asarray((np.abs(away) <= half_width) & (np.hypot(y - y0, x - x0) <= reach) & (z > z0 - radius))


def described(mask: NDArray[np.bool_]) -> Features:
    """Features of one object in a cell with NaK above z = 20, and NASICON from there to z = 64."""
    z, _, _ = places()
    zero = np.zeros(VOLUME, np.float32)
    hosts = np.select([z < FACE, z < COUNTER], [LIQUID, SOLID], 4)
    return features_of(
        {
            "objects": mask.astype(np.int32),
            "seeds": mask,
            "residual": zero,
            "score": zero,
            "hosts": hosts.astype(np.uint8),
            "below_px": (z - FACE).astype(np.float32),
            "counter_px": (COUNTER - z).astype(np.float32),
            "rim": np.zeros(VOLUME, bool),
        }
    )


def kind_of(mask: NDArray[np.bool_], code: int) -> str:
    """Name of what an object is."""
    (kind,) = kinds_of(described(mask), np.array([code]), blind_px=1.0)
    return next(name for name, number in PHASES.items() if number == kind)


def bent(radius: float, height: int) -> NDArray[np.bool_]:
    """A narrow piece of a cylinder about the axis."""
    z, y, x = places()
    r, turn = np.hypot(y - AXIS[0], x - AXIS[1]), np.arctan2(y - AXIS[0], x - AXIS[1])
    return np.asarray((np.abs(r - radius) <= 0.6) & (np.abs(turn) < 0.4) & (z > 35) & (z <= 35 + height))


def wall(radius: float, first: int, end: int) -> NDArray[np.bool_]:
    """A piece of a cylinder about the axis, in rows [first, end)."""
    z, y, x = places()
    r, turn = np.hypot(y - AXIS[0], x - AXIS[1]), np.arctan2(y - AXIS[0], x - AXIS[1])
    return np.asarray((np.abs(r - radius) <= 1.0) & (np.abs(turn) < 0.4) & (z >= first) & (z < end))


def streak(radius: float) -> NDArray[np.bool_]:
    """A flat void on the interface, longer across the radius than along it."""
    z, y, x = places()
    near = (np.abs(x - AXIS[1] - radius) <= 0.6) & (np.abs(y - AXIS[0]) <= 7)
    return np.asarray(near & (z < FACE) & (z > FACE - 4))


def spoke(radius: float) -> NDArray[np.bool_]:
    """The same, along the radius."""
    z, y, x = places()
    near = (np.abs(y - AXIS[0]) <= 0.6) & (np.abs(x - AXIS[1] - radius) <= 7)
    return np.asarray(near & (z < FACE) & (z > FACE - 4))


def upright(x0: float, reach: float) -> NDArray[np.bool_]:
    """An upright plane that faces the axis, as high and wide as the wall of a ring."""
    z, y, x = places()
    return np.asarray((np.abs(x - x0) <= 1.0) & (np.abs(y - AXIS[0]) <= reach) & (z >= 25) & (z < 60))


def plain(z0: float, reach: float, *, y0: float = 45.0, x0: float = 65.0) -> NDArray[np.bool_]:
    """A level disc of one voxel."""
    z, y, x = places()
    return np.asarray((np.abs(z - z0) < 0.6) & (np.hypot(y - y0, x - x0) <= reach))


OBJECTS: dict[str, tuple[NDArray[np.bool_], int, str]] = {
    "a ball in NASICON": (ball(40, 30, 60, 5.0), SOLID_VOID, "pore"),
    "a small ball in NASICON": (ball(40, 30, 60, 1.8), SOLID_VOID, "pore"),
    "a ball near the face": (ball(26, 30, 60, 5.0), SOLID_VOID, "pore"),
    "a shell": (shell_at(45, 50, 40, radius=30, half_width=0.9, reach=22), SOLID_VOID, "crack"),
    "a disc": (plain(40, 9), SOLID_VOID, "crack"),
    "a short disc at the face": (plain(21, 5), SOLID_VOID, "crack"),
    "a short disc at the electrode": (plain(63, 5), SOLID_VOID, "crack"),
    "a ball in NaK": (ball(10, 30, 60, 5.0), LIQUID_VOID, "bubble"),
    "a ball at the collector": (ball(4, 30, 60, 4.0), LIQUID_VOID, "bubble"),
    "a cap at the interface": (
        ball(21, 30, 60, 6.0) & (places()[0] < FACE), LIQUID_VOID, "interfacial_void",
    ),
    "a bright ball": (ball(40, 30, 60, 3.0), BRIGHT, "inclusion"),
    "a large crack that crosses the axis": (plain(40, 20, x0=45), SOLID_VOID, "crack"),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTS)
def test_what_an_object_is(name: str) -> None:
    mask, code, kind = OBJECTS[name]
    assert kind_of(mask, code) == kind


def test_what_an_object_touches() -> None:
    for mask, names in (
        (plain(21, 6), {"interface"}),
        (plain(62, 6), {"counter"}),
        (plain(40, 6), set()),
        (ball(0, 45, 60, 4), {"rim"}),
        ((places()[0] > 20) & (places()[0] < 64) & (np.hypot(places()[1] - 45, places()[2] - 60) < 2),
         {"interface", "counter"}),
    ):  # fmt: skip
        assert {key for key, value in touching(described(mask)).items() if value[0]} == names


def thread(half: float) -> NDArray[np.bool_]:
    """A thin upright rod on the axis."""
    return np.asarray(
        (np.hypot(places()[1] - AXIS[0], places()[2] - AXIS[1]) < 1.3) & (np.abs(places()[0] - 40) < half)
    )


@pytest.mark.parametrize(
    ("mask", "code", "stays"),
    [
        pytest.param(ball(10, 30, 60, 1.5), LIQUID_VOID, False, id="too small in NaK"),
        pytest.param(ball(10, 30, 60, 3.0), LIQUID_VOID, True, id="a bubble"),
        pytest.param(ball(40, 30, 60, 1.5), SOLID_VOID, True, id="a small pore"),
        pytest.param(ball(40, 45, 46, 2.0), SOLID_VOID, False, id="a speck on the axis"),
        pytest.param(thread(9), SOLID_VOID, False, id="a thread on the axis"),
        pytest.param(bent(25.0, 6), SOLID_VOID, False, id="an arc of a ring"),
        pytest.param(wall(35.0, 25, 60), SOLID_VOID, False, id="a wall that a ring leaves in NASICON"),
        pytest.param(streak(35.0), LIQUID_VOID, False, id="a streak on the interface that a ring leaves"),
        pytest.param(spoke(35.0), LIQUID_VOID, True, id="as long, but along the radius"),
        pytest.param(upright(80.0, 13.6), SOLID_VOID, True, id="an upright crack that faces the axis"),
        pytest.param(plain(10, 9), LIQUID_VOID, False, id="a sheet in NaK"),
        pytest.param(wall(25.0, 2, 18), LIQUID_VOID, False, id="a wall that a ring leaves in NaK"),
        pytest.param(plain(40, 20, x0=45), SOLID_VOID, True, id="a large crack across the axis"),
    ],
)
def test_what_is_left_out(mask: NDArray[np.bool_], code: int, *, stays: bool) -> None:
    assert kept(described(mask), np.array([code]), blind_px=1.0, axis_px=AXIS)[0] == stays


# chips


def pieces_of(voids: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of chips of the cell above, by way of the passes' functions."""
    z, _, _ = places()
    hosts = np.where((z > FACE) & (z < COUNTER), np.uint8(SOLID), np.uint8(0))
    below = np.asarray(z - FACE, np.float32)
    codes = np.where(voids, np.uint8(SOLID_VOID), np.uint8(0))
    labels, n = ndimage.label(chips.solid_left(hosts, codes, below))
    labels = labels.astype(np.uint32)
    edge = np.zeros(VOLUME, bool)
    edge[:, (0, -1)] = edge[:, :, (0, -1)] = True
    reach = chips.reach_of(labels, n, below_px=below, rim=edge)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)[1:]
    chosen = np.concatenate([[False], chips.chips_among(sizes, reach[:, 0], reach[:, 1])])
    return np.asarray(chosen[labels])


def lens(*, gap: float = 0.0) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A shell that ends at the surface, in part left out over an angle; and what lies above it."""
    z, y, x = places()
    away = np.sqrt((z + 10) ** 2 + (y - 45) ** 2 + (x - 45) ** 2) - 45
    open_ = np.abs(np.arctan2(y - 45, x - 45)) >= gap
    return (np.abs(away) <= 1.0) & open_ & (z > FACE - 2), (away < -1) & (z > FACE)


def test_a_lens_that_is_cut_off_is_a_chip() -> None:
    crack, inside = lens()
    found = pieces_of(crack)
    assert found.any()
    assert not (found & ~inside).any()
    # less the crack's margin of a voxel, and the rows at the surface
    deep = ndimage.binary_erosion(inside, EVERYWHERE) & (places()[0] >= FACE + chips.FROM_PX)
    assert found[deep].all()


def test_a_lens_that_hangs_on_is_none() -> None:
    crack, _ = lens(gap=0.3)
    assert not pieces_of(crack).any()


def test_what_is_cut_off_below_the_surface_or_by_the_view_is_no_chip() -> None:
    hollow = ball(42, 45, 45, 12) & ~ball(42, 45, 45, 10)
    assert not pieces_of(hollow).any()
    z, _, x = places()
    wall = np.abs(x - 60) < 1.5
    assert not pieces_of(wall & (z > FACE)).any()
    assert not pieces_of(np.zeros(VOLUME, bool)).any()
