"""Turns the state of a story into bytes and back. So a long story need not be folded from its first event (EV-6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, cast

from pydantic import TypeAdapter

from fleet.events.envelope import StoredEvent
from fleet.kernel.collector import all_alive
from fleet.kernel.digest import digest_of, digest_of_json
from fleet.kernel.errors import LogCorrupted
from fleet.kernel.ids import Digest
from fleet.log.port import Snapshot
from fleet.story.evolve.story import fold
from fleet.story.intents import Intent
from fleet.story.lifecycle import FsmConfig
from fleet.story.plan import plan
from fleet.story.state import StoryState

_FOLD = 19
"""Raise it when `evolve` gives another state for the same events: a snapshot of the old meaning is then not read."""

_PROSE = frozenset({"title", "description"})


@cache
def _adapter() -> TypeAdapter[StoryState]:
    return TypeAdapter(StoryState)


@cache
def state_schema() -> str:
    """The name of the form of `encode_state`; another one whenever the shape or the meaning of the state changes."""
    return f"story-state/{_FOLD}/{digest_of_json(_shape_of(_adapter().json_schema())).hex[:16]}"


def _shape_of(schema: dict[str, Any]) -> object:
    """The schema without what names and explains it: a class may be renamed, moved and documented anew.

    Definitions are numbered in the order in which they are referred to.
    """
    numbers: dict[str, str] = {}

    def shape(part: object) -> object:
        match part:
            case {"$ref": str(reference)}:
                return {"$ref": numbers.setdefault(reference, str(len(numbers)))}
            case dict():
                fields = cast("dict[str, object]", part)
                # A field may itself be called "title": there it holds a schema, not a text.
                return {k: shape(v) for k, v in fields.items() if not (k in _PROSE and isinstance(v, str))}
            case list():
                return [shape(each) for each in cast("list[object]", part)]
            case _:
                return part

    definitions = schema.pop("$defs", {})
    shapes: list[object] = [shape(schema)]
    # Each round may name further definitions; `numbers` keeps the order.
    while len(shapes) <= len(numbers):
        reference = list(numbers)[len(shapes) - 1]
        shapes.append(shape(definitions[reference.removeprefix("#/$defs/")]))
    return shapes


def encode_state(state: StoryState) -> bytes:
    """The state as JSON; `decode_state` gives an equal one."""
    return _adapter().dump_json(state)


def confirmed_state(snapshot: Snapshot, tail: Sequence[StoredEvent]) -> StoryState | None:
    """The state of a snapshot of this form; None when it is unreadable or the log does not confirm it.

    Args:
        tail: the events of the log from the version of the snapshot on.
    """
    if not tail or tail[0].hash != snapshot.hash:
        return None
    try:
        with all_alive():
            state = decode_state(snapshot.data)
    except LogCorrupted:
        return None
    return state if state.version == snapshot.version else None


def decode_state(data: bytes) -> StoryState:
    """The state of these bytes. LogCorrupted when they are not of the form that `state_schema` names."""
    try:
        return _adapter().validate_json(data)
    except ValueError as error:
        raise LogCorrupted(f"the snapshot of a story cannot be read: {error}") from error


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
