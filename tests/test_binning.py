"""Binned frames against a plain mean, their memory, and where binned pixels are."""

import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest

from xctpipe.scan import ArrayFrames, BinnedFrames, CroppedFrames, Frames, binned_px, unbinned_px


def counts(shape=(6, 13, 17), dtype="u2", seed=1):
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


@dataclass(frozen=True)
class Watched:
    """Frames that note what is read of them, and that come compressed a frame at a time."""

    source: Frames
    seen: list = field(default_factory=list)
    whole_frames: bool = True

    @property
    def shape(self):
        return self.source.shape

    @property
    def dtype(self):
        return self.source.dtype

    def read(self, rows=None, *, frames=None):
        self.seen.append((rows, frames))
        return self.source.read(rows, frames=frames)


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("by", [1, 2, 3, 4])
def test_squares_become_their_mean(dtype, by):
    data = counts(dtype=dtype)
    got = BinnedFrames(ArrayFrames(data), by)
    rows, cols = 13 // by, 17 // by
    expected = data[:, : rows * by, : cols * by].astype(float).reshape(6, rows, by, cols, by).mean((2, 4))
    assert (got.shape, got.dtype) == ((6, rows, cols), np.float32)
    np.testing.assert_array_equal(got.read(), expected.astype(np.float32))
    np.testing.assert_array_equal(got.read((1, 3), frames=(2, 5)), got.read()[2:5, 1:3])


def test_full_counts_keep_their_scale_and_saturation_shows_where_the_square_is_full():
    data = np.full((1, 32, 32), 65535, np.uint16)
    data[0, 0, 0] = 65534
    got = BinnedFrames(ArrayFrames(data), 16).read()
    assert got[0, 1, 1] == 65535
    assert got[0, 0, 0] == 65535 - 1 / 256


def test_a_number_that_is_none_is_not_hidden():
    data = np.ones((2, 4, 4), np.float32)
    data[1, 2, 3] = np.nan
    np.testing.assert_array_equal(
        np.argwhere(np.isnan(BinnedFrames(ArrayFrames(data), 2).read())), [[1, 1, 1]]
    )


def test_only_the_wanted_rows_are_read_and_few_frames_at_once(monkeypatch):
    monkeypatch.setattr("xctpipe.scan._BLOCK_BYTES", 3 * 4 * 17 * 2)
    watched = Watched(ArrayFrames(counts()))
    binned = BinnedFrames(watched, 2)
    np.testing.assert_array_equal(binned.read((2, 4)), BinnedFrames(watched.source, 2).read()[:, 2:4])
    assert watched.seen == [((4, 8), (0, 3)), ((4, 8), (3, 6))]


def test_rows_beyond_the_frame_are_left_out():
    binned = BinnedFrames(ArrayFrames(counts()), 4)
    assert binned.read((2, 9), frames=(4, 9)).shape == (2, 1, 4)
    assert binned.read((5, 9)).shape == (6, 0, 4)


def test_a_crop_is_binned_and_sent_to_a_worker():
    data = counts()
    binned = BinnedFrames(CroppedFrames(ArrayFrames(data), (2, 10), (4, 14)), 2)
    assert isinstance(binned, Frames)
    again = pickle.loads(pickle.dumps(binned))
    np.testing.assert_array_equal(
        again.read(), BinnedFrames(ArrayFrames(data[:, 2:10, 4:14].copy()), 2).read()
    )


@pytest.mark.parametrize("around", [lambda f: CroppedFrames(f, (0, 4), (0, 4)), lambda f: BinnedFrames(f, 2)])
def test_whether_rows_come_alone_is_passed_on(around):
    plain = ArrayFrames(counts())
    assert around(plain).whole_frames is False
    assert around(around(Watched(plain))).whole_frames is True


@pytest.mark.parametrize("by", [1, 2, 3, 5])
def test_a_line_of_light_lies_where_the_conversion_says(by):
    """Centre of mass of a bright line, in binned pixels and in the detector's own."""
    data = np.zeros((1, 60, 60), np.float32)
    data[0, :, 20:27] = [1, 2, 5, 9, 7, 3, 1]
    centers = []
    for frames in (ArrayFrames(data), BinnedFrames(ArrayFrames(data), by)):
        light = frames.read().sum(axis=(0, 1))
        centers.append((light * np.arange(light.size)).sum() / light.sum())
    shift = sum((c % by - (by - 1) / 2) * v for c, v in zip(range(20, 27), data[0, 0, 20:27], strict=True))
    # a pixel counts at the middle of its square, from which it lies `shift` away
    assert binned_px(centers[0] - shift / 28, bin_px=by) == pytest.approx(centers[1], abs=1e-5)
    assert unbinned_px(centers[1], bin_px=by) == pytest.approx(centers[0] - shift / 28, abs=1e-5)


@pytest.mark.parametrize("by", [1, 2, 3, 8])
def test_the_middle_stays_the_middle(by):
    assert binned_px((by * 40 - 1) / 2, bin_px=by) == pytest.approx((40 - 1) / 2)
    assert unbinned_px(0.0, bin_px=by) == (by - 1) / 2
    assert unbinned_px(binned_px(123.4, bin_px=by), bin_px=by) == pytest.approx(123.4)
