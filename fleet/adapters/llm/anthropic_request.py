"""A request in the form of Anthropic's Messages API.

Source: "Claude API: Messages", "Structured outputs", "Tool use".
"""

from __future__ import annotations

import json
import re
from typing import Any

from anthropic import transform_schema

from fleet.adapters.llm.status_errors import is_too_large
from fleet.models import ChatMessage, ChatRequest, HttpEngine, ToolUse

__all__ = ["REPLY_TOOL", "LearnedForms"]

REPLY_TOOL = "reply"
"""Name of the tool that a structured reply is forced into, where the output format is not taken."""

_FORMAT = re.compile(r"output_config|output_format|schema|grammar|structured output", re.I)
_FORCED = re.compile(r"tool_choice|thinking", re.I)


class LearnedForms:
    """How this model takes a schema: as output format, as a forced tool, not at all. Each refusal is one step down.

    Temperature, top_p and seed are not sent: the API has no seed, and its present models refuse the other two.
    """

    def __init__(self, engine: HttpEngine) -> None:
        self._engine = engine
        self._forms = ["format", "tool", "none"] if "json_schema" in engine.capabilities else ["none"]

    def is_reply_tool(self, request: ChatRequest) -> bool:
        """Whether the reply of this request comes as the arguments of a tool."""
        return request.json_schema is not None and not request.tools and self._forms[0] == "tool"

    def step_down(self, refusal: str, request: ChatRequest) -> bool:
        """Whether the next request will be another one than this, because of the text of the refusal."""
        pattern = _FORMAT if self._forms[0] == "format" else _FORCED
        if request.json_schema is None or len(self._forms) == 1 or is_too_large(refusal) or not pattern.search(refusal):
            return False
        del self._forms[0]
        return True

    def values(self, request: ChatRequest, model: str) -> dict[str, Any]:
        """The fields of a request."""
        sampling = request.sampling
        values: dict[str, Any] = {
            "model": model,
            "messages": _messages(request),
            "max_tokens": min(sampling.max_tokens, self._engine.max_output),
            "stream": True,
        }
        if system := "\n\n".join(m.content for m in request.messages if m.role == "system" and m.content):
            values["system"] = system
        # A stop sequence of white space alone is refused.
        if stops := [stop for stop in sampling.stop if stop.strip()]:
            values["stop_sequences"] = stops
        if request.tools:
            values["tools"] = [
                {"name": offer.name, "description": offer.description, "input_schema": _as_object(offer.parameters)}
                for offer in request.tools
            ]
        return values | self._structured(request)

    def _structured(self, request: ChatRequest) -> dict[str, Any]:
        schema = request.json_schema
        if schema is None or self._forms[0] == "none":
            return {}
        if self._forms[0] == "format":
            # The API knows fewer keywords than we check; the SDK moves the others into descriptions.
            return {"output_config": {"format": {"type": "json_schema", "schema": transform_schema(schema)}}}
        if request.tools:
            return {}
        tool = {"name": REPLY_TOOL, "description": "Give the reply in this form.", "input_schema": schema}
        return {"tools": [tool], "tool_choice": {"type": "tool", "name": REPLY_TOOL}}


def _as_object(schema: dict[str, Any]) -> dict[str, Any]:
    return schema if schema.get("type") == "object" else {"type": "object", **schema}


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    """User and assistant in turns: all results of one turn stand in one user message, as the API demands."""
    turns: list[dict[str, Any]] = []
    for message in request.messages:
        if message.role == "system":
            continue
        role, blocks = "assistant" if message.role == "assistant" else "user", _blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    # A request needs a message, and a prompt may be a system message alone.
    return turns or [{"role": "user", "content": [{"type": "text", "text": "Begin."}]}]


def _blocks(message: ChatMessage) -> list[dict[str, Any]]:
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": _id(message.tool_use_id or ""), "content": message.content}
        return [result]
    # An empty text block is refused.
    text: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content.strip() else []
    uses = [
        {"type": "tool_use", "id": _id(use.id), "name": use.name, "input": _input(use)} for use in message.tool_uses
    ]
    return [*text, *uses]


def _input(use: ToolUse) -> dict[str, Any]:
    try:
        value = json.loads(use.arguments or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _id(text: str) -> str:
    """Ids of uses may come from another provider; here they hold letters, digits, `_` and `-` only."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text) or "_"
