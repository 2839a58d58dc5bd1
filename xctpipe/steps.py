"""The one decorator of correction steps: a function's keyword-only signature is its parameter schema.

A step takes a slab of transmission `(angle, row, col)`, float32, with all angles and all columns, and
returns a new one of the same shape; it never writes into its argument. Its result for a row may depend
on neighbouring rows within `halo_rows`, and on nothing else, so that slab height never changes a result.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from xctpipe.errors import BadRecipe, nearest
from xctpipe.scan import FloatArray

StepFunction = Callable[..., FloatArray]
HaloRule = Callable[..., int]


@dataclass(frozen=True)
class Step:
    """A registered correction: its function, the model of its parameters, and its halo."""

    name: str
    function: StepFunction
    schema: type[BaseModel]
    halo: HaloRule


@dataclass(frozen=True)
class BoundStep:
    """A step with checked parameters, ready to call on a slab; picklable by name."""

    name: str
    params: Mapping[str, Any]

    @property
    def halo_rows(self) -> int:
        """Rows needed on each side of a slab."""
        return get(self.name).halo(**self.params)

    def __call__(self, slab: FloatArray) -> FloatArray:
        """Apply the step to a slab of transmission (angle, row, col)."""
        return get(self.name).function(slab, **self.params)


_REGISTRY: dict[str, Step] = {}


def step(*, halo: HaloRule | int = 0) -> Callable[[StepFunction], StepFunction]:
    """Register a correction; `halo` is rows on each side, or a function of the step's parameters."""

    def register(function: StepFunction) -> StepFunction:
        name = function.__name__
        rule = halo if callable(halo) else _constant(halo)
        _REGISTRY[name] = Step(name, function, _schema(function), rule)
        return function

    return register


def _constant(rows: int) -> HaloRule:
    return lambda **_: rows


def _schema(function: StepFunction) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for p in inspect.signature(function, eval_str=True).parameters.values():
        if p.kind is p.KEYWORD_ONLY:
            fields[p.name] = (p.annotation, ... if p.default is p.empty else p.default)
    config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)
    return create_model(function.__name__, __config__=config, **fields)


def registered() -> dict[str, Step]:
    """Every correction by name; importing the modules of `xctpipe.correct` registers them."""
    package = importlib.import_module("xctpipe.correct")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(_REGISTRY)


def get(name: str) -> Step:
    """The step of this name; BadRecipe when there is none."""
    if name not in _REGISTRY and name not in registered():
        raise BadRecipe(f"correct: no step {name!r}; {nearest(name, _REGISTRY)}")
    return _REGISTRY[name]


def bind(name: str, **params: Any) -> BoundStep:
    """Check `params` against the step's signature and fill its defaults; BadRecipe when one is wrong."""
    schema = get(name).schema
    for key in params:
        if key not in schema.model_fields:
            raise BadRecipe(
                f"correct: step {name!r} has no parameter {key!r}; {nearest(key, schema.model_fields)}"
            )
    try:
        values = schema(**params)
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRecipe(f"correct: {name}.{where} = {first.get('input')!r}: {first['msg'].lower()}") from err
    return BoundStep(name, values.model_dump())
