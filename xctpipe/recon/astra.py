"""The ASTRA toolbox: back-projection of exactly filtered rows, and the iterative SIRT and CGLS.

An extra, because it is GPL-3. It runs on a CUDA device where there is one. Its own filtered back-projection
is not used: it takes angles for equally spaced, and that of old versions is wrong beyond 2047 angles.
"""

import importlib
import importlib.metadata
import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le

from xctpipe.recon.filtering import TAPER_FRAC, WINDOWS
from xctpipe.recon.fourier import threads
from xctpipe.recon.geometry import Geometry, inside_circle
from xctpipe.recon.rows import continued, filtered, filtering_bytes
from xctpipe.scan import DoubleArray, FloatArray

FILTERS = WINDOWS
OLDEST = (2, 3)
"""Older versions are wrong on large devices."""
TYPES = {"fbp": "BP", "sirt": "SIRT", "cgls": "CGLS"}
ITERATIONS = {"fbp": 1, "sirt": 200, "cgls": 20}
PROJECTORS = {"BP": "strip", "SIRT": "linear", "CGLS": "linear"}
"""Of `strip` the weights are areas that add up to one at every angle; `linear` is four times as fast."""


def available() -> str | None:
    """None where a version of ASTRA that is new enough can be imported."""
    try:
        importlib.import_module("astra")
        version = importlib.metadata.version("astra-toolbox")
    except (ImportError, OSError) as err:
        return f"the ASTRA toolbox cannot be imported ({err}); pip install 'xctpipe[astra]' (it is GPL-3)"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        return f"astra-toolbox {version} is too old; pip install 'astra-toolbox>=2.3'"
    return None


def objection(filter_name: str, options: Mapping[str, Any]) -> str | None:
    """What does not go together in the settings."""
    algorithm = options["algorithm"]
    if algorithm == "fbp" and options["iterations"] is not None:
        return "iterations is for algorithm 'sirt' or 'cgls'; leave it out with 'fbp'"
    if algorithm != "fbp" and filter_name != "ramp":
        return f"algorithm {algorithm!r} has no filter; leave filter out, or take algorithm 'fbp'"
    if options["device"] == "cuda" and not has_cuda():
        return "device = 'cuda': ASTRA finds no CUDA device here; take 'cpu', or 'auto'"
    return None


def reconstruct(
    sinograms: FloatArray,
    *,
    geometry: Geometry,
    filter_name: str,
    padding: str,
    algorithm: Literal["fbp", "sirt", "cgls"] = "fbp",
    iterations: Annotated[int, Ge(1), Le(100_000)] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> FloatArray:
    """Slices (row, y, x) in cm^-1 of sinograms (angle, row, col) [1]_.

    `fbp` back-projects rows that are filtered as in the other backends. `sirt` and `cgls` look for the slice
    whose projections fit the rows and their continuation; they need more iterations the wider the slice is,
    and follow the noise when they are given many. Without `iterations`, `sirt` does 200 and `cgls` 20.

    Their slice is as wide as the rows with their continuation. Where the sample lies within the view, padding
    `none`, which leaves open what is beyond the detector, is several times faster.

    References
    ----------
    .. [1] van Aarle et al., Opt. Express 24, 25129 (2016), doi:10.1364/OE.24.025129
    """
    n_rows, n_cols = sinograms.shape[1:]
    engine = "_CUDA" if device != "cpu" and has_cuda() else ""
    count = iterations or ITERATIONS[algorithm]
    volume = np.zeros((n_rows, n_cols, n_cols), np.float32)
    circle = inside_circle(n_cols)

    def one_row(row: int) -> None:
        lines, center = sinograms[:, row], float(geometry.centers_px[row])
        if algorithm == "fbp":
            lines, first = filtered(lines, center_px=center, filter_name=filter_name, padding=padding)
            lines *= geometry.weights_rad[:, None].astype(np.float32)
            side = n_cols
        else:
            lines = continued(lines, padding=padding)
            first = (n_cols - lines.shape[1]) // 2
            side = lines.shape[1] + 2 * math.ceil(abs(center - (n_cols - 1) / 2))
        vectors = ray_vectors(geometry.angles_rad, middle_px=first + (lines.shape[1] - 1) / 2 - center)
        found = solve(TYPES[algorithm] + engine, lines, vectors=vectors, side=side, iterations=count)
        inner = slice((side - n_cols) // 2, (side + n_cols) // 2)
        volume[row, circle] = found[inner, inner][circle] / geometry.pixel_cm

    if engine:
        for row in range(n_rows):
            one_row(row)
    else:
        with threads() as run:
            run(one_row, range(n_rows))
    return volume


def working_bytes(
    *, n_angles: int, n_rows: int, n_cols: int, n_threads: int, algorithm: str = "fbp", **_: Any
) -> int:
    """Bytes that `reconstruct` needs beyond its argument, its result included, without those of a device."""
    side = n_cols + 4 if algorithm == "fbp" else round((1.5 + 2 * TAPER_FRAC) * n_cols)
    # rows and slice, of which the iterative ones keep three and two more; their axis may be off the middle
    lines, slices = (1, 1) if algorithm == "fbp" else (4, 3)
    each = 4 * lines * n_angles * side + 4 * slices * side**2 + 96 * n_angles + 4 * n_cols**2
    each += filtering_bytes(n_cols)
    return 4 * n_rows * n_cols**2 + min(n_rows, n_threads) * each + n_cols**2 + 2**18


def has_cuda() -> bool:
    """Whether ASTRA finds a CUDA device."""
    return bool(importlib.import_module("astra").use_cuda())


def ray_vectors(angles_rad: DoubleArray, *, middle_px: float) -> DoubleArray:
    """Rays in ASTRA's terms, (angle, 6): direction, middle of the row, from one column to the next.

    ASTRA's y points up. `middle_px` is how far the middle of the row lies from the axis, in columns.
    """
    cos, sin = np.cos(angles_rad), np.sin(angles_rad)
    return np.stack([sin, -cos, middle_px * cos, middle_px * sin, cos, sin], axis=1)


def solve(kind: str, lines: FloatArray, *, vectors: DoubleArray, side: int, iterations: int) -> FloatArray:
    """Slice (y, x) of `side` x `side` pixels about the axis, by an algorithm of ASTRA, from rows."""
    astra = importlib.import_module("astra")
    lines = np.ascontiguousarray(lines)
    found = np.zeros((side, side), np.float32)
    rays = astra.create_proj_geom("parallel_vec", lines.shape[1], vectors)
    pixels = astra.create_vol_geom(side, side)
    with ExitStack() as stack:

        def keep(module: Any, identity: int) -> int:
            stack.callback(module.delete, identity)
            return identity

        config = astra.astra_dict(kind)
        config["ProjectionDataId"] = keep(astra.data2d, astra.data2d.link("-sino", rays, lines))
        config["ReconstructionDataId"] = keep(astra.data2d, astra.data2d.link("-vol", pixels, found))
        if not kind.endswith("_CUDA"):
            projector = astra.create_projector(PROJECTORS[kind], rays, pixels)
            config["ProjectorId"] = keep(astra.projector, projector)
        algorithm = keep(astra.algorithm, astra.algorithm.create(config))
        astra.algorithm.run(algorithm, iterations)
    return found
