"""Commands on the work session of an engineer: speak to it, end it with what it has, fork it (CN-25..CN-27)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fleet.council.rounds import progress
from fleet.events.step import SessionForked, SessionStopped, SessionTold
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied
from fleet.kernel.ids import EntityId
from fleet.kernel.types import Frozen, ReasonRequest
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Caller, Facts, Outcome, StoryCommand, require_not_over
from fleet.story.sessions.steps import SessionSteps, forks_in, session_id_of, session_of, sessions_of
from fleet.story.state import CouncilRecord, StoryState

MAX_TOLD = 100
"""Messages of people that one session takes."""
MAX_FORKS = 4
"""Forks that one council takes as further candidates."""
_SPEAKERS = ("po", "architect", "developer", "qa", "devops")
_ENDERS = ("po", "architect")
_OPEN = frozenset({"drafting", "evidence", "repairing"})
"""Phases of a council in which a further candidate is compared like the others."""


class TellRequest(Frozen):
    """What the engineer is told."""

    text: Annotated[str, Field(min_length=1, max_length=8_000)]


class ForkRequest(Frozen):
    """From where on the new session works by itself."""

    turn: Annotated[int, Field(ge=1)] | None = None
    """The last turn that it takes over; without it, the last one that is complete."""


class _OnSession(StoryCommand):
    session_id: Annotated[str, Field(max_length=80)]
    verb: ClassVar[str]

    def _open_session(self, state: StoryState, caller: Caller, *roles: str) -> tuple[SessionSteps, CouncilRecord]:
        """The session and its council, while both are at work.

        Raises:
            PolicyDenied: the caller is no person, or holds none of the roles.
            NotFound: the story has no such session.
            InvalidTransition: the story, the council or the session is over.
        """
        if not caller.principal.is_human:
            raise PolicyDenied(
                f"{caller.principal} is no person: only people speak to a work session or end it", rule_id="CN-25"
            )
        caller.require(*roles, rule_id="LC-11", listed=True)
        require_not_over(state, self.command)
        session = session_of(state, self.session_id)
        if session is None:
            known = [one.session_id for one in sessions_of(state)]
            raise NotFound(
                f"story {state.story_id} has no work session {self.session_id[:80]!r}; `fleet session list "
                f"{state.story_id}` shows those that it has",
                allowed=known[-20:],
            )
        council = state.councils[session.council_id]
        if council.status != "IN_PROGRESS":
            raise self._refused(state, session, f"its council {session.council_id} is over: {council.status.lower()}")
        return session, council

    def _refused(self, state: StoryState, session: SessionSteps, why: str) -> InvalidTransition:
        text = f"session {session.session_id} cannot be {self.verb}: {why}"
        return InvalidTransition(text, state=state.state, event=self.command, allowed=[])

    def _require_at_work(self, state: StoryState, session: SessionSteps) -> None:
        if session.record.ended is not None:
            raise self._refused(state, session, f"it is over ({session.record.ended.reason})")
        if session.record.stopped is not None:
            raise self._refused(state, session, f"{session.record.stopped.by} has stopped it")


class TellSession(TellRequest, _OnSession):
    """The engineer reads a text of a person before its next reply (CN-25)."""

    command = "tell_session"
    verb = "told anything"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The text; InvalidTransition for a session that is over."""
        session, _ = self._open_session(state, facts.caller, *_SPEAKERS)
        self._require_at_work(state, session)
        if len(session.record.told) >= MAX_TOLD:
            raise self._refused(state, session, f"it was told {MAX_TOLD} texts already")
        if not self.text.strip():
            raise InvalidInput("text is empty: say what the engineer should know", field="text")
        by = facts.caller.principal
        return (
            SessionTold(session_id=session.session_id, council_id=session.council_id, text=self.text.strip(), by=by),
        )


class StopSession(ReasonRequest, _OnSession):
    """The session ends with the files that it has, and they are its submission (CN-26)."""

    command = "stop_session"
    verb = "stopped"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The stop; InvalidTransition for a session that is over."""
        session, _ = self._open_session(state, facts.caller, *_ENDERS)
        self._require_at_work(state, session)
        return (
            SessionStopped(
                session_id=session.session_id,
                council_id=session.council_id,
                reason=check_notes(self.reason, "reason"),
                by=facts.caller.principal,
            ),
        )


class ForkSession(ForkRequest, _OnSession):
    """A new session goes on from the records of this one up to a turn, as a further candidate (CN-27)."""

    command = "fork_session"
    verb = "forked"

    def decide(self, state: StoryState, facts: Facts) -> Outcome:
        """The fork, whose seat is in the council from here on; InvalidTransition says why none can be had."""
        session, council = self._open_session(state, facts.caller, *_ENDERS)
        if not session.is_draft:
            raise self._refused(state, session, "it repairs a candidate, and a repair stands for no candidate")
        phase = progress(council.deliberation).phase
        if phase not in _OPEN:
            raise self._refused(state, session, f"its council is {phase}: candidates are compared already")
        forks = list(forks_in(state, session.council_id))
        if len(forks) >= MAX_FORKS:
            raise self._refused(state, session, f"its council has {MAX_FORKS} forks already")
        turn = self._turn(state, session)
        number = 1 + sum(r.forked is not None and r.forked.of_member == session.member.member_id for r in forks)
        member_id = EntityId(f"{session.member.member_id}-fork-{number}")
        return (
            SessionForked(
                session_id=session_id_of(state.story_id, f"{session.council_id}/draft/{member_id}"),
                council_id=session.council_id,
                source_id=session.session_id,
                turn=turn,
                of_member=session.member.member_id,
                member_id=member_id,
                by=facts.caller.principal,
            ),
        )

    def _turn(self, state: StoryState, session: SessionSteps) -> int:
        # The newest turn may be in the middle of its calls; of a session that is over it is the submission.
        last = session.last_turn - 1
        if last < 1:
            raise self._refused(state, session, "it has no complete turn yet")
        turn = self.turn or last
        if turn > last:
            raise InvalidInput(
                f"turn {turn} of session {session.session_id} cannot be forked from: turns 1 to {last} are complete",
                field="turn",
            )
        return turn
