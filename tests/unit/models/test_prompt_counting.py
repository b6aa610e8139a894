"""Prompts counted by the tokenizers that their story began with, before a call is reserved (CX-20, MB-3, MB-22)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.context.budget import estimate_tokens
from fleet.context.memory import MemoryTokenizers
from fleet.context.port import PackRequest, Tokenizers
from fleet.context.tokenizers import FileTokenizers
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import BudgetExceeded, ConfigError
from fleet.log.memory import MemoryEventLog
from fleet.models.chat import Sampling
from fleet.models.port import AgentRequest
from fleet.models.profiles import Budgets
from fleet.models.prompts.pack_readers import (
    PACK_READERS,
    PROMPT_FRAME_TOKENS,
    PackReaders,
    ReadingChain,
    ReadingEngine,
    ReadingLink,
)
from fleet.models.routing.budget import BudgetLimits
from fleet.models.weights import TokenizerId
from fleet.owner.budgets import Budgeting
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.steps import Work
from fleet.owner.workbench import seat
from tests.support.bench import ScriptedAgents, World
from tests.support.story_events import STORY, digest, story
from tests.support.tokenizers import Counter, id_of, write

DEV = seat("developer")
WORK = Work(seat=DEV, tool="model", op="draft")
TOLD, OWN = "for item in basket:\n    total += price_of(item)\n" * 40, "Round to two places."


def request(**changes: Any) -> AgentRequest:
    sampling = Sampling(temperature="0.2", max_tokens=700, seed=7)
    whole = AgentRequest(
        kind="draft", role="developer", principal=DEV.principal, shared=TOLD, own=OWN, sampling=sampling
    )
    return replace(whole, **changes)


@pytest.fixture
def files(tmp_path: Path) -> FileTokenizers:
    return FileTokenizers({id_of("bytes").sha256: write(tmp_path)}, tmp_path)


async def began(
    tokenizer: TokenizerId | None,
    tokenizers: Tokenizers | None,
    *,
    log: MemoryEventLog | None = None,
    limits: Budgets | None = None,
    named: TokenizerId | None = None,
) -> tuple[World, Journal]:
    """A story that wrote down who reads it; none for no tokenizer. `named` is that of the policy `named`."""
    world = World(
        tokenizers=tokenizers,
        agents=ScriptedAgents(lambda _: {"ok": 1}),
        budgeting=Budgeting(limits=limits or Budgets()),
        log=log,
    )
    engine = ReadingEngine(tokenizer=tokenizer, max_context=32_768, max_output=1_000)
    chain = ReadingChain(links=(ReadingLink(engine_id="coder", max_tokens=500),))
    own = ReadingChain(links=(ReadingLink(engine_id="own", max_tokens=500),))
    engines = {"coder": engine, "own": engine.model_copy(update={"tokenizer": named})}
    readers = PackReaders(
        engines=engines, roles={}, default=chain, policies={"named": own} if named is not None else {}
    )
    kept = {PACK_READERS: await world.blobs.put(canonical_json(readers))} if tokenizer is not None else {}
    await story(until="created", config={"fsm.yaml": digest("fsm"), **kept}).write_to(world.log)
    return world, await world.journal()


def now(**policies: TokenizerId) -> PackReaders:
    """What is configured by now: one engine for each policy, and another for every role."""
    engines = {
        name: ReadingEngine(tokenizer=tokenizer, max_context=32_768, max_output=1_000)
        for name, tokenizer in {**policies, "new": id_of("whole")}.items()
    }
    chains = {name: ReadingChain(links=(ReadingLink(engine_id=name, max_tokens=500),)) for name in engines}
    return PackReaders(engines=engines, roles={}, default=chains["new"], policies=chains)


def reserved(journal: Journal, step: str = "s") -> int:
    """What is held of the prompt itself."""
    held = journal.state.steps[step].started.reserve
    return (held.tokens or 0) - (held.output_tokens or 0) - PROMPT_FRAME_TOKENS


@pytest.mark.rule("CX-20", "MB-22")
async def test_reservation_is_as_the_tokenizer_counts_that_the_story_began_with(files: FileTokenizers) -> None:
    world, journal = await began(id_of("bytes"), files)
    await journal.ask("s", request(), WORK)
    count = sum(Counter("bytes").count(text) for text in (TOLD, OWN))
    assert reserved(journal) == count != Budgeting().prompt_tokens(request()) - PROMPT_FRAME_TOKENS
    assert world.agents.requests[0].counted == count


@pytest.mark.rule("CX-20", "MB-22")
async def test_story_that_wrote_no_readers_down_and_a_policy_that_nobody_knows_are_estimated(
    files: FileTokenizers,
) -> None:
    estimate = Budgeting().prompt_tokens(request()) - PROMPT_FRAME_TOKENS
    _, old = await began(None, files)
    await old.ask("s", request(), WORK)
    assert reserved(old) == estimate
    world, named = await began(id_of("bytes"), files)
    await named.ask("s", request(policy="unheard-of"), WORK)
    assert reserved(named) == estimate_tokens(TOLD) + estimate_tokens(OWN) == world.agents.requests[0].counted


@pytest.mark.rule("CX-20", "MB-22", "GL-23")
async def test_policy_that_came_after_the_story_began_is_as_its_tokenizer_counts_now(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    paths = {id_of("bytes").sha256: write(tmp_path), id_of("words").sha256: write(tmp_path / "words", "words")}
    world, _ = await began(id_of("bytes"), FileTokenizers(paths, tmp_path))
    asked = PackRequest(STORY, "qa", "TEST", len(await world.events()))
    written = await world.packs.pack(asked)
    world.readers = now(later=id_of("words"))
    journal = await world.journal()
    later = request(policy="later")
    first = await journal.ask("later", later, WORK)
    assert reserved(journal, "later") == sum(map(Counter("words").count, (TOLD, OWN)))
    await journal.ask("role", request(own=OWN + " Keep it short."), WORK)
    assert reserved(journal, "role") == sum(map(Counter("bytes").count, (TOLD, OWN + " Keep it short.")))
    # Packs of the story are cut by what it wrote down, and a step on record is answered whatever is configured.
    assert written == await world.packs.pack(asked)
    assert written.counter == id_of("bytes").label
    world.readers = now(later=id_of("whole"))
    again = await world.journal()
    assert (await again.ask("later", later, WORK)).value == first.value
    assert len(world.agents.requests) == 2


@pytest.mark.rule("CX-20", "MB-22")
async def test_policy_that_came_later_is_estimated_while_its_tokenizer_is_not_here(
    files: FileTokenizers, caplog: pytest.LogCaptureFixture
) -> None:
    world, _ = await began(id_of("bytes"), files)
    world.readers = now(later=id_of("words"))
    journal = await world.journal()
    await journal.ask("s", request(policy="later"), WORK)
    assert reserved(journal) == estimate_tokens(TOLD) + estimate_tokens(OWN)
    assert "the policy later are estimated" in caplog.text
    assert TOLD[:20] not in caplog.text


@pytest.mark.rule("CX-20", "MB-22", "AP-79")
async def test_call_of_a_named_agent_is_as_the_tokenizers_of_its_own_policy_count(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    paths = {id_of("bytes").sha256: write(tmp_path), id_of("words").sha256: write(tmp_path / "words", "words")}
    _, journal = await began(id_of("bytes"), FileTokenizers(paths, tmp_path), named=id_of("words"))
    await journal.ask("own", request(policy="named"), WORK)
    await journal.ask("role", request(own=OWN + " Keep it short."), WORK)
    assert reserved(journal, "own") == sum(map(Counter("words").count, (TOLD, OWN)))
    assert reserved(journal, "role") == sum(map(Counter("bytes").count, (TOLD, OWN + " Keep it short.")))


@pytest.mark.rule("MB-22")
async def test_call_for_which_only_the_estimate_finds_room_is_not_made(files: FileTokenizers) -> None:
    count = sum(Counter("bytes").count(text) for text in (TOLD, OWN)) + PROMPT_FRAME_TOKENS
    step = Budgets(step=BudgetLimits(tokens=count + 230))
    assert Budgeting().prompt_tokens(request()) + 256 <= count + 230
    _, estimated = await began(None, files, limits=step)
    await estimated.ask("s", request(), WORK)
    world, journal = await began(id_of("bytes"), files, limits=step)
    with pytest.raises(BudgetExceeded, match="step budget"):
        await journal.ask("s", request(), WORK)
    assert not world.agents.requests


@pytest.mark.rule("CX-20", "GL-23")
async def test_tokenizer_that_is_gone_is_an_error_before_anything_is_held_and_none_for_what_is_on_record(
    files: FileTokenizers,
) -> None:
    log = MemoryEventLog()
    world, journal = await began(id_of("bytes"), files, log=log)
    first = await journal.ask("s", request(), WORK)
    world.tokenizers = MemoryTokenizers()
    again = await world.journal()
    assert (await again.ask("s", request(), WORK)).value == first.value
    before = await world.types()
    with pytest.raises(ConfigError, match="not here"):
        await again.ask("next", request(), WORK)
    assert await world.types() == before
    assert len(world.agents.requests) == 1


@pytest.mark.rule("CX-25", "MB-11")
def test_count_is_no_part_of_what_pins_a_request() -> None:
    assert request(counted=12).pinned() == request().pinned()
    assert "counted" not in request(counted=12).pinned()


@pytest.mark.rule("MB-22")
def test_texts_of_a_request_are_all_that_it_brings_to_the_prompt() -> None:
    form = {"type": "object", "properties": {"verdict": {"type": "string"}}}
    assert request().texts == (TOLD, OWN)
    assert request(own="", json_schema=form).texts[0] == TOLD
    assert "verdict" in request(own="", json_schema=form).texts[1]
