"""Layers, faces and levels of made-up volumes whose planes and levels are known in closed form."""

import math

import numpy as np
import pytest
from scipy import special

from xctpipe import volume as volumes
from xctpipe.errors import BadScan
from xctpipe.plan import BASE_BYTES
from xctpipe.recipe import make_recipe
from xctpipe.segment import edge as edges
from xctpipe.segment.expected import above_interface_px, expected, hosts
from xctpipe.segment.geometry import find_scene
from xctpipe.segment.levels import fit_level, rows_between
from xctpipe.segment.plane import robust_plane
from xctpipe.segment.scene import COLLECTOR, COUNTER, LIQUID, OUTSIDE, SOLID, Level
from xctpipe.segment.surface import Place
from xctpipe.segment.view import offset_at, whole_box
from xctpipe.sight import BYTES_PER_VOXEL, MOST_VOXELS, _most_voxels, finer, see

MU = {COLLECTOR: 0.545, LIQUID: 0.224, SOLID: 2.33, COUNTER: 0.174}
KNOWN = {
    "mu_solid_cm1": MU[SOLID],
    "mu_liquid_cm1": MU[LIQUID],
    "mu_collector_cm1": MU[COLLECTOR],
    "mu_counter_cm1": MU[COUNTER],
}
SHAPE = (96, 100, 100)
AXIS = (49.5, 49.5)
VIEW = 47.0
FACES = {"collector": 14.3, "interface": 44.62, "counter": 74.21}
BLUR = 0.7


def radius():
    y, x = np.indices(SHAPE[1:]) - np.reshape(AXIS, (2, 1, 1))
    return y, x, np.hypot(y, x)


def offsets(mu):
    """What an interior scan of a cell beside the axis leaves: more in NaK at the rim, less in NASICON."""
    y, x, r = radius()
    sign = -0.08 if mu > 1 else 0.05
    return 0.06 + sign * (r / VIEW) ** 4 + 0.4 * sign * (r / VIEW) ** 2 * x / VIEW - 0.2 * sign * y / VIEW


def cell(*, tilt_deg=0.0, azimuth_rad=0.7, noise=0.1, lift=None, seed=1, points=1):
    """Volume of collector, NaK, NASICON, counter electrode (Na), its noise-free values, and its heights."""
    y, x, _ = radius()
    slope = math.tan(math.radians(tilt_deg))
    lean = slope * (math.cos(azimuth_rad) * y + math.sin(azimuth_rad) * x)
    heights = {name: z + lean for name, z in FACES.items()}
    seen = dict(heights)
    if lift is not None:
        seen["interface"] = heights["interface"] - lift
    z = np.arange(SHAPE[0])[:, None, None]
    layers = [MU[k] + offsets(MU[k]) for k in (COLLECTOR, LIQUID, SOLID, COUNTER)]
    out = np.broadcast_to(layers[0], SHAPE).copy()
    for name, low, high in zip(FACES, layers[:-1], layers[1:], strict=True):
        out += special.ndtr((z - seen[name]) / BLUR) * (high - low)
    noisy = out + np.random.default_rng(seed).normal(0, noise, SHAPE)
    return noisy.astype(np.float32), out, heights


def scene_of(volume, **changes):
    return find_scene(volume, voxel_um=13.0, **(KNOWN | {"axis_px": AXIS, "view_px": VIEW} | changes))


def plane_error(scene, heights, *, flipped=False):
    y, x, r = radius()
    inside = r <= VIEW
    out = {}
    for name, surface in scene.surfaces.items():
        found = surface.reference[0] + surface.reference[1] * y + surface.reference[2] * x
        true = SHAPE[0] - 1 - heights[name] if flipped else heights[name]
        out[name] = float(np.abs(found - true)[inside].max())
    return out


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("tilt_deg", [0.0, 3.0])
def test_planes_and_order_are_found_for_either_order_and_tilted(flipped, tilt_deg):
    volume, _, heights = cell(tilt_deg=tilt_deg)
    scene = scene_of(volume[::-1].copy() if flipped else volume)
    assert scene.up == ("na" if flipped else "nak")
    errors = plane_error(scene, heights, flipped=flipped)
    assert set(errors) == set(FACES)
    # at the rim, where a plane is known worst
    assert errors["interface"] < 0.05
    assert errors["counter"] < 0.05
    assert errors["collector"] < 0.1
    assert scene.blur_px == pytest.approx(BLUR, abs=0.05)


