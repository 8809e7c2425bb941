"""The base of every configuration table, and the field types they are made of.

Each component owns its table (an agent's stands in the agent's file) and states bounds where the
field stands; `rlagents.config` puts the tables together and explains what is wrong with a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo


class Table(BaseModel):
    """A frozen, strictly checked table of a configuration: unknown keys are refused.

    The text "none" stands for None, which TOML has no word for, where a key takes None.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _read_none(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        fields = cls.model_fields
        return {
            key: None if _is_none(value) and key in fields and _may_be_none(fields[key]) else value
            for key, value in values.items()
        }


def _is_none(value: Any) -> bool:
    return isinstance(value, str) and value == "none"


def _may_be_none(field: FieldInfo) -> bool:
    """Tell whether a field takes None, and has no choice that is called "none"."""
    kinds = _kinds(field.annotation)
    return type(None) in kinds and "none" not in kinds


def _kinds(annotation: Any) -> list[Any]:
    """Return the types in a union, and the values of a choice in place of its type."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for member in get_args(annotation) for kind in _kinds(member)]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [annotation]


def _whole(value: Any) -> Any:
    """Let `1e6` stand for a million where a whole number is asked for."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


Int = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Int, Field(ge=1)]
Steps = Annotated[Int, Field(ge=1, le=10**12)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


def describe_type(field: FieldInfo) -> str:
    """Return what a field takes, in words: `whole number, 1 or more`."""
    described = _describe_annotation(field.annotation, list(field.metadata))
    if not _may_be_none(field):
        return described
    if " | " in described:
        return f"{described} | none"
    if described.startswith("list"):
        return f"none, or {described}"
    return f"{described}, or none"


def _describe_annotation(annotation: Any, metadata: list[Any]) -> str:
    while hasattr(annotation, "__metadata__"):
        metadata = [*annotation.__metadata__, *metadata]
        annotation = annotation.__origin__
    arguments = get_args(annotation)
    if type(None) in arguments:
        rest = [argument for argument in arguments if argument is not type(None)]
        return ", or ".join(_describe_annotation(argument, metadata) for argument in rest)
    if arguments and all(isinstance(argument, str) for argument in arguments):
        return " | ".join(arguments)
    base = {int: "whole number", float: "number", bool: "true | false", str: "text"}.get(
        annotation, ""
    )
    if not base and get_origin(annotation) is list:
        base = f"list of: {_describe_annotation(arguments[0], [])}"
    if not base:
        base = "table" if str(annotation).startswith("dict") else str(annotation)
    bounds = [
        text for item in metadata for text in _bounds(item, whole=base == "whole number") if text
    ]
    return ", ".join([base, *bounds])


def _bounds(item: Any, *, whole: bool) -> list[str]:
    if isinstance(item, FieldInfo):
        return [text for inner in item.metadata for text in _bounds(inner, whole=whole)]
    if isinstance(item, Ge):
        return [f"{_number(item.ge)} or more"]
    if isinstance(item, Gt):
        return [f"above {_number(item.gt)}"]
    if isinstance(item, Le):
        return [f"at most {_number(item.le)}"]
    if isinstance(item, Lt):
        return [f"below {_number(item.lt)}"]
    return []


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else f"{value:,}".replace(",", "_")
