"""Approvals: which subject a gate is about, which grants are valid, who may grant (LC-70..LC-78)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fleet.events.approval import ApprovalRequested, Subject
from fleet.events.story import RunDelegation
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.kernel.ids import Digest, Principal
from fleet.kernel.types import is_reason
from fleet.policy.capabilities import MAX_GRANT_S
from fleet.policy.roles import require_role
from fleet.story.lifecycle import RIGORS, FsmConfig, Gate
from fleet.story.state import Approval, StoryState, TaskState


@dataclass(frozen=True, slots=True)
class Terms:
    """Who may answer a request, and for how long a yes holds."""

    role: str
    actor: Literal["human", "any"]
    grant_ttl_s: int


def is_tool_gate(name: str) -> bool:
    """Whether the gate is that of a tool operation, `tool:<tool>.<op>`, and not one of config/fsm.yaml."""
    return name.startswith("tool:")


def terms_of(state: StoryState, config: FsmConfig, request: ApprovalRequested) -> Terms:
    """Returns the terms of a request.

    Those of a tool gate are its own, as the policy set them when it asked (RT-22).
    """
    if is_tool_gate(request.gate):
        return Terms(role=request.role, actor="human", grant_ttl_s=MAX_GRANT_S)
    gate = config.gate(state.lifecycle, request.gate)
    return Terms(role=gate.role, actor=gate.actor, grant_ttl_s=gate.grant_ttl_s)


def is_consumed(state: StoryState, approval_id: str) -> bool:
    """Whether a step was started on this approval, which uses it up (RT-33)."""
    return any(step.started.approval_id == approval_id for step in state.steps.values())


def pending_consents(state: StoryState, *, now_ms: int) -> tuple[ApprovalRequested, ...]:
    """Tool calls of the story's own procedures that wait for a person now.

    Those that people and agents asked for hold up nothing but themselves (RT-34).
    """
    return tuple(
        a.request
        for a in state.approvals.values()
        if is_tool_gate(a.request.gate)
        and a.request.requested_by.kind == "system"
        and a.status == "requested"
        and not a.voided
        and a.request.expires_at > now_ms
    )


def pending_approvals(state: StoryState) -> tuple[Approval, ...]:
    """The requests that wait for a decision, oldest first; none of a story that is over."""
    if state.is_over:
        return ()
    return tuple(a for a in state.approvals.values() if a.status == "requested" and not a.voided)


def unanswered_gates(state: StoryState) -> tuple[Approval, ...]:
    """Returns the requests at gates of the story that wait, without those of tool calls.

    Those that expire first come first.
    """
    waiting = [a for a in pending_approvals(state) if not is_tool_gate(a.request.gate)]
    return tuple(sorted(waiting, key=lambda a: (a.request.expires_at, a.request.approval_id)))


def expiries_in_a_row(state: StoryState, approval: Approval) -> int:
    """How many requests before this one, at its gate and for its subject, ended without any answer."""
    request = approval.request
    before = [
        a
        for a in state.approvals.values()
        if a.request.gate == request.gate
        and a.request.subject.digest == request.subject.digest
        and a.requested_version < approval.requested_version
    ]
    count = 0
    for earlier in reversed(before):
        if earlier.status != "expired":
            break
        count += 1
    return count


def subject_of(state: StoryState, gate: Gate, task: TaskState | None = None) -> Subject | None:
    """What the gate is about now; None while that does not exist yet (LC-7, LC-71)."""
    match gate.subject:
        case "content":
            return Subject(kind="content", id=state.story_id, digest=state.content.digest)
        case "plan" if state.plan is not None:
            return Subject(kind="plan", id=state.plan.proposal.plan_id, digest=state.plan.proposal.plan_digest)
        case "tree" if state.tree is not None:
            return Subject(kind="tree", id=state.story_id, digest=state.tree)
        case "docs" if state.docs is not None:
            return Subject(kind="docs", id=state.story_id, digest=state.docs.digest)
        case "deployment" if state.tree is not None and state.environment is not None:
            digest = deployment_digest(state.environment, state.tree)
            return Subject(kind="tree+environment", id=state.environment, digest=digest)
        case "task_tree" if task is not None and task.candidate_tree is not None:
            return Subject(kind="tree", id=task.task.task_id, digest=task.candidate_tree)
        case "report" if state.tree in state.scores:
            score = state.scores[state.tree] if state.tree else None
            return Subject(kind="report", id=state.story_id, digest=_score_digest(score)) if score else None
        case _:
            return None


def deployment_digest(environment: str, tree: Digest) -> Digest:
    """Of a subject: the same tree in another environment is another one (LC-61)."""
    return digest_of_json({"environment": environment, "tree": tree})


def _score_digest(score: object) -> Digest:
    from fleet.events.workspace import WorkspaceScored

    assert isinstance(score, WorkspaceScored)
    return digest_of_json(score)


def last_request(state: StoryState, name: str, subject: Digest) -> Approval | None:
    """The newest request for this gate and subject, whatever came of it."""
    found = [a for a in state.approvals.values() if a.request.gate == name and a.request.subject.digest == subject]
    return found[-1] if found else None


def valid_grant(state: StoryState, name: str, subject: Digest, *, now_ms: int) -> Approval | None:
    """The grant that satisfies the gate for this subject now (LC-70), None when there is none."""
    for approval in state.approvals.values():
        grant = approval.grant
        if approval.request.gate != name or approval.status != "granted" or approval.voided or grant is None:
            continue
        if grant.subject_digest == subject and grant.expires_at_ms > now_ms:
            return approval
    return None


def subject_authors(state: StoryState, subject: Subject) -> frozenset[Principal]:
    """Every principal that authored the subject (LC-75)."""
    match subject.kind:
        case "content":
            return frozenset({state.author})
        case "plan":
            return frozenset({state.plan.proposal.author}) if state.plan else frozenset()
        case "tree" if subject.id in state.tasks:
            author = state.tasks[subject.id].author
            return frozenset({author}) if author else frozenset()
        case "tree" | "docs" | "tree+environment":
            return frozenset(state.tree_authors)
        case _:
            return frozenset()


def delegation_for(state: StoryState, name: str, *, now_ms: int) -> RunDelegation | None:
    """The delegation of this run that covers the gate now (LC-77), None when a person has to decide."""
    for delegation in state.start.delegations if state.start else ():
        covers = delegation.gate == name and delegation.valid_until > now_ms
        if covers and RIGORS.index(state.rigor) <= RIGORS.index(delegation.max_rigor):
            return delegation
    return None


def supporting_fact(state: StoryState, subject: Subject) -> str | None:
    """The recorded fact that a delegated grant for this subject rests on (LC-77); None when there is none."""
    match subject.kind:
        case "content" | "plan":
            score = state.score
            fits = score is not None and score.dor_ok and score.content_digest == state.content.digest
            return f"readiness score {score.score}" if score is not None and fits else None
        case "tree" | "docs":
            tree = state.docs.tree if subject.kind == "docs" and state.docs else subject.digest
            scored = state.scores.get(tree)
            return (
                f"run {scored.run_id} scored {scored.score}"
                if scored is not None and scored.verdict == "pass"
                else None
            )
        case _:
            return None


def check_delegable(config: FsmConfig, lifecycle: str, name: str, max_rigor: str) -> None:
    """Returns when the gate may be delegated up to this rigor; PolicyDenied otherwise (LC-77)."""
    limit = config.gate(lifecycle, name).delegable_up_to
    if limit is None:
        raise PolicyDenied(f"gate {name!r} can never be delegated", rule_id="LC-77", gate=name)
    if RIGORS.index(limit) < next((i for i, r in enumerate(RIGORS) if r == max_rigor), len(RIGORS)):
        raise PolicyDenied(
            f"gate {name!r} can be delegated up to {limit}, this story has rigor {max_rigor}: approve it yourself",
            rule_id="LC-77",
            gate=name,
            allowed=limit,
        )


def check_requester(request: ApprovalRequested, *, principal: Principal) -> None:
    """Returns unless the principal asked for the tool call itself; PolicyDenied then."""
    if is_tool_gate(request.gate) and principal == request.requested_by:
        raise PolicyDenied(
            f"{principal} asked for this call of {request.gate}: somebody else in role {request.role!r} has to decide",
            rule_id="requester_is_approver",
            gate=request.gate,
        )


def check_approver(
    state: StoryState,
    gate: Gate | Terms,
    subject: Subject,
    *,
    principal: Principal,
    roles: frozenset[str],
    delegated: bool,
) -> None:
    """Returns when this principal may decide about the subject; PolicyDenied names the rule otherwise."""
    require_role(principal, roles, gate.role, rule_id="LC-11", why="which decides this gate")
    if gate.actor == "human" and not principal.is_human and not delegated:
        raise PolicyDenied(f"this gate needs a person; {principal} is none", rule_id="LC-76")
    authored = principal in subject_authors(state, subject)
    if authored and (not principal.is_human or (state.rigor == "L3" and subject.kind != "content")):
        raise PolicyDenied(f"{principal} is an author of {subject.kind} {subject.id}", rule_id="author_is_approver")


def check_notes(text: str, what: str) -> str:
    """The trimmed text; InvalidInput when it has not 10..4,000 characters (GL-14, LC-65)."""
    trimmed = text.strip()
    if not is_reason(trimmed):
        raise InvalidInput(f"{what} has {len(trimmed)} characters; write 10 to 4,000", field=what)
    return trimmed
