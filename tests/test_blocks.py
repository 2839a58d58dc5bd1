"""Work block by block: every voxel once, nothing lost in between, nothing that depends on the cut."""

import pickle
import threading
import time
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from xctpipe import plan
from xctpipe.blocks import (
    EDGES,
    Scratch,
    block_edge,
    blocks_of,
    discard,
    in_this_process,
    run_blocks,
    scratch,
    widened,
)
from xctpipe.errors import BadRecipe, BadScan

EVERYWHERE = (slice(None),) * 3


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(1, 15)] * 3), st.tuples(*[st.integers(2, 9)] * 3), st.integers(0, 5))
def test_every_voxel_is_in_one_core_and_margins_end_with_the_volume(shape, edge, halo):
    seen = np.zeros(shape, int)
    volume = np.arange(seen.size).reshape(shape)
    for block in blocks_of(shape, edge=edge, halo=halo):
        seen[block.where] += 1
        np.testing.assert_array_equal(volume[block.around][block.trim], volume[block.where])
        for (a, b), (first, last), n in zip(block.core, block.padded, shape, strict=True):
            assert (first, last) == (max(0, a - halo), min(n, b + halo))
    assert (seen == 1).all()


def test_blocks_come_in_raster_order_with_their_place_in_the_grid():
    blocks = blocks_of((4, 4, 6), edge=(2, 4, 3))
    assert [block.index for block in blocks] == [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1)]
    assert blocks[3].core == ((2, 4), (0, 4), (3, 6))


def test_a_block_is_cut_to_what_is_near_it():
    values = np.zeros((12, 12, 12), np.uint8)
    values[9, 5, 2] = 1
    first, *_, last = blocks_of(values.shape, edge=6, halo=4)
    # of the block at 0 only the last rows see it, which lies in its margin
    cut, part = first.near(values[first.around], 4)
    assert (cut.core, cut.padded) == (((5, 6), (1, 6), (0, 6)), ((5, 10), (1, 10), (0, 7)))
    np.testing.assert_array_equal(values[first.around][part], values[cut.around])
    assert first.near(values[first.around], 3) is None
    assert first.near(np.zeros(values[first.around].shape), 9) is None
    assert last.near(values[last.around], 3) is None
    wide, inner = widened(first.where, (9, 2, 0), shape=values.shape)
    assert wide == (slice(0, 12), slice(0, 8), slice(0, 6))
    np.testing.assert_array_equal(values[wide][inner], values[first.where])


def test_blocks_without_extent_are_refused():
    with pytest.raises(ValueError, match="edge 0"):
        blocks_of((4, 4, 4), edge=0)


@pytest.mark.parametrize(("threads", "halo", "bytes_per_voxel"), [(1, 0, 4), (2, 16, 20), (16, 16, 40.5)])
def test_the_edge_is_the_largest_that_fits(threads, halo, bytes_per_voxel):
    options = {"threads": threads, "halo": halo, "bytes_per_voxel": bytes_per_voxel}

    def needed(edge):
        return plan.BASE_BYTES + threads * bytes_per_voxel * (edge + 2 * halo) ** 3

    for larger, edge in pairwise(EDGES):
        memory = int(needed(edge)) + 1
        assert block_edge(memory, **options) == edge
        assert needed(larger) > memory
    assert block_edge(10**15, **options) == EDGES[0]
    with pytest.raises(BadRecipe, match=r"compute.memory_gb.*GB; give more"):
        block_edge(int(needed(EDGES[-1])) - 1, **options)


@dataclass(frozen=True)
class Smooth:
    """A filter with a margin, and a sum: from one file to another."""

    source: Scratch
    target: Scratch

    def __call__(self, block):
        grey = self.source.read(block.around)
        smooth = ndimage.uniform_filter(grey, 5, mode="constant")[block.trim]
        self.target.write(block, smooth)
        return {"total": int(grey[block.trim].sum()), "greatest": smooth.max()}


def filtered(folder, grey, *, edge, threads):
    every = partial(scratch, shape=grey.shape, dtype=grey.dtype, edge=edge)
    source, target = every(folder / "source.zarr"), every(folder / "target.zarr")
    for block in blocks_of(grey.shape, edge=edge):
        source.write(block, grey[block.where])
    blocks = blocks_of(grey.shape, edge=edge, halo=2)
    task = pickle.loads(pickle.dumps(Smooth(source, target)))
    results = run_blocks(task, blocks, name="smooth", place=in_this_process(threads))
    return target.read(EVERYWHERE), sum(r["total"] for r in results), max(r["greatest"] for r in results)


@pytest.mark.parametrize(("edge", "threads"), [(64, 1), (16, 2), (11, 3), ((32, 16, 20), 4)])
def test_a_filter_by_block_is_the_filter_of_the_whole(tmp_path, edge, threads):
    grey = np.random.default_rng(1).integers(0, 60000, (40, 33, 50)).astype(np.int32)
    got, total, greatest = filtered(tmp_path, grey, edge=edge, threads=threads)
    whole = ndimage.uniform_filter(grey, 5, mode="constant")
    np.testing.assert_array_equal(got, whole)
    assert total == grey.sum()
    assert greatest == whole.max()


class Broken(Exception):
    """Of a test."""


