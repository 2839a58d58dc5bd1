import errno
import json
import os
import resource
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import processes
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.bitround import BitRound
from ome_zarr_models.v05.image import Image

from xctpipe import layout, pyramid, shards, storage, volume
from xctpipe.errors import BadRecipe, UserError

PIXEL_UM = 1.3


def noisy(shape, *, seed=0):
    rng = np.random.default_rng(seed)
    return (2 + 0.1 * rng.standard_normal(shape)).astype(np.float32)


def spec_for(shape, dtype="float32", **changes):
    ints = {"uint16": {"scale": 4 / 65535, "offset": -0.5}, "uint8": {"scale": 4 / 255, "offset": -0.5}}
    return volume.VolumeSpec(shape, PIXEL_UM, dtype=dtype, **{**ints.get(dtype, {}), **changes})


def stored(path, data, spec, *, order=None):
    volume.create(path, spec, name="test", attributes={})
    slabs = spec.slabs if order is None else [spec.slabs[i] for i in order]
    clipped = [volume.write_slab(path, spec, z0, slab=data[z0:z1]) for z0, z1 in slabs]
    return sum(clipped)


def block_mean(data, level):
    """Mean over blocks of 2**level, by sums and counts in float64, independent of the order of halving."""
    sums, counts = data.astype(np.float64), np.ones(data.shape)
    for axis, length in enumerate(data.shape):
        starts = np.arange(0, length, 2**level)
        sums = np.add.reduceat(sums, starts, axis=axis)
        counts = np.add.reduceat(counts, starts, axis=axis)
    return sums / counts


def assert_close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-6)


def all_levels(path):
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    return [group[name][...] for name in sorted(group.array_keys())]


@pytest.mark.parametrize("dtype", ["float32", "uint16", "uint8"])
@pytest.mark.parametrize("shape", [(2, 640, 640), (1, 70, 513), (37, 21, 1030), (3, 5, 7)])
def test_metadata_is_valid_ome_zarr(tmp_path, shape, dtype):
    path = tmp_path / "edge.ome.zarr"
    spec = spec_for(shape, dtype, first_row=100)
    volume.create(path, spec, name="scan_1", attributes={"recipe": {"name": "a"}})
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    image = Image.from_zarr(group)
    scales = image.ome_attributes.multiscales[0]
    assert [(a.name, a.type, a.unit) for a in scales.axes] == [(n, "space", "micrometer") for n in "zyx"]
    assert [d.path for d in scales.datasets] == [str(n) for n in range(spec.n_levels)]
    assert scales.datasets[0].coordinateTransformations[0].scale == [PIXEL_UM] * 3
    assert scales.datasets[0].coordinateTransformations[1].translation == [100 * PIXEL_UM, 0, 0]
    assert group["0"].dtype == dtype
    assert group["0"].metadata.dimension_names == ("z", "y", "x")
    assert volume.read_spec(path) == spec


def test_levels_go_on_until_every_axis_is_short():
    assert layout.level_shapes(spec_for((3200, 3200, 3200))) == [(n, n, n) for n in (3200, 1600, 800, 400)]
    assert layout.level_shapes(spec_for((1, 511, 3))) == [(1, 511, 3)]
    assert layout.level_shapes(spec_for((1, 512, 3))) == [(1, 512, 3), (1, 256, 2)]
    assert spec_for((3200, 3200, 3200)).align_rows == 8


@pytest.mark.parametrize("shape", [(1, 1024, 640), (64, 2048, 1200), (33, 1027, 515)])
def test_every_level_covers_the_same_space(tmp_path, shape):
    spec = spec_for(shape, first_row=7)
    volume.create(tmp_path / "a", spec, name="a", attributes={})
    group = zarr.open_group(tmp_path / "a", mode="r", use_consolidated=False)
    for dataset in group.attrs["ome"]["multiscales"][0]["datasets"]:
        scale, translation = (np.array(list(t.values())[1]) for t in dataset["coordinateTransformations"])
        length = np.array(group[dataset["path"]].shape)
        edge = translation - scale / 2
        assert edge == pytest.approx((np.array([7, 0, 0]) - 0.5) * PIXEL_UM)
        # a far voxel that is not full reaches beyond the volume, by less than itself
        beyond = edge + scale * length - (np.array([7, 0, 0]) - 0.5 + shape) * PIXEL_UM
        assert np.all(beyond >= -1e-9)
        assert np.all(beyond < scale)
        exact = np.array(shape) % 2 ** int(dataset["path"]) == 0
        assert beyond[exact] == pytest.approx(0, abs=1e-9)


