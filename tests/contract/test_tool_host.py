"""The contract of ToolHost, on the twin in memory and on the toolbox over each ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from fleet.kernel.clock import SystemClock
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import (
    IdempotencyMismatch,
    OutcomeUnknown,
    OwnershipLost,
    PolicyDenied,
    ToolFailed,
    ToolTimeout,
)
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import EXCERPT_CHARS, ToolOutcome
from fleet.tools.memory import MemoryToolHost, ScriptedTool
from fleet.tools.port import ToolContext, ToolHost
from fleet.tools.service import Toolbox
from fleet.trees.memory import MemoryBlobStore
from tests.support.stores import Stores
from tests.support.tool_kit import call_of, context_of

CALL = call_of("demo", "go", word="x")
KEY = "a" * 64


@dataclass
class Scripted:
    """A tool whose function is set by the test."""

    do: ScriptedTool
    name: str = "demo"
    calls: list[ToolCall] = field(default_factory=list)

    async def preview(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        answer = self.do(call, context)
        return await answer if isinstance(answer, Awaitable) else answer

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        self.calls.append(call)
        answer = self.do(call, context)
        return await answer if isinstance(answer, Awaitable) else answer


class Plain:
    """A tool that cannot say what a call would do."""

    name = "helm"

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        return ToolOutcome(outcome="succeeded")


MakeHost = Callable[[ScriptedTool], tuple[ToolHost, Scripted]]


@pytest.fixture(params=["twin", "toolbox"])
def make_host(request: pytest.FixtureRequest, stores: Stores) -> MakeHost:
    def make(do: ScriptedTool) -> tuple[ToolHost, Scripted]:
        tool = Scripted(do)
        if request.param == "twin":
            return MemoryToolHost({"demo": tool.call}, previews={"kubectl": tool.preview}), tool
        box = Toolbox(
            [tool, Scripted(do, "kubectl"), Plain()],
            ledger=stores.ledger,
            blobs=MemoryBlobStore(),
            clock=SystemClock(),
            name="sandbox:one/tools",
        )
        return box, tool

    return make


def fine(call: ToolCall, _: ToolContext) -> ToolOutcome:
    return ToolOutcome(outcome="succeeded", text=f"did {call.args['word']}", content={"n": 1})


def raising(error: Exception) -> ScriptedTool:
    def do(_: ToolCall, __: ToolContext) -> ToolOutcome:
        raise error

    return do


@pytest.mark.rule("RC-51", "RC-54")
async def test_repeated_key_is_answered_from_the_record(make_host: MakeHost) -> None:
    host, tool = make_host(fine)
    first = await host.call(CALL, context_of(key=KEY))
    assert await host.call(CALL, context_of(key=KEY)) == first
    assert (first.text, first.content, len(tool.calls)) == ("did x", {"n": 1}, 1)
    await host.call(CALL, context_of(key="b" * 64))
    assert len(tool.calls) == 2


@pytest.mark.rule("RC-54")
async def test_call_under_way_is_joined_and_survives_its_first_caller(make_host: MakeHost) -> None:
    gate = asyncio.Event()

    async def held(call: ToolCall, context: ToolContext) -> ToolOutcome:
        await gate.wait()
        return fine(call, context)

    host, tool = make_host(held)
    first = asyncio.create_task(host.call(CALL, context_of(key=KEY)))
    while not tool.calls:
        await asyncio.sleep(0)
    second = asyncio.create_task(host.call(CALL, context_of(key=KEY)))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert (await second).text == "did x"
    assert len(tool.calls) == 1


@pytest.mark.rule("RC-12")
async def test_key_of_another_call_is_refused(make_host: MakeHost) -> None:
    host, _ = make_host(fine)
    await host.call(CALL, context_of(key=KEY))
    with pytest.raises(IdempotencyMismatch):
        await host.call(call_of("demo", "go", word="y"), context_of(key=KEY))
    with pytest.raises(IdempotencyMismatch):
        await host.call(CALL, context_of(digest_of(b"tree"), key=KEY))


@pytest.mark.rule("RC-54")
async def test_call_below_the_highest_epoch_of_the_story_is_refused(make_host: MakeHost) -> None:
    host, tool = make_host(fine)
    await host.call(CALL, context_of(epoch=5))
    with pytest.raises(OwnershipLost):
        await host.call(CALL, context_of(epoch=4))
    assert len(tool.calls) == 1


async def test_call_that_was_refused_or_could_not_be_held_leaves_its_key_free(make_host: MakeHost) -> None:
    host, tool = make_host(raising(PolicyDenied("no", rule_id="path_outside")))
    with pytest.raises(PolicyDenied):
        await host.call(CALL, context_of(key=KEY, effect="UNSAFE"))
    tool.do = fine
    assert (await host.call(CALL, context_of(key=KEY, effect="UNSAFE"))).outcome == "succeeded"


async def test_unknown_tool_is_an_error_that_names_it(make_host: MakeHost) -> None:
    host, _ = make_host(fine)
    with pytest.raises(ToolFailed, match="'nothing'"):
        await host.call(call_of("nothing", "go"), context_of())


@pytest.mark.rule("RC-52")
async def test_unsafe_call_without_an_answer_is_unknown_and_never_repeated(make_host: MakeHost) -> None:
    host, tool = make_host(raising(ToolTimeout("no answer")))
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await host.call(CALL, context_of(key=KEY, effect="UNSAFE"))
    assert len(tool.calls) == 1


async def test_timeout_of_a_keyed_call_leaves_its_key_free(make_host: MakeHost) -> None:
    host, tool = make_host(raising(ToolTimeout("no answer")))
    with pytest.raises(ToolTimeout):
        await host.call(CALL, context_of(key=KEY, effect="KEYED"))
    tool.do = fine
    assert (await host.call(CALL, context_of(key=KEY, effect="KEYED"))).outcome == "succeeded"


@pytest.mark.rule("RT-66")
async def test_text_is_an_excerpt_without_control_sequences(make_host: MakeHost) -> None:
    long = "\x1b[31mred\x1b[0m" + "x" * 20_000 + "end"
    host, _ = make_host(lambda _, __: ToolOutcome(outcome="failed", reason="exit_nonzero", exit_code=1, text=long))
    outcome = await host.call(CALL, context_of())
    assert len(outcome.text) <= EXCERPT_CHARS
    assert (outcome.text[:4], outcome.text[-3:], "left out" in outcome.text) == ("redx", "end", True)


@pytest.mark.rule("RT-62")
async def test_preview_says_what_a_call_would_do_and_makes_none(make_host: MakeHost) -> None:
    host, tool = make_host(fine)
    seen = await host.preview(call_of("kubectl", "apply", word="x"), context_of(effect="UNSAFE"))
    assert seen is not None
    assert (seen.outcome, seen.text, tool.calls) == ("succeeded", "did x", [])


@pytest.mark.rule("RT-62")
@pytest.mark.parametrize(("tool", "op"), [("kubectl", "get"), ("helm", "upgrade"), ("nothing", "go")])
async def test_preview_of_a_call_that_reads_or_of_a_tool_that_cannot_say_is_none(
    make_host: MakeHost, tool: str, op: str
) -> None:
    host, _ = make_host(fine)
    assert await host.preview(call_of(tool, op, word="x"), context_of()) is None


async def test_preview_that_is_refused_says_so(make_host: MakeHost) -> None:
    host, _ = make_host(raising(PolicyDenied("no such kind", rule_id="RT-62")))
    with pytest.raises(PolicyDenied, match="no such kind"):
        await host.preview(call_of("kubectl", "apply"), context_of())
