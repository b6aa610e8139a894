"""Bodies of `/v1`, read strictly and turned into requests of models (AP-122)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from fleet.kernel.errors import InvalidInput
from fleet.models.chat import ChatMessage, ChatRequest, Sampling, ToolOffer, ToolUse
from fleet.models.engine_config import EngineConfig
from serve_apps.llm.body import (
    AssistantMessage,
    ChatCompletionBody,
    InstructionMessage,
    JsonObjectFormat,
    JsonSchemaFormat,
    RefusalPart,
    TextPart,
    ToolBody,
    ToolMessage,
    UserMessage,
)

_MAX_DEPTH = 64
"""Of nested values in a body; deeper ones serve no schema."""


def read_body(document: Any) -> ChatCompletionBody:
    """The request of a parsed body; InvalidInput names every problem, `field` and `openai_code` that of the first."""
    if not isinstance(document, dict):
        raise InvalidInput("the body must be a JSON object", openai_code="invalid_type", problems=[])
    _check_values(document)
    try:
        return ChatCompletionBody.model_validate(document)
    except ValidationError as error:
        raise _invalid(error) from None


def _check_values(document: Any) -> None:
    """Returns when no value is deeper than a schema needs, no text is broken and no number is infinite."""
    level: list[Any] = [document]
    for _ in range(_MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += [*value, *value.values()]  # pyright: ignore[reportUnknownArgumentType]
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                raise InvalidInput(
                    "a text holds half of a surrogate pair: it is no Unicode", openai_code="invalid_value"
                )
            elif isinstance(value, float) and not math.isfinite(value):
                raise InvalidInput("a number is too large for a float", openai_code="invalid_value")
        if not inner:
            return
        level = inner
    raise InvalidInput(f"the body is nested more than {_MAX_DEPTH} levels deep", openai_code="invalid_value")


_TAGS = frozenset({"text", "parts", "one", "many", "system", "developer", "user", "assistant", "tool", "refusal"})
_FORMATS = frozenset({"json_object", "json_schema"})


def _invalid(error: ValidationError) -> InvalidInput:
    problems = [
        {"pointer": _path(item["loc"]), "code": _code(item["type"]), "message": _said(item["type"], item["msg"])}
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    first = problems[0]
    text = "; ".join(f"{p['pointer']}: {p['message']}" if p["pointer"] else p["message"] for p in problems[:20])
    return InvalidInput(text, field=first["pointer"] or None, openai_code=first["code"], problems=problems)


def _path(loc: tuple[int | str, ...]) -> str:
    """Where in the body, without the names that pydantic gives to the branches of a union."""
    kept: list[str] = []
    for index, part in enumerate(loc):
        before = loc[index - 1] if index else None
        is_branch = (part in _TAGS and (isinstance(before, int) or before in ("content", "stop"))) or (
            before == "response_format" and part in _FORMATS | {"text"}
        )
        if not is_branch:
            kept.append(str(part))
    return ".".join(kept)


def _code(kind: str) -> str:
    match kind:
        case "missing" | "union_tag_not_found":
            return "missing_required_parameter"
        case "extra_forbidden":
            return "unknown_parameter"
        case "unsupported_content" | "unsupported_value" | "unsupported_parameter":
            return kind
        case _:
            return (
                "invalid_type" if kind.endswith("_type") or kind in ("none_required", "dict_type") else "invalid_value"
            )


def _said(kind: str, message: str) -> str:
    return "unknown parameter" if kind == "extra_forbidden" else message


def chat_request(body: ChatCompletionBody, engine: EngineConfig, *, seed: int) -> ChatRequest:
    """The request as models take it; `seed` is used where the body gives none.

    Raises:
        InvalidInput: a tool answers a call that nobody made.
    """
    _check_tool_answers(body)
    messages = tuple(_message(message) for message in body.messages)
    tools = () if body.tool_choice == "none" else tuple(_offer(tool) for tool in body.tools or ())
    return ChatRequest(
        messages=messages, sampling=_sampling(body, engine, seed), json_schema=_schema(body), tools=tools
    )


def _check_tool_answers(body: ChatCompletionBody) -> None:
    asked: set[str] = set()
    for index, message in enumerate(body.messages):
        if isinstance(message, AssistantMessage):
            asked |= {call.id for call in message.tool_calls or ()}
        if isinstance(message, ToolMessage) and message.tool_call_id not in asked:
            raise InvalidInput(
                f"messages.{index}.tool_call_id: no message before asks for call {message.tool_call_id[:80]!r}",
                field=f"messages.{index}.tool_call_id",
                openai_code="invalid_value",
            )


def _message(message: InstructionMessage | UserMessage | AssistantMessage | ToolMessage) -> ChatMessage:
    match message:
        case InstructionMessage():
            return ChatMessage(role="system", content=_plain(message.content))
        case UserMessage():
            return ChatMessage(role="user", content=_plain(message.content))
        case ToolMessage():
            return ChatMessage(role="tool", content=_plain(message.content), tool_use_id=message.tool_call_id)
        case AssistantMessage():
            uses = tuple(
                ToolUse(id=call.id, name=call.function.name, arguments=call.function.arguments)
                for call in message.tool_calls or ()
            )
            said = message.content if message.content is not None else message.refusal or ""
            return ChatMessage(role="assistant", content=_plain(said), tool_uses=uses)


def _plain(content: str | list[TextPart | RefusalPart]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)


def _offer(tool: ToolBody) -> ToolOffer:
    function = tool.function
    parameters: Mapping[str, Any] = function.parameters or {"type": "object", "properties": {}}
    return ToolOffer(name=function.name, description=function.description or "", parameters=_integral(dict(parameters)))


def _schema(body: ChatCompletionBody) -> dict[str, Any] | None:
    match body.response_format:
        case JsonSchemaFormat(json_schema=wanted):
            return _integral(wanted.schema_)
        case JsonObjectFormat():
            return {"type": "object"}
        case _:
            return None


def _integral(value: Any) -> Any:
    """The same value; 1.0 is written as 1, so that schemas which differ in that alone are one."""
    if isinstance(value, dict):
        return {name: _integral(item) for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_integral(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _sampling(body: ChatCompletionBody, engine: EngineConfig, seed: int) -> Sampling:
    asked = body.reply_bound or engine.max_output
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Sampling(
        temperature=_decimal(1.0 if body.temperature is None else body.temperature),
        top_p=_decimal(1.0 if body.top_p is None else body.top_p),
        max_tokens=min(asked, engine.max_output),
        seed=seed if body.seed is None else body.seed,
        stop=stop,
    )


def _decimal(value: float) -> str:
    return format(abs(Decimal(str(value))), "f")
