"""The recipe: a strict, frozen model of one TOML file; every default is here and nowhere else."""

import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from annotated_types import Ge, Gt, Le, Len
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from xctpipe import recon, steps
from xctpipe.correct.chain import default_chain
from xctpipe.errors import BadRecipe, nearest
from xctpipe.recon.filtering import PADDINGS
from xctpipe.scan import Span

Positive = Annotated[float, Gt(0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _increasing(name: str, span: Span | None) -> Span | None:
    if span is not None and not 0 <= span[0] < span[1]:
        raise ValueError(f"{name} must be [first, one past the last] with 0 <= first < last")
    return span


class Raw(_Section):
    """Where the raw frames are, and what no file says of them."""

    folder: Path
    """A folder of scans, one scan's folder, or one file."""
    energy_kev: Annotated[float, Ge(1), Le(1000)]
    """Photon energy."""
    pixel_um: Annotated[float, Ge(1e-3), Le(1e4)]
    """Size of a detector pixel in the sample."""
    scans: Annotated[tuple[str, ...], Len(1)] | None = None
    """Names or globs, one per time step; absent: all that hold projections."""
    dark_flat: Annotated[tuple[str, ...], Len(1)] | None = None
    """Scans that hold darks and flats; absent: found beside or inside the data, nearest in time."""
    distance_mm: Positive | None = None
    """From the sample to the detector; steps that need it say so."""
    exposure_s: Positive | None = None
    """Exposure of a frame."""
    start_times: tuple[datetime, ...] | None = None
    """Start of each scan, with time zone; absent: from the files."""
    rows: Span | None = None
    """Detector rows to use: first, one past the last."""
    columns: Span | None = None
    """Detector columns to use: first, one past the last."""
    angle_unit: Literal["deg", "rad"] | None = None
    """Unit of angles that carry none; absent: judged by their range."""
    log_absorption: bool = False
    """The data are line integrals already: no flat field, no logarithm."""
    follow_links_outside: bool = False
    """Follow HDF5 links that leave the folder of the file."""

    @field_validator("rows", "columns")
    @classmethod
    def _spans_increase(cls, span: Span | None) -> Span | None:
        return _increasing("a crop", span)

    @field_validator("start_times")
    @classmethod
    def _times_are_aware(cls, times: tuple[datetime, ...] | None) -> tuple[datetime, ...] | None:
        if any(t.tzinfo is None for t in times or ()):
            raise ValueError("each start time needs its time zone, as in 2025-03-01T10:00:00-05:00")
        return times


class Center(_Section):
    """The rotation axis; an empty table finds it."""

    center_px: float | None = None
    """Column of the axis in the uncropped detector, at its middle row."""
    search_px: tuple[float, float] | None = None
    """Columns between which to search; absent: a quarter of the width on both sides of the middle."""

    @model_validator(mode="after")
    def _search_is_a_range(self) -> "Center":
        if self.search_px and not self.search_px[0] < self.search_px[1]:
            raise ValueError("search_px must be [lowest, highest]")
        return self


class Reconstruct(_Section):
    """Filtered back-projection."""

    backend: str = "fourier"
    """A registered backend."""
    filter: str = "ramp"
    """Window on the ramp filter."""
    padding: str = "taper"
    """How rows are continued beyond the detector."""


class Volume(_Section):
    """How the volume is stored."""

    dtype: Literal["float32", "uint16", "uint8"] = "float32"
    """Integers are stored with a scale and an offset in the metadata."""
    range_cm1: tuple[float, float] | None = None
    """Values of the lowest and highest integer; absent: from slices reconstructed beforehand."""
    keep_bits: Literal["auto"] | Annotated[int, Ge(1), Le(23)] = "auto"
    """Mantissa bits kept of float32; auto: the rounding stays below a tenth of the voxel noise."""

    @field_validator("range_cm1")
    @classmethod
    def _range_increases(cls, span: tuple[float, float] | None) -> tuple[float, float] | None:
        if span and not span[0] < span[1]:
            raise ValueError("range_cm1 must be [lowest, highest]")
        return span


class Compute(_Section):
    """What a run may use of the machine."""

    memory_gb: Positive | None = None
    """Memory of a worker; absent: 70 % of what this process may use."""


class Recipe(_Section):
    """One recipe: a name, raw data, and what to do with it."""

    name: str
    run_folder: Path
    raw: Raw
    correct: tuple[dict[str, Any], ...] | None = None
    """Steps in order, each with `do` and its parameters; absent: the default chain; []: none."""
    center: Center = Center()
    reconstruct: Reconstruct = Reconstruct()
    volume: Volume = Volume()
    compute: Compute = Compute()

    def chain(self) -> tuple[steps.BoundStep, ...]:
        """The correction steps with checked parameters."""
        if self.correct is None:
            return tuple(steps.bind(name, **params) for name, params in default_chain())
        return tuple(_bind(entry) for entry in self.correct)


def _bind(entry: Mapping[str, Any]) -> steps.BoundStep:
    params = dict(entry)
    name = params.pop("do", None)
    if not isinstance(name, str):
        raise BadRecipe(f"correct: an entry needs do = NAME; {nearest('', steps.registered())}")
    return steps.bind(name, **params)


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe; relative paths become relative to it. BadRecipe says what is wrong."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
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
    recipe.chain()
    check_reconstruct(recipe.reconstruct)
    return recipe


def check_reconstruct(choice: Reconstruct) -> None:
    """BadRecipe when the backend cannot be used here or does not know the filter or the padding."""
    backend = recon.usable(choice.backend)
    recon.check_name("filter", choice.filter, known=backend.FILTERS)
    recon.check_name("padding", choice.padding, known=PADDINGS)


def _resolve(recipe: Recipe, *, base: Path) -> Recipe:
    folder = (base / recipe.raw.folder.expanduser()).resolve()
    run_folder = (base / recipe.run_folder.expanduser()).resolve()
    if run_folder == folder:
        raise BadRecipe(f"run_folder = {str(run_folder)!r} is the raw folder; choose another")
    raw = recipe.raw.model_copy(update={"folder": folder})
    return recipe.model_copy(update={"raw": raw, "run_folder": run_folder})


_HINTS = {
    "raw.energy_kev": "the photon energy in keV, e.g. energy_kev = 80.0",
    "raw.pixel_um": "the pixel size in micrometer, e.g. pixel_um = 1.3",
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
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def to_toml(recipe: Recipe) -> str:
    """The resolved recipe as TOML, which reads back to the same recipe."""
    table = recipe.model_dump(mode="json", exclude_none=True)
    table["correct"] = [{"do": step.name, **step.params} for step in recipe.chain()]
    return tomli_w.dumps(table)


def what_matters(recipe: Recipe) -> dict[str, Any]:
    """Every setting that the volume depends on, as plain values: two recipes that agree give one volume."""
    table = recipe.model_dump(mode="json", exclude={"name", "run_folder", "compute"})
    table["correct"] = [{"do": step.name, **step.params} for step in recipe.chain()]
    return table


def with_parameter(recipe: Recipe, key: str, value: float) -> Recipe:
    """The recipe with one numeric setting changed: `center.center_px`, `correct.<step>.<parameter>`, ..."""
    table = recipe.model_dump(exclude_none=True)
    if key.startswith("correct."):
        table["correct"] = _with_step_parameter(recipe, key.removeprefix("correct."), value)
    elif key == "center.center_px":
        table["center"] = {**table["center"], "center_px": value}
    else:
        raise BadRecipe(f"no parameter {key!r} to sweep; {nearest(key, sweepable(recipe))}")
    return make_recipe(table, base=Path(), origin=f"{key} = {value:g}")


def sweepable(recipe: Recipe) -> list[str]:
    """Keys of the numeric settings that change a slice."""
    keys = ["center.center_px"]
    for step in recipe.chain():
        keys += [f"correct.{step.name}.{name}" for name in step.params]
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
