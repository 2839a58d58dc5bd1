"""Every backend: line integrals to slices."""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import scipy.fft

from xctpipe import recon
from xctpipe.bench.case import Case, Figure
from xctpipe.bench.groups import Finder
from xctpipe.bench.peers import Rows, all_lines, fbp_exact, quoted_gridrec, reconstructions, why_not
from xctpipe.bench.scene import Scene, Size, center_of, line_integrals, make_discs, true_slice
from xctpipe.bench.setting import ACCURATE_COLS, Setting
from xctpipe.scan import FloatArray

TITLE, ORDER = "backends", 3

INSIDE_FRAC = 0.95
"""Errors count within this part of the radius."""
LIKE = {"algotom": "algotom FBP", "gridrec": "tomopy gridrec", "astra": "astra FBP"}
"""Backends that are another program's, which they are compared with; others are with all."""
MEASURED_CM = 1e4
"""A pixel of a centimetre: attenuation a pixel is attenuation a centimetre."""


def cases(setting: Setting) -> Iterator[Case]:
    """Each registered backend, beside other programs."""
    peers = reconstructions(
        lambda rows: lambda: _rms_error(lambda lines, scene: rows(lines[:, 0], scene), setting)
    )
    for name, backend in recon.backends().items():
        beside = [peers[LIKE[name]]] if LIKE.get(name) in peers else list(peers.values())
        yield Case(
            name,
            _by(name),
            setting.size.cols**2,
            beside,
            () if LIKE.get(name, "tomopy gridrec") != "tomopy gridrec" else quoted_gridrec(setting),
            before=all_lines,
            error=_error_of(name, setting),
            unavailable=backend.available(),
        )


def figures(setting: Setting) -> Iterator[tuple[str, Finder]]:
    """Noise of the default backend, which says what its sharpness costs."""
    if setting.options.peers and why_not("algotom") is None:
        yield "noise at matched resolution", lambda: _noise(setting)


def _by(backend: str) -> Callable[[Scene, FloatArray], FloatArray]:
    def call(scene: Scene, lines: FloatArray) -> FloatArray:
        return recon.reconstruct(
            lines,
            angles_rad=scene.angles_rad,
            center_px=scene.center_px,
            pixel_um=MEASURED_CM,
            backend=backend,
        )

    return call


def _of_one_row(rows: Rows) -> Rows:
    return lambda lines, scene: rows(np.ascontiguousarray(lines[:, 0]), scene)


def _error_of(backend: str, setting: Setting) -> Callable[[], float]:
    call = _by(backend)
    return lambda: _rms_error(lambda lines, scene: call(scene, lines)[0], setting)


def _rms_error(reconstruct: Rows, setting: Setting) -> float:
    """Rms difference from the truth of noise-free discs, relative to the attenuation of the largest one."""
    lines, truth, inside = _exact(setting.size.narrowed(ACCURATE_COLS, rows=1))
    found = np.squeeze(np.asarray(reconstruct(lines, setting.small)))
    largest = make_discs(truth.shape[0])[0].mu
    return float(np.sqrt(np.mean((found - truth)[inside] ** 2)) / largest)


@cache
def _exact(size: Size) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Noise-free line integrals (angle, 1, col), the true slice, and where they are compared."""
    discs = make_discs(size.cols)
    lines = line_integrals(discs, size=size, center_px=center_of(size.cols))
    at = np.arange(size.cols) - (size.cols - 1) / 2
    inside = np.hypot(at, at[:, None]) < INSIDE_FRAC * size.cols / 2
    return lines[:, None], true_slice(discs, cols=size.cols), inside


def _noise(setting: Setting) -> Iterator[Figure]:
    """White noise through both, ours behind the window that linear interpolation is."""
    scene = setting.small
    shape = (scene.angles_rad.size, 4, scene.dark.shape[1])
    noise = np.random.default_rng(1).standard_normal(shape, np.float32)
    blur = np.sinc(scipy.fft.rfftfreq(shape[2])) ** 2
    blurred = scipy.fft.irfft(scipy.fft.rfft(noise) * blur, shape[2]).astype(np.float32)
    middle = slice(shape[2] // 4, 3 * shape[2] // 4)
    ours = _by("fourier")(scene, blurred)[:, middle, middle].std()
    theirs = fbp_exact(np.ascontiguousarray(noise[:, 0]), scene)[middle, middle].std()
    yield Figure(
        "noise at matched resolution, fourier / algotom FBP",
        float(ours / theirs),
        "",
        "white noise; fourier behind the window that linear interpolation is",
    )
