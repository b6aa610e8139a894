"""Budgets as owners apply them: calls, commands, the desk that shows them, what engines say later (MB-20..MB-32)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from fleet.desk.budgets import BudgetDesk, parse_key
from fleet.events.budget import BudgetScope
from fleet.events.envelope import StoredEvent
from fleet.events.report import OwnershipTaken
from fleet.events.step import PolicyRef, Reserve, StepStarted
from fleet.events.story import StoryParked
from fleet.kernel.clock import MemoryClock, settled
from fleet.kernel.errors import (
    ApprovalRequired,
    BudgetExceeded,
    ContextTooLarge,
    InvalidInput,
    ModelUnavailable,
    OwnershipLost,
    PolicyDenied,
    ReplyMalformed,
    StoreUnavailable,
    StoryNotFound,
)
from fleet.kernel.ids import CommandId, EntityId, Principal, RunKey, StepId, StoryId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Command
from fleet.models.chat import Sampling, TokenUsage
from fleet.models.engine_config import HttpEngine, Price
from fleet.models.engines.openai import OpenAIChatModel
from fleet.models.port import AgentAnswer, AgentRequest, FinishedCall
from fleet.models.profiles import Budgets, ModelsConfig, StepCaps, load_models
from fleet.models.routing.budget import BudgetLimits
from fleet.models.service.usage_logs import UsageLogs
from fleet.owner.budgets import PLATFORM, Budgeting, day_of
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.steps import Work
from fleet.owner.reconcile import Reconciler, settle_from_engines, uses_of
from fleet.owner.spending.memory import MemoryDaySpending
from fleet.owner.workbench import seat, together
from fleet.policy.runs.spec import RunSpec
from tests.support.acting import role_agent
from tests.support.bench import ScriptedAgents, World
from tests.support.openai_server import Scripted, serving
from tests.support.rules import files
from tests.support.story_events import STORY, digest, story

DEV = seat("developer")
WORK = Work(seat=DEV, tool="model", op="draft", council_id=EntityId("co-one1"))
SCOPE = BudgetScope(kind="story", id=STORY)


def request(own: str = "write it", *, max_tokens: int = 700, model: str | None = None) -> AgentRequest:
    sampling = Sampling(temperature="0.2", max_tokens=max_tokens, seed=7)
    return AgentRequest(
        kind="draft",
        role="developer",
        principal=DEV.principal,
        shared="shared",
        own=own,
        sampling=sampling,
        model=model,
    )


async def world_with(budgeting: Budgeting, **parts: Any) -> tuple[World, Journal]:
    world = World(budgeting=budgeting, agents=ScriptedAgents(lambda _: {"ok": 1}), **parts)
    await story(until="created").write_to(world.log)
    return world, await world.journal()


def limited(**limits: int) -> Budgeting:
    return Budgeting(limits=Budgets(story=BudgetLimits.model_validate({"tokens": 10**6} | limits)))


@pytest.mark.rule("MB-22", "PL-48")
async def test_lowered_call_is_asked_and_found_again_with_the_bound_that_is_on_record() -> None:
    prompt = Budgeting().prompt_tokens(request())
    world, journal = await world_with(limited(tokens=prompt + 400))
    await journal.ask("s", request(), WORK)
    assert world.agents.requests[0].sampling.max_tokens == 400
    assert journal.state.steps["s"].started.reserve.output_tokens == 400
    world.budgeting = limited(tokens=10**6)
    again = await world.journal()
    await again.ask("s", request(), WORK)
    assert len(world.agents.requests) == 1


@pytest.mark.rule("MB-22", "MB-25")
async def test_limit_that_stops_a_call_is_on_record_once_and_no_model_is_asked() -> None:
    world, journal = await world_with(limited(calls=0))
    for _ in range(2):
        with pytest.raises(BudgetExceeded, match=r"fleet budget set st-slug7 --calls N"):
            await journal.ask("s", request(), WORK)
    assert (await world.types()).count("BudgetExhausted") == 1
    assert "StepStarted" not in await world.types()
    assert world.agents.asked == []


@pytest.mark.rule("MB-15", "MB-25")
@pytest.mark.parametrize(
    "answer",
    [
        Scripted("```python\n# file: a.py\nx = 1\n```", delay_s=0.2),
        Scripted(status=413, error="too long", delay_s=0.2),
    ],
    ids=["answered", "failed"],
)
async def test_gpu_time_binds_an_engine_that_is_reached_by_address(answer: Scripted) -> None:
    engine: dict[str, JsonValue] = {
        "engine_id": "recorded",
        "kind": "vllm",
        "gpus": 1,
        "model": "tiny-1b",
        "unpriced": True,
    }
    async with serving(answer) as server:
        known = {**engine, "base_url": server.base_url}
        model = OpenAIChatModel(HttpEngine.model_validate(known), base_url=server.base_url, model="tiny-1b")
        world, _ = await world_with(limited(gpu_ms=500))
        world.agents = role_agent(model)  # type: ignore[assignment]
        journal = await world.journal()

        async def ask(number: int) -> str | None:
            try:
                await journal.ask(f"s{number}", request(f"part {number}"), WORK)
            except (BudgetExceeded, ContextTooLarge) as error:
                return error.message if isinstance(error, BudgetExceeded) else None
            return None

        refusals = [await ask(number) for number in range(5)]
        await model.close()
    # Each call takes 200 ms of the one GPU at least.
    assert (refusals[0], None in refusals[3:]) == (None, False)
    assert "--gpu-ms N" in (refusals[-1] or "")
    assert journal.state.budgets.usage(SCOPE).totals(now_ms=0).spent.gpu_ms >= 500


@pytest.mark.rule("MB-22")
async def test_step_that_is_too_large_is_refused_and_leaves_no_mark() -> None:
    world, journal = await world_with(Budgeting(limits=Budgets(step=BudgetLimits(tokens=100))))
    with pytest.raises(BudgetExceeded, match="step budget"):
        await journal.ask("s", request(), WORK)
    assert "BudgetExhausted" not in await world.types()


@pytest.mark.rule("MB-42")
@pytest.mark.parametrize(("caps", "who"), [({"story": 2}, "story st-slug7"), ({"task": 2}, "task tk-one1")])
async def test_step_beyond_the_cap_does_not_start_and_one_on_record_is_found_again(
    caps: dict[str, int], who: str
) -> None:
    world, journal = await world_with(Budgeting(limits=Budgets(steps=StepCaps(**caps))))
    work = replace(WORK, task_id=EntityId("tk-one1"))
    for step in ("a", "b", "a"):
        await journal.ask(step, request(step), work)
    types = await world.types()
    for _ in range(2):
        with pytest.raises(BudgetExceeded, match=f"{who} has taken 2 steps, .* unpark") as refused:
            await journal.ask("c", request("c"), work)
        assert refused.value.details["limit"] == 2
        with pytest.raises(BudgetExceeded, match=who):
            await journal.run("r", RunSpec(argv=("true",)), replace(work, tool="tests", op="pytest"))
    assert await world.types() == types
    assert len(world.agents.asked) == 2
    # Another task may take steps of its own, until those of the story are used up.
    other = journal.ask("d", request("d"), replace(WORK, task_id=EntityId("tk-two2")))
    if "story" in caps:
        with pytest.raises(BudgetExceeded):
            await other
    else:
        await other


@pytest.mark.rule("MB-25", "MB-27")
async def test_run_is_refused_once_the_time_of_the_story_is_used_up() -> None:
    world, journal = await world_with(limited(wall_ms=0))
    with pytest.raises(BudgetExceeded, match="--wall-ms N"):
        await journal.run("r", RunSpec(argv=("true",)), replace(WORK, tool="tests", op="pytest"))
    assert "StepStarted" not in await world.types()


@pytest.mark.rule("MB-25")
async def test_refused_call_lets_those_under_way_finish_and_a_defect_does_not() -> None:
    done: list[str] = []

    async def slow() -> str:
        await asyncio.sleep(0.01)
        done.append("slow")
        return "slow"

    async def refused() -> str:
        raise BudgetExceeded("used up")

    async def broken() -> str:
        raise ReplyMalformed("broken")

    with pytest.raises(BudgetExceeded):
        await together([refused(), slow()])
    assert done == ["slow"]
    with pytest.raises(ReplyMalformed):
        await together([broken(), slow(), refused()])
    assert done == ["slow"]
    # Whoever looks later whether it was cancelled itself must not find what the group did.
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0
    assert await together([slow(), slow()]) == ["slow", "slow"]


@pytest.mark.rule("MB-22")
async def test_call_waits_for_what_those_under_way_leave_before_it_is_refused() -> None:
    prompt = Budgeting().prompt_tokens(request())
    world, journal = await world_with(limited(tokens=prompt + 900))
    await together([journal.ask(f"s{n}", request(), WORK) for n in range(3)])
    assert [r.sampling.max_tokens for r in world.agents.requests] == [700, 700, 700]
    assert journal.state.budgets.usage(SCOPE).spent.tokens == 45


@pytest.mark.rule("MB-20", "MB-23")
async def test_day_of_the_platform_binds_all_stories_and_is_settled_with_what_was_used() -> None:
    spending = MemoryDaySpending()
    limits = Budgets(platform=BudgetLimits(calls=2), project=BudgetLimits(tokens=10**6))
    world, journal = await world_with(Budgeting(limits=limits, spending=spending))
    for step in ("a", "b"):
        await journal.ask(step, request(), WORK)
    with pytest.raises(BudgetExceeded, match="platform"):
        await journal.ask("c", request(), WORK)
    (totals,) = await spending.totals([PLATFORM], day_of(world.clock.now_ms()))
    assert (totals.spent.tokens, totals.spent.calls, totals.reserved.tokens) == (30, 2, 0)
    assert "BudgetExhausted" not in await world.types()
    assert await spending.open_holds(STORY) == []


@pytest.mark.rule("MB-23")
async def test_call_that_the_policy_refuses_holds_nothing_of_the_day() -> None:
    spending = MemoryDaySpending()
    _, journal = await world_with(Budgeting(spending=spending))
    with pytest.raises(PolicyDenied):
        await journal.ask("a", request(), replace(WORK, tool="nothing", op="such"))
    assert await spending.open_holds(STORY) == []


@pytest.mark.rule("MB-23")
async def test_hold_of_a_step_that_never_started_is_free_for_the_next_owner() -> None:
    spending = MemoryDaySpending()
    world, journal = await world_with(Budgeting(spending=spending))
    from fleet.story.allowance import CallNeed

    need = CallNeed(step_id=StepId("a"), role="qa", prompt_tokens=10, max_tokens=10)
    await journal.budgeting.allow(journal.state, need, epoch=0, now_ms=world.clock.now_ms())
    assert len(await spending.open_holds(STORY)) == 1
    await world.journal()
    assert await spending.open_holds(STORY) == []


def priced() -> ModelsConfig:
    found = load_models(files().document("models.yaml"))
    price = Price(in_microusd_per_mtok=3_000_000, out_microusd_per_mtok=6_000_000)
    engines = [e.model_copy(update={"price": price, "unpriced": False}) for e in found.engines if e.kind == "mock"]
    others = [e for e in found.engines if e.kind != "mock"]
    return found.model_copy(update={"engines": (*engines, *others)})


@pytest.mark.rule("MB-20", "MB-31")
async def test_priced_call_holds_its_dearest_price_and_an_unpriced_one_is_bound_by_tokens() -> None:
    _, journal = await world_with(Budgeting(models=priced()))
    await journal.ask("a", request(model="mock"), WORK)
    await journal.ask("b", request(), WORK)
    held = journal.state.steps["a"].started.reserve
    assert held.output_tokens == 700
    assert held.cost_microusd == 3 * (held.tokens - 700) + 6 * 700
    assert journal.state.steps["b"].started.reserve.cost_microusd is None
    assert Budgeting(models=priced()).price("nobody-knows-it") is None


async def test_failed_and_priced_answers_are_recorded_with_what_they_cost() -> None:
    spent = {"calls": 2, "latency_ms": 9, "gpu_ms": 8, "queue_ms": 7, "cost_microusd": 6}
    usage = {"tokens_in": 5, "tokens_out": 4, "tokens_cached": 3}
    world, journal = await world_with(Budgeting())
    world.agents.answer = lambda _: ReplyMalformed("no", usage=usage, spent=spent)
    with pytest.raises(ReplyMalformed):
        await journal.ask("a", request(), WORK)
    finished = journal.state.steps["a"].finished
    assert finished is not None
    assert finished.cost.model_dump() == {**spent, **usage, "priced": True}
    assert journal.state.budgets.usage(SCOPE).spent.cost_microusd == 6


@pytest.mark.rule("MB-15", "MB-20")
async def test_calls_that_no_engine_answered_are_charged_and_their_step_stays_open() -> None:
    spending, limits = MemoryDaySpending(), Budgets(story=BudgetLimits(gpu_ms=100))
    world, journal = await world_with(Budgeting(limits=limits, spending=spending))
    used: dict[str, Any] = {"usage": {"tokens_in": 5, "tokens_out": 4}, "spent": {"calls": 2, "gpu_ms": 60}}
    world.agents.answer = lambda _: ModelUnavailable("down", **used)
    for tries in (1, 2):
        with pytest.raises(ModelUnavailable):
            await journal.ask("a", request(), WORK)
        spent = journal.state.budgets.usage(SCOPE).spent
        assert (spent.gpu_ms, spent.tokens, spent.calls) == (60 * tries, 9 * tries, 2 * tries)
        assert "a" in journal.state.budgets.holds
    (day,) = await spending.totals([PLATFORM], day_of(world.clock.now_ms()))
    assert (day.spent.gpu_ms, day.spent.calls) == (120, 4)
    assert await spending.open_holds(STORY)
    with pytest.raises(BudgetExceeded, match="--gpu-ms N"):
        await journal.ask("a", request(), WORK)


async def test_engine_that_is_down_at_once_leaves_no_mark() -> None:
    world, journal = await world_with(Budgeting())
    world.agents.answer = lambda _: ModelUnavailable("down", spent={"calls": 1, "gpu_ms": 0})
    with pytest.raises(ModelUnavailable):
        await journal.ask("a", request(), WORK)
    assert "UsageAdjusted" not in await world.types()


# Commands.


async def commanded(
    world: World, limits: dict[str, Any], *, who: str = "user:ana", key: str = "key-1", **body: Any
) -> Any:
    bench = await world.bench()
    command = Command(
        command_id=CommandId(f"{who}/{key}"),
        stream=StreamId.of_story(STORY),
        name="set_budget",
        principal=Principal(who),
        body={"limits": limits, **body},
    )
    return await world.commands.handle(bench, command)


@pytest.mark.rule("MB-24")
async def test_command_raises_the_budget_of_a_parked_story_which_then_goes_on() -> None:
    world, journal = await world_with(limited())
    await journal.record("park", StoryParked(cause="budget_exhausted", detail="used up"))
    result = await commanded(world, {"tokens": 2 * 10**6}, note="worth it")
    assert result["disposition"] == "active"
    assert (await world.types())[-4:] == ["ApprovalRequested", "ApprovalGranted", "BudgetSet", "StoryUnparked"]


@pytest.mark.rule("MB-24", "LC-71")
async def test_who_cannot_consent_asks_once_and_sets_it_after_the_yes() -> None:
    world, _ = await world_with(limited())
    world.commands._roles_of = lambda p: frozenset({"admin"} if p == "user:root" else {"po"})  # pyright: ignore[reportPrivateUsage]
    for number in (1, 2):
        with pytest.raises(ApprovalRequired, match="raise_budget|approve the higher budget") as caught:
            await commanded(world, {"tokens": 2 * 10**6}, who="user:root", key=f"key-{number}")
    assert (await world.types()).count("ApprovalRequested") == 1
    bench = await world.bench()
    approve = Command(
        command_id=CommandId("user:ana/yes-1"),
        stream=StreamId.of_story(STORY),
        name="approve",
        principal=Principal("user:ana"),
        body={"gate": caught.value.details["approval_id"]},
    )
    await world.commands.handle(bench, approve)
    await commanded(world, {"tokens": 2 * 10**6}, who="user:root", key="key-3")
    assert (await world.types())[-1] == "BudgetSet"


@pytest.mark.parametrize("body", [{"limits": {"apples": 1}}, {"limits": {"tokens": -1}}, {"limits": {}}, {"x": 1}, {}])
async def test_budget_of_a_wrong_form_is_refused_and_records_nothing(body: dict[str, Any]) -> None:
    world, journal = await world_with(limited())
    limits = body.pop("limits", None)
    with pytest.raises(InvalidInput):
        await commanded(world, limits, **body)
    assert len(await world.events()) == journal.state.version


# What people see.


def desk_of(world: World, spending: MemoryDaySpending, limits: Budgets | None = None) -> BudgetDesk:
    return BudgetDesk(log=world.log, spending=spending, limits=limits or Budgets(), clock=world.clock)


@pytest.mark.rule("MB-30")
async def test_desk_shows_limits_and_usage_of_a_story_and_of_the_day() -> None:
    spending = MemoryDaySpending()
    limits = Budgets(project=BudgetLimits(tokens=50))
    world, journal = await world_with(Budgeting(spending=spending))
    await journal.ask("a", request(), WORK)
    desk = desk_of(world, spending, limits)
    (line,) = [x for x in (await desk.story(STORY)).lines if (x.scope, x.quantity) == ("story", "tokens")]
    assert (line.limit, line.spent, line.left) == (20_000_000, 15, 19_999_985)
    today = {(x.scope, x.id, x.quantity): (x.limit, x.left) for x in (await desk.today()).lines}
    assert today["project", "pr-default", "tokens"] == (50, 35)
    assert today["platform", "main", "tokens"] == (None, None)
    (role,) = await desk.usage(by="role")
    assert (role.key, role.calls, role.tokens_in, role.tokens_unpriced) == ("developer", 1, 10, 15)
    assert [s.key for s in await desk.usage(STORY, by="engine")] == ["scripted"]


async def test_desk_names_what_does_not_exist() -> None:
    world, _ = await world_with(Budgeting())
    desk = desk_of(world, MemoryDaySpending())
    with pytest.raises(StoryNotFound):
        await desk.story(StoryId("st-none1"))
    with pytest.raises(StoryNotFound):
        await desk.rows(StoryId("st-none1"))
    with pytest.raises(InvalidInput, match="apples"):
        parse_key("apples")


# Engines.


def started(step: str) -> StepStarted:
    return StepStarted(
        step_id=StepId(step),
        kind="model",
        effect="PURE",
        as_role="developer",
        principal=DEV.principal,
        request_digest=digest(step),
        key=RunKey("ab" * 32),
        deadline_ms=10**15,
        policy=PolicyRef(rule_id="r", digest=digest("p")),
        reserve=Reserve(tokens=1000, output_tokens=500),
    )


def call(step: str, number: int, *, tokens: int = 30) -> FinishedCall:
    usage = TokenUsage(tokens_in=tokens, tokens_out=10)
    return FinishedCall(
        number=number,
        request_id=f"{STORY}/{step}#{number}",
        usage=usage,
        gpu_ms=5,
        finish="stop",
        ended_ms=1,
    )


@pytest.mark.rule("MB-23", "MB-32")
async def test_lost_call_is_settled_by_the_log_of_its_engine_and_nothing_else_is() -> None:
    log = story(until="created")
    world = World()
    await log.write_to(world.log)
    journal = await world.journal()
    world.agents.answer = lambda _: {"ok": 1}
    await journal.record("lost", started("lost"), started("runs"))
    world.log.raise_epoch(StreamId.of_story(STORY))
    journal = await world.journal(epoch=1)
    await journal.record("own", OwnershipTaken(epoch=1, previous_epoch=0, owner="council:0/b", cause="restart"))
    before = journal.state.budgets.usage(SCOPE)
    calls = {"e1": [call("lost", 1), call("other", 2)], "e2": []}
    assert [u.step_id for u in uses_of(calls, STORY)] == ["lost", "other"]
    (settled,) = await settle_from_engines(journal, calls)
    assert settled.step_id == "lost"
    after = journal.state.budgets.usage(SCOPE)
    assert (after.spent.tokens, before.reserved.tokens - after.reserved.tokens) == (40, 1000)
    assert await settle_from_engines(journal, calls) == ()


async def taken_over(*steps: str, spending: MemoryDaySpending | None = None, **parts: Any) -> tuple[World, Journal]:
    """A story whose owner ended in the middle of these calls, in the hands of the next one."""
    world, journal = await world_with(Budgeting(spending=spending), **parts)
    await journal.record("lost", *(started(step) for step in steps))
    for step in steps:
        await journal.budgeting.hold_again(journal.state, StepId(step), epoch=0, now_ms=world.clock.now_ms())
    world.log.raise_epoch(StreamId.of_story(STORY))
    journal = await world.journal(epoch=1)
    await journal.record("own", OwnershipTaken(epoch=1, previous_epoch=0, owner="council:0/b", cause="restart"))
    return world, journal


class SlowAgents(ScriptedAgents):
    """Agents that answer once they may."""

    def __init__(self) -> None:
        super().__init__(lambda _: {})
        self.answering, self.may_answer = asyncio.Event(), asyncio.Event()

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        self.answering.set()
        await self.may_answer.wait()
        return answered(usage=TokenUsage(tokens_in=30, tokens_out=10))


class AwayLog(MemoryEventLog):
    """A log that can be out of reach for those who read."""

    is_away = False

    async def read(self, stream: StreamId, **options: Any) -> list[StoredEvent]:
        if self.is_away:
            raise StoreUnavailable("the log is away")
        return await super().read(stream, **options)


class EngineLog:
    """An engine's log, that can be out of reach."""

    def __init__(self, *calls: FinishedCall) -> None:
        self.calls, self.is_away = list(calls), False

    async def usage(self, *, after: int = 0) -> tuple[FinishedCall, ...]:
        if self.is_away:
            raise ModelUnavailable("the engine is away")
        return tuple(c for c in self.calls if c.number > after)


