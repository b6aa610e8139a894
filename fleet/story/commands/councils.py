"""Commands on councils that people ask for: convene one, end one, send its outcome back (AP-77, AP-78, CN-63)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from fleet.council.config import CouncilConfig
from fleet.council.request import CouncilRequest, KeptRequest, RubricEntry, parse_request
from fleet.council.roster import derive_seed, quorum_of, reseated, seated
from fleet.events.budget import BudgetScope
from fleet.events.council import CouncilBudget, CouncilCancelled, CouncilOpened, RoundOpened
from fleet.events.story import StoryParked
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied, VersionConflict
from fleet.kernel.ids import CommandId, Digest, EntityId, StreamId, derive_id
from fleet.kernel.types import CouncilKind, Frozen, OutputKind
from fleet.planning.planning_config import EstimateConfig
from fleet.story.allowance import limits_of
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Attachment, Facts, Outcome, StoryCommand
from fleet.story.lifecycle import FsmConfig
from fleet.story.plan import design_decision
from fleet.story.state import CouncilRecord, StoryState
from fleet.story.tool_steps import known_trees
from fleet.story.undecided import require_decided_design

_ASKERS = frozenset({"architect", "qa", "po", "system"})
"""Roles that may ask for a council."""
_ENDERS = frozenset({"po", "architect"})
SENT_BACK = "sent back"
"""Name of the rubric entry that holds why an outcome was sent back."""
_BEGINNINGS: Any = {"selection": (0, "drafting"), "gate": (0, "evidence"), "estimate": (1, "balloting")}
"""Round and phase in which a council of this kind begins."""
_ENTRIES = 10

_Id = Annotated[str, Field(min_length=3, max_length=80)]
_Name = Annotated[str, Field(min_length=1, max_length=60)]


class RubricAsk(Frozen):
    """One thing that the outcome is judged by."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    text: Annotated[str, Field(min_length=1, max_length=2000)]
    weight: Annotated[int, Field(ge=1, le=1000)] = 1


# Source: CN-6.
class ConstraintsAsk(Frozen):
    """What the outcome is judged by, and how long it may take."""

    rubric: Annotated[tuple[RubricAsk, ...], Field(min_length=1, max_length=10)]
    requirements: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=2000)], ...], Field(max_length=20)] = ()
    metadata: Annotated[
        dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=1000)]], Field(max_length=50)
    ] = Field(default_factory=dict)
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 900


# Source: CN-8.
class CouncilBudgetAsk(Frozen):
    """What the council may use, within the budget of its story."""

    tokens: Annotated[int, Field(gt=0, le=10**12)]
    wall_s: Annotated[int, Field(gt=0, le=86_400)]
    gpu_ms: Annotated[int | None, Field(ge=0, le=10**12)] = None


# Source: CN-11.
class SeatAsk(Frozen):
    """A seat: `developer-001`, with the principal `agent:developer-001` and the model policy of its role."""

    member_id: _Id
    role: _Name
    principal: Annotated[str, Field(min_length=3, max_length=80)]
    model_policy: _Name
    temperature: Annotated[str, Field(max_length=10)]
    prompt_variant: Annotated[int, Field(ge=0, le=1000)] = 0
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    can_propose: bool = True
    can_vote: bool = True
    veto: bool = False
    test_author: bool = False


# Source: CN-1..CN-12.
class CouncilAsk(Frozen):
    """A council about a story: what it is asked, who sits in it, what it may use.

    On request there are `selection` of a `text`, a `design`, a `plan` or a `code_patch` for a task, `gate` about a
    `subject` that the story has on record: a tree that was measured, or a text, and `estimate` of a task or of the
    story, whose output is `text`: `rounds` are those after the first, 2 unless they are named.
    """

    kind: CouncilKind = "selection"
    story_id: _Id
    task_id: _Id | None = None
    task_description: Annotated[str, Field(min_length=1, max_length=20_000)]
    role: _Name
    num_agents: Annotated[int | None, Field(ge=1, le=99)] = None
    rounds: Annotated[int | None, Field(ge=0, le=2)] = None
    max_iterations: Annotated[int | None, Field(ge=0, le=2)] = None
    """Another name of `rounds`."""
    constraints: ConstraintsAsk
    output_kind: OutputKind
    budget: CouncilBudgetAsk
    seed: Annotated[int | None, Field(ge=0, lt=2**31)] = None
    subject: Annotated[str | None, Field(max_length=71)] = None
    roster: Annotated[tuple[SeatAsk, ...] | None, Field(min_length=1, max_length=12)] = None


