"""Reads the calls of tools that models write, each as one `ToolCall` (MB-14). They are native, JSON in text, or
labelled blocks.

Nothing here runs a tool. What names an unknown tool or argument, or is no JSON, becomes a text that goes back to the
model. Habits of small models are read (a fence around the JSON, text before and after it, tags around it, several calls
in a list); what a call then holds is checked strictly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

from pydantic import ValidationError

from fleet.kernel.errors import InvalidInput
from fleet.models.chat import ToolOffer, ToolUse
from fleet.models.replies.json_schema import schema_problems
from fleet.policy.rules.calls import ToolCall

TextToolForm = Literal["json", "blocks", "object"]
"""How a model without native tools writes a call; `object` is one JSON object that the engine holds it to."""

MAX_ARGUMENTS_CHARS = 1_048_576
ARGUMENTS_TOO_LONG = "the arguments were too long to be kept"
"""Stands on record for arguments beyond the limit; it is no JSON."""
_SEPARATOR = "__"


class ToolProblem(NamedTuple):
    """A use that became no call, and what the model is told instead of a result."""

    use_id: str
    name: str
    text: str


def offered_name(tool: str, op: str) -> str:
    """The one name under which an operation of a tool is offered: `files__read`."""
    return f"{tool}{_SEPARATOR}{op}"


def offer_of(tool: str, op: str, *, description: str, parameters: Mapping[str, Any]) -> ToolOffer:
    """An operation of a tool as a model is offered it.

    Args:
        parameters: JSON Schema of the arguments, an object.
    """
    return ToolOffer(name=offered_name(tool, op), description=description, parameters=dict(parameters))


def arguments_of(use: ToolUse, offers: Sequence[ToolOffer]) -> dict[str, Any] | ToolProblem:
    """The arguments of a use as they were offered, or what is wrong with them (MB-14)."""
    offer = next((offer for offer in offers if offer.name == use.name), None)
    if offer is None:
        names = ", ".join(offer.name for offer in offers) or "none"
        return _problem(use, f"there is no tool {use.name[:80]!r}; the tools are: {names}")
    if len(use.arguments) > MAX_ARGUMENTS_CHARS or use.arguments == ARGUMENTS_TOO_LONG:
        told = f"the arguments of {use.name} are longer than {MAX_ARGUMENTS_CHARS} characters: send less at once"
        return _problem(use, told)
    try:
        args = _arguments(use.arguments)
    except (ValueError, RecursionError) as error:
        return _problem(use, f"the arguments of {use.name} are not valid JSON: {str(error)[:200]}")
    if wrong := _wrong_arguments(args, offer.parameters):
        return _problem(use, f"the arguments of {use.name} are wrong: {'; '.join(wrong)}")
    return args


def parse_tool_use(use: ToolUse, offers: Sequence[ToolOffer]) -> ToolCall | ToolProblem:
    """The call that the use stands for, or the problem that the model is to be told of (MB-14)."""
    args = arguments_of(use, offers)
    if isinstance(args, ToolProblem):
        return args
    tool, _, op = use.name.partition(_SEPARATOR)
    try:
        return ToolCall(tool=tool, op=op, args=args)
    except ValidationError as error:
        problems = "; ".join(item["msg"] for item in error.errors()[:3])
        return _problem(use, f"the arguments of {use.name} are wrong: {problems}")


def _problem(use: ToolUse, text: str) -> ToolProblem:
    return ToolProblem(use.id, use.name, f"Not executed: {text}.")


def _arguments(text: str) -> dict[str, Any]:
    # A tool without arguments is often called with none at all.
    # Small models break lines of code in the midst of a text, which can mean nothing else.
    value = json.loads(text or "{}", strict=False, parse_constant=_no_constant, object_pairs_hook=_unique_keys)
    if not isinstance(value, dict):
        raise ValueError("they must be one JSON object")
    return value  # pyright: ignore[reportUnknownVariableType]


def _wrong_arguments(args: dict[str, Any], schema: Mapping[str, Any]) -> tuple[str, ...]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    unknown = sorted(set(args) - set(properties))
    if unknown and schema.get("additionalProperties") is not True:
        names = ", ".join(properties) or "none"
        return (f"unknown {', '.join(name[:40] for name in unknown[:5])}; the arguments are: {names}",)
    try:
        return tuple(problem.removeprefix("reply.") for problem in schema_problems(args, schema))
    except InvalidInput:
        # A schema of a third party that is none: the tool itself checks what it is called with.
        return tuple(f"{name} is missing" for name in schema.get("required", ()) if name not in args)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated")
    return value
