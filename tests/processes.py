"""Processes that start at once: forks of one that has imported the program and done nothing else."""

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe import volume


def context() -> ForkServerContext:
    """Where processes come from; the first one waits for the imports, which later ones have already."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["processes", "xctpipe.cli", "xctpipe.run"])
    return found


def run_in_low_slabs(recipe: Path, *, rows: int) -> None:
    """What `xctpipe run RECIPE` does, in slabs of a few rows and in silence."""
    from xctpipe import cli, plan

    plan.MAX_SLAB_ROWS = rows
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    sys.exit(cli.main(["run", str(recipe)]))


def write_every_other(path: Path, first: int, data: np.ndarray[Any, Any], barrier: Barrier) -> None:
    """Write each second slab of a volume, at once with whoever else waits at the barrier."""
    spec = volume.read_spec(path)
    barrier.wait(60)
    for z0, z1 in spec.slabs[first::2]:
        volume.write_slab(path, spec, z0, slab=data[z0:z1])
