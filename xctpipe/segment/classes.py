"""What the objects of a scan are: by what they lie in and what they touch, then by shape, then by grey value.

A void in NaK that reaches the interface is an interfacial void, else a bubble. A void in NASICON that is long
for its thickness is a crack, else a pore; one that touches a face of the NASICON need be less long. A piece
of NASICON that voids cut off is a chip. Whether a crack holds metal is told by measuring it, not here: NaK
and sodium are not told apart at all, and both differ from a void by a tenth of what NASICON does.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from xctpipe.segment.candidates import BRIGHT, LIQUID_VOID, SOLID_VOID
from xctpipe.segment.codes import PHASES
from xctpipe.segment.features import Features

SLENDER, SLENDER_AT_FACE = 6.0, 3.5
"""Length over thickness from which a void in NASICON is a crack: inside, and where it reaches a face."""
LONG_PX, WIDE_PX = 10.0, 25.0
"""Length from which a void may be a crack: of a flat one, and of one that need not be flat as a whole."""
FLAT_FRAC = 0.4
"""A void is flat where it is at most this share as thick as wide, by its second moments."""
FACE_PX = 2.5
"""What is nearer than this to a face touches it: about the blur of the face."""
SHAPED_VOXELS = 30
"""What has fewer voxels has no shape [1]_; in NaK, where the contrast is weak, it is left out."""
FEWEST_AT_INTERFACE = 15
FEWEST_IN_NAK = 60
"""A void in NaK of fewer voxels, away from the interface, is no more than noise may be."""
ROUND_FRAC = 0.45
"""A bubble is at least this share as thick as long; what is thinner in NaK may be a piece of a ring."""
ARC_ROWS = 6.0
"""Rings in NaK are of few rows: a bubble cut by the end of the view may be thin, but is higher."""
AXIS_PX, AXIS_VOXELS = 15.0, 250
"""Things of fewer voxels this near to the axis of rotation may be rings."""
RING_COSINE, RING_VOXELS = 0.9, 300
"""A small sheet that faces the axis of rotation may be a piece of a ring."""
BENT_PX = 0.3
"""A larger one is a piece of a ring if it is thinner along the radius than along any straight line: it is
bent as a circle about the axis is. A plane as wide must be told from that by this spread at least."""
_PLANE = float(np.sqrt(1 / 5 - 1 / 9))
"""Standard deviation of u^2 for u even from -1 to 1: across a plane of half width a that faces the axis at r,
the distance from the axis spreads by this times a^2 / 2 r."""
STREAK_FRAC = 0.4
"""A small void in NaK this much narrower along the radius than across it is a piece of a ring: pieces in
simulated scans had 0.18 to 0.30, true voids 0.45 or more."""


def kept(
    features: Features, codes: NDArray[np.int64], *, blind_px: float, axis_px: tuple[float, float]
) -> NDArray[np.bool_]:
    """Which components are large enough to be told from noise, and no pieces of rings: (n,).

    Parameters as for `kinds_of`.
    """
    voxels, near = features.column("voxels"), _at_interface(features, blind_px)
    fewest = np.where(near, FEWEST_AT_INTERFACE, FEWEST_IN_NAK)
    large = (codes != LIQUID_VOID) | (voxels >= fewest)
    return np.asarray(large & ~_of_rings(features, codes, axis_px, near=near))


def kinds_of(features: Features, codes: NDArray[np.int64], *, blind_px: float) -> NDArray[np.uint8]:
    """Phase of each object: (n,), numbers of `codes.PHASES`.

    Parameters
    ----------
    codes : of the candidates that they are components of, (n,).
    blind_px : distance from the interface within which voids in NaK are not seen.

    References
    ----------
    .. [1] Lin et al., Comput. Geosci. 76, 124 (2015), doi:10.1016/j.cageo.2014.12.008: below about 8 voxels
       errors of a volume exceed it.
    """
    kinds = np.full(len(features), PHASES["unresolved"], np.uint8)
    liquid, solid = codes == LIQUID_VOID, codes == SOLID_VOID
    near = _at_interface(features, blind_px)
    kinds[liquid & near], kinds[liquid & ~near] = PHASES["interfacial_void"], PHASES["bubble"]
    cracks = _cracks(features)
    kinds[solid & cracks], kinds[solid & ~cracks] = PHASES["crack"], PHASES["pore"]
    kinds[codes == BRIGHT] = PHASES["inclusion"]
    return kinds


def _at_interface(features: Features, blind_px: float) -> NDArray[np.bool_]:
    return np.asarray(-features.deepest_px <= max(blind_px, FACE_PX))


def _cracks(features: Features) -> NDArray[np.bool_]:
    moments, length = features.moments(), features.length_px
    slender = length / np.maximum(features.thickness_px, 1e-9)
    flat = np.sqrt(np.maximum(moments[:, 0], 0)) <= FLAT_FRAC * np.sqrt(np.maximum(moments[:, 1], 1e-9))
    shaped = features.column("voxels") >= SHAPED_VOXELS
    at_face = (features.shallowest_px <= FACE_PX) | (features.counter_px <= FACE_PX)
    inside = (slender >= SLENDER) & ((flat & (length >= LONG_PX)) | (length >= WIDE_PX))
    return np.asarray(shaped & (inside | (at_face & flat & (slender >= SLENDER_AT_FACE))))


def _of_rings(
    features: Features,
    codes: NDArray[np.int64],
    axis_px: tuple[float, float],
    *,
    near: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Things that rings leave: small ones at the axis, sheets that face it, arcs and walls in NaK."""
    away = features.centres_px()[:, 1:] - np.array(axis_px)
    distance = np.hypot(away[:, 0], away[:, 1])
    at_axis = (distance < AXIS_PX) & (features.column("voxels") < AXIS_VOXELS)
    normal = features.normals()[:, 1:]
    cosine = np.abs((normal * away).sum(axis=1)) / np.maximum(distance, 1e-9)
    spreads = _spreads(features, away)
    in_nak = (codes == LIQUID_VOID) & _pieces_in_nak(features, cosine, spreads, near=near)
    return np.asarray(at_axis | _sheets_about(features, cosine, spreads) | in_nak)


