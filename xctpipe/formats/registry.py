"""The raw layouts, found by scanning this package: a module with a NAME and an `open_scan` is one."""

import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from xctpipe.errors import BadScan, nearest
from xctpipe.formats.base import Layout, RawOptions
from xctpipe.formats.frames import HdfFrames
from xctpipe.formats.hdf5 import HDF_ERRORS, check_file, datasets, open_hdf
from xctpipe.scan import DarkFlat, Frames


def layouts() -> dict[str, Layout]:
    """Every raw layout by name."""
    package = importlib.import_module("xctpipe.formats")
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    found = [cast("Layout", module) for module in modules if hasattr(module, "NAME")]
    return {layout.NAME: layout for layout in found}


def layout_named(name: str) -> Layout:
    """The layout of this name; BadScan when there is none."""
    known = layouts()
    if name not in known:
        raise BadScan(f"no raw layout {name!r}; {nearest(name, known)}")
    return known[name]


def layout_of(path: Path) -> Layout:
    """The layout that understands a scan folder or file; BadScan with the cause when none does."""
    try:
        exists = path.exists()
    except OSError as err:
        raise BadScan(f"{path}: cannot be read: {err.strerror}") from err
    if not exists:
        raise BadScan(f"{path}: no such file or folder")
    for layout in layouts().values():
        if layout.understands(path):
            return layout
    raise BadScan(why_not_understood(path))


def open_dark_flats(paths: Sequence[Path], *, options: RawOptions) -> tuple[DarkFlat, ...]:
    """Darks and flats of every given scan folder or file, in order of time where all have one."""
    found: list[DarkFlat] = []
    for path in paths:
        found.extend(layout_of(path).open_dark_flat(path, options=options))
    times = [item.time_s for item in found]
    if None not in times:
        found.sort(key=lambda item: item.time_s or 0.0)
    return tuple(found)


def exposure_of(path: Path, frames: Frames) -> float | None:
    """Exposure of frames that the file at `path` holds or links to, in s, where its layout knows it."""
    try:
        read = getattr(layout_of(path), "exposure_of", None)
        found: float | None = (
            read(path, frames) if read is not None and isinstance(frames, HdfFrames) else None
        )
    except BadScan:
        return None
    return found


_BY_HAND = "frames of no layout are named in the recipe: raw.data, raw.flats, raw.darks, raw.angles"


def why_not_understood(path: Path) -> str:
    """Say what a folder or file holds that no layout understands; BadScan when it cannot be opened at all."""
    titles = "; ".join(layout.TITLE for layout in layouts().values())
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir())
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
        return f"{path}: no raw scan; looked for: {titles}; the folder holds {shown}; {_BY_HAND}"
    check_file(path)
    stacks = [_stack_text(path, key) for key in datasets(path, min_dimensions=3, limit=8)]
    held = "; ".join(stacks) if stacks else "no stack of frames (dangling links are not counted)"
    return f"{path}: HDF5, but in no known layout (known: {titles}); it holds {held}; {_BY_HAND}"


def _stack_text(path: Path, key: str) -> str:
    with open_hdf(path) as file:
        dataset = file[key]
        text = f"{key} {tuple(dataset.shape)} {dataset.dtype}"
        if 0 in dataset.shape or dataset.dtype.kind not in "iuf":
            return text
        try:
            frame = dataset[0]
        except HDF_ERRORS:
            return f"{text}, whose data cannot be read"
    if frame.min() == frame.max():
        value = float(frame.flat[0])
        why = "saturated" if value in {255.0, 4095.0, 16383.0, 65535.0} else "no image"
        return f"{text}, every value of its first frame is {value:g} ({why})"
    return text
