"""Laws that every registered piece must keep; a new one is tested here by being registered."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest

from xctpipe import formats, phantom, recon, steps, volume
from xctpipe.correct.flat import minus_log
from xctpipe.errors import BadRecipe
from xctpipe.prepare import volume_path
from xctpipe.recipe import Recipe, make_recipe
from xctpipe.run import run
from xctpipe.scan import FloatArray

STEPS = sorted(steps.registered())
BACKENDS = sorted(recon.backends())
ASKING = [name for name in STEPS if steps.get(name).asks]


@pytest.fixture(scope="module")
def slab() -> FloatArray:
    """Transmission of a simulated interior scan with every fault: (angle, row, col)."""
    scan, _ = phantom.simulated_scan(size="tiny", seed=3)
    flats = scan.dark_flats[0]
    assert flats.darks is not None
    dark = flats.darks.read().mean(axis=0)
    beam = np.maximum(flats.flats.read().mean(axis=0) - dark, 1)
    raw = scan.frames.read((20, 44)).astype(np.float32)
    return np.asarray((raw - dark[20:44]) / beam[20:44], dtype=np.float32)


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
    )


def some_rows(facts: steps.Facts, first: int, last: int) -> steps.Facts:
    assert facts.beam is not None
    return replace(facts, first_row=first, beam=facts.beam[first:last])


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
        out = steps.bind(name)(slab, facts)
        assert out.dtype == np.float32
        assert out.shape == slab.shape
        assert not np.shares_memory(out, slab)
        np.testing.assert_array_equal(slab, before)

    def test_a_slab_is_its_rows(self, name: str, slab: FloatArray, facts: steps.Facts) -> None:
        step = steps.bind(name)
        whole, halo = step(slab, facts), step.halo_rows(facts)
        assert halo <= 12, "this test would say little"
        for first, last in ((0, 5), (5, 6), (6, slab.shape[1])):
            low, high = max(0, first - halo), min(slab.shape[1], last + halo)
            part = step(slab[:, low:high], some_rows(facts, low, high))[:, first - low : last - low]
            rtol = 0 if steps.get(name).exact else 1e-4
            np.testing.assert_allclose(part, whole[:, first:last], rtol=rtol, atol=0)

    @pytest.mark.usefixtures("threads")
    def test_threads_change_no_bit(self, name: str, slab: FloatArray, facts: steps.Facts) -> None:
        out = []
        for count in (1, 2):
            numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
            out.append(steps.bind(name)(slab, facts))
        np.testing.assert_array_equal(*out)

    def test_what_is_clean_stays(self, name: str, facts: steps.Facts) -> None:
        clean = np.full((40, 3, 60), 0.5, np.float32)
        known = replace(
            facts,
            frame_shape=(3, 60),
            beam=np.full((3, 60), 1000.0, np.float32),
            shifts_px=np.ones((40, 2)),
        )
        np.testing.assert_allclose(steps.bind(name)(clean, known), clean, rtol=1e-5)

    def test_is_sent_by_name(self, name: str, slab: FloatArray, facts: steps.Facts) -> None:
        step = steps.bind(name)
        again = pickle.loads(pickle.dumps(step))
        assert again == step
        np.testing.assert_array_equal(again(slab, facts), step(slab, facts))


@pytest.mark.parametrize("name", ASKING)
def test_what_is_not_known_is_asked_for(name: str, slab: FloatArray) -> None:
    with pytest.raises(BadRecipe, match=f"step '{name}' needs"):
        steps.bind(name)(slab)


@pytest.mark.parametrize("name", BACKENDS)
class TestBackends:
    @pytest.fixture(autouse=True)
    def _usable(self, name: str) -> None:
        reason = recon.backends()[name].available()
        if reason:
            pytest.skip(f"{name}: {reason}")

    def _slices(self, name: str, lines: FloatArray) -> FloatArray:
        angles = np.linspace(0, np.pi, lines.shape[0])
        return recon.reconstruct(lines, backend=name, angles_rad=angles, center_px=46.25, pixel_um=10.0)

    def test_a_slab_is_its_rows(self, name: str, slab: FloatArray) -> None:
        lines, _ = minus_log(slab[:, :5])
        whole = self._slices(name, lines)
        assert whole.dtype == np.float32
        for row in (0, 4):
            np.testing.assert_array_equal(self._slices(name, lines[:, row : row + 1])[0], whole[row])

    @pytest.mark.usefixtures("threads")
    def test_threads_change_no_bit(self, name: str, slab: FloatArray) -> None:
        lines, _ = minus_log(slab[:, :2])
        out = []
        for count in (1, 2):
            numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
            out.append(self._slices(name, lines))
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
