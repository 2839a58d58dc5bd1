"""Backends and their options: other programs' slices against closed forms, and what a recipe may say."""

import sys
import tomllib
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.fft

from xctpipe import forecast, recon
from xctpipe.conveyor import Method, reconstruct_lines
from xctpipe.errors import BadRecipe
from xctpipe.recipe import Recipe, make_recipe, sweepable, to_toml, what_matters, with_parameter
from xctpipe.recon import algotom, astra, gridrec, rows
from xctpipe.recon.filtering import ramp
from xctpipe.recon.geometry import inside_circle
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.steps import Facts, View

PIXEL_UM = 1e4  # attenuation per pixel is attenuation per centimetre
PLAIN = {"name": "t", "run_folder": "run", "raw": {"folder": "raw", "energy_kev": 80.0, "pixel_um": 1.3}}


def half_turn(n: int) -> DoubleArray:
    return np.arange(n) * np.pi / n


def disc_rows(
    disc: tuple[float, ...], *, angles: DoubleArray, width: int, centers: tuple[float, ...]
) -> FloatArray:
    """Sinograms (angle, row, col) of a disc (x, y, radius, attenuation per pixel), averaged over columns."""
    x, y, radius, mu = disc
    fine = (np.arange(16 * width) - 7.5) / 16
    seen_at = (x * np.cos(angles) - y * np.sin(angles))[:, None, None] + np.array(centers)[:, None]
    chord = 2 * mu * np.sqrt(np.maximum(radius**2 - (fine - seen_at) ** 2, 0))
    return chord.reshape(len(angles), len(centers), width, 16).mean(axis=3).astype(np.float32)


def distances(width: int, disc: tuple[float, ...]) -> DoubleArray:
    at = np.arange(width) - (width - 1) / 2
    return np.hypot(at - disc[0], at[:, None] - disc[1])


def assert_disc(slice_: FloatArray, disc: tuple[float, ...], *, mu_rel: float = 0.02) -> None:
    distance, at = distances(len(slice_), disc), np.arange(len(slice_)) - (len(slice_) - 1) / 2
    weight = np.where(distance < disc[2] + 3, slice_, 0)
    assert slice_[distance < disc[2] - 2].mean() == pytest.approx(disc[3], rel=mu_rel)
    assert (weight.sum(axis=0) @ at) / weight.sum() == pytest.approx(disc[0], abs=0.1)
    assert (weight.sum(axis=1) @ at) / weight.sum() == pytest.approx(disc[1], abs=0.1)


