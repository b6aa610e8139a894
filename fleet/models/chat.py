"""Requests to a model and its replies. The request's digest is what a recording is keyed by."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet.digest import digest_of_json
from fleet.ids import Digest

__all__ = ["ChatChunk", "ChatMessage", "ChatReply", "ChatRequest", "FinishReason", "Sampling", "TokenUsage"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


FinishReason = Literal["stop", "length", "abort"]


class ChatMessage(_Frozen):
    """One message of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(_Frozen):
    """Sampling values; decimals are strings, so that one request has one digest on every machine (GL-12)."""

    temperature: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")] = "0"
    top_p: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?$")] = "1"
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    seed: int = 0
    stop: tuple[str, ...] = ()


class ChatRequest(_Frozen):
    """One call of a model. `json_schema` constrains the reply where the engine can; the caller validates anyway."""

    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1)]
    sampling: Sampling = Sampling()
    json_schema: dict[str, Any] | None = None

    @property
    def digest(self) -> Digest:
        """Covers messages, sampling, schema and seed, not the engine's id."""
        return digest_of_json(self.model_dump(mode="json"))


class TokenUsage(_Frozen):
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


class ChatReply(_Frozen):
    """A whole reply. `finish_reason` `length` means that the text is cut off; it is never read as complete."""

    text: str
    finish_reason: FinishReason
    usage: TokenUsage
    engine: str
    """Engine id of config/models.yaml that answered."""
    model: str
    revision: str = ""
    latency_ms: int = 0


class ChatChunk(_Frozen):
    """A piece of a streamed reply; the last one carries the whole `reply`."""

    text: str = ""
    reply: ChatReply | None = None
