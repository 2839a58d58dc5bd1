"""Measures against shapes of known size, rendered here with oversampling, in white and in blue noise."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from xctpipe.measure.fill import settled
from xctpipe.measure.percolation import crack_voxels
from xctpipe.measure.regions import HALO_PX, Context, Patch, Region, inventory_of
from xctpipe.measure.registry import gather_block, gathers_of, merge, registered, table_of
from xctpipe.segment.scene import LIQUID, SOLID, Level, Scene, Surface

MU = {SOLID: 2.332, LIQUID: 0.224}
BLUR = 0.8
SEEN_BLUR = float(np.sqrt(BLUR**2 + 1 / 12))
"""Of edges: a voxel averages over itself too."""
VOXEL_UM = 10.0
EDGES = np.array([1.0, 2, 3, 4, 6, 8, 12, 16])


def rendered(shape, inside, *, parts=5):
    """Share of each voxel that lies in a shape given by a function of (z, y, x)."""
    steps = (np.arange(parts) + 0.5) / parts - 0.5
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    total = np.zeros(shape, np.float32)
    for a in steps:
        for b in steps:
            for c in steps:
                total += inside(z + a, y + b, x + c)
    total /= parts**3
    # some are used by several tests
    total.flags.writeable = False
    return total


def noise_of(shape, sigma, seed, *, blue):
    white = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    if blue:
        fy, fx = np.meshgrid(np.fft.fftfreq(shape[1]), np.fft.fftfreq(shape[2]), indexing="ij")
        ramp = np.sqrt(np.hypot(fy, fx))
        white = np.fft.ifft2(np.fft.fft2(white, axes=(1, 2)) * ramp, axes=(1, 2)).real.astype(np.float32)
    return white * np.float32(sigma / white.std())


def measured_noise(noise):
    means = []
    for edge in EDGES.astype(int):
        cut = [n // edge for n in noise.shape]
        part = noise[tuple(slice(0, n * edge) for n in cut)]
        blocks = part.reshape(cut[0], edge, cut[1], edge, cut[2], edge)
        means.append(blocks.mean(axis=(1, 3, 5)).std())
    return np.array(means)


class Sample:
    """A block of one host with holes in it."""

    def __init__(self, gone, labels, kinds, *, host=SOLID, sigma=0.0, seed=0, blue=False, surfaces=None):
        shape = labels.shape
        noise = noise_of(shape, sigma, seed, blue=blue) if sigma else np.zeros(shape, np.float32)
        self.expected = np.full(shape, MU[host] + 0.07, np.float32)
        self.grey = self.expected - np.float32(MU[host]) * ndimage.gaussian_filter(gone, BLUR) + noise
        self.labels, self.hosts = labels.astype(np.int32), np.full(shape, host, np.uint8)
        levels = {
            h: Level(
                mu,
                np.zeros(1),
                np.array([0.07]),
                max(sigma, 1e-6),
                EDGES,
                measured_noise(noise) + 1e-7 / EDGES,
            )
            for h, mu in MU.items()
        }
        scene = Scene(
            shape, VOXEL_UM, (shape[1] / 2, shape[2] / 2), 1e4, "nak", surfaces or {},
            levels[SOLID], levels[LIQUID], SEEN_BLUR,
        )  # fmt: skip
        self.context = Context(scene, inventory_of(self.labels, kinds))

    def regions(self, block):
        shape = self.labels.shape
        for corner in np.ndindex(*(-(-n // b) for n, b in zip(shape, block, strict=True))):
            first = [i * b for i, b in zip(corner, block, strict=True)]
            last = [min(f + b, n) for f, b, n in zip(first, block, shape, strict=True)]
            low = [max(f - HALO_PX, 0) for f in first]
            box = tuple(slice(a, min(b + HALO_PX, n)) for a, b, n in zip(low, last, shape, strict=True))
            core = tuple(slice(f - a, b - a) for f, b, a in zip(first, last, low, strict=True))
            arrays = [a[box] for a in (self.grey, self.expected, self.labels, self.hosts)]
            yield Region(Patch(*arrays, tuple(low), core), self.context)

    def table(self, block=None):
        block = block or self.labels.shape
        return table_of(merge(gather_block(r) for r in self.regions(block)), self.context)


@cache
def ball(radius, shape=None, centre=None):
    n = int(2 * radius + 26)
    shape = shape or (n, n, n)
    centre = centre or [(m - 1) / 2 + 0.23 for m in shape]
    return rendered(
        shape, lambda z, y, x: (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
    )


@cache
def cap_shell(opening, *, radius=40.0, height=12.0, shape=(48, 96, 96)):
    """Spherical-cap shell; its volume and the area of its middle are known."""
    centre = (radius + 14.2, 47.3, 47.6)
    top = centre[0] - radius + height

    def inside(z, y, x):
        r = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
        return (np.abs(r - radius) < opening / 2) & (z < top)

    def part(r):
        depth = r - (radius - height)
        return np.pi * depth**2 * (3 * r - depth) / 3

    volume = part(radius + opening / 2) - part(radius - opening / 2)
    gone = rendered(shape, inside)
    return gone, volume, 2 * np.pi * radius * height


def crack_mask(gone):
    """What a sheet filter would give: a voxel wider than the crack."""
    return (ndimage.gaussian_filter(gone, 1.0) > 0.12).astype(np.int32)


@pytest.mark.parametrize("name", sorted(registered()))
def test_every_measure_says_what_it_is(name):
    one = registered()[name]
    for word in ("Bias", "Source"):
        assert word in one.doc, f"{name} gives no {word.lower()}"
    units = {"_um": "um", "_um2": "um2", "_um3": "um^3", "_deg": "degrees"}
    unit = next((text for end, text in units.items() if name.endswith(end)), None)
    assert unit is None or unit in one.doc
    assert one.kinds
    assert one.gathers


@pytest.fixture(scope="module")
def mixed():
    shape = (56, 90, 90)
    gone, _, _ = cap_shell(2.0, shape=shape)
    labels = crack_mask(gone) * 5
    for i, (centre, radius) in enumerate([((45, 20, 70), 3.0), ((44, 60, 20), 7.5), ((6, 8, 8), 2.2)]):
        one = ball(radius, shape, centre)
        labels[one > 0.5] = (2, 9, 11)[i]
        gone = np.maximum(gone, one)
    labels[19:23, 40:50, 40:50] = np.where(labels[19:23, 40:50, 40:50] == 0, 12, labels[19:23, 40:50, 40:50])
    flat = np.full(shape[1:], 9.8, np.float32)
    faces = {"interface": Surface(flat, np.array([9.8, 0, 0]), 0.1, 0.1)}
    kinds = {5: "crack", 2: "pore", 9: "bubble", 11: "pore", 12: "chip"}
    return Sample(gone, labels, kinds, sigma=0.5, surfaces=faces)


@pytest.mark.parametrize("block", [(56, 33, 90), (28, 45, 45), (19, 90, 37)])
def test_tables_do_not_depend_on_how_the_volume_is_cut(mixed, block):
    whole, parts = mixed.table(), mixed.table(block)
    for name, column in whole.items():
        np.testing.assert_array_equal(column, parts[name], err_msg=name)


def test_voxels_for_percolation_do_not_depend_on_how_the_volume_is_cut(mixed):
    def rows(block):
        found = [crack_voxels(r) for r in mixed.regions(block)]
        table = np.concatenate([np.c_[v.places, v.objects, v.openings_px] for v in found])
        return table[np.lexsort(table.T[2::-1])]

    np.testing.assert_array_equal(rows((56, 90, 90)), rows((28, 37, 45)))


def test_merging_is_the_same_in_any_grouping(mixed):
    parts = [gather_block(r) for r in mixed.regions((28, 45, 45))]
    one = table_of(merge(parts), mixed.context)
    two = table_of(merge([merge(parts[5:]), merge(parts[:5][::-1])]), mixed.context)
    for name, column in one.items():
        np.testing.assert_array_equal(column, two[name], err_msg=name)


def test_no_two_gathers_share_a_column():
    names = [c for g in gathers_of(registered().values()) for c in g.columns]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("radius", "error"), [(2.0, 0.02), (3.0, 0.02), (5.0, 0.01), (8.0, 0.01), (13.0, 0.005)]
)
@pytest.mark.parametrize("kind", ["bubble", "pore", "interfacial_void"])
def test_balls_without_noise(radius, error, kind):
    host = SOLID if kind == "pore" else LIQUID
    gone = ball(radius)
    table = Sample(gone, gone > 0.5, {1: kind}, host=host).table()
    truth = 4 / 3 * np.pi * (radius * VOXEL_UM) ** 3
    assert table["volume_um3"][0] == pytest.approx(truth, rel=error + 0.02 / radius)
    assert table["volume_low_um3"][0] <= truth <= table["volume_high_um3"][0]


@pytest.mark.parametrize("radius", [3.0, 3.6, 5.0, 8.0, 12.0])
def test_a_voxelised_ball_is_a_ball(radius):
    gone = ball(radius)
    table = Sample(gone, gone > 0.5, {1: "bubble"}, host=LIQUID).table()
    assert table["sphericity"][0] == pytest.approx(1, abs=0.03)
    assert table["area_um2"][0] == pytest.approx(4 * np.pi * (radius * VOXEL_UM) ** 2, rel=0.04)
    assert table["feret_um"][0] == pytest.approx(2 * radius * VOXEL_UM, abs=1.5 * VOXEL_UM)
    assert min(table["flatness"][0], table["elongation"][0]) > 0.95


@pytest.mark.parametrize("axes", [(3, 5, 5), (4, 4, 7), (2.5, 4, 6)])
def test_ellipsoids_are_not_taken_for_balls(axes):
    n = (34, 36, 40)
    c = [(m - 1) / 2 + 0.3 for m in n]
    gone = rendered(n, lambda *p: sum(((v - m) / a) ** 2 for v, m, a in zip(p, c, axes, strict=True)) < 1)
    table = Sample(gone, gone > 0.5, {1: "pore"}).table()
    assert table["volume_um3"][0] == pytest.approx(4 / 3 * np.pi * np.prod(axes) * VOXEL_UM**3, rel=0.04)


@pytest.mark.parametrize("opening", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_cracks_of_half_a_voxel_and_more(opening, sigma):
    gone, volume, area = cap_shell(opening)
    faces = {"interface": Surface(np.full((96, 96), 2.0, np.float32), np.array([2.0, 0, 0]), 0.1, 0.1)}
    table = Sample(gone, crack_mask(gone), {1: "crack"}, sigma=sigma, surfaces=faces).table()
    assert table["volume_um3"][0] == pytest.approx(volume * VOXEL_UM**3, rel=0.02 if sigma == 0 else 0.05)
    assert table["opening_median_um"][0] == pytest.approx(opening * VOXEL_UM, abs=0.15 * VOXEL_UM)
    assert table["opening_p95_um"][0] == pytest.approx(opening * VOXEL_UM, abs=0.35 * VOXEL_UM)
    # the mask ends about a voxel beyond the rim, at a radius of 28 voxels
    assert table["area_um2"][0] == pytest.approx(area * VOXEL_UM**2, rel=0.1)
    low, high = table["volume_low_um3"][0], table["volume_high_um3"][0]
    assert low <= volume * VOXEL_UM**3 <= high
    deepest = 14.2 + 12 - 2.0
    assert table["depth_um"][0] == pytest.approx(deepest * VOXEL_UM, abs=2 * VOXEL_UM)


@pytest.mark.parametrize("tilt_deg", [0.0, 20.0, 40.0, 70.0, 90.0])
def test_a_tilted_plate_has_its_opening_and_its_angle(tilt_deg):
    tilt, shape = np.radians(tilt_deg), (64, 64, 64)
    n = np.array([np.cos(tilt), np.sin(tilt) * 0.8, np.sin(tilt) * 0.6])
    c = 31.7

    def inside(z, y, x):
        p = [z - c, y - c, x - c]
        along = n[0] * p[0] + n[1] * p[1] + n[2] * p[2]
        return (np.abs(along) < 1.0) & (p[0] ** 2 + p[1] ** 2 + p[2] ** 2 < 20**2)

    gone = rendered(shape, inside)
    table = Sample(gone, crack_mask(gone), {1: "crack"}).table()
    assert table["opening_median_um"][0] == pytest.approx(2 * VOXEL_UM, abs=0.12 * VOXEL_UM)
    assert table["phi_deg"][0] == pytest.approx(tilt_deg, abs=4)
    assert table["area_um2"][0] == pytest.approx(np.pi * 20**2 * VOXEL_UM**2, rel=0.12)
    assert table["feret_um"][0] == pytest.approx((2 * 20 + 2) * VOXEL_UM, abs=3 * VOXEL_UM)


def test_metal_misses_less_and_the_volume_makes_up_for_it():
    gone, volume, _ = cap_shell(3.0)
    share = 1 - MU[LIQUID] / MU[SOLID]
    labels = crack_mask(gone)
    filled = Sample(gone * share, labels, {1: "crack_filled"}).table()
    assert filled["volume_um3"][0] == pytest.approx(volume * VOXEL_UM**3, rel=0.02)
    taken_for_void = Sample(gone * share, labels, {1: "crack"}).table()
    assert taken_for_void["volume_um3"][0] == pytest.approx(volume * share * VOXEL_UM**3, rel=0.02)
    assert taken_for_void["volume_low_um3"][0] < volume * VOXEL_UM**3 < taken_for_void["volume_high_um3"][0]


@pytest.mark.parametrize(("share", "answer"), [(1.0, "void"), (1 - MU[LIQUID] / MU[SOLID], "metal")])
def test_wide_cracks_say_what_fills_them(share, answer):
    shape = (40, 60, 60)
    gone = rendered(
        shape, lambda z, y, x: (np.abs(z - 19.5) < 3.5) & ((y - 30) ** 2 + (x - 30) ** 2 < 20**2), parts=2
    )
    sample = Sample(gone * share, gone > 0.5, {1: "crack"}, sigma=0.3)
    assert sample.table()["fill"][0] == answer


def test_a_thin_crack_does_not_say_what_fills_it():
    gone, _, _ = cap_shell(2.0)
    assert Sample(gone, crack_mask(gone), {1: "crack"}).table()["fill"][0] == "unknown"


@pytest.mark.parametrize(("share", "answer"), [(1.0, "void"), (1 - MU[LIQUID] / MU[SOLID], "metal")])
def test_cracks_of_four_voxels_say_what_fills_them_by_their_profile(share, answer):
    gone, volume, _ = cap_shell(4.0)
    sample = Sample(gone * share, crack_mask(gone), {1: "crack"}, sigma=0.15)
    part = merge(gather_block(r) for r in sample.regions(sample.labels.shape))
    context = settled(part, sample.context)
    table = table_of(part, context)
    assert table["fill"][0] == answer
    assert table["kind"][0] == {"void": "crack", "metal": "crack_filled"}[answer]
    # the volume knows what was found, and so does its bracket
    assert table["volume_um3"][0] == pytest.approx(volume * VOXEL_UM**3, rel=0.03)
    bracket = (table["volume_high_um3"] - table["volume_low_um3"])[0]
    assert bracket < 2 * 1.96 * 0.05 * volume * VOXEL_UM**3


class Faced(Sample):
    """Voids in NASICON beside NaK, seen by rows that average brightness over a blur along z."""

    def __init__(self, gone, labels, kinds, *, face, path_cm):
        flat = np.full(gone.shape[1:], face, np.float32)
        surface = Surface(flat, np.array([face, 0, 0]), 0.05, 0.05)
        super().__init__(gone, labels, kinds, surfaces={"interface": surface})
        self.context = replace(self.context, scene=replace(self.context.scene, path_cm=path_cm, edge_parts=1))
        share = np.clip(np.arange(gone.shape[0]) - face + 0.5, 0, 1)[:, None, None]
        whole = MU[LIQUID] + share * (MU[SOLID] - MU[LIQUID]) + np.zeros(gone.shape)
        self.hosts = np.where(np.arange(gone.shape[0])[:, None, None] > face, SOLID, LIQUID)
        self.hosts = (self.hosts + np.zeros(gone.shape)).astype(np.uint8)
        self.expected = self.seen(whole, 0 * gone, path_cm)
        self.grey = self.seen(whole, gone * MU[SOLID], path_cm)

    @staticmethod
    def seen(whole, gone, path_cm):
        """A detector's rows: logarithm of the blurred brightness; a void is a small part of the way."""
        small = 1e-3
        light = [np.exp(-(whole - part) * path_cm) for part in (0 * gone, small * gone)]
        dark, bright = (
            -np.log(ndimage.gaussian_filter1d(each, BLUR, axis=0, mode="nearest")) / path_cm for each in light
        )
        return (dark + (bright - dark) / small).astype(np.float32)


