"""The contract of SnapshotStore, on every adapter."""

from __future__ import annotations

import asyncio
import random

import pytest

from fleet.events.envelope import Head
from fleet.kernel.ids import StreamId
from fleet.log.port import Appended, Snapshot
from tests.support.stores import SNAPSHOT_BYTES, Stores, append_request, new_stream


def snapshot(version: int, *, data: bytes = b"\x00state\xff", schema: str = "story/1") -> Snapshot:
    return Snapshot(version=version, hash=f"{version:064d}", schema=schema, data=data)


@pytest.mark.rule("EV-6")
async def test_put_snapshot_is_found_by_every_process(stores: Stores) -> None:
    stream = new_stream()
    await stores.snapshots.put(stream, snapshot(200))
    assert await stores.twin().snapshots.get(stream) == snapshot(200)
    assert await stores.snapshots.get(new_stream()) is None


async def test_newer_snapshot_replaces_an_older_one_and_never_the_other_way(stores: Stores) -> None:
    stream = new_stream()
    for version in (200, 1000, 400):
        await stores.snapshots.put(stream, snapshot(version))
    assert await stores.snapshots.get(stream) == snapshot(1000)


async def test_snapshot_of_the_same_version_in_another_form_replaces(stores: Stores) -> None:
    stream = new_stream()
    await stores.snapshots.put(stream, snapshot(200, schema="story/1"))
    await stores.snapshots.put(stream, snapshot(200, schema="story/2", data=b""))
    assert await stores.snapshots.get(stream) == snapshot(200, schema="story/2", data=b"")


async def test_racing_puts_leave_the_newest(stores: Stores) -> None:
    stream = new_stream()
    both = [stores.snapshots, stores.twin().snapshots]
    await asyncio.gather(*(both[version % 2].put(stream, snapshot(version)) for version in (7, 3, 12, 9, 1, 11)))
    assert await stores.snapshots.get(stream) == snapshot(12)


async def test_snapshot_over_the_limit_is_not_kept_and_the_older_one_stays(stores: Stores) -> None:
    stream = new_stream()
    # States are kept packed: text that repeats itself takes little room, noise takes its own size.
    full = snapshot(1, data=b"as before, " * SNAPSHOT_BYTES)
    await stores.snapshots.put(stream, full)
    noise = random.Random(1).randbytes(SNAPSHOT_BYTES + 1)
    await stores.snapshots.put(stream, snapshot(2, data=noise))
    assert await stores.snapshots.get(stream) == full


async def test_dropped_snapshot_is_gone_and_an_older_one_may_come(stores: Stores) -> None:
    stream = new_stream()
    await stores.snapshots.put(stream, snapshot(400))
    for _ in range(2):
        await stores.snapshots.drop(stream)
    assert await stores.snapshots.get(stream) is None
    await stores.snapshots.put(stream, snapshot(200))
    assert await stores.snapshots.get(stream) == snapshot(200)


async def stream_with_snapshot(stores: Stores) -> tuple[StreamId, Head]:
    stream = new_stream()
    outcome = await stores.log.append(append_request(stream))
    assert isinstance(outcome, Appended)
    await stores.snapshots.put(stream, snapshot(1))
    return stream, outcome.head


@pytest.mark.rule("EV-25")
async def test_erased_stream_has_no_snapshot(stores: Stores) -> None:
    stream, head = await stream_with_snapshot(stores)
    await stores.log.erase(stream, expected=head)
    assert await stores.snapshots.get(stream) is None


@pytest.mark.rule("EV-19")
async def test_accepted_loss_drops_the_snapshot_of_what_was_lost(stores: Stores) -> None:
    stream, _ = await stream_with_snapshot(stores)
    await stores.log.accept_loss(stream)
    assert await stores.snapshots.get(stream) == snapshot(1)
    await stores.log.refuse(stream, reason="the log went back")
    await stores.log.accept_loss(stream)
    assert await stores.snapshots.get(stream) is None
