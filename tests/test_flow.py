import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xctpipe import volume
from xctpipe.flow import flow
from xctpipe.plan import Piece, Slab, cut, pieces


@dataclass
class Places:
    """Stations that count what is in memory at once; an item is made of `parts` blocks."""

    parts: int = 1
    seconds: float = 0.0
    fails_at: str = ""
    written: list[tuple[int, int]] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    held: int = 0
    most_held: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def _count(self, change: int) -> None:
        with self.lock:
            self.held += change
            self.most_held = max(self.most_held, self.held)

    def _work(self, place: str, share: float) -> None:
        if self.fails_at == place:
            raise OSError(place)
        time.sleep(self.seconds * share)

    def read(self, item: int) -> int:
        self._count(1)
        self._work("read", 1)
        return item

    def compute(self, box: list[int], item: int) -> Iterator[tuple[int, int]]:
        assert box.pop() == item
        for part in range(self.parts):
            self._work("compute", 1 / self.parts)
            if part == self.parts - 1:
                self._count(-1)
            self._count(1)
            yield item, part

    def write(self, item: int, block: tuple[int, int]) -> None:
        assert block[0] == item
        self._work("write", 1 / self.parts)
        self.written.append(block)
        self._count(-1)

    def finish(self, item: int) -> None:
        self._work("finish", 0)
        self.finished.append(item)


def through(places: Places, n: int, *, go_on: Callable[[int], bool] = lambda _: True) -> None:
    flow(range(n), places, go_on=go_on, begin=lambda: None)


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("parts", [1, 3])
def test_every_block_is_written_once_and_in_order(n: int, parts: int) -> None:
    places = Places(parts)
    through(places, n)
    assert places.written == [(item, part) for item in range(n) for part in range(parts)]
    assert places.finished == list(range(n))


@pytest.mark.parametrize("slow", ["read", "compute", "write"])
def test_no_more_is_held_than_one_thing_in_each_place(slow: str) -> None:
    class Uneven(Places):
        def _work(self, place: str, share: float) -> None:
            time.sleep(0.02 if place == slow else 0)

    places = Uneven(2)
    through(places, 6)
    assert places.held == 0
    assert places.most_held <= 4  # read ahead, computed from, computed, written


def test_the_three_places_work_at_the_same_time() -> None:
    places = Places(2, seconds=0.05)
    start = time.perf_counter()
    through(places, 12)
    # one item ahead and half an item behind: 13.5 of 12
    assert time.perf_counter() - start < 1.4 * 12 * places.seconds


@pytest.mark.parametrize("place", ["read", "compute", "write", "finish"])
def test_a_failure_anywhere_ends_it_and_is_raised(place: str) -> None:
    places = Places(2, fails_at=place)
    with pytest.raises(OSError, match=place):
        through(places, 4)
    assert len(places.finished) <= 1


def test_what_is_begun_is_ended_when_it_shall_stop() -> None:
    places = Places()
    through(places, 6, go_on=lambda item: item < 3)
    assert places.finished == [0, 1, 2]


@given(st.integers(1, 300), st.integers(1, 70), st.integers(0, 40), st.integers(1, 20))
def test_pieces_and_batches_tile_a_slab(n_rows: int, slab_rows: int, halo: int, batch: int) -> None:
    for slab in cut(n_rows, slab_rows=slab_rows, halo_rows=halo):
        found = pieces(slab, halo_rows=halo, batch_rows=batch)
        assert [row for piece in found for row in range(*piece.rows)] == list(range(*slab.rows))
        assert [piece.is_last for piece in found] == [False] * (len(found) - 1) + [True]
        for piece in found:
            made = [row for _, batches in piece.parts for rows in batches for row in range(*rows)]
            assert made == list(range(*piece.rows))
            assert all(b - a <= batch for _, batches in piece.parts for a, b in batches)
            _check_neighbours(piece, slab, halo=halo, n_rows=n_rows)


def _check_neighbours(piece: Piece, slab: Slab, *, halo: int, n_rows: int) -> None:
    for read, batches in piece.parts:
        assert piece.read[0] <= read[0] <= read[1] <= piece.read[1]
        for first, last in batches:
            assert read[0] <= max(0, first - halo)
            assert read[1] >= min(n_rows, last + halo)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize(("rows", "slab_rows"), [(40, 0), (64, 32), (7, 0), (50, 48)])
def test_a_slab_written_in_batches_is_the_slab_written_at_once(
    tmp_path: Any, dtype: str, rows: int, slab_rows: int
) -> None:
    data = np.random.default_rng(0).normal(1, 0.2, (rows, 30, 600)).astype(np.float32)
    spec = volume.VolumeSpec(
        data.shape,
        1.3,
        dtype=dtype,  # type: ignore[arg-type]
        scale=1.0 if dtype == "float32" else 0.01,
        slab_rows=slab_rows,
    )
    for name in ("whole", "batches"):
        volume.create(tmp_path / name, spec, name="t", attributes={})
    clipped = [0, 0]
    for z0, z1 in spec.slabs:
        clipped[0] += volume.write_slab(tmp_path / "whole", spec, z0, slab=data[z0:z1])
        writer = volume.SlabWriter(tmp_path / "batches", spec, z0)
        for first in range(z0, z1, volume.batch_rows(spec)):
            writer.add(data[first : min(first + volume.batch_rows(spec), z1)])
        clipped[1] += writer.finish()
    assert clipped[0] == clipped[1]
    whole = sorted(path for path in (tmp_path / "whole").rglob("*") if path.is_file())
    assert len(whole) >= 5
    for path in whole:
        other = tmp_path / "batches" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == other.read_bytes(), path


def test_a_writer_refuses_what_would_tear_chunks_or_leave_gaps(tmp_path: Any) -> None:
    spec = volume.VolumeSpec((64, 20, 30), 1.3, slab_rows=32)
    volume.create(tmp_path / "a", spec, name="t", attributes={})
    with pytest.raises(ValueError, match="multiple of 32"):
        volume.SlabWriter(tmp_path / "a", spec, 16)
    writer = volume.SlabWriter(tmp_path / "a", spec, 32)
    with pytest.raises(ValueError, match="slices"):
        writer.add(np.zeros((5, 20, 30), np.float32))
    writer.add(np.zeros((16, 20, 30), np.float32))
    with pytest.raises(ValueError, match="16 of 32"):
        writer.finish()
    with pytest.raises(ValueError, match="slices"):
        writer.add(np.zeros((32, 20, 30), np.float32))


def test_a_failed_write_is_not_hidden_by_what_fails_after_it() -> None:
    class Both(Places):
        def read(self, item: int) -> int:
            if item == 2:
                time.sleep(0.1)
                raise OSError("read")
            return super().read(item)

        def write(self, item: int, block: tuple[int, int]) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        through(Both(), 4)
