"""Registration against moves that were put in: analytic texture, rings, cracks, chips, a simulated series."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf
from series_truth import true_moves

from xctpipe import registering, volume
from xctpipe.blocks import in_this_process
from xctpipe.csvtables import read_table
from xctpipe.fiducials import cut_patches
from xctpipe.ground import Ground
from xctpipe.label_volume import LabelSource, write_labels
from xctpipe.segment.codes import PHASES, PRIORITY
from xctpipe.series import registration as reg
from xctpipe.series.reg_patches import ROOM_PX, Cut, fit_patches, half_px, leveled
from xctpipe.series.reg_points import Points, fit_rigid, match_points
from xctpipe.series.reg_rings import ring_sums, rings_of, without_rings
from xctpipe.series.rigid import Rigid
from xctpipe.stages import ScanWork, SeriesWork

VOXEL = 2.0
RADIUS = 60.0
MOVE = Rigid((0.0052, 0.0011, -0.0008), (6.74, -8.2, 9.33))
NOISE = 0.35
Array = NDArray[Any]


def pores(n: int, seed: int = 3) -> tuple[Array, Array]:
    """Positions (um) of pores in a cylinder of 100 voxels across and 40 high, and their radii (voxels)."""
    rng = np.random.default_rng(seed)
    r, angle = RADIUS * np.sqrt(rng.uniform(0, 1, n)), rng.uniform(0, 2 * np.pi, n)
    at = VOXEL * np.stack([rng.uniform(10, 50, n), r * np.sin(angle), r * np.cos(angle)], axis=1)
    return at, rng.uniform(1.5, 3.0, n)


def seen(at: Array, radius_px: Array, points: Array, blur_px: float = 0.8) -> Array:
    """NASICON with holes as a scanner sees it: 2.3 cm^-1, each wall an error function."""
    out = np.full(points.shape[:-1], 2.3)
    for centre, radius in zip(at, radius_px, strict=True):
        away = np.linalg.norm(points - centre, axis=-1) / VOXEL - radius
        out -= 1.15 * (1 - erf(away / (np.sqrt(2) * blur_px)))
    return out


def cut(
    at: Array, radius_px: Array, centres: Array, half: int, *, more: Callable[[Array], Array] | None = None
) -> Cut:
    """Patches as read from a volume: on whole voxels about the centres."""
    start = np.rint(centres / VOXEL) - half
    steps = np.moveaxis(np.indices((2 * half + 1,) * 3), 0, -1)
    grey = []
    for one in start:
        points = VOXEL * (one + steps)
        near = np.linalg.norm(at - points.mean(axis=(0, 1, 2)), axis=1) < VOXEL * (3 * half)
        grey.append(seen(at[near], radius_px[near], points) + (more(points) if more else 0.0))
    values = np.array(grey, np.float32)
    return Cut(values, np.ones(values.shape, np.bool_), VOXEL * start)


def noisy(first: Cut, seed: int) -> Cut:
    noise = NOISE * np.random.default_rng(seed).standard_normal(first.grey.shape)
    return replace(first, grey=(first.grey + noise).astype(np.float32))


def both(n: int, move: Rigid, **kwargs: Any) -> tuple[Cut, Cut, Array, Rigid]:
    """Patches of both scans, radii, and a start that is wrong by a third of a voxel."""
    at, radius = pores(n)
    start = Rigid((0.001, 0.0, 0.0), (0.5, -0.4, 0.3)).after(move)
    first = cut(at, radius, at, half_px(radius), **kwargs)
    later = cut(move(at), radius, start(at), half_px(radius) + ROOM_PX, **kwargs)
    return first, later, radius, start


def away_px(found: Rigid, true: Rigid) -> float:
    points = reg.pellet_points(VOXEL * RADIUS, (20.0, 100.0))
    return float(np.sqrt(np.mean(np.sum((found(points) - true(points)) ** 2, axis=1))) / VOXEL)


@pytest.mark.parametrize("move", [MOVE, MOVE.inverse, Rigid()], ids=["there", "back", "still"])
def test_a_known_move_is_found(move: Rigid) -> None:
    first, later, radius, start = both(40, move)
    fit = fit_patches(first, later, radius, voxel_um=VOXEL, start=start)
    assert fit is not None
    assert away_px(fit.move, move) < 0.01
    fit = fit_patches(noisy(first, 1), noisy(later, 2), radius, voxel_um=VOXEL, start=start)
    assert fit is not None
    assert away_px(fit.move, move) < 0.05


def test_the_same_patches_give_no_move() -> None:
    at, radius = pores(12)
    first, later = (cut(at, radius, at, half_px(radius) + room) for room in (0, ROOM_PX))
    fit = fit_patches(first, later, radius, voxel_um=VOXEL, start=Rigid())
    assert fit is not None
    assert away_px(fit.move, Rigid()) < 1e-3
    assert fit.error_um(at) < 1e-3 * VOXEL
    assert 0 < fit.voxels <= first.grey.size


def test_the_error_covers_what_noise_does() -> None:
    first, later, radius, start = both(14, MOVE)
    ratios = []
    for seed in range(16):
        one, two = noisy(first, 2 * seed), noisy(later, 2 * seed + 1)
        fit = fit_patches(one, two, radius, voxel_um=VOXEL, start=start)
        assert fit is not None
        points = fit.move(reg.pellet_points(VOXEL * RADIUS, (20.0, 100.0)))
        ratios.append(away_px(fit.move, MOVE) * VOXEL / fit.error_um(points))
    # mean of 16 squared errors of six parameters over their own estimate: 1 +- 0.15, wider for its tails
    assert 0.5 < np.mean(np.square(ratios)) < 1.8


def half_rings(points: Array) -> Array:
    """Rings that a detector leaves over half a turn: others above the axis than below, others row by row."""
    r = np.hypot(points[..., 1], points[..., 2]) / VOXEL
    below = points[..., 1] > 0
    return np.sin(2 * np.pi * r / 5.0 + 2.0 * below) * np.sign(np.sin(points[..., 0] / 9.0))


def test_what_is_left_of_rings_does_not_hold_it() -> None:
    move = Rigid((0.002, 0, 0), (0.9, 1.1, -0.8))
    first, later, radius, start = both(60, move, more=lambda points: 0.12 * half_rings(points))
    fit = fit_patches(first, later, radius, voxel_um=VOXEL, start=start)
    assert fit is not None
    assert away_px(fit.move, move) < 0.05


def test_rings_are_found_and_taken_off() -> None:
    shape, axis = (6, 96, 101), (47.5, 50.0)
    steps = np.moveaxis(np.indices(shape), 0, -1).astype(float)
    steps[..., 1] -= axis[0]
    steps[..., 2] -= axis[1]
    rings = 0.3 * half_rings(VOXEL * steps)
    rng = np.random.default_rng(4)
    # NASICON with cupping and noise, a pore in it that is not solid, and nothing beyond 45 voxels
    cell = 2.3 + 2e-4 * (steps[..., 1] ** 2 + steps[..., 2] ** 2) + NOISE * rng.standard_normal(shape)
    solid = np.hypot(steps[..., 1], steps[..., 2]) < 45
    solid[2:4, 20:26, 60:66] = False
    grey = np.where(solid, cell + rings, 0.0).astype(np.float32)
    kwargs: Any = {"axis_px": axis, "n_radii": 48}
    sums, counts = ring_sums(grey, solid, start=(0, 0, 0), **kwargs)
    assert counts.sum() == solid.sum()
    parts = [
        ring_sums(grey[:, cut], solid[:, cut], start=(0, cut.start, 0), **kwargs)
        for cut in (slice(0, 40), slice(40, 96))
    ]
    assert np.array_equal(parts[0][0] + parts[1][0], sums)
    found = rings_of(sums, counts)
    left = without_rings(grey, found, start=(0, 0, 0), axis_px=axis)
    where = solid & (np.hypot(steps[..., 1], steps[..., 2]) > 15)
    before, after = rings[where], (left - np.where(solid, cell, 0.0))[where]
    assert np.std(after) < 0.5 * np.std(before)
    part = without_rings(grey[1:3, 30:], found[1:3], start=(1, 30, 0), axis_px=axis)
    assert np.array_equal(part, left[1:3, 30:])


def test_a_chip_that_moves_is_left_out() -> None:
    at, radius = pores(50)
    chip = at[:, 1] > np.quantile(at[:, 1], 0.8)
    moved = MOVE(at) + np.where(chip[:, None], [2.4, 0.0, 0.0], 0.0)
    first = noisy(cut(at, radius, at, half_px(radius)), 1)
    later = noisy(cut(moved, radius, MOVE(at), half_px(radius) + ROOM_PX), 2)
    fit = fit_patches(first, later, radius, voxel_um=VOXEL, start=MOVE)
    assert fit is not None
    assert away_px(fit.move, MOVE) < 0.06
    assert fit.shares[chip].mean() < 0.1 < 0.7 < fit.shares[~chip].mean()


def test_what_is_masked_does_not_matter() -> None:
    first, later, radius, start = both(30, MOVE)
    grey, good = later.grey.copy(), later.good.copy()
    # a crack with metal in it that only the later scan has, beside every pore
    place = ROOM_PX + half_px(radius) + 4
    grey[:, place : place + 2] = -8.0
    good[:, place : place + 2] = False
    fit = fit_patches(first, Cut(grey, good, later.origin_um), radius, voxel_um=VOXEL, start=start)
    assert fit is not None
    assert away_px(fit.move, MOVE) < 0.02


def test_without_texture_there_is_no_move() -> None:
    first, later, radius, start = both(12, MOVE)
    blind = replace(later, good=np.zeros_like(later.good))
    assert fit_patches(first, blind, radius, voxel_um=VOXEL, start=start) is None
    few = [replace(each, grey=each.grey[:5], good=each.good[:5]) for each in (first, later)]
    assert fit_patches(few[0], few[1], radius[:5], voxel_um=VOXEL, start=start) is None
    flat = [replace(each, grey=np.full_like(each.grey, 2.3)) for each in (first, later)]
    assert fit_patches(flat[0], flat[1], radius, voxel_um=VOXEL, start=start) is None


def test_a_face_mends_tilts_that_texture_leaves_open() -> None:
    first, later, radius, start = both(14, MOVE)
    fit = fit_patches(noisy(first, 1), noisy(later, 2), radius, voxel_um=VOXEL, start=start)
    assert fit is not None
    better = leveled(fit, tilts_rad=MOVE.turn_rad[1:], sigma_rad=1e-5)
    points = fit.move(reg.pellet_points(VOXEL * RADIUS, (20.0, 100.0)))
    assert better.move.turn_rad[1:] == pytest.approx(MOVE.turn_rad[1:], abs=3e-5)
    assert better.error_um(points) < 0.9 * fit.error_um(points)
    assert away_px(better.move, MOVE) < away_px(fit.move, MOVE)
    assert leveled(fit, tilts_rad=(0.02, 0.0), sigma_rad=1e-5) is fit


def points_of(at: Array, size: Array, n_pores: int) -> Points:
    return Points(at, ("pore",) * n_pores + ("inclusion",) * (len(at) - n_pores), size)


def test_points_are_matched_whatever_their_order() -> None:
    rng = np.random.default_rng(5)
    at, radius = pores(60)
    move = Rigid((0.005, 0, 0), (20.0, -18.0, 15.0))
    order = rng.permutation(60)[:45]
    extra = pores(15, seed=8)
    theirs = np.concatenate([move(at)[order] + 0.3 * rng.standard_normal((45, 3)), extra[0]])
    sizes = np.concatenate([radius[order] * rng.uniform(0.9, 1.1, 45), extra[1]])
    one, two = points_of(at, radius, 60), points_of(theirs, sizes, 60)
    found = match_points(one, two, reach_um=30.0, tolerance_um=3.0)
    assert found is not None
    assert away_px(found.move, move) < 0.2
    right = found.pairs[:, 0] == order[np.minimum(found.pairs[:, 1], 44)]
    assert len(found.pairs) >= 40
    assert right.mean() > 0.95
    assert 0.3 * away_px(found.move, move) * VOXEL < found.error_um < 0.5


@pytest.mark.parametrize("n", [0, 2, 30, 300])
def test_points_of_another_sample_do_not_match(n: int) -> None:
    one, two = (points_of(*pores(n, seed=seed), n) for seed in (1, 2))
    assert match_points(one, two, reach_um=30.0, tolerance_um=3.0) is None


def test_points_of_other_kinds_do_not_match() -> None:
    at, radius = pores(20)
    one, two = points_of(at, radius, 20), points_of(at, radius, 0)
    assert match_points(one, two, reach_um=9.0, tolerance_um=3.0) is None


def test_a_fit_to_points_is_exact_and_ignores_strays() -> None:
    at, _ = pores(20)
    moved = MOVE(at)
    moved[:4] += 50.0
    assert fit_rigid(at, moved)(at) == pytest.approx(MOVE(at), abs=1e-3)


def test_a_face_gives_height_and_tilts() -> None:
    first, later = reg.Plane(700.0, 0.002, -0.001, 0.5), reg.Plane(730.0, 0.012, 0.003, 1.2)
    part = reg.face_part(first, later, status=reg.OK)
    assert part is not None
    assert part.error_um == pytest.approx(1.3)
    y, x = np.array([-900.0, 0.0, 400.0]), np.array([300.0, 0.0, 800.0])
    z, y, x = part.move(np.stack([700 + 0.002 * y - 0.001 * x, y, x], axis=1)).T
    assert z == pytest.approx(730 + 0.012 * y + 0.003 * x, abs=0.02)
    row = reg.row_of("s", reg.COLLECTOR, part, pixel_um=10.0, middle_um=(700.0, 0.0, 0.0))
    assert row["dz_px"] == pytest.approx(3.0, abs=0.01)
    assert {"dy_px", "dx_px", "rotation_deg"}.isdisjoint(row)
    assert row["tilt_x_deg"] == pytest.approx(np.degrees(0.01), rel=1e-3)
    assert row["tilt_y_deg"] == pytest.approx(-np.degrees(0.004), rel=1e-3)
    assert reg.face_part(first, None, status=reg.OK) is None


def work_of(folder: Path, names: tuple[str, ...]) -> SeriesWork:
    recipe: Any = SimpleNamespace(run_folder=folder)
    place, memory = in_this_process(1), 4 * 10**9
    scans = []
    for name in names:
        own = folder / "scans" / name
        scans.append(ScanWork(name, own, own / "edge.ome.zarr", None, recipe, place, 1, memory, names))
    return SeriesWork(tuple(scans), recipe, place, 1, memory)


@pytest.mark.parametrize("level", [0, 1])
def test_patches_lie_where_they_say(tmp_path: Path, level: int) -> None:
    """The centre of what a pore misses is the pore's centre, on each level, for any blocks."""
    shape, pixel, first_row = (44, 520, 520), 10.0, 5
    at = pixel * np.array([[26.3, -80.2, 31.6], [25.1, 40.7, -90.4], [27.7, 3.2, 120.9]])
    grey, phases = np.full(shape, 2.3, np.float32), np.full(shape, PHASES["nasicon"], np.uint8)
    for centre in at / pixel + [-first_row, 259.5, 259.5]:
        start = np.rint(centre).astype(int) - 12
        where = tuple(slice(a, a + 25) for a in start)
        points = VOXEL * (start + np.moveaxis(np.indices((25,) * 3), 0, -1))
        grey[where] = seen(VOXEL * centre[None], np.array([6.0]), points)
        phases[where] = np.where(grey[where] < 1.2, PHASES["pore"], phases[where])
    path = tmp_path / "edge.ome.zarr"
    spec = volume.VolumeSpec(shape, pixel, first_row=first_row)
    volume.create(path, spec, name="test", attributes={})
    volume.write_slab(path, spec, 0, slab=grey)
    write_labels(path, LabelSource(lambda box: (phases[box], phases[box].astype(np.int32)), 0, PRIORITY))
    scene: Any = None
    ground, half, cuts = Ground(path, level, scene), 11 // 2**level, []
    for memory in (4 * 10**9, 7 * 10**8):
        work = replace(work_of(tmp_path, ()), memory_bytes=memory)
        cuts.append(cut_patches(ground, at, half=half, work=work, name="test"))
    assert np.array_equal(cuts[0].grey, cuts[1].grey)
    assert cuts[0].good.all()
    less = 2.3 - cuts[0].grey
    steps = pixel * 2**level * np.indices(less.shape[1:])
    middle = np.einsum("nzyx,izyx->ni", less, steps) / less.sum(axis=(1, 2, 3))[:, None] + cuts[0].origin_um
    assert middle == pytest.approx(at, abs=0.03 * pixel)


