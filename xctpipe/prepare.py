"""From a recipe and a scan to slabs that can be worked on: continue what fits the recipe, else begin anew."""

import hashlib
import json
import logging
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xctpipe import __version__, pyramid, recon, staging, volume
from xctpipe import survey as surveys
from xctpipe.assess import Assessment, assess
from xctpipe.conveyor import Clock, Job, Method
from xctpipe.correct.dynamic import MOST_MODES
from xctpipe.errors import BadRecipe
from xctpipe.inputs import fingerprint
from xctpipe.layout import LAYOUT
from xctpipe.machine import usable_cpus, usable_memory_bytes
from xctpipe.materials import attenuation_cm1
from xctpipe.plan import BATCH_ROWS, Extent, Plan, make_plan
from xctpipe.recipe import Recipe, needs_distance, what_matters
from xctpipe.recon.cylinder import Tube
from xctpipe.runfolder import ScanFolder, differences, read_json, scan_folder, write_json
from xctpipe.scan import Scan, binned_px
from xctpipe.steps import Facts, View, halo_rows, scratch_sinograms
from xctpipe.storage import remove_partial
from xctpipe.survey import CenterChoice, Survey

log = logging.getLogger(__name__)

_MEMORY_FRAC = 0.7
_RANGE_MARGIN_FRAC = 0.1
IN_FINGERPRINT = ("folder", "scans", "dark_flat", "start_times", "exposure_s", "follow_links_outside")
"""Keys of [raw] that select what the fingerprint of a scan describes. Not the names of frames: of two stacks
in one file it knows no difference."""
NOT_OF_FRAMES = {"energy_kev", "pixel_um", "distance_mm", "start_times", "exposure_s"}
"""Keys of [raw] that change no frame."""
NO_ROWS = np.zeros(0, np.int64)
"""For what is the same in every row."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan ready for its slabs."""

    job: Job
    plan: Plan
    assessments: dict[str, Assessment]
    """Of each volume."""
    seconds: dict[str, float]
    """Spent on the survey and the assessment, once."""

    @property
    def assessment(self) -> Assessment:
        """Of the volume `edge`."""
        return self.assessments["edge"]


def describe(prepared: Prepared) -> str:
    """Axis, noise and resolution in words."""
    axis, found = prepared.job.survey.detector_axis, prepared.assessment
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
        "taper" if choice.padding == "cylinder" else choice.padding,
        pixel_um_of(recipe),
        facts_of(scan, recipe),
        recipe.phase_step(),
        tube_of(recipe),
        choice.options,
    )


def facts_of(scan: Scan, recipe: Recipe) -> Facts:
    """What steps may ask about the scan before a frame is read."""
    return Facts(
        frame_shape=scan.shape[1:],
        first_pixel=first_pixel(recipe),
        bin_px=recipe.raw.bin_px,
        pixel_um=pixel_um_of(recipe),
        energy_kev=recipe.raw.energy_kev,
        distance_mm=recipe.raw.distance_mm,
    )


def first_pixel(recipe: Recipe) -> tuple[int, int]:
    """Detector row and column where the recipe's crop begins, in pixels as they are used."""
    raw = recipe.raw
    return (raw.rows or (0,))[0] // raw.bin_px, (raw.columns or (0,))[0] // raw.bin_px


def pixel_um_of(recipe: Recipe) -> float:
    """Size of a pixel as it is used."""
    return recipe.raw.pixel_um * recipe.raw.bin_px


def extent_of(scan: Scan, recipe: Recipe, survey: Survey | None = None) -> Extent:
    """Size of the work; reads no frame. Without a survey, the most that it may become."""
    n_angles, n_rows, n_cols = scan.shape
    method = method_of(scan, recipe)
    view = survey.view_after(method.chain, NO_ROWS) if survey else _widest_view(scan, recipe)
    n_frames_held = 2 + MOST_MODES if recipe.flat_field.dynamic else 3
    return Extent(
        n_angles=n_angles,
        n_rows=n_rows,
        n_cols=n_cols,
        raw_itemsize=scan.frames.dtype.itemsize,
        halo_rows=halo_rows(method.chain_of("mass"), method.facts),
        align_rows=pyramid.align_rows((n_rows, view.n_cols, view.n_cols)),
        recon_bytes=_recon_bytes(recipe, n_angles=view.angles_rad.size, n_cols=view.n_cols),
        volume_cols=view.n_cols,
        n_volumes=len(method.kinds),
        scratch_bytes=4 * n_angles * n_cols * usable_cpus() * scratch_sinograms(method.chain),
        spare_slabs=(method.phase is not None) + (method.tube is not None),
        held_bytes=4 * n_rows * n_cols * n_frames_held,
    )


