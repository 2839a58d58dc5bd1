"""Chunks that are decoded straight from files, against zarr-python, which reads and writes them by itself."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, ZstdCodec

from xctpipe import shards

SHAPE, SHARD, CHUNK = (9, 50, 33), (4, 32, 48), (2, 16, 16)


def an_array(folder: Path, *, dtype: str = "float32", empty: bool = False, **how: object) -> np.ndarray:
    """An array of zarr-python with a shard and some chunks that were never written."""
    layout = {"chunks": CHUNK, "shards": SHARD, "compressors": shards.compressor(), "fill_value": 0, **how}
    array = zarr.create_array(str(folder), shape=SHAPE, dtype=dtype, **layout)
    values = np.random.default_rng(1).integers(1, 200, SHAPE).astype(dtype)
    values[4:8] = 0
    values[:, :16, :16] = 0
    if not empty:
        array[...] = values
    return values * (not empty)


@st.composite
def parts(draw: st.DrawFn) -> tuple[slice, slice, slice]:
    spans = [sorted(draw(st.tuples(*[st.integers(0, n)] * 2))) for n in SHAPE]
    z, y, x = (slice(a, b) for a, b in spans)
    return z, y, x


@pytest.fixture(scope="module", params=["uint8", "uint16", "int32", "float32"])
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("a") / "0"
    return folder, an_array(folder, dtype=request.param)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=parts())
def test_any_part_is_what_was_written(stored, where):
    folder, values = stored
    assert shards.grid_of(folder) is not None
    found = shards.read(folder, where)
    assert found.dtype == values.dtype
    assert np.array_equal(found, values[where])


@pytest.mark.parametrize("part", [slice(None), slice(2, None), slice(-3, -1), slice(0, 9, 2), slice(5, 100)])
def test_slices_mean_what_they_mean_to_numpy(stored, part):
    folder, values = stored
    assert np.array_equal(shards.read(folder, (part, slice(None), slice(1, 4))), values[part, :, 1:4])


@pytest.mark.parametrize(
    "how",
    [
        {"compressors": ZstdCodec()},
        {"compressors": [BloscCodec(cname="lz4"), ZstdCodec()]},
        {"shards": None},
        {"fill_value": 3},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    ],
)
def test_what_others_lay_out_otherwise_is_read_as_well(tmp_path, how):
    values = an_array(tmp_path / "0", **how)
    assert shards.grid_of(tmp_path / "0") is None
    assert np.array_equal(shards.read(tmp_path / "0", (slice(1, 8), slice(None), slice(None))), values[1:8])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_zarr_reads_what_is_written(tmp_path, dtype):
    an_array(tmp_path / "0", dtype=dtype, empty=True)
    values = np.random.default_rng(2).integers(0, 2, SHAPE).astype(dtype)
    for z in range(0, SHAPE[0], SHARD[0]):
        for y in range(0, SHAPE[1], SHARD[1]):
            z1, y1, x1 = (min(a + n, m) for a, n, m in zip((z, y, 0), SHARD, SHAPE, strict=True))
            where = slice(z, z1), slice(y, y1), slice(0, x1)
            shards.write(tmp_path / "0", where, values[where])
    assert np.array_equal(zarr.open_array(str(tmp_path / "0"), mode="r")[...], values)


def test_a_shard_is_written_from_its_beginning_only(tmp_path):
    an_array(tmp_path / "0", empty=True)
    with pytest.raises(ValueError, match="no shard begins"):
        shards.write(tmp_path / "0", (slice(2, 4), slice(0, 32), slice(0, 33)), np.ones((2, 32, 33)))


@pytest.mark.parametrize("cut", [1, 40, 2000])
def test_a_damaged_file_is_never_read_as_if_it_were_whole(tmp_path, cut):
    an_array(tmp_path / "0")
    file = tmp_path / "0" / "c" / "0" / "1" / "0"
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises((ValueError, RuntimeError)):
        shards.read(tmp_path / "0", (slice(0, 4), slice(32, 50), slice(0, 33)))
