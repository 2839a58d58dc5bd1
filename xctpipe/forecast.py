"""What a run will take: slabs, memory, disk and time, told before a frame is read."""

import shutil
from collections.abc import Iterator

from xctpipe import inputs, staging, volume
from xctpipe.charging import check_cycler
from xctpipe.errors import BadScan
from xctpipe.machine import usable_cpus, usable_memory_bytes
from xctpipe.prepare import extent_of, memory_bytes, pixel_um_of, plan_scan
from xctpipe.recipe import Recipe
from xctpipe.scan import Scan

_GB = 1e9
START_S = 8.0
"""Loading of libraries and kernels, once."""
SCAN_S = 2.0
"""Survey and assessment of a scan, beside what grows with its size."""

CORRECTION_SHARE = 0.5
"""Part of a slab's time that goes into reading and correcting it with the default chain."""

NS_PER_RAY = {("fourier", None): 60.0, ("algotom", "fbp"): 9000.0}
"""CPU time per projection pixel with the default chain, all stages, by backend and algorithm: as far as it
was measured. `workflows/` shows how."""


def lines(recipe: Recipe) -> Iterator[str]:
    """The plan of every scan in words; reads no frame."""
    yield from check_cycler(recipe)
    found = inputs.find(recipe.raw)
    yield f"{recipe.name}: {len(found)} scan(s) in {recipe.raw.folder}"
    yield "corrections: " + (", ".join(_step_text(recipe)) or "none")
    total_bytes, most_staged = 0, 0
    times: list[float | None] = []
    for index, each in enumerate(found):
        try:
            scan = inputs.open_one(recipe.raw, each, index=index, look_at_frames=False)
        except BadScan as err:
            yield f"{each.name}: will fail: {err}"
            continue
        yield from _scan_lines(scan, recipe)
        times.append(seconds(scan, recipe))
        total_bytes += volume_bytes(scan, recipe)
        most_staged = max(most_staged, _staged_bytes(scan))
    if None in times:
        yield "in all: time not known; `xctpipe try` shows what a few slices take with these settings"
    else:
        yield f"in all {_about(START_S + sum(filter(None, times)))} on {usable_cpus()} CPU(s)"
    # copies of packed frames are removed scan by scan
    yield from _resource_lines(recipe, total_bytes + most_staged)


def _step_text(recipe: Recipe) -> Iterator[str]:
    for step in recipe.chain():
        yield f"{step.name}({', '.join(f'{key}={value}' for key, value in step.params.items())})"


def _scan_lines(scan: Scan, recipe: Recipe) -> Iterator[str]:
    plan, extent = plan_scan(scan, recipe), extent_of(scan, recipe)
    n, height, width = scan.shape
    raw = _size(extent.raw_bytes)
    yield f"{scan.name}: {n} frames x {height} rows x {width} columns, {scan.frames.dtype}, {raw}"
    around = f", each with {extent.halo_rows} more on both sides" if extent.halo_rows else ""
    yield f"  {len(plan.slabs)} slab(s) of up to {plan.slab_rows} rows{around}"
    yield f"  memory {_size(plan.peak_bytes)} of {_size(memory_bytes(recipe))}"
    if _staged_bytes(scan):
        yield f"  frames are unpacked first: {_staged_bytes(scan) / _GB:.2f} GB, until the scan is done"
    what = "volume" if extent.n_volumes == 1 else f"{extent.n_volumes} volumes"
    wide = "" if extent.volume_cols == width else f" of up to {extent.volume_cols} columns"
    yield f"  {what}{wide}, {_size(volume_bytes(scan, recipe))} before compression"
    yield f"  {_about(seconds(scan, recipe))}"
    for text in scan.warnings:
        yield f"  warning: {text}"


def seconds(scan: Scan, recipe: Recipe) -> float | None:
    """Rough time of reconstructing a scan with the CPUs this process may use; None where it is not known."""
    n, height, width = scan.shape
    choice, extent = recipe.reconstruct, extent_of(scan, recipe)
    per_ray = NS_PER_RAY.get((choice.backend, choice.options.get("algorithm")))
    if per_ray is None:
        return None
    cpus = usable_cpus() if choice.backend == "fourier" else 1
    wider = (extent.volume_cols or width) / width
    slab_rows = plan_scan(scan, recipe).slab_rows
    # rows around a slab are corrected again for each slab
    again = 1 + CORRECTION_SHARE * min(2 * extent.halo_rows, height - slab_rows) / slab_rows
    return SCAN_S + n * height * width * wider * extent.n_volumes * again * per_ray * 1e-9 / cpus


def volume_bytes(scan: Scan, recipe: Recipe) -> int:
    """Size of the volumes with all their levels, uncompressed; the most where the width is not known yet."""
    extent = extent_of(scan, recipe)
    width = extent.volume_cols or extent.n_cols
    shape = (extent.n_rows, width, width)
    spec = volume.VolumeSpec(shape, pixel_um=pixel_um_of(recipe), dtype=recipe.volume.dtype)
    return extent.n_volumes * volume.estimate_bytes(spec)


def _staged_bytes(scan: Scan) -> int:
    """Size of the copy of packed frames, nothing where none is needed."""
    return staging.staged_bytes(scan.frames) if staging.is_needed(scan.frames) else 0


def _resource_lines(recipe: Recipe, need: float) -> Iterator[str]:
    place = recipe.run_folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    yield f"disk: {_size(need)} before compression, {free / _GB:.1f} GB free at {place}"
    wish, have = memory_bytes(recipe), usable_memory_bytes()
    if wish > have:
        yield f"warning: compute.memory_gb = {wish / _GB:.1f}, this machine gives {have / _GB:.1f} GB"
    if need > free:
        yield "warning: the disk may not hold the volumes; free some space, move run_folder, or store uint16"


def _size(n_bytes: float) -> str:
    """A size with its unit, three digits of it."""
    for unit, size in (("GB", _GB), ("MB", 1e6)):
        if n_bytes >= 0.1 * size:
            return f"{n_bytes / size:.3g} {unit}" if n_bytes < 1000 * size else f"{n_bytes / size:.0f} {unit}"
    return f"{n_bytes / 1e3:.3g} kB"


def _about(seconds_: float | None) -> str:
    return "time not known with this backend" if seconds_ is None else f"about {_duration(seconds_)}"


def _duration(seconds_: float) -> str:
    if seconds_ < 120:
        return f"{seconds_:.0f} s"
    return f"{seconds_ / 60:.0f} min" if seconds_ < 7200 else f"{seconds_ / 3600:.1f} h"
