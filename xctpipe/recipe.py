"""The recipe: a strict, frozen model of one TOML file."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from xctpipe import recon, steps
from xctpipe.correct.chain import default_chain
from xctpipe.correct.order import check_order
from xctpipe.errors import BadRecipe, nearest
from xctpipe.recon.filtering import PADDINGS
from xctpipe.settings import (
    Cell,
    Center,
    Compute,
    Cycler,
    FlatFieldChoice,
    Measure,
    Phase,
    Raw,
    Reconstruct,
    Section,
    Segment,
    Volume,
)

ITERATIVE = ("sirt", "cgls")
"""Algorithms that compare projections of the slice with those measured."""


class Recipe(Section):
    """One recipe: a name, raw data, and what to do with it."""

    name: str
    run_folder: Path
    raw: Raw
    correct: tuple[dict[str, Any], ...] | None = None
    """Steps in order, each with `do` and its parameters; absent: the default chain; []: none."""
    flat_field: FlatFieldChoice = FlatFieldChoice()
    center: Center = Center()
    phase: Phase | None = None
    """Absent: no second volume."""
    reconstruct: Reconstruct = Reconstruct()
    volume: Volume = Volume()
    cell: Cell | None = None
    """Needed for `padding = "cylinder"`; else what is absent is found or left out."""
    cycler: Cycler | None = None
    """Absent: no charge, current and voltage of scans; growth is per scan and per time."""
    segment: Segment = Segment()
    measure: Measure = Measure()
    compute: Compute = Compute()

    def chain(self) -> tuple[steps.BoundStep, ...]:
        """The correction steps with checked parameters."""
        if self.correct is None:
            return tuple(steps.bind(name, **params) for name, params in default_chain())
        return tuple(_bind(entry) for entry in self.correct)

    def phase_step(self) -> steps.BoundStep | None:
        """The step that makes the volume `mass`."""
        return steps.bind("paganin", delta_beta=self.phase.delta_beta) if self.phase else None


def _bind(entry: Mapping[str, Any]) -> steps.BoundStep:
    params = dict(entry)
    name = params.pop("do", None)
    if not isinstance(name, str):
        raise BadRecipe(f"correct: an entry needs do = NAME; {nearest('', steps.registered())}")
    return steps.bind(name, **params)


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe; relative paths become relative to it. BadRecipe says what is wrong."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as err:
        raise BadRecipe(
            f"{path}: cannot read the recipe ({err.strerror}); `xctpipe init FOLDER` writes one"
        ) from err
    except UnicodeDecodeError as err:
        raise BadRecipe(f"{path}: not a text file in UTF-8 ({err.reason}); a recipe is TOML") from err
    except tomllib.TOMLDecodeError as err:
        raise BadRecipe(f"{path}: not valid TOML: {err}") from err
    return make_recipe(table, base=path.parent, origin=str(path))


def make_recipe(table: Mapping[str, Any], *, base: Path, origin: str = "recipe") -> Recipe:
    """Check a table of settings and resolve its paths against `base`."""
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as err:
        raise BadRecipe("\n".join(f"{origin}: {line}" for line in _explain(err))) from err
    recipe = _resolve(recipe, base=base)
    if recipe.reconstruct.padding == "cylinder" and not _tube_is_known(recipe.cell):
        raise BadRecipe(
            f"{origin}: reconstruct.padding = 'cylinder' completes rows from the known cell; give [cell] "
            "with bore_mm and wall_mm, or take padding = 'taper'"
        )
    if recipe.cycler is not None and (recipe.cell is None or recipe.cell.electrode_area_cm2 is None):
        raise BadRecipe(
            f"{origin}: cell.electrode_area_cm2 is missing: [cycler] counts charge per area of the "
            "electrode; give it in [cell], e.g. electrode_area_cm2 = 0.1257 for a disc of 4 mm"
        )
    _check_distance(recipe, origin=origin)
    _check_weights(recipe, origin=origin)
    if recipe.flat_field.dynamic and recipe.raw.log_absorption:
        raise BadRecipe(
            f"{origin}: flat_field.dynamic = true with raw.log_absorption = true: such data have no flats; "
            "leave out one of them"
        )
    check_order(recipe.chain(), phase=recipe.phase_step(), log_absorption=recipe.raw.log_absorption)
    return recipe.model_copy(update={"reconstruct": check_reconstruct(recipe.reconstruct)})


def _tube_is_known(cell: Cell | None) -> bool:
    return cell is not None and cell.bore_mm is not None and cell.wall_mm is not None


def _check_distance(recipe: Recipe, *, origin: str) -> None:
    """What needs the distance to the detector must find it before a frame is read."""
    wanting = needs_distance(recipe)
    if wanting and recipe.raw.distance_mm is None:
        raise BadRecipe(
            f"{origin}: raw.distance_mm is missing: {' and '.join(wanting)} needs the distance from the "
            "sample to the detector, e.g. distance_mm = 300.0"
        )


def needs_distance(recipe: Recipe) -> list[str]:
    """Names of the steps that must know the distance to the detector."""
    phase = recipe.phase_step()
    chain = (*recipe.chain(), *([phase] if phase else []))
    return [step.name for step in chain if "distance_mm" in step.asks]


def _check_weights(recipe: Recipe, *, origin: str) -> None:
    """What makes projections anew from the slice must not meet weighted ones."""
    algorithm = recipe.reconstruct.options.get("algorithm")
    if algorithm in ITERATIVE and any(step.name == "extend_360" for step in recipe.chain()):
        raise BadRecipe(
            f"{origin}: reconstruct.algorithm = {algorithm!r} after the step 'extend_360', which weights the "
            "projections: they are no longer those of any slice; take 'stitch_360'"
        )


def check_reconstruct(choice: Reconstruct) -> Reconstruct:
    """The choice with all options of its backend; BadRecipe where something is unknown or cannot be used."""
    options = recon.check_options(
        choice.backend,
        filter_name=choice.filter,
        options=choice.options,
        other_keys=tuple(Reconstruct.model_fields),
    )
    recon.check_name("padding", choice.padding, known=(*PADDINGS, "cylinder"))
    return choice.model_copy(update=options)


def _resolve(recipe: Recipe, *, base: Path) -> Recipe:
    folder = (base / recipe.raw.folder.expanduser()).resolve()
    run_folder = (base / recipe.run_folder.expanduser()).resolve()
    if run_folder == folder:
        raise BadRecipe(f"run_folder = {str(run_folder)!r} is the raw folder; choose another")
    raw = recipe.raw.model_copy(update={"folder": folder})
    classifier = recipe.segment.classifier
    if classifier is not None:
        classifier = (base / classifier.expanduser()).resolve()
    resolved = {
        "raw": raw,
        "run_folder": run_folder,
        "segment": recipe.segment.model_copy(update={"classifier": classifier}),
    }
    if recipe.cycler is not None:
        files = tuple(str((base / Path(name).expanduser()).resolve()) for name in recipe.cycler.file)
        resolved["cycler"] = recipe.cycler.model_copy(update={"file": files})
    return recipe.model_copy(update=resolved)


_HINTS = {
    "raw.energy_kev": "the photon energy in keV, e.g. energy_kev = 80.0",
    "raw.pixel_um": "the pixel size in micrometer, e.g. pixel_um = 1.3",
    "cycler.file": 'the cycler\'s file, e.g. file = "plating.mpt"',
}


def _explain(err: ValidationError) -> Iterator[str]:
    for item in err.errors():
        loc = [part for part in item["loc"] if not str(part).startswith(("literal[", "constrained-"))]
        key = ".".join(str(part) for part in loc)
        if item["type"] == "extra_forbidden":
            yield f"unknown key {key!r}; {nearest(str(loc[-1]), _fields(loc[:-1]))}"
        elif item["type"] == "missing":
            yield f"{key} is missing: {_HINTS.get(key, 'it is required')}"
        else:
            yield f"{key} = {item.get('input')!r}: {item['msg'].removeprefix('Value error, ')}"


def _fields(loc: list[int | str]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in loc:
        annotation = model.model_fields[str(part)].annotation
        # a section that may be absent
        annotation = next((each for each in get_args(annotation) if each is not type(None)), annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML, which reads back to the same recipe."""
    table = recipe.model_dump(mode="json", exclude_none=True)
    table["correct"] = [{"do": step.name, **step.params} for step in recipe.chain()]
    return tomli_w.dumps(table)