@pytest.mark.parametrize("face", [11.5, 11.8, 12.2])
@pytest.mark.parametrize("path_cm", [1e-3, 0.7])
def test_the_mouth_of_a_crack_is_made_up_for(face, path_cm):
    """Without it an upright crack lacks a third of a voxel of its depth where rows average brightness."""
    shape, depth = (40, 50, 50), 14.0

    def inside(z, y, x):
        return (np.abs(y - 24.6) < 1.0) & (z > face) & (z < face + depth) & (np.abs(x - 25) < 12)

    gone = rendered(shape, inside)
    volume = gone.sum()
    labels = ndimage.gaussian_filter(gone, (0, 1, 1)) > 0.12
    labels[: int(face) + 3] = False
    table = Faced(gone, labels, {1: "crack"}, face=face, path_cm=path_cm).table()
    assert table["volume_um3"][0] == pytest.approx(volume * VOXEL_UM**3, rel=0.025)
    assert table["touches_interface"][0]


def test_chips_have_the_volume_that_was_counted():
    shape = (40, 40, 40)
    labels = np.zeros(shape, np.int32)
    labels[15:25, 10:30, 10:30] = 3
    table = Sample(np.zeros(shape, np.float32), labels, {3: "chip"}).table()
    assert table["volume_um3"][0] == table["count_volume_um3"][0] == 4000 * VOXEL_UM**3
    assert table["volume_low_um3"][0] < 4000 * VOXEL_UM**3
    # a mask of a crack that is a voxel too wide on all sides
    assert table["volume_high_um3"][0] > 12 * 22 * 22 * VOXEL_UM**3