class Counting:
    """A task that counts its calls and fails at one block."""

    def __init__(self, fail_at=None):
        self.seen, self.fail_at, self.lock = [], fail_at, threading.Lock()

    def __call__(self, block):
        with self.lock:
            self.seen.append(block.index)
        if block.index == self.fail_at:
            raise Broken
        return {"index": np.array(block.index), "n": np.prod(block.shape)}


def test_what_was_finished_before_an_error_is_not_done_again(tmp_path):
    blocks = blocks_of((40, 10, 10), edge=10)
    keep = {"name": "count", "place": in_this_process(1), "done": tmp_path, "fingerprint": {"a": 1}}
    failing = Counting(fail_at=(2, 0, 0))
    with pytest.raises(Broken):
        run_blocks(failing, blocks, **keep)
    task = Counting()
    results = run_blocks(task, blocks, **keep)
    assert sorted({*failing.seen, *task.seen}) == [block.index for block in blocks]
    assert (0, 0, 0) not in task.seen
    assert (2, 0, 0) in task.seen
    assert [tuple(r["index"]) for r in results] == [block.index for block in blocks]
    assert all(int(r["n"]) == 1000 for r in results)


@pytest.mark.parametrize("what", ["fingerprint", "edge", "halo"])
def test_what_was_kept_under_other_settings_is_done_again(tmp_path, what):
    options = {"fingerprint": 1, "edge": 10, "halo": 0}
    for changed in (options, {**options, what: 5}):
        task = Counting()
        blocks = blocks_of((20, 10, 10), edge=changed["edge"], halo=changed["halo"])
        run_blocks(task, blocks, name="count", done=tmp_path, fingerprint=changed["fingerprint"])
        assert len(task.seen) == len(blocks)
        assert len(list((tmp_path / "count").iterdir())) == 1


def test_a_damaged_file_counts_as_absent(tmp_path):
    blocks = blocks_of((20, 10, 10), edge=10)
    run_blocks(Counting(), blocks, name="count", done=tmp_path)
    (damaged,) = (tmp_path / "count").rglob("0000001.npz")
    damaged.write_bytes(b"PK")
    task = Counting()
    assert len(run_blocks(task, blocks, name="count", done=tmp_path)) == 2
    assert task.seen == [(1, 0, 0)]


def test_fresh_and_kept_results_are_the_same(tmp_path):
    blocks = blocks_of((20, 10, 10), edge=10)
    first = run_blocks(Counting(), blocks, name="count", done=tmp_path)
    kept = run_blocks(Counting(), blocks, name="count", done=tmp_path)
    for a, b in zip(first, kept, strict=True):
        assert {k: (v.dtype, v.tolist()) for k, v in a.items()} == {
            k: (v.dtype, v.tolist()) for k, v in b.items()
        }


def test_a_result_that_is_no_array_is_refused_before_it_is_kept(tmp_path):
    blocks = blocks_of((4, 4, 4), edge=4)
    with pytest.raises(TypeError, match="arrays of numbers"):
        run_blocks(lambda _: {"it": [object()]}, blocks, name="odd", done=tmp_path)
    assert not list(tmp_path.rglob("*.npz"))


def test_the_first_error_ends_the_work():
    task = Counting(fail_at=(0, 0, 0))
    with pytest.raises(Broken):
        run_blocks(task, blocks_of((1000, 1, 1), edge=1), name="count", place=in_this_process(2))
    assert len(task.seen) < 20


def test_no_more_blocks_are_begun_than_can_be_worked_on():
    """Results that wait to be taken, and blocks at work, are bounded by the threads."""
    begun = []
    results = in_this_process(2)(lambda i: begun.append(i) or i, range(100))
    next(results)
    time.sleep(0.05)
    assert len(begun) <= 5
    results.close()
    assert len(begun) <= 5


def test_a_scratch_array_is_opened_again_only_if_it_is_the_same(tmp_path):
    make = partial(scratch, tmp_path / "a.zarr", shape=(5, 6, 7), dtype="uint8", edge=4)
    array = make(fingerprint=1)
    (block, *_) = blocks_of((5, 6, 7), edge=4)
    array.write(block, np.full(block.shape, 9, np.uint8))
    assert make(fingerprint=1) == array
    assert make(fingerprint=1).read(block.where).min() == 9
    other = make(fingerprint=2)
    assert other.token != array.token
    with pytest.raises(BadScan, match="a later run"):
        array.write(block, np.full(block.shape, 9, np.uint8))
    assert not other.read(EVERYWHERE).any()
    other.remove()
    assert not (tmp_path / "a.zarr").exists()
    assert make(fingerprint=2).token != other.token


def test_no_two_blocks_share_a_file(tmp_path):
    shape, edge = (150, 70, 33), 64
    array = scratch(tmp_path / "a.zarr", shape=shape, dtype="uint8", edge=edge)
    before: set[Path] = set()
    for block in blocks_of(shape, edge=edge):
        array.write(block, np.ones(block.shape, np.uint8))
        files = {path for path in array.path.rglob("*") if path.is_file()}
        assert len(files - before) == (2 if not before else 1)
        before = files


def test_discarding_what_is_not_there_is_no_error(tmp_path):
    discard(tmp_path / "absent")
