"""Port: what a story asks of role agents."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from fleet.ids import Digest, Principal
from fleet.models import (
    NO_TAG,
    CallTag,
    ChatMessage,
    ReplyKind,
    Sampling,
    TokenUsage,
    ToolOffer,
    describe_schema,
)

__all__ = ["AgentAnswer", "AgentRequest", "Agents", "PassedOver", "WorkKind"]

WorkKind = ReplyKind
"""What is asked; each has a prompt `config/prompts/<kind>.md`."""

_LATER = ("tools", "turns", "policy", "persona")
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
    sampling: Sampling = field(default_factory=Sampling)
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
        """All that reaches the prompt from here, one text after the other; rules and the persona of a role do not."""
        form = describe_schema(self.json_schema) if self.json_schema is not None else ""
        found = (
            self.shared,
            self.own,
            self.persona,
            form,
            *(part.model_dump_json() for part in (*self.turns, *self.tools)),
        )
        return tuple(text for text in found if text)

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
