"""Replicas of one engine: affinity, circuits, probes, and one safe second try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from fleet.kernel.clock import MemoryClock, settled
from fleet.kernel.errors import ContextTooLarge, FleetError, ModelError, ModelTimeout, ModelUnavailable
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatMessage, ChatReply, ChatRequest, TokenUsage
from fleet.models.service.queued_model import QueuedModel
from fleet.models.service.routed_model import RoutedModel

REQUEST = ChatRequest(messages=(ChatMessage(role="user", content="go"),))


@dataclass
class Replica:
    """Answers at once, or fails with `error`; `hangs` makes it wait for an abort that does not come."""

    clock: MemoryClock
    error: FleetError | None = None
    unhealthy: ModelError | None = None
    hangs: bool = False
    after_text: bool = False
    calls: list[str] = field(default_factory=list[str])
    probes: list[str] = field(default_factory=list[str])
    aborted: list[str] = field(default_factory=list[str])

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        (self.probes if request_id.startswith("probe") else self.calls).append(request_id)
        if self.hangs:
            await self.clock.sleep(timeout_s)
            raise ModelTimeout(f"no answer in {timeout_s} s")
        if self.error is not None:
            raise self.error
        usage = TokenUsage(tokens_in=10, tokens_cached=4, tokens_out=1)
        return ChatReply(text="yes", finish_reason="stop", usage=usage, engine="e", model="m")

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncGenerator[ChatChunk]:
        if self.after_text:
            yield ChatChunk(text="y")
        reply = await self.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        yield ChatChunk(text="yes")
        yield ChatChunk(reply=reply)

    async def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)

    async def health(self) -> None:
        if self.unhealthy is not None:
            raise self.unhealthy


class Engine:
    """A router over replicas named 0, 1, ..."""

    def __init__(self, count: int = 1, *, slots: int = 16) -> None:
        self.clock = MemoryClock()
        self.replicas = [Replica(self.clock) for _ in range(count)]
        by_name = {str(number): replica for number, replica in enumerate(self.replicas)}
        self.router = RoutedModel(by_name, self.clock, "e", slots=slots)
        self._number = 0

    async def ask(self, key: str = "", *, timeout_s: float = 60) -> ChatReply:
        self._number += 1
        tag = CallTag(affinity=key)
        return await self.router.complete(REQUEST, request_id=f"r{self._number}", timeout_s=timeout_s, tag=tag)

    async def failed(self, times: int) -> None:
        for _ in range(times):
            with pytest.raises(ModelError):
                await self.ask()

    async def stream(self, request_id: str = "s") -> list[ChatChunk]:
        return [chunk async for chunk in self.router.stream(REQUEST, request_id=request_id, timeout_s=60)]

    async def advance(self, seconds: float) -> None:
        await settled()
        self.clock.advance(seconds)
        await settled()

    @property
    def circuits(self) -> list[str]:
        return [replica.circuit for replica in self.router.stats().replicas]


async def test_calls_of_one_key_go_to_one_replica_and_calls_without_a_key_to_all() -> None:
    engine = Engine(4)
    for _ in range(8):
        await engine.ask("st-1/co-1")
    assert sorted(len(replica.calls) for replica in engine.replicas) == [0, 0, 0, 8]
    for _ in range(60):
        await engine.ask()
    assert min(len(replica.calls) for replica in engine.replicas) > 0
    busiest = max(engine.router.stats().replicas, key=lambda replica: replica.affinity)
    assert (busiest.affinity, busiest.spilled, busiest.tokens_cached * 10) == (8, 0, busiest.tokens_in * 4)


async def test_key_moves_on_when_its_replica_is_overloaded_and_stays_where_it_went() -> None:
    engine = Engine(3, slots=2)
    for replica in engine.replicas:
        replica.hangs = True
    waiting = [asyncio.create_task(engine.ask("key")) for _ in range(3)]
    await settled()
    stats = engine.router.stats().replicas
    assert sorted(replica.in_flight for replica in stats) == [0, 1, 2]
    assert sum(replica.spilled for replica in stats) == 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert [replica.in_flight for replica in engine.router.stats().replicas] == [0, 0, 0]
    second = next(replica for replica in engine.replicas if len(replica.calls) == 1)
    second.hangs = False
    await engine.ask("key")
    assert len(second.calls) == 2


@pytest.mark.rule("MB-13")
async def test_three_failures_open_the_circuit_and_calls_fail_at_once_with_the_time_to_come_again() -> None:
    engine = Engine()
    engine.replicas[0].error = ModelUnavailable("connection refused")
    await engine.failed(3)
    assert engine.circuits == ["open"]
    refusal = engine.router.refusal()
    assert refusal is not None
    with pytest.raises(ModelUnavailable, match=r"not asked at present.*connection refused") as caught:
        await engine.ask()
    assert caught.value.details["retry_after_s"] == refusal.details["retry_after_s"] == 30
    assert len(engine.replicas[0].calls) == 3
    assert engine.router.stats().open_circuits == ("0",)
    await engine.router.close()


@pytest.mark.rule("MB-13")
async def test_one_probe_after_thirty_seconds_then_after_twice_as_long_until_it_is_answered() -> None:
    engine = Engine()
    replica = engine.replicas[0]
    replica.error = ModelUnavailable("down")
    await engine.failed(3)
    moments: list[int] = []
    for second in range(1, 1000):
        if second == 800:
            replica.error = None
        before = len(replica.probes)
        await engine.advance(1)
        moments += [second] * (len(replica.probes) - before)
    assert moments == [30, 90, 210, 450, 750]
    assert engine.circuits == ["open"]
    await engine.advance(51)
    assert engine.circuits == ["closed"]
    assert engine.router.refusal() is None
    assert (await engine.ask()).text == "yes"
    assert len(replica.calls) == 4


@pytest.mark.rule("MB-13")
async def test_probe_asks_health_first_and_then_for_one_token() -> None:
    engine = Engine()
    replica = engine.replicas[0]
    replica.error = ModelUnavailable("down")
    replica.unhealthy = ModelUnavailable("another model is loaded")
    await engine.failed(3)
    await engine.advance(30)
    assert (replica.probes, engine.circuits) == ([], ["open"])
    replica.unhealthy = None
    await engine.advance(60)
    assert (len(replica.probes), engine.circuits) == (1, ["open"])
    replica.error = None
    await engine.advance(120)
    assert engine.circuits == ["closed"]
    assert engine.router.stats().replicas[0].probes == 3


async def test_endpoint_that_hangs_opens_its_circuit_after_three_time_limits() -> None:
    engine = Engine()
    engine.replicas[0].hangs = True
    calls = [asyncio.create_task(engine.ask(timeout_s=20)) for _ in range(10)]
    await engine.advance(20)
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, ModelTimeout) for error in found)
    assert engine.circuits == ["open"]
    await engine.advance(30)
    await engine.advance(10)
    assert engine.router.stats().replicas[0].probes == 1
    refusal = engine.router.refusal()
    assert refusal is not None
    assert refusal.details["retry_after_s"] == 60
    await engine.router.close()


async def test_callers_with_hardly_any_time_cannot_open_the_circuit_for_others() -> None:
    engine = Engine()
    engine.replicas[0].hangs = True
    calls = [asyncio.create_task(engine.ask(timeout_s=0.1)) for _ in range(10)]
    await engine.advance(1)
    assert all(isinstance(error, ModelTimeout) for error in await asyncio.gather(*calls, return_exceptions=True))
    assert engine.circuits == ["closed"]


@pytest.mark.parametrize(
    "error",
    [
        ModelUnavailable("busy", queued=True, retry_after_s=3),
        ModelUnavailable("not recorded", request_digest="sha256:0"),
        ContextTooLarge("too long"),
    ],
    ids=["busy", "unrecorded", "too_large"],
)
async def test_error_about_the_request_or_the_queue_never_opens_the_circuit(error: FleetError) -> None:
    engine = Engine()
    engine.replicas[0].error = error
    await engine.failed(5)
    assert engine.circuits == ["closed"]
    assert len(engine.replicas[0].calls) == 5


@pytest.mark.rule("MB-4")
async def test_call_that_a_replica_cannot_take_goes_to_one_other_and_no_further() -> None:
    engine = Engine(3)
    for replica in engine.replicas:
        replica.error = ModelUnavailable("down")
    with pytest.raises(ModelUnavailable, match="down") as caught:
        await engine.ask("key")
    assert caught.value.details["repeated"]
    assert len(caught.value.details["replicas"]) == 2
    assert sum(len(replica.calls) for replica in engine.replicas) == 2
    engine.replicas[0].error = engine.replicas[1].error = None
    for number in range(6):
        assert (await engine.ask(f"k{number}")).text == "yes"


@pytest.mark.rule("MB-4")
async def test_late_call_is_not_repeated_by_the_router_nor_is_one_without_time_left() -> None:
    engine = Engine(2)
    for replica in engine.replicas:
        replica.hangs = True
    call = asyncio.create_task(engine.ask("key", timeout_s=20))
    await engine.advance(20)
    with pytest.raises(ModelTimeout) as caught:
        await call
    assert "repeated" not in caught.value.details
    assert sum(len(replica.calls) for replica in engine.replicas) == 1
    for replica in engine.replicas:
        replica.hangs, replica.error = False, ModelUnavailable("down")
    with pytest.raises(ModelUnavailable):
        await engine.ask("key", timeout_s=0)
    assert sum(len(replica.calls) for replica in engine.replicas) == 2


async def test_replica_with_an_open_circuit_gets_no_calls_and_the_others_take_its_keys() -> None:
    engine = Engine(2)
    home = engine.replicas[0]
    home.error = ModelUnavailable("down")
    for number in range(40):
        assert (await engine.ask(f"k{number}")).text == "yes"
    assert len(home.calls) == 3
    assert engine.circuits == ["open", "closed"]
    assert engine.router.refusal() is None
    await engine.router.close()


async def test_stream_moves_on_before_its_first_text_and_never_after_it() -> None:
    engine = Engine(2)
    broken = engine.replicas[0]
    broken.error = ModelUnavailable("down")
    for number in range(8):
        chunks = await engine.stream(f"s{number}")
        assert chunks[-1].reply is not None
    assert len(broken.calls) > 0
    await engine.router.close()
    engine = Engine(2)
    for replica in engine.replicas:
        replica.error, replica.after_text = ModelUnavailable("cut off"), True
    with pytest.raises(ModelUnavailable, match="cut off"):
        await engine.stream()
    assert sum(len(replica.calls) for replica in engine.replicas) == 1


async def test_abort_reaches_the_replica_of_the_call_only() -> None:
    engine = Engine(3)
    for replica in engine.replicas:
        replica.hangs = True
    call = asyncio.create_task(engine.ask("key"))
    await settled()
    await engine.router.abort("r1")
    await engine.router.abort("unknown")
    assert [replica.aborted for replica in engine.replicas if replica.calls] == [["r1"]]
    assert [replica.aborted for replica in engine.replicas if not replica.calls] == [[], []]
    call.cancel()


async def test_engine_is_healthy_while_one_replica_is() -> None:
    engine = Engine(2)
    engine.replicas[0].unhealthy = ModelUnavailable("no")
    await engine.router.health()
    engine.replicas[1].unhealthy = ModelUnavailable("neither")
    with pytest.raises(ModelUnavailable, match="neither"):
        await engine.router.health()
    with pytest.raises(ModelUnavailable, match="no replica"):
        await RoutedModel({}, MemoryClock(), "e").health()


async def test_stats_show_the_queue_in_front_of_a_replica() -> None:
    clock = MemoryClock()
    queued = QueuedModel(Replica(clock), clock, "e")
    router = RoutedModel({"0": queued}, clock, "e")
    await router.complete(REQUEST, request_id="r", timeout_s=60)
    (replica,) = router.stats().replicas
    assert replica.queue is not None
    assert replica.queue.served == replica.calls == 1


async def test_router_that_is_closed_leaves_no_circuit_open_for_ever() -> None:
    engine = Engine()
    engine.replicas[0].error = ModelUnavailable("down")
    await engine.failed(3)
    await engine.router.close()
    assert engine.circuits == ["closed"]
    assert engine.clock.sleepers == 0