@pytest.mark.rule("MB-23", "MB-32")
async def test_step_that_lost_two_calls_waits_until_the_engine_ended_both() -> None:
    world, journal = await taken_over("a")
    world.log.raise_epoch(StreamId.of_story(STORY))
    journal = await world.journal(epoch=2)
    await journal.record("own2", OwnershipTaken(epoch=2, previous_epoch=1, owner="council:0/c", cause="restart"))
    assert await settle_from_engines(journal, {"e": [call("a", 1)]}) == ()
    (settled,) = await settle_from_engines(journal, {"e": [call("a", 1), call("a", 2)]})
    assert (settled.delta["calls"], settled.delta["tokens"]) == (2, 80)
    assert journal.state.budgets.holds["a"].lost == ()


@pytest.mark.rule("MB-23", "MB-32")
async def test_step_under_way_is_settled_once_it_is_over_and_no_call_of_it_counts_twice() -> None:
    world, _ = await world_with(Budgeting())
    agents = world.agents = SlowAgents()
    journal = await world.journal()
    first = asyncio.create_task(journal.ask("s", request(), WORK))
    await agents.answering.wait()
    first.cancel()
    world.log.raise_epoch(StreamId.of_story(STORY))
    journal = await world.journal(epoch=1)
    await journal.record("own", OwnershipTaken(epoch=1, previous_epoch=0, owner="council:0/b", cause="restart"))
    agents.answering.clear()
    second = asyncio.create_task(journal.ask("s", request(), WORK))
    await agents.answering.wait()
    calls = {"e": [call("s", 1), call("s", 2)]}
    assert await settle_from_engines(journal, calls) == ()
    agents.may_answer.set()
    await second
    (settled,) = await settle_from_engines(journal, calls)
    assert settled.delta["calls"] == 1
    usage = journal.state.budgets.usage(SCOPE)
    assert (usage.spent.tokens, usage.spent.calls, usage.reserved.tokens) == (80, 2, 0)