_OF_THE_TUBE = {"bore_mm", "wall_mm", "wall_formula", "wall_density_g_cm3"}
"""Keys of [cell] that reconstruction reads; labels and measures read the others."""
_NOT_OF_THE_VOLUME = {"name", "run_folder", "compute", "cycler", "segment", "measure"}


def what_matters(recipe: Recipe) -> dict[str, Any]:
    """Every setting that the volume depends on, as plain values: two recipes that agree give one volume."""
    table = recipe.model_dump(mode="json", exclude=_NOT_OF_THE_VOLUME)
    table["correct"] = [{"do": step.name, **step.params} for step in recipe.chain()]
    if recipe.cell is not None:
        known = recipe.cell.model_dump(mode="json", include=_OF_THE_TUBE)
        table["cell"] = known if _tube_is_known(recipe.cell) else None
    return table


def segment_matters(recipe: Recipe) -> dict[str, Any]:
    """Every setting that labels depend on beside the volume, as plain values."""
    cell = recipe.cell or Cell()
    return {
        "raw": {"energy_kev": recipe.raw.energy_kev},
        "cell": cell.model_dump(mode="json", exclude=_OF_THE_TUBE | {"electrode_area_cm2"}),
        "segment": recipe.segment.model_dump(mode="json"),
    }


