import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage

from xctpipe import training
from xctpipe.errors import BadRecipe
from xctpipe.ground import Looked
from xctpipe.segment import forest
from xctpipe.segment.codes import PHASES
from xctpipe.segment.forest import Features, Forest
from xctpipe.segment.scene import COLLECTOR, LIQUID, SOLID, Level, Scene

pytest.importorskip("sklearn", reason="no scikit-learn: pip install 'xctpipe[learn]'")

NASICON, NAK, CRACK, BUBBLE = (PHASES[name] for name in ("nasicon", "nak", "crack", "bubble"))
SHAPE = (26, 34, 34)
SMALL = Features((1.0, 2.0))
NOISE = 0.15


def a_cell(seed: int) -> tuple[Any, Any, Any]:
    """Missing attenuation, layers and true phases: a bubble in NaK above a slanting crack in NASICON."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]].astype(float)
    hosts = np.where(z < 10, LIQUID, SOLID).astype(np.uint8)
    truth = np.where(hosts == LIQUID, NAK, NASICON).astype(np.uint8)
    cy, cx = rng.uniform(12, 22, 2)
    truth[(z - 4.5) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 16] = BUBBLE
    slope = rng.uniform(-0.2, 0.2)
    truth[abs(z - 18 - slope * (x - 17)) < 1.2] = CRACK
    void = np.isin(truth, (BUBBLE, CRACK)).astype(float)
    values = ndimage.gaussian_filter(void, 0.8) + rng.normal(0, NOISE, SHAPE)
    return values.astype(np.float32), hosts, truth


def sparse(truth: Any, *, seed: int = 0, n: int = 150) -> Any:
    """Labels of a few voxels of each phase, as someone would paint them."""
    rng = np.random.default_rng(seed)
    labels = np.zeros_like(truth)
    for code in np.unique(truth):
        chosen = rng.permutation(np.flatnonzero(truth == code))[:n]
        labels.flat[chosen] = code
    return labels


@pytest.fixture(scope="module")
def trained() -> Forest:
    values, hosts, truth = a_cell(0)
    part = forest.labelled(values, sparse(truth), hosts, features=SMALL, source="a cell")
    return forest.train([part], features=SMALL, seed=3, n_trees=24)


def dice(a: Any, b: Any) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_a_forest_holds_for_another_cell(trained: Forest) -> None:
    values, hosts, truth = a_cell(7)
    found, certainty = trained.predict(values, hosts, least_certainty=0)
    for code, least in ((NASICON, 0.97), (NAK, 0.97), (CRACK, 0.8), (BUBBLE, 0.8)):
        assert dice(found == code, truth == code) > least
    # voxel by voxel, noise alone makes this much wrong
    alone = np.where(values > 0.5, BUBBLE, NAK)
    assert dice(found == BUBBLE, truth == BUBBLE) > dice(
        (alone == BUBBLE) & (hosts == LIQUID), truth == BUBBLE
    )
    assert certainty.min() > 1 / 4
    assert certainty.max() <= 1


def test_votes_are_those_of_scikit_learn() -> None:
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(0)
    voxels = rng.normal(size=(400, 5)).astype(np.float32)
    codes = np.array([3, 6, 9], np.uint8)[
        (voxels[:, 0] + voxels[:, 1] ** 2 > 0.5).astype(int) + (voxels[:, 2] > 1)
    ]
    model = RandomForestClassifier(15, random_state=0).fit(voxels, codes)
    t = forest._trees(model)
    fresh = rng.normal(size=(1000, 5)).astype(np.float32)
    best, certainty = np.empty(1000, np.uint8), np.empty(1000, np.float32)
    forest._vote(fresh, (t.roots, t.left, t.right, t.feature, t.threshold, t.shares), best, certainty)
    expected = model.predict_proba(fresh)
    assert certainty == pytest.approx(expected.max(axis=1), abs=1e-6)
    assert np.array_equal(best, expected.argmax(axis=1))


def test_uncertain_voxels_are_unresolved(trained: Forest) -> None:
    values, hosts, _ = a_cell(7)
    all_of_them, certainty = trained.predict(values, hosts, least_certainty=0)
    found, again = trained.predict(values, hosts, least_certainty=0.7)
    assert np.array_equal(certainty, again)
    assert np.array_equal(found == PHASES["unresolved"], certainty < 0.7)
    assert np.array_equal(found[certainty >= 0.7], all_of_them[certainty >= 0.7])
    assert 0 < (certainty < 0.7).mean() < 0.2


def test_the_same_seed_gives_the_same_forest_with_any_number_of_threads(trained: Forest) -> None:
    values, hosts, truth = a_cell(0)
    part = forest.labelled(values, sparse(truth), hosts, features=SMALL, source="a cell")
    numba.set_num_threads(1)
    again = forest.train([part], features=SMALL, seed=3, n_trees=24)
    results = [trained.predict(values, hosts)]
    numba.set_num_threads(2)
    results.append(again.predict(values, hosts))
    for first, second in zip(*results, strict=True):
        assert np.array_equal(first, second)
    assert again.record == trained.record
    other = forest.train([part], features=SMALL, seed=4, n_trees=24)
    assert not np.array_equal(other.trees.threshold, trained.trees.threshold)


def test_blocks_with_their_halo_give_what_the_whole_gives(trained: Forest) -> None:
    values, hosts, _ = a_cell(7)
    whole, certainty = trained.predict(values, hosts)
    halo = SMALL.halo_px
    for first, last in ((0, 12), (12, 20), (20, 34)):
        a, b = max(first - halo, 0), min(last + halo, SHAPE[2])
        part, sure = trained.predict(values[:, :, a:b], hosts[:, :, a:b])
        inner = np.s_[:, :, first - a : last - a]
        assert np.array_equal(part[inner], whole[:, :, first:last])
        assert np.array_equal(sure[inner], certainty[:, :, first:last])


def test_the_record_says_what_it_was_trained_on(trained: Forest) -> None:
    record = trained.record
    assert record["sources"] == ["a cell"]
    assert record["voxels"] == {"nasicon": 150, "nak": 150, "crack": 150, "bubble": 150}
    assert (record["seed"], record["n_trees"]) == (3, 24)
    assert record["features"]["sigmas_px"] == SMALL.sigmas_px
    assert 0.8 < record["out_of_bag_frac"] <= 1
    assert {"made_by", "scikit-learn", "scikit-image", "numpy"} <= set(record)


def test_features_are_as_many_as_their_names() -> None:
    values, hosts, _ = a_cell(0)
    for features in (SMALL, Features((1.5,), hosts=False)):
        local = forest.features_of(values, hosts, features=features)
        assert local.shape == (*SHAPE, len(features.names))
    # of a ramp the mean is the ramp and the second derivatives are 0
    ramp = np.broadcast_to(np.arange(30, dtype=np.float32), (30, 30, 30))
    middle = forest.features_of(ramp, features=Features((1.0,), hosts=False))[10:20, 10:20, 10:20]
    assert middle[..., 0] == pytest.approx(ramp[10:20, 10:20, 10:20], abs=1e-4)
    assert middle[..., 2:] == pytest.approx(np.zeros((10, 10, 10, 3)), abs=1e-4)


def test_a_forest_is_kept_in_one_file(trained: Forest, tmp_path: Path) -> None:
    path = tmp_path / "forest.npz"
    training.save_forest(path, trained)
    kept = training.load_forest(path)
    values, hosts, _ = a_cell(7)
    for first, second in zip(trained.predict(values, hosts), kept.predict(values, hosts), strict=True):
        assert np.array_equal(first, second)
    assert kept.features == trained.features
    assert kept.record["voxels"] == trained.record["voxels"]
    assert kept.record["out_of_bag_frac"] == trained.record["out_of_bag_frac"]


def test_a_damaged_forest_is_refused(trained: Forest, tmp_path: Path) -> None:
    path = tmp_path / "forest.npz"
    trees = trained.trees
    to_itself = trees.left.copy()
    to_itself[trees.left >= 0] = 0
    for name, value in (
        ("left", to_itself),
        ("feature", trees.feature + 100),
        ("roots", trees.roots + 10**6),
    ):
        training.save_forest(path, replace(trained, trees=replace(trees, **{name: value})))
        with pytest.raises(BadRecipe, match="damaged"):
            training.load_forest(path)
    training.save_forest(path, trained)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(BadRecipe, match="not a classifier"):
        training.load_forest(path)
    with pytest.raises(BadRecipe, match="not a classifier"):
        training.load_forest(tmp_path / "none.npz")


def test_without_scikit_learn_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, trained: Forest
) -> None:
    values, hosts, truth = a_cell(0)
    part = forest.labelled(values, sparse(truth), hosts, features=SMALL, source="")
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(BadRecipe, match=r"xctpipe\[learn\]"):
        forest.train([part], features=SMALL)
    # to use one it is not needed
    assert trained.predict(values, hosts)[0].shape == SHAPE


def test_wrong_training_is_refused(trained: Forest) -> None:
    values, hosts, _ = a_cell(0)
    one = forest.labelled(values, np.full(SHAPE, NAK, np.uint8), hosts, features=SMALL, source="")
    with pytest.raises(BadRecipe, match=r"1 class\(es\)"):
        forest.train([one], features=SMALL)
    with pytest.raises(BadRecipe, match=r"0 class\(es\)"):
        forest.train([], features=SMALL)
    with pytest.raises(BadRecipe, match="each twice the last"):
        Features((1.0, 3.0))
    with pytest.raises(BadRecipe, match="layers"):
        trained.predict(values)


def a_scene() -> Scene:
    def level(mu: float) -> Level:
        return Level(mu, np.array([0.0]), np.array([0.0]), 0.1)

    return Scene(SHAPE, 1.3, (17.0, 17.0), 20.0, "nak", {}, level(2.3), level(0.2), 0.8, {COLLECTOR: 0.5})


def test_missing_attenuation_is_taken_relative_to_the_layer() -> None:
    hosts = np.array([[[0, SOLID, LIQUID, COLLECTOR]]], np.uint8)
    missing = np.array([[[1.0, 2.3, 0.1, 0.25]]], np.float32)
    assert forest.relative(missing, hosts, scene=a_scene()) == pytest.approx(np.array([[[0, 1, 0.5, 0.5]]]))


@dataclass
class FakeGround:
    """What a volume on disk would say of the cell of a seed."""

    seed: int
    path: Path = Path("volume")
    scene: Scene = field(default_factory=a_scene)

    def look(self, where: Any) -> Looked:
        values, hosts, _ = a_cell(self.seed)
        table = np.zeros(5, np.float32)
        table[[LIQUID, SOLID]] = 0.2, 2.3
        missing = values * table[hosts]
        part = missing[where]
        return Looked(part, part, part, hosts[where], part)


@pytest.mark.parametrize("kind", ["npy", "tif", "zarr", "group"])
def test_labels_from_disk(
    kind: str, trained: Forest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = sparse(a_cell(0)[2])
    path = tmp_path / f"painted.{kind}"
    if kind == "npy":
        np.save(path, labels)
    elif kind == "tif":
        tifffile.imwrite(path, labels)
    else:
        store = path if kind == "zarr" else path / "0"
        zarr.create_array(str(store), data=labels, chunks=(16, 16, 16), overwrite=True)
        if kind == "group":
            zarr.open_group(str(path), mode="a")
    # blocks smaller than the volume, in another order of voxels: the same ones, and as good a forest
    monkeypatch.setattr(training, "_EDGE", 20)
    made = training.train_from([(FakeGround(0), path)], features=SMALL, seed=3, n_trees=24)  # type: ignore[list-item]
    assert made.record["voxels"] == trained.record["voxels"]
    assert made.record["sources"] == [f"volume with painted.{kind}"]
    values, hosts, truth = a_cell(7)
    found, _ = made.predict(values, hosts, least_certainty=0)
    assert dice(found == CRACK, truth == CRACK) > 0.8


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    ground: Any = FakeGround(0)
    for name, labels, text in (
        ("shape.npy", np.ones((3, 4, 5), np.uint8), r"\(3, 4, 5\) voxels"),
        ("float.npy", np.ones(SHAPE, np.float32), "integers"),
        ("code.npy", np.full(SHAPE, 99, np.uint8), "label 99"),
        ("minus.npy", np.full(SHAPE, -1, np.int16), "label -1"),
    ):
        np.save(tmp_path / name, labels)
        with pytest.raises(BadRecipe, match=text):
            training.train_from([(ground, tmp_path / name)], features=SMALL)
    for name in ("none.npy", "none.tif", "none.zarr"):
        with pytest.raises(BadRecipe, match="no labels can be read"):
            training.train_from([(ground, tmp_path / name)], features=SMALL)
