"""JSON Schema: what is wrong with a value, in words for a model, and a one-line example of a schema.

The check is that of the library `jsonschema` (draft 2020-12), so that the schemas of MCP servers and plug-ins hold as
they are written. The words are ours: they stand in recorded prompts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fleet.kernel.errors import InvalidInput

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError

_MAX_PROBLEMS = 20
_RANK = {"type": 0, "enum": 1, "const": 2, "required": 3}
"""The order of findings at one place; every other keyword comes after these."""
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "minimum": ("minimum", ""),
    "maximum": ("maximum", ""),
    "minLength": ("minimum", " characters"),
    "maxLength": ("maximum", " characters"),
    "minItems": ("minimum", " items"),
    "maxItems": ("maximum", " items"),
}
_Finding = tuple[tuple[int, ...], str]
"""The place of a finding, as positions from the top, and its words."""


def schema_problems(value: Any, schema: Mapping[str, Any]) -> tuple[str, ...]:
    """Everything that is wrong with `value`, each with its path, at most 20; empty when it fits the schema.

    Raises:
        InvalidInput: the schema itself is none, or refers to a schema that it does not hold. Nothing is fetched.
    """
    from referencing.exceptions import Unresolvable

    try:
        validator: Any = _validator(json.dumps(schema))
        errors: list[ValidationError] = list(validator.iter_errors(value))
    except Unresolvable as error:
        raise InvalidInput(f"the schema of the reply refers to {error.ref[:200]!r}, which it does not hold") from error
    return tuple(words for _, words in sorted(_findings(value, errors), key=lambda finding: finding[0]))[:_MAX_PROBLEMS]


@lru_cache(maxsize=128)
def _validator(schema: str) -> Draft202012Validator:
    """The validator of a schema. Whether that is one takes 60 times as long as a check, and is looked at once."""
    # Costs 0.1 s, and most commands check no reply.
    from jsonschema import Draft202012Validator, SchemaError
    from referencing import Registry

    parsed = json.loads(schema)
    try:
        Draft202012Validator.check_schema(parsed)
    except SchemaError as error:
        raise InvalidInput(f"the schema of the reply is wrong at {error.json_path}: {error.message[:200]}") from error
    return Draft202012Validator(parsed, registry=Registry())


def _findings(value: Any, errors: Sequence[ValidationError]) -> Iterator[_Finding]:
    # What has the wrong type is wrong in every other way as well: the type says it all.
    mistyped = {tuple(error.absolute_path) for error in errors if error.validator == "type"}
    required = set[tuple[Any, ...]]()
    for error in errors:
        place = tuple(error.absolute_path)
        at, position = _at(place), _position(value, place)
        expected: Any = error.validator_value
        instance: Any = error.instance
        match str(error.validator):
            case keyword if place in mistyped and keyword != "type":
                continue
            case "required" if place in required:
                continue  # the library has one error for each missing name, and does not say which
            case "required":
                required.add(place)
                for name in (name for name in expected if name not in instance):
                    yield (*position, 0, _RANK["required"]), f"{at}.{name} is missing"
            case "additionalProperties" if expected is False:
                schema: Any = error.schema
                properties = schema.get("properties", {})
                for index, name in enumerate(instance):
                    if name not in properties:
                        told = f"{at}.{name[:40]} is not expected; expected are {', '.join(properties)}"
                        yield (*position, index + 1), told
            case keyword:
                yield (*position, 0, _RANK.get(keyword, len(_RANK))), _words(error, at)


def _words(error: ValidationError, at: str) -> str:
    expected: Any = error.validator_value
    value: Any = error.instance
    match str(error.validator):
        case "type":
            return f"{at} must be {_article(expected)}, not {_short(value)}"
        case "enum":
            return f"{at} must be one of {', '.join(_short(item) for item in expected)}, not {_short(value)}"
        case "const":
            return f"{at} must be {_short(expected)}, not {_short(value)}"
        case "uniqueItems":
            return f"{at} must not repeat an item"
        case "pattern":
            return f"{at} must match {expected}, not {_short(value)}"
        case keyword if keyword in _BOUNDS:
            bound, unit = _BOUNDS[keyword]
            return f"{at} {f'has {len(value)}{unit}' if unit else f'is {value}'}, the {bound} is {expected}"
        case "anyOf" | "oneOf" if error.context:
            return f"{at} fits no form: {' or '.join(dict.fromkeys(_forms(error)))}"
        case _:
            return f"{at} is wrong: {error.message[:200]}"


def _forms(error: ValidationError) -> Iterator[str]:
    """What each of the forms wants, by its first finding."""
    forms: dict[Any, ValidationError] = {}
    for inner in error.context or ():
        forms.setdefault(inner.schema_path[0], inner)
    for inner in forms.values():
        yield _words(inner, _at(tuple(inner.absolute_path)))


def _at(place: tuple[Any, ...]) -> str:
    return "reply" + "".join(f"[{part}]" if isinstance(part, int) else f".{part[:40]}" for part in place)


def _position(value: Any, place: tuple[Any, ...]) -> tuple[int, ...]:
    """Where the place lies among its neighbours, from the top: findings are told in the order of the reply."""
    places = list[int]()
    for part in place:
        places.append((part if isinstance(part, int) else list(value).index(part)) + 1)
        value = value[part]
    return tuple(places)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _article(kinds: Any) -> str:
    names: list[str] = [kinds] if isinstance(kinds, str) else list(kinds)
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
