"""An engine over a library that misbehaves: states, time limits, aborts, shares of busy time."""

from __future__ import annotations

import asyncio

import pytest

from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import FleetError, ModelTimeout, ModelUnavailable
from fleet.models.chat import TokenUsage, ToolUse
from fleet.models.memory import FakeTokens, MemoryTokenSource, memory_engine
from fleet.models.port import TokenPiece
from fleet.models.service.model_engine import ModelEngine
from tests.support.engines import actor_engine, ask, fake_engine, running_clock

LONG = ask("tell", tokens=200)


async def test_call_that_comes_while_it_loads_waits_for_it() -> None:
    clock = MemoryClock()
    engine = memory_engine(actor_engine(), clock, speed=FakeTokens(load_s=3))
    async with running_clock(clock):
        loading = asyncio.ensure_future(engine.load())
        reply = await engine.complete(ask("hello"), request_id="a", timeout_s=30)
        await loading
    assert reply.finish_reason == "length"
    assert reply.queue_ms >= 3000
    assert reply.latency_ms >= reply.queue_ms


async def test_call_whose_time_ends_while_it_loads_says_that_it_loads() -> None:
    clock = MemoryClock()
    engine = memory_engine(actor_engine(), clock, speed=FakeTokens(load_s=60))
    async with running_clock(clock):
        loading = asyncio.ensure_future(engine.load())
        await asyncio.sleep(0)
        with pytest.raises(ModelUnavailable, match="being loaded") as caught:
            await engine.complete(ask("hello"), request_id="a", timeout_s=60)
        assert caught.value.details["reason"] == "loading"
        waits = asyncio.ensure_future(engine.complete(ask("hello"), request_id="b", timeout_s=30))
        while (await engine.info()).running == 0:
            await asyncio.sleep(0)
        await engine.abort("b")
        assert (await waits).finish_reason == "abort"
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)


async def test_load_that_fails_says_why_and_a_later_one_succeeds() -> None:
    clock = MemoryClock()
    source = MemoryTokenSource(
        actor_engine(), clock, failure=ModelUnavailable("no such folder", reason="missing_weights")
    )
    engine = ModelEngine(source, actor_engine(), clock=clock)
    async with running_clock(clock):
        with pytest.raises(ModelUnavailable, match="no such folder"):
            await engine.load()
        info = await engine.info()
        assert (info.state, info.why) == ("failed", "no such folder")
        with pytest.raises(ModelUnavailable):
            await engine.health()
        source.failure = None
        await engine.load()
        await engine.load()
        assert (await engine.info()).state == "ready"


async def test_load_that_takes_too_long_is_given_up() -> None:
    clock = MemoryClock()
    engine = memory_engine(actor_engine(load_timeout_s=5), clock, speed=FakeTokens(load_s=500))
    async with running_clock(clock):
        with pytest.raises(ModelUnavailable) as caught:
            await engine.load()
    assert caught.value.details["reason"] == "load_timeout"


async def test_library_that_ignores_an_abort_keeps_nobody_waiting() -> None:
    async with fake_engine() as (engine, source, _):
        source.is_stuck = True
        running = asyncio.ensure_future(engine.complete(LONG, request_id="a", timeout_s=600))
        while (await engine.info()).running == 0:
            await asyncio.sleep(0)
        await engine.abort("a")
        assert (await running).finish_reason == "abort"
        assert (await engine.info()).running == 0


async def test_library_that_hangs_is_a_timeout_and_the_call_is_let_go() -> None:
    async with fake_engine() as (engine, source, _):
        source.is_stuck = True
        with pytest.raises(ModelTimeout):
            await engine.complete(LONG, request_id="a", timeout_s=2)
        assert [call.finish for call in await engine.usage()] == ["timeout"]


async def test_stream_that_is_closed_early_ends_the_call() -> None:
    async with fake_engine() as (engine, source, _):
        stream = engine.stream(LONG, request_id="a", timeout_s=60)
        assert (await anext(stream)).text
        await stream.aclose()
        assert (await engine.info()).running == 0
        assert [call.finish for call in await engine.usage()] == ["cancelled"]
        assert (await engine.usage())[0].usage.tokens_out > 0
        assert source.aborted == {"a~1"}


@pytest.mark.rule("MB-15")
async def test_gpu_time_of_calls_at_once_adds_up_to_the_busy_time_times_gpus() -> None:
    config = actor_engine(gpus=2)
    async with fake_engine(config) as (engine, _, _clock):
        calls = [engine.complete(ask("hello", tokens=n), request_id=str(n), timeout_s=600) for n in (10, 40, 80)]
        replies = await asyncio.gather(*calls)
        info = await engine.info()
    charged = sum(reply.gpu_ms for reply in replies)
    assert abs(charged - 2 * info.busy_ms) <= 3
    assert replies[0].gpu_ms < replies[1].gpu_ms < replies[2].gpu_ms


async def test_gpu_time_of_an_engine_without_gpu_is_nothing() -> None:
    async with fake_engine() as (engine, _, _clock):
        assert (await engine.complete(ask("hello"), request_id="a", timeout_s=60)).gpu_ms == 0


async def test_unknown_error_of_the_library_becomes_ours() -> None:
    async with fake_engine() as (engine, source, _):

        def breaks(request: object) -> str:
            raise ZeroDivisionError("inside the library")

        source.reply = breaks
        with pytest.raises(ModelUnavailable, match="ZeroDivisionError"):
            await engine.complete(ask("hello"), request_id="a", timeout_s=60)
        assert (await engine.info()).state == "ready"


async def test_tools_that_the_model_asked_for_are_in_the_reply() -> None:
    async with fake_engine() as (engine, source, _):
        use = ToolUse(id="1", name="files__read", arguments="{}")
        source.reply = lambda request: TokenPiece("I look", TokenUsage(), tool_uses=(use,))
        reply = await engine.complete(ask("hello"), request_id="a", timeout_s=60)
    assert (reply.finish_reason, reply.tool_uses) == ("tool_use", (use,))


async def test_close_ends_calls_under_way_with_an_error() -> None:
    async with fake_engine() as (engine, source, _):
        source.is_stuck = True
        running = asyncio.ensure_future(engine.complete(LONG, request_id="a", timeout_s=600))
        while (await engine.info()).running == 0:
            await asyncio.sleep(0)
        await engine.close()
        with pytest.raises(FleetError, match="being stopped"):
            await running
        assert (await engine.info()).state == "loading"
