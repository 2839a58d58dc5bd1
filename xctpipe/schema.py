"""Settings from signatures: the keyword-only parameters of a function are keys that a recipe may set."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from xctpipe.errors import BadRecipe


def schema_of(function: Callable[..., Any], *, leave_out: Collection[str] = ()) -> type[BaseModel]:
    """Model of a function's keyword-only parameters, but for those that are no settings."""
    fields: dict[str, Any] = {}
    for p in inspect.signature(function, eval_str=True).parameters.values():
        if p.kind is p.KEYWORD_ONLY and p.name not in leave_out:
            fields[p.name] = (p.annotation, ... if p.default is p.empty else p.default)
    config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)
    return create_model(function.__name__, __config__=config, **fields)


def checked(schema: type[BaseModel], params: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Every setting of the schema, given or by default; BadRecipe names the first that is wrong."""
    try:
        return schema(**params).model_dump()
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BadRecipe(f"{where}.{key} = {first.get('input')!r}: {first['msg'].lower()}") from err
