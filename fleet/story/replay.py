"""A recorded story folded and planned again, at any version, to digests that are equal on every machine (GL-16)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from fleet.digest import digest_of, digest_of_json
from fleet.events import StoredEvent
from fleet.ids import Digest
from fleet.story.evolve import fold
from fleet.story.intents import Intent
from fleet.story.lifecycle import FsmConfig
from fleet.story.plan import plan
from fleet.story.snapshot import encode_state
from fleet.story.state import StoryState

__all__ = ["Replayed", "replay"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the events up to `version` come to. Equal histories under equal rules give equal digests."""

    version: int
    event: str
    """Type of the event at that version."""
    hash: str
    """Its hash, which covers every event before it."""
    state: str
    disposition: str
    state_digest: Digest
    owed: tuple[str, ...]
    """Names of the intents that the story owes then, in order."""
    plan_digest: Digest
    """Of the intents with all their arguments."""


def replay(events: Iterable[StoredEvent], fsm: FsmConfig) -> Iterator[Replayed]:
    """One entry for each version, in order. The time of each plan is that of its event: no clock is read.

    Raises UnsupportedSchema and LogCorrupted as the fold does.
    """
    state: StoryState | None = None
    for event in events:
        state = fold([event], state)
        if state is not None:
            yield _entry(event, state, plan(state, fsm, now_ms=event.ts_ms))


def _entry(event: StoredEvent, state: StoryState, owed: tuple[Intent, ...]) -> Replayed:
    return Replayed(
        version=event.version,
        event=event.type,
        hash=event.hash,
        state=state.state,
        disposition=state.disposition,
        state_digest=digest_of(encode_state(state)),
        owed=tuple(intent.name for intent in owed),
        plan_digest=digest_of_json([[intent.name, asdict(intent)] for intent in owed]),
    )