def test_positions_and_what_cuts_objects():
    shape, flat = (40, 50, 50), np.full((50, 50), 9.5, np.float32)
    faces = {"interface": Surface(flat, np.array([9.5, 0, 0]), 0.1, 0.1)}
    labels = np.zeros(shape, np.int32)
    labels[20:23, 10:13, 30:33], labels[0:3, 20:23, 20:23], labels[10:12, 40:44, 8:12] = 4, 6, 7
    table = Sample((labels > 0) * 1.0, labels, dict.fromkeys((4, 6, 7), "pore"), surfaces=faces).table()
    assert table["object"].tolist() == [4, 6, 7]
    np.testing.assert_allclose(table["z_um"], [210, 10, 105])
    np.testing.assert_allclose(table["y_um"], [-140, -40, 165])
    np.testing.assert_allclose(table["x_um"], [60, -40, -155])
    assert table["truncated"].tolist() == [False, True, False]
    assert table["touches_interface"].tolist() == [False, False, True]
    np.testing.assert_allclose(table["interface_distance_um"], [100, 70, 0])
    np.testing.assert_allclose(table["count_volume_um3"], np.array([27, 27, 32]) * VOXEL_UM**3)


def test_an_empty_block_is_no_error():
    empty = np.zeros((20, 20, 20))
    table = Sample(empty, empty, {}).table()
    assert all(len(column) == 0 for column in table.values())


