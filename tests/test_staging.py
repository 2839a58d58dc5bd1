"""The copy of raw frames by rows."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from xctpipe import phantom, staging
from xctpipe.scan import ArrayFrames, RawArray, Span


@dataclass(frozen=True)
class Packed:
    """Frames that must be unpacked whole, and count how often."""

    data: RawArray
    whole_frames: bool = True
    reads: list[Span] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    def read(self, rows: Span | None = None, *, frames: Span | None = None) -> RawArray:
        self.reads.append(frames or (0, len(self.data)))
        return ArrayFrames(self.data).read(rows, frames=frames)


@pytest.fixture
def packed() -> Packed:
    return Packed(np.random.default_rng(0).integers(0, 60000, (23, 9, 14)).astype(np.uint16))


@pytest.fixture
def scan(packed: Packed):
    return replace(phantom.simulated_scan(size="mini")[0], frames=packed)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">u2", ">f4"])
def test_the_copy_reads_as_the_source(scan, packed, dtype, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(staging, "BLOCK_BYTES", 5 * 9 * 14 * 2)
    data = packed.data.astype(dtype)
    copy = staging.staged(replace(scan, frames=Packed(data)), tmp_path / "work" / "rows.raw").frames
    assert copy.shape == data.shape
    np.testing.assert_array_equal(copy.read(), data)
    np.testing.assert_array_equal(copy.read((3, 7)), data[:, 3:7])
    np.testing.assert_array_equal(copy.read((0, 2), frames=(5, 9)), data[5:9, :2])
    np.testing.assert_array_equal(copy.read(frames=(22, 23)), data[22:])


def test_each_frame_is_unpacked_once_and_a_finished_copy_is_kept(scan, packed, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(staging, "BLOCK_BYTES", 5 * 9 * 14 * 2)
    staging.staged(scan, tmp_path / "rows.raw")
    assert packed.reads == [(0, 5), (5, 10), (10, 15), (15, 20), (20, 23)]
    staging.staged(scan, tmp_path / "rows.raw")
    assert len(packed.reads) == 5
    assert not list(tmp_path.glob("*.partial"))


def test_what_gives_rows_by_itself_is_not_copied(scan, tmp_path: Path) -> None:
    plain = replace(scan, frames=ArrayFrames(np.zeros((3, 4, 5), np.uint16)))
    assert staging.staged(plain, tmp_path / "rows.raw") is plain
    assert not (tmp_path / "rows.raw").exists()


def test_several_spans_are_read_in_one_pass(packed) -> None:
    bands = list(staging.read_spans(packed, [(0, 2), (4, 9)]))
    np.testing.assert_array_equal(bands[0], packed.data[:, :2])
    np.testing.assert_array_equal(bands[1], packed.data[:, 4:9])
    assert packed.reads == [(0, 23)]


def test_every_copy_of_a_scan_is_removed_and_no_others(tmp_path: Path) -> None:
    mine = ["scan_1-0123abcd.raw", "scan_1-ffffffff.raw.partial"]
    others = ["scan_10-0123abcd.raw", "scan_1-notes.txt"]
    for name in (*mine, *others):
        (tmp_path / name).touch()
    staging.discard(tmp_path, name="scan_1")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
