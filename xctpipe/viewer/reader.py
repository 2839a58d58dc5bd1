"""Opens run folders that are dropped on napari, or the `run.json` in one."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from xctpipe.viewer.layers import LayerData, layer_data
from xctpipe.viewer.objects import read_objects
from xctpipe.viewer.series import is_run, read_run

log = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]


def get_reader(path: Paths) -> Callable[[Paths], list[LayerData]] | None:
    """The reader of run folders, None for anything else; looks at two names and never raises."""
    try:
        return read_layers if all(map(is_run, _paths(path))) else None
    except (TypeError, ValueError):
        return None


def _paths(path: Paths) -> list[Path]:
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
    if not paths:
        raise ValueError("no path")
    return paths


def read_layers(path: Paths) -> list[LayerData]:
    """The layers of one or more runs; UserError if there is nothing to be shown."""
    layers = []
    for each in _paths(path):
        run = read_run(each)
        notes = list(run.notes)
        layers += layer_data(run, read_objects(run, notes), notes)
        for note in notes:
            log.warning("%s", note)
    return layers