@pytest.mark.rule("MB-23")
async def test_day_is_free_of_what_a_lost_call_did_not_use() -> None:
    spending = MemoryDaySpending()
    world, journal = await taken_over("a", spending=spending)
    await settle_from_engines(journal, {"e": [call("a", 1)]})
    (totals,) = await spending.totals([PLATFORM], day_of(world.clock.now_ms()))
    assert (totals.spent.tokens, totals.reserved.tokens) == (40, 0)


@pytest.mark.rule("MB-32")
async def test_engine_that_is_away_costs_nothing_but_a_later_look() -> None:
    world, journal = await taken_over("a")
    clock, log = world.clock, EngineLog(call("a", 1))
    assert isinstance(clock, MemoryClock)
    log.is_away = True
    before = journal.state.version
    reconciler = Reconciler(journal, UsageLogs({"e": {"engine:e:0": log}}, clock), clock)
    looks = asyncio.create_task(reconciler.run())
    for _ in range(50):
        await asyncio.sleep(0)
    assert journal.state.version == before
    log.is_away = False
    for _ in range(50):
        clock.advance(5)
        await asyncio.sleep(0)
    assert (await world.types()).count("UsageAdjusted") == 1
    await reconciler.last()
    clock.advance(1000)
    await looks
    assert (await world.types()).count("UsageAdjusted") == 1
    assert journal.state.budgets.usage(SCOPE).spent.tokens == 40


