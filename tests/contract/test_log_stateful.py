"""EventLog and LeaseStore against a model of plain dictionaries, in memory and in Redis (F24)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fleet.events.envelope import GENESIS_HASH, Head, StoredEvent
from fleet.kernel.errors import FleetError, LeaseHeld, LogRegressed, OwnershipLost, PayloadTooLarge, VersionConflict
from fleet.kernel.ids import StreamId
from fleet.log.port import MAX_BODY_BYTES, Appended, Duplicate, Lease
from tests.support.stores import Stores, append_request, open_stores

T = TypeVar("T")

STREAMS = [StreamId("story:st-left"), StreamId("story:st-right")]
OWNERS = ["left/1", "left/2", "right/1"]
TTL_S = 600
OUTCOMES = {"stored", "duplicate", "refused", "fenced", "conflict", "oversize"}

a_stream = st.sampled_from(STREAMS)
some_sizes = st.lists(st.integers(0, 5), min_size=1, max_size=3)


@dataclass
class Model:
    """What one stream is: its events, its commands, its epoch, who holds its lease, and whether it is refused."""

    events: list[StoredEvent] = field(default_factory=list[StoredEvent])
    commands: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    epoch: int = 0
    holder: tuple[str, int] | None = None
    reason: str | None = None
    is_open: bool = False

    @property
    def head(self) -> Head:
        last = self.events[-1] if self.events else None
        return Head(last.version if last else 0, last.hash if last else GENESIS_HASH, self.epoch)

    def outcome(self, command: str, expected: Head, *, is_oversize: bool) -> str:
        """What an append must lead to, by the order of EV-14."""
        if command in self.commands:
            return "duplicate"
        if self.reason is not None:
            return "refused"
        if expected.epoch != self.epoch:
            return "fenced"
        if expected != self.head:
            return "conflict"
        return "oversize" if is_oversize else "stored"


REFUSALS: dict[str, type[FleetError]] = {
    "refused": LogRegressed,
    "fenced": OwnershipLost,
    "conflict": VersionConflict,
    "oversize": PayloadTooLarge,
}


class LogMachine(RuleBasedStateMachine):
    """Plays random calls on the stores and on the model; they must agree after each."""

    def __init__(self, url: str | None, runner: asyncio.Runner, seen: Counter[str]) -> None:
        super().__init__()
        self._runner, self._seen, self._url = runner, seen, url
        self.models = {stream: Model() for stream in STREAMS}
        self.leases: list[Lease] = []
        self.numbers = 0
        self.opened: AbstractAsyncContextManager[Stores] | None = None

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self._runner.run(awaited())

    @initialize()
    def open(self) -> None:
        self.opened = open_stores(self._url)
        self.stores = self.run(self.opened.__aenter__())

    def teardown(self) -> None:
        if self.opened is not None:
            self.run(self.opened.__aexit__(None, None, None))

    @rule(stream=a_stream, sizes=some_sizes, closes=st.booleans())
    def append_as_the_owner(self, stream: StreamId, sizes: list[int], closes: bool) -> None:
        self.numbers += 1
        self.append(stream, f"new/{self.numbers}", sizes=sizes, closes=closes)

    @rule(
        stream=a_stream,
        command=st.integers(0, 5),
        sizes=some_sizes,
        basis=st.sampled_from(["now", "stale", "forked", "old epoch", "new epoch"]),
        is_oversize=st.booleans(),
    )
    def append_as_anybody(
        self, stream: StreamId, command: int, sizes: list[int], basis: str, is_oversize: bool
    ) -> None:
        self.append(stream, f"c/{command}", sizes=sizes, basis=basis, is_oversize=is_oversize)

    @precondition(lambda self: any(model.commands for model in self.models.values()))
    @rule(data=st.data(), sizes=some_sizes, basis=st.sampled_from(["now", "stale", "old epoch"]))
    def append_again(self, data: st.DataObject, sizes: list[int], basis: str) -> None:
        known = [(stream, command) for stream in STREAMS for command in self.models[stream].commands]
        stream, command = data.draw(st.sampled_from(known))
        self.append(stream, command, sizes=sizes, basis=basis)

    def append(
        self,
        stream: StreamId,
        command: str,
        *,
        sizes: list[int],
        basis: str = "now",
        is_oversize: bool = False,
        closes: bool = False,
    ) -> None:
        model, now = self.models[stream], self.models[stream].head
        expected = {
            "now": now,
            "stale": Head(max(now.version - 1, 0), now.hash, now.epoch),
            "forked": Head(now.version, "e" * 64, now.epoch),
            "old epoch": Head(now.version, now.hash, now.epoch - 1),
            "new epoch": Head(now.version, now.hash, now.epoch + 1),
        }[basis]
        bodies = [b"x" * size for size in sizes] + ([b"x" * (MAX_BODY_BYTES + 1)] if is_oversize else [])
        request = append_request(stream, expected, bodies=bodies, command_id=command, closes=closes)
        wanted = model.outcome(request.command_id, expected, is_oversize=is_oversize)
        self._seen[wanted] += 1
        if wanted in REFUSALS:
            with pytest.raises(REFUSALS[wanted]):
                self.run(self.stores.log.append(request))
            return
        outcome = self.run(self.stores.log.append(request))
        if wanted == "duplicate":
            assert outcome == Duplicate(*model.commands[request.command_id])
            return
        assert isinstance(outcome, Appended)
        first = now.version + 1
        assert [(e.version, e.body, e.epoch) for e in outcome.events] == [
            (first + n, body, now.epoch) for n, body in enumerate(bodies)
        ]
        assert outcome.events[0].prev_hash == now.hash
        model.events += outcome.events
        model.commands[request.command_id] = (first, model.head.version)
        model.is_open = not closes
        assert outcome.head == model.head

    @rule(stream=a_stream, owner=st.sampled_from(OWNERS))
    def claim(self, stream: StreamId, owner: str) -> None:
        model = self.models[stream]
        if model.holder and model.holder[0].split("/")[0] != owner.split("/")[0]:
            self._seen["held"] += 1
            with pytest.raises(LeaseHeld):
                self.run(self.stores.leases.claim(stream, owner, ttl_s=TTL_S))
            return
        model.epoch += 1
        model.holder = (owner, model.epoch)
        lease = self.run(self.stores.leases.claim(stream, owner, ttl_s=TTL_S))
        assert lease == Lease(stream, owner, model.epoch, TTL_S)
        self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        if self.models[lease.stream].holder == (lease.owner, lease.epoch):
            self.run(self.stores.leases.renew(lease))
            return
        self._seen["lease lost"] += 1
        with pytest.raises(OwnershipLost):
            self.run(self.stores.leases.renew(lease))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        self.run(self.stores.leases.release(lease))
        model = self.models[lease.stream]
        if model.holder == (lease.owner, lease.epoch):
            model.holder = None

    @rule(stream=a_stream, reason=st.sampled_from(["went back", "forked"]))
    def refuse(self, stream: StreamId, reason: str) -> None:
        self.run(self.stores.log.refuse(stream, reason=reason))
        self.models[stream].reason = self.models[stream].reason or reason

    @rule(stream=a_stream)
    def accept_loss(self, stream: StreamId) -> None:
        self.run(self.stores.log.accept_loss(stream))
        self.models[stream].reason = None

    @rule(stream=a_stream, is_right=st.sampled_from([True, True, False]))
    def erase(self, stream: StreamId, is_right: bool) -> None:
        model = self.models[stream]
        head = model.head
        expected = head if is_right else Head(head.version, head.hash, head.epoch + 1)
        if model.events and not is_right:
            self._seen["not erased"] += 1
            with pytest.raises(VersionConflict):
                self.run(self.stores.log.erase(stream, expected=expected))
            return
        self.run(self.stores.log.erase(stream, expected=expected))
        if model.events:
            self._seen["erased"] += 1
            self.models[stream] = Model(epoch=model.epoch)

    @rule(stream=a_stream, after=st.integers(-1, 8), limit=st.none() | st.integers(0, 4))
    def read(self, stream: StreamId, after: int, limit: int | None) -> None:
        wanted = self.models[stream].events[max(after, 0) :][:limit]
        assert self.run(self.stores.log.read(stream, after=after, limit=limit)) == wanted

    @invariant()
    def both_agree(self) -> None:
        if self.opened is None:
            return
        assert self.run(self._all_that_is_seen()) == {
            "heads": [self.models[stream].head for stream in STREAMS],
            "commands": [self.models[stream].commands for stream in STREAMS],
            "streams": [stream for stream in STREAMS if self.models[stream].events],
            "open": [stream for stream in STREAMS if self.models[stream].is_open],
            "refused": {stream: self.models[stream].reason for stream in STREAMS if self.models[stream].reason},
        }

    async def _all_that_is_seen(self) -> dict[str, Any]:
        log = self.stores.log
        return {
            "heads": [await log.head(stream) for stream in STREAMS],
            "commands": [await log.commands(stream) for stream in STREAMS],
            "streams": await log.streams(),
            "open": await log.open_streams(),
            "refused": await log.refused(),
        }


@pytest.fixture
def run_alone() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.rule("EV-3", "EV-14", "EV-15", "EV-19")
def test_log_and_leases_answer_every_sequence_as_the_model_does(
    store_url: str | None, run_alone: asyncio.Runner
) -> None:
    seen: Counter[str] = Counter()
    run_state_machine_as_test(
        lambda: LogMachine(store_url, run_alone, seen),
        settings=settings(
            max_examples=15 if store_url else 60,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    # Not vacuous: the sequences came by every answer that an append may have.
    assert seen.keys() >= ({"stored", "duplicate", "refused"} if store_url else OUTCOMES)
