"""Global labels of a volume on disk: local labels of its blocks, union-find, final numbers."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.blocks import Block, Place, Result, Scratch, Slices, run_blocks, scratch
from xctpipe.components import Components, Connectivity, Labels, local_components, merge, record_of

ReadCodes = Callable[[Slices], NDArray[Any]]
"""Reads part of the volume of codes; can be pickled where work is placed in other processes."""
Sums = Callable[[Block, Labels, int], Mapping[str, Any]]
"""Sums over the local labels 1 ... n of the core of a block: arrays whose first axis is n long."""
Keep = Callable[[Components, Sequence[Result]], NDArray[np.bool_]]
"""Which components stay, judged by their sums."""


@dataclass(frozen=True)
class Work:
    """Where a volume of codes is labelled, and how."""

    shape: tuple[int, int, int]
    blocks: Sequence[Block]
    """Without margins that matter: cores only are labelled."""
    folder: Path
    """For what is kept of finished blocks."""
    name: str
    place: Place | None = None
    connectivity: Connectivity = 26
    fingerprint: Any = None
    """Everything the codes depend on, as JSON can hold it."""


def label(
    read: ReadCodes, work: Work, *, sums: Sums | None = None, keep: Keep | None = None
) -> tuple[Scratch, Components, list[Result]]:
    """Label the connected components of equal codes of a whole volume.

    Parameters
    ----------
    read : of the codes; 0 is background.
    sums : what to add up over each local component.
    keep : which components stay; absent: all.

    Returns
    -------
    The labels on disk, 1 ... n in raster order of the first voxel of each component; the components; and
    for each block what `components.record_of` and `sums` found, to be merged by the components' methods.
    """
    edge = work.blocks[0].shape
    array = partial(scratch, shape=work.shape, edge=edge, fingerprint=work.fingerprint)
    local = array(work.folder / f"{work.name} local.zarr", dtype=np.uint32)
    first = _Local(read, local, work.shape, work.connectivity, sums)
    done = work.folder / "done"
    records = run_blocks(
        first,
        work.blocks,
        name=f"{work.name}: local labels",
        place=work.place,
        done=done,
        fingerprint=[work.fingerprint, local.token],
    )
    found = merge(records, connectivity=work.connectivity)
    if keep is not None:
        found = found.kept(keep(found, records))
    final = array(work.folder / f"{work.name}.zarr", dtype=np.int32)
    luts = dict(zip((block.index for block in work.blocks), found.luts, strict=True))
    kept = hashlib.sha256(found.first.tobytes()).hexdigest()
    run_blocks(
        _Final(local, final, luts),
        work.blocks,
        name=f"{work.name}: labels",
        place=work.place,
        done=done,
        fingerprint=[work.fingerprint, local.token, final.token, kept],
    )
    return final, found, records


@dataclass(frozen=True)
class _Local:
    read: ReadCodes
    local: Scratch
    shape: tuple[int, int, int]
    connectivity: Connectivity
    sums: Sums | None

    def __call__(self, block: Block) -> dict[str, Any]:
        codes = self.read(block.where)
        labels, n = local_components(codes, connectivity=self.connectivity)
        self.local.write(block, labels)
        own = record_of(labels, n, codes=codes, core=block.core, shape=self.shape)
        return {**own, **(self.sums(block, labels, n) if self.sums else {})}


@dataclass(frozen=True, eq=False)
class _Final:
    local: Scratch
    final: Scratch
    luts: Mapping[tuple[int, int, int], NDArray[np.int32]]

    def __call__(self, block: Block) -> dict[str, Any]:
        self.final.write(block, self.luts[block.index][self.local.read(block.where)])
        return {}
