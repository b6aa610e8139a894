"""Fold of what people do to work sessions, and of their ends (CN-25..CN-28)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.step import SessionEnded, SessionForked, SessionStopped, SessionTold
from fleet.story.state import SessionRecord, StoryState


def _told(s: StoryState, p: SessionTold, _: StoredEvent) -> StoryState:
    return _with(s, p.session_id, told=(*_of(s, p.session_id).told, p))


def _stopped(s: StoryState, p: SessionStopped, _: StoredEvent) -> StoryState:
    return _with(s, p.session_id, stopped=_of(s, p.session_id).stopped or p)


def _ended(s: StoryState, p: SessionEnded, _: StoredEvent) -> StoryState:
    return _with(s, p.session_id, ended=_of(s, p.session_id).ended or p)


def _forked(s: StoryState, p: SessionForked, _: StoredEvent) -> StoryState:
    council = s.councils.get(p.council_id)
    source = next((m for m in council.opened.roster if m.member_id == p.of_member), None) if council else None
    if council is None or source is None:
        return s
    seat = source.model_copy(
        update={"member_id": p.member_id, "can_vote": False, "veto": False, "test_author": False, "weight": 1}
    )
    opened = council.opened.model_copy(update={"roster": (*council.opened.roster, seat)})
    councils = {**s.councils, p.council_id: replace(council, opened=opened)}
    return _with(s.with_(councils=councils), p.session_id, forked=p)


def _of(s: StoryState, session_id: str) -> SessionRecord:
    return s.sessions.get(session_id, SessionRecord())


def _with(s: StoryState, session_id: str, **changes: Any) -> StoryState:
    return s.with_(sessions={**s.sessions, session_id: replace(_of(s, session_id), **changes)})


HANDLERS: Mapping[type[Payload], Callable[[StoryState, Any, StoredEvent], StoryState]] = {
    SessionTold: _told,
    SessionStopped: _stopped,
    SessionForked: _forked,
    SessionEnded: _ended,
}