def _widest_view(scan: Scan, recipe: Recipe) -> View:
    """The view of a slab behind the chain: about the given axis, else one that makes the widest slices."""
    n_cols, given = scan.shape[2], center_choice(recipe).center_px
    centers = [2.0, (n_cols - 1) / 2] if given is None else [given - first_pixel(recipe)[1]]
    views = [View(scan.angles_rad, n_cols, center, np.zeros(0)) for center in centers]
    for step in recipe.chain():
        views = [step.view(view) for view in views]
    return max(views, key=lambda view: view.n_cols)


def _recon_bytes(recipe: Recipe, *, n_angles: int, n_cols: int) -> int:
    """Working memory of one batch's reconstruction beyond its result."""
    backend, options = recon.usable(recipe.reconstruct.backend), recipe.reconstruct.options
    rows = BATCH_ROWS
    sizes = {"n_angles": n_angles, "n_rows": rows, "n_cols": n_cols, "n_threads": usable_cpus()}
    whole = backend.working_bytes(**sizes, **options)
    return whole - 4 * rows * n_cols**2


def plan_scan(
    scan: Scan, recipe: Recipe, survey: Survey | None = None, *, slab_rows: int | None = None
) -> Plan:
    """Cut a scan into slabs that fit the recipe's memory; reads no frame."""
    return make_plan(extent_of(scan, recipe, survey), memory_bytes=memory_bytes(recipe), slab_rows=slab_rows)


def survey_scan(scan: Scan, recipe: Recipe) -> Survey:
    """Survey a scan with the recipe's wishes for the axis."""
    choice = center_choice(recipe)
    return surveys.make_survey(
        scan,
        center=choice,
        facts=facts_of(scan, recipe),
        chain=recipe.chain(),
        dynamic_flats=recipe.flat_field.dynamic,
        tube=tube_of(recipe),
    )


def tube_of(recipe: Recipe) -> Tube | None:
    """The cell that rows are completed from, where they are."""
    cell = recipe.cell
    if recipe.reconstruct.padding != "cylinder" or cell is None:
        return None
    if cell.bore_mm is None or cell.wall_mm is None:
        return None
    wall_cm1 = attenuation_cm1(
        cell.wall_formula, density_g_cm3=cell.wall_density_g_cm3, energy_kev=recipe.raw.energy_kev
    )
    return Tube(cell.bore_mm, cell.wall_mm, wall_cm1)


def center_choice(recipe: Recipe) -> CenterChoice:
    """What the recipe wishes of the axis, in pixels as they are used."""
    given, search = recipe.center.center_px, recipe.center.search_px
    by = recipe.raw.bin_px
    return CenterChoice(
        None if given is None else binned_px(given, bin_px=by),
        search and (binned_px(search[0], bin_px=by), binned_px(search[1], bin_px=by)),
    )


def settings_of(scan: Scan, recipe: Recipe) -> dict[str, Any]:
    """Everything the volume of this scan depends on."""
    table = what_matters(recipe)
    for key in IN_FINGERPRINT:
        table["raw"].pop(key)
    if not needs_distance(recipe):
        table["raw"].pop("distance_mm")
    if tube_of(recipe) is None:
        table.pop("cell")
    table |= {"input": fingerprint(scan), "xctpipe": __version__, "layout": LAYOUT}
    return json.loads(json.dumps(table))  # type: ignore[no-any-return]


def prepare(scan: Scan, recipe: Recipe, *, fresh: bool = False) -> Prepared:
    """Continue the work on a scan when nothing that matters has changed, else begin anew and say why.

    What an earlier run made is discarded only once the scan has been read and surveyed with success.
    """
    folder = scan_folder(recipe.run_folder, scan.name)
    settings = settings_of(scan, recipe)
    if fresh:
        discard_staged(recipe, scan.name)
    state = None if fresh else read_json(folder.state)
    if state is not None and not {"settings", "source", "assessment", "token", "seconds"} <= state.keys():
        state = None
    if state is not None and state["settings"] != settings:
        _check_source(scan, recipe, state)
        _say_changes(scan.name, state["settings"], settings)
        state = None
    kinds = method_of(scan, recipe).kinds
    if state is not None and all(folder.volume_of(kind).exists() for kind in kinds):
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


