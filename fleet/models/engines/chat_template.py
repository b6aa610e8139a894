"""Conversations and tools in the form that chat templates of models take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fleet.models.chat import ChatMessage, ToolOffer


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as chat templates expect them."""
    return [_message(message) for message in messages]


def template_tools(tools: Sequence[ToolOffer]) -> list[dict[str, Any]]:
    """Offers as chat templates expect them."""
    return [{"type": "function", "function": tool.model_dump()} for tool in tools]


def _message(message: ChatMessage) -> dict[str, Any]:
    known: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_uses:
        known["tool_calls"] = [
            {"type": "function", "id": use.id, "function": {"name": use.name, "arguments": _read(use.arguments)}}
            for use in message.tool_uses
        ]
    if message.tool_use_id is not None:
        known["tool_call_id"] = message.tool_use_id
    return known


def _read(arguments: str) -> Any:
    # Templates print arguments as JSON themselves; what is broken is shown as the model wrote it.
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
