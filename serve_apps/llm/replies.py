"""What `/v1` answers: models, replies, and the pieces of a streamed reply, as OpenAI's clients read them (AP-122)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from fleet.kernel.errors import ModelUnavailable
from fleet.models.chat import ChatReply, TokenUsage
from fleet.models.engine_config import EngineConfig
from serve_apps.wire.story import Wire

FinishedBy = Literal["stop", "length", "tool_calls"]


class ModelView(Wire):
    """A model that may be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    """Not known."""
    owned_by: str
    max_model_len: int
    """Prompt and reply together, in tokens."""


class ModelList(Wire):
    """Models."""

    object: Literal["list"] = "list"
    data: tuple[ModelView, ...]


class CalledFunction(Wire):
    """A function with its arguments as the model wrote them: JSON text, perhaps broken."""

    name: str
    arguments: str


class ToolCallView(Wire):
    """A tool that the model asks for."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ReplyMessage(Wire):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: tuple[ToolCallView, ...] | None = None

    @model_serializer(mode="wrap")
    def _without_no_calls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        if dumped["tool_calls"] is None:
            del dumped["tool_calls"]
        return dumped


class ReplyChoice(Wire):
    """The one reply."""

    index: int = 0
    message: ReplyMessage
    logprobs: None = None
    finish_reason: FinishedBy


class PromptDetails(Wire):
    """Of the prompt's tokens."""

    cached_tokens: int
    """Those that the engine had in its prefix cache."""


class UsageView(Wire):
    """Tokens, as the engine counts them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ChatCompletion(Wire):
    """A whole reply."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[ReplyChoice]
    usage: UsageView
    system_fingerprint: str | None
    """Revision of the model, where it is known."""


def model_view(engine: EngineConfig) -> ModelView:
    """The wire form of an engine; its model, address and price stay inside."""
    return ModelView(id=engine.engine_id, owned_by="swe-fleet", max_model_len=engine.max_context)


def model_list(engines: Sequence[EngineConfig]) -> ModelList:
    """The wire form of engines."""
    return ModelList(data=tuple(map(model_view, engines)))


def chat_completion(reply: ChatReply, *, call_id: str, created_s: int, model: str) -> ChatCompletion:
    """The wire form of a reply; ModelUnavailable for one that the engine broke off."""
    calls = tuple(
        ToolCallView(id=use.id, function=CalledFunction(name=use.name, arguments=use.arguments))
        for use in reply.tool_uses
    )
    message = ReplyMessage(content=reply.text if reply.text or not calls else None, tool_calls=calls or None)
    return ChatCompletion(
        id=call_id,
        created=created_s,
        model=model,
        choices=(ReplyChoice(message=message, finish_reason=_finished_by(reply)),),
        usage=_usage(reply.usage),
        system_fingerprint=reply.revision or None,
    )


@dataclass
class ChatPieces:
    """The documents of one streamed reply, in their order: text, tool calls, end, usage."""

    call_id: str
    created_s: int
    model: str
    includes_usage: bool
    _sent: int = 0
    _has_begun: bool = False

    def text(self, text: str) -> Iterator[dict[str, Any]]:
        """The documents of a piece of text."""
        if not self._has_begun:
            self._has_begun = True
            yield self._piece({"role": "assistant", "content": ""})
        if text:
            self._sent += len(text)
            yield self._piece({"content": text})

    def end(self, reply: ChatReply) -> Iterator[dict[str, Any]]:
        """The documents of the end; ModelUnavailable for a reply that the engine broke off."""
        finished_by = _finished_by(reply)
        yield from self.text(reply.text[self._sent :])
        for index, use in enumerate(reply.tool_uses):
            function = {"name": use.name, "arguments": use.arguments}
            yield self._piece(
                {"tool_calls": [{"index": index, "id": use.id, "type": "function", "function": function}]}
            )
        yield self._piece({}, finished_by=finished_by)
        if self.includes_usage:
            yield {**self._document(), "choices": [], "usage": _usage(reply.usage).model_dump()}

    def _piece(self, delta: dict[str, Any], *, finished_by: FinishedBy | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finished_by}
        usage = {"usage": None} if self.includes_usage else {}
        return {**self._document(), "choices": [choice], **usage}

    def _document(self) -> dict[str, Any]:
        named = {"id": self.call_id, "object": "chat.completion.chunk", "created": self.created_s}
        return {**named, "model": self.model, "system_fingerprint": None}


def _finished_by(reply: ChatReply) -> FinishedBy:
    match reply.finish_reason:
        case "tool_use":
            return "tool_calls"
        case "abort":
            raise ModelUnavailable(f"model {reply.engine!r} broke its reply off; ask again", queued=True)
        case "stop" | "length":
            return reply.finish_reason


def _usage(usage: TokenUsage) -> UsageView:
    return UsageView(
        prompt_tokens=usage.tokens_in,
        completion_tokens=usage.tokens_out,
        total_tokens=usage.tokens_in + usage.tokens_out,
        prompt_tokens_details=PromptDetails(cached_tokens=usage.tokens_cached),
    )
