"""A scene on disk: one file of arrays with a text that says how they belong together."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe.runfolder import write_bytes
from xctpipe.segment.scene import Level, Scene, Surface

_TYPES: dict[str, type] = {each.__name__: each for each in (Level, Scene, Surface)}
_TYPE, _ARRAY, _TUPLE, _MAP = "type", "array", "tuple", "map"


def write_values(path: Path, value: Any) -> None:
    """Write a frozen value of the segmentation (`Scene`, `Level`, `Surface`) whole or not at all."""
    arrays: dict[str, Any] = {}
    tree = _flat(value, arrays)
    content = io.BytesIO()
    np.savez_compressed(content, tree=np.array(json.dumps(tree)), **arrays)
    write_bytes(path, content.getvalue())


def read_values(path: Path) -> Any:
    """What `write_values` wrote."""
    with np.load(path) as file:
        return _grown(json.loads(str(file["tree"])), dict(file))


def _flat(value: Any, arrays: dict[str, Any]) -> Any:
    if dataclasses.is_dataclass(value):
        own = {f.name: _flat(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        return {_TYPE: type(value).__name__, "fields": own}
    if isinstance(value, np.ndarray):
        arrays[f"a{len(arrays)}"] = value
        return {_ARRAY: f"a{len(arrays) - 1}"}
    if isinstance(value, tuple):
        return {_TUPLE: [_flat(each, arrays) for each in value]}
    if isinstance(value, dict):
        return {_MAP: [[key, _flat(each, arrays)] for key, each in value.items()]}
    return value.item() if isinstance(value, np.generic) else value


def _grown(tree: Any, arrays: dict[str, Any]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if _ARRAY in tree:
        return arrays[tree[_ARRAY]]
    if _TUPLE in tree:
        return tuple(_grown(each, arrays) for each in tree[_TUPLE])
    if _MAP in tree:
        return {key: _grown(each, arrays) for key, each in tree[_MAP]}
    fields = {name: _grown(each, arrays) for name, each in tree["fields"].items()}
    return _TYPES[tree[_TYPE]](**fields)
