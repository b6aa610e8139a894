"""Ports that are observed: calls carry their step, are timed and counted, and answer as before."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fleet.context.port import Pack, PackRequest
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ModelTimeout, NotFound, SandboxUnavailable, StoreUnavailable
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.log.memory import MemoryDeadLetters, MemoryEventLog, MemoryInbox
from fleet.models.chat import ChatChunk, ChatMessage, ChatReply, ChatRequest, TokenUsage
from fleet.owner.shard import ShardStatus
from fleet.remote.observed_log import ObservedLog
from fleet.remote.shard_figures import ShardFigures
from fleet.remote.timed_ports import TimedBackend, TimedModels, TimedPacks
from fleet.remote.traced_ports import TracedAgents, TracedPacks, TracedSandbox, TracedToolHost
from fleet.telemetry.log_line import Cause
from fleet.telemetry.memory import MemoryMeter, MemorySpans
from fleet.telemetry.otlp import TraceContext
from fleet.telemetry.service import Tracer, current_cause, on_behalf_of

STORY = StoryId("st-a-1")
KEY = RunKey("a" * 64)
ROOT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
REQUEST = ChatRequest(messages=(ChatMessage(role="user", content="hello"),))
REPLY = ChatReply(text="hi", finish_reason="stop", usage=TokenUsage(tokens_in=3, tokens_out=2), engine="e", model="m")
PACK = Pack("text", ("plan",), 700, 900, Digest("sha256:" + "0" * 64), (("history", 2),), 4)


@dataclass
class Echo:
    """Any port: answers every call with what it was told to, and keeps name, arguments and cause."""

    answer: Any = None
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any], Cause]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs, current_cause()))
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return call


@dataclass
class Streaming:
    """A model that streams."""

    error: Exception | None = None
    is_closed: bool = False

    async def stream(self, request: ChatRequest, **kwargs: Any) -> AsyncGenerator[ChatChunk]:
        try:
            yield ChatChunk(text="h")
            if self.error is not None:
                raise self.error
            yield ChatChunk(text="i", reply=REPLY)
        finally:
            self.is_closed = True


def observed() -> ObservedLog:
    return ObservedLog(MemoryEventLog(), meter=MemoryMeter(), clock=MemoryClock())


async def test_calls_of_a_council_carry_story_and_step() -> None:
    inner, log = Echo("answer"), observed()
    agents, sandbox = TracedAgents(inner, log), TracedSandbox(inner, log)
    assert await agents.ask("r", request_id=f"{STORY}/t/1", timeout_s=5) == "answer"  # pyright: ignore[reportArgumentType]
    assert await sandbox.run("s", story=STORY, key=KEY, epoch=3) == "answer"  # pyright: ignore[reportArgumentType]
    assert await sandbox.submit("s", story=STORY, key=KEY, epoch=3) == "answer"  # pyright: ignore[reportArgumentType]
    await TracedPacks(inner, log).pack(PackRequest(STORY, "qa", "TEST", 4))
    assert [call[3] for call in inner.calls] == [Cause(story=STORY, step="t/1"), *[Cause(story=STORY)] * 3]
    assert inner.calls[0][2] == {"request_id": f"{STORY}/t/1", "timeout_s": 5}
    assert inner.calls[1][2] == {"story": STORY, "key": KEY, "epoch": 3}
    assert current_cause() == Cause()


async def test_tool_calls_carry_their_story() -> None:
    inner = Echo("outcome")
    tools = TracedToolHost(inner, observed())

    @dataclass
    class Context:
        story_id: StoryId = STORY
        key: RunKey = KEY

    assert await tools.call("c", Context()) == "outcome"  # pyright: ignore[reportArgumentType]
    assert await tools.preview("c", Context()) == "outcome"  # pyright: ignore[reportArgumentType]
    assert [(call[0], call[3].story) for call in inner.calls] == [("call", STORY), ("preview", STORY)]


async def test_other_methods_of_the_sandbox_go_through() -> None:
    inner = Echo(True)
    sandbox = TracedSandbox(inner, observed())
    assert await sandbox.progress(KEY, wait_s=2)
    assert await sandbox.logs(KEY, after=3, limit=4, wait_s=5)
    assert await sandbox.cancel(KEY)
    assert await sandbox.health()
    assert [call[0] for call in inner.calls] == ["progress", "logs", "cancel", "health"]
    assert inner.calls[1][2] == {"after": 3, "limit": 4, "wait_s": 5}


class Models:
    """The models of a process, timed, on a trace."""

    def __init__(self, model: Any) -> None:
        self.meter, self.spans, clock = MemoryMeter(), MemorySpans(), MemoryClock()
        self.inner = {"recorded:DIR/of/somebody": model, "e": model}
        self.models = TimedModels(self.inner, meter=self.meter, clock=clock, tracer=Tracer(self.spans, clock))

    def observed(self, **labels: str) -> int:
        return len(self.meter.observations("fleet_model_call_seconds", **labels))


async def test_model_call_is_a_span_with_tokens_and_a_figure() -> None:
    found = Models(Echo(REPLY))
    with on_behalf_of(Cause(traceparent=ROOT.traceparent)):
        reply = await found.models["recorded:DIR/of/somebody"].complete(REQUEST, request_id="r", timeout_s=5)
    assert reply is REPLY
    assert found.observed(engine="recorded", outcome="ok") == 1
    (span,) = found.spans.spans
    assert (span.name, span.kind, span.parent) == ("chat recorded", "client", ROOT.span_id)
    assert span.attributes["gen_ai.usage.input_tokens"] == 3
    assert "somebody" not in repr(span)
    assert "hello" not in repr(span)


async def test_model_call_that_fails_is_counted_by_its_code() -> None:
    found = Models(Echo(ModelTimeout("slow")))
    with pytest.raises(ModelTimeout):
        await found.models["e"].complete(REQUEST, request_id="r", timeout_s=5)
    assert found.observed(engine="e", outcome="model_timeout") == 1
    assert found.spans.spans == []


@pytest.mark.parametrize(
    ("error", "most", "outcome"),
    [(None, 9, "ok"), (ModelTimeout("slow"), 9, "model_timeout"), (None, 1, "closed")],
)
async def test_stream_is_timed_until_its_end(error: Exception | None, most: int, outcome: str) -> None:
    model, texts = Streaming(error), list[str]()
    found = Models(model)
    stream = found.models["e"].stream(REQUEST, request_id="r", timeout_s=5)
    assert isinstance(stream, AsyncGenerator)
    try:
        async for chunk in stream:
            texts.append(chunk.text)
            if len(texts) == most:
                break
    except ModelTimeout:
        assert error is not None
    await stream.aclose()
    assert texts[0] == "h"
    assert model.is_closed
    assert found.observed(engine="e", outcome=outcome) == 1


async def test_engines_are_those_of_the_process() -> None:
    model = Echo()
    found = Models(model)
    assert list(found.models) == list(found.inner)
    assert len(found.models) == 2
    await found.models["e"].abort("r")
    await found.models["e"].health()
    assert [call[0] for call in model.calls] == ["abort", "health"]
    with pytest.raises(KeyError):
        found.models["missing"]


async def test_pack_is_timed_and_measured() -> None:
    meter = MemoryMeter()
    packs = TimedPacks(Echo(PACK), meter=meter, clock=MemoryClock())
    assert await packs.pack(PackRequest(STORY, "qa", "TEST", 4)) is PACK
    assert len(meter.observations("fleet_pack_seconds", outcome="ok")) == 1
    assert meter.observations("fleet_pack_tokens") == [700]
    assert meter.value("fleet_pack_items_dropped_total", scope="history") == 2


async def test_pack_that_fails_is_counted_by_its_code() -> None:
    meter = MemoryMeter()
    packs = TimedPacks(Echo(NotFound("no such story")), meter=meter, clock=MemoryClock())
    with pytest.raises(NotFound):
        await packs.pack(PackRequest(STORY, "qa", "TEST", 4))
    assert len(meter.observations("fleet_pack_seconds", outcome="not_found")) == 1
    assert meter.observations("fleet_pack_tokens") == []


@dataclass
class Result:
    status: str = "passed"
    exit_code: int | None = 0


async def test_run_is_a_span_and_counted_by_its_status() -> None:
    meter, spans, clock = MemoryMeter(), MemorySpans(), MemoryClock()
    inner = Echo(Result())
    backend = TimedBackend(inner, "n1", meter=meter, clock=clock, tracer=Tracer(spans, clock))
    with on_behalf_of(Cause(traceparent=ROOT.traceparent)):
        assert (await backend.run("spec", run_id="r")).status == "passed"  # pyright: ignore[reportArgumentType]
    assert meter.value("fleet_runs_total", status="passed") == 1
    assert meter.value("fleet_runs_active", node="n1") == 0
    (span,) = spans.spans
    assert span.attributes == {"fleet.node": "n1", "fleet.status": "passed", "fleet.exit_code": 0}
    await backend.cancel("r")
    await backend.health()
    await backend.sweep()
    assert [call[0] for call in inner.calls] == ["run", "cancel", "health", "sweep"]


async def test_run_that_nothing_could_hold_is_counted_by_its_code() -> None:
    meter = MemoryMeter()
    backend = TimedBackend(Echo(SandboxUnavailable("full")), "n1", meter=meter, clock=MemoryClock())
    with pytest.raises(SandboxUnavailable):
        await backend.run("spec", run_id="r")  # pyright: ignore[reportArgumentType]
    assert meter.value("fleet_runs_total", status="sandbox_unavailable") == 1
    assert meter.value("fleet_runs_active", node="n1") == 0


class Away(MemoryDeadLetters):
    """A store that does not answer."""

    async def letters(self) -> list[Any]:
        raise StoreUnavailable("away")


def figures(meter: MemoryMeter, clock: MemoryClock, letters: MemoryDeadLetters) -> ShardFigures:
    status = ShardStatus("council:0", "council:0/1", "ready", (STORY,), {"st-b-2": "defect"})
    return ShardFigures(lambda: status, observed(), meter=meter, clock=clock, inbox=MemoryInbox(clock), letters=letters)


async def test_shard_tells_stories_and_queues() -> None:
    meter, clock = MemoryMeter(), MemoryClock()
    found = figures(meter, clock, MemoryDeadLetters(clock))
    found.tell_stories()
    await found.tell_queues()
    assert meter.value("fleet_council_stories", shard="council:0") == 1
    assert meter.value("fleet_council_stories_left_alone", shard="council:0") == 1
    told = {name for name, _ in meter.figures}
    assert told >= {"fleet_commands_waiting", "fleet_commands_oldest_seconds", "fleet_dead_letters"}
    assert meter.value("fleet_approvals_pending", shard="council:0", age="older") == 0


async def test_shard_goes_on_telling_while_a_store_is_away() -> None:
    class Ended(Exception):
        """The test has seen enough."""

    class Twice(MemoryClock):
        rounds = 0

        async def sleep(self, seconds: float) -> None:
            self.rounds += 1
            if self.rounds == 2:
                raise Ended

    meter, clock = MemoryMeter(), Twice()
    with pytest.raises(Ended):
        await figures(meter, clock, Away(clock)).run()
    assert clock.rounds == 2
    assert meter.value("fleet_council_stories", shard="council:0") == 1
