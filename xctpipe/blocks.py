"""Work on volumes larger than memory: the same function for block after block, each with its margin.

A block function gets plain arrays from its task, which reads and writes; what it finds out comes back as
small arrays that add up. Finished blocks are kept as files, so that a killed run goes on where it stopped.
Nothing that comes out may depend on the edge of the blocks, which memory and threads decide.
"""

import hashlib
import io
import itertools
import json
import shutil
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numba
import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray

from xctpipe import shards
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.machine import usable_cpus
from xctpipe.plan import BASE_BYTES
from xctpipe.progress import progress
from xctpipe.scan import Span
from xctpipe.storage import storing, write_whole

Shape = tuple[int, int, int]
Box = tuple[Span, Span, Span]
"""Half-open ranges of (z, y, x)."""
Slices = tuple[slice, slice, slice]

Result = dict[str, NDArray[Any]]
"""What is found out about a block: small arrays, numbers as arrays without axes."""
Task = Callable[["Block"], Mapping[str, Any]]
"""Reads, computes and writes one block; can be pickled where work is placed in other processes."""

EDGES = (256, 192, 128, 64, 32)
"""Edges of blocks, the largest first; chunks of labels on disk lie in them or they in chunks."""
_MOST_VOXELS = 24_000_000
"""Of a block and its margin: arrays of larger ones cost more in new pages of memory than margins do."""
_CHUNK_EDGE = 64
_WIDE = (1024, 512, 384, *EDGES)


def slices_of(box: Box) -> Slices:
    """The box as an index."""
    z, y, x = (slice(*span) for span in box)
    return z, y, x


def widened(where: Slices, margin: int | Shape, *, shape: Shape) -> tuple[Slices, Slices]:
    """An index with a margin on both sides, as far as the volume goes; and the index itself within that."""
    wide, inner = [], []
    for part, more, n in zip(where, _three(margin), shape, strict=True):
        first = max(part.start - more, 0)
        wide.append(slice(first, min(part.stop + more, n)))
        inner.append(slice(part.start - first, part.stop - first))
    return (wide[0], wide[1], wide[2]), (inner[0], inner[1], inner[2])


def part_about(values: NDArray[Any], margin: int) -> Slices | None:
    """The part of an array (z, y, x) that holds all that is not 0, and a margin; None where all is 0."""
    parts = []
    for axis, n in enumerate(values.shape):
        held = np.flatnonzero(values.any(axis=tuple(i for i in range(3) if i != axis)))
        if not held.size:
            return None
        parts.append(slice(max(int(held[0]) - margin, 0), min(int(held[-1]) + 1 + margin, n)))
    return parts[0], parts[1], parts[2]


@dataclass(frozen=True)
class Block:
    """A part `core` of a volume, and the part `padded` that must be read to compute it."""

    index: Shape
    """Position in the grid of blocks."""
    core: Box
    padded: Box
    """The core and its margin, as far as the volume goes."""

    @property
    def shape(self) -> Shape:
        """Shape of the core."""
        z, y, x = (b - a for a, b in self.core)
        return z, y, x

    @property
    def where(self) -> Slices:
        """The core as an index of the volume."""
        return slices_of(self.core)

    @property
    def around(self) -> Slices:
        """The padded part as an index of the volume."""
        return slices_of(self.padded)

    def near(self, values: NDArray[Any], margin: int) -> "tuple[Block, Slices] | None":
        """The block cut to where values (of the padded part) are not 0 or near; and that part of the values.

        None where nothing is near the core.
        """
        part = part_about(values, margin)
        if part is None:
            return None
        padded = [(p + s.start, p + s.stop) for (p, _), s in zip(self.padded, part, strict=True)]
        core = [(max(a, p), min(b, q)) for (a, b), (p, q) in zip(self.core, padded, strict=True)]
        if any(a >= b for a, b in core):
            return None
        return Block(self.index, (core[0], core[1], core[2]), (padded[0], padded[1], padded[2])), part

    @property
    def trim(self) -> Slices:
        """The core as an index of the padded part."""
        z, y, x = (slice(a - p, b - p) for (a, b), (p, _) in zip(self.core, self.padded, strict=True))
        return z, y, x