def test_unseen_voxels_and_the_recipe_are_respected():
    volume, _, heights = cell()
    volume[:, 20:26, 30:50] = np.nan
    volume[40:44] = np.where(np.random.default_rng(0).random((4, *SHAPE[1:])) < 0.2, np.nan, volume[40:44])
    scene = scene_of(volume, up="nak")
    assert plane_error(scene, heights)["interface"] < 0.05
    assert any("as the recipe says" in note for note in scene.notes)


def test_chips_do_not_move_the_reference_and_are_followed():
    _, _, r = radius()
    lift = np.where(np.hypot(radius()[0] - 10, radius()[1] + 8) < 22, 3.5, 0.0)
    assert 0.2 < (lift > 0)[r < VIEW].mean() < 0.3
    volume, _, heights = cell(lift=lift)
    scene = scene_of(volume)
    assert plane_error(scene, heights)["interface"] < 0.1
    used = scene.surfaces["interface"].used_px - heights["interface"]
    middle = np.hypot(radius()[0] - 10, radius()[1] + 8) < 19
    assert np.abs(used[middle] + 3.5).max() < 0.5
    away = (np.hypot(radius()[0] - 10, radius()[1] + 8) > 26) & (r < VIEW)
    assert np.abs(used[away]).max() < 0.1


