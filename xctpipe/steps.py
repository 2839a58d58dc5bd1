"""The one decorator of correction steps: a function's keyword-only signature is its parameter schema.

A step takes a slab of transmission `(angle, row, col)`, float32, with all angles and all columns, and
returns a new one of the same shape; it never writes into its argument. Its result for a row may depend
on neighbouring rows within its halo, and on nothing else, so that slab height never changes a result.

What a step must know of the scan it asks for by name: a keyword-only parameter without a default that is
called like a field of `Facts` is filled in and is no setting of the recipe. Rules for the halo ask likewise.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from pydantic import BaseModel

from xctpipe.errors import BadRecipe, nearest
from xctpipe.scan import DoubleArray, FloatArray
from xctpipe.schema import checked, schema_of

StepFunction = Callable[..., FloatArray]
HaloRule = Callable[..., int]
ViewRule = Callable[..., "View"]


@dataclass(frozen=True, eq=False)
class View:
    """Which projections and columns a slab has, and where the axis is in it."""

    angles_rad: DoubleArray
    """(angle,)"""
    n_cols: int
    center_px: float
    """Column of the axis in the middle row of the scan: decides what has one size for all slabs."""
    centers_px: DoubleArray
    """(row,), column of the axis in each row of the slab."""
    period_rad: float = np.pi
    """Turn after which the projections repeat: half a turn, or a full one where opposites share the view."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What steps may ask for: of the scan before a frame is read, of its survey, and of the slab in hand."""

    frame_shape: tuple[int, int]
    """Rows and columns of the frames as they are used: cropped, binned."""
    first_pixel: tuple[int, int] = (0, 0)
    """Detector row and column of the frames' first pixel, in pixels as they are used."""
    bin_px: int = 1
    """Detector pixels along the side of a pixel as it is used."""
    pixel_um: float | None = None
    energy_kev: float | None = None
    distance_mm: float | None = None
    """From the sample to the detector."""
    shifts_px: DoubleArray | None = None
    """(angle, 2), how far each frame lies from where it should, rows and columns."""
    first_row: int = 0
    """Row of the frames where the slab begins."""
    beam: FloatArray | None = None
    """(row, col) of the slab, mean flat minus dark, NaN where a pixel sees no beam."""
    view: View | None = None
    """Projections, columns and axis of the slab that the step gets."""


FACTS = tuple(field.name for field in fields(Facts))

_WHERE = {
    "pixel_um": "raw.pixel_um",
    "energy_kev": "raw.energy_kev",
    "distance_mm": "raw.distance_mm, from the sample to the detector",
    "beam": "flats, which data that are absorption already do not have",
    "shifts_px": "shifts of the frames, which the survey finds",
    "view": "angles and axis",
}


@dataclass(frozen=True)
class Step:
    """A registered correction: its function, the model of its parameters, and its halo.

    `moves` is true for steps that move the picture on the detector: they come before the axis is looked for.
    `view` is for steps that return other projections or columns: what becomes of the view of their argument.
    `scratch` is how many sinograms each thread holds beyond argument and result.
    `after_flat(raw, field, *, gain, frames, **params)` gives, in one pass and to the bit, what the step
    makes of `field.correct(raw, gain=gain, frames=frames)`; only for steps that ask for nothing.
    `exact` is false where the cut into slabs changes the result, by up to 1e-4 of a frame's largest value.
    """

    name: str
    function: StepFunction
    schema: type[BaseModel]
    halo: HaloRule
    moves: bool = False
    exact: bool = True
    view: ViewRule | None = None
    scratch: int = 0
    after_flat: StepFunction | None = None

    @property
    def asks(self) -> tuple[str, ...]:
        """Names of the facts that the function and the rule of its halo want."""
        return tuple(dict.fromkeys([*_asked(self.function), *_asked(self.halo)]))


@dataclass(frozen=True)
class BoundStep:
    """A step with checked parameters, ready to call on a slab; picklable by name."""

    name: str
    params: Mapping[str, Any]

    @property
    def asks(self) -> tuple[str, ...]:
        """Names of the facts that the step wants."""
        return get(self.name).asks

    @property
    def moves(self) -> bool:
        """Whether the step moves the picture on the detector."""
        return get(self.name).moves

    @property
    def reshapes(self) -> bool:
        """Whether the step returns other projections or columns than it gets."""
        return get(self.name).view is not None

    @property
    def after_flat(self) -> StepFunction | None:
        """Flat field and step in one pass, `(raw, field, *, gain, frames)`; None where they are two."""
        function = get(self.name).after_flat
        return None if function is None else partial(function, **self.params)

    def view(self, view: View) -> View:
        """What the view of a slab becomes."""
        rule = get(self.name).view
        return view if rule is None else rule(view, **self.params)

    def halo_rows(self, facts: Facts | None = None) -> int:
        """Rows needed on each side of a slab."""
        rule = get(self.name).halo
        return rule(**self.params, **_answers(self.name, _asked(rule), facts))

    def __call__(self, slab: FloatArray, facts: Facts | None = None) -> FloatArray:
        """Apply the step to a slab of transmission (angle, row, col)."""
        function = get(self.name).function
        return function(slab, **self.params, **_answers(self.name, _asked(function), facts))


def scratch_sinograms(chain: Sequence[BoundStep]) -> int:
    """Sinograms that each thread holds at most, beyond argument and result of a step."""
    return max((get(step.name).scratch for step in chain), default=0)


def run_chain(chain: Sequence[BoundStep], slab: FloatArray, facts: Facts) -> tuple[FloatArray, Facts]:
    """A slab through a chain, and what is known of it behind."""
    for step in chain:
        slab, facts = run_step(step, slab, facts)
    return slab, facts


def run_step(step: BoundStep, slab: FloatArray, facts: Facts) -> tuple[FloatArray, Facts]:
    """A slab through a step, and what is known of it behind."""
    out = step(slab, facts)
    if step.reshapes and facts.view is not None:
        # what is known by pixel and frame of the detector is known no more
        facts = replace(facts, view=step.view(facts.view), beam=None, shifts_px=None)
    return out, facts


def halo_rows(chain: Sequence[BoundStep], facts: Facts | None = None) -> int:
    """Rows that a chain needs on each side of a slab."""
    return sum(step.halo_rows(facts) for step in chain)


def _asked(function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.name in FACTS and p.default is p.empty)


def _answers(name: str, asked: Sequence[str], facts: Facts | None) -> dict[str, Any]:
    answers = {fact: getattr(facts, fact, None) for fact in asked}
    for fact, answer in answers.items():
        if answer is None:
            raise BadRecipe(f"correct: step {name!r} needs {_WHERE.get(fact, fact)}")
    return answers


_REGISTRY: dict[str, Step] = {}


def step(
    *,
    halo: HaloRule | int = 0,
    moves: bool = False,
    exact: bool = True,
    view: ViewRule | None = None,
    scratch: int = 0,
    after_flat: StepFunction | None = None,
) -> Callable[[StepFunction], StepFunction]:
    """Register a correction; `halo` is rows on each side, or a function of parameters and facts."""

    def register(function: StepFunction) -> StepFunction:
        name = function.__name__
        rule = halo if callable(halo) else _constant(halo)
        schema = _schema(function)
        _REGISTRY[name] = Step(name, function, schema, rule, moves, exact, view, scratch, after_flat)
        return function

    return register


def _constant(rows: int) -> HaloRule:
    return lambda **_: rows


def _schema(function: StepFunction) -> type[BaseModel]:
    return schema_of(function, leave_out=_asked(function))


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
    return BoundStep(name, checked(schema, params, where=f"correct: {name}"))
