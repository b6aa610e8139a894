"""Changes of what roles see, sent in one request and recorded as what they are (CX-45).

Nothing is kept beside that. Each change is decided on the story as it was before the request, and all of them are
recorded together or none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from fleet.events.context import ContextChange, ContextChanged
from fleet.events.payload import Payload
from fleet.events.story import MilestoneReached
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.errors import InvalidInput, InvalidTransition
from fleet.kernel.ids import CommandId, EntityId
from fleet.kernel.types import ContextKind, ContextOperation, Frozen, QuestionKind
from fleet.log.port import Command
from fleet.owner.commands.facts import facts_for
from fleet.owner.commands.story import answer_question, ask_question
from fleet.owner.tools.tool_steps import parsed
from fleet.owner.workbench import Workbench
from fleet.policy.roles import require_any_role
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Caller, StoryCommand
from fleet.story.commands.decisions import AcceptDecision, ProposeDecision, RejectDecision, SupersedeDecision
from fleet.story.commands.tasks import ActOnTask, UpdateTask

MAX_CHANGES = 20


class _Change(Frozen):
    operation: ContextOperation
    entity_type: ContextKind
    entity_id: Annotated[str | None, Field(max_length=80)] = None
    payload: dict[str, Any] = {}
    reason: Annotated[str, Field(max_length=4000)]


class _Changes(Frozen):
    changes: Annotated[tuple[_Change, ...], Field(min_length=1, max_length=MAX_CHANGES)]


class _Question(Frozen):
    text: Annotated[str, Field(min_length=1, max_length=4000)]
    severity: Literal["normal", "blocking"] = "normal"
    kind: QuestionKind = "question"


class _Milestone(Frozen):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    ref: Annotated[str, Field(max_length=200)] = ""


Made = tuple[EntityId, tuple[Payload, ...]]
"""What a change is about, and what it records."""


async def change_context(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Everything that the request asks for, and the mark that it did (`change_context`).

    Raises InvalidInput with the number of the change that cannot be, and what the commands behind it refuse.
    """
    asked, state = parsed(_Changes, command).changes, bench.state
    if state.is_over:
        raise InvalidTransition(f"story {state.story_id} is over", state=state.state, event=command.name, allowed=[])
    named = [change.entity_id for change in asked if change.entity_id is not None and change.operation != "CREATE"]
    if twice := sorted({id for id in named if named.count(id) > 1}):
        raise InvalidInput(f"{twice[0]} is changed twice in one request: send two", field="changes", allowed=[])
    found, marks = list[Payload](), list[ContextChange]()
    for number, change in enumerate(asked):
        check_notes(change.reason, "reason")
        decide = _CHANGES.get((change.entity_type, change.operation))
        if decide is None:
            raise InvalidInput(_why_not(change), field=f"changes/{number}/operation", allowed=_allowed(change))
        # Each has a name of its own, so that what it makes has one too.
        own = replace(command, command_id=CommandId(f"{command.command_id}/{number}"))
        entity_id, payloads = await decide(bench, own, caller, change)
        found += payloads
        digest = await bench.blobs.put(canonical_json(change.payload))
        marks.append(
            ContextChange(
                operation=change.operation,
                entity_type=change.entity_type,
                entity_id=entity_id,
                payload_digest=digest,
                reason=change.reason.strip(),
            )
        )
    version = state.version + len(found) + 1
    told = [mark.model_dump(mode="json") for mark in marks]
    hash = digest_of_json({"story_id": state.story_id, "version": version, "changes": told})
    return (*found, ContextChanged(changes=tuple(marks), version=version, hash=hash))


def _decided(bench: Workbench, command: Command, caller: Caller, sent: StoryCommand) -> tuple[Payload, ...]:
    """What the command behind a change records; none of those has attachments."""
    outcome = sent.decide(bench.state, facts_for(bench, command.command_id, caller))
    return tuple(payload for payload in outcome if isinstance(payload, Payload))


async def _new_decision(bench: Workbench, command: Command, caller: Caller, change: _Change) -> Made:
    sent = ProposeDecision.model_validate(change.payload)
    return bench.new_id("de", command.command_id), _decided(bench, command, caller, sent)


