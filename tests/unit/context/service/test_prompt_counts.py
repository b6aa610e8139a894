"""Calls that no story makes are counted by the tokenizers of the configured models (CX-20, MB-22)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fleet.context.port import TokenCounts, Tokenizers
from fleet.context.scope import ContextConfig
from fleet.context.service.counts import PromptCounts
from fleet.context.service.packs import ContextService
from fleet.context.token_counter import ESTIMATE
from fleet.context.tokenizers import FileTokenizers
from fleet.desk.chat import ChatDesk
from fleet.desk.principals import PrincipalSpending
from fleet.events.budget import BudgetScope
from fleet.kernel.clock import MemoryClock, SystemClock
from fleet.kernel.errors import BudgetExceeded, FleetError, ModelTimeout, StoreUnavailable
from fleet.kernel.ids import Principal
from fleet.log.memory import MemoryEventLog
from fleet.models.chat import NO_TAG, ChatMessage, ChatRequest, Sampling, ToolOffer
from fleet.models.memory import ScriptedChatModel
from fleet.models.port import AgentRequest
from fleet.models.profiles import Budgets
from fleet.models.prompts.pack_readers import PROMPT_FRAME_TOKENS, PackReaders, ReadingChain, ReadingEngine, ReadingLink
from fleet.models.routing.budget import BudgetLimits
from fleet.models.routing.routing import estimate_tokens
from fleet.models.weights import TokenizerId
from fleet.owner.budgets import Budgeting, day_of
from fleet.owner.spending.memory import MemoryDaySpending
from fleet.owner.spending.port import SpendingHold
from fleet.owner.workbench import seat
from fleet.projects.project_calls import ProjectCalls
from fleet.trees.memory import MemoryBlobStore
from tests.support.bench import ScriptedAgents
from tests.support.llm_front import MODELS
from tests.support.rules import files as packaged
from tests.support.tokenizers import Counter, id_of, write

NUMBERS = "order 8812370045 of 1999-12-31 at 17:03:59.000417, sha 9f3c1d7e; " * 30
SHOP, ANA = BudgetScope(kind="project", id="pr-shop1"), Principal("user:ana")
PLANNER = seat("planner")
ASKED = AgentRequest(
    kind="advise",
    role=PLANNER.role,
    principal=PLANNER.principal,
    shared=NUMBERS,
    own="Which one?",
    sampling=Sampling(max_tokens=600),
)


@pytest.fixture
def files(tmp_path: Path) -> FileTokenizers:
    (tmp_path / "words").mkdir()
    paths = {id_of("bytes").sha256: write(tmp_path), id_of("words").sha256: write(tmp_path / "words", "words")}
    return FileTokenizers(paths, tmp_path)


def service(tokenizers: Tokenizers | None) -> ContextService:
    config = packaged().load("context.yaml", ContextConfig)
    return ContextService(MemoryEventLog(), MemoryBlobStore(), config, clock=MemoryClock(), tokenizers=tokenizers)


def readers(*names: str, **others: TokenizerId | None) -> PackReaders:
    """Engines of these kinds of tokenizers in the chain of every role, and others in none."""
    tokenizers: dict[str, TokenizerId | None] = {name: id_of(name) for name in names}
    engines = {
        name: ReadingEngine(tokenizer=found, max_context=32_768, max_output=1_000)
        for name, found in {**tokenizers, **others}.items()
    }
    chain = ReadingChain(links=tuple(ReadingLink(engine_id=name, max_tokens=500) for name in names))
    return PackReaders(engines=engines, roles={}, default=chain)


@dataclass
class Away:
    """A fleet whose actor does not answer."""

    asked: list[int] = field(default_factory=list[int])

    async def tokens(self, tokenizers: tuple[TokenizerId | None, ...], texts: tuple[str, ...]) -> int:
        self.asked.append(len(texts))
        raise StoreUnavailable("actor context is not there")


class Held(MemoryDaySpending):
    """Totals of the day that remember what was held."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[tuple[int, int]] = []

    async def reserve(self, hold: SpendingHold, *, limits: object) -> None:
        self.tokens.append((hold.need.tokens, hold.need.output_tokens))
        await super().reserve(hold, limits=limits)  # type: ignore[arg-type]


