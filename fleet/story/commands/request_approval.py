"""The command that asks for a gate, and the requests that it and the owner make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleet.events.approval import ApprovalRequested, Subject
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import GateClosed, InvalidInput, VersionConflict
from fleet.kernel.ids import Digest, Principal, StreamId, derive_id
from fleet.policy.deploy import DeployTarget
from fleet.story.approvals import last_request, subject_of
from fleet.story.commands.command import Attachment, Facts, Outcome, StoryCommand, require_not_over
from fleet.story.commands.gates import GateName
from fleet.story.escalation import ESCALATION, council_to_ask, last_escalation
from fleet.story.guards import binds_criteria, shown_criteria
from fleet.story.lifecycle import FsmConfig
from fleet.story.state import StoryState


class RequestApproval(StoryCommand):
    """A gate of the story is asked for, also again after an expiry or a rejection (AP-76, LC-73)."""

    command = "request_approval"
    gate: GateName

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The request, with the card that its decider will see.

        Raises:
            InvalidInput: the lifecycle has no such gate.
            GateClosed: there is nothing to decide about yet.
            VersionConflict: a request waits already, or the subject is approved.
        """
        require_not_over(state, self.command)
        name, requester = self.gate, facts.caller.principal
        if name == ESCALATION:
            council = council_to_ask(state).opened.council_id
            return (escalation_request(state, facts.fsm, council, requester=requester, now_ms=facts.now_ms),)
        rows = facts.fsm.lifecycles[state.lifecycle].legal(state.state)
        gates = sorted({row.gate for row in rows if row.gate} & set(facts.fsm.gates))
        if name not in gates:
            raise InvalidInput(
                f"gate {name[:60]!r} is none of state {state.state}; gates: {', '.join(gates) or 'none'}",
                field="gate",
                allowed=gates,
            )
        subject = subject_of(state, facts.fsm.gate(state.lifecycle, name))
        if subject is None:
            raise GateClosed(f"gate {name!r} has nothing to decide about yet", state=state.state, event=name, guards=[])
        last = last_request(state, name, subject.digest)
        if last is not None and not last.voided and last.status in ("requested", "granted"):
            raise VersionConflict(
                f"approval {last.request.approval_id} of gate {name!r} is {last.status}",
                status=last.status,
                approval_id=last.request.approval_id,
            )
        return gate_request(state, facts.fsm, facts.targets, name, subject, requester=requester, now_ms=facts.now_ms)


def request_name(state: StoryState, gate: str, subject: Subject, task_id: str | None = None) -> str:
    """The name of the next request for this gate and subject; the id of the approval is made of it."""
    before = last_request(state, gate, subject.digest)
    name = f"gate/{gate}/{subject.digest.hex[:16]}/{before.request.attempt + 1 if before else 1}"
    return f"{name}/{task_id}" if task_id else name


def gate_request(
    state: StoryState,
    config: FsmConfig,
    targets: Sequence[DeployTarget],
    gate: str,
    subject: Subject,
    *,
    requester: Principal,
    now_ms: int,
    task_id: str | None = None,
) -> tuple[Attachment, ApprovalRequested]:
    """The next request for this gate and subject, with the card that its decider will see (LC-73, LC-79)."""
    terms = config.gate(state.lifecycle, gate)
    before = last_request(state, gate, subject.digest)
    card = Attachment(canonical_json(_card(state, targets, gate, subject, task_id)))
    requested = ApprovalRequested(
        approval_id=derive_id("ap", StreamId.of_story(state.story_id), request_name(state, gate, subject, task_id)),
        gate=gate,
        role=terms.role,
        actor=terms.actor,
        subject=subject,
        risk="low",
        expires_at=now_ms + terms.request_ttl_s * 1000,
        attempt=before.request.attempt + 1 if before else 1,
        card_digest=card.digest,
        requested_by=requester,
    )
    return (card, requested)


def _card(
    state: StoryState, targets: Sequence[DeployTarget], gate: str, about: Subject, task_id: str | None
) -> dict[str, Any]:
    task = state.tasks.get(task_id or "")
    is_deployment = about.kind == "tree+environment"
    score = state.scores.get(state.tree or "" if is_deployment else about.digest)
    card: dict[str, Any] = {
        "gate": gate,
        "story": {"id": state.story_id, "title": state.content.title, "state": state.state},
        "task": {"id": task.task.task_id, "title": task.task.title} if task else None,
        "subject": about.digest,
        "score": score.score if score else None,
        "verdict": score.verdict if score else None,
        "limited_by": score.limited_by if score else None,
        "councils": [
            {"id": c.opened.council_id, "kind": c.opened.output_kind, "status": c.status, "winner": c.winner}
            for c in state.councils.values()
        ],
        "tokens": state.tokens,
        "feedback": list(task.feedback) if task else [],
    }
    if binds_criteria(state) and about.kind != "content":
        card["criteria"] = criteria_facts(state, about.digest if about.digest in state.reports else state.tree)
    if is_deployment:
        # As text, so that who decides sees what is started and watched.
        target = next((target for target in targets if target.environment == about.id), None)
        card["deployment"] = {"tree": state.tree, "target": target and target.model_dump_json()}
    return card


def criteria_facts(state: StoryState, tree: Digest | None) -> list[dict[str, Any]]:
    """Each criterion with the tests that show it on the tree; none, and no waiver, is `not shown`."""
    return [
        {
            "id": c.ac_id,
            "text": c.text,
            "standing": "shown" if c.tests else "waived" if c.waiver else "not shown",
            "tests": [{"test": t.test, "source": t.source} for t in c.tests],
            "waived_by": c.waiver.by if c.waiver else None,
            "waived_because": c.waiver.reason if c.waiver else None,
        }
        for c in shown_criteria(state, tree)
    ]


def escalation_request(
    state: StoryState, config: FsmConfig, council_id: str, *, requester: Principal, now_ms: int
) -> ApprovalRequested:
    """The next request about this undecided council: what is decided and shown is that of the one before."""
    before = last_escalation(state, council_id)
    assert before is not None, "an undecided council was asked about when it ended"
    attempt, stream = before.request.attempt + 1, StreamId.of_story(state.story_id)
    changes = {
        "approval_id": derive_id("ap", stream, f"gate/{ESCALATION}/{council_id}/{attempt}"),
        "expires_at": now_ms + config.gates[ESCALATION].request_ttl_s * 1000,
        "attempt": attempt,
        "requested_by": requester,
    }
    return before.request.model_copy(update=changes)
