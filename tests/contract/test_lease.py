"""The contract of LeaseStore, on every adapter."""

from __future__ import annotations

import asyncio

import pytest

from fleet.kernel.errors import LeaseHeld, OwnershipLost
from fleet.kernel.ids import StreamId
from fleet.log.port import Lease
from tests.support.stores import Stores, append_request, eventually, new_stream


@pytest.mark.rule("EV-3", "EV-4")
async def test_claim_of_a_free_stream_raises_the_epoch_of_its_head(stores: Stores) -> None:
    stream = new_stream()
    lease = await stores.leases.claim(stream, "main/1", ttl_s=5)
    assert lease == Lease(stream, "main/1", epoch=1, ttl_s=5)
    assert (await stores.log.head(stream)).epoch == 1


async def test_claim_while_another_shard_holds_is_refused_and_changes_nothing(stores: Stores) -> None:
    stream = new_stream()
    await stores.leases.claim(stream, "main/1", ttl_s=5)
    with pytest.raises(LeaseHeld) as caught:
        await stores.leases.claim(stream, "mainland/1", ttl_s=5)
    assert caught.value.details["owner"] == "main/1"
    assert 0 < caught.value.details["expires_in_ms"] <= 5000
    assert (await stores.log.head(stream)).epoch == 1


async def test_newer_incarnation_of_the_shard_takes_over_at_once(stores: Stores) -> None:
    stream = new_stream()
    old = await stores.leases.claim(stream, "main/1", ttl_s=5)
    new = await stores.leases.claim(stream, "main/2", ttl_s=5)
    assert new.epoch == old.epoch + 1
    with pytest.raises(OwnershipLost) as caught:
        await stores.leases.renew(old)
    assert caught.value.details == {"stream": stream, "owner": "main/1", "epoch": old.epoch}


async def test_claim_again_by_the_same_owner_raises_the_epoch(stores: Stores) -> None:
    stream = new_stream()
    old = await stores.leases.claim(stream, "main/1", ttl_s=5)
    assert (await stores.leases.claim(stream, "main/1", ttl_s=5)).epoch == 2
    with pytest.raises(OwnershipLost):
        await stores.leases.renew(old)


async def try_claim(stores: Stores, stream: StreamId, owner: str) -> Lease | None:
    try:
        return await stores.leases.claim(stream, owner, ttl_s=5)
    except LeaseHeld:
        return None


async def test_expired_lease_is_claimed_by_another_shard_and_cannot_be_renewed(stores: Stores) -> None:
    stream = new_stream()
    old = await stores.leases.claim(stream, "main/1", ttl_s=1)
    new = await eventually(lambda: try_claim(stores, stream, "other/1"), within_s=60)
    assert new is not None
    assert new.epoch == 2
    with pytest.raises(OwnershipLost):
        await stores.leases.renew(old)


async def test_expired_lease_cannot_be_renewed_although_nobody_claimed_it(stores: Stores) -> None:
    lease = await stores.leases.claim(new_stream(), "main/1", ttl_s=0)
    with pytest.raises(OwnershipLost):
        await stores.leases.renew(lease)


async def test_renewed_lease_outlives_its_first_time(stores: Stores) -> None:
    stream = new_stream()
    short = await stores.leases.claim(stream, "main/1", ttl_s=1)
    await stores.leases.renew(Lease(stream, "main/1", short.epoch, ttl_s=30))
    with pytest.raises(LeaseHeld) as caught:
        await stores.leases.claim(stream, "other/1", ttl_s=1)
    assert caught.value.details["expires_in_ms"] > 1000


async def test_many_leases_are_renewed_in_one_call_which_names_those_that_are_lost(stores: Stores) -> None:
    held = [await stores.leases.claim(new_stream(), "main/1", ttl_s=5) for _ in range(3)]
    taken, ended, _ = held
    await stores.leases.claim(taken.stream, "main/2", ttl_s=5)
    await stores.leases.release(ended)
    longer = [Lease(lease.stream, lease.owner, lease.epoch, ttl_s=60) for lease in held]

    assert await stores.leases.renew_all(longer) == {taken.stream, ended.stream}
    assert await stores.leases.renew_all([]) == frozenset()
    with pytest.raises(LeaseHeld) as caught:
        await stores.leases.claim(held[2].stream, "other/1", ttl_s=1)
    assert caught.value.details["expires_in_ms"] > 5000


async def test_released_stream_is_free_and_keeps_its_epoch(stores: Stores) -> None:
    stream = new_stream()
    lease = await stores.leases.claim(stream, "main/1", ttl_s=5)
    await stores.leases.release(lease)
    assert (await stores.log.head(stream)).epoch == 1
    assert (await stores.leases.claim(stream, "other/1", ttl_s=5)).epoch == 2


async def test_release_of_a_lost_lease_changes_nothing(stores: Stores) -> None:
    stream = new_stream()
    old = await stores.leases.claim(stream, "main/1", ttl_s=5)
    new = await stores.leases.claim(stream, "main/2", ttl_s=5)
    await stores.leases.release(old)
    await stores.leases.renew(new)
    with pytest.raises(LeaseHeld):
        await stores.leases.claim(stream, "other/1", ttl_s=5)


async def test_claim_keeps_version_and_hash_of_the_head(stores: Stores) -> None:
    stream = new_stream()
    outcome = await stores.log.append(append_request(stream))
    await stores.leases.claim(stream, "main/1", ttl_s=5)
    head = await stores.log.head(stream)
    assert (head.version, head.hash, head.epoch) == (1, outcome.head.hash, 1)


async def test_racing_shards_get_one_lease_for_each_stream(stores: Stores) -> None:
    streams = [new_stream() for _ in range(20)]
    shards = {"left/1": stores, "right/1": stores.twin()}
    racing = [try_claim(opened, stream, owner) for stream in streams for owner, opened in shards.items()]
    leases = [lease for lease in await asyncio.gather(*racing) if lease]
    assert sorted(lease.stream for lease in leases) == sorted(streams)
    assert {lease.epoch for lease in leases} == {1}
