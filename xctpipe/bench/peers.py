"""Other programs: what is installed, and their calls on the first row of a scene."""

import importlib
import importlib.metadata
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from xctpipe.bench.case import Part, Peer, Quoted
from xctpipe.bench.scene import Scene
from xctpipe.bench.setting import HEX_SIZE, Setting
from xctpipe.machine import set_threads, usable_cpus
from xctpipe.recon.algotom import one_thread
from xctpipe.scan import FloatArray

GRIDREC_S = Quoted("tomopy gridrec", 0.42, "quoted: tomopy 1.15.3 with MKL on 2 cores, padded to 4096")
"""What a row of `HEX_SIZE` took where tomopy was installed."""

Rows = Callable[[FloatArray, Scene], Any]
"""Slices of line integrals (angle, col)."""
Removal = Callable[[FloatArray], FloatArray]
"""A sinogram (angle, col) without stripes."""


@cache
def why_not(module: str) -> str | None:
    """Why a program cannot be imported; None where it can."""
    try:
        importlib.import_module(module)
    except Exception as err:
        return f"{module} cannot be imported ({err})"
    return None


def version_of(package: str) -> str | None:
    """Version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def first_row(scene: Scene, _: Any) -> FloatArray:
    """Transmission of the first row, (angle, col)."""
    return np.ascontiguousarray(scene.transmission[:, 0])


def first_lines(scene: Scene, _: Any) -> FloatArray:
    """Line integrals of the first row, (angle, col)."""
    return np.ascontiguousarray(scene.top(1).lines()[:, 0])


def all_lines(scene: Scene, _: Any) -> FloatArray:
    """Line integrals (angle, row, col)."""
    return scene.lines()


def removal(name: str, **options: Any) -> Removal | None:
    """A correction of algotom's on a sinogram; None where it has none of this name."""
    module = importlib.import_module("algotom.prep.removal")
    function = getattr(module, name, None)
    return None if function is None else lambda sinogram: function(sinogram, **options)


def fbp(lines: FloatArray, scene: Scene) -> FloatArray:
    """Slice by algotom's filtered back-projection without a window, on all threads."""
    from algotom.rec.reconstruction import fbp_reconstruction

    return np.asarray(
        fbp_reconstruction(
            lines, scene.center_px, angles=scene.angles_rad, filter_name=None, apply_log=False, gpu=False
        )
    )


def fbp_exact(lines: FloatArray, scene: Scene) -> FloatArray:
    """The same on one thread: its threads share their sums and lose some of them."""
    with one_thread():
        return fbp(lines, scene)


def dfi(lines: FloatArray, scene: Scene) -> FloatArray:
    """Slice by algotom's direct Fourier inversion without a window."""
    from algotom.rec.reconstruction import dfi_reconstruction

    return np.asarray(
        dfi_reconstruction(
            lines, scene.center_px, angles=scene.angles_rad, filter_name=None, apply_log=False, ncore=1
        )
    )


def astra_fbp(lines: FloatArray, scene: Scene) -> FloatArray:
    """Slice by ASTRA's filtered back-projection, on one core."""
    from algotom.rec.reconstruction import astra_reconstruction

    options = {"method": "FBP", "filter_name": None, "apply_log": False}
    return np.asarray(astra_reconstruction(lines, scene.center_px, angles=scene.angles_rad, **options))


def gridrec(lines: FloatArray, scene: Scene) -> FloatArray:
    """Slices by tomopy's gridrec without a window, padded by algotom's rule; (angle, [row,] col)."""
    from algotom.rec.reconstruction import gridrec_reconstruction

    options = {"filter_name": "ramlak", "apply_log": False, "ncore": usable_cpus()}
    found = gridrec_reconstruction(lines, scene.center_px, angles=scene.angles_rad, **options)
    return np.asarray(found)


def reconstructions(error: Callable[[Rows], Callable[[], float]]) -> dict[str, Peer]:
    """The reconstructions of other programs that can be used here; `error` makes what measures one's."""
    known: dict[str, tuple[str, Rows, Rows, bool, int]] = {
        # what must be there, what is timed, what is judged, whether it uses one core, rows at once
        "algotom FBP": ("algotom", fbp, fbp_exact, False, 1),
        "algotom DFI": ("algotom", dfi, dfi, True, 1),
        "tomopy gridrec": ("tomopy", gridrec, gridrec, False, 2 * usable_cpus()),
        "astra FBP": ("astra", astra_fbp, astra_fbp, True, 1),
    }
    return {
        name: Peer(
            name,
            (Part(_calling(timed), one_core=one_core),),
            rows=rows,
            before=first_lines if rows == 1 else all_lines,
            error=error(judged),
        )
        for name, (module, timed, judged, one_core, rows) in known.items()
        if why_not(module) is None
    }


def _calling(rows: Rows) -> Callable[[Scene, Any], Any]:
    def call(scene: Scene, lines: Any) -> Any:
        set_threads()
        return rows(lines, scene)

    return call


def quoted_gridrec(setting: Setting) -> tuple[Quoted, ...]:
    """The time of gridrec where it is not installed, and known for this size."""
    size = setting.size
    same = (size.angles, size.cols) == (HEX_SIZE.angles, HEX_SIZE.cols)
    return (GRIDREC_S,) if same and why_not("tomopy") and setting.options.peers else ()
