"""What a simulated series is judged by: true moves, objects matched with true ones, true edges of tracks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from xctpipe.csvtables import read_table
from xctpipe.series.rigid import Rigid

Row = Mapping[str, Any]
Node = tuple[str, int]
Edge = tuple[Node, Node]

GRAINS = frozenset({"pore", "inclusion"})
_FAMILIES = {"crack_filled": "crack", "interfacial_void": "void", "bubble": "void"}
_FAR = 1e6


def true_moves(folder: Path, names: Sequence[str]) -> dict[str, Rigid]:
    """From the first of these scans to each, with the axis that each volume was reconstructed about.

    An axis wrong by e over half a turn moves the volume by 4 e / pi along y: what projections ask on average.
    """
    drifts, scans, true = (
        {row["scan"]: row for row in read_table(folder / where)}
        for where in ("truth/registration.csv", "run/tables/scans.csv", "truth/scans.csv")
    )
    stack = {
        name: Rigid((np.radians(row["rotation_deg"]), 0, 0), (row["dz_um"], row["dy_um"], row["dx_um"]))
        for name, row in drifts.items()
    }
    off = {
        name: 4 / np.pi * (scans[name]["center_px"] - true[name]["center_px"]) * scans[name]["pixel_um"]
        for name in names
    }
    return {
        name: Rigid(shift_um=(0, off[name], 0))
        .after(stack[name].after(stack[names[0]].inverse))
        .after(Rigid(shift_um=(0, -off[names[0]], 0)))
        for name in names
    }


def matched(found: Sequence[Row], true: Sequence[Row], *, voxel_um: float) -> dict[Node, int]:
    """True object of each measured one: of its family, nearest, and of about its size."""
    pairs: dict[Node, int] = {}
    for scan in {row["scan"] for row in found}:
        mine = [row for row in found if row["scan"] == scan and row["z_um"] is not None]
        theirs = [row for row in true if row["scan"] == scan and row["volume_um3"]]
        costs = np.array([[_cost(a, b, voxel_um) for b in theirs] for a in mine]).reshape(len(mine), -1)
        for i, j in zip(*linear_sum_assignment(costs), strict=True):
            if costs[i, j] < _FAR:
                pairs[scan, mine[i]["object"]] = theirs[j]["object"]
    return pairs


def _family(kind: str) -> str:
    return _FAMILIES.get(kind, kind)


def _radius(row: Row) -> float:
    ball = (3 * max(row["volume_um3"] or row.get("count_volume_um3") or 0, 0) / 4 / math.pi) ** (1 / 3)
    disc = math.sqrt((row.get("area_um2") or 0) / math.pi) if _family(row["kind"]) == "crack" else 0.0
    return max(ball, disc)


def _cost(mine: Row, true: Row, voxel_um: float) -> float:
    if _family(mine["kind"]) != _family(true["kind"]):
        return _FAR
    away = math.dist(*[[row[key] for key in ("z_um", "y_um", "x_um")] for row in (mine, true)])
    near = 0.5 * (_radius(mine) + _radius(true)) + 1.5 * voxel_um
    size = max(mine["volume_um3"] or mine["count_volume_um3"] or 1, 1) / true["volume_um3"]
    return away / near + 0.3 * abs(math.log(size)) if away < near else _FAR


def true_edges(pairs: Mapping[Node, int], events: Iterable[Row], names: Sequence[str]) -> set[Edge]:
    """Links between the measured objects that show one true object in scans one after the other."""
    nodes: dict[int, dict[str, Node]] = {}
    for node, number in pairs.items():
        nodes.setdefault(number, {})[node[0]] = node
    seen = {number: [at[name] for name in names if name in at] for number, at in nodes.items()}
    edges = {edge for each in seen.values() for edge in pairwise(each)}
    for event in events:
        if event["kind"] == "merge":
            *parents, child = (int(text) for text in event["tracks"].split())
            edges |= {(seen[p][-1], seen[child][0]) for p in parents if p in seen and child in seen}
    return edges


def found_edges(tracks: Sequence[Row], events: Iterable[Row], names: Sequence[str]) -> set[Edge]:
    """Links that the tables of a run hold."""
    at: dict[int, dict[str, list[Node]]] = {}
    for row in tracks:
        at.setdefault(row["track"], {}).setdefault(row["scan"], []).append((row["scan"], row["object"]))
    seen = {track: [own[name] for name in names if name in own] for track, own in at.items()}
    edges = {
        (a, b) for each in seen.values() for before, after in pairwise(each) for a in before for b in after
    }
    for event in events:
        if event["kind"] == "merge":
            *parents, child = (int(text) for text in str(event["tracks"]).split())
            edges |= {(a, b) for p in parents for a in seen[p][-1] for b in seen[child][0]}
    return edges


def f1(true: set[Edge], found: set[Edge]) -> float:
    """Harmonic mean of precision and recall; 1 where there is nothing in either."""
    return 2 * len(true & found) / max(len(true) + len(found), 1) if true or found else 1.0
