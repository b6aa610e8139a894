"""What people and agents decide about a story beside its councils: pure, from state to events (AP-72, GR-70)."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.events.decision import (
    DecisionAccepted,
    DecisionLink,
    DecisionProposed,
    DecisionRejected,
    DecisionSuperseded,
    EvidenceRef,
)
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied, VersionConflict
from fleet.planning.graph import find_cycle
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Caller
from fleet.story.state import Decision, StoryState
from fleet.story.tool_steps import known_trees

_DECIDERS: Mapping[str, tuple[str, ...]] = {
    "QUALITY": ("qa",),
    "TESTING": ("qa",),
    "INFRASTRUCTURE": ("devops",),
    "DATA": ("data",),
}
_ALWAYS = ("architect", "po")


def deciders_of(category: str) -> tuple[str, ...]:
    """The roles whose word settles a decision of this category."""
    return (*_DECIDERS.get(category, ()), *_ALWAYS)


def find_decision(state: StoryState, decision_id: str) -> Decision:
    """The decision with this id; NotFound when the story has none."""
    found = state.decisions.get(decision_id)
    if found is None:
        raise NotFound(f"story {state.story_id} has no decision {decision_id[:80]!r}", decision_id=decision_id[:80])
    return found


def check_links(state: StoryState, proposed: DecisionProposed) -> None:
    """Returns when everything that a decision refers to is of this story; InvalidInput names the first that is not."""
    for at, task_id in enumerate(proposed.affects):
        if task_id not in state.tasks:
            raise _unknown(f"affects/{at}", "task", task_id, sorted(state.tasks))
    for at, link in enumerate(proposed.links):
        if link.decision_id not in state.decisions:
            raise _unknown(f"links/{at}/decision_id", "decision", link.decision_id, sorted(state.decisions))
    for at, evidence in enumerate(proposed.based_on):
        known = _evidence(state, evidence)
        if evidence.id not in known:
            raise _unknown(f"based_on/{at}/id", evidence.kind, evidence.id, sorted(known))


def _evidence(state: StoryState, ref: EvidenceRef) -> set[str]:
    match ref.kind:
        case "run":
            return {name.partition("/")[2] if name.startswith("run/") else name for name in state.steps}
        case "report":
            return {str(report.report_digest) for report in state.reports.values()}
        case "artifact":
            return {str(tree) for tree in known_trees(state)}


def _unknown(field: str, kind: str, id: str, known: list[str]) -> InvalidInput:
    return InvalidInput(f"the story has no {kind} {id[:80]!r}", field=field, allowed=known[:50])


def accept_decision(state: StoryState, decision_id: str, *, caller: Caller, note: str) -> DecisionAccepted:
    """What saying yes to a proposed decision records.

    Raises:
        NotFound: the story has no such decision.
        PolicyDenied: the caller's roles do not settle its category, or the caller wrote it (LC-75).
        VersionConflict: it is settled already (LC-74).
        InvalidInput: accepted decisions would depend on each other in a circle (GR-71).
    """
    decision = find_decision(state, decision_id)
    as_role = _decider(state, decision, caller)
    _require_proposed(decision)
    _require_acyclic(state, decision)
    return DecisionAccepted(
        decision_id=decision.proposed.decision_id,
        by=caller.principal,
        as_role=as_role,
        note=check_notes(note, "note") if note.strip() else None,
    )


def reject_decision(state: StoryState, decision_id: str, *, caller: Caller, reason: str) -> DecisionRejected:
    """What saying no to a proposed decision records; its author may take it back. Raises as `accept_decision`."""
    decision = find_decision(state, decision_id)
    own = decision.proposed.author == caller.principal and caller.roles
    as_role = min(caller.roles) if own else _decider(state, decision, caller)
    _require_proposed(decision)
    return DecisionRejected(
        decision_id=decision.proposed.decision_id,
        by=caller.principal,
        as_role=as_role,
        reason=check_notes(reason, "reason"),
    )


def supersede_decision(
    state: StoryState, decision_id: str, by_decision_id: str, *, caller: Caller, reason: str
) -> DecisionSuperseded:
    """What putting one accepted decision in the place of another records (GR-50).

    Raises as `accept_decision`; InvalidTransition when the old one does not hold, InvalidInput when the new one does
    not, or is no architecture in the place of the last one, without which no design is complete (LC-53).
    """
    old, new = find_decision(state, decision_id), state.decisions.get(by_decision_id)
    as_role = _role(old, caller)
    if old.status != "ACCEPTED":
        raise InvalidTransition(
            f"decision {decision_id} is {old.status}: only one that holds can be superseded",
            state=old.status,
            event="supersede",
            allowed=["accept", "reject"] if old.status == "PROPOSED" else [],
        )
    holding = [k for k, d in state.decisions.items() if d.status == "ACCEPTED" and k != decision_id]
    if new is None or by_decision_id not in holding:
        raise InvalidInput(
            f"decision {by_decision_id[:80]!r} does not hold: propose and accept what comes in its place first",
            field="by_decision_id",
            allowed=sorted(holding)[:50],
        )
    kept = [k for k in holding if state.decisions[k].proposed.category == "ARCHITECTURE"]
    if old.proposed.category == "ARCHITECTURE" and not kept:
        raise InvalidInput(
            "the last accepted decision of category ARCHITECTURE is superseded by one of the same category alone",
            field="by_decision_id",
        )
    return DecisionSuperseded(
        decision_id=old.proposed.decision_id,
        by_decision_id=new.proposed.decision_id,
        by=caller.principal,
        as_role=as_role,
        reason=check_notes(reason, "reason"),
    )


def _decider(state: StoryState, decision: Decision, caller: Caller) -> str:
    """The role in which the caller settles a decision that somebody else made, or a person made for itself below L3."""
    own = decision.proposed.author == caller.principal
    if own and (not caller.principal.is_human or state.rigor == "L3"):
        raise PolicyDenied(f"{caller.principal} wrote this decision", rule_id="author_is_approver")
    return _role(decision, caller)


def _role(decision: Decision, caller: Caller) -> str:
    """The role in which the caller settles decisions of this category."""
    category = decision.proposed.category
    return caller.require(*deciders_of(category), why=f"which settle decisions of category {category}")


def _require_proposed(decision: Decision) -> None:
    if decision.status != "PROPOSED":
        by = f" by {decision.decided_by}" if decision.decided_by else ""
        raise VersionConflict(
            f"decision {decision.proposed.decision_id} is {decision.status} already{by}",
            # `status` of a problem is the number of HTTP.
            decision_status=decision.status,
            decision_id=decision.proposed.decision_id,
        )


def _require_acyclic(state: StoryState, decision: Decision) -> None:
    """Returns when what holds together with this decision has no circle of dependencies (GR-71)."""
    holding = {k: d for k, d in state.decisions.items() if d.status == "ACCEPTED"}
    holding[decision.proposed.decision_id] = decision
    needs = {id: [n for n in _needs(d.proposed.links) if n in holding] for id, d in holding.items()}
    cycle = find_cycle(sorted(holding), needs)
    if cycle:
        raise InvalidInput(
            f"accepted, these decisions would depend on each other: {' -> '.join([*cycle, cycle[0]])}",
            field="decision_id",
            cycle=list(cycle),
        )


def _needs(links: tuple[DecisionLink, ...]) -> list[str]:
    return [link.decision_id for link in links if link.rel == "DEPENDS_ON"]
