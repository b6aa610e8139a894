"""The state of a story: a fold of its events and nothing else (LC-8, GL-16)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from fleet.council.candidate import Version
from fleet.council.state import CouncilState
from fleet.events.approval import ApprovalRequested
from fleet.events.council import CouncilOpened
from fleet.events.decision import DecisionProposed
from fleet.events.payload import Payload, is_absent, is_empty
from fleet.events.plan import PlanProposed, Task
from fleet.events.step import (
    SessionEnded,
    SessionForked,
    SessionStopped,
    SessionTold,
    StepFinished,
    StepOutcomeUnknown,
    StepStarted,
    StuckDetected,
    ToolDenied,
)
from fleet.events.story import AcceptanceCriterion, CriterionWaived, StoryScored, StoryStarted
from fleet.events.workspace import DimensionWaived, WorkspaceReported, WorkspaceScored
from fleet.kernel.ids import Digest, Principal, StoryId
from fleet.kernel.types import ApprovalStatus, DecisionStatus, Rigor
from fleet.policy.rules.calls import ApprovalRecord
from fleet.policy.runs.toolchains import OWN_TOOLCHAIN, toolchain_of_runs
from fleet.story.budgets import StoryBudgets
from fleet.story.checkpoints import Restoration, TreeCheckpoint
from fleet.story.council_facts import CouncilSaid, council_state
from fleet.story.deployments import Deployment, Incident

Disposition = Literal["active", "parked", "cancelled", "archived"]


def _frozen_map() -> Mapping[Any, Any]:
    # A plain dict, because a snapshot is written from it; `Mapping` is what keeps everybody from changing it.
    return {}


@dataclass(frozen=True, slots=True)
class Content:
    """What the story asks for."""

    title: str
    description: str
    acceptance_criteria: tuple[AcceptanceCriterion, ...]
    constraints: Mapping[str, Any]
    tags: tuple[str, ...]
    digest: Digest


@dataclass(frozen=True, slots=True)
class ParkReason:
    """Why the story waits for a person (LC-94)."""

    cause: str
    detail: str
    version: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A recorded consent: by whom, in which role, for which subject, until when."""

    principal: Principal
    as_role: str
    subject_digest: Digest
    expires_at_ms: int
    delegated: bool
    notes: str | None
    version: int


