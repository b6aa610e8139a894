"""Typed reading of arguments that the policy has checked; a tool that is called otherwise says what is wrong."""

from __future__ import annotations

from typing import NoReturn, cast

from pydantic import JsonValue

from fleet.kernel.errors import InvalidInput
from fleet.policy.rules.calls import ToolCall


def text_of(call: ToolCall, name: str) -> str:
    """The text of this argument; InvalidInput when there is none."""
    value = call.args.get(name)
    return value if isinstance(value, str) else _wrong(call, name, "text")


def maybe_text(call: ToolCall, name: str) -> str | None:
    """The text of this argument, None when it was left out."""
    return None if call.args.get(name) is None else text_of(call, name)


def lines_of(call: ToolCall, name: str) -> tuple[str, ...]:
    """The texts of this list, none when it was left out."""
    value = call.args.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _wrong(call, name, "a list of texts")
    return tuple(cast(list[str], value))


def mapping_of(call: ToolCall, name: str) -> dict[str, JsonValue]:
    """The object of this argument, empty when it was left out."""
    value = call.args.get(name, {})
    return value if isinstance(value, dict) else _wrong(call, name, "an object")


def unknown_op(call: ToolCall) -> InvalidInput:
    """The error for an operation that the tool does not have."""
    return InvalidInput(f"tool {call.tool} has no operation {call.op!r}; call one that is declared", op=call.op)


def _wrong(call: ToolCall, name: str, kind: str) -> NoReturn:
    raise InvalidInput(f"{call.tool}.{call.op}: argument {name} must be {kind}; correct it and call again", field=name)
