"""Scans of a run as stages left them, for commands that work on volumes beside the run."""

from pathlib import Path

from xctpipe.blocks import in_this_process
from xctpipe.errors import BadRecipe, BadScan
from xctpipe.ground import Ground
from xctpipe.machine import usable_cpus
from xctpipe.prepare import memory_bytes
from xctpipe.recipe import Recipe, segment_matters
from xctpipe.record import known_scans
from xctpipe.runfolder import RUN_RECORD, read_json, scan_folder
from xctpipe.scene_file import read_values
from xctpipe.segmentation import SCENE
from xctpipe.sight import see
from xctpipe.stages import ScanWork


def work_on(recipe: Recipe, scan: str | None, *, folder: Path) -> ScanWork:
    """A scan of the recipe, absent: its first, as a stage works on it; leaves files elsewhere.

    Raises
    ------
    BadScan
        If it has no volume yet.
    """
    names = known_scans(recipe)
    name = scan or names[0]
    if name not in names:
        raise BadRecipe(f"--scan {name}: {recipe.run_folder} has {', '.join(names)}")
    own = scan_folder(recipe.run_folder, name)
    record = (read_json(recipe.run_folder / RUN_RECORD) or {}).get("scans", {}).get(name, {})
    if record.get("status") != "done" or not own.volume.exists():
        raise BadScan(f"{name}: no volume yet; make it first: `xctpipe run RECIPE --stages reconstruct`")
    mass, cpus = own.volume_of("mass"), usable_cpus()
    return ScanWork(
        name,
        folder,
        own.volume,
        mass if mass.exists() else None,
        recipe,
        in_this_process(),
        cpus,
        memory_bytes(recipe),
    )


def ground_of(work: ScanWork) -> Ground:
    """The scene that the stage found with these settings, else found now."""
    own = scan_folder(work.recipe.run_folder, work.name)
    record = read_json(own.root / "segment.json") or {}
    known, wanted = record.get("with", {}), segment_matters(work.recipe)
    token = (read_json(own.state) or {}).get("token")
    same = (
        known.get("volume") == token
        and known.get("cell") == wanted["cell"]
        and known.get("raw") == wanted["raw"]
        and known.get("segment", {}).get("level") == wanted["segment"]["level"]
    )
    source = work.mass or work.volume
    if same and (own.root / SCENE).exists():
        return Ground(source, int(record["result"]["level"]), read_values(own.root / SCENE))
    return see(source, recipe=work.recipe, memory_bytes=work.memory_bytes)