def blocks_of(shape: Shape, *, edge: int | Shape, halo: int | Shape = 0) -> tuple[Block, ...]:
    """Cut a volume into blocks, in raster order.

    Parameters
    ----------
    shape : of the volume (z, y, x).
    edge : of the blocks, > 0; those at the far ends are cut.
    halo : margin on both sides, >= 0; it ends where the volume ends.
    """
    edges, halos = _three(edge), _three(halo)
    if min(edges) < 1 or min(halos) < 0:
        raise ValueError(f"blocks of edge {edge} with a margin of {halo} voxels")
    axes = [range(0, n, step) for n, step in zip(shape, edges, strict=True)]
    blocks = []
    for start in itertools.product(*axes):
        (z, y, x), (pz, py, px) = (
            [
                (max(0, a - margin), min(n, a + step + margin))
                for a, n, step, margin in zip(start, shape, edges, margins, strict=True)
            ]
            for margins in ((0, 0, 0), halos)
        )
        k, j, i = (a // step for a, step in zip(start, edges, strict=True))
        blocks.append(Block((k, j, i), (z, y, x), (pz, py, px)))
    return tuple(blocks)


def _three(value: int | Shape) -> Shape:
    return (value, value, value) if isinstance(value, int) else value


def block_edge(memory_bytes: int, *, bytes_per_voxel: float, threads: int, halo: int) -> int:
    """The largest edge of blocks at which all threads together stay within the memory.

    Parameters
    ----------
    memory_bytes : of this process, what it needs before any block included.
    bytes_per_voxel : of a block and its margin, all arrays of the task at its worst moment.
    threads : blocks worked on at once.
    halo : margin on each side, voxels.

    Raises
    ------
    BadRecipe
        If the smallest block does not fit.
    """
    for edge in EDGES:
        needed = threads * bytes_per_voxel * (edge + 2 * halo) ** 3
        if BASE_BYTES + needed <= memory_bytes:
            return edge
    raise BadRecipe(
        f"compute.memory_gb = {memory_bytes / 1e9:.3g}: {threads} blocks of {EDGES[-1]}^3 voxels with a "
        f"margin of {halo} need {(BASE_BYTES + needed) / 1e9:.3g} GB; give more, or use fewer CPUs"
    )


def block_shape(shape: Shape, *, memory_bytes: int, bytes_per_voxel: float, threads: int, halo: int) -> Shape:
    """The blocks that fit into the memory and whose margins cost least: as wide as can be, then as high.

    Every thread gets some, so that none waits for another's last one. Parameters and errors as for
    `block_edge`.
    """
    smallest = block_edge(memory_bytes, bytes_per_voxel=bytes_per_voxel, threads=threads, halo=halo)
    room = min((memory_bytes - BASE_BYTES) / (threads * bytes_per_voxel), _MOST_VOXELS)
    best, least = (smallest,) * 3, float("inf")
    for edges in itertools.product(EDGES, _WIDE, _WIDE):
        cut = [min(edge, -(-n // 32) * 32) for edge, n in zip(edges, shape, strict=True)]
        padded = np.prod([min(edge + 2 * halo, n) for edge, n in zip(cut, shape, strict=True)])
        counts = [-(-n // edge) for edge, n in zip(cut, shape, strict=True)]
        rounds = -(-int(np.prod(counts)) // threads)
        # blocks of one round work at the same time: the volume is done in rounds
        cost = float(rounds * padded)
        if padded <= room and cost < least:
            best, least = (cut[0], cut[1], cut[2]), cost
    return best


class Place(Protocol):
    """How work is placed: calls the function for each item and yields (number of the item, result)."""

    def __call__(self, task: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Results in the order in which they are ready; the first error ends it."""


def in_this_process(threads: int | None = None) -> Place:
    """Place work on threads of this process, all CPUs it may use when absent; kernels get one thread each."""
    count = threads or usable_cpus()

    def place(task: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        waiting = iter(range(len(items)))
        flying: dict[Future[Any], int] = {}
        with ThreadPoolExecutor(count, initializer=numba.set_num_threads, initargs=(1,)) as pool:
            try:
                while True:
                    for i in itertools.islice(waiting, 2 * count - len(flying)):
                        flying[pool.submit(task, items[i])] = i
                    if not flying:
                        return
                    ended, _ = wait(flying, return_when=FIRST_COMPLETED)
                    for future in ended:
                        yield flying.pop(future), future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    return place


def run_blocks(
    task: Task,
    blocks: Sequence[Block],
    *,
    name: str,
    place: Place | None = None,
    done: Path | None = None,
    fingerprint: Any = None,
) -> list[Result]:
    """Call a task for every block; what is done already is kept.

    Parameters
    ----------
    task : reads what it needs of a block, writes files that no other block writes, returns small arrays.
    name : of this pass, for the progress bar and its folder.
    place : how work is placed; absent: threads of this process.
    done : folder for the results of finished blocks; absent: none are kept.
    fingerprint : everything the results depend on but the blocks, as JSON can hold it; results kept under
        another one are discarded.

    Returns
    -------
    Results in the order of the blocks.

    Raises
    ------
    The first error of a task; blocks not begun by then are not.
    """
    kept = None if done is None else _folder_for(done / name.replace(" ", "_"), blocks, fingerprint)
    results: list[Result | None] = [None if kept is None else _load(kept, i) for i in range(len(blocks))]
    rest = [i for i, result in enumerate(results) if result is None]
    if rest:
        with progress(name, total=len(rest), unit="blocks") as bar:
            items = [(i, blocks[i]) for i in rest]
            for number, result in (place or in_this_process())(_Keeping(task, kept), items):
                results[rest[number]] = result
                bar.advance(1)
    return [result for result in results if result is not None]


@dataclass(frozen=True)
class _Keeping:
    """A task that keeps what it returns; where it runs, so that nothing is lost with the caller."""

    task: Task
    folder: Path | None

    def __call__(self, numbered: tuple[int, Block]) -> Result:
        i, block = numbered
        result = {key: np.asarray(value) for key, value in self.task(block).items()}
        if any(value.dtype.hasobject for value in result.values()):
            raise TypeError(f"a block's result must be arrays of numbers or text: {sorted(result)}")
        if self.folder is not None:
            content = io.BytesIO()
            arrays: dict[str, Any] = result
            np.savez(content, **arrays)
            path = _file_of(self.folder, i)
            with storing(path):
                write_whole(path, [content.getvalue()])
        return result


def _file_of(folder: Path, i: int) -> Path:
    return folder / f"{i:07d}.npz"


def _load(folder: Path, i: int) -> Result | None:
    with suppress(OSError, ValueError, EOFError, zipfile.BadZipFile), np.load(_file_of(folder, i)) as file:
        return dict(file)
    return None


def _folder_for(folder: Path, blocks: Sequence[Block], fingerprint: Any) -> Path:
    """The folder for what is kept under this fingerprint; what is kept under others is removed.

    Each has its own, so that a worker left from an earlier run writes nothing into a later one.
    """
    text = json.dumps([fingerprint, [(b.core, b.padded) for b in blocks]], sort_keys=True)
    mark = hashlib.sha256(text.encode()).hexdigest()[:16]
    with storing(folder):
        for other in folder.glob("*"):
            if other.name != mark:
                shutil.rmtree(other)
    return folder / mark


def discard(folder: Path) -> None:
    """Remove a folder with what is in it; one that is not there is no error."""
    with storing(folder):
        # first what makes an array one: what an interrupted removal left is never taken for whole
        (folder / "zarr.json").unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)


@dataclass(frozen=True)
class Scratch:
    """An array on disk for what one pass leaves to the next: one file per block, written by one task.

    Can be pickled; opens the array at each call. What was never written reads as zeros.
    """

    path: Path
    shape: Shape
    dtype: str
    token: str
    """Of this array and no other; belongs into the fingerprint of the pass that writes it."""

    def read(self, where: Slices) -> NDArray[Any]:
        """Part of the array."""
        return shards.read(self.path, where)

    def write(self, block: Block, values: NDArray[Any]) -> None:
        """Write the core of a block."""
        with storing(self.path, needed_bytes=values.nbytes):
            if zarr.open_array(str(self.path), mode="r").attrs["token"] != self.token:
                raise BadScan(f"{self.path}: a later run works there; this one ends")
            shards.write(self.path, block.where, values)

    def remove(self) -> None:
        """Delete the array."""
        discard(self.path)


def scratch(
    path: Path, *, shape: Shape, dtype: DTypeLike, edge: int | Shape, fingerprint: Any = None
) -> Scratch:
    """Open the scratch array at `path` if it is this one, else make it anew.

    Parameters
    ----------
    edge : of the blocks that write it.
    fingerprint : what its content depends on, as JSON can hold it.
    """
    name, edges = np.dtype(dtype).name, _three(edge)
    mark = json.dumps([fingerprint, shape, edges, name], sort_keys=True)
    with suppress(FileNotFoundError, KeyError, ValueError):
        own = dict(zarr.open_array(str(path), mode="r").attrs)
        if own["mark"] == mark:
            return Scratch(path, shape, name, str(own["token"]))
    token = uuid.uuid4().hex
    with storing(path):
        discard(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        zarr.create_array(
            str(path),
            shape=shape,
            dtype=name,
            # margins are read from many neighbours: of each only the chunks that are needed
            chunks=tuple(_largest_divisor(e, most=_CHUNK_EDGE) for e in edges),
            shards=edges,
            compressors=shards.compressor(),
            fill_value=0,
            attributes={"mark": mark, "token": token},
        )
    return Scratch(path, shape, name, token)


def _largest_divisor(n: int, *, most: int) -> int:
    return next(d for d in range(min(n, most), 0, -1) if n % d == 0)
