"""A trained pixel classifier as an option: local features and a random forest [1]_.

Grey values are taken relative to the undisturbed cell first, so that a classifier that was trained on one
scan holds for another: f = (expected - grey) / mu of the layer, 0 where nothing happened, 1 in a void. A
forest is kept as the plain arrays of its trees, which need neither scikit-learn nor trust in pickled code to
be read; scikit-learn (`pip install 'xctpipe[learn]'`) is needed to train one.

References
----------
.. [1] Breiman, Machine Learning 45, 5 (2001), doi:10.1023/A:1010933404324
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from xctpipe import __version__
from xctpipe.correct.threads import in_threads
from xctpipe.errors import BadRecipe
from xctpipe.scan import FloatArray
from xctpipe.segment.codes import PHASES
from xctpipe.segment.scene import COLLECTOR, COUNTER, LIQUID, SOLID, Scene

Labels = NDArray[np.uint8]

N_TREES = 64
MOST_VOXELS = 20_000
"""Of one class, that a forest is trained on; more are drawn from."""

_GAUSSIAN_SIGMAS = 4
_VOXELS_AT_ONCE = 4096
# so that each voxel is left out by some tree, or nearly so: (1 - 1/e)^n
_ENOUGH_TREES_TO_SCORE = 20


@dataclass(frozen=True)
class Features:
    """What is known of a voxel: Gaussian means, gradients and Hessian eigenvalues, and its layer.

    `sigmas_px` are the widths of the Gaussians, each twice the one before.
    """

    sigmas_px: tuple[float, ...] = (1.0, 2.0, 4.0)
    hosts: bool = True

    def __post_init__(self) -> None:
        doubled = all(math.isclose(b, 2 * a) for a, b in pairwise(self.sigmas_px))
        if not self.sigmas_px or self.sigmas_px[0] <= 0 or not doubled:
            raise BadRecipe(
                f"classifier: widths {self.sigmas_px}; give one above 0 or more, each twice the last"
            )

    @property
    def halo_px(self) -> int:
        """Voxels beyond a block that the features of its own depend on."""
        return int(_GAUSSIAN_SIGMAS * self.sigmas_px[-1] + 0.5) + 2

    @property
    def names(self) -> list[str]:
        """Of the features, in their order."""
        kinds = ("mean", "gradient", "hessian 1", "hessian 2", "hessian 3")
        local = [f"{kind} {sigma:g} px" for sigma in self.sigmas_px for kind in kinds]
        return [*local, *(["host"] if self.hosts else [])]


def relative(residual_cm1: FloatArray, hosts: Labels, *, scene: Scene) -> FloatArray:
    """Missing attenuation as a share of the layer's: 0 in the undisturbed cell and beyond the view.

    Parameters
    ----------
    residual_cm1 : (z, y, x), expected minus measured.
    hosts : (z, y, x), layers as in `scene`.
    """
    table = np.full(256, np.inf, np.float32)
    for host, level in ((SOLID, scene.solid), (LIQUID, scene.liquid)):
        if level is not None:
            table[host] = level.mu_cm1
    for host in (COLLECTOR, COUNTER):
        table[host] = scene.other_cm1.get(host) or np.inf
    out: FloatArray = residual_cm1 / table[hosts]
    return out


def features_of(values: FloatArray, hosts: Labels | None = None, *, features: Features) -> FloatArray:
    """Features of a block, (z, y, x, feature) float32.

    Parameters
    ----------
    values : (z, y, x), of `relative`; voxels nearer than `halo_px` to a cut face depend on the cut.
    hosts : (z, y, x), where the features have them.
    """
    from skimage.feature import multiscale_basic_features

    if features.hosts and hosts is None:
        raise BadRecipe("classifier: it was made with the layers of the cell; give them with the values")
    local: FloatArray = multiscale_basic_features(
        np.ascontiguousarray(values, np.float32),
        sigma_min=features.sigmas_px[0],
        sigma_max=features.sigmas_px[-1],
        num_sigma=len(features.sigmas_px),
        workers=int(numba.get_num_threads()),
    )
    if not features.hosts or hosts is None:
        return local
    return np.concatenate([local, hosts[..., None].astype(np.float32)], axis=-1)


@dataclass(frozen=True, eq=False)
class Trees:
    """Nodes of all trees, one after the other.

    A node that is no leaf sends a voxel to `left` where its `feature` is at most `threshold`, else to
    `right`; leaves have `left` -1 and the `shares` (node, class) of classes. `roots` (tree,) are the first
    nodes.
    """

    roots: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    shares: FloatArray


@dataclass(frozen=True, eq=False)
class Forest:
    """A trained classifier: what it looks at, what it says, and what it was trained on."""

    features: Features
    codes: Labels
    """Of the classes: numbers as in `codes.PHASES`."""
    trees: Trees
    record: Mapping[str, Any]
    """How it was trained, as JSON can hold it."""

    def predict(
        self, values: FloatArray, hosts: Labels | None = None, *, least_certainty: float = 0.5
    ) -> tuple[Labels, FloatArray]:
        """Most likely phase of each voxel, and how many of the trees' votes it has.

        Parameters
        ----------
        values, hosts : (z, y, x), as for training, with `features.halo_px` more on each side.
        least_certainty : share of votes below which a voxel is `unresolved`.

        Returns
        -------
        Phases (uint8) and certainties (float32), (z, y, x).
        """
        local = features_of(values, hosts, features=self.features)
        voxels = np.ascontiguousarray(local.reshape(-1, local.shape[-1]))
        best, certainty = np.empty(len(voxels), np.uint8), np.empty(len(voxels), np.float32)
        t = self.trees
        parts = (t.roots, t.left, t.right, t.feature, t.threshold, t.shares)

        def vote(first: int, last: int) -> None:
            _vote(voxels[first:last], parts, best[first:last], certainty[first:last])

        in_threads(vote, len(voxels), block=_VOXELS_AT_ONCE)
        phases = np.asarray(self.codes, np.uint8)[best]
        phases[certainty < least_certainty] = PHASES["unresolved"]
        return phases.reshape(values.shape), certainty.reshape(values.shape)


@numba.njit(cache=True, nogil=True)
def _vote(voxels, trees, best, certainty):  # type: ignore[no-untyped-def]
    roots, left, right, feature, threshold, shares = trees
    n_classes = shares.shape[1]
    votes = np.empty(n_classes, np.float64)
    for i in range(voxels.shape[0]):
        votes[:] = 0
        for root in roots:
            node = root
            while left[node] >= 0:
                node = left[node] if voxels[i, feature[node]] <= threshold[node] else right[node]
            for k in range(n_classes):
                votes[k] += shares[node, k]
        winner = 0
        for k in range(1, n_classes):
            if votes[k] > votes[winner]:
                winner = k
        best[i] = winner
        certainty[i] = votes[winner] / roots.size


@dataclass(frozen=True, eq=False)
class Labelled:
    """Voxels that someone, or the truth, gave a label: features (voxel, feature) and codes (voxel,)."""

    features: FloatArray
    codes: Labels
    source: str


def labelled(
    values: FloatArray, labels: Labels, hosts: Labels | None = None, *, features: Features, source: str
) -> Labelled:
    """The labelled voxels of a block: where `labels` (z, y, x) is not 0."""
    chosen = labels > 0
    return Labelled(features_of(values, hosts, features=features)[chosen], labels[chosen], source)


def train(
    parts: Sequence[Labelled],
    *,
    features: Features,
    seed: int = 0,
    n_trees: int = N_TREES,
    most_voxels: int = MOST_VOXELS,
) -> Forest:
    """Train a forest; the same parts in the same order and the same seed give the same forest.

    Classes count alike, however many voxels they have: what is rare in a volume is found too often, the more
    so the lower `least_certainty` is when it is used. The score in the record is the share of voxels that
    the trees which were not trained on them get right: neighbouring voxels are alike, so it is better than
    what other scans will show.

    Parameters
    ----------
    parts : labelled voxels of one scan or several.
    seed : of the draw and of the trees.
    n_trees : 1 or more.
    most_voxels : of one class.

    Raises
    ------
    BadRecipe
        If scikit-learn is not installed, or there are less than two classes.
    """
    codes = np.concatenate([part.codes for part in parts]) if parts else np.empty(0, np.uint8)
    classes, counts = np.unique(codes, return_counts=True)
    if len(classes) < 2:
        raise BadRecipe(
            f"classifier: {len(classes)} class(es) among the labels; label voxels of two or more phases, "
            f"with the numbers {PHASES}"
        )
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(codes == code))[:most_voxels] for code in classes]
    chosen = np.sort(np.concatenate(drawn))
    voxels = np.concatenate([part.features for part in parts])[chosen]
    model, score = _fitted(voxels, codes[chosen], seed=seed, n_trees=n_trees)
    names = {number: name for name, number in PHASES.items()}
    record = {
        **_versions(),
        "features": asdict(features),
        "sources": [part.source for part in parts],
        "voxels": {names.get(int(c), str(c)): int(n) for c, n in zip(classes, counts, strict=True)},
        "most_voxels": most_voxels,
        "seed": seed,
        "n_trees": n_trees,
        "out_of_bag_frac": score,
    }
    return Forest(features, classes.astype(np.uint8), _trees(model), record)


def check_trainable() -> None:
    """BadRecipe where scikit-learn is not installed."""
    try:
        import sklearn.ensemble  # noqa: F401
    except ModuleNotFoundError as err:
        raise BadRecipe(
            "classifier: scikit-learn trains it and is not installed; pip install 'xctpipe[learn]'"
        ) from err


def _fitted(voxels: FloatArray, codes: Labels, *, seed: int, n_trees: int) -> tuple[Any, float | None]:
    check_trainable()
    from sklearn.ensemble import RandomForestClassifier

    scored = n_trees >= _ENOUGH_TREES_TO_SCORE
    model = RandomForestClassifier(
        n_trees,
        min_samples_leaf=2,
        class_weight="balanced",
        oob_score=scored,
        random_state=seed,
        n_jobs=int(numba.get_num_threads()),
    )
    with warnings.catch_warnings():
        # a voxel that every tree has seen is left out of the score
        warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores")
        model.fit(voxels, codes)
    return model, float(model.oob_score_) if scored else None


def _trees(model: Any) -> Trees:
    trees = [each.tree_ for each in model.estimators_]
    roots = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]

    def joined(name: str) -> NDArray[np.int32]:
        # children count from the root of their tree; -1 and -2 mean none
        moved = [
            np.where(getattr(tree, name) < 0, -1, getattr(tree, name) + root)
            for tree, root in zip(trees, roots, strict=True)
        ]
        return np.concatenate(moved).astype(np.int32)

    shares = np.concatenate([tree.value[:, 0, :] for tree in trees])
    return Trees(
        roots=roots.astype(np.int32),
        left=joined("children_left"),
        right=joined("children_right"),
        feature=np.concatenate([tree.feature for tree in trees]).astype(np.int32),
        threshold=np.concatenate([tree.threshold for tree in trees]).astype(np.float64),
        shares=(shares / shares.sum(axis=1, keepdims=True)).astype(np.float32),
    )


def _versions() -> dict[str, str]:
    names = ("scikit-learn", "scikit-image", "numpy")
    return {"made_by": f"xctpipe {__version__}", **{name: version(name) for name in names}}