def test_napari_opens_it(tmp_path):
    with warnings.catch_warnings():  # what it imports warns of its own deprecations
        warnings.simplefilter("ignore")
        import napari_ome_zarr

    path = tmp_path / "edge.ome.zarr"
    data = noisy((16, 40, 1030))
    stored(path, data, spec_for(data.shape, "uint16", slab_rows=8))
    volume.set_contrast(path, 1.5, 2.5)
    reader = napari_ome_zarr.napari_get_reader(str(path))
    ((levels, options, kind),) = reader(str(path))
    assert kind == "image"
    assert [level.shape for level in levels] == [(16, 40, 1030), (8, 20, 515), (4, 10, 258)]
    assert options["scale"] == [PIXEL_UM] * 3
    assert options["units"] == ("micrometer",) * 3
    low, high = (value * 4 / 65535 - 0.5 for value in options["contrast_limits"])
    assert (low, high) == pytest.approx((1.5, 2.5))
    assert np.asarray(levels[0]).mean() * 4 / 65535 - 0.5 == pytest.approx(data.mean(), abs=1e-3)


@pytest.mark.parametrize("shape", [(37, 21, 1030), (16, 1025, 66), (1, 700, 31), (3, 4, 5)])
def test_levels_are_block_means(tmp_path, shape):
    data = noisy(shape)
    spec = spec_for(shape, slab_rows=16)
    stored(tmp_path / "a", data, spec)
    for level in range(spec.n_levels):
        assert_close(volume.read(tmp_path / "a", level=level), block_mean(data, level))


def test_levels_of_integers_are_means_before_rounding(tmp_path):
    data = noisy((8, 16, 600))
    spec = spec_for(data.shape, "uint8")
    stored(tmp_path / "a", data, spec)
    expected = np.rint((block_mean(data, 1) - spec.offset) / spec.scale)
    levels = all_levels(tmp_path / "a")
    # float32 sums may fall on the other side of a tie
    assert np.mean(levels[1] == expected) > 0.999


@pytest.mark.parametrize(("dtype", "keep_bits"), [("float32", None), ("float32", 6), ("uint16", None)])
def test_slab_height_and_order_change_nothing(tmp_path, dtype, keep_bits):
    data = noisy((52, 66, 600))
    results = []
    for slab_rows, reverse in [(0, False), (4, True), (12, False), (32, True)]:
        path = tmp_path / f"{slab_rows}"
        spec = spec_for(data.shape, dtype, slab_rows=slab_rows, keep_bits=keep_bits)
        order = range(len(spec.slabs))
        stored(path, data, spec, order=order[::-1] if reverse else order)
        results.append(all_levels(path))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


def test_thread_count_changes_no_byte(tmp_path):
    data = noisy((16, 200, 600))
    spec = spec_for(data.shape, slab_rows=8, keep_bits=8)
    before = numba.get_num_threads()
    for threads in (1, before):
        numba.set_num_threads(threads)
        stored(tmp_path / f"threads{threads}", data, spec)
    numba.set_num_threads(before)
    files = [p.relative_to(tmp_path / "threads1") for p in (tmp_path / "threads1").rglob("*") if p.is_file()]
    assert len(files) > 4
    for file in files:
        assert (tmp_path / "threads1" / file).read_bytes() == (
            tmp_path / f"threads{before}" / file
        ).read_bytes()


def test_slabs_written_by_threads_at_once(tmp_path):
    data = noisy((64, 30, 600))
    spec = spec_for(data.shape, slab_rows=8)
    volume.create(tmp_path / "a", spec, name="a", attributes={})
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(volume.write_slab, tmp_path / "a", spec, z0, slab=data[z0:z1])
            for z0, z1 in spec.slabs
        ]
        assert [job.result() for job in jobs] == [0] * 8
    np.testing.assert_array_equal(volume.read(tmp_path / "a"), data)
    assert_close(volume.read(tmp_path / "a", level=1), block_mean(data, 1))


