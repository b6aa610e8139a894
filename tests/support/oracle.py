"""The oracle: what must hold after every fault test, whatever was broken on the way (notes on the event store, O1-O8).

    seen = RecordingLog(log)                      # give this to the code under test
    ...                                           # faults, then peace
    await check(log, acknowledged=seen.acknowledged, graph=graph, expected={story_id: digest}, ...)

Every failure is an AssertionError whose first word is the rule. What a test cannot know it leaves out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import groupby, pairwise
from typing import Any, cast

from pydantic import BaseModel

from fleet.events.codec import decode
from fleet.events.envelope import GENESIS_HASH, Head, StoredEvent, event_hash
from fleet.events.report import OwnershipTaken
from fleet.graph.changes import Cursor
from fleet.graph.effects.table import effects as effects_of
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.port import DecisionGraph
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.port import Appended, AppendRequest, Duplicate, EventLog
from fleet.log.rules import hashed_fields
from fleet.story.evolve.story import fold
from fleet.story.lifecycle import FsmConfig
from fleet.story.plan import plan, waiting_for
from fleet.story.state import StoryState
from tests.support.rules import fsm as packaged_fsm
from tests.support.through_log import ThroughLog


@dataclass(frozen=True)
class Effects:
    """What the receivers of effects counted: key -> how often it was really committed there."""

    keyed: Mapping[str, int] = field(default_factory=dict[str, int])
    unsafe: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Verdict:
    """What was looked at, for tests that go on from here."""

    events: Mapping[StreamId, Sequence[StoredEvent]]
    states: Mapping[StoryId, StoryState]
    digests: Mapping[StoryId, str]

    @property
    def takeovers(self) -> int:
        """Changes of owner beyond the first one of each story, as the streams have them."""
        return sum(max(0, sum(e.type == "OwnershipTaken" for e in events) - 1) for events in self.events.values())


class RecordingLog(ThroughLog):
    """An `EventLog` that keeps what its callers were told: `acknowledged` is what must never be lost."""

    def __init__(self, inner: EventLog) -> None:
        super().__init__(inner)
        self.acknowledged: list[StoredEvent] = []
        self.outcomes: Counter[str] = Counter()
        """`Appended`, `Duplicate` and the codes of refusals."""

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """See `EventLog.append`."""
        try:
            outcome = await self._inner.append(request)
        except Exception as error:
            self.outcomes[str(getattr(error, "code", type(error).__name__))] += 1
            raise
        self.outcomes[type(outcome).__name__] += 1
        if isinstance(outcome, Appended):
            self.acknowledged += outcome.events
        else:
            # Told "it is there": the recorded versions are acknowledged as much as new ones.
            limit = outcome.last - outcome.first + 1
            self.acknowledged += await self._inner.read(request.stream, after=outcome.first - 1, limit=limit)
        return outcome

    def __getattr__(self, name: str) -> Any:
        """Whatever the port grows: as the inner log has it."""
        return getattr(self._inner, name)


async def check(
    log: EventLog,
    *,
    acknowledged: Iterable[StoredEvent],
    graph: DecisionGraph | None = None,
    projection_parked: Collection[StreamId] = (),
    effects: Effects | None = None,
    expected: Mapping[StoryId, str | StoryState] | None = None,
    may_park: Collection[StoryId] = (),
    healed: bool = True,
    fsm: FsmConfig | None = None,
    ignore: Collection[str] = (),
    endpoints: Mapping[str, Sequence[bool]] | None = None,
    fired: Mapping[str, int] | None = None,
    sometimes: Mapping[str, bool | int] | None = None,
) -> Verdict:
    """O1 to O8 hold, as far as the arguments say what to look at; the first that does not is an AssertionError.

    Args:
        log: as it is now, seen without faults.
        acknowledged: events that some append returned as stored (O1); see `RecordingLog`.
        graph: of a projector that had time to catch up (O5), with `projection_parked` streams left behind.
        effects: what counting receivers saw (O4).
        expected: story -> state of the run without faults, or its `state_digest` (O6); a state names what differs.
        may_park: stories that are allowed to be parked, and then are not compared with `expected` (O6, O7).
        healed: False where the test stops in the middle, so that O7 is left out.
        ignore: further names that `state_digest` leaves out.
        endpoints: name -> whether its last calls succeeded, oldest first; the last three must have (O7).
        fired: fault -> how often it was injected; each at least once (O8).
        sometimes: name -> whether it was seen; every one must have been (O8).
    """
    ends = {stream: await _end_of(log, stream) for stream in await log.streams()}
    events = {stream: stored for stream, (stored, _) in ends.items()}
    acknowledged_are_kept(events, acknowledged)
    for stream, (stored, head) in ends.items():
        stream_verifies(stream, stored, head)
        epochs_never_fall(stream, stored)
        steps_count_once(stream, stored)
    if effects is not None:
        _effects_count_once(effects)
    if graph is not None:
        await graph_is_the_log(graph, events, parked=projection_parked)
    states = _states(events)
    digests = {story: state_digest(state, ignore=ignore) for story, state in states.items()}
    if healed:
        now_ms = max((e.ts_ms for stored in events.values() for e in stored), default=0)
        stories_healed(states, may_park=may_park, fsm=fsm or packaged_fsm(), now_ms=now_ms)
    for name, calls in (endpoints or {}).items():
        assert [*calls][-3:] == [True] * 3, f"O7: the last three calls to {name} did not all succeed: {calls}"
    if expected is not None:
        _same_end(states, digests, expected, may_park=may_park, ignore=ignore)
    for name, times in (fired or {}).items():
        assert times >= 1, f"O8: fault {name!r} was never injected"
    for name, was_seen in (sometimes or {}).items():
        assert was_seen, f"O8: {name!r} was never seen, so the test shows less than it says"
    return Verdict(events, states, digests)


async def _end_of(log: EventLog, stream: StreamId) -> tuple[Sequence[StoredEvent], Head]:
    """Events and head as of one moment: in a fleet that lives, a takeover may come between the two reads."""
    head = await log.head(stream)
    while True:
        before, stored, head = head, await log.read(stream), await log.head(stream)
        if head == before:
            return stored, head


def acknowledged_are_kept(
    events: Mapping[StreamId, Sequence[StoredEvent]], acknowledged: Iterable[StoredEvent]
) -> None:
    """O1: everything that a client was told is stored, is there with the same bytes."""
    for event in acknowledged:
        stored = events.get(event.stream, ())
        assert event.version <= len(stored), (
            f"O1: {event.event_id} ({event.type}) was acknowledged and is gone: the stream ends at {len(stored)}"
        )
        found = stored[event.version - 1]
        assert found == event, f"O1: {event.event_id} was acknowledged as {event}, and the log has {found}"


def stream_verifies(stream: StreamId, stored: Sequence[StoredEvent], head: Head) -> None:
    """O2: versions 1..n without a gap, every hash right, and the head is the last entry."""
    previous = GENESIS_HASH
    for version, event in enumerate(stored, start=1):
        assert event.version == version, f"O2: {stream} has version {event.version} where {version} must stand"
        assert event.prev_hash == previous, f"O2: {event.event_id} does not follow the hash of the entry before"
        assert event_hash(**hashed_fields(event)) == event.hash, f"O2: {event.event_id} does not match its own hash"
        previous = event.hash
    assert (head.version, head.hash) == (len(stored), previous), (
        f"O2: the head of {stream} says {head.version}, its last entry is {len(stored)}"
    )
    assert not stored or head.epoch >= stored[-1].epoch, f"O2: the head of {stream} has an older epoch than its end"


def epochs_never_fall(stream: StreamId, stored: Sequence[StoredEvent]) -> None:
    """O3: epochs never fall along a stream, and each has one owner, who took it under that very epoch."""
    for before, after in pairwise(stored):
        assert after.epoch >= before.epoch, (
            f"O3: {after.event_id} was written under epoch {after.epoch} after {before.epoch}: a dead owner wrote"
        )
    owners: dict[int, str] = {}
    for event in stored:
        if event.type != "OwnershipTaken":
            continue
        taken = decode(event)
        assert isinstance(taken, OwnershipTaken)
        assert event.epoch == taken.epoch, f"O3: {event.event_id} takes epoch {taken.epoch} under {event.epoch}"
        assert taken.epoch not in owners, (
            f"O3: epoch {taken.epoch} of {stream} has two owners: {owners.get(taken.epoch)} and {taken.owner}"
        )
        owners[taken.epoch] = taken.owner


def steps_count_once(stream: StreamId, stored: Sequence[StoredEvent], *, may_ask_anew: bool = False) -> None:
    """O4: at most one recorded result per step, no start that is not the first, and every command id wrote once.

    A step that a probe or a person knows not to have happened may start once more (RC-57).

    Args:
        may_ask_anew: an open step may start once more with another request (RC-58): people said something meanwhile.
    """
    blocks = Counter(command for command, _ in groupby(stored, key=lambda e: e.command_id))
    twice = [command for command, times in blocks.items() if times > 1]
    assert not twice, f"O4: {stream} holds the events of command {twice[0]} more than once"
    counted: dict[str, Counter[str]] = {name: Counter() for name in ("StepStarted", "StepFinished", "StepResolved")}
    requests: dict[str, list[str]] = {}
    for event in stored:
        if event.type not in counted:
            continue
        body = json.loads(event.body)
        step = str(body["step_id"])
        if may_ask_anew and event.type == "StepStarted":
            asked = requests.setdefault(step, [])
            asked.append(str(body["request_digest"]))
            assert len(asked) == len(set(asked)), f"O4: {stream} started step {step} twice with one request"
            counted["StepResolved"][step] += len(asked) > 1
        counted[event.type][step] += body.get("outcome") == "not_happened" if event.type == "StepResolved" else 1
        starts, denied = counted["StepStarted"][step], counted["StepResolved"][step]
        assert counted["StepFinished"][step] <= 1, f"O4: {stream} has two results of step {step}"
        assert 1 <= starts <= 1 + denied, f"O4: {stream} started step {step} {starts} times, denied {denied} times"


def _effects_count_once(counted: Effects) -> None:
    for key, times in counted.keyed.items():
        assert times == 1, f"O4: the receiver committed KEYED effect {key} {times} times, once is right"
    for key, times in counted.unsafe.items():
        assert times <= 1, f"O4: the receiver saw UNSAFE effect {key} {times} times, at most once is right"


async def graph_is_the_log(
    graph: DecisionGraph, events: Mapping[StreamId, Sequence[StoredEvent]], *, parked: Collection[StreamId] = ()
) -> None:
    """O5: every cursor is at its head, or parked before it, and the graph is what a rebuild of that would give."""
    cursors: dict[StreamId, Cursor] = {}
    for stream, stored in events.items():
        cursor = cursors[stream] = await graph.cursor(stream)
        hashes = {0: GENESIS_HASH, **{e.version: e.hash for e in stored}}
        assert cursor.hash == hashes.get(cursor.version), (
            f"O5: the cursor of {stream} names version {cursor.version}, which is not in the log"
        )
        assert stream in parked or cursor.version == len(stored), (
            f"O5: {stream} is projected up to {cursor.version} of {len(stored)} and not parked"
        )
    again = await rebuilt({stream: stored[: cursors[stream].version] for stream, stored in events.items()})
    assert await graph.digest() == await again.digest(), "O5: the graph differs from one rebuilt from nothing"


async def rebuilt(events: Mapping[StreamId, Sequence[StoredEvent]]) -> MemoryGraph:
    """A new graph of these events, projected one stream after the other."""
    graph = MemoryGraph()
    for stream, stored in events.items():
        if stored:
            changes = [change for event in stored for change in effects_of(event, decode(event))]
            reached = Cursor(stored[-1].version, stored[-1].hash)
            await graph.apply(stream, changes, expected=Cursor(0, GENESIS_HASH), reached=reached)
    return graph


def _states(events: Mapping[StreamId, Sequence[StoredEvent]]) -> dict[StoryId, StoryState]:
    folded = {StoryId(s.entity): fold(stored) for s, stored in events.items() if s.startswith("story:")}
    return {story: state for story, state in folded.items() if state is not None}


def _same_end(
    states: Mapping[StoryId, StoryState],
    digests: Mapping[StoryId, str],
    expected: Mapping[StoryId, str | StoryState],
    *,
    may_park: Collection[StoryId],
    ignore: Collection[str],
) -> None:
    for story, end in expected.items():
        assert story in states, f"O6: story {story} is missing"
        if story in may_park and states[story].disposition == "parked":
            continue
        wanted = end if isinstance(end, str) else state_digest(end, ignore=ignore)
        if digests[story] != wanted:
            found = [] if isinstance(end, str) else what_differs(end, states[story], ignore=ignore)
            raise AssertionError(f"O6: story {story} came to another end than without faults: {'; '.join(found)}")


def stories_healed(
    states: Mapping[StoryId, StoryState], *, may_park: Collection[StoryId], fsm: FsmConfig, now_ms: int
) -> None:
    """O7: every story is closed, waits for a person, or is parked where that is allowed; none still owes work."""
    for story, state in states.items():
        if state.disposition == "parked":
            why = f"{state.park.cause}: {state.park.detail}" if state.park else "no reason"
            assert story in may_park, f"O7: story {story} is parked ({why}) and should have gone on"
            continue
        owed = plan(state, fsm, now_ms=now_ms)
        assert not owed, f"O7: story {story} at version {state.version} still owes {owed[0]}"
        rests = state.closed or state.disposition != "active" or waiting_for(state, fsm, now_ms=now_ms) is not None
        assert rests, f"O7: story {story} in {state.state} neither ended nor waits for a person"


ALWAYS_IGNORED = frozenset(
    {
        "version",
        "ts_ms",
        "created_ms",
        "updated_ms",
        "started_ms",
        "epoch",
        "takeovers_without_progress",
        "owner",
        "owned_version",
        "requested_version",
        "opened_version",
        "report_version",
        "finished_version",
        "covers_to",
        "milestones",
        "expires_at",
        "expires_at_ms",
        "grant_expires_at",
        "valid_until",
        "deadline_ms",
        "deadline_at",
        "decided_at",
        "latency_ms",
        "wall_ms",
        "since_ms",
        "entered_ms",
        "stayed_ms",
        # How long a task took depends on what failed meanwhile.
        "breaches",
        "until_ms",
        # A call that a dead owner may have made stays counted until the engine's own log settles it.
        "holds",
        "reserved",
        # Digests of texts that name times, versions or durations themselves.
        "card_digest",
        "report_digest",
        "result_digest",
        "prompt_digest",
    }
)
"""Names of fields that may differ between two runs of one story that came to the same end."""

_UNORDERED = frozenset({"failed", "refused", "tree_authors", "reviewers"})
"""Sequences in order of arrival, which decides nothing."""


def state_digest(state: StoryState, *, ignore: Collection[str] = ()) -> str:
    """64 hex digits over what a story came to: the same for runs that differ in times, epochs and takeovers only."""
    raw = json.dumps(_plain(state, ALWAYS_IGNORED | frozenset(ignore)), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(raw.encode()).hexdigest()


def what_differs(left: StoryState, right: StoryState, *, ignore: Collection[str] = ()) -> list[str]:
    """Paths of `state_digest` at which two states differ, at most twenty, with both values: for a failing test."""
    names = ALWAYS_IGNORED | frozenset(ignore)
    return list(_differences(_plain(left, names), _plain(right, names), ""))[:20]


def _differences(left: Any, right: Any, path: str) -> Iterable[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        ours, theirs = cast("dict[str, Any]", left), cast("dict[str, Any]", right)
        for key in sorted(ours.keys() | theirs.keys()):
            yield from _differences(ours.get(key), theirs.get(key), f"{path}/{key}")
    elif left != right:
        yield f"{path}: {left!r} != {right!r}"


def _plain(value: Any, ignored: frozenset[str]) -> Any:
    match value:
        case BaseModel():
            return _plain(value.model_dump(mode="json", by_alias=True, exclude_none=True), ignored)
        case Mapping():
            return _named(cast("Mapping[Any, Any]", value).items(), ignored)
        case list() | tuple() | set() | frozenset():
            return [_plain(v, ignored) for v in cast("Iterable[Any]", value)]
        case None | bool() | int() | str():
            return value
        case _ if is_dataclass(value):
            return _named(((f.name, getattr(value, f.name)) for f in fields(value)), ignored)
        case _:
            return str(value)


def _named(items: Iterable[tuple[Any, Any]], ignored: frozenset[str]) -> dict[str, Any]:
    found = {str(k): _plain(v, ignored) for k, v in items if str(k) not in ignored}
    for name in _UNORDERED & found.keys():
        if isinstance(found[name], list):
            found[name] = sorted(found[name], key=str)
    return found
