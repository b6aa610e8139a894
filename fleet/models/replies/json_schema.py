"""A small, strict JSON Schema check: the subset that our reply schemas use. Every finding is listed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fleet.kernel.errors import InvalidInput

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}
_KEYWORDS = frozenset(
    {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "enum",
        "const",
        "items",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "title",
        "description",
    }
)
_MAX_PROBLEMS = 20


def schema_problems(value: Any, schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Everything that is wrong with `value`, each with its path, at most 20; empty when it fits the schema.

    Raises:
        InvalidInput: the schema uses a keyword or type outside the subset (floats have no type here, GL-12).
    """
    return tuple(_check(value, schema, "reply"))[:_MAX_PROBLEMS]


def _check(value: Any, schema: Mapping[str, Any], at: str) -> Iterator[str]:
    if unknown := sorted(set(schema) - _KEYWORDS):
        raise InvalidInput(
            f"schema of {at} uses keywords that nothing checks: {', '.join(unknown)}", allowed=sorted(_KEYWORDS)
        )
    if "type" in schema and not _has_type(value, schema["type"], at):
        yield f"{at} must be {_article(schema['type'])}, not {_short(value)}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at} must be one of {', '.join(_short(item) for item in schema['enum'])}, not {_short(value)}"
    if "const" in schema and value != schema["const"]:
        yield f"{at} must be {_short(schema['const'])}, not {_short(value)}"
    match value:
        case dict():
            yield from _check_object(value, schema, at)  # pyright: ignore[reportUnknownArgumentType]
        case list():
            yield from _check_array(value, schema, at)  # pyright: ignore[reportUnknownArgumentType]
        case str():
            yield from _check_text(value, schema, at)
        case int():
            yield from _check_range(value, schema, at, ("minimum", "maximum"), "")
        case _:
            return


def _has_type(value: Any, wanted: Any, at: str) -> bool:
    names: list[str] = [wanted] if isinstance(wanted, str) else list(wanted)
    if unknown := sorted(set(names) - set(_TYPES)):
        raise InvalidInput(f"schema of {at} uses unknown types: {', '.join(unknown)}", allowed=sorted(_TYPES))
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, _TYPES[name]) for name in names)


def _check_object(value: dict[str, Any], schema: Mapping[str, Any], at: str) -> Iterator[str]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at}.{name} is missing"
    for name, item in value.items():
        if name in properties:
            yield from _check(item, properties[name], f"{at}.{name}")
        elif schema.get("additionalProperties", True) is False:
            yield f"{at}.{name[:40]} is not expected; expected are {', '.join(properties)}"


def _check_array(value: list[Any], schema: Mapping[str, Any], at: str) -> Iterator[str]:
    yield from _check_range(len(value), schema, at, ("minItems", "maxItems"), " items")
    if schema.get("uniqueItems"):
        texts = [json.dumps(item, sort_keys=True) for item in value]
        if len(set(texts)) != len(texts):
            yield f"{at} must not repeat an item"
    if "items" in schema:
        for index, item in enumerate(value):
            yield from _check(item, schema["items"], f"{at}[{index}]")


def _check_text(value: str, schema: Mapping[str, Any], at: str) -> Iterator[str]:
    yield from _check_range(len(value), schema, at, ("minLength", "maxLength"), " characters")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{at} must match {schema['pattern']}, not {_short(value)}"


def _check_range(size: int, schema: Mapping[str, Any], at: str, names: tuple[str, str], unit: str) -> Iterator[str]:
    low, high = (schema.get(name) for name in names)
    if low is not None and size < low:
        yield f"{at} has {size}{unit}, the minimum is {low}" if unit else f"{at} is {size}, the minimum is {low}"
    if high is not None and size > high:
        yield f"{at} has {size}{unit}, the maximum is {high}" if unit else f"{at} is {size}, the maximum is {high}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _article(wanted: Any) -> str:
    names: list[str] = [wanted] if isinstance(wanted, str) else list(wanted)
    return " or ".join(f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names)


def describe_schema(schema: Mapping[str, Any]) -> str:
    """A one-line example form of the schema, for the prompt of a model that nothing constrains.

    >>> describe_schema({"type": "object", "properties": {"ok": {"enum": ["yes", "no"]}}})
    '{"ok": "yes" or "no"}'
    """
    if "enum" in schema:
        return " or ".join(json.dumps(item, ensure_ascii=False) for item in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    match schema.get("type"):
        case "object":
            fields = (f'"{name}": {describe_schema(item)}' for name, item in schema.get("properties", {}).items())
            return f"{{{', '.join(fields)}}}"
        case "array":
            return f"[{describe_schema(schema.get('items', {}))}, ...]"
        case "string":
            limit = schema.get("maxLength")
            return f'"text of at most {limit} characters"' if limit else '"text"'
        case "integer":
            return _describe_integer(schema)
        case "boolean":
            return "true or false"
        case _:
            return "null" if schema.get("type") == "null" else "value"


def _describe_integer(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f"whole number {schema['minimum']} to {schema['maximum']}"
    return "whole number"