@dataclass(frozen=True, slots=True)
class Approval:
    """One request for consent and what came of it; `voided` is derived (LC-90), never an event."""

    request: ApprovalRequested
    requested_version: int
    status: ApprovalStatus = "requested"
    grant: Grant | None = None
    reason: str | None = None
    voided: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan version and where it stands (PL-10)."""

    proposal: PlanProposed
    status: Literal["PROPOSED", "ADOPTED", "SUPERSEDED", "REJECTED"] = "PROPOSED"


@dataclass(frozen=True, slots=True)
class Claim:
    """Who alone works on a task, or reviews it, and until when (LC-130)."""

    principal: Principal
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task, its workflow state, and the work that is under review."""

    task: Task
    state: str = "todo"
    attempt: int = 0
    """How often the task has entered `implementing`."""
    candidate_tree: Digest | None = None
    """The merge candidate under review: story tree plus the chosen work."""
    author: Principal | None = None
    feedback: tuple[str, ...] = ()
    rejections: Mapping[str, int] = field(default_factory=_frozen_map)
    reviewers: tuple[Principal, ...] = ()
    claim: Claim | None = None
    """The last claim that was not released; it may have expired."""
    entered_ms: Mapping[str, int] = field(default_factory=_frozen_map)
    """When it last came into each state that it was in."""
    stayed_ms: Mapping[str, int] = field(default_factory=_frozen_map)
    """How long it was in each state that it left, all visits together."""
    breaches: int = 0
    """Time limits that it passed (LC-131)."""

    @property
    def is_terminal(self) -> bool:
        """Done or cancelled."""
        return self.state in ("done", "cancelled")

    @property
    def held_by(self) -> Claim | None:
        """The claim of a task that is not over: nobody holds one that is."""
        return None if self.is_terminal else self.claim


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision and its status."""

    proposed: DecisionProposed
    version: int
    ts_ms: int
    status: DecisionStatus = "PROPOSED"
    decided_by: Principal | None = None
    as_role: str | None = None


@dataclass(frozen=True, slots=True)
class CouncilRecord:
    """A council: what was opened, everything that was delivered to it, and what came of it."""

    opened: CouncilOpened
    opened_version: int
    said: Mapping[str, CouncilSaid] = field(default_factory=_frozen_map)
    """By duty, the first answer of each; order of arrival never decides anything."""
    status: Literal["IN_PROGRESS", "DECIDED", "UNDECIDED", "CANCELLED"] = "IN_PROGRESS"
    winner: str | None = None
    reason: str | None = None
    verdict: Literal["approve", "reject"] | None = None
    """Of a gate."""

    @property
    def is_advice(self) -> bool:
        """Whether somebody asked for it: then the story itself does nothing with its outcome (CN-13)."""
        return self.opened.requested_by is not None

    @property
    def deliberation(self) -> CouncilState:
        """Where the procedure stands."""
        return council_state(self.opened, self.said.values())

    @property
    def chosen(self) -> Version:
        """What the council decided for: its author, its content and its evidence."""
        assert self.winner is not None, "only a decided council has chosen"
        return self.deliberation.version(self.winner)


def attempts_of(councils: Iterable[CouncilRecord]) -> int:
    """How many attempts at a task these councils stand for: one in place of a cancelled one is the same attempt."""
    return sum(council.opened.retry_of is None for council in councils)


@dataclass(frozen=True, slots=True)
class Step:
    """A journaled effect: started, and finished once its result is recorded."""

    started: StepStarted
    started_ms: int
    epoch: int
    finished: StepFinished | None = None
    attempt: int = 1
    """How often the step was started: again when it did not happen (RC-52), or its request changed (RC-58)."""
    unknown: StepOutcomeUnknown | None = None
    """Set when nobody knows whether the step happened."""
    resolution: Literal["happened", "not_happened"] | None = None
    """What a probe or a person said of it."""
    finished_version: int = 0
    """Of the event that recorded its result; 0 before."""

    @property
    def is_unresolved(self) -> bool:
        """Whether somebody has to say what came of the step before the story can go on."""
        return self.unknown is not None and self.resolution is None and self.finished is None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What is on record of a work session beside its steps: what people said and did to it, and its end."""

    told: tuple[SessionTold, ...] = ()
    stopped: SessionStopped | None = None
    forked: SessionForked | None = None
    """Set when it begins with the records of another session."""
    ended: SessionEnded | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question, answered or not."""

    question_id: str
    kind: str
    severity: str
    text: str
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What is left of a long history: its blob, the last event that it covers, and the event that recorded it."""

    blob: Digest
    covers_to: int
    version: int


@dataclass(frozen=True, slots=True)
class Docs:
    """The documentation as produced, and the tree that it is part of."""

    digest: Digest
    tree: Digest
    criteria: Mapping[str, tuple[str, ...]]
    version: int


