"""Commands about calls of tools and runs within a story: start one, or cancel a run (RT-30..RT-35, RC-20..RC-24).

Whoever asks says what is wanted. Everything that a decision depends on beside that comes from the story as recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field

from fleet.events.payload import Payload
from fleet.events.step import Cost, PolicyRef, Provenance, Reserve, StepFinished, StepStarted, ToolDenied
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.errors import (
    AlreadyClaimed,
    ApprovalRequired,
    FleetError,
    IdempotencyMismatch,
    InvalidInput,
    InvalidTransition,
    NotFound,
    PolicyDenied,
    SandboxUnavailable,
)
from fleet.kernel.ids import Digest, EntityId, StepId
from fleet.kernel.types import EffectClass, Phase
from fleet.models.profiles import Budgets
from fleet.planning.platform_state import PlatformState
from fleet.policy.roles import roles_held
from fleet.policy.rules.calls import Allowed, CallFacts, Denied, NeedsApproval, ToolCall, request_document
from fleet.policy.rules.config import Policy
from fleet.policy.rules.policy import decide as decide_call
from fleet.policy.rules.policy import enforce
from fleet.policy.runs.spec import Grantee, RunResult, RunSpec
from fleet.story.allowance import used_up
from fleet.story.commands.command import Attachment, Caller, Facts, Outcome, RefusedOnRecord, StoryCommand
from fleet.story.commands.interventions import require_unpaused
from fleet.story.state import MAX_DENIALS, StoryState, stuck_on_denial, tool_approvals
from fleet.story.tool_steps import (
    claimed_by,
    consent_attempt,
    known_trees,
    open_asked_steps,
    request_consent,
    session_steps,
    session_tree,
    step_key,
)

MAX_OPEN = 32
"""Calls and runs of one story at one time."""


@dataclass(frozen=True, slots=True)
class ToolFacts:
    """What a call or a run is decided on."""

    policy: Policy
    phase: Phase
    epoch: int
    """Of the story's owner now."""
    has_tools: bool
    platform: PlatformState | None
    """What is paused; None where nobody pauses anything."""
    budgets: Budgets
    """The configured limits."""
    preview: Mapping[str, Any] | None = None
    """What the call would do, for the person who is asked (RT-62)."""
    history: Sequence[Payload] = ()
    """Everything on record, for a refusal that may be one of many (RT-67)."""


class Judgement(NamedTuple):
    """What the policy says of a call."""

    call: ToolCall
    facts: CallFacts
    decision: Allowed | NeedsApproval | Denied
    spec: RunSpec | None = None
    """Of a run."""


class _ToolCommand(StoryCommand):
    """A call or a run in a role, perhaps for a task."""

    model_config = ConfigDict(extra="forbid")
    as_role: Annotated[str, Field(max_length=60)]
    task_id: EntityId | None = None

    def judge(self, state: StoryState, facts: Facts) -> Judgement:
        """What the policy says of it now; `preview` and `history` of the facts play no part.

        Raises:
            ApprovalRequired: the story, its project or the fleet is paused.
            IdempotencyMismatch: this call or run was asked for before.
            AlreadyClaimed: too many are under way.
        """
        raise NotImplementedError

    def preview_attempt(self, state: StoryState, facts: Facts, judged: Judgement) -> int | None:
        """The number of the request whose card shows what the call would do; None when nobody has to be asked."""
        if not isinstance(judged.decision, NeedsApproval) or judged.spec is not None:
            return None
        return consent_attempt(state, judged.decision, now_ms=facts.now_ms)

    def _open(self, state: StoryState, facts: Facts, step_id: StepId) -> ToolFacts:
        gathered = facts.of(ToolFacts)
        require_unpaused(state)
        if gathered.platform is not None:
            gathered.platform.require_running(state.project_id)
        if step_id in state.steps:
            raise IdempotencyMismatch(f"step {step_id} was asked for before: use a new key for another call")
        if len(open_asked_steps(state)) >= MAX_OPEN:
            raise AlreadyClaimed(
                f"{MAX_OPEN} calls and runs of story {state.story_id} are under way: wait for one of them"
            )
        return gathered


