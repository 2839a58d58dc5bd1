"""The stage measure: tables of what the labels show.

Two passes over the volume and one over its interface: what objects there are, what each misses and how it is
shaped, and what lies on the interface. All is gathered in whole numbers that add up the same for any cut.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xctpipe.amounts import BALANCE_COLUMNS, PHASE_COLUMNS, balance_row, phase_rows
from xctpipe.blocks import Block, block_shape, blocks_of, run_blocks
from xctpipe.ground import Ground, first_row_of
from xctpipe.interface import COLUMNS as INTERFACE_COLUMNS
from xctpipe.interface import interface_row
from xctpipe.label_picture import save_picture
from xctpipe.label_volume import label_attributes, read_labels
from xctpipe.measure.fill import settled
from xctpipe.measure.inventory import add_up, count_codes, inventory_sums
from xctpipe.measure.percolation import CrackVoxels, Percolation, connecting, crack_voxels, percolation_of
from xctpipe.measure.regions import CRACKS, HALO_PX, Context, Inventory, Patch, Region
from xctpipe.measure.registry import Gathered, Part, gather_block, merge, table_of
from xctpipe.recipe import Recipe
from xctpipe.repeats import check_repeats
from xctpipe.runfolder import ScanFolder
from xctpipe.scene_file import read_values
from xctpipe.segment.codes import PHASES
from xctpipe.segmentation import SCENE
from xctpipe.stages import SEGMENT, ScanWork, done_record
from xctpipe.tables import update_table

log = logging.getLogger(__name__)

_BYTES_PER_VOXEL = 40
_RETRIEVED_FRAC = 0.04
"""Standard error of contrasts after phase retrieval, whose linear theory thin faces along the beam leave."""
_PERCOLATION_COLUMNS = ("percolates", "objects", "bottleneck_um", "path_um", "tortuosity")


def measure(work: ScanWork) -> dict[str, Any]:
    """Write the rows of this scan into the tables of the run, and a picture of what was found.

    Returns
    -------
    What is worth a record, as JSON can hold it; `warnings` among it are told the user.
    """
    found = (done_record(ScanFolder(work.folder), SEGMENT) or {})["result"]
    kinds = {int(each["object"]): str(each["kind"]) for each in found["objects"]}
    ground = Ground(work.mass or work.volume, int(found["level"]), read_values(work.folder / SCENE))
    passes = _Passes(work, ground)
    inventory, voxels = passes.inventory(kinds)
    context = context_of(ground, inventory, work.recipe)
    part = passes.gathered(context)
    context = settled(part, context)
    ways = passes.percolations(part, context)
    table = table_of(part, context)
    _write_objects(work, table, ways)
    _write_rest(work, ground, voxels, (table, ways))
    save_picture(work, ground)
    return {
        "objects": len(inventory.ids),
        "percolates": any(way.percolates for way in ways),
        "warnings": check_repeats(work) if work.recipe.measure.repeats else [],
    }


def context_of(ground: Ground, inventory: Inventory, recipe: Recipe) -> Context:
    """What measures must know of a volume, with the settings of the recipe."""
    chosen = recipe.measure
    return Context(
        ground.scene,
        inventory,
        mask_px=chosen.mask_px,
        wide_px=1.5 * chosen.mask_px,
        gap_px=1.5 * chosen.mask_px + 0.5,
        ring_px=chosen.ring_px,
        calibration_frac=_RETRIEVED_FRAC if ground.scene.tail_px else Context.calibration_frac,
        first_row=first_row_of(ground),
    )


@dataclass(frozen=True, eq=False)
class _Passes:
    work: ScanWork
    ground: Ground

    @property
    def mark(self) -> Any:
        labels = done_record(ScanFolder(self.work.folder), SEGMENT) or {}
        return [
            self.work.recipe.measure.model_dump(mode="json"),
            label_attributes(self.work.volume, "objects"),
            # labels made anew are other labels, whatever they were made with
            labels.get("token"),
        ]

    def blocks(self, halo: int) -> tuple[Block, ...]:
        edge = block_shape(
            self.ground.scene.shape,
            memory_bytes=self.work.memory_bytes,
            bytes_per_voxel=_BYTES_PER_VOXEL,
            threads=self.work.threads,
            halo=HALO_PX,
        )
        return blocks_of(self.ground.scene.shape, edge=edge, halo=halo)

    def run(self, task: Any, halo: int, *, name: str) -> list[dict[str, NDArray[Any]]]:
        return run_blocks(
            task,
            self.blocks(halo),
            name=name,
            place=self.work.place,
            done=self.work.scratch("measure") / "done",
            fingerprint=self.mark,
        )

    def inventory(self, kinds: Mapping[int, str]) -> tuple[Inventory, NDArray[np.int64]]:
        """All objects, and the number of voxels of each phase."""
        results = self.run(_Inventory(self.work.volume, self.ground.level), 0, name="inventory")
        phases = np.sum([each["phases"] for each in results], axis=0)
        return add_up(results, kinds), phases

    def gathered(self, context: Context) -> Part:
        results = self.run(_Gather(self.ground, self.work.volume, context), HALO_PX, name="measures")
        return merge(_unpacked(each) for each in results)

    def percolations(self, part: Part, context: Context) -> list[Percolation]:
        ids = connecting(Gathered(part, context.objects.ids), context)
        if not len(ids):
            return []
        task = _Ways(self.ground, self.work.volume, context, tuple(ids.tolist()))
        results = self.run(task, HALO_PX, name="ways through")
        voxels = CrackVoxels(
            np.concatenate([each["places"] for each in results]),
            np.concatenate([each["objects"] for each in results]),
            np.concatenate([each["openings_px"] for each in results]),
        )
        return percolation_of(voxels, context)


@dataclass(frozen=True)
class _Inventory:
    path: Path
    level: int

    def __call__(self, block: Block) -> dict[str, Any]:
        z, y, x = block.where
        objects = read_labels(self.path, "objects", level=self.level, z=z, y=y, x=x)
        phases = read_labels(self.path, "phases", level=self.level, z=z, y=y, x=x)
        counts = count_codes(phases, n=max(PHASES.values()) + 1)
        starts = (z.start, y.start, x.start)
        return {"phases": counts, **inventory_sums(objects, starts)}


@dataclass(frozen=True, eq=False)
class _Gather:
    ground: Ground
    labels: Path
    context: Context

    def __call__(self, block: Block) -> dict[str, Any]:
        region = _region(self, block)
        return {} if region is None else _packed(gather_block(region))


@dataclass(frozen=True, eq=False)
class _Ways:
    """Voxels of the cracks that reach from face to face."""

    ground: Ground
    labels: Path
    context: Context
    ids: tuple[int, ...]

    def __call__(self, block: Block) -> dict[str, Any]:
        region = _region(self, block)
        if region is None:
            none = np.empty(0)
            return {
                "places": np.empty((0, 3), np.int64),
                "objects": none.astype(np.int32),
                "openings_px": none,
            }
        found = crack_voxels(region)
        wanted = np.isin(found.objects, self.ids)
        return {
            "places": found.places[wanted],
            "objects": found.objects[wanted],
            "openings_px": found.openings_px[wanted],
        }


def _region(task: _Gather | _Ways, block: Block) -> Region | None:
    """A block as measures see it; None where no object is near."""
    z, y, x = block.around
    objects = read_labels(task.labels, "objects", level=task.ground.level, z=z, y=y, x=x)
    near = block.near(objects, HALO_PX)
    if near is None:
        return None
    block, part = near
    grey, usual, hosts = task.ground.compared(block.around)
    origin = (block.around[0].start, block.around[1].start, block.around[2].start)
    return Region(
        Patch(grey, usual, np.ascontiguousarray(objects[part]), hosts, origin, block.trim), task.context
    )


def _packed(part: Part) -> dict[str, NDArray[np.int64]]:
    out = {}
    for name, (ids, values) in part.values.items():
        out[f"{name}/ids"], out[f"{name}/values"] = ids, values
    return out


def _unpacked(result: Mapping[str, NDArray[Any]]) -> Part:
    names = [key.removesuffix("/ids") for key in result if key.endswith("/ids")]
    return Part({name: (result[f"{name}/ids"], result[f"{name}/values"]) for name in names})


def _write_objects(work: ScanWork, table: Mapping[str, Any], ways: Sequence[Percolation]) -> None:
    through = {way.object for way in ways if way.percolates}
    columns = [*table, "percolates"]
    update_table(
        work.tables / "objects.csv", work.name, list(_rows(table, through)), columns=columns, scans=work.scans
    )


def _rows(table: Mapping[str, Any], through: set[int]) -> Iterator[dict[str, Any]]:
    for i in range(len(table["object"])):
        row = {name: values[i] for name, values in table.items()}
        row["object"] = int(row["object"])
        if row["kind"] in CRACKS:
            row["percolates"] = row["object"] in through
        yield row


def _write_rest(
    work: ScanWork,
    ground: Ground,
    voxels: NDArray[np.int64],
    found: tuple[Mapping[str, NDArray[Any]], Sequence[Percolation]],
) -> None:
    table, ways = found
    tables = work.tables
    phases = phase_rows(ground.scene, voxels, table)
    update_table(tables / "phases.csv", work.name, phases, columns=PHASE_COLUMNS, scans=work.scans)
    balance = balance_row(ground.scene, voxels, table)
    rows = [balance] if balance else []
    update_table(tables / "balance.csv", work.name, rows, columns=BALANCE_COLUMNS, scans=work.scans)
    narrowest = max((way for way in ways if way.percolates), key=lambda way: way.bottleneck_um, default=None)
    through = " ".join(str(way.object) for way in ways if way.percolates)
    row: dict[str, Any] = {"percolates": narrowest is not None, "objects": through}
    if narrowest is not None:
        own = asdict(narrowest)
        row |= {key: own[key] for key in _PERCOLATION_COLUMNS[2:]}
    update_table(tables / "percolation.csv", work.name, [row], columns=_PERCOLATION_COLUMNS, scans=work.scans)
    contact = interface_row(work, ground)
    rows = [contact] if contact else []
    update_table(tables / "interface.csv", work.name, rows, columns=INTERFACE_COLUMNS, scans=work.scans)