async def _settled_decision(bench: Workbench, command: Command, caller: Caller, change: _Change) -> Made:
    id, status = _named(change), change.payload.get("status")
    if status == "ACCEPTED":
        return id, _decided(bench, command, caller, AcceptDecision(decision_id=id, note=change.reason))
    if status == "REJECTED":
        return id, _decided(bench, command, caller, RejectDecision(decision_id=id, reason=change.reason))
    raise InvalidInput(
        "a decision is never rewritten: it is accepted or rejected, or another one takes its place",
        field="payload/status",
        allowed=["ACCEPTED", "REJECTED"],
    )


async def _removed_decision(bench: Workbench, command: Command, caller: Caller, change: _Change) -> Made:
    id, by = _named(change), change.payload.get("by_decision_id")
    known = bench.state.decisions.get(id)
    if by is None and known is not None and known.status == "ACCEPTED":
        raise InvalidInput(
            f"decision {id} holds: name the accepted one that takes its place",
            field="payload/by_decision_id",
            allowed=sorted(k for k, d in bench.state.decisions.items() if d.status == "ACCEPTED" and k != id)[:50],
        )
    if by is None:
        return id, _decided(bench, command, caller, RejectDecision(decision_id=id, reason=change.reason))
    sent = SupersedeDecision(decision_id=id, reason=change.reason, by_decision_id=by)
    return id, _decided(bench, command, caller, sent)


async def _new_question(bench: Workbench, command: Command, caller: Caller, change: _Change) -> Made:
    asked = parsed(_Question, replace(command, body=change.payload))
    sent = replace(command, body=asked.model_dump())
    return bench.new_id("qu", command.command_id), ask_question(bench, sent, caller)


async def _answered_question(bench: Workbench, command: Command, caller: Caller, change: _Change) -> Made:
    _fields(change, "answer")
    return _answer(bench, command, caller, change, str(change.payload.get("answer") or ""))


async def _withdrawn_question(bench: Workbench, command: Command, caller: Caller, change: _Change) -> Made:
    _fields(change)
    return _answer(bench, command, caller, change, f"withdrawn: {change.reason.strip()}")


def _answer(bench: Workbench, command: Command, caller: Caller, change: _Change, answer: str) -> Made:
    id = _named(change)
    sent = replace(command, body={"question_id": id, "answer": answer})
    return id, answer_question(bench, sent, caller)


async def _updated_task(bench: Workbench, command: Command, caller: Caller, change: _Change) -> Made:
    id = _named(change)
    return id, _decided(bench, command, caller, UpdateTask(task_id=id, changes=change.payload))


async def _discarded_task(bench: Workbench, command: Command, caller: Caller, change: _Change) -> Made:
    _fields(change)
    id = _named(change)
    sent = ActOnTask(task_id=id, action="DISCARD_TASK", feedback=change.reason)
    return id, _decided(bench, command, caller, sent)


async def _new_milestone(bench: Workbench, command: Command, caller: Caller, change: _Change) -> Made:
    require_any_role(caller.principal, caller.roles)
    asked = parsed(_Milestone, replace(command, body=change.payload))
    id = bench.new_id("ms", command.command_id)
    return id, (MilestoneReached(milestone_id=id, name=asked.name, ref=asked.ref or bench.state.story_id),)


def _named(change: _Change) -> EntityId:
    if not change.entity_id:
        raise InvalidInput(f"{change.operation} names what it changes", field="entity_id")
    return EntityId(change.entity_id)


def _fields(change: _Change, *allowed: str) -> None:
    if unknown := sorted(set(change.payload) - set(allowed)):
        raise InvalidInput(f"{unknown[0][:60]!r} is not of it", field="payload", allowed=list(allowed))


_CHANGES: Mapping[tuple[ContextKind, str], Callable[[Workbench, Command, Caller, _Change], Awaitable[Made]]] = {
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


def _allowed(change: _Change) -> list[str]:
    return [operation for kind, operation in _CHANGES if kind == change.entity_type]


def _why_not(change: _Change) -> str:
    return f"{change.operation} {change.entity_type}: {_REASONS.get(change.entity_type, 'there is no such change')}"
