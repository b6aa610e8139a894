"""Changes of what roles see, sent in one request and recorded as what they are (CX-45).

Nothing is kept beside that. Each change is decided on the story as it was before the request, and all of them are
recorded together or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from fleet.events.context import ContextChange, ContextChanged
from fleet.events.payload import Payload
from fleet.events.story import MilestoneReached
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import CommandId, EntityId
from fleet.kernel.types import ContextKind, ContextOperation, Frozen, Reason
from fleet.policy.roles import require_any_role
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Attachment, Facts, Outcome, StoryCommand, refuse_body, require_not_over
from fleet.story.commands.decisions import AcceptDecision, ProposeDecision, RejectDecision, SupersedeDecision
from fleet.story.commands.tasks import ActOnTask, UpdateTask
from fleet.story.commands.text import AnswerQuestion, AskQuestion
from fleet.story.state import StoryState


# Source: CX-45.
class ChangeItem(Frozen):
    """One change; what is made gets its id here, so `entity_id` is for changing and removing."""

    operation: ContextOperation
    entity_type: ContextKind
    entity_id: Annotated[str | None, Field(max_length=80)] = None
    payload: dict[str, Any] = {}
    reason: Reason


Changes = Annotated[tuple[ChangeItem, ...], Field(min_length=1, max_length=20)]
"""Changes that are recorded together, or not at all."""


class _Milestone(Frozen):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    ref: Annotated[str, Field(max_length=200)] = ""


Made = tuple[EntityId, Outcome]
"""What a change is about, and what it records."""


class ChangeContext(StoryCommand):
    """Everything that one request asks for, and the mark that it did (CX-45)."""

    model_config = ConfigDict(extra="forbid")
    command = "change_context"
    changes: Changes

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """What the commands behind the changes record, each decided on the story as it is now.

        Raises InvalidInput with the number of the change that cannot be, and what those commands refuse.
        """
        require_not_over(state, self.command)
        named = [one.entity_id for one in self.changes if one.entity_id is not None and one.operation != "CREATE"]
        if twice := sorted({id for id in named if named.count(id) > 1}):
            raise InvalidInput(f"{twice[0]} is changed twice in one request: send two", field="changes", allowed=[])
        found, marks = list[Payload | Attachment](), list[ContextChange]()
        for number, change in enumerate(self.changes):
            check_notes(change.reason, "reason")
            make = _CHANGES.get((change.entity_type, change.operation))
            if make is None:
                raise InvalidInput(_why_not(change), field=f"changes/{number}/operation", allowed=_allowed(change))
            # Each has a name of its own, so that what it makes has one too.
            own = replace(facts, command_id=CommandId(f"{facts.command_id}/{number}"))
            entity_id, outcome = make(state, own, change)
            payload = Attachment(canonical_json(change.payload))
            found += (*outcome, payload)
            marks.append(
                ContextChange(
                    operation=change.operation,
                    entity_type=change.entity_type,
                    entity_id=entity_id,
                    payload_digest=payload.digest,
                    reason=change.reason.strip(),
                )
            )
        version = state.version + sum(1 for one in found if isinstance(one, Payload)) + 1
        told = [mark.model_dump(mode="json") for mark in marks]
        hash = digest_of_json({"story_id": state.story_id, "version": version, "changes": told})
        return (*found, ContextChanged(changes=tuple(marks), version=version, hash=hash))


def _new_decision(state: StoryState, facts: Facts, change: ChangeItem) -> Made:
    sent = ProposeDecision.model_validate(change.payload)
    return facts.new_id("de", facts.command_id), sent.decide(state, facts)


def _settled_decision(state: StoryState, facts: Facts, change: ChangeItem) -> Made:
    id, status = _named(change), change.payload.get("status")
    if status == "ACCEPTED":
        return id, AcceptDecision(decision_id=id, note=change.reason).decide(state, facts)
    if status == "REJECTED":
        return id, RejectDecision(decision_id=id, reason=change.reason).decide(state, facts)
    raise InvalidInput(
        "a decision is never rewritten: it is accepted or rejected, or another one takes its place",
        field="payload/status",
        allowed=["ACCEPTED", "REJECTED"],
    )


def _removed_decision(state: StoryState, facts: Facts, change: ChangeItem) -> Made:
    id, by = _named(change), change.payload.get("by_decision_id")
    known = state.decisions.get(id)
    if by is None and known is not None and known.status == "ACCEPTED":
        raise InvalidInput(
            f"decision {id} holds: name the accepted one that takes its place",
            field="payload/by_decision_id",
            allowed=sorted(k for k, d in state.decisions.items() if d.status == "ACCEPTED" and k != id)[:50],
        )
    if by is None:
        return id, RejectDecision(decision_id=id, reason=change.reason).decide(state, facts)
    sent = SupersedeDecision(decision_id=id, reason=change.reason, by_decision_id=by)
    return id, sent.decide(state, facts)


def _new_question(state: StoryState, facts: Facts, change: ChangeItem) -> Made:
    _fields(change, "text", "severity", "kind")
    return facts.new_id("qu", facts.command_id), AskQuestion.model_validate(change.payload).decide(state, facts)


def _answered_question(state: StoryState, facts: Facts, change: ChangeItem) -> Made:
    _fields(change, "answer")
    return _answer(state, facts, change, str(change.payload.get("answer") or ""))


def _withdrawn_question(state: StoryState, facts: Facts, change: ChangeItem) -> Made:
    _fields(change)
    return _answer(state, facts, change, f"withdrawn: {change.reason.strip()}")


def _answer(state: StoryState, facts: Facts, change: ChangeItem, answer: str) -> Made:
    id = _named(change)
    return id, AnswerQuestion(question_id=id, answer=answer).decide(state, facts)


def _updated_task(state: StoryState, facts: Facts, change: ChangeItem) -> Made:
    id = _named(change)
    return id, UpdateTask(task_id=id, changes=change.payload).decide(state, facts)


def _discarded_task(state: StoryState, facts: Facts, change: ChangeItem) -> Made:
    _fields(change)
    id = _named(change)
    sent = ActOnTask(task_id=id, action="DISCARD_TASK", feedback=change.reason)
    return id, sent.decide(state, facts)


def _new_milestone(state: StoryState, facts: Facts, change: ChangeItem) -> Made:
    require_any_role(facts.caller.principal, facts.caller.roles)
    try:
        asked = _Milestone.model_validate(change.payload)
    except ValidationError as error:
        raise refuse_body(ChangeContext.command, error) from error
    id = facts.new_id("ms", facts.command_id)
    return id, (MilestoneReached(milestone_id=id, name=asked.name, ref=asked.ref or state.story_id),)


def _named(change: ChangeItem) -> EntityId:
    if not change.entity_id:
        raise InvalidInput(f"{change.operation} names what it changes", field="entity_id")
    return EntityId(change.entity_id)


def _fields(change: ChangeItem, *allowed: str) -> None:
    if unknown := sorted(set(change.payload) - set(allowed)):
        raise InvalidInput(f"{unknown[0][:60]!r} is not of it", field="payload", allowed=list(allowed))


_CHANGES: Mapping[tuple[ContextKind, str], Callable[[StoryState, Facts, ChangeItem], Made]] = {
    ("DECISION", "CREATE"): _new_decision,
    ("DECISION", "UPDATE"): _settled_decision,
    ("DECISION", "DELETE"): _removed_decision,
    ("QUESTION", "CREATE"): _new_question,
    ("QUESTION", "UPDATE"): _answered_question,
    ("QUESTION", "DELETE"): _withdrawn_question,
    ("MILESTONE", "CREATE"): _new_milestone,
    ("TASK", "UPDATE"): _updated_task,
    ("TASK", "DELETE"): _discarded_task,
}
_REASONS: Mapping[ContextKind, str] = {
    "TASK": "tasks are made by a plan version",
    "MILESTONE": "a milestone is history: it is neither changed nor removed",
    "SUMMARY": "summaries are made from the record and checked against it: none is taken from outside",
}


def _allowed(change: ChangeItem) -> list[str]:
    return [operation for kind, operation in _CHANGES if kind == change.entity_type]


def _why_not(change: ChangeItem) -> str:
    return f"{change.operation} {change.entity_type}: {_REASONS.get(change.entity_type, 'there is no such change')}"
