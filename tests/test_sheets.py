"""Profiles through the sheets of cracks."""

import numpy as np

from xctpipe.measure.regions import Context, Patch, Region, inventory_of
from xctpipe.measure.sheets import sheets_of
from xctpipe.segment.scene import SOLID, Level, Scene

MU_CM1 = 2.3


def region_of(labels: np.ndarray, grey: np.ndarray) -> Region:
    level = Level(MU_CM1, np.zeros(1), np.zeros(1), 0.1)
    scene = Scene(labels.shape, 1.0, (32.0, 32.0), 1e4, "nak", {}, level, None, 0.7)
    expected, hosts = np.full(labels.shape, MU_CM1, np.float32), np.full(labels.shape, SOLID, np.uint8)
    core = tuple(slice(0, n) for n in labels.shape)
    context = Context(scene, inventory_of(labels, {1: "crack"}))
    return Region(Patch(grey, expected, labels, hosts, (0, 0, 0), core), context)


def test_a_profile_beside_another_branch_of_the_crack_ends() -> None:
    labels = np.zeros((72, 48, 64), np.int32)
    # one branch lies flat, and ends three voxels from one that stands upright
    labels[36, 8:40, 8:41], labels[8:64, 8:40, 43] = 1, 1
    grey = np.full(labels.shape, MU_CM1, np.float32)
    grey[labels == 1] = 0
    # all misses a little more than is expected: what is added along a profile tells how long it is
    grey -= np.float32(0.01 * MU_CM1)
    sheets = sheets_of(region_of(labels, grey))
    assert sheets is not None
    flat = (sheets.place[0] == 36) & (sheets.place[2] < 41)
    assert flat.sum() == 32 * 33
    # 3 voxels beyond the mask, taken along the diagonal of a voxel
    assert sheets.column_px[flat].max() <= 1 + 2 * 6
    assert np.median(sheets.column_px[flat]) == 7
    inner = flat & (sheets.place[2] < 34) & (sheets.place[1] > 14) & (sheets.place[1] < 34)
    np.testing.assert_allclose(sheets.opening_px[inner], 1 + 0.01 * 7, atol=0.002)
    beside = flat & (sheets.place[2] > 38)
    assert (sheets.opening_px[beside] < 1.15).all()
