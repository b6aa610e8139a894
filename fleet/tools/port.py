"""The ports of tools: the host of tools and the sessions of their callers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fleet.kernel.ids import Digest, EntityId, Principal, RunKey, StoryId
from fleet.kernel.types import Phase
from fleet.policy.rules.calls import Obligations, ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.toolchains import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What the product knows about a call that was allowed; nothing of it was written by the caller."""

    story_id: StoryId
    principal: Principal
    role: str
    phase: Phase
    key: RunKey
    """Of the step; runs and requests of the call derive their own keys from it."""
    epoch: int
    obligations: Obligations
    task_id: EntityId | None = None
    tree: Digest | None = None
    """The workspace of the call."""
    base_tree: Digest | None = None
    """What the workspace is compared with: the tree that the task or the session began with."""
    repository: str | None = None
    """Name of the staged repository (`Forge.stage`), None when the call has none."""
    packs: tuple[Digest, ...] = ()
    """What was committed in the story since its base, of the commit that the call names (git.push_branch)."""
    toolchain: str = "python"
    language: Language = "python"
    """What the project in the workspace is written in (RC-41)."""
    environment: str | None = None
    """Key of `targets.clusters` that kubectl and helm address (RT-62); None when the policy has none or several."""


class Tool(Protocol):
    """All operations of one tool. Which of them exist and what they take stands in their declaration (RT-20)."""

    @property
    def name(self) -> str:
        """The tool's name in config/policy.yaml."""
        ...

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """Carry the call out under `context.obligations` and say what came of it.

        The decision of the policy was made before, on the text of the arguments. The tool enforces what only it can
        see: links in the workspace, addresses that a name resolves to, the class of a statement; it raises PolicyDenied
        then. A program that fails is an outcome. Raises SandboxUnavailable, ToolFailed or StoreUnavailable when nothing
        could carry it out; ToolTimeout when a server did not answer, which says nothing about whether it happened.
        """
        ...


@runtime_checkable
class PreviewableTool(Protocol):
    """A tool that can find out what a call would do without doing it (RT-62)."""

    async def preview(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """What the call would do, as its receiver sees it; nothing is changed. Raises as `Tool.call`."""
        ...


class ToolHost(Protocol):
    """The tools of this fleet; one outcome per key, ever."""

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """The outcome of this call. A repeated key is joined, or answered from the record (RC-51, RC-54).

        Raises what `Tool.call` raises, OwnershipLost when a higher epoch was seen for the story, IdempotencyMismatch
        when the key names another call.
        """
        ...

    async def preview(self, call: ToolCall, context: ToolContext) -> ToolOutcome | None:
        """What the call would do, for whoever has to approve it (RT-62); None when its tool cannot say.

        Nothing is changed, and the key of `context` is another one than that of the call. Raises what `Tool.call`
        raises; ToolTimeout after the call's own time.
        """
        ...


SESSION_IDLE_S = 3600
"""Seconds without a call after which a session is gone (RT-68)."""
ORIGIN_S = 7 * 86_400
"""Seconds for which an id alone is enough to find the story that it belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSession:
    """What the product bound when the session was opened; every call is decided anew by the owner of the story."""

    session_id: EntityId
    principal: Principal
    role: str
    story_id: StoryId
    phase: Phase
    epoch: int
    task_id: EntityId | None = None
    is_read_only: bool = False
    offered: tuple[str, ...] = ()
    """Operations `<tool>.<op>` that it was told about, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOrigin:
    """To which story the id of a session or run belongs, and who asked for it."""

    story_id: StoryId
    principal: Principal


class ToolSessions(Protocol):
    """Sessions of any process of the fleet. A session that is lost is opened again; nothing of a story is kept here."""

    async def open(self, session: ToolSession, *, idle_s: int = SESSION_IDLE_S) -> ToolSession:
        """The session is there; the one that is there already when this id was opened before."""
        ...

    async def use(self, session_id: EntityId, *, idle_s: int = SESSION_IDLE_S) -> ToolSession | None:
        """The session, which then lives for `idle_s` seconds from now; None when it is over or never was."""
        ...

    async def close(self, session_id: EntityId) -> bool:
        """The session is over; False when it was already."""
        ...

    async def remember(self, entity_id: EntityId, origin: ToolOrigin, *, ttl_s: int = ORIGIN_S) -> None:
        """The id leads to its story for `ttl_s` seconds. A hint: the story itself says what there is."""
        ...

    async def origin_of(self, entity_id: EntityId) -> ToolOrigin | None:
        """Where the id belongs; None when nobody knows any more."""
        ...
