"""What a run will take: slabs, memory, disk and time, told before a frame is read."""

import shutil
from collections.abc import Iterator

from xctpipe import inputs, volume
from xctpipe.errors import BadScan
from xctpipe.machine import usable_cpus, usable_memory_bytes
from xctpipe.prepare import extent_of, memory_bytes, plan_scan
from xctpipe.recipe import Recipe
from xctpipe.scan import Scan

_GB = 1e9

NS_PER_RAY = {"fourier": 160.0, "algotom": 9000.0}
"""CPU time per projection pixel with the default chain, all stages; `workflows/` shows how to measure."""


def lines(recipe: Recipe) -> Iterator[str]:
    """The plan of every scan in words; reads no frame."""
    found = inputs.find(recipe.raw)
    yield f"{recipe.name}: {len(found)} scan(s) in {recipe.raw.folder}"
    yield "corrections: " + (", ".join(_step_text(recipe)) or "none")
    total_s = total_bytes = 0.0
    for index, each in enumerate(found):
        try:
            scan = inputs.open_one(recipe.raw, each, index=index, look_at_frames=False)
        except BadScan as err:
            yield f"{each.name}: will fail: {err}"
            continue
        yield from _scan_lines(scan, recipe)
        total_s += seconds(scan, recipe)
        total_bytes += volume_bytes(scan, recipe)
    yield f"in all about {_duration(total_s)} on {usable_cpus()} CPU(s)"
    yield from _resource_lines(recipe, total_bytes)


def _step_text(recipe: Recipe) -> Iterator[str]:
    for step in recipe.chain():
        yield f"{step.name}({', '.join(f'{key}={value}' for key, value in step.params.items())})"


def _scan_lines(scan: Scan, recipe: Recipe) -> Iterator[str]:
    plan = plan_scan(scan, recipe)
    n, height, width = scan.shape
    raw_gb = extent_of(scan, recipe).raw_bytes / _GB
    yield f"{scan.name}: {n} frames x {height} rows x {width} columns, {scan.frames.dtype}, {raw_gb:.2f} GB"
    yield f"  {len(plan.slabs)} slab(s) of up to {plan.slab_rows} rows"
    yield f"  memory {plan.peak_bytes / _GB:.1f} GB of {memory_bytes(recipe) / _GB:.1f} GB"
    yield f"  volume {volume_bytes(scan, recipe) / _GB:.2f} GB before compression"
    yield f"  about {_duration(seconds(scan, recipe))}"
    for text in scan.warnings:
        yield f"  warning: {text}"


def seconds(scan: Scan, recipe: Recipe) -> float:
    """Rough time of reconstructing a scan with the CPUs this process may use."""
    n, height, width = scan.shape
    per_ray = NS_PER_RAY.get(recipe.reconstruct.backend, max(NS_PER_RAY.values()))
    cpus = usable_cpus() if recipe.reconstruct.backend == "fourier" else 1
    return 10 + n * height * width * per_ray * 1e-9 / cpus


def volume_bytes(scan: Scan, recipe: Recipe) -> int:
    """Size of the volume with all its levels, uncompressed."""
    _, height, width = scan.shape
    spec = volume.VolumeSpec((height, width, width), pixel_um=recipe.raw.pixel_um, dtype=recipe.volume.dtype)
    return volume.estimate_bytes(spec)


def _resource_lines(recipe: Recipe, need: float) -> Iterator[str]:
    place = recipe.run_folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    yield f"disk: {need / _GB:.2f} GB before compression, {free / _GB:.1f} GB free at {place}"
    wish, have = memory_bytes(recipe), usable_memory_bytes()
    if wish > have:
        yield f"warning: compute.memory_gb = {wish / _GB:.1f}, this machine gives {have / _GB:.1f} GB"
    if need > free:
        yield "warning: the disk may not hold the volumes; free some space, move run_folder, or store uint16"


def _duration(seconds_: float) -> str:
    if seconds_ < 120:
        return f"{seconds_:.0f} s"
    return f"{seconds_ / 60:.0f} min" if seconds_ < 7200 else f"{seconds_ / 3600:.1f} h"
