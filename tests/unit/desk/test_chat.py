"""Calls for principals outside of stories: budgets are held and settled however a call ends, nothing hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from fleet.desk.chat import ChatCall, ChatDesk, ChatLimits, EngineAccess
from fleet.desk.principals import PrincipalSpending
from fleet.events.budget import BudgetScope
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import (
    BudgetExceeded,
    FleetError,
    InvalidInput,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    StoreUnavailable,
)
from fleet.kernel.ids import Principal
from fleet.models.chat import NO_TAG, ChatMessage, ChatRequest, Sampling, ToolOffer
from fleet.models.memory import Hang, ScriptedChatModel
from fleet.models.port import ChatModel
from fleet.models.profiles import Budgets
from fleet.models.routing.budget import BudgetLimits, BudgetTotals, Spend
from fleet.owner.budgets import PLATFORM, day_of
from fleet.owner.spending.memory import MemoryDaySpending
from fleet.owner.spending.port import SpendingHold
from tests.support.llm_front import MODELS
from tests.support.stores import eventually

ANA = Principal("user:ana")
ASK = ChatRequest(messages=(ChatMessage(role="user", content="x" * 300),), sampling=Sampling(max_tokens=500))
SCOPE = BudgetScope(kind="principal", id=ANA)


class Days(MemoryDaySpending):
    """The day's totals; they can be out of reach when a call is settled."""

    settles = True

    async def settle(self, hold: SpendingHold, actual: Spend) -> bool:
        if not self.settles:
            raise StoreUnavailable("the log does not answer")
        return await super().settle(hold, actual)

    async def today(self, scope: BudgetScope = SCOPE) -> BudgetTotals:
        return (await self.totals([scope], day_of(SystemClock().now_ms())))[0]


def desk(
    model: ChatModel | Mapping[str, ChatModel],
    *,
    days: Days | None = None,
    budgets: Budgets | None = None,
    access: EngineAccess | None = None,
    abort_grace_s: float = 5,
) -> ChatDesk:
    models = model if isinstance(model, Mapping) else {"tiny": model, "plain": model}
    return ChatDesk(
        MODELS,
        models,
        spending=PrincipalSpending(days or Days(), budgets or Budgets(), SystemClock()),
        clock=SystemClock(),
        roles_of=lambda who: {"po"} if who == ANA else set(),
        access=access,
        limits=ChatLimits(timeout_s=10, abort_grace_s=abort_grace_s),
    )


async def opened(
    at: ChatDesk, request: ChatRequest = ASK, *, engine: str = "tiny", is_streamed: bool = True
) -> ChatCall:
    return await at.open(ANA, engine, request, call_id="chatcmpl-1", tag=NO_TAG, is_streamed=is_streamed)


def test_engine_is_offered_to_holders_of_its_roles_and_mocks_only_by_name():
    access = EngineAccess(also=("mock",), roles={"paid": ("po",), "plain": ("admin",)})
    at = desk({}, access=access)
    assert [e.engine_id for e in at.offered(ANA)] == ["tiny", "paid", "mock"]
    assert [e.engine_id for e in at.offered(Principal("user:dev"))] == ["tiny", "mock"]
    with pytest.raises(NotFound) as caught:
        at.engine(ANA, "plain")
    assert caught.value.details["allowed"] == ["tiny", "paid", "mock"]


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_call_is_held_while_it_runs_and_settled_when_its_reply_is_known(is_streamed: bool):
    days = Days()
    at = desk(ScriptedChatModel.of("one two\nthree"), days=days)
    call = await opened(at, is_streamed=is_streamed)
    assert (await days.today()).reserved == Spend(tokens=601, output_tokens=500, calls=1, cost_microusd=1101)
    reply = await call.reply()
    assert reply.text == "one two\nthree"
    totals = await days.today()
    assert (totals.spent.tokens, totals.spent.output_tokens, totals.spent.calls) == (4, 3, 1)
    assert totals.spent.cost_microusd == 7
    assert totals.reserved == Spend()
    assert await days.today(PLATFORM) == totals


