"""The interface of a scan: its contact map, block by block, and its row in the table `interface`."""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.blocks import Slices
from xctpipe.ground import Ground, box_of
from xctpipe.ground import first_row_of as first_row_of
from xctpipe.measure.contact import N_LAYERS, Contact, add_to_band, chamber_columns, measure_contact, new_band
from xctpipe.measure.faces import nak_height, real_area_um2
from xctpipe.runfolder import write_bytes
from xctpipe.segment.expected import face_height
from xctpipe.segment.scene import COLLECTOR_FACE, INTERFACE, Scene
from xctpipe.stages import ScanWork

MAP = "contact.npy"
COLUMNS = (
    "contact_frac",
    "contact_low_frac",
    "contact_high_frac",
    "area_um2",
    "blocked_um2",
    "footprint_um2",
    "real_area_um2",
    "n_voids",
    "limit_radius_um",
    "limit_height_um",
    "blind_um",
    "z_um",
    "nak_height_um",
)
_TILE_PX = 512
"""Fixed: sums of a tile do not depend on how anything else is cut."""
_MARGIN_ROWS = 2


@dataclass(frozen=True, eq=False)
class _Tile:
    """Task that sums up the band above the interface of a tile of columns."""

    ground: Ground
    blind_px: float

    def __call__(self, box: tuple[tuple[int, int], tuple[int, int]]) -> NDArray[np.float32]:
        rows, cols = box
        scene = self.ground.scene
        height = face_height(scene, INTERFACE, rows=rows, cols=cols)
        band = new_band(height.shape)
        reach = self.blind_px + N_LAYERS + _MARGIN_ROWS
        low, high = float(height.min()), float(height.max())
        first, last = (
            (low - reach, high + _MARGIN_ROWS) if scene.side > 0 else (low - _MARGIN_ROWS, high + reach)
        )
        z = slice(max(math.floor(first), 0), min(math.ceil(last) + 1, scene.shape[0]))
        where: Slices = (z, slice(*rows), slice(*cols))
        if z.stop > z.start:
            looked = self.ground.look(where)
            add_to_band(
                band,
                looked.grey,
                expected=looked.expected,
                height_px=height,
                first_row=box_of(where)[0][0],
                side=scene.side,
                mu_cm1=scene.liquid.mu_cm1 if scene.liquid else 1.0,
                blind_px=self.blind_px,
            )
        return band


def contact_of(work: ScanWork, ground: Ground) -> Contact | None:
    """The contact of NaK and NASICON; None where the interface is not in view."""
    scene, blind = ground.scene, work.recipe.segment.blind_px
    if INTERFACE not in scene.surfaces or scene.liquid is None:
        return None
    shape = scene.shape[1:]
    band = new_band(shape)
    tiles = [
        ((y, min(y + _TILE_PX, shape[0])), (x, min(x + _TILE_PX, shape[1])))
        for y in range(0, shape[0], _TILE_PX)
        for x in range(0, shape[1], _TILE_PX)
    ]
    for i, part in work.place(_Tile(ground, blind), tiles):
        (y0, y1), (x0, x1) = tiles[i]
        band[:, y0:y1, x0:x1] = part
    inside = chamber_columns(shape, axis_px=scene.axis_px, view_px=scene.view_px)
    area_cm2 = work.recipe.cell.electrode_area_cm2 if work.recipe.cell else None
    return measure_contact(
        band,
        electrode_um2=None if area_cm2 is None else area_cm2 * 1e8,
        inside=inside,
        axis_px=scene.axis_px,
        voxel_um=scene.voxel_um,
        blind_px=blind,
        blur_px=scene.blur_px,
    )


def interface_row(work: ScanWork, ground: Ground) -> dict[str, Any] | None:
    """The row of this scan in the table `interface`; its contact map is written beside the labels."""
    contact = contact_of(work, ground)
    if contact is None:
        return None
    _save(work, contact)
    face, voxel = ground.scene.surfaces[INTERFACE], ground.scene.voxel_um
    real_um2, nak_um = _area_and_height(ground.scene)
    return {
        "contact_frac": contact.contact_frac,
        "contact_low_frac": contact.contact_frac_low,
        "contact_high_frac": contact.contact_frac_high,
        "area_um2": contact.area_um2,
        "blocked_um2": contact.blocked_um2,
        "footprint_um2": contact.footprint_um2,
        "real_area_um2": real_um2,
        "n_voids": contact.n_voids,
        "limit_radius_um": contact.limit_radius_um,
        "limit_height_um": contact.limit_height_um,
        "blind_um": contact.blind_um,
        "z_um": (float(face.reference[0]) + first_row_of(ground)) * voxel,
        "nak_height_um": nak_um,
    }


def _area_and_height(scene: Scene) -> tuple[float, float]:
    """Area of the interface as it is used, um^2, and mean height of the NaK, um; NaN where not in view."""
    rows, cols = ((0, n) for n in scene.shape[1:])
    heights = {
        name: face_height(scene, name, rows=rows, cols=cols)
        for name in (INTERFACE, COLLECTOR_FACE)
        if name in scene.surfaces
    }
    inside = chamber_columns(scene.shape[1:], axis_px=scene.axis_px, view_px=scene.view_px)
    face, voxel = heights[INTERFACE], scene.voxel_um
    area = real_area_um2(face, inside=inside, voxel_um=voxel)
    if COLLECTOR_FACE not in heights:
        return area, math.nan
    nak = nak_height(face, collector_px=heights[COLLECTOR_FACE], inside=inside, voxel_um=voxel)
    return area, nak.mean_um


def _save(work: ScanWork, contact: Contact) -> None:
    content = io.BytesIO()
    np.save(content, contact.classes)
    write_bytes(work.folder / MAP, content.getvalue())