def test_slabs_written_by_processes_at_once(tmp_path):
    spec = spec_for((64, 30, 600), slab_rows=4)
    volume.create(tmp_path / "a", spec, name="a", attributes={})
    data, context = noisy(spec.shape), processes.context()
    barrier = context.Barrier(2)
    writers = [
        context.Process(target=processes.write_every_other, args=(tmp_path / "a", i, data, barrier))
        for i in (0, 1)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    np.testing.assert_array_equal(volume.read(tmp_path / "a"), data)
    assert_close(volume.read(tmp_path / "a", level=1), block_mean(data, 1))


def test_part_of_a_level_is_read(tmp_path):
    data = noisy((12, 80, 90))
    stored(tmp_path / "a", data, spec_for(data.shape, slab_rows=5))
    part = volume.read(tmp_path / "a", z=slice(3, 7), y=slice(60, 70), x=slice(None, None, 2))
    np.testing.assert_array_equal(part, data[3:7, 60:70, ::2])
    assert part.dtype == np.float32


@pytest.mark.parametrize("dtype", ["uint16", "uint8"])
def test_integers_come_back_within_half_a_step(tmp_path, dtype):
    data = noisy((4, 30, 40))
    spec = spec_for(data.shape, dtype)
    assert stored(tmp_path / "a", data, spec) == 0
    error = np.abs(volume.read(tmp_path / "a").astype(np.float64) - data)
    assert error.max() <= spec.scale * 0.505
    own = zarr.open_group(tmp_path / "a", mode="r").attrs["xctpipe"]
    raw = all_levels(tmp_path / "a")[0] * own["value_scale"] + own["value_offset"]
    assert_close(raw, volume.read(tmp_path / "a"))
    assert own["value_unit"] == "cm^-1"


def test_values_out_of_range_are_clipped_and_counted(tmp_path):
    data = np.ones((2, 3, 4), np.float32)
    data[0, 0] = [-5, 99, np.nan, np.inf]
    spec = spec_for(data.shape, "uint8")
    assert stored(tmp_path / "a", data, spec) == 4
    assert all_levels(tmp_path / "a")[0][0, 0].tolist() == [0, 255, 0, 255]


def test_float32_keeps_what_is_not_finite(tmp_path):
    data = noisy((2, 3, 70))
    data[0, 0, :3] = [np.nan, np.inf, -np.inf]
    stored(tmp_path / "a", data, spec_for(data.shape, keep_bits=5))
    np.testing.assert_array_equal(volume.read(tmp_path / "a")[0, 0, :3], data[0, 0, :3])


@pytest.mark.parametrize("keep_bits", [1, 7, 10, 22])
def test_mantissas_are_rounded_as_the_bitround_codec_does(keep_bits):
    rng = np.random.default_rng(1)
    a = (rng.standard_normal((5, 6, 7)) * 10.0 ** rng.integers(-6, 6, (5, 6, 7))).astype(np.float32)
    before = a.copy()
    rounded = pyramid.round_mantissa(a, keep_bits=keep_bits)
    expected = BitRound(keep_bits).encode(a).view(np.float32).reshape(a.shape)
    np.testing.assert_array_equal(rounded, expected)
    np.testing.assert_array_equal(a, before)
    np.testing.assert_array_equal(pyramid.round_mantissa(rounded, keep_bits=keep_bits), rounded)
    np.testing.assert_array_equal(pyramid.round_mantissa(-a, keep_bits=keep_bits), -rounded)


def test_ties_go_to_even():
    ties = np.array([1.125, 1.375, -1.125, 1.875], np.float32)
    assert pyramid.round_mantissa(ties, keep_bits=2).tolist() == [1.0, 1.5, -1.0, 2.0]


@given(
    noise=st.floats(1e-4, 10),
    magnitude=st.floats(1e-3, 1e3),
    part=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50),
)
def test_rounding_stays_below_a_tenth_of_the_noise(noise, magnitude, part):
    bits = pyramid.keep_bits_for_noise(noise, magnitude=magnitude)
    a = (np.array(part) * magnitude).astype(np.float32)
    error = np.abs(pyramid.round_mantissa(a, keep_bits=bits).astype(np.float64) - a)
    assert error.max() <= noise / 10
    # one bit fewer would not do for the largest value
    if 1 < bits < 23:
        assert 2.0 ** (np.floor(np.log2(magnitude)) - bits) > noise / 10


@pytest.mark.parametrize(("noise", "magnitude"), [(0, 1), (np.nan, 1), (1e-30, 1), (0.1, np.inf)])
def test_no_rounding_without_a_noise_to_hide_it(noise, magnitude):
    assert pyramid.keep_bits_for_noise(noise, magnitude=magnitude) == 23


