"""Requests to a model and its replies. The request's digest is what a recording is keyed by."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen

FinishReason = Literal["stop", "length", "abort", "tool_use"]

Priority = Literal["person", "story", "batch"]
"""Who waits for the reply: a person at a screen, a running story, or nobody in particular. Served in this order."""


class CallTag(Frozen):
    """Who asks, for queues, budgets and metrics. Never part of the prompt or of the request's digest."""

    tenant: str = "default"
    """Whose share of an engine the call takes; tenants are served in turn."""
    priority: Priority = "story"
    affinity: str = ""
    """Calls with the same value go to the same replica, so that its prefix cache serves them all."""
    story: str = ""
    role: str = ""


NO_TAG = CallTag()
"""A call of which nothing is known."""


class ToolOffer(Frozen):
    """A tool that the model may ask for."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Annotated[str, Field(max_length=1024)]
    parameters: dict[str, Any]
    """JSON Schema of the arguments."""


class ToolUse(Frozen):
    """A tool that the model asked for, as it wrote it: nothing of it is checked yet (MB-14)."""

    id: str
    name: str
    arguments: str
    """JSON text, perhaps broken."""


def _is_empty(value: object) -> bool:
    return not value


class Reasoning(Frozen):
    """A part of what a model thought, as its API wants it back. It is kept as it came, and nothing is read into it."""

    engine: str
    """Id of the engine that it came from; another one is never sent it."""
    form: str
    """How it is sent: the type of the block, or the name of the field."""
    id: str = Field(default="", exclude_if=_is_empty)
    """The name that its API gave it, where it gives one."""
    text: str = ""
    opaque: str = ""
    """What the API signs or hides."""
    place: Annotated[int, Field(ge=0)] = 0
    """How many parts of the reply stood before it: its words, and each use of a tool."""


class ChatMessage(Frozen):
    """One message of the conversation; one of role `tool` answers the use `tool_use_id`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_uses: tuple[ToolUse, ...] = ()
    tool_use_id: str | None = None
    reasoning: tuple[Reasoning, ...] = Field(default=(), exclude_if=_is_empty)
    """Of an assistant: what it thought, in the order in which it came."""


def thought_text(part: Reasoning) -> str:
    """What counts of it as prompt when it is sent back: the words, or what stands for them; not both."""
    return max(part.text, part.opaque, key=len)


AS_LONG_AS_FITS = 1_000_000
"""A reply bound that binds nothing: engine, window and budget say how long the reply may be."""


class Sampling(Frozen):
    """Sampling values; decimals are strings, so that one request has one digest on every machine (GL-12)."""

    temperature: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")] = "0"
    top_p: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")] = "1"
    max_tokens: Annotated[int, Field(ge=1)] = AS_LONG_AS_FITS
    seed: int = 0
    stop: tuple[str, ...] = ()


class ChatRequest(Frozen):
    """One call of a model. `json_schema` constrains the reply where the engine can; the caller validates anyway."""

    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1)]
    sampling: Sampling = Sampling()
    json_schema: dict[str, Any] | None = None
    tools: tuple[ToolOffer, ...] = ()

    @property
    def digest(self) -> Digest:
        """Covers messages, sampling, schema, seed and tools, not the engine's id."""
        return digest_of_json(self.model_dump(mode="json"))

    @property
    def texts(self) -> tuple[str, ...]:
        """What the model reads of it, one text after the other: messages, uses of tools, and the tools themselves."""
        texts = [message.content for message in self.messages]
        texts += [use.arguments for message in self.messages for use in message.tool_uses]
        texts += [thought_text(part) for message in self.messages for part in message.reasoning]
        texts += [f"{tool.name}{tool.description}{tool.parameters}" for tool in self.tools]
        return tuple(texts)

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What a request does not use is left out, so that its digest is the one it had before the field existed.
        dumped: dict[str, Any] = handler(self)
        if not dumped["tools"]:
            del dumped["tools"]
        for message in dumped["messages"]:
            for name in ("tool_uses", "tool_use_id"):
                if not message[name]:
                    del message[name]
        return dumped


class TokenUsage(Frozen):
    """Tokens of one call as counted by the engine."""

    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            tokens_cached=self.tokens_cached + other.tokens_cached,
        )


class ChatReply(Frozen):
    """A whole reply. `finish_reason` `length` means that the text is cut off; it is never read as complete."""

    text: str
    finish_reason: FinishReason
    usage: TokenUsage
    engine: str
    """Engine id of config/models.yaml that answered."""
    model: str
    revision: str = ""
    latency_ms: int = 0
    tool_uses: tuple[ToolUse, ...] = ()
    reasoning: tuple[Reasoning, ...] = Field(default=(), exclude_if=_is_empty)
    """Its tokens are among those of the reply, as the engine counts them."""
    queue_ms: int = 0
    """Time in queues before the engine began, part of `latency_ms`."""
    gpu_ms: int = 0
    """Share of the engine's busy time, times its GPUs (MB-15); 0 without a GPU."""


class ChatChunk(Frozen):
    """A piece of a streamed reply; the last one carries the whole `reply`."""

    text: str = ""
    reply: ChatReply | None = None
