"""The contract of RunLedger, on every adapter."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from hashlib import sha256

import pytest

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import IdempotencyMismatch, OwnershipLost
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.sandbox.port import Claimed, Done, Lost, RunLedger, Running
from tests.support.stores import Stores, eventually

STORY = StoryId("st-one")
SPEC, OTHER = digest_of(b"spec"), digest_of(b"other spec")
FIRST, SECOND = digest_of(b"first"), digest_of(b"second")


def run_key(name: str = "run") -> RunKey:
    return RunKey(sha256(name.encode()).hexdigest())


async def claim(
    ledger: RunLedger,
    key: RunKey,
    *,
    epoch: int = 1,
    spec: Digest = SPEC,
    supervisor: str = "node-a",
    ttl_s: int = 30,
    is_detached: bool = False,
) -> Claimed | Running | Done:
    return await ledger.claim(
        key, story=STORY, epoch=epoch, spec=spec, supervisor=supervisor, ttl_s=ttl_s, is_detached=is_detached
    )


@pytest.mark.rule("RC-54")
async def test_first_claim_runs_and_a_second_one_learns_who_runs(stores: Stores) -> None:
    key = run_key()
    assert await claim(stores.ledger, key) == Claimed()
    second = await claim(stores.ledger, key, supervisor="node-b")
    assert isinstance(second, Running)
    assert second.supervisor == "node-a"
    assert 0 < second.deadline_ms - time.time_ns() // 1_000_000 <= 31_000
    assert await stores.ledger.lookup(key) == second


async def test_claim_again_by_the_running_supervisor_does_not_run_twice(stores: Stores) -> None:
    await claim(stores.ledger, run_key())
    assert isinstance(await claim(stores.ledger, run_key()), Running)


@pytest.mark.rule("RC-54")
async def test_finished_key_answers_every_claim_with_its_result(stores: Stores) -> None:
    key = run_key()
    await claim(stores.ledger, key)
    assert await stores.ledger.finish(key, epoch=1, supervisor="node-a", result=FIRST) == FIRST
    assert await claim(stores.ledger, key, supervisor="node-b", epoch=2) == Done(FIRST)
    assert await stores.ledger.lookup(key) == Done(FIRST)


@pytest.mark.rule("RC-54")
async def test_first_result_stays_and_is_returned_to_a_later_finisher(stores: Stores) -> None:
    key = run_key()
    await claim(stores.ledger, key, ttl_s=0)
    assert await claim(stores.ledger, key, supervisor="node-b") == Claimed()
    await stores.ledger.finish(key, epoch=1, supervisor="node-b", result=FIRST)
    assert await stores.ledger.finish(key, epoch=1, supervisor="node-a", result=SECOND) == FIRST


async def test_result_of_a_key_that_was_never_claimed_is_recorded(stores: Stores) -> None:
    await stores.ledger.finish(run_key(), epoch=1, supervisor="node-a", result=FIRST)
    assert await claim(stores.ledger, run_key()) == Done(FIRST)


async def test_unknown_key_is_none(stores: Stores) -> None:
    assert await stores.ledger.lookup(run_key()) is None


@pytest.mark.rule("RC-54")
async def test_run_of_a_dead_supervisor_is_claimed_anew_after_its_deadline(stores: Stores) -> None:
    key = run_key()
    await claim(stores.ledger, key, ttl_s=1)
    outcome = await eventually(lambda: claimed_by(stores.ledger, key, "node-b"), within_s=60)
    assert outcome == Claimed()
    running = await stores.ledger.lookup(key)
    assert isinstance(running, Running)
    assert running.supervisor == "node-b"


async def claimed_by(ledger: RunLedger, key: RunKey, supervisor: str) -> Claimed | None:
    outcome = await claim(ledger, key, supervisor=supervisor)
    return outcome if isinstance(outcome, Claimed) else None


async def test_entry_past_its_deadline_is_not_running(stores: Stores) -> None:
    await claim(stores.ledger, run_key(), ttl_s=0)
    assert await stores.ledger.lookup(run_key()) is None


@pytest.mark.rule("RC-54")
async def test_claim_below_the_highest_epoch_of_the_story_is_refused(stores: Stores) -> None:
    await claim(stores.ledger, run_key("new"), epoch=10)
    with pytest.raises(OwnershipLost) as caught:
        await claim(stores.ledger, run_key("old"), epoch=9)
    assert caught.value.details["actual"] == 10
    assert await stores.ledger.lookup(run_key("old")) is None


async def test_epochs_of_stories_do_not_mix(stores: Stores) -> None:
    await claim(stores.ledger, run_key("one"), epoch=10)
    other = await stores.ledger.claim(
        run_key("two"), story=StoryId("st-two"), epoch=1, spec=SPEC, supervisor="node-a", ttl_s=5
    )
    assert other == Claimed()


@pytest.mark.rule("RC-12")
async def test_key_with_another_spec_is_refused_running_or_done(stores: Stores) -> None:
    key = run_key()
    await claim(stores.ledger, key)
    with pytest.raises(IdempotencyMismatch) as caught:
        await claim(stores.ledger, key, spec=OTHER)
    assert (caught.value.details["spec"], caught.value.details["known"]) == (OTHER, SPEC)
    await stores.ledger.finish(key, epoch=1, supervisor="node-a", result=FIRST)
    with pytest.raises(IdempotencyMismatch):
        await claim(stores.ledger, key, spec=OTHER)


async def test_forgotten_run_can_be_claimed_even_with_another_spec(stores: Stores) -> None:
    key = run_key()
    await claim(stores.ledger, key)
    await stores.ledger.forget(key, supervisor="node-a")
    assert await stores.ledger.lookup(key) is None
    assert await claim(stores.ledger, key, spec=OTHER, supervisor="node-b") == Claimed()


async def test_forget_leaves_what_another_supervisor_runs_or_what_is_done(stores: Stores) -> None:
    key = run_key()
    await claim(stores.ledger, key)
    await stores.ledger.forget(key, supervisor="node-b")
    assert isinstance(await stores.ledger.lookup(key), Running)
    await stores.ledger.finish(key, epoch=1, supervisor="node-a", result=FIRST)
    await stores.ledger.forget(key, supervisor="node-a")
    assert await stores.ledger.lookup(key) == Done(FIRST)


@pytest.mark.rule("RC-27", "RC-54")
async def test_entry_of_a_dead_supervisor_is_dropped_once_and_what_came_after_it_stays(stores: Stores) -> None:
    key = run_key()
    await claim(stores.ledger, key, ttl_s=600)
    found = await stores.ledger.lookup(key)
    assert isinstance(found, Running)
    await stores.ledger.drop(key, found)
    assert await stores.ledger.lookup(key) is None
    assert await claim(stores.ledger, key, supervisor="node-b") == Claimed()
    await stores.twin().ledger.drop(key, found)
    running = await stores.ledger.lookup(key)
    assert isinstance(running, Running)
    assert running.supervisor == "node-b"


async def test_drop_leaves_what_was_renewed_or_is_done_in_the_meantime_and_knows_no_unknown_key(stores: Stores) -> None:
    key = run_key()
    await claim(stores.ledger, key, ttl_s=5)
    found = await stores.ledger.lookup(key)
    assert isinstance(found, Running)
    await stores.ledger.renew(key, supervisor="node-a", ttl_s=500)
    await stores.ledger.drop(key, found)
    renewed = await stores.ledger.lookup(key)
    assert isinstance(renewed, Running)
    await stores.ledger.finish(key, epoch=1, supervisor="node-a", result=FIRST)
    await stores.ledger.drop(key, renewed)
    assert await stores.ledger.lookup(key) == Done(FIRST)
    await stores.ledger.drop(run_key("unknown"), found)
    assert await stores.ledger.lookup(run_key("unknown")) is None


@pytest.mark.rule("RC-54")
async def test_two_supervisors_racing_for_keys_execute_each_once_and_agree(stores: Stores) -> None:
    executed: Counter[RunKey] = Counter()

    async def supervise(ledger: RunLedger, key: RunKey, supervisor: str) -> Digest:
        match await claim(ledger, key, supervisor=supervisor):
            case Claimed():
                executed[key] += 1
                result = digest_of(f"{key} by {supervisor}".encode())
                return await ledger.finish(key, epoch=1, supervisor=supervisor, result=result)
            case Done(result):
                return result
            case Running():
                done = await eventually(lambda: finished(ledger, key), within_s=10)
                assert done is not None
                return done.result

    keys = [run_key(str(number)) for number in range(50)]
    both = [(stores.ledger, "node-a"), (stores.twin().ledger, "node-b")]
    results = await asyncio.gather(*(supervise(ledger, key, name) for key in keys for ledger, name in both))
    assert executed == Counter(keys)
    assert results[0::2] == results[1::2]


async def finished(ledger: RunLedger, key: RunKey) -> Done | None:
    found = await ledger.lookup(key)
    return found if isinstance(found, Done) else None


@pytest.mark.rule("RC-24", "RC-26")
async def test_cancel_request_of_another_instance_is_seen_by_whoever_runs_it(stores: Stores) -> None:
    key = run_key()
    await claim(stores.ledger, key)
    assert await stores.twin().ledger.request_cancel(key)
    assert await stores.twin().ledger.request_cancel(key)
    seen = await stores.ledger.lookup(key)
    assert isinstance(seen, Running)
    assert seen.is_cancel_requested


@pytest.mark.rule("RC-24")
async def test_cancel_request_changes_nothing_where_nobody_runs_the_key(stores: Stores) -> None:
    assert not await stores.ledger.request_cancel(run_key("unknown"))
    assert await stores.ledger.lookup(run_key("unknown")) is None
    await claim(stores.ledger, run_key("silent"), ttl_s=0)
    assert not await stores.ledger.request_cancel(run_key("silent"))
    await stores.ledger.finish(run_key("over"), epoch=1, supervisor="node-a", result=FIRST)
    assert not await stores.ledger.request_cancel(run_key("over"))
    assert await stores.ledger.lookup(run_key("over")) == Done(FIRST)


@pytest.mark.rule("RC-24")
async def test_new_claim_knows_nothing_of_an_earlier_cancel_request(stores: Stores) -> None:
    key = run_key()
    await claim(stores.ledger, key)
    await stores.ledger.request_cancel(key)
    await stores.ledger.renew(key, supervisor="node-a", ttl_s=0)
    assert await claim(stores.ledger, key, supervisor="node-b") == Claimed()
    again = await stores.ledger.lookup(key)
    assert isinstance(again, Running)
    assert not again.is_cancel_requested


@pytest.mark.rule("RC-27")
async def test_detached_run_past_its_deadline_is_lost_until_it_is_claimed_or_finished(stores: Stores) -> None:
    key, other = run_key(), run_key("other")
    for one in (key, other):
        await claim(stores.ledger, one, is_detached=True)
        running = await stores.ledger.lookup(one)
        assert isinstance(running, Running)
        assert running.is_detached
        await stores.ledger.renew(one, supervisor="node-a", ttl_s=0)
        assert await stores.ledger.lookup(one) == Lost("node-a")
    assert await claim(stores.ledger, key, supervisor="node-b") == Claimed()
    running = await stores.ledger.lookup(key)
    assert isinstance(running, Running)
    assert not running.is_detached
    assert await stores.ledger.finish(other, epoch=0, supervisor="node-b", result=FIRST) == FIRST
    assert await stores.ledger.lookup(other) == Done(FIRST)


async def test_renewed_run_has_a_new_deadline_and_keeps_its_cancel_request(stores: Stores) -> None:
    key = run_key()
    await claim(stores.ledger, key, ttl_s=5)
    await stores.ledger.request_cancel(key)
    before = await stores.ledger.lookup(key)
    await stores.ledger.renew(key, supervisor="node-a", ttl_s=500)
    after = await stores.ledger.lookup(key)
    assert isinstance(before, Running)
    assert isinstance(after, Running)
    assert after.deadline_ms - before.deadline_ms > 400_000
    assert after.is_cancel_requested


async def test_renewal_leaves_what_another_runs_what_is_done_and_what_is_unknown(stores: Stores) -> None:
    key = run_key()
    await claim(stores.ledger, key)
    running = await stores.ledger.lookup(key)
    await stores.ledger.renew(key, supervisor="node-b", ttl_s=500)
    assert await stores.ledger.lookup(key) == running
    await stores.ledger.finish(key, epoch=1, supervisor="node-a", result=FIRST)
    await stores.ledger.renew(key, supervisor="node-a", ttl_s=500)
    assert await stores.ledger.lookup(key) == Done(FIRST)
    await stores.ledger.renew(run_key("unknown"), supervisor="node-a", ttl_s=500)
    assert await stores.ledger.lookup(run_key("unknown")) is None
