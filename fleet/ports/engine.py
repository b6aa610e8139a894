"""Ports: an engine that this fleet runs itself, and the inference library inside it.

Source: docs/design/design.md, section 7.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

from fleet.models import CallTag, ChatRequest, FinishReason, TokenUsage, ToolUse
from fleet.ports.chat_model import ChatModel

__all__ = [
    "Engine",
    "EngineInfo",
    "EngineState",
    "FinishedCall",
    "LoadedModel",
    "TokenPiece",
    "TokenSource",
    "UsageLog",
]

EngineState = Literal["loading", "ready", "draining", "failed"]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is, how it is, and what it did since it was loaded."""

    engine: str
    """Engine id of config/models.yaml."""
    model: str
    revision: str = ""
    """Digest of the weights, or the revision that the configuration gives."""
    version: str = ""
    """Name and version of the inference library."""
    block_size: int = 0
    """Tokens of one block of the prefix cache; 0 where there is none."""
    max_context: int = 0
    """Prompt and reply together, in tokens."""
    gpus: int = 0
    state: EngineState = "loading"
    why: str = ""
    """What keeps it from being ready."""
    running: int = 0
    waiting: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    """Of `tokens_in`, those that the prefix cache held."""
    tokens_out: int = 0
    busy_ms: int = 0
    """Time with at least one call running."""

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens that the prefix cache held."""
        return self.tokens_cached / self.tokens_in if self.tokens_in else 0.0


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """One call as the engine counted it, however it ended: what a reservation is settled with (MB-23, MB-32)."""

    number: int
    """Goes up by one with each call that ends."""
    request_id: str
    usage: TokenUsage
    gpu_ms: int
    finish: FinishReason | Literal["timeout", "cancelled", "failed"]
    ended_ms: int
    """UTC milliseconds."""


class UsageLog(Protocol):
    """What an engine itself counted, call by call."""

    async def usage(self, *, after: int = 0) -> tuple[FinishedCall, ...]:
        """The calls that ended with a `number` above `after`, oldest first. Only the last ten thousand are kept.

        An engine that was started again has lost its log, and counts from 1 anew.
        """
        ...


class Engine(ChatModel, UsageLog, Protocol):
    """A `ChatModel` whose model is loaded here. Calls that come while it loads wait for it within their own time."""

    async def load(self) -> None:
        """The engine is ready: weights checked and loaded, and one token was generated.

        A second call while it is ready does nothing; after a failure it loads again.

        Raises:
            ModelUnavailable: with `reason` in its details: missing_weights, wrong_digest, too_large, load_timeout,
                bad_arguments or load_failed, and `permanent` where another attempt on the same files is no use.
        """
        ...

    async def info(self) -> EngineInfo:
        """How the engine is now; an engine whose library died since is `failed`."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """No call is accepted any more; those under way have ended, or are aborted after `timeout_s`."""
        ...

    async def close(self) -> None:
        """The library is shut down: its processes are gone and its memory is free. `load` may follow."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What a library says of the model that it loaded."""

    version: str
    revision: str
    max_context: int
    block_size: int = 0


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """A piece of a reply. `usage` counts the whole call up to here; the last piece has a `finish`."""

    text: str
    usage: TokenUsage
    finish: FinishReason | None = None
    model: str = ""
    """Name of the model or adapter that answers; empty for the engine's own."""
    tool_uses: tuple[ToolUse, ...] = ()


class TokenSource(Protocol):
    """An inference library that lives in this process or in children of it. `ModelEngine` makes an `Engine` of it."""

    async def load(self) -> LoadedModel:
        """The model is in memory. Errors as `Engine.load`; nothing is left behind by a failure."""
        ...

    def generate(
        self, request: ChatRequest, *, call_id: str, tag: CallTag, is_whole: bool
    ) -> AsyncGenerator[TokenPiece]:
        """The reply in pieces, in one where `is_whole`; ended early by `abort`, with finish_reason `abort`.

        Raises:
            ContextTooLarge: prompt and reply do not fit; the library did no work. ModelUnavailable: it died.
        """
        ...

    async def abort(self, call_id: str) -> None:
        """The call ends soon; unknown ids are ignored."""
        ...

    def check(self) -> None:
        """Returns while the library lives; ModelUnavailable says why it does not."""
        ...

    async def close(self) -> None:
        """Processes and memory of the library are gone; may be called at any time."""
        ...