def test_rounded_volume_is_smaller_and_close(tmp_path):
    data = noisy((16, 64, 600))
    bits = pyramid.keep_bits_for_noise(0.1, magnitude=4)
    sizes = {}
    for keep_bits in (None, bits):
        path = tmp_path / str(keep_bits)
        stored(path, data, spec_for(data.shape, keep_bits=keep_bits))
        sizes[keep_bits] = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    assert sizes[bits] < 0.5 * sizes[None]
    for level in (0, 1):
        full = block_mean(data, level)
        error = volume.read(tmp_path / str(bits), level=level) - full
        # the noise of a coarser level is 4 times less, and rounding with it
        assert np.abs(error).max() <= 0.01 / 4**level + 1e-6
        assert np.abs(error).max() > 0.001 / 4**level


@given(
    shape=st.tuples(st.integers(1, 400), st.integers(1, 1200), st.integers(1, 3300)),
    blocks=st.integers(1, 60),
)
def test_no_two_slabs_share_a_shard(shape, blocks):
    slab_rows = blocks * pyramid.align_rows(shape)
    spec = spec_for(shape, slab_rows=slab_rows)
    assert [z0 for z0, _ in spec.slabs] == list(range(0, shape[0], spec.slab_rows))
    for level, (rows, _, _) in enumerate(layout.level_shapes(spec)):
        chunk, shard = layout.grid(spec, level)
        assert all(s % c == 0 for s, c in zip(shard, chunk, strict=True))
        assert np.prod(chunk) < 2 * 64**3
        assert max(shard) <= 1024 + 255
        cuts = [z0 >> level for z0, _ in spec.slabs]
        assert all(cut % shard[0] == 0 and cut < rows for cut in cuts)
        # pairs of slices and of rows are within a chunk
        if level < spec.n_levels - 1 and rows > shard[0]:
            assert shard[0] % 2 == 0


def test_writing_again_replaces(tmp_path):
    first, second = noisy((8, 20, 600)), noisy((8, 20, 600), seed=1)
    spec = spec_for(first.shape, slab_rows=4)
    stored(tmp_path / "a", first, spec)
    volume.write_slab(tmp_path / "a", spec, 4, slab=second[4:])
    np.testing.assert_array_equal(volume.read(tmp_path / "a"), np.concatenate([first[:4], second[4:]]))
    volume.write_slab(tmp_path / "a", spec, 0, slab=np.zeros_like(first[:4]))
    assert not volume.read(tmp_path / "a", z=slice(0, 4)).any()
    assert not volume.read(tmp_path / "a", level=1, z=slice(0, 2)).any()
    assert volume.read(tmp_path / "a", z=slice(4, 8)).all()


def test_empty_chunks_take_no_space(tmp_path):
    data = np.zeros((8, 100, 600), np.float32)
    data[5, 90, 590] = 1
    stored(tmp_path / "a", data, spec_for(data.shape))
    np.testing.assert_array_equal(volume.read(tmp_path / "a"), data)
    assert sum(f.stat().st_size for f in (tmp_path / "a" / "0" / "c").rglob("*") if f.is_file()) < 10_000


def test_a_spoiled_index_is_noticed_and_mended_by_writing_again(tmp_path):
    data = noisy((2, 20, 30))
    spec = spec_for(data.shape)
    stored(tmp_path / "a", data, spec)
    shard = tmp_path / "a" / "0" / "c" / "0" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[-10] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        volume.read(tmp_path / "a")
    volume.write_slab(tmp_path / "a", spec, 0, slab=data)
    np.testing.assert_array_equal(volume.read(tmp_path / "a"), data)


def test_slab_is_not_modified_and_may_be_a_view(tmp_path):
    base = noisy((600, 10, 8))
    view = base.T
    view.flags.writeable = False
    before = view.copy()
    stored(tmp_path / "a", view, spec_for(view.shape, keep_bits=23))
    np.testing.assert_array_equal(view, before)
    np.testing.assert_array_equal(volume.read(tmp_path / "a"), before)


