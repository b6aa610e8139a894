"""Commands on decisions, which people and agents make beside the councils: propose, accept, reject, supersede."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import ConfigDict, Field

from fleet.events.decision import (
    DecisionAccepted,
    DecisionLink,
    DecisionProposed,
    DecisionRejected,
    DecisionSuperseded,
    EvidenceRef,
)
from fleet.events.story import QuestionRaised, Topic
from fleet.events.values import EvidenceKind
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied, VersionConflict
from fleet.kernel.types import MAX_REASON, MIN_REASON, DecisionCategory, DecisionRelation, Frozen, Reason, ReasonRequest
from fleet.planning.graph import find_cycle
from fleet.policy.roles import require_any_role
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Caller, Facts, Outcome, StoryCommand, require_not_over
from fleet.story.state import Decision, StoryState
from fleet.story.tool_steps import known_trees

Id = Annotated[str, Field(min_length=1, max_length=80)]
_Text = Annotated[str, Field(min_length=1, max_length=1000)]


# Source: GR-49.
class LinkView(Frozen):
    """A relation to another decision."""

    rel: DecisionRelation
    decision_id: Id


class EvidenceView(Frozen):
    """What a decision is based on: id of a run, digest of a report or of a tree of the story."""

    kind: EvidenceKind
    id: Annotated[str, Field(min_length=1, max_length=200)]


# Source: AP-72, GR-70.
class ProposeRequest(Frozen):
    """A decision with its reasons."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    rationale: Reason
    category: DecisionCategory
    alternatives: Annotated[tuple[_Text, ...], Field(max_length=20)] = ()
    affects: Annotated[tuple[Id, ...], Field(max_length=50)] = ()
    """Tasks of the story."""
    links: Annotated[tuple[LinkView, ...], Field(max_length=50)] = ()
    based_on: Annotated[tuple[EvidenceView, ...], Field(max_length=50)] = ()


class DecisionAcceptRequest(Frozen):
    """Say yes to a decision; the note, when there is one, has 10 characters or more."""

    note: Annotated[
        str,
        Field(max_length=MAX_REASON, json_schema_extra={"anyOf": [{"maxLength": 0}, {"minLength": MIN_REASON}]}),
    ] = ""


class SupersedeRequest(Frozen):
    """Put another accepted decision in the place of this one."""

    by_decision_id: Id
    reason: Reason


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


class _OnDecision(StoryCommand):
    """A command on one decision of the story."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    decision_id: str


class ProposeDecision(ProposeRequest, StoryCommand):
    """A choice is on record with its author and its reasons; it binds nobody until it is accepted (GR-70)."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    command = "propose_decision"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The proposal; InvalidInput names the first thing that it refers to and that is not of this story."""
        require_not_over(state, self.command)
        caller = facts.caller
        require_any_role(caller.principal, caller.roles)
        proposed = DecisionProposed.model_validate(
            {
                **self.model_dump(),
                "decision_id": facts.new_id("de", facts.command_id),
                "plan_id": state.plan_id,
                "author": caller.principal,
                "origin": "human" if caller.principal.is_human else "agent",
            }
        )
        check_links(state, proposed)
        return (proposed,)


class AcceptDecision(DecisionAcceptRequest, _OnDecision):
    """A proposed choice holds."""

    command = "accept_decision"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The yes to a proposed decision.

        Raises:
            NotFound: the story has no such decision.
            PolicyDenied: the caller's roles do not settle its category, or the caller wrote it (LC-75).
            VersionConflict: it is settled already (LC-74).
            InvalidInput: accepted decisions would depend on each other in a circle (GR-71).
        """
        require_not_over(state, self.command)
        decision = find_decision(state, self.decision_id)
        as_role = _decider(state, decision, facts.caller)
        _require_proposed(decision)
        _require_acyclic(state, decision)
        return (
            DecisionAccepted(
                decision_id=decision.proposed.decision_id,
                by=facts.caller.principal,
                as_role=as_role,
                note=check_notes(self.note, "note") if self.note.strip() else None,
            ),
        )


class RejectDecision(ReasonRequest, _OnDecision):
    """A proposed choice is turned down; its author may take it back."""

    command = "reject_decision"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The no to a proposed decision. Raises as `AcceptDecision`."""
        require_not_over(state, self.command)
        decision, caller = find_decision(state, self.decision_id), facts.caller
        own = decision.proposed.author == caller.principal and caller.roles
        as_role = min(caller.roles) if own else _decider(state, decision, caller)
        _require_proposed(decision)
        return (
            DecisionRejected(
                decision_id=decision.proposed.decision_id,
                by=caller.principal,
                as_role=as_role,
                reason=check_notes(self.reason, "reason"),
            ),
        )


class SupersedeDecision(SupersedeRequest, _OnDecision):
    """Another accepted choice holds in the place of this one (GR-50)."""

    command = "supersede_decision"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The replacement; a plan that was derived from the old decision is asked about (PL-5).

        Raises as `AcceptDecision`; InvalidTransition when the old one does not hold, InvalidInput when the new one
        does not, or is no architecture in the place of the last one, without which no design is complete (LC-53).
        """
        require_not_over(state, self.command)
        old, new = find_decision(state, self.decision_id), state.decisions.get(self.by_decision_id)
        as_role = _role(old, facts.caller)
        if old.status != "ACCEPTED":
            raise InvalidTransition(
                f"decision {self.decision_id} is {old.status}: only one that holds can be superseded",
                state=old.status,
                event="supersede",
                allowed=["accept", "reject"] if old.status == "PROPOSED" else [],
            )
        holding = [k for k, d in state.decisions.items() if d.status == "ACCEPTED" and k != self.decision_id]
        if new is None or self.by_decision_id not in holding:
            raise InvalidInput(
                f"decision {self.by_decision_id[:80]!r} does not hold: "
                "propose and accept what comes in its place first",
                field="by_decision_id",
                allowed=sorted(holding)[:50],
            )
        kept = [k for k in holding if state.decisions[k].proposed.category == "ARCHITECTURE"]
        if old.proposed.category == "ARCHITECTURE" and not kept:
            raise InvalidInput(
                "the last accepted decision of category ARCHITECTURE is superseded by one of the same category alone",
                field="by_decision_id",
            )
        replaced = DecisionSuperseded(
            decision_id=old.proposed.decision_id,
            by_decision_id=new.proposed.decision_id,
            by=facts.caller.principal,
            as_role=as_role,
            reason=check_notes(self.reason, "reason"),
        )
        return (replaced, *_plan_question(state, facts, old))


def _plan_question(state: StoryState, facts: Facts, old: Decision) -> tuple[QuestionRaised, ...]:
    if state.plan is None or old.proposed.category != "ARCHITECTURE":
        return ()
    text = f"Decision {old.proposed.decision_id} was superseded: {old.proposed.title}\nDoes the plan still fit?"
    return (
        QuestionRaised(
            question_id=facts.new_id("qu", f"{facts.command_id}/plan"),
            kind="question",
            text=text,
            severity="blocking",
            about=Topic(kind="plan", id=state.plan.proposal.plan_id),
            asked_by=facts.caller.principal,
        ),
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
