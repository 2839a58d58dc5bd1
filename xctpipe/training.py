"""Training of a pixel classifier from labels on disk."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from xctpipe.blocks import Box, Slices, slices_of
from xctpipe.errors import BadRecipe
from xctpipe.forest_file import LAYOUT, load_forest, save_forest
from xctpipe.ground import Ground
from xctpipe.recipe import Recipe
from xctpipe.reconstructed import ground_of, work_on
from xctpipe.segment.codes import PHASES
from xctpipe.segment.forest import Features, Forest, Labelled, check_trainable, labelled, relative, train

__all__ = ["LAYOUT", "load_forest", "open_labels", "save_forest", "train_for", "train_from"]

_EDGE = 96
_MOST_CODE = max(PHASES.values())


def train_for(recipe: Recipe, labels: Sequence[str], *, out: Path, seed: int = 0) -> list[str]:
    """Train a classifier from labels of scans of a recipe, save it, and say what came of it.

    Parameters
    ----------
    labels : `SCAN=PATH` for each label volume, or a path alone for the first scan.

    Raises
    ------
    BadRecipe
        If there is a file of that name already, scikit-learn is missing, or labels cannot be used.
    """
    if out.exists():
        raise BadRecipe(f"--out {out}: exists already; choose another name, or remove it")
    if out.suffix != ".npz":
        raise BadRecipe(f"--out {out}: a classifier is a file *.npz")
    check_trainable()
    pairs = []
    with tempfile.TemporaryDirectory(prefix="xctpipe-train-") as folder:
        for text in labels:
            name, mark, path = text.rpartition("=")
            work = work_on(recipe, name if mark else None, folder=Path(folder))
            pairs.append((ground_of(work), Path(path).expanduser()))
        forest = train_from(pairs, seed=seed)
    save_forest(out, forest)
    voxels = ", ".join(f"{n} of {name}" for name, n in forest.record["voxels"].items())
    score = forest.record["out_of_bag_frac"]
    return [
        f"{out}: trained on voxels: {voxels}",
        f"{100 * score:.1f} % of voxels that a tree had not seen are right; other scans will show less",
        f'to use it, in the recipe: [segment] classifier = "{out}"',
    ]


def train_from(
    pairs: Sequence[tuple[Ground, Path]],
    *,
    features: Features | None = None,
    seed: int = 0,
    **how: int,
) -> Forest:
    """Train a classifier from volumes of which some voxels have labels.

    Blocks of the volumes that hold labels are read one at a time.

    Parameters
    ----------
    pairs : volumes, and for each a label volume on the same grid: `.npy`, TIFF, or a zarr array or OME-Zarr
        label group such as napari saves; 0 is no label, other numbers as in `codes.PHASES`.
    how : `n_trees`, `most_voxels`, as in `forest.train`.

    Raises
    ------
    BadRecipe
        If labels do not fit their volume, have other numbers, or are of less than two phases.
    """
    wanted = features or Features()
    parts = [part for ground, labels in pairs for part in _parts(ground, labels, wanted)]
    return train(_by_source(parts), features=wanted, seed=seed, **how)


def _by_source(parts: Sequence[Labelled]) -> list[Labelled]:
    sources = list(dict.fromkeys(part.source for part in parts))
    groups = [[part for part in parts if part.source == source] for source in sources]
    return [
        Labelled(
            np.concatenate([part.features for part in group]),
            np.concatenate([part.codes for part in group]),
            group[0].source,
        )
        for group in groups
    ]


def _parts(ground: Ground, path: Path, features: Features) -> Iterator[Labelled]:
    shape = ground.scene.shape
    read = open_labels(path, shape)
    source = f"{ground.path} with {path.name}"
    for corner in np.ndindex(*(-(-n // _EDGE) for n in shape)):
        core = tuple((i * _EDGE, min((i + 1) * _EDGE, n)) for i, n in zip(corner, shape, strict=True))
        labels = read(slices_of((core[0], core[1], core[2])))
        if not labels.any():
            continue
        if labels.max() > _MOST_CODE or labels.min() < 0:
            raise BadRecipe(f"{path}: label {labels.max()}; give 0 for none, else the numbers of {PHASES}")
        yield _part(ground, core, labels.astype(np.uint8), features, source)


def _part(ground: Ground, core: Any, labels: NDArray[np.uint8], features: Features, source: str) -> Labelled:
    halo, shape = features.halo_px, ground.scene.shape
    # what surrounds the labels, no more
    ends = [(at.min(), at.max() + 1) for at in np.nonzero(labels)]
    inner: Any = tuple((c[0] + int(a), c[0] + int(b)) for c, (a, b) in zip(core, ends, strict=True))
    around: Box = tuple((max(a - halo, 0), min(b + halo, n)) for (a, b), n in zip(inner, shape, strict=True))  # type: ignore[assignment]
    looked = ground.look(slices_of(around))
    whole = np.zeros(looked.residual.shape, np.uint8)
    where = tuple(slice(a - o[0], b - o[0]) for (a, b), o in zip(inner, around, strict=True))
    whole[where] = labels[tuple(slice(a, b) for a, b in ends)]
    values = relative(looked.residual, looked.hosts, scene=ground.scene)
    # what nothing is known of beyond the view teaches nothing
    whole[looked.hosts == 0] = 0
    return labelled(values, whole, looked.hosts, features=features, source=source)


def open_labels(path: Path, shape: tuple[int, int, int]) -> Callable[[Slices], NDArray[np.integer]]:
    """Reader of parts of a label volume on disk.

    Raises
    ------
    BadRecipe
        If there is none, it is of another shape, or its numbers are no integers.
    """
    try:
        stored = _open(path)
    except (OSError, ValueError, tifffile.TiffFileError) as err:
        raise BadRecipe(
            f"{path}: no labels can be read there ({err}); give .npy, TIFF, a zarr array or a label group"
        ) from err
    if tuple(stored.shape) != shape or stored.dtype.kind not in "uib":
        raise BadRecipe(
            f"{path}: labels of {tuple(stored.shape)} voxels, type {stored.dtype}; the volume has {shape}, "
            "and labels are integers: paint on the level of the volume that is worked on"
        )
    return lambda where: np.asarray(stored[where])


def _open(path: Path) -> Any:
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    if path.suffix in {".tif", ".tiff"}:
        return tifffile.imread(path)
    found = zarr.open(str(path), mode="r")
    if isinstance(found, zarr.Group):
        if "0" not in found:
            raise ValueError("a group without an array 0")
        return found["0"]
    return found