@pytest.mark.rule("MB-22")
async def test_reply_is_cut_down_to_what_the_day_has_left_and_refused_below_a_useful_one():
    model = ScriptedChatModel.of("hello")
    at = desk(model, budgets=Budgets(principal=BudgetLimits(tokens=400)))
    await (await opened(at)).reply()
    assert model.calls[0].sampling.max_tokens == 299
    with pytest.raises(BudgetExceeded) as caught:
        await opened(desk(model, budgets=Budgets(platform=BudgetLimits(cost_microusd=300))))
    assert "platform" in caught.value.message
    with pytest.raises(BudgetExceeded):
        await opened(desk(model, budgets=Budgets(principal=BudgetLimits(calls=0))))
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    ("error", "tokens"),
    [
        (ModelUnavailable("down"), 0),
        (ModelTimeout("late"), 101),
        (ModelTimeout("never had its turn", queued=True), 0),
        (FleetError("broken"), 101),
    ],
)
async def test_failed_call_costs_its_prompt_when_the_engine_may_have_begun(error: FleetError, tokens: int):
    days = Days()
    call = await opened(desk(ScriptedChatModel.of(error), days=days))
    with pytest.raises(type(error)):
        await call.next()
    totals = await days.today()
    assert (totals.spent.tokens, totals.spent.calls, totals.reserved) == (tokens, 1, Spend())


@pytest.mark.rule("MB-23")
@pytest.mark.parametrize("outcome", ["hello", ModelUnavailable("down")])
async def test_call_that_cannot_be_settled_is_answered_and_stays_spent(outcome: str | FleetError):
    days = Days()
    days.settles = False
    call = await opened(desk(ScriptedChatModel.of(outcome), days=days))
    if isinstance(outcome, str):
        assert (await call.reply()).text == outcome
    else:
        with pytest.raises(ModelUnavailable):
            await call.reply()
    assert (await days.today()).reserved.tokens == 601


async def test_call_that_is_left_is_aborted_and_costs_what_it_used():
    days, model = Days(), ScriptedChatModel.of(Hang("so far"))
    call = await opened(desk(model, days=days))
    await eventually(lambda: bool(model.calls), within_s=60)
    assert await call.next(within_s=0.01) is None
    call.leave()
    assert (await call.reply()).finish_reason == "abort"
    assert (await days.today()).spent.output_tokens == 2


async def test_drain_ends_calls_that_are_under_way():
    days, model = Days(), ScriptedChatModel.of(Hang())
    at = desk(model, days=days)
    await opened(at)
    await eventually(lambda: bool(model.calls), within_s=60)
    await asyncio.wait_for(at.drain(), 60)
    # Nobody knows what the engine did: the hold stays.
    assert (await days.today()).reserved.tokens == 601


async def test_engine_without_a_model_here_is_unavailable_and_nothing_is_held():
    days = Days()
    with pytest.raises(ModelUnavailable):
        await opened(desk({}, days=days))
    assert (await days.today()).used == Spend()


@pytest.mark.parametrize(
    ("engine", "changes", "field"),
    [
        ("plain", {"json_schema": {"type": "object"}}, "response_format"),
        ("mock", {"tools": (ToolOffer(name="a", description="", parameters={}),)}, "tools"),
        ("mock", {"messages": (ChatMessage(role="tool", content="x", tool_use_id="c"),)}, "tools"),
        ("mock", {"json_schema": {"minimum": 0.5}}, "response_format"),
    ],
)
async def test_request_for_what_the_engine_cannot_do_is_refused(engine: str, changes: dict[str, object], field: str):
    at = desk({}, access=EngineAccess(also=("mock",)))
    with pytest.raises(InvalidInput) as caught:
        await opened(at, ASK.model_copy(update=changes), engine=engine)
    assert caught.value.details["field"] == field


@pytest.mark.rule("MB-14")
async def test_tools_are_offered_to_real_models_without_tools_of_their_own():
    model = ScriptedChatModel.of("hello")
    offer = ToolOffer(name="getWeather", description="", parameters={})
    await (await opened(desk(model), ASK.model_copy(update={"tools": (offer,)}), engine="plain")).reply()
    assert model.calls[0].tools == (offer,)


async def test_stream_that_ends_without_its_reply_is_a_failure():
    class Cut(ScriptedChatModel):
        async def stream(self, *_: object, **__: object):  # pyright: ignore[reportIncompatibleMethodOverride]
            for chunk in ():
                yield chunk

    with pytest.raises(ModelUnavailable):
        await (await opened(desk(Cut.of("x")))).reply()