@pytest.fixture
def with_astra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has ASTRA and no CUDA device, for what happens before ASTRA is called."""
    monkeypatch.setattr(astra, "available", lambda: None)
    monkeypatch.setattr(astra, "has_cuda", lambda: False)


def recipe_of(**reconstruct: Any) -> Recipe:
    return make_recipe({**PLAIN, "reconstruct": reconstruct}, base=Path())


class TestOptions:
    def test_absent_ones_have_the_defaults_of_the_signature(self) -> None:
        assert recon.check_options("algotom", filter_name="ramp", options={}) == {"algorithm": "fbp"}
        assert recon.check_options("fourier", filter_name="ramp", options={}) == {"tolerance": 2e-4}

    @pytest.mark.usefixtures("with_astra")
    @pytest.mark.parametrize(
        ("table", "words"),
        [
            ({"backend": "algotom", "algorithm": "fpb"}, ["reconstruct.algorithm", "'fpb'", "'bpf'"]),
            ({"backend": "algotom", "algoritm": "bpf"}, ["reconstruct.algoritm", "did you mean 'algorithm'"]),
            ({"filtr": "hann"}, ["reconstruct.filtr", "did you mean 'filter'"]),
            ({"iterations": 9}, ["reconstruct.iterations belongs to backend 'astra', not to 'fourier'"]),
            ({"algorithm": "fbp"}, ["belongs to backend 'algotom' and 'astra', not to 'fourier'"]),
            ({"backend": "astra", "algorithm": "sirt", "iterations": 0}, ["reconstruct.iterations = 0", "1"]),
            ({"backend": "astra", "algorithm": "sirt", "iterations": 2.5}, ["reconstruct.iterations = 2.5"]),
            ({"backend": "astra", "iterations": 50}, ["iterations is for algorithm 'sirt' or 'cgls'"]),
            ({"backend": "astra", "algorithm": "cgls", "filter": "hann"}, ["'cgls' has no filter"]),
            ({"backend": "astra", "device": "cuda"}, ["no CUDA device", "'cpu'"]),
        ],
    )
    def test_a_wrong_one_is_named_with_what_is_allowed(self, table: dict[str, Any], words: list[str]) -> None:
        with pytest.raises(BadRecipe) as info:
            recipe_of(**table)
        for word in words:
            assert word in str(info.value)

    def test_they_are_part_of_what_a_volume_depends_on(self) -> None:
        plain, bpf = recipe_of(backend="algotom"), recipe_of(backend="algotom", algorithm="bpf")
        assert what_matters(plain) == what_matters(recipe_of(backend="algotom", algorithm="fbp"))
        assert what_matters(plain) != what_matters(bpf)
        again = make_recipe(tomllib.loads(to_toml(bpf)), base=Path())
        assert what_matters(again) == what_matters(bpf)

    @pytest.mark.usefixtures("with_astra")
    def test_a_recipe_with_all_of_them_reads_back(self) -> None:
        for table in ({}, {"algorithm": "sirt", "iterations": 7, "device": "cpu"}):
            recipe = recipe_of(backend="astra", **table)
            again = make_recipe(tomllib.loads(to_toml(recipe)), base=Path())
            assert what_matters(again) == what_matters(recipe)

    @pytest.mark.usefixtures("with_astra")
    def test_numbers_can_be_swept_and_nothing_else(self) -> None:
        recipe = recipe_of(backend="astra", algorithm="sirt")
        assert [key for key in sweepable(recipe) if key.startswith("rec")] == ["reconstruct.iterations"]
        assert with_parameter(recipe, "reconstruct.iterations", 30.0).reconstruct.options["iterations"] == 30
        with pytest.raises(BadRecipe, match=r"reconstruct\.iterations"):
            with_parameter(recipe, "reconstruct.algorithm", 1.0)

    def test_they_reach_the_backend(self) -> None:
        disc, angles = (4.3, -5.6, 5.0, 0.8), half_turn(40)
        lines = disc_rows(disc, angles=angles, width=32, centers=(15.5,))
        view = View(angles, 32, 15.5, np.array([15.5]))
        made = {}
        for name in ("fbp", "bpf"):
            method = Method(
                (), "algotom", "ramp", "taper", PIXEL_UM, Facts((1, 32)), options={"algorithm": name}
            )
            made[name] = reconstruct_lines(lines, view=view, method=method)
            module = algotom.fbp if name == "fbp" else algotom.bpf
            geometry = recon.geometry_of(lines.shape, angles_rad=angles, center_px=15.5, pixel_um=PIXEL_UM)
            with algotom.one_thread():
                expected = module(lines, geometry=geometry, filter_name="ramp", padding="taper")
            np.testing.assert_array_equal(made[name], expected)
        assert np.abs(made["fbp"] - made["bpf"]).max() > 1e-3


class TestRows:
    @pytest.mark.parametrize("padding", ["taper", "edge", "none"])
    @pytest.mark.parametrize("center_px", [20.0, 3.7, -9.0, 55.2])
    def test_filter_is_the_sum_over_the_continued_row(self, padding: str, center_px: float) -> None:
        lines = np.random.default_rng(2).normal(size=(3, 41)).astype(np.float32)
        wide = rows.continued(lines, padding=padding).astype(np.float64)
        reach = (wide.shape[1] - 41) // 2
        np.testing.assert_array_equal(wide[:, reach : reach + 41], lines)
        found, first = rows.filtered(lines, center_px=center_px, filter_name="ramp", padding=padding)
        lags = (first + np.arange(found.shape[1]))[:, None] - (np.arange(wide.shape[1]) - reach)
        np.testing.assert_allclose(found, wide @ ramp(lags).T, atol=2e-6 * np.abs(wide).max())
        assert first <= center_px - 20.5
        assert first + found.shape[1] - 1 >= center_px + 20.5

    def test_shift_moves_to_higher_columns(self) -> None:
        smooth = np.exp(-0.5 * ((np.arange(60) - 29.3) / 3) ** 2)[None].astype(np.float32)
        still, first = rows.filtered(smooth, center_px=30.0, filter_name="ramp", padding="none")
        moved, _ = rows.filtered(
            smooth, center_px=30.0, filter_name="ramp", padding="none", shift_px=np.array([0.5])
        )
        at = first + np.arange(still.shape[1])
        off = np.abs(moved[0] - np.interp(at - 0.5, at, still[0])).max()
        assert off < 0.2 * np.abs(moved - still).max()


class TestAlgotom:
    @pytest.mark.parametrize("radius", [10.0, 30.0])
    def test_filtering_behind_keeps_the_value_of_small_and_large(self, radius: float) -> None:
        disc, angles = (3.3, -2.6, radius, 0.8), half_turn(150)
        lines = disc_rows(disc, angles=angles, width=100, centers=(51.2,))
        options = {"backend": "algotom", "options": {"algorithm": "bpf"}, "pixel_um": PIXEL_UM}
        volume = recon.reconstruct(lines, angles_rad=angles, center_px=51.2, **options)
        assert_disc(volume[0], disc, mu_rel=0.01)
        beside = (distances(100, disc) > radius + 4) & inside_circle(100)
        assert np.abs(volume[0][beside].mean()) < 0.01 * disc[3]

    def test_windows_act_on_the_slice_as_on_the_rows(self) -> None:
        noise = np.random.default_rng(3).normal(size=(150, 1, 64)).astype(np.float32)
        choice = {"angles_rad": half_turn(150), "center_px": 31.5, "pixel_um": PIXEL_UM, "backend": "algotom"}
        for name in ("ramp", "hann"):
            spread = [
                recon.reconstruct(noise, filter_name=name, options={"algorithm": algorithm}, **choice)[
                    0, 16:48, 16:48
                ].std()
                for algorithm in ("fbp", "bpf")
            ]
            # the order matters to what interpolation takes off the highest frequencies
            assert spread[1] == pytest.approx(spread[0], rel=0.2 if name == "ramp" else 0.05)

    def test_memory_of_filtering_behind_is_announced(self) -> None:
        lines = np.zeros((120, 3, 160), np.float32)
        choice = {"backend": "algotom", "options": {"algorithm": "bpf"}, "pixel_um": PIXEL_UM}
        recon.reconstruct(lines, angles_rad=half_turn(120), center_px=79.5, **choice)  # loads its kernels
        tracemalloc.start()
        recon.reconstruct(lines, angles_rad=half_turn(120), center_px=79.5, **choice)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        announced = algotom.working_bytes(n_angles=120, n_rows=3, n_cols=160, n_threads=1, algorithm="bpf")
        assert peak <= announced <= 2 * peak

    def test_its_gridrec_says_that_it_needs_tomopy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tomopy", None)
        with pytest.raises(BadRecipe, match=r"algorithm 'gridrec'.*conda-forge only.*environment\.yml"):
            recipe_of(backend="algotom", algorithm="gridrec")


def as_tomopy_does(
    lines: FloatArray, angles: DoubleArray, centers: DoubleArray, *, ramped: bool
) -> DoubleArray:
    """What gridrec is for, by direct back-projection, with the axis and the frequencies that it has."""
    size, fine = lines.shape[2], 32
    k = np.arange(size // 2 + 1.0)
    k[-1] = 0
    response = 2 * k / size if ramped else np.sign(k)
    x, y = np.arange(size) - size // 2, np.arange(size) - (size // 2 - 1)
    slices = np.zeros((len(lines), size, size))
    for slice_, sinogram, center in zip(slices, lines, centers, strict=True):
        spectra = np.pad(scipy.fft.rfft(sinogram) * response, ((0, 0), (0, size * (fine - 1) // 2)))
        curves = scipy.fft.irfft(spectra, size * fine) * fine
        for curve, angle in zip(curves, angles, strict=True):
            seen_at = (x * np.cos(angle) - y[:, None] * np.sin(angle) + center) % size
            slice_ += np.interp(seen_at * fine, np.arange(size * fine), curve, period=size * fine)
    return slices * (np.pi / len(angles) / 2)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A module `tomopy` with the faults that gridrec has; lists the slices of each call."""
    calls: list[int] = []

    def recon_(
        tomo: FloatArray, theta: DoubleArray, center: Any = None, sinogram_order: bool = False, **options: Any
    ) -> FloatArray:
        assert options["algorithm"] == "gridrec"
        lines = tomo if sinogram_order else np.swapaxes(tomo, 0, 1)
        size = lines.shape[2]
        assert size & (size - 1) == 0
        calls.append(len(lines))
        centers = np.array(np.broadcast_to(center, len(lines)), np.float64)
        for i in range(1, len(lines), 2) if options.get("nchunk") != 1 else ():
            centers[i] = centers[i - 1]
        slices = as_tomopy_does(lines, theta, centers, ramped=options["filter_name"] == "ramlak")
        at = (np.arange(size) - size // 2) / size
        gain = 1.06 * (1 + at + 3 * at**2)
        slices *= np.outer(np.roll(gain[::-1], 0), gain)
        slices[:, 0] = slices[:, :, 0] = np.nan
        return slices.astype(np.float32)

    module = ModuleType("tomopy")
    module.recon = recon_  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tomopy", module)
    gridrec.response.cache_clear()
    yield calls
    gridrec.response.cache_clear()


class TestGridrec:
    @pytest.mark.parametrize("backend", ["gridrec", "algotom"])
    @pytest.mark.parametrize("width", [48, 51])
    def test_what_it_leaves_undone_is_done(self, backend: str, width: int, stand_in: list[int]) -> None:
        disc, angles = (11.3, -7.6, 7.2, 0.8), half_turn(90) + 0.1 * np.sin(4 * half_turn(90))
        middle = (width - 1) / 2
        centers = (middle, middle + 2.3, middle - 1.6)
        lines = disc_rows(disc, angles=angles, width=width, centers=centers)
        options = {"algorithm": "gridrec"} if backend == "algotom" else {}
        volume = recon.reconstruct(
            lines, angles_rad=angles, center_px=centers, pixel_um=2.5, backend=backend, options=options
        )
        assert stand_in
        for slice_ in volume:
            assert_disc(slice_, (*disc[:3], 0.8 * 4000))
        beside = (distances(width, disc) > disc[2] + 4) & inside_circle(width)
        assert abs(volume[:, beside].mean()) < 0.005 * 3200
        assert not volume[:, ~inside_circle(width)].any()

    def test_a_slice_does_not_depend_on_the_others(self, stand_in: list[int]) -> None:
        lines = np.random.default_rng(1).normal(size=(20, 3, 24)).astype(np.float32)
        choice = {"angles_rad": half_turn(20), "pixel_um": 1.0, "backend": "gridrec"}
        whole = recon.reconstruct(lines, center_px=[11.0, 12.0, 13.0], **choice)
        for row in range(3):
            one = recon.reconstruct(lines[:, row : row + 1], center_px=11.0 + row, **choice)
            np.testing.assert_array_equal(one[0], whole[row])
        assert stand_in

    def test_without_tomopy_it_says_where_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tomopy", None)
        with pytest.raises(BadRecipe, match=r"'gridrec' cannot be used.*conda-forge.*environment\.yml"):
            recipe_of(backend="gridrec")

    def test_the_stand_in_has_the_axis_and_the_sense_of_tomopy(self, shared_data: Path) -> None:
        folder = shared_data / "tomopy_expected"
        proj, angles = np.load(folder / "proj.npy"), np.load(folder / "angle.npy")
        theirs = np.load(folder / "gridrec_ramlak.npy")
        lines = np.pad(np.swapaxes(proj, 0, 1), ((0, 0), (0, 0), (0, 16)))
        ours = as_tomopy_does(lines, angles, np.full(8, 24.0), ramped=True)[:, 8:56, 8:56]
        agreement = correlation(theirs, ours, radius=22)
        assert agreement > 0.98
        for move in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            assert correlation(theirs, np.roll(ours, move, axis=(1, 2)), radius=22) < 0.75
        # what is seen near the middle has a sense of its own
        near = correlation(theirs, ours, radius=12)
        assert near > correlation(theirs, ours[:, ::-1], radius=12) + 0.1
        assert near > correlation(theirs, ours[:, :, ::-1], radius=12) + 0.1

    # their hann is at zero at half of Nyquist and rises again, ours is at zero at Nyquist
    @pytest.mark.parametrize("name", ["ramlak", "shepp"])
    def test_fourier_sees_what_tomopy_sees(self, name: str, shared_data: Path) -> None:
        folder = shared_data / "tomopy_expected"
        proj, angles = np.load(folder / "proj.npy"), np.load(folder / "angle.npy")
        # one more column: our axis is then on a pixel as theirs is, a line below it
        lines = np.pad(proj, ((0, 0), (0, 0), (0, 1)))
        ours = recon.reconstruct(
            lines,
            angles_rad=angles,
            center_px=24.0,
            pixel_um=PIXEL_UM,
            filter_name={"ramlak": "ramp", "shepp": "shepp"}[name],
            padding="none",
        )[:, 1:, :48]
        assert correlation(np.load(folder / f"gridrec_{name}.npy"), ours, radius=22) > 0.95

    def test_agrees_with_fourier_on_a_disc(self) -> None:
        pytest.importorskip(
            "tomopy", reason="tomopy is on conda-forge only: environment.yml", exc_type=ImportError
        )
        disc, angles = (25.3, -17.6, 14.2, 0.8), half_turn(200)
        lines = disc_rows(disc, angles=angles, width=128, centers=(66.8,))
        inside = distances(128, disc) < disc[2] - 2
        choice = {"angles_rad": angles, "center_px": 66.8, "pixel_um": PIXEL_UM}
        theirs, ours = (recon.reconstruct(lines, backend=b, **choice)[0] for b in ("gridrec", "fourier"))
        assert theirs[inside].mean() == pytest.approx(ours[inside].mean(), abs=0.02 * disc[3])


def correlation(theirs: FloatArray, ours: FloatArray, *, radius: float) -> float:
    """Of slices of 48 x 48 pixels within a circle about tomopy's axis."""
    inside = np.hypot(np.arange(48) - 24, (np.arange(48) - 23)[:, None]) < radius
    return float(np.corrcoef(theirs[:, inside].ravel(), ours[:, inside].ravel())[0, 1])


class TestAstra:
    def test_without_it_it_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "astra", None)
        with pytest.raises(BadRecipe, match=r"'astra' cannot be used.*xctpipe\[astra\].*GPL-3"):
            recipe_of(backend="astra")

    def test_an_old_one_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "astra", ModuleType("astra"))
        monkeypatch.setattr("importlib.metadata.version", lambda _: "2.1.3")
        with pytest.raises(BadRecipe, match=r"astra-toolbox 2\.1\.3 is too old"):
            recipe_of(backend="astra")

    def test_rays_see_a_point_at_its_column(self) -> None:
        # a ray through the point (x, y up) meets the row at middle + u, u counted along the row
        angles, (x, y_down), middle_px = np.array([0.0, 0.4, 2.0, -1.1]), (3.0, 5.0), 1.25
        for angle, vector in zip(angles, astra.ray_vectors(angles, middle_px=middle_px), strict=True):
            ray, middle, step = vector[:2], vector[2:4], vector[4:]
            u, _ = np.linalg.solve(np.stack([step, -ray], axis=1), np.array([x, -y_down]) - middle)
            assert u + middle_px == pytest.approx(x * np.cos(angle) - y_down * np.sin(angle))

    @pytest.mark.parametrize("algorithm", ["fbp", "cgls"])
    def test_a_device_agrees_with_the_processor(self, algorithm: str) -> None:
        reason = astra.available()
        if reason or not astra.has_cuda():
            pytest.skip(reason or "ASTRA finds no CUDA device")
        disc, angles = (11.3, -7.6, 7.2, 0.8), half_turn(90)
        lines = disc_rows(disc, angles=angles, width=48, centers=(24.8,))
        choice = {"angles_rad": angles, "center_px": 24.8, "pixel_um": PIXEL_UM, "backend": "astra"}
        for device in ("cpu", "cuda"):
            options = {"algorithm": algorithm, "device": device}
            assert_disc(recon.reconstruct(lines, options=options, **choice)[0], disc)

    def test_without_padding_nothing_is_claimed_of_what_is_beyond(self) -> None:
        reason = astra.available()
        if reason:
            pytest.skip(reason)
        # wider than the view: zeros beyond it would be wrong, and what is not claimed can be made to fit
        disc, angles = (2.0, 1.0, 30.0, 0.8), half_turn(60)
        lines = disc_rows(disc, angles=angles, width=40, centers=(19.5,))
        choice = {"angles_rad": angles, "center_px": 19.5, "pixel_um": PIXEL_UM, "padding": "none"}
        middle = np.s_[0, 15:25, 15:25]
        options = {"algorithm": "cgls", "device": "cpu"}
        fitted = recon.reconstruct(lines, backend="astra", options=options, **choice)[middle].mean()
        filtered = recon.reconstruct(lines, **choice)[middle].mean()
        assert abs(fitted - disc[3]) < abs(filtered - disc[3])


class TestForecast:
    def test_what_was_never_measured_is_not_known(self, make: Callable[..., Recipe]) -> None:
        text = "\n".join(forecast.lines(make(reconstruct={"backend": "algotom", "algorithm": "bpf"})))
        assert "time not known" in text
        assert "in all about" not in text
        assert "in all about" in "\n".join(forecast.lines(make(reconstruct={"backend": "algotom"})))