def test_levels_are_not_moved_by_bubbles_pores_and_cracks():
    volume, _, _ = cell(noise=0.15)
    z, y, x = np.indices(SHAPE)
    bubble = (z - 28) ** 2 + (y - 45) ** 2 + (x - 55) ** 2 < 11**2
    volume[bubble] -= np.float32(MU[LIQUID])
    rng = np.random.default_rng(3)
    for cz, cy, cx in zip(
        *(rng.integers(lo, hi, 40) for lo, hi in ((50, 69), (8, 92), (8, 92))), strict=True
    ):
        pore = (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 3**2
        volume[pore] -= np.float32(MU[SOLID])
    scene = scene_of(volume)
    dy, dx, r = radius()
    inside = r < 0.97 * VIEW
    for level, share in ((scene.solid, 0.002), (scene.liquid, 0.02)):
        error = (offset_at(level, dy, dx) - offsets(level.mu_cm1))[inside]
        assert abs(error.mean()) < share * level.mu_cm1
        assert np.sqrt((error**2).mean()) < 2 * share * level.mu_cm1
        assert level.noise_cm1 == pytest.approx(0.15, rel=0.05)


@pytest.mark.parametrize("radius_px", [12, 15, 19])
def test_the_level_of_nak_does_not_follow_a_bubble_that_fills_most_of_its_place(radius_px):
    volume, _, _ = cell(noise=0.25)
    z, y, x = np.indices(SHAPE)
    bubble = (z - 29.5) ** 2 + (y - 45) ** 2 + (x - 55) ** 2 < radius_px**2
    bubble &= (z > FACES["collector"] + 1) & (z < FACES["interface"] - 1)
    volume[bubble] -= np.float32(MU[LIQUID])
    level = scene_of(volume).liquid
    dy, dx, r = radius()
    share = bubble[:, r < VIEW].mean(axis=1)[19:41].mean()
    error = (offset_at(level, dy, dx) - offsets(level.mu_cm1))[r < 0.97 * VIEW]
    assert np.abs(error).max() < 0.15 * level.mu_cm1
    assert abs(error.mean()) < 0.02 * level.mu_cm1
    assert level.dark_frac == pytest.approx(share, rel=0.35)


def test_how_much_of_the_nak_shows_between_voids_is_known():
    volume, _, _ = cell(noise=0.1)
    hidden = np.hypot(*(np.indices(SHAPE[1:]) - 49.5)) < 30
    volume[16:43, hidden] -= np.float32(MU[LIQUID])
    place = Place(AXIS, VIEW, (0, SHAPE[1]), (0, SHAPE[2]))
    rows = rows_between(
        place, low=FACES["collector"], high=FACES["interface"], margin_px=4.0, n_rows=SHAPE[0]
    )
    level = fit_level(volume, rows=rows, place=place, mu_cm1=MU[LIQUID])
    assert level.seen_frac == pytest.approx(1 - (30 / VIEW) ** 2, abs=0.1)
    assert level.dark_frac == pytest.approx((30 / VIEW) ** 2, abs=0.1)
    dy, dx, r = radius()
    error = (offset_at(level, dy, dx) - offsets(level.mu_cm1))[r < 0.97 * VIEW]
    assert np.abs(error).max() < 0.1 * level.mu_cm1
    assert scene_of(cell(noise=0.1)[0]).liquid.seen_frac == pytest.approx(1.0)


def test_noise_of_means_of_white_noise_falls_with_the_root_of_the_volume():
    scene = scene_of(cell(noise=0.2)[0])
    level = scene.solid
    few = level.noise_edges_px <= 6
    white = 0.2 / level.noise_edges_px**1.5
    assert level.noise_of_means_cm1[few] == pytest.approx(white[few], rel=0.15)


def test_expected_is_the_noise_free_cell_and_a_box_is_cut_from_the_whole():
    volume, clean, _ = cell(tilt_deg=1.0)
    scene = scene_of(volume)
    whole = expected(scene, whole_box(scene))
    inside = radius()[2] < 0.95 * VIEW
    assert np.sqrt(((whole - clean)[:, inside] ** 2).mean()) < 0.01
    assert (whole[:, radius()[2] > VIEW] == 0).all()
    box = ((3, 60), (17, 41), (60, 100))
    cut = tuple(slice(*span) for span in box)
    assert np.array_equal(expected(scene, box), whole[cut])
    assert np.array_equal(hosts(scene, box), hosts(scene, whole_box(scene))[cut])
    assert np.array_equal(above_interface_px(scene, box), above_interface_px(scene, whole_box(scene))[cut])


def test_hosts_follow_the_faces_and_distance_grows_into_the_ceramic():
    volume, _, heights = cell(tilt_deg=1.0)
    for flipped in (False, True):
        scene = scene_of(volume[::-1].copy() if flipped else volume)
        host = hosts(scene, whole_box(scene))
        above = above_interface_px(scene, whole_box(scene))
        if flipped:
            host, above = host[::-1], above[::-1]
        z = np.arange(SHAPE[0])[:, None, None]
        solid = (z > heights["interface"] + 0.1) & (z < heights["counter"] - 0.1) & (radius()[2] < VIEW)
        assert (host[solid] == SOLID).all()
        assert (host[:, radius()[2] > VIEW] == OUTSIDE).all()
        assert (above[solid] > 0).all()
        assert np.abs(above - (z - heights["interface"])).max() < 0.1


def test_only_what_is_in_view_is_reported():
    volume, _, _ = cell()
    solid = scene_of(volume[50:70])
    assert (dict(solid.surfaces), solid.liquid, solid.up) == ({}, None, None)
    assert solid.solid.offset_cm1[0] == pytest.approx(0.06, abs=0.005)
    assert (hosts(solid, whole_box(solid))[:, 49, 49] == SOLID).all()
    liquid = scene_of(volume[20:40])
    assert (dict(liquid.surfaces), liquid.solid) == ({}, None)
    both = scene_of(volume[:60])
    assert set(both.surfaces) == {"collector", "interface"}
    assert any("counter electrode" in note for note in both.notes)


@pytest.mark.parametrize("grey", [0.0, 8.0, np.nan])
def test_a_volume_without_cell_is_a_bad_scan(grey):
    with pytest.raises(BadScan, match="neither NASICON"):
        scene_of(np.full((20, 100, 100), grey, np.float32))


def test_a_plane_survives_three_outliers_in_ten():
    rng = np.random.default_rng(5)
    y, x = rng.uniform(-50, 50, (2, 3000))
    height = 12.0 + 0.03 * y - 0.02 * x + rng.normal(0, 0.1, 3000)
    height[:900] -= rng.uniform(1, 6, 900)
    found, spread = robust_plane(y, x, height)
    assert found == pytest.approx([12.0, 0.03, -0.02], abs=0.01)
    assert spread == pytest.approx(0.1, rel=0.6)


@pytest.mark.parametrize("parts", [1, edges.POINTS])
def test_an_edge_is_placed_where_it_is_whatever_rows_average(parts):
    """Light is blurred by hand, on thin rows or on rows of even attenuation, and averaged over rows."""
    k, sigma, fine = 1.3, 0.64, 40
    at = (0.3, -0.41)
    row = np.arange(-12.0, 13.0)
    thin = (np.arange(25 * fine) + 0.5) / fine - 12.5
    profiles = []
    for shift in at:
        z = row if parts == 1 else thin
        share = np.clip((z - shift) * (len(z) / 25) + 0.5, 0, 1)
        weight = np.exp(-0.5 * ((z[:, None] - z) / sigma) ** 2)
        light = (weight @ np.exp(-k * share)) / weight.sum(axis=1)
        light = light.reshape(25, -1).mean(axis=1)
        use = np.abs(row) <= 6
        profiles.append(edges.Profile(row[use], -np.log(light[use]) / k, np.ones(13), 2.1))
    found = edges.fit_edge(profiles, start=edges.Edge(0.75, 0.5))
    assert found.edge.parts == parts
    assert found.shift_px == pytest.approx(at, abs=0.03)
    assert found.edge.blur_px == pytest.approx(math.sqrt(sigma**2 + 1 / 12), abs=0.02)


def test_an_offset_leans_as_its_first_harmonic_says():
    level = Level(
        1.0, np.array([0.0, 10.0]), np.array([0.1, 0.2]), 0.0, lean_cm1=np.array([[0, 0], [0, 0.05]])
    )
    assert offset_at(level, np.zeros(3), np.array([-10.0, 0.0, 5.0])) == pytest.approx([0.15, 0.1, 0.175])


def halved(volume):
    z, y, x = (n // 2 for n in volume.shape)
    return volume[: 2 * z, : 2 * y, : 2 * x].reshape(z, 2, y, 2, x, 2).mean((1, 3, 5)).astype(np.float32)


def test_a_scene_of_coarser_voxels_is_the_same_in_finer_ones():
    volume, _, heights = cell(tilt_deg=1.0)
    whole = scene_of(volume)
    axis = tuple((a + 0.5) / 2 - 0.5 for a in AXIS)
    coarse = find_scene(halved(volume), voxel_um=26.0, **(KNOWN | {"axis_px": axis, "view_px": VIEW / 2}))
    scene = finer(coarse, factor=2, shape=SHAPE, axis_px=AXIS, view_px=VIEW)
    assert scene.shape == SHAPE
    assert scene.voxel_um == whole.voxel_um
    assert set(scene.surfaces) == set(whole.surfaces)
    inside = radius()[2] < VIEW - 3
    for name, surface in whole.surfaces.items():
        mine = scene.surfaces[name]
        assert mine.height_px.shape == SHAPE[1:]
        away = np.abs(mine.height_px - surface.height_px)[inside]
        assert np.median(away) < 0.3, name
        assert np.quantile(away, 0.99) < 1.0, name
    assert max(plane_error(scene, heights).values()) < 0.3
    # levels are those of the same places
    _, y, x = np.meshgrid([0], [20, 50, 70], [30, 50, 80], indexing="ij")
    for host in ("solid", "liquid"):
        theirs, own = getattr(whole, host), getattr(scene, host)
        dy, dx = y - AXIS[0], x - AXIS[1]
        np.testing.assert_allclose(offset_at(own, dy, dx), offset_at(theirs, dy, dx), atol=0.02)


def written(path, values):
    spec = volumes.VolumeSpec(shape=values.shape, pixel_um=13.0)
    volumes.create(path, spec, name=path.name, attributes={})
    volumes.write_slab(path, spec, 0, slab=values)
    return path


def test_the_order_of_the_stack_is_told_by_what_was_not_retrieved(tmp_path):
    sharp, _, _ = cell()
    # retrieval spreads a tenth of NASICON over the light layers: here so that they look like the other order
    rows = np.zeros(SHAPE[0])
    for first, end, shift in ((0, 15, -0.36), (15, 37, -0.05), (80, 90, 0.05), (90, 96, 0.36)):
        rows[first:end] = shift
    soft = (sharp + rows[:, None, None]).astype(np.float32)
    raw = {"folder": "raw", "scans": ["a"], "energy_kev": 80.0, "pixel_um": 13.0}
    recipe = make_recipe({"name": "made up", "run_folder": "run", "raw": raw}, base=tmp_path)
    mass = written(tmp_path / "mass.ome.zarr", soft)
    assert see(mass, recipe=recipe).scene.up == "na"
    edge = written(tmp_path / "edge.ome.zarr", sharp)
    assert see(edge, recipe=recipe).scene.up == "nak"
    found = see(mass, recipe=recipe).scene
    assert found.up == "nak"
    # levels of NaK are wrong by a fifth in this volume, and move its faces a little
    assert abs(found.surfaces["interface"].reference[0] - FACES["interface"]) < 0.5


def test_memory_bounds_what_a_scene_is_sought_on():
    most = [_most_voxels(gb * 10**9) for gb in (0, 1, 4, 1000)]
    assert most == sorted(most)
    assert most[0] > 0
    assert most[-1] == MOST_VOXELS
    assert most[1] * BYTES_PER_VOXEL + BASE_BYTES <= 10**9