@pytest.mark.rule("MB-32")
async def test_store_that_is_away_costs_nothing_but_a_later_look() -> None:
    log = AwayLog()
    world, journal = await taken_over("a", log=log)
    clock = world.clock
    assert isinstance(clock, MemoryClock)
    log.is_away = True
    reconciler = Reconciler(journal, UsageLogs({"e": {"engine:e:0": EngineLog(call("a", 1))}}, clock), clock)
    looks = asyncio.create_task(reconciler.run())
    await settled()
    log.is_away = False
    assert "UsageAdjusted" not in await world.types()
    clock.advance(31)
    await settled()
    assert (await world.types()).count("UsageAdjusted") == 1
    looks.cancel()
    await asyncio.gather(looks, return_exceptions=True)


async def test_story_that_does_not_exist_yet_has_nothing_to_settle() -> None:
    world = World()
    journal = await world.journal()
    await Reconciler(journal, UsageLogs({}, world.clock), world.clock).last()
    assert not journal.exists


@pytest.mark.rule("MB-32")
async def test_store_that_is_away_at_the_last_look_keeps_nobody_from_closing() -> None:
    world, journal = await taken_over("a")
    reconciler = Reconciler(
        journal, UsageLogs({"e": {"engine:e:0": EngineLog(call("a", 1))}}, world.clock), world.clock
    )

    async def away(_: object) -> list[StoredEvent]:
        raise StoreUnavailable("the log is away")

    world.log.read = away  # pyright: ignore[reportAttributeAccessIssue]
    await reconciler.last()
    assert journal.state.budgets.holds["a"].lost == (0,)


