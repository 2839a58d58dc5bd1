"""The file that holds a trained pixel classifier."""

import io
import json
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np

from xctpipe.errors import BadRecipe
from xctpipe.runfolder import write_bytes
from xctpipe.segment.forest import Features, Forest, Trees

LAYOUT = 1
"""Of the file; another one is refused."""


def save_forest(path: Path, forest: Forest) -> None:
    """Write a classifier with its record into one file (`.npz`), whole or not at all."""
    arrays = {field.name: getattr(forest.trees, field.name) for field in fields(Trees)}
    record = {"layout": LAYOUT, **forest.record}
    content = io.BytesIO()
    np.savez_compressed(content, record=np.array(json.dumps(record)), codes=forest.codes, **arrays)
    write_bytes(path, content.getvalue())


def load_forest(path: Path) -> Forest:
    """A classifier that `save_forest` wrote; nothing in the file is run as code.

    Raises
    ------
    BadRecipe
        If it is none.
    """
    try:
        # numpy leaves a file open that it cannot read
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            record = json.loads(str(file["record"]))
            trees = Trees(**{field.name: file[field.name] for field in fields(Trees)})
            codes = file["codes"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as err:
        raise BadRecipe(f"{path}: not a classifier ({err}); give a file that `xctpipe train` wrote") from err
    if record.pop("layout", None) != LAYOUT:
        raise BadRecipe(f"{path}: a classifier of another version of xctpipe; train it again")
    known = record["features"]
    forest = Forest(Features(tuple(known["sigmas_px"]), known["hosts"]), codes, trees, record)
    _check(path, forest)
    return forest


def _check(path: Path, forest: Forest) -> None:
    """BadRecipe where following a node would leave the arrays, or never end."""
    t, n = forest.trees, len(forest.trees.left)
    lengths = {len(each) for each in (t.left, t.right, t.feature, t.threshold, t.shares)}
    inner = np.flatnonzero(t.left >= 0)
    sound = (
        lengths == {n}
        and t.shares.shape[1:] == forest.codes.shape
        and len(t.roots) > 0
        and bool(np.all((t.roots >= 0) & (t.roots < n)))
        # children come after their parent
        and bool(np.all((t.left[inner] > inner) & (t.left[inner] < n)))
        and bool(np.all((t.right[inner] > inner) & (t.right[inner] < n)))
        and bool(np.all((t.feature[inner] >= 0) & (t.feature[inner] < len(forest.features.names))))
    )
    if not sound:
        raise BadRecipe(f"{path}: a classifier that was damaged; train it again")
