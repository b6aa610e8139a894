"""Arguments of a tool call against their declaration: types, limits, denied options, paths (RT-30, steps 8 and 9)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from fleet.kernel.errors import InvalidInput
from fleet.policy.capabilities import ArgSpec
from fleet.trees.tree import check_path

_URL = re.compile(r"(https?|ssh)://([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(:[0-9]{1,5})?([/?#][^\s\\]*)?")
_SCP = re.compile(r"git@([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?):[^\s\\:]+")


class ArgumentProblem(NamedTuple):
    """Why an argument is refused, under which rule id."""

    rule_id: str
    field: str
    reason: str


def texts_of(value: object) -> tuple[str, ...]:
    """The texts of an argument: itself, or the items of a list; numbers and truth values as in JSON."""
    match value:
        case str():
            return (value,)
        case bool():
            return ("true" if value else "false",)
        case int():
            return (str(value),)
        case list() | tuple():
            return tuple(text for item in cast(Sequence[object], value) for text in texts_of(item))
        case _:
            return ()


def path_problems(args: Mapping[str, Any], specs: Mapping[str, ArgSpec]) -> Iterator[ArgumentProblem]:
    """Every path that by its text is not below the workspace root (RT-57); links are the supervisor's to resolve."""
    for name, spec in specs.items():
        if spec.type in ("path", "paths") and name in args:
            yield from (
                ArgumentProblem("path_outside", name, why) for text in texts_of(args[name]) if (why := _outside(text))
            )


def _outside(text: str) -> str | None:
    if text == ".":
        return None
    if text.startswith("-"):
        return f"{text[:80]!r} begins with a hyphen and would be read as an option"
    if any(ord(c) < 32 or ord(c) == 127 or c == "\\" for c in text):
        return f"{text[:80]!r} has a control character or a backslash"
    try:
        check_path(text)
    except InvalidInput as error:
        return error.message
    return None


def argument_problems(args: Mapping[str, Any], specs: Mapping[str, ArgSpec]) -> Iterator[ArgumentProblem]:
    """Every argument that is unknown, missing, of another type, or over a limit (RT-56)."""
    for name in sorted(set(args) - set(specs)):
        yield ArgumentProblem(
            "argument_invalid", name, f"no such argument; it takes {', '.join(sorted(specs)) or 'none'}"
        )
    for name, spec in specs.items():
        if name not in args:
            if spec.required:
                yield ArgumentProblem("argument_invalid", name, "it is missing")
        elif (why := _wrong(args[name], spec)) is not None:
            yield ArgumentProblem("argument_invalid", name, why)


def _wrong(value: object, spec: ArgSpec) -> str | None:
    match spec.type:
        case "integer":
            return _wrong_number(value, spec)
        case "boolean":
            return None if isinstance(value, bool) else "it must be true or false"
        case "object":
            return None if isinstance(value, dict) else "it must be an object"
        case "argv" | "lines" | "paths":
            return _wrong_list(value, spec)
        case _:
            return _wrong_text(value, spec)


def _wrong_number(value: object, spec: ArgSpec) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return "it must be an integer"
    too_small = spec.minimum is not None and value < spec.minimum
    too_large = spec.maximum is not None and value > spec.maximum
    return f"it must be between {spec.minimum} and {spec.maximum}" if too_small or too_large else None


def _wrong_list(value: object, spec: ArgSpec) -> str | None:
    if not isinstance(value, list | tuple):
        # A program is a list of arguments, never one string for a shell to take apart (RT-55).
        return "it must be a list of texts, never one string"
    items = cast(Sequence[object], value)
    if len(items) > spec.max_items or (spec.type == "argv" and not items):
        return f"it must have 1 to {spec.max_items} items" if spec.type == "argv" else f"over {spec.max_items} items"
    return next((why for item in items if (why := _wrong_text(item, spec)) is not None), None)


def _wrong_text(value: object, spec: ArgSpec) -> str | None:
    if not isinstance(value, str):
        return "it must be text"
    if len(value) > spec.max_length:
        return f"it has {len(value)} characters, at most {spec.max_length}"
    if spec.type == "choice":
        return None if value in spec.choices else f"it must be one of {', '.join(spec.choices)}"
    if "\0" in value or (spec.type != "text" and any(c in value for c in "\n\r\u2028\u2029")):
        return "NUL and newlines are not allowed in it"
    if spec.type == "url" and host_of(value) is None:
        return "it must be https://host/..., http://host/... or git@host:path, without credentials"
    return _wrong_form(value, spec)


def _wrong_form(value: str, spec: ArgSpec) -> str | None:
    if bad := sorted(set(value) & set(spec.deny_characters)):
        return f"the characters {' '.join(bad)} are not allowed in it"
    if denied := next((p for p in spec.denied_prefix if value.startswith(p)), None):
        return f"{denied} is not allowed"
    if spec.allowed_prefix and not value.startswith(spec.allowed_prefix):
        return f"it must begin with {' or '.join(spec.allowed_prefix)}"
    if spec.pattern is not None and not re.fullmatch(spec.pattern, value):
        return f"it must match {spec.pattern}"
    return None


def host_of(url: str) -> str | None:
    """The host in lower case; None when it is no address of a listed form, or names credentials (RT-58, RT-59)."""
    if match := _URL.fullmatch(url):
        return match.group(2).lower()
    if match := _SCP.fullmatch(url):
        return match.group(1).lower()
    return None


def glob_matches(pattern: str, text: str) -> bool:
    """Whether the whole text has this form: `**` is anything, `*` anything but a slash, `?` one character."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    forms = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.fullmatch("".join(forms.get(p) or re.escape(p) for p in parts), text, re.DOTALL) is not None
