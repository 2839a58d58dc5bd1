"""What a user must be told to doubt: levels hardly known, layers cut by the view, dark without a label."""

import math

import numpy as np

from xctpipe.segment.scene import COLLECTOR_FACE, COUNTER_FACE, INTERFACE, Level, Scene

LEAST_SEEN_FRAC = 0.6
"""Of the view in which a layer must show for its level to be known."""
MOST_OUT_FRAC = 0.02
"""Of the view in which a face may lie beyond the first or last slice."""
DARK_FRAC, UNLABELLED_FRAC = 0.01, 0.3
"""A layer misses much where it is more than this share of it, and than this share of all that it misses."""
_FACES = {"NaK": (COLLECTOR_FACE, INTERFACE), "NASICON": (INTERFACE, COUNTER_FACE)}
_NAMES = {
    COLLECTOR_FACE: "NaK/collector",
    INTERFACE: "NaK/NASICON",
    COUNTER_FACE: "NASICON/counter electrode",
}


def doubts(scene: Scene, *, void_px: dict[str, float]) -> list[str]:
    """Sentences about a scan whose results must be doubted; none where all is well.

    Parameters
    ----------
    void_px : voxels of labelled voids, by name of the layer, "NaK" and "NASICON".
    """
    levels = {"NaK": scene.liquid, "NASICON": scene.solid}
    known = {name: level for name, level in levels.items() if level is not None}
    told = [text for name, level in known.items() if (text := _hardly_seen(name, level))]
    told += [text for name in scene.surfaces if (text := _leaves(scene, name))]
    told += [
        text
        for name, level in known.items()
        if (text := _unlabelled(name, level, void_px.get(name, 0.0) / _volume_px(scene, name)))
    ]
    return told


def _hardly_seen(name: str, level: Level) -> str:
    if level.seen_frac >= LEAST_SEEN_FRAC:
        return ""
    return (
        f"{name} shows in {100 * level.seen_frac:.0f} % of the view only; elsewhere voids fill it from face "
        "to face, and its grey level is a guess: voids and their volumes may be wrong; compare with a scan "
        "of the same cell that holds less of them"
    )


def _leaves(scene: Scene, name: str) -> str:
    height = scene.surfaces[name].height_px
    known = height[np.isfinite(height)]
    out = float(((known < 0) | (known > scene.shape[0] - 1)).mean()) if known.size else 0.0
    if out <= MOST_OUT_FRAC:
        return ""
    return (
        f"the face {_NAMES[name]} lies beyond the first or last slice in {100 * out:.0f} % of the view: what "
        "belongs to it there is missing from contact, depths and volumes; reconstruct more rows"
    )


def _unlabelled(name: str, level: Level, labelled_frac: float) -> str:
    missing = level.dark_frac - labelled_frac
    if missing <= max(DARK_FRAC, UNLABELLED_FRAC * level.dark_frac):
        return ""
    return (
        f"{name} misses {100 * level.dark_frac:.1f} % of its attenuation in dark places, and the voids found "
        f"in it are {100 * labelled_frac:.1f} % of it: something dark has no label; look at labels.png, and "
        "try segment.seed_sigma and segment.threshold_sigma with `xctpipe try --sweep`"
    )


def _volume_px(scene: Scene, name: str) -> float:
    """Voxels of a layer in the view, by its faces on the axis; absent ones lie at the end of the volume."""
    faces = _FACES[name] if scene.side > 0 else _FACES[name][::-1]
    ends = [0.0, float(scene.shape[0])]
    for i, face in enumerate(faces):
        if face in scene.surfaces:
            ends[i] = float(np.clip(scene.surfaces[face].reference[0], 0, scene.shape[0]))
    return max(ends[1] - ends[0], 1.0) * math.pi * scene.view_px**2
