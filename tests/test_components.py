"""Labels of blocks joined to those of the volume, against scipy and against truth."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from xctpipe import labelling
from xctpipe.blocks import blocks_of, in_this_process
from xctpipe.components import local_components, merge, record_of

CORNERS = np.ones((3, 3, 3), bool)
FACES = ndimage.generate_binary_structure(3, 1)


def labelled(codes, *, edge, connectivity=26):
    """Labels of a volume by way of its blocks, the components and the records."""
    blocks, records, local = blocks_of(codes.shape, edge=edge), [], []
    for block in blocks:
        part = codes[block.where]
        labels, n = local_components(part, connectivity=connectivity)
        records.append(record_of(labels, n, codes=part, core=block.core, shape=codes.shape))
        local.append(labels)
    found = merge(records, connectivity=connectivity)
    out = np.zeros(codes.shape, np.int32)
    for block, labels, lut in zip(blocks, local, found.luts, strict=True):
        out[block.where] = lut[labels]
    return out, found, records


def in_raster_order(labels):
    """The same components, numbered by their first voxels."""
    seen, first = np.unique(labels, return_index=True)
    order = seen[np.argsort(first)]
    new = np.zeros(labels.max() + 1, np.int32)
    new[order[order > 0]] = np.arange(1, 1 + np.count_nonzero(order))
    return new[labels]


def by_scipy(codes, structure):
    """Components of each code on its own, in raster order."""
    out, n = np.zeros(codes.shape, np.int32), 0
    for code in np.unique(codes[codes > 0]):
        part, found = ndimage.label(codes == code, structure)
        out[part > 0] = part[part > 0] + n
        n += found
    return in_raster_order(out)


@pytest.mark.parametrize(("connectivity", "structure"), [(26, CORNERS), (6, FACES)])
@pytest.mark.parametrize("edge", [64, 16, (5, 7, 11)])
@pytest.mark.parametrize("density", [0.05, 0.12, 0.3])
def test_labels_are_those_of_scipy_however_the_volume_is_cut(connectivity, structure, edge, density):
    """Around the density at which random voxels percolate, most components cross blocks."""
    rng = np.random.default_rng(int(density * 100))
    codes = rng.random((40, 37, 45)) < density
    got, found, _ = labelled(codes, edge=edge, connectivity=connectivity)
    np.testing.assert_array_equal(got, by_scipy(codes, structure))
    assert found.n == got.max()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_volume_of_codes_is_labelled_as_a_whole(data):
    shape = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    edge = data.draw(st.tuples(*[st.integers(1, 5)] * 3))
    n_codes = data.draw(st.integers(1, 3))
    seed, density = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.floats(0, 1))
    connectivity, structure = data.draw(st.sampled_from([(26, CORNERS), (6, FACES)]))
    rng = np.random.default_rng(seed)
    codes = rng.integers(1, n_codes + 1, shape, np.uint8) * (rng.random(shape) < density).astype(np.uint8)
    got, found, _ = labelled(codes, edge=edge, connectivity=connectivity)
    np.testing.assert_array_equal(got, by_scipy(codes, structure))
    at = np.unravel_index(found.first, shape)
    np.testing.assert_array_equal(codes[at], found.code)
    np.testing.assert_array_equal(got[at], np.arange(1, found.n + 1))


@pytest.mark.parametrize("direction", [d for d in np.ndindex(3, 3, 3) if d != (1, 1, 1)])
def test_a_line_through_a_corner_where_blocks_meet_stays_one(direction):
    """Each of the 26 directions: over a face, an edge and a corner."""
    codes = np.zeros((6, 6, 6), np.uint8)
    step = np.array(direction) - 1
    start = np.where(step < 0, 3, 2)
    codes[tuple(start)] = codes[tuple(start + step)] = 1
    got, found, _ = labelled(codes, edge=3)
    assert found.n == 1
    assert got.sum() == 2
    assert labelled(codes, edge=3, connectivity=6)[1].n == (1 if np.abs(step).sum() == 1 else 2)


def test_different_codes_never_join():
    codes = np.ones((8, 8, 8), np.uint8)
    codes[4:] = 2
    _, found, _ = labelled(codes, edge=4)
    assert found.code.tolist() == [1, 2]


def test_sums_add_up_over_blocks_and_some_components_can_be_left_out():
    rng = np.random.default_rng(3)
    codes = rng.random((30, 30, 30)) < 0.08
    grey = rng.integers(0, 1000, codes.shape)
    whole = by_scipy(codes, CORNERS)
    ids = np.arange(1, whole.max() + 1)
    results = []
    for edge in (30, 8, (5, 30, 7)):
        got, found, records = labelled(codes, edge=edge)
        greys = []
        for block, record in zip(blocks_of(codes.shape, edge=edge), records, strict=True):
            labels, n = local_components(codes[block.where])
            assert n == record["code"].size
            greys.append(ndimage.sum_labels(grey[block.where], labels, np.arange(1, n + 1)).astype(np.int64))
        count = found.total([record["n_voxels"] for record in records])
        np.testing.assert_array_equal(count, ndimage.sum_labels(codes, whole, ids))
        np.testing.assert_array_equal(found.total(greys), ndimage.sum_labels(grey, whole, ids))
        kept = found.kept(count >= 5)
        lut = np.concatenate([[0], np.cumsum(count >= 5) * (count >= 5)])
        results.append((kept.n, lut[got]))
        assert kept.first.tolist() == found.first[count >= 5].tolist()
    for n, labels in results:
        assert n == results[0][0] == labels.max()
        np.testing.assert_array_equal(labels, results[0][1])


def test_least_and_greatest_values_of_components():
    codes = np.zeros((4, 4, 8), np.uint8)
    codes[0, 0], codes[2, 2, :3] = 1, 1
    values = [np.array([5, -2], np.int16), np.array([7], np.int16)]
    _, found, _ = labelled(codes, edge=(4, 4, 4))
    assert found.least(values).tolist() == [5, -2]
    assert found.greatest(values).tolist() == [7, -2]
    assert found.least([v.astype(np.float32) for v in values]).tolist() == [5.0, -2.0]


def test_a_volume_without_anything_has_no_components():
    got, found, _ = labelled(np.zeros((5, 6, 7), np.uint8), edge=4)
    assert found.n == 0
    assert not got.any()
    assert found.total([np.zeros(0, np.int64)] * len(found.luts)).shape == (0,)


def test_labels_of_real_pores_through_files(shared_data, tmp_path):
    """Pores of a sandstone: 26-connected components and porosity as scipy finds them, for three chunkings."""
    with np.load(shared_data / "pores" / "berea_100_to_300.npz") as file:
        (pores,) = file.values()
    assert pores.mean() == pytest.approx(0.1987, abs=5e-5)
    # a part is enough for labels, which are right or wrong at the faces of blocks
    pores = np.ascontiguousarray(pores[:100, :144, :160])
    truth, n = ndimage.label(pores, CORNERS)
    truth = in_raster_order(truth)
    assert n > 100
    stored = zarr.create_array(str(tmp_path / "pores.zarr"), data=pores.view(np.uint8), chunks=(32, 32, 32))
    for edge in (96, 48, (32, 80, 112)):
        work = labelling.Work(
            shape=pores.shape,
            blocks=blocks_of(pores.shape, edge=edge),
            folder=tmp_path / f"{edge}",
            name="pores",
            place=in_this_process(2),
        )
        labels, found, records = labelling.label(stored.__getitem__, work)
        assert found.n == n
        np.testing.assert_array_equal(labels.read((slice(None),) * 3), truth)
        assert found.total([r["n_voxels"] for r in records]).sum() == pores.sum()


def hysteresis(found, records):
    return found.greatest([record["high"] for record in records]) > 0


def high_voxels(block, labels, n, *, grey):
    return {"high": ndimage.maximum(grey[block.where] > 0.85, labels, np.arange(1, n + 1))}


def test_hysteresis_keeps_what_holds_a_high_voxel_anywhere(tmp_path):
    rng = np.random.default_rng(5)
    grey = ndimage.gaussian_filter(rng.random((40, 40, 40)), 1)
    grey = (grey - grey.min()) / np.ptp(grey)
    low = grey > 0.7
    truth, _ = ndimage.label(low, CORNERS)
    keep = np.unique(truth[grey > 0.85])
    truth = in_raster_order(truth * np.isin(truth, keep[keep > 0]))
    assert truth.max() > 3
    for edge in (40, 13):
        work = labelling.Work(grey.shape, blocks_of(grey.shape, edge=edge), tmp_path / str(edge), "low")
        sums = partial(high_voxels, grey=grey)
        labels, _, _ = labelling.label(low.__getitem__, work, sums=sums, keep=hysteresis)
        np.testing.assert_array_equal(labels.read((slice(None),) * 3), truth)


def test_a_repeated_labelling_reads_no_code_again(tmp_path):
    codes = np.random.default_rng(0).random((20, 20, 20)) < 0.1
    read = []

    def counted(where):
        read.append(where)
        return codes[where]

    work = labelling.Work(codes.shape, blocks_of(codes.shape, edge=8), tmp_path, "some", fingerprint=1)
    first, _, _ = labelling.label(counted, work)
    labels = first.read((slice(None),) * 3)
    assert len(read) == 27
    again, _, _ = labelling.label(counted, work)
    assert len(read) == 27
    np.testing.assert_array_equal(again.read((slice(None),) * 3), labels)
    assert all(a <= b for a, b in pairwise(np.unique(labels)))
