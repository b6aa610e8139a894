"""What the front is made of beside commands, tools and budgets; each part may be missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from fleet.desk.audit import AuditDesk
from fleet.desk.coach import CoachDesk
from fleet.desk.context.rehydrate import Rehydrator
from fleet.desk.context.statistics import ContextStatistics
from fleet.desk.decisions import DecisionDesk
from fleet.desk.deployments import DeploymentDesk
from fleet.desk.gates import GateDesk
from fleet.desk.planning import PlanningDesk
from fleet.desk.platform import PlatformDesk
from fleet.desk.projects import ProjectDesk
from fleet.desk.stories import StoryDesk
from fleet.kernel.clock import Clock
from fleet.log.port import DeadLetters, HasBacklog
from fleet.models.profiles import load_models
from fleet.models.prompts.prompt import parse_prompts
from fleet.wiring.deployments import make_deployment_desk
from fleet.wiring.desk.contexts import make_context_statistics, make_rehydrator
from fleet.wiring.desk.desk import (
    make_audit_desk,
    make_coach_desk,
    make_consumers,
    make_dead_letters,
    make_decision_desk,
    make_gate_desk,
    make_platform_desk,
    make_story_desk,
)
from fleet.wiring.desk.projects import make_project_desk
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.sandbox.plugins import active_roles
from fleet.wiring.stores.stores import make_graph
from serve_apps.routes.in_force import ConfigInForce
from serve_apps.routes.metrics import Figures


@dataclass(frozen=True, slots=True)
class FrontParts:
    """Reads for people; None answers everything about it with `store_unavailable`."""

    stories: StoryDesk | None = None
    gates: GateDesk | None = None
    coach: CoachDesk | None = None
    audit: AuditDesk | None = None
    projects: ProjectDesk | None = None
    letters: DeadLetters | None = None
    statistics: ContextStatistics | None = None
    decisions: DecisionDesk | None = None
    rehydrator: Rehydrator | None = None
    consumers: Mapping[str, HasBacklog] = field(default_factory=dict[str, HasBacklog])
    """Groups of consumers: `council` and `projector`; none answers their route with `store_unavailable`."""
    platform: PlatformDesk | None = None
    deployments: DeploymentDesk | None = None
    config: ConfigInForce | None = None
    figures: Figures | None = None
    """What this process counted; None answers `/metrics` with `not_found`."""
    clock: Clock | None = None
    """Counts the requests of each principal (AP-9); None counts none."""
    close: Callable[[], Awaitable[None]] | None = None
    """Lets go of the graph's connections, when the application ends."""


def make_front_parts(
    endpoints: Endpoints, desk: PlanningDesk, *, clock: Clock, figures: Figures | None = None
) -> FrontParts:
    """Every part, over the stores of a running fleet; no store is asked before a request comes."""
    graph = make_graph(endpoints)
    return FrontParts(
        stories=make_story_desk(endpoints, desk),
        gates=make_gate_desk(endpoints, desk),
        coach=make_coach_desk(endpoints),
        audit=make_audit_desk(endpoints),
        projects=make_project_desk(endpoints, desk),
        letters=make_dead_letters(endpoints),
        statistics=make_context_statistics(endpoints, graph),
        decisions=make_decision_desk(desk, graph),
        rehydrator=make_rehydrator(endpoints, desk),
        consumers=make_consumers(endpoints),
        platform=make_platform_desk(endpoints),
        deployments=make_deployment_desk(endpoints, desk),
        config=_config(endpoints),
        figures=figures,
        clock=clock,
        close=graph.close,
    )


def _config(endpoints: Endpoints) -> ConfigInForce:
    files = endpoints.files
    models = load_models(files.document("models.yaml"))
    prompts = parse_prompts({n: files.read(n).decode() for n in files.names() if n.endswith(".md")})
    personas = {path: persona.text for path, persona in prompts.personas.items()}
    return ConfigInForce(models=models, roles=active_roles(files), digests=files.digests(), personas=personas)
