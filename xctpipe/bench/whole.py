"""A whole slab, from raw frames on disk to the volume, and what the stages cost within it."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xctpipe.bench.case import Case, Figure, Part, Peer
from xctpipe.bench.corrections import ZINGER_FRAC
from xctpipe.bench.groups import Finder
from xctpipe.bench.lane import (
    CHAIN,
    Lane,
    prepared_from_disk,
    prepared_from_memory,
    raw_on_disk,
    recipe_of,
    timed_lane,
)
from xctpipe.bench.peers import fbp, why_not
from xctpipe.bench.scene import Scene
from xctpipe.bench.setting import Setting
from xctpipe.errors import BadScan
from xctpipe.inputs import find, open_one
from xctpipe.machine import set_threads
from xctpipe.plan import MAX_SLAB_ROWS
from xctpipe.prepare import Prepared, plan_scan
from xctpipe.recipe import to_toml

TITLE, ORDER = "whole slab", 5

SLABS = 6
"""Slabs of the lane in which reading, computing and writing take equally long."""
_CHILD = (
    "import re, sys; from xctpipe.cli import main; code = main();"
    "print(code, re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
)


def cases(setting: Setting) -> Iterator[Case]:
    """Raw rows on disk to a volume on disk, and the same from memory to nowhere."""
    whole = setting.size.angles * setting.size.cols
    fixed: dict[str, Any] = {"rows": setting.scene_rows, "units": setting.size.rows}
    yield Case(
        f"raw file to OME-Zarr ({' + '.join(CHAIN)})",
        _keeping(setting, "disk", to_disk=True),
        whole,
        _algotom(),
        before=lambda scene, _: prepared_from_disk(scene, setting.folder, n_rows=_rows(scene, setting)),
        **fixed,
    )
    yield Case(
        "memory to nowhere, same chain",
        _keeping(setting, "memory", to_disk=False),
        whole,
        before=lambda scene, _: prepared_from_memory(scene, setting.folder, n_rows=_rows(scene, setting)),
        **fixed,
    )


def figures(setting: Setting) -> Iterator[tuple[str, Finder]]:
    """What a lane spends where, how well its three places overlap, and its memory."""
    yield "stages of the slab", lambda: _stages(setting)
    yield "overlap of reading, computing and writing", lambda: _overlap(setting)
    yield "peak memory", lambda: _memory(setting)


def _rows(scene: Scene, setting: Setting) -> int:
    """Rows of the scan: as asked for, but where the scene is for loading kernels."""
    return scene.rows if scene is setting.small else setting.size.rows


def _keeping(setting: Setting, name: str, *, to_disk: bool) -> Callable[[Scene, Prepared], None]:
    def call(scene: Scene, prepared: Prepared) -> None:
        lane = timed_lane(prepared, to_disk=to_disk)
        if scene is not setting.small:
            setting.kept[name] = lane

    return call


def _algotom() -> tuple[Peer, ...]:
    """Algotom's path for a slice, from memory and without writing, which is in its favour."""
    if why_not("algotom"):
        return ()
    from algotom.prep.correction import flat_field_correction
    from algotom.prep.removal import remove_all_stripe, remove_zinger

    def corrected(scene: Scene, _: Any) -> Any:
        flat, dark = scene.flat.astype(np.float64), scene.dark.astype(np.float64)
        return flat_field_correction(scene.raw, flat, dark)[:, 0]

    def without_stripes(_: Scene, sinogram: Any) -> Any:
        return remove_all_stripe(remove_zinger(sinogram, ZINGER_FRAC))

    def slices(scene: Scene, sinogram: Any) -> Any:
        set_threads()
        return fbp(_minus_log(sinogram), scene)

    parts = (Part(corrected), Part(without_stripes), Part(slices, one_core=False))
    return (Peer("algotom zinger + all_stripe + FBP", parts),)


def _minus_log(sinogram: Any) -> Any:
    return -np.log(np.maximum(sinogram, 1e-6))


def _stages(setting: Setting) -> Iterator[Figure]:
    lane: Lane | None = setting.kept.get("disk")
    if lane is None:
        rows = setting.size.rows
        lane = timed_lane(prepared_from_disk(setting.scene, setting.folder, n_rows=rows), to_disk=True)
    for stage, seconds in lane.seconds.items():
        yield Figure(f"stage {stage}", seconds / lane.rows, "s/slice")
    outside = 1 - lane.kernels_s / lane.wall_s
    yield Figure("wall time outside kernels, from disk to disk", outside, "", "1 - computing / wall")
    memory: Lane | None = setting.kept.get("memory")
    if memory is not None:
        outside = 1 - memory.kernels_s / memory.wall_s
        yield Figure("wall time outside kernels, from memory to nowhere", outside, "")


def _overlap(setting: Setting) -> Iterator[Figure]:
    """A lane of `SLABS` slabs whose source and sink are slowed down to the pace of the computing."""
    scene, rows = setting.narrow, SLABS * MAX_SLAB_ROWS
    free = timed_lane(prepared_from_memory(scene, setting.folder, n_rows=rows), to_disk=False)
    row_s = free.kernels_s / rows
    prepared = prepared_from_memory(scene, setting.folder, n_rows=rows, row_s=row_s)
    lane = timed_lane(prepared, to_disk=False, row_s=row_s)
    totals = {
        "read": lane.seconds["read"],
        "compute": lane.kernels_s,
        "write": lane.seconds["write"],
    }
    said = ", ".join(f"{name} {value:.2f} s" for name, value in totals.items())
    n = len(prepared.plan.slabs)
    note = f"{n} slabs of {prepared.plan.slab_rows} rows x {scene.raw.shape[2]} columns: {said}"
    yield Figure("wall / largest of total read, compute, write", lane.wall_s / max(totals.values()), "", note)


def _memory(setting: Setting) -> Iterator[Figure]:
    """What the plan says that a run needs, and what it used in a process of its own."""
    rows, run_folder = setting.size.rows, setting.folder / "child"
    raw = raw_on_disk(setting.scene, setting.folder, n_rows=rows)
    recipe = recipe_of(setting.scene, raw, run_folder)
    planned = plan_scan(open_one(recipe.raw, find(recipe.raw)[0]), recipe).peak_bytes
    path = setting.folder / "recipe.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    command = [sys.executable, "-c", _CHILD, "run", str(path), "--stages", "reconstruct"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"(\d+) (\d+)\s*$", done.stdout)
    if found is None or found[1] != "0":
        raise BadScan(f"the run whose memory was to be measured failed: {done.stderr.strip()[-400:]}")
    yield Figure("peak memory, measured", 1024 * int(found[2]) / 1e9, "GB", f"{rows} rows, own process")
    yield Figure("peak memory, planned", planned / 1e9, "GB")
