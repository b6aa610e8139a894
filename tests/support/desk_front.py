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

from fleet.audit.files.ed25519 import Ed25519Verifier
from fleet.audit.service.auditor import Auditor
from fleet.config.settings import ServeSettings
from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.deploy.memory import MemoryDeployments
from fleet.desk.audit import AuditDesk
from fleet.desk.budgets import BudgetDesk
from fleet.desk.coach import CoachDesk
from fleet.desk.context.statistics import ContextStatistics
from fleet.desk.decisions import DecisionDesk
from fleet.desk.deployments import DeploymentDesk
from fleet.desk.gates import GateDesk
from fleet.desk.platform import PlatformDesk
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.desk.projects import ProjectDesk
from fleet.desk.stories import StoryDesk
from fleet.desk.tools.desk import ToolDesk
from fleet.graph.memory.graph import MemoryGraph
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import Principal
from fleet.log.memory import MemoryEventLog, MemoryFeed
from fleet.models.port import ChatModel
from fleet.models.profiles import Budgets, load_models
from fleet.owner.platform_view import PlatformView
from fleet.owner.spending.memory import MemoryDaySpending
from fleet.planning.coach_config import CoachConfig
from fleet.policy.roles import load_roles
from fleet.tools.memory import MemoryToolSessions
from fleet.workspace.levels import RigorConfig
from serve_apps.parts import FrontParts
from serve_apps.routes.gateway import build_gateway
from serve_apps.routes.in_force import ConfigInForce
from tests.support.bench import definitions
from tests.support.deployed import target_of
from tests.support.rules import files, step_policy
from tests.support.team import ROLES, Team, team

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
    from fleet.audit.memory import MemoryCheckpointExport, MemoryCheckpointStore, MemoryRawLog
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
