"""From a recipe and a scan to slabs that can be worked on: continue what fits the recipe, else begin anew."""

import json
import logging
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe import __version__, pyramid, recon, volume
from xctpipe import survey as surveys
from xctpipe.assess import Assessment, assess
from xctpipe.conveyor import Clock, Job, Method
from xctpipe.errors import BadRecipe
from xctpipe.inputs import fingerprint
from xctpipe.machine import usable_cpus, usable_memory_bytes
from xctpipe.plan import MAX_SLAB_ROWS, Extent, Plan, make_plan
from xctpipe.recipe import Recipe, what_matters
from xctpipe.runfolder import ScanFolder, differences, read_json, scan_folder, write_json
from xctpipe.scan import Scan
from xctpipe.steps import Facts, halo_rows
from xctpipe.storage import remove_partial
from xctpipe.survey import CenterChoice, Survey

log = logging.getLogger(__name__)

_MEMORY_FRAC = 0.7
_RANGE_MARGIN_FRAC = 0.1


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan ready for its slabs."""

    job: Job
    plan: Plan
    assessment: Assessment
    seconds: dict[str, float]
    """Spent on the survey and the assessment, once."""


def describe(prepared: Prepared) -> str:
    """Axis, noise and resolution in words."""
    axis, found = prepared.job.survey.axis, prepared.assessment
    text = f"axis {axis.center_px:.2f} px"
    if axis.confidence is not None:
        text += (
            f" (uncertain by {axis.uncertainty_px or float('nan'):.2f} px, confidence {axis.confidence:.2f})"
        )
    return f"{text}, noise {found.noise_cm1:.3g} cm^-1, resolution {found.resolution_um:.3g} um"


def memory_bytes(recipe: Recipe) -> int:
    """Memory that a worker may use."""
    if recipe.compute.memory_gb is not None:
        return int(recipe.compute.memory_gb * 1e9)
    return int(_MEMORY_FRAC * usable_memory_bytes())


def method_of(scan: Scan, recipe: Recipe) -> Method:
    """How the recipe corrects and reconstructs this scan."""
    choice = recipe.reconstruct
    return Method(
        recipe.chain(),
        choice.backend,
        choice.filter,
        choice.padding,
        recipe.raw.pixel_um,
        facts_of(scan, recipe),
    )


def facts_of(scan: Scan, recipe: Recipe) -> Facts:
    """What steps may ask about the scan before a frame is read."""
    return Facts(
        frame_shape=scan.shape[1:],
        first_pixel=first_pixel(recipe),
        pixel_um=recipe.raw.pixel_um,
        energy_kev=recipe.raw.energy_kev,
        distance_mm=recipe.raw.distance_mm,
    )


def first_pixel(recipe: Recipe) -> tuple[int, int]:
    """Detector row and column where the recipe's crop begins."""
    return (recipe.raw.rows or (0,))[0], (recipe.raw.columns or (0,))[0]


def extent_of(scan: Scan, recipe: Recipe) -> Extent:
    """Size of the work; reads no frame."""
    n_angles, n_rows, n_cols = scan.shape
    return Extent(
        n_angles=n_angles,
        n_rows=n_rows,
        n_cols=n_cols,
        raw_itemsize=scan.frames.dtype.itemsize,
        halo_rows=halo_rows(recipe.chain(), facts_of(scan, recipe)),
        align_rows=pyramid.align_rows((n_rows, n_cols, n_cols)),
        recon_bytes=_recon_bytes(recipe, n_angles=n_angles, n_cols=n_cols),
    )


def _recon_bytes(recipe: Recipe, *, n_angles: int, n_cols: int) -> int:
    """Working memory of one slab's reconstruction beyond its result."""
    backend = recon.usable(recipe.reconstruct.backend)
    rows = MAX_SLAB_ROWS
    whole = backend.working_bytes(n_angles=n_angles, n_rows=rows, n_cols=n_cols, n_threads=usable_cpus())
    return whole - 4 * rows * n_cols**2


def plan_scan(scan: Scan, recipe: Recipe, *, slab_rows: int | None = None) -> Plan:
    """Cut a scan into slabs that fit the recipe's memory; reads no frame."""
    return make_plan(extent_of(scan, recipe), memory_bytes=memory_bytes(recipe), slab_rows=slab_rows)


def survey_scan(scan: Scan, recipe: Recipe) -> Survey:
    """Survey a scan with the recipe's wishes for the axis."""
    center = CenterChoice(recipe.center.center_px, recipe.center.search_px)
    return surveys.make_survey(scan, first_pixel=first_pixel(recipe), center=center)


def settings_of(scan: Scan, recipe: Recipe) -> dict[str, Any]:
    """Everything the volume of this scan depends on."""
    table = what_matters(recipe)
    for key in ("folder", "scans", "dark_flat", "start_times", "exposure_s", "follow_links_outside"):
        table["raw"].pop(key)  # what they select is in the fingerprint
    table |= {"input": fingerprint(scan), "xctpipe": __version__}
    return json.loads(json.dumps(table))  # type: ignore[no-any-return]


