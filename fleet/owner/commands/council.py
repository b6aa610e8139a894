"""Commands on councils that people ask for: convene one, end one, send its outcome back (AP-77, AP-78, CN-63)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from fleet.context.scope import scopes_for
from fleet.council.config import CouncilConfig
from fleet.council.request import CouncilRequest, RubricEntry, parse_request
from fleet.council.roster import derive_seed, quorum_of, reseated
from fleet.events.budget import BudgetScope
from fleet.events.council import CouncilBudget, CouncilCancelled, CouncilOpened, RoundOpened
from fleet.events.payload import Payload
from fleet.events.story import StoryParked
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import (
    ArtifactNotFound,
    InvalidInput,
    InvalidTransition,
    NotFound,
    PolicyDenied,
    VersionConflict,
)
from fleet.kernel.ids import CommandId, Digest, EntityId, StreamId, derive_id
from fleet.log.port import Command
from fleet.owner.council_pools import council_rules, seated, sitting_roles
from fleet.owner.duties.advice import Asked, asked_of
from fleet.owner.workbench import Workbench
from fleet.planning.planning_config import EstimateConfig
from fleet.story.allowance import limits_of
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Caller
from fleet.story.plan import design_decision
from fleet.story.state import CouncilRecord, StoryState
from fleet.story.tool_steps import known_trees
from fleet.story.undecided import require_decided_design

ASKERS = frozenset({"architect", "qa", "po", "system"})
"""Roles that may ask for a council."""
_ENDERS = frozenset({"po", "architect"})
SENT_BACK = "sent back"
"""Name of the rubric entry that holds why an outcome was sent back."""
_BEGINNINGS: Any = {"selection": (0, "drafting"), "gate": (0, "evidence"), "estimate": (1, "balloting")}
"""Round and phase in which a council of this kind begins."""
_ENTRIES = 10
_TEXT = 2000


class Deciding(Protocol):
    """How a command becomes events."""

    async def __call__(
        self, handler: object, bench: Workbench, command: Command, caller: Caller, /
    ) -> tuple[Payload, ...]:
        """The events. Raises what the domain refuses."""
        ...


def council_id_of(stream: StreamId, command_id: CommandId) -> EntityId:
    """The id of the council that this command opens: known before it is carried out, and the same each time."""
    return derive_id("co", stream, f"council/requested/{command_id}", 0)


async def request_council(handler: object, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """A council is open that advises; the story's own work is what it was.

    Raises:
        PolicyDenied: the caller holds none of the roles that may ask.
        InvalidTransition: the story is over, parked, paused, being restored or was not started; for a plan, its design
            is not decided yet or its build is over.
        QuorumNotReached: for a plan: the council on the story's design came to no decision.
        InvalidInput: `problems` lists all that is wrong with the request; nothing was recorded or spent (CN-12).
    """
    caller.require(*sorted(ASKERS), rule_id="AP-77", listed=True)
    _require_workable(bench.state, "request_council")
    council_id = council_id_of(bench.journal.stream, command.command_id)
    try:
        request = parse_request(command.body, await council_rules(bench), council_id=council_id)
    except InvalidInput as error:
        found = [(str(p["field"]), str(p["problem"])) for p in error.details["problems"]]
        raise _invalid(found) from error
    if request.kind == "selection" and request.output_kind == "plan":
        _require_plannable(bench, "request_council")
    return await _opened(bench, caller, council_id, request)


async def reject_council(handler: object, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The outcome is sent back: a new council on the same question, whose rubric holds the reason (CN-63).

    Raises:
        PolicyDenied: the caller is no person, or holds neither role.
        InvalidTransition: the council is not over, or it is the story's own: its gate is where to say no.
        VersionConflict: it was sent back already.
    """
    caller.require(*sorted(_ENDERS), rule_id="AP-77", listed=True)
    if not caller.principal.is_human:
        raise PolicyDenied("only a person sends the outcome of a council back", rule_id="CN-63")
    state = bench.state
    _require_workable(state, "reject_council")
    record = _found(state, command)
    asked = await asked_of(bench, record)
    if asked is None:
        raise _refused(state, "reject_council", _say_no_at(record))
    if record.status not in ("DECIDED", "UNDECIDED"):
        is_now = "still at work: cancel it" if record.status == "IN_PROGRESS" else "cancelled: ask for a new one"
        raise _refused(state, "reject_council", f"council {record.opened.council_id} is {is_now}")
    again = next((c for c in state.councils.values() if c.opened.retry_of == record.opened.council_id), None)
    if again is not None:
        raise VersionConflict(
            f"council {record.opened.council_id} was sent back already, to {again.opened.council_id}",
            council_id=again.opened.council_id,
        )
    if asked.request.output_kind == "plan":
        _require_plannable(bench, "reject_council")
    council_id = council_id_of(bench.journal.stream, command.command_id)
    reason = check_notes(str(command.body.get("reason") or ""), "reason")
    request = _with_reason(asked.request, reason, seed=derive_seed(council_id), config=await council_rules(bench))
    return await _opened(bench, caller, council_id, request, retry_of=record.opened.council_id)


