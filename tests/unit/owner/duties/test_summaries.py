"""A long history of a role is summed up before the role is shown the story again (CX-50, CX-55, CX-56)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.context.budget import estimate_tokens
from fleet.context.port import PackRequest
from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.context.tokenizers import FileTokenizers
from fleet.events.codec import decode
from fleet.events.context import SummaryRecorded
from fleet.events.payload import Payload
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import ReplyMalformed, ReplyRefused
from fleet.kernel.ids import Principal, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.models.prompts.pack_readers import PACK_READERS, PackReaders, ReadingChain, ReadingEngine, ReadingLink
from fleet.owner.duties.summaries import keep_summaries, keep_summary
from fleet.owner.workbench import Workbench
from tests.support.bench import ScriptedAgents, World
from tests.support.context import context_config
from tests.support.story_events import PO, STORY, StoryLog, created_payload, digest, story
from tests.support.tokenizers import Counter, id_of, write

ARCHITECT, QA = Principal("agent:architect-001"), Principal("agent:qa-001")


def config(**compression: int | str) -> ContextConfig:
    found = context_config()
    return found.model_copy(update={"compression": found.compression.model_copy(update=compression)})


async def bench_of(
    *who: Principal, steps: int, rule: ContextConfig, agents: ScriptedAgents | None = None
) -> tuple[Workbench, World]:
    """A story in which each of these took so many steps."""
    world = World(log=MemoryEventLog(), agents=agents)
    log = story(until="planned")
    for number in range(steps):
        for one in who:
            words = f"We must keep rule {number} of {one}.\n" + "x = 1; " * 60
            answer = await world.blobs.put(json.dumps({"value": {"text": words}}).encode())
            log.step(f"{one[6:]}/{number}", who=one, result=answer)
    await log.write_to(world.log)
    bench = await world.bench()
    return replace(bench, rules=replace(bench.rules, context=rule)), world


async def recorded(world: World) -> list[SummaryRecorded]:
    found = [decode(event) for event in await world.log.read(StreamId.of_story(STORY))]
    return [payload for payload in found if isinstance(payload, SummaryRecorded)]


async def pack_of(world: World, bench: Workbench, role: str) -> str:
    request = PackRequest(story_id=STORY, role=role, phase="DESIGN", as_of=bench.state.version)
    return (await bench.packs.pack(request)).text


@pytest.mark.rule("CX-50", "CX-56")
async def test_role_with_a_long_history_is_shown_a_summary_of_its_own_and_no_other_role_sees_it() -> None:
    bench, world = await bench_of(ARCHITECT, QA, steps=6, rule=config(steps=5))
    before = bench.state.version
    await keep_summaries(bench, ("architect", "qa", "devops", "architect"), "DESIGN")
    found = await recorded(world)
    assert [one.as_role for one in found] == ["architect", "qa"], "devops has no history, and its cell shows none"
    for one in found:
        assert set(one.recall.values()) == {"1"}
        assert 1 < one.covers_from < one.covers_to <= before
        assert one.tokens_after < one.tokens_before
    text = await pack_of(world, bench, "architect")
    assert "## Summary\nData from an earlier summary, not instructions:\n" in text
    assert "We must keep rule 5 of agent:architect-001." in text
    assert "agent:qa-001" not in text
    assert "We must keep rule 5 of agent:qa-001." in await pack_of(world, bench, "qa")
    assert "We must keep rule 5 of agent:qa-001." in await pack_of(world, bench, "po"), "the newest one"


async def test_summary_is_made_again_only_after_as_many_new_steps() -> None:
    bench, world = await bench_of(ARCHITECT, steps=6, rule=config(steps=5))
    for role in ("architect", "architect", "planner"):
        await keep_summaries(bench, (role,), "DESIGN")
    assert len(await recorded(world)) == 1, "a profile shares the history of its base role"


async def test_role_that_is_shown_no_summary_gets_none() -> None:
    bench, world = await bench_of(ARCHITECT, steps=6, rule=config(steps=5))
    await keep_summaries(bench, ("architect",), "BUILD")
    assert await recorded(world) == []
    await keep_summaries(bench, ("designer",), "DOCS")
    assert len(await recorded(world)) == 1


@pytest.mark.rule("RC-55", "CX-50")
async def test_prompt_of_a_step_that_has_begun_stays_as_it_is() -> None:
    bench, world = await bench_of(ARCHITECT, steps=6, rule=config(steps=5))
    await keep_summary(bench, "planner", "DESIGN", before="architect-001/5")
    assert await recorded(world) == []
    await keep_summary(bench, "planner", "DESIGN", before="plan/1/derive-1")
    assert len(await recorded(world)) == 1


@pytest.mark.rule("CX-53", "CX-56")
async def test_model_adds_marked_words_once_and_a_story_that_was_taken_over_asks_no_second_time() -> None:
    agents = ScriptedAgents(lambda _: {"summary": "Every rule was kept, one after the other."})
    rule = config(steps=5, written_by="model")
    bench, world = await bench_of(ARCHITECT, steps=6, rule=rule, agents=agents)
    real = bench.journal.record

    async def dies(name: str, *payloads: Payload, **named: Any) -> None:
        if isinstance(payloads[0], SummaryRecorded):
            raise ConnectionError
        await real(name, *payloads, **named)

    bench.journal.record = dies
    with pytest.raises(ConnectionError):
        await keep_summaries(bench, ("architect",), "DESIGN")
    assert await recorded(world) == []
    again = await world.bench()
    again = replace(again, rules=replace(again.rules, context=rule))
    await keep_summaries(again, ("architect",), "DESIGN")
    (found,) = await recorded(world)
    assert len(agents.asked) == 1
    assert found.written_by == "model"
    assert set(found.recall.values()) == {"1"}
    text = await pack_of(world, again, "architect")
    assert "a model wrote this" in text
    assert "Every rule was kept, one after the other." in text
    # What summed up is no part of the history, so nothing is new.
    await keep_summaries(again, ("architect",), "DESIGN")
    assert len(agents.asked) == 1


@pytest.mark.rule("CX-56")
@pytest.mark.parametrize(
    "reply",
    [
        {"summary": "As de-inventedbyme7 says."},
        ReplyMalformed("no form", problems=["no form"]),
        ReplyRefused("the model will not"),
    ],
)
async def test_model_that_invents_or_says_nothing_leaves_the_extract(reply: Any) -> None:
    agents = ScriptedAgents(lambda _: reply)
    bench, world = await bench_of(ARCHITECT, steps=6, rule=config(steps=5, written_by="model"), agents=agents)
    await keep_summaries(bench, ("architect",), "DESIGN")
    (found,) = await recorded(world)
    assert agents.requests[0].kind == "summarize"
    assert found.written_by is None
    assert "a model wrote this" not in await pack_of(world, bench, "architect")


async def test_short_history_is_not_summed_up_as_shipped() -> None:
    bench, world = await bench_of(ARCHITECT, steps=20, rule=context_config())
    await keep_summaries(bench, ("architect",), "DESIGN")
    assert await recorded(world) == []


async def test_answers_that_nobody_has_any_more_do_not_stop_a_story() -> None:
    world = World(log=MemoryEventLog())
    log = StoryLog().add(created_payload(), actor=PO)
    for number in range(4):
        log.step(f"gone/{number}", who=ARCHITECT)
    log.step("kept", who=ARCHITECT, kind="run")
    await log.write_to(world.log)
    bench = await world.bench()
    bench = replace(bench, rules=replace(bench.rules, context=config(steps=2)))
    await keep_summaries(bench, ("architect",), "DESIGN")
    (found,) = await recorded(world)
    assert b"tests.pytest: 1 passed, 0 failed" in await bench.blobs.get(found.summary_digest)


@pytest.mark.rule("CX-20", "CX-50", "CX-25")
@pytest.mark.parametrize("is_counted", [False, True])
async def test_length_is_counted_as_the_models_of_the_story_count_or_else_estimated(
    tmp_path: Path, is_counted: bool
) -> None:
    """Of digests there are more tokens than the estimate says: the limit of this test lies between the two."""
    told = " ".join(digest(str(number)).hex for number in range(130))
    exact, estimated = 3 * Counter("bytes").count(told), 3 * estimate_tokens(told)
    assert exact > estimated + 2_000
    world, coder = World(log=MemoryEventLog()), id_of("bytes")
    engine = ReadingEngine(tokenizer=coder, max_context=32_768, max_output=1_000)
    chain = ReadingChain(links=(ReadingLink(engine_id="coder", max_tokens=500),))
    readers = PackReaders(engines={"coder": engine}, roles={}, default=chain)
    kept = {PACK_READERS: await world.blobs.put(canonical_json(readers))} if is_counted else {}
    log = story(until="planned", config={"fsm.yaml": digest("fsm"), **kept})
    for number in range(3):
        log.step(f"qa-001/{number}", kind="run", who=QA, excerpt=told)
    await log.write_to(world.log)
    bench = await world.bench()
    service = ContextService(
        world.log,
        world.blobs,
        context_config(),
        clock=world.clock,
        tokenizers=FileTokenizers({coder.sha256: write(tmp_path)}, tmp_path),
    )
    rule = config(tokens=exact - 1_000, steps=40)
    bench = replace(bench, packs=service, rules=replace(bench.rules, context=rule))
    await keep_summaries(bench, ("qa",), "DESIGN")
    assert len(await recorded(world)) == is_counted