def measure_matters(recipe: Recipe) -> dict[str, Any]:
    """Every setting that measures depend on beside the volume and its labels, as plain values."""
    cell = recipe.cell or Cell()
    return {
        "raw": {"energy_kev": recipe.raw.energy_kev},
        "cell": cell.model_dump(mode="json", exclude=_OF_THE_TUBE),
        "measure": recipe.measure.model_dump(mode="json"),
    }


def with_parameter(recipe: Recipe, key: str, value: float) -> Recipe:
    """The recipe with one numeric setting changed: `center.center_px`, `correct.<step>.<parameter>`, ..."""
    table = recipe.model_dump(exclude_none=True)
    if key.startswith("correct."):
        table["correct"] = _with_step_parameter(recipe, key.removeprefix("correct."), value)
    elif key == "center.center_px":
        table["center"] = {**table["center"], "center_px": value}
    elif key == "phase.delta_beta":
        table["phase"] = {"delta_beta": value}
    elif key in sweepable(recipe) and key.partition(".")[0] in _AFTER:
        table = _with_later(table, key, value)
    elif key in sweepable(recipe):
        table["reconstruct"][key.removeprefix("reconstruct.")] = value
    else:
        raise BadRecipe(f"no parameter {key!r} to sweep; {nearest(key, sweepable(recipe))}")
    return make_recipe(table, base=Path(), origin=f"{key} = {value:g}")


_AFTER = ("segment", "measure")
"""Tables whose numbers change labels and measures, and no slice."""


def _with_later(table: dict[str, Any], key: str, value: float) -> dict[str, Any]:
    section, name = key.split(".")
    whole = isinstance(table[section][name], int) and float(value).is_integer()
    own = {**table[section], name: int(value) if whole else value}
    if key == "segment.threshold_sigma":
        # a threshold above that of seeds is its own
        own["seed_sigma"] = max(own["seed_sigma"], value)
    return {**table, section: own}


def sweepable(recipe: Recipe) -> list[str]:
    """Keys of the numeric settings that change a slice, its labels or their measures."""
    keys = ["center.center_px", "phase.delta_beta"]
    for step in recipe.chain():
        keys += [f"correct.{step.name}.{name}" for name in step.params]
    options = recipe.reconstruct.options.items()
    keys += [f"reconstruct.{name}" for name, value in options if not isinstance(value, str | bool)]
    for section in _AFTER:
        numbers = getattr(recipe, section).model_dump().items()
        # the level says what voxels are: a box in them is another one
        keys += [f"{section}.{n}" for n, v in numbers if isinstance(v, int | float) and n != "level"]
    return keys


def _with_step_parameter(recipe: Recipe, key: str, value: float) -> list[dict[str, Any]]:
    name, _, parameter = key.partition(".")
    entries = [{"do": step.name, **step.params} for step in recipe.chain()]
    chosen = [entry for entry in entries if entry["do"] == name]
    if not chosen:
        steps.get(name)
        raise BadRecipe(
            f"correct.{name} is not in the recipe's chain; {nearest(name, [str(e['do']) for e in entries])}"
        )
    old = chosen[0].get(parameter)
    chosen[0][parameter] = int(value) if isinstance(old, int) and float(value).is_integer() else value
    return entries