def prepare(scan: Scan, recipe: Recipe, *, fresh: bool = False) -> Prepared:
    """Continue the work on a scan when nothing that matters has changed, else begin anew and say why.

    What an earlier run made is discarded only once the scan has been read and surveyed with success.
    """
    folder = scan_folder(recipe.run_folder, scan.name)
    settings = settings_of(scan, recipe)
    state = None if fresh else read_json(folder.state)
    if state is not None and not {"settings", "source", "assessment", "token", "seconds"} <= state.keys():
        state = None
    if state is not None and state["settings"] != settings:
        _check_source(scan, recipe, state)
        _say_changes(scan.name, state["settings"], settings)
        state = None
    if state is not None and folder.volume.exists():
        prepared = _continue(scan, recipe, folder, state)
        if prepared is not None:
            return prepared
    return _begin(scan, recipe, folder, settings)


def _check_source(scan: Scan, recipe: Recipe, state: dict[str, Any]) -> None:
    """Other data of the same name must not replace results without being asked to."""
    if state["source"] != str(scan.path):
        raise BadRecipe(
            f"run_folder = {recipe.run_folder}: holds {scan.name} of {state['source']}, this is {scan.path}; "
            "choose another run_folder, or replace those results with --fresh"
        )


def _say_changes(name: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    if old.get("input") != new["input"]:
        log.warning("%s: changed since the last run: the raw files, their times, or darks and flats", name)
    for line in differences({**old, "input": None}, {**new, "input": None}):
        log.warning("%s: changed since the last run: %s", name, line)
    log.warning("%s: reconstruct is done again from the start", name)


def _continue(scan: Scan, recipe: Recipe, folder: ScanFolder, state: dict[str, Any]) -> Prepared | None:
    survey = surveys.load(folder.survey)
    if survey is None:
        return None
    remove_partial(folder.volume)
    spec = volume.read_spec(folder.volume)
    plan = plan_scan(scan, recipe, slab_rows=spec.slab_rows)
    job = Job(scan, method_of(scan, recipe), spec, replace(folder, token=state["token"]))
    return Prepared(job, plan, Assessment(**state["assessment"]), state["seconds"])


def _begin(scan: Scan, recipe: Recipe, folder: ScanFolder, settings: dict[str, Any]) -> Prepared:
    plan = plan_scan(scan, recipe)
    method, clock = method_of(scan, recipe), Clock()
    log.info("%s: survey", scan.name)
    survey = clock.time("survey", survey_scan, scan, recipe)
    assessment = clock.time("assess", assess, scan, survey, method, most_rows=plan.slab_rows)
    folder.discard()
    surveys.save(survey, folder.survey)
    spec = spec_of(scan, recipe, assessment, slab_rows=plan.slab_rows)
    volume.create(folder.volume, spec, name=scan.name, attributes=_attributes(scan, recipe, survey))
    volume.set_contrast(folder.volume, assessment.low_cm1, assessment.high_cm1)
    token = uuid.uuid4().hex
    state = {"source": str(scan.path), "assessment": asdict(assessment), "seconds": clock.seconds}
    write_json(folder.state, {"settings": settings, "token": token, **state})
    return Prepared(Job(scan, method, spec, replace(folder, token=token)), plan, assessment, clock.seconds)


def spec_of(scan: Scan, recipe: Recipe, found: Assessment, *, slab_rows: int) -> volume.VolumeSpec:
    """Layout of the volume on disk; rounding and integer range come from the assessed slices."""
    choice = recipe.volume
    scale, offset, keep = 1.0, 0.0, None
    if choice.dtype == "float32":
        magnitude = max(abs(found.min_cm1), abs(found.max_cm1))
        auto = pyramid.keep_bits_for_noise(found.noise_cm1, magnitude=magnitude)
        keep = auto if choice.keep_bits == "auto" else choice.keep_bits
    else:
        margin = _RANGE_MARGIN_FRAC * (found.max_cm1 - found.min_cm1)
        low, high = choice.range_cm1 or (found.min_cm1 - margin, found.max_cm1 + margin)
        scale = (high - low) / float(np.iinfo(choice.dtype).max)
        offset = round(low / scale) * scale  # so that zero, which fills the corners, is stored exactly
    n_rows, n_cols = scan.shape[1:]
    return volume.VolumeSpec(
        shape=(n_rows, n_cols, n_cols),
        pixel_um=recipe.raw.pixel_um,
        first_row=first_pixel(recipe)[0],
        dtype=choice.dtype,
        scale=scale,
        offset=offset,
        slab_rows=slab_rows,
        keep_bits=keep,
    )


def _attributes(scan: Scan, recipe: Recipe, survey: Survey) -> dict[str, Any]:
    return {
        "version": __version__,
        "scan": scan.name,
        "source": [path.name for path in scan.files],
        "center_px": survey.axis.center_px,
        "energy_kev": recipe.raw.energy_kev,
        "recipe": what_matters(recipe),
    }


def volume_path(run_folder: Path, scan: str) -> Path:
    """Where the volume of a scan is."""
    return scan_folder(run_folder, scan).volume