@pytest.mark.parametrize(
    ("z0", "rows", "dtype"), [(0, 3, "float32"), (2, 4, "float32"), (8, 4, "float32"), (0, 4, "float64")]
)
def test_slabs_that_are_not_the_volume_s_are_refused(tmp_path, z0, rows, dtype):
    spec = spec_for((8, 20, 600), slab_rows=4)
    volume.create(tmp_path / "a", spec, name="a", attributes={})
    with pytest.raises(ValueError, match="slab"):
        volume.write_slab(tmp_path / "a", spec, z0, slab=np.ones((rows, 20, 600), dtype))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "uint61"}, "did you mean 'uint16'"),
        ({"shape": (0, 5, 5)}, "empty axis"),
        ({"pixel_um": 0.0}, "above 0"),
        ({"dtype": "uint8", "scale": -1.0}, "above 0"),
        ({"scale": 2.0}, "float32 is stored as it is"),
        ({"keep_bits": 0}, "1 to 23"),
        ({"keep_bits": 9, "dtype": "uint8"}, "for float32"),
        ({"slab_rows": 6}, "multiple of 8"),
        ({"slab_rows": -8}, "multiple of 8"),
    ],
)
def test_impossible_layouts_are_refused(changes, message):
    with pytest.raises(BadRecipe, match=message):
        volume.VolumeSpec(**{"shape": (100, 3200, 3200), "pixel_um": 1.0, **changes})


def test_nothing_is_replaced(tmp_path):
    data = noisy((2, 20, 30))
    spec = spec_for(data.shape)
    stored(tmp_path / "a", data, spec)
    (tmp_path / "file").write_text("mine")
    for name in ("a", "file"):
        with pytest.raises(BadRecipe, match="exists already"):
            volume.create(tmp_path / name, spec, name="a", attributes={})
    np.testing.assert_array_equal(volume.read(tmp_path / "a"), data)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "file"]


def test_two_that_create_at_once_cannot_both_win(tmp_path, monkeypatch):
    spec = spec_for((2, 20, 30))
    rename = Path.rename

    def overtaken(draft, target):
        monkeypatch.undo()
        volume.create(target, spec, name="first", attributes={})
        return rename(draft, target)

    monkeypatch.setattr(Path, "rename", overtaken)
    with pytest.raises(BadRecipe, match="exists already"):
        volume.create(tmp_path / "a", spec, name="second", attributes={})
    assert zarr.open_group(tmp_path / "a").attrs["ome"]["multiscales"][0]["name"] == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_attributes_are_kept_and_the_volume_s_own_are_safe(tmp_path):
    spec = spec_for((2, 20, 30))
    volume.create(tmp_path / "a", spec, name="a", attributes={"recipe": {"center_px": 3.5}, "version": "1"})
    volume.update_attributes(tmp_path / "a", {"version": "2", "done": True})
    own = volume.read_attributes(tmp_path / "a")
    assert (own["recipe"], own["version"], own["done"]) == ({"center_px": 3.5}, "2", True)
    assert volume.read_spec(tmp_path / "a") == spec
    with pytest.raises(ValueError, match="value_scale"):
        volume.update_attributes(tmp_path / "a", {"value_scale": 3})
    with pytest.raises(ValueError, match="JSON"):
        volume.update_attributes(tmp_path / "a", {"noise": np.nan})


def window(path):
    return zarr.open_group(path, mode="r").attrs["ome"]["omero"]["channels"][0]["window"]


def test_contrast_is_in_stored_units(tmp_path):
    for dtype in ("float32", "uint8"):
        volume.create(tmp_path / dtype, spec_for((2, 20, 30), dtype), name="a", attributes={})
        volume.set_contrast(tmp_path / dtype, 0.5, 2.5)
    assert window(tmp_path / "float32") == {"min": 0.5, "max": 2.5, "start": 0.5, "end": 2.5}
    assert window(tmp_path / "uint8") == pytest.approx({"min": 0, "max": 255, "start": 63.75, "end": 191.25})
    volume.set_contrast(tmp_path / "float32", 2.0, 2.0)
    assert (window(tmp_path / "float32")["start"], window(tmp_path / "float32")["end"]) == (2, 3)
    with pytest.raises(ValueError, match="finite"):
        volume.set_contrast(tmp_path / "float32", np.nan, 1.0)


