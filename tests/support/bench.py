"""One story's workbench over the in-memory twins, and role agents that answer from a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from fleet.audit.files.ed25519 import Ed25519Verifier
from fleet.audit.memory import MemoryCheckpointExport, MemoryCheckpointStore, MemoryRawLog
from fleet.audit.service.losses import LossDesk
from fleet.context.port import Tokenizers
from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.desk.planning import PlanningDesk
from fleet.desk.platform import PlatformDesk
from fleet.desk.projects import ProjectDesk
from fleet.events.envelope import StoredEvent
from fleet.forge.memory import MemoryForge
from fleet.kernel.clock import Clock, MemoryClock
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import Principal, StoryId, StreamId
from fleet.log.memory import MemoryEventLog, MemoryFeed, MemoryInbox, MemoryLeaseStore, MemorySnapshotStore
from fleet.models.chat import TokenUsage
from fleet.models.port import AgentAnswer, AgentRequest, Agents
from fleet.models.profiles import load_models
from fleet.models.prompts.pack_readers import PackReaders
from fleet.owner.brief_claims import BriefClaims
from fleet.owner.budgets import Budgeting
from fleet.owner.commands.handler import CommandHandler
from fleet.owner.council_pools import PoolRules
from fleet.owner.definitions import Definitions
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.steps import StepPolicy
from fleet.owner.platform_view import PlatformView
from fleet.owner.workbench import Workbench
from fleet.planning.coach_config import CoachConfig
from fleet.planning.planning_config import CeremonyTransition
from fleet.policy.roles import load_roles
from fleet.projects.brief_owners import BriefOwners
from fleet.projects.discover import Discoverer
from fleet.projects.platform_commands import DelegationRules, agent_roles
from fleet.projects.platform_owner import PlatformOwner
from fleet.projects.project_calls import ProjectCalls
from fleet.projects.project_commands import ProjectRules
from fleet.projects.project_owner import ProjectOwner, project_state
from fleet.projects.review import Reviewer
from fleet.report.service.reports import ReportService
from fleet.sandbox.memory import MemoryRunLedger, MemorySandboxBackend, Program, ProgramEnd
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.tools.port import ToolHost
from fleet.trees.memory import MemoryBlobStore
from fleet.wiring.endpoints import load_definitions
from tests.support.audit import SIGNER
from tests.support.rules import files, fsm, step_policy
from tests.support.story_events import STORY, digest

PEOPLE: dict[str, frozenset[str]] = {
    "user:ana": frozenset({"po"}),
    "user:quinn": frozenset({"qa"}),
    "user:root": frozenset({"po", "qa", "architect", "devops", "admin"}),
    "user:dev": frozenset({"developer"}),
    "user:archie": frozenset({"architect"}),
    "user:rita": frozenset({"reviewer"}),
}
STORY_TEXT: dict[str, Any] = {
    "title": "As an editor I want a slug for each title",
    "description": "Editors want a slug for each title so that links stay readable for people.",
    "acceptance_criteria": [
        "Given 'Hello World', when slugify is called, then it returns 'hello-world'",
        "Given an empty title, when slugify is called, then it raises ValueError",
    ],
}


@cache
def definitions() -> Definitions:
    """The packaged rules."""
    return load_definitions(files())


@dataclass
class ScriptedAgents:
    """`Agents` that answer with what `answer` returns; an error that it returns is raised. `asked` lists the ids."""

    answer: Callable[[AgentRequest], dict[str, Any] | BaseException]
    asked: list[str] = field(default_factory=list[str])
    requests: list[AgentRequest] = field(default_factory=list[AgentRequest])

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        self.asked.append(request_id)
        self.requests.append(request)
        value = self.answer(request)
        if isinstance(value, BaseException):
            raise value
        return AgentAnswer(
            value=value,
            prompt=digest("prompt"),
            reply=digest("reply"),
            usage=TokenUsage(tokens_in=10, tokens_out=5),
            engine="scripted",
            model="scripted",
            revision="1",
            latency_ms=3,
        )


def _nobody(request: AgentRequest) -> FleetError:
    return FleetError(f"nobody was to be asked for {request.kind}")


def _nothing(_: object) -> ProgramEnd:
    return ProgramEnd()


class World:
    """The stores of one test, and a workbench for each owner of a story."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        agents: ScriptedAgents | None = None,
        program: Program = _nothing,
        log: MemoryEventLog | None = None,
        policy: StepPolicy | None = None,
        tools: ToolHost | None = None,
        budgeting: Budgeting | None = None,
        readers: PackReaders | None = None,
        tokenizers: Tokenizers | None = None,
    ) -> None:
        self.budgeting = budgeting
        self.tokenizers, self.readers = tokenizers, readers
        self.clock = clock or MemoryClock()
        self.log, self.blobs = log or MemoryEventLog(), MemoryBlobStore()
        self.inbox = MemoryInbox(self.clock)
        self.feed = MemoryFeed(self.log, self.clock)
        self.platform = PlatformView(self.log, self.feed)
        self.snapshots = MemorySnapshotStore(self.log)
        self.leases = MemoryLeaseStore(self.log, self.clock)
        self.raw, self.checkpoints = MemoryRawLog(self.log), MemoryCheckpointStore()
        self.exported = MemoryCheckpointExport()
        self.policy, self.tools = policy or step_policy(), tools
        self.agents = agents or ScriptedAgents(_nobody)
        self.backend = MemorySandboxBackend(program, self.blobs)
        self.sandbox = ToolSupervisor(self.backend, MemoryRunLedger(self.clock), self.blobs, self.clock, "sandbox:test")
        self.forge = MemoryForge(self.blobs)
        self.desk = PlanningDesk(log=self.log, inbox=self.inbox, feed=self.feed, clock=self.clock, fsm=fsm())
        self.commands = CommandHandler(
            roles_of=lambda p: PEOPLE.get(p, frozenset()),
            coach=files().load("coach.yaml", CoachConfig),
            config_digests=files().digests(),
            projects=partial(project_state, self.log),
            readers=readers,
        )

    def project_owner(
        self,
        owner: str = "council:0/a1",
        *,
        with_model: bool = False,
        agents: Agents | None = None,
        transitions: tuple[CeremonyTransition, ...] = (),
    ) -> ProjectOwner:
        """What answers commands on projects; with a model, role agents are asked for proposals.

        Args:
            transitions: of a backlog review, instead of those of the packaged file.
        """
        coach = files().load("coach.yaml", CoachConfig)
        planning = definitions().planning
        ceremony = planning.ceremonies["backlog_review"]
        ceremony = ceremony.model_copy(update={"transitions": transitions}) if transitions else ceremony
        calls = ProjectCalls(agents or self.agents, self.clock, budgeting=self.budgeting, owner=owner)
        return ProjectOwner(
            log=self.log,
            leases=self.leases,
            inbox=self.inbox,
            clock=self.clock,
            owner=owner,
            roles_of=lambda p: PEOPLE.get(p, frozenset()),
            blobs=self.blobs,
            rules=ProjectRules(
                coach=coach,
                ceremony=ceremony,
                lifecycles=fsm().lifecycles,
                has_model=lambda profile: with_model,
                assignable_roles=load_roles(files().document("roles.yaml")).assignable,
            ),
            discoverer=Discoverer(calls, self.blobs, coach),
            reviewer=Reviewer(
                calls,
                self.log,
                self.blobs,
                self.clock,
                ceremony=ceremony,
                estimates=planning.estimates,
                hours=planning.derivation.estimated_hours,
            ),
            platform=self.platform,
        )

    def platform_owner(self, owner: str = "council:0/a1") -> PlatformOwner:
        """What answers commands on the fleet as a whole."""
        claims = BriefClaims(self.log, self.leases, self.clock, owner)
        view = PlatformView(self.log, self.feed)
        roles = load_roles(files().document("roles.yaml"))
        pools = PoolRules(definitions().council, load_models(files().document("models.yaml")), roles)
        rules = DelegationRules(fsm(), agent_roles(roles), self.clock.now_ms, pools)
        return PlatformOwner(
            log=self.log,
            claims=claims,
            view=view,
            rules=rules,
            roles_of=lambda p: PEOPLE.get(p, frozenset()),
            losses=self.losses,
        )

    @property
    def losses(self) -> LossDesk:
        """What the notary's actor accepts losses with."""
        return LossDesk(
            self.log,
            self.raw,
            self.checkpoints,
            self.exported,
            signer=SIGNER,
            verifier=Ed25519Verifier(),
            clock=self.clock,
        )

    def brief_owners(self, owner: str = "council:0/a1") -> BriefOwners:
        """What answers commands on all streams that no shard holds."""
        return BriefOwners(self.project_owner(owner), self.platform_owner(owner))

    @property
    def fleet(self) -> PlatformDesk:
        """What people ask of the fleet as a whole."""
        return PlatformDesk(view=PlatformView(self.log, self.feed), inbox=self.inbox, clock=self.clock)

    @property
    def projects(self) -> ProjectDesk:
        """What people ask of projects."""
        return ProjectDesk(log=self.log, inbox=self.inbox, blobs=self.blobs, planning=self.desk)

    async def journal(self, story_id: StoryId = STORY, *, epoch: int = 0) -> Journal:
        """A journal of the story as an owner of this epoch has it."""
        journal = Journal(
            log=self.log,
            blobs=self.blobs,
            clock=self.clock,
            sandbox=self.sandbox,
            agents=self.agents,
            story_id=story_id,
            epoch=epoch,
            policy=self.policy,
            snapshots=self.snapshots,
            budgeting=self.budgeting,
            platform=self.platform,
            packs=self.packs,
        )
        await journal.load()
        return journal

    async def bench(self, story_id: StoryId = STORY, epoch: int = 0) -> Workbench:
        """The workbench over that journal."""
        return Workbench(
            journal=await self.journal(story_id, epoch=epoch),
            rules=definitions(),
            packs=self.packs,
            forge=self.forge,
            blobs=self.blobs,
            clock=self.clock,
            reports=ReportService(self.log, self.blobs),
            tools=self.tools,
        )

    @property
    def packs(self) -> ContextService:
        """What builds packs, as a process that has just started has it."""
        return ContextService(
            self.log,
            self.blobs,
            files().load("context.yaml", ContextConfig),
            clock=self.clock,
            tokenizers=self.tokenizers,
            readers=self.readers,
        )

    async def events(self, story_id: StoryId = STORY) -> list[StoredEvent]:
        """Every event of the story."""
        return await self.log.read(StreamId.of_story(story_id))

    async def types(self, story_id: StoryId = STORY) -> list[str]:
        """The types of its events in order."""
        return [e.type for e in await self.events(story_id)]


ANA = Principal("user:ana")