@pytest.mark.rule("CX-20")
async def test_texts_are_counted_by_the_tokenizer_that_counts_the_most(files: FileTokenizers) -> None:
    counts: TokenCounts = service(files)
    each = {kind: Counter(kind).count(NUMBERS) + Counter(kind).count("two") for kind in ("bytes", "words")}
    texts = (NUMBERS, "two")
    assert await counts.tokens((id_of("bytes"),), texts) == each["bytes"]
    assert await counts.tokens((id_of("bytes"), id_of("words")), texts) == max(each.values())
    estimate = ESTIMATE.count(NUMBERS) + ESTIMATE.count("two")
    assert await counts.tokens((), texts) == await counts.tokens((None,), texts) == estimate
    assert await counts.tokens((None, id_of("bytes")), texts) == max(each["bytes"], estimate)


@pytest.mark.rule("CX-20", "MB-20", "MB-22")
async def test_call_of_a_project_holds_what_the_models_of_its_role_count(files: FileTokenizers) -> None:
    days, agents = Held(), ScriptedAgents(lambda _: {"ok": 1})
    budgeting = Budgeting(spending=days)
    prompts = PromptCounts(service(files), readers("bytes", "words"))
    calls = ProjectCalls(agents, MemoryClock(), budgeting=budgeting, prompts=prompts)
    await calls.ask(SHOP.id, ASKED, request_id="di-1/propose-1", timeout_s=9)
    count = max(sum(map(Counter(kind).count, ASKED.texts)) for kind in ("bytes", "words"))
    assert days.tokens == [(count + PROMPT_FRAME_TOKENS + 600, 600)]
    assert agents.requests[0].counted == count != budgeting.prompt_tokens(ASKED) - PROMPT_FRAME_TOKENS


@pytest.mark.rule("MB-22")
async def test_project_whose_day_has_room_for_the_estimate_alone_asks_nobody(files: FileTokenizers) -> None:
    count = sum(map(Counter("bytes").count, ASKED.texts)) + PROMPT_FRAME_TOKENS
    limits = Budgets(project=BudgetLimits(tokens=count + 200))
    assert Budgeting().prompt_tokens(ASKED) + 256 <= count + 200
    agents = ScriptedAgents(lambda _: {"ok": 1})
    budgeting = Budgeting(limits=limits, spending=MemoryDaySpending())
    prompts = PromptCounts(service(files), readers("bytes"))
    calls = ProjectCalls(agents, MemoryClock(), budgeting=budgeting, prompts=prompts)
    with pytest.raises(BudgetExceeded):
        await calls.ask(SHOP.id, ASKED, request_id="di-1/propose-1", timeout_s=9)
    assert agents.requests == []


@pytest.mark.rule("CX-20")
async def test_models_without_a_known_tokenizer_are_estimated_and_nobody_is_asked_to_count() -> None:
    away = Away()
    assert await PromptCounts(away, readers()).of_agent(ASKED) is ASKED
    assert await PromptCounts(away, readers(tiny=None)).of_chat("tiny", chat()) is None
    assert await PromptCounts(away, readers()).of_chat("recorded:replies", chat()) is None
    assert away.asked == []