async def cancel_council(handler: object, bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Ends the council and its calls without an outcome. A story whose own council it was waits for a person.

    Raises:
        PolicyDenied: the caller holds neither role.
        InvalidTransition: the council is over, or its story is.
    """
    caller.require(*sorted(_ENDERS), rule_id="AP-77", listed=True)
    state = bench.state
    record = _found(state, command)
    council_id = record.opened.council_id
    if state.is_over or record.status != "IN_PROGRESS":
        is_over = f"story {state.story_id}" if state.is_over else f"council {council_id}"
        raise _refused(state, "cancel_council", f"{is_over} is over: there is nothing to cancel")
    reason = check_notes(str(command.body.get("reason") or ""), "reason")
    cancelled = CouncilCancelled(council_id=council_id, reason=reason)
    # Without its council a gate waits for a person, and so does the story.
    if record.is_advice or record.opened.approval_id or state.disposition == "parked":
        return (cancelled,)
    about = f"task {record.opened.task_id}" if record.opened.task_id else "the design"
    detail = (
        f"{caller.principal} cancelled the council on {about}: {reason}. Let the story go on with "
        f"`fleet resume {state.story_id}`, and a new council is convened; or edit it or cancel it"
    )
    return (cancelled, StoryParked(cause="operator", detail=detail, ref=council_id))


COUNCIL_COMMANDS: Mapping[str, Deciding] = {
    "request_council": request_council,
    "cancel_council": cancel_council,
    "reject_council": reject_council,
}


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
        raise _refused(state, event, f"story {state.story_id} is {is_now}")


def _require_plannable(bench: Workbench, event: str) -> None:
    """Returns while tasks may still come of a plan: its design is decided, and its build is not over (PL-24)."""
    require_decided_design(bench.state)
    state, lifecycle = bench.state, bench.rules.fsm.lifecycles[bench.state.lifecycle]
    if lifecycle.phase(state.state) not in ("DESIGN", "BUILD"):
        is_now = "past its build: take it back first, or ask for a text"
    elif design_decision(state) is None:
        is_now = "without a decided design: ask for one (output_kind design), or wait until its own is accepted"
    else:
        return
    raise _refused(state, event, f"story {state.story_id} is {is_now}")


def _refused(state: StoryState, event: str, message: str) -> InvalidTransition:
    return InvalidTransition(message, state=state.state, event=event, allowed=[])


def _found(state: StoryState, command: Command) -> CouncilRecord:
    name = str(command.body.get("council_id") or "")
    record = state.councils.get(name)
    if record is None:
        raise NotFound(f"story {state.story_id} has no council {name[:80]!r}", council_id=name[:80])
    return record


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
    if len(reason) > _TEXT or len(rubric) >= _ENTRIES:
        why = f"a reason has at most {_TEXT} characters here"
        if len(rubric) >= _ENTRIES:
            why = f"the rubric has {_ENTRIES} entries already: ask for a new council whose rubric holds it"
        raise _invalid([("/reason", why)])
    constraints = request.constraints.model_copy(update={"rubric": (*rubric, RubricEntry(name=SENT_BACK, text=reason))})
    roster = reseated(request.roster, config=config)
    return request.model_copy(update={"constraints": constraints, "seed": seed, "roster": roster})


def _invalid(problems: list[tuple[str, str]]) -> InvalidInput:
    """All of them by pointer (GL-15); `field` is the first."""
    listed = "; ".join(f"{field}: {problem}" for field, problem in problems)
    return InvalidInput(
        f"the council was not opened: {listed}",
        field=problems[0][0],
        problems=[{"pointer": field, "message": problem} for field, problem in problems],
    )


async def _opened(
    bench: Workbench,
    caller: Caller,
    council_id: EntityId,
    request: CouncilRequest,
    *,
    retry_of: EntityId | None = None,
) -> tuple[Payload, ...]:
    problems = await _problems(bench, request)
    if problems:
        raise _invalid(problems)
    state, config, is_gate = bench.state, bench.rules.council, request.kind == "gate"
    asked = Asked(request, tuple((str(c.ac_id), c.text) for c in bench.criteria))
    wall_s = min(request.budget.wall_s, request.constraints.timeout_seconds)
    opened = CouncilOpened(
        council_id=council_id,
        kind=request.kind,
        output_kind=request.output_kind,
        task_id=request.task_id,
        subject_digest=request.subject or state.tree,
        roster=seated(request.roster, await council_rules(bench)),
        rubric_digest=await bench.blobs.put(canonical_json(list(request.constraints.rubric))),
        rule_version=config.rule_version,
        quorum=quorum_of(request.kind, request.num_agents),
        pass_threshold=config.threshold_at(state.rigor) if is_gate else "majority",
        rounds=_rounds(request, bench.rules.planning.estimates),
        budget=CouncilBudget(tokens=request.budget.tokens, wall_s=wall_s, gpu_ms=request.budget.gpu_ms),
        seed=request.seed,
        deadline_at=bench.now_ms + wall_s * 1000,
        double_ballot=config.defaults.double_ballot,
        max_on_ballot=config.defaults.max_on_ballot,
        retry_of=retry_of,
        requested_by=caller.principal,
        request_digest=await bench.blobs.put(canonical_json(asked.to_json())),
        scale=bench.rules.planning.estimates.scale if request.kind == "estimate" else None,
    )
    number, phase = _BEGINNINGS[request.kind]
    return (opened, RoundOpened(council_id=council_id, round=number, phase=phase))


def _rounds(request: CouncilRequest, estimates: EstimateConfig) -> int:
    """Rounds of repair; of an estimate those of answers, the first one included (PL-80)."""
    if request.kind == "estimate":
        return min(1 + request.rounds, estimates.max_rounds)
    # A gate is about what is there: nothing is drafted, and so nothing repaired.
    return 0 if request.kind == "gate" else request.rounds


async def _problems(bench: Workbench, request: CouncilRequest) -> list[tuple[str, str]]:
    """What stands against this request in this story, beside what is wrong with any (CN-12)."""
    if str(request.story_id) != bench.state.story_id:
        return [("/story_id", f"the request came to story {bench.state.story_id}")]
    return [
        *_task_problems(bench.state, request),
        *_seat_problems(bench, request, await council_rules(bench)),
        *_budget_problems(bench, request),
        *await _subject_problems(bench, request),
    ]


def _task_problems(state: StoryState, request: CouncilRequest) -> list[tuple[str, str]]:
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


def _seat_problems(bench: Workbench, request: CouncilRequest, config: CouncilConfig) -> list[tuple[str, str]]:
    roles, found = sitting_roles(bench), list[tuple[str, str]]()
    if request.role not in roles:
        found.append(("/role", f"there is no assignable role {request.role!r}: {', '.join(roles)}"))
    phase = "BUILD" if request.task_id else "DESIGN"
    for number, member in enumerate(request.roster):
        at = f"/roster/{number}"
        if member.role != request.role and member.role not in roles:
            found.append((f"{at}/role", f"there is no assignable role {member.role!r}: {', '.join(roles)}"))
        elif member.role in roles and (denied := _denied(bench, member.role, phase)):
            found.append((f"{at}/role", denied))
        seat, _, digits = member.member_id.rpartition("-")
        if seat != member.role or len(digits) != 3 or not digits.isdecimal():
            found.append((f"{at}/member_id", f"a seat is named {member.role}-001, {member.role}-002 and so on"))
        if member.principal != f"agent:{member.member_id}":
            found.append((f"{at}/principal", f"the principal of this seat is agent:{member.member_id}"))
        own = config.policy_of_seat(member.member_id, member.role)
        if member.model_policy not in (member.role, own):
            found.append((f"{at}/model_policy", f"the seat answers with {own}"))
    return found


def _denied(bench: Workbench, role: str, phase: str) -> str | None:
    """Says why a member in this role would be shown nothing of the story (CX-3). None when it is shown its pack."""
    try:
        scopes_for(bench.rules.context, phase, role)
    except PolicyDenied as error:
        return error.message
    return None


def _budget_problems(bench: Workbench, request: CouncilRequest) -> list[tuple[str, str]]:
    """A council is paid by its story: what others on request may still use is not there twice (MB-20)."""
    state = bench.state
    scope = BudgetScope(kind="story", id=state.story_id)
    limits, totals = limits_of(state, bench.journal.budgeting.limits, scope), state.budgets.usage(scope).totals()
    promised = [_unused(state, c) for c in state.councils.values() if c.is_advice and c.status == "IN_PROGRESS"]
    found: list[tuple[str, str]] = []
    if limits.tokens is not None:
        left = max(0, limits.tokens - totals.used.tokens - sum(promised))
        if request.budget.tokens > left:
            found.append(("/budget/tokens", f"the story has {left} tokens left for councils on request"))
    if limits.gpu_ms is not None and (request.budget.gpu_ms or 0) > max(0, limits.gpu_ms - totals.used.gpu_ms):
        found.append(("/budget/gpu_ms", f"the story has {max(0, limits.gpu_ms - totals.used.gpu_ms)} gpu_ms left"))
    return found


def _unused(state: StoryState, council: CouncilRecord) -> int:
    used = state.budgets.usage(BudgetScope(kind="council", id=council.opened.council_id)).totals().used.tokens
    return max(0, council.opened.budget.tokens - used)


async def _subject_problems(bench: Workbench, request: CouncilRequest) -> list[tuple[str, str]]:
    subject, state = request.subject, bench.state
    if request.kind != "gate" or subject is None:
        return []
    if subject in state.reports:
        return []
    if subject in known_trees(state):
        return [("/subject", "this tree was never measured: only what has a report can be judged")]
    if not await _is_named(bench, subject):
        return [("/subject", f"story {state.story_id} has nothing on record by this digest")]
    try:
        await bench.blobs.get(subject)
    except ArtifactNotFound:
        return [("/subject", "its bytes are not kept: there is nothing to show to voters")]
    return []


async def _is_named(bench: Workbench, subject: Digest) -> bool:
    """Whether an event of the story refers to it; that somebody wrote it into a text is no such thing."""
    return any(subject in _digests(payload.model_dump()) for _, payload in await bench.journal.history())


def _digests(value: Any) -> Iterator[Digest]:
    if isinstance(value, Digest):
        yield value
    elif isinstance(value, Mapping):
        yield from (found for item in value.values() for found in _digests(item))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    elif isinstance(value, list | tuple):
        yield from (found for item in value for found in _digests(item))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
