"""Port: interactive sessions, which are runs whose input stays open (RC-20..RC-27 hold for them as for any run).

A session is one command in one sandbox of its own. It has the limits of its specification, ends with its supervisor,
and its result is recorded under its key like that of any run. What it printed is read by lines. Its files are read as
a tree (`snapshot`), with everything that reads trees; a session that starts from such a tree restores it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from fleet.ids import Digest, RunKey, StoryId
from fleet.ports.sandbox import SandboxBackend
from fleet.tools import LogLine, RunResult, RunSpec, RunStatus

__all__ = ["MAX_WRITE_BYTES", "InteractiveBackend", "SandboxSessions", "ServingBackend", "SessionView"]

MAX_WRITE_BYTES = 64 << 10
"""Of one write."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """Where a session is; `result` once its status is final."""

    session: RunKey
    status: RunStatus
    lines: tuple[LogLine, ...] = ()
    next_seq: int = 1
    """Number that the next write has to carry; 0 when this node does not hold the session."""
    result: RunResult | None = None


class InteractiveBackend(SandboxBackend, Protocol):
    """A technology that holds runs with `RunSpec.interactive`; all others refuse them with InvalidInput."""

    async def write_stdin(self, run_id: str, data: bytes, *, is_last: bool = False) -> bool:
        """The command reads `data` after all that came before, and then the end of its input if it was the last.

        Returns at once. What comes after the last one is dropped. False when no interactive run of this id is open
        here (yet, or any more). Raises SandboxUnavailable when the command left too much unread; nothing was taken.
        """
        ...

    async def snapshot(self, run_id: str) -> Digest | None:
        """The run's files as a tree, without those of `RunSpec.discard`; None when no such run is open here.

        The command goes on meanwhile: each file is as it was when it was read. Raises SandboxUnavailable when they
        change too fast.
        """
        ...


class ServingBackend(InteractiveBackend, Protocol):
    """A technology whose interactive runs can be reached while they go on."""

    async def connect(self, run_id: str, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the socket of this name in the run's workspace; None when there is none that listens."""
        ...


class SandboxSessions(Protocol):
    """Interactive sessions of one node, bounded in number, in time without a user, and in wall time.

    Every method but `start` raises NotFound for a session that nobody ever started.
    """

    async def start(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> SessionView:
        """The session of this key is open, or over: one per key, ever. Returns at once.

        Raises like `Sandbox.submit`; SandboxUnavailable too when as many sessions are open as this node takes.
        """
        ...

    async def poll(self, session: RunKey, *, after_line: int = 0, limit: int = 500, wait_s: float = 0) -> SessionView:
        """Lines with a number above `after_line`, as soon as there is one, at the latest after `wait_s` seconds.

        A line without its newline comes when the command ends. All was read when there is a result and no line.
        """
        ...

    async def write_stdin(self, session: RunKey, data: bytes, *, seq: int, is_last: bool = False) -> SessionView:
        """The command reads `data` next; at most MAX_WRITE_BYTES. Writes are numbered from 1.

        A number that was taken already changes nothing, so a write whose answer was lost is repeated as it was.

        Raises:
            InvalidInput: the number leaves one out, or too much data.
            IdempotencyMismatch: the last write had this number and other data.
            InvalidTransition: the session is over.
            SandboxUnavailable: the command left too much unread; write it again later.
        """
        ...

    async def snapshot(self, session: RunKey) -> Digest:
        """The session's files now, as a tree. Raises InvalidTransition once it is over, SandboxUnavailable."""
        ...

    async def kill(self, session: RunKey) -> bool:
        """End the session: SIGTERM, its grace, SIGKILL (RC-24); False when it was over."""
        ...

    async def close(self, session: RunKey, *, wait_s: float = 5) -> RunResult:
        """End the input, wait for the command to end by itself, end it otherwise; its result. Idempotent."""
        ...

    async def sweep(self) -> int:
        """End the sessions that nobody used for too long; how many. To be called now and then."""
        ...
