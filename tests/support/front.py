"""What people read through the front, over the stores of a world."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fleet.adapters.memory import (
    MemoryBundleStore,
    MemoryCheckpointExport,
    MemoryCheckpointStore,
    MemoryDeadLetters,
    MemoryDeployments,
    MemoryFeedGroup,
    MemoryGraph,
    MemoryRawLog,
)
from fleet.adapters.signing import Ed25519Verifier
from fleet.context import ContextConfig
from fleet.models import PromptSet, load_models, parse_prompts
from fleet.planning import CoachConfig
from fleet.ports import CheckpointStore, DecisionGraph, Deployments
from fleet.rigor import RigorConfig
from fleet.services.audit_desk import AuditDesk
from fleet.services.auditor import Auditor
from fleet.services.coach_desk import CoachDesk
from fleet.services.context_service import ContextService
from fleet.services.context_statistics import ContextStatistics
from fleet.services.decision_desk import DecisionDesk
from fleet.services.deployment_desk import DeploymentDesk
from fleet.services.gate_desk import GateDesk
from fleet.services.rehydrating import Rehydrator
from fleet.services.report import ReportService
from fleet.services.story_desk import StoryDesk
from fleet.tools import load_roles
from serve_apps.in_force import ConfigInForce
from serve_apps.parts import FrontParts
from tests.support.audit import SIGNER
from tests.support.bench import World, definitions
from tests.support.deployed import target_of
from tests.support.rules import files

__all__ = ["front_parts", "prompts"]


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
            fsm=definitions().fsm,
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