class InvokeTool(_ToolCommand):
    """A tool is to be called in a session."""

    command = "invoke_tool"
    session_id: EntityId
    invocation: Annotated[str, Field(pattern=r"^[a-z0-9]{8,40}$")]
    epoch: int
    """Of the story's owner when the session was opened."""
    is_read_only: bool = False
    call: ToolCall

    @property
    def step_id(self) -> StepId:
        """The step that the call is."""
        return StepId(f"tool/{self.session_id}/{self.invocation}")

    def judge(self, state: StoryState, facts: Facts) -> Judgement:
        """What the policy says of the call now; see `_ToolCommand.judge`.

        Raises:
            SandboxUnavailable: this fleet has no tools.
            PolicyDenied: the session is that of somebody else.
        """
        if not facts.of(ToolFacts).has_tools:
            raise SandboxUnavailable("this council shard has no tools wired: nothing was started")
        gathered = self._open(state, facts, self.step_id)
        if {step.started.principal for step in session_steps(state, self.session_id)} - {facts.caller.principal}:
            raise PolicyDenied(
                f"session {self.session_id} is not that of {facts.caller.principal}", rule_id="session_not_own"
            )
        known = call_facts(
            state,
            gathered.policy,
            facts.caller,
            role=self.as_role,
            phase=gathered.phase,
            task_id=self.task_id,
            epoch=self.epoch,
            current_epoch=gathered.epoch,
            tree=session_tree(state, self.session_id, self.task_id),
            budgets=gathered.budgets,
            now_ms=facts.now_ms,
            is_read_only=self.is_read_only,
        )
        approvals = tool_approvals(state)
        decision = decide_call(self.call, known, policy=gathered.policy, approvals=approvals, now_ms=facts.now_ms)
        return Judgement(self.call, known, decision)

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The start of the call.

        Raises:
            RefusedOnRecord: with PolicyDenied, and the refusal; or with ApprovalRequired, and the one request for it.
            PolicyDenied, SandboxUnavailable, IdempotencyMismatch, ApprovalRequired: see `judge`.
            AlreadyClaimed: another call of the session changes its workspace now, or too many are under way.
        """
        judged = self.judge(state, facts)
        allowed = _require_allowed(state, facts, judged)
        request = Attachment(canonical_json(request_document(judged.call, judged.facts)))
        obligations = allowed.obligations
        started = _start(
            state, facts, judged, allowed, self.step_id, request, "tool", obligations.effect, obligations.timeout_s
        )
        self._require_turn(state, started)
        return (request, started)

    def _require_turn(self, state: StoryState, started: StepStarted) -> None:
        """Two calls that change one workspace would each begin with the same tree, and one change would be lost."""
        if started.effect == "PURE":
            return
        for step in session_steps(state, self.session_id):
            if step.finished is None and step.started.effect != "PURE":
                raise AlreadyClaimed(
                    f"call {step.started.step_id} changes the workspace of session {self.session_id}: wait for it",
                    holder=step.started.step_id,
                )


class StartRun(_ToolCommand):
    """A command is to be run in the sandbox.

    It is decided as a call of `exec.run`. An approval holds for the whole specification, not for its command alone.
    """

    command = "start_run"
    run_id: EntityId
    spec: RunSpec

    @property
    def step_id(self) -> StepId:
        """The step that the run is."""
        return StepId(f"run/{self.run_id}")

    def judge(self, state: StoryState, facts: Facts) -> Judgement:
        """What the policy says of the run now; see `_ToolCommand.judge`.

        Raises:
            InvalidInput: the specification names a grantee or an open input.
        """
        gathered, spec = self._open(state, facts, self.step_id), self.spec
        if spec.grantee is not None:
            raise InvalidInput("grantee is set by the fleet: leave it out", field="spec.grantee")
        if spec.interactive:
            raise InvalidInput("a run of a story has no open input: leave interactive out", field="spec.interactive")
        call = ToolCall(tool="exec", op="run", args={"argv": list(spec.argv)})
        known = call_facts(
            state,
            gathered.policy,
            facts.caller,
            role=self.as_role,
            phase=gathered.phase,
            task_id=self.task_id,
            epoch=gathered.epoch,
            current_epoch=gathered.epoch,
            tree=spec.tree,
            budgets=gathered.budgets,
            now_ms=facts.now_ms,
        )
        known = replace(known, environment=f"run:{spec.digest}")
        approvals = tool_approvals(state)
        decision = decide_call(call, known, policy=gathered.policy, approvals=approvals, now_ms=facts.now_ms)
        if not isinstance(decision, Denied) and (why := _spec_refusal(state, gathered.policy, spec)):
            decision = Denied(
                rule_id=why[0],
                policy_digest=decision.policy_digest,
                request_digest=decision.request_digest,
                reason=why[1],
            )
        return Judgement(call, known, decision, spec)

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The start of the run. Raises as a call does."""
        judged = self.judge(state, facts)
        allowed = _require_allowed(state, facts, judged)
        spec = self.spec.model_copy(update={"grantee": Grantee(role=self.as_role, tool="exec", op="run")})
        request = Attachment(canonical_json(spec.document))
        # A run is asked for by key, so it can be joined by a next owner.
        started = _start(state, facts, judged, allowed, self.step_id, request, "run", "KEYED", spec.limits.overall_s)
        return (request, started)


