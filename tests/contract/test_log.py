"""The contract of EventLog, on every adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.events.envelope import GENESIS_HASH, Head
from fleet.kernel.errors import FleetError, InvalidInput, LogRegressed, OwnershipLost, PayloadTooLarge, VersionConflict
from fleet.kernel.ids import StreamId
from fleet.log.port import MAX_APPEND_BYTES, MAX_BODY_BYTES, MAX_EVENTS, Appended, Duplicate
from tests.support.stores import Stores, append_request, new_stream, open_stores, own_database


async def appended(stores: Stores, stream: StreamId, expected: Head | None = None, **fields: object) -> Appended:
    outcome = await stores.log.append(append_request(stream, expected, **fields))
    assert isinstance(outcome, Appended)
    return outcome


@pytest.mark.rule("EV-1", "EV-11")
async def test_append_numbers_events_without_gaps_and_links_them_by_hash(stores: Stores) -> None:
    stream = new_stream()
    first = await appended(stores, stream, bodies=[b'{"n":1}', b'{"n":2}'])
    second = await appended(stores, stream, first.head, bodies=["ü\x00".encode()])
    events = await stores.log.read(stream)
    assert events == [*first.events, *second.events]
    assert [event.version for event in events] == [1, 2, 3]
    assert [event.prev_hash for event in events] == [GENESIS_HASH, events[0].hash, events[1].hash]
    assert await stores.log.head(stream) == second.head == Head(3, events[2].hash, 0)


async def test_read_pages_after_a_version_up_to_a_limit(stores: Stores) -> None:
    stream = new_stream()
    await appended(stores, stream, bodies=[b"%d" % n for n in range(5)])
    assert [event.body for event in await stores.log.read(stream, after=1, limit=2)] == [b"1", b"2"]
    assert [event.version for event in await stores.log.read(stream, after=3)] == [4, 5]
    assert await stores.log.read(stream, after=5) == []
    assert await stores.log.read(stream, limit=0) == []


async def test_unknown_stream_reads_as_empty(stores: Stores) -> None:
    stream = new_stream()
    assert await stores.log.read(stream) == []
    assert await stores.log.head(stream) == Head()
    assert stream not in await stores.log.streams()


@pytest.mark.rule("EV-2")
async def test_project_and_platform_streams_hold_events_like_stories(stores: Stores) -> None:
    names = [StreamId("platform:main"), StreamId("project:pr-one"), StreamId("story:st-one")]
    for name in names:
        await appended(stores, name)
    assert await stores.log.streams() == names
    assert [len(await stores.log.read(name)) for name in names] == [1, 1, 1]


@pytest.mark.rule("EV-14", "EV-16")
async def test_append_with_known_command_returns_the_recorded_versions_and_stores_nothing(stores: Stores) -> None:
    stream = new_stream()
    first = await appended(stores, stream, bodies=[b"1", b"2"], command_id="st-one/step-1/finish")
    await appended(stores, stream, first.head)
    again = append_request(stream, Head(77, "f" * 64, 9), bodies=[b"other"], command_id="st-one/step-1/finish")
    assert await stores.log.append(again) == Duplicate(first=1, last=2)
    assert len(await stores.log.read(stream)) == 3


@pytest.mark.rule("EV-14")
async def test_append_with_known_command_is_duplicate_even_after_a_takeover_and_over_the_limits(stores: Stores) -> None:
    stream = new_stream()
    await appended(stores, stream, command_id="st-one/step-1/finish")
    await stores.leases.claim(stream, "main/2", ttl_s=5)
    again = append_request(stream, bodies=[b"x" * (MAX_BODY_BYTES + 1)], command_id="st-one/step-1/finish")
    assert await stores.log.append(again) == Duplicate(first=1, last=1)


@pytest.mark.rule("EV-14", "EV-17")
async def test_append_of_a_zombie_after_takeover_is_fenced(stores: Stores) -> None:
    stream = new_stream()
    old = await stores.leases.claim(stream, "main/1", ttl_s=5)
    first = await appended(stores, stream, Head(epoch=old.epoch))
    new = await stores.leases.claim(stream, "main/2", ttl_s=5)
    with pytest.raises(OwnershipLost) as caught:
        await stores.log.append(append_request(stream, first.head))
    assert caught.value.details == {"stream": stream, "expected": old.epoch, "actual": new.epoch}
    assert await stores.log.head(stream) == Head(1, first.head.hash, new.epoch)
    await appended(stores, stream, await stores.log.head(stream))
    assert [event.epoch for event in await stores.log.read(stream)] == [old.epoch, new.epoch]


@pytest.mark.rule("EV-14")
@pytest.mark.parametrize("expected", [Head(0), Head(2), Head(1, "f" * 64)])
async def test_append_after_another_end_is_a_conflict_with_the_actual_one(stores: Stores, expected: Head) -> None:
    stream = new_stream()
    first = await appended(stores, stream)
    with pytest.raises(VersionConflict) as caught:
        await stores.log.append(append_request(stream, expected))
    assert caught.value.details["actual"] == 1
    assert caught.value.details["actual_hash"] == first.head.hash
    assert await stores.log.read(stream) == list(first.events)


TOO_LARGE = {
    "events": [b"{}"] * (MAX_EVENTS + 1),
    "body": [b"{}", b"x" * (MAX_BODY_BYTES + 1)],
    "append": [b"x" * MAX_BODY_BYTES] * (MAX_APPEND_BYTES // MAX_BODY_BYTES) + [b"x"],
}


@pytest.mark.rule("EV-13")
@pytest.mark.parametrize("bodies", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_append_over_a_limit_writes_nothing(stores: Stores, bodies: list[bytes]) -> None:
    stream = new_stream()
    with pytest.raises(PayloadTooLarge):
        await stores.log.append(append_request(stream, bodies=bodies))
    assert await stores.log.head(stream) == Head()
    assert await stores.log.read(stream) == []
    assert await stores.log.streams() == []


@pytest.mark.rule("EV-13")
async def test_append_at_the_limits_is_stored(stores: Stores) -> None:
    stream = new_stream()
    full = [b"x" * MAX_BODY_BYTES] * (MAX_APPEND_BYTES // MAX_BODY_BYTES)
    first = await appended(stores, stream, bodies=full)
    await appended(stores, stream, first.head, bodies=[b"{}"] * MAX_EVENTS)
    assert (await stores.log.head(stream)).version == len(full) + MAX_EVENTS


@pytest.mark.rule("EV-14")
async def test_stale_append_over_a_limit_is_refused_for_its_version_first(stores: Stores) -> None:
    stream = new_stream()
    await appended(stores, stream)
    with pytest.raises(VersionConflict):
        await stores.log.append(append_request(stream, bodies=TOO_LARGE["body"]))


async def test_append_without_events_is_invalid(stores: Stores) -> None:
    with pytest.raises(InvalidInput):
        await stores.log.append(append_request(new_stream(), bodies=[]))


@pytest.mark.rule("EV-7")
async def test_closing_append_leaves_the_open_set_and_a_later_one_returns(stores: Stores) -> None:
    one, two = new_stream("st-a"), new_stream("st-b")
    first = await appended(stores, one)
    await appended(stores, two)
    assert await stores.log.open_streams() == [one, two]
    closed = await appended(stores, one, first.head, closes=True)
    assert await stores.log.open_streams() == [two]
    assert await stores.log.streams() == [one, two]
    await appended(stores, one, closed.head)
    assert await stores.log.open_streams() == [one, two]


async def test_claimed_stream_without_events_is_not_listed(stores: Stores) -> None:
    stream = new_stream()
    lease = await stores.leases.claim(stream, "main/1", ttl_s=5)
    assert await stores.log.head(stream) == Head(epoch=lease.epoch)
    assert await stores.log.streams() == await stores.log.open_streams() == []


@pytest.mark.rule("EV-14")
async def test_racing_appends_store_one_and_tell_the_others(stores: Stores) -> None:
    stream = new_stream()
    logs = [stores.log, stores.twin().log]
    racing = [logs[n % 2].append(append_request(stream, bodies=[b"%d" % n])) for n in range(10)]
    outcomes = await asyncio.gather(*racing, return_exceptions=True)
    assert sum(isinstance(outcome, Appended) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 9
    assert len(await stores.log.read(stream)) == 1


@pytest.mark.rule("EV-14")
async def test_racing_appends_of_one_command_store_it_once(stores: Stores) -> None:
    stream = new_stream()
    logs = [stores.log, stores.twin().log]
    same = append_request(stream, bodies=[b"1", b"2"])
    outcomes = await asyncio.gather(*(logs[n % 2].append(same) for n in range(10)))
    assert sum(isinstance(outcome, Appended) for outcome in outcomes) == 1
    assert outcomes.count(Duplicate(1, 2)) == 9


@pytest.mark.rule("EV-19")
async def test_refused_stream_is_read_but_takes_no_append_until_the_loss_is_accepted(stores: Stores) -> None:
    stream, other = new_stream(), new_stream()
    first = await appended(stores, stream)
    await stores.log.refuse(stream, reason="a checkpoint names version 7")
    with pytest.raises(LogRegressed, match=f"names version 7; .*`fleet accept-loss {stream}`") as caught:
        await stores.twin().log.append(append_request(stream, first.head))
    assert caught.value.details == {"stream": stream, "reason": "a checkpoint names version 7"}
    assert await stores.log.read(stream) == list(first.events)
    assert await stores.log.head(stream) == first.head
    await appended(stores, other)
    await stores.log.accept_loss(stream)
    assert await stores.log.refused() == {}
    assert (await appended(stores, stream, first.head)).head.version == 2


@pytest.mark.rule("EV-14", "EV-19")
async def test_refused_stream_answers_a_known_command_and_no_other_check(stores: Stores) -> None:
    stream = new_stream()
    await appended(stores, stream, command_id="st-one/step-1/finish")
    await stores.log.refuse(stream, reason="the log went back")
    known = append_request(stream, command_id="st-one/step-1/finish")
    assert await stores.log.append(known) == Duplicate(1, 1)
    for stale in (Head(9, "f" * 64, 9), Head()):
        with pytest.raises(LogRegressed):
            await stores.log.append(append_request(stream, stale, bodies=TOO_LARGE["body"]))
    assert len(await stores.log.read(stream)) == 1


@pytest.mark.rule("EV-19")
async def test_refused_names_every_stream_with_its_first_reason(stores: Stores) -> None:
    lost, back = new_stream("st-b"), new_stream("st-a")
    await appended(stores, back)
    await stores.log.refuse(lost, reason="Ä: all of it is gone")
    await stores.log.refuse(back, reason="first")
    await stores.log.refuse(back, reason="second")
    assert await stores.twin().log.refused() == {back: "first", lost: "Ä: all of it is gone"}
    assert list(await stores.log.refused()) == [back, lost]
    with pytest.raises(LogRegressed):
        await stores.log.append(append_request(lost))


async def test_refusal_without_a_reason_is_invalid(stores: Stores) -> None:
    with pytest.raises(InvalidInput):
        await stores.log.refuse(new_stream(), reason=" ")
    assert await stores.log.refused() == {}


async def test_accepting_the_loss_of_a_stream_that_is_not_refused_changes_nothing(stores: Stores) -> None:
    stream = new_stream()
    first = await appended(stores, stream)
    await stores.log.accept_loss(stream)
    await stores.log.accept_loss(new_stream())
    assert await stores.log.head(stream) == first.head
    assert await stores.log.streams() == [stream]


@pytest.mark.rule("EV-5")
async def test_commands_lists_every_command_with_its_versions_in_order(stores: Stores) -> None:
    stream = new_stream()
    first = await appended(stores, stream, bodies=[b"1", b"2"], command_id="st-z/first")
    await appended(stores, stream, first.head, command_id="st-a/second")
    await stores.log.append(append_request(stream, command_id="st-z/first"))
    found = await stores.twin().log.commands(stream)
    assert found == {"st-z/first": (1, 2), "st-a/second": (3, 3)}
    assert list(found) == ["st-z/first", "st-a/second"]
    assert await stores.log.commands(new_stream()) == {}


@pytest.mark.rule("EV-3", "EV-25")
async def test_erased_stream_reads_as_unknown_and_keeps_its_epoch(stores: Stores) -> None:
    stream, other = new_stream(), new_stream()
    lease = await stores.leases.claim(stream, "main/1", ttl_s=30)
    written = await appended(stores, stream, Head(epoch=lease.epoch), bodies=[b"1", b"2"], command_id="st-one/a")
    await appended(stores, other)
    await stores.log.erase(stream, expected=written.head)
    assert await stores.log.read(stream) == []
    assert await stores.log.commands(stream) == {}
    assert await stores.log.streams() == await stores.log.open_streams() == [other]
    assert await stores.log.head(stream) == Head(epoch=lease.epoch)
    with pytest.raises(OwnershipLost):
        await stores.leases.renew(lease)


@pytest.mark.rule("EV-3", "EV-25")
async def test_stream_made_anew_after_erasing_never_gets_an_old_epoch(stores: Stores) -> None:
    stream = new_stream()
    old = await stores.leases.claim(stream, "main/1", ttl_s=30)
    written = await appended(stores, stream, Head(epoch=old.epoch), command_id="st-one/a")
    await stores.log.erase(stream, expected=written.head)
    # The lease is gone with the stream, so another shard need not wait for its end.
    new = await stores.leases.claim(stream, "other/1", ttl_s=30)
    assert new.epoch == old.epoch + 1
    with pytest.raises(OwnershipLost):
        await stores.log.append(append_request(stream, Head(epoch=old.epoch)))
    again = await appended(stores, stream, Head(epoch=new.epoch), command_id="st-one/a")
    assert (again.head.version, again.head.epoch) == (1, new.epoch)


@pytest.mark.rule("EV-25")
async def test_zombie_of_an_erased_stream_writes_nothing(stores: Stores) -> None:
    stream = new_stream()
    written = await appended(stores, stream)
    await stores.log.erase(stream, expected=written.head)
    with pytest.raises(VersionConflict):
        await stores.log.append(append_request(stream, written.head))
    assert await stores.log.streams() == []


@pytest.mark.rule("EV-25")
@pytest.mark.parametrize("change", [{"version": 1}, {"hash": "e" * 64}, {"epoch": 0}], ids=["version", "hash", "epoch"])
async def test_erase_of_a_stream_that_ends_elsewhere_changes_nothing(stores: Stores, change: dict[str, Any]) -> None:
    stream = new_stream()
    lease = await stores.leases.claim(stream, "main/1", ttl_s=30)
    written = await appended(stores, stream, Head(epoch=lease.epoch), bodies=[b"1", b"2"])
    with pytest.raises(VersionConflict, match="nothing was erased") as caught:
        await stores.log.erase(stream, expected=replace(written.head, **change))
    assert (caught.value.details["actual"], caught.value.details["actual_epoch"]) == (2, lease.epoch)
    assert await stores.log.read(stream) == list(written.events)
    await stores.leases.renew(lease)


@pytest.mark.rule("EV-25")
async def test_erasing_again_or_what_never_was_does_nothing(stores: Stores) -> None:
    stream, claimed = new_stream(), new_stream()
    written = await appended(stores, stream)
    for _ in range(2):
        await stores.log.erase(stream, expected=written.head)
    await stores.log.erase(new_stream(), expected=Head(3, "a" * 64, 1))
    lease = await stores.leases.claim(claimed, "main/1", ttl_s=30)
    await stores.log.erase(claimed, expected=Head(3, "a" * 64, 1))
    await stores.leases.renew(lease)


async def test_erasing_a_refused_stream_ends_its_refusal(stores: Stores) -> None:
    stream = new_stream()
    written = await appended(stores, stream)
    await stores.log.refuse(stream, reason="the log went back")
    await stores.log.erase(stream, expected=written.head)
    assert await stores.log.refused() == {}


# One step: (stream, command, events, which head it was decided on, closes, claim first).
STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 6),
        st.integers(1, 3),
        st.sampled_from(["now", "stale", "forked", "fenced"]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


async def play(stores: Stores, steps: list[tuple[int, int, int, str, bool, bool]]) -> list[object]:
    """What every step led to, and everything that can be seen at the end."""
    names = [StreamId("story:st-left"), StreamId("story:st-right")]
    seen: list[object] = []
    for which, command, events, basis, closes, claims in steps:
        stream = names[which]
        if claims:
            seen.append(await stores.leases.claim(stream, "main/1", ttl_s=30))
        now = await stores.log.head(stream)
        bases = {
            "now": now,
            "stale": Head(max(now.version - 1, 0), now.hash, now.epoch),
            "forked": Head(now.version, "e" * 64, now.epoch),
            "fenced": Head(now.version, now.hash, now.epoch + 1),
        }
        bodies = [b"%d.%d" % (command, n) for n in range(events)]
        request = append_request(stream, bases[basis], bodies=bodies, command_id=f"c/{command}", closes=closes)
        try:
            seen.append(await stores.log.append(request))
        except FleetError as error:
            seen.append((type(error), error.message, error.details))
    seen += [await stores.log.head(name) for name in names] + [await stores.log.read(name) for name in names]
    return [*seen, await stores.log.open_streams(), await stores.log.streams()]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_memory_and_redis_answer_every_sequence_alike(
    redis_url: str, run_alone: asyncio.Runner, steps: list[tuple[int, int, int, str, bool, bool]]
) -> None:
    async def both() -> tuple[list[object], list[object]]:
        async with open_stores(None) as memory, open_stores(own_database(redis_url)) as redis:
            return await play(memory, steps), await play(redis, steps)

    in_memory, in_redis = run_alone.run(both())
    assert in_memory == in_redis


@pytest.fixture
def run_alone() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner
