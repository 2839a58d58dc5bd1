"""The search for the axis of rotation."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from xctpipe.bench.case import Case, Part, Peer
from xctpipe.bench.peers import all_lines, first_row, why_not
from xctpipe.bench.scene import Scene
from xctpipe.bench.setting import Setting
from xctpipe.center import find_center
from xctpipe.machine import usable_cpus
from xctpipe.scan import FloatArray
from xctpipe.survey import SURVEY_ROWS

TITLE, ORDER = "axis", 2


def cases(setting: Setting) -> Iterator[Case]:
    """The axis of a scan from as many rows as a survey takes, beside algotom's from one row."""
    rows = min(SURVEY_ROWS, setting.size.rows)
    peers = []
    if why_not("algotom") is None:
        peers.append(
            Peer(
                "algotom find_center_vo, 1 row",
                (Part(_vo, one_core=False),),
                before=first_row,
                error=lambda: _off(setting.small, _vo(setting.small, first_row(setting.small, None))),
            )
        )
    yield Case(
        f"find_center, {rows} rows",
        _ours,
        rows * setting.size.angles * setting.size.cols,
        peers,
        unit="scan",
        rows=rows,
        units=1,
        before=all_lines,
        error=lambda: _off(setting.small, _ours(setting.small, setting.small.lines())),
    )


def _ours(scene: Scene, lines: FloatArray) -> float:
    return find_center(lines, angles_rad=scene.angles_rad, rows=np.arange(scene.rows)).center_px


def _off(scene: Scene, center_px: float) -> float:
    """Distance from the true axis."""
    return abs(center_px - scene.center_px)


def _vo(_: Scene, sinogram: Any) -> float:
    from algotom.prep.calculation import find_center_vo

    return float(find_center_vo(sinogram, ncore=usable_cpus()))
