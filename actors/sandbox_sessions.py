"""The methods of `sandbox:<node>` for interactive sessions."""

from __future__ import annotations

from fleet.kernel.errors import ConfigError
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.port import SandboxSessions, SessionView


class SessionMethods:
    """Part of the sandbox's shell. `_sessions` is None where the backend holds no interactive runs."""

    _sessions: SandboxSessions | None

    async def start_session(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> SessionView:
        """Open an interactive session, once per key, and return at once."""
        return await self._required_sessions().start(spec, story=story, key=key, epoch=epoch)

    async def poll_session(
        self, session: RunKey, *, after_line: int = 0, limit: int = 500, wait_s: float = 0
    ) -> SessionView:
        """Say where a session is, and which lines it printed."""
        return await self._required_sessions().poll(session, after_line=after_line, limit=limit, wait_s=wait_s)

    async def write_session(self, session: RunKey, data: bytes, *, seq: int, is_last: bool = False) -> SessionView:
        """Give the command of a session more input, once per number."""
        return await self._required_sessions().write_stdin(session, data, seq=seq, is_last=is_last)

    async def snapshot_session(self, session: RunKey) -> Digest:
        """Record the files of a session as they are now."""
        return await self._required_sessions().snapshot(session)

    async def kill_session(self, session: RunKey) -> bool:
        """End a session."""
        return await self._required_sessions().kill(session)

    async def close_session(self, session: RunKey, *, wait_s: float = 5) -> RunResult:
        """End the input of a session, let it finish, and say how it ended."""
        return await self._required_sessions().close(session, wait_s=wait_s)

    async def sweep_sessions(self) -> int:
        """End the sessions that nobody used for too long."""
        return 0 if self._sessions is None else await self._sessions.sweep()

    def _required_sessions(self) -> SandboxSessions:
        if self._sessions is None:
            raise ConfigError("this sandbox holds no interactive sessions: set sandbox.backend to bubblewrap")
        return self._sessions