class CouncilReason(Frozen):
    """Why a council is ended, or its outcome sent back."""

    reason: Annotated[str, Field(min_length=10, max_length=2000)]


@dataclass(frozen=True, slots=True)
class CouncilFacts:
    """What a council on request is decided on."""

    config: CouncilConfig
    """The rules of councils, with the pools and the named agents in force."""
    roles: tuple[str, ...]
    """The roles that may sit in councils."""
    hidden: Mapping[str, str]
    """By role, why a member in it would be shown nothing of the story (CX-3)."""
    kept: KeptRequest | None = None
    """What the council that is sent back was asked; None of one that the story convened itself."""
    is_named: bool = False
    """Whether an event of the story refers to the subject; that somebody wrote it into a text is no such thing."""
    is_stored: bool = False
    """Whether the bytes of the subject are there."""


_Problem = tuple[str, str]
"""The pointer of a field, and what is wrong with it."""


class RequestCouncil(CouncilAsk, StoryCommand):
    """A council is open that advises; the story's own work is what it was."""

    model_config = ConfigDict(extra="forbid")
    command = "request_council"

    @property
    def subject_digest(self) -> Digest | None:
        """What a gate is about; None where none is named, or what is named is no digest."""
        try:
            return Digest(self.subject) if self.kind == "gate" and self.subject else None
        except InvalidInput:
            return None

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The council and its first round; nothing is spent on a request that is refused (CN-12).

        Raises:
            PolicyDenied: the caller holds none of the roles that may ask.
            InvalidTransition: the story is over, parked, paused, being restored or was not started; for a plan, its
                design is not decided yet or its build is over.
            QuorumNotReached: for a plan: the council on the story's design came to no decision.
            InvalidInput: `problems` lists all that is wrong with the request.
        """
        facts.caller.require(*sorted(_ASKERS), rule_id="AP-77", listed=True)
        _require_workable(state, self.command)
        council_id = council_id_of(facts.stream, facts.command_id)
        document = self.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        try:
            request = parse_request(document, facts.of(CouncilFacts).config, council_id=council_id)
        except InvalidInput as error:
            raise _invalid([(str(p["field"]), str(p["problem"])) for p in error.details["problems"]]) from error
        if request.kind == "selection" and request.output_kind == "plan":
            _require_plannable(state, facts.fsm, self.command)
        return _open(state, facts, council_id, request)


class _OnCouncil(CouncilReason, StoryCommand):
    """A command on one council of the story, with its reason."""

    sentences = {"reason": "reason has {} characters; write 10 to 2,000"}
    council_id: Annotated[str, Field(max_length=80)]


class RejectCouncil(_OnCouncil):
    """The outcome is sent back: a new council on the same question, whose rubric holds the reason (CN-63)."""

    command = "reject_council"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The new council and its first round.

        Raises:
            PolicyDenied: the caller is no person, or holds neither role.
            NotFound: the story has no such council.
            InvalidTransition: the council is not over, or it is the story's own: its gate is where to say no.
            VersionConflict: it was sent back already.
            InvalidInput: the reason or the rubric has no room.
        """
        facts.caller.require(*sorted(_ENDERS), rule_id="AP-77", listed=True)
        if not facts.caller.principal.is_human:
            raise PolicyDenied("only a person sends the outcome of a council back", rule_id="CN-63")
        _require_workable(state, self.command)
        record, gathered = find_council(state, self.council_id), facts.of(CouncilFacts)
        if gathered.kept is None:
            raise _refuse(state, self.command, _say_no_at(record))
        if record.status not in ("DECIDED", "UNDECIDED"):
            is_now = "still at work: cancel it" if record.status == "IN_PROGRESS" else "cancelled: ask for a new one"
            raise _refuse(state, self.command, f"council {record.opened.council_id} is {is_now}")
        again = next((c for c in state.councils.values() if c.opened.retry_of == record.opened.council_id), None)
        if again is not None:
            raise VersionConflict(
                f"council {record.opened.council_id} was sent back already, to {again.opened.council_id}",
                council_id=again.opened.council_id,
            )
        request = gathered.kept.request
        if request.output_kind == "plan":
            _require_plannable(state, facts.fsm, self.command)
        council_id = council_id_of(facts.stream, facts.command_id)
        reason = check_notes(self.reason, "reason")
        again_request = _with_reason(request, reason, seed=derive_seed(council_id), config=gathered.config)
        return _open(state, facts, council_id, again_request, retry_of=record.opened.council_id)


