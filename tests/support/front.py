"""What people read through the front, over the stores of a world."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fleet.audit.files.ed25519 import Ed25519Verifier
from fleet.audit.memory import MemoryCheckpointExport, MemoryCheckpointStore, MemoryRawLog
from fleet.audit.port import CheckpointStore
from fleet.audit.service.auditor import Auditor
from fleet.context.memory import MemoryBundleStore
from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.deploy.memory import MemoryDeployments
from fleet.deploy.port import Deployments
from fleet.desk.audit import AuditDesk
from fleet.desk.coach import CoachDesk
from fleet.desk.context.rehydrate import Rehydrator
from fleet.desk.context.statistics import ContextStatistics
from fleet.desk.decisions import DecisionDesk
from fleet.desk.deployments import DeploymentDesk
from fleet.desk.gates import GateDesk
from fleet.desk.stories import StoryDesk
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.port import DecisionGraph
from fleet.log.memory import MemoryDeadLetters, MemoryFeedGroup
from fleet.models.profiles import load_models
from fleet.models.prompts.prompt import PromptSet, parse_prompts
from fleet.planning.coach_config import CoachConfig
from fleet.policy.roles import load_roles
from fleet.report.service.reports import ReportService
from fleet.workspace.levels import RigorConfig
from serve_apps.parts import FrontParts
from serve_apps.routes.in_force import ConfigInForce
from tests.support.audit import SIGNER
from tests.support.bench import World, definitions
from tests.support.deployed import target_of
from tests.support.rules import files


def prompts() -> PromptSet:
    """The prompts as shipped."""
    return parse_prompts({n: files().read(n).decode() for n in files().names() if n.endswith(".md")})


def front_parts(
    world: World,
    *,
    checkpoints: CheckpointStore | None = None,
    graph: DecisionGraph | None = None,
    deployments: Deployments | None = None,
) -> FrontParts:
    """Every part of the front but a clock, so that requests are not counted. Without a store nothing was signed.

    Args:
        deployments: where the environment `preview` is; None has an empty one.
    """
    context = files().load("context.yaml", ContextConfig)
    coach, rigor = files().load("coach.yaml", CoachConfig), files().load("rigor.yaml", RigorConfig)

    packs = ContextService(world.log, world.blobs, context, clock=world.clock)
    held = graph or MemoryGraph()
    store, export = checkpoints or MemoryCheckpointStore(), MemoryCheckpointExport()

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Auditor]:
        raw, verifier = MemoryRawLog(world.log), Ed25519Verifier()
        yield Auditor(raw, store, export, blobs=world.blobs, key=SIGNER.key, verifier=verifier)

    return FrontParts(
        stories=StoryDesk(
            planning=world.desk,
            blobs=world.blobs,
            packs=packs,
            reports=ReportService(world.log, world.blobs),
            rules=definitions(),
            context=context,
            clock=world.clock,
            digests=files().digests(),
        ),
        gates=GateDesk(planning=world.desk, blobs=world.blobs),
        coach=CoachDesk(coach, rigor),
        projects=world.projects,
        letters=MemoryDeadLetters(world.clock),
        statistics=ContextStatistics(log=world.log, graph=held, builder=packs),
        rehydrator=Rehydrator(
            planning=world.desk,
            blobs=world.blobs,
            kept=MemoryBundleStore(),
            config=context,
            clock=world.clock,
        ),
        decisions=DecisionDesk(planning=world.desk, graph=held, clock=world.clock),
        consumers={"council": world.inbox, "projector": MemoryFeedGroup(world.log, world.clock)},
        platform=world.fleet,
        deployments=DeploymentDesk(
            planning=world.desk, deployments=deployments or MemoryDeployments(), targets=[target_of()]
        ),
        config=ConfigInForce(
            models=load_models(files().document("models.yaml")),
            roles=load_roles(files().document("roles.yaml")),
            digests=files().digests(),
            personas={path: persona.text for path, persona in prompts().personas.items()},
        ),
        audit=AuditDesk(log=world.log, clock=world.clock, auditor=opened),
    )
