"""Corrections before the logarithm: flat field, zingers, and every way to remove stripes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xctpipe import steps
from xctpipe.bench.case import Case, Part, Peer
from xctpipe.bench.peers import Removal, first_row, removal, why_not
from xctpipe.bench.scene import Scene
from xctpipe.bench.setting import Setting
from xctpipe.correct.fused import Specks
from xctpipe.correct.zingers import NOISE_SIGMAS
from xctpipe.scan import FloatArray

TITLE, ORDER = "corrections", 1

ZINGER_FRAC = 0.08
PREFIX = "stripes_"
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "all_hex": ("remove_all_stripe", {"snr": 2.5, "la_size": 71, "sm_size": 31}),
    "dead": ("remove_dead_stripe", {"residual": False}),
    "filtering_2d": ("remove_stripe_based_2d_filtering_sorting", {}),
}
"""Where algotom's name for a method does not follow from ours, or its defaults differ."""


def cases(setting: Setting) -> Iterator[Case]:
    """Flat field, zingers, both with the logarithm, and each registered step that removes stripes."""
    voxels = setting.size.angles * setting.size.cols
    yield Case("flat", _flat, voxels, _peers(setting, (_their_flat,)))
    yield Case(
        "zingers",
        _zingers,
        voxels,
        _peers(setting, (_their_zingers,), before=first_row),
        before=lambda scene, _: scene.transmission,
    )
    yield Case(
        "flat+zingers+log",
        _raw_to_lines,
        voxels,
        _peers(
            setting,
            (_their_flat, _their_zingers, _their_log),
            error=lambda: _log_error(_their_rows(setting.small.top(1)), setting.small.top(1).transmission),
        ),
        error=lambda: _of_raw(setting.small.top(1)),
    )
    for name in steps.registered():
        if name.startswith(PREFIX):
            yield _stripes(name, setting)


def _stripes(name: str, setting: Setting) -> Case:
    step = steps.bind(name)
    function = None if why_not("algotom") else _theirs_for(name.removeprefix(PREFIX))
    return Case(
        name,
        lambda scene, slab: step(slab, scene.facts),
        setting.size.angles * setting.size.cols,
        () if function is None else _on_first_row(function, setting),
        before=lambda scene, _: scene.transmission,
        error=lambda: _of_step(step, setting.small.top(1)),
    )


def _theirs_for(method: str) -> Removal | None:
    """Algotom's function for a method of removing stripes; None where it has none."""
    name, options = THEIRS.get(method, (None, {}))
    names = [name] if name else [f"remove_stripe_based_{method}", f"remove_{method}_stripe"]
    found = [removal(each, **options) for each in names]
    return next((function for function in found if function is not None), None)


def _on_first_row(function: Removal, setting: Setting) -> tuple[Peer, ...]:
    def error() -> float:
        one = setting.small.top(1)
        return _log_error(function(first_row(one, None))[:, None], one.clean)

    return _peers(
        setting,
        (lambda _, sinogram: function(sinogram),),
        before=first_row,
        error=error,
    )


def _peers(
    setting: Setting,
    calls: tuple[Callable[[Scene, Any], Any], ...],
    *,
    before: Callable[[Scene, Any], Any] | None = None,
    error: Callable[[], float] | None = None,
) -> tuple[Peer, ...]:
    """Algotom, each of whose corrections uses one core."""
    if why_not("algotom"):
        return ()
    parts = tuple(Part(call) for call in calls)
    return (Peer("algotom", parts, before=before or (lambda *_: None), error=error),)


def _flat(scene: Scene, _: Any) -> FloatArray:
    return scene.flat_field.correct(scene.raw)


def _zingers(scene: Scene, slab: FloatArray) -> FloatArray:
    return steps.bind("zingers", threshold_frac=ZINGER_FRAC)(slab, scene.facts)


def _raw_to_lines(scene: Scene, _: Any) -> FloatArray:
    return scene.flat_field.lines(scene.raw, specks=Specks(ZINGER_FRAC, 2, NOISE_SIGMAS))[0]


def _their_flat(scene: Scene, _: Any) -> Any:
    """Algotom's way: means of frames are what `numpy.mean` makes of integers, in double precision."""
    from algotom.prep.correction import flat_field_correction

    return flat_field_correction(scene.raw, scene.flat.astype(np.float64), scene.dark.astype(np.float64))


def _their_zingers(_: Scene, slab: Any) -> Any:
    from algotom.prep.removal import remove_zinger

    return remove_zinger(slab if slab.ndim == 2 else slab[:, 0], ZINGER_FRAC)


def _their_log(_: Scene, sinogram: Any) -> Any:
    sinogram[sinogram <= 0] = 1
    return -np.log(sinogram)


def _their_rows(scene: Scene) -> FloatArray:
    """Transmission (angle, 1, col) after algotom's corrections."""
    return np.asarray(_their_zingers(scene, _their_flat(scene, None)))[:, None]


def _of_raw(scene: Scene) -> float:
    return _log_error(np.exp(-_raw_to_lines(scene, None)), scene.transmission)


def _of_step(step: steps.BoundStep, scene: Scene) -> float:
    return _log_error(step(scene.transmission, scene.facts), scene.clean)


def _log_error(found: FloatArray, true: FloatArray) -> float:
    """Rms of the difference of log transmission, relative to the rms of log transmission."""
    ours, exact = (np.log(np.maximum(transmission, 1e-6)) for transmission in (found, true))
    return float(np.sqrt(np.mean((ours - exact) ** 2) / np.mean(exact**2)))
