"""Laws that every registered piece must keep; a new one is tested here by being registered."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numba
import numpy as np
import pytest
from reconstructing import run

from xctpipe import formats, phantom, recon, steps, volume
from xctpipe.correct.flat import FlatField, minus_log
from xctpipe.errors import BadRecipe
from xctpipe.prepare import volume_path
from xctpipe.recipe import Recipe, make_recipe
from xctpipe.scan import FloatArray, mean_frame

STEPS = sorted(steps.registered())
ASKING = [name for name in STEPS if steps.get(name).asks]


def choices() -> Iterator[Any]:
    """Every backend with each of its algorithms."""
    for name in sorted(recon.backends()):
        field = recon.options_of(name).model_fields.get("algorithm")
        for algorithm in get_args(field.annotation) if field else (None,):
            options = {"algorithm": algorithm} if algorithm else {}
            yield pytest.param(name, options, id="-".join(filter(None, [name, algorithm])))


CHOICES = list(choices())
TURN = np.arange(80) * np.pi / 80
SCANS = {
    "half turn": (64, 2.3, TURN),
    "full turn, odd width": (65, -3.75, np.arange(140) * np.pi / 70),
    "unequal steps": (64, 0.5, TURN + 0.2 * np.sin(4 * TURN)),
    "backwards, ends included": (65, 1.0, np.linspace(np.pi, 0, 81)),
}
"""Width, axis off the middle, angles."""


@pytest.fixture(scope="module")
def slab() -> FloatArray:
    """Transmission of a simulated interior scan with every fault: (angle, row, col)."""
    scan, _ = phantom.simulated_scan(size="tiny", seed=3)
    flats = scan.dark_flats[0]
    assert flats.darks is not None
    field = FlatField(mean_frame(flats.darks), (mean_frame(flats.flats),)).rows((20, 44))
    return field.correct(scan.frames.read((20, 44)))


@pytest.fixture(scope="module")
def facts(slab: FloatArray) -> steps.Facts:
    """What steps may ask about that slab: a short distance, shifts of less than two pixels, an even beam."""
    n_angles, n_rows, n_cols = slab.shape
    turn = np.linspace(0, 7, n_angles)
    return steps.Facts(
        frame_shape=(n_rows, n_cols),
        pixel_um=42.0,
        energy_kev=80.0,
        distance_mm=300.0,
        shifts_px=np.stack([1.3 * np.sin(turn), 0.8 * np.cos(3 * turn)], axis=1),
        beam=np.full((n_rows, n_cols), 1000.0, np.float32),
        view=a_full_turn(n_angles, n_rows, n_cols),
    )


def a_full_turn(n_angles: int, n_rows: int, n_cols: int) -> steps.View:
    angles = np.arange(n_angles) * 2 * np.pi / n_angles
    return steps.View(angles, n_cols, 0.8 * n_cols, 0.8 * n_cols + 0.01 * np.arange(n_rows))


def some_rows(facts: steps.Facts, first: int, last: int) -> steps.Facts:
    assert facts.beam is not None
    assert facts.view is not None
    view = replace(facts.view, centers_px=facts.view.centers_px[first:last])
    return replace(facts, first_row=first, beam=facts.beam[first:last], view=view)


@pytest.fixture
def threads() -> None:
    before = numba.get_num_threads()
    yield  # type: ignore[misc]
    numba.set_num_threads(before)


@pytest.mark.parametrize("name", STEPS)
class TestSteps:
    def test_gives_a_new_float32_slab_and_leaves_its_argument(
        self, name: str, slab: FloatArray, facts: steps.Facts
    ) -> None:
        before = slab.copy()
        out, behind = steps.run_step(steps.bind(name), slab, facts)
        assert out.dtype == np.float32
        assert behind.view is not None
        assert out.shape == (behind.view.angles_rad.size, slab.shape[1], behind.view.n_cols)
        assert not np.shares_memory(out, slab)
        np.testing.assert_array_equal(slab, before)

    def test_a_slab_is_its_rows(self, name: str, slab: FloatArray, facts: steps.Facts) -> None:
        step = steps.bind(name)
        whole, halo = step(slab, facts), step.halo_rows(facts)
        assert halo <= 12, "this test would say little"
        for first, last in ((0, 5), (5, 6), (6, slab.shape[1])):
            low, high = max(0, first - halo), min(slab.shape[1], last + halo)
            part = step(slab[:, low:high], some_rows(facts, low, high))[:, first - low : last - low]
            allowed = 0 if steps.get(name).exact else 1e-4 * np.abs(slab).max(axis=(1, 2), keepdims=True)
            assert (np.abs(part - whole[:, first:last]) <= allowed).all()

    @pytest.mark.usefixtures("threads")
    def test_threads_change_no_bit(self, name: str, slab: FloatArray, facts: steps.Facts) -> None:
        out = []
        for count in (1, 2):
            numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
            out.append(steps.bind(name)(slab, facts))
        np.testing.assert_array_equal(*out)

    def test_what_is_clean_stays(self, name: str, facts: steps.Facts) -> None:
        # the power of a weight is what extending is
        clean = np.full((40, 3, 60), 1.0 if steps.get(name).view else 0.5, np.float32)
        known = replace(
            facts,
            frame_shape=(3, 60),
            beam=np.full((3, 60), 1000.0, np.float32),
            shifts_px=np.ones((40, 2)),
            view=a_full_turn(40, 3, 60),
        )
        out = steps.bind(name)(clean, known)
        np.testing.assert_allclose(out, clean.flat[0], rtol=1e-5)

    def test_is_sent_by_name(self, name: str, slab: FloatArray, facts: steps.Facts) -> None:
        step = steps.bind(name)
        again = pickle.loads(pickle.dumps(step))
        assert again == step
        np.testing.assert_array_equal(again(slab, facts), step(slab, facts))


@pytest.mark.parametrize("name", ASKING)
def test_what_is_not_known_is_asked_for(name: str, slab: FloatArray) -> None:
    with pytest.raises(BadRecipe, match=f"step '{name}' needs"):
        steps.bind(name)(slab)


@pytest.mark.parametrize(("name", "options"), CHOICES)
class TestBackends:
    @pytest.fixture(autouse=True)
    def _usable(self, name: str, options: dict[str, Any]) -> None:
        backend = recon.backends()[name]
        reason = backend.available()
        if not reason and hasattr(backend, "objection"):
            defaults = recon.options_of(name)(**options).model_dump()
            reason = backend.objection("ramp", defaults)
        if reason:
            pytest.skip(f"{name}: {reason}")

    def _slices(self, lines: FloatArray, name: str, options: dict[str, Any]) -> FloatArray:
        angles = np.linspace(0, np.pi, lines.shape[0])
        return recon.reconstruct(
            lines, backend=name, options=options, angles_rad=angles, center_px=22.25, pixel_um=10.0
        )

    @pytest.mark.parametrize("scan", SCANS)
    def test_a_disc_is_where_it_is_and_what_it_is(
        self, name: str, options: dict[str, Any], scan: str
    ) -> None:
        width, off_middle_px, angles = SCANS[scan]
        (x, y, radius), mu = (12.3, -8.6, 8.2), 0.8  # to the right and up
        center = (width - 1) / 2 + off_middle_px
        fine = (np.arange(16 * width) - 7.5) / 16  # the chord, averaged over each column
        seen_at = x * np.cos(angles) - y * np.sin(angles) + center
        chord = 2 * mu * np.sqrt(np.maximum(radius**2 - (fine - seen_at[:, None]) ** 2, 0))
        lines = chord.reshape(len(angles), 1, width, 16).mean(axis=3).astype(np.float32)
        slice_ = recon.reconstruct(
            lines, backend=name, options=options, angles_rad=angles, center_px=center, pixel_um=2.5
        )[0]
        at = np.arange(width) - (width - 1) / 2
        distance = np.hypot(at - x, at[:, None] - y)
        weight = np.where(distance < radius + 3, slice_, 0)
        assert slice_[distance < radius - 2].mean() == pytest.approx(mu * 4000, rel=0.02)
        assert (weight.sum(axis=0) @ at) / weight.sum() == pytest.approx(x, abs=0.1)
        assert (weight.sum(axis=1) @ at) / weight.sum() == pytest.approx(y, abs=0.1)
        # what is wrong with the weights of the angles is seen beside the disc, by direction
        beside = (distance > radius + 4) & (np.hypot(at, at[:, None]) < width / 2 - 2)
        sector = np.floor(np.mod(np.arctan2(at[:, None] - y, at - x), np.pi) / (np.pi / 6))
        for number in range(6):
            assert abs(slice_[beside & (sector == number)].mean()) < 0.01 * mu * 4000

    def test_a_slab_is_its_rows(self, name: str, options: dict[str, Any], slab: FloatArray) -> None:
        lines, _ = minus_log(slab[::3, :5, 24:72])
        whole = self._slices(lines, name, options)
        assert whole.dtype == np.float32
        for row in (0, 4):
            one = self._slices(lines[:, row : row + 1], name, options)[0]
            np.testing.assert_array_equal(one, whole[row])

    @pytest.mark.usefixtures("threads")
    def test_threads_change_no_bit(self, name: str, options: dict[str, Any], slab: FloatArray) -> None:
        lines, _ = minus_log(slab[::3, :2, 24:72])
        out = []
        for count in (1, 2):
            numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
            out.append(self._slices(lines, name, options))
        np.testing.assert_array_equal(*out)


@pytest.mark.parametrize("layout", sorted(formats.layouts()))
def test_a_layout_returns_what_was_written(layout: str, tmp_path: Path) -> None:
    scan, _ = phantom.simulated_scan(size="tiny", seed=4, n_angles=12)
    again = formats.open_scan(formats.write_scan(tmp_path / "scan_00001", scan, layout=layout))
    np.testing.assert_array_equal(again.frames.read(), scan.frames.read())
    np.testing.assert_allclose(again.angles_rad, scan.angles_rad, atol=1e-6)
    assert len(again.dark_flats) == 2


@pytest.fixture
def spreading() -> Iterator[str]:
    """A step that looks two rows up and down, which none of the real ones does yet."""

    @steps.step(halo=2)
    def mean_of_five_rows(slab: FloatArray, *, weight_frac: float = 1.0) -> FloatArray:
        padded = np.pad(slab, ((0, 0), (2, 2), (0, 0)), mode="edge")
        near = [padded[:, i : i + slab.shape[1]] for i in range(5)]
        return (weight_frac * np.mean(near, axis=0) + (1 - weight_frac) * slab).astype(np.float32)

    yield "mean_of_five_rows"
    del steps._REGISTRY["mean_of_five_rows"]


def test_a_step_that_sees_its_neighbours_gets_them_in_every_slab(
    spreading: str, make: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = []
    for rows in (64, 8):
        monkeypatch.setattr("xctpipe.plan.MAX_SLAB_ROWS", rows)
        recipe = make(run_folder=f"run{rows}", correct=[{"do": spreading}], center={"center_px": 49.8})
        (name,) = run(recipe).done
        volumes.append(volume.read(volume_path(recipe.run_folder, name)))
    np.testing.assert_array_equal(*volumes)


def test_chains_add_their_halos(spreading: str) -> None:
    from xctpipe.prepare import extent_of

    scan, _ = phantom.simulated_scan(size="mini")
    raw = {"folder": "raw", "energy_kev": 80.0, "pixel_um": 1.0}
    table = {"name": "t", "run_folder": "r", "raw": raw, "correct": [{"do": spreading}] * 2}
    assert extent_of(scan, make_recipe(table, base=Path())).halo_rows == 4
