"""One engine behind its fair queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from fleet.kernel.clock import MemoryClock, in_virtual_time, settled
from fleet.kernel.errors import ModelTimeout, ModelUnavailable, RateLimited
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatMessage, ChatReply, ChatRequest, Priority, TokenUsage
from fleet.models.engine_config import HttpEngine
from fleet.models.routing.rate import RateCap, RateLimiter
from fleet.models.service.queued_model import QueuedModel, behind_queue

REQUEST = ChatRequest(messages=(ChatMessage(role="user", content="go"),))


@dataclass
class Held:
    """A model that answers when it is let go on; `begun` lists the calls in order."""

    begun: list[str] = field(default_factory=list[str])
    limits: list[float] = field(default_factory=list[float])
    aborted: list[str] = field(default_factory=list[str])
    gates: dict[str, asyncio.Future[None]] = field(default_factory=dict[str, "asyncio.Future[None]"])
    most: int = 0

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        self.begun.append(request_id)
        self.limits.append(timeout_s)
        gate = self.gates[request_id] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self.gates))
        try:
            await gate
        finally:
            del self.gates[request_id]
        return ChatReply(
            text=request_id, finish_reason="stop", usage=TokenUsage(tokens_out=1), engine="e", model="m", latency_ms=5
        )

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncGenerator[ChatChunk]:
        yield ChatChunk(text="first ")
        reply = await self.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        yield ChatChunk(reply=reply)

    async def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)

    async def health(self) -> None:
        return

    def go(self, *names: str, error: Exception | None = None) -> None:
        for name in names:
            if self.gates[name].done():
                continue
            if error is None:
                self.gates[name].set_result(None)
            else:
                self.gates[name].set_exception(error)


class Desk:
    """A queue over a held model, and calls by name."""

    def __init__(self, *, slots: int = 1, room: int = 100, limiter: RateLimiter | None = None) -> None:
        self.clock, self.inner = MemoryClock(), Held()
        self.queued = QueuedModel(
            self.inner,
            self.clock,
            "e",
            "m",
            max_concurrency=slots,
            max_waiting=room,
            limiter=limiter or RateLimiter(),
        )

    def call(
        self, name: str, priority: Priority = "story", *, tenant: str = "t", timeout_s: float = 60
    ) -> asyncio.Task[ChatReply]:
        tag = CallTag(tenant=tenant, priority=priority)
        return asyncio.create_task(
            self.queued.complete(REQUEST, request_id=name, timeout_s=timeout_s, tag=tag), name=name
        )

    async def calls(self, *names: str, priority: Priority = "story") -> list[asyncio.Task[ChatReply]]:
        tasks = [self.call(name, priority) for name in names]
        await settled()
        return tasks

    async def drain(self) -> None:
        """Let everything run to its end."""
        while self.inner.gates:
            self.inner.go(*self.inner.gates)
            await settled()
        stats = self.queued.stats()
        assert (stats.running, stats.waiting) == (0, 0)


async def test_no_more_calls_run_than_there_are_slots_and_all_are_served() -> None:
    desk = Desk(slots=3)
    tasks = await desk.calls(*(f"c{n}" for n in range(10)))
    assert (desk.queued.stats().running, desk.queued.stats().waiting) == (3, 7)
    await desk.drain()
    assert [task.result().text for task in tasks] == [f"c{n}" for n in range(10)]
    assert (desk.inner.most, desk.queued.stats().served) == (3, 10)


async def test_person_goes_before_fifty_batch_calls_that_wait_already() -> None:
    desk = Desk()
    await desk.calls(*(f"batch{n}" for n in range(50)), priority="batch")
    await desk.calls("person", priority="person")
    desk.inner.go("batch0")
    await settled()
    assert desk.inner.begun == ["batch0", "person"]
    assert desk.queued.stats().waiting == 49
    await desk.drain()


async def test_wait_is_in_the_reply_and_shortens_the_time_that_is_left() -> None:
    desk = Desk()
    _, second = await desk.calls("first", "second")
    desk.clock.advance(7)
    desk.inner.go("first")
    await settled()
    desk.inner.go("second")
    reply = await second
    assert (reply.queue_ms, reply.latency_ms) == (7000, 7005)
    assert desk.inner.limits == [60, 53]


async def test_call_whose_time_ends_while_it_waits_is_late_and_never_reaches_the_engine() -> None:
    desk = Desk()
    await desk.calls("first")
    late = desk.call("late", timeout_s=5)
    await settled()
    desk.clock.advance(5)
    with pytest.raises(ModelTimeout, match="no room within 5 s") as caught:
        await late
    assert caught.value.details["queued"]
    await desk.drain()
    assert desk.inner.begun == ["first"]
    assert desk.queued.stats().rejected == 1


async def test_full_queue_refuses_and_says_when_to_come_again() -> None:
    desk = Desk(room=2)
    await desk.calls("warm")
    desk.clock.advance(10)
    await desk.drain()
    await desk.calls("a", "b", "c")
    with pytest.raises(ModelUnavailable, match="come again in 10 s") as caught:
        await desk.call("d")
    assert (caught.value.details["queued"], caught.value.details["retry_after_s"]) == (True, 10)
    assert desk.queued.stats().rejected == 1
    await desk.drain()


async def test_person_takes_the_place_of_a_batch_call_which_is_told_to_come_later() -> None:
    desk = Desk(room=1)
    await desk.calls("running")
    (batch,) = await desk.calls("batch", priority="batch")
    (person,) = await desk.calls("person", priority="person")
    with pytest.raises(ModelUnavailable, match="busy"):
        await batch
    await desk.drain()
    assert person.result().text == "person"
    assert desk.queued.stats().rejected == 1


async def test_abort_of_a_waiting_call_ends_it_without_text_and_takes_no_slot() -> None:
    desk = Desk()
    _, waiting, last = await desk.calls("first", "waiting", "last")
    desk.clock.advance(2)
    await desk.queued.abort("waiting")
    reply = await waiting
    assert (reply.text, reply.finish_reason, reply.queue_ms, reply.engine) == ("", "abort", 2000, "e")
    await desk.queued.abort("nobody")
    await desk.drain()
    assert desk.inner.begun == ["first", "last"]
    assert last.result().text == "last"
    assert (desk.queued.stats().served, desk.queued.stats().rejected) == (2, 0)


async def test_abort_of_a_running_call_goes_to_the_engine() -> None:
    desk = Desk()
    await desk.calls("first")
    await desk.queued.abort("first")
    assert desk.inner.aborted == ["first"]
    await desk.drain()


async def test_abort_at_the_moment_of_its_turn_gives_the_slot_to_the_next() -> None:
    desk = Desk()
    _, second, third = await desk.calls("first", "second", "third")
    desk.inner.go("first")
    while desk.queued.stats().waiting == 2:
        await asyncio.sleep(0)
    await desk.queued.abort("second")
    await settled()
    assert second.result().finish_reason == "abort"
    assert desk.inner.begun == ["first", "third"]
    await desk.drain()
    assert third.done()


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_call_leaves_no_slot_taken_whenever_it_is_cancelled(turns: int) -> None:
    desk = Desk()
    first, second, third = await desk.calls("first", "second", "third")
    desk.inner.go("first")
    for _ in range(turns):
        await asyncio.sleep(0)
    second.cancel()
    await settled()
    await desk.drain()
    assert second.cancelled()
    assert third.result().text == "third"
    assert first.done()


async def test_failure_of_the_engine_gives_its_slot_back() -> None:
    desk = Desk()
    first, second = await desk.calls("first", "second")
    desk.inner.go("first", error=ModelUnavailable("gone"))
    await settled()
    desk.inner.go("second")
    assert (await second).text == "second"
    with pytest.raises(ModelUnavailable, match="gone"):
        first.result()
    await desk.drain()


async def test_late_reply_after_a_long_wait_is_blamed_on_the_queue_and_not_on_the_engine() -> None:
    desk = Desk()
    first, second = await desk.calls("first", "second")
    desk.clock.advance(31)
    desk.inner.go("first", error=ModelTimeout("slow"))
    await settled()
    desk.inner.go("second", error=ModelTimeout("slow"))
    found = await asyncio.gather(first, second, return_exceptions=True)
    assert [isinstance(e, ModelTimeout) and bool(e.details.get("queued")) for e in found] == [False, True]


async def test_stream_holds_its_slot_until_it_is_closed() -> None:
    desk = Desk()
    stream = desk.queued.stream(REQUEST, request_id="s", timeout_s=60)
    async with aclosing(stream):
        assert (await anext(stream)).text == "first "
        (second,) = await desk.calls("second")
        assert desk.inner.begun == []
    await settled()
    assert desk.inner.begun == ["second"]
    await desk.drain()
    assert second.done()


async def test_stream_tells_its_wait_in_the_last_chunk_and_aborts_while_it_waits() -> None:
    desk = Desk()
    await desk.calls("first")

    async def streamed(name: str) -> list[ChatChunk]:
        return [chunk async for chunk in desk.queued.stream(REQUEST, request_id=name, timeout_s=60)]

    one, two = asyncio.create_task(streamed("one")), asyncio.create_task(streamed("two"))
    await settled()
    desk.clock.advance(3)
    await desk.queued.abort("two")
    (ended,) = await two
    assert ended.reply is not None
    assert ended.reply.finish_reason == "abort"
    desk.inner.go("first")
    await settled()
    desk.inner.go("one")
    last = (await one)[-1].reply
    assert last is not None
    assert last.queue_ms == 3000
    await desk.drain()


async def test_stream_that_is_late_after_a_long_wait_is_blamed_on_the_queue() -> None:
    desk = Desk()
    await desk.calls("first")

    async def streamed() -> None:
        async for _ in desk.queued.stream(REQUEST, request_id="s", timeout_s=10):
            pass

    task = asyncio.create_task(streamed())
    await settled()
    desk.clock.advance(6)
    desk.inner.go("first")
    await settled()
    desk.inner.go("s", error=ModelTimeout("slow"))
    with pytest.raises(ModelTimeout) as caught:
        await task
    assert caught.value.details["queued"]


@pytest.mark.rule("MB-28")
async def test_rate_cap_delays_calls_and_then_tells_them_to_come_later() -> None:
    desk = Desk(slots=10, limiter=RateLimiter(RateCap(requests_per_min=2)))
    await desk.calls("a", "b")
    held = desk.call("held")
    await settled()
    with pytest.raises(RateLimited, match="come again in 60 s") as caught:
        await desk.call("late", timeout_s=60)
    assert (caught.value.details["retry_after_s"], caught.value.details["queued"]) == (60, True)
    assert desk.inner.begun == ["a", "b"]
    desk.clock.advance(30)
    await settled()
    assert desk.inner.begun == ["a", "b", "held"]
    desk.inner.go("a", "b", "held")
    assert (await held).queue_ms == 30_000
    assert desk.queued.stats().rejected == 1


async def test_call_that_a_rate_cap_holds_can_be_aborted() -> None:
    desk = Desk(slots=10, limiter=RateLimiter(tenants={"*": RateCap(requests_per_min=1)}))
    await desk.calls("a")
    held = desk.call("held", timeout_s=600)
    await settled()
    await desk.queued.abort("held")
    assert (await held).finish_reason == "abort"
    await desk.drain()


@pytest.mark.rule("MB-28")
async def test_person_that_a_rate_cap_holds_goes_before_batch_work_that_came_earlier() -> None:
    desk = Desk(slots=10, limiter=RateLimiter(RateCap(requests_per_min=2)))
    await desk.calls("a", "b")
    batch = [desk.call(f"batch{n}", "batch", timeout_s=600) for n in range(2)]
    await settled()
    person = desk.call("person", "person", timeout_s=600)
    await settled()
    for name in ("person", "batch0", "batch1"):
        desk.clock.advance(30)
        await settled()
        assert desk.inner.begun[-1] == name
    await desk.drain()
    assert [task.result().queue_ms for task in (person, *batch)] == [30_000, 60_000, 90_000]


@pytest.mark.rule("MB-28")
async def test_call_that_persons_push_behind_half_of_its_time_is_told_when_to_come_again() -> None:
    desk = Desk(slots=100, limiter=RateLimiter(RateCap(requests_per_min=60)))
    await desk.calls(*(f"c{n}" for n in range(60)))
    batch = desk.call("batch", "batch", timeout_s=4)
    await settled()
    persons = [desk.call(f"person{n}", "person", timeout_s=600) for n in range(5)]
    for _ in range(4):
        await settled()
        desk.clock.advance(1)
    with pytest.raises(RateLimited, match="come again in") as caught:
        await batch
    assert caught.value.details["queued"]
    desk.clock.advance(60)
    await settled()
    assert {"person0", "person4"} <= set(desk.inner.begun)
    assert "batch" not in desk.inner.begun
    await desk.drain()
    await asyncio.gather(*persons)


async def test_call_that_is_cancelled_in_the_line_of_a_rate_cap_leaves_its_place_to_the_next() -> None:
    desk = Desk(slots=10, limiter=RateLimiter(RateCap(requests_per_min=1)))
    await desk.calls("a")
    first, second = (desk.call(name, timeout_s=600) for name in ("first", "second"))
    await settled()
    first.cancel()
    await settled()
    desk.clock.advance(60)
    await settled()
    assert desk.inner.begun == ["a", "second"]
    await desk.drain()
    assert (await second).queue_ms == 60_000


async def test_entry_of_the_configuration_gives_the_bounds_of_the_queue() -> None:
    entry = HttpEngine.model_validate(
        {
            "engine_id": "tiny",
            "kind": "vllm",
            "base_url": "http://x/v1",
            "model": "m",
            "unpriced": True,
            "max_concurrency": 2,
            "max_waiting": 3,
            "tenant_caps": {"*": {"requests_per_min": 5}},
        }
    )
    queued = behind_queue(Held(), entry, MemoryClock(), weights={"a": 2})
    assert (queued.engine, queued.model, queued.max_concurrency, queued.max_waiting) == ("tiny", "m", 2, 3)
    assert not queued.limiter.is_unlimited
    assert queued.weights == {"a": 2}
    await queued.health()


async def test_no_call_is_lost_when_many_come_and_go_at_random_moments() -> None:
    """Calls end, fail, are aborted, cancelled or run out of time; at the end no slot and no place is taken."""
    desk = Desk(slots=3, room=20)

    async def crowd() -> list[ChatReply | BaseException]:
        tasks: list[asyncio.Task[ChatReply]] = []
        for number in range(120):
            name = f"c{number}"
            priority: Priority = ("person", "story", "batch")[number % 3]
            tasks.append(desk.call(name, priority, tenant=f"t{number % 4}", timeout_s=2 + number % 5))
            await asyncio.sleep(0)
            if number % 7 == 0:
                tasks[number // 2].cancel()
            if number % 5 == 0:
                await desk.queued.abort(f"c{number // 3}")
            if number % 2 == 0 and desk.inner.gates:
                first = next(iter(desk.inner.gates))
                desk.inner.go(first, error=ModelUnavailable("storm") if number % 4 == 0 else None)
            if number % 6 == 0:
                desk.clock.advance(0.5)
        while not all(task.done() for task in tasks):
            await settled()
            if desk.inner.gates:
                desk.inner.go(*desk.inner.gates)
            else:
                await desk.clock.sleep(0.1)
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = await in_virtual_time(desk.clock, crowd(), step_s=0.1)
    stats = desk.queued.stats()
    assert (stats.running, stats.waiting, len(found)) == (0, 0, 120)
    allowed = (ChatReply, ModelTimeout, ModelUnavailable, asyncio.CancelledError)
    assert all(isinstance(one, allowed) for one in found)
    assert stats.rejected > 0
    assert any(isinstance(one, ChatReply) and one.finish_reason == "abort" for one in found)
    assert desk.inner.most == 3
