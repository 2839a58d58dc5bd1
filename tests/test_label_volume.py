"""Labels inside a volume: on its grid at every level, with thin things in all of them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from xctpipe import volume
from xctpipe.blocks import in_this_process
from xctpipe.errors import BadRecipe
from xctpipe.label_volume import (
    LabelSource,
    Legend,
    has_labels,
    label_attributes,
    read_labels,
    read_legend,
    write_labels,
)
from xctpipe.segment.coarser import coarser

SHAPE = (11, 1030, 67)
PRIORITY = (9, 7)
LEGENDS = {
    "phases": Legend({5: "nasicon", 7: "bubble", 9: "crack"}, {5: (238, 221, 187), 9: (213, 94, 0)}),
    "objects": Legend(properties={1: {"kind": "crack", "volume_um3": 12.5}, 2: {"kind": "bubble"}}),
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "edge.ome.zarr"
    volume.create(path, volume.VolumeSpec(SHAPE, 1.3, first_row=40), name="scan", attributes={})
    return path


def some_labels(shape=SHAPE, seed=0):
    """Two layers, a crack one voxel thin and a bubble."""
    phases, objects = np.full(shape, 5, np.uint8), np.zeros(shape, np.int32)
    phases[: shape[0] // 2] = 6
    phases[2, 2 : shape[1] // 2, shape[2] // 3], objects[2, 2 : shape[1] // 2, shape[2] // 3] = 9, 1
    phases[:2, -5:, :4], objects[:2, -5:, :4] = 7, 2
    return phases, objects


def source_of(phases, objects, *, level=0, **more):
    return LabelSource(lambda at: (phases[at], objects[at]), level, PRIORITY, legends=LEGENDS, **more)


def test_labels_are_a_valid_image_label_on_the_grid_of_the_image(image):
    write_labels(image, source_of(*some_labels(), attributes={"scan": "scan"}))
    whole = Image.from_zarr(zarr.open_group(image, mode="r", use_consolidated=False))
    scales = whole.ome_attributes.multiscales[0]
    assert set(whole.labels.ome_attributes.labels) == {"phases", "objects"}
    for name, dtype in (("phases", "uint8"), ("objects", "int32")):
        group = zarr.open_group(image / "labels" / name, mode="r", use_consolidated=False)
        label = ImageLabel.from_zarr(group)
        assert label.ome_attributes.multiscales[0].axes == scales.axes
        assert label.ome_attributes.multiscales[0].datasets == scales.datasets
        assert sorted(group.array_keys()) == ["0", "1", "2"]
        for level, shape in enumerate(volume.level_shapes(volume.read_spec(image))):
            array = group[str(level)]
            assert (array.shape, array.dtype) == (shape, dtype)
            assert array.metadata.dimension_names == ("z", "y", "x")
        legend = read_legend(image, name)
        assert legend.names == LEGENDS[name].names
        assert legend.properties == LEGENDS[name].properties
        assert legend.colours.items() >= LEGENDS[name].colours.items()
        assert len(set(legend.colours.values())) == len({*legend.names, *legend.properties})
    assert label_attributes(image, "phases")["scan"] == "scan"
    assert volume.read(image, level=2).shape == (3, 258, 17)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_was_given_is_read_and_coarser_levels_hold_every_crack(image, threads):
    phases, objects = some_labels()
    write_labels(image, source_of(phases, objects), place=in_this_process(threads))
    np.testing.assert_array_equal(read_labels(image, "phases"), phases)
    np.testing.assert_array_equal(read_labels(image, "objects"), objects)
    for level in (1, 2):
        n = 2**level
        got = read_labels(image, "phases", level=level)
        touched = np.zeros(got.shape, bool)
        touched[tuple(at // n for at in np.nonzero(phases == 9))] = True
        np.testing.assert_array_equal(got == 9, touched)
        np.testing.assert_array_equal(read_labels(image, "objects", level=level) == 1, touched)


def test_labels_without_any_object_are_valid_too(image):
    phases, objects = some_labels()
    write_labels(image, replace(source_of(phases, 0 * objects), legends={"objects": Legend()}))
    Image.from_zarr(zarr.open_group(image, mode="r", use_consolidated=False))
    assert read_legend(image, "objects") == Legend()
    assert not list((image / "labels" / "objects" / "0").rglob("c/*"))


def test_part_of_a_level_can_be_read(image):
    phases, objects = some_labels()
    write_labels(image, source_of(phases, objects))
    part = read_labels(image, "phases", level=1, z=slice(1, 3), y=slice(250, 300), x=slice(5))
    np.testing.assert_array_equal(part, read_labels(image, "phases", level=1)[1:3, 250:300, :5])


def test_labels_of_a_coarser_level_are_repeated_in_finer_ones(image):
    phases, objects = some_labels((3, 258, 17))
    write_labels(image, source_of(phases, objects, level=2))
    for level in range(3):
        n = 2 ** (2 - level)
        shape = volume.level_shapes(volume.read_spec(image))[level]
        where = np.ix_(*(np.arange(length) // n for length in shape))
        np.testing.assert_array_equal(read_labels(image, "phases", level=level), phases[where])
        np.testing.assert_array_equal(read_labels(image, "objects", level=level), objects[where])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 7)] * 3))
def test_coarser_labels_by_their_definition(seed, shape):
    rng = np.random.default_rng(seed)
    phases = rng.choice(np.array([0, 5, 6, 7, 9], np.uint8), shape, p=[0.1, 0.5, 0.3, 0.07, 0.03])
    objects = (rng.integers(1, 4, shape) * (phases >= 7)).astype(np.int32)
    got_phases, got_objects = coarser(phases, objects, priority=PRIORITY)
    for at in np.ndindex(got_phases.shape):
        cell = tuple(slice(2 * i, 2 * i + 2) for i in at)
        codes = phases[cell].ravel().tolist()
        listed = [code for code in PRIORITY if code in codes]
        winner = listed[0] if listed else max(codes, key=lambda code: (codes.count(code), code))
        assert got_phases[at] == winner
        ids = objects[cell][(phases[cell] == winner) & (objects[cell] > 0)]
        assert got_objects[at] == (ids.min() if ids.size else 0)


def test_new_labels_replace_old_ones_and_spare_those_of_others(image):
    phases, objects = some_labels()
    write_labels(image, source_of(phases, objects))
    painted = image / "labels" / "painted"
    shutil.copytree(image / "labels" / "phases", painted)
    group = zarr.open_group(image / "labels", mode="r+")
    group.update_attributes({"ome": {"version": "0.5", "labels": ["phases", "objects", "painted"]}})
    changed = np.where(phases == 9, np.uint8(10), phases)
    write_labels(image, source_of(changed, objects))
    np.testing.assert_array_equal(read_labels(image, "phases"), changed)
    assert zarr.open_group(image / "labels").attrs["ome"]["labels"] == ["phases", "objects", "painted"]
    assert (painted / "zarr.json").is_file()
    assert sorted(p.name for p in image.parent.iterdir()) == ["edge.ome.zarr"]


class Broken(Exception):
    """Of a test."""


def test_old_labels_stay_when_new_ones_fail(image):
    phases, objects = some_labels()
    good = source_of(phases, objects)
    write_labels(image, good)

    def fails(at):
        raise Broken

    with pytest.raises(Broken):
        write_labels(image, replace(good, read=fails))
    np.testing.assert_array_equal(read_labels(image, "phases"), phases)
    assert sorted(p.name for p in image.parent.iterdir()) == ["edge.ome.zarr"]


def test_a_volume_without_labels_says_so(image):
    assert not has_labels(image)
    with pytest.raises(BadRecipe, match="run the stage segment first"):
        read_labels(image, "phases")


def test_a_level_that_is_not_there(image, tmp_path):
    phases, objects = some_labels()
    with pytest.raises(BadRecipe, match="no level 3; it has 0 to 2"):
        write_labels(image, source_of(phases, objects, level=3))
    write_labels(image, source_of(phases, objects))
    with pytest.raises(BadRecipe, match="no level 7; 0, 1, 2"):
        read_labels(image, "objects", level=7)
    with pytest.raises(BadRecipe, match="labels 'phase'"):
        read_labels(image, "phase")
    with pytest.raises(BadRecipe, match="no volume"):
        write_labels(tmp_path / "absent.ome.zarr", source_of(phases, objects))
