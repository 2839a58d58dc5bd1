"""How the cost of a slice grows with its width and the number of rows."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from xctpipe import recon, steps
from xctpipe.bench.case import Case, Figure
from xctpipe.bench.groups import Finder
from xctpipe.bench.scene import PIXEL_UM, Scene, Size, make_scene
from xctpipe.bench.setting import MOST_ROWS, Setting
from xctpipe.correct.chain import default_chain
from xctpipe.correct.flat import minus_log

TITLE, ORDER = "growth", 6

WIDTHS_FRAC = (0.16, 0.32, 0.64, 1.0)
"""Widths relative to that asked for: 512, 1024, 2048 and 3200 of 3200."""
MANY_ROWS = (16, 32, 64)
MANY_ROWS_FRAC = 0.32
REPEATS = 3


def cases(setting: Setting) -> Iterator[Case]:
    """None: nothing here has a counterpart."""
    yield from ()


def figures(setting: Setting) -> Iterator[tuple[str, Finder]]:
    """Seconds a slice by width, and by rows."""
    yield "growth with angles x width", lambda: _by_width(setting)
    yield "growth with rows", lambda: _by_rows(setting)


def _by_width(setting: Setting) -> Iterator[Figure]:
    """Seconds a slice from counts to slices by the default chain, and the power that it grows with."""
    rows = min(MOST_ROWS, setting.size.rows)
    work, seconds = [], []
    for frac in WIDTHS_FRAC:
        size = setting.size.narrowed(round(frac * setting.size.cols), rows=rows)
        work.append(size.angles * size.cols)
        seconds.append(_slice_s(make_scene(size)))
        each = 1e9 * seconds[-1] / work[-1]
        yield Figure(f"{size.angles} x {size.cols}", each, "ns/pixel", f"{seconds[-1]:.4f} s/slice")
    power = float(np.polyfit(np.log(work), np.log(seconds), 1)[0])
    yield Figure("power of angles x width", power, "", "1 is linear")


def _by_rows(setting: Setting) -> Iterator[Figure]:
    narrow = setting.size.narrowed(round(MANY_ROWS_FRAC * setting.size.cols))
    seconds = []
    for rows in MANY_ROWS:
        size = Size(narrow.angles, rows, narrow.cols)
        seconds.append(rows * _slice_s(make_scene(size)))
        yield Figure(f"{rows} rows x {size.cols}", seconds[-1] / rows, "s/slice")
    power = float(np.polyfit(np.log(MANY_ROWS), np.log(seconds), 1)[0])
    yield Figure("power of rows", power, "", "1 is linear")


def _slice_s(scene: Scene) -> float:
    """Least seconds a slice of a few calls; the first loads the kernels."""
    times = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        _slices(scene)
        times.append(time.perf_counter() - start)
    return min(times[1:]) / scene.rows


def _slices(scene: Scene) -> Any:
    chain = [steps.bind(name, **params) for name, params in default_chain()]
    slab, _ = steps.run_chain(chain, scene.flat_field.correct(scene.raw), scene.facts)
    lines, _ = minus_log(slab)
    return recon.reconstruct(lines, angles_rad=scene.angles_rad, center_px=scene.center_px, pixel_um=PIXEL_UM)