@pytest.mark.parametrize("blue", [False, True])
@pytest.mark.parametrize(("radius", "sigma"), [(4.0, 0.38), pytest.param(10.0, 0.38, marks=pytest.mark.slow)])
def test_intervals_hold_the_truth_in_white_and_blue_noise(radius, sigma, blue):
    """At least 85 % of 96 intervals; errors within the gates of bubbles in blue noise."""
    step = int(2 * radius + 22)
    shape = (step, 4 * step, 4 * step)
    places = [
        (step / 2 - 0.3, (i + 0.5) * step + 0.2, (j + 0.5) * step + 0.1) for i in range(4) for j in range(4)
    ]
    gone, labels = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    for i, place in enumerate(places, start=1):
        box = tuple(slice(int(c - radius - 3), int(c + radius + 4)) for c in place)
        one = ball(
            radius,
            tuple(s.stop - s.start for s in box),
            tuple(c - s.start for c, s in zip(place, box, strict=True)),
        )
        gone[box], labels[box] = one, (one > 0.5) * i
    truth = 4 / 3 * np.pi * (radius * VOXEL_UM) ** 3
    held, errors = [], []
    for seed in range(6):
        sample = Sample(
            gone,
            labels,
            dict.fromkeys(range(1, 17), "bubble"),
            host=LIQUID,
            sigma=sigma,
            seed=seed,
            blue=blue,
        )
        table = sample.table()
        held += ((table["volume_low_um3"] <= truth) & (truth <= table["volume_high_um3"])).tolist()
        errors += (table["volume_um3"] / truth - 1).tolist()
    assert np.mean(held) >= 0.85
    assert abs(np.mean(errors)) < 0.03
    if blue:
        assert np.median(np.abs(errors)) < (0.10 if radius < 10 else 0.03)
