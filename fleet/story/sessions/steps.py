"""The work sessions of a story as its recorded steps tell them. Pure; nothing else knows where a session stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from fleet.events.council import DraftReceived, RosterMember
from fleet.kernel.ids import EntityId, StoryId, StreamId, derive_id
from fleet.story.state import SessionRecord, Step, StoryState

_BEGIN = "/begin"


@dataclass(frozen=True, slots=True)
class CallSteps:
    """The recorded steps of one call."""

    number: int
    """Of the use within its reply, from 1."""
    main: Step | None = None
    """None of a call that the policy refused before it started."""
    tests: Step | None = None
    """The tests that ran for a submission."""
    denied: Step | None = None


@dataclass(frozen=True, slots=True)
class TurnSteps:
    """The recorded steps of one turn."""

    number: int
    reply: Step | None = None
    told: Step | None = None
    """What people said before this reply."""
    calls: dict[int, CallSteps] = field(default_factory=dict[int, CallSteps])


@dataclass(frozen=True, slots=True)
class SessionSteps:
    """One work session: who works, for which council, and its turns."""

    session_id: EntityId
    step: str
    """Its steps are named below it."""
    council_id: EntityId
    member: RosterMember
    task_id: EntityId | None
    begun: Step | None
    """None while a fork has not begun."""
    record: SessionRecord
    turns: dict[int, TurnSteps]
    """Its own, by number: a fork goes on from the number that it was forked at."""

    @property
    def last_turn(self) -> int:
        """The number of the newest turn, those that a fork begins with included; 0 before the first."""
        inherited = self.record.forked.turn if self.record.forked else 0
        return max(self.turns, default=inherited)

    @property
    def has_worked(self) -> bool:
        """Whether a reply is on record: of a fork, one of its own."""
        return any(turn.reply is not None and turn.reply.finished is not None for turn in self.turns.values())

    @property
    def is_draft(self) -> bool:
        """Whether it works out a candidate; the others repair one."""
        return self.step.startswith(f"{self.council_id}/draft/")


def session_id_of(story_id: StoryId, step: str) -> EntityId:
    """The id of the session whose steps are named below this one."""
    return derive_id("se", StreamId.of_story(story_id), f"session/{step}")


def step_of_turn(state: StoryState, step: str, turn: int) -> str:
    """The name below which this turn of a session is on record: of a fork's first turns, that of its source."""
    forked = state.sessions.get(session_id_of(state.story_id, step), SessionRecord()).forked
    if forked is None or turn > forked.turn:
        return step
    return step_of_turn(state, f"{forked.council_id}/draft/{forked.of_member}", turn)


def sessions_of(state: StoryState) -> tuple[SessionSteps, ...]:
    """Every session of the story, in the order in which they began; forks that have not begun come last."""
    steps = [name.removesuffix(_BEGIN) for name in state.steps if name.endswith(_BEGIN)]
    forks = [r.forked for r in state.sessions.values() if r.forked is not None]
    steps += [f"{fork.council_id}/draft/{fork.member_id}" for fork in forks]
    turns = {step: dict[int, TurnSteps]() for step in steps}
    for name, step in state.steps.items():
        found = _place(name, turns)
        if found is not None:
            _put(*found, step)
    sessions = (_session(state, step, turns[step]) for step in turns)
    return tuple(session for session in sessions if session is not None)


def session_of(state: StoryState, session_id: str) -> SessionSteps | None:
    """The session of this id; None when the story has none."""
    return next((one for one in sessions_of(state) if one.session_id == session_id), None)


def whole_turns(state: StoryState, session: SessionSteps) -> dict[int, TurnSteps]:
    """The turns of a session by number, those included that a fork begins with."""
    forked = session.record.forked
    if forked is None:
        return session.turns
    source = session_of(state, forked.source_id)
    before = whole_turns(state, source) if source is not None else {}
    return {**{number: turn for number, turn in before.items() if number <= forked.turn}, **session.turns}


def forks_in(state: StoryState, council_id: str) -> Iterator[SessionRecord]:
    """The sessions of a council that were forked from others, in the order of forking."""
    return (r for r in state.sessions.values() if r.forked is not None and r.forked.council_id == council_id)


def _place(name: str, turns: dict[str, dict[int, TurnSteps]]) -> tuple[dict[int, TurnSteps], list[str]] | None:
    """The turns that a step belongs to, and its name below its session."""
    end = len(name)
    while (end := name.rfind("/", 0, end)) > 0:
        if (found := turns.get(name[:end])) is not None:
            rest = name[end + 1 :].split("/")
            return (found, rest) if rest[0].isdecimal() else None
    return None


def _put(turns: dict[int, TurnSteps], rest: list[str], step: Step) -> None:
    number = int(rest[0])
    turn = turns.get(number, TurnSteps(number))
    match rest[1:]:
        case []:
            turns[number] = TurnSteps(number, step, turn.told, turn.calls)
        case ["told"]:
            turns[number] = TurnSteps(number, turn.reply, step, turn.calls)
        case ["call", at, *what] if at.isdecimal():
            call = turn.calls.get(int(at), CallSteps(int(at)))
            turn.calls[int(at)] = CallSteps(
                int(at),
                main=step if not what else call.main,
                tests=step if what == ["tests"] else call.tests,
                denied=step if what == ["denied"] else call.denied,
            )
            turns[number] = turn
        case _:
            pass


def _session(state: StoryState, step: str, turns: dict[int, TurnSteps]) -> SessionSteps | None:
    begun = state.steps.get(f"{step}{_BEGIN}")
    council = state.councils.get(step.partition("/")[0])
    if council is None:
        return None
    member_id = _member_of(state, step)
    member = next((m for m in council.opened.roster if m.member_id == member_id), None)
    if member is None:
        return None
    session_id = session_id_of(state.story_id, step)
    return SessionSteps(
        session_id,
        step,
        council.opened.council_id,
        member,
        council.opened.task_id,
        begun,
        state.sessions.get(session_id, SessionRecord()),
        turns,
    )


def _member_of(state: StoryState, step: str) -> str | None:
    council_id, kind, *rest = step.split("/")
    if kind == "draft":
        return rest[0]
    # The name of a repair holds its candidate: its author is who delivered that.
    said = state.councils[council_id].said.values()
    drafts = (p for p in said if isinstance(p, DraftReceived))
    return next((p.member_id for p in drafts if p.candidate_id == rest[-1]), None)
