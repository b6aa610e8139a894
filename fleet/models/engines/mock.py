"""Mock team members: deterministic answers, good and bad, to test the team itself (CN-80..CN-87)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fleet.kernel.errors import InvalidInput, ModelError, ModelTimeout, ModelUnavailable
from fleet.kernel.types import MockMode
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest, TokenUsage
from fleet.models.engine_config import MockEngine
from fleet.models.prompts.prompt import kind_of

_WORDS = "It was checked against the criteria and the evidence that is shown. "
_PADDING = "# This line only makes the reply longer.\n"


class MockChatModel:
    """`ChatModel` of one mode. Code comes from the engine's `replies`, structured replies from their schema.

    The same request gives the same answer always; the seed of its sampling is what makes the unreliable modes vary.
    """

    def __init__(self, engine: MockEngine) -> None:
        self._engine = engine

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`; mode `error_prone` fails half of the calls (CN-85)."""
        mode = self._engine.mode
        draw = hashlib.sha256(f"{request.sampling.seed}/{request.digest}".encode()).digest()[0]
        if mode == "error_prone" and draw % 2:
            return self._broken(request, draw // 2 % 3)
        is_wrong = mode == "poor" or (mode == "inconsistent" and draw % 2 == 1)
        return self._reply(request, self._text(request, is_wrong=is_wrong))

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """See `ChatModel.stream`."""
        reply = await self.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        yield ChatChunk(text=reply.text)
        yield ChatChunk(reply=reply)

    async def abort(self, request_id: str) -> None:
        """A mock answers at once: nothing to end."""

    async def health(self) -> None:
        """A mock is always ready."""

    def _broken(self, request: ChatRequest, how: int) -> ChatReply:
        failures: tuple[ModelError | None, ...] = (
            ModelTimeout("the mock member did not answer in time (mode error_prone)"),
            ModelUnavailable("the mock member is not there (mode error_prone)"),
            None,
        )
        if (failure := failures[how]) is not None:
            raise failure
        return self._reply(request, "I am not sure what to say.")

    def _text(self, request: ChatRequest, *, is_wrong: bool) -> str:
        try:
            kind = kind_of(request)
        except InvalidInput:
            # Asked by another program, over the chat interface.
            return f"{self._engine.engine_id} is a mock engine: there is no model behind it."
        answer = self._engine.replies.get(kind)
        if answer is not None:
            text = answer.wrong if is_wrong else answer.correct
            return text + _PADDING * 20 if self._engine.mode == "verbose" and request.json_schema is None else text
        if kind == "act":
            return "Nothing more has to be looked at."
        if request.json_schema is None or _has_pattern(request.json_schema):
            raise ModelUnavailable(
                f"mock engine {self._engine.engine_id!r} has no reply for work {kind!r}: put one under `replies` in "
                "config/models.yaml, or use a real model",
                request_digest=str(request.digest),
                permanent=True,
            )
        return json.dumps(_filled(request.json_schema, self._engine.mode, is_wrong=is_wrong), ensure_ascii=False)

    def _reply(self, request: ChatRequest, text: str) -> ChatReply:
        prompt = sum(len(message.content.split()) for message in request.messages)
        usage = TokenUsage(tokens_in=prompt, tokens_out=max(1, len(text.split())))
        return ChatReply(
            text=text,
            finish_reason="stop",
            usage=usage,
            engine=self._engine.engine_id,
            model=self._engine.model,
            revision=self._engine.revision,
        )


def _has_pattern(schema: Mapping[str, Any]) -> bool:
    """Whether the smallest value would have to match a pattern, which no fixed sentence does."""
    match schema.get("type"):
        case "object":
            return any(_has_pattern(field) for field in schema.get("properties", {}).values())
        case "array":
            return int(schema.get("minItems", 0)) > 0 and _has_pattern(schema.get("items", {}))
        case _:
            return "pattern" in schema and "enum" not in schema and "const" not in schema


def _filled(schema: Mapping[str, Any], mode: MockMode, *, is_wrong: bool) -> Any:
    """The smallest value that fits the schema, with the mode's opinion where it has a choice."""
    if "enum" in schema:
        return _choice(schema["enum"], mode, is_wrong=is_wrong)
    if "const" in schema:
        return schema["const"]
    match schema.get("type"):
        case "object":
            return {name: _filled(item, mode, is_wrong=is_wrong) for name, item in schema.get("properties", {}).items()}
        case "array":
            return _items(schema, mode, is_wrong=is_wrong)
        case "string":
            return _sentence(schema, mode)
        case "integer":
            return schema.get("minimum", 1)
        case "boolean":
            return not is_wrong
        case _:
            return None


def _choice(options: list[Any], mode: MockMode, *, is_wrong: bool) -> Any:
    if "reject" in options and "approve" in options:
        return "reject" if mode == "stubborn" or is_wrong else "approve"
    return options[-1] if is_wrong else options[0]


def _items(schema: Mapping[str, Any], mode: MockMode, *, is_wrong: bool) -> list[Any]:
    item: Mapping[str, Any] = schema.get("items", {})
    count = int(schema.get("minItems", 0))
    labelled = _labelled(item)
    values: list[Any] = []
    for index in range(count):
        if "enum" in item:
            order = list(reversed(item["enum"])) if is_wrong else list(item["enum"])
            values.append(order[index % len(order)])
            continue
        value = _filled(item, mode, is_wrong=is_wrong)
        if labelled is not None:
            name, options = labelled
            value[name] = options[index % len(options)]
        values.append(value)
    return values


def _labelled(item: Mapping[str, Any]) -> tuple[str, list[Any]] | None:
    """The field of an item that names what it is about (a label or criterion), with its options."""
    for name in ("label", "ac", "ref"):
        field: Mapping[str, Any] = item.get("properties", {}).get(name, {})
        if "enum" in field:
            return name, list(field["enum"])
    return None


def _sentence(schema: Mapping[str, Any], mode: MockMode) -> str:
    limit = int(schema.get("maxLength", 80))
    text = (_WORDS * (limit // len(_WORDS) + 1))[:limit] if mode == "verbose" else "Checked by evidence."[:limit]
    return text.ljust(int(schema.get("minLength", 0)), ".")
