"""Councils that decide gates of the story, because a person delegated them to a council of a role (LC-77)."""

from __future__ import annotations

from typing import Any

from fleet.context.scope import scopes_for
from fleet.council.config import CouncilConfig
from fleet.council.roster import Member, derive_seed, quorum_of, roster_problems, seated, seats
from fleet.events.approval import Subject
from fleet.events.council import CouncilBudget, CouncilOpened, Evidence, RoundOpened
from fleet.events.platform import DelegationRevoked
from fleet.events.story import RunDelegation
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import PolicyDenied
from fleet.kernel.ids import Digest
from fleet.owner.council_pools import council_rules
from fleet.owner.duties.advice import evidence_of_subject, plan_text, subject_text
from fleet.owner.duties.gates import revoked_since
from fleet.owner.duties.members import Sitting
from fleet.owner.workbench import Workbench
from fleet.story.approvals import delegation_for, subject_authors
from fleet.story.intents import OpenGateCouncil
from fleet.story.state import StoryState

_RUBRIC = [{"name": "gate", "text": "May this gate pass, as the story and its criteria stand?", "weight": 1}]


async def open_gate_council(bench: Workbench, intent: OpenGateCouncil) -> None:
    """Members that wrote nothing of the subject are convened on the request; where none can be, a person decides.

    A standing delegation that was revoked since the story was started convenes nobody, and the story says so.
    """
    delegation = delegation_for(bench.state, intent.gate, now_ms=bench.now_ms)
    if delegation is None or delegation.council is None:
        return
    revoked = await revoked_since(bench, delegation)
    config, request = await council_rules(bench), bench.state.approvals[intent.approval_id].request
    roster = _roster(bench.state, delegation.council, request.subject, config)
    if revoked is None and (problem := _problem(bench, delegation.council, roster, config)):
        revoked = _without(delegation, problem)
    if revoked is not None:
        await bench.journal.record(f"undelegated/{delegation.delegation_id}", revoked)
        return
    name = f"council/gate/{intent.approval_id}"
    council_id, defaults = bench.new_id("co", name), config.defaults
    opened = CouncilOpened(
        council_id=council_id,
        kind="gate",
        output_kind="text",
        subject_digest=request.subject.digest,
        roster=seated(roster, config),
        rubric_digest=await bench.blobs.put(canonical_json(_RUBRIC)),
        rule_version=config.rule_version,
        quorum=quorum_of("gate", len(roster)),
        pass_threshold=config.threshold_at(bench.state.rigor),
        rounds=0,
        budget=CouncilBudget(tokens=defaults.tokens, wall_s=defaults.timeout_seconds),
        seed=derive_seed(council_id),
        deadline_at=bench.now_ms + defaults.timeout_seconds * 1000,
        double_ballot=defaults.double_ballot,
        max_on_ballot=defaults.max_on_ballot,
        approval_id=request.approval_id,
    )
    phase = RoundOpened(council_id=council_id, round=0, phase="evidence")
    await bench.journal.record(f"{name}/opened", opened, phase)


def _roster(state: StoryState, role: str, subject: Subject, config: CouncilConfig) -> tuple[Member, ...]:
    """As many voters as councils of the role have, none of whom wrote anything of the subject (LC-75)."""
    size, authors = config.voters_of(role), subject_authors(state, subject)
    members = [m for m in seats([role] * (size + len(authors)), config=config) if m.principal not in authors]
    return tuple(m.model_copy(update={"can_propose": False}) for m in members[:size])


def _problem(bench: Workbench, role: str, roster: tuple[Member, ...], config: CouncilConfig) -> str:
    """Why no such council can be held now; empty when it can."""
    if bench.staffed is not None and role not in bench.staffed:
        return f"no agent of this fleet serves role {role}"
    try:
        scopes_for(bench.rules.context, "DESIGN", role)
    except PolicyDenied as error:
        return error.message
    problems = roster_problems(
        roster, kind="gate", output_kind="text", num_agents=config.voters_of(role), config=config
    )
    return "; ".join(problems)


def _without(delegation: RunDelegation, problem: str) -> DelegationRevoked:
    return DelegationRevoked(
        delegation_id=delegation.delegation_id,
        gate=delegation.gate,
        delegate=f"council:{delegation.council}",
        granted_by=delegation.granted_by,
        reason=f"no council of role {delegation.council} can be held: {problem}",
        valid_until=delegation.valid_until,
        max_rigor=delegation.max_rigor,
    )


def _asked(sitting: Sitting) -> tuple[str, Subject] | None:
    """The gate and its subject; None of a gate on request."""
    approval = sitting.bench.state.approvals.get(sitting.opened.approval_id or "")
    return None if approval is None else (approval.request.gate, approval.request.subject)


def evidence_of(sitting: Sitting, content: Digest) -> Evidence:
    """What is on record of the subject of a gate. Of one of the story, that of the tree that it is about."""
    asked = _asked(sitting)
    tree = None if asked is None else _tree(sitting.bench.state, asked[1])
    return evidence_of_subject(sitting.bench.state, tree or content)


async def text_of(sitting: Sitting, content: Digest) -> str:
    """The subject of a gate as voters see it."""
    asked = _asked(sitting)
    if asked is None:
        return await subject_text(sitting, content)
    gate, subject = asked
    tree = _tree(sitting.bench.state, subject)
    about = await subject_text(sitting, tree) if tree is not None else _words(sitting.bench.state, subject)
    return f"Gate {gate} of the story waits: may it pass?\n\n{about}"


def _tree(state: StoryState, subject: Subject) -> Digest | None:
    match subject.kind:
        case "tree":
            return subject.digest
        case "docs":
            return state.docs.tree if state.docs is not None else None
        case "report":
            return state.tree
        case _:
            return None


def _words(state: StoryState, subject: Subject) -> str:
    if subject.kind == "plan" and state.plan is not None:
        plan: Any = state.plan.proposal.model_dump(mode="json")
        return f"The plan: {state.plan.proposal.rationale}\n\n{plan_text({'tasks': plan['tasks']})}"
    criteria = "\n".join(f"- {c.ac_id}: {c.text}" for c in state.content.acceptance_criteria)
    return f"The text of the story:\n{state.content.title}\n\n{state.content.description}\n\n{criteria}"
