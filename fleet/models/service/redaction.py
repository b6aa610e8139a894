"""Where secrets are taken out of prompts and transcripts (CX-60)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fleet.models.chat import ChatMessage, ChatRequest, ToolOffer
from fleet.redaction.redact import redact
from fleet.redaction.redact_counts import redacted_fields
from fleet.redaction.redact_json import redact_json

_OF_FILES = frozenset(["draft", "repair", "tests", "document", "act", "engineer", "change"])
"""Work whose value holds files or changes of files, which are kept byte for byte: another byte is another program."""


def redacted_chat(chat: ChatRequest) -> ChatRequest:
    """The request as it may be kept and sent to a model. The very same one where nothing in it is secret."""
    texts = [redact(message.content).text for message in chat.messages]
    if all(text == message.content for text, message in zip(texts, chat.messages, strict=True)):
        return chat
    messages = (m.model_copy(update={"content": text}) for m, text in zip(chat.messages, texts, strict=True))
    return chat.model_copy(update={"messages": tuple(messages)})


def redacted_request(chat: ChatRequest) -> tuple[ChatRequest, Counter[str]]:
    """The request of another program as it may be sent to a model: messages, calls of tools, what tools are, and the
    form of the reply (CX-60).

    And how many places were taken out, by class (CX-74). Names and ids stay.
    """
    counts = Counter[str]()

    def plain(text: str) -> str:
        redacted = redact(text)
        counts.update(redacted.counts)
        return redacted.text

    def message_of(message: ChatMessage) -> ChatMessage:
        uses = tuple(use.model_copy(update={"arguments": plain(use.arguments)}) for use in message.tool_uses)
        return message.model_copy(update={"content": plain(message.content), "tool_uses": uses})

    def offer_of(tool: ToolOffer) -> ToolOffer:
        parameters = redact_json(tool.parameters)
        for row in redacted_fields(tool.parameters, parameters):
            counts[row.kind] += row.count
        return tool.model_copy(update={"description": plain(tool.description), "parameters": parameters})

    def schema_of(schema: dict[str, Any] | None) -> dict[str, Any] | None:
        redacted = redact_json(schema)
        for row in redacted_fields(schema or {}, redacted or {}):
            counts[row.kind] += row.count
        return redacted

    messages, tools = tuple(map(message_of, chat.messages)), tuple(map(offer_of, chat.tools))
    kept = {"messages": messages, "tools": tools, "json_schema": schema_of(chat.json_schema)}
    return (chat.model_copy(update=kept) if counts else chat), counts


def redacted_value(value: dict[str, Any], *, kind: str) -> dict[str, Any]:
    """The value of a reply as it may be recorded; files in it stay as they are."""
    return value if kind in _OF_FILES else redact_json(value)
