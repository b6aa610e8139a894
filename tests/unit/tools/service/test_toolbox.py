"""Toolbox: what only it does beyond the contract: dead lives, time, cancelling, limits, redaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError, OutcomeUnknown, StoreFull, ToolFailed, ToolTimeout
from fleet.kernel.ids import Digest
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.sandbox.memory import MemoryRunLedger
from fleet.sandbox.port import Running
from fleet.secrets.port import SecretValue
from fleet.secrets.service import KnownSecrets
from fleet.tools.memory import ScriptedTool
from fleet.tools.port import ToolContext
from fleet.tools.service import Toolbox, call_digest
from fleet.trees.memory import MemoryBlobStore
from tests.support.tool_kit import call_of, context_of

CALL = call_of("demo", "go")
KEY = "a" * 64
FINE = ToolOutcome(outcome="succeeded", text="fine")


class Scripted:
    name = "demo"

    def __init__(self, do: ScriptedTool) -> None:
        self.do, self.calls = do, 0

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        self.calls += 1
        answer = self.do(call, context)
        return await answer if isinstance(answer, Awaitable) else answer


async def hang(_: ToolCall, __: ToolContext) -> ToolOutcome:
    await asyncio.Event().wait()
    raise AssertionError("never reached")


class World:
    """What two lives of a host share."""

    def __init__(self) -> None:
        self.blobs, self.ledger = MemoryBlobStore(), MemoryRunLedger()

    def box(self, tool: Scripted, *, name: str = "one/tools", queue_s: float = 60, **more: KnownSecrets) -> Toolbox:
        return Toolbox(
            [tool], ledger=self.ledger, blobs=self.blobs, clock=SystemClock(), name=name, queue_s=queue_s, **more
        )

    async def dead_claim(self, context: ToolContext, *, name: str = "one/tools") -> None:
        """A life of the host claims the key and dies."""
        dying = self.box(Scripted(hang), name=name)
        caller = asyncio.create_task(dying.call(CALL, context))
        while not isinstance(await self.ledger.lookup(context.key), Running):
            await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.rule("RC-50", "RC-52")
@pytest.mark.parametrize("effect", ["PURE", "KEYED", "UNSAFE"])
async def test_call_of_a_dead_life_runs_again_unless_it_is_unsafe(world: World, effect: str) -> None:
    await world.dead_claim(context_of(key=KEY, effect=effect))
    tool = Scripted(lambda _, __: FINE)
    if effect == "UNSAFE":
        with pytest.raises(OutcomeUnknown, match="earlier life"):
            await world.box(tool).call(CALL, context_of(key=KEY, effect=effect))
        assert tool.calls == 0
    else:
        assert (await world.box(tool).call(CALL, context_of(key=KEY, effect=effect))).text == "fine"
        assert tool.calls == 1


@pytest.mark.rule("RC-52")
async def test_unsafe_call_of_a_dead_host_is_unknown_to_every_other_host_once_its_time_is_over(world: World) -> None:
    context = context_of(key=KEY, effect="UNSAFE", timeout_s=0)
    forever = 3_650 * 86_400
    await world.ledger.claim(
        context.key,
        story=context.story_id,
        epoch=1,
        spec=call_digest(CALL, context),
        supervisor="two/tools",
        ttl_s=forever - 61,
    )
    tool = Scripted(lambda _, __: FINE)
    with pytest.raises(OutcomeUnknown, match="is gone"):
        await world.box(tool).call(CALL, context)
    assert tool.calls == 0


@pytest.mark.parametrize(("effect", "error"), [("KEYED", ToolTimeout), ("UNSAFE", OutcomeUnknown)])
async def test_call_over_its_time_ends(world: World, effect: str, error: type[Exception]) -> None:
    box = world.box(Scripted(hang), queue_s=0.01)
    with pytest.raises(error):
        await box.call(CALL, context_of(effect=effect, timeout_s=0))
    pure = await box.call(CALL, context_of(timeout_s=0))
    assert (pure.outcome, pure.reason, box.active) == ("timed_out", "timeout", 0)


async def test_cancel_ends_a_call_and_records_it_but_never_an_unsafe_one(world: World) -> None:
    tool = Scripted(hang)
    box = world.box(tool)
    caller = asyncio.create_task(box.call(CALL, context_of(key=KEY)))
    while not tool.calls:
        await asyncio.sleep(0)
    assert box.active == 1
    assert await box.cancel(context_of(key=KEY).key)
    assert (await caller).outcome == "cancelled"
    assert (await box.call(CALL, context_of(key=KEY))).outcome == "cancelled"

    unsafe = context_of(key="b" * 64, effect="UNSAFE")
    other = asyncio.create_task(box.call(CALL, unsafe))
    while tool.calls < 2:
        await asyncio.sleep(0)
    assert not await box.cancel(unsafe.key)
    assert not await box.cancel(context_of().key)
    other.cancel()


@pytest.mark.rule("RT-66", "CX-60")
async def test_output_is_redacted_cut_to_its_limit_and_kept_whole_beside_the_excerpt(world: World) -> None:
    known = KnownSecrets()
    known.register(SecretValue("s3cr3t-value-1234", name="db", provider="t", version=None, ttl_s=60))
    text = "s3cr3t-value-1234" + "x" * 30_000
    said = ToolOutcome(outcome="succeeded", text=text, content={"a": ["s3cr3t-value-1234", 1]})
    outcome = await world.box(Scripted(lambda _, __: said), secrets=known).call(CALL, context_of(output_limit_kb=20))

    assert "s3cr3t" not in outcome.model_dump_json()
    assert isinstance(outcome.output, Digest)
    kept = (await world.blobs.get(outcome.output)).decode()
    assert "s3cr3t" not in kept
    assert 15_000 < len(kept) <= 20 << 10
    assert "over the output limit" in kept


async def test_output_that_a_tool_stored_itself_is_redacted_too(world: World) -> None:
    known = KnownSecrets()
    known.register(SecretValue("s3cr3t-value-1234", name="db", provider="t", version=None, ttl_s=60))
    blob = await world.blobs.put(b"line s3cr3t-value-1234")
    said = ToolOutcome(outcome="succeeded", output=blob)
    outcome = await world.box(Scripted(lambda _, __: said), secrets=known).call(CALL, context_of())
    assert outcome.output not in (None, blob)
    assert outcome.text.startswith("line [REDACTED")


@pytest.mark.parametrize("content", [{"text": "x" * 3000}, {"ratio": 0.5}])
async def test_data_over_the_limit_or_without_canonical_form_are_the_tools_fault(world: World, content: object) -> None:
    said = ToolOutcome.model_validate({"outcome": "succeeded", "content": content})
    with pytest.raises(ToolFailed):
        await world.box(Scripted(lambda _, __: said)).call(CALL, context_of(output_limit_kb=2))


@pytest.mark.rule("RC-52")
async def test_unsafe_call_whose_outcome_cannot_be_stored_is_unknown(world: World) -> None:
    class Full(MemoryBlobStore):
        async def put(self, data: bytes) -> Digest:
            raise StoreFull("no room")

    world.blobs = Full()
    tool = Scripted(lambda _, __: FINE)
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            await world.box(tool).call(CALL, context_of(key=KEY, effect="UNSAFE"))
    assert tool.calls == 1
    with pytest.raises(StoreFull):
        await world.box(tool).call(CALL, context_of(key="c" * 64))


def test_two_tools_of_one_name_stop_the_start(world: World) -> None:
    tool = Scripted(hang)
    assert world.box(tool).names == {"demo"}
    with pytest.raises(ConfigError, match="two tools are named 'demo'"):
        Toolbox([tool, tool], ledger=world.ledger, blobs=world.blobs, clock=SystemClock(), name="one")


async def test_tool_that_comes_later_is_made_by_its_first_call_and_once(world: World) -> None:
    made: list[Scripted] = []

    def make() -> Scripted:
        made.append(Scripted(lambda _, __: FINE))
        return made[-1]

    box = Toolbox([], later={"demo": make}, ledger=world.ledger, blobs=world.blobs, clock=SystemClock(), name="one")
    assert (box.names, made) == ({"demo"}, [])
    for key in ("a" * 64, "b" * 64):
        assert (await box.call(CALL, context_of(key=key))).outcome == "succeeded"
    assert [tool.calls for tool in made] == [2]


def test_tool_that_comes_later_has_a_name_of_its_own(world: World) -> None:
    tool = Scripted(hang)
    with pytest.raises(ConfigError, match="two tools are named 'demo'"):
        Toolbox(
            [tool],
            later={"demo": lambda: tool},
            ledger=world.ledger,
            blobs=world.blobs,
            clock=SystemClock(),
            name="one",
        )
