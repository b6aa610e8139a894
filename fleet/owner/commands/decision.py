"""Commands on decisions of a story: propose, accept, reject, supersede (AP-72, GR-70, GR-71)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fleet.events.decision import DecisionLink, DecisionProposed, EvidenceRef
from fleet.events.payload import Payload
from fleet.events.story import QuestionRaised, Topic
from fleet.kernel.errors import InvalidTransition
from fleet.kernel.ids import EntityId
from fleet.kernel.types import DecisionCategory, Reason
from fleet.log.port import Command
from fleet.owner.tools.tool_steps import parsed
from fleet.owner.workbench import Workbench
from fleet.policy.roles import require_any_role
from fleet.story.commands.command import Caller
from fleet.story.decisions import accept_decision, check_links, reject_decision, supersede_decision
from fleet.story.state import StoryState

_Text = Annotated[str, Field(min_length=1, max_length=1000)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class _Proposal(_Body):
    """The fields of a decision (GR-70)."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    rationale: Reason
    category: DecisionCategory
    alternatives: Annotated[tuple[_Text, ...], Field(max_length=20)] = ()
    affects: Annotated[tuple[EntityId, ...], Field(max_length=50)] = ()
    links: Annotated[tuple[DecisionLink, ...], Field(max_length=50)] = ()
    based_on: Annotated[tuple[EvidenceRef, ...], Field(max_length=50)] = ()


class _Named(_Body):
    decision_id: str


class _Accepted(_Named):
    note: str = ""


class _Rejected(_Named):
    reason: str


class _Superseded(_Rejected):
    by_decision_id: str


async def _propose(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """A choice is on record with its author and its reasons; it binds nobody until it is accepted."""
    state, asked = _open(bench, "propose_decision"), parsed(_Proposal, command)
    require_any_role(caller.principal, caller.roles)
    proposed = DecisionProposed.model_validate(
        {
            **asked.model_dump(),
            "decision_id": bench.new_id("de", command.command_id),
            "plan_id": state.plan_id,
            "author": caller.principal,
            "origin": "human" if caller.principal.is_human else "agent",
        }
    )
    check_links(state, proposed)
    return (proposed,)


async def _accept(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The choice holds."""
    state, asked = _open(bench, "accept_decision"), parsed(_Accepted, command)
    return (accept_decision(state, asked.decision_id, caller=caller, note=asked.note),)


async def _reject(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The choice is turned down."""
    state, asked = _open(bench, "reject_decision"), parsed(_Rejected, command)
    return (reject_decision(state, asked.decision_id, caller=caller, reason=asked.reason),)


async def _supersede(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Another choice holds in its place; a plan that was derived from the old one is asked about (PL-5)."""
    state, asked = _open(bench, "supersede_decision"), parsed(_Superseded, command)
    replaced = supersede_decision(state, asked.decision_id, asked.by_decision_id, caller=caller, reason=asked.reason)
    return (replaced, *_plan_question(bench, command, caller, asked.decision_id))


def _plan_question(bench: Workbench, command: Command, caller: Caller, decision_id: str) -> tuple[QuestionRaised, ...]:
    state = bench.state
    decision = state.decisions[decision_id].proposed
    if state.plan is None or decision.category != "ARCHITECTURE":
        return ()
    return (
        QuestionRaised(
            question_id=bench.new_id("qu", f"{command.command_id}/plan"),
            kind="question",
            text=f"Decision {decision_id} was superseded: {decision.title}\nDoes the plan still fit?",
            severity="blocking",
            about=Topic(kind="plan", id=state.plan.proposal.plan_id),
            asked_by=caller.principal,
        ),
    )


def _open(bench: Workbench, event: str) -> StoryState:
    state = bench.state
    if state.is_over:
        raise InvalidTransition(f"story {state.story_id} is over", state=state.state, event=event, allowed=[])
    return state


DECISION_COMMANDS: Mapping[str, Callable[[Workbench, Command, Caller], Awaitable[tuple[Payload, ...]]]] = {
    "propose_decision": _propose,
    "accept_decision": _accept,
    "reject_decision": _reject,
    "supersede_decision": _supersede,
}
"""By the name of the command, what it records."""