def test_what_is_not_a_volume_is_named(tmp_path):
    (tmp_path / "file").write_text("no")
    zarr.create_group(tmp_path / "foreign")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "zarr.json").write_text("{")
    for name, message in [
        ("absent", "no volume"),
        ("file", "no volume"),
        ("broken", "no volume"),
        ("foreign", "not written by xctpipe"),
    ]:
        with pytest.raises(BadRecipe, match=message):
            volume.read_spec(tmp_path / name)
    stored(tmp_path / "a", noisy((2, 20, 600)), spec_for((2, 20, 600)))
    with pytest.raises(BadRecipe, match="no level 2; it has 0, 1"):
        volume.read(tmp_path / "a", level=2)


def test_estimate_counts_every_level():
    spec = spec_for((64, 1600, 1600), "uint16", slab_rows=64)
    assert volume.estimate_bytes(spec) == 2 * (64 * 1600**2 + 32 * 800**2 + 16 * 400**2)


def test_full_disk_is_explained_and_what_was_written_is_kept(tmp_path):
    data = noisy((8, 200, 600))
    spec = spec_for(data.shape, slab_rows=4)
    path = tmp_path / "a"
    volume.create(path, spec, name="a", attributes={})
    volume.write_slab(path, spec, 0, slab=data[:4])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write.*MB were to be written.*run again") as caught:
            volume.write_slab(path, spec, 4, slab=data[4:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(path) in str(caught.value)
    np.testing.assert_array_equal(volume.read(path, z=slice(0, 4)), data[:4])
    assert not list(path.rglob("*.partial"))
    volume.write_slab(path, spec, 4, slab=data[4:])
    np.testing.assert_array_equal(volume.read(path), data)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "2.5 GB were to be written.*are free on that disk"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit"),
        (errno.EACCES, "make .* writable"),
        (errno.EROFS, "make .* writable"),
    ],
)
def test_storage_errors_say_what_to_do(tmp_path, code, words):
    err = OSError(code, os.strerror(code))
    told = storage.storage_error(err, tmp_path / "run" / "a.zarr", needed_bytes=2_500_000_000)
    message = str(told)
    assert message.startswith(str(tmp_path / "run" / "a.zarr"))
    assert os.strerror(code) in message
    with pytest.raises(UserError, match=words), storage.storing(tmp_path, needed_bytes=2_500_000_000):
        raise err


def test_other_errors_of_the_system_are_not_disguised(tmp_path):
    with pytest.raises(OSError, match="broken pipe"), storage.storing(tmp_path):
        raise BrokenPipeError(errno.EPIPE, "broken pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="writable"):
        volume.create(tmp_path / "a", spec_for((2, 20, 30)), name="a", attributes={})
    tmp_path.chmod(0o700)


def test_create_on_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zarr.Group, "create_array", full)
    with pytest.raises(UserError, match="No space left"):
        volume.create(tmp_path / "run" / "a", spec_for((2, 20, 30)), name="a", attributes={})
    assert list((tmp_path / "run").iterdir()) == []


def test_writer_that_was_killed_leaves_no_shard(tmp_path, monkeypatch):
    def killed(*_args):
        raise KeyboardInterrupt

    (tmp_path / "old.1234.partial").write_bytes(b"left by a kill")
    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        shards.write_shard(tmp_path / "0", rows=[[b"1"]], grid=(1, 1))
    assert [p.name for p in tmp_path.iterdir()] == ["old.1234.partial"]
    assert storage.remove_partial(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_metadata_is_plain_json(tmp_path):
    volume.create(tmp_path / "a", spec_for((2, 20, 600)), name="a", attributes={})
    for file in (tmp_path / "a").rglob("zarr.json"):
        json.loads(file.read_text(), parse_constant=lambda text: pytest.fail(text))
    assert "consolidated_metadata" not in json.loads((tmp_path / "a" / "zarr.json").read_text())


def test_slices_of_binned_rows_lie_between_the_rows(tmp_path: Path) -> None:
    """Slice 0 of rows binned by 4 is the mean of rows 0 to 3: its centre is at 1.5 rows."""
    spec = volume.VolumeSpec((8, 16, 16), pixel_um=4 * 1.3, first_row=2, bin_px=4)
    volume.create(tmp_path / "v.ome.zarr", spec, name="v", attributes={})
    meta = json.loads((tmp_path / "v.ome.zarr" / "zarr.json").read_text())
    (first, *_) = meta["attributes"]["ome"]["multiscales"][0]["datasets"]
    translation = first["coordinateTransformations"][1]["translation"]
    assert translation == pytest.approx([(2 * 4 + 1.5) * 1.3, 0, 0])
    assert volume.read_spec(tmp_path / "v.ome.zarr") == spec
