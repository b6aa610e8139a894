"""Finding the one JSON object in a reply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from fleet.errors import ReplyMalformed

__all__ = ["json_object"]

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_MAX_STARTS = 20


def json_object(text: str) -> dict[str, Any]:
    """The reply's JSON object: the whole text, else a fenced block, else the first balanced braces that parse.

    Raises:
        ReplyMalformed: there is none, or it holds a float, NaN or a repeated key; `problems` says which (GL-12).
    """
    problem = "the reply holds no JSON object"
    for candidate in _candidates(text):
        try:
            value = json.loads(
                candidate, parse_float=_no_float, parse_constant=_no_float, object_pairs_hook=_unique_keys
            )
        except (ValueError, RecursionError) as error:
            problem = f"the reply is no valid JSON: {error}"
            continue
        if isinstance(value, dict):
            return value  # pyright: ignore[reportUnknownVariableType]
    raise ReplyMalformed(problem, problems=[problem])


def _candidates(text: str) -> Iterator[str]:
    stripped = text.strip()
    if stripped.startswith("{"):
        yield stripped
    yield from (match.group(1).strip() for match in _FENCE.finditer(text))
    start = text.find("{")
    for _ in range(_MAX_STARTS):
        if start < 0:
            return
        end = _balanced_end(text, start)
        if end is not None:
            yield text[start:end]
        start = text.find("{", start + 1)


def _balanced_end(text: str, start: int) -> int | None:
    depth, in_string, escaped = 0, False, False
    for index in range(start, len(text)):
        char = text[index]
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "{}":
            depth += 1 if char == "{" else -1
            if depth == 0:
                return index + 1
    return None


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"numbers must be whole, not {text}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated")
    return value
