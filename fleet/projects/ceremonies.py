"""What commands on a backlog review record (PL-60..PL-70)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.council.config import FIRST_NAMED, LAST_NAMED
from fleet.events.payload import Payload
from fleet.events.platform import AgentRegistered, AgentUnregistered
from fleet.events.project import (
    CeremonyCancelled,
    CeremonyCompleted,
    CeremonyOpened,
    CeremonyStarted,
    CeremonyStoryDecided,
)
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound
from fleet.kernel.ids import CommandId, EntityId, StoryId, StreamId
from fleet.log.port import Command, EventLog
from fleet.owner.council_pools import PoolRules, check_role
from fleet.planning.backlog_review import REVIEWABLE, BacklogReview, check_stories, next_status, read_decision
from fleet.planning.platform_state import PlatformState
from fleet.planning.project_state import Ceremony, ProjectState
from fleet.projects.outlines import chosen_plan
from fleet.projects.project_commands import Decide, Deciding, made_id, read_reason, require_open
from fleet.story.commands.command import Caller, StoryCommand
from fleet.story.commands.gates import Approve
from fleet.story.commands.plan_versions import ProposePlan, preliminary_plan_id, takes_outline
from fleet.story.commands.request_approval import RequestApproval
from fleet.story.evolve.story import fold
from fleet.story.state import StoryState


async def _story(log: EventLog, story_id: str) -> StoryState | None:
    return fold(await log.read(StreamId.of_story(StoryId(story_id))))


def _named(command: Command) -> tuple[StoryId, ...]:
    names = command.body.get("story_ids")
    if not isinstance(names, list):
        raise InvalidInput("story_ids is a list of story ids", field="story_ids")
    return tuple(dict.fromkeys(StoryId(str(name)) for name in names))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


async def _check(at: Deciding, state: ProjectState, names: tuple[StoryId, ...]) -> None:
    found = {name: await _story(at.log, name) for name in names}
    # A story of another project is none of this one's.
    own = {n: s if s is not None and s.project_id == state.project_id else None for n, s in found.items()}
    check_stories(at.ceremony, {n: s.state if s is not None else None for n, s in own.items()})


def _held(state: ProjectState, command: Command) -> Ceremony:
    ceremony_id = str(command.body.get("ceremony_id") or "")
    found = state.ceremonies.get(ceremony_id)
    if found is None:
        raise NotFound(f"project {state.project_id} has no ceremony {ceremony_id[:80]!r}", ceremony_id=ceremony_id[:80])
    return found


async def _open(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """A review of these stories is being prepared."""
    caller.require("po")
    require_open(state)
    names = _named(command)
    await _check(at, state, names)
    councils = at.ceremony.councils
    return (CeremonyOpened(ceremony_id=made_id("ce", command), story_ids=names, councils=councils),)  # pyright: ignore[reportArgumentType]


async def _choose(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """A review that is being prepared is of other stories."""
    caller.require("po")
    found = _held(state, command)
    next_status(at.ceremony, found, "add_story")
    names = _named(command)
    await _check(at, state, names)
    return (CeremonyOpened(ceremony_id=found.ceremony_id, story_ids=names, councils=found.councils),)  # pyright: ignore[reportArgumentType]


async def _start(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The councils review the stories from here on."""
    caller.require("po")
    found = _held(state, command)
    next_status(at.ceremony, found, "start")
    names = tuple(StoryId(s) for s in found.story_ids)
    await _check(at, state, names)
    if not at.has_model(None):
        raise InvalidInput(
            "no council can review, for no model policy names an engine: put one in the place of `profile` below "
            "`policies` of models.yaml",
            field="model",
        )
    return (CeremonyStarted(ceremony_id=found.ceremony_id, story_ids=names, councils=found.councils),)  # pyright: ignore[reportArgumentType]


