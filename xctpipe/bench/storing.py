"""Reading raw rows from disk, and writing slices to it with all their levels."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe import formats, volume
from xctpipe.bench.case import Case, Part, Peer
from xctpipe.bench.lane import raw_on_disk
from xctpipe.bench.peers import why_not
from xctpipe.bench.scene import PIXEL_UM, Scene
from xctpipe.bench.setting import Setting
from xctpipe.formats.frames import HdfFrames
from xctpipe.pyramid import keep_bits_for_noise
from xctpipe.scan import FloatArray, Frames

TITLE, ORDER = "disk", 4

NOISE_FRAC = 0.02
"""Noise of the slices that are written, relative to their values: decides how far they are rounded."""


def cases(setting: Setting) -> Iterator[Case]:
    """Rows out of raw frames in the layout of HEX, and slices with their pyramid into OME-Zarr."""
    yield Case(
        "read, from the page cache",
        lambda scene, frames: frames.read((0, scene.rows)),
        setting.size.angles * setting.size.cols,
        _load_hdf(setting),
        before=lambda scene, _: _frames(setting, scene),
    )
    yield Case(
        "write + pyramid",
        lambda _, store: volume.write_slab(store[0], store[1], 0, slab=store[2]),
        setting.size.cols**2,
        _save_image(setting),
        before=lambda scene, _: _store(setting, scene),
    )


def _frames(setting: Setting, scene: Scene) -> Frames:
    return formats.open_scan(raw_on_disk(scene, setting.folder, n_rows=scene.rows)).frames


def _slices(setting: Setting, scene: Scene) -> FloatArray:
    """Slices as noisy as measured ones, since what is stored is compressed."""
    cols = scene.raw.shape[2]
    noise = np.random.default_rng(2).standard_normal((cols, cols), np.float32)
    slices = np.empty((scene.rows, cols, cols), np.float32)
    for row in range(scene.rows):
        slices[row] = 1 + NOISE_FRAC * np.roll(noise, 7 * row)
    return slices


def _store(setting: Setting, scene: Scene) -> tuple[Path, volume.VolumeSpec, FloatArray]:
    """A new volume, and slices for it."""
    path = setting.folder / "written.ome.zarr"
    shutil.rmtree(path, ignore_errors=True)
    slices = _slices(setting, scene)
    bits = keep_bits_for_noise(NOISE_FRAC, magnitude=float(slices.max()))
    spec = volume.VolumeSpec(slices.shape, PIXEL_UM, slab_rows=0, keep_bits=bits)
    volume.create(path, spec, name="bench", attributes={})
    return path, spec, slices


def _load_hdf(setting: Setting) -> tuple[Peer, ...]:
    """Algotom's way to a chunk of rows, from the same file."""
    rows = setting.scene_rows
    if why_not("algotom"):
        return ()
    from algotom.io.loadersaver import load_hdf

    def call(scene: Scene, frames: Any) -> Any:
        data, file = load_hdf(str(frames.path), frames.key, return_file_obj=True)
        with file:
            return data[:, : scene.rows]

    def before(scene: Scene, _: Any) -> HdfFrames:
        frames = _frames(setting, scene)
        if not isinstance(frames, HdfFrames):
            raise TypeError("the raw frames are in no HDF5 file")
        return frames

    return (Peer("algotom load_hdf", (Part(call, one_core=False),), rows=rows, before=before),)


def _save_image(setting: Setting) -> tuple[Peer, ...]:
    """Algotom's way: one TIFF file for each slice, uncompressed and without a pyramid."""
    if why_not("algotom"):
        return ()
    from algotom.io.loadersaver import save_image

    def call(_: Scene, slices: Any) -> None:
        save_image(str(setting.folder / "tiff" / "slice.tif"), slices[0])

    part = Part(call, one_core=False)
    return (Peer("algotom save_image", (part,), before=lambda scene, _: _slices(setting, scene)),)