@dataclass(frozen=True, slots=True)
class CancelFacts:
    """What the end of a run is decided on."""

    spec: RunSpec | None
    """Of the run; None when the story has no such run."""


class CancelRun(StoryCommand):
    """A run has the result `cancelled`, whatever its processes still do (RC-24); the owner ends them."""

    model_config = ConfigDict(extra="forbid")
    command = "cancel_run"
    run_id: EntityId

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The result of the run.

        Raises:
            NotFound: there is no such run of this caller, who is no po.
            InvalidTransition: it is over.
        """
        caller, step, spec = facts.caller, state.steps.get(f"run/{self.run_id}"), facts.of(CancelFacts).spec
        if step is None or spec is None or not (step.started.principal == caller.principal or "po" in caller.roles):
            raise NotFound(f"story {state.story_id} has no run {self.run_id} of {caller.principal}", run_id=self.run_id)
        if step.finished is not None:
            raise InvalidTransition(
                f"run {self.run_id} is over already: {step.finished.outcome}",
                state=step.finished.outcome,
                event=self.command,
                allowed=[],
            )
        return cancelled_run(step.started.step_id, spec)


def cancelled_run(step_id: StepId, spec: RunSpec) -> tuple[Attachment, StepFinished]:
    """The record of a run that was ended before its result was there."""
    result = RunResult(status="cancelled", reason="cancelled", exit_code=None, tree_in=spec.tree)
    stored = Attachment(result.model_dump_json().encode())
    finished = StepFinished(
        step_id=step_id,
        outcome="cancelled",
        result_digest=stored.digest,
        reason=result.reason,
        cost=Cost(priced=True, cost_microusd=0),
        provenance=Provenance(tree_in_digest=spec.tree),
    )
    return stored, finished


def call_facts(
    state: StoryState,
    policy: Policy,
    caller: Caller,
    *,
    role: str,
    phase: Phase,
    task_id: EntityId | None,
    epoch: int,
    current_epoch: int,
    tree: Digest | None,
    budgets: Budgets,
    now_ms: int,
    is_read_only: bool = False,
) -> CallFacts:
    """What the product knows about a call in this story now."""
    over = used_up(state, budgets, role=role, task_id=task_id, now_ms=now_ms)
    held = roles_held(policy.roles, caller.principal, caller.roles)
    is_parked = state.disposition == "parked"
    return CallFacts(
        principal=caller.principal,
        is_enabled=bool(held),
        role=role,
        roles_held=held,
        phase=phase,
        story="closed" if state.closed else "cancelled" if state.is_over else "parked" if is_parked else "active",
        rigor=state.rigor,
        epoch=epoch,
        current_epoch=current_epoch,
        task=task_id if task_id in state.tasks else None,
        claimed_by=claimed_by(state, task_id, now_ms=now_ms),
        is_read_only=is_read_only,
        used_up=over.message if over is not None else "",
        tree=tree,
        environment=policy.targets.environment,
    )


def _require_allowed(state: StoryState, facts: Facts, judged: Judgement) -> Allowed:
    match judged.decision:
        case Denied() as denied:
            raise _refuse(state, facts, judged, denied)
        case NeedsApproval() as decision:
            gathered, known = facts.of(ToolFacts), judged.facts
            shown = {**request_document(judged.call, known), "role": known.role, "principal": known.principal}
            shown |= {"task": known.task, "spec": judged.spec.document if judged.spec else None}
            consent = request_consent(
                state,
                decision,
                requester=known.principal,
                call=shown,
                now_ms=facts.now_ms,
                preview=gathered.preview,
            )
            error = _error_of(decision.model_copy(update={"approval_id": consent.approval_id}))
            if not consent.records:
                raise error
            raise RefusedOnRecord(consent.name, (Attachment(consent.card), *consent.records), error)
        case Allowed() as allowed:
            return allowed


def _refuse(state: StoryState, facts: Facts, judged: Judgement, denied: Denied) -> Exception:
    """The refusal, which goes on record unless the story is over.

    With it goes what it shows when the task is stuck on it (RT-67).
    """
    if state.is_over:
        return _error_of(denied)
    call, known = judged.call, judged.facts
    record = ToolDenied(
        tool=call.tool,
        op=call.op,
        principal=known.principal,
        as_role=known.role,
        task_id=known.task,
        rule_id=denied.rule_id,
        policy_digest=denied.policy_digest,
        reason=denied.reason,
        call_digest=digest_of_json({"tool": call.tool, "op": call.op, "args": call.args}),
    )
    stuck = stuck_on_denial(facts.of(ToolFacts).history, record) if known.task is not None else None
    noticed = None
    if stuck is not None:
        hint = f"{denied.reason}; it was asked for {MAX_DENIALS} times and refused: do something else"
        denied = denied.model_copy(update={"reason": hint})
        noticed = (f"stuck/{stuck.task_id}/{stuck.pattern}/{stuck.level}", stuck)
    # Not under the command's own id: a known id means that the command was carried out.
    name = hashlib.sha256(facts.command_id.encode()).hexdigest()[:32]
    return RefusedOnRecord(f"denied/{name}", (record,), _error_of(denied), noticed=noticed)


def _error_of(decision: NeedsApproval | Denied) -> FleetError:
    try:
        enforce(decision)
    except (ApprovalRequired, PolicyDenied) as error:
        return error
    raise AssertionError("only what is allowed passes")


def _start(
    state: StoryState,
    facts: Facts,
    judged: Judgement,
    allowed: Allowed,
    step_id: StepId,
    request: Attachment,
    kind: Literal["tool", "run"],
    effect: EffectClass,
    wall_s: int,
) -> StepStarted:
    """The start of a call or a run that was allowed; `wall_s` is what it may take."""
    return StepStarted(
        step_id=step_id,
        kind=kind,
        tool=judged.call.tool,
        op=judged.call.op,
        effect=effect,
        task_id=judged.facts.task,
        as_role=judged.facts.role,
        principal=judged.facts.principal,
        request_digest=request.digest,
        key=step_key(state.story_id, step_id, request.digest),
        deadline_ms=facts.now_ms + wall_s * 1000,
        policy=PolicyRef(rule_id=allowed.rule_id, digest=allowed.policy_digest),
        approval_id=allowed.obligations.consumes,
        reserve=Reserve(wall_ms=wall_s * 1000),
    )


def _spec_refusal(state: StoryState, policy: Policy, spec: RunSpec) -> tuple[str, str] | None:
    """Rule and reason of a specification that asks for more than its command's permission holds."""
    declared = policy.capability("exec", "run")
    assert declared is not None
    timeout_s = declared.declared.timeout_s
    if spec.limits.overall_s > timeout_s:
        return "argument_invalid", f"limits.overall_s is {spec.limits.overall_s}; at most {timeout_s}"
    if spec.tree is not None and spec.tree not in known_trees(state):
        return "tree_unknown", f"tree {spec.tree} does not belong to the story"
    if any(mount.kind == "repo" for mount in spec.mounts):
        return "mount_not_granted", "a repository is mounted by the fleet's own steps only"
    for host in spec.hosts:
        name = host.rsplit(":", 1)[0].lower()
        if not any(name == one or (one.startswith(".") and name.endswith(one)) for one in policy.targets.hosts):
            return "target_not_listed", f"host {host[:200]!r} is not listed"
    return None
