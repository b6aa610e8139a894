"""The desk over a real gateway, a team with scripted models, and its sandbox, all in one process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from fleet.adapters.clock import SystemClock
from fleet.adapters.memory import (
    MemoryDaySpending,
    MemoryDeployments,
    MemoryEventLog,
    MemoryFeed,
    MemoryGraph,
    MemoryToolSessions,
)
from fleet.adapters.signing import Ed25519Verifier
from fleet.config import ServeSettings
from fleet.context import ContextConfig
from fleet.ids import Principal
from fleet.models import Budgets, load_models
from fleet.planning import CoachConfig
from fleet.ports import ChatModel
from fleet.rigor import RigorConfig
from fleet.services.audit_desk import AuditDesk
from fleet.services.auditor import Auditor
from fleet.services.budget_desk import BudgetDesk
from fleet.services.coach_desk import CoachDesk
from fleet.services.context_service import ContextService
from fleet.services.context_statistics import ContextStatistics
from fleet.services.decision_desk import DecisionDesk
from fleet.services.deployment_desk import DeploymentDesk
from fleet.services.gate_desk import GateDesk
from fleet.services.platform_desk import PlatformDesk
from fleet.services.platform_view import PlatformView
from fleet.services.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.services.project_desk import ProjectDesk
from fleet.services.story_desk import StoryDesk
from fleet.services.tool_desk import ToolDesk
from fleet.tools.roles import load_roles
from serve_apps.gateway import build_gateway
from serve_apps.in_force import ConfigInForce
from serve_apps.parts import FrontParts
from tests.support.bench import definitions
from tests.support.deployed import target_of
from tests.support.rules import files, fsm, step_policy
from tests.support.team import ROLES, Team, team

__all__ = ["DEV_TOKEN", "RITA_TOKEN", "TOKEN", "DeskFront", "desk_front"]

TOKEN = "ada-token-of-this-test"
DEV_TOKEN = "dev-token-of-this-test"
"""Of a person who holds the role of a developer alone, and sees what such a one works on."""
RITA_TOKEN = "reviewer-token-of-this-test"
"""Of a person who sees every story and changes none."""
REGISTRY = PrincipalRegistry(
    (
        PrincipalEntry(principal=Principal("user:ada"), roles=ROLES, token_sha256=hash_token(TOKEN)),
        PrincipalEntry(
            principal=Principal("user:dev"), roles=frozenset({"developer"}), token_sha256=hash_token(DEV_TOKEN)
        ),
        PrincipalEntry(
            principal=Principal("user:rita"), roles=frozenset({"reviewer"}), token_sha256=hash_token(RITA_TOKEN)
        ),
    )
)


@dataclass
class DeskFront:
    """Where the desk is, and who works behind it."""

    team: Team
    app: FastAPI
    port: int
    graph: MemoryGraph
    """The decision graph; nobody projects to it by itself."""
    deployments: MemoryDeployments
    """What the page of environments shows; nothing of the team is deployed there."""
    _server: uvicorn.Server | None = field(default=None, repr=False)
    _running: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The address of the desk."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """The gateway answers at its port."""
        config = uvicorn.Config(
            self.app, port=self.port, log_level="critical", lifespan="off", timeout_graceful_shutdown=0
        )
        self._server = uvicorn.Server(config)
        self._running = asyncio.create_task(self._server.serve())
        async with asyncio.timeout(10):
            while not self._server.started:
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """The gateway is gone; open streams were cut."""
        assert self._server is not None
        assert self._running is not None
        self._server.should_exit = True
        await self._running


def _parts(team: Team, graph: MemoryGraph, deployments: MemoryDeployments) -> FrontParts:
    planning, blobs, clock = team.desk, team.blobs, SystemClock()
    context = files().load("context.yaml", ContextConfig)
    return FrontParts(
        statistics=ContextStatistics(log=team.log, graph=graph, builder=team.packs),
        decisions=DecisionDesk(planning=planning, graph=graph, clock=clock),
        stories=StoryDesk(
            planning=planning,
            blobs=blobs,
            packs=ContextService(team.log, blobs, context, clock=clock),
            reports=team.reports,
            rules=definitions(),
            context=context,
            clock=clock,
        ),
        deployments=DeploymentDesk(planning=planning, deployments=deployments, targets=[target_of()]),
        gates=GateDesk(planning=planning, blobs=blobs),
        coach=CoachDesk(files().load("coach.yaml", CoachConfig), files().load("rigor.yaml", RigorConfig)),
        audit=_audit(team, clock),
        config=ConfigInForce(
            models=load_models(files().document("models.yaml")),
            roles=load_roles(files().document("roles.yaml")),
            digests=files().digests(),
        ),
        platform=PlatformDesk(view=PlatformView(team.log, _feed(team)), inbox=team.inbox, clock=clock),
        projects=ProjectDesk(log=team.log, inbox=team.inbox, blobs=blobs, planning=planning),
    )


def _feed(team: Team) -> MemoryFeed:
    assert isinstance(team.log, MemoryEventLog)
    return MemoryFeed(team.log)


def _audit(team: Team, clock: SystemClock) -> AuditDesk:
    from fleet.adapters.memory import MemoryCheckpointExport, MemoryCheckpointStore, MemoryRawLog
    from tests.support.audit import SIGNER

    assert isinstance(team.log, MemoryEventLog)
    raw, store, export = MemoryRawLog(team.log), MemoryCheckpointStore(), MemoryCheckpointExport()

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Auditor]:
        yield Auditor(raw, store, export, blobs=team.blobs, key=SIGNER.key, verifier=Ed25519Verifier())

    return AuditDesk(log=team.log, clock=clock, auditor=opened)


def _gateway(team: Team, graph: MemoryGraph, deployments: MemoryDeployments) -> FastAPI:
    clock = SystemClock()
    tools = ToolDesk(
        planning=team.desk,
        sessions=MemoryToolSessions(),
        blobs=team.blobs,
        sandbox=team.sandbox,
        clock=clock,
        policy=step_policy().policy,
        fsm=fsm(),
        roles_of=REGISTRY.roles_of,
    )
    budgets = BudgetDesk(log=team.log, spending=MemoryDaySpending(), limits=Budgets(), clock=clock)
    settings = files().load("serve.yaml", ServeSettings)
    return build_gateway(
        team.desk, REGISTRY, settings, tools=tools, budgets=budgets, parts=_parts(team, graph, deployments)
    )


@asynccontextmanager
async def desk_front(root: Path, models: Mapping[str, ChatModel] | None = None) -> AsyncGenerator[DeskFront]:
    """The desk of a running team at a free port; everything of it ends with the block."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    async with team(root, models=models) as made:
        graph, deployments = MemoryGraph(), MemoryDeployments()
        front = DeskFront(made, _gateway(made, graph, deployments), port, graph, deployments)
        await front.start()
        try:
            yield front
        finally:
            await front.stop()
