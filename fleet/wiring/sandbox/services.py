"""The services behind the actors `role` and `sandbox`."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.kernel.clock import SystemClock
from fleet.log.redis.connection import connect_redis
from fleet.models.prompts.prompt import parse_prompts
from fleet.models.service.role_agent import RoleAgent
from fleet.remote.timed_ports import TimedBackend, TimedModels
from fleet.sandbox.redis import RedisRunLedger, RedisRunLogs
from fleet.sandbox.service.sandbox_sessions import SessionDesk
from fleet.sandbox.service.tool_supervisor import SupervisorLimits, ToolSupervisor
from fleet.secrets.redis import RedisAccessTrail
from fleet.secrets.service import KnownSecrets
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.models.probes import probed_models
from fleet.wiring.sandbox.backend import SandboxParts, make_backend
from fleet.wiring.sandbox.plugins import active_policy, active_roles
from fleet.wiring.sandbox.spread import make_peers
from fleet.wiring.stores.secrets import make_secret_broker, recorded_accesses
from fleet.wiring.stores.stores import make_blobs, usage_of
from fleet.wiring.telemetry import NO_TELEMETRY, Telemetry

if TYPE_CHECKING:
    from fleet.forge.local.forge import LocalForge
    from fleet.wiring.models.policies import EngineModels


@dataclass(frozen=True, slots=True)
class RoleParts:
    """What a role actor holds."""

    agent: RoleAgent
    models: EngineModels


def make_role_parts(endpoints: Endpoints, *, role: str, telemetry: Telemetry = NO_TELEMETRY) -> RoleParts:
    """What is behind actor `role:<role>:<n>`."""
    # Drivers are imported by the one process that uses them: fifteen actors start faster and stay small.
    from fleet.wiring.models.engines import engine_replicas
    from fleet.wiring.models.policies import make_models

    files = endpoints.files
    policies = probed_models(files, Path(endpoints.home))
    models = make_models(endpoints, policies, role=role, replicas=partial(engine_replicas, endpoints))
    texts = {n: files.read(n).decode() for n in files.names() if n.startswith("prompts/") and n.endswith(".md")}
    agent = RoleAgent(
        active_roles(files).role(role),
        models=TimedModels(models, meter=telemetry.meter, clock=SystemClock(), tracer=telemetry.tracer),
        policies=policies,
        prompts=parse_prompts(texts),
        blobs=make_blobs(endpoints),
        clock=SystemClock(),
        refusal=models.refusal,
    )
    return RoleParts(agent, models)


_NODES = "nodes"
"""Below the state root: one folder for each further node."""
_UNUSED_S = 86_400.0


def make_sandbox_parts(endpoints: Endpoints, *, node: str | None = None) -> SandboxParts:
    """The sandbox backend of this node; its state lies where the sandbox's own user can reach it.

    Args:
        node: of the supervisor of a further node, whose runs lie in a folder of that name: nodes may have one home in
            common, and what a process of another machine left looks like that of a dead one.
    """
    from fleet.sandbox.backends.identity import reachable_state_root

    blobs = make_blobs(endpoints)
    root = reachable_state_root(Path(endpoints.home) / "sandbox")
    policy = active_policy(endpoints.files)
    backend = make_backend(
        endpoints.sandbox_backend,
        root,
        blobs,
        policy=policy,
        waived=endpoints.sandbox_waived,
        own_root=root / _NODES / node if node else None,
        disk=endpoints.sandbox_disk,
    )
    return SandboxParts(backend, blobs, root, SystemClock())


def remove_abandoned(parts: SandboxParts, alive: Collection[str]) -> int:
    """What supervisors of nodes left that are dead for a day is gone; how many they were.

    Args:
        alive: the nodes of this fleet by the names that `make_sandbox_parts` has for them. During an upgrade another
            fleet may have the same home, of which nothing is known here: hence the day.
    """
    from fleet.sandbox.backends.run_end import remove_unused

    return remove_unused(parts.state_root / _NODES, keep=alive, unused_s=_UNUSED_S)


def make_supervisor(
    endpoints: Endpoints, parts: SandboxParts, *, name: str, telemetry: Telemetry = NO_TELEMETRY
) -> ToolSupervisor:
    """The service behind the actor of this name, `sandbox:<node>`."""
    client, known_secrets, node = connect_redis(endpoints.redis_url), KnownSecrets(), name.removeprefix("sandbox:")
    return ToolSupervisor(
        TimedBackend(parts.backend, node, meter=telemetry.meter, clock=parts.clock, tracer=telemetry.tracer),
        RedisRunLedger(client),
        parts.blobs,
        parts.clock,
        name,
        logs=RedisRunLogs(connect_redis(endpoints.cache_url)),
        secrets=make_secret_broker(
            endpoints,
            environ=os.environ,
            record=recorded_accesses(RedisAccessTrail(client)),
            known_secrets=known_secrets,
        ),
        known=known_secrets,
        peers=make_peers(endpoints),
        limits=SupervisorLimits(max_runs=2 * (os.cpu_count() or 1) + endpoints.sandbox_waiting),
        folders=parts.folders,
        stored=usage_of(parts.blobs),
    )


def make_sessions(parts: SandboxParts, supervisor: ToolSupervisor) -> SessionDesk | None:
    """Interactive sessions of this node; None where its backend holds none."""
    from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend

    if not isinstance(parts.backend, BubblewrapBackend):
        return None
    return SessionDesk(supervisor, parts.backend, parts.clock)


def make_forge(endpoints: Endpoints, parts: SandboxParts) -> LocalForge:
    """Local repositories, as the sandbox's node sees them."""
    from fleet.forge.local.forge import LocalForge

    return LocalForge(state_root=parts.state_root, blobs=parts.blobs)
