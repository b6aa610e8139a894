"""The sandbox actor has sessions where its backend holds them, and says so where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.sandbox_sessions import SessionMethods
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError, InvalidInput, NotFound
from fleet.kernel.ids import RunKey, StoryId
from fleet.policy.runs.spec import RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.containers.backend import ContainerBackend
from fleet.sandbox.memory import MemoryRunLedger
from fleet.sandbox.port import SandboxSessions
from fleet.sandbox.service.sandbox_sessions import SessionDesk
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.trees.memory import MemoryBlobStore
from fleet.wiring.sandbox.backend import SandboxParts
from fleet.wiring.sandbox.services import make_sessions

KEY = RunKey("a" * 64)


class Shell(SessionMethods):
    """As much of the actor as sessions use."""

    def __init__(self, sessions: SandboxSessions | None) -> None:
        self._sessions = sessions


def sessions_on(backend: BubblewrapBackend | ContainerBackend, root: Path) -> SessionDesk | None:
    parts = SandboxParts(backend, MemoryBlobStore(), root, SystemClock())
    supervisor = ToolSupervisor(backend, MemoryRunLedger(parts.clock), parts.blobs, parts.clock, "sandbox:one")
    return make_sessions(parts, supervisor)


async def test_shell_on_a_backend_without_sessions_says_what_to_set(tmp_path: Path) -> None:
    shell = Shell(sessions_on(ContainerBackend("podman", tmp_path, MemoryBlobStore()), tmp_path))
    asked = (
        shell.start_session(RunSpec(argv=("bash",)), story=StoryId("st-one1"), key=KEY, epoch=1),
        shell.poll_session(KEY),
        shell.write_session(KEY, b"", seq=1),
        shell.snapshot_session(KEY),
        shell.kill_session(KEY),
        shell.close_session(KEY),
    )
    for call in asked:
        with pytest.raises(ConfigError, match="bubblewrap"):
            await call
    assert await shell.sweep_sessions() == 0


async def test_shell_on_bubblewrap_asks_the_desk(tmp_path: Path) -> None:
    shell = Shell(sessions_on(BubblewrapBackend(tmp_path, MemoryBlobStore()), tmp_path))
    for call in (shell.poll_session(KEY), shell.kill_session(KEY), shell.close_session(KEY)):
        with pytest.raises(NotFound):
            await call
    assert await shell.sweep_sessions() == 0


async def test_interactive_run_on_a_backend_without_sessions_is_refused(tmp_path: Path) -> None:
    backend = ContainerBackend("podman", tmp_path, MemoryBlobStore())
    with pytest.raises(InvalidInput, match="interactive"):
        await backend.run(RunSpec(argv=("bash",), interactive=True), run_id="rn-1")
