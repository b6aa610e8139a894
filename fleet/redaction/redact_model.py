"""Secrets in models: one dump, and one look at those fields that can hold one (CX-60, CX-74)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError

from fleet.kernel.ids import Digest, RunKey
from fleet.redaction.redact_json import redact_field, redact_json

_Model = TypeVar("_Model", bound=BaseModel)
_CLOSED = (int, bool, NoneType, Digest, RunKey)
"""Types no value of which is a secret by any rule: numbers, and hexadecimal digits of a fixed length (CX-72)."""
OpenFields = Mapping[str, "OpenFields | None"]
"""The fields that are looked at, by the name under which they are dumped; None stands for all that is in one."""


def redact_model(model: _Model) -> tuple[_Model, dict[str, Any]]:
    """Replace every secret in the texts of a model; gives the model and its JSON values.

    Where there is none it is the very same model. A text that a placeholder makes longer than its field allows loses
    its end.
    """
    data, fields = _dump(model), open_fields(type(model))
    plain = redact_json(data) if fields is None else _look_into(data, fields)
    if plain == data:
        return model, data
    try:
        clean = type(model).model_validate(plain)
    except ValidationError:
        clean = type(model).model_validate(_no_longer(plain, data))
    return clean, _dump(clean)


@cache
def open_fields(model: type[BaseModel]) -> OpenFields | None:
    """The fields of a model that may hold a secret: all but those that are closed by their type (CX-61).

    None for a model that takes fields which it does not name: all of it is looked at.
    """
    if model.model_config.get("extra") == "allow" or model.model_computed_fields:
        return None
    fields = dict[str, OpenFields | None]()
    for name, field in model.model_fields.items():
        parts = _open_parts(field.annotation)
        if parts is None or parts:
            fields[field.serialization_alias or field.alias or name] = parts
    return fields


def _open_parts(annotation: Any) -> OpenFields | None:
    """What may be a secret in a value of this type: nothing (no fields), what is in these fields, or all of it (None).

    Whatever is not known to be closed is open.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _CLOSED or origin is Literal:
        return {}
    if origin is Annotated:
        return _open_parts(arguments[0])
    if origin in (Union, UnionType):
        kinds = [parts for each in arguments if (parts := _open_parts(each)) is None or parts]
        return {} if not kinds else kinds[0] if len(kinds) == 1 else None
    if origin is tuple and arguments[-1] is Ellipsis:
        return _open_parts(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return open_fields(annotation)
    return None


def _dump(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _look_into(value: Any, fields: OpenFields) -> Any:
    match value:
        case dict():
            return {name: _look_at(name, item, fields) for name, item in cast("dict[str, Any]", value).items()}
        case list():
            return [_look_into(item, fields) for item in cast("list[Any]", value)]
        case _:
            return value


def _look_at(name: str, value: Any, fields: OpenFields) -> Any:
    if name not in fields:
        return value
    inside = fields[name]
    return redact_field(name, value) if inside is None else _look_into(value, inside)


def _no_longer(plain: Any, data: Any) -> Any:
    match plain, data:
        case str(), str():
            return plain[: len(data)]
        case dict(), dict():
            fields = zip(cast("dict[str, Any]", plain).items(), cast("dict[str, Any]", data).values(), strict=True)
            return {name: _no_longer(new, old) for (name, new), old in fields}
        case list(), list():
            return [
                _no_longer(new, old) for new, old in zip(cast("list[Any]", plain), cast("list[Any]", data), strict=True)
            ]
        case _:
            return plain