class CancelCouncil(_OnCouncil):
    """Ends the council and its calls without an outcome. A story whose own council it was waits for a person."""

    command = "cancel_council"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The end of the council, and the park of a story that needs it.

        Raises:
            PolicyDenied: the caller holds neither role.
            NotFound: the story has no such council.
            InvalidTransition: the council is over, or its story is.
        """
        facts.caller.require(*sorted(_ENDERS), rule_id="AP-77", listed=True)
        record = find_council(state, self.council_id)
        council_id = record.opened.council_id
        if state.is_over or record.status != "IN_PROGRESS":
            is_over = f"story {state.story_id}" if state.is_over else f"council {council_id}"
            raise _refuse(state, self.command, f"{is_over} is over: there is nothing to cancel")
        reason = check_notes(self.reason, "reason")
        cancelled = CouncilCancelled(council_id=council_id, reason=reason)
        # Without its council a gate waits for a person, and so does the story.
        if record.is_advice or record.opened.approval_id or state.disposition == "parked":
            return (cancelled,)
        about = f"task {record.opened.task_id}" if record.opened.task_id else "the design"
        detail = (
            f"{facts.caller.principal} cancelled the council on {about}: {reason}. Let the story go on with "
            f"`fleet resume {state.story_id}`, and a new council is convened; or edit it or cancel it"
        )
        return (cancelled, StoryParked(cause="operator", detail=detail, ref=council_id))


def council_id_of(stream: StreamId, command_id: CommandId) -> EntityId:
    """The id of the council that this command opens: known before it is carried out, and the same each time."""
    return derive_id("co", stream, f"council/requested/{command_id}", 0)


def find_council(state: StoryState, council_id: str) -> CouncilRecord:
    """The council of the story; NotFound when there is none."""
    record = state.councils.get(council_id)
    if record is None:
        raise NotFound(f"story {state.story_id} has no council {council_id[:80]!r}", council_id=council_id[:80])
    return record


def _require_workable(state: StoryState, event: str) -> None:
    """Returns when the owner works on the story, so that the council is held."""
    is_now = None
    if state.is_over:
        is_now = "over"
    elif state.disposition == "parked":
        is_now = "parked: let it go on first"
    elif state.is_paused:
        is_now = "paused: resume it first"
    elif state.start is None:
        is_now = "not started: start it first"
    elif state.restoration is not None:
        is_now = "being restored: ask again on the tree that comes of it"
    if is_now is not None:
        raise _refuse(state, event, f"story {state.story_id} is {is_now}")


def _require_plannable(state: StoryState, fsm: FsmConfig, event: str) -> None:
    """Returns while tasks may still come of a plan: its design is decided, and its build is not over (PL-24)."""
    require_decided_design(state)
    if fsm.lifecycles[state.lifecycle].phase(state.state) not in ("DESIGN", "BUILD"):
        is_now = "past its build: take it back first, or ask for a text"
    elif design_decision(state) is None:
        is_now = "without a decided design: ask for one (output_kind design), or wait until its own is accepted"
    else:
        return
    raise _refuse(state, event, f"story {state.story_id} is {is_now}")


def _refuse(state: StoryState, event: str, message: str) -> InvalidTransition:
    return InvalidTransition(message, state=state.state, event=event, allowed=[])


def _say_no_at(record: CouncilRecord) -> str:
    opened = record.opened
    gate = "of its request" if opened.approval_id else "task_acceptance" if opened.task_id else "approve_design"
    return (
        f"council {record.opened.council_id} is the story's own, and its outcome goes on to gate {gate!r}: reject that "
        "approval with the reason (POST /api/approvals/{approval_id}/reject), and the work is done again"
    )


def _with_reason(request: CouncilRequest, reason: str, *, seed: int, config: CouncilConfig) -> CouncilRequest:
    """The same members are asked again, with the policies that the pools of their roles have now."""
    rubric = request.constraints.rubric
    if len(rubric) >= _ENTRIES:
        why = f"the rubric has {_ENTRIES} entries already: ask for a new council whose rubric holds it"
        raise _invalid([("/reason", why)])
    constraints = request.constraints.model_copy(update={"rubric": (*rubric, RubricEntry(name=SENT_BACK, text=reason))})
    roster = reseated(request.roster, config=config)
    return request.model_copy(update={"constraints": constraints, "seed": seed, "roster": roster})


def _invalid(problems: Sequence[_Problem]) -> InvalidInput:
    """All of them by pointer (GL-15); `field` is the first."""
    listed = "; ".join(f"{field}: {problem}" for field, problem in problems)
    return InvalidInput(
        f"the council was not opened: {listed}",
        field=problems[0][0],
        problems=[{"pointer": field, "message": problem} for field, problem in problems],
    )


def _open(
    state: StoryState,
    facts: Facts,
    council_id: EntityId,
    request: CouncilRequest,
    *,
    retry_of: EntityId | None = None,
) -> Outcome:
    gathered, estimates = facts.of(CouncilFacts), facts.planning.estimates
    if problems := _problems(state, facts, gathered, request):
        raise _invalid(problems)
    config, is_gate = gathered.config, request.kind == "gate"
    kept = KeptRequest(request, tuple((str(c.ac_id), c.text) for c in state.content.acceptance_criteria))
    rubric = Attachment(canonical_json(list(request.constraints.rubric)))
    asked = Attachment(canonical_json(kept.to_json()))
    wall_s = min(request.budget.wall_s, request.constraints.timeout_seconds)
    opened = CouncilOpened(
        council_id=council_id,
        kind=request.kind,
        output_kind=request.output_kind,
        task_id=request.task_id,
        subject_digest=request.subject or state.tree,
        roster=seated(request.roster, config),
        rubric_digest=rubric.digest,
        rule_version=config.rule_version,
        quorum=quorum_of(request.kind, request.num_agents),
        pass_threshold=config.threshold_at(state.rigor) if is_gate else "majority",
        rounds=_rounds(request, estimates),
        budget=CouncilBudget(tokens=request.budget.tokens, wall_s=wall_s, gpu_ms=request.budget.gpu_ms),
        seed=request.seed,
        deadline_at=facts.now_ms + wall_s * 1000,
        double_ballot=config.defaults.double_ballot,
        max_on_ballot=config.defaults.max_on_ballot,
        retry_of=retry_of,
        requested_by=facts.caller.principal,
        request_digest=asked.digest,
        scale=estimates.scale if request.kind == "estimate" else None,
    )
    number, phase = _BEGINNINGS[request.kind]
    return (rubric, asked, opened, RoundOpened(council_id=council_id, round=number, phase=phase))


def _rounds(request: CouncilRequest, estimates: EstimateConfig) -> int:
    """Rounds of repair; of an estimate those of answers, the first one included (PL-80)."""
    if request.kind == "estimate":
        return min(1 + request.rounds, estimates.max_rounds)
    # A gate is about what is there: nothing is drafted, and so nothing repaired.
    return 0 if request.kind == "gate" else request.rounds


def _problems(state: StoryState, facts: Facts, gathered: CouncilFacts, request: CouncilRequest) -> tuple[_Problem, ...]:
    """What stands against this request in this story, beside what is wrong with any (CN-12)."""
    if str(request.story_id) != state.story_id:
        return (("/story_id", f"the request came to story {state.story_id}"),)
    return (
        *_task_problems(state, request),
        *_seat_problems(gathered, request),
        *_budget_problems(state, facts, request),
        *_subject_problems(state, gathered, request),
    )


def _task_problems(state: StoryState, request: CouncilRequest) -> list[_Problem]:
    is_selection = request.kind == "selection"
    is_code = is_selection and request.output_kind == "code_patch"
    if request.task_id is not None and is_selection and request.output_kind == "plan":
        return [("/task_id", "a plan is of the whole story: leave the task out")]
    if request.task_id is None:
        return [("/task_id", "a council on code is about a task: name it")] if is_code else []
    task = state.tasks.get(request.task_id)
    if task is None:
        return [("/task_id", f"story {state.story_id} has no task {request.task_id}")]
    if task.is_terminal and (is_code or request.kind == "estimate"):
        return [("/task_id", f"task {request.task_id} is {task.state}")]
    busy = next((c.opened.council_id for c in state.councils.values() if _is_on(c, request.task_id)), None)
    return [("/task_id", f"council {busy} works on task {request.task_id}: wait for it")] if is_code and busy else []


def _is_on(council: CouncilRecord, task_id: EntityId) -> bool:
    opened = council.opened
    return council.status == "IN_PROGRESS" and opened.task_id == task_id and opened.output_kind == "code_patch"


def _seat_problems(gathered: CouncilFacts, request: CouncilRequest) -> list[_Problem]:
    roles, problems = gathered.roles, list[_Problem]()
    if request.role not in roles:
        problems.append(("/role", f"there is no assignable role {request.role!r}: {', '.join(roles)}"))
    for number, member in enumerate(request.roster):
        at = f"/roster/{number}"
        if member.role != request.role and member.role not in roles:
            problems.append((f"{at}/role", f"there is no assignable role {member.role!r}: {', '.join(roles)}"))
        elif member.role in roles and (denied := gathered.hidden.get(member.role)):
            problems.append((f"{at}/role", denied))
        seat, _, digits = member.member_id.rpartition("-")
        if seat != member.role or len(digits) != 3 or not digits.isdecimal():
            problems.append((f"{at}/member_id", f"a seat is named {member.role}-001, {member.role}-002 and so on"))
        if member.principal != f"agent:{member.member_id}":
            problems.append((f"{at}/principal", f"the principal of this seat is agent:{member.member_id}"))
        own = gathered.config.policy_of_seat(member.member_id, member.role)
        if member.model_policy not in (member.role, own):
            problems.append((f"{at}/model_policy", f"the seat answers with {own}"))
    return problems


def _budget_problems(state: StoryState, facts: Facts, request: CouncilRequest) -> list[_Problem]:
    """A council is paid by its story: what others on request may still use is not there twice (MB-20)."""
    scope = BudgetScope(kind="story", id=state.story_id)
    limits, totals = limits_of(state, facts.budgets, scope), state.budgets.usage(scope).totals()
    promised = [_unused(state, c) for c in state.councils.values() if c.is_advice and c.status == "IN_PROGRESS"]
    problems: list[_Problem] = []
    if limits.tokens is not None:
        left = max(0, limits.tokens - totals.used.tokens - sum(promised))
        if request.budget.tokens > left:
            problems.append(("/budget/tokens", f"the story has {left} tokens left for councils on request"))
    if limits.gpu_ms is not None and (request.budget.gpu_ms or 0) > max(0, limits.gpu_ms - totals.used.gpu_ms):
        problems.append(("/budget/gpu_ms", f"the story has {max(0, limits.gpu_ms - totals.used.gpu_ms)} gpu_ms left"))
    return problems


def _unused(state: StoryState, council: CouncilRecord) -> int:
    used = state.budgets.usage(BudgetScope(kind="council", id=council.opened.council_id)).totals().used.tokens
    return max(0, council.opened.budget.tokens - used)


def _subject_problems(state: StoryState, gathered: CouncilFacts, request: CouncilRequest) -> list[_Problem]:
    subject = request.subject
    if request.kind != "gate" or subject is None or subject in state.reports:
        return []
    if subject in known_trees(state):
        return [("/subject", "this tree was never measured: only what has a report can be judged")]
    if not gathered.is_named:
        return [("/subject", f"story {state.story_id} has nothing on record by this digest")]
    if not gathered.is_stored:
        return [("/subject", "its bytes are not kept: there is nothing to show to voters")]
    return []
