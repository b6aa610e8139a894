"""Fold of the council events: what was said is kept as it came, and `fleet.council` says what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

from fleet.events.council import CouncilCancelled, CouncilDecided, CouncilOpened, CouncilUndecided
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.story.council_facts import CouncilSaid, duty_of
from fleet.story.sessions import fold as session_fold
from fleet.story.state import CouncilRecord, StoryState


def _opened(s: StoryState, p: CouncilOpened, event: StoredEvent) -> StoryState:
    return _put(s, CouncilRecord(opened=p, opened_version=event.version))


def _put(s: StoryState, record: CouncilRecord) -> StoryState:
    return s.with_(councils={**s.councils, record.opened.council_id: record})


def _said(r: CouncilRecord, p: CouncilSaid) -> CouncilRecord:
    duty = duty_of(p)
    return r if duty in r.said else replace(r, said={**r.said, duty: p})


def _decided(r: CouncilRecord, p: CouncilDecided) -> CouncilRecord:
    return replace(r, status="DECIDED", winner=p.winner, verdict=p.verdict)


def _undecided(r: CouncilRecord, p: CouncilUndecided) -> CouncilRecord:
    return replace(r, status="UNDECIDED", reason=p.reason)


def _cancelled(r: CouncilRecord, p: CouncilCancelled) -> CouncilRecord:
    return replace(r, status="CANCELLED", reason=p.reason)


def _within(
    change: Callable[[CouncilRecord, Any], CouncilRecord],
) -> Callable[[StoryState, Any, StoredEvent], StoryState]:
    def handler(s: StoryState, p: Any, _: StoredEvent) -> StoryState:
        known = s.councils.get(p.council_id)
        return s if known is None else _put(s, change(known, p))

    return handler


HANDLERS: Mapping[type[Payload], Callable[[StoryState, Any, StoredEvent], StoryState]] = {
    CouncilOpened: _opened,
    **dict.fromkeys(get_args(CouncilSaid), _within(_said)),
    CouncilDecided: _within(_decided),
    CouncilUndecided: _within(_undecided),
    CouncilCancelled: _within(_cancelled),
    **session_fold.HANDLERS,
}
