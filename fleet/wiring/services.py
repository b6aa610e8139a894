"""The services behind the actors `context`, `role` and `sandbox`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.adapters.clock import SystemClock
from fleet.adapters.redis import RedisEventLog, RedisRunLedger, connect_redis
from fleet.context import ContextConfig
from fleet.models import load_models, parse_prompts
from fleet.ports import BlobStore, Clock
from fleet.services.context_service import ContextService
from fleet.services.role_agent import RoleAgent
from fleet.services.tool_supervisor import ToolSupervisor
from fleet.tools.roles import load_roles
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.stores import make_blobs

if TYPE_CHECKING:
    from fleet.adapters.forge import LocalForge
    from fleet.adapters.sandbox import BubblewrapBackend

__all__ = [
    "make_context_service",
    "make_role_agent",
    "SandboxParts",
    "make_sandbox_parts",
    "make_supervisor",
    "make_forge",
]


def make_context_service(endpoints: Endpoints) -> ContextService:
    """The service behind actor `context`."""
    return ContextService(
        RedisEventLog(connect_redis(endpoints.redis_url)),
        make_blobs(endpoints),
        endpoints.files.load("context.yaml", ContextConfig),
        clock=SystemClock(),
    )


def make_role_agent(endpoints: Endpoints, *, role: str) -> RoleAgent:
    """The service behind actor `role:<role>:<n>`."""
    # Drivers are imported by the one process that uses them: fifteen actors start faster and stay small.
    from fleet.adapters.llm import ChatModels

    files = endpoints.files
    models = load_models(files.document("models.yaml"))
    texts = {n: files.read(n).decode() for n in files.names() if n.startswith("prompts/") and n.endswith(".md")}
    return RoleAgent(
        load_roles(files.document("roles.yaml")).role(role),
        models=ChatModels(
            models,
            environ=endpoints.environ,
            record_dir=Path(endpoints.record_dir) if endpoints.record_dir else None,
        ),
        policies=models,
        prompts=parse_prompts(texts),
        blobs=make_blobs(endpoints),
        clock=SystemClock(),
    )


@dataclass(frozen=True, slots=True)
class SandboxParts:
    """What the sandbox supervisor and the forge of one node share."""

    backend: BubblewrapBackend
    blobs: BlobStore
    state_root: Path
    clock: Clock


def make_sandbox_parts(endpoints: Endpoints) -> SandboxParts:
    """The sandbox backend of this node; its state lies where the sandbox's own user can reach it."""
    from fleet.adapters.sandbox import BubblewrapBackend, reachable_state_root

    blobs = make_blobs(endpoints)
    root = reachable_state_root(Path(endpoints.home) / "sandbox")
    return SandboxParts(BubblewrapBackend(root, blobs), blobs, root, SystemClock())


def make_supervisor(endpoints: Endpoints, parts: SandboxParts, *, name: str) -> ToolSupervisor:
    """The service behind actor `sandbox:<node>`."""
    ledger = RedisRunLedger(connect_redis(endpoints.redis_url))
    return ToolSupervisor(parts.backend, ledger, parts.blobs, parts.clock, name)


def make_forge(endpoints: Endpoints, parts: SandboxParts) -> LocalForge:
    """Local repositories, as the sandbox's node sees them."""
    from fleet.adapters.forge import LocalForge

    return LocalForge(state_root=parts.state_root, blobs=parts.blobs)