async def _decide(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The product owner said yes or no to one story, and why (PL-68)."""
    caller.require("po")
    found, body = _held(state, command), command.body
    is_approved = bool(body.get("approve"))
    next_status(at.ceremony, found, "approve_story" if is_approved else "reject_story")
    story_id = StoryId(str(body.get("story_id") or ""))
    if story_id not in found.story_ids:
        raise NotFound(f"ceremony {found.ceremony_id} reviews no story {story_id}", story_id=story_id)
    if story_id in found.decisions:
        raise InvalidTransition(
            f"story {story_id} is decided already: {found.decisions[story_id].result}",
            state=found.status,
            event="decide",
            allowed=[],
        )
    if not is_approved:
        reason = read_reason(command)
        return (
            CeremonyStoryDecided(ceremony_id=found.ceremony_id, story_id=story_id, result="REJECTED", reason=reason),
        )
    names = ("po_notes", "po_concerns", "priority_adjustment", "priority_reason")
    decision = read_decision({name: body.get(name) for name in names})
    chosen = await _chosen(at, found, command) if await _has_use_of_a_plan(at, command) else None
    return (
        CeremonyStoryDecided(
            ceremony_id=found.ceremony_id,
            story_id=story_id,
            result="APPROVED",
            po_notes=decision.po_notes,
            po_concerns=decision.po_concerns,
            priority_adjustment=decision.priority_adjustment,
            priority_reason=decision.priority_reason,
            plan_id=preliminary_plan_id(found.ceremony_id, story_id) if chosen else None,
        ),
    )


async def _has_use_of_a_plan(at: Deciding, command: Command) -> bool:
    """Whether the story still waits for its work: one that went on meanwhile has, or gets, a plan of its own.

    Raises:
        InvalidTransition: it went on, and the approval names the council whose outline is meant.
    """
    story_id = str(command.body["story_id"])
    story = await _story(at.log, story_id)
    if takes_outline(story):
        return True
    if command.body.get("plan_of") is None:
        return False
    state = "gone" if story is None else story.disposition if story.is_over else story.state
    raise InvalidTransition(
        f"story {story_id} is {state}: an outline comes before the work, so approve it without plan_of",
        state=state,
        event="propose_plan",
        allowed=sorted(REVIEWABLE),
    )


async def _chosen(at: Deciding, found: Ceremony, command: Command) -> tuple[str, BacklogReview] | None:
    """The outline that the approval makes a plan of, and whose it is."""
    council = command.body.get("plan_of")
    return await chosen_plan(
        at.blobs,
        found,
        str(command.body["story_id"]),
        None if council is None else str(council),
        assignable=at.assignable_roles,
    )


async def _complete(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Every story is decided, and the review is over (PL-65)."""
    caller.require("po")
    found = _held(state, command)
    next_status(at.ceremony, found, "complete")
    if left := [s for s in found.story_ids if s not in found.decisions]:
        raise InvalidTransition(
            f"{len(left)} stories are still to be decided: {', '.join(left[:5])}",
            state=found.status,
            event="complete",
            allowed=["approve_story", "reject_story", "cancel"],
        )
    return (CeremonyCompleted(ceremony_id=found.ceremony_id, story_ids=tuple(StoryId(s) for s in found.story_ids)),)


async def _cancel(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The review is given up; what was said in it stays on record."""
    caller.require("po")
    found = _held(state, command)
    next_status(at.ceremony, found, "cancel")
    return (CeremonyCancelled(ceremony_id=found.ceremony_id, reason=read_reason(command)),)


CEREMONY_COMMANDS: Mapping[str, Decide] = {
    "open_ceremony": _open,
    "choose_ceremony_stories": _choose,
    "start_ceremony": _start,
    "decide_ceremony_story": _decide,
    "complete_ceremony": _complete,
    "cancel_ceremony": _cancel,
}


async def consent_of(at: Deciding, state: ProjectState, command: Command) -> tuple[Command, ...]:
    """What an approval brings to its story: the outlined plan, and to one that is ready the consent to its scope.

    Of a story that is not ready the notes are kept, and its gate stays closed (PL-69).
    """
    if command.name != "decide_ceremony_story" or not command.body.get("approve"):
        return ()
    found, notes = _held(state, command), str(command.body["po_notes"])
    # What is on record decides: the story may have gone on since.
    decided = found.decisions[str(command.body["story_id"])]
    chosen = await _chosen(at, found, command) if decided.plan_id is not None else None
    planned = () if chosen is None else (_on_story(command, _proposal(found.ceremony_id, *chosen, notes)),)
    story = await _story(at.log, str(command.body["story_id"]))
    if story is None or story.state != "DRAFT" or story.score is None or not story.score.dor_ok:
        return planned
    # The gate is asked for by the work on a story, which has not begun; a request that waits already is answered too.
    return (
        *planned,
        _on_story(command, RequestApproval(gate="approve_scope")),
        _on_story(command, Approve(gate="approve_scope", notes=notes)),
    )


def _proposal(ceremony_id: str, council: str, review: BacklogReview, notes: str) -> ProposePlan:
    """What brings an outline to its story."""
    return ProposePlan(
        ceremony_id=ceremony_id, council=council, feedback=review.feedback, tasks=review.plan, notes=notes
    )


def _on_story(command: Command, sent: StoryCommand) -> Command:
    story_id = StoryId(str(command.body["story_id"]))
    return Command(
        command_id=CommandId(
            f"{command.principal}/{story_id}/{sent.command}-by-ceremony-{command.body['ceremony_id']}"
        ),
        stream=StreamId.of_story(story_id),
        name=sent.command,
        principal=command.principal,
        body=sent.body(),
        trace_id=command.trace_id,
    )


_EVER = LAST_NAMED - FIRST_NAMED + 1
MAX_PERSONA = 1000
"""Characters of a persona."""
_AT_ONCE = 9
"""No council has more voters."""


def register_agent(
    rules: PoolRules | None, state: PlatformState, command: Command, caller: Caller
) -> tuple[Payload, ...]:
    """What registering an agent records; its id has the next number of the role that was never given.

    Raises:
        PolicyDenied: the caller is no admin.
        InvalidInput: nobody serves the role, or there is no such policy; `field` and `allowed` say what to change.
        InvalidTransition: the role has as many as a council may have voters.
    """
    caller.require("admin")
    assert rules is not None, "whoever takes commands on agents knows the rules of pools"
    role, policy = str(command.body.get("role") or ""), str(command.body.get("model_policy") or "")
    check_role(rules, role)
    if policy not in rules.models.policies:
        known = sorted(rules.models.policies)
        raise InvalidInput(
            f"models.yaml has no policy {policy[:60]!r}; allowed are {', '.join(known)}",
            field="model_policy",
            allowed=known,
        )
    ever = sum(agent.registered.role == role for agent in state.agents.values())
    if len(state.named_agents().get(role, ())) >= _AT_ONCE or ever >= _EVER:
        raise InvalidTransition(
            f"role {role} has all the named agents that it can have: take one away first",
            state="full",
            event="register_agent",
            allowed=[],
        )
    name = EntityId(f"agent-{role}-{FIRST_NAMED + ever:03d}")
    persona = _persona(command.body.get("persona"))
    return (AgentRegistered(role=role, agent_id=name, profile=role, engine=policy, persona=persona),)


def _persona(said: Any) -> str | None:
    """The text without space around it; None when nothing was said. InvalidInput when it is no text, or too long."""
    text = said.strip() if isinstance(said, str) else said
    if text is None or text == "":
        return None
    if not isinstance(text, str) or len(text) > MAX_PERSONA:
        raise InvalidInput(f"persona is a text of at most {MAX_PERSONA} characters", field="persona")
    return text


def unregister_agent(state: PlatformState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """What taking an agent away records. PolicyDenied for all but admins; NotFound when it is not registered."""
    caller.require("admin")
    name = str(command.body.get("agent_id") or "")
    known = state.agents.get(name)
    if known is None or known.is_gone:
        there = [key for key, agent in state.agents.items() if not agent.is_gone]
        listed = ", ".join(there) or "none"
        raise NotFound(f"there is no named agent {name[:80]!r}; there are: {listed}", allowed=there)
    return (AgentUnregistered(role=known.registered.role, agent_id=known.registered.agent_id),)
