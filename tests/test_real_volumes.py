"""Real volumes of other people: components, bulk phases and shapes, where the answer is known or is seen."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from xctpipe.components import local_components, merge, record_of
from xctpipe.measure import surfaces
from xctpipe.segment.bulk import bulk_phases, fit_mixture

POROSITY = 0.1987
"""Of the sandstone, as published with it."""
ELECTRODE_FRAC = 0.2304
"""Of the slice through the cell, by the mask that came with it."""

LIGHT, DENSE = 7, 5


def labelled(mask: Any, *, edges: tuple[int, int, int], connectivity: Any) -> tuple[Any, Any]:
    """Labels of a mask and the voxels of each, by blocks of these edges."""
    spans = [
        [(a, min(a + edge, n)) for a in range(0, n, edge)] for n, edge in zip(mask.shape, edges, strict=True)
    ]
    blocks = list(product(*spans))
    made = []
    for core in blocks:
        codes = mask[tuple(slice(*span) for span in core)].view(np.uint8)
        labels, n = local_components(codes, connectivity=connectivity)
        record = record_of(labels, n, codes=codes, core=core, shape=mask.shape)  # type: ignore[arg-type]
        made.append((labels, record))
    whole = merge([record for _, record in made], connectivity=connectivity)
    out = np.zeros(mask.shape, np.int32)
    for core, (labels, _), lut in zip(blocks, made, whole.luts, strict=True):
        out[tuple(slice(*span) for span in core)] = lut[labels]
    return out, whole.total([record["n_voxels"] for _, record in made])


@pytest.mark.parametrize("connectivity", [6, 26])
def test_pores_of_a_sandstone_are_those_of_scipy(shared_data: Path, connectivity: int) -> None:
    pores = np.load(shared_data / "pores" / "berea_100_to_300.npz")["im"]
    found, counts = labelled(pores, edges=(70, 200, 90), connectivity=connectivity)
    expected, n = ndimage.label(pores, ndimage.generate_binary_structure(3, 1 if connectivity == 6 else 3))
    assert len(counts) == n > 100
    # both number by the first voxel in raster order
    assert np.array_equal(found, expected)
    assert np.array_equal(counts, np.bincount(expected.ravel())[1:])
    assert counts.sum() / pores.size == pytest.approx(POROSITY, abs=5e-5)


def peak(counts: Any, first: int, last: int) -> int:
    return first + int(np.argmax(counts[first:last]))


def crofton_area(mask: Any) -> float:
    """Surface by steps into and out of a mask, counted here and weighted by the measure of the project."""
    wide = np.pad(mask, 1).astype(np.int8)
    columns = {}
    for i, direction in enumerate(surfaces._DIRECTIONS):
        # a mask that is padded meets nothing on its way round
        columns[f"crossings_{i}"] = np.array(
            [np.abs(wide - np.roll(wide, direction, (0, 1, 2))).sum(dtype=int)]
        )
    return float(surfaces.crofton_area_px(columns)[0])  # type: ignore[arg-type]


def test_bubbles_in_cement_are_round(shared_data: Path) -> None:
    image = tifffile.imread(shared_data / "bubbles" / "cement_128x128x128.tif")
    counts = np.bincount(image.ravel(), minlength=256).astype(float)
    means = peak(counts, 80, 256), peak(counts, 0, 50)
    mixture = fit_mixture(counts, np.arange(257) - 0.5, means_cm1=means, codes=(DENSE, LIGHT))
    phases = bulk_phases(image.astype(np.float32), mixture=mixture)
    labels, sizes = labelled(phases == LIGHT, edges=(50, 64, 128), connectivity=6)
    assert 0.03 < (phases == LIGHT).mean() < 0.2
    roundness = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = all(s.start > 0 and s.stop < n for s, n in zip(box, labels.shape, strict=True))
        # from a radius of 3.6 voxels on a count of voxels says something of a surface
        if inside and sizes[number - 1] >= 200:
            area = crofton_area(labels[box] == number)
            roundness.append(np.pi ** (1 / 3) * (6 * sizes[number - 1]) ** (2 / 3) / area)
    assert len(roundness) >= 50
    # a ball gives 1.00 +- 0.03; some bubbles touch others
    assert np.median(roundness) > 0.95
    assert np.quantile(roundness, 0.1) > 0.75


def test_the_electrode_of_a_rolled_cell_is_that_of_its_mask(shared_data: Path) -> None:
    folder = shared_data / "pores"
    image = tifffile.imread(folder / "cylindrical_cell_im_1.tif").astype(np.float32)[None]
    mask = tifffile.imread(folder / "cylindrical_cell_mask_1.tif")[None] > 0
    assert mask.mean() == pytest.approx(ELECTRODE_FRAC, abs=5e-5)
    # peaks of the histogram: air, plastic, the light electrode and foils, the dense electrode, the can
    grey = np.array([0.0, 4e3, 11e3, 24e3, 57e3, 65535.0])
    codes = np.arange(1, 7)
    counts, edges = np.histogram(image, 512)
    fitted = fit_mixture(counts.astype(float), edges, means_cm1=grey.tolist(), codes=codes.tolist())
    found = bulk_phases(image, mixture=fitted) == 5
    dice = 2 * (found & mask).sum() / (found.sum() + mask.sum())
    assert dice > 0.95
