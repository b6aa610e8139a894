"""What people are shown of a work session. All text of models and commands in it is without secrets."""

from __future__ import annotations

from typing import Literal

from fleet.kernel.ids import Digest, EntityId, Principal, StoryId
from fleet.kernel.types import ChangeKind, Frozen

SessionStatus = Literal["waiting", "working", "over"]


class CallPage(Frozen):
    """One call of a turn: what was done, what came of it, and the files before and after."""

    number: int
    """Of the use within its reply, from 1."""
    tool: str
    about: str
    """The argument that says most: the command line, the path."""
    outcome: str
    """`running`, or how it ended in a few words: `exit 1`, `edited`, `refused`, `not allowed`."""
    exit_code: int | None = None
    output: str = ""
    """The end of what it printed or showed, at most 2,000 characters."""
    output_digest: Digest | None = None
    """Under which the whole output is read; None while it runs."""
    before: Digest | None = None
    """The tree before it; None while it runs."""
    after: Digest | None = None
    """The tree after it; its diff is that between the two."""
    wall_ms: int = 0


class TestsPage(Frozen):
    """The last tests that the engineer ran."""

    turn: int
    passed: int
    failed: int
    failing: tuple[str, ...]
    """At most 50 ids."""
    new: tuple[str, ...] | None
    """Those of them that pass on the base of the story; None where nothing was measured of it."""


class ToldPage(Frozen):
    """What a person said to the session."""

    by: Principal
    text: str
    before_turn: int | None
    """The reply before which the engineer read it; None while it waits to be read."""


class ChangedFile(Frozen):
    """A file that differs from the base of the session."""

    path: str
    change: ChangeKind


class SessionPage(Frozen):
    """Where a session stands."""

    session_id: EntityId
    story_id: StoryId
    council_id: EntityId
    task_id: EntityId | None
    member_id: EntityId
    role: str
    principal: Principal
    work: Literal["draft", "repair"]
    status: SessionStatus
    waits_for: str
    """What it waits for now, in words; empty once it is over."""
    turn: int
    turns: int
    """Replies that its terms allow."""
    tokens_in: int
    """Of its own turns; `tokens_cached` of them were in the engine's cache."""
    tokens_cached: int
    tokens_out: int
    last: CallPage | None
    last_turn: int | None
    """The turn of `last`."""
    tests: TestsPage | None
    base: Digest | None
    head: Digest | None
    changed: tuple[ChangedFile, ...]
    """The first 50 files that differ from the base."""
    changed_files: int
    told: tuple[ToldPage, ...]
    ended: str | None
    """Why it is over."""
    summary: str
    """The engineer's words with its submission."""
    stopped_by: Principal | None
    stop_reason: str | None
    forked_from: EntityId | None
    forked_at: int | None
    """The last turn that it took over from that session."""


class SessionList(Frozen):
    """The sessions of a story in the order in which they began."""

    items: tuple[SessionPage, ...]


class TurnPage(Frozen):
    """One turn: what the engineer said and did."""

    number: int
    is_inherited: bool
    """It is on record of the session that this one was forked from."""
    told: str
    """What people said before it; empty where they said nothing."""
    text: str
    """The engineer's words, at most 4,000 characters."""
    problem: str
    """Why there is no reply; empty where there is one."""
    calls: tuple[CallPage, ...]
    notes: tuple[str, ...]
    """Uses of tools that needed nothing to be carried out: notes, repetitions, calls that were no calls."""
    is_waiting: bool
    """The engine has not answered yet."""
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    latency_ms: int


class SessionTurns(Frozen):
    """A session with a page of its turns; `next_after` is the turn to go on from."""

    session: SessionPage
    turns: tuple[TurnPage, ...]
    next_after: int | None


class OutputPage(Frozen):
    """Lines of the output of one call."""

    digest: Digest
    lines: tuple[str, ...]
    first: int
    """The number of the first of them, from 1."""
    of: int
    """Lines in all."""
