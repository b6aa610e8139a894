"""The port SandboxSessions over the actor `sandbox:<node>`."""

from __future__ import annotations

from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.remote.patience import PatientCalls
from fleet.remote.resolver import ActorResolver
from fleet.sandbox.port import SessionView

_CALL_S = 60.0


class RaySandboxSessions:
    """Sessions of one node. A call that was cut off is repeated under its key, or with its number."""

    def __init__(self, resolver: ActorResolver, node: str) -> None:
        self._calls, self._name = PatientCalls(resolver), f"sandbox:{node}"

    async def start(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> SessionView:
        """See the port."""
        return await self._calls.call(
            self._name, "start_session", spec, story=story, key=key, epoch=epoch, timeout_s=_CALL_S
        )

    async def poll(self, session: RunKey, *, after_line: int = 0, limit: int = 500, wait_s: float = 0) -> SessionView:
        """See the port."""
        return await self._calls.call(
            self._name,
            "poll_session",
            session,
            after_line=after_line,
            limit=limit,
            wait_s=wait_s,
            timeout_s=wait_s + _CALL_S,
        )

    async def write_stdin(self, session: RunKey, data: bytes, *, seq: int, is_last: bool = False) -> SessionView:
        """See the port."""
        return await self._calls.call(
            self._name, "write_session", session, data, seq=seq, is_last=is_last, timeout_s=_CALL_S
        )

    async def snapshot(self, session: RunKey) -> Digest:
        """See the port."""
        return await self._calls.call(self._name, "snapshot_session", session, timeout_s=2 * _CALL_S)

    async def kill(self, session: RunKey) -> bool:
        """See the port."""
        return await self._calls.call(self._name, "kill_session", session, timeout_s=_CALL_S)

    async def close(self, session: RunKey, *, wait_s: float = 5) -> RunResult:
        """See the port."""
        return await self._calls.call(
            self._name, "close_session", session, wait_s=wait_s, timeout_s=wait_s + 6 * _CALL_S
        )

    async def sweep(self) -> int:
        """See the port. The actor does it by itself; this asks for it now."""
        return await self._calls.call(self._name, "sweep_sessions", timeout_s=_CALL_S)