@pytest.mark.rule("CX-20", "MB-22")
@pytest.mark.parametrize("is_missing", [False, True], ids=["actor-away", "file-missing"])
async def test_count_that_cannot_be_had_leaves_the_estimate_and_a_word_in_the_log(
    is_missing: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = PromptCounts(service(FileTokenizers({}, tmp_path)) if is_missing else Away(), readers("bytes"))
    assert (await prompts.of_agent(ASKED)).counted is None
    assert await prompts.of_chat("bytes", chat()) is None
    assert "estimated" in caplog.text
    assert "8812370045" not in caplog.text


def chat(**changes: object) -> ChatRequest:
    found = ChatRequest(messages=(ChatMessage(role="user", content=NUMBERS),), sampling=Sampling(max_tokens=500))
    return found.model_copy(update=changes)


async def default_bound(prompts: PromptCounts | None, request: ChatRequest) -> tuple[int, int]:
    """The longest reply that a call without a bound asks for, and what it holds; `tiny` has 4,096 and replies 1,000."""
    model, days = ScriptedChatModel.of("fine"), Held()
    spending = PrincipalSpending(days, Budgets(), SystemClock())
    desk = ChatDesk(
        MODELS, {"tiny": model}, spending=spending, clock=SystemClock(), roles_of=lambda _: (), prompts=prompts
    )
    call = await desk.open(ANA, "tiny", request, call_id="chatcmpl-1", tag=NO_TAG, is_streamed=False, is_bounded=False)
    reply = await call.reply()
    scope = BudgetScope(kind="principal", id=ANA)
    (totals,) = await days.totals([scope], day_of(SystemClock().now_ms()))
    assert totals.reserved.tokens == 0
    assert totals.spent.tokens == reply.usage.tokens_in + reply.usage.tokens_out, "settled to what was used"
    return call.request.sampling.max_tokens, days.tokens[0][1]


def said(words: int) -> ChatRequest:
    text = ChatMessage(role="user", content="order of two pens " * (words // 4))
    return ChatRequest(messages=(text,), sampling=Sampling(max_tokens=1_000))


@pytest.mark.rule("AP-122", "CX-20", "MB-22")
async def test_reply_without_a_bound_is_as_long_as_the_context_leaves_by_the_count_or_as_the_engine_allows(
    files: FileTokenizers,
) -> None:
    prompts = PromptCounts(service(files), readers("words", tiny=id_of("bytes")))
    assert await default_bound(prompts, said(40)) == (1_000, 1_000)
    long = said(3_200)
    count = Counter("bytes").count(long.texts[0])
    most, held = await default_bound(prompts, long)
    assert most == held
    assert 4_096 - count - 60 <= most < 4_096 - count < 1_000
    assert await default_bound(prompts, said(20_000)) == (1, 1)


@pytest.mark.rule("AP-122", "MB-22")
async def test_reply_without_a_bound_is_never_cut_to_nothing_by_an_estimate() -> None:
    assert await default_bound(None, said(40)) == (1_000, 1_000)
    text = said(2_400)
    assert 4_096 - estimate_tokens(text.texts[0]) - 100 < (await default_bound(None, text))[0] < 1_000
    assert await default_bound(None, said(20_000)) == (256, 256)


async def held_by(prompts: PromptCounts | None, request: ChatRequest) -> tuple[int, int]:
    """What a call of `/v1` at the engine `tiny` holds while it runs, and what one that fails costs."""
    found = list[int]()
    for model in (ScriptedChatModel.of("fine"), ScriptedChatModel.of(ModelTimeout("late"))):
        days = Held()
        spending = PrincipalSpending(days, Budgets(), SystemClock())
        desk = ChatDesk(
            MODELS, {"tiny": model}, spending=spending, clock=SystemClock(), roles_of=lambda _: (), prompts=prompts
        )
        call = await desk.open(ANA, "tiny", request, call_id="chatcmpl-1", tag=NO_TAG, is_streamed=False)
        try:
            await call.reply()
            found.append(days.tokens[0][0] - days.tokens[0][1])
        except FleetError:
            scope = BudgetScope(kind="principal", id=ANA)
            found.append((await days.totals([scope], day_of(SystemClock().now_ms())))[0].spent.tokens)
    return found[0], found[1]


@pytest.mark.rule("CX-20", "MB-22")
async def test_call_of_v1_holds_and_costs_what_the_tokenizer_of_its_engine_counts(files: FileTokenizers) -> None:
    prompts = PromptCounts(service(files), readers("words", tiny=id_of("bytes")))
    count = Counter("bytes").count(NUMBERS)
    held, lost = await held_by(prompts, chat())
    assert held == lost
    assert count < held <= count + 60
    offer = ToolOffer(name="look_up", description=NUMBERS[:1000], parameters={"type": "object"})
    more = Counter("bytes").count(NUMBERS[:1000])
    assert (await held_by(prompts, chat(tools=(offer,))))[0] > held + more
    assert await held_by(None, chat()) == (estimate_tokens(NUMBERS), estimate_tokens(NUMBERS))