@dataclass(frozen=True)
class StoryState:
    """Everything that guards, plans and reports may look at."""

    story_id: StoryId
    version: int
    created_ms: int
    updated_ms: int
    """When its last event was recorded, by its owner's clock."""
    author: Principal
    project_id: str
    epic_id: str
    content: Content
    rigor: Rigor
    lifecycle: str
    language: str
    priority: int
    state: str
    config: Mapping[str, Digest] = field(default_factory=_frozen_map)
    environment: str | None = None
    """Where it is deployed; None for a story that is not."""
    deployments: Mapping[str, Deployment] = field(default_factory=_frozen_map)
    """By id, oldest first."""
    incidents: Mapping[str, Incident] = field(default_factory=_frozen_map)
    disposition: Disposition = "active"
    park: ParkReason | None = None
    closed: bool = False
    is_paused: bool = False
    """No step starts until a person resumes the story (PL-50)."""
    score: StoryScored | None = None
    start: StoryStarted | None = None
    started_by: Principal | None = None
    approvals: Mapping[str, Approval] = field(default_factory=_frozen_map)
    plans: Mapping[str, Plan] = field(default_factory=_frozen_map)
    plan_id: str | None = None
    """The adopted plan."""
    derivation: str | None = None
    """The plan that somebody asked to be derived for the present text, until there is an answer (PL-24)."""
    tasks: Mapping[str, TaskState] = field(default_factory=_frozen_map)
    decisions: Mapping[str, Decision] = field(default_factory=_frozen_map)
    councils: Mapping[str, CouncilRecord] = field(default_factory=_frozen_map)
    steps: Mapping[str, Step] = field(default_factory=_frozen_map)
    questions: Mapping[str, Question] = field(default_factory=_frozen_map)
    base_tree: Digest | None = None
    base_commit: str | None = None
    packages: Annotated[str | None, Field(exclude_if=is_absent)] = None
    """The toolchain with the packages that the base asks for; None where none were fetched."""
    tree: Digest | None = None
    """The story tree; moves only by TreeMerged (RC-36)."""
    commit: str | None = None
    tree_authors: tuple[Principal, ...] = ()
    """Everybody whose work is in the tree since the base."""
    checkpoints: Mapping[str, TreeCheckpoint] = field(default_factory=_frozen_map)
    """By id, oldest first."""
    restoration: Restoration | None = None
    """What was asked for and is to be done next."""
    restorations_asked: int = 0
    restored: int = 0
    """How often the story tree was set back."""
    reports: Mapping[str, WorkspaceReported] = field(default_factory=_frozen_map)
    """Tree digest -> its latest workspace report."""
    scores: Mapping[str, WorkspaceScored] = field(default_factory=_frozen_map)
    """Tree digest -> its latest score."""
    docs: Docs | None = None
    report_version: int = 0
    report_digest: Digest | None = None
    milestones: tuple[int, ...] = ()
    """Versions of the newest events worth remembering, oldest first; a hundred at most."""
    summaries: Mapping[str, Summary] = field(default_factory=_frozen_map)
    """The last verified summary of each role's history, by base role; that of no role under "" (CX-56)."""
    loopbacks: Mapping[str, int] = field(default_factory=_frozen_map)
    owner: str = ""
    """The shard and incarnation that took the story last; empty before the first."""
    epoch: int = 0
    """The epoch under which that owner took it."""
    owned_version: int = 0
    """The version at which it did."""
    takeovers_without_progress: int = 0
    tokens: int = 0
    calls: int = 0
    budgets: StoryBudgets = StoryBudgets()
    sessions: Annotated[Mapping[str, SessionRecord], Field(exclude_if=is_empty)] = field(default_factory=_frozen_map)
    """Work sessions that people spoke to, stopped or forked, or that are over, by id."""
    waivers: Annotated[Mapping[str, CriterionWaived], Field(exclude_if=is_empty)] = field(default_factory=_frozen_map)
    """The last waiver of each criterion, by its id; one holds for the text that it names."""
    waived_dimensions: Annotated[Mapping[str, DimensionWaived], Field(exclude_if=is_empty)] = field(
        default_factory=_frozen_map
    )
    """The last waiver of each dimension of the score, by its name; one holds until it expires."""

    @property
    def plan(self) -> Plan | None:
        """The adopted plan, None before there is one."""
        return self.plans[self.plan_id] if self.plan_id else None

    def councils_on(self, task_id: str) -> tuple[CouncilRecord, ...]:
        """The story's own councils on the task, in the order of opening."""
        return tuple(c for c in self.councils.values() if c.opened.task_id == task_id and not c.is_advice)

    def design_councils(self) -> tuple[CouncilRecord, ...]:
        """The story's own councils on its design, in the order of opening."""
        return tuple(c for c in self.councils.values() if c.opened.output_kind == "design" and not c.is_advice)

    @property
    def is_over(self) -> bool:
        """Whether nothing will ever be owed again: closed, cancelled or archived."""
        return self.closed or self.disposition in ("cancelled", "archived")

    @property
    def toolchain(self) -> str:
        """The programs of the story's runs: those that it was started with, else those that its base asks for."""
        return toolchain_of_runs(self.start.toolchain if self.start else OWN_TOOLCHAIN, self.packages)

    @property
    def deployment(self) -> Deployment | None:
        """The newest deployment, however it ended."""
        return list(self.deployments.values())[-1] if self.deployments else None

    @property
    def open_incidents(self) -> tuple[Incident, ...]:
        """Those that nobody has closed, oldest first."""
        return tuple(incident for incident in self.incidents.values() if not incident.is_closed)

    @property
    def gone_back(self) -> int:
        """How often the story has gone back to an earlier state."""
        return sum(self.loopbacks.values())

    @property
    def open_steps(self) -> tuple[str, ...]:
        """The steps that were started and have no result."""
        return tuple(name for name, step in self.steps.items() if step.finished is None)

    @property
    def unresolved_steps(self) -> tuple[str, ...]:
        """The steps of which nobody knows whether they happened (RC-52)."""
        return tuple(name for name, step in self.steps.items() if step.is_unresolved)

    def with_(self, **changes: Any) -> StoryState:
        """A copy with these fields changed. A fold makes two an event: `replace` would take ten times as long."""
        if not changes.keys() <= self.__dict__.keys():
            raise TypeError(f"a story's state has no field {', '.join(sorted(changes.keys() - self.__dict__.keys()))}")
        copy = object.__new__(StoryState)
        # What `frozen` forbids is only to go by way of the attribute.
        copy.__dict__.update(self.__dict__)
        copy.__dict__.update(changes)
        return copy


