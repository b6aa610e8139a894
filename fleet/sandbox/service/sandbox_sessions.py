"""Interactive sessions over the supervisor: it runs and records them, this numbers their input and bounds them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.kernel.clock import Clock
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import IdempotencyMismatch, InvalidInput, InvalidTransition, NotFound, SandboxUnavailable
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.port import MAX_WRITE_BYTES, InteractiveBackend, RunProgress, Sandbox, SessionView

_OPENS_WITHIN_S = 30.0
_LOOK_AGAIN_S = 0.02
_KILLED_WITHIN_S = 20.0


class SessionLimits(NamedTuple):
    """How many sessions a node has open, and how long nobody may use one. The wall time is that of each run."""

    max_open: int = 8
    idle_s: float = 900.0


@dataclass(eq=False, slots=True)
class _Open:
    used_ms: int
    grace_s: int
    last_seq: int = 0
    last_digest: Digest | None = None
    # One write after the other, or two of one number would both be taken.
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class SessionDesk:
    """Implements the port SandboxSessions for one node.

    Args:
        sandbox: the node's supervisor; it claims, records and joins by key.
        backend: the one that this supervisor runs.
    """

    def __init__(
        self, sandbox: Sandbox, backend: InteractiveBackend, clock: Clock, *, limits: SessionLimits | None = None
    ) -> None:
        self._sandbox, self._backend, self._clock = sandbox, backend, clock
        self._limits = limits or SessionLimits()
        self._open: dict[RunKey, _Open] = {}
        # Counting and starting are one step, or two starts would both take the last place.
        self._starting = asyncio.Lock()

    async def start(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> SessionView:
        """See the port."""
        if spec.stdin is not None:
            raise InvalidInput("a session gets its input while it runs: leave stdin out", field="stdin")
        async with self._starting:
            if key not in self._open:
                await self._check_room()
            interactive = spec.model_copy(update={"interactive": True})
            progress = await self._sandbox.submit(interactive, story=story, key=key, epoch=epoch)
            if progress.result is None and key not in self._open:
                self._open[key] = _Open(self._clock.monotonic_ms(), spec.limits.grace_s)
        return self._view(key, progress)

    async def poll(self, session: RunKey, *, after_line: int = 0, limit: int = 500, wait_s: float = 0) -> SessionView:
        """See the port."""
        self._touch(session)
        page = await self._sandbox.logs(session, after=after_line, limit=limit, wait_s=wait_s)
        progress = await self._sandbox.progress(session)
        self._touch(session)
        view = self._view(session, progress)
        return SessionView(session, view.status, page.lines, view.next_seq, view.result)

    async def write_stdin(self, session: RunKey, data: bytes, *, seq: int, is_last: bool = False) -> SessionView:
        """See the port."""
        if len(data) > MAX_WRITE_BYTES:
            raise InvalidInput(f"{len(data)} bytes in one write, over {MAX_WRITE_BYTES}: cut them", field="data")
        held = await self._held(session)
        async with held.writing:
            self._touch(session)
            if not self._is_repeat(held, session, seq, (digest := digest_of(data + bytes([is_last])))):
                await self._deliver(session, data, is_last=is_last)
                held.last_seq, held.last_digest = seq, digest
        return self._view(session, await self._sandbox.progress(session))

    async def snapshot(self, session: RunKey) -> Digest:
        """See the port."""
        await self._held(session)
        self._touch(session)
        until_ms = self._clock.monotonic_ms() + int(_OPENS_WITHIN_S * 1000)
        while (tree := await self._backend.snapshot(session)) is None:
            await self._check_opening(session, until_ms)
        return tree

    async def kill(self, session: RunKey) -> bool:
        """See the port."""
        progress = await self._sandbox.progress(session)
        return progress.result is None and await self._sandbox.cancel(session)

    async def close(self, session: RunKey, *, wait_s: float = 5) -> RunResult:
        """See the port."""
        await self._backend.write_stdin(session, b"", is_last=True)
        progress = await self._sandbox.progress(session, wait_s=wait_s)
        if progress.result is None:
            await self._sandbox.cancel(session)
            held = self._open.get(session)
            progress = await self._sandbox.progress(session, wait_s=_KILLED_WITHIN_S + (held.grace_s if held else 0))
        if progress.result is None:
            raise SandboxUnavailable(f"session {session} does not end; ask again", run=session)
        self._open.pop(session, None)
        return progress.result

    async def sweep(self) -> int:
        """See the port."""
        now, ended = self._clock.monotonic_ms(), 0
        for session, held in list(self._open.items()):
            if now - held.used_ms <= self._limits.idle_s * 1000:
                continue
            ended += await self._sandbox.cancel(session)
            if (await self._sandbox.progress(session)).result is not None:
                self._open.pop(session, None)
        return ended

    # What is held here.

    def _view(self, session: RunKey, progress: RunProgress) -> SessionView:
        held = self._open.get(session)
        return SessionView(session, progress.status, (), held.last_seq + 1 if held else 0, progress.result)

    def _touch(self, session: RunKey) -> None:
        if (held := self._open.get(session)) is not None:
            held.used_ms = self._clock.monotonic_ms()

    async def _held(self, session: RunKey) -> _Open:
        held = self._open.get(session)
        if held is not None:
            return held
        progress = await self._sandbox.progress(session)  # NotFound when nobody ever started it
        if progress.result is not None:
            raise _over(session, progress.result)
        raise NotFound(f"session {session} is not held on this node; ask the node that started it", run=session)

    async def _check_room(self) -> None:
        for session in list(self._open):
            if (await self._sandbox.progress(session)).result is not None:
                self._open.pop(session, None)
        if len(self._open) >= self._limits.max_open:
            raise SandboxUnavailable(
                f"{len(self._open)} sessions are open on this node, which is all it takes; close one first",
                missing="room",
                active=len(self._open),
            )

    # Input.

    @staticmethod
    def _is_repeat(held: _Open, session: RunKey, seq: int, digest: Digest) -> bool:
        if not 1 <= seq <= held.last_seq + 1:
            raise InvalidInput(
                f"write {seq} of session {session}: the next one is {held.last_seq + 1}",
                field="seq",
                value=seq,
                expected=held.last_seq + 1,
            )
        if seq == held.last_seq and digest != held.last_digest:
            raise IdempotencyMismatch(f"write {seq} of session {session} was made with other data", run=session)
        return seq <= held.last_seq

    async def _deliver(self, session: RunKey, data: bytes, *, is_last: bool) -> None:
        until_ms = self._clock.monotonic_ms() + int(_OPENS_WITHIN_S * 1000)
        while not await self._backend.write_stdin(session, data, is_last=is_last):
            await self._check_opening(session, until_ms)

    async def _check_opening(self, session: RunKey, until_ms: int) -> None:
        """Return a moment later while the sandbox of a new session is still being built."""
        progress = await self._sandbox.progress(session)
        if progress.result is not None:
            raise _over(session, progress.result)
        if self._clock.monotonic_ms() >= until_ms:
            raise SandboxUnavailable(f"the sandbox of session {session} is not built yet; try again", run=session)
        await self._clock.sleep(_LOOK_AGAIN_S)


def _over(session: RunKey, result: RunResult) -> InvalidTransition:
    return InvalidTransition(
        f"session {session} is over ({result.reason}); start another one", run=session, status=result.status
    )