def test_one_scan_is_its_own_reference(tmp_path: Path) -> None:
    assert registering.register(work_of(tmp_path, ("one",))).pellet == {"one": Rigid()}
    (row,) = read_table(tmp_path / "tables" / "registration.csv")
    assert (row["part"], row["status"], row["dx_px"], row["error_px"]) == ("pellet", "reference", 0, 0)


def test_scans_without_volumes_are_named(tmp_path: Path) -> None:
    found = registering.register(work_of(tmp_path, ("one", "two")))
    assert found.pellet == {"one": Rigid(), "two": Rigid()}
    (line,) = found.warnings
    assert line.startswith("two: not registered")
    assert "one" in line
    rows = read_table(tmp_path / "tables" / "registration.csv")
    assert [row["status"] for row in rows] == ["reference", "failed"]


@pytest.fixture(scope="module")
def series(plating_cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """P4 to P6 of plating, measured: a crack grows, and the chip lifts."""
    return shutil.copytree(plating_cells / "measured", tmp_path_factory.mktemp("plating") / "cell")


NAMES = ("scan_00005", "scan_00006", "scan_00007")


def test_a_simulated_series_is_registered(series: Path) -> None:
    found = registering.register(work_of(series / "run", NAMES))
    assert found.warnings == []
    rows = {
        (row["scan"], row["part"]): row for row in read_table(series / "run" / "tables" / "registration.csv")
    }
    assert [rows[name, "pellet"]["status"] for name in NAMES] == ["reference", "ok", "ok"]
    voxel = read_table(series / "run" / "tables" / "scans.csv")[0]["pixel_um"]
    points = reg.pellet_points(44 * voxel, (20 * voxel, 54 * voxel))
    for name, true in true_moves(series, NAMES).items():
        away = np.linalg.norm(found.pellet[name](points) - true(points), axis=1) / voxel
        assert np.sqrt(np.mean(away**2)) < 0.1
        assert np.sqrt(np.mean(away**2)) <= 2.5 * rows[name, "pellet"]["error_px"] + 1e-9


def test_what_is_missing_never_stops_the_series(series: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(series / "run", folder)
    (folder / "scans" / NAMES[1] / "scene.npz").unlink()
    table = folder / "tables" / "objects.csv"
    lines = table.read_text().splitlines()
    gone = [f"{NAMES[2]},{n},{kind}" for n in range(99) for kind in ("pore", "inclusion")]
    table.write_text("\n".join(line for line in lines if not line.startswith(tuple(gone))) + "\n")
    found = registering.register(work_of(folder, NAMES))
    assert found.pellet[NAMES[1]] == Rigid()
    assert found.warnings[0].startswith(f"{NAMES[1]}: not registered")
    assert found.warnings[1].startswith(
        f"{NAMES[2]}: registered by the height and tilt of the interface only"
    )
    rows = read_table(folder / "tables" / "registration.csv")
    status = {row["scan"]: row for row in rows if row["part"] == "pellet"}
    assert status[NAMES[1]]["status"] == "failed"
    last = status[NAMES[2]]
    assert (last["status"], last["dx_px"]) == ("unsure", None)
    true = true_moves(series, NAMES)[NAMES[2]]
    assert last["dz_um"] == pytest.approx(true.shift_um[0], abs=10)