_Spreads = tuple[NDArray[np.float64], NDArray[np.float64]]


def _sheets_about(features: Features, cosine: NDArray[np.float64], spreads: _Spreads) -> NDArray[np.bool_]:
    """Sheets that face the axis and are small, or bent about it."""
    along, across = spreads
    # of what is bent so, hypot(t, p) and t change places, t its thickness and p that of `_PLANE`
    thinnest = np.sqrt(np.maximum(features.moments()[:, 0], 0))
    plane = _PLANE * 3 * across**2 / (2 * np.maximum(features.away_px, 1e-9))
    bent = (along < thinnest) & (plane > BENT_PX)
    small = features.column("voxels") < RING_VOXELS
    return np.asarray((cosine > RING_COSINE) & (small | bent) & _cracks(features))


def _pieces_in_nak(
    features: Features, cosine: NDArray[np.float64], spreads: _Spreads, *, near: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Arcs, walls and streaks."""
    thin, middle, long = np.sqrt(np.maximum(features.moments(), 1e-9)).T
    arcs = ~near & (features.height_px < ARC_ROWS) & (thin < ROUND_FRAC * long)
    # a bubble that the end of the view cuts off may be left as a sheet that faces the axis
    whole = features.column("rim") == 0
    walls = whole & (cosine > RING_COSINE) & (thin <= FLAT_FRAC * middle)
    small = features.column("voxels") < RING_VOXELS
    streaks = small & (spreads[0] < STREAK_FRAC * spreads[1])
    return np.asarray(arcs | walls | streaks)


def _spreads(features: Features, away: NDArray[np.float64]) -> _Spreads:
    """Standard deviation of the distance from the axis of rotation, and of places across it: (n,) each.

    Parameters
    ----------
    away : (n, 2) of the middles of things from the axis, y and x.
    """
    across = np.stack([-away[:, 1], away[:, 0]], axis=1)
    across /= np.maximum(np.hypot(away[:, 0], away[:, 1]), 1e-9)[:, None]
    second = features.sideways()
    along2 = np.trace(second, axis1=1, axis2=2) + (away**2).sum(axis=1) - features.away_px**2
    across2 = np.einsum("ni,nij,nj->n", across, second, across)
    return np.sqrt(np.maximum(along2, 0)), np.sqrt(np.maximum(across2, 0))


def touching(features: Features) -> Mapping[str, NDArray[np.bool_]]:
    """What each object touches."""
    return {
        "interface": (features.shallowest_px <= FACE_PX) & (features.deepest_px >= -FACE_PX),
        "counter": features.counter_px <= FACE_PX,
        "rim": (features.column("rim") > 0) | (features.column("ends") > 0),
    }