@pytest.mark.rule("GL-19", "MB-32")
async def test_reconciler_of_a_story_that_has_another_owner_writes_nothing_and_ends() -> None:
    world, journal = await taken_over("a")
    world.log.raise_epoch(StreamId.of_story(STORY))
    usage = UsageLogs({"e": {"engine:e:0": EngineLog(call("a", 1))}}, world.clock)
    await asyncio.wait_for(Reconciler(journal, usage, world.clock).run(), 60)
    with pytest.raises(OwnershipLost):
        await Reconciler(journal, usage, world.clock).last()
    assert "UsageAdjusted" not in await world.types()


@pytest.mark.rule("MB-32")
async def test_reconciler_warns_once_where_engine_and_ledger_count_differently(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, journal = await world_with(Budgeting())
    await journal.ask("a", request(), WORK)
    log = EngineLog(call("a", 1, tokens=5))
    reconciler = Reconciler(journal, UsageLogs({"scripted": {"engine:0": log}}, MemoryClock()), world.clock)
    await reconciler.last()
    assert caplog.messages == []
    log.calls[0] = call("a", 1, tokens=90)
    other = Reconciler(journal, UsageLogs({"scripted": {"engine:0": log}}, MemoryClock()), world.clock)
    for _ in range(2):
        await other.last()
    (line,) = caplog.messages
    assert "15 tokens" in line
    assert "100;" in line


def answered(**changes: Any) -> AgentAnswer:
    answer = AgentAnswer(
        value={},
        prompt=digest("p"),
        reply=digest("r"),
        usage=TokenUsage(),
        engine="e",
        model="m",
        revision="1",
        latency_ms=1,
    )
    return replace(answer, **changes)


@pytest.mark.rule("MB-12", "MB-31")
async def test_answer_is_recorded_with_its_cost_and_queue_and_without_a_price_as_unpriced() -> None:
    from fleet.owner.journal.step_records import finished_ask

    world = World()
    priced_ = await finished_ask(world.blobs, StepId("a"), answered(cost_microusd=4, gpu_ms=3, queue_ms=2), seed=1)
    assert (priced_.cost.cost_microusd, priced_.cost.priced, priced_.cost.gpu_ms, priced_.cost.queue_ms) == (
        4,
        True,
        3,
        2,
    )
    unpriced = await finished_ask(world.blobs, StepId("a"), answered(), seed=1)
    assert (unpriced.cost.cost_microusd, unpriced.cost.priced) == (None, False)
