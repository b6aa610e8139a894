"""Recorded histories under the real owner: they go on, also one that an older version began otherwise (F20).

That every version of every recorded history folds and plans to its recorded digests is tested beside `fleet.story`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import pytest

from fleet.events.envelope import Head, NewEvent, StoredEvent
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import LogCorrupted
from fleet.kernel.ids import StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import AppendRequest
from fleet.story.evolve.story import fold
from fleet.story.snapshot import replay
from fleet.story.state import StoryState
from tests.support.histories import recorded
from tests.support.oracle import epochs_never_fall, steps_count_once, stream_verifies
from tests.support.rules import fsm
from tests.support.sim_faults import OneFault
from tests.support.sim_histories import MADE, STORY, rehashed
from tests.support.sim_stores import Stores
from tests.support.sim_world import Scenario, World
from tests.support.simulation import SimLoop, simulated

HISTORIES = {history.name: history.export.events for history in recorded()}
STREAM = StreamId.of_story(STORY)
ALONE = Scenario("history", stories=("branch",), shards=1, projectors=0, faults_until_s=0.0)


async def write(log: MemoryEventLog, events: Sequence[StoredEvent]) -> None:
    """The events are in the log with the same bytes and hashes."""
    for command_id, group in groupby(events, key=lambda event: event.command_id):
        written = list(group)
        first = written[0]
        while (await log.head(STREAM)).epoch < first.epoch:
            log.raise_epoch(STREAM)
        await log.append(
            AppendRequest(
                stream=STREAM,
                events=[NewEvent(type=e.type, schema=e.schema, body=e.body, causation=e.causation) for e in written],
                expected=Head(version=first.version - 1, hash=first.prev_hash, epoch=first.epoch),
                command_id=command_id,
                actor=first.actor,
                ts_ms=first.ts_ms,
            )
        )
    assert await log.read(STREAM) == list(events)


async def resumed(loop: SimLoop, events: Sequence[StoredEvent], *, more: int) -> StoryState:
    """What a shard that takes the story up makes of it: once it is parked, or went on by so many events."""
    world = World(loop, ALONE, Stores(loop), OneFault(loop, -1, None))
    await write(world.stores.log, events)
    world.start_shard("council:0")
    for _ in range(600):
        await asyncio.sleep(0.1)
        state = fold(await world.stores.log.read(STREAM))
        assert state is not None
        if state.park is not None or state.version >= len(events) + more:
            return state
    raise AssertionError(f"the story did not go on from version {len(events)}")


@pytest.mark.parametrize("name", sorted(MADE))
def test_recorded_history_verifies_and_holds_each_result_once(name: str) -> None:
    events = HISTORIES[name]
    stream = events[0].stream
    stream_verifies(stream, events, Head(len(events), events[-1].hash, events[-1].epoch))
    epochs_never_fall(stream, events)
    steps_count_once(stream, events)


def test_troubled_history_has_takeovers_and_a_crash_loop_and_ends_like_the_undisturbed_one() -> None:
    types = [event.type for event in HISTORIES["troubled"]]
    assert types.count("OwnershipTaken") > 4
    assert {"StoryParked", "StoryUnparked"} <= set(types)
    ends = [list(replay(HISTORIES[name], fsm()))[-1] for name in ("troubled", "simulated")]
    assert {(end.event, end.state, end.owed) for end in ends} == {("StoryClosed", "DONE", ())}


@pytest.mark.rule("RC-58", "PL-48")
def test_step_that_an_older_version_began_with_another_request_is_begun_anew_and_the_story_goes_on() -> None:
    events = HISTORIES["nondeterministic"]
    with simulated("history") as loop:
        state = loop.run_until_complete(resumed(loop, events, more=3))
    assert state.park is None
    step = next(iter(state.steps.values()))
    assert (step.attempt, step.finished is None) == (2, False)
    assert step.started.request_digest != digest_of(b"what an older release asked for")


@pytest.mark.rule("PL-49", "PL-48")
def test_the_same_history_as_it_really_was_goes_on() -> None:
    events = HISTORIES["simulated"][: len(HISTORIES["nondeterministic"])]
    with simulated("history") as loop:
        state = loop.run_until_complete(resumed(loop, events, more=3))
    assert state.park is None
    assert any(step.finished is not None for step in state.steps.values())


@pytest.mark.rule("PL-49")
def test_replay_of_a_history_with_another_decision_differs_from_the_record() -> None:
    events = list(HISTORIES["simulated"])
    cut = next(n for n, event in enumerate(events) if event.type == "StoryTransitioned" and n > 10)
    changed = rehashed([*events[:cut], replace(events[cut], body=events[cut].body.replace(b"DESIGN", b"DRAFT"))])
    assert list(replay(changed, fsm()))[-1] != list(replay(events[: cut + 1], fsm()))[-1]


@pytest.mark.rule("EV-30")
def test_history_with_a_missing_event_is_refused() -> None:
    events = HISTORIES["simulated"]
    with pytest.raises(LogCorrupted):
        list(replay([*events[:20], *events[21:]], fsm()))
