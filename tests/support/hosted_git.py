"""A sandbox that reaches git servers of loopback under the name `forge.example`, with the secret `forge-token`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fleet.kernel.clock import SystemClock
from fleet.policy.commands.git import GitTarget
from fleet.policy.secret_grants import SecretAccess, SecretGrant, SecretPolicy
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.egress.proxy import EgressSettings
from fleet.sandbox.memory import MemoryRunLedger
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.secrets.memory import MemorySecrets
from fleet.secrets.service import KnownSecrets, SecretBroker
from fleet.trees.port import BlobStore

TOKEN = "tok-push-SECRET"
GRANT = SecretGrant(
    secret="forge-token", roles=frozenset({"devops"}), tool="git", ops=frozenset({"ls_remote", "fetch", "push_branch"})
)
TARGET = GitTarget(credentials="secret://forge-token", plain_http=True)


@dataclass
class GitSandbox:
    """The sandbox, what it is made of, and who had the secret."""

    supervisor: ToolSupervisor
    backend: BubblewrapBackend
    secrets: MemorySecrets
    known: KnownSecrets
    accesses: list[SecretAccess] = field(default_factory=list[SecretAccess])


async def _here(host: str) -> Sequence[str]:
    return ["127.0.0.1"] if host == "forge.example" else []


async def git_sandbox(state: Path, blobs: BlobStore, *, grants: tuple[SecretGrant, ...] = (GRANT,)) -> GitSandbox:
    """It holds runs below the state folder; the test is skipped where no sandbox can be built."""
    known, clock, secrets = KnownSecrets(), SystemClock(), MemorySecrets()
    secrets.put("forge-token", TOKEN)
    egress = EgressSettings(resolve=_here, allow_addresses=("127.0.0.1/32",), connect_s=2)
    backend = BubblewrapBackend(state, blobs, egress=egress)
    if (health := await backend.health()).status == "down":
        pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
    accesses: list[SecretAccess] = []

    async def record(line: SecretAccess) -> None:
        accesses.append(line)

    broker = SecretBroker(
        {"forge-token": secrets}, SecretPolicy(grants=grants), clock=clock, record=record, known_secrets=known
    )
    supervisor = ToolSupervisor(backend, MemoryRunLedger(), blobs, clock, "sandbox:test", secrets=broker, known=known)
    return GitSandbox(supervisor, backend, secrets, known, accesses)