def _staged(scan: Scan, recipe: Recipe) -> Scan:
    """The scan with its frames in order of rows, where a slab could not be read alone."""
    if not staging.is_needed(scan.frames):
        return scan
    raw = recipe.raw.model_dump(mode="json", exclude=NOT_OF_FRAMES)
    mark = hashlib.sha256(json.dumps([raw, fingerprint(scan)]).encode()).hexdigest()[:8]
    path = _staging_folder(recipe) / f"{scan.name}-{mark}.raw"
    staging.discard(path.parent, name=scan.name, keep=path)
    return staging.staged(scan, path)


def _staging_folder(recipe: Recipe) -> Path:
    return recipe.run_folder / "staged"


def discard_staged(recipe: Recipe, name: str) -> None:
    """Remove what copies there are of the frames of this scan."""
    staging.discard(_staging_folder(recipe), name=name)


def _continue(scan: Scan, recipe: Recipe, folder: ScanFolder, state: dict[str, Any]) -> Prepared | None:
    survey = surveys.load(folder.survey)
    if survey is None:
        return None
    method = method_of(scan, recipe)
    specs = {}
    for kind in method.kinds:
        remove_partial(folder.volume_of(kind))
        specs[kind] = volume.read_spec(folder.volume_of(kind))
    plan = plan_scan(scan, recipe, survey, slab_rows=specs["edge"].slab_rows)
    folder = replace(folder, token=state["token"])
    if any(folder.record_of(slab) is None for slab in plan.slabs):
        scan = _staged(scan, recipe)
    job = Job(scan, method, specs, folder)
    found = {kind: Assessment(**values) for kind, values in state["assessment"].items()}
    return Prepared(job, plan, found, state["seconds"])


def _begin(scan: Scan, recipe: Recipe, folder: ScanFolder, settings: dict[str, Any]) -> Prepared:
    plan_scan(scan, recipe)  # what cannot fit is said before anything is read
    method, clock = method_of(scan, recipe), Clock()
    scan = clock.time("unpack", _staged, scan, recipe)
    log.info("%s: survey", scan.name)
    survey = clock.time("survey", survey_scan, scan, recipe)
    plan = plan_scan(scan, recipe, survey)
    found = {
        kind: clock.time("assess", assess, scan, survey, method, most_rows=plan.slab_rows, kind=kind)
        for kind in method.kinds
    }
    folder.discard()
    surveys.save(survey, folder.survey)
    width = survey.view_after(method.chain, NO_ROWS).n_cols
    specs = {}
    for kind, assessment in found.items():
        path = folder.volume_of(kind)
        specs[kind] = spec_of(scan, recipe, assessment, slab_rows=plan.slab_rows, width=width)
        volume.create(path, specs[kind], name=scan.name, attributes=_attributes(scan, recipe, survey))
        volume.set_contrast(path, assessment.low_cm1, assessment.high_cm1)
    token = uuid.uuid4().hex
    written = {kind: asdict(assessment) for kind, assessment in found.items()}
    state = {"source": str(scan.path), "assessment": written, "seconds": clock.seconds}
    write_json(folder.state, {"settings": settings, "token": token, **state})
    return Prepared(Job(scan, method, specs, replace(folder, token=token)), plan, found, clock.seconds)


def spec_of(
    scan: Scan, recipe: Recipe, found: Assessment, *, slab_rows: int, width: int
) -> volume.VolumeSpec:
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
    return volume.VolumeSpec(
        shape=(scan.shape[1], width, width),
        pixel_um=pixel_um_of(recipe),
        first_row=first_pixel(recipe)[0],
        bin_px=recipe.raw.bin_px,
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
        "center_px": survey.detector_axis.center_px,
        "energy_kev": recipe.raw.energy_kev,
        "recipe": what_matters(recipe),
    }


def volume_path(run_folder: Path, scan: str) -> Path:
    """Where the volume of a scan is."""
    return scan_folder(run_folder, scan).volume