MAX_DENIALS = 3
"""Identical refusals of one task within the last 20 of its steps."""
_WINDOW = 20


def stuck_on_denial(before: Sequence[Payload], denied: ToolDenied) -> StuckDetected | None:
    """What is to be recorded beside this refusal; None while it may be chance, or when it was recorded already.

    Identical are refusals of one call (tool, operation, arguments) to one principal in one task. A refused call starts
    no step, so the record names none.

    Args:
        before: everything that the story has on record, in order.
    """
    task = denied.task_id
    if task is None or denied.call_digest is None:
        return None
    if any(isinstance(p, StuckDetected) and (p.task_id, p.pattern) == (task, "repeated_denial") for p in before):
        return None  # each level at most once per task and pattern (MB-41)
    steps = [p for p in before if isinstance(p, StepStarted | ToolDenied) and p.task_id == task]
    same = [p for p in steps[-(_WINDOW - 1) :] if isinstance(p, ToolDenied) and _is_same(p, denied)]
    if len(same) + 1 < MAX_DENIALS:
        return None
    return StuckDetected(task_id=task, pattern="repeated_denial", steps=(), level=1)


def _is_same(one: ToolDenied, other: ToolDenied) -> bool:
    return (one.principal, one.call_digest) == (other.principal, other.call_digest)


def tool_approvals(state: StoryState) -> tuple[ApprovalRecord, ...]:
    """Every request at a gate `tool:<tool>.<op>`, in the order of recording.

    One that a step names is used up (RT-33), and with it every older one for the same request: a step that was started
    again names only its last.
    """
    steps = {step.started.approval_id for step in state.steps.values()}
    records: list[ApprovalRecord] = []
    used: set[tuple[str, str]] = set()
    for approval in reversed(list(state.approvals.values())):
        if approval.request.gate.startswith("tool:"):
            record = _record(approval)
            about = (record.gate, record.subject)
            if record.approval_id in steps:
                used.add(about)
            records.append(replace(record, is_consumed=about in used))
    return tuple(reversed(records))


def _record(approval: Approval) -> ApprovalRecord:
    request, grant = approval.request, approval.grant
    return ApprovalRecord(
        approval_id=request.approval_id,
        gate=request.gate,
        # A yes to another digest than the one that was asked about is a yes to nothing.
        subject=grant.subject_digest if grant else request.subject.digest,
        status="revoked" if approval.voided and approval.status == "granted" else approval.status,
        principal=grant.principal if grant else None,
        as_role=grant.as_role if grant else None,
        expires_at_ms=grant.expires_at_ms if grant else 0,
        is_delegated=grant.delegated if grant else False,
    )
